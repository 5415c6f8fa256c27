//! How anything outside pushes, looks and changes.

use super::alerts::WINDOW;
use super::push::{fits, misfit, queued, task_of};
use super::redact;
use super::service::{QueueNews, due};
use super::stores::OWN;
use crate::clock;
use crate::handle::{Handle, Result};
use crate::info::{Actor, Error, Event};
use crate::owner::{Message, lock};
use crate::state::State;
use gaffer_core::name::JobId;
use gaffer_core::queue::alert::Alert;
use gaffer_core::queue::dispatch::{Input, Pool};
use gaffer_core::queue::spec::{Queue, QueueId};
use gaffer_core::queue::task::{Failure, TaskId, TaskState};
use gaffer_core::time::{Duration, Wall};
use gaffer_queue::numbers::{StoreNumber, store_of};
use gaffer_queue::port::{Answer, Cancelled, PUSH_MAX, Pushed, Request};
use gaffer_queue::rows::{AttemptRow, Counts, Filter, MinuteRow, Mode, Signs, TaskRow};
use gaffer_queue::{Numbered, StoreError};
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A task to be pushed.
#[derive(Clone, Debug, Default)]
pub struct NewPush {
    /// What is to be done, if the queue tells kinds apart.
    pub kind: Option<String>,
    /// Any JSON.
    pub payload: Value,
    /// Free JSON: shown, no effect.
    pub meta: Option<Value>,
    /// Smaller runs first.
    pub priority: i32,
    /// Not before this.
    pub at: Option<Wall>,
    /// Not before so much time has passed.
    pub delay: Option<Duration>,
    /// What excludes others.
    pub unique: Option<String>,
    /// What it is throttled by.
    pub limit_key: Option<String>,
    /// Longest life of an attempt.
    pub timeout: Option<Duration>,
    /// Its own number of attempts.
    pub attempts: Option<u32>,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskOutcome {
    /// Final state.
    pub state: TaskState,
    /// Attempts that counted.
    pub attempt: u32,
    /// JSON.
    pub result: Option<Arc<str>>,
    /// Why it did not succeed.
    pub failure: Option<Failure>,
}

/// What an operator does to a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueVerb {
    /// Nothing is claimed; with `running` workers are frozen too.
    Pause {
        /// Freeze workers.
        running: bool,
    },
    /// Go on.
    Resume,
    /// Nothing is taken.
    Close,
    /// Take tasks again.
    Open,
}

/// A queue, as it is.
#[derive(Clone, Debug)]
pub struct QueueInfo {
    /// Which.
    pub id: QueueId,
    /// Definition.
    pub spec: Arc<Queue>,
    /// Keys of `[queue.X]`.
    pub typed: Value,
    /// File that it came from.
    pub file: String,
    /// What operators said.
    pub mode: Mode,
    /// Workers that an operator wants; none: as the file says.
    pub scaled: Option<u32>,
    /// Tasks by state.
    pub counts: Counts,
    /// Tasks that workers of this node have.
    pub busy: u32,
    /// The pool that it is in.
    pub pool: Option<Pool>,
    /// Finished in the last minute, by this daemon.
    pub done_per_min: u64,
    /// Why nothing comes out of its outbox, in words.
    pub outbox_trouble: Option<String>,
    /// What it did since this daemon began.
    pub stats: super::stats::QueueStats,
    /// What an operator should know.
    pub alerts: Vec<Alert>,
    /// What names its store, without a password.
    pub store: Arc<str>,
    /// Why its store does not answer: then nothing is counted.
    pub store_trouble: Option<String>,
}

/// A task of a queue with its attempts.
#[derive(Clone, Debug)]
pub struct QueueSelf {
    /// The row.
    pub row: TaskRow,
    /// Attempts that are over, oldest first.
    pub attempts: Vec<AttemptRow>,
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        match error {
            StoreError::Unavailable(_) | StoreError::Newer(_) => Error::QueueStore(error.to_string()),
            StoreError::Closed(_) | StoreError::Duplicate { .. } => Error::WrongState(error.to_string()),
        }
    }
}

/// A key that is made of what is not shown is not shown either.
fn may_show(spec: &Queue, mut error: StoreError) -> StoreError {
    if let StoreError::Duplicate { key, .. } = &mut error
        && redact::hides_keys(spec)
    {
        *key = redact::MASK.into();
    }
    error
}

