//! `check`, `plan`, `apply`: a file, what is wrong with it, what it would change, and changing exactly that.

use crate::args::{ApplyArgs, CheckArgs, PlanArgs};
use crate::ask::{Patience, exit_of, goes_on, settle};
use crate::commands::job::confirm;
use crate::context::Context;
use crate::failure::Failure;
use crate::file;
use crate::paint::Role;
use gaffer_api::types::{ApplyRequest, Plan, PlanChange};

/// `check`: offline.
pub fn check(ctx: &Context, args: &CheckArgs) -> Result<u8, Failure> {
    let bundle = file::gather(&ctx.out, &args.paths, &args.file)?;
    let config = file::load(&ctx.out, &bundle)?;
    let warnings = file::warnings(&ctx.out, &config);
    if args.strict && warnings > 0 {
        return Err(Failure {
            rendered: Some(format!(
                "{}; --strict takes none\n",
                file::count(warnings, "warning")
            )),
            ..Failure::silent(2)
        });
    }
    if ctx.out.is_text() {
        let mut jobs = file::count(config.jobs.len(), "job");
        if !config.tasks.is_empty() {
            jobs.push_str(&format!(", {}", file::count(config.tasks.len(), "task")));
        }
        let more = if warnings > 0 {
            format!(", {}", file::count(warnings, "warning"))
        } else {
            String::new()
        };
        if !ctx.globals.quiet {
            ctx.out.line(&format!(
                "{} {}: {jobs}, no errors{more}",
                ctx.out.glyph("good"),
                file::shown(&config.file)
            ))?;
        }
    } else {
        let jobs: Vec<String> = config.jobs.keys().map(ToString::to_string).collect();
        let tasks: Vec<String> = config.tasks.keys().map(ToString::to_string).collect();
        ctx.out.json(&serde_json::json!({
            "file": config.file, "session": config.session.to_string(), "jobs": jobs, "tasks": tasks,
            "warnings": warnings,
        }))?;
    }
    Ok(0)
}

fn request(
    ctx: &Context,
    paths: &[std::path::PathBuf],
    args: &crate::args::FileArgs,
    rollback: bool,
) -> Result<ApplyRequest, Failure> {
    if rollback {
        return Ok(ApplyRequest {
            rollback: Some(file::root(paths, args)?.to_string_lossy().into_owned()),
            ..ApplyRequest::default()
        });
    }
    let bundle = file::gather(&ctx.out, paths, args)?;
    // Errors with excerpts are found here, where the files are; the daemon checks again with its own users and folders.
    let config = file::load(&ctx.out, &bundle)?;
    file::warnings(&ctx.out, &config);
    let bundle = serde_json::to_value(&bundle)
        .map_err(|error| Failure::failed(format!("the files cannot be sent: {error}")))?;
    Ok(ApplyRequest {
        bundle,
        ..ApplyRequest::default()
    })
}

/// `plan`.
pub async fn plan(ctx: &Context, args: &PlanArgs) -> Result<u8, Failure> {
    let request = ApplyRequest {
        prune: args.prune,
        ..request(ctx, &args.paths, &args.file, args.rollback)?
    };
    let plan = ctx.client.plan(&request).await?;
    if ctx.out.is_text() {
        show(ctx, &plan)?;
        ctx.out.line(&closing(ctx, &plan))?;
    } else {
        ctx.out.json(&plan)?;
    }
    Ok(u8::from(args.exit_code && !plan.changes.is_empty()))
}

/// `apply`.
pub async fn apply(ctx: &Context, args: &ApplyArgs) -> Result<u8, Failure> {
    let mut request = request(ctx, &args.paths, &args.file, args.rollback)?;
    request.prune = args.prune;
    request.reset_scale = args.reset_scale;
    request.no_start = args.no_start;
    let plan = ctx.client.plan(&request).await?;
    if let Some(hash) = &args.plan
        && *hash != plan.hash
    {
        return Err(Failure::conflict(format!(
            "plan {hash} is not what would be done now, which is {}",
            plan.hash
        ))
        .hint_pair(
            "look again:  gaffer plan",
            &format!("do it:  gaffer apply --plan {}", plan.hash),
        ));
    }
    let talks = ctx.out.is_text() && !ctx.globals.quiet;
    if talks && args.plan.is_none() {
        show(ctx, &plan)?;
    }
    if plan.removed > 0 && args.plan.is_none() {
        ctx.out.flush()?;
        confirm(ctx, &format!("{} removed. Go on?", removed(&plan)))?;
    }
    request.hash = Some(plan.hash.clone());
    let patience = Patience::new(ctx, args.wait.no_wait);
    let operation = ctx.client.apply(&request, patience.first()).await?;
    let operation = settle(ctx, operation, &patience).await?;
    if !ctx.out.is_text() {
        ctx.out.json(&operation)?;
        return Ok(exit_of(&operation));
    }
    if exit_of(&operation) != 0 {
        return Err(
            Failure::new(exit_of(&operation), format!("applied, but: {}", operation.reason))
                .hint_pair("how it is now:  gaffer ps", "why:  gaffer why"),
        );
    }
    if talks {
        let counts = counts(&plan);
        let text = if operation.state == "pending" {
            format!("{counts} {}", goes_on(&operation))
        } else {
            counts
        };
        ctx.out.line(&text)?;
    }
    Ok(0)
}

