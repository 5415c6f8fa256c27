//! Queues: durable backlogs of tasks, worked off by runs of this node, by handlers in this process, or by others over HTTP.
//!
//! | module | noun |
//! |---|---|
//! | `defined` | queues that files define |
//! | `service` | the queues of a node: the machine's commands carried out, facts given to it |
//! | `stores` | the stores of the node, a machine for each; what goes to which |
//! | `opening` | stores, opened when they are first needed; recovery |
//! | `worker` | from a claimed task to a run, and from its end to an outcome |
//! | `resident` | workers that are kept and fed |
//! | `vigil` | whether they are ready, and well |
//! | `listen` | what they say |
//! | `push` | from what a caller says to a task of the store |
//! | `output` | which part of a seat's output is whose |
//! | `redact` | what is not shown of payloads |
//! | `outbox` | tasks that applications keep in files of their own |
//! | `handler` | functions of this process |
//! | `dag` | runs of tasks of steps |
//! | `stats` | what queues did |
//! | `alerts` | what an operator should know |
//! | `scale` | how many workers an operator wants |
//! | `claims` | workers that are not ours |
//! | `handle` | how anything outside pushes, looks and changes |
//!
//! The machine is `gaffer_core::queue::dispatch`, the store is `gaffer_queue`. A worker is a run of a shim in slot
//! `queue:SESSION.QUEUE/SEAT`; its stamp says which attempt of which task it works on. What becomes of it is in its journal like that of any
//! run: a daemon that was killed finds living workers and adopts them, and takes over how dead ones ended.

mod alerts;
mod claims;
mod dag;
mod defined;
mod handle;
mod handler;
mod listen;
mod opening;
mod outbox;
mod output;
mod push;
mod redact;
mod resident;
mod scale;
pub(crate) mod service;
mod stats;
mod stores;
mod vigil;
mod worker;

pub use claims::Lease;
pub(crate) use dag::runner;
pub use defined::QueueDefined;
pub(crate) use defined::from_rows;
pub use handle::{NewPush, QueueInfo, QueueSelf, QueueVerb, TaskOutcome};
pub use handler::{Handled, HandlerError, QueueTask};
pub(crate) use opening::of_worker;
pub use output::{Part, Parts, Seat};
pub(crate) use push::task_of;
pub(crate) use scale::scaled_from;
pub use stats::{BOUNDS, Latencies, QueueStats};
pub(crate) use stores::{Home, Homes, OWN};
