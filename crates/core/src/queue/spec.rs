//! A queue as the machines see it: resolved, complete.

use super::schema::Schema;
use super::vigil::Probing;
use crate::job::{ExitClass, ExitMatch, Launch, Logs, Retry, Stop};
use crate::name::JobId;
use crate::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Session and name of a queue. They follow the same grammar as those of jobs, without dots in the name.
pub type QueueId = JobId;

/// A queue, fully resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Queue {
    /// What happens to a task when its worker dies.
    pub delivery: Delivery,
    /// Tasks at once on this node.
    pub workers: u32,
    /// Tasks taken from the store at once; none: as many as there are free workers.
    pub batch: Option<u32>,
    /// How long a node may be silent before its tasks are offered to others.
    pub lease: Duration,
    /// What is done for a task of no kind, and for kinds that are not named.
    pub work: Work,
    /// Kinds with work of their own.
    pub kinds: BTreeMap<Arc<str>, Work>,
    /// Workers are kept and fed lines of JSON.
    pub resident: bool,
    /// Tasks at once in a resident worker.
    pub slots: u32,
    /// How resident workers are asked whether they are ready, and well.
    pub probing: Probing,
    /// How a command worker gets the payload.
    pub input: PayloadBy,
    /// The last line of JSON on stdout is the result.
    pub result_stdout: bool,
    /// Ignore priorities.
    pub fifo: bool,
    /// Waiting that is worth one step of priority.
    pub aging: Option<Duration>,
    /// Not begun by then: dead.
    pub expires: Option<Duration>,
    /// How long rows are kept.
    pub keep: Keep,
    /// Which tasks exclude each other.
    pub unique: Option<Unique>,
    /// How many may run.
    pub throttle: Throttle,
    /// Queues of the session that share their workers; none: those of this one are its own.
    pub pool: Option<Arc<str>>,
    /// Share of the pool, by those of its other queues with something to do.
    pub weight: u32,
    /// Paths in the payload whose values nobody is shown.
    pub redact: Vec<String>,
    /// Largest payload, in bytes.
    pub max_payload: u64,
    /// What becomes of kinds that nothing is defined for.
    pub unknown: Unknown,
    /// Acknowledged pushes and outcomes survive a loss of power.
    pub full: bool,
    /// What an orderly end of the daemon does.
    pub on_stop: OnStop,
    /// Longest time of `on_stop = "drain"`.
    pub drain_timeout: Duration,
    /// An orderly end of the daemon leaves workers running.
    pub keep_running: bool,
    /// An application's SQLite file, tasks of whose table `outbox` are moved here.
    pub outbox: Option<Arc<str>>,
    /// Where its tasks are, as it is written in a file; none: in the node's own store.
    pub store: Option<Arc<str>>,
    /// Bounds of a worker's output.
    pub logs: Logs,
}

/// What is done for a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// Who does it.
    pub by: By,
    /// Longest life of one attempt.
    pub timeout: Option<Duration>,
    /// Pace and number of attempts.
    pub retry: Retry,
    /// Ends by signal or for memory that park a task, counted apart from failures.
    pub crashes: u32,
    /// Classes of ends.
    pub exit: ExitClass,
    /// Ends that mean: later, not counted.
    pub snooze: Vec<ExitMatch>,
    /// How a worker is asked to end.
    pub stop: Stop,
    /// What the payload has to look like.
    pub schema: Option<Arc<Schema>>,
}

/// Who does the work.
#[derive(Clone, Debug, PartialEq)]
pub enum By {
    /// Programs or handlers that take tasks by themselves, over HTTP or in this process.
    Others,
    /// A program.
    Cmd(Arc<Launch>),
    /// A task (a DAG of steps) of this name in the queue's session; the payload becomes its parameters.
    Task(Arc<str>),
}

/// What happens to a task when its worker, or the node, dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It runs again.
    AtLeastOnce,
    /// It never does.
    AtMostOnce,
}

/// How a command worker gets the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadBy {
    /// On standard input.
    Stdin,
    /// In `GAFFER_PAYLOAD`.
    Env,
    /// In the file that `GAFFER_PAYLOAD_FILE` names.
    File,
}

/// How long rows are kept when they are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Done and cancelled ones. Whoever waits finds a row for at least [`LEAST_KEPT`].
    pub done: Duration,
    /// Dead and lost ones.
    pub dead: Duration,
    /// Results.
    pub result: Duration,
    /// Statistics per minute.
    pub stats: Duration,
}

/// Rows that are over are pruned at the earliest after this, so that a script that looks once a second sees the end.
pub const LEAST_KEPT: Duration = Duration::from_secs(60);

