//! Configuration: text in, typed objects and diagnostics out.
//!
//! ```text
//!  gaffer.toml ─┐                       ┌─ defaults, templates, profiles (merge)
//!  Procfile ────┼─► Node (value + place) ┤
//!  gaffer.ini ──┤                       └─► one table per job ─► Job of the core (resolve)
//!  *.json ──────┘                              │
//!                                              └─► canonical JSON: the store, the API
//! ```
//!
//! Every format becomes the same tree of values that know their place; from there on there is one
//! path, so that an error in a Procfile reads like one in `gaffer.toml`. [`gather`] is the only
//! function that reads a folder; [`load`] works on the gathered text, so that a client can send it
//! to a daemon. Users and folders are asked of a [`Host`].
//!
//! One table of keys drives checks, suggestions, the JSON Schema, the reference page and
//! the classes of changes that `plan` prints.

mod after;
mod bundle;
mod calendar;
mod check;
mod config;
mod daemon;
mod defs;
mod diagnostic;
mod diff;
mod digest;
mod env_text;
mod expand;
mod export;
mod export_toml;
mod front;
mod host;
mod ini;
mod ini_text;
mod init;
mod json_jobs;
mod json_text;
mod keys;
mod keys_queue;
mod keys_schedule;
mod keys_task;
mod kind;
mod launch;
mod legacy;
mod limits;
mod merge;
mod node;
mod overlay;
mod payload;
mod plugin;
mod procfile;
mod queue;
mod queue_store;
mod redact;
mod reference;
mod report;
mod resolve;
mod rlimit;
mod schedule;
mod schema;
mod source;
mod suggest;
mod systemd;
mod task;
mod template;
pub mod thermos;
mod toml_text;
mod units;
mod user_nodes;
mod webhook;

pub use bundle::{Bundle, GatherOptions, Kind, find_file, gather};
pub use calendar::{Anchored, Calendar};
pub use config::{Config, LoadedJob, Origin, load, load_again, load_job_json};
pub use daemon::{
    Containment, DEFAULT_SHELL, DaemonSettings, History, LogLevel, LogsTotal, ShimGrouping, TlsFiles,
};
pub use diagnostic::{Diagnostic, Diagnostics, Excerpt, Severity};
pub use diff::{Change, ChangeClass, diff, diff_queue, diff_typed};
pub use digest::fnv1a;
pub use expand::{ExpandError, Expanded, QueueRun, RunContext, TaskRun, expand};
pub use export::{ExportFormat, UnknownFormat, export};
pub use export_toml::Definitions;
pub use gaffer_core::signal::parse as parse_signal;
pub use gaffer_core::time::Wall;
pub use host::{Group, Host, StoredHost, SystemHost, SystemHost as RealHost};
pub use init::init;
pub use json_jobs::legacy_job;
pub use payload::{check_payload, schema_of};
pub use plugin::{PluginManifest, plugin_manifest};
pub use queue::{LoadedQueue, load_queue_json};
pub use queue_store::without_password;
pub use redact::Redaction;
pub use reference::reference_markdown;
pub use schedule::{LoadedSchedule, load_schedule_json};
pub use schema::schema_json;
pub use suggest::{distance, nearest};
pub use task::{Keep, LoadedTask, Unique, load_task_json};
pub use template::escape_templates;
pub use thermos::{
    Lifecycle, Resources, ShutdownCall, ThermosContext, ThermosTask, is_thermos, load_thermos,
    load_thermos_json,
};
pub use units::{UnitError, format_duration, format_size, parse_duration, parse_size, shell_quote};
pub use user_nodes::{UserNode, UserNodes, is_node_name, project_nodes, user_nodes, with_node, without_node};
pub use webhook::{Webhook, WebhookFormat, webhooks_toml};
