//! From a merged table to the job of the core: every default applied, every name looked up.
//!
//! Values were checked where they are written; what cannot be read here was told there.

use crate::after::Wait;
use crate::host::Host;
use crate::kind;
use crate::launch;
use crate::merge::{Layer, is_shell};
use crate::node::{Item, Node, Span, Table};
use crate::report::Report;
use gaffer_core::job::{
    AfterChange, Batch, ExitClass, ExitMatch, Flapping, Job, Logs, Probe, ProbeKind, Reload, ReloadHow,
    Restart, Retry, Scope, Stop,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a resolution asks, with its answers remembered: a thousand jobs ask about one user.
pub(crate) struct World<'a> {
    pub host: &'a dyn Host,
    folders: BTreeMap<PathBuf, bool>,
    users: BTreeMap<String, Option<gaffer_core::job::User>>,
}

impl<'a> World<'a> {
    pub fn new(host: &'a dyn Host) -> World<'a> {
        World {
            host,
            folders: BTreeMap::new(),
            users: BTreeMap::new(),
        }
    }

    pub fn is_dir(&mut self, path: &Path) -> bool {
        if let Some(known) = self.folders.get(path) {
            return *known;
        }
        let there = self.host.is_dir(path);
        self.folders.insert(path.to_owned(), there);
        there
    }

    /// By name or, if it is all digits, by id.
    pub fn user(&mut self, name: &str) -> Option<gaffer_core::job::User> {
        if let Some(known) = self.users.get(name) {
            return known.clone();
        }
        let found = match name.parse::<u32>() {
            Ok(uid) => self.host.user_with_id(uid),
            Err(_) => self.host.user_named(name),
        };
        self.users.insert(name.to_owned(), found.clone());
        found
    }
}

/// One resolution.
pub(crate) struct Resolver<'a, 'h> {
    pub world: &'a mut World<'h>,
    pub report: &'a mut Report,
    /// `job.web.`, for diagnostics.
    pub path: String,
    pub name: &'a str,
    /// Of the header.
    pub span: Span,
    pub table: &'a Table,
    pub layers: &'a [Layer],
    /// Why a file of variables could not be read.
    pub unread: Option<&'a str>,
    /// Of a step: what its texts may name.
    pub task: Option<&'a Named>,
}

/// What the texts of a step may name beyond a job's.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// `{{params.N}}`.
    pub params: BTreeSet<String>,
    /// Outputs by step, of all steps.
    pub outputs: BTreeMap<String, BTreeSet<String>>,
    /// Steps that have succeeded when this one starts.
    pub before: BTreeSet<String>,
    /// It is the work of a queue: a task and its payload may be named, no steps.
    pub queue: bool,
}

impl Named {
    /// For the work of a queue.
    pub fn queue() -> Named {
        Named {
            queue: true,
            ..Named::default()
        }
    }
}

/// A job whose dependencies are still names.
pub(crate) struct Resolved {
    pub job: Job,
    pub waits: Vec<Wait>,
}

impl Resolver<'_, '_> {
    pub fn error(&mut self, span: Span, key: &str, message: impl Into<String>, help: &str) {
        let span = if span == Span::NONE { self.span } else { span };
        self.report
            .error(span, &format!("{}{key}", self.path), message, help);
    }

    pub fn warning(&mut self, span: Span, key: &str, message: impl Into<String>, help: &str) {
        let span = if span == Span::NONE { self.span } else { span };
        self.report
            .warning(span, &format!("{}{key}", self.path), message, help);
    }

    pub(crate) fn duration(&self, path: &str) -> Option<Duration> {
        self.table.at(path).and_then(|node| kind::duration(node).ok())
    }

    pub(crate) fn bool(&self, path: &str) -> Option<bool> {
        self.table.at(path).and_then(Node::as_bool)
    }

    pub(crate) fn word(&self, path: &str) -> Option<&str> {
        self.table.at(path).and_then(Node::as_str)
    }

    fn int(&self, path: &str) -> Option<i64> {
        match self.table.at(path).map(|node| &node.item) {
            Some(Item::Int(number)) => Some(*number),
            _ => None,
        }
    }

    fn count(&self, path: &str) -> Option<u32> {
        self.int(path).and_then(|number| u32::try_from(number).ok())
    }

