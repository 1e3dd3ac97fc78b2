//! Whose turn it is on a thread: pods share it by what their turns cost, not by how many connections they have.
//!
//! A thread's tasks run in the order in which they became ready. A pod with a thousand busy connections would put a
//! thousand turns before another one's next. So turns are counted, each with a fixed cost and the bytes it moves, and
//! once a pod has used up its [`QUANTUM`] its tasks wait in a line of its own. [`drive`] begins a new round behind what
//! is ready by then, after the sockets have been looked at: it lets as many of each line go on as a quantum is likely to
//! pay for (deficit round robin). What a pod waits for is then at most one quantum of each other pod.
//!
//! While a thread has one pod only, or nobody uses up a quantum between two rounds, all of this is a few additions.
//! All pods have the same share: nothing that reaches a node says of a pod that it should have another.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use crate::account::Account;
use crate::limits::{Hits, Limit};

/// What a pod may use up before others get their turn, bytes: some 0.3 ms.
const QUANTUM: u64 = 256 << 10;
/// What a turn costs beside the bytes it moves, bytes: a small request's two system calls take as long as this many.
const TURN: u64 = 8 << 10;
/// What it costs to open a connection, bytes.
pub const OPENING: u64 = 64 << 10;
/// What a TLS handshake costs, bytes.
pub const HANDSHAKE: u64 = 512 << 10;

/// A place in a pod's line; 0 is none.
pub(crate) type Ticket = u32;

thread_local! {
    static THREAD: Rc<Turns> = Rc::default();
}

/// The lines of one thread.
#[derive(Debug, Default)]
struct Turns {
    /// By the address of the account, which the share keeps alive.
    shares: RefCell<HashMap<*const Account, Rc<Share>>>,
    driver: RefCell<Option<Waker>>,
    driven: Cell<bool>,
    somebody_waits: Cell<bool>,
    /// Bytes that all turns have moved.
    moved: Cell<u64>,
    /// How many they are when somebody wants to hear of it.
    alarm_at: Cell<Option<u64>>,
    alarm: RefCell<Option<Waker>>,
}

/// One pod's share of one thread.
#[derive(Debug)]
pub(crate) struct Share {
    account: Arc<Account>,
    hits: Arc<Hits>,
    turns: Rc<Turns>,
    /// Used up since the last round, and what was used too much before.
    spent: Cell<u64>,
    /// Turns in it.
    taken: Cell<u64>,
    /// Of these the account has not heard yet.
    work: Cell<u64>,
    /// Those who were let go on and have not had their turn.
    granted: Cell<u32>,
    line: RefCell<VecDeque<Waker>>,
    /// The ticket of the first in the line.
    first: Cell<Ticket>,
}

impl Share {
    /// The share of an account on this thread.
    pub(crate) fn of(account: &Arc<Account>) -> Rc<Self> {
        THREAD.with(|turns| {
            let mut shares = turns.shares.borrow_mut();
            let share = shares.entry(Arc::as_ptr(account)).or_insert_with(|| {
                Rc::new(Self {
                    account: Arc::clone(account),
                    hits: Arc::clone(account.hits()),
                    turns: Rc::clone(turns),
                    spent: Cell::new(0),
                    taken: Cell::new(0),
                    work: Cell::new(0),
                    granted: Cell::new(0),
                    line: RefCell::default(),
                    first: Cell::new(1),
                })
            });
            Rc::clone(share)
        })
    }

    /// Whether a task may have its turn. If not, it stands in the line, and `waker` will be woken.
    #[inline]
    pub(crate) fn admit(&self, ticket: &mut Ticket, waker: &Waker) -> bool {
        if self.spent.get() < QUANTUM && self.granted.get() == 0 && *ticket == 0 {
            return true;
        }
        self.admit_in_order(ticket, waker)
    }

    #[cold]
    fn admit_in_order(&self, ticket: &mut Ticket, waker: &Waker) -> bool {
        if let Some(left) = self.granted.get().checked_sub(1) {
            self.granted.set(left);
            *ticket = 0;
            return true;
        }
        let mut line = self.line.borrow_mut();
        if line.is_empty() && (self.spent.get() < QUANTUM || self.turns.has_one_pod()) {
            self.spent.set(self.spent.get() % QUANTUM);
            *ticket = 0;
            return true;
        }
        if !self.stands(*ticket, line.len()) {
            *ticket = self.first.get().wrapping_add(u32::try_from(line.len()).unwrap_or(0)).max(1);
            line.push_back(waker.clone());
            self.hits.hit(Limit::Turns);
            self.turns.somebody_waits();
        }
        false
    }

