//! Jobs and their instances.

use crate::access::Access;
use crate::http::Shared;
use crate::http::body::Json;
use crate::http::operations::{Outcome, WaitQuery, outcome};
use crate::http::page::{self, Labels};
use crate::http::query::{Path, Query};
use crate::http::runs::with_last_lines;
use crate::names;
use crate::refusal::{Answer, Refusal};
use crate::view;
use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use gaffer::info::{Act, How, JobInfo, OneOff, PutOptions, ScaleTo, Target};
use gaffer_api::error::{Code, ErrorBody};
use gaffer_api::types::{
    ActionRequest, Instance, Job, JobsRequest, Operation, Run, RunRequest, ScaleRequest, Session,
    SignalRequest,
};
use gaffer_core::job::{ReloadHow, Scope};
use gaffer_core::name::{JobId, Place};
use gaffer_core::time::Duration;
use hyper::header::{ETAG, HeaderMap, IF_MATCH, IF_NONE_MATCH};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

const _: () = assert!(gaffer::TARGETS_MAX == gaffer_api::types::JOBS_MAX);

/// How long the answer to `run` waits for the run to have an id.
const RUN_ID_WAIT: Duration = Duration::from_secs(10);

/// Parameters of the list of jobs.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only this session.
    session: Option<String>,
    /// Only jobs in this state, or with an instance in it.
    state: Option<String>,
    /// Only jobs with this label, `zone=eu`: of `meta`, or of the node. Several with commas.
    label: Option<String>,
    /// Sample the live runs.
    #[serde(default)]
    stats: bool,
    /// Items of a page: 200, at most 1000.
    limit: Option<usize>,
    /// From the `Link` of the page before.
    cursor: Option<String>,
}

/// Parameters of the list of sessions.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SessionsQuery {
    /// Count only jobs with this label, `zone=eu`: of `meta`, or of the node. Several with commas.
    label: Option<String>,
    /// Items of a page: 200, at most 1000.
    limit: Option<usize>,
    /// From the `Link` of the page before.
    cursor: Option<String>,
}

/// All sessions that have jobs.
#[utoipa::path(get, path = "/v1/sessions", tag = "jobs", params(SessionsQuery),
    responses((status = 200, body = Vec<Session>, description = "the next page is in `Link`"), (status = "default", body = ErrorBody)))]
pub async fn sessions(State(app): State<Shared>, Query(query): Query<SessionsQuery>) -> Answer<Response> {
    let limit = page::limit(query.limit, page::USUAL)?;
    let labels = Labels::parse(query.label.as_deref())?;
    let node = app.labels();
    let mut sessions: BTreeMap<String, Session> = BTreeMap::new();
    for job in app.handle.jobs(None) {
        if !labels.are_of(&job.spec.meta, &node) {
            continue;
        }
        let name = job.view.job.session.as_str();
        let session = sessions.entry(name.to_owned()).or_default();
        session.session = name.to_owned();
        session.jobs += 1;
        session.instances += job.view.target;
        session.running += running(&job);
    }
    let summed = |mut session: Session| {
        let jobs = if session.jobs == 1 {
            "1 job".to_owned()
        } else {
            format!("{} jobs", session.jobs)
        };
        session.summary = format!(
            "{jobs}, {} of {} instances running",
            session.running, session.instances
        );
        session
    };
    let mut page: Vec<Session> = sessions.into_values().map(summed).collect();
    let next = page::cut(
        &mut page,
        |one| one.session.clone(),
        limit,
        query.cursor.as_deref(),
    );
    let parameters = [("label", query.label), ("limit", Some(limit.to_string()))];
    Ok((page::link("/v1/sessions", &parameters, next), Json(page)).into_response())
}

fn running(job: &JobInfo) -> u32 {
    let is_running = |view: &&gaffer_core::io::InstanceView| {
        view.state == gaffer_core::io::State::Running && matches!(view.slot.place, Place::Instance { .. })
    };
    u32::try_from(job.view.instances.iter().filter(is_running).count()).unwrap_or(u32::MAX)
}

/// Jobs in the order of their names.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", params(ListQuery),
    responses((status = 200, body = Vec<Job>, description = "the next page is in `Link`"), (status = "default", body = ErrorBody)))]
