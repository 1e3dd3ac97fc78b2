//! Bindings → what proxies are told of them: where a waypoint is, who judges for a workload, and the policy of
//! those that take nothing but what a waypoint has judged.

use model::Identity;
use model::authz::{Action, Clause, Match, Policy, PolicyScope, Rule, StringMatch};
use model::workload::{GatewayAddress, GatewayDestination, PolicyName};

use super::Context;
use crate::index::facts::Pod;
use crate::index::{Bound, Index, Name};

/// Begins the names of the policies that refuse what did not come by a waypoint.
const REQUIRED: &str = "lateen_require_waypoint";

/// Where the waypoint of a binding that is in force is found: by the service of its name.
pub fn address(context: &Context, bound: &Bound) -> Option<GatewayAddress> {
    bound.in_force().map(|binding| GatewayAddress {
        destination: GatewayDestination::Hostname(context.host(&binding.waypoint)),
        hbone_port: binding.port,
    })
}

/// Who a waypoint is: its pods run as the account of its name, in its namespace.
pub fn identity(context: &Context, waypoint: &Name) -> Identity {
    Identity::new(context.settings.trust_domain.clone(), waypoint.namespace.clone(), waypoint.name.clone())
}

/// The identities that have judged before a pod's agent sees a connection.
pub fn enforced_by(index: &Index, context: &Context, pod: &Pod) -> Box<[Identity]> {
    index.enforcing(pod).iter().map(|waypoint| identity(context, waypoint)).collect()
}

/// Whether a policy is one of those below. Waypoints are told of none: whom they judge is no waypoint.
pub fn is_required(policy: &PolicyName) -> bool {
    policy.name.starts_with(REQUIRED)
}

/// The policy that refuses whoever is no waypoint of a pod, if it asks for that. Its name says whom it lets through, so
/// that policies of one name are equal.
pub fn required(index: &Index, context: &Context, pod: &Pod) -> Option<Policy> {
    if !index.requires_waypoint(pod) {
        return None;
    }
    let waypoints = index.enforcing(pod);
    let names = waypoints.iter().map(|waypoint| format!("_{}.{}", waypoint.namespace, waypoint.name));
    let name = PolicyName {
        namespace: pod.name.namespace.clone(),
        name: format!("{REQUIRED}{}", names.collect::<String>()).into(),
    };
    let principal = |waypoint: &Name| {
        let identity = identity(context, waypoint).to_string();
        StringMatch::Exact(identity.strip_prefix("spiffe://").unwrap_or(&identity).into())
    };
    let others = Match { not_principals: waypoints.iter().map(principal).collect(), ..Match::default() };
    // A rule without clauses is for all; a match without conditions would be for none.
    let clauses: Box<[Clause]> = match waypoints.is_empty() {
        true => Box::default(),
        false => [Clause { matches: [others].into() }].into(),
    };
    Some(Policy {
        name,
        scope: PolicyScope::Workload,
        action: Action::Deny,
        rules: [Rule { clauses }].into(),
        dry_run: false,
        invalid: None,
    })
}
