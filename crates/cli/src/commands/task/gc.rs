//! `task gc`: what may go is shown, asked about, and then exactly that goes.

use crate::args::task::TaskGcArgs;
use crate::commands::job::confirm;
use crate::context::Context;
use crate::escape::escape;
use crate::failure::Failure;
use crate::file::count;
use crate::runner::View;
use crate::when;
use gaffer_api::Client;
use gaffer_api::types::task::{TaskGc, TaskGcRequest};

/// `task gc`.
pub async fn gc(ctx: &Context, args: &TaskGcArgs) -> Result<u8, Failure> {
    let view = View::open(ctx, args.root.root.as_deref()).await?;
    let outcome = collect(ctx, args, &view.client).await;
    view.close(ctx).await;
    outcome
}

async fn collect(ctx: &Context, args: &TaskGcArgs, client: &Client) -> Result<u8, Failure> {
    let asked = TaskGcRequest {
        ids: args.ids.clone(),
        age: args.age.map(|age| format!("{}ms", age.as_millis())),
        count: args.count,
        size_bytes: args.size,
        dry_run: true,
    };
    let found = client.tasks_gc(&asked).await?;
    if ctx.out.is_text() {
        show(ctx, &found)?;
    }
    if args.dry_run || found.is_empty() {
        if !ctx.out.is_text() {
            ctx.out.json_list(&found)?;
        }
        return Ok(0);
    }
    ctx.out.flush()?;
    let verb = if found.len() == 1 { "is" } else { "are" };
    confirm(
        ctx,
        &format!("{} {verb} removed. Go on?", count(found.len(), "task")),
    )?;
    let exactly = TaskGcRequest {
        ids: found.iter().map(|task| task.id.clone()).collect(),
        ..TaskGcRequest::default()
    };
    let gone = client.tasks_gc(&exactly).await?;
    match ctx.out.is_text() {
        true => ctx.out.talk(&format!("{} removed", count(gone.len(), "task"))),
        false => ctx.out.json_list(&gone)?,
    }
    Ok(0)
}

fn show(ctx: &Context, found: &[TaskGc]) -> Result<(), Failure> {
    if found.is_empty() {
        ctx.out.talk("no task has to go");
    }
    for task in found {
        let data = match task.data_bytes {
            Some(bytes) => format!("data {}", when::size(bytes)),
            None => "data stays".to_owned(),
        };
        ctx.out.line(&format!(
            "{}  {} old  checkpoint {}  output {}  {data}",
            escape(&task.id),
            when::duration(task.age_ms),
            when::size(task.metadata_bytes),
            when::size(task.logs_bytes)
        ))?;
    }
    Ok(())
}
