//! The queues of a node: the machine's commands carried out, facts given to it.

use super::dag::Runner;
use super::defined::AllDefined;
use super::handle::TaskOutcome;
use super::handler::{Handler, Handling};
use super::outbox::{Outboxes, Wants};
use super::resident::Residents;
use super::scale::{self, Scaled};
use super::stats::{Counted, Minutes};
use super::stores::{Home, Homes};
use crate::clock;
use crate::facts::RunFacts;
use crate::info::{Actor, Event};
use crate::owner::Message;
use crate::state::State;
use gaffer_core::io;
use gaffer_core::name::RunId;
use gaffer_core::queue::dispatch::{self, Command, Input};
use gaffer_core::queue::outcome::Outcome;
use gaffer_core::queue::spec::{Queue, QueueId, Unknown};
use gaffer_core::queue::task::{Claimed, Failure, Handle, Settlement, TaskId, TaskState};
use gaffer_core::time::{Mono, Wall};
use gaffer_queue::numbers::{StoreNumber, store_of};
use gaffer_queue::port::{Answer, Claim, Pushed, Request};
use gaffer_queue::rows::Mode;
use gaffer_queue::{Store, StoreError};
use gaffer_shim::message::ToShim;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

/// What the owner is told about queues.
pub(crate) enum QueueNews {
    /// For the machine that it concerns, or for all.
    Input(Input),
    /// For the machine of a store.
    At(StoreNumber, Input),
    /// A store is open, or cannot be.
    Opened(StoreNumber, Result<Store, StoreError>),
    /// What operators said about the queues of a store, and what an earlier incarnation of this node had.
    Ready(StoreNumber, BTreeMap<String, Mode>, Vec<Claimed>),
    /// It is time to try to open a store again.
    OpenAgain(StoreNumber),
    /// A resident worker was written to; its stdin is closed.
    Fed(RunId, bool),
    /// What a resident worker says; none: all is read.
    Said(RunId, Option<Vec<String>>),
    /// A handler takes the tasks of a queue.
    Handler(QueueId, Handler),
    /// Who takes the tasks of a queue is asked for.
    HandlerOf(QueueId, oneshot::Sender<Option<Handler>>),
    /// A handler has ended.
    Handled(Handle, Outcome),
    /// An operator changed the mode of a queue.
    Mode(QueueId, Mode),
    /// An operator wants so many workers; none: as the file says.
    Scaled(QueueId, Option<u32>, Actor, oneshot::Sender<()>),
    /// The thread of the outbox of a queue wants something.
    Outbox(QueueId, Wants, std::sync::mpsc::Sender<Result<Vec<i64>, String>>),
    /// Tasks out of an outbox are in the store: their kinds, and what became of them.
    Taken(QueueId, Vec<Option<String>>, Vec<Pushed>),
    /// Something was said about queues of a store on another node.
    Told(StoreNumber),
    /// What was done is to be written, so that little of it is lost.
    Minute,
}

/// A run that works on a task.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub handle: Handle,
    pub queue: QueueId,
    pub seat: u32,
}

