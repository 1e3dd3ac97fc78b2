//! What the controller tells waypoints beside what it tells every proxy: the labels of workloads, and what becomes of
//! traffic to hosts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use model::address::{NamespacedHostname, Str};
use model::route::Routing;
use model::traffic::balance::Labels;
use xds::feed::routing::RoutingUpdate;

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

/// What becomes of traffic to hosts, one resource a host, replaced as a whole.
#[derive(Debug, Default)]
pub(crate) struct Routings(RwLock<HashMap<NamespacedHostname, Arc<Routing>, foldhash::fast::RandomState>>);

impl Routings {
    /// That of a host; none where it has the default routing.
    pub(crate) fn of(&self, host: &NamespacedHostname) -> Option<Arc<Routing>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    /// Replaces that of a host.
    pub(crate) fn set(&self, routing: Routing) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(routing.host.clone(), Arc::new(routing));
    }

    /// Takes changes over.
    pub(crate) fn apply(&self, updates: Vec<RoutingUpdate>) {
        for update in updates {
            match update {
                RoutingUpdate::Put(routing) => self.set(*routing),
                RoutingUpdate::Remove(host) => {
                    self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&host);
                }
            }
        }
    }

    /// The hosts that have one, in order.
    pub(crate) fn hosts(&self) -> Vec<NamespacedHostname> {
        let mut hosts: Vec<_> =
            self.0.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        hosts.sort();
        hosts
    }
}
