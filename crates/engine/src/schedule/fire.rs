//! What a tick does.

use super::defined::ScheduleDefined;
use super::handle::Triggered;
use super::service::{Fired, Mode, Service};
use crate::clock;
use crate::handle::{Handle, Result};
use crate::info::{Act, Actor, Error, OneOff, OperationId, OperationState, Target};
use crate::queue::{NewPush, task_of};
use crate::task::{NewTask, TaskKill};
use gaffer_core::io::How;
use gaffer_core::name::JobId;
use gaffer_core::queue::spec::{Conflict, QueueId};
use gaffer_core::queue::task::TaskId;
use gaffer_core::schedule::{Does, JobAction, Overlap};
use gaffer_core::task::record::TaskState;
use gaffer_core::time::Wall;
use gaffer_queue::port::{Answer, Key, NewTask as NewQueued, Request, Tick};
use gaffer_queue::rows::ScheduleRow;
use serde_json::json;
use std::collections::BTreeMap;

/// A task as a schedule starts it.
struct Start<'a> {
    task: &'a JobId,
    params: &'a BTreeMap<String, String>,
}

impl Service {
    /// Acts upon a tick, once: what it did and how far the schedule is are in the store when this returns. An error: it may be tried again.
    pub(super) async fn fire(
        &self,
        id: &JobId,
        defined: &ScheduleDefined,
        tick: Wall,
        mode: Mode,
        by: &Actor,
    ) -> Result<Fired> {
        match self.attempt(id, defined, tick, mode, by).await {
            Err(error) if is_for_good(&error) => {
                self.give_up(id, tick, mode, error.to_string()).await?;
                Ok(Fired::Skipped("failed", error.to_string()))
            }
            fired => fired,
        }
    }

    async fn attempt(
        &self,
        id: &JobId,
        defined: &ScheduleDefined,
        tick: Wall,
        mode: Mode,
        by: &Actor,
    ) -> Result<Fired> {
        let row = self.row(id);
        if let Some(fired) = self.overlapping(id, defined, &row, tick, mode).await? {
            return Ok(fired);
        }
        let became = match &defined.loaded.spec.does {
            Does::Push { queue, kind, payload } => {
                let push = NewPush {
                    kind: kind.as_deref().map(str::to_owned),
                    payload: filled(defined, payload, tick)?,
                    meta: Some(json!({ "schedule": id.to_string(), "tick": super::service::text(tick) })),
                    ..NewPush::default()
                };
                return self.push(id, defined, queue, push, (tick, mode)).await;
            }
            Does::Task { task, params } => self.start(id, defined, &Start { task, params }, tick, by).await?,
            Does::Job { job, action } => self.do_to(job, *action, by).await?,
        };
        let mut row = fired(self.row(id), tick, mode);
        row.became = Some(became.clone());
        self.put(&id.to_string(), Some(row)).await?;
        Ok(done(became))
    }

    /// What `overlap` says while what the one before it began goes on; none: act.
    async fn overlapping(
        &self,
        id: &JobId,
        defined: &ScheduleDefined,
        row: &ScheduleRow,
        tick: Wall,
        mode: Mode,
    ) -> Result<Option<Fired>> {
        let overlap = defined.loaded.spec.overlap;
        let before = row.became.as_deref().filter(|_| overlap != Overlap::Allow);
        let Some(before) = before else { return Ok(None) };
        // Keys of the store say it for pushes, in the same step.
        let by_key = matches!(defined.loaded.spec.does, Does::Push { .. }) && overlap != Overlap::Replace;
        if by_key || !Service::is_active(&self.handle, before).await {
            return Ok(None);
        }
        if mode == Mode::Waited {
            return Ok(Some(Fired::Waits));
        }
        let goes_on = format!("{before} goes on");
        match overlap {
            Overlap::Allow => Ok(None),
            Overlap::Queue if row.waiting.is_none() => self.wait(id, tick, mode).await.map(Some),
            Overlap::Skip | Overlap::Queue => {
                self.give_up(id, tick, mode, goes_on.clone()).await?;
                Ok(Some(Fired::Skipped("overlap", goes_on)))
            }
            Overlap::Replace => {
                end(&self.handle, before).await?;
                self.wait(id, tick, mode).await.map(Some)
            }
        }
    }

