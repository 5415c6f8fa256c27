//! `wait`: returns when something is so, or when it can no longer become so.

use crate::args::WaitArgs;
use crate::ask::{Patience, exit_of, interrupted, settle};
use crate::context::Context;
use crate::failure::Failure;
use crate::target::Selected;
use crate::when;
use futures_util::StreamExt;
use gaffer_api::types::queue::Queue;
use gaffer_api::types::{Instance, Job};
use std::time::{Duration, Instant};

/// Looked at again so often even if no event came.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Events that are taken for one look.
const EVENTS_AT_ONCE: usize = 4096;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Ready,
    Running,
    Stopped,
    Done,
    Empty,
}

/// Of what it is waited for.
enum Subject {
    Job(Selected),
    /// Session and name.
    Queue(String, String),
}

/// What a look brought.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// It is so.
    So,
    /// Not yet, and why.
    NotYet(String),
    /// It will not become so by itself.
    Never(String),
}

/// `wait`.
pub async fn wait(ctx: &Context, args: &WaitArgs) -> Result<u8, Failure> {
    let mut conditions = Vec::new();
    for text in &args.conditions {
        if text.starts_with("op-") && !text.contains('=') {
            return operations(ctx, args).await;
        }
        let (target, wanted) = condition(text)?;
        if wanted == Wanted::Empty {
            let (session, queue) = super::queue::find(ctx, &target).await?;
            ctx.client.queue(&session, &queue, false).await?;
            conditions.push((Subject::Queue(session, queue), wanted));
            continue;
        }
        let (selected, _) = ctx
            .looked(std::slice::from_ref(&target), &ctx.jobs(false).await?)
            .await?;
        conditions.extend(selected.into_iter().map(|one| (Subject::Job(one), wanted)));
    }
    let deadline = ctx.globals.timeout.map(|timeout| Instant::now() + timeout);
    // However many came together, the jobs are looked at once.
    let events = ctx.client.events(Some("end"), true, None).await.ok();
    let mut events = events.map(|events| events.ready_chunks(EVENTS_AT_ONCE));
    loop {
        let looks = look_all(ctx, &conditions).await?;
        if let Some(outcome) = outcome(&looks, args.any) {
            return outcome;
        }
        let left = deadline.map_or(LOOK_EVERY, |deadline| {
            deadline.saturating_duration_since(Instant::now()).min(LOOK_EVERY)
        });
        if left.is_zero() {
            return Err(in_vain(ctx, &looks));
        }
        let next = async {
            match &mut events {
                Some(events) => events.next().await.is_some(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            more = next => if !more { events = None },
            () = tokio::time::sleep(left) => {}
            () = interrupted() => return Ok(1),
        }
    }
}

/// The jobs are asked for once, each queue by itself.
async fn look_all(ctx: &Context, conditions: &[(Subject, Wanted)]) -> Result<Vec<(String, Look)>, Failure> {
    let any_job = conditions
        .iter()
        .any(|(subject, _)| matches!(subject, Subject::Job(_)));
    let jobs = if any_job {
        ctx.jobs(false).await?
    } else {
        Vec::new()
    };
    let mut looks = Vec::with_capacity(conditions.len());
    for (subject, wanted) in conditions {
        looks.push(match subject {
            Subject::Job(one) => (one.shown(&ctx.scope), look(one, *wanted, &jobs)),
            Subject::Queue(session, name) => {
                let queue = ctx.client.queue(session, name, false).await?;
                (format!("queue {session}.{name}"), look_at_queue(&queue))
            }
        });
    }
    Ok(looks)
}

/// The time is over.
fn in_vain(ctx: &Context, looks: &[(String, Look)]) -> Failure {
    let after = when::duration(ctx.globals.timeout.map_or(0, |timeout| {
        u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
    }));
    let reasons: Vec<String> = looks
        .iter()
        .filter_map(|(name, look)| match look {
            Look::NotYet(reason) => Some(format!("{name} {reason}")),
            _ => None,
        })
        .collect();
    Failure::failed(format!("not so after {after}: {}", reasons.join("; ")))
}

/// Empty: no task waits, now or for later, and none is worked on, on any node. Dead ones are over.
fn look_at_queue(queue: &Queue) -> Look {
    let parts: Vec<String> = [
        (queue.waiting, "waiting"),
        (queue.running, "running"),
        (queue.scheduled, "scheduled"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    if parts.is_empty() {
        return Look::So;
    }
    let paused = if queue.paused { ", and is paused" } else { "" };
    Look::NotYet(format!("has {}{paused}", parts.join(", ")))
}

/// Whether the waiting is over.
fn outcome(looks: &[(String, Look)], any: bool) -> Option<Result<u8, Failure>> {
    let so = looks.iter().filter(|(_, look)| *look == Look::So).count();
    if so == looks.len() || (any && so > 0) {
        return Some(Ok(0));
    }
    let never: Vec<String> = looks
        .iter()
        .filter_map(|(name, look)| match look {
            Look::Never(reason) => Some(format!("{name} {reason}")),
            _ => None,
        })
        .collect();
    let hopeless = if any {
        never.len() == looks.len()
    } else {
        !never.is_empty()
    };
    hopeless.then(|| Err(Failure::failed(never.join("; "))))
}

fn condition(text: &str) -> Result<(String, Wanted), Failure> {
    let default = if text.starts_with("queue:") {
        "empty"
    } else {
        "ready"
    };
    let (target, state) = text.split_once('=').unwrap_or((text, default));
    let wanted = match state {
        "ready" => Wanted::Ready,
        "running" => Wanted::Running,
        "stopped" => Wanted::Stopped,
        "done" => Wanted::Done,
        "empty" => Wanted::Empty,
        other => {
            return Err(Failure::usage(format!("`{other}` cannot be waited for"))
                .hint("states: ready, running, stopped, done, and empty for queues"));
        }
    };
    if target.starts_with("queue:") != (wanted == Wanted::Empty) {
        return Err(Failure::usage(format!(
            "`{text}`: a queue is waited for until it is empty, and only a queue"
        ))
        .hint("gaffer wait queue:thumbs=empty"));
    }
    Ok((target.to_owned(), wanted))
}

fn look(one: &Selected, wanted: Wanted, jobs: &[Job]) -> Look {
    let Some(job) = jobs
        .iter()
        .find(|job| job.session == one.session && job.job == one.job)
    else {
        return if wanted == Wanted::Stopped {
            Look::So
        } else {
            Look::Never("has been removed".to_owned())
        };
    };
    let instances = job
        .instances
        .iter()
        .filter(|instance| match (&one.run, one.instance) {
            (Some(run), _) => instance.run.as_ref() == Some(run),
            (None, n) => n.is_none_or(|n| u64::from(n) == instance.instance),
        });
    let mut worst = Look::So;
    for instance in instances {
        match (look_at(instance, wanted), &worst) {
            (Look::So, _) => {}
            (never @ Look::Never(_), _) => return never,
            (not_yet, Look::So) => worst = not_yet,
            (_, _) => {}
        }
    }
    // A job that is wished for but has no instance yet is not ready.
    if worst == Look::So
        && one.instance.is_none()
        && job.instances.is_empty()
        && job.target > 0
        && wanted != Wanted::Stopped
    {
        return Look::NotYet("has no instances yet".to_owned());
    }
    worst
}

fn look_at(instance: &Instance, wanted: Wanted) -> Look {
    let state = instance.state.as_str();
    let told = || {
        let reason = if instance.reason.is_empty() {
            String::new()
        } else {
            format!(": {}", instance.reason)
        };
        format!("is {state}{reason}")
    };
    let over = matches!(state, "stopped" | "exited" | "failed");
    match wanted {
        Wanted::Ready if state == "running" => Look::So,
        Wanted::Running if instance.pid.is_some() && state != "stopping" => Look::So,
        Wanted::Ready | Wanted::Running if over && (state != "stopped" || instance.wish != "running") => {
            Look::Never(told())
        }
        Wanted::Stopped if over && instance.pid.is_none() => Look::So,
        Wanted::Done if state == "exited" => Look::So,
        Wanted::Done if over => Look::Never(told()),
        _ => Look::NotYet(told()),
    }
}

/// Operations by their ids.
async fn operations(ctx: &Context, args: &WaitArgs) -> Result<u8, Failure> {
    let patience = Patience::new(ctx, false);
    let mut worst = 0;
    for id in &args.conditions {
        let operation = ctx.client.operation(id, patience.first()).await?;
        let operation = settle(ctx, operation, &patience).await?;
        let exit = exit_of(&operation);
        if exit != 0 {
            ctx.out.fail(&Failure::failed(format!(
                "{} of {}: {}",
                operation.verb, operation.target, operation.reason
            )));
        } else if args.any {
            return Ok(0);
        }
        if !ctx.out.is_text() {
            ctx.out.json(&operation)?;
        }
        worst = worst.max(exit);
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(state: &str, wish: &str, pid: Option<u32>) -> Instance {
        serde_json::from_value(serde_json::json!({"instance": 1, "run": null, "pid": pid, "state": state, "wish": wish, "reason": "exit 1",
            "reason_code": "", "started_at": null, "ready_at": null, "up_ms": null, "next_try_at": null, "restarts": 0, "attempt": 1}))
        .unwrap()
    }

    #[test]
    fn what_cannot_become_so_is_not_waited_for() {
        assert_eq!(
            look_at(&instance("running", "running", Some(1)), Wanted::Ready),
            Look::So
        );
        assert_eq!(
            look_at(&instance("starting", "running", Some(1)), Wanted::Running),
            Look::So
        );
        assert!(matches!(
            look_at(&instance("starting", "running", Some(1)), Wanted::Ready),
            Look::NotYet(_)
        ));
        assert!(matches!(
            look_at(&instance("backoff", "running", None), Wanted::Ready),
            Look::NotYet(_)
        ));
        assert_eq!(
            look_at(&instance("failed", "running", None), Wanted::Ready),
            Look::Never("is failed: exit 1".to_owned())
        );
        assert!(matches!(
            look_at(&instance("stopped", "stopped", None), Wanted::Ready),
            Look::Never(_)
        ));
        assert!(matches!(
            look_at(&instance("stopped", "running", None), Wanted::Ready),
            Look::NotYet(_)
        ));
        assert_eq!(
            look_at(&instance("exited", "running", None), Wanted::Done),
            Look::So
        );
        assert!(matches!(
            look_at(&instance("failed", "running", None), Wanted::Done),
            Look::Never(_)
        ));
    }

    #[test]
    fn conditions_name_a_state() {
        assert_eq!(condition("web").unwrap(), ("web".to_owned(), Wanted::Ready));
        assert_eq!(
            condition("shop.web.2=stopped").unwrap(),
            ("shop.web.2".to_owned(), Wanted::Stopped)
        );
        assert_eq!(condition("web=up").unwrap_err().exit, 2);
        assert_eq!(
            condition("queue:thumbs").unwrap(),
            ("queue:thumbs".to_owned(), Wanted::Empty)
        );
        for wrong in ["web=empty", "queue:thumbs=ready"] {
            assert_eq!(condition(wrong).unwrap_err().exit, 2, "{wrong}");
        }
    }
}
