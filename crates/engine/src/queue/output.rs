//! Which part of a seat's output is whose.
//!
//! What the workers of a seat write follows one another in its streams, and rows of tasks that are over go. So it is noted beside
//! the streams, in a file of lines, where the part of each run begins and ends:
//!
//! ```text
//! b RUN TASK STDOUT STDERR      a run began: for this task (0: a resident worker), at these offsets
//! e RUN STDOUT STDERR           its main process ended, and had written so much
//! ```
//!
//! A line is written when the fact comes out of the journal, so a daemon that is killed before that writes it when it recovers. The end of a run
//! is on file before the next run of its seat is started: a reader who meets bytes behind the last end knows that a beginning is to come.

use super::opening::{of_resident_slot, of_slot};
use super::worker::log_dir;
use crate::facts::RunFacts;
use crate::handle::{Handle, Result};
use crate::info::Error;
use crate::logs::LogReader;
use crate::state::State;
use gaffer_core::name::RunId;
use gaffer_core::queue::spec::{By, QueueId};
use gaffer_core::queue::task::TaskId;
use gaffer_shim::stream::StreamReader;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Name of the file. No stream has a segment without a dot.
const FILE: &str = "parts";

/// The file is cut when it is longer.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// Parts that are kept at most when it is cut.
const KEPT_MAX: usize = 1_000;

/// The part of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Whose.
    pub run: RunId,
    /// What it worked on; none: a resident worker, which has many.
    pub task: Option<TaskId>,
    /// In stdout: from, and to if it has ended.
    pub out: (u64, Option<u64>),
    /// In stderr.
    pub err: (u64, Option<u64>),
}

impl Part {
    /// Its range in a stream.
    pub fn range(&self, stream: &str) -> (u64, Option<u64>) {
        if stream == "stderr" { self.err } else { self.out }
    }
}

/// Where the workers of a seat write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    /// Its number, from 1.
    pub n: u32,
    /// Of a resident worker.
    pub resident: bool,
}

impl Seat {
    /// `3`, or `r3`.
    fn name(&self) -> String {
        let kind = if self.resident { "r" } else { "" };
        format!("{kind}{}", self.n)
    }

    fn parse(name: &str) -> Option<Seat> {
        let number = name.strip_prefix('r');
        Some(Seat {
            n: number.unwrap_or(name).parse().ok()?,
            resident: number.is_some(),
        })
    }
}

/// The directory of a worker's streams, by its slot.
fn dir_of(logs: &Path, slot: &str) -> Option<PathBuf> {
    let (queue, n, resident) = match of_resident_slot(slot) {
        Some((queue, n)) => (queue, n, true),
        None => of_slot(slot).map(|(queue, n)| (queue, n, false))?,
    };
    Some(log_dir(logs, &queue, &Seat { n: n + 1, resident }.name()))
}

/// Files of seats that are written, by slot. Each is kept open: a note is one write.
#[derive(Debug, Default)]
pub(crate) struct Notes(BTreeMap<String, Note>);

/// Files that are kept open at most.
const OPEN_MAX: usize = 256;

#[derive(Debug)]
struct Note {
    dir: PathBuf,
    file: File,
    bytes: u64,
}

impl Notes {
    /// Writes lines behind the others of a seat.
    fn write(&mut self, logs: &Path, slot: &str, lines: &str) -> io::Result<()> {
        if !self.0.contains_key(slot) {
            let Some(dir) = dir_of(logs, slot) else {
                return Ok(());
            };
            if self.0.len() >= OPEN_MAX {
                self.0.clear();
            }
            self.0.insert(slot.to_owned(), Note::open(dir)?);
        }
        let written = self.0.get_mut(slot).map_or(Ok(()), |note| note.write(lines));
        if written.is_err() {
            self.0.remove(slot);
        }
        written
    }
}

impl State {
    /// A worker began, or its main process ended: whose bytes are whose is noted. What cannot be written costs names, no lines.
    pub(super) fn note_part(&mut self, run: RunId) {
        if let Some(facts) = self.runs.runs.get(&run) {
            let (slot, lines) = (facts.slot.clone(), line_of(facts));
            self.write_note(run, &slot, &lines);
        }
    }

    /// The same after a restart: what an earlier daemon had no time to write.
    pub(super) fn note_part_found(&mut self, facts: &RunFacts) {
        let dir = dir_of(&self.settings.logs_dir(), &facts.slot).filter(|_| facts.born);
        let Some(dir) = dir else { return };
        let known = read(&dir).into_iter().rfind(|part| part.run == facts.run);
        let mut lines = String::new();
        if known.is_none() {
            lines.push_str(&begin_line(facts));
        }
        if facts.exit.is_some() && known.is_none_or(|part| part.out.1.is_none()) {
            lines.push_str(&end_line(facts));
        }
        if !lines.is_empty() {
            self.write_note(facts.run, &facts.slot, &lines);
        }
    }