pub async fn list(State(app): State<Shared>, Query(query): Query<ListQuery>) -> Answer<Response> {
    if let Some(session) = &query.session {
        names::session(session)?;
    }
    let limit = page::limit(query.limit, page::USUAL)?;
    let labels = Labels::parse(query.label.as_deref())?;
    let (now, node) = (view::now(), app.labels());
    let mut page: Vec<JobInfo> = app.handle.jobs(query.session.as_deref());
    page.retain(|job| {
        let in_state = query.state.as_ref().is_none_or(|state| is_in_state(job, state));
        in_state && labels.are_of(&job.spec.meta, &node)
    });
    let next = page::cut(
        &mut page,
        |job| job.view.job.to_string(),
        limit,
        query.cursor.as_deref(),
    );
    let mut jobs: Vec<Job> = page.iter().map(|job| view::job(&app.handle, job, now)).collect();
    if query.stats {
        for (job, info) in jobs.iter_mut().zip(&page) {
            add_stats(&app, job, info).await;
        }
    }
    let parameters = [
        ("session", query.session),
        ("state", query.state),
        ("label", query.label),
        ("stats", query.stats.then(|| "true".to_owned())),
        ("limit", Some(limit.to_string())),
    ];
    Ok((page::link("/v1/jobs", &parameters, next), Json(jobs)).into_response())
}

fn is_in_state(job: &JobInfo, wanted: &str) -> bool {
    view::state(job.view.state) == wanted
        || job
            .view
            .instances
            .iter()
            .any(|one| view::state(one.state) == wanted)
}

/// Samples every live run of a job; one that ended meanwhile has none.
async fn add_stats(app: &Shared, job: &mut Job, info: &JobInfo) {
    for view in info.view.instances.iter().filter(|view| view.pid.is_some()) {
        let Some(run) = view.run else { continue };
        let Ok(sample) = app.handle.run_stats(run).await else {
            continue;
        };
        let id = run.to_string();
        let shown = job
            .instances
            .iter_mut()
            .chain(&mut job.one_offs)
            .find(|one| one.run.as_deref() == Some(&id));
        if let Some(shown) = shown {
            shown.stats = Some(view::stats(&sample, false));
        }
    }
}

/// Parameters of one job.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ShowQuery {
    /// With the definition as in the file.
    #[serde(default)]
    spec: bool,
    /// Sample the live runs.
    #[serde(default)]
    stats: bool,
}

/// One job. `ETag` is its revision.
#[utoipa::path(get, path = "/v1/jobs/{session}/{job}", tag = "jobs", params(
    ("session" = String, Path), ("job" = String, Path), ShowQuery),
    responses((status = 200, body = Job), (status = "default", body = ErrorBody)))]
pub async fn show(
    State(app): State<Shared>,
    Path((session, job)): Path<(String, String)>,
    Query(query): Query<ShowQuery>,
) -> Answer<Response> {
    let id = names::job(&session, &job)?;
    let info = find(&app, &id)?;
    let mut shown = view::job(&app.handle, &info, view::now());
    if query.spec {
        shown.spec = Some(app.handle.job_typed(&id).await?);
    }
    if query.stats {
        add_stats(&app, &mut shown, &info).await;
    }
    Ok(([(ETAG, format!("\"{}\"", info.revision))], Json(shown)).into_response())
}

/// The job, or the refusal with a similar name.
pub fn find(app: &Shared, id: &JobId) -> Answer<JobInfo> {
    app.handle.job(id).ok_or_else(|| app.handle.no_job(id).into())
}

/// Parameters of a definition.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PutQuery {
    /// How long the answer may wait for the outcome: `30s`, at most five minutes.
    wait: Option<String>,
    /// Replace also a definition that came from a file.
    #[serde(default)]
    over_file: bool,
}

/// Adds a job or replaces its definition, written as in the file. `If-Match` names the revision that is
/// replaced; `If-None-Match: *` only adds.
#[utoipa::path(put, path = "/v1/jobs/{session}/{job}", tag = "jobs", params(
    ("session" = String, Path), ("job" = String, Path), PutQuery), request_body = Object,
    responses((status = 200, body = Operation), (status = 202, body = Operation), (status = "default", body = ErrorBody)))]
