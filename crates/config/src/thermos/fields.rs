//! Fields of a task file: types, defaults, and what is no value.
//!
//! Coercion is the original's: numbers become texts, numeric texts become numbers, floats lose their fraction, `true false 1 0` in any
//! case are booleans.

use crate::node::{Item, Node, Span, Table};
use crate::report::Report;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// Longest name of a process, in bytes: it is the name of a directory.
const NAME_MAX: usize = 200;

/// A task, coerced.
pub(super) struct Raw {
    pub name: String,
    pub processes: Vec<Process>,
    pub orders: Vec<Order>,
    pub resources: Option<Resources>,
    pub max_failures: u32,
    pub max_concurrency: u32,
    pub finalization_wait: u32,
    pub user: Option<String>,
    pub chroot: bool,
    pub enforce: bool,
    pub lifecycle: Option<Lifecycle>,
}

/// `{"order": […]}`.
pub(super) struct Order {
    pub names: Vec<String>,
    pub span: Span,
}

/// A process, coerced.
pub(super) struct Process {
    pub name: String,
    pub cmdline: String,
    pub max_failures: u32,
    pub daemon: bool,
    pub ephemeral: bool,
    pub min_duration: u32,
    pub is_final: bool,
    pub logger: Option<Logger>,
    pub resources: Option<Resources>,
}

/// Where output goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Destination {
    /// Files of the run.
    #[default]
    File,
    /// The runner's own output.
    Console,
    /// Both.
    Both,
    /// Nowhere.
    None,
}

/// How the output of a process is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logger {
    /// Where it goes.
    pub destination: Destination,
    /// Size in bytes at which a file is ended, and how many ended ones are kept; none: one growing file.
    pub rotate: Option<(u64, u32)>,
}

/// A program that listens is asked to end by HTTP before it is signalled (Aurora's `HttpLifecycleConfig`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// Name of the port; where it has no number nobody is asked.
    pub port: String,
    /// One after the other.
    pub calls: [ShutdownCall; 2],
}

/// A POST that asks for an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownCall {
    /// Path; begins with a slash.
    pub endpoint: String,
    /// How long the end is waited for.
    pub wait: Duration,
}

impl Lifecycle {
    pub(super) fn to_json(&self) -> Value {
        let [graceful, shutdown] = &self.calls;
        json!({ "http": {
            "port": self.port,
            "graceful_shutdown_endpoint": graceful.endpoint, "graceful_shutdown_wait_secs": graceful.wait.as_secs(),
            "shutdown_endpoint": shutdown.endpoint, "shutdown_wait_secs": shutdown.wait.as_secs(),
        }})
    }
}

/// What a task asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resources {
    /// Cores.
    pub cpu: f64,
    /// Memory in bytes.
    pub ram: u64,
    /// Disk in bytes.
    pub disk: u64,
    /// Graphics processors.
    pub gpu: u32,
}

impl Resources {
    pub(super) fn to_json(self) -> Value {
        json!({ "cpu": self.cpu, "ram": self.ram, "disk": self.disk, "gpu": self.gpu })
    }
}

impl Destination {
    fn word(self) -> &'static str {
        match self {
            Destination::File => "file",
            Destination::Console => "console",
            Destination::Both => "both",
            Destination::None => "none",
        }
    }
}

impl Process {
    pub(super) fn to_json(&self) -> Value {
        let mut json = json!({
            "name": self.name, "cmdline": self.cmdline, "max_failures": self.max_failures, "daemon": self.daemon,
            "ephemeral": self.ephemeral, "min_duration": self.min_duration, "final": self.is_final,
        });
        if let (Some(object), Some(logger)) = (json.as_object_mut(), &self.logger) {
            let mut own = json!({ "destination": logger.destination.word(), "mode": "standard" });
            if let (Some(own), Some((size, backups))) = (own.as_object_mut(), logger.rotate) {
                own.insert("mode".to_owned(), "rotate".into());
                own.insert(
                    "rotate".to_owned(),
                    json!({ "log_size": size, "backups": backups }),
                );
            }
            object.insert("logger".to_owned(), own);
        }
        if let (Some(object), Some(resources)) = (json.as_object_mut(), self.resources) {
            object.insert("resources".to_owned(), resources.to_json());
        }
        json
    }
}

