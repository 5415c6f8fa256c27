//! The part of a job that its runs are born with: program, environment, user, limits, ports.

use crate::kind;
use crate::merge::is_shell;
use crate::node::{Item, Node, Span, Table};
use crate::resolve::{Named, Resolver};
use crate::template::{Piece, Reference, pieces};
use gaffer_core::job::{EnvInherit, EnvLayer, Launch, Output, Port, Stdin, User};
use std::collections::BTreeMap;
use std::path::Path;

/// Variables that gaffer itself sets, besides ports.
pub(crate) const OWN_VARIABLES: &[&str] = &[
    "INSTANCE",
    "GAFFER_NODE",
    "GAFFER_SESSION",
    "GAFFER_JOB",
    "GAFFER_INSTANCE",
    "GAFFER_RUN",
    "GAFFER_ATTEMPT",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "GAFFER_PID",
];
/// And in steps.
/// Set in runs of queues.
pub(crate) const QUEUE_VARIABLES: &[&str] = &[
    "GAFFER_QUEUE",
    "GAFFER_TASK",
    "GAFFER_KIND",
    "GAFFER_TOKEN",
    "GAFFER_PAYLOAD",
    "GAFFER_PAYLOAD_FILE",
];
pub(crate) const STEP_VARIABLES: &[&str] = &["GAFFER_TASK", "GAFFER_STEP", "GAFFER_OUTPUT"];
/// What `env_inherit = "base"` takes from the daemon, as patterns.
pub(crate) const BASE_VARIABLES: &[&str] = &["PATH", "LANG", "LC_*", "TZ"];
/// These follow `user`.
pub(crate) const USER_VARIABLES: &[&str] = &["HOME", "USER", "LOGNAME", "SHELL"];

/// What to run: words, or one script.
fn what_to_run(resolver: &mut Resolver<'_, '_>) -> Vec<String> {
    let table = resolver.table;
    let scripted = is_shell(table.get("shell"));
    match table.get("cmd") {
        Some(node) => {
            if scripted && node.as_list().is_some() {
                resolver.error(
                    node.span,
                    "cmd",
                    "`shell` runs a script: `cmd` must be one text",
                    "write cmd = \"…\"",
                );
            }
            command(resolver, node, scripted, "cmd").unwrap_or_default()
        }
        None => {
            let name = resolver.name;
            resolver.error(
                Span::NONE,
                "cmd",
                format!(
                    "{} `{name}` has no `cmd`",
                    match resolver.task {
                        Some(named) if named.queue => "queue",
                        Some(_) => "step",
                        None => "job",
                    }
                ),
                "write what to run: cmd = \"…\"",
            );
            Vec::new()
        }
    }
}

/// Everything of the launch; what is wrong goes to the report.
pub(crate) fn launch(resolver: &mut Resolver<'_, '_>) -> Launch {
    let table = resolver.table;
    let mut launch = Launch::of(what_to_run(resolver));
    launch.shell = shell(table.get("shell"));
    launch.argv0 = text(resolver, "argv0");
    launch.wrap = match table.get("wrap") {
        Some(node) => command(resolver, node, false, "wrap").unwrap_or_default(),
        None => Vec::new(),
    };
    launch.cwd = cwd(resolver);
    launch.env_inherit = inherit(table.get("env_inherit"));
    launch.env = env(resolver);
    launch.unread = resolver.unread.map(str::to_owned);
    launch.user = user(resolver);
    launch.umask = table
        .get("umask")
        .and_then(|node| kind::octal(node).ok())
        .unwrap_or(0o022);
    launch.nice = small(table.get("nice"));
    launch.oom_score = small(table.get("oom_score"));
    let named_user = table.get("user").is_some();
    launch.no_new_privs = table
        .get("no_new_privs")
        .and_then(Node::as_bool)
        .unwrap_or(named_user);
    launch.rlimits = table
        .get("rlimits")
        .and_then(|node| crate::rlimit::rlimits(node).ok())
        .unwrap_or_default();
    launch.limits = table
        .get_table("limits")
        .and_then(crate::limits::limits)
        .map(Box::new);
    ports(resolver, &mut launch);
    launch.stdin = match table.get("stdin").and_then(Node::as_str) {
        Some("pipe") => Stdin::Pipe,
        Some(word) => match word.strip_prefix("file:") {
            Some(path) => Stdin::File(path.to_owned()),
            None => Stdin::Null,
        },
        None => Stdin::Null,
    };
    launch.pty = table.get("pty").and_then(Node::as_bool).unwrap_or(false);
    let streams = table.get("streams").map(Node::texts).unwrap_or_default();
    launch.streams = streams.into_iter().map(|(label, _)| label.to_owned()).collect();
    launch.stdout = output(table.at("logs.stdout"));
    launch.stderr = output(table.at("logs.stderr"));
    check_templates(resolver, &launch);
    launch
}

