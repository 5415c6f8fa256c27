//! How anything outside starts, watches and ends tasks.

use super::definition::{Definition, Native};
use super::latest;
use super::layout::{LayoutError, Place, Root, check_id};
use super::lead;
use super::service::{self, Led};
use super::stream::{self, StreamError, Writer};
use crate::handle::{Handle, Result};
use crate::info::{Actor, Error, RunStats};
use crate::owner::{Message, lock};
use crate::state::State;
use gaffer_config::{Host, SystemHost};
use gaffer_core::name::{JobId, RunId};
use gaffer_core::task::fold::History;
use gaffer_core::task::record::{Header, Outputs, Record, TaskState};
use gaffer_core::task::runner::{Input, Leader, Runner, TaskView};
use gaffer_core::time::{Duration, Now};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A task to be run.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// Its id: the name of a file.
    pub id: String,
    /// What it is.
    pub definition: Definition,
    /// Working directory of its steps, absolute; made if it is not there.
    pub sandbox: String,
    /// User its steps run as.
    pub user: String,
    /// Directory of its output, absolute; none: `.logs` in the sandbox.
    pub log_dir: Option<String>,
    /// Ports by name.
    pub ports: Vec<(String, u16)>,
    /// It runs a part of another task again.
    pub retry: Option<Retry>,
}

impl NewTask {
    /// With its folders in the root, as the user that we are.
    pub(crate) fn of(root: &Root, id: String, definition: Definition) -> NewTask {
        let beside = |folder: &str| root.path().join(folder).join(&id).to_string_lossy().into_owned();
        let host = SystemHost::new();
        let uid = host.own_uid();
        let user = host.user_with_id(uid);
        NewTask {
            sandbox: beside("sandboxes"),
            user: user.map_or_else(|| uid.to_string(), |user| user.name),
            log_dir: Some(beside("logs")),
            ports: Vec::new(),
            retry: None,
            definition,
            id,
        }
    }
}

/// The id of a run that something of a session starts: `nightly-MARK`; of another session than the default one `shop.nightly-MARK`.
pub(crate) fn run_id(name: &JobId, mark: &str) -> String {
    match name.session.as_str() {
        "default" => format!("{}-{mark}", name.job),
        session => format!("{session}.{}-{mark}", name.job),
    }
}

/// What a task takes over from the one that it runs again.
#[derive(Clone, Debug)]
pub struct Retry {
    /// Id of that one.
    pub of: String,
    /// Steps that are done, with their outputs.
    pub done: Vec<(Arc<str>, Outputs)>,
}

/// How a task is ended.
#[derive(Clone, Debug)]
pub struct TaskKill {
    /// Killed, or lost.
    pub state: TaskState,
    /// Time for an orderly end; none: the task's own.
    pub grace: Option<Duration>,
    /// Kill everything now, without final steps.
    pub hard: bool,
}

/// A task as it is.
#[derive(Clone, Debug)]
pub struct TaskInfo {
    /// Id.
    pub id: String,
    /// Name of the task that it is a run of.
    pub name: Arc<str>,
    /// Session of a native task; empty: a task of Thermos.
    pub session: String,
    /// Where its file lies.
    pub place: Place,
    /// States, steps, reasons.
    pub view: TaskView,
    /// Everything that its stream says.
    pub history: History,
    /// Its definition as it is kept.
    pub definition: serde_json::Value,
    /// What only a native task has.
    pub native: Option<Arc<Native>>,
}

pub(super) fn layout(error: LayoutError) -> Error {
    match error {
        LayoutError::Finished(_) => Error::WrongState(error.to_string()),
        LayoutError::BadId(..) => Error::Invalid(error.to_string()),
        LayoutError::Io { .. } | LayoutError::NotActive(_) => Error::Task(error.to_string()),
    }
}

pub(super) fn streamed(error: StreamError) -> Error {
    Error::Task(error.to_string())
}

impl Handle {
    /// The root of this node's tasks.
    pub fn tasks_root(&self) -> Root {
        Root::new(self.settings.tasks_dir())
    }

