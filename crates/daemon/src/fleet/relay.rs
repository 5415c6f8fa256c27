//! `?node=PATTERN`: one request, asked of all nodes that the pattern chooses, this one among them.
//!
//! What the caller has shown stays here. Another node is shown the credential that this daemon's file has for it, which
//! may allow more than the caller may do; therefore only an admin has other nodes asked, who could read that file himself
//! and so gains nothing. What changes something goes only to nodes that the file names: the request itself may hold
//! secrets, and a look-up service vouches for nobody. The parameter is taken off, so no node asks others in turn.
//!
//! A node that does not answer is an entry of its own and nothing to the others. All is bounded: nodes that are asked at
//! once, the time of each, the size of each answer and of all, and requests of this kind at once.

use super::{AT_ONCE, Other, age_ms, others};
use crate::access::Access;
use crate::http::body::{self, Json};
use crate::http::server::{render, route};
use crate::http::{Shared, query};
use crate::refusal::{Answer, Refusal};
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use gaffer_api::ClientError;
use gaffer_api::client::{RawAnswer, RawCall, next_link, refusal};
use gaffer_api::error::{ApiError, Code};
use gaffer_api::lookup::matches_name;
use gaffer_api::types::OfNode;
use http_body_util::{BodyExt, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, IF_MATCH, LINK, UPGRADE};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode, Uri};
use serde_json::Value;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Requests over nodes at once; others wait.
pub const AT_ONCE_MAX: usize = 4;

/// How long a node may take, beside what the request itself waits.
pub const NODE_TIME_MAX: Duration = Duration::from_secs(10);

/// Longest time of all.
const TIME_MAX: Duration = Duration::from_secs(330);

/// Largest answer of a node, and of all nodes together.
const ANSWER_BYTES_MAX: usize = 4 << 20;
const ANSWERS_BYTES_MAX: usize = 64 << 20;

/// Headers that go along; a credential is none of them.
static PASSED: [HeaderName; 4] = [
    ACCEPT,
    CONTENT_TYPE,
    IF_MATCH,
    HeaderName::from_static("idempotency-key"),
];

/// Patterns of nodes, and the request without them.
pub struct Asked {
    patterns: Vec<String>,
    uri: Uri,
}

/// Does a request ask for nodes?
pub fn asked(parts: &Parts) -> Option<Asked> {
    let path = parts.uri.path();
    // The list of nodes has a parameter of this name itself.
    if !path.starts_with("/v1/") || path == "/v1/nodes" || path.starts_with("/v1/nodes/") {
        return None;
    }
    let (of_nodes, rest): (Vec<&str>, Vec<&str>) = parts
        .uri
        .query()?
        .split('&')
        .partition(|pair| pair.starts_with("node="));
    let mut patterns = Vec::new();
    for (_, text) in form_pairs(&of_nodes.join("&")) {
        patterns.extend(text.split(',').map(str::to_owned));
    }
    if patterns.is_empty() {
        return None;
    }
    let uri = match rest.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", rest.join("&")),
    };
    // Parts of one that was read already.
    let uri = uri.parse().ok()?;
    Some(Asked { patterns, uri })
}

fn form_pairs(query: &str) -> Vec<(String, String)> {
    let uri = format!("/?{query}").parse::<Uri>().ok();
    let pairs = uri.and_then(|uri| axum::extract::Query::try_from_uri(&uri).ok());
    pairs.map_or_else(Vec::new, |pairs| pairs.0)
}

/// Asks all of them.
pub async fn over_nodes(app: &Shared, router: Router, parts: Parts, body: Body, asked: Asked) -> Response {
    let carried = timeout(TIME_MAX, try_over_nodes(app, router, parts, body, asked)).await;
    match carried {
        Ok(Ok(entries)) => Json(entries).into_response(),
        Ok(Err(refusal)) => refusal.into_response(),
        Err(_) => Refusal::new(Code::TimedOut, "the nodes took too long").into_response(),
    }
}

async fn try_over_nodes(
    app: &Shared,
    router: Router,
    parts: Parts,
    body: Body,
    asked: Asked,
) -> Answer<Vec<OfNode>> {
    let access = parts.extensions.get::<Access>().cloned();
    let access = access.filter(|access| !access.is_nobody());
    let access = access.ok_or_else(|| Refusal::new(Code::Unauthorized, "this needs a token"))?;
    refuse_streams(&parts, &asked.uri)?;
    let (own, others) = chosen(app, &access, &asked.patterns).await?;
    // Only what is open for ever keeps it from being there.
    let _permit = app.fleet.relays.acquire().await.map_err(|_| closed())?;
    let (mut parts, body) = body::whole(Request::from_parts(parts, body)).await?;
    parts.uri = asked.uri;
    let changes = !matches!(parts.method, Method::GET | Method::HEAD);
    if changes && !others.is_empty() {
        let names: Vec<&str> = others.iter().map(|other| other.name.as_str()).collect();
        tracing::info!(by = %access.actor(), line = %format!("{} {}", parts.method, parts.uri.path()), nodes = %names.join(","), "request.relayed");
    }
    let work = Work::new(&parts, &body)?;
    let far: Vec<_> = others.iter().map(|other| work.at(app, other)).collect();
    let far = stream::iter(far).buffered(AT_ONCE).collect::<Vec<Came>>();
    let near = async {
        match own {
            true => Some(here(app, router, parts.clone(), body.clone(), &work.spent).await),
            false => None,
        }
    };
    let (near, far) = tokio::join!(near, far);
    let mut entries: Vec<OfNode> = near
        .into_iter()
        .chain(far)
        .map(|(at, entry)| OfNode {
            age_ms: entry.age_ms.or(at.map(age_ms)),
            ..entry
        })
        .collect();
    entries.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(entries)
}

