//! Every bound of the waypoint that is not a tunnel's own: name, default, where the figure comes from, and how often it
//! was hit (`lateen_limit_hits_total`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use crate::Waypoint;

/// The bounds.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// Bytes of a request's or response's head, decoded. 60 KiB, as Envoy (`max_request_headers_kb`).
    pub(crate) head: usize,
    /// Fields in a head. 100, as Envoy (`max_headers_count`).
    pub(crate) fields: usize,
    /// Requests that a client may have open at once on an HTTP/2 connection. 100: beyond, it waits, or opens another.
    pub(crate) streams: u32,
    /// What a client's HTTP/2 stream may send before it is taken on, bytes. 256 KiB.
    pub(crate) stream_window: u32,
    /// The same for all streams of a connection. 1 MiB: four times a stream's, or one stalled would block the others.
    pub(crate) connection_window: u32,
    /// Streams that a client may have reset and that are not done with. 50.
    pub(crate) pending_resets: usize,
    /// How long a client's HTTP/1.1 connection may be without a request. 1 h, as Envoy (`idle_timeout`).
    pub(crate) idle: Duration,
    /// How long a client may take to show what it speaks, where the server does not speak first. 1 h: as long as a
    /// connection may idle.
    pub(crate) sniff: Duration,
    /// After this without a byte of the client, the server may be one that speaks first, and is connected to. 50 ms.
    pub(crate) server_first: Duration,
    /// How long a connection to an endpoint may take. 10 s, as Istio (`connectTimeout`).
    pub(crate) connect: Duration,
    /// How long an unused connection to an endpoint is kept. 30 s: less than servers commonly do.
    pub(crate) upstream_idle: Duration,
    /// HTTP/1.1 connections to endpoints of a thread, those in use and those kept. 8192.
    pub(crate) upstream_connections: usize,
    /// Requests at once on an HTTP/2 connection to an endpoint. 100.
    pub(crate) upstream_streams: usize,
    /// Tunnels whose peer has not shown yet who it is. 1024.
    pub(crate) handshakes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            head: 60 << 10,
            fields: 100,
            streams: 100,
            stream_window: 256 << 10,
            connection_window: 1 << 20,
            pending_resets: 50,
            idle: Duration::from_secs(3600),
            sniff: Duration::from_secs(3600),
            server_first: Duration::from_millis(50),
            connect: Duration::from_secs(10),
            upstream_idle: Duration::from_secs(30),
            upstream_connections: 8192,
            upstream_streams: 100,
            handshakes: 1024,
        }
    }
}

/// What was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// [`Bounds::head`] or [`Bounds::fields`].
    Head,
    /// [`Bounds::idle`].
    Idle,
    /// [`Bounds::upstream_connections`].
    UpstreamConnections,
    /// [`Bounds::upstream_streams`]: another connection is opened.
    UpstreamStreams,
    /// [`Bounds::connect`].
    Connect,
    /// [`Bounds::handshakes`].
    Handshakes,
    /// A client's share of descriptors.
    ClientShare,
    /// A thread's mailbox.
    Mailbox,
    /// The process's files.
    OpenFiles,
}

/// In the order of the variants.
const NAMES: [(Limit, &str); 9] = [
    (Limit::Head, "request_head"),
    (Limit::Idle, "client_idle"),
    (Limit::UpstreamConnections, "upstream_connections"),
    (Limit::UpstreamStreams, "upstream_streams"),
    (Limit::Connect, "upstream_connect_time"),
    (Limit::Handshakes, "handshakes"),
    (Limit::ClientShare, "client_share"),
    (Limit::Mailbox, "worker_mailbox"),
    (Limit::OpenFiles, "open_files"),
];

/// How often each was hit.
#[derive(Debug, Default)]
pub(crate) struct Hits([AtomicU64; NAMES.len()]);

impl Hits {
    /// A limit was hit.
    pub(crate) fn hit(&self, limit: Limit) {
        self.0[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was.
    pub(crate) fn of(&self, limit: Limit) -> u64 {
        self.0[limit as usize].load(Ordering::Relaxed)
    }
}

/// `lateen_limit_hits_total`, for every limit there is.
#[derive(Debug)]
pub(crate) struct LimitMetrics(pub(crate) Arc<Waypoint>);

impl Collector for LimitMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "How often a limit was hit; docs/limits.md says what each is";
        let mut family = encoder.encode_descriptor("lateen_limit_hits", help, None, MetricType::Counter)?;
        let waypoint = &self.0;
        let own = NAMES.iter().map(|(limit, name)| (*name, waypoint.hits.of(*limit)));
        let others = [
            ("metric_series", waypoint.telemetry.dropped()),
            ("log_buffer", waypoint.log.dropped()),
            ("state_patience", waypoint.state.waited_in_vain()),
        ];
        for (limit, count) in waypoint.limits.hits.all().chain(own).chain(others) {
            ConstCounter::new(count).encode(family.encode_family(&[("limit", limit)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_its_own_counter() {
        let hits = Hits::default();
        for (at, (limit, _)) in NAMES.iter().enumerate() {
            assert_eq!(*limit as usize, at, "{limit:?} stands in the place of its counter");
            hits.hit(*limit);
            assert_eq!(hits.of(*limit), 1);
        }
    }
}