pub async fn put(
    State(app): State<Shared>,
    Path((session, job)): Path<(String, String)>,
    Query(query): Query<PutQuery>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
    Json(typed): Json<Value>,
) -> Answer<Outcome> {
    let id = names::job(&session, &job)?;
    let loaded = app.handle.load_job(&id, &typed)?;
    let options = PutOptions {
        if_revision: wanted_revision(&headers)?,
        over_file: query.over_file,
    };
    let operation = app.handle.job_put(id, loaded, options, access.actor()).await?;
    outcome(&app, operation, &WaitQuery { wait: query.wait }).await
}

fn wanted_revision(headers: &HeaderMap) -> Answer<Option<u64>> {
    if headers.get(IF_NONE_MATCH).is_some_and(|value| value == "*") {
        return Ok(Some(0));
    }
    let Some(value) = headers.get(IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim_matches('"');
    let wrong =
        || Refusal::new(Code::BadValue, "If-Match is not a revision").hint("give the ETag of the job back");
    text.parse().map(Some).map_err(|_| wrong())
}

/// Stops a job and forgets it.
#[utoipa::path(delete, path = "/v1/jobs/{session}/{job}", tag = "jobs", params(
    ("session" = String, Path), ("job" = String, Path), WaitQuery),
    responses((status = 200, body = Operation), (status = 202, body = Operation), (status = "default", body = ErrorBody)))]
pub async fn remove(
    State(app): State<Shared>,
    Path((session, job)): Path<(String, String)>,
    Query(wait): Query<WaitQuery>,
    Extension(access): Extension<Access>,
) -> Answer<Outcome> {
    let id = names::job(&session, &job)?;
    find(&app, &id)?;
    let operation = app.handle.job_remove(id, access.actor()).await?;
    outcome(&app, operation, &wait).await
}

/// What can be asked of a job or an instance with an [`ActionRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Wish it up.
    Start,
    /// Wish it down.
    Stop,
    /// New runs for all.
    Restart,
    /// Roll out.
    Reload,
    /// Freeze.
    Pause,
    /// Thaw.
    Resume,
}

fn act_of(verb: Verb, request: &ActionRequest) -> Answer<Act> {
    let stops = matches!(verb, Verb::Stop | Verb::Restart);
    if !stops && (request.grace_ms.is_some() || request.force) {
        return Err(Refusal::new(
            Code::BadRequest,
            "grace_ms and force belong to stop and restart",
        ));
    }
    if verb != Verb::Reload && request.how.is_some() {
        return Err(Refusal::new(Code::BadRequest, "how belongs to reload"));
    }
    let how = How {
        grace: request.grace_ms.map(Duration::from_millis),
        force: request.force,
    };
    Ok(match verb {
        Verb::Start => Act::Start,
        Verb::Stop => Act::Stop(how),
        Verb::Restart => Act::Restart(how),
        Verb::Reload => Act::Reload(request.how.as_deref().map(reload_how).transpose()?),
        Verb::Pause => Act::Pause,
        Verb::Resume => Act::Resume,
    })
}

fn reload_how(text: &str) -> Answer<ReloadHow> {
    match text {
        "surge" => Ok(ReloadHow::Surge),
        "rolling" => Ok(ReloadHow::Rolling),
        "restart" => Ok(ReloadHow::Restart),
        "signal" => Ok(ReloadHow::Signal),
        other => Err(Refusal::new(
            Code::BadValue,
            format!("`{}` is no way to reload", other.escape_debug()),
        )
        .hint("surge, rolling, restart or signal")),
    }
}

/// Which processes get a signal.
pub fn scope(text: Option<&str>) -> Answer<Option<Scope>> {
    Ok(Some(match text {
        None => return Ok(None),
        Some("main") => Scope::Main,
        Some("children") => Scope::Children,
        Some("group") => Scope::Group,
        Some("all") => Scope::All,
        Some(other) => {
            let message = format!("`{}` is nobody that could get a signal", other.escape_debug());
            return Err(Refusal::new(Code::BadValue, message).hint("main, children, group or all"));
        }
    }))
}

/// The number of a signal.
pub fn signal_number(text: &str) -> Answer<i32> {
    gaffer_core::signal::parse(text).ok_or_else(|| {
        Refusal::new(Code::BadValue, format!("`{}` is no signal", text.escape_debug()))
            .hint("HUP, SIGHUP or 1")
    })
}

