//! What the rules of a host name: whether it is there, and what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use manifest::istio;
use model::address::{NamespacedHostname, Str};
use model::route::{Destination, Destinations, HeaderChanges, RuleSource, Weighted};
use model::traffic;

use super::Missing;
use super::lookup::Lookup;
use super::room::Room;
use crate::index::Name;

/// What was named so far by the rules of one host.
#[derive(Debug)]
pub(super) struct References<'a> {
    lookup: &'a Lookup,
    /// The namespace of who routes.
    from: Str,
    /// Subsets and traffic policies of the hosts that were named, where DestinationRules say any.
    pub(super) destinations: BTreeMap<NamespacedHostname, Arc<traffic::Destination>>,
    /// What is not there.
    pub(super) missing: Missing,
    pub(super) virtual_services: BTreeSet<Name>,
    pub(super) destination_rules: BTreeSet<Name>,
    /// The hosts that were asked for, whether or not they are there.
    pub(super) hosts: BTreeSet<Str>,
    /// The same of delegates.
    pub(super) delegates: BTreeSet<Name>,
    /// What the host's rules may still come to.
    pub(super) room: Room,
}

/// A destination of a rule, with its weight and what is changed for it alone.
pub(super) struct Written<'a> {
    pub(super) destination: &'a istio::Destination,
    pub(super) weight: i32,
    pub(super) headers: HeaderChanges,
}

impl<'a> References<'a> {
    pub(super) fn new(lookup: &'a Lookup, from: Str) -> Self {
        Self {
            lookup,
            from,
            destinations: BTreeMap::new(),
            missing: Missing::new(),
            virtual_services: BTreeSet::new(),
            destination_rules: BTreeSet::new(),
            hosts: BTreeSet::new(),
            delegates: BTreeSet::new(),
            room: Room::default(),
        }
    }

    /// Notes that a rule names what is not there; what is said to who asks.
    pub(super) fn miss(&mut self, source: &RuleSource, what: String) -> Str {
        self.missing.insert(format!("{source}: {what}").into());
        what.into()
    }

    /// A service's subsets and traffic policy, for who routes from here; `None` where no DestinationRule says any.
    pub(super) fn destination(&mut self, service: &Name) -> Option<Arc<traffic::Destination>> {
        let key = self.lookup.key_of(service);
        self.hosts.insert(key.hostname().into());
        if let Some(known) = self.destinations.get(&key) {
            return Some(known.clone());
        }
        let (destination, names) = self.lookup.destination(service, &self.from)?;
        self.destination_rules.extend(names);
        let destination = Arc::new(destination);
        self.destinations.insert(key, destination.clone());
        Some(destination)
    }

    /// One destination.
    ///
    /// # Errors
    /// What of it is not there.
    pub(super) fn one(
        &mut self,
        written: &istio::Destination,
        headers: HeaderChanges,
    ) -> Result<Destination, String> {
        self.hosts.insert(written.host.as_str().into());
        let Some((name, host)) = self.lookup.service(&written.host) else {
            return Err(format!("Service {}", written.host));
        };
        let port = match written.port {
            Some(port) => Some(port.number),
            // The port of the request, unless there is only one that it can be.
            None => <[u16; 1]>::try_from(&host.ports[..]).ok().map(|[only]| u32::from(only)),
        };
        let port = match port {
            None => None,
            Some(number) => match host.ports.iter().find(|port| u32::from(**port) == number) {
                Some(port) => Some(*port),
                None => return Err(format!("Service {name} port {number}")),
            },
        };
        let subset = Some(&*written.subset).filter(|subset| !subset.is_empty());
        let known = self.destination(name);
        if let Some(subset) = subset
            && known.is_none_or(|known| known.subset(subset).is_none())
        {
            return Err(format!("DestinationRule subset {name} {subset}"));
        }
        Ok(Destination { service: self.lookup.key_of(name), subset: subset.map(Into::into), port, headers })
    }

    /// All destinations of a rule that are there, and what is missing of the others.
    pub(super) fn all<'w>(
        &mut self,
        source: &RuleSource,
        written: impl IntoIterator<Item = Written<'w>>,
    ) -> (Destinations, Vec<Str>) {
        let (mut found, mut missing, mut count) = (Vec::new(), Vec::new(), 0);
        for Written { destination, weight, headers } in written {
            count += 1;
            match self.one(destination, headers) {
                Ok(destination) => {
                    found.push(Weighted { weight: u32::try_from(weight).unwrap_or_default(), destination });
                }
                Err(what) => missing.push(self.miss(source, what)),
            }
        }
        let destinations = match found.pop() {
            Some(only) if count == 1 => Destinations::One(only.destination),
            Some(last) => {
                found.push(last);
                Destinations::Split(found.into())
            }
            None => Destinations::default(),
        };
        (destinations, missing)
    }
}
