//! Connecting to an endpoint: through a pooled tunnel as this waypoint, or in plain to what has no agent.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hbone::headers::Headers;
use hbone::tunnel::{Client, Gone};
use model::traffic::TcpKeepalive;
use proxy::tunnel::{Dialled, TunnelError, Unconnected};
use socket2::SockRef;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use super::Broken;
use super::pool::Counted;
use crate::broken::BreakOff;
use crate::limits::Limit;
use crate::route::{Endpoint, Hop};
use crate::telemetry::Flags;
use crate::trust::{self, Ends};
use crate::worker::{TunnelKey, Worker};

/// The least that the kernel knows of time between probes.
const SECOND: Duration = Duration::from_secs(1);

/// Why there is no connection. Cloneable, because all who waited for one tunnel get the same answer.
#[derive(Debug, Clone, Error)]
pub(crate) enum DialError {
    /// TCP failed.
    #[error("connection failed: {0}")]
    Connect(Arc<io::Error>),
    /// TCP got no answer.
    #[error("connection timed out, maybe a NetworkPolicy is blocking it")]
    Timeout,
    /// The destination's rules gave it less time than that.
    #[error("no connection within {limit:?} ({rule})")]
    Cut {
        /// What they gave it.
        limit: Duration,
        /// Which they are.
        rule: String,
    },
    /// It ended before anything was sent on it.
    #[error("the connection ended before the request: {0}")]
    Ended(Arc<Broken>),
    /// There is no tunnel, or no stream of it.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// It was not tried: something of our own has run out.
    #[error(transparent)]
    Short(Shortage),
}

/// What has run out here; it says nothing of the endpoint.
#[derive(Debug, Clone, Copy, Error)]
pub(crate) enum Shortage {
    /// There are as many connections as there may be.
    #[error("there are too many connections to endpoints; more of them would not be served faster")]
    Connections,
    /// There are no descriptors.
    #[error(
        "this waypoint's connections to endpoints hold their share of file descriptors; raise its limit of open files (OPEN_FILES, ulimit -n) or add a replica"
    )]
    Descriptors,
}

impl DialError {
    /// Nothing came of it within a rule's limit: where that is as long as anything is waited for, the rule is not to blame.
    fn late(limit: Duration, own: Duration, rule: impl FnOnce() -> String) -> Self {
        if limit < own { Self::Cut { limit, rule: rule() } } else { Self::Timeout }
    }

    /// Whether it took too long.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self, Self::Timeout | Self::Cut { .. })
    }

    /// Its flag in telemetry.
    pub(crate) fn flags(&self) -> Flags {
        match self {
            Self::Short(_) => Flags::UO,
            _ => Flags::UF,
        }
    }
}

/// A connection to an endpoint, which counts as one while it lasts.
#[derive(Debug)]
pub(crate) struct Io {
    bytes: Bytes,
    _counted: Counted,
}

/// The bytes to and from an endpoint.
#[derive(Debug)]
enum Bytes {
    /// A tunnel's stream.
    Tunnel(hbone::tunnel::Stream),
    /// Plain TCP.
    Plain(Dialled),
}

impl Io {
    /// The tunnel that they go by.
    pub(super) fn way(&self) -> Way {
        match &self.bytes {
            Bytes::Tunnel(stream) => Way(Some(stream.tunnel())),
            Bytes::Plain(_) => Way(None),
        }
    }
}

/// How a connection goes, for who keeps it for further requests.
#[derive(Debug)]
pub(super) struct Way(Option<hbone::tunnel::Handle>);

impl Way {
    /// Whether further requests may go by it: the far end of a tunnel has not told everybody to go elsewhere.
    pub(super) fn is_open(&self) -> bool {
        self.0.as_ref().is_none_or(hbone::tunnel::Handle::usable)
    }
}

