//! Which part of a seat's output is whose.
//!
//! What the workers of a seat write follows one another in its streams, and rows of tasks that are over go. So it is noted beside
//! the streams, in a file of lines, where the part of each run begins and ends:
//!
//! ```text
//! b RUN TASK TOKEN ATTEMPT STDOUT STDERR MS      a run began: for this task (0: a resident worker), at these offsets, at this time
//! e RUN STDOUT STDERR                            its main process ended, and had written so much
//! ```
//!
//! A line is written when the fact comes out of the journal, so a daemon that is killed before that writes it when it recovers. The end of a run
//! is on file before the next run of its seat is started: a reader who meets bytes behind the last end knows that a beginning is to come.

use super::opening::{of_resident_slot, of_slot};
use super::worker::log_dir;
use crate::facts::RunFacts;
use crate::handle::{Handle, Result};
use crate::info::Error;
use crate::logs::LogReader;
use crate::state::State;
use gaffer_core::name::RunId;
use gaffer_core::queue::spec::{By, QueueId};
use gaffer_core::queue::task::TaskId;
use gaffer_core::time::Wall;
use gaffer_shim::stream::StreamReader;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Name of the file. No stream has a segment without a dot.
const FILE: &str = "parts";

/// The file is cut when it is longer.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// Parts that are kept at most when it is cut.
const KEPT_MAX: usize = 1_000;

/// The part of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Whose.
    pub run: RunId,
    /// What it worked on; none: a resident worker, which has many.
    pub task: Option<TaskId>,
    /// Fencing number of the claim.
    pub token: u64,
    /// Ordinal of the attempt.
    pub attempt: u32,
    /// In stdout: from, and to if it has ended.
    pub out: (u64, Option<u64>),
    /// In stderr.
    pub err: (u64, Option<u64>),
    /// When it began.
    pub began: Wall,
}

impl Part {
    /// Its range in a stream.
    pub fn range(&self, stream: &str) -> (u64, Option<u64>) {
        if stream == "stderr" { self.err } else { self.out }
    }
}

/// Where the workers of a seat write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    /// Its number, from 1.
    pub n: u32,
    /// Of a resident worker.
    pub resident: bool,
}

impl Seat {
    /// `3`, or `r3`.
    fn name(&self) -> String {
        let kind = if self.resident { "r" } else { "" };
        format!("{kind}{}", self.n)
    }

    fn parse(name: &str) -> Option<Seat> {
        let number = name.strip_prefix('r');
        Some(Seat {
            n: number.unwrap_or(name).parse().ok()?,
            resident: number.is_some(),
        })
    }
}

/// The directory of a worker's streams, by its slot.
fn dir_of(logs: &Path, slot: &str) -> Option<PathBuf> {
    let (queue, n, resident) = match of_resident_slot(slot) {
        Some((queue, n)) => (queue, n, true),
        None => of_slot(slot).map(|(queue, n)| (queue, n, false))?,
    };
    Some(log_dir(logs, &queue, &Seat { n: n + 1, resident }.name()))
}

impl State {
    /// A worker began, or its main process ended: whose bytes are whose is noted. What cannot be written costs names, no lines.
    pub(super) fn note_part(&self, run: RunId) {
        let Some(facts) = self.runs.runs.get(&run) else {
            return;
        };
        let Some(dir) = dir_of(&self.settings.logs_dir(), &facts.slot) else {
            return;
        };
        if let Err(error) = append(&dir, &line_of(facts)) {
            tracing::warn!(%run, dir = %dir.display(), %error, "whose output this is cannot be noted");
        }
    }

    /// The same after a restart: what an earlier daemon had no time to write.
    pub(super) fn note_part_found(&self, facts: &RunFacts) {
        let dir = dir_of(&self.settings.logs_dir(), &facts.slot).filter(|_| facts.born);
        let Some(dir) = dir else { return };
        let known = read(&dir).into_iter().rfind(|part| part.run == facts.run);
        let mut lines = String::new();
        if known.is_none() {
            lines.push_str(&begin_line(facts));
        }
        if facts.exit.is_some() && known.is_none_or(|part| part.out.1.is_none()) {
            lines.push_str(&end_line(facts));
        }
        if !lines.is_empty()
            && let Err(error) = append(&dir, &lines)
        {
            tracing::warn!(run = %facts.run, dir = %dir.display(), %error, "whose output this is cannot be noted");
        }
    }
}

fn line_of(facts: &RunFacts) -> String {
    match &facts.exit {
        None => begin_line(facts),
        Some(_) => end_line(facts),
    }
}

