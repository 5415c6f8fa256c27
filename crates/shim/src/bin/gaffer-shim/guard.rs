//! The guard: parent of the shim, sleeping until it dies.
//!
//! A living process cannot be given another parent, but an orphan goes to the nearest subreaper above it:
//! us. So when the shim is killed, every run becomes our child, with its status. We share the shim's
//! descriptor table, so no pipe of a run loses its reader. We append the exits and kill nothing: what is
//! to become of the runs is for the daemon to say.

use crate::log::{append_after_death, now};
use crate::share::Share;
use crate::sys::{self, Ended, Whom};
use crate::tree::{self, Tree};
use gaffer_shim::journal::{Life, Position, Reader, Record, RunIdWire};
use gaffer_shim::stream::StreamReader;
use rustix::fd::{AsFd, OwnedFd};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Pause before an append that found no room is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// A run as the journal tells it.
#[derive(Clone, Default)]
struct Known {
    pid: u32,
    exited: bool,
    gone: bool,
    cgroup: Option<String>,
    log_dir: String,
}

struct Guard {
    dir: PathBuf,
    reader: Option<Reader>,
    runs: HashMap<RunIdWire, Known>,
}

/// Sleeps until the shim ends, then does what it can no longer do.
pub fn watch(shim: OwnedFd, dir: &Path, share: &Share) {
    // Waits; an error would mean that there is no such child, which is the same as its end.
    let _ = sys::reap_wait(Whom::Pidfd(shim.as_fd()));
    share.close_all();
    let reader = Reader::open(dir, Position::default()).ok();
    let mut guard = Guard {
        dir: dir.to_path_buf(),
        reader,
        runs: HashMap::new(),
    };
    loop {
        match sys::peek_wait() {
            Ok(Some(ended)) => {
                guard.on_end(&ended);
                let _ = sys::reap(Whom::Pid(ended.pid));
                guard.look_for_empty_trees();
            }
            Ok(None) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            // No children are left.
            Err(_) => return,
        }
    }
}

impl Guard {
    /// The status is on file before it is reaped.
    fn on_end(&mut self, ended: &Ended) {
        self.read_on();
        let pid = ended.pid as u32;
        let found = self
            .runs
            .iter()
            .find(|(_, known)| known.pid == pid && !known.exited);
        let Some((run, known)) = found.map(|(run, known)| (*run, known.clone())) else {
            return;
        };
        let cgroup = known.cgroup.as_deref();
        let survivors = Tree {
            run,
            cgroup,
            leader: Some(pid),
        }
        .survivors();
        let end = |name| {
            StreamReader::open(Path::new(&known.log_dir), name)
                .range()
                .map_or(0, |(_, end)| end)
        };
        let (wall_ms, mono_ns) = now();
        self.append(&Record::Exited {
            run,
            status: ended.status,
            rusage: ended.usage,
            oom: cgroup.is_some_and(tree::killed_for_memory),
            survivors,
            out_offset: end("stdout"),
            err_offset: end("stderr"),
            drained: false,
            wall_ms,
            mono_ns,
            by_guard: true,
            pid,
        });
        self.read_on();
    }

    fn look_for_empty_trees(&mut self) {
        let waiting: Vec<(RunIdWire, Known)> = self
            .runs
            .iter()
            .filter(|(_, known)| known.exited && !known.gone)
            .map(|(run, known)| (*run, known.clone()))
            .collect();
        for (run, known) in waiting {
            let tree = Tree {
                run,
                cgroup: known.cgroup.as_deref(),
                leader: None,
            };
            if tree.survivors() == 0 {
                let (wall_ms, mono_ns) = now();
                self.append(&Record::TreeGone {
                    run,
                    wall_ms,
                    mono_ns,
                });
                self.read_on();
            }
        }
    }

    /// Until it is on file: nothing else is left to do here.
    fn append(&self, record: &Record) {
        while append_after_death(&self.dir, record).is_err() {
            if !self.dir.exists() {
                return;
            }
            std::thread::sleep(RETRY);
        }
    }

    fn read_on(&mut self) {
        let Some(reader) = &mut self.reader else {
            return;
        };
        while let Ok(Some((record, _))) = reader.read_next() {
            match record {
                Record::Head { entries, .. } => {
                    for entry in entries {
                        let known = self.runs.entry(entry.run).or_default();
                        known.pid = entry.pid;
                        known.cgroup = entry.cgroup;
                        known.log_dir = entry.log_dir;
                        known.exited = matches!(entry.life, Life::Exited | Life::Gone);
                        known.gone = entry.life == Life::Gone;
                    }
                }
                Record::Intent {
                    run, cgroup, log_dir, ..
                } => {
                    let known = Known {
                        cgroup,
                        log_dir,
                        ..Known::default()
                    };
                    self.runs.insert(run, known);
                }
                Record::Born { run, pid } => self.runs.entry(run).or_default().pid = pid,
                Record::Started { run, pid, cgroup, .. } => {
                    let known = self.runs.entry(run).or_default();
                    known.pid = pid;
                    known.cgroup = cgroup;
                }
                Record::StartFailed { run, .. } | Record::TreeGone { run, .. } => {
                    self.runs.remove(&run);
                }
                Record::Exited { run, survivors, .. } => {
                    if survivors == 0 {
                        self.runs.remove(&run);
                    } else {
                        let known = self.runs.entry(run).or_default();
                        known.exited = true;
                    }
                }
                Record::Dropped { .. } => {}
            }
        }
    }
}