    fn stands(&self, ticket: Ticket, length: usize) -> bool {
        ticket != 0 && (ticket.wrapping_sub(self.first.get()) as usize) < length
    }

    /// Counts a turn that moved `bytes`.
    #[inline]
    pub(crate) fn spend(&self, bytes: u64) {
        let cost = bytes + TURN;
        self.spent.set(self.spent.get() + cost);
        self.work.set(self.work.get() + cost);
        self.taken.set(self.taken.get() + 1);
        self.turns.count(bytes);
    }

    /// Rounds that must pass until one of the line may go on.
    fn rounds_to_wait(&self) -> u64 {
        self.spent.get() / QUANTUM
    }

    /// A new round: pays for `rounds`, and lets go on whom the rest of a quantum is likely to pay for.
    fn round(&self, rounds: u64) {
        let average = self.spent.get().checked_div(self.taken.get()).unwrap_or(TURN).max(TURN);
        self.spent.set(self.spent.get().saturating_sub(rounds * QUANTUM));
        self.taken.set(0);
        self.granted.set(0);
        if self.spent.get() >= QUANTUM {
            return;
        }
        let affordable = ((QUANTUM - self.spent.get()) / average).max(1);
        let mut line = self.line.borrow_mut();
        let count = usize::try_from(affordable).map_or(line.len(), |most| most.min(line.len()));
        for waker in line.drain(..count) {
            waker.wake();
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.granted.set(count);
        self.first.set(self.first.get().wrapping_add(count).max(1));
    }

    /// Tells the account what its turns came to.
    fn settle(&self) {
        self.account.work.fetch_add(self.work.take(), Ordering::Relaxed);
    }
}

impl Turns {
    fn has_one_pod(&self) -> bool {
        !self.driven.get() || self.shares.borrow().len() <= 1
    }

    fn somebody_waits(&self) {
        if !self.somebody_waits.replace(true)
            && let Some(driver) = &*self.driver.borrow()
        {
            driver.wake_by_ref();
        }
    }

    #[inline]
    fn count(&self, bytes: u64) {
        let moved = self.moved.get() + bytes;
        self.moved.set(moved);
        if self.alarm_at.get().is_some_and(|at| moved >= at) {
            self.ring();
        }
    }

    #[cold]
    fn ring(&self) {
        self.alarm_at.set(None);
        if let Some(waker) = self.alarm.take() {
            waker.wake();
        }
    }

