//! `task ls`, `status`, `show`, `why`.

use super::{documents, graph, screen, timeline};
use crate::args::task::{TaskLookArgs, TaskLsArgs, TaskShowArgs, TaskStatusArgs};
use crate::context::Context;
use crate::escape::escape;
use crate::failure::Failure;
use crate::private;
use crate::runner::View;
use crate::table::{self, Cell, Column};
use crate::when;
use gaffer_api::Client;
use gaffer_api::types::task::{Task, TaskItem, TaskStep};
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;

/// Last lines that `why` shows.
const LAST_LINES: usize = 5;

/// `task ls`.
pub async fn ls(ctx: &Context, args: &TaskLsArgs) -> Result<u8, Failure> {
    let location = match (args.active, args.finished) {
        (true, _) => Some("active"),
        (_, true) => Some("finished"),
        _ => None,
    };
    let items = listed(ctx, args.root.root.as_deref(), location).await?;
    if !ctx.out.is_text() {
        ctx.out.json_list(&items)?;
        return Ok(0);
    }
    table_of(ctx, &items)?;
    Ok(0)
}

async fn listed(
    ctx: &Context,
    root: Option<&Path>,
    location: Option<&str>,
) -> Result<Vec<TaskItem>, Failure> {
    let view = View::open(ctx, root).await?;
    let items = view.client.tasks(location).await;
    view.close(ctx).await;
    Ok(items?)
}

/// Ids of active tasks that a pattern matches; at least one.
pub async fn active_like(ctx: &Context, root: Option<&Path>, pattern: &str) -> Result<Vec<String>, Failure> {
    let wrong = |error| Failure::usage(format!("`{pattern}` is no regular expression: {error}"));
    let pattern = regex_lite::Regex::new(pattern).map_err(wrong)?;
    let items = listed(ctx, root, Some("active")).await?;
    let ids: Vec<String> = items
        .into_iter()
        .map(|item| item.id)
        .filter(|id| pattern.is_match(id))
        .collect();
    match ids.is_empty() {
        true => Err(Failure::not_found(format!("no active task matches `{pattern}`"))),
        false => Ok(ids),
    }
}

fn table_of(ctx: &Context, items: &[TaskItem]) -> Result<(), Failure> {
    if items.is_empty() {
        ctx.out.talk("no tasks");
        return Ok(());
    }
    let column = |title: &str| Column {
        title: title.to_owned(),
        right: false,
    };
    let columns = [
        column(""),
        column("TASK"),
        column("STATE"),
        column("STARTED"),
        column("REASON"),
    ];
    let rows: Vec<Vec<Cell>> = items
        .iter()
        .map(|item| {
            let (glyph, role) = crate::paint::state(&item.state);
            let started = item
                .launched_at
                .as_deref()
                .map(when::date_or_clock)
                .unwrap_or_default();
            let said = if item.reason.is_empty() {
                &item.summary
            } else {
                &item.reason
            };
            vec![
                Cell::role(role, glyph),
                Cell::plain(escape(&item.id)),
                Cell::plain(&*item.state),
                Cell::plain(started),
                Cell::plain(escape(said)),
            ]
        })
        .collect();
    for line in table::lines(&columns, &rows, ctx.out.width(), &ctx.out.paint) {
        ctx.out.line(&line)?;
    }
    Ok(())
}

/// `task status`.
pub async fn status(ctx: &Context, args: &TaskStatusArgs) -> Result<u8, Failure> {
    let (timeline, args) = (args.timeline, &args.look);
    let root = args.root.root.as_deref();
    if args.ids.is_empty() {
        let items = listed(ctx, root, None).await?;
        match ctx.out.is_text() {
            true => table_of(ctx, &items)?,
            false => ctx.out.json_list(&items)?,
        }
        return Ok(u8::from(items.is_empty()));
    }
    let tasks = with_disk(ctx, root, &args.ids).await?;
    if ctx.out.is_text() {
        for task in &tasks {
            let lines = match timeline {
                true => timeline::lines(&ctx.out, task),
                false => screen::lines(&ctx.out, task),
            };
            for line in lines {
                ctx.out.line(&line)?;
            }
        }
    }
    documents(ctx, &tasks)?;
    Ok(0)
}

async fn with_disk(ctx: &Context, root: Option<&Path>, ids: &[String]) -> Result<Vec<Task>, Failure> {
    let view = View::open(ctx, root).await?;
    let each = ids.iter().map(|id| view.client.task_with_disk(id));
    let found = futures_util::future::try_join_all(each).await;
    view.close(ctx).await;
    Ok(found?)
}

async fn all(ctx: &Context, root: Option<&Path>, ids: &[String], spec: bool) -> Result<Vec<Task>, Failure> {
    let view = View::open(ctx, root).await?;
    let found = each(&view.client, ids, spec).await;
    view.close(ctx).await;
    found
}

async fn each(client: &Client, ids: &[String], spec: bool) -> Result<Vec<Task>, Failure> {
    let mut tasks = Vec::with_capacity(ids.len());
    for id in ids {
        tasks.push(client.task(id, spec).await?);
    }
    Ok(tasks)
}

