//! The engine in another program, in a few lines: blocking calls, a runtime of its own, no configuration object.

use crate::engine::{Engine, OpenError};
use crate::handle::Handle;
use crate::info::{
    Act, Actor, ApplyOptions, ApplySource, Error, OperationId, OperationInfo, OperationState, PutOptions,
    Target,
};
use crate::queue::{Handled, HandlerError, NewPush, QueueTask, TaskOutcome};
use crate::settings::Settings;
use gaffer_core::io::State;
use gaffer_core::name::JobId;
use gaffer_core::queue::task::TaskId;
use gaffer_core::time::Duration;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// What goes wrong in an embedded engine.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A request is refused.
    #[error(transparent)]
    Engine(#[from] Error),
    /// No runtime, no temporary directory.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// What was asked for did not come about.
    #[error("{0}")]
    Failed(String),
    /// What a handler said that was called inline.
    #[error("{0}")]
    Handler(HandlerError),
}

/// An engine of one's own. Dropping it stops everything that it started.
pub struct Gaffer {
    runtime: Option<tokio::runtime::Runtime>,
    engine: Option<Engine>,
    handle: Handle,
    temporary: Option<PathBuf>,
}

fn me() -> Actor {
    "this program".into()
}

impl Gaffer {
    /// Keeps its state in a fresh directory, which goes with it. If this program is killed, so are the jobs.
    pub fn temporary() -> Result<Gaffer, EmbedError> {
        let base = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let unique = format!("gaffer-{}-{}", std::process::id(), crate::clock::mono().0);
        let dir = base.join(unique);
        let mut settings = Settings::new(&dir);
        settings.leash = Some(Duration::from_secs(10));
        let mut gaffer = Gaffer::open(settings)?;
        gaffer.temporary = Some(dir);
        Ok(gaffer)
    }

    /// Opens an engine with a lasting state directory: what it started is adopted again by the next one.
    pub fn open(settings: Settings) -> Result<Gaffer, EmbedError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let engine = runtime.block_on(Engine::open(settings))?;
        let handle = engine.handle();
        Ok(Gaffer {
            runtime: Some(runtime),
            engine: Some(engine),
            handle,
            temporary: None,
        })
    }

    /// Everything else that an engine can do.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Describes a job; `start` makes it so.
    pub fn job(&self, name: &str) -> JobBuilder<'_> {
        JobBuilder {
            gaffer: self,
            name: name.to_owned(),
            spec: Map::new(),
        }
    }

    /// Defines what the text of a `gaffer.toml` says: jobs, queues, tasks, schedules. What an earlier text had and this one has not, goes.
    pub fn apply(&self, text: &str) -> Result<(), EmbedError> {
        let root = std::env::current_dir()?.join("gaffer.toml");
        let bundle = gaffer_config::Bundle {
            files: [(root.clone(), text.to_owned())].into(),
            root,
            ..gaffer_config::Bundle::default()
        };
        let source = ApplySource::Files(Box::new(bundle));
        let applied = self.handle.apply(source, ApplyOptions::default(), me());
        let (_, operation) = self.block(applied)?;
        self.wait(operation)
    }

    /// A queue that a text defines.
    pub fn queue(&self, name: &str) -> Result<QueueRef<'_>, EmbedError> {
        Ok(QueueRef {
            gaffer: self,
            id: job_id(name)?,
        })
    }

    /// How many instances of a job run (and are ready, if it says how to tell).
    pub fn running(&self, job: &str) -> Result<usize, EmbedError> {
        let id = job_id(job)?;
        let info = self.handle.job(&id).ok_or_else(|| self.handle.no_job(&id))?;
        Ok(info
            .view
            .instances
            .iter()
            .filter(|one| one.state == State::Running)
            .count())
    }

    /// Changes the number of instances and waits until it is so.
    pub fn scale(&self, job: &str, instances: u32) -> Result<(), EmbedError> {
        let act = Act::Scale {
            to: crate::info::ScaleTo::Set(instances),
            force: false,
        };
        let target = Target {
            job: job_id(job)?,
            instance: None,
        };
        self.wait(self.block(self.handle.act(target, act, me()))?)
    }

    /// Stops everything and ends the engine.
    pub fn stop(mut self) -> Result<(), EmbedError> {
        self.end();
        Ok(())
    }

    fn block<T>(&self, future: impl Future<Output = T>) -> T {
        match &self.runtime {
            Some(runtime) => runtime.block_on(future),
            // Only `end` takes the runtime, and nothing is called after it.
            None => unreachable!("the engine has ended"),
        }
    }

    fn wait(&self, operation: OperationId) -> Result<(), EmbedError> {
        let minute = Duration::from_secs(60);
        match self.block(self.handle.operation_wait(operation, minute)) {
            Some(OperationInfo {
                state: OperationState::Failed,
                reason,
                ..
            }) => Err(EmbedError::Failed(reason.map_or_else(
                || "it failed".to_owned(),
                |reason| reason.text.to_string(),
            ))),
            Some(OperationInfo {
                state: OperationState::Pending,
                ..
            }) => Err(EmbedError::Failed("not done within a minute".to_owned())),
            _ => Ok(()),
        }
    }

    fn end(&mut self) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        runtime.block_on(self.handle.shutdown(true, false, me()));
        drop(self.engine.take());
        runtime.shutdown_timeout(Duration::from_secs(1));
        if let Some(dir) = self.temporary.take() {
            // A shim that still leaves may write there for a moment: then the rest is left to the system's sweep.
            let _busy = std::fs::remove_dir_all(dir);
        }
    }
}