    /// Begins a round; whether somebody still waits.
    fn round(&self) -> bool {
        let shares = self.shares.borrow();
        let waiting = || shares.values().filter(|share| !share.line.borrow().is_empty());
        // One whose last turn used up many rounds waits for the others, but nobody waits for nobody.
        let rounds = waiting().map(|share| share.rounds_to_wait()).min().unwrap_or(0).max(1);
        shares.values().for_each(|share| share.round(rounds));
        waiting().next().is_some()
    }
}

/// Gives out the turns of this thread; without it nobody ever waits. It never ends.
pub async fn drive() {
    let turns = THREAD.with(Rc::clone);
    turns.driven.set(true);
    loop {
        poll_fn(|cx| {
            if turns.somebody_waits.get() {
                return Poll::Ready(());
            }
            *turns.driver.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        // Behind all that is ready, and after a look at the sockets.
        tokio::task::yield_now().await;
        turns.somebody_waits.set(turns.round());
    }
}

/// Tells the accounts what their turns on this thread came to, and forgets those that nobody uses here any more. To be
/// called every second or so.
pub fn settle() {
    THREAD.with(|turns| {
        turns.shares.borrow_mut().retain(|_, share| {
            share.settle();
            Rc::strong_count(share) > 1 || !share.line.borrow().is_empty()
        });
    });
}

/// Waits until the turns of this thread have moved so many bytes more, for who looks at it only while it is busy. Of several
/// who wait, the last hears of it.
pub async fn moved(bytes: u64) {
    let turns = THREAD.with(Rc::clone);
    let at = turns.moved.get().saturating_add(bytes);
    poll_fn(|cx| {
        if turns.moved.get() >= at {
            return Poll::Ready(());
        }
        turns.alarm_at.set(Some(at));
        *turns.alarm.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    })
    .await;
}

/// Waits for a turn of the account's pod on this thread and takes it, at this cost: for work that is not a
/// connection's bytes, as opening one is.
pub async fn turn(account: &Arc<Account>, cost: u64) {
    let share = Share::of(account);
    let mut ticket = 0;
    poll_fn(|cx| if share.admit(&mut ticket, cx.waker()) { Poll::Ready(()) } else { Poll::Pending }).await;
    share.spend(cost);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::AccountLimits;

    /// Lets the others run until this holds; they must come to it in time.
    async fn until(what: &str, holds: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !holds() {
            assert!(std::time::Instant::now() < deadline, "not in time: {what}");
            tokio::task::yield_now().await;
        }
    }

    /// Busy tasks of a pod, each of which takes turns for ever; how often all of them together had one.
    fn busy(account: &Arc<Account>, tasks: usize, bytes: u64) -> Rc<Cell<u64>> {
        let taken = Rc::new(Cell::new(0));
        for _ in 0..tasks {
            let (account, taken) = (account.clone(), taken.clone());
            tokio::task::spawn_local(async move {
                loop {
                    turn(&account, bytes).await;
                    taken.set(taken.get() + 1);
                    tokio::task::yield_now().await;
                }
            });
        }
        taken
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let bounded = async { tokio::time::timeout(std::time::Duration::from_secs(60), test).await };
        tokio::task::LocalSet::new().block_on(&runtime, bounded).expect("it ends in time");
    }

    #[test]
    fn a_pod_with_many_connections_has_no_larger_share() {
        run(async {
            tokio::task::spawn_local(drive());
            let (large, small) =
                (Account::new(AccountLimits::default()), Account::new(AccountLimits::default()));
            let many = busy(&large, 500, 2 * TURN);
            let few = busy(&small, 40, 2 * TURN);
            until("5,000 turns of the few", || few.get() >= 5_000).await;
            let ratio = many.get() as f64 / few.get() as f64;
            assert!((0.7..1.5).contains(&ratio), "{} to {}", many.get(), few.get());
            settle();
            assert!(large.work() > 0 && small.work() > 0);
        });
    }

    #[test]
    fn who_moves_much_a_turn_has_fewer_turns() {
        run(async {
            tokio::task::spawn_local(drive());
            let (bulk, small) =
                (Account::new(AccountLimits::default()), Account::new(AccountLimits::default()));
            let large_turns = busy(&bulk, 50, 4 * QUANTUM);
            let small_turns = busy(&small, 200, 0);
            until("200 large turns", || large_turns.get() >= 200).await;
            settle();
            let ratio = bulk.work() as f64 / small.work() as f64;
            assert!((0.5..2.0).contains(&ratio), "{ratio}: {} to {}", large_turns.get(), small_turns.get());
        });
    }

    /// What one waits for is a quantum of the others, however many tasks they have.
    #[test]
    fn a_quiet_pod_waits_for_a_quantum_only() {
        run(async {
            tokio::task::spawn_local(drive());
            let (busy_one, quiet) =
                (Account::new(AccountLimits::default()), Account::new(AccountLimits::default()));
            turn(&quiet, 0).await;
            let keep = Share::of(&quiet);
            let others = busy(&busy_one, 2000, 0);
            until("5,000 turns of the busy one", || others.get() >= 5_000).await;
            let mut longest = 0;
            for _ in 0..100 {
                let before = others.get();
                let taken = {
                    let (quiet, others) = (quiet.clone(), others.clone());
                    tokio::task::spawn_local(async move {
                        turn(&quiet, 0).await;
                        others.get()
                    })
                };
                until("the quiet one's turn", || taken.is_finished()).await;
                longest = longest.max(taken.await.unwrap() - before);
            }
            drop(keep);
            assert!(longest <= 3 * QUANTUM / TURN, "{longest} turns of others came first");
        });
    }

    #[test]
    fn who_asks_hears_when_much_has_been_moved() {
        run(async {
            let account = Account::new(AccountLimits::default());
            turn(&account, QUANTUM).await;
            let heard = tokio::task::spawn_local(moved(3 * QUANTUM));
            for turns in 0..3 {
                tokio::task::yield_now().await;
                assert!(!heard.is_finished(), "after {turns} turns");
                turn(&account, QUANTUM).await;
            }
            heard.await.unwrap();
        });
    }

    #[test]
    fn one_pod_never_waits_and_is_forgotten_when_it_has_gone() {
        run(async {
            tokio::task::spawn_local(drive());
            let account = Account::new(AccountLimits::default());
            let share = Share::of(&account);
            tokio::task::yield_now().await;
            for _ in 0..1000 {
                let mut ticket = 0;
                assert!(share.admit(&mut ticket, Waker::noop()));
                share.spend(QUANTUM);
            }
            settle();
            assert_eq!(account.work(), 1000 * (QUANTUM + TURN));
            assert_eq!(Arc::strong_count(&account), 2);
            drop(share);
            settle();
            assert_eq!(Arc::strong_count(&account), 1);
        });
    }
}
