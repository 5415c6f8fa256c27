//! The kernel, thinly: system calls without errno for the child between clone and exec, and those few
//! that the libraries at hand do not have.

pub use gaffer_shim::clone::{CloneArgs, clone_into, flag};
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::io;

/// Wait for children of any exit signal.
pub const WALL: i32 = 0x4000_0000;

/// A system call. Negative results are `-errno`.
///
/// # Safety
/// As that system call.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn call(number: libc::c_long, args: [usize; 5]) -> isize {
    let result: isize;
    // SAFETY: the kernel's calling convention; the caller vouches for the arguments.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2], in("r10") args[3], in("r8") args[4],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// A system call. Negative results are `-errno`.
///
/// # Safety
/// As that system call.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub unsafe fn call(number: libc::c_long, args: [usize; 5]) -> isize {
    let result: isize;
    // SAFETY: the kernel's calling convention; the caller vouches for the arguments.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") args[0] as isize => result,
            in("x1") args[1], in("x2") args[2], in("x3") args[3], in("x4") args[4],
            options(nostack),
        );
    }
    result
}

/// The errno of a failed libc call.
pub fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// As [`check`], for calls that count bytes.
pub fn check_size(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// An event queue of the kernel.
pub struct Epoll(OwnedFd);

impl Epoll {
    /// A new one.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: no arguments that could be wrong; a fresh descriptor is owned by us.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: as above.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn control(&self, what: i32, fd: i32, events: i32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: token,
        };
        // SAFETY: the event outlives the call.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), what, fd, &raw mut event) }).map(drop)
    }

    /// Watches a descriptor.
    pub fn add(&self, fd: &impl AsRawFd, events: i32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), events, token)
    }

    /// Watches it for something else.
    pub fn modify(&self, fd: &impl AsRawFd, events: i32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_raw_fd(), events, token)
    }

    /// No longer watches it. Needed before a close: the table is shared with the guard, but the file
    /// description may have other descriptors, and then epoll goes on reporting it.
    pub fn remove(&self, fd: &impl AsRawFd) {
        // Fails only for descriptors that are not watched, which is what was asked for.
        let _ = self.control(libc::EPOLL_CTL_DEL, fd.as_raw_fd(), 0, 0);
    }

    /// Waits; without a timeout for ever. Gives `(token, events)`.
    pub fn wait(&self, timeout_ns: Option<u64>, into: &mut Vec<(u64, u32)>) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 128];
        let count = self.wait_exactly(timeout_ns, &mut events).unwrap_or_else(|| {
            let ms = timeout_ns.map(|ns| ns.div_ceil(1_000_000));
            let timeout = ms.map_or(-1, |ms| i32::try_from(ms).unwrap_or(i32::MAX));
            // SAFETY: the buffer has 128 places.
            unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), 128, timeout) }
        });
        into.clear();
        for event in events.iter().take(usize::try_from(count).unwrap_or(0)) {
            into.push((event.u64, event.events));
        }
    }
}

impl Epoll {
    /// By epoll_pwait2, whose clock is finer than a millisecond. `None`: this kernel (before 5.11) does not have it.
    fn wait_exactly(&self, timeout_ns: Option<u64>, events: &mut [libc::epoll_event; 128]) -> Option<i32> {
        let timeout = timeout_ns.map(|ns| [ns / 1_000_000_000, ns % 1_000_000_000]);
        let timeout = timeout.as_ref().map_or(std::ptr::null(), |time| time.as_ptr());
        // SAFETY: the buffer has 128 places; the time is two words of 64 bits, as this call has it everywhere.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                128,
                timeout,
                0usize,
                0usize,
            )
        };
        if count < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
            return None;
        }
        Some(count as i32)
    }
}

/// Moves bytes between a pipe and something else without touching them. `offset` is where in a file.
pub fn splice(
    from: &impl AsRawFd,
    to: &impl AsRawFd,
    offset: Option<u64>,
    length: usize,
) -> io::Result<usize> {
    let mut place = offset.unwrap_or(0) as i64;
    let place = if offset.is_some() {
        &raw mut place
    } else {
        std::ptr::null_mut()
    };
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: `place` is null or valid for the call.
    check_size(unsafe {
        libc::splice(
            from.as_raw_fd(),
            std::ptr::null_mut(),
            to.as_raw_fd(),
            place,
            length,
            flags,
        )
    })
}

