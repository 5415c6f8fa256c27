//! The disk thread: journal, pumps, segments, removals. It waits for storage so that others need not.
//!
//! Its state is behind a lock ([`Desk`]): an exit that a standing order follows is recorded by the spawner that
//! carries it out, while this thread sleeps. Mail is taken under the same lock, so order is kept whoever takes it.
//!
//! Order at an exit: drain, count survivors, append `Exited`, and only then is control told, who reaps.

use crate::control::Event;
use crate::limit;
use crate::log::{Journal, now};
use crate::mailbox::{Mailbox, Pace};
use crate::pump::{Pump, Target};
use crate::share::Share;
use crate::spawner::{SpawnJob, SpawnQueue, own_cgroup};
use crate::sys::{Ended, Epoll};
use crate::tree::{self, Tree};
use gaffer_shim::journal::{Record, RunIdWire, Status, Successor};
use gaffer_shim::message::{LogBounds, RefusedCode, Spawn};
use rustix::fd::OwnedFd;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// How long an exit waits for pipes that never become empty.
const DRAIN_NS: u64 = 100_000_000;
/// Pause before an append that found no room is tried again.
const RETRY_NS: u64 = 250_000_000;
/// Pause before an occupied cgroup is tried again.
const SWEEP_NS: u64 = 1_000_000_000;
/// Removals wait for so long without starts and ends: they share a lock with both.
const QUIET_NS: u64 = 50_000_000;
/// More waiting removals than this wait no longer.
const SWEEPS_MAX: usize = 4096;

/// What the disk thread is asked to do.
pub enum DiskJob {
    /// Append `Intent`, then hand over to a spawner.
    Intend {
        key: u64,
        spawn: Box<Spawn>,
        inflight: Arc<crate::spawner::InFlight>,
    },
    /// Read these pipes of a run, which are registered already.
    Attach(Vec<Attach>),
    /// A spawner could not append this; its event waits for it.
    Append { record: Box<Record>, event: Event },
    /// The main process is a zombie.
    Exit(Box<Exit>),
    /// Is anything of the tree left? If not, append `TreeGone`.
    Survey {
        key: u64,
        run: RunIdWire,
        cgroup: Option<String>,
    },
    /// New bounds.
    Bounds {
        conn: u64,
        req: u64,
        dir: String,
        bounds: LogBounds,
    },
    /// Write the epoch down.
    Epoch { conn: u64, epoch: u32 },
    /// Make this cgroup for a run to come. If it cannot be made, its start will say so.
    MakeCgroup { path: String },
    /// Remove this cgroup when there is time.
    Sweep { cgroup: String },
    /// Remove the socket: we leave.
    Leave,
}

/// A pipe of a run.
pub struct Attach {
    pub run: RunIdWire,
    pub target: Target,
    /// Where its stream ended when the run was intended; 0 also for labels nobody looked for.
    pub begin: u64,
    pub fd: OwnedFd,
    /// Where the guard finds it.
    pub place: Option<u32>,
    /// Somebody else has a descriptor of the same file: closing ours does not end watching it.
    pub shared: bool,
}

/// An exit that was peeked at.
pub struct Exit {
    pub key: u64,
    pub run: RunIdWire,
    pub pid: u32,
    pub ended: Ended,
    pub cgroup: Option<String>,
    pub groups: Vec<String>,
    pub log_dir: String,
    pub sync: bool,
    /// Its standing order.
    pub next: Option<Box<SpawnJob>>,
}

/// The thread's state.
pub struct Disk {
    pub dir: PathBuf,
    pub journal: Arc<Journal>,
    pub inbox: Arc<Mailbox<DiskJob>>,
    pub control: Arc<Mailbox<Event>>,
    pub spawners: Arc<SpawnQueue>,
    /// Pipes are registered here by spawners.
    pub epoll: Arc<Epoll>,
    pump: Pump,
    /// Appends that found no room, in order; nothing overtakes them.
    waiting: VecDeque<(Record, Event)>,
    retry_at: u64,
    sweeps: VecDeque<String>,
    sweep_at: u64,
    /// To be told when the journal is synced.
    after_sync: Vec<Event>,
}

/// So many facts are one append at most. Spawners that sleep wait for the first ones.
const STARTS_AT_ONCE: usize = 16;
const ENDS_AT_ONCE: usize = 64;

