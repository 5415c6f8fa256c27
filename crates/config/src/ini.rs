//! `gaffer.ini` of the original: `[gaffer]`, `[job:NAME]` or `[process:NAME]`, `[env:NAME]`, `[endpoint:NAME]`.
//!
//! Syntax: `key = value` or `key: value`, the first of both separates; keys in lower case; `#` and `;` begin
//! comment lines; an indented line continues the value; `[DEFAULT]` is inherited; `%(key)s` is the value of a key
//! of the section, `%%` a percent sign; a section or key that comes twice is an error.

use crate::ini_text::{self, Section};
use crate::legacy::{Dialect, Jobs};
use crate::node::{Entry, Item, Node, Span, Table};
use crate::report::Report;
use crate::source::{Source, Unread};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Includes of includes of ….
const INCLUDE_DEPTH_MAX: usize = 8;

/// The file, with those it includes laid over it, in the shape of a `gaffer.toml`.
pub(crate) fn tree(text: &str, file: u32, source: &mut dyn Source, report: &mut Report) -> Option<Table> {
    let mut sections = Vec::new();
    let mut reader = Reader {
        source,
        report,
        read: BTreeSet::new(),
    };
    reader.gather(text, file, 0, &mut sections);
    let span = Span::new(file, 0..0);
    drop_strangers(&mut sections);
    let mut jobs = Jobs::new(Dialect::Ini);
    let mut daemon: Option<(Table, Span)> = None;
    let mut ssl = None;
    let mut envs = Vec::new();
    let mut webhooks = None;
    for section in &sections {
        let name = section.name.as_str();
        match name
            .split_once(':')
            .map_or((name, None), |(kind, name)| (kind, Some(name.trim())))
        {
            ("job" | "process", Some(job)) => {
                if section.table.get("cmd").is_none() {
                    let message = format!("[{name}] has no `cmd`: it is left out");
                    report.warning(section.span, &format!("job.{job}"), message, "");
                } else {
                    jobs.add(job, section.span, &section.table, report);
                }
            }
            ("env", Some(job)) => envs.push((job, section)),
            ("gaffer", None) => daemon = Some((settings(section, &sections, report), section.span)),
            ("endpoint", Some(_)) => {}
            ("webhooks", None) => {
                let table = crate::webhook::from_ini(&section.table, report);
                webhooks = Some(Node::table(table, section.span));
            }
            ("ssl", None) => ssl = tls(section, report),
            ("auth", None) => warn_unused(
                section,
                "the original's files of users and keys are not read from here; `gafferd --import-keys DIR` takes them over, once",
                report,
            ),
            _ => refuse(section, report),
        }
    }
    for (job, section) in envs {
        jobs.add_env(job, &variables(&section.table), section.span, report);
    }
    if let Some(tls) = ssl {
        let settings = &mut daemon.get_or_insert_with(|| (Table::default(), tls.span)).0;
        // K16: endpoints win where they are used.
        if settings.get("tls").is_none() {
            settings.put("tls", tls);
        }
    }
    let mut tree = jobs.into_tree(span);
    if let Some(webhooks) = webhooks {
        tree.put("webhook", webhooks);
    }
    if let Some((table, span)) = daemon {
        tree.0.insert(
            "gaffer".to_owned(),
            Entry {
                key: span,
                node: Node::table(table, span),
            },
        );
    }
    Some(tree)
}

/// Takes out keys of `[DEFAULT]` that a section has no use for.
fn drop_strangers(sections: &mut [Section]) {
    for Section {
        name,
        table,
        inherited,
        ..
    } in sections
    {
        let is_job = name.starts_with("job:") || name.starts_with("process:");
        let is_daemon = name == "gaffer";
        table.0.retain(|key, _| {
            let useful = (is_job && crate::legacy::is_property(key))
                || (is_daemon && SETTINGS.contains(&key.as_str()));
            useful || !inherited.contains(key)
        });
    }
}

/// Keys of `[gaffer]` that may stand in `[DEFAULT]`.
const SETTINGS: &[&str] = &[
    "bind",
    "backlog",
    "pidfile",
    "error_log",
    "log_level",
    "require_key",
    "broadcast_address",
];

struct Reader<'a> {
    source: &'a mut dyn Source,
    report: &'a mut Report,
    /// Each file once.
    read: BTreeSet<PathBuf>,
}

