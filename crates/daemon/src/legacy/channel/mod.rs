//! The channel: one conversation over which a client follows topics and gives commands (spec 8).
//!
//! It is carried by a WebSocket at `/channel/websocket` or by any transport of SockJS below `/channel`. Messages of a
//! client are worked on one after the other; what it follows comes in between.
//!
//! | module | holds |
//! |---|---|
//! | `message` | the JSON of both directions |
//! | `topic` | what can be followed |
//! | `subscriptions` | who follows what, and what comes of it |
//! | `command` | the twenty commands |
//!
//! A client that does not read is waited for: at most 64 messages and 64 KiB are on their way to it, everything else
//! stays where it came from. When it reads again it gets what is still kept, and for the rest a `gaffer:event` whose
//! `data.event` is `gap`, with `missed` (events, or bytes of output). Samples of statistics are not made up for.

mod command;
mod message;
mod subscriptions;
mod topic;

use crate::access::Access;
use crate::http::Shared;
use crate::legacy::conversation::{Conversation, Gone, Outbox};
use crate::legacy::feed::Feeds;
use crate::legacy::sockjs;
use crate::legacy::{pid_channel, pid_channel::AUTH_TIME_MAX};
use axum::Router;
use hyper::http::request::Parts;
use message::Request;
use std::ops::ControlFlow;
use std::sync::Arc;
use subscriptions::Subscriptions;

/// Longest key.
const KEY_BYTES_MAX: usize = 256;

/// Routes of the channel and of pid channels.
pub fn router(app: &Shared) -> Router<Shared> {
    let feeds = Arc::new(Feeds::default());
    let (own, own_feeds) = (app.clone(), feeds.clone());
    let open = move |conversation: Conversation, parts: &Parts| {
        // Every request has one: who has none may do nothing.
        if let Some(access) = parts.extensions.get::<Access>() {
            let talk = Talk::new(own.clone(), own_feeds.clone(), access.clone(), &conversation);
            tokio::spawn(talk.run(conversation));
        }
    };
    sockjs::router("/channel", Arc::new(open)).merge(pid_channel::router(feeds))
}

/// One client.
struct Talk {
    app: Shared,
    access: Access,
    out: Outbox,
    subscriptions: Subscriptions,
}

/// Go on, or end the conversation.
type Flow = ControlFlow<()>;

/// A client that is gone is talked to no more.
fn flow(sent: Result<(), Gone>) -> Flow {
    match sent {
        Ok(()) => ControlFlow::Continue(()),
        Err(Gone) => ControlFlow::Break(()),
    }
}

impl Talk {
    fn new(app: Shared, feeds: Arc<Feeds>, access: Access, conversation: &Conversation) -> Talk {
        let out = conversation.outgoing.clone();
        Talk {
            subscriptions: Subscriptions::new(app.clone(), feeds, out.clone()),
            app,
            access,
            out,
        }
    }

    /// Until the client is gone, its key is revoked, or the daemon ends.
    async fn run(mut self, conversation: Conversation) {
        let Conversation {
            mut incoming,
            outgoing,
        } = conversation;
        drop(outgoing);
        if self.access.is_nobody() {
            let first = tokio::time::timeout(AUTH_TIME_MAX, incoming.recv()).await;
            let Some(text) = first.unwrap_or(Some(String::new())) else {
                return;
            };
            if self.authenticate(&text).await.is_break() {
                return;
            }
        }
        loop {
            let text = tokio::select! {
                text = incoming.recv() => text,
                () = self.app.closed() => return,
                () = self.access.ended() => {
                    // It is over either way.
                    let _gone = self.out.send(message::auth_required(403)).await;
                    return;
                }
            };
            let Some(text) = text else { return };
            if self.take(&text).await.is_break() {
                return;
            }
        }
    }

    async fn authenticate(&mut self, text: &str) -> Flow {
        let key = text.strip_prefix("AUTH:").map(str::trim);
        let access = key
            .filter(|key| key.len() <= KEY_BYTES_MAX)
            .and_then(|key| self.app.keyring.resolve(key));
        match access {
            Some(access) => {
                self.access = access;
                ControlFlow::Continue(())
            }
            None => {
                let errno = if key.is_some() { 403 } else { 401 };
                let _gone = self.out.send(message::auth_required(errno)).await;
                ControlFlow::Break(())
            }
        }
    }

    async fn take(&mut self, text: &str) -> Flow {
        // A client shows the key of its configuration also where none is needed.
        if text.starts_with("AUTH:") {
            return ControlFlow::Continue(());
        }
        let answer = match message::read(text) {
            Err(reason) => message::invalid(reason),
            Ok(Request::Nop) => return ControlFlow::Continue(()),
            Ok(Request::Subscribe(topic)) => return flow(self.subscriptions.add(topic, &self.access).await),
            Ok(Request::Unsubscribe(topic)) => {
                self.subscriptions.remove(&topic).await;
                message::subscribed(&topic)
            }
            Ok(Request::Command(command)) => {
                match command::carry_out(&self.app, &self.access, &command).await {
                    Ok(result) => message::done(&command.id, result),
                    Err(failure) => message::failed(&command.id, failure.errno, &failure.reason),
                }
            }
        };
        flow(self.out.send(answer).await)
    }
}
