//! `[gaffer]`: settings of the daemon, typed, with their defaults applied.

use crate::host::Host;
use crate::node::{Item, Node, Table};
use crate::report::Report;
use crate::user_nodes::UserNodes;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What `shell = true` is where `[gaffer] shell` does not say.
pub const DEFAULT_SHELL: &str = "/bin/sh";

/// PEM files of the daemon's TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate and chain.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Authorities of which clients need a certificate.
    pub client_ca: Option<PathBuf>,
}

/// Settings of the daemon. Options of `gafferd` and variables win over them.
#[derive(Clone, Debug, PartialEq)]
pub struct DaemonSettings {
    /// Node name; none: the host's.
    pub name: Option<String>,
    /// For `--label k=v`.
    pub labels: BTreeMap<String, String>,
    /// `host:port`, `[v6]:port`, `unix:PATH`; empty is the socket only.
    pub bind: Vec<String>,
    /// Control socket; none: in the runtime dir.
    pub socket: Option<PathBuf>,
    /// Owner of the socket, `(uid, gid)`; none: the daemon's.
    pub socket_owner: Option<(u32, u32)>,
    /// Mode of the socket.
    pub socket_mode: u32,
    /// Store, shims, logs; none: the default place.
    pub state_dir: Option<PathBuf>,
    /// HTTPS on all TCP addresses.
    pub tls: Option<TlsFiles>,
    /// Refuse anonymous requests also from the daemon's own user.
    pub require_token: bool,
    /// `Host` allow-list beside the own names.
    pub allow_hosts: Vec<String>,
    /// `Origin` allow-list.
    pub allow_origins: Vec<String>,
    /// Of the listeners.
    pub backlog: u32,
    /// URL under which other nodes reach this one; none: from `bind`.
    pub advertise: Option<String>,
    /// URLs of look-up services.
    pub lookup: Vec<String>,
    /// `[node.X]` of the same file: other nodes, which this one may ask.
    pub nodes: UserNodes,
    /// URL of the database of the queues; none: a file in the state directory.
    pub queue_store: Option<String>,
    /// Log level.
    pub log_level: LogLevel,
    /// `stderr`, `journal`, `syslog`, `file:PATH`.
    pub log_to: String,
    /// Budget of all logs.
    pub logs_total: LogsTotal,
    /// Death records kept.
    pub history: History,
    /// Sampling of statistics.
    pub stats_every: Duration,
    /// Pause between the starts of jobs.
    pub start_spacing: Duration,
    /// Starts in progress at once; none: 2 × cores.
    pub start_at_once: Option<u32>,
    /// Total time of an orderly shutdown.
    pub stop_within: Duration,
    /// Cgroups.
    pub containment: Containment,
    /// How runs are grouped under shims.
    pub shim: ShimGrouping,
    /// `/metrics`.
    pub metrics: bool,
    /// The API of gaffer 0.5 and 0.4.
    pub legacy_api: bool,
    /// Web origins that it answers with CORS headers.
    pub legacy_origins: Vec<String>,
    /// Folder of plugins; none: `plugins` beside the file, if it is there.
    pub plugins_dir: Option<PathBuf>,
    /// Where the pid is written.
    pub pidfile: Option<PathBuf>,
    /// Of the daemon.
    pub umask: u32,
    /// Used by `shell = true`.
    pub shell: String,
}

/// `logs_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogsTotal {
    /// Bytes.
    Bytes(u64),
    /// Percent of the disk.
    Percent(u32),
}

/// `history`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Death records kept per job.
    pub runs: u32,
    /// Oldest kept.
    pub age: Duration,
}

/// `log_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say all there is to say")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// `containment`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Containment {
    /// Use cgroups if possible.
    Auto,
    /// Insist on them.
    Require,
    /// Never.
    Off,
}

/// `shim`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShimGrouping {
    /// One shim for all runs of a session.
    Session,
    /// One per job.
    Job,
    /// One per run.
    Run,
}

