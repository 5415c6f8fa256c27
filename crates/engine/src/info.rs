//! What the engine tells about jobs, runs, operations, events and itself.
//!
//! Plain types of the library; the HTTP shapes are translated from these in the daemon.

use gaffer_core::io::{Cause, JobView, Reason, Status};
use gaffer_core::job::{Job, ReloadHow, Scope};
use gaffer_core::name::{JobId, RunId, Slot};
use gaffer_core::time::{Duration, Wall};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

pub use gaffer_core::io::{Actor, How};

/// A job and where its definition came from.
#[derive(Clone, Debug)]
pub struct JobInfo {
    /// State, wish, reasons, instances.
    pub view: JobView,
    /// Resolved definition.
    pub spec: Arc<Job>,
    /// Grows with each change of the definition.
    pub revision: u64,
    /// File it came from, none: made by a request.
    pub file: Option<Arc<str>>,
    /// Line in that file.
    pub line: Option<u32>,
    /// Asked to go; forgotten when its runs are gone.
    pub removed: bool,
    /// Number of instances set by hand.
    pub scaled: Option<u32>,
}

/// A job, or one of its instances.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The job.
    pub job: JobId,
    /// One instance only.
    pub instance: Option<u32>,
}

/// What can be asked of a job or instance.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Wish it up; counters of a failed job are reset.
    Start,
    /// Wish it down.
    Stop(How),
    /// New runs for all.
    Restart(How),
    /// Roll out.
    Reload(Option<ReloadHow>),
    /// Freeze.
    Pause,
    /// Thaw.
    Resume,
    /// Change the number of instances (jobs only).
    Scale {
        /// To what.
        to: ScaleTo,
        /// Beyond the declared bounds.
        force: bool,
    },
    /// Stop it and forget it (jobs only).
    Remove,
    /// Send a signal to every live run.
    Signal {
        /// Number.
        signal: i32,
        /// Which processes; none: the main one.
        to: Option<Scope>,
    },
}

impl Act {
    /// `start stop restart reload pause resume scale remove signal`.
    pub fn verb(&self) -> &'static str {
        match self {
            Act::Start => "start",
            Act::Stop(_) => "stop",
            Act::Restart(_) => "restart",
            Act::Reload(_) => "reload",
            Act::Pause => "pause",
            Act::Resume => "resume",
            Act::Scale { .. } => "scale",
            Act::Remove => "remove",
            Act::Signal { .. } => "signal",
        }
    }
}

/// A scale request: `=3`, `+2`, `-1`, `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleTo {
    /// Exactly.
    Set(u32),
    /// More.
    Add(u32),
    /// Fewer, not below zero.
    Sub(u32),
    /// Back to the definition.
    Auto,
}

/// How a definition is put.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// Refuse unless this is the current revision; `Some(0)`: refuse if it exists.
    pub if_revision: Option<u64>,
    /// Accept replacing a definition that came from a file.
    pub over_file: bool,
}

/// A one-off of a job.
#[derive(Clone, Debug, Default)]
pub struct OneOff {
    /// Added to the environment.
    pub env: Vec<(String, String)>,
    /// Added to the arguments.
    pub args: Vec<String>,
    /// Keep a pipe to stdin.
    pub stdin: bool,
    /// Give it a terminal.
    pub pty: bool,
    /// Columns and rows of that terminal from its start, if not 80 and 24.
    pub pty_size: Option<(u16, u16)>,
    /// Instead of the job's `stop.timeout`.
    pub grace: Option<Duration>,
}

/// Number of an operation; `op-12` as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub u64);

/// State of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationState {
    /// Under way.
    Pending,
    /// Carried out.
    Done,
    /// It will not come about by itself.
    Failed,
    /// Nobody waits for it any more.
    Cancelled,
}

/// What came of a request for one of its targets.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which.
    pub target: Target,
    /// State.
    pub state: OperationState,
    /// Why, if it failed.
    pub reason: Option<Reason>,
    /// Refused, and why: nothing was changed for this one.
    pub refused: Option<Error>,
}

impl Outcome {
    /// Asked for.
    pub fn pending(target: Target) -> Outcome {
        Outcome {
            target,
            state: OperationState::Pending,
            reason: None,
            refused: None,
        }
    }

