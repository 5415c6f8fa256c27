//! `ps`: one line for each instance, with its state and the reason for it.

use crate::args::PsArgs;
use crate::ask::interrupted;
use crate::context::Context;
use crate::failure::Failure;
use crate::out::Table;
use crate::paint::{Role, state};
use crate::table::{Cell, Column, cut, lines};
use crate::target::{Scope, Selected};
use crate::when;
use futures_util::StreamExt;
use gaffer_api::types::{Instance, Job, Stats};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Columns that can be asked for.
const COLUMNS: [&str; 16] = [
    "session",
    "job",
    "state",
    "pid",
    "up",
    "cpu",
    "mem",
    "restarts",
    "reason",
    "run",
    "wish",
    "attempt",
    "started",
    "processes",
    "next",
    "number",
];
/// Columns that are shown.
const SHOWN: [&str; 8] = ["job", "state", "pid", "up", "cpu", "mem", "restarts", "reason"];
/// Watched values are sampled so often.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);

/// A line: an instance, or a job that has none.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    session: String,
    job: String,
    instance: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    one_off: bool,
    #[serde(flatten)]
    of: Fields,
}

/// The fields of an instance that scripts read.
#[derive(Clone, Debug, Serialize)]
struct Fields {
    run: Option<String>,
    number: Option<u64>,
    pid: Option<u32>,
    state: String,
    wish: String,
    reason: String,
    reason_code: String,
    started_at: Option<String>,
    ready_at: Option<String>,
    up_ms: Option<u64>,
    next_try_at: Option<String>,
    restarts: u32,
    attempt: u32,
    cpu_percent: Option<f64>,
    memory_bytes: Option<u64>,
    processes: Option<u32>,
}

impl Row {
    fn of_instance(job: &Job, instance: &Instance, one_off: bool) -> Row {
        let stats = instance.stats.as_ref();
        Row {
            session: job.session.clone(),
            job: job.job.clone(),
            instance: Some(instance.instance),
            one_off,
            of: Fields {
                run: instance.run.clone(),
                number: instance.number,
                pid: instance.pid,
                state: instance.state.clone(),
                wish: instance.wish.clone(),
                reason: instance.reason.clone(),
                reason_code: instance.reason_code.clone(),
                started_at: instance.started_at.clone(),
                ready_at: instance.ready_at.clone(),
                up_ms: instance.up_ms,
                next_try_at: instance.next_try_at.clone(),
                restarts: instance.restarts,
                attempt: instance.attempt,
                cpu_percent: stats
                    .and_then(|stats| stats.cpu_percent.or_else(|| average(stats, instance.up_ms))),
                memory_bytes: stats.map(|stats| stats.memory_bytes),
                processes: stats.map(|stats| stats.processes),
            },
        }
    }

    fn of_empty(job: &Job) -> Row {
        Row {
            session: job.session.clone(),
            job: job.job.clone(),
            instance: None,
            one_off: false,
            of: Fields {
                run: None,
                number: None,
                pid: None,
                state: job.state.clone(),
                wish: job.wish.clone(),
                reason: if job.reason.is_empty() {
                    "0 instances".to_owned()
                } else {
                    job.reason.clone()
                },
                reason_code: job.reason_code.clone(),
                started_at: None,
                ready_at: None,
                up_ms: None,
                next_try_at: None,
                restarts: 0,
                attempt: 0,
                cpu_percent: None,
                memory_bytes: None,
                processes: None,
            },
        }
    }

    fn name(&self, with_session: bool) -> String {
        let mut name = if with_session {
            format!("{}.{}", self.session, self.job)
        } else {
            self.job.clone()
        };
        match self.instance {
            Some(n) if self.one_off => name.push_str(&format!(" run {n}")),
            Some(n) => name.push_str(&format!(".{n}")),
            None => {}
        }
        name
    }

