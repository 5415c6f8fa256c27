//! Transports that send: one request for some messages.

use crate::legacy::sockjs::frame::{self, Broken};
use crate::legacy::sockjs::page::TEXT;
use crate::legacy::sockjs::session::Session;
use crate::legacy::websocket::MESSAGE_BYTES_MAX;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long a body may take to arrive, and an application to take it.
const SEND_TIME_MAX: Duration = Duration::from_secs(30);

/// Of a form that holds a message, every byte may be three.
const BODY_BYTES_MAX: usize = 3 * MESSAGE_BYTES_MAX;

/// `xhr_send`: 204.
pub async fn xhr(session: Option<Arc<Session>>, from: Option<IpAddr>, body: Body) -> Response {
    let sent = match whole(body).await {
        Ok(bytes) => deliver(session, from, &bytes).await,
        Err(refused) => Err(refused),
    };
    sent.map_or_else(
        |(status, text)| refuse(status, text),
        |()| (StatusCode::NO_CONTENT, [(CONTENT_TYPE, TEXT)]).into_response(),
    )
}

/// `jsonp_send`: the messages are the body, or the field `d` of a form; `ok`.
pub async fn jsonp(
    session: Option<Arc<Session>>,
    from: Option<IpAddr>,
    parts: &Parts,
    body: Body,
) -> Response {
    let kind = parts
        .headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let is_form = kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    let sent = match whole(body).await {
        Ok(bytes) if is_form => deliver(session, from, &field(&bytes, "d").unwrap_or_default()).await,
        Ok(bytes) => deliver(session, from, &bytes).await,
        Err(refused) => Err(refused),
    };
    sent.map_or_else(
        |(status, text)| refuse(status, text),
        |()| ([(CONTENT_TYPE, TEXT)], "ok").into_response(),
    )
}

/// How something is refused.
type Refused = (StatusCode, &'static str);

const NO_SESSION: Refused = (StatusCode::NOT_FOUND, "There is no such session.");

pub(super) fn refuse(status: StatusCode, text: &'static str) -> Response {
    (status, [(CONTENT_TYPE, TEXT)], text).into_response()
}

async fn whole(body: Body) -> Result<Vec<u8>, Refused> {
    let read = Limited::new(body, BODY_BYTES_MAX).collect();
    match tokio::time::timeout(SEND_TIME_MAX, read).await {
        Ok(Ok(body)) => Ok(body.to_bytes().to_vec()),
        Ok(Err(_)) => Err((StatusCode::PAYLOAD_TOO_LARGE, "The body is too large.")),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "The body took too long.")),
    }
}

async fn deliver(session: Option<Arc<Session>>, from: Option<IpAddr>, bytes: &[u8]) -> Result<(), Refused> {
    let session = session.ok_or(NO_SESSION)?;
    let texts = frame::read(bytes).map_err(|broken: Broken| (StatusCode::BAD_REQUEST, broken.text()))?;
    if texts.iter().any(|text| text.len() > MESSAGE_BYTES_MAX) {
        return Err((StatusCode::PAYLOAD_TOO_LARGE, "A message is too large."));
    }
    match tokio::time::timeout(SEND_TIME_MAX, session.send(from, texts)).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(NO_SESSION),
        Err(_) => Err((
            StatusCode::SERVICE_UNAVAILABLE,
            "The messages before are still being worked on.",
        )),
    }
}

/// A field of a form.
pub(super) fn field(form: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut pairs = form.split(|byte| *byte == b'&');
    pairs.find_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (pair.get(..at)?, pair.get(at + 1..)?);
        (key == name.as_bytes()).then(|| decode(value))
    })
}

fn decode(text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match (*first, after) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, tail @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                    rest = tail;
                }
                _ => bytes.push(b'%'),
            },
            (byte, _) => bytes.push(byte),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_a_form_is_decoded() {
        let form = b"x=1&d=%5B%22a+b%25%22%5D&y";
        assert_eq!(field(form, "d"), Some(b"[\"a b%\"]".to_vec()));
        assert_eq!(field(form, "y"), None);
        assert_eq!(decode(b"%zz%4"), b"%zz%4");
    }
}
