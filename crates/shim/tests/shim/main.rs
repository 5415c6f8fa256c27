//! The shim as a process: started, asked, killed.

mod basics;
mod harness;
mod leftovers;
mod orders;
mod output;
mod protocol;
mod spawning;
mod watching;
