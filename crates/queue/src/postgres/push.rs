//! Putting tasks in.

use super::Trouble;
use super::session::Session;
use crate::port::{Key, NewTask, Pushed, StoreError};
use gaffer_core::queue::spec::Conflict;
use gaffer_core::time::Wall;
use std::collections::BTreeSet;
use tokio_postgres::Error;

/// Queues that take nothing.
pub(super) async fn closed(session: &Session) -> Result<BTreeSet<String>, Error> {
    let closed = session
        .query("SELECT queue FROM queue_state WHERE closed", &[])
        .await?;
    Ok(closed.iter().map(|row| row.get(0)).collect())
}

/// The error of a push into a queue that takes nothing.
pub(super) fn refusal(tasks: &[NewTask], closed: &BTreeSet<String>) -> Option<StoreError> {
    let refused = tasks.iter().find(|task| closed.contains(&task.queue.to_string()));
    refused.map(|task| StoreError::Closed(task.queue.clone()))
}

/// All of them or none.
pub(super) async fn push(session: &Session, tasks: &[NewTask], now: Wall) -> Result<Vec<Pushed>, Trouble> {
    if let Some(refused) = refusal(tasks, &closed(session).await?) {
        return Err(Trouble::Refused(refused));
    }
    if tasks.iter().all(|task| task.unique.is_none()) {
        let all: Vec<(&NewTask, Wall)> = tasks.iter().map(|task| (task, now)).collect();
        return Ok(insert(session, &all).await?);
    }
    session.run("SAVEPOINT push").await?;
    let mut pushed = Vec::with_capacity(tasks.len());
    for (index, task) in tasks.iter().enumerate() {
        match put(session, index, task, now).await {
            Ok(one) => pushed.push(one),
            Err(Trouble::Refused(error)) => {
                session.run("ROLLBACK TO push").await?;
                return Err(Trouble::Refused(error));
            }
            Err(trouble) => return Err(trouble),
        }
    }
    session.run("RELEASE push").await?;
    Ok(pushed)
}

async fn put(session: &Session, index: usize, task: &NewTask, now: Wall) -> Result<Pushed, Trouble> {
    let Some(key) = &task.unique else {
        let one = insert(session, &[(task, now)]).await?;
        return Ok(one[0]);
    };
    loop {
        if let Some(there) = waiting(session, task, key, now).await? {
            return meet(session, index, task, key, now, there).await;
        }
        if let Some(pushed) = insert_with_key(session, task, key, now).await? {
            return Ok(pushed);
        }
        // Somebody else was faster: that one is met.
    }
}

/// Number, time of its push, when it can begin.
type There = (i64, i64, Option<i64>);

/// The task that excludes this one.
async fn waiting(session: &Session, task: &NewTask, key: &Key, now: Wall) -> Result<Option<There>, Trouble> {
    let found = "SELECT id, created_at, run_at, state, hold_done FROM task WHERE queue = $1 AND unique_hold = $2 FOR UPDATE";
    let found = session
        .first(found, &[&task.queue.to_string(), &&*key.key])
        .await?;
    let Some(row) = found else {
        return Ok(None);
    };
    let id: i64 = row.get(0);
    let over = matches!(row.get(3), "done" | "dead" | "cancelled" | "lost");
    if over && row.get::<_, Option<i64>>(4).is_none_or(|until| until <= now.0) {
        session
            .execute("UPDATE task SET unique_hold = NULL WHERE id = $1", &[&id])
            .await?;
        return Ok(None);
    }
    Ok(Some((id, row.get(1), row.get(2))))
}

async fn meet(
    session: &Session,
    index: usize,
    task: &NewTask,
    key: &Key,
    now: Wall,
    (id, created, there_at): There,
) -> Result<Pushed, Trouble> {
    let duplicate = |due| Pushed {
        id,
        duplicate: true,
        due,
    };
    let asked = task.run_at.map_or(now.0, |at| at.0);
    let at = match key.conflict {
        Conflict::Error => {
            return Err(Trouble::Refused(StoreError::Duplicate {
                index,
                key: key.key.clone(),
                id,
            }));
        }
        Conflict::Return => return Ok(duplicate(None)),
        Conflict::Replace => asked,
        Conflict::Debounce => {
            let most = key.max_delay.map(|delay| Wall(created).plus(delay).0);
            most.map_or(asked, |most| asked.min(most))
        }
        Conflict::KeepEarliest => asked.min(there_at.unwrap_or(created)),
    };
    let state = if at > now.0 { "scheduled" } else { "queued" };
    let changed = session
        .execute(
            "UPDATE task SET run_at = $2, state = $3, payload = CASE WHEN $4 THEN $5 ELSE payload END,
                priority = CASE WHEN $4 THEN $6 ELSE priority END, rank = CASE WHEN $4 THEN $7 ELSE rank END
             WHERE id = $1 AND state IN ('scheduled', 'queued')",
            &[
                &id,
                &at,
                &state,
                &(key.conflict == Conflict::Replace),
                &&*task.payload,
                &task.priority,
                &rank(task),
            ],
        )
        .await?;
    Ok(duplicate((changed > 0 && at > now.0).then_some(Wall(at))))
}

