//! The bytes of one CONNECT stream, for who does not splice: an async byte stream.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Handle;
use super::inner::{Inner, Shared, Use, keep};
use crate::connection::Connection;
use crate::frame::code;
use crate::protocol::Key;
use crate::splice::{End, Splice};

/// The bytes of one CONNECT stream. Splice a connection on it (the fast path), or use it as a byte stream.
///
/// Shutting it down ends our direction (END_STREAM); dropping it before both directions ended resets it with CANCEL, which
/// says that no more is needed: an end like any other to the application at the far end. What broke is
/// [broken off](Stream::break_off).
pub struct Stream {
    pub(crate) shared: Shared,
    pub(crate) key: Key,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Stream {
    /// The tunnel that it is a stream of.
    pub fn tunnel(&self) -> Handle {
        Handle::new(Rc::downgrade(&self.shared))
    }

    /// Whether the far end is ours: detach, resume and causes work.
    pub fn capable(&self) -> bool {
        self.shared.borrow().control.capable
    }

    /// Sees whether it is still there, for who has given it away.
    pub fn watch(&self) -> Watch {
        let id = self.shared.borrow().engine.streams[self.key].id;
        Watch { shared: Rc::downgrade(&self.shared), id }
    }

    /// Resets it as one whose connection broke (CONNECT_ERROR), so that the application at the far end does not take what
    /// came for all there was. What was written before still goes; a direction that had ended before has ended in order.
    pub fn break_off(&mut self) {
        self.shared.borrow_mut().broken(self.key, End::Reset(code::CONNECT_ERROR));
    }

    /// Joins it with `connection` until both directions have ended, or it is cut or detached.
    pub fn splice(self, connection: Connection) -> Splice {
        Splice::new(self, connection)
    }
}

/// Sees whether a stream is still there that somebody else reads and writes.
#[derive(Debug, Clone)]
pub struct Watch {
    shared: Weak<RefCell<Inner>>,
    id: u32,
}

impl Watch {
    /// Waits until nothing that is sent on the stream arrives any more: its peer has reset it, or its tunnel has ended. That is
    /// seen also while nobody reads. To be awaited in the task that reads the stream, because one task of them is woken.
    pub async fn lost(&self) {
        poll_fn(|cx| if self.is_lost(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    fn is_lost(&self, cx: &Context<'_>) -> bool {
        let Some(shared) = self.shared.upgrade() else { return true };
        let inner = &mut *shared.borrow_mut();
        let Some(key) = inner.engine.streams.find(self.id).filter(|_| inner.gone.is_none()) else {
            return true;
        };
        let slot = &mut inner.engine.streams[key].ext;
        keep(&mut slot.reader, cx.waker());
        slot.end.is_some()
    }
}

fn gone(why: &super::Gone) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, why.clone())
}

fn over(end: &End) -> io::Error {
    let text = match end {
        End::Reset(code) => format!("the peer reset the stream (HTTP/2 code {code})"),
        other => format!("the stream is over: {other:?}"),
    };
    io::Error::new(io::ErrorKind::ConnectionReset, text)
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.shared.borrow_mut();
        let stream = &mut inner.engine.streams[self.key];
        let ended = stream.remote_ended;
        let Use::Bytes { pending, .. } = &mut stream.ext.used else { return Poll::Ready(Ok(())) };
        let waiting = pending.as_slice();
        if !waiting.is_empty() {
            let len = waiting.len().min(buf.remaining());
            buf.put_slice(&waiting[..len]);
            pending.advance(len);
            inner.engine.consumed(self.key, len);
            inner.early_taken(len);
            if !inner.engine.control.is_empty() {
                inner.mark();
            }
            return Poll::Ready(Ok(()));
        }
        match stream.ext.end.as_deref() {
            // "I need no more of it" is an end like any other to who reads.
            Some(End::Reset(code::NO_ERROR | code::CANCEL)) => return Poll::Ready(Ok(())),
            // It came to its end before: what broke is the other direction.
            Some(End::Reset(_)) if ended => return Poll::Ready(Ok(())),
            Some(end) => return Poll::Ready(Err(over(end))),
            None => {}
        }
        if ended {
            return Poll::Ready(Ok(()));
        }
        if let Some(why) = &inner.gone {
            return Poll::Ready(Err(gone(why)));
        }
        keep(&mut stream.ext.reader, cx.waker());
        Poll::Pending
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let inner = &mut *self.shared.borrow_mut();
        if let Some(why) = &inner.gone {
            return Poll::Ready(Err(gone(why)));
        }
        let stream = &mut inner.engine.streams[self.key];
        if let Some(end) = &stream.ext.end {
            return Poll::Ready(Err(over(end)));
        }
        if stream.local_ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if !stream.ext.writer.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            stream.ext.writer = Some(Box::new(cx.waker().clone()));
        }
        match inner.write(self.key, bytes) {
            0 => Poll::Pending,
            written => Poll::Ready(Ok(written)),
        }
    }

    /// Everything written leaves with the tunnel's next turn.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.borrow_mut().end(self.key);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.borrow_mut().release(self.key);
    }
}
