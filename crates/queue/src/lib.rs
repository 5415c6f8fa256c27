//! Stores of queues: one port, SQLite and PostgreSQL behind it.
//!
//! A store keeps tasks and changes them as it is told; it decides nothing. What an attempt becomes is a
//! [`Settlement`] of `gaffer_core::queue`, and a store writes it only if the attempt is the newest of a running task. All
//! times are milliseconds since the epoch.
//!
//! | module | noun |
//! |---|---|
//! | [`numbers`] | numbers of tasks where a node has several stores |
//! | [`outbox`] | tasks that a program keeps in its own SQLite file, moved in exactly once |
//! | [`port`] | requests and answers: what every store can do |
//! | [`rows`] | what people are shown of a task, a queue, a schedule |
//! | [`postgres`] | a database that many nodes share |
//! | [`sqlite`] | a file of one node; one thread writes, and everything that comes while it writes is its next transaction |
//!
//! [`Settlement`]: gaffer_core::queue::task::Settlement

pub mod numbers;
pub mod outbox;
pub mod port;
pub mod postgres;
pub mod rows;
pub mod sqlite;
mod watch;

pub use numbers::Numbered;
pub use port::{Answer, Request, Store, StoreError};
