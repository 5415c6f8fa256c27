//! Channels to one process: its output and its input over a WebSocket, in frames ([`frame`]) or, for clients of 0.4, bare.
//!
//! | route | output | input |
//! |---|---|---|
//! | `/<pid>/channel` | the first label of `redirect_output` | stdin |
//! | `/<pid>/channel/<label>` | that output | stdin |
//! | `/<pid>/channel/<custom>` | that two-way stream | the same |
//! | `/wstreams/<pid>` | the first label, bare | stdin |
//!
//! `mode` says what is wanted: 1 output, 2 input, 3 both. What was written before a client came is not sent. A client that
//! does not read is waited for and delays nobody: the output is in the files. What the files do not keep long enough is
//! told by an `error` frame with the id `gaffer_gap` (bare: by the reason of the close). A client that writes is
//! answered when the process's pipe took all of it, and its next frame is not looked at before.

mod exchange;
pub mod frame;

use crate::access::Access;
use crate::http::Shared;
use crate::legacy::error::LegacyError;
use crate::legacy::feed::{Feeds, Follower};
use crate::legacy::websocket::{self, Socket};
use crate::legacy::{names, objects, ops, template};
use crate::refusal::Written;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use exchange::{Exchange, Form};
use futures_util::StreamExt;
use gaffer_core::name::RunId;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

/// How long a client that needs a key may take to show it.
pub const AUTH_TIME_MAX: Duration = Duration::from_secs(30);

/// What a client says first if it needs a key.
pub const AUTH: &[u8] = b"AUTH:";

/// Routes of pid channels.
pub fn router(feeds: Arc<Feeds>) -> Router<Shared> {
    Router::new()
        .route("/{pid}/channel", get(channel))
        .route("/{pid}/channel/{stream}", get(channel))
        .route("/wstreams/{pid}", get(bare))
        .layer(Extension(feeds))
}

/// Parts of the path.
#[derive(Debug, Deserialize)]
struct Place {
    pid: String,
    stream: Option<String>,
}

/// What is wanted.
#[derive(Debug, Deserialize)]
struct Wanted {
    mode: Option<String>,
}

/// Why a channel cannot be opened: word and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failure {
    errno: u16,
    word: &'static str,
}

const NOT_FOUND: Failure = failure(404, "not_found");
const NO_STREAM: Failure = failure(404, "ENOENT");
const NOT_ALLOWED: Failure = failure(403, "EPERM");
const FORBIDDEN: Failure = failure(403, "FORBIDDEN");
const AUTH_REQUIRED: Failure = failure(403, "AUTH_REQUIRED");
const BROKEN: Failure = failure(500, "EIO");

const fn failure(errno: u16, word: &'static str) -> Failure {
    Failure { errno, word }
}

impl Failure {
    /// `reason` is what the command line prints.
    fn body(self) -> String {
        format!(
            "{{\"error\":\"{0}\",\"errno\":{1},\"reason\":\"{0}\"}}",
            self.word, self.errno
        )
    }
}

impl From<LegacyError> for Failure {
    fn from(error: LegacyError) -> Failure {
        match error.word {
            "stream_not_found" => NO_STREAM,
            _ if error.status == 404 => NOT_FOUND,
            _ if error.status == 403 => NOT_ALLOWED,
            _ => BROKEN,
        }
    }
}

/// What a client gets of a process.
struct Opened {
    run: RunId,
    output: Option<Follower>,
    /// Stream that is written to.
    input: Option<String>,
}

/// Who asks for what.
struct Asker {
    app: Shared,
    feeds: Arc<Feeds>,
    access: Access,
}

async fn channel(
    State(app): State<Shared>,
    Extension(feeds): Extension<Arc<Feeds>>,
    Path(place): Path<Place>,
    Query(wanted): Query<Wanted>,
    Extension(access): Extension<Access>,
    request: Request,
) -> Response {
    let (reads, writes) = match wanted.mode.as_deref() {
        Some("1") => (true, false),
        Some("2") => (false, true),
        Some("3") | None => (true, true),
        Some(_) => {
            return answer(&LegacyError::bad_value(
                "`mode` is 1 (read), 2 (write) or 3 (both)",
            ));
        }
    };
    let (mut parts, _) = request.into_parts();
    websocket::accept(&mut parts, async move |mut socket| {
        let mut asker = Asker { app, feeds, access };
        let opened = match asker.authenticate(&mut socket).await {
            Ok(()) => asker.open(&place, reads, writes).await,
            Err(failure) => Err(failure),
        };
        match opened {
            Err(failure) => refuse(socket, failure).await,
            Ok(opened) => {
                Exchange::new(asker.app, asker.access, opened, Form::Frames)
                    .run(socket)
                    .await
            }
        }
    })
}

/// Says why, and closes.
async fn refuse(mut socket: Socket, failure: Failure) {
    let message = frame::write(frame::Kind::Error, "gaffer_error", failure.body().as_bytes());
    // A client that is gone needs no reason.
    let _gone = futures_util::SinkExt::send(&mut socket, message).await;
    websocket::farewell(socket, 1000, "").await;
}

