//! A conversation: texts in, texts out, whatever carries them (a WebSocket, one of SockJS's transports).
//!
//! Both directions are bounded, in number and in bytes. Whoever sends waits for room, so what a slow reader does not
//! take stays where it came from (the log of events, the files of output) and costs no memory here.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Messages of the other side that were not looked at yet.
const INCOMING_MAX: usize = 4;

/// Messages on their way to the other side.
const OUTGOING_MAX: usize = 64;

/// Bytes on their way to the other side; a longer message goes alone.
const OUTGOING_BYTES_MAX: usize = 64 << 10;

/// The side of whoever talks: an application.
pub struct Conversation {
    /// What the other side says; none: it is gone.
    pub incoming: mpsc::Receiver<String>,
    /// What is said to it. When the last copy is dropped the conversation is over.
    pub outgoing: Outbox,
}

/// The side of whoever carries: a connection, or a session of several.
pub struct Carrier {
    /// What the other side said.
    pub incoming: mpsc::Sender<String>,
    /// What is to be said to it; none: the conversation is over.
    pub outgoing: mpsc::Receiver<Held>,
}

/// Says something to the other side. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    messages: mpsc::Sender<Held>,
    room: Arc<Semaphore>,
}

/// A message that takes up room until it is dropped.
#[derive(Debug)]
pub struct Held {
    /// What is said.
    pub text: Utf8Bytes,
    _room: OwnedSemaphorePermit,
}

/// The other side is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// Both sides of a new conversation.
pub fn conversation() -> (Conversation, Carrier) {
    let (in_tx, in_rx) = mpsc::channel(INCOMING_MAX);
    let (out_tx, out_rx) = mpsc::channel(OUTGOING_MAX);
    let outgoing = Outbox {
        messages: out_tx,
        room: Arc::new(Semaphore::new(OUTGOING_BYTES_MAX)),
    };
    let ours = Conversation {
        incoming: in_rx,
        outgoing,
    };
    let theirs = Carrier {
        incoming: in_tx,
        outgoing: out_rx,
    };
    (ours, theirs)
}

impl Outbox {
    /// Waits for room, then hands the message over.
    pub async fn send(&self, text: impl Into<Utf8Bytes>) -> Result<(), Gone> {
        let text = text.into();
        let bytes = text.len().clamp(1, OUTGOING_BYTES_MAX);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(bytes);
        let room = tokio::select! {
            room = room => room.map_err(|_| Gone)?,
            // Whoever waits for room would wait for ever.
            () = self.messages.closed() => return Err(Gone),
        };
        let held = Held { text, _room: room };
        self.messages.send(held).await.map_err(|_| Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn hazard_35_a_reader_that_does_not_read_is_owed_no_more_than_the_bound() {
        let (ours, mut theirs) = conversation();
        let text = "x".repeat(OUTGOING_BYTES_MAX / 4);
        let mut taken = 0;
        while ours.outgoing.send(text.as_str()).now_or_never().is_some() {
            taken += 1;
        }
        assert_eq!(taken, 4, "the bytes are bounded");
        drop(theirs.outgoing.recv().await);
        assert!(
            ours.outgoing.send(text.as_str()).now_or_never().is_some(),
            "room comes back"
        );
        let waiting = ours.outgoing.send(text.as_str());
        drop(theirs);
        assert_eq!(waiting.await, Err(Gone));
    }

    #[tokio::test]
    async fn a_message_longer_than_the_bound_goes_alone() {
        let (ours, mut theirs) = conversation();
        let text = "x".repeat(OUTGOING_BYTES_MAX * 3);
        assert_eq!(ours.outgoing.send(text.as_str()).await, Ok(()));
        assert!(ours.outgoing.send("y").now_or_never().is_none());
        let first = theirs.outgoing.recv().await.map(|held| held.text.len());
        assert_eq!(first, Some(text.len()));
        assert_eq!(ours.outgoing.send("y").await, Ok(()));
    }
}