/// All queues of this node.
pub(crate) struct Queues {
    pub homes: Homes,
    pub defined: AllDefined,
    /// Workers that operators want.
    pub(super) scaled: Scaled,
    pub modes: BTreeMap<String, Mode>,
    pub(super) runs: BTreeMap<RunId, Worker>,
    pub(super) by_task: BTreeMap<TaskId, RunId>,
    /// The last run of each slot.
    pub(super) seats: BTreeMap<String, RunId>,
    pub(super) residents: Residents,
    pub(super) outboxes: Outboxes,
    /// Leads the runs of queued tasks of steps.
    pub runner: Option<Runner>,
    pub(super) handlers: BTreeMap<QueueId, Handler>,
    /// Handlers at work.
    pub(super) handling: BTreeMap<TaskId, Handling>,
    /// What recovery found, by slot: the newest run, and whether its shim is dead.
    pub(super) found: BTreeMap<String, (Box<RunFacts>, bool)>,
    /// This incarnation of this node.
    pub(super) owner: Arc<str>,
    /// Who waits for the end of a task.
    pub(super) waiting: BTreeMap<TaskId, Vec<oneshot::Sender<TaskOutcome>>>,
    /// Who waits until what these runs did is in the store.
    barriers: Vec<(BTreeSet<RunId>, oneshot::Sender<()>)>,
    /// Rung when something may be claimed.
    pub(super) bell: watch::Sender<u64>,
    pub(super) counted: BTreeMap<QueueId, Counted>,
    pub(super) minutes: Minutes,
    /// When attempts began.
    pub(super) begun: BTreeMap<TaskId, Mono>,
    /// When waiting tasks of a queue were last given a new rank.
    aged: BTreeMap<QueueId, Mono>,
    /// Whose output is whose.
    pub(super) notes: super::output::Notes,
    /// When this daemon began to look.
    pub(super) since: Wall,
    /// The log of the store's file is too large since then.
    pub(super) log_since: Option<Wall>,
    /// The end of the node goes on with its jobs when the queues are done: all of them, by whom.
    pub(super) then_shutdown: Option<(bool, io::Actor)>,
}

impl Queues {
    /// None open yet; what files define is known. `node` and `epoch` make the name of this incarnation.
    pub fn new(node: &str, epoch: u32, mut homes: Homes, mut defined: AllDefined, scaled: Scaled) -> Queues {
        homes.place(&defined);
        scale::apply(&mut defined, &scaled);
        Queues {
            homes,
            defined,
            scaled,
            modes: BTreeMap::new(),
            runs: BTreeMap::new(),
            by_task: BTreeMap::new(),
            seats: BTreeMap::new(),
            residents: Residents::default(),
            outboxes: Outboxes::default(),
            runner: None,
            handlers: BTreeMap::new(),
            handling: BTreeMap::new(),
            found: BTreeMap::new(),
            owner: format!("{node}:{epoch}").into(),
            waiting: BTreeMap::new(),
            barriers: Vec::new(),
            bell: watch::Sender::new(0),
            counted: BTreeMap::new(),
            minutes: Minutes::default(),
            begun: BTreeMap::new(),
            aged: BTreeMap::new(),
            notes: super::output::Notes::default(),
            since: clock::wall(),
            log_since: None,
            then_shutdown: None,
        }
    }

    /// When the machine has to be looked at, at the latest.
    pub fn next_deadline(&self) -> Option<Mono> {
        let open = self.homes.all().filter(|(_, home)| home.store.is_some());
        let machines: Vec<Option<Mono>> = open.map(|(_, home)| home.dispatch.next_deadline()).collect();
        if machines.is_empty() {
            return None;
        }
        let lease = |queue: &QueueId| self.defined.get(queue).map(|defined| defined.spec.lease);
        let residents = self.residents.next_deadline(lease);
        machines.into_iter().chain([residents]).flatten().min()
    }

    /// Is this run a worker's?
    pub fn has_run(&self, run: RunId) -> bool {
        self.runs.contains_key(&run) || self.residents.by_run.contains_key(&run)
    }

    /// Is this the run of a worker that an orderly end of the node ends?
    pub fn ends_with_node(&self, run: RunId, all: bool) -> bool {
        if let Some((queue, _)) = self.residents.by_run.get(&run) {
            return all || !self.spec(queue).is_some_and(|spec| spec.keep_running);
        }
        let worker = self.runs.get(&run);
        let spec = worker.and_then(|worker| self.spec(&worker.queue));
        worker.is_some() && (all || !spec.is_some_and(|spec| spec.keep_running))
    }

