//! The file: its lock, its tables, its versions.

use crate::port::StoreError;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A store of this very program is waited for so long.
const OUR_OWN: Duration = Duration::from_secs(2);

/// Numbers are never reused; a migration is never edited once released.
const MIGRATIONS: &[&str] = &[
    // 1: the first. `INSERT INTO task (queue, kind, payload) VALUES (…)` is all that another program has to say, and its SQLite may be
    // an old one: `unixepoch('subsec')` would be null there.
    "CREATE TABLE task (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        queue TEXT NOT NULL, kind TEXT, payload TEXT NOT NULL DEFAULT 'null',
        priority INTEGER NOT NULL DEFAULT 0, rank INTEGER NOT NULL DEFAULT 0,
        state TEXT NOT NULL DEFAULT 'queued', run_at INTEGER,
        attempt INTEGER NOT NULL DEFAULT 0, max_attempts INTEGER,
        crashes INTEGER NOT NULL DEFAULT 0, interrupts INTEGER NOT NULL DEFAULT 0,
        unique_key TEXT, unique_hold TEXT, hold_running INTEGER NOT NULL DEFAULT 0, hold_done INTEGER,
        limit_key TEXT, timeout_ms INTEGER,
        lease_owner TEXT, lease_until INTEGER, lease_token INTEGER NOT NULL DEFAULT 0,
        cancel INTEGER NOT NULL DEFAULT 0,
        created_at INTEGER NOT NULL DEFAULT (CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)),
        started_at INTEGER, finished_at INTEGER,
        last_error TEXT, result TEXT, result_until INTEGER,
        begin_by INTEGER, expires_at INTEGER, meta TEXT);
     CREATE INDEX task_ready ON task (queue, rank, id) WHERE state = 'queued';
     CREATE INDEX task_due ON task (run_at) WHERE state = 'scheduled';
     CREATE INDEX task_leases ON task (lease_until) WHERE state = 'running';
     CREATE INDEX task_running ON task (queue, limit_key, kind) WHERE state = 'running';
     CREATE INDEX task_dead ON task (queue, id) WHERE state IN ('dead', 'lost');
     CREATE UNIQUE INDEX task_unique ON task (queue, unique_hold) WHERE unique_hold IS NOT NULL;
     CREATE INDEX task_prune ON task (expires_at) WHERE expires_at IS NOT NULL;
     CREATE TABLE attempt_log (
        task_id INTEGER NOT NULL, n INTEGER NOT NULL, attempt INTEGER NOT NULL,
        started_at INTEGER, finished_at INTEGER NOT NULL, outcome TEXT NOT NULL, error TEXT,
        PRIMARY KEY (task_id, n)) WITHOUT ROWID;
     CREATE TABLE queue_state (
        queue TEXT PRIMARY KEY, paused INTEGER NOT NULL, frozen INTEGER NOT NULL, closed INTEGER NOT NULL,
        changed_at INTEGER, changed_by TEXT NOT NULL) WITHOUT ROWID;
     CREATE TABLE bucket (
        queue TEXT NOT NULL, key TEXT NOT NULL, tokens REAL NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (queue, key)) WITHOUT ROWID;",
    // 2: how far schedules are.
    "CREATE TABLE schedule (
        name TEXT PRIMARY KEY, seen INTEGER NOT NULL, anchor INTEGER NOT NULL, paused INTEGER NOT NULL, awake INTEGER,
        changed_at INTEGER, changed_by TEXT NOT NULL, fired INTEGER, fired_at INTEGER, became TEXT, note TEXT,
        waiting INTEGER) WITHOUT ROWID;",
    // 3: results that are to go.
    "CREATE INDEX task_results ON task (result_until) WHERE result_until IS NOT NULL;",
    // 4: what was done, by the minute.
    "CREATE TABLE minute (
        queue TEXT NOT NULL, minute INTEGER NOT NULL, kind TEXT NOT NULL, begun INTEGER NOT NULL, done INTEGER NOT NULL,
        retried INTEGER NOT NULL, dead INTEGER NOT NULL, waited INTEGER NOT NULL, waited_max INTEGER NOT NULL,
        took INTEGER NOT NULL, took_max INTEGER NOT NULL, waiting INTEGER NOT NULL,
        PRIMARY KEY (queue, minute, kind)) WITHOUT ROWID;",
    // 5: rows of outboxes that were taken, and may still be there.
    "CREATE TABLE outbox (source TEXT PRIMARY KEY, ids TEXT NOT NULL) WITHOUT ROWID;",
    // 6: what was given up lately is found without the rest.
    "DROP INDEX task_dead;
     CREATE INDEX task_dead ON task (queue, finished_at) WHERE state IN ('dead', 'lost');",
];

