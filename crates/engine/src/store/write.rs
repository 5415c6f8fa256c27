//! Transactions.

use super::outbox::{self, OutboxChange, OutboxRow};
use super::{DrainRow, LatestRow, RunRow, StoreError, TaskRow, sums};
use rusqlite::{Connection, Transaction, params};
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// A change of intent.
#[derive(Clone, Debug)]
pub enum Change {
    /// Adds or replaces a definition. Wishes of a replaced job stay.
    JobPut {
        /// Session.
        session: String,
        /// Job.
        job: String,
        /// As typed, JSON.
        spec: String,
        /// Where it came from.
        file: Option<String>,
        /// Line there.
        line: Option<u32>,
        /// New revision.
        revision: u64,
        /// First wish of a new job.
        wish: &'static str,
        /// Intent number.
        seq: u64,
        /// Who.
        by: String,
    },
    /// Marks a job as to be removed: its wish is to be down for good.
    JobRetire {
        /// Session.
        session: String,
        /// Job.
        job: String,
        /// Intent number.
        seq: u64,
    },
    /// Forgets a job.
    JobForget {
        /// Session.
        session: String,
        /// Job.
        job: String,
    },
    /// A wish of a job. Wishes of its instances that are older are dropped.
    JobWish {
        /// Session.
        session: String,
        /// Job.
        job: String,
        /// Wish.
        wish: &'static str,
        /// Its intent number.
        wish_seq: u64,
        /// Restart's intent number.
        restart_seq: u64,
        /// Who.
        by: String,
    },
    /// A wish of one instance.
    InstanceWish {
        /// Session.
        session: String,
        /// Job.
        job: String,
        /// Number.
        instance: u32,
        /// Wish.
        wish: &'static str,
        /// Its intent number.
        wish_seq: u64,
        /// Restart's intent number.
        restart_seq: u64,
    },
    /// A roll-out that was asked for; the newest of a job (and of each instance) is kept.
    Reload {
        /// Session.
        session: String,
        /// Job.
        job: String,
        /// One instance; 0: the whole job.
        instance: u32,
        /// Intent number.
        seq: u64,
        /// Instead of the definition's.
        how: Option<&'static str>,
        /// Who.
        by: String,
    },
    /// Operator's number of instances.
    JobScale {
        /// Session.
        session: String,
        /// Job.
        job: String,
        /// None: back to the definition.
        to: Option<u32>,
    },
    /// A one-off.
    OneOffPut {
        /// Session.
        session: String,
        /// Job.
        job: String,
        /// Number.
        n: u64,
        /// JSON.
        request: String,
    },
    /// A one-off is asked to end.
    OneOffStop {
        /// Session.
        session: String,
        /// Job.
        job: String,
        /// Number.
        n: u64,
        /// How and by whom, JSON.
        stopped: String,
    },
    /// A one-off is over.
    OneOffForget {
        /// Session.
        session: String,
        /// Job.
        job: String,
        /// Number.
        n: u64,
    },
    /// Where small process numbers begin.
    Pids {
        /// Base by epoch, to be added.
        bases: Vec<(u32, u64)>,
        /// Epochs of which nothing lives.
        forget: Vec<u32>,
    },
    /// The tasks of a file are these now.
    Tasks {
        /// File.
        file: String,
        /// All of them.
        rows: Vec<TaskRow>,
    },
    /// A task's newest run.
    Latest {
        /// Which run.
        row: LatestRow,
        /// Only if the definition is still that of the row before.
        same: bool,
    },
    /// Nobody waits for the task any more, or its definition has no run.
    LatestForget {
        /// Session.
        session: String,
        /// Task.
        name: String,
    },
    /// The schedules of a file are these now.
    Schedules {
        /// File.
        file: String,
        /// All of them.
        rows: Vec<TaskRow>,
    },
    /// The queues of a file are these now.
    Queues {
        /// File.
        file: String,
        /// All of them.
        rows: Vec<TaskRow>,
    },
    /// A store that queues name has this number; it never gets another one.
    QueueStore {
        /// Number.
        number: u16,
        /// What names it, without a password.
        name: String,
    },
    /// Workers of a queue that an operator wants.
    QueueScale {
        /// Session.
        session: String,
        /// Queue.
        name: String,
        /// None: back to the definition.
        to: Option<u32>,
    },
    /// What a file defined until now.
    Previous {
        /// File.
        file: String,
        /// JSON: session, jobs, tasks and webhooks as they were typed.
        spec: String,
    },
    /// Webhooks.
    Outbox(OutboxChange),
    /// The node is drained, or not any more.
    Drain(Option<DrainRow>),
    /// Keeps the newest deaths of each slot and those younger than a time.
    Prune {
        /// Per job.
        keep: u32,
        /// Unix ms; older ones go.
        before: i64,
    },
}

