//! The thread that writes the records of tasks.
//!
//! The owner of the core never waits for a disk. Everything that a task's machine returns comes here in order; records that
//! have gathered while the disk was busy are written and synced together. What follows from them goes back to
//! the owner when they are durable. A disk that is full holds the tasks up, and loses nothing: the write is tried again.

use super::layout::Root;
use super::output;
use super::stream::Writer;
use crate::owner::Message;
use gaffer_core::task::record::Record;
use gaffer_core::task::runner::Command;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Pause before a write that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// A run that lives so long gets its links.
const FIRST_AFTER: Duration = Duration::from_millis(100);

/// Something to be written.
pub(super) struct Write {
    pub id: Arc<str>,
    pub writer: Arc<Mutex<Writer>>,
    pub root: Root,
    pub records: Vec<Record>,
    /// What may be done then.
    pub commands: Vec<Command>,
}

/// Links to what a run writes.
pub(super) enum Link {
    /// It begins.
    First(PathBuf),
    /// It has ended.
    Last(PathBuf),
}

/// Links of runs that have begun. They are made a little later: most of what a run of a moment costs would be its links.
#[derive(Default)]
struct Links {
    /// Directories, in the order in which they are due.
    due: VecDeque<(Instant, PathBuf)>,
    /// Those of them that are wanted still.
    wanted: BTreeSet<PathBuf>,
}

impl Links {
    fn take(&mut self, link: Link) {
        match link {
            Link::First(dir) => {
                self.wanted.insert(dir.clone());
                self.due.push_back((Instant::now() + FIRST_AFTER, dir));
            }
            Link::Last(dir) => {
                self.wanted.remove(&dir);
                told(&dir, output::link_last(&dir));
            }
        }
    }

    /// Makes those that are due.
    fn make(&mut self) {
        let now = Instant::now();
        while self.due.front().is_some_and(|(at, _)| *at <= now) {
            let dir = self
                .due
                .pop_front()
                .map(|(_, dir)| dir)
                .filter(|dir| self.wanted.remove(dir));
            if let Some(dir) = dir {
                told(&dir, output::link_first(&dir));
            }
        }
    }

    fn next(&self) -> Option<Duration> {
        let (at, _) = self.due.front()?;
        Some(at.saturating_duration_since(Instant::now()))
    }
}

fn told(dir: &Path, made: std::io::Result<()>) {
    if let Err(error) = made {
        // The segments are there all the same.
        tracing::warn!(%error, dir = %dir.display(), "the output has no links");
    }
}

enum Order {
    Write(Box<Write>),
    Link(Link),
    /// Answered when everything before it is durable.
    Barrier(oneshot::Sender<()>),
}

/// The way to the thread. Dropping it ends the thread behind its last order.
pub(super) struct Desk(Sender<Order>);

impl Desk {
    /// Starts the thread.
    pub fn open(owner: mpsc::UnboundedSender<Message>) -> std::io::Result<Desk> {
        let (tx, rx) = channel();
        std::thread::Builder::new()
            .name("checkpoints".into())
            .stack_size(256 << 10)
            .spawn(move || work(&rx, &owner))?;
        Ok(Desk(tx))
    }

    pub fn write(&self, write: Write) {
        // It ends only when we do.
        let _ended = self.0.send(Order::Write(Box::new(write)));
    }

    /// Makes links behind everything that was ordered before.
    pub fn link(&self, link: Link) {
        let _ended = self.0.send(Order::Link(link));
    }

    /// Resolves when everything that was ordered before is durable.
    pub fn barrier(&self) -> oneshot::Receiver<()> {
        let (tx, rx) = oneshot::channel();
        let _ended = self.0.send(Order::Barrier(tx));
        rx
    }
}

fn work(orders: &Receiver<Order>, owner: &mpsc::UnboundedSender<Message>) {
    let mut links = Links::default();
    loop {
        let first = match links.next() {
            None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(wait) => orders.recv_timeout(wait),
        };
        links.make();
        let first = match first {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut writes: Vec<Write> = Vec::new();
        let mut barriers = Vec::new();
        for order in std::iter::once(first).chain(std::iter::from_fn(|| orders.try_recv().ok())) {
            match order {
                Order::Write(write) => writes.push(*write),
                // Who hears that a task is over finds its output under the names that it looks for.
                Order::Link(link) => links.take(link),
                Order::Barrier(answer) => barriers.push(answer),
            }
        }
        for write in gathered(writes) {
            if !carry_out(write, owner) {
                return;
            }
        }
        for answer in barriers {
            let _gone = answer.send(());
        }
    }
}

/// One write per task, in the order of their first.
fn gathered(writes: Vec<Write>) -> Vec<Write> {
    let mut places: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    let mut all: Vec<Write> = Vec::new();
    for write in writes {
        match places.get(&write.id).and_then(|at| all.get_mut(*at)) {
            Some(first) => {
                first.records.extend(write.records);
                first.commands.extend(write.commands);
            }
            None => {
                places.insert(write.id.clone(), all.len());
                all.push(write);
            }
        }
    }
    all
}

/// False: the daemon is gone.
fn carry_out(write: Write, owner: &mpsc::UnboundedSender<Message>) -> bool {
    let mut told = false;
    loop {
        let mut writer = write.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Err(error) = writer.append(&write.records) else {
            break;
        };
        drop(writer);
        if !told {
            tracing::error!(task = %write.id, %error, "the checkpoint cannot be written; the task waits");
            told = true;
        }
        std::thread::sleep(AGAIN);
        if owner.is_closed() {
            return false;
        }
    }
    for command in &write.commands {
        if let Command::Finish { .. } = command
            && let Err(error) = write.root.finish(&write.id)
        {
            // Its records say that it is over: the file is moved when it is met again.
            tracing::error!(task = %write.id, %error, "the file of the task cannot be moved");
        }
    }
    let (id, commands) = (write.id, write.commands);
    owner.send(Message::TaskWritten { id, commands }).is_ok()
}
