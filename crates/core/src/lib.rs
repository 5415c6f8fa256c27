//! The brain of gaffer: words, resolved specs, state machines and policies.
//!
//! [`Node::handle`] is a function of the clock and its input. Nothing here does I/O, reads a
//! clock, the environment or randomness; iteration order is deterministic.
//!
//! | module | noun |
//! |---|---|
//! | [`name`], [`time`], [`job`], [`io`] | the contract: names, clocks, resolved jobs, inputs and outputs |
//! | `node` | routes; `settle`: what follows from it |
//! | `group` | a job: wishes to wants; `rollout`: one after the other |
//! | `order` | a decision made beforehand: standing orders |
//! | `instance` | a seat and the run in it: the table |
//! | [`retry`] | when and whether again |
//! | [`reason`] | all sentences |
//! | `view` | what people see |
//! | [`task`] | tasks: DAGs of steps with a checkpoint |
//! | [`queue`] | queues: durable backlogs of tasks |
//! | [`schedule`] | schedules: which ticks count, which were missed |

mod group;
mod hub;
mod instance;
pub mod io;
pub mod job;
pub mod name;
mod node;
mod order;
pub mod queue;
pub mod reason;
pub mod retry;
mod rollout;
pub mod schedule;
mod settle;
pub mod signal;
pub mod task;
pub mod time;
mod view;

pub use hub::NodeLimits;
pub use instance::state_table_markdown;
pub use node::Node;
