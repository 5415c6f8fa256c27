//! Rows as they are shown and handed out.

use super::Trouble;
use super::session::Session;
use crate::port::Answer;
use crate::rows::queue_of;
use crate::rows::{AttemptRow, COUNT_MAX, Counts, Filter, Mode, TaskRow};
use gaffer_core::queue::spec::QueueId;
use gaffer_core::queue::task::{Claimed, Handle, TaskId, TaskState};
use gaffer_core::time::Wall;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_postgres::Row;

/// Columns of [`claimed_of`], of the table `t`.
pub(super) const CLAIMED: &str = "t.id, t.lease_token, t.queue, t.kind, t.payload, t.meta, t.attempt, t.max_attempts, t.crashes, \
     t.interrupts, t.timeout_ms, t.created_at, t.run_at, t.cancel, t.lease_owner, t.rank, t.limit_key";

const ROW: &str = "id, queue, kind, payload, meta, priority, state, run_at, attempt, max_attempts, crashes, interrupts, unique_key, \
     limit_key, timeout_ms, lease_owner, lease_until, lease_token, cancel, created_at, started_at, finished_at, last_error, \
     result, expires_at";

pub(super) fn unsigned(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

fn wall(row: &Row, column: &str) -> Option<Wall> {
    row.get::<_, Option<i64>>(column).map(Wall)
}

fn millis(row: &Row, column: &str) -> Option<u64> {
    row.get::<_, Option<i64>>(column)
        .and_then(|ms| u64::try_from(ms).ok())
}

/// None: what somebody wrote there is no name of a queue.
pub(super) fn claimed_of(row: &Row) -> Option<Claimed> {
    let text = |column: &str| row.get::<_, Option<&str>>(column).map(Arc::from);
    let created = Wall(row.get("created_at"));
    Some(Claimed {
        handle: Handle {
            task: row.get("id"),
            token: row.get::<_, i64>("lease_token").cast_unsigned(),
        },
        queue: queue_of(row.get("queue"))?,
        kind: text("kind"),
        payload: row.get::<_, &str>("payload").into(),
        meta: text("meta"),
        attempt: unsigned(row.get("attempt")),
        attempts_max: row.get::<_, Option<i32>>("max_attempts").map(unsigned),
        crashes: unsigned(row.get("crashes")),
        interrupts: unsigned(row.get("interrupts")),
        timeout_ms: millis(row, "timeout_ms"),
        created,
        runnable: wall(row, "run_at").unwrap_or(created),
        cancelled: row.get("cancel"),
        owner: text("lease_owner").unwrap_or_default(),
    })
}

fn row_of(row: &Row) -> TaskRow {
    let error: Option<&str> = row.get("last_error");
    TaskRow {
        id: row.get("id"),
        queue: row.get("queue"),
        kind: row.get("kind"),
        payload: row.get("payload"),
        meta: row.get("meta"),
        priority: row.get("priority"),
        state: TaskState::parse(row.get("state")).unwrap_or(TaskState::Lost),
        run_at: wall(row, "run_at"),
        attempt: unsigned(row.get("attempt")),
        attempts_max: row.get::<_, Option<i32>>("max_attempts").map(unsigned),
        crashes: unsigned(row.get("crashes")),
        interrupts: unsigned(row.get("interrupts")),
        unique_key: row.get("unique_key"),
        limit_key: row.get("limit_key"),
        timeout_ms: millis(row, "timeout_ms"),
        owner: row.get("lease_owner"),
        lease_until: wall(row, "lease_until"),
        token: row.get::<_, i64>("lease_token").cast_unsigned(),
        cancelled: row.get("cancel"),
        created: Wall(row.get("created_at")),
        started: wall(row, "started_at"),
        finished: wall(row, "finished_at"),
        error: error.and_then(|text| serde_json::from_str(text).ok()),
        result: row.get("result"),
        expires: wall(row, "expires_at"),
    }
}

pub(super) async fn task(session: &Session, id: TaskId) -> Result<Answer, Trouble> {
    let one = format!("SELECT {ROW} FROM task WHERE id = $1");
    let Some(row) = session.first(&one, &[&id]).await? else {
        return Ok(Answer::Task(None));
    };
    let log = "SELECT attempt, started_at, finished_at, outcome, error FROM attempt_log WHERE task_id = $1 ORDER BY n";
    let attempts = session.query(log, &[&id]).await?;
    let attempts = attempts.iter().map(|row| AttemptRow {
        attempt: unsigned(row.get("attempt")),
        started: wall(row, "started_at"),
        finished: Wall(row.get("finished_at")),
        outcome: row.get("outcome"),
        error: row
            .get::<_, Option<&str>>("error")
            .and_then(|text| serde_json::from_str(text).ok()),
    });
    Ok(Answer::Task(Some(Box::new((row_of(&row), attempts.collect())))))
}

pub(super) async fn tasks(session: &Session, filter: &Filter) -> Result<Answer, Trouble> {
    let list = format!(
        "SELECT {ROW} FROM task WHERE ($1::text IS NULL OR queue = $1) AND ($2::text IS NULL OR state = $2)
            AND ($3::text IS NULL OR kind = $3) AND ($4::bigint IS NULL OR created_at >= $4) AND ($5::bigint IS NULL OR id < $5)
         ORDER BY id DESC LIMIT $6"
    );
    let rows = session
        .query(
            &list,
            &[
                &filter.queue,
                &filter.state.map(TaskState::word),
                &filter.kind,
                &filter.since.map(|since| since.0),
                &filter.before,
                &i64::from(filter.limit),
            ],
        )
        .await?;
    Ok(Answer::Tasks(rows.iter().map(row_of).collect()))
}

pub(super) async fn counts(session: &Session, queue: &QueueId) -> Result<Answer, Trouble> {
    let count = |which: &str| {
        format!(
            "(SELECT COUNT(*) FROM (SELECT 1 FROM task WHERE {which} AND queue = $1 LIMIT {COUNT_MAX}) c)"
        )
    };
    let all = format!(
        "SELECT {}, {}, {}, {}, (SELECT MIN(COALESCE(run_at, created_at)) FROM
            (SELECT run_at, created_at FROM task WHERE queue = $1 AND state = 'queued' ORDER BY rank, id LIMIT 1000) o)",
        count("state = 'queued'"),
        count("state = 'scheduled'"),
        count("state = 'running'"),
        count("state IN ('dead', 'lost')"),
    );
    let rows = session.query(&all, &[&queue.to_string()]).await?;
    let number = |column: usize| {
        rows.first()
            .map_or(0, |row| row.get::<_, i64>(column).cast_unsigned())
    };
    Ok(Answer::Counts(Counts {
        queued: number(0),
        scheduled: number(1),
        running: number(2),
        dead: number(3),
        oldest: rows
            .first()
            .and_then(|row| row.get::<_, Option<i64>>(4))
            .map(Wall),
    }))
}

pub(super) async fn modes(session: &Session) -> Result<Answer, Trouble> {
    let all = "SELECT queue, paused, frozen, closed, changed_at, changed_by FROM queue_state";
    let rows = session.query(all, &[]).await?;
    let modes = rows.iter().map(|row| {
        let mode = Mode {
            paused: row.get("paused"),
            frozen: row.get("frozen"),
            closed: row.get("closed"),
            at: wall(row, "changed_at"),
            by: row.get("changed_by"),
        };
        (row.get("queue"), mode)
    });
    Ok(Answer::Modes(modes.collect::<BTreeMap<_, _>>()))
}