/// A death to settle.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The record.
    pub row: RunRow,
    /// Its run id as text.
    pub id: String,
    /// What it tells webhooks, put when this settlement is the first; none: there are no webhooks.
    pub tell: Option<Vec<OutboxRow>>,
}

type Waiting = Vec<(Vec<Change>, oneshot::Sender<Result<(), StoreError>>)>;

/// Commits intents, each whole or not at all, with one sync for all of them.
pub(super) fn commit_intents(connection: &mut Connection, waiting: Waiting) {
    if waiting.is_empty() {
        return;
    }
    let (batches, replies): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
    let mut outcomes = Vec::with_capacity(batches.len());
    let committed = grouped(connection, &batches, &mut outcomes);
    for (index, reply) in replies.into_iter().enumerate() {
        let outcome = match &committed {
            Ok(()) => outcomes.get(index).cloned().unwrap_or(Ok(())),
            Err(error) => Err(error.clone()),
        };
        let _gone = reply.send(outcome);
    }
}

fn grouped(
    connection: &mut Connection,
    batches: &[Vec<Change>],
    outcomes: &mut Vec<Result<(), StoreError>>,
) -> Result<(), StoreError> {
    connection.execute_batch("PRAGMA synchronous = FULL")?;
    let mut transaction = connection.transaction()?;
    for batch in batches {
        let part = transaction.savepoint()?;
        let outcome = batch.iter().try_for_each(|change| apply(&part, change).map(drop));
        match outcome {
            Ok(()) => part.commit()?,
            // Dropping the savepoint rolls this batch back, and only this one.
            Err(_) => drop(part),
        }
        outcomes.push(outcome.map_err(StoreError::from));
    }
    Ok(transaction.commit()?)
}

/// Commits facts without a sync; was something put into the outbox?
pub(super) fn commit_facts(
    connection: &mut Connection,
    facts: &[Settled],
    upkeep: &[Change],
) -> Result<bool, StoreError> {
    connection.execute_batch("PRAGMA synchronous = NORMAL")?;
    let transaction = connection.transaction()?;
    let mut put = false;
    // A start is told before the end of its run.
    let is_start = |change: &&Change| matches!(change, Change::Outbox(OutboxChange::Started { .. }));
    for change in upkeep.iter().filter(is_start) {
        put |= apply(&transaction, change)?;
    }
    let mut highest: BTreeMap<u32, u32> = BTreeMap::new();
    for fact in facts {
        put |= settle(&transaction, fact)?;
        let most = highest.entry(fact.row.epoch).or_default();
        *most = fact.row.n.max(*most);
    }
    for (epoch, n) in highest {
        transaction
            .prepare_cached(
                "INSERT INTO meta VALUES ('runs.' || ?1, ?2, row_sum('runs.' || ?1, ?2))
                 ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value),
                    sum = row_sum(key, max(value, excluded.value))",
            )?
            .execute(params![epoch, n])?;
    }
    for change in upkeep.iter().filter(|change| !is_start(change)) {
        put |= apply(&transaction, change)?;
    }
    let dropped = match put {
        true => outbox::trim(&transaction)?,
        false => Vec::new(),
    };
    transaction.commit()?;
    for (hook, events) in dropped {
        tracing::warn!(hook, events, "webhook.dropped");
    }
    Ok(put)
}

