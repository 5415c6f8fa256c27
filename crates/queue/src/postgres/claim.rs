//! Taking tasks, on as many nodes as there are.

use super::Trouble;
use super::rows::{CLAIMED, claimed_of};
use super::session::Session;
use crate::port::{Answer, Claim};
use gaffer_core::queue::task::{Claimed, TaskId};
use gaffer_core::time::Wall;
use std::collections::BTreeMap;
use tokio_postgres::Row;

/// So many candidates are looked at, past those that a limit holds back.
const SCAN: i64 = 1_000;
/// Tasks that are too late are put away so many at a time.
const LATE: i64 = 1_000;
/// A limit over all nodes has room again when some node settles a task: that is looked for so often.
const LOOK_AGAIN_MS: i64 = 250;

/// See [`crate::port::Request::Claim`]. Rows that another node is taking are passed over.
pub(super) async fn claim(session: &Session, claim: &Claim) -> Result<Answer, Trouble> {
    put_away_late(session, claim).await?;
    let (chosen, again_at) = match claim.throttle.is_none() {
        true => (None, None),
        false => {
            let (ids, again_at) = within_limits(session, claim).await?;
            (Some(ids), again_at)
        }
    };
    let mut rows = match chosen {
        Some(ids) if ids.is_empty() => Vec::new(),
        chosen => take(session, claim, chosen).await?,
    };
    rows.sort_by_key(|(rank, row)| (*rank, row.handle.task));
    Ok(Answer::Claimed(
        rows.into_iter().map(|(_, row)| row).collect(),
        again_at,
    ))
}

async fn put_away_late(session: &Session, claim: &Claim) -> Result<(), Trouble> {
    let late =
        "UPDATE task SET state = 'dead', finished_at = $2, unique_hold = NULL, expires_at = $2 + 604800000,
            last_error = '{\"kind\":\"expired\",\"message\":\"it was not begun in time\"}'
         WHERE id IN (SELECT id FROM task WHERE queue = $1 AND state = 'queued' AND begin_by < $2
            ORDER BY begin_by LIMIT $3 FOR UPDATE SKIP LOCKED)";
    session
        .execute(late, &[&claim.queue.to_string(), &claim.now.0, &LATE])
        .await?;
    Ok(())
}

/// The rows are ours from now on; or they are gone, and only we know of the tasks.
async fn take(
    session: &Session,
    claim: &Claim,
    chosen: Option<Vec<TaskId>>,
) -> Result<Vec<(i32, Claimed)>, Trouble> {
    let (kinds, no_kind) = kinds(claim);
    let which = match &chosen {
        // Under the lock of the limits: nobody else claims here, but a row may have been withdrawn meanwhile.
        Some(_) => "SELECT id FROM task WHERE id = ANY($4) AND state = 'queued' FOR UPDATE",
        None => {
            "SELECT id FROM task WHERE queue = $1 AND state = 'queued' AND (begin_by IS NULL OR begin_by >= $5)
                AND ($2::text[] IS NULL OR kind = ANY($2) OR (kind IS NULL AND $3)) ORDER BY rank, id LIMIT $4 FOR UPDATE SKIP LOCKED"
        }
    };
    let change = match claim.forget {
        true => "DELETE FROM task t USING c WHERE t.id = c.id".to_owned(),
        false => format!(
            "UPDATE task t SET state = 'running', lease_owner = ${0}, lease_until = ${1}, lease_token = t.lease_token + 1,
                attempt = t.attempt + 1, started_at = ${2}, unique_hold = CASE WHEN t.hold_running THEN t.unique_hold END
             FROM c WHERE t.id = c.id",
            if chosen.is_some() { 1 } else { 6 },
            if chosen.is_some() { 2 } else { 7 },
            if chosen.is_some() { 3 } else { 5 },
        ),
    };
    let sql = format!("WITH c AS MATERIALIZED ({which}) {change} RETURNING {CLAIMED}");
    let (queue, count) = (claim.queue.to_string(), i64::from(claim.count));
    let (owner, until, now) = (&*claim.owner, claim.now.plus(claim.lease).0, claim.now.0);
    let rows = match (&chosen, claim.forget) {
        (Some(ids), false) => session.query(&sql, &[&owner, &until, &now, ids]).await?,
        (Some(ids), true) => {
            let sql = sql.replace("$4", "$1");
            session.query(&sql, &[ids]).await?
        }
        (None, false) => {
            session
                .query(&sql, &[&queue, &kinds, &no_kind, &count, &now, &owner, &until])
                .await?
        }
        (None, true) => {
            session
                .query(&sql, &[&queue, &kinds, &no_kind, &count, &now])
                .await?
        }
    };
    let taken = rows.iter().filter_map(|row| {
        let mut task = claimed_of(row)?;
        if claim.forget {
            task.handle.token += 1;
            task.attempt += 1;
        }
        task.owner = claim.owner.clone();
        Some((row.get("rank"), task))
    });
    Ok(taken.collect())
}

/// The named kinds, and whether tasks without one are wanted.
fn kinds(claim: &Claim) -> (Option<Vec<&str>>, bool) {
    let Some(kinds) = &claim.kinds else {
        return (None, true);
    };
    let named = kinds.iter().filter_map(|kind| kind.as_deref()).collect();
    (Some(named), kinds.iter().any(Option::is_none))
}

