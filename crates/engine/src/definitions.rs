//! What is defined, with the keys of the files that it came from.

use crate::handle::{Handle, Result};
use crate::info::Error;
use crate::owner::lock;
use gaffer_core::name::JobId;
use serde_json::Value;
use std::collections::BTreeMap;

/// Definitions by session and name, each an object with the keys of its table in `gaffer.toml`.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    /// `[job.X]`.
    pub jobs: BTreeMap<JobId, Value>,
    /// `[task.X]`.
    pub tasks: BTreeMap<JobId, Value>,
    /// `[queue.X]`.
    pub queues: BTreeMap<JobId, Value>,
    /// `[schedule.X]`.
    pub schedules: BTreeMap<JobId, Value>,
}

impl Handle {
    /// Everything that is defined, or what is of one session.
    pub async fn definitions(&self, session: Option<&str>) -> Result<Definitions> {
        let jobs = self.jobs_typed(session).await?;
        let state = lock(&self.state);
        let one = |id: &JobId, typed: &Value| {
            let wanted = session.is_none_or(|session| session == id.session.as_str());
            wanted.then(|| (id.clone(), shown(typed.clone())))
        };
        let tasks = state.tasks.defined().iter();
        let queues = state.queues.defined.iter();
        let schedules = state.schedules.defined.iter();
        Ok(Definitions {
            jobs,
            tasks: tasks.filter_map(|(id, own)| one(id, &own.typed)).collect(),
            queues: queues.filter_map(|(id, own)| one(id, &own.typed)).collect(),
            schedules: schedules
                .filter_map(|(id, own)| one(id, &own.loaded.typed))
                .collect(),
        })
    }

    /// Jobs alone, as [`Handle::definitions`] has them.
    pub async fn jobs_typed(&self, session: Option<&str>) -> Result<BTreeMap<JobId, Value>> {
        let rows = self.store.job_specs().await;
        let rows = rows.map_err(|error| Error::Store(error.to_string()))?;
        let mut texts: BTreeMap<(String, String), String> = rows
            .into_iter()
            .map(|(session, job, text)| ((session, job), text))
            .collect();
        let mut typed = BTreeMap::new();
        for job in self.jobs(session) {
            let job = job.view.job;
            let Some(text) = texts.remove(&(job.session.to_string(), job.job.to_string())) else {
                continue;
            };
            let value = serde_json::from_str(&text).map_err(|error| Error::Store(error.to_string()))?;
            typed.insert(job, shown(value));
        }
        Ok(typed)
    }
}

/// Without the password of a queue's store, and without the digest of secret values, which is nobody's concern: short ones could be
/// guessed from it.
pub(crate) fn shown(mut typed: Value) -> Value {
    if let Some(Value::String(store)) = typed.get_mut("store") {
        *store = gaffer_config::without_password(store);
    }
    let without = |typed: &mut Value| drop(typed.as_object_mut().map(|typed| typed.remove("env_digest")));
    without(&mut typed);
    for parts in ["step", "kind"] {
        let parts = typed.get_mut(parts).and_then(Value::as_object_mut);
        parts
            .into_iter()
            .flat_map(|parts| parts.values_mut())
            .for_each(without);
    }
    typed
}
