//! Reading and following streams by offset.

use crate::handle::Result;
use crate::info::Error;
use crate::mask::{HOLD, Mask, Whose};
use crate::state::State;
use gaffer_core::name::{JobId, Place, Slot};
use gaffer_core::queue::spec::QueueId;
use gaffer_shim::stream::{IndexKind, ReadAt, StreamReader};
use rustix::fs::inotify;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::io::unix::AsyncFd;

/// Reads one stream of one slot. Catching up and following live are the same code: read from an offset, wait for more.
pub struct LogReader {
    dir: PathBuf,
    stream: String,
    reader: StreamReader,
    /// Dropped counts already told, by offset: told once per reader.
    told: u64,
    /// Pieces that were read together with the last one: a batch is often one line, and files are not opened anew for each.
    ahead: VecDeque<Chunk>,
    bell: Option<Bell>,
    mask: Option<Mask>,
}

/// An inotify that rings when there may be news.
struct Bell {
    fd: AsyncFd<OwnedFd>,
    /// It watches the stream's own directory, not one above.
    on_directory: bool,
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

/// Most bytes of one read.
const READ_BYTES_MAX: usize = 1 << 20;

impl Chunk {
    fn offset(&self) -> u64 {
        match self {
            Chunk::Bytes { offset, .. } | Chunk::Dropped { offset, .. } => *offset,
            Chunk::Gap { from, .. } => *from,
        }
    }
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
            ahead: VecDeque::new(),
            bell: None,
            mask: None,
        }
    }

    /// What this job's `logs.redact` names is masked from here on.
    pub(crate) fn masked_for(mut self, state: &Arc<Mutex<State>>, job: JobId) -> LogReader {
        self.mask = Some(Mask::new(state, Whose::Job(job)));
        self
    }

    /// What this queue's `logs.redact` names is masked from here on.
    pub(crate) fn masked_for_queue(mut self, state: &Arc<Mutex<State>>, queue: QueueId) -> LogReader {
        self.mask = Some(Mask::new(state, Whose::Queue(queue)));
        self
    }

    /// Shall a line that may still grow be held back (for half a second at most), so that no half of a secret gets out?
    /// Only lines of jobs with `logs.redact` are.
    pub fn hold_unfinished(&mut self, on: bool) {
        if let Some(mask) = &mut self.mask {
            mask.holds = on;
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
        let chunk = self.read_plain(offset, max)?;
        let Some(mut mask) = self.mask.take() else {
            return Ok(chunk);
        };
        let masked = match (mask.refresh(), chunk) {
            (
                true,
                Some(Chunk::Bytes {
                    offset,
                    data,
                    wall_ms,
                }),
            ) => mask
                .apply(&mut self.reader, offset, data)
                .map_err(|error| self.failed(&error))
                .map(|data| {
                    data.map(|data| Chunk::Bytes {
                        offset,
                        data,
                        wall_ms,
                    })
                }),
            (_, chunk) => Ok(chunk),
        };
        self.mask = Some(mask);
        masked
    }

    fn read_plain(&mut self, offset: u64, max: usize) -> Result<Option<Chunk>> {
        if self.ahead.front().is_none_or(|next| next.offset() != offset) {
            self.ahead.clear();
            self.read_ahead(offset, max)?;
        }
        let Some(next) = self.ahead.pop_front() else {
            return Ok(None);
        };
        Ok(Some(match next {
            Chunk::Bytes {
                offset,
                mut data,
                wall_ms,
            } => {
                if data.len() > max {
                    let rest = data.split_off(max);
                    self.ahead.push_front(Chunk::Bytes {
                        offset: offset + max as u64,
                        data: rest,
                        wall_ms,
                    });
                }
                Chunk::Bytes {
                    offset,
                    data,
                    wall_ms,
                }
            }
            Chunk::Dropped { offset, .. } => {
                self.told = offset + 1;
                next
            }
            Chunk::Gap { .. } => next,
        }))
    }

    /// One read of the file, cut where batches begin.
    fn read_ahead(&mut self, offset: u64, max: usize) -> Result<()> {
        let mut data = vec![0; max.min(READ_BYTES_MAX)];
        let read = self
            .reader
            .read_at(offset, &mut data)
            .map_err(|error| self.failed(&error))?;
        let filled = match read {
            ReadAt::Gap(to) => {
                self.ahead.push_back(Chunk::Gap { from: offset, to });
                return Ok(());
            }
            ReadAt::Bytes(filled) => filled,
        };
        data.truncate(filled);
        // One entry more than the bytes: a drop at the end is told too.
        let entries = self
            .reader
            .times(offset, offset + filled as u64 + 1)
            .map_err(|error| self.failed(&error))?;
        let (mut at, mut wall_ms) = (offset, 0);
        for entry in &entries {
            let upto = entry.offset.clamp(at, offset + filled as u64);
            self.push_bytes(&mut at, upto, offset, &data, wall_ms);
            wall_ms = entry.wall_ms;
            if let IndexKind::Dropped(bytes) = entry.kind
                && entry.offset >= offset.max(self.told)
            {
                self.ahead.push_back(Chunk::Dropped {
                    offset: entry.offset,
                    bytes,
                    wall_ms,
                });
            }
        }
        self.push_bytes(&mut at, offset + filled as u64, offset, &data, wall_ms);
        Ok(())
    }

    fn push_bytes(&mut self, at: &mut u64, upto: u64, begin: u64, data: &[u8], wall_ms: i64) {
        if upto > *at {
            let place = |offset: u64| usize::try_from(offset - begin).unwrap_or(usize::MAX);
            self.ahead.push_back(Chunk::Bytes {
                offset: *at,
                data: data[place(*at)..place(upto)].to_vec(),
                wall_ms,
            });
            *at = upto;
        }
    }

    /// Bytes as they are on disk, not masked: for looking where lines end, and not to be shown to anybody. Zero at the end.
    pub fn read_unmasked(&mut self, offset: u64, buffer: &mut [u8]) -> Result<ReadAt> {
        self.reader
            .read_at(offset, buffer)
            .map_err(|error| self.failed(&error))
    }

    /// Waits until there may be bytes at `offset` (cancel-safe).
    pub async fn grown(&mut self, offset: u64) -> Result<()> {
        let held = self.mask.as_mut().and_then(|mask| mask.held.take());
        match held {
            None => self.grown_beyond(offset).await,
            // What is held back is shown after a while, also if nothing follows.
            Some(end) => match tokio::time::timeout(HOLD, self.grown_beyond(end)).await {
                Ok(grown) => grown,
                Err(_) => Ok(()),
            },
        }
    }

    async fn grown_beyond(&mut self, offset: u64) -> Result<()> {
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
            let ready = bell.fd.readable().await;
            let mut guard = ready.map_err(|error| self.failed(&error))?;
            drain(bell.fd.get_ref());
            guard.clear_ready();
            // Above the directory any news may be a step towards it; and it may be removed with its last segment.
            if !bell.on_directory || !self.dir.is_dir() {
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
        // A host gives 128 of them to a user by default: without one it is looked now and then.
        let Ok(fd) = inotify::init(flags) else {
            return Ok(false);
        };
        let wanted = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE_SELF;
        let places: Vec<&Path> = self.dir.ancestors().collect();
        let mut missing = places.len();
        while let Some(nearest) = places
            .iter()
            .position(|place| inotify::add_watch(&fd, *place, wanted).is_ok())
        {
            // What was made below it before it was watched did not ring: look once more, nearer each time.
            if nearest == 0
                || nearest >= missing
                || !places.get(nearest - 1).is_some_and(|below| below.is_dir())
            {
                let fd = crate::ready::readable(fd).map_err(|error| self.failed(&error))?;
                self.bell = Some(Bell {
                    fd,
                    on_directory: nearest == 0,
                });
                return Ok(true);
            }
            missing = nearest;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_that_was_there_before_the_directory_is_woken_by_the_first_byte() {
        let root = tempfile::tempdir().expect("temporary directory");
        let dir = root.path().join("session/job/1");
        let mut reader = LogReader::open(&dir, "stdout");
        let waiting = tokio::spawn(async move {
            reader.grown(0).await.expect("readable");
            reader.range().expect("readable")
        });
        // The reader has armed itself above; now the path appears step by step, and a byte in it.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        std::fs::create_dir_all(&dir).expect("the directory");
        let segment = gaffer_shim::stream::segment_name("stdout", 0, "log");
        std::fs::write(dir.join(segment), b"x").expect("a byte");
        let woken = tokio::time::timeout(std::time::Duration::from_secs(10), waiting).await;
        assert_eq!(woken.expect("in time").expect("no panic"), (0, 1));
    }
}
