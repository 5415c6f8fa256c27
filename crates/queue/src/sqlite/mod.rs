//! A file of one node.
//!
//! One thread owns the connection that writes. Everything that comes while it commits is its next transaction (*group
//! commit*): a sync is shared by all who wait for one. A transaction is synced if one of its requests has to survive a loss of
//! power; claims and renewals alone are not: a claim that is undone by one is made again, and no process survived it.
//!
//! **Others may write.** A program may put rows into `task` with plain SQL. The thread looks at `PRAGMA data_version` every
//! 250 ms, which touches no table, and at once when the kernel says that the log of the file changed: the notice is a
//! hint, the look is the truth.
//!
//! **The log stays small.** It is emptied when nothing came for a second. Readers have a connection of their own, for a statement at a time.

mod changes;
mod claim;
mod minutes;
mod moves;
mod push;
mod read;
mod schedule;
mod schema;
mod settle;
mod signs;

use crate::port::{Answer, Done, Request, StoreError};
use crate::rows::Mode;
use crate::watch::Watch;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::oneshot;

/// Longest time after which a change by another program is seen, whatever the kernel says.
pub const POLL: Duration = Duration::from_millis(250);
/// The log is emptied after so long without a request.
const IDLE: Duration = Duration::from_secs(1);
/// Requests of one transaction at most.
const BATCH: usize = 1_024;
/// A wall clock that moved by more against the other one was set.
const CLOCK_SLACK: Duration = Duration::from_millis(50);

/// Talks to the threads of a file. Cheap to clone; the threads end with the last clone.
#[derive(Clone)]
pub struct Sqlite {
    writer: Sender<Message>,
    reader: Sender<(Request, Done)>,
    // Ends the watching thread when the last clone goes.
    _watch: Arc<Watch>,
}

enum Message {
    Ask(Request, Done),
    /// The kernel says that the file changed.
    Poke,
    Close(oneshot::Sender<()>),
}

/// Called when somebody else changed the store, or the clock was set.
pub type Bell = Box<dyn Fn() + Send>;

/// Bounds of what a file takes.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file; made (0600) if it is not there.
    pub path: PathBuf,
}

impl Sqlite {
    /// Opens or makes a file, takes its owner's lock, brings it to this version. `bell` is rung when others have changed it.
    ///
    /// # Errors
    ///
    /// Another process has it (named by its pid), it is damaged, or of a newer version.
    pub fn open(path: &Path, bell: Bell) -> Result<Sqlite, StoreError> {
        let lock = schema::lock(path)?;
        let connection = schema::open(path)?;
        let for_reads = schema::open_for_reads(path)?;
        let modes = read::modes(&connection).map_err(failed)?;
        let (writer, requests) = channel();
        let (reader, reads) = channel();
        let poke = writer.clone();
        let watch = Watch::start(path, move || poke.send(Message::Poke).is_ok());
        let work = Writer {
            connection,
            modes,
            bell,
            drift: drift(),
            version: 0,
            _lock: lock,
        };
        spawn("queue-store", move || work.serve(&requests))?;
        spawn("queue-reader", move || serve_reads(&for_reads, &reads))?;
        Ok(Sqlite {
            writer,
            reader,
            _watch: Arc::new(watch),
        })
    }

    /// See [`crate::Store::ask`]. Lists and counts do not wait for what is being written.
    pub fn ask(&self, request: Request, done: Done) {
        let given_back = match request {
            Request::Tasks(_) | Request::Counts(_) | Request::Signs(..) => {
                self.reader.send((request, done)).err().map(|error| error.0.1)
            }
            request => match self.writer.send(Message::Ask(request, done)) {
                Err(error) => match error.0 {
                    Message::Ask(_, done) => Some(done),
                    Message::Poke | Message::Close(_) => None,
                },
                Ok(()) => None,
            },
        };
        if let Some(done) = given_back {
            done(Err(StoreError::Unavailable("it is closed".to_owned())));
        }
    }

    /// See [`crate::Store::end`].
    pub fn end(&self) {
        let (tx, _nobody) = oneshot::channel();
        // It may have ended already.
        let _ended = self.writer.send(Message::Close(tx));
    }

