//! Newest runs of tasks that something waits for, and of those that start by themselves.
//!
//! A job that comes after a task waits for the end of one run: the newest of the definition in force. Which that is, and how it
//! ended, is a row of the store, and so is the wish that a new definition be run: it is committed with the definition itself, and
//! names the run. Whoever is killed between that and the start finds the name again, and a task that is there under its id already is not
//! accepted a second time. So a definition is run once, and a run that is over is never taken for one that is wanted.
//!
//! ```text
//! apply            row {run, not accepted}          the definition is in force
//! accepted         file and stream of the task      the row follows, before the first step may begin
//! over             the stream says how              the row follows
//! ```
//!
//! A daemon that was killed before a row followed makes that up when it resumes: what the root of tasks has is the truth.

use super::defined::{AllDefined, Defined};
use super::definition::Definition;
use super::handle::run_id;
use super::layout::{Place, Root};
use super::service::Led;
use super::stream;
use crate::clock;
use crate::handle::{Handle, Result};
use crate::info::Error;
use crate::owner::lock;
use crate::state::State;
use crate::store::{Change, LatestRow};
use gaffer_core::io::{Input, TaskStanding};
use gaffer_core::name::JobId;
use gaffer_core::task::fold::History;
use gaffer_core::task::record::{Header, TaskState};
use gaffer_core::time::Wall;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Keys that say when a task is run, or how it is shown, and not what is done.
const NOT_DIGESTED: &[&str] = &[
    "start",
    "keep",
    "after",
    "priority",
    "unique",
    "description",
    "meta",
];

/// The newest run of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Latest {
    pub digest: String,
    /// Id of the run.
    pub run: Arc<str>,
    /// When it was asked for, then when it was accepted.
    pub at: Wall,
    /// It is on disk.
    pub accepted: bool,
    /// How and when it ended.
    pub over: Option<(TaskState, Wall)>,
    /// Why it does not begin.
    pub note: Option<Arc<str>>,
}

/// By task.
pub(crate) type AllLatest = BTreeMap<JobId, Latest>;

/// What applying a file makes of them; none: forgotten.
pub(crate) type LatestChanges = Vec<(JobId, Option<Latest>)>;

/// What is done, as sixteen hex digits.
pub(super) fn digest(typed: &Value) -> String {
    let mut typed = typed.clone();
    if let Some(typed) = typed.as_object_mut() {
        typed.retain(|key, _| !NOT_DIGESTED.contains(&key.as_str()));
    }
    format!("{:016x}", gaffer_config::fnv1a(typed.to_string().as_bytes()))
}

fn ended_as(word: &str) -> TaskState {
    let all = [TaskState::Success, TaskState::Failed, TaskState::Killed];
    let found = all.into_iter().find(|state| state.word() == word);
    found.unwrap_or(TaskState::Lost)
}

/// What the store has of the definitions in force.
pub(super) fn from_rows(rows: &[LatestRow], defined: &AllDefined) -> AllLatest {
    let understood = rows.iter().filter_map(|row| {
        let id = JobId::parse(&format!("{}.{}", row.session, row.name)).ok()?;
        defined.get(&id).filter(|defined| defined.digest == row.digest)?;
        let ended = Wall(row.ended.unwrap_or(row.at));
        let latest = Latest {
            digest: row.digest.clone(),
            run: row.run.as_str().into(),
            at: Wall(row.at),
            accepted: row.accepted,
            over: row.state.as_deref().map(|word| (ended_as(word), ended)),
            note: None,
        };
        Some((id, latest))
    });
    understood.collect()
}

impl Latest {
    fn wanted(id: &JobId, digest: &str) -> Latest {
        let mark = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S.%6f").to_string();
        Latest {
            digest: digest.to_owned(),
            run: run_id(id, &mark).into(),
            at: clock::wall(),
            accepted: false,
            over: None,
            note: None,
        }
    }

