//! Definitions as a `gaffer.toml`, everything merged: reading it gives the same definitions.

use crate::config::LoadedJob;
use crate::diff::{command, quoted_key, rank, toml_value};
use crate::export::{flat_env, in_start_order};
use crate::queue::LoadedQueue;
use crate::schedule::LoadedSchedule;
use crate::task::LoadedTask;
use gaffer_core::job::{EnvLayer, Launch};
use gaffer_core::name::{JobId, Name};
use gaffer_core::queue::spec::By;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What is to be written. Each kind of thing has its own names, and each name may occur once.
#[derive(Clone, Copy, Debug)]
pub struct Definitions<'a> {
    /// `[job.X]`.
    pub jobs: &'a BTreeMap<JobId, LoadedJob>,
    /// `[task.X]`.
    pub tasks: &'a BTreeMap<JobId, LoadedTask>,
    /// `[queue.X]`.
    pub queues: &'a BTreeMap<JobId, LoadedQueue>,
    /// `[schedule.X]`.
    pub schedules: &'a BTreeMap<JobId, LoadedSchedule>,
}

/// Keys that gaffer writes beside those of a file.
const NOT_TYPED: [&str; 6] = [
    "env",
    "env_digest",
    "env_layers",
    "env_without",
    "run_as",
    "step_order",
];
/// Their values are somebody else's data: they have no commands, and nothing in them is a key of ours.
const DATA: [&str; 5] = ["payload", "params", "schema", "meta", "labels"];

/// A program to be launched, and what was typed of it.
type Launched<'a> = (&'a Map<String, Value>, &'a Launch);

impl Definitions<'_> {
    /// The text. `session` is that of the file; what is of another says so.
    pub fn to_toml(&self, session: &Name) -> String {
        let mut out = format!("session = {}\n", toml_value(&json!(session.as_str())));
        let shared = shared_env(&self.launched());
        for (name, value) in shared.into_iter().flatten() {
            let _ = writeln!(out, "env.{} = {}", quoted_key(name), toml_value(&json!(value)));
        }
        let mut writer = Writer {
            out,
            session,
            shared: shared.is_some(),
        };
        for (id, job) in in_start_order(self.jobs) {
            let own = object(&job.typed);
            writer.object("job", id, own, Some(&job.spec.launch), &[]);
        }
        for (id, task) in self.tasks {
            writer.task(id, task);
        }
        for (id, queue) in self.queues {
            writer.queue(id, queue);
        }
        for (id, schedule) in self.schedules {
            writer.object("schedule", id, object(&schedule.typed), None, &[]);
        }
        writer.out
    }

    fn launched(&self) -> Vec<Launched<'_>> {
        let jobs = self
            .jobs
            .values()
            .map(|job| (object(&job.typed), &*job.spec.launch));
        let steps = self.tasks.values().flat_map(|task| {
            let steps = object(&task.typed["step"]);
            let launch = |step: &str| task.spec.steps.iter().find(|own| *own.name == *step);
            steps
                .iter()
                .filter_map(move |(name, typed)| Some((object(typed), &*launch(name)?.launch)))
        });
        let queues = self.queues.values().flat_map(|queue| {
            let own = launch_of(&queue.spec.work.by).map(|launch| (object(&queue.typed), launch));
            let kinds = queue.spec.kinds.iter().filter_map(|(name, work)| {
                let typed = object(&queue.typed["kind"][&**name]);
                Some((typed, launch_of(&work.by)?))
            });
            own.into_iter().chain(kinds)
        });
        jobs.chain(steps).chain(queues).collect()
    }
}

fn launch_of(by: &By) -> Option<&Launch> {
    match by {
        By::Cmd(launch) => Some(launch),
        _ => None,
    }
}

fn object(typed: &Value) -> &Map<String, Value> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    typed.as_object().unwrap_or(&NONE)
}

struct Writer<'a> {
    out: String,
    session: &'a Name,
    /// `[env]` is said for all.
    shared: bool,
}

