//! Leases, and what becomes due.

use super::held::{Held, Phase, Why};
use super::{AGAIN, Command, Dispatch, Output, Upkept, later};
use crate::queue::outcome::{Outcome, settle};
use crate::queue::task::{Claimed, Failure, Handle, TaskId};
use crate::time::{Duration, Mono, Now};
use std::collections::BTreeMap;

impl Dispatch {
    /// What has to be done because its time has come.
    pub(super) fn deadlines(&mut self, now: Now, out: &mut Output) {
        let due: Vec<TaskId> = self
            .held
            .iter()
            .filter(|(_, held)| held.deadline().is_some_and(|at| at <= now.mono))
            .map(|(task, _)| *task)
            .collect();
        for task in due {
            self.overdue(now, task, out);
        }
        let fenced: Vec<TaskId> = self
            .held
            .iter()
            .filter(|(_, held)| held.is_working() && self.fence_of(held) <= now.mono)
            .map(|(task, _)| *task)
            .collect();
        for task in fenced {
            let ending = self.held.get(&task).map(|held| &held.phase);
            if !matches!(
                ending,
                Some(
                    Phase::Ending {
                        why: Why::LeaseLost,
                        ..
                    } | Phase::Clearing(_)
                )
            ) {
                self.ask_to_end(now, task, Why::LeaseLost, out);
            }
            // Asked once. What follows is its end.
            if let Some(held) = self.held.get_mut(&task) {
                held.lease_until = Mono(u64::MAX);
            }
        }
    }

    fn overdue(&mut self, now: Now, task: TaskId, out: &mut Output) {
        let Some(held) = self.held.get_mut(&task) else {
            return;
        };
        match &mut held.phase {
            Phase::Working => {
                held.timeout_at = None;
                self.ask_to_end(now, task, Why::Timeout, out);
            }
            Phase::Ending { kill_at, .. } => {
                *kill_at = None;
                out.commands.push(Command::Kill(held.row.handle));
            }
            Phase::Settling { settlement, again_at } => {
                *again_at = None;
                out.commands.push(Command::Settle(settlement.clone()));
            }
            Phase::Clearing(_) => {}
        }
    }

    /// From then on a worker whose lease was not renewed is not trusted to end in time by itself.
    pub(super) fn fence_of(&self, held: &Held) -> Mono {
        if held.lease_until == Mono(u64::MAX) {
            return held.lease_until;
        }
        held.lease_until.minus(self.lease_of(held) / 5)
    }

    fn lease_of(&self, held: &Held) -> Duration {
        let lane = self.lanes.get(&held.row.queue);
        lane.map_or(Duration::from_secs(30), |lane| lane.spec.lease)
    }

    /// Leases are renewed every third of the shortest.
    pub(super) fn plan_renewal(&mut self, now: Now) {
        let shortest = self.held.values().map(|held| self.lease_of(held)).min();
        self.renew_at = match (shortest, self.renew_at) {
            (None, _) => None,
            (Some(lease), None) => Some(now.mono.plus(lease / 3)),
            (Some(lease), Some(at)) => Some(at.min(now.mono.plus(lease / 3))),
        };
    }

    pub(super) fn renew(&mut self, now: Now, out: &mut Output) {
        if self.renew_asked || self.renew_at.is_none_or(|at| at > now.mono) {
            return;
        }
        self.renew_at = None;
        let held: Vec<(Handle, Duration)> = self
            .held
            .values()
            .filter(|held| {
                !self
                    .lanes
                    .get(&held.row.queue)
                    .is_some_and(|lane| lane.spec.forgets_at_claim())
            })
            .map(|held| (held.row.handle, self.lease_of(held)))
            .collect();
        // Rows that are gone have no lease: nobody else can get them.
        for held in self.held.values_mut() {
            let forgets = self
                .lanes
                .get(&held.row.queue)
                .is_some_and(|lane| lane.spec.forgets_at_claim());
            if forgets {
                held.lease_until = Mono(u64::MAX);
            }
        }
        if held.is_empty() {
            return self.plan_renewal_if_held(now);
        }
        self.renew_asked = true;
        out.commands.push(Command::Renew(held));
    }

