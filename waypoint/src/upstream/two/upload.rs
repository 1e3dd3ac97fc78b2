//! A request's body on its way over a stream of HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use hyper::body::Body;

/// Sends a body; what goes wrong shows where the answer is waited for.
#[derive(Debug)]
pub(super) struct Upload<B> {
    body: B,
    stream: SendStream<Bytes>,
    /// What waits until the endpoint has room for it, and whether it is the last.
    waiting: Option<(Bytes, bool)>,
}

/// Nothing more is to be sent: the stream was reset, its connection is over, or what should go cannot.
struct Stopped;

impl From<h2::Error> for Stopped {
    fn from(_: h2::Error) -> Self {
        Self
    }
}

impl<B: Body<Data = Bytes> + Unpin> Upload<B> {
    pub(super) fn new(body: B, stream: SendStream<Bytes>) -> Self {
        Self { body, stream, waiting: None }
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        loop {
            // Asked each time, for who is reset is to hear of it whatever it waits for.
            if self.stream.poll_reset(cx)?.is_ready() {
                return Poll::Ready(Err(Stopped));
            }
            if let Some((data, last)) = &mut self.waiting {
                let last = *last;
                while !data.is_empty() && self.stream.capacity() == 0 {
                    ready!(self.stream.poll_capacity(cx)).ok_or(Stopped)??;
                }
                let data = std::mem::take(data);
                self.waiting = None;
                self.stream.send_data(data, last)?;
                if last {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            // No room is asked for before there is something to send: others over this connection may need it.
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(_)) => return Poll::Ready(Err(Stopped)),
                None => return Poll::Ready(Ok(self.stream.send_data(Bytes::new(), true)?)),
            };
            match frame.into_data() {
                Ok(data) => {
                    if !data.is_empty() {
                        self.stream.reserve_capacity(1);
                    }
                    self.waiting = Some((data, self.body.is_end_stream()));
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.stream.send_trailers(trailers)?;
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Future for Upload<B> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let sent = ready!(self.poll_sent(cx));
        if sent.is_err() {
            // The endpoint is not to wait for the rest; nothing where the stream is over already.
            self.stream.send_reset(Reason::CANCEL);
        }
        Poll::Ready(())
    }
}
