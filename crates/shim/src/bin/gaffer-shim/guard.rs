//! The guard: parent of the shim, sleeping until it dies.
//!
//! A living process cannot be given another parent, but an orphan goes to the nearest subreaper above it:
//! us. So when the shim is killed, every run becomes our child, with its status. We share the shim's
//! descriptor table, so no pipe of a run loses its reader: we read on, append the exits, and kill nothing.
//! What is to become of the runs is for the daemon to say.

use crate::disk::Attach;
use crate::log::{Journal, now};
use crate::pump::{Pump, Target};
use crate::share::Share;
use crate::sys::{self, Ended, Epoll, Whom};
use crate::tree::{self, Tree};
use gaffer_shim::journal::{HeadEntry, Life, Record, RunIdWire};
use gaffer_shim::message::LogBounds;
use rustix::fd::{AsFd, FromRawFd, OwnedFd};
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Pause before something that found no room is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How long an exit waits for pipes that never become empty.
const DRAIN_NS: u64 = 100_000_000;
const CHILDREN: u64 = 1;

struct Guard {
    journal: Journal,
    pump: Pump,
    runs: HashMap<RunIdWire, HeadEntry>,
    bounds: HashMap<RunIdWire, LogBounds>,
}

/// Sleeps until the shim ends, then does what it can no longer do.
pub fn watch(shim: OwnedFd, dir: &Path, share: &'static Share) {
    gaffer_shim::memory::give_back();
    // Waits; an error would mean that there is no such child, which is the same as its end.
    let _ = sys::reap_wait(Whom::Pidfd(shim.as_fd()));
    share.close_all();
    if !has_children() {
        return;
    }
    loop {
        // Without room for a segment there is nothing to do but to wait for it: nothing is reaped.
        match take_over(dir, share) {
            Ok(()) => return,
            Err(_) if dir.exists() => std::thread::sleep(RETRY),
            Err(_) => return,
        }
    }
}

/// Also zombies.
fn has_children() -> bool {
    sys::peek(Whom::Any).is_ok()
}

fn take_over(dir: &Path, share: &'static Share) -> io::Result<()> {
    let epoll = Arc::new(Epoll::new()?);
    let children = crate::setup::sigchld()?;
    epoll.add(&children, libc::EPOLLIN, CHILDREN)?;
    let mut guard = Guard {
        journal: Journal::resume(dir)?,
        // Nobody guards the guard: what it notes is seen by nobody.
        pump: Pump::new(epoll.clone(), Share::map()?)?,
        runs: HashMap::new(),
        bounds: HashMap::new(),
    };
    for entry in guard.journal.entries() {
        if matches!(entry.life, Life::Intended | Life::Alive) {
            tree::leader_born(entry.pid);
        }
        guard.runs.insert(entry.run, entry);
    }
    guard.adopt_pipes(share);
    let mut events = Vec::new();
    loop {
        while let Ok(Some(ended)) = sys::peek(Whom::Any) {
            guard.on_end(&ended);
            let _ = sys::reap(Whom::Pid(ended.pid));
            tree::leader_gone(ended.pid as u32);
        }
        guard.look_for_empty_trees();
        if !has_children() {
            return Ok(());
        }
        let (_, at) = now();
        let timeout = guard.pump.next_deadline_ns();
        epoll.wait(timeout.map(|due| due.saturating_sub(at)), &mut events);
        for (token, _) in &events {
            if *token == CHILDREN {
                let mut buffer = [0u8; 512];
                while rustix::io::read(&children, &mut buffer).is_ok_and(|count| count > 0) {}
            } else {
                guard.pump.ready(*token, &guard.journal);
            }
        }
        guard.pump.due(now().1, &guard.journal);
    }
}

