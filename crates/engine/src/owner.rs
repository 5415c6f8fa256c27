//! The one task that owns the core.
//!
//! It takes one message after the other, never awaits between an input and its output, and at the
//! end of a turn hands what is left over to the store and to those who wait. Everything that takes time
//! happens elsewhere and comes back as a message.

use crate::clock;
use crate::facts::RunFacts;
use crate::handle::Result;
use crate::info::Actor;
use crate::requests::{Answer, Prepared, Request};
use crate::settings::Tuning;
use crate::shims::{Connection, Greeting, ShimState, unwire, watch_end};
use crate::state::{State, orphan};
use crate::store::StoreError;
use crate::tree;
use gaffer_core::io::{End, Input, ProbeRole, Reason, Stamp, Status, Successor};
use gaffer_core::name::RunId;
use gaffer_core::time::Duration;
use gaffer_shim::client;
use gaffer_shim::journal::Record;
use gaffer_shim::message::RefusedCode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// What the owner is told.
pub(crate) enum Message {
    /// Somebody asks for something.
    Request(Request, oneshot::Sender<Result<Answer>>),
    /// The store has committed (or not) what was prepared.
    Committed(Box<Prepared>, std::result::Result<(), StoreError>),
    /// A journal has grown.
    Bell { shim: u64 },
    /// A shim answered `Hello`.
    ShimHello { shim: u64, greeting: Box<Greeting> },
    /// A connection ended. Says nothing about the shim's life.
    ShimClosed { shim: u64 },
    /// The kernel says that the shim proper ended.
    ShimEnded { shim: u64 },
    /// The kernel says that the guard ended: nobody will write that journal any more.
    GuardEnded { shim: u64 },
    /// Everything a dead shim left behind is gone (or will not go): the rest of its journal can be settled.
    ShimResolved { shim: u64, stuck: Vec<RunId> },
    /// A spawn was not accepted.
    Refused {
        shim: u64,
        run: gaffer_shim::journal::RunIdWire,
        code: RefusedCode,
        text: String,
    },
    /// A shim obeys a newer daemon: we are the old one.
    Fenced { shim: u64, epoch: u32 },
    /// The store knows (or could not be told) that the jobs of a drained node are to stop.
    DrainStops(bool),
    /// Other settings.
    Tuned(Box<Tuning>),
    /// What an orderly end is waiting for is killed; `all`: `keep_running` jobs too.
    KillEnding { all: bool },
    /// The daemon's file is in force without any job changed, or is refused for a reason.
    FileRead {
        file: String,
        by: Actor,
        refused: Option<String>,
    },
    /// A spawn that came to nothing is told to the core now.
    NotStarted { run: RunId, text: Arc<str> },
    /// A task whose stream we lead from now on.
    TaskLed(Box<crate::task::service::Led>, oneshot::Sender<Result<()>>),
    /// Something is asked of a task.
    Task {
        id: Arc<str>,
        input: gaffer_core::task::runner::Input,
    },
    /// Records of a task are durable; what follows from them may be done.
    TaskWritten {
        id: Arc<str>,
        commands: Vec<gaffer_core::task::runner::Command>,
    },
    /// Something about queues.
    Queue(crate::queue::service::QueueNews),
    /// Outcome of a probe.
    Probed {
        run: RunId,
        role: ProbeRole,
        verdict: std::result::Result<Arc<str>, Arc<str>>,
    },
}

/// Longest time that operations of a busy node wait to be looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A refused spawn is decided again after this, so that a disagreement cannot become a tight loop.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);
/// How long processes of a dead shim may take to die after KILL before their slot is given up as stuck.
const KILL_WITHIN: Duration = Duration::from_secs(10);

