//! Tasks: started, watched, ended; what their steps wrote.

use crate::access::Access;
use crate::http::body::Json;
use crate::http::page;
use crate::http::query::{self, Path, Query};
use crate::http::{App, Shared};
use crate::peer::{Uid, user_name};
use crate::refusal::{Answer, Refusal, invalid_config};
use crate::view_task as view;
use axum::Extension;
use axum::extract::State;
use axum::response::IntoResponse;
use gaffer::task::{Collect, Definition, NewTask, TaskInfo, TaskKill, layout::Place, output};
use gaffer_api::error::{Code, ErrorBody};
use gaffer_api::types::queue::{AnyOutcome, AnyTask};
use gaffer_api::types::task::{
    Task, TaskGc, TaskGcRequest, TaskItem, TaskKillRequest, TaskRequest, TaskRetryRequest, TaskStep,
};
use gaffer_config::{Host, SystemHost, ThermosContext, load_task_json, load_thermos, load_thermos_json};
use gaffer_core::job::User;
use gaffer_core::name::{JobId, Name};
use gaffer_core::task::record::TaskState;
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use std::time::{Duration, Instant};
use utoipa::IntoParams;

/// Bytes of output in one answer.
const PIECE_BYTES: usize = 1 << 20;

/// A change is looked for so often, at least.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the text of a request is called in errors.
const NO_FILE: &str = "/the task";

/// Parameters of the list of tasks.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TasksQuery {
    /// `active` or `finished`; none: both.
    location: Option<String>,
    /// Only tasks in this state.
    state: Option<String>,
    /// Items of a page: 200, at most 1000.
    limit: Option<usize>,
    /// From the `Link` of the page before.
    cursor: Option<String>,
}

/// Tasks of this node, in the order of their ids.
#[utoipa::path(get, path = "/v1/tasks", tag = "tasks", params(TasksQuery),
    responses((status = 200, body = Vec<TaskItem>), (status = "default", body = ErrorBody)))]
pub async fn list(
    State(app): State<Shared>,
    Query(query): Query<TasksQuery>,
) -> Answer<(HeaderMap, Json<Vec<TaskItem>>)> {
    let place = match query.location.as_deref() {
        None => None,
        Some("active") => Some(Place::Active),
        Some("finished") => Some(Place::Finished),
        Some(other) => {
            let message = format!("`{}` is no location", other.escape_debug());
            return Err(Refusal::new(Code::BadValue, message).hint("active or finished"));
        }
    };
    let mut listed = app.handle.tasks(place).await?;
    let limit = page::limit(query.limit, page::USUAL)?;
    let next = page::cut(&mut listed, |one| one.id.clone(), limit, query.cursor.as_deref());
    let mut items = Vec::with_capacity(listed.len());
    for one in listed {
        let info = app.handle.task(&one.id).await;
        items.push(view::item(&one.id, one.place, info.as_ref()));
    }
    items.retain(|item| query.state.as_ref().is_none_or(|state| *state == item.state));
    let parameters = [
        ("location", query.location),
        ("state", query.state),
        ("limit", query.limit.map(|limit| limit.to_string())),
    ];
    Ok((page::link("/v1/tasks", &parameters, next), Json(items)))
}

/// Accepts a task. It is on disk when the answer comes.
#[utoipa::path(post, path = "/v1/tasks", tag = "tasks", request_body = TaskRequest,
    responses((status = 201, body = Task), (status = "default", body = ErrorBody)))]
pub async fn start(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Json(request): Json<TaskRequest>,
) -> Answer<(StatusCode, Json<Task>)> {
    app.handle.refuse_drained()?;
    let new = new_task(&app, request)?;
    let id = new.id.clone();
    app.handle.task_start(new, access.actor()).await?;
    Ok((StatusCode::CREATED, Json(shown(&app, &id, false).await?)))
}

