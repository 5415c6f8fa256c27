//! One command over many nodes: which nodes, in which order, and what comes of it.
//!
//! A node decides for itself: each is asked over its own API, as if the command had been typed there.

use crate::args::{Cli, Command, Globals, JobCommand};
use crate::context::Context;
use crate::failure::Failure;
use crate::nodes::{ANSWER_TIME_MAX, Known, chosen};
use crate::out::{Out, Table};
use crate::table::{Cell, Column};
use crate::target::{Target, parse, resolve};
use clap::{ArgMatches, Args, FromArgMatches};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::Duration;

/// Options that choose nodes.
#[derive(Args, Clone, Debug, Default)]
pub struct FleetArgs {
    /// Look-up service to find nodes by: http://HOST:PORT
    #[arg(
        short = 'L',
        long,
        global = true,
        hide = true,
        value_name = "U",
        value_delimiter = ','
    )]
    pub lookup: Vec<String>,
    /// Only these nodes: a name or a pattern
    #[arg(long, global = true, hide = true, value_name = "P")]
    pub node: Vec<String>,
    /// Only nodes with this label, as in zone=eu
    #[arg(long, global = true, hide = true, value_name = "K=V")]
    pub label: Vec<String>,
    /// All nodes of your own file, or of the look-up services
    #[arg(long, global = true, hide = true)]
    pub all_nodes: bool,
    /// Nodes at once, for what changes something: 2 or 25%
    #[arg(long, global = true, hide = true, value_name = "N|P%")]
    pub batch: Option<Share>,
    /// Pause between batches
    #[arg(long = "pause", id = "batch_pause", global = true, hide = true, value_name = "D", value_parser = crate::when::parse_duration)]
    pub pause: Option<Duration>,
    /// Stop unless so many of the nodes asked so far succeeded
    #[arg(
        long,
        global = true,
        hide = true,
        value_name = "P%",
        default_value = "100%",
        hide_default_value = true
    )]
    pub min_ok: Share,
}

/// A count, or a share of the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Share {
    /// So many.
    Count(usize),
    /// Of a hundred.
    Percent(usize),
    /// All.
    #[default]
    All,
}

impl std::str::FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Share, String> {
        let number = |text: &str| text.parse::<usize>().ok();
        let share = match text.strip_suffix('%') {
            Some(percent) => number(percent).filter(|p| *p <= 100).map(Share::Percent),
            None => number(text).filter(|n| *n > 0).map(Share::Count),
        };
        share.ok_or_else(|| "write a number of nodes, or a share as 25%".to_owned())
    }
}

impl Share {
    /// Of so many, rounded up.
    fn of(self, all: usize) -> usize {
        match self {
            Share::Count(count) => count.min(all),
            Share::Percent(percent) => (all * percent).div_ceil(100),
            Share::All => all,
        }
    }
}

impl FleetArgs {
    /// Whether nodes are to be chosen at all.
    pub fn is_used(&self) -> bool {
        !self.lookup.is_empty() || !self.node.is_empty() || !self.label.is_empty() || self.all_nodes
    }
}

/// What a command does with several nodes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Shows something of each, all at once.
    Looks,
    /// Changes something at each that has it, batch by batch.
    Changes,
}

/// Its kind, and the targets it names; none: it has nothing to do with nodes.
fn parts(command: &mut Command) -> Option<(Kind, Targets<'_>)> {
    Some(match command {
        Command::Ps(args) => (Kind::Looks, (&mut args.targets, true)),
        Command::Logs(args) => (Kind::Looks, (&mut args.targets, true)),
        Command::Why(args) => (Kind::Looks, (&mut args.targets, true)),
        Command::Events(args) => (Kind::Looks, (&mut args.targets, true)),
        Command::Start(args) => (Kind::Changes, (&mut args.targets, args.all)),
        Command::Stop(args) | Command::Restart(args) => (Kind::Changes, of(&mut args.targets)),
        Command::Reload(args) => (Kind::Changes, of(&mut args.targets)),
        Command::Pause(args) | Command::Resume(args) => (Kind::Changes, of(args)),
        Command::Scale(args) => (Kind::Changes, (&mut args.changes, false)),
        Command::Signal(args) => (Kind::Changes, (&mut args.targets, args.all)),
        Command::Job(args) => match &mut args.verb {
            JobCommand::Ls(args) => (Kind::Looks, (&mut args.targets, true)),
            JobCommand::Start(args) => (Kind::Changes, of(args)),
            JobCommand::Stop(args) | JobCommand::Restart(args) => (Kind::Changes, of(&mut args.targets)),
            JobCommand::Reload(args) => (Kind::Changes, of(&mut args.targets)),
            JobCommand::Rm(args) => (Kind::Changes, of(args)),
            JobCommand::Show { .. } | JobCommand::Add(_) | JobCommand::Set { .. } => return None,
        },
        _ => return None,
    })
}

