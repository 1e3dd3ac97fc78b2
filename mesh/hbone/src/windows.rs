//! What flow control lets peers send beyond the least that every stream has, all tunnels of a process together.
//!
//! A window that is open is memory that its peer may fill whenever it likes: who does not read makes us hold all of it. So
//! windows begin small, grow with what a stream has carried, and grow only while there is something left of what all of
//! them may have. Of that, one takes no more than twice what remains, as of everything in a [`crate::account::Ledger`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::account::is_fair;

/// A stream's window is at most this part of what the stream has carried. A stalled peer still takes what fits into the
/// sockets and windows on the way to it, some 3 MiB, at full speed: that must not look like one that reads.
const PART_OF_CARRIED: u32 = 32;

/// The bytes that windows may have beyond their least, and how many of them are given out.
#[derive(Debug)]
pub struct Windows {
    most: u64,
    given: AtomicU64,
}

impl Windows {
    /// As many bytes as `most` for all windows together.
    pub fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { most, given: AtomicU64::new(0) })
    }

    /// Bytes given out now.
    pub fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }

    /// What has none of them yet.
    pub fn none(self: &Arc<Self>) -> Wider {
        Wider { windows: Arc::clone(self), bytes: 0 }
    }
}

/// What a connection has of them; given back when dropped.
#[derive(Debug)]
pub struct Wider {
    windows: Arc<Windows>,
    bytes: u64,
}

impl Wider {
    /// Takes `more` bytes, or says that they would be more than this one's share.
    pub fn take(&mut self, more: u32) -> bool {
        let more = u64::from(more);
        let all = self.windows.given.fetch_add(more, Ordering::Relaxed) + more;
        let fits = all <= self.windows.most && is_fair(self.bytes + more, all, self.windows.most);
        if fits {
            self.bytes += more;
        } else {
            self.windows.given.fetch_sub(more, Ordering::Relaxed);
        }
        fits
    }

    /// Gives `bytes` of them back.
    pub fn give_back(&mut self, bytes: u32) {
        let bytes = u64::from(bytes).min(self.bytes);
        self.bytes -= bytes;
        self.windows.given.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Wider {
    fn drop(&mut self) {
        self.windows.given.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// By how much a stream's window may grow now that it has carried `carried` bytes: once more as large, or as much as it
/// lacks of the largest, or nothing.
pub fn growth(window: u32, largest: u32, carried: u32) -> u32 {
    let lacks = largest.saturating_sub(window);
    let more = window.min(lacks);
    if more > 0 && carried / PART_OF_CARRIED >= window.saturating_add(more) { more } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_grows_with_what_was_carried() {
        const K: u32 = 1 << 10;
        // window, largest, carried, growth
        let rows = [
            (64 * K, 64 * K, u32::MAX, 0),
            (64 * K, 512 * K, 0, 0),
            (64 * K, 512 * K, 4096 * K - 1, 0),
            (64 * K, 512 * K, 4096 * K, 64 * K),
            (128 * K, 512 * K, 4096 * K, 0),
            (128 * K, 512 * K, 8192 * K, 128 * K),
            (256 * K, 512 * K, 16_384 * K, 256 * K),
            (384 * K, 512 * K, u32::MAX, 128 * K),
            (512 * K, 512 * K, u32::MAX, 0),
        ];
        for (window, largest, carried, expected) in rows {
            assert_eq!(growth(window, largest, carried), expected, "{window} of {largest} after {carried}");
        }
    }

    #[test]
    fn one_takes_no_more_than_twice_what_is_left() {
        let windows = Windows::new(900);
        let (mut greedy, mut next) = (windows.none(), windows.none());
        assert!(greedy.take(600), "two thirds");
        assert!(!greedy.take(1), "no more");
        assert!(next.take(200));
        assert!(!next.take(1));
        assert_eq!(windows.given(), 800);
        greedy.give_back(300);
        assert!(next.take(100));
        drop(greedy);
        assert_eq!(windows.given(), 300);
        drop(next);
        assert_eq!(windows.given(), 0);
    }
}
