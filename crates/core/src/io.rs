//! What goes into the node machine and what comes out of it.
//!
//! Inputs are past tense and already true: intent is committed to the store, facts are in a
//! journal. Commands are imperative, name their run, and doing one twice is harmless.

use crate::hub::NodeLimits;
use crate::job::{Condition, Job, Launch, Scope};
use crate::name::{JobId, RunId, Slot};
use crate::task::record::TaskState;
use crate::time::{Duration, Wall};
use std::sync::Arc;

/// Who asked, for reasons: `ana`, `ana from 10.0.0.7`, `gaffer.toml`, `Ctrl-C`.
pub type Actor = Arc<str>;

/// What is asked for. Stored; `seq` is the store's growing intent number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Wanted state.
    pub state: WishState,
    /// Intent number of that wish: of a job's and an instance's wish the newer one counts.
    pub seq: u64,
    /// Intent number of the newest restart asked for: runs born under a smaller one are replaced.
    pub restart: u64,
}

/// `running stopped paused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WishState {
    /// Keep it up.
    Running,
    /// Keep it down.
    Stopped,
    /// Frozen where it is.
    Paused,
}

/// What a run was born under. Opaque to the shim, written in its `Intent`, given back on adoption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Restart number in force.
    pub restart: u64,
    /// [`Launch`] digest.
    pub launch: u64,
}

/// How a task stands: the newest run of its definition in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskStanding {
    /// State of that run; none: there is none yet.
    pub state: Option<TaskState>,
    /// Since when.
    pub since: Wall,
    /// What is to be said besides: why it cannot run, or what would run it again.
    pub note: Option<Arc<str>>,
}

impl TaskStanding {
    /// Does a condition hold?
    pub fn holds(&self, condition: Condition) -> bool {
        match condition {
            Condition::Ended => self.state.is_some_and(TaskState::is_terminal),
            Condition::Started | Condition::Ready | Condition::Done => self.state == Some(TaskState::Success),
        }
    }

    /// It is over: what does not hold now does not come about by itself.
    pub fn is_over(&self) -> bool {
        self.state.is_some_and(TaskState::is_terminal)
    }
}

