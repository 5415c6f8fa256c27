//! What anyone may see of a task, in the words of ux.md 6.2.

use super::Runner;
use crate::reason::span;
use crate::task::plan::Phase;
use crate::task::record::{StepState, TaskState};
use crate::task::spec::When;
use crate::time::Duration;
use std::sync::Arc;

/// A task as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskView {
    /// State.
    pub state: TaskState,
    /// Frozen by an operator.
    pub paused: bool,
    /// One sentence: `3 of 4 steps left`.
    pub summary: String,
    /// Why it is as it is.
    pub reason: Option<Arc<str>>,
    /// In order of declaration.
    pub steps: Vec<StepView>,
}

/// A step as it is; its runs are in the history.
#[derive(Clone, Debug, PartialEq)]
pub struct StepView {
    /// Name.
    pub name: Arc<str>,
    /// `waiting starting running success failed killed lost`.
    pub state: &'static str,
    /// What it waits for, or how its last run ended.
    pub reason: Option<String>,
    /// Time until the next attempt.
    pub next_in: Option<Duration>,
    /// Runs so far.
    pub attempt: u32,
    /// Attempts that may fail; none is unlimited.
    pub attempts: Option<u32>,
    /// What it waits for.
    pub after: Vec<(Arc<str>, When)>,
    /// It runs at the end.
    pub is_final: bool,
    /// It does not count.
    pub background: bool,
    /// Whoever runs the task in the foreground shows its output.
    pub console: bool,
}

impl Runner {
    /// The task as it is at the time of the last input.
    pub fn view(&self) -> TaskView {
        let steps: Vec<StepView> = (0..self.spec.steps.len())
            .map(|step| self.step_view(step))
            .collect();
        let left = (0..self.spec.steps.len())
            .filter(|step| !self.phase(*step).is_over())
            .count();
        let state = self.history.state();
        let summary = match state.is_terminal() {
            true => state.word().to_owned(),
            false => format!("{left} of {} steps left", self.spec.steps.len()),
        };
        TaskView {
            state,
            paused: self.history.paused,
            summary,
            reason: self.why(),
            steps,
        }
    }

    pub(super) fn phase(&self, step: usize) -> Phase {
        match self.spec.steps[step].is_final {
            false => self.regular.phase(step),
            true => self.finals.phase(step),
        }
    }

    fn step_view(&self, step: usize) -> StepView {
        let spec = &self.spec.steps[step];
        let runs = self.history.steps.get(&spec.name);
        let last = runs.and_then(|runs| runs.last());
        let over = self.history.state().is_terminal();
        let phase = self.phase(step);
        let state = match (phase, last) {
            (Phase::Running, Some(last)) => last.state,
            (Phase::Finished | Phase::Failed, Some(last)) => last.state,
            (_, Some(last)) if over => last.state,
            (Phase::Finished, None) => StepState::Success,
            _ => StepState::Waiting,
        };
        let next_in = match phase {
            Phase::Cooling(due) if !over => Some(due.since(self.now.mono)),
            _ => None,
        };
        StepView {
            name: spec.name.clone(),
            state: state.word(),
            reason: self.step_reason(step, phase, over),
            next_in,
            attempt: u32::try_from(runs.map_or(0, Vec::len)).unwrap_or(u32::MAX),
            attempts: spec.retry.attempts,
            after: spec
                .after
                .iter()
                .map(|(on, when)| (self.spec.steps[*on].name.clone(), *when))
                .collect(),
            is_final: spec.is_final,
            background: spec.background,
            console: spec.console,
        }
    }

    fn step_reason(&self, step: usize, phase: Phase, over: bool) -> Option<String> {
        let spec = &self.spec.steps[step];
        let last = self.history.last(&spec.name);
        let ended = last.and_then(|last| last.reason.as_deref().map(str::to_owned));
        match phase {
            Phase::Finished if self.history.carried.contains_key(&spec.name) => {
                let before = self
                    .history
                    .header
                    .as_ref()
                    .and_then(|header| header.retry_of.as_deref());
                Some(format!("done before, in {}", before.unwrap_or("an earlier run")))
            }
            Phase::Running | Phase::Finished | Phase::Failed => ended,
            Phase::Moot => Some("not needed: what it waits for ended otherwise".to_owned()),
            Phase::Blocked if !over => self.waits_for(step),
            Phase::Ready if !over && self.held && !spec.is_final => {
                Some("for what the task comes after".to_owned())
            }
            Phase::Ready if !over => Some(match (self.history.paused, spec.is_final, self.history.state()) {
                (true, ..) => "paused".to_owned(),
                (_, true, state) if state != TaskState::Finalizing => "final".to_owned(),
                _ => "for a free slot".to_owned(),
            }),
            Phase::Cooling(_) if !over => match (ended, self.next_try(step)) {
                (Some(ended), Some(next)) => Some(format!("{ended}; {next}")),
                (ended, next) => ended.or(next),
            },
            Phase::Other | Phase::Blocked | Phase::Ready | Phase::Cooling(_) => ended,
        }
    }

    fn waits_for(&self, step: usize) -> Option<String> {
        let open = self.spec.steps[step].after.iter().filter(|(on, when)| {
            !matches!(
                (self.phase(*on), when),
                (Phase::Finished, When::Done | When::Ended)
                    | (Phase::Failed, When::Failed | When::Ended)
                    | (Phase::Moot, When::Ended)
            )
        });
        let names: Vec<&str> = open.map(|(on, _)| &*self.spec.steps[*on].name).take(3).collect();
        (!names.is_empty()).then(|| format!("for {}", names.join(", ")))
    }

    /// `attempt 2 of 5 in 10s`, if there will be one.
    pub(super) fn next_try(&self, step: usize) -> Option<String> {
        let Phase::Cooling(due) = self.phase(step) else {
            return None;
        };
        let spec = &self.spec.steps[step];
        let runs = self.history.steps.get(&spec.name).map_or(0, Vec::len) + 1;
        let pause = span(due.since(self.now.mono));
        Some(match spec.retry.attempts.filter(|attempts| *attempts > 1) {
            Some(attempts) if !spec.restart_always => format!("attempt {runs} of {attempts} in {pause}"),
            _ => format!("run {runs} in {pause}"),
        })
    }
}
