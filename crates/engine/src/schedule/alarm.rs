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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    /// The clock of a shared machine cannot be set by a test. What the kernel was asked for can be read: the clock on the wall, an instant of
    /// it, and to be woken when it is set.
    #[tokio::test]
    async fn the_alarm_goes_by_the_wall_and_is_cancelled_when_the_clock_is_set() {
        let alarm = Alarm::new().expect("a timer");
        let info = format!("/proc/self/fdinfo/{}", alarm.0.get_ref().as_raw_fd());
        for at in [
            Some(crate::clock::wall().plus(std::time::Duration::from_secs(3_600))),
            None,
        ] {
            tokio::select! {
                biased;
                () = alarm.wait(at) => panic!("it is an hour away"),
                () = std::future::ready(()) => {}
            }
            let said = std::fs::read_to_string(&info).expect("what the kernel knows");
            let value = |name: &str| {
                let line = said.lines().find_map(|line| line.strip_prefix(name));
                line.map(str::trim).unwrap_or_default().to_owned()
            };
            assert_eq!(value("clockid:"), "0", "CLOCK_REALTIME: {said}");
            // TFD_TIMER_ABSTIME is 1, TFD_TIMER_CANCEL_ON_SET is 2.
            assert_eq!(value("settime flags:"), "03", "{said}");
        }
    }

    #[tokio::test]
    async fn a_time_that_has_passed_goes_off_at_once_also_after_one_that_was_far_away() {
        let alarm = Alarm::new().expect("a timer");
        tokio::select! {
            biased;
            () = alarm.wait(None) => panic!("it never comes"),
            () = std::future::ready(()) => {}
        }
        let late = std::time::Duration::from_secs(20);
        let went_off = tokio::time::timeout(late, alarm.wait(Some(Wall(1_000))));
        went_off.await.expect("it goes off");
    }
}