    /// Resolves when what the workers did that are known now is in the store; none: there are none.
    pub fn barrier(&mut self) -> Option<oneshot::Receiver<()>> {
        let residents = self.residents.by_run.keys();
        let open: BTreeSet<RunId> = self.runs.keys().chain(residents).copied().collect();
        if open.is_empty() {
            return None;
        }
        let (tx, rx) = oneshot::channel();
        self.barriers.push((open, tx));
        Some(rx)
    }

    pub(super) fn settled(&mut self, run: RunId) {
        for (open, _) in &mut self.barriers {
            open.remove(&run);
        }
        let done = self.barriers.extract_if(.., |(open, _)| open.is_empty());
        for (_, answer) in done {
            let _gone = answer.send(());
        }
    }

    /// The definition in force.
    pub fn spec(&self, queue: &QueueId) -> Option<&Arc<Queue>> {
        self.defined.get(queue).map(|defined| &defined.spec)
    }
}

/// What is done when an answer of the store comes.
type Then = Box<dyn FnOnce(Result<Answer, StoreError>) -> Input + Send>;

impl State {
    /// Something about queues.
    pub fn queue_news(&mut self, news: QueueNews) {
        match news {
            QueueNews::Input(input) => self.feed_queue(input),
            QueueNews::At(number, input) => self.feed_store(number, input),
            QueueNews::Opened(number, opened) => self.queue_store_opened(number, opened),
            QueueNews::Ready(number, modes, orphans) => self.queues_ready(number, modes, orphans),
            QueueNews::OpenAgain(number) => {
                if let Some(home) = self.queues.homes.get_mut(number) {
                    home.opening = false;
                }
                self.open_queue_store(number);
            }
            QueueNews::Fed(run, closed) => self.resident_fed(run, closed),
            QueueNews::Said(run, lines) => self.resident_said(run, lines),
            QueueNews::Handler(queue, handler) => self.put_handler(queue, handler),
            QueueNews::HandlerOf(queue, answer) => {
                let _gone = answer.send(self.queues.handlers.get(&queue).cloned());
            }
            QueueNews::Handled(attempt, outcome) => self.handled(attempt, outcome),
            QueueNews::Outbox(queue, wants, reply) => self.outbox_wants(queue, wants, reply),
            QueueNews::Taken(queue, kinds, pushed) => self.outbox_taken(queue, &kinds, &pushed),
            QueueNews::Scaled(queue, to, by, done) => {
                self.queue_scaled(queue, to, by);
                let _gone = done.send(());
            }
            QueueNews::Told(number) => self.told_elsewhere(number),
            QueueNews::Minute => self.write_minutes(true),
            QueueNews::Mode(queue, mode) => {
                let input = Input::Paused {
                    queue: queue.clone(),
                    on: mode.paused,
                    running: mode.frozen,
                };
                self.queues.modes.insert(queue.to_string(), mode);
                // What waited out a pause is not judged by what was so before it.
                self.queues.aged.remove(&queue);
                self.feed_queue(input);
            }
        }
    }

    /// Files define these queues now.
    pub fn define_queues(&mut self, mut defined: AllDefined) {
        self.queues.scaled.retain(|queue, _| defined.contains_key(queue));
        scale::apply(&mut defined, &self.queues.scaled);
        let old = std::mem::replace(&mut self.queues.defined, defined);
        if self.queues.defined.is_empty() && old.is_empty() {
            return;
        }
        self.queues.homes.place(&self.queues.defined);
        self.open_queue_stores();
        // Schedules are kept where the queues have their tasks.
        self.schedules.order(crate::schedule::Order::Look);
        let gone: Vec<QueueId> = old
            .keys()
            .filter(|id| !self.queues.defined.contains_key(*id))
            .cloned()
            .collect();
        for queue in gone {
            self.feed_queue(Input::Removed(queue));
        }
        self.put_queues();
    }

