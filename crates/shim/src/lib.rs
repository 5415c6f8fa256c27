//! `gaffer-shim`: the process beside the children, and its file and wire formats.
//!
//! The library half is what a daemon needs: [`frame`] and [`message`] (what is said), [`journal`] and
//! [`stream`] (what is written), [`client`] (how a shim is started, found and reached), [`clone`] (how a process is made), [`limit`] (how many files may
//! be open) and [`identity`] (what makes a process the same process). The binary half is everything else: mechanism, no policy.
//!
//! The shim knows nothing of jobs, restarts or configuration. A *slot* and a *label* are opaque text.

pub mod client;
pub mod clone;
pub mod frame;
pub mod identity;
pub mod journal;
pub mod limit;
pub mod memory;
pub mod message;
pub mod stream;
