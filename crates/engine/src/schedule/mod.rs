//! Schedules: calendars and intervals that push to queues, start tasks and act on jobs.
//!
//! | module | noun |
//! |---|---|
//! | `defined` | schedules that files define |
//! | `service` | the one that looks at the clock: a client of the engine like any other |
//! | `fire` | what a tick does |
//! | `alarm` | wakes at a time of the wall, and when somebody sets it |
//! | `handle` | how anything outside looks, pauses, triggers |
//!
//! Which ticks count is said by `gaffer_core::schedule`, when they come by `gaffer_config::Calendar`. How far a schedule is, is in the store
//! of the queues. A tick that pushes is in one transaction with its task: it is done once, whenever anything is killed. A tick that starts a task
//! names its run by the tick, so that a second start finds the first. A tick that acts on a job is noted after it acted: a kill in between
//! acts twice.

mod alarm;
mod defined;
mod fire;
mod handle;
mod service;

pub use defined::ScheduleDefined;
pub(crate) use defined::from_rows;
pub use handle::{ScheduleInfo, Triggered};
pub(crate) use service::{Order, Schedules, begin, stores};