fn settle(transaction: &Transaction<'_>, fact: &Settled) -> rusqlite::Result<bool> {
    let row = &fact.row;
    // The journals are read again after a crash: the first settlement of a run is the one that counts.
    let new = transaction
        .prepare_cached(
            "INSERT OR IGNORE INTO run (epoch, n, id, session, job, slot, attempt, pid, started, ended, lived_ms,
                status, cause, reason_code, reason, rusage, logs, sum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                row_sum(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17))",
        )?
        .execute(params![
            row.epoch,
            row.n,
            fact.id,
            row.session,
            row.job,
            row.slot,
            row.attempt,
            row.pid,
            row.started,
            row.ended,
            row.lived_ms,
            row.status,
            row.cause,
            row.reason_code,
            row.reason,
            row.rusage,
            row.logs
        ])?;
    match &fact.tell {
        Some(rows) if new > 0 => outbox::died(transaction, row.epoch, row.n, rows),
        _ => Ok(false),
    }
}

fn drain(c: &Connection, row: Option<&DrainRow>) -> rusqlite::Result<()> {
    match row {
        None => c.execute("DELETE FROM drain", [])?,
        Some(row) => c.execute(
            "INSERT OR REPLACE INTO drain VALUES (1, ?1, ?2, ?3, ?4, row_sum(1, ?1, ?2, ?3, ?4))",
            params![row.by, row.since, row.deadline, row.stops],
        )?,
    };
    Ok(())
}

fn queue_scale(c: &Connection, session: &str, name: &str, to: Option<u32>) -> rusqlite::Result<()> {
    match to {
        None => c
            .prepare_cached("DELETE FROM queue_scale WHERE session = ?1 AND name = ?2")?
            .execute(params![session, name])?,
        Some(workers) => c
            .prepare_cached("INSERT OR REPLACE INTO queue_scale VALUES (?1, ?2, ?3, row_sum(?1, ?2, ?3))")?
            .execute(params![session, name, workers])?,
    };
    Ok(())
}

fn prune(c: &Connection, keep: u32, before: i64) -> rusqlite::Result<()> {
    outbox::note_pruned(c, keep, before)?;
    c.execute(
        "DELETE FROM run WHERE ended < ?2 OR (epoch, n) IN (
            SELECT epoch, n FROM (SELECT epoch, n, row_number() OVER
                (PARTITION BY session, job ORDER BY epoch DESC, n DESC) AS place FROM run) WHERE place > ?1)",
        params![keep, before],
    )?;
    Ok(())
}

/// Carries out a change; was something put into the outbox?
fn apply(c: &Connection, change: &Change) -> rusqlite::Result<bool> {
    if let Change::Outbox(change) = change {
        return outbox::apply(c, change);
    }
    if let Change::Tasks { file, rows } = change {
        return objects(c, "task", file, rows).map(|()| false);
    }
    if let Change::Latest { row, same } = change {
        return latest(c, row, *same).map(|()| false);
    }
    if let Change::LatestForget { session, name } = change {
        c.prepare_cached("DELETE FROM task_latest WHERE session = ?1 AND name = ?2")?
            .execute(params![session, name])?;
        return Ok(false);
    }
    if let Change::Queues { file, rows } = change {
        return objects(c, "queue", file, rows).map(|()| false);
    }
    if let Change::Schedules { file, rows } = change {
        return objects(c, "schedule", file, rows).map(|()| false);
    }
    if let Change::QueueStore { number, name } = change {
        c.prepare_cached("INSERT OR IGNORE INTO queue_store VALUES (?1, ?2, row_sum(?1, ?2))")?
            .execute(params![number, name])?;
        return Ok(false);
    }
    if let Change::QueueScale { session, name, to } = change {
        return queue_scale(c, session, name, *to).map(|()| false);
    }
    if let Change::Previous { file, spec } = change {
        c.prepare_cached("INSERT OR REPLACE INTO previous VALUES (?1, ?2, row_sum(?1, ?2))")?
            .execute(params![file, spec])?;
        return Ok(false);
    }
    if let Change::Drain(row) = change {
        return drain(c, row.as_ref()).map(|()| false);
    }
    if let Change::Prune { keep, before } = change {
        return prune(c, *keep, *before).map(|()| false);
    }
    write_rows(c, change)?;
    // Rows of jobs are changed in part: their sum is that of what came of it.
    if let Change::JobPut { session, job, .. }
    | Change::JobRetire { session, job, .. }
    | Change::JobWish { session, job, .. }
    | Change::JobScale { session, job, .. } = change
    {
        let sum = sums::sum("job");
        c.prepare_cached(&format!(
            "UPDATE job SET sum = {sum} WHERE session = ?1 AND job = ?2"
        ))?
        .execute(params![session, job])?;
    }
    Ok(false)
}

