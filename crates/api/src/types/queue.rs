//! Queues, and the tasks in them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A queue: `GET /v1/queues/{session}/{queue}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Queue {
    /// Session.
    pub session: String,
    /// Name in its session.
    pub queue: String,
    /// `idle working paused closed`, or `unreachable`: its store does not answer, and nothing is counted.
    pub state: String,
    /// One sentence; empty if there is nothing to say.
    pub summary: String,
    /// What an operator should know, the most pressing first.
    #[serde(default)]
    pub alerts: Vec<QueueAlert>,
    /// Tasks that may begin. Counts stop at 100,000.
    pub waiting: u64,
    /// Age of the oldest of them.
    pub oldest_ms: Option<u64>,
    /// Tasks that somebody works on, on any node.
    pub running: u64,
    /// Tasks for a later time.
    pub scheduled: u64,
    /// Tasks that were given up.
    pub dead: u64,
    /// Tasks at once on this node.
    pub workers: u32,
    /// Tasks that workers of this node have.
    pub busy: u32,
    /// Workers that it shares with other queues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<QueuePool>,
    /// Finished in the last minute, by this daemon.
    pub done_per_min: u64,
    /// Nothing is claimed.
    pub paused: bool,
    /// Nothing is taken.
    pub closed: bool,
    /// Who paused or closed it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<String>,
    /// `at-least-once` or `at-most-once`.
    pub delivery: String,
    /// Workers that an operator wants; null: as the file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaled: Option<u32>,
    /// Where its tasks are: `sqlite`, or `postgres://HOST:PORT/DATABASE`.
    #[serde(default)]
    pub store: String,
    /// File that it comes from.
    pub file: String,
    /// Its definition as in the file; with `?spec=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Value>,
}

/// Workers of this node that several queues share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueuePool {
    /// `pool` of these queues.
    pub name: String,
    /// Share of this queue.
    pub weight: u32,
    /// Tasks at once, over all of them.
    pub workers: u32,
    /// Tasks that they have.
    pub busy: u32,
}

/// Something that an operator should know about a queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueueAlert {
    /// `unknown-kind oldest stalled unhealthy backlog dead wal`.
    pub code: String,
    /// One sentence.
    pub text: String,
    /// It holds since then.
    pub since_at: String,
}

/// What a queue did with tasks of a kind in a minute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueueMinute {
    /// Its beginning.
    pub minute: String,
    /// Kind; missing: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Attempts begun.
    pub begun: u64,
    /// Tasks worked off.
    pub done: u64,
    /// Attempts that failed and are followed by another.
    pub retried: u64,
    /// Tasks given up, or lost.
    pub dead: u64,
    /// From when tasks could begin until they began, added up.
    pub waited_ms: u64,
    /// The longest of these.
    pub waited_max_ms: u64,
    /// From the beginning of attempts until their outcomes were in the store, added up.
    pub took_ms: u64,
    /// The longest of these.
    pub took_max_ms: u64,
    /// Tasks of the whole queue that might have begun, at the end of the minute. Counts stop at 100,000.
    pub waiting: u64,
}

/// A task to be pushed: `POST /v1/queues/{session}/{queue}/tasks` takes one, or a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushRequest {
    /// What is to be done, if the queue tells kinds apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Any JSON.
    #[serde(default)]
    pub payload: Value,
    /// Free JSON: shown, no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<Value>,
    /// Smaller runs first: -32768 to 32767.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Not before this time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Not before so much time has passed: `30s`.
    #[serde(default, rename = "in", skip_serializing_if = "Option::is_none")]
    pub delay: Option<String>,
    /// What excludes another task of the queue, as its `unique` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique: Option<String>,
    /// What it is throttled by, instead of what `throttle.key` finds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_key: Option<String>,
    /// Longest life of an attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Its own number of attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
}

/// One task, or several: all of them are taken, or none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum PushBody {
    /// Several.
    Many(Vec<PushRequest>),
    /// One.
    One(Box<PushRequest>),
}

/// What became of a push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PushedTask {
    /// Its number, or that of the one that was there.
    pub id: i64,
    /// One with its key was there already.
    pub duplicate: bool,
    /// When it can begin; none: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<String>,
}

