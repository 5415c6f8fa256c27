//! The journal of a shim: what happened, in order, one file segment after the other.
//!
//! Version history: 1 — this file. Each segment is `<n, 10 digits>.journal` and begins with [`Record::Head`]s
//! that hold the whole live table, so older segments may go once the daemon's cursor has passed them.
//! Only a shim writes (its child for `Born`, its guard after its death); only the daemon removes.

use minicbor::{Decode, Encode};
use std::io;
use std::path::{Path, PathBuf};

/// `epoch.n`, unique for ever on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct RunIdWire {
    /// Start of the daemon that made it.
    #[n(0)]
    pub epoch: u32,
    /// Count within.
    #[n(1)]
    pub n: u32,
}

impl std::fmt::Display for RunIdWire {
    /// Each number in Crockford base 32 after its digit count: the text order is the number order.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        for number in [self.epoch, self.n] {
            let digits = (32 - number.leading_zeros()).div_ceil(5).max(1);
            write!(f, "{digits}")?;
            for place in (0..digits).rev() {
                let digit = (number >> (place * 5)) & 31;
                write!(f, "{}", char::from(DIGITS[digit as usize]))?;
            }
        }
        Ok(())
    }
}

/// A place in a journal. Order is order of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Position {
    /// Number of the segment, from 1. 0 is before everything.
    #[n(0)]
    pub segment: u64,
    /// Byte in it.
    #[n(1)]
    pub offset: u64,
}

/// A fact.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Record {
    /// First in each segment; several when the table is long (`more` on all but the last).
    #[n(0)]
    Head {
        /// Of the segment.
        #[n(0)]
        segment: u64,
        /// Boot id and pid namespace the shim lives in, as [`crate::identity::World`] prints them.
        #[n(1)]
        world: String,
        /// Live runs and last run of each slot.
        #[n(2)]
        entries: Vec<HeadEntry>,
        /// Another `Head` follows.
        #[n(3)]
        more: bool,
    },
    /// A start was accepted; nothing exists yet. Without a later `Born` it never did.
    #[n(1)]
    Intent {
        /// Which.
        #[n(0)]
        run: RunIdWire,
        /// Where.
        #[n(1)]
        slot: String,
        /// As given.
        #[n(2)]
        stamp: [u64; 2],
        /// As given.
        #[n(3)]
        attempt: u32,
        /// Where the run begins in the stream `stdout`.
        #[n(4)]
        out_offset: u64,
        /// In the stream `stderr`.
        #[n(5)]
        err_offset: u64,
        /// Wall clock.
        #[n(6)]
        wall_ms: i64,
        /// Boot-time clock.
        #[n(7)]
        mono_ns: u64,
        /// As given.
        #[n(8)]
        label: String,
        /// The run's own cgroup directory, if it is to have one.
        #[n(9)]
        cgroup: Option<String>,
        /// As given.
        #[n(10)]
        log_dir: String,
        /// As given: names of its labelled streams.
        #[n(11)]
        streams: Vec<String>,
    },
    /// Written by the child itself: its permission to exec.
    #[n(2)]
    Born {
        /// Which.
        #[n(0)]
        run: RunIdWire,
        /// Its process.
        #[n(1)]
        pid: u32,
    },
    /// The program runs.
    #[n(3)]
    Started {
        /// Which.
        #[n(0)]
        run: RunIdWire,
        /// Its process.
        #[n(1)]
        pid: u32,
        /// Start time in clock ticks since boot (field 22 of /proc/pid/stat).
        #[n(2)]
        start_ticks: u64,
        /// Inode of its pidfd; 0: unknown.
        #[n(3)]
        pidfd_inode: u64,
        /// Its cgroup; none: it has none of its own (see `note`).
        #[n(4)]
        cgroup: Option<String>,
        /// Wall clock.
        #[n(5)]
        wall_ms: i64,
        /// Boot-time clock.
        #[n(6)]
        mono_ns: u64,
        /// What could not be had, in words: `cgroup not writable`.
        #[n(7)]
        note: Option<String>,
    },
    /// The program was not started and there is no process.
    #[n(4)]
    StartFailed {
        /// Which.
        #[n(0)]
        run: RunIdWire,
        /// `session group nice oom_score rlimit stdio pty cwd groups gid uid regain no_new_privs umask
        /// mask journal parent exec exec-stuck fds cgroup clone`.
        #[n(1)]
        stage: String,
        /// errno, 0 if none.
        #[n(2)]
        errno: i32,
        /// Path or number concerned.
        #[n(3)]
        text: String,
        /// Wall clock.
        #[n(4)]
        wall_ms: i64,
        /// Boot-time clock.
        #[n(5)]
        mono_ns: u64,
    },
    /// The main process ended.
    #[n(5)]
    Exited {
        /// Which.
        #[n(0)]
        run: RunIdWire,
        /// How.
        #[n(1)]
        status: Status,
        /// What it used; zeros if unknown.
        #[n(2)]
        rusage: Usage,
        /// A process of its cgroup was killed for memory (memory.events).
        #[n(3)]
        oom: bool,
        /// Processes of its tree still alive.
        #[n(4)]
        survivors: u32,
        /// End of its bytes in `stdout`.
        #[n(5)]
        out_offset: u64,
        /// In `stderr`.
        #[n(6)]
        err_offset: u64,
        /// False: pipes still held bytes at the drain deadline (or nobody could look).
        #[n(7)]
        drained: bool,
        /// Wall clock.
        #[n(8)]
        wall_ms: i64,
        /// Boot-time clock.
        #[n(9)]
        mono_ns: u64,
        /// Written by the guard.
        #[n(10)]
        by_guard: bool,
        /// Main process.
        #[n(11)]
        pid: u32,
        /// The standing order that was carried out: its `Intent` is the next record.
        #[n(12)]
        successor: Option<Successor>,
    },
    /// Nothing of the run's tree is left. Written only after an `Exited` with survivors, and then always.
    #[n(6)]
    TreeGone {
        /// Which.
        #[n(0)]
        run: RunIdWire,
        /// Wall clock.
        #[n(1)]
        wall_ms: i64,
        /// Boot-time clock.
        #[n(2)]
        mono_ns: u64,
    },
    /// Bytes were thrown away for lack of space.
    #[n(7)]
    Dropped {
        /// Whose.
        #[n(0)]
        run: RunIdWire,
        /// `stdout`, `stderr` or a label.
        #[n(1)]
        stream: String,
        /// Between this offset and the next byte.
        #[n(2)]
        offset: u64,
        /// How many.
        #[n(3)]
        bytes: u64,
    },
}

