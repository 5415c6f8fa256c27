//! A task as its file in the root has it, and as the machines need it.
//!
//! A file is the JSON of a Thermos task, or that of a native one: `{"session", "name", "params", "task"}` with the keys of `[task.X]`
//! in `task`, every step in it. Files of variables are named there; their values are never kept.

use gaffer_config::{
    Host, Keep, Lifecycle, LoadedTask, StoredHost, SystemHost, ThermosContext, ThermosTask, load_task_json,
    load_thermos_json,
};
use gaffer_core::job::{After, Launch, User};
use gaffer_core::name::JobId;
use gaffer_core::task::fold::{History, Run};
use gaffer_core::task::record::{Header, StepState};
use gaffer_core::task::spec::{Step, Task};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A task that can be run.
#[derive(Clone, Debug)]
pub struct Definition {
    /// For the machine.
    pub spec: Arc<Task>,
    /// As it is kept: everything filled in.
    pub json: Value,
    /// How its programs are asked to end before they are signalled.
    pub lifecycle: Option<Lifecycle>,
    /// The task fails when its working directory takes more than these bytes.
    pub disk: Option<u64>,
    /// What only a native task has; none: it is one of Thermos.
    pub native: Option<Arc<Native>>,
}

/// What only a native task has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Native {
    /// Session and name.
    pub id: JobId,
    /// Values of `{{params.N}}`.
    pub params: BTreeMap<String, String>,
    /// No two tasks with one key are active at once.
    pub unique: Option<String>,
    /// Jobs that it comes after.
    pub after: After,
    /// Tasks that it comes after.
    pub after_tasks: After,
    /// How long its runs are kept.
    pub keep: Keep,
}

/// A definition that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionError {
    /// It was kept, and cannot be understood.
    #[error("the definition of the task cannot be understood: {0}")]
    Unreadable(String),
    /// A parameter that the task does not have.
    #[error("task {task} has no parameter `{name}`{known}")]
    UnknownParam {
        /// Name of the task.
        task: JobId,
        /// What was given.
        name: String,
        /// ` (it has a, b)`.
        known: String,
    },
    /// A parameter without a value.
    #[error("task {task} needs a value for parameter `{name}`: -E {name}=VALUE")]
    NoParam {
        /// Name of the task.
        task: JobId,
        /// Which.
        name: String,
    },
}

impl From<ThermosTask> for Definition {
    fn from(task: ThermosTask) -> Definition {
        Definition {
            spec: task.spec,
            json: task.json,
            lifecycle: task.lifecycle,
            disk: task.disk,
            native: None,
        }
    }
}

/// Who the steps of a task run as, if not as us. A user that has gone keeps its number.
fn run_as(header: &Header) -> Option<User> {
    let uid = header
        .uid
        .filter(|uid| *uid != rustix::process::geteuid().as_raw())?;
    let named = SystemHost::new().user_named(&header.user);
    let known = named.filter(|user| user.uid == uid);
    Some(known.unwrap_or_else(|| User {
        name: header.user.to_string(),
        uid,
        gid: uid,
        groups: Vec::new(),
        home: "/".to_owned(),
        shell: "/bin/sh".to_owned(),
    }))
}

impl Definition {
    /// A native task with values for its parameters.
    pub fn native(task: LoadedTask, given: &BTreeMap<String, String>) -> Result<Definition, DefinitionError> {
        if let Some(name) = given.keys().find(|name| !task.params.contains_key(*name)) {
            let known: Vec<&str> = task.params.keys().map(String::as_str).collect();
            return Err(DefinitionError::UnknownParam {
                task: task.id,
                name: name.clone(),
                known: match known[..] {
                    [] => String::new(),
                    _ => format!(" (it has {})", known.join(", ")),
                },
            });
        }
        let mut params = BTreeMap::new();
        for (name, default) in &task.params {
            let value = given.get(name).or(default.as_ref());
            let value = value.ok_or_else(|| DefinitionError::NoParam {
                task: task.id.clone(),
                name: name.clone(),
            })?;
            params.insert(name.clone(), value.clone());
        }
        let unique = task.unique.key(&task.id, &params);
        Ok(Definition {
            json: json!({
                "session": task.id.session.as_str(), "name": task.id.job.as_str(), "params": params, "task": task.typed,
            }),
            spec: task.spec,
            lifecycle: None,
            disk: None,
            native: Some(Arc::new(Native {
                id: task.id,
                params,
                unique,
                after: task.after,
                after_tasks: task.after_tasks,
                keep: task.keep,
            })),
        })
    }

    /// What was kept, with what its header says of where and as whom it runs.
    pub fn again(text: &[u8], header: &Header) -> Result<Definition, DefinitionError> {
        let unreadable = |error: String| DefinitionError::Unreadable(error);
        let json: Value = serde_json::from_slice(text).map_err(|error| unreadable(error.to_string()))?;
        if let (Some(task), Some(name)) = (json.get("task"), json.get("name").and_then(Value::as_str)) {
            let session = json.get("session").and_then(Value::as_str).unwrap_or_default();
            let loaded = load_task_json(session, name, task, &StoredHost);
            let loaded = loaded.map_err(|errors| unreadable(errors.render(false)))?;
            let params = json.get("params").cloned().unwrap_or_default();
            let params = serde_json::from_value(params).map_err(|error| unreadable(error.to_string()))?;
            return Definition::native(loaded, &params);
        }
        let context = ThermosContext {
            task: None,
            task_id: header.task_id.to_string(),
            user: header.user.to_string(),
            run_as: run_as(header),
            ports: header
                .ports
                .iter()
                .map(|(name, port)| (name.to_string(), *port))
                .collect(),
            bindings: BTreeMap::new(),
            sandbox: header.sandbox.to_string(),
        };
        load_thermos_json(&json, &context)
            .map(Definition::from)
            .map_err(|errors| unreadable(errors.render(false)))
    }

    /// What a checkpoint alone says of a task whose definition cannot be read: its steps by their names. None of them may be begun.
    pub(super) fn bare(history: &History) -> Definition {
        let step = |(name, runs): (&Arc<str>, &Vec<Run>)| {
            let mut step = Step::of(name.clone(), Launch::of(vec!["false".to_owned()]));
            step.retry.attempts = None;
            step.stop.timeout = Duration::ZERO;
            let earlier = runs.iter().rev().skip(1);
            step.restart_always = earlier.into_iter().any(|run| run.state == StepState::Success);
            step
        };
        let carried = history
            .carried
            .keys()
            .filter(|name| !history.steps.contains_key(*name));
        let carried = carried.map(|name| Step::of(name.clone(), Launch::of(vec!["false".to_owned()])));
        let steps = history.steps.iter().map(step).chain(carried).collect();
        let name = history
            .header
            .as_ref()
            .map_or("task".into(), |header| header.task_id.clone());
        let mut spec = Task::of(name, steps);
        spec.failures = None;
        Definition {
            spec: Arc::new(spec),
            json: Value::Null,
            lifecycle: None,
            disk: None,
            native: None,
        }
    }

    /// Session of a native task, else nothing.
    pub fn session(&self) -> String {
        let native = self.native.as_ref();
        native
            .map(|native| native.id.session.to_string())
            .unwrap_or_default()
    }

    /// The bytes of its file.
    pub fn bytes(&self) -> Vec<u8> {
        // Texts, numbers and lists always have a JSON form.
        let mut bytes = serde_json::to_vec_pretty(&self.json).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}
