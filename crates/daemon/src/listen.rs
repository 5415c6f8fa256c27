//! Listening: the control socket and TCP addresses, and why one cannot be had.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};

/// Bytes of a unix socket's path, its final zero included (unix(7)).
const SOCKET_PATH_MAX: usize = 108;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// TCP.
    Tcp(SocketAddr),
    /// A further unix socket.
    Unix(PathBuf),
}

/// Why listening is impossible; says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Not an address.
    #[error("`{0}` is not an address to listen at; write 127.0.0.1:5000, [::1]:5000, unix:PATH or none")]
    NotAnAddress(String),
    /// Reachable from elsewhere.
    #[error(
        "cannot listen at {address}: it is reachable from other machines, which needs {missing}; or use 127.0.0.1 or the \
         control socket (over ssh: ssh -L 5000:127.0.0.1:5000 HOST)"
    )]
    OffLoopback {
        /// Where.
        address: SocketAddr,
        /// What there is not, and how to get it.
        missing: String,
    },
    /// Somebody else is there.
    #[error(
        "cannot listen at {address}: the port is in use by another program (`ss -ltnp 'sport = :{}'` names it); \
         end that one, or choose another with --bind", address.port()
    )]
    PortInUse {
        /// Where.
        address: SocketAddr,
    },
    /// Other reasons.
    #[error("cannot listen at {address}: {source}")]
    Tcp {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Another daemon serves this socket.
    #[error("another daemon answers at {}: is it yours? `gaffer daemon status` asks it; choose another path with --socket", .0.display())]
    Answers(PathBuf),
    /// Something else is in the way.
    #[error("cannot listen at {}: {why}", path.display())]
    Unix {
        /// Where.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// Reads what `--bind` and `[gaffer] bind` say; `none` is nothing.
pub fn parse_bind(text: &str) -> Result<Option<Bind>, ListenError> {
    if text == "none" {
        return Ok(None);
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Some(Bind::Unix(PathBuf::from(path))));
    }
    let named = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    let address = match named {
        Some(port) => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
        None => text
            .parse()
            .map_err(|_| ListenError::NotAnAddress(text.to_owned()))?,
    };
    Ok(Some(Bind::Tcp(address)))
}

/// Addresses that other machines reach need TLS, and a credential with which they can be used.
pub fn check_reach(binds: &[Bind], has_tls: bool, has_credential: bool) -> Result<(), ListenError> {
    let far = binds.iter().find_map(|bind| match bind {
        Bind::Tcp(address) if !address.ip().to_canonical().is_loopback() => Some(*address),
        _ => None,
    });
    let tls = "TLS ([gaffer] tls = {cert = FILE, key = FILE}, or --certfile and --keyfile)";
    let credential = "a credential (`gaffer token create NAME --scope admin` while the daemon listens on loopback, or \
                      `gafferd --create-admin-user`)";
    let missing = match (has_tls, has_credential) {
        (true, true) => return Ok(()),
        (true, false) => credential.to_owned(),
        (false, true) => tls.to_owned(),
        (false, false) => format!("{tls} and {credential}"),
    };
    far.map_or(Ok(()), |address| {
        Err(ListenError::OffLoopback { address, missing })
    })
}

/// Listens on TCP.
pub fn tcp(address: SocketAddr, backlog: u32) -> Result<TcpListener, ListenError> {
    let listen = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        // A restarted daemon must not wait for connections of the old one to time out.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(backlog)
    };
    listen().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::PortInUse { address },
        _ => ListenError::Tcp { address, source },
    })
}

/// Ends a connection whose other side takes nothing for so long: it has stopped reading, or is gone without a word
/// (tcp(7), TCP_USER_TIMEOUT). Whatever waits to write then fails, whichever protocol it speaks.
pub fn end_unread(stream: &TcpStream, within: Duration) -> io::Result<()> {
    let millis = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
    Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, millis)?)
}

/// The control socket; its file goes with it.
#[derive(Debug)]
pub struct ControlSocket {
    /// Accepts.
    pub listener: UnixListener,
    /// Its file.
    pub file: SocketFile,
    /// Whoever the kernel lets connect may be served: `socket_mode` or `socket_owner` say so.
    pub invites: bool,
}

/// The file of a socket, removed in the end if it is still ours.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// Path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.identity);
        if ours {
            // If it stays, the next daemon finds that nobody answers and replaces it.
            let _removed = fs::remove_file(&self.path);
        }
    }
}

/// Whom a socket lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Mode of its file.
    pub mode: u32,
    /// Owner and group of its file; none: ours.
    pub owner: Option<(u32, u32)>,
}

impl Default for Access {
    fn default() -> Access {
        Access {
            mode: 0o600,
            owner: None,
        }
    }
}

impl Access {
    /// May somebody connect who is neither our user nor root?
    pub fn invites(&self) -> bool {
        self.mode & 0o077 != 0 || self.owner.is_some()
    }
}

/// Listens on a unix socket: 0600 from its first moment, in a directory that is made 0700 (0711 if the socket is for others
/// too); then as `access` says.
pub fn unix(path: &Path, access: &Access) -> Result<ControlSocket, ListenError> {
    let failed = |why: String| ListenError::Unix {
        path: path.to_owned(),
        why,
    };
    if path.as_os_str().len() >= SOCKET_PATH_MAX {
        return Err(failed(format!(
            "the path is longer than the {} bytes that a socket's may have",
            SOCKET_PATH_MAX - 1
        )));
    }
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(if access.invites() { 0o711 } else { 0o700 })
            .create(dir)
            .map_err(|error| failed(format!("{}: {error}", dir.display())))?;
    }
    clear(path)?;
    let bound = {
        // The mode must be right at creation; nothing else makes files yet, there is one thread.
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        rustix::process::umask(before);
        bound
    };
    let listener = bound.map_err(|error| failed(error.to_string()))?;
    let file = fs::symlink_metadata(path).map_err(|error| failed(error.to_string()))?;
    let identity = (file.dev(), file.ino());
    let socket = ControlSocket {
        listener,
        file: SocketFile {
            path: path.to_owned(),
            identity,
        },
        invites: access.invites(),
    };
    open_up(path, access).map_err(failed)?;
    Ok(socket)
}

