//! Turns at what costs something and what anybody may ask for: few at a time, and fewer of one address. Whose turn led to
//! nothing gets his next one later, and where others wait so does who asks much: strangers keep neither the controller busy
//! nor others waiting, be their questions made up or not. One turn is for who has not asked lately.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

/// How long a turn that led to nothing stays taken from its address: of two turns eight questions a second are left.
const PENALTY: Duration = Duration::from_millis(250);
/// Who has asked within this time has asked lately.
const LATELY: Duration = Duration::from_secs(5);
/// Who asks more often than this within that time asks much.
const MUCH: u32 = 40;
/// Addresses that are known before those without a turn are forgotten.
const ADDRESSES: usize = 1024;

/// All turns.
#[derive(Debug)]
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    /// For who has not asked lately.
    kept: Arc<Semaphore>,
    of_address: usize,
    addresses: Mutex<HashMap<Option<IpAddr>, Address>>,
}

/// What is known of an address.
#[derive(Debug)]
struct Address {
    turns: Arc<Semaphore>,
    /// When it asked last.
    asked: Option<Instant>,
    /// How often it has asked since then.
    often: (Instant, u32),
}

/// How an address asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Not lately.
    Rare,
    /// Neither.
    Usual,
    /// Much.
    Much,
}

impl Address {
    fn new(turns: usize, now: Instant) -> Self {
        Self { turns: Arc::new(Semaphore::new(turns)), asked: None, often: (now, 0) }
    }

    /// It asks.
    fn asks(&mut self, now: Instant) -> Pace {
        let is_rare = !self.has_asked_lately(now);
        self.asked = Some(now);
        if now - self.often.0 > LATELY {
            self.often = (now, 0);
        }
        self.often.1 += 1;
        match (is_rare, self.often.1 > MUCH) {
            (true, _) => Pace::Rare,
            (false, false) => Pace::Usual,
            (false, true) => Pace::Much,
        }
    }

    fn has_asked_lately(&self, now: Instant) -> bool {
        self.asked.is_some_and(|asked| now - asked <= LATELY)
    }
}

/// One. Dropped, it is given back: late, unless it was [well used](Turn::well_used).
#[derive(Debug)]
pub(crate) struct Turn {
    of_all: Option<OwnedSemaphorePermit>,
    of_address: Option<OwnedSemaphorePermit>,
    /// Where others wait, if it is of an address that asks much.
    others: Option<Arc<Semaphore>>,
}

impl Turns {
    /// So many at a time, at least two, of which one address has at most so many.
    pub(crate) fn new(at_once: usize, of_address: usize) -> Self {
        let (all, kept) = (Arc::new(Semaphore::new(at_once - 1)), Arc::new(Semaphore::new(1)));
        Self { all, kept, of_address, addresses: Mutex::default() }
    }

    /// Waits for a turn of an address. Where nobody says where a call is from, all such calls are of one.
    pub(crate) async fn take(&self, from: Option<IpAddr>) -> Turn {
        let (own, pace) = self.asks(from);
        // None is ever closed.
        let of_address = own.acquire_owned().await.ok();
        let of_all = self.all.clone().acquire_owned();
        let of_all = match pace {
            Pace::Rare => tokio::select! {
                biased;
                one = of_all => one,
                one = self.kept.clone().acquire_owned() => one,
            },
            Pace::Usual | Pace::Much => of_all.await,
        };
        let others = (pace == Pace::Much).then(|| self.all.clone());
        Turn { of_all: of_all.ok(), of_address, others }
    }

    fn asks(&self, from: Option<IpAddr>) -> (Arc<Semaphore>, Pace) {
        let now = Instant::now();
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if addresses.len() >= ADDRESSES {
            let has_turns = |address: &Address| Arc::strong_count(&address.turns) > 1;
            addresses.retain(|_, address| has_turns(address) || address.has_asked_lately(now));
            if addresses.len() >= ADDRESSES {
                addresses.retain(|_, address| has_turns(address));
            }
        }
        let address = addresses.entry(from).or_insert_with(|| Address::new(self.of_address, now));
        (address.turns.clone(), address.asks(now))
    }
}

impl Turn {
    /// What was asked for was there: another may follow at once, unless its address asks much and others wait.
    pub(crate) fn well_used(mut self) {
        if self.others.as_ref().is_none_or(|others| others.available_permits() > 0) {
            self.of_address = None;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.of_all.take());
        let Some(of_address) = self.of_address.take() else { return };
        // Also where who asked has left meanwhile, or leaving would be a way around it. There are as many as turns.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                sleep(PENALTY).await;
                drop(of_address);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    const STRANGER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 66)));
    const AGENT: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));

    #[tokio::test(start_paused = true)]
    async fn a_stranger_waits_and_nobody_else_does() {
        let turns = Turns::new(8, 2);
        let begun = Instant::now();
        for _ in 0..20 {
            drop(turns.take(STRANGER).await);
        }
        // Twenty, two at a time.
        assert_eq!(begun.elapsed().as_millis() / 250, 9);
        let begun = Instant::now();
        for _ in 0..20 {
            turns.take(AGENT).await.well_used();
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_not_asked_lately_has_a_turn_when_all_are_taken() {
        let turns = Turns::new(4, 2);
        let other = |last| Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 1, last)));
        let _kept = [turns.take(STRANGER).await, turns.take(STRANGER).await, turns.take(other(1)).await];
        for stranger in [STRANGER, other(1)] {
            assert!(timeout(Duration::from_secs(1), turns.take(stranger)).await.is_err());
        }
        let taken = timeout(Duration::ZERO, turns.take(AGENT)).await.expect("one is kept");
        taken.well_used();
        assert!(timeout(Duration::from_secs(1), turns.take(AGENT)).await.is_err(), "once in a while");
        sleep(LATELY * 2).await;
        assert!(timeout(Duration::ZERO, turns.take(AGENT)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_much_waits_where_others_do() {
        let turns = Turns::new(3, 2);
        for _ in 0..10 * MUCH {
            turns.take(STRANGER).await.well_used();
        }
        let begun = Instant::now();
        let _others = turns.take(AGENT).await;
        for _ in 0..8 {
            turns.take(STRANGER).await.well_used();
        }
        // Eight, two at a time.
        assert_eq!(begun.elapsed().as_millis() / 250, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_leaves_turns_to_others() {
        let turns = Turns::new(8, 2);
        let _kept = [turns.take(STRANGER).await, turns.take(STRANGER).await];
        assert!(timeout(Duration::from_secs(60), turns.take(STRANGER)).await.is_err());
        assert!(timeout(Duration::from_secs(1), turns.take(AGENT)).await.is_ok());
    }
}
