//! Schedules that files define: kept in the store of the node, replaced by what the file says next.

use super::service::Order;
use crate::defined::{self, InForce};
use crate::info::ObjectChange;
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

impl InForce for ScheduleDefined {
    fn typed(&self) -> &Value {
        &self.loaded.typed
    }

    fn file(&self) -> &str {
        &self.file
    }
}

fn in_force(loaded: &LoadedSchedule, file: String) -> ScheduleDefined {
    let loaded = loaded.clone();
    ScheduleDefined { loaded, file }
}

impl State {
    /// Which schedules applying a file adds, changes and removes.
    pub(crate) fn schedule_changes(
        &self,
        file: &str,
        schedules: &BTreeMap<JobId, LoadedSchedule>,
    ) -> Vec<ObjectChange> {
        defined::changes(
            &self.schedules.defined,
            file,
            schedules,
            gaffer_config::diff_typed,
        )
    }

    /// All definitions once a file is applied, and that for the store.
    pub(crate) fn schedules_after(
        &self,
        file: &str,
        schedules: &BTreeMap<JobId, LoadedSchedule>,
    ) -> (AllDefined, Change) {
        let (all, rows) = defined::after(&self.schedules.defined, file, schedules, in_force);
        let file = file.to_owned();
        (all, Change::Schedules { file, rows })
    }

    /// Files define these schedules now.
    pub(crate) fn define_schedules(&mut self, defined: AllDefined) {
        self.schedules.defined = defined;
        if !self.schedules.defined.is_empty() {
            self.open_queue_stores();
        }
        self.schedules.order(Order::Look);
    }
}