fn small(node: Option<&Node>) -> i32 {
    match node.map(|node| &node.item) {
        Some(Item::Int(number)) => i32::try_from(*number).unwrap_or(0),
        _ => 0,
    }
}

fn output(node: Option<&Node>) -> Output {
    match node.and_then(Node::as_str) {
        Some("null") => Output::Null,
        Some("stdout") => Output::Stdout,
        _ => Output::Keep,
    }
}

fn text(resolver: &Resolver<'_, '_>, key: &str) -> Option<String> {
    resolver.table.get(key).and_then(Node::as_str).map(str::to_owned)
}

/// Words of a command, or its one script.
pub(crate) fn command(
    resolver: &mut Resolver<'_, '_>,
    node: &Node,
    scripted: bool,
    key: &str,
) -> Option<Vec<String>> {
    let words = match &node.item {
        Item::Str(script) if scripted => vec![script.clone()],
        // Of a PUT: files have been split when they were merged.
        Item::Str(text) => match crate::template::split_words(text) {
            Ok(words) => words,
            Err(why) => {
                resolver.error(node.span, key, format!("`{key}` cannot be split: {why}"), "");
                return None;
            }
        },
        Item::List(list) => list.iter().filter_map(Node::as_str).map(str::to_owned).collect(),
        _ => return None,
    };
    if words.first().is_none_or(|word| word.trim().is_empty()) {
        resolver.error(
            node.span,
            key,
            format!("`{key}` is empty"),
            "write the program to run",
        );
        return None;
    }
    Some(words)
}

/// The shell that runs a script, if one does.
pub(crate) fn shell(node: Option<&Node>) -> Option<String> {
    // An empty name is `true`: the daemon's shell, put in when a run starts.
    kind::shell(node?).ok()?
}

fn cwd(resolver: &mut Resolver<'_, '_>) -> String {
    let Some(node) = resolver.table.get("cwd") else {
        return resolver.world.host.current_dir().to_string_lossy().into_owned();
    };
    let cwd = node.as_str().unwrap_or("/").to_owned();
    let (span, named) = (node.span, node.span != resolver.span);
    let is_plain = matches!(pieces(&cwd, false).as_deref(), Ok(list) if list.iter().all(|piece| matches!(piece, Piece::Text(_) | Piece::Literal(_))));
    if !is_plain {
        return cwd;
    }
    let path = plain_text(&cwd);
    if !path.starts_with('/') {
        resolver.error(span, "cwd", format!("`cwd` is {path}, which is not absolute"), "");
    } else if !resolver.world.is_dir(Path::new(&path)) {
        let help = match () {
            () if path.contains('~') => "nothing but `$HOME` stands for the home folder",
            () if named => "it must exist when the file is used",
            () => "",
        };
        resolver.error(
            span,
            "cwd",
            format!("`cwd` is {path}, where there is no folder"),
            help,
        );
    }
    cwd
}

/// A text without templates, its escapes taken back.
fn plain_text(text: &str) -> String {
    let Ok(list) = pieces(text, false) else {
        return text.to_owned();
    };
    list.into_iter()
        .map(|piece| match piece {
            Piece::Text(text) => text.to_owned(),
            Piece::Literal(text) => format!("{{{{{text}}}}}"),
            _ => String::new(),
        })
        .collect()
}

