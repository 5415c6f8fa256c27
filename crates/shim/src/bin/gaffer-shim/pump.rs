//! Moves what programs write into their streams: pipe → staging pipe → segment, by splice.
//!
//! A byte is always in a pipe or in a file, and both outlive a killed shim. The first bytes after silence
//! move at once. Small batches in quick succession are collected: the pipe is disarmed for up to 3 ms, and no longer than
//! it takes to fill a quarter of it at the pace of the last batch, after it was grown to 1 MiB (on 64 KiB that nap
//! would throttle the program). One empty nap ends it, so there is no timer at rest.

use crate::disk::Attach;
use crate::log::Journal;
use crate::segments::{Stream, Stuck};
use crate::share::Share;
use crate::sys::{self, Epoll};
use gaffer_shim::identity::mono_ns;
use gaffer_shim::journal::{Record, RunIdWire};
use gaffer_shim::message::LogBounds;
use rustix::fd::{AsRawFd, OwnedFd};
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Batches closer together than this are collected.
const QUICK_NS: u64 = 10_000_000;
/// How long a pipe is left alone while collecting, at most and at least.
const NAP_NS: u64 = 3_000_000;
const NAP_MIN_NS: u64 = 250_000;
/// Wanted size of busy pipes.
const PIPE_BYTES: usize = 1 << 20;
/// Streams that keep their segment open.
const OPEN_MAX: usize = 24;
/// Streams that are remembered, unless more have a pipe.
const STREAMS_MAX: usize = 1024;
/// Pause before a full disk is tried again.
const RETRY_NS: u64 = 250_000_000;
/// How often a lasting loss is told.
const TELL_NS: u64 = 1_000_000_000;

struct Pipe {
    fd: OwnedFd,
    run: RunIdWire,
    /// None: the stream is empty, and nothing was written yet.
    stream: Option<u64>,
    target: Target,
    grown: bool,
    last_batch_ns: u64,
    /// Staging pipe with bytes that found no room (`block_when_full`).
    parked: Option<Box<(Staging, usize)>>,
    dropped: u64,
    dropped_at: u64,
    told_ns: u64,
    /// Where the guard finds it.
    place: Option<u32>,
    shared: bool,
}

/// Where the bytes of a pipe go.
#[derive(Clone)]
pub struct Target {
    /// Directory of the segments, shared by the pipes of a run.
    pub dir: Arc<str>,
    /// Of the stream.
    pub name: Cow<'static, str>,
    /// Of the stream.
    pub bounds: LogBounds,
}

struct Staging {
    read: OwnedFd,
    write: OwnedFd,
    bytes: usize,
}

enum Moved {
    Bytes(usize),
    Nothing,
    End,
}

/// Registers a pipe with the disk thread's epoll.
pub fn watch(epoll: &Epoll, fd: &OwnedFd) -> io::Result<()> {
    epoll.add(fd, libc::EPOLLIN | libc::EPOLLONESHOT, token(fd))
}

/// Token of a pipe: no other one has that descriptor while it is open. Above all other tokens there.
fn token(fd: &OwnedFd) -> u64 {
    (1 << 32) + fd.as_raw_fd() as u64
}

/// All pipes and streams of a shim.
pub struct Pump {
    epoll: std::sync::Arc<Epoll>,
    staging: Staging,
    null: OwnedFd,
    /// Boxed, as half of the table is empty.
    pipes: HashMap<u64, Box<Pipe>>,
    of_run: HashMap<RunIdWire, Vec<u64>>,
    streams: HashMap<u64, Stream>,
    /// By directory and name: those that are not empty. What is not in here has no byte.
    names: HashMap<Arc<str>, Vec<u64>>,
    /// So many streams are looked through for those to forget.
    streams_max: usize,
    open: VecDeque<u64>,
    /// When a pipe is looked at again, the next one first.
    naps: BinaryHeap<Reverse<(u64, u64)>>,
    retries: VecDeque<(u64, u64)>,
    /// Losses that are told when their second is over, also if nothing more is lost.
    untold: VecDeque<(u64, u64)>,
    /// A loss is on file for which no bell was rung yet.
    pub told: bool,
    next_id: u64,
    share: &'static Share,
}