    /// Accepts a task: it is on disk when this returns. One that is active already, and the same, goes on; one that is
    /// finished, and the same, stays as it is.
    pub async fn task_start(&self, task: NewTask, by: Actor) -> Result<()> {
        check_id(&task.id).map_err(layout)?;
        if !self.settings.tasks_led.has(&task.id) {
            return Err(Error::WrongState(format!("task {} is not led here", task.id)));
        }
        if let Some(known) = lock(&self.state).tasks.active.get(task.id.as_str()) {
            return match known.definition.json == task.definition.json {
                true => Ok(()),
                false => Err(differs(&task.id)),
            };
        }
        let claimed = self.claim_unique(&task)?;
        let accepted = self.task_accept(task, by).await;
        if let Some(key) = claimed {
            lock(&self.state).tasks.claimed.remove(&key);
        }
        accepted
    }

    async fn task_accept(&self, task: NewTask, by: Actor) -> Result<()> {
        let root = self.tasks_root();
        let led = tokio::task::spawn_blocking(move || accept(&root, task, by))
            .await
            .map_err(|_| Error::ShuttingDown)??;
        match led {
            Some(led) => {
                latest::commit(&self.state, &led).await?;
                self.task_led(led).await
            }
            None => Ok(()),
        }
    }

    /// Holds the `unique` key of a task until it is led.
    fn claim_unique(&self, task: &NewTask) -> Result<Option<String>> {
        let native = task.definition.native.as_ref();
        let Some(key) = native.and_then(|native| native.unique.as_ref()) else {
            return Ok(None);
        };
        let mut state = lock(&self.state);
        let has_key = |active: &&service::Active| {
            let native = active.definition.native.as_ref();
            native.and_then(|native| native.unique.as_ref()) == Some(key)
        };
        let other = state.tasks.active.values().find(has_key);
        let other = other.map(|active| active.header.task_id.to_string());
        if other.is_none() && state.tasks.claimed.insert(key.clone()) {
            return Ok(Some(key.clone()));
        }
        let name = &task.definition.spec.name;
        let other = other.unwrap_or_else(|| "another one".to_owned());
        Err(Error::WrongState(format!(
            "task {name} is unique, and {other} is active: wait for it, or kill it"
        )))
    }

    async fn task_led(&self, led: Led) -> Result<()> {
        let (tx, rx) = oneshot::channel();
        self.owner
            .send(Message::TaskLed(Box::new(led), tx))
            .map_err(|_| Error::ShuttingDown)?;
        rx.await.map_err(|_| Error::ShuttingDown)?
    }

    /// Leads a task that is on disk and that this node may lead; one that is led already stays as it is.
    async fn task_adopt(&self, id: &str) -> Result<()> {
        let known = lock(&self.state).tasks.active.contains_key(id);
        let root = self.tasks_root();
        if known || !self.settings.tasks_led.has(id) || root.place(id) != Some(Place::Active) {
            return Ok(());
        }
        let id = id.to_owned();
        let led = tokio::task::spawn_blocking(move || lead::again(&root, &id))
            .await
            .map_err(|_| Error::ShuttingDown)?;
        self.task_led(led.map_err(Error::Task)?).await
    }

    /// A checkpoint is there, and no file of the task.
    fn is_lost_file(&self, id: &str) -> bool {
        let root = self.tasks_root();
        check_id(id).is_ok()
            && self.settings.tasks_led.has(id)
            && root.place(id).is_none()
            && root.runner(id).exists()
    }

    /// Ends a task of which nobody can read who it is, by force. False: its header can be read.
    async fn task_bury(&self, id: &str, state: TaskState) -> Result<bool> {
        let (root, task) = (self.tasks_root(), id.to_owned());
        let buried = tokio::task::spawn_blocking(move || lead::bury(&root, &task, state))
            .await
            .map_err(|_| Error::ShuttingDown)??;
        if buried {
            lock(&self.state).end_found_runs(id);
        }
        Ok(buried)
    }