fn new_task(app: &App, request: TaskRequest) -> Answer<NewTask> {
    let user = request
        .user
        .clone()
        .unwrap_or_else(|| user_name(Uid(rustix::process::geteuid().as_raw())));
    let mut context = ThermosContext {
        task: request.name.clone(),
        task_id: request.id.clone().unwrap_or_default(),
        user: user.clone(),
        run_as: request.user.as_deref().map(run_as_other).transpose()?.flatten(),
        ports: request.ports.clone(),
        bindings: request.bindings.clone(),
        sandbox: request.sandbox.clone().unwrap_or_default(),
    };
    if request.id.is_none() {
        // The name of the task is known when it was read: once for that, once with the id filled in.
        let first = understood(app, &request, &context)?;
        context.task_id = format!("{}-{}", first.spec.name, stamp());
    }
    let id = context.task_id.clone();
    let root = app.handle.tasks_root();
    let beside = |folder: &str| root.path().join(folder).join(&id).to_string_lossy().into_owned();
    context.sandbox = match request.sandbox.clone() {
        None => beside("sandboxes"),
        Some(sandbox) if sandbox.starts_with('/') => sandbox,
        Some(other) => {
            let message = format!("the sandbox `{}` is not an absolute path", other.escape_debug());
            return Err(Refusal::new(Code::BadValue, message));
        }
    };
    Ok(NewTask {
        definition: understood(app, &request, &context)?,
        sandbox: context.sandbox,
        user,
        log_dir: Some(beside("logs")),
        ports: request.ports.into_iter().collect(),
        retry: None,
        id,
    })
}

/// Who a named user is; none: who we are ourselves.
fn run_as_other(name: &str) -> Answer<Option<User>> {
    let host = SystemHost::new();
    let found = match name.parse() {
        Ok(uid) => host.user_with_id(uid),
        Err(_) => host.user_named(name),
    };
    let Some(user) = found else {
        let message = format!("there is no user `{}` on this machine", name.escape_debug());
        return Err(Refusal::new(Code::BadValue, message));
    };
    if user.uid == host.own_uid() {
        return Ok(None);
    }
    if host.own_uid() != 0 {
        let message = format!(
            "only root may run a task as `{name}`: the daemon is user {}",
            host.own_uid()
        );
        return Err(Refusal::new(Code::BadValue, message).hint("start it as root, or leave the user out"));
    }
    Ok(Some(user))
}

fn understood(app: &App, request: &TaskRequest, context: &ThermosContext) -> Answer<Definition> {
    if let (None, None, Some(name)) = (&request.task, &request.text, &request.name) {
        return defined(app, request, name);
    }
    let thermos = match (&request.task, &request.text) {
        (Some(task), None) if task.get("processes").is_none() => return native(request, task),
        (Some(task), None) => load_thermos_json(task, context),
        (None, Some(text)) => load_thermos(text, std::path::Path::new(NO_FILE), context),
        _ => {
            return Err(
                Refusal::new(Code::BadRequest, "the body has either `task` or `text`")
                    .hint("task is the JSON of one task, text the text of a task file"),
            );
        }
    };
    only_native(!request.params.is_empty(), "params")?;
    only_native(request.session.is_some(), "session")?;
    let task = thermos.map_err(|diagnostics| invalid_config(&diagnostics))?;
    Ok(task.into())
}

/// A task that a file defines.
fn defined(app: &App, request: &TaskRequest, name: &str) -> Answer<Definition> {
    let session = request.session.as_deref().unwrap_or("default");
    let session = Name::parse(session).map_err(|error| Refusal::new(Code::BadName, error.to_string()))?;
    let id =
        JobId::parse_in(name, &session).map_err(|error| Refusal::new(Code::BadName, error.to_string()))?;
    let all = app.handle.tasks_defined();
    if !all.contains_key(&id) {
        let names: Vec<String> = all.keys().map(ToString::to_string).collect();
        let near = gaffer_config::nearest(&id.to_string(), names.iter().map(String::as_str));
        let refusal = Refusal::new(
            Code::TaskNotFound,
            format!("no file that was applied defines task {id}"),
        );
        return Err(match near {
            Some(near) => refusal.hint(format!("did you mean {near}?")),
            None => refusal.hint("tasks are defined in a file, [task.NAME], and applied:  gaffer apply"),
        });
    }
    if request.user.is_some() || !request.bindings.is_empty() {
        let refusal = Refusal::new(Code::BadRequest, "a defined task takes `params` only");
        return Err(refusal.hint("its user is in its file"));
    }
    Ok(app.handle.task_defined(&id, &request.params)?)
}

fn only_native(given: bool, what: &str) -> Answer<()> {
    match given {
        false => Ok(()),
        true => Err(Refusal::new(
            Code::BadRequest,
            format!("a task of Thermos has no `{what}`"),
        )),
    }
}

/// Every step runs as this user, whatever it says itself.
fn run_as(task: &mut serde_json::Value, user: &str) {
    let steps = task.get_mut("step").and_then(serde_json::Value::as_object_mut);
    match steps {
        Some(steps) => steps.values_mut().for_each(|step| set_user(step, user)),
        None => set_user(task, user),
    }
}

