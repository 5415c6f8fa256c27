//! What clients of SockJS ask before they choose a transport.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hyper::body::Bytes;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderValue, IF_NONE_MATCH,
};
use hyper::{Method, StatusCode};
use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::hash::BuildHasher;
use std::time::Duration;

const JSON: &str = "application/json; charset=UTF-8";
pub(super) const SCRIPT: &str = "application/javascript; charset=UTF-8";
pub(super) const HTML: &str = "text/html; charset=UTF-8";
pub(super) const TEXT: &str = "text/plain; charset=UTF-8";

/// Changes with the page.
const IFRAME_TAG: &str = "\"gaffer-sockjs-1\"";

/// A frame of ours that speaks for a page of somebody else. The daemon's own content policy keeps browsers from
/// running it: pages of other sites are not served. It is there for clients that look for it.
const IFRAME: &str = "<!DOCTYPE html>\n<html>\n<head>\n  <meta http-equiv=\"X-UA-Compatible\" content=\"IE=edge\" />\n  \
    <meta http-equiv=\"Content-Type\" content=\"text/html; charset=UTF-8\" />\n</head>\n<body>\n  \
    <h2>Don't panic!</h2>\n  <p>This is a SockJS hidden iframe. It's used for cross domain magic.</p>\n</body>\n</html>\n";

/// Whitespace that makes browsers show what comes.
const PRELUDE: usize = 2048;

/// The greeting.
pub fn greeting() -> Response {
    ([(CONTENT_TYPE, TEXT)], "Welcome to SockJS!\n").into_response()
}

/// What works here.
pub fn info() -> Response {
    // Keys of hash maps are random: so is what they make of nothing.
    let entropy = u32::try_from(RandomState::new().hash_one(()) >> 32).unwrap_or_default();
    let info =
        format!("{{\"websocket\":true,\"cookie_needed\":true,\"origins\":[\"*:*\"],\"entropy\":{entropy}}}");
    ([(CONTENT_TYPE, JSON)], info).into_response()
}

/// `iframe.html`, `iframe-1.2.html`.
pub fn is_iframe(name: &str) -> bool {
    let version = name
        .strip_prefix("iframe")
        .and_then(|rest| rest.strip_suffix(".html"));
    version.is_some_and(|version| {
        version
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    })
}

/// The hidden frame.
pub fn iframe(headers: &HeaderMap) -> Response {
    if headers.get(IF_NONE_MATCH).is_some_and(|tag| tag == IFRAME_TAG) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    (
        [
            (CONTENT_TYPE, HTML),
            (ETAG, IFRAME_TAG),
            (CACHE_CONTROL, "public, max-age=31536000"),
        ],
        IFRAME,
    )
        .into_response()
}

/// Chunks in ever longer distances: which of them come through at once?
pub fn chunking_test() -> Response {
    let prelude = format!("{}h\n", " ".repeat(PRELUDE));
    let mut parts = vec![(0, "h\n".to_owned()), (0, prelude)];
    parts.extend([5, 25, 125, 625, 3125].map(|ms| (ms, "h\n".to_owned())));
    let body = stream::unfold(parts.into_iter(), async |mut parts| {
        let (ms, text) = parts.next()?;
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Some((Ok::<_, Infallible>(Bytes::from(text)), parts))
    });
    ([(CONTENT_TYPE, SCRIPT)], Body::from_stream(body)).into_response()
}

/// What a browser asks before it sends.
pub fn preflight(method: &Method) -> Response {
    let methods = match *method {
        Method::GET => "OPTIONS, GET",
        _ => "OPTIONS, POST",
    };
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("31536000"));
    response
}
