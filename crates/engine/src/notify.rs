//! Notify sockets: where programs say `READY=1` and `WATCHDOG=1`.
//!
//! Programs of our own user share one socket in the state directory, which nobody else can enter. A program with a `user` of its
//! own gets a socket that belongs to that user, in a directory that all can pass through and nobody can list. Who
//! speaks is asked of the kernel: a note counts only if its sender belongs to a live run of a job that runs as the user whose socket it
//! came by. Paths are the same for every daemon of a state directory: programs that outlive one go on with the next.

use crate::owner::lock;
use crate::state::State;
use gaffer_core::job::{Job, Launch};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use tokio::task::AbortHandle;

/// What a program said, and who it was.
pub(crate) struct Note {
    pub pid: u32,
    pub text: String,
    /// Whose socket it came by; none: our own user's.
    pub user: Option<u32>,
}

/// The sockets.
#[derive(Default)]
pub(crate) struct Notify {
    state: Weak<Mutex<State>>,
    own: Option<PathBuf>,
    /// Directory of the sockets of others; none: we cannot be anybody else.
    dir: Option<PathBuf>,
    others: BTreeMap<u32, AbortHandle>,
}

impl Drop for Notify {
    fn drop(&mut self) {
        for task in self.others.values() {
            task.abort();
        }
    }
}

/// The user of a launch, if it is not ours.
pub(crate) fn foreign(launch: &Launch) -> Option<u32> {
    let uid = launch.user.as_ref()?.uid;
    (uid != rustix::process::geteuid().as_raw()).then_some(uid)
}

/// The same of a job.
pub(crate) fn foreign_user(spec: &Job) -> Option<u32> {
    foreign(&spec.launch)
}

impl Notify {
    /// What a program of this user is told.
    pub fn path(&self, user: Option<u32>) -> Result<String, String> {
        let path = match (user, &self.dir) {
            (None, _) => self
                .own
                .clone()
                .ok_or("there is no notify socket: its path is too long for a socket")?,
            (Some(uid), Some(dir)) => dir.join(uid.to_string()),
            (Some(uid), None) => return Err(format!("there is no notify socket for uid {uid}")),
        };
        Ok(path.to_string_lossy().into_owned())
    }

    /// Is there a socket of this other user?
    pub fn is_open(&self, uid: u32) -> bool {
        self.others.contains_key(&uid)
    }

    /// Makes the socket of another user, once.
    pub fn open_for(&mut self, uid: u32) -> io::Result<()> {
        if self.others.contains_key(&uid) {
            return Ok(());
        }
        let Some(dir) = &self.dir else {
            return Err(io::ErrorKind::PermissionDenied.into());
        };
        make_passage(dir)?;
        let path = dir.join(uid.to_string());
        let socket = bind(&path, 0o600)?;
        lchown(&path, Some(uid), None)?;
        let task = tokio::spawn(listen(
            crate::ready::readable(socket)?,
            self.state.clone(),
            Some(uid),
        ));
        self.others.insert(uid, task.abort_handle());
        Ok(())
    }

    /// Removes the sockets that no run will use any more: what goes on after this daemon keeps its own.
    pub fn tidy(&mut self, needed: &BTreeSet<u32>) {
        let Some(dir) = &self.dir else { return };
        for uid in self.others.keys().filter(|uid| !needed.contains(uid)) {
            let _gone = fs::remove_file(dir.join(uid.to_string()));
        }
        // Busy if one is needed, absent if none ever was.
        let _left = fs::remove_dir(dir);
    }
}

/// Opens the socket of our own user, and those of others that an earlier daemon made: programs may still use them.
/// Without one of our own (the path is too long) jobs that need it say so.
pub(crate) fn open(state: &Arc<Mutex<State>>, state_dir: &Path) -> io::Result<()> {
    let path = state_dir.join("notify");
    let weak = Arc::downgrade(state);
    let mut state = lock(state);
    let node_id = state.node_id.clone();
    let notify = &mut state.watches.notify;
    notify.state = weak.clone();
    if SocketAddrUnix::new(&path).is_ok() {
        // We hold the lock of the directory: whatever lies there is from an earlier daemon. Who may come here is
        // decided by the directory.
        let socket = bind(&path, 0o666)?;
        tokio::spawn(listen(crate::ready::readable(socket)?, weak, None));
        notify.own = Some(path);
    }
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let dir = Path::new("/run").join(format!("gaffer-notify-{node_id}"));
    let before = fs::read_dir(&dir).into_iter().flatten().flatten();
    let uids: Vec<u32> = before
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    notify.dir = Some(dir);
    for uid in uids {
        if let Err(error) = notify.open_for(uid) {
            tracing::warn!(uid, %error, "notify.lost");
        }
    }
    Ok(())
}

/// A directory that others pass through; it must be ours.
fn make_passage(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o711).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let there = fs::symlink_metadata(dir)?;
    if !there.is_dir() || there.uid() != rustix::process::geteuid().as_raw() {
        let text = format!("{} is not a directory of ours", dir.display());
        return Err(io::Error::other(text));
    }
    // The umask may have taken away what others need.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o711))
}

fn bind(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::sockopt::set_socket_passcred(&socket, true)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(socket)
}

/// Takes notes for as long as the engine lives.
async fn listen(socket: tokio::io::unix::AsyncFd<OwnedFd>, state: Weak<Mutex<State>>, user: Option<u32>) {
    while let Ok(mut ready) = socket.readable().await {
        while let Some((pid, text)) = receive(socket.get_ref()) {
            let Some(state) = state.upgrade() else { return };
            if let Some(pid) = pid {
                lock(&state).noted(&Note { pid, text, user });
            }
        }
        ready.clear_ready();
    }
}

/// One datagram and who sent it, as the kernel says. Empty and oversize ones say nothing.
fn receive(socket: &OwnedFd) -> Option<(Option<u32>, String)> {
    let mut buffer = [0u8; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(16))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, flags).ok()?;
    let pid = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(credentials) => {
            u32::try_from(credentials.pid.as_raw_nonzero().get()).ok()
        }
        // Descriptors that were sent along are closed by being dropped.
        _ => None,
    });
    let text = buffer
        .get(..received.bytes)
        .map(String::from_utf8_lossy)
        .unwrap_or_default();
    Some((pid, text.into_owned()))
}
