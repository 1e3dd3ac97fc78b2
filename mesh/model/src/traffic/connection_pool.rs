//! How much may be under way, as written (`ConnectionPoolSettings`, `TrafficPolicy.RetryBudget`).
//!
//! A number that is zero or less counts in Istio as not said; who translates puts the default in its place. "No limit" is
//! `u32::MAX` in all of them.

use std::time::Duration;

/// How much may be under way to a destination (`trafficPolicy.connectionPool`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectionPool {
    /// Of any kind of traffic (`tcp`).
    pub tcp: TcpSettings,
    /// Of HTTP (`http`).
    pub http: HttpSettings,
}

impl ConnectionPool {
    /// How long a connection without bytes or requests is kept where nothing says otherwise.
    pub const DEFAULT_IDLE: Duration = Duration::from_secs(3600);

    /// After how long without a request an HTTP connection is closed: what `http` says, else what `tcp` says, else an
    /// hour. `None`: never, which is written as `0s`.
    pub fn http_idle(&self) -> Option<Duration> {
        or_an_hour(self.http.idle_timeout.or(self.tcp.idle_timeout))
    }

    /// After how long without a byte a TCP connection is closed: what `tcp` says, else an hour. `None`: never.
    pub fn tcp_idle(&self) -> Option<Duration> {
        or_an_hour(self.tcp.idle_timeout)
    }
}

fn or_an_hour(written: Option<Duration>) -> Option<Duration> {
    Some(written.unwrap_or(ConnectionPool::DEFAULT_IDLE)).filter(|timeout| !timeout.is_zero())
}

/// Limits of any kind of traffic (`ConnectionPoolSettings.TCPSettings`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpSettings {
    /// The most connections (`maxConnections`): no limit unless said.
    pub max_connections: u32,
    /// How long connecting may take (`connectTimeout`): 10 s unless said.
    pub connect_timeout: Duration,
    /// Probes on idle connections (`tcpKeepalive`): none unless said.
    pub keepalive: Option<TcpKeepalive>,
    /// How long a connection lives at most (`maxConnectionDuration`): no limit unless said.
    pub max_connection_duration: Option<Duration>,
    /// How long a connection without a byte is kept (`idleTimeout`), as written: see [`ConnectionPool::tcp_idle`].
    pub idle_timeout: Option<Duration>,
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self {
            max_connections: u32::MAX,
            connect_timeout: Duration::from_secs(10),
            keepalive: None,
            max_connection_duration: None,
            idle_timeout: None,
        }
    }
}

/// Probes on idle connections (`TCPSettings.TcpKeepalive`); what is not said is the kernel's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TcpKeepalive {
    /// How many without an answer end the connection (`probes`).
    pub probes: Option<u32>,
    /// After how long the first is sent (`time`).
    pub time: Option<Duration>,
    /// How long after one the next is (`interval`).
    pub interval: Option<Duration>,
}

/// Limits of HTTP (`ConnectionPoolSettings.HTTPSettings`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// The most requests that wait for a connection, of HTTP/2 too (`http1MaxPendingRequests`): no limit unless said.
    pub http1_max_pending_requests: u32,
    /// The most requests under way, of HTTP/1.1 too (`http2MaxRequests`): no limit unless said.
    pub http2_max_requests: u32,
    /// After how many requests a connection is closed (`maxRequestsPerConnection`): 0, never, unless said; 1 is no
    /// keep-alive.
    pub max_requests_per_connection: u32,
    /// The most retries under way (`maxRetries`): no limit unless said. A retry budget stands in its place.
    pub max_retries: u32,
    /// How long a connection without a request is kept (`idleTimeout`), as written: see [`ConnectionPool::http_idle`].
    pub idle_timeout: Option<Duration>,
    /// Whether HTTP/1.1 is made HTTP/2 towards the endpoint (`h2UpgradePolicy`).
    pub h2_upgrade_policy: H2UpgradePolicy,
    /// Whether the endpoint is spoken to in the client's own version (`useClientProtocol`): no unless said. Then there is
    /// no upgrade.
    pub use_client_protocol: bool,
    /// The most streams on one HTTP/2 connection (`maxConcurrentStreams`): 2^31-1 unless said.
    pub max_concurrent_streams: u32,
    /// PINGs on HTTP/2 connections (`http2KeepAlive`): none unless said.
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            http1_max_pending_requests: u32::MAX,
            http2_max_requests: u32::MAX,
            max_requests_per_connection: 0,
            max_retries: u32::MAX,
            idle_timeout: None,
            h2_upgrade_policy: H2UpgradePolicy::default(),
            use_client_protocol: false,
            max_concurrent_streams: i32::MAX.unsigned_abs(),
            http2_keep_alive: None,
        }
    }
}

/// Whether HTTP/1.1 is made HTTP/2 towards the endpoint (`HTTPSettings.H2UpgradePolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum H2UpgradePolicy {
    /// As the mesh does, which is not (`DEFAULT`).
    #[default]
    Default,
    /// Not (`DO_NOT_UPGRADE`).
    DoNotUpgrade,
    /// Yes (`UPGRADE`).
    Upgrade,
}

/// PINGs on HTTP/2 connections (`HTTPSettings.ConnectionKeepalive`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Http2KeepAlive {
    /// How often (`interval`).
    pub interval: Duration,
    /// How long an answer may take before the connection is closed (`timeout`).
    pub timeout: Duration,
}

/// How many of the requests under way may be retries (`TrafficPolicy.RetryBudget`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// In percent of the requests under way and waiting (`percent`): 20 unless said.
    pub percent: f64,
    /// So many always may (`minRetryConcurrency`): 3 unless said.
    pub min_retry_concurrency: u32,
    /// Requests count for so long after they began (`budgetInterval`): 0 unless said, which is only while they are under
    /// way or waiting.
    pub interval: Duration,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { percent: 20.0, min_retry_concurrency: 3, interval: Duration::ZERO }
    }
}