/// What the node machine is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time went by. Always harmless.
    Tick,
    /// Recovery is over: every slot whose shim answered has been reported. Commands are held back until now.
    Recovered,

    // ── intent ──
    /// A job was added or its definition replaced (`revision` grows). Wishes survive a replacement.
    JobPut {
        /// Which.
        job: JobId,
        /// New definition.
        spec: Arc<Job>,
        /// Digest of `spec.launch`, computed outside (stable across daemon versions).
        launch_digest: u64,
        /// Its stored wish.
        wish: Wish,
        /// Operator's number of instances, if scaled by hand.
        scaled: Option<u32>,
        /// Whose doing.
        by: Actor,
    },
    /// Forget the job once its runs are gone.
    JobRemoved {
        /// Which.
        job: JobId,
        /// Whose doing.
        by: Actor,
    },
    /// A wish of a job (`instance` none) or of one instance changed.
    Wished {
        /// Which.
        job: JobId,
        /// One instance only.
        instance: Option<u32>,
        /// New wish.
        wish: Wish,
        /// Stop details.
        how: How,
        /// Whose doing.
        by: Actor,
    },
    /// Number of instances asked for by hand; none goes back to the file's.
    Scaled {
        /// Which.
        job: JobId,
        /// How many.
        to: Option<u32>,
        /// Whose doing.
        by: Actor,
    },
    /// Roll out as `reload.how` says (or `how`), also when nothing changed.
    Reloaded {
        /// Which.
        job: JobId,
        /// Only this instance.
        instance: Option<u32>,
        /// Instead of the spec's.
        how: Option<crate::job::ReloadHow>,
        /// Intent number.
        seq: u64,
        /// Whose doing.
        by: Actor,
    },
    /// A one-off of a job: one run in slot `OneOff(n)`, never restarted.
    OneOffPut {
        /// Of this job.
        job: JobId,
        /// Number, unique per job.
        n: u64,
        /// Its launch (arguments and environment added already).
        launch: Arc<Launch>,
        /// Instead of `stop.timeout`, whoever asks it to end.
        grace: Option<Duration>,
        /// Whose doing.
        by: Actor,
    },
    /// A one-off is asked to end.
    OneOffStopped {
        /// Of this job.
        job: JobId,
        /// Number.
        n: u64,
        /// Stop details.
        how: How,
        /// Whose doing.
        by: Actor,
    },
    /// How a task stands that jobs wait for; none: there is no such task.
    TaskStood {
        /// Which.
        task: JobId,
        /// Its newest run of the definition in force.
        standing: Option<TaskStanding>,
    },
    /// Other bounds, from now on.
    Limits(NodeLimits),
    /// Orderly end of the node: stop all jobs in order, save `keep_running` ones unless `all`.
    Shutdown {
        /// Also `keep_running` ones.
        all: bool,
        /// Whose doing.
        by: Actor,
    },

    /// The node is drained: jobs that are put from now on stay down, whatever is wished. Holds until [`Input::Undrain`].
    Drain {
        /// All other jobs are told to stop, too, in the order of an orderly end.
        stop: bool,
        /// Whose doing.
        by: Actor,
    },
    /// The end of [`Input::Drain`]: what is wished counts again.
    Undrain,

    // ── facts ──
    /// Recovery: what the journals know of a slot's newest run. Sent before `Recovered`, once per slot.
    SlotFound {
        /// Where.
        slot: Slot,
        /// Newest run and what it was born under.
        run: RunId,
        /// Its stamp; the default one if nobody knows any more (a settled death): it counts as current.
        stamp: Stamp,
        /// What it is.
        found: Found,
        /// Earlier settled deaths of the slot, oldest first (for backoff and flapping).
        past: Vec<Death>,
    },
    /// The run's process exists.
    Started {
        /// Which.
        run: RunId,
        /// OS pid.
        pid: u32,
    },
    /// A start failed at a named stage; there is no process.
    StartFailed {
        /// Which.
        run: RunId,
        /// Stage: `cwd`, `user`, `exec`, `exec-stuck`, `cgroup`, `fds`, …
        stage: Arc<str>,
        /// errno, 0 if none.
        errno: i32,
        /// In words, with the path: `cannot run bin/web: no such file (exec, ENOENT)`.
        text: Arc<str>,
    },
    /// The run never came to be (fenced, refused as outdated, or lost with its shim before birth). Decide again.
    NotStarted {
        /// Which.
        run: RunId,
        /// Why.
        text: Arc<str>,
    },
    /// The main process ended. If `survivors` is 0 its tree is gone too.
    Exited {
        /// Which.
        run: RunId,
        /// How.
        end: End,
        /// Processes of its tree still alive.
        survivors: u32,
        /// What a standing order started in its slot already; only with 0 survivors.
        successor: Option<Successor>,
    },
    /// Nothing of the run's tree is left.
    TreeGone {
        /// Which.
        run: RunId,
    },
    /// Outcome of a probe, or news from a passive one.
    Probed {
        /// Which run.
        run: RunId,
        /// Which probe.
        role: ProbeRole,
        /// Good, or why not: `http /up answered 503`.
        result: Result<Arc<str>, Arc<str>>,
    },
    /// The run's shim does not answer (true) or answers again (false). Nothing starts in its slot meanwhile.
    Unreachable {
        /// Which.
        run: RunId,
        /// Silent now?
        silent: bool,
    },
}

/// A run that a shim began by a standing order ([`Command::Stand`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Successor {
    /// Its id, made by the core beforehand.
    pub run: RunId,
    /// What it was born under.
    pub stamp: Stamp,
}

