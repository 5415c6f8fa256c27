//! Reading and following streams by offset.

use crate::handle::Result;
use crate::info::Error;
use gaffer_core::name::{Place, Slot};
use gaffer_shim::stream::{IndexKind, ReadAt, StreamReader};
use rustix::fs::inotify;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tokio::io::unix::AsyncFd;

/// Reads one stream of one slot. Catching up and following live are the same code: read from an offset, wait for more.
pub struct LogReader {
    dir: PathBuf,
    stream: String,
    reader: StreamReader,
    /// Dropped counts already told, by offset: told once per reader.
    told: u64,
    bell: Option<AsyncFd<OwnedFd>>,
}

/// A piece of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Bytes at an offset.
    Bytes {
        /// Of the first byte.
        offset: u64,
        /// At most what was asked for; all of one batch.
        data: Vec<u8>,
        /// Wall time (Unix ms) when the batch of the first byte arrived.
        wall_ms: i64,
    },
    /// These bytes were rotated away.
    Gap {
        /// First missing.
        from: u64,
        /// First there again.
        to: u64,
    },
    /// The disk was full: so many bytes were dropped at this offset. They take no offsets.
    Dropped {
        /// Where.
        offset: u64,
        /// How many.
        bytes: u64,
        /// Wall time (Unix ms).
        wall_ms: i64,
    },
}

/// Directory of a slot's streams below `state/logs`.
pub(crate) fn directory(logs: &Path, slot: &Slot) -> PathBuf {
    let place = match slot.place {
        Place::Instance { n, lane: 0 } => n.to_string(),
        Place::Instance { n, lane } => format!("{n}~{lane}"),
        Place::OneOff(n) => format!("run-{n}"),
    };
    logs.join(slot.job.session.as_str())
        .join(slot.job.job.as_str())
        .join(place)
}

impl LogReader {
    pub(crate) fn open(dir: &Path, stream: &str) -> LogReader {
        LogReader {
            dir: dir.to_owned(),
            stream: stream.to_owned(),
            reader: StreamReader::open(dir, stream),
            told: 0,
            bell: None,
        }
    }

    /// First byte kept and byte after the last.
    pub fn range(&mut self) -> Result<(u64, u64)> {
        self.reader.range().map_err(|error| self.failed(&error))
    }

    /// Offset of the first batch that arrived at or after a wall time (Unix ms).
    pub fn offset_at(&mut self, wall_ms: i64) -> Result<u64> {
        let (first, end) = self.range()?;
        let entries = self
            .reader
            .times(first, end)
            .map_err(|error| self.failed(&error))?;
        Ok(entries
            .iter()
            .find(|entry| entry.wall_ms >= wall_ms)
            .map_or(end, |entry| entry.offset))
    }

    /// Next piece at `offset`, at most `max` bytes and at most one batch; none at the end.
    pub fn read(&mut self, offset: u64, max: usize) -> Result<Option<Chunk>> {
        let mut data = vec![0; max.min(1 << 20)];
        let read = self
            .reader
            .read_at(offset, &mut data)
            .map_err(|error| self.failed(&error))?;
        let filled = match read {
            ReadAt::Gap(to) => return Ok(Some(Chunk::Gap { from: offset, to })),
            ReadAt::Bytes(filled) => filled as u64,
        };
        // One entry more than the bytes: a drop at the end is told too.
        let entries = self
            .reader
            .times(offset, offset + filled + 1)
            .map_err(|error| self.failed(&error))?;
        let mut wall_ms = None;
        let mut end = offset + filled;
        for entry in &entries {
            match entry.kind {
                IndexKind::Dropped(bytes) if entry.offset == offset && self.told <= offset => {
                    self.told = offset + 1;
                    return Ok(Some(Chunk::Dropped {
                        offset,
                        bytes,
                        wall_ms: entry.wall_ms,
                    }));
                }
                _ if entry.offset <= offset => wall_ms = Some(entry.wall_ms),
                _ => end = end.min(entry.offset),
            }
        }
        if filled == 0 {
            return Ok(None);
        }
        let wall_ms = match wall_ms {
            Some(wall_ms) => wall_ms,
            None => self
                .reader
                .wall_at(offset)
                .map_err(|error| self.failed(&error))?
                .unwrap_or(0),
        };
        data.truncate(usize::try_from(end - offset).unwrap_or(usize::MAX));
        Ok(Some(Chunk::Bytes {
            offset,
            data,
            wall_ms,
        }))
    }

    /// Bytes only, as many as one read gives: for the fast path of raw logs. Zero at the end.
    pub fn read_raw(&mut self, offset: u64, buffer: &mut [u8]) -> Result<ReadAt> {
        self.reader
            .read_at(offset, buffer)
            .map_err(|error| self.failed(&error))
    }

    /// Waits until there may be bytes at `offset` (cancel-safe).
    pub async fn grown(&mut self, offset: u64) -> Result<()> {
        loop {
            let watched = self.arm()?;
            // Armed first, then looked: what comes in between rings.
            if self.range()?.1 > offset {
                return Ok(());
            }
            let Some(bell) = self.bell.as_ref().filter(|_| watched) else {
                // Nothing to watch yet, not even a folder above: look again soon.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            };
            let mut guard = bell.readable().await.map_err(|error| self.failed(&error))?;
            drain(bell.get_ref());
            guard.clear_ready();
            // The directory may have come into being: watch it now.
            if self.dir.is_dir() && self.range()?.1 <= offset {
                self.bell = None;
            }
        }
    }

    /// Watches the directory, or while it does not exist the nearest one above it.
    fn arm(&mut self) -> Result<bool> {
        if self.bell.is_some() {
            return Ok(true);
        }
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let bell = inotify::init(flags).map_err(|error| self.failed(&error.into()))?;
        let wanted = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE_SELF;
        for place in self.dir.ancestors() {
            if inotify::add_watch(&bell, place, wanted).is_ok() {
                self.bell = Some(crate::ready::readable(bell).map_err(|error| self.failed(&error))?);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        Error::WrongState(format!(
            "cannot read stream {} in {}: {error}",
            self.stream,
            self.dir.display()
        ))
    }
}

/// Empties the bell: it carries no truth, only news.
fn drain(bell: &OwnedFd) {
    let mut buffer = [0u8; 4096];
    while matches!(rustix::io::read(bell, &mut buffer), Ok(read) if read > 0) {}
}
