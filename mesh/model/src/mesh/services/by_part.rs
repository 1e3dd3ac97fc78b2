//! Services by a part of them, a host name or an address, that nearly always is one service's alone.

use std::borrow::Borrow;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::super::index::{Map, Set};
use crate::address::{NamespacedHostname, NetworkAddress};
use crate::service::Service;

/// Services by a part of them. Of one part they are in the order of names, so that which is "the first" does not depend on
/// the order of arrival.
#[derive(Debug)]
pub(super) struct ByPart<E: Entry> {
    /// Where a part is one service's alone.
    alone: Set<E>,
    /// Where it is that of several.
    shared: Map<<E::Part as ToOwned>::Owned, Vec<Arc<Service>>>,
}

/// A service that is found by a part of it, without keeping that twice.
pub(super) trait Entry: Borrow<Self::Part> + Eq + Hash + Sized {
    type Part: ToOwned<Owned: Debug + Eq + Hash> + Eq + Hash + ?Sized;

    /// That of a service, by this part of it.
    fn of(part: &Self::Part, service: &Arc<Service>) -> Option<Self>;

    fn part(&self) -> &Self::Part;

    fn service(&self) -> &Arc<Service>;
}

impl<E: Entry> Default for ByPart<E> {
    fn default() -> Self {
        Self { alone: Set::default(), shared: Map::default() }
    }
}

impl<E: Entry> ByPart<E> {
    /// Those that have a part.
    pub(super) fn all(&self, part: &E::Part) -> &[Arc<Service>] {
        if let Some(entry) = self.alone.get(part) {
            return std::slice::from_ref(entry.service());
        }
        self.shared.get(part).map_or(&[], Vec::as_slice)
    }

    /// Puts a service in that is not there, by one of its parts; by the same twice is once.
    pub(super) fn insert(&mut self, part: &E::Part, service: &Arc<Service>) {
        if let Some(other) = self.alone.take(part) {
            self.shared.insert(part.to_owned(), vec![other.service().clone()]);
        }
        let Some(all) = self.shared.get_mut(part) else {
            self.alone.extend(E::of(part, service));
            return;
        };
        if let Err(place) = all.binary_search_by(|other| other.key.cmp(&service.key)) {
            all.insert(place, service.clone());
        }
    }

    /// Takes a service out, by one of its parts.
    pub(super) fn remove(&mut self, part: &E::Part, key: &NamespacedHostname) {
        if self.alone.get(part).is_some_and(|entry| entry.service().key == *key) {
            self.alone.remove(part);
        }
        let Some(all) = self.shared.get_mut(part) else { return };
        all.retain(|service| service.key != *key);
        let only = match &all[..] {
            [] => None,
            [only] => E::of(part, only),
            _ => return,
        };
        self.alone.extend(only);
        self.shared.remove(part);
    }

    /// All of them: once each, where a service has one part only.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.alone.iter().map(Entry::service).chain(self.shared.values().flatten())
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.alone.is_empty() && self.shared.is_empty()
    }
}

/// A service by its host name.
#[derive(Debug)]
pub(super) struct OfHost(Arc<Service>);

impl Entry for OfHost {
    type Part = str;

    fn of(_: &str, service: &Arc<Service>) -> Option<Self> {
        Some(Self(service.clone()))
    }

    fn part(&self) -> &str {
        self.0.key.hostname()
    }

    fn service(&self) -> &Arc<Service> {
        &self.0
    }
}

/// A service by one of its addresses.
#[derive(Debug)]
pub(super) struct AtAddress {
    service: Arc<Service>,
    /// Which of them.
    place: usize,
}

impl Entry for AtAddress {
    type Part = NetworkAddress;

    fn of(part: &NetworkAddress, service: &Arc<Service>) -> Option<Self> {
        let place = service.vips.iter().position(|vip| vip == part)?;
        Some(Self { service: service.clone(), place })
    }

    fn part(&self) -> &NetworkAddress {
        &self.service.vips[self.place]
    }

    fn service(&self) -> &Arc<Service> {
        &self.service
    }
}

macro_rules! is_its_part {
    ($entry:ident, $part:ty) => {
        impl Borrow<$part> for $entry {
            fn borrow(&self) -> &$part {
                self.part()
            }
        }

        impl Hash for $entry {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.part().hash(state);
            }
        }

        impl PartialEq for $entry {
            fn eq(&self, other: &Self) -> bool {
                self.part() == other.part()
            }
        }

        impl Eq for $entry {}
    };
}

is_its_part!(OfHost, str);
is_its_part!(AtAddress, NetworkAddress);
