//! Numbered migrations, each in one transaction; `user_version` says how far a file is.

use super::StoreError;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Numbers are never reused; a migration is never edited once released.
const MIGRATIONS: &[&str] = &[
    // 1: the first.
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
     CREATE TABLE job (
        session TEXT NOT NULL, job TEXT NOT NULL,
        spec TEXT NOT NULL, file TEXT, line INTEGER, revision INTEGER NOT NULL,
        wish TEXT NOT NULL, wish_seq INTEGER NOT NULL, restart_seq INTEGER NOT NULL,
        scaled INTEGER, changed_by TEXT NOT NULL,
        PRIMARY KEY (session, job)) WITHOUT ROWID;
     CREATE TABLE instance_wish (
        session TEXT NOT NULL, job TEXT NOT NULL, instance INTEGER NOT NULL,
        wish TEXT NOT NULL, wish_seq INTEGER NOT NULL, restart_seq INTEGER NOT NULL,
        PRIMARY KEY (session, job, instance)) WITHOUT ROWID;
     CREATE TABLE reload (
        session TEXT NOT NULL, job TEXT NOT NULL, instance INTEGER NOT NULL,
        seq INTEGER NOT NULL, how TEXT, asked_by TEXT NOT NULL,
        PRIMARY KEY (session, job, instance)) WITHOUT ROWID;
     CREATE TABLE one_off (
        session TEXT NOT NULL, job TEXT NOT NULL, n INTEGER NOT NULL,
        request TEXT NOT NULL,
        PRIMARY KEY (session, job, n)) WITHOUT ROWID;
     CREATE TABLE run (
        epoch INTEGER NOT NULL, n INTEGER NOT NULL, id TEXT NOT NULL,
        session TEXT NOT NULL, job TEXT NOT NULL, slot TEXT NOT NULL,
        attempt INTEGER NOT NULL, pid INTEGER,
        started INTEGER, ended INTEGER NOT NULL, lived_ms INTEGER,
        status TEXT, cause TEXT NOT NULL, reason_code TEXT NOT NULL, reason TEXT NOT NULL,
        rusage TEXT, logs TEXT NOT NULL,
        PRIMARY KEY (epoch, n)) WITHOUT ROWID;
     CREATE INDEX run_by_job ON run (session, job, epoch, n);
     CREATE INDEX run_by_slot ON run (slot, epoch, n);
     CREATE INDEX run_by_id ON run (id);",
    // 2: a checksum in every row.
    "ALTER TABLE meta ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE job ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE instance_wish ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE reload ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE one_off ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE run ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
     UPDATE meta SET sum = row_sum(key, value);
     UPDATE job SET sum = row_sum(session, job, spec, file, line, revision, wish, wish_seq, restart_seq, scaled, changed_by);
     UPDATE instance_wish SET sum = row_sum(session, job, instance, wish, wish_seq, restart_seq);
     UPDATE reload SET sum = row_sum(session, job, instance, seq, how, asked_by);
     UPDATE one_off SET sum = row_sum(session, job, n, request);
     UPDATE run SET sum = row_sum(epoch, n, id, session, job, slot, attempt, pid, started, ended, lived_ms, status, cause,
        reason_code, reason, rusage, logs);",
    // 3: webhooks.
    "CREATE TABLE webhook (
        session TEXT NOT NULL, name TEXT NOT NULL, file TEXT NOT NULL, spec TEXT NOT NULL,
        PRIMARY KEY (session, name)) WITHOUT ROWID;
     CREATE TABLE outbox (n INTEGER PRIMARY KEY, hook TEXT NOT NULL, event TEXT NOT NULL, attempts INTEGER NOT NULL);
     CREATE INDEX outbox_by_hook ON outbox (hook, n);
     CREATE TABLE promised (n INTEGER PRIMARY KEY, seq INTEGER NOT NULL, hook TEXT NOT NULL, event TEXT NOT NULL);
     CREATE TABLE start_told (epoch INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (epoch, n)) WITHOUT ROWID;
     CREATE TABLE death_told (epoch INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (epoch, n)) WITHOUT ROWID;
     CREATE TABLE delivery (
        place INTEGER PRIMARY KEY AUTOINCREMENT, hook TEXT NOT NULL, id TEXT NOT NULL, event TEXT NOT NULL,
        attempt INTEGER NOT NULL, at INTEGER NOT NULL, took_ms INTEGER NOT NULL, status INTEGER, error TEXT);
     CREATE INDEX delivery_by_hook ON delivery (hook, place);
     CREATE TABLE hook_count (
        hook TEXT PRIMARY KEY, delivered INTEGER NOT NULL, given_up INTEGER NOT NULL, dropped INTEGER NOT NULL)
        WITHOUT ROWID;",
    // 4: tasks of files.
    "CREATE TABLE task (
        session TEXT NOT NULL, name TEXT NOT NULL, file TEXT NOT NULL, spec TEXT NOT NULL, sum INTEGER NOT NULL,
        PRIMARY KEY (session, name)) WITHOUT ROWID;
     CREATE INDEX task_by_file ON task (file);",
    // 5: what a file defined before it was applied last.
    "CREATE TABLE previous (file TEXT PRIMARY KEY, spec TEXT NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;",
    // 6: queues of files. Their tasks are in a file of their own.
    "CREATE TABLE queue (
        session TEXT NOT NULL, name TEXT NOT NULL, file TEXT NOT NULL, spec TEXT NOT NULL, sum INTEGER NOT NULL,
        PRIMARY KEY (session, name)) WITHOUT ROWID;
     CREATE INDEX queue_by_file ON queue (file);",
    // 7: schedules of files. How far they are is beside the queues' tasks.
    "CREATE TABLE schedule (
        session TEXT NOT NULL, name TEXT NOT NULL, file TEXT NOT NULL, spec TEXT NOT NULL, sum INTEGER NOT NULL,
        PRIMARY KEY (session, name)) WITHOUT ROWID;
     CREATE INDEX schedule_by_file ON schedule (file);",
    // 8: newest runs of tasks that something waits for, or that start by themselves.
    "CREATE TABLE task_latest (
        session TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, run TEXT NOT NULL, at INTEGER NOT NULL,
        accepted INTEGER NOT NULL, state TEXT, ended INTEGER, sum INTEGER NOT NULL,
        PRIMARY KEY (session, name)) WITHOUT ROWID;",
    // 9: a node that is drained.
    "CREATE TABLE drain (
        one INTEGER PRIMARY KEY, asked_by TEXT NOT NULL, since INTEGER NOT NULL, deadline INTEGER,
        stops INTEGER NOT NULL, sum INTEGER NOT NULL);",
    // 10: a checksum in every row of webhooks.
    "ALTER TABLE webhook ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE outbox ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE promised ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE start_told ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE death_told ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE delivery ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE hook_count ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
     UPDATE webhook SET sum = row_sum(session, name, file, spec);
     UPDATE outbox SET sum = row_sum(n, hook, event, attempts);
     UPDATE promised SET sum = row_sum(n, seq, hook, event);
     UPDATE start_told SET sum = row_sum(epoch, n);
     UPDATE death_told SET sum = row_sum(epoch, n);
     UPDATE delivery SET sum = row_sum(hook, id, event, attempt, at, took_ms, status, error);
     UPDATE hook_count SET sum = row_sum(hook, delivered, given_up, dropped);",
    // 11: numbers of the stores that queues name.
    "CREATE TABLE queue_store (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, sum INTEGER NOT NULL);",
    // 12: workers of queues that operators want.
    "CREATE TABLE queue_scale (
        session TEXT NOT NULL, name TEXT NOT NULL, workers INTEGER NOT NULL, sum INTEGER NOT NULL,
        PRIMARY KEY (session, name)) WITHOUT ROWID;",
];

