//! `logs.redact` for readers: bytes of a stream, masked a whole line at a time wherever the reading begins and ends.
//!
//! A pattern sees whole lines only, so the rest of a line is looked up around what is read. Where that cannot be done (its
//! beginning was rotated away, or it is longer than [`LINE_MAX`]) all of it is masked: when in doubt nothing gets out.

use crate::clock;
use crate::owner::lock;
use crate::state::State;
use gaffer_config::Redaction;
use gaffer_core::name::JobId;
use gaffer_core::queue::spec::QueueId;
use gaffer_core::time::Duration;
use gaffer_shim::stream::{ReadAt, StreamReader};
use std::io;
use std::sync::{Arc, Mutex, Weak};

/// Longest line that patterns are tried on.
const LINE_MAX: usize = 64 << 10;

/// How long a line without an end is held back after its last byte came.
pub(crate) const HOLD: Duration = Duration::from_millis(500);

/// What is masked for one reader.
pub(crate) struct Mask {
    state: Weak<Mutex<State>>,
    whose: Whose,
    /// What `redaction` was made of.
    entries: Vec<String>,
    redaction: Redaction,
    /// Lines that may still grow are held back.
    pub holds: bool,
    /// End of the bytes that were held back by the last read.
    pub held: Option<u64>,
    /// Where the last read ended, and the beginning of the line there.
    place: Option<(u64, Begin)>,
}

/// Whose definition says what is masked.
pub(crate) enum Whose {
    Job(JobId),
    Queue(QueueId),
}

/// Where a line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    At(u64),
    /// Out of reach: the line is masked as a whole.
    Lost,
}

impl Mask {
    pub fn new(state: &Arc<Mutex<State>>, whose: Whose) -> Mask {
        Mask {
            state: Arc::downgrade(state),
            whose,
            entries: Vec::new(),
            redaction: Redaction::default(),
            holds: false,
            held: None,
            place: None,
        }
    }

    /// Takes over the definition if it changed; is there anything to mask? What is gone keeps its last one.
    pub fn refresh(&mut self) -> bool {
        self.held = None;
        let Some(state) = self.state.upgrade() else {
            return !self.redaction.is_empty();
        };
        let state = lock(&state);
        let wanted = match &self.whose {
            Whose::Job(job) => state.jobs.get(job).map(|meta| &meta.spec.logs.redact),
            Whose::Queue(queue) => state.queues.spec(queue).map(|spec| &spec.logs.redact),
        };
        if let Some(wanted) = wanted.filter(|wanted| **wanted != self.entries) {
            self.entries.clone_from(wanted);
            let entries = wanted.iter().map(String::as_str);
            // Checked when the definition was. One that cannot be used all the same masks everything.
            self.redaction = Redaction::new(entries).unwrap_or_else(|_| Redaction::everything());
        }
        !self.redaction.is_empty()
    }

    /// Masks bytes that were read at an offset. None: they are held back, and `held` says up to where.
    pub fn apply(
        &mut self,
        reader: &mut StreamReader,
        offset: u64,
        mut data: Vec<u8>,
    ) -> io::Result<Option<Vec<u8>>> {
        let begin = match self.place {
            Some((at, begin)) if at == offset => begin,
            _ => begin_of_line(reader, offset)?,
        };
        let end = offset + data.len() as u64;
        let whole = data
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let mut rest = Rest::default();
        if whole < data.len() {
            let line = match (whole, begin) {
                (0, Begin::At(begin)) => usize::try_from(end - begin).unwrap_or(usize::MAX),
                (0, Begin::Lost) => LINE_MAX,
                _ => data.len() - whole,
            };
            rest = rest_of_line(reader, end, LINE_MAX.saturating_sub(line))?;
            if !rest.is_whole && rest.at_end && self.holds && is_fresh(reader, end + rest.bytes.len() as u64)
            {
                if whole == 0 {
                    self.held = Some(end + rest.bytes.len() as u64);
                    return Ok(None);
                }
                // The lines before it are whole.
                data.truncate(whole);
                rest = Rest::default();
            }
        }
        let last = self.mask(reader, offset, begin, &mut data, &rest)?;
        self.place = Some((offset + data.len() as u64, last));
        Ok(Some(data))
    }

