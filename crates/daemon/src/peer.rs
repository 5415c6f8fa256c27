//! Who is at the other end of a connection, as the kernel says.
//!
//! On the unix socket `SO_PEERCRED` names the process that connected. On loopback TCP the kernel knows the owner of
//! the peer's socket too: `sock_diag` (sock_diag(7)) finds it by the four numbers of the connection. Three
//! traps lie there: a socket that its process has closed already is reported as root's (it has no inode any more);
//! so is one in TIME_WAIT; and a look-up that finds no connection falls back to a listener on the same port. So
//! an answer counts only with an inode, in a connected state, with exactly our four numbers. And once
//! it is there, our own end must still be connected, or the numbers may have passed to somebody else.

use rustix::net::{AddressFamily, SocketType, netlink};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

/// A user id from the kernel: never read from a text, so that no text can become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uid(pub u32);

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// On the unix socket.
    Unix {
        /// Who connected.
        uid: Uid,
        /// It is one of our own runs, or was started by one.
        is_run: bool,
        /// The socket is open to others than us, and the kernel let it in.
        invited: bool,
    },
    /// Over TCP.
    Tcp {
        /// From where.
        from: SocketAddr,
        /// Whose socket it is; none: the kernel does not say.
        uid: Option<Uid>,
    },
}

impl Peer {
    /// Who it is, if known.
    pub fn uid(&self) -> Option<Uid> {
        match self {
            Peer::Unix { uid, .. } => Some(*uid),
            Peer::Tcp { uid, .. } => *uid,
        }
    }

    /// May it be served without a token: the daemon's own user, root, or whom the control socket was opened for.
    pub fn is_trusted(&self, own: Uid) -> bool {
        if matches!(self, Peer::Unix { invited: true, .. }) {
            return true;
        }
        self.uid().is_some_and(|uid| uid == own || uid == Uid(0))
    }

    /// As reasons name it: `ana`, `ana from 10.0.0.7`.
    pub fn actor(&self) -> Arc<str> {
        let name = self.uid().map(user_name);
        match (self, name) {
            (Peer::Tcp { from, .. }, None) => format!("someone from {}", from.ip()).into(),
            (Peer::Tcp { from, .. }, Some(name)) if !from.ip().is_loopback() => {
                format!("{name} from {}", from.ip()).into()
            }
            (_, Some(name)) => name.into(),
            (Peer::Unix { .. }, None) => "someone".into(),
        }
    }
}

/// Name of a user, `uid 1234` if it has none. Only local users: nobody waits for a directory service here.
pub fn user_name(uid: Uid) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid.0)).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| format!("uid {}", uid.0))
}

/// The peer of a unix connection; `runs_group` is the name of the cgroup below which our runs live.
pub fn of_unix(stream: &tokio::net::UnixStream, runs_group: Option<&str>, invited: bool) -> io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    // The process may be gone, and its number be another's: good enough to stop accidents, which is all it is for.
    let is_run = match (credentials.pid(), runs_group) {
        (Some(pid), Some(group)) => {
            let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            is_below(&groups, group)
        }
        _ => false,
    };
    Ok(Peer::Unix {
        uid: Uid(credentials.uid()),
        is_run,
        invited,
    })
}

/// Is the v2 group in a `/proc/PID/cgroup` below one of this name?
fn is_below(groups: &str, name: &str) -> bool {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
    own.is_some_and(|path| path.split('/').any(|part| part == name))
}

