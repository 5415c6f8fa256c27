//! Connections end when the credential behind their live stream is revoked or expires.
//!
//! One mechanism for all streams: what a request opens (a stream of lines, server-sent events, a WebSocket) lives as long as
//! the access that opened it. The connection's reads and writes pass through here; once the access is over, they fail, and
//! whoever waits on them is woken.

use super::Access;
use futures_util::future::BoxFuture;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The access that the stream of a connection depends on, if there is one.
#[derive(Clone, Default)]
pub struct Slot(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    ended: Option<BoxFuture<'static, ()>>,
    over: bool,
    reader: Option<Waker>,
}

impl Slot {
    /// From now on the connection lives as long as this access.
    pub fn depend_on(&self, access: &Access) {
        if access.credential().is_none() {
            return;
        }
        let waker = {
            let mut state = self.lock();
            state.ended = Some(Box::pin(access.ended()));
            state.reader.take()
        };
        // Who waits for bytes waits for the end, too, from now on.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The stream is at its end: the next request says who it is.
    pub fn release(&self) {
        self.lock().ended = None;
    }

    fn is_over(&self, context: &mut Context<'_>) -> bool {
        let mut state = self.lock();
        if !state.over {
            let ended = state.ended.as_mut();
            state.over = ended.is_some_and(|ended| ended.as_mut().poll(context).is_ready());
            state.reader = Some(context.waker().clone());
        }
        state.over
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that a [`Slot`] can end.
pub struct Bounded<S> {
    stream: S,
    slot: Slot,
}

impl<S> Bounded<S> {
    /// Puts the connection under the slot.
    pub fn new(stream: S, slot: Slot) -> Bounded<S> {
        Bounded { stream, slot }
    }
}

fn over() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "the credential of this stream is over",
    )
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.slot.is_over(context) {
            return Poll::Ready(Err(over()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.slot.is_over(context) {
            return Poll::Ready(Err(over()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.slot.is_over(context) {
            return Poll::Ready(Err(over()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
