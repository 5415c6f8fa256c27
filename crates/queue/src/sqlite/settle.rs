//! What claimed tasks become, and what became of those that nobody speaks for.

use super::read::{CLAIMED, claimed_of};
use crate::port::Answer;
use crate::rows::{error_json, queue_of, superseded};
use gaffer_core::queue::dispatch::Upkept;
use gaffer_core::queue::task::{Claimed, Handle, Settlement};
use gaffer_core::time::{Duration, Wall};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

/// Rows moved by one look at what is due.
const PROMOTE: u32 = 1_000;
/// Rows with ended leases that are told at once.
const EXPIRED: u32 = 100;

/// Writes what an attempt became, if nobody else has claimed the task since.
pub(super) fn settle(
    connection: &Connection,
    settlement: &Settlement,
    now: Wall,
) -> rusqlite::Result<Answer> {
    let written = write(connection, settlement, now, true);
    let written = match written {
        // Another task with its key waits already: this one is superseded.
        Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == ErrorCode::ConstraintViolation => {
            let superseded = superseded(settlement, now);
            write(connection, &superseded, now, false)?
        }
        other => other?,
    };
    Ok(Answer::Settled(written))
}

fn write(connection: &Connection, settlement: &Settlement, now: Wall, hold: bool) -> rusqlite::Result<bool> {
    let over = settlement.state.is_final();
    let error = settlement.failure.as_ref().map(error_json);
    let waits = !over && hold;
    let started: Option<Option<i64>> = connection
        .prepare_cached(
            "UPDATE task SET state = ?3, run_at = COALESCE(?4, run_at), attempt = ?5, crashes = ?6, interrupts = ?7,
                last_error = ?8, result = ?9, result_until = ?10, expires_at = ?11, finished_at = ?12,
                lease_owner = NULL, lease_until = NULL, cancel = 0,
                unique_hold = CASE WHEN ?13 THEN unique_key
                    WHEN ?14 AND hold_done > ?15 THEN unique_key ELSE NULL END
             WHERE id = ?1 AND lease_token = ?2 AND state = 'running' RETURNING started_at",
        )?
        .query_row(
            params![
                settlement.handle.task,
                settlement.handle.token,
                settlement.state.word(),
                settlement.run_at.map(|at| at.0),
                settlement.attempt,
                settlement.crashes,
                settlement.interrupts,
                error,
                settlement.result.as_deref(),
                settlement.result_until.map(|at| at.0),
                settlement.expires.map(|at| at.0),
                over.then_some(now.0),
                waits,
                settlement.holds_key && hold,
                now.0,
            ],
            |row| row.get(0),
        )
        .optional()?;
    let Some(started) = started else {
        return Ok(false);
    };
    // What went well at the first attempt is told by the row itself.
    if settlement.outcome != "done" || settlement.ordinal > 1 {
        log(connection, settlement, started, now, error.as_deref())?;
    }
    Ok(true)
}

fn log(
    connection: &Connection,
    settlement: &Settlement,
    started: Option<i64>,
    now: Wall,
    error: Option<&str>,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO attempt_log (task_id, n, attempt, started_at, finished_at, outcome, error)
             VALUES (?1, 1 + COALESCE((SELECT MAX(n) FROM attempt_log WHERE task_id = ?1), 0), ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            settlement.handle.task,
            settlement.ordinal,
            started,
            now.0,
            settlement.outcome,
            error
        ])?;
    Ok(())
}

/// Extends what is still ours.
pub(super) fn renew(
    connection: &Connection,
    handles: &[(Handle, Duration)],
    now: Wall,
) -> rusqlite::Result<Answer> {
    let mut update = connection.prepare_cached(
        "UPDATE task SET lease_until = MAX(lease_until, ?3)
         WHERE id = ?1 AND lease_token = ?2 AND state = 'running' RETURNING cancel",
    )?;
    let mut kept = Vec::with_capacity(handles.len());
    for (handle, lease) in handles {
        let until = now.plus(*lease).0;
        let cancel = update
            .query_row(params![handle.task, handle.token, until], |row| {
                row.get::<_, bool>(0)
            })
            .optional()?;
        if let Some(cancel) = cancel {
            kept.push((*handle, cancel));
        }
    }
    Ok(Answer::Renewed(kept))
}

/// Makes due tasks runnable; finds leases that ended.
pub(super) fn upkeep(connection: &Connection, owner: &str, now: Wall) -> rusqlite::Result<Answer> {
    let mut upkept = Upkept::default();
    let mut moved = 0;
    {
        let mut promote = connection.prepare_cached(
            "UPDATE task SET state = 'queued' WHERE id IN
                (SELECT id FROM task WHERE state = 'scheduled' AND run_at <= ?1 ORDER BY run_at LIMIT ?2)
             RETURNING queue",
        )?;
        let mut rows = promote.query(params![now.0, PROMOTE])?;
        while let Some(row) = rows.next()? {
            moved += 1;
            if let Some(queue) = queue_of(&row.get::<_, String>(0)?)
                && !upkept.moved.contains(&queue)
            {
                upkept.moved.push(queue);
            }
        }
    }
    upkept.next_due = if moved >= PROMOTE {
        Some(now)
    } else {
        smallest(
            connection,
            "SELECT MIN(run_at) FROM task WHERE state = 'scheduled'",
            &[],
        )?
    };
    let mut expired = connection.prepare_cached(&format!(
        "SELECT {CLAIMED} FROM task WHERE state = 'running' AND lease_until <= ?1 AND lease_owner <> ?2 LIMIT ?3"
    ))?;
    let mut rows = expired.query(params![now.0, owner, EXPIRED])?;
    while let Some(row) = rows.next()? {
        upkept.expired.push(claimed_of(row)?);
    }
    upkept.next_lease = smallest(
        connection,
        "SELECT MIN(lease_until) FROM task WHERE state = 'running' AND lease_owner <> ?1 AND lease_until > ?2",
        params![owner, now.0],
    )?;
    Ok(Answer::Upkept(upkept))
}

fn smallest(
    connection: &Connection,
    sql: &str,
    values: &[&dyn rusqlite::ToSql],
) -> rusqlite::Result<Option<Wall>> {
    let at: Option<i64> = connection
        .prepare_cached(sql)?
        // Text, that another program wrote, is behind every number: then there is no time at all.
        .query_row(values, |row| Ok(row.get(0).unwrap_or(None)))?;
    Ok(at.map(Wall))
}

/// What earlier incarnations of a node had.
pub(super) fn orphans(connection: &Connection, node: &str, owner: &str) -> rusqlite::Result<Answer> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT {CLAIMED} FROM task WHERE state = 'running' AND lease_owner <> ?1
            AND substr(lease_owner, 1, length(?2)) = ?2 ORDER BY id"
    ))?;
    let mut rows = select.query(params![owner, node])?;
    let mut orphans: Vec<Claimed> = Vec::new();
    while let Some(row) = rows.next()? {
        orphans.push(claimed_of(row)?);
    }
    drop(rows);
    // They are this incarnation's now: their leases are renewed and settled by it.
    connection
        .prepare_cached(
            "UPDATE task SET lease_owner = ?1 WHERE state = 'running' AND lease_owner <> ?1
                AND substr(lease_owner, 1, length(?2)) = ?2",
        )?
        .execute(params![owner, node])?;
    Ok(Answer::Orphans(orphans))
}
