//! The maps of what is known of the mesh. Their keys come from the controller, never from a connection, so a fast hash
//! is good enough; every connection pays for several look-ups.

use std::net::IpAddr;

use foldhash::fast::RandomState;

use crate::address::{NetworkAddress, Str};

/// A map with a fast hash.
pub(super) type Map<K, V> = std::collections::HashMap<K, V, RandomState>;
/// A set with a fast hash.
pub(super) type Set<K> = std::collections::HashSet<K, RandomState>;

/// Something by address. Networks are few, so they are looked through; nearly always there is one.
#[derive(Debug)]
pub(super) struct ByAddress<V>(Vec<(Str, Map<IpAddr, V>)>);

impl<V> Default for ByAddress<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> ByAddress<V> {
    pub(super) fn get(&self, address: &NetworkAddress) -> Option<&V> {
        let (_, of_network) = self.0.iter().find(|(network, _)| *network == address.network)?;
        of_network.get(&address.ip)
    }

    /// Puts something at an address in place of what is there.
    pub(super) fn insert(&mut self, address: &NetworkAddress, value: V) {
        self.of_network(&address.network).insert(address.ip, value);
    }

    pub(super) fn remove(&mut self, address: &NetworkAddress) {
        self.take(address);
    }

    /// Takes out what is at an address.
    pub(super) fn take(&mut self, address: &NetworkAddress) -> Option<V> {
        let of_network = self.of_network(&address.network);
        let taken = of_network.remove(&address.ip);
        if of_network.is_empty() {
            self.0.retain(|(_, of_network)| !of_network.is_empty());
        }
        taken
    }

    fn of_network(&mut self, network: &Str) -> &mut Map<IpAddr, V> {
        let place = self.0.iter().position(|(known, _)| known == network).unwrap_or_else(|| {
            self.0.push((network.clone(), Map::default()));
            self.0.len() - 1
        });
        &mut self.0[place].1
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
