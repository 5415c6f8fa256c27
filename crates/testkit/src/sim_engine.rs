//! The fake engine: what stands between the core and the world. Everything in it is lost with the daemon.

use super::Sim;
use super::world::{Record, World};
use gaffer_core::io::{Cause, Command, Death, Found, Input, Output, ProbeRole, Status};
use gaffer_core::name::{JobId, Place, RunId, Slot};
use gaffer_core::time::{Duration, Mono, Wall};
use gaffer_core::{Node, NodeLimits};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub struct Engine {
    pub node: Node,
    pub recovered: bool,
    /// Fed one by one.
    pub inputs: VecDeque<Input>,
    /// Done one by one.
    pub commands: VecDeque<Command>,
    /// Settled, not yet committed: with the journal position that goes with it.
    batch: Vec<(Slot, Death)>,
    /// Position in the journal up to which facts were read.
    read: usize,
    probes: BTreeSet<(Mono, u64, RunId, ProbeRole)>,
    probed: u64,
    /// Settled by this daemon: never twice.
    settled: BTreeSet<RunId>,
    pub shutdown_done: bool,
}

impl Engine {
    pub fn is_quiet(&self) -> bool {
        self.recovered
            && self.inputs.is_empty()
            && self.commands.is_empty()
            && self.batch.is_empty()
            && self.probes.is_empty()
    }
}

pub fn raw_cause(status: Status) -> Cause {
    match status {
        Status::Code(_) => Cause::Exit,
        Status::Signal(..) => Cause::Signal,
        Status::Unknown => Cause::Unknown,
    }
}

/// All that the journal says of a run.
#[derive(Clone, Debug, Default)]
struct Known {
    slot: Option<Slot>,
    stamp: gaffer_core::io::Stamp,
    pid: Option<u32>,
    end: Option<(gaffer_core::io::End, u32)>,
    failed: bool,
    gone: bool,
    never: bool,
}

fn fold(journal: &[Record]) -> BTreeMap<RunId, Known> {
    let mut runs: BTreeMap<RunId, Known> = BTreeMap::new();
    for record in journal {
        let known = runs.entry(record.run()).or_default();
        match record {
            Record::Intent { slot, stamp, .. } => {
                known.slot = Some(slot.clone());
                known.stamp = *stamp;
            }
            Record::Started { pid, .. } => known.pid = Some(*pid),
            Record::StartFailed { .. } => known.failed = true,
            Record::NotStarted { .. } => known.never = true,
            Record::Exited { end, survivors, .. } => {
                known.end = Some((end.clone(), *survivors));
                known.gone |= *survivors == 0;
            }
            Record::TreeGone { .. } => known.gone = true,
        }
    }
    runs
}

fn death_of(run: RunId, known: &Known, world: &World) -> Death {
    if let Some((_, death)) = world.store.history.get(&run) {
        return death.clone();
    }
    match &known.end {
        Some((end, _)) => Death {
            run,
            end: Some(end.clone()),
            cause: raw_cause(end.status),
            at: end.at,
        },
        None => Death {
            run,
            end: None,
            cause: Cause::ExecFailed,
            at: world.now.wall,
        },
    }
}

impl Sim {
    /// Store, epoch, journal, intent, slots: then the core may act. It can be killed in the middle of it.
    pub(super) fn start_daemon(&mut self) -> Result<(), String> {
        let world = &mut self.world;
        world.store.epoch += 1;
        let epoch = world.store.epoch;
        // Hello fences: what the shim had not read is thrown away.
        world.socket.clear();
        world.orders.clear();
        let seed = world.dice.next_u64();
        let limits = NodeLimits {
            start_at_once: 3,
            ..NodeLimits::default()
        };
        let node = Node::with_limits(epoch, seed, limits);
        let inputs = stored_intent(world);
        let mut engine = Engine {
            node,
            recovered: false,
            inputs,
            commands: VecDeque::new(),
            batch: Vec::new(),
            read: world.journal.len(),
            probes: BTreeSet::new(),
            probed: 0,
            settled: BTreeSet::new(),
            shutdown_done: false,
        };
        find_slots(world, &mut engine);
        engine.inputs.push_back(Input::Recovered);
        self.engine = Some(engine);
        self.restart_at = None;
        self.say(&format!("daemon {epoch} starts"));
        if self.world.frozen_shim {
            self.tell_silence(true);
        }
        Ok(())
    }

