//! The runner of one task: it decides what is recorded, and then what is done.
//!
//! ```text
//!            every step that counts is over, or too many failed
//!  ACTIVE ─────────────────────────────────────────────────────▶ CLEANING   asks what still runs to end, once
//!                                                                   │ │
//!                                                  nothing is left  │ │ the budget is used up: kill, no final steps
//!                                                                   ▼ │
//!                                                              FINALIZING   runs the final steps in what is left of the budget
//!                                                                   │ │
//!                                                                   ▼ ▼
//!                                              SUCCESS | FAILED | KILLED | LOST   kills what is left
//! ```
//!
//! **Order.** [`Runner::handle`] returns records and commands. The records must be durable before the first command is
//! carried out. A runner that dies in between is replaced by one that reads the same records and decides the same.
//!
//! **Recovery.** [`Runner::replay`] folds the stream without any effect. Then the outside tells what the journals of shims know of
//! each step's newest run ([`Input::Found`]), then [`Input::Lead`]: the current state is recorded again with the new
//! leader, what happened meanwhile is taken over in the right order, and what was decided and not begun is begun.
//!
//! **Ends of runs.** Whatever a run leaves behind is killed when it ends, and the next run of a step starts when
//! nothing is left of the one before. A run that is already recorded as over is told nothing new.
//!
//! **Time.** Waits are on the monotonic clock. What an earlier leader began to wait for is counted from the wall time of its
//! record, and never longer than from now.

mod facts;
mod stages;
mod view;

pub use view::{StepView, TaskView};

use super::fold::{FoldError, History};
use super::plan::{End, Ending, Plan, PlanError};
use super::record::{
    Change, Header, Outputs, Record, Status as TaskStatus, StepRecord, StepState, TaskState, Usage,
};
use super::spec::{Step, Task};
use crate::io::{Reason, Status};
use crate::job::Scope;
use crate::name::RunId;
use crate::retry::{Dice, LEAST_AFTER_FAILED_START};
use crate::time::{Duration, Mono, Now, Wall};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Makes ids of runs: unique for ever on one node.
pub type RunIds<'a> = &'a mut dyn FnMut() -> RunId;

/// Who leads: in every status record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// OS pid.
    pub pid: u32,
    /// User.
    pub uid: u32,
}

/// What the runner is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time went by. Always harmless.
    Tick,
    /// Before [`Input::Lead`]: the newest run of a step that journals know.
    Found {
        /// Index of the step.
        step: usize,
        /// Its ordinal, from 1.
        attempt: u32,
        /// Its id.
        run: RunId,
        /// What became of it.
        what: Found,
    },
    /// From now on this runner leads. `header` is written if the stream has none.
    Lead(Box<Header>),
    /// A run exists.
    Started {
        /// Which.
        run: RunId,
        /// OS pid.
        pid: u32,
        /// OS pid of its parent.
        parent_pid: u32,
        /// When.
        at: Wall,
    },
    /// A run could not be started.
    StartFailed {
        /// Which.
        run: RunId,
        /// In words.
        text: Arc<str>,
        /// 127: there is no such program, 126: anything else.
        code: i32,
    },
    /// A run never came to be, for no fault of its program: it is asked for again.
    NotStarted {
        /// Which.
        run: RunId,
    },
    /// The main process of a run ended.
    Ended {
        /// Which.
        run: RunId,
        /// How.
        end: RunEnd,
        /// Nothing of its tree is left.
        tree_gone: bool,
    },
    /// Nothing of a run's tree is left.
    TreeGone {
        /// Which.
        run: RunId,
    },
    /// End the task.
    Kill {
        /// Final state: killed, lost or failed.
        state: TaskState,
        /// Time for an orderly end.
        grace: Duration,
        /// Kill everything now: no signal before, no final steps.
        hard: bool,
        /// Why, in words: `killed by ana`.
        reason: Arc<str>,
    },
    /// Freeze, or go on.
    Pause(bool),
    /// Nothing is begun and no stage ends until the hold is taken back, or an end is asked for. Nothing of that is recorded:
    /// whoever leads a task that comes after others asks again.
    Hold(bool),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEnd {
    /// Code, signal, or nobody could watch.
    pub status: Status,
    /// Out of memory, by the kernel's count.
    pub oom: bool,
    /// When.
    pub at: Wall,
    /// Its declared outputs, or what is wrong with them.
    pub outputs: Result<Outputs, Arc<str>>,
    /// What it used, if that is known.
    pub usage: Option<Usage>,
}

/// What journals know of a step's newest run.
#[derive(Clone, Debug)]
pub enum Found {
    /// It was asked for, and no more is known: a fact follows.
    Asked,
    /// It lives.
    Alive {
        /// OS pid.
        pid: u32,
        /// Its parent.
        parent_pid: u32,
        /// Since.
        at: Wall,
    },
    /// It ended.
    Ended {
        /// Its pid, parent and start, if it was born.
        born: Option<(u32, u32, Wall)>,
        /// How.
        end: RunEnd,
        /// Nothing of its tree is left.
        tree_gone: bool,
    },
    /// It could not be started.
    StartFailed {
        /// In words.
        text: Arc<str>,
        /// 127 or 126.
        code: i32,
    },
    /// It never came to be.
    NotStarted,
}

