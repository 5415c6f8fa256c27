//! Queues: what waits, what is pushed, who works on it.

use crate::access::Access;
use crate::http::body::{self, Json, Raw};
use crate::http::query::{self, Path, Query};
use crate::http::{Shared, page};
use crate::refusal::{Answer, Refusal};
use crate::{view, view_queue};
use axum::Extension;
use axum::extract::State;
use gaffer::queue::{NewPush, QueueVerb};
use gaffer_api::error::{Code, ErrorBody};
use gaffer_api::types::ScaleRequest;
use gaffer_api::types::queue::{
    ClaimRequest, ClaimedTask, Count, PushBody, PushRequest, PushedTask, Queue, QueueMinute, QueuePause,
    QueueState, QueuedOutcome, QueuedTask, RenewRequest, Renewed, SettleRequest, TaskEdit, TaskFailure,
};
use gaffer_core::name::{JobId, JobName, Name};
use gaffer_core::queue::outcome::Outcome;
use gaffer_core::queue::task::{Failure, TaskState};
use gaffer_core::time::Wall;
use gaffer_queue::rows::Filter;
use hyper::StatusCode;
use serde::Deserialize;
use std::time::Duration;
use utoipa::IntoParams;

/// Tasks that are run again in one go.
const AGAIN: u32 = 1_000;

pub(super) fn id_of(session: &str, queue: &str) -> Answer<JobId> {
    let bad = |error: gaffer_core::name::NameError| Refusal::new(Code::BadName, error.to_string());
    let session = Name::parse(session).map_err(bad)?;
    let queue = Name::parse(queue).map_err(bad)?;
    Ok(JobId::new(session, JobName::parse(queue.as_str()).map_err(bad)?))
}

/// Parameters of a queue.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct QueueQuery {
    /// With its definition.
    #[serde(default)]
    spec: bool,
}

/// All queues of this node, in the order of their names.
#[utoipa::path(get, path = "/v1/queues", tag = "queues",
    responses((status = 200, body = Vec<Queue>), (status = "default", body = ErrorBody)))]
pub async fn list(State(app): State<Shared>) -> Answer<Json<Vec<Queue>>> {
    let all = app.handle.queues().await?;
    Ok(Json(
        all.iter().map(|info| view_queue::queue(info, false)).collect(),
    ))
}

/// One queue.
#[utoipa::path(get, path = "/v1/queues/{session}/{queue}", tag = "queues",
    params(("session" = String, Path), ("queue" = String, Path), QueueQuery),
    responses((status = 200, body = Queue), (status = "default", body = ErrorBody)))]
pub async fn show(
    State(app): State<Shared>,
    Path((session, queue)): Path<(String, String)>,
    Query(query): Query<QueueQuery>,
) -> Answer<Json<Queue>> {
    let info = app.handle.queue(&id_of(&session, &queue)?).await?;
    Ok(Json(view_queue::queue(&info, query.spec)))
}

/// Parameters of statistics.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct QueueStatsQuery {
    /// So far back, `1h` if it is missing.
    #[serde(default)]
    window: Option<String>,
}

/// What a queue did, by minute and kind, oldest first; kept for `keep.stats`. In a store that nodes share, by all of them.
#[utoipa::path(get, path = "/v1/queues/{session}/{queue}/stats", tag = "queues",
    params(("session" = String, Path), ("queue" = String, Path), QueueStatsQuery),
    responses((status = 200, body = Vec<QueueMinute>), (status = "default", body = ErrorBody)))]
pub async fn stats(
    State(app): State<Shared>,
    Path((session, queue)): Path<(String, String)>,
    Query(query): Query<QueueStatsQuery>,
) -> Answer<Json<Vec<QueueMinute>>> {
    let window = query::duration(query.window.as_deref().unwrap_or("1h"))?;
    let since = view::now()
        .0
        .saturating_sub(i64::try_from(window.as_millis()).unwrap_or(i64::MAX));
    // Whole minutes: the one in which the window begins is in it.
    let since = Wall(since.div_euclid(60_000) * 60_000);
    let rows = app.handle.queue_minutes(&id_of(&session, &queue)?, since).await?;
    Ok(Json(rows.into_iter().map(view_queue::minute).collect()))
}

