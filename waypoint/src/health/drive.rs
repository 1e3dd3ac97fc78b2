//! When endpoints are asked: each has a task of its own, on the thread that it falls to.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proxy::random::draw;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{Checked, Found, ask};
use crate::limits::{Bounds, Limit};
use crate::worker::Worker;

/// The first checks of many endpoints come within this, at random.
const FIRST: Duration = Duration::from_millis(100);
/// By so many parts of a thousand a period is longer or shorter, at random: waypoints and endpoints that began together do
/// not go on together.
const JITTER: u32 = 100;

/// Who has waited so long for a turn is counted.
const LONG: Duration = Duration::from_millis(100);

/// What the checks of a thread share: only so many are under way, and they begin one after the other.
struct Turns {
    places: Semaphore,
    /// When the next may begin: held by who is to begin then, so that one that is given up takes nobody's time.
    next: Mutex<Instant>,
    /// The time between two.
    apart: Duration,
}

impl Turns {
    fn new(bounds: &Bounds) -> Self {
        Self {
            places: Semaphore::new(bounds.checks),
            next: Mutex::new(Instant::now()),
            apart: Duration::from_secs(1) / bounds.checks_per_second,
        }
    }

    /// Waits for a turn, in order; it lasts until what is returned is dropped.
    async fn take(&self) -> SemaphorePermit<'_> {
        let place = self.places.acquire().await.expect("nobody closes it");
        let mut next = self.next.lock().await;
        sleep_until(*next).await;
        *next = Instant::now() + self.apart;
        place
    }
}

/// An endpoint that is asked again and again.
struct Asking {
    /// As it is now: that something around it changes does not begin its checks anew.
    now: Rc<RefCell<Arc<Checked>>>,
    _task: AbortOnDropHandle<()>,
}

impl Asking {
    fn begin(worker: &Rc<Worker>, checked: &Arc<Checked>, turns: &Rc<Turns>) -> Self {
        let now = Rc::new(RefCell::new(checked.clone()));
        let task = keep_asking(worker.clone(), now.clone(), turns.clone());
        Self { now, _task: AbortOnDropHandle::new(tokio::task::spawn_local(task)) }
    }
}

/// Checks the endpoints that fall to this thread, until the last call; then it only waits.
pub(crate) async fn drive(worker: Rc<Worker>) {
    let mut all = worker.waypoint.checks.all.subscribe();
    let turns = Rc::new(Turns::new(&worker.waypoint.bounds));
    let mut tasks: HashMap<u64, Asking> = HashMap::new();
    loop {
        let now = all.borrow_and_update().clone();
        let own: HashMap<u64, &Arc<Checked>> = now
            .iter()
            .filter(|checked| falls_to(checked, &worker))
            .map(|checked| (checked.id, checked))
            .collect();
        tasks.retain(|id, _| own.contains_key(id));
        for (id, checked) in own {
            match tasks.entry(id) {
                Entry::Occupied(known) => *known.get().now.borrow_mut() = checked.clone(),
                Entry::Vacant(place) => {
                    place.insert(Asking::begin(&worker, checked, &turns));
                }
            }
        }
        tokio::select! {
            // Its sender is the waypoint's own, and stays.
            _ = all.changed() => {}
            // Tunnels are closed now, and none is to be opened again.
            () = worker.waypoint.ending.last_call() => {
                tasks.clear();
                std::future::pending::<()>().await;
            }
        }
    }
}

fn falls_to(checked: &Checked, worker: &Worker) -> bool {
    checked.id % worker.waypoint.workers.len().max(1) as u64 == worker.index as u64
}

async fn keep_asking(worker: Rc<Worker>, now: Rc<RefCell<Arc<Checked>>>, turns: Rc<Turns>) {
    let waypoint = &worker.waypoint;
    sleep(FIRST.mul_f64(f64::from(draw(1000)) / 1000.0)).await;
    loop {
        let begun = Instant::now();
        let turn = turns.take().await;
        if begun.elapsed() > LONG {
            waypoint.hits.hit(Limit::Checks);
        }
        let checked = now.borrow().clone();
        let limit = checked.check.limit();
        // Its state is many times what a task needs that waits.
        let found = match timeout(limit, Box::pin(ask::ask(&worker, &checked))).await {
            Ok(found) => found,
            Err(_) => Found::Unreachable(format!("no answer within {limit:?}")),
        };
        drop(turn);
        waypoint.checks.note(&checked, found);
        sleep_until(begun + jittered(checked.check.period)).await;
    }
}

fn jittered(period: Duration) -> Duration {
    let parts = 1000 - JITTER + draw(2 * JITTER + 1);
    period.mul_f64(f64::from(parts) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who takes a turn of each of so many, and when, in milliseconds; a turn lasts 10.
    async fn taken(bounds: Bounds, many: usize, given_up: usize) -> Vec<u64> {
        let (turns, began) = (Rc::new(Turns::new(&bounds)), Instant::now());
        let one = |_| {
            let turns = turns.clone();
            async move {
                let turn = turns.take().await;
                let at = began.elapsed();
                sleep(Duration::from_millis(10)).await;
                drop(turn);
                u64::try_from(at.as_millis()).unwrap()
            }
        };
        let mut all: Vec<_> = (0..many + given_up).map(one).map(Box::pin).collect();
        // Each is in the queue, and then some are there no more.
        for waiting in &mut all {
            let _ = futures_util::poll!(waiting);
        }
        all.truncate(many);
        futures_util::future::join_all(all).await
    }

    #[tokio::test(start_paused = true)]
    async fn checks_begin_one_after_the_other_and_only_so_many_are_under_way() {
        let bounds = |checks, checks_per_second| Bounds { checks, checks_per_second, ..Bounds::default() };
        for (bounds, many, given_up, expected) in [
            (bounds(64, 500), 5, 0, [0, 2, 4, 6, 8].as_slice()),
            // No place is free before the first is done.
            (bounds(2, 500), 5, 0, &[0, 2, 10, 12, 20]),
            (bounds(1, 1), 3, 0, &[0, 1000, 2000]),
            // Who is given up takes nobody's turn.
            (bounds(64, 500), 3, 60, &[0, 2, 4]),
        ] {
            let found = taken(bounds.clone(), many, given_up).await;
            assert_eq!(found, expected, "{bounds:?}");
        }
    }

    #[test]
    fn a_period_is_a_tenth_longer_or_shorter() {
        let all: Vec<Duration> = (0..1000).map(|_| jittered(Duration::from_secs(10))).collect();
        assert!(all.iter().all(|one| (9_000..=11_000).contains(&one.as_millis())), "{all:?}");
        assert!(
            all.iter().any(|one| one.as_millis() < 9_500) && all.iter().any(|one| one.as_millis() > 10_500)
        );
    }
}
