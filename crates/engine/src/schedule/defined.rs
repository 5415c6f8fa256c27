//! Schedules that files define: kept in the store of the node, replaced by what the file says next.

use super::service::Order;
use crate::info::{PlanAction, ScheduleChange};
use crate::state::State;
use crate::store::{Change, TaskRow};
use gaffer_config::{LoadedSchedule, load_schedule_json};
use gaffer_core::name::JobId;
use serde_json::Value;
use std::collections::BTreeMap;

/// A definition in force.
#[derive(Clone, Debug)]
pub struct ScheduleDefined {
    /// What it means.
    pub loaded: LoadedSchedule,
    /// File that it came from.
    pub file: String,
}

/// All definitions by session and name.
pub(crate) type AllDefined = BTreeMap<JobId, ScheduleDefined>;

/// What the store has.
pub(crate) fn from_rows(rows: &[TaskRow]) -> AllDefined {
    let mut all = AllDefined::new();
    for row in rows {
        let typed: Result<Value, _> = serde_json::from_str(&row.spec);
        let loaded = typed.map_err(|error| error.to_string()).and_then(|typed| {
            load_schedule_json(&row.session, &row.name, &typed).map_err(|errors| errors.render(false))
        });
        match loaded {
            Ok(loaded) => {
                let file = row.file.clone();
                all.insert(loaded.id.clone(), ScheduleDefined { loaded, file });
            }
            Err(why) => tracing::error!(
                session = row.session,
                schedule = row.name,
                why,
                "a stored schedule cannot be understood"
            ),
        }
    }
    all
}

impl State {
    /// Which schedules applying a file adds, changes and removes.
    pub(crate) fn schedule_changes(
        &self,
        file: &str,
        schedules: &BTreeMap<JobId, LoadedSchedule>,
    ) -> Vec<ScheduleChange> {
        let defined = &self.schedules.defined;
        let new = schedules.iter().filter_map(|(id, new)| match defined.get(id) {
            None => Some((PlanAction::Add, id)),
            Some(old) if old.loaded.typed != new.typed || old.file != file => Some((PlanAction::Change, id)),
            Some(_) => None,
        });
        let gone = defined
            .iter()
            .filter(|(id, old)| old.file == file && !schedules.contains_key(id))
            .map(|(id, _)| (PlanAction::Remove, id));
        let change = |(action, id): (PlanAction, &JobId)| ScheduleChange {
            action,
            schedule: id.clone(),
            keys: match (defined.get(id), schedules.get(id)) {
                (Some(old), Some(new)) => gaffer_config::diff_typed(&old.loaded.typed, &new.typed),
                _ => Vec::new(),
            },
        };
        new.chain(gone).map(change).collect()
    }

    /// All definitions once a file is applied, and that for the store.
    pub(crate) fn schedules_after(
        &self,
        file: &str,
        schedules: &BTreeMap<JobId, LoadedSchedule>,
    ) -> (AllDefined, Change) {
        let mut all = self.schedules.defined.clone();
        all.retain(|_, old| old.file != file);
        let mut rows = Vec::with_capacity(schedules.len());
        for (id, loaded) in schedules {
            rows.push(TaskRow {
                session: id.session.to_string(),
                name: id.job.to_string(),
                file: file.to_owned(),
                spec: loaded.typed.to_string(),
            });
            let defined = ScheduleDefined {
                loaded: loaded.clone(),
                file: file.to_owned(),
            };
            all.insert(id.clone(), defined);
        }
        let file = file.to_owned();
        (all, Change::Schedules { file, rows })
    }

    /// Files define these schedules now.
    pub(crate) fn define_schedules(&mut self, defined: AllDefined) {
        self.schedules.defined = defined;
        if !self.schedules.defined.is_empty() {
            self.open_queue_store();
        }
        self.schedules.order(Order::Look);
    }
}
