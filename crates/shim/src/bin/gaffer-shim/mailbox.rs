//! Messages between the threads of a shim: a queue and a descriptor that becomes readable.

use crate::sys;
use gaffer_shim::identity::mono_ns;
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A queue that wakes an epoll. Its length is bounded by what is in flight: each message belongs to a
/// run, and runs are bounded by descriptors.
pub struct Mailbox<T> {
    state: Mutex<State<T>>,
    bell: OwnedFd,
}

struct State<T> {
    queue: VecDeque<T>,
    /// The bell has been rung since the queue was last taken. Set and rung under one lock.
    rung: bool,
    /// Its reader looks by itself soon.
    napping: bool,
}

impl<T> Mailbox<T> {
    /// An empty one.
    pub fn new() -> io::Result<Mailbox<T>> {
        // SAFETY: flags only; a fresh descriptor is owned by us.
        let fd = sys::check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: as above.
        let bell = unsafe { OwnedFd::from_raw_fd(fd) };
        let state = State {
            queue: VecDeque::new(),
            rung: false,
            napping: false,
        };
        Ok(Mailbox {
            state: Mutex::new(state),
            bell,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never blocks longer than another thread needs to push or take.
    pub fn send(&self, message: T) {
        let mut state = self.lock();
        state.queue.push_back(message);
        if !state.rung && !state.napping {
            state.rung = true;
            // Cannot fail: the counter never comes near its limit.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// Several at once.
    pub fn send_all(&self, messages: impl Iterator<Item = T>) {
        let mut state = self.lock();
        state.queue.extend(messages);
        drop(state);
        self.ring();
    }

    /// Leaves a message for the next time somebody looks. Something else will make them look.
    pub fn leave(&self, message: T) {
        self.lock().queue.push_back(message);
    }

    /// Makes its reader look although there is no message.
    pub fn ring(&self) {
        let mut state = self.lock();
        if !state.rung && !state.napping {
            state.rung = true;
            // As in `send`.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// All that has come.
    pub fn take(&self) -> VecDeque<T> {
        let mut state = self.lock();
        if std::mem::take(&mut state.rung) {
            let mut count = [0; 8];
            let _ = rustix::io::read(&self.bell, &mut count);
        }
        state.napping = false;
        std::mem::take(&mut state.queue)
    }
}

impl<T> AsRawFd for Mailbox<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.bell.as_raw_fd()
    }
}

/// Wake-ups that make a burst, within [`BURST_NS`].
const BURST: usize = 8;
const BURST_NS: u64 = 8_000_000;
/// How long mail waits in a burst.
const NAP_NS: u64 = 1_000_000;

/// How often a thread looks at its mail: at once, unless it comes in a burst. Then once in a millisecond, so that
/// a thousand starts do not wake it a thousand times. Nothing of it is left at rest.
#[derive(Default)]
pub struct Pace {
    /// When mail was there lately, the oldest at `turn`.
    looks: [u64; BURST],
    turn: usize,
    /// Mail is about to come that nobody has to be woken for.
    expects: bool,
}

impl Pace {
    /// The next wait is a nap: what others are doing for us now is soon done, and sooner if they need not wake us.
    pub fn expect(&mut self) {
        self.expects = true;
    }

    /// Waits for mail or anything else.
    pub fn wait<T>(&mut self, inbox: &Mailbox<T>, timeout_ns: Option<u64>, wait: impl FnOnce(Option<u64>)) {
        let oldest = self.looks[self.turn];
        let is_burst = oldest > 0 && mono_ns().saturating_sub(oldest) < BURST_NS;
        if std::mem::take(&mut self.expects) || is_burst {
            inbox.lock().napping = true;
            wait(Some(timeout_ns.unwrap_or(NAP_NS).min(NAP_NS)));
        } else {
            wait(timeout_ns);
        }
    }

    /// Takes the mail after a wait.
    pub fn take<T>(&mut self, inbox: &Mailbox<T>) -> VecDeque<T> {
        let mail = inbox.take();
        if !mail.is_empty() {
            self.looks[self.turn] = mono_ns();
            self.turn = (self.turn + 1) % BURST;
        }
        mail
    }
}
