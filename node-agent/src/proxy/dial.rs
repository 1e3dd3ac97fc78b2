//! Connecting out of a pod's namespace: plain, or through a pooled tunnel.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hbone::account::Full;
use hbone::connection::Connection;
use hbone::fairness::{self, HANDSHAKE};
use hbone::headers::Headers;
use hbone::transport::HandshakeError;
use hbone::tunnel::{Client, Gone, Opened, Stream};
use identity::revocation::Side;
use model::address::PeerAddress;
use model::baggage;
use model::mesh::Mesh;
use model::plan::{self, Planned, Tunnel};
use model::workload::Workload;
use proxy::tunnel::{Dialled, TunnelError, Unconnected};
use socket2::{SockRef, Socket};
use thiserror::Error;
use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};

use super::pod::Pod;
use super::record::{Ends, Failure, Record, flags};
use super::traceparent;
use super::trust;
use super::worker::{TunnelKey, Worker};
use crate::netns::in_namespace;
use crate::socket::{
    PROXY_MARK, bind_transparent, bind_transparent_by_chance, marked_tcp, set_congestion_control,
    stays_on_host, tune_tcp,
};

/// How long a TCP connect may take.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// How long an application of this host's may take to answer a connect before another port is tried; twice as long before
/// the next.
const SILENT: Duration = Duration::from_millis(200);
/// How many other ports are tried.
const OTHER_PORTS: u32 = 4;

/// Why a connection could not be made. Cloneable, because all who waited for one tunnel get the same answer.
#[derive(Debug, Clone, Error)]
pub(crate) enum DialError {
    /// TCP failed.
    #[error("connection failed: {0}")]
    Connect(Arc<io::Error>),
    /// TCP to the tunnel's port got no answer at all.
    #[error(
        "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: no answer within {CONNECT_TIME:?}"
    )]
    TunnelTimeout,
    /// TCP to the application got no answer at all.
    #[error("connection timed out: no answer within {CONNECT_TIME:?}")]
    Timeout,
    /// There is no tunnel, or no stream of it.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// The far side opened another connection instead of going on with ours.
    #[error("the far side cannot go on with a connection: its agent is not ours any more")]
    NotResumed,
    /// The pod's account is full.
    #[error("{0}")]
    Full(Full),
}

impl From<Unconnected> for DialError {
    fn from(why: Unconnected) -> Self {
        match why {
            Unconnected::Full(full) => Self::Full(full),
            Unconnected::Failed(error) => Self::Connect(Arc::new(error)),
            Unconnected::Timeout => Self::Timeout,
        }
    }
}

impl From<DialError> for Failure {
    fn from(error: DialError) -> Self {
        let flags = match &error {
            DialError::Connect(_) | DialError::Timeout | DialError::Full(_) => flags::CONNECT,
            DialError::TunnelTimeout => flags::NETWORK_POLICY,
            DialError::Tunnel(error) => match error {
                TunnelError::Identity(_) => flags::IDENTITY_ERROR,
                TunnelError::Tls(error) if is_revoked(error) => flags::CERT_REVOKED,
                TunnelError::Tls(_) => flags::TLS_FAILURE,
                TunnelError::Refused { status: 401, .. } => flags::DENY,
                TunnelError::Refused { .. } => flags::CONNECT,
                TunnelError::Failed(_) => flags::H2_HANDSHAKE_FAILURE,
            },
            DialError::NotResumed => flags::H2_HANDSHAKE_FAILURE,
        };
        Self::new(flags, error)
    }
}

/// Whether a handshake failed because one side's certificate is revoked.
fn is_revoked(error: &HandshakeError) -> bool {
    use rustls::{AlertDescription, CertificateError, Error};
    matches!(
        error,
        HandshakeError::Tls(
            Error::InvalidCertificate(CertificateError::Revoked)
                | Error::AlertReceived(AlertDescription::CertificateRevoked)
        )
    )
}

/// Connects in plain to where a pod's application wants to go.
///
/// # Errors
/// What the kernel says, or [`DialError::Timeout`].
pub(crate) async fn plain(pod: &Pod, to: SocketAddr) -> Result<Dialled, DialError> {
    outward(pod, to, "").await
}

