//! The port: what every store can do.
//!
//! | request | answer |
//! |---|---|
//! | [`Request::Push`] | ids, in the order of the tasks; all or none |
//! | [`Request::Claim`] | tasks that are ours from now on |
//! | [`Request::Settle`] | whether it was written |
//! | [`Request::Renew`] | what is still ours |
//! | [`Request::Upkeep`] | what became due, what was left behind |
//! | [`Request::Orphans`] | what an earlier incarnation of this node had |
//! | [`Request::Cancel`], [`Request::Again`], [`Request::Remove`], [`Request::Purge`] | what became of it |
//! | [`Request::Mode`], [`Request::Modes`] | what operators said about queues |
//! | [`Request::Tick`], [`Request::Schedule`], [`Request::Schedules`] | how far schedules are |
//! | [`Request::Move`], [`Request::Moved`], [`Request::Forget`] | which rows of an outbox became tasks |
//! | [`Request::Count`] | what was done is added to the statistics |
//! | [`Request::Task`], [`Request::Tasks`], [`Request::Counts`], [`Request::Signs`], [`Request::Minutes`] | what people are shown |
//!
//! An answer comes when what was asked is committed, and with `full` survives a loss of power.

use crate::rows::{AttemptRow, Counts, Filter, MinuteRow, Mode, ScheduleRow, Signs, TaskRow};
use gaffer_core::queue::dispatch::Upkept;
use gaffer_core::queue::spec::{Conflict, QueueId, Throttle};
use gaffer_core::queue::task::{Claimed, Handle, Settlement, TaskId, TaskState};
use gaffer_core::time::{Duration, Wall};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Most tasks of one push.
pub const PUSH_MAX: usize = 10_000;

/// A task that is not in the store yet.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTask {
    /// Where it goes.
    pub queue: QueueId,
    /// What is to be done.
    pub kind: Option<Arc<str>>,
    /// JSON.
    pub payload: Arc<str>,
    /// Free JSON.
    pub meta: Option<Arc<str>>,
    /// Smaller runs first, −32768 … 32767.
    pub priority: i32,
    /// Priorities are ignored.
    pub fifo: bool,
    /// Not before this; none: at once.
    pub run_at: Option<Wall>,
    /// What excludes others, and how.
    pub unique: Option<Key>,
    /// What it is throttled by.
    pub limit_key: Option<Arc<str>>,
    /// Its own number of attempts.
    pub attempts_max: Option<u32>,
    /// Longest life of an attempt.
    pub timeout_ms: Option<u64>,
    /// Dead if it has not begun by then.
    pub begin_by: Option<Wall>,
    /// When it was pushed, if that was somewhere else before; none: now.
    pub created: Option<Wall>,
    /// It survives a loss of power once it is acknowledged.
    pub full: bool,
}

impl NewTask {
    /// One that can begin at once, is limited by nothing, and survives a loss of power.
    pub fn new(queue: QueueId, payload: impl Into<Arc<str>>) -> NewTask {
        NewTask {
            queue,
            kind: None,
            payload: payload.into(),
            meta: None,
            priority: 0,
            fifo: false,
            run_at: None,
            unique: None,
            limit_key: None,
            attempts_max: None,
            timeout_ms: None,
            begin_by: None,
            created: None,
            full: true,
        }
    }
}

/// What excludes others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key, within the queue.
    pub key: Arc<str>,
    /// A running one excludes too.
    pub while_running: bool,
    /// A finished one excludes until then.
    pub done_until: Option<Wall>,
    /// What a second one does.
    pub conflict: Conflict,
    /// `debounce` moves at most so far from the first push.
    pub max_delay: Option<Duration>,
}

/// What became of a pushed task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Its number, or that of the one that was there.
    pub id: TaskId,
    /// One with its key was there.
    pub duplicate: bool,
    /// When it can begin; none: now.
    pub due: Option<Wall>,
}

/// A claim.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Of this queue.
    pub queue: QueueId,
    /// At most so many.
    pub count: u32,
    /// For this incarnation of a node, or this external worker.
    pub owner: Arc<str>,
    /// Time of the store's clock, if it has none of its own.
    pub now: Wall,
    /// For so long.
    pub lease: Duration,
    /// Only these kinds; none: any.
    pub kinds: Option<Vec<Option<Arc<str>>>>,
    /// Limits.
    pub throttle: Throttle,
    /// The rows go away with the claim.
    pub forget: bool,
}

