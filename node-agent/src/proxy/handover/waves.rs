//! How many connections are on their way to a successor at a time. One that waits for its turn goes on as before; one that
//! is on its way stands still until it has gone on there, and so waits for all that left before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Connections on their way at a time: enough to keep both processes and the peers busy, few enough that what each adds
/// to the pause of the next stays below some ten milliseconds.
const WAVE: u64 = 64;
/// The predecessor's reckoning.
#[derive(Debug, Default)]
pub(super) struct Waves {
    /// Asked to leave their tunnels, and not gone on yet.
    on_their_way: u64,
    /// Asked since time has passed.
    asked: u64,
    /// Gone on, ever.
    gone_on: u64,
}

impl Waves {
    /// How many more may be asked to leave their tunnels; none where it would be a few only.
    pub(super) fn room(&self) -> u64 {
        let room = WAVE.saturating_sub(self.on_their_way);
        if room < WAVE / 4 { 0 } else { room }
    }

    pub(super) fn asked(&mut self, connections: u64) {
        self.asked += connections;
        self.on_their_way += connections;
    }

    /// So many have gone on in all.
    pub(super) fn gone_on(&mut self, connections: u64) {
        let more = connections.saturating_sub(self.gone_on);
        self.on_their_way = self.on_their_way.saturating_sub(more);
        self.gone_on += more;
    }

    /// Some time has passed, more than a connection takes. Those asked before it are not waited for any more: they have
    /// ended by themselves, or their peer has not answered.
    pub(super) fn time_has_passed(&mut self) {
        self.on_their_way = self.on_their_way.min(self.asked);
        self.asked = 0;
    }
}

/// The successor's: how many have gone on.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    gone_on: AtomicU64,
    more: Notify,
}

impl Arrivals {
    /// Waits until more have gone on than when it was called before; how many in all.
    pub(super) async fn more(&self) -> u64 {
        self.more.notified().await;
        self.gone_on.load(Ordering::Acquire)
    }
}

/// A connection that has come from a predecessor and has not gone on yet; when dropped, it has, or has ended.
#[derive(Debug)]
pub(crate) struct Arriving(Arc<Arrivals>);

impl Arriving {
    pub(super) fn new(arrivals: &Arc<Arrivals>) -> Self {
        Self(arrivals.clone())
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.gone_on.fetch_add(1, Ordering::AcqRel);
        self.0.more.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_behind_wait_for_those_before() {
        let mut waves = Waves::default();
        assert_eq!(waves.room(), WAVE);
        waves.asked(WAVE);
        assert_eq!(waves.room(), 0);
        waves.gone_on(WAVE / 4 - 1);
        assert_eq!(waves.room(), 0);
        waves.gone_on(WAVE / 2);
        assert_eq!(waves.room(), WAVE / 2);
        // An older count that comes late takes nothing back.
        waves.gone_on(3);
        assert_eq!(waves.room(), WAVE / 2);
        // More than were asked: some left their tunnels for another reason.
        waves.gone_on(2 * WAVE);
        assert_eq!(waves.room(), WAVE);
    }

    #[test]
    fn those_that_do_not_come_hold_nobody_up() {
        let mut waves = Waves::default();
        for _ in 0..3 {
            waves.asked(WAVE);
            waves.time_has_passed();
            assert_eq!(waves.room(), 0, "it may be that they were asked just now");
            waves.time_has_passed();
            assert_eq!(waves.room(), WAVE);
        }
        waves.asked(WAVE / 2);
        waves.time_has_passed();
        waves.asked(WAVE / 2);
        waves.time_has_passed();
        assert_eq!(waves.room(), WAVE / 2);
    }

    #[tokio::test]
    async fn what_has_gone_on_is_told() {
        let arrivals = Arc::new(Arrivals::default());
        drop([Arriving::new(&arrivals), Arriving::new(&arrivals)]);
        assert_eq!(arrivals.more().await, 2);
        drop(Arriving::new(&arrivals));
        assert_eq!(arrivals.more().await, 3);
    }
}