/// Connects to an endpoint's application. Every connection to one is made here, whatever is spoken on it. `told` is what the
/// far end of a tunnel is told for its telemetry.
///
/// # Errors
/// Why not.
pub(crate) async fn connect(
    worker: &Rc<Worker>,
    endpoint: &Endpoint,
    told: impl FnOnce() -> Headers,
) -> Result<Io, DialError> {
    let waypoint = &worker.waypoint;
    let counted = worker.pools.count(waypoint.bounds.upstream_connections).ok_or_else(|| {
        waypoint.hits.hit(Limit::UpstreamConnections);
        DialError::Short(Shortage::Connections)
    })?;
    let bytes = in_time(worker, endpoint, told).await?;
    Ok(Io { bytes, _counted: counted })
}

async fn in_time(
    worker: &Rc<Worker>,
    endpoint: &Endpoint,
    told: impl FnOnce() -> Headers,
) -> Result<Bytes, DialError> {
    let in_use = endpoint.in_use.as_ref().filter(|in_use| in_use.current.own_connections);
    let Some(in_use) = in_use else { return to_application(worker, endpoint, told).await };
    // `connectTimeout`, of all that it takes to reach the application.
    let limit = in_use.current.policy.connection_pool.tcp.connect_timeout;
    let connected = timeout(limit, to_application(worker, endpoint, told)).await;
    let rule = || in_use.blame("connectionPool.tcp.connectTimeout");
    connected.unwrap_or_else(|_| Err(DialError::late(limit, worker.waypoint.bounds.connect, rule)))
}

async fn to_application(
    worker: &Rc<Worker>,
    endpoint: &Endpoint,
    told: impl FnOnce() -> Headers,
) -> Result<Bytes, DialError> {
    let keepalive = keepalive(endpoint);
    match &endpoint.hop {
        Hop::Plain(to) => tcp(worker, to.addr(), keepalive).await.map(Bytes::Plain),
        Hop::Tunnel { next_hop, expect } => {
            let key = TunnelKey { expect: expect.clone(), next_hop: *next_hop, keepalive };
            let dial = || tunnel(worker.clone(), key.clone());
            let opened = worker.tunnels.connect(&key, dial, &endpoint.address.to_string(), &told()).await;
            opened.map(|opened| Bytes::Tunnel(opened.stream)).map_err(TunnelError::of_pool)
        }
    }
}

/// What the rules say of probes on idle connections (`tcpKeepalive`). They are the socket's, so that a tunnel that has them is
/// not shared with who has not asked for them.
fn keepalive(endpoint: &Endpoint) -> Option<TcpKeepalive> {
    endpoint.in_use.as_ref().and_then(|in_use| in_use.current.policy.connection_pool.tcp.keepalive)
}

/// What the kernel is told of them. It knows whole seconds, at least one, up to nine hours, and up to 127 probes.
fn probes(keepalive: TcpKeepalive) -> socket2::TcpKeepalive {
    const LONGEST: Duration = Duration::from_secs(32_767);
    let seconds =
        |time: Duration| Duration::from_secs(time.as_secs_f64().ceil() as u64).clamp(SECOND, LONGEST);
    let mut probes = socket2::TcpKeepalive::new();
    if let Some(time) = keepalive.time {
        probes = probes.with_time(seconds(time));
    }
    if let Some(interval) = keepalive.interval {
        probes = probes.with_interval(seconds(interval));
    }
    match keepalive.probes {
        Some(count) => probes.with_retries(count.clamp(1, 127)),
        None => probes,
    }
}

/// Connects, on this waypoint's account.
async fn tcp(worker: &Worker, to: SocketAddr, keepalive: Option<TcpKeepalive>) -> Result<Dialled, DialError> {
    let waypoint = &worker.waypoint;
    let make = || if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let connected = proxy::tunnel::connect(&worker.account, make, to, waypoint.bounds.connect).await;
    let dialled = connected.map_err(|why| match why {
        Unconnected::Full(_) => {
            waypoint.hits.hit(Limit::OpenFiles);
            DialError::Short(Shortage::Descriptors)
        }
        Unconnected::Timeout => {
            waypoint.hits.hit(Limit::Connect);
            DialError::Timeout
        }
        Unconnected::Failed(error) => DialError::Connect(Arc::new(error)),
    })?;
    // It fails only on a socket that is already dead.
    let _ = dialled.socket.set_nodelay(true);
    if let Some(keepalive) = keepalive {
        let _ = SockRef::from(&dialled.socket).set_tcp_keepalive(&probes(keepalive));
    }
    Ok(dialled)
}

