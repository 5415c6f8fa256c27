//! Tables of webhooks: what is to be delivered, what was promised with a request, what was told of a run.
//!
//! Every row is put in the transaction that makes its event true, or behind a promise that was: see
//! `docs/adr/0009-an-outbox-beside-the-facts.md`.

use super::sums;
use rusqlite::{Connection, OptionalExtension, params};

/// Events that wait for one webhook at most; beyond it the oldest goes, counted.
pub const WAITING_MAX: u32 = 10_000;
/// Attempts remembered per webhook.
pub const DELIVERIES_KEPT: u32 = 100;
/// Pruned deaths whose records may still be in a journal.
const PRUNED_KEPT: u32 = 100_000;

/// An event for one webhook.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxRow {
    /// Order of the events; grows.
    pub n: u64,
    /// `session.name`.
    pub hook: String,
    /// The event, JSON of [`crate::outbox::HookEvent`].
    pub event: String,
    /// Failed attempts so far.
    pub attempts: u32,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// Of the event.
    pub id: String,
    /// Its name.
    pub event: String,
    /// From 1.
    pub attempt: u32,
    /// Unix ms.
    pub at: i64,
    /// Milliseconds.
    pub took_ms: u64,
    /// What the receiver answered; none: it did not.
    pub status: Option<u16>,
    /// Why it failed.
    pub error: Option<String>,
}

/// What an attempt means for its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Taken by the receiver.
    Delivered,
    /// To be tried again.
    Again,
    /// No further attempt.
    GivenUp,
    /// In the webhook's format it is nothing: no attempt was made.
    Skipped,
}

/// Totals of a webhook since it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookCounts {
    /// In the outbox.
    pub waiting: u64,
    /// Taken by the receiver.
    pub delivered: u64,
    /// Given up after the last attempt.
    pub given_up: u64,
    /// Dropped because the outbox was full.
    pub dropped: u64,
}

/// A stored webhook.
#[derive(Clone, Debug)]
pub struct HookRow {
    /// Session.
    pub session: String,
    /// Name.
    pub name: String,
    /// File it came from.
    pub file: String,
    /// JSON.
    pub spec: String,
}

/// A change of these tables.
#[derive(Clone, Debug)]
pub enum OutboxChange {
    /// The webhooks of a file are these now; what waits for one that is gone, goes.
    Webhooks {
        /// File.
        file: String,
        /// All of them.
        rows: Vec<HookRow>,
    },
    /// Committed with a request: what it will tell, should the daemon not live to do so.
    Promise {
        /// Intent number.
        seq: u64,
        /// Events.
        rows: Vec<OutboxRow>,
    },
    /// Events; those of a request take the place of what was promised.
    Put {
        /// Intent number.
        kept: Option<u64>,
        /// Events.
        rows: Vec<OutboxRow>,
    },
    /// A run has started: its events are put once, whoever reads its journal.
    Started {
        /// Run id, first part.
        epoch: u32,
        /// Run id, second part.
        n: u32,
        /// Events.
        rows: Vec<OutboxRow>,
    },
    /// An attempt was made.
    Attempted {
        /// Webhook.
        hook: String,
        /// Row.
        n: u64,
        /// How it went.
        delivery: Option<Delivery>,
        /// What follows.
        fate: Fate,
    },
}

/// Carries out a change; did it put something?
pub(super) fn apply(c: &Connection, change: &OutboxChange) -> rusqlite::Result<bool> {
    match change {
        OutboxChange::Webhooks { file, rows } => webhooks(c, file, rows).map(|()| false),
        OutboxChange::Promise { seq, rows } => {
            for row in rows {
                c.prepare_cached("INSERT INTO promised VALUES (?1, ?2, ?3, ?4, row_sum(?1, ?2, ?3, ?4))")?
                    .execute(params![row.n, seq, row.hook, row.event])?;
            }
            Ok(false)
        }
        OutboxChange::Put { kept, rows } => {
            if let Some(seq) = kept {
                c.prepare_cached("DELETE FROM promised WHERE seq = ?1")?
                    .execute(params![seq])?;
            }
            put(c, rows)
        }
        OutboxChange::Started { epoch, n, rows } => started(c, *epoch, *n, rows),
        OutboxChange::Attempted {
            hook,
            n,
            delivery,
            fate,
        } => attempted(c, hook, *n, delivery.as_ref(), *fate).map(|()| false),
    }
}

