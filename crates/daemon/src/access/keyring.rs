//! All credentials and users in memory, and the changes to them.
//!
//! Changes are on disk before they count. What is revoked ends at once: whoever holds an `Access` of it is told.

use super::permissions::Permissions;
use super::secret::{self, Hash, Seal};
use super::store::{self, Kind, Record, StoreError, User};
use super::{Access, Presented};
use gaffer_core::time::Wall;
use rusqlite::Connection;
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use tokio::sync::{Mutex, Semaphore, watch};

/// Credentials at most, and users at most.
const COUNT_MAX: usize = 10_000;

/// Passwords that are hashed at once: each takes 19 MiB.
const HASHED_AT_ONCE: usize = 2;

/// Logins that wait for their turn at most; more are told to come back.
const HASHES_WAITING: usize = 32;

/// Bytes of a presented credential at most.
const TEXT_BYTES_MAX: usize = 256;

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// Random bytes of a key: the original's have 32 hex digits.
const KEY_BYTES: usize = 16;

/// Random bytes of a public id.
const ID_BYTES: usize = 6;

/// Why a change is refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// Bounds.
    #[error("there are {COUNT_MAX} already: remove some")]
    TooMany,
    /// There is none of that name.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Too many logins at once.
    #[error("too many logins at once")]
    Busy,
    /// Randomness, files, threads.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// What a new credential is to be.
#[derive(Clone, Debug, Default)]
pub struct New {
    /// A token's name; without one it is a key.
    pub name: Option<String>,
    /// A token's scope.
    pub scope: Option<String>,
    /// What it allows.
    pub may: Permissions,
    /// It goes with this one.
    pub parent: Option<Arc<str>>,
    /// By whom it is made.
    pub by: String,
    /// When it ends.
    pub expires: Option<Wall>,
    /// A key's label.
    pub label: Option<String>,
}

/// A key of the original.
#[derive(Clone)]
pub struct OldKey {
    /// As clients present it.
    pub text: String,
    /// What it allows.
    pub may: Permissions,
    /// Label.
    pub label: Option<String>,
    /// Text of the key that it goes with.
    pub parent: Option<String>,
}

/// What the original has stored.
pub struct Old {
    /// Users, and the texts of their keys.
    pub users: Vec<(User, Option<String>)>,
    /// Keys.
    pub keys: Vec<OldKey>,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    revoked: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Table {
    by_hash: HashMap<Hash, Arc<Entry>>,
    by_id: BTreeMap<Arc<str>, Arc<Entry>>,
    users: BTreeMap<String, User>,
    /// Of the file, as it was read.
    stamp: Stamp,
}

/// Says whether a file has changed.
type Stamp = Option<(u64, i64, i64, u64)>;

/// The credentials and users of a node.
pub struct Keyring {
    path: PathBuf,
    seal_path: PathBuf,
    seal: OnceLock<Seal>,
    table: RwLock<Table>,
    writing: Mutex<()>,
    hashing: Semaphore,
    queued: Semaphore,
}

impl Keyring {
    /// Reads what there is in a state directory. Its files are made when they are first needed.
    pub fn open(state_dir: &Path) -> Result<Keyring, KeyringError> {
        let path = state_dir.join("access.db");
        let keyring = Keyring {
            seal_path: state_dir.join("access.key"),
            seal: OnceLock::new(),
            table: RwLock::default(),
            writing: Mutex::new(()),
            hashing: Semaphore::new(HASHED_AT_ONCE),
            queued: Semaphore::new(HASHES_WAITING),
            path,
        };
        if keyring.path.exists() {
            keyring.read(&store::open(&keyring.path)?)?;
        }
        Ok(keyring)
    }

    /// The sealing key, read or made when it is first needed.
    fn seal(&self) -> std::io::Result<&Seal> {
        if let Some(seal) = self.seal.get() {
            return Ok(seal);
        }
        let seal = Seal::open(&self.seal_path)?;
        Ok(self.seal.get_or_init(|| seal))
    }

