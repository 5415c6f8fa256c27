//! A queued task, as stores and machines hand it to each other.

use super::spec::QueueId;
use crate::time::Wall;
use std::sync::Arc;

/// Of a queued task: an integer of its store, never used twice.
pub type TaskId = i64;

/// Names one attempt: the task, and a number that grows with every claim. It is the *fencing number*: a store takes an outcome only
/// with the newest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle {
    /// The task.
    pub task: TaskId,
    /// Which claim of it.
    pub token: u64,
}

/// States of a queued task (ux.md 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskState {
    /// For a later time: the first, or after a failure.
    Scheduled,
    /// May be claimed.
    Queued,
    /// Claimed.
    Running,
    /// Worked off.
    Done,
    /// Given up, or never possible.
    Dead,
    /// Withdrawn.
    Cancelled,
    /// At-most-once only: nobody knows how it ended, and it is not tried again.
    Lost,
}

impl TaskState {
    /// All of them, in the order of a life.
    pub const ALL: [TaskState; 7] = [
        TaskState::Scheduled,
        TaskState::Queued,
        TaskState::Running,
        TaskState::Done,
        TaskState::Dead,
        TaskState::Cancelled,
        TaskState::Lost,
    ];

    /// `scheduled queued running done dead cancelled lost`.
    pub fn word(self) -> &'static str {
        match self {
            TaskState::Scheduled => "scheduled",
            TaskState::Queued => "queued",
            TaskState::Running => "running",
            TaskState::Done => "done",
            TaskState::Dead => "dead",
            TaskState::Cancelled => "cancelled",
            TaskState::Lost => "lost",
        }
    }

    /// Reads what [`TaskState::word`] wrote.
    pub fn parse(word: &str) -> Option<TaskState> {
        TaskState::ALL.into_iter().find(|state| state.word() == word)
    }

    /// Nothing follows by itself.
    pub fn is_final(self) -> bool {
        !matches!(
            self,
            TaskState::Scheduled | TaskState::Queued | TaskState::Running
        )
    }
}

/// A task that was claimed: everything that decisions and workers need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// This attempt.
    pub handle: Handle,
    /// Its queue.
    pub queue: QueueId,
    /// What is to be done, if the queue tells kinds apart.
    pub kind: Option<Arc<str>>,
    /// JSON.
    pub payload: Arc<str>,
    /// Free JSON of whoever pushed it.
    pub meta: Option<Arc<str>>,
    /// Ordinal of this attempt, from 1.
    pub attempt: u32,
    /// Attempts of this very task, if it said so.
    pub attempts_max: Option<u32>,
    /// Ends by signal or for memory so far.
    pub crashes: u32,
    /// Times in a row that it was given back because a node stopped.
    pub interrupts: u32,
    /// Longest life of an attempt of this very task, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// When it was pushed.
    pub created: Wall,
    /// When it could first have been begun.
    pub runnable: Wall,
    /// Somebody asked for its end.
    pub cancelled: bool,
    /// Incarnation of the node, or name of the external worker, that has it.
    pub owner: Arc<str>,
}

/// Why an attempt did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `exit:3`, `signal:9`, `oom`, `timeout`, `heartbeat`, `start-failed`, `lease-expired`, `unknown-kind`, `bad-arguments`, `expired`,
    /// `interrupted`, or what a resident or external worker said.
    pub kind: Arc<str>,
    /// One sentence.
    pub message: Arc<str>,
    /// The last of what it wrote to stderr, at most 4 KiB.
    pub output: Arc<str>,
}

impl Failure {
    /// Without output.
    pub fn of(kind: impl Into<Arc<str>>, message: impl Into<Arc<str>>) -> Failure {
        Failure {
            kind: kind.into(),
            message: message.into(),
            output: "".into(),
        }
    }
}

/// What a claimed task becomes. A store writes it if the handle is the newest and the task is running, else not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The attempt that is over.
    pub handle: Handle,
    /// The queue, for counting.
    pub queue: QueueId,
    /// Next state.
    pub state: TaskState,
    /// When it may begin again (`scheduled`), or what it was.
    pub run_at: Option<Wall>,
    /// Attempts that count so far.
    pub attempt: u32,
    /// Ends by signal or for memory so far.
    pub crashes: u32,
    /// Times in a row that it was given back.
    pub interrupts: u32,
    /// Why it did not succeed.
    pub failure: Option<Failure>,
    /// JSON.
    pub result: Option<Arc<str>>,
    /// When the row may go.
    pub expires: Option<Wall>,
    /// When the result may go.
    pub result_until: Option<Wall>,
    /// Word of the attempt's log: `done`, `failed`, `crashed`, `snoozed`, `released`, `interrupted`, `cancelled`, `lost`.
    pub outcome: &'static str,
    /// The ordinal of the attempt, for its log.
    pub ordinal: u32,
    /// It has to survive a loss of power before anybody hears of it.
    pub full: bool,
    /// A new push with its key is possible from now on, unless it excludes others while it is done.
    pub holds_key: bool,
}
