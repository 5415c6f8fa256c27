//! A queue: `[queue.X]` with its kinds, from merged tables to the queue of the core, and the same as JSON.

use crate::check::{Checked, lengthen};
use crate::config::{Origin, kept_layers, origin, split_commands, typed};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::digest;
use crate::host::Host;
use crate::keys_queue::{is_queue_only, kind_keys, queue_keys};
use crate::kind;
use crate::launch;
use crate::merge::{MergedQueue, MergedStep};
use crate::node::{Item, Node, Span, Table};
use crate::payload;
use crate::report::Report;
use crate::resolve::{Named, Resolver, World};
use crate::source::plain;
use gaffer_core::name::{JobId, JobName, Name};
use gaffer_core::queue::schema::Schema;
use gaffer_core::queue::spec::{
    By, Conflict, Delivery, OnStop, PayloadBy, Queue, Throttle, Unique, Unknown, Work,
};
use gaffer_core::queue::vigil::Probing;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A queue: what it means, and what was typed.
#[derive(Clone, Debug)]
pub struct LoadedQueue {
    /// Session and name.
    pub id: JobId,
    /// For the core.
    pub spec: Arc<Queue>,
    /// The merged object with the keys of `[queue.X]`, every kind complete: what is kept, and what the API shows.
    /// [`load_queue_json`] reads it back to the same `spec`.
    pub typed: Value,
    /// Where it is written; none for one made without a file.
    pub origin: Option<Origin>,
}

/// One queue from JSON with the keys of `[queue.X]`: what was kept.
pub fn load_queue_json(
    session: &str,
    name: &str,
    json: &Value,
    host: &dyn Host,
) -> Result<LoadedQueue, Diagnostics> {
    let mut report = Report::new(Path::new("/"));
    let Item::Table(table) = Node::from_json(json).item else {
        return Err(Diagnostic::error("a queue is an object with the keys of [queue.X]").into());
    };
    let merged = from_json(session, name, table, host, &mut report);
    let loaded = resolve(merged, &mut World::new(host), &mut report);
    match loaded {
        Some(mut loaded) if !report.has_errors() => {
            loaded.origin = None;
            Ok(loaded)
        }
        _ => Err(report.finish()),
    }
}

/// JSON in the shape of a queue that was merged from files.
fn from_json(
    session: &str,
    name: &str,
    mut table: Table,
    host: &dyn Host,
    report: &mut Report,
) -> MergedQueue {
    let path = format!("queue.{name}.");
    let kinds = table.remove("kind");
    check_keys(
        queue_keys(),
        &path,
        &format!("queue `{name}`"),
        &mut table,
        report,
    );
    let mut merged = Vec::new();
    if let Some(Item::Table(kinds)) = kinds.map(|node| node.item) {
        for (kind, entry) in kinds.0 {
            if let Item::Table(mut own) = entry.node.item {
                let place = format!("{path}kind.{kind}.");
                check_keys(kind_keys(), &place, &format!("kind `{kind}`"), &mut own, report);
                merged.push(work_from_json(&kind, own, host, report));
            }
        }
    }
    let mut own = table.clone();
    own.0.retain(|key, _| !is_queue_only(key));
    table.0.retain(|key, _| is_queue_only(key));
    MergedQueue {
        session: session.to_owned(),
        name: name.to_owned(),
        span: Span::NONE,
        table,
        work: work_from_json(name, own, host, report),
        kinds: merged,
    }
}

fn check_keys(
    keys: &'static [crate::keys::Key],
    path: &str,
    what: &str,
    table: &mut Table,
    report: &mut Report,
) {
    Checked {
        keys,
        path,
        what,
        without: None,
        written: true,
    }
    .check(table, report);
    lengthen(keys, table);
}

fn work_from_json(name: &str, mut table: Table, host: &dyn Host, report: &mut Report) -> MergedStep {
    split_commands(&mut table);
    let (layers, unread) = kept_layers(&mut table, host, report);
    table.remove("env_digest");
    if table.get("cwd").is_none() {
        let here = crate::template::escape_templates(&host.current_dir().to_string_lossy());
        table.put("cwd", Node::str(here, Span::NONE));
    }
    MergedStep {
        name: name.to_owned(),
        span: Span::NONE,
        table,
        layers,
        unread,
    }
}

