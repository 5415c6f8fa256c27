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
use crate::disk::DiskJob;
use crate::mailbox::{Mailbox, Pace};
use crate::share::Share;
use crate::spawner::{InFlight, SPAWNERS, SpawnQueue};
use crate::sys::Epoll;
use crate::timers::Timer;
use gaffer_shim::journal::{Position, RunIdWire};
use gaffer_shim::limit::SHIM_RESERVE;
use gaffer_shim::message::{FromShim, Leash, LiveRun, RefusedCode, Scope, SlotLast, Spawn, Stop, ToShim};
use rustix::fd::{AsRawFd, OwnedFd};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

/// Without runs and connection for this long, the shim leaves.
pub const IDLE_MS: u64 = 60_000;
/// While there are no descriptors for further connections, how long until the next attempt.
const ACCEPT_PAUSE_MS: u64 = 200;
/// Connections that have not said Hello.
const NEW_MAX: usize = 16;

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
        /// Its standing order was carried out.
        succeeded: bool,
        position: Position,
    },
    /// `TreeGone` is on file.
    TreeGone { key: u64, position: Position },
    /// Bytes that found no room are on file.
    Dropped { position: Position },
    /// Survivors are left.
    Survives { key: u64 },
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
            | Event::Dropped { position }
            | Event::EpochStored { position, .. } => *position = at,
            Event::Refused { .. } | Event::Survives { .. } | Event::Replied { .. } | Event::Left => {}
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
    /// CONT is due soon, for these of it.
    pub cont: Option<Scope>,
    pub stop: Stop,
    pub sync: bool,
    pub log_dir: String,
    pub deadline_ms: u64,
    pub cost: u64,
    /// Further groups, of its limits: to be removed with it.
    pub groups: Vec<String>,
    /// cgroup.events, watched while survivors live.
    pub watch: Option<OwnedFd>,
    pub input: Option<crate::requests::PendingInput>,
    /// Disk looks whether survivors are left.
    pub surveying: bool,
    /// Its successor, asked for before we heard of its end.
    pub held: Option<(u64, Box<Spawn>)>,
    /// What was asked of it before it was born, in order.
    pub early: Vec<(u64, ToShim)>,
    /// What follows its end without asking anybody.
    pub order: Option<Box<Spawn>>,
    /// That order on its way: its key and its place in the table, if it is carried out.
    pub next: Option<(u64, Box<Live>)>,
}

/// The thread's state.
pub struct Control {
    pub epoll: Epoll,
    pub pace: Pace,
    pub inbox: Arc<Mailbox<Event>>,
    pub disk: Arc<Mailbox<DiskJob>>,
    pub queue: Arc<SpawnQueue>,
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
    /// Boxed, as half of the table is empty.
    pub runs: HashMap<u64, Box<Live>>,
    pub keys: HashMap<RunIdWire, u64>,
    pub pids: HashMap<u32, u64>,
    pub slots: HashMap<String, RunIdWire>,
    pub used: u64,
    pub next_key: u64,
    /// Round of the idle timer: an older one does nothing.
    pub idle_round: u64,
    /// Round of the leash timer.
    pub leash_round: u64,
    pub timers: BinaryHeap<Reverse<(u64, Timer)>>,
    pub stopping: bool,
    /// Runs that are starting.
    pub starting: usize,
    /// Starts that wait for those, as bytes: a thousand at once are small then, and lie together.
    pub backlog: VecDeque<(u64, Vec<u8>)>,
    /// Memory will be given back soon.
    pub giving_back: bool,
    /// A child has ended since we last looked for orphans.
    pub child_ended: bool,
    /// Main processes that have ended and are not reaped yet.
    pub ending: usize,
    /// Connections with something to write that was queued in this round.
    pub spoken: Vec<u64>,
}

