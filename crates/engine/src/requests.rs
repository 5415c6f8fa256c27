//! Requests: checked against the present, committed to the store, then fed to the core, in that order.
//!
//! What is prepared here changes nothing yet. Two requests that meet are ordered by the store; their intent
//! numbers say which one counts.

use crate::handle::Result;
use crate::info::{
    Act, Actor, ApplyOptions, Error, How, OneOff, OperationId, PlanInfo, PutOptions, ScaleTo, Target,
};
use crate::owner::Message;
use crate::state::{JobMeta, State};
use crate::store::{Change, ReloadRow, StoreError};
use gaffer_config::LoadedJob;
use gaffer_core::io::{Input, Wish, WishState};
use gaffer_core::job::{Launch, ReloadHow, Stdin};
use gaffer_core::name::{JobId, Place, RunId, Slot};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// What can be asked of the owner.
pub(crate) enum Request {
    Put {
        job: JobId,
        loaded: Box<LoadedJob>,
        options: PutOptions,
        by: Actor,
    },
    Remove {
        job: JobId,
        by: Actor,
    },
    Act {
        target: Target,
        act: Act,
        by: Actor,
    },
    OneOff {
        job: JobId,
        one_off: OneOff,
        by: Actor,
    },
    Apply {
        plan: Box<crate::plan::Draft>,
        options: ApplyOptions,
        by: Actor,
    },
    Shutdown {
        all: bool,
        by: Actor,
    },
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub operation: OperationId,
    pub slot: Option<Slot>,
    pub plan: Option<PlanInfo>,
}

/// A request that passed all checks: what to commit, what to do then, whom to answer.
pub(crate) struct Prepared {
    pub seq: u64,
    pub verb: &'static str,
    pub targets: Vec<Target>,
    pub changes: Vec<Change>,
    pub effects: Vec<Effect>,
    pub slot: Option<Slot>,
    pub plan: Option<PlanInfo>,
    pub reply: oneshot::Sender<Result<Answer>>,
}

/// A request in the hands of the store.
pub(crate) struct Committing {
    outcome: oneshot::Receiver<std::result::Result<(), StoreError>>,
    prepared: Prepared,
}

/// Waits for the store's answers in the order of the requests, and passes them on in that order.
pub(crate) fn committer(owner: mpsc::UnboundedSender<Message>) -> mpsc::UnboundedSender<Committing> {
    let (tx, mut rx) = mpsc::unbounded_channel::<Committing>();
    tokio::spawn(async move {
        while let Some(Committing { outcome, prepared }) = rx.recv().await {
            let ended = || StoreError::Failed("the store has ended".to_owned());
            let outcome = outcome.await.unwrap_or_else(|_| Err(ended()));
            let _ended = owner.send(Message::Committed(Box::new(prepared), outcome));
        }
    });
    tx
}

/// What happens once the intent is committed.
pub(crate) enum Effect {
    /// The definition is this one now.
    Put {
        job: JobId,
        loaded: Box<LoadedJob>,
        revision: u64,
        wish: Wish,
        scaled: Option<u32>,
        by: Actor,
    },
    /// The core is told.
    Feed(Input),
    /// The job is to go.
    Retire { job: JobId, by: Actor },
    /// A number of instances by hand.
    Scale { job: JobId, to: Option<u32>, by: Actor },
    /// Signals, which are no wish.
    Signal {
        runs: Vec<RunId>,
        signal: i32,
        to: gaffer_core::job::Scope,
    },
    /// `config.applied`.
    Applied { file: String, by: Actor },
}

