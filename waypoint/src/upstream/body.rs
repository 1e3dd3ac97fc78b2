//! A request's body on its way to an endpoint: counted, and held back where the client waits for a `100 Continue`.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::http::messages::Messages;
use crate::telemetry::Tally;

/// Holds a body back until the endpoint wants it (RFC 9110, section 10.1.1): polling it is what makes the client hear
/// `100 Continue`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    state: AtomicU8,
    waker: AtomicWaker,
}

const SHUT: u8 = 0;
const OPEN: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Gate {
    /// The endpoint wants the body.
    pub(crate) fn open(&self) {
        self.set(OPEN);
    }

    /// It has answered without it, and that is all: what is still held back never goes.
    pub(crate) fn give_up(&self) {
        self.set(GIVEN_UP);
    }

    fn set(&self, state: u8) {
        if self.0.state.compare_exchange(SHUT, state, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.0.waker.wake();
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Result<(), BodyError>> {
        self.0.waker.register(cx.waker());
        match self.0.state.load(Ordering::Acquire) {
            SHUT => Poll::Pending,
            OPEN => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err(BodyError::NotWanted)),
        }
    }
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The client's connection failed.
    #[error(transparent)]
    Client(#[from] hyper::Error),
    /// The endpoint answered without it.
    #[error("the endpoint answered without the body that it was asked about")]
    NotWanted,
}

/// The body of a request.
#[derive(Debug)]
pub(crate) struct RequestBody {
    inner: Incoming,
    gate: Option<Gate>,
    tally: Rc<Tally>,
    messages: Option<Messages>,
}

impl RequestBody {
    /// The body as it comes from the client.
    pub(crate) fn new(inner: Incoming, gate: Option<Gate>, tally: Rc<Tally>, grpc: bool) -> Self {
        Self { inner, gate, tally, messages: grpc.then(Messages::default) }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(gate) = &this.gate {
            if let Err(error) = ready!(gate.poll(cx)) {
                return Poll::Ready(Some(Err(error)));
            }
            this.gate = None;
        }
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.tally.received.set(this.tally.received.get() + data.len() as u64);
            if let Some(messages) = &mut this.messages {
                this.tally.messages_received.set(messages.see(data));
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Client)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
