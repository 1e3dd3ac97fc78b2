//! Policies by name and by what they cover.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::index::Map;
use crate::address::Str;
use crate::authz::decide::Ballot;
use crate::authz::index::Indexed;
use crate::authz::{Addressee, Decision, Facts, Policy, PolicyScope, Target};
use crate::workload::{PolicyName, Workload};

#[derive(Debug, Default)]
pub(super) struct Policies {
    by_name: Map<PolicyName, Arc<Policy>>,
    global: Indexed,
    of_namespace: Map<Str, Indexed>,
    of_target: Map<Target, Indexed>,
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
        match &policy.scope {
            PolicyScope::Global => self.global.insert(&policy),
            PolicyScope::Namespace => {
                self.of_namespace.entry(policy.name.namespace.clone()).or_default().insert(&policy);
            }
            PolicyScope::Workload => {}
            PolicyScope::Targets(targets) => {
                for target in targets {
                    self.of_target.entry(target.clone()).or_default().insert(&policy);
                }
            }
        }
        self.by_name.insert(policy.name.clone(), policy);
    }

    pub(super) fn remove(&mut self, name: &PolicyName) {
        let Some(old) = self.by_name.remove(name) else { return };
        match &old.scope {
            PolicyScope::Global => self.global.remove(name),
            PolicyScope::Namespace => forget(&mut self.of_namespace, &name.namespace, name),
            PolicyScope::Workload => {}
            PolicyScope::Targets(targets) => {
                targets.iter().for_each(|target| forget(&mut self.of_target, target, name));
            }
        }
    }

    /// Judges by the mesh's policies, then the namespace's, then those that the workload names.
    pub(super) fn judge(&self, workload: &Workload, facts: &Facts<'_>) -> Result<Decision, MissingPolicies> {
        let named = self.named(workload)?;
        let of_namespace = self.of_namespace.get(workload.namespace());
        let mut ballot = Ballot::default();
        self.global.hear(&mut ballot, facts);
        if let Some(covered) = of_namespace {
            covered.hear(&mut ballot, facts);
        }
        named.iter().for_each(|policy| ballot.take(policy, facts));
        let of_namespace = of_namespace.map_or(&[][..], Indexed::all);
        let all = self.global.all().iter().chain(of_namespace).chain(named.iter().copied());
        Ok(ballot.close(all.map(|policy| &**policy)))
    }

    /// Judges as a waypoint: by the policies of the workload chosen, which are about its address, and by those for
    /// what was asked for, which are about the address asked for.
    pub(super) fn judge_for(
        &self,
        to: &Addressee<'_>,
        facts: &Facts<'_>,
    ) -> Result<Decision, MissingPolicies> {
        let named = to.endpoint.map_or(Ok(Vec::new()), |(workload, _)| self.named(workload))?;
        let of_namespace = to.namespace().and_then(|namespace| self.of_namespace.get(namespace));
        let attached: Vec<(Target, &Indexed)> = to
            .targets()
            .filter_map(|target| self.of_target.get(&target).map(|covered| (target, covered)))
            .collect();
        let at_endpoint = facts.to(to.endpoint.map(|(_, address)| address));
        let mut ballot = Ballot::default();
        self.global.hear(&mut ballot, &at_endpoint);
        if let Some(covered) = of_namespace {
            covered.hear(&mut ballot, &at_endpoint);
        }
        named.iter().for_each(|policy| ballot.take(policy, &at_endpoint));
        for (place, (_, covered)) in attached.iter().enumerate() {
            covered.hear_some(&mut ballot, facts, |policy| !is_attached(policy, &attached[..place]));
        }
        let of_namespace = of_namespace.map_or(&[][..], Indexed::all);
        let selecting = self.global.all().iter().chain(of_namespace).chain(named.iter().copied());
        let attached = attached.iter().enumerate().flat_map(|(place, (_, covered))| {
            let before = &attached[..place];
            covered.all().iter().filter(move |policy| !is_attached(policy, before))
        });
        Ok(ballot.close(selecting.chain(attached).map(|policy| &**policy)))
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
            // One for targets is not for workloads, whoever names it.
            PolicyScope::Targets(_) => true,
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

/// Whether a policy is attached to one of these.
fn is_attached(policy: &Policy, targets: &[(Target, &Indexed)]) -> bool {
    match &policy.scope {
        PolicyScope::Targets(of) => of.iter().any(|target| targets.iter().any(|(other, _)| other == target)),
        _ => false,
    }
}

/// Takes a policy from those of a key, and the key with its last.
fn forget<K: Eq + std::hash::Hash>(covered: &mut Map<K, Indexed>, key: &K, name: &PolicyName) {
    if let Some(of_key) = covered.get_mut(key) {
        of_key.remove(name);
        if of_key.all().is_empty() {
            covered.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
