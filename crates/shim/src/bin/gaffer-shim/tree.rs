//! The processes of a run: by its cgroup, or by descent and `GAFFER_RUN` where there is none.
//!
//! *Invariant.* A bare pid is never signalled: each process is taken by a pidfd first, then asked again
//! whether it still belongs to the run.

use crate::sys;
use gaffer_shim::client::pidfd;
use gaffer_shim::journal::RunIdWire;
use rustix::fd::OwnedFd;
use std::collections::{HashMap, HashSet};
use std::io;

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
        for _ in 0..ROUNDS_MAX {
            if self.signal(libc::SIGKILL, true) == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Signals all of it (or all but the main process). Returns how many were alive and signalled.
    pub fn signal(&self, signal: i32, with_leader: bool) -> u32 {
        let mut pids = self.members();
        pids.retain(|pid| with_leader || Some(*pid) != self.leader);
        self.signal_each(&pids, signal)
    }

    /// Signals those of it that are in the group of its main process.
    pub fn signal_group(&self, signal: i32) -> u32 {
        let mut pids = self.members();
        pids.retain(|pid| stat(*pid).is_some_and(|(_, _, group)| Some(group) == self.leader));
        self.signal_each(&pids, signal)
    }

    fn signal_each(&self, pids: &[u32], signal: i32) -> u32 {
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
        let mut count = 0;
        for (pid, fd) in taken {
            let holds = if self.cgroup.is_none() {
                still.contains(&pid)
            } else {
                self.is_inside(pid)
            };
            if holds && !is_zombie(pid) && sys::signal(&fd, signal).is_ok() {
                count += 1;
            }
        }
        count
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

    /// Who descends from us (a subreaper, so nobody of a run gets away) and belongs to the run. Another
    /// node on this host may have a run of the same id: its processes do not descend from us.
    fn scan(&self) -> Vec<u32> {
        let mark = format!("GAFFER_RUN={}", self.run).into_bytes();
        let mut parents = HashMap::new();
        let mut alive = Vec::new();
        let Ok(entries) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let Some((state, parent, group)) = stat(pid) else {
                continue;
            };
            parents.insert(pid, parent);
            if state != b'Z' && state != b'X' {
                alive.push((pid, group));
            }
        }
        let mut found = HashSet::new();
        for (pid, group) in &alive {
            if !is_ours(*pid, &parents) {
                continue;
            }
            let marked = || {
                let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                environ.split(|byte| *byte == 0).any(|line| line == mark)
            };
            if Some(*pid) == self.leader || Some(*group) == self.leader || marked() {
                found.insert(*pid);
            }
        }
        // Whoever descends from one of them belongs, whatever its environment says.
        loop {
            let before = found.len();
            for (pid, _) in &alive {
                let parent = parents.get(pid).copied();
                let belongs = parent.is_some_and(|parent| found.contains(&parent))
                    || (parent.is_some() && parent == self.leader);
                if belongs {
                    found.insert(*pid);
                }
            }
            if found.len() == before {
                return found.into_iter().collect();
            }
        }
    }
}

/// Does a process descend from this one?
fn is_ours(pid: u32, parents: &HashMap<u32, u32>) -> bool {
    let own = std::process::id();
    let mut at = pid;
    // A table read while it changes might hold a loop.
    for _ in 0..parents.len() {
        match parents.get(&at) {
            Some(parent) if *parent == own => return true,
            Some(parent) => at = *parent,
            None => return false,
        }
    }
    false
}

/// `(state, parent, process group)`.
fn stat(pid: u32) -> Option<(u8, u32, u32)> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after = stat.iter().rposition(|byte| *byte == b')')? + 2;
    let rest = std::str::from_utf8(stat.get(after..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    Some((state, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn is_zombie(pid: u32) -> bool {
    stat(pid).is_none_or(|(state, ..)| state == b'Z' || state == b'X')
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
    let events = std::fs::read_to_string(format!("{path}/cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "populated 1")
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

/// Children of this process that are not among the known ones: orphans that came to us.
/// `None`: the kernel does not list children.
pub fn strangers(known: &HashSet<u32>) -> Option<Vec<u32>> {
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").ok()?.flatten() {
        let children = match std::fs::read_to_string(task.path().join("children")) {
            Ok(children) => children,
            // A thread that ended meanwhile has none; a kernel without the file has it nowhere.
            Err(_) if found.is_empty() => continue,
            Err(_) => continue,
        };
        let pids = children
            .split_ascii_whitespace()
            .filter_map(|word| word.parse::<u32>().ok());
        found.extend(pids.filter(|pid| !known.contains(pid)));
    }
    std::path::Path::new("/proc/self/task")
        .join(std::process::id().to_string())
        .join("children")
        .exists()
        .then_some(found)
}
