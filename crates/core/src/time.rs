//! Monotonic and wall time are different types, so that a clock that jumps can never restart a child.

/// Nanoseconds on the host's boot-time clock; survives a restart of the daemon, not a reboot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

/// Milliseconds since the Unix epoch. For display and calendars only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub i64);

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// What deadlines are measured with.
    pub mono: Mono,
    /// What people are shown.
    pub wall: Wall,
}

pub use core::time::Duration;
