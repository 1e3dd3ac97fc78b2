//! `/version` of the controller: what it is, and what the proxies are that are connected to it.

use serde::{Deserialize, Serialize};

/// The page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The controller's own version.
    pub ctrl: String,
    /// Those of its proxies.
    pub clients: Vec<Proxy>,
}

/// A proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// Its node, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `node-agent`, `waypoint`, or what it calls itself.
    pub role: String,
    /// Its pod.
    #[serde(default)]
    pub pod: String,
    /// The namespace of that.
    #[serde(default)]
    pub namespace: String,
    /// Missing where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}
