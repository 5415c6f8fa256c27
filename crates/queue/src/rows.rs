//! What people are shown.

use gaffer_core::name::{JobId, JobName, Name};
use gaffer_core::queue::spec::{LEAST_KEPT, QueueId};
use gaffer_core::queue::task::{Failure, Settlement, TaskId, TaskState};
use gaffer_core::time::Wall;
use serde::{Deserialize, Serialize};

/// All that a store knows of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRow {
    /// Its number.
    pub id: TaskId,
    /// `session.queue`.
    pub queue: String,
    /// Its kind.
    pub kind: Option<String>,
    /// JSON.
    pub payload: String,
    /// Free JSON.
    pub meta: Option<String>,
    /// Smaller runs first.
    pub priority: i32,
    /// State.
    pub state: TaskState,
    /// When it could, or can, first begin.
    pub run_at: Option<Wall>,
    /// Attempts that count.
    pub attempt: u32,
    /// Its own bound.
    pub attempts_max: Option<u32>,
    /// Ends by signal or for memory.
    pub crashes: u32,
    /// Times in a row that it was given back.
    pub interrupts: u32,
    /// What excludes others.
    pub unique_key: Option<String>,
    /// What it is throttled by.
    pub limit_key: Option<String>,
    /// Longest life of an attempt.
    pub timeout_ms: Option<u64>,
    /// Who has it.
    pub owner: Option<String>,
    /// Until when, if nothing is heard.
    pub lease_until: Option<Wall>,
    /// Number of its newest claim.
    pub token: u64,
    /// Its end was asked for.
    pub cancelled: bool,
    /// Pushed.
    pub created: Wall,
    /// Claimed last.
    pub started: Option<Wall>,
    /// Over.
    pub finished: Option<Wall>,
    /// Why the last attempt failed.
    pub error: Option<TaskError>,
    /// JSON.
    pub result: Option<String>,
    /// When the row goes.
    pub expires: Option<Wall>,
}

/// Why an attempt failed, as it is kept and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskError {
    /// `exit:3`, `timeout`, …
    pub kind: String,
    /// One sentence.
    pub message: String,
    /// The last of its stderr.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

/// An attempt that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRow {
    /// Its ordinal, from 1.
    pub attempt: u32,
    /// Begun.
    pub started: Option<Wall>,
    /// Over.
    pub finished: Wall,
    /// `done failed crashed snoozed released interrupted cancelled lost`.
    pub outcome: String,
    /// Why.
    pub error: Option<TaskError>,
}

/// Which tasks are listed, newest first.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this queue; none: of all.
    pub queue: Option<String>,
    /// In this state.
    pub state: Option<TaskState>,
    /// Of this kind.
    pub kind: Option<String>,
    /// Pushed since.
    pub since: Option<Wall>,
    /// With a smaller number: the next page.
    pub before: Option<TaskId>,
    /// At most so many.
    pub limit: u32,
}

/// How many tasks of a queue are where. Counts stop at [`COUNT_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// May be claimed.
    pub queued: u64,
    /// For later.
    pub scheduled: u64,
    /// Claimed, on any node.
    pub running: u64,
    /// Given up.
    pub dead: u64,
    /// When the oldest of the queued ones could have begun.
    pub oldest: Option<Wall>,
}

/// Nothing is counted further than this: a number that costs a walk through a million rows helps nobody.
pub const COUNT_MAX: u64 = 100_000;

/// What alerts are made from, beside [`Counts`]. None of it takes a walk through a large table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// Tasks given up since the time that was asked for, at most [`SIGNS_MAX`], and when the first of them was.
    pub died: Option<(u64, Wall)>,
    /// When the last minute ended in which a task was finished.
    pub finished: Option<Wall>,
    /// How many waited at the ends of minutes, oldest first.
    pub waiting: Vec<(Wall, u64)>,
    /// When the oldest of each kind could have begun, among the first [`SIGNS_MAX`] that wait.
    pub kinds: Vec<(Option<String>, Wall)>,
    /// Size of the log of the file.
    pub log_bytes: Option<u64>,
}