    /// Takes over what is in the file. What stays is not interrupted.
    fn read(&self, connection: &Connection) -> Result<(), StoreError> {
        let stamp = stamp(&self.path);
        let (records, users) = store::load(connection)?;
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let mut old = std::mem::take(&mut table.by_id);
        table.by_hash.clear();
        for record in records {
            let entry = old.remove(&record.id).unwrap_or_else(|| {
                Arc::new(Entry {
                    record,
                    revoked: watch::Sender::new(false),
                })
            });
            table.by_hash.insert(entry.record.hash, entry.clone());
            table.by_id.insert(entry.record.id.clone(), entry);
        }
        for gone in old.into_values() {
            gone.revoked.send_replace(true);
        }
        table.users = users.into_iter().map(|user| (user.name.clone(), user)).collect();
        table.stamp = stamp;
        Ok(())
    }

    /// Another process may have made the first admin meanwhile.
    fn read_if_changed(&self) {
        let known = self.table.read().unwrap_or_else(PoisonError::into_inner).stamp;
        if stamp(&self.path) == known {
            return;
        }
        if let Err(error) = store::open(&self.path).and_then(|connection| self.read(&connection)) {
            tracing::error!(error = %error, "access.unreadable");
        }
    }

    /// What a presented text allows: of a header `X-Api-Key`, of `Authorization: Bearer`, of `AUTH:` on a channel.
    pub fn resolve(&self, text: &str) -> Option<Access> {
        if text.is_empty() || text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let hash = Hash::of(text);
        let entry = self.by_hash(hash).or_else(|| {
            self.read_if_changed();
            self.by_hash(hash)
        })?;
        let access = access(&entry);
        (!access.is_over()).then_some(access)
    }

    fn by_hash(&self, hash: Hash) -> Option<Arc<Entry>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.by_hash.get(&hash).cloned()
    }

    /// All credentials of one kind, oldest first.
    pub fn list(&self, kind: Kind) -> Vec<Record> {
        self.read_if_changed();
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let of_kind = table.by_id.values().filter(|entry| entry.record.kind == kind);
        let mut records: Vec<Record> = of_kind.map(|entry| entry.record.clone()).collect();
        records.sort_by(|a, b| (a.made, &a.id).cmp(&(b.made, &b.id)));
        records
    }

    /// The credential with this id, this name (of a token), or this text (of a key).
    pub fn find(&self, kind: Kind, what: &str) -> Option<Record> {
        self.read_if_changed();
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let by_id = table.by_id.get(what).or_else(|| match kind {
            Kind::Key => table.by_hash.get(&Hash::of(what)),
            Kind::Token => table
                .by_id
                .values()
                .find(|entry| entry.record.name.as_deref() == Some(what)),
        })?;
        (by_id.record.kind == kind).then(|| by_id.record.clone())
    }

    /// The text of a key.
    pub fn text(&self, record: &Record) -> Option<String> {
        self.seal().ok()?.unseal(&record.id, record.sealed.as_deref()?)
    }

    /// Are there live credentials that a client from elsewhere could use?
    pub fn has_any(&self) -> bool {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.by_id.values().any(|entry| !access(entry).is_over())
    }

    /// Makes a credential; its text is given back this once.
    pub async fn add(&self, new: New) -> Result<(Record, String), KeyringError> {
        let _one = self.writing.lock().await;
        self.add_now(new)
    }

    fn add_now(&self, new: New) -> Result<(Record, String), KeyringError> {
        if self
            .table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .by_id
            .len()
            >= COUNT_MAX
        {
            return Err(KeyringError::TooMany);
        }
        let id = secret::random_hex(ID_BYTES)?;
        let is_token = new.name.is_some();
        let text = match is_token {
            true => format!("gaffer_{}", secret::random_hex(TOKEN_BYTES)?),
            false => secret::random_hex(KEY_BYTES)?,
        };
        let record = Record {
            hash: Hash::of(&text),
            sealed: (!is_token).then(|| self.seal()?.seal(&id, &text)).transpose()?,
            kind: if is_token { Kind::Token } else { Kind::Key },
            name: new.name,
            scope: new.scope,
            may: new.may,
            parent: new.parent,
            made: crate::view::now(),
            made_by: new.by,
            expires: new.expires,
            label: new.label,
            id: id.into(),
        };
        let connection = store::open(&self.path)?;
        store::add(&connection, &record)?;
        self.read(&connection)?;
        Ok((record, text))
    }

