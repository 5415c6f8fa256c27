//! The APIs of the original gaffer, 0.5 and 0.4, for its clients, scripts and habits: a translation and nothing more.
//!
//! Nothing in here keeps a process alive, counts an exit or stores a wish: a request of an old client becomes a call of the
//! engine's handle, as a request of `/v1` does, and what the engine tells becomes the old words. Whoever uses both at once
//! sees the same jobs.
//!
//! | module | holds |
//! |---|---|
//! | `names` | `session.job`, `group:name` ↔ the engine's job ids |
//! | `template` | a job as the old API writes it ↔ a definition; the object as it came is kept in `meta` |
//! | `objects` | job info, process info, statistics, as clients read them |
//! | `ops` | what can be asked: load, start, scale, commit, signal, send … |
//! | `events` | the engine's event log ↔ ordered 0.5 topics, their patterns, and the 0.4 names |
//! | `http` | the table of routes, and what every request of an old client passes |
//! | `jobs`, `old`, `feeds` | routes of 0.5, of 0.4, and the feeds of 0.4 |
//! | `error` | error bodies that satisfy every old client |
//! | `conversation`, `websocket`, `sockjs` | two-way talks with a client, bounded in both directions |
//! | `channel` | topics and commands over one conversation |
//! | `pid_channel` | a process's output and input over a WebSocket |
//! | `feed` | output, read once for all who follow it |
//!
//! Where old and new think differently:
//!
//! - *A process is a run.* Its small number is the engine's (`Handle::pid_of`), so it is the same after a restart of the
//!   daemon. What is being stopped is invisible at once, as it was.
//! - *`stop` forgets the count:* the job is wished down and scaled to 0; `start` takes the definition's number again.
//! - *A job loaded with `start: false`* is down, and scaling or reloading it starts it.
//! - *A commit is a one-off.*
//! - *A bad definition loads nothing:* also one whose program cannot be executed.

pub mod channel;
pub mod conversation;
pub mod error;
pub mod events;
pub mod feed;
pub mod feeds;
pub mod http;
pub mod jobs;
pub mod keys;
pub mod names;
pub mod objects;
pub mod old;
pub mod ops;
pub mod pid_channel;
pub mod sockjs;
pub mod template;
pub mod websocket;

use crate::access::identify::is_native;
use crate::http::Live;
use crate::refusal::Refusal;
use axum::response::{IntoResponse, Response};
use gaffer_api::error::Code;
use hyper::header::{HeaderName, HeaderValue, ORIGIN, VARY};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

/// Is this path the old APIs', and not native or a site's?
pub fn is_ours(path: &str) -> bool {
    !is_native(path) && !path.starts_with("/_plugin")
}

/// The stock client escapes the options of its lists of keys and users with the path (`/keys%3Finclude_keys%3Dtrue`):
/// what was meant is what is looked for.
pub fn mend(request: &mut Parts) {
    let path = request.uri.path();
    if !(path.starts_with("/keys") || path.starts_with("/users")) || request.uri.query().is_some() {
        return;
    }
    let at = path.to_ascii_lowercase().find("%3f");
    let meant = at.and_then(|at| {
        let options = path[at + 3..].replace("%3D", "=").replace("%3d", "=");
        let options = options.replace("%26", "&");
        format!("{}?{options}", &path[..at]).parse().ok()
    });
    if let Some(meant) = meant {
        request.uri = meant;
    }
}

/// What is answered before any route is looked for: `OPTIONS`, and that the old APIs are off.
pub fn early(live: &Live, request: &Parts) -> Option<Response> {
    if !is_ours(request.uri.path()) {
        return None;
    }
    if !live.legacy_api {
        let off = Refusal::new(Code::RouteNotFound, "the API of gaffer 0.5 is off");
        return Some(off.hint("[gaffer] legacy_api = true").into_response());
    }
    (request.method == Method::OPTIONS).then(|| StatusCode::NO_CONTENT.into_response())
}

/// Gives an answer the shape that old clients read: errors of the daemon itself, and CORS for origins that are listed.
pub fn shaped(live: &Live, request: &Seen, mut response: Response) -> Response {
    if !request.ours || !live.legacy_api {
        return response;
    }
    let refusal = response.extensions_mut().remove::<Refusal>();
    if let Some(refusal) = refusal {
        response = http::respond(http::of_refusal(&refusal));
    }
    let origin = request.origin.as_ref().filter(|origin| {
        origin
            .to_str()
            .is_ok_and(|origin| live.guard.is_legacy_origin(origin))
    });
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert("access-control-allow-origin", origin.clone());
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        for (name, value) in CORS {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
    }
    response
}

/// What is remembered of a request until its answer is there.
pub struct Seen {
    ours: bool,
    origin: Option<HeaderValue>,
}

impl Seen {
    /// Of a request.
    pub fn of(request: &Parts) -> Seen {
        Seen {
            ours: is_ours(request.uri.path()),
            origin: request.headers.get(ORIGIN).cloned(),
        }
    }
}

/// Beside the origin itself, as the original had it, with the header of keys.
const CORS: &[(&str, &str)] = &[
    ("access-control-allow-methods", "POST, GET, PUT, DELETE, OPTIONS"),
    ("access-control-max-age", "86400"),
    (
        "access-control-allow-headers",
        "X-Requested-With, X-HTTP-Method-Override, Content-Type, Accept, Authorization, X-Api-Key",
    ),
    ("access-control-allow-credentials", "true"),
];
