//! The one table of keys: what there is, what it takes, its default, when a change counts, one line about it.
//!
//! Checks, suggestions, the JSON Schema, the reference page and the classes of `plan` all read it.

use crate::diff::ChangeClass::{self, Daemon as D, Live as L, NextStart as N, Reload as R};
use crate::kind::Type;

/// Where a key is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Everything that runs a program; also in `[defaults]`.
    Run,
    /// Jobs; also in `[defaults.job]`.
    Job,
    /// In files only, gone once it is merged.
    File,
    /// Known, but its time has not come.
    NotYet,
    /// Known, and wrong here: the hint says what to use.
    Refused(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// Dotted, from the object.
    pub path: &'static str,
    pub ty: Type,
    /// As written in a file; empty: none.
    pub default: &'static str,
    pub class: ChangeClass,
    pub used: Use,
    pub doc: &'static str,
    /// The key below that a plain value stands for.
    pub short: Option<&'static str>,
}

pub(crate) const fn key(
    path: &'static str,
    ty: Type,
    default: &'static str,
    class: ChangeClass,
    used: Use,
    doc: &'static str,
) -> Key {
    Key {
        path,
        ty,
        default,
        class,
        used,
        doc,
        short: None,
    }
}

pub(crate) const fn table(
    path: &'static str,
    short: Option<&'static str>,
    class: ChangeClass,
    used: Use,
    doc: &'static str,
) -> Key {
    Key {
        path,
        ty: Type::Table,
        default: "",
        class,
        used,
        doc,
        short,
    }
}

pub(crate) const fn not_yet(path: &'static str, doc: &'static str) -> Key {
    key(path, Type::Text, "", L, Use::NotYet, doc)
}

use Use::{File, Job, Run};

const PORT_DOC: &str = "`$PORT` of instance 1; instance n gets `port + n - 1`";
const RELOAD_DOC: &str = "how a change that needs new runs is rolled out";

