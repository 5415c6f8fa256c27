//! A native task: `[task.X]` with its steps, from merged tables to the task of the core, and the same as JSON.

use crate::after::{self, On, Wait, Who};
use crate::check::{Checked, lengthen};
use crate::config::{Origin, kept_layers, origin, split_commands, typed};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::host::Host;
use crate::keys_task::{is_task_only, step_keys, task_keys};
use crate::launch;
use crate::merge::{MergedStep, MergedTask};
use crate::node::{Item, Node, Span, Table};
use crate::report::Report;
use crate::resolve::{Named, Resolver, World};
use crate::template::substitute;
use crate::{digest, kind};
use gaffer_core::job::{After, Condition, Retry};
use gaffer_core::name::{JobId, JobName, Name};
use gaffer_core::task::spec::{GraphError, Step, Task, When};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Written by gaffer beside `step`: JSON objects have no order, and steps begin in theirs.
const STEP_ORDER: &str = "step_order";

/// A task: what it means, and what was typed.
#[derive(Clone, Debug)]
pub struct LoadedTask {
    /// Session and name.
    pub id: JobId,
    /// For the core.
    pub spec: Arc<Task>,
    /// The merged object with the keys of `[task.X]`, every step in `step`: what is kept, and what the API
    /// shows. [`load_task_json`] reads it back to the same `spec`.
    pub typed: Value,
    /// Names of `{{params.N}}` with their defaults; none: it has to be given.
    pub params: BTreeMap<String, Option<String>>,
    /// How many runs may be active.
    pub unique: Unique,
    /// It runs by itself, once for each definition.
    pub start: bool,
    /// Of those that start by themselves, lower starts first.
    pub priority: i32,
    /// Jobs that are waited for.
    pub after: After,
    /// Tasks that are waited for.
    pub after_tasks: After,
    /// How long runs are kept.
    pub keep: Keep,
    /// Their names as they were written.
    pub(crate) waits: Vec<Wait>,
    /// Where the task is written.
    pub(crate) span: Span,
    /// Where it is written; none for tasks made without a file.
    pub origin: Option<Origin>,
}

impl LoadedTask {
    /// What it comes after is known.
    pub(crate) fn comes_after(&mut self, found: &BTreeMap<On, (Condition, Span)>) {
        (self.after, self.after_tasks) = after::split(found);
        if let (Some(typed), false) = (self.typed.as_object_mut(), found.is_empty()) {
            typed.insert("after".to_owned(), after::typed(&self.id, found));
        }
    }

    /// A job comes after it: it starts by itself, unless it says otherwise.
    pub(crate) fn start_if_unsaid(&mut self) {
        if let Some(typed) = self.typed.as_object_mut()
            && typed.get("start").is_none()
        {
            typed.insert("start".to_owned(), json!(true));
            self.start = true;
        }
    }

    /// Nobody gives values to what starts by itself.
    pub(crate) fn check_start(&self, report: &mut Report) {
        let missing = self.params.iter().find(|(_, default)| default.is_none());
        if let (true, Some((name, _))) = (self.start, missing) {
            let message = format!(
                "task `{}` starts by itself, and its parameter `{name}` has no value",
                self.id.job
            );
            let help = "give it a default, or the task start = false";
            report.error(self.span, &format!("task.{}.params", self.id.job), message, help);
        }
    }
}

/// How long runs that are over are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Those that succeeded.
    pub done: Duration,
    /// All others.
    pub failed: Duration,
    /// The newest of them; none is unlimited.
    pub count: Option<u32>,
    /// Bytes of all together.
    pub size: Option<u64>,
}

impl Default for Keep {
    fn default() -> Keep {
        const DAY: u64 = 24 * 60 * 60;
        Keep {
            done: Duration::from_secs(7 * DAY),
            failed: Duration::from_secs(30 * DAY),
            count: None,
            size: None,
        }
    }
}

/// How many runs of a task may be active at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unique {
    /// Any number.
    None,
    /// One.
    Task,
    /// One for each value of this text, which may hold `{{params.N}}`.
    Key(String),
}