    async fn wait(&self, id: &JobId, tick: Wall, mode: Mode) -> Result<Fired> {
        let mut row = self.row(id);
        row.waiting = Some(tick);
        seen(&mut row, tick, mode);
        self.put(&id.to_string(), Some(row)).await?;
        Ok(Fired::Waits)
    }

    async fn give_up(&self, id: &JobId, tick: Wall, mode: Mode, why: String) -> Result<()> {
        let mut row = self.row(id);
        row.note = Some(why);
        seen(&mut row, tick, mode);
        if mode == Mode::Waited {
            row.waiting = None;
        }
        self.put(&id.to_string(), Some(row)).await
    }

    /// The push and the step forward are one.
    async fn push(
        &self,
        id: &JobId,
        defined: &ScheduleDefined,
        queue: &QueueId,
        push: NewPush,
        (tick, mode): (Wall, Mode),
    ) -> Result<Fired> {
        let spec = self.handle.queue_spec(queue)?;
        let now = clock::wall();
        let mut task: NewQueued = task_of(queue, &spec, &push, now)?;
        let overlap = defined.loaded.spec.overlap;
        if matches!(overlap, Overlap::Skip | Overlap::Queue) {
            task.unique = Some(Key {
                key: format!("schedule:{}", self.key(id)).into(),
                while_running: overlap == Overlap::Skip,
                done_until: None,
                conflict: Conflict::Return,
                max_delay: None,
            });
        }
        let row = self.row(id);
        let mut duplicate = row.clone();
        seen(&mut duplicate, tick, mode);
        let goes_on = format!("{} goes on", row.became.as_deref().unwrap_or("the one before it"));
        duplicate.note = Some(goes_on.clone());
        let ticked = Tick {
            schedule: self.key(id).into(),
            known: row.seen,
            row: fired(row, tick, mode),
            duplicate: duplicate.clone(),
            push: Some(task),
            now,
        };
        let mut after = ticked.row.clone();
        let store = self.open_store().await?;
        match store.get(Request::Tick(Box::new(ticked))).await? {
            Answer::Ticked(Some(Some(pushed))) if pushed.duplicate => {
                self.note(&id.to_string(), Some(duplicate));
                Ok(Fired::Skipped("overlap", goes_on))
            }
            Answer::Ticked(Some(Some(pushed))) => {
                after.became = Some(pushed.id.to_string());
                self.note(&id.to_string(), Some(after));
                self.handle
                    .tell_pushed(queue, &[push], &[pushed], format!("schedule {id}").into());
                Ok(done(pushed.id.to_string()))
            }
            _ => {
                // Somebody else writes them, too.
                self.read_rows().await?;
                Ok(Fired::Elsewhere)
            }
        }
    }

    /// Starts a run whose id says which tick it is for: a second start finds the first.
    async fn start(
        &self,
        id: &JobId,
        defined: &ScheduleDefined,
        start: &Start<'_>,
        tick: Wall,
        by: &Actor,
    ) -> Result<String> {
        let run = run_id(id, tick);
        let became = format!("task:{run}");
        let root = self.handle.tasks_root();
        if root.place(&run).is_some() {
            return Ok(became);
        }
        let fill = |text: &String| defined.loaded.fill(text, tick).map_err(Error::Invalid);
        let params = start.params.iter();
        let params: BTreeMap<String, String> = params
            .map(|(name, text)| Ok((name.clone(), fill(text)?)))
            .collect::<Result<_>>()?;
        let definition = self.handle.task_defined(start.task, &params)?;
        let task = NewTask::of(&root, run, definition);
        self.handle.task_start(task, by.clone()).await?;
        Ok(became)
    }

