//! A job as the machines see it: resolved, complete, without defaults left to apply.
//! What a user typed lives in `gaffer-config`, which turns it into this.

use crate::name::{JobId, Name};
use crate::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is waited for, and for what of it.
pub type After = BTreeMap<JobId, Condition>;

/// A job, fully resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// How each run is launched. Shared by all instances; its digest decides whether a run is outdated.
    pub launch: Arc<Launch>,
    /// First wish when the job is new (`start = true`).
    pub start: bool,
    /// Copies, numbered from 1.
    pub instances: u32,
    /// `scale.min`, default 0... bounds that bind operators too.
    pub scale_min: u32,
    /// `scale.max`.
    pub scale_max: Option<u32>,
    /// Lower starts first, stops in reverse.
    pub priority: i32,
    /// What must hold before a run starts. Also orders the stop.
    pub after: After,
    /// Tasks whose newest run must have ended as said before a run starts.
    pub after_tasks: After,
    /// What a restart or the end of one of `after` means here.
    pub after_change: AfterChange,
    /// Pause between the first starts of instances.
    pub start_spacing: Duration,
    /// Which ends call for a new run.
    pub restart: Restart,
    /// Classes of ends.
    pub exit: ExitClass,
    /// Pace and number of new attempts.
    pub retry: Retry,
    /// Crash-loop window; none is off.
    pub flapping: Option<Flapping>,
    /// Readiness probe.
    pub ready: Option<Probe>,
    /// `ready.within`.
    pub ready_within: Duration,
    /// Liveness probe.
    pub health: Option<Probe>,
    /// `health.action`: true restarts, false only tells.
    pub health_restarts: bool,
    /// How a run is asked to end.
    pub stop: Stop,
    /// How a change of class R is rolled out.
    pub reload: Reload,
    /// When it ends for good, the node stops and exits with its code.
    pub essential: bool,
    /// An orderly daemon stop leaves it running.
    pub keep_running: bool,
    /// Log retention; a live change.
    pub logs: Logs,
    /// Free text.
    pub description: String,
    /// Free table.
    pub meta: BTreeMap<String, String>,
}

impl Job {
    /// A job with the defaults of ux.md 2.4–2.6 around a launch.
    pub fn of(launch: Launch) -> Job {
        Job {
            launch: Arc::new(launch),
            start: true,
            instances: 1,
            scale_min: 0,
            scale_max: None,
            priority: 0,
            after: After::new(),
            after_tasks: After::new(),
            after_change: AfterChange::Ignore,
            start_spacing: Duration::ZERO,
            restart: Restart::Always,
            exit: ExitClass {
                ok: vec![ExitMatch::Code(0)],
                fatal: Vec::new(),
            },
            retry: Retry::default(),
            flapping: None,
            ready: None,
            ready_within: Duration::from_secs(60),
            health: None,
            health_restarts: true,
            stop: Stop {
                signal: 15,
                timeout: Duration::from_secs(30),
                to: Scope::Main,
                cmd: None,
            },
            reload: Reload {
                how: ReloadHow::Rolling,
                signal: 1,
                batch: Batch::Count(1),
            },
            essential: false,
            keep_running: false,
            logs: Logs {
                size: 100 << 20,
                age: None,
                segment: 8 << 20,
                block_when_full: false,
                redact: Vec::new(),
            },
            description: String::new(),
            meta: BTreeMap::new(),
        }
    }
}

impl Default for Retry {
    /// Of a job: without end, 100 ms doubling to 30 s, forgotten after 60 s of health.
    fn default() -> Retry {
        Retry {
            attempts: None,
            delay: vec![Duration::from_millis(100)],
            factor: 2.0,
            increment: None,
            max_delay: Duration::from_secs(30),
            jitter: 0.2,
            reset_after: Duration::from_secs(60),
        }
    }
}

impl Batch {
    /// Instances at once, of so many; at least one.
    pub fn of(self, instances: u32) -> u32 {
        match self {
            Batch::Count(count) => count.max(1),
            Batch::Percent(percent) => {
                let share = u64::from(instances) * u64::from(percent) / 100;
                u32::try_from(share).unwrap_or(u32::MAX).max(1)
            }
        }
    }
}

impl Launch {
    /// The shell that runs the command, if one does; `daemon` is what `shell = true` means there.
    pub fn shell_or<'a>(&'a self, daemon: &'a str) -> Option<&'a str> {
        let named = self.shell.as_deref()?;
        Some(if named.is_empty() { daemon } else { named })
    }