    /// Masks line by line; gives the beginning of the line that is going on at the end.
    fn mask(
        &self,
        reader: &mut StreamReader,
        offset: u64,
        begin: Begin,
        data: &mut [u8],
        rest: &Rest,
    ) -> io::Result<Begin> {
        let mut begin = begin;
        let mut from = 0;
        while from < data.len() {
            let feed = data[from..].iter().position(|byte| *byte == b'\n');
            let to = feed.map_or(data.len(), |at| from + at);
            let before = match begin {
                Begin::At(begin) => bytes_between(reader, begin, offset + from as u64)?,
                Begin::Lost => None,
            };
            let after: &[u8] = if feed.is_some() { &[] } else { &rest.bytes };
            let too_long = feed.is_none() && !rest.is_whole && !rest.at_end && !rest.is_nothing;
            match before {
                Some(before) if !too_long && before.len() + (to - from) + after.len() <= LINE_MAX => {
                    let mut line = before;
                    let at = line.len();
                    line.extend_from_slice(&data[from..to]);
                    line.extend_from_slice(after);
                    self.redaction.mask(&mut line);
                    data[from..to].copy_from_slice(&line[at..at + (to - from)]);
                }
                _ => {
                    data[from..to].fill(b'*');
                    begin = Begin::Lost;
                }
            }
            if feed.is_none() {
                return Ok(begin);
            }
            from = to + 1;
            begin = Begin::At(offset + from as u64);
        }
        Ok(begin)
    }
}

/// What follows of a line behind what was read.
struct Rest {
    bytes: Vec<u8>,
    /// Its line feed was found.
    is_whole: bool,
    /// The stream ends there, for now.
    at_end: bool,
    /// Nothing had to be looked up.
    is_nothing: bool,
}

impl Default for Rest {
    fn default() -> Rest {
        Rest {
            bytes: Vec::new(),
            is_whole: false,
            at_end: false,
            is_nothing: true,
        }
    }
}

fn rest_of_line(reader: &mut StreamReader, from: u64, max: usize) -> io::Result<Rest> {
    let mut rest = Rest {
        is_nothing: false,
        ..Rest::default()
    };
    let mut piece = [0u8; 4096];
    while rest.bytes.len() < max {
        let count = match reader.read_at(from + rest.bytes.len() as u64, &mut piece)? {
            ReadAt::Bytes(0) => {
                rest.at_end = true;
                return Ok(rest);
            }
            ReadAt::Bytes(count) => count,
            // The rest of the line is gone.
            ReadAt::Gap(_) => return Ok(rest),
        };
        let piece = &piece[..count];
        match piece.iter().position(|byte| *byte == b'\n') {
            Some(feed) => {
                rest.bytes.extend_from_slice(&piece[..feed]);
                rest.is_whole = true;
                return Ok(rest);
            }
            None => rest.bytes.extend_from_slice(piece),
        }
    }
    Ok(rest)
}

/// Looks back for the beginning of the line that an offset is in.
fn begin_of_line(reader: &mut StreamReader, offset: u64) -> io::Result<Begin> {
    let (first, _) = reader.range()?;
    let floor = first.max(offset.saturating_sub(LINE_MAX as u64));
    let Some(before) = bytes_between(reader, floor, offset)? else {
        return Ok(Begin::Lost);
    };
    Ok(match before.iter().rposition(|byte| *byte == b'\n') {
        Some(feed) => Begin::At(floor + feed as u64 + 1),
        // The stream itself begins there.
        None if floor == 0 => Begin::At(0),
        None => Begin::Lost,
    })
}

/// All bytes of a range, or none if some are gone or it is longer than a line may be.
fn bytes_between(reader: &mut StreamReader, from: u64, to: u64) -> io::Result<Option<Vec<u8>>> {
    let length = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
    if length > LINE_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match reader.read_at(from + filled as u64, &mut bytes[filled..])? {
            ReadAt::Bytes(0) | ReadAt::Gap(_) => return Ok(None),
            ReadAt::Bytes(count) => filled += count,
        }
    }
    Ok(Some(bytes))
}

