//! The control thread: connections, exits, deadlines. It waits for nothing but news.
//!
//! *Invariant.* It never clones and never touches storage: what needs either goes to a mailbox. (Reads of
//! /proc and cgroupfs are neither.)
//!
//! | phase of a run | ends by |
//! |---|---|
//! | `Starting` | disk: intent refused; spawner: `Started` or `StartFailed`; deadline: child killed, then given up |
//! | `Alive` | its pidfd: peeked |
//! | `Ending` | disk: `Exited` on file; reaped here |
//! | `Exited` | its cgroup is empty, or its last orphan was reaped: `TreeGone` on file |

use crate::conn::{Conn, Standing};
use crate::disk::{DiskJob, Exit};
use crate::mailbox::Mailbox;
use crate::share::Share;
use crate::spawner::{InFlight, SPAWNERS_MAX};
use crate::sys::{self, Epoll, Whom};
use gaffer_shim::identity::{mono_ns, wall_ms};
use gaffer_shim::journal::{Position, Record, RunIdWire};
use gaffer_shim::message::{FromShim, Leash, LiveRun, RefusedCode, SlotLast, Spawn, Stop, ToShim, VERSION};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// Without runs and connection for this long, the shim leaves.
pub const IDLE_MS: u64 = 60_000;
/// How long a child may take to its exec if the request does not say.
const START_DEADLINE_MS: u64 = 10_000;
/// How long a killed child may take to end before the start is given up.
const HANG_MS: u64 = 1_000;
/// Descriptors kept for supervision itself: connections, segments being written, scans.
const RESERVE: u64 = 64 + 128;
/// Connections that have not said Hello.
const NEW_MAX: usize = 16;
/// Slots without a run that are remembered.
const SLOTS_MAX: usize = 16_384;

/// What other threads tell control.
pub enum Event {
    /// The intent could not be written.
    Refused {
        key: u64,
        code: RefusedCode,
        text: String,
    },
    /// A start came to its end.
    Spawned {
        key: u64,
        outcome: Result<Box<Born>, Failed>,
        position: Position,
    },
    /// `Exited` is on file.
    Exited {
        key: u64,
        survivors: u32,
        position: Position,
    },
    /// `TreeGone` is on file.
    TreeGone { key: u64, position: Position },
    /// A request was carried out.
    Replied { conn: u64, req: u64 },
    /// The epoch is on file (or cannot be).
    EpochStored {
        conn: u64,
        epoch: u32,
        position: Position,
        error: Option<io::Error>,
    },
    /// The socket is removed.
    Left,
}

impl Event {
    /// Where the journal ended when it was written.
    pub fn set_position(&mut self, at: Position) {
        match self {
            Event::Spawned { position, .. }
            | Event::Exited { position, .. }
            | Event::TreeGone { position, .. }
            | Event::EpochStored { position, .. } => *position = at,
            Event::Refused { .. } | Event::Replied { .. } | Event::Left => {}
        }
    }
}

/// A run that has begun.
pub struct Born {
    pub pid: u32,
    pub pidfd: OwnedFd,
    pub stdin: Option<OwnedFd>,
    pub terminal: Option<OwnedFd>,
    pub labelled: Vec<(String, OwnedFd)>,
    pub cgroup: Option<String>,
    pub wall_ms: i64,
    pub mono_ns: u64,
}

/// A start that failed.
pub struct Failed {
    /// To be removed.
    pub cgroup: Option<String>,
}

/// See the module's table.
pub enum Phase {
    Starting(Arc<InFlight>),
    Alive,
    Ending,
    Exited,
}

/// A run in the table.
pub struct Live {
    pub run: RunIdWire,
    pub slot: String,
    pub stamp: [u64; 2],
    pub phase: Phase,
    pub born: Option<Born>,
    pub frozen: bool,
    pub stop: Stop,
    pub sync: bool,
    pub log_dir: String,
    pub deadline_ms: u64,
    pub cost: u64,
    /// cgroup.events, watched while survivors live.
    pub watch: Option<OwnedFd>,
    pub input: Option<crate::requests::PendingInput>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    SpawnDeadline { key: u64 },
    SpawnHang { key: u64 },
    KillAfter { key: u64 },
    LeashWait { round: u64 },
    Idle { round: u64 },
}

