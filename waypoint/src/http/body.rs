//! The body of an answer on its way to the client. Its end is the end of the request.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use model::route::headers::leave_framing;
use tokio::task::spawn_local;
use tokio_util::task::AbortOnDropHandle;

use super::Connection;
use super::messages::Messages;
use crate::pace::Pace;
use crate::telemetry::Exchange;
use crate::upstream::{Answer, Broken, Deadline, GateKeeper, Lease};
use crate::worker::Worker;

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// One of ours.
    Own(Option<Bytes>),
    /// An endpoint's; what watches over its time has a hand on it too.
    Passed(Rc<RefCell<Passed>>),
}

/// What an endpoint answers.
#[derive(Debug)]
pub(crate) struct Passed {
    /// Nothing once it has taken too long.
    inner: Option<Answer>,
    exchange: Exchange,
    /// The connection that it comes on.
    lease: Option<Lease>,
    /// What held the request's body back.
    _gate: Option<GateKeeper>,
    worker: Rc<Worker>,
    /// How the client's connection is filled.
    pace: Rc<Pace>,
    messages: Option<Messages>,
    /// Where all of it has to be there in time.
    watch: Option<Watch>,
}

/// Ends an answer that takes too long, whether its client asks for more of it or takes nothing.
#[derive(Debug)]
struct Watch {
    _task: AbortOnDropHandle<()>,
    /// Who waits for more of it.
    waker: Option<Waker>,
}

impl Watch {
    fn begin(passed: &Rc<RefCell<Passed>>, deadline: Deadline) -> Self {
        let passed = Rc::downgrade(passed);
        let task = spawn_local(async move {
            deadline.past().await;
            if let Some(passed) = passed.upgrade() {
                passed.borrow_mut().too_late();
            }
        });
        Self { _task: AbortOnDropHandle::new(task), waker: None }
    }
}

impl ResponseBody {
    /// A text, or nothing.
    pub(crate) fn own(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        Self::Own((!text.is_empty()).then_some(text))
    }

    /// What an endpoint sends.
    pub(crate) fn passed(
        inner: Answer,
        exchange: Exchange,
        lease: Lease,
        gate: Option<GateKeeper>,
        connection: &Connection,
        deadline: Option<Deadline>,
    ) -> Self {
        let messages = exchange.is_grpc().then(Messages::default);
        let (worker, pace) = (connection.worker.clone(), connection.pace.clone());
        let passed = Rc::new(RefCell::new(Passed {
            inner: Some(inner),
            exchange,
            lease: Some(lease),
            _gate: gate,
            worker,
            pace,
            messages,
            watch: None,
        }));
        if let Some(deadline) = deadline {
            let watch = Watch::begin(&passed, deadline);
            passed.borrow_mut().watch = Some(watch);
        }
        Self::Passed(passed)
    }
}

impl Passed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let polled = self.poll_inner(cx);
        if polled.is_pending()
            && let Some(watch) = &mut self.watch
        {
            watch.waker = Some(cx.waker().clone());
        }
        polled
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(Some(Err(BrokenOff::TooLate))) };
        ready!(self.pace.poll_taken(cx));
        let mut frame = ready!(Pin::new(inner).poll_frame(cx));
        match &mut frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    leave_framing(trailers);
                }
                self.see(frame);
            }
            Some(Err(error)) => {
                self.exchange.broke(error.to_string());
                self.lease = None;
            }
            None => self.whole(),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BrokenOff::Endpoint)))
    }

    /// Its time is up: the endpoint is rid of it now, its client once it asks for more.
    fn too_late(&mut self) {
        if self.is_whole() || self.lease.take().is_none() {
            return;
        }
        self.inner = None;
        self.exchange.too_late();
        if let Some(waker) = self.watch.as_mut().and_then(|watch| watch.waker.take()) {
            waker.wake();
        }
    }

    /// Whether nothing more comes.
    fn is_whole(&self) -> bool {
        self.inner.as_ref().is_some_and(Answer::is_end_stream)
    }

    fn see(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            let tally = &self.exchange.tally;
            tally.sent.set(tally.sent.get() + data.len() as u64);
            if let Some(messages) = &mut self.messages {
                tally.messages_sent.set(messages.see(data));
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.exchange.trailers(trailers);
        }
    }

    fn whole(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.exchange.complete();
            lease.done(&self.worker);
        }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        // Who knows from the length that nothing more comes does not ask for it.
        if self.is_whole() {
            self.whole();
        }
    }
}

/// Why an answer's body breaks off: the client's connection, or its stream, is reset.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokenOff {
    /// The endpoint's own broke off.
    #[error("the endpoint's answer broke off: {0}")]
    Endpoint(Broken),
    /// It took longer than it may.
    #[error("the answer took longer than its rule allows")]
    TooLate,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match &mut *self {
            Self::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Passed(passed) => passed.borrow_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(text) => text.is_none(),
            Self::Passed(passed) => passed.borrow().is_whole(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Passed(passed) => passed.borrow().inner.as_ref().map(Answer::size_hint).unwrap_or_default(),
        }
    }
}
