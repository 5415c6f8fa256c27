//! Writes one stream: segments, their index, their bounds.

use crate::sys;
use gaffer_shim::message::LogBounds;
use gaffer_shim::stream::{IndexEntry, IndexKind, encode_entry, segment_name, segments};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

/// A growing sequence of bytes in a directory.
pub struct Stream {
    pub dir: PathBuf,
    pub name: String,
    /// Offset after the last byte.
    pub end: u64,
    /// First offsets of its segments. The last one is written to.
    firsts: VecDeque<u64>,
    bounds: LogBounds,
    open: Option<Open>,
}

/// The current segment.
struct Open {
    first: u64,
    log: OwnedFd,
    index: Option<OwnedFd>,
}

/// Why not all bytes went into a file.
#[derive(Debug)]
pub enum Stuck {
    /// No space, even after the oldest segments went.
    Full,
    /// Anything else.
    Broken,
}

impl Stream {
    /// Looks where the stream ends. A directory that does not exist yet is an empty stream.
    pub fn find(dir: PathBuf, name: String, bounds: LogBounds) -> io::Result<Stream> {
        let firsts: VecDeque<u64> = segments(&dir, &name)?.into();
        let end = match firsts.back() {
            Some(first) => {
                let path = dir.join(segment_name(&name, *first, "log"));
                first + std::fs::metadata(path).map_or(0, |meta| meta.len())
            }
            None => 0,
        };
        Ok(Stream {
            dir,
            name,
            end,
            firsts,
            bounds: sane(bounds),
            open: None,
        })
    }

    /// New bounds; old segments beyond them go with the next one that is made, or now.
    pub fn set_bounds(&mut self, bounds: LogBounds) {
        self.bounds = sane(bounds);
        self.remove_old();
    }

    /// Another shim may have had the slot meanwhile: then the stream goes on where that one ended, not where we did.
    pub fn catch_up(&mut self) {
        let Some(first) = self.firsts.back().copied() else {
            return;
        };
        let path = self.dir.join(segment_name(&self.name, first, "log"));
        let is_as_left = std::fs::metadata(path).is_ok_and(|meta| first + meta.len() == self.end);
        if is_as_left && self.end - first < self.bounds.segment {
            return;
        }
        // Removed is not shorter: offsets only grow.
        if let Ok(found) = Stream::find(self.dir.clone(), self.name.clone(), self.bounds)
            && found.end > self.end
        {
            *self = found;
        }
    }

    /// Program waits when the disk is full?
    pub fn blocks(&self) -> bool {
        self.bounds.block_when_full
    }

    /// Holds descriptors?
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Gives its descriptors back; the next byte opens it again.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Moves `count` bytes from the staging pipe into segments. Returns how many remain there, if any.
    pub fn store(&mut self, staging: &OwnedFd, count: usize) -> Result<(), (usize, Stuck)> {
        let mut left = count;
        let mut begun = false;
        while left > 0 {
            match self.store_some(staging, left, &mut begun) {
                Ok(moved) => {
                    left -= moved;
                    self.end += moved as u64;
                }
                Err(error) if is_full(&error) => {
                    if !self.remove_oldest() {
                        return Err((left, Stuck::Full));
                    }
                }
                Err(_) => return Err((left, Stuck::Broken)),
            }
        }
        Ok(())
    }

    fn store_some(&mut self, staging: &OwnedFd, left: usize, begun: &mut bool) -> io::Result<usize> {
        let fresh = self.ready()?;
        if fresh || !*begun {
            *begun = true;
            self.mark(IndexKind::Batch);
        }
        let end = self.end;
        let Some(open) = &self.open else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let room = (open.first + self.bounds.segment).saturating_sub(end);
        let length = left.min(usize::try_from(room).unwrap_or(usize::MAX));
        let moved = sys::splice(staging, &open.log, Some(end - open.first), length)?;
        if moved == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(moved)
    }

    /// Makes sure that there is a segment with room, that it has a name, and that it is open. True: it is new.
    fn ready(&mut self) -> io::Result<bool> {
        if let Some(open) = &self.open {
            let named = rustix::fs::fstat(&open.log)?.st_nlink > 0;
            if !named {
                let gone = open.first;
                self.firsts.retain(|first| *first != gone);
            } else if self.end - open.first < self.bounds.segment {
                return Ok(false);
            }
        } else if let Some(last) = self.firsts.back().copied()
            && self.end - last < self.bounds.segment
        {
            match self.open_segment(last, OFlags::empty()) {
                Ok(open) => {
                    self.open = Some(open);
                    return Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.firsts.pop_back();
                }
                Err(error) => return Err(error),
            }
        }
        let first = self.end;
        let next = match self.open_segment(first, OFlags::CREATE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&self.dir)?;
                self.open_segment(first, OFlags::CREATE)?
            }
            other => other?,
        };
        // The old one is closed only now that the new one is there.
        self.open = Some(next);
        self.firsts.push_back(first);
        self.remove_old();
        Ok(true)
    }

    fn open_segment(&self, first: u64, extra: OFlags) -> io::Result<Open> {
        let mode = Mode::RUSR | Mode::WUSR;
        let path = self.dir.join(segment_name(&self.name, first, "log"));
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | extra;
        let log = rustix::fs::open(path, flags, mode)?;
        let path = self.dir.join(segment_name(&self.name, first, "idx"));
        let flags = flags | OFlags::APPEND | OFlags::CREATE;
        // Without an index there are bytes without times, which is better than no bytes.
        let index = rustix::fs::open(path, flags, mode).ok();
        Ok(Open { first, log, index })
    }

    /// An entry of the index at the current end.
    fn mark(&self, kind: IndexKind) {
        let Some(index) = self.open.as_ref().and_then(|open| open.index.as_ref()) else {
            return;
        };
        let (wall_ms, mono_ns) = crate::log::now();
        let entry = IndexEntry {
            offset: self.end,
            wall_ms,
            mono_ns,
            kind,
        };
        // A lost entry makes times coarser; a torn one is cut off by the reader's fixed size only at the
        // end of the file, and a full disk refuses 32 bytes whole.
        let _ = rustix::io::write(index, &encode_entry(&entry));
    }

    /// Bytes were dropped here.
    pub fn mark_dropped(&mut self, bytes: u64) {
        if self.open.is_none() {
            let _ = self.ready();
        }
        self.mark(IndexKind::Dropped(bytes));
    }

    fn remove_old(&mut self) {
        while let Some(first) = self.firsts.front()
            && self.end.saturating_sub(*first) + self.bounds.segment > self.bounds.size
        {
            if !self.remove_oldest() {
                break;
            }
        }
    }

    /// Removes the oldest segment that is not being written to. False: there is none.
    fn remove_oldest(&mut self) -> bool {
        if self.firsts.len() < 2 {
            return false;
        }
        let Some(first) = self.firsts.pop_front() else {
            return false;
        };
        for ext in ["log", "idx"] {
            // Somebody else may have removed it, which is as good.
            let _ = std::fs::remove_file(self.dir.join(segment_name(&self.name, first, ext)));
        }
        true
    }
}

/// A segment holds at least a byte, and a stream at least a segment.
fn sane(bounds: LogBounds) -> LogBounds {
    let segment = bounds.segment.max(1);
    LogBounds {
        size: bounds.size.max(segment),
        segment,
        ..bounds
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG)
    )
}
