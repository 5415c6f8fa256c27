//! `push` and `queue`: put tasks in, look, hold back, withdraw.

use crate::args::queue::{PushArgs, QueueArgs, QueueCommand, QueueTasksArgs};
use crate::commands::job::confirm;
use crate::context::Context;
use crate::escape::escape;
use crate::failure::Failure;
use crate::file::count;
use crate::paint::{Role, state as paint_state};
use crate::table::{Cell, Column};
use crate::when;
use gaffer_api::routes::QueueTasksQuery;
use gaffer_api::types::queue::{
    PushBody, PushRequest, PushedTask, Queue, QueuePause, QueueState, QueuedOutcome, QueuedTask, TaskEdit,
};
use serde_json::Value;
use std::io::{BufRead, Read};
use std::time::{Duration, Instant};

/// The daemon may hold an answer so long.
const HOLD: Duration = Duration::from_secs(20);
/// Tasks of one request of `--lines`.
const AT_ONCE: usize = 1_000;
/// A queue that is drained is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// `queue …`.
pub async fn queue(ctx: &Context, args: QueueArgs) -> Result<u8, Failure> {
    match args.verb {
        QueueCommand::Ls => ls(ctx).await,
        QueueCommand::Show { what } => show(ctx, &what).await,
        QueueCommand::Tasks(args) => tasks(ctx, &args).await,
        QueueCommand::Stats { queue, window } => super::queue_stats::stats(ctx, &queue, &window).await,
        QueueCommand::Pause { queue, running } => {
            let (session, queue) = find(ctx, &queue).await?;
            let pause = QueuePause { running };
            told(ctx, &ctx.client.queue_pause(&session, &queue, &pause).await?)
        }
        QueueCommand::Resume(name) => act(ctx, &name.queue, "resume").await,
        QueueCommand::Close(name) => act(ctx, &name.queue, "close").await,
        QueueCommand::Open(name) => act(ctx, &name.queue, "open").await,
        QueueCommand::Drain { queue, deadline } => drain(ctx, &queue, deadline).await,
        QueueCommand::Cancel(numbers) => each(ctx, &numbers.ids, Each::Cancel).await,
        QueueCommand::Retry { what, state } => retry(ctx, &what, state).await,
        QueueCommand::Edit { id, payload } => edit(ctx, id, &payload).await,
        QueueCommand::Rm(numbers) => {
            let what = count(numbers.ids.len(), "task");
            confirm(ctx, &format!("{what} will be removed. Go on?"))?;
            each(ctx, &numbers.ids, Each::Remove).await
        }
        QueueCommand::Purge { queue, state } => purge(ctx, &queue, state).await,
    }
}

/// Session and name: `thumbs` is one of the current session, else the only one of that name.
pub async fn find(ctx: &Context, text: &str) -> Result<(String, String), Failure> {
    let text = text.strip_prefix("queue:").unwrap_or(text).replace('/', ".");
    if let Some((session, name)) = text.split_once('.') {
        return Ok((session.to_owned(), name.to_owned()));
    }
    let all = ctx.client.queues().await?;
    let named = all.iter().filter(|queue| queue.queue == text);
    Ok((ctx.session_of(named.map(|queue| queue.session.as_str())), text))
}

fn shown_name(ctx: &Context, queue: &Queue) -> String {
    match queue.session == ctx.session() {
        true => queue.queue.clone(),
        false => format!("{}.{}", queue.session, queue.queue),
    }
}

// ── push ──

/// `push`.
pub async fn push(ctx: &Context, args: &PushArgs) -> Result<u8, Failure> {
    let (session, queue) = find(ctx, &args.queue).await?;
    if args.lines {
        return push_lines(ctx, args, &session, &queue).await;
    }
    let payload = match args.payload.as_deref() {
        Some("-") => json(&stdin()?)?,
        Some(text) => json(text)?,
        None => {
            return Err(Failure::usage("which payload?").hint_pair(
                &format!("gaffer push {} '{{\"file\": \"a.jpg\"}}'", args.queue),
                "from standard input:  -   one a line:  --lines",
            ));
        }
    };
    let body = PushBody::One(Box::new(request(args, payload)));
    let pushed = ctx.client.queue_push(&session, &queue, &body).await?;
    if args.wait {
        let id = pushed.first().map_or(0, |one| one.id);
        return wait(ctx, id).await;
    }
    print(ctx, &pushed)?;
    Ok(0)
}

fn request(args: &PushArgs, payload: Value) -> PushRequest {
    let text = |duration: Duration| format!("{}ms", duration.as_millis());
    PushRequest {
        kind: args.kind.clone(),
        payload,
        meta: None,
        priority: args.priority,
        at: args.at.clone(),
        delay: args.delay.map(text),
        unique: args.unique.clone(),
        limit_key: None,
        timeout: args.task_timeout.map(text),
        attempts: None,
    }
}

