//! Tasks out of outboxes: which rows were taken is written with the tasks that they became.

use super::{failed, push};
use crate::port::{Answer, Moving, StoreError};
use crate::rows::{Mode, ids_of, ids_text};
use rusqlite::{Connection, OptionalExtension};
use std::collections::BTreeMap;

/// All of them or none, and only if nobody took some since whoever asks looked.
pub(super) fn take(
    connection: &Connection,
    modes: &BTreeMap<String, Mode>,
    moving: &Moving,
) -> Result<Answer, StoreError> {
    if remembered(connection, &moving.source).map_err(failed)? != moving.known {
        return Ok(Answer::Taken(None));
    }
    let Answer::Pushed(pushed) = push::push(connection, modes, &moving.tasks, moving.now)? else {
        return Ok(Answer::Taken(None));
    };
    connection
        .prepare_cached("INSERT OR REPLACE INTO outbox (source, ids) VALUES (?1, ?2)")
        .and_then(|mut put| put.execute([&moving.source, ids_text(&moving.ids).as_str()]))
        .map_err(failed)?;
    Ok(Answer::Taken(Some(pushed)))
}

/// The rows that were taken last.
pub(super) fn moved(connection: &Connection, source: &str) -> rusqlite::Result<Answer> {
    remembered(connection, source).map(Answer::Moved)
}

fn remembered(connection: &Connection, source: &str) -> rusqlite::Result<Vec<i64>> {
    let text: Option<String> = connection
        .prepare_cached("SELECT ids FROM outbox WHERE source = ?1")?
        .query_row([source], |row| row.get(0))
        .optional()?;
    Ok(ids_of(text.as_deref()))
}

/// They are not in the outbox any more.
pub(super) fn forget(connection: &Connection, source: &str) -> rusqlite::Result<Answer> {
    connection
        .prepare_cached("DELETE FROM outbox WHERE source = ?1")?
        .execute([source])?;
    Ok(Answer::Noted)
}