    /// Writes what is pending, empties the log, ends the writing thread.
    pub async fn close(&self) {
        let (tx, rx) = oneshot::channel();
        if self.writer.send(Message::Close(tx)).is_ok() {
            let _ended = rx.await;
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(512 << 10)
        .spawn(work)
        .map(drop)
        .map_err(|error| StoreError::Unavailable(error.to_string()))
}

/// What SQLite says, in our words.
pub(crate) fn failed(error: rusqlite::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// How far the clock of the wall is from the one that nobody sets.
fn drift() -> i128 {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let mono = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let mono = i128::from(mono.tv_sec) * 1_000_000_000 + i128::from(mono.tv_nsec);
    wall.map_or(0, |wall| i128::try_from(wall.as_nanos()).unwrap_or(0)) - mono
}

struct Writer {
    connection: Connection,
    modes: BTreeMap<String, Mode>,
    bell: Bell,
    drift: i128,
    version: i64,
    _lock: std::fs::File,
}

impl Writer {
    fn serve(mut self, requests: &Receiver<Message>) {
        let _first = self.changed_by_others();
        let mut quiet_since = Instant::now();
        let mut log_is_empty = false;
        loop {
            let first = match requests.recv_timeout(POLL) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut asked = Vec::new();
            let mut closing = None;
            let more = std::iter::from_fn(|| requests.try_recv().ok());
            for message in first.into_iter().chain(more).take(BATCH) {
                match message {
                    Message::Ask(request, done) => asked.push((request, done)),
                    Message::Poke => {}
                    Message::Close(done) => closing = Some(done),
                }
            }
            let idle = asked.is_empty();
            if !idle {
                quiet_since = Instant::now();
                log_is_empty = false;
                self.transact(asked);
            }
            let changed = self.changed_by_others();
            log_is_empty &= !changed;
            if changed || self.clock_was_set() {
                (self.bell)();
            }
            if idle && !log_is_empty && quiet_since.elapsed() >= IDLE {
                // A reader may be in its way: then the next time.
                let emptied = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
                log_is_empty = emptied.is_ok();
            }
            if let Some(done) = closing {
                let _busy = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
                drop(self.connection);
                drop(self._lock);
                let _gone = done.send(());
                return;
            }
        }
    }

    /// Did another connection commit?
    fn changed_by_others(&mut self) -> bool {
        let version = self
            .connection
            .query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0));
        let version = version.unwrap_or(self.version);
        std::mem::replace(&mut self.version, version) != version
    }

    fn clock_was_set(&mut self) -> bool {
        let drift = drift();
        let moved = (drift - self.drift).unsigned_abs() > CLOCK_SLACK.as_nanos();
        if moved {
            self.drift = drift;
        }
        moved
    }

    /// One transaction for all of them. What one of them is refused does not concern the others; what the disk
    /// refuses concerns all.
    fn transact(&mut self, asked: Vec<(Request, Done)>) {
        let full = asked.iter().any(|(request, _)| needs_sync(request));
        let (requests, dones): (Vec<Request>, Vec<Done>) = asked.into_iter().unzip();
        let outcome = self.attempt(&requests, full);
        match outcome {
            Ok(answers) => {
                for ((answer, done), request) in answers.into_iter().zip(dones).zip(&requests) {
                    self.note_mode(request, &answer);
                    done(answer);
                }
            }
            Err(error) => {
                if !self.connection.is_autocommit() {
                    let _over = self.connection.execute_batch("ROLLBACK");
                }
                tracing::warn!(%error, requests = requests.len(), "the queue store cannot write");
                for done in dones {
                    done(Err(error.clone()));
                }
            }
        }
    }

    fn attempt(
        &mut self,
        requests: &[Request],
        full: bool,
    ) -> Result<Vec<Result<Answer, StoreError>>, StoreError> {
        let sync = if full {
            "PRAGMA synchronous = FULL"
        } else {
            "PRAGMA synchronous = NORMAL"
        };
        self.connection.execute_batch(sync).map_err(failed)?;
        begin(&self.connection)?;
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            match self.perform(request) {
                Err(StoreError::Unavailable(why)) => return Err(StoreError::Unavailable(why)),
                answer => answers.push(answer),
            }
        }
        self.connection
            .prepare_cached("COMMIT")
            .and_then(|mut commit| commit.execute([]))
            .map_err(failed)?;
        Ok(answers)
    }

