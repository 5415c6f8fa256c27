//! The machine of a job: what its definition and wishes mean for each of its seats.
//!
//! It owns the wishes and derives from them one [`Want`] per seat; the seats do the rest. Nothing here
//! is remembered that a new daemon could not derive again from `JobPut`, `Wished`, `Scaled`, `Reloaded`
//! and `SlotFound`: whether a run is outdated is read off its stamp.

use crate::hub::{Hub, Key, Timer, Turn};
use crate::instance::table::{Level, Phase};
use crate::instance::{Cx, In, Seat, Want, Why};
use crate::io::{Actor, Command, Event, How, Reason, TaskStanding, Wish, WishState};
use crate::job::{AfterChange, Condition, Job, ReloadHow};
use crate::name::{JobId, Place, RunId, Slot};
use crate::retry::Crashes;
use crate::time::{Duration, Mono};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A wish with its details.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub wish: Wish,
    pub how: How,
    pub by: Actor,
}

/// The newest explicit reload.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReloadAsked {
    /// Of the whole job.
    pub seq: u64,
    /// Of single instances.
    pub of: BTreeMap<u32, u64>,
    /// Instead of the spec's.
    pub how: Option<ReloadHow>,
    pub by: Option<Actor>,
}

/// What was said about one one-off.
#[derive(Clone, Debug, Default)]
pub(crate) struct OneOffAsked {
    /// Instead of `stop.timeout`.
    pub grace: Option<Duration>,
    /// It is to end.
    pub stopped: Option<(Actor, How)>,
}

/// What other jobs may ask about this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub started: bool,
    pub ready: bool,
    pub done: bool,
    pub ended: bool,
    /// Nothing of it is up.
    pub gone: bool,
    /// Its newest run that was not a first one.
    pub rerun: Option<RunId>,
}

impl Standing {
    /// Does a condition hold?
    pub fn holds(&self, condition: Condition) -> bool {
        match condition {
            Condition::Started => self.started,
            Condition::Ready => self.ready,
            Condition::Done => self.done,
            Condition::Ended => self.ended,
        }
    }
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// A job.
    Job(JobId),
    /// A task; it may be over, and then nothing comes of waiting.
    Task { task: JobId, over: bool },
}

/// What this one needs to know about those it comes after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Footing {
    /// First condition that does not hold.
    pub blocked: Option<Blocked>,
    /// One that is gone, if that means to stop.
    pub gone: bool,
    /// Runs older than this have to go, if that means to restart.
    pub rerun: Option<RunId>,
}

pub(crate) struct Group {
    pub key: Key,
    pub id: JobId,
    /// None: known by its runs only, until recovery is over.
    pub spec: Option<Arc<Job>>,
    pub digest: u64,
    pub asked: Asked,
    pub overrides: BTreeMap<u32, Asked>,
    pub scaled: Option<u32>,
    pub scaled_by: Option<Actor>,
    pub reload: ReloadAsked,
    /// Some seats may be outdated and are to be replaced one after the other.
    pub rollout: bool,
    /// Instances with a new run coming up beside the old one.
    pub surging: BTreeSet<u32>,
    /// Why the newest roll-out ended early.
    pub aborted: Option<Reason>,
    pub removed: Option<Actor>,
    pub stopping: Option<Actor>,
    /// One-offs that were told to end with the job.
    pub dismissed: Option<Actor>,
    /// What was said about single one-offs; few have anything.
    pub one_offs: BTreeMap<u64, OneOffAsked>,
    /// Sorted by place.
    pub seats: Vec<Seat>,
    pub crashes: Crashes,
    /// No start before then: the whole job pauses.
    pub held: Option<Mono>,
    pub next_start: Mono,
    pub timer: Option<Mono>,
    pub footing: Footing,
    pub standing: Standing,
    pub rerun: Option<RunId>,
    /// `EndNode` was said.
    pub told_over: bool,
    counts: [u32; Phase::ALL.len()],
    /// Counted seats that are starting and have a process.
    born: u32,
}

