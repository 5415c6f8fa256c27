//! `task logs`: what steps wrote.

use crate::args::task::TaskLogsArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::runner::View;
use gaffer_api::Client;
use gaffer_api::types::task::Task;
use std::io::Write;
use std::time::Duration;

/// Output that may come is looked for so often.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// So much of the end is read to find the last lines.
const TAIL_BYTES: u64 = 16 << 10;

/// `task logs`.
pub async fn logs(ctx: &Context, args: &TaskLogsArgs) -> Result<u8, Failure> {
    let view = View::open(ctx, args.root.root.as_deref()).await?;
    let shown = match &args.step {
        Some(step) => one(ctx, &view.client, args, step).await,
        None => all(ctx, &view.client, args).await,
    };
    view.close(ctx).await;
    shown
}

fn streams(args: &TaskLogsArgs) -> Vec<&str> {
    match args.stream.as_deref() {
        Some(stream) => vec![stream],
        None => vec!["stdout", "stderr"],
    }
}

/// A place in one stream.
struct At<'a> {
    stream: &'a str,
    offset: u64,
}

impl At<'_> {
    /// What is behind it now, as far as one answer goes.
    async fn next(
        &mut self,
        client: &Client,
        id: &str,
        step: &str,
        attempt: Option<u32>,
    ) -> Result<Vec<u8>, Failure> {
        let from = self.offset.to_string();
        let (headers, bytes) = client.task_log(id, step, self.stream, attempt, &from).await?;
        let next = headers
            .get("gaffer-offset")
            .and_then(|value| value.to_str().ok()?.parse().ok());
        self.offset = next.unwrap_or(self.offset + bytes.len() as u64);
        Ok(bytes.to_vec())
    }
}

/// The bytes of a step: standard output and standard error to ours.
async fn one(ctx: &Context, client: &Client, args: &TaskLogsArgs, step: &str) -> Result<u8, Failure> {
    let mut places: Vec<At<'_>> = streams(args)
        .into_iter()
        .map(|stream| At { stream, offset: 0 })
        .collect();
    loop {
        // Looked at before it is read: what was written before the end is read after it.
        let task = client.task(&args.id, false).await?;
        let begun = has_run(&task, step)?;
        let over = task.location == "finished";
        if !begun && !args.follow {
            ctx.out.talk(&format!("step {step} has not run yet"));
            return Ok(0);
        }
        if begun {
            for place in &mut places {
                copy(ctx, client, args, step, place).await?;
            }
        }
        if over || !args.follow {
            return Ok(0);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn has_run(task: &Task, step: &str) -> Result<bool, Failure> {
    let found = task.steps.iter().find(|one| one.name == step);
    let found = found.ok_or_else(|| {
        let names: Vec<&str> = task.steps.iter().take(8).map(|one| one.name.as_str()).collect();
        Failure::not_found(format!("no step `{}` in task {}", step.escape_debug(), task.id))
            .hint(format!("its steps: {}", names.join(", ")))
    })?;
    Ok(!found.runs.is_empty())
}

async fn copy(
    ctx: &Context,
    client: &Client,
    args: &TaskLogsArgs,
    step: &str,
    place: &mut At<'_>,
) -> Result<(), Failure> {
    loop {
        let bytes = place.next(client, &args.id, step, args.attempt).await?;
        if bytes.is_empty() {
            return ctx.out.flush();
        }
        if place.stream == "stderr" {
            // Nobody can be told of a standard error that is gone.
            let _gone = std::io::stderr().write_all(&bytes);
        } else {
            ctx.out.bytes(&bytes)?;
        }
    }
}

/// All steps in order, each line with its step and the sign of its stream.
async fn all(ctx: &Context, client: &Client, args: &TaskLogsArgs) -> Result<u8, Failure> {
    if args.follow {
        return Err(Failure::usage("which step is to be followed?")
            .hint(format!("its steps:  gaffer task status {}", args.id)));
    }
    let task = client.task(&args.id, false).await?;
    let width = task
        .steps
        .iter()
        .map(|step| step.name.chars().count())
        .max()
        .unwrap_or(0)
        .min(32);
    for step in task.steps.iter().filter(|step| !step.runs.is_empty()) {
        if args
            .attempt
            .is_some_and(|attempt| attempt as usize > step.runs.len())
        {
            continue;
        }
        for stream in streams(args) {
            let sign = if stream == "stderr" { '!' } else { '|' };
            let mut place = At { stream, offset: 0 };
            let mut rest: Vec<u8> = Vec::new();
            loop {
                let bytes = place.next(client, &task.id, &step.name, args.attempt).await?;
                let over = bytes.is_empty();
                rest.extend(bytes);
                // An unfinished line waits for its end.
                let whole = match rest.iter().rposition(|byte| *byte == b'\n') {
                    _ if over => rest.len(),
                    Some(at) => at + 1,
                    None => 0,
                };
                let text: Vec<u8> = rest.drain(..whole).collect();
                for line in String::from_utf8_lossy(&text).lines() {
                    let name = ctx.out.paint.name(&step.name, &format!("{:width$}", step.name));
                    ctx.out
                        .line(&format!("{name} {sign} {}", crate::escape::escape(line)))?;
                }
                if over {
                    break;
                }
            }
        }
    }
    Ok(0)
}

/// The end of what the newest run of a step wrote; empty if there is nothing to read.
pub async fn tail(client: &Client, id: &str, step: &str, stream: &str) -> String {
    let Ok((headers, _)) = client.task_log(id, step, stream, None, "end").await else {
        return String::new();
    };
    let end: u64 = headers
        .get("gaffer-offset")
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or(0);
    let from = end.saturating_sub(TAIL_BYTES).to_string();
    match client.task_log(id, step, stream, None, &from).await {
        Ok((_, bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}
