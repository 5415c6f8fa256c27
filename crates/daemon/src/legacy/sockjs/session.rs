//! Sessions of transports that need many connections for one conversation (polling, streaming).
//!
//! A session is made by the first connection that receives. One connection receives at a time; others send. Five
//! seconds after the last receiving connection the session dies, and the application's side of the conversation with
//! it. Sessions are bounded in number, and what waits in each by its conversation.

use crate::legacy::conversation::{Carrier, Conversation, Held, conversation};
use crate::legacy::sockjs::frame::{self, Close};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, mpsc, watch};

/// Between signs of life.
pub const HEARTBEAT: Duration = Duration::from_secs(25);

/// How long a session lives without a connection that receives.
const DEATH_AFTER: Duration = Duration::from_secs(5);

/// Sessions at once.
const SESSIONS_MAX: usize = 1024;

/// Messages of one frame; together they are bounded by the conversation.
const FRAME_MESSAGES_MAX: usize = 64;

/// The sessions of one place.
#[derive(Clone)]
pub struct Sessions {
    all: Table,
    times: Times,
}

type Table = Arc<Mutex<HashMap<String, Arc<Session>>>>;

/// How long what lasts.
#[derive(Clone, Copy, Debug)]
struct Times {
    heartbeat: Duration,
    death_after: Duration,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions {
            all: Table::default(),
            times: Times {
                heartbeat: HEARTBEAT,
                death_after: DEATH_AFTER,
            },
        }
    }
}

/// One session.
pub struct Session {
    heartbeat: Duration,
    from: Option<IpAddr>,
    incoming: mpsc::Sender<String>,
    outgoing: Arc<AsyncMutex<Outgoing>>,
    /// Connections that receive: 0 or 1.
    receiving: watch::Sender<usize>,
}

struct Outgoing {
    messages: mpsc::Receiver<Held>,
    opened: bool,
    closed: Option<Close>,
}

/// Why there is no session to receive from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too many.
    Full,
    /// Told by a frame.
    Closed(Close),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sessions {
    /// Receives from a session; a new one begins with `open`.
    pub fn receive(
        &self,
        id: &str,
        from: Option<IpAddr>,
        open: impl FnOnce(Conversation),
    ) -> Result<Reception, Refused> {
        let mut sessions = lock(&self.all);
        if let Some(session) = sessions.get(id) {
            return session.clone().receive(from);
        }
        if sessions.len() >= SESSIONS_MAX {
            return Err(Refused::Full);
        }
        let (ours, carrier) = conversation();
        let session = Arc::new(Session::new(from, carrier, self.times.heartbeat));
        sessions.insert(id.to_owned(), session.clone());
        let reception = session.clone().receive(from);
        let all = Arc::downgrade(&self.all);
        tokio::spawn(live(all, id.to_owned(), session, self.times.death_after));
        open(ours);
        reception
    }

    /// A session to send to.
    pub fn find(&self, id: &str) -> Option<Arc<Session>> {
        lock(&self.all).get(id).cloned()
    }
}

/// Waits until nobody has received for a while, then forgets the session: what is left of it ends.
async fn live(
    sessions: Weak<Mutex<HashMap<String, Arc<Session>>>>,
    id: String,
    session: Arc<Session>,
    death_after: Duration,
) {
    let mut receiving = session.receiving.subscribe();
    loop {
        // The sender is in the session, which we hold.
        drop(receiving.wait_for(|count| *count == 0).await);
        let again = receiving.wait_for(|count| *count > 0);
        let dead = tokio::time::timeout(death_after, again).await.is_err();
        if dead {
            break;
        }
    }
    if let Some(sessions) = sessions.upgrade() {
        lock(&sessions).remove(&id);
    }
}

impl Session {
    fn new(from: Option<IpAddr>, carrier: Carrier, heartbeat: Duration) -> Session {
        Session {
            heartbeat,
            from,
            incoming: carrier.incoming,
            outgoing: Arc::new(AsyncMutex::new(Outgoing {
                messages: carrier.outgoing,
                opened: false,
                closed: None,
            })),
            receiving: watch::Sender::new(0),
        }
    }

    fn receive(self: Arc<Session>, from: Option<IpAddr>) -> Result<Reception, Refused> {
        if self.from != from {
            return Err(Refused::Closed(frame::STILL_OPEN));
        }
        let Ok(outgoing) = self.outgoing.clone().try_lock_owned() else {
            return Err(Refused::Closed(frame::STILL_OPEN));
        };
        if let Some(close) = outgoing.closed {
            return Err(Refused::Closed(close));
        }
        self.receiving.send_replace(1);
        Ok(Reception {
            session: self,
            outgoing,
            finished: false,
        })
    }