/// The store answered something else than it was asked.
pub(super) fn astray<T>() -> Result<T> {
    Err(Error::QueueStore(
        "the queue store answered something else".to_owned(),
    ))
}

impl Handle {
    fn store_now(&self, number: StoreNumber) -> Result<Numbered> {
        let state = lock(&self.state);
        let home = state.queues.homes.get(number);
        let (store, failed) = home.map_or((None, None), |home| (home.store.as_ref(), home.failed.as_ref()));
        match (store, failed) {
            (Some(store), _) => Ok(store.clone()),
            (None, Some(error)) => Err(error.clone().into()),
            (None, None) if state.queues.defined.is_empty() && state.schedules.defined.is_empty() => {
                Err(Error::QueueNotFound(
                    "no file defines a queue yet: write [queue.NAME], then gaffer apply".to_owned(),
                ))
            }
            (None, None) => Err(Error::QueueStore(
                "the queue store is being opened: try again in a moment".to_owned(),
            )),
        }
    }

    /// Waits until a store is open, if anything here needs it; at most a few seconds.
    pub(crate) async fn store_soon(&self, number: StoreNumber) -> Result<Numbered> {
        for _ in 0..500 {
            match self.store_now(number) {
                Err(Error::QueueStore(why)) if why.ends_with("in a moment") => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                other => return other,
            }
        }
        self.store_now(number)
    }

    /// The store of a queue.
    pub(crate) async fn queue_store(&self, queue: &QueueId) -> Result<Numbered> {
        let number = lock(&self.state).queues.homes.number_of(queue);
        self.store_soon(number).await
    }

    /// The store of a task.
    async fn task_store(&self, id: TaskId) -> Result<Numbered> {
        let number = store_of(id);
        let is_used = {
            let state = lock(&self.state);
            let home = state.queues.homes.get(number);
            // What is said if there is no queue at all is said of the node's own.
            home.is_some_and(|home| home.opening) || number == OWN && state.queues.defined.is_empty()
        };
        match is_used {
            true => self.store_soon(number).await,
            false => Err(no_task(id)),
        }
    }

    pub(crate) fn queue_spec(&self, queue: &QueueId) -> Result<Arc<Queue>> {
        let state = lock(&self.state);
        state.queues.spec(queue).cloned().ok_or_else(|| {
            let near = state
                .queues
                .defined
                .keys()
                .filter(|other| other.session == queue.session)
                .map(|other| {
                    (
                        gaffer_config::distance(other.job.as_str(), queue.job.as_str()),
                        other,
                    )
                })
                .filter(|(distance, _)| *distance <= 2)
                .min_by_key(|(distance, _)| *distance);
            let hint = near.map_or(String::new(), |(_, other)| {
                format!("; did you mean `{}`?", other.job)
            });
            Error::QueueNotFound(format!(
                "no queue `{}` in session {}{hint}",
                queue.job, queue.session
            ))
        })
    }

    /// Puts tasks in, all or none. They are in the store when this returns.
    pub async fn queue_push(&self, queue: &QueueId, pushes: &[NewPush], by: Actor) -> Result<Vec<Pushed>> {
        let spec = self.queue_spec(queue)?;
        if pushes.is_empty() || pushes.len() > PUSH_MAX {
            return Err(Error::Invalid(format!(
                "one push is 1 to {PUSH_MAX} tasks; these are {}",
                pushes.len()
            )));
        }
        let now = clock::wall();
        let mut tasks = Vec::with_capacity(pushes.len());
        for (index, push) in pushes.iter().enumerate() {
            let task = task_of(queue, &spec, push, now).map_err(|error| match error {
                Error::Invalid(why) if pushes.len() > 1 => Error::Invalid(format!("task {index}: {why}")),
                other => other,
            })?;
            tasks.push(task);
        }
        let store = self.queue_store(queue).await?;
        let answer = store.get(Request::Push(tasks, now)).await;
        let Answer::Pushed(pushed) = answer.map_err(|error| may_show(&spec, error))? else {
            return astray();
        };
        self.tell_pushed(queue, pushes, &pushed, by);
        Ok(pushed)
    }

