//! The machine of a node: it claims as many tasks as it has free workers, hands them out, renews their leases, ends what takes
//! too long or is not wanted, and settles every attempt once.
//!
//! **The store is asked, and answers.** A [`Command`] that asks is answered by exactly one input. Until then nothing is asked twice.
//!
//! **Order.** A task is settled when nothing of its worker is left: whoever gets it next, on this host, runs alone. An outcome that the
//! store cannot take (a full disk) is kept, its lease renewed, and offered again every second; meanwhile nothing new is claimed.
//!
//! **Leases.** They are renewed every third of their time. A lease that could not be renewed until a fifth of it is left ends
//! its worker at once: it is dead before the task is offered to somebody else. Time is the boot-time clock: a clock of the
//! wall that jumps shortens no lease.
//!
//! **Recovery.** Before [`Input::Recovered`] nothing is claimed. The outside tells which workers live ([`Input::Found`]), then the rows
//! that the store has under an earlier incarnation of this node ([`Input::Orphans`]): a row with a worker is adopted or settled by its end,
//! one without never reached a worker, or died with the process that handled it.

mod held;
mod io;
mod leases;
mod life;
mod pool;

use super::outcome::{Outcome, settle};
use super::spec::{OnStop, Queue, QueueId, Unknown, Work};
use super::task::{Claimed, Failure, Handle, TaskId, TaskState};
use crate::retry::Dice;
use crate::time::{Duration, Mono, Now, Wall};
use held::{Held, Phase, Why};
pub use io::{Command, Event, Input, Output, Upkept};
pub use pool::Pool;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Pause before a store that failed is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// Most tasks of one claim.
const CLAIM_MAX: u32 = 1_000;

/// A queue on this node.
#[derive(Debug)]
struct Lane {
    spec: Arc<Queue>,
    paused: bool,
    removed: bool,
    frozen: bool,
    /// There may be something to claim.
    hinted: bool,
    /// The store has been asked for so many.
    asked: u32,
    /// When: leases count from there, however long the answer takes.
    asked_at: Mono,
    /// A failed or limited store is asked again then.
    again_at: Option<Mono>,
    /// Resident workers, or handlers, that can take tasks.
    up: BTreeSet<u32>,
    /// Tasks by seat.
    seats: BTreeMap<u32, TaskId>,
    /// A worker has nothing to do since then; none: all are busy.
    free_since: Option<Mono>,
    /// Claimed beyond the free seats (`batch`), in the order of the claim.
    ahead: Vec<TaskId>,
    /// What its pool owes it, in shares.
    credit: i64,
    /// Workers of its pool that are kept for it until the store has answered.
    kept: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Dispatch {
    lanes: BTreeMap<QueueId, Lane>,
    held: BTreeMap<TaskId, Held>,
    found: BTreeMap<Handle, (QueueId, u32, Option<Outcome>)>,
    recovered: bool,
    dice: Dice,
    upkeep_asked: bool,
    /// When the store has to look what is due; none: nothing is known to come.
    upkeep_at: Option<Mono>,
    renew_asked: bool,
    renew_at: Option<Mono>,
    stopping: Option<Stopping>,
    /// Nothing is claimed.
    drained: bool,
    /// When the machine was last told something.
    looked: Mono,
}

#[derive(Clone, Copy, Debug)]
struct Stopping {
    since: Mono,
    told: bool,
}

impl Dispatch {
    /// Knows nothing yet.
    pub fn new(seed: u64) -> Dispatch {
        Dispatch {
            lanes: BTreeMap::new(),
            held: BTreeMap::new(),
            found: BTreeMap::new(),
            recovered: false,
            dice: Dice::new(seed),
            upkeep_asked: false,
            upkeep_at: None,
            renew_asked: false,
            renew_at: None,
            stopping: None,
            drained: false,
            looked: Mono(0),
        }
    }

    /// Takes an input and says what follows.
    pub fn handle(&mut self, now: Now, input: Input) -> Output {
        let mut out = Output::default();
        self.looked = now.mono;
        self.take(now, input, &mut out);
        self.deadlines(now, &mut out);
        if self.recovered {
            self.claim(now, &mut out);
            self.upkeep(now, &mut out);
            self.renew(now, &mut out);
        }
        self.end(now, &mut out);
        self.note_free(now.mono);
        out
    }

