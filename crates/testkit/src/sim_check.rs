//! The sentences of the simulator, checked against the world and the store, not against the core's own words.

use super::Sim;
use super::world::{Record, Store};
use gaffer_core::io::{Cause, Input, InstanceView, JobView, Progress, State, WishState};
use gaffer_core::job::{Condition, Job, Restart};
use gaffer_core::name::{JobId, Place, RunId, Slot};
use gaffer_core::time::{Duration, Mono};
use std::collections::BTreeMap;

/// Longest `stop.timeout` of the simulated jobs, and a second for requests and news to pass.
const GRACE: Duration = Duration::from_secs(7);
/// Longest uninterruptible sleep, after that.
const SLEEP: Duration = Duration::from_secs(27);
/// An orderly end may take this long when all is calm.
const SHUTDOWN: Duration = Duration::from_secs(60);

/// Wish for an instance, as the store has it: state and newest restart.
fn effective(store: &Store, slot: &Slot) -> Option<(WishState, u64)> {
    let stored = store.jobs.get(&slot.job).filter(|stored| !stored.removed)?;
    let Place::Instance { n, .. } = slot.place else {
        return Some((WishState::Running, 0));
    };
    if n > stored.scaled.unwrap_or(stored.spec.instances) {
        return None;
    }
    let own = stored.overrides.get(&n);
    let newer = own
        .filter(|own| own.seq > stored.wish.seq)
        .unwrap_or(&stored.wish);
    let restart = stored.wish.restart.max(own.map_or(0, |own| own.restart));
    Some((newer.state, restart))
}

fn should_be_down(store: &Store, slot: &Slot) -> bool {
    effective(store, slot).is_none_or(|(state, _)| state == WishState::Stopped)
}

impl Sim {
    pub(super) fn forget_down_times(&mut self) {
        for proc in self.world.procs.values_mut() {
            proc.down_since = None;
        }
    }

    /// With the daemon goes the memory of a stop that was taken back before its end was settled: then nobody
    /// can tell any more that the end was asked for. What follows is the same, a fresh start by hand.
    pub(super) fn forget_intentions(&mut self) {
        self.forget_down_times();
        for (run, how) in self.world.ended.iter_mut() {
            let slot = &self.world.procs[run].slot;
            how.intended &=
                self.world.store.history.contains_key(run) || should_be_down(&self.world.store, slot);
        }
    }

    /// Sentence 2, at every step.
    pub(super) fn check_step(&mut self) -> Result<(), String> {
        let attended = self.engine.as_ref().is_some_and(|engine| engine.recovered) && !self.world.frozen_shim;
        let (now, store) = (self.world.now.mono, &self.world.store);
        for (run, proc) in self.world.procs.iter_mut().filter(|(_, proc)| !proc.over) {
            if !attended || !should_be_down(store, &proc.slot) {
                proc.down_since = None;
                continue;
            }
            let since = *proc.down_since.get_or_insert(now);
            let long = now.since(since);
            if long > GRACE && !proc.kill_asked {
                return Err(format!(
                    "{run} in {} should be down for {long:?} and nobody killed it",
                    proc.slot
                ));
            }
            if long > GRACE + SLEEP {
                return Err(format!("{run} in {} should be down for {long:?}", proc.slot));
            }
        }
        Ok(())
    }

    /// Sentences 1 (again), 3, 4 and 5, once all is calm.
    pub(super) fn check_calm(&self) -> Result<(), String> {
        let live = self.live_by_slot()?;
        self.check_history()?;
        let Some(engine) = &self.engine else {
            return Err("there is no daemon in the end".into());
        };
        let stamps = self.restart_stamps();
        let mut views = BTreeMap::new();
        for (job, stored) in &self.world.store.jobs {
            if stored.removed {
                return Err(format!("{job} was removed and is still in the store"));
            }
            let view = engine
                .node
                .job_view(job)
                .ok_or_else(|| format!("the core does not know {job}"))?;
            views.insert(job.clone(), view);
        }
        for (slot, run) in &live {
            if !views.contains_key(&slot.job) {
                return Err(format!("{run} lives in {slot}, and nobody knows the job"));
            }
            if let Some((WishState::Running, restart)) = effective(&self.world.store, slot)
                && stamps[run] < restart
            {
                return Err(format!("{run} in {slot} was to be restarted and never was"));
            }
        }
        for (job, view) in &views {
            self.check_job(job, view, &views, &live)?;
        }
        match self
            .world
            .store
            .one_offs
            .keys()
            .find(|slot| !live.contains_key(slot))
        {
            Some(slot) => Err(format!("one-off {slot} neither runs nor was settled")),
            None => Ok(()),
        }
    }

