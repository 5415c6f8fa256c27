//! From an inherited world to our own: descriptors, signals, session, limits, lock, socket; then the split
//! into guard and shim.

use crate::child::RESERVED;
use crate::conn::Conn;
use crate::control::{Control, IDLE_MS, Parts};
use crate::disk::{Desk, Disk};
use crate::guard;
use crate::log::Journal;
use crate::mailbox::Mailbox;
use crate::plan::{self, Kit};
use crate::share::Share;
use crate::spawner::{SPAWNERS, SpawnQueue, Spawner};
use crate::sys::{self, CloneArgs};
use gaffer_shim::limit::{self, SHIM_MIN};
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ffi::OsString;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the shim does not run.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Wrong words.
    #[error("usage: gaffer-shim --dir DIR [--fd N] [--idle-ms MS] [--segment-bytes BYTES]")]
    Usage,
    /// Another shim lives in this directory.
    #[error("another shim holds the lock")]
    Locked,
    /// The limit of descriptors leaves no room for runs.
    #[error(
        "the hard limit of open files is {0}, which is too low to supervise anything: a shim needs {SHIM_MIN} and three or more \
         for each run; raise LimitNOFILE= of the unit, or ulimit -Hn, for gafferd"
    )]
    Descriptors(u64),
    /// The kernel said no.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for SetupError {
    fn from(error: rustix::io::Errno) -> SetupError {
        SetupError::Io(error.into())
    }
}

impl SetupError {
    /// Exit code.
    pub fn code(&self) -> u8 {
        match self {
            SetupError::Usage => 2,
            SetupError::Locked => 3,
            SetupError::Descriptors(_) | SetupError::Io(_) => 1,
        }
    }
}

struct Options {
    dir: PathBuf,
    fd: Option<i32>,
    idle_ms: u64,
    segment_bytes: Option<u64>,
}

fn options(words: impl Iterator<Item = OsString>) -> Result<Options, SetupError> {
    let (mut dir, mut fd, mut idle_ms, mut segment_bytes) = (None, None, IDLE_MS, None);
    let mut words = words;
    while let Some(word) = words.next() {
        let value = words.next().ok_or(SetupError::Usage)?;
        let number = value.to_str().and_then(|text| text.parse::<u64>().ok());
        match word.to_str() {
            Some("--dir") => dir = Some(PathBuf::from(value)),
            Some("--fd") => fd = Some(number.ok_or(SetupError::Usage)? as i32),
            Some("--idle-ms") => idle_ms = number.ok_or(SetupError::Usage)?,
            Some("--segment-bytes") => segment_bytes = Some(number.ok_or(SetupError::Usage)?),
            _ => return Err(SetupError::Usage),
        }
    }
    let dir = dir.ok_or(SetupError::Usage)?;
    Ok(Options {
        dir,
        fd,
        idle_ms,
        segment_bytes,
    })
}

/// Everything both processes need.
struct World {
    dir: PathBuf,
    /// Held by both for life, through the shared table.
    _lock: OwnedFd,
    listener: UnixListener,
    null: OwnedFd,
    nofile: [u64; 2],
    nofile_now: u64,
    epoch: u32,
    first: Option<UnixStream>,
    share: &'static Share,
}

/// Runs a shim until it leaves. In the guard: until nothing is left to guard.
pub fn start(words: impl Iterator<Item = OsString>) -> Result<(), SetupError> {
    let options = options(words)?;
    let begun = begin(&options);
    if let Err(error) = &begun
        && !matches!(error, SetupError::Locked)
    {
        // For the daemon that started us; what cannot be written there it has to guess.
        let _ = std::fs::write(options.dir.join(gaffer_shim::client::REFUSAL), error.to_string());
    }
    begun
}

fn begin(options: &Options) -> Result<(), SetupError> {
    small_heap();
    std::panic::set_hook(Box::new(|_| std::process::abort()));
    close_junk(options.fd)?;
    own_signals()?;
    let dir = std::fs::canonicalize(&options.dir)?;
    let nofile = raise_nofile()?;
    let null = high(&rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?)?;
    // SAFETY: the daemon gave us this descriptor; nobody else here knows its number.
    let first = options
        .fd
        .map(|fd| high(&unsafe { OwnedFd::from_raw_fd(fd) }))
        .transpose()?;
    plan::fill_reserve(&null)?;
    let lock = take_lock(&dir)?;
    detach_from_the_world(&null)?;
    let listener = listen(&dir)?;
    let share = Share::map()?;
    share.listener_opened(listener.as_raw_fd());
    let world = World {
        epoch: read_epoch(&dir)?,
        dir,
        _lock: lock,
        listener,
        null,
        nofile: [nofile.0, nofile.1],
        nofile_now: nofile.1,
        first: first.map(UnixStream::from),
        share,
    };
    split(world, options)
}

