//! Resident workers: programs that are kept, and fed lines of JSON.
//!
//! ```text
//! stdin   {"type": "task", "id": 7, "token": 3, "queue": "shop.mail", "kind": null, "attempt": 1, "payload": …, "meta": null}
//!         {"type": "cancel", "id": 7}                     somebody withdrew it, or its time is over
//!         the end of the file                             finish what you have, then exit with 0
//! stdout  {"type": "done", "id": 7, "token": 3, "result": …}
//!         {"type": "fail", "id": 7, "error": {"kind": "…", "message": "…"}, "after": "30s", "fatal": false}
//!         {"type": "snooze", "id": 7, "after": "1m"}      {"type": "cancelled", "id": 7}
//!         {"type": "heartbeat"}                           anything else is output like any other
//! ```
//!
//! What a worker says goes through its stdout into the same segments as all output, and is read there: a byte is in a pipe or in a
//! file, so an outcome is not lost with the daemon. A new daemon does not know which lines a worker has read. It closes its stdin: the
//! worker finishes what it has, says so, and leaves; what nobody answered by then never reached it, and is given back. A fresh worker takes its
//! place.

use super::listen::{Follower, Said, outcome_of};
use super::opening::resident_slot;
use super::service::{QueueNews, ended};
use super::worker::{log_dir, spawn_message};
use crate::clock;
use crate::facts::RunFacts;
use crate::logs::LogReader;
use crate::owner::Message;
use crate::state::State;
use gaffer_core::io::{self, End, Status};
use gaffer_core::name::RunId;
use gaffer_core::queue::dispatch::Input;
use gaffer_core::queue::outcome::Outcome;
use gaffer_core::queue::spec::{By, Queue, QueueId};
use gaffer_core::queue::task::{Claimed, Failure, Handle, TaskId};
use gaffer_core::queue::vigil::Vigil;
use gaffer_core::retry::{Ended, History, Verdict};
use gaffer_core::time::{Duration, Mono, Wall};
use gaffer_queue::numbers::StoreNumber;
use gaffer_shim::message::{Stdin, ToShim};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;

/// Most bytes of one message to a shim.
const PIECE: usize = 60 << 10;
/// A worker that lives, or whose last words are still read.
pub(super) struct Resident {
    pub run: RunId,
    /// Whether it is ready, and well.
    pub vigil: Option<Vigil>,
    /// It is replaced: not `ready`, or not well; why.
    pub given_up: Option<(&'static str, Arc<str>)>,
    /// It is not well, which is only told.
    pub unwell: Option<(Wall, Arc<str>)>,
    /// It can be given tasks.
    up: bool,
    /// Its stdin is closed, or will be: it gets nothing any more.
    leaving: bool,
    /// When it is killed, if it does not leave.
    kill_at: Option<Mono>,
    /// Whom it is killed for.
    killed_for: Option<TaskId>,
    /// It is killed because nothing was heard of it.
    silent: bool,
    tasks: BTreeMap<TaskId, Handle>,
    pending: Vec<u8>,
    writing: bool,
    /// When it was last heard.
    heard: Mono,
    end: Option<End>,
    gone: bool,
    /// All that it said has been read.
    read: bool,
    /// Where its stdout ends, once that is known.
    last: watch::Sender<Option<u64>>,
    pub definition: Arc<Queue>,
}

/// A place for a resident worker.
#[derive(Default)]
pub(super) struct Place {
    pub current: Option<Resident>,
    history: History,
    next_try: Option<Mono>,
}

/// Tasks of an earlier daemon's residents, until all of those have left.
#[derive(Default)]
pub(super) struct LeftOver {
    tasks: BTreeMap<TaskId, Handle>,
    open: BTreeSet<RunId>,
}

/// All residents of a node.
#[derive(Default)]
pub(super) struct Residents {
    pub places: BTreeMap<(QueueId, u32), Place>,
    pub by_run: BTreeMap<RunId, (QueueId, u32)>,
    by_task: BTreeMap<TaskId, RunId>,
    left_over: BTreeMap<QueueId, LeftOver>,
    /// What recovery found: queue, place, the run, and whether its shim is dead.
    pub found: Vec<(QueueId, u32, Box<RunFacts>, bool)>,
    /// The node ends: nobody takes their places.
    pub closing: bool,
}

impl Resident {
    /// When it has to be asked how it is.
    pub fn asked_at(&self) -> Option<Mono> {
        let vigil = self
            .vigil
            .as_ref()
            .filter(|_| !self.leaving && self.end.is_none())?;
        vigil.deadline()
    }
}

impl Residents {
    /// When one of them has to be looked at.
    pub fn next_deadline(&self, lease: impl Fn(&QueueId) -> Option<Duration>) -> Option<Mono> {
        let tries = self.places.values().filter_map(|place| place.next_try);
        let lives = self.places.iter().filter_map(|((queue, _), place)| {
            let resident = place.current.as_ref()?;
            let silent = lease(queue).map(|lease| resident.heard.plus(lease));
            let silent = silent.filter(|_| !resident.tasks.is_empty() && !resident.leaving);
            let all = [resident.kill_at, silent, resident.asked_at()];
            all.into_iter().flatten().min()
        });
        tries.chain(lives).min()
    }