/// Rows that are looked at for [`Signs`].
pub const SIGNS_MAX: u64 = 1_000;

/// What a queue did with tasks of a kind in a minute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MinuteRow {
    /// `session.queue`.
    pub queue: String,
    /// Kind; empty: none.
    pub kind: String,
    /// Its beginning.
    pub minute: Wall,
    /// Attempts begun.
    pub begun: u64,
    /// Tasks worked off.
    pub done: u64,
    /// Attempts that failed and are followed by another.
    pub retried: u64,
    /// Tasks given up, or lost.
    pub dead: u64,
    /// From when tasks could begin until they began: milliseconds, of all, and the longest.
    pub waited_ms: (u64, u64),
    /// From the beginning of attempts until their outcomes were in the store.
    pub took_ms: (u64, u64),
    /// Tasks that might have begun, in the whole queue, when this was written; at most [`COUNT_MAX`].
    pub waiting: u64,
}

/// How far a schedule is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScheduleRow {
    /// All ticks up to this one are dealt with.
    pub seen: Wall,
    /// When it was first seen: intervals are counted from here.
    pub anchor: Wall,
    /// Nothing is done.
    pub paused: bool,
    /// When the last pause ended.
    pub awake: Option<Wall>,
    /// When an operator last said something.
    pub changed: Option<Wall>,
    /// Who.
    pub changed_by: String,
    /// The tick that was acted upon last.
    pub fired: Option<Wall>,
    /// When that was.
    pub fired_at: Option<Wall>,
    /// What came of it: `task:ID`, a number of a queue, an operation.
    pub became: Option<String>,
    /// Why a tick was last given up.
    pub note: Option<String>,
    /// A tick that waits for the end of the one before it.
    pub waiting: Option<Wall>,
}

/// What an operator said about a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// Nothing is claimed.
    pub paused: bool,
    /// Workers are frozen, too.
    pub frozen: bool,
    /// Nothing is taken.
    pub closed: bool,
    /// When that was said.
    pub at: Option<Wall>,
    /// By whom.
    pub by: String,
}

/// `session.queue`; none: what somebody wrote there is no name.
pub(crate) fn queue_of(text: &str) -> Option<QueueId> {
    let (session, queue) = text.split_once('.')?;
    Some(JobId::new(
        Name::parse(session).ok()?,
        JobName::parse(queue).ok()?,
    ))
}

/// Why an attempt failed, as it is kept.
pub(crate) fn error_json(failure: &Failure) -> String {
    let error = TaskError {
        kind: failure.kind.to_string(),
        message: failure.message.to_string(),
        output: failure.output.to_string(),
    };
    serde_json::to_string(&error).unwrap_or_default()
}

/// What becomes of a task that would wait again, while another one with its key waits already.
pub(crate) fn superseded(settlement: &Settlement, now: Wall) -> Settlement {
    Settlement {
        state: TaskState::Cancelled,
        run_at: None,
        failure: Some(Failure::of(
            "superseded",
            "another task with its key waits already",
        )),
        expires: Some(now.plus(LEAST_KEPT)),
        ..settlement.clone()
    }
}

/// Numbers of rows as a store keeps them.
pub(crate) fn ids_text(ids: &[i64]) -> String {
    serde_json::Value::from(ids).to_string()
}

/// Numbers of rows that a store kept; none kept: none.
pub(crate) fn ids_of(text: Option<&str>) -> Vec<i64> {
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

impl Signs {
    /// A minute: its beginning, what was finished in it, and how many waited at its end.
    pub(crate) fn minute(&mut self, (minute, finished, waiting): (i64, u64, u64)) {
        let end = Wall(minute.saturating_add(60_000));
        if finished > 0 {
            self.finished = Some(end);
        }
        self.waiting.push((end, waiting));
    }
}
