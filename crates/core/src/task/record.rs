//! Records of a task and the tables of its states.
//!
//! ```text
//! step run   (none) → waiting → forked → running → success | failed | killed | lost
//!                        └────────┴───────────────→ failed | killed | lost
//! task       active → cleaning → finalizing → success | failed | killed | lost
//!               └────────┴──────────────────→ success | failed | killed | lost
//! ```
//!
//! A record is written before its effect. Numbers (`seq`) of a step grow by one over all its runs, so
//! that a record is applied exactly once however often it is read.

use crate::name::RunId;
use crate::time::Wall;
use std::sync::Arc;

/// Declared outputs: names and values.
pub type Outputs = Vec<(Arc<str>, Arc<str>)>;

/// State of one run of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepState {
    /// Decided, not started.
    Waiting,
    /// Its parent has it, it has not begun.
    Forked,
    /// Its program runs.
    Running,
    /// Ended as it should.
    Success,
    /// Ended otherwise, or could not be started.
    Failed,
    /// Ended by a signal.
    Killed,
    /// Vanished: nobody knows how it ended.
    Lost,
}

impl StepState {
    /// Over.
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            StepState::Success | StepState::Failed | StepState::Killed | StepState::Lost
        )
    }

    /// May a run go from here to `to`? The table of thermos, with failed from forked (its deviation 5).
    pub fn may_become(self, to: StepState) -> bool {
        match (self, to) {
            (StepState::Waiting, StepState::Forked | StepState::Failed) => true,
            (
                StepState::Forked,
                StepState::Running | StepState::Failed | StepState::Killed | StepState::Lost,
            ) => true,
            (
                StepState::Running,
                StepState::Success | StepState::Failed | StepState::Killed | StepState::Lost,
            ) => true,
            (
                StepState::Waiting
                | StepState::Forked
                | StepState::Running
                | StepState::Success
                | StepState::Failed
                | StepState::Killed
                | StepState::Lost,
                _,
            ) => false,
        }
    }

    /// As files of the original say it, `WAITING`.
    pub fn upper(self) -> &'static str {
        match self {
            StepState::Waiting => "WAITING",
            StepState::Forked => "FORKED",
            StepState::Running => "RUNNING",
            StepState::Success => "SUCCESS",
            StepState::Failed => "FAILED",
            StepState::Killed => "KILLED",
            StepState::Lost => "LOST",
        }
    }

    /// As people read it (ux.md 6.2).
    pub fn word(self) -> &'static str {
        match self {
            StepState::Waiting => "waiting",
            StepState::Forked => "starting",
            StepState::Running => "running",
            StepState::Success => "success",
            StepState::Failed => "failed",
            StepState::Killed => "killed",
            StepState::Lost => "lost",
        }
    }
}

/// State of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskState {
    /// Its regular steps run.
    Active,
    /// What is left of them is asked to end.
    Cleaning,
    /// Its final steps run.
    Finalizing,
    /// Over, healthy.
    Success,
    /// Over, unhealthy.
    Failed,
    /// Ended by request.
    Killed,
    /// Given up: its host or its time was lost.
    Lost,
}

impl TaskState {
    /// Over.
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            TaskState::Success | TaskState::Failed | TaskState::Killed | TaskState::Lost
        )
    }

    /// As files of the original say it, `ACTIVE`.
    pub fn upper(self) -> &'static str {
        match self {
            TaskState::Active => "ACTIVE",
            TaskState::Cleaning => "CLEANING",
            TaskState::Finalizing => "FINALIZING",
            TaskState::Success => "SUCCESS",
            TaskState::Failed => "FAILED",
            TaskState::Killed => "KILLED",
            TaskState::Lost => "LOST",
        }
    }

    /// As people read it (ux.md 6.2).
    pub fn word(self) -> &'static str {
        match self {
            TaskState::Active => "active",
            TaskState::Cleaning => "cleaning",
            TaskState::Finalizing => "finalizing",
            TaskState::Success => "success",
            TaskState::Failed => "failed",
            TaskState::Killed => "killed",
            TaskState::Lost => "lost",
        }
    }
}

/// Who a task is: written once, first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Id of the task.
    pub task_id: Arc<str>,
    /// When it was accepted.
    pub launched: Wall,
    /// Working directory of its steps, absolute.
    pub sandbox: Arc<str>,
    /// Host that runs it.
    pub hostname: Arc<str>,
    /// User its steps run as.
    pub user: Arc<str>,
    /// That user's number, if it was known.
    pub uid: Option<u32>,
    /// Ports by name.
    pub ports: Vec<(Arc<str>, u16)>,
    /// Directory of its output.
    pub log_dir: Arc<str>,
    /// The task that this one runs again in part.
    pub retry_of: Option<Arc<str>>,
}

/// The task's own state, with who leads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// State from now on.
    pub state: TaskState,
    /// When.
    pub at: Wall,
    /// Process that leads the task.
    pub runner_pid: u32,
    /// Its user.
    pub runner_uid: u32,
}

/// A change of the newest run of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepRecord {
    /// Name of the step.
    pub step: Arc<str>,
    /// One more than that of the record before, over all runs of the step.
    pub seq: u64,
    /// What became of it.
    pub change: Change,
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new run is wanted.
    Waiting,
    /// Its parent has it.
    Forked {
        /// When.
        at: Wall,
        /// The parent: a shim.
        parent_pid: u32,
        /// Its id in the shim's journal.
        run: Option<RunId>,
    },
    /// Its program runs.
    Running {
        /// When.
        at: Wall,
        /// OS pid.
        pid: u32,
    },
    /// It is over.
    Ended {
        /// Success, failed, killed or lost.
        state: StepState,
        /// When; a lost run has none.
        at: Option<Wall>,
        /// Exit code, or minus the signal.
        code: Option<i32>,
        /// In words, where the code does not say it all.
        reason: Option<Arc<str>>,
        /// Declared outputs of a success.
        outputs: Outputs,
        /// Not to be tried again, whatever its attempts.
        fatal: bool,
        /// What it used, as far as the kernel has counted it.
        usage: Option<Usage>,
    },
}

/// What a run used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in milliseconds.
    pub cpu_ms: u64,
    /// Largest resident size of one of its processes, in bytes.
    pub memory_peak: u64,
}

impl Change {
    /// The state that follows.
    pub fn state(&self) -> StepState {
        match self {
            Change::Waiting => StepState::Waiting,
            Change::Forked { .. } => StepState::Forked,
            Change::Running { .. } => StepState::Running,
            Change::Ended { state, .. } => *state,
        }
    }
}

/// One record of the runner stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Who the task is.
    Header(Header),
    /// The task's own state.
    Status(Status),
    /// A step's.
    Step(StepRecord),
    /// A step counts as done already: it was in the task that this one runs again.
    Carried {
        /// Name of the step.
        step: Arc<str>,
        /// Its outputs then.
        outputs: Outputs,
    },
    /// Nothing new is started, what runs is frozen (or no longer).
    Paused(bool),
    /// The end is decided, whatever comes: killed, lost or failed.
    Forced {
        /// Final state.
        state: TaskState,
        /// When it was asked for.
        at: Wall,
        /// Time for an orderly end from then, milliseconds.
        grace_ms: u64,
        /// Why, in words.
        reason: Arc<str>,
    },
}
