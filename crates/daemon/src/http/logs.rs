//! Logs over HTTP: the bytes of a run, and the merged lines of a job.

use crate::http::Shared;
use crate::http::events::{Form, HEARTBEAT};
use crate::http::merge::{Item, Wanted};
use crate::http::page::Labels;
use crate::http::query::{self, Path, Query};
use crate::http::queue_lines::{QueueFollow, QueueLines};
use crate::http::sorted::newest;
use crate::http::weave::{Weave, Whose, Woven};
use crate::names;
use crate::refusal::{Answer, Refusal};
use crate::view;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use gaffer::info::{Cursor, RunInfo};
use gaffer::logs::{Chunk, LogReader};
use gaffer_api::error::{Code, ErrorBody};
use gaffer_api::types::LogLine;
use gaffer_core::name::RunId;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use regex_lite::Regex;
use serde::Deserialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use utoipa::IntoParams;

/// The offset behind the last byte of the answer, if it is known when it begins.
pub const NEXT_OFFSET: HeaderName = HeaderName::from_static("gaffer-offset");

/// The offset of the first byte of the answer.
pub const FIRST_OFFSET: HeaderName = HeaderName::from_static("gaffer-from");

/// Bytes read at once.
const PIECE_BYTES: usize = 64 << 10;

/// Most lines that can be asked for with `tail`.
const TAIL_MAX: usize = 100_000;

/// Longest pattern.
const PATTERN_BYTES_MAX: usize = 1024;

/// Parameters of a run's bytes.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BytesQuery {
    /// An offset of the stream, `start` (default) or `end`.
    from: Option<String>,
    /// An offset to stop before.
    to: Option<u64>,
    /// At most so many bytes.
    limit: Option<u64>,
    /// Stay until the run has ended.
    #[serde(default)]
    follow: bool,
}

/// The bytes that a run wrote to `stdout`, `stderr` or a label, and nothing else. `Gaffer-From` is the offset of the
/// first one; `Gaffer-Offset`, without `follow`, where to go on.
#[utoipa::path(get, path = "/v1/runs/{run}/logs/{stream}", tag = "logs", params(
    ("run" = String, Path), ("stream" = String, Path), BytesQuery),
    responses((status = 200, content_type = "text/plain", body = Vec<u8>), (status = "default", body = ErrorBody)))]
pub async fn run_log(
    State(app): State<Shared>,
    Path((run, stream)): Path<(String, String)>,
    Query(query): Query<BytesQuery>,
) -> Answer<Response> {
    let info = app.handle.run(names::run(&run)?).await?;
    let (from, to) = range_of(&info, &stream)?;
    let mut reader = app.handle.log(&info.slot, &stream)?;
    let (first, end) = reader.range()?;
    let known_end = to.unwrap_or(end).max(from);
    let at = match query.from.as_deref() {
        None | Some("start") => from,
        Some("end") => known_end,
        Some(text) => text.parse::<u64>().map_err(|_| wrong_offset(text))?,
    };
    // What was rotated away is left out; the header says where the answer begins.
    let at = at.clamp(from, known_end).max(first.min(known_end));
    let bound = [query.to, query.limit.map(|limit| at.saturating_add(limit))]
        .into_iter()
        .flatten()
        .min();
    let cursor = app.handle.events().newest();
    let stop = if query.follow { to } else { Some(known_end) };
    let stop = [stop, bound].into_iter().flatten().min();
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        "text/plain; charset=utf-8"
            .parse()
            .map_err(|_| wrong_offset(""))?,
    );
    headers.insert(FIRST_OFFSET, at.into());
    if let Some(stop) = stop.filter(|_| !query.follow) {
        headers.insert(NEXT_OFFSET, stop.max(at).into());
    }
    let feed = Bytefeed {
        app,
        run: info.run,
        stream,
        reader,
        at,
        stop,
        bound,
        cursor,
    };
    Ok((headers, Body::from_stream(stream::unfold(feed, Bytefeed::next))).into_response())
}

fn range_of(info: &RunInfo, stream: &str) -> Answer<(u64, Option<u64>)> {
    info.logs.get(stream).copied().ok_or_else(|| {
        let known: Vec<&str> = info.logs.keys().map(String::as_str).collect();
        Refusal::new(
            Code::StreamNotFound,
            format!("run @{} has no stream `{}`", info.run, stream.escape_debug()),
        )
        .hint(if known.is_empty() {
            "none of its output is kept".to_owned()
        } else {
            known.join(", ")
        })
    })
}