/// Puts events.
pub(super) fn put(c: &Connection, rows: &[OutboxRow]) -> rusqlite::Result<bool> {
    for row in rows {
        c.prepare_cached("INSERT OR IGNORE INTO outbox VALUES (?1, ?2, ?3, 0, row_sum(?1, ?2, ?3, 0))")?
            .execute(params![row.n, row.hook, row.event])?;
    }
    Ok(!rows.is_empty())
}

/// A death has been settled for the first time: its events are put, unless they were before it was pruned.
pub(super) fn died(c: &Connection, epoch: u32, n: u32, rows: &[OutboxRow]) -> rusqlite::Result<bool> {
    c.prepare_cached("DELETE FROM start_told WHERE epoch = ?1 AND n = ?2")?
        .execute(params![epoch, n])?;
    match was_pruned(c, epoch, n)? {
        true => Ok(false),
        false => put(c, rows),
    }
}

fn was_pruned(c: &Connection, epoch: u32, n: u32) -> rusqlite::Result<bool> {
    c.prepare_cached("SELECT EXISTS (SELECT 1 FROM death_told WHERE epoch = ?1 AND n = ?2)")?
        .query_row(params![epoch, n], |row| row.get(0))
}

fn started(c: &Connection, epoch: u32, n: u32, rows: &[OutboxRow]) -> rusqlite::Result<bool> {
    let settled: bool = c
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM run WHERE epoch = ?1 AND n = ?2)")?
        .query_row(params![epoch, n], |row| row.get(0))?;
    if settled || was_pruned(c, epoch, n)? {
        return Ok(false);
    }
    let new = c
        .prepare_cached("INSERT OR IGNORE INTO start_told VALUES (?1, ?2, row_sum(?1, ?2))")?
        .execute(params![epoch, n])?;
    match new {
        0 => Ok(false),
        _ => put(c, rows),
    }
}

fn webhooks(c: &Connection, file: &str, rows: &[HookRow]) -> rusqlite::Result<()> {
    c.execute("DELETE FROM webhook WHERE file = ?1", [file])?;
    for row in rows {
        c.prepare_cached("INSERT OR REPLACE INTO webhook VALUES (?1, ?2, ?3, ?4, row_sum(?1, ?2, ?3, ?4))")?
            .execute(params![row.session, row.name, row.file, row.spec])?;
    }
    for table in ["outbox", "promised", "delivery", "hook_count"] {
        let sql =
            format!("DELETE FROM {table} WHERE hook NOT IN (SELECT session || '.' || name FROM webhook)");
        c.execute(&sql, [])?;
    }
    // With nobody to tell, nothing is told: a webhook that comes later hears of what happens later.
    c.execute_batch(
        "DELETE FROM start_told WHERE NOT EXISTS (SELECT 1 FROM webhook);
         DELETE FROM death_told WHERE NOT EXISTS (SELECT 1 FROM webhook);",
    )
}

