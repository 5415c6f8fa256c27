//! All that the owner owns: the core, the shims, what is known of each run, and who waits for what.
//!
//! [`State::feed`] gives one input to the core and does what comes out. Nothing awaits in here; whatever takes
//! time is a task that sends a message when it is done. Readers take the lock for a view and give it back.

use crate::clock;
use crate::events::EventWriter;
use crate::facts::{Fold, RunFacts};
use crate::info::{Counters, Error, JobInfo};
use crate::launch;
use crate::operations::Operations;
use crate::owner::Message;
use crate::pids::Pids;
use crate::queue::Homes;
use crate::queue::service::Queues;
use crate::settings::{Grouping, Settings, Tuning};
use crate::settle;
use crate::shims::{Connection, Shim, ShimState, Shims, watch_end, wire};
use crate::stats::Sampler;
use crate::store::{Change, Settled, Store};
use crate::task::service::{self, Tasks};
use crate::tree::{self, Orphan};
use crate::watch::Watches;
use gaffer_core::io::{Actor, Command, Input, Wish, WishState};
use gaffer_core::job::{Job, Scope};
use gaffer_core::name::{JobId, Place, RunId, Slot};
use gaffer_core::{Node, NodeLimits};
use gaffer_shim::client;
use gaffer_shim::journal::{Position, Reader};
use gaffer_shim::message::{self, ToShim};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// A job's definition and wish, as committed.
pub(crate) struct JobMeta {
    pub spec: Arc<Job>,
    pub revision: u64,
    pub file: Option<Arc<str>>,
    pub line: Option<u32>,
    pub wish: Wish,
    pub scaled: Option<u32>,
    pub instance_wishes: BTreeMap<u32, Wish>,
    /// Asked to go; forgotten when its runs are gone.
    pub removed: bool,
}

/// See the module.
pub(crate) struct State {
    pub settings: Arc<Settings>,
    pub tuning: Tuning,
    /// Rung when the logs are to be looked at before their time.
    pub budget_bell: watch::Sender<()>,
    pub node: Node,
    pub jobs: BTreeMap<JobId, Box<JobMeta>>,
    pub runs: Fold,
    pub pids: Pids,
    pub shims: Shims,
    pub operations: Operations,
    pub watches: Watches,
    pub sampler: Sampler,
    pub tasks: Tasks,
    pub queues: Queues,
    pub schedules: crate::schedule::Schedules,
    pub store: Store,
    pub events: EventWriter,
    pub owner: mpsc::UnboundedSender<Message>,
    pub committer: mpsc::UnboundedSender<crate::requests::Committing>,
    pub ended: watch::Sender<Option<i32>>,
    pub counters: Counters,
    pub hooks: crate::outbox::Hooks,
    /// Highest intent number in use.
    pub seq: u64,
    pub epoch: u32,
    pub cgroup_base: Option<PathBuf>,
    /// Where limits of runs go.
    pub host: std::cell::RefCell<crate::limits::Host>,
    /// Tells this node's processes from another's on the same host.
    pub node_id: String,
    pub base_env: Arc<launch::BaseEnv>,
    /// Jobs that changed since operations were last looked at.
    pub dirty: BTreeSet<JobId>,
    /// Deaths to hand to the store at the end of this turn.
    pub settled: Vec<Settled>,
    pub settled_since_prune: u32,
    pub shutting_down: bool,
    /// The node takes nothing new.
    pub drain: Option<crate::drain::Draining>,
    /// Exit code of the node once shut down.
    pub exit_code: i32,
}

/// What the owner talks to.
pub(crate) struct Ends {
    pub store: Store,
    pub events: EventWriter,
    pub owner: mpsc::UnboundedSender<Message>,
    pub ended: watch::Sender<Option<i32>>,
}

