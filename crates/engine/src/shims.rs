//! The daemon's ends of its shims: connections, requests and their answers, and the kernel's word on who lives.
//!
//! A connection is two tasks (reader, writer); they hold no truth. What happened is in the journal, and a
//! bell only says that it has grown. Whether a shim lives is asked of the kernel by pidfd: its sockets and
//! pipes stay open in its guard when it is killed.

use crate::owner::Message;
use crate::scarce::Misfires;
use gaffer_shim::frame::Decoder;
use gaffer_shim::journal::{Position, Reader, RunIdWire};
use gaffer_shim::message::{FromShim, Heard, LiveRun, ReplyError, ToShim};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

/// What a shim said at `Hello`.
#[derive(Debug)]
pub(crate) struct Greeting {
    pub version: u32,
    pub pid: u32,
    pub guard_pid: u32,
    pub table: Vec<LiveRun>,
}

type Answer = Result<(), Option<ReplyError>>;
type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// A connection to a shim. Dropping it closes it.
pub(crate) struct Connection {
    tx: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Waiting,
    next: AtomicU64,
    /// A bell was passed on and not yet answered by reading.
    pub rung: Arc<AtomicBool>,
    tasks: [tokio::task::AbortHandle; 2],
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Connection {
    /// Takes over a stream; what comes in goes to the owner as news of shim `n`.
    pub fn open(
        n: u64,
        stream: std::os::unix::net::UnixStream,
        owner: mpsc::UnboundedSender<Message>,
    ) -> std::io::Result<Connection> {
        stream.set_nonblocking(true)?;
        let (mut reading, mut writing) = tokio::net::UnixStream::from_std(stream)?.into_split();
        let (tx, mut rx) = mpsc::unbounded_channel::<Vec<u8>>();
        let waiting = Waiting::default();
        let rung = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn(async move {
            while let Some(mut frames) = rx.recv().await {
                while let Ok(more) = rx.try_recv() {
                    frames.extend(more);
                }
                if writing.write_all(&frames).await.is_err() {
                    return;
                }
            }
        });
        let (answers, bell) = (waiting.clone(), rung.clone());
        let reader = tokio::spawn(async move {
            let mut decoder = Decoder::new();
            let mut buffer = vec![0; 16 * 1024];
            loop {
                match reading.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(read) => decoder.push(buffer.get(..read).unwrap_or_default()),
                }
                while let Ok(Some(body)) = decoder.next_frame() {
                    if let Ok(Heard::Message(message)) = FromShim::from_body(&body) {
                        pass_on(n, message, &owner, &answers, &bell);
                    }
                }
            }
            // Whoever waits for an answer is told that none will come.
            answers.lock().unwrap_or_else(PoisonError::into_inner).clear();
            let _ended = owner.send(Message::ShimClosed { shim: n });
        });
        let tasks = [reader.abort_handle(), writer.abort_handle()];
        Ok(Connection {
            tx,
            waiting,
            next: AtomicU64::new(1),
            rung,
            tasks,
        })
    }

    /// Sends a message that has no answer.
    pub fn send(&self, message: &ToShim) {
        // A closed connection: recovery will find out from the journal what became of it.
        let _closed = self.tx.send(message.to_frame());
    }

    /// Sends a request; the receiver gets its answer, or fails when the connection ends first.
    pub fn ask(&self, request: impl FnOnce(u64) -> ToShim) -> oneshot::Receiver<Answer> {
        let (tx, rx) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, tx);
        self.send(&request(number));
        rx
    }

    /// Sends a request whose answer nobody needs: what matters of it will be in the journal.
    pub fn tell(&self, request: impl FnOnce(u64) -> ToShim) {
        self.send(&request(0));
    }
}

