//! Tasks that files define: kept in the store, replaced by what the file says next, run by their name.
//!
//! A run keeps the definition that it was started with in its own checkpoint: a change counts from the next run.

use super::definition::{Definition, DefinitionError};
use super::latest::digest;
use crate::defined::{self, InForce};
use crate::handle::{Handle, Result};
use crate::info::{Error, ObjectChange};
use crate::owner::lock;
use crate::state::State;
use crate::store::{Change, TaskRow};
use gaffer_config::{Keep, LoadedTask, StoredHost, load_task_json};
use gaffer_core::job::{After, Limits};
use gaffer_core::name::JobId;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A definition in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Defined {
    /// Keys of `[task.X]`.
    pub typed: Value,
    /// File that it came from.
    pub file: String,
    /// It runs by itself, once for each definition.
    pub start: bool,
    /// Of those that start by themselves, lower starts first.
    pub priority: i32,
    /// Tasks that it comes after.
    pub after_tasks: After,
    /// How long its runs are kept.
    pub keep: Keep,
    /// Of what it does.
    pub(super) digest: String,
}

/// All definitions by session and name.
pub type AllDefined = BTreeMap<JobId, Defined>;

/// What the store has.
pub(crate) fn from_rows(rows: &[TaskRow]) -> AllDefined {
    let mut all = AllDefined::new();
    for row in rows {
        let id = JobId::parse(&format!("{}.{}", row.session, row.name));
        match (id, serde_json::from_str(&row.spec)) {
            (Ok(id), Ok(typed)) => drop(all.insert(id, stored(row, typed))),
            (id, typed) => {
                let why = id.err().map(|error| error.to_string());
                let why = why.or_else(|| typed.err().map(|error| error.to_string()));
                tracing::error!(
                    session = row.session,
                    task = row.name,
                    why,
                    "a stored task cannot be understood"
                );
            }
        }
    }
    all
}

/// A definition that cannot be understood any more waits for nothing and does not start: whoever asks for a run is told why.
fn stored(row: &TaskRow, typed: Value) -> Defined {
    let loaded = load_task_json(&row.session, &row.name, &typed, &StoredHost);
    let loaded = loaded
        .map_err(|errors| {
            let why = errors.render(false);
            tracing::error!(
                session = row.session,
                task = row.name,
                why,
                "a stored task cannot be run"
            );
        })
        .ok();
    Defined {
        start: loaded.as_ref().is_some_and(|loaded| loaded.start),
        priority: loaded.as_ref().map_or(0, |loaded| loaded.priority),
        keep: loaded.as_ref().map(|loaded| loaded.keep).unwrap_or_default(),
        after_tasks: loaded.map(|loaded| loaded.after_tasks).unwrap_or_default(),
        digest: digest(&typed),
        file: row.file.clone(),
        typed,
    }
}

impl InForce for Defined {
    fn typed(&self) -> &Value {
        &self.typed
    }

    fn file(&self) -> &str {
        &self.file
    }
}

fn in_force(loaded: &LoadedTask, file: String) -> Defined {
    Defined {
        typed: loaded.typed.clone(),
        file,
        start: loaded.start,
        priority: loaded.priority,
        after_tasks: loaded.after_tasks.clone(),
        keep: loaded.keep,
        digest: digest(&loaded.typed),
    }
}

impl State {
    /// Which tasks applying a file adds, changes and removes.
    pub(crate) fn task_changes(
        &self,
        file: &str,
        tasks: &BTreeMap<JobId, LoadedTask>,
        no_start: bool,
    ) -> Vec<ObjectChange> {
        let mut changes = defined::changes(&self.tasks.defined, file, tasks, gaffer_config::diff_typed);
        let (after, _) = self.tasks_after(file, tasks);
        let latest = self.latest_after(&after, no_start);
        for change in &mut changes {
            let new = after.get(&change.id);
            change.runs = new.is_some_and(|new| new.runs(&change.id, &latest));
        }
        changes
    }

    /// All definitions once a file is applied, and that for the store.
    pub(crate) fn tasks_after(
        &self,
        file: &str,
        tasks: &BTreeMap<JobId, LoadedTask>,
    ) -> (AllDefined, Change) {
        let (all, rows) = defined::after(&self.tasks.defined, file, tasks, in_force);
        let file = file.to_owned();
        (all, Change::Tasks { file, rows })
    }
}

impl Handle {
    /// Definitions in force.
    pub fn tasks_defined(&self) -> Arc<AllDefined> {
        Arc::new(lock(&self.state).tasks.defined.clone())
    }

    /// A definition in force with values for its parameters.
    pub fn task_defined(&self, id: &JobId, params: &BTreeMap<String, String>) -> Result<Definition> {
        let typed = {
            let state = lock(&self.state);
            let found = state.tasks.defined.get(id);
            found.map(|found| found.typed.clone())
        };
        let typed = typed.ok_or_else(|| Error::TaskNotFound(id.to_string()))?;
        let loaded = load_task_json(id.session.as_str(), id.job.as_str(), &typed, &StoredHost);
        let loaded = loaded.map_err(|errors| Error::Task(errors.render(false)))?;
        Definition::native(loaded, params).map_err(|error| match error {
            DefinitionError::Unreadable(_) => Error::Task(error.to_string()),
            DefinitionError::UnknownParam { .. } | DefinitionError::NoParam { .. } => {
                Error::Invalid(error.to_string())
            }
        })
    }
}

impl State {
    /// What the steps of all definitions are limited to.
    pub(crate) fn limits_of_tasks(&self) -> Vec<(String, Option<Box<Limits>>)> {
        let mut all = Vec::new();
        for (id, defined) in &self.tasks.defined {
            let (session, name) = (id.session.as_str(), id.job.as_str());
            let Ok(task) = load_task_json(session, name, &defined.typed, &StoredHost) else {
                continue;
            };
            let steps = task.spec.steps.iter();
            all.extend(steps.map(|step| {
                (
                    format!("task {id}, step {}", step.name),
                    step.launch.limits.clone(),
                )
            }));
        }
        all
    }
}
