//! What operators change, and how far schedules are.

use super::session::{Session, Value};
use super::{Trouble, push};
use crate::port::{Answer, Cancelled, Tick};
use crate::rows::queue_of;
use crate::rows::{Mode, ScheduleRow};
use gaffer_core::queue::spec::{LEAST_KEPT, QueueId};
use gaffer_core::queue::task::{TaskId, TaskState};
use gaffer_core::time::{Duration, Wall};
use std::collections::BTreeMap;
use tokio_postgres::Row;

async fn state(session: &Session, id: TaskId) -> Result<Option<(TaskState, String)>, Trouble> {
    let row = session
        .first("SELECT state, queue FROM task WHERE id = $1 FOR UPDATE", &[&id])
        .await?;
    // A state that nobody knows was written by hand: nothing is done with such a row.
    Ok(row.map(|row| {
        (
            TaskState::parse(row.get(0)).unwrap_or(TaskState::Lost),
            row.get(1),
        )
    }))
}

/// What waits will not run; what runs is asked to end.
pub(super) async fn cancel(session: &Session, id: TaskId, now: Wall) -> Result<Answer, Trouble> {
    let Some((state, queue)) = state(session, id).await? else {
        return Ok(Answer::Cancelled(Cancelled::Unknown));
    };
    let Some(queue) = queue_of(&queue) else {
        return Ok(Answer::Cancelled(Cancelled::Unknown));
    };
    let done = match state {
        TaskState::Scheduled | TaskState::Queued => {
            let withdraw = "UPDATE task SET state = 'cancelled', finished_at = $2, expires_at = $3, unique_hold = NULL WHERE id = $1";
            session
                .execute(withdraw, &[&id, &now.0, &now.plus(LEAST_KEPT).0])
                .await?;
            Cancelled::Now(queue)
        }
        TaskState::Running => {
            session
                .execute("UPDATE task SET cancel = true WHERE id = $1", &[&id])
                .await?;
            Cancelled::Asked(queue)
        }
        over => Cancelled::Over(over),
    };
    Ok(Answer::Cancelled(done))
}

/// A finished task runs again, as if it had never been tried.
pub(super) async fn again(session: &Session, id: TaskId, now: Wall) -> Result<Answer, Trouble> {
    let outcome = match state(session, id).await? {
        None => Err(None),
        Some((state, _)) if !state.is_final() && state != TaskState::Scheduled => Err(Some(state)),
        Some((_, queue)) => {
            let again = "UPDATE task SET state = 'queued', attempt = 0, crashes = 0, interrupts = 0, run_at = $2, finished_at = NULL,
                    expires_at = NULL, result = NULL, result_until = NULL, cancel = false WHERE id = $1";
            session.execute(again, &[&id, &now.0]).await?;
            Ok((id, queue))
        }
    };
    Ok(Answer::Again(outcome))
}

/// Another payload: of a task that waits, or in a copy of one that is over.
pub(super) async fn edit(
    session: &Session,
    id: TaskId,
    payload: &str,
    now: Wall,
    shown: TaskId,
) -> Result<Answer, Trouble> {
    let outcome = match state(session, id).await? {
        None => Err(None),
        Some((TaskState::Running, _)) => Err(Some(TaskState::Running)),
        Some((TaskState::Scheduled | TaskState::Queued, queue)) => {
            let change = "UPDATE task SET payload = $2 WHERE id = $1";
            session.execute(change, &[&id, &payload]).await?;
            Ok((id, queue))
        }
        Some((_, queue)) => {
            let copy = "INSERT INTO task (queue, kind, payload, priority, rank, state, run_at, max_attempts, unique_key, limit_key,
                    timeout_ms, created_at, meta)
                 SELECT queue, kind, $2, priority, priority, 'queued', $3, max_attempts, unique_key, limit_key, timeout_ms, $3,
                    '{\"from\":' || $4::bigint || '}' FROM task WHERE id = $1 RETURNING id";
            let new = session.first(copy, &[&id, &payload, &now.0, &shown]).await?;
            new.map_or(Err(None), |row| Ok((row.get(0), queue)))
        }
    };
    Ok(Answer::Again(outcome))
}

pub(super) async fn remove(session: &Session, id: TaskId) -> Result<Answer, Trouble> {
    let state = state(session, id).await?.map(|(state, _)| state);
    if state.is_some_and(|state| state != TaskState::Running) {
        drop_rows(session, "id = $1", &[&id]).await?;
    }
    Ok(Answer::Removed(state))
}

pub(super) async fn purge(
    session: &Session,
    queue: &QueueId,
    state: TaskState,
    most: u32,
) -> Result<Answer, Trouble> {
    if state == TaskState::Running {
        return Ok(Answer::Purged(0));
    }
    let which = "queue = $1 AND state = $2 LIMIT $3";
    drop_rows(
        session,
        which,
        &[&queue.to_string(), &state.word(), &i64::from(most)],
    )
    .await
    .map(Answer::Purged)
}

/// Rows whose time is over.
pub(super) async fn prune(session: &Session, now: Wall, most: u32) -> Result<Answer, Trouble> {
    // A result may be kept for less long than its row.
    let results = "UPDATE task SET result = NULL, result_until = NULL WHERE id IN
            (SELECT id FROM task WHERE result_until <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED)";
    session.execute(results, &[&now.0, &i64::from(most)]).await?;
    let which = "expires_at <= $1 AND state <> 'running' ORDER BY expires_at LIMIT $2";
    drop_rows(session, which, &[&now.0, &i64::from(most)])
        .await
        .map(Answer::Purged)
}

