//! Every bound of the waypoint that is not a tunnel's own: name, default, where the figure comes from, and how often it
//! was hit (`lateen_limit_hits_total`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use daemon::limits;
use hbone::account::{Account, Served, is_fair};
use hbone::handshakes;
use hbone::windows::{Wider, Windows, growth};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::Waypoint;

/// The bounds.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// Bytes of a request's or response's head, decoded. 60 KiB, as Envoy (`max_request_headers_kb`). HTTP/2 counts 32 more
    /// for each field.
    pub(crate) head: usize,
    /// Fields in a head. 100, as Envoy (`max_headers_count`).
    pub(crate) fields: usize,
    /// Requests that a client may have open at once on an HTTP/2 connection. 100: beyond, it waits, or opens another.
    pub(crate) streams: u32,
    /// What a stream of HTTP/2 may send before it is taken on, bytes, the largest first: a client's connection has the first for
    /// which something is left of what all windows may have together ([`hbone::windows`]). 256, 128 and 64 KiB.
    pub(crate) stream_windows: [u32; 3],
    /// The same of an endpoint's connection at first, which is widened to the largest as it carries. 32 KiB: clients that do not
    /// read make us hold so much of each answer.
    pub(crate) endpoint_window: u32,
    /// Bytes of an answer that wait in a stream of HTTP/2 for its client to take them. 64 KiB: hyper lets 400 wait, of each of a
    /// hundred streams whose client opens its windows and stops reading.
    pub(crate) untaken: usize,
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
    /// Connections to endpoints of a thread, whatever is spoken on them: those being opened, in use and kept. 8192.
    pub(crate) upstream_connections: usize,
    /// Requests at once on an HTTP/2 connection to an endpoint. 100.
    pub(crate) upstream_streams: usize,
    /// Tunnels whose peer has not shown yet who it is. 1024, and of one source half of them: who opens them and is silent
    /// leaves the other half to others.
    pub(crate) handshakes: handshakes::Bounds,
    /// Connections of clients (CONNECTs) at once, shared by clients: one has at most twice what is left. 32,768: each holds some
    /// 16 KiB in its task and the buffers of a codec, up to 60 KiB more while a head is not all there.
    pub(crate) connections: u64,
    /// Copies of requests (`mirrors`) that a thread has under way; beyond, none is made. 256: each may be 64 KiB behind.
    pub(crate) copies: usize,
    /// Health checks of endpoints that a thread has under way; others wait. 64: each holds a stream of a tunnel, or a socket.
    pub(crate) checks: usize,
    /// Health checks that a thread begins in a second; others wait. 500: each is a connection, so that they take a few hundredths
    /// of the thread, however many endpoints there are and whatever is asked for.
    pub(crate) checks_per_second: u32,
}

/// The windows of an HTTP/2 connection; those of its streams together, beyond the least, are given back with it.
#[derive(Debug)]
pub(crate) struct TwoWindows {
    /// Of each stream, bytes.
    pub(crate) stream: u32,
    /// What that may grow to.
    largest: u32,
    /// For how many streams at once there is room.
    streams: u32,
    wider: Wider,
}

impl TwoWindows {
    /// Of all streams together, bytes.
    pub(crate) fn connection(&self) -> u32 {
        self.stream.saturating_mul(self.streams).min(i32::MAX.unsigned_abs())
    }

    /// Widens them if its streams have carried enough for as many as are open, and something is left of what all windows may
    /// have. Whose clients do not read carry little: beside many of those it takes much of others.
    pub(crate) fn widen(&mut self, carried: u64, open: u32) -> bool {
        let each = carried / u64::from(open.max(1));
        let more = growth(self.stream, self.largest, u32::try_from(each).unwrap_or(u32::MAX));
        let widened = more > 0 && self.wider.take(more.saturating_mul(self.streams));
        if widened {
            self.stream += more;
        }
        widened
    }
}

/// How many streams' windows a client's connection has: more, and one that stalls does not block the others.
const CLIENT_STREAMS: u32 = 4;

