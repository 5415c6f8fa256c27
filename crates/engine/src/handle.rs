//! The handle: how anything outside talks to the engine. Cheap to clone, usable from any thread.
//!
//! Looking is immediate: it reads a view made under a short lock. Changing is a message to the one
//! owner of the core: the intent is committed to the store first, then fed, and an operation says when
//! the wish has become the state.

use crate::clock;
use crate::events::EventLog;
use crate::facts::RunFacts;
use crate::info::*;
use crate::logs::{self, LogReader};
use crate::owner::{Message, lock};
use crate::plan::Draft;
use crate::requests::{Answer, Request};
use crate::settings::{Settings, Tuning};
use crate::settle;
use crate::shims::{ShimState, wire};
use crate::state::State;
use crate::store::Store;
use gaffer_config::{Host, LoadedJob};
use gaffer_core::job::Scope;
use gaffer_core::name::{JobId, Place, RunId, Slot};
use gaffer_core::time::{Duration, Wall};
use gaffer_shim::message::{INPUT_MAX, ReplyCode, ReplyError, ToShim};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, oneshot, watch};

/// Talks to a running engine.
#[derive(Clone)]
pub struct Handle {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) owner: mpsc::UnboundedSender<Message>,
    pub(crate) events: EventLog,
    pub(crate) store: Store,
    pub(crate) ended: watch::Receiver<Option<i32>>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) started: Wall,
    pub(crate) host: Arc<dyn Host + Send + Sync>,
}

/// How long what was killed at the end of `stop_within` may take to be gone.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// How long an orderly end waits for its shims to leave.
const SHIMS_LEAVE_WITHIN: Duration = Duration::from_secs(1);

/// Result of the engine.
pub type Result<T> = std::result::Result<T, Error>;

impl Handle {
    pub(crate) async fn ask(&self, request: Request) -> Result<Answer> {
        let (tx, rx) = oneshot::channel();
        self.owner
            .send(Message::Request(request, tx))
            .map_err(|_| Error::ShuttingDown)?;
        rx.await.map_err(|_| Error::ShuttingDown)?
    }

    /// A job as it is now.
    pub fn job(&self, job: &JobId) -> Option<JobInfo> {
        lock(&self.state).job_info(job)
    }

    /// The error for a job that is not there, with a similar name.
    pub fn no_job(&self, job: &JobId) -> Error {
        lock(&self.state).no_job(job)
    }

    /// All jobs, or those of one session, in name order.
    pub fn jobs(&self, session: Option<&str>) -> Vec<JobInfo> {
        let state = lock(&self.state);
        let wanted = |job: &&JobId| session.is_none_or(|session| job.session.as_str() == session);
        state
            .jobs
            .keys()
            .filter(wanted)
            .filter_map(|job| state.job_info(job))
            .collect()
    }

    /// The definition as in the file.
    pub async fn job_typed(&self, job: &JobId) -> Result<serde_json::Value> {
        self.stored(job).await.map(crate::definitions::shown)
    }

    /// The store's text.
    pub(crate) async fn stored(&self, job: &JobId) -> Result<serde_json::Value> {
        let text = self.store.job_spec(job.session.as_str(), job.job.as_str()).await;
        match text.map_err(|error| Error::Store(error.to_string()))? {
            Some(text) => serde_json::from_str(&text).map_err(|error| Error::Store(error.to_string())),
            None => Err(self.no_job(job)),
        }
    }

    /// Understands a definition as in the file, with this host's users and folders.
    pub fn load_job(&self, job: &JobId, typed: &serde_json::Value) -> Result<LoadedJob> {
        gaffer_config::load_job_json(job.session.as_str(), job.job.as_str(), typed, &*self.host)
            .map_err(Error::Config)
    }

    /// Adds or replaces a definition.
    pub async fn job_put(
        &self,
        job: JobId,
        loaded: LoadedJob,
        options: PutOptions,
        by: Actor,
    ) -> Result<OperationId> {
        let loaded = Box::new(loaded);
        Ok(self
            .ask(Request::Put {
                job,
                loaded,
                options,
                by,
            })
            .await?
            .operation)
    }

