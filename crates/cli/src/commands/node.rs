//! `node …`: the nodes that are known, and what each says of itself; naming one, and forgetting it.

use crate::context::Context;
use crate::failure::Failure;
use crate::nodes::{self, Known};
use crate::table::{Cell, Column};
use crate::when;
use clap::{Args, Subcommand};
use futures_util::future::join_all;
use gaffer_api::types::{DrainRequest, KnownNode};
use gaffer_config::{UserNode, is_node_name, with_node, without_node};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// `node`.
#[derive(Args, Debug)]
pub struct NodeArgs {
    #[command(subcommand)]
    pub verb: NodeCommand,
}

/// `node …`.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List the nodes, and how each is
    #[command(after_help = crate::help::NODE_LS)]
    Ls,
    /// Show what a node says of itself
    #[command(after_help = crate::help::NODE_SHOW)]
    Show {
        /// Which node
        name: String,
    },
    /// Name a node in your own file
    #[command(after_help = crate::help::NODE_ADD)]
    Add {
        /// How you call it
        name: String,
        /// https://HOST:PORT, http://HOST:PORT, ssh://USER@HOST or unix:PATH
        url: String,
    },
    /// Take nothing new, let tasks end, then stop all jobs; until it is undone
    #[command(after_help = crate::help::NODE_DRAIN)]
    Drain(DrainArgs),
    /// Take a node out of your own file; the node itself is not touched
    #[command(after_help = crate::help::NODE_RM)]
    Rm {
        /// Which node
        name: String,
    },
}

/// `node drain`.
#[derive(Args, Debug)]
pub struct DrainArgs {
    /// Which node; none: the daemon that every command talks to
    pub name: Option<String>,
    /// How long tasks may go on; then those of queues are given back and others are killed
    #[arg(long, value_name = "D", value_parser = when::parse_duration, conflicts_with = "undo")]
    pub deadline: Option<Duration>,
    /// Let the node work again: jobs are as they were wished
    #[arg(long)]
    pub undo: bool,
    /// Do not wait for the end
    #[arg(long)]
    pub no_wait: bool,
}

/// `node …`
pub async fn node(ctx: &Context, args: &NodeArgs) -> Result<u8, Failure> {
    match &args.verb {
        NodeCommand::Ls => ls(ctx).await,
        NodeCommand::Show { name } => show(ctx, name).await,
        NodeCommand::Add { name, url } => add(ctx, name, url),
        NodeCommand::Drain(args) => drain(ctx, args).await,
        NodeCommand::Rm { name } => rm(ctx, name),
    }
}

/// Longest time that one request waits.
const WAIT: Duration = Duration::from_secs(30);

