//! Which hosts a change touches: those alone are compiled anew. A host is touched by a VirtualService that is or was for it
//! or that its rules delegate to, by a DestinationRule for a host that its rules name, and by a service that they name,
//! whether or not any of these is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use manifest::Object;
use model::address::{NamespacedHostname, Str};
use model::route::Routing;

use super::lookup::Lookup;
use super::references::References;
use super::{Host, Missing, Outcome, Standing, one_host};
use crate::index::Name;

/// Routing as it is in force, kept up to date object by object.
#[derive(Debug)]
pub struct Routings {
    lookup: Lookup,
    outcome: Outcome,
    /// What each host's routing was made of.
    uses: BTreeMap<Name, Uses>,
    by_host: BTreeMap<Str, BTreeSet<Name>>,
    by_delegate: BTreeMap<Name, BTreeSet<Name>>,
    /// The hosts for which each VirtualService and DestinationRule counts.
    of_virtual_services: BTreeMap<Name, BTreeSet<Str>>,
    of_destination_rules: BTreeMap<Name, BTreeSet<Str>>,
    /// To be compiled anew.
    touched: BTreeSet<Name>,
    /// Last good routings of an earlier process may be of hosts that are gone.
    remembered: bool,
    compiled: u64,
}

/// What a host's routing was made of, and named.
#[derive(Debug, Default)]
struct Uses {
    hosts: BTreeSet<Str>,
    delegates: BTreeSet<Name>,
    virtual_services: BTreeSet<Name>,
    destination_rules: BTreeSet<Name>,
}

/// What is another after a compilation.
#[derive(Debug, Default)]
pub struct Changed {
    /// The hosts with another routing in force, or none any more.
    pub routings: BTreeSet<NamespacedHostname>,
    /// The same of the last good.
    pub last_good: BTreeSet<NamespacedHostname>,
    /// Other hosts are held, or for want of something else.
    pub missing: bool,
}

impl Routings {
    /// Of no hosts yet.
    pub fn new(domain: Str, root_namespace: Str) -> Self {
        Self {
            lookup: Lookup::new(domain, root_namespace),
            outcome: Outcome::default(),
            uses: BTreeMap::new(),
            by_host: BTreeMap::new(),
            by_delegate: BTreeMap::new(),
            of_virtual_services: BTreeMap::new(),
            of_destination_rules: BTreeMap::new(),
            touched: BTreeSet::new(),
            remembered: false,
            compiled: 0,
        }
    }

    /// Last good routings of an earlier process.
    pub fn remember(&mut self, routings: impl IntoIterator<Item = Arc<Routing>>) {
        self.outcome.last_good.extend(routings.into_iter().map(|routing| (routing.host.clone(), routing)));
        self.remembered = true;
    }

    /// Last good routings of another process that runs now: they count for the hosts whose rules do not resolve.
    pub fn adopt(&mut self, routings: impl IntoIterator<Item = Arc<Routing>>) -> Changed {
        let mut changed = Changed::default();
        for routing in routings {
            let host = &routing.host;
            let outcome = &mut self.outcome;
            if let Some(missing) = outcome.unresolved.remove(host) {
                outcome.held.insert(host.clone(), missing);
                changed.missing = true;
            }
            if !outcome.held.contains_key(host) || outcome.last_good.get(host) == Some(&routing) {
                continue;
            }
            outcome.last_good.insert(host.clone(), routing.clone());
            outcome.routings.insert(host.clone(), routing.clone());
            changed.last_good.insert(host.clone());
            changed.routings.insert(host.clone());
        }
        changed
    }

    /// What is in force, and why.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// How many hosts were compiled so far, each time counted.
    pub fn compiled(&self) -> u64 {
        self.compiled
    }

    /// A service is another, is new, or is gone.
    pub fn set_service(&mut self, name: &Name, host: Option<Host>) {
        if self.lookup.set_service(name, host) {
            let key = self.lookup.key_of(name);
            self.touched.insert(name.clone());
            self.touched.extend(self.by_host.get(key.hostname()).into_iter().flatten().cloned());
        }
    }

    /// A VirtualService is another, is new, or is gone.
    pub fn set_virtual_service(&mut self, name: &Name, object: Option<&Object>) {
        for host in self.lookup.set_rules(name, object) {
            self.touched.extend(self.lookup.services_of(&host));
        }
        self.touched.extend(self.by_delegate.get(name).into_iter().flatten().cloned());
    }

    /// A DestinationRule is another, is new, or is gone.
    pub fn set_destination_rule(&mut self, name: &Name, object: Option<&Object>) {
        for host in self.lookup.set_destination_rule(name, object) {
            match host.strip_prefix('*') {
                Some(end) => {
                    let within = self.by_host.iter().filter(|(host, _)| host.ends_with(end));
                    self.touched.extend(within.flat_map(|(_, hosts)| hosts).cloned());
                }
                None => {
                    let named = self.by_host.get(host.as_str());
                    self.touched.extend(named.into_iter().flatten().cloned());
                }
            }
        }
    }

