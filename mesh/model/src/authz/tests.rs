//! Tables of what policies say of connections, and the engine against one written from the wire's description alone.

mod decisions;
mod naive;
mod values;

use super::{Action, Clause, Match, Policy, PolicyScope, Rule, ServiceAccountMatch, StringMatch, Subject};
use crate::fixtures::{policy_name, socket};
use crate::identity::Identity;

fn identity(namespace: &str, account: &str) -> Identity {
    Identity::new("cluster.local", namespace, account)
}

/// A connection of `identity` from 10.0.0.1 to 10.0.0.2:8080.
fn subject(identity: Option<&Identity>) -> Subject<'_> {
    Subject { source: socket("10.0.0.1:40000"), identity, destination: socket("10.0.0.2:8080") }
}

pub(super) fn rule(clauses: Vec<Vec<Match>>) -> Rule {
    Rule { clauses: clauses.into_iter().map(|matches| Clause { matches: matches.into() }).collect() }
}

/// A rule of one match.
pub(super) fn only(one: Match) -> Rule {
    rule(vec![vec![one]])
}

pub(super) fn policy(name: &str, action: Action, rules: Vec<Rule>) -> Policy {
    Policy {
        name: policy_name(name),
        scope: PolicyScope::Namespace,
        action,
        rules: rules.into(),
        dry_run: false,
        invalid: None,
    }
}

pub(super) fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

pub(super) fn from_namespace(namespace: &str) -> Match {
    Match { namespaces: vec![exact(namespace)], ..Match::default() }
}

pub(super) fn account(namespace: &str, service_account: &str) -> ServiceAccountMatch {
    ServiceAccountMatch { namespace: namespace.into(), service_account: service_account.into() }
}

pub(super) fn unseen(names: &[&str]) -> Match {
    Match { unseen: names.iter().map(|name| (*name).into()).collect(), ..Match::default() }
}
