//! Queues that files define: kept in the store of the node, replaced by what the file says next.

use crate::defined::{self, InForce};
use crate::info::ObjectChange;
use crate::state::State;
use crate::store::{Change, TaskRow};
use gaffer_config::{LoadedQueue, StoredHost, load_queue_json};
use gaffer_core::name::JobId;
use gaffer_core::queue::spec::Queue;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A definition in force.
#[derive(Clone, Debug)]
pub struct QueueDefined {
    /// For the machine: with as many workers as an operator wants.
    pub spec: Arc<Queue>,
    /// Workers that the file says.
    pub workers: u32,
    /// Keys of `[queue.X]`.
    pub typed: Value,
    /// File that it came from.
    pub file: String,
}

/// All definitions by session and name.
pub(crate) type AllDefined = BTreeMap<JobId, QueueDefined>;

/// What the store has.
pub(crate) fn from_rows(rows: &[TaskRow]) -> AllDefined {
    let mut all = AllDefined::new();
    for row in rows {
        let typed: Result<Value, _> = serde_json::from_str(&row.spec);
        let loaded = typed.map_err(|error| error.to_string()).and_then(|typed| {
            load_queue_json(&row.session, &row.name, &typed, &StoredHost)
                .map_err(|errors| errors.render(false))
        });
        match loaded {
            Ok(loaded) => {
                let file = row.file.clone();
                all.insert(loaded.id.clone(), in_force(&loaded, file));
            }
            // Its tasks wait: nothing is lost because of a text that we cannot read.
            Err(why) => tracing::error!(
                session = row.session,
                queue = row.name,
                why,
                "a stored queue cannot be understood"
            ),
        }
    }
    all
}

fn in_force(loaded: &LoadedQueue, file: String) -> QueueDefined {
    QueueDefined {
        spec: loaded.spec.clone(),
        workers: loaded.spec.workers,
        typed: loaded.typed.clone(),
        file,
    }
}

impl InForce for QueueDefined {
    fn typed(&self) -> &Value {
        &self.typed
    }

    fn file(&self) -> &str {
        &self.file
    }
}

impl State {
    /// Which queues applying a file adds, changes and removes.
    pub(crate) fn queue_changes(
        &self,
        file: &str,
        queues: &BTreeMap<JobId, LoadedQueue>,
    ) -> Vec<ObjectChange> {
        defined::changes(&self.queues.defined, file, queues, gaffer_config::diff_queue)
    }

    /// All definitions once a file is applied, and that for the store.
    pub(crate) fn queues_after(
        &mut self,
        file: &str,
        queues: &BTreeMap<JobId, LoadedQueue>,
    ) -> (AllDefined, Vec<Change>) {
        let (all, rows) = defined::after(&self.queues.defined, file, queues, in_force);
        let mut changes = self.queues.homes.keep_numbers(&all);
        // One that comes back later begins with what its file says.
        let gone = self
            .queues
            .scaled
            .keys()
            .filter(|queue| !all.contains_key(*queue));
        changes.extend(gone.map(|queue| super::scale::change(queue, None)));
        let file = file.to_owned();
        changes.push(Change::Queues { file, rows });
        (all, changes)
    }
}