    fn cell(&self, column: &str, with_session: bool) -> Cell {
        let of = &self.of;
        let dash = |text: Option<String>| Cell::plain(text.unwrap_or_else(|| "-".to_owned()));
        let live = |text: Option<String>| dash(text.filter(|_| of.pid.is_some()));
        match column {
            "session" => Cell::plain(&self.session),
            "job" => Cell {
                text: self.name(with_session),
                role: None,
            },
            "state" => Cell::role(state(&of.state).1, &of.state),
            "pid" => dash(of.pid.map(|pid| pid.to_string())),
            "up" => live(of.up_ms.map(age)),
            "cpu" => live(of.cpu_percent.map(|percent| format!("{percent:.0}%"))),
            "mem" => live(of.memory_bytes.map(when::size)),
            "restarts" => Cell::plain(of.restarts.to_string()),
            "reason" => Cell::plain(crate::escape::escape(&of.reason)),
            "number" => dash(of.number.map(|number| number.to_string())),
            "run" => dash(of.run.as_ref().map(|run| format!("@{run}"))),
            "wish" => Cell::plain(&of.wish),
            "attempt" => Cell::plain(of.attempt.to_string()),
            "started" => dash(of.started_at.as_deref().map(when::date_or_clock)),
            "processes" => live(of.processes.map(|count| count.to_string())),
            _ => dash(of.next_try_at.as_deref().map(when::clock)),
        }
    }

    /// By number where the column is one; a missing value comes last.
    fn sort_key(&self, column: &str) -> (bool, i64, String) {
        let of = &self.of;
        let number = |value: Option<i64>| (value.is_none(), value.unwrap_or(0), String::new());
        let fits = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        match column {
            "pid" => number(of.pid.map(i64::from)),
            "number" => number(of.number.map(fits)),
            "up" => number(of.up_ms.map(fits)),
            "cpu" => number(of.cpu_percent.map(|percent| (percent * 100.0) as i64)),
            "mem" => number(of.memory_bytes.map(fits)),
            "restarts" => number(Some(i64::from(of.restarts))),
            "attempt" => number(Some(i64::from(of.attempt))),
            "processes" => number(of.processes.map(i64::from)),
            other => (false, 0, self.cell(other, true).text),
        }
    }
}

/// Over the whole life of the run: all that a first sample can tell.
fn average(stats: &Stats, up_ms: Option<u64>) -> Option<f64> {
    up_ms
        .filter(|up_ms| *up_ms > 0)
        .map(|up_ms| stats.cpu_ms as f64 * 100.0 / up_ms as f64)
}

/// Whole seconds below a minute: a table that is looked at again should not flicker.
fn age(ms: u64) -> String {
    if ms < 60_000 {
        format!("{}s", ms / 1000)
    } else {
        when::duration(ms)
    }
}

/// `ps`.
pub async fn ps(ctx: &Context, args: &PsArgs) -> Result<u8, Failure> {
    for column in args.columns.iter().chain(args.sort.iter()) {
        let column = column.trim_start_matches('-').to_lowercase();
        if !COLUMNS.contains(&column.as_str()) {
            return Err(Failure::usage(format!("there is no column `{column}`"))
                .hint(format!("columns: {}", COLUMNS.join(" "))));
        }
    }
    if args.watch {
        return watch(ctx, args).await;
    }
    let (rows, jobs, worst) = rows(ctx, args).await?;
    if !ctx.out.is_text() {
        ctx.out.json_list(&rows)?;
        return Ok(worst);
    }
    let (columns, cells) = table(ctx, args, &rows);
    ctx.out.table(&columns, cells)?;
    if ctx.out.terminal {
        let node = ctx.client.node().await.map(|node| node.node).unwrap_or_default();
        ctx.out.line(&footer(ctx, &rows, &jobs, &node))?;
    }
    Ok(worst)
}