/// One heap for all threads: what one allocates another frees, and what is free is given back.
fn small_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: numbers only, before there are threads.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 10);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 << 10);
    }
}

/// Whatever the daemon was started with open is not ours.
fn close_junk(keep: Option<i32>) -> io::Result<()> {
    let close = |from: i32, to: u32| {
        // SAFETY: nothing in this process uses these descriptors.
        sys::check(unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) } as i32)
    };
    match keep {
        Some(fd) if fd > 3 => {
            close(3, fd as u32 - 1)?;
            close(fd + 1, u32::MAX)?;
        }
        Some(fd) => {
            close(fd + 1, u32::MAX)?;
        }
        None => {
            close(3, u32::MAX)?;
        }
    }
    Ok(())
}

/// All dispositions default (children inherit what is ignored), all signals blocked in every thread:
/// TERM and the like do nothing, a shim leaves when it is told to or idle.
fn own_signals() -> io::Result<()> {
    // SAFETY: valid signal numbers and structures; no handler is installed.
    unsafe {
        // The raw call, because the C library keeps 32 and 33 to itself, and both can be inherited ignored.
        // Four words of zeros are the kernel's way to say default.
        let default = [0u64; 4];
        for signal in 1..=64 {
            // KILL and STOP cannot be set, which is fine.
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0usize, 8usize);
        }
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        sys::check(libc::sigprocmask(
            libc::SIG_SETMASK,
            &raw const all,
            std::ptr::null_mut(),
        ))?;
    }
    Ok(())
}

/// `(soft as it was, hard)`; the soft one is the hard one from here.
fn raise_nofile() -> Result<(u64, u64), SetupError> {
    let (soft, hard) = limit::now()?;
    if hard < SHIM_MIN {
        return Err(SetupError::Descriptors(hard));
    }
    limit::raise()?;
    Ok((soft, hard))
}

/// A copy above the reserve.
fn high(fd: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: descriptors only; the result is fresh.
    unsafe {
        let fd = sys::check(libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, RESERVED))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn take_lock(dir: &Path) -> Result<OwnedFd, SetupError> {
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CREATE | rustix::fs::OFlags::CLOEXEC;
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let lock = rustix::fs::open(dir.join("lock"), flags, mode)?;
    if gaffer_shim::client::take_lock(&lock)? {
        Ok(lock)
    } else {
        Err(SetupError::Locked)
    }
}

/// Own session, no terminal, nothing mounted under our feet, nobody looks into our memory.
fn detach_from_the_world(null: &OwnedFd) -> Result<(), SetupError> {
    for fd in 0..3 {
        // SAFETY: descriptors only. Unlike those of the reserve these may stay open across exec.
        sys::check(unsafe { libc::dup2(null.as_raw_fd(), fd) })?;
    }
    // Fails only for a group leader, which a daemon's child is not; then there is a session already.
    let _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    std::env::set_current_dir("/")?;
    // Not allowed without privilege: then we are as likely a victim as the runs.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-900");
    // SAFETY: numbers only.
    unsafe {
        sys::check(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))?;
        sys::check(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0))?;
    }
    Ok(())
}

