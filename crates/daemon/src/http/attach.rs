//! `WS /v1/runs/{run}/attach`: a run's output as it comes and its input, as a terminal has them.

use crate::http::Shared;
use crate::http::query::{Path, Query};
use crate::names;
use crate::refusal::{Answer, Refusal};
use crate::view;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use gaffer::info::{Cursor, RunInfo};
use gaffer::logs::{Chunk, LogReader};
use gaffer_api::error::ErrorBody;
use gaffer_api::types::AttachMessage;
use hyper::body::Bytes;
use serde::Deserialize;
use utoipa::IntoParams;

/// Largest message from a client.
pub const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// Bytes of the past that are shown to a client that joins.
const PAST_BYTES: u64 = 4 << 10;

/// Parameters of attach.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AttachQuery {
    /// Take no input.
    #[serde(default)]
    read_only: bool,
}

/// Joins a run: binary messages are its output and its input, text messages an `AttachMessage`.
#[utoipa::path(get, path = "/v1/runs/{run}/attach", tag = "logs", params(("run" = String, Path), AttachQuery),
    responses((status = 101), (status = "default", body = ErrorBody)))]
pub async fn attach(
    State(app): State<Shared>,
    Path(run): Path<String>,
    Query(query): Query<AttachQuery>,
    upgrade: WebSocketUpgrade,
) -> Answer<Response> {
    let info = app.handle.run(names::run(&run)?).await?;
    let mut outputs = Vec::new();
    for (stream, (from, to)) in &info.logs {
        let mut reader = app.handle.log(&info.slot, stream)?;
        let (first, end) = reader.range()?;
        let end = to.unwrap_or(end);
        let at = end.saturating_sub(PAST_BYTES).max(*from).max(first);
        outputs.push(Output {
            stream: stream.clone(),
            reader,
            at,
            stop: *to,
        });
    }
    let cursor = app.handle.events().newest();
    let session = Session {
        app,
        info,
        outputs,
        shown: String::new(),
        cursor,
        read_only: query.read_only,
    };
    Ok(upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(|socket| session.serve(socket)))
}

struct Output {
    stream: String,
    reader: LogReader,
    at: u64,
    stop: Option<u64>,
}

struct Session {
    app: Shared,
    info: RunInfo,
    outputs: Vec<Output>,
    /// Stream of the last bytes that were sent.
    shown: String,
    cursor: Cursor,
    read_only: bool,
}

impl Session {
    async fn serve(mut self, mut socket: WebSocket) {
        loop {
            if self.send_output(&mut socket).await.is_none() {
                return;
            }
            let over = self
                .outputs
                .iter()
                .all(|output| output.stop.is_some_and(|stop| output.at >= stop));
            if over && (self.info.ended.is_some() || !self.outputs.is_empty()) {
                self.say_goodbye(&mut socket).await;
                return;
            }
            let log = self.app.handle.events();
            let app = self.app.clone();
            tokio::select! {
                message = socket.recv() => match message {
                    Some(Ok(message)) => if self.take(&mut socket, message).await.is_none() { return },
                    _ => return,
                },
                () = any_grown(&mut self.outputs) => {}
                () = log.wait(self.cursor) => self.look().await,
                () = app.closed() => return,
            }
        }
    }

    /// Sends all that there is; none: the client is gone.
    async fn send_output(&mut self, socket: &mut WebSocket) -> Option<()> {
        for output in &mut self.outputs {
            loop {
                let room = output
                    .stop
                    .map_or(u64::MAX, |stop| stop.saturating_sub(output.at));
                output.reader.hold_unfinished(output.stop.is_none());
                let max = usize::try_from(room).unwrap_or(usize::MAX).min(32 << 10);
                let chunk = if max == 0 {
                    None
                } else {
                    output.reader.read(output.at, max).ok().flatten()
                };
                let message = match chunk {
                    None => break,
                    Some(Chunk::Bytes { data, .. }) => {
                        output.at += data.len() as u64;
                        if self.shown != output.stream {
                            self.shown.clone_from(&output.stream);
                            say(
                                socket,
                                &AttachMessage::Stream {
                                    stream: output.stream.clone(),
                                },
                            )
                            .await?;
                        }
                        Message::Binary(Bytes::from(data))
                    }
                    Some(Chunk::Gap { from, to }) => {
                        output.at = to;
                        text(&AttachMessage::Gap { bytes: to - from })
                    }
                    Some(Chunk::Dropped { bytes, .. }) => text(&AttachMessage::Gap { bytes }),
                };
                socket.send(message).await.ok()?;
            }
        }
        Some(())
    }

    /// A message of the client; none: it is gone.
    async fn take(&mut self, socket: &mut WebSocket, message: Message) -> Option<()> {
        let run = self.info.run;
        let done = match message {
            Message::Binary(_) | Message::Text(_) if self.read_only => Ok(()),
            Message::Binary(data) => {
                self.app
                    .handle
                    .run_input(run, "stdin", data.to_vec(), false)
                    .await
            }
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(AttachMessage::Resize { cols, rows }) => self.app.handle.run_resize(run, cols, rows).await,
                Ok(AttachMessage::Eof) => self.app.handle.run_input(run, "stdin", Vec::new(), true).await,
                Ok(_) | Err(_) => Err(gaffer::info::Error::Invalid(
                    "this message cannot be read".to_owned(),
                )),
            },
            Message::Close(_) => return None,
            Message::Ping(_) | Message::Pong(_) => Ok(()),
        };
        match done {
            Ok(()) => Some(()),
            Err(error) => {
                say(
                    socket,
                    &AttachMessage::Error {
                        error: *Refusal::from(error).0,
                    },
                )
                .await
            }
        }
    }

    /// Learns from new events whether the run has ended.
    async fn look(&mut self) {
        for record in self.app.handle.events().read(self.cursor, 256) {
            self.cursor = record.cursor;
        }
        if let Ok(info) = self.app.handle.run(self.info.run).await {
            for output in &mut self.outputs {
                output.stop = info.logs.get(&output.stream).and_then(|(_, to)| *to);
            }
            self.info = info;
        }
    }

    async fn say_goodbye(&mut self, socket: &mut WebSocket) {
        let run = view::run(&self.app.handle, &self.info);
        let ended = AttachMessage::Ended {
            exit_code: run.exit_code,
            signal: run.signal,
            reason: run.reason,
        };
        // A client that is gone does not need to be told.
        if say(socket, &ended).await.is_some() {
            let _gone = socket.send(Message::Close(None)).await;
        }
    }
}

fn text(message: &AttachMessage) -> Message {
    // Texts and numbers always have a JSON form.
    Message::Text(serde_json::to_string(message).unwrap_or_default().into())
}

async fn say(socket: &mut WebSocket, message: &AttachMessage) -> Option<()> {
    socket.send(text(message)).await.ok()
}

/// Resolves when one of the streams may have grown.
async fn any_grown(outputs: &mut [Output]) {
    if outputs.is_empty() {
        return std::future::pending().await;
    }
    let waits = outputs.iter_mut().map(|output| {
        Box::pin(async move {
            if output.stop.is_some_and(|stop| output.at >= stop) {
                return std::future::pending().await;
            }
            if output.reader.grown(output.at).await.is_err() {
                // Out of watches: looking now and then still works.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        })
    });
    futures_util::future::select_all(waits).await;
}