/// The peer of a TCP connection; its owner is looked up only for loopback.
pub fn of_tcp(stream: &tokio::net::TcpStream, from: SocketAddr) -> Peer {
    let uid = match stream.local_addr() {
        Ok(local) if is_loopback(local.ip()) && is_loopback(from.ip()) => {
            let owner = socket_owner(from, local).ok().flatten();
            owner.filter(|_| is_connected(stream))
        }
        _ => None,
    };
    Peer::Tcp { from, uid }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// States of TCP in which a socket is one end of a connection (include/net/tcp_states.h).
const ESTABLISHED: u8 = 1;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const CLOSE_WAIT: u8 = 8;

/// Is our own end still connected?
fn is_connected(stream: &tokio::net::TcpStream) -> bool {
    // The state is the first byte of struct tcp_info (linux/tcp.h).
    let mut info = [0u8; 8];
    let mut length = libc::socklen_t::try_from(info.len()).unwrap_or(0);
    // SAFETY: the buffer and its length belong together and outlive the call.
    let done = unsafe {
        libc::getsockopt(
            stream.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    done == 0 && matches!(info[0], ESTABLISHED | CLOSE_WAIT)
}

/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
/// Sizes of `nlmsghdr`, `inet_diag_req_v2` and `inet_diag_msg` (linux/inet_diag.h).
const HEADER_LEN: usize = 16;
const REQUEST_LEN: usize = 56;
const ANSWER_LEN: usize = 72;

/// Owner of the socket that is bound to `socket` and connected to `to`.
pub fn socket_owner(socket: SocketAddr, to: SocketAddr) -> io::Result<Option<Uid>> {
    let netlink = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK,
        Some(netlink::SOCK_DIAG),
    )?;
    let request = request(socket, to);
    rustix::net::sendto(
        &netlink,
        &request,
        rustix::net::SendFlags::empty(),
        &netlink::SocketAddrNetlink::new(0, 0),
    )?;
    // The kernel answers within sendto: not waiting is right, and nothing here can hang.
    let mut answer = [0u8; 1024];
    let (length, _) = rustix::net::recv(&netlink, &mut answer[..], rustix::net::RecvFlags::DONTWAIT)?;
    Ok(owner(answer.get(..length).unwrap_or_default(), &request))
}

/// `nlmsghdr` and `inet_diag_req_v2` for exactly one connection.
fn request(socket: SocketAddr, to: SocketAddr) -> [u8; HEADER_LEN + REQUEST_LEN] {
    const REQUEST: u16 = 1;
    let mut message = [0u8; HEADER_LEN + REQUEST_LEN];
    message[0..4].copy_from_slice(&72u32.to_ne_bytes());
    message[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST.to_ne_bytes());
    message[8..12].copy_from_slice(&1u32.to_ne_bytes());
    let body = &mut message[HEADER_LEN..];
    // An IPv4 peer of an IPv6 listener is an IPv4 socket, so both ends are brought to their plain form.
    let (from, local) = (socket.ip().to_canonical(), to.ip().to_canonical());
    body[0] = u8::try_from(if from.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    })
    .unwrap_or(0);
    body[1] = u8::try_from(libc::IPPROTO_TCP).unwrap_or(0);
    body[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    body[8..10].copy_from_slice(&socket.port().to_be_bytes());
    body[10..12].copy_from_slice(&to.port().to_be_bytes());
    put_address(&mut body[12..28], from);
    put_address(&mut body[28..44], local);
    // Any interface; no cookie (all ones).
    body[48..56].fill(0xff);
    message
}

fn put_address(field: &mut [u8], address: IpAddr) {
    match address {
        IpAddr::V4(address) => field[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => field.copy_from_slice(&address.octets()),
    }
}

/// The owner in an answer, if it is about the connection that was asked for and the socket is still somebody's.
fn owner(answer: &[u8], request: &[u8]) -> Option<Uid> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let body = answer.get(HEADER_LEN..HEADER_LEN + ANSWER_LEN)?;
    let state = *body.get(1)?;
    let same_ends = body.get(4..40)? == request.get(HEADER_LEN + 8..HEADER_LEN + 44)?;
    let uid = u32::from_ne_bytes(body.get(64..68)?.try_into().ok()?);
    let inode = u32::from_ne_bytes(body.get(68..72)?.try_into().ok()?);
    let connected = matches!(state, ESTABLISHED | FIN_WAIT1 | FIN_WAIT2 | CLOSE_WAIT);
    (kind == BY_FAMILY && same_ends && connected && inode != 0).then_some(Uid(uid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn own() -> Uid {
        Uid(rustix::process::getuid().as_raw())
    }

    fn pair(address: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(address).expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let (server, _) = listener.accept().expect("accepts");
        (client, server)
    }

    #[test]
    fn the_kernel_names_the_owner_of_a_loopback_peer() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (client, server) = pair(address);
            let ends = (
                client.local_addr().expect("bound"),
                server.local_addr().expect("bound"),
            );
            assert_eq!(
                socket_owner(ends.0, ends.1).expect("netlink answers"),
                Some(own()),
                "{address}"
            );
        }
    }

    #[test]
    fn a_peer_that_has_closed_is_nobody_and_above_all_not_root() {
        let (client, server) = pair("127.0.0.1:0");
        let ends = (
            client.local_addr().expect("bound"),
            server.local_addr().expect("bound"),
        );
        drop(client);
        assert_eq!(socket_owner(ends.0, ends.1).ok().flatten(), None);
    }

    #[test]
    fn a_listener_on_the_port_of_a_gone_peer_is_not_taken_for_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let here = listener.local_addr().expect("bound");
        let to = SocketAddr::new(here.ip(), 1);
        assert_eq!(socket_owner(here, to).ok().flatten(), None);
    }

    #[test]
    fn a_run_of_ours_is_known_by_its_group() {
        let groups = "4:memory:/x\n0::/user.slice/gaffer-00ab/1115\n";
        assert!(is_below(groups, "gaffer-00ab"));
        assert!(!is_below(groups, "gaffer-00ac") && !is_below("", "gaffer-00ab"));
    }

    #[test]
    fn only_our_user_and_root_are_trusted() {
        let from = SocketAddr::from(([127, 0, 0, 1], 1));
        let tcp = |uid| Peer::Tcp { from, uid };
        assert!(tcp(Some(Uid(0))).is_trusted(Uid(1000)) && tcp(Some(Uid(1000))).is_trusted(Uid(1000)));
        assert!(!tcp(Some(Uid(1001))).is_trusted(Uid(1000)) && !tcp(None).is_trusted(Uid(1000)));
    }
}
