//! `[webhook.X]`: where events are sent, which ones, and how often it is tried.

use crate::check::{Checked, lengthen};
use crate::config::Config;
use crate::defs::WebhookDef;
use crate::diff::{quoted_key, toml_value};
use crate::keys::WEBHOOK;
use crate::kind;
use crate::node::{Item, Node, Span, Table};
use crate::report::Report;
use gaffer_core::job::Retry;
use gaffer_core::name::{JobName, Name};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Topics of the original, of 0.5 and 0.4; `job.S.J.…` and `proc.…` stand beside them.
const TOPICS: &[&str] = &[
    ".",
    "load",
    "unload",
    "start",
    "stop",
    "update",
    "spawn",
    "reap",
    "stop_process",
    "exit",
    "flap",
    "create",
    "delete",
    "restart",
    "stop_pid",
];
/// Last parts of `job.S.J.…` and `proc.…`.
const LAST: &[&str] = &[
    "start",
    "stop",
    "spawn",
    "reap",
    "exit",
    "kill",
    "stop_process",
    "stop_pid",
];

/// A webhook, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// Session that relative `targets` mean.
    pub session: Name,
    /// Name in its session.
    pub name: Name,
    /// `http://…` or `https://…`. May hold a secret: it is never shown whole.
    pub url: String,
    /// Patterns of events; with the legacy format topics of the original.
    pub events: Vec<String>,
    /// Patterns of full names; an event without a job is taken by `*` only.
    pub targets: Vec<String>,
    /// File with the key of the signature, absolute; read for every delivery.
    pub secret_file: Option<PathBuf>,
    /// Further headers; `file:PATH` is the file's first line, read for every delivery.
    pub headers: BTreeMap<String, String>,
    /// Longest time of one attempt.
    pub timeout: Duration,
    /// Attempts and pauses.
    pub retry: Retry,
    /// What is sent.
    pub format: WebhookFormat,
}

/// `format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookFormat {
    /// The event as `/v1/events` shows it.
    V1,
    /// The original's message.
    Legacy,
}

impl WebhookFormat {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            WebhookFormat::V1 => "v1",
            WebhookFormat::Legacy => "legacy",
        }
    }
}

impl Webhook {
    /// `session.name`.
    pub fn id(&self) -> String {
        format!("{}.{}", self.session, self.name)
    }

    /// As the store keeps it: the keys of `[webhook.X]`, with absolute paths.
    pub fn typed(&self) -> Value {
        let seconds = |duration: Duration| format!("{}ms", duration.as_millis());
        json!({
            "url": self.url,
            "events": self.events,
            "targets": self.targets,
            "secret_file": self.secret_file,
            "headers": self.headers,
            "timeout": seconds(self.timeout),
            "retry": {
                "attempts": self.retry.attempts.map_or(json!("unlimited"), |attempts| json!(attempts)),
                "delay": self.retry.delay.iter().copied().map(seconds).collect::<Vec<_>>(),
                "factor": self.retry.factor,
                "increment": self.retry.increment.map(seconds),
                "max_delay": seconds(self.retry.max_delay),
                "jitter": self.retry.jitter,
            },
            "format": self.format.as_str(),
        })
    }

    /// Reads back what [`Webhook::typed`] gave; the error is a sentence.
    pub fn from_typed(session: &str, name: &str, typed: &Value) -> Result<Webhook, String> {
        let mut typed = typed.clone();
        drop_nulls(&mut typed);
        let Item::Table(table) = Node::from_json(&typed).item else {
            return Err("not a table".to_owned());
        };
        let mut report = Report::new(Path::new("/"));
        let def = WebhookDef {
            name: name.to_owned(),
            session: session.to_owned(),
            span: Span::NONE,
            table,
        };
        let webhook = resolve(def, &mut report);
        match (webhook, report.has_errors()) {
            (Some(webhook), false) => Ok(webhook),
            _ => Err(report.finish().render(false)),
        }
    }
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(drop_nulls);
    }
}

/// Known keys with values of the right kind, short forms made long.
pub(crate) fn check(table: &mut Table, path: &str, name: &str, report: &mut Report) {
    Checked {
        keys: WEBHOOK,
        path: &format!("{path}webhook.{name}."),
        what: &format!("webhook `{name}`"),
        without: None,
        written: false,
    }
    .check(table, report);
    lengthen(WEBHOOK, table);
}