    /// When the machine has to be looked at, at the latest.
    pub fn next_deadline(&self) -> Option<Mono> {
        let lanes = self.lanes.values().filter_map(|lane| lane.again_at);
        let held = self.held.values().filter_map(Held::deadline);
        let leases = self.held.values().filter(|held| held.is_working());
        let leases = leases.map(|held| self.fence_of(held));
        let upkeep = self.upkeep_at.filter(|_| self.recovered && !self.upkeep_asked);
        let renew = self.renew_at.filter(|_| self.recovered && !self.renew_asked);
        let stopping = self.stopping.filter(|stopping| !stopping.told);
        let stop = stopping.and_then(|stopping| self.next_stop(stopping));
        lanes
            .chain(held)
            .chain(leases)
            .chain(upkeep)
            .chain(renew)
            .chain(stop)
            .min()
    }

    /// The task of an attempt that is worked on here, and its seat.
    pub fn held(&self, task: TaskId) -> Option<(&Claimed, u32)> {
        let held = self.held.get(&task)?;
        Some((&held.row, held.seat))
    }

    /// Tasks that workers of this node have, by queue.
    pub fn busy(&self, queue: &QueueId) -> u32 {
        let lane = self.lanes.get(queue);
        lane.map_or(0, |lane| u32::try_from(lane.seats.len()).unwrap_or(u32::MAX))
    }

    /// Workers of this node that have nothing to do, and since when there is one; none: all are busy, or others do the work.
    pub fn free(&self, queue: &QueueId) -> Option<(u32, Mono)> {
        let lane = self.lanes.get(queue)?;
        let busy = u32::try_from(lane.seats.len()).unwrap_or(u32::MAX);
        let since = lane.free_since?;
        let own = lane.spec.workers.saturating_sub(busy);
        let shared = self
            .pool(queue)
            .map(|pool| pool.workers.saturating_sub(pool.busy));
        Some((shared.map_or(own, |shared| own.min(shared)), since))
    }

    /// Recovery is over (or there is nothing to find) and no task is here, not even one whose outcome is to be written; if
    /// it is `late`, only those count that are worked on.
    pub fn is_idle(&self, late: bool) -> bool {
        let asked = self.lanes.values().any(|lane| lane.asked > 0);
        match late {
            true => self.working() == 0,
            false => (self.recovered || self.lanes.is_empty()) && self.held.is_empty() && !asked,
        }
    }

    /// Is recovery over?
    pub fn is_recovered(&self) -> bool {
        self.recovered
    }

    /// Tasks that are worked on here.
    pub fn working(&self) -> usize {
        self.held.values().filter(|held| held.is_working()).count()
    }

    /// The definition in force.
    pub fn spec(&self, queue: &QueueId) -> Option<&Arc<Queue>> {
        let lane = self.lanes.get(queue)?;
        (!lane.removed).then_some(&lane.spec)
    }

    /// All queues that are defined, and whether claims of them are held back.
    pub fn queues(&self) -> impl Iterator<Item = (&QueueId, &Arc<Queue>, bool)> {
        let lanes = self.lanes.iter().filter(|(_, lane)| !lane.removed);
        lanes.map(|(id, lane)| (id, &lane.spec, lane.paused))
    }