    fn live_by_slot(&self) -> Result<BTreeMap<Slot, RunId>, String> {
        let mut live = BTreeMap::new();
        for (run, proc) in self.world.procs.iter().filter(|(_, proc)| !proc.over) {
            if let Some(other) = live.insert(proc.slot.clone(), *run) {
                return Err(format!("{} has two live runs: {other} and {run}", proc.slot));
            }
        }
        Ok(live)
    }

    fn restart_stamps(&self) -> BTreeMap<RunId, u64> {
        let stamp = |record: &Record| match record {
            Record::Intent { run, stamp, .. } => Some((*run, stamp.restart)),
            _ => None,
        };
        self.world.journal.iter().filter_map(stamp).collect()
    }

    fn check_history(&self) -> Result<(), String> {
        for (run, how) in &self.world.ended {
            let Some((slot, death)) = self.world.store.history.get(run) else {
                return Err(format!("the end of {run} was never settled"));
            };
            if how.intended && !matches!(death.cause, Cause::Stopped | Cause::Replaced) {
                return Err(format!(
                    "the end of {run} in {slot} was asked for and counts as {:?}",
                    death.cause
                ));
            }
        }
        match self
            .world
            .store
            .history
            .keys()
            .find(|run| !self.world.ended.contains_key(run))
        {
            Some(run) => Err(format!("{run} was settled and never ended")),
            None => Ok(()),
        }
    }

    fn check_job(
        &self,
        job: &JobId,
        view: &JobView,
        views: &BTreeMap<JobId, JobView>,
        live: &BTreeMap<Slot, RunId>,
    ) -> Result<(), String> {
        let stored = &self.world.store.jobs[job];
        let target = stored.scaled.unwrap_or(stored.spec.instances);
        let waits = waits_rightly(&stored.spec, views);
        for n in 1..=target {
            let slots = [0, 1].map(|lane| Slot {
                job: job.clone(),
                place: Place::Instance { n, lane },
            });
            let runs = slots.iter().filter(|slot| live.contains_key(slot)).count();
            let Some((wish, _)) = effective(&self.world.store, &slots[0]) else {
                continue;
            };
            let states: Vec<State> = view
                .instances
                .iter()
                .filter(|one| slots.contains(&one.slot))
                .map(|one| one.state)
                .collect();
            let right = match (wish, states.as_slice()) {
                (WishState::Running, [State::Running]) => runs == 1,
                (WishState::Running, [State::Exited]) => runs == 0 && stored.may_end,
                (WishState::Running, [State::Failed]) => runs == 0 && stored.may_end,
                (WishState::Running, [State::Waiting]) => runs == 0 && waits,
                (WishState::Running, _) => false,
                (WishState::Stopped, _) => runs == 0,
                (WishState::Paused, _) => states.iter().all(|state| {
                    matches!(
                        state,
                        State::Paused | State::Stopped | State::Exited | State::Failed
                    )
                }),
            };
            if !right {
                return Err(format!(
                    "{job}.{n} should be {wish:?}: it is {states:?} with {runs} runs"
                ));
            }
        }
        if view.progress == Progress::Pending && !waits {
            return Err(format!("{job} is never done with the newest request: {view:?}"));
        }
        Ok(())
    }

    /// The node ends in order: everything is down, save what is to be kept.
    pub(super) fn end_of_node(&mut self, after: Mono) -> Result<(), String> {
        let all = self.world.dice.next_u64().is_multiple_of(2);
        self.feed(Input::Shutdown {
            all,
            by: "systemd".into(),
        });
        let end = self.world.now.mono.max(after).plus(SHUTDOWN);
        while !self.engine.as_ref().is_some_and(|engine| engine.shutdown_done) {
            self.step()?;
            if self.world.now.mono > end {
                return Err("the orderly end never ends".into());
            }
        }
        for (run, proc) in self.world.procs.iter().filter(|(_, proc)| !proc.over) {
            let kept = self
                .world
                .store
                .jobs
                .get(&proc.slot.job)
                .is_some_and(|stored| stored.spec.keep_running);
            if all || !kept {
                return Err(format!("{run} in {} survived the orderly end", proc.slot));
            }
        }
        Ok(())
    }
}

/// Does policy allow that it is not started again?
pub fn may_end(spec: &Job) -> bool {
    let rounds = spec
        .flapping
        .as_ref()
        .is_some_and(|flapping| flapping.rounds.is_some());
    spec.restart != Restart::Always || spec.retry.attempts.is_some() || !spec.exit.fatal.is_empty() || rounds
}

/// Does one of those it comes after really not stand?
fn waits_rightly(spec: &Job, views: &BTreeMap<JobId, JobView>) -> bool {
    spec.after.iter().any(|(on, condition)| {
        let Some(view) = views.get(on) else { return true };
        let running = |one: &&InstanceView| one.slot.place.number().is_some() && one.state == State::Running;
        let running = view.instances.iter().filter(running).count() as u32;
        match condition {
            Condition::Started => running == 0,
            _ => view.target == 0 || running < view.target,
        }
    })
}
