//! Handlers: functions of this process that work tasks off.
//!
//! A handler is a future on the runtime of the engine. It is *asked* to end by [`QueueTask::cancelled`], when its task was withdrawn, its time is over or
//! the engine ends, and dropped at its next `await` when `stop.timeout` has passed after that. One that panics has failed. When the whole program is killed, what
//! its handlers had runs again, or never does, as the `delivery` of the queue says. Called inline ([`Handle::queue_inline`]) it does a task of the caller, which is
//! in no store.

use super::handle::NewPush;
use super::push::task_of;
use super::service::{QueueNews, Queues};
use crate::clock;
use crate::handle::{Handle, Result};
use crate::info::Error;
use crate::owner::{Message, lock};
use crate::state::State;
use gaffer_core::name::JobId;
use gaffer_core::queue::dispatch::Input;
use gaffer_core::queue::outcome::Outcome;
use gaffer_core::queue::spec::QueueId;
use gaffer_core::queue::task::{Claimed, Failure, Handle as Attempt, TaskId};
use gaffer_core::time::Duration;
use serde_json::Value;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinError};

/// A task in the hands of a handler.
#[derive(Clone, Debug)]
pub struct QueueTask {
    /// Its number; 0 for one that is done inline.
    pub id: TaskId,
    /// Its queue.
    pub queue: QueueId,
    /// What is to be done, if the queue tells kinds apart.
    pub kind: Option<Arc<str>>,
    /// What was pushed.
    pub payload: Value,
    /// Free JSON of whoever pushed it.
    pub meta: Option<Value>,
    /// Ordinal of this attempt, from 1.
    pub attempt: u32,
    /// Which claim of it this is.
    pub(super) token: u64,
    stop: watch::Receiver<Asked>,
}

/// What is asked of a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    Nothing,
    End,
    Now,
}

impl QueueTask {
    /// Its end was asked for.
    pub fn is_cancelled(&self) -> bool {
        *self.stop.borrow() >= Asked::End
    }

    /// Resolves when its end is asked for.
    pub async fn cancelled(&self) {
        self.asked(Asked::End).await;
    }

    /// Resolves when there is no time left.
    pub(super) async fn killed(&self) {
        self.asked(Asked::Now).await;
    }

    async fn asked(&self, what: Asked) {
        let mut stop = self.stop.clone();
        if stop.wait_for(|stop| *stop >= what).await.is_err() {
            // Nobody can ask any more.
            std::future::pending::<()>().await;
        }
    }
}

/// What a handler says when its task is not done. Every error of a library becomes [`HandlerError::Fail`] with `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandlerError {
    /// Again, if attempts are left.
    Fail(String),
    /// Never again.
    Fatal(String),
    /// Again after so long, if attempts are left.
    RetryAfter(String, Duration),
    /// Not now; does not count.
    Snooze(Duration),
    /// It did not go on because its end was asked for.
    Cancelled,
}

impl std::fmt::Display for HandlerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HandlerError::Fail(text) | HandlerError::Fatal(text) | HandlerError::RetryAfter(text, _) => {
                f.write_str(text)
            }
            HandlerError::Snooze(after) => write!(f, "not now: again after {after:?}"),
            HandlerError::Cancelled => f.write_str("its end was asked for"),
        }
    }
}

impl<E: std::error::Error> From<E> for HandlerError {
    fn from(error: E) -> HandlerError {
        HandlerError::Fail(error.to_string())
    }
}

/// The result, `null` for none, or why there is none.
pub type Handled = std::result::Result<Value, HandlerError>;

type Future = Pin<Box<dyn std::future::Future<Output = Handled> + Send>>;
pub(crate) type Handler = Arc<dyn Fn(QueueTask) -> Future + Send + Sync>;

/// A handler at work.
pub(super) struct Handling {
    attempt: Attempt,
    stop: watch::Sender<Asked>,
    abort: AbortHandle,
    /// It ends by itself when it is told to.
    obeys: bool,
}