    fn size(&self, path: &str) -> Option<u64> {
        self.table.at(path).and_then(|node| kind::size(node).ok())
    }

    fn signal(&self, path: &str) -> Option<i32> {
        self.table.at(path).and_then(|node| kind::signal(node).ok())
    }

    pub(crate) fn span_of(&self, path: &str) -> Span {
        self.table.at(path).map_or(self.span, |node| node.span)
    }

    /// The whole job.
    pub fn resolve(&mut self) -> Resolved {
        let launch = launch::launch(self);
        let mut job = Job::of(launch);
        job.start = self.bool("start").unwrap_or(true);
        job.instances = self.count("instances").unwrap_or(1);
        job.scale_min = self.count("scale.min").unwrap_or(0);
        job.scale_max = self.count("scale.max");
        job.priority = self
            .int("priority")
            .and_then(|number| i32::try_from(number).ok())
            .unwrap_or(0);
        job.after_change = match self.word("after_change") {
            Some("restart") => AfterChange::Restart,
            Some("stop") => AfterChange::Stop,
            _ => AfterChange::Ignore,
        };
        job.start_spacing = self.duration("start_spacing").unwrap_or_default();
        job.restart = match self.word("restart") {
            Some("on-failure") => Restart::OnFailure,
            Some("never") => Restart::Never,
            _ => Restart::Always,
        };
        job.exit = self.exit();
        job.retry = self.retry(Retry::default());
        job.flapping = self.flapping();
        let (ready, within) = self.ready();
        job.ready = ready;
        job.ready_within = within;
        job.health = self.health();
        job.health_restarts = self.word("health.action") != Some("alert");
        job.stop = self.stop();
        job.reload = self.reload();
        job.essential = self.bool("essential").unwrap_or(false);
        job.keep_running = self.bool("keep_running").unwrap_or(false);
        job.logs = self.logs();
        job.description = self.word("description").unwrap_or_default().to_owned();
        job.meta = self.meta();
        let waits = crate::after::waits(self.table);
        self.consistent(&job);
        Resolved { job, waits }
    }

    pub(crate) fn exit(&self) -> ExitClass {
        let ends = |path: &str| self.table.at(path).and_then(|node| kind::ends(node).ok());
        ExitClass {
            ok: ends("exit.ok").unwrap_or_else(|| vec![ExitMatch::Code(0)]),
            fatal: ends("exit.fatal").unwrap_or_default(),
        }
    }

    pub(crate) fn retry(&self, default: Retry) -> Retry {
        let number = |path: &str| {
            self.table
                .at(path)
                .and_then(|node| kind::number(node, 0.0, f64::MAX).ok())
        };
        Retry {
            attempts: match self.table.at("retry.attempts") {
                Some(node) => kind::count(node, 1).ok().flatten(),
                None => default.attempts,
            },
            delay: self
                .table
                .at("retry.delay")
                .and_then(|node| kind::durations(node).ok())
                .unwrap_or(default.delay),
            factor: number("retry.factor").unwrap_or(default.factor),
            increment: self.duration("retry.increment"),
            max_delay: self.duration("retry.max_delay").unwrap_or(default.max_delay),
            jitter: number("retry.jitter").unwrap_or(default.jitter),
            reset_after: self.duration("retry.reset_after").unwrap_or(default.reset_after),
        }
    }

    fn flapping(&self) -> Option<Flapping> {
        self.table.get_table("flapping")?;
        let rounds = match self.table.at("flapping.rounds") {
            Some(node) => kind::count(node, 0).ok().flatten(),
            None => Some(5),
        };
        Some(Flapping {
            exits: self.count("flapping.exits").unwrap_or(5),
            window: self
                .duration("flapping.window")
                .unwrap_or(Duration::from_secs(30)),
            pause: self.duration("flapping.pause").unwrap_or(Duration::from_secs(7)),
            rounds,
            whole_job: self.word("flapping.scope") == Some("job"),
        })
    }