    /// Stops and forgets a job.
    pub async fn job_remove(&self, job: JobId, by: Actor) -> Result<OperationId> {
        let target = Target { job, instance: None };
        self.act(target, Act::Remove, by).await
    }

    /// Start, stop, restart, reload, pause, resume, scale, signal.
    pub async fn act(&self, target: Target, act: Act, by: Actor) -> Result<OperationId> {
        let fresh = self.fresh(std::iter::once(&target.job), &act).await?;
        let request = Request::Act {
            target,
            act,
            fresh,
            by,
        };
        Ok(self.ask(request).await?.operation)
    }

    /// The same of many jobs and instances at once: one commit for all, and one operation with an outcome for each.
    /// One that is refused does not hide the others.
    pub async fn act_each(&self, targets: Vec<Target>, act: Act, by: Actor) -> Result<OperationId> {
        let fresh = self.fresh(targets.iter().map(|target| &target.job), &act).await?;
        let request = Request::ActEach {
            targets,
            act,
            fresh,
            by,
        };
        Ok(self.ask(request).await?.operation)
    }

    /// Starts a one-off of a job; its slot is in the operation.
    pub async fn one_off(&self, job: JobId, one_off: OneOff, by: Actor) -> Result<(OperationId, Slot)> {
        let answer = self
            .ask(Request::OneOff {
                job: job.clone(),
                one_off,
                by,
            })
            .await?;
        let slot = answer.slot.unwrap_or(Slot {
            job,
            place: Place::OneOff(answer.operation.0),
        });
        Ok((answer.operation, slot))
    }

    /// Asks a one-off to end: its stop signal, then KILL. It may end later than this returns.
    pub async fn one_off_stop(&self, job: JobId, n: u64, how: How, by: Actor) -> Result<()> {
        self.ask(Request::OneOffStop { job, n, how, by }).await.map(drop)
    }

    /// An operation; they are remembered for ten minutes after their end.
    pub fn operation(&self, id: OperationId) -> Option<OperationInfo> {
        lock(&self.state).operations.get(id)
    }

    /// Waits until the operation is over or `timeout` has passed; gives its state then.
    pub async fn operation_wait(&self, id: OperationId, timeout: Duration) -> Option<OperationInfo> {
        let mut bell = lock(&self.state).operations.bell();
        let over = async {
            loop {
                bell.borrow_and_update();
                // Not the whole of it, which may be about thousands of jobs, at every ring.
                let pending = lock(&self.state).operations.is_pending(id);
                if !pending || bell.changed().await.is_err() {
                    return;
                }
            }
        };
        let _late = tokio::time::timeout(timeout, over).await;
        self.operation(id)
    }

    /// Stops waiting for it; the wish stays.
    pub fn operation_cancel(&self, id: OperationId) -> bool {
        lock(&self.state).operations.cancel(id)
    }

    /// The newest deaths of a job or instance, newest first; those of runs that began before `before`, if given.
    pub async fn deaths(&self, target: &Target, before: Option<RunId>, limit: usize) -> Result<Vec<RunInfo>> {
        let slots = match target.instance {
            None => Vec::new(),
            Some(n) => [0, 1]
                .map(|lane| {
                    Slot {
                        job: target.job.clone(),
                        place: Place::Instance { n, lane },
                    }
                    .to_string()
                })
                .to_vec(),
        };
        let (session, job) = (target.job.session.as_str(), target.job.job.as_str());
        let rows = self.store.deaths(session, job, slots, before, limit).await;
        let logs_dir = self.settings.logs_dir();
        let rows = rows.map_err(|error| Error::Store(error.to_string()))?;
        Ok(rows
            .iter()
            .filter_map(|row| settle::info(row, &logs_dir))
            .collect())
    }

    fn live_run(&self, run: RunId) -> Option<RunInfo> {
        let state = lock(&self.state);
        let facts = state.runs.runs.get(&run).filter(|facts| !facts.settled)?;
        let slot: Slot = facts.slot.parse().ok()?;
        let view = state.node.job_view(&slot.job);
        let reason = view
            .and_then(|view| view.instances.into_iter().find(|one| one.run == Some(run)))
            .and_then(|one| one.reason);
        settle::live(facts, reason, clock::wall(), &self.settings.logs_dir())
    }

