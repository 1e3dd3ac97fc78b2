//! What the controller tells waypoints beside what it tells every proxy: the labels of workloads, and what becomes of
//! traffic to hosts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use model::address::{NamespacedHostname, Str};
use model::route::Routing;
use model::route::index::Indexed;
use model::traffic::Destination;
use model::traffic::balance::Labels;
use tokio::sync::watch;
use xds::feed::routing::RoutingUpdate;

use crate::balance::Rules;
use crate::health::Asking;

/// The labels of workloads, by uid.
#[derive(Debug, Default)]
pub(crate) struct AllLabels {
    of: RwLock<HashMap<Str, Labels, foldhash::fast::RandomState>>,
    revision: AtomicU64,
}

impl AllLabels {
    /// The labels of a workload, if there are any.
    pub(crate) fn of(&self, uid: &str) -> Option<Labels> {
        self.of.read().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    /// Replaces those of a workload; none takes them away.
    pub(crate) fn set(&self, uid: &Str, labels: Option<Labels>) {
        let mut all = self.of.write().unwrap_or_else(PoisonError::into_inner);
        let changed = match labels {
            Some(labels) => all.insert(uid.clone(), labels.clone()).is_none_or(|before| before != labels),
            None => all.remove(uid).is_some(),
        };
        if changed {
            self.revision.fetch_add(1, Ordering::Release);
        }
    }

    /// How often any have changed.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }
}

/// Hosts without rules that are remembered. Beyond, those that are asked for again are made anew.
const MOST_DEFAULTS: usize = 4096;

/// What becomes of traffic to hosts, one resource a host, replaced as a whole.
#[derive(Debug, Default)]
pub(crate) struct Routings {
    known: RwLock<Known>,
    /// Grows with every change.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    of: HashMap<NamespacedHostname, Edition, foldhash::fast::RandomState>,
    /// What rules say of services: the same for all hosts that name them, so that it is one value.
    destinations: HashMap<NamespacedHostname, Arc<Destination>, foldhash::fast::RandomState>,
    edition: u64,
    /// What becomes of traffic to hosts of which nothing was told, once there has been any.
    by_default: HashMap<NamespacedHostname, Arc<Indexed>, foldhash::fast::RandomState>,
    /// The edition in which a host lost its rules last: that of all that have none.
    removed: u64,
}

/// What becomes of traffic to a host, and how new that is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edition {
    /// None where no service was asked for.
    pub(crate) routing: Option<Arc<Indexed>>,
    /// Grows with every change.
    pub(crate) edition: u64,
}

impl Edition {
    /// What rules say of a service.
    pub(crate) fn rules(&self, service: &NamespacedHostname) -> Rules<'_> {
        let of = self.routing.as_ref().and_then(|routing| routing.destinations.get(service));
        Rules { of, edition: self.edition }
    }
}

impl Known {
    fn put(&mut self, mut routing: Routing) {
        for (service, rules) in &mut routing.destinations {
            match self.destinations.get(service) {
                Some(known) if **known == **rules => *rules = known.clone(),
                _ => {
                    self.destinations.insert(service.clone(), rules.clone());
                }
            }
        }
        self.edition += 1;
        let edition = Edition { routing: None, edition: self.edition };
        self.of.insert(
            routing.host.clone(),
            Edition { routing: Some(Arc::new(Indexed::new(routing))), ..edition },
        );
    }

    fn remove(&mut self, host: &NamespacedHostname) {
        self.edition += 1;
        self.removed = self.edition;
        self.of.remove(host);
    }

    fn default_of(&mut self, host: &NamespacedHostname) -> Edition {
        if self.by_default.len() >= MOST_DEFAULTS {
            self.by_default.clear();
        }
        let make = || Arc::new(Indexed::new(Routing::by_default(host.clone())));
        let routing = self.by_default.entry(host.clone()).or_insert_with(make).clone();
        Edition { routing: Some(routing), edition: self.removed }
    }

    fn find(&self, host: &NamespacedHostname) -> Option<Edition> {
        let by_default = || {
            let routing = self.by_default.get(host)?.clone();
            Some(Edition { routing: Some(routing), edition: self.removed })
        };
        self.of.get(host).cloned().or_else(by_default)
    }

    fn forget(&mut self) {
        self.destinations.retain(|_, rules| Arc::strong_count(rules) > 1);
    }
}

impl Routings {
    /// That of a host.
    pub(crate) fn of(&self, host: &NamespacedHostname) -> Edition {
        let found = self.known.read().unwrap_or_else(PoisonError::into_inner).find(host);
        found.unwrap_or_else(|| {
            let mut all = self.known.write().unwrap_or_else(PoisonError::into_inner);
            // It may have been told meanwhile.
            all.find(host).unwrap_or_else(|| all.default_of(host))
        })
    }

    /// Replaces that of a host.
    #[cfg(test)]
    pub(crate) fn set(&self, routing: Routing) {
        self.apply(vec![RoutingUpdate::Put(Box::new(routing))]);
    }

    /// Takes changes over.
    pub(crate) fn apply(&self, updates: Vec<RoutingUpdate>) {
        let mut all = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for update in updates {
            match update {
                RoutingUpdate::Put(routing) => all.put(*routing),
                RoutingUpdate::Remove(host) => all.remove(&host),
            }
        }
        all.forget();
        drop(all);
        self.changed.send_modify(|changed| *changed += 1);
    }

    /// Changes, as they happen.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The hosts whose rules lead to services with endpoints to be checked, in order, and what they say of these.
    pub(crate) fn asking_for_checks(&self) -> Vec<Asking> {
        let all = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let checked = |routing: &Arc<Indexed>| -> Vec<_> {
            let of = routing.destinations.iter().filter(|(_, rules)| rules.health_check.is_some());
            of.map(|(service, rules)| (service.clone(), rules.clone())).collect()
        };
        let routings =
            all.of.iter().filter_map(|(host, known)| Some((host.clone(), known.routing.as_ref()?)));
        let mut asking: Vec<Asking> = routings
            .map(|(host, routing)| (host, checked(routing)))
            .filter(|(_, checked)| !checked.is_empty())
            .collect();
        asking.sort_by(|(one, _), (other, _)| one.cmp(other));
        asking
    }

    /// The hosts that have one, in order.
    pub(crate) fn hosts(&self) -> Vec<NamespacedHostname> {
        let mut hosts: Vec<_> =
            self.known.read().unwrap_or_else(PoisonError::into_inner).of.keys().cloned().collect();
        hosts.sort();
        hosts
    }
}

#[cfg(test)]
mod tests;
