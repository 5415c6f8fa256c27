//! What goes on in an open pid channel: output comes, input goes, until the process or the client ends.

use super::frame::{self, Kind};
use super::{AUTH_REQUIRED, BROKEN, Failure, NOT_ALLOWED, Opened};
use crate::access::Access;
use crate::http::Shared;
use crate::legacy::feed::{self, Follower, Piece, What};
use crate::legacy::websocket::{CLOSE_TIME_MAX, HEARTBEAT, Socket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use gaffer_core::name::RunId;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Messages on their way to the client; each is a piece of output at most.
const UNDERWAY: usize = 4;

/// How long a client may take to read the last of it.
const DELIVER_TIME_MAX: Duration = Duration::from_secs(60);

/// How messages look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `V1` frames.
    Frames,
    /// As 0.4 has it.
    Bare,
}

/// An open channel.
pub struct Exchange {
    app: Shared,
    access: Access,
    run: RunId,
    output: Option<Follower>,
    input: Option<String>,
    form: Form,
}

/// Why a channel is closed, in the words of WebSocket.
struct Closing {
    code: u16,
    reason: String,
    /// Said before.
    last: Option<Message>,
}

impl Closing {
    fn new(code: u16, reason: impl Into<String>) -> Closing {
        Closing {
            code,
            reason: reason.into(),
            last: None,
        }
    }
}

impl Exchange {
    /// Of a process that was found and may be talked to.
    pub fn new(app: Shared, access: Access, opened: Opened, form: Form) -> Exchange {
        Exchange {
            app,
            access,
            run: opened.run,
            output: opened.output,
            input: opened.input,
            form,
        }
    }

    /// Until one of the two ends.
    pub async fn run(self, socket: Socket) {
        let (sink, stream) = socket.split();
        let (tx, rx) = mpsc::channel(UNDERWAY);
        let (refused_tx, mut refused) = mpsc::channel(1);
        let mut writing = std::pin::pin!(write(sink, rx));
        let input = Input {
            app: self.app.clone(),
            run: self.run,
            stream: self.input,
            form: self.form,
            refused: refused_tx,
        };
        let mut reading = std::pin::pin!(input.read(stream, tx.clone()));
        let (over, app, form) = (self.access.ended(), self.app.clone(), self.form);
        let ending = async {
            tokio::select! {
                closing = tell(&self.app, self.run, self.output, form, &tx) => closing,
                () = over => revoked(form),
                () = app.closed() => Closing::new(1001, "the daemon ends"),
            }
        };
        let mut gone = false;
        // None: the client is gone.
        let closing = tokio::select! {
            closing = ending => Some(closing),
            closing = refused.recv() => closing,
            () = reading.as_mut() => {
                gone = true;
                refused.try_recv().ok()
            }
            () = writing.as_mut() => None,
        };
        let Some(closing) = closing else { return };
        let frame = CloseFrame {
            code: closing.code.into(),
            reason: closing.reason.into(),
        };
        let queue = async {
            for message in closing.last.into_iter().chain([Message::Close(Some(frame))]) {
                // A client that is gone needs no goodbye.
                let _gone = tx.send(message).await;
            }
        };
        let delivered = futures_util::future::join(queue, writing);
        if tokio::time::timeout(DELIVER_TIME_MAX, delivered).await.is_ok() && !gone {
            let _late = tokio::time::timeout(CLOSE_TIME_MAX, reading).await;
        }
    }
}

/// Sends what is queued, up to a close; in between a sign of life.
async fn write(mut sink: SplitSink<Socket, Message>, mut queue: mpsc::Receiver<Message>) {
    loop {
        let message = match tokio::time::timeout(HEARTBEAT, queue.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(_) => Message::Ping(Default::default()),
        };
        let last = message.is_close();
        if sink.send(message).await.is_err() || last {
            return;
        }
    }
}