    pub fn at(&mut self, run: RunId) -> Option<&mut Resident> {
        let place = self.by_run.get(&run)?;
        self.places
            .get_mut(place)?
            .current
            .as_mut()
            .filter(|resident| resident.run == run)
    }

    /// The run that works on this very attempt.
    pub fn run_of(&self, handle: Handle) -> Option<RunId> {
        let run = *self.by_task.get(&handle.task)?;
        let place = self.places.get(self.by_run.get(&run)?)?;
        let current = place.current.as_ref().filter(|resident| resident.run == run)?;
        (current.tasks.get(&handle.task) == Some(&handle)).then_some(run)
    }

    /// Somebody is there still.
    pub fn any(&self) -> bool {
        self.places.values().any(|place| place.current.is_some())
    }
}

impl State {
    /// Starts what is missing, sends away what is not wanted as it is.
    pub(crate) fn tend_residents(&mut self) {
        let now = clock::mono();
        let wanted: Vec<(QueueId, Arc<Queue>)> = self
            .queues
            .defined
            .iter()
            .filter(|(_, defined)| defined.spec.resident)
            .map(|(id, defined)| (id.clone(), defined.spec.clone()))
            .collect();
        let unwanted: Vec<(QueueId, u32)> = self
            .queues
            .residents
            .places
            .iter()
            .filter(|((queue, n), place)| {
                let spec = wanted.iter().find(|(id, _)| id == queue).map(|(_, spec)| spec);
                let current = place.current.as_ref();
                let changed =
                    current.is_some_and(|one| spec.is_none_or(|spec| differs(&one.definition, spec)));
                self.queues.residents.closing || changed || spec.is_none_or(|spec| *n >= spec.residents())
            })
            .map(|(place, _)| place.clone())
            .collect();
        for (queue, n) in unwanted {
            self.send_away(&queue, n);
        }
        if self.queues.residents.closing {
            return;
        }
        // Before it is known what an earlier daemon left, nobody takes its place.
        let known = |(queue, _): &(QueueId, _)| self.queues.homes.of(queue).known;
        let wanted: Vec<_> = wanted.into_iter().filter(known).collect();
        for (queue, spec) in wanted {
            for n in 0..spec.residents() {
                let place = self
                    .queues
                    .residents
                    .places
                    .entry((queue.clone(), n))
                    .or_default();
                let due = place.next_try.is_none_or(|at| at <= now);
                if place.current.is_none() && due {
                    place.next_try = None;
                    self.start_resident(&queue, n, &spec);
                }
            }
        }
    }

    fn start_resident(&mut self, queue: &QueueId, n: u32, spec: &Arc<Queue>) {
        let By::Cmd(launch) = &spec.work.by else {
            return;
        };
        let slot = resident_slot(queue, n);
        let run = self.node.make_run_id();
        let after = self.queues.seats.get(&slot).copied();
        let shim = match self.worker_shim(queue) {
            Ok(shim) => shim,
            Err(why) => return self.resident_failed(queue, n, spec, &why),
        };
        if let Err(why) = self.open_worker_notify(spec, launch) {
            return self.resident_failed(queue, n, spec, &why);
        }
        let dir = log_dir(&self.settings.logs_dir(), queue, &format!("r{}", n + 1));
        let made = spawn_message(self, queue, spec, launch, (run, &slot, after), &dir, None, n);
        let mut message = match made {
            Ok(message) => message,
            Err(why) => return self.resident_failed(queue, n, spec, &why),
        };
        message.stdin = Stdin::Pipe;
        self.queues.seats.insert(slot.clone(), run);
        let mut facts = RunFacts::begin(run, &slot, [0, 0], 1, shim);
        facts.label.clone_from(&message.label);
        self.runs.runs.insert(run, Box::new(facts));
        self.place_resident(queue, n, run, spec.clone());
        if let Some(connection) = self
            .shims
            .all
            .get(&shim)
            .and_then(|shim| shim.connection.as_ref())
        {
            connection.send(&ToShim::Spawn(Box::new(message)));
        }
    }