    pub(super) fn put_queues(&mut self) {
        let all: Vec<Input> = self
            .queues
            .defined
            .iter()
            .filter(|(queue, _)| self.queues.homes.of(queue).known)
            .map(|(queue, defined)| Input::Put {
                queue: queue.clone(),
                spec: defined.spec.clone(),
                paused: self
                    .queues
                    .modes
                    .get(&queue.to_string())
                    .is_some_and(|mode| mode.paused),
            })
            .collect();
        for input in all {
            self.feed_queue(input);
        }
        self.handlers_are_up();
        self.tend_residents();
        self.tend_outboxes();
    }

    /// Deadlines of queues that have passed.
    pub fn tick_queues(&mut self) {
        let now = clock::mono();
        if self.queues.next_deadline().is_some_and(|at| at <= now) {
            self.feed_queue(Input::Tick);
            self.tick_residents();
        }
    }

    /// Gives an input to the machine that it concerns, or to all, and does what they say.
    pub fn feed_queue(&mut self, input: Input) {
        if let Some(number) = self.queues.homes.route(&input) {
            return self.feed_store(number, input);
        }
        let all: Vec<StoreNumber> = self.queues.homes.all().map(|(number, _)| number).collect();
        for number in all {
            self.feed_store(number, input.clone());
        }
    }