/// The thread's state.
pub struct Control {
    pub epoll: Epoll,
    pub inbox: Arc<Mailbox<Event>>,
    pub disk: Arc<Mailbox<DiskJob>>,
    pub share: &'static Share,
    /// Starts one more spawner; false: it cannot.
    pub more_spawners: Box<dyn FnMut(i32) -> bool>,
    pub spawners: i32,
    pub nofile: u64,
    pub idle_ms: u64,
    pub guard_pid: u32,
    pub listener: Option<UnixListener>,
    pub sigchld: OwnedFd,
    pub conns: HashMap<u64, Conn>,
    pub active: Option<u64>,
    pub epoch: u32,
    pub position: Position,
    pub bell: bool,
    pub leash: Option<Leash>,
    pub leaving: bool,
    pub left: bool,
    pub runs: HashMap<u64, Live>,
    pub keys: HashMap<RunIdWire, u64>,
    pub pids: HashMap<u32, u64>,
    pub slots: HashMap<String, RunIdWire>,
    pub used: u64,
    pub next_key: u64,
    /// Round of the idle timer: an older one does nothing.
    idle_round: u64,
    /// Round of the leash timer.
    leash_round: u64,
    timers: BinaryHeap<Reverse<(u64, Timer)>>,
    stopping: bool,
}

/// Everything [`Control`] is made of that comes from outside.
pub struct Parts {
    pub inbox: Arc<Mailbox<Event>>,
    pub disk: Arc<Mailbox<DiskJob>>,
    pub share: &'static Share,
    pub more_spawners: Box<dyn FnMut(i32) -> bool>,
    pub nofile: u64,
    pub idle_ms: u64,
    pub guard_pid: u32,
    pub listener: UnixListener,
    pub sigchld: OwnedFd,
    pub epoch: u32,
    pub position: Position,
}

/// Kinds of epoll tokens, in the top byte.
pub mod token {
    pub const INBOX: u64 = 1 << 56;
    pub const LISTENER: u64 = 2 << 56;
    pub const SIGCHLD: u64 = 3 << 56;
    pub const CONN: u64 = 4 << 56;
    pub const PIDFD: u64 = 5 << 56;
    pub const WATCH: u64 = 6 << 56;
    pub const INPUT: u64 = 7 << 56;
    pub const KIND: u64 = 0xFF << 56;
}

impl Control {
    /// Ready to run.
    pub fn new(parts: Parts) -> io::Result<Control> {
        let epoll = Epoll::new()?;
        epoll.add(&*parts.inbox, libc::EPOLLIN, token::INBOX)?;
        epoll.add(&parts.listener, libc::EPOLLIN, token::LISTENER)?;
        epoll.add(&parts.sigchld, libc::EPOLLIN, token::SIGCHLD)?;
        parts.listener.set_nonblocking(true)?;
        let mut control = Control {
            epoll,
            inbox: parts.inbox,
            disk: parts.disk,
            share: parts.share,
            more_spawners: parts.more_spawners,
            spawners: 1,
            nofile: parts.nofile,
            idle_ms: parts.idle_ms,
            guard_pid: parts.guard_pid,
            listener: Some(parts.listener),
            sigchld: parts.sigchld,
            conns: HashMap::new(),
            active: None,
            epoch: parts.epoch,
            position: parts.position,
            bell: false,
            leash: None,
            leaving: false,
            left: false,
            runs: HashMap::new(),
            keys: HashMap::new(),
            pids: HashMap::new(),
            slots: HashMap::new(),
            used: RESERVE,
            next_key: 0,
            idle_round: 0,
            leash_round: 0,
            timers: BinaryHeap::new(),
            stopping: false,
        };
        control.arm_idle();
        Ok(control)
    }

