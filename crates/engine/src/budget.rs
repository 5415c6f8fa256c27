//! `[gaffer] logs_total` and `logs.age`: old segments go.
//!
//! Shims keep each stream within its own bound. What all of them take together, and how old a segment may be, is looked at
//! here now and then. A segment that may be written to is never touched: of a stream it is the newest one, which also holds
//! the offset at which its next run goes on. Only what no run will ever write to again goes whole: the streams of one-offs that
//! have ended, and those of jobs and queues that are gone.

use crate::owner::lock;
use crate::state::State;
use gaffer_config::LogsTotal;
use gaffer_core::name::{JobId, Name, Place, Slot};
use gaffer_core::queue::spec::QueueId;
use gaffer_core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::SystemTime;

/// The logs are looked at so often, and when settings change.
const EVERY: Duration = Duration::from_secs(30);

/// Begins to look after the logs, until the engine is gone.
pub(crate) fn begin(state: &Arc<Mutex<State>>) {
    let mut bell = lock(state).budget_bell.subscribe();
    let state = Arc::downgrade(state);
    tokio::spawn(async move {
        while let Some(rules) = rules(&state) {
            let swept = tokio::task::spawn_blocking(move || rules.sweep(SystemTime::now())).await;
            if let Ok(swept) = swept
                && swept.segments > 0
            {
                tracing::info!(
                    segments = swept.segments,
                    bytes = swept.bytes,
                    left = swept.left,
                    "logs.pruned"
                );
            }
            // The sender lives as long as the state: without it there is nothing to look after.
            if let Ok(Err(_)) = tokio::time::timeout(EVERY, bell.changed()).await {
                return;
            }
        }
    });
}

/// What holds for the logs at one moment.
struct Rules {
    dir: PathBuf,
    total: LogsTotal,
    /// `logs.age` of the jobs that are there.
    ages: BTreeMap<JobId, Option<Duration>>,
    /// The same of the queues. One that is gone is there as long as it has a worker.
    queues: BTreeMap<QueueId, Option<Duration>>,
    /// Slots with a live run.
    live: BTreeSet<Slot>,
}