fn outcome_of(handled: std::result::Result<Handled, JoinError>) -> Outcome {
    let failure = |text: String| Failure::of("handler", text);
    match handled {
        Ok(Ok(Value::Null)) => Outcome::Done(None),
        Ok(Ok(result)) => Outcome::Done(Some(result.to_string().into())),
        Ok(Err(HandlerError::Fail(text))) => Outcome::Failed(failure(text)),
        Ok(Err(HandlerError::Fatal(text))) => Outcome::Fatal(failure(text)),
        Ok(Err(HandlerError::RetryAfter(text, after))) => Outcome::RetryAfter(failure(text), after),
        Ok(Err(HandlerError::Snooze(after))) => Outcome::Snooze(after),
        Ok(Err(HandlerError::Cancelled)) => Outcome::Cancelled,
        Err(error) if error.is_panic() => Outcome::Failed(Failure::of("panic", said(error))),
        Err(_) => Outcome::Crashed(Failure::of("aborted", "its handler was dropped")),
    }
}

/// What a panic said.
fn said(error: JoinError) -> String {
    let said = error.into_panic();
    let text = said.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| said.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "its handler panicked".to_owned())
}

impl Queues {
    /// Does a handler, or a run of steps, have this attempt?
    pub(super) fn has_handler(&self, attempt: Attempt) -> bool {
        let handling = self.handling.get(&attempt.task);
        handling.is_some_and(|handling| handling.attempt == attempt)
    }
}

impl State {
    /// A handler takes the tasks of a queue from now on.
    pub(super) fn put_handler(&mut self, queue: QueueId, handler: Handler) {
        self.queues.handlers.insert(queue.clone(), handler);
        self.feed_queue(Input::Worker {
            queue,
            worker: 0,
            up: true,
        });
    }

    /// Queues that were just defined, anew perhaps, have their handlers.
    pub(super) fn handlers_are_up(&mut self) {
        let all: Vec<QueueId> = self.queues.handlers.keys().cloned().collect();
        for queue in all {
            self.feed_queue(Input::Worker {
                queue,
                worker: 0,
                up: true,
            });
        }
    }

    fn task_for(row: &Claimed, payload: Value, stop: watch::Receiver<Asked>) -> QueueTask {
        QueueTask {
            id: row.handle.task,
            queue: row.queue.clone(),
            kind: row.kind.clone(),
            payload,
            meta: row
                .meta
                .as_deref()
                .and_then(|meta| serde_json::from_str(meta).ok()),
            attempt: row.attempt,
            token: row.handle.token,
            stop,
        }
    }

    /// Gives a task to the handler of its queue; false: there is none.
    pub(super) fn hand_to_handler(&mut self, row: &Claimed, payload: Value) -> bool {
        let Some(handler) = self.queues.handlers.get(&row.queue).cloned() else {
            return false;
        };
        let (stop, stopped) = watch::channel(Asked::Nothing);
        let task = State::task_for(row, payload, stopped);
        let (owner, attempt) = (self.owner.clone(), row.handle);
        // On its own: a panic is its end, and not ours.
        let work = tokio::spawn(async move { handler(task).await });
        let abort = work.abort_handle();
        tokio::spawn(async move {
            let outcome = outcome_of(work.await);
            let _ended = owner.send(Message::Queue(QueueNews::Handled(attempt, outcome)));
        });
        let handling = Handling {
            attempt,
            stop,
            abort,
            obeys: false,
        };
        self.queues.handling.insert(attempt.task, handling);
        true
    }

    /// Starts the run of a task of steps for a queued task, or finds it; false: there is nobody who could.
    pub(super) fn hand_to_dag(&mut self, row: &Claimed, payload: Value, name: &str) -> bool {
        let name = JobId::parse_in(name, &row.queue.session);
        let (Some(runner), Ok(name)) = (self.queues.runner.clone(), name) else {
            return false;
        };
        let (stop, stopped) = watch::channel(Asked::Nothing);
        let task = State::task_for(row, payload, stopped);
        let (owner, attempt) = (self.owner.clone(), row.handle);
        let led = tokio::spawn(async move {
            let outcome = runner(task, name).await;
            let _ended = owner.send(Message::Queue(QueueNews::Handled(attempt, outcome)));
        });
        let handling = Handling {
            attempt,
            stop,
            abort: led.abort_handle(),
            obeys: true,
        };
        self.queues.handling.insert(attempt.task, handling);
        true
    }

