//! Tasks that files define: kept in the store, replaced by what the file says next, run by their name.
//!
//! A run keeps the definition that it was started with in its own checkpoint: a change counts from the next run.

use super::definition::{Definition, DefinitionError};
use crate::defined::{self, InForce};
use crate::handle::{Handle, Result};
use crate::info::{Error, ObjectChange};
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

impl InForce for Defined {
    fn typed(&self) -> &Value {
        &self.typed
    }

    fn file(&self) -> &str {
        &self.file
    }
}

fn in_force(loaded: &LoadedTask, file: String) -> Defined {
    let typed = loaded.typed.clone();
    Defined { typed, file }
}

impl State {
    /// Which tasks applying a file adds, changes and removes.
    pub(crate) fn task_changes(&self, file: &str, tasks: &BTreeMap<JobId, LoadedTask>) -> Vec<ObjectChange> {
        defined::changes(&self.tasks.defined, file, tasks, gaffer_config::diff_typed)
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
