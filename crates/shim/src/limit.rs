//! The limit of open files: what supervision needs of it, and who gets which.
//!
//! Daemon and shim raise their own soft limit to the hard one. Programs get the soft limit that the daemon was started with:
//! some of them still believe that a descriptor is a small number.

use std::io;
use std::sync::OnceLock;

/// Descriptors that a shim keeps for supervision itself: the places of children being born, connections,
/// segments being written, scans.
pub const SHIM_RESERVE: u64 = 88 + 104;

/// The least that a shim starts with: its reserve, and room for a few runs.
pub const SHIM_MIN: u64 = SHIM_RESERVE + 8;

/// Soft limit before [`raise`], if that changed it.
static BEFORE: OnceLock<libc::rlimit> = OnceLock::new();

/// `(soft, hard)` limit of open files as it is now.
pub fn now() -> io::Result<(u64, u64)> {
    let limit = get()?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

fn get() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure outlives the call.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => Ok(limit),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Raises our soft limit to the hard one, which it gives.
pub fn raise() -> io::Result<u64> {
    let limit = get()?;
    if limit.rlim_cur < limit.rlim_max {
        let raised = libc::rlimit {
            rlim_cur: limit.rlim_max,
            ..limit
        };
        // SAFETY: the structure outlives the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // The first time counts: later ones have seen what we raised.
        let _already = BEFORE.set(limit);
    }
    Ok(limit.rlim_max)
}

/// Gives a child that is about to execute the soft limit that we had before [`raise`]. Async-signal-safe: it reads a
/// number and makes two system calls.
pub fn restore() -> io::Result<()> {
    let Some(before) = BEFORE.get() else {
        return Ok(());
    };
    let now = get()?;
    let restored = libc::rlimit {
        rlim_cur: before.rlim_cur.min(now.rlim_max),
        ..now
    };
    // SAFETY: the structure outlives the call.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const restored) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