fn own_oom_score() -> io::Result<i32> {
    let text = std::fs::read_to_string("/proc/self/oom_score_adj")?;
    text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Binds through the directory's descriptor: paths end at 108 bytes.
fn listen(dir: &Path) -> Result<UnixListener, SetupError> {
    let handle = std::fs::File::open(dir)?;
    let path = format!("/proc/self/fd/{}/sock", handle.as_raw_fd());
    // A dead shim's. We hold the lock, so nobody listens there.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    Ok(UnixListener::bind(path)?)
}

/// The highest epoch ever accepted here.
fn read_epoch(dir: &Path) -> io::Result<u32> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = dir.join("epoch");
    match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            use std::io::Write;
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            file.write_all(b"0000000000\n")?;
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

/// Who the shim proper is, for daemons that find this directory: a socket cannot tell whether it lives.
fn note_shim(dir: &Path, pid: u32) {
    let ticks = gaffer_shim::identity::start_ticks(pid).unwrap_or(0);
    let inode = gaffer_shim::client::pidfd(pid).map_or(0, gaffer_shim::identity::pidfd_inode);
    // Written aside and renamed: a reader sees all of it or nothing. Without it a daemon asks by `Hello` alone.
    let (aside, path) = (dir.join("shim.new"), dir.join("shim"));
    if std::fs::write(&aside, format!("{pid} {ticks} {inode}\n")).is_ok() {
        let _ = std::fs::rename(aside, path);
    }
}

/// clone3 with a shared descriptor table and nothing else shared: one call, two processes.
fn split(world: World, options: &Options) -> Result<(), SetupError> {
    let mut pidfd: i32 = -1;
    let args = CloneArgs {
        flags: sys::flag::FILES | sys::flag::PIDFD,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    let guard_pid = std::process::id();
    // SAFETY: one thread so far, and without CLONE_VM this is a fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match pid {
        -1 => Err(io::Error::last_os_error().into()),
        0 => shim(world, options, guard_pid),
        _ => {
            // SAFETY: the kernel opened it for us.
            let shim = unsafe { OwnedFd::from_raw_fd(pidfd) };
            note_shim(&world.dir, pid as u32);
            guard::watch(shim, &world.dir, world.share);
            // The shim has closed some of these numbers already: the end of the process closes the rest.
            std::mem::forget(world);
            Ok(())
        }
    }
}

/// Orphans come to us, and nobody looks into our memory: both per process, not inherited or set for good by the fork.
fn be_subreaper() -> io::Result<()> {
    // SAFETY: numbers only.
    unsafe {
        sys::check(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))?;
        sys::check(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0))?;
    }
    Ok(())
}

fn shim(world: World, options: &Options, guard_pid: u32) -> Result<(), SetupError> {
    be_subreaper()?;
    let journal = Arc::new(Journal::open(&world.dir, options.segment_bytes)?);
    let to_control = Arc::new(Mailbox::new()?);
    let to_disk = Arc::new(Mailbox::new()?);
    let queue = Arc::new(SpawnQueue::default());
    crate::stop::read();
    let kit = Arc::new(Kit {
        null: world.null,
        shim_pid: std::process::id() as i32,
        nofile: world.nofile,
        oom_score: own_oom_score()?,
    });
    let disk = Disk::new(
        world.dir.clone(),
        journal.clone(),
        to_disk.clone(),
        to_control.clone(),
        queue.clone(),
        world.share,
    )?;
    let thread = |name: &str| {
        std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(256 << 10)
    };
    let pipes = disk.epoll.clone();
    let desk = Arc::new(Desk::new(disk));
    let disk_desk = desk.clone();
    thread("disk").spawn(move || disk_desk.run())?;
    let (control_queue, queue) = (queue.clone(), queue);
    let (start_journal, start_disk, start_control) = (journal.clone(), to_disk.clone(), to_control.clone());
    let more_spawners = move |number: i32| {
        let spawner = Spawner {
            number,
            journal: start_journal.clone(),
            queue: queue.clone(),
            disk: start_disk.clone(),
            desk: desk.clone(),
            control: start_control.clone(),
            kit: kit.clone(),
            pipes: pipes.clone(),
            share: world.share,
        };
        thread("spawner").spawn(move || spawner.run()).is_ok()
    };
    if !(0..SPAWNERS).all(&more_spawners) {
        return Err(io::Error::from(io::ErrorKind::OutOfMemory).into());
    }
    let mut control = Control::new(Parts {
        inbox: to_control,
        disk: to_disk,
        queue: control_queue,
        share: world.share,
        more_spawners: Box::new(more_spawners),
        nofile: world.nofile_now,
        idle_ms: options.idle_ms,
        guard_pid,
        listener: world.listener,
        sigchld: sigchld()?,
        epoch: world.epoch,
        position: journal.position(),
    })?;
    if let Some(first) = world.first {
        control.adopt(Conn::new(first)?);
    }
    control.run();
    Ok(())
}

/// Readable when a child has ended. The shim needs it for orphans only, runs have pidfds.
pub fn sigchld() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised before use; the result is a fresh descriptor.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        let fd = sys::check(libc::signalfd(
            -1,
            &raw const set,
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        ))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}
