//! SockJS 0.3 beneath any path: WebSocket where it works, polling and streaming where it does not.
//!
//! | below the place | what |
//! |---|---|
//! | ``, `/` | greeting |
//! | `/info`, `/iframe*.html`, `/chunking_test` | what clients find out with |
//! | `/websocket` | a WebSocket without SockJS: one text is one message |
//! | `/<server>/<session>/websocket` | a WebSocket with SockJS's frames |
//! | `/<server>/<session>/` `xhr`, `xhr_streaming`, `eventsource`, `htmlfile`, `jsonp` | receive (`receive`) |
//! | `/<server>/<session>/` `xhr_send`, `jsonp_send` | send (`send`) |
//!
//! All of them carry the same conversation; the application cannot tell them apart. Wrong input is a 400 where SockJS
//! itself answers 500.

mod frame;
mod page;
mod receive;
mod send;
mod session;

use crate::legacy::conversation::{Conversation, conversation};
use crate::legacy::websocket::{self, Framing};
use crate::peer::Peer;
use crate::refusal::Written;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hyper::header::{ALLOW, COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use session::Sessions;
use std::net::IpAddr;
use std::sync::Arc;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Begins a conversation with whoever sent the request: spawns the application's side of it.
pub type Open = Arc<dyn Fn(Conversation, &Parts) + Send + Sync>;

/// One place where SockJS is spoken.
#[derive(Clone)]
struct Endpoint {
    open: Open,
    sessions: Sessions,
}

/// Routes of a place, `/channel`: itself, and all below it.
pub fn router<S: Clone + Send + Sync + 'static>(place: &str, open: Open) -> Router<S> {
    let endpoint = Endpoint {
        open,
        sessions: Sessions::default(),
    };
    let bare = {
        let endpoint = endpoint.clone();
        any(move |request| endpoint.answer(String::new(), request))
    };
    let below = any(move |Path(rest): Path<String>, request| endpoint.answer(rest, request));
    Router::new()
        .route(place, bare.clone())
        .route(&format!("{place}/"), bare)
        .route(&format!("{place}/{{*rest}}"), below)
}

/// How a session is received from or sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    WebSocket,
    Xhr,
    XhrStreaming,
    EventSource,
    HtmlFile,
    Jsonp,
    XhrSend,
    JsonpSend,
}

impl Transport {
    fn parse(word: &str) -> Option<Transport> {
        Some(match word {
            "websocket" => Transport::WebSocket,
            "xhr" => Transport::Xhr,
            "xhr_streaming" => Transport::XhrStreaming,
            "eventsource" => Transport::EventSource,
            "htmlfile" => Transport::HtmlFile,
            "jsonp" => Transport::Jsonp,
            "xhr_send" => Transport::XhrSend,
            "jsonp_send" => Transport::JsonpSend,
            _ => return None,
        })
    }

    fn method(self) -> Method {
        match self {
            Transport::WebSocket | Transport::EventSource | Transport::HtmlFile | Transport::Jsonp => {
                Method::GET
            }
            Transport::Xhr | Transport::XhrStreaming | Transport::XhrSend | Transport::JsonpSend => {
                Method::POST
            }
        }
    }
}

impl Endpoint {
    async fn answer(self, rest: String, request: Request) -> Response {
        let mut response = self.serve(rest, request).await;
        response.extensions_mut().insert(Written);
        response
    }