/// Puts one task in, or a list of at most 10,000: all or none. They are in the store when the answer comes.
#[utoipa::path(post, path = "/v1/queues/{session}/{queue}/tasks", tag = "queues",
    params(("session" = String, Path), ("queue" = String, Path)), request_body = PushBody,
    responses((status = 201, body = Vec<PushedTask>), (status = "default", body = ErrorBody)))]
pub async fn push(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path((session, queue)): Path<(String, String)>,
    Raw(body): Raw,
) -> Answer<(StatusCode, Json<Vec<PushedTask>>)> {
    let id = id_of(&session, &queue)?;
    let requests: Vec<PushRequest> = if body.trim_ascii_start().first() == Some(&b'[') {
        body::parse(&body)?
    } else {
        vec![body::parse(&body)?]
    };
    let several = requests.len() > 1;
    let mut pushes = Vec::with_capacity(requests.len());
    for (index, request) in requests.into_iter().enumerate() {
        pushes.push(new_push(request).map_err(|mut refusal| {
            if several {
                refusal.0.message = format!("task {index}: {}", refusal.0.message);
            }
            refusal
        })?);
    }
    let pushed = app.handle.queue_push(&id, &pushes, access.actor()).await?;
    let answer = pushed.iter().map(|one| PushedTask {
        id: one.id,
        duplicate: one.duplicate,
        run_at: one.due.map(view::time),
    });
    Ok((StatusCode::CREATED, Json(answer.collect())))
}

fn new_push(request: PushRequest) -> Answer<NewPush> {
    let at = request.at.as_deref().map(instant).transpose()?;
    let delay = request.delay.as_deref().map(query::duration).transpose()?;
    if at.is_some() && delay.is_some() {
        return Err(
            Refusal::new(Code::BadRequest, "`at` and `in` are two times").hint("leave one of them out")
        );
    }
    Ok(NewPush {
        kind: request.kind,
        payload: request.payload,
        meta: request.meta,
        priority: request.priority.unwrap_or(0),
        at,
        delay,
        unique: request.unique,
        limit_key: request.limit_key,
        timeout: request.timeout.as_deref().map(query::duration).transpose()?,
        attempts: request.attempts,
    })
}

fn instant(text: &str) -> Answer<Wall> {
    match text.parse::<jiff::Timestamp>() {
        Ok(at) => Ok(Wall(at.as_millisecond())),
        Err(_) => Err(
            Refusal::new(Code::BadValue, format!("`{}` is no time", text.escape_debug()))
                .hint("write 2026-11-22T14:00:00Z, or use `in`"),
        ),
    }
}

/// Parameters of a list of tasks.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct QueueTasksQuery {
    /// Only tasks in this state.
    state: Option<String>,
    /// Only tasks of this kind.
    kind: Option<String>,
    /// Pushed since: RFC 3339, or a duration back from now.
    since: Option<String>,
    /// Items of a page: 200, at most 1000.
    limit: Option<usize>,
    /// From the `Link` of the page before.
    cursor: Option<i64>,
}

fn state_of(word: &str) -> Answer<TaskState> {
    TaskState::parse(word).ok_or_else(|| {
        let words: Vec<&str> = TaskState::ALL.into_iter().map(TaskState::word).collect();
        Refusal::new(
            Code::BadValue,
            format!("`{}` is no state of a task", word.escape_debug()),
        )
        .hint(words.join(" "))
    })
}

/// Tasks of a queue, newest first.
#[utoipa::path(get, path = "/v1/queues/{session}/{queue}/tasks", tag = "queues",
    params(("session" = String, Path), ("queue" = String, Path), QueueTasksQuery),
    responses((status = 200, body = Vec<QueuedTask>), (status = "default", body = ErrorBody)))]
