//! Queries.

use super::{Loaded, PidsKept, sums};
use rusqlite::{Connection, OptionalExtension, Row, params};

/// A stored job.
pub struct JobRow {
    /// Session.
    pub session: String,
    /// Job.
    pub job: String,
    /// Definition as typed, JSON.
    pub spec: String,
    /// Where it came from.
    pub file: Option<String>,
    /// Line there.
    pub line: Option<u32>,
    /// Grows with each change.
    pub revision: u64,
    /// Wish.
    pub wish: String,
    /// Its intent number.
    pub wish_seq: u64,
    /// Newest restart's intent number.
    pub restart_seq: u64,
    /// Operator's number of instances.
    pub scaled: Option<u32>,
    /// Who changed it last.
    pub changed_by: String,
}

/// A stored wish of one instance.
pub struct WishRow {
    /// Session.
    pub session: String,
    /// Job.
    pub job: String,
    /// Number from 1.
    pub instance: u32,
    /// Wish.
    pub wish: String,
    /// Its intent number.
    pub wish_seq: u64,
    /// Newest restart's intent number.
    pub restart_seq: u64,
}

/// A stored roll-out.
pub struct ReloadRow {
    /// Session.
    pub session: String,
    /// Job.
    pub job: String,
    /// One instance; 0: the whole job.
    pub instance: u32,
    /// Intent number.
    pub seq: u64,
    /// Instead of the definition's.
    pub how: Option<String>,
    /// Who asked.
    pub by: String,
}

/// A stored one-off.
pub struct OneOffRow {
    /// Session.
    pub session: String,
    /// Job.
    pub job: String,
    /// Number.
    pub n: u64,
    /// Arguments and environment, JSON.
    pub request: String,
}

/// A settled run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// Run id, first part.
    pub epoch: u32,
    /// Run id, second part.
    pub n: u32,
    /// Slot as text.
    pub slot: String,
    /// Session.
    pub session: String,
    /// Job.
    pub job: String,
    /// Ordinal in its slot.
    pub attempt: u32,
    /// OS pid.
    pub pid: Option<u32>,
    /// Unix ms.
    pub started: Option<i64>,
    /// Unix ms.
    pub ended: i64,
    /// Milliseconds.
    pub lived_ms: Option<u64>,
    /// `code:1`, `signal:9`, `signal:11:core`, `unknown`; none: never started. `oom:` may stand before it.
    pub status: Option<String>,
    /// ux.md 6.2.
    pub cause: String,
    /// ux.md 6.1.
    pub reason_code: String,
    /// Sentence.
    pub reason: String,
    /// JSON of [`crate::info::Rusage`].
    pub rusage: Option<String>,
    /// JSON: stream → `[from, to]`.
    pub logs: String,
}

/// A task that a file defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRow {
    /// Session.
    pub session: String,
    /// Name.
    pub name: String,
    /// File it came from.
    pub file: String,
    /// JSON with the keys of `[task.X]`.
    pub spec: String,
}

/// The newest run of the definition in force of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatestRow {
    /// Session of the task.
    pub session: String,
    /// Its name.
    pub name: String,
    /// Of the definition.
    pub digest: String,
    /// Id of the run.
    pub run: String,
    /// Unix ms; when it was asked for, then when it was accepted.
    pub at: i64,
    /// It is on disk, in the root of tasks.
    pub accepted: bool,
    /// How it ended, in lower case.
    pub state: Option<String>,
    /// When.
    pub ended: Option<i64>,
}

fn latest(connection: &Connection) -> rusqlite::Result<Vec<LatestRow>> {
    let sql = format!(
        "SELECT session, name, digest, run, at, accepted, state, ended FROM task_latest WHERE {}",
        sums::sound("task_latest")
    );
    all(connection, &sql, |row| {
        Ok(LatestRow {
            session: row.get(0)?,
            name: row.get(1)?,
            digest: row.get(2)?,
            run: row.get(3)?,
            at: row.get(4)?,
            accepted: row.get(5)?,
            state: row.get(6)?,
            ended: row.get(7)?,
        })
    })
}

