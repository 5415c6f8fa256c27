//! Rows as they are shown and handed out.

use crate::port::Answer;
use crate::rows::{AttemptRow, COUNT_MAX, Counts, Filter, Mode, TaskError, TaskRow, queue_of};
use gaffer_core::queue::spec::QueueId;
use gaffer_core::queue::task::{Claimed, Handle, TaskId, TaskState};
use gaffer_core::time::Wall;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Columns of [`claimed_of`].
pub(super) const CLAIMED: &str = "id, lease_token, queue, kind, payload, meta, attempt, max_attempts, crashes, interrupts, timeout_ms, \
     created_at, run_at, cancel, lease_owner";

const ROW: &str = "id, queue, kind, payload, meta, priority, state, run_at, attempt, max_attempts, crashes, interrupts, unique_key, \
     limit_key, timeout_ms, lease_owner, lease_until, lease_token, cancel, created_at, started_at, finished_at, last_error, \
     result, expires_at, result_until";

pub(super) fn claimed_of(row: &Row<'_>) -> rusqlite::Result<Claimed> {
    let text = |at: &str| row.get::<_, Option<Arc<str>>>(at);
    let queue: String = row.get("queue")?;
    let queue = queue_of(&queue).ok_or_else(|| rusqlite::Error::InvalidColumnName(queue.clone()))?;
    let created = Wall(row.get("created_at")?);
    Ok(Claimed {
        handle: Handle {
            task: row.get("id")?,
            token: row.get("lease_token")?,
        },
        queue,
        kind: text("kind")?,
        payload: text("payload")?.unwrap_or_else(|| "null".into()),
        meta: text("meta")?,
        attempt: row.get("attempt")?,
        attempts_max: row.get("max_attempts")?,
        crashes: row.get("crashes")?,
        interrupts: row.get("interrupts")?,
        timeout_ms: row.get("timeout_ms")?,
        created,
        runnable: row.get::<_, Option<i64>>("run_at")?.map_or(created, Wall),
        cancelled: row.get("cancel")?,
        owner: text("lease_owner")?.unwrap_or_default(),
    })
}

/// As text, whatever it is: what is shown need not be what can be worked on.
fn text_of(row: &Row<'_>, at: &str) -> rusqlite::Result<Option<String>> {
    Ok(match row.get_ref(at)? {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    })
}

/// As a number; what is none, or out of bounds, is not there.
fn number_of<T: TryFrom<i64>>(row: &Row<'_>, at: &str) -> rusqlite::Result<Option<T>> {
    Ok(match row.get_ref(at)? {
        ValueRef::Integer(number) => T::try_from(number).ok(),
        _ => None,
    })
}

fn row_of(row: &Row<'_>) -> rusqlite::Result<TaskRow> {
    let wall = |at: &str| number_of(row, at).map(|at: Option<i64>| at.map(Wall));
    let text = |at: &str| text_of(row, at);
    let count = |at: &str| number_of(row, at).map(Option::unwrap_or_default);
    let state = text("state")?.unwrap_or_default();
    Ok(TaskRow {
        id: row.get("id")?,
        queue: text("queue")?.unwrap_or_default(),
        kind: text("kind")?,
        payload: text("payload")?.unwrap_or_default(),
        meta: text("meta")?,
        priority: number_of(row, "priority")?.unwrap_or_default(),
        state: TaskState::parse(&state).unwrap_or(TaskState::Lost),
        run_at: wall("run_at")?,
        attempt: count("attempt")?,
        attempts_max: number_of(row, "max_attempts")?,
        crashes: count("crashes")?,
        interrupts: count("interrupts")?,
        unique_key: text("unique_key")?,
        limit_key: text("limit_key")?,
        timeout_ms: number_of(row, "timeout_ms")?,
        owner: text("lease_owner")?,
        lease_until: wall("lease_until")?,
        token: number_of(row, "lease_token")?.unwrap_or_default(),
        cancelled: number_of(row, "cancel")?.unwrap_or(0_i64) != 0,
        created: wall("created_at")?.unwrap_or(Wall(0)),
        started: wall("started_at")?,
        finished: wall("finished_at")?,
        error: text("last_error")?.and_then(|text| serde_json::from_str(&text).ok()),
        result: text("result")?,
        expires: wall("expires_at")?,
    })
}