    fn place_resident(&mut self, queue: &QueueId, n: u32, run: RunId, definition: Arc<Queue>) {
        let residents = &mut self.queues.residents;
        residents.by_run.insert(run, (queue.clone(), n));
        let place = residents.places.entry((queue.clone(), n)).or_default();
        place.current = Some(Resident {
            run,
            vigil: None,
            given_up: None,
            unwell: None,
            up: false,
            leaving: false,
            kill_at: None,
            killed_for: None,
            silent: false,
            tasks: BTreeMap::new(),
            pending: Vec::new(),
            writing: false,
            heard: clock::mono(),
            end: None,
            gone: false,
            read: true,
            last: watch::Sender::new(None),
            definition,
        });
    }

    /// It could not be started: again a little later.
    fn resident_failed(&mut self, queue: &QueueId, n: u32, spec: &Queue, why: &str) {
        tracing::warn!(%queue, worker = n + 1, why, "a resident worker cannot be started");
        let now = clock::mono();
        let place = self
            .queues
            .residents
            .places
            .entry((queue.clone(), n))
            .or_default();
        let ended = Ended {
            at: now,
            ok: false,
            never_ran: true,
            healthy: Duration::ZERO,
        };
        place.next_try = Some(now.plus(pause(&mut place.history, ended)));
        let _kept = spec;
    }

    /// A fact about a resident's run.
    pub(super) fn resident_fact(&mut self, run: RunId, input: io::Input) {
        let Some((queue, n)) = self.queues.residents.by_run.get(&run).cloned() else {
            return;
        };
        match input {
            io::Input::Started { .. } => {
                self.follow_resident(&queue, n, run);
                self.watch_resident(run);
            }
            io::Input::StartFailed { text, .. } | io::Input::NotStarted { text, .. } => {
                self.resident_gone(&queue, n, run);
                if let Some(spec) = self.queues.spec(&queue).cloned() {
                    self.resident_failed(&queue, n, &spec, &text);
                }
            }
            io::Input::Exited { end, survivors, .. } => {
                let last = self.runs.runs.get(&run).and_then(|facts| facts.out.1);
                if let Some(resident) = self.queues.residents.at(run) {
                    resident.end = Some(end);
                    resident.gone = survivors == 0;
                    resident.last.send_replace(Some(last.unwrap_or(0)));
                }
                self.worker_down(&queue, n);
                if survivors > 0 {
                    self.kill_tree(run);
                }
                self.resident_over(&queue, n, run);
            }
            io::Input::TreeGone { .. } => {
                if let Some(resident) = self.queues.residents.at(run) {
                    resident.gone = true;
                }
                self.resident_over(&queue, n, run);
            }
            _ => {}
        }
    }

    /// It can be given tasks.
    pub(super) fn resident_up(&mut self, queue: &QueueId, n: u32, run: RunId) {
        if let Some(resident) = self.queues.residents.at(run)
            && !resident.leaving
        {
            resident.up = true;
            resident.heard = clock::mono();
            let (queue, worker) = (queue.clone(), n);
            self.feed_queue(Input::Worker {
                queue,
                worker,
                up: true,
            });
        }
    }

    fn worker_down(&mut self, queue: &QueueId, n: u32) {
        let (queue, worker) = (queue.clone(), n);
        self.feed_queue(Input::Worker {
            queue,
            worker,
            up: false,
        });
    }

    /// Reads what it says, from where its part of the stream begins.
    fn follow_resident(&mut self, queue: &QueueId, n: u32, run: RunId) {
        let from = self.runs.runs.get(&run).map_or(0, |facts| facts.out.0);
        let dir = log_dir(&self.settings.logs_dir(), queue, &format!("r{}", n + 1));
        let owner = self.owner.clone();
        let Some(resident) = self.queues.residents.at(run) else {
            return;
        };
        resident.read = false;
        let last = resident.last.subscribe();
        let follower = Follower {
            reader: LogReader::open(&dir, "stdout"),
            at: from,
            line: Vec::new(),
            run,
            owner,
            last,
        };
        tokio::spawn(follower.follow());
    }

