//! A task that runs a part of a finished one again. It is a task of its own, with a checkpoint of its own: what is finished stays
//! as it is. Steps that are not run again count as done, with the outputs that they had; the working directory is the same.

use super::definition::Definition;
use super::handle::{NewTask, Retry, layout, read};
use super::layout::{Place, Root};
use crate::handle::{Handle, Result};
use crate::info::{Actor, Error};
use gaffer_core::task::fold::History;
use gaffer_core::task::record::{Outputs, StepState, TaskState};
use gaffer_core::task::spec::Task;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Handle {
    /// Runs the steps that did not succeed again, or `from`, and all that wait for them; gives the id of the new task.
    pub async fn task_retry(&self, id: &str, from: Option<&str>, by: Actor) -> Result<String> {
        let root = self.tasks_root();
        let (id, from) = (id.to_owned(), from.map(str::to_owned));
        let again = tokio::task::spawn_blocking(move || prepare(&root, &id, from.as_deref()))
            .await
            .map_err(|_| Error::ShuttingDown)??;
        let id = again.id.clone();
        self.task_start(again, by).await?;
        Ok(id)
    }
}

fn prepare(root: &Root, id: &str, from: Option<&str>) -> Result<NewTask> {
    super::layout::check_id(id).map_err(layout)?;
    match root.place(id) {
        None => return Err(Error::TaskNotFound(id.to_owned())),
        Some(Place::Active) => {
            let text = format!("task {id} is not over: wait for its end, or kill it");
            return Err(Error::WrongState(text));
        }
        Some(Place::Finished) => {}
    }
    let info = read(root, id)?;
    let header = info.history.header.clone();
    let header =
        header.ok_or_else(|| Error::Task(format!("task {id} never began: its stream has no header")))?;
    let text = std::fs::read(root.task(id, Place::Finished))
        .map_err(|error| Error::Task(format!("the definition of task {id} cannot be read: {error}")))?;
    let definition = Definition::again(&text, &header).map_err(|error| Error::Task(error.to_string()))?;
    let done = done(id, &definition.spec, &info.history, from)?;
    let new = next_id(root, id);
    Ok(NewTask {
        sandbox: header.sandbox.to_string(),
        user: header.user.to_string(),
        log_dir: Some(root.path().join("logs").join(&new).to_string_lossy().into_owned()),
        ports: header
            .ports
            .iter()
            .map(|(name, port)| (name.to_string(), *port))
            .collect(),
        retry: Some(Retry {
            of: id.to_owned(),
            done,
        }),
        id: new,
        definition,
    })
}

/// `nightly~2` after `nightly`, `nightly~3` after that.
fn next_id(root: &Root, id: &str) -> String {
    let base = match id.rsplit_once('~') {
        Some((base, number)) if number.parse::<u32>().is_ok() => base,
        _ => id,
    };
    let mut number = 2u32;
    loop {
        let new = format!("{base}~{number}");
        if root.place(&new).is_none() && !root.runner(&new).exists() {
            return new;
        }
        number += 1;
    }
}

/// Steps that are not run again, with their outputs.
fn done(id: &str, spec: &Task, history: &History, from: Option<&str>) -> Result<Vec<(Arc<str>, Outputs)>> {
    let outputs = |name: &str| match (history.last(name), history.carried.get(name)) {
        (Some(run), _) if run.state == StepState::Success => Some(run.outputs.clone()),
        (None, Some(outputs)) => Some(outputs.clone()),
        _ => None,
    };
    let mut again: BTreeSet<usize> = match from {
        Some(name) => BTreeSet::from([spec.step(name).ok_or_else(|| unknown(id, spec, name))?]),
        None => (0..spec.steps.len())
            .filter(|step| !spec.steps[*step].is_final && outputs(&spec.steps[*step].name).is_none())
            .collect(),
    };
    if from.is_none() && (again.is_empty() || history.state() == TaskState::Success) {
        let text = format!("task {id} succeeded: name the one to begin with (--from STEP)");
        return Err(Error::WrongState(text));
    }
    // All that waits for them, however far.
    let mut grown = true;
    while grown {
        let before = again.len();
        for (at, step) in spec.steps.iter().enumerate() {
            if step.after.iter().any(|(on, _)| again.contains(on)) {
                again.insert(at);
            }
        }
        grown = again.len() > before;
    }
    let kept = spec
        .steps
        .iter()
        .enumerate()
        .filter(|(at, step)| !again.contains(at) && !step.is_final);
    let kept = kept.filter_map(|(_, step)| Some((step.name.clone(), outputs(&step.name)?)));
    Ok(kept.collect())
}

fn unknown(id: &str, spec: &Task, name: &str) -> Error {
    let names: Vec<&str> = spec.steps.iter().map(|step| &*step.name).collect();
    let near = gaffer_config::nearest(name, names.iter().copied());
    let hint = near.map_or_else(|| names.join(", "), |near| format!("did you mean `{near}`?"));
    Error::Invalid(format!("task {id} has no step `{name}`: {hint}"))
}
