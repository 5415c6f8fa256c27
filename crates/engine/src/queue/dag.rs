//! `[queue.X] task = "NAME"`: a queued task whose work is a run of a task, a DAG of steps.
//!
//! The run is named by the queued task and its claim. A daemon that was killed finds the task claimed by an earlier one, keeps that claim, and
//! starts the run again: that finds it going on by itself, or over, or not begun. So nothing is done twice and nothing is lost, also with
//! `at-most-once`.

use super::handler::QueueTask;
use crate::handle::{Handle, Result};
use crate::info::{Actor, Error};
use crate::task::{NewTask, TaskInfo, TaskKill};
use gaffer_core::name::JobId;
use gaffer_core::queue::outcome::Outcome;
use gaffer_core::queue::task::Failure;
use gaffer_core::task::record::TaskState;
use gaffer_core::time::Duration;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

/// A run that is not led here is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Starts the run of a queued task and waits for its end.
pub(crate) type Runner =
    Arc<dyn Fn(QueueTask, JobId) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync>;

/// The runner of an engine. It holds a handle: whoever keeps it has to let go of it.
pub(crate) fn runner(handle: &Handle) -> Runner {
    let handle = handle.clone();
    Arc::new(move |task, name| {
        let handle = handle.clone();
        Box::pin(async move { run(&handle, &task, &name).await })
    })
}

async fn run(handle: &Handle, task: &QueueTask, name: &JobId) -> Outcome {
    let id = run_id(task, name);
    let by: Actor = format!("queue {}", task.queue).into();
    if let Err(error) = start(handle, task, name, &id, &by).await {
        let text = error.to_string();
        return match error {
            Error::TaskNotFound(_) | Error::Invalid(_) => Outcome::Fatal(Failure::of("bad-arguments", text)),
            // Nothing has begun: somebody gets it when there is a daemon again.
            Error::ShuttingDown => Outcome::NotHanded,
            _ => Outcome::Failed(Failure::of("start-failed", text)),
        };
    }
    loop {
        tokio::select! {
            () = handle.task_ended(&id) => {}
            () = task.cancelled() => end(handle, task, &id, &by).await,
        }
        match handle.task(&id).await {
            Ok(info) if info.view.state.is_terminal() => return outcome_of(&info),
            // Its end was asked for, and it cannot be led to it here: the machine says what that means.
            Ok(_) if task.is_cancelled() => return Outcome::Interrupted,
            // It is there, and cannot be led here now (the log says why): another run of it would do its work twice.
            Ok(_) => tokio::time::sleep(LOOK_EVERY).await,
            Err(error) => return Outcome::Failed(Failure::of("unknown", error.to_string())),
        }
    }
}

/// Asks for an orderly end, and does not ask again when there is no time left.
async fn end(handle: &Handle, task: &QueueTask, id: &str, by: &Actor) {
    let kill = |hard| TaskKill {
        state: TaskState::Killed,
        grace: None,
        hard,
    };
    // An error: it is over.
    let _over = handle.task_kill(id, kill(false), by).await;
    tokio::select! {
        () = handle.task_ended(id) => return,
        () = task.killed() => {}
    }
    let _over = handle.task_kill(id, kill(true), by).await;
    handle.task_ended(id).await;
}

async fn start(handle: &Handle, task: &QueueTask, name: &JobId, id: &str, by: &Actor) -> Result<()> {
    let root = handle.tasks_root();
    if root.place(id).is_some() {
        return Ok(());
    }
    let definition = handle.task_defined(name, &params(&task.payload)?)?;
    let new = NewTask::of(&root, id.to_owned(), definition);
    handle.task_start(new, by.clone()).await
}

/// `NAME-q7-1`: of task 7 of a queue, its first claim.
fn run_id(task: &QueueTask, name: &JobId) -> String {
    crate::task::run_id(name, &format!("q{}-{}", task.id, task.token))
}

/// The fields of the payload; what is no text is written as JSON.
fn params(payload: &Value) -> Result<BTreeMap<String, String>> {
    let fields = match payload {
        Value::Null => return Ok(BTreeMap::new()),
        Value::Object(fields) => fields,
        _ => {
            let text = "the payload of a task of steps is an object: its fields are the parameters";
            return Err(Error::Invalid(text.to_owned()));
        }
    };
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Ok(fields
        .iter()
        .map(|(name, value)| (name.clone(), text(value)))
        .collect())
}

fn outcome_of(info: &TaskInfo) -> Outcome {
    let text = match &info.view.reason {
        Some(reason) => format!("task {}: {reason}", info.id),
        None => format!("task {}: {}", info.id, info.view.summary),
    };
    match info.view.state {
        TaskState::Success => Outcome::Done(Some(json!({ "task": info.id }).to_string().into())),
        TaskState::Killed => Outcome::Failed(Failure::of("killed", text)),
        TaskState::Lost => Outcome::Crashed(Failure::of("lost", text)),
        TaskState::Failed | TaskState::Active | TaskState::Cleaning | TaskState::Finalizing => {
            Outcome::Failed(Failure::of("failed", text))
        }
    }
}
