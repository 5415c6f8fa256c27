//! A connection to the control socket of another machine through a login there.
//!
//! `ssh` runs `gaffer daemon dial` on that machine, which carries bytes between its own standard streams and the
//! socket, as Docker's `system dial-stdio` does. Who may log in there is who may use that user's socket: nothing listens, and
//! the keys, aliases and shared connections of the user's `ssh` count.

use crate::endpoint::SshTarget;
use std::io;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Join, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// The line with which `gaffer daemon dial` says that it has the socket: what a login prints before it is skipped.
pub const GREETING: &str = "gaffer dial 1\n";

/// So much may a login print before; a message of `ssh` is not longer either.
const PREAMBLE_BYTES_MAX: usize = 64 << 10;

/// The bytes that go through an `ssh`, which ends with this.
pub(crate) struct Tunnel {
    io: Join<ChildStdout, ChildStdin>,
    _ssh: Child,
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Logs in and waits until the socket is connected. The error is what `ssh`, or `gaffer` over there, said.
pub(crate) async fn connect(target: &SshTarget) -> io::Result<Tunnel> {
    let mut ssh = command(target)
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("`ssh` cannot be run: {error}")))?;
    let (Some(stdin), Some(mut stdout), Some(stderr)) =
        (ssh.stdin.take(), ssh.stdout.take(), ssh.stderr.take())
    else {
        return Err(io::Error::other("`ssh` has no standard streams"));
    };
    let said = tokio::spawn(all_of(stderr));
    if is_greeted(&mut stdout).await? {
        return Ok(Tunnel {
            io: tokio::io::join(stdout, stdin),
            _ssh: ssh,
        });
    }
    drop((stdin, stdout));
    let status = ssh.wait().await?;
    let said = said.await.map_err(io::Error::other)?;
    Err(io::Error::other(reason(&said, status)))
}

fn command(target: &SshTarget) -> Command {
    let mut command = Command::new("ssh");
    command.arg("-T");
    if let Some(port) = target.port {
        command.arg("-p").arg(port.to_string());
    }
    if let Some(user) = &target.user {
        command.arg("-l").arg(user);
    }
    let mut remote = "exec gaffer daemon dial".to_owned();
    if let Some(socket) = &target.socket {
        let quoted = socket.to_string_lossy().replace('\'', r"'\''");
        remote.push_str(&format!(" --socket '{quoted}'"));
    }
    command
        .arg("--")
        .arg(&target.host)
        .arg(remote)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Reads until the greeting; false: there is none. Not a byte more is read: what follows is HTTP.
async fn is_greeted(stdout: &mut ChildStdout) -> io::Result<bool> {
    let mut read = Vec::new();
    let mut byte = [0];
    while read.len() < PREAMBLE_BYTES_MAX {
        if stdout.read(&mut byte).await? == 0 {
            return Ok(false);
        }
        read.extend(byte);
        if read.ends_with(GREETING.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads to the end, so that nobody waits for room, and keeps the beginning.
async fn all_of(mut stderr: ChildStderr) -> String {
    let (mut kept, mut buf) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stderr.read(&mut buf).await {
        let room = PREAMBLE_BYTES_MAX - kept.len();
        kept.extend_from_slice(&buf[..n.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Why there is no connection, in one line.
fn reason(said: &str, status: ExitStatus) -> String {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let said = lines.collect::<Vec<_>>().join("; ");
    match (status.code(), said.is_empty()) {
        // What a shell answers that does not find a program.
        (Some(127), _) => "`gaffer` is not on the PATH of a login there that has no terminal".to_owned(),
        (_, false) => said,
        (Some(code), true) => format!("`ssh` ended with code {code} and said nothing"),
        (None, true) => format!("`ssh` was ended: {status}"),
    }
}
