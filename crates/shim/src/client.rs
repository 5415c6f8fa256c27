//! The daemon's side: start a shim, find shims again, reach them.
//!
//! A shim's directory `state/shims/<n>/` holds `lock`, `sock`, `epoch` and the journal. Sockets are reached
//! through the directory's descriptor, because their paths end at 108 bytes.

use rustix::fd::{AsRawFd, OwnedFd};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// A shim that was just started.
#[derive(Debug)]
pub struct StartedShim {
    /// First connection, inherited by the shim. Say `Hello`.
    pub stream: UnixStream,
    /// The guard: the process that was started (the shim proper is its child, named in `HelloReply`).
    /// Wait for it when it ends, or it stays a zombie.
    pub guard: std::process::Child,
}

/// A shim's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShimDir {
    /// Its number.
    pub n: u64,
    /// Where.
    pub path: PathBuf,
    /// Somebody lives there (its guard or its shim).
    pub locked: bool,
}

/// Starts a shim in `dir`, which is made (0700) if missing.
pub fn start_shim(shim_binary: &Path, dir: &Path) -> io::Result<StartedShim> {
    use std::os::unix::fs::DirBuilderExt;
    use std::os::unix::process::CommandExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = std::process::Command::new(shim_binary);
    command
        .arg("--dir")
        .arg(dir)
        .arg("--fd")
        .arg(theirs.as_raw_fd().to_string());
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null());
    command.stderr(std::process::Stdio::null()).current_dir("/");
    let fd = theirs.as_raw_fd();
    // SAFETY: fcntl and setrlimit are async-signal-safe, and the descriptor is open until `theirs` is dropped below.
    unsafe {
        command.pre_exec(move || {
            if libc::fcntl(fd, libc::F_SETFD, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            crate::limit::restore()
        });
    }
    let guard = command.spawn()?;
    drop(theirs);
    Ok(StartedShim { stream: ours, guard })
}

/// Where a shim that cannot begin its work says why: nobody reads its stderr.
pub const REFUSAL: &str = "refusal";

/// Why the shim of a directory did not begin its work, if it said so.
pub fn refusal(dir: &Path) -> Option<String> {
    std::fs::read_to_string(dir.join(REFUSAL)).ok()
}

/// All shims below `state/shims`, by number.
pub fn walk(shims: &Path) -> io::Result<Vec<ShimDir>> {
    let entries = match std::fs::read_dir(shims) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|n| n.to_str())
            .and_then(|n| n.parse().ok());
        if let Some(n) = number {
            found.push(ShimDir {
                n,
                locked: is_locked(&path)?,
                path,
            });
        }
    }
    found.sort_unstable_by_key(|shim| shim.n);
    Ok(found)
}

/// Does a shim or its guard hold the lock of this directory?
pub fn is_locked(dir: &Path) -> io::Result<bool> {
    let file = match std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(dir.join("lock"))
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    // Only asks: taking it for a moment would turn a shim away that starts right now.
    let mut lock = whole_file_lock();
    // SAFETY: the descriptor is open and `lock` is a valid flock structure.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// Takes the lock of an opened lock file for as long as the descriptor (or a copy) is open. False:
/// somebody else has it. For shims.
pub fn take_lock(file: &OwnedFd) -> io::Result<bool> {
    let lock = whole_file_lock();
    // SAFETY: the descriptor is open and `lock` is a valid flock structure.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        error => Err(error),
    }
}

fn whole_file_lock() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Does the shim proper live, by the kernel's word? Its sockets tell nothing: the guard has them too, and a
/// connection to a dead shim succeeds. `true` also when its guard has not noted it yet.
pub fn shim_alive(dir: &Path) -> bool {
    noted_shim(dir).is_none_or(|noted| {
        pidfd(noted.pid).is_ok_and(|pidfd| noted.is(&pidfd)) && !crate::identity::is_zombie(noted.pid)
    })
}

/// A pidfd of the shim proper, if its guard has noted it and it lives.
pub fn shim_process(dir: &Path) -> Option<OwnedFd> {
    let noted = noted_shim(dir)?;
    let pidfd = pidfd(noted.pid).ok()?;
    // Asked now: whoever the pidfd is of has kept the number since.
    noted.is(&pidfd).then_some(pidfd)
}

/// Who a shim is, as its guard noted it.
struct Noted {
    pid: u32,
    start_ticks: u64,
    /// 0: not noted.
    pidfd_inode: u64,
}

impl Noted {
    fn is(&self, pidfd: &OwnedFd) -> bool {
        crate::identity::is_the_same(self.pid, pidfd, self.start_ticks, self.pidfd_inode)
    }
}

fn noted_shim(dir: &Path) -> Option<Noted> {
    let note = std::fs::read_to_string(dir.join("shim")).ok()?;
    let mut words = note.split_ascii_whitespace();
    Some(Noted {
        pid: words.next()?.parse().ok()?,
        start_ticks: words.next()?.parse().ok()?,
        pidfd_inode: words.next().map_or(Some(0), |word| word.parse().ok())?,
    })
}

/// Connects to the shim of a directory.
pub fn connect(dir: &Path) -> io::Result<UnixStream> {
    let dir = std::fs::File::open(dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/sock", dir.as_raw_fd()))
}

/// A pidfd of a process; readable (`POLLIN`) once it has ended, `POLLHUP` once it is reaped.
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(
        pid,
        rustix::process::PidfdFlags::empty(),
    )?)
}
