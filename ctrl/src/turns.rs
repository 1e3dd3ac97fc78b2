//! Turns at what costs something and what anybody may ask for: few at a time, and fewer of one address. Whose turn led to
//! nothing gets his next one later: strangers with made-up questions keep neither the controller busy nor others waiting.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

/// How long a turn that led to nothing stays taken from its address: of two turns eight questions a second are left.
const PENALTY: Duration = Duration::from_millis(250);
/// Addresses that are known before those without a turn are forgotten.
const ADDRESSES: usize = 1024;

/// All turns.
#[derive(Debug)]
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    of_address: usize,
    addresses: Mutex<HashMap<Option<IpAddr>, Arc<Semaphore>>>,
}

/// One. Dropped, it is given back: late, unless it was [well used](Turn::well_used).
#[derive(Debug)]
pub(crate) struct Turn {
    of_all: Option<OwnedSemaphorePermit>,
    of_address: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// So many at a time, of which one address has at most so many.
    pub(crate) fn new(at_once: usize, of_address: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(at_once)), of_address, addresses: Mutex::default() }
    }

    /// Waits for a turn of an address. Where nobody says where a call is from, all such calls are of one.
    pub(crate) async fn take(&self, from: Option<IpAddr>) -> Turn {
        let own = {
            let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            if addresses.len() >= ADDRESSES {
                addresses.retain(|_, turns| Arc::strong_count(turns) > 1);
            }
            addresses.entry(from).or_insert_with(|| Arc::new(Semaphore::new(self.of_address))).clone()
        };
        // Neither is ever closed.
        let of_address = own.acquire_owned().await.ok();
        let of_all = self.all.clone().acquire_owned().await.ok();
        Turn { of_all, of_address }
    }
}

impl Turn {
    /// What was asked for was there.
    pub(crate) fn well_used(mut self) {
        self.of_address = None;
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
    async fn one_address_leaves_turns_to_others() {
        let turns = Turns::new(8, 2);
        let _kept = [turns.take(STRANGER).await, turns.take(STRANGER).await];
        assert!(timeout(Duration::from_secs(60), turns.take(STRANGER)).await.is_err());
        assert!(timeout(Duration::from_secs(1), turns.take(AGENT)).await.is_ok());
    }
}