/// Puts a copy of `fd` at `slot`, close-on-exec.
pub fn dup_to(fd: &impl AsRawFd, slot: i32) -> io::Result<()> {
    // SAFETY: descriptors only.
    check(unsafe { libc::dup3(fd.as_raw_fd(), slot, libc::O_CLOEXEC) }).map(drop)
}

/// A pipe, both ends close-on-exec; the read end does not block.
pub fn pipe_to_us() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: descriptors and flags only. A fresh pipe has no other flags that could be lost.
    check(unsafe { libc::fcntl(read.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    Ok((read, write))
}

/// Does not block from now on.
pub fn set_nonblocking(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: descriptors and flags only.
    unsafe {
        let flags = check(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))?;
        check(libc::fcntl(
            fd.as_raw_fd(),
            libc::F_SETFL,
            flags | libc::O_NONBLOCK,
        ))
        .map(drop)
    }
}

/// An ended child as the kernel describes it.
pub struct Ended {
    pub pid: i32,
    pub status: gaffer_shim::journal::Status,
    pub usage: gaffer_shim::journal::Usage,
}

/// Which children [`peek`] and [`reap`] mean.
#[derive(Clone, Copy)]
pub enum Whom<'a> {
    Pidfd(BorrowedFd<'a>),
    Pid(i32),
    Any,
}

fn wait(whom: Whom<'_>, flags: i32) -> io::Result<Option<Ended>> {
    let (kind, id) = match whom {
        Whom::Pidfd(fd) => (libc::P_PIDFD, fd.as_raw_fd()),
        Whom::Pid(pid) => (libc::P_PID, pid),
        Whom::Any => (libc::P_ALL, 0),
    };
    // SAFETY: plain data, all zeros is a value.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { std::mem::zeroed() };
    // SAFETY: both structures outlive the call. libc's waitid has no place for the usage.
    let result = unsafe {
        libc::syscall(
            libc::SYS_waitid,
            kind,
            id,
            &raw mut info,
            libc::WEXITED | flags,
            &raw mut usage,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: waitid filled in the SIGCHLD members, or left zeros.
    let (pid, value) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let status = match info.si_code {
        libc::CLD_EXITED => gaffer_shim::journal::Status::Code(value),
        libc::CLD_DUMPED => gaffer_shim::journal::Status::Signal(value, true),
        libc::CLD_KILLED => gaffer_shim::journal::Status::Signal(value, false),
        _ => gaffer_shim::journal::Status::Unknown,
    };
    let us = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    let usage = gaffer_shim::journal::Usage {
        utime_us: us(usage.ru_utime),
        stime_us: us(usage.ru_stime),
        maxrss_kb: usage.ru_maxrss as u64,
        minflt: usage.ru_minflt as u64,
        majflt: usage.ru_majflt as u64,
        inblock: usage.ru_inblock as u64,
        oublock: usage.ru_oublock as u64,
        nvcsw: usage.ru_nvcsw as u64,
        nivcsw: usage.ru_nivcsw as u64,
    };
    Ok(Some(Ended { pid, status, usage }))
}

/// Looks at an ended child and leaves it a zombie: its status is not lost if we die now. Does not wait.
pub fn peek(whom: Whom<'_>) -> io::Result<Option<Ended>> {
    wait(whom, libc::WNOWAIT | libc::WNOHANG)
}

/// Reaps an ended child, also one before its exec. Does not wait.
pub fn reap(whom: Whom<'_>) -> io::Result<Option<Ended>> {
    wait(whom, libc::WNOHANG | WALL)
}

/// Reaps a child, waits for its end.
pub fn reap_wait(whom: Whom<'_>) -> io::Result<Option<Ended>> {
    wait(whom, WALL)
}

/// Sends a signal through a pidfd. A process that has ended is an `ESRCH`.
pub fn signal(pidfd: &impl AsRawFd, signal: i32) -> io::Result<()> {
    send(pidfd, signal, 0)
}

/// Sends a signal to the process group that the process leads. `EINVAL` before Linux 6.9.
pub fn signal_group(pidfd: &impl AsRawFd, signal: i32) -> io::Result<()> {
    const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 4;
    send(pidfd, signal, PIDFD_SIGNAL_PROCESS_GROUP)
}

fn send(pidfd: &impl AsRawFd, signal: i32, flags: u32) -> io::Result<()> {
    let number = libc::SYS_pidfd_send_signal;
    // SAFETY: a null siginfo means "as kill would".
    let result = unsafe { libc::syscall(number, pidfd.as_raw_fd(), signal, 0usize, flags) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
