//! `events`: what happened on the node, and what happens.

use crate::args::{EventsArgs, Format};
use crate::ask::interrupted;
use crate::context::Context;
use crate::failure::Failure;
use crate::paint::Role;
use crate::when;
use futures_util::StreamExt;
use futures_util::future::FutureExt;
use gaffer_api::types::Event;

/// `events`.
pub async fn events(ctx: &Context, args: &EventsArgs) -> Result<u8, Failure> {
    let since = args.since.as_deref().map(when::instant).transpose()?;
    let subjects: Vec<String> = match args.targets.is_empty() {
        true => Vec::new(),
        false => {
            let (selected, _) = ctx.looked(&args.targets, &ctx.jobs(false).await?).await?;
            selected
                .iter()
                .map(|one| one.shown(&crate::target::Scope::All))
                .collect()
        }
    };
    // One pattern is the daemon's work, several are ours.
    let filter = match args.filter.as_slice() {
        [one] => Some(one.as_str()),
        _ => None,
    };
    let mut stream = ctx
        .client
        .events(args.cursor.as_deref(), args.follow, filter)
        .await?;
    let mut document = (ctx.out.format() == Format::Json && !args.follow).then(Vec::new);
    loop {
        let next = match stream.next().now_or_never() {
            Some(next) => next,
            None => {
                ctx.out.flush()?;
                tokio::select! {
                    next = stream.next() => next,
                    () = interrupted() => break,
                }
            }
        };
        let Some(event) = next.transpose()? else { break };
        let early = since
            .as_deref()
            .is_some_and(|since| when::between_ms(since, &event.time).is_none());
        let about = subjects.is_empty() || subjects.iter().any(|subject| is_about(&event.subject, subject));
        if early || (!about && event.event != "gap") {
            continue;
        }
        match &mut document {
            Some(document) => document.push(event),
            None if ctx.out.is_text() => ctx.out.line(&line(ctx, &event))?,
            None => ctx.out.json_line(&event)?,
        }
    }
    if let Some(document) = document {
        ctx.out.json(&document)?;
    }
    Ok(0)
}

/// Whether an event's subject is the job or instance, or an instance of it.
fn is_about(subject: &str, target: &str) -> bool {
    subject
        .strip_prefix(target)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn line(ctx: &Context, event: &Event) -> String {
    let paint = &ctx.out.paint;
    let time = paint.role(Role::Dim, &when::clock_ms(&event.time));
    let reason = event
        .reason
        .as_ref()
        .map(|reason| reason.text.clone())
        .unwrap_or_default();
    let mut more = String::new();
    for (key, value) in &event.data {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        more.push_str(&format!(" {key}={value}"));
    }
    let run = event
        .run
        .as_ref()
        .map(|run| format!(" @{run}"))
        .unwrap_or_default();
    let by = event
        .by
        .as_ref()
        .map(|by| format!(" by {by}"))
        .unwrap_or_default();
    let tail = paint.role(Role::Dim, &crate::escape::escape(&format!("{more}{by}{run}")));
    let name = paint.name(&event.subject, &format!("{:16}", event.subject));
    let word = paint.role(Role::Key, &format!("{:14}", event.event));
    let text = crate::escape::escape(&reason);
    format!("{time} {word} {name} {text}{tail}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_not_its_neighbour() {
        assert!(is_about("shop.web.2", "shop.web"));
        assert!(!is_about("shop.web2", "shop.web"));
    }
}