/// Which tasks exclude each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unique {
    /// Paths in the payload whose values make the key of a task that brings none; empty: only given keys count.
    pub by: Vec<String>,
    /// Bucket of time that is part of a key that was made.
    pub within: Option<Duration>,
    /// A running one excludes too.
    pub while_running: bool,
    /// A finished one excludes until `within` is over.
    pub while_done: bool,
    /// What a second one does.
    pub conflict: Conflict,
    /// `debounce` moves a task at most so far away from its first push.
    pub max_delay: Option<Duration>,
}

/// What a task does that meets another one with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// The id of the first one is the answer.
    Return,
    /// Payload, priority and time of the waiting one are replaced.
    Replace,
    /// Only the time of the waiting one moves, later.
    Debounce,
    /// The earlier time counts.
    KeepEarliest,
    /// The push is refused.
    Error,
}

/// How many may run, and how often.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Throttle {
    /// Over all nodes.
    pub total: Option<u32>,
    /// Of each kind.
    pub per_kind: Option<u32>,
    /// Path in the payload whose value is the key.
    pub key: Option<String>,
    /// Of each key.
    pub per_key: Option<u32>,
    /// Starts within a time: `(count, time)`. Of each key if there is one, else of the queue.
    pub rate: Option<(u32, Duration)>,
}

impl Throttle {
    /// Nothing is throttled.
    pub fn is_none(&self) -> bool {
        self.total.is_none() && self.per_kind.is_none() && self.per_key.is_none() && self.rate.is_none()
    }
}

/// What becomes of a kind that nothing is defined for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Dead letter.
    Dead,
    /// It waits until somebody defines it.
    Wait,
    /// It is dropped without a trace, as snappea does.
    Drop,
}

/// What an orderly end of the daemon does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStop {
    /// Running tasks get `stop.timeout` to finish; nothing new begins.
    Finish,
    /// The backlog is worked off first.
    Drain,
    /// Workers are stopped, their tasks given back at once.
    Release,
}

impl Work {
    /// With the defaults of ux.md 2.5.
    pub fn of(by: By) -> Work {
        let job = crate::job::Job::of(Launch::of(Vec::new()));
        Work {
            by,
            timeout: None,
            retry: Retry {
                attempts: Some(20),
                delay: vec![Duration::from_secs(2)],
                factor: 2.0,
                increment: None,
                max_delay: Duration::from_secs(3600),
                jitter: 0.2,
                reset_after: Duration::MAX,
            },
            crashes: 5,
            exit: job.exit,
            snooze: vec![ExitMatch::Code(75)],
            stop: job.stop,
            schema: None,
        }
    }
}

impl Queue {
    /// With the defaults of ux.md 2.8.
    pub fn of(by: By) -> Queue {
        let logs = crate::job::Job::of(Launch::of(Vec::new())).logs;
        Queue {
            delivery: Delivery::AtLeastOnce,
            workers: 4,
            batch: None,
            lease: Duration::from_secs(30),
            work: Work::of(by),
            kinds: BTreeMap::new(),
            resident: false,
            slots: 1,
            probing: Probing::default(),
            input: PayloadBy::Stdin,
            result_stdout: false,
            fifo: false,
            aging: None,
            expires: None,
            keep: Keep {
                done: Duration::ZERO,
                dead: Duration::from_secs(7 * 86_400),
                result: Duration::ZERO,
                stats: Duration::from_secs(7 * 86_400),
            },
            unique: None,
            throttle: Throttle::default(),
            pool: None,
            weight: 1,
            redact: Vec::new(),
            max_payload: 256 << 10,
            unknown: Unknown::Dead,
            full: true,
            on_stop: OnStop::Finish,
            drain_timeout: Duration::from_secs(600),
            keep_running: false,
            outbox: None,
            store: None,
            logs,
        }
    }

    /// What is done for a task of a kind.
    pub fn work(&self, kind: Option<&str>) -> &Work {
        kind.and_then(|kind| self.kinds.get(kind)).unwrap_or(&self.work)
    }

    /// Programs of ours work on it, and not only others.
    pub fn is_ours(&self) -> bool {
        let mut all = std::iter::once(&self.work).chain(self.kinds.values());
        all.any(|work| work.by != By::Others)
    }

    /// Nothing is defined for a task of this kind: neither its own work nor one of the whole queue.
    pub fn knows(&self, kind: Option<&str>) -> bool {
        self.work.by != By::Others
            || kind.is_some_and(|kind| self.kinds.contains_key(kind))
            || self.kinds.is_empty()
    }

    /// The row of a claimed task goes away with the claim: nothing can run it again, and nobody asks for it later.
    pub fn forgets_at_claim(&self) -> bool {
        self.delivery == Delivery::AtMostOnce && self.keep.done.is_zero() && self.keep.result.is_zero()
    }

    /// Resident workers that are kept.
    pub fn residents(&self) -> u32 {
        self.workers.div_ceil(self.slots.max(1))
    }
}
