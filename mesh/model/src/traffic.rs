//! What a DestinationRule decides: which endpoint takes a request, how much may be under way, and who is left out for a
//! while because it fails.
//!
//! ```text
//!  Destination ─► effective (subset, port) ─┬─► balance  which endpoint of those there are
//!                                           ├─► outlier  who is ejected, for how long, and why
//!                                           ├─► health   who fails the checks that are made of it
//!                                           └─► pool     what is too much, and which limit says so
//! ```
//!
//! The values here are what was written, with Istio's defaults for what was not. The state that goes with them (turns of
//! a balancer, ejections, accounts) belongs to the destination and stays when its routing resource is replaced (D4).
//! Everything is pure: time is passed in as the [`std::time::Duration`] since some start, randomness as draws.

pub mod balance;
mod connection_pool;
pub mod hash;
pub mod health;
mod load_balancer;
pub mod outlier;
mod outlier_detection;
pub mod pool;
mod tls;

use std::collections::BTreeMap;

pub use self::connection_pool::{
    ConnectionPool, H2UpgradePolicy, Http2KeepAlive, HttpSettings, RetryBudget, TcpKeepalive, TcpSettings,
};
pub use self::health::{HealthCheck, Probe};
pub use self::load_balancer::{
    Algorithm, ConsistentHash, Distribute, Failover, HashAlgorithm, HashCookie, HashKey, LoadBalancer,
    LocalityLb, PriorityLabel, Warmup,
};
pub use self::outlier_detection::OutlierDetection;
pub use self::tls::{ClientTls, TlsMode};
use crate::address::Str;

/// What the DestinationRules of one host say, merged (`DestinationRule.spec`). A host without one has the default.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Destination {
    /// The rules that say it, for whoever asks why (D3), e.g. `DestinationRule default/reviews`; empty where none does.
    pub cause: Str,
    /// What holds for all of the host (`trafficPolicy`).
    pub policy: TrafficPolicy,
    /// Its versions (`subsets`).
    pub subsets: Box<[Subset]>,
    /// How endpoints are checked, of whatever port and subset (`lateen.dev/health-check`); without it nobody is.
    pub health_check: Option<HealthCheck>,
}

/// A version of a host: those of its endpoints that have certain labels (`Subset`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Subset {
    /// What routes call it (`name`).
    pub name: Str,
    /// What an endpoint must have (`labels`); none selects all endpoints.
    pub labels: BTreeMap<Str, Str>,
    /// What holds for it otherwise than for the host (`trafficPolicy`), section by section.
    pub policy: Option<TrafficPolicy>,
}

impl Subset {
    /// Whether an endpoint with these labels belongs to it: each of its labels is there, with its value.
    pub fn selects(&self, labels: &BTreeMap<Str, Str>) -> bool {
        self.labels.iter().all(|(name, value)| labels.get(name) == Some(value))
    }
}

/// How traffic to a host or subset is treated (`TrafficPolicy`). A section that was not written is `None`: it is then
/// taken from elsewhere, or the default ([`Destination::effective`]).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrafficPolicy {
    /// Which endpoint is taken (`loadBalancer`).
    pub load_balancer: Option<LoadBalancer>,
    /// How much may be under way (`connectionPool`).
    pub connection_pool: Option<ConnectionPool>,
    /// Who is left out for failing (`outlierDetection`); without it nobody is.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS of the proxy's own towards the endpoint (`tls`).
    pub tls: Option<ClientTls>,
    /// How many requests under way may be retries (`retryBudget`).
    pub retry_budget: Option<RetryBudget>,
    /// The PROXY protocol header before everything else (`proxyProtocol`).
    pub proxy_protocol: Option<ProxyProtocol>,
    /// What holds for single ports of the service (`portLevelSettings`).
    pub ports: Box<[PortPolicy]>,
}

/// What holds for one port of a service (`TrafficPolicy.PortTrafficPolicy`). It inherits nothing: a section that is not
/// here has its default, whatever the rule says beside it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PortPolicy {
    /// The service's port (`port.number`).
    pub port: u16,
    /// `loadBalancer`.
    pub load_balancer: Option<LoadBalancer>,
    /// `connectionPool`.
    pub connection_pool: Option<ConnectionPool>,
    /// `outlierDetection`.
    pub outlier_detection: Option<OutlierDetection>,
    /// `tls`.
    pub tls: Option<ClientTls>,
}

/// Which PROXY protocol header is sent to the endpoint (`TrafficPolicy.ProxyProtocol.version`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ProxyProtocol {
    /// Text (`V1`, the default).
    #[default]
    V1,
    /// Binary (`V2`).
    V2,
}

