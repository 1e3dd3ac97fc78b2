//! How many connections and requests a host may have.

use serde::Deserialize;

use crate::istio::Duration;

/// How many connections and requests there may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ConnectionPool {
    /// Of connections.
    pub tcp: Option<TcpSettings>,
    /// Of requests.
    pub http: Option<HttpSettings>,
}

/// Settings of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TcpSettings {
    /// As many to an endpoint.
    pub max_connections: Option<i32>,
    /// How long connecting may take; 10 s where nothing is said.
    pub connect_timeout: Option<Duration>,
    /// Keep-alive of TCP.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// How long a connection may last.
    pub max_connection_duration: Option<Duration>,
    /// How long a connection may be without a byte; 0 for ever.
    pub idle_timeout: Option<Duration>,
}

/// Keep-alive of TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TcpKeepalive {
    /// How many probes may stay without an answer.
    pub probes: Option<u32>,
    /// How long nothing may come before the first.
    pub time: Option<Duration>,
    /// Between two.
    pub interval: Option<Duration>,
}

/// Settings of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpSettings {
    /// As many may wait for a connection.
    pub http1_max_pending_requests: Option<i32>,
    /// As many may be under way.
    pub http2_max_requests: Option<i32>,
    /// As many on one connection, one after the other; 1 is no keep-alive.
    pub max_requests_per_connection: Option<i32>,
    /// As many retries at a time.
    pub max_retries: Option<i32>,
    /// How long a connection may be without a request; 1 h where nothing is said.
    pub idle_timeout: Option<Duration>,
    /// Whether HTTP/1.1 goes on as HTTP/2.
    pub h2_upgrade_policy: H2UpgradePolicy,
    /// Whether what the client spoke is spoken.
    pub use_client_protocol: bool,
    /// As many streams on one connection at a time.
    pub max_concurrent_streams: Option<i32>,
    /// PINGs of HTTP/2.
    #[serde(rename = "http2KeepAlive")]
    pub http2_keep_alive: Option<ConnectionKeepalive>,
}

/// Whether HTTP/1.1 goes on as HTTP/2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum H2UpgradePolicy {
    /// As the mesh has it: it does not.
    #[default]
    Default,
    /// It does not.
    DoNotUpgrade,
    /// It does.
    Upgrade,
}

/// PINGs of HTTP/2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ConnectionKeepalive {
    /// Between two.
    pub interval: Option<Duration>,
    /// How long the answer may take.
    pub timeout: Option<Duration>,
}
