//! `WS /v1/stream`: many subscriptions over one connection.
//!
//! Each subscription is a task that sends into one bounded channel and waits while it is full; nothing piles up for a
//! slow reader. Events that the ring has overwritten meanwhile, and samples that were skipped, are told as missed.

use crate::http::Shared;
use crate::http::attach::MESSAGE_BYTES_MAX;
use crate::http::events::{Filter, start};
use crate::http::merge::{Item, Merge, Wanted};
use crate::http::stats::{self, sample};
use crate::names;
use crate::refusal::{Answer, Refusal};
use crate::view;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use gaffer_api::error::{Code, ErrorBody};
use gaffer_api::types::{StreamItem, StreamRequest, StreamTopic};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

/// Subscriptions of one connection.
const SUBSCRIPTIONS_MAX: usize = 64;

/// Items on their way to the client.
const UNDERWAY: usize = 64;

/// Sources whose offsets fit into a cursor.
const CURSOR_SOURCES_MAX: usize = 64;

type Items = mpsc::Sender<StreamItem>;

/// Subscriptions to events, lines and samples: `StreamRequest` up, `StreamItem` down, as text messages.
#[utoipa::path(get, path = "/v1/stream", tag = "events", responses((status = 101), (status = "default", body = ErrorBody)))]
pub async fn stream(State(app): State<Shared>, upgrade: WebSocketUpgrade) -> Response {
    upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(|socket| serve(app, socket))
}

async fn serve(app: Shared, mut socket: WebSocket) {
    let (tx, mut rx) = mpsc::channel(UNDERWAY);
    let mut running: HashMap<u64, AbortHandle> = HashMap::new();
    // Ends all subscriptions when the connection does.
    let mut subscriptions = JoinSet::new();
    loop {
        let item = tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => request(&app, &text, &tx, &mut running, &mut subscriptions),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => None,
                Some(Ok(Message::Binary(_))) => Some(refused(None, &Refusal::new(Code::BadRequest, "requests are text"))),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
            },
            item = rx.recv() => item,
            Some(ended) = subscriptions.join_next() => {
                running.retain(|_, handle| !handle.is_finished());
                ended.ok().map(|id| StreamItem::Ended { id })
            }
            () = app.closed() => return,
        };
        if let Some(item) = item {
            // Texts and numbers always have a JSON form.
            let text = serde_json::to_string(&item).unwrap_or_default();
            if socket.send(Message::Text(text.into())).await.is_err() {
                return;
            }
        }
    }
}

fn refused(id: Option<u64>, refusal: &Refusal) -> StreamItem {
    StreamItem::Error {
        id,
        error: (*refusal.0).clone(),
    }
}

/// Carries a request out; what there is to answer at once.
fn request(
    app: &Shared,
    text: &str,
    tx: &Items,
    running: &mut HashMap<u64, AbortHandle>,
    subscriptions: &mut JoinSet<u64>,
) -> Option<StreamItem> {
    match serde_json::from_str(text) {
        Err(error) => {
            let refusal = Refusal::new(Code::BadRequest, format!("the request cannot be read: {error}"));
            Some(refused(None, &refusal))
        }
        Ok(StreamRequest::Unsubscribe { id }) => {
            running.remove(&id)?.abort();
            Some(StreamItem::Ended { id })
        }
        Ok(StreamRequest::Subscribe { id, .. }) if running.contains_key(&id) => Some(refused(
            Some(id),
            &Refusal::new(Code::BadValue, format!("subscription {id} exists already")),
        )),
        Ok(StreamRequest::Subscribe { id, .. }) if running.len() >= SUBSCRIPTIONS_MAX => Some(refused(
            Some(id),
            &Refusal::new(Code::Busy, format!("at most {SUBSCRIPTIONS_MAX} subscriptions")),
        )),
        Ok(StreamRequest::Subscribe { id, topic }) => {
            let (app, tx) = (app.clone(), tx.clone());
            let handle = subscriptions.spawn(async move {
                if let Err(refusal) = subscribe(&app, id, topic, &tx).await {
                    // Nobody reads any more: then the refusal is of no use either.
                    let _gone = tx.send(refused(Some(id), &refusal)).await;
                }
                id
            });
            running.insert(id, handle);
            None
        }
    }
}