    fn perform(&self, request: &Request) -> Result<Answer, StoreError> {
        let connection = &self.connection;
        match request {
            Request::Push(tasks, now) => push::push(connection, &self.modes, tasks, *now),
            Request::Claim(claim) => claim::claim(connection, claim).map_err(failed),
            Request::Settle(settlement, now) => settle::settle(connection, settlement, *now).map_err(failed),
            Request::Renew(handles, now) => settle::renew(connection, handles, *now).map_err(failed),
            Request::Upkeep { owner, now } => settle::upkeep(connection, owner, *now).map_err(failed),
            Request::Orphans { node, owner } => settle::orphans(connection, node, owner).map_err(failed),
            Request::Cancel(id, now) => changes::cancel(connection, *id, *now).map_err(failed),
            Request::Again(id, now) => changes::again(connection, *id, *now).map_err(failed),
            Request::Edit {
                task,
                payload,
                now,
                shown,
            } => changes::edit(connection, *task, payload, *now, *shown).map_err(failed),
            Request::Remove(id) => changes::remove(connection, *id).map_err(failed),
            Request::Purge(queue, state, most) => {
                changes::purge(connection, queue, *state, *most).map_err(failed)
            }
            Request::Prune(now, most) => changes::prune(connection, *now, *most).map_err(failed),
            Request::Age(queue, step, now) => changes::age(connection, queue, *step, *now).map_err(failed),
            Request::Mode(queue, mode) => changes::mode(connection, queue, mode).map_err(failed),
            Request::Modes => Ok(Answer::Modes(self.modes.clone())),
            Request::Tick(tick) => schedule::tick(connection, &self.modes, tick),
            Request::Schedule(name, row) => schedule::put(connection, name, row.as_ref()).map_err(failed),
            Request::Schedules => schedule::all(connection).map_err(failed),
            Request::Move(moving) => moves::take(connection, &self.modes, moving),
            Request::Moved(source) => moves::moved(connection, source).map_err(failed),
            Request::Forget(source) => moves::forget(connection, source).map_err(failed),
            Request::Count(rows, keep) => minutes::add(connection, rows, keep).map_err(failed),
            Request::Minutes(queue, since) => minutes::since(connection, queue, *since).map_err(failed),
            Request::Task(id) => read::task(connection, *id).map_err(failed),
            Request::Tasks(filter) => read::tasks(connection, filter).map_err(failed),
            Request::Counts(queue) => read::counts(connection, queue).map_err(failed),
            Request::Signs(queue, since) => signs::signs(connection, queue, *since).map_err(failed),
        }
    }

    fn note_mode(&mut self, request: &Request, answer: &Result<Answer, StoreError>) {
        if let (Request::Mode(queue, mode), Ok(_)) = (request, answer) {
            self.modes.insert(queue.to_string(), mode.clone());
        }
    }
}

fn begin(connection: &Connection) -> Result<(), StoreError> {
    let begun = connection
        .prepare_cached("BEGIN IMMEDIATE")
        .and_then(|mut begin| begin.execute([]));
    begun.map(drop).map_err(failed)
}

/// Has what is asked for to survive a loss of power before it is answered?
fn needs_sync(request: &Request) -> bool {
    match request {
        Request::Push(tasks, _) => tasks.iter().any(|task| task.full),
        // A row that went with its claim must not come back.
        Request::Claim(claim) => claim.forget,
        Request::Settle(settlement, _) => settlement.full,
        Request::Tick(_)
        | Request::Move(_)
        | Request::Schedule(..)
        | Request::Cancel(..)
        | Request::Again(..)
        | Request::Edit { .. }
        | Request::Remove(..)
        | Request::Purge(..)
        | Request::Mode(..) => true,
        Request::Renew(..)
        | Request::Upkeep { .. }
        | Request::Orphans { .. }
        | Request::Prune(..)
        | Request::Age(..)
        | Request::Count(..)
        | Request::Minutes(..)
        | Request::Moved(_)
        | Request::Forget(_)
        | Request::Modes
        | Request::Schedules
        | Request::Task(_)
        | Request::Tasks(_)
        | Request::Counts(_)
        | Request::Signs(..) => false,
    }
}

fn serve_reads(connection: &Connection, reads: &Receiver<(Request, Done)>) {
    while let Ok((request, done)) = reads.recv() {
        let answer = match &request {
            Request::Tasks(filter) => read::tasks(connection, filter),
            Request::Counts(queue) => read::counts(connection, queue),
            Request::Signs(queue, since) => signs::signs(connection, queue, *since),
            // Nothing else is sent here.
            _ => Err(rusqlite::Error::InvalidQuery),
        };
        done(answer.map_err(failed));
    }
}
