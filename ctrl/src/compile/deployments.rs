//! What became of the objects that are made for Gateways, as the replica that makes them tells: their conditions say it.

use std::collections::BTreeMap;

use crate::index::Name;

/// What became of a Gateway's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deployment {
    /// They are as they should be.
    Made,
    /// What it refers to is not there, or is something else.
    Unresolved(String),
    /// What it refers to cannot be used.
    Invalid(String),
    /// Somebody else has an object of that name, or the API server refuses one.
    Refused(String),
}

/// The Gateways of a cluster; nothing where nobody makes objects for them here.
#[derive(Debug, Default)]
pub struct Deployments(Option<BTreeMap<Name, Deployment>>);

impl Deployments {
    /// What became of a Gateway's objects, if that is known yet.
    pub fn of(&self, gateway: &Name) -> Option<&Deployment> {
        self.0.as_ref()?.get(gateway)
    }

    /// Somebody makes objects for Gateways, and has not looked at this one yet.
    pub(crate) fn is_pending(&self, gateway: &Name) -> bool {
        self.0.as_ref().is_some_and(|all| !all.contains_key(gateway))
    }

    /// True if that is something else than before.
    pub(crate) fn set(&mut self, all: BTreeMap<Name, Deployment>) -> bool {
        let before = self.0.replace(all);
        before != self.0
    }
}