    /// Until the shim leaves.
    pub fn run(mut self) {
        let mut events = Vec::new();
        while !self.left {
            let timeout_ms = self.timeout_ms();
            self.epoll.wait(timeout_ms, &mut events);
            for (token, _) in std::mem::take(&mut events) {
                self.dispatch(token);
            }
            self.due();
            self.ring();
        }
    }

    fn dispatch(&mut self, token: u64) {
        let id = token & !token::KIND;
        match token & token::KIND {
            token::INBOX => {
                for event in self.inbox.take() {
                    self.on_event(event);
                }
            }
            token::LISTENER => self.accept(),
            token::SIGCHLD => {
                let mut buffer = [0u8; 512];
                while rustix::io::read(&self.sigchld, &mut buffer).is_ok_and(|count| count > 0) {}
                self.reap_strangers();
            }
            token::CONN => self.on_conn(id),
            token::PIDFD => self.on_pidfd(id),
            token::WATCH => self.survey(id),
            token::INPUT => self.on_input_room(id),
            _ => {}
        }
    }

    // ── connections ──

    /// Takes a connection that was inherited or accepted.
    pub fn adopt(&mut self, conn: Conn) {
        self.next_key += 1;
        let id = self.next_key;
        if self
            .epoll
            .add(&conn.stream, libc::EPOLLIN, token::CONN | id)
            .is_err()
        {
            return;
        }
        self.share.conn_opened(conn.stream.as_raw_fd());
        self.conns.insert(id, conn);
        self.idle_round += 1;
    }

    fn accept(&mut self) {
        while let Some(listener) = &self.listener {
            let Ok((stream, _)) = listener.accept() else {
                return;
            };
            let waiting = self
                .conns
                .values()
                .filter(|c| c.standing == Standing::New)
                .count();
            if waiting < NEW_MAX && self.is_welcome(&stream) {
                match Conn::new(stream) {
                    Ok(conn) => self.adopt(conn),
                    Err(_) => continue,
                }
            }
        }
    }

    /// Our own user or root, and not one of our runs. This stops accidents, not attackers.
    fn is_welcome(&self, stream: &std::os::unix::net::UnixStream) -> bool {
        let Ok(peer) = rustix::net::sockopt::socket_peercred(stream) else {
            return false;
        };
        let ours = rustix::process::geteuid();
        if !peer.uid.is_root() && peer.uid != ours {
            return false;
        }
        let path = format!("/proc/{}/cgroup", peer.pid.as_raw_nonzero());
        let Ok(groups) = std::fs::read_to_string(path) else {
            return true;
        };
        let names: Vec<String> = self
            .runs
            .values()
            .filter(|live| live.born.as_ref().is_some_and(|born| born.cgroup.is_some()))
            .map(|live| live.run.to_string())
            .collect();
        let unified = groups
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .unwrap_or("");
        !unified
            .split('/')
            .any(|part| names.iter().any(|name| name == part))
    }

    fn on_conn(&mut self, id: u64) {
        loop {
            let Some(conn) = self.conns.get_mut(&id) else {
                return;
            };
            if conn.flush().is_err() {
                return self.close(id);
            }
            // What a greeted connection says next waits until its epoch is on file.
            if matches!(conn.standing, Standing::Greeted | Standing::Closing) {
                return self.watch_conn(id);
            }
            match conn.next_request() {
                Ok(Some(request)) => self.on_request(id, request),
                Ok(None) => match conn.fill() {
                    Ok(true) => {}
                    Ok(false) => return self.watch_conn(id),
                    Err(_) => return self.close(id),
                },
                Err(_) => return self.close(id),
            }
        }
    }