impl Pump {
    /// Arms pipes that were registered with `epoll` under their descriptors.
    pub fn new(epoll: std::sync::Arc<Epoll>, share: &'static Share) -> io::Result<Pump> {
        let null = rustix::fs::open(
            "/dev/null",
            rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        let staging = Staging::new()?;
        Ok(Pump {
            epoll,
            staging,
            null,
            pipes: HashMap::new(),
            of_run: HashMap::new(),
            streams: HashMap::new(),
            names: HashMap::new(),
            streams_max: STREAMS_MAX,
            open: VecDeque::new(),
            naps: BinaryHeap::new(),
            retries: VecDeque::new(),
            untold: VecDeque::new(),
            told: false,
            next_id: 1,
            share,
        })
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id * 2
    }

    /// Where a stream ends. Looks for it on disk unless it is known not to be empty.
    pub fn end_of(&mut self, dir: &str, name: &str, bounds: LogBounds) -> io::Result<u64> {
        if let Some(id) = self.known(dir, name) {
            let stream = self.streams.get_mut(&id);
            return Ok(stream.map_or(0, |stream| {
                stream.catch_up();
                stream.set_bounds(bounds);
                stream.end
            }));
        }
        let stream = Stream::find(Path::new(dir).to_path_buf(), name.to_owned(), bounds)?;
        let end = stream.end;
        if end > 0 {
            self.remember(dir, stream);
        }
        Ok(end)
    }

    /// Nothing was ever written there.
    pub fn is_new(&self, dir: &str) -> bool {
        use rustix::fs::{Access, access};
        !self.names.contains_key(dir) && access(dir, Access::EXISTS) == Err(rustix::io::Errno::NOENT)
    }

    fn known(&self, dir: &str, name: &str) -> Option<u64> {
        let named = |id: &&u64| self.streams.get(id).is_some_and(|stream| stream.name == name);
        self.names.get(dir)?.iter().find(named).copied()
    }

    fn remember(&mut self, dir: &str, stream: Stream) -> u64 {
        if self.streams.len() >= self.streams_max {
            self.forget_idle_streams();
        }
        let id = self.id();
        self.streams.insert(id, stream);
        match self.names.get_mut(dir) {
            Some(ids) => ids.push(id),
            None => {
                self.names.insert(dir.into(), vec![id]);
            }
        }
        id
    }

    /// Where a stream ends, if it is known here.
    pub fn known_end(&self, dir: &str, name: &str) -> u64 {
        let id = self.known(dir, name);
        id.and_then(|id| self.streams.get(&id))
            .map_or(0, |stream| stream.end)
    }

    fn stream(&mut self, dir: &str, name: &str, bounds: LogBounds) -> io::Result<u64> {
        if let Some(id) = self.known(dir, name) {
            return Ok(id);
        }
        let stream = Stream::find(Path::new(dir).to_path_buf(), name.to_owned(), bounds)?;
        Ok(self.remember(dir, stream))
    }

    /// The stream of a pipe, made if it was empty.
    fn stream_of(&mut self, id: u64) -> Option<u64> {
        let pipe = self.pipes.get(&id)?;
        if pipe.stream.is_some() {
            return pipe.stream;
        }
        let Target {
            dir, name, bounds, ..
        } = pipe.target.clone();
        let stream = self.stream(&dir, &name, bounds).ok();
        self.pipes.get_mut(&id)?.stream = stream;
        stream
    }

    fn forget_idle_streams(&mut self) {
        let used: std::collections::HashSet<u64> = self.pipes.values().filter_map(|p| p.stream).collect();
        self.streams.retain(|id, _| used.contains(id));
        self.names.retain(|_, ids| {
            ids.retain(|id| used.contains(id));
            !ids.is_empty()
        });
        self.open.retain(|id| used.contains(id));
        // Not each time, when nearly all are in use.
        self.streams_max = STREAMS_MAX.max(2 * self.streams.len());
    }

    /// New bounds for all streams of a directory.
    pub fn set_bounds(&mut self, dir: &str, bounds: LogBounds) {
        for pipe in self.pipes.values_mut().filter(|pipe| &*pipe.target.dir == dir) {
            pipe.target.bounds = bounds;
        }
        for stream in self.streams.values_mut().filter(|s| s.dir == Path::new(dir)) {
            stream.set_bounds(bounds);
        }
    }

    /// Begins to read a pipe that nobody has registered yet.
    pub fn adopt(&mut self, attach: Attach) -> io::Result<()> {
        watch(&self.epoll, &attach.fd)?;
        self.attach(attach)
    }

    /// Begins to read a pipe of a run whose stream ended at `begin`.
    pub fn attach(&mut self, attach: Attach) -> io::Result<()> {
        let Attach {
            run,
            target,
            begin,
            fd,
            place,
            shared,
        } = attach;
        let Target { dir, name, .. } = &target;
        let stream = match self.known(dir, name) {
            // It was known when the run was intended; so many others came that it was forgotten.
            None if begin > 0 => match self.stream(&target.dir, &target.name, target.bounds) {
                Ok(stream) => Some(stream),
                Err(error) => {
                    self.share.pipe_closed(place);
                    return Err(error);
                }
            },
            known => known,
        };
        let id = token(&fd);
        let pipe = Pipe {
            fd,
            run,
            stream,
            target,
            grown: false,
            last_batch_ns: 0,
            parked: None,
            dropped: 0,
            dropped_at: 0,
            told_ns: 0,
            place,
            shared,
        };
        self.pipes.insert(id, Box::new(pipe));
        self.of_run.entry(run).or_default().push(id);
        Ok(())
    }

    /// A pipe has bytes (or its end).
    pub fn ready(&mut self, id: u64, journal: &Journal) {
        match self.move_some(id, journal) {
            Moved::End => self.detach(id, journal),
            Moved::Bytes(count) => self.arm_or_nap(id, count),
            Moved::Nothing => self.arm(id),
        }
    }

    fn arm_or_nap(&mut self, id: u64, count: usize) {
        let now = mono_ns();
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return;
        };
        if pipe.parked.is_some() {
            return;
        }
        let took = now.saturating_sub(pipe.last_batch_ns);
        let quick = took < QUICK_NS;
        pipe.last_batch_ns = now;
        if quick && !pipe.grown {
            // SAFETY: descriptors and numbers only.
            let grown = unsafe { libc::fcntl(pipe.fd.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES) };
            pipe.grown = grown >= PIPE_BYTES as i32;
        }
        let nap = nap_ns(took, count);
        if quick && pipe.grown && nap >= NAP_MIN_NS {
            self.naps.push(Reverse((now + nap, id)));
        } else {
            self.arm(id);
        }
    }

