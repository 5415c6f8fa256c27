//! `start`, `stop`, `restart`, `reload`, `pause`, `resume` on the daemon: each changes a wish and waits until the
//! wish has become the state.

use crate::args::{ReloadArgs, StopArgs, TargetArgs};
use crate::ask::{Patience, exit_of, goes_on, late, settle, wait_for};
use crate::context::Context;
use crate::failure::Failure;
use crate::target::{Scope, Selected};
use gaffer_api::client::ClientError;
use gaffer_api::error::ApiError;
use gaffer_api::types::{JOBS_MAX, JobsRequest, Operation, Outcome};
use std::collections::HashMap;

/// `stop`, `restart`.
pub async fn stop(ctx: &Context, verb: &str, args: &StopArgs) -> Result<u8, Failure> {
    let grace_ms = args
        .grace
        .map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
    let request = JobsRequest {
        grace_ms,
        force: args.force,
        ..JobsRequest::default()
    };
    act(ctx, verb, &args.targets, &request).await
}

/// `reload`.
pub async fn reload(ctx: &Context, args: &ReloadArgs) -> Result<u8, Failure> {
    let request = JobsRequest {
        how: args.how.clone(),
        ..JobsRequest::default()
    };
    act(ctx, "reload", &args.targets, &request).await
}

/// Any of the verbs.
pub async fn act(ctx: &Context, verb: &str, args: &TargetArgs, request: &JobsRequest) -> Result<u8, Failure> {
    let (targets, worst) = ctx.changed(&args.targets, args.all).await?;
    let patience = Patience::new(ctx, args.wait.no_wait);
    let (runs, jobs): (Vec<Selected>, Vec<Selected>) =
        targets.into_iter().partition(|target| target.run.is_some());
    let refused = runs.into_iter().map(|target| {
        let failure = run_is_no_job(verb, target.run.as_deref().unwrap_or_default(), &target);
        (target, Err(failure))
    });
    let mut answers: Vec<Answer> = refused.collect();
    answers.extend(ask_each(ctx, verb, jobs, request, &patience).await?);
    finish(ctx, answers, &patience, worst).await
}

/// A target, and what the daemon said about it.
pub type Answer = (Selected, Result<Operation, Failure>);

/// Asks for all targets at once and waits for what comes of each.
pub async fn ask_each(
    ctx: &Context,
    verb: &str,
    targets: Vec<Selected>,
    request: &JobsRequest,
    patience: &Patience,
) -> Result<Vec<Answer>, Failure> {
    // All are asked before any is waited for.
    let first = patience.first().filter(|_| targets.len() <= JOBS_MAX);
    let mut asked = Vec::new();
    for part in targets.chunks(JOBS_MAX) {
        let request = JobsRequest {
            jobs: part.iter().map(|target| target.shown(&Scope::All)).collect(),
            ..request.clone()
        };
        asked.push((part, ctx.client.act_each(verb, &request, first).await?));
    }
    let mut answers = Vec::new();
    for (part, operation) in asked {
        let mut operation = wait_for(ctx, operation, patience).await?;
        let outcomes = std::mem::take(&mut operation.outcomes);
        let mut outcomes: HashMap<String, Outcome> = outcomes
            .into_iter()
            .map(|outcome| (outcome.target.clone(), outcome))
            .collect();
        for target in part {
            let outcome = outcomes.remove(&target.shown(&Scope::All)).unwrap_or_default();
            answers.push((target.clone(), answer(ctx, &operation, outcome, patience)));
        }
    }
    Ok(answers)
}

/// One of many outcomes, as if it had been asked for alone.
fn answer(
    ctx: &Context,
    operation: &Operation,
    outcome: Outcome,
    patience: &Patience,
) -> Result<Operation, Failure> {
    if outcome.state == "refused" {
        let error = ApiError {
            code: outcome.reason_code,
            message: outcome.reason,
            hint: outcome.hint,
            details: Vec::new(),
            request: String::new(),
        };
        return Err(ClientError::Api(Box::new(error), 0).into());
    }
    let one = Operation {
        target: outcome.target,
        state: outcome.state,
        reason: outcome.reason,
        reason_code: outcome.reason_code,
        ..operation.clone()
    };
    if one.state == "pending" && !patience.no_wait {
        return Err(late(ctx, &one));
    }
    Ok(one)
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
    asked: Vec<Answer>,
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
            Ok(mut operation) => {
                with_number(ctx, &target, &mut operation).await;
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

/// What a change of a number has come to: `+1` and `--auto` do not say it.
async fn with_number(ctx: &Context, target: &Selected, operation: &mut Operation) {
    if operation.verb != "scale" || operation.state != "done" || operation.data.contains_key("instances") {
        return;
    }
    if let Ok(job) = ctx.client.job(&target.session, &target.job, false).await {
        operation.data.insert("instances".to_owned(), job.target.into());
    }
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
        (_, "add") => "added".to_owned(),
        (_, other) => other.to_owned(),
    };
    let state = if patience.no_wait && operation.state == "pending" {
        "pending"
    } else {
        word.as_str()
    };
    let glyph = match state {
        "reloaded" | "signalled" | "set" | "added" => ctx.out.glyph("running"),
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
