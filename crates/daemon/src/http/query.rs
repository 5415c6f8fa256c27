//! Parameters of a URL: typed, unknown ones refused.

use crate::refusal::Refusal;
use axum::extract::{FromRequestParts, RawPathParams};
use gaffer_api::error::Code;
use hyper::http::request::Parts;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Parameters behind the `?`.
pub struct Query<T>(pub T);

/// Parameters in the path.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Query<T>, Refusal> {
        axum::extract::Query::<T>::try_from_uri(&parts.uri)
            .map(|query| Query(query.0))
            .map_err(|error| {
                // axum's text begins with its own words; what serde says is behind them.
                let text = error.body_text();
                let text = text
                    .strip_prefix("Failed to deserialize query string: ")
                    .unwrap_or(&text);
                Refusal::new(
                    Code::BadRequest,
                    format!("a parameter of the URL cannot be read: {text}"),
                )
            })
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path<T>, Refusal> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(path) => Ok(Path(path.0)),
            Err(error) => {
                let params = RawPathParams::from_request_parts(parts, state).await;
                let last = params
                    .ok()
                    .and_then(|params| params.iter().last().map(|(_, value)| value.to_owned()));
                let shown = last.unwrap_or_default().escape_debug().to_string();
                let _kind = error;
                Err(Refusal::new(
                    Code::BadName,
                    format!("`{shown}` in the path is not what belongs there"),
                ))
            }
        }
    }
}

/// Longest `?wait=`.
pub const WAIT_MAX: Duration = Duration::from_secs(300);

/// `?wait=30s`, at most five minutes.
pub fn wait(text: Option<&str>) -> Result<Option<Duration>, Refusal> {
    text.map(|text| duration(text).map(|wait| wait.min(WAIT_MAX)))
        .transpose()
}

/// `250ms 30s 5m 1h 2d`, also joined: `1h30m`.
pub fn duration(text: &str) -> Result<Duration, Refusal> {
    gaffer_config::parse_duration(text).map_err(|_| {
        Refusal::new(
            Code::BadValue,
            format!("`{}` is not a duration", text.escape_debug()),
        )
        .hint("write 250ms, 30s, 5m, 1h30m")
    })
}

/// A wall time in Unix milliseconds: RFC 3339, or a duration back from `now_ms`.
pub fn moment(text: &str, now_ms: i64) -> Result<i64, Refusal> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_millisecond());
    }
    let back = duration(text).map_err(|_| {
        Refusal::new(
            Code::BadValue,
            format!("`{}` is neither a time nor a duration", text.escape_debug()),
        )
        .hint("write 2026-11-22T14:00:00Z, or 10m for ten minutes ago")
    })?;
    Ok(now_ms.saturating_sub(i64::try_from(back.as_millis()).unwrap_or(i64::MAX)))
}
