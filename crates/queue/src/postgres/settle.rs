//! What claimed tasks become, and what became of those that nobody speaks for.

use super::Trouble;
use super::rows::{CLAIMED, claimed_of};
use super::session::{Session, Value};
use crate::port::Answer;
use crate::rows::{error_json, queue_of, superseded};
use gaffer_core::queue::dispatch::Upkept;
use gaffer_core::queue::task::{Handle, Settlement};
use gaffer_core::time::{Duration, Wall};
use std::collections::BTreeSet;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// Rows moved by one look at what is due.
const PROMOTE: i64 = 1_000;
/// Rows with ended leases that are told at once.
const EXPIRED: i64 = 100;

const WRITE: &str = "WITH s AS (SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::int[], $6::int[],
        $7::int[], $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bool[], $14::bool[], $15::text[],
        $16::int[], $17::bigint[]) WITH ORDINALITY AS s (id, token, state, run_at, attempt, crashes, interrupts, error, result,
        result_until, expires, finished, waits, holds, outcome, ordinal, at, n)),
    u AS (UPDATE task t SET state = s.state, run_at = COALESCE(s.run_at, t.run_at), attempt = s.attempt, crashes = s.crashes,
        interrupts = s.interrupts, last_error = s.error, result = s.result, result_until = s.result_until, expires_at = s.expires,
        finished_at = s.finished, lease_owner = NULL, lease_until = NULL, cancel = false,
        unique_hold = CASE WHEN s.waits OR s.holds AND t.hold_done > s.at THEN t.unique_key END
        FROM s WHERE t.id = s.id AND t.lease_token = s.token AND t.state = 'running' RETURNING s.n, t.id, t.started_at),
    l AS (INSERT INTO attempt_log (task_id, n, attempt, started_at, finished_at, outcome, error)
        SELECT u.id, 1 + COALESCE((SELECT MAX(a.n) FROM attempt_log a WHERE a.task_id = u.id), 0), s.ordinal, u.started_at, s.at,
            s.outcome, s.error FROM u JOIN s ON s.n = u.n WHERE s.outcome <> 'done' OR s.ordinal > 1)
    SELECT n FROM u";

fn number(of: u32) -> i32 {
    i32::try_from(of).unwrap_or(i32::MAX)
}

/// Writes what attempts became with one statement; for each: nobody else has claimed the task since.
pub(super) async fn write(
    session: &Session,
    all: &[(&Settlement, Wall)],
    hold: bool,
) -> Result<Vec<bool>, Error> {
    fn column<'a, T>(all: &[(&'a Settlement, Wall)], value: impl Fn(&'a Settlement, Wall) -> T) -> Vec<T> {
        all.iter().map(|(one, now)| value(one, *now)).collect()
    }
    let values: &[Value<'_>] = &[
        &column(all, |one, _| one.handle.task),
        &column(all, |one, _| one.handle.token.cast_signed()),
        &column(all, |one, _| one.state.word()),
        &column(all, |one, _| one.run_at.map(|at| at.0)),
        &column(all, |one, _| number(one.attempt)),
        &column(all, |one, _| number(one.crashes)),
        &column(all, |one, _| number(one.interrupts)),
        &column(all, |one, _| one.failure.as_ref().map(error_json)),
        &column(all, |one, _| one.result.as_deref()),
        &column(all, |one, _| one.result_until.map(|at| at.0)),
        &column(all, |one, _| one.expires.map(|at| at.0)),
        &column(all, |one, now| one.state.is_final().then_some(now.0)),
        &column(all, |one, _| hold && !one.state.is_final()),
        &column(all, |one, _| hold && one.holds_key),
        &column(all, |one, _| one.outcome),
        &column(all, |one, _| number(one.ordinal)),
        &column(all, |_, now| now.0),
    ];
    let rows = session.query(WRITE, values).await?;
    let written: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    Ok((1..).take(all.len()).map(|n: i64| written.contains(&n)).collect())
}

