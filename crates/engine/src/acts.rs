//! Verbs: what starting, stopping, scaling, … a job or an instance means for the store and for the core.

use crate::handle::Result;
use crate::info::{Act, Actor, Error, How, OperationState, Outcome, ScaleTo, Target};
use crate::requests::{Effect, Prepared, wish_word};
use crate::state::State;
use crate::store::{Change, ReloadRow};
use gaffer_core::io::{Input, Wish, WishState};
use gaffer_core::job::ReloadHow;
use gaffer_core::name::{JobId, Place, RunId};
use std::collections::HashSet;

/// Targets of one request at most. It holds the one owner of the core for as long as all of them take.
pub const TARGETS_MAX: usize = 10_000;

/// Bound of [`Act::Scale`]: beyond it a typing mistake is more likely than a wish.
pub const INSTANCES_MAX: u32 = 100_000;

impl State {
    /// The same for many targets, each for itself: one that is refused does not hide the others.
    pub fn act_each(
        &self,
        prepared: &mut Prepared,
        targets: Vec<Target>,
        act: &Act,
        by: &Actor,
    ) -> Result<()> {
        if targets.is_empty() || targets.len() > TARGETS_MAX {
            return Err(Error::Invalid(format!(
                "a request names 1 to {TARGETS_MAX} jobs, not {}",
                targets.len()
            )));
        }
        prepared.verb = act.verb();
        let mut seen = HashSet::new();
        for target in targets {
            // Named twice is meant once: `+1` is not `+2`.
            if !seen.insert(target.clone()) {
                continue;
            }
            if let Err(error) = self.act(prepared, target.clone(), act, by.clone()) {
                prepared.outcomes.push(Outcome::refused(target, error));
            }
        }
        Ok(())
    }

    /// Adds what a verb means for one target to a prepared request; nothing is added if it is refused.
    pub fn act(&self, prepared: &mut Prepared, target: Target, act: &Act, by: Actor) -> Result<()> {
        let meta = self.meta(&target.job)?;
        if let Some(n) = target.instance
            && (n == 0 || n > meta.scaled.unwrap_or(meta.spec.instances))
            && self.live_of(&target).is_empty()
        {
            return Err(Error::InstanceNotFound(target.job, n));
        }
        let wish = target
            .instance
            .and_then(|n| meta.instance_wishes.get(&n))
            .copied()
            .unwrap_or(meta.wish);
        let mut outcome = Outcome::pending(target.clone());
        let (seq, restart) = (prepared.seq, wish.restart);
        let now = |state| Wish { state, seq, restart };
        let plain = How::default();
        match act {
            Act::Start => self.wish(prepared, "start", target, now(WishState::Running), plain, by),
            Act::Stop(how) => self.wish(prepared, "stop", target, now(WishState::Stopped), *how, by),
            Act::Pause => self.wish(prepared, "pause", target, now(WishState::Paused), plain, by),
            Act::Resume if wish.state == WishState::Paused => {
                self.wish(prepared, "resume", target, now(WishState::Running), plain, by);
            }
            Act::Resume => return Err(Error::WrongState(format!("{} is not paused", target.job))),
            Act::Restart(how) => {
                let wish = Wish {
                    state: WishState::Running,
                    seq,
                    restart: seq,
                };
                self.wish(prepared, "restart", target, wish, *how, by);
            }
            Act::Reload(how) => {
                if target.instance.is_none() {
                    self.refresh(prepared, &target.job, by.clone())?;
                }
                reload(prepared, target, *how, by);
            }
            Act::Scale { to, force } => self.scale(prepared, target, *to, *force, by)?,
            Act::Remove if target.instance.is_some() => {
                return Err(Error::Invalid(
                    "remove takes a job, not one of its instances".to_owned(),
                ));
            }
            Act::Remove => {
                prepared.verb = "remove";
                self.prepare_remove(prepared, target.job, by);
                // It has its outcome already.
                return Ok(());
            }
            Act::Signal { signal, to } => {
                let runs = self.live_of(&target);
                if runs.is_empty() {
                    return Err(Error::WrongState(format!("{} has no live run", target.job)));
                }
                prepared.verb = "signal";
                // Sent is all that it can be.
                outcome.state = OperationState::Done;
                let to = to.unwrap_or(gaffer_core::job::Scope::Main);
                prepared
                    .effects
                    .push(signal_effect(target, runs, (*signal, to), by));
            }
        }
        prepared.outcomes.push(outcome);
        Ok(())
    }

