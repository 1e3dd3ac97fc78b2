//! A request's body on its way to an endpoint: counted, held back where the client waits for a `100 Continue`, and kept,
//! while it is small, for another try.

mod copy;

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use model::route::headers::leave_framing;
use tokio::time::{Sleep, sleep};

use self::copy::{Copied, Copies};
use super::Clock;
use crate::http::messages::Messages;
use crate::pace::Pace;
use crate::telemetry::Tally;

/// How long a body is held back for an endpoint that says nothing: it may know nothing of `Expect`, and nobody may wait for
/// it forever (RFC 9110, section 10.1.1). So long curl waits.
const PATIENCE: Duration = Duration::from_secs(1);

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

/// A gate in the hands of who waits for the answer. Once it is dropped the try is over, and what is still held back never
/// goes: a connection that waits for it would wait for ever.
#[derive(Debug)]
pub(crate) struct GateKeeper(Gate);

impl GateKeeper {
    /// The keeper of a gate.
    pub(crate) fn of(gate: &Gate) -> Self {
        Self(gate.clone())
    }

    /// The endpoint wants the body.
    pub(crate) fn open(&self) {
        self.0.open();
    }
}

impl Drop for GateKeeper {
    fn drop(&mut self) {
        self.0.set(GIVEN_UP);
    }
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The client's connection failed.
    #[error(transparent)]
    Client(#[from] hyper::Error),
    /// The original ended before its body, or the copy did not keep up with it.
    #[error("the copy of a request did not keep up with it")]
    Behind,
    /// The request is being sent once more, and this try reads no further.
    #[error("the request is being sent once more")]
    Withdrawn,
    /// The endpoint answered without it.
    #[error("the endpoint answered without the body that it was asked about")]
    NotWanted,
}

/// A request's body, and as much of what has been read of it as it takes to send it once more.
#[derive(Debug)]
pub(crate) struct Source {
    inner: Incoming,
    /// What has been read, from the beginning: copied, for a byte that is kept as it came keeps all of the buffer that it was
    /// read into.
    read: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// Bytes that may still be kept.
    room: usize,
    /// More has been read than is kept.
    lost: bool,
    ended: bool,
    /// Stands still while more of it is waited for.
    clock: Rc<Clock>,
    /// Tries that were given up: what is left of one must not read what the next is to send.
    withdrawn: u32,
    tally: Rc<Tally>,
    messages: Option<Messages>,
    copies: Copies,
}

/// The source of a request's tries.
pub(crate) type SharedSource = Rc<RefCell<Source>>;

impl Source {
    /// The body as it comes from the client, of which `room` bytes are kept.
    pub(crate) fn new(
        inner: Incoming,
        room: usize,
        clock: Rc<Clock>,
        tally: Rc<Tally>,
        grpc: bool,
    ) -> SharedSource {
        Rc::new(RefCell::new(Self {
            inner,
            read: Vec::new(),
            trailers: None,
            room,
            lost: false,
            ended: false,
            clock,
            withdrawn: 0,
            tally,
            messages: grpc.then(Messages::default),
            copies: Copies::default(),
        }))
    }

    /// Whether all of it can be sent once more.
    pub(crate) fn is_kept(&self) -> bool {
        !self.lost
    }

    /// Gives up the try under way: its connection may still hold the body for a moment.
    pub(crate) fn withdraw(&mut self) {
        self.withdrawn += 1;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.inner.is_end_stream() {
            self.clock.ask();
        }
        let mut frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &mut frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    leave_framing(trailers);
                }
                self.keep(frame);
                self.copies.see(frame);
            }
            Some(Err(_)) => {
                self.lost = true;
                self.copies.end(false);
            }
            None => self.ended = true,
        }
        self.tell_end();
        // Nothing comes after trailers, and who has sent them does not ask; nor does who sends as much as was announced over
        // HTTP/1.1, where a client of HTTP/2 may say its end apart.
        let announced = self.inner.size_hint().exact() == Some(0);
        if self.ended || announced || self.trailers.is_some() || self.inner.is_end_stream() {
            self.clock.complete();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Client)))
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
        let Some(data) = frame.data_ref() else { return };
        self.tally.received.set(self.tally.received.get() + data.len() as u64);
        if let Some(messages) = &mut self.messages {
            self.tally.messages_received.set(messages.see(data));
        }
        match self.room.checked_sub(data.len()).filter(|_| !self.lost) {
            Some(left) => {
                self.room = left;
                if self.read.capacity() - self.read.len() < data.len() {
                    self.read.reserve_exact(data.len() + self.read.len().min(left));
                }
                self.read.extend_from_slice(data);
            }
            None => {
                self.lost = true;
                self.read = Vec::new();
            }
        }
    }
}

