//! `scale`: the number of instances, `web=3`, `web=+2`, and as the original wrote it, `web+2`; of workers, `queue:mail=3`.

use crate::args::ScaleArgs;
use crate::ask::Patience;
use crate::commands::act::{ask_each, finish};
use crate::commands::queue;
use crate::context::Context;
use crate::failure::Failure;
use crate::target::Selected;
use gaffer_api::types::{JobsRequest, ScaleRequest};

/// `scale`.
pub async fn scale(ctx: &Context, args: &ScaleArgs) -> Result<u8, Failure> {
    if args.total.is_some() {
        return Err(Failure::usage("--total spreads over several nodes")
            .hint("choose them:  -L URL, --node P, --label K=V or --all-nodes"));
    }
    let mut changes = Vec::new();
    for text in &args.changes {
        changes.push(if args.auto {
            (text.clone(), "auto".to_owned())
        } else {
            change(text)?
        });
    }
    let (queues, changes): (Vec<_>, Vec<_>) = changes
        .into_iter()
        .partition(|(target, _)| target.starts_with("queue:"));
    for (queue, to) in &queues {
        scale_queue(ctx, queue, to, args.force).await?;
    }
    if changes.is_empty() {
        return Ok(0);
    }
    let patience = Patience::new(ctx, args.wait.no_wait);
    // One request for all that get the same number.
    let mut wanted: Vec<(String, Vec<Selected>)> = Vec::new();
    let mut worst = 0;
    for (target, to) in changes {
        let (selected, missing) = match ctx.changed(std::slice::from_ref(&target), false).await {
            Ok(found) => found,
            Err(failure) if failure.exit == 3 && args.changes.len() > 1 => {
                ctx.out.fail(&failure);
                worst = worst.max(failure.exit);
                continue;
            }
            Err(failure) => return Err(failure),
        };
        worst = worst.max(missing);
        for one in selected {
            if one.instance.is_some() || one.run.is_some() {
                return Err(Failure::usage(format!(
                    "`{target}` is not a job; only jobs have a number of instances"
                )));
            }
            match wanted.iter_mut().find(|(same, _)| *same == to) {
                Some((_, jobs)) => jobs.push(one),
                None => wanted.push((to.clone(), vec![one])),
            }
        }
    }
    let mut asked = Vec::new();
    for (to, jobs) in wanted {
        let request = JobsRequest {
            to: Some(to),
            force: args.force,
            ..JobsRequest::default()
        };
        asked.extend(ask_each(ctx, "scale", jobs, &request, &patience).await?);
    }
    finish(ctx, asked, &patience, worst).await
}

/// Workers of a queue: there is nothing to wait for, what runs goes on.
async fn scale_queue(ctx: &Context, target: &str, to: &str, force: bool) -> Result<(), Failure> {
    let (session, name) = queue::find(ctx, target).await?;
    let to = to.to_owned();
    let scaled = ctx
        .client
        .queue_scale(&session, &name, &ScaleRequest { to, force })
        .await?;
    if !ctx.out.is_text() {
        return ctx.out.json(&scaled);
    }
    let of_file = if scaled.scaled.is_none() {
        ", as the file says"
    } else {
        ""
    };
    let workers = if scaled.workers == 1 { "worker" } else { "workers" };
    let text = format!(
        "{}  {} {workers}{of_file}",
        queue::shown_name(ctx, &scaled),
        scaled.workers
    );
    ctx.out.say(&text);
    Ok(())
}

/// `web=3` → `=3`; `web=+2`, `web+2` → `+2`; `web-1` → `-1`.
fn change(text: &str) -> Result<(String, String), Failure> {
    let wrong = || {
        Failure::usage(format!("`{text}` is no change of a number"))
            .hint("write web=3, web=+2 or web=-1; --auto goes back to the file")
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (job, to) = match text.split_once('=') {
        Some((job, to)) => (job, to.to_owned()),
        // Names may hold + and -: the last sign before a number counts.
        None => {
            let at = text.rfind(['+', '-']).ok_or_else(wrong)?;
            (&text[..at], text[at..].to_owned())
        }
    };
    let digits = to.strip_prefix(['+', '-']).unwrap_or(&to);
    if job.is_empty() || !is_number(digits) {
        return Err(wrong());
    }
    let to = if digits.len() == to.len() {
        format!("={to}")
    } else {
        to
    };
    Ok((job.to_owned(), to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_both_ways() {
        let read = |text| change(text).map(|(job, to)| format!("{job} {to}"));
        assert_eq!(read("web=3").unwrap(), "web =3");
        assert_eq!(read("shop.web=+2").unwrap(), "shop.web +2");
        assert_eq!(read("web+2").unwrap(), "web +2");
        assert_eq!(read("a-b-1").unwrap(), "a-b -1");
        for wrong in ["web", "web=", "=3", "web=x", "web+", "web=1.5"] {
            assert_eq!(read(wrong).unwrap_err().exit, 2, "{wrong}");
        }
    }
}
