//! One client's stream of responses, as the transport has it. Who has to make room is ended from outside: at once, and
//! with all that was kept for it, though nobody asks for its next response because it reads none.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use futures_util::Stream;
use proto::discovery::DeltaDiscoveryResponse;
use tonic::Status;

/// What the responses are.
type Inner = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

/// A stream that may be ended from outside.
pub(super) struct Responses(Arc<Slot>);

/// Ends it.
#[derive(Clone)]
pub(super) struct Ender(Weak<Slot>);

#[derive(Default)]
struct Slot(Mutex<State>);

#[derive(Default)]
struct State {
    stream: Option<Inner>,
    /// What to say to the client before the end.
    farewell: Option<Status>,
    ended: bool,
    waker: Option<Waker>,
}

impl Responses {
    /// A stream without responses yet, and what ends it.
    pub(super) fn new() -> (Self, Ender) {
        let slot = Arc::<Slot>::default();
        let ender = Ender(Arc::downgrade(&slot));
        (Self(slot), ender)
    }

    /// What the responses are.
    pub(super) fn fill(&self, stream: Inner) {
        let mut state = self.0.lock();
        if !state.ended {
            state.stream = Some(stream);
        }
    }
}

impl Ender {
    /// Ends the stream with this status, and frees what it holds.
    pub(super) fn end(&self, farewell: Status) {
        let Some(slot) = self.0.upgrade() else { return };
        let (stream, waker) = {
            let mut state = slot.lock();
            state.ended = true;
            state.farewell = Some(farewell);
            (state.stream.take(), state.waker.take())
        };
        // Not under the lock: it gives up its place among the clients.
        drop(stream);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream for Responses {
    type Item = Result<DeltaDiscoveryResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.0.lock();
        if let Some(farewell) = state.farewell.take() {
            return Poll::Ready(Some(Err(farewell)));
        }
        let Some(stream) = &mut state.stream else { return Poll::Ready(None) };
        let next = stream.as_mut().poll_next(cx);
        match &next {
            Poll::Pending => state.waker = Some(cx.waker().clone()),
            Poll::Ready(None) => state.stream = None,
            Poll::Ready(Some(_)) => {}
        }
        next
    }
}

impl std::fmt::Debug for Ender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ender")
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt, stream};

    use super::*;

    #[tokio::test]
    async fn one_that_nobody_takes_from_is_freed_at_once_and_told_later() {
        let kept = Arc::new(());
        let (mut responses, ender) = Responses::new();
        let held = kept.clone();
        responses.fill(Box::pin(stream::poll_fn(move |_| {
            assert!(Arc::strong_count(&held) > 0);
            Poll::Pending
        })));
        assert!(responses.next().now_or_never().is_none());
        assert_eq!(Arc::strong_count(&kept), 2);
        ender.end(Status::resource_exhausted("enough"));
        assert_eq!(Arc::strong_count(&kept), 1);
        let told = responses.next().await.expect("a farewell").expect_err("an end");
        assert_eq!(told.message(), "enough");
        assert!(responses.next().await.is_none());
    }

    #[tokio::test]
    async fn one_that_waits_is_woken_and_one_that_begins_late_ends_too() {
        let (mut responses, ender) = Responses::new();
        responses.fill(Box::pin(stream::pending()));
        let (told, ()) = tokio::join!(responses.next(), async { ender.end(Status::aborted("")) });
        assert!(told.is_some_and(|told| told.is_err()));
        let (mut responses, ender) = Responses::new();
        ender.end(Status::aborted(""));
        responses.fill(Box::pin(stream::pending()));
        assert!(responses.next().await.is_some_and(|told| told.is_err()));
        assert!(responses.next().await.is_none());
    }
}
