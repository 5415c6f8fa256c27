//! The one that looks at the clock. It is a client of the engine: it pushes, starts and restarts like anybody else.

use super::alarm::Alarm;
use super::defined::{AllDefined, ScheduleDefined};
use super::handle::Triggered;
use crate::clock;
use crate::handle::{Handle, Result};
use crate::info::{Actor, Error, Event};
use crate::owner::lock;
use crate::queue::{Home, OWN};
use crate::state::State;
use gaffer_core::io::Reason;
use gaffer_core::name::JobId;
use gaffer_core::schedule::{Does, Look, Seen, Skipped, look};
use gaffer_core::time::{Duration, Wall};
use gaffer_queue::Numbered;
use gaffer_queue::numbers::StoreNumber;
use gaffer_queue::port::{Answer, Request, Tick};
use gaffer_queue::rows::ScheduleRow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// A store that failed is asked again after this; so is what a tick waits for.
const AGAIN: Duration = Duration::from_millis(500);

/// What the service is asked for.
pub(crate) enum Order {
    /// Definitions have changed.
    Look,
    /// Another node may have changed what is in this store.
    Reread(StoreNumber),
    /// Act now, whatever the clock says.
    Trigger(JobId, Actor, oneshot::Sender<Result<Triggered>>),
    /// Pause, or go on.
    Pause(JobId, bool, Actor, oneshot::Sender<Result<()>>),
}

/// The store that a schedule is kept in: that of the queue that it pushes to, so that a tick and its task are one; else the node's own.
fn home_of(state: &State, id: &JobId) -> StoreNumber {
    let defined = state.schedules.defined.get(id);
    match defined.map(|defined| &defined.loaded.spec.does) {
        Some(Does::Push { queue, .. }) => state.queues.homes.number_of(queue),
        _ => OWN,
    }
}

/// Stores that schedules are kept in.
pub(crate) fn stores(state: &State) -> BTreeSet<StoreNumber> {
    let ids = state.schedules.defined.keys();
    ids.map(|id| home_of(state, id)).collect()
}

/// Name of a schedule in a store: in one that nodes share, each node has schedules of its own, and those of the fleet are everybody's.
fn key_of(state: &State, store: StoreNumber, name: &str) -> String {
    let defined = JobId::parse(name)
        .ok()
        .and_then(|id| state.schedules.defined.get(&id));
    let is_fleet = defined.is_some_and(|defined| defined.loaded.spec.fleet);
    match is_shared(state, store) && !is_fleet {
        true => format!("{}/{name}", state.node_id),
        false => name.to_owned(),
    }
}

/// Other nodes may be in it.
fn is_shared(state: &State, store: StoreNumber) -> bool {
    state.queues.homes.get(store).is_some_and(Home::is_shared)
}

/// The schedules of a node.
#[derive(Default)]
pub(crate) struct Schedules {
    pub defined: AllDefined,
    /// How far each is, as it is in its store; only of stores that have been read.
    rows: BTreeMap<StoreNumber, BTreeMap<String, ScheduleRow>>,
    orders: Option<mpsc::UnboundedSender<Order>>,
}

impl Schedules {
    /// What files define is known, nothing is looked at yet.
    pub fn new(defined: AllDefined) -> Schedules {
        Schedules {
            defined,
            ..Schedules::default()
        }
    }

    /// Nothing is looked at any more.
    pub fn stop(&mut self) {
        self.orders = None;
    }

    /// False: there is nobody to hear of it.
    pub fn order(&self, order: Order) -> bool {
        let orders = self.orders.as_ref();
        orders.is_some_and(|orders| orders.send(order).is_ok())
    }
}

/// How far a schedule is; none: its store has not been read.
pub(super) fn row_of(state: &State, id: &JobId) -> Option<ScheduleRow> {
    let rows = state.schedules.rows.get(&home_of(state, id))?;
    rows.get(&id.to_string()).cloned()
}

