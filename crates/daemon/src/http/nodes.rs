//! The node itself: what it is, plans, configuration, health, its end.

use crate::access::Access;
use crate::fleet;
use crate::http::body::Json;
use crate::http::operations::{Outcome, WaitQuery, outcome};
use crate::http::page::{self, Labels};
use crate::http::query::{Path, Query};
use crate::http::{DaemonWish, Shared};
use crate::refusal::{Answer, Refusal};
use crate::view;
use axum::Extension;
use axum::extract::State;
use gaffer::info::{ApplyOptions, ApplySource};
use gaffer_api::error::{Code, ErrorBody};
use gaffer_api::lookup::matches_name;
use gaffer_api::types::{
    self, ApplyRequest, Doctor, Health, KnownNode, Node, Operation, Plan, ShutdownRequest,
};
use gaffer_config::Bundle;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::IntoParams;

fn this_node(app: &Shared) -> Node {
    let live = app.live();
    types::Node {
        config: app.config.as_ref().map(|path| path.display().to_string()),
        config_refused: live.refused.as_ref().map(|refused| refused.reason.clone()),
        ..view::node(&app.handle.node(), live.labels.clone(), live.listen.clone())
    }
}

/// This node.
#[utoipa::path(get, path = "/v1/node", tag = "nodes",
    responses((status = 200, body = Node), (status = "default", body = ErrorBody)))]
pub async fn node(State(app): State<Shared>) -> Json<Node> {
    Json(this_node(&app))
}

/// Parameters of the list of nodes.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct NodesQuery {
    /// Only nodes with this label of `[gaffer] labels`, `zone=eu`. Several with commas.
    label: Option<String>,
    /// Only nodes with this name or pattern, `eu-*`. Several with commas.
    node: Option<String>,
    /// Items of a page: 200, at most 1000.
    limit: Option<usize>,
    /// From the `Link` of the page before.
    cursor: Option<String>,
}

/// This node as one of those it knows.
pub fn itself(app: &Shared) -> KnownNode {
    KnownNode {
        url: app.live().origin.clone(),
        known_by: "self".to_owned(),
        age_ms: Some(0),
        ..this_node(app).into()
    }
}

/// This node and those that it knows: by `[node.X]` of its file and by its look-up services. Each is asked how it is. Who
/// may not read all jobs sees this node only.
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes", params(NodesQuery),
    responses((status = 200, body = Vec<KnownNode>), (status = "default", body = ErrorBody)))]
pub async fn nodes(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Query(query): Query<NodesQuery>,
) -> Answer<(HeaderMap, Json<Vec<KnownNode>>)> {
    let labels = Labels::parse(query.label.as_deref())?;
    let limit = page::limit(query.limit, page::USUAL)?;
    let patterns: Vec<&str> = query.node.iter().flat_map(|text| text.split(',')).collect();
    let is_named = |name: &str| patterns.is_empty() || patterns.iter().any(|one| matches_name(one, name));
    let mut others = match access.may_read_all() {
        true => fleet::others(&app).await,
        false => Vec::new(),
    };
    others.retain(|other| is_named(&other.name));
    let mut nodes = fleet::look_at(&app, others).await;
    nodes.extend(Some(itself(&app)).filter(|own| is_named(&own.node)));
    nodes.retain(|node| labels.are_of(&BTreeMap::new(), &node.labels));
    // Two nodes may have one name.
    let key = |node: &KnownNode| format!("{} {}", node.node, node.url);
    let next = page::cut(&mut nodes, key, limit, query.cursor.as_deref());
    let parameters = [
        ("label", query.label),
        ("node", query.node),
        ("limit", query.limit.map(|limit| limit.to_string())),
    ];
    Ok((page::link("/v1/nodes", &parameters, next), Json(nodes)))
}

/// A node by its name.
#[utoipa::path(get, path = "/v1/nodes/{node}", tag = "nodes", params(("node" = String, Path)),
    responses((status = 200, body = KnownNode), (status = "default", body = ErrorBody)))]
pub async fn node_named(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Answer<Json<KnownNode>> {
    if *app.node == *name {
        return Ok(Json(itself(&app)));
    }
    let mut others = match access.may_read_all() {
        true => fleet::others(&app).await,
        false => Vec::new(),
    };
    others.retain(|other| other.name == name);
    match fleet::look_at(&app, others).await.into_iter().next() {
        Some(node) => Ok(Json(node)),
        None => {
            let message = format!("no node `{}`", name.escape_debug());
            Err(Refusal::new(Code::NodeNotFound, message).hint(format!("this node is `{}`", app.node)))
        }
    }
}

/// Ends the daemon. The answer comes before the end.
#[utoipa::path(post, path = "/v1/node/shutdown", tag = "nodes", request_body = ShutdownRequest,
    responses((status = 202, body = Health), (status = "default", body = ErrorBody)))]