fn of(args: &mut crate::args::TargetArgs) -> Targets<'_> {
    (&mut args.targets, args.all)
}

/// The words of a command that name jobs, and whether it means all of them without any.
type Targets<'a> = (&'a mut Vec<String>, bool);

/// A command that concerns one target only.
fn single(command: &Command) -> Option<&str> {
    match command {
        Command::Send(args) => Some(&args.target),
        Command::Attach(args) => Some(&args.target),
        Command::Run(args) => args.job.as_deref(),
        Command::Job(args) => match &args.verb {
            JobCommand::Show { target } | JobCommand::Set { target, .. } => Some(target),
            _ => None,
        },
        _ => None,
    }
}

/// A node of the command.
struct Member {
    known: Known,
    /// Its own targets, where they are not the same for all.
    words: Option<Vec<String>>,
}

/// What came of it at one node.
enum Came {
    Done(u8, Vec<Value>, Vec<Table>),
    Failed(Failure),
    Skipped,
}

/// Carries the command out wherever it belongs.
pub async fn run(matches: &ArgMatches, command: &mut Command, globals: &Globals) -> Result<u8, Failure> {
    let here = Context::new(globals, Out::new(globals))?;
    let fleet = &globals.fleet;
    let mut members: Vec<Member> = chosen(&here)
        .await?
        .into_iter()
        .map(|known| Member { known, words: None })
        .collect();
    if let Some(target) = single(command) {
        let member = only(&here, globals, members, target).await?;
        let ctx = here_at(globals, &member, None)?;
        let result = crate::daily(&ctx, again(matches)?).await;
        ctx.out.flush()?;
        return result;
    }
    let Some((kind, (targets, all))) = parts(command) else {
        return Err(Failure::usage("this command has to do with one node only")
            .hint("name it with --url or --socket"));
    };
    if targets.is_empty() && !all {
        return Err(Failure::usage("no target is named").hint("all jobs of the session:  --all"));
    }
    let wanted = targets.clone();
    if let Command::Scale(args) = command
        && let Some(total) = args.total
    {
        share(globals, &mut members, &wanted, total).await?;
    }
    let width = members
        .iter()
        .map(|one| one.known.name.chars().count())
        .max()
        .unwrap_or(0);
    let work = Work {
        matches,
        globals,
        wanted,
        width,
        scale: matches!(command, Command::Scale(_)),
    };
    let came = match kind {
        Kind::Looks => join_all(members.iter().map(|one| work.at(one))).await,
        Kind::Changes => rolling(&here, &work, &members, fleet).await,
    };
    report(&here, &members, came)
}

fn again(matches: &ArgMatches) -> Result<Command, Failure> {
    let cli = Cli::from_arg_matches(matches).map_err(|error| Failure::usage(error.to_string()))?;
    cli.command.ok_or_else(|| Failure::usage("there is no command"))
}

fn here_at(globals: &Globals, member: &Member, tag: Option<usize>) -> Result<Context, Failure> {
    let out = match tag {
        Some(width) => Out::new(globals).of_node(&member.known.name, width),
        None => Out::new(globals),
    };
    let mut ctx = Context::new(globals, out)?;
    ctx.client = member.known.client.clone();
    Ok(ctx)
}

/// The one node that has the target.
async fn only(
    here: &Context,
    globals: &Globals,
    members: Vec<Member>,
    target: &str,
) -> Result<Member, Failure> {
    let words = [target.to_owned()];
    let mut found = Vec::new();
    for member in members {
        let ctx = here_at(globals, &member, None)?;
        match having(&ctx, &words).await {
            Ok(words) if !words.is_empty() => found.push(member),
            Ok(_) => {}
            Err(failure) => here.out.fail(&Failure {
                message: format!("{}: {}", member.known.name, failure.message),
                ..failure
            }),
        }
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Failure::not_found(format!("no node has `{target}`")).hint("what there is:  gaffer ps")),
        _ => {
            let names: Vec<&str> = found.iter().map(|one| one.known.name.as_str()).collect();
            Err(
                Failure::usage(format!("several nodes have `{target}`; name one with --node"))
                    .hint(names.join(" ")),
            )
        }
    }
}