/// Connects a new tunnel and starts its driver on this thread.
async fn tunnel(worker: Rc<Worker>, key: TunnelKey) -> Result<Client, DialError> {
    let waypoint = worker.waypoint.clone();
    let credentials =
        waypoint.trust.certificates.get(&waypoint.own.identity).await.map_err(TunnelError::Identity)?;
    let Dialled { socket, descriptor } = tcp(&worker, key.next_hop.addr(), key.keepalive).await?;
    let expect = key.expect.clone();
    let opened = proxy::tunnel::open(socket, &credentials, expect, &waypoint.limits, &worker.account);
    let (client, driver) = opened.await?;
    let next_hop = key.next_hop;
    let dialled = worker.handle().dialled();
    tokio::task::spawn_local(async move {
        let _held = (dialled, descriptor);
        match trust::drive(worker, driver, credentials, Ends::Client).await {
            Gone::Closed => tracing::debug!(%next_hop, "tunnel closed"),
            gone => tracing::info!(%next_hop, %gone, "tunnel ended"),
        }
    });
    Ok(client)
}

impl BreakOff for Io {
    fn break_off(&mut self) {
        match &mut self.bytes {
            Bytes::Tunnel(stream) => stream.break_off(),
            Bytes::Plain(dialled) => {
                // It fails only on a socket that is already dead.
                let _ = SockRef::from(&dialled.socket).set_linger(Some(Duration::ZERO));
            }
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().bytes {
            Bytes::Tunnel(stream) => Pin::new(stream).poll_read(cx, buf),
            Bytes::Plain(dialled) => Pin::new(&mut dialled.socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().bytes {
            Bytes::Tunnel(stream) => Pin::new(stream).poll_write(cx, bytes),
            Bytes::Plain(dialled) => Pin::new(&mut dialled.socket).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().bytes {
            Bytes::Tunnel(stream) => Pin::new(stream).poll_flush(cx),
            Bytes::Plain(dialled) => Pin::new(&mut dialled.socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().bytes {
            Bytes::Tunnel(stream) => Pin::new(stream).poll_shutdown(cx),
            Bytes::Plain(dialled) => Pin::new(&mut dialled.socket).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_cuts_is_named_and_no_policy_of_the_network() {
        let late = |limit: u64| {
            let rule =
                || String::from("DestinationRule shop/a trafficPolicy.connectionPool.tcp.connectTimeout");
            DialError::late(Duration::from_millis(limit), Duration::from_secs(10), rule)
        };
        let cut = late(50);
        assert_eq!(
            cut.to_string(),
            "no connection within 50ms (DestinationRule shop/a trafficPolicy.connectionPool.tcp.connectTimeout)"
        );
        assert!(cut.is_late() && late(10_000).is_late());
        for limit in [10_000, 60_000] {
            assert!(late(limit).to_string().contains("NetworkPolicy"), "{limit}");
        }
    }

    #[test]
    fn the_kernel_is_told_what_it_can_be_told() {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let usual = (
            socket.tcp_keepalive_retries().unwrap(),
            socket.tcp_keepalive_time().unwrap(),
            socket.tcp_keepalive_interval().unwrap(),
        );
        let said = |probes, time, interval| TcpKeepalive {
            probes,
            time: Option::map(time, Duration::from_millis),
            interval: Option::map(interval, Duration::from_millis),
        };
        let seconds = Duration::from_secs;
        let rows = [
            (said(None, None, None), usual),
            (said(Some(3), Some(4000), Some(5000)), (3, seconds(4), seconds(5))),
            (said(None, None, Some(1)), (3, seconds(4), seconds(1))),
            (said(Some(0), Some(1500), Some(0)), (1, seconds(2), seconds(1))),
            (said(Some(1000), Some(40_000_000), None), (127, seconds(32_767), seconds(1))),
        ];
        for (said, (retries, time, interval)) in rows {
            socket.set_tcp_keepalive(&probes(said)).unwrap();
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), retries, "{said:?}");
            assert_eq!(socket.tcp_keepalive_time().unwrap(), time, "{said:?}");
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), interval, "{said:?}");
        }
    }
}
