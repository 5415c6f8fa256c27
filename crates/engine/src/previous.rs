//! What a file defined before it was applied last: kept with the apply itself, so that it can be taken back.
//!
//! Definitions are kept as they were typed, without a value of any file of variables. Taking back is an apply of its own, with a plan
//! and a hash; so it can be taken back too.

use crate::handle::Result;
use crate::info::Error;
use crate::plan::Draft;
use crate::state::State;
use crate::store::Change;
use gaffer_config::{
    Config, DaemonSettings, Origin, StoredHost, Webhook, load_job_json, load_queue_json, load_schedule_json,
    load_task_json,
};
use gaffer_core::name::Name;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

impl State {
    /// What the file of a draft defines now, for the store; nothing if it defines nothing yet.
    pub(crate) fn previous(&self, draft: &Draft, file: &str) -> Option<Change> {
        let own = |job: &gaffer_core::name::JobId| {
            let meta = self.jobs.get(job).filter(|meta| !meta.removed);
            meta.is_some_and(|meta| meta.file.as_deref() == Some(file))
        };
        let jobs = draft.present.iter().filter(|(job, _)| own(job));
        let jobs: Map<String, Value> = jobs
            .map(|(job, (_, loaded))| (job.to_string(), loaded.typed.clone()))
            .collect();
        let tasks = self.tasks.defined().iter().filter(|(_, task)| task.file == file);
        let tasks: Map<String, Value> = tasks
            .map(|(id, task)| (id.to_string(), task.typed.clone()))
            .collect();
        let hooks = self.hooks.list.iter().filter(|hook| hook.file == file);
        let hooks: Map<String, Value> = hooks
            .map(|hook| (hook.webhook.id(), hook.webhook.typed()))
            .collect();
        let queues = self.queues.defined.iter().filter(|(_, queue)| queue.file == file);
        let queues: Map<String, Value> = queues
            .map(|(id, queue)| (id.to_string(), queue.typed.clone()))
            .collect();
        let schedules = self.schedules.defined.iter().filter(|(_, one)| one.file == file);
        let schedules: Map<String, Value> = schedules
            .map(|(id, one)| (id.to_string(), one.loaded.typed.clone()))
            .collect();
        let all = [&jobs, &tasks, &queues, &schedules, &hooks];
        if all.iter().all(|objects| objects.is_empty()) {
            return None;
        }
        let spec = json!({
            "session": draft.config.session.as_str(), "jobs": jobs, "tasks": tasks, "queues": queues,
            "schedules": schedules, "webhooks": hooks,
        });
        Some(Change::Previous {
            file: file.to_owned(),
            spec: spec.to_string(),
        })
    }
}

/// What was kept, as if the file said it.
pub(crate) fn config(file: &Path, text: &str) -> Result<Config> {
    let unreadable = || {
        Error::Store(format!(
            "what {} said before cannot be understood",
            file.display()
        ))
    };
    let kept: Value = serde_json::from_str(text).map_err(|_| unreadable())?;
    let session = kept["session"].as_str().and_then(|text| Name::parse(text).ok());
    let origin = Origin {
        file: file.to_string_lossy().into_owned(),
        line: 0,
    };
    let objects = |kind: &str| {
        let all = kept[kind].as_object().cloned().unwrap_or_default();
        all.into_iter().filter_map(|(id, typed)| {
            let (session, name) = id.split_once('.')?;
            Some((session.to_owned(), name.to_owned(), typed))
        })
    };
    let mut jobs = BTreeMap::new();
    for (session, name, typed) in objects("jobs") {
        let mut loaded = load_job_json(&session, &name, &typed, &StoredHost).map_err(Error::Config)?;
        loaded.origin = Some(origin.clone());
        let id = format!("{session}.{name}").parse().map_err(|_| unreadable())?;
        jobs.insert(id, loaded);
    }
    let mut tasks = BTreeMap::new();
    for (session, name, typed) in objects("tasks") {
        let mut loaded = load_task_json(&session, &name, &typed, &StoredHost).map_err(Error::Config)?;
        loaded.origin = Some(origin.clone());
        tasks.insert(loaded.id.clone(), loaded);
    }
    let mut queues = BTreeMap::new();
    for (session, name, typed) in objects("queues") {
        let mut loaded = load_queue_json(&session, &name, &typed, &StoredHost).map_err(Error::Config)?;
        loaded.origin = Some(origin.clone());
        queues.insert(loaded.id.clone(), loaded);
    }
    let mut schedules = BTreeMap::new();
    for (session, name, typed) in objects("schedules") {
        let mut loaded = load_schedule_json(&session, &name, &typed).map_err(Error::Config)?;
        loaded.origin = Some(origin.clone());
        schedules.insert(loaded.id.clone(), loaded);
    }
    let webhooks =
        objects("webhooks").map(|(session, name, typed)| Webhook::from_typed(&session, &name, &typed));
    let webhooks = webhooks
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| unreadable())?;
    Ok(Config {
        daemon: DaemonSettings::default(),
        daemon_section: None,
        jobs,
        tasks,
        queues,
        schedules,
        webhooks,
        vars: BTreeSet::new(),
        session: session.ok_or_else(unreadable)?,
        warnings: Vec::new(),
        file: file.to_owned(),
    })
}