/// The lock of the one process that may lead a file. It holds the pid of that process for whoever comes second.
pub(super) fn lock(path: &Path) -> Result<std::fs::File, StoreError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push("-owner");
    let beside = Path::new(&beside);
    let cannot = |error: std::io::Error| StoreError::Unavailable(format!("{}: {error}", beside.display()));
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(beside)
        .map_err(cannot)?;
    let since = Instant::now();
    while rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        file.rewind().map_err(cannot)?;
        file.read_to_string(&mut pid).map_err(cannot)?;
        // One of this program that was dropped may still be writing what is pending.
        if pid.trim() == std::process::id().to_string() && since.elapsed() < OUR_OWN {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        return Err(StoreError::Unavailable(format!(
            "{} is led by another process, pid {}: one daemon at a time",
            path.display(),
            pid.trim()
        )));
    }
    file.set_len(0).map_err(cannot)?;
    file.rewind().map_err(cannot)?;
    writeln!(file, "{}", std::process::id()).map_err(cannot)?;
    Ok(file)
}

/// Its last leader left a log: an orderly end leaves none, or an empty one.
fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(Path::new(&log)).is_ok_and(|log| log.len() > 0)
}

/// Opens or makes the file and brings it to this version. One that was not closed is checked first: whatever ended its last leader may
/// have ended the machine too.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let damaged = |what: &str| {
        StoreError::Unavailable(format!(
            "{}: {what}; it is left as it is: restore a copy, or move it away to begin anew",
            path.display()
        ))
    };
    let unreadable = |error: rusqlite::Error| damaged(&error.to_string());
    let was_closed = !has_log(path);
    if !path.exists() {
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| StoreError::Unavailable(format!("{}: {error}", path.display())))?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(unreadable)?;
    connection.set_prepared_statement_cache_capacity(48);
    connection
        .busy_timeout(std::time::Duration::from_secs(5))
        .map_err(unreadable)?;
    let found: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(unreadable)?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(StoreError::Newer(format!(
            "{}: written by a newer version (schema {found}, this one knows {known}): start that version again",
            path.display()
        )));
    }
    if found > 0 && !was_closed {
        // Refused, it keeps its log beside it.
        let keep_log = |on| connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, on);
        keep_log(true).map_err(unreadable)?;
        let verdict: String = connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(unreadable)?;
        if verdict != "ok" {
            return Err(damaged(verdict.trim()));
        }
        keep_log(false).map_err(unreadable)?;
    }
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA cache_size = -4096; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY;
             PRAGMA wal_autocheckpoint = 1000; PRAGMA journal_size_limit = 4194304;",
        )
        .map_err(unreadable)?;
    for (number, sql) in (1i64..).zip(MIGRATIONS) {
        if number > found {
            let transaction = connection.transaction().map_err(unreadable)?;
            transaction.execute_batch(sql).map_err(unreadable)?;
            transaction
                .pragma_update(None, "user_version", number)
                .map_err(unreadable)?;
            transaction.commit().map_err(unreadable)?;
        }
    }
    Ok(connection)
}

/// A second connection, for statements that only look.
pub(super) fn open_for_reads(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(super::failed)?;
    connection
        .busy_timeout(std::time::Duration::from_secs(5))
        .map_err(super::failed)?;
    connection
        .execute_batch("PRAGMA cache_size = -512; PRAGMA mmap_size = 0;")
        .map_err(super::failed)?;
    Ok(connection)
}
