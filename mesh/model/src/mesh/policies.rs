//! Policies by name and by what they cover.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::index::Map;
use crate::address::Str;
use crate::authz::decide::Ballot;
use crate::authz::index::Indexed;
use crate::authz::{Decision, Policy, PolicyScope, Subject};
use crate::workload::{PolicyName, Workload};

#[derive(Debug, Default)]
pub(super) struct Policies {
    by_name: Map<PolicyName, Arc<Policy>>,
    global: Indexed,
    of_namespace: Map<Str, Indexed>,
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
            PolicyScope::Global => self.global.insert(&policy),
            PolicyScope::Namespace => {
                self.of_namespace.entry(policy.name.namespace.clone()).or_default().insert(&policy);
            }
            PolicyScope::Workload => {}
        }
        self.by_name.insert(policy.name.clone(), policy);
    }

    pub(super) fn remove(&mut self, name: &PolicyName) {
        let Some(old) = self.by_name.remove(name) else { return };
        match old.scope {
            PolicyScope::Global => self.global.remove(name),
            PolicyScope::Namespace => {
                if let Some(covered) = self.of_namespace.get_mut(&name.namespace) {
                    covered.remove(name);
                    if covered.all().is_empty() {
                        self.of_namespace.remove(&name.namespace);
                    }
                }
            }
            PolicyScope::Workload => {}
        }
    }

    /// Judges by the mesh's policies, then the namespace's, then those that the workload names.
    pub(super) fn judge(
        &self,
        workload: &Workload,
        subject: &Subject<'_>,
    ) -> Result<Decision, MissingPolicies> {
        let named = self.named(workload)?;
        let of_namespace = self.of_namespace.get(workload.namespace());
        let mut ballot = Ballot::default();
        self.global.hear(&mut ballot, subject);
        if let Some(covered) = of_namespace {
            covered.hear(&mut ballot, subject);
        }
        named.iter().for_each(|policy| ballot.take(policy, subject));
        let of_namespace = of_namespace.map_or(&[][..], Indexed::all);
        let all = self.global.all().iter().chain(of_namespace).chain(named.iter().copied());
        Ok(ballot.close(all.map(|policy| &**policy)))
    }

    pub(super) fn for_workload(&self, workload: &Workload) -> Result<Vec<Arc<Policy>>, MissingPolicies> {
        let of_namespace = self.of_namespace.get(workload.namespace()).map_or(&[][..], Indexed::all);
        let named = self.named(workload)?;
        Ok(self.global.all().iter().chain(of_namespace).chain(named).cloned().collect())
    }

    /// The policies that a workload names and that do not cover it already.
    fn named(&self, workload: &Workload) -> Result<Vec<&Arc<Policy>>, MissingPolicies> {
        let covers = |policy: &Policy| match policy.scope {
            PolicyScope::Global => true,
            PolicyScope::Namespace => policy.name.namespace == *workload.namespace(),
            PolicyScope::Workload => false,
        };
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for name in &workload.profile.policies {
            match self.by_name.get(name) {
                Some(policy) if covers(policy) => {}
                Some(policy) => found.push(policy),
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
