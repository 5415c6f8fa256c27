//! `queue ls`, `show` and `tasks`: what waits, what runs, what failed.

use super::queue::{find, shown_name};
use crate::args::queue::QueueTasksArgs;
use crate::context::Context;
use crate::escape::escape;
use crate::failure::Failure;
use crate::paint::{Role, state as paint_state};
use crate::table::{Cell, Column};
use crate::when;
use gaffer_api::routes::QueueTasksQuery;
use gaffer_api::types::queue::{Queue, QueuedTask};

fn column(title: &str, right: bool) -> Column {
    Column {
        title: title.to_owned(),
        right,
    }
}

/// `queue ls`.
pub async fn ls(ctx: &Context) -> Result<u8, Failure> {
    let mut queues = ctx.client.queues().await?;
    if !ctx.scope_is_fallback {
        queues.retain(|queue| ctx.scope.holds(&queue.session));
    }
    if !ctx.out.is_text() {
        ctx.out.json_list(&queues)?;
        return Ok(0);
    }
    if queues.is_empty() {
        ctx.out.say("no queues; they are written in a file: [queue.NAME]");
        return Ok(0);
    }
    let columns = [
        column("", false),
        column("QUEUE", false),
        column("WAITING", true),
        column("OLDEST", true),
        column("RUNNING", true),
        column("WORKERS", true),
        column("SCHEDULED", true),
        column("DEAD", true),
        column("DONE/MIN", true),
        column("STATE", false),
    ];
    let rows = queues.iter().map(|queue| row(ctx, queue)).collect();
    ctx.out.table(&columns, rows)?;
    Ok(0)
}

fn row(ctx: &Context, queue: &Queue) -> Vec<Cell> {
    let (role, glyph) = match queue.state.as_str() {
        "paused" | "closed" => (Role::Dim, "stopped"),
        _ if !queue.alerts.is_empty() || queue.state == "unreachable" => (Role::Warn, "degraded"),
        _ => (Role::Ok, "running"),
    };
    let state = if queue.summary.is_empty() {
        &queue.state
    } else {
        &queue.summary
    };
    let dead = if queue.dead > 0 { Role::Warn } else { Role::Plain };
    let oldest = queue.oldest_ms.map_or_else(|| "-".to_owned(), when::duration);
    vec![
        Cell::role(paint_state(glyph).1, paint_state(glyph).0),
        Cell::name(shown_name(ctx, queue)),
        Cell::plain(bounded(queue.waiting)),
        Cell::plain(oldest),
        Cell::plain(queue.running.to_string()),
        Cell::plain(format!("{} of {}", queue.busy, queue.workers)),
        Cell::plain(bounded(queue.scheduled)),
        Cell::role(dead, bounded(queue.dead)),
        Cell::plain(queue.done_per_min.to_string()),
        Cell::role(role, state),
    ]
}

/// Nobody counts further than this.
pub fn bounded(count: u64) -> String {
    if count >= 100_000 {
        return "100000+".to_owned();
    }
    count.to_string()
}

/// `queue show`.
pub async fn show(ctx: &Context, what: &str) -> Result<u8, Failure> {
    if let Ok(id) = what.parse::<i64>() {
        return show_task(ctx, id).await;
    }
    let (session, name) = find(ctx, what).await?;
    let queue = ctx.client.queue(&session, &name, true).await?;
    if !ctx.out.is_text() {
        ctx.out.json(&queue)?;
        return Ok(0);
    }
    let state = if queue.summary.is_empty() {
        &queue.state
    } else {
        &queue.summary
    };
    let mut lines = vec![
        ("queue", format!("{}.{}", queue.session, queue.queue)),
        ("state", state.clone()),
        ("delivery", queue.delivery.clone()),
        ("waiting", format!("{}{}", bounded(queue.waiting), oldest(&queue))),
        (
            "running",
            format!(
                "{} ({} of {} workers here)",
                queue.running, queue.busy, queue.workers
            ),
        ),
        ("scheduled", bounded(queue.scheduled)),
        ("dead", bounded(queue.dead)),
        ("done/min", queue.done_per_min.to_string()),
        ("store", queue.store.clone()),
        ("file", queue.file.clone()),
    ];
    if let Some(pool) = &queue.pool {
        let busy = format!("{} of {} workers busy", pool.busy, pool.workers);
        lines.insert(
            5,
            ("pool", format!("{}: {busy}, weight {}", pool.name, pool.weight)),
        );
    }
    for (name, value) in lines {
        ctx.out.line(&format!("{name:<10} {}", escape(&value)))?;
    }
    for alert in &queue.alerts {
        let since = when::date_or_clock(&alert.since_at);
        let line = format!("{:<10} {}  since {since}", "alert", escape(&alert.text));
        ctx.out.line(&line)?;
    }
    if queue.dead > 0 {
        ctx.out
            .talk(&format!("look at them:  gaffer queue tasks {what} --state dead"));
    }
    Ok(0)
}

