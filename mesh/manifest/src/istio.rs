//! Istio's and the Gateway API's kinds, as their schemas have them. Field for field: what Istio accepts is
//! read, what it does not know is a finding, and whether a proxy can enforce a field is decided elsewhere.

mod authorization_policy;
mod destination_rule;
mod duration;
mod gateway;
mod peer_authentication;
mod virtual_service;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use authorization_policy::{
    Action, AuthorizationPolicy, Condition, ExtensionProvider, From, Operation, Rule, Source, To,
};
pub use destination_rule::{
    ClientTls, ClientTlsMode, ConnectionKeepalive, ConnectionPool, ConsistentHash, CookieAttribute,
    DestinationRule, Distribute, Failover, H2UpgradePolicy, HttpCookie, HttpSettings, LoadBalancer,
    LocalityLb, Maglev, OutlierDetection, PortTrafficPolicy, ProxyProtocol, ProxyProtocolVersion,
    RetryBudget, RingHash, SimpleLb, Subset, TcpKeepalive, TcpSettings, TrafficPolicy, Tunnel, Warmup,
    ZoneAwareLb,
};
pub use duration::Duration;
pub use gateway::{
    AllowedListeners, AllowedRoutes, Gateway, GatewayAddress, GatewayTls, Infrastructure, LabelSelector,
    Listener, ListenerNamespaces, ListenerTls, MatchExpression, ObjectReference, RouteGroupKind,
};
pub use peer_authentication::{MutualTls, MutualTlsMode, PeerAuthentication, PortNumber};
pub use virtual_service::{
    Abort, CorsPolicy, Delay, Delegate, Destination, DirectResponse, Fault, HeaderOperations, Headers,
    HttpBody, HttpDestination, HttpMatch, HttpRoute, Mirror, Percent, PortSelection, PortSelector, Redirect,
    RegexRewrite, Retries, Rewrite, RouteDestination, StringMatch, TcpMatch, TcpRoute, TlsMatch, TlsRoute,
    UnmatchedPreflights, VirtualService,
};

/// Which workloads a policy is for: those of its namespace (in the root namespace: of all namespaces) that
/// have all of these labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSelector {
    /// Labels a workload must have. Empty selects every workload.
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
}

impl WorkloadSelector {
    /// Whether a workload with `labels` is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// What a policy is attached to instead of selecting workloads: a Gateway, GatewayClass, Service or
/// ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetRef {
    /// API group of the target, empty for the core group.
    #[serde(default)]
    pub group: String,
    /// Kind of the target.
    #[serde(default)]
    pub kind: String,
    /// Name of the target.
    #[serde(default)]
    pub name: String,
    /// Namespace of the target; only the policy's own is allowed.
    #[serde(default)]
    pub namespace: String,
}