/// What is to be done, once the records are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Start a run.
    Spawn {
        /// Index of the step.
        step: usize,
        /// New id.
        run: RunId,
        /// Ordinal of the run, from 1.
        attempt: u32,
        /// The step's run before, which has ended with nothing left of its tree.
        after: Option<RunId>,
    },
    /// Send a signal.
    Signal {
        /// To this run.
        run: RunId,
        /// Number.
        signal: i32,
        /// Which of its processes.
        to: Scope,
    },
    /// End everything in the run's tree now.
    KillTree {
        /// Of this run.
        run: RunId,
    },
    /// Freeze or thaw the run's tree.
    Freeze {
        /// Of this run.
        run: RunId,
        /// Frozen?
        on: bool,
    },
    /// The task is over and nothing of it is left: its file moves from active to finished. Once.
    Finish {
        /// With this result.
        state: TaskState,
    },
}

/// Something that happened, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `task.started`, `task.finished`, `step.started`, `step.retried`, `step.finished`.
    pub event: &'static str,
    /// Name of the step.
    pub step: Option<Arc<str>>,
    /// Its run.
    pub run: Option<RunId>,
    /// Why.
    pub reason: Option<Reason>,
}

/// What [`Runner::handle`] returns: first the records, durably; then the commands, in order.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// To be written first.
    pub records: Vec<Record>,
    /// To do.
    pub commands: Vec<Command>,
    /// To tell.
    pub events: Vec<Event>,
}

/// A stream that cannot be led.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// It contradicts itself.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// It contradicts the definition.
    #[error("the stream and the definition of the task differ: {0}")]
    Plan(#[from] PlanError),
    /// A step that the definition does not have.
    #[error("the stream has a step `{0}`, which the definition of the task does not have")]
    UnknownStep(Arc<str>),
}

/// A run that may have processes.
#[derive(Clone, Debug)]
struct Live {
    run: RunId,
    /// It was born: signals reach it.
    born: bool,
    /// Its main process ended, its tree is being killed.
    ended: bool,
    /// It is being asked to end, and is killed at …
    stopping: bool,
    /// Its time was over.
    timed_out: bool,
    timers: [Option<Mono>; 2],
}

/// The two timers of a live run.
const TIMEOUT: usize = 0;
const KILL: usize = 1;

/// Runs one task. See the module.
#[derive(Clone, Debug)]
pub struct Runner {
    spec: Arc<Task>,
    leader: Leader,
    history: History,
    regular: Plan,
    finals: Plan,
    names: BTreeMap<Arc<str>, usize>,
    live: BTreeMap<usize, Live>,
    steps_of_runs: BTreeMap<RunId, usize>,
    last_runs: BTreeMap<usize, RunId>,
    found: Vec<(usize, u32, RunId, Found)>,
    timers: BTreeSet<(Mono, usize, usize)>,
    leads: bool,
    /// End of the budget for clean-up and final steps, or of the grace of a kill.
    until: Option<Mono>,
    /// End of the task's own time.
    timeout_at: Option<Mono>,
    finished: bool,
    hard: bool,
    held: bool,
    dice: Dice,
    now: Now,
    out: Output,
}

impl Runner {
    /// A runner for a task that has the given records already. Nothing is done until [`Input::Lead`]. The graph must
    /// have passed [`Task::check`].
    pub fn replay<'a>(
        spec: Arc<Task>,
        leader: Leader,
        seed: u64,
        now: Now,
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Result<Runner, ReplayError> {
        let names = spec
            .steps
            .iter()
            .enumerate()
            .map(|(at, step)| (step.name.clone(), at))
            .collect();
        let mut runner = Runner {
            regular: Plan::new(&spec, false),
            finals: Plan::new(&spec, true),
            spec,
            leader,
            history: History::default(),
            names,
            live: BTreeMap::new(),
            steps_of_runs: BTreeMap::new(),
            last_runs: BTreeMap::new(),
            found: Vec::new(),
            timers: BTreeSet::new(),
            leads: false,
            until: None,
            timeout_at: None,
            finished: false,
            hard: false,
            held: false,
            dice: Dice::new(seed),
            now,
            out: Output::default(),
        };
        for record in records {
            if runner.history.apply(record, true)? {
                runner.follow(record)?;
            }
        }
        Ok(runner)
    }

    /// Takes in one input. What it returns must be written, then done.
    pub fn handle(&mut self, now: Now, input: Input, ids: RunIds<'_>) -> Output {
        self.now = Now {
            mono: now.mono.max(self.now.mono),
            wall: now.wall,
        };
        self.take_in(input, ids);
        if self.leads {
            self.deadlines();
            self.advance(ids);
        }
        std::mem::take(&mut self.out)
    }

