//! NetworkPolicies that were written for the ports of applications: between pods of the mesh, connections have the port of
//! their tunnels.

use super::{Inventory, finding, inventory::Workload};
use crate::{
    cursor::Cursor,
    finding::{Code, Finding, Level},
    network_policy::{NetworkPolicy, NetworkRule},
    object::{Object, Typed},
    position::Position,
};

/// Where tunnels arrive (HBONE).
const TUNNELS: u16 = model::ports::HBONE;
/// Names are asked for outside the tunnels.
const DNS: u16 = 53;

/// The rules of one direction.
type RulesOf = fn(&NetworkPolicy) -> Option<&[NetworkRule]>;

/// A warning for each direction in which a policy lets connections of the mesh's pods pass and keeps their tunnels away.
pub(super) fn check(object: &Object, inventory: &Inventory<'_>) -> Vec<Finding> {
    let Typed::NetworkPolicy(policy) = &object.spec else { return Vec::new() };
    let Some(namespace) = object.metadata.namespace.as_deref() else { return Vec::new() };
    let selected: Vec<_> = inventory
        .selected(namespace, None)
        .filter(|workload| workload.namespace == namespace && inventory.is_enrolled(workload))
        .filter(|workload| policy.selects(&workload.labels))
        .collect();
    let directions: [(&str, RulesOf, &str); 2] = [
        (
            "ingress",
            NetworkPolicy::incoming,
            "tunnels to it arrive on TCP port 15008, which these rules keep out",
        ),
        ("egress", NetworkPolicy::outgoing, "its tunnels go to TCP port 15008, which these rules keep in"),
    ];
    let of_direction = |(field, rules, message): (&str, RulesOf, &str)| {
        let blocked = rules(policy)?.iter().position(|rule| is_for_pods(rule) && !rule.has(TUNNELS))?;
        let workload = selected.iter().find(|workload| !tunnels_pass(workload, rules, inventory))?;
        let spec = Cursor::root(object.tree()).get("spec")?;
        let at = spec.items(field).into_iter().nth(blocked)?.get("ports")?;
        let message = format!("{} is in the mesh: {message}", workload.object.key());
        let position = Position::new(object.file(), at.at);
        let finding = finding(Level::Warning, Code::TunnelBlocked, object, position, &at.path, message);
        Some(finding.with_fix("add `- {protocol: TCP, port: 15008}` to the ports"))
    };
    directions.into_iter().filter_map(of_direction).collect()
}

/// Whether a rule means connections that the mesh may carry: not to addresses outside, and not for names alone.
fn is_for_pods(rule: &NetworkRule) -> bool {
    let outside = !rule.to.is_empty() && rule.to.iter().all(|peer| peer.ip_block.is_some());
    !outside && rule.has_other_than(DNS)
}

/// Whether any policy for these pods lets tunnels pass: what one allows, none takes away.
fn tunnels_pass(workload: &Workload<'_>, rules: RulesOf, inventory: &Inventory<'_>) -> bool {
    let mut all = inventory.network_policies_of(workload).filter_map(|policy| rules(policy)).flatten();
    all.any(|rule| rule.has(TUNNELS))
}
