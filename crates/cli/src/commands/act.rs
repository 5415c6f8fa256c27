//! `start`, `stop`, `restart`, `reload`, `pause`, `resume` on the daemon: each changes a wish and waits until the
//! wish has become the state.

use crate::args::{ReloadArgs, StopArgs, TargetArgs};
use crate::ask::{Patience, exit_of, goes_on, settle};
use crate::context::Context;
use crate::failure::Failure;
use crate::target::Selected;
use futures_util::stream::{self, StreamExt};
use gaffer_api::types::{ActionRequest, Operation};

/// Requests that are under way at once.
const AT_ONCE: usize = 8;

/// `stop`, `restart`.
pub async fn stop(ctx: &Context, verb: &str, args: &StopArgs) -> Result<u8, Failure> {
    let grace_ms = args
        .grace
        .map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
    let request = ActionRequest {
        grace_ms,
        force: args.force,
        how: None,
    };
    act(ctx, verb, &args.targets, &request).await
}

/// `reload`.
pub async fn reload(ctx: &Context, args: &ReloadArgs) -> Result<u8, Failure> {
    let request = ActionRequest {
        how: args.how.clone(),
        ..ActionRequest::default()
    };
    act(ctx, "reload", &args.targets, &request).await
}

/// Any of the verbs.
pub async fn act(
    ctx: &Context,
    verb: &str,
    args: &TargetArgs,
    request: &ActionRequest,
) -> Result<u8, Failure> {
    let (targets, worst) = ctx.changed(&args.targets, args.all).await?;
    let patience = Patience::new(ctx, args.wait.no_wait);
    // All are asked before any is waited for. A single one is asked and waited for at once.
    let first = if targets.len() == 1 {
        patience.first()
    } else {
        None
    };
    let asked: Vec<(Selected, Result<Operation, Failure>)> = stream::iter(targets)
        .map(|target| async move {
            let answer = match &target.run {
                Some(run) => Err(run_is_no_job(verb, run, &target)),
                None => ctx
                    .client
                    .act(
                        &target.session,
                        &target.job,
                        target.instance,
                        verb,
                        request,
                        first,
                    )
                    .await
                    .map_err(Failure::from),
            };
            (target, answer)
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    finish(ctx, asked, &patience, worst).await
}

fn run_is_no_job(verb: &str, run: &str, target: &Selected) -> Failure {
    let name = target
        .instance
        .map_or_else(|| target.job.clone(), |n| format!("{}.{n}", target.job));
    Failure::usage(format!("`@{run}` is a run; {verb} takes jobs and instances")).hint_pair(
        &format!("its instance:  gaffer {verb} {name}"),
        &format!("only this run:  gaffer signal TERM @{run}"),
    )
}

/// Waits for all that was asked, prints the outcomes, and gives the worst exit code.
pub async fn finish(
    ctx: &Context,
    asked: Vec<(Selected, Result<Operation, Failure>)>,
    patience: &Patience,
    worst: u8,
) -> Result<u8, Failure> {
    let mut worst = worst;
    let mut outcomes = Vec::new();
    for (target, answer) in asked {
        let settled = match answer {
            Ok(operation) => settle(ctx, operation, patience).await,
            Err(failure) => Err(failure),
        };
        match settled {
            Ok(operation) => {
                worst = worst.max(exit_of(&operation));
                if ctx.out.is_text() {
                    tell(ctx, &target, &operation, patience)?;
                }
                outcomes.push(operation);
            }
            Err(failure) => {
                worst = worst.max(failure.exit);
                ctx.out.fail(&failure);
            }
        }
    }
    if !ctx.out.is_text() {
        ctx.out.json_list(&outcomes)?;
    }
    Ok(worst)
}

/// One line for one outcome.
fn tell(ctx: &Context, target: &Selected, operation: &Operation, patience: &Patience) -> Result<(), Failure> {
    let name = target.shown(&ctx.scope);
    if operation.state == "failed" || operation.state == "cancelled" {
        let reason = if operation.reason.is_empty() {
            operation.state.clone()
        } else {
            operation.reason.clone()
        };
        let failure = Failure::failed(format!("{} of {name}: {reason}", operation.verb))
            .hint(format!("why? gaffer why {name}"));
        ctx.out.fail(&failure);
        return Ok(());
    }
    if ctx.globals.quiet {
        return Ok(());
    }
    let word = match (operation.state.as_str(), operation.verb.as_str()) {
        ("pending", _) => goes_on(operation),
        (_, "stop") => "stopped".to_owned(),
        (_, "start" | "restart" | "resume") => "running".to_owned(),
        (_, "pause") => "paused".to_owned(),
        (_, "reload") => "reloaded".to_owned(),
        (_, "remove" | "delete") => "removed".to_owned(),
        (_, "signal") => "signalled".to_owned(),
        (_, "scale") => match operation.data.get("instances") {
            Some(number) => format!("scaled to {number}"),
            None => "scaled".to_owned(),
        },
        (_, "put") => "set".to_owned(),
        (_, other) => other.to_owned(),
    };
    let state = if patience.no_wait && operation.state == "pending" {
        "pending"
    } else {
        word.as_str()
    };
    let glyph = match state {
        "reloaded" | "signalled" | "set" => ctx.out.glyph("running"),
        other if other.starts_with("scaled") => ctx.out.glyph("running"),
        other => ctx.out.glyph(other),
    };
    let reason = if operation.reason.is_empty() || operation.state == "pending" {
        String::new()
    } else {
        format!("  {}", operation.reason)
    };
    ctx.out.line(&format!(
        "{glyph} {}  {word}{}",
        ctx.out.paint.name(&name, &name),
        ctx.out.dim(&reason)
    ))
}