impl State {
    /// Nothing is known yet: recovery comes next.
    pub fn new(
        settings: Arc<Settings>,
        loaded: &crate::store::Loaded,
        ends: Ends,
        cgroup_base: Option<PathBuf>,
    ) -> State {
        let node_id = crate::containment::node_id(&settings.state_dir);
        let host = crate::limits::Host::new(settings.containment, cgroup_base.clone(), &settings.state_dir);
        let seed = u64::from(loaded.epoch) ^ clock::mono().0;
        let homes = Homes::new(settings.queue_store.as_deref(), &loaded.queue_stores, seed);
        State {
            node: Node::with_limits(loaded.epoch, seed, limits(&settings.tuning)),
            tuning: settings.tuning.clone(),
            budget_bell: watch::Sender::new(()),
            settings,
            jobs: BTreeMap::new(),
            runs: Fold::default(),
            pids: Pids::default(),
            shims: Shims {
                next: 1,
                ..Shims::default()
            },
            operations: Operations::new(),
            watches: Watches::default(),
            sampler: Sampler::default(),
            tasks: Tasks::with(crate::task::from_rows(&loaded.tasks), &loaded.latest),
            queues: Queues::new(
                &node_id,
                loaded.epoch,
                homes,
                crate::queue::from_rows(&loaded.queues),
                crate::queue::scaled_from(&loaded.queue_scales),
            ),
            schedules: crate::schedule::Schedules::new(crate::schedule::from_rows(&loaded.schedules)),
            committer: crate::requests::committer(ends.owner.clone()),
            store: ends.store,
            events: ends.events,
            owner: ends.owner,
            ended: ends.ended,
            counters: Counters::default(),
            hooks: crate::outbox::Hooks::new(&loaded.hooks, loaded.outbox_newest),
            seq: loaded.intent_seq,
            epoch: loaded.epoch,
            host: host.into(),
            cgroup_base,
            node_id,
            base_env: Arc::new(launch::base_env()),
            dirty: BTreeSet::new(),
            settled: Vec::new(),
            settled_since_prune: 0,
            shutting_down: false,
            drain: loaded.drain.clone().map(crate::drain::Draining::new),
            exit_code: 0,
        }
    }

    /// A fresh intent number.
    pub fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// Gives an input to the core and does what it says.
    pub fn feed(&mut self, input: Input) {
        if let Some(task) = service::run_of(&input).and_then(|run| self.tasks.task_of(run)) {
            let task = task.clone();
            return self.task_fact(&task, input);
        }
        if let Some(run) = service::run_of(&input).filter(|run| self.queues.has_run(*run)) {
            return self.queue_fact(run, input);
        }
        let mut queue = VecDeque::from([input]);
        while let Some(input) = queue.pop_front() {
            let output = self.node.handle(clock::now(), input);
            for event in &output.events {
                self.count(event.event, event);
            }
            let events = output.events.into_iter().map(|event| self.complete(event));
            let events: Vec<crate::info::Event> = events.collect();
            self.note_output(&events, &output.commands);
            self.counters.events += self.events.append(events);
            for command in output.commands {
                self.perform(command, &mut queue);
            }
            self.dirty.extend(output.touched);
        }
    }

    /// Ends and signals are told with the process they are about.
    fn complete(&self, event: gaffer_core::io::Event) -> crate::info::Event {
        let mut event = crate::info::Event::from(event);
        let facts = event.run.and_then(|run| self.runs.runs.get(&run));
        if let (Some(facts), "run.exited" | "run.signalled") = (facts, event.event)
            && facts.pid != 0
        {
            event.data.push(("pid", facts.pid.to_string()));
        }
        event
    }

    /// Says that somebody sent a signal: to a job, then to each of its runs; or to one run.
    pub fn tell_signalled(&mut self, job: &JobId, runs: &[RunId], whole: bool, signal: i32, by: &Actor) {
        let mut told = Vec::new();
        let name = gaffer_core::signal::short(signal).map_or_else(|| signal.to_string(), str::to_owned);
        let event = |slot, run| gaffer_core::io::Event {
            event: "run.signalled",
            job: job.clone(),
            slot,
            run,
            by: Some(by.clone()),
            reason: None,
            data: vec![("signal", name.clone())],
        };
        if whole {
            told.push(event(None, None));
        }
        told.extend(runs.iter().map(|run| event(self.slot_of(*run), Some(*run))));
        let told: Vec<crate::info::Event> = told.into_iter().map(|event| self.complete(event)).collect();
        told.iter().for_each(|event| self.put_event(event));
        // Nobody else may have a turn for long.
        self.flush_hooks();
        self.counters.events += self.events.append(told);
    }