    fn take(&mut self, now: Now, input: Input, out: &mut Output) {
        match input {
            Input::Tick => {}
            Input::Put { queue, spec, paused } => self.put(queue, spec, paused),
            Input::Removed(queue) => {
                if let Some(lane) = self.lanes.get_mut(&queue) {
                    lane.removed = true;
                }
                self.forget_removed(&queue);
            }
            Input::Paused { queue, on, running } => self.pause(&queue, on, running, out),
            Input::Hint(queue) => {
                for (id, lane) in &mut self.lanes {
                    lane.hinted |= queue.as_ref().is_none_or(|queue| queue == id);
                }
                if queue.is_none() {
                    self.upkeep_at = Some(now.mono);
                }
            }
            Input::Renew => self.renew_at = (!self.held.is_empty()).then_some(now.mono),
            Input::Due(at) => self.due(now, at),
            Input::Worker { queue, worker, up } => self.worker(&queue, worker, up),
            Input::Claimed {
                queue,
                rows,
                again_at,
            } => self.claimed(now, &queue, rows, again_at, out),
            Input::Ended {
                handle,
                outcome,
                gone,
            } => self.ended(now, handle, outcome, gone, out),
            Input::Gone(handle) => self.gone(now, handle, out),
            Input::Settled { handle, written } => self.settled(now, handle, written, out),
            Input::Renewed { asked, kept } => self.renewed(now, asked, kept, out),
            Input::Upkept(upkept) => self.upkept(now, upkept, out),
            Input::CancelAsked(task) => {
                if let Some(held) = self.held.get_mut(&task) {
                    held.row.cancelled = true;
                    self.ask_to_end(now, task, Why::Cancelled, out);
                }
            }
            Input::Found {
                queue,
                seat,
                handle,
                ended,
            } => {
                self.found.insert(handle, (queue, seat, ended));
            }
            Input::Orphans(rows) => self.orphans(now, rows, out),
            Input::Recovered => self.recover(now),
            Input::Drain(on) => self.drain(now, on, out),
            Input::Release => {
                for task in self.held.keys().copied().collect::<Vec<_>>() {
                    self.ask_to_end(now, task, Why::Stopping, out);
                }
            }
            Input::Shutdown => {
                if self.stopping.is_none() {
                    self.stopping = Some(Stopping {
                        since: now.mono,
                        told: false,
                    });
                    self.begin_stop(now, out);
                }
            }
        }
    }

    fn put(&mut self, queue: QueueId, spec: Arc<Queue>, paused: bool) {
        let lane = self.lanes.entry(queue).or_insert_with(|| Lane {
            spec: spec.clone(),
            paused,
            removed: false,
            frozen: false,
            hinted: true,
            asked: 0,
            asked_at: Mono(0),
            again_at: None,
            up: BTreeSet::new(),
            seats: BTreeMap::new(),
            free_since: None,
            ahead: Vec::new(),
            credit: 0,
            kept: 0,
        });
        lane.spec = spec;
        lane.paused = paused;
        lane.removed = false;
        lane.hinted = true;
    }

    fn pause(&mut self, queue: &QueueId, on: bool, running: bool, out: &mut Output) {
        let Some(lane) = self.lanes.get_mut(queue) else {
            return;
        };
        lane.paused = on;
        lane.hinted |= !on;
        let freeze = on && running;
        if lane.frozen == freeze {
            return;
        }
        lane.frozen = freeze;
        let tasks: Vec<TaskId> = lane.seats.values().copied().collect();
        for held in tasks.iter().filter_map(|task| self.held.get(task)) {
            if held.is_working() {
                out.commands.push(Command::Freeze {
                    handle: held.row.handle,
                    on: freeze,
                });
            }
        }
    }

    fn worker(&mut self, queue: &QueueId, worker: u32, up: bool) {
        let Some(lane) = self.lanes.get_mut(queue) else {
            return;
        };
        if up {
            lane.up.insert(worker);
            lane.hinted = true;
        } else {
            lane.up.remove(&worker);
        }
    }

    /// Something becomes runnable at this time.
    fn due(&mut self, now: Now, at: Wall) {
        let at = later(now, at);
        self.upkeep_at = Some(self.upkeep_at.map_or(at, |known| known.min(at)));
    }

    // ── claims ──

    fn claim(&mut self, now: Now, out: &mut Output) {
        for lane in self.lanes.values_mut() {
            if lane.again_at.is_some_and(|at| at <= now.mono) {
                lane.again_at = None;
                lane.hinted = true;
            }
        }
        let mut wanted: BTreeMap<QueueId, u32> = BTreeMap::new();
        for (id, lane) in &self.lanes {
            match self.wanted(lane) {
                0 => {}
                count => drop(wanted.insert(id.clone(), count)),
            }
        }
        self.share(&mut wanted);
        for (queue, count) in wanted {
            let Some(lane) = self.lanes.get_mut(&queue).filter(|_| count > 0) else {
                continue;
            };
            lane.asked = count.min(CLAIM_MAX);
            lane.asked_at = now.mono;
            lane.hinted = false;
            let count = lane.asked;
            out.commands.push(Command::Claim { queue, count });
        }
    }