pub(crate) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A panic of a reader cannot leave the state half changed: readers do not change it.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs until every handle is gone.
pub(crate) async fn run(state: Arc<Mutex<State>>, mut rx: mpsc::UnboundedReceiver<Message>) {
    let mut looked = Instant::now();
    loop {
        let wake = {
            let state = lock(&state);
            let deadline = state.node.next_deadline().into_iter();
            let deadline = deadline.chain(state.tasks.next_deadline());
            let deadline = deadline
                .chain(state.queues.next_deadline())
                .chain(state.drain_deadline())
                .min()
                .map(|deadline| {
                    let now = clock::mono();
                    Instant::now() + Duration::from_nanos(deadline.0.saturating_sub(now.0))
                });
            let look = (!state.dirty.is_empty()).then(|| looked + LOOK_EVERY);
            [deadline, look].into_iter().flatten().min()
        };
        let message = match wake {
            None => rx.recv().await,
            Some(at) => match tokio::time::timeout_at(at, rx.recv()).await {
                Ok(message) => message,
                Err(_) => {
                    let mut state = lock(&state);
                    state.feed(Input::Tick);
                    state.tick_tasks();
                    state.tick_queues();
                    end_turn(&mut state, &mut looked);
                    continue;
                }
            },
        };
        let Some(message) = message else { return };
        let mut state = lock(&state);
        state.take(message);
        // Bounded, so that readers get their turn under load.
        for _ in 0..256 {
            match rx.try_recv() {
                Ok(message) => state.take(message),
                Err(_) => break,
            }
        }
        end_turn(&mut state, &mut looked);
    }
}

fn end_turn(state: &mut State, looked: &mut Instant) {
    state.release_tasks();
    state.drain_on();
    state.flush_settled();
    if !state.dirty.is_empty() && looked.elapsed() >= LOOK_EVERY {
        state.look_at_operations();
        *looked = Instant::now();
    }
}

impl State {
    fn take(&mut self, message: Message) {
        match message {
            Message::Request(request, reply) => self.request(request, reply),
            Message::Committed(prepared, outcome) => self.committed(*prepared, outcome),
            Message::Bell { shim } => self.read_journal(shim),
            Message::ShimHello { shim, greeting } => self.greeted(shim, &greeting),
            Message::ShimClosed { shim } => self.closed(shim),
            Message::ShimEnded { shim } => self.shim_ended(shim),
            Message::GuardEnded { shim } => self.guard_ended(shim),
            Message::ShimResolved { shim, stuck } => self.resolved(shim, &stuck),
            Message::Refused {
                shim,
                run,
                code,
                text,
            } => self.refused(shim, unwire(run), code, text),
            Message::Fenced { shim, epoch } => {
                tracing::error!(
                    shim,
                    epoch,
                    "a newer daemon is in charge; this one can do no more here"
                );
            }
            Message::DrainStops(stored) => self.drain_stops(stored),
            Message::Tuned(tuning) => self.tune(*tuning),
            Message::KillEnding { all } => self.kill_ending(all),
            Message::FileRead { file, by, refused } => match refused {
                None => self.tell_applied(file, by, false),
                Some(reason) => self.tell_refused(file, by, reason),
            },
            Message::NotStarted { run, text } => {
                self.runs.runs.remove(&run);
                self.feed(Input::NotStarted { run, text });
            }
            Message::TaskLed(led, answer) => {
                // Whoever asked may be gone; the task is accepted all the same.
                let _gone = answer.send(self.task_lead(*led));
            }
            Message::Task { id, input } => self.feed_task(&id, input),
            Message::TaskWritten { id, commands } => self.task_written(&id, commands),
            Message::Queue(news) => self.queue_news(news),
            Message::Probed { run, role, verdict } => self.probed(run, role, verdict),
        }
    }

    /// Reads a journal to its end and feeds what is new.
    pub fn read_journal(&mut self, n: u64) {
        if let Some(shim) = self.shims.all.get(&n)
            && let Some(connection) = &shim.connection
        {
            // Before reading: what is appended from here on rings again.
            connection.rung.store(false, Ordering::Release);
        }
        loop {
            let Some(shim) = self.shims.all.get_mut(&n) else {
                return;
            };
            match shim.journal.read_next() {
                Ok(Some((record, position))) => {
                    shim.position = position;
                    self.take_record(n, &record);
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(shim = n, %error, "the journal cannot be read");
                    return;
                }
            }
        }
    }

