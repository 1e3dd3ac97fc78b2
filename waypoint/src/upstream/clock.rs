//! What the time is counted from that a request may take: as in Envoy, from when all of it has come. An upload lasts as long
//! as its client takes, and so does a stream of messages, whose end its client has not said yet.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The clock of a request. It stands still from when more of the body is asked for until it is whole; before, while there is
/// no connection to send it on or no endpoint that wants it, nobody waits for the client.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Nothing while it stands still.
    from: Cell<Option<Instant>>,
    whole: Cell<bool>,
    going: Notify,
}

/// How long a request may still take.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Allowed {
    /// All tries together.
    pub(crate) total: Option<Duration>,
    /// The try under way, and when that began.
    pub(crate) per_try: Option<(Instant, Duration)>,
}

/// Which time is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Up {
    /// That of all tries together.
    All,
    /// That of one.
    Try,
}

impl Allowed {
    /// What is up first, and when.
    fn first(&self, from: Instant) -> Option<(Instant, Up)> {
        let all = self.total.map(|total| from + total);
        let one = self.per_try.map(|(began, per_try)| began.max(from) + per_try);
        match (one, all) {
            (Some(one), Some(all)) if all <= one => Some((all, Up::All)),
            (Some(one), _) => Some((one, Up::Try)),
            (None, all) => all.map(|all| (all, Up::All)),
        }
    }
}

impl Clock {
    /// One that goes from now on.
    pub(crate) fn start() -> Rc<Self> {
        let from = Cell::new(Some(Instant::now()));
        Rc::new(Self { from, whole: Cell::default(), going: Notify::new() })
    }

    /// Counts from now on: what was before is no part of what a request may take.
    pub(crate) fn restart(&self) {
        self.from.set(Some(Instant::now()));
    }

    /// The client is waited for.
    pub(super) fn ask(&self) {
        if !self.whole.get() {
            self.from.set(None);
        }
    }

    /// All has come.
    pub(super) fn complete(&self) {
        if !self.whole.replace(true) && self.from.get().is_none() {
            self.restart();
            self.going.notify_waiters();
        }
    }

    /// What has passed.
    pub(crate) fn passed(&self) -> Duration {
        self.from.get().map(|from| from.elapsed()).unwrap_or_default()
    }

    /// Waits until a time is up; for ever where there is no limit.
    pub(crate) async fn up(&self, limits: Allowed) -> Up {
        loop {
            let Some(from) = self.from.get() else {
                self.going.notified().await;
                continue;
            };
            let Some((until, up)) = limits.first(from) else { return pending().await };
            sleep_until(until).await;
            if self.from.get() == Some(from) {
                return up;
            }
        }
    }

    /// When all of the answer has to be there.
    pub(crate) fn deadline(self: &Rc<Self>, total: Duration) -> Deadline {
        Deadline { clock: self.clone(), total }
    }
}

/// Until when all of an answer has to be there.
#[derive(Debug)]
pub(crate) struct Deadline {
    clock: Rc<Clock>,
    total: Duration,
}

impl Deadline {
    /// Waits until it is past.
    pub(crate) async fn past(&self) {
        self.clock.up(Allowed { total: Some(self.total), per_try: None }).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use tokio::time::advance;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_is_counted_from_its_begin_or_from_the_end_of_the_request_and_all_of_them_from_that() {
        let start = Instant::now();
        // When the request was whole, when the try began, the two limits; what is up first, and when.
        for (from, began, total, per_try, expected) in [
            (0, 0, None, None, None),
            (0, 0, Some(3), None, Some((3, Up::All))),
            (5, 0, Some(3), None, Some((8, Up::All))),
            (0, 2, None, Some(1), Some((3, Up::Try))),
            (5, 2, None, Some(1), Some((6, Up::Try))),
            (0, 2, Some(4), Some(1), Some((3, Up::Try))),
            (0, 2, Some(3), Some(1), Some((3, Up::All))),
            (0, 2, Some(3), Some(5), Some((3, Up::All))),
        ] {
            let per_try = per_try.map(|limit| (start + seconds(began), seconds(limit)));
            let limits = Allowed { total: total.map(seconds), per_try };
            let first = limits.first(start + seconds(from)).map(|(until, up)| (until - start, up));
            assert_eq!(first, expected.map(|(at, up)| (seconds(at), up)), "{from} {limits:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_stands_still_while_the_client_is_waited_for() {
        let limits = Allowed { total: Some(seconds(3)), per_try: None };
        let clock = Clock::start();
        advance(seconds(2)).await;
        assert_eq!(clock.passed(), seconds(2));
        let begun = Instant::now();
        let mut up = pin!(clock.up(limits));
        // Who waits already learns of it.
        assert!(poll_fn(|cx| Poll::Ready(up.as_mut().poll(cx).is_pending())).await);
        clock.ask();
        assert_eq!(clock.passed(), Duration::ZERO);
        tokio::join!(up, async {
            advance(seconds(60)).await;
            clock.ask();
            advance(seconds(60)).await;
            clock.complete();
            // What is read again of what is whole, and said of it twice, changes nothing.
            advance(seconds(1)).await;
            clock.ask();
            clock.complete();
        });
        assert_eq!(begun.elapsed(), seconds(123));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_before_a_start_does_not_count() {
        let clock = Clock::start();
        advance(seconds(5)).await;
        clock.restart();
        let begun = Instant::now();
        let up = clock.up(Allowed { total: Some(seconds(3)), per_try: Some((begun, seconds(2))) }).await;
        assert_eq!((up, begun.elapsed()), (Up::Try, seconds(2)));
        clock.deadline(seconds(3)).past().await;
        assert_eq!(begun.elapsed(), seconds(3));
    }
}
