//! Roll-out of a new definition, or of an explicit reload, over the instances of a job.
//!
//! It is driven by levels: which runs are outdated is read off their stamps, how many instances are
//! disturbed is counted afresh. So it goes on by itself after the daemon died in the middle of it.
//!
//! | how | one round |
//! |---|---|
//! | rolling | end up to `batch` outdated runs; the next ones when those instances run again |
//! | surge | start a new run in the other lane; when it runs, it serves and the old one is ended |
//! | restart | end all outdated runs |
//! | signal | send `reload.signal`; the runs count as current |
//!
//! A new run that fails ends the roll-out; what is left of the old definition keeps running.

use crate::group::{Blocked, Group};
use crate::hub::Hub;
use crate::instance::table::{Level, Phase};
use crate::instance::{Cx, In, Life, Why};
use crate::job::ReloadHow;
use crate::name::Place;
use crate::reason;

impl Group {
    pub fn begin_rollout(&mut self) {
        self.rollout = true;
        self.aborted = None;
    }

    /// Goes on with a roll-out, if there is one.
    pub fn roll_on(&mut self, hub: &mut Hub) {
        let how = self
            .spec
            .as_ref()
            .map(|spec| self.reload.how.unwrap_or(spec.reload.how));
        if !self.surging.is_empty() && (!self.rollout || how != Some(ReloadHow::Surge)) {
            self.end_surge(hub);
        }
        if !self.rollout || !hub.recovered || self.removed.is_some() || self.stopping.is_some() {
            return;
        }
        if matches!(self.footing.blocked, Some(Blocked::Task { .. })) {
            // The task comes before the new definition: until it is done the old runs serve on.
            return;
        }
        let Some(spec) = self.spec.clone() else { return };
        match self.reload.how.unwrap_or(spec.reload.how) {
            ReloadHow::Rolling => self.roll(spec.reload.batch.of(self.target()), hub),
            ReloadHow::Surge => self.surge(spec.reload.batch.of(self.target()), hub),
            ReloadHow::Restart => {
                for at in self.outdated() {
                    self.step(at, In::Replace(Why::Reload), hub);
                }
                self.rollout = false;
            }
            ReloadHow::Signal => {
                for at in self.outdated() {
                    self.signal_one(at, hub);
                }
                self.rollout = false;
            }
        }
    }

    /// Serving seats whose run is outdated and wanted.
    fn outdated(&self) -> Vec<usize> {
        let outdated = |at: &usize| {
            let seat = &self.seats[*at];
            let reload = self.reload_of(seat.place);
            self.counts_in(seat) && seat.want.level == Level::Up && seat.outdated(self.digest, reload)
        };
        (0..self.seats.len()).filter(outdated).collect()
    }

    fn signal_one(&mut self, at: usize, hub: &mut Hub) {
        let Some(spec) = self.spec.clone() else { return };
        let (digest, reload) = (self.digest, self.reload_of(self.seats[at].place));
        let seat = &mut self.seats[at];
        let mut cx = Cx {
            now: hub.now,
            zone: hub.limits.zone,
            job: &self.id,
            spec: &spec,
            digest,
            reload,
            crashes: None,
            halt: &mut None,
            dice: &mut hub.dice,
            out: &mut hub.out,
        };
        seat.reload_signal(&mut cx);
        if let Life::Starting(live) | Life::Running(live) = &mut seat.life {
            live.stamp.launch = digest;
            live.stamp.restart = live.stamp.restart.max(reload);
        }
        // Whatever is said about a run makes its order void.
        seat.order = None;
        self.keep_order(at, hub);
    }

    fn roll(&mut self, batch: u32, hub: &mut Hub) {
        let outdated = self.outdated();
        if outdated.is_empty() {
            self.rollout = false;
            return;
        }
        let mut disturbed = 0;
        for at in 0..self.seats.len() {
            let seat = &self.seats[at];
            if !self.counts_in(seat) || seat.want.level != Level::Up || outdated.contains(&at) {
                continue;
            }
            if seat.failing && seat.phase() != Phase::Running {
                return self.abort(at, outdated.len(), hub);
            }
            disturbed += u32::from(!matches!(seat.phase(), Phase::Running | Phase::Exited));
        }
        for at in outdated
            .into_iter()
            .take(batch.saturating_sub(disturbed) as usize)
        {
            self.step(at, In::Replace(Why::Reload), hub);
        }
    }

