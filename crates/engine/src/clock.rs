//! The one place of the engine that reads clocks for the core.

use gaffer_core::time::{Mono, Now, Wall};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Both clocks. `mono` is the boot-time clock: it goes on through suspend and starts with the host, not the daemon.
pub fn now() -> Now {
    Now {
        mono: mono(),
        wall: wall(),
    }
}

/// Boot-time clock.
pub fn mono() -> Mono {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Boottime);
    Mono(u64::try_from(tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(tv_nsec).unwrap_or(0))
}

/// Wall clock.
pub fn wall() -> Wall {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Realtime);
    Wall(tv_sec * 1000 + tv_nsec / 1_000_000)
}
