//! Messages between the threads of a shim: a queue and a descriptor that becomes readable.

use crate::sys;
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, PoisonError};

/// A queue that wakes an epoll. Its length is bounded by what is in flight: each message belongs to a
/// run, and runs are bounded by descriptors.
pub struct Mailbox<T> {
    queue: Mutex<VecDeque<T>>,
    bell: OwnedFd,
}

impl<T> Mailbox<T> {
    /// An empty one.
    pub fn new() -> io::Result<Mailbox<T>> {
        // SAFETY: flags only; a fresh descriptor is owned by us.
        let fd = sys::check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: as above.
        let bell = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Mailbox {
            queue: Mutex::default(),
            bell,
        })
    }

    /// Never blocks longer than another thread needs to push or take.
    pub fn send(&self, message: T) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = queue.is_empty();
        queue.push_back(message);
        drop(queue);
        if was_empty {
            // Cannot fail: the counter never comes near its limit.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// All that has come.
    pub fn take(&self) -> VecDeque<T> {
        let mut count = [0; 8];
        // Emptied before the queue is: a message that comes in between rings again.
        let _ = rustix::io::read(&self.bell, &mut count);
        std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> AsRawFd for Mailbox<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.bell.as_raw_fd()
    }
}
