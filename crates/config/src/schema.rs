//! JSON Schema of `gaffer.toml`, from the table of keys, for editors.

use crate::keys::{DAEMON, JOB, Key, NODE, TOP, Use, WEBHOOK};
use crate::keys_queue::{kind_keys, queue_keys};
use crate::keys_schedule::schedule_keys;
use crate::keys_task::{step_keys, task_keys, template_keys};
use crate::kind::{CONDITIONS, STEP_CONDITIONS, Type};
use serde_json::{Map, Value, json};

/// The schema (draft 2020-12), formatted, with a line end.
pub fn schema_json() -> String {
    let mut top = properties(TOP, "", &|_| true);
    let object = |what: &str| json!({ "type": "object", "additionalProperties": { "$ref": format!("#/$defs/{what}") } });
    top.insert("job".to_owned(), object("job"));
    top.insert("task".to_owned(), object("task"));
    top.insert("queue".to_owned(), object("queue"));
    top.insert("template".to_owned(), object("template"));
    top.insert("schedule".to_owned(), object("schedule"));
    top.insert("webhook".to_owned(), object("webhook"));
    top.insert("node".to_owned(), object("node"));
    top.insert("profile".to_owned(), object("profile"));
    top.insert("gaffer".to_owned(), json!({ "$ref": "#/$defs/gaffer" }));
    top.insert("defaults".to_owned(), json!({ "$ref": "#/$defs/defaults" }));
    let mut profile = top.clone();
    profile.remove("profile");
    profile.remove("include");
    let mut defaults = properties(JOB, "", &|key| key.used == Use::Run);
    let in_defaults = |key: &Key| matches!(key.used, Use::Run | Use::Job);
    defaults.insert("job".to_owned(), closed(properties(JOB, "", &in_defaults)));
    let in_step = |key: &Key| key.used != Use::File;
    defaults.insert("step".to_owned(), closed(properties(step_keys(), "", &in_step)));
    defaults.insert(
        "queue".to_owned(),
        closed(properties(queue_keys(), "", &|key| {
            key.used != Use::File && key.path != "kind"
        })),
    );
    let mut queue = properties(queue_keys(), "", &|key| key.path != "kind");
    queue.insert("kind".to_owned(), object("kind"));
    let mut task = properties(task_keys(), "", &|key| key.path != "step");
    task.insert("step".to_owned(), object("step"));
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gaffer.toml",
        "type": "object",
        "properties": top,
        "additionalProperties": false,
        "$defs": {
            "job": closed(properties(JOB, "", &|_| true)),
            "task": closed(task),
            "queue": closed(queue),
            "kind": closed(properties(kind_keys(), "", &|_| true)),
            "step": closed(properties(step_keys(), "", &|_| true)),
            "template": closed(properties(template_keys(), "", &|_| true)),
            "defaults": closed(defaults),
            "profile": closed(profile),
            "gaffer": closed(properties(DAEMON, "", &|_| true)),
            "schedule": closed(properties(schedule_keys(), "", &|_| true)),
            "webhook": closed(properties(WEBHOOK, "", &|_| true)),
            "node": closed(properties(NODE, "", &|_| true)),
        },
    });
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