/// Keys of `[job.X]`, in the order of the reference.
#[rustfmt::skip] // A table reads better as one.
pub(crate) const JOB: &[Key] = &[
    // ── what to run ──
    key("cmd", Type::Command, "", R, Run, "what to run: words, or a text that is split like a shell does, without a shell"),
    key("shell", Type::Shell, "false", R, Run, "run `cmd` (a text, verbatim) by `SHELL -c`; `true` or the name of a shell"),
    key("argv0", Type::Text, "", R, Run, "name shown to the program"),
    key("wrap", Type::Command, "", R, Run, "words put in front of `cmd`"),
    key("cwd", Type::Path, "folder of the file", R, Run, "working directory; it must exist"),
    key("env", Type::Env, "{}", R, Run, "variables; `$X` in them means the layer below"),
    key("env_file", Type::Paths, "[]", R, Run, "files of variables, below `env`; later wins, `\"?path\"` may be missing"),
    key("env_inherit", Type::Inherit, "\"base\"", R, Run, "what comes from the daemon: `base` is PATH, LANG, LC_*, TZ; `all`, `none`, or patterns of names"),
    not_yet("secrets", "files in `$CREDENTIALS_DIRECTORY`"),
    key("user", Type::User, "the daemon's", R, Run, "name or id"),
    key("group", Type::User, "the user's", R, Run, "name or id"),
    key("groups", Type::Users, "the user's", R, Run, "supplementary groups"),
    key("umask", Type::Octal, "\"022\"", R, Run, "file mode mask"),
    key("nice", Type::Int(-20, 19), "0", R, Run, "scheduling priority; a daemon without privilege that is niced itself leaves 0 as it is"),
    key("oom_score", Type::Int(-1000, 1000), "0", R, Run, "who is killed first when memory runs out"),
    key("no_new_privs", Type::Bool, "true if `user` is set", R, Run, "programs with set-user-id bits give no rights"),
    table("limits", None, L, Run, "limits of all processes of a run together (cgroup)"),
    key("limits.memory", Type::SizeOrShare, "", L, Run, "most memory, a size or a share of the machine's; beyond it the kernel kills"),
    key("limits.memory_high", Type::SizeOrShare, "", L, Run, "from here on the run is slowed down and its memory taken back; cgroup v2"),
    key("limits.memory_low", Type::SizeOrShare, "", L, Run, "memory that is taken back last; cgroup v2"),
    key("limits.swap", Type::SizeOrShare, "", L, Run, "most swap; `\"0B\"` is none"),
    key("limits.cpu", Type::Percent, "", L, Run, "of one core: `\"150%\"` is one and a half"),
    key("limits.cpu_weight", Type::Int(1, 10_000), "100", L, Run, "share of the processors where runs compete"),
    key("limits.io_weight", Type::Int(1, 10_000), "100", L, Run, "share of the disks where runs compete; cgroup v2"),
    key("limits.pids", Type::Int(1, 4_194_304), "", L, Run, "most processes and threads"),
    key("limits.cpus", Type::Numbers, "", L, Run, "processors: `\"0-3,8\"`"),
    key("limits.mems", Type::Numbers, "", L, Run, "memory nodes, likewise"),
    key("limits.io", Type::Texts, "[]", L, Run, "lines of the kernel's `io.max`: `\"8:0 rbps=1048576\"`; cgroup v2"),
    key("limits.oom", Type::Word(&["run", "process"]), "\"run\"", L, Run, "who is killed beyond `memory`: all of the run, or one process; on cgroup v1 always one"),
    not_yet("limits.scope", "limits of a job as a whole"),
    key("limits.enforce", Type::Word(&["auto", "require"]), "\"auto\"", L, Run, "where a limit cannot be had: start without it, or do not start"),
    key("rlimits", Type::Rlimits, "{}", R, Run, "limits of each process: `nofile = 4096`, `core = \"0B\"`, `\"SOFT:HARD\"`, `\"unlimited\"`"),
    key("port", Type::Port, "", R, Run, PORT_DOC),
    key("ports", Type::Ports, "{}", R, Run, "`$PORT_NAME`, `{{ports.name}}`"),
    not_yet("sockets", "listening sockets that outlive the run"),
    key("stdin", Type::Stdin, "\"null\"", R, Run, "`null`, `pipe`, `file:PATH`"),
    key("pty", Type::Bool, "false", R, Run, "a terminal for the program"),
    key("streams", Type::Labels(64), "[]", R, Job, "labels of two-way pipes on the next free descriptors"),
    // ── output ──
    table("logs", None, L, Run, "output"),
    key("logs.stdout", Type::Word(&["keep", "null"]), "\"keep\"", R, Run, "keep or discard"),
    key("logs.stderr", Type::Word(&["keep", "null", "stdout"]), "\"keep\"", R, Run, "keep, discard, or merge into stdout"),
    key("logs.size", Type::Size, "\"100M\"", L, Run, "kept per stream of an instance; oldest segments go first"),
    key("logs.age", Type::Duration, "", L, Run, "oldest kept; the segment that is being written stays"),
    key("logs.segment", Type::Size, "\"8M\"", L, Run, "size at which a segment is ended"),
    key("logs.when_full", Type::Word(&["drop", "block"]), "\"drop\"", L, Run, "disk full: count and drop, or let the program wait"),
    key("logs.to", Type::Empty, "[]", L, Run, "copies elsewhere; only `[]` for now"),
    not_yet("logs.file_size", "rotation of `logs.to` files"),
    not_yet("logs.file_keep", "rotation of `logs.to` files"),
    not_yet("logs.file_every", "rotation of `logs.to` files"),
    key("logs.redact", Type::Redact, "[]", L, Run, "masked on the way out: a plain word is a JSON field, anything else a regular expression; lines beyond 64K are masked whole"),
    key("logs.labels", Type::Labels(2), "[\"stdout\", \"stderr\"]", L, Run, "names of the streams in the API of the original"),
    // ── readiness and health ──
    table("ready", Some("http"), R, Run, "when a run counts as running: exactly one probe"),
    key("ready.http", Type::Url, "", R, Run, "URL that answers 2xx or 3xx"),
    key("ready.tcp", Type::Address, "", R, Run, "address that accepts: `host:port` or `unix:PATH`"),
    key("ready.cmd", Type::Command, "", R, Run, "command that exits with 0"),
    key("ready.shell", Type::Shell, "false", R, Run, "run `ready.cmd` by a shell"),
    key("ready.log", Type::Regex, "", R, Run, "regular expression that matches a line of output"),
    key("ready.notify", Type::True, "", R, Run, "`READY=1` on `$NOTIFY_SOCKET`"),
    key("ready.after", Type::Duration, "", R, Run, "alive this long"),
    key("ready.every", Type::Duration, "\"500ms\"", R, Run, "between probes"),
    key("ready.timeout", Type::Duration, "\"2s\"", R, Run, "of one probe"),
    key("ready.delay", Type::Duration, "\"0s\"", R, Run, "before the first probe"),
    key("ready.successes", Type::Int(1, 1_000), "1", R, Run, "in a row"),
    key("ready.failures", Type::Int(1, 1_000), "1", R, Run, "in a row"),
    key("ready.within", Type::Duration, "\"60s\"", R, Run, "else the start has failed"),
    table("health", Some("http"), R, Run, "whether a run still works: any one probe"),
    key("health.http", Type::Url, "", R, Run, "URL that answers 2xx or 3xx"),
    key("health.tcp", Type::Address, "", R, Run, "address that accepts: `host:port` or `unix:PATH`"),
    key("health.cmd", Type::Command, "", R, Run, "command that exits with 0"),
    key("health.shell", Type::Shell, "false", R, Run, "run `health.cmd` by a shell"),
    key("health.heartbeat", Type::Duration, "", R, Run, "longest silence between `WATCHDOG=1` on `$NOTIFY_SOCKET`"),
    key("health.via", Type::Word(&["notify"]), "\"notify\"", R, Run, "how heartbeats come"),
    key("health.every", Type::Duration, "\"10s\"", R, Run, "between probes"),
    key("health.timeout", Type::Duration, "\"5s\"", R, Run, "of one probe"),
    key("health.delay", Type::Duration, "\"0s\"", R, Run, "before the first probe"),
    key("health.successes", Type::Int(1, 1_000), "1", R, Run, "in a row, to be good again"),
    key("health.failures", Type::Int(1, 1_000), "3", R, Run, "in a row, to be bad"),
    key("health.action", Type::Word(&["restart", "alert"]), "\"restart\"", R, Run, "restart, or only tell"),
    // ── the end of a run ──
    table("stop", Some("timeout"), N, Run, "how a run is asked to end; KILL follows, always to the whole tree"),
    key("stop.signal", Type::Signal, "\"TERM\"", N, Run, "name of the signal"),
    key("stop.timeout", Type::Duration, "\"30s\"", N, Run, "then KILL"),
    key("stop.to", Type::Word(&["main", "children", "group", "all"]), "\"main\", with `shell` \"group\"", N, Run, "who gets the signal"),
    key("stop.cmd", Type::Command, "", N, Run, "run this instead of sending the signal"),
    table("exit", None, L, Run, "what ends mean: codes, or names of signals"),
    key("exit.ok", Type::Ends, "[0]", L, Run, "success"),
    key("exit.fatal", Type::Ends, "[]", L, Run, "do not try again"),
    key("exit.snooze", Type::Ends, "", L, Use::Refused("only queued tasks are put off: [queue.X]"), "later, not counted"),
    table("retry", Some("attempts"), L, Run, "pace and number of new attempts"),
    key("retry.attempts", Type::Count(1), "\"unlimited\"", L, Run, "consecutive failed attempts, the first included, before giving up"),
    key("retry.delay", Type::Durations, "\"100ms\"", L, Run, "pause after the first failure, or a list whose last entry repeats"),
    key("retry.factor", Type::Number(1.0, 1000.0), "2", L, Run, "multiplies per further failure; 1 is constant"),
    key("retry.increment", Type::Duration, "", L, Run, "adds instead of multiplying"),
    key("retry.max_delay", Type::Duration, "\"30s\"", L, Run, "cap"),
    key("retry.jitter", Type::Number(0.0, 1.0), "0.2", L, Run, "± share of the delay"),
    key("retry.reset_after", Type::Duration, "\"60s\"", L, Job, "a run that lived this long (after ready) forgets failures"),
    key("retry.crashes", Type::Count(1), "", L, Use::Refused("only queued tasks are parked: [queue.X]"), "ends by signal that park a queued task"),
    key("timeout", Type::Duration, "", L, Use::Refused("a job has no end; to replace old runs there will be `recycle.age`"), "longest life of a step or queued task"),
    key("keep_running", Type::Bool, "false", L, Run, "an orderly stop of the daemon leaves it running for the next daemon"),
    not_yet("on", "hooks"),
    key("description", Type::Text, "", L, Run, "free text"),
    key("meta", Type::Map, "{}", L, Run, "free table of texts: shown, searchable, no effect"),
    // ── jobs only ──
    key("instances", Type::Int(0, 100_000), "1", L, Job, "copies, numbered from 1"),
    key("start", Type::Start, "true", L, Job, "first wish of a new job"),
    not_yet("idle_stop", "stops a job that was started by a connection"),
    key("priority", Type::Int(-1_000_000_000, 1_000_000_000), "0", N, Job, "lower starts first, stops in reverse"),
    key("after", Type::After, "[]", N, Job, "names, or name → `started`, `ready`, `done`, `ended`; also orders the stop"),
    key("after_change", Type::Word(&["ignore", "restart", "stop"]), "\"ignore\"", L, Job, "when one of `after` restarts or goes"),
    key("start_spacing", Type::Duration, "\"0s\"", L, Job, "between starts of instances"),
    key("restart", Type::Word(&["always", "on-failure", "never"]), "\"always\"", L, Job, "which ends call for a new run; a stop by hand always holds"),
    table("flapping", None, L, Job, "crash loop: off unless given"),
    key("flapping.exits", Type::Int(1, 10_000), "5", L, Job, "unexpected exits …"),
    key("flapping.window", Type::Duration, "\"30s\"", L, Job, "… within this …"),
    key("flapping.pause", Type::Duration, "\"7s\"", L, Job, "… pause for this"),
    key("flapping.rounds", Type::Count(0), "5", L, Job, "pauses before it has failed"),
    key("flapping.scope", Type::Word(&["instance", "job"]), "\"instance\"", L, Job, "count per instance, or over all of the job"),
    key("essential", Type::Bool, "false", L, Job, "when it ends for good, the node (or `gaffer start`) stops and exits with its code"),
    table("reload", Some("how"), L, Job, RELOAD_DOC),
    key("reload.how", Type::Word(&["surge", "rolling", "restart", "signal"]), "\"rolling\"", L, Job, "new ones first · batch by batch · all at once · only a signal"),
    key("reload.signal", Type::Signal, "\"HUP\"", L, Job, "for `how = \"signal\"`"),
    key("reload.batch", Type::Batch, "1", L, Job, "instances at once, or a share"),
    not_yet("recycle", "planned replacement"),
    not_yet("watch", "reload when files change"),
    table("scale", None, L, Job, "bounds of the number of instances; they bind operators too"),
    key("scale.min", Type::Int(0, 100_000), "0", L, Job, "at least"),
    key("scale.max", Type::Int(1, 100_000), "", L, Job, "at most; 1 is a singleton"),
    not_yet("scale.on", "automatic scaling"),
    not_yet("scale.queue", "automatic scaling"),
    not_yet("scale.above", "automatic scaling"),
    not_yet("scale.below", "automatic scaling"),
    not_yet("scale.every", "automatic scaling"),
    not_yet("scale.cores", "automatic scaling"),
    not_yet("scale.cmd", "automatic scaling"),
    not_yet("scale.grow_after", "automatic scaling"),
    not_yet("scale.grow_by", "automatic scaling"),
    not_yet("scale.grow_cooldown", "automatic scaling"),
    not_yet("scale.shrink_after", "automatic scaling"),
    not_yet("scale.shrink_by", "automatic scaling"),
    not_yet("scale.shrink_cooldown", "automatic scaling"),
    not_yet("scale.headroom", "automatic scaling"),
    not_yet("scale.host_cpu", "automatic scaling"),
    not_yet("scale.free_memory", "automatic scaling"),
    not_yet("events", "events as lines on stdin"),
    // ── in files ──
    key("extends", Type::Name, "", L, File, "name of a `[template.T]` whose keys it takes over"),
    key("profiles", Type::Texts, "", L, File, "exists only under one of these profiles"),
    key("unset", Type::Texts, "[]", L, File, "removes what was inherited: `[\"health\", \"env.DEBUG\"]`"),
    key("session", Type::Name, "of the file", L, File, "session of this object"),
];