    /// A handler has ended.
    pub(super) fn handled(&mut self, attempt: Attempt, outcome: Outcome) {
        if self.queues.has_handler(attempt) {
            self.queues.handling.remove(&attempt.task);
        }
        self.feed_queue(super::service::ended(attempt, outcome, true));
    }

    /// Asks the handler of an attempt to end, or drops it.
    pub(super) fn end_handler(&mut self, attempt: Attempt, now: bool) {
        let Some(handling) = self.queues.handling.get(&attempt.task) else {
            return;
        };
        let asked = if now { Asked::Now } else { Asked::End };
        handling.stop.send_replace(asked);
        if now && !handling.obeys {
            handling.abort.abort();
        }
    }

    /// The engine goes away without a word: what works in this process for it goes with it.
    pub(crate) fn drop_handlers(&mut self) {
        // It holds a handle, and so the state that holds it.
        self.queues.runner = None;
        self.queues.handlers.clear();
        for handling in std::mem::take(&mut self.queues.handling).into_values() {
            handling.abort.abort();
        }
    }
}

impl Handle {
    /// Has a function work off the tasks of a queue, `workers` of them at once. The queue has neither `cmd` nor `task`; a second handler takes the place of
    /// the first.
    ///
    /// # Errors
    ///
    /// There is no such queue, or its work is done by programs.
    pub fn queue_handler<F, R>(&self, queue: &QueueId, handler: F) -> Result<()>
    where
        F: Fn(QueueTask) -> R + Send + Sync + 'static,
        R: std::future::Future<Output = Handled> + Send + 'static,
    {
        let spec = self.queue_spec(queue)?;
        if spec.is_ours() {
            return Err(Error::Invalid(format!(
                "queue {queue} has work of its own: leave out its `cmd` and `task`"
            )));
        }
        let handler: Handler = Arc::new(move |task| Box::pin(handler(task)));
        let news = QueueNews::Handler(queue.clone(), handler);
        let sent = self.owner.send(Message::Queue(news));
        sent.map_err(|_| Error::ShuttingDown)
    }

    /// Has the handler of a queue do a task here and now, and says what it said. The task is checked as a push would be, and put nowhere: it has
    /// no number, is not tried again, and neither waits for a worker nor is told of. A panic of the handler is one of the caller.
    ///
    /// # Errors
    ///
    /// There is no such queue, it has no handler, or would not take the task.
    pub async fn queue_inline(&self, queue: &QueueId, push: &NewPush) -> Result<Handled> {
        let spec = self.queue_spec(queue)?;
        let task = task_of(queue, &spec, push, clock::wall())?;
        let (tx, rx) = oneshot::channel();
        let news = QueueNews::HandlerOf(queue.clone(), tx);
        // Behind those that were given before: its handler is known by then.
        let sent = self.owner.send(Message::Queue(news));
        sent.map_err(|_| Error::ShuttingDown)?;
        let handler = rx.await.map_err(|_| Error::ShuttingDown)?;
        let handler = handler.filter(|_| !spec.is_ours()).ok_or_else(|| {
            Error::Invalid(format!(
                "queue {queue} has no handler in this program: give it one first, with `handler`"
            ))
        })?;
        // Nobody asks for its end, and nobody can any more when the caller is gone.
        let (_asks, stop) = watch::channel(Asked::Nothing);
        // As it would come out of the store.
        let payload = serde_json::from_str(&task.payload)
            .map_err(|error| Error::Invalid(format!("the payload is not JSON: {error}")))?;
        let inline = QueueTask {
            id: 0,
            queue: queue.clone(),
            kind: task.kind,
            payload,
            meta: push.meta.clone(),
            attempt: 1,
            token: 0,
            stop,
        };
        Ok(handler(inline).await)
    }

    /// Tasks that handlers of this process have.
    pub fn queue_handling(&self) -> usize {
        lock(&self.state).queues.handling.len()
    }
}
