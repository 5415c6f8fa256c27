//! The tasks of a node: facts in, records first, then commands.

use super::definition::Definition;
use super::desk::{Desk, Link, Write};
use super::latest::{self, AllLatest};
use super::launch;
use super::layout::{Place, Root};
use super::lead;
use super::output;
use super::stream::Writer;
use crate::clock;
use crate::facts::RunFacts;
use crate::info::{Actor, Error, Event, Rusage};
use crate::owner::Message;
use crate::settings::TasksLed;
use crate::state::State;
use crate::store::LatestRow;
use gaffer_core::io;
use gaffer_core::job::Output;
use gaffer_core::name::RunId;
use gaffer_core::task::record::{Header, Record, TaskState, Usage};
use gaffer_core::task::runner::{Command, Found, Input, Leader, RunEnd, Runner};
use gaffer_core::time::{Mono, Wall};
use gaffer_shim::message::ToShim;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, watch};

/// What tasks are grouped by under shims; no session has this name.
const GROUP: &str = "task:";

/// All tasks that this node leads.
pub(crate) struct Tasks {
    pub(super) active: BTreeMap<Arc<str>, Active>,
    /// Tasks of runs that may have processes.
    runs: BTreeMap<RunId, Arc<str>>,
    /// Runs that recovery found, by slot: the newest of each, and whether its shim is dead.
    found: BTreeMap<String, (Box<RunFacts>, bool)>,
    /// What files define.
    pub(super) defined: super::AllDefined,
    /// Keys of `unique` tasks that are being accepted.
    pub(super) claimed: BTreeSet<String>,
    /// Newest runs of definitions that something waits for.
    pub(super) latest: AllLatest,
    /// Rung when a run may be wanted.
    pub(super) starts: Arc<Notify>,
    /// Rung when something may have to go that is over.
    pub(super) keeps: Arc<Notify>,
    /// Tasks of which no step may begin before what they come after.
    held: BTreeSet<Arc<str>>,
    /// An orderly end of the node that waits for the ends of its tasks.
    then_shutdown: Option<(bool, Actor)>,
    desk: Option<Desk>,
    /// Rung when a task changes.
    pub(super) bell: watch::Sender<u64>,
}

/// A task that is led here.
pub(crate) struct Active {
    pub runner: Runner,
    pub header: Header,
    pub definition: Definition,
    pub root: Root,
    writer: Arc<Mutex<Writer>>,
}

/// A task whose stream is ours: it was read, and nobody else writes it.
pub(crate) struct Led {
    pub id: Arc<str>,
    pub header: Header,
    pub definition: Definition,
    pub root: Root,
    pub writer: Writer,
    pub records: Vec<Record>,
    pub by: Actor,
}

impl Active {
    /// Nobody knows what its steps would do.
    pub fn is_bare(&self) -> bool {
        self.definition.json.is_null()
    }
}

impl Default for Tasks {
    fn default() -> Tasks {
        Tasks {
            active: BTreeMap::new(),
            runs: BTreeMap::new(),
            found: BTreeMap::new(),
            defined: super::AllDefined::new(),
            claimed: BTreeSet::new(),
            latest: AllLatest::new(),
            starts: Arc::default(),
            keeps: Arc::default(),
            held: BTreeSet::new(),
            then_shutdown: None,
            desk: None,
            bell: watch::Sender::new(0),
        }
    }
}

impl Tasks {
    /// No task is active.
    pub fn is_idle(&self) -> bool {
        self.active.is_empty()
    }

    /// Tasks that are active.
    pub fn active_count(&self) -> usize {
        self.active.len()
    }

    /// None led yet; what files define is known.
    pub fn with(defined: super::AllDefined, latest: &[LatestRow]) -> Tasks {
        Tasks {
            latest: latest::from_rows(latest, &defined),
            defined,
            ..Tasks::default()
        }
    }

    /// What files define.
    pub fn defined(&self) -> &super::AllDefined {
        &self.defined
    }