fn rules(state: &Weak<Mutex<State>>) -> Option<Rules> {
    let state = state.upgrade()?;
    let state = lock(&state);
    let live = state.runs.runs.values().filter(|facts| !facts.is_over());
    let workers = live
        .clone()
        .filter_map(|facts| crate::queue::of_worker(&facts.slot));
    let mut queues: BTreeMap<QueueId, Option<Duration>> = workers.map(|queue| (queue, None)).collect();
    let defined = state.queues.defined.iter();
    queues.extend(defined.map(|(queue, defined)| (queue.clone(), defined.spec.logs.age)));
    Some(Rules {
        dir: state.settings.logs_dir(),
        total: state.tuning.logs_total,
        ages: state
            .jobs
            .iter()
            .map(|(job, meta)| (job.clone(), meta.spec.logs.age))
            .collect(),
        queues,
        live: live.filter_map(|facts| facts.slot.parse().ok()).collect(),
    })
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Swept {
    segments: usize,
    bytes: u64,
    left: u64,
}

/// A segment with its index.
#[derive(Debug)]
struct Segment {
    modified: SystemTime,
    bytes: u64,
    log: PathBuf,
    /// May it go?
    free: bool,
    age: Option<Duration>,
}

impl Rules {
    fn sweep(&self, now: SystemTime) -> Swept {
        let mut segments = self.segments();
        segments.sort_by(|a, b| (a.modified, &a.log).cmp(&(b.modified, &b.log)));
        let mut swept = Swept {
            left: segments.iter().map(|segment| segment.bytes).sum(),
            ..Swept::default()
        };
        // No jobs and no logs: nobody needs to know how large the disk is.
        let budget = if swept.left == 0 { 0 } else { self.budget() };
        for segment in segments.iter().filter(|segment| segment.free) {
            let old = now.duration_since(segment.modified).unwrap_or_default();
            let too_old = segment.age.is_some_and(|age| old > age);
            if (too_old || swept.left > budget) && segment.remove() {
                swept.segments += 1;
                swept.bytes += segment.bytes;
                swept.left -= segment.bytes;
            }
        }
        swept
    }

    fn budget(&self) -> u64 {
        match self.total {
            LogsTotal::Bytes(bytes) => bytes,
            LogsTotal::Percent(share) => match rustix::fs::statvfs(&self.dir) {
                Ok(disk) => disk.f_blocks.saturating_mul(disk.f_frsize) / 100 * u64::from(share),
                // A disk that cannot be asked is no reason to remove anything.
                Err(_) => u64::MAX,
            },
        }
    }

    fn segments(&self) -> Vec<Segment> {
        let mut segments = Vec::new();
        for session in entries(&self.dir) {
            for job in entries(&session) {
                let id = job_of(&session, &job);
                let queue = queue_of(&session, &job);
                let age = match (&id, &queue) {
                    (Some(job), _) => self.ages.get(job),
                    (None, Some(queue)) => self.queues.get(queue),
                    (None, None) => None,
                };
                for place in entries(&job) {
                    self.segments_of(id.as_ref(), age.copied(), &place, &mut segments);
                }
            }
        }
        segments
    }

    /// The segments below one place of a job or queue; `known`: its `logs.age`, if it is there.
    fn segments_of(
        &self,
        job: Option<&JobId>,
        known: Option<Option<Duration>>,
        dir: &Path,
        segments: &mut Vec<Segment>,
    ) {
        let one_off = name_of(dir).strip_prefix("run-").and_then(|n| n.parse().ok());
        let live = match (job, one_off) {
            (Some(job), Some(n)) => self.live.contains(&Slot {
                job: job.clone(),
                place: Place::OneOff(n),
            }),
            _ => known.is_some(),
        };
        let mut newest: BTreeMap<String, usize> = BTreeMap::new();
        let mut logs: Vec<PathBuf> = entries(dir)
            .into_iter()
            .filter(|path| path.extension().is_some_and(|ext| ext == "log"))
            .collect();
        // First offsets have twenty digits: the order of names is that of the bytes.
        logs.sort();
        for log in logs {
            let Ok(meta) = std::fs::symlink_metadata(&log) else {
                continue;
            };
            let index = std::fs::symlink_metadata(log.with_extension("idx")).map_or(0, |meta| meta.len());
            let stream = name_of(&log).split('.').next().unwrap_or_default().to_owned();
            newest.insert(stream, segments.len());
            segments.push(Segment {
                modified: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                bytes: meta.len() + index,
                log,
                free: true,
                age: known.flatten(),
            });
        }
        for at in newest.into_values().filter(|_| live) {
            if let Some(segment) = segments.get_mut(at) {
                segment.free = false;
            }
        }
    }
}

impl Segment {
    fn remove(&self) -> bool {
        // The index goes last: bytes without times are better than times without bytes.
        let gone = std::fs::remove_file(&self.log).is_ok();
        let _absent = std::fs::remove_file(self.log.with_extension("idx"));
        // Directories that are empty now go too; one that is needed again is made again.
        for dir in self.log.ancestors().skip(1).take(2) {
            if std::fs::remove_dir(dir).is_err() {
                break;
            }
        }
        gone
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn name_of(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

fn queue_of(session: &Path, dir: &Path) -> Option<QueueId> {
    let queue = name_of(dir).strip_prefix("queue:")?;
    JobId::parse(&format!("{}.{queue}", name_of(session))).ok()
}

fn job_of(session: &Path, job: &Path) -> Option<JobId> {
    Some(JobId {
        session: Name::parse(name_of(session)).ok()?,
        job: gaffer_core::name::JobName::parse(name_of(job)).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaffer_shim::stream::segment_name;

    /// Writes a segment of 100 bytes that was last written so many seconds ago.
    fn segment(root: &Path, place: &str, stream: &str, first: u64, age_s: u64, now: SystemTime) {
        let dir = root.join(place);
        std::fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join(segment_name(stream, first, "log"));
        std::fs::write(&path, [b'x'; 68]).expect("a segment");
        std::fs::write(path.with_extension("idx"), [0; 32]).expect("an index");
        let file = std::fs::File::options()
            .write(true)
            .open(&path)
            .expect("the segment");
        file.set_modified(now - Duration::from_secs(age_s))
            .expect("its time");
    }

    fn left(root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut dirs = vec![root.to_owned()];
        while let Some(dir) = dirs.pop() {
            for path in entries(&dir) {
                if path.is_dir() {
                    dirs.push(path);
                } else if path.extension().is_some_and(|ext| ext == "log") {
                    let shown = path.strip_prefix(root).expect("below it").display().to_string();
                    found.push(shown.replace("00000000000000000", "~"));
                }
            }
        }
        found.sort();
        found
    }

    fn rules(root: &Path, total: LogsTotal, age: Option<Duration>) -> Rules {
        let job: JobId = JobId::parse("shop.web").expect("a name");
        let live = ["shop.web.1", "shop.web/7"].map(|slot| Slot::parse(slot).expect("a slot"));
        Rules {
            dir: root.to_owned(),
            total,
            ages: [(job, age)].into(),
            queues: [(JobId::parse("shop.mail").expect("a name"), None)].into(),
            live: live.into(),
        }
    }

    fn fill(root: &Path, now: SystemTime) {
        for (first, age) in [(0, 500), (100, 400), (200, 1)] {
            segment(root, "shop/web/1", "stdout", first, age, now);
        }
        segment(root, "shop/web/1", "stderr", 0, 900, now);
        segment(root, "shop/web/2", "stdout", 0, 800, now);
        segment(root, "shop/web/run-7", "stdout", 0, 700, now);
        segment(root, "shop/web/run-8", "stdout", 0, 600, now);
        segment(root, "shop/gone/1", "stdout", 0, 450, now);
    }

    #[test]
    fn the_oldest_go_first_and_never_what_may_be_written() {
        let root = tempfile::tempdir().expect("a directory");
        let now = SystemTime::now();
        fill(root.path(), now);
        let all = left(root.path());
        let swept = rules(root.path(), LogsTotal::Bytes(800), None).sweep(now);
        assert_eq!(
            (swept, left(root.path())),
            (
                Swept {
                    left: 800,
                    ..Swept::default()
                },
                all
            )
        );
        let swept = rules(root.path(), LogsTotal::Bytes(650), None).sweep(now);
        let expected = Swept {
            segments: 2,
            bytes: 200,
            left: 600,
        };
        assert_eq!(swept, expected, "run-8 has ended; then the oldest of stdout");
        assert!(!root.path().join("shop/web/run-8").exists());
        // However small the budget is.
        let swept = rules(root.path(), LogsTotal::Bytes(0), None).sweep(now);
        assert_eq!((swept.segments, swept.left), (2, 400));
        assert_eq!(
            left(root.path()),
            [
                "shop/web/1/stderr.~000.log",
                "shop/web/1/stdout.~200.log",
                "shop/web/2/stdout.~000.log",
                "shop/web/run-7/stdout.~000.log"
            ]
        );
    }

    #[test]
    fn what_is_older_than_its_job_allows_goes_and_nothing_else() {
        let root = tempfile::tempdir().expect("a directory");
        let now = SystemTime::now();
        fill(root.path(), now);
        let swept = rules(
            root.path(),
            LogsTotal::Percent(100),
            Some(Duration::from_secs(450)),
        )
        .sweep(now);
        assert_eq!(swept.segments, 2, "stdout from 0 and run-8");
        assert!(left(root.path()).contains(&"shop/gone/1/stdout.~000.log".to_owned()));
    }

    #[test]
    fn what_a_worker_may_write_to_stays_as_long_as_there_is_its_queue() {
        let root = tempfile::tempdir().expect("a directory");
        let now = SystemTime::now();
        for (place, first) in [
            ("shop/queue:mail/1", 0),
            ("shop/queue:mail/1", 100),
            ("shop/queue:mail/r1", 0),
            ("shop/queue:gone/1", 0),
        ] {
            segment(root.path(), place, "stdout", first, 500 - first, now);
        }
        rules(root.path(), LogsTotal::Bytes(0), None).sweep(now);
        assert_eq!(
            left(root.path()),
            [
                "shop/queue:mail/1/stdout.~100.log",
                "shop/queue:mail/r1/stdout.~000.log"
            ]
        );
    }
}