/// A line of [`Record::Head`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct HeadEntry {
    /// Last run of the slot.
    #[n(0)]
    pub run: RunIdWire,
    /// The slot.
    #[n(1)]
    pub slot: String,
    /// What is known of it.
    #[n(2)]
    pub life: Life,
    /// As given.
    #[n(3)]
    pub stamp: [u64; 2],
    /// As given.
    #[n(4)]
    pub attempt: u32,
    /// Main process, 0 before `Born`.
    #[n(5)]
    pub pid: u32,
    /// As in `Started`.
    #[n(6)]
    pub start_ticks: u64,
    /// As in `Started`.
    #[n(7)]
    pub pidfd_inode: u64,
    /// As in `Started`.
    #[n(8)]
    pub cgroup: Option<String>,
    /// Wall clock of `Started`.
    #[n(9)]
    pub started_wall_ms: i64,
    /// Boot-time clock of `Started`.
    #[n(10)]
    pub started_mono_ns: u64,
    /// As in `Intent`.
    #[n(11)]
    pub label: String,
    /// As in `Intent`.
    #[n(12)]
    pub log_dir: String,
    /// As in `Intent`.
    #[n(13)]
    pub streams: Vec<String>,
}

/// Where a run is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Life {
    /// `Intent`.
    #[n(0)]
    Intended,
    /// `Started`.
    #[n(1)]
    Alive,
    /// `Exited`, the tree lives.
    #[n(2)]
    Exited,
    /// Over (or `StartFailed`).
    #[n(3)]
    Gone,
}

/// How a process ended. Never guessed: what nobody saw is `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Status {
    /// Exit code.
    #[n(0)]
    Code(#[n(0)] i32),
    /// Signal number and whether it dumped core.
    #[n(1)]
    Signal(#[n(0)] i32, #[n(1)] bool),
    /// Nobody could look.
    #[n(2)]
    Unknown,
}

/// The run that a standing order started at the end of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Successor {
    /// Which.
    #[n(0)]
    pub run: RunIdWire,
    /// As in `Intent`.
    #[n(1)]
    pub stamp: [u64; 2],
}

/// Resources a main process and its waited-for children used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Usage {
    /// User time.
    #[n(0)]
    pub utime_us: u64,
    /// System time.
    #[n(1)]
    pub stime_us: u64,
    /// Largest resident set.
    #[n(2)]
    pub maxrss_kb: u64,
    /// Minor faults.
    #[n(3)]
    pub minflt: u64,
    /// Major faults.
    #[n(4)]
    pub majflt: u64,
    /// Blocks read.
    #[n(5)]
    pub inblock: u64,
    /// Blocks written.
    #[n(6)]
    pub oublock: u64,
    /// Voluntary switches.
    #[n(7)]
    pub nvcsw: u64,
    /// Involuntary switches.
    #[n(8)]
    pub nivcsw: u64,
}