    fn arm(&self, id: u64) {
        if let Some(pipe) = self.pipes.get(&id)
            && pipe.parked.is_none()
        {
            // The descriptor is open and registered: this cannot fail.
            let _ = self
                .epoll
                .modify(&pipe.fd, libc::EPOLLIN | libc::EPOLLONESHOT, id);
        }
    }

    /// When something is due here; `None` at rest.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        let nap = self.naps.peek().map(|Reverse((at, _))| *at);
        let retry = self.retries.front().map(|(at, _)| *at);
        let untold = self.untold.front().map(|(at, _)| *at);
        nap.into_iter().chain(retry).chain(untold).min()
    }

    /// Naps that are over, full disks to be tried again.
    pub fn due(&mut self, now: u64, journal: &Journal) {
        while let Some(Reverse((at, id))) = self.naps.peek().copied()
            && at <= now
        {
            self.naps.pop();
            match self.move_some(id, journal) {
                Moved::End => self.detach(id, journal),
                Moved::Nothing => self.arm(id),
                Moved::Bytes(count) => self.arm_or_nap(id, count),
            }
        }
        while let Some((at, id)) = self.retries.front().copied()
            && at <= now
        {
            self.retries.pop_front();
            self.retry(id, journal);
        }
        while let Some((at, id)) = self.untold.front().copied()
            && at <= now
        {
            self.untold.pop_front();
            self.tell_dropped(id, journal);
            if self.pipes.get(&id).is_some_and(|pipe| pipe.dropped > 0) {
                self.untold.push_back((now + TELL_NS, id));
            }
        }
    }

    fn retry(&mut self, id: u64, journal: &Journal) {
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return;
        };
        let Some((staging, count)) = pipe.parked.take().map(|parked| *parked) else {
            return;
        };
        let Some(stream) = pipe.stream.and_then(|id| self.streams.get_mut(&id)) else {
            return;
        };
        match stream.store(&staging.read, count) {
            Ok(()) => {
                self.share.park(pipe.place, 0);
                self.ready(id, journal);
            }
            Err((left, _)) if stream.blocks() => {
                pipe.parked = Some(Box::new((staging, left)));
                self.retries.push_back((mono_ns() + RETRY_NS, id));
            }
            // The policy was changed to dropping meanwhile.
            Err((left, _)) => {
                self.share.park(pipe.place, 0);
                throw_away(&staging, left, &self.null);
                self.count_dropped(id, left, journal);
                self.ready(id, journal);
            }
        }
    }

    /// One pipe-full from a pipe into its stream.
    fn move_some(&mut self, id: u64, journal: &Journal) -> Moved {
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return Moved::Nothing;
        };
        if pipe.parked.is_some() {
            return Moved::Nothing;
        }
        // Told before it is true: the guard finds an empty staging pipe at worst.
        self.share.stage(pipe.place, self.staging.read.as_raw_fd());
        let count = match sys::splice(&pipe.fd, &self.staging.write, None, self.staging.bytes) {
            Ok(0) => return Moved::End,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Moved::Nothing,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Moved::Nothing,
            // A terminal nobody holds any more says EIO; a broken socket ECONNRESET.
            Err(_) => return Moved::End,
        };
        let Some(stream_id) = self.stream_of(id) else {
            // Its directory cannot be looked into: the bytes are as lost as on a broken disk.
            throw_away(&self.staging, count, &self.null);
            return Moved::End;
        };
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return Moved::End;
        };
        let was_open = stream.is_open();
        let stored = stream.store(&self.staging.read, count);
        let blocks = stream.blocks();
        if !was_open && stream.is_open() {
            self.remember_open(stream_id);
        }
        match stored {
            Ok(()) => {
                self.tell_dropped(id, journal);
                Moved::Bytes(count)
            }
            Err((left, Stuck::Full)) if blocks => {
                self.park(id, left, journal);
                Moved::Bytes(count)
            }
            Err((left, _)) => {
                throw_away(&self.staging, left, &self.null);
                self.count_dropped(id, left, journal);
                Moved::Bytes(count)
            }
        }
    }

    /// The program waits: its bytes keep their staging pipe, others get a new one.
    fn park(&mut self, id: u64, left: usize, journal: &Journal) {
        match Staging::new() {
            Ok(fresh) => {
                let full = std::mem::replace(&mut self.staging, fresh);
                if let Some(pipe) = self.pipes.get_mut(&id) {
                    self.share.park(pipe.place, full.read.as_raw_fd());
                    pipe.parked = Some(Box::new((full, left)));
                    self.retries.push_back((mono_ns() + RETRY_NS, id));
                }
            }
            Err(_) => {
                throw_away(&self.staging, left, &self.null);
                self.count_dropped(id, left, journal);
            }
        }
    }

    fn remember_open(&mut self, stream: u64) {
        self.open.retain(|id| *id != stream);
        self.open.push_back(stream);
        if self.open.len() > OPEN_MAX
            && let Some(oldest) = self.open.pop_front()
            && let Some(stream) = self.streams.get_mut(&oldest)
        {
            stream.close();
        }
    }

    fn count_dropped(&mut self, id: u64, bytes: usize, journal: &Journal) {
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return;
        };
        let Some(stream) = pipe.stream.and_then(|id| self.streams.get(&id)) else {
            return;
        };
        if pipe.dropped > 0 && pipe.dropped_at != stream.end {
            self.tell_dropped(id, journal);
        }
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return;
        };
        let Some(stream) = pipe.stream.and_then(|id| self.streams.get(&id)) else {
            return;
        };
        let is_first = pipe.dropped == 0;
        pipe.dropped += bytes as u64;
        pipe.dropped_at = stream.end;
        let now = mono_ns();
        if now.saturating_sub(pipe.told_ns) >= TELL_NS {
            self.tell_dropped(id, journal);
        } else if is_first {
            self.untold.push_back((now + TELL_NS, id));
        }
    }

    /// Records a loss: in the index of the stream and in the journal.
    fn tell_dropped(&mut self, id: u64, journal: &Journal) {
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return;
        };
        if pipe.dropped == 0 {
            return;
        }
        let Some(stream) = pipe.stream.and_then(|id| self.streams.get_mut(&id)) else {
            return;
        };
        let record = Record::Dropped {
            run: pipe.run,
            stream: stream.name.clone(),
            offset: pipe.dropped_at,
            bytes: pipe.dropped,
        };
        pipe.told_ns = mono_ns();
        // If even this finds no room the count is kept and told later.
        if journal.append(std::slice::from_ref(&record)).is_ok() {
            stream.mark_dropped(pipe.dropped);
            pipe.dropped = 0;
            self.told = true;
        }
    }

    /// Bytes that a dead shim had in a staging pipe.
    pub fn rescue(&mut self, dir: &str, name: &str, bounds: LogBounds, staging: &OwnedFd) {
        let Ok(id) = self.stream(dir, name, bounds) else {
            return;
        };
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let count = rustix::io::ioctl_fionread(staging).unwrap_or(0);
        // What finds no room now is lost with the guard; there is nobody left to wait.
        let _ = stream.store(staging, count as usize);
    }

    fn detach(&mut self, id: u64, journal: &Journal) {
        self.tell_dropped(id, journal);
        if let Some(pipe) = self.pipes.remove(&id) {
            self.share.pipe_closed(pipe.place);
            if pipe.shared {
                self.epoll.remove(&pipe.fd);
            }
            if let Some(ids) = self.of_run.get_mut(&pipe.run) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    self.of_run.remove(&pipe.run);
                }
            }
        }
    }

    /// Empties the pipes of a run whose main process has ended. True: they are empty.
    pub fn drain(&mut self, run: RunIdWire, deadline_ns: u64, journal: &Journal) -> bool {
        let mut empty = true;
        for id in self.of_run.get(&run).cloned().unwrap_or_default() {
            loop {
                match self.move_some(id, journal) {
                    Moved::Bytes(_) if mono_ns() < deadline_ns => {}
                    Moved::Bytes(_) => {
                        empty = false;
                        break;
                    }
                    Moved::Nothing => {
                        empty &= self.pipes.get(&id).is_none_or(|pipe| pipe.parked.is_none());
                        break;
                    }
                    Moved::End => {
                        self.detach(id, journal);
                        break;
                    }
                }
            }
            self.tell_dropped(id, journal);
        }
        empty
    }
}