    fn take_record(&mut self, n: u64, record: &Record) {
        if let Record::Head { segment, .. } = record {
            self.release_segments(n, *segment);
        }
        if let Record::Dropped { .. } = record {
            self.tell_dropped(record);
        }
        if matches!(record, Record::Intent { .. })
            && let Some(shim) = self.shims.all.get_mut(&n)
        {
            shim.runs += 1;
        }
        let Some(run) = self.runs.take(n, record) else {
            return;
        };
        self.runs.expect_successor(n, record);
        if let Some(input) = self
            .runs
            .runs
            .get(&run)
            .and_then(|facts| fact_input(facts, record))
        {
            self.feed(input);
        }
        self.drop_if_over(run);
    }

    /// What the disk did not take is counted and told: no line vanishes without a word.
    fn tell_dropped(&mut self, record: &Record) {
        let Record::Dropped {
            run,
            stream,
            offset,
            bytes,
        } = record
        else {
            return;
        };
        self.counters.log_bytes_dropped += bytes;
        let run = unwire(*run);
        let slot = self.slot_of(run);
        let text = format!("{bytes} bytes of {stream} were dropped: the disk did not take them");
        let event = crate::info::Event {
            event: "log.dropped",
            job: slot.as_ref().map(|slot| slot.job.clone()),
            slot,
            run: Some(run),
            by: None,
            reason: Some(Reason {
                code: "disk-full",
                text: text.into(),
            }),
            data: vec![
                ("stream", stream.clone()),
                ("offset", offset.to_string()),
                ("bytes", bytes.to_string()),
            ],
        };
        self.tell(event);
    }

    /// Older segments are needed no more: what they say is settled, or in the head of this one.
    fn release_segments(&mut self, n: u64, current: u64) {
        if current <= 1 {
            return;
        }
        let Some(dir) = self.shims.all.get(&n).map(|shim| shim.dir.clone()) else {
            return;
        };
        let store = self.store.clone();
        self.flush_settled();
        let records = self.tasks.barrier();
        let outcomes = self.queues.barrier();
        tokio::spawn(async move {
            // What the old segments tell of tasks is in their streams first, and in the store of the queues.
            if let Some(records) = records
                && records.await.is_err()
            {
                return;
            }
            if let Some(outcomes) = outcomes
                && outcomes.await.is_err()
            {
                return;
            }
            // A read waits for all writes before it: then the deaths of the old segments are in the history.
            if store.check_written().await.is_err() {
                return;
            }
            for segment in gaffer_shim::journal::segments(&dir).unwrap_or_default() {
                // One is kept: a reader may still be in it.
                if segment + 1 < current {
                    let _gone = std::fs::remove_file(dir.join(gaffer_shim::journal::segment_name(segment)));
                }
            }
        });
    }

    fn greeted(&mut self, n: u64, greeting: &Greeting) {
        self.shims.misfires.clear();
        let Some(shim) = self.shims.all.get_mut(&n) else {
            return;
        };
        let was_silent = shim.state == ShimState::Silent;
        shim.state = ShimState::Connected;
        shim.version = greeting.version;
        shim.guard_pid = greeting.guard_pid;
        if shim.pid != greeting.pid {
            shim.pid = greeting.pid;
            let watched = client::pidfd(greeting.pid)
                .and_then(|pidfd| watch_end(pidfd, self.owner.clone(), Message::ShimEnded { shim: n }));
            match watched {
                Ok(watch) => shim.watches.push(watch),
                // It ended between its answer and now.
                Err(_) => drop(self.owner.send(Message::ShimEnded { shim: n })),
            }
        }
        self.read_journal(n);
        self.forget_unheard(n, greeting, was_silent);
        if was_silent {
            let runs: Vec<RunId> = self.live_runs(n).map(|facts| facts.run).collect();
            for run in runs {
                self.feed(Input::Unreachable { run, silent: false });
            }
        }
    }