/// Name of a segment's file.
pub fn segment_name(segment: u64) -> String {
    format!("{segment:010}.journal")
}

/// Numbers of the segments in a shim's directory, rising.
pub fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|n| n.strip_suffix(".journal"));
        if let Some(number) = number.and_then(|n| n.parse().ok()) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads records in order, live or long after.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    file: Option<std::fs::File>,
    segment: u64,
    /// File offset of what the decoder gives next.
    offset: u64,
    decoder: crate::frame::Decoder,
    skipped_bytes: u64,
    unknown: u64,
}

impl Reader {
    /// From a position: of [`Reader::read_next`], of a shim, or `Position::default()` for the oldest
    /// segment there is. If the segment is gone, from the oldest after it.
    pub fn open(dir: &Path, from: Position) -> io::Result<Reader> {
        let oldest = segments(dir)?.into_iter().find(|n| *n >= from.segment);
        let segment = oldest.unwrap_or(from.segment.max(1));
        let offset = if segment == from.segment { from.offset } else { 0 };
        Ok(Reader {
            dir: dir.to_path_buf(),
            file: None,
            segment,
            offset,
            decoder: crate::frame::Decoder::new(),
            skipped_bytes: 0,
            unknown: 0,
        })
    }

    /// The next record and the position after it. `None`: nothing more yet (or a torn tail). Bad bytes
    /// in the middle and records of a newer writer are skipped and counted.
    pub fn read_next(&mut self) -> io::Result<Option<(Record, Position)>> {
        loop {
            match self.decoder.next_frame() {
                Ok(Some(body)) => {
                    self.offset += (crate::frame::HEADER + body.len()) as u64;
                    match minicbor::decode::<Record>(&body) {
                        Ok(record) => return Ok(Some((record, self.position()))),
                        Err(_) => self.unknown += 1,
                    }
                }
                Ok(None) => {
                    if !self.fill()? {
                        return Ok(None);
                    }
                }
                Err(_) => self.resync(),
            }
        }
    }

    /// Where the next record begins.
    pub fn position(&self) -> Position {
        Position {
            segment: self.segment,
            offset: self.offset,
        }
    }

    /// Bytes skipped because they were no valid frame.
    pub fn skipped_bytes(&self) -> u64 {
        self.skipped_bytes
    }

    /// Records skipped because they are of a newer writer.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    fn resync(&mut self) {
        let skipped = self.decoder.resync() as u64;
        self.offset += skipped;
        self.skipped_bytes += skipped;
    }

    /// Reads on; at the end of a segment that has a successor goes there. False: nothing more now.
    fn fill(&mut self) -> io::Result<bool> {
        use std::io::{ErrorKind, Seek, SeekFrom};
        if self.file.is_none() {
            let path = self.dir.join(segment_name(self.segment));
            match std::fs::File::open(path) {
                Ok(mut file) => {
                    file.seek(SeekFrom::Start(self.offset))?;
                    self.file = Some(file);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if self.read_chunk()? {
            return Ok(true);
        }
        let Some(successor) = self.successor()? else {
            return Ok(false);
        };
        // A successor means that this segment grows no more, but it may have grown since we looked.
        if self.read_chunk()? {
            return Ok(true);
        }
        if self.decoder.pending() > 0 {
            // The segment ends in a torn record. Whole ones may follow the torn one.
            self.resync();
            return Ok(true);
        }
        self.file = None;
        self.segment = successor;
        self.offset = 0;
        Ok(true)
    }

    fn read_chunk(&mut self) -> io::Result<bool> {
        use std::io::Read;
        let Some(file) = &mut self.file else {
            return Ok(false);
        };
        let mut chunk = [0; 16 << 10];
        let count = file.read(&mut chunk)?;
        self.decoder.push(&chunk[..count]);
        Ok(count > 0)
    }

    /// The segment after this one. Normally that is the next number, which is cheap to ask for at each bell;
    /// only a reader whose own segment is gone has to look at all there are.
    fn successor(&self) -> io::Result<Option<u64>> {
        if self.file.is_none() {
            return Ok(segments(&self.dir)?.into_iter().find(|n| *n > self.segment));
        }
        let next = self.segment + 1;
        match std::fs::symlink_metadata(self.dir.join(segment_name(next))) {
            Ok(_) => Ok(Some(next)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
