//! How fast a controller is listened to whose responses are refused.
//!
//! Reading what is refused costs as much as reading what is not, and a controller that has lost its mind, or was taken
//! over, sends it as fast as it is read: the connections that this process carries would pay for it.

use std::time::Duration;

use tokio::time::Instant;

/// Refused responses that cost nothing: a mesh with some broken resources.
const FREE: u32 = 20;
/// How often one more is free.
const EVERY: Duration = Duration::from_millis(500);

/// Counts refused responses.
#[derive(Debug)]
pub(super) struct Patience {
    left: u32,
    /// Up to when `left` has been filled up.
    filled: Instant,
}

impl Patience {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: FREE, filled: now }
    }

    /// A response was refused: from when on the next one is read.
    pub(super) fn refused(&mut self, now: Instant) -> Instant {
        while self.left < FREE && self.filled + EVERY <= now {
            self.left += 1;
            self.filled += EVERY;
        }
        if self.left == FREE {
            self.filled = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                now
            }
            // What is filled up by then pays for this one.
            None => {
                self.filled += EVERY;
                self.filled
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_free_then_each_has_to_wait() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut patience = Patience::new(start);
        assert!((0..FREE).all(|_| patience.refused(start) == start));
        let mut now = start;
        for expected in [500, 1000, 1500] {
            now = patience.refused(now);
            assert_eq!(now, at(expected));
        }
        // After two quiet seconds there are four more, and no more than all after long.
        let now = at(3500);
        assert!((0..4).all(|_| patience.refused(now) == now));
        assert_eq!(patience.refused(now), at(4000));
        let now = at(1_000_000);
        assert!((0..FREE).all(|_| patience.refused(now) == now));
        assert!(patience.refused(now) > now);
    }
}
