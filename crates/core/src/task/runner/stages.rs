//! The stages: what is begun, what is asked to end, and when it is over.

use super::{Command, KILL, RunIds, Runner, TIMEOUT};
use crate::io::Reason;
use crate::name::RunId;
use crate::reason::span;
use crate::task::plan::Phase;
use crate::task::record::{Change, Record, StepState, TaskState};
use crate::time::Duration;
use std::sync::Arc;

impl Runner {
    /// Goes on until nothing more follows from what is known.
    pub(super) fn advance(&mut self, ids: RunIds<'_>) {
        loop {
            let state = self.history.state();
            if self.held && self.history.forced.is_none() && !state.is_terminal() {
                return;
            }
            let next = match state {
                TaskState::Active => self.active(ids),
                TaskState::Cleaning => self.cleaning(),
                TaskState::Finalizing => self.finalizing(ids),
                TaskState::Success | TaskState::Failed | TaskState::Killed | TaskState::Lost => {
                    return self.finish();
                }
            };
            match next {
                None => return,
                Some(state) => self.enter(state),
            }
        }
    }

    fn active(&mut self, ids: RunIds<'_>) -> Option<TaskState> {
        if self.history.forced.is_some() || self.regular.is_complete() {
            return Some(TaskState::Cleaning);
        }
        let healthy = self.regular.is_healthy(self.spec.failures);
        if !healthy && !self.regular.is_handling() {
            return Some(TaskState::Cleaning);
        }
        self.begin_picks(false, !healthy, ids);
        None
    }

    fn cleaning(&mut self) -> Option<TaskState> {
        match (self.live.is_empty(), self.is_late()) {
            (_, true) => Some(self.result()),
            (true, false) => Some(TaskState::Finalizing),
            (false, false) => None,
        }
    }

    fn finalizing(&mut self, ids: RunIds<'_>) -> Option<TaskState> {
        if self.finals.is_complete() || self.finals.is_deadlocked() || self.is_late() {
            return Some(self.result());
        }
        self.begin_picks(true, false, ids);
        None
    }

    /// The budget for an orderly end is used up.
    fn is_late(&self) -> bool {
        self.until.is_some_and(|until| until <= self.now.mono)
    }

    /// How the task ends if it ends now. Final steps do not count.
    fn result(&self) -> TaskState {
        match &self.history.forced {
            Some(forced) => forced.state,
            None if self.regular.is_complete() && self.regular.is_healthy(self.spec.failures) => {
                TaskState::Success
            }
            None => TaskState::Failed,
        }
    }

    fn begin_picks(&mut self, is_final: bool, handlers_only: bool, ids: RunIds<'_>) {
        if self.history.paused {
            return;
        }
        let (now, concurrency) = (self.now.mono, self.spec.concurrency);
        let plan = match is_final {
            false => &mut self.regular,
            true => &mut self.finals,
        };
        for step in plan.picks(now, concurrency, handlers_only) {
            // The tree of its last run is not gone yet: it is picked again when it is.
            if self.live.contains_key(&step) {
                continue;
            }
            self.write_step(step, Change::Waiting);
            self.begin_again(step, ids);
        }
    }

    /// Asks for the run that the record says is wanted.
    pub(super) fn begin_again(&mut self, step: usize, ids: RunIds<'_>) {
        if self.history.state().is_terminal() {
            return;
        }
        let run = ids();
        let after = self.last_runs.get(&step).copied();
        let runs = self.history.steps.get(&self.spec.steps[step].name);
        let attempt = u32::try_from(runs.map_or(1, Vec::len)).unwrap_or(u32::MAX);
        self.remember(step, run);
        self.out.commands.push(Command::Spawn {
            step,
            run,
            attempt,
            after,
        });
    }

    fn enter(&mut self, state: TaskState) {
        if state.is_terminal() {
            self.kill_leftovers();
        }
        self.write_status(state);
        if state == TaskState::Cleaning {
            let regular: Vec<usize> = self.live.keys().copied().collect();
            for step in regular {
                self.ask_to_end(step);
            }
        }
        if state.is_terminal() {
            let text = self.why();
            let reason = text.map(|text| Reason {
                code: state.word(),
                text,
            });
            self.tell("task.finished", None, None, reason);
        }
    }

    /// One sentence about the result.
    pub(super) fn why(&self) -> Option<Arc<str>> {
        if let Some(forced) = &self.history.forced {
            return Some(forced.reason.clone());
        }
        let bad = self.regular.failed();
        if bad == 0 && !self.regular.is_deadlocked() {
            return None;
        }
        let failed = self.spec.steps.iter().enumerate().filter(|(index, step)| {
            !step.is_final && !step.background && self.regular.phase(*index) == Phase::Failed
        });
        let names: Vec<&str> = failed.take(3).map(|(_, step)| &*step.name).collect();
        let more = if bad > names.len() { " and others" } else { "" };
        Some(Arc::from(format!("failed: {}{more}", names.join(", "))))
    }