/// That the node is drained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainRow {
    /// Who asked.
    pub by: String,
    /// Unix ms.
    pub since: i64,
    /// Unix ms: until then tasks may go on.
    pub deadline: Option<i64>,
    /// Jobs are to stop.
    pub stops: bool,
}

fn drain(connection: &Connection) -> rusqlite::Result<Option<DrainRow>> {
    let sound = sums::sound("drain");
    let sql = format!("SELECT asked_by, since, deadline, stops FROM drain WHERE {sound}");
    connection
        .query_row(&sql, [], |row| {
            Ok(DrainRow {
                by: row.get(0)?,
                since: row.get(1)?,
                deadline: row.get(2)?,
                stops: row.get(3)?,
            })
        })
        .optional()
}

/// Reads all intent. The epoch is the next one, not yet counted.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<Loaded> {
    let meta = format!("SELECT key, value FROM meta WHERE {}", sums::sound("meta"));
    let meta: Vec<(String, u64)> = all(connection, &meta, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let epoch = meta.iter().find(|(key, _)| key == "epoch");
    let epoch = epoch.map_or(Some(0), |(_, epoch)| u32::try_from(*epoch).ok());
    let epoch = epoch.and_then(|epoch| epoch.checked_add(1));
    let epoch = epoch.ok_or(rusqlite::Error::InvalidQuery)?;
    let intent_seq = connection.query_row(
        "SELECT max(coalesce((SELECT value FROM meta WHERE key = 'intent_seq'), 0),
                coalesce((SELECT max(max(wish_seq, restart_seq, revision)) FROM job), 0),
                coalesce((SELECT max(max(wish_seq, restart_seq)) FROM instance_wish), 0),
                coalesce((SELECT max(seq) FROM reload), 0),
                coalesce((SELECT max(n) FROM one_off), 0))",
        [],
        |row| row.get(0),
    )?;
    let (hooks, outbox_newest) = super::outbox::load(connection)?;
    Ok(Loaded {
        epoch,
        intent_seq,
        jobs: jobs(connection)?,
        wishes: wishes(connection)?,
        reloads: reloads(connection)?,
        one_offs: one_offs(connection)?,
        pids: PidsKept {
            bases: numbers(connection, "pids.")?.into_iter().collect(),
            highest: numbers(connection, "runs.")?
                .into_iter()
                .map(|(epoch, n)| (epoch, u32::try_from(n).unwrap_or(u32::MAX)))
                .collect(),
        },
        tasks: objects(connection, "task")?,
        latest: latest(connection)?,
        queues: objects(connection, "queue")?,
        queue_stores: queue_stores(connection)?,
        queue_scales: queue_scales(connection)?,
        schedules: objects(connection, "schedule")?,
        hooks,
        outbox_newest,
        drain: drain(connection)?,
    })
}

/// What a file defined before it was applied last.
pub(super) fn previous(connection: &Connection, file: &str) -> rusqlite::Result<Option<String>> {
    let sql = format!(
        "SELECT spec FROM previous WHERE file = ?1 AND {}",
        sums::sound("previous")
    );
    connection.query_row(&sql, [file], |row| row.get(0)).optional()
}

/// Objects that files define, of one table.
fn objects(connection: &Connection, table: &str) -> rusqlite::Result<Vec<TaskRow>> {
    let sound = sums::sound(table);
    let sql = format!("SELECT session, name, file, spec FROM {table} WHERE {sound}");
    all(connection, &sql, |row| {
        Ok(TaskRow {
            session: row.get(0)?,
            name: row.get(1)?,
            file: row.get(2)?,
            spec: row.get(3)?,
        })
    })
}