impl Drop for Gaffer {
    fn drop(&mut self) {
        self.end();
    }
}

fn job_id(name: &str) -> Result<JobId, EmbedError> {
    JobId::parse(name).map_err(|error| EmbedError::Engine(Error::Invalid(error.to_string())))
}

/// A queue of an embedded engine.
#[derive(Clone)]
pub struct QueueRef<'a> {
    gaffer: &'a Gaffer,
    id: JobId,
}

impl QueueRef<'_> {
    /// Has a function work off its tasks, `workers` at once. It runs on the engine's runtime: what blocks belongs on a thread of its own.
    pub fn handler<F, R>(&self, handler: F) -> Result<(), EmbedError>
    where
        F: Fn(QueueTask) -> R + Send + Sync + 'static,
        R: Future<Output = Handled> + Send + 'static,
    {
        Ok(self.gaffer.handle.queue_handler(&self.id, handler)?)
    }

    /// Puts a task in. It is in the store when this returns: its number.
    pub fn push(&self, payload: impl Into<Value>) -> Result<TaskId, EmbedError> {
        let push = NewPush {
            payload: payload.into(),
            ..NewPush::default()
        };
        Ok(self.push_all(&[push])?.first().copied().unwrap_or_default())
    }

    /// Has the handler do a task in this thread, and gives its result, or its error. Nothing is put into the store: for tests, and for
    /// programs that want no queue. The payload is checked as [`QueueRef::push`] does it; a panic is the caller's.
    pub fn inline(&self, payload: impl Into<Value>) -> Result<Value, EmbedError> {
        let push = NewPush {
            payload: payload.into(),
            ..NewPush::default()
        };
        let done = self.gaffer.handle.queue_inline(&self.id, &push);
        self.gaffer.block(done)?.map_err(EmbedError::Handler)
    }

    /// Puts several tasks in, all or none, with kinds, delays and keys.
    pub fn push_all(&self, pushes: &[NewPush]) -> Result<Vec<TaskId>, EmbedError> {
        let pushed = self.gaffer.handle.queue_push(&self.id, pushes, me());
        let pushed = self.gaffer.block(pushed)?;
        Ok(pushed.iter().map(|one| one.id).collect())
    }

    /// Waits for the end of a task; none: it has not ended in time.
    pub fn wait(&self, task: TaskId, within: Duration) -> Result<Option<TaskOutcome>, EmbedError> {
        Ok(self.gaffer.block(self.gaffer.handle.queue_wait(task, within))?)
    }
}

/// A job in the making. Keys are those of `[job.X]` in `gaffer.toml`.
pub struct JobBuilder<'a> {
    gaffer: &'a Gaffer,
    name: String,
    spec: Map<String, Value>,
}

impl JobBuilder<'_> {
    /// Program and arguments.
    #[must_use]
    pub fn cmd<S: Into<String>>(self, words: impl IntoIterator<Item = S>) -> Self {
        let words: Vec<String> = words.into_iter().map(Into::into).collect();
        self.set("cmd", json!(words))
    }

    /// Copies to keep.
    #[must_use]
    pub fn instances(self, count: u32) -> Self {
        self.set("instances", json!(count))
    }

    /// Any other key, as in the file.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.spec.insert(key.to_owned(), value.into());
        self
    }

    /// Adds the job (or changes it) and waits until it runs.
    pub fn start(self) -> Result<(), EmbedError> {
        let JobBuilder { gaffer, name, spec } = self;
        let id = job_id(&name)?;
        let loaded = gaffer.handle.load_job(&id, &Value::Object(spec))?;
        let put = gaffer.handle.job_put(id, loaded, PutOptions::default(), me());
        gaffer.wait(gaffer.block(put)?)
    }
}