    /// Begins the stop sequence of one run.
    pub(super) fn ask_to_end(&mut self, step: usize) {
        let spec = self.spec.clone();
        let Some(live) = self.live.get_mut(&step) else {
            return;
        };
        if !live.born || live.ended || live.stopping {
            return;
        }
        live.stopping = true;
        let run = live.run;
        let stop = &spec.steps[step].stop;
        self.arm(step, TIMEOUT, None);
        self.out.commands.push(Command::Signal {
            run,
            signal: stop.signal,
            to: stop.to,
        });
        // Without a limit of its own the budget of the task is its limit.
        let limit = Some(stop.timeout).filter(|timeout| *timeout < Duration::MAX);
        self.arm(step, KILL, limit.map(|limit| self.now.mono.plus(limit)));
    }

    /// A run that was born just now, in a task that is ending or paused.
    pub(super) fn catch_up(&mut self, step: usize) {
        let Some(run) = self.live.get(&step).map(|live| live.run) else {
            return;
        };
        let is_final = self.spec.steps[step].is_final;
        match self.history.state() {
            TaskState::Cleaning => self.ask_to_end(step),
            TaskState::Finalizing if !is_final => self.out.commands.push(Command::KillTree { run }),
            TaskState::Success | TaskState::Failed | TaskState::Killed | TaskState::Lost => {
                self.out.commands.push(Command::KillTree { run });
            }
            TaskState::Active | TaskState::Finalizing => {
                if self.history.paused {
                    self.out.commands.push(Command::Freeze { run, on: true });
                }
            }
        }
    }

    /// The end of a task: what still runs is recorded as killed, and killed.
    fn kill_leftovers(&mut self) {
        let code = if self.hard { -9 } else { -1 };
        let left: Vec<(usize, RunId)> = self.live.iter().map(|(step, live)| (*step, live.run)).collect();
        for (step, run) in left {
            let name = self.spec.steps[step].name.clone();
            let state = self.history.last(&name).map(|last| last.state);
            if matches!(state, Some(StepState::Forked | StepState::Running)) {
                let at = Some(self.now.wall);
                let text = Arc::from("killed: the task ended");
                self.write_end(step, StepState::Killed, at, Some(code), Some(text), false);
            }
            self.out.commands.push(Command::KillTree { run });
        }
    }

    fn finish(&mut self) {
        if self.live.is_empty() && !self.finished {
            self.finished = true;
            let state = self.history.state();
            self.out.commands.push(Command::Finish { state });
        }
    }

    /// An end is asked for.
    pub(super) fn kill(&mut self, state: TaskState, grace: Duration, hard: bool, reason: Arc<str>) {
        if !self.leads || self.history.state().is_terminal() {
            return;
        }
        if self.history.paused {
            self.pause(false);
        }
        self.write(Record::Forced {
            state,
            at: self.now.wall,
            grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
            reason,
        });
        if hard {
            self.hard = true;
            self.enter(state);
        }
    }

    pub(super) fn pause(&mut self, on: bool) {
        if !self.leads || self.history.paused == on || self.history.state().is_terminal() {
            return;
        }
        self.write(Record::Paused(on));
        let runs: Vec<RunId> = self
            .live
            .values()
            .filter(|live| live.born)
            .map(|live| live.run)
            .collect();
        let freeze = runs.into_iter().map(|run| Command::Freeze { run, on });
        self.out.commands.extend(freeze);
    }

    /// Deals with deadlines that have passed.
    pub(super) fn deadlines(&mut self) {
        if self.history.paused {
            return;
        }
        let now = self.now.mono;
        while let Some((at, step, timer)) = self.timers.first().copied().filter(|(at, ..)| *at <= now) {
            self.timers.remove(&(at, step, timer));
            let Some(live) = self.live.get_mut(&step) else {
                continue;
            };
            live.timers[timer] = None;
            let run = live.run;
            if timer == TIMEOUT {
                live.timed_out = true;
                self.ask_to_end(step);
            } else {
                self.out.commands.push(Command::KillTree { run });
            }
        }
        let over = self.timeout_at.is_some_and(|at| at <= now);
        if over && self.history.state() == TaskState::Active && self.history.forced.is_none() {
            let (grace, limit) = (self.spec.stop_timeout, self.spec.timeout.unwrap_or_default());
            let reason = Arc::from(format!("did not end within {}", span(limit)));
            self.kill(TaskState::Failed, grace, false, reason);
        }
    }
}
