//! VirtualServices and DestinationRules → for each host what becomes of its traffic: its [`Routing`], and the subsets and
//! traffic policies of every host that it names. One value per host, replaced as a whole (design decision D4).
//!
//! ```text
//!  objects ─► lookup   who is for a host, in which order; whose DestinationRule counts
//!          ─► rules    each rule in the model's words, delegates put in, references resolved
//!          ─► compile  what is in force: the new, or the last good where a reference does not resolve
//! ```
//!
//! Pure, and independent of the order in which objects come: what a host's routing is follows from the objects there are
//! and from its last good routing alone.

mod delegate;
mod destination_rule;
mod http;
mod http_match;
mod layer4;
mod lookup;
mod not_carried;
mod objects;
mod references;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::address::{NamespacedHostname, Str};
use model::route::{Forward, Routing};

use self::lookup::Lookup;
pub use self::objects::{Host, Objects};
use self::references::References;
use crate::index::Name;

/// What was in force for each host when all of its references resolved last.
pub type LastGood = BTreeMap<NamespacedHostname, Arc<Routing>>;

/// What a host's rules name that is not there, e.g. `VirtualService shop/cart http[0]: DestinationRule subset shop/cart v3`.
pub type Missing = BTreeSet<Str>;

/// What is in force, and why it is not always what was written last.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    /// For each host, what is in force.
    pub routings: BTreeMap<NamespacedHostname, Arc<Routing>>,
    /// For each host, what to go back to: to be kept, over restarts too.
    pub last_good: LastGood,
    /// Hosts whose last good routing is kept, and for want of what.
    pub held: BTreeMap<NamespacedHostname, Missing>,
    /// Hosts that never had a good routing: what does not resolve is left out.
    pub unresolved: BTreeMap<NamespacedHostname, Missing>,
    /// What became of each VirtualService.
    pub virtual_services: BTreeMap<Name, Standing>,
    /// What became of each DestinationRule.
    pub destination_rules: BTreeMap<Name, Standing>,
}

/// What became of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The hosts for whose routing it counts.
    pub hosts: BTreeSet<Str>,
    /// Why it has no effect somewhere, in words.
    pub without_effect: BTreeSet<String>,
    /// Fields of it that waypoints do not carry out yet.
    pub not_carried: BTreeSet<String>,
}

/// Compiles all hosts.
pub fn compile(objects: &Objects, last_good: &LastGood) -> Outcome {
    let lookup = Lookup::new(objects);
    let mut outcome = Outcome::default();
    for name in lookup.virtual_service_names() {
        outcome.virtual_services.entry(name).or_default();
    }
    for name in lookup.destination_rule_names() {
        outcome.destination_rules.entry(name).or_default();
    }
    for (name, host) in &objects.services {
        let key = lookup.key_of(name);
        let (compiled, references) = one_host(&lookup, name, host, &key);
        for used in &references.destination_rules {
            outcome.destination_rules.entry(used.clone()).or_default().hosts.insert(key.hostname.clone());
        }
        for used in &references.virtual_services {
            outcome.virtual_services.entry(used.clone()).or_default().hosts.insert(key.hostname.clone());
        }
        settle(key, compiled, references.missing, last_good, &mut outcome);
    }
    lookup.without_effect(&mut outcome);
    outcome
}

/// Puts the new routing of a host in force, or keeps its last good one.
fn settle(
    key: NamespacedHostname,
    compiled: Routing,
    missing: Missing,
    last_good: &LastGood,
    outcome: &mut Outcome,
) {
    let before = last_good.get(&key);
    if missing.is_empty() {
        // What is the same stays the same value, so that nobody compares it twice.
        let now =
            before.filter(|before| ***before == compiled).cloned().unwrap_or_else(|| Arc::new(compiled));
        outcome.last_good.insert(key.clone(), now.clone());
        outcome.routings.insert(key, now);
        return;
    }
    match before {
        Some(before) => {
            outcome.held.insert(key.clone(), missing);
            outcome.last_good.insert(key.clone(), before.clone());
            outcome.routings.insert(key, before.clone());
        }
        None => {
            outcome.unresolved.insert(key.clone(), missing);
            outcome.routings.insert(key, Arc::new(compiled));
        }
    }
}

/// A host's routing as the objects have it, and what they name.
fn one_host<'a>(
    lookup: &'a Lookup<'a>,
    name: &Name,
    host: &Host,
    key: &NamespacedHostname,
) -> (Routing, References<'a>) {
    let mut references = References::new(lookup, host.seen_from.clone());
    let mut routing = Routing {
        host: key.clone(),
        http: Box::default(),
        tls: Box::default(),
        tcp: Box::default(),
        default: Some(Box::new(Forward::to_service(key.clone()))),
        destinations: BTreeMap::new(),
    };
    // Also without a rule: the traffic policy of the service itself.
    references.destination(name);
    let (mut http, mut tls, mut tcp) = (Vec::new(), Vec::new(), Vec::new());
    for rules in lookup.rules_for(name, host, key) {
        references.virtual_services.insert(rules.name.clone());
        for (index, route) in rules.spec.http.iter().enumerate() {
            let expanded = delegate::expand(lookup, rules, index, route, &mut references);
            http.extend(expanded.into_iter().filter_map(|one| http::rule(&one, &mut references)));
        }
        tls.extend(layer4::tls(rules, &mut references));
        tcp.extend(layer4::tcp(rules, &mut references));
    }
    (routing.http, routing.tls, routing.tcp) = (http.into(), tls.into(), tcp.into());
    routing.destinations = std::mem::take(&mut references.destinations);
    (routing, references)
}

#[cfg(test)]
mod tests;
