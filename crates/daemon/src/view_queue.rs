//! Queues and their tasks, as the API shows them.

use crate::view::{now, time};
use gaffer::queue::{QueueInfo, TaskOutcome};
use gaffer_api::types::queue::{
    ClaimedTask, Queue, QueueAlert, QueueMinute, QueuePool, QueuedOutcome, QueuedTask, TaskAttempt,
    TaskFailure,
};
use gaffer_core::queue::alert::Alert;
use gaffer_core::queue::spec::Delivery;
use gaffer_core::queue::task::{Claimed, Failure, TaskState};
use gaffer_core::time::{Duration, Wall};
use gaffer_queue::rows::{AttemptRow, MinuteRow, TaskError, TaskRow};
use serde_json::Value;

/// A queue.
pub fn queue(info: &QueueInfo, spec: bool) -> Queue {
    let counts = &info.counts;
    let oldest = counts.oldest.map(|at| now().since(at));
    let state = match (info.mode.paused, info.mode.closed) {
        (true, _) => "paused",
        (_, true) => "closed",
        _ if info.store_trouble.is_some() => "unreachable",
        _ if counts.running > 0 || counts.queued > 0 => "working",
        _ => "idle",
    };
    let said = info.mode.paused || info.mode.closed;
    let summary = match (said, info.mode.paused) {
        _ if info.store_trouble.is_some() => info.store_trouble.clone().unwrap_or_default(),
        (true, true) => format!("paused by {}", info.mode.by),
        (true, false) => format!("closed by {}: takes no tasks", info.mode.by),
        _ if info.spec.workers == 0 && info.spec.is_ours() && counts.queued > 0 => "no workers".to_owned(),
        _ => match &info.outbox_trouble {
            Some(why) => format!("outbox: {why}"),
            None => alarm(info),
        },
    };
    Queue {
        session: info.id.session.to_string(),
        queue: info.id.job.to_string(),
        state: state.to_owned(),
        summary,
        alerts: info.alerts.iter().map(alert).collect(),
        waiting: counts.queued,
        oldest_ms: oldest.map(millis),
        running: counts.running,
        scheduled: counts.scheduled,
        dead: counts.dead,
        workers: info.spec.workers,
        busy: info.busy,
        pool: info.pool.as_ref().map(|pool| QueuePool {
            name: pool.name.to_string(),
            weight: info.spec.weight,
            workers: pool.workers,
            busy: pool.busy,
        }),
        done_per_min: info.done_per_min,
        paused: info.mode.paused,
        closed: info.mode.closed,
        changed_by: said.then(|| info.mode.by.clone()),
        changed_at: info.mode.at.filter(|_| said).map(time),
        delivery: match info.spec.delivery {
            Delivery::AtLeastOnce => "at-least-once",
            Delivery::AtMostOnce => "at-most-once",
        }
        .to_owned(),
        scaled: info.scaled,
        store: info.store.to_string(),
        file: info.file.clone(),
        spec: spec.then(|| info.typed.clone()),
    }
}

/// The most pressing alert; and how many more there are.
fn alarm(info: &QueueInfo) -> String {
    match info.alerts.as_slice() {
        [] => String::new(),
        [one] => one.text.clone(),
        [first, more @ ..] => format!("{}; and {} more", first.text, more.len()),
    }
}

fn alert(alert: &Alert) -> QueueAlert {
    QueueAlert {
        code: alert.code.to_owned(),
        text: alert.text.clone(),
        since_at: time(alert.since),
    }
}