impl Group {
    pub fn new(key: Key, id: JobId) -> Group {
        let wish = Wish {
            state: WishState::Stopped,
            seq: 0,
            restart: 0,
        };
        Group {
            key,
            id,
            spec: None,
            digest: 0,
            asked: Asked {
                wish,
                how: How::default(),
                by: "gaffer".into(),
            },
            overrides: BTreeMap::new(),
            scaled: None,
            scaled_by: None,
            reload: ReloadAsked::default(),
            rollout: false,
            surging: BTreeSet::new(),
            aborted: None,
            removed: None,
            stopping: None,
            dismissed: None,
            one_offs: BTreeMap::new(),
            seats: Vec::new(),
            crashes: Crashes::default(),
            held: None,
            next_start: Mono(0),
            timer: None,
            footing: Footing::default(),
            standing: Standing::default(),
            rerun: None,
            told_over: false,
            counts: [0; Phase::ALL.len()],
            born: 0,
        }
    }

    // ── reading ──

    /// Instances wished for.
    pub fn target(&self) -> u32 {
        let written = self.spec.as_ref().map_or(0, |spec| spec.instances);
        if self.removed.is_some() {
            0
        } else {
            self.scaled.unwrap_or(written)
        }
    }

    pub fn find(&self, place: Place) -> Option<usize> {
        self.seats.binary_search_by_key(&place, |seat| seat.place).ok()
    }

    /// Does a seat count for the job as a whole?
    pub fn counts_in(&self, seat: &Seat) -> bool {
        seat.primary && seat.place.number().is_some_and(|n| n <= self.target())
    }

    /// Counted seats in a phase.
    pub fn count(&self, phase: Phase) -> u32 {
        self.counts[phase as usize]
    }

    pub fn is_at_rest(&self) -> bool {
        self.seats.iter().all(|seat| !seat.phase().live())
    }

    /// The newer of job's and instance's wish, and the newest restart of both.
    pub fn effective(&self, n: u32) -> (&Asked, u64) {
        match self.overrides.get(&n) {
            Some(own) => {
                let restart = own.wish.restart.max(self.asked.wish.restart);
                (
                    if own.wish.seq > self.asked.wish.seq {
                        own
                    } else {
                        &self.asked
                    },
                    restart,
                )
            }
            None => (&self.asked, self.asked.wish.restart),
        }
    }

    pub fn reload_of(&self, place: Place) -> u64 {
        let own = place.number().and_then(|n| self.reload.of.get(&n).copied());
        self.reload.seq.max(own.unwrap_or(0))
    }

    fn down(why: Why, by: &Actor, seq: u64, how: How) -> Want {
        Want {
            level: Level::Down,
            why,
            seq,
            restart: 0,
            by: by.clone(),
            how,
        }
    }

    // ── intent ──

    /// A definition, with the job's own wish.
    pub fn put(&mut self, spec: Arc<Job>, digest: u64, asked: Asked, scaled: Option<u32>) {
        // What no run could be started without is there again: nothing is replaced, but what failed deserves a try.
        let unread = |spec: &Job| spec.launch.unread.is_some();
        let mended = self.spec.as_deref().is_some_and(unread) && !unread(&spec);
        if self.spec.is_none() || self.digest != digest || mended {
            self.begin_rollout();
        }
        self.removed = None;
        self.spec = Some(spec);
        self.digest = digest;
        self.scaled = scaled;
        if asked.wish.seq >= self.asked.wish.seq {
            let restart = asked.wish.restart.max(self.asked.wish.restart);
            self.asked = Asked {
                wish: Wish {
                    restart,
                    ..asked.wish
                },
                ..asked
            };
        }
    }

    /// A new launch deserves a try where the old one had failed or ended.
    pub fn try_again_with_new_definition(&mut self, hub: &mut Hub) {
        let how = self.spec.as_ref().map(|spec| spec.reload.how);
        if !self.rollout || !hub.recovered || how == Some(ReloadHow::Signal) {
            return;
        }
        self.crashes = Crashes::default();
        self.held = None;
        for at in 0..self.seats.len() {
            if !self.seats[at].phase().live() && !self.seats[at].one_off() {
                self.step(at, In::Replace(Why::Reload), hub);
            }
        }
    }