/// A schedule goes on.
#[derive(Clone, Debug)]
pub struct Tick {
    /// `session.schedule`.
    pub schedule: Arc<str>,
    /// All ticks up to this one were dealt with, as far as whoever asks knows.
    pub known: Wall,
    /// How far it is then. The number of a pushed task is put in.
    pub row: ScheduleRow,
    /// How far it is if one with the key of the push is there.
    pub duplicate: ScheduleRow,
    /// What it pushes.
    pub push: Option<NewTask>,
    /// Now.
    pub now: Wall,
}

/// Rows of a program's outbox become tasks.
#[derive(Clone, Debug)]
pub struct Moving {
    /// Which outbox, for which queue of which node.
    pub source: Arc<str>,
    /// What [`Request::Moved`] answered: rows that were taken before this.
    pub known: Vec<i64>,
    /// Numbers of the rows in the outbox.
    pub ids: Vec<i64>,
    /// What they become.
    pub tasks: Vec<NewTask>,
    /// Now.
    pub now: Wall,
}

/// A request to a store.
#[derive(Debug)]
pub enum Request {
    /// Put tasks in, all or none.
    Push(Vec<NewTask>, Wall),
    /// Take tasks.
    Claim(Box<Claim>),
    /// Write what an attempt became, if it is the newest of a running task.
    Settle(Box<Settlement>, Wall),
    /// Extend leases.
    Renew(Vec<(Handle, Duration)>, Wall),
    /// Make due tasks runnable, find leases that ended of others than this owner.
    Upkeep {
        /// Who asks.
        owner: Arc<str>,
        /// Now.
        now: Wall,
    },
    /// What has an owner that begins with `node` and is not `owner`.
    Orphans {
        /// All incarnations of this node.
        node: Arc<str>,
        /// The one that asks.
        owner: Arc<str>,
    },
    /// Withdraw a task.
    Cancel(TaskId, Wall),
    /// Have a finished task run again.
    Again(TaskId, Wall),
    /// Change the payload of a task that is not running; a finished one becomes a new one.
    Edit {
        /// Which.
        task: TaskId,
        /// JSON.
        payload: Arc<str>,
        /// Now.
        now: Wall,
        /// The number by which people know it: the new one says so in `meta.from`.
        shown: TaskId,
    },
    /// Remove a task that is not running.
    Remove(TaskId),
    /// Remove tasks of a queue in a state, at most so many.
    Purge(QueueId, TaskState, u32),
    /// Remove rows whose time is over, at most so many.
    Prune(Wall, u32),
    /// Give waiting tasks of a queue the rank that their waiting is worth.
    Age(QueueId, Duration, Wall),
    /// What an operator says about a queue.
    Mode(QueueId, Mode),
    /// What operators said.
    Modes,
    /// What a schedule did, and the task that it pushes, in one: only if nobody was there before.
    Tick(Box<Tick>),
    /// How far a schedule is, whatever was known; none: it is gone.
    Schedule(Arc<str>, Option<ScheduleRow>),
    /// How far all schedules are.
    Schedules,
    /// Put the tasks of an outbox in and remember their rows, in one: only if nobody did since whoever asks looked.
    Move(Box<Moving>),
    /// Rows of an outbox that were taken last, and may still be in it.
    Moved(Arc<str>),
    /// The rows of an outbox that are remembered are not in it any more.
    Forget(Arc<str>),
    /// Add what queues did to their minutes; minutes of a queue before a time go.
    Count(Vec<MinuteRow>, Vec<(QueueId, Wall)>),
    /// Minutes of a queue since then, oldest first.
    Minutes(QueueId, Wall),
    /// A task and its attempts.
    Task(TaskId),
    /// A list.
    Tasks(Filter),
    /// Numbers.
    Counts(QueueId),
    /// What alerts are made from: of a queue, since then.
    Signs(QueueId, Wall),
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To `Push`.
    Pushed(Vec<Pushed>),
    /// To `Claim`; a limit holds more back until then.
    Claimed(Vec<Claimed>, Option<Wall>),
    /// To `Settle`: it was written; and what it became in fact.
    Settled(bool),
    /// To `Renew`: what is still ours, and whether its end was asked for.
    Renewed(Vec<(Handle, bool)>),
    /// To `Upkeep`.
    Upkept(Upkept),
    /// To `Orphans`.
    Orphans(Vec<Claimed>),
    /// To `Cancel`.
    Cancelled(Cancelled),
    /// To `Again` and `Edit`: its number, and its queue; none: there is no such task, or not in such a state (given).
    Again(Result<(TaskId, String), Option<TaskState>>),
    /// To `Remove`; none: there is no such task; running ones are not removed.
    Removed(Option<TaskState>),
    /// To `Purge` and `Prune`: so many.
    Purged(u32),
    /// To `Minutes`.
    Minutes(Vec<MinuteRow>),
    /// To `Move`; none: somebody else took some.
    Taken(Option<Vec<Pushed>>),
    /// To `Moved`.
    Moved(Vec<i64>),
    /// To `Mode`, `Age`, `Schedule`, `Count`, `Forget`.
    Noted,
    /// To `Tick`; none: somebody else dealt with it.
    Ticked(Option<Option<Pushed>>),
    /// To `Schedules`.
    Schedules(BTreeMap<String, ScheduleRow>),
    /// To `Modes`.
    Modes(BTreeMap<String, Mode>),
    /// To `Task`.
    Task(Option<Box<(TaskRow, Vec<AttemptRow>)>>),
    /// To `Tasks`.
    Tasks(Vec<TaskRow>),
    /// To `Counts`.
    Counts(Counts),
    /// To `Signs`.
    Signs(Signs),
}