/// Reads fields; what is wrong goes to the report.
pub(super) struct Fields<'a> {
    pub report: &'a mut Report,
}

const TASK: &[&str] = &[
    "name",
    "processes",
    "constraints",
    "resources",
    "max_failures",
    "max_concurrency",
    "finalization_wait",
    "user",
    "chroot",
    "enforce",
    "lifecycle",
];
const PROCESS: &[&str] = &[
    "name",
    "cmdline",
    "max_failures",
    "daemon",
    "ephemeral",
    "min_duration",
    "final",
    "logger",
    "resources",
];

impl Fields<'_> {
    fn error(&mut self, span: Span, path: &str, message: String) {
        self.report.error(span, path, message, "");
    }

    fn known(&mut self, table: &Table, keys: &[&str], path: &str) {
        for (name, entry) in table.in_order() {
            if !keys.contains(&name) {
                let help = crate::suggest::nearest(name, keys.iter().copied());
                let help = help
                    .map(|near| format!("did you mean `{near}`?"))
                    .unwrap_or_default();
                let message = format!("unknown field `{path}{name}`");
                self.report
                    .error(entry.key, &format!("{path}{name}"), message, &help);
            }
        }
    }

    /// The whole task; none if a part of it is no part.
    pub fn task(&mut self, table: &Table) -> Option<Raw> {
        let list = table.get("processes").and_then(Node::as_list).unwrap_or_default();
        if list.is_empty() {
            let span = table.get("processes").map_or(Span::NONE, |node| node.span);
            self.error(span, "processes", "a task needs at least one process".to_owned());
            return None;
        }
        self.names(list);
        self.known(table, TASK, "");
        let mut processes = Vec::with_capacity(list.len());
        for (at, node) in list.iter().enumerate() {
            processes.push(self.process(node, at)?);
        }
        let first = processes.first().map(|process| process.name.clone());
        let name = self.text(table, "name", "");
        let orders = self.orders(table, &processes);
        let resources = self.resources(table, "");
        Some(Raw {
            name: name.or(first)?,
            orders,
            enforce: self.enforce(
                table,
                resources.is_some() || processes.iter().any(|one| one.resources.is_some()),
            ),
            resources,
            max_failures: self.count(table, "max_failures", "", 1),
            max_concurrency: self.count(table, "max_concurrency", "", 0),
            finalization_wait: self.count(table, "finalization_wait", "", 30),
            user: self.text(table, "user", ""),
            chroot: self.flag(table, "chroot", ""),
            lifecycle: self.lifecycle(table),
            processes,
        })
    }

    fn enforce(&mut self, table: &Table, has_resources: bool) -> bool {
        let enforce = self.flag(table, "enforce", "");
        if enforce && !has_resources {
            let span = table.get("enforce").map_or(Span::NONE, |node| node.span);
            let message = "there is nothing to enforce: give the task or its processes `resources`";
            self.error(span, "enforce", message.to_owned());
        }
        enforce
    }

    /// Names come first: everything else is told by them.
    fn names(&mut self, list: &[Node]) {
        let mut known = BTreeSet::new();
        for node in list {
            let Some(name) = node.as_table().and_then(|table| table.get("name")) else {
                continue;
            };
            let Some(text) = coerce_text(name) else {
                continue;
            };
            let wrong = match text.as_str() {
                "" => Some("it is empty"),
                text if text.starts_with('.') => Some("it begins with a dot"),
                text if text.contains('/') => Some("it holds a slash"),
                text if text.contains(['\0', '\n']) => Some("it holds a NUL or a line end"),
                text if text.len() > NAME_MAX => Some("it is longer than 200 bytes"),
                _ => None,
            };
            if let Some(why) = wrong {
                let message = format!("`{}` cannot be the name of a process: {why}", text.escape_debug());
                self.error(name.span, "processes", message);
            } else if !known.insert(text.clone()) {
                self.error(
                    name.span,
                    "processes",
                    format!("two processes are called `{text}`"),
                );
            }
        }
    }

    fn process(&mut self, node: &Node, at: usize) -> Option<Process> {
        let Some(table) = node.as_table() else {
            let message = format!("a process is an object, not {}", node.kind());
            self.error(node.span, "processes", message);
            return None;
        };
        let name = self.text(table, "name", "process.");
        let path = match &name {
            Some(name) => format!("process[{name}]."),
            None => format!("process[{at}]."),
        };
        self.known(table, PROCESS, &path);
        for key in ["name", "cmdline"] {
            if table.get(key).is_none() {
                self.error(
                    node.span,
                    &format!("{path}{key}"),
                    format!("{path}{key} is required"),
                );
            }
        }
        let cmdline = self.text(table, "cmdline", &path);
        if cmdline.as_ref().is_some_and(|text| text.contains('\0')) {
            self.error(
                node.span,
                &format!("{path}cmdline"),
                format!("{path}cmdline holds a NUL"),
            );
        }
        Some(Process {
            name: name?,
            cmdline: cmdline?,
            max_failures: self.count(table, "max_failures", &path, 1),
            daemon: self.flag(table, "daemon", &path),
            ephemeral: self.flag(table, "ephemeral", &path),
            min_duration: self.count(table, "min_duration", &path, 5),
            is_final: self.flag(table, "final", &path),
            logger: self.logger(table, &path),
            resources: self.resources(table, &path),
        })
    }

    fn orders(&mut self, table: &Table, processes: &[Process]) -> Vec<Order> {
        let known: BTreeSet<&str> = processes.iter().map(|process| process.name.as_str()).collect();
        let mut orders = Vec::new();
        for node in table
            .get("constraints")
            .and_then(Node::as_list)
            .unwrap_or_default()
        {
            let Some(constraint) = node.as_table() else {
                let message = format!("a constraint is an object, not {}", node.kind());
                self.error(node.span, "constraints", message);
                continue;
            };
            self.known(constraint, &["order"], "constraints.");
            let names = constraint
                .get("order")
                .and_then(Node::as_list)
                .unwrap_or_default();
            if names.is_empty() {
                self.error(
                    node.span,
                    "constraints",
                    "an order names at least one process".to_owned(),
                );
            }
            let mut order = Vec::new();
            for name in names {
                match coerce_text(name) {
                    Some(text) if known.contains(text.as_str()) => order.push(text),
                    Some(text) => {
                        let near = crate::suggest::nearest(&text, known.iter().copied());
                        let help = near
                            .map(|near| format!("did you mean `{near}`?"))
                            .unwrap_or_default();
                        let message = format!("an order names `{text}`, which is no process of this task");
                        self.report.error(name.span, "constraints", message, &help);
                    }
                    None => {
                        let message = format!("an order is a list of names, not of {}", name.kind());
                        self.error(name.span, "constraints", message);
                    }
                }
            }
            orders.push(Order {
                names: order,
                span: node.span,
            });
        }
        orders
    }

    fn logger(&mut self, table: &Table, path: &str) -> Option<Logger> {
        let node = table.get("logger")?;
        let path = format!("{path}logger.");
        let Some(table) = node.as_table() else {
            self.error(
                node.span,
                &path,
                format!("{path} is an object, not {}", node.kind()),
            );
            return None;
        };
        self.known(table, &["destination", "mode", "rotate"], &path);
        let destination = match self.text(table, "destination", &path).as_deref() {
            None | Some("file") => Destination::File,
            Some("console") => Destination::Console,
            Some("both") => Destination::Both,
            Some("none") => Destination::None,
            Some(other) => {
                let message = format!("{path}destination is one of file, console, both, none, not `{other}`");
                self.error(node.span, &format!("{path}destination"), message);
                Destination::File
            }
        };
        let rotates = match self.text(table, "mode", &path).as_deref() {
            None | Some("standard") => false,
            Some("rotate") => true,
            Some(other) => {
                let message = format!("{path}mode is standard or rotate, not `{other}`");
                self.error(node.span, &format!("{path}mode"), message);
                false
            }
        };
        let bounds = self.rotation(table, &path);
        Some(Logger {
            destination,
            rotate: rotates.then_some(bounds),
        })
    }

    /// Size and number; wrong ones are told also where they have no effect.
    fn rotation(&mut self, table: &Table, path: &str) -> (u64, u32) {
        let path = format!("{path}rotate.");
        let empty = Table::default();
        let own = table.get_table("rotate").unwrap_or(&empty);
        self.known(own, &["log_size", "backups"], &path);
        let size = self.number(own, "log_size", &path).unwrap_or(100 << 20);
        let backups = self.number(own, "backups", &path).unwrap_or(5);
        for (key, value) in [("log_size", size), ("backups", backups)] {
            if value < 1 {
                let span = own.get(key).map_or(Span::NONE, |node| node.span);
                self.error(
                    span,
                    &format!("{path}{key}"),
                    format!("{path}{key} is at least 1"),
                );
            }
        }
        (
            u64::try_from(size).unwrap_or(1),
            u32::try_from(backups).unwrap_or(u32::MAX),
        )
    }

    fn lifecycle(&mut self, table: &Table) -> Option<Lifecycle> {
        let node = table.get("lifecycle")?;
        let Some(http) = node.as_table().and_then(|own| own.get_table("http")) else {
            let message = "lifecycle is an object with an object `http`".to_owned();
            self.error(node.span, "lifecycle", message);
            return None;
        };
        self.known(node.as_table()?, &["http"], "lifecycle.");
        let path = "lifecycle.http.";
        let names = ["graceful_shutdown", "shutdown"];
        let keys = names.map(|name| [format!("{name}_endpoint"), format!("{name}_wait_secs")]);
        let mut known = vec!["port"];
        known.extend(keys.iter().flatten().map(String::as_str));
        self.known(http, &known, path);
        let mut call = |[endpoint, wait]: &[String; 2], usual: &str| {
            let text = self
                .text(http, endpoint, path)
                .unwrap_or_else(|| usual.to_owned());
            let is_path = text.starts_with('/') && text.chars().all(|c| c.is_ascii_graphic());
            if !is_path {
                let span = http.get(endpoint).map_or(Span::NONE, |node| node.span);
                let message = format!(
                    "{path}{endpoint} is a path, as {usual}, not `{}`",
                    text.escape_debug()
                );
                self.error(span, &format!("{path}{endpoint}"), message);
            }
            ShutdownCall {
                endpoint: text,
                wait: Duration::from_secs(u64::from(self.count(http, wait, path, 5))),
            }
        };
        let calls = [
            call(&keys[0], "/quitquitquit"),
            call(&keys[1], "/abortabortabort"),
        ];
        let port = self.text(http, "port", path);
        Some(Lifecycle {
            port: port.unwrap_or_else(|| "health".to_owned()),
            calls,
        })
    }

    fn resources(&mut self, table: &Table, path: &str) -> Option<Resources> {
        let node = table.get("resources")?;
        let path = format!("{path}resources.");
        let table = node.as_table()?;
        self.known(table, &["cpu", "ram", "disk", "gpu"], &path);
        for key in ["cpu", "ram", "disk"] {
            if table.get(key).is_none() {
                self.error(
                    node.span,
                    &format!("{path}{key}"),
                    format!("{path}{key} is required"),
                );
            }
        }
        let cpu = table.get("cpu").and_then(coerce_float);
        if table.get("cpu").is_some() && cpu.is_none_or(|cpu| cpu < 0.0) {
            self.error(
                node.span,
                &format!("{path}cpu"),
                format!("{path}cpu is a number that is not negative"),
            );
        }
        let mut size = |key: &str| {
            let number = self.number(table, key, &path).unwrap_or(0);
            if number < 0 {
                self.error(
                    node.span,
                    &format!("{path}{key}"),
                    format!("{path}{key} is not negative"),
                );
            }
            u64::try_from(number).unwrap_or(0)
        };
        let (ram, disk, gpu) = (size("ram"), size("disk"), size("gpu"));
        Some(Resources {
            cpu: cpu.unwrap_or(0.0),
            ram,
            disk,
            gpu: u32::try_from(gpu).unwrap_or(u32::MAX),
        })
    }

    fn text(&mut self, table: &Table, key: &str, path: &str) -> Option<String> {
        let node = table.get(key)?;
        let text = coerce_text(node);
        if text.is_none() {
            self.error(
                node.span,
                &format!("{path}{key}"),
                format!("{path}{key} is a text, not {}", node.kind()),
            );
        }
        text
    }

    fn number(&mut self, table: &Table, key: &str, path: &str) -> Option<i64> {
        let node = table.get(key)?;
        let number = coerce_int(node);
        if number.is_none() {
            let message = format!("{path}{key} is a whole number, not {}", shown(node));
            self.error(node.span, &format!("{path}{key}"), message);
        }
        number
    }

    fn count(&mut self, table: &Table, key: &str, path: &str, default: u32) -> u32 {
        let Some(number) = self.number(table, key, path) else {
            return default;
        };
        u32::try_from(number).unwrap_or_else(|_| {
            let span = table.get(key).map_or(Span::NONE, |node| node.span);
            let message = format!("{path}{key} is a number from 0 to {}, not {number}", u32::MAX);
            self.error(span, &format!("{path}{key}"), message);
            default
        })
    }

    fn flag(&mut self, table: &Table, key: &str, path: &str) -> bool {
        let Some(node) = table.get(key) else {
            return false;
        };
        coerce_bool(node).unwrap_or_else(|| {
            let message = format!("{path}{key} is true or false, not {}", shown(node));
            self.error(node.span, &format!("{path}{key}"), message);
            false
        })
    }
}

