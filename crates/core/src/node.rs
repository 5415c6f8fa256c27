//! The node machine. It only routes: intent to the machine of its job, facts to the seat of their run,
//! deadlines to their owner; then it lets changes settle through dependencies before anyone starts.

use crate::group::{Asked, Group};
use crate::hub::{Hub, Key, NodeLimits, Timer};
use crate::instance::{FoundRun, In};
use crate::io::{Actor, Event, How, Input, JobView, Output, Reason, TaskStanding, Wish, WishState};
use crate::job::{After, Job, Launch, ReloadHow};
use crate::name::{JobId, Name, Place, RunId, Slot};
use crate::reason;
use crate::retry::Dice;
use crate::time::{Duration, Mono, Now};
use crate::view::Around;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The brain of one node: a function of the clock and its inputs.
///
/// **Recovery.** Before `Recovered` everything is only taken in: first the intent that the store holds
/// (`JobPut`, then `Wished` per instance, `Reloaded`, `OneOffPut`, `JobRemoved`), then `SlotFound` per
/// slot, then facts that came since. Slots whose job nobody put are ended and forgotten.
///
/// **Repetition.** Inputs may come twice; facts of runs that are over are ignored.
pub struct Node {
    pub(crate) hub: Hub,
    pub(crate) groups: Vec<Option<Box<Group>>>,
    pub(crate) by_id: BTreeMap<JobId, Key>,
    /// Who comes after a job.
    pub(crate) dependents: BTreeMap<JobId, BTreeSet<Key>>,
    /// How tasks stand that jobs wait for.
    pub(crate) tasks: BTreeMap<JobId, TaskStanding>,
    /// Who comes after a task.
    pub(crate) task_dependents: BTreeMap<JobId, BTreeSet<Key>>,
    /// Facts that came before `Recovered`.
    early: Vec<Input>,
    /// Last runs of instances whose job is forgotten: shims remember them, and a new job may have that name.
    pub(crate) graves: BTreeMap<JobId, Vec<(Place, RunId)>>,
}

impl Node {
    /// `epoch` makes run ids unique: one synced store write per daemon start. `seed` feeds jitter, nothing else.
    pub fn new(epoch: u32, seed: u64) -> Node {
        Node::with_limits(epoch, seed, NodeLimits::default())
    }

    /// With other bounds than the default ones.
    pub fn with_limits(epoch: u32, seed: u64, limits: NodeLimits) -> Node {
        let hub = Hub {
            now: Now::default(),
            limits,
            out: Output::default(),
            epoch,
            runs_made: 0,
            dice: Dice::new(seed),
            recovered: false,
            shutdown: None,
            drain: None,
            timers: BTreeSet::new(),
            runs: BTreeMap::new(),
            queue: BTreeSet::new(),
            queue_bounded: BTreeSet::new(),
            starting: BTreeSet::new(),
            spaced: None,
            touched: BTreeSet::new(),
            moved: BTreeSet::new(),
            bare: Arc::new(Job::of(Launch::of(Vec::new()))),
        };
        Node {
            hub,
            groups: Vec::new(),
            by_id: BTreeMap::new(),
            dependents: BTreeMap::new(),
            tasks: BTreeMap::new(),
            task_dependents: BTreeMap::new(),
            early: Vec::new(),
            graves: BTreeMap::new(),
        }
    }

    /// Takes in one input and gives what is to be done and told. Deadlines that have passed are dealt with too.
    pub fn handle(&mut self, now: Now, input: Input) -> Output {
        // A monotonic clock that seems to go back is read twice; it must not undo anything.
        self.hub.now = Now {
            mono: now.mono.max(self.hub.now.mono),
            wall: now.wall,
        };
        self.take_in(input);
        self.deadlines();
        self.settle();
        let mut out = std::mem::take(&mut self.hub.out);
        let touched = std::mem::take(&mut self.hub.touched);
        let names = touched
            .iter()
            .filter_map(|key| self.group(*key))
            .map(|group| group.id.clone());
        out.touched.extend(names);
        out
    }

