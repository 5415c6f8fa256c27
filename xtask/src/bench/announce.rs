//! A program that tells its pid through a FIFO, and the reader of that FIFO.

use anyhow::{Context, Result, bail};
use gaffer_testkit::elf;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The program's file, and the reader.
pub struct Announcer {
    /// What to start. Ends on TERM.
    pub program: PathBuf,
    fifo: std::fs::File,
    _dir: tempfile::TempDir,
}

impl Announcer {
    /// Makes both in a directory of their own.
    pub fn new() -> Result<Announcer> {
        let dir = tempfile::Builder::new().prefix("gaffer-bench-").tempdir()?;
        let place = dir.path().join("told");
        let text = place.to_str().context("a path that is text")?;
        rustix::fs::mkfifoat(rustix::fs::CWD, &place, rustix::fs::Mode::from_raw_mode(0o622))?;
        let program = dir.path().join("tiny");
        elf::install(&program, elf::First::TellPid(text))?;
        // Open for writing too: the end of file never comes while nobody else has it open.
        let mut options = std::fs::OpenOptions::new();
        let fifo = options
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&place)?;
        Ok(Announcer {
            program,
            fifo,
            _dir: dir,
        })
    }

    /// Reads so many announcements; gives the pids and when each came.
    pub fn wait(&mut self, count: usize, within: Duration) -> Result<Vec<(u32, Instant)>> {
        let deadline = Instant::now() + within;
        let mut told = Vec::with_capacity(count);
        let mut block = vec![0_u8; 4096];
        while told.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "{} of {count} programs told that they run within {within:?}",
                    told.len()
                );
            }
            let timeout = Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            poll(&mut [PollFd::new(&self.fifo, PollFlags::IN)], Some(&timeout))?;
            // Writes of four bytes are never split, so whole numbers arrive.
            let room = block.len().min((count - told.len()) * 4);
            let read = match self.fifo.read(block.get_mut(..room).unwrap_or_default()) {
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            };
            let now = Instant::now();
            let pids = block.get(..read).unwrap_or_default().chunks_exact(4);
            told.extend(pids.filter_map(|pid| Some((u32::from_ne_bytes(pid.try_into().ok()?), now))));
        }
        Ok(told)
    }
}