/// Keys of `[gaffer]`.
#[rustfmt::skip] // A table reads better as one.
pub(crate) const DAEMON: &[Key] = &[
    key("name", Type::Text, "host name", D, Run, "name of the node; dots are allowed"),
    key("labels", Type::Map, "{}", L, Run, "for `--label k=v`"),
    key("bind", Type::Texts, "[\"127.0.0.1:5000\"]", L, Run, "`host:port`, `[v6]:port`, `unix:PATH`; `[]` is the socket only"),
    key("socket", Type::Path, "in the runtime dir", D, Run, "control socket"),
    key("socket_owner", Type::Owner, "the daemon's", D, Run, "`user:group` of the control socket; the user may do all that the daemon can"),
    key("socket_mode", Type::Octal, "\"600\"", D, Run, "mode of the control socket; nothing for others. Whom it lets in may do all that the daemon can"),
    key("state_dir", Type::Path, "", D, Run, "store, shims, logs"),
    table("tls", None, L, Run, "HTTPS and WSS on all TCP addresses; the files are read again with the daemon's file"),
    key("tls.cert", Type::Path, "", L, Run, "PEM file of the certificate and its chain"),
    key("tls.key", Type::Path, "", L, Run, "PEM file of the private key"),
    key("tls.client_ca", Type::Path, "", L, Run, "PEM file of authorities: only clients with a certificate of one of them may connect"),
    key("require_token", Type::Bool, "false", L, Run, "refuse anonymous requests also from the daemon's own user"),
    key("allow_hosts", Type::Texts, "own names", L, Run, "`Host` allow-list"),
    key("allow_origins", Type::Texts, "[]", L, Run, "`Origin` allow-list"),
    key("backlog", Type::Int(1, 65_535), "1024", D, Run, "of the listeners"),
    key("advertise", Type::Text, "from `bind`", L, Run, "URL under which other nodes reach this one"),
    key("lookup", Type::Texts, "[]", L, Run, "URLs of look-up services (`http://HOST:PORT`) that are told what runs here"),
    key("queue_store", Type::Text, "\"sqlite\"", D, Run, "`sqlite` is a file in the state dir; `postgres://USER@HOST/DATABASE` is shared by nodes"),
    key("log_level", Type::Word(&["error", "warn", "info", "debug", "trace"]), "\"info\"", L, Run, "how much the daemon says"),
    key("log_to", Type::LogTo, "\"stderr\"", L, Run, "`stderr`, `journal`, `syslog`, `file:PATH`"),
    key("logs_total", Type::SizeOrShare, "\"10%\"", L, Run, "budget of all logs, as a size or a share of the disk; oldest segments go first, never those being written"),
    table("history", None, L, Run, "death records kept per job"),
    key("history.runs", Type::Int(1, 1_000_000), "200", L, Run, "so many"),
    key("history.age", Type::Duration, "\"30d\"", L, Run, "so old"),
    key("stats_every", Type::Duration, "\"1s\"", L, Run, "a run is sampled at most so often"),
    key("start_spacing", Type::Duration, "\"0s\"", L, Run, "pause between the starts of different jobs"),
    key("start_at_once", Type::Int(1, 100_000), "2 × cores", L, Run, "starts in progress at once"),
    key("stop_within", Type::Duration, "\"90s\"", L, Run, "total time of an orderly shutdown; what is left then is killed"),
    key("containment", Type::Word(&["auto", "require", "off"]), "\"auto\"", D, Run, "cgroups: use if possible, insist, never"),
    key("shim", Type::Word(&["session", "job", "run"]), "\"session\"", N, Run, "how runs are grouped under shims"),
    not_yet("web", "the web page"),
    key("legacy_api", Type::Bool, "true", L, Run, "the HTTP API of gaffer 0.5 and 0.4, with its channels"),
    key("metrics", Type::Bool, "true", L, Run, "`/metrics`"),
    key("legacy_origins", Type::Texts, "[]", L, Run, "web origins that may use the API of gaffer 0.5 and get CORS headers"),
    key("plugins_dir", Type::Path, "`plugins` beside the file", D, Run, "folder of plugins; see docs/plugins.md"),
    key("pidfile", Type::Path, "", D, Run, "where the pid is written"),
    key("umask", Type::Octal, "\"022\"", D, Run, "of the daemon"),
    not_yet("statsd", "statistics by UDP"),
    key("shell", Type::Path, "\"/bin/sh\"", N, Run, "what `shell = true` is, for all jobs of the daemon"),
];