/// `1 job is`, `2 tasks are`.
fn removed(plan: &Plan) -> String {
    let gone: Vec<&str> = plan
        .changes
        .iter()
        .filter(|change| change.action == "remove")
        .map(|change| change.kind.as_str())
        .collect();
    let kind = match gone[..] {
        [first, ..] if gone.iter().all(|kind| *kind == first) => first,
        _ => "object",
    };
    let verb = if gone.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", file::count(gone.len(), kind))
}

/// The plan as a screen.
fn show(ctx: &Context, plan: &Plan) -> Result<(), Failure> {
    let left = format!(
        "{} → {}, session {}",
        file::shown(plan.file.as_ref()),
        plan.node,
        plan.session
    );
    let right = format!("plan {}", plan.hash);
    let width = ctx.out.width().unwrap_or(80).min(90);
    ctx.out
        .line(&beside(&left, &ctx.out.dim(&right), right.chars().count(), width))?;
    let name_width = plan
        .changes
        .iter()
        .map(|change| shown_name(plan, change).chars().count())
        .max()
        .unwrap_or(0);
    for change in &plan.changes {
        let (sign, role) = match change.action.as_str() {
            "add" => ("+", Role::Ok),
            "remove" => ("-", Role::Bad),
            _ => ("~", Role::Warn),
        };
        let paint = &ctx.out.paint;
        let name = format!("{:name_width$}", shown_name(plan, change));
        let effect = paint.role(Role::Key, &format!("{:8}", change.effect));
        let line = format!(
            "{} {} {}  {effect}  {}",
            paint.role(role, sign),
            change.kind,
            paint.name(name.trim_end(), &name),
            change.summary
        );
        ctx.out.line(line.trim_end())?;
        for key in &change.keys {
            let change = match (&key.old, &key.new) {
                (Some(old), Some(new)) => format!("{old} → {new}"),
                (None, Some(new)) => format!("→ {new}"),
                (Some(old), None) => format!("{old} → removed"),
                (None, None) => String::new(),
            };
            ctx.out.line(
                format!(
                    "    {:20}  {change:22}  {}",
                    key.path,
                    paint.role(Role::Key, &key.class)
                )
                .trim_end(),
            )?;
        }
    }
    if plan.unchanged > 0 {
        ctx.out
            .line(&ctx.out.dim(&format!("= {} unchanged", plan.unchanged)))?;
    }
    for warning in &plan.warnings {
        ctx.out.talk(&format!(
            "{} {}",
            ctx.out.talk_paint.role(Role::Warn, "warning:"),
            warning
        ));
    }
    Ok(())
}

fn shown_name(plan: &Plan, change: &PlanChange) -> String {
    if change.session == plan.session {
        change.name.clone()
    } else {
        format!("{}.{}", change.session, change.name)
    }
}

fn counts(plan: &Plan) -> String {
    if plan.changes.is_empty() {
        return "Nothing to change.".to_owned();
    }
    let ends = match plan.runs_ended {
        0 => "no run ends".to_owned(),
        1 => "1 run ends".to_owned(),
        runs => format!("{runs} runs end"),
    };
    format!(
        "{} added, {} changed, {} removed; {ends}.",
        plan.added, plan.changed, plan.removed
    )
}

fn closing(ctx: &Context, plan: &Plan) -> String {
    let left = counts(plan);
    if plan.changes.is_empty() {
        return left;
    }
    let right = format!("Exactly this: gaffer apply --plan {}", plan.hash);
    let width = ctx.out.width().unwrap_or(80).min(90);
    beside(&left, &right, right.chars().count(), width)
}

/// One on the left, one on the right, or one below the other where the terminal is too narrow.
fn beside(left: &str, right: &str, right_width: usize, width: usize) -> String {
    let taken = left.chars().count() + right_width;
    if taken + 2 > width {
        return format!("{left}\n{right}");
    }
    format!("{left}{}{right}", " ".repeat(width - taken))
}