    /// One small step of the daemon. False: it has nothing to do.
    pub(super) fn engine_step(&mut self) -> Result<bool, String> {
        let Some(engine) = &mut self.engine else {
            return Ok(false);
        };
        if let Some(command) = engine.commands.pop_front() {
            self.do_command(command)?;
            return Ok(true);
        }
        if let Some(input) = engine.inputs.pop_front() {
            let recovered = matches!(input, Input::Recovered);
            self.feed(input);
            if let Some(engine) = &mut self.engine {
                engine.recovered |= recovered;
            }
            return Ok(true);
        }
        if !self.world.refused.is_empty() {
            let (run, text) = self.world.refused.remove(0);
            self.feed(Input::NotStarted {
                run,
                text: text.into(),
            });
            return Ok(true);
        }
        let bell = self.world.bell && !self.world.chance(10);
        if bell {
            self.read_journal();
            return Ok(true);
        }
        let Some(engine) = &mut self.engine else {
            return Ok(false);
        };
        if engine
            .probes
            .first()
            .is_some_and(|(at, ..)| *at <= self.world.now.mono)
            && let Some((_, _, run, role)) = engine.probes.pop_first()
        {
            self.answer_probe(run, role);
            return Ok(true);
        }
        if !engine.batch.is_empty() && (self.world.temper.calm || self.world.below(4) == 0) {
            self.commit_batch();
            return Ok(true);
        }
        Ok(false)
    }

    pub(super) fn feed(&mut self, input: Input) {
        let Some(engine) = &mut self.engine else { return };
        let line = describe_input(&input);
        let Output {
            commands,
            events,
            touched: _,
        } = engine.node.handle(self.world.now, input);
        engine.commands.extend(commands);
        if let Some(line) = line {
            self.say(&line);
        }
        for event in events {
            let reason = event
                .reason
                .map(|reason| format!(": {}", reason.text))
                .unwrap_or_default();
            let run = event.run.map(|run| format!(" @{run}")).unwrap_or_default();
            let place = event
                .slot
                .map_or_else(|| event.job.to_string(), |slot| slot.to_string());
            self.say(&format!("        {} {place}{run}{reason}", event.event));
        }
    }

    fn read_journal(&mut self) {
        self.world.bell = false;
        let Some(engine) = &mut self.engine else { return };
        // Sometimes the cursor is an older one: facts come twice.
        let back = if self.world.dice.next_u64().is_multiple_of(8) {
            3
        } else {
            0
        };
        let from = engine.read.saturating_sub(back);
        for record in &self.world.journal[from..] {
            engine.inputs.extend(fact(record));
        }
        engine.read = self.world.journal.len();
    }

    pub(super) fn tell_silence(&mut self, silent: bool) {
        let Some(engine) = &mut self.engine else { return };
        if !silent {
            self.world.bell = true;
        }
        for (run, _) in self.world.procs.iter().filter(|(_, proc)| !proc.over) {
            engine.inputs.push_back(Input::Unreachable { run: *run, silent });
        }
        if !silent {
            // What was missed in the meantime is read again: facts come twice.
            let of_live =
                |record: &&Record| self.world.procs.get(&record.run()).is_some_and(|proc| !proc.over);
            engine
                .inputs
                .extend(self.world.journal.iter().filter(of_live).flat_map(fact));
        }
    }