/// A queued task: `GET /v1/tasks/{id}` with a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueuedTask {
    /// Its number.
    pub id: i64,
    /// Session of its queue.
    pub session: String,
    /// Name of its queue.
    pub queue: String,
    /// What is to be done.
    pub kind: Option<String>,
    /// `scheduled queued running`, then `done dead cancelled lost`.
    pub state: String,
    /// One sentence.
    pub summary: String,
    /// JSON; as text if it is none.
    pub payload: Value,
    /// Free JSON of whoever pushed it.
    pub meta: Option<Value>,
    /// Smaller runs first.
    pub priority: i32,
    /// Attempts that count.
    pub attempt: u32,
    /// Ends by signal or for memory.
    pub crashes: u32,
    /// What it said when it was done.
    pub result: Option<Value>,
    /// Why the last attempt failed.
    pub error: Option<TaskFailure>,
    /// What excludes others.
    pub unique: Option<String>,
    /// Who has it.
    pub owner: Option<String>,
    /// Number of its newest claim: the fencing number.
    pub token: u64,
    /// Its end was asked for.
    pub cancel_asked: bool,
    /// Pushed.
    pub created_at: String,
    /// When it can begin, or could.
    pub run_at: Option<String>,
    /// Claimed last.
    pub started_at: Option<String>,
    /// Over.
    pub finished_at: Option<String>,
    /// When it is forgotten.
    pub expires_at: Option<String>,
    /// Attempts that are over, oldest first; not in lists.
    #[serde(default)]
    pub attempts: Vec<TaskAttempt>,
}

/// A task: with a number one of a queue, else one of steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum AnyTask {
    /// Of a queue.
    Queued(Box<QueuedTask>),
    /// Of steps.
    Steps(Box<super::task::Task>),
}

/// What waiting for a task gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum AnyOutcome {
    /// Of steps.
    Steps(Box<super::task::Task>),
    /// Of a queue.
    Queued(Box<QueuedOutcome>),
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskFailure {
    /// `exit:3`, `signal:9`, `oom`, `timeout`, `start-failed`, `lease-expired`, `unknown-kind`, `bad-arguments`, …
    pub kind: String,
    /// One sentence.
    #[serde(default)]
    pub message: String,
    /// The last of what it wrote to stderr.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

/// An attempt that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskAttempt {
    /// Its ordinal, from 1.
    pub attempt: u32,
    /// `done failed crashed snoozed released interrupted cancelled lost`.
    pub outcome: String,
    /// Begun.
    pub started_at: Option<String>,
    /// Over.
    pub ended_at: String,
    /// Why.
    pub error: Option<TaskFailure>,
}

/// How a waited-for task ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueuedOutcome {
    /// Its number.
    pub id: i64,
    /// Its state; one that is not final: the time was over first.
    pub state: String,
    /// What it said.
    pub result: Option<Value>,
    /// Why it did not succeed.
    pub error: Option<TaskFailure>,
}

/// Another payload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskEdit {
    /// JSON.
    pub payload: Value,
}

/// A pause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QueuePause {
    /// Workers are frozen, too.
    #[serde(default)]
    pub running: bool,
}

/// Which tasks are removed, or run again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueState {
    /// `scheduled queued done dead cancelled lost`.
    pub state: String,
}

/// How many it were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Count {
    /// So many.
    pub count: u64,
}

/// Tasks for a worker that is not one of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// Name of the worker: `media-7`.
    pub worker: String,
    /// At most so many; 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Answer when there is one, at the latest after this: `20s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<String>,
}

/// A task that was claimed. It has to be settled, or its lease renewed, before the lease ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClaimedTask {
    /// Its number.
    pub id: i64,
    /// The fencing number: `renew` and `settle` need it.
    pub token: u64,
    /// What is to be done.
    pub kind: Option<String>,
    /// JSON.
    pub payload: Value,
    /// Free JSON of whoever pushed it.
    pub meta: Option<Value>,
    /// From 1.
    pub attempt: u32,
    /// The lease, from the answer on.
    pub lease_ms: u64,
}

/// A lease is to be extended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// Of the claim.
    pub token: u64,
}

/// A lease was extended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Renewed {
    /// From now on.
    pub lease_ms: u64,
    /// Somebody withdrew the task: stop, and settle it as `cancelled`.
    pub cancel_asked: bool,
}

/// How an attempt went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettleRequest {
    /// Of the claim.
    pub token: u64,
    /// `done fail fatal snooze cancelled release`.
    pub outcome: String,
    /// JSON, with `done`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why, with `fail` and `fatal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskFailure>,
    /// Again after this, with `fail` and `snooze`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}
