//! The lists of the look-up service, and what every request to it passes.
//!
//! Web pages are kept out as by the daemon: `Host` must be one of our names, `Origin` absent, ours or listed. Whoever
//! connects may look: there is no secret here, and nothing to be had but what nodes say of themselves.

use crate::guard::{self, Guard};
use crate::legacy::sockjs;
use crate::lookup::node_socket;
use crate::lookup::registry::{NODES_MAX, Registry};
use crate::lookup::watch;
use crate::peer::{Peer, Uid};
use crate::refusal::Written;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use gaffer_api::lookup::{FoundJob, Jobs, Nodes, Sessions, Sources, split_name};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, ORIGIN};
use hyper::{Method, Request, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::sync::watch::Receiver;
use tower::ServiceExt;

/// Longest time to the head of an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// The same where SockJS waits for the next event: its heartbeats are answers too.
const POLL_TIME_MAX: Duration = Duration::from_secs(60);

/// What handlers share.
pub struct Service {
    /// Who is there.
    pub registry: Arc<Registry>,
    /// A node that says nothing for so long is gone.
    pub silent_after: Duration,
    /// Names and origins beside our own.
    pub allow_hosts: Vec<String>,
    /// Origins that may read.
    pub allow_origins: Vec<String>,
    /// Name of this machine.
    pub host: String,
    /// One for each WebSocket.
    pub sockets: Arc<Semaphore>,
    /// True once the service ends.
    pub closing: Receiver<bool>,
}

/// WebSockets at once: nodes and watchers.
pub const SOCKETS_MAX: usize = 2 * NODES_MAX;

/// The state that axum hands to handlers.
pub type Shared = Arc<Service>;

impl Service {
    /// Resolves when the service ends.
    pub async fn closed(&self) {
        let mut closing = self.closing.clone();
        // An error means the sender is gone, which is the end too.
        let _ended = closing.wait_for(|closing| *closing).await;
    }

    /// What a connection to this address of ours may say.
    pub fn guard(&self, local: Option<SocketAddr>) -> Guard {
        let bound: Vec<SocketAddr> = local.into_iter().collect();
        Guard::new(
            Uid(rustix::process::geteuid().as_raw()),
            false,
            &self.host,
            "http",
            &bound,
            &self.allow_hosts,
            &self.allow_origins,
        )
    }
}

/// All routes.
pub fn router(service: Shared) -> Router {
    Router::new()
        .route("/", get(welcome))
        .route("/version", get(version))
        .route("/ping", get(ping))
        .route("/nodes", get(nodes))
        .route("/sessions", get(sessions))
        .route("/sessions/{node}", get(sessions_of))
        .route("/jobs", get(jobs))
        .route("/findJob", get(find_job))
        .route("/findSession", get(find_session))
        .route("/ws", any(node_socket::upgrade))
        .route("/lookup/websocket", any(watch::upgrade))
        .merge(sockjs::router("/lookup", watch::sockjs(service.clone())))
        .with_state(service)
}

/// One request: checked, routed, and dressed with what every answer carries.
pub async fn answer(
    guard: &Guard,
    router: Router,
    from: Option<SocketAddr>,
    request: Request<hyper::body::Incoming>,
) -> Response {
    let (mut parts, body) = request.into_parts();
    if let Some(from) = from {
        parts.extensions.insert(Peer::Tcp { from, uid: None });
    }
    let time_max = match parts.uri.path().starts_with("/lookup/") {
        true => POLL_TIME_MAX,
        false => ANSWER_TIME_MAX,
    };
    let origin = parts.headers.get(ORIGIN).cloned();
    let asks_first = parts.method == Method::OPTIONS;
    if asks_first {
        // A browser's question before a request: it changes nothing.
        parts.method = Method::GET;
    }
    let mut response = match guard.check(&parts) {
        Err(refusal) => refused(StatusCode::FORBIDDEN, &refusal.0.message),
        Ok(()) if asks_first => StatusCode::NO_CONTENT.into_response(),
        Ok(()) => {
            let routed = router.oneshot(Request::from_parts(parts, Body::new(body)));
            match tokio::time::timeout(time_max, routed).await {
                Ok(Ok(response)) => of_router(response),
                Err(_) => refused(StatusCode::SERVICE_UNAVAILABLE, "the answer took too long"),
            }
        }
    };
    let may_read = origin.filter(|_| response.status() != StatusCode::FORBIDDEN);
    dress(&mut response, may_read);
    response
}

/// What the router itself refuses has no body.
fn of_router(response: Response) -> Response {
    if response.extensions().get::<Written>().is_some() {
        return response;
    }
    match response.status() {
        StatusCode::NOT_FOUND => refused(StatusCode::NOT_FOUND, "there is no such route"),
        StatusCode::METHOD_NOT_ALLOWED => {
            refused(StatusCode::METHOD_NOT_ALLOWED, "this route has no such method")
        }
        _ => response,
    }
}

fn dress(response: &mut Response, origin: Option<HeaderValue>) {
    let headers = response.headers_mut();
    for (name, value) in guard::HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let Some(origin) = origin else { return };
    headers.insert("access-control-allow-origin", origin);
    headers.insert("vary", HeaderValue::from_static("Origin"));
    for (name, value) in [
        ("access-control-allow-methods", "POST, GET, PUT, DELETE, OPTIONS"),
        ("access-control-max-age", "86400"),
        (
            "access-control-allow-headers",
            "X-Requested-With, X-HTTP-Method-Override, Content-Type, Accept, Authorization, X-Api-Key",
        ),
        ("access-control-allow-credentials", "true"),
        ("cross-origin-resource-policy", "cross-origin"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}

/// Too many WebSockets.
pub fn crowded() -> Response {
    refused(StatusCode::SERVICE_UNAVAILABLE, "too many connections are open")
}

/// A refusal in the form that every client of the original can take.
fn refused(status: StatusCode, reason: &str) -> Response {
    let word = status
        .canonical_reason()
        .unwrap_or("refused")
        .to_lowercase()
        .replace(' ', "_");
    document(
        status,
        &json!({ "error": word, "reason": reason, "errno": status.as_u16() }),
    )
}

fn document<T: Serialize>(status: StatusCode, value: &T) -> Response {
    // Numbers, texts and lists always have a JSON form.
    let text = serde_json::to_vec(value).unwrap_or_default();
    (status, [(CONTENT_TYPE, "application/json; charset=UTF-8")], text).into_response()
}

fn ok<T: Serialize>(value: &T) -> Response {
    document(StatusCode::OK, value)
}

async fn welcome() -> Response {
    ok(&json!({ "welcome": "gaffer-lookupd", "version": env!("CARGO_PKG_VERSION") }))
}

async fn version() -> Response {
    ok(&json!({ "version": env!("CARGO_PKG_VERSION") }))
}

async fn ping() -> &'static str {
    "OK"
}

async fn nodes(State(service): State<Shared>) -> Response {
    let nodes = service.registry.nodes();
    ok(&Nodes { nodes })
}

async fn sessions(State(service): State<Shared>) -> Response {
    sessions_list(&service, None)
}

async fn sessions_of(State(service): State<Shared>, Path(node): Path<String>) -> Response {
    sessions_list(&service, Some(&node))
}

fn sessions_list(service: &Service, node: Option<&str>) -> Response {
    let sessions = service.registry.sessions(node);
    ok(&Sessions {
        nb_sessions: sessions.len(),
        sessions,
    })
}

async fn jobs(State(service): State<Shared>) -> Response {
    jobs_list(service.registry.jobs(|_, _| true))
}

fn jobs_list(jobs: Vec<FoundJob>) -> Response {
    ok(&Jobs {
        nb_jobs: jobs.len(),
        jobs,
    })
}

#[derive(Deserialize)]
struct JobQuery {
    name: Option<String>,
}

async fn find_job(State(service): State<Shared>, Query(query): Query<JobQuery>) -> Response {
    match query.name.filter(|name| !name.is_empty()) {
        None => refused(
            StatusCode::BAD_REQUEST,
            "the parameter `name` is missing: /findJob?name=SESSION.JOB",
        ),
        Some(name) => ok(&Sources {
            sources: service.registry.sources(&name),
        }),
    }
}

#[derive(Deserialize)]
struct SessionQuery {
    sessionid: Option<String>,
}

async fn find_session(State(service): State<Shared>, Query(query): Query<SessionQuery>) -> Response {
    match query.sessionid.filter(|session| !session.is_empty()) {
        None => refused(
            StatusCode::BAD_REQUEST,
            "the parameter `sessionid` is missing: /findSession?sessionid=SESSION",
        ),
        Some(session) => jobs_list(service.registry.jobs(|_, name| split_name(name).0 == session)),
    }
}