    /// When a task has to be looked at, at the latest.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.active
            .values()
            .filter_map(|active| active.runner.next_deadline())
            .min()
    }

    /// Streams of all tasks that are led.
    pub fn writers(&self) -> Vec<Arc<Mutex<Writer>>> {
        self.active.values().map(|active| active.writer.clone()).collect()
    }

    /// The task of a run.
    pub fn task_of(&self, run: RunId) -> Option<&Arc<str>> {
        self.runs.get(&run)
    }

    /// Resolves when all records so far are durable; none: there are none.
    pub fn barrier(&self) -> Option<tokio::sync::oneshot::Receiver<()>> {
        self.desk.as_ref().map(Desk::barrier)
    }
}

impl State {
    /// Takes charge of a task whose stream we lead.
    pub fn task_lead(&mut self, led: Led) -> Result<(), Error> {
        let leader = Leader {
            pid: std::process::id(),
            uid: rustix::process::getuid().as_raw(),
        };
        let seed = clock::mono().0;
        let spec = led.definition.spec.clone();
        let runner = Runner::replay(spec, leader, seed, clock::now(), &led.records);
        let runner = runner.map_err(|error| Error::Task(format!("task {}: {error}", led.id)))?;
        let (id, header) = (led.id.clone(), led.header.clone());
        self.tasks.active.insert(
            id.clone(),
            Active {
                runner,
                header: led.header,
                definition: led.definition,
                root: led.root,
                writer: Arc::new(Mutex::new(led.writer)),
            },
        );
        if !led
            .records
            .iter()
            .any(|record| matches!(record, Record::Status(_)))
        {
            let event = task_event("task.accepted", &id, None, None, Some(led.by), None);
            self.counters.events += self.events.append([event]);
        }
        self.note_led(&id);
        self.tell_found(&id);
        self.hold_task(&id);
        self.feed_task(&id, Input::Lead(Box::new(header)));
        self.release_tasks();
        Ok(())
    }

    /// A task of which no step has begun waits for what it comes after. Without jobs there is nothing to wait for.
    fn hold_task(&mut self, id: &Arc<str>) {
        let Some(active) = self.tasks.active.get(id) else {
            return;
        };
        let comes_after = active.definition.native.as_ref();
        let comes_after =
            comes_after.is_some_and(|native| !native.after.is_empty() || !native.after_tasks.is_empty());
        let is_first = active.runner.history().steps.is_empty();
        if comes_after && is_first && self.settings.tasks_led == TasksLed::All {
            self.tasks.held.insert(id.clone());
        }
        if self.tasks.held.contains(id) || active.is_bare() {
            self.feed_task(id, Input::Hold(true));
        }
    }

    /// What a held task waits for, as it is now.
    pub(super) fn held_by(&self, id: &str) -> Option<io::Reason> {
        let id = self.tasks.held.get(id)?;
        let native = self.tasks.active.get(id)?.definition.native.as_ref()?;
        self.node
            .waits_for(&native.id.session, &native.after, &native.after_tasks)
    }

    /// Tasks begin that have waited for what came about.
    pub fn release_tasks(&mut self) {
        if self.tasks.held.is_empty() {
            return;
        }
        let free = self.tasks.held.iter().filter(|id| self.held_by(id).is_none());
        let mut free: Vec<Arc<str>> = free.cloned().collect();
        free.sort_by_key(|id| self.priority_of(id));
        for id in free {
            self.tasks.held.remove(&id);
            self.feed_task(&id, Input::Hold(false));
        }
    }

    /// An orderly end that leaves nothing behind ends all tasks first. False: there are none.
    pub fn end_tasks(&mut self, all: bool, by: &Actor) -> bool {
        let passing = all && self.settings.leash.is_some() && self.settings.tasks_led == TasksLed::All;
        if !passing || self.tasks.active.is_empty() {
            return false;
        }
        self.tasks.then_shutdown = Some((all, by.clone()));
        self.kill_tasks(false, &format!("killed by {by}"));
        true
    }

    fn priority_of(&self, id: &Arc<str>) -> i32 {
        let native = self
            .tasks
            .active
            .get(id)
            .and_then(|active| active.definition.native.as_ref());
        let defined = native.and_then(|native| self.tasks.defined.get(&native.id));
        defined.map_or(0, |defined| defined.priority)
    }

    /// Asks for the end of all tasks.
    pub(crate) fn kill_tasks(&mut self, hard: bool, reason: &str) {
        let active = self.tasks.active.iter();
        let active: Vec<_> = active
            .map(|(id, active)| (id.clone(), active.definition.spec.stop_timeout))
            .collect();
        for (id, grace) in active {
            let kill = Input::Kill {
                state: TaskState::Killed,
                grace,
                hard,
                reason: reason.into(),
            };
            self.feed_task(&id, kill);
        }
    }