fn inherit(node: Option<&Node>) -> EnvInherit {
    match node.map(|node| &node.item) {
        Some(Item::Str(word)) if word == "all" => EnvInherit::All,
        Some(Item::Str(word)) if word == "none" => EnvInherit::None,
        Some(Item::List(_)) => {
            let names = node.map(Node::texts).unwrap_or_default();
            EnvInherit::Patterns(names.into_iter().map(|(name, _)| name.to_owned()).collect())
        }
        _ => EnvInherit::Base,
    }
}

fn env(resolver: &Resolver<'_, '_>) -> Vec<EnvLayer> {
    let mut layers: Vec<EnvLayer> = resolver
        .layers
        .iter()
        .map(|layer| layer.variables.clone())
        .collect();
    let own: EnvLayer = resolver
        .table
        .get_table("env")
        .into_iter()
        .flat_map(Table::in_order_by_name)
        .filter_map(|(name, entry)| Some((name.to_owned(), kind::env_value(&entry.node)?)))
        .collect();
    if !own.is_empty() {
        layers.push(own);
    }
    layers
}

fn ports(resolver: &mut Resolver<'_, '_>, launch: &mut Launch) {
    let table = resolver.table;
    launch.port = table.get("port").and_then(|node| kind::port(node).ok());
    if let Some(ports) = table.get_table("ports") {
        let read = |(name, entry): (&str, &crate::node::Entry)| {
            Some((name.to_owned(), kind::port(&entry.node).ok()?))
        };
        launch.ports = ports.iter().filter_map(read).collect();
    }
    let instances = match table.get("instances").map(|node| &node.item) {
        Some(Item::Int(number)) => *number,
        _ => 1,
    };
    let all = launch
        .port
        .iter()
        .map(|port| ("port", port))
        .chain(launch.ports.iter().map(|(name, port)| (name.as_str(), port)));
    let beyond: Vec<(String, u16)> = all
        .filter_map(|(name, port)| match port {
            Port::Fixed(port) if i64::from(*port) + instances - 1 > 65_535 => Some((name.to_owned(), *port)),
            _ => None,
        })
        .collect();
    for (name, port) in beyond {
        let key = if name == "port" {
            name
        } else {
            format!("ports.{name}")
        };
        let span = table.at(&key).map_or(Span::NONE, |node| node.span);
        let message = format!("`{key}` is {port}, and instance {instances} would get a port beyond 65535");
        resolver.error(span, &key, message, "");
    }
    let mut names: BTreeMap<String, &str> = BTreeMap::new();
    for name in launch.ports.keys() {
        if let Some(other) = names.insert(port_variable(name), name) {
            let variable = port_variable(name);
            let message = format!("ports `{other}` and `{name}` would both be ${variable}");
            resolver.error(Span::NONE, "ports", message, "");
        }
    }
}

/// `PORT_ADMIN` of `admin`.
pub(crate) fn port_variable(name: &str) -> String {
    format!("PORT_{}", name.to_uppercase().replace('-', "_"))
}

/// Somebody could not be found; it has been told.
struct Unknown;

/// Who runs it; none is the daemon's own user.
fn user(resolver: &mut Resolver<'_, '_>) -> Option<User> {
    let table = resolver.table;
    let node = ["user", "group", "groups"]
        .iter()
        .find_map(|key| table.get(key))?;
    match other_user(resolver) {
        Ok(user) => user,
        Err(Unknown) => {
            // A job that names a user must never run as root because of a mistake.
            if !resolver.report.has_errors() {
                resolver.error(node.span, "user", "the user of the job cannot be found out", "");
            }
            None
        }
    }
}

