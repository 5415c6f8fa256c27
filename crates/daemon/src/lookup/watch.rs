//! `/lookup/websocket`, and SockJS beneath `/lookup`: what happens, from now on. A watcher that reads too slowly is told
//! how much it has missed, and its connection ends: it asks for the lists again, instead of believing an old picture.

use crate::legacy::conversation::{Conversation, Outbox};
use crate::legacy::sockjs::Open;
use crate::lookup::http::{Shared, crowded};
use crate::lookup::node_socket::goodbye;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use gaffer_api::lookup::Event;
use hyper::body::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

/// Watchers say nothing.
const MESSAGE_BYTES_MAX: usize = 1 << 10;

/// How long one event may take to be read before the watcher is given up.
const SEND_TIME_MAX: Duration = Duration::from_secs(30);

/// So often a silent connection is used, so that a watcher that is gone is found.
const ASK_EVERY: Duration = Duration::from_secs(15);

/// Watches.
pub async fn upgrade(State(service): State<Shared>, upgrade: WebSocketUpgrade) -> Response {
    let Ok(permit) = service.sockets.clone().try_acquire_owned() else {
        return crowded();
    };
    // Subscribed before the answer: whoever has read it misses nothing.
    let events = service.registry.watch();
    upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(|socket| async move {
            serve(service, events, socket).await;
            drop(permit);
        })
}

async fn serve(service: Shared, mut events: Receiver<Arc<str>>, mut socket: WebSocket) {
    let mut ask = tokio::time::interval_at(tokio::time::Instant::now() + ASK_EVERY, ASK_EVERY);
    loop {
        let message = tokio::select! {
            event = events.recv() => match event {
                Ok(event) => Message::Text((*event).into()),
                Err(RecvError::Lagged(count)) => return missed(&mut socket, count).await,
                Err(RecvError::Closed) => return,
            },
            heard = socket.recv() => match heard {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
            _ = ask.tick() => Message::Ping(Bytes::new()),
            () = service.closed() => return goodbye(&mut socket, "the look-up service ends").await,
        };
        if !matches!(timeout(SEND_TIME_MAX, socket.send(message)).await, Ok(Ok(()))) {
            return;
        }
    }
}

fn too_slow(count: u64) -> String {
    // Texts and numbers always have a JSON form.
    serde_json::to_string(&Event::Missed { count }).unwrap_or_default()
}

async fn missed(socket: &mut WebSocket, count: u64) {
    let text = too_slow(count);
    if matches!(
        timeout(SEND_TIME_MAX, socket.send(Message::Text(text.into()))).await,
        Ok(Ok(()))
    ) {
        goodbye(socket, "read faster, or ask for the lists again").await;
    }
}

/// The same for whoever speaks SockJS. Too many: the conversation is over before it has begun.
pub fn sockjs(service: Shared) -> Open {
    Arc::new(move |conversation, _request| {
        if let Ok(permit) = service.sockets.clone().try_acquire_owned() {
            let (events, service) = (service.registry.watch(), service.clone());
            tokio::spawn(async move {
                let Conversation {
                    mut incoming,
                    outgoing,
                } = conversation;
                tokio::select! {
                    () = tell(&outgoing, events) => {}
                    () = service.closed() => {}
                    // What it says means nothing; that it is gone does.
                    () = async { while incoming.recv().await.is_some() {} } => {}
                }
                // Whoever carries says goodbye, and has its place until it has.
                drop(outgoing);
                while incoming.recv().await.is_some() {}
                drop(permit);
            });
        }
    })
}

/// Tells what happens until nobody listens any more, or too slowly.
async fn tell(out: &Outbox, mut events: Receiver<Arc<str>>) {
    loop {
        let (text, is_last) = match events.recv().await {
            Ok(event) => (event.to_string(), false),
            Err(RecvError::Lagged(count)) => (too_slow(count), true),
            Err(RecvError::Closed) => return,
        };
        if out.send(text).await.is_err() || is_last {
            return;
        }
    }
}
