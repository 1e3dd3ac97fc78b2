//! Services by name, host name and virtual address, with their endpoints.

use std::cmp::Reverse;
use std::sync::Arc;

use ipnet::IpNet;

use super::Endpoints;
use super::index::{ByAddress, Map};
use crate::address::{NamespacedHostname, NetworkAddress, Str};
use crate::service::{Service, Visibility};
use crate::workload::Workload;

#[derive(Debug, Default)]
pub(super) struct Services {
    by_key: Map<NamespacedHostname, Entry>,
    by_host: Map<Str, Vec<Arc<Service>>>,
    by_vip: ByAddress<Vec<Arc<Service>>>,
    /// Ranges are few; the longest prefix comes first, then the first by name.
    ranges: Vec<Range>,
}

type Range = (Str, IpNet, Arc<Service>);

/// A service and its endpoints, either of which may come first.
#[derive(Debug, Default)]
struct Entry {
    service: Option<Arc<Service>>,
    endpoints: Endpoints,
}

impl Services {
    pub(super) fn insert(&mut self, service: Arc<Service>) {
        self.unindex(&service.key);
        for vip in &service.vips {
            insert_ordered(self.by_vip.entry(vip), &service);
        }
        insert_ordered(self.by_host.entry(service.key.hostname.clone()).or_default(), &service);
        for (network, range) in &service.cidr_vips {
            let order = |length: u8, key: &NamespacedHostname| (Reverse(length), key.clone());
            let ours = order(range.prefix_len(), &service.key);
            let place =
                self.ranges.partition_point(|(_, other, of)| order(other.prefix_len(), &of.key) < ours);
            self.ranges.insert(place, (network.clone(), *range, service.clone()));
        }
        let key = service.key.clone();
        self.by_key.entry(key).or_default().service = Some(service);
    }

    pub(super) fn remove(&mut self, key: &NamespacedHostname) {
        self.unindex(key);
        if let Some(entry) = self.by_key.get_mut(key) {
            entry.service = None;
            if entry.endpoints.is_empty() {
                self.by_key.remove(key);
            }
        }
    }

    fn unindex(&mut self, key: &NamespacedHostname) {
        let Some(old) = self.by_key.get(key).and_then(|entry| entry.service.clone()) else { return };
        for vip in &old.vips {
            let services = self.by_vip.entry(vip);
            services.retain(|service| service.key != *key);
            if services.is_empty() {
                self.by_vip.remove(vip);
            }
        }
        if let Some(services) = self.by_host.get_mut(&key.hostname) {
            services.retain(|service| service.key != *key);
            if services.is_empty() {
                self.by_host.remove(&key.hostname);
            }
        }
        if !old.cidr_vips.is_empty() {
            self.ranges.retain(|(_, _, service)| service.key != *key);
        }
    }

    pub(super) fn insert_endpoint(&mut self, workload: &Arc<Workload>) {
        for (key, _) in &workload.profile.services {
            match self.by_key.get_mut(key) {
                Some(entry) => entry.endpoints.insert(workload.clone()),
                None => {
                    let mut entry = Entry::default();
                    entry.endpoints.insert(workload.clone());
                    self.by_key.insert(key.clone(), entry);
                }
            }
        }
    }

    pub(super) fn remove_endpoint(&mut self, workload: &Workload) {
        for (key, _) in &workload.profile.services {
            let Some(entry) = self.by_key.get_mut(key) else { continue };
            entry.endpoints.remove(&workload.uid);
            if entry.service.is_none() && entry.endpoints.is_empty() {
                self.by_key.remove(key);
            }
        }
    }

    pub(super) fn get(&self, key: &NamespacedHostname) -> Option<&Arc<Service>> {
        self.by_key.get(key)?.service.as_ref()
    }

    pub(super) fn endpoints(&self, key: &NamespacedHostname) -> Option<&Endpoints> {
        Some(&self.by_key.get(key)?.endpoints)
    }

    pub(super) fn at(&self, address: &NetworkAddress, namespace: &str) -> Option<&Arc<Service>> {
        if let Some(found) = self.by_vip.get(address).and_then(|services| prefer(services, namespace)) {
            return Some(found);
        }
        let mut covering = self.ranges.iter().filter(|(network, range, service)| {
            *network == address.network && range.contains(&address.ip) && is_visible(service, namespace)
        });
        // The ranges come longest first.
        let own = |(_, _, service): &&Range| &*service.key.namespace == namespace;
        let longest = covering.clone().next()?;
        let as_long =
            covering.clone().take_while(|(_, range, _)| range.prefix_len() == longest.1.prefix_len());
        let canonical = as_long.clone().find(|(_, _, service)| service.canonical);
        covering.find(own).or(canonical).or(Some(longest)).map(|(_, _, service)| service)
    }

    pub(super) fn named(&self, hostname: &str, namespace: &str) -> Option<&Arc<Service>> {
        prefer(self.by_host.get(hostname)?, namespace)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_key.values().filter_map(|entry| entry.service.as_ref())
    }
}

/// Kept in the order of names, so that which is "the first" does not depend on the order of arrival.
fn insert_ordered(services: &mut Vec<Arc<Service>>, service: &Arc<Service>) {
    let place = services.partition_point(|other| other.key < service.key);
    services.insert(place, service.clone());
}

/// The client's own namespace before the canonical service before the first by name.
fn prefer<'a>(services: &'a [Arc<Service>], namespace: &str) -> Option<&'a Arc<Service>> {
    // Nearly always there is one, and whose it is need not be looked at.
    if let [only] = services {
        return Some(only).filter(|service| is_visible(service, namespace));
    }
    let visible = || services.iter().filter(|service| is_visible(service, namespace));
    visible()
        .find(|service| &*service.key.namespace == namespace)
        .or_else(|| visible().find(|service| service.canonical))
        .or_else(|| visible().next())
}

fn is_visible(service: &Service, namespace: &str) -> bool {
    service.visibility == Visibility::Public || &*service.key.namespace == namespace
}

#[cfg(test)]
mod tests;