fn wrong_offset(text: &str) -> Refusal {
    Refusal::new(Code::BadValue, format!("`{}` is no offset", text.escape_debug()))
        .hint("a number, start or end")
}

/// The bytes of one run.
struct Bytefeed {
    app: Shared,
    run: RunId,
    stream: String,
    reader: LogReader,
    at: u64,
    /// Where to end, once known.
    stop: Option<u64>,
    /// What the request says, whatever the run does.
    bound: Option<u64>,
    cursor: Cursor,
}

impl Bytefeed {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Bytefeed)> {
        loop {
            let room = self.stop.map_or(u64::MAX, |stop| stop.saturating_sub(self.at));
            if room == 0 {
                return None;
            }
            self.reader.hold_unfinished(self.stop.is_none());
            // A stream that became unreadable ends here; the client sees that its offset is short.
            match self
                .reader
                .read(
                    self.at,
                    PIECE_BYTES.min(usize::try_from(room).unwrap_or(usize::MAX)),
                )
                .ok()?
            {
                Some(Chunk::Bytes { data, .. }) => {
                    self.at += data.len() as u64;
                    return Some((Ok(data.into()), self));
                }
                Some(Chunk::Gap { to, .. }) => self.at = to,
                Some(Chunk::Dropped { .. }) => {}
                None if self.stop.is_some_and(|stop| self.bound != Some(stop)) => return None,
                None => self.wait().await?,
            }
        }
    }

    /// Waits for more bytes or for the end of the run; none: nothing will come.
    async fn wait(&mut self) -> Option<()> {
        let log = self.app.handle.events();
        tokio::select! {
            grown = self.reader.grown(self.at) => if grown.is_err() {
                // Out of watches: looking now and then still works.
                tokio::time::sleep(std::time::Duration::from_millis(250)).await;
            },
            () = log.wait(self.cursor) => {
                for record in log.read(self.cursor, 256) {
                    self.cursor = record.cursor;
                }
            }
            () = self.app.closed() => return None,
        }
        let info = self.app.handle.run(self.run).await.ok()?;
        if let Some((_, Some(to))) = info.logs.get(&self.stream) {
            self.stop = Some(self.bound.map_or(*to, |bound| bound.min(*to)));
        } else if info.ended.is_some() {
            return None;
        }
        Some(())
    }
}

/// Parameters of a job's lines.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LinesQuery {
    /// Stay and send what comes.
    #[serde(default)]
    follow: bool,
    /// Only so many of the newest lines, of all instances together.
    tail: Option<usize>,
    /// RFC 3339, or a duration back from now.
    since: Option<String>,
    /// RFC 3339, or a duration back from now.
    until: Option<String>,
    /// Regular expression on the text.
    grep: Option<String>,
    /// `stdout`, `stderr` or a label.
    stream: Option<String>,
    /// One instance.
    instance: Option<u32>,
    /// One run; following it ends with it.
    run: Option<String>,
    /// Marks of life between the lines.
    #[serde(default)]
    events: bool,
}

impl LinesQuery {
    fn wanted(&self) -> Answer<Wanted> {
        let now_ms = view::now().0;
        let moment = |text: &Option<String>| {
            text.as_deref()
                .map(|text| query::moment(text, now_ms))
                .transpose()
        };
        if self.tail.is_some_and(|tail| tail > TAIL_MAX) {
            return Err(Refusal::new(
                Code::BadValue,
                format!("tail is at most {TAIL_MAX}"),
            ));
        }
        Ok(Wanted {
            tail: self.tail,
            since_ms: moment(&self.since)?,
            until_ms: moment(&self.until)?,
            grep: self.grep.as_deref().map(pattern).transpose()?,
            stream: self.stream.clone(),
            instance: self.instance,
            run: self.run.as_deref().map(names::run).transpose()?,
            events: self.events,
            ..Wanted::default()
        })
    }
}

/// Parameters of the lines of many jobs.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ManyQuery {
    /// Only this session.
    session: Option<String>,
    /// Only jobs with this label, `zone=eu`: of `meta`, or of the node. Several with commas.
    label: Option<String>,
    /// Exactly these, with commas: `session.job` or `session.job.n`.
    jobs: Option<String>,
    /// Stay and send what comes, also of jobs that are added later (unless `jobs` names them).
    #[serde(default)]
    follow: bool,
    /// Only so many of the newest lines, of all jobs together.
    tail: Option<usize>,
    /// RFC 3339, or a duration back from now.
    since: Option<String>,
    /// RFC 3339, or a duration back from now.
    until: Option<String>,
    /// Regular expression on the text.
    grep: Option<String>,
    /// `stdout`, `stderr` or a label; jobs that have none of this name are left out.
    stream: Option<String>,
    /// Marks of life between the lines.
    #[serde(default)]
    events: bool,
}

