//! Job properties of the original gaffer, in ini and JSON, as keys of `[job.X]`.
//!
//! | original | here |
//! |---|---|
//! | `cmd` + `args` | `cmd`; with `shell` the whole line is the script |
//! | `env`; `os_env` | `env`, literally; `env_inherit`: `all` or `none` (not given: ini `all`, JSON `none`) |
//! | `uid`, `gid`, `detach`, `numprocesses` | `user`, `group`, `keep_running`, `instances` |
//! | `flapping` | `flapping` with `scope = "job"` |
//! | `graceful_timeout` | `stop.timeout` |
//! | `redirect_output`, `redirect_input`, `custom_streams` | `logs.labels`, `stdin = "pipe"`, `streams` |
//! | anything else | a key of today, or `meta` |

use crate::check::{Checked, lengthen};
use crate::keys::{self, JOB, Use};
use crate::node::{Entry, Item, Node, Span, Table};
use crate::report::Report;
use crate::template::{escape_braces, escape_templates, split_words};
use crate::units::shell_quote;

/// Where properties come from: values of an ini are all text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Dialect {
    Ini,
    Json,
}

/// Priority of a job that names none beside others that do: it starts last.
const LAST: i64 = 1_000_000_000;

/// Properties of the original.
const PROPERTIES: &[&str] = &[
    "cmd",
    "args",
    "env",
    "os_env",
    "uid",
    "gid",
    "cwd",
    "shell",
    "detach",
    "numprocesses",
    "start",
    "priority",
    "flapping",
    "graceful_timeout",
    "redirect_output",
    "redirect_input",
    "custom_streams",
];

/// Does it mean something for a job?
pub(crate) fn is_property(key: &str) -> bool {
    PROPERTIES.contains(&key) || keys::find(JOB, key).is_some()
}

/// Jobs on their way into a tree.
pub(crate) struct Jobs {
    dialect: Dialect,
    /// By `session\0name`.
    table: Table,
    prioritised: bool,
}

impl Jobs {
    pub fn new(dialect: Dialect) -> Jobs {
        Jobs {
            dialect,
            table: Table::default(),
            prioritised: false,
        }
    }

    /// A job object with its name inside.
    pub fn add_object(&mut self, object: &Table, span: Span, report: &mut Report) {
        let Some(name) = object.get("name").and_then(Node::as_str) else {
            let at = object.get("name").map_or(span, |node| node.span);
            report.error(
                at,
                "name",
                "a job needs a `name`",
                "\"name\": \"session.job\" or \"job\"",
            );
            return;
        };
        let at = object.get("name").map_or(span, |node| node.span);
        let name = name.to_owned();
        let mut object = object.clone();
        object.remove("name");
        self.add(&name, at, &object, report);
    }

    /// A job by its name: `job`, `session.job`, `session:job`, `session/job`.
    pub fn add(&mut self, name: &str, span: Span, properties: &Table, report: &mut Report) {
        let (session, job) = split_name(name);
        let key = format!("{}\0{job}", session.unwrap_or_default());
        if let Some(first) = self.table.0.get(&key) {
            let help = format!("first in {}", report.place(first.key));
            report.error(
                span,
                &format!("job.{job}"),
                format!("job `{job}` is defined twice"),
                &help,
            );
            return;
        }
        let mut table = Reader {
            dialect: self.dialect,
            job,
            report,
        }
        .job(properties, span);
        if let Some(session) = session {
            table.put("session", Node::str(session, span));
        }
        self.prioritised |= table.get("priority").is_some();
        self.table.0.insert(
            key,
            Entry {
                key: span,
                node: Node::table(table, span),
            },
        );
    }

    /// Variables of a job that come from elsewhere (`[env:NAME]`).
    pub fn add_env(&mut self, name: &str, env: &Table, span: Span, report: &mut Report) {
        let (session, job) = split_name(name);
        let key = format!("{}\0{job}", session.unwrap_or_default());
        let Some(Item::Table(table)) = self.table.0.get_mut(&key).map(|entry| &mut entry.node.item) else {
            let known: Vec<&str> = self
                .table
                .0
                .keys()
                .map(|key| key.trim_start_matches('\0'))
                .collect();
            let near = crate::suggest::nearest(name, known);
            let help = near
                .map(|near| format!("did you mean [env:{near}]?"))
                .unwrap_or_default();
            report.error(span, "env", format!("[env:{name}] belongs to no job"), &help);
            return;
        };
        let mut all = Table::from_iter([("env".to_owned(), Node::table(env.clone(), span))]);
        all.overlay(table);
        *table = all;
    }

