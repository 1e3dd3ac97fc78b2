//! Which of a host's endpoints is chosen.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::istio::Duration;

/// Which endpoint is chosen.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LoadBalancer {
    /// By a simple way.
    pub simple: Option<SimpleLb>,
    /// By something of the request, so that alike requests go to the same.
    pub consistent_hash: Option<ConsistentHash>,
    /// By where client and endpoint are.
    pub locality_lb_setting: Option<LocalityLb>,
    /// By where client and endpoint are, in Envoy's own way.
    pub zone_aware_lb_setting: Option<ZoneAwareLb>,
    /// The older form of `warmup`.
    pub warmup_duration_secs: Option<Duration>,
    /// New endpoints get more little by little.
    pub warmup: Option<Warmup>,
}

/// Simple ways to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleLb {
    /// As if nothing was said: least request.
    #[default]
    Unspecified,
    /// The older name of [`Self::LeastRequest`].
    LeastConn,
    /// Any.
    Random,
    /// None: the address that the client asked for.
    Passthrough,
    /// One after the other.
    RoundRobin,
    /// Of two, the one with fewer requests under way.
    LeastRequest,
}

/// By something of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ConsistentHash {
    /// By a header.
    pub http_header_name: Option<String>,
    /// By a cookie.
    pub http_cookie: Option<HttpCookie>,
    /// By the client's address.
    pub use_source_ip: Option<bool>,
    /// By a parameter of the query.
    pub http_query_parameter_name: Option<String>,
    /// On a ring.
    pub ring_hash: Option<RingHash>,
    /// By a table.
    pub maglev: Option<Maglev>,
    /// The older form of `ring_hash`.
    pub minimum_ring_size: Option<u64>,
}

/// A cookie that says which endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpCookie {
    /// Its name.
    pub name: String,
    /// Its path.
    pub path: String,
    /// How long it lasts, once set; 0 for the session. Not said: it is never set.
    pub ttl: Option<Duration>,
    /// Attributes of the cookie that is set.
    pub attributes: Vec<CookieAttribute>,
}

/// An attribute of a cookie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CookieAttribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A ring of endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RingHash {
    /// Places on it, at least; 1024 where nothing is said.
    pub minimum_ring_size: Option<u64>,
}

/// A table of endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Maglev {
    /// Its size, a prime; 65537 where nothing is said.
    pub table_size: Option<u64>,
}

/// By where client and endpoint are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LocalityLb {
    /// How much goes where.
    pub distribute: Vec<Distribute>,
    /// Where to when a region has no endpoints left.
    pub failover: Vec<Failover>,
    /// Labels that count as nearness, the first most.
    pub failover_priority: Vec<String>,
    /// Whether it counts at all; yes where nothing is said.
    pub enabled: Option<bool>,
}

/// How much of a locality's traffic goes where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Distribute {
    /// The client's locality: `REGION/ZONE/SUBZONE`, with `*` at the end for any.
    pub from: String,
    /// Localities, and percent of the traffic; 100 together.
    pub to: BTreeMap<String, u32>,
}

/// Where to when a region has no endpoints left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Failover {
    /// The client's region.
    pub from: String,
    /// The region in its place.
    pub to: String,
}

/// By where client and endpoint are, in Envoy's own way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ZoneAwareLb {
    /// Whether it counts at all.
    pub enabled: Option<bool>,
    /// Where to when a region has no endpoints left.
    pub failover: Vec<Failover>,
    /// Labels that count as nearness, the first most.
    pub failover_priority: Vec<String>,
    /// With fewer endpoints it does not count.
    pub min_cluster_size: Option<u64>,
}

/// New endpoints get more little by little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Warmup {
    /// How long.
    pub duration: Option<Duration>,
    /// What they get at first, in percent; 10 where nothing is said.
    pub minimum_percent: Option<f64>,
    /// How fast it grows; 1, evenly, where nothing is said.
    pub aggression: Option<f64>,
}
