//! The routes of the old APIs: found in one table, so that an unknown path is 404, a known one with another method 405,
//! and a `HEAD` exists only where it was.
//!
//! Authentication, channels and sites have routes of their own; everything else that is not native comes here.

use crate::access::Access;
use crate::http::{Shared, body};
use crate::legacy::error::{LegacyError, Result};
use crate::legacy::{self, jobs, old};
use crate::refusal::Refusal;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Version that clients of the original are told.
pub const VERSION: &str = "0.5.2";

const JSON: &str = "application/json; charset=UTF-8";

/// Paths, with `:name` for one part, and their methods. The first that fits counts.
pub const ROUTES: &[(&str, &str)] = &[
    ("/", "GET"),
    ("/version", "GET"),
    ("/ping", "GET"),
    ("/sessions", "GET"),
    ("/jobs", "GET"),
    ("/pids", "GET"),
    ("/jobs/:session", "GET POST"),
    ("/jobs/:session/:job", "HEAD GET PUT DELETE"),
    ("/jobs/:session/:job/stats", "GET"),
    ("/jobs/:session/:job/numprocesses", "GET POST"),
    ("/jobs/:session/:job/signal", "POST"),
    ("/jobs/:session/:job/state", "GET POST"),
    ("/jobs/:session/:job/pids", "GET"),
    ("/jobs/:session/:job/commit", "POST"),
    ("/processes", "GET POST"),
    ("/processes/:name", "HEAD GET PUT POST DELETE"),
    ("/processes/:name/:action", "GET POST"),
    ("/processes/:name/:action/:value", "POST"),
    ("/status/:name", "GET"),
    ("/groups", "GET"),
    ("/groups/:group", "GET DELETE"),
    ("/groups/:group/:action", "POST"),
    ("/stats", "GET"),
    ("/stats/:name", "GET"),
    ("/stats/:name/:pid", "GET"),
    ("/watch", "GET"),
    ("/watch/:a", "GET"),
    ("/watch/:a/:b", "GET"),
    ("/watch/:a/:b/:c", "GET"),
    ("/streams/:pid/:label", "GET POST"),
    ("/:pid", "HEAD GET DELETE"),
    ("/:pid/signal", "POST"),
    ("/:pid/stats", "GET"),
    ("/:pid/:other", "GET"),
];

/// A request whose path is known.
pub struct Call {
    /// What handlers share.
    pub app: Shared,
    /// What the sender may do.
    pub access: Access,
    /// The path of [`ROUTES`].
    pub route: &'static str,
    /// Method.
    pub method: Method,
    /// The parts that the path leaves open, in their order.
    pub parts: Vec<String>,
    /// Parameters behind the `?`.
    pub query: BTreeMap<String, String>,
    /// In a lock, as a body cannot be shared.
    body: Mutex<Option<Request>>,
}

impl Call {
    /// An open part of the path.
    pub fn part(&self, at: usize) -> &str {
        self.parts.get(at).map_or("", String::as_str)
    }

    /// The whole body, within the bounds of all bodies.
    pub async fn bytes(&mut self) -> Result<hyper::body::Bytes> {
        let Ok(Some(request)) = self.body.get_mut().map(Option::take) else {
            return Ok(hyper::body::Bytes::new());
        };
        match body::whole(request).await {
            Ok((_, bytes)) => Ok(bytes),
            Err(refusal) => Err(of_refusal(&refusal)),
        }
    }

    /// The body as JSON.
    pub async fn json(&mut self) -> Result<Value> {
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| LegacyError::bad_request(format!("the body is no JSON: {error}")))
    }

    /// The body as JSON; an empty one is an empty object.
    pub async fn json_or_empty(&mut self) -> Result<Value> {
        let bytes = self.bytes().await?;
        if bytes.trim_ascii().is_empty() {
            return Ok(Value::Object(serde_json::Map::new()));
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| LegacyError::bad_request(format!("the body is no JSON: {error}")))
    }

    /// Refuses unless it is allowed.
    pub fn require(&self, allowed: bool) -> Result<()> {
        if allowed {
            return Ok(());
        }
        Err(LegacyError::forbidden("the key does not allow this"))
    }
}