/// What recovery found of a slot's newest run.
#[derive(Clone, Debug)]
pub enum Found {
    /// Alive: adopted.
    Alive {
        /// OS pid; 0: asked for and not born yet, `Started`, `StartFailed` or `NotStarted` follows as a fact.
        pid: u32,
        /// Wall time of its start.
        started: Wall,
        /// How long it lives already.
        lived: Duration,
        /// Frozen by `pause`.
        paused: bool,
        /// Its main process ended but its tree lives: `(end, survivors)`.
        ended: Option<(End, u32)>,
    },
    /// Over.
    Dead(Death),
    /// Its shim is silent.
    Unreachable,
    /// Intent without birth, settled as never started.
    NotStarted,
}

/// How a main process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Exit code, signal, or nobody could watch.
    pub status: Status,
    /// Killed by the kernel for memory (from `memory.events` only).
    pub oom: bool,
    /// Wall time.
    pub at: Wall,
    /// From start to end.
    pub lived: Duration,
}

/// Exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Code.
    Code(i32),
    /// Signal number, core dumped?
    Signal(i32, bool),
    /// Ended while nobody could watch.
    Unknown,
}

/// A settled death.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// The run.
    pub run: RunId,
    /// How it ended; none: it never started (exec-failed, setup-failed).
    pub end: Option<End>,
    /// Cause as the core decided it then.
    pub cause: Cause,
    /// When, wall.
    pub at: Wall,
}

/// `cause` of a death record (ux.md 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Ended by itself with a code.
    Exit,
    /// By a signal nobody here sent.
    Signal,
    /// Memory.
    Oom,
    /// Own time limit.
    Timeout,
    /// Health check.
    Unhealthy,
    /// Asked to stop.
    Stopped,
    /// Reload, restart, scale-down, recycle.
    Replaced,
    /// Program could not be executed.
    ExecFailed,
    /// A step before that.
    SetupFailed,
    /// Nobody could watch.
    Unknown,
}

/// Details of a stop that was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// Instead of `stop.timeout`.
    pub grace: Option<Duration>,
    /// KILL now.
    pub force: bool,
}

/// Readiness or liveness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeRole {
    /// `ready`.
    Ready,
    /// `health`.
    Health,
}

/// What the node machine wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Start a run: the shim refuses unless `after` is the slot's last run, ended, its tree gone.
    Spawn {
        /// New id, made by the core from its epoch.
        run: RunId,
        /// Where.
        slot: Slot,
        /// The slot's previous run.
        after: Option<RunId>,
        /// How.
        launch: Arc<Launch>,
        /// Ordinal of the run for this slot, from 1.
        attempt: u32,
        /// To be given back on adoption.
        stamp: Stamp,
    },
    /// Leave a standing order beside a live run: the shim starts `run` by itself as soon as `after` has ended with nothing
    /// left of its tree, and says so in `Exited`. Good for one end; any other command about `after` makes it void.
    Stand {
        /// The live run.
        after: RunId,
        /// New id of the one to come.
        run: RunId,
        /// Where.
        slot: Slot,
        /// How.
        launch: Arc<Launch>,
        /// Its ordinal for this slot.
        attempt: u32,
        /// To be given back.
        stamp: Stamp,
    },
    /// The standing order beside this live run is void. It may have been carried out already: then `Exited` says so.
    Withdraw {
        /// The live run.
        run: RunId,
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
    /// Run `stop.cmd` for this run.
    RunStopCmd {
        /// Of this run.
        run: RunId,
        /// Words.
        cmd: Vec<String>,
    },
    /// End everything in the run's tree now (`cgroup.kill`, or groups and scan).
    KillTree {
        /// Of this run.
        run: RunId,
    },
    /// Freeze or thaw the tree.
    Freeze {
        /// Of this run.
        run: RunId,
        /// Frozen?
        on: bool,
    },
    /// Do one active probe (`Http`, `Tcp`, `Cmd`) and report `Probed`; or, for passive kinds, begin to watch.
    Probe {
        /// Of this run.
        run: RunId,
        /// Which.
        role: ProbeRole,
    },
    /// Stop watching or probing a run (it ended, or is being stopped).
    ProbeEnd {
        /// Of this run.
        run: RunId,
    },
    /// Write this death to the store's history, in the transaction that moves the journal cursor.
    Settle {
        /// Where.
        slot: Slot,
        /// What.
        death: Death,
        /// In words.
        reason: Reason,
    },
    /// The job (or one-off) is gone for good: drop it from the store, its logs age out.
    Forget {
        /// Which.
        slot: Option<Slot>,
        /// Which.
        job: JobId,
    },
    /// `essential` ended for good: end the node with this exit code.
    EndNode {
        /// Exit code.
        code: i32,
        /// Because of.
        job: JobId,
    },
    /// After `Shutdown`: everything that had to end has ended.
    ShutdownDone,
    /// After `Drain` with `stop`: no job runs any more.
    Drained,
}