fn attempted(
    c: &Connection,
    hook: &str,
    n: u64,
    delivery: Option<&Delivery>,
    fate: Fate,
) -> rusqlite::Result<()> {
    match fate {
        Fate::Again => c
            .prepare_cached(
                "UPDATE outbox SET attempts = attempts + 1, sum = row_sum(n, hook, event, attempts + 1) WHERE n = ?1",
            )?
            .execute(params![n])?,
        _ => c
            .prepare_cached("DELETE FROM outbox WHERE n = ?1")?
            .execute(params![n])?,
    };
    match fate {
        Fate::Delivered => count(c, hook, "delivered", 1)?,
        Fate::GivenUp => count(c, hook, "given_up", 1)?,
        Fate::Again | Fate::Skipped => {}
    }
    let Some(delivery) = delivery else { return Ok(()) };
    c.prepare_cached(
        "INSERT INTO delivery (hook, id, event, attempt, at, took_ms, status, error, sum)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, row_sum(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         WHERE EXISTS (SELECT 1 FROM webhook WHERE session || '.' || name = ?1)",
    )?
    .execute(params![
        hook,
        delivery.id,
        delivery.event,
        delivery.attempt,
        delivery.at,
        delivery.took_ms,
        delivery.status,
        delivery.error
    ])?;
    c.prepare_cached(
        "DELETE FROM delivery WHERE hook = ?1 AND place <=
            (SELECT place FROM delivery WHERE hook = ?1 ORDER BY place DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute(params![hook, DELIVERIES_KEPT])?;
    Ok(())
}

fn count(c: &Connection, hook: &str, column: &str, by: u64) -> rusqlite::Result<()> {
    c.prepare_cached("INSERT OR IGNORE INTO hook_count VALUES (?1, 0, 0, 0, row_sum(?1, 0, 0, 0))")?
        .execute(params![hook])?;
    c.prepare_cached(&format!(
        "UPDATE hook_count SET {column} = {column} + ?2 WHERE hook = ?1"
    ))?
    .execute(params![hook, by])?;
    let sum = sums::sum("hook_count");
    c.prepare_cached(&format!("UPDATE hook_count SET sum = {sum} WHERE hook = ?1"))?
        .execute(params![hook])?;
    Ok(())
}

/// Drops the oldest events of webhooks that have too many; how many of which.
pub(super) fn trim(c: &Connection) -> rusqlite::Result<Vec<(String, u64)>> {
    let mut full =
        c.prepare_cached("SELECT hook, count(*) FROM outbox GROUP BY hook HAVING count(*) > ?1")?;
    let full: Vec<(String, u64)> = full
        .query_map([WAITING_MAX], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut dropped = Vec::new();
    for (hook, waiting) in full {
        let surplus = waiting - u64::from(WAITING_MAX);
        c.prepare_cached(
            "DELETE FROM outbox WHERE n IN (SELECT n FROM outbox WHERE hook = ?1 ORDER BY n LIMIT ?2)",
        )?
        .execute(params![hook, surplus])?;
        count(c, &hook, "dropped", surplus)?;
        dropped.push((hook, surplus));
    }
    Ok(dropped)
}

/// Remembers deaths that are about to be pruned: their records may still be in a journal.
pub(super) fn note_pruned(c: &Connection, keep: u32, before: i64) -> rusqlite::Result<()> {
    let any: bool = c.query_row("SELECT EXISTS (SELECT 1 FROM webhook)", [], |row| row.get(0))?;
    if !any {
        return Ok(());
    }
    c.execute(
        "INSERT OR IGNORE INTO death_told SELECT epoch, n, row_sum(epoch, n) FROM run WHERE ended < ?2 OR (epoch, n) IN (
            SELECT epoch, n FROM (SELECT epoch, n, row_number() OVER
                (PARTITION BY session, job ORDER BY epoch DESC, n DESC) AS place FROM run) WHERE place > ?1)",
        params![keep, before],
    )?;
    c.execute(
        "DELETE FROM death_told WHERE (epoch, n) <=
            (SELECT epoch, n FROM death_told ORDER BY epoch DESC, n DESC LIMIT 1 OFFSET ?1)",
        [PRUNED_KEPT],
    )?;
    Ok(())
}

/// The webhooks, and the highest number in use.
pub(super) fn load(c: &Connection) -> rusqlite::Result<(Vec<HookRow>, u64)> {
    let sound = sums::sound("webhook");
    let sql = format!("SELECT session, name, file, spec FROM webhook WHERE {sound} ORDER BY 1, 2");
    let mut query = c.prepare(&sql)?;
    let hooks = query
        .query_map([], |row| {
            Ok(HookRow {
                session: row.get(0)?,
                name: row.get(1)?,
                file: row.get(2)?,
                spec: row.get(3)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let newest =
        "SELECT max(coalesce((SELECT max(n) FROM outbox), 0), coalesce((SELECT max(n) FROM promised), 0))";
    Ok((hooks, c.query_row(newest, [], |row| row.get(0))?))
}

/// What earlier daemons promised and did not live to tell is put.
pub(super) fn keep_promises(c: &Connection) -> rusqlite::Result<()> {
    let transaction = c.unchecked_transaction()?;
    let sound = sums::sound("promised");
    transaction.execute_batch(&format!(
        "INSERT OR IGNORE INTO outbox SELECT n, hook, event, 0, row_sum(n, hook, event, 0) FROM promised WHERE {sound};
         DELETE FROM promised;"
    ))?;
    transaction.commit()
}

/// The event that is next for a webhook.
pub(super) fn next(c: &Connection, hook: &str) -> rusqlite::Result<Option<OutboxRow>> {
    let sound = sums::sound("outbox");
    c.prepare_cached(&format!(
        "SELECT n, hook, event, attempts FROM outbox WHERE hook = ?1 AND {sound} ORDER BY n LIMIT 1"
    ))?
    .query_row([hook], |row| {
        Ok(OutboxRow {
            n: row.get(0)?,
            hook: row.get(1)?,
            event: row.get(2)?,
            attempts: row.get(3)?,
        })
    })
    .optional()
}

/// Newest attempts first.
pub(super) fn deliveries(c: &Connection, hook: &str, limit: usize) -> rusqlite::Result<Vec<Delivery>> {
    let sound = sums::sound("delivery");
    let mut query = c.prepare_cached(&format!(
        "SELECT id, event, attempt, at, took_ms, status, error FROM delivery
         WHERE hook = ?1 AND {sound} ORDER BY place DESC LIMIT ?2"
    ))?;
    query
        .query_map(params![hook, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
            Ok(Delivery {
                id: row.get(0)?,
                event: row.get(1)?,
                attempt: row.get(2)?,
                at: row.get(3)?,
                took_ms: row.get(4)?,
                status: row.get(5)?,
                error: row.get(6)?,
            })
        })?
        .collect()
}

/// Totals.
pub(super) fn counts(c: &Connection, hook: &str) -> rusqlite::Result<HookCounts> {
    let waiting = c.query_row("SELECT count(*) FROM outbox WHERE hook = ?1", [hook], |row| {
        row.get(0)
    })?;
    let counted = c
        .query_row(
            &format!(
                "SELECT delivered, given_up, dropped FROM hook_count WHERE hook = ?1 AND {}",
                sums::sound("hook_count")
            ),
            [hook],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let (delivered, given_up, dropped) = counted.unwrap_or((0, 0, 0));
    Ok(HookCounts {
        waiting,
        delivered,
        given_up,
        dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema;

    fn store() -> (tempfile::TempDir, Connection) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let c = schema::open(&dir.path().join("gaffer.db")).expect("new store");
        let rows = vec![hook_row("ops")];
        apply(
            &c,
            &OutboxChange::Webhooks {
                file: "f".to_owned(),
                rows,
            },
        )
        .expect("webhooks");
        (dir, c)
    }

    fn hook_row(name: &str) -> HookRow {
        HookRow {
            session: "s".to_owned(),
            name: name.to_owned(),
            file: "f".to_owned(),
            spec: "{}".to_owned(),
        }
    }

    fn row(n: u64) -> OutboxRow {
        OutboxRow {
            n,
            hook: "s.ops".to_owned(),
            event: format!("{{\"id\":\"1.{n}\"}}"),
            attempts: 0,
        }
    }

    #[test]
    fn b5_a_full_outbox_drops_the_oldest_and_counts_it() {
        let (_dir, c) = store();
        let rows: Vec<OutboxRow> = (1..=u64::from(WAITING_MAX) + 5).map(row).collect();
        put(&c, &rows).expect("put");
        assert_eq!(trim(&c).expect("trim"), [("s.ops".to_owned(), 5)]);
        assert_eq!(next(&c, "s.ops").expect("next").map(|row| row.n), Some(6));
        let counts = counts(&c, "s.ops").expect("counts");
        assert_eq!((counts.waiting, counts.dropped), (u64::from(WAITING_MAX), 5));
        assert_eq!(trim(&c).expect("trim"), []);
    }

    #[test]
    fn a_promise_that_was_not_kept_is_put_when_the_store_is_opened() {
        let (_dir, c) = store();
        let promise = |seq, n| OutboxChange::Promise {
            seq,
            rows: vec![row(n)],
        };
        apply(&c, &promise(7, 1)).expect("promise");
        apply(&c, &promise(8, 2)).expect("promise");
        let kept = OutboxChange::Put {
            kept: Some(7),
            rows: vec![row(3)],
        };
        assert!(apply(&c, &kept).expect("kept"));
        assert_eq!(next(&c, "s.ops").expect("next").map(|row| row.n), Some(3));
        let (hooks, newest) = load(&c).expect("load");
        keep_promises(&c).expect("kept");
        assert_eq!((hooks.len(), newest), (1, 3));
        assert_eq!(next(&c, "s.ops").expect("next").map(|row| row.n), Some(2));
        assert_eq!(counts(&c, "s.ops").expect("counts").waiting, 2);
    }

    #[test]
    fn a_start_and_an_end_are_put_once_also_when_the_end_was_pruned() {
        let (_dir, c) = store();
        let start = |n| OutboxChange::Started {
            epoch: 1,
            n: 4,
            rows: vec![row(n)],
        };
        assert!(apply(&c, &start(1)).expect("start"));
        assert!(!apply(&c, &start(2)).expect("start"), "told before");
        assert!(died(&c, 1, 4, &[row(3)]).expect("death"));
        let insert = "INSERT INTO run VALUES (1, 4, '1', 's', 'j', 's.j.1', 1, 9, 1, 2, 1, 'code:0', 'exit', 'exit', 'exit 0', NULL, '{}', 0)";
        c.execute(insert, []).expect("a row of the history");
        assert!(!apply(&c, &start(4)).expect("start"), "it is in the history");
        note_pruned(&c, 0, 0).expect("noted");
        c.execute("DELETE FROM run", []).expect("pruned");
        assert!(
            !died(&c, 1, 4, &[row(5)]).expect("death"),
            "told before it was pruned"
        );
        assert!(!apply(&c, &start(6)).expect("start"));
        assert_eq!(counts(&c, "s.ops").expect("counts").waiting, 2);
    }

    #[test]
    fn what_waits_for_a_webhook_goes_with_it() {
        let (_dir, c) = store();
        put(&c, &[row(1)]).expect("put");
        apply(
            &c,
            &OutboxChange::Started {
                epoch: 1,
                n: 1,
                rows: Vec::new(),
            },
        )
        .expect("start");
        apply(
            &c,
            &OutboxChange::Webhooks {
                file: "f".to_owned(),
                rows: Vec::new(),
            },
        )
        .expect("none");
        for table in ["outbox", "start_told", "webhook"] {
            let sql = format!("SELECT count(*) FROM {table}");
            let left: u32 = c.query_row(&sql, [], |row| row.get(0)).expect("count");
            assert_eq!(left, 0, "{table}");
        }
    }
}
