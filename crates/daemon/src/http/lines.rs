//! Lines out of bytes: one source is one stream of one slot, read from an offset.

use crate::refusal::Answer;
use crate::view;
use gaffer::Handle;
use gaffer::ReadAt;
use gaffer::info::RunInfo;
use gaffer::logs::{Chunk, LogReader};
use gaffer_core::name::{Place, RunId, Slot};
use std::collections::VecDeque;
use std::sync::Arc;

/// Longest piece of a line that is shown as one; the rest follows as further pieces.
pub const LINE_BYTES_MAX: usize = 16 << 10;

/// So far back the beginning of the last lines is looked for, per stream.
const TAIL_SCAN_BYTES_MAX: u64 = 4 << 20;

/// A line, or what is said in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When its first bytes arrived, Unix ms.
    pub wall_ms: i64,
    /// Of its first byte.
    pub offset: u64,
    /// Behind its last byte, the line feed included.
    pub end: u64,
    /// Without line feed.
    pub text: String,
    /// False: more of the same line follows.
    pub complete: bool,
    /// True: not output but a note that some is missing.
    pub is_gap: bool,
}

/// Cuts bytes into lines.
#[derive(Debug, Default)]
pub struct Splitter {
    partial: Vec<u8>,
    offset: u64,
    wall_ms: i64,
}

impl Splitter {
    /// Takes the bytes at `offset`, which follow those before, and gives the lines that end in them.
    pub fn push(&mut self, offset: u64, data: &[u8], wall_ms: i64, lines: &mut VecDeque<Line>) {
        let mut at = offset;
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            let mut rest = part;
            while !rest.is_empty() {
                if self.partial.is_empty() {
                    (self.offset, self.wall_ms) = (at, wall_ms);
                }
                let room = LINE_BYTES_MAX - self.partial.len();
                let (now, later) = rest.split_at(room.min(rest.len()));
                self.partial.extend_from_slice(now);
                at += now.len() as u64;
                rest = later;
                let is_whole = self.partial.last() == Some(&b'\n');
                if is_whole || self.partial.len() >= LINE_BYTES_MAX {
                    lines.extend(self.take(is_whole));
                }
            }
        }
    }

    /// What there is of a line without an end.
    pub fn take(&mut self, complete: bool) -> Option<Line> {
        if self.partial.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.partial);
        let end = self.offset + bytes.len() as u64;
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let text = String::from_utf8_lossy(text).into_owned();
        Some(Line {
            wall_ms: self.wall_ms,
            offset: self.offset,
            end,
            text,
            complete,
            is_gap: false,
        })
    }

    /// Is part of a line held back?
    pub fn is_empty(&self) -> bool {
        self.partial.is_empty()
    }
}

/// Names a source within its job.
pub fn key(slot: &Slot, stream: &str) -> Arc<str> {
    match slot.place {
        Place::Instance { n, lane: 0 } => format!("{n}/{stream}"),
        Place::Instance { n, lane } => format!("{n}~{lane}/{stream}"),
        Place::OneOff(n) => format!("run-{n}/{stream}"),
    }
    .into()
}

/// One stream of one slot.
pub struct Source {
    /// Whose: `shop.web.2`.
    pub subject: String,
    /// `2~1/stdout`: names it within its job.
    pub key: Arc<str>,
    /// Which.
    pub stream: String,
    /// Next byte to read.
    pub offset: u64,
    /// Read no further; none: as far as there is.
    pub limit: Option<u64>,
    /// Lines that were read and not taken.
    pub ready: VecDeque<Line>,
    /// First bytes of runs, ascending.
    pub runs: Vec<(u64, RunId)>,
    reader: LogReader,
    splitter: Splitter,
}

impl Source {
    /// Opens a stream; it begins at the oldest byte that is kept.
    pub fn open(handle: &Handle, slot: &Slot, stream: &str) -> Answer<Source> {
        Source::new(
            handle.log(slot, stream)?,
            stream,
            view::subject(slot),
            key(slot, stream),
        )
    }