    fn count(&mut self, name: &str, event: &gaffer_core::io::Event) {
        match name {
            "run.started" => self.counters.runs_started += 1,
            "run.adopted" => self.counters.adopted += 1,
            "run.exited" => {
                let code = event
                    .data
                    .iter()
                    .find(|(key, _)| *key == "code")
                    .map(|(_, value)| value.as_str());
                match code {
                    Some("0") => self.counters.runs_exited_ok += 1,
                    _ => self.counters.runs_exited_failed += 1,
                }
            }
            _ => {}
        }
    }

    fn perform(&mut self, command: Command, queue: &mut VecDeque<Input>) {
        match command {
            Command::Spawn { .. } => {
                if let Some(failed) = self.spawn(command) {
                    queue.push_back(failed);
                }
            }
            Command::Stand { .. } => self.stand(command),
            Command::Withdraw { run } => self.to_shim(run, |_| ToShim::Withdraw { run: wire(run) }),
            Command::Signal { run, signal, to } => {
                self.to_shim(run, |req| ToShim::Signal {
                    req,
                    run: wire(run),
                    signal,
                    scope: launch::scope(to),
                });
            }
            Command::KillTree { run } => self.kill_tree(run),
            Command::Freeze { run, on } => {
                self.to_shim(run, |req| ToShim::Freeze {
                    req,
                    run: wire(run),
                    on,
                });
            }
            Command::RunStopCmd { run, cmd } => self.run_stop_cmd(run, cmd),
            Command::Probe { run, role } => {
                if let Some(input) = self.probe(run, role) {
                    queue.push_back(input);
                }
            }
            Command::ProbeEnd { run } => self.watches.end(run),
            Command::Settle { slot, death, reason } => self.settle(&slot, &death, &reason),
            Command::Forget { slot, job } => self.forget(slot, job),
            Command::EndNode { code, job } => {
                self.exit_code = code;
                self.shutting_down = true;
                queue.push_back(Input::Shutdown {
                    all: false,
                    by: format!("the end of {job}").into(),
                });
            }
            Command::Drained => self.drain_over(),
            Command::ShutdownDone => {
                self.ended.send_replace(Some(self.exit_code));
            }
        }
    }

    /// The slot of a run that is known here.
    pub fn slot_of(&self, run: RunId) -> Option<Slot> {
        self.runs.runs.get(&run)?.slot.parse().ok()
    }

    /// What runs are grouped by under shims.
    fn group(&self, slot: &Slot, run: RunId) -> String {
        match self.tuning.grouping {
            Grouping::Session => slot.job.session.to_string(),
            Grouping::Job => slot.job.to_string(),
            Grouping::Run => run.to_string(),
        }
    }

    fn spawn(&mut self, command: Command) -> Option<Input> {
        let Command::Spawn {
            run,
            slot,
            after,
            launch,
            attempt,
            stamp,
        } = command
        else {
            return None;
        };
        let failed = |stage: &str, errno: i32, text: String| {
            Some(Input::StartFailed {
                run,
                stage: stage.into(),
                errno,
                text: text.into(),
            })
        };
        let group = self.group(&slot, run);
        if let Some(silent) = self.shims.silent(&group) {
            // In its socket there may be a start of this very slot by the daemon before us. Until it is fenced, or dead,
            // nothing of its group may start elsewhere.
            tracing::warn!(shim = silent, %slot, "the start waits for a shim that does not answer");
            self.note_unborn(run, &slot, attempt, stamp, silent);
            return None;
        }
        let shim = match self.shims.serving(&group) {
            Some(shim) => shim,
            None => match self.open_shim(&group) {
                Ok(shim) => shim,
                Err(text) => {
                    self.note_unborn(run, &slot, attempt, stamp, 0);
                    return failed("shim", 0, text);
                }
            },
        };
        self.note_unborn(run, &slot, attempt, stamp, shim);
        let request = launch::Request {
            run,
            slot: &slot,
            after,
            launch: &launch,
            attempt,
            stamp,
        };
        if let Err((errno, text)) = self.open_notify(&slot.job, &launch) {
            return failed("notify", errno, text);
        }
        match launch::spawn(self, &request) {
            Ok((spawn, label)) => {
                if let Some(facts) = self.runs.runs.get_mut(&run) {
                    facts.label = label;
                }
                if let Some(connection) = self
                    .shims
                    .all
                    .get(&shim)
                    .and_then(|shim| shim.connection.as_ref())
                {
                    connection.send(&ToShim::Spawn(Box::new(spawn)));
                    crate::halt::at(1);
                }
                None
            }
            Err(text) => failed("template", 0, text),
        }
    }