fn set_user(step: &mut serde_json::Value, user: &str) {
    if let Some(step) = step.as_object_mut() {
        step.insert("user".to_owned(), user.into());
        step.remove("group");
        step.remove("groups");
        step.remove("run_as");
    }
}

/// A task with the keys of `[task.X]`.
fn native(request: &TaskRequest, task: &serde_json::Value) -> Answer<Definition> {
    let text = |key: &str| task.get(key).and_then(serde_json::Value::as_str);
    let name = request.name.as_deref().or_else(|| text("name"));
    let Some(name) = name else {
        return Err(Refusal::new(Code::BadRequest, "the task has no `name`"));
    };
    if !request.bindings.is_empty() {
        let refusal = Refusal::new(Code::BadRequest, "`bindings` are for tasks of Thermos");
        return Err(refusal.hint("values of {{params.NAME}} are `params`"));
    }
    let session = request.session.as_deref().or_else(|| text("session"));
    let session = session.unwrap_or("default");
    let mut task = task.clone();
    if let Some(user) = &request.user {
        run_as(&mut task, user);
    }
    let loaded = load_task_json(session, name, &task, &SystemHost::new());
    let loaded = loaded.map_err(|diagnostics| invalid_config(&diagnostics))?;
    Definition::native(loaded, &request.params)
        .map_err(|error| Refusal::new(Code::BadValue, error.to_string()))
}

/// `YYYYmmdd-HHMMSS.micros` in the local zone.
fn stamp() -> String {
    jiff::Zoned::now().strftime("%Y%m%d-%H%M%S.%6f").to_string()
}

async fn shown(app: &App, id: &str, spec: bool) -> Answer<Task> {
    let info = app.handle.task(id).await?;
    Ok(whole(app, &info, spec).await)
}

async fn whole(app: &App, info: &TaskInfo, spec: bool) -> Task {
    let stats = app.handle.task_stats(info).await;
    let root = app.handle.tasks_root();
    view::task(info, &root.path().to_string_lossy(), spec, &stats)
}

/// Parameters of a task.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TaskQuery {
    /// With its definition.
    #[serde(default)]
    spec: bool,
    /// With what its working directory takes on the disk.
    #[serde(default)]
    disk: bool,
}

/// A task, active or finished.
#[utoipa::path(get, path = "/v1/tasks/{id}", tag = "tasks", params(("id" = String, Path), TaskQuery),
    responses((status = 200, body = AnyTask), (status = "default", body = ErrorBody)))]
pub async fn show(
    State(app): State<Shared>,
    Path(id): Path<String>,
    Query(query): Query<TaskQuery>,
) -> Answer<Json<AnyTask>> {
    if let Some(number) = queued(&app, &id) {
        let found = app.handle.queue_task(number).await?;
        return Ok(Json(AnyTask::Queued(Box::new(crate::view_queue::task(
            &found.row,
            &found.attempts,
        )))));
    }
    let info = app.handle.task(&id).await?;
    let mut task = whole(&app, &info, query.spec).await;
    if query.disk {
        task.disk_bytes = app.handle.task_disk(&info).await;
    }
    Ok(Json(AnyTask::Steps(Box::new(task))))
}

/// A step of a task: its state, its runs, what they use.
#[utoipa::path(get, path = "/v1/tasks/{id}/steps/{step}", tag = "tasks",
    params(("id" = String, Path), ("step" = String, Path)),
    responses((status = 200, body = TaskStep), (status = "default", body = ErrorBody)))]
pub async fn step(
    State(app): State<Shared>,
    Path((id, step)): Path<(String, String)>,
) -> Answer<Json<TaskStep>> {
    let info = app.handle.task(&id).await?;
    let task = whole(&app, &info, false).await;
    let found = task.steps.into_iter().find(|one| one.name == step);
    found
        .map(Json)
        .ok_or_else(|| no_step(&info, &step, Code::TaskNotFound))
}

fn no_step(info: &TaskInfo, step: &str, code: Code) -> Refusal {
    let names: Vec<&str> = info.view.steps.iter().take(8).map(|one| &*one.name).collect();
    let message = format!("no step `{}` in task {}", step.escape_debug(), info.id);
    Refusal::new(code, message).hint(format!("its steps: {}", names.join(", ")))
}