    fn surge(&mut self, batch: u32, hub: &mut Hub) {
        for n in self.surging.iter().copied().collect::<Vec<_>>() {
            let Some((old, new)) = self.lanes(n) else { continue };
            let wanted = self.seats[old].want.level == Level::Up;
            if !wanted || !self.seats[old].phase().live() || self.seats[new].phase() == Phase::Running {
                self.switch(n, old, new, hub);
            } else if self.seats[new].failing {
                let kept = self.outdated().len();
                return self.abort(new, kept, hub);
            }
        }
        if self.surging.is_empty() && self.outdated().is_empty() {
            self.rollout = false;
            return;
        }
        while self.surging.len() < batch as usize && self.surge_one(hub) {}
    }

    /// Starts a new run beside the next outdated one. False: there is none that could.
    fn surge_one(&mut self, hub: &mut Hub) -> bool {
        for at in self.outdated() {
            let Place::Instance { n, lane } = self.seats[at].place else {
                continue;
            };
            let other = self.seat(Place::Instance {
                n,
                lane: 1 - lane.min(1),
            });
            // A lane that still ends the run before has to be empty first.
            if !self.surging.contains(&n) && !self.seats[other].phase().live() {
                self.surging.insert(n);
                self.seats[other].failing = false;
                self.apply_want(other, hub);
                return true;
            }
            // The new seat moved the others: what was listed is no longer theirs.
            if self.find(Place::Instance { n, lane }) != Some(at) {
                return self.surge_one(hub);
            }
        }
        false
    }

    /// The roll-out goes on in another way: of each pair of lanes one stays.
    fn end_surge(&mut self, hub: &mut Hub) {
        for n in std::mem::take(&mut self.surging) {
            let Some((old, new)) = self.lanes(n) else { continue };
            if self.seats[new].phase() == Phase::Running || !self.seats[old].phase().live() {
                self.switch(n, old, new, hub);
            } else {
                self.apply_want(new, hub);
            }
        }
    }

    /// Serving lane and other lane of an instance.
    fn lanes(&self, n: u32) -> Option<(usize, usize)> {
        let lanes = [0, 1].map(|lane| self.find(Place::Instance { n, lane }));
        let [Some(a), Some(b)] = lanes else { return None };
        Some(if self.seats[a].primary { (a, b) } else { (b, a) })
    }

    fn switch(&mut self, n: u32, old: usize, new: usize, hub: &mut Hub) {
        self.seats[new].primary = true;
        self.seats[old].primary = false;
        self.surging.remove(&n);
        self.recount();
        hub.moved.insert(self.key);
        self.apply_want(new, hub);
        self.apply_want(old, hub);
    }

    fn abort(&mut self, at: usize, kept: usize, hub: &mut Hub) {
        let seat = &self.seats[at];
        let n = seat.place.number().unwrap_or(0);
        let what = seat
            .reason
            .as_ref()
            .map_or_else(|| "it failed".into(), |reason| reason.text.clone());
        let reason = reason::reload_aborted(n, &what, kept);
        let by = self.reload.by.clone().unwrap_or_else(|| self.asked.by.clone());
        hub.out
            .events
            .push(self.event("job.failed", &by, Some(reason.clone())));
        self.aborted = Some(reason);
        self.rollout = false;
        self.reload.how = None;
        for n in std::mem::take(&mut self.surging) {
            if let Some((_, spare)) = self.lanes(n) {
                self.apply_want(spare, hub);
            }
        }
    }

    /// After recovery: which of two lanes serves.
    pub fn choose_lanes(&mut self) {
        let numbers: Vec<u32> = self.seats.iter().filter_map(|seat| seat.place.number()).collect();
        for pair in numbers.windows(2).filter(|pair| pair[0] == pair[1]) {
            let n = pair[0];
            let [Some(a), Some(b)] = [0, 1].map(|lane| self.find(Place::Instance { n, lane })) else {
                continue;
            };
            let reload = self.reload_of(self.seats[a].place);
            let live = |at: usize| self.seats[at].phase().live();
            let old = |at: usize| self.seats[at].outdated(self.digest, reload);
            let newer = if self.seats[a].last >= self.seats[b].last {
                a
            } else {
                b
            };
            let (serving, spare) = match (live(a), live(b)) {
                (true, false) => (a, b),
                (false, true) => (b, a),
                // In the middle of a surge: the old one serves until the new one runs.
                (true, true) if old(a) && !old(b) => (a, b),
                (true, true) if old(b) && !old(a) => (b, a),
                _ => (newer, a + b - newer),
            };
            if live(serving) && live(spare) && old(serving) && !old(spare) {
                self.surging.insert(n);
            }
            self.seats[serving].primary = true;
            self.seats[spare].primary = false;
        }
    }
}