    /// Leaves a standing order with the shim of the live run. One that cannot be written down is none: then the start is
    /// decided, and fails or not, when the run has ended.
    fn stand(&self, command: Command) {
        let Command::Stand {
            after,
            run,
            slot,
            launch,
            attempt,
            stamp,
        } = command
        else {
            return;
        };
        let serving = self.shims.serving(&self.group(&slot, run));
        let has_it = self.runs.runs.get(&after).map(|facts| facts.shim);
        if serving != has_it {
            // The next run belongs to a further shim.
            return;
        }
        let spec = self.jobs.get(&slot.job).map(|meta| &*meta.spec);
        let wants = self.watches.wants_notify(spec);
        if crate::notify::foreign(&launch).is_some_and(|uid| wants && !self.watches.notify.is_open(uid)) {
            // Its notify socket may have to be made first.
            return;
        }
        let request = launch::Request {
            run,
            slot: &slot,
            after: Some(after),
            launch: &launch,
            attempt,
            stamp,
        };
        if let Ok((spawn, _)) = launch::spawn(self, &request) {
            self.to_shim(after, |_| ToShim::Stand(Box::new(spawn)));
        }
    }

    /// Makes the notify socket of the user that a run is started as, if it will need one.
    fn open_notify(&mut self, job: &JobId, launch: &gaffer_core::job::Launch) -> Result<(), (i32, String)> {
        let spec = self.jobs.get(job).map(|meta| meta.spec.clone());
        let Some(uid) = crate::notify::foreign(launch).filter(|_| self.watches.wants_notify(spec.as_deref()))
        else {
            return Ok(());
        };
        self.watches.notify.open_for(uid).map_err(|error| {
            let text = format!("cannot make a notify socket for uid {uid}: {error}");
            (error.raw_os_error().unwrap_or(0), text)
        })
    }

    fn note_unborn(
        &mut self,
        run: RunId,
        slot: &Slot,
        attempt: u32,
        stamp: gaffer_core::io::Stamp,
        shim: u64,
    ) {
        let facts = RunFacts::begin(
            run,
            &slot.to_string(),
            [stamp.restart, stamp.launch],
            attempt,
            shim,
        );
        self.runs.runs.insert(run, Box::new(facts));
    }

    /// Starts a shim for a group, if one can be started now; the error is a sentence.
    pub fn open_shim(&mut self, group: &str) -> Result<u64, String> {
        if let Some(why) = self.shims.misfires.holds() {
            return Err(why.to_owned());
        }
        let opened = crate::scarce::room_for_a_shim().and_then(|()| {
            self.begin_shim(group)
                .map_err(|error| format!("cannot start a shim: {error}"))
        });
        if let Err(why) = &opened {
            tracing::warn!(why, "shim.refused");
            self.shims.misfires.note(why);
        }
        opened
    }

    /// Requests may be sent at once, behind its `Hello`.
    fn begin_shim(&mut self, group: &str) -> std::io::Result<u64> {
        let n = self.shims.next;
        self.shims.next += 1;
        let dir = self.settings.shims_dir().join(n.to_string());
        crate::settings::private_dir(&dir)?;
        std::fs::write(dir.join("group"), group)?;
        let started = client::start_shim(&self.settings.shim_binary()?, &dir)?;
        let guard_pid = started.guard.id();
        let mut watches = vec![reap_guard(started.guard)?];
        watches.push(watch_end(
            client::pidfd(guard_pid)?,
            self.owner.clone(),
            Message::GuardEnded { shim: n },
        )?);
        let connection = Connection::open(n, started.stream, self.owner.clone())?;
        connection.send(&self.hello());
        let shim = Shim {
            journal: Reader::open(&dir, Position::default())?,
            dir,
            group: group.to_owned(),
            connection: Some(connection),
            position: Position::default(),
            pid: 0,
            guard_pid,
            version: message::VERSION,
            runs: 0,
            state: ShimState::Connected,
            full: false,
            last: false,
            watches,
        };
        self.shims.all.insert(n, shim);
        Ok(n)
    }

    /// First message of every connection.
    pub fn hello(&self) -> ToShim {
        ToShim::Hello {
            version: message::VERSION,
            epoch: self.epoch,
            leash: self.settings.leash(),
        }
    }

