//! A terminal with somebody in front of it.

use crate::wait_until;
use rustix::fd::OwnedFd;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What is waited for comes within.
const SOON: Duration = Duration::from_secs(30);

/// A command on a terminal of its own.
pub struct Terminal {
    master: File,
    /// Held, so that the terminal outlives the command and can be looked at.
    slave: OwnedFd,
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a command in front of `columns` x `rows`.
    ///
    /// # Panics
    /// When the system has no terminal left, or the command cannot be started.
    #[track_caller]
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Terminal {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).expect("a terminal");
        unlockpt(&master).expect("a terminal");
        let name = ptsname(&master, Vec::new()).expect("its name");
        let slave = rustix::fs::open(
            name.as_c_str(),
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .expect("its other side");
        let size = Winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&slave, size).expect("a size");
        let side = || slave.try_clone().expect("a descriptor");
        let child = command
            .env("TERM", "xterm-256color")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("the command runs");
        let master = File::from(master);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, sink) = (master.try_clone().expect("a descriptor"), seen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Ends with an error when the last one has closed the other side.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                sink.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend_from_slice(&bytes[..count]);
            }
        });
        Terminal {
            master,
            slave,
            child,
            seen,
        }
    }

    /// Everything that has been written to it.
    pub fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until a text has been written.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn until(&self, text: &str) {
        wait_until(SOON, &format!("{text:?} on the terminal"), || {
            self.seen().contains(text)
        });
    }

    /// Types.
    ///
    /// # Panics
    /// When nobody can read it any more.
    pub fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("the keys");
    }

    /// Whether lines are edited and keys are echoed, as before any program changed it.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.slave).expect("the modes").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Number of the command's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the command has ended.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until(SOON, "the end of the command on the terminal", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Only a test that fails gets here with a live child.
        if matches!(self.child.try_wait(), Ok(None)) {
            eprintln!("on the terminal:\n{}", self.seen());
            let _ended = self.child.kill();
            let _status = self.child.wait();
        }
    }
}