/// Looks at the clock from now on.
pub(crate) fn begin(handle: &Handle) -> tokio::task::JoinHandle<()> {
    let (tx, orders) = mpsc::unbounded_channel();
    lock(&handle.state).schedules.orders = Some(tx);
    tokio::spawn(lead(handle.clone(), orders))
}

/// Each store has a service of its own: one that does not answer holds back its own schedules only.
async fn lead(handle: Handle, mut orders: mpsc::UnboundedReceiver<Order>) {
    let mut services: BTreeMap<StoreNumber, mpsc::UnboundedSender<Order>> = BTreeMap::new();
    // They end with this one.
    let mut running = JoinSet::new();
    let mut order = Some(Order::Look);
    while let Some(next) = order {
        for store in stores(&lock(&handle.state)) {
            services
                .entry(store)
                .or_insert_with(|| start(&handle, store, &mut running));
        }
        let to = match &next {
            Order::Look => None,
            Order::Reread(store) => Some(*store),
            Order::Trigger(id, ..) | Order::Pause(id, ..) => Some(home_of(&lock(&handle.state), id)),
        };
        // Whoever is not there is asked nothing; who waits for an answer hears that.
        match to {
            Some(store) => {
                let _nobody = services.get(&store).map(|service| service.send(next));
            }
            None => services.values().for_each(|service| {
                let _ended = service.send(Order::Look);
            }),
        }
        order = orders.recv().await;
    }
    drop(services);
    // What is under way is finished.
    while running.join_next().await.is_some() {}
}

fn start(handle: &Handle, store: StoreNumber, running: &mut JoinSet<()>) -> mpsc::UnboundedSender<Order> {
    let (tx, orders) = mpsc::unbounded_channel();
    let handle = handle.clone();
    running.spawn(async move {
        match Alarm::new() {
            Ok(alarm) => {
                let service = Service {
                    handle,
                    store,
                    due: BTreeMap::new(),
                };
                service.serve(alarm, orders).await;
            }
            Err(error) => tracing::error!(%error, "there is no timer: schedules do nothing"),
        }
    });
    tx
}

/// Leads the schedules that are kept in a store.
pub(super) struct Service {
    pub handle: Handle,
    store: StoreNumber,
    /// Ticks that came in time, and that a store or a queue could not take yet.
    due: BTreeMap<JobId, VecDeque<Wall>>,
}

/// What became of a tick.
pub(super) enum Fired {
    /// It was acted upon.
    Done(Triggered),
    /// It was given up: why, in a word and a sentence.
    Skipped(&'static str, String),
    /// It waits for the end of the one before it.
    Waits,
    /// Somebody else dealt with it.
    Elsewhere,
}

impl Service {
    async fn serve(mut self, alarm: Alarm, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            let next = self.pass().await;
            tokio::select! {
                order = orders.recv() => match order {
                    None => return,
                    Some(order) => self.order(order).await,
                },
                () = alarm.wait(next) => {}
            }
        }
    }

    async fn order(&mut self, order: Order) {
        match order {
            Order::Look => {}
            Order::Reread(_) => {
                if self.is_read()
                    && let Err(error) = self.read_rows().await
                {
                    tracing::debug!(%error, "schedules are read again when the store is back");
                }
            }
            Order::Trigger(id, by, answer) => {
                let refused = lock(&self.handle.state).refuse_drained();
                let _gone = answer.send(match refused {
                    Ok(()) => self.trigger(&id, by).await,
                    Err(error) => Err(error),
                });
            }
            Order::Pause(id, on, by, answer) => {
                let _gone = answer.send(self.pause(&id, on, by).await);
            }
        }
    }

    /// Schedules that are kept in this store.
    fn defined(&self) -> AllDefined {
        let state = lock(&self.handle.state);
        let all = state.schedules.defined.iter();
        all.filter(|(id, _)| home_of(&state, id) == self.store)
            .map(|(id, defined)| (id.clone(), defined.clone()))
            .collect()
    }

    fn is_read(&self) -> bool {
        lock(&self.handle.state).schedules.rows.contains_key(&self.store)
    }

