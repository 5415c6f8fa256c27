//! A connection of a daemon: frames in, frames out, never blocking.

use gaffer_shim::frame::Decoder;
use gaffer_shim::message::{FromShim, Heard, ToShim};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

/// What may wait to be written. A daemon that does not read loses its connection, not its facts: those
/// are in the journal.
const OUT_MAX: usize = 32 << 20;

/// Bytes read at once.
const READ_BYTES: usize = 16 << 10;

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq)]
pub enum Standing {
    /// Has said nothing.
    New,
    /// Has said `Hello`; its epoch is being written down.
    Greeted,
    /// In charge.
    Active,
    /// To be closed when everything is written.
    Closing,
}

/// One connection.
pub struct Conn {
    pub stream: UnixStream,
    pub standing: Standing,
    pub said_bye: bool,
    /// What epoll is asked for.
    pub watched: i32,
    /// Has something to write that was queued in this round.
    pub spoken: bool,
    decoder: Decoder,
    out: Vec<u8>,
    sent: usize,
}

/// The connection is over.
pub struct Over;

impl Conn {
    /// Of an accepted or inherited socket.
    pub fn new(stream: UnixStream) -> io::Result<Conn> {
        stream.set_nonblocking(true)?;
        Ok(Conn {
            stream,
            standing: Standing::New,
            said_bye: false,
            watched: libc::EPOLLIN,
            spoken: false,
            decoder: Decoder::new(),
            out: Vec::new(),
            sent: 0,
        })
    }

    /// Reads what is there, one buffer-full. True: something came.
    pub fn fill(&mut self) -> Result<bool, Over> {
        let mut chunk = [0; READ_BYTES];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(Over),
            Ok(count) => {
                self.decoder.push(&chunk[..count]);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(_) => Err(Over),
        }
    }

    /// The next request. `None`: not all of it is here. A body that cannot be read ends the connection,
    /// a request of a newer daemon is passed over.
    pub fn next_request(&mut self) -> Result<Option<ToShim>, Over> {
        loop {
            let Some(body) = self.decoder.next_frame().map_err(|_| Over)? else {
                return Ok(None);
            };
            match ToShim::from_body(&body).map_err(|_| Over)? {
                Heard::Message(message) => return Ok(Some(message)),
                Heard::Unknown => {}
            }
        }
    }

    /// Queues a message.
    pub fn say(&mut self, message: &FromShim) {
        self.out.extend_from_slice(&message.to_frame());
    }

    /// Nothing waits to be written.
    pub fn is_flushed(&self) -> bool {
        self.out.is_empty()
    }

    /// Writes what the socket takes.
    pub fn flush(&mut self) -> Result<(), Over> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => return Err(Over),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return if self.out.len() - self.sent > OUT_MAX {
                        Err(Over)
                    } else {
                        Ok(())
                    };
                }
                Err(_) => return Err(Over),
            }
        }
        self.out = Vec::new();
        self.sent = 0;
        if self.standing == Standing::Closing {
            Err(Over)
        } else {
            Ok(())
        }
    }
}