fn other_user(resolver: &mut Resolver<'_, '_>) -> Result<Option<User>, Unknown> {
    let table = resolver.table;
    let own_uid = resolver.world.host.own_uid();
    let (mut user, span) = match table.get("user") {
        None => {
            let own = resolver.world.user(&own_uid.to_string());
            let unnamed = User {
                name: own_uid.to_string(),
                uid: own_uid,
                gid: resolver.world.host.own_gid(),
                groups: Vec::new(),
                home: "/".to_owned(),
                shell: "/bin/sh".to_owned(),
            };
            (own.unwrap_or(unnamed), Span::NONE)
        }
        Some(node) => (named_user(resolver, node).ok_or(Unknown)?, node.span),
    };
    if let Some(node) = table.get("group") {
        let name = kind::user(node).map_err(|_| Unknown)?;
        user.gid = group(resolver, &name, node.span, "group").ok_or(Unknown)?;
    }
    if let Some(node) = table.get("groups") {
        let mut groups = Vec::new();
        for (name, span) in kind::users(node).map_err(|_| Unknown)? {
            groups.push(group(resolver, &name, span, "groups").ok_or(Unknown)?);
        }
        groups.sort_unstable();
        groups.dedup();
        user.groups = groups;
    }
    let stored = resolver.world.host.is_store();
    if own_uid != 0 && !stored {
        if user.uid != own_uid {
            let help = "start gafferd as root, or leave `user` out";
            let message = format!(
                "only root may run a job as `{}`: the daemon is user {own_uid}",
                user.name
            );
            resolver.error(span, "user", message, help);
        } else if user.gid != resolver.world.host.own_gid() || table.get("groups").is_some() {
            let message = "only root may choose the groups of a job";
            resolver.error(span, "group", message, "start gafferd as root, or leave them out");
        } else {
            // The daemon's own user: nothing has to change, and nothing could.
            return Ok(None);
        }
    }
    if stored && own_uid != 0 && user.uid == own_uid {
        return Ok(None);
    }
    Ok(Some(user))
}

/// By name or id. In the store's text the answer of then is written beside the name: it counts, so that a
/// definition means the same after a restart, also when the user has gone.
fn named_user(resolver: &mut Resolver<'_, '_>, node: &Node) -> Option<User> {
    let name = kind::user(node).ok()?;
    if resolver.world.host.is_store()
        && let Some(user) = resolver.table.get_table("run_as").and_then(run_as)
        && resolver.table.at("run_as.name").and_then(Node::as_str) == Some(&name)
    {
        return Some(user);
    }
    if let Some(user) = resolver.world.user(&name) {
        return Some(user);
    }
    if let Ok(uid) = name.parse::<u32>() {
        if let Some(node) = resolver.table.get("group") {
            let gid = group(resolver, &kind::user(node).ok()?, node.span, "group")?;
            return Some(User {
                name,
                uid,
                gid,
                groups: Vec::new(),
                home: "/".to_owned(),
                shell: "/bin/sh".to_owned(),
            });
        }
        resolver.error(
            node.span,
            "user",
            format!("user {uid} has no name and no group here"),
            "write `group` too",
        );
        return None;
    }
    resolver.error(
        node.span,
        "user",
        format!("there is no user `{name}` on this machine"),
        "create it, or name another one",
    );
    None
}

/// The answer that is kept with a stored definition.
fn run_as(table: &Table) -> Option<User> {
    let id = |node: &Node| match node.item {
        Item::Int(id) => u32::try_from(id).ok().filter(|&id| id != u32::MAX),
        _ => None,
    };
    let text = |key: &str| Some(table.get(key)?.as_str()?.to_owned());
    Some(User {
        name: text("user")?,
        uid: id(table.get("uid")?)?,
        gid: id(table.get("gid")?)?,
        groups: table.get("groups")?.as_list()?.iter().filter_map(id).collect(),
        home: text("home")?,
        shell: text("shell")?,
    })
}

