//! Memory that shim and guard both see: what the descriptors in their common table are.
//!
//! When the shim is dead the guard closes its connections (a daemon would never see their end otherwise) and
//! reads on what programs write. Only numbers are in here; each descriptor is stored last and cleared first,
//! so that a shim killed in between leaves nothing half told.

use gaffer_shim::journal::RunIdWire;
use gaffer_shim::message::LogBounds;
use std::io;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};

/// Connections that can be noted.
const CONNS: usize = 64;
/// Pipes that can be noted. Untouched places cost no memory.
const PIPES: usize = 1 << 16;

/// The memory. Zeros are a valid value.
#[repr(C)]
pub struct Share {
    /// Listening socket; 0: none.
    listener: AtomicI32,
    /// Connections; 0: free.
    conns: [AtomicI32; CONNS],
    /// Read end of the staging pipe.
    staging: AtomicI32,
    /// Whose bytes may be in it: place of the pipe + 1.
    staged: AtomicU32,
    /// Places from here on were never used.
    used: AtomicU32,
    pipes: [PipePlace; PIPES],
}

#[repr(C)]
struct PipePlace {
    fd: AtomicI32,
    /// Staging pipe with bytes that found no room.
    parked: AtomicI32,
    epoch: AtomicU32,
    n: AtomicU32,
    stream: AtomicU32,
    blocks: AtomicU32,
    size: AtomicU64,
    segment: AtomicU64,
}

/// A pipe as the dead shim left it.
pub struct LeftPipe {
    pub fd: i32,
    pub parked: Option<i32>,
    /// The staging pipe may hold bytes that were read from this one.
    pub staged: Option<i32>,
    pub run: RunIdWire,
    /// 0 stdout, 1 stderr, then the labels in order.
    pub stream: u32,
    pub bounds: LogBounds,
}

impl Share {
    /// Maps it; stays for the life of both processes.
    pub fn map() -> io::Result<&'static Share> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping of zeros, which is a valid Share, never unmapped.
        unsafe {
            let page = libc::mmap(std::ptr::null_mut(), size_of::<Share>(), access, flags, -1, 0);
            if page == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            Ok(&*page.cast::<Share>())
        }
    }

    /// Notes a pipe that is being read, at the place of its number. `None`: there is no such place, and the pipe would
    /// not outlive the shim.
    pub fn pipe_opened(&self, fd: i32, run: RunIdWire, stream: u32, bounds: LogBounds) -> Option<u32> {
        let place = fd as u32;
        let found = self.pipes.get(place as usize)?;
        self.used.fetch_max(place + 1, SeqCst);
        found.parked.store(0, SeqCst);
        found.epoch.store(run.epoch, SeqCst);
        found.n.store(run.n, SeqCst);
        found.stream.store(stream, SeqCst);
        found.blocks.store(bounds.block_when_full.into(), SeqCst);
        found.size.store(bounds.size, SeqCst);
        found.segment.store(bounds.segment, SeqCst);
        found.fd.store(fd, SeqCst);
        Some(place)
    }

    /// The pipe of this place is about to be closed.
    pub fn pipe_closed(&self, place: Option<u32>) {
        if let Some(place) = place {
            self.pipes[place as usize].fd.store(0, SeqCst);
        }
    }

    /// Bytes of a pipe go to this staging pipe next.
    pub fn stage(&self, place: Option<u32>, staging: i32) {
        self.staging.store(staging, SeqCst);
        self.staged.store(place.map_or(0, |place| place + 1), SeqCst);
    }

    /// Bytes of a pipe wait in a staging pipe of their own; 0: no longer.
    pub fn park(&self, place: Option<u32>, staging: i32) {
        if let Some(place) = place {
            self.pipes[place as usize].parked.store(staging, SeqCst);
        }
    }

    /// For the guard: all pipes the shim was reading.
    pub fn pipes(&self) -> Vec<LeftPipe> {
        let some = |fd: i32| (fd > 0).then_some(fd);
        let staged = self.staged.load(SeqCst);
        let used = self.used.load(SeqCst) as usize;
        let mut left = Vec::new();
        for (number, place) in self.pipes.iter().enumerate().take(used) {
            let Some(fd) = some(place.fd.load(SeqCst)) else {
                continue;
            };
            let is_staged = staged == number as u32 + 1;
            let parked = some(place.parked.load(SeqCst));
            let staged = some(self.staging.load(SeqCst)).filter(|fd| is_staged && parked != Some(*fd));
            left.push(LeftPipe {
                fd,
                parked,
                staged,
                run: RunIdWire {
                    epoch: place.epoch.load(SeqCst),
                    n: place.n.load(SeqCst),
                },
                stream: place.stream.load(SeqCst),
                bounds: LogBounds {
                    size: place.size.load(SeqCst),
                    segment: place.segment.load(SeqCst),
                    block_when_full: place.blocks.load(SeqCst) != 0,
                },
            });
        }
        left
    }

    /// Notes the listening socket.
    pub fn listener_opened(&self, fd: i32) {
        self.listener.store(fd, SeqCst);
    }

    /// It is closed.
    pub fn listener_closed(&self) {
        self.listener.store(0, SeqCst);
    }

    /// Notes a connection. One too many is not noted: it would end with the guard.
    pub fn conn_opened(&self, fd: i32) {
        for place in &self.conns {
            if place.compare_exchange(0, fd, SeqCst, SeqCst).is_ok() {
                return;
            }
        }
    }

    /// It is about to be closed.
    pub fn conn_closed(&self, fd: i32) {
        for place in &self.conns {
            // Not this one: nothing to do.
            let _ = place.compare_exchange(fd, 0, SeqCst, SeqCst);
        }
    }

    /// For the guard: closes all of them.
    pub fn close_all(&self) {
        // The listener first: whoever sees its connection end cannot connect again.
        for place in std::iter::once(&self.listener).chain(&self.conns) {
            let fd = place.swap(0, SeqCst);
            if fd > 0 {
                // SAFETY: the only other user of the number is dead.
                unsafe {
                    libc::shutdown(fd, libc::SHUT_RDWR);
                    libc::close(fd);
                }
            }
        }
    }
}