    fn change(&self, id: &JobId, same: bool) -> Change {
        let row = LatestRow {
            session: id.session.to_string(),
            name: id.job.to_string(),
            digest: self.digest.clone(),
            run: self.run.to_string(),
            at: self.at.0,
            accepted: self.accepted,
            state: self.over.map(|(state, _)| state.word().to_owned()),
            ended: self.over.map(|(_, at)| at.0),
        };
        Change::Latest { row, same }
    }

    fn standing(&self, is_led: bool) -> TaskStanding {
        let (state, since, note) = match (self.over, self.accepted) {
            (Some((TaskState::Success, at)), _) => (Some(TaskState::Success), at, None),
            (Some((state, at)), _) => {
                let note = format!("run it again: gaffer task retry {}", self.run);
                (Some(state), at, Some(note.into()))
            }
            (None, true) if is_led => (Some(TaskState::Active), self.at, None),
            (None, true) => {
                let note = self.note.clone();
                let note = note.unwrap_or_else(|| "it cannot be led here, the log says why".into());
                (Some(TaskState::Active), self.at, Some(note))
            }
            (None, false) => {
                let note = self.note.clone().unwrap_or_else(|| "about to start".into());
                (None, self.at, Some(note))
            }
        };
        TaskStanding { state, since, note }
    }
}

impl State {
    /// Does anything wait for this task, or does it start by itself?
    fn task_is_watched(&self, id: &JobId) -> bool {
        let defined = &self.tasks.defined;
        let jobs = self.jobs.values().filter(|meta| !meta.removed);
        defined.get(id).is_some_and(|own| own.start)
            || defined.values().any(|other| other.after_tasks.contains_key(id))
            || jobs
                .into_iter()
                .any(|meta| meta.spec.after_tasks.contains_key(id))
    }

    /// The task whose newest run this one is.
    fn latest_of(&self, run: &str, header: &Header, definition: &Definition) -> Option<(JobId, Latest)> {
        let id = &definition.native.as_ref()?.id;
        let digest = digest(definition.json.get("task")?);
        self.tasks.defined.get(id).filter(|own| own.digest == digest)?;
        if !self.task_is_watched(id) {
            return None;
        }
        let known = self.tasks.latest.get(id);
        let newer = known.is_none_or(|known| *known.run == *run || known.at <= header.launched);
        let is_over = known.is_some_and(|known| *known.run == *run && known.over.is_some());
        let latest = Latest {
            digest,
            run: run.into(),
            at: header.launched,
            accepted: true,
            over: None,
            note: None,
        };
        (newer && !is_over).then(|| (id.clone(), latest))
    }

    /// A task is led: it may be the newest run of its definition. Its row is in the store already.
    pub(super) fn note_led(&mut self, run: &Arc<str>) {
        let Some(active) = self.tasks.active.get(run) else {
            return;
        };
        if let Some((id, latest)) = self.latest_of(run, &active.header, &active.definition) {
            self.tasks.latest.insert(id.clone(), latest);
            self.tell_standing(&id);
        }
    }

    /// A task is over.
    pub(super) fn note_over(&mut self, active: &super::service::Active, state: TaskState) {
        // Whoever holds back for the end of another run looks again.
        self.tasks.starts.notify_one();
        self.tasks.keeps.notify_one();
        let run = active.header.task_id.clone();
        let Some((id, latest)) = self.latest_of(&run, &active.header, &active.definition) else {
            return;
        };
        let over = Some((state, clock::wall()));
        self.settle_latest(id, Latest { over, ..latest });
    }

    fn settle_latest(&mut self, id: JobId, latest: Latest) {
        // Its answer is not waited for: the root of tasks says the same until then.
        drop(self.store.begin_commit(vec![latest.change(&id, true)]));
        self.tasks.latest.insert(id.clone(), latest);
        self.tell_standing(&id);
    }

