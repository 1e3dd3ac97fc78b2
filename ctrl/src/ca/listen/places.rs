//! How many connections an address may have.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections of one address whose handshake is not done: more than a node with all of its proxies needs at once.
pub(super) const HANDSHAKES_OF_ADDRESS: usize = 32;

/// Connections of one address: some of hundred nodes behind one translated address.
pub(super) const CONNECTIONS_OF_ADDRESS: usize = 256;

/// The connections of all addresses.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: Mutex<HashMap<IpAddr, Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    connections: usize,
    handshakes: usize,
}

/// One connection's place, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    address: IpAddr,
    shaking: bool,
}

impl Places {
    /// A place for a connection that begins, if its address has one left.
    pub(super) fn take(self: Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        {
            let mut all = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = all.entry(address).or_default();
            if taken.connections >= CONNECTIONS_OF_ADDRESS || taken.handshakes >= HANDSHAKES_OF_ADDRESS {
                return None;
            }
            taken.connections += 1;
            taken.handshakes += 1;
        }
        Some(Place { places: self, address, shaking: true })
    }

    fn change(&self, address: IpAddr, change: impl FnOnce(&mut Taken)) {
        let mut all = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = all.get_mut(&address) {
            change(taken);
            if taken.connections == 0 {
                all.remove(&address);
            }
        }
    }
}

impl Place {
    /// The handshake is done.
    pub(super) fn shaken(&mut self) {
        if std::mem::take(&mut self.shaking) {
            self.places.change(self.address, |taken| taken.handshakes -= 1);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shaken();
        self.places.change(self.address, |taken| taken.connections -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_places_and_gets_them_back() {
        let places = Arc::<Places>::default();
        let take = |address: &str| places.clone().take(address.parse().expect("an address"));
        let shaking: Vec<_> = (0..HANDSHAKES_OF_ADDRESS).map_while(|_| take("10.0.0.1")).collect();
        assert_eq!(shaking.len(), HANDSHAKES_OF_ADDRESS);
        assert!(take("10.0.0.1").is_none() && take("::ffff:10.0.0.1").is_none());
        assert!(take("10.0.0.2").is_some());
        drop(shaking);
        let connected = (0..CONNECTIONS_OF_ADDRESS).map_while(|_| {
            let mut place = take("10.0.0.1")?;
            place.shaken();
            Some(place)
        });
        let connected: Vec<_> = connected.collect();
        assert_eq!(connected.len(), CONNECTIONS_OF_ADDRESS);
        assert!(take("10.0.0.1").is_none());
        drop(connected);
        assert!(places.taken.lock().expect("not poisoned").is_empty());
    }
}