async fn drain(ctx: &Context, args: &DrainArgs) -> Result<u8, Failure> {
    let client = match &args.name {
        None => ctx.client.clone(),
        Some(name) => find(nodes::all(ctx).await?, name)?.client,
    };
    let told = |node: &KnownNode| -> Result<(), Failure> {
        if !ctx.out.is_text() {
            return ctx.out.json(node);
        }
        let reason = node.reason.as_deref().map(|reason| format!("  {reason}"));
        let line = format!("{}  {}{}", node.node, node.state, reason.unwrap_or_default());
        ctx.out.line(&crate::escape::escape(&line))
    };
    if args.undo {
        told(&client.node_undrain().await?)?;
        return Ok(0);
    }
    let request = DrainRequest {
        deadline: args
            .deadline
            .map(|deadline| format!("{}ms", deadline.as_millis())),
    };
    let mut node = client.node_drain(&request, None).await?;
    let since = Instant::now();
    while node.state == "draining" && !args.no_wait {
        let left = ctx
            .globals
            .timeout
            .map(|timeout| timeout.saturating_sub(since.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            told(&node)?;
            return Err(Failure::failed("the wait timed out; the node goes on draining"));
        }
        node = client
            .node_drained(Some(left.map_or(WAIT, |left| left.min(WAIT))))
            .await?;
    }
    told(&node)?;
    match node.state.as_str() {
        "up" => Err(Failure::failed("somebody has undone it")),
        _ => Ok(0),
    }
}

fn find(known: Vec<Known>, name: &str) -> Result<Known, Failure> {
    let names: Vec<String> = known.iter().map(|node| node.name.clone()).collect();
    let found = known.into_iter().find(|node| node.name == name);
    found.ok_or_else(|| {
        let failure = Failure::not_found(format!("no node `{name}`"));
        match names.is_empty() {
            true => failure.hint_pair("name one:  gaffer node add NAME URL", "or ask:  -L URL"),
            false => failure.hint(format!("there are: {}", names.join(" "))),
        }
    })
}

/// A node in `node ls`.
#[derive(Serialize)]
struct Listed {
    node: String,
    url: String,
    /// `ok`, `unreachable` or `failed`.
    status: &'static str,
    /// `up`, `draining` or `drained`, as it says itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    version: Option<String>,
    up_ms: Option<u64>,
    jobs: Option<u32>,
    runs: Option<u32>,
    labels: BTreeMap<String, String>,
}

async fn listed(known: &Known) -> Listed {
    let mut one = Listed {
        node: known.name.clone(),
        url: known.url.clone(),
        status: "ok",
        state: None,
        error: None,
        version: None,
        up_ms: None,
        jobs: None,
        runs: None,
        labels: BTreeMap::new(),
    };
    match nodes::about(known).await {
        Ok(about) => {
            one.state = Some(about.state).filter(|state| !state.is_empty());
            one.version = Some(about.version);
            one.up_ms = Some(about.up_ms);
            one.jobs = Some(about.jobs);
            one.runs = Some(about.runs);
            one.labels = known.labels.clone().unwrap_or(about.labels);
        }
        Err(failure) => {
            one.status = if failure.exit == 69 {
                "unreachable"
            } else {
                "failed"
            };
            one.error = Some(failure.message);
        }
    }
    one
}

/// `zone=eu,disk=ssd`
fn labels_of(labels: &BTreeMap<String, String>) -> String {
    let labels: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.join(",")
}

/// That a node is drained says more than that it answers.
fn shown_status(one: &Listed) -> &str {
    let state = one.state.as_deref().filter(|state| *state != "up");
    state.unwrap_or(one.status)
}

async fn ls(ctx: &Context) -> Result<u8, Failure> {
    let fleet = &ctx.globals.fleet;
    let known = match fleet.node.is_empty() && fleet.label.is_empty() {
        true => nodes::all(ctx).await?,
        false => nodes::chosen(ctx).await?,
    };
    if known.is_empty() {
        ctx.out
            .talk("no node is known; name one:  gaffer node add NAME URL     or ask:  -L URL");
    }
    let listed = join_all(known.iter().map(listed)).await;
    if !ctx.out.is_text() {
        ctx.out.json_list(&listed)?;
        return Ok(0);
    }
    let columns = ["NODE", "STATUS", "VERSION", "UP", "JOBS", "RUNS", "LABELS", "URL"].map(|title| Column {
        title: title.to_owned(),
        right: matches!(title, "UP" | "JOBS" | "RUNS"),
    });
    let said = |text: &str| Cell::plain(crate::escape::escape(text));
    let cells = listed.iter().map(|one| {
        let number = |number: Option<u32>| Cell::plain(number.map_or("-".to_owned(), |n| n.to_string()));
        let labels = Some(labels_of(&one.labels)).filter(|labels| !labels.is_empty());
        vec![
            Cell::name(&one.node),
            said(shown_status(one)),
            said(one.version.as_deref().unwrap_or("-")),
            Cell::plain(one.up_ms.map_or("-".to_owned(), when::duration)),
            number(one.jobs),
            number(one.runs),
            said(labels.as_deref().unwrap_or("-")),
            said(&one.url),
        ]
    });
    ctx.out.table(&columns, cells.collect())?;
    Ok(0)
}

async fn show(ctx: &Context, name: &str) -> Result<u8, Failure> {
    let known = find(nodes::all(ctx).await?, name)?;
    let about = nodes::about(&known).await?;
    if !ctx.out.is_text() {
        ctx.out.json(&about)?;
        return Ok(0);
    }
    for (key, value) in [
        ("node", about.node.clone()),
        ("url", known.url.clone()),
        ("state", about.state.clone()),
        ("reason", about.reason.clone().unwrap_or_else(|| "-".to_owned())),
        ("version", about.version.clone()),
        ("up", when::duration(about.up_ms)),
        ("pid", about.pid.to_string()),
        ("epoch", about.epoch.to_string()),
        ("jobs", about.jobs.to_string()),
        ("runs", about.runs.to_string()),
        ("shims", about.shims.len().to_string()),
        ("containment", about.containment.clone()),
        ("listen", about.listen.join(" ")),
        ("state dir", about.state_dir.clone()),
        ("config", about.config.clone().unwrap_or_else(|| "-".to_owned())),
        ("labels", labels_of(&about.labels)),
    ] {
        let value = crate::escape::escape(&value);
        ctx.out.line(format!("{key:12} {value}").trim_end())?;
    }
    Ok(0)
}

fn own_file() -> Result<PathBuf, Failure> {
    nodes::file().ok_or_else(|| {
        Failure::usage("it is not known where your own file is").hint("set GAFFER_CONFIG to its path")
    })
}

fn add(ctx: &Context, name: &str, url: &str) -> Result<u8, Failure> {
    if !is_node_name(name) {
        return Err(
            Failure::usage(format!("`{}` is no name of a node", name.escape_debug()))
                .hint("letters, digits, `.`, `-` and `_`"),
        );
    }
    gaffer_api::Endpoint::parse(url).map_err(|error| {
        Failure::usage(error.to_string()).hint("write https://HOST:PORT, ssh://USER@HOST or unix:PATH")
    })?;
    let path = own_file()?;
    let (text, nodes) = nodes::read(&ctx.out, &path)?;
    if nodes.contains_key(name) {
        return Err(Failure::conflict(format!("there is a node `{name}` already"))
            .hint(format!("take it out first:  gaffer node rm {name}")));
    }
    let mut labels = BTreeMap::new();
    for label in &ctx.globals.fleet.label {
        let (key, value) = nodes::pair(label)?;
        labels.insert(key.to_owned(), value.to_owned());
    }
    let absolute = |file: &Option<PathBuf>| {
        let file = file.as_ref().map(std::path::absolute).transpose();
        file.map_err(|error| Failure::usage(format!("a path cannot be made absolute: {error}")))
    };
    let node = UserNode {
        url: url.to_owned(),
        token_file: absolute(&ctx.globals.credentials.token_file)?,
        ca: absolute(&ctx.globals.credentials.cacert)?,
        labels,
    };
    let text = with_node(&text, name, &node);
    gaffer_config::user_nodes(&path, &text).map_err(|wrong| crate::file::invalid(&ctx.out, &wrong))?;
    write(&path, &text)?;
    ctx.out.say(&format!("{name} is in {}", path.display()));
    Ok(0)
}

fn rm(ctx: &Context, name: &str) -> Result<u8, Failure> {
    let path = own_file()?;
    let (text, nodes) = nodes::read(&ctx.out, &path)?;
    if !nodes.contains_key(name) {
        if let Some(project) = nodes::project()
            && nodes::of_project(&ctx.out, &project)?.contains_key(name)
        {
            let message = format!("{name} is in {}", project.display());
            return Err(Failure::conflict(message).hint(format!("take [node.{name}] out there")));
        }
        return Err(
            Failure::not_found(format!("no node `{name}` in {}", path.display()))
                .hint("what there is:  gaffer node ls"),
        );
    }
    let left = without_node(&path, &text, name).ok_or_else(|| {
        Failure::failed(format!(
            "[node.{name}] is written in a way that is not edited by program"
        ))
        .hint(format!("take it out of {}", path.display()))
    })?;
    write(&path, &left)?;
    ctx.out.say(&format!("{name} is no more in {}", path.display()));
    Ok(0)
}

/// All or nothing; a link stays one.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let failed =
        |error: std::io::Error| Failure::failed(format!("{} cannot be written: {error}", path.display()));
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let beside = folder.join(format!(".config.toml.{}", std::process::id()));
    let written = || {
        let mut file = std::fs::File::create(&beside)?;
        if let Ok(before) = std::fs::metadata(&path) {
            file.set_permissions(before.permissions())?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, &path)
    };
    written().map_err(|error| {
        // What was begun is of no use.
        let _gone = std::fs::remove_file(&beside);
        failed(error)
    })
}
