//! `task`: run, start, look at, end.

mod gc;
mod graph;
mod logs;
mod look;
pub mod output;
mod run;
pub mod screen;
pub mod target;
mod timeline;

use crate::args::task::{TaskCommand, TaskIds, TaskKillArgs, TaskLookArgs, TaskRetryArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::runner::{self, View};
use gaffer_api::Client;
use gaffer_api::client::ClientError;
use gaffer_api::types::task::{Task, TaskKillRequest, TaskRetryRequest};
use std::path::Path;
use std::time::{Duration, Instant};

/// The daemon may hold an answer so long.
const HOLD: Duration = Duration::from_secs(10);
/// A root whose task has no runner we can ask is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// `task …`.
pub async fn task(ctx: &Context, verb: TaskCommand) -> Result<u8, Failure> {
    match verb {
        TaskCommand::Run(args) => run::run(ctx, &args).await,
        TaskCommand::Start(args) => run::start(ctx, &args).await,
        TaskCommand::Ls(args) => look::ls(ctx, &args).await,
        TaskCommand::Status(args) => look::status(ctx, &args).await,
        TaskCommand::Show(args) => look::show(ctx, &args).await,
        TaskCommand::Logs(args) => logs::logs(ctx, &args).await,
        TaskCommand::Why(args) => look::why(ctx, &args).await,
        TaskCommand::Wait(args) => wait(ctx, &args).await,
        TaskCommand::Kill(args) => kill(ctx, &args).await,
        TaskCommand::Retry(args) => retry(ctx, &args).await,
        TaskCommand::Gc(args) => gc::gc(ctx, &args).await,
        TaskCommand::Pause(args) => pause(ctx, &args, true).await,
        TaskCommand::Resume(args) => pause(ctx, &args, false).await,
    }
}

/// 0: success.
fn exit_of(task: &Task) -> u8 {
    u8::from(task.state != "success")
}

/// Waits until a task is over, at most as long as `--timeout` says.
async fn wait_for(ctx: &Context, root: Option<&Path>, id: &str) -> Result<Task, Failure> {
    let deadline = ctx.globals.timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let left = deadline.map_or(HOLD, |deadline| {
            deadline.saturating_duration_since(Instant::now())
        });
        let task = match root {
            None => ctx.client.task_wait(id, None, left.min(HOLD)).await?,
            Some(root) => wait_in(ctx, root, id, left.min(HOLD)).await?,
        };
        if task.location == "finished" {
            return Ok(task);
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(Failure::failed(format!(
                "task {id} is {} still: {}",
                task.state, task.summary
            )));
        }
    }
}

