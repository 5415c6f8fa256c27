//! Tasks: work that runs to its end, as a DAG of steps with a checkpoint.
//!
//! The truth about a task is one sequence of [`record::Record`]s, its *runner stream*. [`fold::History`] folds
//! them; nothing else is state, so a task that is rebuilt from its stream equals the one that wrote it. A
//! [`runner::Runner`] decides: it returns records first and commands second, and commands may only be carried out once the
//! records are durable.
//!
//! | module | noun |
//! |---|---|
//! | [`spec`] | a task as the machines see it: resolved steps, and what makes a graph invalid |
//! | [`record`] | records and the two tables of states |
//! | [`fold`] | the history: a pure fold over records |
//! | [`plan`] | what may run next: dependencies, attempts, pauses, slots |
//! | [`runner`] | stages of a task, from the first step to the last finalizer |
//!
//! The behaviour is that of the task model of Apache Aurora's Thermos (its *process* is our *step*), with conditions,
//! backoff, outputs and timeouts beside it.

pub mod fold;
pub mod plan;
pub mod record;
pub mod runner;
pub mod spec;