/// Gives a merged queue its meaning. What is wrong goes to the report.
pub(crate) fn resolve(
    merged: MergedQueue,
    world: &mut World<'_>,
    report: &mut Report,
) -> Option<LoadedQueue> {
    let path = format!("queue.{}", merged.name);
    let id = names(&merged, &path, report)?;
    let (work, mut all) = work(&merged.work, &path, world, report);
    let keep_running = merged.work.table.get("keep_running").and_then(Node::as_bool) == Some(true);
    let mut spec = Queue {
        logs: logs(&merged.work, &path, world, report),
        probing: probing(&merged.work, &path, world, report),
        work,
        keep_running,
        ..Queue::of(By::Others)
    };
    let mut kinds = Map::new();
    for kind in &merged.kinds {
        let path = format!("{path}.kind.{}", kind.name);
        let (work, typed) = self::work(kind, &path, world, report);
        if work.by == By::Others {
            report.error(
                kind.span,
                &path,
                format!("kind `{}` has no work", kind.name),
                "give it a `cmd` or a `task`",
            );
        }
        spec.kinds.insert(kind.name.as_str().into(), work);
        kinds.insert(kind.name.clone(), Value::Object(typed));
    }
    let table = Values {
        table: &merged.table,
        path: &path,
    };
    table.fill(&mut spec, report);
    for (key, entry) in merged.table.iter() {
        all.insert(key.to_owned(), entry.node.to_json());
    }
    if !kinds.is_empty() {
        all.insert("kind".to_owned(), Value::Object(kinds));
    }
    let sorted: BTreeMap<String, Value> = all.into_iter().collect();
    Some(LoadedQueue {
        typed: Value::Object(sorted.into_iter().collect()),
        origin: Some(origin(report, merged.span)),
        spec: Arc::new(spec),
        id,
    })
}

fn names(merged: &MergedQueue, path: &str, report: &mut Report) -> Option<JobId> {
    // A queue has no dots in its name.
    let name = Name::parse(&merged.name).map_err(|error| error.to_string());
    let name = name.and_then(|name| JobName::parse(name.as_str()).map_err(|error| error.to_string()));
    let session = Name::parse(&merged.session).map_err(|error| error.to_string());
    for kind in &merged.kinds {
        if let Err(error) = JobName::parse(&kind.name) {
            report.error(kind.span, path, error.to_string(), "");
        }
    }
    match (session, name) {
        (Ok(session), Ok(name)) => Some(JobId::new(session, name)),
        (session, name) => {
            for error in [session.err(), name.err()].into_iter().flatten() {
                report.error(merged.span, path, error, "");
            }
            None
        }
    }
}

fn resolver<'a, 'h>(
    merged: &'a MergedStep,
    path: &str,
    named: &'a Named,
    world: &'a mut World<'h>,
    report: &'a mut Report,
) -> Resolver<'a, 'h> {
    Resolver {
        world,
        report,
        path: format!("{path}."),
        name: &merged.name,
        span: merged.span,
        table: &merged.table,
        layers: &merged.layers,
        unread: merged.unread.as_deref(),
        task: Some(named),
    }
}

fn logs(
    merged: &MergedStep,
    path: &str,
    world: &mut World<'_>,
    report: &mut Report,
) -> gaffer_core::job::Logs {
    let named = Named::queue();
    resolver(merged, path, &named, world, report).logs()
}

/// How resident workers are asked; others have neither of the keys.
fn probing(merged: &MergedStep, path: &str, world: &mut World<'_>, report: &mut Report) -> Probing {
    let named = Named::queue();
    let mut resolver = resolver(merged, path, &named, world, report);
    let (ready, within) = resolver.ready();
    Probing {
        ready,
        within,
        health: resolver.health(),
        restarts: resolver.word("health.action") != Some("alert"),
    }
}

