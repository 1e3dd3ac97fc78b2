//! Waypoints by name, and what namespaces and accounts say of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::address::Str;

use super::Name;
use super::facts::{Traffic, Waypoint};
use super::labels::Labels;

/// What a namespace says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Namespace {
    pub(super) labels: Labels,
    /// All must come by a waypoint.
    pub(super) requires: bool,
}

#[derive(Debug, Default)]
pub(super) struct Waypoints {
    there: BTreeMap<Name, Arc<Waypoint>>,
    /// Those that have been ready, as they were last: a binding to one stays in force, also when the Gateway is gone.
    ready: BTreeMap<Name, Arc<Waypoint>>,
    /// What each class says where a Gateway says nothing.
    classes: BTreeMap<&'static str, Traffic>,
    namespaces: BTreeMap<Str, Namespace>,
    /// Accounts all of whose callers must come by a waypoint.
    accounts: BTreeSet<Name>,
}

impl Waypoints {
    pub(super) fn set(&mut self, name: &Name, waypoint: Option<Arc<Waypoint>>) {
        match waypoint {
            Some(waypoint) => {
                // What it says counts from now on, also where it is gone later.
                if let Some(ready) = self.ready.get_mut(name) {
                    *ready = waypoint.clone();
                }
                self.there.insert(name.clone(), waypoint);
            }
            None => drop(self.there.remove(name)),
        }
    }

    pub(super) fn get(&self, name: &Name) -> Option<&Arc<Waypoint>> {
        self.there.get(name)
    }

    /// The waypoint, also one that is gone if it has been ready.
    pub(super) fn known(&self, name: &Name) -> Option<&Arc<Waypoint>> {
        self.there.get(name).or_else(|| self.ready.get(name))
    }

    pub(super) fn there(&self) -> impl Iterator<Item = &Arc<Waypoint>> {
        self.there.values()
    }

    /// Whether there is none, and none that is gone matters.
    pub(super) fn is_empty(&self) -> bool {
        self.there.is_empty() && self.ready.is_empty()
    }

    pub(super) fn has_been_ready(&self, name: &Name) -> bool {
        self.ready.contains_key(name)
    }

    pub(super) fn note_ready(&mut self, waypoint: Arc<Waypoint>) {
        self.ready.insert(waypoint.name.clone(), waypoint);
    }

    pub(super) fn forget_ready(&mut self, name: &Name) {
        self.ready.remove(name);
    }

    /// Those that have been ready and are gone.
    pub(super) fn orphans(&self) -> Vec<Name> {
        self.ready.keys().filter(|name| !self.there.contains_key(*name)).cloned().collect()
    }

    /// The waypoint in front of an account: of several the oldest, then the first by name.
    pub(super) fn of_account(&self, namespace: &Str, account: &str) -> Option<&Arc<Waypoint>> {
        let own = self.there.range(Name::new(namespace, "")..).map(|(_, waypoint)| waypoint);
        let own = own.take_while(|waypoint| waypoint.name.namespace == *namespace);
        let for_it = own.filter(|waypoint| waypoint.account.as_deref() == Some(account));
        for_it.min_by_key(|waypoint| (waypoint.created.is_none(), &waypoint.created, &waypoint.name))
    }

    /// For which traffic labels may ask for a waypoint.
    pub(super) fn traffic(&self, waypoint: &Waypoint) -> Traffic {
        let class = || self.classes.get(waypoint.class).copied();
        waypoint.traffic.or_else(class).unwrap_or(Traffic::Service)
    }

    /// True if that is something else than before.
    pub(super) fn set_class(&mut self, class: &'static str, traffic: Option<Traffic>) -> bool {
        let before = match traffic {
            Some(traffic) => self.classes.insert(class, traffic),
            None => self.classes.remove(class),
        };
        before != traffic
    }

    pub(super) fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// True if that is something else than before.
    pub(super) fn set_namespace(&mut self, name: &Str, namespace: Option<Namespace>) -> bool {
        let namespace = namespace.filter(|namespace| *namespace != Namespace::default());
        let before = match namespace.clone() {
            Some(namespace) => self.namespaces.insert(name.clone(), namespace),
            None => self.namespaces.remove(name),
        };
        before != namespace
    }

    pub(super) fn namespaces(&self) -> impl Iterator<Item = (&Str, &Namespace)> {
        self.namespaces.iter()
    }

    pub(super) fn requires_account(&self, name: &Name) -> bool {
        self.accounts.contains(name)
    }

    /// True if that is something else than before.
    pub(super) fn set_account(&mut self, name: &Name, requires: bool) -> bool {
        if requires { self.accounts.insert(name.clone()) } else { self.accounts.remove(name) }
    }
}