fn group(resolver: &mut Resolver<'_, '_>, name: &str, span: Span, key: &str) -> Option<u32> {
    if let Ok(gid) = name.parse::<u32>() {
        return Some(gid);
    }
    let found = resolver.world.host.group_named(name).map(|group| group.gid);
    let kept = || {
        let frozen = resolver.table.get_table("run_as").and_then(run_as)?;
        (resolver.world.host.is_store() && key == "group").then_some(frozen.gid)
    };
    let found = found.or_else(kept);
    if found.is_none() {
        resolver.error(
            span,
            key,
            format!("there is no group `{name}` on this machine"),
            "create it, or name another one",
        );
    }
    found
}

/// Looks at all texts that are filled in at the start of a run.
fn check_templates(resolver: &mut Resolver<'_, '_>, launch: &Launch) {
    let known = Known::of(launch, resolver.task);
    let table = resolver.table;
    let scripted = launch.shell.is_some();
    for (key, scripted) in [
        ("cmd", scripted),
        ("wrap", false),
        ("argv0", false),
        ("cwd", false),
        ("stdin", false),
    ] {
        if let Some(node) = table.get(key) {
            check_node(resolver, node, key, scripted, &known);
        }
    }
    check_env(resolver, launch);
}

/// `$X` in a value is the layer below, not a neighbour in the same table.
fn check_env(resolver: &mut Resolver<'_, '_>, launch: &Launch) {
    let table = resolver.table;
    if let Some(at) = resolver.layers.iter().position(|layer| layer.from == "[env]") {
        let below = Launch {
            env: launch.env[..at].to_vec(),
            ..launch.clone()
        };
        let known = Known::in_layer(&below, &launch.env[at], resolver.task);
        for (name, value) in &launch.env[at] {
            check_text(resolver, value, Span::NONE, &format!("env.{name}"), false, &known);
        }
    }
    let Some(own) = table.get_table("env") else { return };
    let Some((layer, below)) = launch.env.split_last() else {
        return;
    };
    let below = Launch {
        env: below.to_vec(),
        ..launch.clone()
    };
    let known = Known::in_layer(&below, layer, resolver.task);
    for (name, entry) in own.iter() {
        check_node(resolver, &entry.node, &format!("env.{name}"), false, &known);
    }
}

/// Looks at a text of a probe.
pub(crate) fn check_template(resolver: &mut Resolver<'_, '_>, node: &Node, key: &str, scripted: bool) {
    let mut launch = Launch::of(Vec::new());
    ports_only(resolver.table, &mut launch);
    launch.env_inherit = inherit(resolver.table.get("env_inherit"));
    launch.env = env(resolver);
    launch.unread = resolver.unread.map(str::to_owned);
    check_node(resolver, node, key, scripted, &Known::of(&launch, resolver.task));
}

fn ports_only(table: &Table, launch: &mut Launch) {
    launch.port = table.get("port").and_then(|node| kind::port(node).ok());
    if let Some(ports) = table.get_table("ports") {
        launch.ports = ports
            .iter()
            .filter_map(|(name, entry)| Some((name.to_owned(), kind::port(&entry.node).ok()?)))
            .collect();
    }
}

/// What a run will know.
struct Known<'a> {
    launch: &'a Launch,
    port_variables: Vec<String>,
    /// Variables of the layer in hand, whose values do not see each other.
    neighbours: &'a [(String, String)],
    task: Option<&'a Named>,
}

