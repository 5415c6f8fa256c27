//! What alerts are made from.

use crate::port::Answer;
use crate::rows::{SIGNS_MAX, Signs};
use gaffer_core::queue::spec::QueueId;
use gaffer_core::time::Wall;
use rusqlite::{Connection, params};

pub(super) fn signs(connection: &Connection, queue: &QueueId, since: Wall) -> rusqlite::Result<Answer> {
    let queue = queue.to_string();
    let (count, first): (u64, Option<i64>) = connection
        .prepare_cached(
            "SELECT COUNT(*), MIN(finished_at) FROM (SELECT finished_at FROM task
                WHERE queue = ?1 AND state IN ('dead', 'lost') AND finished_at >= ?2 ORDER BY finished_at LIMIT ?3)",
        )?
        .query_row(params![queue, since.0, SIGNS_MAX], |row| {
            Ok((row.get(0)?, row.get(1).unwrap_or(None)))
        })?;
    let mut minutes = connection.prepare_cached(
        "SELECT minute, SUM(done + dead), MAX(waiting) FROM minute WHERE queue = ?1 AND minute >= ?2
         GROUP BY minute ORDER BY minute",
    )?;
    let minutes = minutes.query_map(params![queue, since.0], |row| {
        Ok((row.get(0)?, row.get::<_, u64>(1)?, row.get(2)?))
    })?;
    let mut signs = Signs {
        died: first.map(|first| (count, Wall(first))),
        log_bytes: log_bytes(connection),
        ..Signs::default()
    };
    for minute in minutes {
        signs.minute(minute?);
    }
    let mut kinds = connection.prepare_cached(
        "SELECT kind, MIN(at) FROM (SELECT kind, COALESCE(run_at, created_at) AS at FROM task
            WHERE queue = ?1 AND state = 'queued' ORDER BY rank, id LIMIT ?2) GROUP BY kind",
    )?;
    let mut rows = kinds.query(params![queue, SIGNS_MAX])?;
    while let Some(row) = rows.next()? {
        // What another program wrote may be no kind, or no time.
        if let (Ok(kind), Ok(at)) = (row.get(0), row.get(1)) {
            signs.kinds.push((kind, Wall(at)));
        }
    }
    Ok(Answer::Signs(signs))
}

/// Size of the log beside the file; none: there is none.
fn log_bytes(connection: &Connection) -> Option<u64> {
    let log = format!("{}-wal", connection.path()?);
    Some(std::fs::metadata(log).ok()?.len())
}