/// Sends the output as it comes; resolves when the process has ended and all of it is queued.
async fn tell(
    app: &Shared,
    run: RunId,
    output: Option<Follower>,
    form: Form,
    queue: &mpsc::Sender<Message>,
) -> Closing {
    let Some(mut output) = output else {
        feed::ended(app, run).await;
        return Closing::new(1000, "");
    };
    while let Some(piece) = output.next().await {
        match (&piece.what, form) {
            (What::Missed(bytes), Form::Bare) => {
                // There is no way to say it in between.
                return Closing::new(1013, format!("missed {bytes} bytes: they are not kept any more"));
            }
            _ => {
                // Who writes it ends the exchange when the client is gone.
                let _gone = queue.send(message_of(&piece, form)).await;
            }
        }
    }
    Closing::new(1000, "")
}

fn message_of(piece: &Piece, form: Form) -> Message {
    match (&piece.what, form) {
        (What::Bytes(bytes), Form::Frames) => frame::write(Kind::Message, &piece.id(), bytes),
        (What::Bytes(bytes), Form::Bare) => match std::str::from_utf8(bytes) {
            Ok(text) => Message::Text(text.into()),
            Err(_) => Message::Binary(bytes.clone().into()),
        },
        (What::Missed(bytes), _) => {
            let body = format!(
                "{{\"error\":\"GAP\",\"errno\":410,\"reason\":\"missed {bytes} bytes: they are not kept any more\",\
                 \"missed\":{bytes}}}"
            );
            frame::write(Kind::Error, "gaffer_gap", body.as_bytes())
        }
    }
}

fn revoked(form: Form) -> Closing {
    let last = match form {
        Form::Frames => frame::write(Kind::Error, "gaffer_error", AUTH_REQUIRED.body().as_bytes()),
        Form::Bare => bare_error("unauthorized", 401),
    };
    Closing {
        last: Some(last),
        ..Closing::new(1008, "the key is not valid any more")
    }
}

fn bare_error(word: &str, errno: u16) -> Message {
    Message::Text(format!("{{\"error\":\"{word}\",\"errno\":{errno},\"reason\":\"{word}\"}}").into())
}

/// What the client writes.
struct Input {
    app: Shared,
    run: RunId,
    stream: Option<String>,
    form: Form,
    /// Gets why the channel is to be closed; what comes later is read and thrown away.
    refused: mpsc::Sender<Closing>,
}

impl Input {
    /// Until the client is gone.
    async fn read(self, mut stream: SplitStream<Socket>, queue: mpsc::Sender<Message>) {
        while let Some(message) = stream.next().await {
            let bytes = match message {
                Ok(Message::Binary(bytes)) => bytes,
                Ok(_) => continue,
                Err(Error::Capacity(_)) => {
                    return self.refuse(Closing::new(1009, "the message is too large"));
                }
                Err(_) => return,
            };
            let answer = match self.form {
                Form::Frames => self.frame(&bytes).await,
                Form::Bare => match self.write(&bytes).await {
                    Ok(()) => continue,
                    Err(failure) => {
                        let word = if failure == NOT_ALLOWED {
                            "forbidden_write"
                        } else {
                            "write_failed"
                        };
                        let last = Some(bare_error(word, failure.errno));
                        self.refuse(Closing {
                            last,
                            ..Closing::new(1000, "")
                        });
                        continue;
                    }
                },
            };
            // Nobody writes any more: the client's close is all that is still read.
            let _over = queue.send(answer).await;
        }
    }

    fn refuse(&self, closing: Closing) {
        // The first reason counts.
        let _later = self.refused.try_send(closing);
    }

    async fn frame(&self, bytes: &[u8]) -> Message {
        let Some(frame) = frame::read(bytes).filter(|frame| frame.kind == Kind::Message) else {
            let body = super::failure(400, "EINVAL").body();
            return frame::write(Kind::Error, "gaffer_error", body.as_bytes());
        };
        match self.write(frame.body).await {
            Ok(()) => frame::write(Kind::Response, frame.id, b"OK"),
            Err(failure) => frame::write(Kind::Error, frame.id, failure.body().as_bytes()),
        }
    }

    /// Returns when the process's pipe took all of it.
    async fn write(&self, bytes: &[u8]) -> Result<(), Failure> {
        let stream = self.stream.as_deref().ok_or(NOT_ALLOWED)?;
        let written = self.app.handle.run_input(self.run, stream, bytes.to_vec(), false);
        written.await.map_err(|_| BROKEN)
    }
}