/// What it did in a minute.
pub fn minute(row: MinuteRow) -> QueueMinute {
    QueueMinute {
        minute: time(row.minute),
        kind: Some(row.kind).filter(|kind| !kind.is_empty()),
        begun: row.begun,
        done: row.done,
        retried: row.retried,
        dead: row.dead,
        waited_ms: row.waited_ms.0,
        waited_max_ms: row.waited_ms.1,
        took_ms: row.took_ms.0,
        took_max_ms: row.took_ms.1,
        waiting: row.waiting,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// JSON; what is none (rows may be written by hand) is shown as text.
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

fn error(error: &TaskError) -> TaskFailure {
    TaskFailure {
        kind: error.kind.clone(),
        message: error.message.clone(),
        output: error.output.clone(),
    }
}

fn failure(failure: &Failure) -> TaskFailure {
    TaskFailure {
        kind: failure.kind.to_string(),
        message: failure.message.to_string(),
        output: failure.output.to_string(),
    }
}

/// A task with attempts that are over.
pub fn task(row: &TaskRow, attempts: &[AttemptRow]) -> QueuedTask {
    let (session, queue) = row.queue.split_once('.').unwrap_or(("", &row.queue));
    QueuedTask {
        id: row.id,
        session: session.to_owned(),
        queue: queue.to_owned(),
        kind: row.kind.clone(),
        state: row.state.word().to_owned(),
        summary: summary(row),
        payload: json(&row.payload),
        meta: row.meta.as_deref().map(json),
        priority: row.priority,
        attempt: row.attempt,
        crashes: row.crashes,
        result: row.result.as_deref().map(json),
        error: row.error.as_ref().map(error),
        unique: row.unique_key.clone(),
        owner: row.owner.clone(),
        token: row.token,
        cancel_asked: row.cancelled,
        created_at: time(row.created),
        run_at: row.run_at.map(time),
        started_at: row.started.map(time),
        finished_at: row.finished.map(time),
        expires_at: row.expires.map(time),
        attempts: attempts.iter().map(attempt).collect(),
    }
}

fn attempt(row: &AttemptRow) -> TaskAttempt {
    TaskAttempt {
        attempt: row.attempt,
        outcome: row.outcome.clone(),
        started_at: row.started.map(time),
        ended_at: time(row.finished),
        error: row.error.as_ref().map(error),
    }
}

/// What happened; what follows.
fn summary(row: &TaskRow) -> String {
    let ago = |at: Wall| gaffer_config::format_duration(now().since(at));
    let failed = row.error.as_ref().map(|error| error.message.clone());
    match row.state {
        TaskState::Queued => match row.run_at {
            Some(at) => format!("waits for a worker for {}", ago(at)),
            None => format!("waits for a worker for {}", ago(row.created)),
        },
        TaskState::Scheduled => {
            let at = row.run_at.unwrap_or(row.created);
            let wait = gaffer_config::format_duration(at.since(now()));
            match failed {
                Some(why) => format!("{why}; attempt {} in {wait}", row.attempt + 1),
                None => format!("in {wait}"),
            }
        }
        TaskState::Running if row.cancelled => "asked to end".to_owned(),
        TaskState::Running => {
            let since = row
                .started
                .map(|at| format!(" for {}", ago(at)))
                .unwrap_or_default();
            format!("attempt {}{since}", row.attempt)
        }
        TaskState::Done => {
            let took = row.started.zip(row.finished).map(|(from, to)| to.since(from));
            took.map_or_else(
                || "done".to_owned(),
                |took| format!("done in {}", gaffer_config::format_duration(took)),
            )
        }
        TaskState::Dead => match failed {
            Some(why) => format!("{why}; given up after {} attempts", row.attempt.max(1)),
            None => "given up".to_owned(),
        },
        TaskState::Cancelled => failed.unwrap_or_else(|| "withdrawn".to_owned()),
        TaskState::Lost => failed.unwrap_or_else(|| "nobody knows how it ended".to_owned()),
    }
}

/// How a task ended.
pub fn outcome(id: i64, outcome: &TaskOutcome) -> QueuedOutcome {
    QueuedOutcome {
        id,
        state: outcome.state.word().to_owned(),
        result: outcome.result.as_deref().map(json),
        error: outcome.failure.as_ref().map(failure),
    }
}

/// A task for a worker outside.
pub fn claimed(row: &Claimed, lease: Duration) -> ClaimedTask {
    ClaimedTask {
        id: row.handle.task,
        token: row.handle.token,
        kind: row.kind.as_deref().map(str::to_owned),
        payload: json(&row.payload),
        meta: row.meta.as_deref().map(json),
        attempt: row.attempt,
        lease_ms: millis(lease),
    }
}
