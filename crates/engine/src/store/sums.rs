//! Checksums of rows: what SQLite cannot know of a flipped byte within a text.
//!
//! Every table has a column `sum` over all its other columns. It is written with the row, by SQL, and every query that reads
//! rows asks for [`sound`] ones, which fails with the name of the row that is not.

use gaffer_shim::frame::crc32c;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error};

/// Tables with the columns that the sum is over; the first `keys` of them name a row.
const TABLES: &[(&str, usize, &str)] = &[
    ("meta", 1, "key, value"),
    (
        "job",
        2,
        "session, job, spec, file, line, revision, wish, wish_seq, restart_seq, scaled, changed_by",
    ),
    ("task", 2, "session, name, file, spec"),
    (
        "task_latest",
        2,
        "session, name, digest, run, at, accepted, state, ended",
    ),
    ("queue", 2, "session, name, file, spec"),
    ("schedule", 2, "session, name, file, spec"),
    ("previous", 1, "file, spec"),
    ("queue_store", 1, "number, name"),
    ("queue_scale", 2, "session, name, workers"),
    ("drain", 1, "one, asked_by, since, deadline, stops"),
    ("webhook", 2, "session, name, file, spec"),
    ("outbox", 1, "n, hook, event, attempts"),
    ("promised", 1, "n, seq, hook, event"),
    ("start_told", 2, "epoch, n"),
    ("death_told", 2, "epoch, n"),
    (
        "delivery",
        2,
        "hook, id, event, attempt, at, took_ms, status, error",
    ),
    ("hook_count", 1, "hook, delivered, given_up, dropped"),
    (
        "instance_wish",
        3,
        "session, job, instance, wish, wish_seq, restart_seq",
    ),
    ("reload", 3, "session, job, instance, seq, how, asked_by"),
    ("one_off", 3, "session, job, n, request"),
    (
        "run",
        2,
        "epoch, n, id, session, job, slot, attempt, pid, started, ended, lived_ms, status, cause, reason_code, reason, \
         rusage, logs",
    ),
];

fn table(name: &str) -> Option<&'static (&'static str, usize, &'static str)> {
    TABLES.iter().find(|(table, ..)| *table == name)
}

/// A condition: the row is as it was written.
pub(super) fn sound(name: &str) -> String {
    let columns = table(name).map_or("", |(_, _, columns)| columns);
    format!("row_sound('{name}', sum, {columns})")
}

/// The sum of a row, in terms of its columns.
pub(super) fn sum(name: &str) -> String {
    let columns = table(name).map_or("", |(_, _, columns)| columns);
    format!("row_sum({columns})")
}

/// Gives SQL the functions `row_sum(columns…)` and `row_sound(table, sum, columns…)`.
pub(super) fn register(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("row_sum", -1, flags, |context| Ok(of(context, 0)))?;
    connection.create_scalar_function("row_sound", -1, flags, |context| {
        if context.get_raw(1).as_i64() == Ok(of(context, 2)) {
            return Ok(true);
        }
        let name: String = context.get(0)?;
        let keys = table(&name).map_or(0, |(_, keys, _)| *keys);
        let keys: Vec<String> = (2..2 + keys).map(|at| text(context.get_raw(at))).collect();
        let text = format!("row {} of table {name} is not as it was written", keys.join(" "));
        Err(Error::UserFunctionError(text.into()))
    })
}

/// All rows of all tables; an error names the first that is damaged.
pub(super) fn check(connection: &Connection) -> rusqlite::Result<()> {
    for (name, ..) in TABLES {
        let sql = format!("SELECT count(*) FROM {name} WHERE {}", sound(name));
        let _rows: i64 = connection.query_row(&sql, [], |row| row.get(0))?;
    }
    Ok(())
}

/// Over kind, length and bytes of every value from the `first` on.
fn of(context: &Context<'_>, first: usize) -> i64 {
    let mut bytes = Vec::with_capacity(512);
    for at in first..context.len() {
        match context.get_raw(at) {
            ValueRef::Null => bytes.push(0),
            ValueRef::Integer(value) => {
                bytes.push(1);
                bytes.extend_from_slice(&value.to_le_bytes());
            }
            ValueRef::Real(value) => {
                bytes.push(2);
                bytes.extend_from_slice(&value.to_le_bytes());
            }
            ValueRef::Text(value) | ValueRef::Blob(value) => {
                bytes.push(if matches!(context.get_raw(at), ValueRef::Text(_)) {
                    3
                } else {
                    4
                });
                bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
                bytes.extend_from_slice(value);
            }
        }
    }
    i64::from(crc32c(&bytes))
}

fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Integer(value) => value.to_string(),
        ValueRef::Text(value) => String::from_utf8_lossy(value).escape_default().to_string(),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::write::{self, Change, Settled};
    use super::super::{
        Delivery, DrainRow, Fate, HookRow, LatestRow, OutboxChange, OutboxRow, RunRow, TaskRow, read, schema,
    };
    use super::*;
    use std::path::Path;

    fn changes() -> Vec<Change> {
        let (session, job) = ("default".to_owned(), "web".to_owned());
        let by = "root".to_owned();
        vec![
            Change::JobPut {
                session: session.clone(),
                job: job.clone(),
                spec: r#"{"cmd": ["serve", "--port", "8000"], "env": {"MODE": "live"}}"#.to_owned(),
                file: Some("/srv/gaffer.toml".to_owned()),
                line: Some(12),
                revision: 3,
                wish: "up",
                seq: 4,
                by: by.clone(),
            },
            Change::JobScale {
                session: session.clone(),
                job: job.clone(),
                to: Some(2),
            },
            Change::JobWish {
                session: session.clone(),
                job: job.clone(),
                wish: "up",
                wish_seq: 5,
                restart_seq: 6,
                by: by.clone(),
            },
            Change::InstanceWish {
                session: session.clone(),
                job: job.clone(),
                instance: 2,
                wish: "down",
                wish_seq: 7,
                restart_seq: 0,
            },
            Change::Reload {
                session: session.clone(),
                job: job.clone(),
                instance: 0,
                seq: 8,
                how: Some("rolling"),
                by,
            },
            Change::OneOffPut {
                session: session.clone(),
                job,
                n: 9,
                request: r#"{"cmd": ["migrate"]}"#.to_owned(),
            },
            tasks(session.clone()),
            latest(session.clone()),
            queues(session.clone()),
            schedules(session),
            Change::Previous {
                file: "/srv/gaffer.toml".to_owned(),
                spec: r#"{"jobs": {"default.web": {"cmd": ["serve"]}}}"#.to_owned(),
            },
            Change::Drain(Some(DrainRow {
                by: "ana".to_owned(),
                since: 1_700_000_000_000,
                deadline: Some(1_700_000_600_000),
                stops: true,
            })),
        ]
    }

    /// What is kept of queues beside their definitions.
    fn of_queues() -> Vec<Change> {
        vec![
            Change::QueueStore {
                number: 1,
                name: "postgres://db.example:5432/queue".to_owned(),
            },
            Change::QueueScale {
                session: "default".to_owned(),
                name: "thumbs".to_owned(),
                to: Some(3),
            },
        ]
    }

    /// Something in each table of webhooks.
    fn hooks() -> Vec<Change> {
        let row = |n: u64| OutboxRow {
            n,
            hook: "default.ops".to_owned(),
            event: format!(r#"{{"event": "run.exited", "n": {n}}}"#),
            attempts: 0,
        };
        let attempted = |n, fate| OutboxChange::Attempted {
            hook: "default.ops".to_owned(),
            n,
            delivery: Some(Delivery {
                id: format!("1.{n}"),
                event: "run.exited".to_owned(),
                attempt: 1,
                at: 1_700_000_002_000,
                took_ms: 12,
                status: Some(503),
                error: Some("not today".to_owned()),
            }),
            fate,
        };
        let all = vec![
            OutboxChange::Webhooks {
                file: "/srv/gaffer.toml".to_owned(),
                rows: vec![HookRow {
                    session: "default".to_owned(),
                    name: "ops".to_owned(),
                    file: "/srv/gaffer.toml".to_owned(),
                    spec: r#"{"url": "https://ops.example"}"#.to_owned(),
                }],
            },
            OutboxChange::Promise {
                seq: 10,
                rows: vec![row(1)],
            },
            OutboxChange::Put {
                kept: None,
                rows: vec![row(2), row(3)],
            },
            OutboxChange::Started {
                epoch: 1,
                n: 9,
                rows: Vec::new(),
            },
            attempted(2, Fate::Again),
            attempted(3, Fate::Delivered),
        ];
        all.into_iter().map(Change::Outbox).collect()
    }

    fn tasks(session: String) -> Change {
        let row = TaskRow {
            session,
            name: "nightly".to_owned(),
            file: "/srv/gaffer.toml".to_owned(),
            spec: r#"{"step": {"nightly": {"cmd": ["backup"]}}}"#.to_owned(),
        };
        Change::Tasks {
            file: row.file.clone(),
            rows: vec![row],
        }
    }

    fn latest(session: String) -> Change {
        Change::Latest {
            row: LatestRow {
                session,
                name: "nightly".to_owned(),
                digest: "0123456789abcdef".to_owned(),
                run: "nightly-1".to_owned(),
                at: 1,
                accepted: true,
                state: Some("success".to_owned()),
                ended: Some(2),
            },
            same: true,
        }
    }

    fn queues(session: String) -> Change {
        let row = TaskRow {
            session,
            name: "thumbs".to_owned(),
            file: "/srv/gaffer.toml".to_owned(),
            spec: r#"{"cmd": ["thumbs"]}"#.to_owned(),
        };
        Change::Queues {
            file: row.file.clone(),
            rows: vec![row],
        }
    }

    fn schedules(session: String) -> Change {
        let row = TaskRow {
            session,
            name: "hourly".to_owned(),
            file: "/srv/gaffer.toml".to_owned(),
            spec: r#"{"every": "1h", "task": "nightly"}"#.to_owned(),
        };
        Change::Schedules {
            file: row.file.clone(),
            rows: vec![row],
        }
    }

    fn death(n: u32) -> Settled {
        Settled {
            id: format!("111{n}"),
            tell: None,
            row: RunRow {
                epoch: 1,
                n,
                slot: "default/web/1".to_owned(),
                session: "default".to_owned(),
                job: "web".to_owned(),
                attempt: 1,
                pid: Some(4711),
                started: Some(1_700_000_000_000),
                ended: 1_700_000_001_000,
                lived_ms: Some(1000),
                status: Some("signal:9".to_owned()),
                cause: "exit".to_owned(),
                reason_code: "killed".to_owned(),
                reason: "ended by SIGKILL".to_owned(),
                rusage: None,
                logs: r#"{"stdout": [0, 100]}"#.to_owned(),
            },
        }
    }

    /// A store with something in every table, in one file.
    fn fill(path: &Path) {
        let mut connection = schema::open(path).expect("a store");
        write::put_meta(&connection, "epoch", 1).expect("written");
        let (reply, mut outcome) = tokio::sync::oneshot::channel();
        write::commit_intents(
            &mut connection,
            vec![([changes(), of_queues(), hooks()].concat(), reply)],
        );
        outcome.try_recv().expect("an outcome").expect("written");
        let told = "INSERT INTO death_told VALUES (1, 7, row_sum(1, 7))";
        connection.execute(told, []).expect("written");
        write::commit_facts(&mut connection, &[death(1), death(2)], &[]).expect("written");
        connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .expect("one file");
    }

    /// Everything that is in it, if nobody notices any damage: neither the start, nor a reader, nor `doctor`.
    fn contents(path: &Path) -> Result<Vec<String>, String> {
        let connection = schema::open(path).map_err(|error| error.to_string())?;
        let all = || -> rusqlite::Result<Vec<String>> {
            read::load(&connection)?;
            check(&connection)?;
            let verdict: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
            if verdict != "ok" {
                return Err(Error::UserFunctionError(verdict.into()));
            }
            let mut all = Vec::new();
            for (name, _, columns) in TABLES {
                let mut rows = connection.prepare(&format!("SELECT {columns} FROM {name}"))?;
                let width = rows.column_count();
                let rows = rows.query_map([], |row| {
                    let values = (0..width).map(|at| row.get_ref(at).map(|value| format!("{value:?}")));
                    values.collect::<Result<Vec<_>, _>>()
                })?;
                for row in rows {
                    all.push(format!("{name} {}", row?.join(" ")));
                }
            }
            Ok(all)
        };
        all().map_err(|error| error.to_string())
    }

    #[test]
    fn hazard_41_a_flipped_byte_anywhere_is_noticed_or_changes_nothing_and_is_left_as_it_is() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("gaffer.db");
        fill(&path);
        let good = std::fs::read(&path).expect("the store");
        let before = contents(&path).expect("sound");
        assert!(
            TABLES
                .iter()
                .all(|(name, ..)| before.iter().any(|row| row.starts_with(name)))
        );
        let (mut noticed, mut harmless) = (0, 0);
        // Of empty space, which nobody reads, a few; of the rest every third byte, each bit of it in turn.
        let wanted = |at: usize| at.is_multiple_of(if good[at] == 0 { 97 } else { 3 });
        for at in (0..good.len()).filter(|at| wanted(*at)) {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at / 3 % 8);
            std::fs::write(&path, &bytes).expect("damaged");
            match contents(&path) {
                Err(_) => noticed += 1,
                Ok(now) => {
                    assert_eq!(now, before, "byte {at}: nobody noticed");
                    harmless += 1;
                }
            }
            assert_eq!(
                std::fs::read(&path).expect("there"),
                bytes,
                "byte {at}: written to"
            );
            for beside in ["gaffer.db-wal", "gaffer.db-shm"] {
                let _none = std::fs::remove_file(dir.path().join(beside));
            }
        }
        assert!(noticed > 500, "{noticed} noticed, {harmless} harmless");
    }

    #[test]
    fn hazard_41_a_damaged_row_is_named() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("gaffer.db");
        for (text, row) in [
            ("8000", "row default web of table job"),
            ("rolling", "row default web 0 of table reload"),
            ("migrate", "row default web 9 of table one_off"),
            ("ops.example", "row default ops of table webhook"),
            ("not today", "row default.ops 1."),
            ("SIGKILL", "row 1 2 of table run"),
        ] {
            let _none = std::fs::remove_file(&path);
            fill(&path);
            let mut bytes = std::fs::read(&path).expect("the store");
            let found = bytes
                .windows(text.len())
                .position(|window| window == text.as_bytes());
            bytes[found.expect("the text")] ^= 1;
            std::fs::write(&path, &bytes).expect("damaged");
            let said = contents(&path).expect_err("damaged");
            assert!(said.contains(row), "{text}: {said}");
        }
    }
}
