//! A job as the old APIs write it ↔ a definition of today.
//!
//! The object is kept as it came, in the definition's `meta` under [`KEPT`]: so it is in the store, survives the daemon,
//! and is given back unchanged with members nobody here knows. Jobs that came from elsewhere are described from their
//! definition.

use crate::legacy::error::{LegacyError, Result, config};
use gaffer::Handle;
use gaffer::info::JobInfo;
use gaffer_config::{LoadedJob, RunContext, escape_templates};
use gaffer_core::job::{EnvInherit, Job, Stdin};
use gaffer_core::name::JobId;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Key of `meta` that holds the object as it came, and when the job was first loaded.
pub const KEPT: &str = "legacy";

/// A job object of a request, checked as far as it can be without knowing where it goes.
#[derive(Clone, Debug)]
pub struct Template {
    /// As given.
    pub name: String,
    /// As given, without `start`.
    pub object: Map<String, Value>,
    /// `start`, if given.
    pub start: Option<bool>,
}

impl Template {
    /// Reads a body. `name`: of the path, where the body need not have one.
    pub fn read(body: &Value, name: Option<&str>) -> Result<Template> {
        let wrong = |what: &str| LegacyError::bad_request(format!("invalid process config: {what}"));
        let Some(object) = body.as_object() else {
            return Err(wrong("it is not an object"));
        };
        let mut object = object.clone();
        // Open sockets of an embedder: there is no way to write them down.
        object.remove("custom_channels");
        let start = match object.remove("start") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(start)) => Some(start),
            Some(_) => return Err(wrong("`start` is true or false")),
        };
        match object.get("cmd") {
            Some(Value::String(cmd)) if !cmd.trim().is_empty() => {}
            Some(_) => return Err(wrong("`cmd` is a text")),
            None => return Err(wrong("`cmd` is missing")),
        }
        let name = match (object.get("name"), name) {
            (Some(Value::String(given)), _) if !given.is_empty() => given.clone(),
            (None, Some(path)) => path.to_owned(),
            (None, None) => return Err(wrong("`name` is missing")),
            (Some(_), _) => return Err(wrong("`name` is a text")),
        };
        Ok(Template { name, object, start })
    }

    /// The definition. `env`: of the session, over the job's own; it is not written back into the template.
    pub fn load(
        &self,
        handle: &Handle,
        job: &JobId,
        env: Option<&Map<String, Value>>,
        start: bool,
        created: i64,
    ) -> Result<LoadedJob> {
        let mut object = self.object.clone();
        object.insert("name".to_owned(), job.job.as_str().into());
        let value = Value::Object(object.clone());
        // A group of 0.4, kept and given back; today's `group` is the user's.
        object.remove("group");
        let object = Value::Object(object);
        let mut typed =
            gaffer_config::legacy_job(job.job.as_str(), &object).map_err(|error| config(&error))?;
        let kept = json!({ "created": created, "job": value });
        typed["start"] = start.into();
        if let Some(env) = env {
            for (name, value) in env {
                typed["env"][name] = escape_templates(&text_of(value)?).into();
            }
        }
        match typed.get_mut("meta").and_then(Value::as_object_mut) {
            Some(meta) => drop(meta.insert(KEPT.to_owned(), kept.to_string().into())),
            None => typed["meta"] = json!({ KEPT: kept.to_string() }),
        }
        let loaded = handle.load_job(job, &typed)?;
        check(&loaded.spec, job)?;
        Ok(loaded)
    }
}

fn text_of(value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        _ => Err(LegacyError::bad_request("`env` holds texts")),
    }
}

/// Names and texts of an `env` member of a request.
pub fn env_of(value: Option<&Value>) -> Result<Vec<(String, String)>> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(map)) => map
            .iter()
            .map(|(name, value)| Ok((name.clone(), text_of(value)?)))
            .collect(),
        Some(_) => Err(LegacyError::bad_request("`env` is an object")),
    }
}

/// A name without a value is an error before anything is loaded.
fn check(spec: &Job, job: &JobId) -> Result<()> {
    let base = daemon_env();
    expand(spec, job, &base)
        .map(drop)
        .map_err(|error| LegacyError::bad_request(format!("invalid process config: {error}")))
}

