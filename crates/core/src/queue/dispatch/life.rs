//! The beginning and the end of a node.

use super::held::{Held, Phase, Why};
use super::{Command, Dispatch, Output, Stopping};
use crate::queue::outcome::Outcome;
use crate::queue::spec::{By, Delivery, OnStop};
use crate::queue::task::{Claimed, Failure, TaskId};
use crate::time::{Mono, Now};

impl Dispatch {
    /// What the store has under an earlier incarnation of this node.
    pub(super) fn orphans(&mut self, now: Now, rows: Vec<Claimed>, out: &mut Output) {
        for row in rows {
            let found = self.found.remove(&row.handle);
            let (task, handle) = (row.handle.task, row.handle);
            let Some(lane) = self.lanes.get_mut(&row.queue) else {
                // Its queue is not defined here any more: it waits, as it is, for somebody to define it.
                continue;
            };
            let (seat, end) = match found {
                Some((queue, seat, ended)) if queue == row.queue => (seat, ended),
                _ => {
                    let work = lane.spec.work(row.kind.as_deref());
                    let in_process = work.by == By::Others;
                    let outcome = if in_process || lane.spec.delivery == Delivery::AtMostOnce {
                        Outcome::Crashed(Failure::of("node-died", "the daemon that handled it was killed"))
                    } else {
                        Outcome::NotHanded
                    };
                    (u32::MAX, Some(outcome))
                }
            };
            if seat != u32::MAX {
                lane.seats.insert(seat, task);
            }
            let lease = lane.spec.lease;
            self.held.insert(
                task,
                Held {
                    row,
                    seat,
                    lease_until: now.mono.plus(lease),
                    timeout_at: None,
                    phase: Phase::Working,
                },
            );
            match end {
                Some(outcome) => self.ended(now, handle, outcome, true, out),
                None => self.adopted(now, task, out),
            }
        }
    }

    /// A worker lives on. What is left of its time is counted from now: nobody wrote down when it began to count.
    fn adopted(&mut self, now: Now, task: TaskId, out: &mut Output) {
        let Some(held) = self.held.get_mut(&task) else {
            return;
        };
        let lane = self.lanes.get(&held.row.queue);
        let timeout =
            lane.and_then(|lane| super::timeout_of(lane.spec.work(held.row.kind.as_deref()), &held.row));
        held.timeout_at = timeout.map(|timeout| now.mono.plus(timeout));
        if held.row.cancelled {
            self.ask_to_end(now, task, Why::Cancelled, out);
        }
        // Its lease may be about to end.
        self.renew_at = Some(now.mono);
    }

    pub(super) fn recover(&mut self, now: Now) {
        self.recovered = true;
        self.upkeep_at = Some(now.mono);
        for lane in self.lanes.values_mut() {
            lane.hinted = true;
        }
    }

    /// Workers that recovery found and no row knows: of tasks whose row was forgotten with the claim, or that somebody else got. The
    /// first go on, the others have to go. Called once, after the orphans.
    pub fn strangers(&mut self) -> Vec<(crate::queue::task::Handle, crate::queue::spec::QueueId, u32)> {
        std::mem::take(&mut self.found)
            .into_iter()
            .filter(|(_, (_, _, ended))| ended.is_none())
            .map(|(handle, (queue, seat, _))| (handle, queue, seat))
            .collect()
    }

    /// A worker whose row was forgotten with the claim goes on.
    pub fn adopt_forgotten(&mut self, row: Claimed, seat: u32) {
        let task = row.handle.task;
        if let Some(lane) = self.lanes.get_mut(&row.queue) {
            lane.seats.insert(seat, task);
        }
        self.held.insert(
            task,
            Held {
                row,
                seat,
                lease_until: Mono(u64::MAX),
                timeout_at: None,
                phase: Phase::Working,
            },
        );
    }

    // ── the end ──