/// What is done for a task, and what was typed of it.
fn work(
    merged: &MergedStep,
    path: &str,
    world: &mut World<'_>,
    report: &mut Report,
) -> (Work, Map<String, Value>) {
    let named = Named::queue();
    let mut resolver = resolver(merged, path, &named, world, report);
    let task = resolver.word("task").map(str::to_owned);
    let mut kept = Map::new();
    let by = match (merged.table.get("cmd"), task) {
        (Some(node), Some(_)) => {
            resolver.error(
                node.span,
                "cmd",
                "`cmd` and `task`: the work is one of them",
                "leave one of them out",
            );
            By::Others
        }
        (None, Some(task)) => By::Task(task.into()),
        (Some(_), None) => {
            let launch = launch::launch(&mut resolver);
            let files = digest::files_digest(&merged.layers);
            if let Value::Object(typed) = typed(&merged.table, &merged.layers, &launch, files) {
                kept = typed;
            }
            By::Cmd(Arc::new(launch))
        }
        (None, None) => By::Others,
    };
    let mut work = Work::of(by);
    work.retry = resolver.retry(work.retry);
    work.exit = resolver.exit();
    work.stop = resolver.stop();
    work.timeout = resolver.duration("timeout");
    if work.timeout.is_some_and(|timeout| timeout.is_zero()) {
        let span = resolver.span_of("timeout");
        resolver.error(span, "timeout", "`timeout` must be longer than nothing", "");
    }
    if let Some(crashes) = merged
        .table
        .at("retry.crashes")
        .and_then(|node| kind::count(node, 1).ok())
    {
        work.crashes = crashes.unwrap_or(u32::MAX);
    }
    if let Some(snooze) = merged
        .table
        .at("exit.snooze")
        .and_then(|node| kind::ends(node).ok())
    {
        work.snooze = snooze;
    }
    if kept.is_empty() {
        for (key, entry) in merged.table.iter() {
            kept.insert(key.to_owned(), entry.node.to_json());
        }
    }
    if let Some((schema, json)) = schema(&mut resolver) {
        work.schema = Some(Arc::new(schema));
        // The file may go: what was in it is kept.
        kept.insert("schema".to_owned(), json);
    }
    (work, kept)
}

/// What a payload has to look like, and the same as JSON: written in the file, or in one of its own.
fn schema(resolver: &mut Resolver<'_, '_>) -> Option<(Schema, Value)> {
    let node = resolver.table.get("schema")?;
    let (what, json) = match &node.item {
        Item::Str(name) => {
            let folder = resolver.report.folder_of(node.span);
            let path = folder.unwrap_or(Path::new("/")).join(name);
            let read = resolver.world.host.read_file(&path);
            let json = read
                .map_err(|error| match error.kind() {
                    ErrorKind::NotFound => "there is no such file".to_owned(),
                    _ => plain(&error),
                })
                .and_then(|text| serde_json::from_str(&text).map_err(|error| format!("is no JSON: {error}")));
            match json {
                Ok(json) => (name.clone(), json),
                Err(why) => {
                    let message = format!("`schema` names {name}: {why}");
                    resolver.error(node.span, "schema", message, "");
                    return None;
                }
            }
        }
        Item::Table(_) => ("`schema`".to_owned(), node.to_json()),
        _ => {
            let message = format!("`schema` is a file or a JSON Schema, not {}", node.kind());
            resolver.error(node.span, "schema", message, "write schema = \"payload.json\"");
            return None;
        }
    };
    match payload::schema_of(&json) {
        Ok(schema) => Some((schema, json)),
        Err(why) => {
            resolver.error(node.span, "schema", format!("{what}: {why}"), "");
            None
        }
    }
}

/// The queue's own keys.
struct Values<'a> {
    table: &'a Table,
    path: &'a str,
}