/// What holds for one port of a host or subset, with nothing left open.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EffectivePolicy {
    /// Which endpoint is taken; `LEAST_REQUEST` unless said otherwise.
    pub load_balancer: LoadBalancer,
    /// How much may be under way; in practice everything, unless said otherwise.
    pub connection_pool: ConnectionPool,
    /// Who is left out for failing; nobody unless said otherwise.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS of the proxy's own; the mesh's mTLS unless said otherwise.
    pub tls: Option<ClientTls>,
    /// How many requests under way may be retries; `connectionPool.http.maxRetries` says it where this does not.
    pub retry_budget: Option<RetryBudget>,
    /// The PROXY protocol header; none unless said otherwise.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Whether who fails its checks is left out. Who does is known where the checks are made.
    pub checked: bool,
}

impl Destination {
    /// The subset of a name.
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|subset| &*subset.name == name)
    }

    /// What holds for a service's port of the host, or of one of its subsets.
    ///
    /// As Istio merges (`MergeSubsetTrafficPolicy`): of host and subset each, an entry for the port stands in place of
    /// all that is said for any port. What the subset says then replaces what the host says, section by section; but if
    /// the subset has an entry for the port, also with the sections that this does not have, so that they have their
    /// defaults.
    pub fn effective(&self, subset: Option<&Subset>, port: u16) -> EffectivePolicy {
        let mut merged = Sections::of(&self.policy, port).0;
        if let Some(policy) = subset.and_then(|subset| subset.policy.as_ref()) {
            let (own, of_port) = Sections::of(policy, port);
            merged.replace(own, of_port);
        }
        EffectivePolicy {
            load_balancer: merged.load_balancer.cloned().unwrap_or_default(),
            connection_pool: merged.connection_pool.cloned().unwrap_or_default(),
            outlier_detection: merged.outlier_detection.cloned(),
            tls: merged.tls.cloned(),
            retry_budget: merged.retry_budget,
            proxy_protocol: merged.proxy_protocol,
            checked: self.health_check.is_some(),
        }
    }
}

/// The sections of a policy that count for one port.
#[derive(Clone, Copy, Default)]
struct Sections<'a> {
    load_balancer: Option<&'a LoadBalancer>,
    connection_pool: Option<&'a ConnectionPool>,
    outlier_detection: Option<&'a OutlierDetection>,
    tls: Option<&'a ClientTls>,
    retry_budget: Option<RetryBudget>,
    proxy_protocol: Option<ProxyProtocol>,
}

impl<'a> Sections<'a> {
    /// Those of a policy for a port, and whether it is an entry for the very port that says them.
    fn of(policy: &'a TrafficPolicy, port: u16) -> (Self, bool) {
        match policy.ports.iter().find(|entry| entry.port == port) {
            Some(entry) => (Self::of_port(entry), true),
            None => (Self::of_any_port(policy), false),
        }
    }

    fn of_port(entry: &'a PortPolicy) -> Self {
        Self {
            load_balancer: entry.load_balancer.as_ref(),
            connection_pool: entry.connection_pool.as_ref(),
            outlier_detection: entry.outlier_detection.as_ref(),
            tls: entry.tls.as_ref(),
            ..Self::default()
        }
    }

    fn of_any_port(policy: &'a TrafficPolicy) -> Self {
        Self {
            load_balancer: policy.load_balancer.as_ref(),
            connection_pool: policy.connection_pool.as_ref(),
            outlier_detection: policy.outlier_detection.as_ref(),
            tls: policy.tls.as_ref(),
            retry_budget: policy.retry_budget,
            proxy_protocol: policy.proxy_protocol,
        }
    }

    /// Puts the subset's sections in place of the host's.
    fn replace(&mut self, own: Self, of_port: bool) {
        let keep = !of_port;
        self.load_balancer = own.load_balancer.or(self.load_balancer.filter(|_| keep));
        self.connection_pool = own.connection_pool.or(self.connection_pool.filter(|_| keep));
        self.outlier_detection = own.outlier_detection.or(self.outlier_detection.filter(|_| keep));
        self.tls = own.tls.or(self.tls.filter(|_| keep));
        // What has no form for single ports is the host's unless the subset says otherwise.
        self.retry_budget = own.retry_budget.or(self.retry_budget);
        self.proxy_protocol = own.proxy_protocol.or(self.proxy_protocol);
    }
}

#[cfg(test)]
mod tests;