    /// Those that wait for a task hear how it stands.
    pub(super) fn tell_standing(&mut self, id: &JobId) {
        let tasks = &self.tasks;
        let standing = tasks.defined.get(id).map(|_| match tasks.latest.get(id) {
            Some(latest) => latest.standing(tasks.active.contains_key(&latest.run)),
            None => TaskStanding {
                state: None,
                since: clock::wall(),
                note: None,
            },
        });
        let task = id.clone();
        self.feed(Input::TaskStood { task, standing });
    }

    /// What other definitions mean for newest runs: a new definition that starts by itself wants one.
    pub(crate) fn latest_after(&self, defined: &AllDefined, no_start: bool) -> LatestChanges {
        let gone = self.tasks.latest.keys().filter(|id| !defined.contains_key(*id));
        let mut changes: LatestChanges = gone.map(|id| (id.clone(), None)).collect();
        for (id, new) in defined {
            let known = self.tasks.latest.get(id);
            if known.is_some_and(|known| known.digest == new.digest) {
                continue;
            }
            // Only what this file changes: others are as they were.
            let is_same = self.tasks.defined.get(id) == Some(new);
            if new.start && !no_start && !is_same {
                changes.push((id.clone(), Some(Latest::wanted(id, &new.digest))));
            } else if known.is_some() {
                changes.push((id.clone(), None));
            }
        }
        changes
    }

    /// Files define these tasks from now on.
    pub(crate) fn define_tasks(&mut self, defined: AllDefined, latest: LatestChanges) {
        let mut concerned: Vec<JobId> = self.tasks.defined.keys().cloned().collect();
        concerned.extend(defined.keys().cloned());
        self.tasks.defined = defined;
        for (id, latest) in latest {
            match latest {
                Some(latest) => drop(self.tasks.latest.insert(id, latest)),
                None => drop(self.tasks.latest.remove(&id)),
            }
        }
        for id in concerned {
            self.tell_standing(&id);
        }
        self.tasks.starts.notify_one();
        self.tasks.keeps.notify_one();
    }

    /// Runs that are wanted, and not accepted yet; not while another run of their task goes on.
    fn wanted(&self) -> Vec<(JobId, Arc<str>, Arc<str>)> {
        let busy = |id: &JobId| {
            let active = self.tasks.active.values();
            let mut natives = active.filter_map(|active| active.definition.native.as_ref());
            natives.any(|native| native.id == *id)
        };
        let wanted = self.tasks.latest.iter().filter(|(_, latest)| !latest.accepted);
        let free = wanted.filter(|(id, _)| !busy(id));
        let with_file = free.filter_map(|(id, latest)| {
            let defined = self.tasks.defined.get(id)?;
            let name = std::path::Path::new(&defined.file).file_name()?.to_string_lossy();
            let wanted = (id.clone(), latest.run.clone(), Arc::from(&*name));
            Some((defined.priority, wanted))
        });
        let mut in_order: Vec<_> = with_file.collect();
        in_order.sort_by_key(|(priority, _)| *priority);
        in_order.into_iter().map(|(_, wanted)| wanted).collect()
    }

    fn note_unstarted(&mut self, id: &JobId, run: &str, error: &Error) {
        let Some(latest) = self.tasks.latest.get_mut(id).filter(|latest| *latest.run == *run) else {
            return;
        };
        let note: Arc<str> = format!("it cannot be started: {error}").into();
        if latest.note.as_ref() != Some(&note) {
            tracing::warn!(task = %id, run, %error, "the task cannot be started");
            latest.note = Some(note);
            self.tell_standing(id);
        }
    }
}

/// The rows for the store.
pub(crate) fn changes(latest: &LatestChanges) -> Vec<Change> {
    let one = |(id, latest): &(JobId, Option<Latest>)| match latest {
        Some(latest) => latest.change(id, false),
        None => Change::LatestForget {
            session: id.session.to_string(),
            name: id.job.to_string(),
        },
    };
    latest.iter().map(one).collect()
}

