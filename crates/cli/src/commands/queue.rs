//! `push` and `queue`: put tasks in, look, hold back, withdraw.

use super::queue_look::{self, bounded};
use crate::args::queue::{PushArgs, QueueArgs, QueueCommand};
use crate::commands::job::confirm;
use crate::context::Context;
use crate::escape::escape;
use crate::failure::Failure;
use crate::file::count;
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
        QueueCommand::Ls => queue_look::ls(ctx).await,
        QueueCommand::Show { what } => queue_look::show(ctx, &what).await,
        QueueCommand::Tasks(args) => queue_look::tasks(ctx, &args).await,
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
        QueueCommand::Cancel { numbers, wait } => cancel(ctx, &numbers.ids, wait.no_wait).await,
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

/// Its name, with the session if that is not the current one.
pub fn shown_name(ctx: &Context, queue: &Queue) -> String {
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
        if let Some(payload) = args.payload.as_deref().filter(|payload| *payload != "-") {
            let message = format!("--lines reads payloads from standard input; {payload} is one more");
            let hint = format!("gaffer push {} --lines < FILE", args.queue);
            return Err(Failure::usage(message).hint(&hint));
        }
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
    put(ctx, &session, &queue, request(args, payload), args.wait).await
}

/// Pushes one task, and prints its number, or waits for its end.
pub async fn put(
    ctx: &Context,
    session: &str,
    queue: &str,
    request: PushRequest,
    until_over: bool,
) -> Result<u8, Failure> {
    let body = PushBody::One(Box::new(request));
    let pushed = ctx.client.queue_push(session, queue, &body).await?;
    if until_over {
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
    let outcome = ended(ctx, id, deadline).await?;
    let good = outcome.state == "done";
    if ctx.out.is_text() {
        say_outcome(ctx, &outcome)?;
    } else {
        ctx.out.json(&outcome)?;
    }
    Ok(u8::from(!good))
}

fn is_over(state: &str) -> bool {
    ["done", "dead", "cancelled", "lost"].contains(&state)
}

/// How a task ended; how it is when the time is over.
async fn ended(ctx: &Context, id: i64, deadline: Option<Instant>) -> Result<QueuedOutcome, Failure> {
    loop {
        let left = deadline.map_or(HOLD, |at| at.saturating_duration_since(Instant::now()).min(HOLD));
        let outcome = ctx.client.queued_wait(id, left).await?;
        if is_over(&outcome.state) || deadline.is_some_and(|at| at <= Instant::now()) {
            return Ok(outcome);
        }
    }
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
    Retry,
    Remove,
}

/// All are asked to end, then waited for. One that is over already is not.
async fn cancel(ctx: &Context, ids: &[i64], no_wait: bool) -> Result<u8, Failure> {
    let mut worst = 0;
    let mut asked = Vec::new();
    for id in ids {
        match ctx.client.queued_cancel(*id).await {
            Ok(task) => asked.push(task),
            Err(error) => {
                let failure = Failure::from(error);
                worst = worst.max(failure.exit);
                ctx.out.fail(&failure);
            }
        }
    }
    let deadline = ctx.globals.timeout.map(|timeout| Instant::now() + timeout);
    for task in &mut asked {
        if !no_wait && !is_over(&task.state) {
            task.state = ended(ctx, task.id, deadline).await?.state;
            task.summary.clear();
        }
        // Asked only, it may still be running; waited for, it may have been faster than the request.
        let failed = !no_wait && task.state != "cancelled";
        worst = worst.max(u8::from(failed));
        if ctx.out.is_text() {
            ctx.out.line(&format!("{}  {}", task.id, task.state))?;
        }
        if failed && !is_over(&task.state) {
            let hint = format!("gaffer wait task:{}", task.id);
            ctx.out.fail(
                &Failure::failed(format!("task {} was asked to end and is not over yet", task.id)).hint(hint),
            );
        }
    }
    documents(ctx, &asked)?;
    Ok(worst)
}

/// One document for one task, a list for several.
fn documents(ctx: &Context, tasks: &[QueuedTask]) -> Result<(), Failure> {
    match tasks {
        _ if ctx.out.is_text() => Ok(()),
        [one] => ctx.out.json(one),
        many => ctx.out.json_list(many),
    }
}

/// All are tried; the worst exit code counts.
async fn each(ctx: &Context, ids: &[i64], what: Each) -> Result<u8, Failure> {
    let mut worst = 0;
    let mut done = Vec::new();
    for id in ids {
        let outcome = match what {
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
    documents(ctx, &done)?;
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