/// The lines that the targets select, sorted; the jobs they belong to; the worst exit code of missing targets.
async fn rows(ctx: &Context, args: &PsArgs) -> Result<(Vec<Row>, Vec<Job>, u8), Failure> {
    let jobs = ctx.jobs(true).await?;
    let (selected, worst) = ctx.looked(&args.targets, &jobs).await?;
    let mut rows = Vec::new();
    let mut shown = Vec::new();
    for job in jobs {
        let of_job = |one: &&Selected| one.session == job.session && one.job == job.job;
        let wanted: Vec<&Selected> = selected.iter().filter(of_job).collect();
        if wanted.is_empty() {
            continue;
        }
        let has = |instance: &Instance| {
            wanted.iter().any(|one| match (&one.run, one.instance) {
                (Some(run), _) => instance.run.as_ref() == Some(run),
                (None, Some(n)) => instance.instance == u64::from(n),
                (None, None) => true,
            })
        };
        let instances = job.instances.iter().filter(|instance| has(instance));
        rows.extend(instances.map(|instance| Row::of_instance(&job, instance, false)));
        if job.instances.is_empty() && ctx.out.is_text() {
            rows.push(Row::of_empty(&job));
        }
        let by_run = |one_off: &&Instance| {
            args.all
                || wanted
                    .iter()
                    .any(|one| one.run.is_some() && one.run == one_off.run)
        };
        rows.extend(
            job.one_offs
                .iter()
                .filter(by_run)
                .map(|one_off| Row::of_instance(&job, one_off, true)),
        );
        shown.push(job);
    }
    if let Some(sort) = &args.sort {
        let column = sort.trim_start_matches('-').to_lowercase();
        rows.sort_by_cached_key(|row| row.sort_key(&column));
        if sort.starts_with('-') {
            rows.reverse();
        }
    }
    Ok((rows, shown, worst))
}

fn table(ctx: &Context, args: &PsArgs, rows: &[Row]) -> Table {
    let with_session = with_session(ctx, rows);
    let named: Vec<String> = args.columns.iter().map(|column| column.to_lowercase()).collect();
    let chosen: Vec<&str> = if named.is_empty() {
        shown(ctx.out.width())
    } else {
        named.iter().map(String::as_str).collect()
    };
    let mut columns: Vec<Column> = chosen
        .iter()
        .map(|name| Column {
            title: name.to_uppercase(),
            right: matches!(
                *name,
                "pid" | "number" | "up" | "cpu" | "mem" | "restarts" | "attempt" | "processes"
            ),
        })
        .collect();
    // The glyph would only be in the way of a script.
    if ctx.out.terminal {
        columns.insert(
            0,
            Column {
                title: String::new(),
                right: false,
            },
        );
    }
    let cells = rows
        .iter()
        .map(|row| {
            let (glyph, role) = state(&row.of.state);
            let glyph = ctx.out.terminal.then(|| Cell::role(role, glyph));
            glyph
                .into_iter()
                .chain(chosen.iter().map(|column| row.cell(column, with_session)))
                .collect()
        })
        .collect();
    (columns, cells)
}

/// On a narrow terminal the figures go first: what it is and why is what somebody looks for.
fn shown(width: Option<usize>) -> Vec<&'static str> {
    let without: &[&str] = match width.unwrap_or(usize::MAX) {
        0..46 => &["pid", "up", "cpu", "mem", "restarts"],
        46..60 => &["cpu", "mem", "restarts"],
        60..72 => &["cpu", "mem"],
        _ => &[],
    };
    SHOWN
        .into_iter()
        .filter(|column| !without.contains(column))
        .collect()
}

/// Full names where short ones could be mistaken.
fn with_session(ctx: &Context, rows: &[Row]) -> bool {
    match &ctx.scope {
        Scope::All => true,
        Scope::One(session) => rows.iter().any(|row| row.session != *session),
    }
}

