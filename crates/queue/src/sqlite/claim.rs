//! Taking tasks.

use super::read::{CLAIMED, claimed_of};
use crate::port::{Answer, Claim};
use crate::rows::TaskError;
use gaffer_core::queue::task::Claimed;
use gaffer_core::time::Wall;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::BTreeMap;

/// So many candidates are looked at, past those that a limit holds back or that are too late.
const SCAN: usize = 1_000;

/// See [`crate::port::Request::Claim`]. What is counted are rows that run, within this transaction: a counter beside them could be wrong.
pub(super) fn claim(connection: &Connection, claim: &Claim) -> rusqlite::Result<Answer> {
    let mut limits = Limits::new(connection, claim);
    let mut chosen = Vec::new();
    let mut too_late = Vec::new();
    let mut unreadable = Vec::new();
    let mut looked_at = 0;
    let mut select = connection.prepare_cached(&format!(
        "SELECT {CLAIMED}, limit_key, begin_by FROM task WHERE queue = ?1 AND state = 'queued' ORDER BY rank, id LIMIT ?2"
    ))?;
    // Rows are looked at one by one: those behind the last one that is taken cost nothing.
    let scan = SCAN.max(claim.count as usize);
    let mut rows = select.query(params![claim.queue.to_string(), scan as i64])?;
    while let Some(row) = rows.next()? {
        if chosen.len() >= claim.count as usize {
            break;
        }
        looked_at += 1;
        let (task, key, begin_by) = match candidate(row) {
            Ok(read) => read,
            Err(error) if is_of_the_row(&error) => {
                unreadable.push((row.get("id")?, error.to_string()));
                continue;
            }
            Err(error) => return Err(error),
        };
        if begin_by.is_some_and(|by| by < claim.now.0) {
            too_late.push(task.handle.task);
        } else if fits(claim, &task) && limits.allow(key, &task)? {
            chosen.push(task);
        }
    }
    drop(rows);
    let cleared = !too_late.is_empty() || !unreadable.is_empty();
    let again_at = match looked_at == scan && cleared && chosen.len() < claim.count as usize {
        // They are out of the way now: there may be more behind them.
        true => Some(claim.now),
        false => limits.again_at,
    };
    for id in too_late {
        bury(connection, id, claim.now, "expired", "it was not begun in time")?;
    }
    for (id, why) in unreadable {
        bury(connection, id, claim.now, "bad-arguments", &why)?;
    }
    limits.write()?;
    for task in &mut chosen {
        take(connection, claim, task)?;
    }
    Ok(Answer::Claimed(chosen, again_at))
}

/// A task with its limit key and the time by which it has to begin.
fn candidate(row: &Row<'_>) -> rusqlite::Result<(Claimed, Option<String>, Option<i64>)> {
    Ok((claimed_of(row)?, row.get("limit_key")?, row.get("begin_by")?))
}

/// Another program wrote what no column of ours holds. That is the end of this one row, and nobody else's concern.
fn is_of_the_row(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
    matches!(
        error,
        FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | Utf8Error(..)
    )
}

fn fits(claim: &Claim, task: &Claimed) -> bool {
    claim
        .kinds
        .as_ref()
        .is_none_or(|kinds| kinds.contains(&task.kind))
}

/// The row is ours from now on; or it is gone, and only we know of the task.
fn take(connection: &Connection, claim: &Claim, task: &mut Claimed) -> rusqlite::Result<()> {
    task.handle.token += 1;
    task.attempt += 1;
    task.owner = claim.owner.clone();
    if claim.forget {
        connection
            .prepare_cached("DELETE FROM task WHERE id = ?1")?
            .execute([task.handle.task])?;
        return Ok(());
    }
    connection
        .prepare_cached(
            "UPDATE task SET state = 'running', lease_owner = ?2, lease_until = ?3, lease_token = ?4, attempt = ?5,
                started_at = ?6, unique_hold = CASE WHEN hold_running THEN unique_hold END WHERE id = ?1",
        )?
        .execute(params![
            task.handle.task,
            &*claim.owner,
            claim.now.plus(claim.lease).0,
            task.handle.token,
            task.attempt,
            claim.now.0,
        ])?;
    Ok(())
}

/// It can never begin.
fn bury(connection: &Connection, id: i64, now: Wall, kind: &str, message: &str) -> rusqlite::Result<()> {
    let error = TaskError {
        kind: kind.to_owned(),
        message: message.to_owned(),
        output: String::new(),
    };
    let error = serde_json::to_string(&error).unwrap_or_default();
    connection
        .prepare_cached(
            "UPDATE task SET state = 'dead', finished_at = ?2, last_error = ?3, unique_hold = NULL,
                expires_at = ?2 + 604800000 WHERE id = ?1",
        )?
        .execute(params![id, now.0, error])?;
    Ok(())
}

