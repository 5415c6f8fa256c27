//! Draining a node: it takes nothing new, works off what it has, then stops its jobs and stays so until it is undone.
//!
//! First its tasks: queues claim nothing, schedules do nothing, what asks for something new is refused. What runs goes on,
//! and jobs are kept running meanwhile, as tasks may need them. When no task is left, or the time is over (then tasks of
//! queues are ended and given back, others are killed), all jobs are told to stop, in the order of an orderly end. Wishes
//! stay as they are: undone, they count again.
//!
//! That a node is drained, and that its jobs are to stop, are facts of the store before anything follows from them. So a
//! daemon that is killed in between goes on where it was, and one that starts on a drained node starts nothing.

use crate::clock;
use crate::handle::{Handle, Result};
use crate::info::{Actor, DrainInfo, Error, Event};
use crate::owner::{Message, lock};
use crate::requests::{Effect, Prepared, Request};
use crate::state::State;
use crate::store::{Change, DrainRow};
use gaffer_core::io::Input;
use gaffer_core::queue::dispatch;
use gaffer_core::time::{Duration, Mono, Wall};

/// A node that is drained, or being drained.
pub(crate) struct Draining {
    pub row: DrainRow,
    /// Until then tasks may go on.
    deadline: Option<Mono>,
    /// The time is over, and tasks were told.
    released: bool,
    /// The store is asked to note that jobs are to stop.
    asked: bool,
    /// Nothing runs any more.
    over: bool,
}

impl Draining {
    pub fn new(row: DrainRow) -> Draining {
        // The deadline is a wall time in the store only: from here on a clock that is set changes nothing.
        let left = |at: i64| u64::try_from(at.saturating_sub(clock::wall().0)).unwrap_or(0);
        let deadline = row
            .deadline
            .map(|at| clock::mono().plus(Duration::from_millis(left(at))));
        Draining {
            row,
            deadline,
            released: false,
            asked: false,
            over: false,
        }
    }

    fn by(&self) -> Actor {
        format!("{} (drain)", self.row.by).into()
    }
}

impl State {
    /// When tasks of a node that is being drained have to be ended.
    pub fn drain_deadline(&self) -> Option<Mono> {
        let draining = self.drain.as_ref()?;
        draining
            .deadline
            .filter(|_| !draining.released && !draining.row.stops)
    }

    /// A daemon that starts on a drained node: said before recovery is over, so that nothing begins.
    pub fn drain_as_found(&mut self) {
        let Some(draining) = &self.drain else { return };
        let (stop, by) = (draining.row.stops, draining.by());
        self.feed_queue(dispatch::Input::Drain(true));
        self.feed(Input::Drain { stop, by });
    }

    /// Refuses what would be something new.
    pub fn refuse_drained(&self) -> Result<()> {
        match &self.drain {
            None => Ok(()),
            Some(draining) => Err(Error::WrongState(format!(
                "the node is drained by {}: it takes nothing new until `gaffer node drain --undo`",
                draining.row.by
            ))),
        }
    }

    pub(crate) fn prepare_drain(&self, prepared: &mut Prepared, deadline: Option<Duration>, by: &Actor) {
        prepared.verb = "drain";
        let now = clock::wall();
        let known = self.drain.as_ref().map(|draining| &draining.row);
        if known.is_some() && deadline.is_none() {
            return;
        }
        let row = DrainRow {
            by: by.to_string(),
            since: known.map_or(now.0, |row| row.since),
            deadline: deadline.map(|deadline| now.plus(deadline).0),
            stops: known.is_some_and(|row| row.stops),
        };
        let effect = Effect::Drain {
            row: Some(row.clone()),
            by: by.clone(),
        };
        prepared.define(effect, Change::Drain(Some(row)));
    }

    pub(crate) fn prepare_undrain(&self, prepared: &mut Prepared, by: Actor) {
        prepared.verb = "undrain";
        if self.drain.is_some() {
            prepared.define(Effect::Drain { row: None, by }, Change::Drain(None));
        }
    }