    async fn task_adopt_bare(&self, id: &str) -> Result<()> {
        let (root, id) = (self.tasks_root(), id.to_owned());
        let led = tokio::task::spawn_blocking(move || lead::bare(&root, &id))
            .await
            .map_err(|_| Error::ShuttingDown)?;
        self.task_led(led?).await
    }

    /// What the live runs of a task use now.
    pub async fn task_stats(&self, info: &TaskInfo) -> BTreeMap<RunId, RunStats> {
        let mut all = BTreeMap::new();
        if info.place == Place::Active {
            let last = info.history.steps.values().filter_map(|runs| runs.last());
            for run in last.filter(|run| run.ended.is_none()).filter_map(|run| run.run) {
                // It may have ended meanwhile, or be led by somebody else.
                if let Ok(stats) = self.run_stats(run).await {
                    all.insert(run, stats);
                }
            }
        }
        all
    }

    /// Bytes on disk of a task's working directory.
    pub async fn task_disk(&self, info: &TaskInfo) -> Option<u64> {
        let sandbox = std::path::PathBuf::from(&*info.history.header.as_ref()?.sandbox);
        tokio::task::spawn_blocking(move || super::gc::space(&sandbox))
            .await
            .ok()
    }

    /// Asks for the end of a task that is not over.
    ///
    /// One whose definition cannot be read is ended by what its checkpoint says: nobody knows how its steps want to be asked,
    /// so what lives is killed, and no final step runs. One whose checkpoint does not even begin is only ended by force: what
    /// lives of it is killed, and it counts as over.
    pub async fn task_kill(&self, id: &str, kill: TaskKill, by: &Actor) -> Result<()> {
        if self.task_adopt(id).await.is_err() || self.is_lost_file(id) {
            let adopted = self.task_adopt_bare(id).await;
            if adopted.is_err() && kill.hard && self.task_bury(id, kill.state).await? {
                return Ok(());
            }
            adopted?;
        }
        let (id, stop_timeout, bare) = {
            let state = lock(&self.state);
            let found = state.tasks.active.get_key_value(id);
            let (id, active) = found.ok_or_else(|| self.not_active(id))?;
            (id.clone(), active.definition.spec.stop_timeout, active.is_bare())
        };
        let word = match kill.state {
            TaskState::Lost => "given up as lost",
            _ => "killed",
        };
        let input = Input::Kill {
            state: kill.state,
            grace: kill.grace.unwrap_or(stop_timeout),
            hard: kill.hard || bare,
            reason: match bare {
                false => format!("{word} by {by}").into(),
                true => format!("{word} by {by}, without its definition").into(),
            },
        };
        if kill.hard || bare {
            return self.task_input(id, input);
        }
        // To its end, also if who has asked goes away meanwhile.
        let handle = self.clone();
        let killed = tokio::spawn(async move {
            match handle.ask_to_end(&id).await {
                true => Ok(()),
                false => handle.task_input(id, input),
            }
        });
        killed.await.map_err(|_| Error::ShuttingDown)?
    }

    /// Freezes a task, or lets it go on.
    pub async fn task_pause(&self, id: &str, on: bool) -> Result<()> {
        self.task_adopt(id).await?;
        let id = {
            let state = lock(&self.state);
            let found = state.tasks.active.get_key_value(id);
            found
                .map(|(id, _)| id.clone())
                .ok_or_else(|| self.not_active(id))?
        };
        self.task_input(id, Input::Pause(on))
    }

    fn task_input(&self, id: Arc<str>, input: Input) -> Result<()> {
        let sent = self.owner.send(service::message(id, input));
        sent.map_err(|_| Error::ShuttingDown)
    }

    fn not_active(&self, id: &str) -> Error {
        match self.tasks_root().place(id) {
            Some(Place::Finished) => Error::WrongState(format!("task {id} is over")),
            Some(Place::Active) => {
                Error::WrongState(format!("task {id} cannot be led here; the log says why"))
            }
            None => Error::TaskNotFound(id.to_owned()),
        }
    }

