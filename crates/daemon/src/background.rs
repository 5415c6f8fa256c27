//! `--daemon`: into the background, but not before it serves.
//!
//! The first process stays in the foreground until the second says that it is ready, or why it is not; whoever started it
//! gets the exit code. It must happen before any thread exists.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Which of the two processes we are.
pub enum Side {
    /// The one that was started: ends with this exit code.
    Foreground(u8),
    /// The one that serves.
    Background(Waiter),
}

/// The process in the foreground, waiting for us.
pub struct Waiter {
    pipe: OwnedFd,
}

/// Splits in two.
#[expect(
    clippy::disallowed_methods,
    reason = "called first in main, while there is one thread"
)]
pub fn split() -> io::Result<Side> {
    let (reading, writing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: there is one thread, so the child may do anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(reading);
            rustix::process::setsid()?;
            let_go_of_all_but(&writing);
            Ok(Side::Background(Waiter { pipe: writing }))
        }
        _ => {
            drop(writing);
            let mut said = Vec::new();
            std::fs::File::from(reading).read_to_end(&mut said)?;
            // Without a word it has died; its message is on stderr already.
            Ok(Side::Foreground(said.first().copied().unwrap_or(1)))
        }
    }
}

/// Whoever started us may hold a lock or wait for the end of a pipe: what was inherited is not ours to keep. Called before anything
/// of ours is opened.
fn let_go_of_all_but(kept: &OwnedFd) {
    let kept = kept.as_raw_fd().cast_unsigned();
    for (first, last) in [(3, kept - 1), (kept + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: nothing in this process owns these numbers. A kernel that cannot do it leaves them open.
            let _ = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}

impl Waiter {
    /// It serves: the foreground ends with 0, and the terminal is let go of; what is said further goes to `log`.
    pub fn ready(self, log: &Path) -> io::Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(log)?;
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(null.as_fd())?;
        rustix::stdio::dup2_stdout(null.as_fd())?;
        rustix::stdio::dup2_stderr(log.as_fd())?;
        std::fs::File::from(self.pipe).write_all(&[0])
    }

    /// It does not serve: the foreground ends with this code.
    pub fn failed(self, code: u8) {
        // A foreground that is gone cannot be told.
        let _told = std::fs::File::from(self.pipe).write_all(&[code]);
    }
}