    pub(super) fn drain(&mut self, now: Now, on: bool, out: &mut Output) {
        self.drained = on;
        for lane in self.lanes.values_mut() {
            lane.hinted |= !on;
        }
        // What was claimed ahead of its turn is for others.
        let unclaimed = |held: &Held| on && held.seat == u32::MAX && held.is_working();
        let ahead: Vec<TaskId> = self
            .held
            .iter()
            .filter(|(_, held)| unclaimed(held))
            .map(|(task, _)| *task)
            .collect();
        for task in ahead {
            self.ask_to_end(now, task, Why::Stopping, out);
        }
    }

    pub(super) fn begin_stop(&mut self, now: Now, out: &mut Output) {
        for task in self.held.keys().copied().collect::<Vec<_>>() {
            let Some(held) = self.held.get(&task) else {
                continue;
            };
            let Some(lane) = self.lanes.get(&held.row.queue) else {
                continue;
            };
            let unclaimed = held.seat == u32::MAX && held.is_working();
            let release = lane.spec.on_stop == OnStop::Release && !lane.spec.keep_running;
            if unclaimed && lane.spec.on_stop != OnStop::Drain || release {
                self.ask_to_end(now, task, Why::Stopping, out);
            }
        }
    }

    /// When the end of the node has to be looked at again.
    pub(super) fn next_stop(&self, stopping: Stopping) -> Option<Mono> {
        let working = self
            .held
            .values()
            .filter(|held| matches!(held.phase, Phase::Working));
        let ends = working.filter_map(|held| self.stop_at(held, stopping));
        let drains = self
            .lanes
            .values()
            .filter(|lane| lane.spec.on_stop == OnStop::Drain);
        let drains = drains.map(|lane| stopping.since.plus(lane.spec.drain_timeout));
        ends.chain(drains.filter(|at| self.looked < *at)).min()
    }

    /// When a worker is ended by the end of the node; none: it is left running.
    fn stop_at(&self, held: &Held, stopping: Stopping) -> Option<Mono> {
        let spec = &self.lanes.get(&held.row.queue)?.spec;
        let time = match spec.on_stop {
            OnStop::Drain => spec.drain_timeout,
            OnStop::Finish | OnStop::Release => spec.work(held.row.kind.as_deref()).stop.timeout,
        };
        (!spec.keep_running).then(|| stopping.since.plus(time))
    }

    /// What is left of the node's work is ended when its time is over; then the end is told.
    pub(super) fn end(&mut self, now: Now, out: &mut Output) {
        let Some(stopping) = self.stopping.filter(|stopping| !stopping.told) else {
            return;
        };
        let late: Vec<TaskId> = self
            .held
            .iter()
            .filter(|(_, held)| matches!(held.phase, Phase::Working))
            .filter(|(_, held)| self.stop_at(held, stopping).is_some_and(|at| at <= now.mono))
            .map(|(task, _)| *task)
            .collect();
        for task in late {
            self.kill_interrupted(task, out);
        }
        let waits = self.held.values().any(|held| {
            let lane = self.lanes.get(&held.row.queue);
            let stays = lane.is_some_and(|lane| lane.spec.keep_running);
            match held.phase {
                Phase::Settling { again_at, .. } => again_at.is_none(),
                _ => !stays,
            }
        });
        let backlog = self.lanes.values().any(|lane| {
            let drains = lane.spec.on_stop == OnStop::Drain && !lane.paused && !lane.removed;
            let in_time = now.mono < stopping.since.plus(lane.spec.drain_timeout);
            drains && in_time && (lane.hinted || lane.asked > 0) && self.recovered
        });
        if !waits && !backlog {
            self.stopping = Some(Stopping {
                told: true,
                ..stopping
            });
            out.commands.push(Command::ShutdownDone);
        }
    }

    fn kill_interrupted(&mut self, task: TaskId, out: &mut Output) {
        if let Some(held) = self.held.get_mut(&task) {
            held.phase = Phase::Ending {
                why: Why::Stopping,
                kill_at: None,
            };
            out.commands.push(Command::Kill(held.row.handle));
        }
    }
}
