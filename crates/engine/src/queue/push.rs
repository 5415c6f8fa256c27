//! From what a caller says to a task of the store.

use super::handle::NewPush;
use super::redact;
use super::worker::payload_at;
use crate::info::{Actor, Error, Event};
use gaffer_core::queue::spec::{Conflict, Queue, QueueId, Unique};
use gaffer_core::time::{Duration, Wall};
use gaffer_queue::outbox::OutboxRow;
use gaffer_queue::port::{Key, NewTask, Pushed};
use serde_json::Value;
use std::sync::Arc;

/// A task as its queue takes it; the error names what is wrong with it.
pub(crate) fn task_of(queue: &QueueId, spec: &Queue, push: &NewPush, now: Wall) -> Result<NewTask, Error> {
    redact::check(spec, &push.payload)?;
    let payload = push.payload.to_string();
    if u64::try_from(payload.len()).unwrap_or(u64::MAX) > spec.max_payload {
        return Err(Error::Invalid(format!(
            "the payload has {} bytes; queue {queue} takes at most {} (max_payload)",
            payload.len(),
            spec.max_payload
        )));
    }
    if !(-32_768..=32_767).contains(&push.priority) {
        return Err(Error::Invalid(format!(
            "priority {} is out of range: -32768 to 32767, smaller runs first",
            push.priority
        )));
    }
    if push
        .kind
        .as_ref()
        .is_some_and(|kind| kind.is_empty() || kind.len() > 255)
    {
        return Err(Error::Invalid("a kind has 1 to 255 characters".to_owned()));
    }
    fits(spec, push.kind.as_deref(), &push.payload).map_err(|why| misfit(&why))?;
    let run_at = push.at.or_else(|| push.delay.map(|delay| now.plus(delay)));
    let limit_key = spec
        .throttle
        .key
        .as_deref()
        .and_then(|path| payload_at(&push.payload, path));
    Ok(NewTask {
        queue: queue.clone(),
        kind: push.kind.as_deref().map(Into::into),
        payload: payload.into(),
        meta: push.meta.as_ref().map(|meta| meta.to_string().into()),
        priority: push.priority,
        fifo: spec.fifo,
        run_at,
        unique: key(spec, push, now),
        limit_key: push
            .limit_key
            .as_deref()
            .map(Into::into)
            .or(limit_key.map(Into::into)),
        attempts_max: push.attempts,
        timeout_ms: push
            .timeout
            .map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
        begin_by: spec.expires.map(|time| run_at.unwrap_or(now).plus(time)),
        created: None,
        full: spec.full,
    })
}

/// A payload is refused for what it looks like.
pub(super) fn misfit(why: &str) -> Error {
    Error::Invalid(format!("the payload does not fit the schema of its queue: {why}"))
}

/// A payload is as the schema of its queue or kind says, or what is wrong with it.
pub(super) fn fits(spec: &Queue, kind: Option<&str>, payload: &Value) -> Result<(), String> {
    match &spec.work(kind).schema {
        Some(schema) => gaffer_config::check_payload(schema, payload),
        None => Ok(()),
    }
}

/// A row of an outbox as its queue takes it. Whoever wrote it cannot be told anything: what is wrong with it shows when it is its
/// turn, and a second one of a key is dropped.
pub(super) fn from_row(queue: &QueueId, spec: &Queue, row: &OutboxRow, now: Wall) -> NewTask {
    let payload: Option<Value> = serde_json::from_str(&row.payload).ok();
    let path = spec.throttle.key.as_deref();
    let by_path = path.and_then(|path| payload_at(payload.as_ref()?, path));
    let push = NewPush {
        kind: row.kind.clone(),
        payload: payload.unwrap_or_default(),
        unique: row.unique_key.clone(),
        ..NewPush::default()
    };
    let mut unique = key(spec, &push, now);
    if let Some(key) = unique.as_mut().filter(|key| key.conflict == Conflict::Error) {
        key.conflict = Conflict::Return;
    }
    let run_at = row.run_at.map(Wall);
    let priority = row.priority.unwrap_or_default().clamp(-32_768, 32_767);
    NewTask {
        queue: queue.clone(),
        kind: row.kind.as_deref().map(Into::into),
        payload: row.payload.as_str().into(),
        meta: row.meta.as_deref().map(Into::into),
        priority: i32::try_from(priority).unwrap_or_default(),
        fifo: spec.fifo,
        run_at,
        unique,
        limit_key: row.limit_key.clone().or(by_path).map(Into::into),
        attempts_max: row.max_attempts.and_then(|most| u32::try_from(most).ok()),
        timeout_ms: row.timeout_ms.and_then(|timeout| u64::try_from(timeout).ok()),
        begin_by: spec.expires.map(|time| run_at.unwrap_or(now).plus(time)),
        created: row.created_at.map(Wall).filter(|at| *at < now),
        full: spec.full,
    }
}

/// A task is in the store.
pub(super) fn queued(queue: &QueueId, kind: Option<&str>, pushed: &Pushed, by: Option<Actor>) -> Event {
    let mut data = vec![("queue", queue.to_string()), ("task", pushed.id.to_string())];
    data.extend(kind.map(|kind| ("kind", kind.to_owned())));
    data.extend(pushed.due.map(|at| ("run_at", at.0.to_string())));
    Event {
        event: "queue.task.queued",
        job: None,
        slot: None,
        run: None,
        by,
        reason: None,
        data,
    }
}

/// What excludes others: the key that was given, or one made of the payload.
fn key(spec: &Queue, push: &NewPush, now: Wall) -> Option<Key> {
    let plain = Unique {
        by: Vec::new(),
        within: None,
        while_running: false,
        while_done: false,
        conflict: Conflict::Return,
        max_delay: None,
    };
    let unique = spec.unique.as_ref().unwrap_or(&plain);
    let given = push.unique.as_deref().map(Arc::from);
    let key: Arc<str> = given.or_else(|| made(unique, push, now))?;
    let within = unique.within.filter(|_| unique.while_done);
    Some(Key {
        key,
        while_running: unique.while_running,
        done_until: within.map(|within| now.plus(within)),
        conflict: unique.conflict,
        max_delay: unique.max_delay,
    })
}

/// Kind, chosen fields, bucket of time: readable, so that whoever looks knows why two tasks are one.
fn made(unique: &Unique, push: &NewPush, now: Wall) -> Option<Arc<str>> {
    if unique.by.is_empty() {
        return None;
    }
    let mut parts = vec![push.kind.clone().unwrap_or_default()];
    for path in &unique.by {
        let value = payload_at(&push.payload, path).unwrap_or_default();
        parts.push(format!("{path}={value}"));
    }
    if let Some(within) = unique.within {
        parts.push(bucket(now, within).to_string());
    }
    Some(parts.join("|").into())
}

fn bucket(now: Wall, within: Duration) -> i64 {
    let length = i64::try_from(within.as_millis()).unwrap_or(i64::MAX).max(1);
    now.0.div_euclid(length)
}