/// Keys of `[webhook.X]`.
#[rustfmt::skip] // A table reads better as one.
pub(crate) const WEBHOOK: &[Key] = &[
    key("url", Type::Text, "", L, Run, "where events are posted; required"),
    key("events", Type::Texts, "[\"*\"]", L, Run, "names of events, `*` is one part or, at the end, the rest; with `format = \"legacy\"` topics of the original"),
    key("targets", Type::Texts, "[\"*\"]", L, Run, "jobs: `web`, `shop.web`, `shop.*`; `*` also takes events of no job"),
    key("secret_file", Type::Path, "", L, Run, "file with the key of the signature; read for every delivery, never shown or stored"),
    key("headers", Type::Map, "{}", L, Run, "further headers; `file:PATH` is what the file says"),
    key("timeout", Type::Duration, "\"10s\"", L, Run, "of one attempt"),
    table("retry", Some("attempts"), L, Run, "pace and number of attempts"),
    key("retry.attempts", Type::Count(1), "10", L, Run, "the first included; then the event is given up"),
    key("retry.delay", Type::Durations, "\"1s\"", L, Run, "pause after the first failure, or a list whose last entry repeats"),
    key("retry.factor", Type::Number(1.0, 1000.0), "2", L, Run, "multiplies per further failure; 1 is constant"),
    key("retry.increment", Type::Duration, "", L, Run, "adds instead of multiplying"),
    key("retry.max_delay", Type::Duration, "\"5m\"", L, Run, "cap"),
    key("retry.jitter", Type::Number(0.0, 1.0), "0.2", L, Run, "± share of the delay"),
    key("format", Type::Word(&["v1", "legacy"]), "\"v1\"", L, Run, "what is sent: the event of `/v1/events`, or the original's message"),
    key("session", Type::Name, "of the file", L, Run, "session of this object"),
];