async fn drop_rows(session: &Session, which: &str, values: &[Value<'_>]) -> Result<u32, Trouble> {
    let sql = format!(
        "WITH w AS MATERIALIZED (SELECT id FROM task WHERE {which} FOR UPDATE SKIP LOCKED),
            l AS (DELETE FROM attempt_log WHERE task_id IN (SELECT id FROM w))
         DELETE FROM task WHERE id IN (SELECT id FROM w)"
    );
    let dropped = session.execute(&sql, values).await?;
    Ok(u32::try_from(dropped).unwrap_or(u32::MAX))
}

/// Waiting is worth something.
pub(super) async fn age(
    session: &Session,
    queue: &QueueId,
    step: Duration,
    now: Wall,
) -> Result<Answer, Trouble> {
    let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
    let worth = "GREATEST(-32768, priority - ($2 - COALESCE(run_at, created_at)) / $3)";
    let sql = format!(
        "UPDATE task SET rank = ({worth})::int WHERE id IN (SELECT id FROM task WHERE queue = $1 AND state = 'queued'
            AND rank > {worth} LIMIT 1000 FOR UPDATE SKIP LOCKED)"
    );
    session
        .execute(&sql, &[&queue.to_string(), &now.0, &step])
        .await?;
    Ok(Answer::Noted)
}

pub(super) async fn mode(session: &Session, queue: &QueueId, mode: &Mode) -> Result<Answer, Trouble> {
    let put = "INSERT INTO queue_state (queue, paused, frozen, closed, changed_at, changed_by) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (queue) DO UPDATE SET paused = $2, frozen = $3, closed = $4, changed_at = $5, changed_by = $6";
    session
        .execute(
            put,
            &[
                &queue.to_string(),
                &mode.paused,
                &mode.frozen,
                &mode.closed,
                &mode.at.map(|at| at.0),
                &mode.by,
            ],
        )
        .await?;
    Ok(Answer::Noted)
}

const COLUMNS: &str =
    "name, seen, anchor, paused, awake, changed_at, changed_by, fired, fired_at, became, note, waiting";

/// The push and the step forward are one, and only the first who comes makes them.
pub(super) async fn tick(session: &Session, tick: &Tick) -> Result<Answer, Trouble> {
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended('gaffer schedule ' || $1, 0))";
    session.query(lock, &[&&*tick.schedule]).await?;
    let seen = session
        .first(
            "SELECT seen, paused FROM schedule WHERE name = $1",
            &[&&*tick.schedule],
        )
        .await?;
    // Another node acted, or an operator said something there.
    let differs = |row: &Row| {
        row.get::<_, i64>(0) != tick.known.0
            || tick.push.is_some() && row.get::<_, bool>(1) != tick.row.paused
    };
    if seen.as_ref().is_some_and(differs) {
        return Ok(Answer::Ticked(None));
    }
    let pushed = match &tick.push {
        None => None,
        Some(task) => push::push(session, std::slice::from_ref(task), tick.now)
            .await?
            .first()
            .copied(),
    };
    let mut row = match pushed {
        Some(pushed) if pushed.duplicate => tick.duplicate.clone(),
        _ => tick.row.clone(),
    };
    if let Some(pushed) = pushed.filter(|pushed| !pushed.duplicate) {
        row.became = Some(pushed.id.to_string());
    }
    put_schedule(session, &tick.schedule, Some(&row)).await?;
    Ok(Answer::Ticked(Some(pushed)))
}

pub(super) async fn put_schedule(
    session: &Session,
    name: &str,
    row: Option<&ScheduleRow>,
) -> Result<Answer, Trouble> {
    let Some(row) = row else {
        session
            .execute("DELETE FROM schedule WHERE name = $1", &[&name])
            .await?;
        return Ok(Answer::Noted);
    };
    let put = format!(
        "INSERT INTO schedule ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         ON CONFLICT (name) DO UPDATE SET seen = $2, anchor = $3, paused = $4, awake = $5, changed_at = $6, changed_by = $7,
            fired = $8, fired_at = $9, became = $10, note = $11, waiting = $12"
    );
    let at = |wall: Option<Wall>| wall.map(|at| at.0);
    session
        .execute(
            &put,
            &[
                &name,
                &row.seen.0,
                &row.anchor.0,
                &row.paused,
                &at(row.awake),
                &at(row.changed),
                &row.changed_by,
                &at(row.fired),
                &at(row.fired_at),
                &row.became,
                &row.note,
                &at(row.waiting),
            ],
        )
        .await?;
    Ok(Answer::Noted)
}

pub(super) async fn schedules(session: &Session) -> Result<Answer, Trouble> {
    let rows = session
        .query(&format!("SELECT {COLUMNS} FROM schedule"), &[])
        .await?;
    let one = |row: &Row| {
        let wall = |column: usize| row.get::<_, Option<i64>>(column).map(Wall);
        let one = ScheduleRow {
            seen: Wall(row.get(1)),
            anchor: Wall(row.get(2)),
            paused: row.get(3),
            awake: wall(4),
            changed: wall(5),
            changed_by: row.get(6),
            fired: wall(7),
            fired_at: wall(8),
            became: row.get(9),
            note: row.get(10),
            waiting: wall(11),
        };
        (row.get(0), one)
    };
    Ok(Answer::Schedules(
        rows.iter().map(one).collect::<BTreeMap<_, _>>(),
    ))
}