/// Those of the targets that this node has.
async fn having(ctx: &Context, words: &[String]) -> Result<Vec<String>, Failure> {
    let jobs = tokio::time::timeout(ANSWER_TIME_MAX, ctx.jobs(false))
        .await
        .map_err(|_| Failure::new(69, "no answer within 10s"))??;
    let mut here = Vec::new();
    for word in words {
        // `scale` says the number behind the name.
        let name = match word.split_once('=') {
            Some((name, _)) => name,
            None => word.as_str(),
        };
        let has = match parse(name)? {
            Target::Run(prefix) => ctx.run_of(&prefix).await.is_ok(),
            target => resolve(&target, &jobs, &ctx.scope, true).is_ok(),
        };
        if has {
            here.push(word.clone());
        }
    }
    Ok(here)
}

/// Gives each node its part of so many instances: as even as can be, the first ones have one more. Nothing is asked of
/// anybody unless all of them answer, or the total would not be one.
async fn share(
    globals: &Globals,
    members: &mut [Member],
    jobs: &[String],
    total: u32,
) -> Result<(), Failure> {
    if let Some(word) = jobs.iter().find(|word| with_equals(word).contains('=')) {
        return Err(Failure::usage(format!("`{word}` has a number of its own"))
            .hint("with --total, jobs have none:  gaffer scale web --total 10"));
    }
    let answers = join_all(members.iter().map(|member| async {
        let ctx = here_at(globals, member, None)?;
        having(&ctx, jobs).await
    }));
    let mut owners: Vec<Vec<String>> = Vec::new();
    for (answer, member) in answers.await.into_iter().zip(members.iter()) {
        owners.push(answer.map_err(|failure| {
            Failure {
                message: format!("{}: {}; nothing was changed", member.known.name, failure.message),
                ..failure
            }
            .hint("without it:  --node names the others")
        })?);
    }
    for member in members.iter_mut() {
        member.words = Some(Vec::new());
    }
    for job in jobs {
        let having: Vec<usize> = (0..members.len())
            .filter(|at| owners[*at].contains(job))
            .collect();
        if having.is_empty() {
            return Err(Failure::not_found(format!("no node has `{job}`")).hint("what there is:  gaffer ps"));
        }
        let nodes = u32::try_from(having.len()).unwrap_or(u32::MAX);
        for (at, part) in having.into_iter().zip(parts_of(total, nodes)) {
            members[at]
                .words
                .get_or_insert_default()
                .push(format!("{job}={part}"));
        }
    }
    Ok(())
}

/// 7 over 3: 3 2 2.
fn parts_of(total: u32, nodes: u32) -> impl Iterator<Item = u32> {
    (0..nodes).map(move |at| total / nodes + u32::from(at < total % nodes))
}

/// The rows of one more node, beneath those of the same columns.
fn add_table(tables: &mut Vec<Table>, node: &str, (mut columns, rows): Table) {
    let title = Column {
        title: "NODE".to_owned(),
        right: false,
    };
    columns.insert(0, title);
    let rows = rows.into_iter().map(|mut row| {
        row.insert(0, Cell::name(node));
        row
    });
    match tables
        .iter_mut()
        .find(|(same, _)| same.iter().map(|c| &c.title).eq(columns.iter().map(|c| &c.title)))
    {
        Some((_, all)) => all.extend(rows),
        None => tables.push((columns, rows.collect())),
    }
}

/// One command, for each node.
struct Work<'a> {
    matches: &'a ArgMatches,
    globals: &'a Globals,
    wanted: Vec<String>,
    width: usize,
    scale: bool,
}

impl Work<'_> {
    /// At one node; skipped if it has nothing of what was named.
    async fn at(&self, member: &Member) -> Came {
        match self.try_at(member).await {
            Ok(came) => came,
            Err(failure) => Came::Failed(failure),
        }
    }

    async fn try_at(&self, member: &Member) -> Result<Came, Failure> {
        let ctx = here_at(self.globals, member, Some(self.width))?;
        let mut command = again(self.matches)?;
        if let Command::Scale(args) = &mut command {
            // What this node gets of it is in its words.
            args.total = None;
        }
        if !self.wanted.is_empty() {
            let mut words = member.words.as_ref().unwrap_or(&self.wanted).clone();
            if self.scale {
                words = words.iter().map(|word| with_equals(word)).collect();
            }
            let here = having(&ctx, &words).await?;
            if here.is_empty() {
                return Ok(Came::Skipped);
            }
            if let Some((_, (targets, _))) = parts(&mut command) {
                *targets = here;
            }
        }
        let result = crate::daily(&ctx, command).await;
        ctx.out.flush()?;
        Ok(match result {
            Ok(exit) => Came::Done(exit, ctx.out.documents(), ctx.out.tables()),
            Err(failure) => Came::Failed(failure),
        })
    }
}