/// Waits at its runner; without one the task does not go on.
async fn wait_in(ctx: &Context, root: &Path, id: &str, within: Duration) -> Result<Task, Failure> {
    let root = runner::root(Some(root))?;
    if let Some(client) = runner::running(&root, id) {
        match client.task_wait(id, None, within).await {
            Ok(task) => return Ok(task),
            // It ends with its task, perhaps before it could answer.
            Err(ClientError::Unreachable { .. } | ClientError::Protocol(_)) => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let view = View::open(ctx, Some(&root)).await?;
    let task = view.client.task(id, false).await;
    view.close(ctx).await;
    let task = task?;
    if task.location != "finished" && runner::running(&root, id).is_none() {
        let again = format!(
            "go on with it:  gaffer task run FILE --id {id} --root {}",
            root.display()
        );
        return Err(Failure::failed(format!("task {id} is {} and nobody leads it", task.state)).hint(again));
    }
    Ok(task)
}

/// `task wait`.
async fn wait(ctx: &Context, args: &TaskLookArgs) -> Result<u8, Failure> {
    if args.ids.is_empty() {
        return Err(Failure::usage("which task?").hint("all tasks:  gaffer task ls"));
    }
    let mut worst = 0;
    let mut over = Vec::new();
    for id in &args.ids {
        let task = wait_for(ctx, args.root.root.as_deref(), id).await?;
        worst = worst.max(exit_of(&task));
        if ctx.out.is_text() {
            ctx.out
                .line(format!("{}  {}  {}", task.id, task.state, task.reason).trim_end())?;
        }
        over.push(task);
    }
    documents(ctx, &over)?;
    Ok(worst)
}

/// One document for one task, a list for several.
fn documents(ctx: &Context, tasks: &[Task]) -> Result<(), Failure> {
    match tasks {
        _ if ctx.out.is_text() => Ok(()),
        [one] => ctx.out.json(one),
        several => ctx.out.json_list(several),
    }
}

/// `task kill`.
async fn kill(ctx: &Context, args: &TaskKillArgs) -> Result<u8, Failure> {
    let request = TaskKillRequest {
        force: args.force,
        grace: args.grace.map(|grace| format!("{}ms", grace.as_millis())),
        state: None,
    };
    let ids = match &args.matching {
        None => args.ids.clone(),
        Some(pattern) => look::active_like(ctx, args.root.root.as_deref(), pattern).await?,
    };
    let mut ended = Vec::new();
    for id in &ids {
        let task = match args.root.root.as_deref() {
            None => kill_at(ctx, &ctx.client, id, &request, args.no_wait).await?,
            Some(root) => kill_in(ctx, root, id, &request, args.no_wait).await?,
        };
        if ctx.out.is_text() {
            ctx.out
                .line(format!("{}  {}  {}", task.id, task.state, task.reason).trim_end())?;
        }
        ended.push(task);
    }
    documents(ctx, &ended)?;
    Ok(0)
}

async fn kill_at(
    ctx: &Context,
    client: &Client,
    id: &str,
    request: &TaskKillRequest,
    no_wait: bool,
) -> Result<Task, Failure> {
    let mut task = client.task_kill(id, request).await?;
    let deadline = ctx.globals.timeout.map(|timeout| Instant::now() + timeout);
    while task.location != "finished" && !no_wait {
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(Failure::failed(format!(
                "task {id} is {} still: {}",
                task.state, task.summary
            )));
        }
        let left = deadline.map_or(HOLD, |deadline| {
            deadline.saturating_duration_since(Instant::now())
        });
        task = client.task_wait(id, None, left.min(HOLD)).await?;
    }
    Ok(task)
}

/// A runner that is asked to kill everything answers by then.
const WEDGED_AFTER: Duration = Duration::from_secs(10);

/// Asks the runner of the task; one that has none gets one for that.
async fn kill_in(
    ctx: &Context,
    root: &Path,
    id: &str,
    request: &TaskKillRequest,
    no_wait: bool,
) -> Result<Task, Failure> {
    runner::check_id(id)?;
    let root = runner::root(Some(root))?;
    if let Some(client) = runner::running(&root, id) {
        let asked = match request.force {
            false => Some(client.task_kill(id, request).await?),
            true => tokio::time::timeout(WEDGED_AFTER, client.task_kill(id, request))
                .await
                .ok()
                .transpose()?,
        };
        match asked {
            Some(asked) if no_wait => return Ok(asked),
            Some(_) => return wait_for(ctx, Some(&root), id).await,
            // It may be stopped, or hang: another one does what it should.
            None => {
                ctx.out
                    .talk(&format!("the runner of task {id} does not answer: KILL"));
                runner::kill(&root, id).await?;
            }
        }
    }
    let view = View::open(ctx, Some(&root)).await?;
    let known = view.client.task(id, false).await;
    view.close(ctx).await;
    match known {
        Ok(known) if known.location == "finished" => {
            return Err(Failure::conflict(format!("task {id} is over: {}", known.state)));
        }
        // Where the definition cannot be read, the checkpoint says what lives.
        Err(error) if !root.join("checkpoints").join(id).join("runner").exists() => return Err(error.into()),
        Ok(_) | Err(_) => {}
    }
    let private = runner::start(&root, id).await?;
    let outcome = kill_at(ctx, &private.client, id, request, no_wait).await;
    private.let_go().await;
    outcome
}

/// `task retry`.
async fn retry(ctx: &Context, args: &TaskRetryArgs) -> Result<u8, Failure> {
    let request = TaskRetryRequest {
        from: args.from.clone(),
    };
    let mut worst = 0;
    let mut begun = Vec::new();
    for id in &args.ids {
        let mut task = ctx.client.task_retry(id, &request).await?;
        if ctx.out.is_text() {
            ctx.out.line(&task.id)?;
            ctx.out.flush()?;
        }
        if args.wait {
            task = wait_for(ctx, None, &task.id).await?;
            worst = worst.max(exit_of(&task));
        }
        begun.push(task);
    }
    documents(ctx, &begun)?;
    Ok(worst)
}

/// `task pause`, `task resume`.
async fn pause(ctx: &Context, args: &TaskIds, on: bool) -> Result<u8, Failure> {
    let mut tasks = Vec::new();
    for id in &args.ids {
        let task = match on {
            true => ctx.client.task_pause(id).await?,
            false => ctx.client.task_resume(id).await?,
        };
        if ctx.out.is_text() {
            ctx.out
                .line(&format!("{id}  {}", if on { "paused" } else { "goes on" }))?;
        }
        tasks.push(task);
    }
    documents(ctx, &tasks)?;
    Ok(0)
}
