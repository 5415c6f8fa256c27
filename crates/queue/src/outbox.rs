//! Tasks that a program keeps in its own SQLite file: it writes them in the transaction that they belong to, and they are moved into
//! the store, in their order, each exactly once.
//!
//! ```sql
//! CREATE TABLE outbox (
//!     id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, kind TEXT, payload TEXT NOT NULL,
//!     priority INTEGER, run_at INTEGER, unique_key TEXT, limit_key TEXT, max_attempts INTEGER, timeout_ms INTEGER, meta TEXT);
//! ```
//!
//! The file of a snappea queue is taken as it is: it has a table `snappea_task` (`id`, `created_at`, `task_name`, `args`, `kwargs`), all of it for
//! one queue. The kind of a task is its `task_name`, its payload `{"args": […], "kwargs": {…}}`, and it keeps the time of its push.
//!
//! Three steps, and a kill between any two of them: the store takes the tasks and, in the same transaction, the numbers of
//! their rows; the rows are deleted; the numbers are forgotten. What is remembered at the beginning is deleted first. Numbers
//! must not come again (`AUTOINCREMENT`), or a new row could be taken for one that was moved.

use crate::sqlite::POLL;
use crate::watch::Watch;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Rows that are moved at once.
pub const BATCH: usize = 500;
/// Pause after something went wrong.
const AGAIN: Duration = Duration::from_secs(1);
/// What a row may say, and what is asked for if the table has no such column.
const COLUMNS: [&str; 9] = [
    "kind",
    "payload",
    "priority",
    "run_at",
    "unique_key",
    "limit_key",
    "max_attempts",
    "timeout_ms",
    "meta",
];

/// A row of an outbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its number.
    pub id: i64,
    /// What is to be done.
    pub kind: Option<String>,
    /// JSON, as far as the program is right.
    pub payload: String,
    /// Smaller runs first.
    pub priority: Option<i64>,
    /// Not before this, in milliseconds since the epoch.
    pub run_at: Option<i64>,
    /// What excludes others.
    pub unique_key: Option<String>,
    /// What it is throttled by.
    pub limit_key: Option<String>,
    /// Its own number of attempts.
    pub max_attempts: Option<i64>,
    /// Longest life of an attempt.
    pub timeout_ms: Option<i64>,
    /// Free JSON.
    pub meta: Option<String>,
    /// When it was pushed, in milliseconds since the epoch; none: now.
    pub created_at: Option<i64>,
}

/// What the store is asked for. An error is in words; it is asked again a second later.
pub trait Courier: Send {
    /// Rows that were taken last, and may still be there.
    fn moved(&self) -> Result<Vec<i64>, String>;
    /// Takes rows, all or none; `known` is what was remembered before.
    fn take(&self, rows: Vec<OutboxRow>, known: Vec<i64>) -> Result<(), String>;
    /// What is remembered is not there any more.
    fn forget(&self) -> Result<(), String>;
}

/// Moves rows of a file, as long as it is held.
pub struct Outbox {
    trouble: Arc<Mutex<Option<String>>>,
    wake: Sender<Wake>,
}

enum Wake {
    /// The kernel says that the file changed.
    Changed,
    End,
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.wake.send(Wake::End);
    }
}

impl Outbox {
    /// Rows for a queue that is known by these names. `others`: names of queues that take from the same file.
    ///
    /// # Errors
    ///
    /// There is no thread for it.
    pub fn start(
        path: &Path,
        names: Vec<String>,
        others: Vec<String>,
        courier: Box<dyn Courier>,
    ) -> std::io::Result<Outbox> {
        let (wake, woken) = channel();
        let trouble = Arc::new(Mutex::new(None));
        let mover = Mover {
            path: path.to_owned(),
            shared: others.iter().any(|other| !names.contains(other)),
            names: serde_json::Value::from(names).to_string(),
            others: serde_json::Value::from(others).to_string(),
            courier,
            open: None,
            wake: wake.clone(),
            trouble: trouble.clone(),
        };
        std::thread::Builder::new()
            .name("queue-outbox".to_owned())
            .stack_size(256 << 10)
            .spawn(move || mover.serve(&woken))?;
        Ok(Outbox { trouble, wake })
    }

    /// Why nothing is moved, in words.
    pub fn trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// An open file.
struct Open {
    connection: Connection,
    /// Device and number of the file: another one may be put in its place.
    file: (u64, u64),
    form: Form,
    /// Of its columns, those that it does not have are null.
    select: String,
    /// What was remembered, once it is known.
    known: Option<Vec<i64>>,
    /// Rows that are nobody's, in words.
    stray: Option<String>,
    version: i64,
    _watch: Watch,
}

/// Whose table it is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// Ours: a row says which queue it is for.
    Outbox,
    /// A table of snappea, by its name.
    Snappea(&'static str),
}

impl Form {
    fn table(&self) -> &'static str {
        match self {
            Form::Outbox => "outbox",
            Form::Snappea(table) => table,
        }
    }
}

/// What there is to do after a look.
enum Next {
    /// There may be more.
    More,
    /// Nothing, until the file changes; some rows are nobody's, in words.
    Rest(Option<String>),
}

