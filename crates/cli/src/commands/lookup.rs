//! `lookup`: what look-up services know, all that were named taken together.
//!
//! A service that does not answer is told on standard error and makes no difference as long as another one does.
//! The old commands print what they did in the original.

use crate::args::Globals;
use crate::ask::interrupted;
use crate::context::Context;
use crate::failure::Failure;
use crate::table::{Cell, Column};
use crate::when;
use clap::{Args, Subcommand};
use futures_util::StreamExt;
use futures_util::future::join_all;
use gaffer_api::client::Message;
use gaffer_api::lookup::{
    DEFAULT_PORT, Event, FoundJob, Lookup, Named, NodeInfo, Session, Source, split_name,
};
use gaffer_api::tls::TlsOptions;
use gaffer_api::{ClientError, Endpoint};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a service may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// `lookup`.
#[derive(Args, Debug)]
pub struct LookupArgs {
    /// Nothing is coloured (as in the original)
    #[arg(long, hide = true, global = true)]
    pub no_color: bool,
    #[command(subcommand)]
    pub verb: Option<LookupCommand>,
}

/// `lookup …`.
#[derive(Debug, Subcommand)]
pub enum LookupCommand {
    /// List nodes, and how much each has
    #[command(after_help = crate::help::LOOKUP_LS)]
    Ls,
    /// Show what happens on them
    #[command(after_help = crate::help::LOOKUP_WATCH)]
    Watch,
    /// `lookup:nodes` of the original.
    #[command(hide = true)]
    Nodes,
    /// `lookup:jobs` of the original.
    #[command(hide = true)]
    Jobs,
    /// `lookup:sessions` of the original.
    #[command(hide = true)]
    Sessions {
        /// Only of this node
        node: Option<String>,
    },
    /// `lookup:session` of the original.
    #[command(hide = true)]
    Session {
        /// Which session
        session: String,
    },
    /// `lookup:job` of the original.
    #[command(hide = true)]
    Job {
        /// Which job
        job: String,
    },
}

/// `lookup …`; without a verb it watches, as the original does.
pub async fn lookup(ctx: &Context, args: &LookupArgs) -> Result<u8, Failure> {
    let services = Services::of(&ctx.globals, &ctx.globals.fleet.lookup)?;
    match &args.verb {
        None | Some(LookupCommand::Watch) => watch(ctx, &services).await,
        Some(LookupCommand::Ls) => ls(ctx, &services).await,
        Some(LookupCommand::Nodes) => nodes(ctx, &services).await,
        Some(LookupCommand::Jobs) => jobs(ctx, services.jobs(ctx).await?),
        Some(LookupCommand::Sessions { node }) => sessions(ctx, &services, node.as_deref()).await,
        Some(LookupCommand::Session { session }) => {
            let found = services
                .ask(ctx, |one| async move { one.session(session).await })
                .await?;
            jobs(ctx, merged(found.into_iter().flatten()))
        }
        Some(LookupCommand::Job { job }) => one_job(ctx, &services, job).await,
    }
}

/// The services that were named.
pub struct Services(Vec<Lookup>);

impl Services {
    /// From `--lookup`.
    pub fn of(globals: &Globals, urls: &[String]) -> Result<Services, Failure> {
        if urls.is_empty() {
            return Err(
                Failure::usage("no look-up service is named").hint("name one:  --lookup http://HOST:5010")
            );
        }
        let services: Result<Vec<Lookup>, Failure> = urls.iter().map(|url| service(globals, url)).collect();
        services.map(Services)
    }

