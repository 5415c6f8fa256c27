//! The processes of a run: by its cgroup, or by descent and `GAFFER_RUN` where there is none.
//!
//! *Invariant.* A bare pid is never signalled: each process is taken by a pidfd first, then asked again
//! whether it still belongs to the run.

use crate::sys;
use gaffer_shim::client::pidfd;
use gaffer_shim::journal::RunIdWire;
use rustix::fd::OwnedFd;
use std::collections::{BTreeSet, HashSet};
use std::io;
use std::sync::{Mutex, PoisonError};

/// Depth to which cgroups that a run made below its own are followed.
const DEPTH_MAX: u32 = 8;
/// Rounds of scan-and-signal: each finds what was forked during the one before.
const ROUNDS_MAX: u32 = 16;

/// What is known about a run's processes.
#[derive(Clone, Copy)]
pub struct Tree<'a> {
    pub run: RunIdWire,
    pub cgroup: Option<&'a str>,
    /// Its main process, unless that was reaped.
    pub leader: Option<u32>,
}

impl Tree<'_> {
    /// All living processes of the run.
    pub fn members(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        match self.cgroup {
            Some(path) => collect(path, DEPTH_MAX, &mut pids),
            None => pids = self.scan(),
        }
        pids
    }

    /// How many of its processes live, the main process not counted.
    pub fn survivors(&self) -> u32 {
        let members = self.members();
        let count = members.iter().filter(|pid| Some(**pid) != self.leader).count() as u32;
        match self.cgroup {
            // Populated, but nobody could be counted (a process in exec, a threaded group): at least one.
            Some(path) if count == 0 && populated(path) => 1,
            _ => count,
        }
    }

    /// Ends everything. By the cgroup this is one atomic act, otherwise rounds of scans.
    pub fn kill(&self) -> io::Result<()> {
        if let Some(path) = self.cgroup {
            match std::fs::write(format!("{path}/cgroup.kill"), "1") {
                Ok(()) => return Ok(()),
                // Removed: then nobody is left.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !exists(path) => {
                    return Ok(());
                }
                Err(_) => {}
            }
        }
        let mut killed = HashSet::new();
        for _ in 0..ROUNDS_MAX {
            let round = self.signal_each(&self.members(), libc::SIGKILL);
            let before = killed.len();
            killed.extend(round);
            // Nobody new: whoever is still there is dying, and forks no more.
            if killed.len() == before {
                break;
            }
        }
        Ok(())
    }

    /// Signals all of it (or all but the main process). Returns how many were alive and signalled.
    pub fn signal(&self, signal: i32, with_leader: bool) -> usize {
        let mut pids = self.members();
        pids.retain(|pid| with_leader || Some(*pid) != self.leader);
        self.signal_each(&pids, signal).len()
    }

    /// Signals those of it that are in the group of its main process.
    pub fn signal_group(&self, signal: i32) {
        let mut pids = self.members();
        pids.retain(|pid| stat(*pid).is_some_and(|(_, group)| Some(group) == self.leader));
        self.signal_each(&pids, signal);
    }

    fn signal_each(&self, pids: &[u32], signal: i32) -> Vec<u32> {
        let taken: Vec<(u32, OwnedFd)> = pids
            .iter()
            .filter_map(|pid| Some((*pid, pidfd(*pid).ok()?)))
            .collect();
        // Asked only now: a number may have been given to somebody else between the listing and the pidfd,
        // but whoever the pidfd is of has kept it since.
        let still = if self.cgroup.is_none() {
            self.scan()
        } else {
            Vec::new()
        };
        let mut reached = Vec::new();
        for (pid, fd) in taken {
            let holds = if self.cgroup.is_none() {
                still.contains(&pid)
            } else {
                self.is_inside(pid)
            };
            if holds && !is_zombie(pid) && sys::signal(&fd, signal).is_ok() {
                reached.push(pid);
            }
        }
        reached
    }

    /// Is a process in the run's cgroup?
    fn is_inside(&self, pid: u32) -> bool {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let unified = groups
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .unwrap_or("");
        let name = self.run.to_string();
        unified.split('/').any(|part| part == name)
    }

    /// Its main process, orphans of it that came to us (a subreaper: nobody of a run gets away), and whoever
    /// descends from them. Another node on this host may have a run of the same id: its processes do not
    /// descend from us.
    fn scan(&self) -> Vec<u32> {
        let mark = format!("GAFFER_RUN={}", self.run).into_bytes();
        let mut found: Vec<u32> = self.leader.into_iter().collect();
        for pid in strangers() {
            let marked = || {
                let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                environ.split(|byte| *byte == 0).any(|line| line == mark)
            };
            let Some((_, group)) = stat(pid) else { continue };
            if Some(group) == self.leader || marked() {
                found.push(pid);
            }
        }
        let mut seen: HashSet<u32> = found.iter().copied().collect();
        let mut next = 0;
        while let Some(pid) = found.get(next).copied() {
            next += 1;
            found.extend(children_of(pid).into_iter().filter(|child| seen.insert(*child)));
        }
        found.retain(|pid| !is_zombie(*pid));
        found
    }
}