/// One of them, which may meet another task with its key that waits already: then it is superseded.
pub(super) async fn one(session: &Session, settlement: &Settlement, now: Wall) -> Result<bool, Trouble> {
    session.run("SAVEPOINT settle").await?;
    let written = match write(session, &[(settlement, now)], true).await {
        Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
            session.run("ROLLBACK TO settle").await?;
            let superseded = superseded(settlement, now);
            write(session, &[(&superseded, now)], false).await?
        }
        other => other?,
    };
    session.run("RELEASE settle").await?;
    Ok(written.first().copied().unwrap_or(false))
}

/// Extends what is still ours.
pub(super) async fn renew(
    session: &Session,
    handles: &[(Handle, Duration)],
    now: Wall,
) -> Result<Answer, Trouble> {
    let ids: Vec<i64> = handles.iter().map(|(handle, _)| handle.task).collect();
    let tokens: Vec<i64> = handles
        .iter()
        .map(|(handle, _)| handle.token.cast_signed())
        .collect();
    let until: Vec<i64> = handles.iter().map(|(_, lease)| now.plus(*lease).0).collect();
    let rows = session
        .query(
            "UPDATE task t SET lease_until = GREATEST(t.lease_until, s.until)
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS s (id, token, until)
             WHERE t.id = s.id AND t.lease_token = s.token AND t.state = 'running' RETURNING t.id, t.lease_token, t.cancel",
            &[&ids, &tokens, &until],
        )
        .await?;
    let kept = rows.iter().map(|row| {
        let handle = Handle {
            task: row.get(0),
            token: row.get::<_, i64>(1).cast_unsigned(),
        };
        (handle, row.get(2))
    });
    Ok(Answer::Renewed(kept.collect()))
}

/// Makes due tasks runnable; finds leases that ended.
pub(super) async fn upkeep(session: &Session, owner: &str, now: Wall) -> Result<Answer, Trouble> {
    let mut upkept = Upkept::default();
    let moved = session
        .query(
            "UPDATE task SET state = 'queued' WHERE id IN
                (SELECT id FROM task WHERE state = 'scheduled' AND run_at <= $1 ORDER BY run_at LIMIT $2 FOR UPDATE SKIP LOCKED)
             RETURNING queue",
            &[&now.0, &PROMOTE],
        )
        .await?;
    let queues: BTreeSet<&str> = moved.iter().map(|row| row.get(0)).collect();
    upkept.moved = queues.into_iter().filter_map(queue_of).collect();
    let next = session
        .first(
            "SELECT (SELECT MIN(run_at) FROM task WHERE state = 'scheduled' AND run_at > $2),
                (SELECT MIN(lease_until) FROM task WHERE state = 'running' AND lease_owner <> $1 AND lease_until > $2)",
            &[&owner, &now.0],
        )
        .await?;
    let at = |column: usize| {
        next.as_ref()
            .and_then(|row| row.get::<_, Option<i64>>(column))
            .map(Wall)
    };
    upkept.next_due = if moved.len() as i64 >= PROMOTE {
        Some(now)
    } else {
        at(0)
    };
    upkept.next_lease = at(1);
    let expired = format!(
        "SELECT {CLAIMED} FROM task t WHERE state = 'running' AND lease_until <= $1 AND lease_owner <> $2 ORDER BY lease_until LIMIT $3"
    );
    let expired = session.query(&expired, &[&now.0, &owner, &EXPIRED]).await?;
    upkept.expired = expired.iter().filter_map(claimed_of).collect();
    Ok(Answer::Upkept(upkept))
}

/// What earlier incarnations of a node had is this incarnation's now.
pub(super) async fn orphans(session: &Session, node: &str, owner: &str) -> Result<Answer, Trouble> {
    let ours = format!(
        "WITH o AS MATERIALIZED (SELECT id, lease_owner FROM task WHERE state = 'running' AND lease_owner <> $1
            AND starts_with(lease_owner, $2) FOR UPDATE),
         u AS (UPDATE task t SET lease_owner = $1 FROM o WHERE t.id = o.id)
         SELECT {CLAIMED} FROM task t JOIN o ON o.id = t.id ORDER BY t.id"
    );
    let rows = session.query(&ours, &[&owner, &node]).await?;
    Ok(Answer::Orphans(rows.iter().filter_map(claimed_of).collect()))
}
