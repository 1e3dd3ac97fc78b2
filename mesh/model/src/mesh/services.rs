//! Services by name, host name and virtual address, with their endpoints.
//!
//! There may be twenty thousand, most of which no connection ever asks for, so an entry of an index is little more than a
//! pointer.

mod by_part;

use std::cmp::Reverse;
use std::sync::Arc;

use ipnet::IpNet;

use self::by_part::{AtAddress, ByPart, OfHost};
use super::Endpoints;
use super::index::Map;
use crate::address::{NamespacedHostname, NetworkAddress, Str};
use crate::service::{Service, Visibility};
use crate::workload::{GatewayAddress, GatewayDestination, Workload};

#[derive(Debug, Default)]
pub(super) struct Services {
    by_host: ByPart<OfHost>,
    by_vip: ByPart<AtAddress>,
    /// Ranges are few; the longest prefix comes first, then the first by name.
    ranges: Vec<Range>,
    /// Those of services that have any; either of the two may come first.
    endpoints: Map<NamespacedHostname, Endpoints>,
    /// Waypoints, and how many services and endpoints are bound to each.
    waypoints: Map<GatewayDestination, u32>,
}

type Range = (Str, IpNet, Arc<Service>);

impl Services {
    pub(super) fn insert(&mut self, service: &Arc<Service>) {
        self.remove(&service.key);
        for vip in &service.vips {
            self.by_vip.insert(vip, service);
        }
        for (network, range) in &service.rare.cidr_vips {
            let order = |length: u8, key: &NamespacedHostname| (Reverse(length), key.clone());
            let ours = order(range.prefix_len(), &service.key);
            let place =
                self.ranges.partition_point(|(_, other, of)| order(other.prefix_len(), &of.key) < ours);
            self.ranges.insert(place, (network.clone(), *range, service.clone()));
        }
        self.bind(service.waypoint.as_deref());
        self.by_host.insert(service.key.hostname(), service);
    }

    pub(super) fn remove(&mut self, key: &NamespacedHostname) {
        let Some(old) = self.get(key).cloned() else { return };
        self.unbind(old.waypoint.as_deref());
        for vip in &old.vips {
            self.by_vip.remove(vip, key);
        }
        if !old.rare.cidr_vips.is_empty() {
            self.ranges.retain(|(_, _, service)| service.key != *key);
        }
        self.by_host.remove(key.hostname(), key);
    }

    fn bind(&mut self, waypoint: Option<&GatewayAddress>) {
        let Some(waypoint) = waypoint else { return };
        match self.waypoints.get_mut(&waypoint.destination) {
            Some(bound) => *bound += 1,
            None => {
                self.waypoints.insert(waypoint.destination.clone(), 1);
            }
        }
    }

    fn unbind(&mut self, waypoint: Option<&GatewayAddress>) {
        let Some(waypoint) = waypoint else { return };
        let Some(bound) = self.waypoints.get_mut(&waypoint.destination) else { return };
        *bound -= 1;
        if *bound == 0 {
            self.waypoints.remove(&waypoint.destination);
        }
    }

    /// Whether a waypoint that something is bound to is found by a service.
    pub(super) fn is_of_waypoint(&self, key: &NamespacedHostname) -> bool {
        // Nearly always there are few, or none.
        !self.waypoints.is_empty() && self.waypoints.contains_key(&GatewayDestination::Hostname(key.clone()))
    }

    pub(super) fn insert_endpoint(&mut self, workload: &Arc<Workload>) {
        self.bind(workload.profile.waypoint.as_ref());
        for (key, _) in &workload.profile.services {
            match self.endpoints.get_mut(key) {
                Some(endpoints) => endpoints.insert(workload.clone()),
                None => self.endpoints.entry(key.clone()).or_default().insert(workload.clone()),
            }
        }
    }

    pub(super) fn remove_endpoint(&mut self, workload: &Workload) {
        self.unbind(workload.profile.waypoint.as_ref());
        for (key, _) in &workload.profile.services {
            let Some(endpoints) = self.endpoints.get_mut(key) else { continue };
            endpoints.remove(&workload.uid);
            if endpoints.is_empty() {
                self.endpoints.remove(key);
            }
        }
    }

    pub(super) fn get(&self, key: &NamespacedHostname) -> Option<&Arc<Service>> {
        let namesakes = self.by_host.all(key.hostname());
        let place = namesakes.binary_search_by(|service| service.key.cmp(key)).ok()?;
        Some(&namesakes[place])
    }

    pub(super) fn endpoints(&self, key: &NamespacedHostname) -> Option<&Endpoints> {
        self.endpoints.get(key)
    }

    pub(super) fn at(&self, address: &NetworkAddress, namespace: &str) -> Option<&Arc<Service>> {
        if let Some(found) = prefer(self.by_vip.all(address), namespace) {
            return Some(found);
        }
        let mut covering = self.ranges.iter().filter(|(network, range, service)| {
            *network == address.network && range.contains(&address.ip) && is_visible(service, namespace)
        });
        // The ranges come longest first.
        let own = |(_, _, service): &&Range| service.key.namespace() == namespace;
        let longest = covering.clone().next()?;
        let as_long =
            covering.clone().take_while(|(_, range, _)| range.prefix_len() == longest.1.prefix_len());
        let canonical = as_long.clone().find(|(_, _, service)| service.canonical);
        covering.find(own).or(canonical).or(Some(longest)).map(|(_, _, service)| service)
    }

    /// Whether any service, hidden or not, has an address.
    pub(super) fn any_at(&self, address: &NetworkAddress) -> bool {
        let covers = |(network, range, _): &Range| *network == address.network && range.contains(&address.ip);
        !self.by_vip.all(address).is_empty() || self.ranges.iter().any(covers)
    }

    pub(super) fn named(&self, hostname: &str, namespace: &str) -> Option<&Arc<Service>> {
        prefer(self.by_host.all(hostname), namespace)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_host.iter()
    }
}

/// The client's own namespace before the canonical service before the first by name.
fn prefer<'a>(services: &'a [Arc<Service>], namespace: &str) -> Option<&'a Arc<Service>> {
    // Nearly always there is one, and whose it is need not be looked at.
    if let [only] = services {
        return Some(only).filter(|service| is_visible(service, namespace));
    }
    let visible = || services.iter().filter(|service| is_visible(service, namespace));
    visible()
        .find(|service| service.key.namespace() == namespace)
        .or_else(|| visible().find(|service| service.canonical))
        .or_else(|| visible().next())
}

fn is_visible(service: &Service, namespace: &str) -> bool {
    service.visibility == Visibility::Public || service.key.namespace() == namespace
}

#[cfg(test)]
mod tests;