    /// Gives a task to the worker of a seat.
    pub(super) fn hand_resident(
        &mut self,
        seat: u32,
        spec: &Queue,
        row: &Claimed,
        payload: &Value,
    ) -> Result<(), Outcome> {
        let n = seat / spec.slots.max(1);
        let place = self.queues.residents.places.get_mut(&(row.queue.clone(), n));
        let resident = place.and_then(|place| place.current.as_mut());
        let Some(resident) = resident.filter(|resident| resident.up && !resident.leaving) else {
            return Err(Outcome::NotHanded);
        };
        let line = json!({
            "type": "task", "id": row.handle.task, "token": row.handle.token, "queue": row.queue.to_string(),
            "kind": row.kind.as_deref(), "attempt": row.attempt, "payload": payload,
            "meta": row.meta.as_deref().and_then(|meta| serde_json::from_str::<Value>(meta).ok()),
        });
        if resident.tasks.is_empty() {
            resident.heard = clock::mono();
        }
        resident.tasks.insert(row.handle.task, row.handle);
        let run = resident.run;
        self.queues.residents.by_task.insert(row.handle.task, run);
        self.write_resident(run, &line);
        Ok(())
    }

    fn write_resident(&mut self, run: RunId, line: &Value) {
        if let Some(resident) = self.queues.residents.at(run) {
            resident.pending.extend_from_slice(line.to_string().as_bytes());
            resident.pending.push(b'\n');
        }
        self.flush_resident(run);
    }

    /// Sends what is pending: one message at a time, everything that came meanwhile in the next.
    fn flush_resident(&mut self, run: RunId) {
        let Some(shim) = self.runs.runs.get(&run).map(|facts| facts.shim) else {
            return;
        };
        let Some(resident) = self.queues.residents.at(run) else {
            return;
        };
        let closes = resident.leaving && resident.pending.len() <= PIECE && resident.end.is_none();
        if resident.writing || resident.end.is_some() || resident.pending.is_empty() && !closes {
            return;
        }
        let rest = resident.pending.split_off(resident.pending.len().min(PIECE));
        let data = std::mem::replace(&mut resident.pending, rest);
        resident.writing = true;
        let connection = self
            .shims
            .all
            .get(&shim)
            .and_then(|shim| shim.connection.as_ref());
        let Some(connection) = connection else {
            return;
        };
        let answer = connection.ask(|req| ToShim::Input {
            req,
            run: crate::shims::wire(run),
            stream: "stdin".to_owned(),
            data,
            eof: closes,
        });
        let owner = self.owner.clone();
        tokio::spawn(async move {
            // A worker that closed its stdin or is gone: its end is told by its journal.
            let _answer = answer.await;
            let _ended = owner.send(Message::Queue(QueueNews::Fed(run, closes)));
        });
    }

    /// The shim has written what it was sent.
    pub(super) fn resident_fed(&mut self, run: RunId, closed: bool) {
        if let Some(resident) = self.queues.residents.at(run) {
            resident.writing = closed;
        }
        if !closed {
            self.flush_resident(run);
        }
    }

    /// Its stdin is closed; it is killed if it does not leave in time.
    pub(super) fn send_away(&mut self, queue: &QueueId, n: u32) {
        let key = (queue.clone(), n);
        let Some(place) = self.queues.residents.places.get_mut(&key) else {
            return;
        };
        let Some(resident) = place.current.as_mut() else {
            self.queues.residents.places.remove(&key);
            return;
        };
        if resident.leaving {
            return;
        }
        resident.leaving = true;
        resident.up = false;
        resident.kill_at = Some(clock::mono().plus(resident.definition.work.stop.timeout));
        let run = resident.run;
        self.worker_down(queue, n);
        self.flush_resident(run);
    }

    /// Lines of a worker; none: everything is read.
    pub(super) fn resident_said(&mut self, run: RunId, lines: Option<Vec<String>>) {
        let Some((queue, n)) = self.queues.residents.by_run.get(&run).cloned() else {
            return;
        };
        let Some(lines) = lines else {
            if let Some(resident) = self.queues.residents.at(run) {
                resident.read = true;
            }
            return self.resident_over(&queue, n, run);
        };
        let now = clock::mono();
        if let Some(resident) = self.queues.residents.at(run) {
            resident.heard = now;
        }
        for line in lines {
            if let Ok(said) = serde_json::from_str::<Said>(&line) {
                self.take_said(&queue, run, said);
            }
        }
    }

