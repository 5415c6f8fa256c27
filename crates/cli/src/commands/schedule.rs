//! `schedule`: look at schedules, hold them back, act now.

use crate::args::FileArgs;
use crate::connect::EXIT_UNREACHABLE;
use crate::context::Context;
use crate::escape::escape;
use crate::failure::Failure;
use crate::file;
use crate::paint::{Role, state as paint_state};
use crate::table::{Cell, Column};
use crate::when;
use clap::{Args, Subcommand};
use gaffer_api::types::schedule::{Schedule, ScheduleTick};
use gaffer_config::Wall;

/// `schedule`.
#[derive(Args, Debug)]
pub struct ScheduleArgs {
    #[command(subcommand)]
    pub verb: ScheduleCommand,
}

/// `schedule …`.
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// List schedules
    #[command(after_help = crate::help_queue::SCHEDULE_LS)]
    Ls,
    /// Show a schedule
    #[command(after_help = crate::help_queue::SCHEDULE_SHOW)]
    Show(ScheduleName),
    /// Hold a schedule back
    #[command(after_help = crate::help_queue::SCHEDULE_PAUSE)]
    Pause(ScheduleName),
    /// Let a schedule go on
    #[command(after_help = crate::help_queue::SCHEDULE_RESUME)]
    Resume(ScheduleName),
    /// Act now, whatever the clock says
    #[command(after_help = crate::help_queue::SCHEDULE_TRIGGER)]
    Trigger(ScheduleName),
    /// Show when it ticks next; works without a daemon
    #[command(after_help = crate::help_queue::SCHEDULE_NEXT)]
    Next {
        /// NAME or SESSION.NAME
        #[arg(value_name = "SCHEDULE")]
        schedule: String,
        /// So many
        #[arg(short, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
        n: u32,
        /// After this time; now
        #[arg(long, value_name = "T")]
        from: Option<String>,
    },
}

/// A schedule.
#[derive(Args, Clone, Debug)]
pub struct ScheduleName {
    /// NAME or SESSION.NAME
    #[arg(value_name = "SCHEDULE")]
    pub schedule: String,
}

/// `schedule …`.
pub async fn schedule(ctx: &Context, verb: &ScheduleCommand) -> Result<u8, Failure> {
    match verb {
        ScheduleCommand::Ls => ls(ctx).await,
        ScheduleCommand::Show(name) => show(ctx, &name.schedule).await,
        ScheduleCommand::Pause(name) => {
            let (session, name) = find(ctx, &name.schedule).await?;
            told(ctx, &ctx.client.schedule_pause(&session, &name).await?)
        }
        ScheduleCommand::Resume(name) => {
            let (session, name) = find(ctx, &name.schedule).await?;
            told(ctx, &ctx.client.schedule_resume(&session, &name).await?)
        }
        ScheduleCommand::Trigger(name) => trigger(ctx, &name.schedule).await,
        ScheduleCommand::Next { schedule, n, from } => next(ctx, schedule, *n, from.as_deref()).await,
    }
}

/// Session and name: `nightly` is one of the current session, else the only one of that name.
pub async fn find(ctx: &Context, text: &str) -> Result<(String, String), Failure> {
    let text = plain(text);
    if let Some((session, name)) = text.split_once('.') {
        return Ok((session.to_owned(), name.to_owned()));
    }
    let all = ctx.client.schedules().await?;
    let named = all.iter().filter(|one| one.schedule == text);
    Ok((ctx.session_of(named.map(|one| one.session.as_str())), text))
}

fn plain(text: &str) -> String {
    text.strip_prefix("schedule:")
        .unwrap_or(text)
        .replacen('/', ".", 1)
}

fn shown_name(ctx: &Context, schedule: &Schedule) -> String {
    match schedule.session == ctx.session() {
        true => schedule.schedule.clone(),
        false => format!("{}.{}", schedule.session, schedule.schedule),
    }
}

fn rule(schedule: &Schedule) -> String {
    match schedule.zone.as_str() {
        "UTC" => schedule.when.clone(),
        zone => format!("{} {zone}", schedule.when),
    }
}

async fn ls(ctx: &Context) -> Result<u8, Failure> {
    let mut schedules = ctx.client.schedules().await?;
    if !ctx.scope_is_fallback {
        schedules.retain(|one| ctx.scope.holds(&one.session));
    }
    if !ctx.out.is_text() {
        ctx.out.json_list(&schedules)?;
        return Ok(0);
    }
    if schedules.is_empty() {
        ctx.out
            .say("no schedules; they are written in a file: [schedule.NAME]");
        return Ok(0);
    }
    let column = |title: &str| Column {
        title: title.to_owned(),
        right: false,
    };
    let columns = ["", "SCHEDULE", "WHEN", "DOES", "NEXT", "LAST", "STATE"].map(column);
    let rows = schedules.iter().map(|one| row(ctx, one)).collect();
    ctx.out.table(&columns, rows)?;
    Ok(0)
}