    /// Asks all of them; the answers of those that gave one.
    pub async fn ask<T, F: Future<Output = Result<T, ClientError>>>(
        &self,
        ctx: &Context,
        question: impl Fn(Lookup) -> F,
    ) -> Result<Vec<T>, Failure> {
        let answers = self.0.iter().map(|one| async {
            let answer = tokio::time::timeout(ANSWER_TIME_MAX, question(one.clone())).await;
            answer
                .map_err(|_| "no answer within 10s".to_owned())
                .and_then(|answer| answer.map_err(|error| plain(&error)))
                .map_err(|why| format!("no look-up service answers at {}: {why}", one.endpoint()))
        });
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        for answer in join_all(answers).await {
            match answer {
                Ok(answer) => found.push(answer),
                Err(why) => failed.push(why),
            }
        }
        if found.is_empty() {
            let last = failed.pop().unwrap_or_default();
            failed.iter().for_each(|why| ctx.out.talk(why));
            return Err(Failure::new(69, last).hint("is the address right? --lookup"));
        }
        failed
            .iter()
            .for_each(|why| ctx.out.talk(&format!("warning: {why}")));
        Ok(found)
    }

    /// All nodes, each once.
    pub async fn nodes(&self, ctx: &Context) -> Result<BTreeSet<NodeInfo>, Failure> {
        let found = self.ask(ctx, |one| async move { one.nodes().await }).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// All jobs, each once.
    async fn jobs(&self, ctx: &Context) -> Result<Vec<FoundJob>, Failure> {
        let found = self.ask(ctx, |one| async move { one.jobs().await }).await?;
        Ok(merged(found.into_iter().flatten()))
    }
}

fn service(globals: &Globals, url: &str) -> Result<Lookup, Failure> {
    let wrong = |error: gaffer_api::endpoint::EndpointError| {
        Failure::usage(format!(
            "`{url}` is not the address of a look-up service: {}",
            error.why
        ))
        .hint("write http://HOST:PORT, https://HOST:PORT or unix:PATH")
    };
    let endpoint = Endpoint::parse(url).map_err(wrong)?;
    if matches!(endpoint, Endpoint::Ssh(_)) {
        return Err(
            Failure::usage(format!("`{url}`: a look-up service is not reached by ssh"))
                .hint("write http://HOST:PORT, https://HOST:PORT or unix:PATH"),
        );
    }
    // Without a port it is not that of the daemon.
    let names_port = url.trim_end_matches('/').ends_with(":5000");
    let endpoint = match endpoint {
        Endpoint::Tcp(host, gaffer_api::endpoint::DEFAULT_PORT) if !names_port => {
            Endpoint::Tcp(host, DEFAULT_PORT)
        }
        Endpoint::Tls(host, gaffer_api::endpoint::DEFAULT_PORT) if !names_port => {
            Endpoint::Tls(host, DEFAULT_PORT)
        }
        endpoint => endpoint,
    };
    let typed = &globals.credentials;
    let tls = TlsOptions {
        ca: typed.cacert.clone(),
        cert: typed.certfile.clone(),
        key: typed.keyfile.clone(),
    };
    Ok(Lookup::with_tls(endpoint, tls))
}

/// Without the address, which stands beside it already.
fn plain(error: &ClientError) -> String {
    let text = error.to_string();
    match error {
        ClientError::Unreachable { endpoint, .. } => text
            .strip_prefix(&format!("no daemon answers at {endpoint}: "))
            .unwrap_or(&text)
            .to_owned(),
        _ => text,
    }
}

/// The same job at the same node is told by each service: once is enough (D61).
fn merged(jobs: impl IntoIterator<Item = FoundJob>) -> Vec<FoundJob> {
    let mut all: BTreeMap<String, BTreeMap<NodeInfo, BTreeSet<u64>>> = BTreeMap::new();
    for job in jobs {
        let sources = all.entry(job.name).or_default();
        for source in job.sources {
            sources.entry(source.node_info).or_default().extend(source.pids);
        }
    }
    let jobs = all.into_iter().map(|(name, sources)| {
        let source = |(node_info, pids): (NodeInfo, BTreeSet<u64>)| Source {
            name: name.clone(),
            pids: pids.into_iter().collect(),
            node_info,
        };
        FoundJob {
            sources: sources.into_iter().map(source).collect(),
            name: name.clone(),
        }
    });
    jobs.collect()
}

/// A node in `lookup ls`.
#[derive(Serialize)]
struct Listed {
    node: String,
    url: String,
    version: String,
    jobs: usize,
    processes: usize,
}

async fn ls(ctx: &Context, services: &Services) -> Result<u8, Failure> {
    let nodes = services.nodes(ctx).await?;
    let jobs = services.jobs(ctx).await?;
    let listed = nodes.into_iter().map(|node| {
        let sources = jobs.iter().flat_map(|job| &job.sources);
        let own: Vec<&Source> = sources.filter(|source| source.node_info == node).collect();
        Listed {
            jobs: own.len(),
            processes: own.iter().map(|source| source.pids.len()).sum(),
            node: node.name,
            url: node.origin,
            version: node.version,
        }
    });
    let listed: Vec<Listed> = listed.collect();
    if !ctx.out.is_text() {
        ctx.out.json_list(&listed)?;
        return Ok(0);
    }
    let columns = ["NODE", "JOBS", "PROCESSES", "URL"].map(|title| Column {
        title: title.to_owned(),
        right: matches!(title, "JOBS" | "PROCESSES"),
    });
    let cells: Vec<Vec<Cell>> = listed
        .iter()
        .map(|one| {
            vec![
                Cell::plain(crate::escape::escape(&one.node)),
                Cell::plain(one.jobs.to_string()),
                Cell::plain(one.processes.to_string()),
                Cell::plain(crate::escape::escape(&one.url)),
            ]
        })
        .collect();
    ctx.out.table(&columns, cells)?;
    Ok(0)
}

/// What others said of themselves, fit for a terminal.
fn said(text: &str) -> String {
    crate::escape::escape(text).into_owned()
}

fn of_node(node: &NodeInfo) -> String {
    format!("{} - {}", said(&node.origin), said(&node.name))
}

async fn nodes(ctx: &Context, services: &Services) -> Result<u8, Failure> {
    let nodes = services.nodes(ctx).await?;
    if !ctx.out.is_text() {
        let nodes: Vec<NodeInfo> = nodes.into_iter().collect();
        ctx.out.json_list(&nodes)?;
        return Ok(0);
    }
    ctx.out.line(&format!("{} node(s) found", nodes.len()))?;
    ctx.out.line("")?;
    for node in &nodes {
        ctx.out
            .line(&format!("{} (protocol: {})", of_node(node), said(&node.version)))?;
    }
    Ok(0)
}

fn jobs(ctx: &Context, jobs: Vec<FoundJob>) -> Result<u8, Failure> {
    if !ctx.out.is_text() {
        ctx.out.json_list(&jobs)?;
        return Ok(0);
    }
    ctx.out.line(&format!("{} job(s) found", jobs.len()))?;
    ctx.out.line("")?;
    for job in &jobs {
        ctx.out.line(&format!("=== {}", said(&job.name)))?;
        sources(ctx, &job.sources)?;
        ctx.out.line("")?;
    }
    Ok(0)
}

fn sources(ctx: &Context, sources: &[Source]) -> Result<(), Failure> {
    sources.iter().try_for_each(|source| {
        ctx.out.line(&format!(
            "{}: {}, protocol: {}",
            of_node(&source.node_info),
            source.pids.len(),
            said(&source.node_info.version)
        ))
    })
}

async fn sessions(ctx: &Context, services: &Services, node: Option<&str>) -> Result<u8, Failure> {
    let found = services
        .ask(ctx, |one| async move { one.sessions(node).await })
        .await?;
    let jobs = found.into_iter().flatten().flat_map(|session| session.jobs);
    let jobs = merged(jobs.map(|(name, sources)| FoundJob { name, sources }));
    let mut sessions: BTreeMap<String, BTreeMap<String, Vec<Source>>> = BTreeMap::new();
    for job in jobs {
        let session = split_name(&job.name).0.to_owned();
        sessions.entry(session).or_default().insert(job.name, job.sources);
    }
    if !ctx.out.is_text() {
        let sessions = sessions
            .into_iter()
            .map(|(sessionid, jobs)| Session { sessionid, jobs });
        ctx.out.json_list(&sessions.collect::<Vec<_>>())?;
        return Ok(0);
    }
    ctx.out.line(&format!("{} session(s) found", sessions.len()))?;
    ctx.out.line("")?;
    for (session, jobs) in &sessions {
        ctx.out.line(&format!("*** session: {}", said(session)))?;
        ctx.out.line("")?;
        for (job, found) in jobs {
            ctx.out.line(&format!("=== job: {}", said(job)))?;
            sources(ctx, found)?;
            ctx.out.line("")?;
        }
    }
    Ok(0)
}

async fn one_job(ctx: &Context, services: &Services, job: &str) -> Result<u8, Failure> {
    let found = services.ask(ctx, |one| async move { one.job(job).await }).await?;
    let jobs = found.into_iter().flatten().map(|source| FoundJob {
        name: source.name.clone(),
        sources: vec![source],
    });
    let sources: Vec<Source> = merged(jobs).into_iter().flat_map(|job| job.sources).collect();
    if !ctx.out.is_text() {
        ctx.out.json_list(&sources)?;
        return Ok(if sources.is_empty() { 3 } else { 0 });
    }
    if sources.is_empty() {
        ctx.out.line("no job found")?;
        return Ok(3);
    }
    for source in &sources {
        let node = &source.node_info;
        let pids: Vec<String> = source.pids.iter().map(u64::to_string).collect();
        ctx.out.line(&format!(
            "=== {} (Protocol: {})",
            said(&node.name),
            said(&node.version)
        ))?;
        ctx.out.line(&format!("Origin: {}", said(&node.origin)))?;
        ctx.out.line(&format!("Pids: {}", pids.join(",")))?;
    }
    Ok(0)
}

/// What happens, as the first service that answers tells it.
async fn watch(ctx: &Context, services: &Services) -> Result<u8, Failure> {
    let mut why = Failure::silent(69);
    for one in &services.0 {
        let mut socket = match one.watch().await {
            Ok(socket) => socket,
            Err(error) => {
                why = Failure::new(
                    69,
                    format!(
                        "no look-up service answers at {}: {}",
                        one.endpoint(),
                        plain(&error)
                    ),
                );
                continue;
            }
        };
        loop {
            let message = tokio::select! {
                message = socket.next() => message,
                () = interrupted() => return Ok(0),
            };
            match message {
                Some(Ok(Message::Text(text))) => tell(ctx, &text)?,
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            }
        }
        why = Failure::new(69, format!("the look-up service at {} has gone", one.endpoint()));
    }
    Err(why)
}

/// `HH:MM:SS event | text`.
fn tell(ctx: &Context, text: &str) -> Result<(), Failure> {
    let Ok(event) = serde_json::from_str::<Event>(text) else {
        // A newer service may tell more.
        return Ok(());
    };
    if ctx.out.is_text() {
        let (word, text) = words(&event);
        ctx.out.line(&format!("{} {word} | {text}", when::clock_now()))?;
    } else {
        ctx.out.json_line(&event)?;
    }
    ctx.out.flush()
}

fn words(event: &Event) -> (&'static str, String) {
    let named = |node: &Named| {
        let text = |text: &Option<String>| said(text.as_deref().unwrap_or("unknown"));
        format!("{} - {}", text(&node.origin), text(&node.name))
    };
    match event {
        Event::AddNode(node) => ("add_node", named(node)),
        Event::Identify(node) => ("identify", named(node)),
        Event::RemoveNode(node) => ("remove_node", named(node)),
        Event::AddJob { node, job_name } => ("add_job", format!("{} in {}", said(job_name), of_node(node))),
        Event::RemoveJob { node, job_name } => {
            ("remove_job", format!("{} in {}", said(job_name), of_node(node)))
        }
        Event::AddProcess { node, job_name, pid } => (
            "add_process",
            format!("{}.{pid} in {}", said(job_name), of_node(node)),
        ),
        Event::RemoveProcess { node, job_name, pid } => (
            "remove_process",
            format!("{}.{pid} in {}", said(job_name), of_node(node)),
        ),
        Event::Missed { count } => ("missed", format!("{count} events; ask for the lists again")),
    }
}
