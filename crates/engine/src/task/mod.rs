//! Tasks: work that runs to its end, led by this node and kept by its checkpoint.
//!
//! | module | noun |
//! |---|---|
//! | [`layout`] | a checkpoint root: which files a task has, which tasks a root has |
//! | [`stream`] | the runner stream: appended durably, read whole or as it grows |
//! | [`wire`] | records as bytes |
//! | `definition` | a task as its file has it, and as the machines need it |
//! | `defined` | tasks that files define, run by their name |
//! | `latest` | newest runs of tasks that something waits for; what starts by itself |
//! | `desk` | the thread that writes records, so that nobody waits for a disk |
//! | `service` | the tasks of a node: facts in, records first, then commands |
//! | [`output`] | what a run wrote, by the names under which people look for it |
//! | `outputs` | declared outputs: the file that a program is given, and what it says at the end |
//! | `launch` | from a step to a shim's `Spawn` |
//! | `lead` | taking charge of a task that is on disk, whole or not |
//! | `retry` | a task that runs a part of a finished one again |
//! | `gc` | removing tasks that are over |
//! | `keep` | runs that are over go by themselves |
//! | `space` | the disk that a task may take |
//! | `handle` | how anything outside starts, watches and ends tasks |
//!
//! The machine is `gaffer_core::task::runner`. What it returns goes to the desk; when its records are durable the
//! commands come back to the owner and are carried out, in order. Facts about a task's runs come from the journals of
//! shims like those of jobs: a run belongs to a task by its slot, `task:<id>/<step>`.

mod defined;
mod definition;
mod desk;
mod gc;
mod handle;
mod keep;
mod latest;
mod launch;
pub mod layout;
mod lead;
mod lifecycle;
pub mod output;
mod outputs;
mod retry;
pub(crate) mod service;
mod space;
pub mod stream;
pub mod wire;

pub(crate) use defined::from_rows;
pub use defined::{AllDefined, Defined};
pub use definition::{Definition, DefinitionError, Native};
pub use gc::{Collect, Collected};
pub(crate) use handle::run_id;
pub use handle::{NewTask, Retry, TaskInfo, TaskKill};
pub(crate) use latest::{LatestChanges, changes as latest_rows};

/// Starts what is wanted, removes what is over and stamps what is led, until the engine is gone.
pub(crate) fn begin(handle: &crate::handle::Handle) -> tokio::task::JoinHandle<()> {
    keep::begin(&handle.state);
    keep::begin_stamps(&handle.state);
    space::begin(&handle.state);
    latest::begin(handle)
}