/// Keys of `[node.X]`.
#[rustfmt::skip] // A table reads better as one.
pub(crate) const NODE: &[Key] = &[
    key("url", Type::Text, "", L, Run, "where it is: `https://HOST:PORT`, `http://HOST:PORT`, `unix:PATH` or `ssh://USER@HOST`; required"),
    key("token_file", Type::Path, "", L, Run, "file with the token that it takes; no other node is given it, and it leaves this machine by TLS only"),
    key("ca", Type::Path, "the system's", L, Run, "PEM file of the authorities that its certificate is of"),
    key("labels", Type::Map, "what the node says", L, Run, "to choose it by, with `--label`"),
];

/// Keys of `plugin.toml`.
#[rustfmt::skip] // A table reads better as one.
pub(crate) const PLUGIN: &[Key] = &[
    key("name", Type::Text, "", D, Run, "name of its folder; required"),
    key("version", Type::Text, "", D, Run, "free text; another one restarts it"),
    key("description", Type::Text, "", D, Run, "free text"),
    key("requires", Type::Texts, "[]", D, Run, "plugins that must be there"),
    key("command", Type::Command, "", D, Run, "the program, run in the plugin's folder; without it there are pages only"),
    key("events", Type::Texts, "[\"*\"]", D, Run, "names of the events that it is sent"),
    key("scope", Type::Word(&["read", "operate", "admin"]), "\"read\"", D, Run, "what its token allows"),
    key("for", Type::Texts, "[\"*\"]", D, Run, "jobs that its token is for: `shop`, `shop.web`, `shop.*`"),
];

