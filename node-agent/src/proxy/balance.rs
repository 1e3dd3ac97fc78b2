//! Threads that carry much give connections to threads that carry little (`docs/decisions/0023-busy-threads.md`).
//!
//! What a pod opens to one address shares a tunnel, and a tunnel lives on one thread: that is what makes many small
//! exchanges cheap, and what keeps a pod's large transfers to one processor when they begin together. So a thread that
//! carries more than [`THREAD_BUSY`](crate::config::name::THREAD_BUSY) looks ten times a second whether another one
//! carries less than half of that, and lets go of as many of its largest connections as make the two alike. They go on
//! there by the way of all that leave their tunnels ([`moves`](super::moves)), without losing a byte.

use std::cmp::Reverse;
use std::rc::Rc;
use std::time::Duration;

use hbone::fairness;
use tokio::time::{sleep, sleep_until};

use super::worker::Worker;

/// Looks a second.
const LOOKS: u64 = 10;
/// How long a thread is looked at before its rate says something.
pub(crate) const LOOK: Duration = Duration::from_millis(1000 / LOOKS);
/// Pause after connections have left, until what that has changed can be seen.
const REST: Duration = Duration::from_secs(1);
/// Connections that leave at a time.
const MOST: usize = 64;
/// What carries less of a busy thread's measure than this part is not worth the way.
const SMALLEST: u64 = 64;

/// What one connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carries {
    /// Its place in the thread's table.
    pub(crate) key: u32,
    /// Bytes since the last look, or a second.
    pub(crate) bytes: u64,
}

/// Bytes a second.
pub(crate) fn rate(bytes: u64, elapsed: Duration) -> u64 {
    let rate = u128::from(bytes) * 1_000_000_000 / elapsed.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// Whether a thread that carries `own` bytes a second should let one that carries `other` have some of it.
pub(crate) fn is_uneven(own: u64, other: u64) -> bool {
    other < own / 2
}

/// Which of a thread's connections go to another one, so that the two come to carry the same: the largest that fit into half
/// of what is between them. All figures are for the same time.
fn leaving(own: u64, other: u64, mut connections: Vec<Carries>) -> Vec<u32> {
    let mut room = own.saturating_sub(other) / 2;
    connections.sort_by_key(|one| Reverse(one.bytes));
    let fits = |one: &Carries| {
        let left = room.checked_sub(one.bytes);
        room = left.unwrap_or(room);
        left.is_some()
    };
    connections.into_iter().filter(fits).take(MOST).map(|one| one.key).collect()
}

/// Looks at a thread while it is busy; it never ends.
pub(crate) async fn drive(worker: Rc<Worker>) {
    let much = worker.agent.thread_busy / LOOKS;
    loop {
        fairness::moved(much).await;
        sleep_until(worker.counted() + LOOK).await;
        if give_away(&worker, much / SMALLEST) > 0 {
            sleep(REST).await;
        }
    }
}

/// Lets go of what another thread should carry, of that which carried at least `smallest` bytes; returns how many.
fn give_away(worker: &Worker, smallest: u64) -> usize {
    let mut large = Vec::new();
    let elapsed = worker.count(|one| {
        if one.bytes >= smallest.max(1) {
            large.push(one);
        }
    });
    // From a proxy that retires everything leaves anyway.
    let other = worker.less_busy().filter(|_| !worker.agent.is_retiring());
    let Some((thread, other)) = other else { return 0 };
    large.iter_mut().for_each(|one| one.bytes = rate(one.bytes, elapsed));
    let keys = leaving(worker.bytes(), other.bytes(), large);
    let sent = worker.connections.send(&keys, thread);
    tracing::debug!(
        thread = worker.index,
        to = thread,
        connections = sent,
        "a busy thread gives connections away"
    );
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys_leaving(other: u64, carried: &[u64]) -> Vec<u32> {
        let connections =
            carried.iter().zip(0..).map(|(bytes, key)| Carries { key, bytes: *bytes }).collect();
        leaving(carried.iter().sum(), other, connections)
    }

    #[test]
    fn what_leaves_makes_two_threads_alike() {
        for (other, carried, expected) in [
            // One cannot be divided.
            (0, &[100][..], &[][..]),
            (0, &[100, 100], &[0]),
            (0, &[51, 49], &[1]),
            (0, &[100; 8], &[0, 1, 2, 3]),
            (400, &[100; 8], &[0, 1]),
            (800, &[100; 8], &[]),
            (900, &[100; 8], &[]),
            // The largest first, then what still fits.
            (0, &[10, 300, 20, 60, 200, 10], &[1]),
            (0, &[1, 400, 30, 90, 60, 9], &[3, 4, 2, 5, 0]),
        ] {
            assert_eq!(keys_leaving(other, carried), expected, "{other} {carried:?}");
        }
    }

    #[test]
    fn not_all_leave_at_once() {
        assert_eq!(keys_leaving(0, &[1; 1000]).len(), MOST);
    }

    #[test]
    fn only_where_another_carries_less_than_half() {
        for (own, other, expected) in [(100, 0, true), (100, 49, true), (100, 50, false), (0, 0, false)] {
            assert_eq!(is_uneven(own, other), expected, "{own} {other}");
        }
    }

    #[test]
    fn rates_are_by_the_second() {
        for (bytes, milliseconds, expected) in
            [(25, 100, 250), (0, 100, 0), (1 << 40, 500, 1 << 41), (7, 0, 7_000_000_000)]
        {
            assert_eq!(rate(bytes, Duration::from_millis(milliseconds)), expected, "{bytes} {milliseconds}");
        }
    }
}
