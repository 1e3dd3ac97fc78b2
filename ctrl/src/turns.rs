//! Turns at asking an API server about tokens that nobody knows: few at a time, and fewer of one address. Who brings one
//! that is not vouched for gets his next turn later: strangers with made-up tokens keep neither the API server busy nor
//! other callers waiting.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

/// Turns at a time.
const AT_ONCE: usize = 8;
/// Of one address: a quarter, so that it takes four of them to keep all turns.
const OF_ADDRESS: usize = 2;
/// How long a turn that led to nothing stays taken from its address: eight questions a second are left to one.
const PENALTY: Duration = Duration::from_millis(250);
/// Addresses that are known before those without a turn are forgotten.
const ADDRESSES: usize = 1024;

/// All turns.
#[derive(Debug)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    addresses: Mutex<HashMap<Option<IpAddr>, Arc<Semaphore>>>,
}

/// One. Dropped, it is given back: late, unless it was [well used](Turn::well_used).
#[derive(Debug)]
pub(super) struct Turn {
    of_all: Option<OwnedSemaphorePermit>,
    of_address: Option<OwnedSemaphorePermit>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(AT_ONCE)), addresses: Mutex::default() }
    }
}

impl Turns {
    /// Waits for a turn of an address. Where nobody says where a call is from, all such calls are of one.
    pub(super) async fn take(&self, from: Option<IpAddr>) -> Turn {
        let own = {
            let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            if addresses.len() >= ADDRESSES {
                addresses.retain(|_, turns| Arc::strong_count(turns) > 1);
            }
            addresses.entry(from).or_insert_with(|| Arc::new(Semaphore::new(OF_ADDRESS))).clone()
        };
        // Neither is ever closed.
        let of_address = own.acquire_owned().await.ok();
        let of_all = self.all.clone().acquire_owned().await.ok();
        Turn { of_all, of_address }
    }
}

impl Turn {
    /// The token was good.
    pub(super) fn well_used(mut self) {
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
        let turns = Turns::default();
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
        let turns = Turns::default();
        let _kept = [turns.take(STRANGER).await, turns.take(STRANGER).await];
        assert!(timeout(Duration::from_secs(60), turns.take(STRANGER)).await.is_err());
        assert!(timeout(Duration::from_secs(1), turns.take(AGENT)).await.is_ok());
    }
}