fn row(ctx: &Context, schedule: &Schedule) -> Vec<Cell> {
    let (glyph, role) = match schedule.state.as_str() {
        "paused" | "over" => ("stopped", Role::Dim),
        _ => ("running", Role::Ok),
    };
    let shown = |at: &Option<String>| at.as_deref().map_or_else(|| "-".to_owned(), when::date_or_clock);
    let state = match (&schedule.last_skipped, schedule.summary.is_empty()) {
        (_, false) => schedule.summary.clone(),
        (Some(why), true) => format!("{}, skipped: {why}", schedule.state),
        (None, true) => schedule.state.clone(),
    };
    let role = if schedule.last_skipped.is_some() {
        Role::Warn
    } else {
        role
    };
    vec![
        Cell::role(paint_state(glyph).1, paint_state(glyph).0),
        Cell::name(shown_name(ctx, schedule)),
        Cell::plain(rule(schedule)),
        Cell::plain(&schedule.does),
        Cell::plain(shown(&schedule.next_at)),
        Cell::plain(shown(&schedule.last_at)),
        Cell::role(role, escape(&state)),
    ]
}

/// `schedule show`.
pub async fn show(ctx: &Context, name: &str) -> Result<u8, Failure> {
    let (session, name) = find(ctx, name).await?;
    let schedule = ctx.client.schedule(&session, &name, true).await?;
    if !ctx.out.is_text() {
        ctx.out.json(&schedule)?;
        return Ok(0);
    }
    let state = match schedule.summary.as_str() {
        "" => schedule.state.clone(),
        summary => format!("{}  {summary}", schedule.state),
    };
    let mut lines = vec![
        ("schedule", format!("{}.{}", schedule.session, schedule.schedule)),
        ("state", state),
        ("when", rule(&schedule)),
        ("does", schedule.does.clone()),
        (
            "next",
            schedule.next_local.clone().unwrap_or_else(|| "-".to_owned()),
        ),
    ];
    if let Some(at) = &schedule.last_at {
        let became = schedule.last_became.as_deref().unwrap_or("nothing");
        lines.push(("last", format!("{}  {became}", when::date_or_clock(at))));
    }
    lines.extend(schedule.last_skipped.clone().map(|why| ("skipped", why)));
    lines.extend(
        schedule
            .waiting_at
            .as_deref()
            .map(|at| ("waits", when::date_or_clock(at))),
    );
    lines.push(("file", schedule.file.clone()));
    for (name, value) in lines {
        ctx.out.line(&format!("{name:<10} {}", escape(&value)))?;
    }
    Ok(0)
}

fn told(ctx: &Context, schedule: &Schedule) -> Result<u8, Failure> {
    if !ctx.out.is_text() {
        ctx.out.json(schedule)?;
        return Ok(0);
    }
    let next = match &schedule.next_local {
        Some(next) => format!(", next {next}"),
        None => String::new(),
    };
    ctx.out.say(&format!(
        "{}: {}{next}",
        shown_name(ctx, schedule),
        schedule.state
    ));
    Ok(0)
}

async fn trigger(ctx: &Context, name: &str) -> Result<u8, Failure> {
    let (session, name) = find(ctx, name).await?;
    let triggered = ctx.client.schedule_trigger(&session, &name).await?;
    if !ctx.out.is_text() {
        ctx.out.json(&triggered)?;
        return Ok(0);
    }
    match triggered.became {
        Some(became) => ctx.out.line(&became)?,
        None => ctx.out.say("it waits for the end of the one before it"),
    }
    Ok(0)
}

async fn next(ctx: &Context, name: &str, count: u32, from: Option<&str>) -> Result<u8, Failure> {
    let from = from.map(when::instant).transpose()?;
    let ticks = match asked(ctx, name, count, from.as_deref()).await {
        Err(failure) if failure.exit == EXIT_UNREACHABLE => {
            of_file(ctx, name, count, from.as_deref(), failure)?
        }
        ticks => ticks?,
    };
    if !ctx.out.is_text() {
        ctx.out.json_list(&ticks)?;
        return Ok(0);
    }
    for tick in &ticks {
        ctx.out.line(&tick.local)?;
    }
    if ticks.is_empty() {
        ctx.out.say("there is no next time");
    }
    Ok(0)
}

async fn asked(
    ctx: &Context,
    name: &str,
    count: u32,
    from: Option<&str>,
) -> Result<Vec<ScheduleTick>, Failure> {
    let (session, name) = find(ctx, name).await?;
    Ok(ctx.client.schedule_next(&session, &name, count, from).await?)
}

/// Without a daemon, from the file here.
fn of_file(
    ctx: &Context,
    name: &str,
    count: u32,
    from: Option<&str>,
    no_daemon: Failure,
) -> Result<Vec<ScheduleTick>, Failure> {
    if file::find(None).is_none() {
        return Err(no_daemon);
    }
    let bundle = file::gather_here(&ctx.out, &FileArgs::default())?;
    let config = file::load(&ctx.out, &bundle)?;
    let text = plain(name);
    let found = config.schedules.values().find(|one| {
        let same_session = ctx.scope.holds(one.id.session.as_str()) || text.contains('.');
        one.id.to_string() == text || same_session && one.id.job.as_str() == text
    });
    let Some(found) = found else {
        let message = format!("no schedule `{text}` in {}", file::shown(&config.file));
        return Err(Failure::not_found(message));
    };
    let from = from.and_then(|from| from.parse::<jiff::Timestamp>().ok());
    let from = Wall(from.unwrap_or_else(jiff::Timestamp::now).as_millisecond());
    let mut after = from;
    let mut ticks = Vec::new();
    for _ in 0..count {
        let Some(at) = found.calendar.next(from, after) else {
            break;
        };
        let utc =
            jiff::Timestamp::from_millisecond(at.0).map_err(|error| Failure::failed(error.to_string()))?;
        ticks.push(ScheduleTick {
            at: utc.to_string(),
            local: found.calendar.local(at),
        });
        after = at;
    }
    Ok(ticks)
}