    /// Says what was pushed, and wakes the machine. Only now: the tasks are there.
    pub(crate) fn tell_pushed(&self, queue: &QueueId, pushes: &[NewPush], pushed: &[Pushed], by: Actor) {
        if let Some(at) = pushed.iter().filter_map(|one| one.due).min() {
            self.queue_due(queue, at);
        }
        if pushed.iter().any(|one| one.due.is_none()) {
            self.queue_input(Input::Hint(Some(queue.clone())));
        }
        let mut state = lock(&self.state);
        let new = pushed.iter().zip(pushes).filter(|(one, _)| !one.duplicate);
        let events: Vec<Event> = new
            .map(|(one, push)| queued(queue, push.kind.as_deref(), one, Some(by.clone())))
            .collect();
        events.iter().for_each(|event| state.put_event(event));
        state.counters.events += state.events.append(events);
    }

    pub(super) fn queue_input(&self, input: Input) {
        let _ended = self.owner.send(Message::Queue(QueueNews::Input(input)));
    }

    /// Something in the store of a queue can begin at this time.
    pub(super) fn queue_due(&self, queue: &QueueId, at: Wall) {
        let number = lock(&self.state).queues.homes.number_of(queue);
        let _ended = self.owner.send(Message::Queue(QueueNews::At(number, due(at))));
    }

    /// All queues that are defined here, in the order of their names. Of one whose store does not answer it is said why.
    pub async fn queues(&self) -> Result<Vec<QueueInfo>> {
        let ids: Vec<JobId> = lock(&self.state).queues.defined.keys().cloned().collect();
        // At the same time: a store that keeps us waiting keeps no other queue waiting.
        let ask = |id: JobId| {
            let handle = self.clone();
            tokio::spawn(async move { (handle.queue(&id).await, id) })
        };
        let asked: Vec<_> = ids.into_iter().map(ask).collect();
        let mut all = Vec::with_capacity(asked.len());
        for one in asked {
            let (info, id) = one.await.map_err(|_| Error::ShuttingDown)?;
            all.push(match info {
                Err(Error::QueueStore(why)) => {
                    let mut state = lock(&self.state);
                    QueueInfo {
                        store_trouble: Some(why),
                        ..state.queue_info(&id, Counts::default(), None)?
                    }
                }
                Err(Error::QueueNotFound(_)) => continue,
                info => info?,
            });
        }
        Ok(all)
    }

    /// One queue.
    pub async fn queue(&self, id: &QueueId) -> Result<QueueInfo> {
        self.queue_spec(id)?;
        let store = self.queue_store(id).await?;
        let Answer::Counts(counts) = store.get(Request::Counts(id.clone())).await? else {
            return astray();
        };
        let hour_ago = Wall(clock::wall().0.saturating_sub(WINDOW));
        let Answer::Signs(signs) = store.get(Request::Signs(id.clone(), hour_ago)).await? else {
            return astray();
        };
        lock(&self.state).queue_info(id, counts, Some(signs))
    }

    /// One task with its attempts, as it may be shown.
    pub async fn queue_task(&self, id: TaskId) -> Result<QueueSelf> {
        let mut found = self.queue_row(id).await?;
        let masks = lock(&self.state).queue_masks(&found.row.queue);
        masks.row(&mut found.row);
        Ok(found)
    }

    /// The same, with all that is in it.
    pub(super) async fn queue_row(&self, id: TaskId) -> Result<QueueSelf> {
        let store = self.task_store(id).await?;
        match store.get(Request::Task(id)).await? {
            Answer::Task(Some(found)) => {
                let (row, attempts) = *found;
                Ok(QueueSelf { row, attempts })
            }
            Answer::Task(None) => Err(no_task(id)),
            _ => astray(),
        }
    }

    /// What a queue did since then, by minute and kind, oldest first; with the minute that goes on.
    pub async fn queue_minutes(&self, id: &QueueId, since: Wall) -> Result<Vec<MinuteRow>> {
        self.queue_spec(id)?;
        lock(&self.state).write_minutes(true);
        let store = self.queue_store(id).await?;
        match store.get(Request::Minutes(id.clone(), since)).await? {
            Answer::Minutes(rows) => Ok(rows),
            _ => astray(),
        }
    }

    /// Tasks of a queue, newest first, as they may be shown.
    pub async fn queue_tasks(&self, queue: &QueueId, filter: Filter) -> Result<Vec<TaskRow>> {
        let store = self.queue_store(queue).await?;
        let filter = Filter {
            queue: Some(queue.to_string()),
            ..filter
        };
        match store.get(Request::Tasks(filter)).await? {
            Answer::Tasks(mut rows) => {
                let state = lock(&self.state);
                rows.iter_mut()
                    .for_each(|row| state.queue_masks(&row.queue).row(row));
                Ok(rows)
            }
            _ => astray(),
        }
    }