/// Gives a checked table its meaning.
pub(crate) fn resolve(def: WebhookDef, report: &mut Report) -> Option<Webhook> {
    let WebhookDef {
        name,
        session,
        span,
        table,
    } = def;
    let path = format!("webhook.{name}");
    let parsed = (Name::parse(&session), Name::parse(&name));
    let (Ok(session), Ok(name)) = parsed else {
        for error in [parsed.0.err(), parsed.1.err()].into_iter().flatten() {
            report.error(span, &path, error.to_string(), "");
        }
        return None;
    };
    let url = url(&table, span, &path, report)?;
    let format = match table.get("format").and_then(Node::as_str) {
        Some("legacy") => WebhookFormat::Legacy,
        _ => WebhookFormat::V1,
    };
    let texts = |key: &str| -> Vec<(String, Span)> {
        table.get(key).map_or_else(Vec::new, |node| {
            let texts = node.texts().into_iter();
            texts.map(|(text, span)| (text.to_owned(), span)).collect()
        })
    };
    let events = texts("events");
    for (event, span) in &events {
        check_event(event, *span, format, &path, report);
    }
    let targets = texts("targets");
    for (target, span) in &targets {
        let good = !target.is_empty() && target.len() <= 200 && !target.contains(|c: char| c.is_whitespace());
        if !good {
            let message = format!("`targets` has {target:?}, which is no pattern of jobs");
            report.error(
                *span,
                &format!("{path}.targets"),
                message,
                "web, shop.web, shop.* or *",
            );
        }
    }
    let or_all = |list: Vec<(String, Span)>, all: &str| match list.is_empty() {
        true => vec![all.to_owned()],
        false => list.into_iter().map(|(text, _)| text).collect(),
    };
    let all_events = match format {
        WebhookFormat::V1 => "*",
        WebhookFormat::Legacy => ".",
    };
    let headers = headers(&table, &path, report);
    Some(Webhook {
        session,
        name,
        url,
        events: or_all(events, all_events),
        targets: or_all(targets, "*"),
        secret_file: file(&table, "secret_file", report),
        headers,
        timeout: duration(&table, "timeout").unwrap_or(Duration::from_secs(10)),
        retry: retry(&table),
        format,
    })
}

fn duration(table: &Table, path: &str) -> Option<Duration> {
    table.at(path).and_then(|node| kind::duration(node).ok())
}

fn file(table: &Table, key: &str, report: &Report) -> Option<PathBuf> {
    let node = table.get(key)?;
    let folder = report.folder_of(node.span).unwrap_or(Path::new("/"));
    Some(folder.join(node.as_str()?))
}

fn url(table: &Table, span: Span, path: &str, report: &mut Report) -> Option<String> {
    let place = format!("{path}.url");
    let Some(node) = table.get("url") else {
        report.error(
            span,
            path,
            "a webhook needs a `url`",
            "url = \"http://127.0.0.1:8080/hook\"",
        );
        return None;
    };
    let url = node.as_str()?;
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    let Some(rest) = rest else {
        let help = "url = \"http://127.0.0.1:8080/hook\"";
        report.error(node.span, &place, "`url` begins with http:// or https://", help);
        return None;
    };
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic()) && url.len() <= 2000;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if !plain || authority.is_empty() || authority.starts_with(':') {
        let message = "`url` names no host, or has characters that must be escaped";
        report.error(node.span, &place, message, "http://HOST:PORT/PATH");
        return None;
    }
    if authority.contains('@') {
        let help = "headers = { Authorization = \"file:PATH\" }";
        report.error(node.span, &place, "`url` holds a user or a password", help);
        return None;
    }
    Some(url.to_owned())
}

fn check_event(event: &str, span: Span, format: WebhookFormat, path: &str, report: &mut Report) {
    let place = format!("{path}.events");
    let word =
        |part: &str| part == "*" || (!part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase()));
    let good = match format {
        WebhookFormat::V1 => event.split('.').all(word),
        WebhookFormat::Legacy => is_topic(event),
    };
    if good {
        return;
    }
    let (what, help) = match format {
        WebhookFormat::V1 => ("pattern of events", "run.exited, run.*, or *".to_owned()),
        WebhookFormat::Legacy => {
            let near = crate::suggest::nearest(event, TOPICS.iter().copied());
            let help = near.map_or_else(
                || "spawn, exit, job.SESSION.JOB.exit, or . for all".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            ("topic of the original", help)
        }
    };
    report.error(
        span,
        &place,
        format!("`events` has {event:?}, which is no {what}"),
        &help,
    );
}

/// Is it a topic that the original has?
fn is_topic(event: &str) -> bool {
    if TOPICS.contains(&event) {
        return true;
    }
    let Some((what, _)) = event.rsplit_once('.').filter(|(_, last)| LAST.contains(last)) else {
        return false;
    };
    if let Some(pid) = what.strip_prefix("proc.") {
        // 0.5 has a process number there, 0.4 the name of a job.
        return pid.parse::<u64>().is_ok() || JobName::parse(pid).is_ok();
    }
    what.strip_prefix("job.")
        .is_some_and(|job| gaffer_core::name::JobId::parse(job).is_ok())
}

