//! The state store of a node: one SQLite file, one writer thread.
//!
//! It keeps what people asked for (jobs, wishes) and what was settled (death records). Intent is
//! written with a synced commit before the core hears of it; facts are written in batches
//! without a sync, because the journals still have them: a lost tail is settled again.
//!
//! A file that cannot be read is never written over: opening fails, and says so.

mod outbox;
mod read;
mod schema;
mod sums;
mod write;

pub use crate::pids::PidsKept;
pub use outbox::{Delivery, Fate, HookCounts, HookRow, OutboxChange, OutboxRow};
pub use read::{DrainRow, JobRow, LatestRow, OneOffRow, ReloadRow, RunRow, TaskRow, WishRow};
pub use write::{Change, Settled};

use gaffer_core::name::RunId;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// What goes wrong with the store.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Not a database, or damaged.
    #[error(
        "{path}: the store cannot be read ({reason}); it is left as it is: restore a copy, or move it away to begin anew"
    )]
    Unreadable {
        /// File.
        path: PathBuf,
        /// What SQLite said.
        reason: String,
    },
    /// Written by a newer version.
    #[error(
        "{path}: the store was written by a newer version (schema {found}, this one knows {known}): start that version again"
    )]
    Newer {
        /// File.
        path: PathBuf,
        /// In the file.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// A statement failed: full disk, read-only file system.
    #[error("{0}")]
    Failed(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        StoreError::Failed(error.to_string())
    }
}

/// Longest time that settled facts wait for company before they are committed together.
const FACT_DELAY: Duration = Duration::from_millis(100);
/// Facts committed at once at most.
const FACT_BATCH: usize = 4096;

enum Message {
    /// Commit with a sync, then answer.
    Intent(Vec<Change>, oneshot::Sender<Result<(), StoreError>>),
    /// Commit soon, without a sync.
    Facts(Vec<Settled>),
    /// Prune, cursors and the like: like facts.
    Upkeep(Vec<Change>),
    /// Look something up.
    Read(Box<dyn FnOnce(&Connection) + Send>),
    /// Write everything, checkpoint, end.
    Close(mpsc::Sender<()>),
}

/// Talks to the store's thread. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    tx: mpsc::Sender<Message>,
    commits: Arc<AtomicU64>,
    bell: Arc<watch::Sender<u64>>,
}

/// Everything that recovery needs, read once.
pub struct Loaded {
    /// Number of this daemon start; already committed with a sync.
    pub epoch: u32,
    /// Highest intent number in use.
    pub intent_seq: u64,
    /// Jobs.
    pub jobs: Vec<JobRow>,
    /// Wishes of single instances.
    pub wishes: Vec<WishRow>,
    /// Roll-outs that were asked for.
    pub reloads: Vec<ReloadRow>,
    /// One-offs that have not been forgotten.
    pub one_offs: Vec<OneOffRow>,
    /// Where small process numbers begin.
    pub pids: PidsKept,
    /// Tasks that files define.
    pub tasks: Vec<TaskRow>,
    /// Newest runs of tasks that something waits for.
    pub latest: Vec<LatestRow>,
    /// Queues that files define.
    pub queues: Vec<TaskRow>,
    /// Workers of queues that operators want: session, queue, number.
    pub queue_scales: Vec<(String, String, u32)>,
    /// Numbers of the stores that queues name.
    pub queue_stores: Vec<(u16, String)>,
    /// Schedules that files define.
    pub schedules: Vec<TaskRow>,
    /// Webhooks.
    pub hooks: Vec<HookRow>,
    /// Highest number of an event in the outbox.
    pub outbox_newest: u64,
    /// The node is drained.
    pub drain: Option<DrainRow>,
}

