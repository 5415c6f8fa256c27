//! What operators change.

use crate::port::{Answer, Cancelled};
use crate::rows::Mode;
use crate::rows::queue_of;
use gaffer_core::queue::spec::{LEAST_KEPT, QueueId};
use gaffer_core::queue::task::{TaskId, TaskState};
use gaffer_core::time::{Duration, Wall};
use rusqlite::{Connection, OptionalExtension, params};

fn state(connection: &Connection, id: TaskId) -> rusqlite::Result<Option<(TaskState, String)>> {
    let row = connection
        .prepare_cached("SELECT state, queue FROM task WHERE id = ?1")?
        .query_row([id], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))
        .optional()?;
    // A state that nobody knows was written by hand: nothing is done with such a row.
    Ok(row.map(|(word, queue)| (TaskState::parse(&word).unwrap_or(TaskState::Lost), queue)))
}

/// What waits will not run; what runs is asked to end.
pub(super) fn cancel(connection: &Connection, id: TaskId, now: Wall) -> rusqlite::Result<Answer> {
    let Some((state, queue)) = state(connection, id)? else {
        return Ok(Answer::Cancelled(Cancelled::Unknown));
    };
    let Some(queue) = queue_of(&queue) else {
        return Ok(Answer::Cancelled(Cancelled::Unknown));
    };
    let done = match state {
        TaskState::Scheduled | TaskState::Queued => {
            connection
                .prepare_cached(
                    "UPDATE task SET state = 'cancelled', finished_at = ?2, expires_at = ?3, unique_hold = NULL WHERE id = ?1",
                )?
                .execute(params![id, now.0, now.plus(LEAST_KEPT).0])?;
            Cancelled::Now(queue)
        }
        TaskState::Running => {
            connection
                .prepare_cached("UPDATE task SET cancel = 1 WHERE id = ?1")?
                .execute([id])?;
            Cancelled::Asked(queue)
        }
        over => Cancelled::Over(over),
    };
    Ok(Answer::Cancelled(done))
}

/// A finished task runs again, as if it had never been tried.
pub(super) fn again(connection: &Connection, id: TaskId, now: Wall) -> rusqlite::Result<Answer> {
    let outcome = match state(connection, id)? {
        None => Err(None),
        Some((state, _)) if !state.is_final() && state != TaskState::Scheduled => Err(Some(state)),
        Some((_, queue)) => {
            connection
                .prepare_cached(
                    "UPDATE task SET state = 'queued', attempt = 0, crashes = 0, interrupts = 0, run_at = ?2, finished_at = NULL,
                        expires_at = NULL, result = NULL, result_until = NULL, cancel = 0 WHERE id = ?1",
                )?
                .execute(params![id, now.0])?;
            Ok((id, queue))
        }
    };
    Ok(Answer::Again(outcome))
}

/// Another payload: of a task that waits, or in a copy of one that is over.
pub(super) fn edit(
    connection: &Connection,
    id: TaskId,
    payload: &str,
    now: Wall,
    shown: TaskId,
) -> rusqlite::Result<Answer> {
    let outcome = match state(connection, id)? {
        None => Err(None),
        Some((TaskState::Running, _)) => Err(Some(TaskState::Running)),
        Some((TaskState::Scheduled | TaskState::Queued, queue)) => {
            connection
                .prepare_cached("UPDATE task SET payload = ?2 WHERE id = ?1")?
                .execute(params![id, payload])?;
            Ok((id, queue))
        }
        Some((_, queue)) => {
            connection
                .prepare_cached(
                    "INSERT INTO task (queue, kind, payload, priority, rank, state, run_at, max_attempts, unique_key, limit_key,
                        timeout_ms, created_at, meta)
                     SELECT queue, kind, ?2, priority, priority, 'queued', ?3, max_attempts, unique_key, limit_key, timeout_ms, ?3,
                        json_object('from', ?4) FROM task WHERE id = ?1",
                )?
                .execute(params![id, payload, now.0, shown])?;
            Ok((connection.last_insert_rowid(), queue))
        }
    };
    Ok(Answer::Again(outcome))
}

pub(super) fn remove(connection: &Connection, id: TaskId) -> rusqlite::Result<Answer> {
    let state = state(connection, id)?.map(|(state, _)| state);
    if state.is_some_and(|state| state != TaskState::Running) {
        drop_rows(connection, "id = ?1", params![id])?;
    }
    Ok(Answer::Removed(state))
}

pub(super) fn purge(
    connection: &Connection,
    queue: &QueueId,
    state: TaskState,
    most: u32,
) -> rusqlite::Result<Answer> {
    if state == TaskState::Running {
        return Ok(Answer::Purged(0));
    }
    let which = "id IN (SELECT id FROM task WHERE queue = ?1 AND state = ?2 LIMIT ?3)";
    drop_rows(connection, which, params![queue.to_string(), state.word(), most]).map(Answer::Purged)
}

/// Rows whose time is over, and results.
pub(super) fn prune(connection: &Connection, now: Wall, most: u32) -> rusqlite::Result<Answer> {
    // A result may be kept for less long than its row.
    connection
        .prepare_cached(
            "UPDATE task SET result = NULL, result_until = NULL WHERE id IN
                (SELECT id FROM task WHERE result_until <= ?1 LIMIT ?2)",
        )?
        .execute(params![now.0, most])?;
    let which = "id IN (SELECT id FROM task WHERE expires_at <= ?1 LIMIT ?2)";
    drop_rows(connection, which, params![now.0, most]).map(Answer::Purged)
}

fn drop_rows(connection: &Connection, which: &str, values: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<u32> {
    let logs = format!("DELETE FROM attempt_log WHERE task_id IN (SELECT id FROM task WHERE {which})");
    connection.prepare_cached(&logs)?.execute(values)?;
    let dropped = connection
        .prepare_cached(&format!("DELETE FROM task WHERE {which}"))?
        .execute(values)?;
    Ok(u32::try_from(dropped).unwrap_or(u32::MAX))
}

/// Waiting is worth something.
pub(super) fn age(
    connection: &Connection,
    queue: &QueueId,
    step: Duration,
    now: Wall,
) -> rusqlite::Result<Answer> {
    let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
    connection
        .prepare_cached(
            "UPDATE task SET rank = MAX(-32768, priority - (?2 - COALESCE(run_at, created_at)) / ?3) WHERE id IN
                (SELECT id FROM task WHERE queue = ?1 AND state = 'queued'
                    AND rank > MAX(-32768, priority - (?2 - COALESCE(run_at, created_at)) / ?3) LIMIT 1000)",
        )?
        .execute(params![queue.to_string(), now.0, step])?;
    Ok(Answer::Noted)
}

pub(super) fn mode(connection: &Connection, queue: &QueueId, mode: &Mode) -> rusqlite::Result<Answer> {
    connection
        .prepare_cached(
            "INSERT INTO queue_state (queue, paused, frozen, closed, changed_at, changed_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (queue) DO UPDATE SET paused = ?2, frozen = ?3, closed = ?4, changed_at = ?5, changed_by = ?6",
        )?
        .execute(params![
            queue.to_string(),
            mode.paused,
            mode.frozen,
            mode.closed,
            mode.at.map(|at| at.0),
            mode.by
        ])?;
    Ok(Answer::Noted)
}