    fn do_command(&mut self, command: Command) -> Result<(), String> {
        if let Some(line) = describe_command(&command) {
            self.say(&line);
        }
        let Some(engine) = &mut self.engine else {
            return Ok(());
        };
        match command {
            Command::Settle { slot, death, .. } => {
                if !engine.settled.insert(death.run) {
                    return Err(format!("{} is settled twice by one daemon", death.run));
                }
                engine.batch.push((slot, death));
            }
            Command::Probe { run, role } => {
                let soon = self.world.ms(1, 50);
                engine.probed += 1;
                engine
                    .probes
                    .insert((self.world.now.mono.plus(soon), engine.probed, run, role));
                self.world.at(soon, super::world::Later::ShimReads);
            }
            Command::ProbeEnd { run } => engine.probes.retain(|(_, _, other, _)| *other != run),
            Command::Forget { slot, job } => {
                // The same transaction takes the settled deaths along.
                self.commit_batch();
                match slot {
                    Some(slot) => {
                        self.world.store.one_offs.remove(&slot);
                    }
                    None => {
                        let removed = self
                            .world
                            .store
                            .jobs
                            .get(&job)
                            .is_none_or(|stored| stored.removed);
                        if !removed {
                            return Err(format!("{job} is forgotten, but nobody removed it"));
                        }
                        self.world.store.jobs.remove(&job);
                        self.world.store.one_offs.retain(|slot, _| slot.job != job);
                    }
                }
            }
            Command::ShutdownDone => engine.shutdown_done = true,
            Command::Drained => {}
            Command::EndNode { .. } => {}
            spawn @ (Command::Spawn { .. } | Command::Stand { .. } | Command::Withdraw { .. }) => {
                self.send(spawn)
            }
            other @ (Command::Signal { .. } | Command::RunStopCmd { .. }) => self.send(other),
            other @ (Command::KillTree { .. } | Command::Freeze { .. }) => self.send(other),
        }
        Ok(())
    }

    fn send(&mut self, command: Command) {
        // Doing a command twice is harmless; thawing late is not the same command.
        if self.world.chance(8) {
            self.world.socket.push_back(command.clone());
        }
        self.world.socket.push_back(command);
    }

    fn commit_batch(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        for (slot, death) in engine.batch.drain(..) {
            self.world.store.history.entry(death.run).or_insert((slot, death));
        }
    }

    fn answer_probe(&mut self, run: RunId, role: ProbeRole) {
        let now = self.world.now.mono;
        let Some(proc) = self.world.procs.get(&run) else {
            return;
        };
        let up = !proc.main_ended
            && proc
                .born
                .is_some_and(|born| now.since(born.mono) >= proc.ready_after);
        let good = match role {
            ProbeRole::Ready => up,
            ProbeRole::Health => !proc.sick,
        };
        let result: Result<Arc<str>, Arc<str>> = if good { Ok("200".into()) } else { Err("503".into()) };
        self.feed(Input::Probed { run, role, result });
    }
}

/// Intent, as the store has it.
fn stored_intent(world: &World) -> VecDeque<Input> {
    let mut inputs = VecDeque::new();
    let by: Arc<str> = "store".into();
    for (job, stored) in &world.store.jobs {
        let put = Input::JobPut {
            job: job.clone(),
            spec: stored.spec.clone(),
            launch_digest: stored.digest,
            wish: stored.wish,
            scaled: stored.scaled,
            by: by.clone(),
        };
        inputs.push_back(put);
        for (n, wish) in &stored.overrides {
            let how = gaffer_core::io::How::default();
            let (job, by) = (job.clone(), by.clone());
            inputs.push_back(Input::Wished {
                job,
                instance: Some(*n),
                wish: *wish,
                how,
                by,
            });
        }
        if let Some((seq, how)) = stored.reload {
            let (job, by) = (job.clone(), by.clone());
            inputs.push_back(Input::Reloaded {
                job,
                instance: None,
                how,
                seq,
                by,
            });
        }
        if stored.removed {
            inputs.push_back(Input::JobRemoved {
                job: job.clone(),
                by: by.clone(),
            });
        }
    }
    for (slot, launch) in &world.store.one_offs {
        if let Place::OneOff(n) = slot.place {
            let (job, launch, by) = (slot.job.clone(), launch.clone(), by.clone());
            inputs.push_back(Input::OneOffPut {
                job,
                n,
                launch,
                grace: None,
                by,
            });
        }
    }
    inputs
}

/// Deaths that nobody settled, of runs that have a successor already, are settled as the stamps say.
fn settle_older(world: &mut World, runs: &BTreeMap<RunId, Known>, of: &[RunId]) {
    for pair in of.windows(2) {
        let (old, next) = (&runs[&pair[0]], &runs[&pair[1]]);
        let over = old.end.is_some() || old.failed;
        if !over || world.store.history.contains_key(&pair[0]) {
            continue;
        }
        let mut death = death_of(pair[0], old, world);
        if old.stamp != next.stamp && death.end.is_some() {
            death.cause = Cause::Replaced;
        }
        if let Some(slot) = &old.slot {
            world.store.history.insert(pair[0], (slot.clone(), death));
        }
    }
}