    /// Compiles what was touched.
    pub fn compile(&mut self) -> Changed {
        let mut changed = Changed::default();
        for name in std::mem::take(&mut self.touched) {
            let key = self.lookup.key_of(&name);
            let hostname = Str::from(key.hostname());
            self.forget(&name, &hostname);
            let Some((_, host)) = self.lookup.service(&hostname) else {
                self.remove(&key, &mut changed);
                continue;
            };
            self.compiled += 1;
            let (compiled, mut references) = one_host(&self.lookup, &name, host, &key);
            let missing = std::mem::take(&mut references.missing);
            let uses = Uses::of(references);
            self.note(&name, &hostname, uses);
            self.settle(key, compiled, missing, &mut changed);
        }
        if std::mem::take(&mut self.remembered) {
            let gone = |key: &&NamespacedHostname| self.lookup.service(key.hostname()).is_none();
            let gone: Vec<_> = self.outcome.last_good.keys().filter(gone).cloned().collect();
            gone.iter().for_each(|key| self.remove(key, &mut changed));
        }
        changed
    }

    /// What became of a VirtualService; nothing if there is none of the name.
    pub fn virtual_service(&self, name: &Name) -> Option<Standing> {
        self.lookup.of_rules(name, self.of_virtual_services.get(name).cloned().unwrap_or_default())
    }

    /// What became of a DestinationRule.
    pub fn destination_rule(&self, name: &Name) -> Option<Standing> {
        let hosts = self.of_destination_rules.get(name).cloned().unwrap_or_default();
        self.lookup.of_destination_rule(name, hosts)
    }

    /// The VirtualServices that count for a host.
    pub fn rules_of(&self, host: &NamespacedHostname) -> impl Iterator<Item = &Name> {
        let uses = self.lookup.service(host.hostname()).and_then(|(name, _)| self.uses.get(name));
        uses.into_iter().flat_map(|uses| &uses.virtual_services)
    }

    /// The outcome with what became of every object.
    #[cfg(test)]
    pub(super) fn told(self) -> Outcome {
        let virtual_services = self.lookup.virtual_service_names();
        let virtual_services =
            virtual_services.map(|name| (name.clone(), self.virtual_service(&name).unwrap()));
        let destination_rules = self.lookup.destination_rule_names();
        let destination_rules =
            destination_rules.map(|name| (name.clone(), self.destination_rule(&name).unwrap()));
        Outcome {
            virtual_services: virtual_services.collect(),
            destination_rules: destination_rules.collect(),
            ..self.outcome
        }
    }

    fn note(&mut self, name: &Name, hostname: &Str, uses: Uses) {
        for host in &uses.hosts {
            self.by_host.entry(host.clone()).or_default().insert(name.clone());
        }
        for delegate in &uses.delegates {
            self.by_delegate.entry(delegate.clone()).or_default().insert(name.clone());
        }
        for used in &uses.virtual_services {
            self.of_virtual_services.entry(used.clone()).or_default().insert(hostname.clone());
        }
        for used in &uses.destination_rules {
            self.of_destination_rules.entry(used.clone()).or_default().insert(hostname.clone());
        }
        self.uses.insert(name.clone(), uses);
    }

    fn forget(&mut self, name: &Name, hostname: &Str) {
        let Some(uses) = self.uses.remove(name) else { return };
        uses.hosts.iter().for_each(|host| take(&mut self.by_host, host, name));
        uses.delegates.iter().for_each(|delegate| take(&mut self.by_delegate, delegate, name));
        uses.virtual_services.iter().for_each(|used| take(&mut self.of_virtual_services, used, hostname));
        uses.destination_rules.iter().for_each(|used| take(&mut self.of_destination_rules, used, hostname));
    }

    /// A host is gone: nothing is left to go back to.
    fn remove(&mut self, key: &NamespacedHostname, changed: &mut Changed) {
        if self.outcome.routings.remove(key).is_some() {
            changed.routings.insert(key.clone());
        }
        if self.outcome.last_good.remove(key).is_some() {
            changed.last_good.insert(key.clone());
        }
        changed.missing |= self.outcome.held.remove(key).is_some();
        changed.missing |= self.outcome.unresolved.remove(key).is_some();
    }

    /// Puts the new routing of a host in force, or keeps its last good one.
    fn settle(&mut self, key: NamespacedHostname, new: Routing, missing: Missing, changed: &mut Changed) {
        let outcome = &mut self.outcome;
        let good = outcome.last_good.get(&key).cloned();
        let (now, held, unresolved) = match (missing.is_empty(), good) {
            (true, good) => {
                // What is the same stays the same value, so that nobody compares it twice.
                let same = good.filter(|good| **good == new);
                let now = same.unwrap_or_else(|| {
                    changed.last_good.insert(key.clone());
                    Arc::new(new)
                });
                outcome.last_good.insert(key.clone(), now.clone());
                (now, None, None)
            }
            (false, Some(good)) => (good, Some(missing), None),
            (false, None) => (Arc::new(new), None, Some(missing)),
        };
        changed.missing |=
            set(&mut outcome.held, &key, held) | set(&mut outcome.unresolved, &key, unresolved);
        if set(&mut outcome.routings, &key, Some(now)) {
            changed.routings.insert(key);
        }
    }
}

impl Uses {
    fn of(references: References<'_>) -> Self {
        let References { hosts, delegates, virtual_services, destination_rules, .. } = references;
        Self { hosts, delegates, virtual_services, destination_rules }
    }
}

/// Whether another value is there now.
fn set<V: PartialEq>(
    all: &mut BTreeMap<NamespacedHostname, V>,
    key: &NamespacedHostname,
    value: Option<V>,
) -> bool {
    match value {
        Some(value) if all.get(key) == Some(&value) => false,
        Some(value) => {
            all.insert(key.clone(), value);
            true
        }
        None => all.remove(key).is_some(),
    }
}

fn take<K: Ord, V: Ord>(all: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if all.get_mut(key).is_some_and(|values| values.remove(value) && values.is_empty()) {
        all.remove(key);
    }
}