/// Connects to what may be anywhere, under this congestion control; an empty one is the host's.
async fn outward(pod: &Pod, to: SocketAddr, congestion_control: &str) -> Result<Dialled, DialError> {
    let make = || {
        let socket = marked_tcp(to.ip(), PROXY_MARK)?;
        tune_tcp(&SockRef::from(&socket))?;
        set_congestion_control(&SockRef::from(&socket), congestion_control)?;
        Ok(socket)
    };
    connect(pod, make, to).await
}

/// Connects to a pod's own application, as `source` if one is given: how it sees its real peer.
///
/// # Errors
/// What the kernel says, or [`DialError::Timeout`].
pub(crate) async fn application(
    pod: &Pod,
    to: SocketAddr,
    source: Option<IpAddr>,
) -> Result<Dialled, DialError> {
    // An application that calls itself through the mesh would find its own address taken.
    let source = source.filter(|source| *source != to.ip());
    let attempt = |bind: fn(&Socket, IpAddr) -> io::Result<()>| {
        let make = move || {
            // Nothing of this kernel's own goes silent, so there is nothing to keep alive.
            let socket = marked_tcp(to.ip(), pod.app_mark())?;
            stays_on_host(&SockRef::from(&socket))?;
            source.map_or(Ok(()), |source| bind(&socket, source))?;
            Ok(socket)
        };
        connect(pod, make, to)
    };
    let mut first = pin!(attempt(bind_transparent));
    if source.is_none() {
        return first.await;
    }
    if let Ok(done) = timeout(SILENT, &mut first).await {
        return done;
    }
    // The kernel chooses a port that nobody here uses, and cannot know of those that the client itself uses: if it has a
    // connection past the mesh from this very port (opened before it joined), the application takes ours for that one
    // and answers the client. Such a port stays silent. The next ones are silent as well where the client opened
    // several at once, so that other attempts have one by chance, none of them the same.
    let mut others: FuturesUnordered<_> = [attempt(bind_transparent_by_chance)].into_iter().collect();
    let mut tried = 1;
    let mut silent = pin!(sleep(SILENT * 2));
    loop {
        tokio::select! {
            biased;
            done = &mut first => return done,
            // That another cannot be made says nothing of the first, which goes on then.
            Some(done) = others.next() => match done {
                Ok(dialled) => return Ok(dialled),
                Err(_) => continue,
            },
            () = &mut silent, if tried < OTHER_PORTS => {
                others.push(attempt(bind_transparent_by_chance));
                tried += 1;
                silent.set(sleep(SILENT * (1 << tried)));
            }
        }
    }
}

/// Connects what `make` makes in the pod's namespace.
async fn connect(
    pod: &Pod,
    make: impl FnOnce() -> io::Result<Socket>,
    to: SocketAddr,
) -> Result<Dialled, DialError> {
    let make = || {
        let socket = in_namespace(&pod.netns, make)??;
        Ok(TcpSocket::from_std_stream(socket.into()))
    };
    Ok(proxy::tunnel::connect(&pod.account, make, to, CONNECT_TIME).await?)
}

/// Opens a stream through a tunnel, a pooled one if there is one.
///
/// # Errors
/// Why there is no tunnel, or why the far side refused.
pub(crate) async fn tunnel(
    worker: &Rc<Worker>,
    pod: &Arc<Pod>,
    source: &model::Identity,
    tunnel: &Tunnel,
    headers: &Headers,
) -> Result<Opened, DialError> {
    let key = TunnelKey {
        pod: pod.uid.clone(),
        source: source.clone(),
        expect: tunnel.expect.as_slice().into(),
        next_hop: tunnel.next_hop,
    };
    ask(worker, pod, &key, &tunnel.authority.to_string(), headers, None).await
}

