//! What the outside tells about runs, and what it means for the record.

use super::{Event, Found, Input, KILL, Live, RunEnd, RunIds, Runner, TIMEOUT};
use crate::io::{Reason, Status};
use crate::job::{ExitClass, ExitMatch};
use crate::name::RunId;
use crate::reason::{signal_name, span};
use crate::task::record::{Change, Header, Record, Status as TaskStatus, StepState, TaskState};
use crate::time::{Mono, Wall};
use std::sync::Arc;

impl Runner {
    pub(super) fn take_in(&mut self, input: Input, ids: RunIds<'_>) {
        match input {
            Input::Tick => {}
            Input::Found {
                step,
                attempt,
                run,
                what,
            } => self.found.push((step, attempt, run, what)),
            Input::Lead(header) => self.lead(*header, ids),
            Input::Started {
                run,
                pid,
                parent_pid,
                at,
            } => {
                if let Some(step) = self.step_of(run) {
                    self.born(step, pid, parent_pid, at);
                }
            }
            Input::StartFailed { run, text, code } => {
                if let Some(step) = self.step_of(run) {
                    self.forget(step);
                    self.start_failed(step, text, code);
                }
            }
            Input::NotStarted { run } => {
                if let Some(step) = self.step_of(run) {
                    self.forget(step);
                    self.begin_again(step, ids);
                }
            }
            Input::Ended { run, end, tree_gone } => {
                if let Some(step) = self.step_of(run) {
                    self.ended(step, &end);
                    self.left_behind(step, tree_gone);
                }
            }
            Input::TreeGone { run } => {
                if let Some(step) = self.step_of(run)
                    && self.live.get(&step).is_some_and(|live| live.ended)
                {
                    self.forget(step);
                }
            }
            Input::Kill {
                state,
                grace,
                hard,
                reason,
            } => self.kill(state, grace, hard, reason),
            Input::Pause(on) => self.pause(on),
            Input::Hold(on) => self.held = on,
        }
    }

    /// Takes control: says so, takes over what happened meanwhile, begins what was decided.
    fn lead(&mut self, header: Header, ids: RunIds<'_>) {
        if self.leads {
            return;
        }
        self.leads = true;
        if self.history.header.is_none() {
            self.write(Record::Header(header));
        }
        if self.history.statuses.is_empty() {
            self.tell("task.started", None, None, None);
        }
        let state = self.history.state();
        if state.is_terminal() {
            self.settle_found();
            return;
        }
        self.write_status(state);
        self.settle_found();
        let begun: Vec<usize> = self.regular.running().chain(self.finals.running()).collect();
        for step in begun {
            if self.live.contains_key(&step) {
                continue;
            }
            let state = self
                .history
                .last(&self.spec.steps[step].name)
                .map(|run| run.state);
            match state {
                // Decided and not begun: the same run, not a further one.
                Some(StepState::Waiting) if self.held => {}
                Some(StepState::Waiting) => self.begin_again(step, ids),
                Some(StepState::Forked | StepState::Running) => self.vanished(step),
                Some(StepState::Success | StepState::Failed | StepState::Killed | StepState::Lost) | None => {
                }
            }
        }
    }

    fn settle_found(&mut self) {
        for (step, attempt, run, what) in std::mem::take(&mut self.found) {
            self.last_runs.insert(step, run);
            let name = self.spec.steps[step].name.clone();
            let runs = self.history.steps.get(&name).map_or(0, Vec::len);
            let open = self
                .history
                .last(&name)
                .is_some_and(|last| !last.state.is_terminal());
            let is_newest = runs == attempt as usize && open;
            self.settle_one(step, run, what, is_newest);
        }
    }

    /// `is_newest`: the record says that this run is not over; else only what it left behind matters.
    fn settle_one(&mut self, step: usize, run: RunId, what: Found, is_newest: bool) {
        match what {
            Found::Asked => self.remember(step, run),
            Found::Alive { pid, parent_pid, at } => {
                self.remember(step, run);
                if is_newest {
                    self.born(step, pid, parent_pid, at);
                } else {
                    self.left_behind(step, false);
                }
            }
            Found::Ended { born, end, tree_gone } => {
                self.remember(step, run);
                if is_newest {
                    if let Some((pid, parent_pid, at)) = born {
                        self.born(step, pid, parent_pid, at);
                    }
                    self.ended(step, &end);
                }
                self.left_behind(step, tree_gone);
            }
            Found::StartFailed { text, code } => {
                if is_newest {
                    self.start_failed(step, text, code);
                }
            }
            Found::NotStarted => {}
        }
    }