/// A task that is on disk is led only when the store knows whether it is the newest run of its definition.
pub(super) async fn commit(state: &Mutex<State>, led: &Led) -> Result<()> {
    let committed = {
        let state = lock(state);
        let Some((id, latest)) = state.latest_of(&led.id, &led.header, &led.definition) else {
            return Ok(());
        };
        state.store.begin_commit(vec![latest.change(&id, true)])
    };
    let committed = committed.await.map_err(|_| Error::ShuttingDown)?;
    committed.map_err(|error| Error::Task(error.to_string()))
}

impl Handle {
    async fn start_wanted(&self, id: &JobId, run: &Arc<str>, by: Arc<str>) -> Result<()> {
        let definition = self.task_defined(id, &BTreeMap::new())?;
        let new = super::NewTask::of(&self.tasks_root(), run.to_string(), definition);
        self.task_start(new, by).await
    }
}

/// How a run ended that nobody leads here any more; none: it is not over.
fn ended_on_disk(root: &Root, run: &str) -> Option<TaskState> {
    match root.place(run) {
        Some(Place::Active) => None,
        None => Some(TaskState::Lost),
        Some(Place::Finished) => {
            let records = stream::read(&root.runner(run)).map(|contents| contents.records);
            let history = records.ok().and_then(|records| History::replay(&records).ok());
            let state = history.map(|history| history.state());
            Some(
                state
                    .filter(|state| state.is_terminal())
                    .unwrap_or(TaskState::Lost),
            )
        }
    }
}

/// Recovery: the store may be behind what the root of tasks has.
pub(super) async fn resume(state: &Arc<Mutex<State>>) {
    let (open, root) = {
        let state = lock(state);
        let open = state
            .tasks
            .latest
            .iter()
            .filter(|(_, latest)| latest.over.is_none());
        let open = open.filter(|(_, latest)| !state.tasks.active.contains_key(&latest.run));
        let open: Vec<(JobId, Latest)> = open.map(|(id, latest)| (id.clone(), latest.clone())).collect();
        (open, Root::new(state.settings.tasks_dir()))
    };
    let looked = tokio::task::spawn_blocking(move || {
        let over = open.into_iter().filter_map(|(id, latest)| {
            let is_there = latest.accepted || root.place(&latest.run).is_some();
            let state = is_there.then(|| ended_on_disk(&root, &latest.run))??;
            Some((id, latest, state))
        });
        over.collect::<Vec<_>>()
    });
    let over = looked.await.unwrap_or_default();
    let mut state = lock(state);
    for (id, latest, ended) in over {
        let (accepted, over) = (true, Some((ended, clock::wall())));
        state.settle_latest(
            id,
            Latest {
                accepted,
                over,
                ..latest
            },
        );
    }
    let defined: Vec<JobId> = state.tasks.defined.keys().cloned().collect();
    for id in defined {
        state.tell_standing(&id);
    }
}

/// Starts runs that are wanted, one after the other, for as long as the engine lives.
pub(crate) fn begin(handle: &Handle) -> tokio::task::JoinHandle<()> {
    let handle = handle.clone();
    tokio::spawn(async move {
        let starts = lock(&handle.state).tasks.starts.clone();
        loop {
            let wanted = lock(&handle.state).wanted();
            let mut failed = false;
            for (id, run, by) in wanted {
                if let Err(error) = handle.start_wanted(&id, &run, by).await {
                    lock(&handle.state).note_unstarted(&id, &run, &error);
                    failed = true;
                }
            }
            let again = starts.notified();
            match failed {
                false => again.await,
                true => drop(tokio::time::timeout(AGAIN, again).await),
            }
        }
    })
}

/// What could not be started is tried again after this.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(5);

impl Defined {
    /// Does a new run follow from this definition by itself?
    pub(crate) fn runs(&self, id: &JobId, latest: &LatestChanges) -> bool {
        let mut mine = latest.iter().filter(|(other, _)| other == id);
        self.start && mine.any(|(_, latest)| latest.is_some())
    }
}
