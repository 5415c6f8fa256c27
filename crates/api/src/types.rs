//! JSON shapes of `/v1`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

pub mod node;
pub mod queue;
pub mod schedule;
pub mod task;

pub use node::{DrainRequest, KnownNode, OfNode};

/// A job: `GET /v1/jobs/{session}/{job}`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Session.
    pub session: String,
    /// Job.
    pub job: String,
    /// `running stopped paused`.
    pub wish: String,
    /// ux.md 6.2, also `degraded`.
    pub state: String,
    /// One sentence about all instances.
    pub summary: String,
    /// One sentence, empty if there is nothing to say.
    pub reason: String,
    /// Stable code of the reason.
    pub reason_code: String,
    /// Instances wished for.
    pub target: u32,
    /// Priority, for order on screens.
    pub priority: i32,
    /// Grows with each change of the definition; quoted in `ETag`.
    pub revision: u64,
    /// File that the definition came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Free table.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// By number.
    pub instances: Vec<Instance>,
    /// One-offs that live or ended lately.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub one_offs: Vec<Instance>,
    /// The definition as in the file (only for one job, not in lists).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Value>,
}

/// An instance (or one-off).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    /// Number from 1; of a one-off its own number.
    pub instance: u64,
    /// Live or last run.
    pub run: Option<String>,
    /// Small number of that run, never given twice on this node: what the APIs of 0.5 and 0.4 call its pid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// OS pid of the live run.
    pub pid: Option<u32>,
    /// ux.md 6.2.
    pub state: String,
    /// `running stopped paused`.
    pub wish: String,
    /// One sentence.
    pub reason: String,
    /// Stable code.
    pub reason_code: String,
    /// Of the live run.
    pub started_at: Option<String>,
    /// Of the live run.
    pub ready_at: Option<String>,
    /// Age of the live run.
    pub up_ms: Option<u64>,
    /// Next attempt.
    pub next_try_at: Option<String>,
    /// New runs nobody asked for.
    pub restarts: u32,
    /// Ordinal of the run in its place.
    pub attempt: u32,
    /// Newest sample, if somebody samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<Stats>,
}

/// One sample of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// When.
    pub at: String,
    /// Of one core, since the sample before; none for the first.
    pub cpu_percent: Option<f64>,
    /// CPU time of the whole tree.
    pub cpu_ms: u64,
    /// Resident memory of the whole tree.
    pub memory_bytes: u64,
    /// Processes in the tree.
    pub processes: u32,
    /// Threads in the tree.
    pub threads: u32,
    /// The tree, main process first (only for one run).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<ProcessStats>,
}

/// A sample with its run: `GET /v1/stats`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RunStats {
    /// Id.
    pub run: String,
    /// Session.
    pub session: String,
    /// Job.
    pub job: String,
    /// Instance, none for a one-off.
    pub instance: Option<u32>,
    /// The sample.
    #[serde(flatten)]
    pub stats: Stats,
}

/// One process of a run.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ProcessStats {
    /// OS pid.
    pub pid: u32,
    /// Parent.
    pub parent_pid: u32,
    /// Short name.
    pub name: String,
    /// CPU time.
    pub cpu_ms: u64,
    /// Resident memory.
    pub memory_bytes: u64,
}

/// A run: live, or as its death record says.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Run {
    /// Id.
    pub run: String,
    /// Small number, never given twice on this node: what the APIs of 0.5 and 0.4 call its pid.
    #[serde(default)]
    pub number: u64,
    /// Session.
    pub session: String,
    /// Job.
    pub job: String,
    /// Instance, none for a one-off.
    pub instance: Option<u32>,
    /// Ordinal in its place.
    pub attempt: u32,
    /// `starting running ended`.
    pub state: String,
    /// OS pid.
    pub pid: Option<u32>,
    /// Start.
    pub started_at: Option<String>,
    /// End.
    pub ended_at: Option<String>,
    /// Life so far, or whole.
    pub lived_ms: Option<u64>,
    /// Exit code.
    pub exit_code: Option<i32>,
    /// Signal name, `SIGSEGV`.
    pub signal: Option<String>,
    /// ux.md 6.2; none while it lives.
    pub cause: Option<String>,
    /// One sentence.
    pub reason: String,
    /// Stable code.
    pub reason_code: String,
    /// Resource use, once ended.
    pub rusage: Option<Rusage>,
    /// Range of its bytes per stream.
    pub logs: BTreeMap<String, LogRange>,
    /// Last lines it wrote, escaped (deaths only, at most 5).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
}