impl Reader<'_> {
    /// Sections of a file, then those of its includes; a later section of one name replaces key by key.
    fn gather(&mut self, text: &str, file: u32, depth: usize, sections: &mut Vec<Section>) {
        let mut includes: Vec<(String, Span, bool)> = Vec::new();
        for section in ini_text::parse(text, file, self.report) {
            if section.name == "gaffer" {
                for (key, is_dir) in [("include", false), ("include_dir", true)] {
                    if let Some(node) = section.table.get(key) {
                        let words = node.as_str().unwrap_or_default().split_whitespace();
                        includes.extend(words.map(|word| (word.to_owned(), node.span, is_dir)));
                    }
                }
            }
            match sections.iter_mut().find(|known| known.name == section.name) {
                Some(known) => known.table.overlay(&section.table),
                None => sections.push(section),
            }
        }
        for (name, span, is_dir) in includes {
            let folder = self.report.folder_of(span).unwrap_or(Path::new("/"));
            let path = folder.join(&name);
            let found = if is_dir {
                self.source.glob(&path.join("*.ini"))
            } else {
                vec![path]
            };
            for path in found {
                self.include(&path, span, depth, sections);
            }
        }
    }

    fn include(&mut self, path: &Path, span: Span, depth: usize, sections: &mut Vec<Section>) {
        if depth >= INCLUDE_DEPTH_MAX {
            let message = format!("`include` is more than {INCLUDE_DEPTH_MAX} deep");
            self.report.error(span, "include", message, "");
            return;
        }
        if !self.read.insert(path.to_owned()) {
            return;
        }
        match self.source.read(path) {
            Ok(text) => {
                let file = self.report.add_file(path, &text);
                self.gather(&text, file, depth + 1, sections);
            }
            Err(why) => {
                let why = match why {
                    Unread::Missing => "there is no such file".to_owned(),
                    Unread::Failed(text) => text,
                };
                let message = format!("cannot read {}: {why}", path.display());
                self.report.error(span, "include", message, "");
            }
        }
    }
}

fn refuse(section: &Section, report: &mut Report) {
    let name = section.name.as_str();
    if name == "lookup_ssl" {
        report.error(
            section.span,
            name,
            format!("[{name}] is not yet supported"),
            "leave it out",
        );
        return;
    }
    let known = [
        "gaffer",
        "job:NAME",
        "env:NAME",
        "process:NAME",
        "endpoint:NAME",
        "DEFAULT",
    ];
    let help = match crate::suggest::nearest(name, known) {
        Some(near) => format!("did you mean [{near}]?"),
        None => "there are [gaffer], [job:NAME], [env:NAME]".to_owned(),
    };
    report.error(section.span, name, format!("unknown section [{name}]"), &help);
}

/// `[ssl]` as `tls` of today.
fn tls(section: &Section, report: &mut Report) -> Option<Node> {
    let mut out = Table::default();
    for (old, new) in [("certfile", "cert"), ("keyfile", "key")] {
        let Some(file) = section.table.get(old) else {
            let message = "[ssl] needs `certfile` and `keyfile`";
            report.error(section.span, "gaffer.tls", message, "each names a PEM file");
            return None;
        };
        out.put(new, file.clone());
    }
    for (key, entry) in section.table.iter() {
        if !["certfile", "keyfile"].contains(&key) {
            report.warning(entry.key, "gaffer.tls", format!("`{key}` has no effect"), "");
        }
    }
    Some(Node::table(out, section.span))
}

fn warn_unused(section: &Section, message: &str, report: &mut Report) {
    report.warning(section.span, &section.name, message, "");
}

/// Names of variables are written in upper case.
fn variables(table: &Table) -> Table {
    let entries = table.iter().map(|(name, entry)| {
        let mut entry = entry.clone();
        if let Item::Str(text) = &mut entry.node.item {
            *text = crate::template::escape_templates(text);
        }
        (name.to_uppercase(), entry)
    });
    Table(entries.collect())
}

/// `[gaffer]` with the keys of today.
fn settings(section: &Section, sections: &[Section], report: &mut Report) -> Table {
    let mut out = Table::default();
    let mut lookups = Vec::new();
    for (key, entry) in section.table.in_order() {
        let node = &entry.node;
        let text = node.as_str().unwrap_or_default().trim();
        let (new, value) = match key {
            "bind" => ("bind", addresses(text, node.span)),
            "backlog" => ("backlog", number(text, node.span)),
            "require_key" => match yes_or_no(text) {
                Some(value) => ("require_token", Node::new(Item::Bool(value), node.span)),
                None => {
                    let message = "`require_key` is yes or no";
                    report.error(node.span, "gaffer.require_key", message, "write true or false");
                    continue;
                }
            },
            "error_log" if text == "-" => ("log_to", Node::str("stderr", node.span)),
            "error_log" => ("log_to", Node::str(format!("file:{text}"), node.span)),
            "log_level" => ("log_level", Node::str(level(text), node.span)),
            "http_endpoints" => {
                let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
                let names: Vec<&str> = names.collect();
                if let Some(tls) = endpoint_tls(&names, sections, node.span, report) {
                    out.put("tls", tls);
                }
                let binds: Vec<Node> = names
                    .iter()
                    .flat_map(|name| endpoint(name, node.span, sections, report))
                    .collect();
                ("bind", Node::new(Item::List(binds), node.span))
            }
            "broadcast_address" => ("advertise", Node::str(text, node.span)),
            // Every key with this beginning is one address.
            _ if key.starts_with("lookupd_address") => {
                lookups.push(Node::str(text, node.span));
                ("lookup", Node::new(Item::List(lookups.clone()), node.span))
            }
            "pidfile" | "log_to" | "socket" | "state_dir" | "name" | "shell" => (key, node.clone()),
            "plugins_dir" | "plugin_dir" => ("plugins_dir", node.clone()),
            _ => {
                no_setting(key, entry, report);
                continue;
            }
        };
        out.put(new, value);
    }
    let checked = crate::check::Checked {
        keys: crate::keys::DAEMON,
        path: "gaffer.",
        what: "[gaffer]",
        without: None,
        written: false,
    };
    checked.check(&out, report);
    out
}