/// What limits leave room for. What is counted are rows that run; all claims of a queue with limits wait for each other.
async fn within_limits(session: &Session, claim: &Claim) -> Result<(Vec<TaskId>, Option<Wall>), Trouble> {
    let queue = claim.queue.to_string();
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended('gaffer limits ' || $1, 0))";
    session.query(lock, &[&queue]).await?;
    let mut limits = Limits::read(session, claim, &queue).await?;
    let (kinds, no_kind) = kinds(claim);
    let candidates = "SELECT id, kind, limit_key FROM task WHERE queue = $1 AND state = 'queued' AND (begin_by IS NULL OR begin_by >= $5)
            AND ($2::text[] IS NULL OR kind = ANY($2) OR (kind IS NULL AND $3)) ORDER BY rank, id LIMIT $4";
    let scan = SCAN.max(i64::from(claim.count));
    let candidates = session
        .query(candidates, &[&queue, &kinds, &no_kind, &scan, &claim.now.0])
        .await?;
    let mut chosen = Vec::new();
    for row in &candidates {
        if chosen.len() >= claim.count as usize {
            break;
        }
        if limits.allow(row) {
            chosen.push(row.get("id"));
        }
    }
    limits.write(session, &queue).await?;
    Ok((chosen, limits.again_at))
}

/// A value that may be missing.
type Kind = Option<String>;

struct Limits<'a> {
    claim: &'a Claim,
    total: i64,
    kinds: BTreeMap<Kind, i64>,
    keys: BTreeMap<String, i64>,
    /// As they are kept: what was in them, and when.
    kept: BTreeMap<String, (f64, i64)>,
    buckets: BTreeMap<String, f64>,
    again_at: Option<Wall>,
}

impl<'a> Limits<'a> {
    async fn read(session: &Session, claim: &'a Claim, queue: &str) -> Result<Limits<'a>, Trouble> {
        let mut limits = Limits {
            claim,
            total: 0,
            kinds: BTreeMap::new(),
            keys: BTreeMap::new(),
            kept: BTreeMap::new(),
            buckets: BTreeMap::new(),
            again_at: None,
        };
        let running = "SELECT kind, limit_key, COUNT(*) FROM task WHERE queue = $1 AND state = 'running' GROUP BY kind, limit_key";
        for row in session.query(running, &[&queue]).await? {
            let count: i64 = row.get(2);
            limits.total += count;
            *limits.kinds.entry(row.get(0)).or_default() += count;
            if let Some(key) = row.get(1) {
                *limits.keys.entry(key).or_default() += count;
            }
        }
        if claim.throttle.rate.is_some() {
            let buckets = "SELECT key, tokens, at FROM bucket WHERE queue = $1";
            let rows = session.query(buckets, &[&queue]).await?;
            limits.kept = rows
                .iter()
                .map(|row| (row.get(0), (row.get(1), row.get(2))))
                .collect();
        }
        Ok(limits)
    }

    /// Takes one of everything that the task needs, if there is one.
    fn allow(&mut self, row: &Row) -> bool {
        let (kind, key): (Kind, Option<String>) = (row.get("kind"), row.get("limit_key"));
        let throttle = &self.claim.throttle;
        let full = |most: Option<u32>, count: Option<&i64>| {
            most.is_some_and(|most| count.copied().unwrap_or(0) >= i64::from(most))
        };
        let held_back = full(throttle.total, Some(&self.total))
            || full(throttle.per_kind, self.kinds.get(&kind))
            || key
                .as_ref()
                .is_some_and(|key| full(throttle.per_key, self.keys.get(key)));
        if held_back {
            self.again(LOOK_AGAIN_MS);
            return false;
        }
        if !self.token(key.as_deref().unwrap_or_default()) {
            return false;
        }
        self.total += 1;
        *self.kinds.entry(kind).or_default() += 1;
        if let Some(key) = key {
            *self.keys.entry(key).or_default() += 1;
        }
        true
    }

    fn again(&mut self, in_ms: i64) {
        let at = Wall(self.claim.now.0 + in_ms.max(1));
        self.again_at = Some(self.again_at.map_or(at, |known| known.min(at)));
    }

    /// One of what flows into the bucket.
    fn token(&mut self, key: &str) -> bool {
        let Some((count, within)) = self.claim.throttle.rate else {
            return true;
        };
        let most = f64::from(count);
        let per_ms = most / within.as_millis().max(1) as f64;
        let tokens = match (self.buckets.get(key), self.kept.get(key)) {
            (Some(tokens), _) => *tokens,
            // A clock that was set back gives nothing, and takes nothing.
            (None, Some((tokens, at))) => (tokens + (self.claim.now.0 - at).max(0) as f64 * per_ms).min(most),
            (None, None) => most,
        };
        let enough = tokens >= 1.0;
        let left = if enough { tokens - 1.0 } else { tokens };
        self.buckets.insert(key.to_owned(), left);
        if !enough {
            self.again(((1.0 - tokens) / per_ms).ceil() as i64);
        }
        enough
    }

    async fn write(&self, session: &Session, queue: &str) -> Result<(), Trouble> {
        let put = "INSERT INTO bucket (queue, key, tokens, at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (queue, key) DO UPDATE SET tokens = $3, at = $4";
        for (key, tokens) in &self.buckets {
            session
                .execute(put, &[&queue, key, tokens, &self.claim.now.0])
                .await?;
        }
        Ok(())
    }
}