/// Resource use as the kernel reported it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Rusage {
    /// User CPU.
    pub user_ms: u64,
    /// System CPU.
    pub system_ms: u64,
    /// Largest resident size.
    pub max_rss_bytes: u64,
    /// Page faults without I/O.
    pub minor_faults: u64,
    /// Page faults with I/O.
    pub major_faults: u64,
    /// Blocks read.
    pub blocks_in: u64,
    /// Blocks written.
    pub blocks_out: u64,
}

/// A run's part of a stream: `from` inclusive, `to` exclusive (none: still growing).
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct LogRange {
    /// First byte.
    pub from: u64,
    /// After the last byte.
    pub to: Option<u64>,
}

/// A log line as `…/logs?format=jsonl` sends it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// `session.job.n`; of a queue `session.queue.n`, its worker.
    pub subject: String,
    /// Queued task that it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<i64>,
    /// Run it belongs to.
    pub run: Option<String>,
    /// `stdout`, `stderr`, a label; `event` for marks of life, `gap` for what was dropped.
    pub stream: String,
    /// When its bytes arrived.
    pub time: String,
    /// Offset of its first byte.
    pub offset: u64,
    /// Text, bytes that are not UTF-8 replaced.
    pub text: String,
    /// False if more of the same line follows (bounded at 16 KiB).
    #[serde(default = "yes")]
    pub complete: bool,
}

fn yes() -> bool {
    true
}

/// An event.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Opaque: give it back as `after` to resume behind this one.
    pub cursor: String,
    /// Daemon start that numbered it.
    pub epoch: u32,
    /// Count within.
    pub seq: u64,
    /// When.
    pub time: String,
    /// `run.exited`; `gap` where events were pruned.
    pub event: String,
    /// Node.
    pub node: String,
    /// `session.job` or `session.job.n`.
    pub subject: String,
    /// Run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Its small number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Whose doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Further fields.
    #[serde(default)]
    pub data: BTreeMap<String, Value>,
}

/// A reason.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// Stable code, ux.md 6.1.
    pub code: String,
    /// One sentence.
    pub text: String,
}

/// An operation: what a changing request started.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// `op-12`.
    pub operation: String,
    /// `stop`, `start`, `scale`, …
    pub verb: String,
    /// What it is about: `session.job[.n]`; of more than three: `web.api, web.front and 298 more`.
    pub target: String,
    /// `pending done failed cancelled`; pending until the last outcome is there.
    pub state: String,
    /// Why, if failed; what happened, if done.
    pub reason: String,
    /// Stable code.
    pub reason_code: String,
    /// Begin.
    pub created_at: String,
    /// End.
    pub ended_at: Option<String>,
    /// Of each job or instance that it is about, in the order of the request.
    #[serde(default)]
    pub outcomes: Vec<Outcome>,
    /// Further results: `run` of a one-off, `exit_code`, `plan` of an apply.
    #[serde(default)]
    pub data: BTreeMap<String, Value>,
}

/// What came of an operation for one job or instance.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Outcome {
    /// `session.job[.n]`.
    pub target: String,
    /// `pending done failed cancelled refused`.
    pub state: String,
    /// Why, if failed or refused.
    pub reason: String,
    /// Stable code: of a reason, or of the error table if refused.
    pub reason_code: String,
    /// Refused: what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// `POST /v1/jobs/{verb}`: the jobs, and what the verb takes for a single one.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobsRequest {
    /// `session.job` or `session.job.n`, 1 to 10000 of them.
    pub jobs: Vec<String>,
    /// stop, restart: instead of `stop.timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
    /// stop, restart: KILL now; scale: beyond `scale.min` and `scale.max`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// reload: `surge rolling restart signal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
    /// scale: `"+2"`, `"-1"`, `"=3"`, `"3"`, `"auto"`; signal: `main children group all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// signal: `HUP`, `SIGHUP`, `1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
}

/// Jobs of one [`JobsRequest`] at most.
pub const JOBS_MAX: usize = 10_000;

/// `POST …/start|stop|restart|reload|pause|resume`: all fields optional.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ActionRequest {
    /// stop, restart: instead of `stop.timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
    /// stop, restart: KILL now.
    #[serde(default)]
    pub force: bool,
    /// reload: `surge rolling restart signal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
}

