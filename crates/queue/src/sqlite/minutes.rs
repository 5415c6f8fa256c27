//! What was done, by the minute.

use crate::port::Answer;
use crate::rows::{COUNT_MAX, MinuteRow};
use gaffer_core::queue::spec::QueueId;
use gaffer_core::time::Wall;
use rusqlite::{Connection, Row, params};

/// Adds to what is there.
pub(super) fn add(
    connection: &Connection,
    rows: &[MinuteRow],
    keep: &[(QueueId, Wall)],
) -> rusqlite::Result<Answer> {
    let mut waiting = connection.prepare_cached(
        "SELECT COUNT(*) FROM (SELECT 1 FROM task WHERE state = 'queued' AND queue = ?1 LIMIT ?2)",
    )?;
    let mut add = connection.prepare_cached(
        "INSERT INTO minute (queue, minute, kind, begun, done, retried, dead, waited, waited_max, took, took_max, waiting)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
         ON CONFLICT (queue, minute, kind) DO UPDATE SET begun = begun + ?4, done = done + ?5, retried = retried + ?6,
            dead = dead + ?7, waited = waited + ?8, waited_max = MAX(waited_max, ?9), took = took + ?10,
            took_max = MAX(took_max, ?11), waiting = ?12",
    )?;
    for row in rows {
        let waits: u64 = waiting.query_row(params![row.queue, COUNT_MAX], |row| row.get(0))?;
        add.execute(params![
            row.queue,
            row.minute.0,
            row.kind,
            row.begun,
            row.done,
            row.retried,
            row.dead,
            row.waited_ms.0,
            row.waited_ms.1,
            row.took_ms.0,
            row.took_ms.1,
            waits,
        ])?;
    }
    let mut old = connection.prepare_cached("DELETE FROM minute WHERE queue = ?1 AND minute < ?2")?;
    for (queue, before) in keep {
        old.execute(params![queue.to_string(), before.0])?;
    }
    Ok(Answer::Noted)
}

pub(super) fn since(connection: &Connection, queue: &QueueId, since: Wall) -> rusqlite::Result<Answer> {
    let mut all = connection.prepare_cached(
        "SELECT queue, minute, kind, begun, done, retried, dead, waited, waited_max, took, took_max, waiting FROM minute
         WHERE queue = ?1 AND minute >= ?2 ORDER BY minute, kind",
    )?;
    let rows = all.query_map(params![queue.to_string(), since.0], of_row)?;
    rows.collect::<rusqlite::Result<_>>().map(Answer::Minutes)
}

fn of_row(row: &Row<'_>) -> rusqlite::Result<MinuteRow> {
    Ok(MinuteRow {
        queue: row.get(0)?,
        minute: Wall(row.get(1)?),
        kind: row.get(2)?,
        begun: row.get(3)?,
        done: row.get(4)?,
        retried: row.get(5)?,
        dead: row.get(6)?,
        waited_ms: (row.get(7)?, row.get(8)?),
        took_ms: (row.get(9)?, row.get(10)?),
        waiting: row.get(11)?,
    })
}