fn oldest(queue: &Queue) -> String {
    queue
        .oldest_ms
        .map(|age| format!(", the oldest for {}", when::duration(age)))
        .unwrap_or_default()
}

/// `queue show ID`.
pub async fn show_task(ctx: &Context, id: i64) -> Result<u8, Failure> {
    let task = ctx.client.queued_task(id).await?;
    if !ctx.out.is_text() {
        ctx.out.json(&task)?;
        return Ok(0);
    }
    let mut lines = vec![
        ("task", format!("{} of {}.{}", task.id, task.session, task.queue)),
        ("state", format!("{}  {}", task.state, task.summary)),
    ];
    lines.extend(task.kind.clone().map(|kind| ("kind", kind)));
    lines.push(("payload", task.payload.to_string()));
    lines.push(("pushed", when::date_or_clock(&task.created_at)));
    lines.extend(task.owner.clone().map(|owner| ("owner", owner)));
    lines.extend(task.unique.clone().map(|unique| ("unique", unique)));
    lines.extend(task.result.as_ref().map(|result| ("result", result.to_string())));
    lines.extend(
        task.expires_at
            .as_ref()
            .map(|at| ("kept until", when::date_or_clock(at))),
    );
    for (name, value) in lines {
        ctx.out.line(&format!("{name:<10} {}", escape(&value)))?;
    }
    for attempt in &task.attempts {
        let why = attempt
            .error
            .as_ref()
            .map(|error| format!("  {}", error.message))
            .unwrap_or_default();
        let at = when::date_or_clock(&attempt.ended_at);
        let line = format!("attempt {}  {at}  {}{why}", attempt.attempt, attempt.outcome);
        ctx.out.line(&escape(&line))?;
    }
    if let Some(error) = &task.error {
        for line in error
            .output
            .lines()
            .rev()
            .take(10)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            ctx.out
                .line(&ctx.out.dim(&format!("  {} {}", bar(), escape(line))))?;
        }
    }
    Ok(0)
}

fn bar() -> &'static str {
    if crate::paint::is_utf8() { "│" } else { "|" }
}

/// Tasks that are asked for at once.
const PAGE: usize = 1_000;

/// `queue tasks`.
pub async fn tasks(ctx: &Context, args: &QueueTasksArgs) -> Result<u8, Failure> {
    let (session, queue) = find(ctx, &args.queue).await?;
    let mut which = QueueTasksQuery {
        state: args.state.clone(),
        kind: args.kind.clone(),
        since: args.since.clone(),
        limit: None,
        cursor: None,
    };
    let mut tasks = Vec::new();
    loop {
        let most = args.n.saturating_sub(tasks.len()).min(PAGE);
        if most == 0 {
            break;
        }
        which.limit = Some(most);
        let page = ctx.client.queue_tasks(&session, &queue, &which).await?;
        which.cursor = page.last().map(|task| task.id);
        let last = page.len() < most;
        tasks.extend(page);
        if last {
            break;
        }
    }
    if !ctx.out.is_text() {
        ctx.out.json_list(&tasks)?;
        return Ok(0);
    }
    if tasks.is_empty() {
        ctx.out.say("no such tasks");
        return Ok(0);
    }
    let columns = [
        column("ID", true),
        column("STATE", false),
        column("KIND", false),
        column("PUSHED", false),
        column("TRIES", true),
        column("PAYLOAD", false),
        column("REASON", false),
    ];
    let rows = tasks.iter().map(task_row).collect();
    ctx.out.table(&columns, rows)?;
    Ok(0)
}

fn task_row(task: &QueuedTask) -> Vec<Cell> {
    let role = match task.state.as_str() {
        "done" => Role::Ok,
        "running" => Role::Busy,
        "dead" | "lost" => Role::Bad,
        "scheduled" if task.error.is_some() => Role::Warn,
        _ => Role::Plain,
    };
    let mut payload: String = escape(&task.payload.to_string()).into_owned();
    if payload.chars().count() > 40 {
        payload = payload.chars().take(39).collect::<String>() + "…";
    }
    vec![
        Cell::plain(task.id.to_string()),
        Cell::role(role, &task.state),
        Cell::plain(escape(task.kind.as_deref().unwrap_or_default())),
        Cell::plain(when::date_or_clock(&task.created_at)),
        Cell::plain(task.attempt.to_string()),
        Cell::plain(payload),
        Cell::plain(escape(&task.summary)),
    ]
}