impl Writer<'_> {
    fn object(
        &mut self,
        kind: &str,
        id: &JobId,
        typed: &Map<String, Value>,
        launch: Option<&Launch>,
        elsewhere: &[&str],
    ) {
        let _ = writeln!(self.out, "\n[{kind}.{}]", quoted_key(id.job.as_str()));
        if id.session != *self.session {
            let _ = writeln!(self.out, "session = {}", toml_value(&json!(id.session.as_str())));
        }
        self.keys(typed, launch, elsewhere);
    }

    fn task(&mut self, id: &JobId, task: &LoadedTask) {
        self.object("task", id, object(&task.typed), None, &["step"]);
        // In the order in which they are written they begin.
        for step in &task.spec.steps {
            let (task_name, name) = (quoted_key(id.job.as_str()), quoted_key(&step.name));
            let _ = writeln!(self.out, "\n[task.{task_name}.step.{name}]");
            let typed = object(&task.typed["step"][&*step.name]);
            self.keys(typed, Some(&step.launch), &[]);
        }
    }

    fn queue(&mut self, id: &JobId, queue: &LoadedQueue) {
        let launch = launch_of(&queue.spec.work.by);
        self.object("queue", id, object(&queue.typed), launch, &["kind"]);
        for (kind, work) in &queue.spec.kinds {
            let (queue_name, name) = (quoted_key(id.job.as_str()), quoted_key(kind));
            let _ = writeln!(self.out, "\n[queue.{queue_name}.kind.{name}]");
            let typed = object(&queue.typed["kind"][&**kind]);
            self.keys(typed, launch_of(&work.by), &[]);
        }
    }

    fn keys(&mut self, typed: &Map<String, Value>, launch: Option<&Launch>, elsewhere: &[&str]) {
        let mut lines: Vec<(String, String)> = Vec::new();
        for (key, value) in typed {
            let key = key.as_str();
            if NOT_TYPED.contains(&key) || elsewhere.contains(&key) {
                continue;
            }
            if !has_null(value) {
                toml_lines(key, value, &mut lines);
            } else if !value.is_null() {
                let _ = writeln!(
                    self.out,
                    "# {key} has a null, for which TOML has no word: {value}"
                );
            }
        }
        if let Some(names) = typed.get("env_without").and_then(Value::as_array) {
            let names = names.iter().filter_map(Value::as_str);
            let unset: Vec<String> = names.map(|name| format!("env.{name}")).collect();
            lines.push(("unset".to_owned(), toml_value(&json!(unset))));
        }
        let env = launch.map(|launch| env_above_files(typed, launch, self.shared));
        lines.extend(
            env.iter()
                .flatten()
                .map(|(name, value)| (format!("env.{}", quoted_key(name)), toml_value(&json!(value)))),
        );
        lines.sort_by_key(|(path, _)| (rank(path), path.clone()));
        for (path, value) in lines {
            let _ = writeln!(self.out, "{path} = {value}");
        }
    }
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.iter().any(has_null),
        Value::Object(map) => map.values().any(has_null),
        _ => false,
    }
}

/// Tables as dotted keys, down to the values.
fn toml_lines(path: &str, value: &Value, out: &mut Vec<(String, String)>) {
    let is_command = path.rsplit('.').next() == Some("cmd") || path == "wrap";
    match value {
        value if DATA.contains(&path) => out.push((path.to_owned(), toml_value(value))),
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                toml_lines(&format!("{path}.{}", quoted_key(key)), value, out);
            }
        }
        value if is_command => out.push((path.to_owned(), command(value))),
        value => out.push((path.to_owned(), toml_value(value))),
    }
}

/// `[env]` of all of these, if files of variables stand above it and it is the same for all.
fn shared_env<'a>(all: &[Launched<'a>]) -> Option<&'a EnvLayer> {
    if all.iter().all(|(typed, _)| typed.get("env_file").is_none()) {
        return None;
    }
    let mut layers = all.iter().map(|(typed, _)| typed.get("env_layers"));
    let (first, (_, launch)) = (layers.next()??, all.first()?);
    let same = layers.all(|layer| layer == Some(first));
    launch.env.first().filter(|_| same && !is_empty(first))
}

/// What one says for itself beside the files of variables that it names: not their values. Of an `[env]` below
/// them that is not said for all, what they leave alone.
fn env_above_files(typed: &Map<String, Value>, launch: &Launch, shared: bool) -> BTreeMap<String, String> {
    let mut launch = launch.clone();
    if !shared && typed.get("env_file").is_none() {
        return flat_env(&launch);
    }
    let count = |key: &str| usize::from(typed.get(key).is_some_and(|value| !is_empty(value)));
    let (below, own) = (count("env_layers"), count("env"));
    let own_from = launch.env.len().saturating_sub(own).max(below);
    let files: Vec<_> = launch.env.drain(below..own_from).flatten().collect();
    if below == 1 {
        let in_file = |name: &str| files.iter().any(|(known, _)| known == name);
        launch.env[0].retain(|(name, _)| !shared && !in_file(name));
    }
    flat_env(&launch)
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}
