//! Tasks that files define: kept in the store, replaced by what the file says next, run by their name.
//!
//! A run keeps the definition that it was started with in its own checkpoint: a change counts from the next run.

use super::definition::{Definition, DefinitionError};
use crate::handle::{Handle, Result};
use crate::info::{Error, PlanAction, TaskChange};
use crate::owner::lock;
use crate::state::State;
use crate::store::{Change, TaskRow};
use gaffer_config::{LoadedTask, StoredHost, load_task_json};
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
}

/// All definitions by session and name.
pub type AllDefined = BTreeMap<JobId, Defined>;

/// What the store has.
pub(crate) fn from_rows(rows: &[TaskRow]) -> AllDefined {
    let mut all = AllDefined::new();
    for row in rows {
        let id = JobId::parse(&format!("{}.{}", row.session, row.name));
        match (id, serde_json::from_str(&row.spec)) {
            (Ok(id), Ok(typed)) => {
                let file = row.file.clone();
                all.insert(id, Defined { typed, file });
            }
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

impl State {
    /// Which tasks applying a file adds, changes and removes.
    pub(crate) fn task_changes(&self, file: &str, tasks: &BTreeMap<JobId, LoadedTask>) -> Vec<TaskChange> {
        let defined = &self.tasks.defined;
        let new = tasks.iter().filter_map(|(id, task)| match defined.get(id) {
            None => Some((PlanAction::Add, id)),
            Some(old) if old.typed != task.typed || old.file != file => Some((PlanAction::Change, id)),
            Some(_) => None,
        });
        let gone = defined
            .iter()
            .filter(|(id, old)| old.file == file && !tasks.contains_key(id))
            .map(|(id, _)| (PlanAction::Remove, id));
        let change = |(action, id): (PlanAction, &JobId)| TaskChange {
            action,
            task: id.clone(),
            keys: match (defined.get(id), tasks.get(id)) {
                (Some(old), Some(new)) => gaffer_config::diff_typed(&old.typed, &new.typed),
                _ => Vec::new(),
            },
        };
        new.chain(gone).map(change).collect()
    }

    /// All definitions once a file is applied, and that for the store.
    pub(crate) fn tasks_after(
        &self,
        file: &str,
        tasks: &BTreeMap<JobId, LoadedTask>,
    ) -> (AllDefined, Change) {
        let mut all = self.tasks.defined.clone();
        all.retain(|_, old| old.file != file);
        let mut rows = Vec::with_capacity(tasks.len());
        for (id, task) in tasks {
            rows.push(TaskRow {
                session: id.session.to_string(),
                name: id.job.to_string(),
                file: file.to_owned(),
                spec: task.typed.to_string(),
            });
            let defined = Defined {
                typed: task.typed.clone(),
                file: file.to_owned(),
            };
            all.insert(id.clone(), defined);
        }
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
