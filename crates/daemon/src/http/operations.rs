//! Operations: what a changing request started, and how its answer waits for the end.

use crate::http::body::Json;
use crate::http::query::{self, Path, Query};
use crate::http::{App, Shared};
use crate::names;
use crate::refusal::{Answer, Refusal};
use crate::view;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use gaffer::info::{OperationId, OperationInfo, OperationState};
use gaffer_api::error::{Code, ErrorBody};
use gaffer_api::types::Operation;
use hyper::StatusCode;
use hyper::header::LOCATION;
use serde::Deserialize;
use std::time::Duration;
use utoipa::IntoParams;

/// Parameters of every request that starts an operation.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    /// How long the answer may wait for the outcome: `30s`, at most five minutes.
    pub wait: Option<String>,
}

/// An operation, with what only its request knows.
pub struct Outcome {
    /// It.
    pub operation: Operation,
    /// Waited for, and over.
    pub is_outcome: bool,
}

impl IntoResponse for Outcome {
    fn into_response(self) -> Response {
        let status = if self.is_outcome {
            StatusCode::OK
        } else {
            StatusCode::ACCEPTED
        };
        let location = format!("/v1/operations/{}", self.operation.operation);
        (status, [(LOCATION, location)], Json(self.operation)).into_response()
    }
}

/// The outcome of an operation, waited for as the request says.
pub async fn outcome(app: &App, id: OperationId, wait: &WaitQuery) -> Answer<Outcome> {
    let wait = query::wait(wait.wait.as_deref())?;
    let info = look(app, id, wait).await?;
    Ok(Outcome {
        is_outcome: wait.is_some() && info.state != OperationState::Pending,
        operation: with_run(app, &info),
    })
}

async fn look(app: &App, id: OperationId, wait: Option<Duration>) -> Answer<OperationInfo> {
    let info = match wait {
        None => app.handle.operation(id),
        Some(wait) => tokio::select! {
            info = app.handle.operation_wait(id, wait) => info,
            () = app.closed() => app.handle.operation(id),
        },
    };
    info.ok_or_else(|| forgotten(id))
}

fn forgotten(id: OperationId) -> Refusal {
    Refusal::new(Code::OperationNotFound, format!("no operation `op-{}`", id.0))
        .hint("operations are remembered for ten minutes after their end, by the daemon that began them")
}

/// The operation; that of a one-off names its run as long as the job shows it.
pub fn with_run(app: &App, info: &OperationInfo) -> Operation {
    let mut operation = view::operation(info);
    if let Some(slot) = &info.slot
        && let Some(job) = app.handle.job(&slot.job)
        && let Some(run) = job
            .view
            .instances
            .iter()
            .find(|one| one.slot == *slot)
            .and_then(|one| one.run)
    {
        operation.data.insert("run".to_owned(), run.to_string().into());
    }
    operation
}

/// State of an operation; with `wait` the answer waits for its end.
#[utoipa::path(get, path = "/v1/operations/{operation}", tag = "operations", params(
    ("operation" = String, Path, description = "as the request that began it answered"), WaitQuery),
    responses((status = 200, body = Operation), (status = "default", body = ErrorBody)))]
pub async fn show(
    State(app): State<Shared>,
    Path(operation): Path<String>,
    Query(wait): Query<WaitQuery>,
) -> Answer<Json<Operation>> {
    let id = names::operation(&operation)?;
    let info = look(&app, id, query::wait(wait.wait.as_deref())?).await?;
    Ok(Json(with_run(&app, &info)))
}

/// Nobody waits for it any more; what was asked for stays.
#[utoipa::path(delete, path = "/v1/operations/{operation}", tag = "operations", params(
    ("operation" = String, Path, description = "as the request that began it answered")),
    responses((status = 200, body = Operation), (status = "default", body = ErrorBody)))]
pub async fn cancel(State(app): State<Shared>, Path(operation): Path<String>) -> Answer<Json<Operation>> {
    let id = names::operation(&operation)?;
    // False: it is over already, which its state says.
    let _was_pending = app.handle.operation_cancel(id);
    let info = app.handle.operation(id).ok_or_else(|| forgotten(id))?;
    Ok(Json(with_run(&app, &info)))
}
