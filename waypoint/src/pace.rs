//! What a connection of HTTP/1.1 is made to hold while its far end does not take it. hyper fills a buffer as large as a head
//! may be before it looks whether anything is taken, and reads the other side in pieces of that size; here a body waits
//! while what was written before it does, and pieces are small until a message has carried much.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::broken::BreakOff;

/// Bytes that are read at once of a message that has not carried [`MUCH`]. One less than a size of hyper's: a read that fills
/// its buffer makes it double the next.
const PIECE: usize = (16 << 10) - 1;
/// Bytes after which a message is one whose far end reads: more than fits into the sockets and windows on the way to one that
/// does not (as [`hbone::windows`]).
const MUCH: u64 = 4 << 20;

/// How a connection is filled, for who fills it.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Something that was written waits until the far end takes more.
    full: Cell<bool>,
    /// Bytes read of the message under way.
    carried: Cell<u64>,
    waiting: RefCell<Option<Waker>>,
}

impl Pace {
    /// Another message begins.
    pub(crate) fn begin(&self) {
        self.carried.set(0);
    }

    /// Waits until all that was written has been taken.
    pub(crate) fn poll_taken(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.full.get() {
            return Poll::Ready(());
        }
        self.waiting.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    fn taken(&self) {
        self.full.set(false);
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    /// How much may be read at once.
    fn piece(&self) -> usize {
        if self.carried.get() < MUCH { PIECE } else { usize::MAX }
    }
}

/// A connection that keeps to its pace.
#[derive(Debug)]
pub(crate) struct Paced<T> {
    inner: T,
    pace: Rc<Pace>,
}

impl<T> Paced<T> {
    /// Keeps `inner` to `pace`.
    pub(crate) fn new(inner: T, pace: &Rc<Pace>) -> Self {
        Self { inner, pace: pace.clone() }
    }
}

impl<T: BreakOff> BreakOff for Paced<T> {
    fn break_off(&mut self) {
        self.inner.break_off();
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Paced<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, piece) = (buf.filled().len(), self.pace.piece());
        if buf.remaining() <= piece {
            ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        } else {
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(piece));
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
            let read = part.filled().len();
            buf.advance(read);
        }
        let read = buf.filled().len() - before;
        self.pace.carried.set(self.pace.carried.get().saturating_add(read as u64));
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Paced<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if written.is_pending() {
            self.pace.full.set(true);
        }
        written
    }

    /// hyper asks for it once all that it holds is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.pace.taken();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
