//! Streams: one growing sequence of bytes per directory and name, addressed by a `u64`.
//!
//! Version history: 1 — this file. Segments are `<stream>.<first offset, 20 digits>.log`; beside each an
//! index `….idx` of 32-byte entries (all little endian): offset u64, wall ms i64, boot-time ns u64,
//! kind and count u64 (kind in the top byte: 0 a batch begins here, 1 `count` bytes were dropped here).
//! Dropped bytes take no offsets. Segments appear with the first byte and vanish beyond their bound.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of an index entry.
pub const ENTRY: usize = 32;

/// An entry of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Where.
    pub offset: u64,
    /// Wall clock.
    pub wall_ms: i64,
    /// Boot-time clock.
    pub mono_ns: u64,
    /// What.
    pub kind: IndexKind,
}

/// What an entry tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKind {
    /// The bytes from here on came at this time.
    Batch,
    /// So many bytes were dropped here for lack of space.
    Dropped(u64),
}

/// Result of [`StreamReader::read_at`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAt {
    /// So many bytes of the buffer were filled. 0: the end, for now.
    Bytes(usize),
    /// Segments up to here are gone: go on at this offset.
    Gap(u64),
}

/// Reads a stream while it is written.
#[derive(Debug)]
pub struct StreamReader {
    dir: PathBuf,
    stream: String,
    open: Option<(u64, std::fs::File)>,
}

/// Name of a segment (`ext` is `log` or `idx`).
pub fn segment_name(stream: &str, first: u64, ext: &str) -> String {
    format!("{stream}.{first:020}.{ext}")
}

/// First offsets of a stream's segments, rising. Empty if the directory does not exist.
pub fn segments(dir: &Path, stream: &str) -> io::Result<Vec<u64>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut firsts = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let rest = name
            .to_str()
            .and_then(|n| n.strip_prefix(stream))
            .and_then(|n| n.strip_prefix('.'));
        let digits = rest
            .and_then(|n| n.strip_suffix(".log"))
            .filter(|n| n.len() == 20);
        if let Some(first) = digits.and_then(|n| n.parse().ok()) {
            firsts.push(first);
        }
    }
    firsts.sort_unstable();
    Ok(firsts)
}

impl StreamReader {
    /// The directory need not exist yet.
    pub fn open(dir: &Path, stream: &str) -> StreamReader {
        StreamReader {
            dir: dir.to_path_buf(),
            stream: stream.to_owned(),
            open: None,
        }
    }