/// Everything [`Control`] is made of that comes from outside.
pub struct Parts {
    pub inbox: Arc<Mailbox<Event>>,
    pub disk: Arc<Mailbox<DiskJob>>,
    pub queue: Arc<SpawnQueue>,
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
            pace: Pace::default(),
            inbox: parts.inbox,
            disk: parts.disk,
            queue: parts.queue,
            share: parts.share,
            more_spawners: parts.more_spawners,
            spawners: SPAWNERS,
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
            used: SHIM_RESERVE,
            next_key: 0,
            idle_round: 0,
            leash_round: 0,
            timers: BinaryHeap::new(),
            stopping: false,
            starting: 0,
            backlog: VecDeque::new(),
            giving_back: false,
            child_ended: false,
            ending: 0,
            spoken: Vec::new(),
        };
        control.arm_idle();
        Ok(control)
    }

    /// Until the shim leaves.
    pub fn run(mut self) {
        let mut events = Vec::new();
        while !self.left {
            let timeout_ns = self.timeout_ms().map(|ms| ms * 1_000_000);
            let epoll = &self.epoll;
            self.pace
                .wait(&self.inbox, timeout_ns, |ns| epoll.wait(ns, &mut events));
            let mail = self.pace.take(&self.inbox);
            let round = std::mem::take(&mut events);
            // A new daemon is heard before the one in charge: its `Hello` fences what that one left in its socket.
            let (news, rest): (Vec<_>, Vec<_>) =
                round.into_iter().partition(|(token, _)| self.is_news(*token));
            for (token, _) in news {
                self.dispatch(token);
            }
            for event in mail {
                self.on_event(event);
            }
            for (token, _) in rest {
                self.dispatch(token);
            }
            self.spawn_on();
            self.due();
            self.ring();
            self.flush_spoken();
            self.reap_strangers();
        }
    }

    /// From somebody who is not in charge (yet).
    fn is_news(&self, token: u64) -> bool {
        let of_active = self.active.is_some_and(|id| token == (token::CONN | id));
        token == token::LISTENER || (token & token::KIND == token::CONN && !of_active)
    }

    fn dispatch(&mut self, token: u64) {
        let id = token & !token::KIND;
        match token & token::KIND {
            token::LISTENER => self.accept(),
            token::SIGCHLD => {
                // At most one is pending: a signal of this kind does not queue. Nothing read is nothing missed.
                let mut buffer = [0u8; 128];
                let _ = rustix::io::read(&self.sigchld, &mut buffer);
                self.child_ended = true;
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
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => return self.accept_later(&error),
            };
            let waiting = self
                .conns
                .values()
                .filter(|c| c.standing == Standing::New)
                .count();
            if waiting < NEW_MAX && self.is_welcome(&stream) {
                match Conn::new(stream) {
                    Ok(conn) => {
                        self.adopt(conn);
                        self.on_conn(self.next_key);
                    }
                    Err(_) => continue,
                }
            }
        }
    }

    /// Out of descriptors or memory, whoever waits goes on waiting: asking at once again would be all that we do.
    fn accept_later(&mut self, error: &io::Error) {
        let scarce = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
        if error.raw_os_error().is_some_and(|errno| scarce.contains(&errno))
            && let Some(listener) = &self.listener
        {
            self.epoll.remove(listener);
            self.arm(ACCEPT_PAUSE_MS, Timer::Accept);
        }
    }

    /// Listens again. It may have become time to leave meanwhile.
    pub fn accept_again(&mut self) {
        if let Some(listener) = &self.listener
            && self.epoll.add(listener, libc::EPOLLIN, token::LISTENER).is_err()
        {
            self.arm(ACCEPT_PAUSE_MS, Timer::Accept);
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

    pub fn on_conn(&mut self, id: u64) {
        // One buffer-full per round: exits come in between, and answers leave together.
        let mut filled = false;
        loop {
            let Some(conn) = self.conns.get_mut(&id) else {
                return;
            };
            if !conn.spoken && conn.flush().is_err() {
                return self.close(id);
            }
            // What a greeted connection says next waits until its epoch is on file.
            if matches!(conn.standing, Standing::Greeted | Standing::Closing) {
                return self.watch_conn(id);
            }
            match conn.next_request() {
                Ok(Some(request)) => self.on_request(id, request),
                Ok(None) if filled => return self.watch_conn(id),
                Ok(None) => match conn.fill() {
                    Ok(true) => filled = true,
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
        if !conn.spoken && !conn.is_flushed() {
            events |= libc::EPOLLOUT;
        }
        if events != conn.watched {
            conn.watched = events;
            // Registered since `adopt`: cannot fail.
            let _ = self.epoll.modify(&conn.stream, events, token::CONN | id);
        }
    }

    /// Queues a message; it leaves at the end of the round, with all others.
    pub fn say(&mut self, id: u64, message: &FromShim) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        conn.say(message);
        if !std::mem::replace(&mut conn.spoken, true) {
            self.spoken.push(id);
        }
    }

    /// Writes what was said in this round.
    fn flush_spoken(&mut self) {
        while let Some(id) = self.spoken.pop() {
            let Some(conn) = self.conns.get_mut(&id) else {
                continue;
            };
            conn.spoken = false;
            if conn.flush().is_err() {
                self.close(id);
            } else {
                self.watch_conn(id);
            }
        }
    }

    pub fn close(&mut self, id: u64) {
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

    pub fn on_request(&mut self, id: u64, request: ToShim) {
        let active = self.active == Some(id);
        match request {
            ToShim::Hello { epoch, leash, .. } => self.on_hello(id, epoch, leash),
            // Whatever comes before Hello is an error of the speaker.
            _ if !active => self.close(id),
            ToShim::Spawn(spawn) => self.queue_spawn(id, spawn),
            ToShim::Stand(spawn) => self.on_stand(spawn),
            ToShim::Withdraw { run } => self.void(run),
            // Asked of a run that is just being made: it waits for the birth, so that nobody has to ask again.
            request if self.is_early(id, &request) => {}
            ToShim::Signal {
                req,
                run,
                signal,
                scope,
            } => {
                self.void(run);
                let result = self.signal(run, signal, scope);
                self.reply(id, req, result);
            }
            ToShim::KillTree { req, run } => {
                self.void(run);
                let result = self.kill_tree(run);
                self.reply(id, req, result);
            }
            ToShim::Freeze { req, run, on } => {
                self.void(run);
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
                self.void_in(&log_dir);
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
        self.backlog.clear();
        self.void_all();
        // Read, but in nobody's table: what an older daemon asked for is void.
        for live in self.runs.values_mut() {
            live.held = None;
            live.early.clear();
        }
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

    pub fn hello_reply(&self) -> FromShim {
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
            version: crate::stop::version(),
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

    pub fn appended(&mut self, position: Position) {
        self.position = self.position.max(position);
        self.bell = true;
    }
}
