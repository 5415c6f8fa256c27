//! Tests of the core from outside: transcripts that an operator can read, policies in virtual time, every
//! order of commands.

mod bench;
mod hazards;
mod interleavings;
mod names;
mod orders;
mod recovery;
mod retry;
mod rollouts;
mod states;
mod stops;
mod tasks;
mod transcripts;
