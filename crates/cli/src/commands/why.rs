//! `why`: the story of a job, newest first: what it is doing, how its last runs ended, what they said last.

use crate::args::WhyArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::paint::Role;
use crate::table::{Cell, Column, lines};
use crate::target::{Selected, Target, parse};
use crate::when;
use gaffer_api::types::{Instance, Job, Run};
use std::collections::BTreeSet;

/// Ends that are looked at to find those alike.
const LOOKED_AT: u32 = 200;
/// Of them so many are asked for with their last lines; what else is shown with them is asked for by itself.
const LINES: u32 = 20;

/// `why`.
pub async fn why(ctx: &Context, args: &WhyArgs) -> Result<u8, Failure> {
    if let Some(run) = &args.run {
        return one(ctx, run.trim_start_matches('@')).await;
    }
    if let [single] = args.targets.as_slice()
        && let Target::Run(prefix) = parse(single)?
    {
        return one(ctx, &prefix).await;
    }
    let jobs = ctx.jobs(false).await?;
    let (selected, worst) = ctx.looked(&args.targets, &jobs).await?;
    let wanted = u32::try_from(args.count).unwrap_or(u32::MAX);
    let mut runs = Vec::new();
    for target in &selected {
        let limit = if ctx.out.is_text() {
            wanted.max(LOOKED_AT)
        } else {
            wanted
        };
        runs.extend(
            ctx.client
                .deaths(
                    &target.session,
                    &target.job,
                    target.instance,
                    limit,
                    wanted.max(LINES),
                )
                .await?,
        );
    }
    runs.sort_by(|left, right| right.ended_at.cmp(&left.ended_at));
    if !ctx.out.is_text() {
        runs.truncate(args.count);
        ctx.out.json_list(&runs)?;
        return Ok(worst);
    }
    for target in &selected {
        let job = jobs
            .iter()
            .find(|job| job.session == target.session && job.job == target.job);
        job.map_or(Ok(()), |job| states(ctx, job, target))?;
    }
    story(ctx, &runs, args.count).await?;
    Ok(worst)
}

/// One sentence for each instance.
fn states(ctx: &Context, job: &Job, target: &Selected) -> Result<(), Failure> {
    let instances: Vec<&Instance> = job
        .instances
        .iter()
        .filter(|one| target.instance.is_none_or(|n| u64::from(n) == one.instance))
        .collect();
    if instances.is_empty() {
        let name = target.shown(&ctx.scope);
        return ctx.out.line(&format!(
            "{} has no instances: {}",
            ctx.out.paint.name(&name, &name),
            job.summary
        ));
    }
    for instance in instances {
        let shown = Selected {
            instance: u32::try_from(instance.instance).ok(),
            ..target.clone()
        }
        .shown(&ctx.scope);
        let name = ctx.out.paint.name(&shown, &shown);
        ctx.out.line(&format!("{name} {}", sentence(instance)))?;
    }
    Ok(())
}

/// `is running for 2h10m`, `is backing off: exit 1 …; next try 14:02:31 (in 12s)`.
fn sentence(instance: &Instance) -> String {
    let reason = crate::escape::escape(&instance.reason);
    let (_, role) = crate::paint::state(&instance.state);
    if role == Role::Ok
        && let Some(up_ms) = instance.up_ms
    {
        let more = if reason.is_empty() {
            String::new()
        } else {
            format!(": {reason}")
        };
        return format!("is {} for {}{more}", instance.state, when::duration(up_ms));
    }
    let now = jiff::Timestamp::now().to_string();
    let next = instance
        .next_try_at
        .as_deref()
        .and_then(|next| when::between_ms(&now, next));
    let next = next
        .map(|ms| format!(" (in {})", when::duration(ms)))
        .unwrap_or_default();
    match (instance.state.as_str(), reason.as_ref()) {
        (state, "") => format!("is {state}"),
        ("backoff", reason) if reason.starts_with("backing off") => format!("is {reason}{next}"),
        ("backoff", reason) => format!("is backing off: {reason}{next}"),
        ("waiting", reason) if reason.starts_with("waiting") => format!("is {reason}"),
        ("exited" | "failed", reason) => format!("has {}: {reason}", instance.state),
        (state, reason) => format!("is {state}: {reason}{next}"),
    }
}

/// The table of ends; those alike in a row are one line.
async fn story(ctx: &Context, runs: &[Run], count: usize) -> Result<(), Failure> {
    if runs.is_empty() {
        return ctx.out.line(&ctx.out.dim("no run has ended yet"));
    }
    let groups = groups(runs);
    let shown = &groups[..groups.len().min(count)];
    let columns = [
        ("RUN", false),
        ("WHO", false),
        ("ENDED", false),
        ("LIVED", true),
        ("CAUSE", false),
        ("DETAIL", false),
    ]
    .map(|(title, right)| Column {
        title: title.to_owned(),
        right,
    });
    let cells: Vec<Vec<Cell>> = shown.iter().map(|group| cells(ctx, group)).collect();
    let rendered = lines(&columns, &cells, ctx.out.width(), &ctx.out.paint);
    let mut rendered = rendered.into_iter();
    if let Some(header) = rendered.next() {
        ctx.out.line(&header)?;
    }
    let mut told = BTreeSet::new();
    for (line, group) in rendered.zip(shown) {
        ctx.out.line(&line)?;
        // The last words of each are enough; those before are a command away.
        let who = (&group[0].session, &group[0].job, group[0].instance);
        if group[0].instance.is_none() || told.insert(who) {
            if group[0].last_lines.is_empty() {
                last_lines(ctx, &ctx.client.run(&group[0].run).await?)?;
            } else {
                last_lines(ctx, group[0])?;
            }
        }
    }
    Ok(())
}