impl<'a> Known<'a> {
    fn of(launch: &'a Launch, task: Option<&'a Named>) -> Known<'a> {
        let mut port_variables: Vec<String> = launch.ports.keys().map(|name| port_variable(name)).collect();
        port_variables.extend(launch.port.map(|_| "PORT".to_owned()));
        Known {
            launch,
            port_variables,
            neighbours: &[],
            task,
        }
    }

    fn in_layer(below: &'a Launch, layer: &'a EnvLayer, task: Option<&'a Named>) -> Known<'a> {
        Known {
            neighbours: layer,
            ..Known::of(below, task)
        }
    }

    /// Could this variable have a value?
    fn variable(&self, name: &str) -> bool {
        let inherited = match &self.launch.env_inherit {
            EnvInherit::All => true,
            EnvInherit::None => false,
            EnvInherit::Base => BASE_VARIABLES
                .iter()
                .any(|pattern| crate::source::wild(pattern, name)),
            EnvInherit::Patterns(patterns) => {
                patterns.iter().any(|pattern| crate::source::wild(pattern, name))
            }
        };
        inherited
            // What could not be read may hold it.
            || self.launch.unread.is_some()
            || OWN_VARIABLES.contains(&name)
            || (self.task.is_some_and(|task| !task.queue) && STEP_VARIABLES.contains(&name))
            || (self.task.is_some_and(|task| task.queue) && QUEUE_VARIABLES.contains(&name))
            || USER_VARIABLES.contains(&name)
            || self.port_variables.iter().any(|known| known == name)
            || self.launch.env.iter().flatten().any(|(known, _)| known == name)
    }

    /// Is this a reference that a start can fill in? The error is a sentence with its hint.
    fn reference(&self, reference: &Reference<'_>) -> Result<(), (String, String)> {
        let name = reference.name;
        let text = format!("`{{{{{}}}}}`", reference.text);
        let is_number = match (name, self.task) {
            ("queue" | "kind" | "task.id", Some(task)) if task.queue => false,
            (_, Some(task)) if task.queue && (name == "payload" || name.starts_with("payload.")) => {
                if self.launch.shell.is_some() {
                    let help = "leave `shell` out, or read it from stdin";
                    return Err((
                        format!("{text} must not become a part of a script"),
                        help.to_owned(),
                    ));
                }
                true
            }
            (_, Some(task)) if task.queue => self.plain(name, &text)?,
            ("task.name" | "task.id" | "task.dir" | "step", Some(_)) => false,
            ("instance" | "job", Some(_)) => return Err(Known::unknown(name, &text, true)),
            (_, Some(task)) if name.starts_with("params.") || name.starts_with("steps.") => {
                of_task(task, name, &text)?
            }
            _ => self.plain(name, &text)?,
        };
        if !is_number && (reference.offset != 0 || reference.width != 0) {
            return Err((format!("{text} calculates with a text"), String::new()));
        }
        Ok(())
    }

    /// Is what a job may name a number?
    fn plain(&self, name: &str, text: &str) -> Result<bool, (String, String)> {
        Ok(match name {
            "session" | "job" | "node" | "run" | "user" => false,
            "instance" | "attempt" => true,
            _ => match name.split_once('.') {
                Some(("ports", port)) => {
                    if !self.launch.ports.contains_key(port) {
                        let near =
                            crate::suggest::nearest(port, self.launch.ports.keys().map(String::as_str));
                        let help = near.map_or("declare it in `ports`".to_owned(), |near| {
                            format!("did you mean {{{{ports.{near}}}}}?")
                        });
                        return Err((format!("{text} names a port that is not in `ports`"), help));
                    }
                    true
                }
                Some(("task" | "params" | "steps", _)) => {
                    return Err((
                        format!("{text} has a value in steps of tasks only"),
                        String::new(),
                    ));
                }
                Some(("sockets", _)) => {
                    return Err((format!("{text} is not yet supported"), String::new()));
                }
                Some(("payload", _)) => {
                    return Err((
                        format!("{text} has a value in workers of queues only"),
                        String::new(),
                    ));
                }
                _ => return Err(Known::unknown(name, text, self.task.is_some())),
            },
        })
    }

    fn unknown(name: &str, text: &str, in_step: bool) -> (String, String) {
        let shared = ["session", "node", "run", "attempt", "user", "profile", "file.dir"];
        let own: &[&str] = match in_step {
            false => &["job", "instance"],
            true => &["step", "task.name", "task.id", "task.dir"],
        };
        let known = shared.iter().chain(own).copied();
        let help = match crate::suggest::nearest(name, known) {
            Some(near) => format!("did you mean {{{{{near}}}}}?"),
            None => format!("literally it is written {{{{&{name}}}}}"),
        };
        (format!("{text} is not a reference"), help)
    }
}