struct Mover {
    path: PathBuf,
    /// JSON.
    names: String,
    others: String,
    /// Another queue takes from the same file.
    shared: bool,
    courier: Box<dyn Courier>,
    open: Option<Open>,
    wake: Sender<Wake>,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Mover {
    fn serve(mut self, woken: &Receiver<Wake>) {
        loop {
            let pause = match self.round() {
                Ok(Next::More) => Duration::ZERO,
                Ok(Next::Rest(stray)) => {
                    self.say(stray);
                    POLL
                }
                Err(why) => {
                    self.say(Some(why));
                    AGAIN
                }
            };
            let first = woken.recv_timeout(pause).ok();
            let more = std::iter::from_fn(|| woken.try_recv().ok());
            if first
                .into_iter()
                .chain(more)
                .any(|wake| matches!(wake, Wake::End))
            {
                return;
            }
        }
    }

    fn say(&self, trouble: Option<String>) {
        let mut said = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *said == trouble {
            return;
        }
        match &trouble {
            Some(why) => {
                tracing::warn!(outbox = %self.path.display(), why, "tasks of an outbox cannot be moved; it is tried again")
            }
            None => tracing::info!(outbox = %self.path.display(), "tasks of an outbox are moved again"),
        }
        *said = trouble;
    }

    /// Moves what is there, a bounded part of it.
    fn round(&mut self) -> Result<Next, String> {
        let file =
            std::fs::metadata(&self.path).map_err(|error| format!("{}: {error}", self.path.display()))?;
        let file = (file.dev(), file.ino());
        if self.open.as_ref().is_some_and(|open| open.file != file) {
            self.open = None;
        }
        let moved = self.move_some(file);
        if moved.is_err() {
            // Whatever is wrong with it, it is looked at afresh.
            self.open = None;
        }
        moved
    }

    fn move_some(&mut self, file: (u64, u64)) -> Result<Next, String> {
        let here = self.path.display().to_string();
        let sql = |error: rusqlite::Error| format!("{here}: {error}");
        if self.open.is_none() {
            self.open = Some(open(&self.path, file, self.wake.clone())?);
        }
        if self.shared && self.open.as_ref().is_some_and(|open| open.form != Form::Outbox) {
            return Err(format!(
                "{here}: its rows say no queue, so only one queue can take from it"
            ));
        }
        let Some(open) = &mut self.open else {
            return Ok(Next::More);
        };
        let version = open
            .connection
            .query_row("PRAGMA data_version", [], |row| row.get(0))
            .map_err(sql)?;
        if open.known.is_some() && open.version == version {
            return Ok(Next::Rest(open.stray.clone()));
        }
        let known = match &open.known {
            Some(known) => known.clone(),
            None => {
                let known = self.courier.moved()?;
                delete(open, &known).map_err(sql)?;
                known
            }
        };
        let rows = read(open, &self.names).map_err(sql)?;
        if rows.is_empty() {
            if !known.is_empty() {
                self.courier.forget()?;
            }
            open.known = Some(Vec::new());
            open.stray = match open.form {
                Form::Outbox => stray(&open.connection, &self.others).map_err(sql)?,
                Form::Snappea(_) => None,
            };
            open.version = version;
            return Ok(Next::Rest(open.stray.clone()));
        }
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        // Until this is known, so is nothing.
        open.known = None;
        self.courier.take(rows, known)?;
        let gone = delete(open, &ids).map_err(sql)?;
        if gone < ids.len() {
            let missing = ids.len() - gone;
            tracing::warn!(
                outbox = here,
                missing,
                "somebody else removed rows that were just moved: do two take them?"
            );
        }
        open.known = Some(ids);
        // Looked at once more in any case: that is how what is remembered comes to be forgotten.
        open.version = -1;
        Ok(Next::More)
    }
}

fn open(path: &Path, file: (u64, u64), wake: Sender<Wake>) -> Result<Open, String> {
    let here = path.display();
    let sql = |error: rusqlite::Error| format!("{here}: {error}");
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sql)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(sql)?;
    connection
        .execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA cache_size = -512; PRAGMA mmap_size = 0; PRAGMA trusted_schema = OFF;",
        )
        .map_err(sql)?;
    let form = form_of(&connection).map_err(sql)?;
    let Some((form, made)) = form else {
        return Err(format!("{here}: it has no table `outbox`; see docs/queues.md"));
    };
    let table = form.table();
    if !made.to_ascii_uppercase().contains("AUTOINCREMENT") {
        return Err(format!(
            "{here}: numbers of table `{table}` can come again: make it with `id INTEGER PRIMARY KEY AUTOINCREMENT`; see docs/queues.md"
        ));
    }
    let columns: Vec<String> = connection
        .prepare("SELECT name FROM pragma_table_info(?1)")
        .and_then(|mut columns| columns.query_map([table], |row| row.get(0))?.collect())
        .map_err(sql)?;
    let has = |name: &str| columns.iter().any(|column| column.eq_ignore_ascii_case(name));
    let needed: &[&str] = match form {
        Form::Outbox => &["id", "queue", "payload"],
        Form::Snappea(_) => &["id", "task_name", "args", "kwargs"],
    };
    if let Some(missing) = needed.iter().find(|name| !has(name)) {
        return Err(format!(
            "{here}: table `{table}` has no column `{missing}`; see docs/queues.md"
        ));
    }
    let select = match form {
        Form::Outbox => {
            let asked = COLUMNS.map(|name| if has(name) { name } else { "NULL" });
            format!(
                "SELECT id, {} FROM outbox WHERE queue IN (SELECT value FROM json_each(?1)) ORDER BY id LIMIT {BATCH}",
                asked.join(", ")
            )
        }
        Form::Snappea(table) => {
            let created = if has("created_at") { "created_at" } else { "NULL" };
            format!(
                "SELECT id, task_name, args, kwargs, CAST(ROUND((julianday({created}) - 2440587.5) * 86400000) AS INTEGER)
                 FROM {table} WHERE ?1 IS NOT NULL ORDER BY id LIMIT {BATCH}"
            )
        }
    };
    Ok(Open {
        connection,
        file,
        form,
        select,
        known: None,
        stray: None,
        version: -1,
        _watch: Watch::start(path, move || wake.send(Wake::Changed).is_ok()),
    })
}

