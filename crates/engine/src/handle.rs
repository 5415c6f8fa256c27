//! The handle: how anything outside talks to the engine. Cheap to clone, usable from any thread.
//!
//! Looking is immediate: it reads an immutable view made under a short lock. Changing is a message to the one
//! owner of the core: the intent is committed to the store first, then fed, and an operation says when
//! the wish has become the state.

use crate::info::*;
use gaffer_config::{Bundle, LoadedJob};
use gaffer_core::job::Scope;
use gaffer_core::name::{JobId, RunId, Slot};
use gaffer_core::time::Duration;

/// Talks to a running engine.
#[derive(Clone)]
pub struct Handle {}

/// Result of the engine.
pub type Result<T> = std::result::Result<T, Error>;

impl Handle {
    /// A job as it is now.
    pub fn job(&self, _job: &JobId) -> Option<JobInfo> {
        None
    }
    /// All jobs, or those of one session, in name order.
    pub fn jobs(&self, _session: Option<&str>) -> Vec<JobInfo> {
        Vec::new()
    }
    /// The definition as in the file (the store's text).
    pub async fn job_typed(&self, job: &JobId) -> Result<serde_json::Value> {
        Err(Error::JobNotFound(job.clone(), None))
    }
    /// Adds or replaces a definition.
    pub async fn job_put(&self, _job: JobId, _loaded: LoadedJob, _options: PutOptions, _by: Actor) -> Result<OperationId> {
        Err(Error::ShuttingDown)
    }
    /// Stops and forgets a job.
    pub async fn job_remove(&self, _job: JobId, _by: Actor) -> Result<OperationId> {
        Err(Error::ShuttingDown)
    }
    /// Start, stop, restart, reload, pause, resume, scale, signal.
    pub async fn act(&self, _target: Target, _act: Act, _by: Actor) -> Result<OperationId> {
        Err(Error::ShuttingDown)
    }
    /// Starts a one-off of a job; its slot is in the operation.
    pub async fn one_off(&self, _job: JobId, _one_off: OneOff, _by: Actor) -> Result<(OperationId, Slot)> {
        Err(Error::ShuttingDown)
    }
    /// An operation; they are remembered for ten minutes after their end.
    pub fn operation(&self, _id: OperationId) -> Option<OperationInfo> {
        None
    }
    /// Waits until the operation is over or `timeout` has passed; gives its state then.
    pub async fn operation_wait(&self, _id: OperationId, _timeout: Duration) -> Option<OperationInfo> {
        None
    }
    /// Stops waiting for it; the wish stays.
    pub fn operation_cancel(&self, _id: OperationId) -> bool {
        false
    }
    /// The newest deaths of a job or instance, newest first.
    pub async fn deaths(&self, _target: &Target, _limit: usize) -> Result<Vec<RunInfo>> {
        Ok(Vec::new())
    }
    /// A run, live or from the history.
    pub async fn run(&self, run: RunId) -> Result<RunInfo> {
        Err(Error::RunNotFound(run.to_string()))
    }
    /// Runs whose id text begins so (at most 10).
    pub async fn runs_by_prefix(&self, _prefix: &str) -> Result<Vec<RunId>> {
        Ok(Vec::new())
    }
    /// Sends a signal to a live run.
    pub async fn run_signal(&self, run: RunId, _signal: i32, _to: Scope) -> Result<()> {
        Err(Error::RunNotFound(run.to_string()))
    }
    /// Writes to stdin or a two-way stream of a live run. Returns when the pipe took all bytes.
    pub async fn run_input(&self, run: RunId, _stream: &str, _data: Vec<u8>, _eof: bool) -> Result<()> {
        Err(Error::RunNotFound(run.to_string()))
    }
    /// Tells the run's terminal its size.
    pub async fn run_resize(&self, run: RunId, _cols: u16, _rows: u16) -> Result<()> {
        Err(Error::RunNotFound(run.to_string()))
    }
    /// Samples a live run now; `cpu_percent` is since the previous sample by anyone.
    pub async fn run_stats(&self, run: RunId) -> Result<RunStats> {
        Err(Error::RunNotFound(run.to_string()))
    }
    /// Opens a stream of a slot: one growing sequence of bytes over all its runs.
    pub fn log(&self, _slot: &Slot, _stream: &str) -> Result<crate::logs::LogReader> {
        Err(Error::ShuttingDown)
    }
    /// The event log: read from a cursor, wait for more.
    pub fn events(&self) -> crate::events::EventLog {
        crate::events::EventLog {}
    }
    /// What applying would do.
    pub async fn plan(&self, _bundle: &Bundle, _options: &ApplyOptions) -> Result<PlanInfo> {
        Err(Error::ShuttingDown)
    }
    /// Does it, in one transaction; the operation ends when all touched jobs have settled.
    pub async fn apply(&self, _bundle: Bundle, _options: ApplyOptions, _by: Actor) -> Result<(PlanInfo, OperationId)> {
        Err(Error::ShuttingDown)
    }
    /// About this node.
    pub fn node(&self) -> NodeInfo {
        unreachable!()
    }
    /// For `/metrics`.
    pub fn counters(&self) -> Counters {
        Counters::default()
    }
    /// Orderly end: stops jobs in reverse order, save `keep_running` ones unless `all`; with `leave` nothing is stopped.
    /// Returns when done (or after `within`).
    pub async fn shutdown(&self, _all: bool, _leave: bool, _by: Actor) {}
    /// Resolves when the engine ended by itself (`essential` job, shutdown): the exit code of the node.
    pub async fn ended(&self) -> i32 {
        0
    }
}