/// Numbers of the stores that queues name.
fn queue_stores(connection: &Connection) -> rusqlite::Result<Vec<(u16, String)>> {
    let sound = sums::sound("queue_store");
    let sql = format!("SELECT number, name FROM queue_store WHERE {sound}");
    all(connection, &sql, |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Workers of queues that operators want: session, queue, number.
fn queue_scales(connection: &Connection) -> rusqlite::Result<Vec<(String, String, u32)>> {
    let sound = sums::sound("queue_scale");
    let sql = format!("SELECT session, name, workers FROM queue_scale WHERE {sound}");
    all(connection, &sql, |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })
}

/// Numbers that are kept by epoch under one name.
fn numbers(connection: &Connection, name: &str) -> rusqlite::Result<Vec<(u32, u64)>> {
    let sql = format!(
        "SELECT key, value FROM meta WHERE key >= ?1 AND {}",
        sums::sound("meta")
    );
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map([name], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
    let mut numbers = Vec::new();
    for row in rows {
        let (key, value) = row?;
        if let Some(epoch) = key.strip_prefix(name).and_then(|epoch| epoch.parse().ok()) {
            numbers.push((epoch, value));
        }
    }
    Ok(numbers)
}

fn jobs(connection: &Connection) -> rusqlite::Result<Vec<JobRow>> {
    let sql = format!(
        "SELECT session, job, spec, file, line, revision, wish, wish_seq, restart_seq, scaled, changed_by
               FROM job WHERE {} ORDER BY session, job",
        sums::sound("job")
    );
    all(connection, &sql, |row| {
        Ok(JobRow {
            session: row.get(0)?,
            job: row.get(1)?,
            spec: row.get(2)?,
            file: row.get(3)?,
            line: row.get(4)?,
            revision: row.get(5)?,
            wish: row.get(6)?,
            wish_seq: row.get(7)?,
            restart_seq: row.get(8)?,
            scaled: row.get(9)?,
            changed_by: row.get(10)?,
        })
    })
}

fn wishes(connection: &Connection) -> rusqlite::Result<Vec<WishRow>> {
    let sql = format!(
        "SELECT session, job, instance, wish, wish_seq, restart_seq FROM instance_wish WHERE {} ORDER BY 1, 2, 3",
        sums::sound("instance_wish")
    );
    all(connection, &sql, |row| {
        Ok(WishRow {
            session: row.get(0)?,
            job: row.get(1)?,
            instance: row.get(2)?,
            wish: row.get(3)?,
            wish_seq: row.get(4)?,
            restart_seq: row.get(5)?,
        })
    })
}

fn reloads(connection: &Connection) -> rusqlite::Result<Vec<ReloadRow>> {
    let sql = format!(
        "SELECT session, job, instance, seq, how, asked_by FROM reload WHERE {} ORDER BY seq",
        sums::sound("reload")
    );
    all(connection, &sql, |row| {
        Ok(ReloadRow {
            session: row.get(0)?,
            job: row.get(1)?,
            instance: row.get(2)?,
            seq: row.get(3)?,
            how: row.get(4)?,
            by: row.get(5)?,
        })
    })
}

fn one_offs(connection: &Connection) -> rusqlite::Result<Vec<OneOffRow>> {
    let sql = format!(
        "SELECT session, job, n, request FROM one_off WHERE {} ORDER BY 1, 2, 3",
        sums::sound("one_off")
    );
    all(connection, &sql, |row| {
        Ok(OneOffRow {
            session: row.get(0)?,
            job: row.get(1)?,
            n: row.get(2)?,
            request: row.get(3)?,
        })
    })
}

fn all<T>(
    connection: &Connection,
    sql: &str,
    map: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare(sql)?.query_map([], map)?.collect()
}

pub(super) fn job_spec(c: &Connection, session: &str, job: &str) -> rusqlite::Result<Option<String>> {
    let sound = sums::sound("job");
    c.prepare_cached(&format!(
        "SELECT spec FROM job WHERE session = ?1 AND job = ?2 AND {sound}"
    ))?
    .query_row(params![session, job], |row| row.get(0))
    .optional()
}

pub(super) fn job_specs(c: &Connection) -> rusqlite::Result<Vec<(String, String, String)>> {
    let sql = format!("SELECT session, job, spec FROM job WHERE {}", sums::sound("job"));
    all(c, &sql, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
}

/// Above every run id.
pub(super) const NEWEST: (u32, u32) = (u32::MAX, u32::MAX);

const RUN_COLUMNS: &str = "epoch, n, slot, session, job, attempt, pid, started, ended, lived_ms, status, cause, \
                           reason_code, reason, rusage, logs";

fn run_row(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    Ok(RunRow {
        epoch: row.get(0)?,
        n: row.get(1)?,
        slot: row.get(2)?,
        session: row.get(3)?,
        job: row.get(4)?,
        attempt: row.get(5)?,
        pid: row.get(6)?,
        started: row.get(7)?,
        ended: row.get(8)?,
        lived_ms: row.get(9)?,
        status: row.get(10)?,
        cause: row.get(11)?,
        reason_code: row.get(12)?,
        reason: row.get(13)?,
        rusage: row.get(14)?,
        logs: row.get(15)?,
    })
}

/// Of these slots, or of all of the job; of runs with an id below `before`.
pub(super) fn deaths(
    c: &Connection,
    session: &str,
    job: &str,
    slots: &[String],
    before: (u32, u32),
    limit: usize,
) -> rusqlite::Result<Vec<RunRow>> {
    let limit_i64 = i64::try_from(limit).unwrap_or(i64::MAX);
    if slots.is_empty() {
        return runs(
            c,
            "session = ?1 AND job = ?2 AND (epoch, n) < (?3, ?4) ORDER BY epoch DESC, n DESC LIMIT ?5",
            params![session, job, before.0, before.1, limit_i64],
        );
    }
    let mut rows = Vec::new();
    for slot in slots {
        rows.extend(of_slot(c, slot, before, limit)?);
    }
    rows.sort_by_key(|row| std::cmp::Reverse((row.epoch, row.n)));
    rows.truncate(limit);
    Ok(rows)
}

fn of_slot(c: &Connection, slot: &str, before: (u32, u32), limit: usize) -> rusqlite::Result<Vec<RunRow>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    runs(
        c,
        "slot = ?1 AND (epoch, n) < (?2, ?3) ORDER BY epoch DESC, n DESC LIMIT ?4",
        params![slot, before.0, before.1, limit],
    )
}

fn runs(c: &Connection, which: &str, params: impl rusqlite::Params) -> rusqlite::Result<Vec<RunRow>> {
    let sound = sums::sound("run");
    c.prepare_cached(&format!(
        "SELECT {RUN_COLUMNS} FROM run WHERE {sound} AND {which}"
    ))?
    .query_map(params, run_row)?
    .collect()
}

pub(super) fn run(c: &Connection, epoch: u32, n: u32) -> rusqlite::Result<Option<RunRow>> {
    Ok(runs(c, "epoch = ?1 AND n = ?2", params![epoch, n])?.pop())
}

pub(super) fn runs_by_prefix(c: &Connection, prefix: &str) -> rusqlite::Result<Vec<(u32, u32)>> {
    c.prepare_cached("SELECT epoch, n FROM run WHERE id >= ?1 AND id < ?1 || '~' ORDER BY id LIMIT 11")?
        .query_map(params![prefix], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

pub(super) fn recent_deaths(c: &Connection, per_slot: usize) -> rusqlite::Result<Vec<RunRow>> {
    let slots: Vec<String> = all(c, "SELECT DISTINCT slot FROM run", |row| row.get(0))?;
    let mut rows = Vec::new();
    for slot in slots {
        rows.extend(of_slot(c, &slot, NEWEST, per_slot)?);
    }
    rows.sort_by_key(|row| (row.epoch, row.n));
    Ok(rows)
}