impl Bounds {
    /// Those of a client's connection. It is one client's: who does not read all that it asks for is in its own way.
    pub(crate) fn client_windows(&self, windows: &Arc<Windows>) -> TwoWindows {
        let [largest, _, least] = self.stream_windows;
        let mut wider = windows.none();
        let fits = |stream: &u32| wider.take((*stream - least) * CLIENT_STREAMS);
        let stream = self.stream_windows.into_iter().find(fits).unwrap_or(least);
        TwoWindows { stream, largest, streams: CLIENT_STREAMS, wider }
    }

    /// Those of an endpoint's connection at first: room for all its streams. They are those of many clients, of whom none may
    /// make the others wait by not reading.
    pub(crate) fn endpoint_windows(&self, windows: &Arc<Windows>) -> TwoWindows {
        let [largest, ..] = self.stream_windows;
        let streams = u32::try_from(self.upstream_streams).unwrap_or(u32::MAX);
        TwoWindows { stream: self.endpoint_window, largest, streams, wider: windows.none() }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            head: 60 << 10,
            fields: 100,
            streams: 100,
            stream_windows: [256 << 10, 128 << 10, 64 << 10],
            endpoint_window: 32 << 10,
            untaken: 64 << 10,
            pending_resets: 50,
            idle: Duration::from_secs(3600),
            sniff: Duration::from_secs(3600),
            server_first: Duration::from_millis(50),
            connect: Duration::from_secs(10),
            upstream_idle: Duration::from_secs(30),
            upstream_connections: 8192,
            upstream_streams: 100,
            handshakes: handshakes::Bounds { all: 1024, of_owner: 1024, of_source: 512 },
            connections: 32 << 10,
            copies: 256,
            checks: 64,
            checks_per_second: 500,
        }
    }
}

daemon::limits! {
    /// What was hit.
    pub(crate) enum Limit {
        /// [`Bounds::head`] or [`Bounds::fields`].
        Head = "request_head",
        /// [`Bounds::streams`]: a client has as many requests open as it may, and waits with the next.
        Streams = "client_streams",
        /// [`Bounds::pending_resets`]: the client's connection ends.
        Resets = "client_resets",
        /// [`Bounds::idle`].
        Idle = "client_idle",
        /// [`Bounds::upstream_connections`].
        UpstreamConnections = "upstream_connections",
        /// [`Bounds::upstream_streams`]: another connection is opened.
        UpstreamStreams = "upstream_streams",
        /// [`Bounds::connect`].
        Connect = "upstream_connect_time",
        /// [`Bounds::handshakes`]: the oldest ends.
        Handshakes = "handshakes",
        /// [`Bounds::handshakes`] of one source: its oldest ends.
        HandshakesOfPeer = "handshakes_of_peer",
        /// [`Bounds::copies`].
        Copies = "mirrored_requests",
        /// [`Bounds::checks`] or [`Bounds::checks_per_second`]: a check has waited longer than a tenth of a second for its turn.
        Checks = "health_checks",
        /// A client's share of descriptors.
        ClientShare = "client_share",
        /// [`Bounds::connections`]: a client that has its share of them is refused another.
        ClientConnections = "client_connections",
        /// A thread's mailbox.
        Mailbox = "worker_mailbox",
        /// The process's files.
        OpenFiles = "open_files",
    }
}

/// How many connections of clients there are.
#[derive(Debug, Default)]
pub(crate) struct Connections(Arc<AtomicU64>);

/// A client's connection, counted while it lasts: on its account, and among all.
#[derive(Debug)]
pub(crate) struct Place {
    all: Arc<AtomicU64>,
    _served: Served,
}

