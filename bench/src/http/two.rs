//! HTTP/2 by hand, both ends of it, for requests and answers that are all alike: a library in its place took as much of
//! the processors as what stood between the two ends and was to be measured.

mod ask;
mod reply;
mod wire;

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(super) use self::ask::Asker;
pub(super) use self::reply::{Replier, Replies};
use self::wire::{Event, Wire};

/// Bytes read at a time.
const READ: usize = 64 << 10;

/// What an end does with what comes.
trait End {
    fn wire(&mut self) -> &mut Wire;
    /// Something of a stream has come.
    fn come(&mut self, event: Event);
    /// Nothing more will.
    fn over(&mut self, why: String);
}

/// Carries bytes between an end and its connection, until that is over.
async fn run<E: End, T: AsyncRead + AsyncWrite + Unpin>(mut io: T, end: Rc<RefCell<E>>) {
    let mut read = vec![0; READ];
    let why = std::future::poll_fn(|cx| step(&mut io, &end, &mut read, cx)).await;
    end.borrow_mut().over(why);
}

/// Goes on for as long as there is anything to do; ready, with the reason, once it is over.
fn step<E: End, T: AsyncRead + AsyncWrite + Unpin>(
    io: &mut T,
    end: &Rc<RefCell<E>>,
    read: &mut [u8],
    cx: &mut Context<'_>,
) -> Poll<String> {
    let end = &mut *end.borrow_mut();
    loop {
        let failed = |error: std::io::Error| Poll::Ready(error.to_string());
        if let Poll::Ready(Err(error)) = write(io, &mut end.wire().out, cx) {
            return failed(error);
        }
        let mut buffer = ReadBuf::new(read);
        match Pin::new(&mut *io).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return failed(error),
            Poll::Pending => {
                end.wire().wait(cx.waker());
                return Poll::Pending;
            }
        }
        if buffer.filled().is_empty() {
            return Poll::Ready(String::from("the connection ended"));
        }
        end.wire().feed(buffer.filled());
        loop {
            match end.wire().next() {
                Ok(Some(event)) => end.come(event),
                Ok(None) => break,
                Err(error) => return Poll::Ready(error),
            }
        }
    }
}

/// Writes as much as goes.
fn write<T: AsyncWrite + Unpin>(
    io: &mut T,
    out: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<std::io::Result<()>> {
    while !out.is_empty() {
        let written = ready!(Pin::new(&mut *io).poll_write(cx, out))?;
        out.advance(written);
    }
    Pin::new(io).poll_flush(cx)
}

#[cfg(test)]
mod tests;