/// The table that is read, and how it was made.
fn form_of(connection: &Connection) -> rusqlite::Result<Option<(Form, String)>> {
    for form in [Form::Outbox, Form::Snappea("snappea_task"), Form::Snappea("task")] {
        let mut found =
            connection.prepare_cached("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1")?;
        let made: Option<String> = found
            .query_map([form.table()], |row| row.get(0))?
            .next()
            .transpose()?;
        if let Some(made) = made {
            return Ok(Some((form, made)));
        }
    }
    Ok(None)
}

fn read(open: &Open, names: &str) -> rusqlite::Result<Vec<OutboxRow>> {
    let mut select = open.connection.prepare_cached(&open.select)?;
    let row = match open.form {
        Form::Outbox => own,
        Form::Snappea(_) => foreign,
    };
    select.query_map([names], row)?.collect()
}

fn own(row: &Row<'_>) -> rusqlite::Result<OutboxRow> {
    Ok(OutboxRow {
        id: row.get(0)?,
        kind: text(row, 1)?,
        payload: text(row, 2)?.unwrap_or_else(|| "null".to_owned()),
        priority: number(row, 3)?,
        run_at: number(row, 4)?,
        unique_key: text(row, 5)?,
        limit_key: text(row, 6)?,
        max_attempts: number(row, 7)?,
        timeout_ms: number(row, 8)?,
        meta: text(row, 9)?,
        created_at: None,
    })
}

/// Of snappea. What is wrong with its arguments is left as it is, and is no JSON: a dead letter that shows them.
fn foreign(row: &Row<'_>) -> rusqlite::Result<OutboxRow> {
    let args = text(row, 2)?.unwrap_or_else(|| "[]".to_owned());
    let kwargs = text(row, 3)?.unwrap_or_else(|| "{}".to_owned());
    let is_list = serde_json::from_str::<Vec<IgnoredAny>>(&args).is_ok();
    let is_table = serde_json::from_str::<BTreeMap<String, IgnoredAny>>(&kwargs).is_ok();
    let payload = match is_list && is_table {
        true => format!("{{\"args\":{args},\"kwargs\":{kwargs}}}"),
        false => format!("args: {args} kwargs: {kwargs}"),
    };
    Ok(OutboxRow {
        id: row.get(0)?,
        kind: text(row, 1)?,
        payload,
        created_at: number(row, 4)?,
        ..OutboxRow::default()
    })
}

/// SQLite lets any column be anything.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    })
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<i64>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Integer(number) => Some(number),
        ValueRef::Text(bytes) => std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| text.trim().parse().ok()),
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => None,
    })
}

/// How many of them were there.
fn delete(open: &Open, ids: &[i64]) -> rusqlite::Result<usize> {
    if ids.is_empty() {
        return Ok(0);
    }
    let ids = serde_json::Value::from(ids).to_string();
    let delete = format!(
        "DELETE FROM {} WHERE id IN (SELECT value FROM json_each(?1))",
        open.form.table()
    );
    open.connection.prepare_cached(&delete)?.execute([ids])
}

/// A row that no queue takes is an error of the program: whoever looks is told.
fn stray(connection: &Connection, known: &str) -> rusqlite::Result<Option<String>> {
    let mut stray = connection.prepare_cached(
        "SELECT id, queue FROM outbox WHERE queue NOT IN (SELECT value FROM json_each(?1)) LIMIT 1",
    )?;
    let found: Option<(i64, String)> = stray
        .query_map([known], |row| {
            Ok((row.get(0)?, text(row, 1)?.unwrap_or_default()))
        })?
        .next()
        .transpose()?;
    Ok(found.map(|(id, queue)| {
        format!("row {id} of `outbox` is for queue `{queue}`, which does not take from this file")
    }))
}