    async fn serve(self, rest: String, request: Request) -> Response {
        let (mut parts, body) = request.into_parts();
        let segments: Vec<&str> = rest.split('/').collect();
        match segments[..] {
            [""] => only(&parts, &Method::GET, page::greeting),
            ["info"] => only(&parts, &Method::GET, page::info),
            ["chunking_test"] => only(&parts, &Method::POST, page::chunking_test),
            ["websocket"] => {
                let (ours, carrier) = conversation();
                (self.open)(ours, &parts);
                websocket::accept(&mut parts, async move |socket| {
                    websocket::carry(socket, carrier, &websocket::Plain).await;
                })
            }
            [name] if page::is_iframe(name) => only(&parts, &Method::GET, || page::iframe(&parts.headers)),
            [server, session, word] if is_id(server) && is_id(session) => match Transport::parse(word) {
                Some(transport) => self.transport(transport, session, parts, body).await,
                None => StatusCode::NOT_FOUND.into_response(),
            },
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    }

    async fn transport(self, transport: Transport, session: &str, mut parts: Parts, body: Body) -> Response {
        if parts.method == Method::OPTIONS {
            return page::preflight(&transport.method());
        }
        if parts.method != transport.method() {
            return not_allowed(&transport.method());
        }
        let cookie = cookie(&parts.headers);
        let from = address(&parts);
        let mut response = match transport {
            Transport::WebSocket => {
                let (ours, carrier) = conversation();
                (self.open)(ours, &parts);
                return websocket::accept(&mut parts, async move |socket| {
                    websocket::carry(socket, carrier, &Frames).await;
                });
            }
            Transport::XhrSend => send::xhr(self.sessions.find(session), from, body).await,
            Transport::JsonpSend => send::jsonp(self.sessions.find(session), from, &parts, body).await,
            Transport::Xhr => receive::xhr(&self, session, from, &parts).await,
            Transport::Jsonp => receive::jsonp(&self, session, from, &parts).await,
            Transport::XhrStreaming => receive::xhr_streaming(&self, session, from, &parts),
            Transport::EventSource => receive::event_source(&self, session, from, &parts),
            Transport::HtmlFile => receive::html_file(&self, session, from, &parts),
        };
        response.headers_mut().insert(SET_COOKIE, cookie);
        response
    }
}

/// What one method of a fixed path answers.
fn only(parts: &Parts, method: &Method, answer: impl FnOnce() -> Response) -> Response {
    match &parts.method {
        &Method::OPTIONS => page::preflight(method),
        asked if asked == method => answer(),
        _ => not_allowed(method),
    }
}

fn not_allowed(method: &Method) -> Response {
    let allow = if *method == Method::GET {
        "OPTIONS, GET"
    } else {
        "OPTIONS, POST"
    };
    (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, allow)]).into_response()
}

/// `[^/.]+`
fn is_id(text: &str) -> bool {
    !text.is_empty() && !text.contains('.')
}

/// Balancers hold on to it: the client's own, else `dummy`.
fn cookie(headers: &HeaderMap) -> HeaderValue {
    let cookies = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';'));
    let own = pairs.find_map(|pair| pair.trim().strip_prefix("JSESSIONID="));
    let own = own.filter(|own| own.len() <= 256).unwrap_or("dummy");
    HeaderValue::from_str(&format!("JSESSIONID={own}; Path=/"))
        .unwrap_or_else(|_| HeaderValue::from_static("JSESSIONID=dummy; Path=/"))
}

/// Where the client is; all of the unix socket are in one place.
fn address(parts: &Parts) -> Option<IpAddr> {
    match parts.extensions.get::<Peer>() {
        Some(Peer::Tcp { from, .. }) => Some(from.ip()),
        _ => None,
    }
}

/// SockJS's frames over a WebSocket.
struct Frames;

impl Framing for Frames {
    fn opening(&self) -> Option<Utf8Bytes> {
        Some(Utf8Bytes::from_static(frame::OPEN))
    }

    fn write(&self, text: &Utf8Bytes) -> Utf8Bytes {
        frame::messages([text.as_str()]).into()
    }

    fn read(&self, bytes: &[u8]) -> Option<Vec<String>> {
        match frame::read(bytes) {
            Ok(texts) => Some(texts),
            Err(frame::Broken::Empty) => Some(Vec::new()),
            Err(frame::Broken::Json) => None,
        }
    }

    fn heartbeat(&self) -> Option<Utf8Bytes> {
        Some(Utf8Bytes::from_static(frame::HEARTBEAT))
    }

    fn goodbye(&self) -> (Option<Utf8Bytes>, u16, &'static str) {
        let close = frame::GO_AWAY;
        (Some(close.frame().into()), close.code, close.reason)
    }
}