fn objects(c: &Connection, table: &str, file: &str, rows: &[TaskRow]) -> rusqlite::Result<()> {
    c.execute(&format!("DELETE FROM {table} WHERE file = ?1"), [file])?;
    let insert = format!("INSERT OR REPLACE INTO {table} VALUES (?1, ?2, ?3, ?4, row_sum(?1, ?2, ?3, ?4))");
    for row in rows {
        c.prepare_cached(&insert)?
            .execute(params![row.session, row.name, row.file, row.spec])?;
    }
    Ok(())
}

/// A run that was accepted or has ended says so of the definition that it has: a newer one is not touched.
fn latest(c: &Connection, row: &LatestRow, same: bool) -> rusqlite::Result<()> {
    let condition = if same {
        " WHERE digest = excluded.digest"
    } else {
        ""
    };
    c.prepare_cached(&format!(
        "INSERT INTO task_latest VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, row_sum(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8))
         ON CONFLICT (session, name) DO UPDATE SET digest = excluded.digest, run = excluded.run, at = excluded.at,
            accepted = excluded.accepted, state = excluded.state, ended = excluded.ended, sum = excluded.sum{condition}"
    ))?
    .execute(params![
        row.session,
        row.name,
        row.digest,
        row.run,
        row.at,
        row.accepted,
        row.state,
        row.ended
    ])?;
    Ok(())
}

fn write_rows(c: &Connection, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::JobPut {
            session,
            job,
            spec,
            file,
            line,
            revision,
            wish,
            seq,
            by,
        } => c
            .prepare_cached(
                "INSERT INTO job VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, NULL, ?9, 0)
                 ON CONFLICT (session, job) DO UPDATE SET spec = ?3, file = ?4, line = ?5, revision = ?6,
                    changed_by = ?9,
                    wish = CASE wish WHEN 'removed' THEN ?7 ELSE wish END,
                    wish_seq = CASE wish WHEN 'removed' THEN ?8 ELSE wish_seq END",
            )?
            .execute(params![session, job, spec, file, line, revision, wish, seq, by])?,
        Change::JobRetire { session, job, seq } => c
            .prepare_cached("UPDATE job SET wish = 'removed', wish_seq = ?3 WHERE session = ?1 AND job = ?2")?
            .execute(params![session, job, seq])?,
        Change::JobForget { session, job } => {
            c.prepare_cached("DELETE FROM reload WHERE session = ?1 AND job = ?2")?
                .execute(params![session, job])?;
            c.prepare_cached("DELETE FROM one_off WHERE session = ?1 AND job = ?2")?
                .execute(params![session, job])?;
            c.prepare_cached("DELETE FROM instance_wish WHERE session = ?1 AND job = ?2")?
                .execute(params![session, job])?;
            // Put again meanwhile: then it is wanted, and stays.
            c.prepare_cached("DELETE FROM job WHERE session = ?1 AND job = ?2 AND wish = 'removed'")?
                .execute(params![session, job])?
        }
        Change::JobWish {
            session,
            job,
            wish,
            wish_seq,
            restart_seq,
            by,
        } => {
            c.prepare_cached("DELETE FROM instance_wish WHERE session = ?1 AND job = ?2")?
                .execute(params![session, job])?;
            c.prepare_cached(
                "UPDATE job SET wish = ?3, wish_seq = ?4, restart_seq = ?5, changed_by = ?6
                 WHERE session = ?1 AND job = ?2",
            )?
            .execute(params![session, job, wish, wish_seq, restart_seq, by])?
        }
        Change::InstanceWish {
            session,
            job,
            instance,
            wish,
            wish_seq,
            restart_seq,
        } => c
            .prepare_cached(
                "INSERT OR REPLACE INTO instance_wish VALUES (?1, ?2, ?3, ?4, ?5, ?6,
                row_sum(?1, ?2, ?3, ?4, ?5, ?6))",
            )?
            .execute(params![session, job, instance, wish, wish_seq, restart_seq])?,
        other => return write_more_rows(c, other),
    };
    Ok(())
}