    /// Not done.
    pub fn refused(target: Target, error: Error) -> Outcome {
        Outcome {
            state: OperationState::Failed,
            refused: Some(error),
            ..Outcome::pending(target)
        }
    }
}

/// An operation.
#[derive(Clone, Debug)]
pub struct OperationInfo {
    /// Number.
    pub id: OperationId,
    /// `start stop restart reload scale signal pause resume put remove run apply`.
    pub verb: &'static str,
    /// What came of it for each job, or instance, that it is about.
    pub outcomes: Vec<Outcome>,
    /// State; pending until the last of the outcomes is there.
    pub state: OperationState,
    /// Why the first that failed did, or what came of it.
    pub reason: Option<Reason>,
    /// Begin.
    pub created: Wall,
    /// End.
    pub ended: Option<Wall>,
    /// Of a one-off: its slot (its run is in the job's view).
    pub slot: Option<Slot>,
    /// Of a one-off that ended: how.
    pub status: Option<Status>,
}

/// A run, live or dead.
#[derive(Clone, Debug)]
pub struct RunInfo {
    /// Id.
    pub run: RunId,
    /// Where it ran.
    pub slot: Slot,
    /// Ordinal in its slot.
    pub attempt: u32,
    /// OS pid, if it was born.
    pub pid: Option<u32>,
    /// Birth.
    pub started: Option<Wall>,
    /// End; none while it lives.
    pub ended: Option<Wall>,
    /// Life so far, or whole.
    pub lived: Option<Duration>,
    /// Exit status, once ended.
    pub status: Option<Status>,
    /// Cause, once settled.
    pub cause: Option<Cause>,
    /// Why, once settled; the instance's reason while it lives.
    pub reason: Option<Reason>,
    /// Resource use, once ended.
    pub rusage: Option<Rusage>,
    /// Range of its bytes per stream: first byte, byte after the last.
    pub logs: BTreeMap<String, (u64, Option<u64>)>,
    /// Directory of its streams.
    pub log_dir: PathBuf,
}

/// Resource use of a run's main process and waited-for children, as the kernel told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rusage {
    /// User CPU time in microseconds.
    pub user_us: u64,
    /// System CPU time in microseconds.
    pub system_us: u64,
    /// Largest resident size in KiB.
    pub max_rss_kib: u64,
    /// Page faults without I/O.
    pub minor_faults: u64,
    /// Page faults with I/O.
    pub major_faults: u64,
    /// Blocks read.
    pub blocks_in: u64,
    /// Blocks written.
    pub blocks_out: u64,
}

/// One sample of a run's process tree.
#[derive(Clone, Debug, Default)]
pub struct RunStats {
    /// When.
    pub at: Wall,
    /// Share of one core in percent since the sample before.
    pub cpu_percent: Option<f64>,
    /// CPU time of the live tree.
    pub cpu: Duration,
    /// Resident memory of the tree.
    pub memory_bytes: u64,
    /// Threads.
    pub threads: u32,
    /// Processes, main one first.
    pub processes: Vec<ProcessStats>,
}

/// One process of a tree.
#[derive(Clone, Debug, Default)]
pub struct ProcessStats {
    /// OS pid.
    pub pid: u32,
    /// Parent.
    pub parent: u32,
    /// Short name.
    pub name: String,
    /// CPU time.
    pub cpu: Duration,
    /// Resident memory.
    pub memory_bytes: u64,
    /// Threads.
    pub threads: u32,
}

/// Place in the event stream: `epoch.seq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Daemon start.
    pub epoch: u32,
    /// Count within, from 1.
    pub seq: u64,
}

/// An event with its place.
#[derive(Clone, Debug)]
pub struct EventRecord {
    /// Place.
    pub cursor: Cursor,
    /// When.
    pub time: Wall,
    /// What.
    pub event: Event,
}

