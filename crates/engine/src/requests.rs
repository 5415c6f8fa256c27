//! Requests: checked against the present, committed to the store, then fed to the core, in that order.
//!
//! What is prepared here changes nothing yet. Two requests that meet are ordered by the store; their intent
//! numbers say which one counts.

use crate::handle::Result;
use crate::info::{
    Act, Actor, ApplyOptions, Error, How, OneOff, OperationId, OperationState, Outcome, PlanInfo, PutOptions,
    Target,
};
use crate::owner::Message;
use crate::refresh::FreshJobs;
use crate::state::{JobMeta, State};
use crate::store::{Change, StoreError};
use gaffer_config::LoadedJob;
use gaffer_core::io::{Input, Wish, WishState};
use gaffer_core::job::{Launch, Stdin};
use gaffer_core::name::{JobId, Place, RunId, Slot};
use gaffer_core::time::Duration;
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
    Act {
        target: Target,
        act: Act,
        fresh: FreshJobs,
        by: Actor,
    },
    /// The same of many, each for itself: what is refused is an outcome among the others.
    ActEach {
        targets: Vec<Target>,
        act: Act,
        fresh: FreshJobs,
        by: Actor,
    },
    OneOff {
        job: JobId,
        one_off: OneOff,
        by: Actor,
    },
    OneOffStop {
        job: JobId,
        n: u64,
        how: How,
        by: Actor,
    },
    Apply {
        plan: Box<crate::plan::Draft>,
        options: ApplyOptions,
        by: Actor,
    },
    Drain {
        deadline: Option<gaffer_core::time::Duration>,
        by: Actor,
    },
    Undrain {
        by: Actor,
    },
    Shutdown {
        all: bool,
        by: Actor,
    },
}

impl Request {
    /// Would something run that does not run now?
    fn is_new(&self) -> bool {
        match self {
            Request::Act { act, .. } | Request::ActEach { act, .. } => {
                matches!(act, Act::Start | Act::Restart(_) | Act::Reload(_))
            }
            Request::OneOff { .. } => true,
            _ => false,
        }
    }
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
    pub outcomes: Vec<Outcome>,
    pub changes: Vec<Change>,
    pub effects: Vec<Effect>,
    pub slot: Option<Slot>,
    pub plan: Option<PlanInfo>,
    pub fresh: FreshJobs,
    pub reply: oneshot::Sender<Result<Answer>>,
}

impl Prepared {
    /// Definitions that take the place of those before, here and in the store.
    pub fn define(&mut self, effect: Effect, change: Change) {
        self.effects.push(effect);
        self.changes.push(change);
    }
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
        target: Target,
        runs: Vec<RunId>,
        signal: i32,
        to: gaffer_core::job::Scope,
        by: Actor,
    },
    /// Files define these tasks now.
    Tasks(crate::task::AllDefined, crate::task::LatestChanges),
    /// Files define these queues now.
    Queues(std::collections::BTreeMap<JobId, crate::queue::QueueDefined>),
    /// Files define these schedules now.
    Schedules(std::collections::BTreeMap<JobId, crate::schedule::ScheduleDefined>),
    /// The webhooks are these now.
    Webhooks(Arc<Vec<crate::outbox::Hook>>),
    /// The node is drained, or not any more.
    Drain {
        row: Option<crate::store::DrainRow>,
        by: Actor,
    },
    /// `config.applied`.
    Applied { file: String, by: Actor },
}

impl State {
    /// Checks a request and hands it to the store.
    pub fn request(&mut self, request: Request, reply: oneshot::Sender<Result<Answer>>) {
        if let Request::Shutdown { all, by } = request {
            self.shutting_down = true;
            if !self.end_tasks(all, &by) {
                self.begin_shutdown(all, by);
            }
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
            outcomes: Vec::new(),
            changes: Vec::new(),
            effects: Vec::new(),
            slot: None,
            plan: None,
            fresh: FreshJobs::new(),
            reply,
        };
        let checked = if self.shutting_down {
            Err(Error::ShuttingDown)
        } else {
            self.prepare(&mut prepared, request)
        };
        match checked {
            Err(error) => drop(prepared.reply.send(Err(error))),
            Ok(()) if prepared.changes.is_empty() => self.committed(prepared, Ok(())),
            Ok(()) => self.commit(prepared),
        }
    }