async fn subscribe(app: &Shared, id: u64, topic: StreamTopic, tx: &Items) -> Answer<()> {
    match topic {
        StreamTopic::Events { after, filter } => {
            let filter = Filter::parse(filter.as_deref())?;
            events(app, id, after.as_deref(), &filter, tx).await
        }
        StreamTopic::Logs {
            session,
            job,
            instance,
            tail,
            after,
        } => {
            let resume = after
                .as_deref()
                .map(parse_offsets)
                .transpose()?
                .unwrap_or_default();
            let tail = tail.map_or(0, |tail| usize::try_from(tail).unwrap_or(usize::MAX).min(10_000));
            let wanted = Wanted {
                tail: Some(tail),
                instance,
                events: true,
                resume,
                ..Wanted::default()
            };
            logs(app, id, &names::job(&session, &job)?, wanted, tx).await
        }
        StreamTopic::Stats {
            session,
            job,
            every_ms,
        } => {
            let every = Duration::from_millis(every_ms.unwrap_or(0)).max(stats::every_min(app));
            let wanted = stats::Wanted {
                session,
                job,
                ..stats::Wanted::default()
            };
            samples(app, id, &wanted, every, tx).await
        }
    }
}

async fn events(app: &Shared, id: u64, after: Option<&str>, filter: &Filter, tx: &Items) -> Answer<()> {
    let log = app.handle.events();
    let mut cursor = start(&log, after, true)?;
    loop {
        let records = log.read(cursor, 256);
        for record in &records {
            let item = match record.event.event {
                "gap" => StreamItem::Missed {
                    id,
                    from: view::cursor(cursor),
                    to: view::cursor(record.cursor),
                },
                name if !filter.takes(name) => continue,
                _ => StreamItem::Event {
                    id,
                    event: view::event(&app.handle, record, &app.node),
                },
            };
            if tx.send(item).await.is_err() {
                return Ok(());
            }
        }
        if let Some(last) = records.last() {
            cursor = last.cursor;
        } else {
            log.wait(cursor).await;
        }
    }
}

async fn logs(
    app: &Shared,
    id: u64,
    job: &gaffer_core::name::JobId,
    wanted: Wanted,
    tx: &Items,
) -> Answer<()> {
    let tail = wanted.tail.unwrap_or(0);
    let mut offsets: BTreeMap<Arc<str>, u64> = wanted
        .resume
        .iter()
        .map(|(key, at)| (key.as_str().into(), *at))
        .collect();
    let resumes = !wanted.resume.is_empty();
    let mut merge = Merge::open(app, job, wanted).await?;
    let past = merge.catch_up_tail(if resumes { usize::MAX } else { tail }, false)?;
    for item in past {
        if send_line(id, item, &mut offsets, tx).await.is_none() {
            return Ok(());
        }
    }
    let mut follow = merge.follow();
    loop {
        let items = follow.next().await;
        if items.is_empty() {
            return Ok(());
        }
        for item in items {
            if send_line(id, item, &mut offsets, tx).await.is_none() {
                return Ok(());
            }
        }
    }
}

async fn send_line(id: u64, item: Item, offsets: &mut BTreeMap<Arc<str>, u64>, tx: &Items) -> Option<()> {
    if !item.key.is_empty() {
        offsets.insert(item.key, item.end);
    }
    tx.send(StreamItem::Log {
        id,
        line: item.line,
        cursor: write_offsets(offsets),
    })
    .await
    .ok()
}

/// `1/stdout=120,1/stderr=0`; empty if there are too many.
fn write_offsets(offsets: &BTreeMap<Arc<str>, u64>) -> String {
    if offsets.len() > CURSOR_SOURCES_MAX {
        return String::new();
    }
    let parts: Vec<String> = offsets.iter().map(|(key, at)| format!("{key}={at}")).collect();
    parts.join(",")
}

fn parse_offsets(text: &str) -> Answer<BTreeMap<String, u64>> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    let read = parts.map(|part| {
        let (key, at) = part.split_once('=')?;
        Some((key.to_owned(), at.parse().ok()?))
    });
    read.collect::<Option<_>>().ok_or_else(|| {
        Refusal::new(Code::BadValue, "this is no cursor of a log").hint("give back the `cursor` of a line")
    })
}

/// Samples now and then; the pause begins when a sample has been taken by the client.
async fn samples(app: &Shared, id: u64, wanted: &stats::Wanted, every: Duration, tx: &Items) -> Answer<()> {
    loop {
        let samples = sample(app, wanted.runs(app)).await;
        let runs = samples.into_iter().map(|one| (one.run, one.stats)).collect();
        if tx.send(StreamItem::Stats { id, runs }).await.is_err() {
            return Ok(());
        }
        tokio::time::sleep(every).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_of_a_log_is_read_back_as_it_was_written() {
        let offsets: BTreeMap<Arc<str>, u64> = [("1/stdout".into(), 120), ("2~1/stderr".into(), 0)].into();
        let read = parse_offsets(&write_offsets(&offsets)).expect("it was written by us");
        assert_eq!(
            read,
            [("1/stdout".to_owned(), 120), ("2~1/stderr".to_owned(), 0)].into()
        );
        assert!(parse_offsets("1/stdout").is_err() && parse_offsets("a=b").is_err());
    }
}