    /// After the fence, "not in the table and not in the journal" means never. What was held back while the shim was
    /// `silent` was not even sent.
    fn forget_unheard(&mut self, n: u64, greeting: &Greeting, silent: bool) {
        let unheard: Vec<RunId> = self
            .runs
            .runs
            .values()
            .filter(|facts| {
                let older = silent || facts.run.epoch != self.epoch;
                facts.shim == n && !facts.intended && !facts.settled && older
            })
            .filter(|facts| !greeting.table.iter().any(|live| unwire(live.run) == facts.run))
            .map(|facts| facts.run)
            .collect();
        for run in unheard {
            self.runs.runs.remove(&run);
            self.feed(Input::NotStarted {
                run,
                text: "its start was never heard of".into(),
            });
        }
    }

    fn live_runs(&self, n: u64) -> impl Iterator<Item = &RunFacts> {
        self.runs
            .runs
            .values()
            .map(|facts| &**facts)
            .filter(move |facts| facts.shim == n && !facts.is_over())
    }

    /// The connection is gone. If the shim lives, connect again: it keeps what it was told and what happened.
    fn closed(&mut self, n: u64) {
        let hello = self.hello();
        let owner = self.owner.clone();
        let Some(shim) = self.shims.all.get_mut(&n) else {
            return;
        };
        shim.connection = None;
        if shim.state == ShimState::Dead || self.shutting_down && shim.runs == 0 {
            return;
        }
        match client::connect(&shim.dir).and_then(|stream| Connection::open(n, stream, owner)) {
            Ok(connection) => {
                connection.send(&hello);
                shim.connection = Some(connection);
            }
            // Leaving or dead: the pidfds will tell.
            Err(error) => tracing::debug!(shim = n, %error, "cannot connect to the shim again"),
        }
    }

    /// The shim is dead, its guard sees the ends of its runs. They cannot go on without it: end them.
    fn shim_ended(&mut self, n: u64) {
        let Some(shim) = self.shims.all.get_mut(&n) else {
            return;
        };
        if shim.state == ShimState::Dead {
            return;
        }
        shim.state = ShimState::Dead;
        shim.connection = None;
        if shim.pid == 0
            && let Some(why) = client::refusal(&shim.dir)
        {
            return self.misfired(n, &why);
        }
        let guard = client::pidfd(shim.guard_pid);
        let (dir, owner) = (shim.dir.clone(), self.owner.clone());
        self.read_journal(n);
        let orphans: Vec<_> = self
            .live_runs(n)
            .map(|facts| orphan(facts, &self.node_id))
            .collect();
        if orphans.is_empty() {
            tracing::debug!(shim = n, "the shim has left");
        } else {
            tracing::warn!(
                shim = n,
                runs = orphans.len(),
                "the shim was killed: its runs are ended"
            );
        }
        tokio::spawn(async move {
            let mut stuck = Vec::new();
            for orphan in &orphans {
                tree::kill(orphan);
            }
            for orphan in &orphans {
                if !tree::kill_and_wait(orphan, KILL_WITHIN).await {
                    stuck.push(orphan.run);
                }
            }
            // The guard leaves when it has reaped and recorded everything; the lock is then free.
            wait_for_guard(guard.ok(), &dir).await;
            let _ended = owner.send(Message::ShimResolved { shim: n, stuck });
        });
    }

    /// A shim could not begin its work: the starts that were sent to it have failed, and no other is begun for a while.
    fn misfired(&mut self, n: u64, why: &str) {
        let why = format!("cannot start a shim: {why}");
        tracing::warn!(shim = n, why, "shim.refused");
        self.shims.misfires.note(&why);
        self.fail_unheard(n, &why);
        if let Some(shim) = self.shims.all.remove(&n) {
            self.remove_shim_dir(shim.dir.clone());
        }
    }