/// What limits leave room for.
struct Limits<'a> {
    connection: &'a Connection,
    claim: &'a Claim,
    total: Option<i64>,
    kinds: BTreeMap<Option<String>, i64>,
    keys: BTreeMap<String, i64>,
    buckets: BTreeMap<String, f64>,
    again_at: Option<Wall>,
}

impl<'a> Limits<'a> {
    fn new(connection: &'a Connection, claim: &'a Claim) -> Limits<'a> {
        Limits {
            connection,
            claim,
            total: None,
            kinds: BTreeMap::new(),
            keys: BTreeMap::new(),
            buckets: BTreeMap::new(),
            again_at: None,
        }
    }

    /// Takes one of everything that the task needs, if there is one.
    fn allow(&mut self, key: Option<String>, task: &Claimed) -> rusqlite::Result<bool> {
        if self.claim.throttle.is_none() {
            return Ok(true);
        }
        let kind = task.kind.as_deref().map(str::to_owned);
        if !self.room(&kind, key.as_ref())? {
            return Ok(false);
        }
        let bucket = key.clone().unwrap_or_default();
        if !self.token(&bucket)? {
            return Ok(false);
        }
        if let Some(total) = &mut self.total {
            *total += 1;
        }
        if let Some(count) = self.kinds.get_mut(&kind) {
            *count += 1;
        }
        if let Some(count) = key.and_then(|key| self.keys.get_mut(&key)) {
            *count += 1;
        }
        Ok(true)
    }

    fn room(&mut self, kind: &Option<String>, key: Option<&String>) -> rusqlite::Result<bool> {
        let throttle = &self.claim.throttle;
        let queue = self.claim.queue.to_string();
        let mut room = true;
        if let Some(most) = throttle.total {
            let count = match self.total {
                Some(count) => count,
                None => self.count("queue = ?1", params![queue])?,
            };
            self.total = Some(count);
            room &= count < i64::from(most);
        }
        if let Some(most) = throttle.per_kind {
            let count = match self.kinds.get(kind) {
                Some(count) => *count,
                None => self.count("queue = ?1 AND kind IS ?2", params![queue, kind])?,
            };
            self.kinds.insert(kind.clone(), count);
            room &= count < i64::from(most);
        }
        if let (Some(most), Some(key)) = (throttle.per_key, key) {
            let count = match self.keys.get(key) {
                Some(count) => *count,
                None => self.count("queue = ?1 AND limit_key = ?2", params![queue, key])?,
            };
            self.keys.insert(key.clone(), count);
            room &= count < i64::from(most);
        }
        Ok(room)
    }

    fn count(&self, which: &str, values: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<i64> {
        self.connection
            .prepare_cached(&format!(
                "SELECT COUNT(*) FROM task WHERE state = 'running' AND {which}"
            ))?
            .query_row(values, |row| row.get(0))
    }

    /// One of what flows into the bucket.
    fn token(&mut self, key: &str) -> rusqlite::Result<bool> {
        let Some((count, within)) = self.claim.throttle.rate else {
            return Ok(true);
        };
        let per_ms = f64::from(count) / within.as_millis().max(1) as f64;
        let tokens = match self.buckets.get(key) {
            Some(tokens) => *tokens,
            None => self.refilled(key, f64::from(count), per_ms)?,
        };
        if tokens >= 1.0 {
            self.buckets.insert(key.to_owned(), tokens - 1.0);
            return Ok(true);
        }
        self.buckets.insert(key.to_owned(), tokens);
        let wait = ((1.0 - tokens) / per_ms).ceil() as i64;
        let at = Wall(self.claim.now.0 + wait.max(1));
        self.again_at = Some(self.again_at.map_or(at, |known| known.min(at)));
        Ok(false)
    }

    fn refilled(&self, key: &str, count: f64, per_ms: f64) -> rusqlite::Result<f64> {
        let kept = self
            .connection
            .prepare_cached("SELECT tokens, at FROM bucket WHERE queue = ?1 AND key = ?2")?
            .query_row(params![self.claim.queue.to_string(), key], |row| {
                Ok((row.get::<_, f64>(0)?, row.get::<_, i64>(1)?))
            })
            .optional()?;
        Ok(kept.map_or(count, |(tokens, at)| {
            // A clock that was set back gives nothing, and takes nothing.
            let passed = (self.claim.now.0 - at).max(0) as f64;
            (tokens + passed * per_ms).min(count)
        }))
    }

    fn write(self) -> rusqlite::Result<()> {
        for (key, tokens) in &self.buckets {
            self.connection
                .prepare_cached(
                    "INSERT INTO bucket (queue, key, tokens, at) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (queue, key) DO UPDATE SET tokens = ?3, at = ?4",
                )?
                .execute(params![
                    self.claim.queue.to_string(),
                    key,
                    tokens,
                    self.claim.now.0
                ])?;
        }
        Ok(())
    }
}
