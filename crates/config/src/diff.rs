//! What differs between two definitions of a job, key by key, with the effect of each change.

use crate::config::LoadedJob;

/// One key that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `env.LOG`, `instances`, `stop.timeout`.
    pub path: String,
    /// As written in the file; none: not set before.
    pub old: Option<String>,
    /// As written in the file; none: not set any more.
    pub new: Option<String>,
    /// What it takes.
    pub class: ChangeClass,
}

/// When a change counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeClass {
    /// Running processes keep running.
    Live,
    /// From the next start of a run.
    NextStart,
    /// The job is reloaded.
    Reload,
    /// Next start of the daemon.
    Daemon,
}

/// Changed keys in the order of the reference.
pub fn diff(old: &LoadedJob, new: &LoadedJob) -> Vec<Change> {
    let _ = (old, new);
    Vec::new()
}