    /// Gives an input to the machine of a store and does what it says.
    pub(super) fn feed_store(&mut self, number: StoreNumber, input: Input) {
        if matches!(input, Input::Hint(_)) {
            self.queues.bell.send_modify(|count| *count += 1);
        }
        self.write_minutes(false);
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(home) = self.queues.homes.get_mut(number) else {
                return;
            };
            let output = home.dispatch.handle(clock::now(), input);
            let mut told = Vec::with_capacity(output.events.len());
            for event in output.events {
                told.push(self.queue_event(event));
            }
            told.iter().for_each(|event| self.put_event(event));
            self.counters.events += self.events.append(told);
            for command in output.commands {
                if let Some(input) = self.perform_queue(number, command) {
                    inputs.push_back(input);
                }
            }
        }
    }

    fn perform_queue(&mut self, number: StoreNumber, command: Command) -> Option<Input> {
        match command {
            Command::Claim { queue, count } => self.claim(queue, count),
            Command::Hand { seat, row } => {
                let handle = row.handle;
                return self.hand(seat, row).err().map(|outcome| Input::Ended {
                    handle,
                    outcome,
                    gone: true,
                });
            }
            Command::Signal { handle, .. } if self.queues.has_handler(handle) => {
                self.end_handler(handle, false);
            }
            Command::Signal { handle, signal, to } => {
                match (self.worker_run(handle), self.queues.residents.run_of(handle)) {
                    (Some(run), _) => self.signal(run, signal, to),
                    (None, Some(run)) => self.end_resident_task(run, handle, false),
                    (None, None) => return Some(Input::Gone(handle)),
                }
            }
            Command::Kill(handle) if self.queues.has_handler(handle) => {
                self.end_handler(handle, true);
            }
            Command::Kill(handle) => match (self.worker_run(handle), self.queues.residents.run_of(handle)) {
                (Some(run), _) => self.kill_tree(run),
                (None, Some(run)) => self.end_resident_task(run, handle, true),
                (None, None) => return Some(Input::Gone(handle)),
            },
            Command::Freeze { handle, on } => {
                let run = self
                    .worker_run(handle)
                    .or_else(|| self.queues.residents.run_of(handle));
                if let Some(run) = run {
                    let wire = crate::shims::wire(run);
                    self.to_shim(run, |req| ToShim::Freeze { req, run: wire, on });
                }
            }
            Command::Settle(settlement) => self.ask_settle(*settlement),
            Command::Renew(handles) => {
                let asked = clock::mono();
                let then = move |answer| Input::Renewed {
                    asked,
                    kept: match answer {
                        Ok(Answer::Renewed(kept)) => Some(kept),
                        _ => None,
                    },
                };
                self.ask_store(number, Request::Renew(handles, clock::wall()), Box::new(then));
            }
            Command::Upkeep => {
                let (owner, now) = (self.queues.owner.clone(), clock::wall());
                let then = |answer| match answer {
                    Ok(Answer::Upkept(upkept)) => Input::Upkept(Some(upkept)),
                    _ => Input::Upkept(None),
                };
                self.ask_store(number, Request::Upkeep { owner, now }, Box::new(then));
            }
            Command::ShutdownDone => self.store_done(number),
        }
        None
    }

    fn claim(&mut self, queue: QueueId, count: u32) {
        let (failed, number) = (queue.clone(), self.queues.homes.number_of(&queue));
        let Some(spec) = self.queues.spec(&queue).cloned() else {
            return self.queue_later(Input::Claimed {
                queue: failed,
                rows: Some(Vec::new()),
                again_at: None,
            });
        };
        let kinds = (spec.unknown == Unknown::Wait && !spec.kinds.is_empty()).then(|| {
            let mut kinds: Vec<Option<Arc<str>>> = spec.kinds.keys().cloned().map(Some).collect();
            kinds.push(None);
            kinds
        });
        self.grow_urgent(&queue, &spec);
        let claim = Claim {
            queue,
            count,
            owner: self.queues.owner.clone(),
            now: clock::wall(),
            lease: spec.lease,
            kinds,
            throttle: spec.throttle.clone(),
            forget: spec.forgets_at_claim(),
        };
        let then = move |answer| match answer {
            Ok(Answer::Claimed(rows, again_at)) => Input::Claimed {
                queue: failed,
                rows: Some(rows),
                again_at,
            },
            _ => Input::Claimed {
                queue: failed,
                rows: None,
                again_at: None,
            },
        };
        self.ask_store(number, Request::Claim(Box::new(claim)), Box::new(then));
    }

    /// Before a claim, at most once per step: what has waited gets the rank that its waiting is worth. A queue at rest costs nothing.
    fn grow_urgent(&mut self, queue: &QueueId, spec: &Queue) {
        let (Some(step), Some(store)) = (spec.aging, &self.queues.homes.of(queue).store) else {
            return;
        };
        let now = clock::mono();
        let aged = self.queues.aged.get(queue);
        if spec.fifo || aged.is_some_and(|at| at.plus(step) > now) {
            return;
        }
        self.queues.aged.insert(queue.clone(), now);
        // A store that cannot do it says so to the claim that follows.
        let request = Request::Age(queue.clone(), step, clock::wall());
        store.ask(request, Box::new(|_answer| {}));
    }

    fn ask_settle(&mut self, settlement: Settlement) {
        let handle = settlement.handle;
        let then = move |answer| Input::Settled {
            handle,
            written: match answer {
                Ok(Answer::Settled(written)) => Some(written),
                _ => None,
            },
        };
        self.ask_store(
            store_of(handle.task),
            Request::Settle(Box::new(settlement), clock::wall()),
            Box::new(then),
        );
    }

    fn ask_store(&mut self, number: StoreNumber, request: Request, then: Then) {
        let owner = self.owner.clone();
        let done = move |answer| {
            let _ended = owner.send(Message::Queue(QueueNews::At(number, then(answer))));
        };
        let home = self.queues.homes.get(number);
        match home.and_then(|home| home.store.as_ref()) {
            Some(store) => store.ask(request, Box::new(done)),
            None => done(Err(StoreError::Unavailable("it is not open".to_owned()))),
        }
    }

    fn queue_later(&self, input: Input) {
        let _ended = self.owner.send(Message::Queue(QueueNews::Input(input)));
    }

    /// The run that works on this very attempt.
    fn worker_run(&self, handle: Handle) -> Option<RunId> {
        let run = *self.queues.by_task.get(&handle.task)?;
        let worker = self.queues.runs.get(&run)?;
        (worker.handle == handle).then_some(run)
    }

    /// What the machine tells, as everybody hears it. Whoever waits for the end of the task is answered.
    fn queue_event(&mut self, event: dispatch::Event) -> Event {
        let mut data = vec![
            ("queue", event.queue.to_string()),
            ("task", event.task.to_string()),
            ("attempt", event.attempt.to_string()),
        ];
        data.extend(event.kind.as_ref().map(|kind| ("kind", kind.to_string())));
        let mut reason = None;
        let run = self.queues.by_task.get(&event.task).copied();
        match event.settlement {
            None => {
                let kind = event.kind.as_ref();
                self.queues
                    .count_start(&event.queue, kind, event.task, event.waited);
                data.push(("waited_ms", event.waited.as_millis().to_string()));
            }
            Some(settlement) => {
                data.push(("state", settlement.state.word().to_owned()));
                if let Some(at) = settlement.run_at {
                    data.push(("run_at", at.0.to_string()));
                }
                reason = settlement.failure.as_ref().map(reason_of);
                let stale = event.event == "queue.task.stale";
                self.queues
                    .count(&event.queue, event.kind.as_ref(), &settlement, stale);
                self.attempt_over(&settlement, stale);
            }
        }
        Event {
            event: event.event,
            job: None,
            slot: None,
            run,
            by: None,
            reason,
            data,
        }
    }

    /// An attempt from outside was settled.
    pub(super) fn tell_settled(&mut self, row: &Claimed, settlement: &Settlement) {
        let event = match settlement.state {
            TaskState::Done => "queue.task.done",
            TaskState::Dead => "queue.task.dead",
            TaskState::Cancelled => "queue.task.cancelled",
            TaskState::Lost => "queue.task.lost",
            _ => "queue.task.failed",
        };
        let mut data = vec![
            ("queue", row.queue.to_string()),
            ("task", row.handle.task.to_string()),
            ("attempt", row.attempt.to_string()),
        ];
        data.extend(row.kind.as_ref().map(|kind| ("kind", kind.to_string())));
        data.push(("state", settlement.state.word().to_owned()));
        self.tell(Event {
            event,
            job: None,
            slot: None,
            run: None,
            by: None,
            reason: settlement.failure.as_ref().map(reason_of),
            data,
        });
    }

    /// What the attempt did is in the store: its journal is needed no more.
    fn attempt_over(&mut self, settlement: &Settlement, stale: bool) {
        let task = settlement.handle.task;
        if let Some(run) = self.worker_run(settlement.handle) {
            self.queues.by_task.remove(&task);
            self.forget_worker(run);
        }
        if settlement.state.is_final() && !stale {
            for waiter in self.queues.waiting.remove(&task).unwrap_or_default() {
                let _gone = waiter.send(TaskOutcome {
                    state: settlement.state,
                    attempt: settlement.attempt,
                    result: settlement.result.clone(),
                    failure: settlement.failure.clone(),
                });
            }
        }
    }

    pub(super) fn forget_worker(&mut self, run: RunId) {
        self.queues.runs.remove(&run);
        self.queues.settled(run);
        if let Some(facts) = self.runs.runs.get_mut(&run) {
            facts.settled = true;
            self.drop_if_over(run);
        }
    }

    /// Nothing of the queues is left: the jobs follow.
    pub(super) fn queues_done(&mut self) {
        if let Some((all, by)) = self.queues.then_shutdown.take() {
            self.feed(io::Input::Shutdown { all, by });
        }
    }

    /// A fact about a worker's run, as journals tell it of any run.
    pub fn queue_fact(&mut self, run: RunId, input: io::Input) {
        if matches!(input, io::Input::Started { .. } | io::Input::Exited { .. }) {
            self.note_part(run);
        }
        if self.queues.residents.by_run.contains_key(&run) {
            return self.resident_fact(run, input);
        }
        let Some(worker) = self.queues.runs.get(&run).cloned() else {
            return;
        };
        let handle = worker.handle;
        let (input, over) = match input {
            io::Input::StartFailed { text, .. } => {
                let outcome = Outcome::Failed(Failure::of("start-failed", text));
                (ended(handle, outcome, true), true)
            }
            io::Input::NotStarted { .. } => (ended(handle, Outcome::NotHanded, true), true),
            io::Input::Exited { end, survivors, .. } => {
                return self.worker_exited(run, &worker, &end, survivors == 0);
            }
            io::Input::TreeGone { .. } => (Input::Gone(handle), true),
            // A silent shim holds back its seats; nothing is decided meanwhile.
            _ => return,
        };
        self.feed_queue(input);
        if over {
            self.drop_stranger(run, handle);
        }
    }

    /// A worker whose attempt the machine does not know (any more) is of no interest when it is over.
    pub(super) fn drop_stranger(&mut self, run: RunId, handle: Handle) {
        let known = self.queues.held(handle.task);
        let known = known.is_some_and(|(row, _)| row.handle == handle);
        // Before recovery is over nothing is known yet. Of a store that nobody names any more nothing will be.
        let home = self.queues.homes.get(store_of(handle.task));
        if !known && home.is_none_or(|home| home.known) {
            self.forget_worker(run);
        }
    }

    /// The machine of a store has nothing left to wait for.
    fn store_done(&mut self, number: StoreNumber) {
        if let Some(home) = self.queues.homes.get_mut(number) {
            home.done = true;
        }
        let is_over = |(_, home): (_, &Home)| home.done || home.store.is_none();
        if self.queues.homes.all().all(is_over) {
            self.close_residents();
        }
    }

    /// The orderly end of a node: first its queues, then its jobs.
    pub fn begin_shutdown(&mut self, all: bool, by: io::Actor) {
        let homes = self.queues.homes.all();
        let open = homes.filter(|(_, home)| home.store.is_some());
        let open: Vec<StoreNumber> = open.map(|(number, _)| number).collect();
        if open.is_empty() || self.queues.then_shutdown.is_some() {
            return self.feed(io::Input::Shutdown { all, by });
        }
        self.queues.then_shutdown = Some((all, by));
        for number in open {
            self.feed_store(number, Input::Shutdown);
        }
    }
}