async fn bare(
    State(app): State<Shared>,
    Extension(feeds): Extension<Arc<Feeds>>,
    Path(pid): Path<String>,
    Extension(access): Extension<Access>,
    request: Request,
) -> Response {
    let (mut parts, _) = request.into_parts();
    websocket::accept(&mut parts, async move |socket| {
        let asker = Asker { app, feeds, access };
        match asker.open_bare(&pid).await {
            Ok(opened) => {
                Exchange::new(asker.app, asker.access, opened, Form::Bare)
                    .run(socket)
                    .await
            }
            Err(error) => {
                let mut socket = socket;
                let message = Message::Text(error.body().to_string().into());
                let _gone = futures_util::SinkExt::send(&mut socket, message).await;
                websocket::farewell(socket, 1000, "").await;
            }
        }
    })
}

impl Asker {
    /// Waits for a key if one is needed. Nothing else is listened to, and nothing is said before.
    async fn authenticate(&mut self, socket: &mut Socket) -> Result<(), Failure> {
        if !self.access.is_nobody() {
            return Ok(());
        }
        let first = tokio::time::timeout(AUTH_TIME_MAX, async {
            loop {
                match socket.next().await {
                    Some(Ok(Message::Binary(bytes))) => return Some(bytes),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return None,
                }
            }
        });
        let bytes = first.await.ok().flatten().ok_or(AUTH_REQUIRED)?;
        let shown = frame::read(&bytes).filter(|frame| frame.kind == frame::Kind::Message);
        let shown = shown.ok_or(AUTH_REQUIRED)?;
        let key = shown
            .body
            .strip_prefix(AUTH)
            .and_then(|key| std::str::from_utf8(key).ok());
        let access = key.and_then(|key| self.app.keyring.resolve(key.trim()));
        self.access = access.ok_or(AUTH_REQUIRED)?;
        let answer = frame::write(frame::Kind::Response, shown.id, b"OK");
        futures_util::SinkExt::send(socket, answer)
            .await
            .map_err(|_| AUTH_REQUIRED)
    }

    async fn open(&self, place: &Place, reads: bool, writes: bool) -> Result<Opened, Failure> {
        let handle = &self.app.handle;
        let pid = names::pid(&place.pid).ok_or(NOT_FOUND)?;
        let (info, process) = objects::process(handle, pid)?;
        let job = &info.view.job;
        if (reads && !self.access.may_read(job)) || (writes && !self.access.may_write(job)) {
            return Err(FORBIDDEN);
        }
        let template = template::of(handle, &info).await;
        let labels = template::labels(&template);
        let custom = |name: &String| template::custom_streams(&template).contains(name);
        let output = match &place.stream {
            None => labels
                .first()
                .map(|(_, stream)| (*stream).to_owned())
                .ok_or(NOT_ALLOWED),
            Some(name) if custom(name) => Ok(name.clone()),
            Some(name) => {
                let found = labels.iter().find(|(label, _)| label == name);
                found.map(|(_, stream)| (*stream).to_owned()).ok_or(NO_STREAM)
            }
        };
        let output = match (reads, output) {
            (true, output) => Some(output?),
            (false, Err(failure)) if failure == NO_STREAM => return Err(failure),
            (false, _) => None,
        };
        let input = match writes {
            true => Some(ops::writable(handle, &info, place.stream.as_deref()).await?),
            false => None,
        };
        let follow = |stream: String| self.feeds.follow(&self.app, process.run, &process.slot, &stream);
        let output = output.map(follow).transpose().map_err(LegacyError::from)?;
        Ok(Opened {
            run: process.run,
            output,
            input,
        })
    }

    /// Output if there is any to be had, and input as far as it is allowed.
    async fn open_bare(&self, pid: &str) -> Result<Opened, LegacyError> {
        if self.access.is_nobody() {
            return Err(LegacyError::new(401, "unauthorized", "a key is required"));
        }
        let handle = &self.app.handle;
        let pid = names::pid(pid).ok_or_else(|| LegacyError::bad_value(format!("`{pid}` is no process")))?;
        let (info, process) = objects::process(handle, pid)?;
        if !self.access.may_read(&info.view.job) {
            return Err(LegacyError::forbidden("the key does not allow to read this job"));
        }
        let template = template::of(handle, &info).await;
        let first = template::labels(&template).into_iter().next();
        let follow =
            |(_, stream): (String, &str)| self.feeds.follow(&self.app, process.run, &process.slot, stream);
        let output = first.map(follow).transpose()?;
        let input = match self.access.may_write(&info.view.job) {
            true => ops::writable(handle, &info, None).await.ok(),
            false => None,
        };
        Ok(Opened {
            run: process.run,
            output,
            input,
        })
    }
}

fn answer(error: &LegacyError) -> Response {
    let json = (CONTENT_TYPE, "application/json; charset=UTF-8");
    (error.code(), [json], Extension(Written), error.body().to_string()).into_response()
}