    /// When `handle` has to be called at the latest; none: not before something happens.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.hub.timers.first().map(|(at, _)| *at)
    }

    /// A job as it is at the time of the last input.
    pub fn job_view(&self, job: &JobId) -> Option<JobView> {
        let around = Around {
            node: self,
            hub: &self.hub,
            now: self.hub.now,
        };
        self.group_of(job).map(|group| group.view(&around))
    }

    /// The first of `after` that does not hold, for work of a session that is no job: a task.
    pub fn waits_for(&self, session: &Name, jobs: &After, tasks: &After) -> Option<Reason> {
        let around = Around {
            node: self,
            hub: &self.hub,
            now: self.hub.now,
        };
        if !self.hub.recovered {
            return Some(reason::waiting_recovery());
        }
        let job = jobs.iter().find(|(job, condition)| {
            let group = self.group_of(job).filter(|group| group.spec.is_some());
            !group.is_some_and(|group| group.standing.holds(**condition))
        });
        if let Some((job, condition)) = job {
            let words = around.job_words(job, Some(*condition));
            return Some(reason::waiting_for(job, job.session == *session, &words));
        }
        let task = tasks.iter().find(|(task, condition)| {
            let standing = self.tasks.get(*task);
            !standing.is_some_and(|standing| standing.holds(**condition))
        });
        let (task, _) = task?;
        Some(reason::waiting_for(
            task,
            task.session == *session,
            &around.task_words(task),
        ))
    }

    pub(crate) fn group_of(&self, job: &JobId) -> Option<&Group> {
        self.by_id.get(job).and_then(|key| self.group(*key))
    }

    /// All jobs in name order.
    pub fn jobs(&self) -> impl Iterator<Item = &JobId> {
        self.by_id.keys()
    }

    /// Slot of a live run.
    pub fn instance_of(&self, run: RunId) -> Option<Slot> {
        let (key, place) = self.hub.runs.get(&run)?;
        Some(Slot {
            job: self.group(*key)?.id.clone(),
            place: *place,
        })
    }

    /// The resolved definition in force.
    pub fn spec_of(&self, job: &JobId) -> Option<&Arc<Job>> {
        self.by_id
            .get(job)
            .and_then(|key| self.group(*key))?
            .spec
            .as_ref()
    }

    /// An id for a run of somebody else's, a step of a task: all runs of a node have ids of one sequence.
    pub fn make_run_id(&mut self) -> RunId {
        self.hub.next_run()
    }

    /// Nothing lives, nothing waits.
    pub fn is_idle(&self) -> bool {
        self.hub.runs.is_empty()
            && self.hub.timers.is_empty()
            && self.hub.queue.is_empty()
            && self.hub.queue_bounded.is_empty()
    }

    pub(crate) fn group(&self, key: Key) -> Option<&Group> {
        self.groups.get(key as usize)?.as_deref()
    }

    /// Lends a job's machine and the shared part at once.
    pub(crate) fn with<R>(&mut self, key: Key, act: impl FnOnce(&mut Group, &mut Hub) -> R) -> Option<R> {
        let group = self.groups.get_mut(key as usize)?.as_deref_mut()?;
        Some(act(group, &mut self.hub))
    }

    fn key_of(&mut self, job: &JobId) -> Key {
        if let Some(key) = self.by_id.get(job) {
            return *key;
        }
        let key = self.groups.len() as Key;
        let mut group = Group::new(key, job.clone());
        for (place, run) in self.graves.remove(job).unwrap_or_default() {
            let at = group.seat(place);
            group.seats[at].last = Some(run);
        }
        self.groups.push(Some(Box::new(group)));
        self.by_id.insert(job.clone(), key);
        key
    }

    // ── input ──

    fn take_in(&mut self, input: Input) {
        match input {
            Input::Tick => {}
            Input::Limits(limits) => self.limit(limits),
            Input::TaskStood { task, standing } => self.task_stood(&task, standing),
            Input::Recovered => self.recovered(),
            Input::JobPut {
                job,
                spec,
                launch_digest,
                wish,
                scaled,
                by,
            } => {
                self.job_put(&job, &spec, launch_digest, wish, scaled, &by);
            }
            Input::JobRemoved { job, by } => self.job_removed(&job, &by),
            Input::Wished {
                job,
                instance,
                wish,
                how,
                by,
            } => self.wished(&job, instance, Asked { wish, how, by }),
            Input::Scaled { job, to, by } => self.scaled(&job, to, &by),
            Input::Reloaded {
                job,
                instance,
                how,
                seq,
                by,
            } => self.reloaded(&job, instance, how, seq, &by),
            Input::OneOffPut {
                job,
                n,
                launch,
                grace,
                by,
            } => self.one_off_put(&job, n, (launch, grace), &by),
            Input::OneOffStopped { job, n, how, by } => self.one_off_stopped(&job, n, how, &by),
            early if !self.hub.recovered => self.early.push(early),
            Input::Shutdown { all, by } => self.shutdown(all, by),
            Input::Drain { stop, by } => self.drain(stop, &by),
            Input::Undrain => self.undrain(),
            Input::SlotFound {
                slot,
                run,
                stamp,
                found,
                past,
            } => {
                self.slot_found(
                    slot,
                    FoundRun {
                        run,
                        stamp,
                        found,
                        past,
                    },
                );
            }
            fact @ (Input::Started { .. } | Input::StartFailed { .. } | Input::NotStarted { .. }) => {
                self.fact(fact)
            }
            fact @ (Input::Exited { .. } | Input::TreeGone { .. }) => self.fact(fact),
            fact @ (Input::Probed { .. } | Input::Unreachable { .. }) => self.fact(fact),
        }
    }

    fn limit(&mut self, limits: NodeLimits) {
        self.hub.limits = limits;
        // A pause that is under way gets no longer than a new one would be.
        let latest = self.hub.now.mono.plus(limits.start_spacing);
        self.hub.timers.retain(|(_, timer)| *timer != Timer::Node);
        self.hub.spaced = self.hub.spaced.map(|(key, until)| (key, until.min(latest)));
    }

    fn fact(&mut self, input: Input) {
        let successor = match &input {
            Input::Exited { successor, .. } => *successor,
            _ => None,
        };
        let Some((run, input)) = In::of_fact(input) else {
            return;
        };
        // A run that is over, or another daemon's: late news of it is no news.
        let Some((key, place)) = self.hub.runs.get(&run).copied() else {
            return;
        };
        self.with(key, |group, hub| {
            group.fact(place, input, hub);
            if let Some(successor) = successor {
                group.succeed(place, successor, hub);
            }
        });
    }

    fn slot_found(&mut self, slot: Slot, found: FoundRun) {
        let key = self.key_of(&slot.job);
        let recovered = self.hub.recovered;
        self.with(key, |group, hub| {
            if group.spec.is_none() && recovered && group.removed.is_none() {
                group.removed = Some("gaffer".into());
            }
            let at = group.seat(slot.place);
            group.want_before_adoption(at);
            group.fact(slot.place, In::Found(Box::new(found)), hub);
        });
    }

    fn recovered(&mut self) {
        if self.hub.recovered {
            return;
        }
        let early = std::mem::take(&mut self.early);
        for input in &early {
            if let Input::SlotFound { slot, .. } = input {
                self.key_of(&slot.job);
            }
        }
        for group in self
            .groups
            .iter_mut()
            .flatten()
            .filter(|group| group.spec.is_none())
        {
            group.removed = Some("gaffer".into());
        }
        let mut later = Vec::new();
        for input in early {
            match input {
                Input::SlotFound {
                    slot,
                    run,
                    stamp,
                    found,
                    past,
                } => {
                    self.slot_found(
                        slot,
                        FoundRun {
                            run,
                            stamp,
                            found,
                            past,
                        },
                    );
                }
                end @ (Input::Shutdown { .. } | Input::Drain { .. } | Input::Undrain) => later.push(end),
                fact => self.fact(fact),
            }
        }
        self.hub.recovered = true;
        let keys: Vec<Key> = self.by_id.values().copied().collect();
        for key in &keys {
            self.with(*key, |group, _| {
                group.choose_lanes();
                group.recount();
                group.rerun = group.newest_rerun();
                group.standing = group.stand();
                group.begin_rollout();
            });
        }
        for key in &keys {
            self.refresh_footing(*key);
            self.with(*key, |group, hub| group.reconcile(hub));
        }
        for input in later {
            self.take_in(input);
        }
    }

    /// A job comes after others from now on than before.
    pub(crate) fn depend(&mut self, key: Key, before: Option<&Job>, now: Option<&Job>) {
        let leave = |all: &mut BTreeMap<JobId, BTreeSet<Key>>, on: &JobId| {
            if let Some(dependents) = all.get_mut(on) {
                dependents.remove(&key);
                if dependents.is_empty() {
                    all.remove(on);
                }
            }
        };
        if let Some(spec) = before {
            spec.after.keys().for_each(|on| leave(&mut self.dependents, on));
            spec.after_tasks
                .keys()
                .for_each(|on| leave(&mut self.task_dependents, on));
        }
        if let Some(spec) = now {
            for on in spec.after.keys() {
                self.dependents.entry(on.clone()).or_default().insert(key);
            }
            for on in spec.after_tasks.keys() {
                self.task_dependents.entry(on.clone()).or_default().insert(key);
            }
        }
    }

    fn job_put(
        &mut self,
        job: &JobId,
        spec: &Arc<Job>,
        digest: u64,
        wish: Wish,
        scaled: Option<u32>,
        by: &Actor,
    ) {
        let key = self.key_of(job);
        let before = self.group(key).and_then(|group| group.spec.clone());
        self.depend(key, before.as_deref(), Some(spec));
        self.with(key, |group, hub| {
            group.unqueue_all(hub);
            // One that is on its way out is as good as gone.
            let known = before.as_ref().filter(|_| group.removed.is_none());
            let told = match known {
                None => Some("job.added"),
                Some(before) if **before != **spec => Some("job.changed"),
                Some(_) => None,
            };
            if let Some(told) = told.filter(|_| hub.recovered) {
                let mut event = group.event(told, by, None);
                if known.is_none() && wish.state == WishState::Running {
                    event.data.push(("wish", "running".into()));
                }
                hub.out.events.push(event);
            }
            group.put(
                spec.clone(),
                digest,
                Asked {
                    wish,
                    how: How::default(),
                    by: by.clone(),
                },
                scaled,
            );
            if before.is_some() {
                group.try_again_with_new_definition(hub);
            } else if group.stopping.is_none() {
                group.stopping.clone_from(&hub.drain);
            }
            group.queue_all(hub);
        });
        self.refresh_footing(key);
        self.with(key, |group, hub| group.reconcile(hub));
    }

    fn job_removed(&mut self, job: &JobId, by: &Actor) {
        let Some(key) = self.by_id.get(job).copied() else {
            return;
        };
        self.with(key, |group, hub| {
            if group.removed.is_none() && hub.recovered {
                hub.out.events.push(group.event("job.removed", by, None));
            }
            group.removed = Some(by.clone());
            group.reconcile(hub);
            hub.moved.insert(key);
        });
    }

    fn wished(&mut self, job: &JobId, instance: Option<u32>, asked: Asked) {
        let Some(key) = self.by_id.get(job).copied() else {
            return;
        };
        self.with(key, |group, hub| {
            let newest = instance
                .map_or(Some(&group.asked), |n| group.overrides.get(&n))
                .map(|old| old.wish.seq);
            if newest.is_some_and(|newest| newest > asked.wish.seq) {
                return;
            }
            let told = match asked.wish.state {
                WishState::Running => Some("job.started"),
                WishState::Stopped => Some("job.stopped"),
                WishState::Paused => None,
            };
            if let Some(told) = told.filter(|_| hub.recovered && instance.is_none()) {
                let mut event = group.event(told, &asked.by, None);
                if asked.wish.restart > group.asked.wish.restart {
                    event.data.push(("restart", "true".into()));
                }
                hub.out.events.push(event);
            }
            group.ask(instance, asked, hub.recovered);
            group.reconcile(hub);
        });
    }

    fn scaled(&mut self, job: &JobId, to: Option<u32>, by: &Actor) {
        let Some(key) = self.by_id.get(job).copied() else {
            return;
        };
        self.with(key, |group, hub| {
            let from = group.target();
            group.scaled = to;
            group.scaled_by = Some(by.clone());
            let reason = reason::scaled(from, group.target(), by);
            if from != group.target() && hub.recovered {
                let data = vec![("from", from.to_string()), ("to", group.target().to_string())];
                hub.out.events.push(Event {
                    data,
                    ..group.event("job.scaled", by, Some(reason))
                });
            }
            group.reconcile(hub);
        });
    }

    fn reloaded(&mut self, job: &JobId, instance: Option<u32>, how: Option<ReloadHow>, seq: u64, by: &Actor) {
        let Some(key) = self.by_id.get(job).copied() else {
            return;
        };
        self.with(key, |group, hub| {
            group.ask_reload(instance, how, seq, by);
            group.roll_on(hub);
            hub.touched.insert(key);
        });
    }

    fn one_off_stopped(&mut self, job: &JobId, n: u64, how: How, by: &Actor) {
        let Some(key) = self.by_id.get(job).copied() else {
            return;
        };
        self.with(key, |group, hub| {
            let Some(at) = group.find(Place::OneOff(n)) else {
                return;
            };
            group.one_offs.entry(n).or_default().stopped = Some((by.clone(), how));
            if hub.recovered {
                group.apply_want(at, hub);
            }
        });
    }

    fn one_off_put(
        &mut self,
        job: &JobId,
        n: u64,
        (launch, grace): (Arc<Launch>, Option<Duration>),
        by: &Actor,
    ) {
        let Some(key) = self.by_id.get(job).copied() else {
            return;
        };
        self.with(key, |group, hub| {
            let at = group.seat(Place::OneOff(n));
            let seat = &mut group.seats[at];
            seat.launch = Some(launch);
            seat.want.by = by.clone();
            if grace.is_some() {
                group.one_offs.entry(n).or_default().grace = grace;
            }
            if hub.recovered {
                group.apply_want(at, hub);
            }
        });
    }
}