fn footer(ctx: &Context, rows: &[Row], jobs: &[Job], node: &str) -> String {
    let instances: Vec<&Row> = rows
        .iter()
        .filter(|row| !row.one_off && row.instance.is_some())
        .collect();
    let running = instances.iter().filter(|row| row.of.state == "running").count();
    let mut sessions: Vec<&str> = jobs.iter().map(|job| job.session.as_str()).collect();
    sessions.dedup();
    let session = match sessions.as_slice() {
        [one] => (*one).to_owned(),
        [] => {
            return ctx
                .out
                .dim("no jobs                add some:  gaffer apply, or gaffer job add NAME -- CMD");
        }
        several => format!("{} sessions", several.len()),
    };
    let plural = if jobs.len() == 1 { "" } else { "s" };
    let left = format!(
        "{session} on {node} · {} job{plural} · {running} of {} instances running",
        jobs.len(),
        instances.len()
    );
    let bad = rows.iter().find(|row| state(&row.of.state).1 == Role::Bad);
    let right = bad
        .map(|row| format!("why? gaffer why {}", row.name(with_session(ctx, rows))))
        .unwrap_or_default();
    let width = ctx.out.width().unwrap_or(80).min(100);
    let pad = width
        .saturating_sub(left.chars().count() + right.chars().count())
        .max(2);
    let line = if right.is_empty() {
        left
    } else {
        format!("{left}{}{right}", " ".repeat(pad))
    };
    ctx.out.dim(&cut(&line, ctx.out.width().unwrap_or(usize::MAX)))
}

/// Redraws on a terminal whenever something happened, and every two seconds for the figures; in a pipe prints a line
/// for each change.
async fn watch(ctx: &Context, args: &PsArgs) -> Result<u8, Failure> {
    let mut events = ctx.client.events(Some("end"), true, None).await.ok();
    let node = ctx.client.node().await?.node;
    let mut before: BTreeMap<String, String> = BTreeMap::new();
    if ctx.out.terminal {
        ctx.out.bytes(b"\x1b[2J")?;
    }
    loop {
        let (rows, jobs, _) = rows(ctx, args).await?;
        if ctx.out.terminal {
            draw(ctx, args, &rows, &jobs, &node)?;
        } else {
            changes(ctx, &rows, &mut before)?;
        }
        ctx.out.flush()?;
        let next = async {
            match &mut events {
                Some(stream) => stream.next().await.is_some(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            more = next => if !more { events = None },
            () = tokio::time::sleep(SAMPLE_EVERY) => {}
            () = interrupted() => return Ok(0),
        }
    }
}

fn draw(ctx: &Context, args: &PsArgs, rows: &[Row], jobs: &[Job], node: &str) -> Result<(), Failure> {
    let (columns, cells) = table(ctx, args, rows);
    let table = lines(&columns, &cells, ctx.out.width(), &ctx.out.paint);
    let room = ctx.out.height().saturating_sub(2).max(1);
    let mut screen = String::from("\x1b[H");
    for line in table.iter().take(room) {
        screen.push_str(line);
        screen.push_str("\x1b[K\n");
    }
    ctx.out.bytes(screen.as_bytes())?;
    let hidden = table.len().saturating_sub(room);
    let last = if hidden > 0 {
        ctx.out.dim(&format!("… {hidden} more"))
    } else {
        footer(ctx, rows, jobs, node)
    };
    ctx.out.bytes(format!("{last}\x1b[K\x1b[J").as_bytes())
}

fn changes(ctx: &Context, rows: &[Row], before: &mut BTreeMap<String, String>) -> Result<(), Failure> {
    let mut now = BTreeMap::new();
    for row in rows {
        let told = format!("{} {}", row.of.state, row.of.reason);
        let name = row.name(with_session(ctx, rows));
        if before.get(&name) != Some(&told) {
            if ctx.out.is_text() {
                ctx.out
                    .line(format!("{} {name}  {told}", when::clock_now()).trim_end())?;
            } else {
                ctx.out.json_line(row)?;
            }
        }
        now.insert(name, told);
    }
    for name in before.keys().filter(|name| !now.contains_key(*name)) {
        if ctx.out.is_text() {
            ctx.out.line(&format!("{} {name}  removed", when::clock_now()))?;
        }
    }
    *before = now;
    Ok(())
}