/// The original's `web+2` as `web=+2`.
fn with_equals(word: &str) -> String {
    match (word.contains('='), word.rfind(['+', '-'])) {
        (false, Some(at)) => format!("{}={}", &word[..at], &word[at..]),
        _ => word.to_owned(),
    }
}

/// Batch by batch, as long as enough of them succeed.
async fn rolling(here: &Context, work: &Work<'_>, members: &[Member], fleet: &FleetArgs) -> Vec<Came> {
    let size = fleet.batch.unwrap_or_default().of(members.len()).max(1);
    let mut came: Vec<Came> = Vec::new();
    for batch in members.chunks(size) {
        if !came.is_empty() {
            let asked = came.iter().filter(|one| !matches!(one, Came::Skipped)).count();
            let good = came.iter().filter(|one| matches!(one, Came::Done(0, ..))).count();
            if good < fleet.min_ok.of(asked) {
                let left = members.len() - came.len();
                here.out.say(&format!(
                    "stopped: {good} of {asked} nodes succeeded; {left} not asked"
                ));
                break;
            }
            tokio::time::sleep(fleet.pause.unwrap_or_default()).await;
        }
        came.extend(join_all(batch.iter().map(|one| work.at(one))).await);
    }
    came
}

/// Prints what is to be printed in the end, and says how it went.
fn report(here: &Context, members: &[Member], came: Vec<Came>) -> Result<u8, Failure> {
    let asked = came.len();
    let all_skipped = came.iter().all(|one| matches!(one, Came::Skipped));
    let mut documents = Vec::new();
    let mut tables = Vec::new();
    let mut lists = Vec::new();
    let mut failures = Vec::new();
    let (mut exits, mut rows) = (Vec::new(), false);
    for (member, came) in members.iter().zip(came) {
        match came {
            Came::Skipped => {}
            Came::Done(exit, found, shown) => {
                exits.push(exit);
                for table in shown {
                    add_table(&mut tables, &member.known.name, table);
                }
                let status = if exit == 0 { "ok" } else { "failed" };
                for document in found {
                    match document {
                        Value::Array(items) => {
                            rows = true;
                            lists.extend(items);
                        }
                        other => documents
                            .push(json!({"node": member.known.name, "status": status, "result": other})),
                    }
                }
            }
            Came::Failed(failure) => {
                exits.push(failure.exit);
                let status = if failure.exit == 69 {
                    "unreachable"
                } else {
                    "failed"
                };
                documents
                    .push(json!({"node": member.known.name, "status": status, "error": failure.message}));
                failures.push(Failure {
                    message: format!("{}: {}", member.known.name, failure.message),
                    ..failure
                });
            }
        }
    }
    if all_skipped && asked > 0 {
        return Err(Failure::not_found("no node has that").hint("what there is:  gaffer ps"));
    }
    // A list has no place for what failed.
    if here.out.is_text() || rows {
        failures.iter().for_each(|failure| here.out.fail(failure));
    }
    for (columns, rows) in tables {
        here.out.table(&columns, rows)?;
    }
    here.out.flush()?;
    if !here.out.is_text() {
        match rows {
            true => here.out.json_list(&lists)?,
            false => here.out.json_list(&documents)?,
        }
        here.out.flush()?;
    }
    Ok(exit_of(&exits, asked < members.len()))
}

/// All the same: that. Some of them failed, or were not asked any more: 1.
fn exit_of(exits: &[u8], stopped: bool) -> u8 {
    match exits.first() {
        None => 0,
        Some(first) if exits.iter().all(|exit| exit == first) && !(stopped && *first == 0) => *first,
        Some(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_spread_evenly() {
        let of = |total, nodes| parts_of(total, nodes).collect::<Vec<_>>();
        assert_eq!(of(7, 3), [3, 2, 2]);
        assert_eq!(of(1, 2), [1, 0]);
        assert_eq!(of(0, 2), [0, 0]);
    }

    #[test]
    fn a_share_is_a_number_or_a_percentage() {
        let of = |text: &str, all| text.parse::<Share>().map(|share| share.of(all));
        assert_eq!(of("2", 5), Ok(2));
        assert_eq!(of("25%", 5), Ok(2));
        assert_eq!(of("100%", 5), Ok(5));
        assert_eq!(of("9", 5), Ok(5));
        assert!(of("0", 5).is_err() && of("101%", 5).is_err() && of("x", 5).is_err());
    }

    #[test]
    fn the_exit_code_is_that_of_all_or_one() {
        assert_eq!(exit_of(&[0, 0], false), 0);
        assert_eq!(exit_of(&[0, 3], false), 1);
        assert_eq!(exit_of(&[69, 69], false), 69);
        assert_eq!(exit_of(&[0], true), 1);
    }
}