fn shown(node: &Node) -> String {
    match node.as_str() {
        Some(text) => format!("`{text}`"),
        None => node.kind().to_owned(),
    }
}

fn coerce_text(node: &Node) -> Option<String> {
    match &node.item {
        Item::Str(text) => Some(text.clone()),
        Item::Int(number) => Some(number.to_string()),
        Item::Float(number) => Some(number.to_string()),
        Item::Bool(_) | Item::List(_) | Item::Table(_) | Item::Other(_) => None,
    }
}

fn coerce_int(node: &Node) -> Option<i64> {
    match &node.item {
        Item::Int(number) => Some(*number),
        Item::Float(number) if number.is_finite() => Some(number.trunc() as i64),
        Item::Str(text) => text.trim().parse().ok(),
        Item::Float(_) | Item::Bool(_) | Item::List(_) | Item::Table(_) | Item::Other(_) => None,
    }
}

fn coerce_float(node: &Node) -> Option<f64> {
    match &node.item {
        Item::Int(number) => Some(*number as f64),
        Item::Float(number) => Some(*number),
        Item::Str(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        Item::Bool(_) | Item::List(_) | Item::Table(_) | Item::Other(_) => None,
    }
}

fn coerce_bool(node: &Node) -> Option<bool> {
    match &node.item {
        Item::Bool(value) => Some(*value),
        Item::Int(number) => Some(*number != 0),
        Item::Float(number) => Some(*number != 0.0),
        Item::Str(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        Item::List(_) | Item::Table(_) | Item::Other(_) => None,
    }
}