    fn fail_unheard(&mut self, n: u64, why: &str) {
        let sent = self.runs.runs.values();
        let unheard: Vec<RunId> = sent
            .filter(|facts| facts.shim == n && !facts.intended && !facts.settled)
            .map(|facts| facts.run)
            .collect();
        for run in unheard {
            self.fail_start(run, why);
        }
    }

    fn fail_start(&mut self, run: RunId, why: &str) {
        self.feed(Input::StartFailed {
            run,
            stage: "shim".into(),
            errno: 0,
            text: why.into(),
        });
    }

    fn guard_ended(&mut self, n: u64) {
        let owner = self.owner.clone();
        let Some(shim) = self.shims.all.get_mut(&n) else {
            return;
        };
        // Its number may be somebody else's from now on.
        shim.guard_pid = 0;
        if shim.state == ShimState::Dead || !client::shim_alive(&shim.dir) {
            return self.shim_ended(n);
        }
        tracing::warn!(
            shim = n,
            "the guard was killed: the shim goes on without, new runs go to another one"
        );
        shim.last = true;
        // It may not have answered yet: then nobody watches it.
        let watched = client::shim_process(&shim.dir)
            .ok_or_else(|| std::io::ErrorKind::NotFound.into())
            .and_then(|pidfd| watch_end(pidfd, owner, Message::ShimEnded { shim: n }));
        match watched {
            Ok(watch) => shim.watches.push(watch),
            Err(_) => self.shim_ended(n),
        }
    }

    /// Nobody will write that journal any more: what it does not tell stays unknown.
    fn resolved(&mut self, n: u64, stuck: &[RunId]) {
        self.read_journal(n);
        let left: Vec<RunFacts> = self.live_runs(n).cloned().collect();
        for facts in left {
            self.resolve_run(&facts, stuck.contains(&facts.run));
        }
        // Spawns that were sent and never read.
        let unheard: Vec<RunId> = self
            .runs
            .runs
            .values()
            .filter(|facts| facts.shim == n && !facts.intended && !facts.settled)
            .map(|facts| facts.run)
            .collect();
        for run in unheard {
            self.runs.runs.remove(&run);
            self.feed(Input::NotStarted {
                run,
                text: "the shim ended before it heard of it".into(),
            });
        }
        if stuck.is_empty()
            && let Some(shim) = self.shims.all.remove(&n)
        {
            self.remove_shim_dir(shim.dir.clone());
        }
    }

    /// The directory of a dead shim goes once everything it told is in the history.
    pub fn remove_shim_dir(&mut self, dir: std::path::PathBuf) {
        self.flush_settled();
        let store = self.store.clone();
        let records = self.tasks.barrier();
        let outcomes = self.queues.barrier();
        tokio::spawn(async move {
            if let Some(records) = records
                && records.await.is_err()
            {
                return;
            }
            if let Some(outcomes) = outcomes
                && outcomes.await.is_err()
            {
                return;
            }
            if store.check_written().await.is_ok() && matches!(client::is_locked(&dir), Ok(false)) {
                for group in crate::facts::groups(&dir) {
                    // The shim died before it came to this. Absent: it had.
                    let _absent = std::fs::remove_dir(group);
                }
                let _gone = std::fs::remove_dir_all(&dir);
            }
        });
    }