    /// A run, live or from the history.
    pub async fn run(&self, run: RunId) -> Result<RunInfo> {
        if let Some(info) = self.live_run(run) {
            return Ok(info);
        }
        let row = self
            .store
            .run(run.epoch, run.n)
            .await
            .map_err(|error| Error::Store(error.to_string()))?;
        row.and_then(|row| settle::info(&row, &self.settings.logs_dir()))
            .ok_or_else(|| Error::RunNotFound(run.to_string()))
    }

    /// The small number of a run (`17`): the same for as long as the run is known, before and after a restart of the
    /// daemon.
    pub fn pid_of(&self, run: RunId) -> u64 {
        lock(&self.state).pids.of(run)
    }

    /// The live run with this small number, and its place.
    pub fn run_of_pid(&self, pid: u64) -> Option<(RunId, Slot)> {
        let state = lock(&self.state);
        let run = state.pids.run(pid)?;
        let facts = state.runs.runs.get(&run);
        let facts = facts.filter(|facts| facts.pid != 0 && facts.exit.is_none())?;
        Some((run, facts.slot.parse().ok()?))
    }

    /// Live runs of all jobs, in id order.
    pub fn live_runs(&self) -> Vec<RunId> {
        let state = lock(&self.state);
        state
            .runs
            .runs
            .values()
            .filter(|facts| facts.pid != 0 && facts.exit.is_none())
            .map(|facts| facts.run)
            .collect()
    }

    /// Runs whose id text begins so (at most 11: more than ten means "ambiguous").
    pub async fn runs_by_prefix(&self, prefix: &str) -> Result<Vec<RunId>> {
        let mut found: Vec<RunId> = lock(&self.state)
            .runs
            .runs
            .keys()
            .filter(|run| run.to_string().starts_with(prefix))
            .take(11)
            .copied()
            .collect();
        let settled = self
            .store
            .runs_by_prefix(prefix)
            .await
            .map_err(|error| Error::Store(error.to_string()))?;
        found.extend(settled.into_iter().map(|(epoch, n)| RunId { epoch, n }));
        found.sort_unstable();
        found.dedup();
        found.truncate(11);
        Ok(found)
    }