    pub fn ask(&mut self, instance: Option<u32>, asked: Asked, live: bool) {
        let restart = match instance {
            None => self.asked.wish.restart,
            Some(n) => self.overrides.get(&n).map_or(0, |old| old.wish.restart),
        };
        let asked = Asked {
            wish: Wish {
                restart: restart.max(asked.wish.restart),
                ..asked.wish
            },
            ..asked
        };
        let Some(n) = instance else {
            if asked.wish.seq > self.asked.wish.seq && asked.wish.state == WishState::Running {
                self.crashes = Crashes::default();
                self.held = None;
            }
            let stopped = asked.wish.state == WishState::Stopped && live;
            self.dismissed = stopped.then(|| asked.by.clone());
            self.asked = asked;
            return;
        };
        self.overrides.insert(n, asked);
    }

    pub fn ask_reload(&mut self, instance: Option<u32>, how: Option<ReloadHow>, seq: u64, by: &Actor) {
        let newest = self.reload.seq.max(
            instance
                .and_then(|n| self.reload.of.get(&n).copied())
                .unwrap_or(0),
        );
        if seq <= newest {
            return;
        }
        match instance {
            Some(n) => {
                self.reload.of.insert(n, seq);
            }
            None => {
                self.reload.seq = seq;
                self.reload.of.clear();
            }
        }
        self.reload.how = how;
        self.reload.by = Some(by.clone());
        self.begin_rollout();
    }

    /// What is wished for a seat whose run is about to be adopted: which lane serves is not known yet.
    pub fn want_before_adoption(&mut self, at: usize) {
        let primary = std::mem::replace(&mut self.seats[at].primary, true);
        self.seats[at].want = self.want(&self.seats[at]);
        self.seats[at].primary = primary;
    }

    /// Newest run that was not the first of its seat.
    pub fn newest_rerun(&self) -> Option<RunId> {
        let again = self
            .seats
            .iter()
            .filter(|seat| seat.attempt > 1 && !seat.one_off());
        again.filter_map(|seat| seat.run()).max()
    }

    /// What wishes, scale, roll-out and surroundings mean for one seat.
    fn want(&self, seat: &Seat) -> Want {
        let seq = self.asked.wish.seq;
        let own = match seat.place {
            Place::OneOff(n) => self.one_offs.get(&n),
            Place::Instance { .. } => None,
        };
        let with = |how: How| How {
            grace: how.grace.or(own.and_then(|own| own.grace)),
            ..how
        };
        if let Some(by) = &self.removed {
            return Group::down(Why::Remove, by, seq, with(How::default()));
        }
        if let Some(by) = &self.stopping {
            // What has ended by itself stays so: were it stopped now, it would run once more when a drain is undone.
            if matches!(seat.phase(), Phase::Exited | Phase::Failed) {
                return seat.want.clone();
            }
            return Group::down(Why::Shutdown, by, seq, with(How::default()));
        }
        let Place::Instance { n, .. } = seat.place else {
            let dismissed = self.dismissed.as_ref().map(|by| (by, self.asked.how));
            let alone = own.and_then(|own| own.stopped.as_ref());
            return match dismissed.or(alone.map(|(by, how)| (by, *how))) {
                Some((by, how)) if seat.phase().live() => Group::down(Why::Stop, by, seq, with(how)),
                _ => Want {
                    level: Level::Up,
                    why: Why::Stop,
                    seq: 0,
                    restart: 0,
                    by: seat.want.by.clone(),
                    how: How::default(),
                },
            };
        };
        if n > self.target() {
            let by = self.scaled_by.as_ref().unwrap_or(&self.asked.by);
            return Group::down(Why::Scale, by, seq, How::default());
        }
        let (asked, restart) = self.effective(n);
        let level = match asked.wish.state {
            WishState::Running => Level::Up,
            WishState::Stopped => Level::Down,
            WishState::Paused => Level::Frozen,
        };
        let want = Want {
            level,
            why: Why::Stop,
            seq: asked.wish.seq,
            restart,
            by: asked.by.clone(),
            how: asked.how,
        };
        let surplus = !seat.primary && !self.surging.contains(&n);
        match level {
            Level::Up | Level::Frozen if surplus => Want {
                level: Level::Down,
                why: Why::Lane,
                ..want
            },
            Level::Up if self.footing.gone => Want {
                level: Level::Down,
                why: Why::With,
                ..want
            },
            Level::Up | Level::Down | Level::Frozen => want,
        }
    }