    /// A task as it is.
    pub async fn task(&self, id: &str) -> Result<TaskInfo> {
        if let Some(info) = lock(&self.state).task_info(id) {
            return Ok(info);
        }
        if check_id(id).is_err() {
            return Err(Error::TaskNotFound(id.to_owned()));
        }
        let (root, id) = (self.tasks_root(), id.to_owned());
        tokio::task::spawn_blocking(move || read(&root, &id))
            .await
            .map_err(|_| Error::ShuttingDown)?
    }

    /// Ids of all tasks of this node's root, with where their files lie.
    pub async fn tasks(&self, place: Option<Place>) -> Result<Vec<super::layout::Listed>> {
        let root = self.tasks_root();
        tokio::task::spawn_blocking(move || root.list(place))
            .await
            .map_err(|_| Error::ShuttingDown)?
            .map_err(layout)
    }

    /// Waits until a task is over or `timeout` has passed; gives it as it is then.
    pub async fn task_wait(&self, id: &str, timeout: Duration) -> Result<TaskInfo> {
        let _late = tokio::time::timeout(timeout, self.task_ended(id)).await;
        self.task(id).await
    }

    /// Is this task led here, and not over?
    pub fn task_is_active(&self, id: &str) -> bool {
        lock(&self.state).tasks.active.contains_key(id)
    }

    /// Resolves when a task is not led here, or no more.
    pub async fn task_ended(&self, id: &str) {
        let mut bell = lock(&self.state).tasks.bell.subscribe();
        loop {
            bell.borrow_and_update();
            let active = lock(&self.state).tasks.active.contains_key(id);
            if !active || bell.changed().await.is_err() {
                return;
            }
        }
    }

    /// Resolves when something about any task has changed.
    pub async fn tasks_changed(&self) {
        let mut bell = lock(&self.state).tasks.bell.subscribe();
        let _ended = bell.changed().await;
    }
}

impl State {
    /// A task that is led here.
    fn task_info(&self, id: &str) -> Option<TaskInfo> {
        let active = self.tasks.active.get(id)?;
        let mut view = active.runner.view();
        view.reason = view.reason.or_else(|| Some(self.held_by(id)?.text));
        Some(TaskInfo {
            id: id.to_owned(),
            name: active.definition.spec.name.clone(),
            session: active.definition.session(),
            place: Place::Active,
            view,
            history: active.runner.history().clone(),
            definition: active.definition.json.clone(),
            native: active.definition.native.clone(),
        })
    }
}

fn differs(id: &str) -> Error {
    Error::WrongState(format!(
        "task {id} is there already with another definition: choose another id"
    ))
}

/// Puts a task on disk, durably, and leads its stream; none: it is finished.
fn accept(root: &Root, task: NewTask, by: Actor) -> Result<Option<Led>> {
    root.make(&task.id).map_err(layout)?;
    let definition = task.definition.bytes();
    let place = root.place(&task.id);
    let known = place.and_then(|place| std::fs::read(root.task(&task.id, place)).ok());
    if known.is_some_and(|known| known != definition) {
        return Err(differs(&task.id));
    }
    if place == Some(Place::Finished) {
        return Ok(None);
    }
    let (mut writer, mut records) = Writer::lead(&root.runner(&task.id)).map_err(streamed)?;
    let kept = records.iter().find_map(|record| match record {
        Record::Header(header) => Some(header.clone()),
        _ => None,
    });
    // The header that is on file is what the task is. It comes before the definition: what is listed as active can
    // always be led.
    let header = kept.unwrap_or_else(|| new_header(&task));
    if records.is_empty() {
        records.push(Record::Header(header.clone()));
        let done = task.retry.iter().flat_map(|retry| &retry.done);
        records.extend(done.map(|(step, outputs)| Record::Carried {
            step: step.clone(),
            outputs: outputs.clone(),
        }));
        writer.append(&records).map_err(streamed)?;
    }
    root.begin(&task.id, &definition).map_err(layout)?;
    make_sandbox(root, &task, Path::new(&*header.sandbox))
        .map_err(|error| Error::Task(format!("cannot make the sandbox {}: {error}", header.sandbox)))?;
    Ok(Some(Led {
        id: task.id.into(),
        header,
        definition: task.definition,
        root: root.clone(),
        writer,
        records,
        by,
    }))
}

