//! Policies by name and by what they cover.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::address::Str;
use crate::authz::{Policy, PolicyScope};
use crate::workload::{PolicyName, Workload};

#[derive(Debug, Default)]
pub(super) struct Policies {
    by_name: HashMap<PolicyName, Arc<Policy>>,
    of_namespace: HashMap<Str, Vec<Arc<Policy>>>,
    global: Vec<Arc<Policy>>,
}

/// Policies that a workload names and that have not arrived.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct MissingPolicies(pub Vec<PolicyName>);

impl fmt::Display for MissingPolicies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("policies that apply have not arrived:")?;
        self.0.iter().try_for_each(|name| write!(f, " {name}"))
    }
}

impl Policies {
    pub(super) fn insert(&mut self, policy: Arc<Policy>) {
        self.remove(&policy.name);
        match policy.scope {
            PolicyScope::Global => insert_ordered(&mut self.global, &policy),
            PolicyScope::Namespace => {
                let covered = self.of_namespace.entry(policy.name.namespace.clone()).or_default();
                insert_ordered(covered, &policy);
            }
            PolicyScope::Workload => {}
        }
        self.by_name.insert(policy.name.clone(), policy);
    }

    pub(super) fn remove(&mut self, name: &PolicyName) {
        let Some(old) = self.by_name.remove(name) else { return };
        match old.scope {
            PolicyScope::Global => self.global.retain(|policy| policy.name != *name),
            PolicyScope::Namespace => {
                if let Some(covered) = self.of_namespace.get_mut(&name.namespace) {
                    covered.retain(|policy| policy.name != *name);
                    if covered.is_empty() {
                        self.of_namespace.remove(&name.namespace);
                    }
                }
            }
            PolicyScope::Workload => {}
        }
    }

    pub(super) fn for_workload(&self, workload: &Workload) -> Result<Vec<Arc<Policy>>, MissingPolicies> {
        let of_namespace = self.of_namespace.get(workload.namespace()).map_or(&[][..], Vec::as_slice);
        let mut found: Vec<Arc<Policy>> = self.global.iter().chain(of_namespace).cloned().collect();
        let mut missing = Vec::new();
        for name in &workload.profile.policies {
            match self.by_name.get(name) {
                // A policy of wider scope is already there; a workload may name it all the same.
                Some(policy) if policy.scope == PolicyScope::Workload => found.push(policy.clone()),
                Some(policy) if found.iter().any(|known| known.name == policy.name) => {}
                Some(policy) => found.push(policy.clone()),
                None => missing.push(name.clone()),
            }
        }
        if missing.is_empty() { Ok(found) } else { Err(MissingPolicies(missing)) }
    }

    pub(super) fn get(&self, name: &PolicyName) -> Option<&Arc<Policy>> {
        self.by_name.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.by_name.values()
    }
}

/// Kept in the order of names, so that the first to decide does not depend on the order of arrival.
fn insert_ordered(policies: &mut Vec<Arc<Policy>>, policy: &Arc<Policy>) {
    let place = policies.partition_point(|other| other.name < policy.name);
    policies.insert(place, policy.clone());
}
