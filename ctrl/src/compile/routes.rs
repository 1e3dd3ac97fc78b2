//! Routing as it is compiled, published to waypoints and kept: as far as a change touches it.

use std::collections::BTreeSet;
use std::sync::Arc;

use manifest::{Code, Finding, Level};
use model::address::NamespacedHostname;
use model::route::Routing;
use proto::type_url::ROUTING;
use xds::convert::resource;

use super::Edits;
use crate::index::{Changes, Index, Name};
use crate::translate::Context;
use crate::translate::routing::{Changed, Host, Missing, Routings};

/// Routing as it is in force.
#[derive(Debug)]
pub(super) struct Routes {
    routings: Routings,
    /// The hosts whose last good routing is to be kept anew.
    kept: BTreeSet<NamespacedHostname>,
    /// There are rules or waypoints, or have been.
    active: bool,
    told: bool,
}

impl Routes {
    /// Of nothing yet.
    pub(super) fn new(context: &Context) -> Self {
        let root = context.settings.root_namespace.clone();
        let routings = Routings::new(context.domain.clone(), root);
        Self { routings, kept: BTreeSet::new(), active: false, told: false }
    }

    /// Last good routings of an earlier process.
    pub(super) fn remember(&mut self, routings: impl IntoIterator<Item = Routing>) {
        self.routings.remember(routings.into_iter().map(Arc::new));
    }

    /// Last good routings of another process that runs now.
    pub(super) fn adopt(&mut self, routings: impl IntoIterator<Item = Arc<Routing>>, edits: &mut Edits) {
        if !self.active {
            return;
        }
        let changed = self.routings.adopt(routings);
        self.note(&changed, edits);
        if edits.to_layer7 && self.told {
            changed.routings.iter().for_each(|host| self.publish(host, edits));
        }
    }

    /// What is in force, and why.
    pub(super) fn routings(&self) -> &Routings {
        &self.routings
    }

    /// The hosts whose last good routing is another than when this was asked last, with it.
    pub(super) fn take_kept(&mut self) -> Vec<(NamespacedHostname, Option<Arc<Routing>>)> {
        let last_good = &self.routings.outcome().last_good;
        let with = |host: NamespacedHostname| {
            let good = last_good.get(&host).cloned();
            (host, good)
        };
        std::mem::take(&mut self.kept).into_iter().map(with).collect()
    }

    /// Takes changes of the index into account.
    pub(super) fn update(&mut self, index: &Index, changes: &Changes, edits: &mut Edits) {
        let rules = !changes.virtual_services.is_empty() || !changes.destination_rules.is_empty();
        if !self.active && (rules || edits.to_layer7) {
            self.active = true;
            if self.routings.outcome().last_good.is_empty() {
                // Services that were there before the first rule went to their endpoints: that was good.
                let changed = self.routings.compile();
                self.note(&changed, edits);
            }
        }
        for name in &changes.services {
            let host = index.service(name).map(|service| Host::of(index, service));
            self.routings.set_service(name, host);
        }
        for name in &changes.virtual_services {
            let object = index.virtual_service_object(name);
            self.routings.set_virtual_service(name, object.map(|object| &**object));
        }
        for name in &changes.destination_rules {
            let object = index.destination_rule_object(name);
            self.routings.set_destination_rule(name, object.map(|object| &**object));
        }
        if !self.active {
            return;
        }
        let changed = self.routings.compile();
        self.note(&changed, edits);
        if !edits.to_layer7 {
            return;
        }
        if std::mem::replace(&mut self.told, true) {
            changed.routings.iter().for_each(|host| self.publish(host, edits));
        } else {
            let all = self.routings.outcome().routings.iter();
            all.filter(|(_, routing)| !routing.is_by_default())
                .for_each(|(host, _)| self.publish(host, edits));
        }
    }

    fn note(&mut self, changed: &Changed, edits: &mut Edits) {
        self.kept.extend(changed.last_good.iter().cloned());
        edits.claims |= changed.missing;
        edits.routings_kept |= !changed.last_good.is_empty();
    }

    /// A host without rules is as one that waypoints are told nothing of: most have none, and each would take as much memory
    /// as its service.
    fn publish(&self, host: &NamespacedHostname, edits: &mut Edits) {
        edits.translated += 1;
        match self.routings.outcome().routings.get(host).filter(|routing| !routing.is_by_default()) {
            Some(routing) => edits.layer7.put(ROUTING, resource::routing(routing)),
            None => edits.layer7.remove(ROUTING, host.to_string()),
        };
    }

    /// What does not resolve, at the VirtualService that names it.
    pub(super) fn findings<'a>(&'a self, index: &'a Index) -> impl Iterator<Item = Finding> + 'a {
        let outcome = self.routings.outcome();
        let held = outcome.held.iter().map(|(host, missing)| (host, missing, "keeps its last good routing"));
        let left_out = "has no last good routing, so that what is missing is left out";
        let unresolved = outcome.unresolved.iter().map(move |(host, missing)| (host, missing, left_out));
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
        // The one that the first of what is missing is told of.
        let first = missing.first()?;
        let mut names: Vec<&Name> = self.routings.rules_of(host).collect();
        names.sort_by_key(|name| !first.starts_with(&format!("VirtualService {name} ")));
        let object = index.virtual_service_object(names.first()?)?;
        let missing: Vec<&str> = missing.iter().map(|one| &**one).collect();
        let message = format!("{} {fate}: there is no {}", host.hostname(), missing.join("; no "));
        let finding =
            Finding::new(Level::Warning, Code::ReferencedResourceNotFound, object.position.clone(), message);
        Some(finding.about(object.key().to_string()))
    }
}
