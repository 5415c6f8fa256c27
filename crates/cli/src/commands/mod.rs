//! The commands, a file for each group of them.

pub mod access;
pub mod act;
pub mod apply;
pub mod chaos;
pub mod convert;
pub mod daemon;
pub mod dial;
pub mod doctor;
pub mod events;
pub mod job;
pub mod logs;
pub mod lookup;
pub mod node;
pub mod ps;
pub mod queue;
mod queue_logs;
mod queue_look;
mod queue_stats;
pub mod run;
pub mod scale;
pub mod schedule;
pub mod shell;
pub mod talk;
pub mod task;
pub mod wait;
pub mod webhook;
pub mod why;