    /// Sends a request about a run to its shim, if it has one that lives.
    pub fn to_shim(&self, run: RunId, request: impl FnOnce(u64) -> ToShim) {
        let connection = self
            .runs
            .runs
            .get(&run)
            .and_then(|facts| self.shims.all.get(&facts.shim))
            .and_then(|shim| shim.connection.as_ref());
        if let Some(connection) = connection {
            connection.tell(request);
        }
    }

    /// Ends everything of a run: by its shim, or by ourselves when that is dead.
    pub fn kill_tree(&mut self, run: RunId) {
        let Some(facts) = self.runs.runs.get(&run) else {
            return;
        };
        match self.shims.all.get(&facts.shim).map(|shim| shim.state) {
            Some(ShimState::Connected | ShimState::Silent) => {
                self.to_shim(run, |req| ToShim::KillTree { req, run: wire(run) });
            }
            _ => tree::kill(&orphan(facts, &self.node_id)),
        }
    }

    /// A definite end of a run: into the history, soon.
    fn settle(&mut self, slot: &Slot, death: &gaffer_core::io::Death, reason: &gaffer_core::io::Reason) {
        let Some(facts) = self.runs.runs.get_mut(&death.run) else {
            return;
        };
        if facts.settled {
            return;
        }
        facts.settled = true;
        let mut settled = settle::row(facts, slot, death, reason);
        settled.tell = self.told_with(death.run);
        self.settled.push(settled);
        if death.end.is_none() {
            self.counters.starts_failed += 1;
        }
        if matches!(slot.place, Place::OneOff(_)) {
            let status = death.end.as_ref().map(|end| end.status);
            self.operations.one_off_ended(slot, status, reason);
        }
        self.drop_if_over(death.run);
    }

    /// Lets go of a run that is over and settled.
    pub fn drop_if_over(&mut self, run: RunId) {
        let over = self.runs.runs.get(&run).is_some_and(|facts| {
            let unborn = !facts.intended && facts.exit.is_none();
            facts.settled && (facts.is_over() || unborn)
        });
        if over && let Some(facts) = self.runs.runs.remove(&run) {
            self.watches.end(run);
            self.sampler.forget(run);
            if let Some(shim) = self.shims.all.get_mut(&facts.shim) {
                shim.runs = shim.runs.saturating_sub(u32::from(facts.intended));
                // It has room again, or says so once more.
                shim.full &= !facts.intended;
            }
        }
    }

    fn forget(&mut self, slot: Option<Slot>, job: JobId) {
        let (session, name) = (job.session.to_string(), job.job.to_string());
        match slot.map(|slot| slot.place) {
            Some(Place::OneOff(n)) => {
                self.store.upkeep(vec![Change::OneOffForget {
                    session,
                    job: name,
                    n,
                }]);
            }
            // A surge lane that is empty again: nothing is stored about it.
            Some(Place::Instance { .. }) => {}
            None => {
                self.store.upkeep(vec![Change::JobForget { session, job: name }]);
                self.jobs.remove(&job);
                self.operations.look(&job, None);
            }
        }
    }

    /// Looks at operations whose jobs changed.
    pub fn look_at_operations(&mut self) {
        for job in std::mem::take(&mut self.dirty) {
            if self.operations.concerns(&job) {
                let view = self.node.job_view(&job);
                self.operations.look(&job, view.as_ref());
            }
        }
    }

    /// Hands this turn's deaths to the store.
    pub fn flush_settled(&mut self) {
        self.flush_hooks();
        if self.settled.is_empty() {
            return;
        }
        crate::halt::at(2);
        self.settled_since_prune += u32::try_from(self.settled.len()).unwrap_or(u32::MAX);
        self.store.settle(std::mem::take(&mut self.settled));
        if self.settled_since_prune >= 1000 {
            self.settled_since_prune = 0;
            self.prune_history();
        }
    }

    /// Other settings, from now on.
    pub fn tune(&mut self, tuning: Tuning) {
        if tuning == self.tuning {
            return;
        }
        self.tuning = tuning;
        self.feed(Input::Limits(limits(&self.tuning)));
        self.prune_history();
        self.budget_bell.send_replace(());
    }