fn print(ctx: &Context, pushed: &[PushedTask]) -> Result<(), Failure> {
    if !ctx.out.is_text() {
        return match pushed {
            [one] => ctx.out.json(one),
            many => ctx.out.json_list(many),
        };
    }
    for one in pushed {
        ctx.out.line(&one.id.to_string())?;
        if one.duplicate {
            ctx.out
                .talk(&format!("task {} with this key was there already", one.id));
        }
    }
    Ok(())
}

fn stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().lock().read_to_string(&mut text);
    read.map_err(|error| Failure::failed(format!("standard input cannot be read: {error}")))?;
    Ok(text)
}

fn json(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text.trim()).map_err(|error| {
        Failure::usage(format!("the payload is not JSON: {error}")).hint_pair(
            "a text is written with quotes:  '\"hello\"'",
            "an object:  '{\"file\": \"a.jpg\"}'",
        )
    })
}

/// One payload a line. What was pushed before a line that is wrong stays pushed, and is said.
async fn push_lines(ctx: &Context, args: &PushArgs, session: &str, queue: &str) -> Result<u8, Failure> {
    let mut all = 0;
    let mut batch = Vec::new();
    for (number, line) in std::io::stdin().lock().lines().enumerate() {
        let line =
            line.map_err(|error| Failure::failed(format!("standard input cannot be read: {error}")))?;
        if line.trim().is_empty() {
            continue;
        }
        let payload = json(&line).map_err(|mut failure| {
            failure.message = format!(
                "line {}: {}; {} pushed before it",
                number + 1,
                failure.message,
                count(all, "task")
            );
            failure
        })?;
        batch.push(request(args, payload));
        if batch.len() == AT_ONCE {
            all += push_batch(ctx, session, queue, std::mem::take(&mut batch), all).await?;
        }
    }
    if !batch.is_empty() {
        all += push_batch(ctx, session, queue, batch, all).await?;
    }
    ctx.out.say(&format!("{} pushed", count(all, "task")));
    Ok(0)
}

async fn push_batch(
    ctx: &Context,
    session: &str,
    queue: &str,
    batch: Vec<PushRequest>,
    before: usize,
) -> Result<usize, Failure> {
    let pushed = ctx
        .client
        .queue_push(session, queue, &PushBody::Many(batch))
        .await;
    let pushed = pushed.map_err(|error| {
        let mut failure = Failure::from(error);
        failure.message = format!("{} after {}", failure.message, count(before, "task"));
        failure
    })?;
    print(ctx, &pushed)?;
    if (before + pushed.len()).is_multiple_of(10_000) {
        ctx.out
            .talk(&format!("{} pushed", count(before + pushed.len(), "task")));
    }
    Ok(pushed.len())
}

/// Waits for the end of a task; its result is printed.
pub async fn wait(ctx: &Context, id: i64) -> Result<u8, Failure> {
    let deadline = ctx.globals.timeout.map(|timeout| Instant::now() + timeout);
    let outcome = loop {
        let left = deadline.map_or(HOLD, |at| at.saturating_duration_since(Instant::now()).min(HOLD));
        let outcome = ctx.client.queued_wait(id, left).await?;
        let over = ["done", "dead", "cancelled", "lost"].contains(&outcome.state.as_str());
        if over || deadline.is_some_and(|at| at <= Instant::now()) {
            break outcome;
        }
    };
    let good = outcome.state == "done";
    if ctx.out.is_text() {
        say_outcome(ctx, &outcome)?;
    } else {
        ctx.out.json(&outcome)?;
    }
    Ok(u8::from(!good))
}

fn say_outcome(ctx: &Context, outcome: &QueuedOutcome) -> Result<(), Failure> {
    if outcome.state == "done" {
        return match &outcome.result {
            Some(result) => ctx.out.line(&result.to_string()),
            None => Ok(()),
        };
    }
    let why = outcome
        .error
        .as_ref()
        .map(|error| format!(": {}", escape(&error.message)))
        .unwrap_or_default();
    let hint = format!("gaffer queue show {}", outcome.id);
    Err(Failure::failed(format!("task {} is {}{why}", outcome.id, outcome.state)).hint(hint))
}

// ── looking ──

fn column(title: &str, right: bool) -> Column {
    Column {
        title: title.to_owned(),
        right,
    }
}