impl Guard {
    /// Goes on where the shim's disk thread was stopped.
    fn adopt_pipes(&mut self, share: &Share) {
        for left in share.pipes() {
            let Some(entry) = self.runs.get(&left.run) else {
                continue;
            };
            let label = (left.stream as usize)
                .checked_sub(2)
                .and_then(|n| entry.streams.get(n));
            let name = match left.stream {
                0 => "stdout",
                1 => "stderr",
                _ => label.map_or("", String::as_str),
            };
            let dir = &entry.log_dir;
            self.bounds.insert(left.run, left.bounds);
            for fd in left.parked.into_iter().chain(left.staged) {
                // SAFETY: its owner is dead, and staging pipes are named once each.
                let staging = unsafe { OwnedFd::from_raw_fd(fd) };
                self.pump.rescue(dir, name, left.bounds, &staging);
            }
            // SAFETY: its owner is dead.
            let fd = unsafe { OwnedFd::from_raw_fd(left.fd) };
            let target = Target {
                dir: dir.as_str().into(),
                name: name.to_owned().into(),
                bounds: left.bounds,
            };
            // A pipe that cannot be watched is closed: the program gets EPIPE, nobody gets silence.
            let _ = self.pump.adopt(Attach {
                run: left.run,
                target,
                // Where it ended is not known here: it is looked for.
                begin: u64::MAX,
                fd,
                place: None,
                shared: true,
            });
        }
    }

    /// The status is on file before it is reaped.
    fn on_end(&mut self, ended: &Ended) {
        let pid = ended.pid as u32;
        let alive = |entry: &&mut HeadEntry| matches!(entry.life, Life::Intended | Life::Alive);
        let found = self
            .runs
            .values_mut()
            .filter(alive)
            .find(|entry| entry.pid == pid);
        let Some(entry) = found else { return };
        let drained = self.pump.drain(entry.run, now().1 + DRAIN_NS, &self.journal);
        let cgroup = entry.cgroup.as_deref();
        let survivors = Tree {
            run: entry.run,
            cgroup,
            leader: Some(pid),
        }
        .survivors();
        // Streams nobody reads any more are looked up on disk; the bounds matter only when writing.
        let plain = LogBounds {
            size: u64::MAX >> 1,
            segment: u64::MAX >> 1,
            block_when_full: false,
        };
        let bounds = self.bounds.get(&entry.run).copied().unwrap_or(plain);
        let mut end = |name| self.pump.end_of(&entry.log_dir, name, bounds).unwrap_or(0);
        let (out_offset, err_offset) = (end("stdout"), end("stderr"));
        let (wall_ms, mono_ns) = now();
        entry.life = if survivors == 0 { Life::Gone } else { Life::Exited };
        let record = Record::Exited {
            run: entry.run,
            status: ended.status,
            rusage: ended.usage,
            oom: cgroup.is_some_and(tree::killed_for_memory),
            survivors,
            out_offset,
            err_offset,
            drained,
            wall_ms,
            mono_ns,
            by_guard: true,
            pid,
            successor: None,
        };
        self.append(&record);
    }

    fn look_for_empty_trees(&mut self) {
        let exited = self.runs.values().filter(|entry| entry.life == Life::Exited);
        let waiting: Vec<(RunIdWire, Option<String>)> =
            exited.map(|entry| (entry.run, entry.cgroup.clone())).collect();
        for (run, cgroup) in waiting {
            let tree = Tree {
                run,
                cgroup: cgroup.as_deref(),
                leader: None,
            };
            if tree.survivors() == 0 {
                let (wall_ms, mono_ns) = now();
                self.pump.drain(run, mono_ns + DRAIN_NS, &self.journal);
                self.append(&Record::TreeGone {
                    run,
                    wall_ms,
                    mono_ns,
                });
                if let Some(entry) = self.runs.get_mut(&run) {
                    entry.life = Life::Gone;
                }
            }
        }
    }

    /// Until it is on file: nothing may be reaped before.
    fn append(&self, record: &Record) {
        while self.journal.append(std::slice::from_ref(record)).is_err() {
            std::thread::sleep(RETRY);
        }
    }
}