    /// When `handle` has to be called at the latest.
    pub fn next_deadline(&self) -> Option<Mono> {
        if !self.leads || self.history.paused {
            return None;
        }
        let state = self.history.state();
        let due = match state {
            TaskState::Active => self.regular.due().into_iter().chain(self.timeout_at).min(),
            TaskState::Cleaning => self.until,
            TaskState::Finalizing => self.finals.due().into_iter().chain(self.until).min(),
            TaskState::Success | TaskState::Failed | TaskState::Killed | TaskState::Lost => None,
        };
        let timer = self.timers.first().map(|(at, _, _)| *at);
        due.into_iter().chain(timer).min()
    }

    /// Everything that is known.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The definition.
    pub fn spec(&self) -> &Arc<Task> {
        &self.spec
    }

    /// It is over and nothing of it is left.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Step of a run that may have processes.
    pub fn step_of(&self, run: RunId) -> Option<usize> {
        self.steps_of_runs.get(&run).copied()
    }

    fn plan(&mut self, step: usize) -> &mut Plan {
        match self.spec.steps[step].is_final {
            false => &mut self.regular,
            true => &mut self.finals,
        }
    }

    /// Writes a record: into the history, into the plans, and out.
    fn write(&mut self, record: Record) {
        let applied = self.history.apply(&record, false);
        debug_assert!(applied.is_ok(), "a record of ours must fit: {applied:?}");
        let followed = self.follow(&record);
        debug_assert!(
            followed.is_ok(),
            "a record of ours must fit the plan: {followed:?}"
        );
        self.out.records.push(record);
    }

    fn write_step(&mut self, step: usize, change: Change) {
        let name = self.spec.steps[step].name.clone();
        let seq = self.history.next_seq(&name);
        self.write(Record::Step(StepRecord {
            step: name,
            seq,
            change,
        }));
    }

    /// What a record means for plans and deadlines: the same live and from a stream.
    fn follow(&mut self, record: &Record) -> Result<(), ReplayError> {
        match record {
            Record::Header(header) => {
                let timeout = self.spec.timeout;
                self.timeout_at = timeout.map(|timeout| self.left(header.launched, timeout));
            }
            Record::Status(TaskStatus { state, at, .. }) => {
                if *state == TaskState::Cleaning && self.history.forced.is_none() && self.until.is_none() {
                    self.until = Some(self.left(*at, self.spec.finalize_timeout));
                }
            }
            Record::Step(record) => self.follow_step(record)?,
            Record::Carried { step, .. } => {
                let index = self.index(step)?;
                self.plan(index).carry(index)?;
            }
            Record::Paused(_) => {}
            Record::Forced { at, grace_ms, .. } => {
                self.until = Some(self.left(*at, Duration::from_millis(*grace_ms)));
            }
        }
        Ok(())
    }

    fn index(&self, step: &Arc<str>) -> Result<usize, ReplayError> {
        let index = self.names.get(step).copied();
        index.ok_or_else(|| ReplayError::UnknownStep(step.clone()))
    }

    fn follow_step(&mut self, record: &StepRecord) -> Result<(), ReplayError> {
        let index = self.index(&record.step)?;
        let spec = self.spec.clone();
        let step = &spec.steps[index];
        match &record.change {
            Change::Waiting | Change::Forked { .. } | Change::Running { .. } => {
                self.plan(index).begin(index)?
            }
            Change::Ended { state, at, fatal, .. } => {
                let never_ran = self
                    .history
                    .last(&record.step)
                    .is_some_and(|run| run.started.is_none());
                let end = End {
                    ending: ending(step, *state, *fatal),
                    at: self.ago(*at),
                    pause_min: if never_ran {
                        LEAST_AFTER_FAILED_START
                    } else {
                        Duration::ZERO
                    },
                    dice: self.dice.share(),
                };
                self.plan(index).end(index, step, spec.runs_max, end)?;
            }
        }
        if let Change::Forked { run: Some(run), .. } = record.change {
            self.last_runs.insert(index, run);
        }
        Ok(())
    }

    /// When a wait that began at `since` is over: never later than if it began now.
    fn left(&self, since: Wall, wait: Duration) -> Mono {
        let passed = self.now.wall.since(since);
        self.now.mono.plus(wait.saturating_sub(passed))
    }

    /// The monotonic time of something that was recorded.
    fn ago(&self, at: Option<Wall>) -> Mono {
        let passed = at.map_or(Duration::ZERO, |at| self.now.wall.since(at));
        self.now.mono.minus(passed)
    }
}

fn ending(step: &Step, state: StepState, fatal: bool) -> Ending {
    match state {
        StepState::Success => Ending::Success,
        StepState::Killed if !step.signals_count && !fatal => Ending::Lost,
        StepState::Failed | StepState::Killed => Ending::Failure { fatal },
        StepState::Waiting | StepState::Forked | StepState::Running | StepState::Lost => Ending::Lost,
    }
}