fn signal_act(signal: &str, to: Option<&str>) -> Answer<Act> {
    Ok(Act::Signal {
        signal: signal_number(signal)?,
        to: scope(to)?,
    })
}

async fn ask(app: &Shared, target: Target, act: Act, access: &Access, wait: &WaitQuery) -> Answer<Outcome> {
    find(app, &target.job)?;
    let operation = app.handle.act(target, act, access.actor()).await?;
    outcome(app, operation, wait).await
}

/// `start stop restart reload pause resume scale signal remove` of many jobs and instances, with the options that the
/// verb has for one. All are tried: what is refused is an outcome of the operation, beside those of the others. A name that
/// breaks the grammar refuses the request.
#[utoipa::path(post, path = "/v1/jobs/{verb}", tag = "jobs", params(("verb" = String, Path), WaitQuery), request_body = JobsRequest,
    responses((status = 200, body = Operation), (status = 202, body = Operation), (status = "default", body = ErrorBody)))]
pub async fn act_each(
    State(app): State<Shared>,
    Path(verb): Path<String>,
    Query(wait): Query<WaitQuery>,
    Extension(access): Extension<Access>,
    Json(request): Json<JobsRequest>,
) -> Answer<Outcome> {
    let act = act_of_each(&verb, &request)?;
    let targets = request.jobs.iter().map(|name| names::full(name));
    let targets = targets.collect::<Answer<Vec<Target>>>()?;
    let operation = app.handle.act_each(targets, act, access.actor()).await?;
    outcome(&app, operation, &wait).await
}

fn act_of_each(verb: &str, request: &JobsRequest) -> Answer<Act> {
    let JobsRequest {
        grace_ms,
        force,
        how,
        to,
        signal,
        ..
    } = request;
    let stray = match verb {
        "scale" => grace_ms.is_some() || how.is_some() || signal.is_some(),
        "signal" => grace_ms.is_some() || how.is_some() || *force,
        _ => {
            to.is_some()
                || signal.is_some()
                || (verb == "remove" && (*force || grace_ms.is_some() || how.is_some()))
        }
    };
    if stray {
        return Err(Refusal::new(
            Code::BadRequest,
            "grace_ms belongs to stop and restart, force to these and scale, how to reload, signal to signal, \
             to to scale and signal",
        ));
    }
    let needs = |field| Refusal::new(Code::BadRequest, format!("{verb} needs `{field}`"));
    match verb {
        "scale" => Ok(Act::Scale {
            to: scale_to(to.as_deref().ok_or_else(|| needs("to"))?)?,
            force: *force,
        }),
        "signal" => signal_act(signal.as_deref().ok_or_else(|| needs("signal"))?, to.as_deref()),
        "remove" => Ok(Act::Remove),
        _ => act_of(
            verb_of(verb)?,
            &ActionRequest {
                grace_ms: *grace_ms,
                force: *force,
                how: how.clone(),
            },
        ),
    }
}

/// `start stop restart reload pause resume` of a job.
#[utoipa::path(post, path = "/v1/jobs/{session}/{job}/{verb}", tag = "jobs", params(
    ("session" = String, Path), ("job" = String, Path), ("verb" = Verb, Path), WaitQuery), request_body = ActionRequest,
    responses((status = 200, body = Operation), (status = 202, body = Operation), (status = "default", body = ErrorBody)))]
pub async fn act(
    State(app): State<Shared>,
    Path((session, job, verb)): Path<(String, String, String)>,
    Query(wait): Query<WaitQuery>,
    Extension(access): Extension<Access>,
    Json(request): Json<ActionRequest>,
) -> Answer<Outcome> {
    let act = act_of(verb_of(&verb)?, &request)?;
    ask(&app, names::target(&session, &job, None)?, act, &access, &wait).await
}

/// The same of one instance.
#[utoipa::path(post, path = "/v1/jobs/{session}/{job}/instances/{instance}/{verb}", tag = "jobs", params(
    ("session" = String, Path), ("job" = String, Path), ("instance" = u32, Path), ("verb" = Verb, Path), WaitQuery),
    request_body = ActionRequest,
    responses((status = 200, body = Operation), (status = 202, body = Operation), (status = "default", body = ErrorBody)))]
