//! Routing as it is compiled, published to waypoints and kept: compiled anew when something that it is made of is another,
//! published as far as it differs.

use std::collections::BTreeMap;
use std::sync::Arc;

use manifest::{Code, Finding, Level};
use model::address::NamespacedHostname;
use model::route::Routing;
use proto::type_url::ROUTING;
use xds::convert::resource;

use super::Edits;
use crate::index::{Changes, Index, Name};
use crate::translate::Context;
use crate::translate::routing::{Host, LastGood, Missing, Objects, Outcome, compile};

/// Routing as it is in force.
#[derive(Debug, Default)]
pub(super) struct Routes {
    services: BTreeMap<Name, Host>,
    outcome: Outcome,
    /// What waypoints have been told.
    published: BTreeMap<NamespacedHostname, Arc<Routing>>,
    /// There are rules or waypoints, or have been.
    active: bool,
    told: bool,
}

impl Routes {
    /// Last good routings of an earlier process.
    pub(super) fn remember(&mut self, routings: impl IntoIterator<Item = Routing>) {
        let by_host = routings.into_iter().map(|routing| (routing.host.clone(), Arc::new(routing)));
        self.outcome.last_good.extend(by_host);
    }

    /// What is in force, and why.
    pub(super) fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Takes changes of the index into account.
    pub(super) fn update(&mut self, index: &Index, context: &Context, changes: &Changes, edits: &mut Edits) {
        let mut dirty = changes.routing;
        if !self.active && (changes.routing || edits.to_layer7) {
            (self.active, dirty) = (true, true);
            self.were_good(context);
        }
        for name in &changes.services {
            let now = index.service(name).map(|service| Host::of(index, service));
            if self.services.get(name) != now.as_ref() {
                dirty = true;
                match now {
                    Some(now) => drop(self.services.insert(name.clone(), now)),
                    None => drop(self.services.remove(name)),
                }
            }
        }
        if self.active && dirty {
            let objects = Objects::of(index, context, self.services.clone());
            let before = std::mem::take(&mut self.outcome);
            self.outcome = compile(&objects, &before.last_good);
            edits.routings_kept = !same(&before.last_good, &self.outcome.last_good);
            edits.claims |=
                (&before.held, &before.unresolved) != (&self.outcome.held, &self.outcome.unresolved);
        }
        if edits.to_layer7 && (dirty || !std::mem::replace(&mut self.told, true)) {
            self.publish(edits);
        }
    }

    /// Services that were there before the first rule went to their endpoints: that was good.
    fn were_good(&mut self, context: &Context) {
        if !self.services.is_empty() && self.outcome.last_good.is_empty() {
            let objects = Objects {
                services: self.services.clone(),
                domain: context.domain.clone(),
                ..Objects::default()
            };
            self.outcome = compile(&objects, &LastGood::new());
        }
    }

    fn publish(&mut self, edits: &mut Edits) {
        for (host, routing) in &self.outcome.routings {
            let known = self.published.get(host);
            if known.is_none_or(|known| !Arc::ptr_eq(known, routing) && known != routing) {
                edits.translated += 1;
                edits.layer7.put(ROUTING, resource::routing(routing));
            }
        }
        for host in self.published.keys().filter(|host| !self.outcome.routings.contains_key(*host)) {
            edits.translated += 1;
            edits.layer7.remove(ROUTING, host.to_string());
        }
        self.published.clone_from(&self.outcome.routings);
    }

    /// What does not resolve, at the VirtualService that names it.
    pub(super) fn findings<'a>(&'a self, index: &'a Index) -> impl Iterator<Item = Finding> + 'a {
        let held =
            self.outcome.held.iter().map(|(host, missing)| (host, missing, "keeps its last good routing"));
        let left_out = "has no last good routing, so that what is missing is left out";
        let unresolved = self.outcome.unresolved.iter().map(move |(host, missing)| (host, missing, left_out));
        held.chain(unresolved)
            .filter_map(move |(host, missing, fate)| self.finding(index, host, missing, fate))
    }

    fn finding(
        &self,
        index: &Index,
        host: &NamespacedHostname,
        missing: &Missing,
        fate: &str,
    ) -> Option<Finding> {
        let all = self.outcome.virtual_services.iter();
        let names = all.filter(|(_, standing)| standing.hosts.contains(&host.hostname)).map(|(name, _)| name);
        // The one that the first of what is missing is told of.
        let first = missing.first()?;
        let mut names: Vec<&Name> = names.collect();
        names.sort_by_key(|name| !first.starts_with(&format!("VirtualService {name} ")));
        let object = index.virtual_service_object(names.first()?)?;
        let missing: Vec<&str> = missing.iter().map(|one| &**one).collect();
        let message = format!("{} {fate}: there is no {}", host.hostname, missing.join("; no "));
        let finding =
            Finding::new(Level::Warning, Code::ReferencedResourceNotFound, object.position.clone(), message);
        Some(finding.about(object.key().to_string()))
    }
}

/// Whether both are the very same values: what has not changed is not made anew.
fn same(one: &LastGood, other: &LastGood) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|((a, one), (b, other))| a == b && Arc::ptr_eq(one, other))
}