    /// Waits for the end of a task; none: it has not ended in time.
    pub async fn queue_wait(&self, id: TaskId, timeout: Duration) -> Result<Option<TaskOutcome>> {
        let (tx, rx) = oneshot::channel();
        {
            let mut state = lock(&self.state);
            let waiting = state.queues.waiting.entry(id).or_default();
            waiting.retain(|one| !one.is_closed());
            waiting.push(tx);
        }
        // Asked for after that: nothing ends unseen in between.
        let found = self.queue_row(id).await;
        let over = match found {
            Ok(found) if found.row.state.is_final() => Some(outcome_of(&found.row)),
            Ok(_) => None,
            Err(error) => {
                lock(&self.state).queues.waiting.remove(&id);
                return Err(error);
            }
        };
        match over {
            Some(outcome) => Ok(Some(outcome)),
            None => match tokio::time::timeout(timeout, rx).await {
                Ok(Ok(outcome)) => Ok(Some(outcome)),
                Ok(Err(_)) => Err(Error::ShuttingDown),
                Err(_) => Ok(None),
            },
        }
    }

    /// Pauses, closes, and the opposites. It is in the store when this returns.
    pub async fn queue_set(&self, id: &QueueId, verb: QueueVerb, by: Actor) -> Result<Mode> {
        self.queue_spec(id)?;
        let store = self.queue_store(id).await?;
        let known = lock(&self.state).queues.modes.get(&id.to_string()).cloned();
        let mut mode = known.unwrap_or_default();
        let event = match verb {
            QueueVerb::Pause { running } => {
                (mode.paused, mode.frozen) = (true, running);
                "queue.paused"
            }
            QueueVerb::Resume => {
                (mode.paused, mode.frozen) = (false, false);
                "queue.resumed"
            }
            QueueVerb::Close => {
                mode.closed = true;
                "queue.closed"
            }
            QueueVerb::Open => {
                mode.closed = false;
                "queue.opened"
            }
        };
        (mode.at, mode.by) = (Some(clock::wall()), by.to_string());
        store.get(Request::Mode(id.clone(), mode.clone())).await?;
        let news = QueueNews::Mode(id.clone(), mode.clone());
        let _ended = self.owner.send(Message::Queue(news));
        lock(&self.state).tell(Event {
            event,
            job: None,
            slot: None,
            run: None,
            by: Some(by),
            reason: None,
            data: vec![("queue", id.to_string())],
        });
        Ok(mode)
    }

    /// Withdraws a task; one that runs is asked to end.
    pub async fn queue_cancel(&self, id: TaskId) -> Result<Cancelled> {
        let store = self.task_store(id).await?;
        let Answer::Cancelled(cancelled) = store.get(Request::Cancel(id, clock::wall())).await? else {
            return astray();
        };
        match &cancelled {
            Cancelled::Unknown => return Err(no_task(id)),
            Cancelled::Over(state) => {
                return Err(Error::AlreadyFinished(id, state.word()));
            }
            Cancelled::Asked(_) => self.queue_input(Input::CancelAsked(id)),
            Cancelled::Now(queue) => {
                self.queue_input(Input::Hint(Some(queue.clone())));
                let mut state = lock(&self.state);
                for waiter in state.queues.waiting.remove(&id).unwrap_or_default() {
                    let _gone = waiter.send(TaskOutcome {
                        state: TaskState::Cancelled,
                        attempt: 0,
                        result: None,
                        failure: None,
                    });
                }
                state.tell(Event {
                    event: "queue.task.cancelled",
                    job: None,
                    slot: None,
                    run: None,
                    by: None,
                    reason: None,
                    data: vec![("queue", queue.to_string()), ("task", id.to_string())],
                });
            }
        }
        Ok(cancelled)
    }

    /// Has a finished or scheduled task run again, as if it had never been tried.
    pub async fn queue_again(&self, id: TaskId) -> Result<()> {
        let store = self.task_store(id).await?;
        let answer = store.get(Request::Again(id, clock::wall())).await?;
        self.took_again(id, answer, "wait for its end, or cancel it")
            .map(drop)
    }

