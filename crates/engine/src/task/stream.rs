//! The runner stream: one file of frames, written by whoever leads the task, read by anyone.
//!
//! **Writing.** The file is locked for as long as the writer lives; the descriptor is close-on-exec, so no child keeps
//! leadership alive. A torn frame at the end (a writer died in the middle of a write) is cut before anything is
//! appended. Records are appended in one write and synced before [`Writer::append`] returns: what follows from a
//! record may happen only then.
//!
//! **Reading.** A torn tail is normal and passed over. A frame that is whole and wrong, or garbage with whole frames
//! behind it, is corruption: it is reported with its offset and nothing behind it is believed.

use super::wire::{self, WireError};
use gaffer_core::task::record::Record;
use gaffer_shim::frame::{self, Decoder, FrameError};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A stream that cannot be read or led.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The system refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another runner leads the task.
    #[error("{}: another runner leads this task", path.display())]
    Led {
        /// Which file.
        path: PathBuf,
    },
    /// What is there cannot be believed.
    #[error("{}: corrupt at byte {offset}: {why}", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Where what can be believed ends.
        offset: u64,
        /// What is wrong.
        why: String,
    },
}

/// What a reader found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// All records before the end or the fault.
    pub records: Vec<Record>,
    /// Bytes that they take.
    pub length: u64,
    /// Bytes of an unfinished frame behind them.
    pub torn: u64,
    /// What is wrong behind them.
    pub fault: Option<String>,
}

impl Contents {
    /// The records, if all of the stream can be believed.
    pub fn believed(self, path: &Path) -> Result<Vec<Record>, StreamError> {
        match self.fault {
            None => Ok(self.records),
            Some(why) => Err(StreamError::Corrupt {
                path: path.to_owned(),
                offset: self.length,
                why,
            }),
        }
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> StreamError + '_ {
    |source| StreamError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Reads a whole stream, as far as it goes.
pub fn read(path: &Path) -> Result<Contents, StreamError> {
    let mut file = File::open(path).map_err(failed(path))?;
    let mut reader = Reader::default();
    reader.take(&mut file).map_err(failed(path))?;
    Ok(reader.end())
}

/// Decodes frames as they come.
#[derive(Default)]
struct Reader {
    decoder: Decoder,
    contents: Contents,
}

impl Reader {
    fn take(&mut self, file: &mut impl Read) -> io::Result<()> {
        let mut chunk = vec![0; 256 << 10];
        while self.contents.fault.is_none() {
            let count = file.read(&mut chunk)?;
            if count == 0 {
                return Ok(());
            }
            self.decoder.push(&chunk[..count]);
            self.decode();
        }
        Ok(())
    }

    fn decode(&mut self) {
        loop {
            let body = match self.decoder.next_frame() {
                Ok(Some(body)) => body,
                Ok(None) => return,
                Err(error) => {
                    self.contents.fault = Some(fault(&error));
                    return;
                }
            };
            match wire::decode(&body) {
                Ok(record) => self.contents.records.push(record),
                Err(error @ (WireError::Undecodable(_) | WireError::Newer { .. })) => {
                    self.contents.fault = Some(error.to_string());
                    return;
                }
            }
            self.contents.length += (frame::HEADER + body.len()) as u64;
        }
    }

    fn end(mut self) -> Contents {
        let pending = self.decoder.pending();
        if self.contents.fault.is_some() || pending == 0 {
            return self.contents;
        }
        // A torn frame is the last one: whole frames behind it mean that its length lies, and nothing may be cut.
        while self.decoder.pending() > 0 {
            self.decoder.resync();
            if matches!(self.decoder.next_frame(), Ok(Some(_))) {
                self.contents.fault = Some("an unfinished frame with whole frames behind it".to_owned());
                return self.contents;
            }
        }
        self.contents.torn = pending as u64;
        self.contents
    }
}

fn fault(error: &FrameError) -> String {
    match error {
        FrameError::Magic => "no frame begins here".to_owned(),
        FrameError::Length(length) => format!("a frame of {length} bytes is longer than allowed"),
        FrameError::Checksum => "the checksum of a frame differs".to_owned(),
    }
}

/// Follows a growing stream: each record once, an unfinished frame is tried again.
pub struct Follower {
    path: PathBuf,
    offset: u64,
}

impl Follower {
    /// From the beginning. The file need not be there yet.
    pub fn new(path: PathBuf) -> Follower {
        Follower { path, offset: 0 }
    }

    /// What is new. A file that is not there is an empty stream.
    pub fn poll(&mut self) -> Result<Vec<Record>, StreamError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(StreamError::Io {
                    path: self.path.clone(),
                    source,
                });
            }
        };
        let mut reader = Reader::default();
        let mut rest = At {
            file: &file,
            offset: self.offset,
        };
        reader.take(&mut rest).map_err(failed(&self.path))?;
        let contents = reader.end();
        let begun = self.offset;
        self.offset += contents.length;
        match contents.fault {
            // What came before the fault is given first; the fault is met again.
            Some(why) if contents.records.is_empty() => Err(StreamError::Corrupt {
                path: self.path.clone(),
                offset: begun,
                why,
            }),
            Some(_) | None => Ok(contents.records),
        }
    }
}

