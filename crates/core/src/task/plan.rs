//! What of a task may run next. Two plans per task, one of its regular and one of its final steps; neither sees the other's.
//!
//! Everything is kept up to date as steps end, so that a decision costs no more in a task of fifty thousand steps than
//! in one of ten: a step counts the conditions that are still missing, those that miss none are in one of two ordered
//! sets, and an end looks at its dependents only.
//!
//! | a run ended | counts as failure | afterwards |
//! |---|---|---|
//! | success | no | finished; with `restart = "always"` a candidate again |
//! | failed | yes | a candidate again, until its attempts are used up: then failed (in the background: finished) |
//! | killed, lost | no (killed: yes, where the step says so) | a candidate again |
//!
//! A candidate may run when the pause since its last end is over. A step whose conditions can never hold because
//! another one took a different end than it waits for is *moot*: it will not run, and that is nobody's failure. A step that waits for
//! the success of one that failed for good is blocked for ever: that is a deadlock, and fails the task.

use super::spec::{Step, Task, When};
use crate::retry;
use crate::time::{Duration, Mono};
use std::collections::BTreeSet;

/// Where a step stands in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It belongs to the other plan.
    Other,
    /// A condition is missing.
    Blocked,
    /// It may run now.
    Ready,
    /// It may run from then on.
    Cooling(Mono),
    /// It runs.
    Running,
    /// Over, as it should be.
    Finished,
    /// Over, it failed for good.
    Failed,
    /// It will never run, and need not.
    Moot,
}

impl Phase {
    /// Nothing more will come.
    pub fn is_over(self) -> bool {
        matches!(self, Phase::Finished | Phase::Failed | Phase::Moot)
    }
}

/// A step that was told something which does not fit where it stands: our mistake, or a stream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("step number {step} is {phase:?}: it cannot be {what}")]
pub struct PlanError {
    /// Index of the step.
    pub step: usize,
    /// Where it stands.
    pub phase: Phase,
    /// What it was told.
    pub what: &'static str,
}

/// How a run ended, for the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As it should.
    Success,
    /// Counts as failure; `fatal`: the last one, whatever the attempts.
    Failure {
        /// No further attempt.
        fatal: bool,
    },
    /// Does not count, and is tried again.
    Lost,
}

/// An end of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End {
    /// What it counts as.
    pub ending: Ending,
    /// When.
    pub at: Mono,
    /// Least pause before a further run.
    pub pause_min: Duration,
    /// Chance for the jitter, in `0.0..1.0`.
    pub dice: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed,
    Moot,
}

#[derive(Clone, Debug)]
struct Entry {
    phase: Phase,
    missing: usize,
    failures: u32,
    runs: u32,
    ordinary: bool,
    /// Waits for the failure, or any end, of a step that failed.
    handles: bool,
}

/// The plan of the regular or of the final steps.
#[derive(Clone, Debug)]
pub struct Plan {
    entries: Vec<Entry>,
    dependents: Vec<Vec<(usize, When)>>,
    ready: BTreeSet<usize>,
    cooling: BTreeSet<(Mono, usize)>,
    running: BTreeSet<usize>,
    /// Steps that count and are not over.
    open: usize,
    /// Of those: ready, cooling or running.
    moving: usize,
    /// Of those that count: failed for good.
    failed: usize,
    /// Steps that waited for a failure that has come: ready, cooling or running.
    handling: usize,
}

impl Plan {
    /// The plan of a task's regular or final steps.
    pub fn new(task: &Task, is_final: bool) -> Plan {
        let mut dependents = vec![Vec::new(); task.steps.len()];
        let mut entries = Vec::with_capacity(task.steps.len());
        for (index, step) in task.steps.iter().enumerate() {
            let own = step.is_final == is_final;
            if own {
                for (on, when) in &step.after {
                    dependents[*on].push((index, *when));
                }
            }
            entries.push(Entry {
                phase: if own { Phase::Blocked } else { Phase::Other },
                missing: step.after.len(),
                failures: 0,
                runs: 0,
                ordinary: !step.background,
                handles: false,
            });
        }
        let mut plan = Plan {
            entries,
            dependents,
            ready: BTreeSet::new(),
            cooling: BTreeSet::new(),
            running: BTreeSet::new(),
            open: 0,
            moving: 0,
            failed: 0,
            handling: 0,
        };
        for index in 0..task.steps.len() {
            let entry = &plan.entries[index];
            if entry.phase == Phase::Other {
                continue;
            }
            plan.open += usize::from(entry.ordinary);
            if entry.missing == 0 {
                plan.place(index, Phase::Ready);
            }
        }
        plan
    }