/// The other user that a task of Thermos runs as.
fn foreign(task: &NewTask) -> Option<u32> {
    let steps = &task.definition.spec.steps;
    let of_all = task.definition.native.is_none();
    steps
        .first()
        .filter(|_| of_all)
        .and_then(|step| crate::notify::foreign(&step.launch))
}

/// Makes a working directory that is not there. One of this root belongs to the user of the task, who can pass through
/// what is above it, and see nothing of it.
fn make_sandbox(root: &Root, task: &NewTask, sandbox: &Path) -> std::io::Result<()> {
    if sandbox.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(sandbox)?;
    let own = root.path().join("sandboxes");
    if let Some(uid) = foreign(task)
        && sandbox.starts_with(&own)
    {
        for passage in [root.path(), &own] {
            std::fs::set_permissions(passage, std::fs::Permissions::from_mode(0o711))?;
        }
        std::os::unix::fs::chown(sandbox, Some(uid), None)?;
    }
    Ok(())
}

fn new_header(task: &NewTask) -> Header {
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Header {
        task_id: task.id.as_str().into(),
        launched: service::now(),
        sandbox: task.sandbox.as_str().into(),
        hostname: hostname.into(),
        user: task.user.as_str().into(),
        uid: Some(foreign(task).unwrap_or_else(|| rustix::process::getuid().as_raw())),
        ports: task
            .ports
            .iter()
            .map(|(name, port)| (name.as_str().into(), *port))
            .collect(),
        log_dir: match &task.log_dir {
            Some(dir) => dir.as_str().into(),
            None => format!("{}/.logs", task.sandbox).into(),
        },
        retry_of: task.retry.as_ref().map(|retry| Arc::from(retry.of.as_str())),
    }
}

/// A task that nobody here leads, as its files say.
pub(super) fn read(root: &Root, id: &str) -> Result<TaskInfo> {
    let place = root.place(id).ok_or_else(|| Error::TaskNotFound(id.to_owned()))?;
    let contents = stream::read(&root.runner(id)).map_err(streamed)?;
    let records = contents.believed(&root.runner(id)).map_err(streamed)?;
    let history = History::replay(&records).map_err(|error| Error::Task(format!("task {id}: {error}")))?;
    let text = std::fs::read(root.task(id, place))
        .map_err(|error| Error::Task(format!("the definition of task {id} cannot be read: {error}")))?;
    let header = history.header.clone();
    let header =
        header.ok_or_else(|| Error::Task(format!("task {id} never began: its stream has no header")))?;
    let definition = match Definition::again(&text, &header) {
        Ok(definition) => definition,
        // What became of it is known.
        Err(_) if history.state().is_terminal() => Definition::bare(&history),
        Err(error) => return Err(Error::Task(error.to_string())),
    };
    let leader = Leader { pid: 0, uid: 0 };
    let now = Now {
        mono: crate::clock::mono(),
        wall: crate::clock::wall(),
    };
    let runner = Runner::replay(definition.spec.clone(), leader, 0, now, &records)
        .map_err(|error| Error::Task(format!("task {id}: {error}")))?;
    Ok(TaskInfo {
        id: id.to_owned(),
        name: definition.spec.name.clone(),
        session: definition.session(),
        place,
        view: runner.view(),
        history,
        definition: definition.json,
        native: definition.native,
    })
}

impl TaskInfo {
    /// A number that grows with what its stream says.
    pub fn revision(&self) -> u64 {
        let steps = self.history.steps.values().filter_map(|runs| runs.last());
        let records: u64 = steps.map(|run| run.seq + 1).sum();
        let own = self.history.statuses.len() * 4 + usize::from(self.history.forced.is_some());
        records + own as u64 + u64::from(self.view.paused)
    }
}
