//! An alarm that goes by the clock on the wall, and goes off at once when somebody sets it.

use gaffer_core::time::Wall;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// Nothing is to come: far away, so that a clock that is set is noticed all the same.
const NEVER: Wall = Wall(7_000_000_000_000);

pub(super) struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    pub fn new() -> io::Result<Alarm> {
        let timer = timerfd_create(
            TimerfdClockId::Realtime,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        Ok(Alarm(crate::ready::readable(timer)?))
    }

    /// Resolves at this time, or when the clock was set.
    pub async fn wait(&self, at: Option<Wall>) {
        let at = at.unwrap_or(NEVER).0.max(1);
        let when = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: at.div_euclid(1_000),
                tv_nsec: at.rem_euclid(1_000) * 1_000_000,
            },
        };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        if timerfd_settime(self.0.get_ref(), flags, &when).is_err() {
            // The clock was set before we came: look at it at once.
            return;
        }
        loop {
            let Ok(mut ready) = self.0.readable().await else {
                return;
            };
            let mut count = [0u8; 8];
            match rustix::io::read(self.0.get_ref(), &mut count) {
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                // It went off, or (ECANCELED) the clock was set.
                _ => {
                    ready.clear_ready();
                    return;
                }
            }
        }
    }
}