/// The environment of this process, where it is text.
pub fn daemon_env() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// A launch with everything filled in, as for its first instance.
pub fn expand(
    spec: &Job,
    job: &JobId,
    base_env: &BTreeMap<String, String>,
) -> std::result::Result<gaffer_config::Expanded, gaffer_config::ExpandError> {
    let ports: BTreeMap<String, u16> = ports(spec);
    let context = RunContext {
        node: "",
        job,
        instance: Some(1),
        run: "",
        attempt: 1,
        ports: &ports,
        base_env,
        shell: gaffer_config::DEFAULT_SHELL,
        task: None,
        queue: None,
        added: &[],
    };
    gaffer_config::expand(&spec.launch, &context)
}

/// Ports are chosen at each start; here any will do.
fn ports(spec: &Job) -> BTreeMap<String, u16> {
    let launch = &spec.launch;
    let named = launch.ports.keys().map(|name| (name.clone(), 1));
    named.chain(launch.port.map(|_| (String::new(), 1))).collect()
}

/// What is kept of an object that came over an old API.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Unix milliseconds.
    pub created: i64,
    /// The object, without `start`.
    pub object: Map<String, Value>,
}

/// The object that a job was loaded with over an old API, if it was.
pub fn kept(spec: &Job) -> Option<Kept> {
    let mut kept: Value = serde_json::from_str(spec.meta.get(KEPT)?).ok()?;
    match kept["job"].take() {
        Value::Object(object) => Some(Kept {
            created: kept["created"].as_i64().unwrap_or(0),
            object,
        }),
        _ => None,
    }
}

/// A job as the old APIs show it: the object it was loaded with, or one made from its definition.
pub async fn of(handle: &Handle, info: &JobInfo) -> Map<String, Value> {
    if let Some(kept) = kept(&info.spec) {
        return kept.object;
    }
    // One that went meanwhile is shown without what only the store knows.
    let typed = handle.job_typed(&info.view.job).await.unwrap_or_default();
    described(&info.view.job, &info.spec, &typed)
}

fn described(job: &JobId, spec: &Job, typed: &Value) -> Map<String, Value> {
    let launch = &spec.launch;
    let mut words = launch.cmd.iter();
    let cmd = words.next().cloned().unwrap_or_default();
    let env = typed.get("env").filter(|env| env.is_object());
    let user = typed.get("user").cloned().unwrap_or(Value::Null);
    let group = typed.get("group").cloned().unwrap_or(Value::Null);
    let flapping = spec.flapping.as_ref().map(|one| {
        json!({
            "attempts": one.exits, "window": one.window.as_secs_f64(),
            "retry_in": one.pause.as_secs_f64(), "max_retry": one.rounds,
        })
    });
    let shown = json!({
        "name": job.job.as_str(),
        "cmd": cmd,
        "args": words.collect::<Vec<_>>(),
        "env": env.cloned().unwrap_or_else(|| json!({})),
        "os_env": launch.env_inherit == EnvInherit::All,
        "uid": user,
        "gid": group,
        "cwd": launch.cwd,
        "shell": launch.shell.is_some(),
        "detach": spec.keep_running,
        "numprocesses": spec.instances,
        "flapping": flapping,
        "graceful_timeout": spec.stop.timeout.as_secs_f64(),
        "redirect_output": labels_of(spec, typed),
        "redirect_input": launch.stdin == Stdin::Pipe,
        "custom_streams": launch.streams,
    });
    match shown {
        Value::Object(shown) => shown,
        _ => Map::new(),
    }
}

fn labels_of(spec: &Job, typed: &Value) -> Vec<String> {
    let written = typed["logs"]["labels"].as_array();
    let written = written.map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    let mut labels = written.unwrap_or_else(|| vec!["stdout".to_owned(), "stderr".to_owned()]);
    if spec.launch.stdout == gaffer_core::job::Output::Null {
        labels.clear();
    }
    labels
}

/// Labels of a template's outputs: the first is stdout, the second stderr, or stdout once more.
pub fn labels(template: &Map<String, Value>) -> Vec<(String, &'static str)> {
    let listed = list(template.get("redirect_output"));
    let mut named: Vec<(String, &'static str)> = Vec::new();
    for (label, stream) in listed.into_iter().zip(["stdout", "stderr"]) {
        if named.iter().all(|(other, _)| *other != label) {
            named.push((label, stream));
        }
    }
    named
}

/// Labels of a template's two-way streams.
pub fn custom_streams(template: &Map<String, Value>) -> Vec<String> {
    list(template.get("custom_streams"))
}

/// A list, also if it is written with commas.
pub fn list(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(text)) => {
            let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
            words.map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}
