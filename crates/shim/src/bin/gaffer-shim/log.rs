//! Writes the journal: single appends, segments with the live table at their head.
//!
//! *Invariant.* A segment is replaced only while no child may still append its `Born` to it: spawners pin
//! it. The next one is complete (its `Head`s are in it) before the first fact goes there, and after a torn
//! append nothing more goes into the same segment.

use crate::table::Table;
use gaffer_shim::frame;
use gaffer_shim::identity::{World, mono_ns, wall_ms};
use gaffer_shim::journal::{HeadEntry, Position, Reader, Record, segment_name, segments};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes after which a segment is replaced.
const SEGMENT_BYTES: u64 = 4 << 20;
/// Entries per `Head`.
const HEAD_ENTRIES: usize = 256;

/// The journal, shared by the disk thread and the spawners.
pub struct Journal(Mutex<Writer>);

struct Writer {
    dir: PathBuf,
    world: String,
    file: OwnedFd,
    segment: u64,
    segment_bytes: u64,
    size: u64,
    pins: u32,
    torn: bool,
    table: Table,
}

impl Journal {
    /// Opens the segment after the last one there is.
    pub fn open(dir: &Path, segment_bytes: Option<u64>) -> io::Result<Journal> {
        Journal::open_with(dir, segment_bytes, Table::default())
    }

    /// Goes on where a dead shim stopped, in a new segment that begins with the table as it was.
    pub fn resume(dir: &Path) -> io::Result<Journal> {
        let mut table = Table::default();
        let mut reader = Reader::open(dir, Position::default())?;
        while let Some((record, _)) = reader.read_next()? {
            table.note(&record);
        }
        Journal::open_with(dir, None, table)
    }

    fn open_with(dir: &Path, segment_bytes: Option<u64>, table: Table) -> io::Result<Journal> {
        let segment = segments(dir)?.last().copied().unwrap_or(0) + 1;
        let world = World::current()?.to_string();
        let segment_bytes = segment_bytes.unwrap_or(SEGMENT_BYTES);
        let (file, size) = create(dir, segment, segment_bytes, &world, &table.entries())?;
        let dir = dir.to_path_buf();
        let (pins, torn) = (0, false);
        let writer = Writer {
            dir,
            world,
            file,
            segment,
            segment_bytes,
            size,
            pins,
            torn,
            table,
        };
        Ok(Journal(Mutex::new(writer)))
    }

    /// Last run of each slot, with what is known of it.
    pub fn entries(&self) -> Vec<HeadEntry> {
        self.lock().table.entries()
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends all or nothing; the facts are safe from the end of any process when this returns.
    pub fn append(&self, records: &[Record]) -> io::Result<Position> {
        self.lock().append(records)
    }

    /// Where the journal ends.
    pub fn position(&self) -> Position {
        self.lock().position()
    }

    /// The descriptor children append `Born` to. Until [`Journal::unpin`] the segment stays the same. `there`:
    /// which segment the slot holds already.
    pub fn pin_to(&self, slot: i32, there: &mut u64) -> io::Result<()> {
        let mut writer = self.lock();
        writer.rotate_if_due();
        if *there != writer.segment {
            crate::sys::dup_to(&writer.file, slot)?;
            *there = writer.segment;
        }
        writer.pins += 1;
        Ok(())
    }

    /// The child has executed or ended.
    pub fn unpin(&self) {
        self.lock().pins -= 1;
    }

    /// Survives a power cut when this returns.
    pub fn sync(&self) -> io::Result<()> {
        let file = self.lock().file.try_clone()?;
        Ok(rustix::fs::fdatasync(file)?)
    }
}

impl Writer {
    fn position(&self) -> Position {
        Position {
            segment: self.segment,
            offset: self.size,
        }
    }

    fn append(&mut self, records: &[Record]) -> io::Result<Position> {
        self.rotate_if_due();
        if self.torn {
            if self.pins > 0 {
                return Err(rustix::io::Errno::NOSPC.into());
            }
            self.rotate()?;
        }
        let mut frames = Vec::new();
        for record in records {
            frames.append(&mut encode(record)?);
        }
        let written = rustix::io::write(&self.file, &frames)?;
        // A child may have appended meanwhile: the file knows its size better.
        self.size = rustix::fs::fstat(&self.file)?.st_size as u64;
        if written < frames.len() {
            self.torn = true;
            return Err(rustix::io::Errno::NOSPC.into());
        }
        for record in records {
            self.table.note(record);
        }
        Ok(self.position())
    }

    fn rotate_if_due(&mut self) {
        if self.pins == 0 && self.size >= self.segment_bytes {
            // Without space for a new one the old one just grows.
            let _ = self.rotate();
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let next = self.segment + 1;
        let entries = self.table.entries();
        let (file, size) = create(&self.dir, next, self.segment_bytes, &self.world, &entries)?;
        self.file = file;
        self.segment = next;
        self.size = size;
        self.torn = false;
        Ok(())
    }
}

/// A record as a frame.
pub fn encode(record: &Record) -> io::Result<Vec<u8>> {
    let body = minicbor::to_vec(record).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(frame::encode(&body))
}

fn create(
    dir: &Path,
    segment: u64,
    bytes: u64,
    world: &str,
    entries: &[HeadEntry],
) -> io::Result<(OwnedFd, u64)> {
    let path = dir.join(segment_name(segment));
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?;
    // So that exits find room on a full disk. Not every filesystem can; then it is as it is.
    let _ = rustix::fs::fallocate(file.as_fd(), FallocateFlags::KEEP_SIZE, 0, bytes);
    let parts = entries.chunks(HEAD_ENTRIES).count().max(1);
    let mut heads = Vec::new();
    for part in 0..parts {
        let from = part * HEAD_ENTRIES;
        let to = entries.len().min(from + HEAD_ENTRIES);
        heads.extend(encode(&Record::Head {
            segment,
            world: world.to_owned(),
            entries: entries[from..to].to_vec(),
            more: part + 1 < parts,
        })?);
    }
    let mut rest = heads.as_slice();
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = &rest[written..];
    }
    Ok((file, heads.len() as u64))
}

/// Both clocks, as records have them.
pub fn now() -> (i64, u64) {
    (wall_ms(), mono_ns())
}
