//! Services by name, host name and virtual address, with their endpoints.
//!
//! There may be twenty thousand, most of which no connection ever asks for, so an entry of an index is little more than a
//! pointer.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use ipnet::IpNet;

use super::Endpoints;
use super::index::{ByAddress, Map, Set};
use crate::address::{NamespacedHostname, NetworkAddress, Str};
use crate::service::{Service, Visibility};
use crate::workload::{GatewayAddress, GatewayDestination, Workload};

#[derive(Debug, Default)]
pub(super) struct Services {
    by_key: Set<ByKey>,
    by_host: Set<ByHost>,
    by_vip: ByAddress<Few>,
    /// Ranges are few; the longest prefix comes first, then the first by name.
    ranges: Vec<Range>,
    /// Those of services that have any; either of the two may come first.
    endpoints: Map<NamespacedHostname, Endpoints>,
    /// Waypoints, and how many services and endpoints are bound to each.
    waypoints: Map<GatewayDestination, u32>,
}

type Range = (Str, IpNet, Arc<Service>);

/// A service that is found by its key, without keeping that twice.
#[derive(Debug)]
struct ByKey(Arc<Service>);

impl Borrow<NamespacedHostname> for ByKey {
    fn borrow(&self) -> &NamespacedHostname {
        &self.0.key
    }
}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

/// The services of one host name or address: nearly always one. In the order of names, so that which is "the first" does
/// not depend on the order of arrival.
#[derive(Debug)]
enum Few {
    One(Arc<Service>),
    #[expect(clippy::box_collection, reason = "an entry of an index is to be small")]
    Several(Box<Vec<Arc<Service>>>),
}

impl Few {
    fn all(&self) -> &[Arc<Service>] {
        match self {
            Self::One(only) => std::slice::from_ref(only),
            Self::Several(all) => all,
        }
    }

    fn hostname(&self) -> &str {
        match self {
            Self::One(only) => &only.key.hostname,
            Self::Several(all) => all.first().map_or("", |first| &first.key.hostname),
        }
    }

    /// With one more.
    fn and(few: Option<Self>, service: &Arc<Service>) -> Self {
        let mut all = match few {
            None => return Self::One(service.clone()),
            Some(Self::One(only)) => Box::new(vec![only]),
            Some(Self::Several(all)) => all,
        };
        let place = all.partition_point(|other| other.key < service.key);
        all.insert(place, service.clone());
        Self::Several(all)
    }

    /// Without one; nothing if there is no other.
    fn without(self, key: &NamespacedHostname) -> Option<Self> {
        let Self::Several(mut all) = self else { return Some(self).filter(|few| few.all()[0].key != *key) };
        all.retain(|service| service.key != *key);
        match &all[..] {
            [] => None,
            [only] => Some(Self::One(only.clone())),
            _ => Some(Self::Several(all)),
        }
    }
}

/// Services that are found by their host name, without keeping that twice.
#[derive(Debug)]
struct ByHost(Few);

impl Borrow<str> for ByHost {
    fn borrow(&self) -> &str {
        self.0.hostname()
    }
}

impl Hash for ByHost {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hostname().hash(state);
    }
}

impl PartialEq for ByHost {
    fn eq(&self, other: &Self) -> bool {
        self.0.hostname() == other.0.hostname()
    }
}

impl Eq for ByHost {}

impl Services {
    pub(super) fn insert(&mut self, service: Arc<Service>) {
        self.remove(&service.key);
        for vip in &service.vips {
            let few = Few::and(self.by_vip.take(vip), &service);
            self.by_vip.insert(vip, few);
        }
        let of_host = self.by_host.take(&*service.key.hostname).map(|ByHost(few)| few);
        self.by_host.insert(ByHost(Few::and(of_host, &service)));
        for (network, range) in &service.cidr_vips {
            let order = |length: u8, key: &NamespacedHostname| (Reverse(length), key.clone());
            let ours = order(range.prefix_len(), &service.key);
            let place =
                self.ranges.partition_point(|(_, other, of)| order(other.prefix_len(), &of.key) < ours);
            self.ranges.insert(place, (network.clone(), *range, service.clone()));
        }
        self.bind(service.waypoint.as_ref());
        self.by_key.insert(ByKey(service));
    }

    pub(super) fn remove(&mut self, key: &NamespacedHostname) {
        let Some(ByKey(old)) = self.by_key.take(key) else { return };
        self.unbind(old.waypoint.as_ref());
        for vip in &old.vips {
            if let Some(few) = self.by_vip.take(vip).and_then(|few| few.without(key)) {
                self.by_vip.insert(vip, few);
            }
        }
        let of_host = self.by_host.take(&*key.hostname).and_then(|ByHost(few)| few.without(key));
        if let Some(few) = of_host {
            self.by_host.insert(ByHost(few));
        }
        if !old.cidr_vips.is_empty() {
            self.ranges.retain(|(_, _, service)| service.key != *key);
        }
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
        self.by_key.get(key).map(|ByKey(service)| service)
    }

    pub(super) fn endpoints(&self, key: &NamespacedHostname) -> Option<&Endpoints> {
        self.endpoints.get(key)
    }

    pub(super) fn at(&self, address: &NetworkAddress, namespace: &str) -> Option<&Arc<Service>> {
        if let Some(found) = self.by_vip.get(address).and_then(|few| prefer(few.all(), namespace)) {
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

    /// Whether any service, hidden or not, has an address.
    pub(super) fn any_at(&self, address: &NetworkAddress) -> bool {
        let covers = |(network, range, _): &Range| *network == address.network && range.contains(&address.ip);
        self.by_vip.get(address).is_some() || self.ranges.iter().any(covers)
    }

    pub(super) fn named(&self, hostname: &str, namespace: &str) -> Option<&Arc<Service>> {
        prefer(self.by_host.get(hostname)?.0.all(), namespace)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_key.iter().map(|ByKey(service)| service)
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
        .find(|service| &*service.key.namespace == namespace)
        .or_else(|| visible().find(|service| service.canonical))
        .or_else(|| visible().next())
}

fn is_visible(service: &Service, namespace: &str) -> bool {
    service.visibility == Visibility::Public || &*service.key.namespace == namespace
}

#[cfg(test)]
mod tests;