    /// Moves a step, keeping every count true.
    fn place(&mut self, step: usize, to: Phase) {
        let from = std::mem::replace(&mut self.entries[step].phase, to);
        match from {
            Phase::Ready => drop(self.ready.remove(&step)),
            Phase::Cooling(due) => drop(self.cooling.remove(&(due, step))),
            Phase::Running => drop(self.running.remove(&step)),
            Phase::Other | Phase::Blocked | Phase::Finished | Phase::Failed | Phase::Moot => {}
        }
        match to {
            Phase::Ready => drop(self.ready.insert(step)),
            Phase::Cooling(due) => drop(self.cooling.insert((due, step))),
            Phase::Running => drop(self.running.insert(step)),
            Phase::Other | Phase::Blocked | Phase::Finished | Phase::Failed | Phase::Moot => {}
        }
        let entry = &self.entries[step];
        let moves = |phase: Phase| matches!(phase, Phase::Ready | Phase::Cooling(_) | Phase::Running);
        if entry.ordinary {
            self.moving = self.moving + usize::from(moves(to)) - usize::from(moves(from));
            self.open -= usize::from(to.is_over() && !from.is_over());
            self.failed += usize::from(to == Phase::Failed && from != Phase::Failed);
        }
        if entry.handles {
            self.handling = self.handling + usize::from(moves(to)) - usize::from(moves(from));
        }
    }

    fn refuse(&self, step: usize, what: &'static str) -> PlanError {
        PlanError {
            step,
            phase: self.phase(step),
            what,
        }
    }

    /// Where a step stands.
    pub fn phase(&self, step: usize) -> Phase {
        self.entries.get(step).map_or(Phase::Other, |entry| entry.phase)
    }

    /// Steps that run, in order of declaration.
    pub fn running(&self) -> impl Iterator<Item = usize> {
        self.running.iter().copied()
    }

    /// A run of the step begins, or goes on.
    pub fn begin(&mut self, step: usize) -> Result<(), PlanError> {
        match self.phase(step) {
            Phase::Ready | Phase::Cooling(_) => {
                self.place(step, Phase::Running);
                Ok(())
            }
            Phase::Running => Ok(()),
            Phase::Other | Phase::Blocked | Phase::Finished | Phase::Failed | Phase::Moot => {
                Err(self.refuse(step, "begun"))
            }
        }
    }

    /// A run of the step ended. `runs_max` forbids a further run, nothing else.
    pub fn end(
        &mut self,
        step: usize,
        spec: &Step,
        runs_max: Option<u32>,
        end: End,
    ) -> Result<(), PlanError> {
        let ending = end.ending;
        if self.phase(step) != Phase::Running {
            return Err(self.refuse(step, "ended"));
        }
        let entry = &mut self.entries[step];
        entry.runs += 1;
        entry.failures += u32::from(matches!(ending, Ending::Failure { .. }));
        let used_up = spec
            .retry
            .attempts
            .is_some_and(|attempts| entry.failures >= attempts);
        let failed = match ending {
            Ending::Failure { fatal } => fatal || used_up,
            Ending::Success | Ending::Lost => false,
        };
        let capped = runs_max.is_some_and(|most| entry.runs >= most);
        let (failures, ordinary) = (entry.failures, entry.ordinary);
        if ending == Ending::Success && !spec.restart_always {
            return self.over(step, Phase::Finished, Outcome::Done);
        }
        if failed || capped {
            return match ordinary {
                true => self.over(step, Phase::Failed, Outcome::Failed),
                false => self.over(step, Phase::Finished, Outcome::Done),
            };
        }
        let streak = match ending {
            Ending::Failure { .. } => failures,
            Ending::Success | Ending::Lost => 1,
        };
        let pause = retry::delay(&spec.retry, streak, end.dice);
        let due = end.at.plus(pause.max(end.pause_min));
        self.place(step, Phase::Cooling(due));
        Ok(())
    }

