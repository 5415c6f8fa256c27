//! Credentials and users on disk: `access.db` in the state directory, mode 0600.
//!
//! A file of its own, because the engine knows nothing of users, and because the first admin is made while no daemon
//! runs. It is read whole at the start and when it has changed; it is open only while it is written.

use super::permissions::Permissions;
use super::secret::Hash;
use gaffer_core::time::Wall;
use rusqlite::{Connection, OpenFlags, Row, params};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Numbers are never reused; a migration is never edited once released.
const MIGRATIONS: &[&str] = &[
    // 1: the first.
    "CREATE TABLE credential (
        id TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, sealed BLOB, kind TEXT NOT NULL, name TEXT,
        scope TEXT, permissions TEXT NOT NULL, parent TEXT, made INTEGER NOT NULL, made_by TEXT NOT NULL,
        expires INTEGER, label TEXT) WITHOUT ROWID;
     CREATE UNIQUE INDEX token_by_name ON credential (name) WHERE name IS NOT NULL;
     CREATE TABLE user (
        name TEXT PRIMARY KEY, password TEXT NOT NULL, type INTEGER NOT NULL, key TEXT, extra TEXT NOT NULL,
        made INTEGER NOT NULL) WITHOUT ROWID;",
];

/// Longest wait for another writer.
const BUSY: Duration = Duration::from_secs(5);

/// What goes wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database.
    #[error("the store of credentials: {0}")]
    Sql(#[from] rusqlite::Error),
    /// The file.
    #[error("the store of credentials: {0}")]
    Io(#[from] std::io::Error),
    /// Written by a newer version.
    #[error("the store of credentials was written by a newer version (schema {0}): start that version again")]
    Newer(i64),
    /// There is one of that name.
    #[error("{0} is taken")]
    Taken(String),
    /// A row that this version cannot read.
    #[error("the store of credentials is damaged: {0}")]
    Damaged(String),
}

/// The two ways to write down a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A native token: it has a name and a scope.
    Token,
    /// A key of the original's API.
    Key,
}

/// A credential, without its text.
#[derive(Clone, Debug)]
pub struct Record {
    /// Public id: names it, allows nothing.
    pub id: Arc<str>,
    /// Of its text.
    pub hash: Hash,
    /// A key's text, sealed.
    pub sealed: Option<Vec<u8>>,
    /// Token or key.
    pub kind: Kind,
    /// A token's name.
    pub name: Option<String>,
    /// A token's scope.
    pub scope: Option<String>,
    /// What it allows.
    pub may: Permissions,
    /// It goes with this one.
    pub parent: Option<Arc<str>>,
    /// When it was made.
    pub made: Wall,
    /// By whom.
    pub made_by: String,
    /// When it ends.
    pub expires: Option<Wall>,
    /// A key's label.
    pub label: Option<String>,
}

/// A user of the original's API.
#[derive(Clone, Debug)]
pub struct User {
    /// Name.
    pub name: String,
    /// Hash of the password.
    pub password: String,
    /// 0: a person, 1: an application.
    pub kind: i64,
    /// Id of the key that a login gives.
    pub key: Option<Arc<str>>,
    /// Further members of its object, as JSON.
    pub extra: String,
    /// When it was made.
    pub made: Wall,
}

/// Opens or makes the file, and brings it to this version.
pub fn open(path: &Path) -> Result<Connection, StoreError> {
    // SQLite would make it with the umask of the moment; it is private at creation.
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.execute_batch(
        "PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA cache_size = -128;",
    )?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    // Two processes may begin at once: whoever comes second finds it done.
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > known {
        return Err(StoreError::Newer(found));
    }
    for (number, sql) in (1i64..).zip(MIGRATIONS) {
        if number > found {
            transaction.execute_batch(sql)?;
            transaction.pragma_update(None, "user_version", number)?;
        }
    }
    transaction.commit()?;
    Ok(connection)
}

/// Everything.
pub fn load(connection: &Connection) -> Result<(Vec<Record>, Vec<User>), StoreError> {
    let mut statement = connection.prepare(
        "SELECT id, hash, sealed, kind, name, scope, permissions, parent, made, made_by, expires, label
         FROM credential ORDER BY made, id",
    )?;
    let mut records = Vec::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        records.push(record(row)?);
    }
    let mut statement =
        connection.prepare("SELECT name, password, type, key, extra, made FROM user ORDER BY made, name")?;
    let mut users = Vec::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        users.push(User {
            name: row.get(0)?,
            password: row.get(1)?,
            kind: row.get(2)?,
            key: row.get::<_, Option<String>>(3)?.map(Arc::from),
            extra: row.get(4)?,
            made: Wall(row.get(5)?),
        });
    }
    Ok((records, users))
}