    /// Tasks that are being ended before the node ends are ended now.
    pub fn kill_ending_tasks(&mut self) {
        if let Some((_, by)) = self.tasks.then_shutdown.clone() {
            self.kill_tasks(true, &format!("killed by {by}"));
        }
    }

    fn task_finished(&mut self, id: &Arc<str>, state: TaskState) {
        let Some(active) = self.tasks.active.remove(id) else {
            return;
        };
        self.tasks.held.remove(id);
        self.drop_outputs(&active);
        self.note_over(&active, state);
        if let (true, Some((all, by))) = (self.tasks.active.is_empty(), self.tasks.then_shutdown.take()) {
            self.begin_shutdown(all, by);
        }
    }

    /// Recovery met a slot that is no job's. A run that lives is followed from now on: its task may be led only later, and what
    /// happens meanwhile must not be missed.
    pub fn note_task_run(&mut self, slot: &str, facts: RunFacts, dead_shim: bool) {
        if launch::of_slot(slot).is_none() {
            return;
        }
        let facts = Box::new(facts);
        if !facts.is_over() && !dead_shim {
            self.runs.runs.insert(facts.run, facts.clone());
        }
        self.tasks.found.insert(slot.to_owned(), (facts, dead_shim));
    }

    /// What recovery knows of a task's runs.
    fn tell_found(&mut self, id: &Arc<str>) {
        let mine = |slot: &&String| launch::of_slot(slot).is_some_and(|(task, _)| *task == **id);
        let slots: Vec<String> = self.tasks.found.keys().filter(mine).cloned().collect();
        for slot in slots {
            let Some((facts, dead_shim)) = self.tasks.found.remove(&slot) else {
                continue;
            };
            let step = launch::of_slot(&slot).and_then(|(_, step)| {
                let active = self.tasks.active.get(id)?;
                active.definition.spec.step(step)
            });
            let Some(step) = step else {
                continue;
            };
            let (run, attempt) = (facts.run, facts.attempt);
            let facts = self.runs.runs.get(&run).cloned().unwrap_or(facts);
            let what = self.found(&facts, dead_shim);
            if !facts.is_over() && !dead_shim {
                self.tasks.runs.insert(run, id.clone());
            } else if let Some(facts) = self.runs.runs.get_mut(&run) {
                facts.settled = true;
                self.drop_if_over(run);
            }
            self.feed_task(
                id,
                Input::Found {
                    step,
                    attempt,
                    run,
                    what,
                },
            );
        }
    }

    fn found(&self, facts: &RunFacts, dead_shim: bool) -> Found {
        let parent_pid = self.parent_of(facts);
        let born = facts.started.map(|(at, _)| (facts.pid, parent_pid, at));
        if let Some(failed) = &facts.failed {
            return Found::StartFailed {
                text: crate::launch::start_failure(&failed.stage, failed.errno, &failed.text).into(),
                code: exec_code(&failed.stage, failed.errno),
            };
        }
        if let Some(end) = facts.end() {
            return Found::Ended {
                born,
                end: self.step_end(facts, &end),
                tree_gone: facts.gone || dead_shim,
            };
        }
        // Of a run that is gone without an exit on file nobody saw the end.
        match (facts.born, dead_shim || facts.gone) {
            (false, true) => Found::NotStarted,
            (false, false) => Found::Asked,
            (true, true) => Found::Ended {
                born,
                end: RunEnd {
                    status: io::Status::Unknown,
                    oom: false,
                    at: clock::wall(),
                    outputs: Ok(Vec::new()),
                    usage: None,
                },
                tree_gone: true,
            },
            (true, false) => Found::Alive {
                pid: facts.pid,
                parent_pid,
                at: facts.started.map_or_else(clock::wall, |(at, _)| at),
            },
        }
    }

    fn parent_of(&self, facts: &RunFacts) -> u32 {
        self.shims.all.get(&facts.shim).map_or(0, |shim| shim.pid)
    }

