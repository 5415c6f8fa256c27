//! The brain of gaffer: words, resolved specs, state machines and policies.
//!
//! [`Node::handle`] is a function of the clock and its input. Nothing here does I/O, reads a
//! clock, the environment or randomness; iteration order is deterministic.

pub mod io;
pub mod job;
pub mod name;
pub mod time;