    /// Takes over users and keys of the original, all of them or, if one cannot be, none. Those that are there already stay
    /// as they are. How many users and keys are new.
    pub async fn import(&self, old: Old) -> Result<(usize, usize), KeyringError> {
        let _one = self.writing.lock().await;
        let mut connection = store::open(&self.path)?;
        self.read(&connection)?;
        let mut ids: HashMap<String, Arc<str>> = HashMap::new();
        for key in &old.keys {
            let id = match self.by_hash(Hash::of(&key.text)) {
                Some(entry) => entry.record.id.clone(),
                None => secret::random_hex(ID_BYTES)?.into(),
            };
            ids.insert(key.text.clone(), id);
        }
        let new_keys: Vec<&OldKey> = old
            .keys
            .iter()
            .filter(|key| self.by_hash(Hash::of(&key.text)).is_none())
            .collect();
        let known: Vec<String> = {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            if table.by_id.len() + new_keys.len() > COUNT_MAX
                || table.users.len() + old.users.len() > COUNT_MAX
            {
                return Err(KeyringError::TooMany);
            }
            table.users.keys().cloned().collect()
        };
        let transaction = connection.transaction()?;
        // One after the other, so that they are listed as they were.
        for (made, key) in (crate::view::now().0..).map(Wall).zip(&new_keys) {
            let id = ids.get(&key.text).cloned().unwrap_or_default();
            let record = Record {
                hash: Hash::of(&key.text),
                sealed: Some(self.seal()?.seal(&id, &key.text)?),
                kind: Kind::Key,
                name: None,
                scope: None,
                may: key.may.clone(),
                parent: key.parent.as_ref().and_then(|parent| ids.get(parent)).cloned(),
                made,
                made_by: "gafferd --import-keys".to_owned(),
                expires: None,
                label: key.label.clone(),
                id,
            };
            store::add(&transaction, &record)?;
        }
        let mut users = 0;
        for (user, key) in old
            .users
            .into_iter()
            .filter(|(user, _)| !known.contains(&user.name))
        {
            let key = key.and_then(|key| ids.get(&key).cloned());
            store::add_user(&transaction, &User { key, ..user })?;
            users += 1;
        }
        transaction.commit()?;
        self.read(&connection)?;
        Ok((users, new_keys.len()))
    }

    /// Revokes a credential and what was made with it. Their live streams end.
    pub async fn remove(&self, id: &str) -> Result<(), KeyringError> {
        let _one = self.writing.lock().await;
        let ids = self.family(id);
        if ids.is_empty() {
            return Err(KeyringError::NotFound("credential"));
        }
        let mut connection = store::open(&self.path)?;
        store::remove(&mut connection, &ids)?;
        Ok(self.read(&connection)?)
    }