    // ── moving ──

    /// One step of one seat, and all that hangs on it.
    pub fn step(&mut self, at: usize, input: In, hub: &mut Hub) {
        let spec = self.spec.clone().unwrap_or_else(|| hub.bare.clone());
        let seat = &mut self.seats[at];
        let (phase, run, born) = (seat.phase(), seat.run(), seat.is_born());
        let counted = seat.primary
            && seat.place.number().is_some_and(|n| {
                n <= if self.removed.is_some() {
                    0
                } else {
                    self.scaled.unwrap_or(spec.instances)
                }
            });
        let own = seat.place.number().and_then(|n| self.reload.of.get(&n).copied());
        let mut halt = None;
        let mut cx = Cx {
            now: hub.now,
            zone: hub.limits.zone,
            job: &self.id,
            spec: &spec,
            digest: self.digest,
            reload: self.reload.seq.max(own.unwrap_or(0)),
            crashes: Some(&mut self.crashes),
            halt: &mut halt,
            dice: &mut hub.dice,
            out: &mut hub.out,
        };
        seat.step(input, &mut cx);
        let after = seat.phase();
        let bounded = spec.ready.is_some() && !seat.one_off();
        hub.index(self.key, seat, run, bounded);
        if counted {
            self.counts[phase as usize] = self.counts[phase as usize].saturating_sub(1);
            self.counts[after as usize] += 1;
            self.born = (self.born + u32::from(seat.is_born())).saturating_sub(u32::from(born));
        }
        if seat.attempt > 1 && seat.run() != run && !seat.one_off() {
            self.rerun = self.rerun.max(seat.run());
        }
        if phase != after {
            hub.moved.insert(self.key);
            self.queue(at, hub);
        }
        self.keep_order(at, hub);
        if let Some((until, reason)) = halt {
            self.halt(at, until, &reason, hub);
        }
    }

    fn turn(&self, at: usize) -> Turn {
        let priority = self.spec.as_ref().map_or(0, |spec| spec.priority);
        (priority, self.key, self.seats[at].place)
    }

    /// Puts a seat into the queue of those who may start, or takes it out.
    fn queue(&mut self, at: usize, hub: &mut Hub) {
        let seat = &self.seats[at];
        let turn = self.turn(at);
        hub.dequeue(&turn);
        let free = self.footing.blocked.is_none() && self.held.is_none();
        let spaced = self.timer.is_some() && self.next_start > hub.now.mono;
        if seat.phase() != Phase::Waiting || (!seat.one_off() && (!free || spaced)) {
            return;
        }
        let bounded = self.spec.as_ref().is_some_and(|spec| spec.ready.is_some()) && !seat.one_off();
        if bounded {
            hub.queue_bounded.insert(turn);
        } else {
            hub.queue.insert(turn);
        }
    }

    pub fn queue_all(&mut self, hub: &mut Hub) {
        for at in 0..self.seats.len() {
            if self.seats[at].phase() == Phase::Waiting {
                self.queue(at, hub);
            }
        }
    }

    /// Takes a changed priority out of the queue before it changes.
    pub fn unqueue_all(&mut self, hub: &mut Hub) {
        for at in 0..self.seats.len() {
            hub.dequeue(&self.turn(at));
        }
    }

    /// Its turn has come.
    pub fn go(&mut self, place: Place, hub: &mut Hub) {
        let Some(at) = self.find(place) else { return };
        let spacing = self
            .spec
            .as_ref()
            .map_or(Default::default(), |spec| spec.start_spacing);
        if !spacing.is_zero() && place.number().is_some() {
            if self.next_start > hub.now.mono {
                self.arm(Some(self.next_start), hub);
                return;
            }
            self.next_start = hub.now.mono.plus(spacing);
        }
        if place.number().is_some() {
            hub.note_start(self.key);
        }
        let run = hub.next_run();
        self.step(at, In::Go(run), hub);
        self.roll_on(hub);
    }

