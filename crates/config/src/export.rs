//! A configuration in other forms: Procfile, ini, JSON, systemd units, gaffer.toml.

use crate::config::{Config, LoadedJob};
use crate::diff::command_word;
use crate::export_toml::Definitions;
use crate::launch::port_variable;
use crate::template::{Piece, pieces};
use gaffer_core::job::{EnvInherit, Launch, Stdin};
use gaffer_core::name::JobId;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// `name: command` lines.
    Procfile,
    /// `gaffer.ini` of the original.
    Ini,
    /// JSON job file of the original.
    Json,
    /// Unit files, one after the other, each with a comment that names it.
    Systemd,
    /// `gaffer.toml`, everything merged.
    Toml,
}

/// Not one of the forms.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not one of procfile, ini, json, systemd, toml")]
pub struct UnknownFormat(pub String);

impl FromStr for ExportFormat {
    type Err = UnknownFormat;
    fn from_str(text: &str) -> Result<ExportFormat, UnknownFormat> {
        Ok(match text {
            "procfile" => ExportFormat::Procfile,
            "ini" => ExportFormat::Ini,
            "json" => ExportFormat::Json,
            "systemd" => ExportFormat::Systemd,
            "toml" => ExportFormat::Toml,
            other => return Err(UnknownFormat(other.to_owned())),
        })
    }
}

impl Config {
    /// Names of all that is defined, each once.
    pub fn names(&self) -> BTreeSet<String> {
        let ids = self.jobs.keys().chain(self.tasks.keys());
        let ids = ids.chain(self.queues.keys()).chain(self.schedules.keys());
        let hooks = self.webhooks.iter().map(|hook| hook.name.to_string());
        ids.map(|id| id.job.to_string()).chain(hooks).collect()
    }

    /// Leaves what has this name (or session and name), whatever it is. False: then nothing is left.
    pub fn retain(&mut self, name: &str) -> bool {
        let is_it = |id: &JobId| id.job.to_string() == name || id.to_string() == name;
        self.jobs.retain(|id, _| is_it(id));
        self.tasks.retain(|id, _| is_it(id));
        self.queues.retain(|id, _| is_it(id));
        self.schedules.retain(|id, _| is_it(id));
        self.webhooks
            .retain(|hook| *hook.name.as_str() == *name || hook.id() == name);
        !self.names().is_empty()
    }
}

/// The text. What a form cannot say stands in it as a comment (JSON has none: there it is left out).
pub fn export(config: &Config, format: ExportFormat) -> String {
    match format {
        ExportFormat::Procfile => procfile(config) + &beside_jobs(config),
        ExportFormat::Ini => ini(config) + &beside_jobs(config),
        ExportFormat::Json => json_file(config),
        ExportFormat::Systemd => crate::systemd::units(config) + &beside_jobs(config),
        ExportFormat::Toml => {
            let definitions = Definitions {
                jobs: &config.jobs,
                tasks: &config.tasks,
                queues: &config.queues,
                schedules: &config.schedules,
            };
            definitions.to_toml(&config.session) + &crate::webhook::to_toml(config)
        }
    }
}

/// What only a `gaffer.toml` can say, by name.
fn beside_jobs(config: &Config) -> String {
    let tasks = config.tasks.keys().map(|id| format!("task {}", id.job));
    let queues = config.queues.keys().map(|id| format!("queue {}", id.job));
    let schedules = config.schedules.keys().map(|id| format!("schedule {}", id.job));
    let webhooks = config
        .webhooks
        .iter()
        .map(|hook| format!("webhook {}", hook.name));
    let all: Vec<String> = tasks.chain(queues).chain(schedules).chain(webhooks).collect();
    if all.is_empty() {
        return String::new();
    }
    format!("# not said here: {}\n", all.join(", "))
}

/// Jobs in the order in which they start.
pub(crate) fn in_start_order(jobs: &BTreeMap<JobId, LoadedJob>) -> Vec<(&JobId, &LoadedJob)> {
    let mut jobs: Vec<_> = jobs.iter().collect();
    jobs.sort_by_key(|(id, job)| (job.spec.priority, *id));
    jobs
}

/// `{{instance}}` as `$INSTANCE`, and so on: the templates of other forms know variables only. None: there is no
/// variable for it.
fn as_variables(text: &str, scripted: bool) -> Option<String> {
    let mut out = String::new();
    let list = pieces(text, scripted).ok()?;
    for (at, piece) in list.iter().enumerate() {
        let next = list.get(at + 1);
        match *piece {
            Piece::Text("$") if !scripted => out.push_str("$$"),
            Piece::Text(text) => out.push_str(text),
            Piece::Literal(text) => out.push_str(&format!("{{{{{text}}}}}")),
            Piece::Variable {
                otherwise: Some(_), ..
            } => return None,
            Piece::Variable { name, .. } => out.push_str(&variable(name, next)),
            Piece::Reference(reference) if reference.offset != 0 || reference.width != 0 => return None,
            Piece::Reference(reference) => match variable_of(reference.name) {
                Some(name) => out.push_str(&variable(&name, next)),
                None => return None,
            },
        }
    }
    Some(out)
}