    /// Hands over what a client sent; waits while the application is busy. False: it does not listen any more.
    pub async fn send(&self, from: Option<IpAddr>, texts: Vec<String>) -> bool {
        if self.from != from {
            return false;
        }
        for text in texts {
            if self.incoming.send(text).await.is_err() {
                return false;
            }
        }
        true
    }
}

/// The connection that receives.
pub struct Reception {
    session: Arc<Session>,
    outgoing: OwnedMutexGuard<Outgoing>,
    finished: bool,
}

impl Reception {
    /// The next frame: `o` first, then messages, a heartbeat, or a close, after which there is nothing.
    pub async fn next(&mut self) -> (String, bool) {
        let outgoing = &mut *self.outgoing;
        if !outgoing.opened {
            outgoing.opened = true;
            return (frame::OPEN.to_owned(), false);
        }
        match tokio::time::timeout(self.session.heartbeat, outgoing.messages.recv()).await {
            Err(_) => (frame::HEARTBEAT.to_owned(), false),
            Ok(None) => {
                outgoing.closed = Some(frame::GO_AWAY);
                (frame::GO_AWAY.frame(), true)
            }
            Ok(Some(first)) => {
                let mut held = vec![first];
                while held.len() < FRAME_MESSAGES_MAX
                    && let Ok(more) = outgoing.messages.try_recv()
                {
                    held.push(more);
                }
                (frame::messages(held.iter().map(|one| one.text.as_str())), false)
            }
        }
    }

    /// The connection got what was meant for it.
    pub fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        if !self.finished && self.outgoing.closed.is_none() {
            // It broke off, perhaps with a frame that it took: nobody knows what the client has.
            self.outgoing.closed = Some(frame::INTERRUPTED);
            self.outgoing.messages.close();
        }
        self.session.receiving.send_replace(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody(_: Conversation) {}

    /// Sessions that live faster.
    fn sessions(heartbeat_ms: u64, death_after_ms: u64) -> Sessions {
        let times = Times {
            heartbeat: Duration::from_millis(heartbeat_ms),
            death_after: Duration::from_millis(death_after_ms),
        };
        Sessions {
            all: Table::default(),
            times,
        }
    }

    #[tokio::test]
    async fn s8_1_one_connection_receives_and_an_interrupted_session_says_so() {
        let sessions = sessions(1, 60_000);
        let (tx, mut rx) = mpsc::channel(1);
        let open = |ours| {
            assert!(tx.try_send(ours).is_ok());
        };
        let mut first = sessions.receive("a", None, open).expect("made");
        let ours: Conversation = rx.recv().await.expect("opened");
        assert_eq!(first.next().await, ("o".to_owned(), false));
        let second = sessions.receive("a", None, nobody).err();
        assert_eq!(second, Some(Refused::Closed(frame::STILL_OPEN)));
        let elsewhere = Some(IpAddr::from([127, 0, 0, 9]));
        first.finish();
        let other = sessions.receive("a", elsewhere, nobody).err();
        assert_eq!(other, Some(Refused::Closed(frame::STILL_OPEN)));
        let mut third = sessions.receive("a", None, nobody).expect("free again");
        for text in ["x", "y"] {
            assert_eq!(ours.outgoing.send(text).await, Ok(()));
        }
        assert_eq!(third.next().await, ("a[\"x\",\"y\"]".to_owned(), false));
        assert_eq!(third.next().await, ("h".to_owned(), false), "when nothing came");
        drop(third);
        let fourth = sessions.receive("a", None, nobody).err();
        assert_eq!(fourth, Some(Refused::Closed(frame::INTERRUPTED)));
    }

    #[tokio::test]
    async fn s8_1_a_session_dies_five_seconds_after_its_last_connection() {
        let sessions = sessions(60_000, 1);
        let (tx, mut rx) = mpsc::channel(1);
        let open = |ours| {
            assert!(tx.try_send(ours).is_ok());
        };
        sessions.receive("a", None, open).expect("made").finish();
        let mut ours: Conversation = rx.recv().await.expect("opened");
        assert_eq!(ours.incoming.recv().await, None, "the application learns of it");
        assert!(sessions.find("a").is_none());
    }

    #[tokio::test]
    async fn sessions_are_bounded() {
        let sessions = Sessions::default();
        let mut held = Vec::new();
        for n in 0..SESSIONS_MAX {
            held.push(sessions.receive(&n.to_string(), None, nobody).expect("made"));
        }
        assert_eq!(sessions.receive("more", None, nobody).err(), Some(Refused::Full));
    }
}