    /// The same of a reader.
    pub fn new(mut reader: LogReader, stream: &str, subject: String, key: Arc<str>) -> Answer<Source> {
        let (first, _) = reader.range()?;
        Ok(Source {
            subject,
            key,
            stream: stream.to_owned(),
            offset: first,
            limit: None,
            ready: VecDeque::new(),
            runs: Vec::new(),
            reader,
            splitter: Splitter::default(),
        })
    }

    /// First byte kept and byte after the last.
    pub fn range(&mut self) -> Answer<(u64, u64)> {
        Ok(self.reader.range()?)
    }

    /// Begins with what arrived at or after a time (Unix ms).
    pub fn seek_time(&mut self, wall_ms: i64) -> Answer<()> {
        self.offset = self.offset.max(self.reader.offset_at(wall_ms)?);
        Ok(())
    }

    /// Begins with the last `lines` lines before `limit` (or the end), but not before where it stands.
    pub fn seek_tail(&mut self, lines: usize) -> Answer<()> {
        let (first, end) = self.range()?;
        let end = self.limit.map_or(end, |limit| limit.min(end));
        let floor = first
            .max(self.offset)
            .max(end.saturating_sub(TAIL_SCAN_BYTES_MAX));
        let mut found = 0;
        let mut block_end = end;
        while block_end > floor {
            let block = floor.max(block_end.saturating_sub(64 << 10));
            let bytes = self.bytes(block, block_end)?;
            for (index, byte) in bytes.iter().enumerate().rev() {
                let behind = block + index as u64 + 1;
                // The last line feed ends the last line; the one before it is where that begins.
                if *byte == b'\n' && behind < end {
                    found += 1;
                    if found == lines {
                        self.offset = behind;
                        return Ok(());
                    }
                }
            }
            block_end = block;
        }
        self.offset = floor;
        Ok(())
    }

    /// The bytes of a range, as far as they are kept, not masked: only to see where lines end.
    fn bytes(&mut self, from: u64, to: u64) -> Answer<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut at = from;
        while at < to {
            let wanted = usize::try_from(to - at).unwrap_or(usize::MAX).min(64 << 10);
            let begin = bytes.len();
            bytes.resize(begin + wanted, 0);
            let read = self.reader.read_unmasked(at, &mut bytes[begin..])?;
            let filled = match read {
                ReadAt::Bytes(filled) => filled,
                ReadAt::Gap(_) => 0,
            };
            bytes.truncate(begin + filled);
            match read {
                ReadAt::Bytes(0) => break,
                ReadAt::Bytes(filled) => at += filled as u64,
                ReadAt::Gap(next) => at = next,
            }
        }
        Ok(bytes)
    }

    /// Reads one piece of at most `max` bytes into `ready`; false at the end (or limit).
    pub fn fill(&mut self, max: usize) -> Answer<bool> {
        if self.runs.iter().any(|(from, _)| *from == self.offset) {
            // The last line of the run before has no line feed: it ends here all the same.
            self.ready.extend(self.splitter.take(true));
        }
        let next_run = self
            .runs
            .iter()
            .map(|(from, _)| *from)
            .find(|from| *from > self.offset);
        let bound = [self.limit, next_run].into_iter().flatten().min();
        // Where the end is not known, the last line may be half of one.
        self.reader.hold_unfinished(self.limit.is_none());
        let room = bound.map_or(u64::MAX, |bound| bound.saturating_sub(self.offset));
        if room == 0 {
            return Ok(false);
        }
        match self
            .reader
            .read(self.offset, max.min(usize::try_from(room).unwrap_or(usize::MAX)))?
        {
            None => return Ok(false),
            Some(Chunk::Bytes {
                offset,
                data,
                wall_ms,
            }) => {
                self.splitter.push(offset, &data, wall_ms, &mut self.ready);
                self.offset = offset + data.len() as u64;
            }
            Some(Chunk::Gap { from, to }) => {
                self.missing(from, to, to - from, 0, "rotated away");
                self.offset = to;
            }
            Some(Chunk::Dropped {
                offset,
                bytes,
                wall_ms,
            }) => {
                self.missing(offset, offset, bytes, wall_ms, "dropped: the disk was full");
            }
        }
        Ok(true)
    }

    fn missing(&mut self, from: u64, to: u64, bytes: u64, wall_ms: i64, why: &str) {
        self.ready.extend(self.splitter.take(true));
        let text = format!("{} {why}", gaffer_config::format_size(bytes));
        self.ready.push_back(Line {
            wall_ms,
            offset: from,
            end: to,
            text,
            complete: true,
            is_gap: true,
        });
    }

    /// Moves what there is of an unfinished line to `ready`.
    pub fn flush(&mut self, complete: bool) {
        self.ready.extend(self.splitter.take(complete));
    }

    /// Is part of a line held back?
    pub fn holds_back(&self) -> bool {
        !self.splitter.is_empty()
    }

    /// The run that a byte belongs to.
    pub fn run_at(&self, offset: u64) -> Option<RunId> {
        self.runs
            .iter()
            .rev()
            .find(|(from, _)| *from <= offset)
            .map(|(_, run)| *run)
    }

    /// Waits until there may be more (cancel-safe).
    pub async fn grown(&mut self) -> Answer<()> {
        Ok(self.reader.grown(self.offset).await?)
    }
}