pub async fn act_instance(
    State(app): State<Shared>,
    Path((session, job, instance, verb)): Path<(String, String, u32, String)>,
    Query(wait): Query<WaitQuery>,
    Extension(access): Extension<Access>,
    Json(request): Json<ActionRequest>,
) -> Answer<Outcome> {
    let act = act_of(verb_of(&verb)?, &request)?;
    ask(
        &app,
        names::target(&session, &job, Some(instance))?,
        act,
        &access,
        &wait,
    )
    .await
}

fn verb_of(text: &str) -> Answer<Verb> {
    Ok(match text {
        "start" => Verb::Start,
        "stop" => Verb::Stop,
        "restart" => Verb::Restart,
        "reload" => Verb::Reload,
        "pause" => Verb::Pause,
        "resume" => Verb::Resume,
        other => {
            let message = format!("a job has no verb `{}`", other.escape_debug());
            return Err(Refusal::new(Code::RouteNotFound, message)
                .hint("start, stop, restart, reload, scale, signal, pause, resume, run"));
        }
    })
}

/// Changes the number of instances.
#[utoipa::path(post, path = "/v1/jobs/{session}/{job}/scale", tag = "jobs", params(
    ("session" = String, Path), ("job" = String, Path), WaitQuery), request_body = ScaleRequest,
    responses((status = 200, body = Operation), (status = 202, body = Operation), (status = "default", body = ErrorBody)))]
pub async fn scale(
    State(app): State<Shared>,
    Path((session, job)): Path<(String, String)>,
    Query(wait): Query<WaitQuery>,
    Extension(access): Extension<Access>,
    Json(request): Json<ScaleRequest>,
) -> Answer<Outcome> {
    let act = Act::Scale {
        to: scale_to(&request.to)?,
        force: request.force,
    };
    ask(&app, names::target(&session, &job, None)?, act, &access, &wait).await
}

pub(super) fn scale_to(text: &str) -> Answer<ScaleTo> {
    let number = |digits: &str| {
        digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| digits.parse::<u32>().ok())
            .flatten()
    };
    let to = match text.as_bytes().first() {
        _ if text == "auto" => Some(ScaleTo::Auto),
        Some(b'+') => number(&text[1..]).map(ScaleTo::Add),
        Some(b'-') => number(&text[1..]).map(ScaleTo::Sub),
        Some(b'=') => number(&text[1..]).map(ScaleTo::Set),
        _ => number(text).map(ScaleTo::Set),
    };
    to.ok_or_else(|| {
        Refusal::new(
            Code::BadValue,
            format!("`{}` is no number of instances", text.escape_debug()),
        )
        .hint("3 or =3, +2, -1, or auto for what the definition says")
    })
}

/// Sends a signal to every live run of a job.
#[utoipa::path(post, path = "/v1/jobs/{session}/{job}/signal", tag = "jobs", params(
    ("session" = String, Path), ("job" = String, Path), WaitQuery), request_body = SignalRequest,
    responses((status = 200, body = Operation), (status = 202, body = Operation), (status = "default", body = ErrorBody)))]
pub async fn signal(
    State(app): State<Shared>,
    Path((session, job)): Path<(String, String)>,
    Query(wait): Query<WaitQuery>,
    Extension(access): Extension<Access>,
    Json(request): Json<SignalRequest>,
) -> Answer<Outcome> {
    let act = signal_act(&request.signal, request.to.as_deref())?;
    ask(&app, names::target(&session, &job, None)?, act, &access, &wait).await
}

/// Sends a signal to the run of an instance.
#[utoipa::path(post, path = "/v1/jobs/{session}/{job}/instances/{instance}/signal", tag = "jobs", params(
    ("session" = String, Path), ("job" = String, Path), ("instance" = u32, Path), WaitQuery), request_body = SignalRequest,
    responses((status = 200, body = Operation), (status = 202, body = Operation), (status = "default", body = ErrorBody)))]
pub async fn signal_instance(
    State(app): State<Shared>,
    Path((session, job, instance)): Path<(String, String, u32)>,
    Query(wait): Query<WaitQuery>,
    Extension(access): Extension<Access>,
    Json(request): Json<SignalRequest>,
) -> Answer<Outcome> {
    let act = signal_act(&request.signal, request.to.as_deref())?;
    ask(
        &app,
        names::target(&session, &job, Some(instance))?,
        act,
        &access,
        &wait,
    )
    .await
}