    pub fn into_tree(self, span: Span) -> Table {
        let mut jobs = self.table;
        if self.prioritised {
            for entry in jobs.0.values_mut() {
                if let Item::Table(job) = &mut entry.node.item
                    && job.get("priority").is_none()
                {
                    job.put("priority", Node::new(Item::Int(LAST), entry.key));
                }
            }
        }
        Table::from_iter([("job".to_owned(), Node::table(jobs, span))])
    }
}

/// The first dot separates, else the first colon or slash.
fn split_name(name: &str) -> (Option<&str>, &str) {
    let split = name
        .split_once(':')
        .or_else(|| name.split_once('.'))
        .or_else(|| name.split_once('/'));
    match split {
        Some((session, job)) => (Some(session.trim()), job.trim()),
        None => (None, name),
    }
}

struct Reader<'a> {
    dialect: Dialect,
    job: &'a str,
    report: &'a mut Report,
}

impl Reader<'_> {
    fn error(&mut self, span: Span, key: &str, message: impl Into<String>, help: &str) {
        self.report
            .error(span, &format!("job.{}.{key}", self.job), message, help);
    }

    fn job(&mut self, properties: &Table, span: Span) -> Table {
        let mut out = Table::default();
        self.command(properties, &mut out, span);
        for (key, entry) in properties.in_order() {
            self.property(key, entry, &mut out);
        }
        let inherit = match (self.flag(properties, "os_env"), self.dialect) {
            (Some(true), _) | (None, Dialect::Ini) => "all",
            (Some(false), _) | (None, Dialect::Json) => "none",
        };
        if out.get("env_inherit").is_none() {
            out.put("env_inherit", Node::str(inherit, span));
        }
        // Today's keys among them are checked as in every file.
        let (path, what) = (format!("job.{}.", self.job), format!("job `{}`", self.job));
        Checked {
            keys: JOB,
            path: &path,
            what: &what,
            without: None,
            written: false,
        }
        .check(&out, self.report);
        lengthen(JOB, &mut out);
        out
    }

    fn flag(&mut self, properties: &Table, key: &str) -> Option<bool> {
        let node = properties.get(key)?;
        match &node.item {
            Item::Bool(value) => Some(*value),
            Item::Str(word) if self.dialect == Dialect::Ini => match word.trim().to_lowercase().as_str() {
                "1" | "yes" | "true" | "on" => Some(true),
                "0" | "no" | "false" | "off" => Some(false),
                _ => {
                    self.error(
                        node.span,
                        key,
                        format!("`{key}` is yes or no"),
                        "write true or false",
                    );
                    None
                }
            },
            _ => {
                self.error(
                    node.span,
                    key,
                    format!("`{key}` is true or false, not {}", node.kind()),
                    "",
                );
                None
            }
        }
    }

    /// `cmd` and `args` become one command.
    fn command(&mut self, properties: &Table, out: &mut Table, span: Span) {
        let shell = self.flag(properties, "shell").unwrap_or(false);
        let Some(node) = properties.get("cmd") else { return };
        let args = properties
            .get("args")
            .filter(|args| !matches!(&args.item, Item::Str(text) if text.trim().is_empty()));
        let Some(cmd) = node.as_str() else {
            out.put("cmd", node.clone());
            return;
        };
        if shell {
            let mut script = cmd.to_owned();
            match args.map(|args| &args.item) {
                Some(Item::Str(text)) => script.push_str(&format!(" {text}")),
                Some(Item::List(list)) => {
                    for word in list.iter().filter_map(Node::as_str) {
                        script.push_str(&format!(" {}", shell_quote(word)));
                    }
                }
                _ => {}
            }
            out.put("cmd", Node::str(escape_braces(&script), node.span));
            out.put("shell", Node::new(Item::Bool(true), span));
            return;
        }
        let mut words = self.words(cmd, node.span, "cmd");
        match args.map(|args| (&args.item, args.span)) {
            Some((Item::Str(text), at)) => words.extend(self.words(text, at, "args")),
            Some((Item::List(list), _)) => {
                for word in list {
                    match word.as_str() {
                        Some(text) => words.push(Node::str(escape_braces(text), word.span)),
                        None => self.error(
                            word.span,
                            "args",
                            format!("`args` holds texts, not {}", word.kind()),
                            "",
                        ),
                    }
                }
            }
            Some((Item::Other("null"), _)) | None => {}
            Some((_, at)) => self.error(at, "args", "`args` is a list or a text", ""),
        }
        out.put("cmd", Node::new(Item::List(words), node.span));
    }

    fn words(&mut self, text: &str, span: Span, key: &str) -> Vec<Node> {
        match split_words(&escape_braces(text)) {
            Ok(words) => words.into_iter().map(|word| Node::str(word, span)).collect(),
            Err(why) => {
                self.error(span, key, format!("`{key}` cannot be split: {why}"), "");
                Vec::new()
            }
        }
    }

    fn property(&mut self, key: &str, entry: &Entry, out: &mut Table) {
        let node = &entry.node;
        if matches!(node.item, Item::Other("null")) {
            return;
        }
        match key {
            "cmd" | "args" | "shell" | "os_env" => {}
            "env" => self.env(node, out),
            "uid" => out.put("user", id(node)),
            "gid" => out.put("group", id(node)),
            "detach" => self.put_flag(key, entry, "keep_running", out),
            "start" if node.as_str() != Some("on-socket") => self.put_flag(key, entry, "start", out),
            "numprocesses" => out.put("instances", self.number(node)),
            "priority" => out.put("priority", self.number(node)),
            "graceful_timeout" => self
                .seconds(node, key)
                .into_iter()
                .for_each(|time| put_at(out, "stop", "timeout", time)),
            "flapping" => self.flapping(node, out),
            "redirect_output" => self.labels(node, out),
            "redirect_input" => {
                let table = Table::from_iter([(key.to_owned(), node.clone())]);
                if self.flag(&table, key) == Some(true) {
                    out.put("stdin", Node::str("pipe", node.span));
                }
            }
            "custom_streams" => out.put("streams", list_of(node)),
            "custom_channels" => {
                let message = "`custom_channels` is for embedded use and is left out";
                self.report.warning(entry.key, "", message, "");
            }
            _ => self.other(key, entry, out),
        }
    }

    fn put_flag(&mut self, key: &str, entry: &Entry, new: &str, out: &mut Table) {
        let table = Table::from_iter([(key.to_owned(), entry.node.clone())]);
        if let Some(value) = self.flag(&table, key) {
            out.put(new, Node::new(Item::Bool(value), entry.node.span));
        }
    }

    /// A number, also if an ini has it as text; other things are left for the check.
    fn number(&self, node: &Node) -> Node {
        match node.as_str().map(|text| text.trim().parse::<i64>()) {
            Some(Ok(number)) if self.dialect == Dialect::Ini => Node::new(Item::Int(number), node.span),
            _ => node.clone(),
        }
    }

    /// Seconds of the original as a duration.
    fn seconds(&mut self, node: &Node, key: &str) -> Option<Node> {
        let seconds = match &node.item {
            Item::Int(number) => Some(*number as f64),
            Item::Float(number) => Some(*number),
            Item::Str(text) => text
                .trim()
                .parse::<f64>()
                .ok()
                .filter(|number| number.is_finite()),
            _ => None,
        };
        match seconds {
            Some(seconds) if (0.0..=3e9).contains(&seconds) => {
                let time = std::time::Duration::from_secs_f64(seconds);
                Some(Node::str(crate::units::exact_duration(time), node.span))
            }
            _ => {
                self.error(
                    node.span,
                    key,
                    format!("`{key}` is a number of seconds, at least 0"),
                    "",
                );
                None
            }
        }
    }

    /// Values are literal: the original expands nothing in them.
    fn env(&mut self, node: &Node, out: &mut Table) {
        let Some(table) = node.as_table() else {
            out.put("env", node.clone());
            return;
        };
        let escaped = table.iter().map(|(name, entry)| {
            let mut entry = entry.clone();
            if let Item::Str(text) = &mut entry.node.item {
                *text = escape_templates(text);
            }
            (name.to_owned(), entry)
        });
        out.put("env", Node::table(Table(escaped.collect()), node.span));
    }

    fn flapping(&mut self, node: &Node, out: &mut Table) {
        let today = |key: &str| ["exits", "pause", "rounds", "scope"].contains(&key);
        if node
            .as_table()
            .is_some_and(|object| object.iter().any(|(key, _)| today(key)))
        {
            out.put("flapping", node.clone());
            return;
        }
        let Some(values) = self.flapping_values(node) else {
            return;
        };
        let mut table = Table::default();
        table.put("scope", Node::str("job", node.span));
        // The defaults of the original, which differ from today's.
        table.put("exits", Node::new(Item::Int(2), node.span));
        table.put("window", Node::str("1s", node.span));
        for (field, value) in values {
            let (new, value) = match field {
                "attempts" => ("exits", Some(self.whole(&value))),
                "window" => ("window", self.seconds(&value, "flapping.window")),
                "retry_in" => ("pause", self.seconds(&value, "flapping.retry_in")),
                _ => ("rounds", Some(self.whole(&value))),
            };
            value.into_iter().for_each(|value| table.put(new, value));
        }
        out.put("flapping", Node::table(table, node.span));
    }

    /// Members of the original's object, or its numbers in their order.
    fn flapping_values(&mut self, node: &Node) -> Option<Vec<(&'static str, Node)>> {
        const FIELDS: [&str; 4] = ["attempts", "window", "retry_in", "max_retry"];
        match &node.item {
            Item::Table(object) => {
                let mut values = Vec::new();
                for (key, entry) in object.in_order() {
                    match FIELDS.iter().find(|field| **field == key) {
                        Some(field) => values.push((*field, entry.node.clone())),
                        None => {
                            let message = format!("unknown member `{key}` in `flapping`");
                            let help = "there are attempts, window, retry_in, max_retry";
                            self.error(entry.key, "flapping", message, help);
                        }
                    }
                }
                Some(values)
            }
            Item::Str(text) => {
                let words = text.split([',', ' ', '\t']).filter(|word| !word.is_empty());
                let words: Vec<&str> = words.collect();
                if words.len() > FIELDS.len() || words.is_empty() {
                    let help = "attempts, window, retry_in, max_retry: 2, 1., 7., 5";
                    self.error(node.span, "flapping", "`flapping` has up to four numbers", help);
                    return None;
                }
                let pairs = FIELDS.into_iter().zip(words);
                Some(
                    pairs
                        .map(|(field, word)| (field, Node::str(word, node.span)))
                        .collect(),
                )
            }
            _ => {
                let message = format!("`flapping` is a table, not {}", node.kind());
                self.error(node.span, "flapping", message, "");
                None
            }
        }
    }

    /// A count that may be written `5.` or as text.
    fn whole(&self, node: &Node) -> Node {
        let number = match &node.item {
            Item::Float(number) => Some(*number),
            Item::Str(text) => text.parse::<f64>().ok(),
            _ => None,
        };
        match number {
            Some(number) if number.fract() == 0.0 && number.abs() < 1e9 => {
                Node::new(Item::Int(number as i64), node.span)
            }
            _ => node.clone(),
        }
    }

    fn labels(&mut self, node: &Node, out: &mut Table) {
        let list = list_of(node);
        let mut labels = list.texts();
        labels.truncate(2);
        if let [(first, _), (second, _)] = labels[..]
            && first == second
        {
            put_at(out, "logs", "stderr", Node::str("stdout", node.span));
        }
        let labels: Vec<Node> = labels
            .into_iter()
            .map(|(label, span)| Node::str(label, span))
            .collect();
        if !labels.is_empty() {
            put_at(out, "logs", "labels", Node::new(Item::List(labels), node.span));
        }
    }

    /// A key of today is taken as it is; anything else is kept and shown, as the original did.
    fn other(&mut self, key: &str, entry: &Entry, out: &mut Table) {
        let known =
            keys::find(JOB, key).filter(|key| !matches!(key.used, Use::File) || key.path == "session");
        if let Some(known) = known {
            let node = match (self.dialect, known.ty) {
                (Dialect::Ini, crate::kind::Type::Int(..)) => self.number(&entry.node),
                (Dialect::Ini, crate::kind::Type::Bool) => {
                    self.put_flag(key, entry, key, out);
                    return;
                }
                _ => entry.node.clone(),
            };
            out.put(key, node);
            return;
        }
        let value = match crate::kind::scalar(&entry.node) {
            Some(text) => text,
            None => entry.node.to_json().to_string(),
        };
        if key != "group" {
            let help = match keys::hint(JOB, "", key) {
                help if help.is_empty() => "it is kept in `meta`".to_owned(),
                help => help,
            };
            self.report.warning(
                entry.key,
                &format!("job.{}.{key}", self.job),
                format!("unknown property `{key}` in job `{}`", self.job),
                &help,
            );
        }
        put_at(out, "meta", key, Node::str(value, entry.node.span));
    }
}

/// A digit string is an id.
fn id(node: &Node) -> Node {
    match node.as_str().map(|text| text.trim().parse::<i64>()) {
        Some(Ok(id)) => Node::new(Item::Int(id), node.span),
        _ => node.clone(),
    }
}

/// A list, also if it is written with commas.
fn list_of(node: &Node) -> Node {
    match &node.item {
        Item::Str(text) => {
            let words = text
                .split([',', '\n'])
                .map(str::trim)
                .filter(|word| !word.is_empty());
            Node::new(
                Item::List(words.map(|word| Node::str(word, node.span)).collect()),
                node.span,
            )
        }
        _ => node.clone(),
    }
}

fn put_at(out: &mut Table, table: &str, key: &str, node: Node) {
    let span = node.span;
    if out.get_table(table).is_none() {
        out.put(table, Node::table(Table::default(), span));
    }
    if let Some(Item::Table(below)) = out.0.get_mut(table).map(|entry| &mut entry.node.item) {
        below.put(key, node);
    }
}
