//! What a DestinationRule says of single connections (`connectionPool`), beside our own bounds.

use std::time::Duration;

use model::traffic::Http2KeepAlive;
use tokio::time::Instant;

use crate::limits::Bounds;
use crate::route::Endpoint;

/// What holds for the connections to an endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Requests that one carries, one after the other or side by side; 0 is any number (`maxRequestsPerConnection`).
    requests: u32,
    /// How long one is used (`maxConnectionDuration`).
    age: Option<Duration>,
    /// Requests at once on one of HTTP/2 (`maxConcurrentStreams`).
    pub(super) streams: usize,
    /// After how long one without requests is closed, if anything says so: never, or after this (`idleTimeout`).
    pub(super) idle: Option<Option<Duration>>,
    /// PINGs on one of HTTP/2 (`http2KeepAlive`).
    pub(super) ping: Option<Http2KeepAlive>,
}

impl Rules {
    pub(super) fn of(endpoint: &Endpoint, bounds: &Bounds) -> Self {
        let in_use = endpoint.in_use.as_deref().filter(|in_use| in_use.current.own_connections);
        let Some(in_use) = in_use else {
            let streams = bounds.upstream_streams;
            return Self { requests: 0, age: None, streams, idle: None, ping: None };
        };
        let pool = &in_use.current.policy.connection_pool;
        let streams = usize::try_from(pool.http.max_concurrent_streams).unwrap_or(usize::MAX);
        let said = pool.http.idle_timeout.or(pool.tcp.idle_timeout).is_some();
        Self {
            requests: pool.http.max_requests_per_connection,
            age: pool.tcp.max_connection_duration.filter(|age| !age.is_zero()),
            streams: streams.min(bounds.upstream_streams),
            idle: said.then(|| pool.http_idle()),
            ping: pool.http.http2_keep_alive,
        }
    }

    /// Whether a connection that has carried so many requests may carry another.
    pub(super) fn may_carry(&self, carried: u32, opened: Instant) -> bool {
        (self.requests == 0 || carried < self.requests) && self.age.is_none_or(|age| opened.elapsed() < age)
    }
}