impl Store {
    /// Opens or makes `path` (mode 0600), migrates it forward, counts the epoch up, reads everything.
    pub fn open(path: &Path) -> Result<(Store, Loaded), StoreError> {
        let connection = schema::open(path)?;
        let loaded = read::load(&connection).map_err(|error| StoreError::Unreadable {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        // Everything could be read: from here on it may be written to.
        write::put_meta(&connection, "epoch", u64::from(loaded.epoch))?;
        outbox::keep_promises(&connection)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        let (tx, rx) = mpsc::channel();
        let commits = Arc::new(AtomicU64::new(0));
        let counter = commits.clone();
        let bell = Arc::new(watch::Sender::new(0));
        let ring = bell.clone();
        std::thread::Builder::new()
            .name("store".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || serve(connection, &rx, &counter, &ring))
            .map_err(|error| StoreError::Failed(error.to_string()))?;
        Ok((Store { tx, commits, bell }, loaded))
    }

    /// Commits intent; when the receiver says `Ok` it is on disk. Commits are in the order of the calls.
    pub fn begin_commit(&self, changes: Vec<Change>) -> oneshot::Receiver<Result<(), StoreError>> {
        let (tx, rx) = oneshot::channel();
        self.send(Message::Intent(changes, tx));
        rx
    }

    /// Settles deaths soon.
    pub fn settle(&self, facts: Vec<Settled>) {
        self.send(Message::Facts(facts));
    }

    /// Changes that need no sync and no answer.
    pub fn upkeep(&self, changes: Vec<Change>) {
        self.send(Message::Upkeep(changes));
    }

    /// Runs a query on the store's thread, behind all writes sent before.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (tx, rx) = oneshot::channel();
        self.send(Message::Read(Box::new(move |connection| {
            // The asker may have gone; then nobody wants the answer.
            let _gone = tx.send(query(connection));
        })));
        match rx.await {
            Ok(result) => result.map_err(StoreError::from),
            Err(_) => Err(StoreError::Failed("the store has ended".to_owned())),
        }
    }

    /// The definition of a job as stored.
    pub async fn job_spec(&self, session: &str, job: &str) -> Result<Option<String>, StoreError> {
        let (session, job) = (session.to_owned(), job.to_owned());
        self.read(move |c| read::job_spec(c, &session, &job)).await
    }

    /// What a file defined before it was applied last.
    pub async fn previous(&self, file: &str) -> Result<Option<String>, StoreError> {
        let file = file.to_owned();
        self.read(move |c| read::previous(c, &file)).await
    }

    /// Definitions of all jobs: `(session, job, spec)`.
    pub async fn job_specs(&self) -> Result<Vec<(String, String, String)>, StoreError> {
        self.read(read::job_specs).await
    }

    /// Newest deaths of a job (or of some slots of it), newest first; of runs with an id below `before`, if given.
    pub async fn deaths(
        &self,
        session: &str,
        job: &str,
        slots: Vec<String>,
        before: Option<RunId>,
        limit: usize,
    ) -> Result<Vec<RunRow>, StoreError> {
        let (session, job) = (session.to_owned(), job.to_owned());
        let before = before.map_or(read::NEWEST, |run| (run.epoch, run.n));
        self.read(move |c| read::deaths(c, &session, &job, &slots, before, limit))
            .await
    }

    /// One settled run.
    pub async fn run(&self, epoch: u32, n: u32) -> Result<Option<RunRow>, StoreError> {
        self.read(move |c| read::run(c, epoch, n)).await
    }

    /// Settled runs whose id text begins so.
    pub async fn runs_by_prefix(&self, prefix: &str) -> Result<Vec<(u32, u32)>, StoreError> {
        let prefix = prefix.to_owned();
        self.read(move |c| read::runs_by_prefix(c, &prefix)).await
    }

    /// Deaths of every slot, the newest `per_slot` of each, oldest first. For recovery.
    pub async fn recent_deaths(&self, per_slot: usize) -> Result<Vec<RunRow>, StoreError> {
        self.read(move |c| read::recent_deaths(c, per_slot)).await
    }

    /// Waits until everything that was handed in before is committed.
    pub async fn check_written(&self) -> Result<(), StoreError> {
        self.read(|_| Ok(())).await
    }

    /// Counts up whenever something is put into the outbox of webhooks.
    pub fn outbox_bell(&self) -> watch::Receiver<u64> {
        self.bell.subscribe()
    }

    /// What is to be delivered next by a webhook.
    pub async fn outbox_next(&self, hook: &str) -> Result<Option<OutboxRow>, StoreError> {
        let hook = hook.to_owned();
        self.read(move |c| outbox::next(c, &hook)).await
    }

    /// Newest attempts of a webhook.
    pub async fn hook_deliveries(&self, hook: &str, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        let hook = hook.to_owned();
        self.read(move |c| outbox::deliveries(c, &hook, limit)).await
    }

    /// Totals of a webhook.
    pub async fn hook_counts(&self, hook: &str) -> Result<HookCounts, StoreError> {
        let hook = hook.to_owned();
        self.read(move |c| outbox::counts(c, &hook)).await
    }

    /// Is the file sound? For `doctor`.
    pub async fn check(&self) -> Result<String, StoreError> {
        self.read(|c| {
            sums::check(c)?;
            c.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        })
        .await
    }

    /// Commits so far.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Writes what is pending and ends the thread.
    pub fn close(&self) {
        let (tx, rx) = mpsc::channel();
        self.send(Message::Close(tx));
        // Bounded: a hung disk must not keep the daemon from ending.
        let _late = rx.recv_timeout(Duration::from_secs(5));
    }

    fn send(&self, message: Message) {
        // The thread ends only by `Close`; what comes later is not wanted any more.
        let _closed = self.tx.send(message);
    }
}

/// The writer thread: groups what waits into one transaction, answers reads in between.
fn serve(
    mut connection: Connection,
    rx: &mpsc::Receiver<Message>,
    commits: &AtomicU64,
    bell: &watch::Sender<u64>,
) {
    let mut facts: Vec<Settled> = Vec::new();
    let mut upkeep: Vec<Change> = Vec::new();
    let mut due: Option<std::time::Instant> = None;
    loop {
        let message = match due {
            None => rx.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
            Some(at) => rx.recv_timeout(at.saturating_duration_since(std::time::Instant::now())),
        };
        let mut waiting = Vec::new();
        let mut closing = None;
        match message {
            Ok(Message::Intent(changes, reply)) => {
                waiting.push((changes, reply));
                // Group commit: whatever else is there already shares this sync.
                while let Ok(next) = rx.try_recv() {
                    match next {
                        Message::Intent(changes, reply) => waiting.push((changes, reply)),
                        Message::Facts(more) => facts.extend(more),
                        Message::Upkeep(more) => upkeep.extend(more),
                        Message::Read(query) => query(&connection),
                        Message::Close(done) => closing = Some(done),
                    }
                }
            }
            Ok(Message::Facts(more)) => {
                facts.extend(more);
                due.get_or_insert_with(|| std::time::Instant::now() + FACT_DELAY);
                if facts.len() < FACT_BATCH {
                    continue;
                }
            }
            Ok(Message::Upkeep(more)) => {
                upkeep.extend(more);
                due.get_or_insert_with(|| std::time::Instant::now() + FACT_DELAY);
                continue;
            }
            Ok(Message::Read(query)) => {
                flush(&mut connection, &mut facts, &mut upkeep, commits, bell);
                due = None;
                query(&connection);
                continue;
            }
            Ok(Message::Close(done)) => closing = Some(done),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        due = None;
        flush(&mut connection, &mut facts, &mut upkeep, commits, bell);
        write::commit_intents(&mut connection, waiting);
        commits.fetch_add(1, Ordering::Relaxed);
        if let Some(done) = closing {
            // Leaves one file behind instead of three.
            let _busy = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
            let _gone = done.send(());
            return;
        }
    }
}

/// Commits facts and upkeep without a sync. A failure is not lost: the journals keep the facts, and the next
/// daemon settles them again.
fn flush(
    connection: &mut Connection,
    facts: &mut Vec<Settled>,
    upkeep: &mut Vec<Change>,
    commits: &AtomicU64,
    bell: &watch::Sender<u64>,
) {
    if facts.is_empty() && upkeep.is_empty() {
        return;
    }
    match write::commit_facts(connection, facts, upkeep) {
        Ok(true) => bell.send_modify(|rung| *rung += 1),
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(%error, "store.settle-failed");
            // Keep a bounded tail for the next try; the journals have the rest.
            if facts.len() + upkeep.len() < FACT_BATCH {
                return;
            }
        }
    }
    facts.clear();
    upkeep.clear();
    commits.fetch_add(1, Ordering::Relaxed);
}