async fn ls(ctx: &Context) -> Result<u8, Failure> {
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
    let role = match queue.state.as_str() {
        "paused" | "closed" => Role::Dim,
        _ => Role::Ok,
    };
    let glyph = if role == Role::Dim { "stopped" } else { "running" };
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
fn bounded(count: u64) -> String {
    if count >= 100_000 {
        return "100000+".to_owned();
    }
    count.to_string()
}

async fn show(ctx: &Context, what: &str) -> Result<u8, Failure> {
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
    let lines = [
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
        ("file", queue.file.clone()),
    ];
    for (name, value) in lines {
        ctx.out.line(&format!("{name:<10} {}", escape(&value)))?;
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

async fn show_task(ctx: &Context, id: i64) -> Result<u8, Failure> {
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

async fn tasks(ctx: &Context, args: &QueueTasksArgs) -> Result<u8, Failure> {
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

// ── changing ──

fn told(ctx: &Context, queue: &Queue) -> Result<u8, Failure> {
    if !ctx.out.is_text() {
        ctx.out.json(queue)?;
        return Ok(0);
    }
    let state = if queue.summary.is_empty() {
        &queue.state
    } else {
        &queue.summary
    };
    ctx.out.say(&format!("{}  {state}", shown_name(ctx, queue)));
    Ok(0)
}

async fn act(ctx: &Context, queue: &str, verb: &str) -> Result<u8, Failure> {
    let (session, queue) = find(ctx, queue).await?;
    told(ctx, &ctx.client.queue_act(&session, &queue, verb).await?)
}

/// Nothing new is taken; what waits and runs is waited for.
async fn drain(ctx: &Context, queue: &str, deadline: Option<Duration>) -> Result<u8, Failure> {
    let (session, name) = find(ctx, queue).await?;
    ctx.client.queue_act(&session, &name, "close").await?;
    let until = deadline
        .or(ctx.globals.timeout)
        .map(|deadline| Instant::now() + deadline);
    loop {
        let now = ctx.client.queue(&session, &name, false).await?;
        if now.waiting == 0 && now.running == 0 {
            return told(ctx, &now);
        }
        if now.paused {
            return Err(
                Failure::conflict(format!("{name} is paused: it would never be empty"))
                    .hint(format!("gaffer queue resume {queue}")),
            );
        }
        if until.is_some_and(|until| until <= Instant::now()) {
            let left = format!(
                "{} waiting and {} running are left",
                bounded(now.waiting),
                now.running
            );
            return Err(Failure::failed(format!("{name} is not empty: {left}"))
                .hint(format!("take tasks again:  gaffer queue open {queue}")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What is done to each of several tasks.
#[derive(Clone, Copy)]
enum Each {
    Cancel,
    Retry,
    Remove,
}

/// All are tried; the worst exit code counts.
async fn each(ctx: &Context, ids: &[i64], what: Each) -> Result<u8, Failure> {
    let mut worst = 0;
    let mut done = Vec::new();
    for id in ids {
        let outcome = match what {
            Each::Cancel => ctx.client.queued_cancel(*id).await,
            Each::Retry => ctx.client.queued_retry(*id).await,
            Each::Remove => ctx.client.queued_remove(*id).await,
        };
        match outcome {
            Ok(task) => {
                if ctx.out.is_text() {
                    ctx.out.line(&format!("{}  {}", task.id, task.state))?;
                }
                done.push(task);
            }
            Err(error) => {
                let failure = Failure::from(error);
                worst = worst.max(failure.exit);
                ctx.out.fail(&failure);
            }
        }
    }
    if !ctx.out.is_text() {
        match done.as_slice() {
            [one] => ctx.out.json(one)?,
            many => ctx.out.json_list(many)?,
        }
    }
    Ok(worst)
}

async fn retry(ctx: &Context, what: &[String], state: Option<String>) -> Result<u8, Failure> {
    if let Some(state) = state {
        let [queue] = what else {
            return Err(Failure::usage("--state is for all tasks of one queue"));
        };
        let (session, queue) = find(ctx, queue).await?;
        let again = ctx
            .client
            .queue_retry(&session, &queue, &QueueState { state })
            .await?;
        if !ctx.out.is_text() {
            ctx.out.json(&again)?;
            return Ok(0);
        }
        let size = usize::try_from(again.count).unwrap_or(usize::MAX);
        ctx.out.say(&format!("{} queued again", count(size, "task")));
        return Ok(0);
    }
    let mut ids = Vec::with_capacity(what.len());
    for text in what {
        ids.push(text.parse().map_err(|_| {
            Failure::usage(format!("`{}` is not the number of a task", text.escape_debug())).hint(format!(
                "all dead tasks of a queue:  gaffer queue retry {text} --state dead"
            ))
        })?);
    }
    each(ctx, &ids, Each::Retry).await
}

async fn edit(ctx: &Context, id: i64, payload: &str) -> Result<u8, Failure> {
    let payload = if payload == "-" {
        json(&stdin()?)?
    } else {
        json(payload)?
    };
    let task = ctx.client.queued_edit(id, &TaskEdit { payload }).await?;
    if !ctx.out.is_text() {
        ctx.out.json(&task)?;
        return Ok(0);
    }
    ctx.out.line(&task.id.to_string())?;
    Ok(0)
}

async fn purge(ctx: &Context, queue: &str, state: String) -> Result<u8, Failure> {
    let (session, name) = find(ctx, queue).await?;
    confirm(
        ctx,
        &format!("all {state} tasks of {name} will be removed. Go on?"),
    )?;
    let gone = ctx
        .client
        .queue_purge(&session, &name, &QueueState { state })
        .await?;
    if !ctx.out.is_text() {
        ctx.out.json(&gone)?;
        return Ok(0);
    }
    let size = usize::try_from(gone.count).unwrap_or(usize::MAX);
    ctx.out.say(&format!("{} removed", count(size, "task")));
    Ok(0)
}
