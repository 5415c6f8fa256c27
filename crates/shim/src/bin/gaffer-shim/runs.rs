//! Control's runs: admitted, begun, ended, forgotten. The table of phases is in [`crate::control`].

use crate::conn::Standing;
use crate::control::{Born, Control, Event, Live, Phase, token};
use crate::disk::{DiskJob, Exit};
use crate::spawner::InFlight;
use crate::sys::{self, Whom};
use crate::timers::Timer;
use gaffer_shim::journal::RunIdWire;
use gaffer_shim::limit::SHIM_RESERVE;
use gaffer_shim::message::{FromShim, RefusedCode, Spawn, ToShim};
use rustix::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// How long a child may take to its exec if the request does not say.
const START_DEADLINE_MS: u64 = 10_000;
/// Slots without a run that are remembered.
const SLOTS_MAX: usize = 16_384;

/// Starts that are taken on at once.
const STARTING_MAX: usize = 64;

/// Requests that may wait for a birth.
const EARLY_MAX: usize = 16;

impl Live {
    /// A run as it begins.
    pub fn starting(spawn: &Spawn, inflight: Arc<InFlight>) -> Live {
        let deadline_ms = match spawn.start_deadline_ms {
            0 => START_DEADLINE_MS,
            given => given,
        };
        Live {
            run: spawn.run,
            slot: spawn.slot.clone(),
            stamp: spawn.stamp,
            phase: Phase::Starting(inflight),
            born: None,
            frozen: false,
            cont: None,
            stop: spawn.stop,
            sync: spawn.sync,
            log_dir: spawn.log_dir.clone(),
            deadline_ms,
            cost: cost(spawn),
            groups: crate::limit::groups(spawn),
            watch: None,
            input: None,
            surveying: false,
            held: None,
            early: Vec::new(),
            order: None,
            next: None,
        }
    }
}

impl Control {
    /// Starts are taken on as far as spawners can be kept busy; the others wait, in order.
    pub fn queue_spawn(&mut self, conn: u64, spawn: Box<Spawn>) {
        if self.starting < STARTING_MAX && self.backlog.is_empty() {
            return self.on_spawn(conn, *spawn);
        }
        match minicbor::to_vec(&*spawn) {
            Ok(bytes) => self.backlog.push_back((conn, bytes)),
            // What was decoded can be encoded.
            Err(_) => self.on_spawn(conn, *spawn),
        }
    }

    /// There may be room for more starts.
    pub fn spawn_on(&mut self) {
        while self.starting < STARTING_MAX
            && let Some((conn, bytes)) = self.backlog.pop_front()
        {
            if let Ok(spawn) = minicbor::decode::<Spawn>(&bytes) {
                self.on_spawn(conn, spawn);
            }
        }
    }

    pub fn on_spawn(&mut self, conn: u64, spawn: Spawn) {
        let run = spawn.run;
        if self.keys.contains_key(&run) || self.slots.get(&spawn.slot) == Some(&run) {
            // Known: the answer is in the journal already, or will be.
            self.bell = true;
            return;
        }
        let Some(spawn) = self.hold(conn, spawn) else {
            return;
        };
        if let Err((code, text)) = self.admit(&spawn) {
            return self.say(conn, &FromShim::Refused { run, code, text });
        }
        self.next_key += 1;
        let key = self.next_key;
        let inflight = Arc::new(InFlight::default());
        let live = Live::starting(&spawn, inflight.clone());
        self.used += live.cost;
        self.begin(key, Box::new(live));
        self.disk.send(DiskJob::Intend {
            key,
            spawn: Box::new(spawn),
            inflight,
        });
    }

    /// A start that is on its way has its place.
    pub fn begin(&mut self, key: u64, live: Box<Live>) {
        self.starting += 1;
        self.keys.insert(live.run, key);
        self.remember_slot(&live.slot, live.run);
        self.arm(live.deadline_ms, Timer::SpawnDeadline { key });
        self.runs.insert(key, live);
        if !self.giving_back {
            self.give_back_later();
        }
    }