    /// A run that may have processes from now on.
    pub(super) fn remember(&mut self, step: usize, run: RunId) {
        self.last_runs.insert(step, run);
        self.steps_of_runs.insert(run, step);
        self.live.insert(
            step,
            Live {
                run,
                born: false,
                ended: false,
                stopping: false,
                timed_out: false,
                timers: [None; 2],
            },
        );
    }

    /// Nothing of the step's run is left.
    fn forget(&mut self, step: usize) {
        self.arm(step, TIMEOUT, None);
        self.arm(step, KILL, None);
        if let Some(live) = self.live.remove(&step) {
            self.steps_of_runs.remove(&live.run);
        }
    }

    pub(super) fn arm(&mut self, step: usize, timer: usize, at: Option<Mono>) {
        let Some(live) = self.live.get_mut(&step) else {
            return;
        };
        if let Some(old) = std::mem::replace(&mut live.timers[timer], at) {
            self.timers.remove(&(old, step, timer));
        }
        if let Some(at) = at {
            self.timers.insert((at, step, timer));
        }
    }

    fn born(&mut self, step: usize, pid: u32, parent_pid: u32, at: Wall) {
        let spec = self.spec.clone();
        let Some(live) = self.live.get_mut(&step) else {
            return;
        };
        live.born = true;
        let run = live.run;
        let last = self.history.last(&spec.steps[step].name).map(|last| last.state);
        if last == Some(StepState::Waiting) {
            self.write_step(
                step,
                Change::Forked {
                    at,
                    parent_pid,
                    run: Some(run),
                },
            );
        }
        if matches!(last, Some(StepState::Waiting | StepState::Forked)) {
            self.write_step(step, Change::Running { at, pid });
            self.tell("step.started", Some(step), Some(run), None);
        }
        if let Some(timeout) = spec.steps[step].timeout {
            let due = self.left(at, timeout);
            self.arm(step, TIMEOUT, Some(due));
        }
        self.catch_up(step);
    }

    fn start_failed(&mut self, step: usize, text: Arc<str>, code: i32) {
        let at = Some(self.now.wall);
        self.write_end(step, StepState::Failed, at, Some(code), Some(text), false);
    }

    /// A run that is recorded as begun, and that nobody knows.
    fn vanished(&mut self, step: usize) {
        let text = Arc::from("ended while nobody could watch: exit status unknown");
        self.write_end(step, StepState::Lost, None, None, Some(text), false);
    }

    fn ended(&mut self, step: usize, end: &RunEnd) {
        let spec = self.spec.clone();
        let step_spec = &spec.steps[step];
        let timed_out = self.live.get(&step).is_some_and(|live| live.timed_out);
        let Some(last) = self.history.last(&step_spec.name) else {
            return;
        };
        if last.state.is_terminal() {
            return;
        }
        if last.state == StepState::Waiting {
            // It was born and ended between two looks.
            let (run, at) = (self.live.get(&step).map(|live| live.run), end.at);
            self.write_step(
                step,
                Change::Forked {
                    at,
                    parent_pid: 0,
                    run,
                },
            );
            self.write_step(step, Change::Running { at, pid: 0 });
        }
        let change = self.verdict(step, end, timed_out);
        self.write_step(step, change);
        self.tell_end(step);
    }

