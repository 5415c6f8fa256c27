//! Connections: accepted within bounds, served one request after the other, ended in order.
//!
//! TCP and the unix socket have connection limits of their own, so that whoever fills the one cannot lock
//! the owner out of the other. A connection without a request has no timer of ours but hyper's for the next header: it is
//! closed then, and a daemon whose clients are gone has nothing left to wake it.

use crate::access::Access;
use crate::access::identify::identify;
use crate::access::slot::{Bounded, Slot};
use crate::fleet::relay;
use crate::guard;
use crate::http::idempotency::{Asked, Digest, Remembered, Turn};
use crate::http::{App, Shared, body};
use crate::legacy;
use crate::listen::{self, ControlSocket};
use crate::peer::{self, Peer};
use crate::refusal::{Refusal, Written};
use crate::tls;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use gaffer_api::error::{ApiError, Code, ErrorBody};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt;

/// From the first byte of a connection, or the end of a request, to the end of the next header.
pub const HEADER_TIME_MAX: Duration = Duration::from_secs(10);

/// Longest time to the head of an answer: the longest `?wait=` and some.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(330);

/// Largest header, and what is read of a body at once.
const HEADER_BYTES_MAX: usize = 32 << 10;

/// Descriptors that connections leave for shims, logs and files.
const DESCRIPTORS_KEPT: u64 = 256;

/// Connections of each kind of listener, if descriptors allow.
const CONNECTIONS_MAX: u64 = 4096;

/// How long connections may take to end when the daemon ends.
const END_TIME_MAX: Duration = Duration::from_secs(2);

/// Longest answer that is remembered for an `Idempotency-Key`.
const REMEMBERED_BYTES_MAX: usize = 256 << 10;

/// How long a client over TCP may take nothing of what is sent to it. One that reads again sooner goes on where it was.
const UNREAD_MAX: Duration = Duration::from_secs(300);

/// Header that names the request in answers.
const REQUEST_ID: HeaderName = HeaderName::from_static("gaffer-request");

/// Connections that a listener may have at once.
pub fn connections_max() -> usize {
    let soft = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .unwrap_or(u64::MAX);
    let free = soft.saturating_sub(DESCRIPTORS_KEPT) / 2;
    usize::try_from(free.clamp(16, CONNECTIONS_MAX)).unwrap_or(16)
}

/// Serves a TCP listener until the daemon ends.
pub async fn serve_tcp(app: Shared, router: Router, listener: TcpListener) {
    let limit = Arc::new(Semaphore::new(connections_max()));
    accept_all(
        &app,
        &limit,
        || listener.accept(),
        |(stream, from)| {
            // Small answers follow small requests: holding them back only delays.
            let _still_works = stream.set_nodelay(true);
            let _lives_longer = listen::end_unread(&stream, UNREAD_MAX);
            let peer = peer::of_tcp(&stream, from);
            Some(serve_stream(app.clone(), router.clone(), peer, stream).boxed())
        },
    )
    .await;
}

/// A TCP connection, with TLS if that is what this daemon speaks now.
async fn serve_stream(app: Shared, router: Router, peer: Peer, stream: TcpStream) {
    let Some(config) = app.live().tls.clone() else {
        return serve(app, router, peer, stream).await;
    };
    // A handshake takes as long as a header at most.
    let accepted = tokio::time::timeout(HEADER_TIME_MAX, tls::accept(config, stream)).await;
    if let Ok(Some(stream)) = accepted {
        serve(app, router, peer, stream).await;
    }
}

/// Serves a unix socket until the daemon ends.
pub async fn serve_unix(app: Shared, router: Router, socket: ControlSocket) {
    let limit = Arc::new(Semaphore::new(connections_max()));
    accept_all(
        &app,
        &limit,
        || socket.listener.accept(),
        |(stream, _)| {
            // Without a peer there is nobody to serve.
            let peer = peer::of_unix(&stream, app.runs_group.as_deref(), socket.invites).ok()?;
            Some((serve(app.clone(), router.clone(), peer, stream)).boxed())
        },
    )
    .await;
}

