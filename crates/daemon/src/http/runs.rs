//! Runs: look, signal, input, stats.

use crate::http::Shared;
use crate::http::body::{Json, Raw};
use crate::http::jobs::{scope, signal_number};
use crate::http::lines::{escaped, last_lines};
use crate::http::query::{Path, Query};
use crate::names;
use crate::peer::Peer;
use crate::refusal::{Answer, Refusal};
use crate::view;
use axum::Extension;
use axum::extract::State;
use gaffer::info::{Error, RunInfo};
use gaffer_api::error::{Code, ErrorBody};
use gaffer_api::types::{Run, SignalRequest, Stats};
use gaffer_core::job::Scope;
use gaffer_core::name::RunId;
use hyper::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

/// Lines of a dead run that are shown beside its end.
const LAST_LINES: usize = 5;

/// Characters of such a line.
const LAST_LINE_CHARS: usize = 200;

/// A run as its death is shown: with the last lines it wrote.
pub fn with_last_lines(app: &Shared, info: &RunInfo) -> Run {
    let mut run = view::run(&app.handle, info);
    if info.ended.is_some() {
        let lines = last_lines(&app.handle, info, LAST_LINES);
        run.last_lines = lines.iter().map(|line| escaped(line, LAST_LINE_CHARS)).collect();
    }
    run
}

/// The engine finds live runs only: one that has ended is there all the same, and gets a refusal of its own.
async fn of_live<T>(app: &Shared, run: RunId, result: Result<T, Error>, code: Code) -> Answer<T> {
    match result {
        Err(Error::RunNotFound(_)) => {
            let info = app.handle.run(run).await?;
            let reason = info.reason.map_or_else(
                || "it is not running".to_owned(),
                |reason| reason.text.to_string(),
            );
            Err(Refusal::new(code, format!("run @{run} has ended")).hint(reason))
        }
        other => Ok(other?),
    }
}

/// Parameters of the search for runs.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PrefixQuery {
    /// Beginning of the id, 4 characters at least.
    prefix: String,
}

/// Runs whose id begins so, at most 10.
#[utoipa::path(get, path = "/v1/runs", tag = "runs", params(PrefixQuery),
    responses((status = 200, body = Vec<Run>), (status = "default", body = ErrorBody)))]
pub async fn list(State(app): State<Shared>, Query(query): Query<PrefixQuery>) -> Answer<Json<Vec<Run>>> {
    let prefix = query.prefix.strip_prefix('@').unwrap_or(&query.prefix);
    if prefix.len() < 4 || !prefix.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Refusal::new(
            Code::BadValue,
            "the beginning of a run id has 4 letters and digits at least",
        ));
    }
    let mut runs = Vec::new();
    for id in app.handle.runs_by_prefix(prefix).await? {
        // One that was pruned in between is not there any more.
        if let Ok(info) = app.handle.run(id).await {
            runs.push(view::run(&app.handle, &info));
        }
    }
    Ok(Json(runs))
}

/// A run, live or from the history.
#[utoipa::path(get, path = "/v1/runs/{run}", tag = "runs", params(("run" = String, Path)),
    responses((status = 200, body = Run), (status = "default", body = ErrorBody)))]
pub async fn show(State(app): State<Shared>, Path(run): Path<String>) -> Answer<Json<Run>> {
    let info = app.handle.run(names::run(&run)?).await?;
    Ok(Json(with_last_lines(&app, &info)))
}

/// Samples a live run: its whole tree, process by process.
#[utoipa::path(get, path = "/v1/runs/{run}/stats", tag = "runs", params(("run" = String, Path)),
    responses((status = 200, body = Stats), (status = "default", body = ErrorBody)))]
pub async fn stats(State(app): State<Shared>, Path(run): Path<String>) -> Answer<Json<Stats>> {
    let run = names::run(&run)?;
    let sample = app.handle.run_stats(run).await;
    let sample = of_live(&app, run, sample, Code::WrongState).await?;
    Ok(Json(view::stats(&sample, true)))
}

/// Sends a signal to a live run.
#[utoipa::path(post, path = "/v1/runs/{run}/signal", tag = "runs", params(("run" = String, Path)),
    request_body = SignalRequest, responses((status = 204), (status = "default", body = ErrorBody)))]
pub async fn signal(
    State(app): State<Shared>,
    Path(run): Path<String>,
    Extension(peer): Extension<Peer>,
    Json(request): Json<SignalRequest>,
) -> Answer<StatusCode> {
    let to = scope(request.to.as_deref())?.unwrap_or(Scope::Main);
    let (run, signal) = (names::run(&run)?, signal_number(&request.signal)?);
    let sent = app.handle.run_signal(run, signal, to, peer.actor()).await;
    of_live(&app, run, sent, Code::WrongState).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Parameters of input.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct InputQuery {
    /// `stdin` (default) or a label of `streams`.
    stream: Option<String>,
    /// Close it after these bytes.
    #[serde(default)]
    eof: bool,
}

/// Writes the body to a pipe of a live run; answers when the pipe took all of it.
#[utoipa::path(post, path = "/v1/runs/{run}/input", tag = "runs", params(("run" = String, Path), InputQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204), (status = "default", body = ErrorBody)))]
pub async fn input(
    State(app): State<Shared>,
    Path(run): Path<String>,
    Query(query): Query<InputQuery>,
    Raw(bytes): Raw,
) -> Answer<StatusCode> {
    let stream = query.stream.as_deref().unwrap_or("stdin");
    let run = names::run(&run)?;
    let written = app.handle.run_input(run, stream, bytes.to_vec(), query.eof).await;
    of_live(&app, run, written, Code::NotWritable).await?;
    Ok(StatusCode::NO_CONTENT)
}
