//! Task files of Thermos: one task as JSON, or several under `tasks`, understood as they are.
//!
//! The order of what is checked is the original's, the first mistake wins: names, fields, graph, references, ports,
//! references again with the real values. Beyond the original, unknown fields, duplicate names, negative numbers and names in an
//! order that no process has are refused, each with its place.
//!
//! What comes out is a task of the core, and the same task as JSON with everything filled in and every default written out:
//! the form in which it is kept, and compared when it is run again.

pub mod build;
mod fields;
mod template;

use crate::json_text;
use crate::node::{Item, Node, Table};
use crate::report::Report;
use crate::{Diagnostic, Diagnostics};
use fields::{Fields, Raw};
use gaffer_core::job::{Amount, EnvInherit, Launch, Limits, Logs, Output, Retry, Scope, Stop, User};
use gaffer_core::task::spec::{GraphError, Step, Task, When};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use template::Scopes;

use fields::{Destination, Logger};
pub use fields::{Lifecycle, Resources, ShutdownCall};

/// What a task file is filled in with.
#[derive(Clone, Debug, Default)]
pub struct ThermosContext {
    /// `--task`: which of several.
    pub task: Option<String>,
    /// `{{thermos.task_id}}`.
    pub task_id: String,
    /// `{{thermos.user}}`.
    pub user: String,
    /// Who that is, if it is not the user of the daemon: processes run as this user.
    pub run_as: Option<User>,
    /// `{{thermos.ports[NAME]}}`.
    pub ports: BTreeMap<String, u16>,
    /// `-E NAME=VALUE`.
    pub bindings: BTreeMap<String, String>,
    /// Working directory of the steps, absolute.
    pub sandbox: String,
}

/// A task that was understood.
#[derive(Clone, Debug)]
pub struct ThermosTask {
    /// For the core.
    pub spec: Arc<Task>,
    /// Filled in, with all defaults.
    pub json: Value,
    /// How its programs are asked to end before they are signalled.
    pub lifecycle: Option<Lifecycle>,
    /// What the task asks for.
    pub resources: Option<Resources>,
    /// The task fails when its working directory takes more than these bytes.
    pub disk: Option<u64>,
    /// Names of the ports that it uses.
    pub ports: BTreeSet<String>,
}

/// Is this text a task of Thermos, and not a job file of gaffer?
pub fn is_thermos(text: &str) -> bool {
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        return false;
    };
    let task = |value: &Value| value.get("processes").is_some();
    task(&value)
        || value
            .get("tasks")
            .and_then(Value::as_array)
            .is_some_and(|tasks| tasks.iter().any(task))
}

/// Understands a task file.
pub fn load_thermos(text: &str, file: &Path, context: &ThermosContext) -> Result<ThermosTask, Diagnostics> {
    let base = file.parent().unwrap_or(Path::new("/"));
    let mut report = Report::new(base);
    let number = report.add_file(file, text);
    let Some(root) = json_text::parse(text, number, &mut report) else {
        return Err(report.finish());
    };
    match chosen(&root, context.task.as_deref()) {
        Ok(task) => understand(task, context, report),
        Err(message) => {
            report.error(root.span, "", message, "");
            Err(report.finish())
        }
    }
}

/// Understands a task that was kept.
pub fn load_thermos_json(json: &Value, context: &ThermosContext) -> Result<ThermosTask, Diagnostics> {
    let node = Node::from_json(json);
    match node.as_table() {
        Some(task) => understand(task, context, Report::new(Path::new("/"))),
        None => Err(Diagnostic::error("a task is an object").into()),
    }
}