    /// Sets what epoll is asked for: input unless greeted, room while something waits to be written.
    pub fn watch_conn(&mut self, id: u64) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let reads = matches!(conn.standing, Standing::New | Standing::Active);
        let mut events = if reads { libc::EPOLLIN } else { 0 };
        if !conn.is_flushed() {
            events |= libc::EPOLLOUT;
        }
        // Registered since `adopt`: cannot fail.
        let _ = self.epoll.modify(&conn.stream, events, token::CONN | id);
    }

    /// Queues a message and writes what goes.
    pub fn say(&mut self, id: u64, message: &FromShim) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        conn.say(message);
        if conn.flush().is_err() {
            return self.close(id);
        }
        self.watch_conn(id);
    }

    fn close(&mut self, id: u64) {
        let Some(conn) = self.conns.remove(&id) else {
            return;
        };
        self.epoll.remove(&conn.stream);
        self.share.conn_closed(conn.stream.as_raw_fd());
        // The guard shares the table, not this descriptor's number: dropping it closes it for both.
        if self.active == Some(id) {
            self.active = None;
            if let (Some(leash), false) = (self.leash, conn.said_bye) {
                self.leash_round += 1;
                let round = self.leash_round;
                self.arm(leash.wait_ms, Timer::LeashWait { round });
            }
        }
        self.arm_idle();
    }

    fn on_request(&mut self, id: u64, request: ToShim) {
        let active = self.active == Some(id);
        match request {
            ToShim::Hello { epoch, leash, .. } => self.on_hello(id, epoch, leash),
            // Whatever comes before Hello is an error of the speaker.
            _ if !active => self.close(id),
            ToShim::Spawn(spawn) => self.on_spawn(id, *spawn),
            ToShim::Signal {
                req,
                run,
                signal,
                scope,
            } => {
                let result = self.signal(run, signal, scope);
                self.reply(id, req, result);
            }
            ToShim::KillTree { req, run } => {
                let result = self.kill_tree(run);
                self.reply(id, req, result);
            }
            ToShim::Freeze { req, run, on } => {
                let result = self.freeze(run, on);
                self.reply(id, req, result);
            }
            ToShim::Input {
                req,
                run,
                stream,
                data,
                eof,
            } => {
                self.input(id, req, run, &stream, data, eof);
            }
            ToShim::Resize { req, run, cols, rows } => {
                let result = self.resize(run, cols, rows);
                self.reply(id, req, result);
            }
            ToShim::LogsPolicy { req, log_dir, bounds } => {
                self.disk.send(DiskJob::Bounds {
                    conn: id,
                    req,
                    dir: log_dir,
                    bounds,
                });
            }
            ToShim::Bye => {
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.said_bye = true;
                }
            }
            ToShim::Exit => {
                self.leaving = true;
                self.leave_if_done();
            }
        }
    }

    /// Fences: older connections are closed with everything unread in them, lower epochs refused for ever.
    fn on_hello(&mut self, id: u64, epoch: u32, leash: Option<Leash>) {
        if epoch < self.epoch {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.standing = Standing::Closing;
            }
            return self.say(id, &FromShim::Fenced { epoch: self.epoch });
        }
        // Nobody is on a leash while somebody is in charge again.
        self.active = None;
        self.leash = leash;
        let others: Vec<u64> = self.conns.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            self.close(other);
        }
        self.epoch = epoch;
        self.active = Some(id);
        self.leash_round += 1;
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.standing = Standing::Greeted;
        }
        self.disk.send(DiskJob::Epoch { conn: id, epoch });
    }

    fn hello_reply(&self) -> FromShim {
        let table = self.runs.values().map(|live| {
            let born = live.born.as_ref();
            LiveRun {
                run: live.run,
                slot: live.slot.clone(),
                stamp: live.stamp,
                pid: born.map_or(0, |born| born.pid),
                started_mono_ns: born.map_or(0, |born| born.mono_ns),
                started_wall_ms: born.map_or(0, |born| born.wall_ms),
                exited: matches!(live.phase, Phase::Exited),
                frozen: live.frozen,
            }
        });
        let slots = self.slots.iter();
        FromShim::HelloReply {
            version: VERSION,
            epoch: self.epoch,
            pid: std::process::id(),
            guard_pid: self.guard_pid,
            position: self.position,
            table: table.collect(),
            slots: slots
                .map(|(slot, run)| SlotLast {
                    slot: slot.clone(),
                    run: *run,
                })
                .collect(),
        }
    }

    /// One bell for all that was appended in this round.
    fn ring(&mut self) {
        if !std::mem::take(&mut self.bell) {
            return;
        }
        let position = self.position;
        if let Some(id) = self.active
            && self
                .conns
                .get(&id)
                .is_some_and(|conn| conn.standing == Standing::Active)
        {
            self.say(id, &FromShim::Bell { position });
        }
    }

    fn appended(&mut self, position: Position) {
        self.position = self.position.max(position);
        self.bell = true;
    }

    // ── runs ──

    fn on_spawn(&mut self, conn: u64, spawn: Spawn) {
        let run = spawn.run;
        if self.keys.contains_key(&run) || self.slots.get(&spawn.slot) == Some(&run) {
            // Known: the answer is in the journal already, or will be.
            self.bell = true;
            return;
        }
        if let Err((code, text)) = self.admit(&spawn) {
            return self.say(conn, &FromShim::Refused { run, code, text });
        }
        self.next_key += 1;
        let key = self.next_key;
        let inflight = Arc::new(InFlight::default());
        let deadline_ms = match spawn.start_deadline_ms {
            0 => START_DEADLINE_MS,
            given => given,
        };
        let cost = cost(&spawn);
        let live = Live {
            run,
            slot: spawn.slot.clone(),
            stamp: spawn.stamp,
            phase: Phase::Starting(inflight.clone()),
            born: None,
            frozen: false,
            stop: spawn.stop,
            sync: spawn.sync,
            log_dir: spawn.log_dir.clone(),
            deadline_ms,
            cost,
            watch: None,
            input: None,
        };
        self.used += cost;
        self.keys.insert(run, key);
        self.remember_slot(&spawn.slot, run);
        self.runs.insert(key, live);
        self.arm(deadline_ms, Timer::SpawnDeadline { key });
        self.disk.send(DiskJob::Intend {
            key,
            spawn: Box::new(spawn),
            inflight,
        });
    }

    /// Compare-and-swap per slot, sense, room.
    fn admit(&self, spawn: &Spawn) -> Result<(), (RefusedCode, String)> {
        let refuse = |code, text: String| Err((code, text));
        if self.leaving || self.stopping {
            return refuse(RefusedCode::Leaving, "this shim is leaving".to_owned());
        }
        if let Some(last) = self.slots.get(&spawn.slot) {
            if self.keys.contains_key(last) {
                return refuse(RefusedCode::SlotBusy, format!("run {last} lives in this slot"));
            }
            if spawn.after != Some(*last) {
                return refuse(RefusedCode::Outdated, format!("the slot's last run is {last}"));
            }
        }
        if let Some(what) = crate::requests::nonsense(spawn) {
            return refuse(RefusedCode::Invalid, what);
        }
        let cost = cost(spawn);
        if self.used + cost > self.nofile {
            let text = format!(
                "{} runs use {} of {} descriptors, this one needs {cost}",
                self.runs.len(),
                self.used,
                self.nofile
            );
            return refuse(RefusedCode::NoDescriptors, text);
        }
        Ok(())
    }

    fn remember_slot(&mut self, slot: &str, run: RunIdWire) {
        if self.slots.len() >= SLOTS_MAX && !self.slots.contains_key(slot) {
            let keys = &self.keys;
            let mut over: Vec<RunIdWire> = self
                .slots
                .values()
                .copied()
                .filter(|run| !keys.contains_key(run))
                .collect();
            over.sort_unstable();
            over.truncate(over.len() / 2);
            let oldest: std::collections::HashSet<RunIdWire> = over.into_iter().collect();
            self.slots.retain(|_, run| !oldest.contains(run));
        }
        self.slots.insert(slot.to_owned(), run);
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Refused { key, code, text } => {
                let run = self.runs.get(&key).map(|live| live.run);
                self.forget(key, None);
                if let (Some(run), Some(conn)) = (run, self.active) {
                    self.say(conn, &FromShim::Refused { run, code, text });
                }
            }
            Event::Spawned {
                key,
                outcome,
                position,
            } => {
                self.appended(position);
                match outcome {
                    Ok(born) => self.on_born(key, *born),
                    Err(failed) => self.forget(key, failed.cgroup),
                }
                self.reap_strangers();
            }
            Event::Exited {
                key,
                survivors,
                position,
            } => {
                self.appended(position);
                self.on_exited(key, survivors);
            }
            Event::TreeGone { key, position } => {
                self.appended(position);
                let cgroup = self.cgroup_of(key);
                self.forget(key, cgroup);
            }
            Event::Replied { conn, req } => self.reply(conn, req, Ok(())),
            Event::EpochStored {
                conn,
                epoch,
                position,
                error,
            } => {
                self.position = self.position.max(position);
                self.on_epoch_stored(conn, epoch, error.is_some());
            }
            Event::Left => self.left = true,
        }
    }

    fn on_epoch_stored(&mut self, id: u64, epoch: u32, failed: bool) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        if epoch != self.epoch || conn.standing != Standing::Greeted {
            return;
        }
        if failed {
            // Without it, a lower epoch could be let in later: nobody is in charge then.
            return self.close(id);
        }
        conn.standing = Standing::Active;
        let reply = self.hello_reply();
        self.say(id, &reply);
        self.on_conn(id);
    }

    fn cgroup_of(&self, key: u64) -> Option<String> {
        self.runs.get(&key)?.born.as_ref()?.cgroup.clone()
    }

    fn on_born(&mut self, key: u64, born: Born) {
        let Some(live) = self.runs.get_mut(&key) else {
            return;
        };
        self.pids.insert(born.pid, key);
        // Cannot fail but for memory; then the exit is found by the SIGCHLD sweep.
        let _ = self.epoll.add(&born.pidfd, libc::EPOLLIN, token::PIDFD | key);
        live.born = Some(born);
        live.phase = Phase::Alive;
        if self.stopping {
            self.stop_for_leash(key);
        }
    }

    fn on_pidfd(&mut self, key: u64) {
        let Some(live) = self.runs.get_mut(&key) else {
            return;
        };
        let Some(born) = &live.born else { return };
        if !matches!(live.phase, Phase::Alive) {
            return;
        }
        let ended = match sys::peek(Whom::Pidfd(born.pidfd.as_fd())) {
            Ok(Some(ended)) => ended,
            Ok(None) => return,
            // Not our child any more? Then nobody knows, and that is what is recorded.
            Err(_) => sys::Ended {
                pid: born.pid as i32,
                status: gaffer_shim::journal::Status::Unknown,
                usage: Default::default(),
            },
        };
        self.epoll.remove(&born.pidfd);
        live.phase = Phase::Ending;
        self.disk.send(DiskJob::Exit(Box::new(Exit {
            key,
            run: live.run,
            pid: born.pid,
            ended,
            cgroup: born.cgroup.clone(),
            log_dir: live.log_dir.clone(),
            sync: live.sync,
        })));
    }

    /// The status is on file: only now the zombie may go.
    fn on_exited(&mut self, key: u64, survivors: u32) {
        let Some(live) = self.runs.get_mut(&key) else {
            return;
        };
        let Some(born) = &live.born else { return };
        // It is a zombie of ours; anything else was recorded as unknown.
        let _ = sys::reap(Whom::Pidfd(born.pidfd.as_fd()));
        self.pids.remove(&born.pid);
        if survivors == 0 {
            let cgroup = born.cgroup.clone();
            self.forget(key, cgroup);
        } else {
            live.phase = Phase::Exited;
            if let Some(path) = &born.cgroup {
                let events = format!("{path}/cgroup.events");
                live.watch = std::fs::File::open(events).ok().map(OwnedFd::from);
            }
            if let Some(watch) = &live.watch {
                // Nothing is watched if this fails; the next death of an orphan is as good a sign.
                let _ = self.epoll.add(watch, libc::EPOLLPRI, token::WATCH | key);
            }
            // It may have become empty before the watch began.
            self.survey(key);
        }
        self.reap_strangers();
    }

    /// Something about a run's survivors may have changed.
    fn survey(&mut self, key: u64) {
        use std::os::unix::fs::FileExt;
        let Some(live) = self.runs.get(&key) else {
            return;
        };
        if !matches!(live.phase, Phase::Exited) {
            return;
        }
        let cgroup = live.born.as_ref().and_then(|born| born.cgroup.clone());
        if let Some(watch) = live.watch.as_ref().and_then(|watch| watch.try_clone().ok()) {
            // Reading re-arms the notification; most of them are about something else.
            let mut text = [0; 128];
            let count = std::fs::File::from(watch).read_at(&mut text, 0).unwrap_or(0);
            if text[..count].windows(11).any(|window| window == b"populated 1") {
                return;
            }
        }
        self.disk.send(DiskJob::Survey {
            key,
            run: live.run,
            cgroup,
        });
    }

    /// A run is over: the slot is free.
    fn forget(&mut self, key: u64, cgroup: Option<String>) {
        let Some(live) = self.runs.remove(&key) else {
            return;
        };
        self.keys.remove(&live.run);
        self.used -= live.cost;
        if let Some(born) = &live.born {
            self.epoll.remove(&born.pidfd);
            self.pids.remove(&born.pid);
        }
        if let Some(watch) = &live.watch {
            self.epoll.remove(watch);
        }
        self.drop_input(live.input.as_ref());
        if let Some(cgroup) = cgroup {
            self.disk.send(DiskJob::Sweep { cgroup });
        }
        self.leave_if_done();
        self.arm_idle();
    }

    /// Orphans of runs come to us. They are reaped by peeking: what is known belongs to its own path.
    fn reap_strangers(&mut self) {
        let mut reaped = false;
        while let Ok(Some(ended)) = sys::peek(Whom::Any) {
            let known = self.pids.get(&(ended.pid as u32)).copied();
            if let Some(key) = known {
                self.on_pidfd(key);
                break;
            }
            let starting = self.runs.values().any(|live| match &live.phase {
                Phase::Starting(inflight) => inflight.pid.load(SeqCst) == ended.pid,
                _ => false,
            });
            if starting {
                break;
            }
            let _ = sys::reap(Whom::Pid(ended.pid));
            reaped = true;
        }
        if reaped {
            let exited = self
                .runs
                .iter()
                .filter(|(_, live)| matches!(live.phase, Phase::Exited) && live.watch.is_none());
            for key in exited.map(|(key, _)| *key).collect::<Vec<_>>() {
                self.survey(key);
            }
        }
    }

    // ── time ──

    fn arm(&mut self, after_ms: u64, timer: Timer) {
        self.timers
            .push(Reverse((mono_ns() + after_ms * 1_000_000, timer)));
    }

    /// Timers that cannot do anything any more do not wake anybody.
    fn timeout_ms(&mut self) -> Option<u64> {
        while let Some(Reverse((_, timer))) = self.timers.peek() {
            let stale = match timer {
                Timer::SpawnDeadline { key } | Timer::SpawnHang { key } => !self
                    .runs
                    .get(key)
                    .is_some_and(|l| matches!(l.phase, Phase::Starting(_))),
                Timer::KillAfter { key } => !self.runs.contains_key(key),
                Timer::LeashWait { round } => *round != self.leash_round,
                Timer::Idle { round } => *round != self.idle_round,
            };
            if !stale {
                break;
            }
            self.timers.pop();
        }
        let Reverse((at, _)) = self.timers.peek()?;
        Some(at.saturating_sub(mono_ns()).div_ceil(1_000_000))
    }

    fn due(&mut self) {
        let now = mono_ns();
        while self.timeout_ms() == Some(0) {
            let Some(Reverse((_, timer))) = self.timers.pop() else {
                return;
            };
            match timer {
                Timer::SpawnDeadline { key } => self.on_spawn_deadline(key, now),
                Timer::SpawnHang { key } => self.on_spawn_hang(key),
                Timer::KillAfter { key } => {
                    if let Some(run) = self.runs.get(&key).map(|live| live.run) {
                        // A run that ended meanwhile is what was wanted.
                        let _ = self.kill_tree(run);
                    }
                }
                Timer::LeashWait { .. } => {
                    self.stopping = true;
                    self.leaving = true;
                    for key in self.runs.keys().copied().collect::<Vec<_>>() {
                        self.stop_for_leash(key);
                    }
                    self.leave_if_done();
                }
                Timer::Idle { .. } => {
                    self.leaving = true;
                    self.leave_if_done();
                }
            }
        }
    }

    fn on_spawn_deadline(&mut self, key: u64, now: u64) {
        let Some(live) = self.runs.get(&key) else {
            return;
        };
        let (Phase::Starting(inflight), deadline_ms) = (&live.phase, live.deadline_ms) else {
            return;
        };
        let begun = inflight.begun_ns.load(SeqCst);
        let waited_ms = if begun == 0 {
            0
        } else {
            now.saturating_sub(begun) / 1_000_000
        };
        if waited_ms < deadline_ms {
            self.arm(deadline_ms - waited_ms, Timer::SpawnDeadline { key });
            return;
        }
        inflight.kill();
        self.arm(HANG_MS, Timer::SpawnHang { key });
    }

    /// Even SIGKILL does not end it: another spawner serves the others.
    fn on_spawn_hang(&mut self, key: u64) {
        if self.spawners < SPAWNERS_MAX && (self.more_spawners)(self.spawners) {
            self.spawners += 1;
        }
        let Some(live) = self.runs.get(&key) else {
            return;
        };
        let Phase::Starting(inflight) = &live.phase else {
            return;
        };
        if !inflight.give_up() {
            return;
        }
        let record = Record::StartFailed {
            run: live.run,
            stage: "exec-stuck".to_owned(),
            errno: 0,
            text: format!("no exec within {} ms, and not killable", live.deadline_ms),
            wall_ms: wall_ms(),
            mono_ns: mono_ns(),
        };
        let outcome = Err(Failed { cgroup: None });
        let event = Event::Spawned {
            key,
            outcome,
            position: Default::default(),
        };
        self.disk.send(DiskJob::Append {
            record: Box::new(record),
            event,
        });
    }

    fn stop_for_leash(&mut self, key: u64) {
        let Some(live) = self.runs.get(&key) else {
            return;
        };
        let (run, stop) = (live.run, live.stop);
        if live.born.is_none() {
            return;
        }
        if matches!(live.phase, Phase::Exited) {
            let _ = self.kill_tree(run);
            return;
        }
        // Whoever cannot be signalled any more has ended; KILL follows in any case.
        let _ = self.signal(run, stop.signal, stop.scope);
        self.arm(stop.timeout_ms, Timer::KillAfter { key });
    }

    fn arm_idle(&mut self) {
        if self.runs.is_empty() && self.conns.is_empty() && !self.left {
            self.idle_round += 1;
            let round = self.idle_round;
            self.arm(self.idle_ms, Timer::Idle { round });
        }
    }

    fn leave_if_done(&mut self) {
        if self.leaving
            && self.runs.is_empty()
            && let Some(listener) = self.listener.take()
        {
            self.epoll.remove(&listener);
            self.share.listener_closed();
            self.disk.send(DiskJob::Leave);
        }
    }
}

/// Descriptors a run holds at most.
fn cost(spawn: &Spawn) -> u64 {
    let stdin = u64::from(spawn.stdin == gaffer_shim::message::Stdin::Pipe);
    let terminal = u64::from(spawn.pty.is_some());
    // pidfd, stdout, stderr, the watch on survivors, both sides of each label.
    4 + stdin + terminal + 2 * spawn.streams.len() as u64
}