fn closed() -> Refusal {
    Refusal::new(Code::ShuttingDown, "the daemon is ending")
}

/// What never ends cannot be put into a list.
fn refuse_streams(parts: &Parts, uri: &Uri) -> Answer<()> {
    let pairs = form_pairs(uri.query().unwrap_or_default());
    let follows = pairs
        .iter()
        .any(|(key, value)| key == "follow" && value != "false");
    let accepts = parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let is_sse = accepts.is_some_and(|accepts| accepts.contains("text/event-stream"));
    if follows || is_sse || parts.headers.contains_key(UPGRADE) {
        return Err(
            Refusal::new(Code::BadRequest, "a stream comes from one node only")
                .hint("ask each node itself: /v1/nodes has their URLs"),
        );
    }
    Ok(())
}

/// Is this node among them, and which others are? At least one is.
async fn chosen(app: &Shared, access: &Access, patterns: &[String]) -> Answer<(bool, Vec<Other>)> {
    let is_chosen = |name: &str| patterns.iter().any(|pattern| matches_name(pattern, name));
    let own = is_chosen(&app.node);
    // Who may not see the other nodes does not learn from this which there are.
    let known = match access.may_read_all() {
        true => others(app).await,
        false => Vec::new(),
    };
    let (mut chosen, mut names) = (Vec::new(), vec![app.node.to_string()]);
    for other in known {
        names.push(other.name.clone());
        if is_chosen(&other.name) {
            chosen.push(other);
        }
    }
    if !own && chosen.is_empty() {
        names.truncate(20);
        let message = format!("no node `{}`", patterns.join("`, `").escape_debug());
        return Err(Refusal::new(Code::NodeNotFound, message).hint(format!("there are: {}", names.join(" "))));
    }
    if !chosen.is_empty() && !access.is_admin() {
        let message = format!(
            "{} may not have other nodes asked: it needs admin",
            access.actor()
        );
        return Err(Refusal::new(Code::Forbidden, message).hint(
            "they would be shown this daemon's own tokens; ask each node itself, /v1/nodes has their URLs",
        ));
    }
    Ok((own, chosen))
}

/// What came of it at a node, and when that was known; not at all where nothing was said now.
type Came = (Option<Instant>, OfNode);

/// One request for many nodes.
struct Work {
    method: Method,
    path: String,
    headers: Vec<(HeaderName, String)>,
    body: Bytes,
    patience: Duration,
    /// Bytes of answers so far.
    spent: AtomicUsize,
}

impl Work {
    fn new(parts: &Parts, body: &Bytes) -> Answer<Work> {
        let pairs = form_pairs(parts.uri.query().unwrap_or_default());
        let wait = pairs.iter().find(|(key, _)| key == "wait");
        let wait = query::wait(wait.map(|(_, text)| text.as_str()))?.unwrap_or_default();
        let headers = PASSED.iter().filter_map(|name| {
            let value = parts.headers.get(name)?.to_str().ok()?;
            Some((name.clone(), value.to_owned()))
        });
        Ok(Work {
            method: parts.method.clone(),
            path: parts
                .uri
                .path_and_query()
                .map_or_else(|| "/".to_owned(), ToString::to_string),
            headers: headers.collect(),
            body: body.clone(),
            patience: wait + NODE_TIME_MAX,
            spent: AtomicUsize::new(0),
        })
    }