impl Unique {
    /// The key of a run with these parameters; none: there may be any number. A text that cannot be filled in is a key as it is.
    pub fn key(&self, task: &JobId, params: &BTreeMap<String, String>) -> Option<String> {
        let text = match self {
            Unique::None => return None,
            Unique::Task => return Some(task.to_string()),
            Unique::Key(text) => text,
        };
        let value = |name: &str| match name {
            "task.name" => Some(Ok(task.job.to_string())),
            "session" => Some(Ok(task.session.to_string())),
            _ => params.get(name.strip_prefix("params.")?).cloned().map(Ok),
        };
        let filled = substitute(text, true, &value).unwrap_or_else(|_| text.clone());
        Some(format!("{task}: {filled}"))
    }
}

/// One task from JSON with the keys of `[task.X]`: the body of a request, or what was kept.
pub fn load_task_json(
    session: &str,
    name: &str,
    json: &Value,
    host: &dyn Host,
) -> Result<LoadedTask, Diagnostics> {
    let mut report = Report::new(Path::new("/"));
    let Item::Table(table) = Node::from_json(json).item else {
        return Err(Diagnostic::error("a task is an object with the keys of [task.X]").into());
    };
    let merged = from_json(session, name, table, host, &mut report);
    let mut loaded = resolve(merged, &mut World::new(host), &mut report);
    if let Some(loaded) = &mut loaded {
        let who = Who {
            kind: "task",
            id: &loaded.id,
        };
        let found = after::as_written(&who, &loaded.waits, &mut report);
        loaded.comes_after(&found);
    }
    match loaded {
        Some(mut loaded) if !report.has_errors() => {
            loaded.origin = None;
            Ok(loaded)
        }
        _ => Err(report.finish()),
    }
}

/// JSON in the shape of a task that was merged from files.
fn from_json(
    session: &str,
    name: &str,
    mut table: Table,
    host: &dyn Host,
    report: &mut Report,
) -> MergedTask {
    let path = format!("task.{name}.");
    for key in ["name", "session"] {
        table.remove(key);
    }
    let steps = table.remove("step");
    let order: Vec<String> = table
        .remove(STEP_ORDER)
        .iter()
        .flat_map(Node::texts)
        .map(|(name, _)| name.to_owned())
        .collect();
    let what = format!("task `{name}`");
    let keys = task_keys();
    check(keys, &path, &what, &mut table, report);
    let mut merged = Vec::new();
    match steps.map(|node| node.item) {
        None => {
            let mut own = table.clone();
            own.0.retain(|key, _| key == "stop" || !is_task_only(key));
            merged.push(step_from_json(name, own, host, report));
        }
        Some(Item::Table(steps)) => {
            let place = |name: &str| order.iter().position(|one| one == name);
            let mut all: Vec<(String, Node)> = steps
                .0
                .into_iter()
                .map(|(name, entry)| (name, entry.node))
                .collect();
            all.sort_by_key(|(name, _)| place(name).unwrap_or(usize::MAX));
            for (step, node) in all {
                let place = format!("{path}step.{step}");
                let Item::Table(mut own) = node.item else {
                    report.error(Span::NONE, &place, format!("`step.{step}` is a table"), "");
                    continue;
                };
                check(
                    step_keys(),
                    &format!("{place}."),
                    &format!("step `{step}`"),
                    &mut own,
                    report,
                );
                merged.push(step_from_json(&step, own, host, report));
            }
        }
        Some(_) => report.error(
            Span::NONE,
            &format!("{path}step"),
            "`step` is a table of steps",
            "",
        ),
    }
    table.0.retain(|key, _| is_task_only(key));
    MergedTask {
        session: session.to_owned(),
        name: name.to_owned(),
        span: Span::NONE,
        table,
        steps: merged,
    }
}