impl LogLevel {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

impl Default for DaemonSettings {
    fn default() -> DaemonSettings {
        DaemonSettings {
            name: None,
            labels: BTreeMap::new(),
            bind: vec!["127.0.0.1:5000".to_owned()],
            socket: None,
            socket_owner: None,
            socket_mode: 0o600,
            state_dir: None,
            tls: None,
            require_token: false,
            allow_hosts: Vec::new(),
            allow_origins: Vec::new(),
            backlog: 1024,
            advertise: None,
            lookup: Vec::new(),
            nodes: UserNodes::new(),
            queue_store: None,
            log_level: LogLevel::Info,
            log_to: "stderr".to_owned(),
            logs_total: LogsTotal::Percent(10),
            history: History {
                runs: 200,
                age: Duration::from_secs(30 * 86_400),
            },
            stats_every: Duration::from_secs(1),
            start_spacing: Duration::ZERO,
            start_at_once: None,
            stop_within: Duration::from_secs(90),
            containment: Containment::Auto,
            shim: ShimGrouping::Session,
            metrics: true,
            legacy_api: true,
            legacy_origins: Vec::new(),
            plugins_dir: None,
            pidfile: None,
            umask: 0o022,
            shell: DEFAULT_SHELL.to_owned(),
        }
    }
}

/// The settings of a checked `[gaffer]`; what could not be read was told, and has its default here.
pub(crate) fn settings(table: &Table, host: &dyn Host, report: &mut Report) -> DaemonSettings {
    let mut settings = DaemonSettings::default();
    strings(table, &mut settings, report);
    settings.queue_store = queue_store(table, report);
    numbers(table, &mut settings);
    if let Some(node) = table.get("name")
        && let Some(name) = node.as_str()
        && let Err(error) = gaffer_core::name::Name::parse(name)
    {
        // Host names have dots; a node's name may have them, too.
        if name.contains(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c)) || name.is_empty() {
            report.error(node.span, "gaffer.name", error.to_string(), "");
        }
    }
    if let Some(node) = table.get("bind") {
        for (address, span) in node.texts() {
            if let Err(why) = check_address(address) {
                report.error(
                    span,
                    "gaffer.bind",
                    format!("`bind` has {address:?}: {why}"),
                    "host:port, [v6]:port or unix:PATH",
                );
            }
        }
    }
    check_urls(table, report);
    if let Some(node) = table.get("tls")
        && settings.tls.is_none()
    {
        let message = "`tls` needs `cert` and `key`";
        report.error(
            node.span,
            "gaffer.tls",
            message,
            "tls = {cert = \"FILE\", key = \"FILE\"}",
        );
    }
    if settings.socket_mode & 0o007 != 0
        && let Some(node) = table.get("socket_mode")
    {
        let message = "`socket_mode` lets everybody on this machine control the daemon";
        report.error(
            node.span,
            "gaffer.socket_mode",
            message,
            "\"660\" and `socket_owner` let a group in",
        );
    }
    if let Some(node) = table.get("socket_owner")
        && let Some(text) = node.as_str()
    {
        settings.socket_owner = owner(text, host);
        if settings.socket_owner.is_none() {
            let message = format!("`socket_owner` names {text:?}, whom this machine does not know");
            report.error(node.span, "gaffer.socket_owner", message, "write \"user:group\"");
        }
    }
    settings
}

/// `user:group` or `user`, by name or id.
fn owner(text: &str, host: &dyn Host) -> Option<(u32, u32)> {
    let (user, group) = text
        .split_once(':')
        .map_or((text, None), |(user, group)| (user, Some(group)));
    let known = match user.parse::<u32>() {
        Ok(uid) => host
            .user_with_id(uid)
            .map(|user| (user.uid, user.gid))
            .or(Some((uid, host.own_gid()))),
        Err(_) => host.user_named(user).map(|user| (user.uid, user.gid)),
    };
    let (uid, gid) = known?;
    let gid = match group {
        None => gid,
        Some(group) => group
            .parse()
            .ok()
            .or_else(|| host.group_named(group).map(|group| group.gid))?,
    };
    Some((uid, gid))
}

/// Look-up services, and where others reach this node.
fn check_urls(table: &Table, report: &mut Report) {
    for (key, example) in [
        ("lookup", "http://10.0.0.7:5010"),
        ("advertise", "http://10.0.0.7:5000"),
    ] {
        let texts = table.get(key).map(Node::texts).unwrap_or_default();
        for (url, span) in texts {
            if let Err(why) = check_url(url) {
                let message = format!("`{key}` has {url:?}: {why}");
                report.error(
                    span,
                    &format!("gaffer.{key}"),
                    message,
                    &format!("write {example:?}"),
                );
            }
        }
    }
}

fn check_url(url: &str) -> Result<(), &'static str> {
    if url.starts_with("etcd://") {
        return Err("etcd is not yet supported; gaffer-lookupd is");
    }
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    let rest = rest.ok_or("it must begin with http:// or https://")?;
    let host = rest.trim_end_matches('/');
    match host.is_empty() || host.contains(['/', '?', '#', '@']) || host.contains(char::is_whitespace) {
        true => Err("it must be a host and a port, nothing else"),
        false => Ok(()),
    }
}

/// Is it `host:port`, `[v6]:port` or `unix:PATH`?
fn check_address(address: &str) -> Result<(), &'static str> {
    if let Some(path) = address.strip_prefix("unix:") {
        return if path.starts_with('/') {
            Ok(())
        } else {
            Err("the path must be absolute")
        };
    }
    let (host, port) = address.rsplit_once(':').ok_or("the port is missing")?;
    if port.parse::<u16>().is_err() {
        return Err("the port is not a number up to 65535");
    }
    if let Some(v6) = host.strip_prefix('[') {
        let inside = v6.strip_suffix(']').ok_or("`[` is not closed")?;
        return inside
            .parse::<std::net::Ipv6Addr>()
            .map(drop)
            .map_err(|_| "this is not an IPv6 address");
    }
    if host.contains(':') {
        return Err("an IPv6 address stands in brackets");
    }
    if host.is_empty() {
        Err("the host is missing; all addresses are 0.0.0.0 or [::]")
    } else {
        Ok(())
    }
}

