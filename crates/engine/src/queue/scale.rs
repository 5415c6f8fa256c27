//! How many workers an operator wants: kept in the store of the node, and in force until the file is to count again.

use super::defined::AllDefined;
use super::service::QueueNews;
use crate::INSTANCES_MAX;
use crate::handle::{Handle, Result};
use crate::info::{Actor, Error, Event, ScaleTo};
use crate::owner::{Message, lock};
use crate::state::State;
use crate::store::Change;
use gaffer_core::name::JobId;
use gaffer_core::queue::spec::{Queue, QueueId};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What operators said, by queue.
pub(crate) type Scaled = BTreeMap<QueueId, u32>;

/// What the store has.
pub(crate) fn scaled_from(rows: &[(String, String, u32)]) -> Scaled {
    let one = |(session, name, workers): &(String, String, u32)| {
        let queue = JobId::parse(&format!("{session}.{name}")).ok()?;
        Some((queue, *workers))
    };
    rows.iter().filter_map(one).collect()
}

pub(super) fn change(queue: &QueueId, to: Option<u32>) -> Change {
    Change::QueueScale {
        session: queue.session.to_string(),
        name: queue.job.to_string(),
        to,
    }
}

/// Definitions have as many workers as operators want, or as files say.
pub(super) fn apply(defined: &mut AllDefined, scaled: &Scaled) {
    for (queue, one) in defined {
        let workers = scaled.get(queue).copied().unwrap_or(one.workers);
        if one.spec.workers != workers {
            one.spec = Arc::new(Queue {
                workers,
                ..(*one.spec).clone()
            });
        }
    }
}

impl Handle {
    /// Changes the number of workers on this node; it is in the store when this returns.
    pub async fn queue_scale(&self, queue: &QueueId, to: ScaleTo, by: Actor) -> Result<()> {
        let now = self.queue_spec(queue)?.workers;
        let wanted = match to {
            ScaleTo::Auto => None,
            ScaleTo::Set(n) => Some(n),
            ScaleTo::Add(n) => Some(now.saturating_add(n)),
            ScaleTo::Sub(n) => Some(now.saturating_sub(n)),
        };
        if wanted.is_some_and(|n| n > INSTANCES_MAX) {
            let most = format!("a queue may have at most {INSTANCES_MAX} workers");
            return Err(Error::OutOfBounds(most));
        }
        let written = lock(&self.state).store.begin_commit(vec![change(queue, wanted)]);
        let written = written.await.map_err(|_| Error::ShuttingDown)?;
        written.map_err(|error| Error::Store(error.to_string()))?;
        let (done, heard) = oneshot::channel();
        let news = QueueNews::Scaled(queue.clone(), wanted, by, done);
        let _ended = self.owner.send(Message::Queue(news));
        heard.await.map_err(|_| Error::ShuttingDown)
    }
}

impl State {
    /// The store knows it.
    pub(super) fn queue_scaled(&mut self, queue: QueueId, to: Option<u32>, by: Actor) {
        let workers = |state: &State| state.queues.spec(&queue).map_or(0, |spec| spec.workers);
        let before = workers(self);
        match to {
            Some(n) => self.queues.scaled.insert(queue.clone(), n),
            None => self.queues.scaled.remove(&queue),
        };
        apply(&mut self.queues.defined, &self.queues.scaled);
        self.put_queues();
        let after = workers(self);
        self.tell(Event {
            event: "queue.scaled",
            job: None,
            slot: None,
            run: None,
            by: Some(by),
            reason: None,
            data: vec![
                ("queue", queue.to_string()),
                ("from", before.to_string()),
                ("to", after.to_string()),
            ],
        });
    }
}