    /// How many tasks a queue could take.
    fn wanted(&self, lane: &Lane) -> u32 {
        let ending = self.stopping.is_some() && lane.spec.on_stop != OnStop::Drain;
        let held_back = lane.paused || lane.removed || self.drained || ending;
        if !lane.hinted || lane.asked > 0 || lane.again_at.is_some() || held_back {
            return 0;
        }
        // An outcome that cannot be written holds back what would only add to it.
        let stuck = |task: &TaskId| {
            let held = self.held.get(task);
            held.is_some_and(|held| {
                matches!(
                    &held.phase,
                    Phase::Settling {
                        again_at: Some(_),
                        ..
                    }
                )
            })
        };
        if lane.seats.values().any(stuck) {
            return 0;
        }
        let free = lane.free_count();
        // Nobody takes workers of others for later.
        let batch = lane.spec.batch.filter(|_| lane.spec.pool.is_none() && free > 0);
        let ahead = u32::try_from(lane.ahead.len()).unwrap_or(u32::MAX);
        free.max(batch.unwrap_or(0)).saturating_sub(ahead)
    }

    fn claimed(
        &mut self,
        now: Now,
        queue: &QueueId,
        rows: Option<Vec<Claimed>>,
        again_at: Option<Wall>,
        out: &mut Output,
    ) {
        let Some(lane) = self.lanes.get_mut(queue) else {
            return;
        };
        let asked = std::mem::take(&mut lane.asked);
        let Some(rows) = rows else {
            lane.again_at = Some(now.mono.plus(AGAIN));
            return;
        };
        lane.again_at = again_at.map(|at| later(now, at));
        // As many as asked for: there may be more.
        lane.hinted |= rows.len() >= asked as usize;
        if rows.len() < asked as usize {
            (lane.credit, lane.kept) = (0, 0);
        }
        let lease = lane.spec.lease;
        // Rows that are gone have no lease: nobody else can get them.
        let lease_until = match lane.spec.forgets_at_claim() {
            true => Mono(u64::MAX),
            false => lane.asked_at.plus(lease),
        };
        // A store that was cut off may answer when the lease is all but over: then it is given back, and nothing is begun.
        let is_late = lease_until != Mono(u64::MAX) && lease_until.minus(lease / 5) <= now.mono;
        for row in rows {
            let task = row.handle.task;
            self.held.insert(
                task,
                Held {
                    row,
                    seat: u32::MAX,
                    lease_until,
                    timeout_at: None,
                    phase: Phase::Working,
                },
            );
            if is_late {
                self.over(now, task, Outcome::NotHanded, out);
            } else if let Some(lane) = self.lanes.get_mut(queue) {
                lane.ahead.push(task);
            }
        }
        self.hand_out(now, queue, out);
        self.plan_renewal(now);
        if lease_until != Mono(u64::MAX) {
            let third = lease_until.minus(lease / 3 * 2);
            self.renew_at = self.renew_at.map(|at| at.min(third));
        }
    }

    /// Gives claimed tasks to free seats.
    fn hand_out(&mut self, now: Now, queue: &QueueId, out: &mut Output) {
        loop {
            let Some(lane) = self.lanes.get_mut(queue) else {
                return;
            };
            let Some(&task) = lane.ahead.first() else {
                return;
            };
            let Some(held) = self.held.get_mut(&task) else {
                lane.ahead.remove(0);
                continue;
            };
            if let Some(outcome) = impossible(&lane.spec, &held.row) {
                lane.ahead.remove(0);
                self.over(now, task, outcome, out);
                continue;
            }
            let Some(seat) = lane.free_seat() else {
                return;
            };
            lane.ahead.remove(0);
            lane.seats.insert(seat, task);
            held.seat = seat;
            let work = lane.spec.work(held.row.kind.as_deref());
            held.timeout_at = timeout_of(work, &held.row).map(|timeout| now.mono.plus(timeout));
            out.events.push(Event {
                event: "queue.task.started",
                queue: queue.clone(),
                task,
                kind: held.row.kind.clone(),
                attempt: held.row.attempt,
                settlement: None,
                waited: now.wall.since(held.row.runnable),
            });
            let row = held.row.clone();
            out.commands.push(Command::Hand { seat, row });
        }
    }

    // ── ends ──