    /// Sends a request to the shim of a live run and waits for its answer.
    async fn shim_request(&self, run: RunId, request: impl FnOnce(u64) -> ToShim) -> Result<()> {
        let answer = {
            let state = lock(&self.state);
            let facts = state
                .runs
                .runs
                .get(&run)
                .filter(|facts| facts.exit.is_none() && facts.failed.is_none());
            let facts = facts.ok_or_else(|| Error::RunNotFound(run.to_string()))?;
            let connection = state
                .shims
                .all
                .get(&facts.shim)
                .and_then(|shim| shim.connection.as_ref());
            let unreachable = || Error::Unreachable(format!("the shim of run @{run} does not answer"));
            connection.ok_or_else(unreachable)?.ask(request)
        };
        match answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Some(ReplyError { code, text, .. }))) => Err(match code {
                ReplyCode::NoRun => Error::RunNotFound(run.to_string()),
                _ => Error::NotWritable(text),
            }),
            Ok(Err(None)) | Err(_) => Err(Error::Unreachable(format!("the shim of run @{run} went away"))),
        }
    }

    /// Sends a signal to a live run, and tells everybody.
    pub async fn run_signal(&self, run: RunId, signal: i32, to: Scope, by: Actor) -> Result<()> {
        let scope = crate::launch::scope(to);
        {
            let mut state = lock(&self.state);
            let live = |facts: &&RunFacts| facts.pid != 0 && facts.exit.is_none();
            let slot = state.runs.runs.get(&run).map(|facts| &**facts).filter(live);
            if let Some(slot) = slot.and_then(|facts| facts.slot.parse::<Slot>().ok()) {
                state.tell_signalled(&slot.job, &[run], false, signal, &by);
            }
        }
        self.shim_request(run, |req| ToShim::Signal {
            req,
            run: wire(run),
            signal,
            scope,
        })
        .await
    }

    /// Sends a signal to every live run of a job, one-offs included, and tells everybody: of the job, then of each run.
    pub async fn job_signal(&self, job: &JobId, signal: i32, to: Scope, by: Actor) -> Result<()> {
        let runs: Vec<RunId> = {
            let mut state = lock(&self.state);
            let view = state.node.job_view(job).ok_or_else(|| state.no_job(job))?;
            let live = view.instances.iter().filter(|one| one.pid.is_some());
            let runs: Vec<RunId> = live.filter_map(|one| one.run).collect();
            state.tell_signalled(job, &runs, true, signal, &by);
            runs
        };
        let scope = crate::launch::scope(to);
        for run in runs {
            let sent = self.shim_request(run, |req| ToShim::Signal {
                req,
                run: wire(run),
                signal,
                scope,
            });
            match sent.await {
                // It ended meanwhile.
                Err(Error::RunNotFound(_)) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Writes to stdin or a two-way stream of a live run. Returns when the pipe took all bytes.
    pub async fn run_input(&self, run: RunId, stream: &str, data: Vec<u8>, eof: bool) -> Result<()> {
        let mut chunks = data.chunks(INPUT_MAX).peekable();
        if chunks.peek().is_none() {
            return self.input_part(run, stream, Vec::new(), eof).await;
        }
        while let Some(chunk) = chunks.next() {
            let last = chunks.peek().is_none();
            self.input_part(run, stream, chunk.to_vec(), eof && last).await?;
        }
        Ok(())
    }

    async fn input_part(&self, run: RunId, stream: &str, data: Vec<u8>, eof: bool) -> Result<()> {
        let stream = stream.to_owned();
        self.shim_request(run, |req| ToShim::Input {
            req,
            run: wire(run),
            stream,
            data,
            eof,
        })
        .await
    }

    /// Tells the run's terminal its size.
    pub async fn run_resize(&self, run: RunId, cols: u16, rows: u16) -> Result<()> {
        self.shim_request(run, |req| ToShim::Resize {
            req,
            run: wire(run),
            cols,
            rows,
        })
        .await
    }

    /// Samples a live run, or gives the sample that is younger than `stats_every`; `cpu_percent` is since the one before.
    pub async fn run_stats(&self, run: RunId) -> Result<RunStats> {
        let mut state = lock(&self.state);
        let facts = state
            .runs
            .runs
            .get(&run)
            .filter(|facts| facts.pid != 0 && facts.exit.is_none());
        let (pid, cgroup) = facts
            .map(|facts| (facts.pid, facts.cgroup.clone()))
            .ok_or_else(|| Error::RunNotFound(run.to_string()))?;
        let every = state.tuning.stats_every;
        Ok(state.sampler.sample(run, pid, cgroup.as_deref(), every))
    }

    /// Opens a stream of a slot: one growing sequence of bytes over all its runs.
    pub fn log(&self, slot: &Slot, stream: &str) -> Result<LogReader> {
        let name = stream
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte));
        if stream.is_empty() || !name {
            return Err(Error::Invalid(format!("`{stream}` is not a stream's name")));
        }
        let reader = LogReader::open(&logs::directory(&self.settings.logs_dir(), slot), stream);
        Ok(reader.masked_for(&self.state, slot.job.clone()))
    }

    /// The event log: read from a cursor, wait for more.
    pub fn events(&self) -> EventLog {
        self.events.clone()
    }

    /// `[gaffer]` counts in the daemon's own file only. A private daemon (of `gaffer start`) has none and takes it as said.
    fn check_section(&self, config: &gaffer_config::Config) -> Result<()> {
        let Some(origin) = config.daemon_section.as_ref() else {
            return Ok(());
        };
        if self.settings.leash.is_some() || self.settings.config_file.as_ref() == Some(&config.file) {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "[gaffer] in {}:{} counts only in the daemon's own file (gafferd -c FILE): take it out",
            origin.file, origin.line
        )))
    }

    async fn draft(&self, source: &ApplySource, options: &ApplyOptions) -> Result<Draft> {
        let config = match source {
            ApplySource::Files(bundle) => gaffer_config::load(bundle, &*self.host).map_err(Error::Config)?,
            ApplySource::Previous(file) => {
                let kept = self.store.previous(&file.to_string_lossy()).await;
                let kept = kept.map_err(|error| Error::Store(error.to_string()))?;
                let nothing = || {
                    format!(
                        "nothing is known of what {} said before it was applied last",
                        file.display()
                    )
                };
                crate::previous::config(file, &kept.ok_or_else(|| Error::WrongState(nothing()))?)?
            }
        };
        self.check_section(&config)?;
        let revisions = lock(&self.state).concerned(&config, options.prune);
        let mut texts: BTreeMap<(String, String), String> = BTreeMap::new();
        if !revisions.is_empty() {
            let rows = self
                .store
                .job_specs()
                .await
                .map_err(|error| Error::Store(error.to_string()))?;
            texts.extend(
                rows.into_iter()
                    .map(|(session, job, text)| ((session, job), text)),
            );
        }
        let mut present = BTreeMap::new();
        for (job, revision) in revisions {
            let (session, name) = (job.session.to_string(), job.job.to_string());
            let text = texts.remove(&(session.clone(), name.clone())).unwrap_or_default();
            let typed = serde_json::from_str(&text).unwrap_or_default();
            let loaded = gaffer_config::load_job_json(&session, &name, &typed, &gaffer_config::StoredHost);
            present.insert(job, (revision, loaded.map_err(Error::Config)?));
        }
        Ok(Draft { config, present })
    }

    /// What applying would do.
    pub async fn plan(&self, source: &ApplySource, options: &ApplyOptions) -> Result<PlanInfo> {
        let draft = self.draft(source, options).await?;
        Ok(lock(&self.state).plan(&draft, options))
    }

    /// Does it, in one transaction; the operation ends when all touched jobs have settled.
    pub async fn apply(
        &self,
        source: ApplySource,
        options: ApplyOptions,
        by: Actor,
    ) -> Result<(PlanInfo, OperationId)> {
        let plan = Box::new(self.draft(&source, &options).await?);
        // The file of `gaffer start` is its private daemon's own.
        let tuning = self.settings.leash.is_some() && plan.config.daemon_section.is_some();
        let tuning = tuning.then(|| Tuning::from(&plan.config.daemon));
        let answer = self.ask(Request::Apply { plan, options, by }).await?;
        if let Some(tuning) = tuning {
            self.tune(tuning);
        }
        let plan = answer
            .plan
            .ok_or_else(|| Error::WrongState("the plan got lost".to_owned()))?;
        Ok((plan, answer.operation))
    }

    /// About this node.
    pub fn node(&self) -> NodeInfo {
        let state = lock(&self.state);
        let shims = state.shims.all.iter().map(|(n, shim)| ShimInfo {
            n: *n,
            group: shim.group.clone(),
            pid: shim.pid,
            guard_pid: shim.guard_pid,
            version: shim.version,
            runs: live_count(&state, *n),
            state: match shim.state {
                ShimState::Connected => "connected",
                ShimState::Silent => "silent",
                ShimState::Dead => "dead",
            },
        });
        let shims: Vec<ShimInfo> = shims.collect();
        NodeInfo {
            name: self.settings.node.clone(),
            epoch: state.epoch,
            started: self.started,
            state_dir: self.settings.state_dir.clone(),
            containment: if state.cgroup_base.is_some() {
                "cgroup2"
            } else {
                "process-groups"
            },
            jobs: u32::try_from(state.jobs.len()).unwrap_or(u32::MAX),
            runs: shims.iter().map(|shim| shim.runs).sum(),
            drain: state.drain_info(),
            shims,
        }
    }

    /// Directory below which runs get their cgroups, if they do.
    pub fn cgroup_base(&self) -> Option<std::path::PathBuf> {
        lock(&self.state).cgroup_base.clone()
    }

    /// Limits that are asked for and that this host does not enforce: of whom, and which.
    pub fn unenforced(&self) -> Vec<(String, String)> {
        lock(&self.state).unenforced()
    }

    /// Is the store's file sound? `ok`, or what is wrong.
    pub async fn check_store(&self) -> Result<String> {
        self.store
            .check()
            .await
            .map_err(|error| Error::Store(error.to_string()))
    }

    /// For `/metrics`.
    pub fn counters(&self) -> Counters {
        let mut counters = lock(&self.state).counters;
        counters.commits = self.store.commits();
        counters
    }

    /// Other settings, from now on. What was asked for before has been seen to by then, what is asked after sees them.
    pub fn tune(&self, tuning: Tuning) {
        // An engine that has ended needs no settings.
        let _ended = self.owner.send(Message::Tuned(Box::new(tuning)));
    }

    /// The settings in force that may change.
    pub fn tuning(&self) -> Tuning {
        lock(&self.state).tuning.clone()
    }

    /// Says to everybody what came of a file that was read again and changed no job: `config.applied`, or `config.refused`
    /// with the reason.
    pub fn tell_file_read(&self, file: String, by: Actor, refused: Option<String>) {
        let _ended = self.owner.send(Message::FileRead { file, by, refused });
    }

    /// KILL for everything that an orderly end is still waiting for.
    pub fn kill_ending(&self, all: bool) {
        let _ended = self.owner.send(Message::KillEnding { all });
    }

    /// Orderly end: stops jobs in reverse order, save `keep_running` ones unless `all`; with `leave` nothing is stopped.
    /// Returns when done. What is left after `stop_within` is killed.
    pub async fn shutdown(&self, all: bool, leave: bool, by: Actor) {
        lock(&self.state).schedules.stop();
        if !leave {
            let asked = self.ask(Request::Shutdown { all, by }).await;
            if asked.is_ok() {
                let within = self.tuning().stop_within;
                if tokio::time::timeout(within, self.ended()).await.is_err() {
                    tracing::warn!(by = "stop_within", "daemon.killing");
                    self.kill_ending(all);
                    let _stuck = tokio::time::timeout(KILLED_WITHIN, self.ended()).await;
                }
            }
        }
        {
            let mut state = lock(&self.state);
            state.flush_settled();
            for shim in state
                .shims
                .all
                .values()
                .filter_map(|shim| shim.connection.as_ref())
            {
                shim.send(&ToShim::Bye);
                if !leave {
                    // Shims without runs need not wait for a successor.
                    shim.send(&ToShim::Exit);
                }
            }
        }
        // The writers are tasks of this runtime: let them send before it ends.
        tokio::time::sleep(Duration::from_millis(20)).await;
        if !leave {
            self.wait_for_shims().await;
        }
        {
            let mut state = lock(&self.state);
            let users = state.users_of_live_runs();
            state.watches.notify.tidy(&users);
        }
        self.close_queues().await;
        let store = self.store.clone();
        let _joined = tokio::task::spawn_blocking(move || store.close()).await;
    }

    /// Shims without runs leave when they are told to, and take the groups of their runs with them. What is then left
    /// of our own group is empty, unless jobs were told to go on.
    async fn wait_for_shims(&self) {
        let (dirs, base) = {
            let state = lock(&self.state);
            let idle = state
                .shims
                .all
                .iter()
                .filter(|(n, _)| live_count(&state, **n) == 0);
            (
                idle.map(|(_, shim)| shim.dir.clone()).collect::<Vec<_>>(),
                state.cgroup_base.clone(),
            )
        };
        let deadline = tokio::time::Instant::now() + SHIMS_LEAVE_WITHIN;
        while tokio::time::Instant::now() < deadline
            && dirs
                .iter()
                .any(|dir| matches!(gaffer_shim::client::is_locked(dir), Ok(true)))
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if let Some(base) = base {
            lock(&self.state).sweep_groups();
            // Busy: something goes on in there, and the next daemon takes charge of it.
            let _busy = std::fs::remove_dir(&base);
        }
    }

    /// Resolves when the engine ended by itself (`essential` job, shutdown): the exit code of the node.
    pub async fn ended(&self) -> i32 {
        let mut ended = self.ended.clone();
        let code = match ended.wait_for(Option::is_some).await {
            Ok(code) => *code,
            Err(_) => None,
        };
        code.unwrap_or(0)
    }
}

fn live_count(state: &State, shim: u64) -> u32 {
    let live = state
        .runs
        .runs
        .values()
        .filter(|facts| facts.shim == shim && facts.pid != 0 && facts.exit.is_none());
    u32::try_from(live.count()).unwrap_or(u32::MAX)
}
