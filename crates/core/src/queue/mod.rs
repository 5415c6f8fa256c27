//! Queues: durable backlogs of tasks with a delivery guarantee.
//!
//! | module | noun |
//! |---|---|
//! | [`spec`] | a queue, fully resolved |
//! | [`schema`] | what a payload has to look like |
//! | [`task`] | a queued task, as stores and machines hand it to each other |
//! | [`outcome`] | what a worker says, and what follows from it: the policy |
//! | [`alert`] | what an operator should know |
//! | [`vigil`] | readiness and health of a resident worker |
//! | [`dispatch`] | the machine of a node: claims, hands out, renews, settles |
//!
//! A store is outside and does what [`dispatch::Command`]s say; what it answers is an input again. Every change of a task that
//! is held carries its [`task::Handle`], which names one attempt: a store refuses one that is not the newest.

pub mod alert;
pub mod dispatch;
pub mod outcome;
pub mod schema;
pub mod spec;
pub mod task;
pub mod vigil;
