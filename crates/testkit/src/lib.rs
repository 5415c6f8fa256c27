//! What tests and benchmarks of gaffer share: real nodes with real processes, and hand-made programs.
//!
//! - [`Node`] is a real `gafferd` on a state directory of its own; whatever it started is gone when it is dropped.
//! - The program `gaffer-fixture` (`src/bin`) behaves badly on request.
//! - [`sim`] is the real core in a fake world, from a seed.
//! - [`elf`] writes the smallest program there is.
//! - [`Terminal`] is a person in front of a command: what they see, and what they type.
//! - [`http`] is a blocking client, so that a test needs no runtime; [`process`] asks `/proc` who is who.

pub mod chaos;
pub mod elf;
pub mod http;
mod lookupd;
pub mod node;
pub mod postgres;
pub mod process;
pub mod sim;
pub mod ssh;
mod terminal;
mod wait;

pub use lookupd::{Lookupd, Proxy};
pub use node::{Builder, Node};
pub use terminal::Terminal;
pub use wait::{wait_for, wait_until};
