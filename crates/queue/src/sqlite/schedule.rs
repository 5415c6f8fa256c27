//! How far schedules are.

use super::{failed, push};
use crate::port::{Answer, StoreError, Tick};
use crate::rows::{Mode, ScheduleRow};
use gaffer_core::time::Wall;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeMap;

const COLUMNS: &str =
    "name, seen, anchor, paused, awake, changed_at, changed_by, fired, fired_at, became, note, waiting";

/// The push and the step forward are one, and only the first who comes makes them.
pub(super) fn tick(
    connection: &Connection,
    modes: &BTreeMap<String, Mode>,
    tick: &Tick,
) -> Result<Answer, StoreError> {
    let seen: Option<i64> = connection
        .prepare_cached("SELECT seen FROM schedule WHERE name = ?1")
        .and_then(|mut seen| seen.query_row([&*tick.schedule], |row| row.get(0)).optional())
        .map_err(failed)?;
    if seen.is_some_and(|seen| seen != tick.known.0) {
        return Ok(Answer::Ticked(None));
    }
    let pushed = match &tick.push {
        None => None,
        Some(task) => match push::push(connection, modes, std::slice::from_ref(task), tick.now)? {
            Answer::Pushed(pushed) => pushed.first().copied(),
            _ => None,
        },
    };
    let mut row = match pushed {
        Some(pushed) if pushed.duplicate => tick.duplicate.clone(),
        _ => tick.row.clone(),
    };
    if let Some(pushed) = pushed.filter(|pushed| !pushed.duplicate) {
        row.became = Some(pushed.id.to_string());
    }
    put(connection, &tick.schedule, Some(&row)).map_err(failed)?;
    Ok(Answer::Ticked(Some(pushed)))
}

pub(super) fn put(
    connection: &Connection,
    name: &str,
    row: Option<&ScheduleRow>,
) -> rusqlite::Result<Answer> {
    let Some(row) = row else {
        connection
            .prepare_cached("DELETE FROM schedule WHERE name = ?1")?
            .execute([name])?;
        return Ok(Answer::Noted);
    };
    let put = format!(
        "INSERT OR REPLACE INTO schedule ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
    );
    connection.prepare_cached(&put)?.execute(params![
        name,
        row.seen.0,
        row.anchor.0,
        row.paused,
        row.awake.map(|at| at.0),
        row.changed.map(|at| at.0),
        row.changed_by,
        row.fired.map(|at| at.0),
        row.fired_at.map(|at| at.0),
        row.became,
        row.note,
        row.waiting.map(|at| at.0),
    ])?;
    Ok(Answer::Noted)
}

pub(super) fn all(connection: &Connection) -> rusqlite::Result<Answer> {
    let mut all = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM schedule"))?;
    let rows = all.query_map([], |row| {
        let wall = |column: usize| row.get::<_, Option<i64>>(column).map(|at| at.map(Wall));
        let one = ScheduleRow {
            seen: Wall(row.get(1)?),
            anchor: Wall(row.get(2)?),
            paused: row.get(3)?,
            awake: wall(4)?,
            changed: wall(5)?,
            changed_by: row.get(6)?,
            fired: wall(7)?,
            fired_at: wall(8)?,
            became: row.get(9)?,
            note: row.get(10)?,
            waiting: wall(11)?,
        };
        Ok((row.get::<_, String>(0)?, one))
    })?;
    rows.collect::<rusqlite::Result<BTreeMap<_, _>>>()
        .map(Answer::Schedules)
}
