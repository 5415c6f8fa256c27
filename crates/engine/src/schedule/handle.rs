//! How anything outside looks at schedules, pauses and triggers them.

use super::service::{Order, Service, row_of};
use crate::clock;
use crate::handle::{Handle, Result};
use crate::info::{Actor, Error};
use crate::owner::lock;
use gaffer_config::LoadedSchedule;
use gaffer_core::name::JobId;
use gaffer_core::time::Wall;
use gaffer_queue::rows::ScheduleRow;
use tokio::sync::oneshot;

/// A schedule, as it is.
#[derive(Clone, Debug)]
pub struct ScheduleInfo {
    /// What it is.
    pub loaded: LoadedSchedule,
    /// File that it came from.
    pub file: String,
    /// How far it is; none: the store has not been read yet.
    pub row: Option<ScheduleRow>,
    /// Its next tick; none: it is paused, or there is none.
    pub next: Option<Wall>,
    /// What its last tick began goes on.
    pub active: bool,
}

/// What came of acting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Triggered {
    /// `task:ID`, the number of a queued task, or an operation.
    pub became: Option<String>,
    /// It waits for the end of the one before it.
    pub waits: bool,
}

impl Handle {
    fn schedule_defined(&self, id: &JobId) -> Result<super::ScheduleDefined> {
        let state = lock(&self.state);
        if let Some(found) = state.schedules.defined.get(id) {
            return Ok(found.clone());
        }
        let names: Vec<String> = state.schedules.defined.keys().map(ToString::to_string).collect();
        let near = gaffer_config::nearest(&id.to_string(), names.iter().map(String::as_str));
        let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        Err(Error::ScheduleNotFound(format!(
            "no schedule `{}` in session {}{hint}",
            id.job, id.session
        )))
    }

    /// All schedules, in the order of their names.
    pub async fn schedules(&self) -> Vec<ScheduleInfo> {
        let ids: Vec<JobId> = lock(&self.state).schedules.defined.keys().cloned().collect();
        let mut all = Vec::with_capacity(ids.len());
        for id in ids {
            all.extend(self.schedule(&id).await);
        }
        all
    }

    /// One schedule.
    pub async fn schedule(&self, id: &JobId) -> Result<ScheduleInfo> {
        let defined = self.schedule_defined(id)?;
        let row = row_of(&lock(&self.state), id);
        let next = match &row {
            Some(row) if !row.paused => defined
                .loaded
                .calendar
                .next(row.anchor, row.seen.max(clock::wall())),
            _ => None,
        };
        let became = row.as_ref().and_then(|row| row.became.as_deref());
        let active = match became {
            Some(became) => Service::is_active(self, became).await,
            None => false,
        };
        Ok(ScheduleInfo {
            loaded: defined.loaded,
            file: defined.file,
            row,
            next,
            active,
        })
    }

    /// Its next ticks after a time.
    pub fn schedule_next(&self, id: &JobId, from: Option<Wall>, count: usize) -> Result<Vec<Wall>> {
        let calendar = self.schedule_defined(id)?.loaded.calendar;
        let anchor = row_of(&lock(&self.state), id).map(|row| row.anchor);
        let now = clock::wall();
        let mut after = from.unwrap_or(now);
        let mut all = Vec::new();
        while all.len() < count {
            let Some(tick) = calendar.next(anchor.unwrap_or(now), after) else {
                break;
            };
            all.push(tick);
            after = tick;
        }
        Ok(all)
    }

    /// Acts now, whatever the clock says, and also while it is paused. Its next tick stays what it was.
    pub async fn schedule_trigger(&self, id: &JobId, by: Actor) -> Result<Triggered> {
        self.schedule_defined(id)?;
        let (tx, rx) = oneshot::channel();
        self.schedule_order(Order::Trigger(id.clone(), by, tx))?;
        rx.await.map_err(|_| Error::ShuttingDown)?
    }

    /// Holds a schedule back, also over a restart, or lets it go on. It is in the store when this returns.
    pub async fn schedule_pause(&self, id: &JobId, on: bool, by: Actor) -> Result<()> {
        self.schedule_defined(id)?;
        let (tx, rx) = oneshot::channel();
        self.schedule_order(Order::Pause(id.clone(), on, by, tx))?;
        rx.await.map_err(|_| Error::ShuttingDown)?
    }

    fn schedule_order(&self, order: Order) -> Result<()> {
        match lock(&self.state).schedules.order(order) {
            true => Ok(()),
            false => Err(Error::ShuttingDown),
        }
    }
}