    /// First offset that is still kept and the offset after the last byte.
    pub fn range(&self) -> io::Result<(u64, u64)> {
        loop {
            let firsts = segments(&self.dir, &self.stream)?;
            let (Some(first), Some(last)) = (firsts.first(), firsts.last()) else {
                return Ok((0, 0));
            };
            match std::fs::metadata(self.path(*last, "log")) {
                Ok(meta) => return Ok((*first, last + meta.len())),
                // Removed since; look again, it can vanish but once.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes from `offset`. A read ends at the end of a segment, so fewer than asked for is normal.
    pub fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<ReadAt> {
        if let Some((first, file)) = &self.open
            && offset >= *first
        {
            let count = file.read_at(buffer, offset - first)?;
            if count > 0 {
                return Ok(ReadAt::Bytes(count));
            }
        }
        let firsts = segments(&self.dir, &self.stream)?;
        let Some(oldest) = firsts.first() else {
            return Ok(ReadAt::Bytes(0));
        };
        let Some(first) = firsts.iter().rev().find(|first| **first <= offset) else {
            return Ok(ReadAt::Gap(*oldest));
        };
        let file = match std::fs::File::open(self.path(*first, "log")) {
            Ok(file) => file,
            // Removed between listing and opening: the caller asks again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let next = firsts.iter().find(|next| *next > first);
                return Ok(next.map_or(ReadAt::Bytes(0), |next| ReadAt::Gap(*next)));
            }
            Err(error) => return Err(error),
        };
        let count = file.read_at(buffer, offset - first)?;
        let next = firsts.iter().find(|next| **next > offset);
        self.open = Some((*first, file));
        match next {
            // The segment was removed behind its writer and is shorter than its successor's start.
            Some(next) if count == 0 && !buffer.is_empty() => Ok(ReadAt::Gap(*next)),
            _ => Ok(ReadAt::Bytes(count)),
        }
    }

    /// Index entries with `from <= offset < to`, plus the last one before `from` (whose batch covers it).
    pub fn times(&self, from: u64, to: u64) -> io::Result<Vec<IndexEntry>> {
        let firsts = segments(&self.dir, &self.stream)?;
        let mut before = None;
        let mut entries = Vec::new();
        for (place, first) in firsts.iter().enumerate() {
            let covers = firsts.get(place + 1).is_none_or(|next| *next >= from);
            if !covers || *first >= to {
                continue;
            }
            let file = match std::fs::File::open(self.path(*first, "idx")) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let found = entries_between(&file, from, to)?;
            before = found.0.or(before);
            entries.extend(found.1);
        }
        entries.splice(0..0, before);
        Ok(entries)
    }

    /// Wall clock of the batch that brought the byte at `offset`.
    pub fn wall_at(&self, offset: u64) -> io::Result<Option<i64>> {
        let entries = self.times(offset, offset.saturating_add(1))?;
        Ok(entries.last().map(|entry| entry.wall_ms))
    }

    fn path(&self, first: u64, ext: &str) -> PathBuf {
        self.dir.join(segment_name(&self.stream, first, ext))
    }
}

/// The last entry before `from`, and those from there to `to`. Entries are sorted by offset and of one size: a reader
/// that asks once per batch must not pay for the whole index each time.
fn entries_between(
    file: &std::fs::File,
    from: u64,
    to: u64,
) -> io::Result<(Option<IndexEntry>, Vec<IndexEntry>)> {
    let count = file.metadata()?.len() / ENTRY as u64;
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if entry_at(file, middle)?.offset < from {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let before = match low.checked_sub(1) {
        Some(last) => Some(entry_at(file, last)?),
        None => None,
    };
    let mut entries = Vec::new();
    let mut chunk = [0; ENTRY * 64];
    while low < count {
        let wanted = usize::try_from(count - low)
            .map_or(chunk.len(), |left| left.saturating_mul(ENTRY).min(chunk.len()));
        file.read_exact_at(&mut chunk[..wanted], low * ENTRY as u64)?;
        for entry in chunk[..wanted].chunks_exact(ENTRY).map(decode_entry) {
            if entry.offset >= to {
                return Ok((before, entries));
            }
            entries.push(entry);
        }
        low += (wanted / ENTRY) as u64;
    }
    Ok((before, entries))
}

fn entry_at(file: &std::fs::File, number: u64) -> io::Result<IndexEntry> {
    let mut bytes = [0; ENTRY];
    file.read_exact_at(&mut bytes, number * ENTRY as u64)?;
    Ok(decode_entry(&bytes))
}

/// As it is on file.
pub fn encode_entry(entry: &IndexEntry) -> [u8; ENTRY] {
    let tail = match entry.kind {
        IndexKind::Batch => 0,
        IndexKind::Dropped(bytes) => 1 << 56 | bytes.min((1 << 56) - 1),
    };
    let mut bytes = [0; ENTRY];
    bytes[..8].copy_from_slice(&entry.offset.to_le_bytes());
    bytes[8..16].copy_from_slice(&entry.wall_ms.to_le_bytes());
    bytes[16..24].copy_from_slice(&entry.mono_ns.to_le_bytes());
    bytes[24..].copy_from_slice(&u64::to_le_bytes(tail));
    bytes
}

fn decode_entry(bytes: &[u8]) -> IndexEntry {
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    let tail = word(24);
    let kind = match tail >> 56 {
        1 => IndexKind::Dropped(tail & ((1 << 56) - 1)),
        _ => IndexKind::Batch,
    };
    IndexEntry {
        offset: word(0),
        wall_ms: word(8) as i64,
        mono_ns: word(16),
        kind,
    }
}