    fn prepare(&mut self, prepared: &mut Prepared, request: Request) -> Result<()> {
        if request.is_new() {
            self.refuse_drained()?;
        }
        match request {
            Request::Drain { deadline, by } => {
                self.prepare_drain(prepared, deadline, &by);
                Ok(())
            }
            Request::Undrain { by } => {
                self.prepare_undrain(prepared, by);
                Ok(())
            }
            Request::Put {
                job,
                loaded,
                options,
                by,
            } => self.put(prepared, job, loaded, &options, by),
            Request::Act {
                target,
                act,
                fresh,
                by,
            } => {
                prepared.fresh = fresh;
                self.act(prepared, target, &act, by)
            }
            Request::ActEach {
                targets,
                act,
                fresh,
                by,
            } => {
                prepared.fresh = fresh;
                self.act_each(prepared, targets, &act, &by)
            }
            Request::OneOff { job, one_off, by } => self.one_off(prepared, job, &one_off, by),
            Request::OneOffStop { job, n, how, by } => self.one_off_stop(prepared, job, n, how, by),
            Request::Apply { plan, options, by } => self.apply(prepared, *plan, &options, by),
            Request::Shutdown { .. } => Ok(()),
        }
    }

    fn commit(&mut self, mut prepared: Prepared) {
        let mut changes = std::mem::take(&mut prepared.changes);
        changes.extend(self.promise(prepared.seq, &prepared.effects));
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
            outcomes,
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
        crate::halt::at(0);
        self.begin_request();
        for effect in effects {
            self.carry_out(effect);
        }
        self.end_request(seq);
        let operation = OperationId(seq);
        let pending = outcomes
            .iter()
            .filter(|outcome| outcome.state == OperationState::Pending);
        self.dirty
            .extend(pending.map(|outcome| outcome.target.job.clone()));
        self.operations.begin(operation, verb, outcomes, slot.clone());
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
                let origin = loaded.origin.as_ref();
                let place = origin.map(|origin| (origin.file.as_str().into(), origin.line));
                let (file, line) = place.unzip();
                let before = self.jobs.remove(&job);
                self.limit_again(&job, before.as_deref(), &loaded.spec.launch);
                let meta = JobMeta {
                    spec: loaded.spec.clone(),
                    revision,
                    file,
                    line,
                    wish,
                    scaled,
                    instance_wishes: before.map(|meta| meta.instance_wishes).unwrap_or_default(),
                    removed: false,
                };
                self.jobs.insert(job.clone(), Box::new(meta));
                self.feed(Input::JobPut {
                    job,
                    launch_digest: loaded.launch_digest,
                    spec: loaded.spec,
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
            Effect::Signal {
                target,
                runs,
                signal,
                to,
                by,
            } => {
                self.tell_signalled(&target.job, &runs, target.instance.is_none(), signal, &by);
                runs.into_iter().for_each(|run| self.signal(run, signal, to));
            }
            Effect::Tasks(defined, latest) => self.define_tasks(defined, latest),
            Effect::Queues(defined) => self.define_queues(defined),
            Effect::Schedules(defined) => self.define_schedules(defined),
            Effect::Webhooks(list) => self.set_hooks(list),
            Effect::Drain { row, by } => self.drained_as_asked(row, by),
            Effect::Applied { file, by } => self.tell_applied(file, by, true),
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

    /// A file is in force, and has changed something or not.
    pub fn tell_applied(&mut self, file: String, by: Actor, changed: bool) {
        let unchanged = gaffer_core::io::Reason {
            code: "unchanged",
            text: "nothing had changed".into(),
        };
        let event = crate::info::Event {
            event: "config.applied",
            job: None,
            slot: None,
            run: None,
            by: Some(by),
            reason: (!changed).then_some(unchanged),
            data: vec![("file", file)],
        };
        self.tell(event);
    }

    /// The daemon's own file has errors: nothing was changed.
    pub fn tell_refused(&mut self, file: String, by: Actor, reason: String) {
        let event = crate::info::Event {
            event: "config.refused",
            job: None,
            slot: None,
            run: None,
            by: Some(by),
            reason: Some(gaffer_core::io::Reason {
                code: "config",
                text: reason.into(),
            }),
            data: vec![("file", file)],
        };
        self.tell(event);
    }

    pub(crate) fn meta(&self, job: &JobId) -> Result<&JobMeta> {
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
        prepared.outcomes.push(Outcome::pending(Target {
            job: job.clone(),
            instance: None,
        }));
        prepared.effects.push(Effect::Put {
            job,
            loaded,
            revision: seq,
            wish,
            scaled,
            by,
        });
    }

    /// Adds what removing a job means to a prepared request.
    pub(crate) fn prepare_remove(&self, prepared: &mut Prepared, job: JobId, by: Actor) {
        let (session, name) = (job.session.to_string(), job.job.to_string());
        prepared.changes.push(Change::JobRetire {
            session,
            job: name,
            seq: prepared.seq,
        });
        prepared.outcomes.push(Outcome::pending(Target {
            job: job.clone(),
            instance: None,
        }));
        prepared.effects.push(Effect::Retire { job, by });
    }

    fn one_off_stop(
        &mut self,
        prepared: &mut Prepared,
        job: JobId,
        n: u64,
        how: How,
        by: Actor,
    ) -> Result<()> {
        let view = self.node.job_view(&job).ok_or_else(|| self.no_job(&job))?;
        let place = Place::OneOff(n);
        if !view.instances.iter().any(|one| one.slot.place == place) {
            return Err(Error::RunNotFound(Slot { job, place }.to_string()));
        }
        prepared.verb = "stop";
        let stopped = serde_json::json!({
            "grace_ms": how.grace.map(millis), "force": how.force, "by": &*by,
        });
        prepared.changes.push(Change::OneOffStop {
            session: job.session.to_string(),
            job: job.job.to_string(),
            n,
            stopped: stopped.to_string(),
        });
        prepared
            .effects
            .push(Effect::Feed(Input::OneOffStopped { job, n, how, by }));
        Ok(())
    }

    fn one_off(&mut self, prepared: &mut Prepared, job: JobId, one_off: &OneOff, by: Actor) -> Result<()> {
        let meta = self.meta(&job)?;
        let n = prepared.seq;
        let launch = one_off_launch(&meta.spec.launch, one_off);
        let request = serde_json::json!({
            "env": one_off.env, "args": one_off.args, "stdin": one_off.stdin, "pty": one_off.pty,
            "pty_size": one_off.pty_size, "grace_ms": one_off.grace.map(millis),
        });
        let (session, name) = (job.session.to_string(), job.job.to_string());
        prepared.verb = "run";
        prepared.changes.push(Change::OneOffPut {
            session,
            job: name,
            n,
            request: request.to_string(),
        });
        prepared.outcomes.push(Outcome::pending(Target {
            job: job.clone(),
            instance: None,
        }));
        prepared.slot = Some(Slot {
            job: job.clone(),
            place: Place::OneOff(n),
        });
        prepared.effects.push(Effect::Feed(Input::OneOffPut {
            job,
            n,
            launch: Arc::new(launch),
            grace: one_off.grace,
            by,
        }));
        Ok(())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn wish_word(state: WishState) -> &'static str {
    match state {
        WishState::Running => "running",
        WishState::Stopped => "stopped",
        WishState::Paused => "paused",
    }
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
    launch.pty_size = one_off.pty_size.unwrap_or(launch.pty_size);
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
        pty_size: serde_json::from_value(value["pty_size"].clone()).unwrap_or_default(),
        grace: value["grace_ms"].as_u64().map(Duration::from_millis),
    };
    let launch = Arc::new(one_off_launch(&meta.spec.launch, &one_off));
    state.feed(Input::OneOffPut {
        job: job.clone(),
        n,
        launch,
        grace: one_off.grace,
        by: "the store".into(),
    });
    if value["stopped"].is_object() {
        let how = How {
            grace: value["stopped"]["grace_ms"].as_u64().map(Duration::from_millis),
            force: value["stopped"]["force"].as_bool().unwrap_or_default(),
        };
        let by = value["stopped"]["by"].as_str().unwrap_or("the store").into();
        state.feed(Input::OneOffStopped { job, n, how, by });
    }
}

/// Ports by name, as kept in a shim's opaque label.
pub(crate) fn ports_of(label: &str) -> BTreeMap<String, u16> {
    label
        .split(',')
        .filter_map(|part| part.split_once('='))
        .filter_map(|(name, port)| Some((name.to_owned(), port.parse().ok()?)))
        .collect()
}