    async fn at(&self, app: &Shared, other: &Other) -> Came {
        let entry = OfNode {
            node: other.name.clone(),
            ..OfNode::default()
        };
        let changes = !matches!(self.method, Method::GET | Method::HEAD);
        if changes && other.own.is_none() {
            let error = ApiError::new(
                Code::Forbidden,
                "only a look-up service knows this node: it is not sent changes",
            );
            let error = error.hint(format!("name it in the daemon's file: [node.{}]", other.name));
            return (None, failed(entry, error));
        }
        let client = match other.client() {
            Ok(client) => client,
            Err(why) => return (None, failed(entry, ApiError::new(Code::NodeUnreachable, why))),
        };
        let call = RawCall {
            method: self.method.clone(),
            path: self.path.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
        };
        let why = match timeout(self.patience, client.raw(call, ANSWER_BYTES_MAX)).await {
            Ok(Ok(answer)) => {
                app.fleet.hears(other, None);
                return (Some(Instant::now()), entry_of(entry, answer, &self.spent));
            }
            Ok(Err(ClientError::Protocol(why))) => {
                return (
                    Some(Instant::now()),
                    failed(entry, ApiError::new(Code::BadAnswer, why)),
                );
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {}s", self.patience.as_secs()),
        };
        let entry = OfNode {
            status: "unreachable".to_owned(),
            error: Some(ApiError::new(Code::NodeUnreachable, why)),
            age_ms: app.fleet.last(other).0,
            ..entry
        };
        (None, entry)
    }
}

/// The request at this node, as if it had named none.
async fn here(app: &Shared, router: Router, parts: Parts, body: Bytes, spent: &AtomicUsize) -> Came {
    let entry = OfNode {
        node: app.node.to_string(),
        ..OfNode::default()
    };
    let response = render(route(router, parts, Body::from(body)).await, "");
    let (head, body) = response.into_parts();
    let entry = match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
        Ok(body) => entry_of(
            entry,
            RawAnswer {
                status: head.status,
                headers: head.headers,
                body: body.to_bytes(),
            },
            spent,
        ),
        Err(_) => failed(entry, too_long()),
    };
    (Some(Instant::now()), entry)
}

fn failed(entry: OfNode, error: ApiError) -> OfNode {
    OfNode {
        status: "failed".to_owned(),
        error: Some(error),
        ..entry
    }
}

fn too_long() -> ApiError {
    ApiError::new(Code::BadAnswer, "the answer is too long to be put into a list")
        .hint("ask for less with ?limit=, or that node itself")
}

fn entry_of(entry: OfNode, answer: RawAnswer, spent: &AtomicUsize) -> OfNode {
    if spent.fetch_add(answer.body.len(), Ordering::Relaxed) + answer.body.len() > ANSWERS_BYTES_MAX {
        return failed(entry, too_long());
    }
    if !answer.status.is_success() {
        return failed(entry, error_of(answer.status, &answer.body));
    }
    let next = answer.headers.get(LINK).and_then(|link| link.to_str().ok());
    match result(&answer.headers, &answer.body) {
        Some(result) => OfNode {
            status: "ok".to_owned(),
            result: Some(result),
            next: next.and_then(next_link),
            ..entry
        },
        None => failed(
            entry,
            ApiError::new(Code::BadAnswer, "the answer is neither JSON nor text"),
        ),
    }
}

fn error_of(status: StatusCode, body: &[u8]) -> ApiError {
    match refusal(status.as_u16(), body) {
        ClientError::Api(error, _) => *error,
        other => ApiError::new(Code::BadAnswer, other.to_string()),
    }
}

/// JSON as it is, other text as a text.
fn result(headers: &HeaderMap, body: &Bytes) -> Option<Value> {
    if body.is_empty() {
        return Some(Value::Null);
    }
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes());
    match kind
        .is_some_and(|kind| kind.starts_with(b"application/json") && !kind.starts_with(b"application/jsonl"))
    {
        true => serde_json::from_slice(body).ok(),
        false => std::str::from_utf8(body).ok().map(Value::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str) -> Parts {
        let request = Request::builder().uri(uri).body(()).expect("a request");
        request.into_parts().0
    }

    #[test]
    fn the_parameter_is_taken_off_and_may_name_several() {
        let asked = asked(&parts("/v1/jobs?state=failed&node=a%2Ab,c&limit=2&node=d")).expect("nodes");
        assert_eq!(asked.patterns, ["a*b", "c", "d"]);
        assert_eq!(asked.uri.to_string(), "/v1/jobs?state=failed&limit=2");
        for uri in [
            "/v1/jobs",
            "/v1/jobs?x=node=a",
            "/v1/nodes?node=a",
            "/v1/nodes/a?node=a",
            "/metrics?node=a",
            "/jobs?node=a",
        ] {
            assert!(super::asked(&parts(uri)).is_none(), "{uri}");
        }
    }

    #[test]
    fn what_is_no_json_is_a_text_and_what_is_no_text_is_an_error() {
        let of = |kind: &str, body: &'static [u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, kind.parse().expect("a type"));
            result(&headers, &Bytes::from_static(body))
        };
        assert_eq!(of("application/json", b"[1]"), Some(serde_json::json!([1])));
        assert_eq!(of("application/toml", b"a = 1"), Some(Value::from("a = 1")));
        assert_eq!(of("application/jsonl", b"1\n2\n"), Some(Value::from("1\n2\n")));
        assert_eq!(of("application/octet-stream", b"\xff"), None);
    }
}