    pub fn arm(&mut self, at: Option<Mono>, hub: &mut Hub) {
        if let Some(old) = self.timer {
            hub.timers.remove(&(old, Timer::Job(self.key)));
        }
        if let Some(new) = at {
            hub.timers.insert((new, Timer::Job(self.key)));
        }
        self.timer = at;
    }

    /// The job's own deadline: spacing, or the end of a common pause.
    pub fn due(&mut self, hub: &mut Hub) {
        self.arm(None, hub);
        if self.held.is_some_and(|until| until <= hub.now.mono) {
            self.held = None;
        }
        self.arm(self.held, hub);
        self.queue_all(hub);
    }

    fn halt(&mut self, first: usize, until: Option<Mono>, reason: &Reason, hub: &mut Hub) {
        self.held = until;
        self.arm(until, hub);
        for at in (0..self.seats.len()).filter(|&at| at != first) {
            if !self.seats[at].one_off() {
                self.step(at, In::Halt(until, reason.clone()), hub);
            }
        }
    }

    /// A fact about the run of a seat.
    pub fn fact(&mut self, place: Place, input: In, hub: &mut Hub) {
        let Some(at) = self.find(place) else { return };
        let answered = matches!(input, In::Answered | In::Found(_));
        self.step(at, input, hub);
        if answered && hub.recovered {
            self.reconcile(hub);
        }
        self.roll_on(hub);
    }

    /// The seat of a place; it is made if it is new.
    pub fn seat(&mut self, place: Place) -> usize {
        match self.seats.binary_search_by_key(&place, |seat| seat.place) {
            Ok(at) => at,
            Err(at) => {
                let mut seat = Seat::new(place, Group::down(Why::Stop, &self.asked.by, 0, How::default()));
                if let Place::Instance { n, lane } = place {
                    seat.primary = self
                        .find(Place::Instance {
                            n,
                            lane: 1 - lane.min(1),
                        })
                        .is_none();
                }
                if self.seats.is_empty() {
                    // Most jobs have one seat, and a vector would begin with room for four.
                    self.seats.reserve_exact(1);
                }
                self.seats.insert(at, seat);
                at
            }
        }
    }

    /// Wishes, scale and definition, applied to every seat.
    pub fn reconcile(&mut self, hub: &mut Hub) {
        hub.touched.insert(self.key);
        if !hub.recovered {
            return;
        }
        let target = self.target();
        for n in 1..=target {
            let lanes = [0, 1].map(|lane| self.find(Place::Instance { n, lane }));
            if lanes == [None, None] {
                self.seat(Place::Instance { n, lane: 0 });
            }
        }
        self.recount();
        for at in 0..self.seats.len() {
            self.apply_want(at, hub);
        }
        for at in 0..self.seats.len() {
            self.replace_if_told(at, hub);
        }
        self.recount();
        hub.moved.insert(self.key);
        self.roll_on(hub);
        for at in 0..self.seats.len() {
            self.keep_order(at, hub);
        }
    }

    pub fn apply_want(&mut self, at: usize, hub: &mut Hub) {
        let want = self.want(&self.seats[at]);
        // A level, not an edge: an adopted run may be at odds with a wish that is as old as itself.
        let at_odds = match (want.level, self.seats[at].phase()) {
            (Level::Up, Phase::Stopped | Phase::Paused) => true,
            (Level::Up, phase) => !phase.live() && phase != Phase::Waiting && want.seq > self.seats[at].seq,
            (Level::Down, phase) => !phase.at_rest() && !self.seats[at].is_ending(),
            (Level::Frozen, phase) => matches!(phase, Phase::Starting | Phase::Running | Phase::Waiting),
        };
        if at_odds || want != self.seats[at].want {
            self.seats[at].want = want;
            self.step(at, In::Wish, hub);
        }
    }

    pub fn replace_if_told(&mut self, at: usize, hub: &mut Hub) {
        let seat = &self.seats[at];
        if seat.want.level != Level::Up || seat.one_off() || self.stopping.is_some() {
            return;
        }
        let with = self.footing.rerun.filter(|_| self.footing.blocked.is_none());
        if seat.before_restart() {
            self.step(at, In::Replace(Why::Restart), hub);
        } else if matches!((seat.run(), with), (Some(run), Some(with)) if run < with) {
            self.step(at, In::Replace(Why::With), hub);
        }
    }