impl Values<'_> {
    fn duration(&self, path: &str) -> Option<Duration> {
        self.table.at(path).and_then(|node| kind::duration(node).ok())
    }

    fn count(&self, path: &str) -> Option<u32> {
        let node = self.table.at(path)?;
        kind::int(node, 0, i64::from(u32::MAX))
            .ok()
            .and_then(|n| u32::try_from(n).ok())
    }

    fn word(&self, path: &str) -> Option<&str> {
        self.table.at(path).and_then(Node::as_str)
    }

    fn bool(&self, path: &str) -> bool {
        self.table.at(path).and_then(Node::as_bool).unwrap_or(false)
    }

    fn fill(&self, spec: &mut Queue, report: &mut Report) {
        spec.workers = self.count("workers").unwrap_or(spec.workers);
        spec.resident = self.bool("resident");
        spec.slots = self.count("slots").unwrap_or(spec.slots);
        spec.input = match self.word("input") {
            Some("env") => PayloadBy::Env,
            Some("file") => PayloadBy::File,
            _ => PayloadBy::Stdin,
        };
        spec.result_stdout = self.word("result") == Some("stdout");
        if self.word("delivery") == Some("at-most-once") {
            spec.delivery = Delivery::AtMostOnce;
        }
        spec.lease = self.duration("lease").unwrap_or(spec.lease);
        spec.batch = self.count("batch");
        spec.fifo = self.bool("fifo");
        spec.aging = self.duration("aging");
        spec.expires = self.duration("expires");
        spec.keep.done = self.duration("keep.done").unwrap_or(spec.keep.done);
        spec.keep.dead = self.duration("keep.dead").unwrap_or(spec.keep.dead);
        spec.keep.result = self.duration("keep.result").unwrap_or(spec.keep.result);
        spec.keep.stats = self.duration("keep.stats").unwrap_or(spec.keep.stats);
        spec.unique = self.unique(report);
        spec.throttle = self.throttle(report);
        spec.pool = self.word("pool").map(Into::into);
        spec.weight = self.count("weight").unwrap_or(spec.weight);
        spec.redact = self.redact(report);
        if let Some(size) = self
            .table
            .get("max_payload")
            .and_then(|node| kind::size(node).ok())
        {
            spec.max_payload = size;
        }
        spec.unknown = match self.word("unknown_kind") {
            Some("wait") => Unknown::Wait,
            Some("drop") => Unknown::Drop,
            _ => Unknown::Dead,
        };
        spec.full = self.word("durability") != Some("relaxed");
        spec.on_stop = match self.word("on_stop") {
            Some("drain") => OnStop::Drain,
            Some("release") => OnStop::Release,
            _ => OnStop::Finish,
        };
        spec.drain_timeout = self.duration("drain_timeout").unwrap_or(spec.drain_timeout);
        spec.outbox = self.outbox(report);
        spec.store = self.store(report);
        self.consistent(spec, report);
    }

    fn outbox(&self, report: &mut Report) -> Option<Arc<str>> {
        let path = self.word("outbox")?;
        if !path.starts_with('/') {
            self.error(
                "outbox",
                &format!("`{path}` is not an absolute path"),
                "begin it with /",
                report,
            );
        }
        Some(path.into())
    }

    fn store(&self, report: &mut Report) -> Option<Arc<str>> {
        let text = self.word("store")?;
        if !crate::queue_store::is_store(text) {
            // It may hold a password: it is not repeated.
            self.error(
                "store",
                "`store` is neither `sqlite` nor the URL of a database",
                "write \"sqlite\" or \"postgres://USER@HOST/DATABASE\"",
                report,
            );
        }
        Some(text.into())
    }

    fn error(&self, key: &str, message: &str, help: &str, report: &mut Report) {
        let span = self.table.at(key).map_or(Span::NONE, |node| node.span);
        report.error(span, &format!("{}.{key}", self.path), message, help);
    }

    fn consistent(&self, spec: &Queue, report: &mut Report) {
        if spec.lease < Duration::from_secs(1) {
            self.error(
                "lease",
                "`lease` must be at least a second",
                "write \"30s\"",
                report,
            );
        }
        if spec.aging.is_some_and(|step| step < Duration::from_millis(100)) {
            self.error("aging", "`aging` must be at least 100ms", "", report);
        }
        if spec.resident && !matches!(spec.work.by, By::Cmd(_)) {
            self.error("resident", "`resident` keeps workers: it needs `cmd`", "", report);
        }
        if spec.resident && !spec.kinds.is_empty() {
            let help = "a resident worker is told the kind with each task";
            self.error(
                "kind",
                "a queue with `resident` has one program for all kinds",
                help,
                report,
            );
        }
        if spec.slots > 1 && !spec.resident {
            self.error(
                "slots",
                "`slots` are of resident workers",
                "add resident = true",
                report,
            );
        }
        if spec.pool.is_none() && self.table.get("weight").is_some() {
            self.error(
                "weight",
                "`weight` is a share of a pool, and the queue is in none",
                "add pool = \"NAME\"",
                report,
            );
        }
    }

    fn unique(&self, report: &mut Report) -> Option<Unique> {
        let table = self.table.get_table("unique")?;
        let texts = |key: &str| table.get(key).map(Node::texts).unwrap_or_default();
        let mut unique = Unique {
            by: texts("by").into_iter().map(|(path, _)| path.to_owned()).collect(),
            within: self.duration("unique.for"),
            while_running: false,
            while_done: false,
            conflict: match self.word("unique.conflict") {
                Some("replace") => Conflict::Replace,
                Some("debounce") => Conflict::Debounce,
                Some("keep-earliest") => Conflict::KeepEarliest,
                Some("error") => Conflict::Error,
                _ => Conflict::Return,
            },
            max_delay: self.duration("unique.max_delay"),
        };
        for (state, span) in texts("while") {
            match state {
                "scheduled" | "queued" => {}
                "running" => unique.while_running = true,
                "done" => (unique.while_running, unique.while_done) = (true, true),
                other => {
                    let message = format!("`unique.while` names `{other}`");
                    let path = format!("{}.unique.while", self.path);
                    report.error(
                        span,
                        &path,
                        message,
                        "states are scheduled, queued, running, done",
                    );
                }
            }
        }
        if unique.while_done && unique.within.is_none() {
            self.error(
                "unique.while",
                "`done` needs to know for how long",
                "add unique.for = \"1h\"",
                report,
            );
        }
        Some(unique)
    }

    fn redact(&self, report: &mut Report) -> Vec<String> {
        let texts = self.table.get("redact").map(Node::texts).unwrap_or_default();
        for (path, span) in &texts {
            if path.split('.').any(str::is_empty) {
                let message = format!("`{path}` is no path in a payload");
                let place = format!("{}.redact", self.path);
                report.error(*span, &place, message, "write names with dots: \"card.number\"");
            }
        }
        texts.into_iter().map(|(path, _)| path.to_owned()).collect()
    }

    fn throttle(&self, report: &mut Report) -> Throttle {
        let rate = self.word("throttle.rate");
        let read = rate.and_then(rate_of);
        if rate.is_some() && read.is_none() {
            let help = "write a number and s, min or h: \"100/min\"";
            self.error(
                "throttle.rate",
                "`throttle.rate` is a count within a time",
                help,
                report,
            );
        }
        Throttle {
            total: self.count("throttle.total"),
            per_kind: self.count("throttle.per_kind"),
            key: self.word("throttle.key").map(str::to_owned),
            per_key: self.count("throttle.per_key"),
            rate: read,
        }
    }
}

/// `100/min`, `5/s`, `1000/h`, `10/30s`.
fn rate_of(text: &str) -> Option<(u32, Duration)> {
    let (count, time) = text.split_once('/')?;
    let count: u32 = count.trim().parse().ok().filter(|count| *count > 0)?;
    let time = match time.trim() {
        "s" | "sec" => Duration::from_secs(1),
        "m" | "min" => Duration::from_secs(60),
        "h" | "hour" => Duration::from_secs(3600),
        "d" | "day" => Duration::from_secs(86_400),
        other => kind::duration(&Node::str(other, Span::NONE)).ok()?,
    };
    (!time.is_zero()).then_some((count, time))
}
