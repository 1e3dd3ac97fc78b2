//! How many requests began lately, for `retryBudget.budgetInterval`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// An interval is counted in so many parts: what is older than the interval is forgotten at most a part of it too late.
const PARTS: u64 = 16;

/// One more than that, so that a whole interval is remembered beside the part that is being counted in.
const KEPT: usize = PARTS as usize + 1;

/// Counts of the parts of time lately gone by. Each is the number of its part and the count in it, in one word, so that
/// threads that count at once need no lock.
#[derive(Debug)]
pub(super) struct Recent {
    parts: [AtomicU64; KEPT],
}

impl Default for Recent {
    fn default() -> Self {
        Self { parts: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Recent {
    /// Counts a request that begins now; nothing if there is no interval.
    pub(super) fn count(&self, interval: Duration, now: Duration) {
        let Some(number) = part(interval, now) else { return };
        let place = &self.parts[usize::try_from(number % KEPT as u64).unwrap_or(0)];
        let one_more = |word: u64| {
            let (kept, count) = split(word);
            Some(if kept == tag(number) { join(kept, count.saturating_add(1)) } else { join(tag(number), 1) })
        };
        let _ = place.fetch_update(Relaxed, Relaxed, one_more);
    }

    /// How many began within the interval that ends now.
    pub(super) fn within(&self, interval: Duration, now: Duration) -> u32 {
        let Some(number) = part(interval, now) else { return 0 };
        let oldest = number.saturating_sub(PARTS);
        let counts = (oldest..=number).map(|number| {
            let (kept, count) =
                split(self.parts[usize::try_from(number % KEPT as u64).unwrap_or(0)].load(Relaxed));
            if kept == tag(number) { count } else { 0 }
        });
        counts.fold(0, u32::saturating_add)
    }
}

/// The number of the part that a time is in.
fn part(interval: Duration, now: Duration) -> Option<u64> {
    let length = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).div_ceil(PARTS);
    // The first part has number 1: an empty word stands for nothing that has been.
    Some(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).checked_div(length)?.saturating_add(1))
}

/// What of a part's number is kept. Two parts with the same are too far apart to be mixed up.
fn tag(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0)
}

fn split(word: u64) -> (u32, u32) {
    (tag(word >> 32), tag(word))
}

fn join(tag: u32, count: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(count)
}
