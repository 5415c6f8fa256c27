//! A page of memory that shim and guard both see: what the guard must close when the shim is dead.
//!
//! The two share one descriptor table, so without this a daemon would never see the end of its connection.

use std::io;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

/// Connections that can be noted.
const CONNS: usize = 64;

/// The page.
#[repr(C)]
pub struct Share {
    /// Listening socket; 0: none.
    listener: AtomicI32,
    /// Connections; 0: free.
    conns: [AtomicI32; CONNS],
}

impl Share {
    /// Maps it; stays for the life of both processes.
    pub fn map() -> io::Result<&'static Share> {
        let (access, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a fresh mapping of zeros, which is a valid Share, never unmapped.
        unsafe {
            let page = libc::mmap(std::ptr::null_mut(), size_of::<Share>(), access, flags, -1, 0);
            if page == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            Ok(&*page.cast::<Share>())
        }
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
