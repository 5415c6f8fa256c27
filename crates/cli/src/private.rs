//! The private daemon of `gaffer start`, `dev` and `run -- CMD`: it lives as long as the command does.
//!
//! It has its own state directory (0700) and its own socket, listens nowhere else, and holds one end of a pipe, the
//! leash. When this program ends, in whatever way, the leash breaks and the daemon stops everything it started.

use crate::failure::Failure;
use gaffer_api::{Client, Endpoint};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// A daemon that does not serve by then is not going to.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Asked so often whether it serves.
const READY_EVERY: Duration = Duration::from_millis(10);
/// Beginning of the names of private directories.
const PREFIX: &str = "gaffer-private-";

/// A private daemon.
pub struct Private {
    /// Talks to it.
    pub client: Client,
    dir: PathBuf,
    child: Child,
    leash: Option<OwnedFd>,
}

impl Private {
    /// Starts one and waits until it serves.
    pub async fn start() -> Result<Private, Failure> {
        let program = program()?;
        let base = base();
        sweep(&base);
        let dir = directory(&base)?;
        match Private::start_in(&program, &dir).await {
            Ok(private) => Ok(private),
            Err(failure) => {
                let _ = std::fs::remove_dir_all(&dir);
                Err(failure)
            }
        }
    }

    async fn start_in(program: &Path, dir: &Path) -> Result<Private, Failure> {
        let failed = |what: &str, error: &dyn std::fmt::Display| Failure::failed(format!("{what}: {error}"));
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed("no pipe", &error))?;
        // Only the daemon inherits the read end; nothing else is started while it may be inherited.
        fcntl_setfd(&read, FdFlags::empty()).map_err(|error| failed("no pipe", &error))?;
        let socket = dir.join("sock");
        let log = dir.join("daemon.log");
        let log_file = File::create(&log).map_err(|error| failed(&log.display().to_string(), &error))?;
        let mut command = Command::new(program);
        command
            .arg("--socket")
            .arg(&socket)
            .arg("--state-dir")
            .arg(dir.join("state"));
        command
            .args(["--bind", "none", "--leash-fd"])
            .arg(read.as_raw_fd().to_string());
        // A group of its own: Ctrl-C of the terminal is for us alone.
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file);
        for name in [
            "GAFFER_SOCKET",
            "GAFFER_STATE_DIR",
            "GAFFER_URL",
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
        ] {
            command.env_remove(name);
        }
        let child = command
            .spawn()
            .map_err(|error| failed(&format!("{} cannot be run", program.display()), &error))?;
        drop(read);
        let client = Client::new(Endpoint::Unix(socket), None);
        let mut private = Private {
            client,
            dir: dir.to_owned(),
            child,
            leash: Some(write),
        };
        private.ready(&log).await?;
        Ok(private)
    }

    async fn ready(&mut self, log: &Path) -> Result<(), Failure> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let ended = self.child.try_wait().ok().flatten();
            if ended.is_none() && self.client.node().await.is_ok() {
                return Ok(());
            }
            if ended.is_some() || Instant::now() > deadline {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                let what = if ended.is_some() {
                    "the private daemon ended at once"
                } else {
                    "the private daemon does not answer"
                };
                let mut failure = Failure::failed(what);
                failure.hints.extend(
                    said.lines()
                        .rev()
                        .take(5)
                        .map(str::to_owned)
                        .collect::<Vec<_>>()
                        .into_iter()
                        .rev(),
                );
                return Err(failure);
            }
            tokio::time::sleep(READY_EVERY).await;
        }
    }

    /// Waits until it has ended: its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        self.child.wait().await.ok().and_then(|status| status.code())
    }

    /// Lets go of the leash: it stops everything and ends.
    pub fn release(&mut self) {
        self.leash = None;
    }

    /// Removes its directory, once it has ended.
    pub fn clean(&self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// `gafferd`: `$GAFFER_GAFFERD`, else beside this program, else in `PATH`.
pub fn program() -> Result<PathBuf, Failure> {
    if let Some(named) = std::env::var_os("GAFFER_GAFFERD").filter(|named| !named.is_empty()) {
        return Ok(PathBuf::from(named));
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join("gafferd")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|dir| dir.join("gafferd"));
    let found = beside.into_iter().chain(in_path).find(|path| path.is_file());
    found.ok_or_else(|| {
        Failure::failed("there is no `gafferd` beside this program and none in PATH")
            .hint("name it:  GAFFER_GAFFERD=/path/to/gafferd")
    })
}

fn base() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    runtime
        .filter(|dir| dir.is_absolute() && dir.is_dir())
        .unwrap_or_else(|| PathBuf::from("/tmp"))
}

/// A new directory that only this user can enter. One that exists already may be somebody else's trap.
fn directory(base: &Path) -> Result<PathBuf, Failure> {
    let mut tried = 0;
    loop {
        let dir = base.join(format!("{PREFIX}{}-{tried}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && tried < 100 => tried += 1,
            Err(error) => {
                return Err(Failure::failed(format!(
                    "{} cannot be made: {error}",
                    dir.display()
                )));
            }
        }
    }
}

/// Removes what killed predecessors left: directories of this user whose program is gone and whose daemon does not
/// answer any more.
fn sweep(base: &Path) {
    let uid = rustix::process::geteuid().as_raw();
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        let Some(pid) = pid else { continue };
        let ours = std::fs::symlink_metadata(entry.path())
            .is_ok_and(|metadata| metadata.is_dir() && std::os::unix::fs::MetadataExt::uid(&metadata) == uid);
        let alive = Path::new("/proc").join(pid.to_string()).exists();
        let serves = std::os::unix::net::UnixStream::connect(entry.path().join("sock")).is_ok();
        if ours && !alive && !serves {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