    /// A run whose shim and guard are gone: ended unseen, or never born.
    pub fn resolve_run(&mut self, facts: &RunFacts, stuck: bool) {
        let run = facts.run;
        if !facts.intended {
            return;
        }
        if stuck {
            self.feed(Input::Unreachable { run, silent: true });
            return;
        }
        if !facts.born {
            self.runs.runs.remove(&run);
            self.feed(Input::NotStarted {
                run,
                text: "its shim ended before it was born".into(),
            });
            return;
        }
        if facts.exit.is_none() {
            let at = clock::wall();
            let lived = facts
                .started
                .map_or(0, |(_, mono)| clock::mono().0.saturating_sub(mono.0));
            let end = End {
                status: Status::Unknown,
                oom: false,
                at,
                lived: Duration::from_nanos(lived),
            };
            let ends = self.stream_ends(&facts.slot);
            if let Some(facts) = self.runs.runs.get_mut(&run) {
                facts.gone = true;
                // Nobody wrote down where its bytes end; nobody else has written there since.
                (facts.out.1, facts.err.1) = ends;
            }
            self.feed(Input::Exited {
                run,
                end,
                survivors: 0,
                successor: None,
            });
        } else {
            if let Some(facts) = self.runs.runs.get_mut(&run) {
                facts.gone = true;
            }
            self.feed(Input::TreeGone { run });
        }
        self.drop_if_over(run);
    }

    /// Ends of a slot's `stdout` and `stderr` as they are on disk.
    fn stream_ends(&self, slot: &str) -> (Option<u64>, Option<u64>) {
        let Ok(slot) = slot.parse() else {
            return (None, None);
        };
        let dir = crate::logs::directory(&self.settings.logs_dir(), &slot);
        let end = |stream| Some(crate::logs::LogReader::open(&dir, stream).range().ok()?.1);
        (end("stdout"), end("stderr"))
    }

    fn refused(&mut self, n: u64, run: RunId, code: RefusedCode, text: String) {
        tracing::warn!(shim = n, run = %run, ?code, text, "a start was refused");
        if code == RefusedCode::NeverFits {
            let why = format!(
                "no shim has room for this run: {text}; raise LimitNOFILE= of the unit, or ulimit -Hn"
            );
            return self.fail_start(run, &why);
        }
        if matches!(code, RefusedCode::NoDescriptors | RefusedCode::Leaving)
            && let Some(shim) = self.shims.all.get_mut(&n)
        {
            // A further shim takes over.
            match code {
                RefusedCode::Leaving => shim.last = true,
                _ => shim.full = true,
            }
            self.take(Message::NotStarted {
                run,
                text: text.into(),
            });
            return;
        }
        let owner = self.owner.clone();
        tokio::spawn(async move {
            tokio::time::sleep(REFUSED_PAUSE).await;
            let _ended = owner.send(Message::NotStarted {
                run,
                text: text.into(),
            });
        });
    }
}

/// Waits for the end of a guard, at most a few seconds: one that hangs holds its lock, and that is looked at again
/// by the next daemon.
async fn wait_for_guard(guard: Option<std::os::fd::OwnedFd>, dir: &std::path::Path) {
    if let Some(pidfd) = guard
        && let Ok(pidfd) = crate::ready::readable(pidfd)
    {
        let _late = tokio::time::timeout(KILL_WITHIN, pidfd.readable()).await;
    }
    for _ in 0..200 {
        if matches!(client::is_locked(dir), Ok(false)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a record means to the core.
pub(crate) fn fact_input(facts: &RunFacts, record: &Record) -> Option<Input> {
    let run = facts.run;
    match record {
        Record::Started { pid, .. } => Some(Input::Started { run, pid: *pid }),
        Record::StartFailed {
            stage, errno, text, ..
        } => Some(Input::StartFailed {
            run,
            stage: stage.as_str().into(),
            errno: *errno,
            text: crate::launch::start_failure(stage, *errno, text).into(),
        }),
        Record::Exited {
            survivors, successor, ..
        } => Some(Input::Exited {
            run,
            end: facts.end()?,
            survivors: *survivors,
            successor: successor.map(|next| Successor {
                run: unwire(next.run),
                stamp: Stamp {
                    restart: next.stamp[0],
                    launch: next.stamp[1],
                },
            }),
        }),
        Record::TreeGone { .. } => Some(Input::TreeGone { run }),
        Record::Head { .. } | Record::Intent { .. } | Record::Born { .. } | Record::Dropped { .. } => None,
    }
}
