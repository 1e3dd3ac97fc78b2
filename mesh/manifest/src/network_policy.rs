//! NetworkPolicy (`networking.k8s.io`): enforced by the cluster's network, not by the mesh; read for what it does to tunnels.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::istio::LabelSelector;

/// The `spec` of a NetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NetworkPolicy {
    /// The pods of its namespace that it is for; all when empty.
    pub pod_selector: LabelSelector,
    /// `Ingress`, `Egress` or both. When empty: `Ingress`, and `Egress` where there are rules for it.
    pub policy_types: Vec<String>,
    /// What may come in; nothing when empty.
    pub ingress: Vec<NetworkRule>,
    /// What may go out; nothing when empty.
    pub egress: Vec<NetworkRule>,
}

/// What may pass: any of these ports, with any of these peers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NetworkRule {
    /// All when empty.
    pub ports: Vec<NetworkPort>,
    /// Who may come in; everybody when empty.
    pub from: Vec<NetworkPeer>,
    /// Who may be gone to; everybody when empty.
    pub to: Vec<NetworkPeer>,
}

/// Who is at the other end.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NetworkPeer {
    /// Pods with these labels.
    pub pod_selector: Option<LabelSelector>,
    /// In namespaces with these labels; in the policy's own when absent.
    pub namespace_selector: Option<LabelSelector>,
    /// Or these addresses.
    pub ip_block: Option<Value>,
}

/// A port, a range of ports, or all of a protocol.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NetworkPort {
    /// `TCP` (the default), `UDP` or `SCTP`.
    pub protocol: Option<String>,
    /// A number, or the name of a container's port; all when absent.
    pub port: Option<Value>,
    /// The last one of a range.
    pub end_port: Option<u16>,
}

impl NetworkPort {
    fn is_tcp(&self) -> bool {
        self.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
    }

    /// Whether connections to that port may pass.
    fn has(&self, port: u16) -> bool {
        let in_range = |first: &Value| {
            let Some(first) = first.as_u64() else { return false };
            (first..=self.end_port.map_or(first, u64::from)).contains(&u64::from(port))
        };
        self.is_tcp() && self.port.as_ref().is_none_or(in_range)
    }
}

impl NetworkRule {
    /// Whether connections to that port may pass.
    pub fn has(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|one| one.has(port))
    }

    /// Whether connections to any port but `except` may pass.
    pub fn has_other_than(&self, except: u16) -> bool {
        let is_except = |one: &NetworkPort| {
            one.end_port.is_none() && one.port.as_ref().is_some_and(|port| *port == except)
        };
        self.ports.is_empty() || self.ports.iter().any(|one| one.is_tcp() && !is_except(one))
    }
}

impl NetworkPolicy {
    /// Whether it is for pods of its namespace with these labels.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.pod_selector.selects(|key| labels.get(key).map(String::as_str))
    }

    /// The rules for what comes in; none where it has nothing to say of that.
    pub fn incoming(&self) -> Option<&[NetworkRule]> {
        let says = self.policy_types.is_empty() || self.policy_types.iter().any(|kind| kind == "Ingress");
        says.then_some(&self.ingress)
    }

    /// The rules for what goes out; none where it has nothing to say of that.
    pub fn outgoing(&self) -> Option<&[NetworkRule]> {
        let says = match self.policy_types.is_empty() {
            true => !self.egress.is_empty(),
            false => self.policy_types.iter().any(|kind| kind == "Egress"),
        };
        says.then_some(&self.egress)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_rule_lets_pass() {
        for (ports, has, other) in [
            (json!([]), true, true),
            (json!([{"port": 15008}]), true, true),
            (json!([{"port": 15008, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]), true, true),
            (json!([{"port": 15008, "protocol": "UDP"}]), false, false),
            (json!([{"protocol": "TCP"}]), true, true),
            (json!([{"port": 8080}]), false, true),
            (json!([{"port": 53}, {"port": 53, "protocol": "UDP"}]), false, false),
            (json!([{"port": 53, "endPort": 54}]), false, true),
            (json!([{"port": "http"}]), false, true),
            (json!([{"port": 15000, "endPort": 15008}]), true, true),
            (json!([{"port": 15000, "endPort": 15007}]), false, true),
        ] {
            let rule: NetworkRule = serde_json::from_value(json!({ "ports": ports })).expect("a rule");
            assert_eq!((rule.has(15008), rule.has_other_than(53)), (has, other), "{ports}");
        }
    }

    #[test]
    fn what_a_policy_is_for() {
        for (policy, incoming, outgoing) in [
            (json!({}), true, false),
            (json!({"egress": [{}]}), true, true),
            (json!({"policyTypes": ["Egress"]}), false, true),
            (json!({"policyTypes": ["Ingress"], "egress": [{}]}), true, false),
        ] {
            let read: NetworkPolicy = serde_json::from_value(policy.clone()).expect("a policy");
            assert_eq!(
                (read.incoming().is_some(), read.outgoing().is_some()),
                (incoming, outgoing),
                "{policy}"
            );
        }
    }
}
