//! Control's deadlines: stuck starts, leash, idleness. None of them is armed at rest.

use crate::control::{Control, Event, Failed, Phase};
use crate::disk::DiskJob;
use crate::spawner::SPAWNERS_MAX;
use gaffer_shim::identity::{mono_ns, wall_ms};
use gaffer_shim::journal::Record;
use std::cmp::Reverse;
use std::sync::atomic::Ordering::SeqCst;

/// How long a killed child may take to end before the start is given up.
const HANG_MS: u64 = 1_000;

/// Pause after the last start before memory is given back.
const GIVE_BACK_MS: u64 = 3_000;

/// What may be due.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    SpawnDeadline {
        key: u64,
    },
    SpawnHang {
        key: u64,
    },
    KillAfter {
        key: u64,
    },
    Cont {
        key: u64,
    },
    LeashWait {
        round: u64,
    },
    Idle {
        round: u64,
    },
    /// Memory that starts needed is given back when they are over.
    GiveBack {
        starts: u64,
    },
    /// Connections may be taken again.
    Accept,
}

impl Control {
    pub fn arm(&mut self, after_ms: u64, timer: Timer) {
        self.timers
            .push(Reverse((mono_ns() + after_ms * 1_000_000, timer)));
    }

    /// Timers that cannot do anything any more do not wake anybody.
    pub fn timeout_ms(&mut self) -> Option<u64> {
        while let Some(Reverse((_, timer))) = self.timers.peek() {
            let stale = match timer {
                Timer::SpawnDeadline { key } | Timer::SpawnHang { key } => !self
                    .runs
                    .get(key)
                    .is_some_and(|l| matches!(l.phase, Phase::Starting(_))),
                Timer::KillAfter { key } | Timer::Cont { key } => !self.runs.contains_key(key),
                Timer::LeashWait { round } => *round != self.leash_round,
                Timer::Idle { round } => *round != self.idle_round,
                Timer::GiveBack { .. } => false,
                Timer::Accept => self.listener.is_none(),
            };
            if !stale {
                break;
            }
            self.timers.pop();
        }
        let Reverse((at, _)) = self.timers.peek()?;
        Some(at.saturating_sub(mono_ns()).div_ceil(1_000_000))
    }

    pub fn due(&mut self) {
        let now = mono_ns();
        while self.timeout_ms() == Some(0) {
            let Some(Reverse((_, timer))) = self.timers.pop() else {
                return;
            };
            match timer {
                Timer::SpawnDeadline { key } => self.on_spawn_deadline(key, now),
                Timer::SpawnHang { key } => self.on_spawn_hang(key),
                Timer::KillAfter { key } => {
                    if let Some(run) = self.runs.get(&key).map(|live| live.run) {
                        // A run that ended meanwhile is what was wanted.
                        let _ = self.kill_tree(run);
                    }
                }
                Timer::Cont { key } => self.cont(key),
                Timer::LeashWait { .. } => {
                    self.stopping = true;
                    self.leaving = true;
                    for key in self.runs.keys().copied().collect::<Vec<_>>() {
                        self.stop_for_leash(key);
                    }
                    self.leave_if_done();
                }
                // More of them since then: it comes too early.
                Timer::GiveBack { starts } if starts != self.next_key => self.give_back_later(),
                Timer::GiveBack { .. } => {
                    self.giving_back = false;
                    gaffer_shim::memory::give_back();
                }
                Timer::Idle { .. } => {
                    self.leaving = true;
                    self.leave_if_done();
                }
                Timer::Accept => self.accept_again(),
            }
        }
    }

    fn on_spawn_deadline(&mut self, key: u64, now: u64) {
        let Some(live) = self.runs.get(&key) else {
            return;
        };
        let (Phase::Starting(inflight), deadline_ms) = (&live.phase, live.deadline_ms) else {
            return;
        };
        let begun = inflight.begun_ns.load(SeqCst);
        let waited_ms = if begun == 0 {
            0
        } else {
            now.saturating_sub(begun) / 1_000_000
        };
        if waited_ms < deadline_ms {
            self.arm(deadline_ms - waited_ms, Timer::SpawnDeadline { key });
            return;
        }
        inflight.kill();
        self.arm(HANG_MS, Timer::SpawnHang { key });
    }

    /// Even SIGKILL does not end it: another spawner serves the others.
    fn on_spawn_hang(&mut self, key: u64) {
        if self.spawners < SPAWNERS_MAX && (self.more_spawners)(self.spawners) {
            self.spawners += 1;
        }
        let Some(live) = self.runs.get(&key) else {
            return;
        };
        let Phase::Starting(inflight) = &live.phase else {
            return;
        };
        if !inflight.give_up() {
            return;
        }
        let record = Record::StartFailed {
            run: live.run,
            stage: "exec-stuck".to_owned(),
            errno: 0,
            text: format!("no exec within {} ms, and not killable", live.deadline_ms),
            wall_ms: wall_ms(),
            mono_ns: mono_ns(),
        };
        let outcome = Err(Failed { cgroup: None });
        let event = Event::Spawned {
            key,
            outcome,
            position: Default::default(),
        };
        self.disk.send(DiskJob::Append {
            record: Box::new(record),
            event,
        });
    }

    pub fn stop_for_leash(&mut self, key: u64) {
        let Some(live) = self.runs.get(&key) else {
            return;
        };
        let (run, stop) = (live.run, live.stop);
        self.void(run);
        let Some(live) = self.runs.get(&key) else {
            return;
        };
        if live.born.is_none() {
            return;
        }
        if matches!(live.phase, Phase::Exited) {
            let _ = self.kill_tree(run);
            return;
        }
        // Whoever cannot be signalled any more has ended; KILL follows in any case.
        let _ = self.signal(run, stop.signal, stop.scope);
        self.arm(stop.timeout_ms, Timer::KillAfter { key });
    }

    /// Some time after the last start of many.
    pub fn give_back_later(&mut self) {
        self.giving_back = true;
        let starts = self.next_key;
        self.arm(GIVE_BACK_MS, Timer::GiveBack { starts });
    }

    pub fn arm_idle(&mut self) {
        if self.runs.is_empty() && self.conns.is_empty() && !self.left {
            self.idle_round += 1;
            let round = self.idle_round;
            self.arm(self.idle_ms, Timer::Idle { round });
        }
    }

    pub fn leave_if_done(&mut self) {
        if self.leaving
            && self.runs.is_empty()
            && let Some(listener) = self.listener.take()
        {
            self.epoll.remove(&listener);
            self.share.listener_closed();
            self.disk.send(DiskJob::Leave);
        }
    }
}
