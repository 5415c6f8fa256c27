//! Feeds of 0.4: events, statistics and output, by `longpoll`, `continuous` or `eventsource`, with a heartbeat.
//!
//! A feed holds a cursor and nothing else: who reads slowly costs no memory, and misses what the log of events has
//! dropped by then.

use crate::access::Access;
use crate::http::Shared;
use crate::legacy::error::{LegacyError, Result};
use crate::legacy::events::{self, Pattern};
use crate::legacy::http::Call;
use crate::legacy::objects::{self, Sample};
use crate::legacy::{names, old};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use gaffer::events::EventLog;
use gaffer::info::Cursor;
use gaffer::logs::{Chunk, LogReader};
use gaffer_core::name::{JobId, RunId};
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write;
use std::time::Duration;
use tokio::time::Instant;

/// Without `heartbeat=`.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// Longest that can be asked for.
const HEARTBEAT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Events that are read at once.
const BATCH: usize = 64;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 64 << 10;

/// Between two samples.
const STATS_EVERY: Duration = Duration::from_secs(1);

/// How a feed is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The first, then the end.
    Longpoll,
    /// One after the other.
    Continuous,
    /// Server-sent events.
    Eventsource,
}

#[derive(Clone, Copy, Debug)]
struct Way {
    form: Form,
    beat: Option<Duration>,
}

impl Way {
    fn of(call: &Call) -> Result<Way> {
        let form = match call.query.get("feed").map(String::as_str) {
            None | Some("longpoll") => Form::Longpoll,
            Some("continuous") => Form::Continuous,
            Some("eventsource") => Form::Eventsource,
            Some(other) => return Err(LegacyError::bad_value(format!("`{other}` is no feed"))),
        };
        let beat = match call.query.get("heartbeat").map(String::as_str) {
            None | Some("true") => Some(HEARTBEAT),
            Some("false") => None,
            Some(seconds) => match seconds.parse::<f64>() {
                Ok(seconds) if (0.05..=HEARTBEAT_MAX.as_secs_f64()).contains(&seconds) => {
                    Some(Duration::from_secs_f64(seconds))
                }
                _ => {
                    return Err(LegacyError::bad_value(
                        "`heartbeat` is true, false or a number of seconds",
                    ));
                }
            },
        };
        Ok(Way { form, beat })
    }

    fn kind(self, plain: &'static str) -> &'static str {
        if self.form == Form::Eventsource {
            "text/event-stream"
        } else {
            plain
        }
    }

    /// An old client chokes on a bare newline among server-sent events.
    fn heartbeat(self) -> &'static str {
        if self.form == Form::Eventsource {
            ":\r\n\r\n"
        } else {
            "\n"
        }
    }

    fn json(self, text: &mut String, topic: &str, body: &Value) {
        // A string takes whatever is written.
        let _infallible = match self.form {
            Form::Eventsource => write!(text, "event: {topic}\r\ndata: {body}\r\n\r\n"),
            _ => write!(text, "{body}\r\n"),
        };
    }
}

/// Where the next pieces of a feed come from.
enum Source {
    Events {
        log: EventLog,
        cursor: Cursor,
        pattern: Pattern,
    },
    Stats {
        job: JobId,
        pid: Option<u64>,
        due: Instant,
    },
    Output {
        reader: Box<LogReader>,
        offset: u64,
        label: String,
        run: RunId,
        rest: Vec<u8>,
        seen: Cursor,
    },
}

struct Feed {
    app: Shared,
    access: Access,
    way: Way,
    source: Source,
    ready: VecDeque<Bytes>,
    over: bool,
}

/// What woke a feed.
enum Woken {
    News,
    Beat,
    End,
}