impl Connections {
    /// One more of a client's, unless it has its share of these many.
    pub(crate) fn take(&self, account: &Arc<Account>, most: u64) -> Option<Place> {
        let served = account.serve().ok()?;
        let all = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        // From here on dropping it settles what was counted.
        let place = Place { all: self.0.clone(), _served: served };
        is_fair(account.connections().into(), all, most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How often each was hit.
pub(crate) type Hits = limits::Hits<Limit>;

/// `lateen_limit_hits_total`, for every limit there is.
#[derive(Debug)]
pub(crate) struct LimitMetrics(pub(crate) Arc<Waypoint>);

impl Collector for LimitMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let waypoint = &self.0;
        let (kept, series) = ((&waypoint.log, &waypoint.state), waypoint.telemetry.dropped());
        proxy::limits::encode(&mut encoder, &waypoint.limits, kept, series, waypoint.hits.all())?;
        let help = "Bytes that windows let peers send ahead, beyond the least that every stream has";
        let gauge = encoder.encode_descriptor("lateen_window_bytes", help, None, MetricType::Gauge)?;
        let given = i64::try_from(waypoint.limits.windows.given()).unwrap_or(i64::MAX);
        ConstGauge::new(given).encode(gauge)
    }
}

#[cfg(test)]
mod tests {
    use hbone::account::AccountLimits;

    use super::*;

    #[test]
    fn connections_are_shared_by_clients() {
        let connections = Connections::default();
        let take = |account: &Arc<Account>| -> Vec<Place> {
            std::iter::from_fn(|| connections.take(account, 90)).collect()
        };
        let clients: Vec<_> = (0..3).map(|_| Account::new(AccountLimits::default())).collect();
        let greedy = take(&clients[0]);
        assert_eq!(greedy.len(), 60, "two thirds of what there is");
        let next = take(&clients[1]);
        assert_eq!((next.len(), take(&clients[2]).len()), (20, 6), "and of what is left");
        drop((greedy, next));
        assert_eq!(connections.0.load(Ordering::Relaxed), 0, "all of it is given back");
        assert_eq!(take(&clients[2]).len(), 60);
    }

    #[test]
    fn windows_of_http_2_narrow_while_others_have_them() {
        let bounds = Bounds::default();
        let windows = Windows::new(48 << 20);
        let all: Vec<TwoWindows> = (0..100).map(|_| bounds.client_windows(&windows)).collect();
        let streams: Vec<u32> = all.iter().map(|windows| windows.stream >> 10).collect();
        assert!(streams.is_sorted_by(|wider, next| wider >= next), "{streams:?}");
        assert_eq!([streams[0], streams[99]], [256, 64]);
        assert!(windows.given() <= 48 << 20);
        drop(all);
        assert_eq!(windows.given(), 0, "all of it is given back");
        assert_eq!(bounds.client_windows(&windows).connection(), 1 << 20);
    }

    #[test]
    fn windows_of_endpoints_widen_with_what_their_streams_carry() {
        const M: u64 = 1 << 20;
        let bounds = Bounds::default();
        let windows = Windows::new(48 << 20);
        let mut one = bounds.endpoint_windows(&windows);
        let shown = |windows: &TwoWindows| (windows.stream >> 10, windows.connection() >> 20);
        assert_eq!(shown(&one), (32, 3), "room for all streams");
        // Bytes that were carried, how many streams are open, and the window then.
        for (carried, open, window) in [
            (2 * M - 1, 1, 32),
            (2 * M, 2, 32),
            (150 * M, 100, 32),
            (2 * M, 1, 64),
            (40 * M, 10, 128),
            (80 * M, 10, 256),
            (u64::MAX, 0, 256),
        ] {
            let before = one.stream;
            assert_eq!(one.widen(carried, open), one.stream > before);
            assert_eq!(one.stream >> 10, window, "{open} streams carried {carried}");
        }
        assert_eq!(shown(&one), (256, 25));
        let mut others = [(); 3].map(|()| bounds.endpoint_windows(&windows));
        let widest = others.each_mut().map(|next| {
            while next.widen(u64::MAX, 1) {}
            next.stream >> 10
        });
        assert_eq!(widest, [128, 128, 64], "as much as is left");
        drop((one, others));
        assert_eq!(windows.given(), 0, "all of it is given back");
    }
}