fn begin_line(facts: &RunFacts) -> String {
    let [task, token] = facts.stamp;
    let began = facts.started.map_or(0, |(wall, _)| wall.0);
    format!(
        "b {} {task} {token} {} {} {} {began}\n",
        facts.run, facts.attempt, facts.out.0, facts.err.0
    )
}

fn end_line(facts: &RunFacts) -> String {
    let end = |range: (u64, Option<u64>)| range.1.unwrap_or(range.0);
    format!("e {} {} {}\n", facts.run, end(facts.out), end(facts.err))
}

/// Writes lines behind the others. A line that a loss of power cut is ended first.
fn append(dir: &Path, lines: &str) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join(FILE);
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .open(&path)?;
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    let torn = if last == *b"\n" { "" } else { "\n" };
    file.write_all(format!("{torn}{lines}").as_bytes())?;
    if length > FILE_BYTES_MAX {
        cut(dir)?;
    }
    Ok(())
}

/// Takes out what is about bytes that are gone.
fn cut(dir: &Path) -> io::Result<()> {
    let first = |stream: &str| StreamReader::open(dir, stream).range().map(|range| range.0);
    let (out, err) = (first("stdout")?, first("stderr")?);
    let parts = read(dir);
    let is_there = |part: &Part| {
        let ends = |range: (u64, Option<u64>), first: u64| range.1.is_none_or(|to| to > first);
        ends(part.out, out) || ends(part.err, err)
    };
    let oldest = parts
        .iter()
        .position(is_there)
        .unwrap_or(parts.len().saturating_sub(1));
    let oldest = oldest.max(parts.len().saturating_sub(KEPT_MAX));
    let mut text = String::new();
    for part in parts.get(oldest..).unwrap_or_default() {
        let (task, run) = (part.task.unwrap_or(0), part.run);
        let began = part.began.0;
        text.push_str(&format!(
            "b {run} {task} {} {} {} {} {began}\n",
            part.token, part.attempt, part.out.0, part.err.0
        ));
        if let (Some(out), Some(err)) = (part.out.1, part.err.1) {
            text.push_str(&format!("e {run} {out} {err}\n"));
        }
    }
    let fresh = dir.join(format!("{FILE}~"));
    std::fs::write(&fresh, text)?;
    std::fs::rename(&fresh, dir.join(FILE))
}

/// All parts of a seat, oldest first.
fn read(dir: &Path) -> Vec<Part> {
    let mut parts = Parts::of(dir);
    parts.refresh();
    parts.list
}

/// The parts of a seat, read on as more of them come.
#[derive(Debug)]
pub struct Parts {
    path: PathBuf,
    inode: u64,
    at: u64,
    list: Vec<Part>,
}

impl Parts {
    fn of(dir: &Path) -> Parts {
        Parts {
            path: dir.join(FILE),
            inode: 0,
            at: 0,
            list: Vec::new(),
        }
    }

    /// Reads what is new. A file that is not there, or cannot be read, has nothing new.
    pub fn refresh(&mut self) {
        let _again_later = self.read_on();
    }

    /// Those that are known, oldest first.
    pub fn list(&self) -> &[Part] {
        &self.list
    }

    fn read_on(&mut self) -> io::Result<()> {
        let file = std::fs::File::open(&self.path)?;
        let meta = file.metadata()?;
        if meta.ino() != self.inode || meta.len() < self.at {
            (self.inode, self.at) = (meta.ino(), 0);
            self.list.clear();
        }
        let length = usize::try_from(meta.len() - self.at).unwrap_or(usize::MAX);
        if length == 0 {
            return Ok(());
        }
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, self.at)?;
        // The last line may be half of one.
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        self.at += whole as u64;
        for line in String::from_utf8_lossy(&bytes[..whole]).lines() {
            self.take(line);
        }
        let old = self.list.len().saturating_sub(2 * KEPT_MAX);
        self.list.drain(..old);
        Ok(())
    }

    /// What is no line of this file is passed over.
    fn take(&mut self, line: &str) {
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["b", run, task, token, attempt, out, err, began] => {
                self.list
                    .extend(begun(run, [task, token, attempt, out, err, began]));
            }
            ["e", run, out, err] => {
                let ends = self.list.last_mut().filter(|part| part.run.to_string() == **run);
                if let (Some(part), Ok(out), Ok(err)) = (ends, out.parse(), err.parse()) {
                    (part.out.1, part.err.1) = (Some(out), Some(err));
                }
            }
            _ => {}
        }
    }
}

