//! How an endpoint is chosen, as written (`LoadBalancerSettings`).
//!
//! `zoneAwareLbSetting` is not here: Istio does not support it for waypoints, and we refuse it by name.

use std::time::Duration;

use crate::address::Str;

/// How an endpoint is chosen (`trafficPolicy.loadBalancer`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoadBalancer {
    /// By which rule (`simple` or `consistentHash`).
    pub algorithm: Algorithm,
    /// Which endpoints come first by where they are (`localityLbSetting`). Where nothing is said, the Service's
    /// `trafficDistribution` counts, and without that [`LocalityLb::default`], as in Istio's mesh configuration.
    pub locality: Option<LocalityLb>,
    /// How a new endpoint is warmed up (`warmup`; the older `warmupDurationSecs` is one of that duration). Counts for
    /// `ROUND_ROBIN` and `LEAST_REQUEST` only.
    pub warmup: Option<Warmup>,
}

/// By which rule an endpoint is chosen (`simple`, or `consistentHash`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// The endpoint with fewer requests of two drawn (`LEAST_REQUEST`, also by its old name `LEAST_CONN`). The default,
    /// as in Istio.
    #[default]
    LeastRequest,
    /// One after the other (`ROUND_ROBIN`).
    RoundRobin,
    /// Any (`RANDOM`).
    Random,
    /// The address that the client asked for, as it is (`PASSTHROUGH`).
    Passthrough,
    /// The same endpoint for the same key (`consistentHash`).
    ConsistentHash(ConsistentHash),
}

/// The same endpoint for the same key (`LoadBalancerSettings.ConsistentHashLB`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistentHash {
    /// What of a request is the key.
    pub key: HashKey,
    /// How keys are spread over endpoints.
    pub algorithm: HashAlgorithm,
}

/// What of a request is the key. A request without it goes to any endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HashKey {
    /// A header's value (`httpHeaderName`).
    Header(Str),
    /// A cookie's value (`httpCookie`).
    Cookie(HashCookie),
    /// The client's address (`useSourceIp`); the only one that plain TCP has.
    SourceIp,
    /// A query parameter's value (`httpQueryParameterName`).
    QueryParameter(Str),
}

/// A cookie that keeps a client at one endpoint (`ConsistentHashLB.HTTPCookie`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HashCookie {
    /// Its name (`name`).
    pub name: Str,
    /// The path that it is set for (`path`); not said by default.
    pub path: Option<Str>,
    /// How long it lasts (`ttl`). With it the cookie is made where a client has none: for the client's session if it is
    /// zero. Without it (the default) it is only read.
    pub ttl: Option<Duration>,
    /// Further attributes of a cookie that is made, each with its value (`attributes`).
    pub attributes: Box<[(Str, Option<Str>)]>,
}

/// How keys are spread over endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashAlgorithm {
    /// A ring (`ringHash`, and the default).
    Ring {
        /// The fewest places on it (`ringHash.minimumRingSize`, or the older `minimumRingSize`): 1,024 unless said.
        minimum_size: u64,
    },
    /// A table (`maglev`).
    Maglev {
        /// Its length, a prime number (`maglev.tableSize`): 65,537 unless said.
        table_size: u64,
    },
}

impl HashAlgorithm {
    /// `minimumRingSize` where it is not said.
    pub const DEFAULT_RING_SIZE: u64 = 1024;
    /// No ring has more places: Envoy's `maximum_ring_size`, which Istio leaves at its default.
    pub const LARGEST_RING: u64 = 8 * 1024 * 1024;
    /// `maglev.tableSize` where it is not said.
    pub const DEFAULT_TABLE_SIZE: u64 = 65_537;
    /// No table is longer (`maglev.tableSize`, Envoy's own bound).
    pub const LARGEST_TABLE: u64 = 5_000_011;

    /// Whether it can be had: a ring that is not too large, or a table whose length is prime and not too large. Who reads a
    /// rule refuses others.
    pub fn is_valid(self) -> bool {
        match self {
            Self::Ring { minimum_size } => minimum_size <= Self::LARGEST_RING,
            Self::Maglev { table_size } => table_size <= Self::LARGEST_TABLE && is_prime(table_size),
        }
    }
}

/// Looks for divisors up to the square root.
fn is_prime(number: u64) -> bool {
    number > 2
        && number % 2 == 1
        && (3..)
            .step_by(2)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}

impl Default for HashAlgorithm {
    fn default() -> Self {
        Self::Ring { minimum_size: Self::DEFAULT_RING_SIZE }
    }
}

/// Which endpoints come first by where they are (`LocalityLoadBalancerSetting`). Of its lists the API allows one.
///
/// Without any, endpoints are preferred by how much of region, zone and subzone they share with the proxy, provided that
/// there is outlier detection: this is what Istio's mesh configuration has by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalityLb {
    /// Whether place counts at all (`enabled`): yes unless said otherwise.
    pub enabled: bool,
    /// How much goes where (`distribute`); the first entry for the proxy's own locality counts.
    pub distribute: Box<[Distribute]>,
    /// Which region stands in for which (`failover`).
    pub failover: Box<[Failover]>,
    /// Labels in order of weight (`failoverPriority`).
    pub failover_priority: Box<[PriorityLabel]>,
}

impl Default for LocalityLb {
    fn default() -> Self {
        Self {
            enabled: true,
            distribute: Box::default(),
            failover: Box::default(),
            failover_priority: Box::default(),
        }
    }
}

/// How traffic from one place is spread over others (`LocalityLoadBalancerSetting.Distribute`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Distribute {
    /// Where the proxy is: `region/zone/subzone`, whose end may be `*` or missing (`from`).
    pub from: Str,
    /// Where traffic goes, and how much of a hundred (`to`). What is in no such place gets none.
    pub to: Box<[(Str, u32)]>,
}

/// Which region stands in for another (`LocalityLoadBalancerSetting.Failover`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Failover {
    /// The proxy's region (`from`).
    pub from: Str,
    /// The region that is next after it (`to`).
    pub to: Str,
}

/// A label by which endpoints come first (`failoverPriority`): `key`, or `key=value`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PriorityLabel {
    /// The label's name.
    pub name: Str,
    /// What an endpoint must have; `None`: what the proxy has.
    pub value: Option<Str>,
}

/// How a new endpoint gets its share bit by bit (`WarmupConfiguration`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Warmup {
    /// For how long (`duration`).
    pub duration: Duration,
    /// Its share at first, in percent of its weight (`minimumPercent`): 10 unless said otherwise.
    pub minimum_percent: f64,
    /// How fast the share grows (`aggression`): 1, evenly, unless said otherwise; more is faster at first.
    pub aggression: f64,
}

impl Warmup {
    /// `minimumPercent` where it is not said.
    pub const DEFAULT_MINIMUM_PERCENT: f64 = 10.0;
    /// `aggression` where it is not said.
    pub const DEFAULT_AGGRESSION: f64 = 1.0;

    /// A warm-up of a duration, with the defaults.
    pub fn of(duration: Duration) -> Self {
        Self {
            duration,
            minimum_percent: Self::DEFAULT_MINIMUM_PERCENT,
            aggression: Self::DEFAULT_AGGRESSION,
        }
    }
}
