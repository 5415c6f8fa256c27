//! The event log: a bounded ring of the newest events, read from a cursor.

use crate::info::{Cursor, EventRecord};

/// Reads events.
#[derive(Clone)]
pub struct EventLog {}

impl EventLog {
    /// Cursor of the newest event.
    pub fn newest(&self) -> Cursor {
        Cursor::default()
    }
    /// Cursor just before the oldest kept event.
    pub fn oldest(&self) -> Cursor {
        Cursor::default()
    }
    /// Events behind `after`, oldest first, at most `limit`; begins with a `gap` if some were pruned.
    pub fn read(&self, _after: Cursor, _limit: usize) -> Vec<EventRecord> {
        Vec::new()
    }
    /// Waits until there are events behind `after` (cancel-safe).
    pub async fn wait(&self, _after: Cursor) {}
}