fn find_slots(world: &mut World, engine: &mut Engine) {
    let runs = fold(&world.journal);
    let mut slots: BTreeMap<Slot, Vec<RunId>> = BTreeMap::new();
    for (run, known) in &runs {
        if let Some(slot) = &known.slot {
            slots.entry(slot.clone()).or_default().push(*run);
        }
    }
    let mut facts = Vec::new();
    for (slot, of) in slots {
        settle_older(world, &runs, &of);
        let Some(run) = of.last().copied() else { continue };
        let known = &runs[&run];
        let past: Vec<Death> = of[..of.len() - 1]
            .iter()
            .filter_map(|run| world.store.history.get(run).map(|(_, death)| death.clone()))
            .collect();
        let found = found_of(world, run, known, &mut facts);
        let unborn = known.pid.is_none() && matches!(found, Found::Unreachable) && !world.frozen_shim;
        engine.inputs.push_back(Input::SlotFound {
            slot,
            run,
            stamp: known.stamp,
            found,
            past,
        });
        if unborn {
            facts.push(Input::Unreachable { run, silent: false });
        }
    }
    engine.inputs.extend(facts);
}

/// What recovery finds of a run; with `facts` what is told afterwards, as of an older cursor.
fn found_of(world: &mut World, run: RunId, known: &Known, facts: &mut Vec<Input>) -> Found {
    let as_it_was = world.dice.next_u64().is_multiple_of(2);
    let proc = &world.procs[&run];
    let started = proc.born.map_or(Wall(0), |born| born.wall);
    let lived = proc
        .born
        .map_or(Duration::ZERO, |born| world.now.mono.since(born.mono));
    let alive = |pid, paused, ended| Found::Alive {
        pid,
        started,
        lived,
        paused,
        ended,
    };
    let unsettled = as_it_was && !world.store.history.contains_key(&run);
    let records = || world.journal.iter().filter(|record| record.run() == run);
    match (known.pid, &known.end) {
        _ if known.never => Found::NotStarted,
        // An end on file needs no answer of the shim.
        (_, None) if world.frozen_shim && !proc.over => Found::Unreachable,
        (Some(pid), None) => alive(pid, proc.frozen, None),
        (Some(pid), Some(_)) if unsettled => {
            // As of an older cursor: the end follows as a fact.
            facts.extend(records().flat_map(fact));
            alive(pid, false, None)
        }
        (Some(pid), Some(end)) if !known.gone => alive(pid, false, Some(end.clone())),
        (Some(_), Some(_)) => Found::Dead(death_of(run, known, world)),
        (None, _) if known.failed && unsettled => {
            facts.extend(records().flat_map(fact));
            alive(0, false, None)
        }
        (None, _) if known.failed => Found::Dead(death_of(run, known, world)),
        // An intent whose birth is under way: the shim has it in its table.
        (None, _) if as_it_was => alive(0, false, None),
        (None, _) => Found::Unreachable,
    }
}

fn fact(record: &Record) -> Option<Input> {
    match record.clone() {
        Record::Intent { .. } => None,
        Record::Started { run, pid } => Some(Input::Started { run, pid }),
        Record::StartFailed { run } => {
            let text = "cannot run it: no such file (exec, ENOENT)".into();
            Some(Input::StartFailed {
                run,
                stage: "exec".into(),
                errno: 2,
                text,
            })
        }
        Record::NotStarted { run } => Some(Input::NotStarted {
            run,
            text: "lost with its shim".into(),
        }),
        Record::Exited {
            run,
            end,
            survivors,
            successor,
        } => Some(Input::Exited {
            run,
            end,
            survivors,
            successor,
        }),
        Record::TreeGone { run } => Some(Input::TreeGone { run }),
    }
}