pub async fn shutdown(
    State(app): State<Shared>,
    Json(request): Json<ShutdownWish>,
) -> Answer<(StatusCode, Json<Health>)> {
    let wish = match request.mode.as_deref() {
        None | Some("stop" | "") => DaemonWish::Stop,
        Some("stop-all") => DaemonWish::StopAll,
        Some("leave") => DaemonWish::Leave,
        Some(other) => {
            let message = format!("`{}` is no way to end", other.escape_debug());
            return Err(Refusal::new(Code::BadValue, message).hint("stop, stop-all or leave"));
        }
    };
    app.wish(wish)?;
    Ok((
        StatusCode::ACCEPTED,
        Json(Health {
            status: "ending".to_owned(),
        }),
    ))
}

/// [`ShutdownRequest`] as it is read: the mode may be missing.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownWish {
    mode: Option<String>,
}

/// Applies the daemon's own file again.
#[utoipa::path(post, path = "/v1/node/reload", tag = "nodes",
    responses((status = 202, body = Health), (status = "default", body = ErrorBody)))]
pub async fn reload(State(app): State<Shared>) -> Answer<(StatusCode, Json<Health>)> {
    if app.config.is_none() {
        return Err(
            Refusal::new(Code::WrongState, "the daemon was started without a file")
                .hint("apply one: gaffer apply FILE"),
        );
    }
    app.wish(DaemonWish::Reload)?;
    Ok((
        StatusCode::ACCEPTED,
        Json(Health {
            status: "reloading".to_owned(),
        }),
    ))
}

fn bundle(value: Value) -> Answer<Bundle> {
    serde_json::from_value(value).map_err(|error| {
        Refusal::new(Code::BadRequest, format!("`bundle` cannot be read: {error}"))
            .hint("it holds the files as `gaffer apply` gathers them")
    })
}

fn source(request: &mut ApplyRequest) -> Answer<ApplySource> {
    let value = request.bundle.take();
    match &request.rollback {
        None => Ok(ApplySource::Files(Box::new(bundle(value)?))),
        Some(file) if value.is_null() && file.starts_with('/') => Ok(ApplySource::Previous(file.into())),
        Some(_) => {
            let refusal = Refusal::new(
                Code::BadRequest,
                "`rollback` is an absolute path, and goes without `bundle`",
            );
            Err(refusal)
        }
    }
}

fn options(request: &ApplyRequest) -> ApplyOptions {
    ApplyOptions {
        hash: request.hash.clone(),
        prune: request.prune,
        reset_scale: request.reset_scale,
        no_start: request.no_start,
    }
}

/// What applying would do, with reasons. Nothing is changed.
#[utoipa::path(post, path = "/v1/plan", tag = "config", request_body = ApplyRequest,
    responses((status = 200, body = Plan), (status = "default", body = ErrorBody)))]
pub async fn plan(State(app): State<Shared>, Json(mut request): Json<ApplyRequest>) -> Answer<Json<Plan>> {
    let source = source(&mut request)?;
    let plan = app.handle.plan(&source, &options(&request)).await?;
    Ok(Json(view::plan(&plan, &app.node)))
}

/// Applies files: only what differs is changed, and nothing if there is an error. `data.plan` is what was done.
#[utoipa::path(post, path = "/v1/apply", tag = "config", params(WaitQuery), request_body = ApplyRequest,
    responses((status = 200, body = Operation), (status = 202, body = Operation), (status = "default", body = ErrorBody)))]
pub async fn apply(
    State(app): State<Shared>,
    Query(wait): Query<WaitQuery>,
    Extension(access): Extension<Access>,
    Json(mut request): Json<ApplyRequest>,
) -> Answer<Outcome> {
    let source = source(&mut request)?;
    let (plan, operation) = app
        .handle
        .apply(source, options(&request), access.actor())
        .await?;
    let mut answer = outcome(&app, operation, &wait).await?;
    let plan = serde_json::to_value(view::plan(&plan, &app.node));
    answer
        .operation
        .data
        .insert("plan".to_owned(), plan.unwrap_or_default());
    Ok(answer)
}

/// Checks of the node.
#[utoipa::path(get, path = "/v1/doctor", tag = "nodes",
    responses((status = 200, body = Doctor), (status = "default", body = ErrorBody)))]
pub async fn doctor(State(app): State<Shared>) -> Json<Doctor> {
    let store = crate::doctor::store(&app.handle).await;
    let live = app.live();
    let setup = crate::doctor::Setup {
        require_token: live.require_token,
        ..app.setup.clone()
    };
    let mut doctor = crate::doctor::examine(&setup, Some(&app.handle), &live.listen);
    doctor.checks.insert(1, store);
    if let Some(path) = &app.config {
        doctor.checks.insert(1, crate::doctor::file(path, &live));
    }
    doctor.checks.extend(crate::doctor::plugins(&app.plugins));
    Json(doctor)
}

/// Does the daemon live?
#[utoipa::path(get, path = "/healthz", tag = "nodes",
    responses((status = 200, body = Health), (status = "default", body = ErrorBody)))]
pub async fn healthz(State(app): State<Shared>) -> Answer<Json<Health>> {
    if *app.closing.borrow() {
        return Err(Refusal::new(Code::ShuttingDown, "the daemon is ending"));
    }
    Ok(Json(Health {
        status: "ok".to_owned(),
    }))
}
