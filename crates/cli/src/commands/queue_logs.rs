//! `logs` and `why` of queues, their tasks and schedules.

use super::logs::{Printer, follow, past, query};
use super::queue::{find, shown_name};
use super::{queue_look, schedule};
use crate::args::{Format, LogsArgs, WhyArgs};
use crate::context::Context;
use crate::escape::escape;
use crate::failure::Failure;
use crate::table::{Cell, Column};
use crate::target::Selected;
use crate::when;
use futures_util::StreamExt;
use gaffer_api::error::Code;
use gaffer_api::routes::{LogQuery, QueueTasksQuery};
use gaffer_api::types::queue::{Queue, QueuedTask};

/// A queue, or one of its tasks.
#[derive(Clone, Debug)]
pub struct Whose {
    session: String,
    queue: String,
    task: Option<i64>,
}

/// `queue:NAME`.
pub async fn of_queue(ctx: &Context, name: &str) -> Result<Whose, Failure> {
    let (session, queue) = find(ctx, name).await?;
    Ok(Whose {
        session,
        queue,
        task: None,
    })
}

/// The run of a queued task whose work is a task of steps: its newest one.
pub async fn run_of(ctx: &Context, id: i64) -> Result<Option<String>, Failure> {
    let task = match ctx.client.queued_task(id).await {
        Ok(task) => task,
        // Its output may be kept.
        Err(error) if error.code() == Some(Code::TaskNotFound) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let queue = ctx.client.queue(&task.session, &task.queue, true).await?;
    let name = queue.spec.as_ref().and_then(|spec| spec.get("task")?.as_str());
    let session = match task.session.as_str() {
        "default" => String::new(),
        other => format!("{other}."),
    };
    Ok(name.map(|name| format!("{session}{name}-q{id}-{}", task.token)))
}

/// `task:7`. The row of a task that is over may be gone while its output is kept: then its queue is looked for.
pub async fn of_task(ctx: &Context, id: i64) -> Result<Whose, Failure> {
    let error = match ctx.client.queued_task(id).await {
        Ok(task) => {
            return Ok(Whose {
                session: task.session,
                queue: task.queue,
                task: Some(id),
            });
        }
        Err(error) if error.code() == Some(Code::TaskNotFound) => error,
        Err(error) => return Err(error.into()),
    };
    for queue in ctx.client.queues().await? {
        let wanted = LogQuery {
            tail: Some(1),
            ..LogQuery::default()
        };
        let found = ctx
            .client
            .queue_logs(&queue.session, &queue.queue, Some(id), &wanted)
            .await;
        if let Ok(mut lines) = found
            && lines.next().await.is_some()
        {
            return Ok(Whose {
                session: queue.session,
                queue: queue.queue,
                task: Some(id),
            });
        }
    }
    Err(error.into())
}

/// `logs queue:NAME`, `logs task:7`.
pub async fn logs(ctx: &Context, args: &LogsArgs, whose: &[Whose]) -> Result<u8, Failure> {
    if ctx.out.format() == Format::Raw {
        let failure = Failure::usage("the output of a queue is of many runs: --format raw is for jobs");
        return Err(failure.hint("its lines:  gaffer logs queue:NAME --json"));
    }
    let query = query(args)?;
    let tail = query.tail.and_then(|tail| usize::try_from(tail).ok());
    let mut streams = Vec::with_capacity(whose.len());
    for one in whose {
        let wanted = LogQuery {
            run: args
                .run
                .as_deref()
                .map(|run| run.trim_start_matches('@').to_owned()),
            // A task has so many lines as it has.
            tail: query.tail.filter(|_| one.task.is_none() || args.lines.is_some()),
            ..query.clone()
        };
        streams.push(
            ctx.client
                .queue_logs(&one.session, &one.queue, one.task, &wanted)
                .await?,
        );
    }
    let selected: Vec<Selected> = whose
        .iter()
        .map(|one| Selected {
            session: one.session.clone(),
            job: one.queue.clone(),
            instance: None,
            run: None,
        })
        .collect();
    let mut printer = Printer::new(ctx, &selected);
    if args.follow {
        follow(ctx, streams, tail, &mut printer).await?;
    } else {
        past(streams, tail, &mut printer).await?;
    }
    printer.end()?;
    Ok(0)
}

/// What a schedule did last: `task:ID`, or the number of a queued task.
pub async fn of_schedule(ctx: &Context, name: &str) -> Result<String, Failure> {
    let (session, name) = schedule::find(ctx, name).await?;
    let schedule = ctx.client.schedule(&session, &name, false).await?;
    let Some(became) = schedule.last_became else {
        let message = format!("schedule {name} has done nothing yet that has output");
        return Err(Failure::not_found(message).hint(format!("when it will:  gaffer schedule next {name}")));
    };
    if became.starts_with("op-") {
        let message = format!(
            "schedule {name} does: {}; that has no output of its own",
            schedule.does
        );
        return Err(Failure::not_found(message).hint("of the job:  gaffer logs JOB"));
    }
    match became.parse::<i64>() {
        Ok(id) => Ok(format!("task:{id}")),
        Err(_) => Ok(became),
    }
}

/// `why queue:NAME`: how it is, and why its tasks were given up.
pub async fn why(ctx: &Context, args: &WhyArgs, name: &str) -> Result<u8, Failure> {
    let (session, queue) = find(ctx, name).await?;
    let found = ctx.client.queue(&session, &queue, false).await?;
    let which = QueueTasksQuery {
        state: Some("dead".to_owned()),
        limit: Some(args.count.clamp(1, 1_000)),
        ..QueueTasksQuery::default()
    };
    let dead = ctx.client.queue_tasks(&session, &queue, &which).await?;
    if !ctx.out.is_text() {
        ctx.out.json_list(&dead)?;
        return Ok(0);
    }
    let shown = shown_name(ctx, &found);
    ctx.out.line(&format!(
        "{} {}",
        ctx.out.paint.name(&shown, &shown),
        sentence(&found)
    ))?;
    if dead.is_empty() {
        return Ok(0);
    }
    let columns = ["TASK", "ENDED", "TRIES", "KIND", "REASON"].map(|title| Column {
        title: title.to_owned(),
        right: title == "TASK" || title == "TRIES",
    });
    ctx.out.table(&columns, dead.iter().map(row).collect())?;
    ctx.out.talk(&format!(
        "one of them:  gaffer queue show ID     all again:  gaffer queue retry {shown} --state dead"
    ));
    Ok(0)
}

/// `is working: 142 waiting, the oldest for 14s; 6 running, 6 of 12 workers busy; 2 dead`.
fn sentence(queue: &Queue) -> String {
    let mut parts = Vec::new();
    if !queue.summary.is_empty() {
        parts.push(escape(&queue.summary).into_owned());
    }
    let oldest = queue
        .oldest_ms
        .map(|age| format!(", the oldest for {}", when::duration(age)))
        .unwrap_or_default();
    parts.push(format!("{} waiting{oldest}", queue_look::bounded(queue.waiting)));
    parts.push(format!(
        "{} running, {} of {} workers busy",
        queue.running, queue.busy, queue.workers
    ));
    if queue.scheduled > 0 {
        parts.push(format!("{} for later", queue_look::bounded(queue.scheduled)));
    }
    if queue.dead > 0 {
        parts.push(format!("{} dead", queue_look::bounded(queue.dead)));
    }
    format!("is {}: {}", queue.state, parts.join("; "))
}

fn row(task: &QueuedTask) -> Vec<Cell> {
    let ended = task.finished_at.as_deref().map(when::date_or_clock);
    vec![
        Cell::plain(task.id.to_string()),
        Cell::plain(ended.unwrap_or_default()),
        Cell::plain(task.attempt.to_string()),
        Cell::plain(escape(task.kind.as_deref().unwrap_or_default())),
        Cell::plain(escape(&task.summary)),
    ]
}