    fn write_note(&mut self, run: RunId, slot: &str, lines: &str) {
        let logs = self.settings.logs_dir();
        if let Err(error) = self.queues.notes.write(&logs, slot, lines) {
            tracing::warn!(%run, slot, %error, "whose output this is cannot be noted");
        }
    }
}

fn line_of(facts: &RunFacts) -> String {
    match &facts.exit {
        None => begin_line(facts),
        Some(_) => end_line(facts),
    }
}

fn begin_line(facts: &RunFacts) -> String {
    let [task, _] = facts.stamp;
    format!("b {} {task} {} {}\n", facts.run, facts.out.0, facts.err.0)
}

fn end_line(facts: &RunFacts) -> String {
    let end = |range: (u64, Option<u64>)| range.1.unwrap_or(range.0);
    format!("e {} {} {}\n", facts.run, end(facts.out), end(facts.err))
}

impl Note {
    /// A line that a loss of power cut is ended first.
    fn open(dir: PathBuf) -> io::Result<Note> {
        std::fs::create_dir_all(&dir)?;
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(dir.join(FILE))?;
        let bytes = file.metadata()?.len();
        let mut last = [b'\n'];
        if bytes > 0 {
            file.read_exact_at(&mut last, bytes - 1)?;
        }
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
        Ok(Note { dir, file, bytes })
    }

    fn write(&mut self, lines: &str) -> io::Result<()> {
        if self.bytes > FILE_BYTES_MAX {
            cut(&self.dir)?;
            *self = Note::open(self.dir.clone())?;
        } else if self.file.metadata()?.nlink() == 0 {
            // Somebody removed it.
            *self = Note::open(self.dir.clone())?;
        }
        self.file.write_all(lines.as_bytes())?;
        self.bytes += lines.len() as u64;
        Ok(())
    }
}

/// Takes out what is about bytes that are gone.
fn cut(dir: &Path) -> io::Result<()> {
    let first = |stream: &str| StreamReader::open(dir, stream).range().map(|range| range.0);
    let (out, err) = (first("stdout")?, first("stderr")?);
    let parts = read(dir);
    let is_there = |part: &Part| {
        let ends = |range: (u64, Option<u64>), first: u64| range.1.is_none_or(|to| to > first);
        ends(part.out, out) || ends(part.err, err)
    };
    let oldest = parts
        .iter()
        .position(is_there)
        .unwrap_or(parts.len().saturating_sub(1));
    let oldest = oldest.max(parts.len().saturating_sub(KEPT_MAX));
    let mut text = String::new();
    for part in parts.get(oldest..).unwrap_or_default() {
        let (task, run) = (part.task.unwrap_or(0), part.run);
        text.push_str(&format!("b {run} {task} {} {}\n", part.out.0, part.err.0));
        if let (Some(out), Some(err)) = (part.out.1, part.err.1) {
            text.push_str(&format!("e {run} {out} {err}\n"));
        }
    }
    let fresh = dir.join(format!("{FILE}~"));
    std::fs::write(&fresh, text)?;
    std::fs::rename(&fresh, dir.join(FILE))
}

/// All parts of a seat, oldest first.
fn read(dir: &Path) -> Vec<Part> {
    let mut parts = Parts::of(dir);
    parts.refresh();
    parts.list
}

/// The parts of a seat, read on as more of them come.
#[derive(Debug)]
pub struct Parts {
    path: PathBuf,
    inode: u64,
    at: u64,
    list: Vec<Part>,
}

impl Parts {
    fn of(dir: &Path) -> Parts {
        Parts {
            path: dir.join(FILE),
            inode: 0,
            at: 0,
            list: Vec::new(),
        }
    }

    /// Reads what is new. A file that is not there, or cannot be read, has nothing new.
    pub fn refresh(&mut self) {
        let _again_later = self.read_on();
    }

    /// Those that are known, oldest first.
    pub fn list(&self) -> &[Part] {
        &self.list
    }

    fn read_on(&mut self) -> io::Result<()> {
        let file = std::fs::File::open(&self.path)?;
        let meta = file.metadata()?;
        if meta.ino() != self.inode || meta.len() < self.at {
            (self.inode, self.at) = (meta.ino(), 0);
            self.list.clear();
        }
        let length = usize::try_from(meta.len() - self.at).unwrap_or(usize::MAX);
        if length == 0 {
            return Ok(());
        }
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, self.at)?;
        // The last line may be half of one.
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        self.at += whole as u64;
        for line in String::from_utf8_lossy(&bytes[..whole]).lines() {
            self.take(line);
        }
        let old = self.list.len().saturating_sub(2 * KEPT_MAX);
        self.list.drain(..old);
        Ok(())
    }

    /// What is no line of this file is passed over.
    fn take(&mut self, line: &str) {
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["b", run, task, out, err] => self.list.extend(begun(run, [task, out, err])),
            ["e", run, out, err] => {
                let ends = self.list.last_mut().filter(|part| part.run.to_string() == **run);
                if let (Some(part), Ok(out), Ok(err)) = (ends, out.parse(), err.parse()) {
                    (part.out.1, part.err.1) = (Some(out), Some(err));
                }
            }
            _ => {}
        }
    }
}