/// Starts a one-off of a job. The operation ends with it; `data.run` names its run.
#[utoipa::path(post, path = "/v1/jobs/{session}/{job}/run", tag = "jobs", params(
    ("session" = String, Path), ("job" = String, Path), WaitQuery), request_body = RunRequest,
    responses((status = 200, body = Operation), (status = 202, body = Operation), (status = "default", body = ErrorBody)))]
pub async fn run(
    State(app): State<Shared>,
    Path((session, job)): Path<(String, String)>,
    Query(wait): Query<WaitQuery>,
    Extension(access): Extension<Access>,
    Json(request): Json<RunRequest>,
) -> Answer<Outcome> {
    let id = names::job(&session, &job)?;
    find(&app, &id)?;
    let one_off = OneOff {
        pty_size: pty_size(&request)?,
        grace: request.grace_ms.map(Duration::from_millis),
        env: request.env.into_iter().collect(),
        args: request.args,
        stdin: request.stdin,
        pty: request.pty,
    };
    let before = app.handle.events().newest();
    let (operation, slot) = app.handle.one_off(id, one_off, access.actor()).await?;
    let run = tokio::time::timeout(RUN_ID_WAIT, born(&app, &slot, before))
        .await
        .ok()
        .flatten();
    let mut answer = outcome(&app, operation, &wait).await?;
    if let Some(run) = run {
        answer
            .operation
            .data
            .insert("run".to_owned(), run.to_string().into());
    }
    Ok(answer)
}

/// The size that a terminal has from its start; `None`: nobody cares.
fn pty_size(request: &RunRequest) -> Answer<Option<(u16, u16)>> {
    if (request.cols, request.rows) == (None, None) {
        return Ok(None);
    }
    let (cols, rows) = (request.cols.unwrap_or(80), request.rows.unwrap_or(24));
    if cols == 0 || rows == 0 {
        return Err(Refusal::new(
            Code::BadValue,
            "a terminal has at least one of `cols` and of `rows`",
        )
        .hint("leave both out for 80 and 24"));
    }
    Ok(Some((cols, rows)))
}

/// Waits for the run of a slot to have an id.
async fn born(
    app: &Shared,
    slot: &gaffer_core::name::Slot,
    mut cursor: gaffer::info::Cursor,
) -> Option<gaffer_core::name::RunId> {
    let events = app.handle.events();
    loop {
        for record in events.read(cursor, 256) {
            cursor = record.cursor;
            if record.event.slot.as_ref() == Some(slot) && record.event.run.is_some() {
                return record.event.run;
            }
        }
        let job = app.handle.job(&slot.job)?;
        let run = job
            .view
            .instances
            .iter()
            .find(|one| one.slot == *slot)
            .and_then(|one| one.run);
        if run.is_some() {
            return run;
        }
        events.wait(cursor).await;
    }
}

/// One instance.
#[utoipa::path(get, path = "/v1/jobs/{session}/{job}/instances/{instance}", tag = "jobs", params(
    ("session" = String, Path), ("job" = String, Path), ("instance" = u32, Path)),
    responses((status = 200, body = Instance), (status = "default", body = ErrorBody)))]
pub async fn show_instance(
    State(app): State<Shared>,
    Path((session, job, instance)): Path<(String, String, u32)>,
) -> Answer<Json<Instance>> {
    let info = find(&app, &names::job(&session, &job)?)?;
    let found = info.view.instances.iter().find(|view| match view.slot.place {
        Place::Instance { n, .. } => n == instance,
        Place::OneOff(_) => false,
    });
    let found = found.ok_or_else(|| no_instance(&info, instance))?;
    Ok(Json(view::instance(&app.handle, found, view::now())))
}

/// The refusal for an instance that is not there.
pub fn no_instance(info: &JobInfo, instance: u32) -> Refusal {
    let message = format!("job `{}` has no instance {instance}", info.view.job);
    let refusal = Refusal::new(Code::InstanceNotFound, message);
    match info.view.target {
        0 => refusal.hint("it is scaled to 0"),
        1 => refusal.hint("it has one instance, number 1"),
        target => refusal.hint(format!("its instances are 1 to {target}")),
    }
}