pub(super) fn task(connection: &Connection, id: TaskId) -> rusqlite::Result<Answer> {
    let row = connection
        .prepare_cached(&format!("SELECT {ROW} FROM task WHERE id = ?1"))?
        .query_row([id], row_of)
        .optional()?;
    let Some(row) = row else {
        return Ok(Answer::Task(None));
    };
    let mut log = connection.prepare_cached(
        "SELECT attempt, started_at, finished_at, outcome, error FROM attempt_log WHERE task_id = ?1 ORDER BY n",
    )?;
    let attempts = log.query_map([id], |row| {
        let error: Option<String> = row.get(4)?;
        Ok(AttemptRow {
            attempt: row.get(0)?,
            started: row.get::<_, Option<i64>>(1)?.map(Wall),
            finished: Wall(row.get(2)?),
            outcome: row.get(3)?,
            error: error.and_then(|text| serde_json::from_str::<TaskError>(&text).ok()),
        })
    })?;
    let attempts = attempts.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(Answer::Task(Some(Box::new((row, attempts)))))
}

pub(super) fn tasks(connection: &Connection, filter: &Filter) -> rusqlite::Result<Answer> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT {ROW} FROM task WHERE (?1 IS NULL OR queue = ?1) AND (?2 IS NULL OR state = ?2) AND (?3 IS NULL OR kind = ?3)
            AND (?4 IS NULL OR created_at >= ?4) AND (?5 IS NULL OR id < ?5) ORDER BY id DESC LIMIT ?6"
    ))?;
    let rows = select.query_map(
        params![
            filter.queue,
            filter.state.map(TaskState::word),
            filter.kind,
            filter.since.map(|since| since.0),
            filter.before,
            filter.limit
        ],
        row_of,
    )?;
    Ok(Answer::Tasks(rows.collect::<rusqlite::Result<Vec<_>>>()?))
}

pub(super) fn counts(connection: &Connection, queue: &QueueId) -> rusqlite::Result<Answer> {
    let queue = queue.to_string();
    let count = |which: &str| -> rusqlite::Result<u64> {
        connection
            .prepare_cached(&format!(
                "SELECT COUNT(*) FROM (SELECT 1 FROM task WHERE {which} AND queue = ?1 LIMIT ?2)"
            ))?
            .query_row(params![queue, COUNT_MAX], |row| row.get(0))
    };
    let oldest: Option<i64> = connection
        .prepare_cached(
            "SELECT MIN(COALESCE(run_at, created_at)) FROM
                (SELECT run_at, created_at FROM task WHERE queue = ?1 AND state = 'queued' ORDER BY rank, id LIMIT 1000)",
        )?
        // Text is behind every number: all that is there is no time at all.
        .query_row([&queue], |row| Ok(row.get(0).unwrap_or(None)))?;
    Ok(Answer::Counts(Counts {
        queued: count("state = 'queued'")?,
        scheduled: count("state = 'scheduled'")?,
        running: count("state = 'running'")?,
        dead: count("state IN ('dead', 'lost')")?,
        oldest: oldest.map(Wall),
    }))
}

pub(super) fn modes(connection: &Connection) -> rusqlite::Result<BTreeMap<String, Mode>> {
    let mut select = connection
        .prepare("SELECT queue, paused, frozen, closed, changed_at, changed_by FROM queue_state")?;
    let rows = select.query_map([], |row| {
        Ok((
            row.get(0)?,
            Mode {
                paused: row.get(1)?,
                frozen: row.get(2)?,
                closed: row.get(3)?,
                at: row.get::<_, Option<i64>>(4)?.map(Wall),
                by: row.get(5)?,
            },
        ))
    })?;
    rows.collect()
}