    /// What an end is worth.
    fn verdict(&self, step: usize, end: &RunEnd, timed_out: bool) -> Change {
        let step_spec = &self.spec.steps[step];
        let began = self.history.last(&step_spec.name).and_then(|last| last.started);
        let lived = span(end.at.since(began.unwrap_or(end.at)));
        let is = |class: &[ExitMatch]| class.iter().any(|one| matches_end(*one, end.status));
        let ExitClass { ok, fatal } = &step_spec.exit;
        let fatal = is(fatal);
        let (state, code, reason, outputs) = match (end.status, &end.outputs) {
            _ if timed_out => {
                let limit = span(step_spec.timeout.unwrap_or_default());
                let text = format!("did not end within {limit}");
                (StepState::Failed, code_of(end.status), Some(text), Vec::new())
            }
            (Status::Unknown, _) => (
                StepState::Lost,
                None,
                Some("ended while nobody could watch: exit status unknown".to_owned()),
                Vec::new(),
            ),
            (status, Ok(outputs)) if is(ok) => (StepState::Success, code_of(status), None, outputs.clone()),
            (status, Err(text)) if is(ok) => (
                StepState::Failed,
                code_of(status),
                Some(text.to_string()),
                Vec::new(),
            ),
            (Status::Code(code), _) => {
                let text = format!("exit {code} after {lived}");
                (StepState::Failed, Some(code), Some(text), Vec::new())
            }
            (Status::Signal(signal, _), _) => {
                let text = match end.oom {
                    true => format!("out of memory, killed by the kernel after {lived}"),
                    false => format!("ended by SIG{} after {lived}", signal_name(signal)),
                };
                // Whom its own limits end would be ended again: that is no kill from outside, which would not count.
                let state = match end.oom && step_spec.launch.limits.is_some() {
                    true => StepState::Failed,
                    false => StepState::Killed,
                };
                (state, Some(-signal), Some(text), Vec::new())
            }
        };
        Change::Ended {
            state,
            at: Some(end.at),
            code,
            reason: reason.map(Arc::from),
            outputs,
            fatal,
            usage: end.usage,
        }
    }

    pub(super) fn write_end(
        &mut self,
        step: usize,
        state: StepState,
        at: Option<Wall>,
        code: Option<i32>,
        reason: Option<Arc<str>>,
        fatal: bool,
    ) {
        let outputs = Vec::new();
        self.write_step(
            step,
            Change::Ended {
                state,
                at,
                code,
                reason,
                outputs,
                fatal,
                usage: None,
            },
        );
        self.tell_end(step);
    }

    /// The main process is over: what it left behind is killed.
    fn left_behind(&mut self, step: usize, tree_gone: bool) {
        if tree_gone {
            return self.forget(step);
        }
        self.arm(step, TIMEOUT, None);
        self.arm(step, KILL, None);
        if let Some(live) = self.live.get_mut(&step) {
            live.ended = true;
            let run = live.run;
            self.out.commands.push(super::Command::KillTree { run });
        }
    }

    pub(super) fn write_status(&mut self, state: TaskState) {
        self.write(Record::Status(TaskStatus {
            state,
            at: self.now.wall,
            runner_pid: self.leader.pid,
            runner_uid: self.leader.uid,
        }));
    }

    fn tell_end(&mut self, step: usize) {
        let name = self.spec.steps[step].name.clone();
        let Some(last) = self.history.last(&name) else {
            return;
        };
        let (run, text) = (last.run, last.reason.clone());
        let next = self.next_try(step);
        let reason = match (text, next) {
            (text, None) => text,
            (None, Some(next)) => Some(Arc::from(next)),
            (Some(text), Some(next)) => Some(Arc::from(format!("{text}; {next}"))),
        };
        let code = last.state.word();
        let reason = reason.map(|text| Reason { code, text });
        let over = self.plan(step).phase(step).is_over();
        let event = if over { "step.finished" } else { "step.retried" };
        self.tell(event, Some(step), run, reason);
    }

    pub(super) fn tell(
        &mut self,
        event: &'static str,
        step: Option<usize>,
        run: Option<RunId>,
        reason: Option<Reason>,
    ) {
        let step = step.map(|step| self.spec.steps[step].name.clone());
        self.out.events.push(Event {
            event,
            step,
            run,
            reason,
        });
    }
}

fn matches_end(class: ExitMatch, status: Status) -> bool {
    match (class, status) {
        (ExitMatch::Code(wanted), Status::Code(code)) => wanted == code,
        (ExitMatch::Signal(wanted), Status::Signal(signal, _)) => wanted == signal,
        (ExitMatch::Code(_), Status::Signal(..) | Status::Unknown)
        | (ExitMatch::Signal(_), Status::Code(_) | Status::Unknown) => false,
    }
}

fn code_of(status: Status) -> Option<i32> {
    match status {
        Status::Code(code) => Some(code),
        Status::Signal(signal, _) => Some(-signal),
        Status::Unknown => None,
    }
}