pub(super) fn ended(handle: Handle, outcome: Outcome, gone: bool) -> Input {
    Input::Ended {
        handle,
        outcome,
        gone,
    }
}

/// A failure as a reason of events: its kind is a code only if it is one of ours.
fn reason_of(failure: &Failure) -> io::Reason {
    let code = match &*failure.kind {
        "timeout" => "timeout",
        "lease-expired" | "lease-lost" => "lease-lost",
        "unknown-kind" => "unknown-kind",
        "bad-arguments" => "bad-arguments",
        "oom" => "oom",
        "start-failed" => "exec-failed",
        "interrupted" => "interrupted",
        _ => "failed",
    };
    io::Reason {
        code,
        text: failure.message.clone(),
    }
}

/// A time of the wall for the machine, from one of the store.
pub(super) fn due(at: Wall) -> Input {
    Input::Due(at)
}

impl Queues {
    /// No task of a queue is here; where the time is over, one whose outcome cannot be written does not count.
    pub fn is_idle(&self, late: bool) -> bool {
        let mut named = self.defined.keys().map(|queue| self.homes.of(queue));
        // Before a store is open and recovery over, nobody knows what there is.
        let is_known = named.all(|home| home.store.is_some() && home.dispatch.is_recovered());
        (late || is_known) && self.homes.all().all(|(_, home)| home.dispatch.is_idle(late))
    }

    /// Tasks that workers have.
    pub fn busy_count(&self) -> usize {
        self.homes.all().map(|(_, home)| home.dispatch.working()).sum()
    }

    /// Resident workers are sent away, until [`Queues::reopen_residents`].
    pub fn close_for_good(&mut self) {
        self.residents.closing = true;
    }

    /// Resident workers are kept again.
    pub fn reopen_residents(&mut self) {
        self.residents.closing = false;
    }

    /// Is a resident worker there still?
    pub fn has_residents(&self) -> bool {
        self.residents.any()
    }
}