fn pass_on(
    shim: u64,
    message: FromShim,
    owner: &mpsc::UnboundedSender<Message>,
    waiting: &Waiting,
    rung: &AtomicBool,
) {
    let news = match message {
        FromShim::HelloReply {
            version,
            pid,
            guard_pid,
            table,
            ..
        } => Message::ShimHello {
            shim,
            greeting: Box::new(Greeting {
                version,
                pid,
                guard_pid,
                table,
            }),
        },
        FromShim::Bell { .. } => {
            // One unanswered bell is enough: the owner reads to the end of the journal.
            if rung.swap(true, Ordering::AcqRel) {
                return;
            }
            Message::Bell { shim }
        }
        FromShim::Reply { req, error } => {
            let asker = waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&req);
            if let Some(asker) = asker {
                let _gone = asker.send(error.map_or(Ok(()), |error| Err(Some(error))));
            }
            return;
        }
        FromShim::Refused { run, code, text } => Message::Refused {
            shim,
            run,
            code,
            text,
        },
        FromShim::Fenced { epoch } => Message::Fenced { shim, epoch },
    };
    let _ended = owner.send(news);
}

/// A shim as the owner knows it.
pub(crate) struct Shim {
    /// `state/shims/<n>`.
    pub dir: PathBuf,
    /// What it serves.
    pub group: String,
    pub connection: Option<Connection>,
    pub journal: Reader,
    /// Behind the last record that was fed to the core.
    pub position: Position,
    pub pid: u32,
    pub guard_pid: u32,
    pub version: u32,
    pub runs: u32,
    pub state: ShimState,
    /// It refused a run for lack of descriptors: new ones go elsewhere until one of its runs is gone.
    pub full: bool,
    /// It is leaving, or has no guard any more: it gets no more runs.
    pub last: bool,
    /// Tasks that wait for its ends.
    pub watches: Vec<tokio::task::AbortHandle>,
}

impl Drop for Shim {
    fn drop(&mut self) {
        for watch in &self.watches {
            watch.abort();
        }
    }
}

/// What is known of a shim's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShimState {
    /// It answers.
    Connected,
    /// `Hello` is not answered: it may be stopped. Nothing starts in its group.
    Silent,
    /// The kernel says that it ended.
    Dead,
}

/// All shims of the node.
#[derive(Default)]
pub(crate) struct Shims {
    pub all: BTreeMap<u64, Shim>,
    pub next: u64,
    pub misfires: Misfires,
}

impl Shims {
    /// A shim of a group that was not heard of yet by this daemon.
    pub fn silent(&self, group: &str) -> Option<u64> {
        let silent = |shim: &Shim| shim.group == group && shim.state == ShimState::Silent;
        let mut all = self.all.iter();
        all.find(|(_, shim)| silent(shim)).map(|(n, _)| *n)
    }

    /// The shim that takes new runs of a group.
    pub fn serving(&self, group: &str) -> Option<u64> {
        let takes = |shim: &Shim| {
            shim.group == group
                && shim.state == ShimState::Connected
                && !shim.full
                && !shim.last
                && shim.version == gaffer_shim::message::VERSION
        };
        self.all
            .iter()
            .rev()
            .find(|(_, shim)| takes(shim))
            .map(|(n, _)| *n)
    }
}

/// Tells the owner when a process ends. The pidfd must have been opened while the process was known to live.
pub(crate) fn watch_end(
    pidfd: OwnedFd,
    owner: mpsc::UnboundedSender<Message>,
    news: Message,
) -> std::io::Result<tokio::task::AbortHandle> {
    let pidfd = crate::ready::readable(pidfd)?;
    let waiting = async move {
        // An error here means the descriptor is gone, which it is not; either way: look.
        let _ready = pidfd.readable().await;
        let _ended = owner.send(news);
    };
    Ok(tokio::spawn(waiting).abort_handle())
}

/// The run id of the wire.
pub(crate) fn wire(run: gaffer_core::name::RunId) -> RunIdWire {
    RunIdWire {
        epoch: run.epoch,
        n: run.n,
    }
}

/// The run id of the core.
pub(crate) fn unwire(run: RunIdWire) -> gaffer_core::name::RunId {
    gaffer_core::name::RunId {
        epoch: run.epoch,
        n: run.n,
    }
}