    /// Recovery is over: runs of tasks that nobody knows any more are ended. Those of a task that is there and cannot be led
    /// are left alone: nothing is killed because of a file that we cannot read.
    pub fn end_unknown_task_runs(&mut self, there: &BTreeSet<String>) {
        self.end_found(|task| !task.is_some_and(|task| there.contains(task)));
    }

    /// A task that could not be led is over: its runs are ended.
    pub(super) fn end_found_runs(&mut self, id: &str) {
        self.end_found(|task| task == Some(id));
    }

    fn end_found(&mut self, is_meant: impl Fn(Option<&str>) -> bool) {
        let is_meant = |slot: &str| is_meant(launch::of_slot(slot).map(|(task, _)| task));
        let (meant, others) = std::mem::take(&mut self.tasks.found)
            .into_iter()
            .partition(|(slot, _)| is_meant(slot));
        self.tasks.found = others;
        let meant: BTreeMap<String, (Box<RunFacts>, bool)> = meant;
        for (mut facts, dead_shim) in meant.into_values() {
            let run = facts.run;
            if !facts.is_over() && !dead_shim {
                tracing::warn!(run = %run, slot = facts.slot, "the task of this run is not known here; it is ended");
                facts.settled = true;
                self.runs.runs.insert(run, facts);
                self.kill_tree(run);
            }
        }
    }

    /// Deadlines of tasks that have passed.
    pub fn tick_tasks(&mut self) {
        let now = clock::mono();
        let due: Vec<Arc<str>> = self
            .tasks
            .active
            .iter()
            .filter(|(_, active)| active.runner.next_deadline().is_some_and(|at| at <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            self.feed_task(&id, Input::Tick);
        }
    }

    /// Gives an input to a task's machine; what it returns is written first.
    pub fn feed_task(&mut self, id: &Arc<str>, input: Input) {
        let Some(active) = self.tasks.active.get_mut(id) else {
            return;
        };
        let (node, runs) = (&mut self.node, &mut self.tasks.runs);
        let mut ids = || {
            let run = node.make_run_id();
            runs.insert(run, id.clone());
            run
        };
        let output = active.runner.handle(clock::now(), input, &mut ids);
        let write = Write {
            id: id.clone(),
            writer: active.writer.clone(),
            root: active.root.clone(),
            records: output.records,
            commands: output.commands,
        };
        let events: Vec<Event> = output
            .events
            .into_iter()
            .map(|event| {
                task_event(
                    event.event,
                    id,
                    event.step.as_deref(),
                    event.run,
                    None,
                    event.reason,
                )
            })
            .collect();
        self.counters.events += self.events.append(events);
        if write.records.is_empty() && write.commands.is_empty() {
            return;
        }
        match self.desk() {
            Ok(desk) => desk.write(write),
            Err(error) => {
                tracing::error!(task = %id, %error, "no thread can be started to write the checkpoint")
            }
        }
        self.tasks.bell.send_modify(|count| *count += 1);
    }

    fn desk(&mut self) -> std::io::Result<&Desk> {
        if self.tasks.desk.is_none() {
            self.tasks.desk = Some(Desk::open(self.owner.clone())?);
        }
        self.tasks
            .desk
            .as_ref()
            .ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }

    /// Records are durable: what follows from them is done.
    pub fn task_written(&mut self, id: &Arc<str>, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Spawn {
                    step,
                    run,
                    attempt,
                    after,
                } => {
                    if let Err(text) = self.spawn_step(id, step, run, attempt, after) {
                        self.task_fact(
                            id,
                            io::Input::StartFailed {
                                run,
                                stage: "template".into(),
                                errno: 0,
                                text: text.into(),
                            },
                        );
                    }
                }
                Command::Signal { run, signal, to } => self.signal(run, signal, to),
                Command::KillTree { run } => self.kill_tree(run),
                Command::Freeze { run, on } => {
                    let run = crate::shims::wire(run);
                    self.to_shim(crate::shims::unwire(run), |req| ToShim::Freeze { req, run, on });
                }
                Command::Finish { state } => self.task_finished(id, state),
            }
        }
        self.tasks.bell.send_modify(|count| *count += 1);
    }

    fn spawn_step(
        &mut self,
        id: &Arc<str>,
        step: usize,
        run: RunId,
        attempt: u32,
        after: Option<RunId>,
    ) -> Result<(), String> {
        let Some(active) = self.tasks.active.get(id) else {
            return Ok(());
        };
        let slot = launch::slot(id, &active.definition.spec.steps[step].name);
        let note = |state: &mut State, shim| {
            let facts = RunFacts::begin(run, &slot, [0, 0], attempt, shim);
            state.runs.runs.insert(run, Box::new(facts));
        };
        if let Some(silent) = self.shims.silent(GROUP) {
            tracing::warn!(shim = silent, %slot, "the start waits for a shim that does not answer");
            note(self, silent);
            return Ok(());
        }
        let shim = match self.shims.serving(GROUP) {
            Some(shim) => shim,
            None => self.open_shim(GROUP)?,
        };
        let Some(active) = self.tasks.active.get(id) else {
            return Ok(());
        };
        let message = launch::spawn(self, active, step, run, attempt, after)?;
        if active.definition.spec.steps[step].launch.stdout != Output::Null {
            let dir = PathBuf::from(&message.log_dir);
            self.link(Link::First(dir));
        }
        note(self, shim);
        let connection = self
            .shims
            .all
            .get(&shim)
            .and_then(|shim| shim.connection.as_ref());
        if let Some(connection) = connection {
            connection.send(&ToShim::Spawn(Box::new(message)));
        }
        Ok(())
    }

    /// A fact about a run of a task, as journals tell it of any run.
    pub fn task_fact(&mut self, id: &Arc<str>, input: io::Input) {
        let facts = |run: &RunId| self.runs.runs.get(run);
        let (run, input, over) = match input {
            io::Input::Started { run, pid } => {
                let known = facts(&run);
                let at = known.and_then(|facts| facts.started).map(|(at, _)| at);
                let parent_pid = known.map_or(0, |facts| self.parent_of(facts));
                let at = at.unwrap_or_else(clock::wall);
                (
                    run,
                    Input::Started {
                        run,
                        pid,
                        parent_pid,
                        at,
                    },
                    false,
                )
            }
            io::Input::StartFailed {
                run,
                stage,
                errno,
                text,
            } => {
                let code = exec_code(&stage, errno);
                (run, Input::StartFailed { run, text, code }, true)
            }
            io::Input::NotStarted { run, .. } => (run, Input::NotStarted { run }, true),
            io::Input::Exited {
                run, end, survivors, ..
            } => {
                let tree_gone = survivors == 0;
                let Some(end) = facts(&run).map(|facts| self.step_end(facts, &end)) else {
                    return;
                };
                (run, Input::Ended { run, end, tree_gone }, tree_gone)
            }
            io::Input::TreeGone { run } => (run, Input::TreeGone { run }, true),
            // A silent shim holds back its slots; nothing is decided meanwhile.
            _ => return,
        };
        if over {
            self.tasks.runs.remove(&run);
            self.sampler.forget(run);
            self.link_output(id, run);
        }
        self.feed_task(id, input);
        if let Some(facts) = self.runs.runs.get_mut(&run).filter(|_| over) {
            facts.settled = true;
            self.drop_if_over(run);
        }
    }
}

