//! Tasks, queues and schedules that files define: what is in force, what a file says next, what that changes.

use crate::info::{ObjectChange, PlanAction};
use crate::store::TaskRow;
use gaffer_core::name::JobId;
use serde_json::Value;
use std::collections::BTreeMap;

/// A definition in force.
pub(crate) trait InForce {
    /// As it was typed.
    fn typed(&self) -> &Value;
    /// File that it came from.
    fn file(&self) -> &str;
}

/// A definition that was just read.
pub(crate) trait Loaded {
    /// As it was typed.
    fn typed(&self) -> &Value;
}

impl Loaded for gaffer_config::LoadedTask {
    fn typed(&self) -> &Value {
        &self.typed
    }
}

impl Loaded for gaffer_config::LoadedQueue {
    fn typed(&self) -> &Value {
        &self.typed
    }
}

impl Loaded for gaffer_config::LoadedSchedule {
    fn typed(&self) -> &Value {
        &self.typed
    }
}

/// Which objects applying a file adds, changes and removes.
pub(crate) fn changes<D: InForce, L: Loaded>(
    in_force: &BTreeMap<JobId, D>,
    file: &str,
    loaded: &BTreeMap<JobId, L>,
    diff: fn(&Value, &Value) -> Vec<gaffer_config::Change>,
) -> Vec<ObjectChange> {
    let new = loaded.iter().filter_map(|(id, new)| match in_force.get(id) {
        None => Some((PlanAction::Add, id)),
        Some(old) if old.typed() != new.typed() || old.file() != file => Some((PlanAction::Change, id)),
        Some(_) => None,
    });
    let gone = in_force
        .iter()
        .filter(|(id, old)| old.file() == file && !loaded.contains_key(id))
        .map(|(id, _)| (PlanAction::Remove, id));
    let change = |(action, id): (PlanAction, &JobId)| ObjectChange {
        action,
        id: id.clone(),
        runs: false,
        keys: match (in_force.get(id), loaded.get(id)) {
            (Some(old), Some(new)) => diff(old.typed(), new.typed()),
            _ => Vec::new(),
        },
    };
    new.chain(gone).map(change).collect()
}

/// All definitions once a file is applied, and those of the file for the store.
pub(crate) fn after<D: InForce + Clone, L: Loaded>(
    in_force: &BTreeMap<JobId, D>,
    file: &str,
    loaded: &BTreeMap<JobId, L>,
    define: fn(&L, String) -> D,
) -> (BTreeMap<JobId, D>, Vec<TaskRow>) {
    let mut all = in_force.clone();
    all.retain(|_, old| old.file() != file);
    let mut rows = Vec::with_capacity(loaded.len());
    for (id, loaded) in loaded {
        rows.push(TaskRow {
            session: id.session.to_string(),
            name: id.job.to_string(),
            file: file.to_owned(),
            spec: loaded.typed().to_string(),
        });
        all.insert(id.clone(), define(loaded, file.to_owned()));
    }
    (all, rows)
}