/// The one task that is meant.
fn chosen<'a>(root: &'a Node, name: Option<&str>) -> Result<&'a Table, String> {
    let root = match &root.item {
        Item::Table(table) => table,
        _ => return Err("a task file is an object, or {\"tasks\": […]}".to_owned()),
    };
    let Some(list) = root.get("tasks") else {
        return match (name, name_of(root)) {
            (Some(name), found) if found.as_deref() != Some(name) => {
                Err(format!("there is no task `{name}` in this file"))
            }
            _ => Ok(root),
        };
    };
    let tasks: Vec<&Table> = list
        .as_list()
        .unwrap_or_default()
        .iter()
        .filter_map(Node::as_table)
        .collect();
    match (name, &tasks[..]) {
        (_, []) => Err("there is no task in this file".to_owned()),
        (None, [one]) => Ok(one),
        (None, several) => {
            let names: Vec<String> = several.iter().filter_map(|task| name_of(task)).collect();
            Err(format!(
                "there are several tasks in this file ({}): name one with --task",
                names.join(", ")
            ))
        }
        (Some(name), several) => several
            .iter()
            .find(|task| name_of(task).as_deref() == Some(name))
            .copied()
            .ok_or_else(|| format!("there is no task `{name}` in this file")),
    }
}

/// `name`, or that of the first process.
fn name_of(task: &Table) -> Option<String> {
    let own = task.get("name").and_then(Node::as_str).map(str::to_owned);
    own.or_else(|| {
        let first = task.get("processes")?.as_list()?.first()?;
        Some(first.as_table()?.get("name")?.as_str()?.to_owned())
    })
}

fn understand(
    task: &Table,
    context: &ThermosContext,
    mut report: Report,
) -> Result<ThermosTask, Diagnostics> {
    let needed = needed_ports(task);
    // References are looked at with stand-ins first: what is missing then is missing in the file.
    for port in &needed {
        if !context.ports.contains_key(port) {
            let message = format!("port `{port}` has no number");
            report.error(
                place_of_port(task, port),
                "",
                message,
                &format!("give it one: --port {port}=8080"),
            );
        }
    }
    let built_in = built_in(context, &needed);
    let filled = fill_all(task, context, &built_in, &mut report);
    let raw = Fields { report: &mut report }.task(&filled);
    let Some(raw) = raw.filter(|_| !report.has_errors()) else {
        return Err(report.finish());
    };
    let spec = spec(&raw, context);
    if let Err(error) = spec.check() {
        report.error(place_of_graph(&raw, &error), "constraints", error.to_string(), "");
        return Err(report.finish());
    }
    Ok(ThermosTask {
        json: json_of(&raw),
        spec: Arc::new(spec),
        lifecycle: raw.lifecycle,
        resources: raw.resources,
        disk: raw
            .resources
            .filter(|_| raw.enforce)
            .map(|resources| resources.disk),
        ports: needed,
    })
}

fn built_in(context: &ThermosContext, needed: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut values = BTreeMap::from([
        ("thermos.task_id".to_owned(), context.task_id.clone()),
        ("thermos.user".to_owned(), context.user.clone()),
    ]);
    for port in needed {
        let number = context.ports.get(port).copied().unwrap_or(0);
        values.insert(format!("thermos.ports[{port}]"), number.to_string());
    }
    values
}

fn needed_ports(task: &Table) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    each_text(
        &Node::table(task.clone(), crate::node::Span::NONE),
        &mut |text, _| {
            found.extend(template::ports(text));
        },
    );
    found
}

fn place_of_port(task: &Table, port: &str) -> crate::node::Span {
    let mut place = crate::node::Span::NONE;
    each_text(&Node::table(task.clone(), place), &mut |text, span| {
        if template::ports(text).contains(port) && place == crate::node::Span::NONE {
            place = span;
        }
    });
    place
}

fn each_text(node: &Node, seen: &mut dyn FnMut(&str, crate::node::Span)) {
    match &node.item {
        Item::Str(text) => seen(text, node.span),
        Item::List(list) => list.iter().for_each(|one| each_text(one, seen)),
        Item::Table(table) => table.iter().for_each(|(_, entry)| each_text(&entry.node, seen)),
        Item::Int(_) | Item::Float(_) | Item::Bool(_) | Item::Other(_) => {}
    }
}