/// Is a parameter, or something of an earlier step, a number? A text may be one: both may be calculated with.
fn of_task(task: &Named, name: &str, text: &str) -> Result<bool, (String, String)> {
    let near = |name: &str, all: &mut dyn Iterator<Item = &String>, otherwise: String| {
        let all: Vec<&str> = all.map(String::as_str).collect();
        match crate::suggest::nearest(name, all.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => otherwise,
        }
    };
    if let Some(param) = name.strip_prefix("params.") {
        if task.params.contains(param) {
            return Ok(true);
        }
        let help = near(
            param,
            &mut task.params.iter(),
            "declare it in `params` of the task".to_owned(),
        );
        return Err((
            format!("{text} names a parameter that the task does not have"),
            help,
        ));
    }
    let parts: Vec<&str> = name.splitn(4, '.').collect();
    let (step, output) = match parts[..] {
        ["steps", step, "outputs", output] => (step, Some(output)),
        ["steps", step, "exit_code"] => (step, None),
        _ => {
            let help = "write {{steps.STEP.outputs.NAME}} or {{steps.STEP.exit_code}}";
            return Err((format!("{text} is not a reference"), help.to_owned()));
        }
    };
    let Some(outputs) = task.outputs.get(step) else {
        let help = near(step, &mut task.outputs.keys(), String::new());
        return Err((format!("{text} names a step that the task does not have"), help));
    };
    if let Some(output) = output
        && !outputs.contains(output)
    {
        let help = near(
            output,
            &mut outputs.iter(),
            format!("declare it: outputs = [\"{output}\"]"),
        );
        return Err((
            format!("{text} names an output that step `{step}` does not have"),
            help,
        ));
    }
    if !task.before.contains(step) {
        let help = format!("write after = [\"{step}\"]");
        return Err((
            format!("{text} has no value: this step does not wait for the success of `{step}`"),
            help,
        ));
    }
    Ok(true)
}

fn check_node(resolver: &mut Resolver<'_, '_>, node: &Node, key: &str, scripted: bool, known: &Known<'_>) {
    match &node.item {
        Item::Str(text) => check_text(resolver, text, node.span, key, scripted, known),
        Item::List(list) => list
            .iter()
            .for_each(|one| check_node(resolver, one, key, scripted, known)),
        _ => {}
    }
}

fn check_text(
    resolver: &mut Resolver<'_, '_>,
    text: &str,
    span: Span,
    key: &str,
    scripted: bool,
    known: &Known<'_>,
) {
    let list = match pieces(text, scripted) {
        Ok(list) => list,
        Err(why) => {
            let help = if key == "cmd" {
                "or let a shell have it: shell = true"
            } else {
                ""
            };
            resolver.error(span, key, format!("{why} (in `{key}`)"), help);
            return;
        }
    };
    for piece in list {
        match piece {
            Piece::Variable {
                name,
                otherwise: None,
            } if !known.variable(name) => {
                let neighbour = known.neighbours.iter().any(|(other, _)| other == name);
                let (message, help) = if neighbour {
                    let message =
                        format!("`${name}` in `{key}` means the layer below, where it has no value");
                    (
                        message,
                        "use a variable of the file for both: {{vars.x}}".to_owned(),
                    )
                } else {
                    let message = format!("`${name}` in `{key}` cannot have a value");
                    (
                        message,
                        format!("set it in `env`, take it with env_inherit, or write $${name}"),
                    )
                };
                resolver.error(span, key, message, &help);
            }
            // What a file fills in was told when it was merged.
            Piece::Reference(reference) if resolver.span != Span::NONE && from_file(reference.name) => {}
            Piece::Reference(reference) => {
                if let Err((message, help)) = known.reference(&reference) {
                    resolver.error(span, key, format!("{message} (in `{key}`)"), &help);
                }
            }
            _ => {}
        }
    }
}

/// Is it filled in when a file is loaded?
fn from_file(name: &str) -> bool {
    name.starts_with("vars.") || ["profile", "file.dir"].contains(&name)
}
