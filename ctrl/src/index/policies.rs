//! AuthorizationPolicies by whom they select. What they say stands in their objects.

use model::address::Str;

use super::Name;
use super::labels::{Labels, Selectors};

#[derive(Debug)]
pub(super) struct Policies {
    root_namespace: Str,
    selectors: Selectors,
}

impl Policies {
    pub(super) fn new(root_namespace: Str) -> Self {
        Self { root_namespace, selectors: Selectors::default() }
    }

    /// Sets whom a policy selects; one of the root namespace selects in all.
    pub(super) fn set(&mut self, name: &Name, selector: Option<Labels>) {
        let namespace = (*name.namespace != *self.root_namespace).then(|| name.namespace.clone());
        self.selectors.set(name, namespace, selector);
    }

    pub(super) fn selector(&self, name: &Name) -> Option<&Labels> {
        self.selectors.get(name)
    }

    pub(super) fn selecting(&self, namespace: &Str, labels: &Labels) -> Vec<Name> {
        self.selectors.selecting(namespace, labels)
    }
}
