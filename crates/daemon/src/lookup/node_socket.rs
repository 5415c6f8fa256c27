//! `/ws`: a node tells what it has. One message is answered before the next is read, so nothing piles up.
//!
//! The connection is the node: it is there as long as that is. A peer that vanished without a word is found by silence:
//! the service asks three times within `silent_after` (WebSocket pings, which every client answers), and whatever
//! comes counts as life.

use crate::lookup::http::{Shared, crowded};
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use gaffer_api::lookup::{Refused, Reply, read_message};
use hyper::body::Bytes;
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Largest message of a node.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// How long a node may take to read a reply.
const SEND_TIME_MAX: Duration = Duration::from_secs(10);

/// Takes a node in.
pub async fn upgrade(State(service): State<Shared>, upgrade: WebSocketUpgrade) -> Response {
    let Ok(permit) = service.sockets.clone().try_acquire_owned() else {
        return crowded();
    };
    upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(|socket| async move {
            serve(service, socket).await;
            drop(permit);
        })
}

async fn serve(service: Shared, mut socket: WebSocket) {
    let Some(seat) = service.registry.enter() else {
        let full = Refused::new(503, "too many nodes are connected");
        // Who cannot be served may as well miss why.
        let _told = reply(&mut socket, Value::Null, Err(full)).await;
        return;
    };
    let ask_every = service.silent_after / 3;
    let mut heard = Instant::now();
    let mut ask = tokio::time::interval_at(heard + ask_every, ask_every);
    let replaced = seat.replaced.clone();
    loop {
        tokio::select! {
            message = socket.recv() => {
                heard = Instant::now();
                let text = match message {
                    Some(Ok(Message::Text(text))) => text,
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    // Not JSON either.
                    Some(Ok(Message::Binary(_))) => "".into(),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                };
                let (id, say) = read_message(&text);
                let done = say.and_then(|say| seat.take(say));
                if reply(&mut socket, id, done).await.is_none() {
                    return;
                }
            }
            _ = ask.tick() => {
                if heard.elapsed() >= service.silent_after {
                    tracing::info!(reason = "it said nothing for too long", "node.dropped");
                    return;
                }
                let asked = timeout(SEND_TIME_MAX, socket.send(Message::Ping(Bytes::new()))).await;
                if !matches!(asked, Ok(Ok(()))) {
                    return;
                }
            }
            () = replaced.notified() => return goodbye(&mut socket, "a newer connection has taken the place").await,
            () = service.closed() => return goodbye(&mut socket, "the look-up service ends").await,
        }
    }
}

async fn reply(socket: &mut WebSocket, id: Value, done: Result<(), Refused>) -> Option<()> {
    // Texts and numbers always have a JSON form.
    let text = serde_json::to_string(&Reply::to(id, done)).unwrap_or_default();
    let sent = timeout(SEND_TIME_MAX, socket.send(Message::Text(text.into()))).await;
    sent.ok()?.ok()
}

/// Says that the connection ends; nobody need hear it.
pub async fn goodbye(socket: &mut WebSocket, reason: &'static str) {
    let frame = CloseFrame {
        code: close_code::AWAY,
        reason: reason.into(),
    };
    let _heard = timeout(Duration::from_secs(1), socket.send(Message::Close(Some(frame)))).await;
}
