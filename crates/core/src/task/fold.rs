//! The history of a task: a pure fold over its records.
//!
//! Applying a record never looks at anything but the history and the record. While *recovering* a record
//! that was applied already is passed over; otherwise it is an error, as everything that the tables do not allow.

use super::record::{Change, Header, Outputs, Record, Status, StepRecord, StepState, TaskState, Usage};
use crate::name::RunId;
use crate::time::{Duration, Wall};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that is known of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Who it is.
    pub header: Option<Header>,
    /// Its states in order, repeats included: each leader says the current one again.
    pub statuses: Vec<Status>,
    /// Runs of each step, oldest first.
    pub steps: BTreeMap<Arc<str>, Vec<Run>>,
    /// Steps that were done before this task began, with their outputs.
    pub carried: BTreeMap<Arc<str>, Outputs>,
    /// Paused by an operator.
    pub paused: bool,
    /// The end that was asked for.
    pub forced: Option<Forced>,
}

/// An end that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    /// Final state.
    pub state: TaskState,
    /// When it was asked for.
    pub at: Wall,
    /// Time for an orderly end.
    pub grace: Duration,
    /// Why.
    pub reason: Arc<str>,
}

/// All that is known of one run of a step, merged from its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Number of its newest record.
    pub seq: u64,
    /// State.
    pub state: StepState,
    /// Id in the shim's journal.
    pub run: Option<RunId>,
    /// Its parent.
    pub parent_pid: Option<u32>,
    /// When the parent had it.
    pub forked: Option<Wall>,
    /// OS pid.
    pub pid: Option<u32>,
    /// When its program began.
    pub started: Option<Wall>,
    /// When it ended.
    pub ended: Option<Wall>,
    /// Exit code, or minus the signal.
    pub code: Option<i32>,
    /// In words.
    pub reason: Option<Arc<str>>,
    /// Declared outputs.
    pub outputs: Outputs,
    /// Not to be tried again.
    pub fatal: bool,
    /// What it used.
    pub usage: Option<Usage>,
}

impl Run {
    fn new(seq: u64) -> Run {
        Run {
            seq,
            state: StepState::Waiting,
            run: None,
            parent_pid: None,
            forked: None,
            pid: None,
            started: None,
            ended: None,
            code: None,
            reason: None,
            outputs: Vec::new(),
            fatal: false,
            usage: None,
        }
    }
}

/// A record that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// Somebody else's header.
    #[error("a second header: the stream belongs to task {0} already")]
    SecondHeader(Arc<str>),
    /// A gap or a repetition.
    #[error("step {step}: record {seq} does not follow record {last}")]
    InvalidSequenceNumber {
        /// Which step.
        step: Arc<str>,
        /// Number of the record.
        seq: u64,
        /// Number of the newest one applied.
        last: u64,
    },
    /// Against the table.
    #[error("step {step}: {} cannot become {}", from.upper(), to.upper())]
    InvalidTransition {
        /// Which step.
        step: Arc<str>,
        /// State of its run.
        from: StepState,
        /// State of the record.
        to: StepState,
    },
    /// The beginning is missing.
    #[error("step {0}: the stream is incomplete, its first record is not WAITING")]
    Incomplete(Arc<str>),
    /// A terminal state of a run must be one.
    #[error("step {step}: {} is not the end of a run", state.upper())]
    NotAnEnd {
        /// Which step.
        step: Arc<str>,
        /// State of the record.
        state: StepState,
    },
}

impl History {
    /// Applies one record. `recovering`: records that were applied already are passed over; returns whether it was applied.
    pub fn apply(&mut self, record: &Record, recovering: bool) -> Result<bool, FoldError> {
        match record {
            Record::Header(header) => {
                if let Some(known) = &self.header {
                    if recovering && known == header {
                        return Ok(false);
                    }
                    return Err(FoldError::SecondHeader(known.task_id.clone()));
                }
                self.header = Some(header.clone());
            }
            Record::Status(status) => self.statuses.push(*status),
            Record::Step(record) => return self.apply_step(record, recovering),
            Record::Carried { step, outputs } => {
                self.carried.insert(step.clone(), outputs.clone());
            }
            Record::Paused(paused) => self.paused = *paused,
            Record::Forced {
                state,
                at,
                grace_ms,
                reason,
            } => {
                self.forced = Some(Forced {
                    state: *state,
                    at: *at,
                    grace: Duration::from_millis(*grace_ms),
                    reason: reason.clone(),
                });
            }
        }
        Ok(true)
    }