/// What happened. Events of the core, and those of the engine itself (`config.applied`, `config.refused`,
/// `log.dropped`, `gap`).
#[derive(Clone, Debug)]
pub struct Event {
    /// `run.started`, … (ux.md 6.3); `gap` where events were pruned (`data`: `from`, `to`).
    pub event: &'static str,
    /// Job, if it is about one.
    pub job: Option<JobId>,
    /// Place of the job, for runs.
    pub slot: Option<Slot>,
    /// Run.
    pub run: Option<RunId>,
    /// Whose doing.
    pub by: Option<Actor>,
    /// Why.
    pub reason: Option<Reason>,
    /// Further fields.
    pub data: Vec<(&'static str, String)>,
}

impl From<gaffer_core::io::Event> for Event {
    fn from(event: gaffer_core::io::Event) -> Event {
        let gaffer_core::io::Event {
            event,
            job,
            slot,
            run,
            by,
            reason,
            data,
        } = event;
        Event {
            event,
            job: Some(job),
            slot,
            run,
            by,
            reason,
            data,
        }
    }
}

/// A plan: what applying a bundle would do.
#[derive(Clone, Debug)]
pub struct PlanInfo {
    /// Of exactly this plan.
    pub hash: String,
    /// File.
    pub file: String,
    /// Session.
    pub session: String,
    /// Objects that change.
    pub changes: Vec<PlanChange>,
    /// Jobs that stay as they are.
    pub unchanged: u32,
    /// Live runs that would end.
    pub runs_ended: u32,
    /// Tasks of the file that change.
    pub tasks: Vec<ObjectChange>,
    /// Queues of the file that change.
    pub queues: Vec<ObjectChange>,
    /// Schedules of the file that change.
    pub schedules: Vec<ObjectChange>,
    /// Webhooks of the file that change.
    pub webhooks: Vec<HookChange>,
    /// Rendered warnings.
    pub warnings: Vec<String>,
}

impl PlanInfo {
    /// Nothing would change.
    pub fn is_empty(&self) -> bool {
        let jobs_and_work = self.changes.is_empty() && self.tasks.is_empty() && self.queues.is_empty();
        jobs_and_work && self.schedules.is_empty() && self.webhooks.is_empty()
    }
}

/// One task, queue or schedule of a plan. What is in progress keeps its definition.
#[derive(Clone, Debug)]
pub struct ObjectChange {
    /// What happens to it.
    pub action: PlanAction,
    /// Session and name.
    pub id: JobId,
    /// Keys that differ.
    pub keys: Vec<gaffer_config::Change>,
    /// A task that is run by that.
    pub runs: bool,
}

/// One webhook of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookChange {
    /// What happens to it.
    pub action: PlanAction,
    /// Session.
    pub session: String,
    /// Name.
    pub name: String,
}

/// One job of a plan.
#[derive(Clone, Debug)]
pub struct PlanChange {
    /// Which.
    pub job: JobId,
    /// What.
    pub action: PlanAction,
    /// `start reload live next stop`.
    pub effect: &'static str,
    /// In words.
    pub summary: String,
    /// Keys that differ.
    pub keys: Vec<gaffer_config::Change>,
}

/// What a plan does with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanAction {
    /// New.
    Add,
    /// Changed.
    Change,
    /// Gone.
    Remove,
}

/// How to apply.
#[derive(Clone, Debug, Default)]
pub struct ApplyOptions {
    /// Only if the plan still has this hash.
    pub hash: Option<String>,
    /// Also remove jobs of the file's session that came from no file.
    pub prune: bool,
    /// Forget scaling done by hand.
    pub reset_scale: bool,
    /// Do not start what is new.
    pub no_start: bool,
}

/// What is applied.
#[derive(Clone, Debug)]
pub enum ApplySource {
    /// What files say.
    Files(Box<gaffer_config::Bundle>),
    /// What a file, by its absolute path, defined before it was applied last.
    Previous(std::path::PathBuf),
}

/// A shim as the daemon sees it.
#[derive(Clone, Debug)]
pub struct ShimInfo {
    /// Number of its directory.
    pub n: u64,
    /// What it serves: a session name with the default grouping.
    pub group: String,
    /// OS pid.
    pub pid: u32,
    /// OS pid of its guard.
    pub guard_pid: u32,
    /// Protocol version it speaks.
    pub version: u32,
    /// Live runs.
    pub runs: u32,
    /// `connected silent dead`.
    pub state: &'static str,
}