    pub(crate) fn ready(&mut self) -> (Option<Probe>, Duration) {
        let within = self.duration("ready.within").unwrap_or(Duration::from_secs(60));
        if self.table.get_table("ready").is_none() {
            return (None, within);
        }
        let Some(kind) = self.probe_kind("ready", &["http", "tcp", "cmd", "log", "notify", "after"]) else {
            return (None, within);
        };
        if let ProbeKind::After(after) = kind
            && after > within
        {
            self.error(
                self.span_of("ready.after"),
                "ready.after",
                "`ready.after` is longer than `ready.within`",
                "it could never be ready",
            );
        }
        let (every, timeout) = (Duration::from_millis(500), Duration::from_secs(2));
        (Some(self.probe("ready", kind, every, timeout, 1)), within)
    }

    pub(crate) fn health(&mut self) -> Option<Probe> {
        self.table.get_table("health")?;
        let kind = self.probe_kind("health", &["http", "tcp", "cmd", "heartbeat"])?;
        Some(self.probe("health", kind, Duration::from_secs(10), Duration::from_secs(5), 3))
    }

    fn probe(
        &mut self,
        at: &str,
        kind: ProbeKind,
        every: Duration,
        timeout: Duration,
        failures: u32,
    ) -> Probe {
        let probe = Probe {
            kind,
            every: self.duration(&format!("{at}.every")).unwrap_or(every),
            timeout: self.duration(&format!("{at}.timeout")).unwrap_or(timeout),
            delay: self.duration(&format!("{at}.delay")).unwrap_or_default(),
            successes: self.count(&format!("{at}.successes")).unwrap_or(1),
            failures: self.count(&format!("{at}.failures")).unwrap_or(failures),
        };
        for (key, value) in [("every", probe.every), ("timeout", probe.timeout)] {
            if value.is_zero() {
                let key = format!("{at}.{key}");
                self.error(
                    self.span_of(&key),
                    &key,
                    format!("`{key}` must be longer than nothing"),
                    "",
                );
            }
        }
        probe
    }

    /// The one probe of a table.
    fn probe_kind(&mut self, at: &str, kinds: &[&str]) -> Option<ProbeKind> {
        let table = self.table.get_table(at)?;
        let given: Vec<&str> = kinds
            .iter()
            .copied()
            .filter(|kind| table.get(kind).is_some())
            .collect();
        let span = self.span_of(at);
        let [kind] = given[..] else {
            let message = match given[..] {
                [] => format!("`{at}` has no probe"),
                _ => format!("`{at}` has more than one probe: {}", given.join(", ")),
            };
            self.error(span, at, message, &format!("exactly one of {}", kinds.join(", ")));
            return None;
        };
        let node = table.get(kind)?;
        let text = || node.as_str().map(str::to_owned);
        let key = format!("{at}.{kind}");
        if table.get("shell").is_some() && kind != "cmd" {
            self.error(
                self.span_of(&format!("{at}.shell")),
                &format!("{at}.shell"),
                format!("`{at}.shell` needs `{at}.cmd`"),
                "",
            );
        }
        Some(match kind {
            "http" => {
                launch::check_template(self, node, &key, false);
                ProbeKind::Http(text()?)
            }
            "tcp" => {
                launch::check_template(self, node, &key, false);
                ProbeKind::Tcp(text()?)
            }
            "cmd" => {
                let shell = table.get("shell").cloned();
                launch::check_template(self, node, &key, is_shell(shell.as_ref()));
                let cmd = launch::command(self, node, is_shell(shell.as_ref()), &key)?;
                ProbeKind::Cmd {
                    cmd,
                    shell: launch::shell(shell.as_ref()),
                }
            }
            "log" => ProbeKind::Log(text()?),
            "notify" => ProbeKind::Notify,
            "after" => ProbeKind::After(kind::duration(node).ok()?),
            _ => {
                let silence = kind::duration(node).ok()?;
                if silence.is_zero() {
                    self.error(
                        node.span,
                        &key,
                        format!("`{key}` must be longer than nothing"),
                        "",
                    );
                }
                ProbeKind::Heartbeat(silence)
            }
        })
    }

    pub(crate) fn stop(&mut self) -> Stop {
        let scope = match self.word("stop.to") {
            Some("main") => Scope::Main,
            Some("children") => Scope::Children,
            Some("group") => Scope::Group,
            Some("all") => Scope::All,
            _ if is_shell(self.table.get("shell")) => Scope::Group,
            _ => Scope::Main,
        };
        let table = self.table;
        if let Some(node) = table.at("stop.cmd") {
            launch::check_template(self, node, "stop.cmd", false);
        }
        let cmd = table
            .at("stop.cmd")
            .and_then(|node| launch::command(self, node, false, "stop.cmd"));
        Stop {
            signal: self.signal("stop.signal").unwrap_or(libc::SIGTERM),
            timeout: self.duration("stop.timeout").unwrap_or(Duration::from_secs(30)),
            to: scope,
            cmd,
        }
    }