    /// Another payload: of a waiting task, or in a new one that takes the place of one that is over. The number of the task that runs.
    pub async fn queue_edit(&self, id: TaskId, payload: &Value) -> Result<TaskId> {
        let found = self.queue_row(id).await?;
        lock(&self.state).queue_masks(&found.row.queue).check(payload)?;
        if let Some(spec) = JobId::parse(&found.row.queue)
            .ok()
            .and_then(|queue| self.queue_spec(&queue).ok())
        {
            fits(&spec, found.row.kind.as_deref(), payload).map_err(|why| misfit(&why))?;
        }
        let store = self.task_store(id).await?;
        let text = payload.to_string().into();
        let edit = Request::Edit {
            task: id,
            payload: text,
            now: clock::wall(),
            shown: id,
        };
        let answer = store.get(edit).await?;
        self.took_again(id, answer, "a running task keeps its payload: cancel it first")
    }

    fn took_again(&self, id: TaskId, answer: Answer, hint: &str) -> Result<TaskId> {
        match answer {
            Answer::Again(Ok((id, queue))) => {
                let queue = JobId::parse(&queue).ok();
                self.queue_input(Input::Hint(queue));
                Ok(id)
            }
            Answer::Again(Err(None)) => Err(no_task(id)),
            Answer::Again(Err(Some(state))) => Err(Error::WrongState(format!(
                "task {id} is {}: {hint}",
                state.word()
            ))),
            _ => astray(),
        }
    }

    /// Removes a task that does not run.
    pub async fn queue_remove(&self, id: TaskId) -> Result<()> {
        let store = self.task_store(id).await?;
        match store.get(Request::Remove(id)).await? {
            Answer::Removed(Some(TaskState::Running)) => Err(Error::WrongState(format!(
                "task {id} is running: cancel it first"
            ))),
            Answer::Removed(Some(_)) => Ok(()),
            Answer::Removed(None) => Err(no_task(id)),
            _ => astray(),
        }
    }

    /// Removes all tasks of a queue in a state; how many they were.
    pub async fn queue_purge(&self, queue: &QueueId, state: TaskState) -> Result<u64> {
        self.queue_spec(queue)?;
        if state == TaskState::Running {
            return Err(Error::WrongState(
                "running tasks are not removed: cancel them".to_owned(),
            ));
        }
        let store = self.queue_store(queue).await?;
        let mut all = 0;
        loop {
            let request = Request::Purge(queue.clone(), state, 1_000);
            let Answer::Purged(count) = store.get(request).await? else {
                return astray();
            };
            all += u64::from(count);
            if count == 0 {
                return Ok(all);
            }
        }
    }

    /// Writes what is pending and closes the stores of the queues.
    pub(crate) async fn close_queues(&self) {
        let stores = {
            let mut state = lock(&self.state);
            state.write_minutes(true);
            let homes = state.queues.homes.all();
            homes
                .filter_map(|(_, home)| home.store.clone())
                .collect::<Vec<_>>()
        };
        for store in stores {
            store.close().await;
        }
    }
}

impl State {
    /// What is known of a queue here, with what its store says; none: it does not answer.
    fn queue_info(&mut self, id: &QueueId, counts: Counts, signs: Option<Signs>) -> Result<QueueInfo> {
        let alerts = signs.map(|signs| self.queue_alerts(id, &counts, signs));
        let queues = &self.queues;
        let defined = queues.defined.get(id);
        let defined = defined.ok_or_else(|| Error::QueueNotFound(format!("queue {id} is gone")))?;
        let machine = queues.machine(id);
        Ok(QueueInfo {
            id: id.clone(),
            spec: defined.spec.clone(),
            typed: crate::definitions::shown(defined.typed.clone()),
            file: defined.file.clone(),
            mode: queues.modes.get(&id.to_string()).cloned().unwrap_or_default(),
            scaled: queues.scaled.get(id).copied(),
            counts,
            busy: machine.busy(id),
            pool: machine.pool(id),
            done_per_min: queues.done_per_min(id),
            outbox_trouble: queues.outboxes.trouble(id),
            stats: queues.stats(id),
            alerts: alerts.unwrap_or_default(),
            store: queues.homes.of(id).name.clone(),
            store_trouble: None,
        })
    }
}

fn outcome_of(row: &TaskRow) -> TaskOutcome {
    TaskOutcome {
        state: row.state,
        attempt: row.attempt,
        result: row.result.as_deref().map(Into::into),
        failure: row.error.as_ref().map(|error| Failure {
            kind: error.kind.as_str().into(),
            message: error.message.as_str().into(),
            output: error.output.as_str().into(),
        }),
    }
}

pub(super) fn no_task(id: TaskId) -> Error {
    Error::QueuedTaskNotFound(id)
}
