//! What goes into the machine and what comes out of it.

use crate::job::Scope;
use crate::queue::outcome::Outcome;
use crate::queue::spec::{Queue, QueueId};
use crate::queue::task::{Claimed, Handle, Settlement, TaskId};
use crate::time::{Duration, Mono, Wall};
use std::sync::Arc;

/// What the machine is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time went by. Always harmless.
    Tick,
    /// A queue is defined, or defined anew.
    Put {
        /// Which.
        queue: QueueId,
        /// Its definition.
        spec: Arc<Queue>,
        /// Claims are held back.
        paused: bool,
    },
    /// A queue is defined no more: its workers finish, nothing is claimed.
    Removed(QueueId),
    /// Claims are held back, or not any more.
    Paused {
        /// Which queue.
        queue: QueueId,
        /// Held back?
        on: bool,
        /// Its workers are frozen, too.
        running: bool,
    },
    /// There may be something to claim: a push was committed, or the store changed. None: in any queue.
    Hint(Option<QueueId>),
    /// Somebody may have asked for the end of a task, on another node: what is held is renewed now, and says so.
    Renew,
    /// Something is scheduled for this time.
    Due(Wall),
    /// A resident worker, or the handlers of this process, can take tasks, or cannot any more.
    Worker {
        /// Of this queue.
        queue: QueueId,
        /// Number, from 0. Handlers are number 0.
        worker: u32,
        /// It can.
        up: bool,
    },
    /// Answer to [`Command::Claim`]; none: the store failed.
    Claimed {
        /// Which queue.
        queue: QueueId,
        /// Rows, as the store has them now.
        rows: Option<Vec<Claimed>>,
        /// A limit holds more back until then.
        again_at: Option<Wall>,
    },
    /// A worker said how it went, or its process ended.
    Ended {
        /// Which attempt.
        handle: Handle,
        /// How.
        outcome: Outcome,
        /// Nothing of it is left.
        gone: bool,
    },
    /// Nothing of a worker is left.
    Gone(Handle),
    /// Answer to [`Command::Settle`].
    Settled {
        /// Which attempt.
        handle: Handle,
        /// Written; false: the attempt is not the newest, or was settled before; none: the store failed.
        written: Option<bool>,
    },
    /// Answer to [`Command::Renew`]; none: the store failed. `asked` is when it was asked.
    Renewed {
        /// When.
        asked: Mono,
        /// What was renewed, and whether its end was asked for. What is not in it is lost.
        kept: Option<Vec<(Handle, bool)>>,
    },
    /// Answer to [`Command::Upkeep`]; none: the store failed.
    Upkept(Option<Upkept>),
    /// The store has written that this running task is not wanted any more.
    CancelAsked(TaskId),
    /// Recovery: a worker of an earlier daemon.
    Found {
        /// Queue of its slot.
        queue: QueueId,
        /// Its seat.
        seat: u32,
        /// Its attempt.
        handle: Handle,
        /// None: it lives.
        ended: Option<Outcome>,
    },
    /// Recovery: rows of an earlier incarnation of this node; sent after all [`Input::Found`].
    Orphans(Vec<Claimed>),
    /// Recovery is over.
    Recovered,
    /// Orderly end of the node.
    Shutdown,
    /// The node is drained (or not any more): nothing is claimed meanwhile, what is claimed goes on.
    Drain(bool),
    /// The time for draining is over: what is worked on is ended and given back.
    Release,
}

/// What upkeep of the store found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upkept {
    /// Queues of which tasks became runnable.
    pub moved: Vec<QueueId>,
    /// When the next one does.
    pub next_due: Option<Wall>,
    /// Tasks whose holder was silent for too long.
    pub expired: Vec<Claimed>,
    /// When the next lease of somebody else ends.
    pub next_lease: Option<Wall>,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Ask the store for tasks.
    Claim {
        /// Of this queue.
        queue: QueueId,
        /// At most so many.
        count: u32,
    },
    /// Give a task to a worker, starting it if it is not a resident one.
    Hand {
        /// Which seat of the queue, from 0.
        seat: u32,
        /// The task.
        row: Claimed,
    },
    /// Ask a worker to end.
    Signal {
        /// The one with this attempt.
        handle: Handle,
        /// Number.
        signal: i32,
        /// Which of its processes.
        to: Scope,
    },
    /// End everything of the worker with this attempt. Answered by `Ended`, `Gone`, or both.
    Kill(Handle),
    /// Freeze or thaw the worker with this attempt.
    Freeze {
        /// Which.
        handle: Handle,
        /// Frozen?
        on: bool,
    },
    /// Have an outcome written.
    Settle(Box<Settlement>),
    /// Have leases extended from now on.
    Renew(Vec<(Handle, Duration)>),
    /// Have due tasks made runnable, and leases looked at that ended.
    Upkeep,
    /// After `Shutdown`: nothing is left to wait for.
    ShutdownDone,
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// `queue.task.started`, … (ux.md 6.3).
    pub event: &'static str,
    /// Queue.
    pub queue: QueueId,
    /// Task.
    pub task: TaskId,
    /// Its kind.
    pub kind: Option<Arc<str>>,
    /// Ordinal of the attempt.
    pub attempt: u32,
    /// What it became, for ends.
    pub settlement: Option<Box<Settlement>>,
    /// How long it waited, for starts.
    pub waited: Duration,
}

/// What `Dispatch::handle` returns.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// To do, in this order.
    pub commands: Vec<Command>,
    /// To tell.
    pub events: Vec<Event>,
}
