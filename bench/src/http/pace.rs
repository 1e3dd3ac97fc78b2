//! The open loop's clock: requests fall due at a steady rate, each slot's in turn, whether or not the one before has been
//! answered. The kernel's timer is finer than the runtime's.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// Requests of one slot that have fallen due.
#[derive(Debug, Default)]
pub(super) struct Due {
    waiting: RefCell<VecDeque<Instant>>,
    more: Notify,
}

impl Due {
    /// When the next was due.
    pub(super) async fn next(&self) -> Instant {
        loop {
            if let Some(due) = self.waiting.borrow_mut().pop_front() {
                return due;
            }
            self.more.notified().await;
        }
    }
}

/// Deals requests out to the slots until it is dropped.
pub(super) async fn deal(slots: &[Rc<Due>], rate: f64) -> io::Result<()> {
    let interval = Duration::from_secs_f64(1.0 / rate.clamp(0.1, 1e6));
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    let period = Expiration::Interval(TimeSpec::from_duration(interval.max(Duration::from_micros(100))));
    timer.set(period, TimerSetTimeFlags::empty())?;
    #[expect(
        deprecated,
        reason = "its successor is unsafe to call, and this descriptor outlives its registration"
    )]
    let timer = AsyncFd::new(OwnedFd::from(timer))?;
    let (begin, mut next) = (Instant::now(), 0u32);
    loop {
        let mut ready = timer.readable().await?;
        nix::unistd::read(timer.get_ref(), &mut [0; 8])?;
        ready.clear_ready();
        let elapsed = begin.elapsed();
        while interval * next <= elapsed {
            let slot = &slots[next as usize % slots.len()];
            slot.waiting.borrow_mut().push_back(begin + interval * next);
            slot.more.notify_one();
            next += 1;
        }
    }
}