    /// A step is done without a run: it was done in an earlier task.
    pub fn carry(&mut self, step: usize) -> Result<(), PlanError> {
        if matches!(self.phase(step), Phase::Other) {
            return Err(self.refuse(step, "carried over"));
        }
        self.over(step, Phase::Finished, Outcome::Done)
    }

    /// A running step fails for good, whatever its attempts.
    pub fn pin_failed(&mut self, step: usize) -> Result<(), PlanError> {
        if self.phase(step) != Phase::Running {
            return Err(self.refuse(step, "failed"));
        }
        self.over(step, Phase::Failed, Outcome::Failed)
    }

    fn over(&mut self, step: usize, phase: Phase, outcome: Outcome) -> Result<(), PlanError> {
        self.place(step, phase);
        let mut told = vec![(step, outcome)];
        while let Some((step, outcome)) = told.pop() {
            for at in 0..self.dependents[step].len() {
                let (dependent, when) = self.dependents[step][at];
                if self.phase(dependent) != Phase::Blocked {
                    continue;
                }
                match (outcome, when) {
                    (Outcome::Done, When::Done | When::Ended)
                    | (Outcome::Failed, When::Failed | When::Ended)
                    | (Outcome::Moot, When::Ended) => {
                        self.met(dependent, outcome == Outcome::Failed);
                    }
                    (Outcome::Done, When::Failed) | (Outcome::Moot, When::Done | When::Failed) => {
                        self.place(dependent, Phase::Moot);
                        told.push((dependent, Outcome::Moot));
                    }
                    // Blocked for ever: the deadlock tells.
                    (Outcome::Failed, When::Done) => {}
                }
            }
        }
        Ok(())
    }

    fn met(&mut self, step: usize, by_failure: bool) {
        let entry = &mut self.entries[step];
        entry.missing -= 1;
        entry.handles |= by_failure;
        if entry.missing == 0 {
            self.place(step, Phase::Ready);
        }
    }

    /// Lets those whose pause is over join the ready ones.
    pub fn promote(&mut self, now: Mono) {
        while let Some((due, step)) = self.cooling.first().copied() {
            if due > now {
                return;
            }
            self.place(step, Phase::Ready);
        }
    }

    /// Steps that may run at `now`, in order of declaration.
    pub fn runnable(&mut self, now: Mono) -> Vec<usize> {
        self.promote(now);
        self.ready.iter().copied().collect()
    }

    /// The steps to begin at `now`: all that may, or as many as `concurrency` leaves room for. With `handlers_only` those alone
    /// that wait for a failure that has come.
    pub fn picks(&mut self, now: Mono, concurrency: Option<u32>, handlers_only: bool) -> Vec<usize> {
        self.promote(now);
        let room = match concurrency {
            None => usize::MAX,
            Some(most) => (most as usize).saturating_sub(self.running.len()),
        };
        let wanted = |step: &&usize| !handlers_only || self.entries[**step].handles;
        self.ready.iter().filter(wanted).take(room).copied().collect()
    }

    /// When the next pause is over.
    pub fn due(&self) -> Option<Mono> {
        self.cooling.first().map(|(due, _)| *due)
    }

    /// Zero if something may run, else until the first pause is over; none: nothing waits.
    pub fn wait_min(&mut self, now: Mono) -> Option<Duration> {
        self.promote(now);
        match self.ready.is_empty() {
            false => Some(Duration::ZERO),
            true => self.due().map(|due| due.since(now)),
        }
    }

    /// Every step that counts is over.
    pub fn is_complete(&self) -> bool {
        self.open == 0
    }

    /// Steps that count are left, and none of them can ever run: background steps do not hide that.
    pub fn is_deadlocked(&self) -> bool {
        self.open > 0 && self.moving == 0
    }

    /// Steps that failed for good.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Not deadlocked, and fewer failed steps than `failures` allows.
    pub fn is_healthy(&self, failures: Option<u32>) -> bool {
        !self.is_deadlocked() && failures.is_none_or(|most| self.failed < most as usize)
    }

    /// A step that waits for a failure that has come can still run: the task ends behind it.
    pub fn is_handling(&self) -> bool {
        self.handling > 0
    }
}