async fn accept_all<S, F: Future<Output = io::Result<S>>>(
    app: &Shared,
    limit: &Arc<Semaphore>,
    accept: impl Fn() -> F,
    serve: impl Fn(S) -> Option<futures_util::future::BoxFuture<'static, ()>>,
) {
    let mut pause = Duration::from_millis(10);
    loop {
        // The permit comes first: what we cannot serve stays in the backlog.
        let Ok(permit) = limit.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = accept() => accepted,
            () = app.closed() => return,
        };
        match accepted {
            Ok(stream) => {
                pause = Duration::from_millis(10);
                if let Some(connection) = serve(stream) {
                    tokio::spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
            }
            // Out of descriptors or memory: it would fail again at once. Others concern one connection.
            Err(error) => {
                tracing::warn!(error = %error, "accept.failed");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}

async fn serve(
    app: Shared,
    router: Router,
    peer: Peer,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) {
    let _counted = Counted::new(&app);
    let (closing, own) = (app.clone(), app);
    let slot = Slot::default();
    let stream = Bounded::new(stream, slot.clone());
    let service =
        service_fn(move |request| answer(own.clone(), router.clone(), peer.clone(), slot.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    // How a connection ends is the client's affair.
    tokio::select! {
        _ended = connection.as_mut() => return,
        () = closing.closed() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ended = tokio::time::timeout(END_TIME_MAX, connection).await;
}

/// Counts a connection as long as it lives.
struct Counted(Shared);

impl Counted {
    fn new(app: &Shared) -> Counted {
        app.connections.send_modify(|count| *count += 1);
        Counted(app.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0
            .connections
            .send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// One request: checked, routed, and its refusal written.
async fn answer(
    app: Shared,
    router: Router,
    peer: Peer,
    slot: Slot,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let id = app.request_id();
    let (mut parts, body) = request.into_parts();
    legacy::mend(&mut parts);
    let line =
        tracing::enabled!(tracing::Level::DEBUG).then(|| format!("{} {}", parts.method, parts.uri.path()));
    slot.release();
    let (live, seen) = (app.live(), legacy::Seen::of(&parts));
    let routed = match (admit(&app, &parts, &peer), legacy::early(&live, &parts)) {
        (Err(refusal), _) => refusal.into_response(),
        (Ok(_), Some(early)) => early,
        (Ok(access), None) => {
            parts.extensions.insert(peer);
            parts.extensions.insert(access.clone());
            let response = carry_out(&app, router, parts, Body::new(body)).await;
            live_with(response, &slot, &access)
        }
    };
    let response = finish(legacy::shaped(&live, &seen, routed), &id);
    if let Some(line) = line {
        tracing::debug!(request = %id, line = %line, status = response.status().as_u16(), "request.answered");
    }
    Ok(response)
}

/// A stream, or what becomes a WebSocket, lives as long as the credential that opened it; an answer that is there already needs
/// nothing more.
fn live_with(response: Response, slot: &Slot, access: &Access) -> Response {
    let whole = response.body().size_hint().exact().is_some();
    if whole && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return response;
    }
    slot.depend_on(access);
    response
}

/// First whether it may come from where it comes from, then who it is.
fn admit(app: &App, request: &Parts, peer: &Peer) -> Result<Access, Refusal> {
    let live = app.live();
    live.guard.check(request)?;
    identify(live.guard.terms(), &app.keyring, request, peer)
}

async fn carry_out(app: &Shared, router: Router, parts: Parts, body: Body) -> Response {
    let changes = !matches!(parts.method, Method::GET | Method::HEAD);
    let key = parts.headers.get("idempotency-key").filter(|_| changes).cloned();
    match key {
        None => routed(app, router, parts, body).await,
        Some(key) => once(app, router, parts, body, &key).await,
    }
}

/// At this node, or at all that `?node=` chooses.
async fn routed(app: &Shared, router: Router, parts: Parts, body: Body) -> Response {
    match relay::asked(&parts) {
        None => route(router, parts, body).await,
        Some(asked) => relay::over_nodes(app, router, parts, body, asked).await,
    }
}

/// Carries a request out at this node.
pub async fn route(router: Router, parts: Parts, body: Body) -> Response {
    let routed = router.oneshot(Request::from_parts(parts, body));
    let guarded = AssertUnwindSafe(tokio::time::timeout(ANSWER_TIME_MAX, routed)).catch_unwind();
    match guarded.await {
        Ok(Ok(Ok(response))) => response,
        Ok(Err(_)) => Refusal::new(Code::TimedOut, "the answer took too long").into_response(),
        Err(_) => Refusal::new(
            Code::Internal,
            "the daemon stumbled over this request; its log says where",
        )
        .into_response(),
    }
}

/// Carries a request with an `Idempotency-Key` out once, to its end even if the client goes away.
async fn once(app: &Shared, router: Router, parts: Parts, body: Body, key: &HeaderValue) -> Response {
    let Ok(key) = key.to_str().map(str::to_owned) else {
        return Refusal::new(Code::BadValue, "an Idempotency-Key is plain text").into_response();
    };
    let actor = parts.extensions.get::<Access>().map(Access::actor);
    let line = format!("{} {}", parts.method, parts.uri.path());
    // The body decides whether this is the same request, so it is read first, within its bounds.
    let request = Request::from_parts(parts, body);
    let (parts, body) = match body::whole(request).await {
        Ok(read) => read,
        Err(refusal) => return refusal.into_response(),
    };
    let asked = Asked {
        line,
        rest: format!("{} {actor:?}", options(parts.uri.query())),
        body: Digest::of(&body),
    };
    match app.answers.turn(&key, &asked, Instant::now()) {
        Err(refusal) => refusal.into_response(),
        Ok(Turn::Again(remembered)) => (
            remembered.status,
            [(CONTENT_TYPE, "application/json")],
            remembered.body,
        )
            .into_response(),
        Ok(Turn::First) => {
            let own = app.clone();
            let carried = tokio::spawn(async move {
                let response = render(routed(&own, router, parts, Body::from(body)).await, "");
                keep(&own, &key, response).await
            });
            carried.await.unwrap_or_else(|_| {
                Refusal::new(
                    Code::Internal,
                    "the daemon stumbled over this request; its log says where",
                )
                .into_response()
            })
        }
    }
}

/// What a query asks for; how long somebody waits for the answer is no part of it.
fn options(query: Option<&str>) -> String {
    let pairs = query.unwrap_or_default().split('&');
    let pairs: Vec<&str> = pairs.filter(|pair| !pair.starts_with("wait=")).collect();
    pairs.join("&")
}

async fn keep(app: &App, key: &str, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let Ok(body) = Limited::new(body, REMEMBERED_BYTES_MAX).collect().await else {
        app.answers.forget(key);
        return Refusal::new(Code::Internal, "the answer is too long to be remembered").into_response();
    };
    let body = body.to_bytes();
    match parts.status.is_server_error() {
        true => app.answers.forget(key),
        false => app.answers.remember(
            key,
            Remembered {
                status: parts.status,
                body: body.clone(),
            },
        ),
    }
    Response::from_parts(parts, Body::from(body))
}

/// Writes a refusal's body and what every answer carries.
fn finish(response: Response, id: &str) -> Response {
    let mut response = render(response, id);
    let headers = response.headers_mut();
    for (name, value) in guard::HEADERS {
        headers
            .entry(HeaderName::from_static(name))
            .or_insert(HeaderValue::from_static(value));
    }
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

/// Errors of ours and of the router in one shape.
pub fn render(mut response: Response, id: &str) -> Response {
    let status = response.status();
    let refusal = response.extensions_mut().remove::<Refusal>();
    let is_json = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let mut error = match refusal {
        Some(refusal) => *refusal.0,
        None if is_json || response.extensions().get::<Written>().is_some() => return response,
        None if !(status.is_client_error() || status.is_server_error()) => return response,
        None => of_status(status),
    };
    error.request = id.to_owned();
    if error.code() == Code::Internal {
        tracing::error!(request = %id, error = %error.message, "request.failed");
    }
    let status = if status.is_success() {
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        status
    };
    // Numbers, texts and lists always have a JSON form.
    let text = serde_json::to_vec(&ErrorBody { error }).unwrap_or_default();
    *response.status_mut() = status;
    response.headers_mut().remove(CONTENT_LENGTH);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = Body::from(text);
    response
}

/// What the router itself refuses.
fn of_status(status: StatusCode) -> ApiError {
    match status {
        StatusCode::NOT_FOUND => ApiError::new(Code::RouteNotFound, "there is no such route")
            .hint("/v1/openapi.json lists all of them"),
        StatusCode::METHOD_NOT_ALLOWED => {
            ApiError::new(Code::MethodNotAllowed, "this route has no such method")
                .hint("the Allow header lists those it has")
        }
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(Code::BodyTooLarge, "the body is too large"),
        status if status.is_client_error() => {
            let text = status.canonical_reason().unwrap_or("refused").to_lowercase();
            ApiError::new(Code::BadRequest, format!("the request cannot be read: {text}"))
        }
        _ => ApiError::new(Code::Internal, "the daemon stumbled over this request"),
    }
}
