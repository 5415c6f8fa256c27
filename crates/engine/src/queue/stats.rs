//! What queues did since this daemon began.

use super::service::Queues;
use crate::clock;
use crate::state::State;
use gaffer_core::queue::spec::QueueId;
use gaffer_core::queue::task::{Settlement, TaskState};
use gaffer_core::time::{Duration, Mono, Wall};
use gaffer_queue::StoreError;
use gaffer_queue::numbers::StoreNumber;
use gaffer_queue::port::Request;
use gaffer_queue::rows::MinuteRow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Upper bounds of the buckets of [`Latencies`], in seconds.
pub const BOUNDS: [f64; 11] = [
    0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3_600.0,
];

/// A histogram of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// How many were at most as long as each of [`BOUNDS`], and not as short as the bound before; the last one: longer.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// Of all of them.
    pub sum: Duration,
}

impl Latencies {
    /// One more.
    pub fn observe(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        let place = BOUNDS.iter().position(|bound| seconds <= *bound);
        self.buckets[place.unwrap_or(BOUNDS.len())] += 1;
        self.sum = self.sum.saturating_add(time);
    }
}

/// What a queue did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Tasks worked off.
    pub done: u64,
    /// Attempts that failed and are followed by another.
    pub retried: u64,
    /// Tasks given up.
    pub dead: u64,
    /// Tasks withdrawn while somebody had them.
    pub cancelled: u64,
    /// Tasks of which nobody knows how they ended (at-most-once).
    pub lost: u64,
    /// Attempts that did not count any more: their lease had ended, or somebody else had the task.
    pub leases_lost: u64,
    /// From when a task could begin until it began.
    pub waited: Latencies,
    /// From the beginning of an attempt of a worker of this node until its outcome was in the store.
    pub took: Latencies,
}

/// The same, and what goes on.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    pub stats: QueueStats,
    rate: Rate,
    /// When a task was last finished, however.
    finished: Option<Wall>,
}

/// What was done in this minute and is not in the store yet.
#[derive(Debug, Default)]
pub(super) struct Minutes {
    minute: i64,
    rows: BTreeMap<(QueueId, Option<Arc<str>>), MinuteRow>,
}

impl Minutes {
    fn row(&mut self, queue: &QueueId, kind: Option<&Arc<str>>) -> &mut MinuteRow {
        let minute = Wall(self.minute * 60_000);
        let fresh = || MinuteRow {
            queue: queue.to_string(),
            kind: kind.map_or_else(String::new, |kind| kind.to_string()),
            minute,
            ..MinuteRow::default()
        };
        self.rows
            .entry((queue.clone(), kind.cloned()))
            .or_insert_with(fresh)
    }
}

fn add(to: &mut (u64, u64), time: Duration) {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    *to = (to.0.saturating_add(ms), to.1.max(ms));
}

impl State {
    /// Writes what was done in minutes that are over; `all`: in this one, too. A failure costs those minutes and disturbs nobody.
    pub(super) fn write_minutes(&mut self, all: bool) {
        let minute = clock::wall().0.div_euclid(60_000);
        let minutes = &mut self.queues.minutes;
        if minute == minutes.minute && !all {
            return;
        }
        minutes.minute = minute;
        let mut rows: BTreeMap<StoreNumber, Vec<MinuteRow>> = BTreeMap::new();
        for ((queue, _), row) in std::mem::take(&mut minutes.rows) {
            let store = self.queues.homes.number_of(&queue);
            rows.entry(store).or_default().push(row);
        }
        for (number, rows) in rows {
            self.write_minutes_of(number, rows);
        }
    }

    fn write_minutes_of(&self, number: StoreNumber, rows: Vec<MinuteRow>) {
        let home = self.queues.homes.get(number);
        let Some(store) = home.and_then(|home| home.store.as_ref()) else {
            return;
        };
        let now = clock::wall();
        let all = self.queues.defined.iter();
        let here = all.filter(|(queue, _)| self.queues.homes.number_of(queue) == number);
        let keep = here.map(|(queue, defined)| {
            let kept = i64::try_from(defined.spec.keep.stats.as_millis()).unwrap_or(i64::MAX);
            (queue.clone(), Wall(now.0.saturating_sub(kept)))
        });
        let keep: Vec<_> = keep.collect();
        let failed = |answer| {
            if let Err(error) = answer {
                let error: StoreError = error;
                tracing::debug!(%error, "statistics of a minute are lost");
            }
        };
        store.ask(
            Request::Count(rows, keep),
            Box::new(move |answer| failed(answer.map(drop))),
        );
    }
}

