//! Outboxes of applications: each is read on a thread of its own; what is in it becomes tasks here.

use super::push::{from_row, queued};
use super::service::{QueueNews, due};
use crate::clock;
use crate::owner::Message;
use crate::state::State;
use gaffer_core::queue::dispatch::Input;
use gaffer_core::queue::spec::QueueId;
use gaffer_queue::StoreError;
use gaffer_queue::outbox::{Courier, Outbox, OutboxRow};
use gaffer_queue::port::{Answer, Moving, Pushed, Request};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

/// What the thread of an outbox wants.
pub(crate) enum Wants {
    /// Rows that are remembered.
    Moved,
    /// Take these; those were remembered before.
    Take(Vec<OutboxRow>, Vec<i64>),
    /// Nothing has to be remembered.
    Forget,
}

/// Rows that are remembered; nothing for the other requests.
type Reply = mpsc::Sender<Result<Vec<i64>, String>>;

/// Outboxes that are read: file, names of the queues that take from it, the reader.
#[derive(Default)]
pub(crate) struct Outboxes(BTreeMap<QueueId, (Arc<str>, Vec<String>, Outbox)>);

impl Outboxes {
    /// Why nothing comes out of the outbox of a queue, in words.
    pub fn trouble(&self, queue: &QueueId) -> Option<String> {
        self.0.get(queue).and_then(|(.., outbox)| outbox.trouble())
    }
}

/// Stands between the thread of an outbox and the owner of all state.
struct Between {
    queue: QueueId,
    owner: tokio::sync::mpsc::UnboundedSender<Message>,
}

impl Between {
    fn ask(&self, wants: Wants) -> Result<Vec<i64>, String> {
        let (reply, answer) = mpsc::channel();
        let news = QueueNews::Outbox(self.queue.clone(), wants, reply);
        let _ended = self.owner.send(Message::Queue(news));
        answer
            .recv()
            .unwrap_or_else(|_| Err("the daemon ends".to_owned()))
    }
}

impl Courier for Between {
    fn moved(&self) -> Result<Vec<i64>, String> {
        self.ask(Wants::Moved)
    }

    fn take(&self, rows: Vec<OutboxRow>, known: Vec<i64>) -> Result<(), String> {
        self.ask(Wants::Take(rows, known)).map(drop)
    }

    fn forget(&self) -> Result<(), String> {
        self.ask(Wants::Forget).map(drop)
    }
}

/// The names by which an application knows a queue.
fn names(queue: &QueueId) -> [String; 2] {
    [queue.job.to_string(), format!("{}.{}", queue.session, queue.job)]
}

impl State {
    /// Reads the outboxes that definitions name, and no others.
    pub(super) fn tend_outboxes(&mut self) {
        let mut wanted: BTreeMap<QueueId, Arc<str>> = BTreeMap::new();
        let mut sharing: BTreeMap<Arc<str>, Vec<String>> = BTreeMap::new();
        for (queue, defined) in &self.queues.defined {
            let Some(path) = &defined.spec.outbox else {
                continue;
            };
            wanted.insert(queue.clone(), path.clone());
            sharing.entry(path.clone()).or_default().extend(names(queue));
        }
        let Outboxes(open) = &mut self.queues.outboxes;
        open.retain(|queue, (path, others, _)| {
            wanted.get(queue) == Some(path) && sharing.get(path) == Some(others)
        });
        for (queue, path) in wanted {
            if open.contains_key(&queue) {
                continue;
            }
            let others = sharing.get(&path).cloned().unwrap_or_default();
            let between = Between {
                queue: queue.clone(),
                owner: self.owner.clone(),
            };
            let started = Outbox::start(
                Path::new(&*path),
                names(&queue).to_vec(),
                others.clone(),
                Box::new(between),
            );
            match started {
                Ok(outbox) => {
                    open.insert(queue, (path, others, outbox));
                }
                Err(error) => tracing::error!(%queue, %error, "its outbox is not read: no thread for it"),
            }
        }
    }

    /// The thread of an outbox wants something of the store.
    pub(super) fn outbox_wants(&mut self, queue: QueueId, wants: Wants, reply: Reply) {
        // Whoever asked may have ended.
        let refuse = |reply: Reply, why: &str| drop(reply.send(Err(why.to_owned())));
        let Some(store) = self.queues.homes.of(&queue).store.clone() else {
            return refuse(reply, "the queue store is not open");
        };
        let Some(spec) = self.queues.spec(&queue).cloned() else {
            return refuse(reply, "the queue is gone");
        };
        let Some(path) = &spec.outbox else {
            return refuse(reply, "the queue takes from no outbox");
        };
        let source: Arc<str> = format!("{}:{queue}:{path}", self.node_id).into();
        let (request, kinds) = match wants {
            Wants::Moved => (Request::Moved(source), Vec::new()),
            Wants::Forget => (Request::Forget(source), Vec::new()),
            Wants::Take(rows, known) => {
                let now = clock::wall();
                let moving = Moving {
                    source,
                    known,
                    ids: rows.iter().map(|row| row.id).collect(),
                    tasks: rows.iter().map(|row| from_row(&queue, &spec, row, now)).collect(),
                    now,
                };
                let kinds = rows.into_iter().map(|row| row.kind).collect();
                (Request::Move(Box::new(moving)), kinds)
            }
        };
        let owner = self.owner.clone();
        let done = move |answer: Result<Answer, StoreError>| {
            let said = match answer {
                Ok(Answer::Moved(ids)) => Ok(ids),
                Ok(Answer::Taken(Some(pushed))) => {
                    let news = QueueNews::Taken(queue, kinds, pushed);
                    let _ended = owner.send(Message::Queue(news));
                    Ok(Vec::new())
                }
                Ok(Answer::Taken(None)) => Err("another process moved some of them".to_owned()),
                Ok(_) => Ok(Vec::new()),
                Err(error) => Err(error.to_string()),
            };
            let _gone = reply.send(said);
        };
        store.ask(request, Box::new(done));
    }

    /// Tasks out of an outbox are in the store.
    pub(super) fn outbox_taken(&mut self, queue: QueueId, kinds: &[Option<String>], pushed: &[Pushed]) {
        let new = pushed.iter().zip(kinds).filter(|(one, _)| !one.duplicate);
        let events: Vec<_> = new
            .map(|(one, kind)| queued(&queue, kind.as_deref(), one, None))
            .collect();
        events.into_iter().for_each(|event| self.tell(event));
        if let Some(at) = pushed.iter().filter_map(|one| one.due).min() {
            self.feed_store(self.queues.homes.number_of(&queue), due(at));
        }
        if pushed.iter().any(|one| one.due.is_none()) {
            self.feed_queue(Input::Hint(Some(queue)));
        }
    }
}
