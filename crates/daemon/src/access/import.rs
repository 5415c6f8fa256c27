//! Users and keys of the original, taken over while no daemon need run: `gafferd --import-keys DIR`.
//!
//! The original keeps them in two SQLite files of its configuration directory, `auth.db` and `keys.db`, with the keys in
//! clear. They are read, never written. Keys stay what they were, so that clients need no new ones; passwords stay as they are hashed
//! until their owner logs in. All of it is taken over, or nothing; what is there already stays as it is.

use super::keyring::{Keyring, KeyringError, Old, OldKey};
use super::store::{StoreError, User};
use crate::view;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use std::path::Path;

/// Takes over what is in a folder, and says what. The exit code.
pub async fn import(state_dir: &Path, from: &Path) -> Result<u8, KeyringError> {
    let files = [from.join("auth.db"), from.join("keys.db")];
    if !files.iter().any(|file| file.is_file()) {
        eprintln!(
            "error: there is neither auth.db nor keys.db in {}",
            from.display()
        );
        return Ok(2);
    }
    let [auth, keys] = &files;
    let read = users(auth).and_then(|users| keys_of(keys).map(|keys| Old { users, keys }));
    let old = match read {
        Ok(old) => old,
        Err(why) => {
            eprintln!("error: {why}\nnothing was changed");
            return Ok(2);
        }
    };
    super::admin::make_dir(state_dir)?;
    let keyring = Keyring::open(state_dir)?;
    let all = (old.users.len(), old.keys.len());
    let (users, keys) = keyring.import(old).await?;
    println!(
        "{users} of {} users and {keys} of {} keys were taken over.",
        all.0, all.1
    );
    if (users, keys) != all {
        println!("The others are there already.");
    }
    Ok(0)
}

fn open(file: &Path) -> Result<Option<Connection>, String> {
    if !file.is_file() {
        return Ok(None);
    }
    let opened = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY);
    opened.map(Some).map_err(|error| wrong(file, &error))
}

fn wrong(file: &Path, why: &dyn std::fmt::Display) -> String {
    format!("{}: {why}", file.display())
}

/// Users with the text of their key.
fn users(file: &Path) -> Result<Vec<(User, Option<String>)>, String> {
    let Some(connection) = open(file)? else {
        return Ok(Vec::new());
    };
    let read = || -> rusqlite::Result<Vec<(User, Option<String>)>> {
        let mut statement =
            connection.prepare("SELECT user, pwd, user_type, key, extra FROM auth ORDER BY rowid")?;
        let rows = statement.query_map([], |row| {
            let extra: Option<String> = row.get(4)?;
            let user = User {
                name: row.get(0)?,
                password: row.get(1)?,
                kind: row.get::<_, Option<i64>>(2)?.unwrap_or(1),
                key: None,
                extra: extra.unwrap_or_default(),
                made: view::now(),
            };
            Ok((user, row.get(3)?))
        })?;
        rows.collect()
    };
    let mut found = read().map_err(|error| wrong(file, &error))?;
    for (user, _) in &mut found {
        if !super::admin::is_user_name(&user.name) {
            let name = user.name.escape_debug();
            return Err(wrong(file, &format!("`{name}` is no name of a user")));
        }
        // What is no object says nothing.
        let extra: Value = serde_json::from_str(&user.extra).unwrap_or_default();
        user.extra = if extra.is_object() {
            extra.to_string()
        } else {
            "{}".to_owned()
        };
    }
    Ok(found)
}

fn keys_of(file: &Path) -> Result<Vec<OldKey>, String> {
    let Some(connection) = open(file)? else {
        return Ok(Vec::new());
    };
    let read = || -> rusqlite::Result<Vec<(String, String, Option<String>)>> {
        let mut statement = connection.prepare("SELECT key, data, parent FROM keys ORDER BY rowid")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.collect()
    };
    let rows = read().map_err(|error| wrong(file, &error))?;
    let key = |(text, data, parent): (String, String, Option<String>)| {
        // A key is named by what it allows: its text is a secret.
        let data: Value =
            serde_json::from_str(&data).map_err(|error| wrong(file, &format!("a key's data: {error}")))?;
        let may = match data.get("permissions") {
            None | Some(Value::Null) => Default::default(),
            Some(may) => serde_json::from_value(may.clone())
                .map_err(|error| wrong(file, &format!("permissions {may}: {error}")))?,
        };
        let label = data
            .get("label")
            .and_then(Value::as_str)
            .filter(|label| !label.is_empty());
        Ok(OldKey {
            text,
            may,
            label: label.map(str::to_owned),
            parent,
        })
    };
    rows.into_iter().map(key).collect()
}

impl From<rusqlite::Error> for KeyringError {
    fn from(error: rusqlite::Error) -> KeyringError {
        KeyringError::Store(StoreError::Sql(error))
    }
}