impl ManyQuery {
    fn whose(&self) -> Answer<Whose> {
        let Some(jobs) = &self.jobs else {
            if let Some(session) = &self.session {
                names::session(session)?;
            }
            return Ok(Whose::All {
                session: self.session.clone(),
                labels: Labels::parse(self.label.as_deref())?,
            });
        };
        if self.session.is_some() || self.label.is_some() {
            let message = "jobs are named, or chosen by session and label, not both";
            return Err(Refusal::new(Code::BadRequest, message));
        }
        Ok(Whose::Named(
            jobs.split(',').map(names::full).collect::<Answer<_>>()?,
        ))
    }
}

fn pattern(text: &str) -> Answer<Regex> {
    let wrong = |why: String| Refusal::new(Code::BadValue, format!("grep is no regular expression: {why}"));
    if text.len() > PATTERN_BYTES_MAX {
        return Err(wrong(format!("it is longer than {PATTERN_BYTES_MAX} bytes")));
    }
    Regex::new(text).map_err(|error| wrong(error.to_string()))
}

/// Lines of a job, merged over instances and streams by time, as JSON lines or, by `Accept`, server-sent events.
#[utoipa::path(get, path = "/v1/jobs/{session}/{job}/logs", tag = "logs", params(
    ("session" = String, Path), ("job" = String, Path), LinesQuery),
    responses((status = 200, content((LogLine = "application/jsonl"), (LogLine = "text/event-stream"))), (status = "default", body = ErrorBody)))]
pub async fn job_logs(
    State(app): State<Shared>,
    Path((session, job)): Path<(String, String)>,
    Query(query): Query<LinesQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    let wanted = query.wanted()?;
    let target = names::target(&session, &job, query.instance)?;
    send(&app, Whose::Named(vec![target]), wanted, query.follow, &headers).await
}

/// Lines of many jobs, merged by time, as JSON lines or, by `Accept`, server-sent events.
#[utoipa::path(get, path = "/v1/logs", tag = "logs", params(ManyQuery),
    responses((status = 200, content((LogLine = "application/jsonl"), (LogLine = "text/event-stream"))), (status = "default", body = ErrorBody)))]
pub async fn logs(
    State(app): State<Shared>,
    Query(query): Query<ManyQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    let (whose, follow) = (query.whose()?, query.follow);
    let lines = LinesQuery {
        follow,
        tail: query.tail,
        since: query.since,
        until: query.until,
        grep: query.grep,
        stream: query.stream,
        events: query.events,
        ..LinesQuery::default()
    };
    send(&app, whose, lines.wanted()?, follow, &headers).await
}

/// Parameters of the lines of a queue.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct QueueLinesQuery {
    /// Stay and send what comes; of one task until it is over.
    #[serde(default)]
    follow: bool,
    /// Only so many of the newest lines, of all workers together.
    tail: Option<usize>,
    /// RFC 3339, or a duration back from now.
    since: Option<String>,
    /// RFC 3339, or a duration back from now.
    until: Option<String>,
    /// Regular expression on the text.
    grep: Option<String>,
    /// `stdout` or `stderr`.
    stream: Option<String>,
    /// Only what was written for this task.
    task: Option<i64>,
    /// Only what this run wrote.
    run: Option<String>,
    /// Beginnings and ends of tasks between the lines.
    #[serde(default)]
    events: bool,
}

/// What the workers of a queue wrote, merged by time, each line with the number of its task, as JSON lines or, by `Accept`, server-sent
/// events. It is kept as `logs` of the queue says, also of tasks that are over.
#[utoipa::path(get, path = "/v1/queues/{session}/{queue}/logs", tag = "queues", params(
    ("session" = String, Path), ("queue" = String, Path), QueueLinesQuery),
    responses((status = 200, content((LogLine = "application/jsonl"), (LogLine = "text/event-stream"))), (status = "default", body = ErrorBody)))]