    fn reload(&mut self) -> Reload {
        let how = match self.word("reload.how") {
            Some("surge") => ReloadHow::Surge,
            Some("restart") => ReloadHow::Restart,
            Some("signal") => ReloadHow::Signal,
            _ => ReloadHow::Rolling,
        };
        if self.table.at("reload.signal").is_some() && how != ReloadHow::Signal {
            let span = self.span_of("reload.signal");
            self.error(
                span,
                "reload.signal",
                "`reload.signal` needs `how = \"signal\"`",
                "write reload = { how = \"signal\", signal = … }",
            );
        }
        let batch = self
            .table
            .at("reload.batch")
            .and_then(|node| kind::batch(node).ok());
        Reload {
            how,
            signal: self.signal("reload.signal").unwrap_or(libc::SIGHUP),
            batch: batch.unwrap_or(Batch::Count(1)),
        }
    }

    pub(crate) fn logs(&mut self) -> Logs {
        let redact = self.table.at("logs.redact").map(Node::texts).unwrap_or_default();
        let redact: Vec<String> = redact.into_iter().map(|(text, _)| text.to_owned()).collect();
        let logs = Logs {
            size: self.size("logs.size").unwrap_or(100 << 20),
            age: self.duration("logs.age"),
            // Two segments at least: one is written while the other is kept.
            segment: self.size("logs.segment").unwrap_or(8 << 20),
            block_when_full: self.word("logs.when_full") == Some("block"),
            redact,
        };
        let given = self.table.at("logs.segment").is_some();
        let mut logs = logs;
        if !given && logs.segment > logs.size / 2 {
            logs.segment = (logs.size / 2).max(4 << 10);
        }
        if logs.segment < 4 << 10 {
            self.error(
                self.span_of("logs.segment"),
                "logs.segment",
                "`logs.segment` must be at least 4K",
                "",
            );
        } else if logs.segment > logs.size && given {
            self.error(
                self.span_of("logs.segment"),
                "logs.segment",
                "`logs.segment` is larger than `logs.size`",
                "",
            );
        } else if logs.size < 4 << 10 {
            self.error(
                self.span_of("logs.size"),
                "logs.size",
                "`logs.size` must be at least 4K",
                "to keep nothing, write logs.stdout = \"null\"",
            );
        }
        logs
    }

    fn meta(&self) -> BTreeMap<String, String> {
        let table = self.table.get_table("meta");
        table
            .into_iter()
            .flat_map(Table::iter)
            .filter_map(|(name, entry)| Some((name.to_owned(), kind::scalar(&entry.node)?)))
            .collect()
    }

    /// Combinations that cannot be meant.
    fn consistent(&mut self, job: &Job) {
        if let Some(max) = job.scale_max {
            if job.scale_min > max {
                self.error(
                    self.span_of("scale.min"),
                    "scale.min",
                    "`scale.min` is above `scale.max`",
                    "",
                );
            } else if job.instances > max {
                let message = format!("`instances` is {}, above `scale.max`", job.instances);
                self.error(self.span_of("instances"), "instances", message, "");
            }
        }
        if job.instances < job.scale_min && self.table.get("instances").is_some() {
            let message = format!("`instances` is {}, below `scale.min`", job.instances);
            self.error(self.span_of("instances"), "instances", message, "");
        }
        if job.reload.how == ReloadHow::Surge
            && let Some(gaffer_core::job::Port::Fixed(port)) = job.launch.port
        {
            let message = format!("a reload starts a new run beside the old one, and both get port {port}");
            self.warning(
                self.span_of("port"),
                "port",
                message,
                "write port = \"auto\", or reload = \"rolling\"",
            );
        }
        if self.table.get_table("retry").is_some() && job.restart == Restart::Never {
            let span = self.span_of("retry");
            self.warning(
                span,
                "retry",
                "`retry` has no effect with `restart = \"never\"`",
                "",
            );
        }
    }
}