/// Deaths whose last lines are read unless asked otherwise: each costs a look into a file.
const WITH_LINES: usize = 20;

/// Parameters of deaths.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeathsQuery {
    /// Items of a page: 10, at most 1000.
    limit: Option<usize>,
    /// From the `Link` of the page before.
    cursor: Option<String>,
    /// So many of the page have their `last_lines`, the newest ones: 20 unless asked otherwise.
    lines: Option<usize>,
}

/// The newest ends of a job's runs, newest first. The first 20 have their last lines; `lines` asks for more, or fewer.
#[utoipa::path(get, path = "/v1/jobs/{session}/{job}/deaths", tag = "jobs", params(
    ("session" = String, Path), ("job" = String, Path), DeathsQuery),
    responses((status = 200, body = Vec<Run>, description = "the next page is in `Link`"), (status = "default", body = ErrorBody)))]
pub async fn deaths(
    State(app): State<Shared>,
    Path((session, job)): Path<(String, String)>,
    Query(query): Query<DeathsQuery>,
) -> Answer<Response> {
    deaths_of(&app, &names::target(&session, &job, None)?, query).await
}

/// The newest ends of an instance's runs.
#[utoipa::path(get, path = "/v1/jobs/{session}/{job}/instances/{instance}/deaths", tag = "jobs", params(
    ("session" = String, Path), ("job" = String, Path), ("instance" = u32, Path), DeathsQuery),
    responses((status = 200, body = Vec<Run>, description = "the next page is in `Link`"), (status = "default", body = ErrorBody)))]
pub async fn deaths_instance(
    State(app): State<Shared>,
    Path((session, job, instance)): Path<(String, String, u32)>,
    Query(query): Query<DeathsQuery>,
) -> Answer<Response> {
    deaths_of(&app, &names::target(&session, &job, Some(instance))?, query).await
}

async fn deaths_of(app: &Shared, target: &Target, query: DeathsQuery) -> Answer<Response> {
    find(app, &target.job)?;
    let limit = page::limit(query.limit, 10)?;
    let before = query.cursor.as_deref().map(|cursor| {
        names::run(cursor).map_err(|_| {
            Refusal::new(Code::BadValue, "this is no cursor of deaths").hint("take it from `Link`")
        })
    });
    let before = before.transpose()?;
    // One more than asked for tells whether there is another page.
    let mut deaths = app.handle.deaths(target, before, limit + 1).await?;
    let next = deaths.get(limit).and(deaths.get(limit - 1));
    let next = next.map(|death| death.run.to_string());
    deaths.truncate(limit);
    let lines = query.lines.unwrap_or(WITH_LINES);
    let runs = deaths.iter().enumerate().map(|(at, info)| {
        if at < lines {
            with_last_lines(app, info)
        } else {
            view::run(&app.handle, info)
        }
    });
    let runs: Vec<Run> = runs.collect();
    let path = gaffer_api::routes::job_path(
        target.job.session.as_str(),
        target.job.job.as_str(),
        target.instance,
    );
    let parameters = [
        ("limit", Some(limit.to_string())),
        ("lines", query.lines.map(|lines| lines.to_string())),
    ];
    let link = page::link(&format!("{path}/deaths"), &parameters, next);
    Ok((link, Json(runs)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_instances_is_read_in_every_form() {
        let read = |text| scale_to(text).ok();
        assert_eq!(read("3"), Some(ScaleTo::Set(3)));
        assert_eq!(read("=3"), Some(ScaleTo::Set(3)));
        assert_eq!(read("+2"), Some(ScaleTo::Add(2)));
        assert_eq!(read("-1"), Some(ScaleTo::Sub(1)));
        assert_eq!(read("auto"), Some(ScaleTo::Auto));
        for text in ["", "+", "--1", "=+1", "three", "99999999999", "1.5"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_field_that_a_verb_does_not_know_is_refused() {
        let force = ActionRequest {
            force: true,
            ..ActionRequest::default()
        };
        assert!(act_of(Verb::Stop, &force).is_ok() && act_of(Verb::Start, &force).is_err());
        let how = ActionRequest {
            how: Some("surge".into()),
            ..ActionRequest::default()
        };
        assert!(act_of(Verb::Reload, &how).is_ok() && act_of(Verb::Restart, &how).is_err());
    }
}