    async fn do_to(&self, job: &JobId, action: JobAction, by: &Actor) -> Result<String> {
        let target = Target {
            job: job.clone(),
            instance: None,
        };
        let act = match action {
            JobAction::Restart => Act::Restart(How::default()),
            JobAction::Reload => Act::Reload(None),
            JobAction::Start => Act::Start,
            JobAction::Stop => Act::Stop(How::default()),
            JobAction::Run => {
                let one_off = self.handle.one_off(job.clone(), OneOff::default(), by.clone());
                let (operation, _) = one_off.await?;
                return Ok(format!("op-{}", operation.0));
            }
        };
        let operation = self.handle.act(target, act, by.clone()).await?;
        Ok(format!("op-{}", operation.0))
    }

    /// Does what a tick became go on? Operations of an earlier daemon are over.
    pub(super) async fn is_active(handle: &Handle, became: &str) -> bool {
        if let Some(task) = became.strip_prefix("task:") {
            return handle.task_is_active(task);
        }
        if let Some(operation) = operation_of(became) {
            let found = handle.operation(operation);
            return found.is_some_and(|found| found.state == OperationState::Pending);
        }
        let Ok(task) = became.parse::<TaskId>() else {
            return false;
        };
        let found = handle.queue_task(task).await;
        found.is_ok_and(|found| !found.row.state.is_final())
    }
}

fn operation_of(became: &str) -> Option<OperationId> {
    became
        .strip_prefix("op-")
        .and_then(|number| number.parse().ok())
        .map(OperationId)
}

/// Asks for the end of what a tick became.
async fn end(handle: &Handle, became: &str) -> Result<()> {
    let asked = match (became.strip_prefix("task:"), became.parse::<TaskId>()) {
        (Some(task), _) => {
            let kill = TaskKill {
                state: TaskState::Killed,
                grace: None,
                hard: false,
            };
            handle.task_kill(task, kill, &"its schedule".into()).await
        }
        (None, Ok(task)) => handle.queue_cancel(task).await.map(drop),
        // What is done to a job ends by itself.
        (None, Err(_)) => Ok(()),
    };
    match asked {
        // It ended by itself meanwhile.
        Err(Error::WrongState(_) | Error::TaskNotFound(_) | Error::QueuedTaskNotFound(_)) => Ok(()),
        asked => asked,
    }
}

/// A tick that nothing can help: the next one may find things better.
fn is_for_good(error: &Error) -> bool {
    !matches!(
        error,
        Error::Store(_) | Error::ShuttingDown | Error::Unreachable(_)
    )
}

fn done(became: String) -> Fired {
    Fired::Done(Triggered {
        became: Some(became),
        waits: false,
    })
}

/// A tick that was asked for moves nothing.
fn seen(row: &mut ScheduleRow, tick: Wall, mode: Mode) {
    if mode == Mode::Due {
        row.seen = row.seen.max(tick);
    }
}

fn fired(mut row: ScheduleRow, tick: Wall, mode: Mode) -> ScheduleRow {
    seen(&mut row, tick, mode);
    if mode == Mode::Waited {
        row.waiting = None;
    }
    (row.fired, row.fired_at) = (Some(tick), Some(clock::wall()));
    row.note = None;
    row
}

fn filled(defined: &ScheduleDefined, payload: &str, tick: Wall) -> Result<serde_json::Value> {
    let text = defined.loaded.fill(payload, tick).map_err(Error::Invalid)?;
    serde_json::from_str(&text).map_err(|error| Error::Invalid(format!("the payload: {error}")))
}

/// `nightly-20261127T023000Z`; of another session than the default one `shop.nightly-…`.
fn run_id(id: &JobId, tick: Wall) -> String {
    let stamp: String = super::service::text(tick)
        .chars()
        .filter(|c| !"-:".contains(*c))
        .collect();
    crate::task::run_id(id, &stamp)
}