    fn ended(&mut self, now: Now, handle: Handle, outcome: Outcome, gone: bool, out: &mut Output) {
        let Some(held) = self.current(handle) else {
            return;
        };
        if !held.is_working() {
            return;
        }
        let outcome = match (&held.phase, outcome) {
            // What was said first counts.
            (Phase::Clearing(first), _) => first.clone(),
            (Phase::Ending { .. }, Outcome::Done(result)) => Outcome::Done(result),
            (Phase::Ending { why, .. }, _) => match why {
                Why::Timeout => Outcome::Failed(Failure::of("timeout", "its time was over")),
                Why::Cancelled => Outcome::Cancelled,
                Why::Stopping => Outcome::Interrupted,
                Why::LeaseLost => Outcome::Failed(Failure::of("lease-lost", "its lease ended before it did")),
            },
            (_, outcome) => outcome,
        };
        held.phase = Phase::Clearing(outcome);
        if gone {
            self.gone(now, handle, out);
        } else {
            out.commands.push(Command::Kill(handle));
        }
    }

    fn gone(&mut self, now: Now, handle: Handle, out: &mut Output) {
        let Some(held) = self.current(handle) else {
            return;
        };
        match &held.phase {
            Phase::Clearing(outcome) => {
                let outcome = outcome.clone();
                self.over(now, handle.task, outcome, out);
            }
            Phase::Working | Phase::Ending { .. } => {
                let outcome = Outcome::Crashed(Failure::of("unknown", "ended while nobody could watch"));
                self.ended(now, handle, outcome, true, out);
            }
            Phase::Settling { .. } => {}
        }
    }

    /// Nothing of the worker is left: the seat is free, the store is told.
    fn over(&mut self, now: Now, task: TaskId, outcome: Outcome, out: &mut Output) {
        let Some(held) = self.held.get_mut(&task) else {
            return;
        };
        let queue = held.row.queue.clone();
        let Some(lane) = self.lanes.get_mut(&queue) else {
            return;
        };
        if lane.seats.get(&held.seat) == Some(&task) {
            lane.seats.remove(&held.seat);
        }
        lane.hinted = true;
        let dropped = lane.spec.unknown == Unknown::Drop && is_unknown(&outcome);
        let mut settlement = settle(&lane.spec, &held.row, outcome, now.wall, self.dice.share());
        if dropped {
            settlement.expires = Some(now.wall);
        }
        let forgotten = lane.spec.forgets_at_claim();
        held.timeout_at = None;
        held.phase = Phase::Settling {
            settlement: Box::new(settlement.clone()),
            again_at: None,
        };
        if forgotten {
            // There is no row.
            self.settled(now, settlement.handle, Some(true), out);
        } else {
            out.commands.push(Command::Settle(Box::new(settlement)));
        }
        self.hand_out(now, &queue, out);
    }

    fn settled(&mut self, now: Now, handle: Handle, written: Option<bool>, out: &mut Output) {
        let Some(held) = self.current(handle) else {
            return;
        };
        let Phase::Settling { settlement, again_at } = &mut held.phase else {
            return;
        };
        if written.is_none() {
            *again_at = Some(now.mono.plus(AGAIN));
            return;
        }
        let settlement = settlement.clone();
        let event = match (written, settlement.state) {
            (Some(false), _) => "queue.task.stale",
            (_, TaskState::Done) => "queue.task.done",
            (_, TaskState::Dead) => "queue.task.dead",
            (_, TaskState::Cancelled) => "queue.task.cancelled",
            (_, TaskState::Lost) => "queue.task.lost",
            (_, TaskState::Scheduled | TaskState::Queued | TaskState::Running) => match settlement.outcome {
                "failed" | "crashed" => "queue.task.failed",
                _ => "queue.task.queued",
            },
        };
        let (queue, kind, attempt) = (held.row.queue.clone(), held.row.kind.clone(), held.row.attempt);
        if let Some(at) = settlement
            .run_at
            .filter(|_| settlement.state == TaskState::Scheduled)
        {
            self.due(now, at);
        }
        self.held.remove(&handle.task);
        if let Some(lane) = self.lanes.get_mut(&queue) {
            let back = settlement.state == TaskState::Queued;
            lane.hinted |= back || !lane.spec.throttle.is_none();
        }
        out.events.push(Event {
            event,
            queue: queue.clone(),
            task: handle.task,
            kind,
            attempt,
            settlement: Some(settlement),
            waited: Duration::ZERO,
        });
        self.forget_removed(&queue);
    }