impl Staging {
    fn new() -> io::Result<Staging> {
        let (read, write) = sys::pipe_to_us()?;
        sys::set_nonblocking(&write)?;
        // SAFETY: descriptors and numbers only. What is not granted stays as it is.
        let bytes = unsafe {
            libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES);
            libc::fcntl(write.as_raw_fd(), libc::F_GETPIPE_SZ)
        };
        Ok(Staging {
            read,
            write,
            bytes: usize::try_from(bytes).unwrap_or(4096),
        })
    }
}

/// How long a pipe may be left alone when so many bytes came in so many nanoseconds: until it is a quarter full. One that
/// was half full already is behind, and not left alone.
fn nap_ns(took: u64, count: usize) -> u64 {
    if count >= PIPE_BYTES / 2 {
        return 0;
    }
    let quarter = took.saturating_mul(PIPE_BYTES as u64 / 4) / (count as u64).max(1);
    quarter.min(NAP_NS)
}

/// Empties a staging pipe into nothing.
fn throw_away(staging: &Staging, mut left: usize, null: &OwnedFd) {
    while left > 0 {
        match sys::splice(&staging.read, null, None, left) {
            Ok(count) if count > 0 => left -= count,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{NAP_MIN_NS, NAP_NS, PIPE_BYTES, nap_ns};

    #[test]
    fn a_pipe_is_left_alone_until_it_is_a_quarter_full() {
        let ms = 1_000_000;
        assert_eq!(nap_ns(ms, PIPE_BYTES / 8), 2 * ms);
        assert_eq!(
            nap_ns(ms, 100),
            NAP_NS,
            "a trickle: no longer than a reader may wait"
        );
        assert_eq!(nap_ns(ms, PIPE_BYTES / 2), 0, "it was nearly full");
        assert!(
            nap_ns(ms / 10, PIPE_BYTES / 4) < NAP_MIN_NS,
            "a torrent is not left alone"
        );
        assert_eq!(nap_ns(0, 0), 0);
    }
}
