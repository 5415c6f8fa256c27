//! The private daemon of `gaffer start`, `dev` and `run -- CMD`: it lives as long as the command does.
//!
//! It has its own state directory (0700) and its own socket, listens nowhere else, and holds one end of a pipe, the
//! leash. When this program ends, in whatever way, the leash breaks and the daemon stops everything it started. When the
//! daemon was killed as well, its shims stop their runs after a while, and whoever starts a private daemon next takes
//! charge of what is left and ends it first: a directory is removed only when nobody lives in it any more.

use crate::failure::Failure;
use crate::out::Out;
use gaffer_api::{Client, Endpoint};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// A daemon that does not serve by then is not going to.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// A runner whose task is over has ended by then.
const LET_GO_WITHIN: Duration = Duration::from_secs(10);
/// Asked so often whether it serves.
const READY_EVERY: Duration = Duration::from_millis(10);
/// What an abandoned daemon had started has ended by then: the usual `stop.timeout` and a little.
const CLEARED_WITHIN: Duration = Duration::from_secs(40);
/// Beginning of the names of private directories.
const PREFIX: &str = "gaffer-private-";

/// A private daemon.
pub struct Private {
    /// Talks to it.
    pub client: Client,
    place: Place,
    child: Child,
    leash: Option<OwnedFd>,
}

/// Where a private daemon lives, and what it is told beside that.
#[derive(Clone, Debug)]
pub struct Place {
    /// Control socket.
    pub socket: PathBuf,
    /// Directory of its state.
    pub state: PathBuf,
    /// File of its log.
    pub log: PathBuf,
    /// More words.
    pub words: Vec<OsString>,
}

impl Place {
    fn in_dir(dir: &Path, words: Vec<OsString>) -> Place {
        Place {
            socket: dir.join("sock"),
            state: dir.join("state"),
            log: dir.join("daemon.log"),
            words,
        }
    }

    fn dir(&self) -> &Path {
        self.state.parent().unwrap_or(&self.state)
    }
}

impl Private {
    /// Starts one and waits until it serves.
    pub async fn start(out: &Out) -> Result<Private, Failure> {
        Private::start_with(out, Vec::new()).await
    }

    /// The same, told more.
    pub async fn start_with(out: &Out, words: Vec<OsString>) -> Result<Private, Failure> {
        let program = program()?;
        let base = base();
        for left in abandoned(&base) {
            clear(out, &program, &left).await;
        }
        let dir = directory(&base)?;
        match Private::start_at(Place::in_dir(&dir, words)).await {
            Ok(private) => Ok(private),
            Err(failure) => {
                remove(&dir);
                Err(failure)
            }
        }
    }

    /// Starts one in a place that is there already, and waits until it serves.
    pub async fn start_at(place: Place) -> Result<Private, Failure> {
        let failed = |what: &str, error: &dyn std::fmt::Display| Failure::failed(format!("{what}: {error}"));
        let program = program()?;
        let log_file = File::options()
            .create(true)
            .append(true)
            .open(&place.log)
            .map_err(|error| failed(&place.log.display().to_string(), &error))?;
        let (read, write) = leash().map_err(|error| failed("no pipe", &error))?;
        let child = command(&program, &place, &read)
            .stderr(log_file)
            .spawn()
            .map_err(|error| failed(&format!("{} cannot be run", program.display()), &error))?;
        drop(read);
        let client = Client::new(Endpoint::Unix(place.socket.clone()), None);
        let mut private = Private {
            client,
            place,
            child,
            leash: Some(write),
        };
        private.ready().await?;
        Ok(private)
    }

    /// Its directory: what is put there goes with it.
    pub fn dir(&self) -> &Path {
        self.place.dir()
    }

    /// Kills it, and nothing that it has started.
    pub async fn kill(&mut self) {
        // It may have ended by itself; then there is nothing left to kill.
        let _ended = self.child.kill().await;
    }

    /// Starts it again on what the one before has left.
    pub async fn start_again(&mut self) -> Result<(), Failure> {
        let failed =
            |error: std::io::Error| Failure::failed(format!("the daemon cannot be started again: {error}"));
        let log_file = File::options()
            .append(true)
            .open(&self.place.log)
            .map_err(failed)?;
        let (read, write) = leash().map_err(|error| failed(error.into()))?;
        self.child = command(&program()?, &self.place, &read)
            .stderr(log_file)
            .spawn()
            .map_err(failed)?;
        self.leash = Some(write);
        self.ready().await
    }

