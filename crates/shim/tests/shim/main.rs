//! The shim as a process: started, asked, killed.

mod basics;
mod harness;