/// Tables and keys at the top of a file. Their contents are looked at elsewhere.
#[rustfmt::skip] // A table reads better as one.
pub(crate) const TOP: &[Key] = &[
    key("session", Type::Name, "\"default\"", L, Run, "session of everything in this file"),
    key("include", Type::Paths, "[]", L, Run, "files or globs, relative to this file"),
    key("env_file", Type::Paths, "[]", R, Run, "files of variables for all objects of the file; `\"?path\"` may be missing"),
    key("env", Type::Env, "{}", R, Run, "variables for all objects of the file; the same as `[defaults.env]`"),
    key("vars", Type::Map, "{}", L, Run, "`{{vars.x}}`; `-E x=v` wins"),
    table("defaults", None, L, Run, "inherited by all objects of the file; `[defaults.job]` by jobs, `[defaults.step]` by steps, `[defaults.queue]` by queues"),
    table("template", None, L, Run, "`[template.T]`: taken over by `extends = \"T\"`"),
    table("profile", None, L, Run, "`[profile.P]`: the whole tree again, laid over when it is selected"),
    table("gaffer", None, D, Run, "the daemon"),
    table("job", None, L, Run, "`[job.X]`"),
    table("task", None, L, Run, "`[task.X]`: work that runs to its end, with `[task.X.step.Y]`; see docs/tasks.md"),
    table("queue", None, L, Run, "`[queue.X]`: a durable backlog of tasks, with `[queue.X.kind.K]`; see docs/queues.md"),
    table("schedule", None, L, Run, "`[schedule.X]`: a calendar or interval that starts a task, pushes to a queue, or acts on a job; see docs/schedules.md"),
    not_yet("socket", "shared sockets"),
    table("webhook", None, L, Run, "`[webhook.X]`: events are sent by HTTP; see docs/webhooks.md"),
    table("node", None, L, Run, "`[node.X]`: another node; see docs/lookup.md"),
];