    /// A credential and all below it.
    fn family(&self, id: &str) -> Vec<Arc<str>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let mut ids: Vec<Arc<str>> = table
            .by_id
            .get_key_value(id)
            .map(|(id, _)| id.clone())
            .into_iter()
            .collect();
        let mut at = 0;
        // Each is added once: what is in the list already is not added again.
        while let Some(parent) = ids.get(at).cloned() {
            for entry in table.by_id.values() {
                let record = &entry.record;
                if record.parent.as_deref() == Some(&*parent) && !ids.contains(&record.id) {
                    ids.push(record.id.clone());
                }
            }
            at += 1;
        }
        ids
    }

    /// Keys made with this one as their parent.
    pub fn children(&self, id: &str) -> Vec<Record> {
        let keys = self.list(Kind::Key);
        keys.into_iter()
            .filter(|record| record.parent.as_deref() == Some(id))
            .collect()
    }

    /// All users, oldest first.
    pub fn users(&self) -> Vec<User> {
        self.read_if_changed();
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let mut users: Vec<User> = table.users.values().cloned().collect();
        users.sort_by(|a, b| (a.made, &a.name).cmp(&(b.made, &b.name)));
        users
    }

    /// A user.
    pub fn user(&self, name: &str) -> Option<User> {
        self.read_if_changed();
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.users.get(name).cloned()
    }

    /// Adds a user, with the password in clear.
    pub async fn add_user(&self, mut user: User, password: String) -> Result<(), KeyringError> {
        if self.users().len() >= COUNT_MAX {
            return Err(KeyringError::TooMany);
        }
        if self.user(&user.name).is_some() {
            return Err(StoreError::Taken(user.name).into());
        }
        user.password = self.hashed(password).await?;
        let _one = self.writing.lock().await;
        let connection = store::open(&self.path)?;
        store::add_user(&connection, &user)?;
        Ok(self.read(&connection)?)
    }

    /// Changes a user, with a new password in clear if there is one.
    pub async fn change_user(
        &self,
        name: &str,
        password: Option<String>,
        change: impl FnOnce(&mut User),
    ) -> Result<(), KeyringError> {
        let hash = match password {
            Some(password) => Some(self.hashed(password).await?),
            None => None,
        };
        let _one = self.writing.lock().await;
        let mut user = self.user(name).ok_or(KeyringError::NotFound("user"))?;
        change(&mut user);
        if let Some(hash) = hash {
            user.password = hash;
        }
        let connection = store::open(&self.path)?;
        if !store::set_user(&connection, &user)? {
            return Err(KeyringError::NotFound("user"));
        }
        Ok(self.read(&connection)?)
    }

    /// Forgets a user.
    pub async fn remove_user(&self, name: &str) -> Result<(), KeyringError> {
        let _one = self.writing.lock().await;
        let connection = store::open(&self.path)?;
        if !store::remove_user(&connection, name)? {
            return Err(KeyringError::NotFound("user"));
        }
        Ok(self.read(&connection)?)
    }

    /// The user with this name and password, if the password is right. Takes the same time for a user that does not exist.
    pub async fn login(&self, name: &str, password: &str) -> Result<Option<User>, KeyringError> {
        let user = self.user(name);
        let hash = user
            .as_ref()
            .map_or_else(|| NOBODY.to_owned(), |user| user.password.clone());
        let renew = secret::is_old_form(&hash);
        let clear = password.to_owned();
        let right = self
            .hard(move || Ok(secret::verify_password(&clear, &hash)))
            .await?;
        let Some(user) = user.filter(|_| right) else {
            return Ok(None);
        };
        if renew {
            self.change_user(name, Some(password.to_owned()), |_| {}).await?;
        }
        Ok(Some(user))
    }

    async fn hashed(&self, password: String) -> Result<String, KeyringError> {
        self.hard(move || secret::hash_password(&password)).await
    }

    /// Work that takes long and much memory: on another thread, and little of it at once.
    async fn hard<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, KeyringError> {
        let _place = self.queued.try_acquire().map_err(|_| KeyringError::Busy)?;
        let _turn = self.hashing.acquire().await.map_err(|_| KeyringError::Busy)?;
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(KeyringError::Io(std::io::Error::other("the work was given up"))),
        }
    }
}

/// A hash that no password has, with the parameters of real ones.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$Z2FmZmVyZ2FmZmVyZ2FmZg$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn access(entry: &Entry) -> Access {
    let record = &entry.record;
    let actor = match (&record.name, &record.label) {
        (Some(name), _) => format!("token {name}"),
        (None, Some(label)) => format!("key {} ({label})", record.id),
        (None, None) => format!("key {}", record.id),
    };
    let presented = Presented {
        id: record.id.clone(),
        expires: record.expires,
        revoked: entry.revoked.subscribe(),
    };
    Access::of_credential(actor.into(), record.may.clone(), presented)
}