    fn take_said(&mut self, queue: &QueueId, run: RunId, said: Said) {
        let Some(id) = said.id else {
            return;
        };
        let Some(outcome) = outcome_of(&said) else {
            return;
        };
        let has = |handle: &Handle| said.token.is_none_or(|token| token == handle.token);
        let residents = &mut self.queues.residents;
        let own = residents.at(run).and_then(|resident| {
            let handle = resident.tasks.get(&id).copied().filter(has)?;
            resident.tasks.remove(&id);
            Some(handle)
        });
        if own.is_some() {
            residents.by_task.remove(&id);
        }
        // An earlier daemon gave it: a number that is not said could be one of long ago.
        let left = residents.left_over.get_mut(queue).and_then(|left| {
            let handle = left
                .tasks
                .get(&id)
                .copied()
                .filter(|handle| said.token == Some(handle.token))?;
            left.tasks.remove(&id);
            Some(handle)
        });
        if let Some(handle) = own.or(left) {
            self.feed_queue(ended(handle, outcome, true));
        }
    }

    /// A worker has ended, nothing of it is left, and all that it said is read.
    fn resident_over(&mut self, queue: &QueueId, n: u32, run: RunId) {
        let Some(resident) = self.queues.residents.at(run) else {
            return;
        };
        if resident.end.is_none() || !resident.gone || !resident.read {
            return;
        }
        let key = (queue.clone(), n);
        let Some(place) = self.queues.residents.places.get_mut(&key) else {
            return;
        };
        let Some(resident) = place.current.take() else {
            return;
        };
        let Some(end) = &resident.end else {
            return;
        };
        if !resident.leaving || resident.given_up.is_some() {
            // One that was never ready did not live.
            let was_ready = resident.vigil.as_ref().is_none_or(Vigil::is_ready);
            let ended = Ended {
                at: clock::mono(),
                ok: false,
                never_ran: false,
                healthy: if was_ready { end.lived } else { Duration::ZERO },
            };
            place.next_try = Some(clock::mono().plus(pause(&mut place.history, ended)));
            tracing::warn!(%queue, worker = n + 1, status = ?end.status, "a resident worker ended");
        }
        for (task, handle) in &resident.tasks {
            self.queues.residents.by_task.remove(task);
            let outcome = unanswered(&resident, *task, end);
            self.feed_queue(ended(*handle, outcome, true));
        }
        self.resident_gone(queue, n, run);
        self.left_over_of(queue, run);
        self.tend_residents();
        self.residents_closed();
    }

    fn resident_gone(&mut self, queue: &QueueId, n: u32, run: RunId) {
        let residents = &mut self.queues.residents;
        residents.by_run.remove(&run);
        if let Some(place) = residents.places.get_mut(&(queue.clone(), n))
            && place.current.as_ref().is_some_and(|current| current.run == run)
        {
            place.current = None;
        }
        self.watches.end(run);
        self.queues.settled(run);
        if let Some(facts) = self.runs.runs.get_mut(&run) {
            facts.settled = true;
            self.drop_if_over(run);
        }
    }

    /// One of the workers of an earlier daemon has left: what nobody has answered when the last one leaves reached nobody.
    fn left_over_of(&mut self, queue: &QueueId, run: RunId) {
        let Some(left) = self.queues.residents.left_over.get_mut(queue) else {
            return;
        };
        left.open.remove(&run);
        if !left.open.is_empty() {
            return;
        }
        let left = self.queues.residents.left_over.remove(queue).unwrap_or_default();
        for handle in left.tasks.into_values() {
            self.feed_queue(ended(handle, Outcome::Interrupted, true));
        }
    }

    /// Recovery: workers of an earlier daemon are asked to leave, and listened to until they have.
    pub(super) fn residents_found(&mut self, number: StoreNumber, orphans: &[Claimed]) {
        let homes = &self.queues.homes;
        let here = |(queue, ..): &mut (QueueId, _, _, _)| homes.number_of(queue) == number;
        let found: Vec<_> = self.queues.residents.found.extract_if(.., here).collect();
        for (queue, n, facts, dead_shim) in found {
            let run = facts.run;
            let facts = self.runs.runs.get(&run).cloned().unwrap_or(facts);
            let definition = self.queues.spec(&queue).cloned();
            let definition = definition.unwrap_or_else(|| Arc::new(Queue::of(By::Others)));
            self.place_resident(&queue, n, run, definition);
            let left = self.queues.residents.left_over.entry(queue.clone()).or_default();
            left.open.insert(run);
            self.follow_resident(&queue, n, run);
            let over = facts.is_over() || dead_shim;
            if let Some(resident) = self.queues.residents.at(run) {
                resident.leaving = true;
                resident.kill_at = Some(clock::mono().plus(resident.definition.work.stop.timeout));
                if over || facts.exit.is_some() {
                    resident.end = facts.end().or(Some(unseen()));
                    resident.gone = over;
                    resident.last.send_replace(Some(facts.out.1.unwrap_or(u64::MAX)));
                }
            }
            if !over && facts.exit.is_some() {
                self.kill_tree(run);
            }
            self.flush_resident(run);
        }
        for (at, row) in orphans.iter().enumerate() {
            let Some(left) = self.queues.residents.left_over.get_mut(&row.queue) else {
                continue;
            };
            left.tasks.insert(row.handle.task, row.handle);
            self.feed_queue(Input::Found {
                queue: row.queue.clone(),
                // No seat that is ever handed to.
                seat: u32::MAX - 1 - u32::try_from(at).unwrap_or(0),
                handle: row.handle,
                ended: None,
            });
        }
    }

