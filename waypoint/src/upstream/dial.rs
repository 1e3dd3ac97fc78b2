//! Connecting to an endpoint: through a pooled tunnel as this waypoint, or in plain to what has no agent.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use hbone::pool::PoolError;
use hbone::transport::{HandshakeError, Tls};
use hbone::tunnel::{Client, ConnectError, Gone};
use identity::tls::no_server_name;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits::Limit;
use crate::listen::Inbound;
use crate::route::{Endpoint, Hop};
use crate::tcp::request_headers;
use crate::worker::{TunnelKey, Worker};

/// Why there is no connection. Cloneable, because all who waited for one tunnel get the same answer.
#[derive(Debug, Clone, Error)]
pub(crate) enum DialError {
    /// No certificate.
    #[error("{0}")]
    Identity(identity::rotation::Unavailable),
    /// TCP failed.
    #[error("connection failed: {0}")]
    Connect(Arc<io::Error>),
    /// TCP got no answer.
    #[error("connection timed out, maybe a NetworkPolicy is blocking it")]
    Timeout,
    /// TLS failed.
    #[error("{}", explain(.0))]
    Tls(Arc<HandshakeError>),
    /// The tunnel is there, the far side refused.
    #[error("http status: {status}{}", .cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default())]
    Refused {
        /// The status of the CONNECT.
        status: u16,
        /// What a peer of ours says of it.
        cause: Option<String>,
    },
    /// The tunnel failed.
    #[error("{0}")]
    Tunnel(String),
}

/// What a failed handshake means: a refusal of this side in its own words.
pub(crate) fn explain(error: &HandshakeError) -> String {
    match error {
        HandshakeError::Tls(error) => format!("TLS handshake: {}", identity::verify::explain(error)),
        other => other.to_string(),
    }
}

/// The bytes to and from an endpoint.
#[derive(Debug)]
pub(crate) enum Io {
    /// A tunnel's stream.
    Tunnel(hbone::tunnel::Stream),
    /// Plain TCP.
    Plain(TcpStream),
}

/// Connects to an endpoint's application.
///
/// # Errors
/// Why not.
pub(crate) async fn connect(
    worker: &Rc<Worker>,
    endpoint: &Endpoint,
    inbound: &Inbound,
) -> Result<Io, DialError> {
    match &endpoint.hop {
        Hop::Plain(to) => tcp(worker, to.addr()).await.map(Io::Plain),
        Hop::Tunnel { next_hop, expect } => {
            let key = TunnelKey { expect: expect.clone(), next_hop: *next_hop };
            let dial = || tunnel(worker.clone(), key.clone());
            let headers = request_headers(inbound);
            let opened = worker.tunnels.connect(&key, dial, &endpoint.address.to_string(), &headers).await;
            opened.map(|opened| Io::Tunnel(opened.stream)).map_err(|error| match error {
                PoolError::Dial(error) => error,
                PoolError::Connect(ConnectError::Refused { status, headers }) => {
                    let cause = headers.text("lateen-cause").map(|text| text.chars().take(512).collect());
                    DialError::Refused { status, cause }
                }
                PoolError::Connect(error) => DialError::Tunnel(error.to_string()),
            })
        }
    }
}

async fn tcp(worker: &Worker, to: std::net::SocketAddr) -> Result<TcpStream, DialError> {
    let waypoint = &worker.waypoint;
    let connected = timeout(waypoint.bounds.connect, TcpStream::connect(to)).await;
    let socket = connected.map_err(|_| {
        waypoint.hits.hit(Limit::Connect);
        DialError::Timeout
    })?;
    let socket = socket.map_err(|error| DialError::Connect(Arc::new(error)))?;
    // It fails only on a socket that is already dead.
    let _ = socket.set_nodelay(true);
    Ok(socket)
}

/// Connects a new tunnel and starts its driver on this thread.
async fn tunnel(worker: Rc<Worker>, key: TunnelKey) -> Result<Client, DialError> {
    let waypoint = &worker.waypoint;
    let credentials = waypoint.certificates.get(&waypoint.own.identity).await.map_err(DialError::Identity)?;
    let socket = tcp(&worker, key.next_hop.addr()).await?;
    let config = credentials.client_config(key.expect.clone());
    let transport = Tls::connect(socket, config, no_server_name(), &waypoint.limits, &worker.account)
        .await
        .map_err(|error| DialError::Tls(Arc::new(error)))?;
    let (client, driver) = hbone::tunnel::client(transport, waypoint.limits.clone());
    client.charge(&worker.account);
    let next_hop = key.next_hop;
    tokio::task::spawn_local(async move {
        match driver.await {
            Gone::Closed => tracing::debug!(%next_hop, "tunnel closed"),
            gone => tracing::info!(%next_hop, %gone, "tunnel ended"),
        }
    });
    Ok(client)
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tunnel(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tunnel(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tunnel(stream) => Pin::new(stream).poll_flush(cx),
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tunnel(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
