//! How often a peer may do what costs it nothing and us something, counted per second.

use std::time::Duration;

use super::Fault;
use crate::frame::code;
use crate::limits::{Limit, Limits};

/// Counters of the second that runs. A burst across the border of two seconds may reach twice the limit.
#[derive(Debug)]
pub(super) struct Rates {
    second: u64,
    resets: Left,
    pings: Left,
    settings: Left,
    empty: Left,
    /// Resets of ours. The peer is taken to have the limit that we have, and must have no reason to end the tunnel.
    own_resets: u32,
    most_own_resets: u32,
}

#[derive(Debug, Clone, Copy)]
struct Left {
    most: u32,
    left: u32,
    limit: Limit,
    text: &'static str,
}

impl Left {
    fn new(most: u32, limit: Limit, text: &'static str) -> Self {
        Self { most, left: most, limit, text }
    }

    fn take(&mut self) -> Result<(), Fault> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Fault::above(self.limit, code::ENHANCE_YOUR_CALM, self.text)),
        }
    }
}

impl Rates {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            second: 0,
            resets: Left::new(
                limits.resets_per_second,
                Limit::Resets,
                "too many stream resets in one second",
            ),
            pings: Left::new(limits.pings_per_second, Limit::Pings, "too many PINGs in one second"),
            settings: Left::new(
                limits.settings_per_second,
                Limit::Settings,
                "too many SETTINGS in one second",
            ),
            empty: Left::new(
                limits.empty_frames_per_second,
                Limit::EmptyFrames,
                "too many frames without content in one second",
            ),
            own_resets: 0,
            most_own_resets: limits.resets_per_second / 2,
        }
    }

    /// Starts a new second when `now` is in one.
    pub(super) fn at(&mut self, now: Duration) {
        if now.as_secs() != self.second {
            self.second = now.as_secs();
            self.own_resets = 0;
            for counter in [&mut self.resets, &mut self.pings, &mut self.settings, &mut self.empty] {
                counter.left = counter.most;
            }
        }
    }

    pub(super) fn reset(&mut self) -> Result<(), Fault> {
        self.resets.take()
    }

    /// We reset a stream.
    pub(super) fn own_reset(&mut self) {
        self.own_resets += 1;
    }

    /// Whether streams that are opened now could all be reset within the same second.
    pub(super) fn may_open(&self) -> bool {
        self.own_resets < self.most_own_resets
    }

    pub(super) fn ping(&mut self) -> Result<(), Fault> {
        self.pings.take()
    }

    pub(super) fn settings(&mut self) -> Result<(), Fault> {
        self.settings.take()
    }

    pub(super) fn empty(&mut self) -> Result<(), Fault> {
        self.empty.take()
    }
}