    fn forget_removed(&mut self, queue: &QueueId) {
        let rows = self.held.values().any(|held| held.row.queue == *queue);
        if !rows
            && self
                .lanes
                .get(queue)
                .is_some_and(|lane| lane.removed && lane.asked == 0)
        {
            self.lanes.remove(queue);
        }
    }

    /// The held attempt, if it is this one.
    fn current(&mut self, handle: Handle) -> Option<&mut Held> {
        self.held
            .get_mut(&handle.task)
            .filter(|held| held.row.handle == handle)
    }

    /// Asks the worker of a task to end; what nobody has yet is given back or withdrawn at once.
    fn ask_to_end(&mut self, now: Now, task: TaskId, why: Why, out: &mut Output) {
        let Some(held) = self.held.get_mut(&task) else {
            return;
        };
        let Some(lane) = self.lanes.get_mut(&held.row.queue) else {
            return;
        };
        match held.phase {
            Phase::Working if held.seat == u32::MAX => {
                lane.ahead.retain(|one| *one != task);
                let outcome = match why {
                    Why::Cancelled => Outcome::Cancelled,
                    _ => Outcome::NotHanded,
                };
                return self.over(now, task, outcome, out);
            }
            Phase::Working => {}
            Phase::Ending { .. } if why == Why::LeaseLost => {}
            _ => return,
        }
        let stop = &lane.spec.work(held.row.kind.as_deref()).stop;
        let handle = held.row.handle;
        if why == Why::LeaseLost {
            held.phase = Phase::Ending { why, kill_at: None };
            out.commands.push(Command::Kill(handle));
            return;
        }
        held.phase = Phase::Ending {
            why,
            kill_at: Some(now.mono.plus(stop.timeout)),
        };
        let (signal, to) = (stop.signal, stop.to);
        out.commands.push(Command::Signal { handle, signal, to });
    }
}

impl Lane {
    /// A worker has nothing to do. One that does not come up is not busy either.
    fn has_free(&self) -> bool {
        let works_here = self.spec.is_ours() || self.up.contains(&0);
        works_here && self.seats.len() < self.spec.workers as usize
    }

    /// Where a task could be handed to now.
    fn free_seat(&self) -> Option<u32> {
        (0..self.spec.workers).find(|seat| !self.seats.contains_key(seat) && self.can_take(*seat))
    }

    fn free_count(&self) -> u32 {
        let free =
            (0..self.spec.workers).filter(|seat| !self.seats.contains_key(seat) && self.can_take(*seat));
        u32::try_from(free.count()).unwrap_or(u32::MAX)
    }

    /// The worker of a seat is there: programs are started when they are needed, all others have to say so.
    fn can_take(&self, seat: u32) -> bool {
        if self.spec.resident {
            return self.up.contains(&(seat / self.spec.slots.max(1)));
        }
        self.spec.is_ours() || self.up.contains(&0)
    }
}

/// A task that no worker can do anything with.
fn impossible(spec: &Queue, row: &Claimed) -> Option<Outcome> {
    if row.cancelled {
        return Some(Outcome::Cancelled);
    }
    if u64::try_from(row.payload.len()).unwrap_or(u64::MAX) > spec.max_payload {
        let text = format!(
            "the payload has {} bytes, max_payload is {}",
            row.payload.len(),
            spec.max_payload
        );
        return Some(Outcome::Fatal(Failure::of("bad-arguments", text)));
    }
    if !spec.knows(row.kind.as_deref()) {
        let kind = row.kind.as_deref().unwrap_or_default();
        let text = if kind.is_empty() {
            "a task of no kind, and the queue has work only for kinds".to_owned()
        } else {
            format!("nothing is defined for kind `{kind}`")
        };
        return Some(Outcome::Fatal(Failure::of("unknown-kind", text)));
    }
    None
}

fn is_unknown(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Fatal(failure) if &*failure.kind == "unknown-kind")
}

fn timeout_of(work: &Work, row: &Claimed) -> Option<Duration> {
    row.timeout_ms.map(Duration::from_millis).or(work.timeout)
}

/// A time of the wall on the monotonic clock, as both stand now.
fn later(now: Now, at: Wall) -> Mono {
    let ahead = u64::try_from(at.0.saturating_sub(now.wall.0)).unwrap_or(0);
    now.mono.plus(Duration::from_millis(ahead))
}