    /// The end of the slot's last run may be on file, and read there, before we are told of it: then its
    /// successor waits for that. Gives the spawn back if it need not.
    fn hold(&mut self, conn: u64, spawn: Spawn) -> Option<Spawn> {
        let last = self.slots.get(&spawn.slot).copied();
        let key = last
            .filter(|_| spawn.after == last)
            .and_then(|last| self.keys.get(&last).copied());
        let Some(live) = key.and_then(|key| self.runs.get_mut(&key)) else {
            return Some(spawn);
        };
        let ending = match live.phase {
            Phase::Starting(_) | Phase::Ending => true,
            Phase::Exited => live.surveying,
            Phase::Alive => false,
        };
        if !ending || live.held.is_some() {
            return Some(spawn);
        }
        live.held = Some((conn, Box::new(spawn)));
        None
    }

    /// The run has a new phase: what was held is asked for again.
    fn unhold(&mut self, key: u64) {
        let held = self.runs.get_mut(&key).and_then(|live| live.held.take());
        if let Some((conn, spawn)) = held {
            self.on_spawn(conn, *spawn);
        }
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
            // A newer one was another shim's: the place comes back to us.
            if spawn.after.is_none_or(|after| after < *last) {
                return refuse(RefusedCode::Outdated, format!("the slot's last run is {last}"));
            }
        }
        if let Some(what) = crate::requests::nonsense(spawn) {
            return refuse(RefusedCode::Invalid, what);
        }
        let cost = cost(spawn);
        if SHIM_RESERVE + cost > self.nofile {
            let text = format!(
                "it needs {cost} descriptors beside the {SHIM_RESERVE} of its shim, and the limit is {}",
                self.nofile
            );
            return refuse(RefusedCode::NeverFits, text);
        }
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

    pub fn on_event(&mut self, event: Event) {
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
            }
            Event::Exited {
                key,
                survivors,
                succeeded,
                position,
            } => {
                self.appended(position);
                self.end_order(key, succeeded);
                self.on_exited(key, survivors);
            }
            Event::TreeGone { key, position } => {
                self.appended(position);
                let cgroup = self.cgroup_of(key);
                self.forget(key, cgroup);
            }
            Event::Dropped { position } => self.appended(position),
            Event::Survives { key } => {
                if let Some(live) = self.runs.get_mut(&key) {
                    live.surveying = false;
                }
                self.unhold(key);
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

    pub fn on_epoch_stored(&mut self, id: u64, epoch: u32, failed: bool) {
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
        let _ = self.epoll.add(
            &born.pidfd,
            libc::EPOLLIN | libc::EPOLLONESHOT,
            token::PIDFD | key,
        );
        live.born = Some(born);
        live.phase = Phase::Alive;
        self.starting -= 1;
        if self.stopping {
            self.stop_for_leash(key);
        }
        self.unhold(key);
        self.ask_again(key);
    }

    /// Keeps a request to a run that is being started. False: it is none, or can be answered now.
    pub fn is_early(&mut self, conn: u64, request: &ToShim) -> bool {
        let run = match request {
            ToShim::Signal { run, .. }
            | ToShim::KillTree { run, .. }
            | ToShim::Freeze { run, .. }
            | ToShim::Input { run, .. }
            | ToShim::Resize { run, .. } => run,
            ToShim::Hello { .. }
            | ToShim::Spawn(_)
            | ToShim::Stand(_)
            | ToShim::Withdraw { .. }
            | ToShim::LogsPolicy { .. }
            | ToShim::Bye
            | ToShim::Exit => return false,
        };
        let key = self.keys.get(run).copied();
        let Some(live) = key.and_then(|key| self.runs.get_mut(&key)) else {
            return false;
        };
        let keep = matches!(live.phase, Phase::Starting(_)) && live.early.len() < EARLY_MAX;
        if keep {
            live.early.push((conn, request.clone()));
        }
        keep
    }

    /// The run was born: what was asked of it before.
    fn ask_again(&mut self, key: u64) {
        let early = self
            .runs
            .get_mut(&key)
            .map(|live| std::mem::take(&mut live.early));
        for (conn, request) in early.unwrap_or_default() {
            if self.active == Some(conn) {
                self.on_request(conn, request);
            }
        }
    }

    pub fn on_pidfd(&mut self, key: u64) {
        let Some(live) = self.runs.get_mut(&key) else {
            return;
        };
        let Some(born) = &live.born else { return };
        if !matches!(live.phase, Phase::Alive) {
            return;
        }
        let ended = match sys::peek(Whom::Pidfd(born.pidfd.as_fd())) {
            Ok(Some(ended)) => ended,
            // Not yet: it is looked at again.
            Ok(None) => {
                let events = libc::EPOLLIN | libc::EPOLLONESHOT;
                // Registered when it was born: cannot fail.
                let _ = self.epoll.modify(&born.pidfd, events, token::PIDFD | key);
                return;
            }
            // Not our child any more? Then nobody knows, and that is what is recorded.
            Err(_) => sys::Ended {
                pid: born.pid as i32,
                status: gaffer_shim::journal::Status::Unknown,
                usage: Default::default(),
            },
        };
        live.phase = Phase::Ending;
        let mut exit = Box::new(Exit {
            key,
            run: live.run,
            pid: born.pid,
            ended,
            cgroup: born.cgroup.clone(),
            groups: live.groups.clone(),
            log_dir: live.log_dir.clone(),
            sync: live.sync,
            next: None,
        });
        self.ending += 1;
        exit.next = self.take_order(key);
        if exit.next.is_some() {
            // By a spawner that has nothing else to do: one hand-over less before the next start.
            match self.queue.hand(exit) {
                Ok(()) => return self.pace.expect(),
                Err(back) => exit = back,
            }
        }
        self.disk.send(DiskJob::Exit(exit));
    }

    /// The status is on file: only now the zombie may go.
    fn on_exited(&mut self, key: u64, survivors: u32) {
        let Some(live) = self.runs.get_mut(&key) else {
            return;
        };
        let Some(born) = &live.born else { return };
        crate::stop::at(10);
        // It is a zombie of ours; anything else was recorded as unknown.
        let _ = sys::reap(Whom::Pidfd(born.pidfd.as_fd()));
        self.pids.remove(&born.pid);
        crate::tree::leader_gone(born.pid);
        self.ending -= 1;
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
            self.unhold(key);
        }
    }

