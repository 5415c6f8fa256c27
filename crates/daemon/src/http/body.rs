//! Request bodies: bounded before they are read, JSON with an error that names the place.

use crate::http::Shared;
use crate::refusal::Refusal;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use gaffer_api::error::{Code, Detail};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Bytes};
use hyper::header::{CONTENT_TYPE, EXPECT};
use hyper::http::request::Parts;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Largest body.
pub const BODY_BYTES_MAX: u64 = 4 << 20;

/// So much of a body that is too large is read away, so that the sender reads our answer rather than a reset.
const DISCARD_BYTES_MAX: u64 = 64 << 20;

/// Longest time that a body may take to arrive.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// JSON in and out. In: an empty body reads as `{}`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(pub T);

/// Bytes as they came.
#[derive(Clone, Debug)]
pub struct Raw(pub Bytes);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
            Err(error) => {
                Refusal::new(Code::Internal, format!("the answer cannot be written: {error}")).into_response()
            }
        }
    }
}

impl<T: DeserializeOwned> FromRequest<Shared> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &Shared) -> Result<Json<T>, Refusal> {
        let bytes = read(request).await?;
        let text: &[u8] = if bytes.trim_ascii().is_empty() {
            b"{}"
        } else {
            &bytes
        };
        serde_json::from_slice(text)
            .map(Json)
            .map_err(|error| wrong_json(&error))
    }
}

/// JSON of a body that was read already.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(text).map_err(|error| wrong_json(&error))
}

impl FromRequest<Shared> for Raw {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &Shared) -> Result<Raw, Refusal> {
        read(request).await.map(Raw)
    }
}

fn wrong_json(error: &serde_json::Error) -> Refusal {
    let mut refusal = Refusal::new(Code::BadRequest, format!("the body cannot be read: {error}"));
    let place = |number: usize| u32::try_from(number).ok().filter(|number| *number > 0);
    refusal.0.details.push(Detail {
        line: place(error.line()),
        column: place(error.column()),
        message: error.to_string(),
        ..Detail::default()
    });
    refusal
}

/// The head, and the whole body within the bounds of size and time.
pub async fn whole(request: Request) -> Result<(Parts, Bytes), Refusal> {
    let (parts, body) = request.into_parts();
    let mut asked = Request::new(body);
    if let Some(waits) = parts.headers.get(EXPECT) {
        asked.headers_mut().insert(EXPECT, waits.clone());
    }
    Ok((parts, read(asked).await?))
}

async fn read(request: Request) -> Result<Bytes, Refusal> {
    let waits = request.headers().contains_key(EXPECT);
    let body = request.into_body();
    let announced = body.size_hint().lower();
    if announced > BODY_BYTES_MAX && waits {
        // The sender waits for `100 Continue` and has sent nothing yet.
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIME_MAX, collect(body, announced > BODY_BYTES_MAX)).await {
        Ok(read) => read,
        Err(_) => Err(Refusal::new(Code::TimedOut, "the body did not arrive within 30s")),
    }
}

fn too_large() -> Refusal {
    Refusal::new(
        Code::BodyTooLarge,
        format!("the request is larger than {}M", BODY_BYTES_MAX >> 20),
    )
    .hint("definitions are sent, not data: leave large values in a file that the program reads")
}

/// Reads to the end; what is over the bound is thrown away as it comes.
async fn collect(mut body: Body, mut over: bool) -> Result<Bytes, Refusal> {
    let mut all = Vec::new();
    let mut seen = 0u64;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Refusal::new(Code::BadRequest, format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        seen += data.len() as u64;
        over |= seen > BODY_BYTES_MAX;
        if over {
            all = Vec::new();
        } else {
            all.extend_from_slice(&data);
        }
        if seen > DISCARD_BYTES_MAX {
            break;
        }
    }
    if over { Err(too_large()) } else { Ok(all.into()) }
}