/// Reads a file from an offset.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// The writer of a stream: its leader.
pub struct Writer {
    file: File,
    path: PathBuf,
    /// A write that did not go through: its bytes are cut before the next.
    end: u64,
    dirty: bool,
}

impl Writer {
    /// Takes the lead of a stream, made if it is not there, and gives what it holds. Its directory must be there.
    pub fn lead(path: &Path) -> Result<(Writer, Vec<Record>), StreamError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))
            .map_err(|errno| failed(path)(errno.into()))?;
        let mut file = File::from(file);
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StreamError::Led {
                    path: path.to_owned(),
                });
            }
            Err(errno) => return Err(failed(path)(errno.into())),
        }
        let mut reader = Reader::default();
        reader.take(&mut file).map_err(failed(path))?;
        let contents = reader.end();
        let (end, torn) = (contents.length, contents.torn);
        let records = contents.believed(path)?;
        let mut writer = Writer {
            file,
            path: path.to_owned(),
            end,
            dirty: torn > 0,
        };
        writer.cut()?;
        if let Some(parent) = path.parent() {
            // A new file is there after a power cut only if its directory says so.
            File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(failed(parent))?;
        }
        Ok((writer, records))
    }

    fn cut(&mut self) -> Result<(), StreamError> {
        if self.dirty {
            self.file.set_len(self.end).map_err(failed(&self.path))?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Appends records in one write and syncs them. After an error nothing was appended: what was written of it is cut
    /// before the next attempt.
    pub fn append(&mut self, records: &[Record]) -> Result<(), StreamError> {
        if records.is_empty() {
            return Ok(());
        }
        self.cut()?;
        let mut bytes = Vec::new();
        for record in records {
            bytes.extend_from_slice(&frame::encode(&wire::encode(record)));
        }
        self.dirty = true;
        let mut file = &self.file;
        file.write_all(&bytes).map_err(failed(&self.path))?;
        self.file.sync_data().map_err(failed(&self.path))?;
        self.dirty = false;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Says that the task is led: watchers judge a task's age by the time of its stream.
    pub fn touch(&self) -> Result<(), StreamError> {
        let now = std::fs::FileTimes::new().set_modified(std::time::SystemTime::now());
        self.file.set_times(now).map_err(failed(&self.path))
    }

    /// Bytes of all records.
    pub fn length(&self) -> u64 {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaffer_core::task::record::{Change, Header, Status, StepRecord, StepState, TaskState, Usage};
    use gaffer_core::time::Wall;

    fn records() -> Vec<Record> {
        let step = |seq, change| {
            Record::Step(StepRecord {
                step: "a b%".into(),
                seq,
                change,
            })
        };
        vec![
            Record::Header(Header {
                task_id: "t-1".into(),
                launched: Wall(1_700_000_000_123),
                sandbox: "/s".into(),
                hostname: "h".into(),
                user: "u".into(),
                uid: Some(0),
                ports: vec![("http".into(), 8080)],
                log_dir: "/s/.logs".into(),
                retry_of: Some("t-0".into()),
            }),
            Record::Status(Status {
                state: TaskState::Active,
                at: Wall(2),
                runner_pid: 7,
                runner_uid: 0,
            }),
            Record::Carried {
                step: "z".into(),
                outputs: vec![("rows".into(), "3".into())],
            },
            step(0, Change::Waiting),
            step(
                1,
                Change::Forked {
                    at: Wall(3),
                    parent_pid: 8,
                    run: Some(gaffer_core::name::RunId { epoch: 1, n: 9 }),
                },
            ),
            step(2, Change::Running { at: Wall(4), pid: 9 }),
            step(
                3,
                Change::Ended {
                    state: StepState::Failed,
                    at: Some(Wall(5)),
                    code: Some(-15),
                    reason: Some("did not end within 5s".into()),
                    outputs: vec![("n".into(), "v".into())],
                    fatal: true,
                    usage: Some(Usage {
                        cpu_ms: 1,
                        memory_peak: 2,
                    }),
                },
            ),
            Record::Paused(true),
            Record::Forced {
                state: TaskState::Killed,
                at: Wall(6),
                grace_ms: 60_000,
                reason: "killed by ana".into(),
            },
        ]
    }

    fn written(dir: &Path) -> (PathBuf, Vec<u8>) {
        let path = dir.join("runner");
        let (mut writer, found) = Writer::lead(&path).expect("a new stream");
        assert!(found.is_empty());
        writer.append(&records()).expect("room");
        let bytes = std::fs::read(&path).expect("the file");
        (path, bytes)
    }

    #[test]
    fn every_record_comes_back_as_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, bytes) = written(dir.path());
        let contents = read(&path).expect("readable");
        assert_eq!(contents.records, records());
        assert_eq!(
            (contents.length, contents.torn, contents.fault),
            (bytes.len() as u64, 0, None)
        );
    }

    #[test]
    fn c14_a_stream_cut_at_every_byte_gives_all_whole_records() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, bytes) = written(dir.path());
        let mut seen = 0;
        for length in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..length]).expect("written");
            let contents = read(&path).expect("readable");
            assert_eq!(contents.fault, None, "cut at {length}");
            assert_eq!(contents.length + contents.torn, length as u64);
            assert!(contents.records.len() >= seen);
            seen = contents.records.len();
            assert_eq!(contents.records, records()[..seen]);
        }
        assert_eq!(seen, records().len());
    }

    #[test]
    fn c15_a_leader_cuts_a_torn_tail_before_it_appends() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, bytes) = written(dir.path());
        std::fs::write(&path, &bytes[..bytes.len() - 3]).expect("written");
        let (mut writer, found) = Writer::lead(&path).expect("a torn stream can be led");
        assert_eq!(found.len(), records().len() - 1);
        writer.append(&records()[8..]).expect("room");
        let contents = read(&path).expect("readable");
        assert_eq!(contents.records, records());
        assert_eq!((contents.torn, contents.fault), (0, None));
    }

    #[test]
    fn c17_a_follower_gives_each_record_once_and_tries_an_unfinished_frame_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, bytes) = written(dir.path());
        std::fs::write(&path, b"").expect("written");
        let mut follower = Follower::new(path.clone());
        let mut given = Vec::new();
        for length in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..length]).expect("written");
            given.extend(follower.poll().expect("readable"));
        }
        assert_eq!(given, records());
        assert!(follower.poll().expect("readable").is_empty());
    }

    #[test]
    fn c18_a_stream_that_is_not_there_is_empty() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut follower = Follower::new(dir.path().join("runner"));
        assert!(follower.poll().expect("no error").is_empty());
    }

    #[test]
    fn c19_a_frame_that_is_too_long_is_corrupt() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, mut bytes) = written(dir.path());
        let end = bytes.len() as u64;
        bytes.extend_from_slice(&frame::MAGIC);
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        std::fs::write(&path, &bytes).expect("written");
        let contents = read(&path).expect("readable");
        assert_eq!(contents.records, records());
        assert!(
            contents
                .fault
                .is_some_and(|why| why.contains("longer than allowed"))
        );
        let refused = Writer::lead(&path).err().expect("nobody leads a corrupt stream");
        assert!(matches!(refused, StreamError::Corrupt { offset, .. } if offset == end));
        assert_eq!(std::fs::read(&path).expect("the file"), bytes, "left as it is");
    }

    #[test]
    fn a_flipped_byte_is_never_believed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, bytes) = written(dir.path());
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0x10;
            std::fs::write(&path, &wrong).expect("written");
            let contents = read(&path).expect("readable");
            let count = contents.records.len();
            assert!(count < records().len(), "byte {at} was believed");
            assert_eq!(contents.records, records()[..count]);
            // Only what cannot be told from a write that did not end may be cut.
            let is_last = count + 1 == records().len();
            assert!(
                contents.fault.is_some() || is_last,
                "byte {at}: {count} records kept, the rest would be cut"
            );
        }
    }

    #[test]
    fn r12_a_stream_has_one_leader() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("runner");
        let first = Writer::lead(&path).expect("a new stream");
        assert!(matches!(Writer::lead(&path), Err(StreamError::Led { .. })));
        drop(first);
        Writer::lead(&path).expect("free again");
    }

    #[test]
    fn golden_bytes_of_a_record_stay_as_they_are() {
        let body = wire::encode(&Record::Status(Status {
            state: TaskState::Cleaning,
            at: Wall(1_700_000_000_000),
            runner_pid: 4711,
            runner_uid: 1000,
        }));
        let text: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "82f684051b0000018bcfe568001912671903e8");
    }
}