/// `POST …/scale`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleRequest {
    /// `"+2"`, `"-1"`, `"=3"`, `"3"`; `"auto"` goes back to the definition.
    pub to: String,
    /// Beyond `scale.min` and `scale.max`.
    #[serde(default)]
    pub force: bool,
}

/// `POST …/signal`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalRequest {
    /// `HUP`, `SIGHUP`, `1`.
    pub signal: String,
    /// `main` (default) `children` `group` `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// `POST …/run`: a one-off of a job.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// Added to the environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Added to the arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Keep a pipe to its standard input.
    #[serde(default)]
    pub stdin: bool,
    /// Give it a terminal.
    #[serde(default)]
    pub pty: bool,
    /// Columns of that terminal from its start; 80 if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub cols: Option<u16>,
    /// Rows of that terminal from its start; 24 if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub rows: Option<u16>,
    /// How long a stop waits between its signal and KILL, instead of the job's `stop.timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
}

/// `POST /v1/runs/{run}/input`: the body is the bytes; these are its query parameters.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct InputQuery {
    /// `stdin` or a label of `streams`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Close after these bytes.
    #[serde(default)]
    pub eof: bool,
}

/// `POST /v1/plan` and `/v1/apply`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ApplyRequest {
    /// The files, gathered by the client (`gaffer_config::Bundle`).
    #[serde(default)]
    pub bundle: Value,
    /// Instead of files: what this file, by its absolute path, defined before it was applied last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<String>,
    /// apply: exactly the plan with this hash, else `plan-stale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Also remove jobs of these sessions that came from no file.
    #[serde(default)]
    pub prune: bool,
    /// Forget scaling done by hand.
    #[serde(default)]
    pub reset_scale: bool,
    /// Do not start what is new.
    #[serde(default)]
    pub no_start: bool,
}

/// What applying would do.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// Of exactly this plan.
    pub hash: String,
    /// File.
    pub file: String,
    /// Node.
    pub node: String,
    /// Session of the file.
    pub session: String,
    /// Objects that change.
    pub changes: Vec<PlanChange>,
    /// Objects that stay.
    pub unchanged: u32,
    /// How many.
    pub added: u32,
    /// How many.
    pub changed: u32,
    /// How many.
    pub removed: u32,
    /// Live runs that would end.
    pub runs_ended: u32,
    /// Things to know, rendered.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// One object of a plan.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct PlanChange {
    /// `add change remove`.
    pub action: String,
    /// `job webhook`.
    pub kind: String,
    /// `session`.
    pub session: String,
    /// Its name.
    pub name: String,
    /// `start reload live next stop`.
    pub effect: String,
    /// `2 runs replaced one by one, new ones ready first (surge)`.
    pub summary: String,
    /// Keys that differ.
    #[serde(default)]
    pub keys: Vec<PlanKey>,
}

/// A key of a plan.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct PlanKey {
    /// `env.LOG`.
    pub path: String,
    /// Old value as written.
    pub old: Option<String>,
    /// New value.
    pub new: Option<String>,
    /// `live reload next daemon`.
    pub class: String,
}

/// `GET /v1/node`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Name.
    pub node: String,
    /// `up`, `draining` or `drained`.
    #[serde(default)]
    pub state: String,
    /// Why it is so, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Stable word for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<String>,
    /// `[gaffer] labels`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Version of the daemon.
    pub version: String,
    /// OS pid of the daemon.
    pub pid: u32,
    /// Daemon starts so far.
    pub epoch: u32,
    /// Since.
    pub started_at: String,
    /// Age.
    pub up_ms: u64,
    /// Directory.
    pub state_dir: String,
    /// Where it listens.
    pub listen: Vec<String>,
    /// Jobs.
    pub jobs: u32,
    /// Live runs.
    pub runs: u32,
    /// Shims.
    pub shims: Vec<Shim>,
    /// `cgroup2`, `process-groups`: what contains the runs.
    pub containment: String,
    /// Configuration file.
    pub config: Option<String>,
    /// Why it could not be applied the last time: what was in force before still is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_refused: Option<String>,
}