pub async fn tasks(
    State(app): State<Shared>,
    Path((session, queue)): Path<(String, String)>,
    Query(query): Query<QueueTasksQuery>,
) -> Answer<(hyper::HeaderMap, Json<Vec<QueuedTask>>)> {
    let id = id_of(&session, &queue)?;
    app.handle.queue(&id).await?;
    let limit = page::limit(query.limit, page::USUAL)?;
    let since = query
        .since
        .as_deref()
        .map(|text| query::moment(text, view::now().0))
        .transpose()?;
    let filter = Filter {
        queue: None,
        state: query.state.as_deref().map(state_of).transpose()?,
        kind: query.kind.clone(),
        since: since.map(Wall),
        before: query.cursor,
        limit: u32::try_from(limit + 1).unwrap_or(u32::MAX),
    };
    let mut rows = app.handle.queue_tasks(&id, filter).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| row.id.to_string());
    let parameters = [
        ("state", query.state),
        ("kind", query.kind),
        ("since", query.since),
        ("limit", query.limit.map(|limit| limit.to_string())),
    ];
    let path = format!("/v1/queues/{session}/{queue}/tasks");
    let tasks = rows.iter().map(|row| view_queue::task(row, &[])).collect();
    Ok((page::link(&path, &parameters, next), Json(tasks)))
}

/// Nothing is claimed any more, also after a restart of the daemon; with `running` workers are frozen.
#[utoipa::path(post, path = "/v1/queues/{session}/{queue}/pause", tag = "queues",
    params(("session" = String, Path), ("queue" = String, Path)), request_body = QueuePause,
    responses((status = 200, body = Queue), (status = "default", body = ErrorBody)))]
pub async fn pause(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path((session, queue)): Path<(String, String)>,
    Json(pause): Json<QueuePause>,
) -> Answer<Json<Queue>> {
    let verb = QueueVerb::Pause {
        running: pause.running,
    };
    set(&app, &access, &session, &queue, verb).await
}

/// Changes the number of workers on this node, also over a restart; `auto` goes back to what the file says. What runs goes on.
#[utoipa::path(post, path = "/v1/queues/{session}/{queue}/scale", tag = "queues",
    params(("session" = String, Path), ("queue" = String, Path)), request_body = ScaleRequest,
    responses((status = 200, body = Queue), (status = "default", body = ErrorBody)))]
pub async fn scale(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path((session, queue)): Path<(String, String)>,
    Json(request): Json<ScaleRequest>,
) -> Answer<Json<Queue>> {
    let id = id_of(&session, &queue)?;
    let to = super::jobs::scale_to(&request.to)?;
    app.handle.queue_scale(&id, to, access.actor()).await?;
    Ok(Json(view_queue::queue(&app.handle.queue(&id).await?, false)))
}

/// `resume`: claims go on. `close`: pushes are refused, what is there is worked off. `open`: pushes are taken again.
#[utoipa::path(post, path = "/v1/queues/{session}/{queue}/{verb}", tag = "queues",
    params(("session" = String, Path), ("queue" = String, Path), ("verb" = String, Path, description = "resume, close or open")),
    responses((status = 200, body = Queue), (status = "default", body = ErrorBody)))]
pub async fn act(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path((session, queue, verb)): Path<(String, String, String)>,
) -> Answer<Json<Queue>> {
    let verb = match verb.as_str() {
        "resume" => QueueVerb::Resume,
        "close" => QueueVerb::Close,
        "open" => QueueVerb::Open,
        other => {
            let message = format!("a queue has no verb `{}`", other.escape_debug());
            return Err(Refusal::new(Code::RouteNotFound, message)
                .hint("pause, resume, close, open, scale, purge, retry, claim"));
        }
    };
    set(&app, &access, &session, &queue, verb).await
}

async fn set(
    app: &Shared,
    access: &Access,
    session: &str,
    queue: &str,
    verb: QueueVerb,
) -> Answer<Json<Queue>> {
    let id = id_of(session, queue)?;
    app.handle.queue_set(&id, verb, access.actor()).await?;
    let mut info = app.handle.queue(&id).await?;
    // The machine hears of it a moment later.
    info.mode.paused = match verb {
        QueueVerb::Pause { .. } => true,
        QueueVerb::Resume => false,
        _ => info.mode.paused,
    };
    info.mode.closed = match verb {
        QueueVerb::Close => true,
        QueueVerb::Open => false,
        _ => info.mode.closed,
    };
    info.mode.by = access.actor().to_string();
    Ok(Json(view_queue::queue(&info, false)))
}