    pub(super) async fn open_store(&self) -> Result<Numbered> {
        self.handle.store_soon(self.store).await
    }

    fn find(&self, id: &JobId) -> Result<ScheduleDefined> {
        let found = lock(&self.handle.state).schedules.defined.get(id).cloned();
        found.ok_or_else(|| Error::ScheduleNotFound(format!("no schedule {id}")))
    }

    /// Looks at all schedules and does what is due. When to look again.
    async fn pass(&mut self) -> Option<Wall> {
        let defined = self.defined();
        // A drained node does nothing by itself: whoever undoes that has the schedules looked at.
        if lock(&self.handle.state).drain.is_some() {
            return None;
        }
        if defined.is_empty() && !self.is_read() {
            return None;
        }
        let again = Some(clock::wall().plus(AGAIN));
        if let Err(error) = self.read(&defined).await {
            tracing::debug!(%error, "schedules wait for the store");
            return again;
        }
        let mut next: Option<Wall> = None;
        for (id, defined) in &defined {
            let one = match self.one(id, defined).await {
                Ok(one) => one,
                Err(error) => {
                    tracing::warn!(schedule = %id, %error, "a schedule cannot go on; it is tried again");
                    again
                }
            };
            next = next.into_iter().chain(one).min();
        }
        next
    }