    /// Folds a whole stream as it is found on disk.
    pub fn replay<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<History, FoldError> {
        let mut history = History::default();
        for record in records {
            history.apply(record, true)?;
        }
        Ok(history)
    }

    fn apply_step(&mut self, record: &StepRecord, recovering: bool) -> Result<bool, FoldError> {
        let step = &record.step;
        let to = record.change.state();
        let runs = self.steps.get(step);
        let last = runs.and_then(|runs| runs.last());
        if let Some(last) = last
            && record.seq != last.seq + 1
        {
            if recovering {
                return Ok(false);
            }
            return Err(FoldError::InvalidSequenceNumber {
                step: step.clone(),
                seq: record.seq,
                last: last.seq,
            });
        }
        if to == StepState::Waiting {
            if let Some(last) = last.filter(|last| !last.state.is_terminal()) {
                return Err(FoldError::InvalidTransition {
                    step: step.clone(),
                    from: last.state,
                    to,
                });
            }
            self.steps
                .entry(step.clone())
                .or_default()
                .push(Run::new(record.seq));
            return Ok(true);
        }
        let Some(run) = self.steps.get_mut(step).and_then(|runs| runs.last_mut()) else {
            return Err(FoldError::Incomplete(step.clone()));
        };
        if !run.state.may_become(to) {
            return Err(FoldError::InvalidTransition {
                step: step.clone(),
                from: run.state,
                to,
            });
        }
        run.take(step, record)?;
        Ok(true)
    }

    /// Would this record change anything: is it news?
    pub fn would_update(&self, record: &Record) -> bool {
        let Record::Step(record) = record else {
            return false;
        };
        self.last(&record.step).is_none_or(|run| record.seq > run.seq)
    }

    /// Newest run of a step.
    pub fn last(&self, step: &str) -> Option<&Run> {
        self.steps.get(step).and_then(|runs| runs.last())
    }

    /// Number for the next record of a step.
    pub fn next_seq(&self, step: &str) -> u64 {
        self.last(step).map_or(0, |run| run.seq + 1)
    }

    /// Current state; a task without a record is active.
    pub fn state(&self) -> TaskState {
        self.statuses
            .last()
            .map_or(TaskState::Active, |status| status.state)
    }

    /// When the current state began: repeats of it by later leaders do not count.
    pub fn state_since(&self) -> Option<Wall> {
        let state = self.state();
        let run = self
            .statuses
            .iter()
            .rev()
            .take_while(|status| status.state == state);
        run.last().map(|status| status.at)
    }

    /// When the clean-up began: its budget counts from here, whoever leads.
    pub fn cleaning_since(&self) -> Option<Wall> {
        let end = |status: &&Status| matches!(status.state, TaskState::Cleaning | TaskState::Finalizing);
        self.statuses.iter().find(end).map(|status| status.at)
    }

    /// Value of a declared output of a step that succeeded.
    pub fn output(&self, step: &str, name: &str) -> Option<&Arc<str>> {
        let carried = self.carried.get(step);
        let run = self.last(step).map(|run| &run.outputs);
        let found = |outputs: &Outputs| outputs.iter().position(|(known, _)| &**known == name);
        match (run, carried) {
            (Some(outputs), _) if found(outputs).is_some() => found(outputs).map(|at| &outputs[at].1),
            (_, Some(outputs)) => found(outputs).map(|at| &outputs[at].1),
            (_, None) => None,
        }
    }
}

impl Run {
    fn take(&mut self, step: &Arc<str>, record: &StepRecord) -> Result<(), FoldError> {
        match &record.change {
            Change::Waiting => {}
            Change::Forked { at, parent_pid, run } => {
                self.forked = Some(*at);
                self.parent_pid = Some(*parent_pid);
                self.run = *run;
            }
            Change::Running { at, pid } => {
                self.started = Some(*at);
                self.pid = Some(*pid);
            }
            Change::Ended {
                state,
                at,
                code,
                reason,
                outputs,
                fatal,
                usage,
            } => {
                if !state.is_terminal() {
                    return Err(FoldError::NotAnEnd {
                        step: step.clone(),
                        state: *state,
                    });
                }
                self.ended = *at;
                self.code = *code;
                self.reason.clone_from(reason);
                self.outputs.clone_from(outputs);
                self.fatal = *fatal;
                self.usage = *usage;
            }
        }
        self.seq = record.seq;
        self.state = record.change.state();
        Ok(())
    }
}