/// The task with every text filled in.
fn fill_all(
    task: &Table,
    context: &ThermosContext,
    built_in: &BTreeMap<String, String>,
    report: &mut Report,
) -> Table {
    let mut filled = Table::default();
    for (name, entry) in task.iter() {
        let mut entry = entry.clone();
        match (name, &mut entry.node.item) {
            ("processes", Item::List(processes)) => {
                for process in processes {
                    let Item::Table(table) = &mut process.item else {
                        continue;
                    };
                    let own = table.clone();
                    let scopes = scopes(vec![&own, task], context, built_in);
                    table
                        .0
                        .values_mut()
                        .for_each(|entry| fill_node(&mut entry.node, &scopes, report));
                }
            }
            _ => fill_node(&mut entry.node, &scopes(vec![task], context, built_in), report),
        }
        filled.0.insert(name.to_owned(), entry);
    }
    filled
}

fn scopes<'a>(
    structs: Vec<&'a Table>,
    context: &'a ThermosContext,
    built_in: &'a BTreeMap<String, String>,
) -> Scopes<'a> {
    Scopes {
        structs,
        bindings: &context.bindings,
        built_in,
    }
}

fn fill_node(node: &mut Node, scopes: &Scopes<'_>, report: &mut Report) {
    let span = node.span;
    match &mut node.item {
        Item::Str(text) => {
            let filled = scopes.fill(text);
            if filled.endless {
                report.error(span, "", "a reference in this text leads back to itself", "");
            }
            for name in &filled.missing {
                report.error(
                    span,
                    "",
                    format!("`{{{{{name}}}}}` has no value"),
                    &missing_help(name),
                );
            }
            *text = filled.text;
        }
        Item::List(list) => list.iter_mut().for_each(|one| fill_node(one, scopes, report)),
        Item::Table(table) => table
            .0
            .values_mut()
            .for_each(|entry| fill_node(&mut entry.node, scopes, report)),
        Item::Int(_) | Item::Float(_) | Item::Bool(_) | Item::Other(_) => {}
    }
}

fn missing_help(name: &str) -> String {
    if let Some(port) = name.strip_prefix("thermos.ports.") {
        return format!("write {{{{thermos.ports[{port}]}}}}");
    }
    if name.trim() != name {
        return "leave the blanks out".to_owned();
    }
    format!("give it one with -E {name}=VALUE, or write {{{{&{name}}}}} for the text itself")
}

/// The process at which an impossible graph is shown.
fn place_of_graph(raw: &Raw, error: &GraphError) -> crate::node::Span {
    let name = match error {
        GraphError::Twice(name) | GraphError::Unknown(name) => name,
        GraphError::Mixed(name, _)
        | GraphError::AfterEndless(name, _)
        | GraphError::AfterBackground(name, _) => name,
        GraphError::Cycle(path) => match path.first() {
            Some(name) => name,
            None => return crate::node::Span::NONE,
        },
    };
    let named = raw
        .orders
        .iter()
        .find(|order| order.names.iter().any(|one| **one == **name));
    named.map_or(crate::node::Span::NONE, |order| order.span)
}

fn spec(raw: &Raw, context: &ThermosContext) -> Task {
    let index: BTreeMap<&str, usize> = raw
        .processes
        .iter()
        .enumerate()
        .map(|(at, process)| (process.name.as_str(), at))
        .collect();
    let mut after: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); raw.processes.len()];
    for order in &raw.orders {
        for pair in order.names.windows(2) {
            if let (Some(first), Some(second)) = (index.get(pair[0].as_str()), index.get(pair[1].as_str())) {
                after[*second].insert(*first);
            }
        }
    }
    let steps = raw.processes.iter().zip(after).map(|(process, after)| {
        let mut step = Step::of(process.name.as_str(), launch(process, raw, context));
        step.after = after.into_iter().map(|on| (on, When::Done)).collect();
        step.restart_always = process.daemon;
        step.background = process.ephemeral;
        step.is_final = process.is_final;
        step.signals_count = false;
        step.retry = Retry {
            attempts: (process.max_failures > 0).then_some(process.max_failures),
            delay: vec![Duration::from_secs(u64::from(process.min_duration))],
            factor: 1.0,
            increment: None,
            max_delay: Duration::from_secs(u64::from(process.min_duration)),
            jitter: 0.0,
            reset_after: Duration::MAX,
        };
        let logger = process.logger.clone().unwrap_or_default();
        step.logs = bounds(&logger);
        step.console = matches!(logger.destination, Destination::Console | Destination::Both);
        // The task's own budget is the only one; the signal goes to the whole command.
        step.stop = Stop {
            signal: 15,
            timeout: Duration::MAX,
            to: Scope::Group,
            cmd: None,
        };
        step
    });
    let mut task = Task::of(raw.name.as_str(), steps.collect());
    task.failures = (raw.max_failures > 0).then_some(raw.max_failures);
    task.concurrency = (raw.max_concurrency > 0).then_some(raw.max_concurrency);
    task.finalize_timeout = Duration::from_secs(u64::from(raw.finalization_wait));
    task
}

