//! Reading and following streams by offset.

use crate::handle::Result;

/// Reads one stream of one slot. Catching up and following live are the same code: read from an offset, wait for more.
pub struct LogReader {}

/// A piece of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Bytes at an offset.
    Bytes {
        /// Of the first byte.
        offset: u64,
        /// At most what was asked for.
        data: Vec<u8>,
        /// Wall time (Unix ms) when the batch of the first byte arrived.
        wall_ms: i64,
    },
    /// These bytes are gone (rotated away or dropped on a full disk).
    Gap {
        /// First missing.
        from: u64,
        /// After the last missing.
        to: u64,
        /// Dropped because the disk was full (else: rotated away).
        dropped: bool,
    },
}

impl LogReader {
    /// First byte kept and byte after the last.
    pub fn range(&mut self) -> Result<(u64, u64)> {
        Ok((0, 0))
    }
    /// Offset of the first batch that arrived at or after a wall time (Unix ms).
    pub fn offset_at(&mut self, _wall_ms: i64) -> Result<u64> {
        Ok(0)
    }
    /// Next piece at `offset`, at most `max` bytes; none at the end.
    pub fn read(&mut self, _offset: u64, _max: usize) -> Result<Option<Chunk>> {
        Ok(None)
    }
    /// Waits until there may be bytes at `offset` (cancel-safe).
    pub async fn grown(&mut self, _offset: u64) -> Result<()> {
        Ok(())
    }
}