fn begun(run: &str, [task, token, attempt, out, err, began]: [&str; 6]) -> Option<Part> {
    let task: TaskId = task.parse().ok()?;
    Some(Part {
        run: run.parse().ok()?,
        task: Some(task).filter(|task| *task != 0),
        token: token.parse().ok()?,
        attempt: attempt.parse().ok()?,
        out: (out.parse().ok()?, None),
        err: (err.parse().ok()?, None),
        began: Wall(began.parse().ok()?),
    })
}

impl Handle {
    /// The seats whose output may be read: those that ever wrote something, and those that will.
    ///
    /// # Errors
    ///
    /// There is no such queue, or its work is not done by programs of this node.
    pub fn queue_seats(&self, queue: &QueueId) -> Result<Vec<Seat>> {
        let spec = self.queue_spec(queue)?;
        let works = std::iter::once(&spec.work).chain(spec.kinds.values());
        let mut is_program = false;
        for work in works {
            is_program |= matches!(work.by, By::Cmd(_));
        }
        if !is_program {
            let what = match &spec.work.by {
                By::Task(name) => {
                    format!("its tasks are runs of task {name}, and have theirs: gaffer logs task:ID")
                }
                _ => "its workers are not programs of this node".to_owned(),
            };
            return Err(Error::Invalid(format!(
                "queue {queue} has no output here: {what}"
            )));
        }
        let dir = log_dir(&self.settings.logs_dir(), queue, "");
        let found = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut seats: BTreeSet<Seat> = found
            .filter_map(|entry| Seat::parse(entry.file_name().to_str()?))
            .collect();
        let (count, resident) = match spec.resident {
            true => (spec.residents(), true),
            false => (spec.workers, false),
        };
        seats.extend((1..=count).map(|n| Seat { n, resident }));
        Ok(seats.into_iter().collect())
    }

    /// Reads a stream of a seat.
    pub fn queue_log(&self, queue: &QueueId, seat: &Seat, stream: &str) -> LogReader {
        let dir = log_dir(&self.settings.logs_dir(), queue, &seat.name());
        LogReader::open(&dir, stream).masked_for_queue(&self.state, queue.clone())
    }

    /// Whose the bytes of a seat are.
    pub fn queue_parts(&self, queue: &QueueId, seat: &Seat) -> Parts {
        let mut parts = Parts::of(&log_dir(&self.settings.logs_dir(), queue, &seat.name()));
        parts.refresh();
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;

    fn line(text: &str, dir: &Path) {
        append(dir, text).expect("a line");
    }

    #[test]
    fn parts_are_read_on_and_a_torn_line_costs_only_itself() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("1");
        let [first, second, third] = [1, 2, 3].map(|n| RunId { epoch: 1, n });
        line(&format!("b {first} 7 3 1 0 0 1000\n"), &dir);
        let mut parts = Parts::of(&dir);
        parts.refresh();
        assert_eq!(parts.list().len(), 1);
        assert_eq!((parts.list()[0].task, parts.list()[0].out), (Some(7), (0, None)));
        line(&format!("e {first} 40 2\n"), &dir);
        parts.refresh();
        assert_eq!(
            (parts.list()[0].out, parts.list()[0].err),
            ((0, Some(40)), (0, Some(2)))
        );
        // Power was lost amid a line.
        let mut file = OpenOptions::new()
            .append(true)
            .open(dir.join(FILE))
            .expect("the file");
        file.write_all(format!("b {second} 8 1").as_bytes())
            .expect("half a line");
        parts.refresh();
        assert_eq!(parts.list().len(), 1);
        line(&format!("b {third} 0 0 1 40 2 1000\n"), &dir);
        parts.refresh();
        let tasks: Vec<Option<TaskId>> = parts.list().iter().map(|part| part.task).collect();
        assert_eq!(tasks, [Some(7), None]);
    }

    #[test]
    fn the_file_is_bounded_and_keeps_what_is_newest() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("1");
        for n in 0..12_000u64 {
            let run = RunId {
                epoch: 1,
                n: u32::try_from(n).expect("small"),
            };
            line(
                &format!("b {run} {} 1 1 {n} 0 1000\ne {run} {} 0\n", n + 1, n + 1),
                &dir,
            );
        }
        let length = std::fs::metadata(dir.join(FILE)).expect("the file").len();
        assert!(length < FILE_BYTES_MAX + 100, "{length}");
        let parts = read(&dir);
        assert_eq!(parts.last().and_then(|part| part.task), Some(12_000));
        assert!(parts.windows(2).all(|two| two[0].out.1 == Some(two[1].out.0)));
    }
}
