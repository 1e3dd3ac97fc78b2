//! DestinationRule (`networking.istio.io`): how a host's endpoints are used, and into which subsets they fall.

mod connection_pool;
mod load_balancer;

use std::collections::BTreeMap;

use model::traffic::HealthCheck;
use serde::Deserialize;

use super::{Duration, PortSelector, WorkloadSelector};
pub use connection_pool::{
    ConnectionKeepalive, ConnectionPool, H2UpgradePolicy, HttpSettings, TcpKeepalive, TcpSettings,
};
pub use load_balancer::{
    ConsistentHash, CookieAttribute, Distribute, Failover, HttpCookie, LoadBalancer, LocalityLb, Maglev,
    RingHash, SimpleLb, Warmup, ZoneAwareLb,
};

/// The `spec` of a DestinationRule.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DestinationRule {
    /// The host it is for: a name, or `*.` and a name; a short name is of its namespace.
    pub host: String,
    /// How endpoints are used, of whatever subset.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Parts of the host's endpoints, by label.
    pub subsets: Vec<Subset>,
    /// The namespaces whose traffic heeds it: `.` for its own, `*` for all, which is what an empty list means.
    pub export_to: Vec<String>,
    /// The clients that heed it.
    pub workload_selector: Option<WorkloadSelector>,
    /// How endpoints are checked; no field of Istio's, but of the annotation `lateen.dev/health-check`.
    #[serde(skip)]
    pub health_check: Option<HealthCheck>,
}

/// A part of the host's endpoints.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Subset {
    /// What destinations call it.
    pub name: String,
    /// Labels that an endpoint of it has.
    pub labels: BTreeMap<String, String>,
    /// How its endpoints are used, field by field in the place of the host's.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// How endpoints are used.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TrafficPolicy {
    /// Which one is chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// How many connections and requests there may be.
    pub connection_pool: Option<ConnectionPool>,
    /// When one is not used for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards it.
    pub tls: Option<ClientTls>,
    /// All of it for single ports, in the place of all of the above.
    pub port_level_settings: Vec<PortTrafficPolicy>,
    /// TCP inside of HTTP.
    pub tunnel: Option<Tunnel>,
    /// The PROXY protocol towards it.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How many retries there may be beside first tries.
    pub retry_budget: Option<RetryBudget>,
}

/// How endpoints are used on one port of the service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PortTrafficPolicy {
    /// The service's port.
    pub port: Option<PortSelector>,
    /// Which one is chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// How many connections and requests there may be.
    pub connection_pool: Option<ConnectionPool>,
    /// When one is not used for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards it.
    pub tls: Option<ClientTls>,
}

/// TCP inside of HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Tunnel {
    /// `CONNECT` or `POST`.
    pub protocol: String,
    /// Where to.
    pub target_host: String,
    /// On which port.
    pub target_port: u32,
}

/// The PROXY protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Its version.
    pub version: ProxyProtocolVersion,
}

/// The version of the PROXY protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
pub enum ProxyProtocolVersion {
    /// For people to read.
    #[default]
    V1,
    /// In binary.
    V2,
}

/// How many retries there may be beside first tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RetryBudget {
    /// Of the requests under way, in percent.
    pub percent: Option<f64>,
    /// As many in any case.
    pub min_retry_concurrency: Option<u32>,
    /// How long a request counts.
    pub budget_interval: Option<Duration>,
}

/// When an endpoint is not used for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct OutlierDetection {
    /// The older form of `consecutive_gateway_errors`.
    pub consecutive_errors: Option<i32>,
    /// Whether failures to connect count apart from answers.
    pub split_external_local_origin_errors: bool,
    /// After as many failures to connect one after the other, where they count apart.
    pub consecutive_local_origin_failures: Option<u32>,
    /// After as many answers 502, 503 or 504 one after the other; 0 is never.
    pub consecutive_gateway_errors: Option<u32>,
    /// After as many answers 5xx one after the other; 5 where nothing is said, 0 is never.
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    /// Between two looks; 10 s where nothing is said.
    pub interval: Option<Duration>,
    /// For how long the first time; 30 s where nothing is said.
    pub base_ejection_time: Option<Duration>,
    /// At most as many percent of the endpoints; 10 where nothing is said.
    pub max_ejection_percent: Option<i32>,
    /// Only while at least as many percent of the endpoints are well.
    pub min_health_percent: Option<i32>,
    /// The statuses that count as errors.
    pub outlier_detection_http_error_codes: Vec<u32>,
}

/// TLS towards an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClientTls {
    /// Which kind.
    pub mode: ClientTlsMode,
    /// File of the client's certificate.
    pub client_certificate: String,
    /// File of its key.
    pub private_key: String,
    /// File of the roots.
    pub ca_certificates: String,
    /// Secret with all three.
    pub credential_name: String,
    /// Names that the endpoint's certificate must have one of.
    pub subject_alt_names: Vec<String>,
    /// The name that is asked for.
    pub sni: String,
    /// Whether any certificate will do.
    pub insecure_skip_verify: Option<bool>,
    /// File of revoked certificates.
    pub ca_crl: String,
}

/// Which kind of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientTlsMode {
    /// None.
    #[default]
    Disable,
    /// The endpoint proves who it is.
    Simple,
    /// Both do, the client with a certificate of the rule.
    Mutual,
    /// Both do, by the mesh's own identities.
    IstioMutual,
}