/// A reason: stable code (ux.md 6.1) and one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Stable code.
    pub code: &'static str,
    /// Sentence without full stop.
    pub text: Arc<str>,
}

/// An event as the core tells it; the engine adds `seq`, `time`, `node`.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// `run.started`, `job.scaled`, … (ux.md 6.3).
    pub event: &'static str,
    /// Job.
    pub job: JobId,
    /// Slot for run events.
    pub slot: Option<Slot>,
    /// Run.
    pub run: Option<RunId>,
    /// Whose doing.
    pub by: Option<Actor>,
    /// Why.
    pub reason: Option<Reason>,
    /// Further fields, flat: `("code", "1")`.
    pub data: Vec<(&'static str, String)>,
}

/// What [`crate::Node::handle`] returns; the order of commands is the order to do them in.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// To do.
    pub commands: Vec<Command>,
    /// To tell.
    pub events: Vec<Event>,
    /// Jobs whose view may have changed.
    pub touched: Vec<JobId>,
}

/// State of an instance or job (ux.md 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Down as wished.
    Stopped,
    /// For a dependency or its turn.
    Waiting,
    /// Spawned, not ready yet.
    Starting,
    /// Up, and ready if `ready` is declared.
    Running,
    /// Until the next attempt.
    Backoff,
    /// Crash loop, paused.
    Flapping,
    /// Being asked to end.
    Stopping,
    /// Would not end.
    StopStuck,
    /// Ended, and policy says that is fine.
    Exited,
    /// Gave up.
    Failed,
    /// Frozen.
    Paused,
    /// Shim silent.
    Unreachable,
    /// Not known.
    Unknown,
    /// Jobs only: not all instances are running.
    Degraded,
}

/// What anyone may see of an instance.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceView {
    /// Where.
    pub slot: Slot,
    /// Live or last run.
    pub run: Option<RunId>,
    /// Of the live run.
    pub pid: Option<u32>,
    /// What is.
    pub state: State,
    /// What is asked for.
    pub wish: WishState,
    /// Why (none: nothing to say).
    pub reason: Option<Reason>,
    /// Of the live run.
    pub started: Option<Wall>,
    /// Ready since.
    pub ready: Option<Wall>,
    /// Next attempt, if waiting for one.
    pub next_try: Option<Wall>,
    /// Unasked new runs since the wish was last set to running by hand.
    pub restarts: u32,
    /// Ordinal of the run in its slot.
    pub attempt: u32,
}

/// What anyone may see of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobView {
    /// Which.
    pub job: JobId,
    /// What is asked for.
    pub wish: WishState,
    /// What is: of all instances together.
    pub state: State,
    /// One sentence: `2 of 3 running`.
    pub summary: String,
    /// Why.
    pub reason: Option<Reason>,
    /// Instances wished for.
    pub target: u32,
    /// By number; one-offs after them.
    pub instances: Vec<InstanceView>,
    /// The newest request has been carried out, is under way, or cannot be.
    pub progress: Progress,
}

/// Has the wish become the state?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not yet.
    Pending,
    /// Yes.
    Done,
    /// It will not by itself.
    Failed(Reason),
}
