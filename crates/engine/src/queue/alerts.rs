//! What an operator should know about a queue. It is found out when somebody looks: nothing is timed, and a queue that nobody looks at
//! costs nothing.

use super::service::Queues;
use crate::clock;
use crate::state::State;
use gaffer_core::queue::alert::{Alert, LOG_BYTES, Signs, alerts};
use gaffer_core::queue::spec::{Queue, QueueId, Unknown};
use gaffer_core::time::{Duration, Wall};
use gaffer_queue::rows::{COUNT_MAX, Counts, Signs as Found};

/// What happened longer ago, in milliseconds, is looked at no more.
pub(super) const WINDOW: i64 = 3_600_000;

impl State {
    /// What is wrong with a queue now.
    pub(super) fn queue_alerts(&mut self, id: &QueueId, counts: &Counts, found: Found) -> Vec<Alert> {
        let Some(spec) = self.queues.spec(id).cloned() else {
            return Vec::new();
        };
        let now = clock::now();
        if let Some(bytes) = found.log_bytes {
            self.queues.note_log(bytes, now.wall);
        }
        let mode = self.queues.modes.get(&id.to_string());
        let free = self.queues.machine(id).free(id);
        let finished = self.queues.last_finished(id).max(found.finished);
        let unknown = found.kinds.iter().filter(|(kind, _)| is_unknown(&spec, kind));
        let known = found.kinds.iter().filter(|(kind, _)| !is_unknown(&spec, kind));
        let signs = Signs {
            paused: mode.is_some_and(|mode| mode.paused),
            throttled: !spec.throttle.is_none(),
            said: mode.and_then(|mode| mode.at),
            waiting: counts.queued,
            waiting_max: COUNT_MAX,
            oldest: known.map(|(_, at)| *at).min(),
            unknown: unknown
                .min_by_key(|(_, at)| *at)
                .map(|(kind, at)| (kind.clone().unwrap_or_default(), *at)),
            free: free.map(|(free, since)| (free, back(now.wall, now.mono.since(since)))),
            finished: finished.map_or(self.queues.since, |at| at.max(self.queues.since)),
            unwell: self.queues.residents.unwell(id),
            samples: found.waiting,
            died: found.died,
            log: found.log_bytes.zip(self.queues.log_since),
        };
        alerts(&signs, now.wall)
    }
}

/// So long before.
fn back(now: Wall, by: Duration) -> Wall {
    Wall(
        now.0
            .saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)),
    )
}

/// Does it wait until somebody defines its kind?
fn is_unknown(spec: &Queue, kind: &Option<String>) -> bool {
    let waits = spec.unknown == Unknown::Wait && !spec.kinds.is_empty();
    waits && kind.as_deref().is_some_and(|kind| !spec.kinds.contains_key(kind))
}

impl Queues {
    /// Remembers since when the log of the file is too large.
    fn note_log(&mut self, bytes: u64, now: Wall) {
        self.log_since = (bytes > LOG_BYTES).then(|| self.log_since.unwrap_or(now));
    }
}
