//! Putting tasks in.

use super::failed;
use crate::port::{Answer, Key, NewTask, Pushed, StoreError};
use crate::rows::Mode;
use gaffer_core::queue::spec::Conflict;
use gaffer_core::time::Wall;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeMap;

/// All of them or none.
pub(super) fn push(
    connection: &Connection,
    modes: &BTreeMap<String, Mode>,
    tasks: &[NewTask],
    now: Wall,
) -> Result<Answer, StoreError> {
    for task in tasks {
        if modes.get(&task.queue.to_string()).is_some_and(|mode| mode.closed) {
            return Err(StoreError::Closed(task.queue.clone()));
        }
    }
    let alone = tasks.len() == 1;
    if !alone {
        connection.execute_batch("SAVEPOINT push").map_err(failed)?;
    }
    let mut pushed = Vec::with_capacity(tasks.len());
    for (index, task) in tasks.iter().enumerate() {
        match put(connection, index, task, now) {
            Ok(one) => pushed.push(one),
            Err(error) => {
                if !alone {
                    connection
                        .execute_batch("ROLLBACK TO push; RELEASE push")
                        .map_err(failed)?;
                }
                return Err(error);
            }
        }
    }
    if !alone {
        connection.execute_batch("RELEASE push").map_err(failed)?;
    }
    Ok(Answer::Pushed(pushed))
}

fn put(connection: &Connection, index: usize, task: &NewTask, now: Wall) -> Result<Pushed, StoreError> {
    if let Some(key) = &task.unique {
        let there = waiting(connection, task, key, now).map_err(failed)?;
        if let Some((id, created, run_at)) = there {
            return meet(connection, index, task, key, now, (id, created, run_at));
        }
    }
    insert(connection, task, now).map_err(failed)
}

/// The task that excludes this one: its number, when it was pushed, when it can begin.
fn waiting(
    connection: &Connection,
    task: &NewTask,
    key: &Key,
    now: Wall,
) -> rusqlite::Result<Option<(i64, i64, Option<i64>)>> {
    let mut found = connection.prepare_cached(
        "SELECT id, created_at, run_at, state, hold_done FROM task WHERE queue = ?1 AND unique_hold = ?2",
    )?;
    let row = found
        .query_row(params![task.queue.to_string(), &*key.key], |row| {
            let state: String = row.get(3)?;
            let held: Option<i64> = row.get(4)?;
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, state, held))
        })
        .optional()?;
    let Some((id, created, run_at, state, hold_done)) = row else {
        return Ok(None);
    };
    let over = state == "done" || state == "dead" || state == "cancelled" || state == "lost";
    if over && hold_done.is_none_or(|until| until <= now.0) {
        connection
            .prepare_cached("UPDATE task SET unique_hold = NULL WHERE id = ?1")?
            .execute([id])?;
        return Ok(None);
    }
    Ok(Some((id, created, run_at)))
}

fn meet(
    connection: &Connection,
    index: usize,
    task: &NewTask,
    key: &Key,
    now: Wall,
    (id, created, there_at): (i64, i64, Option<i64>),
) -> Result<Pushed, StoreError> {
    let asked = task.run_at.map_or(now.0, |at| at.0);
    let at = match key.conflict {
        Conflict::Error => {
            return Err(StoreError::Duplicate {
                index,
                key: key.key.clone(),
                id,
            });
        }
        Conflict::Return => None,
        Conflict::Replace => Some(asked),
        Conflict::Debounce => {
            let most = key.max_delay.map(|delay| Wall(created).plus(delay).0);
            Some(most.map_or(asked, |most| asked.min(most)))
        }
        Conflict::KeepEarliest => Some(asked.min(there_at.unwrap_or(created))),
    };
    let Some(at) = at else {
        return Ok(duplicate(id, None));
    };
    let state = if at > now.0 { "scheduled" } else { "queued" };
    let replaces = key.conflict == Conflict::Replace;
    let changed = connection
        .prepare_cached(
            "UPDATE task SET run_at = ?2, state = ?3,
                payload = CASE WHEN ?4 THEN ?5 ELSE payload END,
                priority = CASE WHEN ?4 THEN ?6 ELSE priority END,
                rank = CASE WHEN ?4 THEN ?7 ELSE rank END
             WHERE id = ?1 AND state IN ('scheduled', 'queued')",
        )
        .and_then(|mut update| {
            update.execute(params![
                id,
                at,
                state,
                replaces,
                &*task.payload,
                task.priority,
                rank(task)
            ])
        })
        .map_err(failed)?;
    let due = (changed > 0 && at > now.0).then_some(Wall(at));
    Ok(duplicate(id, due))
}

fn duplicate(id: i64, due: Option<Wall>) -> Pushed {
    Pushed {
        id,
        duplicate: true,
        due,
    }
}

fn rank(task: &NewTask) -> i32 {
    if task.fifo { 0 } else { task.priority }
}

fn insert(connection: &Connection, task: &NewTask, now: Wall) -> rusqlite::Result<Pushed> {
    let due = task.run_at.filter(|at| *at > now);
    let state = if due.is_some() { "scheduled" } else { "queued" };
    let key = task.unique.as_ref();
    let mut insert = connection.prepare_cached(
        "INSERT INTO task (queue, kind, payload, priority, rank, state, run_at, max_attempts, unique_key, unique_hold,
            hold_running, hold_done, limit_key, timeout_ms, created_at, begin_by, meta)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )?;
    insert.execute(params![
        task.queue.to_string(),
        task.kind.as_deref(),
        &*task.payload,
        task.priority,
        rank(task),
        state,
        task.run_at.map(|at| at.0),
        task.attempts_max,
        key.map(|key| &*key.key),
        key.is_some_and(|key| key.while_running),
        key.and_then(|key| key.done_until).map(|until| until.0),
        task.limit_key.as_deref(),
        task.timeout_ms,
        task.created.unwrap_or(now).0,
        task.begin_by.map(|by| by.0),
        task.meta.as_deref(),
    ])?;
    Ok(Pushed {
        id: connection.last_insert_rowid(),
        duplicate: false,
        due,
    })
}