    async fn ready(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let ended = self.child.try_wait().ok().flatten();
            if ended.is_none() && self.client.node().await.is_ok() {
                return Ok(());
            }
            if ended.is_some() || Instant::now() > deadline {
                let said = std::fs::read_to_string(&self.place.log).unwrap_or_default();
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
    fn release(&mut self) {
        self.leash = None;
    }

    /// Lets go of it and waits until it has ended; what it has written stays.
    pub async fn let_go(mut self) {
        self.release();
        // One that does not end goes on by itself: nothing depends on it here.
        let _late = tokio::time::timeout(LET_GO_WITHIN, self.ended()).await;
    }

    /// Lets go of it, waits until it has stopped everything, and removes its directory. One that was killed is succeeded
    /// by another for long enough to end what it has left.
    pub async fn finish(mut self, out: &Out) {
        self.release();
        match self.ended().await {
            Some(_) => remove(self.dir()),
            None => match program() {
                Ok(program) => clear(out, &program, self.dir()).await,
                Err(_) => remove(self.dir()),
            },
        }
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

pub fn base() -> PathBuf {
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

/// Both ends of a leash. Only the daemon inherits the end for reading; nothing else is started while it may be inherited.
fn leash() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setfd(&read, FdFlags::empty())?;
    Ok((read, write))
}

/// The private daemon of a directory, at the end of a leash.
fn command(program: &Path, place: &Place, leash: &OwnedFd) -> Command {
    let mut command = Command::new(program);
    command
        .arg("--socket")
        .arg(&place.socket)
        .arg("--state-dir")
        .arg(&place.state)
        .args(&place.words);
    command
        .args(["--bind", "none", "--leash-fd"])
        .arg(leash.as_raw_fd().to_string());
    // A group of its own: Ctrl-C of the terminal is for us alone.
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    for name in [
        "GAFFER_SOCKET",
        "GAFFER_STATE_DIR",
        "GAFFER_URL",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
    ] {
        command.env_remove(name);
    }
    command
}

/// Directories of this user whose program was killed, and whose daemon is gone too.
fn abandoned(base: &Path) -> Vec<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
    let left = entries.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        let ours = std::fs::symlink_metadata(entry.path())
            .is_ok_and(|metadata| metadata.is_dir() && std::os::unix::fs::MetadataExt::uid(&metadata) == uid);
        ours && pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
    });
    left.map(|entry| entry.path())
        .filter(|dir| !has_daemon(dir))
        .collect()
}

/// A daemon closes its socket first and lets go of its state directory last: as long as it stops what it started, only
/// its lock tells that it is there.
fn has_daemon(dir: &Path) -> bool {
    let Ok(lock) = File::open(dir.join("state/lock")) else {
        return UnixStream::connect(dir.join("sock")).is_ok();
    };
    // Shared and only for a moment: it gets in nobody's way but a daemon's that starts just now, and none does here.
    flock(&lock, FlockOperation::NonBlockingLockShared).is_err()
}

/// Does a shim or its guard live there? Each holds a record lock on its directory for as long as it lives.
fn has_shim(dir: &Path) -> bool {
    let shims = std::fs::read_dir(dir.join("state/shims")).into_iter().flatten();
    shims.flatten().any(|shim| {
        File::open(shim.path().join("lock"))
            .is_ok_and(|lock| fcntl_lock(&lock, FlockOperation::NonBlockingLockShared).is_err())
    })
}

/// Ends what lives in an abandoned directory and removes it. A daemon that starts there on a broken leash takes charge
/// of every shim, stops everything, and ends.
async fn clear(out: &Out, program: &Path, dir: &Path) {
    if dir.join("state/shims").is_dir() {
        if has_shim(dir) {
            out.talk("stopping what a killed gaffer left running");
        }
        let Ok((read, write)) = leash() else { return };
        let started = command(program, &Place::in_dir(dir, Vec::new()), &read)
            .stderr(Stdio::null())
            .spawn();
        drop((read, write));
        let Ok(mut daemon) = started else { return };
        let ended = tokio::time::timeout(CLEARED_WITHIN, daemon.wait()).await;
        if !matches!(ended, Ok(Ok(status)) if status.success()) {
            // It goes on without us, or the shims stop by themselves: the next start looks again.
            return;
        }
    }
    remove(dir);
}

/// Removes a directory, unless somebody lives there: without it nobody would ever find them again.
fn remove(dir: &Path) {
    if !has_daemon(dir) && !has_shim(dir) {
        let _ = std::fs::remove_dir_all(dir);
    }
}