const INBOX: u64 = 1;

/// Facts to be appended together, and what follows: either starts or ends.
#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    starts: Vec<SpawnJob>,
    ends: Vec<Event>,
}

impl Batch {
    fn start(&mut self, record: Record, job: SpawnJob) {
        self.records.push(record);
        self.starts.push(job);
    }

    fn end(&mut self, record: Record, event: Event) {
        self.records.push(record);
        self.ends.push(event);
    }
}

/// The state, for whoever has its lock.
pub struct Desk {
    disk: Mutex<Disk>,
    inbox: Arc<Mailbox<DiskJob>>,
}

impl Desk {
    /// Of a thread that is to [`Desk::run`].
    pub fn new(disk: Disk) -> Desk {
        Desk {
            inbox: disk.inbox.clone(),
            disk: Mutex::new(disk),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk thread, until the process ends.
    pub fn run(&self) -> ! {
        let epoll = self.lock().epoll.clone();
        let (mut pace, mut events) = (Pace::default(), Vec::new());
        loop {
            let deadline = self.lock().deadline_ns();
            let timeout_ns = deadline.map(|at| at.saturating_sub(now().1));
            pace.wait(&self.inbox, timeout_ns, |ns| epoll.wait(ns, &mut events));
            let mut disk = self.lock();
            disk.turn(pace.take(&self.inbox), &events);
        }
    }

    /// Records an end for the disk thread, and gives the start that follows. The end is given back if that thread is at
    /// work.
    pub fn try_exit(&self, exit: Box<Exit>) -> Result<Option<SpawnJob>, Box<Exit>> {
        let mut disk = match self.disk.try_lock() {
            Ok(disk) => disk,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(exit),
        };
        let before = disk.deadline_ns();
        disk.take(self.inbox.take());
        let job = disk.exit(*exit, None);
        disk.tell_dropped();
        if let Some(at) = disk.deadline_ns()
            && before.is_none_or(|before| at < before)
        {
            // The disk thread sleeps longer than that.
            self.inbox.ring();
        }
        Ok(job)
    }
}

impl Disk {
    /// Ready to run.
    pub fn new(
        dir: PathBuf,
        journal: Arc<Journal>,
        inbox: Arc<Mailbox<DiskJob>>,
        control: Arc<Mailbox<Event>>,
        spawners: Arc<SpawnQueue>,
        share: &'static Share,
    ) -> io::Result<Disk> {
        let epoll = Arc::new(Epoll::new()?);
        epoll.add(&*inbox, libc::EPOLLIN, INBOX)?;
        let pump = Pump::new(epoll.clone(), share)?;
        Ok(Disk {
            dir,
            journal,
            inbox,
            control,
            spawners,
            epoll,
            pump,
            waiting: VecDeque::new(),
            retry_at: 0,
            sweeps: VecDeque::new(),
            sweep_at: 0,
            after_sync: Vec::new(),
        })
    }

    /// One turn: mail, then what pipes and clocks say.
    fn turn(&mut self, mail: VecDeque<DiskJob>, events: &[(u64, u32)]) {
        self.take(mail);
        for (token, _) in events {
            if *token != INBOX {
                // Of a pipe that is closed meanwhile, or another one by now: then there is nothing, or the next look
                // comes early.
                self.pump.ready(*token, &self.journal);
            }
        }
        let (_, now) = now();
        self.pump.due(now, &self.journal);
        self.tell_dropped();
        self.retry(now);
        self.sweep(now);
    }

    /// Does what the mail asks for, in its order. Facts of the same kind that come one after the other are one append.
    fn take(&mut self, mail: VecDeque<DiskJob>) {
        let mut batch = Batch::default();
        for job in mail {
            match job {
                DiskJob::Intend { key, spawn, inflight } => {
                    if batch.starts.len() >= STARTS_AT_ONCE || !batch.ends.is_empty() {
                        self.append_batch(&mut batch);
                    }
                    self.busy();
                    self.intend(key, spawn, inflight, &mut batch);
                }
                DiskJob::Exit(exit) => {
                    if batch.ends.len() >= ENDS_AT_ONCE || !batch.starts.is_empty() {
                        self.append_batch(&mut batch);
                    }
                    if let Some(job) = self.exit(*exit, Some(&mut batch)) {
                        self.spawners.push(job);
                    }
                }
                // These append nothing.
                DiskJob::Attach(_) | DiskJob::MakeCgroup { .. } | DiskJob::Sweep { .. } => self.handle(job),
                _ => {
                    self.append_batch(&mut batch);
                    self.handle(job);
                }
            }
        }
        self.append_batch(&mut batch);
        self.tell_synced();
    }

    /// What cannot be appended together is tried one by one.
    fn append_batch(&mut self, batch: &mut Batch) {
        let Batch {
            records,
            starts,
            ends,
        } = std::mem::take(batch);
        if records.is_empty() {
            return;
        }
        if self.waiting.is_empty()
            && let Ok(position) = self.journal.append(&records)
        {
            self.control.send_all(ends.into_iter().map(|mut event| {
                event.set_position(position);
                event
            }));
            return self.spawners.push_all(starts.into_iter());
        }
        // All are starts, or all are ends.
        for (record, event) in records.iter().zip(ends) {
            self.append(record.clone(), event, false);
        }
        for (record, job) in records.iter().zip(starts) {
            self.intend_alone(record, job);
        }
    }

    fn tell_dropped(&mut self) {
        if std::mem::take(&mut self.pump.told) {
            self.tell(Event::Dropped {
                position: Default::default(),
            });
        }
    }

    /// When something is due; `None` at rest.
    fn deadline_ns(&self) -> Option<u64> {
        let retry = (!self.waiting.is_empty()).then_some(self.retry_at);
        let sweep = (!self.sweeps.is_empty()).then_some(self.sweep_at);
        let pump = self.pump.next_deadline_ns();
        pump.into_iter().chain(retry).chain(sweep).min()
    }

    fn handle(&mut self, job: DiskJob) {
        match job {
            // Not one by one: see `take`.
            DiskJob::Intend { .. } | DiskJob::Exit(_) => {}
            DiskJob::Attach(pipes) => {
                for attach in pipes {
                    // A pipe without a stream is closed: the program gets EPIPE, nobody gets silence.
                    let _ = self.pump.attach(attach);
                }
            }
            DiskJob::Append { record, event } => self.append(*record, event, false),
            DiskJob::Survey { key, run, cgroup } => self.survey(key, run, cgroup),
            DiskJob::Bounds {
                conn,
                req,
                dir,
                bounds,
            } => {
                self.pump.set_bounds(&dir, bounds);
                self.control.send(Event::Replied { conn, req });
            }
            DiskJob::Epoch { conn, epoch } => {
                let error = self.store_epoch(epoch).err();
                let position = self.journal.position();
                self.control.send(Event::EpochStored {
                    conn,
                    epoch,
                    position,
                    error,
                });
            }
            DiskJob::MakeCgroup { path } => drop(std::fs::create_dir(path)),
            DiskJob::Sweep { cgroup } => {
                if self.sweeps.is_empty() {
                    self.busy();
                }
                self.sweeps.push_back(cgroup);
            }
            DiskJob::Leave => {
                for cgroup in self.sweeps.drain(..) {
                    // What cannot be removed now is left to the daemon, as that of a killed shim is.
                    let _ = tree::remove(&cgroup, 0);
                }
                // The journal stays: only the daemon removes it, once everything in it is settled.
                let _ = std::fs::remove_file(self.dir.join("sock"));
                self.control.send(Event::Left);
            }
        }
    }

    /// Starts and ends come first.
    fn busy(&mut self) {
        if self.sweeps.len() < SWEEPS_MAX {
            self.sweep_at = self.sweep_at.max(now().1 + QUIET_NS);
        } else {
            self.sweep_at = 0;
        }
    }

    fn intend(
        &mut self,
        key: u64,
        spawn: Box<Spawn>,
        inflight: Arc<crate::spawner::InFlight>,
        batch: &mut Batch,
    ) {
        match self.begins(&spawn) {
            Ok(begins) => {
                let record = intent_of(&spawn, begins);
                let job = SpawnJob {
                    key,
                    spawn,
                    inflight,
                    begins,
                };
                batch.start(record, job);
            }
            Err(error) => self.refuse(key, &error),
        }
    }

    /// Where the streams end. While something waits to be appended there is no room for more.
    fn begins(&mut self, spawn: &Spawn) -> io::Result<[u64; 2]> {
        if !self.waiting.is_empty() {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        if self.pump.is_new(&spawn.log_dir) {
            return Ok([0; 2]);
        }
        let mut end = |name| self.pump.end_of(&spawn.log_dir, name, spawn.bounds);
        Ok([end("stdout")?, end("stderr")?])
    }

    fn intend_alone(&mut self, record: &Record, job: SpawnJob) {
        let appended = match self.waiting.is_empty() {
            true => self.journal.append(std::slice::from_ref(record)).map(drop),
            false => Err(rustix::io::Errno::NOSPC.into()),
        };
        match appended {
            Ok(()) => self.spawners.push(job),
            Err(error) => self.refuse(job.key, &error),
        }
    }

    fn refuse(&self, key: u64, error: &io::Error) {
        self.control.send(Event::Refused {
            key,
            code: RefusedCode::Journal,
            text: format!("cannot write the intent: {error}"),
        });
    }

    /// Appends a fact that must not be lost, now or as soon as there is room, then tells control.
    fn append(&mut self, record: Record, event: Event, sync: bool) {
        if self.waiting.is_empty() && self.journal.append(std::slice::from_ref(&record)).is_ok() {
            if sync {
                self.after_sync.push(event);
            } else {
                self.tell(event);
            }
            return;
        }
        self.waiting.push_back((record, event));
        self.retry_at = now().1 + RETRY_NS;
    }

    fn tell(&self, mut event: Event) {
        event.set_position(self.journal.position());
        self.control.send(event);
    }

    /// One sync for all exits of this round.
    fn tell_synced(&mut self) {
        if self.after_sync.is_empty() {
            return;
        }
        // A failed sync is not repaired by waiting: the record is in the page cache, which a crash of
        // any process leaves intact.
        let _ = self.journal.sync();
        for event in std::mem::take(&mut self.after_sync) {
            self.tell(event);
        }
    }

    fn retry(&mut self, now: u64) {
        if self.waiting.is_empty() || now < self.retry_at {
            return;
        }
        while let Some((record, _)) = self.waiting.front() {
            if self.journal.append(std::slice::from_ref(record)).is_err() {
                self.retry_at = now + RETRY_NS;
                return;
            }
            if let Some((_, event)) = self.waiting.pop_front() {
                self.tell(event);
            }
        }
    }

    /// Records an end, alone or with others, and gives the start that follows it by standing order.
    fn exit(&mut self, mut exit: Exit, batch: Option<&mut Batch>) -> Option<SpawnJob> {
        self.busy();
        crate::stop::at(9);
        let drained = self.pump.drain(exit.run, now().1 + DRAIN_NS, &self.journal);
        let cgroup = exit.cgroup.as_deref();
        let survivors = self.survivors(exit.run, cgroup, Some(exit.pid));
        let (wall_ms, mono_ns) = now();
        let record = Record::Exited {
            run: exit.run,
            status: exit.ended.status,
            rusage: exit.ended.usage,
            oom: may_be_oom(exit.ended.status)
                && (cgroup.is_some_and(tree::killed_for_memory) || limit::killed_for_memory(&exit.groups)),
            survivors,
            out_offset: self.pump.known_end(&exit.log_dir, "stdout"),
            err_offset: self.pump.known_end(&exit.log_dir, "stderr"),
            drained,
            wall_ms,
            mono_ns,
            by_guard: false,
            pid: exit.pid,
            successor: None,
        };
        if let Some(job) = exit.next.take() {
            if survivors == 0 && !exit.sync {
                if let Some(batch) = batch {
                    self.append_batch(batch);
                }
                return self.succeed(record, exit.key, *job);
            }
            self.sweeps.extend(own_cgroup(&job.spawn));
        }
        let event = Event::Exited {
            key: exit.key,
            survivors,
            succeeded: false,
            position: Default::default(),
        };
        match batch {
            Some(batch) if !exit.sync => batch.end(record, event),
            // What is synced is told later: what comes before it need not wait for it.
            _ => self.append(record, event, exit.sync),
        }
        None
    }

    /// Carries out a standing order, as far as it is to be recorded.
    fn succeed(&mut self, mut exited: Record, key: u64, mut job: SpawnJob) -> Option<SpawnJob> {
        if let Record::Exited {
            successor,
            out_offset,
            err_offset,
            ..
        } = &mut exited
        {
            job.begins = [*out_offset, *err_offset];
            *successor = Some(Successor {
                run: job.spawn.run,
                stamp: job.spawn.stamp,
            });
        }
        let mut both = [exited, intent_of(&job.spawn, job.begins)];
        let succeeded = self.waiting.is_empty() && self.journal.append(&both).is_ok();
        let mut event = Event::Exited {
            key,
            survivors: 0,
            succeeded,
            position: Default::default(),
        };
        if succeeded {
            // First: control has to know of the run before its spawner can tell of it.
            self.tell(event);
            return Some(job);
        }
        if let Record::Exited { successor, .. } = &mut both[0] {
            *successor = None;
        }
        let [exited, _] = both;
        self.append(exited, event, false);
        // The end may be on file with its successor's name and without its intent: whoever has read that is told.
        let (wall_ms, mono_ns) = now();
        event = Event::Spawned {
            key: job.key,
            outcome: Err(crate::control::Failed { cgroup: None }),
            position: Default::default(),
        };
        let unborn = Record::StartFailed {
            run: job.spawn.run,
            stage: "journal".to_owned(),
            errno: libc::ENOSPC,
            text: String::new(),
            wall_ms,
            mono_ns,
        };
        self.append(unborn, event, false);
        self.sweeps.extend(own_cgroup(&job.spawn));
        None
    }

    fn survivors(&self, run: RunIdWire, cgroup: Option<&str>, leader: Option<u32>) -> u32 {
        match cgroup {
            Some(path) if !tree::populated(path) => 0,
            Some(_) => Tree { run, cgroup, leader }.survivors(),
            None => {
                // Whoever survives its main process has come to us. Without such orphans no scan is needed.
                if tree::strangers().is_empty() {
                    0
                } else {
                    Tree { run, cgroup, leader }.survivors()
                }
            }
        }
    }

    fn survey(&mut self, key: u64, run: RunIdWire, cgroup: Option<String>) {
        if self.survivors(run, cgroup.as_deref(), None) > 0 {
            return self.control.send(Event::Survives { key });
        }
        let (wall_ms, mono_ns) = now();
        // What the last ones wrote belongs to the run.
        self.pump.drain(run, mono_ns + DRAIN_NS, &self.journal);
        let event = Event::TreeGone {
            key,
            position: Default::default(),
        };
        self.append(
            Record::TreeGone {
                run,
                wall_ms,
                mono_ns,
            },
            event,
            false,
        );
    }

    fn store_epoch(&self, epoch: u32) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        // In place: the file was made at the start, so this finds room on a full disk.
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(self.dir.join("epoch"))?;
        file.write_all_at(format!("{epoch:010}\n").as_bytes(), 0)
    }

    /// Removes cgroups, one per round and only when nothing else is to be done.
    fn sweep(&mut self, now: u64) {
        if now < self.sweep_at {
            return;
        }
        let Some(cgroup) = self.sweeps.pop_front() else {
            return;
        };
        if !tree::remove(&cgroup, 0) {
            self.sweeps.push_back(cgroup);
            self.sweep_at = now + SWEEP_NS;
        }
    }
}

/// What ended well, or by a signal that the kernel does not use for it, needs no look.
fn may_be_oom(status: Status) -> bool {
    match status {
        Status::Code(code) => code != 0,
        Status::Signal(signal, _) => signal == libc::SIGKILL,
        Status::Unknown => true,
    }
}

fn intent_of(spawn: &Spawn, [out_offset, err_offset]: [u64; 2]) -> Record {
    let (wall_ms, mono_ns) = now();
    Record::Intent {
        run: spawn.run,
        slot: spawn.slot.clone(),
        stamp: spawn.stamp,
        attempt: spawn.attempt,
        out_offset,
        err_offset,
        wall_ms,
        mono_ns,
        label: spawn.label.clone(),
        cgroup: own_cgroup(spawn),
        log_dir: spawn.log_dir.clone(),
        streams: spawn.streams.clone(),
    }
}