/// A key of `[gaffer]` that has no value here.
fn no_setting(key: &str, entry: &Entry, report: &mut Report) {
    match key {
        // Followed already.
        "include" | "include_dir" => {}
        "daemonize" => {
            let message = "`daemonize` has no effect";
            report.warning(entry.key, "gaffer.daemonize", message, "start gafferd --daemon");
        }
        _ => {
            let help = crate::keys::hint(crate::keys::DAEMON, "", key);
            let message = format!("unknown key `{key}` in [gaffer]");
            report.error(entry.key, &format!("gaffer.{key}"), message, &help);
        }
    }
}

fn yes_or_no(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "1" | "yes" | "true" | "on" => Some(true),
        "0" | "no" | "false" | "off" => Some(false),
        _ => None,
    }
}

/// The original has Python's levels.
fn level(text: &str) -> String {
    match text.to_lowercase().as_str() {
        "critical" => "error".to_owned(),
        "warning" => "warn".to_owned(),
        other => other.to_owned(),
    }
}

fn endpoint(name: &str, span: Span, sections: &[Section], report: &mut Report) -> Vec<Node> {
    let wanted = format!("endpoint:{name}");
    let Some(section) = sections.iter().find(|section| section.name == wanted) else {
        report.error(
            span,
            "gaffer.http_endpoints",
            format!("there is no section [{wanted}]"),
            "",
        );
        return Vec::new();
    };
    match section
        .table
        .get("bind")
        .map(|node| addresses(node.as_str().unwrap_or_default(), node.span).item)
    {
        Some(Item::List(list)) => list,
        _ => Vec::new(),
    }
}

/// The certificate of the endpoints in use: one for all, as all addresses speak the same here.
fn endpoint_tls(names: &[&str], sections: &[Section], span: Span, report: &mut Report) -> Option<Node> {
    let of = |name: &&str| {
        let section = sections
            .iter()
            .find(|one| one.name == format!("endpoint:{name}"))?;
        let file = |key: &str| section.table.get(key).and_then(Node::as_str).map(str::to_owned);
        Some((file("certfile"), file("keyfile")))
    };
    let mut all: Vec<(Option<String>, Option<String>)> = names.iter().filter_map(of).collect();
    all.dedup();
    match all.as_slice() {
        [] | [(None, None)] => None,
        [(Some(_), Some(_))] => {
            let first = names.first()?;
            let section = sections
                .iter()
                .find(|one| one.name == format!("endpoint:{first}"))?;
            let mut out = Table::default();
            for (old, new) in [("certfile", "cert"), ("keyfile", "key")] {
                out.put(new, section.table.get(old)?.clone());
            }
            Some(Node::table(out, span))
        }
        [_] => {
            let message = "an endpoint has `certfile` and `keyfile`, or neither";
            report.error(span, "gaffer.http_endpoints", message, "each names a PEM file");
            None
        }
        _ => {
            let message = "endpoints with different certificates: all addresses have the same one here";
            let help = "write the same `certfile` and `keyfile` into each, or leave out those that differ";
            report.error(span, "gaffer.http_endpoints", message, help);
            None
        }
    }
}

/// `host:port, [v6]:port, unix:/path`; an empty host is all, a missing port 5000.
fn addresses(text: &str, span: Span) -> Node {
    let one = |address: &str| match address {
        _ if address.starts_with("unix:") => address.to_owned(),
        _ if address.starts_with(':') => format!("0.0.0.0{address}"),
        _ if address.ends_with(']') || !address.contains(':') => format!("{address}:5000"),
        _ => address.to_owned(),
    };
    let list = text
        .split(',')
        .map(str::trim)
        .filter(|address| !address.is_empty());
    Node::new(
        Item::List(list.map(|address| Node::str(one(address), span)).collect()),
        span,
    )
}

fn number(text: &str, span: Span) -> Node {
    match text.parse() {
        Ok(number) => Node::new(Item::Int(number), span),
        Err(_) => Node::str(text, span),
    }
}