/// Old and other programs' names, with what to write instead.
pub(crate) const OLD: &[(&str, &str)] = &[
    ("numprocesses", "instances"),
    ("numprocs", "instances"),
    ("replicas", "instances"),
    ("count", "instances"),
    ("singleton", "scale.max = 1"),
    ("command", "cmd"),
    ("cmdline", "cmd"),
    ("exec", "cmd"),
    ("args", "cmd = [\"program\", \"arguments\"]"),
    ("shell_args", "shell"),
    ("executable", "argv0"),
    ("working_dir", "cwd"),
    ("workdir", "cwd"),
    ("directory", "cwd"),
    ("dir", "cwd"),
    ("environment", "env"),
    ("env_files", "env_file"),
    ("os_env", "env_inherit = \"all\""),
    ("copy_env", "env_inherit = \"all\""),
    ("env_user_vars", "env_inherit"),
    ("uid", "user"),
    ("gid", "group"),
    ("rlimit", "rlimits"),
    ("minfds", "rlimits.nofile"),
    ("minprocs", "rlimits.nproc"),
    ("autostart", "start"),
    ("on_demand", "start"),
    ("activate", "start"),
    ("warmup_delay", "start_spacing"),
    ("start_delay", "start_spacing"),
    ("depends_on", "after"),
    ("requires", "after"),
    ("mandatory", "requires"),
    ("order", "priority"),
    ("autorestart", "restart"),
    ("respawn", "restart"),
    ("restart_policy", "restart"),
    ("exitcodes", "exit.ok"),
    ("ok_codes", "exit.ok"),
    ("startretries", "retry.attempts"),
    ("max_attempts", "retry.attempts"),
    ("tries", "retry.attempts"),
    ("max_retry", "flapping.rounds"),
    ("retry_in", "flapping.pause"),
    ("flapping.attempts", "flapping.exits"),
    ("attempts", "retry.attempts"),
    ("base", "retry.delay"),
    ("max", "retry.max_delay"),
    ("burst", "flapping.exits"),
    ("check_delay", "retry.delay"),
    ("backoff", "retry.delay"),
    ("startsecs", "ready.after"),
    ("min_uptime", "ready.after"),
    ("early_exit", "ready.after"),
    ("readiness", "ready"),
    ("liveness", "health"),
    ("healthcheck", "health"),
    ("heartbeat", "health.heartbeat"),
    ("graceful_timeout", "stop.timeout"),
    ("stopwaitsecs", "stop.timeout"),
    ("stop_timeout", "stop.timeout"),
    ("kill_timeout", "stop.timeout"),
    ("stop_signal", "stop.signal"),
    ("stopsignal", "stop.signal"),
    ("kill_signal", "stop.signal"),
    ("signal_scope", "stop.to"),
    ("stop_children", "stop.to = \"all\""),
    ("stopasgroup", "stop.to = \"group\""),
    ("killasgroup", "stop.to; KILL always goes to the whole tree"),
    ("kill_scope", "stop.to; KILL always goes to the whole tree"),
    ("detach", "keep_running"),
    ("use_papa", "keep_running"),
    ("send_hup", "reload = \"signal\""),
    ("redirect_output", "logs.labels"),
    ("redirect_stderr", "logs.stderr = \"stdout\""),
    ("redirect_input", "stdin = \"pipe\""),
    ("custom_streams", "streams"),
    ("stdout", "logs.stdout"),
    ("stderr", "logs.stderr"),
    ("log", "logs"),
    ("stdout_logfile", "logs.to"),
    ("stderr_logfile", "logs.to"),
    ("use_sockets", "sockets"),
    ("hooks", "on"),
    ("max_age", "recycle.age"),
    ("memory", "limits.memory"),
    ("collection", "session"),
    ("require_key", "require_token"),
    ("broadcast_address", "advertise"),
    ("lookupd_address", "lookup"),
    ("error_log", "log_to"),
    ("plugin_dir", "plugins_dir"),
    ("endpoint", "bind"),
    ("program", "job"),
    ("process", "job"),
    ("watcher", "job"),
    ("jobs", "job"),
    ("templates", "template"),
    ("profiles", "profile"),
    ("default", "defaults"),
    ("daemon", "gaffer"),
    ("gafferd", "gaffer"),
    ("tasks", "task"),
    ("queues", "queue"),
    ("step", "task"),
    ("processes", "step"),
    ("constraints", "order"),
    ("max_concurrency", "concurrency"),
    ("max_failures", "failures"),
    ("max_failures", "retry.attempts"),
    ("finalization_wait", "finalize_timeout"),
    ("ephemeral", "background"),
    ("min_duration", "retry.delay"),
    ("needs", "after"),
];