    /// Something about a run's survivors may have changed.
    pub fn survey(&mut self, key: u64) {
        use std::os::unix::fs::FileExt;
        let Some(live) = self.runs.get_mut(&key) else {
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
        live.surveying = true;
        self.disk.send(DiskJob::Survey {
            key,
            run: live.run,
            cgroup,
        });
    }

    /// A run is over: the slot is free.
    pub fn forget(&mut self, key: u64, cgroup: Option<String>) {
        let Some(live) = self.runs.remove(&key) else {
            return;
        };
        self.keys.remove(&live.run);
        self.used -= live.cost;
        if matches!(live.phase, Phase::Starting(_)) {
            self.starting -= 1;
        }
        if let Some(born) = &live.born {
            self.pids.remove(&born.pid);
        }
        if let Some(watch) = &live.watch {
            self.epoll.remove(watch);
        }
        self.drop_input(live.input.as_ref());
        self.drop_order(live.order.as_deref());
        // Its start failed: these are answered so.
        for (conn, request) in live.early {
            if self.active == Some(conn) {
                self.on_request(conn, request);
            }
        }
        if let Some((conn, spawn)) = live.held {
            self.on_spawn(conn, *spawn);
        }
        for cgroup in cgroup.into_iter().chain(live.groups) {
            self.disk.send(DiskJob::Sweep { cgroup });
        }
        self.leave_if_done();
        self.arm_idle();
    }

    /// Orphans of runs come to us. They are reaped by peeking: what is known belongs to its own path. The kernel
    /// walks over all children to find one that has ended, and gives the oldest, so nobody looks before those
    /// that are known to have ended are reaped.
    pub fn reap_strangers(&mut self) {
        if !self.child_ended || self.ending > 0 {
            return;
        }
        self.child_ended = false;
        let mut reaped = false;
        while let Ok(Some(ended)) = sys::peek(Whom::Any) {
            let known = self.pids.get(&(ended.pid as u32)).copied();
            if let Some(key) = known {
                // Its own path ends here, too.
                self.child_ended = true;
                self.on_pidfd(key);
                break;
            }
            let starting = self.runs.values().any(|live| match &live.phase {
                Phase::Starting(inflight) => inflight.pid.load(SeqCst) == ended.pid,
                _ => false,
            });
            if starting {
                // Looked for again when its spawner has told of it.
                self.child_ended = true;
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
}

/// Descriptors a run holds at most.
pub fn cost(spawn: &Spawn) -> u64 {
    let stdin = u64::from(spawn.stdin == gaffer_shim::message::Stdin::Pipe);
    let terminal = u64::from(spawn.pty.is_some());
    // pidfd, stdout, stderr, both sides of each label. The watch on survivors is from the reserve: without it
    // the end of an orphan is as good a sign.
    3 + stdin + terminal + 2 * spawn.streams.len() as u64
}