fn rank(task: &NewTask) -> i32 {
    if task.fifo { 0 } else { task.priority }
}

fn due(task: &NewTask, now: Wall) -> Option<Wall> {
    task.run_at.filter(|at| *at > now)
}

fn state(task: &NewTask, now: Wall) -> &'static str {
    if due(task, now).is_some() {
        "scheduled"
    } else {
        "queued"
    }
}

fn attempts_max(task: &NewTask) -> Option<i32> {
    task.attempts_max
        .map(|most| i32::try_from(most).unwrap_or(i32::MAX))
}

fn timeout(task: &NewTask) -> Option<i64> {
    task.timeout_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX))
}

async fn insert_with_key(
    session: &Session,
    task: &NewTask,
    key: &Key,
    now: Wall,
) -> Result<Option<Pushed>, Trouble> {
    let row = session
        .first(
            "INSERT INTO task (queue, kind, payload, priority, rank, state, run_at, max_attempts, limit_key, timeout_ms, created_at,
                begin_by, meta, unique_key, unique_hold, hold_running, hold_done)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14, $15, $16)
             ON CONFLICT (queue, unique_hold) WHERE unique_hold IS NOT NULL DO NOTHING RETURNING id",
            &[
                &task.queue.to_string(),
                &task.kind.as_deref(),
                &&*task.payload,
                &task.priority,
                &rank(task),
                &state(task, now),
                &task.run_at.map(|at| at.0),
                &attempts_max(task),
                &task.limit_key.as_deref(),
                &timeout(task),
                &task.created.unwrap_or(now).0,
                &task.begin_by.map(|by| by.0),
                &task.meta.as_deref(),
                &&*key.key,
                &key.while_running,
                &key.done_until.map(|until| until.0),
            ],
        )
        .await?;
    Ok(row.map(|row| Pushed {
        id: row.get(0),
        duplicate: false,
        due: due(task, now),
    }))
}

/// Tasks without keys, in their order, with one statement.
pub(super) async fn insert(session: &Session, tasks: &[(&NewTask, Wall)]) -> Result<Vec<Pushed>, Error> {
    let queues: Vec<String> = tasks.iter().map(|(task, _)| task.queue.to_string()).collect();
    let rows = session
        .query(
            "INSERT INTO task (queue, kind, payload, priority, rank, state, run_at, max_attempts, limit_key, timeout_ms, created_at,
                begin_by, meta)
             SELECT queue, kind, payload, priority, rank, state, run_at, max_attempts, limit_key, timeout_ms, created_at, begin_by, meta
             FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::int[], $6::text[], $7::bigint[], $8::int[], $9::text[],
                $10::bigint[], $11::bigint[], $12::bigint[], $13::text[]) WITH ORDINALITY
                AS s (queue, kind, payload, priority, rank, state, run_at, max_attempts, limit_key, timeout_ms, created_at, begin_by,
                    meta, n) ORDER BY n RETURNING id",
            &[
                &queues,
                &column(tasks, |task, _| task.kind.as_deref()),
                &column(tasks, |task, _| &*task.payload),
                &column(tasks, |task, _| task.priority),
                &column(tasks, |task, _| rank(task)),
                &column(tasks, state),
                &column(tasks, |task, _| task.run_at.map(|at| at.0)),
                &column(tasks, |task, _| attempts_max(task)),
                &column(tasks, |task, _| task.limit_key.as_deref()),
                &column(tasks, |task, _| timeout(task)),
                &column(tasks, |task, now| task.created.unwrap_or(now).0),
                &column(tasks, |task, _| task.begin_by.map(|by| by.0)),
                &column(tasks, |task, _| task.meta.as_deref()),
            ],
        )
        .await?;
    let mut ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    // Numbers are given in the order of the rows; the order of what is returned is nobody's promise.
    ids.sort_unstable();
    let pushed = ids.into_iter().zip(tasks).map(|(id, (task, now))| Pushed {
        id,
        duplicate: false,
        due: due(task, *now),
    });
    Ok(pushed.collect())
}

fn column<'a, T>(tasks: &[(&'a NewTask, Wall)], value: impl Fn(&'a NewTask, Wall) -> T) -> Vec<T> {
    tasks.iter().map(|(task, now)| value(task, *now)).collect()
}