/// What it said last, and where the rest is.
fn last_lines(ctx: &Context, run: &Run) -> Result<(), Failure> {
    let width = ctx.out.width().unwrap_or(usize::MAX);
    let hint = format!("gaffer logs --run @{}", run.run);
    for (i, text) in run.last_lines.iter().enumerate() {
        let text = crate::escape::escape(text);
        let text = crate::table::cut(&text, width.saturating_sub(10).max(20));
        let fits = 10 + text.chars().count() + 2 + hint.chars().count() <= width;
        let is_last = i + 1 == run.last_lines.len();
        let room = width.min(100).saturating_sub(12 + hint.chars().count());
        let beside = if is_last && fits {
            format!("{text:room$}  {hint}")
        } else {
            text
        };
        ctx.out.line(&ctx.out.dim(&format!("        │ {beside}")))?;
        if is_last && !fits {
            ctx.out.line(&ctx.out.dim(&format!("          {hint}")))?;
        }
    }
    Ok(())
}

/// Runs of one instance that ended in the same way one after the other, whatever others did in between; newest first.
fn groups(runs: &[Run]) -> Vec<Vec<&Run>> {
    let who = |run: &Run| (run.session.clone(), run.job.clone(), run.instance);
    let end = |run: &Run| (run.cause.clone(), run.exit_code, run.signal.clone());
    let mut groups: Vec<Vec<&Run>> = Vec::new();
    for run in runs {
        let latest = groups.iter_mut().rev().find(|group| who(group[0]) == who(run));
        match latest {
            // One-offs have nothing in common but the job, and each replacement has a reason of its own.
            Some(group)
                if end(group[0]) == end(run)
                    && run.instance.is_some()
                    && run.cause.as_deref() != Some("replaced") =>
            {
                group.push(run);
            }
            _ => groups.push(vec![run]),
        }
    }
    groups
}

fn cells(ctx: &Context, group: &[&Run]) -> Vec<Cell> {
    let run = group[0];
    let who = Selected {
        session: run.session.clone(),
        job: run.job.clone(),
        instance: run.instance,
        run: None,
    }
    .shown(&ctx.scope);
    let cause = run.cause.clone().unwrap_or_else(|| run.state.clone());
    let role = match cause.as_str() {
        "stopped" | "replaced" => Role::Dim,
        "exit" if run.exit_code == Some(0) => Role::Ok,
        _ => Role::Bad,
    };
    let mut detail = detail(run);
    if let [_, .., first] = group {
        let since = first
            .ended_at
            .as_deref()
            .map(when::date_or_clock)
            .unwrap_or_default();
        detail.push_str(&format!(" ({} more like it since {since})", group.len() - 1));
    }
    vec![
        Cell::role(Role::Key, format!("@{}", run.run)),
        Cell::name(who),
        Cell::plain(
            run.ended_at
                .as_deref()
                .map(when::date_or_clock)
                .unwrap_or_else(|| "-".to_owned()),
        ),
        Cell::plain(run.lived_ms.map(when::duration).unwrap_or_else(|| "-".to_owned())),
        Cell::role(role, cause),
        Cell::plain(detail),
    ]
}

fn detail(run: &Run) -> String {
    match (run.cause.as_deref(), run.exit_code, &run.signal) {
        (Some("exit"), Some(code), _) => format!("code {code}"),
        (Some("signal"), _, Some(signal)) => signal.clone(),
        _ => crate::escape::escape(&run.reason).into_owned(),
    }
}

/// Everything about one run.
async fn one(ctx: &Context, prefix: &str) -> Result<u8, Failure> {
    let selected = ctx.run_of(prefix).await?;
    let run = ctx.client.run(selected.run.as_deref().unwrap_or(prefix)).await?;
    if !ctx.out.is_text() {
        ctx.out.json_list(std::slice::from_ref(&run))?;
        return Ok(0);
    }
    let shown = Selected {
        run: None,
        ..selected
    }
    .shown(&ctx.scope);
    let key = |name: &str| ctx.out.dim(&format!("{name:10}"));
    ctx.out.line(&format!(
        "@{} of {}, attempt {}",
        run.run,
        ctx.out.paint.name(&shown, &shown),
        run.attempt
    ))?;
    let said = |name: &str, text: Option<String>| {
        text.map_or(Ok(()), |text| ctx.out.line(&format!("  {}{text}", key(name))))
    };
    said("state", Some(run.state.clone()))?;
    said(
        "reason",
        Some(crate::escape::escape(&run.reason).into_owned()).filter(|reason| !reason.is_empty()),
    )?;
    said("pid", run.pid.map(|pid| pid.to_string()))?;
    said("started", run.started_at.clone())?;
    said("ended", run.ended_at.clone())?;
    said("lived", run.lived_ms.map(when::duration))?;
    said(
        "cause",
        run.cause
            .as_ref()
            .map(|cause| format!("{cause} {}", detail(&run))),
    )?;
    said(
        "used",
        run.rusage.as_ref().map(|used| {
            format!(
                "{} user, {} system, at most {} resident",
                when::duration(used.user_ms),
                when::duration(used.system_ms),
                when::size(used.max_rss_bytes)
            )
        }),
    )?;
    for text in &run.last_lines {
        ctx.out
            .line(&ctx.out.dim(&format!("        │ {}", crate::escape::escape(text))))?;
    }
    ctx.out.line(
        &ctx.out
            .dim(&format!("  its output:  gaffer logs --run @{}", run.run)),
    )?;
    Ok(0)
}