/// Goes on with a detached connection on a stream of another tunnel to the same peer.
///
/// # Errors
/// As [`tunnel`]; [`DialError::Refused`] with 409 if the far side has not got it.
pub(crate) async fn resume(
    worker: &Rc<Worker>,
    pod: &Arc<Pod>,
    record: &Record,
    connection: &Connection,
) -> Result<Stream, DialError> {
    let ends = record.ends();
    let (Some(source), Some(authority)) = (&ends.source_identity, &ends.authority) else {
        return Err(DialError::NotResumed);
    };
    let expect = expected(&worker.agent.state.read(), ends).ok_or(DialError::NotResumed)?;
    let key = TunnelKey { pod: pod.uid.clone(), source: source.clone(), expect, next_hop: ends.next_hop };
    let host = ends.service.as_ref().map(|service| service.key.hostname());
    let headers = request_headers(ends.source.as_deref(), record.peer(), host);
    let opened = ask(worker, pod, &key, authority, &headers, Some(connection)).await?;
    // One that does not know how has taken it for a new connection.
    if opened.capable { Ok(opened.stream) } else { Err(DialError::NotResumed) }
}

/// Who may be at the far end: who was expected there when the connection was opened, and whom its service names as well, or that
/// of its waypoint. A hand-over says the first only; the rest is what the controller says.
fn expected(mesh: &Mesh, ends: &Ends) -> Option<Arc<[model::Identity]>> {
    let first = ends.destination_identity.clone()?;
    let (Some(source), Some(workload), Some(authority)) =
        (&ends.source, &ends.destination, ends.authority.as_deref())
    else {
        return Some([first].into());
    };
    let Ok(authority) = authority.parse() else { return Some([first].into()) };
    let service = ends.service.as_deref();
    let planned = Planned { source, next_hop: ends.next_hop, authority, workload, service };
    let others = plan::expected(mesh, &planned).into_iter().skip(1);
    Some(std::iter::once(first).chain(others).collect())
}

/// What the far end is told for its telemetry.
pub(crate) fn request_headers(source: Option<&Workload>, peer: PeerAddress, host: Option<&str>) -> Headers {
    let headers = Headers::new()
        .with("forwarded", baggage::forwarded(peer.addr(), host))
        .with("traceparent", traceparent::fresh());
    match source {
        Some(source) => headers.with("baggage", baggage::encode(source)),
        None => headers,
    }
}

/// Asks for a stream, for a new connection or to go on with one.
async fn ask(
    worker: &Rc<Worker>,
    pod: &Arc<Pod>,
    key: &TunnelKey,
    authority: &str,
    headers: &Headers,
    resumed: Option<&Connection>,
) -> Result<Opened, DialError> {
    let dial = || open(worker.clone(), pod.clone(), key.clone());
    let asked = match resumed {
        Some(connection) => worker.pool.resume(key, dial, authority, headers, connection).await,
        None => worker.pool.connect(key, dial, authority, headers).await,
    };
    asked.map_err(TunnelError::of_pool)
}

/// Connects a new tunnel and starts its driver on this thread.
async fn open(worker: Rc<Worker>, pod: Arc<Pod>, key: TunnelKey) -> Result<Client, DialError> {
    let agent = &worker.agent;
    let credentials = agent.trust.certificates.get(&key.source).await.map_err(TunnelError::Identity)?;
    let dialled =
        outward(&pod, key.next_hop.addr(), &agent.tunnel_congestion_control).await.map_err(|error| {
            match error {
                DialError::Timeout => DialError::TunnelTimeout,
                other => other,
            }
        })?;
    let Dialled { socket, descriptor } = dialled;
    fairness::turn(&pod.account, HANDSHAKE).await;
    let opened = proxy::tunnel::open(socket, &credentials, key.expect.clone(), &agent.limits, &pod.account);
    let (client, driver) = opened.await?;
    let next_hop = key.next_hop;
    tokio::task::spawn_local(async move {
        let _descriptor = descriptor;
        match trust::drive(worker, driver, credentials, Side::Server).await {
            Gone::Closed => tracing::debug!(%next_hop, "tunnel closed"),
            gone => tracing::info!(%next_hop, %gone, "tunnel ended"),
        }
    });
    Ok(client)
}