impl State {
    /// Checks a request and hands it to the store.
    pub fn request(&mut self, request: Request, reply: oneshot::Sender<Result<Answer>>) {
        if let Request::Shutdown { all, by } = request {
            self.shutting_down = true;
            self.feed(Input::Shutdown { all, by });
            let _gone = reply.send(Ok(Answer {
                operation: OperationId(0),
                slot: None,
                plan: None,
            }));
            return;
        }
        if let (
            true,
            Request::Act {
                target,
                act: Act::Stop(How { force: true, .. }),
                ..
            },
        ) = (self.shutting_down, &request)
        {
            // A second signal: what is ending ends now. No wish: the next daemon starts it again.
            for run in self.live_of(target) {
                self.kill_tree(run);
            }
            let _gone = reply.send(Ok(Answer {
                operation: OperationId(0),
                slot: None,
                plan: None,
            }));
            return;
        }
        let mut prepared = Prepared {
            seq: self.next_seq(),
            verb: "",
            targets: Vec::new(),
            changes: Vec::new(),
            effects: Vec::new(),
            slot: None,
            plan: None,
            reply,
        };
        let checked = if self.shutting_down {
            Err(Error::ShuttingDown)
        } else {
            match request {
                Request::Put {
                    job,
                    loaded,
                    options,
                    by,
                } => self.put(&mut prepared, job, loaded, &options, by),
                Request::Remove { job, by } => self.remove(&mut prepared, job, by),
                Request::Act { target, act, by } => self.act(&mut prepared, target, act, by),
                Request::OneOff { job, one_off, by } => self.one_off(&mut prepared, job, &one_off, by),
                Request::Apply { plan, options, by } => self.apply(&mut prepared, *plan, &options, by),
                Request::Shutdown { .. } => Ok(()),
            }
        };
        match checked {
            Err(error) => drop(prepared.reply.send(Err(error))),
            Ok(()) if prepared.changes.is_empty() => self.committed(prepared, Ok(())),
            Ok(()) => self.commit(prepared),
        }
    }

    fn commit(&mut self, mut prepared: Prepared) {
        let changes = std::mem::take(&mut prepared.changes);
        // Handed to the store now, so that the order of requests is the order of commits; awaited elsewhere.
        let outcome = self.store.begin_commit(changes);
        // The committer lives as long as the owner.
        let _ended = self.committer.send(Committing { outcome, prepared });
    }