/// The number of a queued task; none: it is one of steps. An id of digits may be both; what is on disk under it comes first.
fn queued(app: &App, id: &str) -> Option<i64> {
    let number = id.parse().ok().filter(|number| *number > 0)?;
    app.handle.tasks_root().place(id).is_none().then_some(number)
}

/// Parameters of waiting for a task.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TaskWaitQuery {
    /// How long at most: 30s, at most five minutes.
    wait: Option<String>,
    /// Answer as soon as its revision is another than this.
    since: Option<u64>,
}

/// The task when it is over, when it has changed (`since`), or as it is when the time has passed; of a queued task how it ended.
#[utoipa::path(get, path = "/v1/tasks/{id}/wait", tag = "tasks", params(("id" = String, Path), TaskWaitQuery),
    responses((status = 200, body = AnyOutcome), (status = "default", body = ErrorBody)))]
pub async fn wait(
    State(app): State<Shared>,
    Path(id): Path<String>,
    Query(query): Query<TaskWaitQuery>,
) -> Answer<Json<AnyOutcome>> {
    let within = query::wait(query.wait.as_deref())?.unwrap_or(Duration::from_secs(30));
    if let Some(number) = queued(&app, &id) {
        let outcome = crate::http::queues::outcome(&app, number, within).await?;
        return Ok(Json(AnyOutcome::Queued(Box::new(outcome))));
    }
    let steps = |task| Ok(Json(AnyOutcome::Steps(Box::new(task))));
    let deadline = Instant::now() + within;
    loop {
        let info = app.handle.task(&id).await?;
        let changed = query.since.is_some_and(|since| since != info.revision());
        let left = deadline.saturating_duration_since(Instant::now());
        if info.place == Place::Finished || changed || left.is_zero() {
            return steps(whole(&app, &info, false).await);
        }
        tokio::select! {
            () = app.handle.tasks_changed() => {}
            () = app.closed() => return steps(shown(&app, &id, false).await?),
            () = tokio::time::sleep(left.min(LOOK_EVERY)) => {}
        }
    }
}

/// Asks for the end of a task: in order, with its final steps, unless it is forced.
#[utoipa::path(post, path = "/v1/tasks/{id}/kill", tag = "tasks", params(("id" = String, Path)),
    request_body = TaskKillRequest,
    responses((status = 202, body = Task), (status = "default", body = ErrorBody)))]
pub async fn kill(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
    Json(request): Json<TaskKillRequest>,
) -> Answer<(StatusCode, Json<Task>)> {
    let state = match request.state.as_deref() {
        None | Some("killed") => TaskState::Killed,
        Some("lost") => TaskState::Lost,
        Some(other) => {
            let message = format!("`{}` is no result of a kill", other.escape_debug());
            return Err(Refusal::new(Code::BadValue, message).hint("killed or lost"));
        }
    };
    let kill = TaskKill {
        state,
        grace: request.grace.as_deref().map(query::duration).transpose()?,
        hard: request.force,
    };
    app.handle.task_kill(&id, kill, &access.actor()).await?;
    Ok((StatusCode::ACCEPTED, Json(shown(&app, &id, false).await?)))
}

/// Runs a part of a task that is over again, as a task of its own: what did not succeed, or `from` and all that waits for it.
/// A queued task is run again as it is, under its number.
#[utoipa::path(post, path = "/v1/tasks/{id}/retry", tag = "tasks", params(("id" = String, Path)),
    request_body = TaskRetryRequest,
    responses((status = 201, body = AnyTask), (status = "default", body = ErrorBody)))]
pub async fn retry(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
    Json(request): Json<TaskRetryRequest>,
) -> Answer<(StatusCode, Json<AnyTask>)> {
    if let Some(number) = queued(&app, &id) {
        app.handle.queue_again(number).await?;
        let found = app.handle.queue_task(number).await?;
        let task = crate::view_queue::task(&found.row, &found.attempts);
        return Ok((StatusCode::CREATED, Json(AnyTask::Queued(Box::new(task)))));
    }
    app.handle.refuse_drained()?;
    let again = app
        .handle
        .task_retry(&id, request.from.as_deref(), access.actor())
        .await?;
    let task = shown(&app, &again, false).await?;
    Ok((StatusCode::CREATED, Json(AnyTask::Steps(Box::new(task)))))
}

/// Removes tasks that are over, with checkpoint, output and working directory: by id, by age, by number, by space.
#[utoipa::path(post, path = "/v1/tasks/gc", tag = "tasks", request_body = TaskGcRequest,
    responses((status = 200, body = Vec<TaskGc>), (status = "default", body = ErrorBody)))]
