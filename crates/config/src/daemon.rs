//! `[gaffer]`: settings of the daemon, typed, with their defaults applied.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

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
    /// The page.
    pub web: bool,
    /// The API of the original.
    pub legacy_api: bool,
    /// `/metrics`.
    pub metrics: bool,
    /// Origins that the legacy API answers; empty: own.
    pub legacy_origins: Vec<String>,
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
            require_token: false,
            allow_hosts: Vec::new(),
            allow_origins: Vec::new(),
            backlog: 1024,
            advertise: None,
            log_level: LogLevel::Info,
            log_to: "stderr".to_owned(),
            logs_total: LogsTotal::Percent(10),
            history: History { runs: 200, age: Duration::from_secs(30 * 86_400) },
            stats_every: Duration::from_secs(1),
            start_spacing: Duration::ZERO,
            start_at_once: None,
            stop_within: Duration::from_secs(90),
            containment: Containment::Auto,
            shim: ShimGrouping::Session,
            web: true,
            legacy_api: true,
            metrics: true,
            legacy_origins: Vec::new(),
            pidfile: None,
            umask: 0o022,
            shell: "/bin/sh".to_owned(),
        }
    }
}