/// What is less often written.
fn write_more_rows(c: &Connection, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::Reload {
            session,
            job,
            instance,
            seq,
            how,
            by,
        } => c
            .prepare_cached(
                "INSERT OR REPLACE INTO reload VALUES (?1, ?2, ?3, ?4, ?5, ?6,
                row_sum(?1, ?2, ?3, ?4, ?5, ?6))",
            )?
            .execute(params![session, job, instance, seq, how, by])?,
        Change::JobScale { session, job, to } => c
            .prepare_cached("UPDATE job SET scaled = ?3 WHERE session = ?1 AND job = ?2")?
            .execute(params![session, job, to])?,
        Change::OneOffPut {
            session,
            job,
            n,
            request,
        } => {
            put_meta(c, "intent_seq", *n)?;
            c.prepare_cached(
                "INSERT OR REPLACE INTO one_off VALUES (?1, ?2, ?3, ?4, row_sum(?1, ?2, ?3, ?4))",
            )?
            .execute(params![session, job, n, request])?
        }
        Change::OneOffStop {
            session,
            job,
            n,
            stopped,
        } => one_off_stop(c, session, job, *n, stopped)?,
        Change::OneOffForget { session, job, n } => c
            .prepare_cached("DELETE FROM one_off WHERE session = ?1 AND job = ?2 AND n = ?3")?
            .execute(params![session, job, n])?,
        Change::Pids { bases, forget } => pids(c, bases, forget)?,
        // Written elsewhere.
        _ => 0,
    };
    Ok(())
}

fn one_off_stop(c: &Connection, session: &str, job: &str, n: u64, stopped: &str) -> rusqlite::Result<usize> {
    c.prepare_cached(
        "UPDATE one_off SET request = json_set(request, '$.stopped', json(?4)),
            sum = row_sum(session, job, n, json_set(request, '$.stopped', json(?4)))
         WHERE session = ?1 AND job = ?2 AND n = ?3",
    )?
    .execute(params![session, job, n, stopped])
}

fn pids(c: &Connection, bases: &[(u32, u64)], forget: &[u32]) -> rusqlite::Result<usize> {
    for (epoch, base) in bases {
        put_meta(c, &format!("pids.{epoch}"), *base)?;
    }
    for epoch in forget {
        c.execute(
            "DELETE FROM meta WHERE key IN ('pids.' || ?1, 'runs.' || ?1)",
            params![epoch],
        )?;
    }
    Ok(bases.len() + forget.len())
}

/// One number of the node.
pub(super) fn put_meta(c: &Connection, key: &str, value: u64) -> rusqlite::Result<()> {
    c.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2, row_sum(?1, ?2))")?
        .execute(params![key, value])?;
    Ok(())
}