fn record(row: &Row<'_>) -> Result<Record, StoreError> {
    let id: String = row.get(0)?;
    let damaged = |what: &str| StoreError::Damaged(format!("credential {id}: {what}"));
    let hash: Vec<u8> = row.get(1)?;
    let kind: String = row.get(3)?;
    let permissions: String = row.get(6)?;
    Ok(Record {
        hash: Hash(hash.try_into().map_err(|_| damaged("its hash"))?),
        sealed: row.get(2)?,
        kind: match kind.as_str() {
            "token" => Kind::Token,
            "key" => Kind::Key,
            _ => return Err(damaged("its kind")),
        },
        name: row.get(4)?,
        scope: row.get(5)?,
        may: serde_json::from_str(&permissions).map_err(|_| damaged("its permissions"))?,
        parent: row.get::<_, Option<String>>(7)?.map(Arc::from),
        made: Wall(row.get(8)?),
        made_by: row.get(9)?,
        expires: row.get::<_, Option<i64>>(10)?.map(Wall),
        label: row.get(11)?,
        id: id.as_str().into(),
    })
}

/// Adds a credential; a name that is taken is refused.
pub fn add(connection: &Connection, record: &Record) -> Result<(), StoreError> {
    let kind = match record.kind {
        Kind::Token => "token",
        Kind::Key => "key",
    };
    // Lists of texts and flags always have a JSON form.
    let permissions = serde_json::to_string(&record.may).unwrap_or_default();
    let done = connection.execute(
        "INSERT INTO credential (id, hash, sealed, kind, name, scope, permissions, parent, made, made_by, expires, label)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        params![
            record.id.as_ref(),
            record.hash.0,
            record.sealed,
            kind,
            record.name,
            record.scope,
            permissions,
            record.parent.as_deref(),
            record.made.0,
            record.made_by,
            record.expires.map(|at| at.0),
            record.label,
        ],
    );
    taken(done, record.name.as_deref().unwrap_or("the id"))
}

/// Forgets credentials, all or none.
pub fn remove(connection: &mut Connection, ids: &[Arc<str>]) -> Result<(), StoreError> {
    let transaction = connection.transaction()?;
    for id in ids {
        transaction.execute("DELETE FROM credential WHERE id = ?1", [id.as_ref()])?;
        transaction.execute("UPDATE user SET key = NULL WHERE key = ?1", [id.as_ref()])?;
    }
    Ok(transaction.commit()?)
}

/// Adds a user; a name that is taken is refused.
pub fn add_user(connection: &Connection, user: &User) -> Result<(), StoreError> {
    let done = connection.execute(
        "INSERT INTO user (name, password, type, key, extra, made) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            user.name,
            user.password,
            user.kind,
            user.key.as_deref(),
            user.extra,
            user.made.0
        ],
    );
    taken(done, &user.name)
}

/// Replaces a user; false: there is none.
pub fn set_user(connection: &Connection, user: &User) -> Result<bool, StoreError> {
    let changed = connection.execute(
        "UPDATE user SET password = ?2, type = ?3, key = ?4, extra = ?5 WHERE name = ?1",
        params![
            user.name,
            user.password,
            user.kind,
            user.key.as_deref(),
            user.extra
        ],
    )?;
    Ok(changed > 0)
}

/// Forgets a user; false: there is none.
pub fn remove_user(connection: &Connection, name: &str) -> Result<bool, StoreError> {
    Ok(connection.execute("DELETE FROM user WHERE name = ?1", [name])? > 0)
}

fn taken(done: rusqlite::Result<usize>, what: &str) -> Result<(), StoreError> {
    match done {
        Ok(_) => Ok(()),
        Err(rusqlite::Error::SqliteFailure(error, _))
            if error.code == rusqlite::ErrorCode::ConstraintViolation =>
        {
            Err(StoreError::Taken(what.to_owned()))
        }
        Err(error) => Err(error.into()),
    }
}