fn check(keys: &'static [crate::keys::Key], path: &str, what: &str, table: &mut Table, report: &mut Report) {
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

fn step_from_json(name: &str, mut table: Table, host: &dyn Host, report: &mut Report) -> MergedStep {
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

/// The retry policy of a step that says nothing (ux.md 2.5).
fn retry_of_steps() -> Retry {
    Step::of("", gaffer_core::job::Launch::of(Vec::new())).retry
}

/// Gives a merged task its meaning. What is wrong goes to the report.
pub(crate) fn resolve(
    mut merged: MergedTask,
    world: &mut World<'_>,
    report: &mut Report,
) -> Option<LoadedTask> {
    let path = format!("task.{}", merged.name);
    let id = names(&merged, &path, report)?;
    if merged.steps.is_empty() {
        let message = format!("task `{}` has no step", merged.name);
        report.error(merged.span, &path, message, "give it a `cmd`, or steps");
        return None;
    }
    let graph = Graph::of(&merged, &path, report);
    let params = params(&merged.table);
    let mut named = Named {
        params: params.keys().cloned().collect(),
        outputs: outputs(&merged, &path, report),
        before: BTreeSet::new(),
        queue: false,
    };
    let one_step = merged.steps.len() == 1 && merged.steps[0].name == merged.name;
    let mut steps = Vec::with_capacity(merged.steps.len());
    let mut typed_steps = Map::new();
    for (at, step) in merged.steps.iter_mut().enumerate() {
        named.before = match step.table.to_json().to_string().contains("steps.") {
            true => graph.before(at),
            false => BTreeSet::new(),
        };
        let path = match one_step {
            true => format!("{path}."),
            false => format!("{path}.step.{}.", step.name),
        };
        let resolved = resolve_step(step, path, &named, world, report);
        let files = digest::files_digest(&step.layers);
        typed_steps.insert(
            step.name.clone(),
            typed(&step.table, &step.layers, &resolved.launch, files),
        );
        steps.push(Step {
            after: graph.edges[at]
                .iter()
                .map(|(on, (when, _))| (*on, *when))
                .collect(),
            ..resolved
        });
    }
    let spec = task(&merged.table, &id, steps);
    if let Err(error) = spec.check() {
        let span = graph.place(&error, &merged);
        report.error(span, &path, error.to_string(), "");
        return None;
    }
    Some(LoadedTask {
        typed: typed_task(&merged, typed_steps),
        unique: unique(&merged.table),
        start: starts(&merged.table),
        priority: priority(&merged.table),
        keep: keep(&merged.table),
        after: After::new(),
        after_tasks: After::new(),
        waits: after::waits(&merged.table),
        span: merged.span,
        origin: Some(origin(report, merged.span)),
        spec: Arc::new(spec),
        params,
        id,
    })
}

fn priority(table: &Table) -> i32 {
    match table.get("priority").map(|node| &node.item) {
        Some(Item::Int(number)) => i32::try_from(*number).unwrap_or(0),
        _ => 0,
    }
}

fn keep(table: &Table) -> Keep {
    let duration = |path: &str| table.at(path).and_then(|node| kind::duration(node).ok());
    let usual = Keep::default();
    Keep {
        done: duration("keep.done").unwrap_or(usual.done),
        failed: duration("keep.failed").unwrap_or(usual.failed),
        count: table
            .at("keep.count")
            .and_then(|node| kind::count(node, 1).ok())
            .flatten(),
        size: table.at("keep.size").and_then(|node| kind::size(node).ok()),
    }
}

fn starts(table: &Table) -> bool {
    let start = table.get("start").map(|node| &node.item);
    matches!(start, Some(Item::Bool(true)))
}

fn params(table: &Table) -> BTreeMap<String, Option<String>> {
    let params = table.get("params").and_then(|node| kind::params(node).ok());
    let params = params.unwrap_or_default().into_iter();
    params.map(|(name, default)| (name.to_owned(), default)).collect()
}

fn names(merged: &MergedTask, path: &str, report: &mut Report) -> Option<JobId> {
    let mut good = true;
    for step in &merged.steps {
        if let Err(error) = Name::parse(&step.name) {
            report.error(step.span, path, error.to_string(), "");
            good = false;
        }
    }
    // A task has no dots in its name.
    let name = Name::parse(&merged.name).map_err(|error| error.to_string());
    let name = name.and_then(|name| JobName::parse(name.as_str()).map_err(|error| error.to_string()));
    let session = Name::parse(&merged.session).map_err(|error| error.to_string());
    match (session, name) {
        (Ok(session), Ok(name)) if good => Some(JobId::new(session, name)),
        (session, name) => {
            for error in [session.err(), name.err()].into_iter().flatten() {
                report.error(merged.span, path, error, "");
            }
            None
        }
    }
}

/// Declared outputs by step.
fn outputs(merged: &MergedTask, path: &str, report: &mut Report) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    for step in &merged.steps {
        let mut names = BTreeSet::new();
        for (name, span) in step.table.get("outputs").map(Node::texts).unwrap_or_default() {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if name.is_empty() || !name.chars().all(plain) {
                let message = format!(
                    "`outputs` names `{}`: use letters, digits, `_` and `-`",
                    name.escape_debug()
                );
                report.error(span, &format!("{path}.step.{}.outputs", step.name), message, "");
            }
            names.insert(name.to_owned());
        }
        all.insert(step.name.clone(), names);
    }
    all
}

fn resolve_step(
    step: &MergedStep,
    path: String,
    named: &Named,
    world: &mut World<'_>,
    report: &mut Report,
) -> Step {
    let mut resolver = Resolver {
        world,
        report,
        path,
        name: &step.name,
        span: step.span,
        table: &step.table,
        layers: &step.layers,
        unread: step.unread.as_deref(),
        task: Some(named),
    };
    let launch = launch::launch(&mut resolver);
    let mut resolved = Step::of(step.name.as_str(), launch);
    resolved.retry = resolver.retry(retry_of_steps());
    match resolver.word("restart") {
        Some("always") => resolved.restart_always = true,
        Some("never") => resolved.retry.attempts = Some(1),
        _ => {}
    }
    resolved.background = resolver.bool("background").unwrap_or(false);
    resolved.is_final = resolver.bool("final").unwrap_or(false);
    resolved.exit = resolver.exit();
    resolved.stop = resolver.stop();
    resolved.timeout = resolver.duration("timeout");
    resolved.outputs = named.outputs[&step.name]
        .iter()
        .map(|name| Arc::from(name.as_str()))
        .collect();
    resolved.logs = resolver.logs();
    if resolved.timeout.is_some_and(|timeout| timeout.is_zero()) {
        let span = resolver.span_of("timeout");
        resolver.error(span, "timeout", "`timeout` must be longer than nothing", "");
    }
    if let (true, Some("never")) = (step.table.get_table("retry").is_some(), resolver.word("restart")) {
        let span = resolver.span_of("retry");
        resolver.warning(
            span,
            "retry",
            "`retry` has no effect with `restart = \"never\"`",
            "",
        );
    }
    resolved
}

fn task(table: &Table, id: &JobId, steps: Vec<Step>) -> Task {
    let count = |key: &str| table.get(key).and_then(|node| kind::count(node, 1).ok());
    let duration = |path: &str| table.at(path).and_then(|node| kind::duration(node).ok());
    let mut task = Task::of(id.job.as_str(), steps);
    task.failures = count("failures").unwrap_or(task.failures);
    task.concurrency = count("concurrency").unwrap_or(None);
    task.finalize_timeout = duration("finalize_timeout").unwrap_or(task.finalize_timeout);
    task.timeout = duration("timeout");
    task.stop_timeout = duration("stop.timeout").unwrap_or(task.stop_timeout);
    task
}

fn unique(table: &Table) -> Unique {
    match table.get("unique").and_then(Node::as_str) {
        None | Some("none") => Unique::None,
        Some("task") => Unique::Task,
        Some(key) => Unique::Key(key.to_owned()),
    }
}

fn typed_task(merged: &MergedTask, steps: Map<String, Value>) -> Value {
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    for (key, entry) in merged.table.iter() {
        let node = match key {
            // Of a task of one step the rest is its step's.
            "stop" => entry.node.as_table().and_then(|stop| stop.get("timeout")),
            _ => Some(&entry.node),
        };
        match (key, node) {
            ("stop", Some(timeout)) => {
                drop(all.insert("stop".to_owned(), json!({ "timeout": timeout.to_json() })))
            }
            (_, Some(node)) => drop(all.insert(key.to_owned(), node.to_json())),
            (_, None) => {}
        }
    }
    let order: Vec<&str> = merged.steps.iter().map(|step| step.name.as_str()).collect();
    all.insert(STEP_ORDER.to_owned(), json!(order));
    let steps: BTreeMap<String, Value> = steps.into_iter().collect();
    all.insert("step".to_owned(), json!(steps));
    Value::Object(all.into_iter().collect())
}

/// Who waits for whom.
struct Graph {
    /// By step: what it waits for, with the place where that is said.
    edges: Vec<BTreeMap<usize, (When, Span)>>,
    names: Vec<String>,
}

impl Graph {
    fn of(merged: &MergedTask, path: &str, report: &mut Report) -> Graph {
        let names: Vec<String> = merged.steps.iter().map(|step| step.name.clone()).collect();
        let index: BTreeMap<&str, usize> = names
            .iter()
            .enumerate()
            .map(|(at, name)| (name.as_str(), at))
            .collect();
        let mut edges: Vec<BTreeMap<usize, (When, Span)>> = vec![BTreeMap::new(); names.len()];
        let mut find = |who: &str, name: &str, span: Span, key: &str| match index.get(name) {
            Some(at) => Some(*at),
            None => {
                let help = crate::suggest::nearest(name, index.keys().copied());
                let help = help
                    .map(|near| format!("did you mean `{near}`?"))
                    .unwrap_or_default();
                let message = format!("{who} names step `{name}`, which does not exist");
                report.error(span, &format!("{path}.{key}"), message, &help);
                None
            }
        };
        for (at, step) in merged.steps.iter().enumerate() {
            for (name, when, span) in waits(step) {
                let key = format!("step.{}.after", step.name);
                if let Some(on) = find(&format!("`after` of step `{}`", step.name), &name, span, &key) {
                    edges[at].insert(on, (when, span));
                }
            }
        }
        let orders = merged.table.get("order").and_then(|node| kind::order(node).ok());
        for order in orders.unwrap_or_default() {
            let found: Vec<Option<usize>> = order
                .iter()
                .map(|(name, span)| find("`order`", name, *span, "order"))
                .collect();
            for (pair, (_, span)) in found.windows(2).zip(order.iter().skip(1)) {
                if let [Some(first), Some(second)] = pair {
                    edges[*second].entry(*first).or_insert((When::Done, *span));
                }
            }
        }
        Graph { edges, names }
    }

    /// Names of the steps that have succeeded whenever this one runs.
    fn before(&self, step: usize) -> BTreeSet<String> {
        let mut seen: BTreeSet<usize> = BTreeSet::new();
        let mut open = vec![step];
        while let Some(at) = open.pop() {
            let done = self.edges[at].iter().filter(|(_, (when, _))| *when == When::Done);
            for (on, _) in done {
                if seen.insert(*on) {
                    open.push(*on);
                }
            }
        }
        seen.into_iter().map(|at| self.names[at].clone()).collect()
    }

    /// Where an impossible graph is said.
    fn place(&self, error: &GraphError, merged: &MergedTask) -> Span {
        let pair = match error {
            GraphError::Mixed(first, second)
            | GraphError::AfterEndless(first, second)
            | GraphError::AfterBackground(first, second) => Some((first.clone(), second.clone())),
            GraphError::Cycle(path) => match &path[..] {
                [first, second, ..] => Some((second.clone(), first.clone())),
                _ => None,
            },
            GraphError::Twice(_) | GraphError::Unknown(_) => None,
        };
        let at = |name: &str| self.names.iter().position(|known| known == name);
        let edge = pair.and_then(|(who, on)| {
            let (who, on) = (at(&who)?, at(&on)?);
            let found = self.edges[who].get(&on).or_else(|| self.edges[on].get(&who));
            found.map(|(_, span)| *span)
        });
        edge.unwrap_or(merged.span)
    }
}

/// `after` of a step.
fn waits(step: &MergedStep) -> Vec<(String, When, Span)> {
    let Some(node) = step.table.get("after") else {
        return Vec::new();
    };
    let when = |word: Option<&str>| match word {
        Some("ended") => When::Ended,
        Some("failed") => When::Failed,
        _ => When::Done,
    };
    match &node.item {
        Item::Table(table) => table
            .in_order()
            .into_iter()
            .map(|(name, entry)| (name.to_owned(), when(entry.node.as_str()), entry.key))
            .collect(),
        _ => {
            let names = node.texts().into_iter();
            names
                .map(|(name, span)| (name.to_owned(), When::Done, span))
                .collect()
        }
    }
}