fn begun(run: &str, [task, out, err]: [&str; 3]) -> Option<Part> {
    let task: TaskId = task.parse().ok()?;
    Some(Part {
        run: run.parse().ok()?,
        task: Some(task).filter(|task| *task != 0),
        out: (out.parse().ok()?, None),
        err: (err.parse().ok()?, None),
    })
}

impl Handle {
    /// The seats whose output may be read: those that ever wrote something, and those that will.
    ///
    /// # Errors
    ///
    /// There is no such queue, or its work is not done by programs of this node.
    pub fn queue_seats(&self, queue: &QueueId) -> Result<Vec<Seat>> {
        let spec = self.queue_spec(queue)?;
        let mut works = std::iter::once(&spec.work).chain(spec.kinds.values());
        if !works.any(|work| matches!(work.by, By::Cmd(_))) {
            let what = match &spec.work.by {
                By::Task(name) => {
                    format!("its tasks are runs of task {name}, and have theirs: gaffer logs task:ID")
                }
                _ => "its workers are not programs of this node".to_owned(),
            };
            return Err(Error::Invalid(format!(
                "queue {queue} has no output here: {what}"
            )));
        }
        let dir = log_dir(&self.settings.logs_dir(), queue, "");
        let found = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut seats: BTreeSet<Seat> = found
            .filter_map(|entry| Seat::parse(entry.file_name().to_str()?))
            .collect();
        let (count, resident) = match spec.resident {
            true => (spec.residents(), true),
            false => (spec.workers, false),
        };
        seats.extend((1..=count).map(|n| Seat { n, resident }));
        Ok(seats.into_iter().collect())
    }

    /// Reads a stream of a seat.
    pub fn queue_log(&self, queue: &QueueId, seat: &Seat, stream: &str) -> LogReader {
        let dir = log_dir(&self.settings.logs_dir(), queue, &seat.name());
        LogReader::open(&dir, stream).masked_for_queue(&self.state, queue.clone())
    }

    /// Whose the bytes of a seat are.
    pub fn queue_parts(&self, queue: &QueueId, seat: &Seat) -> Parts {
        let mut parts = Parts::of(&log_dir(&self.settings.logs_dir(), queue, &seat.name()));
        parts.refresh();
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, dir: &Path) {
        let mut note = Note::open(dir.to_owned()).expect("the file");
        note.write(text).expect("a line");
    }

    #[test]
    fn parts_are_read_on_and_a_torn_line_costs_only_itself() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("1");
        let [first, second, third] = [1, 2, 3].map(|n| RunId { epoch: 1, n });
        line(&format!("b {first} 7 0 0\n"), &dir);
        let mut parts = Parts::of(&dir);
        parts.refresh();
        assert_eq!(parts.list().len(), 1);
        assert_eq!((parts.list()[0].task, parts.list()[0].out), (Some(7), (0, None)));
        line(&format!("e {first} 40 2\n"), &dir);
        parts.refresh();
        assert_eq!(
            (parts.list()[0].out, parts.list()[0].err),
            ((0, Some(40)), (0, Some(2)))
        );
        // Power was lost amid a line.
        let mut file = OpenOptions::new()
            .append(true)
            .open(dir.join(FILE))
            .expect("the file");
        file.write_all(format!("b {second} 8").as_bytes())
            .expect("half a line");
        parts.refresh();
        assert_eq!(parts.list().len(), 1);
        line(&format!("b {third} 0 40 2\n"), &dir);
        parts.refresh();
        let tasks: Vec<Option<TaskId>> = parts.list().iter().map(|part| part.task).collect();
        assert_eq!(tasks, [Some(7), None]);
    }

    #[test]
    fn the_file_is_bounded_and_keeps_what_is_newest() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("1");
        let mut note = Note::open(dir.clone()).expect("the file");
        for n in 0..12_000u64 {
            let run = RunId {
                epoch: 1,
                n: u32::try_from(n).expect("small"),
            };
            let lines = format!("b {run} {} {n} 0\ne {run} {} 0\n", n + 1, n + 1);
            note.write(&lines).expect("lines");
        }
        let length = std::fs::metadata(dir.join(FILE)).expect("the file").len();
        assert!(length < FILE_BYTES_MAX + 100, "{length}");
        let parts = read(&dir);
        assert_eq!(parts.last().and_then(|part| part.task), Some(12_000));
        assert!(parts.windows(2).all(|two| two[0].out.1 == Some(two[1].out.0)));
        std::fs::remove_file(dir.join(FILE)).expect("removed");
        note.write(&format!("b {} 5 0 0\n", RunId { epoch: 1, n: 1 }))
            .expect("a line");
        assert_eq!(read(&dir).len(), 1, "it is made anew");
    }
}
