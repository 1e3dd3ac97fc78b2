//! PeerAuthentication → policies that refuse callers without an identity, and which workloads name them. Names are
//! istiod's. A workload names the one policy that all PeerAuthentications together come to.

use std::collections::BTreeMap;

use model::address::Str;
use model::authz::{Action, Clause, Match, Policy, PolicyScope, Rule, StringMatch};
use model::workload::PolicyName;

use crate::index::{Index, Name, Strictness};

/// The policy that is there always, for all who are strict on every port.
pub fn static_strict(root_namespace: &Str) -> Policy {
    policy(static_name(root_namespace), &Strictness { strict: true, except: Vec::new() })
}

/// The policy's name under which a PeerAuthentication is sent, if it is.
pub fn policy_name(name: &Name) -> PolicyName {
    PolicyName {
        namespace: name.namespace.clone(),
        name: format!("{}{}", PolicyName::CONVERTED, name.name).into(),
    }
}

/// The policy of a PeerAuthentication on whose ports things differ; nothing where another policy, or none, says it.
pub fn converted(index: &Index, name: &Name) -> Option<Policy> {
    let strictness = index.strictness(name).filter(|strictness| !strictness.except.is_empty())?;
    Some(policy(policy_name(name), &strictness))
}

/// The policy that workloads with these labels name.
pub fn named(index: &Index, namespace: &Str, labels: &BTreeMap<String, String>) -> Option<PolicyName> {
    match index.strictness_for(namespace, labels) {
        (strictness, Some(rule)) if !strictness.except.is_empty() => Some(policy_name(&rule)),
        (strictness, _) => strictness.strict.then(|| static_name(index.root_namespace())),
    }
}

fn static_name(root_namespace: &Str) -> PolicyName {
    PolicyName { namespace: root_namespace.clone(), name: PolicyName::STATIC_STRICT.into() }
}

/// Refuses whoever has no identity: on the ports that are excepted, or on all others.
fn policy(name: PolicyName, strictness: &Strictness) -> Policy {
    let ports = strictness.except.clone();
    let (destination_ports, not_destination_ports) =
        if strictness.strict { (Vec::new(), ports) } else { (ports, Vec::new()) };
    let one = Match {
        not_principals: vec![StringMatch::Presence],
        destination_ports,
        not_destination_ports,
        ..Match::default()
    };
    Policy {
        name,
        scope: PolicyScope::Workload,
        action: Action::Deny,
        rules: [Rule { clauses: [Clause { matches: [one].into() }].into() }].into(),
        dry_run: false,
        invalid: None,
    }
}