    /// Counts afresh: after a change of target or lanes.
    pub fn recount(&mut self) {
        let mut counts = [0; Phase::ALL.len()];
        let mut born = 0;
        for seat in self.seats.iter().filter(|seat| self.counts_in(seat)) {
            counts[seat.phase() as usize] += 1;
            born += u32::from(seat.is_born());
        }
        self.counts = counts;
        self.born = born;
    }

    // ── for others ──

    /// What other jobs see of it.
    pub fn stand(&self) -> Standing {
        let target = self.target();
        let ended = self.count(Phase::Exited) + self.count(Phase::Failed);
        let up = self.count(Phase::Running) + self.count(Phase::Paused) + self.count(Phase::Unreachable);
        let starting = self.count(Phase::Starting);
        Standing {
            started: up > 0 || self.born > 0,
            ready: target > 0 && self.count(Phase::Running) >= target,
            done: target > 0 && self.count(Phase::Exited) >= target,
            ended: target > 0 && ended >= target,
            gone: up + starting == 0,
            rerun: self.rerun,
        }
    }

    pub fn footing_from<'a>(
        &self,
        standing_of: impl Fn(&JobId) -> Option<Standing>,
        task_of: impl Fn(&JobId) -> Option<&'a TaskStanding>,
    ) -> Footing {
        let Some(spec) = &self.spec else {
            return Footing::default();
        };
        let mut footing = Footing::default();
        for (job, condition) in &spec.after {
            let standing = standing_of(job).unwrap_or(Standing {
                gone: true,
                ..Standing::default()
            });
            let can_go = matches!(condition, Condition::Started | Condition::Ready);
            if !standing.holds(*condition) && footing.blocked.is_none() {
                footing.blocked = Some(Blocked::Job(job.clone()));
            }
            match spec.after_change {
                AfterChange::Ignore => {}
                AfterChange::Restart => footing.rerun = footing.rerun.max(standing.rerun),
                AfterChange::Stop => footing.gone |= can_go && standing.gone,
            }
        }
        for (task, condition) in &spec.after_tasks {
            let standing = task_of(task);
            if !standing.is_some_and(|standing| standing.holds(*condition)) && footing.blocked.is_none() {
                let (task, over) = (task.clone(), standing.is_some_and(TaskStanding::is_over));
                footing.blocked = Some(Blocked::Task { task, over });
            }
        }
        footing
    }

    /// Nothing is left of a removed job.
    pub fn forgettable(&self) -> bool {
        self.removed.is_some() && self.is_at_rest()
    }

    /// One-offs that are over are told to the store and dropped.
    pub fn forget_one_offs(&mut self, hub: &mut Hub) {
        // They come after all instances.
        if !self.seats.last().is_some_and(Seat::one_off) {
            return;
        }
        let id = self.id.clone();
        let one_offs = &mut self.one_offs;
        self.seats.retain(|seat| {
            let over = seat.one_off() && seat.phase().at_rest();
            if over {
                let slot = Some(Slot {
                    job: id.clone(),
                    place: seat.place,
                });
                if let Place::OneOff(n) = seat.place {
                    one_offs.remove(&n);
                }
                hub.out.commands.push(Command::Forget {
                    slot,
                    job: id.clone(),
                });
            }
            !over
        });
    }

    /// Ended for good, all of it: the exit code for the node, if it is essential.
    pub fn over_for_good(&self) -> Option<i32> {
        let target = self.target();
        let spec = self.spec.as_ref().filter(|spec| spec.essential && target > 0)?;
        let ended = self.count(Phase::Exited) + self.count(Phase::Failed);
        let wished = self.asked.wish.state == WishState::Running && spec.essential;
        if !wished || ended < target {
            return None;
        }
        let codes = self
            .seats
            .iter()
            .filter(|seat| self.counts_in(seat))
            .map(|seat| seat.code);
        codes.max()
    }

    pub fn event(&self, event: &'static str, by: &Actor, reason: Option<Reason>) -> Event {
        let by = Some(by.clone());
        Event {
            event,
            job: self.id.clone(),
            slot: None,
            run: None,
            by,
            reason,
            data: Vec::new(),
        }
    }
}
