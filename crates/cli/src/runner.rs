//! The daemons of a checkpoint root: the runner of one task, and the observer that leads none.
//!
//! A runner lives in `checkpoints/ID/node` of its root; the lock of that directory makes it the only one. It holds the
//! end of a leash as every private daemon does, but it takes the break for leave to end with its task: nothing that
//! happens to this program ends a step. Its socket lies beside it, or, where that path is too long for a
//! socket, in a directory of this user under a name that follows from the root and the id.

use crate::context::Context;
use crate::failure::Failure;
use crate::private::{Place, Private};
use gaffer_api::{Client, Endpoint};
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Longest path of a socket.
const SOCKET_BYTES_MAX: usize = 100;

/// Longest id of a task.
const ID_BYTES_MAX: usize = 200;

/// The root that is meant, absolute.
pub fn root(asked: Option<&Path>) -> Result<PathBuf, Failure> {
    let path = match asked {
        Some(path) => path.to_owned(),
        None => default_root()?,
    };
    // Links are resolved where it exists: one root has one name.
    std::fs::canonicalize(&path)
        .or_else(|_| std::path::absolute(&path))
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

fn default_root() -> Result<PathBuf, Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/gaffer-tasks"));
    }
    let var = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state = var("XDG_STATE_HOME").or_else(|| var("HOME").map(|home| home.join(".local/state")));
    state
        .map(|state| state.join("gaffer-tasks"))
        .ok_or_else(|| Failure::usage("neither XDG_STATE_HOME nor HOME is set: say --root DIR"))
}

/// Refuses what cannot be the name of a file before anything is made.
pub fn check_id(id: &str) -> Result<(), Failure> {
    let bad =
        id.is_empty() || id.len() > ID_BYTES_MAX || id.starts_with('.') || id.contains(['/', '\n', '\0']);
    match bad {
        false => Ok(()),
        true => Err(
            Failure::usage(format!("`{}` cannot be the id of a task", id.escape_debug()))
                .hint("1 to 200 bytes without a slash and without a dot in front"),
        ),
    }
}

fn node(root: &Path, id: &str) -> PathBuf {
    root.join("checkpoints").join(id).join("node")
}

fn private_dir(dir: &Path) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| Failure::failed(format!("{} cannot be made: {error}", dir.display())))
}

/// Socket of a task's runner.
fn socket(root: &Path, id: &str) -> PathBuf {
    let node = node(root, id);
    let beside = node.join("sock");
    if beside.as_os_str().len() <= SOCKET_BYTES_MAX {
        return beside;
    }
    let uid = rustix::process::geteuid().as_raw();
    let base = crate::private::base().join(format!("gaffer-tasks-{uid}"));
    let bytes = node.as_os_str().as_encoded_bytes();
    let hash = |seed: u64| {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        bytes.iter().fold(seed, step)
    };
    base.join(format!(
        "{:016x}{:016x}",
        hash(0xcbf2_9ce4_8422_2325),
        hash(0x9e37_79b9_7f4a_7c15)
    ))
}

/// The directory of a socket, which nobody else may have made.
fn socket_dir(socket: &Path) -> Result<(), Failure> {
    let Some(dir) = socket.parent() else { return Ok(()) };
    private_dir(dir)?;
    let uid = rustix::process::geteuid().as_raw();
    match std::fs::symlink_metadata(dir) {
        Ok(found) if found.is_dir() && found.uid() == uid => Ok(()),
        _ => Err(Failure::failed(format!(
            "{} belongs to somebody else",
            dir.display()
        ))),
    }
}

/// The runner that leads a task now.
pub fn running(root: &Path, id: &str) -> Option<Client> {
    let socket = socket(root, id);
    UnixStream::connect(&socket).ok()?;
    Some(Client::new(Endpoint::Unix(socket), None))
}

/// Kills the runner that leads a task, and waits for its end: what it leads lives on.
pub async fn kill(root: &Path, id: &str) -> Result<(), Failure> {
    use rustix::event::{PollFd, PollFlags, poll};
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Failure::failed(format!(
            "the runner of task {id} cannot be killed: {what}: {error}"
        ))
    };
    // Whoever made the socket that is there: no number of a file, which may be somebody else's by now.
    let Ok(stream) = UnixStream::connect(socket(root, id)) else {
        return Ok(());
    };
    let peer =
        rustix::net::sockopt::socket_peercred(&stream).map_err(|error| failed("its socket", &error))?;
    let Ok(runner) = rustix::process::pidfd_open(peer.pid, rustix::process::PidfdFlags::empty()) else {
        return Ok(());
    };
    let signalled = rustix::process::pidfd_send_signal(&runner, rustix::process::Signal::KILL);
    signalled.map_err(|error| failed("SIGKILL", &error))?;
    let waited = tokio::task::spawn_blocking(move || {
        let within = rustix::event::Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        poll(&mut [PollFd::new(&runner, PollFlags::IN)], Some(&within))
    });
    match waited.await {
        Ok(Ok(1..)) => Ok(()),
        _ => Err(failed("SIGKILL", &"it does not end")),
    }
}

/// Starts the runner of a task; refused if there is one.
pub async fn start(root: &Path, id: &str) -> Result<Private, Failure> {
    if let Some(client) = running(root, id) {
        return Err(second(root, id, client.node().await.ok().map(|node| node.pid)));
    }
    let node = node(root, id);
    private_dir(&node)?;
    let socket = socket(root, id);
    socket_dir(&socket)?;
    let place = Place {
        socket,
        log: node.join("daemon.log"),
        state: node,
        words: vec!["--task-root".into(), root.into(), "--task".into(), id.into()],
    };
    Private::start_at(place).await.map_err(|failure| {
        let locked = failure
            .hints
            .iter()
            .any(|hint| hint.contains("another daemon uses"));
        if locked { second(root, id, None) } else { failure }
    })
}

fn second(root: &Path, id: &str, pid: Option<u32>) -> Failure {
    let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    Failure::conflict(format!("another runner leads task {id}{pid}")).hint(format!(
        "wait for it:  gaffer task wait {id} --root {}",
        root.display()
    ))
}

/// Where the tasks of a command are looked at.
pub struct View {
    /// Talks to whoever shows them.
    pub client: Client,
    private: Option<Private>,
}

impl View {
    /// The daemon, or an observer of a root.
    pub async fn open(ctx: &Context, root: Option<&Path>) -> Result<View, Failure> {
        let Some(asked) = root else {
            return Ok(View {
                client: ctx.client.clone(),
                private: None,
            });
        };
        let root = self::root(Some(asked))?;
        if !root.is_dir() {
            return Err(Failure::not_found(format!(
                "there is no checkpoint root {}",
                root.display()
            )));
        }
        let words = vec!["--task-root".into(), root.into()];
        let private = Private::start_with(&ctx.out, words).await?;
        Ok(View {
            client: private.client.clone(),
            private: Some(private),
        })
    }

    /// Ends the observer, if there is one.
    pub async fn close(self, ctx: &Context) {
        if let Some(private) = self.private {
            private.finish(&ctx.out).await;
        }
    }
}
