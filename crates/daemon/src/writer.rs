//! The thread that writes the daemon's log, and the queue before it.
//!
//! Whoever has a line puts it into the queue and goes on: a pipe that nobody reads, or a disk that hangs, stops this thread
//! and nothing else. The queue is bounded; what finds no room is counted, and the count is told as soon as something can
//! be written again. Lines keep their order. At rest the thread sleeps without a timer.

use crate::sink::{self, Sink};
use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::Level;

/// Lines that wait at most, and their bytes.
const LINES_MAX: usize = 4096;
const BYTES_MAX: usize = 1 << 20;

/// Places that wait at most: each is an open file.
const SWITCHES_MAX: usize = 16;

/// How long an end waits for lines to be written.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

enum Entry {
    Line(Level, String),
    /// For whoever started the daemon: to stderr, wherever the log goes.
    Said(String),
    /// Later lines go there.
    Switch(Sink),
}

struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Since they were last told.
    dropped: u64,
    dropped_ever: u64,
    /// The thread is there.
    begun: bool,
    /// Something was taken out and is not written yet.
    writing: bool,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue {
    entries: VecDeque::new(),
    bytes: 0,
    dropped: 0,
    dropped_ever: 0,
    begun: false,
    writing: false,
});

/// There is something to write.
static WORK: Condvar = Condvar::new();

/// Everything is written.
static REST: Condvar = Condvar::new();

fn queue() -> MutexGuard<'static, Queue> {
    // Nobody panics while holding it; if somebody did, the lines are still lines.
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    fn push(&mut self, entry: Entry, bytes: usize) {
        if self.entries.len() >= LINES_MAX || self.bytes + bytes > BYTES_MAX {
            self.dropped += 1;
            self.dropped_ever += 1;
            return;
        }
        self.bytes += bytes;
        self.entries.push_back(entry);
        if !self.writing {
            WORK.notify_one();
        }
    }
}

/// Starts the thread. Before it, what is said goes to stderr at once.
pub fn begin() -> io::Result<()> {
    let mut first = queue();
    if first.begun {
        return Ok(());
    }
    std::thread::Builder::new()
        .name("log".to_owned())
        .stack_size(256 << 10)
        .spawn(write_on)?;
    first.begun = true;
    Ok(())
}

/// A line of the log.
pub fn line(level: Level, line: String) {
    let bytes = line.len();
    queue().push(Entry::Line(level, line), bytes);
}

/// A line for whoever started the daemon.
pub fn say(line: String) {
    let mut queue = queue();
    if queue.begun {
        let bytes = line.len();
        queue.push(Entry::Said(line), bytes);
    } else {
        drop(queue);
        sink::to_stderr(&format!("{line}\n"));
    }
}

/// Lines go there from now on. A place is not a line: the newest always finds room.
pub fn write_to(sink: Sink) {
    let mut queue = queue();
    let is_switch = |entry: &Entry| matches!(entry, Entry::Switch(_));
    if queue.entries.iter().filter(|entry| is_switch(entry)).count() >= SWITCHES_MAX
        && let Some(oldest) = queue.entries.iter().position(is_switch)
    {
        queue.entries.remove(oldest);
    }
    queue.entries.push_back(Entry::Switch(sink));
    WORK.notify_one();
}

/// Lines that found no room since the start.
pub fn dropped() -> u64 {
    queue().dropped_ever
}

/// Waits until everything is written, but not for long: a sink that takes nothing must not keep the daemon from ending.
pub fn flush() {
    let until = Instant::now() + FLUSH_WITHIN;
    let mut queue = queue();
    while queue.begun && (queue.writing || !queue.entries.is_empty() || queue.dropped > 0) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        queue = REST
            .wait_timeout(queue, left)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
}

fn write_on() {
    let mut sink = Sink::Stderr;
    loop {
        let (entries, dropped) = take();
        let mut batch = Vec::new();
        for entry in entries {
            match entry {
                Entry::Line(level, line) => batch.push((level, line)),
                Entry::Said(line) => {
                    sink.write(&std::mem::take(&mut batch));
                    sink::to_stderr(&format!("{line}\n"));
                }
                Entry::Switch(other) => {
                    sink.write(&std::mem::take(&mut batch));
                    sink = other;
                }
            }
        }
        if dropped > 0 {
            // Those that were taken are older than all that found no room.
            let time = crate::view::time(crate::view::now());
            let line = format!(
                "{time} warn daemon.log-dropped lines={dropped} reason=\"the log was not taken in time\""
            );
            batch.push((Level::WARN, line));
        }
        sink.write(&batch);
    }
}

/// Everything that waits, as soon as something does.
fn take() -> (VecDeque<Entry>, u64) {
    let mut queue = queue();
    queue.writing = false;
    while queue.entries.is_empty() && queue.dropped == 0 {
        REST.notify_all();
        queue = WORK.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
    queue.writing = true;
    queue.bytes = 0;
    let dropped = std::mem::take(&mut queue.dropped);
    (std::mem::take(&mut queue.entries), dropped)
}
