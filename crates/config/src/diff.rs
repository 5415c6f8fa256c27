//! What differs between two definitions of a job, key by key, with the effect of each change.

use crate::config::LoadedJob;
use crate::keys::{JOB, class_of};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// One key that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `env.LOG`, `instances`, `stop.timeout`.
    pub path: String,
    /// As written in the file; none: not set before.
    pub old: Option<String>,
    /// As written in the file; none: not set any more.
    pub new: Option<String>,
    /// What it takes.
    pub class: ChangeClass,
}

/// When a change counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeClass {
    /// Running processes keep running.
    Live,
    /// From the next start of a run.
    NextStart,
    /// The job is reloaded.
    Reload,
    /// Next start of the daemon.
    Daemon,
}

/// Changed keys of two tasks; of steps by `step.NAME.KEY`. They count from the next run.
pub fn diff_typed(old: &Value, new: &Value) -> Vec<Change> {
    diff_with(old, new, "step")
}

/// The same of objects with objects of a kind in them.
fn diff_with(old: &Value, new: &Value, part: &str) -> Vec<Change> {
    let flat_task = |task: &Value| {
        let mut all = flat(task);
        let below = format!("{part}.");
        all.retain(|path, _| path != "step_order" && !path.starts_with(&below));
        let steps = task.get(part).and_then(Value::as_object);
        for (name, step) in steps.into_iter().flatten() {
            let keys = flat(step).into_iter();
            all.extend(keys.map(|(path, value)| (format!("{part}.{name}.{path}"), value)));
        }
        all
    };
    let (before, after) = (flat_task(old), flat_task(new));
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let one = |path: &String| {
        let (old, new) = (before.get(path), after.get(path));
        (old != new).then(|| Change {
            path: path.clone(),
            old: old.map(|text| shorten(text)),
            new: new.map(|text| shorten(text)),
            class: ChangeClass::NextStart,
        })
    };
    paths.into_iter().filter_map(one).collect()
}

/// Changed keys of two queues; of kinds by `kind.NAME.KEY`.
pub fn diff_queue(old: &Value, new: &Value) -> Vec<Change> {
    let shown = |typed: &Value| {
        let mut typed = typed.clone();
        if let Some(Value::String(store)) = typed.get_mut("store") {
            *store = crate::queue_store::without_password(store);
        }
        typed
    };
    let mut changes = diff_with(&shown(old), &shown(new), "kind");
    if old.get("store") != new.get("store") && !changes.iter().any(|change| change.path == "store") {
        changes.push(Change {
            path: "store".to_owned(),
            old: Some("old password".to_owned()),
            new: Some("new password".to_owned()),
            class: ChangeClass::Daemon,
        });
    }
    for change in &mut changes {
        let key = match change.path.strip_prefix("kind.") {
            Some(rest) => rest.split_once('.').map_or(rest, |(_, key)| key),
            None => &change.path,
        };
        let keys = crate::keys_queue::queue_keys();
        let known = crate::keys::find(keys, key).or_else(|| crate::keys::find(keys, key.split('.').next()?));
        change.class = known.map_or(ChangeClass::NextStart, |known| known.class);
    }
    changes
}

/// Changed keys in the order of the reference; what gaffer itself wrote beside them is not a key.
pub fn diff(old: &LoadedJob, new: &LoadedJob) -> Vec<Change> {
    let mut changes = Vec::new();
    let (before, after) = (flat(&old.typed), flat(&new.typed));
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for path in paths {
        let (old, new) = (before.get(path), after.get(path));
        if old != new {
            let show = |value: Option<&String>| value.map(|text| shorten(text));
            changes.push(Change {
                path: path.clone(),
                old: show(old),
                new: show(new),
                class: class_of(path),
            });
        }
    }
    // Of values in files only this much is told.
    if old.typed.get("env_digest") != new.typed.get("env_digest")
        && !changes.iter().any(|change| change.path == "env_file")
    {
        changes.push(Change {
            path: "env_file".to_owned(),
            old: Some("old values".to_owned()),
            new: Some("new values".to_owned()),
            class: class_of("env_file"),
        });
    }
    changes.sort_by_key(|change| (rank(&change.path), change.path.clone()));
    changes
}