impl Queues {
    fn minute_of(&mut self, queue: &QueueId, kind: Option<&Arc<str>>) -> Option<&mut MinuteRow> {
        let is_kept = self.spec(queue).is_some_and(|spec| !spec.keep.stats.is_zero());
        is_kept.then(|| self.minutes.row(queue, kind))
    }

    /// An attempt begins.
    pub fn count_start(&mut self, queue: &QueueId, kind: Option<&Arc<str>>, task: i64, waited: Duration) {
        if let Some(row) = self.minute_of(queue, kind) {
            row.begun += 1;
            add(&mut row.waited_ms, waited);
        }
        let counted = self.counted.entry(queue.clone()).or_default();
        counted.stats.waited.observe(waited);
        self.begun.insert(task, clock::mono());
    }

    /// Takes note of an attempt that is over. `stale`: it did not count any more.
    pub fn count(&mut self, queue: &QueueId, kind: Option<&Arc<str>>, settlement: &Settlement, stale: bool) {
        let begun: Option<Mono> = self.begun.remove(&settlement.handle.task);
        let retried = matches!(settlement.outcome, "failed" | "crashed");
        if let Some(row) = self.minute_of(queue, kind).filter(|_| !stale) {
            if let Some(begun) = begun {
                add(&mut row.took_ms, clock::mono().since(begun));
            }
            match settlement.state {
                TaskState::Done => row.done += 1,
                TaskState::Dead | TaskState::Lost => row.dead += 1,
                TaskState::Cancelled => {}
                _ => row.retried += u64::from(retried),
            }
        }
        let Counted {
            stats,
            rate,
            finished,
        } = self.counted.entry(queue.clone()).or_default();
        if let Some(begun) = begun {
            stats.took.observe(clock::mono().since(begun));
        }
        let kind = settlement.failure.as_ref().map(|failure| &*failure.kind);
        if stale || matches!(kind, Some("lease-lost" | "lease-expired")) {
            stats.leases_lost += 1;
        }
        if stale {
            return;
        }
        if settlement.state.is_final() {
            *finished = Some(clock::wall());
        }
        match settlement.state {
            TaskState::Done => {
                stats.done += 1;
                *rate = rate.at(clock::wall().0.div_euclid(60_000));
                rate.now += 1;
            }
            TaskState::Dead => stats.dead += 1,
            TaskState::Cancelled => stats.cancelled += 1,
            TaskState::Lost => stats.lost += 1,
            TaskState::Scheduled | TaskState::Queued | TaskState::Running => {
                stats.retried += u64::from(retried);
            }
        }
    }

    /// What a queue did since this daemon began.
    pub fn stats(&self, queue: &QueueId) -> QueueStats {
        self.counted
            .get(queue)
            .map(|counted| counted.stats)
            .unwrap_or_default()
    }

    /// When a task was last finished, as far as this daemon knows.
    pub(super) fn last_finished(&self, queue: &QueueId) -> Option<Wall> {
        self.counted.get(queue)?.finished
    }

    /// Tasks done in the last minute: those of this one, and the share of the one before that is not yet a minute ago.
    pub fn done_per_min(&self, queue: &QueueId) -> u64 {
        let now = clock::wall().0;
        let counted = self.counted.get(queue);
        let Some(rate) = counted.map(|counted| counted.rate.at(now.div_euclid(60_000))) else {
            return 0;
        };
        let left = u64::try_from(60_000 - now.rem_euclid(60_000)).unwrap_or(0);
        rate.now + rate.before * left / 60_000
    }
}

/// How many tasks were done, by the minute.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    minute: i64,
    now: u64,
    before: u64,
}

impl Rate {
    fn at(self, minute: i64) -> Rate {
        match minute - self.minute {
            0 => self,
            1 => Rate {
                minute,
                now: 0,
                before: self.now,
            },
            _ => Rate {
                minute,
                ..Rate::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_the_bucket_that_holds_them() {
        let mut all = Latencies::default();
        for ms in [0, 1, 2, 100, 101, 4_000_000] {
            all.observe(Duration::from_millis(ms));
        }
        assert_eq!(all.buckets[0], 2);
        assert_eq!(all.buckets[1], 1);
        assert_eq!((all.buckets[3], all.buckets[4]), (1, 1));
        assert_eq!(all.buckets[BOUNDS.len()], 1);
        assert_eq!(all.sum, Duration::from_millis(4_000_204));
    }
}