/// The last lines that a run wrote, of all its streams by time. What cannot be read is left out.
pub fn last_lines(handle: &Handle, info: &RunInfo, count: usize) -> Vec<String> {
    let mut lines: Vec<Line> = Vec::new();
    for (stream, (from, to)) in &info.logs {
        let Ok(mut source) = Source::open(handle, &info.slot, stream) else {
            continue;
        };
        source.offset = source.offset.max(*from);
        source.limit = *to;
        if source.seek_tail(count).is_err() {
            continue;
        }
        while source.fill(64 << 10).unwrap_or(false) {}
        source.flush(true);
        lines.extend(source.ready.drain(..).filter(|line| !line.is_gap));
    }
    lines.sort_by_key(|line| line.wall_ms);
    let skip = lines.len().saturating_sub(count);
    lines.into_iter().skip(skip).map(|line| line.text).collect()
}

/// A line without anything that a terminal would obey, cut to so many characters.
pub fn escaped(text: &str, chars_max: usize) -> String {
    let mut shown = String::new();
    let mut chars = text.chars();
    for char in chars.by_ref().take(chars_max) {
        match char {
            '\t' => shown.push('\t'),
            char if char.is_control() || is_invisible(char) => shown.extend(char.escape_default()),
            char => shown.push(char),
        }
    }
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// Marks that turn the direction of text around, and others that hide.
fn is_invisible(char: char) -> bool {
    matches!(char, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> (Vec<(u64, String, bool)>, Splitter) {
        let mut splitter = Splitter::default();
        let mut lines = VecDeque::new();
        let mut offset = 0;
        for piece in pieces {
            splitter.push(offset, piece, 1, &mut lines);
            offset += piece.len() as u64;
        }
        (
            lines
                .into_iter()
                .map(|line| (line.offset, line.text, line.complete))
                .collect(),
            splitter,
        )
    }

    #[test]
    fn lines_are_the_same_however_their_bytes_were_cut() {
        let whole = split(&[b"one\ntwo\r\n\nthree"]);
        let cut = split(&[b"on", b"e\ntw", b"o\r", b"\n", b"\nthr", b"ee"]);
        assert_eq!(whole.0, cut.0);
        assert_eq!(
            whole.0,
            vec![
                (0, "one".into(), true),
                (4, "two".into(), true),
                (9, String::new(), true)
            ]
        );
        assert_eq!(cut.1.partial, b"three");
    }

    #[test]
    fn a_line_that_never_ends_comes_in_pieces_of_bounded_size() {
        let endless = vec![b'x'; LINE_BYTES_MAX * 2 + 5];
        let (lines, splitter) = split(&[&endless]);
        assert_eq!(lines.len(), 2);
        assert!(
            lines
                .iter()
                .all(|(_, text, complete)| text.len() == LINE_BYTES_MAX && !complete)
        );
        assert_eq!(splitter.partial.len(), 5);
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        assert_eq!(
            escaped("a\x1b[31mb\tc\u{202e}d", 100),
            "a\\u{1b}[31mb\tc\\u{202e}d"
        );
        assert_eq!(escaped("abcdef", 3), "abc…");
    }
}