/// `$NAME`, in braces where the next letter would join it.
fn variable(name: &str, next: Option<&Piece<'_>>) -> String {
    let joins = matches!(next, Some(Piece::Text(text)) if text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'));
    if joins {
        format!("${{{name}}}")
    } else {
        format!("${name}")
    }
}

/// The variable that holds what a reference gives.
pub(crate) fn variable_of(reference: &str) -> Option<String> {
    Some(match reference {
        "session" | "job" | "node" | "run" | "attempt" => format!("GAFFER_{}", reference.to_uppercase()),
        "instance" => "INSTANCE".to_owned(),
        "user" => "USER".to_owned(),
        _ => port_variable(reference.strip_prefix("ports.")?),
    })
}

/// Words for a line that is split again; none if one of them cannot be said.
fn line_of(words: &[String]) -> Option<String> {
    let words: Option<Vec<String>> = words
        .iter()
        .map(|word| Some(command_word(&as_variables(word, false)?)))
        .collect();
    Some(words?.join(" "))
}

fn whole_command(config: &Config, job: &LoadedJob) -> Vec<String> {
    let launch = &job.spec.launch;
    let mut words = launch.wrap.clone();
    if let Some(shell) = launch.shell_or(&config.daemon.shell) {
        words.extend([shell.to_owned(), "-c".to_owned()]);
        // The script's dollars are the shell's.
        words.extend(launch.cmd.iter().map(|script| script.replace('$', "$$")));
    } else {
        words.extend(launch.cmd.iter().cloned());
    }
    words
}

fn procfile(config: &Config) -> String {
    let mut out = String::new();
    for (id, job) in in_start_order(&config.jobs) {
        let name = id.job.as_str();
        let plain = name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        match line_of(&whole_command(config, job)).filter(|line| plain && !line.contains('\n')) {
            Some(line) => out.push_str(&format!("{name}: {line}\n")),
            None => out.push_str(&format!("# {name}: a Procfile cannot say this name or command\n")),
        }
        let untold = untold(
            job,
            &["cmd", "cwd", "env_inherit", "priority", "shell", "wrap", "port"],
        );
        if !untold.is_empty() {
            out.push_str(&format!("# {name}: not said here: {}\n", untold.join(", ")));
        }
    }
    out
}

/// Keys of a job that a form has no words for.
fn untold(job: &LoadedJob, told: &[&str]) -> Vec<String> {
    let keys = job.typed.as_object().into_iter().flat_map(Map::keys);
    let own = |key: &&String| {
        let key = key.as_str();
        !told.contains(&key) && !["env_digest", "env_without", "run_as"].contains(&key)
    };
    keys.filter(own)
        .map(|key| {
            if key == "env_layers" {
                "env".to_owned()
            } else {
                key.clone()
            }
        })
        .collect()
}

/// The environment in one layer: `$X` of a value is put in where a lower layer of the job has `X`.
pub(crate) fn flat_env(launch: &Launch) -> BTreeMap<String, String> {
    let mut flat: BTreeMap<String, String> = BTreeMap::new();
    for layer in &launch.env {
        let values: Vec<(String, String)> = layer
            .iter()
            .map(|(name, value)| (name.clone(), inlined(value, &flat)))
            .collect();
        flat.extend(values);
    }
    flat
}

fn inlined(value: &str, below: &BTreeMap<String, String>) -> String {
    let Ok(list) = pieces(value, false) else {
        return value.to_owned();
    };
    let mut out = String::new();
    for (at, piece) in list.iter().enumerate() {
        match *piece {
            Piece::Text("$") => out.push_str("$$"),
            Piece::Text(text) => out.push_str(text),
            Piece::Literal(text) => out.push_str(&format!("{{{{&{text}}}}}")),
            Piece::Reference(reference) => out.push_str(&format!("{{{{{}}}}}", reference.text)),
            Piece::Variable { name, otherwise } => match (below.get(name), otherwise) {
                (Some(value), Some(otherwise)) if value.is_empty() => out.push_str(otherwise),
                (Some(value), _) => out.push_str(value),
                (None, Some(otherwise)) => out.push_str(&format!("${{{name}:-{otherwise}}}")),
                (None, None) => out.push_str(&variable(name, list.get(at + 1))),
            },
        }
    }
    out
}

/// The environment for forms that take values literally; names whose values they cannot have.
fn literal_env(job: &LoadedJob) -> (BTreeMap<String, String>, Vec<String>) {
    let mut literal = BTreeMap::new();
    let mut without = Vec::new();
    for (name, value) in flat_env(&job.spec.launch) {
        let text = pieces(&value, false).ok().and_then(|list| {
            list.into_iter()
                .map(|piece| match piece {
                    Piece::Text(text) => Some(text.to_owned()),
                    Piece::Literal(text) => Some(format!("{{{{{text}}}}}")),
                    _ => None,
                })
                .collect::<Option<String>>()
        });
        match text {
            Some(text) => drop(literal.insert(name, text)),
            None => without.push(name),
        }
    }
    (literal, without)
}

/// Properties of the original, in its order. Durations are seconds.
fn properties(job: &LoadedJob) -> Vec<(&'static str, Value)> {
    let spec = &job.spec;
    let launch = &spec.launch;
    let seconds = |time: std::time::Duration| match time.subsec_nanos() {
        0 => json!(time.as_secs()),
        _ => json!(time.as_secs_f64()),
    };
    let mut out: Vec<(&'static str, Value)> = Vec::new();
    let mut put = |key, wanted: bool, value: Value| {
        if wanted {
            out.push((key, value));
        }
    };
    put("cwd", true, json!(launch.cwd));
    put("numprocesses", true, json!(spec.instances));
    put("priority", true, json!(spec.priority));
    put("os_env", true, json!(launch.env_inherit != EnvInherit::None));
    if let Some(user) = &launch.user {
        put("uid", true, json!(user.name));
        put("gid", true, json!(user.gid));
    }
    put("start", !spec.start, json!(false));
    put("detach", spec.keep_running, json!(true));
    put("redirect_input", launch.stdin == Stdin::Pipe, json!(true));
    put("graceful_timeout", true, seconds(spec.stop.timeout));
    put(
        "custom_streams",
        !launch.streams.is_empty(),
        json!(launch.streams),
    );
    if let Some(labels) = job.typed.pointer("/logs/labels") {
        put("redirect_output", true, labels.clone());
    }
    if let Some(flapping) = &spec.flapping {
        let value = json!({
            "attempts": flapping.exits,
            "window": seconds(flapping.window),
            "retry_in": seconds(flapping.pause),
            "max_retry": flapping.rounds.unwrap_or(u32::MAX),
        });
        put("flapping", true, value);
    }
    out
}

fn ini(config: &Config) -> String {
    let mut out = String::new();
    for (id, job) in in_start_order(&config.jobs) {
        let Some(line) = line_of(&whole_command(config, job)).filter(|line| !line.contains('\n')) else {
            out.push_str(&format!(
                "# [process:{}:{}]: an ini cannot say its command\n\n",
                id.session, id.job
            ));
            continue;
        };
        out.push_str(&format!(
            "[process:{}:{}]\ncmd = {}\n",
            id.session,
            id.job,
            percent(&line)
        ));
        for (key, value) in properties(job) {
            let text = match &value {
                Value::String(text) => text.clone(),
                Value::Array(list) => list
                    .iter()
                    .filter_map(Value::as_str)
                    .collect::<Vec<_>>()
                    .join(", "),
                Value::Object(map) => map.values().map(Value::to_string).collect::<Vec<_>>().join(", "),
                other => other.to_string(),
            };
            out.push_str(&format!("{key} = {}\n", percent(&text)));
        }
        let (env, mut without) = literal_env(job);
        let (fits, long): (Vec<_>, Vec<_>) = env.into_iter().partition(|(name, value)| {
            !value.contains('\n')
                && value.trim() == value
                && name.to_uppercase() == *name
                && !name.contains(':')
        });
        without.extend(long.into_iter().map(|(name, _)| name));
        if !without.is_empty() {
            out.push_str(&format!("# not said here: {}\n", without.join(", ")));
        }
        if !fits.is_empty() {
            out.push_str(&format!("\n[env:{}:{}]\n", id.session, id.job));
            for (name, value) in fits {
                out.push_str(&format!("{name} = {}\n", percent(&value)));
            }
        }
        out.push('\n');
    }
    out
}

fn percent(text: &str) -> String {
    text.replace('%', "%%")
}

fn json_file(config: &Config) -> String {
    let jobs: Vec<Value> = in_start_order(&config.jobs)
        .into_iter()
        .map(|(id, job)| json_job(config, id, job))
        .collect();
    let value = match <[Value; 1]>::try_from(jobs) {
        Ok([one]) => one,
        Err(jobs) => json!({ "jobs": jobs }),
    };
    let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
    text.push('\n');
    text
}

fn json_job(config: &Config, id: &JobId, job: &LoadedJob) -> Value {
    let mut map = Map::new();
    map.insert("name".to_owned(), json!(id.to_string()));
    let mut words = whole_command(config, job)
        .into_iter()
        .map(|word| as_variables(&word, false).unwrap_or(word));
    // `cmd` is split: one word that must stay one is quoted.
    map.insert(
        "cmd".to_owned(),
        json!(words.next().map(|word| command_word(&word))),
    );
    map.insert("args".to_owned(), json!(words.collect::<Vec<_>>()));
    map.insert("env".to_owned(), json!(literal_env(job).0));
    for (key, value) in properties(job) {
        map.insert(key.to_owned(), value);
    }
    Value::Object(map)
}
