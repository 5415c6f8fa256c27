//! `daemon dial`: the other end of an `ssh://` address.

use crate::context::Context;
use crate::failure::Failure;
use gaffer_api::ssh::GREETING;
use gaffer_api::{ClientError, Endpoint};
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

const BUF_BYTES: usize = 64 << 10;

/// Greets when the socket is connected, then carries bytes until the daemon ends the connection: it does when there
/// is nothing more to read from here.
pub async fn dial(ctx: &Context) -> Result<u8, Failure> {
    let Endpoint::Unix(path) = ctx.client.endpoint().clone() else {
        return Err(Failure::usage("only a socket of this machine can be dialled")
            .hint("name it:  gaffer daemon dial --socket PATH"));
    };
    let socket = UnixStream::connect(&path).map_err(|source| ClientError::Unreachable {
        endpoint: Endpoint::Unix(path),
        source,
    })?;
    let carried = tokio::task::spawn_blocking(move || {
        io::stdout().write_all(GREETING.as_bytes())?;
        io::stdout().flush()?;
        carry(&socket)
    });
    match carried.await.map_err(io::Error::other).and_then(|end| end) {
        // Whoever dialled has gone.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("the connection broke: {error}")))
        }
        _ => Ok(0),
    }
}

fn carry(socket: &UnixStream) -> io::Result<()> {
    let up = socket.try_clone()?;
    // Not waited for: it may sleep in a read that nobody ends.
    std::thread::spawn(move || {
        let _broken = copy(rustix::stdio::stdin(), &up);
        let _gone = up.shutdown(Shutdown::Write);
    });
    copy(socket, rustix::stdio::stdout())
}

/// By read and write. `io::copy` would splice, and a splice that waits for a socket keeps the pipe locked: who reads the
/// pipe would not get what is in it.
fn copy(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let mut buf = vec![0; BUF_BYTES];
    loop {
        let count = match rustix::io::retry_on_intr(|| rustix::io::read(&from, &mut *buf))? {
            0 => return Ok(()),
            count => count,
        };
        let mut left = &buf[..count];
        while !left.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(&to, left))?;
            left = &left[written..];
        }
    }
}