    /// The store knows it.
    pub fn drained_as_asked(&mut self, row: Option<DrainRow>, who: Actor) {
        let Some(row) = row else {
            if self.drain.take().is_some() {
                self.queues.reopen_residents();
                self.feed(Input::Undrain);
                self.feed_queue(dispatch::Input::Drain(false));
                self.tend_residents();
                let _nobody = self.schedules.order(crate::schedule::Order::Look);
                self.tell_drain("node.opened", who);
            }
            return;
        };
        let over = self.drain.as_ref().is_some_and(|draining| draining.over);
        let draining = Draining {
            over,
            ..Draining::new(row)
        };
        let (stop, by) = (draining.row.stops, draining.by());
        self.drain = Some(draining);
        self.feed_queue(dispatch::Input::Drain(true));
        self.feed(Input::Drain { stop, by });
        self.tell_drain("node.closed", who);
    }

    /// Goes on with draining, as far as it is.
    pub fn drain_on(&mut self) {
        let Some(draining) = &mut self.drain else { return };
        if draining.row.stops || draining.asked {
            return;
        }
        let late = draining.deadline.is_some_and(|at| at <= clock::mono());
        if late && !draining.released {
            draining.released = true;
            self.end_drained_tasks();
        }
        if !self.queues.is_idle(late) || !self.tasks.is_idle() {
            return;
        }
        self.queues.close_for_good();
        self.tend_residents();
        if self.queues.has_residents() {
            return;
        }
        let Some(draining) = &mut self.drain else { return };
        draining.asked = true;
        let row = DrainRow {
            stops: true,
            ..draining.row.clone()
        };
        let outcome = self.store.begin_commit(vec![Change::Drain(Some(row))]);
        let owner = self.owner.clone();
        tokio::spawn(async move {
            let stored = outcome.await.is_ok_and(|outcome| outcome.is_ok());
            let _ended = owner.send(Message::DrainStops(stored));
        });
    }

    /// The time is over: tasks of queues are given back, others are killed.
    fn end_drained_tasks(&mut self) {
        self.feed_queue(dispatch::Input::Release);
        self.kill_tasks(false, "killed by the deadline of the node's drain");
    }

    /// The store knows that jobs are to stop, or could not be told.
    pub fn drain_stops(&mut self, stored: bool) {
        let Some(draining) = &mut self.drain else { return };
        draining.asked = false;
        if !stored || draining.row.stops {
            return;
        }
        draining.row.stops = true;
        let by = draining.by();
        self.feed(Input::Drain { stop: true, by });
    }

    /// No job runs any more.
    pub fn drain_over(&mut self) {
        let Some(draining) = &mut self.drain else { return };
        draining.over = true;
        let by: Actor = draining.row.by.as_str().into();
        self.tell_drain("node.drained", by);
    }

    fn tell_drain(&mut self, event: &'static str, by: Actor) {
        self.tell(Event {
            event,
            job: None,
            slot: None,
            run: None,
            by: Some(by),
            reason: None,
            data: Vec::new(),
        });
    }

    /// As it is shown.
    pub fn drain_info(&self) -> Option<DrainInfo> {
        let draining = self.drain.as_ref()?;
        Some(DrainInfo {
            by: draining.row.by.as_str().into(),
            since: Wall(draining.row.since),
            deadline: draining.row.deadline.map(Wall),
            tasks: self.tasks.active_count() + self.queues.busy_count(),
            stops: draining.row.stops,
            over: draining.over,
        })
    }
}

impl Handle {
    /// Drains the node: see the module. Once more changes the deadline.
    pub async fn drain(&self, deadline: Option<Duration>, by: Actor) -> Result<()> {
        self.ask(Request::Drain { deadline, by }).await.map(drop)
    }

    /// What is wished counts again.
    pub async fn undrain(&self, by: Actor) -> Result<()> {
        self.ask(Request::Undrain { by }).await.map(drop)
    }

    /// Refuses what would be something new on a node that is drained.
    pub fn refuse_drained(&self) -> Result<()> {
        lock(&self.state).refuse_drained()
    }

    /// Resolves when the node is drained, or not to be any more.
    pub async fn drained(&self) {
        let events = self.events();
        loop {
            let seen = events.newest();
            let going_on = lock(&self.state)
                .drain
                .as_ref()
                .is_some_and(|draining| !draining.over);
            if !going_on {
                return;
            }
            events.wait(seen).await;
        }
    }
}
