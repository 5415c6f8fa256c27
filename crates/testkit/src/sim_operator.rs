//! The operator of the simulated world: commits an intent, then feeds it; between the two the daemon may die.

use super::Sim;
use super::check::may_end;
use super::engine::job;
use super::world::StoredJob;
use gaffer_core::io::{How, Input, Wish, WishState};
use gaffer_core::job::{
    AfterChange, Batch, Condition, ExitMatch, Flapping, Job, Launch, Probe, ProbeKind, ReloadHow, Restart,
    Scope,
};
use gaffer_core::name::{JobId, Place, Slot};
use gaffer_core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Sim {
    fn next_seq(&mut self) -> u64 {
        self.world.store.seq += 1;
        self.world.store.seq
    }

    /// One thing that an operator may do. Only a daemon that recovered can be asked.
    pub(super) fn operate(&mut self) {
        if !self.engine.as_ref().is_some_and(|engine| engine.recovered) {
            return;
        }
        let id = job(self.world.below(4));
        let Some(stored) = self.world.store.jobs.get(&id) else {
            return self.put(id);
        };
        if stored.removed {
            return;
        }
        match self.world.below(24) {
            0..=2 => self.put(id),
            3..=6 => self.wish(&id, WishState::Running, false),
            7..=10 => self.wish(&id, WishState::Stopped, false),
            11..=13 => self.wish(&id, WishState::Running, true),
            14..=15 => self.wish(&id, WishState::Paused, false),
            16..=18 => self.scale(&id),
            19..=20 => self.reload(&id),
            21 => self.remove(&id),
            _ => self.one_off(&id),
        }
    }

    fn put(&mut self, id: JobId) {
        let old = self.world.store.jobs.get(&id).cloned();
        let spec = Arc::new(self.spec(&id));
        let digest = match &old {
            Some(old) if self.world.below(3) == 0 => old.digest,
            _ => 1 + self.world.below(1_000),
        };
        let seq = self.next_seq();
        let start = self.world.below(10) > 0;
        let state = if start {
            WishState::Running
        } else {
            WishState::Stopped
        };
        let stored = match old {
            Some(old) => StoredJob {
                may_end: old.may_end || may_end(&spec),
                spec,
                digest,
                ..old
            },
            None => StoredJob {
                may_end: may_end(&spec),
                spec,
                digest,
                wish: Wish {
                    state,
                    seq,
                    restart: 0,
                },
                scaled: None,
                overrides: BTreeMap::new(),
                reload: None,
                removed: false,
            },
        };
        self.world.store.jobs.insert(id.clone(), stored.clone());
        self.then(Input::JobPut {
            job: id,
            spec: stored.spec,
            launch_digest: stored.digest,
            wish: stored.wish,
            scaled: stored.scaled,
            by: "ana".into(),
        });
    }

    /// Committed; told next, if the daemon lives to do it.
    fn then(&mut self, input: Input) {
        if let Some(engine) = &mut self.engine {
            engine.inputs.push_back(input);
        }
    }

    fn wish(&mut self, id: &JobId, state: WishState, restart: bool) {
        let seq = self.next_seq();
        let instance = (self.world.below(4) == 0).then(|| 1 + self.world.below(3) as u32);
        let how = match self.world.below(6) {
            0 => How {
                grace: None,
                force: true,
            },
            1 => How {
                grace: Some(self.world.ms(0, 2_000)),
                force: false,
            },
            _ => How::default(),
        };
        let Some(stored) = self.world.store.jobs.get_mut(id) else {
            return;
        };
        let old = match instance {
            Some(n) => stored.overrides.get(&n).copied().unwrap_or(Wish {
                state,
                seq: 0,
                restart: 0,
            }),
            None => stored.wish,
        };
        let wish = Wish {
            state,
            seq,
            restart: if restart { seq } else { old.restart },
        };
        match instance {
            Some(n) => {
                stored.overrides.insert(n, wish);
            }
            None => stored.wish = wish,
        }
        self.forget_down_times();
        self.then(Input::Wished {
            job: id.clone(),
            instance,
            wish,
            how,
            by: "ana".into(),
        });
    }

    fn scale(&mut self, id: &JobId) {
        let to = (self.world.below(5) > 0).then(|| self.world.below(5) as u32);
        if let Some(stored) = self.world.store.jobs.get_mut(id) {
            stored.scaled = to;
        }
        self.then(Input::Scaled {
            job: id.clone(),
            to,
            by: "ana".into(),
        });
    }

    fn reload(&mut self, id: &JobId) {
        let seq = self.next_seq();
        let hows = [
            ReloadHow::Surge,
            ReloadHow::Rolling,
            ReloadHow::Restart,
            ReloadHow::Signal,
        ];
        let how = (self.world.below(2) == 0).then(|| hows[self.world.below(4) as usize]);
        if let Some(stored) = self.world.store.jobs.get_mut(id) {
            stored.reload = Some((seq, how));
        }
        self.then(Input::Reloaded {
            job: id.clone(),
            instance: None,
            how,
            seq,
            by: "ana".into(),
        });
    }

    fn remove(&mut self, id: &JobId) {
        if let Some(stored) = self.world.store.jobs.get_mut(id) {
            stored.removed = true;
        }
        self.then(Input::JobRemoved {
            job: id.clone(),
            by: "ana".into(),
        });
    }

    fn one_off(&mut self, id: &JobId) {
        self.one_offs += 1;
        let launch = Arc::new(Launch::of(vec!["once".into()]));
        let n = self.one_offs;
        let slot = Slot {
            job: id.clone(),
            place: Place::OneOff(n),
        };
        self.world.store.one_offs.insert(slot, launch.clone());
        self.then(Input::OneOffPut {
            job: id.clone(),
            n,
            launch,
            grace: None,
            by: "ana".into(),
        });
    }

    fn spec(&mut self, id: &JobId) -> Job {
        let mut spec = Job::of(Launch::of(vec!["program".into()]));
        spec.instances = self.world.below(4) as u32;
        spec.stop.timeout = self.world.ms(0, 6_000);
        spec.stop.to = if self.world.below(3) == 0 {
            Scope::All
        } else {
            Scope::Main
        };
        let hows = [
            ReloadHow::Surge,
            ReloadHow::Rolling,
            ReloadHow::Restart,
            ReloadHow::Signal,
        ];
        spec.reload.how = hows[self.world.below(4) as usize];
        spec.reload.batch = Batch::Count(1 + self.world.below(2) as u32);
        spec.restart = match self.world.below(6) {
            0 => Restart::Never,
            1 => Restart::OnFailure,
            _ => Restart::Always,
        };
        if self.world.below(6) == 0 {
            spec.exit.fatal = vec![ExitMatch::Signal(11)];
        }
        if self.world.below(5) == 0 {
            spec.retry.attempts = Some(3);
        }
        if self.world.below(2) == 0 {
            spec.retry.delay = vec![Duration::ZERO];
        }
        if self.world.below(3) == 0 {
            let rounds = (self.world.below(2) == 0).then_some(2);
            let whole_job = self.world.below(2) == 0;
            let (window, pause) = (Duration::from_secs(30), Duration::from_secs(7));
            spec.flapping = Some(Flapping {
                exits: 3,
                window,
                pause,
                rounds,
                whole_job,
            });
        }
        if self.world.below(2) == 0 {
            spec.ready = Some(probe(ProbeKind::Tcp("127.0.0.1:1".into()), 1));
        }
        if self.world.below(3) == 0 {
            spec.health = Some(probe(ProbeKind::Http("http://127.0.0.1:1/up".into()), 3));
            spec.health_restarts = self.world.below(3) > 0;
        }
        spec.priority = self.world.below(3) as i32;
        spec.keep_running = self.world.below(5) == 0;
        if self.world.below(4) == 0 {
            spec.start_spacing = self.world.ms(0, 500);
        }
        // Later ones depend on the first one, never the other way round.
        if id.job.as_str() != "db" && self.world.below(3) == 0 {
            let conditions = [Condition::Started, Condition::Ready];
            spec.after
                .insert(job(0), conditions[self.world.below(2) as usize]);
            let changes = [AfterChange::Ignore, AfterChange::Restart, AfterChange::Stop];
            spec.after_change = changes[self.world.below(3) as usize];
        }
        spec
    }
}

fn probe(kind: ProbeKind, failures: u32) -> Probe {
    Probe {
        kind,
        every: Duration::from_millis(700),
        timeout: Duration::from_secs(2),
        delay: Duration::ZERO,
        successes: 1,
        failures,
    }
}
