//! Stores of queues: each is opened when it is first needed, on a thread of its own; then recovery of what is in it.

use super::service::{QueueNews, Worker};
use crate::clock;
use crate::facts::RunFacts;
use crate::owner::Message;
use crate::state::State;
use gaffer_core::name::JobId;
use gaffer_core::queue::dispatch::Input;
use gaffer_core::queue::outcome::Outcome;
use gaffer_core::queue::spec::{By, QueueId};
use gaffer_core::queue::task::{Claimed, Failure, Handle};
use gaffer_queue::numbers::{StoreNumber, store_of};
use gaffer_queue::port::{Answer, Request};
use gaffer_queue::postgres::{Postgres, Rung};
use gaffer_queue::rows::Mode;
use gaffer_queue::sqlite::Sqlite;
use gaffer_queue::{Numbered, Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc;

/// Pause before a store that could not be opened is tried again.
const OPEN_AGAIN: Duration = Duration::from_secs(1);
/// Rows that are over are looked for so often.
const PRUNE_EVERY: Duration = Duration::from_secs(20);
/// Rows removed at once.
const PRUNE: u32 = 1_000;

/// Slot of a seat.
pub(super) fn slot(queue: &QueueId, seat: u32) -> String {
    format!("queue:{queue}/{}", seat + 1)
}

/// Slot of a resident worker.
pub(super) fn resident_slot(queue: &QueueId, n: u32) -> String {
    format!("queue:{queue}/r{}", n + 1)
}

/// Queue and place of the slot of a resident worker.
pub(super) fn of_resident_slot(slot: &str) -> Option<(QueueId, u32)> {
    let (queue, n) = slot.strip_prefix("queue:")?.split_once("/r")?;
    let n: u32 = n.parse().ok()?;
    Some((JobId::parse(queue).ok()?, n.checked_sub(1)?))
}

/// Queue and seat of a slot.
pub(super) fn of_slot(slot: &str) -> Option<(QueueId, u32)> {
    let (queue, seat) = slot.strip_prefix("queue:")?.split_once('/')?;
    let seat: u32 = seat.parse().ok()?;
    Some((JobId::parse(queue).ok()?, seat.checked_sub(1)?))
}

/// The queue of a worker's slot.
pub(crate) fn of_worker(slot: &str) -> Option<QueueId> {
    let resident = of_resident_slot(slot).map(|(queue, _)| queue);
    resident.or_else(|| of_slot(slot).map(|(queue, _)| queue))
}

fn handle_of(facts: &RunFacts) -> Handle {
    Handle {
        task: facts.stamp[0].cast_signed(),
        token: facts.stamp[1],
    }
}

/// The store of the task that a worker has.
fn home_of(facts: &RunFacts) -> StoreNumber {
    store_of(handle_of(facts).task)
}

impl State {
    /// Takes charge of the queues, if there are any, or workers of an earlier daemon.
    pub fn resume_queues(&mut self) {
        self.end_unled();
        self.open_queue_stores();
    }

    /// Workers whose store no queue names any more: nobody could renew their leases or write what they did.
    fn end_unled(&mut self) {
        let homes = &self.queues.homes;
        let unled = |_: &String, (facts, _): &mut (Box<RunFacts>, bool)| homes.get(home_of(facts)).is_none();
        let unled: Vec<_> = self.queues.found.extract_if(.., unled).collect();
        for (slot, (facts, _)) in unled {
            let (run, handle) = (facts.run, handle_of(&facts));
            tracing::warn!(%run, slot, task = handle.task, "no queue names the store of this worker's task any more; it is ended");
            self.kill_tree(run);
            if facts.is_over() || facts.gone {
                self.drop_stranger(run, handle);
            }
        }
    }

    /// Opens the stores that something here needs: a queue, a schedule, a worker of an earlier daemon.
    pub fn open_queue_stores(&mut self) {
        let queues = &self.queues;
        let mut needed: BTreeSet<StoreNumber> =
            queues.found.values().map(|(facts, _)| home_of(facts)).collect();
        needed.extend(queues.defined.keys().map(|queue| queues.homes.number_of(queue)));
        let residents = queues.residents.found.iter();
        needed.extend(residents.map(|(queue, ..)| queues.homes.number_of(queue)));
        needed.extend(crate::schedule::stores(self));
        for number in needed {
            self.open_queue_store(number);
        }
    }

    /// Opens a store, unless it is open or being opened.
    pub(super) fn open_queue_store(&mut self, number: StoreNumber) {
        let Some(home) = self.queues.homes.get_mut(number) else {
            return;
        };
        if home.store.is_some() || home.opening {
            return;
        }
        home.opening = true;
        let url = home.url.clone();
        let (owner, bell) = (self.owner.clone(), self.owner.clone());
        if let Some(url) = url {
            tokio::spawn(open_database(number, url, owner, bell));
            return;
        }
        let path = self.settings.state_dir.join("queue.db");
        let ring = move || {
            let _ended = bell.send(Message::Queue(QueueNews::At(number, Input::Hint(None))));
        };
        let open = move || {
            let opened = Sqlite::open(&path, Box::new(ring)).map(Store::Sqlite);
            let _ended = owner.send(Message::Queue(QueueNews::Opened(number, opened)));
        };
        tokio::task::spawn_blocking(open);
    }

    pub(super) fn queue_store_opened(&mut self, number: StoreNumber, opened: Result<Store, StoreError>) {
        let owner = self.owner.clone();
        let is_drained = self.drain.is_some();
        let Some(home) = self.queues.homes.get_mut(number) else {
            return;
        };
        let store = match opened {
            Ok(store) => Numbered::new(store, number),
            Err(error) => {
                tracing::error!(store = %home.name, %error, "a store of the queues cannot be opened; it is tried again");
                home.failed = Some(error);
                tokio::spawn(async move {
                    tokio::time::sleep(OPEN_AGAIN).await;
                    let _ended = owner.send(Message::Queue(QueueNews::OpenAgain(number)));
                });
                return;
            }
        };
        if self.queues.then_shutdown.is_some() {
            // The node ends: nothing is begun any more.
            return store.end();
        }
        home.failed = None;
        home.store = Some(store.clone());
        if is_drained {
            self.feed_store(number, Input::Drain(true));
        }
        let (node, me) = (format!("{}:", self.node_id), self.queues.owner.clone());
        tokio::spawn(async move {
            loop {
                let modes = store.get(Request::Modes).await;
                let request = Request::Orphans {
                    node: node.as_str().into(),
                    owner: me.clone(),
                };
                let orphans = store.get(request).await;
                if let (Ok(Answer::Modes(modes)), Ok(Answer::Orphans(orphans))) = (modes, orphans) {
                    let _ended = owner.send(Message::Queue(QueueNews::Ready(number, modes, orphans)));
                    break;
                }
                tokio::time::sleep(OPEN_AGAIN).await;
            }
            upkeep(&store, &owner).await;
        });
    }

    /// An operator said something on another node, or this one was cut off for a while: modes, ends that were asked for and schedules
    /// are looked up.
    pub(super) fn told_elsewhere(&mut self, number: StoreNumber) {
        self.feed_store(number, Input::Renew);
        self.schedules.order(crate::schedule::Order::Reread(number));
        let home = self.queues.homes.get(number);
        let Some(store) = home.and_then(|home| home.store.clone()) else {
            return;
        };
        let homes = self.queues.defined.keys();
        let here: BTreeSet<QueueId> = homes
            .filter(|queue| self.queues.homes.number_of(queue) == number)
            .cloned()
            .collect();
        let (owner, known) = (self.owner.clone(), self.queues.modes.clone());
        tokio::spawn(async move {
            let Ok(Answer::Modes(modes)) = store.get(Request::Modes).await else {
                // The bell rings again when the store is back.
                return;
            };
            for (queue, mode) in modes {
                let (Ok(id), true) = (JobId::parse(&queue), known.get(&queue) != Some(&mode)) else {
                    continue;
                };
                // Queues that have their tasks elsewhere may have left something here.
                if !here.contains(&id) {
                    continue;
                }
                let _ended = owner.send(Message::Queue(QueueNews::Mode(id, mode)));
            }
        });
    }

    /// Recovery met the slot of a worker. One that lives is followed from now on.
    pub fn note_queue_run(&mut self, slot: &str, facts: RunFacts, dead_shim: bool) {
        let run = facts.run;
        self.queues.seats.insert(slot.to_owned(), run);
        self.note_part_found(&facts);
        if let Some((queue, n)) = of_resident_slot(slot) {
            let mut facts = Box::new(facts);
            facts.gone |= dead_shim;
            self.runs.runs.insert(run, facts.clone());
            self.queues.residents.by_run.insert(run, (queue.clone(), n));
            self.queues.residents.found.push((queue, n, facts, dead_shim));
            return;
        }
        let Some((queue, seat)) = of_slot(slot) else {
            return;
        };
        let handle = handle_of(&facts);
        let mut facts = Box::new(facts);
        // Everything of a dead shim has been ended.
        facts.gone |= dead_shim;
        self.queues.runs.insert(run, Worker { handle, queue, seat });
        self.queues.by_task.insert(handle.task, run);
        self.runs.runs.insert(run, facts.clone());
        self.queues.found.insert(slot.to_owned(), (facts, dead_shim));
    }

    /// Everything is there: workers that live are adopted, the others' ends are taken over, and claims begin.
    pub(super) fn queues_ready(
        &mut self,
        number: StoreNumber,
        modes: BTreeMap<String, Mode>,
        orphans: Vec<Claimed>,
    ) {
        let Some(home) = self.queues.homes.get_mut(number) else {
            return;
        };
        home.known = true;
        let homes = &self.queues.homes;
        let is_here =
            |queue: &String| JobId::parse(queue).is_ok_and(|queue| homes.number_of(&queue) == number);
        let modes = modes.into_iter().filter(|(queue, _)| is_here(queue));
        self.queues.modes.extend(modes);
        self.residents_found(number, &orphans);
        self.put_queues();
        let moved = self.put_moved(number, &orphans);
        let here = |_: &String, (facts, _): &mut (Box<RunFacts>, bool)| home_of(facts) == number;
        let found: BTreeMap<_, _> = self.queues.found.extract_if(.., here).collect();
        for (slot, (facts, dead_shim)) in &found {
            let Some((queue, seat)) = of_slot(slot) else {
                continue;
            };
            // What happened since it was read is known, too.
            let now = self.runs.runs.get(&facts.run).cloned();
            let facts = now.unwrap_or_else(|| facts.clone());
            let kind = orphans.iter().find(|row| row.handle == handle_of(&facts));
            let kind = kind.and_then(|row| row.kind.clone());
            let ended = self.worker_found(&queue, kind.as_deref(), &facts, *dead_shim);
            if ended.is_some() && !facts.is_over() && !dead_shim {
                // Its main process ended, something of its tree is left.
                self.kill_tree(facts.run);
            }
            let handle = handle_of(&facts);
            self.feed_queue(Input::Found {
                queue,
                seat,
                handle,
                ended,
            });
        }
        let unled = self.lead_dags(&orphans);
        self.feed_store(number, Input::Orphans(orphans));
        for queue in moved {
            self.feed_store(number, Input::Removed(queue));
        }
        unled.into_iter().for_each(|ended| self.feed_queue(ended));
        self.strangers(number, &found);
        self.feed_store(number, Input::Recovered);
    }

    /// Queues whose tasks are in another store by now, and that had some at work in this one: those are led to their end here, and nothing
    /// else is claimed.
    fn put_moved(&mut self, number: StoreNumber, orphans: &[Claimed]) -> BTreeSet<QueueId> {
        let homes = &self.queues.homes;
        let moved = orphans.iter().map(|row| &row.queue);
        let moved: BTreeSet<QueueId> = moved
            .filter(|queue| homes.number_of(queue) != number)
            .cloned()
            .collect();
        for queue in &moved {
            if let Some(spec) = self.queues.spec(queue).cloned() {
                let put = Input::Put {
                    queue: queue.clone(),
                    spec,
                    paused: true,
                };
                self.feed_store(number, put);
            }
        }
        moved
    }

    /// Queued tasks whose work is a run of a task of steps keep their claims: such a run is led again, wherever it is.
    /// Those that cannot be led have ended.
    fn lead_dags(&mut self, orphans: &[Claimed]) -> Vec<Input> {
        let mut unled = Vec::new();
        let mut seats: BTreeMap<QueueId, u32> = BTreeMap::new();
        for row in orphans {
            let spec = self.queues.spec(&row.queue);
            let is_dag = spec.is_some_and(|spec| matches!(spec.work(row.kind.as_deref()).by, By::Task(_)));
            if !is_dag {
                continue;
            }
            let seat = seats.entry(row.queue.clone()).or_default();
            let found = Input::Found {
                queue: row.queue.clone(),
                seat: *seat,
                handle: row.handle,
                ended: None,
            };
            *seat += 1;
            self.feed_queue(found);
            // Before the machine hears of the row: it may have been withdrawn, and then its run is to end.
            if let Err(outcome) = self.hand(0, row.clone()) {
                unled.push(super::service::ended(row.handle, outcome, true));
            }
        }
        unled
    }

    /// How a worker of an earlier daemon ended; none: it lives.
    fn worker_found(
        &self,
        queue: &QueueId,
        kind: Option<&str>,
        facts: &RunFacts,
        dead_shim: bool,
    ) -> Option<Outcome> {
        if let Some(failed) = &facts.failed {
            let text = crate::launch::start_failure(&failed.stage, failed.errno, &failed.text);
            return Some(Outcome::Failed(Failure::of("start-failed", text)));
        }
        if let Some(end) = facts.end() {
            let spec = self.queues.spec(queue);
            return Some(match spec {
                Some(spec) => {
                    super::worker::outcome_of(spec, kind, facts, &end, &self.settings.logs_dir(), queue)
                }
                None => Outcome::NotHanded,
            });
        }
        match (facts.born, dead_shim || facts.gone) {
            (false, true) => Some(Outcome::NotHanded),
            (true, true) => Some(Outcome::Crashed(Failure::of(
                "unknown",
                "ended while nobody could watch",
            ))),
            (_, false) => None,
        }
    }

    /// Workers that no row knows. Rows that went away with their claim leave them: those go on. All others work on what somebody else
    /// has by now.
    fn strangers(&mut self, number: StoreNumber, found: &BTreeMap<String, (Box<RunFacts>, bool)>) {
        let Some(home) = self.queues.homes.get_mut(number) else {
            return;
        };
        for (handle, queue, seat) in home.dispatch.strangers() {
            let Some(run) = self.queues.by_task.get(&handle.task).copied() else {
                continue;
            };
            let forgets = self
                .queues
                .spec(&queue)
                .is_some_and(|spec| spec.forgets_at_claim());
            let home = self.queues.homes.get_mut(number);
            if let Some(home) = home.filter(|_| forgets) {
                home.dispatch.adopt_forgotten(forgotten(handle, queue), seat);
            } else {
                tracing::warn!(%run, task = handle.task, "the task of this worker is not its own any more; it is ended");
                self.kill_tree(run);
            }
        }
        // What is over and belongs to nobody is done with.
        for (facts, _) in found.values() {
            let run = facts.run;
            let handle = handle_of(facts);
            let over = self
                .runs
                .runs
                .get(&run)
                .is_none_or(|facts| facts.is_over() || facts.shim == 0);
            if over {
                self.drop_stranger(run, handle);
            }
        }
    }
}

/// All that is left of a task whose row went away with its claim: its worker.
fn forgotten(handle: Handle, queue: QueueId) -> Claimed {
    let now = clock::wall();
    Claimed {
        handle,
        queue,
        kind: None,
        payload: "null".into(),
        meta: None,
        attempt: 1,
        attempts_max: None,
        crashes: 0,
        interrupts: 0,
        timeout_ms: None,
        created: now,
        runnable: now,
        cancelled: false,
        owner: "".into(),
    }
}

/// What other nodes do is heard as long as this one lives.
async fn open_database(
    number: StoreNumber,
    url: String,
    owner: mpsc::UnboundedSender<Message>,
    bell: mpsc::UnboundedSender<Message>,
) {
    let ring = move |rung| {
        if rung == Rung::Told {
            let _ended = bell.send(Message::Queue(QueueNews::Told(number)));
        }
        let _ended = bell.send(Message::Queue(QueueNews::At(number, Input::Hint(None))));
    };
    let opened = Postgres::open(&url, Box::new(ring)).await.map(Store::Postgres);
    let _ended = owner.send(Message::Queue(QueueNews::Opened(number, opened)));
}

/// Removes what is over, now and then.
async fn upkeep(store: &Numbered, owner: &mpsc::UnboundedSender<Message>) {
    loop {
        tokio::time::sleep(PRUNE_EVERY).await;
        let _ended = owner.send(Message::Queue(QueueNews::Minute));
        loop {
            match store.get(Request::Prune(clock::wall(), PRUNE)).await {
                Ok(Answer::Purged(count)) if count >= PRUNE => {}
                Err(StoreError::Unavailable(why)) if why == "it is closed" => return,
                _ => break,
            }
        }
    }
}