/// Removes all tasks of a state.
#[utoipa::path(post, path = "/v1/queues/{session}/{queue}/purge", tag = "queues",
    params(("session" = String, Path), ("queue" = String, Path)), request_body = QueueState,
    responses((status = 200, body = Count), (status = "default", body = ErrorBody)))]
pub async fn purge(
    State(app): State<Shared>,
    Path((session, queue)): Path<(String, String)>,
    Json(which): Json<QueueState>,
) -> Answer<Json<Count>> {
    let count = app
        .handle
        .queue_purge(&id_of(&session, &queue)?, state_of(&which.state)?)
        .await?;
    Ok(Json(Count { count }))
}

/// Has all tasks of a final state run again, as if they had never been tried.
#[utoipa::path(post, path = "/v1/queues/{session}/{queue}/retry", tag = "queues",
    params(("session" = String, Path), ("queue" = String, Path)), request_body = QueueState,
    responses((status = 200, body = Count), (status = "default", body = ErrorBody)))]
pub async fn retry(
    State(app): State<Shared>,
    Path((session, queue)): Path<(String, String)>,
    Json(which): Json<QueueState>,
) -> Answer<Json<Count>> {
    let id = id_of(&session, &queue)?;
    let state = state_of(&which.state)?;
    if !state.is_final() {
        return Err(Refusal::new(
            Code::BadValue,
            format!("tasks that are {} need no retry", state.word()),
        )
        .hint("done dead cancelled lost"));
    }
    app.handle.queue(&id).await?;
    let mut count = 0;
    let mut before = None;
    loop {
        let filter = Filter {
            state: Some(state),
            before,
            limit: AGAIN,
            ..Filter::default()
        };
        let rows = app.handle.queue_tasks(&id, filter).await?;
        let Some(last) = rows.last() else {
            return Ok(Json(Count { count }));
        };
        before = Some(last.id);
        for row in &rows {
            app.handle.queue_again(row.id).await?;
            count += 1;
        }
    }
}

/// Takes tasks for a worker that is not one of the daemon's: they are its own until it settles them, or its lease ends.
#[utoipa::path(post, path = "/v1/queues/{session}/{queue}/claim", tag = "queues",
    params(("session" = String, Path), ("queue" = String, Path)), request_body = ClaimRequest,
    responses((status = 200, body = Vec<ClaimedTask>), (status = "default", body = ErrorBody)))]
pub async fn claim(
    State(app): State<Shared>,
    Path((session, queue)): Path<(String, String)>,
    Json(request): Json<ClaimRequest>,
) -> Answer<Json<Vec<ClaimedTask>>> {
    let id = id_of(&session, &queue)?;
    app.handle.refuse_drained()?;
    let within = query::wait(request.wait.as_deref())?.unwrap_or_default();
    let count = request.count.unwrap_or(1);
    let asking = app.handle.queue_claim(&id, &request.worker, count, within);
    let (rows, lease) = tokio::select! {
        answer = asking => answer?,
        () = app.closed() => (Vec::new(), Duration::ZERO),
    };
    Ok(Json(
        rows.iter().map(|row| view_queue::claimed(row, lease)).collect(),
    ))
}

fn number(id: &str) -> Answer<i64> {
    id.parse().map_err(|_| {
        Refusal::new(
            Code::BadName,
            format!("`{}` is not the number of a queued task", id.escape_debug()),
        )
    })
}

async fn shown(app: &Shared, id: i64) -> Answer<Json<QueuedTask>> {
    let found = app.handle.queue_task(id).await?;
    Ok(Json(view_queue::task(&found.row, &found.attempts)))
}

/// How a task ended; its state if the time is over first.
pub async fn outcome(app: &Shared, id: i64, within: Duration) -> Answer<QueuedOutcome> {
    let ended = tokio::select! {
        ended = app.handle.queue_wait(id, within) => ended?,
        () = app.closed() => None,
    };
    match ended {
        Some(outcome) => Ok(view_queue::outcome(id, &outcome)),
        None => {
            let found = app.handle.queue_task(id).await?;
            Ok(QueuedOutcome {
                id,
                state: found.row.state.word().to_owned(),
                result: None,
                error: None,
            })
        }
    }
}

/// Withdraws a queued task. One that runs is asked to end; it is `cancelled` when nothing of its worker is left.
#[utoipa::path(post, path = "/v1/tasks/{id}/cancel", tag = "queues", params(("id" = String, Path)),
    responses((status = 202, body = QueuedTask), (status = "default", body = ErrorBody)))]