    /// What is overdue: starts, ends, and workers of whom nothing is heard.
    pub(super) fn tick_residents(&mut self) {
        let now = clock::mono();
        let mut kill = Vec::new();
        for ((queue, _), place) in &mut self.queues.residents.places {
            let Some(resident) = place.current.as_mut() else {
                continue;
            };
            let lease = self.queues.defined.get(queue).map(|defined| defined.spec.lease);
            let silent = lease.is_some_and(|lease| resident.heard.plus(lease) <= now);
            if silent && !resident.tasks.is_empty() && !resident.leaving {
                tracing::warn!(%queue, run = %resident.run, "nothing is heard of a resident worker; it is killed");
                resident.leaving = true;
                resident.silent = true;
                resident.up = false;
                kill.push(resident.run);
            }
            if resident.kill_at.is_some_and(|at| at <= now) {
                resident.kill_at = None;
                kill.push(resident.run);
            }
        }
        for run in kill {
            self.kill_tree(run);
        }
        self.tick_vigils(now);
        self.tend_residents();
    }

    /// A task of a resident worker is to end: it is asked; by force it goes with its worker.
    pub(super) fn end_resident_task(&mut self, run: RunId, handle: Handle, force: bool) {
        if !force {
            return self.write_resident(run, &json!({"type": "cancel", "id": handle.task}));
        }
        if let Some(resident) = self.queues.residents.at(run) {
            resident.killed_for = Some(handle.task);
            resident.leaving = false;
            resident.up = false;
        }
        self.kill_tree(run);
    }

    /// The node ends: workers are sent away; when the last one has left the jobs follow.
    pub(super) fn close_residents(&mut self) {
        self.queues.residents.closing = true;
        self.tend_residents();
        self.residents_closed();
    }

    fn residents_closed(&mut self) {
        if self.queues.residents.closing && !self.queues.residents.any() {
            self.queues_done();
        }
    }
}

/// Is another program, or another setting, wanted?
fn differs(old: &Queue, new: &Queue) -> bool {
    old.work.by != new.work.by
        || old.slots != new.slots
        || old.resident != new.resident
        || old.logs != new.logs
        || old.probing != new.probing
}

/// Pause before the next one is started: that of jobs.
fn pause(history: &mut History, ended: Ended) -> Duration {
    match history.ended(ended, &gaffer_core::job::Retry::default(), None, 0.5) {
        Verdict::Again { after, .. } => after,
        Verdict::Pause { pause, .. } => pause,
        Verdict::GiveUp { .. } => Duration::from_secs(30),
    }
}

fn unseen() -> End {
    End {
        status: Status::Unknown,
        oom: false,
        at: clock::wall(),
        lived: Duration::ZERO,
    }
}

/// What a task becomes that its worker left without an answer.
fn unanswered(resident: &Resident, task: TaskId, end: &End) -> Outcome {
    if resident.killed_for.is_some_and(|killed| killed != task) {
        // It went with another one.
        return Outcome::Interrupted;
    }
    if resident.silent {
        let why = "its worker was not heard of for as long as its lease";
        return Outcome::Crashed(Failure::of("heartbeat", why));
    }
    if let Some((kind, why)) = &resident.given_up {
        return Outcome::Crashed(Failure::of(*kind, why.clone()));
    }
    match Outcome::of_end(&resident.definition.work, end) {
        Outcome::Done(_) if resident.leaving => Outcome::NotHanded,
        Outcome::Done(_) => Outcome::Failed(Failure::of(
            "no-answer",
            "its worker ended without a word about it",
        )),
        other => other,
    }
}
