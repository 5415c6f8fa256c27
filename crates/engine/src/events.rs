//! The event log: a bounded ring of the newest events, read from a cursor.
//!
//! Following live and catching up are the same: read behind a cursor, wait for more. A reader that
//! is too slow, or comes from an earlier daemon, is told what it missed by one `gap`.

use crate::clock;
use crate::info::{Cursor, Event, EventRecord};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Events kept. At about 300 bytes each this bounds the log to little more than 1 MiB.
pub const KEPT: usize = 4096;

/// Reads events. Cheap to clone.
#[derive(Clone)]
pub struct EventLog {
    ring: Arc<Mutex<Ring>>,
    newest: watch::Receiver<u64>,
}

/// Writes events; there is one.
pub(crate) struct EventWriter {
    ring: Arc<Mutex<Ring>>,
    newest: watch::Sender<u64>,
}

struct Ring {
    epoch: u32,
    /// Number of the newest event, 0 before the first.
    seq: u64,
    events: VecDeque<EventRecord>,
}

/// Makes the log of a daemon start.
pub(crate) fn log(epoch: u32) -> (EventWriter, EventLog) {
    let ring = Arc::new(Mutex::new(Ring {
        epoch,
        seq: 0,
        events: VecDeque::new(),
    }));
    let (tx, rx) = watch::channel(0);
    (
        EventWriter {
            ring: ring.clone(),
            newest: tx,
        },
        EventLog { ring, newest: rx },
    )
}

impl EventWriter {
    /// Appends events, then wakes the waiting readers once.
    pub fn append(&self, events: impl IntoIterator<Item = Event>) -> u64 {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let before = ring.seq;
        for event in events {
            ring.seq += 1;
            let cursor = Cursor {
                epoch: ring.epoch,
                seq: ring.seq,
            };
            if ring.events.len() == KEPT {
                ring.events.pop_front();
            }
            ring.events.push_back(EventRecord {
                cursor,
                time: clock::wall(),
                event,
            });
        }
        let (seq, added) = (ring.seq, ring.seq - before);
        drop(ring);
        if added > 0 {
            self.newest.send_replace(seq);
        }
        added
    }
}

impl EventLog {
    fn ring(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cursor of the newest event.
    pub fn newest(&self) -> Cursor {
        let ring = self.ring();
        Cursor {
            epoch: ring.epoch,
            seq: ring.seq,
        }
    }

    /// Cursor just before the oldest kept event.
    pub fn oldest(&self) -> Cursor {
        let ring = self.ring();
        let seq = ring.events.front().map_or(ring.seq, |first| first.cursor.seq - 1);
        Cursor {
            epoch: ring.epoch,
            seq,
        }
    }

    /// Events behind `after`, oldest first, at most `limit`; begins with a `gap` if some were pruned.
    pub fn read(&self, after: Cursor, limit: usize) -> Vec<EventRecord> {
        let ring = self.ring();
        let oldest = ring.events.front().map_or(ring.seq, |first| first.cursor.seq - 1);
        let mut records = Vec::new();
        // Events of an earlier daemon start are not kept; those of a later one cannot be known.
        let from = if after.epoch == ring.epoch { after.seq } else { 0 };
        let lost = after != Cursor::default() && (after.epoch != ring.epoch || from < oldest);
        if lost {
            records.push(gap(
                after,
                Cursor {
                    epoch: ring.epoch,
                    seq: oldest,
                },
            ));
        }
        let skip = usize::try_from(from.saturating_sub(oldest)).unwrap_or(usize::MAX);
        records.extend(ring.events.iter().skip(skip).take(limit).cloned());
        records
    }

    /// Waits until there are events behind `after` (cancel-safe).
    pub async fn wait(&self, after: Cursor) {
        let mut newest = self.newest.clone();
        loop {
            let now = self.newest();
            if now.epoch != after.epoch || now.seq > after.seq {
                return;
            }
            newest.borrow_and_update();
            if self.newest().seq > after.seq {
                return;
            }
            if newest.changed().await.is_err() {
                // The engine has ended: there will never be more.
                return std::future::pending().await;
            }
        }
    }
}

/// Does a pattern take the name of an event? `*` is one part or, at the end, the rest.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = name.split('.');
    let mut wanted = pattern.split('.').peekable();
    while let Some(want) = wanted.next() {
        let Some(part) = parts.next() else { return false };
        if want == "*" && wanted.peek().is_none() {
            return true;
        }
        if want != "*" && want != part {
            return false;
        }
    }
    parts.next().is_none()
}

fn gap(from: Cursor, to: Cursor) -> EventRecord {
    let data = vec![
        ("from", format!("{}.{}", from.epoch, from.seq)),
        ("to", format!("{}.{}", to.epoch, to.seq)),
    ];
    let event = Event {
        event: "gap",
        job: None,
        slot: None,
        run: None,
        by: None,
        reason: None,
        data,
    };
    EventRecord {
        cursor: to,
        time: clock::wall(),
        event,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            event: "job.started",
            job: None,
            slot: None,
            run: None,
            by: None,
            reason: None,
            data: Vec::new(),
        }
    }

    #[test]
    fn a_star_is_one_part_or_at_the_end_the_rest() {
        assert!(matches("run.exited", "run.exited") && !matches("run.exited", "run.started"));
        assert!(
            matches("run.*", "run.exited")
                && matches("*", "queue.task.done")
                && matches("queue.*", "queue.task.done")
        );
        assert!(matches("*.exited", "run.exited") && !matches("*.exited", "run.exited.twice"));
        assert!(!matches("run.*", "job.added") && !matches("run.*", "run"));
    }

    #[test]
    fn a_reader_that_resumes_gets_every_event_once() {
        let (writer, log) = log(7);
        writer.append((0..10).map(|_| event()));
        let first = log.read(Cursor::default(), 4);
        let rest = log.read(first[3].cursor, 100);
        let seqs: Vec<u64> = first
            .iter()
            .chain(&rest)
            .map(|record| record.cursor.seq)
            .collect();
        assert_eq!(seqs, (1..=10).collect::<Vec<_>>());
    }

    #[test]
    fn hazard_35_what_was_pruned_is_told_as_one_gap() {
        let (writer, log) = log(7);
        writer.append((0..KEPT + 10).map(|_| event()));
        let records = log.read(Cursor { epoch: 7, seq: 3 }, 2);
        assert_eq!(records[0].event.event, "gap");
        assert_eq!(records[1].cursor.seq, 11);
        let foreign = log.read(Cursor { epoch: 6, seq: 99 }, 1);
        assert_eq!(foreign[0].event.event, "gap");
    }

    #[test]
    fn a_fresh_reader_at_the_end_gets_no_gap() {
        let (writer, log) = log(7);
        writer.append([event()]);
        assert!(log.read(log.newest(), 10).is_empty());
    }
}
