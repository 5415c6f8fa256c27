//! Stops for tests, in debug builds only: `GAFFER_DAEMON_HALT=STEP:FILE` stops the daemon (SIGSTOP) at a step of the
//! spawn table, once: whoever removes FILE stops. Step 0 is behind the commit of a wish, before the core hears of it;
//! step 1 is behind a `Spawn`; step 2 is behind a death, before the store hears of it.

use rustix::process::{PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

/// Stands still here if that was asked for.
pub(crate) fn at(step: u32) {
    if !cfg!(debug_assertions) {
        return;
    }
    let Ok(text) = std::env::var("GAFFER_DAEMON_HALT") else {
        return;
    };
    if let Some((wanted, armed)) = text.split_once(':')
        && wanted.parse() == Ok(step)
        && std::fs::remove_file(armed).is_ok()
        && let Ok(own) = pidfd_open(getpid(), PidfdFlags::empty())
    {
        // We are alive: it cannot fail.
        let _stopped = pidfd_send_signal(own, Signal::STOP);
    }
}
