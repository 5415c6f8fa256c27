//! News for a service manager: sd_notify(3), its protocol in so many lines.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Whom to tell.
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
    to: SocketAddr,
    /// Half of `WATCHDOG_USEC`, if it is meant for us.
    watchdog: Option<Duration>,
}

impl Manager {
    /// As the environment says; none: nobody wants to know.
    pub fn from_env() -> Option<Manager> {
        let name = std::env::var_os("NOTIFY_SOCKET")?;
        let to = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok()?,
            [b'/', ..] => SocketAddr::from_pathname(&name).ok()?,
            _ => return None,
        };
        let socket = UnixDatagram::unbound().ok()?;
        // A manager that does not read must not stop us.
        socket.set_nonblocking(true).ok()?;
        Some(Manager {
            socket,
            to,
            watchdog: watchdog(),
        })
    }

    /// Tells `READY=1`, `STOPPING=1`, …, several with line feeds.
    pub fn tell(&self, state: &str) {
        let sent: io::Result<usize> = self.socket.send_to_addr(state.as_bytes(), &self.to);
        if let Err(error) = sent {
            tracing::debug!(error = %error, "notify.failed");
        }
    }

    /// `RELOADING=1` needs the time, so that the manager can tell it from an earlier one.
    pub fn tell_reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// How often the watchdog wants to hear from us.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }
}

fn watchdog() -> Option<Duration> {
    let micros: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    let for_us = match std::env::var("WATCHDOG_PID") {
        Ok(pid) => pid.parse() == Ok(std::process::id()),
        Err(_) => true,
    };
    (for_us && micros > 0).then(|| Duration::from_micros(micros / 2))
}