/// Did the last byte before `end` come a moment ago?
fn is_fresh(reader: &StreamReader, end: u64) -> bool {
    let came = reader.wall_at(end.saturating_sub(1)).ok().flatten();
    let age = came.map(|came| clock::wall().0.saturating_sub(came));
    // A clock that was set back must not hold a line for ever.
    age.is_some_and(|age| (0..i64::try_from(HOLD.as_millis()).unwrap_or(0)).contains(&age))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaffer_shim::stream::segment_name;
    use std::path::Path;

    fn mask() -> Mask {
        let redaction = Redaction::new(["key=[a-z]+", "token"]).expect("entries");
        Mask {
            state: Weak::new(),
            whose: Whose::Job(JobId::parse("shop.web").expect("a name")),
            entries: Vec::new(),
            redaction,
            holds: false,
            held: None,
            place: None,
        }
    }

    fn stream(dir: &Path, first: u64, text: &[u8]) -> StreamReader {
        std::fs::write(dir.join(segment_name("stdout", first, "log")), text).expect("a segment");
        StreamReader::open(dir, "stdout")
    }

    /// Reads everything in pieces of a size, from an offset on.
    fn read(mask: &mut Mask, reader: &mut StreamReader, from: u64, piece: usize) -> Vec<u8> {
        let mut shown = Vec::new();
        loop {
            let at = from + shown.len() as u64;
            let mut data = vec![0; piece];
            let ReadAt::Bytes(count) = reader.read_at(at, &mut data).expect("readable") else {
                panic!("a gap at {at}");
            };
            data.truncate(count);
            if count == 0 {
                return shown;
            }
            shown.extend(mask.apply(reader, at, data).expect("readable").expect("not held"));
        }
    }

    #[test]
    fn the_same_is_masked_however_it_is_cut_and_wherever_it_begins() {
        let dir = tempfile::tempdir().expect("a directory");
        let text = b"one key=abcdef two\n{\"token\":\"secret\"}\nkey=zz\n\nplain key=";
        let shown = b"one ********** two\n{\"token\":\"******\"}\n******\n\nplain key=";
        let mut reader = stream(dir.path(), 0, text);
        for piece in 1..=text.len() {
            for from in 0..text.len() {
                let got = read(&mut mask(), &mut reader, from as u64, piece);
                assert_eq!(got, shown[from..], "from {from} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_line_without_its_beginning_and_one_that_is_too_long_are_masked_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut text = b"cut off\nfine\n".to_vec();
        text.extend(vec![b'x'; LINE_MAX + 1]);
        text.extend(b"\nfine again\n");
        let mut reader = stream(dir.path(), 1000, &text);
        let mut shown = b"*******\nfine\n".to_vec();
        shown.extend(vec![b'*'; LINE_MAX + 1]);
        shown.extend(b"\nfine again\n");
        for piece in [LINE_MAX * 2, 1000, 4097] {
            assert!(
                read(&mut mask(), &mut reader, 1000, piece) == shown,
                "in pieces of {piece}"
            );
        }
        // Also for whoever begins in the midst of it.
        let got = read(&mut mask(), &mut reader, 1000 + 13 + LINE_MAX as u64 - 3, 100);
        assert_eq!(got, b"****\nfine again\n");
    }

    #[test]
    fn a_line_that_may_still_grow_is_held_back_for_a_moment() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut reader = stream(dir.path(), 0, b"whole\nkey=ab");
        let entry = |wall_ms| {
            let entry = gaffer_shim::stream::IndexEntry {
                offset: 0,
                wall_ms,
                mono_ns: 0,
                kind: gaffer_shim::stream::IndexKind::Batch,
            };
            let bytes = gaffer_shim::stream::encode_entry(&entry);
            std::fs::write(dir.path().join(segment_name("stdout", 0, "idx")), bytes).expect("an index");
        };
        let mut mask = mask();
        mask.holds = true;
        entry(clock::wall().0);
        let got = mask.apply(&mut reader, 0, b"whole\nkey=ab".to_vec());
        assert_eq!(got.expect("readable").as_deref(), Some(b"whole\n".as_slice()));
        let got = mask.apply(&mut reader, 6, b"key=ab".to_vec());
        assert_eq!((got.expect("readable"), mask.held), (None, Some(12)));
        entry(clock::wall().0 - 1000);
        let got = mask.apply(&mut reader, 6, b"key=ab".to_vec());
        assert_eq!(got.expect("readable").as_deref(), Some(b"******".as_slice()));
    }
}
