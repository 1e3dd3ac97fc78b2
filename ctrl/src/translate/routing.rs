//! VirtualServices and DestinationRules → for each host what becomes of its traffic: its [`Routing`], and the subsets and
//! traffic policies of every host that it names. One value per host, replaced as a whole (design decision D4).
//!
//! ```text
//!  objects ─► lookup   who is for a host, in which order; whose DestinationRule counts
//!          ─► rules    each rule in the model's words, delegates put in, references resolved
//!          ─► incremental  which hosts a change touches, and what is in force: the new, or the last good where a
//!                          reference does not resolve
//! ```
//!
//! Pure, and independent of the order in which objects come: what a host's routing is follows from the objects there are
//! and from its last good routing alone.

mod asked;
mod delegate;
mod destination_rule;
mod http;
mod http_match;
mod incremental;
mod layer4;
mod lookup;
mod objects;
mod references;
mod room;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::address::{NamespacedHostname, Str};
use model::route::{HttpRule, Routing};
use xds::convert::routing::features::Feature;

pub use self::asked::Asked;
pub use self::incremental::{Changed, Routings};
use self::lookup::{Lookup, Rules};
pub use self::objects::Host;
#[cfg(test)]
use self::objects::Objects;
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
    #[cfg(test)]
    pub virtual_services: BTreeMap<Name, Standing>,
    /// What became of each DestinationRule.
    #[cfg(test)]
    pub destination_rules: BTreeMap<Name, Standing>,
}

/// What became of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The hosts for whose routing it counts.
    pub hosts: BTreeSet<Str>,
    /// Why it has no effect somewhere, in words.
    pub without_effect: BTreeSet<String>,
    /// What its fields ask of waypoints.
    pub asked: Asked,
}

impl Standing {
    /// The fields that ask for something of which this holds, such as that waypoints do not carry it out.
    pub fn fields(&self, holds: impl Fn(Feature) -> bool) -> impl Iterator<Item = &str> {
        let asked = self.asked.iter().filter(move |(feature, _)| holds(**feature));
        asked.flat_map(|(_, fields)| fields).map(String::as_str)
    }
}

/// Compiles all hosts at once: what [`Routings`] comes to, whatever the steps.
#[cfg(test)]
fn compile(objects: &Objects, last_good: &LastGood) -> Outcome {
    let mut routings = Routings::new(objects.domain.clone(), objects.root_namespace.clone());
    routings.remember(last_good.values().cloned());
    let name = |object: &manifest::Object| {
        Name::new(object.metadata.namespace.as_deref().unwrap_or_default(), &object.metadata.name)
    };
    for object in &objects.virtual_services {
        routings.set_virtual_service(&name(object), Some(object));
    }
    for object in &objects.destination_rules {
        routings.set_destination_rule(&name(object), Some(object));
    }
    for (name, host) in &objects.services {
        routings.set_service(name, Some(host.clone()));
    }
    routings.compile();
    routings.told()
}

/// A host's routing as the objects have it, and what they name.
fn one_host<'a>(
    lookup: &'a Lookup,
    name: &Name,
    host: &Host,
    key: &NamespacedHostname,
) -> (Routing, References<'a>) {
    let mut references = References::new(lookup, host.seen_from.clone());
    let mut routing = Routing::by_default(key.clone());
    // Also without a rule: the traffic policy of the service itself.
    references.destination(name);
    let (mut http, mut tls, mut tcp) = (Vec::new(), Vec::new(), Vec::new());
    for rules in lookup.rules_for(name, host, key) {
        references.virtual_services.insert(rules.name.clone());
        http.extend(http_rules(lookup, rules, &mut references));
        tls.extend(layer4::tls(rules, &mut references));
        tcp.extend(layer4::tcp(rules, &mut references));
    }
    (routing.http, routing.tls, routing.tcp) = (http.into(), tls.into(), tcp.into());
    routing.destinations = std::mem::take(&mut references.destinations);
    (routing, references)
}

/// The rules for HTTP of a VirtualService, delegates put in. What the host has no room for takes everything, so that nothing
/// behind it is ever asked, or read.
fn http_rules(lookup: &Lookup, rules: &Rules, references: &mut References<'_>) -> Vec<HttpRule> {
    let mut translated = Vec::new();
    for (index, route) in rules.spec.http.iter().enumerate() {
        if references.room.is_exceeded() {
            break;
        }
        for one in delegate::expand(lookup, rules, index, route, references) {
            translated.extend(http::rule(&one, references));
            if references.room.regexes.is_exceeded() {
                break;
            }
        }
    }
    translated
}

#[cfg(test)]
mod tests;