/// Answers a request for an old API.
pub async fn answer(State(app): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if !legacy::is_ours(parts.uri.path()) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let path: Vec<String> = parts.uri.path().split('/').skip(1).map(decoded).collect();
    let Some((route, methods, open)) = find(&path) else {
        // Nobody's: the daemon answers as for any unknown route.
        return StatusCode::NOT_FOUND.into_response();
    };
    let Some(access) = parts.extensions.get::<Access>().cloned() else {
        return respond(LegacyError::new(500, "internal", "nobody said who asks"));
    };
    if !methods.split(' ').any(|method| method == parts.method.as_str()) {
        let mut response = respond(LegacyError::new(405, "method_not_allowed", "method not allowed"));
        let allow = HeaderValue::from_str(&methods.replace(' ', ", "));
        allow
            .into_iter()
            .for_each(|allow| drop(response.headers_mut().insert(ALLOW, allow)));
        return response;
    }
    let call = Call {
        app,
        access,
        route,
        method: parts.method.clone(),
        parts: open,
        query: query(parts.uri.query().unwrap_or_default()),
        body: Mutex::new(Some(Request::from_parts(parts, body))),
    };
    let head = call.method == Method::HEAD;
    let old = matches!(
        route.split('/').nth(1),
        Some("processes" | "status" | "groups" | "stats" | "watch" | "streams")
    );
    let answered = if old {
        old::answer(call).await
    } else {
        jobs::answer(call).await
    };
    let mut response = answered.unwrap_or_else(respond);
    if head {
        *response.body_mut() = Body::empty();
    }
    response
}

/// The route of a path, its methods, and its open parts.
fn find(path: &[String]) -> Option<(&'static str, &'static str, Vec<String>)> {
    ROUTES.iter().find_map(|(route, methods)| {
        let wanted: Vec<&str> = route.split('/').skip(1).collect();
        if wanted.len() != path.len() {
            return None;
        }
        let mut open = Vec::new();
        for (want, have) in wanted.iter().zip(path) {
            match want.strip_prefix(':') {
                Some("pid") if *want == wanted[0] && !have.bytes().all(|byte| byte.is_ascii_digit()) => {
                    return None;
                }
                Some(_) if have.is_empty() => return None,
                Some(_) => open.push(have.clone()),
                None if want == have => {}
                None => return None,
            }
        }
        Some((*route, *methods, open))
    })
}

fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let split = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    split
        .map(|(key, value)| (decoded(key), decoded(&value.replace('+', " "))))
        .collect()
}

/// Without `%XX`; what is not UTF-8 then is replaced.
fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}

/// A JSON answer.
pub fn json(status: u16, value: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(CONTENT_TYPE, JSON)], value.to_string()).into_response()
}

/// A plain text.
pub fn text(text: &'static str) -> Response {
    ([(CONTENT_TYPE, "text/plain; charset=UTF-8")], text).into_response()
}

/// An error as an answer.
pub fn respond(error: LegacyError) -> Response {
    json(error.status, &error.body())
}

/// A refusal of the daemon itself, in the old words.
pub fn of_refusal(refusal: &Refusal) -> LegacyError {
    let status = refusal.status().as_u16();
    let word = match status {
        400 => "bad_request",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not_found",
        405 => "method_not_allowed",
        409 => "conflict",
        _ => "error",
    };
    LegacyError::new(status, word, refusal.0.message.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str) -> Option<&'static str> {
        let parts: Vec<String> = path.split('/').skip(1).map(decoded).collect();
        find(&parts).map(|(route, ..)| route)
    }

    #[test]
    fn s6_1_a_trailing_slash_is_another_path() {
        assert_eq!(route("/jobs"), Some("/jobs"));
        assert_eq!(route("/jobs/"), None);
        assert_eq!(route("/"), Some("/"));
        assert_eq!(route("/12"), Some("/:pid"));
        assert_eq!(route("/12/34"), Some("/:pid/:other"));
        assert_eq!(route("/nothing"), None);
        assert_eq!(route("/processes/shop%3Aweb"), Some("/processes/:name"));
    }
}