fn closed(properties: Map<String, Value>) -> Value {
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

/// Keys right below a prefix.
fn properties(keys: &'static [Key], prefix: &str, allowed: &dyn Fn(&Key) -> bool) -> Map<String, Value> {
    let mut map = Map::new();
    for key in keys {
        let Some(name) = key.path.strip_prefix(prefix) else {
            continue;
        };
        let usable = !matches!(key.used, Use::NotYet | Use::Refused(_));
        if name.contains('.') || !usable || !allowed(key) {
            continue;
        }
        let mut schema = match key.ty {
            Type::Table => table(keys, key, allowed),
            ty => value(ty),
        };
        if let Some(object) = schema.as_object_mut() {
            object.insert("description".to_owned(), json!(key.doc));
            // A default that is not written as a value (`own names`) belongs into the description only.
            if let Some(default) = default(key.default) {
                object.insert("default".to_owned(), default);
            }
        }
        map.insert(name.to_owned(), schema);
    }
    map
}

fn default(text: &str) -> Option<Value> {
    (!text.is_empty())
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

fn table(keys: &'static [Key], key: &Key, allowed: &dyn Fn(&Key) -> bool) -> Value {
    let below = closed(properties(keys, &format!("{}.", key.path), allowed));
    let short = key.short.and_then(|short| {
        let path = format!("{}.{short}", key.path);
        keys.iter().find(|key| key.path == path)
    });
    match short {
        Some(short) => json!({ "anyOf": [value(short.ty), below] }),
        None => below,
    }
}

const DURATION: &str = r"^\s*([0-9]*\.?[0-9]+\s*(ms|s|m|h|d|w)\s*)+$";
const SIZE: &str = r"^\s*[0-9]*\.?[0-9]+\s*([Bb]|[KMGT](iB|B)?|k|kB)\s*$";

fn value(ty: Type) -> Value {
    let text = || json!({ "type": "string" });
    let texts = || json!({ "type": "array", "items": { "type": "string" } });
    let scalars = |kinds: Value| json!({ "type": "object", "additionalProperties": { "type": kinds } });
    match ty {
        Type::Bool => json!({ "type": "boolean" }),
        Type::True => json!({ "const": true }),
        Type::Int(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Type::Count(min) => {
            json!({ "anyOf": [{ "type": "integer", "minimum": min }, { "const": "unlimited" }] })
        }
        Type::Number(min, max) => json!({ "type": "number", "minimum": min, "maximum": max }),
        Type::Duration => json!({ "type": "string", "pattern": DURATION }),
        Type::Durations => {
            json!({ "anyOf": [value(Type::Duration), { "type": "array", "items": value(Type::Duration), "minItems": 1 }] })
        }
        Type::Size => json!({ "type": "string", "pattern": SIZE }),
        Type::SizeOrShare => {
            json!({ "anyOf": [value(Type::Size), { "type": "string", "pattern": "^[0-9]+%$" }] })
        }
        Type::Percent => json!({ "type": "string", "pattern": "^[0-9]+%$" }),
        Type::Numbers => json!({ "type": "string", "pattern": "^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$" }),
        Type::Command | Type::Texts | Type::Paths | Type::Redact => json!({ "anyOf": [text(), texts()] }),
        Type::Labels(max) => {
            json!({ "anyOf": [text(), { "type": "array", "items": text(), "maxItems": max }] })
        }
        Type::Text | Type::Path | Type::Regex | Type::Url | Type::Address | Type::LogTo | Type::Owner => {
            text()
        }
        Type::Name => json!({ "type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_+-]{0,63}$" }),
        Type::Word(words) => json!({ "enum": words }),
        Type::Octal => json!({ "type": "string", "pattern": "^(0o)?[0-7]{1,4}$" }),
        Type::Signal => json!({ "type": ["string", "integer"] }),
        Type::Ends => json!({ "type": "array", "items": { "type": ["integer", "string"] } }),
        Type::User => json!({ "type": ["string", "integer"] }),
        Type::Users => {
            json!({ "type": ["array", "string", "integer"], "items": { "type": ["string", "integer"] } })
        }
        Type::Shell => json!({ "type": ["boolean", "string"] }),
        Type::Inherit => json!({ "anyOf": [{ "enum": ["base", "all", "none"] }, texts()] }),
        Type::Env => scalars(json!(["string", "number"])),
        Type::Map => scalars(json!(["string", "number", "boolean"])),
        Type::Rlimits => scalars(json!(["string", "integer"])),
        Type::Port => port(),
        Type::Ports => json!({ "type": "object", "additionalProperties": port() }),
        Type::Stdin => json!({ "type": "string", "pattern": "^(null|pipe|file:.+)$" }),
        Type::Start => json!({ "type": "boolean" }),
        Type::After => {
            json!({ "anyOf": [texts(), { "type": "object", "additionalProperties": { "enum": CONDITIONS } }] })
        }
        Type::AfterStep => {
            json!({ "anyOf": [texts(), { "type": "object", "additionalProperties": { "enum": STEP_CONDITIONS } }] })
        }
        Type::Order => json!({ "anyOf": [texts(), { "type": "array", "items": texts() }] }),
        Type::Params => json!({ "type": "object" }),
        Type::Batch => {
            json!({ "anyOf": [{ "type": "integer", "minimum": 1 }, { "type": "string", "pattern": "^[0-9]+%$" }] })
        }
        Type::Empty => json!({ "type": "array", "maxItems": 0 }),
        Type::Any => json!({}),
        Type::Table => json!({ "type": "object" }),
    }
}

fn port() -> Value {
    json!({ "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 65_535 }, { "const": "auto" }] })
}