pub async fn task_cancel(
    State(app): State<Shared>,
    Path(id): Path<String>,
) -> Answer<(StatusCode, Json<QueuedTask>)> {
    let id = number(&id)?;
    app.handle.queue_cancel(id).await?;
    Ok((StatusCode::ACCEPTED, shown(&app, id).await?))
}

/// Gives a queued task another payload. One that is over stays as it is: a new one with that payload takes its place.
#[utoipa::path(post, path = "/v1/tasks/{id}/edit", tag = "queues", params(("id" = String, Path)), request_body = TaskEdit,
    responses((status = 200, body = QueuedTask), (status = "default", body = ErrorBody)))]
pub async fn task_edit(
    State(app): State<Shared>,
    Path(id): Path<String>,
    Json(edit): Json<TaskEdit>,
) -> Answer<Json<QueuedTask>> {
    let id = app.handle.queue_edit(number(&id)?, &edit.payload).await?;
    shown(&app, id).await
}

/// Removes a queued task that does not run.
#[utoipa::path(delete, path = "/v1/tasks/{id}", tag = "queues", params(("id" = String, Path)),
    responses((status = 200, body = QueuedTask), (status = "default", body = ErrorBody)))]
pub async fn task_remove(State(app): State<Shared>, Path(id): Path<String>) -> Answer<Json<QueuedTask>> {
    let id = number(&id)?;
    let gone = shown(&app, id).await?;
    app.handle.queue_remove(id).await?;
    Ok(gone)
}

/// Extends the lease of a claimed task.
#[utoipa::path(post, path = "/v1/tasks/{id}/renew", tag = "queues", params(("id" = String, Path)),
    request_body = RenewRequest, responses((status = 200, body = Renewed), (status = "default", body = ErrorBody)))]
pub async fn task_renew(
    State(app): State<Shared>,
    Path(id): Path<String>,
    Json(request): Json<RenewRequest>,
) -> Answer<Json<Renewed>> {
    let lease = app.handle.queue_renew(number(&id)?, request.token).await?;
    Ok(Json(Renewed {
        lease_ms: u64::try_from(lease.length.as_millis()).unwrap_or(u64::MAX),
        cancel_asked: lease.cancelled,
    }))
}

/// Says how an attempt of a claimed task went.
#[utoipa::path(post, path = "/v1/tasks/{id}/settle", tag = "queues", params(("id" = String, Path)),
    request_body = SettleRequest, responses((status = 200, body = QueuedTask), (status = "default", body = ErrorBody)))]
pub async fn task_settle(
    State(app): State<Shared>,
    Path(id): Path<String>,
    Json(request): Json<SettleRequest>,
) -> Answer<Json<QueuedTask>> {
    let id = number(&id)?;
    let token = request.token;
    app.handle.queue_settle(id, token, outcome_of(request)?).await?;
    shown(&app, id).await
}

fn outcome_of(request: SettleRequest) -> Answer<Outcome> {
    let after = request.after.as_deref().map(query::duration).transpose()?;
    let failure = || {
        let error = request.error.clone().unwrap_or_else(|| TaskFailure {
            kind: "failed".to_owned(),
            message: "its worker says so".to_owned(),
            output: String::new(),
        });
        Failure {
            kind: error.kind.into(),
            message: error.message.into(),
            output: error.output.into(),
        }
    };
    Ok(match request.outcome.as_str() {
        "done" => Outcome::Done(request.result.as_ref().map(|result| result.to_string().into())),
        "fail" => match after {
            Some(after) => Outcome::RetryAfter(failure(), after),
            None => Outcome::Failed(failure()),
        },
        "fatal" => Outcome::Fatal(failure()),
        "snooze" => Outcome::Snooze(after.unwrap_or(Duration::from_secs(2))),
        "cancelled" => Outcome::Cancelled,
        "release" => Outcome::NotHanded,
        other => {
            let message = format!("`{}` is no outcome", other.escape_debug());
            return Err(
                Refusal::new(Code::BadValue, message).hint("done fail fatal snooze cancelled release")
            );
        }
    })
}
