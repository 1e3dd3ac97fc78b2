//! `/sync` of the controller: what each proxy has in force.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sync {
    /// The revision of what is published now.
    #[serde(default)]
    pub revision: u64,
    /// Whether every proxy that is connected has all of it in force.
    pub in_force: bool,
    /// The proxies that are connected.
    pub clients: Vec<Client>,
}

/// A proxy that is connected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// What it calls itself.
    #[serde(default)]
    pub id: String,
    /// Its node, by its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `node-agent`, `waypoint`, or what it calls itself.
    pub role: String,
    /// Its pod.
    pub pod: String,
    /// The namespace of that.
    pub namespace: String,
    /// Missing where the proxy does not say, as is its cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The revision of what is published to it.
    pub revision: u64,
    /// By type, the revision up to which it has everything.
    pub acked: BTreeMap<String, u64>,
    /// Whether it has all of it in force.
    pub in_force: bool,
    /// What it refuses, with its reason.
    #[serde(default)]
    pub refused: Vec<Refused>,
}

/// Something that a proxy refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its type.
    pub r#type: String,
    /// Its name.
    pub name: String,
    /// Why it is refused.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_version_does_not_say_is_empty_and_what_it_says_beyond_is_passed_over() {
        let text = r#"{"inForce": true, "news": 1, "clients": [{
            "role": "waypoint", "pod": "w", "namespace": "shop", "revision": 3, "acked": {"Address": 3}, "inForce": true}]}"#;
        let client = Client {
            role: "waypoint".into(),
            pod: "w".into(),
            namespace: "shop".into(),
            revision: 3,
            acked: [("Address".into(), 3)].into(),
            in_force: true,
            ..Client::default()
        };
        let sync = Sync { revision: 0, in_force: true, clients: vec![client] };
        assert_eq!(serde_json::from_str::<Sync>(text).unwrap(), sync);
        assert_eq!(serde_json::from_value::<Sync>(serde_json::to_value(&sync).unwrap()).unwrap(), sync);
    }
}
