//! Tasks: steps that run to their end.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A task: `GET /v1/tasks/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// Id.
    pub id: String,
    /// Name of the task that it is a run of.
    #[serde(default)]
    pub name: String,
    /// Session of a native task; empty: a task of Thermos.
    #[serde(default)]
    pub session: String,
    /// Checkpoint root that it lies in.
    pub root: String,
    /// `active cleaning finalizing`, then `success failed killed lost`.
    pub state: String,
    /// `active` or `finished`: where its file lies. It is over when it is finished.
    pub location: String,
    /// Frozen by an operator.
    pub paused: bool,
    /// One sentence: `3 of 4 steps left`.
    pub summary: String,
    /// Why it is as it is; empty if there is nothing to say.
    pub reason: String,
    /// Grows with every change; for `since` of `…/wait`.
    pub revision: u64,
    /// In the order of their declaration.
    pub steps: Vec<TaskStep>,
    /// Id of the task that this one runs again in part.
    #[serde(default)]
    pub retry_of: Option<String>,
    /// User its steps run as.
    pub user: String,
    /// Host that runs it.
    pub hostname: String,
    /// Working directory of its steps.
    pub sandbox: String,
    /// Directory of its output: `STEP/RUN/stdout` and `stderr`, runs from 0.
    pub log_dir: String,
    /// Ports by name.
    pub ports: BTreeMap<String, u16>,
    /// When it was accepted.
    pub launched_at: Option<String>,
    /// When its result was written.
    pub ended_at: Option<String>,
    /// Its states in order, repeats included: each leader says the current one again.
    pub statuses: Vec<TaskStatus>,
    /// What its working directory takes on the disk; with `?disk=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Its definition as it is kept; with `?spec=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Value>,
}

/// A state of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskStatus {
    /// As the task's.
    pub state: String,
    /// When it was written.
    pub at: String,
    /// Process that led the task.
    pub runner_pid: u32,
    /// Its user.
    pub runner_uid: u32,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskStep {
    /// Name.
    pub name: String,
    /// `waiting starting running`, then `success failed killed lost`.
    pub state: String,
    /// What it waits for, or how its last run ended; empty if there is nothing to say.
    pub reason: String,
    /// Attempts that may fail; none is unlimited.
    pub attempts: Option<u32>,
    /// Time until the next attempt.
    pub next_ms: Option<u64>,
    /// It runs at the end, whatever the result.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// It does not count.
    pub background: bool,
    /// `gaffer task run` shows what it writes.
    #[serde(default)]
    pub console: bool,
    /// Steps that it waits for, each with `done`, `ended` or `failed`.
    #[serde(default)]
    pub after: BTreeMap<String, String>,
    /// Outputs of the run that succeeded.
    #[serde(default)]
    pub outputs: BTreeMap<String, String>,
    /// Oldest first.
    pub runs: Vec<TaskRun>,
}

/// A directory below the working directory of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskFiles {
    /// As it was asked for.
    pub path: String,
    /// By name.
    pub entries: Vec<TaskFile>,
    /// There are more than are shown.
    pub truncated: bool,
}

/// A file in the working directory of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskFile {
    /// Name; bytes that are no text are replaced.
    pub name: String,
    /// `file directory link other`.
    pub kind: String,
    /// Size in bytes; of a link the length of its target.
    pub size_bytes: u64,
    /// Four octal digits.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it was changed.
    pub modified_at: String,
}

/// A run of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskRun {
    /// From 1.
    pub attempt: u32,
    /// Id of the run; none: it was never asked for.
    pub run: Option<String>,
    /// `waiting starting running`, then `success failed killed lost`.
    pub state: String,
    /// Exit code, if it ended by itself.
    pub exit_code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<String>,
    /// OS pid.
    pub pid: Option<u32>,
    /// When its parent had it.
    pub forked_at: Option<String>,
    /// When its program began.
    pub started_at: Option<String>,
    /// When it ended.
    pub ended_at: Option<String>,
    /// How it ended, in words; empty where the code says it all.
    pub reason: String,
    /// What it uses, or has used; none: nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<TaskUsage>,
}

/// What a run of a step uses, or has used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskUsage {
    /// CPU time.
    pub cpu_ms: u64,
    /// Share of one core since it was asked for last; of a run that lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// Resident memory of all its processes; of a run that lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Largest resident memory of one of its processes; of a run that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
}

/// A task in the list: `GET /v1/tasks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskItem {
    /// Id.
    pub id: String,
    /// State; `corrupt` if its files cannot be read.
    pub state: String,
    /// `active` or `finished`.
    pub location: String,
    /// One sentence, also why it cannot be read.
    pub summary: String,
    /// Why it is as it is; empty if there is nothing to say.
    pub reason: String,
    /// User its steps run as.
    pub user: String,
    /// When it was accepted.
    pub launched_at: Option<String>,
    /// When its result was written.
    pub ended_at: Option<String>,
}

/// Body of `POST /v1/tasks`. Unknown fields are refused.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskRequest {
    /// The task: as Thermos writes it in JSON, or an object with the keys of `[task.X]` in `gaffer.toml`. Either this or `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Value>,
    /// The text of a task file: errors name lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Which of several tasks of the text; of a native task its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Session of a native task; none: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Values of `{{params.NAME}}` of a native task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// Its id, the name of a file; none: the name of the task and the time. One that is there already, and the same, goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Ports by name.
    #[serde(default)]
    pub ports: BTreeMap<String, u16>,
    /// Values of `{{NAME}}` of a task of Thermos.
    #[serde(default)]
    pub bindings: BTreeMap<String, String>,
    /// User its steps run as; none: the daemon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Working directory of its steps, absolute; none: a fresh one in the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
}

/// Body of `POST /v1/tasks/gc`: what may go. Only tasks that are over do.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskGcRequest {
    /// These, whatever their age.
    #[serde(default)]
    pub ids: Vec<String>,
    /// Those whose checkpoint was not written for longer, `7d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<String>,
    /// The oldest, until so many are left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// The oldest, until the rest takes so much space, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Only say which.
    #[serde(default)]
    pub dry_run: bool,
}

/// A task that goes, or went: `POST /v1/tasks/gc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskGc {
    /// Id.
    pub id: String,
    /// Since its checkpoint was last written.
    pub age_ms: u64,
    /// Space of checkpoint and definition.
    pub metadata_bytes: u64,
    /// Space of its output.
    pub logs_bytes: u64,
    /// Space of its working directory; none: it is not of this root, or another task works there, and it stays.
    pub data_bytes: Option<u64>,
}

/// Body of `POST /v1/tasks/{id}/retry`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskRetryRequest {
    /// This step and all that waits for it run again; none: those that did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// Body of `POST /v1/tasks/{id}/kill`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskKillRequest {
    /// Kill everything now: no signal before, no final steps.
    #[serde(default)]
    pub force: bool,
    /// Time for an orderly end, `30s`; none: the task's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<String>,
    /// Its result: `killed`, the default, or `lost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}