    /// Rows of all schedules, the first time; new ones get theirs, those of schedules that are gone go.
    async fn read(&mut self, defined: &AllDefined) -> Result<()> {
        if !self.is_read() {
            self.read_rows().await?;
        }
        let rows = || {
            let state = lock(&self.handle.state);
            let rows = state.schedules.rows.get(&self.store);
            rows.cloned().unwrap_or_default()
        };
        let mut known = rows();
        if defined.keys().any(|id| !known.contains_key(&id.to_string())) {
            // Another node may have begun it.
            self.read_rows().await?;
            known = rows();
        }
        let is_defined = |name: &String| defined.keys().any(|id| id.to_string() == **name);
        for name in known.keys().filter(|name| !is_defined(name)) {
            // One of the fleet that this node keeps elsewhere now may be here for others.
            let is_ours = {
                let state = lock(&self.handle.state);
                !is_shared(&state, self.store) || key_of(&state, self.store, name) != *name
            };
            match is_ours {
                true => self.put(name, None).await?,
                false => self.note(name, None),
            }
        }
        self.due.retain(|id, _| defined.contains_key(id));
        for (id, defined) in defined {
            if !known.contains_key(&id.to_string()) {
                let now = clock::wall();
                let row = ScheduleRow {
                    seen: now,
                    // Whole seconds read better.
                    anchor: Wall(now.0 - now.0.rem_euclid(1_000)),
                    paused: !defined.loaded.spec.start,
                    ..ScheduleRow::default()
                };
                self.put(&id.to_string(), Some(row)).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn read_rows(&self) -> Result<()> {
        let store = self.open_store().await?;
        let Answer::Schedules(rows) = store.get(Request::Schedules).await? else {
            return Err(Error::Store("the queue store answered something else".to_owned()));
        };
        let mut state = lock(&self.handle.state);
        let rows = rows.into_iter().filter_map(|(key, row)| {
            let name = key.split_once('/').map_or(key.as_str(), |(_, name)| name);
            (key_of(&state, self.store, name) == key).then(|| (name.to_owned(), row))
        });
        let rows = rows.collect();
        state.schedules.rows.insert(self.store, rows);
        Ok(())
    }

    /// Writes how far a schedule is; none: it is gone.
    pub(super) async fn put(&self, name: &str, row: Option<ScheduleRow>) -> Result<()> {
        let store = self.open_store().await?;
        let (key, is_shared, old) = {
            let state = lock(&self.handle.state);
            let rows = state.schedules.rows.get(&self.store);
            let old = rows.and_then(|rows| rows.get(name).cloned());
            let key = key_of(&state, self.store, name);
            let is_shared = is_shared(&state, self.store) && key == name;
            (key, is_shared, old)
        };
        match row.clone().filter(|_| is_shared) {
            None => drop(store.get(Request::Schedule(key.into(), row.clone())).await?),
            Some(new) => {
                let step = Tick {
                    schedule: key.into(),
                    known: old.as_ref().map_or(new.seen, |old| old.seen),
                    duplicate: new.clone(),
                    row: new,
                    push: None,
                    now: clock::wall(),
                };
                if store.get(Request::Tick(Box::new(step))).await? == Answer::Ticked(None) {
                    self.read_rows().await?;
                    return match old {
                        None => Ok(()),
                        Some(_) => Err(Error::WrongState(format!(
                            "another node changed schedule {name} at the same moment: try again"
                        ))),
                    };
                }
            }
        }
        self.note(name, row);
        Ok(())
    }

    /// Name of a schedule in the store.
    pub(super) fn key(&self, id: &JobId) -> String {
        key_of(&lock(&self.handle.state), self.store, &id.to_string())
    }

    /// Takes note of what is in the store.
    pub(super) fn note(&self, name: &str, row: Option<ScheduleRow>) {
        let mut state = lock(&self.handle.state);
        let rows = state.schedules.rows.entry(self.store).or_default();
        match row {
            Some(row) => rows.insert(name.to_owned(), row),
            None => rows.remove(name),
        };
    }

    pub(super) fn row(&self, id: &JobId) -> ScheduleRow {
        let state = lock(&self.handle.state);
        let rows = state.schedules.rows.get(&self.store);
        rows.and_then(|rows| rows.get(&id.to_string()).cloned())
            .unwrap_or_default()
    }

    /// One schedule: what it does now, and when to look again.
    async fn one(&mut self, id: &JobId, defined: &ScheduleDefined) -> Result<Option<Wall>> {
        let row = self.row(id);
        if row.paused {
            return Ok(None);
        }
        let now = clock::wall();
        if let Some(tick) = row.waiting {
            self.act(id, defined, tick, Mode::Waited).await?;
        }
        if self.due.get(id).is_none_or(VecDeque::is_empty) {
            self.look(id, defined, now).await?;
        }
        while let Some(tick) = self.due.get(id).and_then(|due| due.front().copied()) {
            self.act(id, defined, tick, Mode::Due).await?;
            self.due.entry(id.clone()).or_default().pop_front();
        }
        let row = self.row(id);
        let next = self.ticks(id, defined, &row, now).next;
        let waits = row.waiting.map(|_| now.plus(AGAIN));
        Ok(next.into_iter().chain(waits).min())
    }

    /// What the core says of the ticks up to now. Nodes have shares of a jitter of their own.
    fn ticks(&self, id: &JobId, defined: &ScheduleDefined, row: &ScheduleRow, now: Wall) -> Look {
        let seen = Seen {
            tick: row.seen,
            awake: row.awake,
        };
        let name = format!("{}:{id}", lock(&self.handle.state).node_id);
        let calendar = defined.loaded.calendar.from(row.anchor);
        look(&name, &defined.loaded.spec, &calendar, seen, now)
    }

    /// Finds ticks that have come. What is missed is given up.
    async fn look(&mut self, id: &JobId, defined: &ScheduleDefined, now: Wall) -> Result<()> {
        let mut row = self.row(id);
        let found = self.ticks(id, defined, &row, now);
        if let Some(skipped) = found.skipped {
            let note = missed(&skipped, defined);
            // Before anything is done: they are older than that.
            row.seen = skipped.last;
            row.note = Some(note.clone());
            self.put(&id.to_string(), Some(row)).await?;
            self.tell_skipped(id, &skipped, "missed", note, None);
        } else if found.fire.is_empty() && found.seen != row.seen {
            row.seen = found.seen;
            self.put(&id.to_string(), Some(row)).await?;
        }
        if !found.fire.is_empty() {
            self.due.insert(id.clone(), found.fire.into());
        }
        Ok(())
    }

    /// Acts upon a tick and tells what came of it. An error: it is to be tried again.
    async fn act(&self, id: &JobId, defined: &ScheduleDefined, tick: Wall, mode: Mode) -> Result<()> {
        let by: Actor = format!("schedule {id}").into();
        match self.fire(id, defined, tick, mode, &by).await? {
            Fired::Done(done) => self.tell_fired(id, tick, &done, by),
            Fired::Skipped(code, why) => {
                let one = Skipped {
                    count: 1,
                    first: tick,
                    last: tick,
                };
                self.tell_skipped(id, &one, code, why, Some(by));
            }
            Fired::Waits | Fired::Elsewhere => {}
        }
        Ok(())
    }

    async fn trigger(&mut self, id: &JobId, by: Actor) -> Result<Triggered> {
        let defined = self.find(id)?;
        self.read(&self.defined()).await?;
        self.read_rows().await?;
        let now = clock::wall();
        match self.fire(id, &defined, now, Mode::Asked, &by).await? {
            Fired::Done(done) => {
                self.tell_fired(id, now, &done, by);
                Ok(done)
            }
            Fired::Skipped(_, why) => Err(Error::WrongState(why)),
            Fired::Waits => Ok(Triggered {
                became: None,
                waits: true,
            }),
            Fired::Elsewhere => Err(Error::WrongState("somebody else was faster".to_owned())),
        }
    }

    async fn pause(&mut self, id: &JobId, on: bool, by: Actor) -> Result<()> {
        self.find(id)?;
        self.read(&self.defined()).await?;
        self.read_rows().await?;
        let mut row = self.row(id);
        if row.paused == on {
            return Ok(());
        }
        let now = clock::wall();
        row.paused = on;
        if !on {
            row.awake = Some(now);
        }
        (row.changed, row.changed_by) = (Some(now), by.to_string());
        self.put(&id.to_string(), Some(row)).await?;
        let event = if on { "schedule.paused" } else { "schedule.resumed" };
        self.tell(id, event, None, Some(by), Vec::new());
        Ok(())
    }

    fn tell(
        &self,
        id: &JobId,
        event: &'static str,
        reason: Option<Reason>,
        by: Option<Actor>,
        mut data: Vec<(&'static str, String)>,
    ) {
        data.insert(0, ("schedule", id.to_string()));
        lock(&self.handle.state).tell(Event {
            event,
            job: None,
            slot: None,
            run: None,
            by,
            reason,
            data,
        });
    }

    fn tell_fired(&self, id: &JobId, tick: Wall, done: &Triggered, by: Actor) {
        let mut data = vec![("tick", text(tick))];
        data.extend(done.became.clone().map(|became| ("became", became)));
        self.tell(id, "schedule.fired", None, Some(by), data);
    }

    fn tell_skipped(
        &self,
        id: &JobId,
        skipped: &Skipped,
        code: &'static str,
        why: String,
        by: Option<Actor>,
    ) {
        let reason = Reason {
            code,
            text: why.into(),
        };
        let data = vec![
            ("count", skipped.count.to_string()),
            ("first", text(skipped.first)),
            ("last", text(skipped.last)),
        ];
        self.tell(id, "schedule.skipped", Some(reason), by, data);
    }
}

/// Why a tick is acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Its time has come.
    Due,
    /// What it waited for may be over.
    Waited,
    /// Somebody asked for it.
    Asked,
}

/// An instant in UTC: `2026-11-27T02:30:00Z`.
pub(super) fn text(at: Wall) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| at.0.to_string(), |at| at.to_string())
}

fn missed(skipped: &Skipped, defined: &ScheduleDefined) -> String {
    let local = |at| defined.loaded.calendar.local(at);
    match skipped.count {
        1 => format!("missed {}", local(skipped.first)),
        count => format!(
            "missed {count}, {} to {}",
            local(skipped.first),
            local(skipped.last)
        ),
    }
}