pub async fn gc(State(app): State<Shared>, Json(request): Json<TaskGcRequest>) -> Answer<Json<Vec<TaskGc>>> {
    let what = Collect {
        age: request.age.as_deref().map(query::duration).transpose()?,
        ids: request.ids,
        count: request.count,
        size: request.size_bytes,
        dry_run: request.dry_run,
    };
    let gone = app.handle.tasks_collect(what).await?;
    Ok(Json(gone.iter().map(view::collected).collect()))
}

/// Freezes what runs of a task; nothing new begins.
#[utoipa::path(post, path = "/v1/tasks/{id}/pause", tag = "tasks", params(("id" = String, Path)),
    responses((status = 202, body = Task), (status = "default", body = ErrorBody)))]
pub async fn pause(State(app): State<Shared>, Path(id): Path<String>) -> Answer<(StatusCode, Json<Task>)> {
    app.handle.task_pause(&id, true).await?;
    Ok((StatusCode::ACCEPTED, Json(shown(&app, &id, false).await?)))
}

/// Lets a task go on.
#[utoipa::path(post, path = "/v1/tasks/{id}/resume", tag = "tasks", params(("id" = String, Path)),
    responses((status = 202, body = Task), (status = "default", body = ErrorBody)))]
pub async fn resume(State(app): State<Shared>, Path(id): Path<String>) -> Answer<(StatusCode, Json<Task>)> {
    app.handle.task_pause(&id, false).await?;
    Ok((StatusCode::ACCEPTED, Json(shown(&app, &id, false).await?)))
}

/// Parameters of the output of a step.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TaskLogQuery {
    /// Which run, from 1; none: the newest.
    attempt: Option<u32>,
    /// Offset of the first byte, `start` or `end`.
    from: Option<String>,
}

/// At most a mebibyte of what a run of a step wrote. `gaffer-from` names the offset of the first byte, `gaffer-offset` the
/// one to go on with.
#[utoipa::path(get, path = "/v1/tasks/{id}/steps/{step}/logs/{stream}", tag = "tasks", params(
    ("id" = String, Path), ("step" = String, Path), ("stream" = String, Path, description = "stdout or stderr"),
    TaskLogQuery),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "default", body = ErrorBody)))]
pub async fn log(
    State(app): State<Shared>,
    Path((id, step, stream)): Path<(String, String, String)>,
    Query(query): Query<TaskLogQuery>,
) -> Answer<impl IntoResponse> {
    let info = app.handle.task(&id).await?;
    let from =
        match query.from.as_deref() {
            None | Some("start") => Some(0),
            Some("end") => None,
            Some(text) => Some(text.parse().map_err(|_| {
                Refusal::new(Code::BadValue, format!("`{}` is no offset", text.escape_debug()))
            })?),
        };
    let missing = |message: String| Refusal::new(Code::StreamNotFound, message);
    if !matches!(stream.as_str(), "stdout" | "stderr") {
        return Err(missing("a step has stdout and stderr".to_owned()));
    }
    if !info.view.steps.iter().any(|one| *one.name == *step) {
        return Err(no_step(&info, &step, Code::StreamNotFound));
    }
    let runs = info.history.steps.get(&*step).map_or(0, Vec::len);
    let attempt = query.attempt.map_or(runs, |attempt| attempt as usize);
    let header = info.history.header.as_ref();
    let (Some(header), true) = (header, (1..=runs).contains(&attempt)) else {
        return Err(missing(format!(
            "step {step} of task {id} has {runs} runs, none with the number {attempt}"
        )));
    };
    let attempt = u32::try_from(attempt).unwrap_or(u32::MAX);
    let dir = output::directory(&header.log_dir, &step, attempt);
    let shown = dir.display().to_string();
    let read = tokio::task::spawn_blocking(move || output::read(&dir, &stream, from, PIECE_BYTES)).await;
    let piece = match read {
        Ok(Ok(piece)) => piece,
        Ok(Err(error)) => return Err(Refusal::new(Code::TaskUnusable, format!("{shown}: {error}"))),
        Err(_) => return Err(gaffer::info::Error::ShuttingDown.into()),
    };
    let next = piece.from + piece.bytes.len() as u64;
    let number = |number: u64| HeaderValue::from(number);
    Ok((
        [
            (HeaderName::from_static("gaffer-from"), number(piece.from)),
            (HeaderName::from_static("gaffer-offset"), number(next)),
        ],
        piece.bytes,
    ))
}
