//! Whether the machine itself stands still now and then, so that nobody else is blamed for it: a thread that does nothing
//! but sleep, and notes when it wakes much later than it asked to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::traffic::now;

/// How long it sleeps.
const EVERY: Duration = Duration::from_millis(50);
/// How much later it has to wake for the machine to have stood still, in milliseconds: what takes a second otherwise does not
/// for less.
const LATE: u64 = 300;

/// Looks until it is dropped.
#[derive(Debug)]
pub struct Pulse {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    stalls: Mutex<Vec<Stall>>,
}

/// Between when and when the machine stood still, in milliseconds of its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    /// When it was last seen to go.
    pub begun: u64,
    /// When it went again.
    pub ended: u64,
}

impl Stall {
    /// What two moments at which the thread was awake say.
    fn between(before: u64, after: u64) -> Option<Self> {
        let asked = before + u64::try_from(EVERY.as_millis()).unwrap_or_default();
        (after >= asked + LATE).then_some(Self { begun: before, ended: after })
    }

    /// Whether something that took from `begun` to `ended` was under way meanwhile.
    pub fn during(&self, begun: u64, ended: u64) -> bool {
        self.begun <= ended && begun <= self.ended
    }
}

impl Pulse {
    /// Begins to look.
    pub fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.watch()
        });
        Self { shared, thread: Some(thread) }
    }

    /// What was seen so far.
    pub fn stalls(&self) -> Vec<Stall> {
        self.shared.stalls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn watch(&self) {
        let mut before = now();
        while !self.stop.load(Ordering::Relaxed) {
            #[allow(clippy::disallowed_methods, reason = "how long this takes is what is looked at")]
            thread::sleep(EVERY);
            let after = now();
            if let Some(stall) = Stall::between(before, after) {
                self.stalls.lock().unwrap_or_else(PoisonError::into_inner).push(stall);
            }
            before = after;
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panics nowhere.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waking_much_too_late_is_a_stall() {
        for (after, stalled) in [(1000, false), (1050, false), (1349, false), (1350, true), (9000, true)] {
            let seen = Stall::between(1000, after);
            assert_eq!(seen, stalled.then_some(Stall { begun: 1000, ended: after }), "{after}");
        }
        let stall = Stall { begun: 1000, ended: 2000 };
        for (begun, ended, during) in
            [(0, 999, false), (0, 1000, true), (1500, 1600, true), (2000, 3000, true), (2001, 3000, false)]
        {
            assert_eq!(stall.during(begun, ended), during, "{begun} to {ended}");
        }
    }
}