    fn wish(
        &self,
        prepared: &mut Prepared,
        verb: &'static str,
        target: Target,
        wish: Wish,
        how: How,
        by: Actor,
    ) {
        prepared.verb = verb;
        let (session, job) = (target.job.session.to_string(), target.job.job.to_string());
        let (word, wish_seq, restart_seq) = (wish_word(wish.state), wish.seq, wish.restart);
        prepared.changes.push(match target.instance {
            None => Change::JobWish {
                session,
                job,
                wish: word,
                wish_seq,
                restart_seq,
                by: by.to_string(),
            },
            Some(instance) => Change::InstanceWish {
                session,
                job,
                instance,
                wish: word,
                wish_seq,
                restart_seq,
            },
        });
        let (job, instance) = (target.job, target.instance);
        prepared.effects.push(Effect::Feed(Input::Wished {
            job,
            instance,
            wish,
            how,
            by,
        }));
    }

    fn scale(
        &self,
        prepared: &mut Prepared,
        target: Target,
        to: ScaleTo,
        force: bool,
        by: Actor,
    ) -> Result<()> {
        if target.instance.is_some() {
            return Err(Error::Invalid(
                "scale takes a job, not one of its instances".to_owned(),
            ));
        }
        let meta = self.meta(&target.job)?;
        let now = meta.scaled.unwrap_or(meta.spec.instances);
        let wanted = match to {
            ScaleTo::Auto => None,
            ScaleTo::Set(n) => Some(n),
            ScaleTo::Add(n) => Some(now.saturating_add(n)),
            ScaleTo::Sub(n) => Some(now.saturating_sub(n)),
        };
        if let Some(n) = wanted.filter(|_| !force) {
            let (least, most) = (meta.spec.scale_min, meta.spec.scale_max);
            if n < least || most.is_some_and(|most| n > most) {
                let most = most.map_or_else(|| "unlimited".to_owned(), |most| most.to_string());
                let text = format!(
                    "{} may have {least} to {most} instances (scale.min, scale.max), not {n}",
                    target.job
                );
                return Err(Error::OutOfBounds(text));
            }
        }
        if wanted.is_some_and(|n| n > INSTANCES_MAX) {
            return Err(Error::OutOfBounds(format!(
                "a job may have at most {INSTANCES_MAX} instances"
            )));
        }
        prepared.verb = "scale";
        let (session, job) = (target.job.session.to_string(), target.job.job.to_string());
        prepared.changes.push(Change::JobScale {
            session,
            job,
            to: wanted,
        });
        prepared.effects.push(Effect::Scale {
            job: target.job,
            to: wanted,
            by,
        });
        Ok(())
    }

    /// Live runs of a job or instance.
    pub fn live_of(&self, target: &Target) -> Vec<RunId> {
        let Some(view) = self.node.job_view(&target.job) else {
            return Vec::new();
        };
        view.instances
            .iter()
            .filter(|one| match (one.slot.place, target.instance) {
                (Place::Instance { n, .. }, Some(wanted)) => n == wanted,
                (Place::Instance { .. }, None) => true,
                (Place::OneOff(_), _) => false,
            })
            .filter(|one| one.pid.is_some())
            .filter_map(|one| one.run)
            .collect()
    }
}

fn signal_effect(
    target: Target,
    runs: Vec<RunId>,
    (signal, to): (i32, gaffer_core::job::Scope),
    by: Actor,
) -> Effect {
    Effect::Signal {
        target,
        runs,
        signal,
        to,
        by,
    }
}

const HOWS: [(ReloadHow, &str); 4] = [
    (ReloadHow::Surge, "surge"),
    (ReloadHow::Rolling, "rolling"),
    (ReloadHow::Restart, "restart"),
    (ReloadHow::Signal, "signal"),
];

fn how_word(how: ReloadHow) -> &'static str {
    HOWS.iter()
        .find(|(one, _)| *one == how)
        .map_or("rolling", |(_, word)| word)
}

fn reload(prepared: &mut Prepared, target: Target, how: Option<ReloadHow>, by: Actor) {
    prepared.verb = "reload";
    let (Target { job, instance }, seq) = (target, prepared.seq);
    prepared.changes.push(Change::Reload {
        session: job.session.to_string(),
        job: job.job.to_string(),
        instance: instance.unwrap_or(0),
        seq,
        how: how.map(how_word),
        by: by.to_string(),
    });
    prepared.effects.push(Effect::Feed(Input::Reloaded {
        job,
        instance,
        how,
        seq,
        by,
    }));
}

/// A roll-out that was accepted before this daemon started: runs that it has not reached are older than it.
pub(crate) fn reload_recovered(state: &mut State, job: JobId, row: &ReloadRow) {
    let how = row.how.as_deref();
    let how = how
        .and_then(|word| HOWS.iter().find(|(_, one)| *one == word))
        .map(|(how, _)| *how);
    let instance = (row.instance != 0).then_some(row.instance);
    let by = row.by.as_str().into();
    state.feed(Input::Reloaded {
        job,
        instance,
        how,
        seq: row.seq,
        by,
    });
}