    /// Words to run in `/`, everything else as by default.
    pub fn of(cmd: Vec<String>) -> Launch {
        Launch {
            cmd,
            shell: None,
            argv0: None,
            wrap: Vec::new(),
            cwd: "/".into(),
            root: None,
            env_inherit: EnvInherit::Base,
            env: Vec::new(),
            unread: None,
            user: None,
            umask: 0o022,
            nice: 0,
            oom_score: 0,
            no_new_privs: false,
            rlimits: Vec::new(),
            limits: None,
            port: None,
            ports: BTreeMap::new(),
            stdin: Stdin::Null,
            pty: false,
            pty_size: (80, 24),
            streams: Vec::new(),
            stdout: Output::Keep,
            stderr: Output::Keep,
        }
    }
}

/// All that the launch of a run depends on (change class R). Strings may still hold run-time
/// templates (`{{instance}}`, `{{run}}`, …) and `$NAME`; `gaffer_config::expand` fills them at spawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Program and arguments, split already. With `shell`, the single script.
    pub cmd: Vec<String>,
    /// `Some("bash")`: run `cmd[0]` by `SHELL -c`. Empty: by the daemon's shell.
    pub shell: Option<String>,
    /// Name shown to the program.
    pub argv0: Option<String>,
    /// Words put in front.
    pub wrap: Vec<String>,
    /// Absolute.
    pub cwd: String,
    /// Root directory of the program, as it is; `cwd` is below it. None: that of the daemon.
    pub root: Option<String>,
    /// What comes from the daemon's environment.
    pub env_inherit: EnvInherit,
    /// Layers already merged in order (`[env]`, `env_file`, `env`), unexpanded; `$X` refers to the layer below.
    pub env: Vec<EnvLayer>,
    /// Why a layer of the environment is not there: no run is started without it.
    pub unread: Option<String>,
    /// Resolved user, none = the daemon's own.
    pub user: Option<User>,
    /// umask, default 0o022.
    pub umask: u32,
    /// nice.
    pub nice: i32,
    /// oom_score_adj.
    pub oom_score: i32,
    /// Set no_new_privs.
    pub no_new_privs: bool,
    /// `(RLIMIT_* number, soft, hard)`; `u64::MAX` is unlimited.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// Limits of the whole run. A change of them replaces no run.
    pub limits: Option<Box<Limits>>,
    /// `$PORT` of instance 1; instance n gets `+ n − 1`.
    pub port: Option<Port>,
    /// Named ports.
    pub ports: BTreeMap<String, Port>,
    /// Standard input.
    pub stdin: Stdin,
    /// A terminal for the program.
    pub pty: bool,
    /// Columns and rows of that terminal until somebody who attaches says otherwise.
    pub pty_size: (u16, u16),
    /// Labels of two-way pipes on descriptors 3 and up.
    pub streams: Vec<String>,
    /// stdout kept?
    pub stdout: Output,
    /// stderr.
    pub stderr: Output,
}

/// Limits of all processes of a run together, kept by the kernel through its cgroup (`limits`). None: no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Most memory; beyond it the kernel kills.
    pub memory: Option<Amount>,
    /// From here on the run is slowed down and its memory taken back.
    pub memory_high: Option<Amount>,
    /// Memory that is taken back last.
    pub memory_low: Option<Amount>,
    /// Most swap.
    pub swap: Option<Amount>,
    /// Percent of one core.
    pub cpu: Option<u32>,
    /// Share of the processors where runs compete, 1 to 10,000; 100 is usual.
    pub cpu_weight: Option<u32>,
    /// Share of the disks, as `cpu_weight`.
    pub io_weight: Option<u32>,
    /// Most processes and threads.
    pub pids: Option<u32>,
    /// Processors, as the kernel lists them: `0-3,8`.
    pub cpus: Option<String>,
    /// Memory nodes, likewise.
    pub mems: Option<String>,
    /// Lines of `io.max`: `8:0 rbps=1048576`.
    pub io: Vec<String>,
    /// Out of memory, the kernel ends one process and not the whole run.
    pub one_process: bool,
    /// A run that cannot be limited so is not started.
    pub required: bool,
}

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many bytes.
    Bytes(u64),
    /// Percent of the machine's.
    Percent(u32),
}

/// One layer of environment.
pub type EnvLayer = Vec<(String, String)>;

/// Where the environment begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvInherit {
    /// PATH, LANG, LC_*, TZ.
    Base,
    /// Everything of the daemon.
    All,
    /// Nothing.
    None,
    /// Names, `*` as wildcard.
    Patterns(Vec<String>),
}

/// A resolved user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// As typed or looked up, for HOME and messages.
    pub name: String,
    /// uid.
    pub uid: u32,
    /// gid.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// A port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// A free one, chosen at spawn.
    Auto,
    /// This one.
    Fixed(u16),
}