fn strings(table: &Table, settings: &mut DaemonSettings, report: &Report) {
    let text = |key: &str| table.get(key).and_then(Node::as_str).map(str::to_owned);
    let path = |key: &str| {
        let node = table.at(key)?;
        let folder = report.folder_of(node.span).unwrap_or(std::path::Path::new("/"));
        Some(folder.join(node.as_str()?))
    };
    let list = |key: &str| {
        let texts = table.get(key)?.texts();
        Some(
            texts
                .into_iter()
                .map(|(text, _)| text.to_owned())
                .collect::<Vec<_>>(),
        )
    };
    settings.name = text("name");
    if let Some(labels) = table.get_table("labels") {
        let pair = |(name, entry): (&str, &crate::node::Entry)| {
            Some((name.to_owned(), crate::kind::scalar(&entry.node)?))
        };
        settings.labels = labels.iter().filter_map(pair).collect();
    }
    settings.bind = list("bind").unwrap_or(settings.bind.clone());
    settings.socket = path("socket");
    settings.state_dir = path("state_dir");
    settings.tls = path("tls.cert").zip(path("tls.key")).map(|(cert, key)| TlsFiles {
        cert,
        key,
        client_ca: path("tls.client_ca"),
    });
    settings.allow_hosts = list("allow_hosts").unwrap_or_default();
    settings.allow_origins = list("allow_origins").unwrap_or_default();
    settings.advertise = text("advertise");
    settings.lookup = list("lookup").unwrap_or_default();
    settings.legacy_origins = list("legacy_origins").unwrap_or_default();
    settings.plugins_dir = path("plugins_dir");
    settings.pidfile = path("pidfile");
    settings.shell = text("shell").unwrap_or(settings.shell.clone());
    settings.log_to = text("log_to").unwrap_or(settings.log_to.clone());
    if let (Some(node), Some(file)) = (table.get("log_to"), settings.log_to.strip_prefix("file:")) {
        let folder = report.folder_of(node.span).unwrap_or(std::path::Path::new("/"));
        settings.log_to = format!("file:{}", folder.join(file).display());
    }
    settings.log_level = match text("log_level").as_deref() {
        Some("error") => LogLevel::Error,
        Some("warn") => LogLevel::Warn,
        Some("debug") => LogLevel::Debug,
        Some("trace") => LogLevel::Trace,
        _ => LogLevel::Info,
    };
    settings.containment = match text("containment").as_deref() {
        Some("require") => Containment::Require,
        Some("off") => Containment::Off,
        _ => Containment::Auto,
    };
    settings.shim = match text("shim").as_deref() {
        Some("job") => ShimGrouping::Job,
        Some("run") => ShimGrouping::Run,
        _ => ShimGrouping::Session,
    };
}

fn numbers(table: &Table, settings: &mut DaemonSettings) {
    let flag = |key: &str, default: bool| table.get(key).and_then(Node::as_bool).unwrap_or(default);
    let number = |path: &str| match table.at(path).map(|node| &node.item) {
        Some(Item::Int(number)) => u32::try_from(*number).ok(),
        _ => None,
    };
    let duration = |path: &str| table.at(path).and_then(|node| crate::kind::duration(node).ok());
    let octal = |key: &str| table.get(key).and_then(|node| crate::kind::octal(node).ok());
    settings.require_token = flag("require_token", settings.require_token);
    settings.metrics = flag("metrics", settings.metrics);
    settings.legacy_api = flag("legacy_api", settings.legacy_api);
    settings.backlog = number("backlog").unwrap_or(settings.backlog);
    settings.start_at_once = number("start_at_once");
    settings.history.runs = number("history.runs").unwrap_or(settings.history.runs);
    settings.history.age = duration("history.age").unwrap_or(settings.history.age);
    settings.stats_every = duration("stats_every").unwrap_or(settings.stats_every);
    settings.start_spacing = duration("start_spacing").unwrap_or(settings.start_spacing);
    settings.stop_within = duration("stop_within").unwrap_or(settings.stop_within);
    settings.umask = octal("umask").unwrap_or(settings.umask);
    settings.socket_mode = octal("socket_mode").unwrap_or(settings.socket_mode);
    if let Some(node) = table.get("logs_total") {
        settings.logs_total = match node.as_str().and_then(crate::kind::percent) {
            Some(percent) => LogsTotal::Percent(percent),
            None => crate::kind::size(node).map_or(settings.logs_total, LogsTotal::Bytes),
        };
    }
}

fn queue_store(table: &Table, report: &mut Report) -> Option<String> {
    let node = table.get("queue_store")?;
    let text = node.as_str()?;
    if text == "sqlite" {
        return None;
    }
    if !crate::queue_store::is_store(text) {
        // It may hold a password: it is not repeated.
        report.error(
            node.span,
            "gaffer.queue_store",
            "`queue_store` is neither `sqlite` nor the URL of a database",
            "write \"sqlite\" or \"postgres://USER@HOST/DATABASE\"",
        );
        return None;
    }
    Some(text.to_owned())
}