pub async fn queue_logs(
    State(app): State<Shared>,
    Path((session, queue)): Path<(String, String)>,
    Query(query): Query<QueueLinesQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    let (task, follow) = (query.task, query.follow);
    let lines = LinesQuery {
        follow,
        tail: query.tail,
        since: query.since,
        until: query.until,
        grep: query.grep,
        stream: query.stream,
        instance: None,
        run: query.run,
        events: query.events,
    };
    let id = crate::http::queues::id_of(&session, &queue)?;
    let wanted = lines.wanted()?;
    let tail = wanted.tail;
    let lines = QueueLines::open(&app, id, task, wanted, !follow)?;
    answer(Past::Queue(lines), tail, follow, &headers)
}

async fn send(
    app: &Shared,
    whose: Whose,
    wanted: Wanted,
    follow: bool,
    headers: &HeaderMap,
) -> Answer<Response> {
    let tail = wanted.tail;
    let weave = Weave::open(app, whose, wanted, !follow).await?;
    answer(Past::Jobs(weave), tail, follow, headers)
}

fn answer(mut past: Past, tail: Option<usize>, follow: bool, headers: &HeaderMap) -> Answer<Response> {
    let form = Form::of(headers);
    let stage = match tail {
        None => Stage::CatchUp(past),
        Some(tail) => {
            let newest = newest(tail, || past.catch_up())?;
            Stage::Tail(past, newest)
        }
    };
    let feed = Linefeed { stage, follow, form };
    let body = Body::from_stream(stream::unfold(feed, Linefeed::next));
    Ok(([(CONTENT_TYPE, form.kind())], body).into_response())
}

/// What was.
enum Past {
    Jobs(Weave),
    Queue(QueueLines),
}

impl Past {
    fn catch_up(&mut self) -> Answer<Vec<Item>> {
        match self {
            Past::Jobs(weave) => weave.catch_up(),
            Past::Queue(lines) => lines.catch_up(),
        }
    }

    async fn follow(self) -> Coming {
        match self {
            Past::Jobs(weave) => Coming::Jobs(weave.follow()),
            Past::Queue(lines) => Coming::Queue(lines.follow().await),
        }
    }
}

/// What comes.
enum Coming {
    Jobs(Woven),
    Queue(QueueFollow),
}

impl Coming {
    async fn next(&mut self) -> Vec<Item> {
        match self {
            Coming::Jobs(woven) => woven.next().await,
            Coming::Queue(follow) => follow.next().await,
        }
    }
}

/// How far the lines have been sent.
enum Stage {
    Tail(Past, VecDeque<Item>),
    CatchUp(Past),
    Follow(Coming),
    Over,
}

struct Linefeed {
    stage: Stage,
    follow: bool,
    form: Form,
}

impl Linefeed {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Linefeed)> {
        loop {
            let (stage, items) = self.step().await?;
            self.stage = stage;
            match items {
                None => {
                    let beat = Bytes::from_static(self.form.heartbeat().as_bytes());
                    return Some((Ok(beat), self));
                }
                Some(items) if items.is_empty() => {}
                Some(items) => {
                    let text = self.write(&items);
                    return Some((Ok(text.into()), self));
                }
            }
        }
    }

    /// One step: what follows, and lines (none: a heartbeat).
    async fn step(&mut self) -> Option<(Stage, Option<Vec<Item>>)> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Tail(past, mut items) if !items.is_empty() => {
                let batch = items.drain(..items.len().min(256)).collect();
                Some((Stage::Tail(past, items), Some(batch)))
            }
            Stage::Tail(past, _) if self.follow => {
                Some((Stage::Follow(past.follow().await), Some(Vec::new())))
            }
            Stage::CatchUp(mut past) => {
                // A stream that became unreadable ends the answer: the head is out already.
                let items = past.catch_up().ok()?;
                let stage = match (items.is_empty(), self.follow) {
                    (false, _) => Stage::CatchUp(past),
                    (true, true) => Stage::Follow(past.follow().await),
                    (true, false) => Stage::Over,
                };
                Some((stage, Some(items)))
            }
            Stage::Follow(mut follow) => match tokio::time::timeout(HEARTBEAT, follow.next()).await {
                Err(_) => Some((Stage::Follow(follow), None)),
                Ok(items) if items.is_empty() => None,
                Ok(items) => Some((Stage::Follow(follow), Some(items))),
            },
            Stage::Tail(..) | Stage::Over => None,
        }
    }

    fn write(&self, items: &[Item]) -> String {
        let mut text = String::new();
        for item in items {
            // Texts and numbers always have a JSON form.
            let json = serde_json::to_string(&item.line).unwrap_or_default();
            let id = if item.key.is_empty() {
                String::new()
            } else {
                format!("{}={}", item.key, item.end)
            };
            self.form.write(&mut text, &id, &item.line.stream, &json);
        }
        text
    }
}