/// Gives the file the owner and mode that were asked for. Owner first: nobody else is let in before.
fn open_up(path: &Path, access: &Access) -> Result<(), String> {
    if let Some((uid, gid)) = access.owner {
        std::os::unix::fs::lchown(path, Some(uid), Some(gid))
            .map_err(|error| format!("socket_owner: it cannot be given to {uid}:{gid}: {error}"))?;
    }
    if access.mode != 0o600 {
        fs::set_permissions(path, fs::Permissions::from_mode(access.mode))
            .map_err(|error| format!("socket_mode: {error}"))?;
    }
    let closed = path
        .parent()
        .and_then(|dir| fs::metadata(dir).ok())
        .is_some_and(|dir| dir.mode() & 0o011 == 0);
    if access.invites() && closed {
        let dir = path.parent().unwrap_or(path).display();
        tracing::warn!(
            reason = %format!("{dir} lets nobody else through to the socket: chmod 711 {dir}"),
            "socket.closed"
        );
    }
    Ok(())
}

/// Removes the socket of a daemon that is gone; refuses to touch anything else.
fn clear(path: &Path) -> Result<(), ListenError> {
    let failed = |why: String| ListenError::Unix {
        path: path.to_owned(),
        why,
    };
    let Ok(there) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !there.file_type().is_socket() {
        return Err(failed("something that is not a socket lies there".to_owned()));
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(ListenError::Answers(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|error| failed(format!("the old socket cannot be removed: {error}"))),
        Err(error) => Err(failed(format!(
            "an old socket lies there and cannot be asked: {error}"
        ))),
    }
}

/// Where the control socket is unless something says otherwise.
pub fn default_socket() -> Result<PathBuf, ListenError> {
    let uid = rustix::process::getuid();
    if uid.is_root() {
        return Ok(PathBuf::from("/run/gaffer/gaffer.sock"));
    }
    if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir).join("gaffer/gaffer.sock"));
    }
    let dir = PathBuf::from(format!("/tmp/gaffer-{}", uid.as_raw()));
    check_private(&dir, uid.as_raw())?;
    Ok(dir.join("gaffer.sock"))
}

/// `/tmp` is everybody's: a directory there counts only if it is ours alone.
fn check_private(dir: &Path, uid: u32) -> Result<(), ListenError> {
    let Ok(there) = fs::symlink_metadata(dir) else {
        return Ok(());
    };
    if there.is_dir() && there.uid() == uid && there.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(ListenError::Unix {
        path: dir.to_owned(),
        why: "the directory is not ours alone (somebody else may have made it); use --socket or set XDG_RUNTIME_DIR"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hazard_b5_a_connection_whose_other_side_stops_reading_ends() {
        use tokio::io::AsyncWriteExt;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let _mute = TcpStream::connect(listener.local_addr().expect("an address"))
            .await
            .expect("connects");
        let (mut stream, _) = listener.accept().await.expect("accepts");
        end_unread(&stream, Duration::from_millis(200)).expect("taken");
        // Both buffers fill up, then nothing moves until it is given up.
        let error = loop {
            if let Err(error) = stream.write_all(&[0; 1 << 16]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }

    #[test]
    fn addresses_to_listen_at_are_loopback_or_refused() {
        let tcp = |text: &str| Some(Bind::Tcp(text.parse().expect("an address")));
        assert_eq!(parse_bind("127.0.0.1:0").expect("loopback"), tcp("127.0.0.1:0"));
        assert_eq!(
            parse_bind("localhost:5000").expect("loopback"),
            tcp("127.0.0.1:5000")
        );
        assert_eq!(parse_bind("[::1]:5000").expect("loopback"), tcp("[::1]:5000"));
        assert_eq!(parse_bind("none").expect("nothing"), None);
        for text in ["0.0.0.0:5000", "[::]:5000", "192.168.1.1:5000"] {
            let binds = [parse_bind(text).expect("an address").expect("one")];
            for (has_tls, has_credential) in [(false, false), (true, false), (false, true)] {
                let refused = check_reach(&binds, has_tls, has_credential)
                    .expect_err(text)
                    .to_string();
                assert_eq!(refused.contains("--certfile"), !has_tls, "{refused}");
                assert_eq!(refused.contains("token create"), !has_credential, "{refused}");
            }
            assert!(check_reach(&binds, true, true).is_ok());
        }
        let near = ["127.0.0.1:0", "[::1]:5000", "[::ffff:127.0.0.1]:1", "unix:/x"];
        let near: Vec<Bind> = near
            .iter()
            .filter_map(|text| parse_bind(text).expect("fine"))
            .collect();
        assert!(near.len() == 4 && check_reach(&near, false, false).is_ok());
        for text in ["", "5000", "127.0.0.1", "host:5000", "localhost:x"] {
            assert!(
                matches!(parse_bind(text), Err(ListenError::NotAnAddress(_))),
                "{text}"
            );
        }
    }
}