/// What holds the body of a try back.
#[derive(Debug)]
struct Waiting {
    gate: Gate,
    /// From when the endpoint has been asked.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Waiting {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
        if patience.as_mut().poll(cx).is_ready() {
            self.gate.open();
        }
        self.gate.poll(cx)
    }
}

/// The body of one try of a request.
#[derive(Debug)]
pub(crate) struct Try {
    source: SharedSource,
    /// Bytes of what was read that have been sent.
    at: usize,
    trailers_sent: bool,
    /// Tries that were given up before it began.
    number: u32,
    waiting: Option<Waiting>,
    /// How the connection that it goes by is filled, where that is of HTTP/1.1.
    pace: Option<Rc<Pace>>,
}

/// A request's body on its way to an endpoint.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// That of a try.
    Try(Try),
    /// That of a copy.
    Copied(Copied),
}

impl RequestBody {
    /// All of a request's body, from the beginning.
    pub(crate) fn new(source: &SharedSource, gate: Option<Gate>) -> Self {
        let number = source.borrow().withdrawn;
        let waiting = gate.map(|gate| Waiting { gate, patience: None });
        Self::Try(Try { source: source.clone(), at: 0, trailers_sent: false, number, waiting, pace: None })
    }

    /// All of a request's body for a copy of the request; nothing may have been read of it yet.
    pub(crate) fn copy(source: &SharedSource) -> Self {
        Self::Copied(Copied::of(source))
    }

    /// It goes by a connection that is filled so. A copy, which may be only so much behind, is not held back.
    pub(crate) fn keep_to(&mut self, pace: &Rc<Pace>) {
        if let Self::Try(body) = self {
            body.pace = Some(pace.clone());
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Try(body) => body.poll_frame(cx),
            Self::Copied(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Try(body) => body.is_end_stream(),
            Self::Copied(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Try(body) => body.size_hint(),
            // Framed as the original's fields say.
            Self::Copied(_) => SizeHint::default(),
        }
    }
}

impl Try {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self;
        if this.number != this.source.borrow().withdrawn {
            return Poll::Ready(Some(Err(BodyError::Withdrawn)));
        }
        if let Some(waiting) = &mut this.waiting {
            if let Err(error) = ready!(waiting.poll(cx)) {
                return Poll::Ready(Some(Err(error)));
            }
            this.waiting = None;
        }
        if let Some(pace) = &this.pace {
            ready!(pace.poll_taken(cx));
        }
        let source = &mut *this.source.borrow_mut();
        if let Some(data) = source.read.get(this.at..).filter(|data| !data.is_empty()) {
            let data = Bytes::copy_from_slice(data);
            this.at += data.len();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = source.trailers.as_ref().filter(|_| !this.trailers_sent) {
            this.trailers_sent = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
        }
        if source.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(source.poll(cx));
        this.at = source.read.len();
        this.trailers_sent = source.trailers.is_some();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let source = self.source.borrow();
        let trailers = source.trailers.is_some() && !self.trailers_sent;
        self.at >= source.read.len() && !trailers && (source.ended || source.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let source = self.source.borrow();
        let kept = source.read.len().saturating_sub(self.at) as u64;
        let coming = source.inner.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(kept + coming.lower());
        if let Some(upper) = coming.upper() {
            hint.set_upper(kept + upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests;