fn headers(table: &Table, path: &str, report: &mut Report) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    let Some(below) = table.get_table("headers") else {
        return headers;
    };
    for (name, entry) in below.iter() {
        let place = format!("{path}.headers.{name}");
        let Some(mut value) = kind::scalar(&entry.node) else {
            continue;
        };
        let token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let ours = [
            "host",
            "content-length",
            "content-type",
            "transfer-encoding",
            "connection",
        ];
        let lower = name.to_ascii_lowercase();
        if name.is_empty() || !name.bytes().all(token) {
            report.error(
                entry.key,
                &place,
                format!("{name:?} is no name of a header"),
                "letters, digits, `-`",
            );
            continue;
        }
        if ours.contains(&lower.as_str()) || lower.starts_with("gaffer-") {
            report.error(
                entry.key,
                &place,
                format!("`{name}` is set by gaffer"),
                "leave it out",
            );
            continue;
        }
        if let Some(file) = value.strip_prefix("file:") {
            let folder = report.folder_of(entry.node.span).unwrap_or(Path::new("/"));
            value = format!("file:{}", folder.join(file).display());
        } else if value.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            report.error(
                entry.node.span,
                &place,
                format!("the value of `{name}` has control characters"),
                "",
            );
            continue;
        }
        headers.insert(name.to_owned(), value);
    }
    headers
}

fn retry(table: &Table) -> Retry {
    let number = |path: &str, default: f64| {
        let node = table.at(path);
        node.and_then(|node| kind::number(node, 0.0, f64::MAX).ok())
            .unwrap_or(default)
    };
    let attempts = match table.at("retry.attempts") {
        Some(node) => kind::count(node, 1).ok().flatten(),
        None => Some(10),
    };
    Retry {
        attempts,
        delay: table
            .at("retry.delay")
            .and_then(|node| kind::durations(node).ok())
            .unwrap_or_else(|| vec![Duration::from_secs(1)]),
        factor: number("retry.factor", 2.0),
        increment: duration(table, "retry.increment"),
        max_delay: duration(table, "retry.max_delay").unwrap_or(Duration::from_secs(300)),
        jitter: number("retry.jitter", 0.2),
        // A delivery has no life: only a success forgets failures.
        reset_after: Duration::MAX,
    }
}

/// The webhooks of a configuration as they are written in a `gaffer.toml`, without what is the default.
pub(crate) fn to_toml(config: &Config) -> String {
    webhooks_toml(&config.session, &config.webhooks)
}

/// The same for webhooks that are known; `session` is that of the file.
pub fn webhooks_toml(session: &Name, webhooks: &[Webhook]) -> String {
    let mut out = String::new();
    for webhook in webhooks {
        out.push_str(&format!("\n[webhook.{}]\n", quoted_key(webhook.name.as_str())));
        let plain = Webhook {
            url: webhook.url.clone(),
            events: match webhook.format {
                WebhookFormat::V1 => vec!["*".to_owned()],
                WebhookFormat::Legacy => vec![".".to_owned()],
            },
            targets: vec!["*".to_owned()],
            secret_file: None,
            headers: BTreeMap::new(),
            timeout: Duration::from_secs(10),
            retry: retry(&Table::default()),
            format: WebhookFormat::V1,
            ..webhook.clone()
        };
        let (usual, mut typed) = (plain.typed(), webhook.typed());
        drop_nulls(&mut typed);
        if webhook.session != *session {
            out.push_str(&format!(
                "session = {}\n",
                toml_value(&json!(webhook.session.as_str()))
            ));
        }
        for (key, value) in typed.as_object().into_iter().flatten() {
            if key == "url" || usual[key] != *value {
                let same_retry = key == "retry" && webhook.retry == plain.retry;
                if !same_retry {
                    out.push_str(&format!("{key} = {}\n", toml_value(value)));
                }
            }
        }
    }
    out
}

/// `[webhooks]` of the original: a table of webhooks from `event = url`.
pub(crate) fn from_ini(section: &Table, report: &mut Report) -> Table {
    let mut webhooks = Table::default();
    for (event, entry) in section.in_order() {
        let span = entry.key;
        if !is_topic(event) {
            let near = crate::suggest::nearest(event, TOPICS.iter().copied());
            let help = near
                .map(|near| format!("did you mean `{near}`?"))
                .unwrap_or_default();
            report.error(
                span,
                "webhooks",
                format!("`{event}` is no event of gaffer"),
                &help,
            );
            continue;
        }
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c
            } else {
                '-'
            }
        };
        let name: String = match event {
            "." => "all".to_owned(),
            event => event.chars().map(plain).collect(),
        };
        let url = Node::str(entry.node.as_str().unwrap_or_default().trim(), entry.node.span);
        let table = Table::from_iter([
            ("url".to_owned(), url),
            (
                "events".to_owned(),
                Node::new(Item::List(vec![Node::str(event, span)]), span),
            ),
            ("format".to_owned(), Node::str("legacy", span)),
        ]);
        if webhooks.get(&name).is_some() {
            report.error(span, "webhooks", format!("`{event}` is there twice"), "");
            continue;
        }
        webhooks.0.insert(
            name,
            crate::node::Entry {
                key: span,
                node: Node::table(table, span),
            },
        );
    }
    webhooks
}