/// A shim.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Shim {
    /// Directory number.
    pub shim: u64,
    /// Session it serves (with grouping `session`).
    pub session: String,
    /// OS pid.
    pub pid: u32,
    /// OS pid of its guard.
    pub guard_pid: u32,
    /// Protocol version.
    pub version: u32,
    /// Live runs.
    pub runs: u32,
    /// `connected silent dead`.
    pub state: String,
}

/// A session.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Name.
    pub session: String,
    /// Jobs.
    pub jobs: u32,
    /// Wished instances.
    pub instances: u32,
    /// Of them running.
    pub running: u32,
    /// One sentence.
    pub summary: String,
}

/// `GET /v1/doctor`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Doctor {
    /// In order.
    pub checks: Vec<Check>,
}

/// One check of the doctor.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// `daemon store containment kernel disk limits unit users`.
    pub name: String,
    /// `good limited bad`.
    pub state: String,
    /// What was seen.
    pub text: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// `GET /v1/config`, `GET /healthz`, … small answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok` or what is wrong.
    pub status: String,
}

/// `POST /v1/node/shutdown`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShutdownRequest {
    /// `stop` (default): jobs are stopped save those with `keep_running`; `stop-all`: those too; `leave`: all go on.
    pub mode: String,
}

/// Text message of `WS /v1/runs/{run}/attach`; bytes travel in binary messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum AttachMessage {
    /// Client: the terminal has this size.
    Resize {
        /// Columns.
        cols: u16,
        /// Rows.
        rows: u16,
    },
    /// Client: no more input.
    Eof,
    /// Daemon: the next binary messages come from this stream.
    Stream {
        /// `stdout`, `stderr`.
        stream: String,
    },
    /// Daemon: so much was rotated away or dropped.
    Gap {
        /// Bytes.
        bytes: u64,
    },
    /// Daemon: the run has ended; nothing follows.
    Ended {
        /// Exit code.
        exit_code: Option<i32>,
        /// Signal name.
        signal: Option<String>,
        /// One sentence.
        reason: String,
    },
    /// Daemon: something the client asked for failed.
    Error {
        /// Why.
        error: crate::error::ApiError,
    },
}

/// Text message from a client on `WS /v1/stream`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum StreamRequest {
    /// Begin: items carry `id`.
    Subscribe {
        /// Chosen by the client.
        id: u64,
        /// What.
        topic: StreamTopic,
    },
    /// End.
    Unsubscribe {
        /// As chosen.
        id: u64,
    },
}

/// What a subscription brings.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum StreamTopic {
    /// Events.
    Events {
        /// Behind this cursor; none: those to come.
        #[serde(default)]
        after: Option<String>,
        /// Pattern of names.
        #[serde(default)]
        filter: Option<String>,
    },
    /// Lines of a job.
    Logs {
        /// Session.
        session: String,
        /// Job.
        job: String,
        /// One instance.
        #[serde(default)]
        instance: Option<u32>,
        /// Newest lines first.
        #[serde(default)]
        tail: Option<u32>,
        /// Resume: the `cursor` of the last item.
        #[serde(default)]
        after: Option<String>,
    },
    /// Samples of a job's live runs.
    Stats {
        /// Session; none: all.
        #[serde(default)]
        session: Option<String>,
        /// Job; none: all of the session.
        #[serde(default)]
        job: Option<String>,
        /// Pause between samples, 1000 at least.
        #[serde(default)]
        every_ms: Option<u64>,
    },
}

/// Text message to a client on `WS /v1/stream`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum StreamItem {
    /// An event.
    Event {
        /// Subscription.
        id: u64,
        /// It.
        event: Event,
    },
    /// A line.
    Log {
        /// Subscription.
        id: u64,
        /// It.
        line: LogLine,
        /// Give it back as `after` to resume behind this line.
        cursor: String,
    },
    /// Samples, by run.
    Stats {
        /// Subscription.
        id: u64,
        /// Run → sample.
        runs: BTreeMap<String, Stats>,
    },
    /// The reader was too slow: something was left out. For events, `from` and `to` are cursors.
    Missed {
        /// Subscription.
        id: u64,
        /// First missing.
        from: String,
        /// Where it goes on.
        to: String,
    },
    /// The subscription is over.
    Ended {
        /// Subscription.
        id: u64,
    },
    /// Refused.
    Error {
        /// Subscription, if the message had one.
        id: Option<u64>,
        /// Why.
        error: crate::error::ApiError,
    },
}