/// Opens or makes the file and brings it to this version.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    // SQLite would make it with the umask of the moment; state is private at creation.
    if !path.exists() {
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| StoreError::Failed(format!("{}: {error}", path.display())))?;
    }
    let unreadable = |error: rusqlite::Error| StoreError::Unreadable {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(unreadable)?;
    connection.set_prepared_statement_cache_capacity(16);
    // A file that is refused is left as it is, with the log beside it.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(unreadable)?;
    super::sums::register(&connection)?;
    let found: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(unreadable)?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known,
        });
    }
    if found > 0 {
        let verdict: String = connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(unreadable)?;
        if verdict != "ok" {
            return Err(StoreError::Unreadable {
                path: path.to_owned(),
                reason: verdict,
            });
        }
    }
    // A small cache and no mapping: a supervisor with a thousand idle jobs should rest in a few MiB.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -256;
         PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 1000;",
    )?;
    for (number, sql) in (1i64..).zip(MIGRATIONS) {
        if number > found {
            let transaction = connection.transaction()?;
            transaction.execute_batch(sql)?;
            transaction.pragma_update(None, "user_version", number)?;
            transaction.commit()?;
        }
    }
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_of_a_newer_version_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("gaffer.db");
        open(&path)
            .expect("new store")
            .pragma_update(None, "user_version", 999)
            .expect("pragma");
        let error = open(&path).expect_err("newer");
        assert!(matches!(error, StoreError::Newer { found: 999, .. }), "{error}");
    }

    #[test]
    fn rows_of_a_store_without_sums_get_them() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("gaffer.db");
        let old = Connection::open(&path).expect("a store");
        old.execute_batch(MIGRATIONS[0]).expect("version 1");
        old.execute_batch(
            "INSERT INTO meta VALUES ('epoch', 7);
             INSERT INTO job VALUES ('default', 'web', '{}', NULL, NULL, 1, 'up', 2, 0, NULL, 'root');
             PRAGMA user_version = 1;",
        )
        .expect("rows");
        drop(old);
        let connection = open(&path).expect("brought forward");
        super::super::sums::check(&connection).expect("every row has its sum");
    }

    #[test]
    fn hazard_41_a_damaged_store_is_refused_and_never_written_over() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("gaffer.db");
        let connection = open(&path).expect("new store");
        connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .expect("one file");
        drop(connection);
        let mut bytes = std::fs::read(&path).expect("read");
        for byte in bytes.iter_mut().skip(100).take(2000) {
            *byte ^= 0x5a;
        }
        std::fs::write(&path, &bytes).expect("write");
        assert!(matches!(open(&path), Err(StoreError::Unreadable { .. })));
        assert_eq!(
            std::fs::read(&path).expect("read"),
            bytes,
            "the damaged file was touched"
        );
    }

    #[test]
    fn the_file_is_private_from_its_first_moment() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("gaffer.db");
        drop(open(&path).expect("new store"));
        assert_eq!(
            std::fs::metadata(&path).expect("metadata").permissions().mode() & 0o777,
            0o600
        );
    }
}