/// Main processes of runs, from their birth until they are reaped: our children that are no orphans.
static LEADERS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// A run has a main process.
pub fn leader_born(pid: u32) {
    LEADERS.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
}

/// It was reaped.
pub fn leader_gone(pid: u32) {
    LEADERS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&pid);
}

/// Orphans that came to us, zombies included.
pub fn strangers() -> Vec<u32> {
    let mut children = children_of(std::process::id());
    let leaders = LEADERS.lock().unwrap_or_else(PoisonError::into_inner);
    children.retain(|pid| !leaders.contains(pid));
    children
}

/// Children of all threads of a process.
fn children_of(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return found;
    };
    for task in tasks.flatten() {
        match std::fs::read_to_string(task.path().join("children")) {
            Ok(text) => found.extend(
                text.split_ascii_whitespace()
                    .filter_map(|w| w.parse::<u32>().ok()),
            ),
            // The thread has ended, or this kernel does not list children.
            Err(_) if task.path().exists() => return children_by_search(pid),
            Err(_) => {}
        }
    }
    found
}

/// The slow way, for kernels without `CONFIG_PROC_CHILDREN`.
fn children_by_search(parent: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// Fields of /proc/pid/stat from the state on.
fn fields(pid: u32) -> Option<Vec<u8>> {
    let mut stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, also parentheses.
    let after = stat.iter().rposition(|byte| *byte == b')')? + 2;
    if after > stat.len() {
        return None;
    }
    stat.drain(..after);
    Some(stat)
}

fn field(fields: &[u8], number: usize) -> Option<u32> {
    let word = fields.split(|byte| *byte == b' ').nth(number)?;
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// `(state, process group)`.
fn stat(pid: u32) -> Option<(u8, u32)> {
    let fields = fields(pid)?;
    Some((*fields.first()?, field(&fields, 2)?))
}

fn parent_of(pid: u32) -> Option<u32> {
    field(&fields(pid)?, 1)
}

fn is_zombie(pid: u32) -> bool {
    stat(pid).is_none_or(|(state, _)| state == b'Z' || state == b'X')
}

fn exists(path: &str) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

fn collect(path: &str, depth: u32, pids: &mut Vec<u32>) {
    let procs = std::fs::read_to_string(format!("{path}/cgroup.procs")).unwrap_or_default();
    pids.extend(
        procs
            .lines()
            .filter_map(|line| line.parse::<u32>().ok())
            .filter(|pid| *pid > 0),
    );
    if depth == 0 {
        return;
    }
    let Ok(entries) = std::fs::read_dir(path) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Some(below) = entry.path().to_str()
        {
            collect(below, depth - 1, pids);
        }
    }
}

/// Does anybody live in a cgroup or below it?
pub fn populated(path: &str) -> bool {
    use std::io::Read;
    let Ok(mut file) = std::fs::File::open(format!("{path}/cgroup.events")) else {
        return false;
    };
    let mut text = [0; 128];
    let count = file.read(&mut text).unwrap_or(0);
    text[..count]
        .split(|byte| *byte == b'\n')
        .any(|line| line == b"populated 1")
}

/// Was a process of this cgroup killed for memory?
pub fn killed_for_memory(path: &str) -> bool {
    let events = std::fs::read_to_string(format!("{path}/memory.events")).unwrap_or_default();
    let killed = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    killed.is_some_and(|count| count.trim() != "0")
}

/// Removes an empty cgroup and those below it. False: not yet possible.
pub fn remove(path: &str, depth: u32) -> bool {
    if std::fs::remove_dir(path).is_ok() {
        return true;
    }
    if !exists(path) {
        return true;
    }
    if depth < DEPTH_MAX
        && let Ok(entries) = std::fs::read_dir(path)
    {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir())
                && let Some(below) = entry.path().to_str()
            {
                remove(below, depth + 1);
            }
        }
    }
    std::fs::remove_dir(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::killed_for_memory;

    #[test]
    fn hazard_39_only_the_kernels_count_says_that_memory_was_the_cause() {
        let dir = std::env::temp_dir().join(format!("gaffer-shim-memory-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let path = dir.to_str().expect("text");
        let cases = [
            (
                "low 0\nhigh 9\nmax 3\noom 2\noom_kill 0\noom_group_kill 0\n",
                false,
            ),
            (
                "low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 0\n",
                true,
            ),
            ("", false),
        ];
        for (text, expected) in cases {
            std::fs::write(dir.join("memory.events"), text).expect("the file");
            assert_eq!(killed_for_memory(path), expected, "{text}");
        }
        std::fs::remove_dir_all(&dir).expect("it was there");
        assert!(!killed_for_memory(path), "no such group");
    }
}