    fn plan_renewal_if_held(&mut self, now: Now) {
        if !self.held.is_empty() {
            self.plan_renewal(now);
        }
    }

    pub(super) fn renewed(
        &mut self,
        now: Now,
        asked: Mono,
        kept: Option<Vec<(Handle, bool)>>,
        out: &mut Output,
    ) {
        self.renew_asked = false;
        let Some(kept) = kept else {
            self.renew_at = Some(now.mono.plus(AGAIN));
            return;
        };
        let kept: BTreeMap<Handle, bool> = kept.into_iter().collect();
        let mut lost = Vec::new();
        let mut cancelled = Vec::new();
        let leases: BTreeMap<TaskId, Duration> = self
            .held
            .iter()
            .map(|(task, held)| (*task, self.lease_of(held)))
            .collect();
        for (task, held) in &mut self.held {
            let lease = leases.get(task).copied().unwrap_or_default();
            match kept.get(&held.row.handle) {
                Some(wanted) => {
                    if held.lease_until != Mono(u64::MAX) {
                        held.lease_until = asked.plus(lease);
                    }
                    if *wanted && !held.row.cancelled {
                        held.row.cancelled = true;
                        cancelled.push(*task);
                    }
                }
                // Claimed after the renewal was asked for.
                None if held.lease_until > asked.plus(lease) => {}
                None if held.lease_until == Mono(u64::MAX) => {}
                None => lost.push(*task),
            }
        }
        for task in cancelled {
            self.ask_to_end(now, task, Why::Cancelled, out);
        }
        for task in lost {
            self.ask_to_end(now, task, Why::LeaseLost, out);
            if let Some(held) = self.held.get_mut(&task) {
                held.lease_until = Mono(u64::MAX);
            }
        }
        self.plan_renewal_if_held(now);
    }

    // ── what becomes due ──

    pub(super) fn upkeep(&mut self, now: Now, out: &mut Output) {
        if self.upkeep_asked || self.upkeep_at.is_none_or(|at| at > now.mono) {
            return;
        }
        self.upkeep_at = None;
        self.upkeep_asked = true;
        out.commands.push(Command::Upkeep);
    }

    pub(super) fn upkept(&mut self, now: Now, upkept: Option<Upkept>, out: &mut Output) {
        self.upkeep_asked = false;
        let Some(upkept) = upkept else {
            self.upkeep_at = Some(now.mono.plus(AGAIN));
            return;
        };
        for queue in &upkept.moved {
            if let Some(lane) = self.lanes.get_mut(queue) {
                lane.hinted = true;
            }
        }
        let next = [upkept.next_due, upkept.next_lease].into_iter().flatten().min();
        if let Some(at) = next {
            // A lease that ended a moment ago is not asked for again and again.
            let at = later(now, at).max(now.mono.plus(Duration::from_millis(1)));
            self.upkeep_at = Some(self.upkeep_at.map_or(at, |known| known.min(at)));
        }
        for row in upkept.expired {
            self.expired(now, &row, out);
        }
    }

    /// Whoever had it was silent for longer than its lease: the attempt counts.
    fn expired(&mut self, now: Now, row: &Claimed, out: &mut Output) {
        let Some(lane) = self.lanes.get(&row.queue) else {
            return;
        };
        if self.held.contains_key(&row.handle.task) {
            // Ours: it is renewed, or was ended for that reason.
            return;
        }
        let failure = Failure::of(
            "lease-expired",
            format!("nothing was heard of {} for {:?}", row.owner, lane.spec.lease),
        );
        let outcome = Outcome::Failed(failure);
        let settlement = settle(&lane.spec, row, outcome, now.wall, self.dice.share());
        self.held.insert(
            row.handle.task,
            Held {
                row: row.clone(),
                seat: u32::MAX,
                lease_until: Mono(u64::MAX),
                timeout_at: None,
                phase: Phase::Settling {
                    settlement: Box::new(settlement.clone()),
                    again_at: None,
                },
            },
        );
        out.commands.push(Command::Settle(Box::new(settlement)));
    }
}