impl State {
    /// How a run ended, with what it said. Its file stays until the task is over: until then the record may be
    /// lost, and is made again from it.
    fn step_end(&self, facts: &RunFacts, end: &io::End) -> RunEnd {
        let file = launch::of_slot(&facts.slot).and_then(|(task, name)| {
            let active = self.tasks.active.get(task)?;
            // By its run, as long as that is known to the machine: a search among all steps is long.
            let step = active.runner.step_of(facts.run);
            let step = step.or_else(|| active.definition.spec.step(name))?;
            let file = launch::output_file(self, active, step, facts.attempt)?;
            Some((file, active.definition.spec.steps[step].clone()))
        });
        RunEnd {
            status: end.status,
            oom: end.oom,
            at: end.at,
            outputs: file.map_or(Ok(Vec::new()), |(file, step)| file.read(&step)),
            usage: facts.exit.as_ref().map(|exit| usage(&exit.rusage)),
        }
    }

    /// A task is over: what its programs wrote as outputs is on record.
    fn drop_outputs(&self, active: &Active) {
        let history = active.runner.history();
        for (at, step) in active.definition.spec.steps.iter().enumerate() {
            let runs = history.steps.get(&step.name).map_or(0, Vec::len);
            for attempt in (1..).take(runs) {
                if let Some(file) = launch::output_file(self, active, at, attempt) {
                    file.remove();
                }
            }
        }
    }

