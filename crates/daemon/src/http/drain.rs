//! Draining: a node takes nothing new, works off what it has, stops its jobs, and stays so until that is undone.

use crate::access::Access;
use crate::fleet;
use crate::http::Shared;
use crate::http::body::Json;
use crate::http::nodes::itself;
use crate::http::operations::WaitQuery;
use crate::http::query::{self, Path, Query};
use crate::refusal::{Answer, Refusal};
use axum::Extension;
use axum::extract::State;
use gaffer::info::Actor;
use gaffer_api::error::{Code, ErrorBody};
use gaffer_api::types::{DrainRequest, KnownNode};
use gaffer_api::{Client, ClientError};
use hyper::StatusCode;
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes.
pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(show, begin, undo))
        .routes(routes!(begin_at, undo_at))
}

type Answered = (StatusCode, Json<KnownNode>);

/// 202 as long as something goes on.
fn answered(app: &Shared) -> Answered {
    let node = itself(app);
    let status = match node.state.as_str() {
        "draining" => StatusCode::ACCEPTED,
        _ => StatusCode::OK,
    };
    (status, Json(node))
}

async fn wait(app: &Shared, wait: &WaitQuery) -> Answer<()> {
    if let Some(within) = query::wait(wait.wait.as_deref())? {
        tokio::select! {
            () = app.handle.drained() => {}
            () = app.closed() => {}
            () = tokio::time::sleep(within) => {}
        }
    }
    Ok(())
}

async fn drain(app: &Shared, request: &DrainRequest, by: Actor) -> Answer<()> {
    let deadline = request.deadline.as_deref().map(query::duration).transpose()?;
    Ok(app.handle.drain(deadline, by).await?)
}

/// How far this node is drained; with `?wait=` once it is, or is not to be any more.
#[utoipa::path(get, path = "/v1/node/drain", tag = "nodes", params(WaitQuery),
    responses((status = 200, body = KnownNode), (status = 202, body = KnownNode), (status = "default", body = ErrorBody)))]
pub async fn show(State(app): State<Shared>, Query(within): Query<WaitQuery>) -> Answer<Answered> {
    wait(&app, &within).await?;
    Ok(answered(&app))
}

/// Drains this node. Asked once more it changes the deadline, if it names one.
#[utoipa::path(post, path = "/v1/node/drain", tag = "nodes", params(WaitQuery), request_body = DrainRequest,
    responses((status = 200, body = KnownNode), (status = 202, body = KnownNode), (status = "default", body = ErrorBody)))]
pub async fn begin(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Query(within): Query<WaitQuery>,
    Json(request): Json<DrainRequest>,
) -> Answer<Answered> {
    drain(&app, &request, access.actor()).await?;
    wait(&app, &within).await?;
    Ok(answered(&app))
}

/// Undoes it: what is wished counts again.
#[utoipa::path(delete, path = "/v1/node/drain", tag = "nodes",
    responses((status = 200, body = KnownNode), (status = "default", body = ErrorBody)))]
pub async fn undo(State(app): State<Shared>, Extension(access): Extension<Access>) -> Answer<Answered> {
    app.handle.undrain(access.actor()).await?;
    Ok(answered(&app))
}

/// Drains this node, or one that the daemon's file names.
#[utoipa::path(post, path = "/v1/nodes/{node}/drain", tag = "nodes", params(("node" = String, Path), WaitQuery),
    request_body = DrainRequest,
    responses((status = 200, body = KnownNode), (status = 202, body = KnownNode), (status = "default", body = ErrorBody)))]
pub async fn begin_at(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    Query(within): Query<WaitQuery>,
    Json(request): Json<DrainRequest>,
) -> Answer<Answered> {
    let Some(client) = client(&app, &name).await? else {
        drain(&app, &request, access.actor()).await?;
        wait(&app, &within).await?;
        return Ok(answered(&app));
    };
    let within = query::wait(within.wait.as_deref())?;
    let asking = client.node_drain(&request, within);
    far(&name, within.unwrap_or_default(), asking).await
}

/// Undoes it there.
#[utoipa::path(delete, path = "/v1/nodes/{node}/drain", tag = "nodes", params(("node" = String, Path)),
    responses((status = 200, body = KnownNode), (status = "default", body = ErrorBody)))]
pub async fn undo_at(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Answer<Answered> {
    match client(&app, &name).await? {
        None => {
            app.handle.undrain(access.actor()).await?;
            Ok(answered(&app))
        }
        Some(client) => far(&name, Duration::ZERO, client.node_undrain()).await,
    }
}

/// A client for another node; none: it is this one. What only a look-up service knows is sent no changes.
async fn client(app: &Shared, name: &str) -> Answer<Option<Client>> {
    if *app.node == *name {
        return Ok(None);
    }
    let mut others = fleet::others(app).await.into_iter();
    let found = others.find(|other| other.name == name && other.own.is_some());
    let Some(other) = found else {
        let message = format!("the daemon's file names no node `{}`", name.escape_debug());
        return Err(Refusal::new(Code::NodeNotFound, message).hint(format!("this node is `{}`", app.node)));
    };
    let client = other.client();
    let client = client.map_err(|why| Refusal::new(Code::NodeUnreachable, format!("{name}: {why}")))?;
    Ok(Some(client))
}

async fn far(
    name: &str,
    within: Duration,
    asking: impl Future<Output = Result<KnownNode, ClientError>>,
) -> Answer<Answered> {
    let late = || Refusal::new(Code::NodeUnreachable, format!("{name} does not answer"));
    let answer = tokio::time::timeout(within + fleet::relay::NODE_TIME_MAX, asking).await;
    let node = answer.map_err(|_| late())?.map_err(|error| match error {
        ClientError::Api(error, _) => Refusal(error),
        ClientError::Unreachable { .. } => Refusal::new(Code::NodeUnreachable, format!("{name}: {error}")),
        ClientError::Protocol(why) => Refusal::new(Code::BadAnswer, format!("{name}: {why}")),
    })?;
    let status = match node.state.as_str() {
        "draining" => StatusCode::ACCEPTED,
        _ => StatusCode::OK,
    };
    Ok((status, Json(node)))
}