/// The key at a dotted path.
pub(crate) fn find(keys: &'static [Key], path: &str) -> Option<&'static Key> {
    keys.iter().find(|key| key.path == path)
}

/// Class of a change at a path of a job, also inside maps (`env.LOG`).
pub(crate) fn class_of(path: &str) -> ChangeClass {
    let mut path = path;
    loop {
        if let Some(key) = find(JOB, path) {
            return key.class;
        }
        match path.rsplit_once('.') {
            Some((above, _)) => path = above,
            // Written by gaffer itself, like the layers under `env`.
            None => return R,
        }
    }
}

/// What to write instead of an unknown key: an old name's new one, else the most similar.
pub(crate) fn hint(keys: &'static [Key], prefix: &str, name: &str) -> String {
    let whole = format!("{prefix}{name}");
    // Today's name in a wrong case, or with dashes, is nearer than any old name.
    let plain = whole.replace('-', "_").to_lowercase();
    if let Some(key) = keys.iter().find(|key| key.path == plain && plain != whole) {
        return format!("use `{}`", key.path);
    }
    let known = |new: &str| {
        let first = new.split([' ', ';']).next().unwrap_or_default();
        keys.iter().any(|key| key.path == first)
    };
    let last = plain.rsplit('.').next().unwrap_or_default();
    let called = |name: &str| OLD.iter().find(|(old, new)| *old == name && known(new));
    let old = called(&plain).or_else(|| called(last));
    if let Some((_, new)) = old {
        return match new.split_once("; ") {
            Some((new, remark)) => format!("use `{new}`; {remark}"),
            None => format!("use `{new}`"),
        };
    }
    let below = |key: &&Key| {
        let rest = key.path.strip_prefix(prefix)?;
        (!rest.contains('.')).then_some(rest)
    };
    let siblings: Vec<&str> = keys.iter().filter_map(|key| below(&key)).collect();
    if let Some(near) = crate::suggest::nearest(name, siblings.iter().copied()) {
        return format!("did you mean `{prefix}{near}`?");
    }
    // The right key in the wrong place: `signal` instead of `stop.signal`.
    let deeper: Vec<&str> = keys
        .iter()
        .filter(|key| key.path.rsplit('.').next() == Some(name))
        .map(|key| key.path)
        .collect();
    match deeper[..] {
        [] if prefix.is_empty() => String::new(),
        [] => format!("there are {}", siblings.join(", ")),
        [one] => format!("did you mean `{one}`?"),
        [one, two, ..] => format!("did you mean `{one}` or `{two}`?"),
    }
}