/// What a cancel did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It will not run.
    Now(QueueId),
    /// It is running: its worker is asked to end.
    Asked(QueueId),
    /// It is over, in this state.
    Over(TaskState),
    /// There is no such task.
    Unknown,
}

/// What goes wrong with a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Not reachable, full, read-only, damaged: nothing was changed.
    #[error("the queue store cannot do it: {0}")]
    Unavailable(String),
    /// The queue takes nothing.
    #[error("queue {0} is closed: it takes no tasks")]
    Closed(QueueId),
    /// A task with this key is there, and the queue says that that is an error.
    #[error("task {index}: a task with the key `{key}` is there already: {id}")]
    Duplicate {
        /// Which of the pushed ones, from 0.
        index: usize,
        /// Key.
        key: Arc<str>,
        /// The one that is there.
        id: TaskId,
    },
    /// Written by a newer version.
    #[error("{0}")]
    Newer(String),
}

/// Is called with the answer, on a thread of the store: it must not block.
pub type Done = Box<dyn FnOnce(Result<Answer, StoreError>) + Send>;

/// A store. Cheap to clone.
#[derive(Clone)]
pub enum Store {
    /// A file.
    Sqlite(crate::sqlite::Sqlite),
    /// A database that many nodes share.
    Postgres(crate::postgres::Postgres),
}

/// The answer to what is asked.
pub(crate) async fn answered(ask: impl FnOnce(Done)) -> Result<Answer, StoreError> {
    let (tx, rx) = oneshot::channel();
    let done = move |answer| {
        // Whoever asked may have gone.
        let _gone = tx.send(answer);
    };
    ask(Box::new(done));
    rx.await
        .unwrap_or_else(|_| Err(StoreError::Unavailable("it has ended".to_owned())))
}

impl Store {
    /// Asks; `done` is called with the answer. Requests are done in the order of the calls.
    pub fn ask(&self, request: Request, done: Done) {
        match self {
            Store::Sqlite(sqlite) => sqlite.ask(request, done),
            Store::Postgres(postgres) => postgres.ask(request, done),
        }
    }

    /// Asks and waits.
    pub async fn get(&self, request: Request) -> Result<Answer, StoreError> {
        answered(|done| self.ask(request, done)).await
    }

    /// Closes when what is pending is written, and does not wait for that.
    pub fn end(&self) {
        match self {
            Store::Sqlite(sqlite) => sqlite.end(),
            Store::Postgres(postgres) => postgres.end(),
        }
    }

    /// Writes everything and closes.
    pub async fn close(&self) {
        match self {
            Store::Sqlite(sqlite) => sqlite.close().await,
            Store::Postgres(postgres) => postgres.close().await,
        }
    }
}
