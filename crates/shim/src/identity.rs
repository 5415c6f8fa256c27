//! What makes a process the same process: boot id, pid namespace, start time and, where the kernel has
//! it, the inode of its pidfd. Never a bare pid.

use std::io;

/// The world pids are meant in. Another boot or another container is another world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Inode of the pid namespace.
    pub pid_namespace: u64,
}

impl World {
    /// That of the caller.
    pub fn current() -> io::Result<World> {
        use std::os::unix::fs::MetadataExt;
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let pid_namespace = std::fs::metadata("/proc/self/ns/pid")?.ino();
        Ok(World {
            boot_id: boot_id.trim().to_owned(),
            pid_namespace,
        })
    }
}

impl std::fmt::Display for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.boot_id, self.pid_namespace)
    }
}

/// Start time in clock ticks since boot; `None` if there is no such process.
pub fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, also parentheses: fields are counted after the last one.
    let after = stat.iter().rposition(|byte| *byte == b')')? + 2;
    let fields = std::str::from_utf8(stat.get(after..)?).ok()?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Inode of a pidfd: since Linux 6.9 no two processes of a boot share one; before, all have the same. So another
/// inode is another process, and the same one proves nothing. 0: cannot be had.
pub fn pidfd_inode(pidfd: impl rustix::fd::AsFd) -> u64 {
    rustix::fs::fstat(pidfd).map_or(0, |stat| stat.st_ino)
}

/// Is the live process of a pidfd the one of which number, start time and inode (0: not known) are on file?
pub fn is_the_same(pid: u32, pidfd: impl rustix::fd::AsFd, start: u64, inode: u64) -> bool {
    start_ticks(pid) == Some(start) && (inode == 0 || pidfd_inode(pidfd) == inode)
}

/// Start time of a process that was made between two readings of [`mono_ns`], if they leave no doubt: reading
/// /proc makes entries in it that cost as much again when the process ends.
pub fn ticks_between(before_ns: u64, after_ns: u64) -> Option<u64> {
    // Ticks are hundredths of a second for every program, whatever the kernel counts in.
    const TICK_NS: u64 = 10_000_000;
    let ticks = before_ns / TICK_NS;
    (after_ns / TICK_NS == ticks).then_some(ticks)
}

/// Ended, but not yet waited for.
pub fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .iter()
        .rposition(|byte| *byte == b')')
        .and_then(|end| stat.get(end + 2));
    matches!(state, Some(b'Z' | b'X') | None)
}

/// Nanoseconds on the boot-time clock.
pub fn mono_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Milliseconds since the Unix epoch.
pub fn wall_ms() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}