/// The node.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// Name.
    pub name: String,
    /// Daemon starts so far.
    pub epoch: u32,
    /// Since.
    pub started: Wall,
    /// State directory.
    pub state_dir: PathBuf,
    /// What contains the runs: `cgroup2` or `process-groups`.
    pub containment: &'static str,
    /// Jobs.
    pub jobs: u32,
    /// Live runs.
    pub runs: u32,
    /// Shims.
    pub shims: Vec<ShimInfo>,
    /// It is drained.
    pub drain: Option<DrainInfo>,
}

/// That a node is drained, and how far.
#[derive(Clone, Debug)]
pub struct DrainInfo {
    /// Who asked.
    pub by: Actor,
    /// Since.
    pub since: Wall,
    /// Until then tasks may go on.
    pub deadline: Option<Wall>,
    /// Tasks that go on.
    pub tasks: usize,
    /// Jobs are told to stop.
    pub stops: bool,
    /// Nothing runs any more.
    pub over: bool,
}

/// Counters for `/metrics`, since this daemon started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Runs started.
    pub runs_started: u64,
    /// Runs ended, by how.
    pub runs_exited_ok: u64,
    /// Runs ended otherwise.
    pub runs_exited_failed: u64,
    /// Starts that failed before exec.
    pub starts_failed: u64,
    /// Unasked new runs.
    pub restarts: u64,
    /// Runs adopted at start.
    pub adopted: u64,
    /// Events told.
    pub events: u64,
    /// Bytes that the disk could not take.
    pub log_bytes_dropped: u64,
    /// Store commits.
    pub commits: u64,
}

/// What the engine refuses, with what to do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No such job; the second field is a similar name.
    #[error("no job `{0}`")]
    JobNotFound(JobId, Option<JobId>),
    /// No such instance.
    #[error("job `{0}` has no instance {1}")]
    InstanceNotFound(JobId, u32),
    /// No such run.
    #[error("no run @{0}")]
    RunNotFound(String),
    /// No such stream.
    #[error("run @{run} has no stream `{stream}`")]
    StreamNotFound {
        /// Run.
        run: RunId,
        /// Stream.
        stream: String,
    },
    /// A queued task is over, and stays as it is.
    #[error("task {0} is over already: {1}")]
    AlreadyFinished(i64, &'static str),
    /// It exists.
    #[error("job `{0}` exists already")]
    JobExists(JobId),
    /// Another revision is current.
    #[error("job `{job}` is at revision {current}, not {wanted}")]
    RevisionMismatch {
        /// Job.
        job: JobId,
        /// Is.
        current: u64,
        /// Asked.
        wanted: u64,
    },
    /// The definition lives in a file.
    #[error("job `{job}` comes from {file}:{line}")]
    OwnedByFile {
        /// Job.
        job: JobId,
        /// File.
        file: String,
        /// Line.
        line: u32,
    },
    /// The plan changed meanwhile.
    #[error("the plan is {0} by now")]
    PlanStale(String),
    /// Bounds.
    #[error("{0}")]
    OutOfBounds(String),
    /// Has no such pipe, or has ended.
    #[error("{0}")]
    NotWritable(String),
    /// State does not allow it.
    #[error("{0}")]
    WrongState(String),
    /// The input is wrong.
    #[error("{0}")]
    Invalid(String),
    /// Files or specs with errors.
    #[error("the configuration has errors")]
    Config(gaffer_config::Diagnostics),
    /// A shim is silent.
    #[error("{0}")]
    Unreachable(String),
    /// The store cannot be written.
    #[error("the store cannot be written: {0}")]
    Store(String),
    /// A store of queues does not do what it should.
    #[error("{0}")]
    QueueStore(String),
    /// No such task.
    #[error("no task `{0}`")]
    TaskNotFound(String),
    /// There is no such queue.
    #[error("{0}")]
    QueueNotFound(String),
    /// There is no such schedule.
    #[error("{0}")]
    ScheduleNotFound(String),
    /// There is no such queued task, or it was not kept.
    #[error("no queued task {0}: there never was one, or it is over and was not kept")]
    QueuedTaskNotFound(i64),
    /// A task's files cannot be used.
    #[error("{0}")]
    Task(String),
    /// Ending.
    #[error("the daemon is ending")]
    ShuttingDown,
}
