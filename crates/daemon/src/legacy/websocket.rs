//! WebSockets as the original's client needs them (spec 17): `Connection` says `Upgrade` and nothing else, the TCP
//! connection ends after the closing handshake, and a text frame may hold bytes that are no text.
//!
//! That client sends text frames whatever is in them, which RFC 6455 forbids and every library refuses. So the reader
//! below the library turns the client's text frames into binary ones on their way in: a frame's kind is four bits of
//! its first byte. Nothing here tells the two apart.

use crate::legacy::conversation::Carrier;
use crate::refusal::Written;
use axum::Extension;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::http::request::Parts;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

/// Largest message of a client.
pub const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// What a connection has ready to read into: a thousand of them are idle most of the time.
const READ_BYTES: usize = 4 << 10;

/// Largest share of a message that waits for a slow network inside the library, beyond the message itself.
const WRITE_BYTES_MAX: usize = 1 << 20;

/// How long the other side may take to answer our close.
pub const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// Sign of life, which also finds out that a peer has vanished.
pub const HEARTBEAT: Duration = Duration::from_secs(25);

/// A WebSocket of a client, whose text frames come as binary messages.
pub type Socket = WebSocketStream<Binary<TokioIo<Upgraded>>>;

const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const SEC_WEBSOCKET_VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");
const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// Answers a handshake; `serve` gets the socket once the answer is out. Without one: 400, or 405.
pub fn accept<F>(parts: &mut Parts, serve: impl FnOnce(Socket) -> F + Send + 'static) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let (key, upgrade) = match handshake(parts) {
        Ok(both) => both,
        Err((status, text)) => return (status, Extension(Written), text).into_response(),
    };
    tokio::spawn(async move {
        // A client that went away before it was answered.
        let Ok(upgraded) = upgrade.await else { return };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(MESSAGE_BYTES_MAX + WRITE_BYTES_MAX)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let io = Binary::new(TokioIo::new(upgraded));
        serve(WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await).await;
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// The client's key and its connection; or how it is refused, in the words of SockJS.
fn handshake(parts: &mut Parts) -> Result<(HeaderValue, OnUpgrade), (StatusCode, &'static str)> {
    if parts.method != Method::GET {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "a WebSocket begins with a GET"));
    }
    if !says(&parts.headers, &UPGRADE, "websocket") {
        return Err((StatusCode::BAD_REQUEST, "Can \"Upgrade\" only to \"WebSocket\"."));
    }
    if !says(&parts.headers, &CONNECTION, "upgrade") {
        return Err((StatusCode::BAD_REQUEST, "\"Connection\" must be \"Upgrade\"."));
    }
    if !says(&parts.headers, &SEC_WEBSOCKET_VERSION, "13") {
        return Err((StatusCode::BAD_REQUEST, "Sec-WebSocket-Version must be 13."));
    }
    let key = parts.headers.get(SEC_WEBSOCKET_KEY).cloned();
    let key = key.ok_or((StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing."))?;
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or((
        StatusCode::BAD_REQUEST,
        "this connection cannot become a WebSocket.",
    ))?;
    Ok((key, upgrade))
}

/// Is the word one of those in the header?
fn says(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(word))
}

/// How texts become messages and back.
pub trait Framing: Send {
    /// Before anything else.
    fn opening(&self) -> Option<Utf8Bytes>;
    /// Of one text.
    fn write(&self, text: &Utf8Bytes) -> Utf8Bytes;
    /// The texts of a message; none ends the connection.
    fn read(&self, bytes: &[u8]) -> Option<Vec<String>>;
    /// A sign of life; none: a ping of WebSocket.
    fn heartbeat(&self) -> Option<Utf8Bytes>;
    /// The last message, before the connection is closed with this code and reason.
    fn goodbye(&self) -> (Option<Utf8Bytes>, u16, &'static str);
}

/// One text is one message.
pub struct Plain;

impl Framing for Plain {
    fn opening(&self) -> Option<Utf8Bytes> {
        None
    }

    fn write(&self, text: &Utf8Bytes) -> Utf8Bytes {
        text.clone()
    }

    fn read(&self, bytes: &[u8]) -> Option<Vec<String>> {
        Some(vec![String::from_utf8_lossy(bytes).into_owned()])
    }

    fn heartbeat(&self) -> Option<Utf8Bytes> {
        None
    }

    fn goodbye(&self) -> (Option<Utf8Bytes>, u16, &'static str) {
        (None, 1000, "")
    }
}

/// Carries a conversation over a socket until one of the two ends, then closes in order.
pub async fn carry(socket: Socket, mut carrier: Carrier, framing: &(dyn Framing + Sync)) {
    let (mut sink, mut stream) = socket.split();
    let reading = async {
        while let Some(message) = stream.next().await {
            match message {
                Ok(Message::Binary(bytes)) => {
                    let Some(texts) = framing.read(&bytes) else {
                        return Some((CloseCode::Invalid, "Broken JSON encoding."));
                    };
                    for text in texts {
                        // Who does not listen any more is about to close; the client's close is still read.
                        let _over = carrier.incoming.send(text).await;
                    }
                }
                Ok(_) => {}
                Err(Error::Capacity(_)) => return Some((CloseCode::Size, "the message is too large")),
                Err(_) => return None,
            }
        }
        None
    };
    let writing = async {
        if let Some(text) = framing.opening() {
            sink.send(Message::Text(text)).await.ok()?;
        }
        loop {
            let message = match tokio::time::timeout(HEARTBEAT, carrier.outgoing.recv()).await {
                Ok(Some(held)) => Message::Text(framing.write(&held.text)),
                Ok(None) => break,
                Err(_) => framing
                    .heartbeat()
                    .map_or_else(|| Message::Ping(Default::default()), Message::Text),
            };
            sink.send(message).await.ok()?;
        }
        let (last, code, reason) = framing.goodbye();
        if let Some(text) = last {
            sink.send(Message::Text(text)).await.ok()?;
        }
        close(&mut sink, code.into(), reason).await;
        Some(())
    };
    let mut reading = std::pin::pin!(reading);
    let refused = tokio::select! {
        refused = reading.as_mut() => refused,
        closed = writing => {
            if closed.is_some() {
                let _late = tokio::time::timeout(CLOSE_TIME_MAX, reading).await;
            }
            return;
        }
    };
    if let Some((code, reason)) = refused {
        let closing = close(&mut sink, code, reason);
        let _late = tokio::time::timeout(CLOSE_TIME_MAX, closing).await;
    }
}

async fn close(sink: &mut SplitSink<Socket, Message>, code: CloseCode, reason: &'static str) {
    let frame = CloseFrame {
        code,
        reason: Utf8Bytes::from_static(reason),
    };
    // A client that is gone needs no close.
    let _gone = sink.send(Message::Close(Some(frame))).await;
}

/// Closes a socket that is not split, and waits for the answer; then the TCP connection ends.
pub async fn farewell(mut socket: Socket, code: u16, reason: &str) {
    let end = async {
        let frame = CloseFrame {
            code: code.into(),
            reason: reason.into(),
        };
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    let _late = tokio::time::timeout(CLOSE_TIME_MAX, end).await;
}

/// Reads what a client sends, with its text frames made binary.
pub struct Binary<S> {
    io: S,
    place: Place,
}

/// Where in a frame the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Its first byte: the kind.
    Kind,
    /// Its second byte: masked, and how long.
    Length,
    /// Bytes of a longer length are to come.
    Longer { left: u8, length: u64, masked: bool },
    /// Bytes of mask and payload are to come.
    Inside { left: u64 },
}

impl<S> Binary<S> {
    fn new(io: S) -> Binary<S> {
        Binary {
            io,
            place: Place::Kind,
        }
    }
}

impl Place {
    /// Goes over bytes as they came, changing the kinds of frames.
    fn pass(mut self, bytes: &mut [u8]) -> Place {
        let mut at = 0;
        while let Some(byte) = bytes.get_mut(at) {
            at += 1;
            self = match self {
                Place::Kind => {
                    if *byte & 0x0f == 1 {
                        *byte ^= 0x03;
                    }
                    Place::Length
                }
                Place::Length => {
                    let masked = *byte & 0x80 != 0;
                    match *byte & 0x7f {
                        126 => Place::Longer {
                            left: 2,
                            length: 0,
                            masked,
                        },
                        127 => Place::Longer {
                            left: 8,
                            length: 0,
                            masked,
                        },
                        length => Place::inside(u64::from(length), masked),
                    }
                }
                Place::Longer { left, length, masked } => {
                    let length = length << 8 | u64::from(*byte);
                    match left {
                        1 => Place::inside(length, masked),
                        _ => Place::Longer {
                            left: left - 1,
                            length,
                            masked,
                        },
                    }
                }
                Place::Inside { left } => {
                    // This byte and as many of the others as there are, at once.
                    let rest = (bytes.len() - at) as u64;
                    let skip = rest.min(left - 1);
                    at += usize::try_from(skip).unwrap_or(usize::MAX);
                    match left - 1 - skip {
                        0 => Place::Kind,
                        left => Place::Inside { left },
                    }
                }
            };
        }
        self
    }

    fn inside(length: u64, masked: bool) -> Place {
        match length.saturating_add(if masked { 4 } else { 0 }) {
            0 => Place::Kind,
            left => Place::Inside { left },
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Binary<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        let new = buffer.filled_mut().get_mut(before..).unwrap_or_default();
        self.place = self.place.pass(new);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Binary<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of a client, masked with zeroes.
    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x80 | kind];
        match payload.len() {
            length @ 0..126 => bytes.push(0x80 | u8::try_from(length).expect("small")),
            length @ 126..65536 => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(length).expect("medium").to_be_bytes());
            }
            length => {
                bytes.push(0x80 | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn only_the_kind_of_text_frames_changes_however_the_bytes_are_cut() {
        let payloads = [
            vec![],
            vec![0x81; 5],
            vec![0x81; 126],
            vec![0x01; 70_000],
            b"end".to_vec(),
        ];
        for step in [1, 2, 3, 7, 1000, 1 << 20] {
            let kinds = [1, 2, 9, 1, 8];
            let sent: Vec<u8> = kinds
                .iter()
                .zip(&payloads)
                .flat_map(|(kind, body)| frame(*kind, body))
                .collect();
            let wanted: Vec<u8> = kinds
                .iter()
                .zip(&payloads)
                .flat_map(|(kind, body)| frame(if *kind == 1 { 2 } else { *kind }, body))
                .collect();
            let mut got = sent.clone();
            let mut place = Place::Kind;
            for part in got.chunks_mut(step) {
                place = place.pass(part);
            }
            assert!(got == wanted && place == Place::Kind, "in steps of {step}");
        }
    }

    #[test]
    fn the_connection_header_may_hold_other_words() {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        assert!(says(&headers, &CONNECTION, "upgrade") && !says(&headers, &CONNECTION, "up"));
    }
}