    /// The store's word is here: do it, or say why not. Nothing was changed in between.
    pub fn committed(&mut self, prepared: Prepared, outcome: std::result::Result<(), StoreError>) {
        let Prepared {
            seq,
            verb,
            targets,
            effects,
            slot,
            plan,
            reply,
            ..
        } = prepared;
        if let Err(error) = outcome {
            tracing::error!(%error, verb, "store.commit-failed");
            let _gone = reply.send(Err(Error::Store(error.to_string())));
            return;
        }
        for effect in effects {
            self.carry_out(effect);
        }
        let operation = OperationId(seq);
        self.operations
            .begin(operation, verb, targets.clone(), slot.clone());
        for target in targets {
            self.dirty.insert(target.job);
        }
        // A client that waits gets its answer in this turn, not after the next 20 ms.
        self.look_at_operations();
        let _gone = reply.send(Ok(Answer {
            operation,
            slot,
            plan,
        }));
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Put {
                job,
                loaded,
                revision,
                wish,
                scaled,
                by,
            } => {
                let file = loaded.origin.as_ref().map(|origin| origin.file.as_str().into());
                let line = loaded.origin.as_ref().map(|origin| origin.line);
                let before = self.jobs.remove(&job);
                let instance_wishes = before.map(|meta| meta.instance_wishes).unwrap_or_default();
                let spec = loaded.spec.clone();
                let meta = JobMeta {
                    spec,
                    revision,
                    file,
                    line,
                    wish,
                    scaled,
                    instance_wishes,
                    removed: false,
                };
                self.jobs.insert(job.clone(), Box::new(meta));
                let launch_digest = loaded.launch_digest;
                self.feed(Input::JobPut {
                    job,
                    spec: loaded.spec,
                    launch_digest,
                    wish,
                    scaled,
                    by,
                });
            }
            Effect::Feed(input) => {
                self.note_wish(&input);
                self.feed(input);
            }
            Effect::Retire { job, by } => {
                if let Some(meta) = self.jobs.get_mut(&job) {
                    meta.removed = true;
                }
                self.feed(Input::JobRemoved { job, by });
            }
            Effect::Scale { job, to, by } => {
                if let Some(meta) = self.jobs.get_mut(&job) {
                    meta.scaled = to;
                }
                self.feed(Input::Scaled { job, to, by });
            }
            Effect::Signal { runs, signal, to } => {
                for run in runs {
                    self.signal(run, signal, to);
                }
            }
            Effect::Applied { file, by } => self.tell_applied(file, by),
        }
    }

    /// The engine's own copy of the wishes, from which new ones are made.
    fn note_wish(&mut self, input: &Input) {
        let Input::Wished {
            job, instance, wish, ..
        } = input
        else {
            return;
        };
        let Some(meta) = self.jobs.get_mut(job) else {
            return;
        };
        match instance {
            None => {
                meta.wish = *wish;
                meta.instance_wishes.clear();
            }
            Some(n) => drop(meta.instance_wishes.insert(*n, *wish)),
        }
    }

    fn tell_applied(&mut self, file: String, by: Actor) {
        let event = crate::info::Event {
            event: "config.applied",
            job: None,
            slot: None,
            run: None,
            by: Some(by),
            reason: None,
            data: vec![("file", file)],
        };
        self.counters.events += self.events.append([event]);
    }

    fn meta(&self, job: &JobId) -> Result<&JobMeta> {
        self.jobs
            .get(job)
            .map(|meta| &**meta)
            .filter(|meta| !meta.removed)
            .ok_or_else(|| self.no_job(job))
    }

    fn put(
        &mut self,
        prepared: &mut Prepared,
        job: JobId,
        loaded: Box<LoadedJob>,
        options: &PutOptions,
        by: Actor,
    ) -> Result<()> {
        let present = self.jobs.get(&job).filter(|meta| !meta.removed);
        match (present, options.if_revision) {
            (Some(_), Some(0)) => return Err(Error::JobExists(job)),
            (present, Some(wanted)) if wanted != 0 && present.map_or(0, |meta| meta.revision) != wanted => {
                let current = present.map_or(0, |meta| meta.revision);
                return Err(Error::RevisionMismatch { job, current, wanted });
            }
            _ => {}
        }
        if let Some(meta) = present
            && let (Some(file), false) = (&meta.file, options.over_file)
        {
            return Err(Error::OwnedByFile {
                job,
                file: file.to_string(),
                line: meta.line.unwrap_or(0),
            });
        }
        prepared.verb = "put";
        self.prepare_put(prepared, job, loaded, true, false, by);
        Ok(())
    }

    /// Adds what putting a definition means to a prepared request. `start`: a new job may start.
    pub(crate) fn prepare_put(
        &self,
        prepared: &mut Prepared,
        job: JobId,
        loaded: Box<LoadedJob>,
        start: bool,
        reset_scale: bool,
        by: Actor,
    ) {
        let seq = prepared.seq;
        let present = self.jobs.get(&job).filter(|meta| !meta.removed);
        let first = if start && loaded.spec.start {
            WishState::Running
        } else {
            WishState::Stopped
        };
        let wish = present.map_or(
            Wish {
                state: first,
                seq,
                restart: 0,
            },
            |meta| meta.wish,
        );
        let scaled = present.and_then(|meta| meta.scaled).filter(|_| !reset_scale);
        let (session, name) = (job.session.to_string(), job.job.to_string());
        prepared.changes.push(Change::JobPut {
            session: session.clone(),
            job: name.clone(),
            spec: loaded.typed.to_string(),
            file: loaded.origin.as_ref().map(|origin| origin.file.clone()),
            line: loaded.origin.as_ref().map(|origin| origin.line),
            revision: seq,
            wish: wish_word(wish.state),
            seq,
            by: by.to_string(),
        });
        if reset_scale {
            prepared.changes.push(Change::JobScale {
                session,
                job: name,
                to: None,
            });
        }
        prepared.targets.push(Target {
            job: job.clone(),
            instance: None,
        });
        prepared.effects.push(Effect::Put {
            job,
            loaded,
            revision: seq,
            wish,
            scaled,
            by,
        });
    }

    fn remove(&mut self, prepared: &mut Prepared, job: JobId, by: Actor) -> Result<()> {
        self.meta(&job)?;
        prepared.verb = "remove";
        self.prepare_remove(prepared, job, by);
        Ok(())
    }

    /// Adds what removing a job means to a prepared request.
    pub(crate) fn prepare_remove(&self, prepared: &mut Prepared, job: JobId, by: Actor) {
        let (session, name) = (job.session.to_string(), job.job.to_string());
        prepared.changes.push(Change::JobRetire {
            session,
            job: name,
            seq: prepared.seq,
        });
        prepared.targets.push(Target {
            job: job.clone(),
            instance: None,
        });
        prepared.effects.push(Effect::Retire { job, by });
    }

    fn act(&mut self, prepared: &mut Prepared, target: Target, act: Act, by: Actor) -> Result<()> {
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
        prepared.targets.push(target.clone());
        let (seq, restart) = (prepared.seq, wish.restart);
        let now = |state| Wish { state, seq, restart };
        let plain = How::default();
        match act {
            Act::Start => self.wish(prepared, "start", target, now(WishState::Running), plain, by),
            Act::Stop(how) => self.wish(prepared, "stop", target, now(WishState::Stopped), how, by),
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
                self.wish(prepared, "restart", target, wish, how, by);
            }
            Act::Reload(how) => {
                prepared.verb = "reload";
                let Target { job, instance } = target;
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
            Act::Scale { to, force } => self.scale(prepared, target, to, force, by)?,
            Act::Signal { signal, to } => {
                let runs = self.live_of(&target);
                if runs.is_empty() {
                    return Err(Error::WrongState(format!("{} has no live run", target.job)));
                }
                prepared.verb = "signal";
                prepared.targets.clear();
                let to = to.unwrap_or(gaffer_core::job::Scope::Main);
                prepared.effects.push(Effect::Signal { runs, signal, to });
            }
        }
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

    fn one_off(&mut self, prepared: &mut Prepared, job: JobId, one_off: &OneOff, by: Actor) -> Result<()> {
        let meta = self.meta(&job)?;
        let n = prepared.seq;
        let launch = one_off_launch(&meta.spec.launch, one_off);
        let request = serde_json::json!({
            "env": one_off.env, "args": one_off.args, "stdin": one_off.stdin, "pty": one_off.pty,
        });
        let (session, name) = (job.session.to_string(), job.job.to_string());
        prepared.verb = "run";
        prepared.changes.push(Change::OneOffPut {
            session,
            job: name,
            n,
            request: request.to_string(),
        });
        prepared.targets.push(Target {
            job: job.clone(),
            instance: None,
        });
        prepared.slot = Some(Slot {
            job: job.clone(),
            place: Place::OneOff(n),
        });
        prepared.effects.push(Effect::Feed(Input::OneOffPut {
            job,
            n,
            launch: Arc::new(launch),
            by,
        }));
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

/// Bound of [`Act::Scale`]: beyond it a typing mistake is more likely than a wish.
pub const INSTANCES_MAX: u32 = 100_000;

fn wish_word(state: WishState) -> &'static str {
    match state {
        WishState::Running => "running",
        WishState::Stopped => "stopped",
        WishState::Paused => "paused",
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

fn one_off_launch(launch: &Launch, one_off: &OneOff) -> Launch {
    let mut launch = launch.clone();
    // With a shell the command is one script: more words would be its positional parameters, which nobody expects.
    match (&launch.shell, launch.cmd.first_mut()) {
        (Some(_), Some(script)) => {
            for word in &one_off.args {
                script.push(' ');
                script.push_str(&gaffer_config::shell_quote(word));
            }
        }
        _ => launch.cmd.extend(
            one_off
                .args
                .iter()
                .map(|word| gaffer_config::escape_templates(word)),
        ),
    }
    if !one_off.env.is_empty() {
        let layer = one_off
            .env
            .iter()
            .map(|(key, value)| (key.clone(), gaffer_config::escape_templates(value)));
        launch.env.push(layer.collect());
    }
    if one_off.stdin {
        launch.stdin = Stdin::Pipe;
    }
    launch.pty |= one_off.pty;
    launch
}

/// A one-off that was accepted before this daemon started.
pub(crate) fn one_off_recovered(state: &mut State, job: JobId, n: u64, request: &str) {
    let Some(meta) = state.jobs.get(&job) else {
        return;
    };
    let value: serde_json::Value = serde_json::from_str(request).unwrap_or_default();
    let one_off = OneOff {
        env: serde_json::from_value(value["env"].clone()).unwrap_or_default(),
        args: serde_json::from_value(value["args"].clone()).unwrap_or_default(),
        stdin: value["stdin"].as_bool().unwrap_or_default(),
        pty: value["pty"].as_bool().unwrap_or_default(),
    };
    let launch = Arc::new(one_off_launch(&meta.spec.launch, &one_off));
    state.feed(Input::OneOffPut {
        job,
        n,
        launch,
        by: "the store".into(),
    });
}

/// Ports by name, as kept in a shim's opaque label.
pub(crate) fn ports_of(label: &str) -> BTreeMap<String, u16> {
    label
        .split(',')
        .filter_map(|part| part.split_once('='))
        .filter_map(|(name, port)| Some((name.to_owned(), port.parse().ok()?)))
        .collect()
}