fn stamp(path: &Path) -> Stamp {
    let file = std::fs::metadata(path).ok()?;
    Some((file.ino(), file.mtime(), file.mtime_nsec(), file.size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin(name: Option<&str>) -> New {
        New {
            name: name.map(str::to_owned),
            may: Permissions::admin(),
            by: "test".to_owned(),
            ..New::default()
        }
    }

    #[tokio::test]
    async fn only_hashes_and_sealed_texts_are_on_disk_and_both_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("temporary directory");
        let keyring = Keyring::open(dir.path()).expect("opened");
        let (_, token) = keyring.add(admin(Some("ci"))).await.expect("made");
        let (record, key) = keyring.add(admin(None)).await.expect("made");
        assert_eq!(key.len(), 32);
        assert_eq!(keyring.text(&record).as_deref(), Some(key.as_str()));
        for name in ["access.db", "access.key"] {
            let path = dir.path().join(name);
            let mode = std::fs::metadata(&path).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
            let bytes = std::fs::read(&path).expect("read");
            for text in [&token, &key, &token[7..]] {
                let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
                assert!(!found, "{name} has the text of a credential");
            }
        }
        let again = Keyring::open(dir.path()).expect("opened again");
        assert!(again.resolve(&token).expect("known").is_admin());
        assert_eq!(
            again.resolve(&key).expect("known").actor().as_ref(),
            format!("key {}", record.id)
        );
        assert!(again.resolve("").is_none() && again.resolve(&record.id).is_none());
    }

    #[tokio::test]
    async fn a_revoked_credential_ends_with_those_below_it_and_others_stay() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let keyring = Keyring::open(dir.path()).expect("opened");
        let (parent, parent_text) = keyring.add(admin(None)).await.expect("made");
        let below = New {
            parent: Some(parent.id.clone()),
            ..admin(None)
        };
        let (child, text) = keyring.add(below).await.expect("made");
        let (_, other) = keyring.add(admin(Some("other"))).await.expect("made");
        let live = keyring.resolve(&text).expect("known");
        let stays = keyring.resolve(&other).expect("known");
        assert_eq!(keyring.children(&parent.id).len(), 1);
        keyring.remove(&parent.id).await.expect("removed");
        live.ended().await;
        assert!(live.is_over() && !stays.is_over());
        assert!(keyring.resolve(&text).is_none() && keyring.resolve(&parent_text).is_none());
        assert!(keyring.find(Kind::Key, &child.id).is_none());
        assert!(matches!(
            keyring.remove(&parent.id).await,
            Err(KeyringError::NotFound(_))
        ));
    }

    #[tokio::test]
    async fn an_expired_credential_is_unknown_and_its_streams_end() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let keyring = Keyring::open(dir.path()).expect("opened");
        let soon = Wall(crate::view::now().0 + 300);
        let (_, text) = keyring
            .add(New {
                expires: Some(soon),
                ..admin(Some("short"))
            })
            .await
            .expect("made");
        let live = keyring.resolve(&text).expect("not yet");
        live.ended().await;
        assert!(live.is_over() && keyring.resolve(&text).is_none() && !keyring.has_any());
    }

    #[tokio::test]
    async fn what_another_process_adds_is_found() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (one, two) = (
            Keyring::open(dir.path()).expect("one"),
            Keyring::open(dir.path()).expect("two"),
        );
        let (_, text) = two.add(admin(None)).await.expect("made");
        assert!(one.resolve(&text).is_some());
    }

    #[tokio::test]
    async fn s7_4_an_old_hash_is_replaced_at_the_next_login() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let keyring = Keyring::open(dir.path()).expect("opened");
        let user = User {
            name: "ana".to_owned(),
            password: "PBKDF2-256$0123456789abcdef0123456789abcdef:1000$cb87f2b3e7593c9f574953f9aaa9bd7ae88dca51c9ad32b3".to_owned(),
            kind: 1,
            key: None,
            extra: "{}".to_owned(),
            made: crate::view::now(),
        };
        store::add_user(&store::open(&keyring.path).expect("open"), &user).expect("added");
        assert!(keyring.login("ana", "wrong").await.expect("answered").is_none());
        assert!(
            keyring
                .login("bob", "pass:word")
                .await
                .expect("answered")
                .is_none()
        );
        assert!(
            keyring
                .login("ana", "pass:word")
                .await
                .expect("answered")
                .is_some()
        );
        assert!(
            keyring
                .user("ana")
                .expect("there")
                .password
                .starts_with("$argon2id$")
        );
        assert!(
            keyring
                .login("ana", "pass:word")
                .await
                .expect("answered")
                .is_some()
        );
    }
}
