//! `GET /v1/config`: everything that is defined.

use crate::http::Shared;
use crate::http::query::Query;
use crate::names;
use crate::refusal::{Answer, Refusal, invalid_config};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use gaffer::Definitions;
use gaffer_api::error::{Code, ErrorBody};
use gaffer_config::{Diagnostics, StoredHost, Webhook};
use gaffer_core::name::{JobId, Name};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use utoipa::IntoParams;

/// Parameters of the configuration.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ConfigQuery {
    /// Only this session.
    session: Option<String>,
    /// `toml` or `json`, instead of what `Accept` says.
    format: Option<String>,
}

/// All definitions: a `gaffer.toml` that can be applied, or (by `Accept: application/json`) by session the tables of such a file:
/// `job`, `task`, `queue`, `schedule`, `webhook`, each name → definition. What may be a key in the address of a webhook is masked.
#[utoipa::path(get, path = "/v1/config", tag = "config", params(ConfigQuery),
    responses((status = 200, content((String = "application/toml"), (Object = "application/json"))),
        (status = "default", body = ErrorBody)))]
pub async fn config(
    State(app): State<Shared>,
    Query(query): Query<ConfigQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    if let Some(session) = &query.session {
        names::session(session)?;
    }
    let accepts = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let is_json = match query.format.as_deref() {
        None => accepts.is_some_and(|accepts| accepts.contains("json")),
        Some("json") => true,
        Some("toml") => false,
        Some(other) => {
            let message = format!("`{}` is no format of the configuration", other.escape_debug());
            return Err(Refusal::new(Code::BadValue, message).hint("toml or json"));
        }
    };
    let definitions = app.handle.definitions(query.session.as_deref()).await?;
    let mut hooks: Vec<Webhook> = app
        .handle
        .hooks()
        .iter()
        .map(|hook| hook.webhook.clone())
        .collect();
    let wanted = |hook: &Webhook| {
        query
            .session
            .as_ref()
            .is_none_or(|s| *s == *hook.session.as_str())
    };
    hooks.retain(wanted);
    if is_json {
        return Ok(Json(tables(definitions, &hooks)).into_response());
    }
    let text = toml(&definitions, &hooks)?;
    Ok(([(CONTENT_TYPE, "application/toml")], text).into_response())
}

/// Session → table → name → definition.
fn tables(
    definitions: Definitions,
    hooks: &[Webhook],
) -> BTreeMap<String, BTreeMap<&'static str, Map<String, Value>>> {
    let mut sessions: BTreeMap<String, BTreeMap<&'static str, Map<String, Value>>> = BTreeMap::new();
    let mut put = |table, session: &Name, name: &str, typed| {
        let tables = sessions.entry(session.to_string()).or_default();
        tables.entry(table).or_default().insert(name.to_owned(), typed);
    };
    let of_ids = [
        ("job", definitions.jobs),
        ("task", definitions.tasks),
        ("queue", definitions.queues),
        ("schedule", definitions.schedules),
    ];
    for (table, all) in of_ids {
        for (id, typed) in all {
            put(table, &id.session, id.job.as_str(), typed);
        }
    }
    for hook in hooks {
        put("webhook", &hook.session, hook.name.as_str(), shown(hook).typed());
    }
    sessions
}

/// One file for all. It names each thing once, whatever its session is.
fn toml(definitions: &Definitions, hooks: &[Webhook]) -> Answer<String> {
    let loaded = gaffer_config::Definitions {
        jobs: &loaded(&definitions.jobs, |s, n, typed| {
            gaffer_config::load_job_json(s, n, typed, &StoredHost)
        })?,
        tasks: &loaded(&definitions.tasks, |s, n, typed| {
            gaffer_config::load_task_json(s, n, typed, &StoredHost)
        })?,
        queues: &loaded(&definitions.queues, |s, n, typed| {
            gaffer_config::load_queue_json(s, n, typed, &StoredHost)
        })?,
        schedules: &loaded(&definitions.schedules, gaffer_config::load_schedule_json)?,
    };
    let ids = [
        loaded.jobs.keys().next(),
        loaded.tasks.keys().next(),
        loaded.queues.keys().next(),
        loaded.schedules.keys().next(),
    ];
    let first = ids.into_iter().flatten().map(|id| &id.session).next();
    let first = first.or_else(|| Some(&hooks.first()?.session));
    let session = first.map_or_else(Name::default_session, Clone::clone);
    Ok(loaded.to_toml(&session) + &hooks_toml(&session, hooks)?)
}

/// What is defined, understood.
fn loaded<T>(
    all: &BTreeMap<JobId, Value>,
    load: impl Fn(&str, &str, &Value) -> Result<T, Diagnostics>,
) -> Answer<BTreeMap<JobId, T>> {
    let mut seen: BTreeMap<&str, &JobId> = BTreeMap::new();
    let mut loaded = BTreeMap::new();
    for (id, typed) in all {
        if let Some(other) = seen.insert(id.job.as_str(), id) {
            let message = format!("one file cannot hold both {other} and {id}");
            return Err(Refusal::new(Code::WrongState, message)
                .hint("ask for one session, ?session=, or for ?format=json"));
        }
        let read = load(id.session.as_str(), id.job.as_str(), typed);
        loaded.insert(id.clone(), read.map_err(|errors| invalid_config(&errors))?);
    }
    Ok(loaded)
}

/// Without what may be a key, in its address or its headers.
fn shown(hook: &Webhook) -> Webhook {
    let value = |value: &String| match value.starts_with("file:") {
        true => value.clone(),
        false => "***".to_owned(),
    };
    let headers = hook.headers.iter();
    Webhook {
        url: crate::http::webhooks::masked(&hook.url),
        headers: headers.map(|(name, own)| (name.clone(), value(own))).collect(),
        ..hook.clone()
    }
}

/// Webhooks. One that may hold a key is masked, and a comment: applied, it would be another one.
fn hooks_toml(session: &Name, hooks: &[Webhook]) -> Answer<String> {
    let mut text = String::new();
    for (at, hook) in hooks.iter().enumerate() {
        if let Some(other) = hooks[..at].iter().find(|other| other.name == hook.name) {
            let message = format!(
                "one file cannot hold both webhooks {} and {}",
                other.id(),
                hook.id()
            );
            return Err(Refusal::new(Code::WrongState, message).hint("ask for one session, ?session="));
        }
        let shown = shown(hook);
        let is_whole = shown == *hook;
        let section = gaffer_config::webhooks_toml(session, &[shown]);
        if is_whole {
            text.push_str(&section);
            continue;
        }
        text.push_str("\n# What may be a key is not shown: what stands behind the `?` of an address, values of headers.\n");
        for line in section.lines().filter(|line| !line.is_empty()) {
            text.push_str(&format!("# {line}\n"));
        }
    }
    Ok(text)
}