impl Feed {
    async fn next(mut self) -> Option<(std::result::Result<Bytes, Infallible>, Feed)> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                if self.way.form == Form::Longpoll {
                    self.over = true;
                    self.ready.clear();
                }
                return Some((Ok(piece), self));
            }
            if self.over {
                return None;
            }
            self.read().await;
            if !self.ready.is_empty() || self.over {
                continue;
            }
            match self.wait().await {
                Woken::News => {}
                Woken::End => return None,
                Woken::Beat => {
                    let beat = Bytes::from_static(self.way.heartbeat().as_bytes());
                    return Some((Ok(beat), self));
                }
            }
        }
    }

    async fn wait(&mut self) -> Woken {
        let beat = self.way.beat;
        let beats = async move {
            match beat {
                Some(beat) => tokio::time::sleep(beat).await,
                None => std::future::pending().await,
            }
        };
        let (app, ended) = (self.app.clone(), self.access.ended());
        let log = self.app.handle.events();
        let news = async {
            match &mut self.source {
                Source::Events { log, cursor, .. } => log.wait(*cursor).await,
                Source::Stats { due, .. } => tokio::time::sleep_until(*due).await,
                Source::Output {
                    reader, offset, seen, ..
                } => tokio::select! {
                    _grown = reader.grown(*offset) => {}
                    () = log.wait(*seen) => {}
                },
            }
        };
        tokio::select! {
            () = news => Woken::News,
            () = beats => Woken::Beat,
            () = app.closed() => Woken::End,
            () = ended => Woken::End,
        }
    }

    async fn read(&mut self) {
        match &mut self.source {
            Source::Events { .. } => self.read_events(),
            Source::Stats { .. } => self.read_stats().await,
            Source::Output { .. } => self.read_output(),
        }
    }

    fn read_events(&mut self) {
        let Source::Events { log, cursor, pattern } = &mut self.source else {
            return;
        };
        for record in log.read(*cursor, BATCH) {
            *cursor = record.cursor;
            for message in events::translated_old(&self.app.handle, &record.event) {
                // A pattern names a job's topics with a dot where the name has a colon.
                if pattern.matches(&message.topic) || pattern.matches(&message.topic.replace(':', ".")) {
                    let mut text = String::new();
                    self.way
                        .json(&mut text, &message.topic, &Value::Object(message.body));
                    self.ready.push_back(text.into());
                }
            }
        }
    }

    async fn read_stats(&mut self) {
        let Source::Stats { job, pid, due } = &mut self.source else {
            return;
        };
        if *due > Instant::now() {
            return;
        }
        *due = Instant::now() + STATS_EVERY;
        let handle = &self.app.handle;
        let Ok(info) = objects::job(handle, job) else {
            self.over = true;
            return;
        };
        let (kept, out) = objects::processes(handle, &info);
        let mut found = false;
        for process in kept.iter().chain(&out) {
            if pid.is_some_and(|pid| pid != process.pid) {
                continue;
            }
            found = true;
            if let Ok(sample) = objects::sample(handle, process).await {
                let mut body = Map::new();
                body.insert("event".to_owned(), "stat".into());
                body.insert("name".to_owned(), names::old_name(job).into());
                body.extend(old_sample(&sample));
                let mut text = String::new();
                self.way.json(&mut text, "stat", &Value::Object(body));
                self.ready.push_back(text.into());
            }
        }
        self.over = pid.is_some() && !found;
    }

    fn read_output(&mut self) {
        let now = self.app.handle.events().newest();
        let alive = match &self.source {
            Source::Output { run, .. } => {
                let handle = &self.app.handle;
                handle.run_of_pid(handle.pid_of(*run)).is_some()
            }
            _ => return,
        };
        let Source::Output {
            reader,
            offset,
            label,
            rest,
            seen,
            ..
        } = &mut self.source
        else {
            return;
        };
        *seen = now;
        loop {
            match reader.read(*offset, PIECE_BYTES) {
                Ok(Some(Chunk::Bytes {
                    offset: from, data, ..
                })) => {
                    *offset = from + data.len() as u64;
                    if self.way.form == Form::Eventsource {
                        rest.extend_from_slice(&data);
                        if let Some(text) = lines(label, rest) {
                            self.ready.push_back(text.into());
                        }
                    } else {
                        self.ready.push_back(data.into());
                    }
                    if !self.ready.is_empty() {
                        return;
                    }
                }
                Ok(Some(Chunk::Dropped { .. })) => {}
                Ok(Some(Chunk::Gap { to, .. })) => *offset = to,
                Ok(None) => break,
                Err(_) => {
                    self.over = true;
                    return;
                }
            }
        }
        self.over = !alive;
    }
}