/// A file that grows, or one of a size and so many before it.
fn bounds(logger: &Logger) -> Logs {
    let whole = Logs {
        size: u64::MAX >> 2,
        age: None,
        segment: u64::MAX >> 2,
        block_when_full: false,
        redact: Vec::new(),
    };
    match logger.rotate {
        None => whole,
        Some((segment, backups)) => Logs {
            size: segment.saturating_mul(u64::from(backups) + 1).min(whole.size),
            segment: segment.min(whole.segment),
            ..whole
        },
    }
}

/// `/bin/bash -c CMD`, in the sandbox, with nothing of our own environment: what little it has is added at its start.
fn launch(process: &fields::Process, raw: &Raw, context: &ThermosContext) -> Launch {
    // A script: its dollars are the shell's.
    let mut launch = Launch::of(vec![crate::template::escape_braces(&process.cmdline)]);
    launch.shell = Some("/bin/bash".to_owned());
    match raw.chroot {
        true => launch.root = Some(context.sandbox.clone()),
        false => launch.cwd = escaped(&context.sandbox),
    }
    launch.user.clone_from(&context.run_as);
    launch.no_new_privs = context.run_as.is_some();
    launch.env_inherit = EnvInherit::None;
    let resources = process.resources.or(raw.resources).filter(|_| raw.enforce);
    launch.limits = resources.map(|resources| Box::new(limits(resources)));
    if process
        .logger
        .as_ref()
        .is_some_and(|logger| logger.destination == Destination::None)
    {
        launch.stdout = Output::Null;
        launch.stderr = Output::Null;
    }
    launch
}

/// What a process may have, as the kernel enforces it; memory is counted with swap.
fn limits(resources: Resources) -> Limits {
    Limits {
        memory: Some(Amount::Bytes(resources.ram)),
        swap: Some(Amount::Bytes(0)),
        cpu: Some((resources.cpu * 100.0).round().clamp(1.0, 1e6) as u32),
        ..Limits::default()
    }
}

/// A text that is filled in already: what looks like a reference in it is none.
fn escaped(text: &str) -> String {
    crate::template::escape_templates(text)
}

fn json_of(raw: &Raw) -> Value {
    let processes: Vec<Value> = raw.processes.iter().map(fields::Process::to_json).collect();
    let constraints: Vec<Value> = raw
        .orders
        .iter()
        .map(|order| json!({ "order": order.names }))
        .collect();
    let mut json = json!({
        "name": raw.name, "processes": processes, "constraints": constraints, "max_failures": raw.max_failures,
        "max_concurrency": raw.max_concurrency, "finalization_wait": raw.finalization_wait,
    });
    if let Some(object) = json.as_object_mut() {
        if let Some(resources) = &raw.resources {
            object.insert("resources".to_owned(), resources.to_json());
        }
        if raw.chroot {
            object.insert("chroot".to_owned(), true.into());
        }
        if raw.enforce {
            object.insert("enforce".to_owned(), true.into());
        }
        if let Some(lifecycle) = &raw.lifecycle {
            object.insert("lifecycle".to_owned(), lifecycle.to_json());
        }
        if let Some(user) = &raw.user {
            object.insert("user".to_owned(), user.as_str().into());
        }
    }
    json
}

#[cfg(test)]
mod tests;