/// Place of a path in the table of keys.
pub(crate) fn rank(path: &str) -> usize {
    let mut path = path;
    loop {
        if let Some(at) = JOB.iter().position(|key| key.path == path) {
            return at;
        }
        match path.rsplit_once('.') {
            Some((above, _)) => path = above,
            None => return JOB.len(),
        }
    }
}

/// Longest value in a plan, in characters.
const SHOWN: usize = 120;

fn shorten(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return text.to_owned();
    }
    let head: String = text.chars().take(SHOWN - 1).collect();
    format!("{head}…")
}

/// Values by dotted path, as written in a file. The environment is one table, whatever layer a name is in.
fn flat(typed: &Value) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let Some(map) = typed.as_object() else { return out };
    let layers = map.get("env_layers").and_then(Value::as_array);
    for pair in layers
        .into_iter()
        .flatten()
        .filter_map(|layer| layer.get("env")?.as_array())
        .flatten()
    {
        if let (Some(name), Some(value)) = (pair.get(0).and_then(Value::as_str), pair.get(1)) {
            out.insert(format!("env.{name}"), toml_value(value));
        }
    }
    for (key, value) in map {
        match key.as_str() {
            "env_digest" | "env_layers" | "env_without" | "run_as" => {}
            // A list is a table of the default condition.
            "after" => after(value, &mut out),
            "cmd" | "wrap" => {
                out.insert(key.clone(), command(value));
            }
            _ => flatten(key, value, &mut out),
        }
    }
    out
}

fn flatten(path: &str, value: &Value, out: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match key.as_str() {
                    "cmd" => out.insert(format!("{path}.cmd"), command(value)).map_or((), drop),
                    _ => flatten(&format!("{path}.{}", quoted_key(key)), value, out),
                }
            }
        }
        value => {
            out.insert(path.to_owned(), toml_value(value));
        }
    }
}

fn after(value: &Value, out: &mut BTreeMap<String, String>) {
    match value {
        Value::Array(names) => {
            for name in names.iter().filter_map(Value::as_str) {
                let usual = if name.starts_with("task:") {
                    "done"
                } else {
                    "ready"
                };
                out.insert(format!("after.{}", quoted_key(name)), format!("\"{usual}\""));
            }
        }
        other => flatten("after", other, out),
    }
}

/// Words as one text, if that gives the same words back.
pub(crate) fn command(value: &Value) -> String {
    let Some(list) = value.as_array() else {
        return toml_value(value);
    };
    let words: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
    let joined = words
        .iter()
        .map(|word| command_word(word))
        .collect::<Vec<_>>()
        .join(" ");
    match crate::template::split_words(&joined) {
        Ok(again) if again == words => toml_value(&Value::from(joined)),
        _ => toml_value(value),
    }
}

/// A word of a command as it is typed: with quotes only where the word needs them.
pub(crate) fn command_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:@%+,${}~^*?[]!#&;|<>()".contains(c);
    if !word.is_empty() && word.chars().all(plain) && !word.contains("$$") {
        return word.to_owned();
    }
    let quoted = word.replace("$$", "$");
    if !word.contains('\'') && quoted.replace('$', "$$") == word {
        return format!("'{quoted}'");
    }
    let inside = word.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{inside}\"")
}

/// A value as TOML, on one line.
pub(crate) fn toml_value(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => toml_string(text),
        Value::Array(list) => format!("[{}]", list.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Value::Object(map) if map.is_empty() => "{}".to_owned(),
        Value::Object(map) => {
            let pairs = map
                .iter()
                .map(|(key, value)| format!("{} = {}", quoted_key(key), toml_value(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}

/// A basic string, or a literal one where that needs no escapes.
fn toml_string(text: &str) -> String {
    let control = text.chars().any(|c| c.is_control());
    if !control && text.contains(['"', '\\']) && !text.contains('\'') {
        return format!("'{text}'");
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A key, with quotes where TOML needs them.
pub(crate) fn quoted_key(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(plain) {
        key.to_owned()
    } else {
        toml_string(key)
    }
}
