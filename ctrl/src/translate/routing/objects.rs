//! What routing is compiled from: hosts, VirtualServices and DestinationRules, as the index has them.

#[cfg(test)]
use std::collections::BTreeMap;
#[cfg(test)]
use std::sync::Arc;

#[cfg(test)]
use manifest::Object;
use model::address::Str;

use crate::index::Index;
#[cfg(test)]
use crate::index::Name;
use crate::index::facts::Service;

/// A service, as far as routing asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its ports.
    pub ports: Box<[u16]>,
    /// The namespace of who routes what is for it: its waypoint's, else its own. VirtualServices and DestinationRules
    /// count that are exported there.
    pub seen_from: Str,
}

/// All that routing is compiled from.
#[cfg(test)]
#[derive(Debug, Clone, Default)]
pub(super) struct Objects {
    /// The services.
    pub services: BTreeMap<Name, Host>,
    /// VirtualServices, those that cannot be read included.
    pub virtual_services: Vec<Arc<Object>>,
    /// DestinationRules, those that cannot be read included.
    pub destination_rules: Vec<Arc<Object>>,
    /// What follows `svc` in names of hosts.
    pub domain: Str,
    /// The namespace whose DestinationRules are for all.
    pub root_namespace: Str,
}

impl Host {
    /// A service of the index.
    pub fn of(index: &Index, service: &Service) -> Self {
        let bound = index.service_bound(service);
        let seen_from =
            bound.in_force().map_or(&service.name.namespace, |binding| &binding.waypoint.namespace);
        Self { ports: service.ports.iter().map(|port| port.number).collect(), seen_from: seen_from.clone() }
    }
}