fn describe_input(input: &Input) -> Option<String> {
    let text = match input {
        Input::Tick | Input::Probed { result: Ok(_), .. } => return None,
        Input::Recovered => "> recovered".into(),
        Input::Limits(limits) => format!("> limits {limits:?}"),
        Input::TaskStood { task, standing } => format!("> task {task} {standing:?}"),
        Input::JobPut { job, wish, .. } => format!("> put {job} {:?} seq {}", wish.state, wish.seq),
        Input::JobRemoved { job, .. } => format!("> removed {job}"),
        Input::Wished {
            job,
            instance,
            wish,
            how,
            ..
        } => {
            let n = instance.map(|n| format!(".{n}")).unwrap_or_default();
            format!(
                "> wished {job}{n} {:?} seq {} restart {} {how:?}",
                wish.state, wish.seq, wish.restart
            )
        }
        Input::Scaled { job, to, .. } => format!("> scaled {job} {to:?}"),
        Input::Reloaded { job, how, seq, .. } => format!("> reloaded {job} {how:?} seq {seq}"),
        Input::OneOffPut { job, n, .. } => format!("> one-off {job}/{n}"),
        Input::OneOffStopped { job, n, how, .. } => format!("> one-off {job}/{n} stopped {how:?}"),
        Input::Shutdown { all, .. } => format!("> shutdown, all: {all}"),
        Input::Drain { stop, .. } => format!("> drain, stop: {stop}"),
        Input::Undrain => "> undrain".to_owned(),
        Input::SlotFound {
            slot,
            run,
            stamp,
            found,
            past,
        } => {
            format!(
                "> found {slot} @{run} {stamp:?} {} past {}",
                describe_found(found),
                past.len()
            )
        }
        Input::Started { run, pid } => format!("> started @{run} pid {pid}"),
        Input::StartFailed { run, stage, .. } => format!("> start failed @{run} {stage}"),
        Input::NotStarted { run, text } => format!("> not started @{run} {text}"),
        Input::Exited {
            run,
            end,
            survivors,
            successor,
        } => {
            let next = successor
                .map(|next| format!(", followed by @{}", next.run))
                .unwrap_or_default();
            format!("> exited @{run} {:?} left {survivors}{next}", end.status)
        }
        Input::TreeGone { run } => format!("> tree gone @{run}"),
        Input::Probed { run, role, result } => format!("> probed @{run} {role:?} {}", result.is_ok()),
        Input::Unreachable { run, silent } => format!("> silent @{run} {silent}"),
    };
    Some(text)
}

fn describe_found(found: &Found) -> String {
    match found {
        Found::Alive { paused, ended, .. } => format!("alive, paused {paused}, ended {}", ended.is_some()),
        Found::Dead(death) => format!("dead by {:?}", death.cause),
        Found::Unreachable => "unreachable".into(),
        Found::NotStarted => "not started".into(),
    }
}

fn describe_command(command: &Command) -> Option<String> {
    let text = match command {
        Command::Spawn {
            run,
            slot,
            after,
            stamp,
            attempt,
            ..
        } => {
            let after = after.map(|run| run.to_string()).unwrap_or_default();
            format!("< spawn @{run} in {slot} after {after:?} attempt {attempt} {stamp:?}")
        }
        Command::Stand { after, run, .. } => format!("< stand @{run} after @{after}"),
        Command::Withdraw { run } => format!("< withdraw @{run}"),
        Command::Signal { run, signal, to } => format!("< signal @{run} {signal} {to:?}"),
        Command::RunStopCmd { run, .. } => format!("< stop command @{run}"),
        Command::KillTree { run } => format!("< kill @{run}"),
        Command::Freeze { run, on } => format!("< freeze @{run} {on}"),
        Command::Settle { slot, death, reason } => {
            format!(
                "< settle {slot} @{} {:?}: {}",
                death.run, death.cause, reason.text
            )
        }
        Command::Forget { slot, job } => {
            format!(
                "< forget {}",
                slot.as_ref().map_or_else(|| job.to_string(), Slot::to_string)
            )
        }
        Command::EndNode { code, job } => format!("< end node {code} for {job}"),
        Command::ShutdownDone => "< shutdown done".into(),
        Command::Drained => "< drained".into(),
        Command::Probe { .. } | Command::ProbeEnd { .. } => return None,
    };
    Some(text)
}

pub fn job(n: u64) -> JobId {
    let name = ["db", "web", "worker", "clock"][(n % 4) as usize];
    match JobId::parse(&format!("shop.{name}")) {
        Ok(id) => id,
        Err(error) => unreachable!("{error}"),
    }
}