    /// The output of a run that is over gets the names that people look for.
    fn link_output(&mut self, id: &Arc<str>, run: RunId) {
        let Some((active, facts)) = self.tasks.active.get(id).zip(self.runs.runs.get(&run)) else {
            return;
        };
        let Some((_, step)) = launch::of_slot(&facts.slot) else {
            return;
        };
        let dir = output::directory(&active.header.log_dir, step, facts.attempt);
        self.link(Link::Last(dir));
    }

    /// Links are made where nobody waits for them, in order, and before what is written from now on.
    fn link(&mut self, link: Link) {
        match self.desk() {
            Ok(desk) => desk.link(link),
            Err(error) => tracing::error!(%error, "no thread can be started to link output"),
        }
    }
}

fn usage(rusage: &Rusage) -> Usage {
    Usage {
        cpu_ms: (rusage.user_us + rusage.system_us) / 1000,
        memory_peak: rusage.max_rss_kib * 1024,
    }
}

/// As shells say it: 127 where there is no such program, 126 for everything else.
fn exec_code(stage: &str, errno: i32) -> i32 {
    if stage == "exec" && errno == libc::ENOENT {
        127
    } else {
        126
    }
}

fn task_event(
    event: &'static str,
    id: &str,
    step: Option<&str>,
    run: Option<RunId>,
    by: Option<Actor>,
    reason: Option<io::Reason>,
) -> Event {
    let mut data = vec![("task", id.to_owned())];
    data.extend(step.map(|step| ("step", step.to_owned())));
    Event {
        event,
        job: None,
        slot: None,
        run,
        by,
        reason,
        data,
    }
}

/// The run that an input of the node machine is about.
pub(crate) fn run_of(input: &io::Input) -> Option<RunId> {
    match input {
        io::Input::Started { run, .. }
        | io::Input::StartFailed { run, .. }
        | io::Input::NotStarted { run, .. }
        | io::Input::Exited { run, .. }
        | io::Input::TreeGone { run }
        | io::Input::Probed { run, .. }
        | io::Input::Unreachable { run, .. } => Some(*run),
        _ => None,
    }
}

/// Leads all tasks of a root again that are not over. Called once, after recovery.
pub(crate) async fn resume(state: &Arc<Mutex<State>>) {
    let root = {
        let state = crate::owner::lock(state);
        if state.settings.tasks_led != TasksLed::All {
            // Nothing before somebody asks: what was found is kept for that.
            return;
        }
        Root::new(state.settings.tasks_dir())
    };
    let listed = {
        let root = root.clone();
        tokio::task::spawn_blocking(move || root.list(Some(Place::Active))).await
    };
    let listed = match listed {
        Ok(Ok(listed)) => listed,
        Ok(Err(error)) => {
            tracing::error!(%error, "the tasks of this node cannot be listed");
            return;
        }
        Err(_) => return,
    };
    let there: BTreeSet<String> = listed.iter().map(|one| one.id.clone()).collect();
    for one in listed {
        let root = root.clone();
        let id = one.id.clone();
        let led = tokio::task::spawn_blocking(move || lead::again(&root, &id)).await;
        if let Ok(Ok(led)) = &led
            && let Err(error) = latest::commit(state, led).await
        {
            tracing::error!(task = one.id, %error, "the store does not take that the task goes on");
            continue;
        }
        let mut state = crate::owner::lock(state);
        let outcome = match led {
            Ok(Ok(led)) => state.task_lead(led).map_err(|error| error.to_string()),
            Ok(Err(text)) => Err(text),
            Err(_) => Err("its thread ended".to_owned()),
        };
        if let Err(why) = outcome {
            // Left as it is: nothing is decided on half a history.
            tracing::error!(task = one.id, why, "the task cannot be led");
        }
    }
    crate::owner::lock(state).end_unknown_task_runs(&there);
    latest::resume(state).await;
    crate::owner::lock(state).release_tasks();
}

/// What is shown of a time that nobody wrote down.
pub(super) fn now() -> Wall {
    clock::wall()
}

/// What the owner is told of a task.
pub(crate) fn message(id: Arc<str>, input: Input) -> Message {
    Message::Task { id, input }
}