/// `task show`.
pub async fn show(ctx: &Context, args: &TaskShowArgs) -> Result<u8, Failure> {
    if let Some(file) = &args.raw {
        return raw(ctx, file).await;
    }
    let tasks = all(ctx, args.root.root.as_deref(), args.id.as_slice(), true).await?;
    if let (Some(form), [task]) = (args.graph.as_deref(), &tasks[..]) {
        let text = graph::text(task, form);
        match ctx.out.is_text() {
            true => ctx.out.bytes(text.as_bytes())?,
            false => ctx
                .out
                .json(&serde_json::json!({ "id": task.id, "form": form, "graph": text }))?,
        }
        return Ok(0);
    }
    documents(ctx, &tasks)?;
    if !ctx.out.is_text() {
        return Ok(0);
    }
    for task in &tasks {
        for line in screen::lines(&ctx.out, task) {
            ctx.out.line(&line)?;
        }
        let ports: Vec<String> = task
            .ports
            .iter()
            .map(|(name, port)| format!("{name}={port}"))
            .collect();
        let facts = [
            ("root", task.root.clone()),
            ("sandbox", task.sandbox.clone()),
            ("output", task.log_dir.clone()),
            ("user", task.user.clone()),
            ("host", task.hostname.clone()),
            ("ports", ports.join(" ")),
        ];
        for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
            ctx.out.line(&format!("{name:9} {value}"))?;
        }
        if let Some(spec) = &task.spec {
            ctx.out.line(&format!("{spec:#}"))?;
        }
    }
    Ok(0)
}

/// A checkpoint file, read by the daemon's program: nothing serves, nothing is led.
async fn raw(ctx: &Context, file: &Path) -> Result<u8, Failure> {
    let program = private::program()?;
    let output = tokio::process::Command::new(&program)
        .arg("--read-checkpoint")
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| Failure::failed(format!("{} cannot be run: {error}", program.display())))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let said = said.strip_prefix("error: ").unwrap_or(&said).to_owned();
        return Err(Failure::failed(said));
    }
    let found: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::failed(format!("what {} says is no JSON: {error}", program.display())))?;
    if !ctx.out.is_text() {
        ctx.out.json(&found)?;
        return Ok(u8::from(!found["stops"].is_null()));
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if let Some(header) = found["header"].as_object() {
        for (name, value) in header {
            ctx.out.line(&format!("{name:11} {}", text(value)))?;
        }
    }
    for status in found["statuses"].as_array().into_iter().flatten() {
        ctx.out.line(&format!(
            "{}  {:10} runner {}",
            text(&status["at"]),
            text(&status["state"]),
            status["runner_pid"]
        ))?;
    }
    for step in found["steps"].as_array().into_iter().flatten() {
        for run in step["runs"].as_array().into_iter().flatten().rev() {
            ctx.out.line(&format!(
                "{}  {}  {:8} pid {}  exit {}  {}",
                text(&step["name"]),
                run["attempt"],
                text(&run["state"]),
                run["pid"],
                run["exit_code"],
                run["signal"].as_str().unwrap_or_default()
            ))?;
        }
    }
    ctx.out.line(&format!("{} records", found["records"]))?;
    let stops = &found["stops"];
    if stops.is_null() {
        return Ok(0);
    }
    let place = match stops["offset"].as_u64() {
        Some(offset) => format!("byte {offset}"),
        None => format!("record {}", stops["record"]),
    };
    Err(Failure::failed(format!(
        "{} stops at {place}: {}",
        file.display(),
        text(&stops["reason"])
    )))
}

/// `task why`.
pub async fn why(ctx: &Context, args: &TaskLookArgs) -> Result<u8, Failure> {
    if args.ids.is_empty() {
        return Err(Failure::usage("which task?").hint("all tasks:  gaffer task ls"));
    }
    let view = View::open(ctx, args.root.root.as_deref()).await?;
    let told = reasons(ctx, &view.client, &args.ids).await;
    view.close(ctx).await;
    told
}

async fn reasons(ctx: &Context, client: &Client, ids: &[String]) -> Result<u8, Failure> {
    let tasks = each(client, ids, false).await?;
    documents(ctx, &tasks)?;
    if !ctx.out.is_text() {
        return Ok(0);
    }
    for task in &tasks {
        let lines = screen::lines(&ctx.out, task);
        ctx.out.line(lines.first().map_or("", String::as_str))?;
        for (step, line) in task.steps.iter().zip(lines.iter().skip(1)) {
            if step.state == "success" {
                continue;
            }
            ctx.out.line(line)?;
            for last in last_lines(client, task, step).await {
                ctx.out.line(&format!("    {}", escape(&last)))?;
            }
        }
    }
    Ok(0)
}

/// What the newest run of a step said last, on standard error if it said anything there.
async fn last_lines(client: &Client, task: &Task, step: &TaskStep) -> Vec<String> {
    if step.runs.is_empty() {
        return Vec::new();
    }
    for stream in ["stderr", "stdout"] {
        let text = super::logs::tail(client, &task.id, &step.name, stream).await;
        let lines: Vec<&str> = text.lines().collect();
        if !lines.is_empty() {
            let from = lines.len().saturating_sub(LAST_LINES);
            return lines[from..].iter().map(|line| (*line).to_owned()).collect();
        }
    }
    Vec::new()
}
