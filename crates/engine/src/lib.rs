//! The engine of gaffer: launches programs, keeps them alive, and survives being killed.
//!
//! A program that embeds it needs a few lines and no configuration:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let gaffer = gaffer::Gaffer::temporary()?;
//! gaffer.job("worker").cmd(["sleep", "60"]).instances(3).start()?;
//! assert_eq!(gaffer.running("worker")?, 3);
//! gaffer.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! A durable queue in a program, worked off by a function of it:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use serde_json::json;
//! use std::time::Duration;
//!
//! let gaffer = gaffer::Gaffer::temporary()?;
//! gaffer.apply("[queue.mail]\nworkers = 8\nkeep.result = \"1h\"")?;
//! let mail = gaffer.queue("mail")?;
//! mail.handler(|task| async move {
//!     let to = task.payload["to"].as_str().unwrap_or("nobody").to_owned();
//!     Ok(json!({ "sent": to }))
//! })?;
//! let id = mail.push(json!({ "to": "ana" }))?;
//! let outcome = mail.wait(id, Duration::from_secs(10))?.expect("it has ended");
//! assert_eq!(outcome.result.as_deref(), Some("{\"sent\":\"ana\"}"));
//! gaffer.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! What an engine is made of:
//!
//! | module | holds |
//! |---|---|
//! | [`store`] | what people asked for and what was settled: one SQLite file, one writer |
//! | `recovery` | lock, store, epoch, walk the shims, read the journals, adopt |
//! | `owner`, `state` | the one task that owns the core, and all that it owns |
//! | `requests`, `acts`, [`operations`](info::OperationInfo) | intent: checked, committed, fed; and has it come about? |
//! | `containment`, `limits` | where the groups of runs are, and what says their limits there |
//! | `shims`, `facts` | connections to the shims; journals folded to one picture per run |
//! | [`logs`], [`events`] | read from a cursor, wait for more |
//!
//! *Invariant:* intent is committed before the core sees it; facts are in a journal before anyone is told.
//! *Invariant:* nothing awaits between an input of the core and doing its output.

mod acts;
mod budget;
pub mod clock;
mod containment;
mod defined;
mod definitions;
mod drain;
mod embed;
mod engine;
pub mod events;
mod facts;
mod halt;
pub mod handle;
pub mod info;
mod launch;
mod limits;
pub mod logs;
mod mask;
mod notify;
mod operations;
pub mod outbox;
mod owner;
mod pids;
mod plan;
mod previous;
mod probes;
pub mod queue;
mod ready;
mod recovery;
mod refresh;
mod requests;
mod scarce;
pub mod schedule;
mod settings;
mod settle;
mod shims;
mod state;
mod stats;
pub mod store;
pub mod task;
mod tree;
mod watch;

pub use acts::{INSTANCES_MAX, TARGETS_MAX};
pub use containment::Containment;
pub use definitions::Definitions;
pub use embed::{EmbedError, Gaffer, JobBuilder, QueueRef};
pub use engine::{Engine, OpenError};
pub use gaffer_config::LogsTotal;
pub use gaffer_shim::limit::{SHIM_RESERVE, raise as raise_open_files};
pub use gaffer_shim::memory::give_back;
pub use gaffer_shim::stream::ReadAt;
pub use handle::Handle;
pub use settings::{Grouping, Settings, TasksLed, Tuning};
pub use settle::cause_word;