/// Standard input of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stdin {
    /// /dev/null.
    Null,
    /// Writable through the API.
    Pipe,
    /// Opened read-only at spawn.
    File(String),
}

/// An output stream of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Kept in segments.
    Keep,
    /// Discarded.
    Null,
    /// stderr only: merged into stdout.
    Stdout,
}

/// What `after` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// A run exists.
    Started,
    /// All wished instances are running (and ready).
    Ready,
    /// Ended with success.
    Done,
    /// Ended, whatever the result.
    Ended,
}

/// `after_change`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterChange {
    /// Nothing.
    Ignore,
    /// Restart with it.
    Restart,
    /// Stop with it.
    Stop,
}

/// `restart`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Any end.
    Always,
    /// Ends outside `exit.ok`.
    OnFailure,
    /// None.
    Never,
}

/// `exit`: codes and signal numbers by class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitClass {
    /// Success. Default code 0.
    pub ok: Vec<ExitMatch>,
    /// Do not try again.
    pub fatal: Vec<ExitMatch>,
}

/// A code or a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitMatch {
    /// Exit code.
    Code(i32),
    /// Signal number.
    Signal(i32),
}

/// `retry`.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Consecutive failed attempts before giving up; none is unlimited.
    pub attempts: Option<u32>,
    /// First delay, or the list whose last entry repeats.
    pub delay: Vec<Duration>,
    /// Multiplier per further failure.
    pub factor: f64,
    /// Adds instead of multiplying.
    pub increment: Option<Duration>,
    /// Cap.
    pub max_delay: Duration,
    /// ± share.
    pub jitter: f64,
    /// A run that lived this long after ready forgets failures.
    pub reset_after: Duration,
}

/// `flapping`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flapping {
    /// Unexpected exits …
    pub exits: u32,
    /// … within this …
    pub window: Duration,
    /// … pause for this.
    pub pause: Duration,
    /// Pauses before `failed`; none is unlimited.
    pub rounds: Option<u32>,
    /// Count over all instances of the job.
    pub whole_job: bool,
}

/// A probe.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// What is asked.
    pub kind: ProbeKind,
    /// Between probes.
    pub every: Duration,
    /// Of one probe.
    pub timeout: Duration,
    /// Before the first.
    pub delay: Duration,
    /// In a row, to be good.
    pub successes: u32,
    /// In a row, to be bad.
    pub failures: u32,
}

/// Kinds of probes. Strings may hold templates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// URL answering 2xx/3xx.
    Http(String),
    /// `host:port` or `unix:PATH` accepting.
    Tcp(String),
    /// Exit 0.
    Cmd {
        /// Words, or the script with `shell`.
        cmd: Vec<String>,
        /// Shell.
        shell: Option<String>,
    },
    /// Regex on an output line. Passive: reported once.
    Log(String),
    /// `READY=1` on `$NOTIFY_SOCKET`. Passive.
    Notify,
    /// Alive this long (`ready` only). The core does it alone.
    After(Duration),
    /// `health` only: longest silence between `WATCHDOG=1` on the notify socket. Passive: each beat is a success.
    Heartbeat(Duration),
}

/// `stop`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Signal number.
    pub signal: i32,
    /// Then KILL.
    pub timeout: Duration,
    /// Who gets it.
    pub to: Scope,
    /// Run instead of the signal.
    pub cmd: Option<Vec<String>>,
}

/// Who gets a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The main process.
    Main,
    /// Its children only.
    Children,
    /// Its process group.
    Group,
    /// Everything in the run's tree.
    All,
}

/// `reload`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// How.
    pub how: ReloadHow,
    /// For `how = signal`.
    pub signal: i32,
    /// Instances at once.
    pub batch: Batch,
}

/// `reload.batch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// Instances.
    Count(u32),
    /// Percent of the instances, at least one.
    Percent(u32),
}

/// `reload.how`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadHow {
    /// New ones ready before old ones stop.
    Surge,
    /// One batch after the other.
    Rolling,
    /// All at once.
    Restart,
    /// Only a signal.
    Signal,
}

/// `logs`, the parts that concern the shim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logs {
    /// Kept per stream.
    pub size: u64,
    /// Oldest kept.
    pub age: Option<Duration>,
    /// Roll size.
    pub segment: u64,
    /// True: the program waits when the disk is full. False: drop and count.
    pub block_when_full: bool,
    /// Masked on the way out.
    pub redact: Vec<String>,
}

/// A session and all its jobs have one of these names.
pub type SessionId = Name;
