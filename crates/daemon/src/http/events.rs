//! Events: read from a cursor, followed as JSON lines or server-sent events.
//!
//! The stream is pulled: a client that reads slowly keeps its place, and what the ring has overwritten meanwhile is told
//! as one `gap`. Nothing is queued per client but one batch.

use crate::http::Shared;
use crate::http::query::Query;
use crate::refusal::{Answer, Refusal};
use crate::view;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use gaffer::events::{EventLog, matches};
use gaffer::info::{Cursor, EventRecord};
use gaffer_api::error::{Code, ErrorBody};
use gaffer_api::types::Event;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use serde::Deserialize;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use utoipa::IntoParams;

/// Silence after which a stream shows that it lives.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// Events read at once.
const BATCH: usize = 256;

/// Parameters of events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Behind this cursor; `start` (default without `follow`): all that are kept; `end` (default with it): those to come.
    after: Option<String>,
    /// Stay and send what comes.
    #[serde(default)]
    follow: bool,
    /// Pattern of names: `run.*`, several with commas.
    filter: Option<String>,
}

/// How a stream is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `application/jsonl`.
    Lines,
    /// `text/event-stream`.
    Sse,
}

impl Form {
    /// As the request's `Accept` says.
    pub fn of(headers: &HeaderMap) -> Form {
        let accepts = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok());
        match accepts
            .into_iter()
            .any(|value| value.contains("text/event-stream"))
        {
            true => Form::Sse,
            false => Form::Lines,
        }
    }

    /// Content type.
    pub fn kind(self) -> &'static str {
        match self {
            Form::Lines => "application/jsonl",
            Form::Sse => "text/event-stream",
        }
    }

    /// Writes an item; `id` is its cursor, `name` its event.
    pub fn write(self, text: &mut String, id: &str, name: &str, json: &str) {
        // Writing to a String cannot fail.
        let _written = match self {
            Form::Lines => writeln!(text, "{json}"),
            Form::Sse => write!(text, "id: {id}\nevent: {name}\ndata: {json}\n\n"),
        };
    }

    /// A sign of life.
    pub fn heartbeat(self) -> &'static str {
        match self {
            Form::Lines => "\n",
            Form::Sse => ":\n\n",
        }
    }
}

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    patterns: Vec<String>,
}

impl Filter {
    /// From `run.*,job.failed`; none: all.
    pub fn parse(text: Option<&str>) -> Answer<Filter> {
        let patterns: Vec<String> = text
            .into_iter()
            .flat_map(|text| text.split(','))
            .map(|pattern| pattern.trim().to_owned())
            .collect();
        let is_word = |part: &str| {
            part == "*" || (!part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase()))
        };
        if let Some(wrong) = patterns.iter().find(|pattern| !pattern.split('.').all(is_word)) {
            let message = format!("`{}` is no pattern of events", wrong.escape_debug());
            return Err(Refusal::new(Code::BadValue, message).hint("run.exited, run.*, or *"));
        }
        Ok(Filter { patterns })
    }

    /// Is it wanted? A gap always is.
    pub fn takes(&self, name: &str) -> bool {
        name == "gap"
            || self.patterns.is_empty()
            || self.patterns.iter().any(|pattern| matches(pattern, name))
    }
}

/// The cursor that a request starts behind.
pub fn start(events: &EventLog, after: Option<&str>, follow: bool) -> Answer<Cursor> {
    match after {
        Some("start") => Ok(events.oldest()),
        None if !follow => Ok(events.oldest()),
        Some("end") | None => Ok(events.newest()),
        Some(text) => view::parse_cursor(text).ok_or_else(|| {
            Refusal::new(Code::BadValue, format!("`{}` is no cursor", text.escape_debug()))
                .hint("give back the `cursor` of an event, or start, or end")
        }),
    }
}

/// Events as JSON lines or, by `Accept`, as server-sent events.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(EventsQuery),
    responses((status = 200, content((Event = "application/jsonl"), (Event = "text/event-stream"))), (status = "default", body = ErrorBody)))]
pub async fn events(
    State(app): State<Shared>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    let form = Form::of(&headers);
    let log = app.handle.events();
    // A browser that reconnects says where it was in this header.
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let cursor = start(&log, last.or(query.after.as_deref()), query.follow)?;
    let feed = Feed {
        cursor,
        filter: Filter::parse(query.filter.as_deref())?,
        follow: query.follow,
        form,
        node: app.node.clone(),
        log,
        app,
    };
    let body = Body::from_stream(stream::unfold(feed, Feed::next));
    Ok(([(CONTENT_TYPE, form.kind())], body).into_response())
}

struct Feed {
    app: Shared,
    log: EventLog,
    cursor: Cursor,
    filter: Filter,
    follow: bool,
    form: Form,
    node: Arc<str>,
}

impl Feed {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Feed)> {
        loop {
            if let Some(text) = self.batch() {
                return Some((Ok(text.into()), self));
            }
            if !self.follow {
                return None;
            }
            tokio::select! {
                () = self.log.wait(self.cursor) => {}
                () = self.app.closed() => {
                    // What happened last is still told.
                    let text = self.batch()?;
                    return Some((Ok(text.into()), self));
                }
                () = tokio::time::sleep(HEARTBEAT) => {
                    let beat = Bytes::from_static(self.form.heartbeat().as_bytes());
                    return Some((Ok(beat), self));
                }
            }
        }
    }

    /// The next events that are wanted; none at the end.
    fn batch(&mut self) -> Option<String> {
        loop {
            let records = self.log.read(self.cursor, BATCH);
            let last = records.last()?;
            self.cursor = last.cursor;
            let text = self.write(&records);
            if !text.is_empty() {
                return Some(text);
            }
        }
    }

    fn write(&self, records: &[EventRecord]) -> String {
        let mut text = String::new();
        for record in records
            .iter()
            .filter(|record| self.filter.takes(record.event.event))
        {
            let event = view::event(&self.app.handle, record, &self.node);
            // Strings, numbers and maps with text keys always have a JSON form.
            let json = serde_json::to_string(&event).unwrap_or_default();
            self.form.write(&mut text, &event.cursor, &event.event, &json);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_could_match_nothing_is_refused() {
        assert!(Filter::parse(Some("run.*, job.failed")).is_ok());
        for text in ["", "Run.*", "run.", "run.ex*", "a,,b"] {
            assert!(Filter::parse(Some(text)).is_err(), "{text}");
        }
    }
}