/// Whole lines as one server-sent event; what has no end yet stays.
fn lines(label: &str, rest: &mut Vec<u8>) -> Option<String> {
    let end = match rest.iter().rposition(|byte| *byte == b'\n') {
        Some(end) => end + 1,
        None if rest.len() >= PIECE_BYTES => rest.len(),
        None => return None,
    };
    let whole: Vec<u8> = rest.drain(..end).collect();
    let mut text = format!("event: {label}\r\n");
    for line in String::from_utf8_lossy(&whole).lines() {
        text.push_str("data: ");
        text.push_str(line);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    Some(text)
}

/// A sample with 0.4's numbers: `pid` is the OS's, `id` ours.
pub fn old_sample(sample: &Sample) -> Map<String, Value> {
    let mut fields = sample.fields.clone();
    fields.remove("os_pid");
    fields.insert("id".to_owned(), sample.pid.into());
    fields.insert("pid".to_owned(), sample.os_pid.into());
    let status = std::fs::read_to_string(format!("/proc/{}/status", sample.os_pid)).unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let uid = uid
        .and_then(|ids| ids.split_ascii_whitespace().next())
        .and_then(|uid| uid.parse().ok());
    let user = uid.map(|uid| crate::peer::user_name(crate::peer::Uid(uid)));
    fields.insert(
        "username".to_owned(),
        user.map_or(Value::from("N/A"), Value::from),
    );
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", sample.os_pid)).unwrap_or_default();
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    // Field 19 of the file; the first behind the name is field 3.
    let nice: Option<i64> = behind
        .split_ascii_whitespace()
        .nth(16)
        .and_then(|nice| nice.parse().ok());
    let nice = nice.map_or(Value::from("N/A"), Value::from);
    fields.insert("nicce".to_owned(), nice.clone());
    fields.insert("nice".to_owned(), nice);
    let line = std::fs::read(format!("/proc/{}/cmdline", sample.os_pid)).unwrap_or_default();
    let program =
        String::from_utf8_lossy(line.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    let base = program.rsplit('/').next().unwrap_or_default().to_owned();
    fields.insert("cmdline".to_owned(), base.into());
    // Children have no number of ours.
    let children = sample.children.iter().map(|child| {
        let mut child = old_sample(child);
        child.remove("id");
        Value::Object(child)
    });
    fields.insert("children".to_owned(), children.collect());
    fields
}

fn respond(call: &Call, way: Way, source: Source, plain: &'static str) -> Response {
    let feed = Feed {
        app: call.app.clone(),
        access: call.access.clone(),
        way,
        source,
        ready: VecDeque::new(),
        over: false,
    };
    let body = Body::from_stream(futures_util::stream::unfold(feed, Feed::next));
    (
        [(CONTENT_TYPE, way.kind(plain)), (CACHE_CONTROL, "no-cache")],
        body,
    )
        .into_response()
}

/// First parts of the topics that there are.
const TOPICS: &[&str] = &[
    "create", "delete", "start", "stop", "update", "restart", "spawn", "reap", "stop_pid", "exit", "proc",
];

/// Events. Path parts are joined to a pattern.
pub async fn watch(call: Call) -> Result<Response> {
    call.require(call.access.may_manage_all())?;
    let way = Way::of(&call)?;
    if let Some(first) = call.parts.first().filter(|first| *first != ".")
        && !TOPICS.contains(&first.split('.').next().unwrap_or_default())
    {
        return Err(LegacyError::new(
            404,
            "bad_event_type",
            format!("no event is named {first}"),
        ));
    }
    let pattern = match call.parts.is_empty() {
        true => Pattern::parse("."),
        false => Pattern::parse(&call.parts.join(".")),
    };
    let log = call.app.handle.events();
    let cursor = log.newest();
    Ok(respond(
        &call,
        way,
        Source::Events { log, cursor, pattern },
        "application/json",
    ))
}

/// Samples of a job or of one of its processes.
pub fn stats(call: &Call, job: JobId, pid: Option<u64>) -> Result<Response> {
    let way = Way::of(call)?;
    let due = Instant::now();
    Ok(respond(
        call,
        way,
        Source::Stats { job, pid, due },
        "application/json",
    ))
}

/// Output of a process, from now on.
pub async fn stream(call: Call) -> Result<Response> {
    let pid = names::pid(call.part(0)).ok_or_else(|| LegacyError::bad_value("a process number"))?;
    let (info, process) = objects::process(&call.app.handle, pid)?;
    call.require(call.access.may_read(&info.view.job))?;
    let way = Way::of(&call)?;
    let outputs = old::outputs(&call, &info).await;
    if outputs.is_empty() {
        return Err(LegacyError::new(
            400,
            "io_not_redirected",
            "nothing of it is redirected",
        ));
    }
    let found = outputs.into_iter().find(|(label, _)| label == call.part(1));
    let (label, stream) =
        found.ok_or_else(|| LegacyError::new(404, "io_not_found", format!("no output {}", call.part(1))))?;
    let mut reader = call.app.handle.log(&process.slot, &stream)?;
    let (_, offset) = reader.range()?;
    let source = Source::Output {
        reader: Box::new(reader),
        offset,
        label,
        run: process.run,
        rest: Vec::new(),
        seen: call.app.handle.events().newest(),
    };
    Ok(respond(&call, way, source, "application/octet-stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d49_every_event_ends_with_a_blank_line() {
        let mut rest = b"one\ntwo\nthr".to_vec();
        let text = lines("out", &mut rest).expect("lines");
        assert_eq!(text, "event: out\r\ndata: one\r\ndata: two\r\n\r\n");
        assert_eq!(rest, b"thr");
    }
}
