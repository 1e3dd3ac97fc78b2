//! The body of an answer on its way to the client. Its end is the end of the request.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use model::route::headers::leave_framing;

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
    /// An endpoint's.
    Passed(Box<Passed>),
}

/// What an endpoint answers.
#[derive(Debug)]
pub(crate) struct Passed {
    inner: Answer,
    exchange: Exchange,
    /// The connection that it comes on.
    lease: Option<Lease>,
    /// What held the request's body back.
    _gate: Option<GateKeeper>,
    worker: Rc<Worker>,
    /// How the client's connection is filled.
    pace: Rc<Pace>,
    messages: Option<Messages>,
    /// Until when all of it has to be there.
    deadline: Option<Deadline>,
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
        Self::Passed(Box::new(Passed {
            inner,
            exchange,
            lease: Some(lease),
            _gate: gate,
            worker,
            pace,
            messages,
            deadline,
        }))
    }
}

impl Passed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.poll(cx).is_ready()
        {
            self.exchange.too_late();
            self.lease = None;
            return Poll::Ready(Some(Err(BrokenOff::TooLate)));
        }
        ready!(self.pace.poll_taken(cx));
        let mut frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
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
        if self.inner.is_end_stream() {
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
            Self::Passed(passed) => passed.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(text) => text.is_none(),
            Self::Passed(passed) => passed.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Passed(passed) => passed.inner.size_hint(),
        }
    }
}