    /// KILL for everything that an orderly end is waiting for.
    pub fn kill_ending(&mut self, all: bool) {
        self.kill_ending_tasks();
        let kept = |job: &JobId| {
            let meta = self.jobs.get(job);
            !all && meta.is_some_and(|meta| meta.spec.keep_running && meta.wish.state == WishState::Running)
        };
        let ending: Vec<RunId> = self
            .runs
            .runs
            .values()
            .filter(|facts| !facts.is_over())
            .filter(|facts| match facts.slot.parse::<Slot>() {
                Ok(slot) => !kept(&slot.job),
                Err(_) => self.queues.ends_with_node(facts.run, all),
            })
            .map(|facts| facts.run)
            .collect();
        for run in ending {
            self.kill_tree(run);
        }
    }

    /// Users other than ours as whom something runs.
    pub fn users_of_live_runs(&self) -> BTreeSet<u32> {
        let live = self.runs.runs.values().filter(|facts| !facts.is_over());
        live.filter_map(|facts| facts.slot.parse::<Slot>().ok())
            .filter_map(|slot| crate::notify::foreign_user(&self.jobs.get(&slot.job)?.spec))
            .collect()
    }

    /// Keeps the history within `[gaffer] history`.
    pub fn prune_history(&self) {
        let age = i64::try_from(self.tuning.history_age.as_millis()).unwrap_or(i64::MAX);
        let before = clock::wall().0.saturating_sub(age);
        self.store.upkeep(vec![Change::Prune {
            keep: self.tuning.history_runs,
            before,
        }]);
    }

    /// A job for readers.
    pub fn job_info(&self, job: &JobId) -> Option<JobInfo> {
        let mut view = self.node.job_view(job)?;
        for one in view.instances.iter_mut().filter(|one| one.started.is_some()) {
            // The journal's own time: the same before and after a restart of the daemon.
            let facts = one.run.and_then(|run| self.runs.runs.get(&run));
            one.started = facts
                .and_then(|facts| facts.started)
                .map(|(wall, _)| wall)
                .or(one.started);
        }
        let meta = self.jobs.get(job)?;
        Some(JobInfo {
            view,
            spec: meta.spec.clone(),
            revision: meta.revision,
            file: meta.file.clone(),
            line: meta.line,
            removed: meta.removed,
            scaled: meta.scaled,
        })
    }

    /// The error for a job that is not there, with the most similar name of its session.
    pub fn no_job(&self, job: &JobId) -> Error {
        let similar = self
            .jobs
            .keys()
            .filter(|other| other.session == job.session)
            .map(|other| {
                (
                    gaffer_config::distance(other.job.as_str(), job.job.as_str()),
                    other,
                )
            })
            .filter(|(distance, _)| *distance <= 2)
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, other)| other.clone());
        Error::JobNotFound(job.clone(), similar)
    }

    /// Signals a live run for somebody; the answer is the shim's.
    pub fn signal(&self, run: RunId, signal: i32, to: Scope) {
        self.to_shim(run, |req| ToShim::Signal {
            req,
            run: wire(run),
            signal,
            scope: launch::scope(to),
        });
    }
}

/// Bounds of the core, and the zone that its sentences tell wall times in: the one in force at start.
fn limits(tuning: &Tuning) -> NodeLimits {
    let mut limits = NodeLimits::default();
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let most = tuning
        .start_at_once
        .unwrap_or(u32::try_from(2 * cores).unwrap_or(u32::MAX));
    limits.start_at_once = most.max(1);
    limits.start_spacing = tuning.start_spacing;
    let offset = jiff::Zoned::now().offset();
    limits.zone.offset_s = offset.seconds();
    limits
}

/// What is needed to end a run without its shim.
pub(crate) fn orphan(facts: &RunFacts, node_id: &str) -> Orphan {
    Orphan {
        node_id: node_id.to_owned(),
        run: facts.run,
        pid: facts.pid,
        start_ticks: facts.start_ticks,
        pidfd_inode: facts.pidfd_inode,
        cgroup: facts.cgroup.clone(),
    }
}

/// Waits for the guard, our child, so that it does not stay a zombie.
fn reap_guard(mut guard: std::process::Child) -> std::io::Result<tokio::task::AbortHandle> {
    let pidfd = crate::ready::readable(client::pidfd(guard.id())?)?;
    let waiting = async move {
        let _ready = pidfd.readable().await;
        let _status = guard.try_wait();
    };
    Ok(tokio::spawn(waiting).abort_handle())
}
