//! One tunnel on one thread: CONNECT streams over a [`Transport`], as client and as server.
//!
//! `client` and `server` give a handle and a [`Driver`]; the driver is a future that reads, delivers, batches
//! and sends, and must run on the thread that made it (`tokio::task::spawn_local`). Dropping it ends the tunnel.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::{Connection, ConnectionId, Progress};
use crate::headers::Headers;
use crate::limits::Limits;
use crate::splice::Splice;
use crate::transport::Transport;

/// Why a tunnel ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// In order: drained, or nobody needed it any more.
    #[error("the tunnel was closed in order")]
    Closed,
    /// The peer closed it or sent a last GOAWAY; an HTTP/2 error code other than 0 says what it blamed.
    #[error("the peer ended the tunnel (HTTP/2 code {0})")]
    ByPeer(u32),
    /// The peer broke the protocol or a limit; the text says how.
    #[error("the tunnel was ended: {0}")]
    Protocol(&'static str),
    /// No answer to a keepalive PING.
    #[error("the peer was silent for the whole keepalive timeout; is its node gone?")]
    Silent,
    /// The socket or TLS failed.
    #[error("the tunnel's connection failed: {0}")]
    Io(String),
    /// [`Client::close`] or [`Server::close`], or the driver was dropped.
    #[error("the tunnel was closed at once")]
    Aborted,
}

/// Why a CONNECT failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The far side answered with another status than 200.
    #[error("the far side refused the connection with status {status}")]
    Refused {
        /// The status: 401 refused by policy, 503 application not reachable, 400 malformed.
        status: u16,
        /// Its headers; a Lateen peer names the cause there.
        headers: Headers,
    },
    /// The far side reset the stream before it answered, with this HTTP/2 code.
    #[error("the far side reset the request (HTTP/2 code {0})")]
    Reset(u32),
    /// The tunnel ended or is draining. `unseen`: the peer surely has not acted on it; ask on another tunnel.
    #[error("{why}")]
    TunnelGone {
        /// Why it ended.
        why: Gone,
        /// Whether another tunnel may be tried without any risk of doing it twice.
        unseen: bool,
    },
    /// As many streams are open as the peer and we allow.
    #[error("the tunnel has no free stream; open another")]
    AtCapacity,
    /// No answer within `connect_timeout`.
    #[error("the far side did not answer the CONNECT in time")]
    Timeout,
}

/// A client's tunnel on `transport`, and the future that drives it.
pub fn client(transport: impl Transport, limits: Limits) -> (Client, Driver) {
    let _ = (transport, limits);
    (Client { shared: Rc::new(()) }, Driver { shared: Rc::new(()) })
}

/// A server's tunnel on `transport`, and the future that drives it.
pub fn server(transport: impl Transport, limits: Limits) -> (Server, Driver) {
    let _ = (transport, limits);
    (Server { shared: Rc::new(()) }, Driver { shared: Rc::new(()) })
}

/// Runs a tunnel; resolves when it has ended. Spawn it with `tokio::task::spawn_local`.
#[derive(Debug)]
#[must_use = "a tunnel stands still unless its driver is polled"]
pub struct Driver {
    shared: Rc<()>,
}

impl Future for Driver {
    type Output = Gone;

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Gone> {
        let _ = &self.shared;
        Poll::Ready(Gone::Closed)
    }
}

/// Opens CONNECT streams. Clones share the tunnel; when all clones and streams are gone the tunnel closes in order.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Rc<()>,
}

/// A CONNECT that was answered with 200.
#[derive(Debug)]
pub struct Opened {
    /// The bytes, both ways.
    pub stream: Stream,
    /// The answer's headers (`baggage`, …).
    pub headers: Headers,
    /// The name both ends know it by, sent with the CONNECT.
    pub id: ConnectionId,
}

impl Client {
    /// Sends a CONNECT for `authority` (`ip:port`, `[v6]:port` or `host:port`) and waits for the answer; a fresh
    /// connection id goes with it.
    ///
    /// # Errors
    /// Everything but a 200: see [`ConnectError`].
    pub async fn connect(&self, authority: &str, headers: &Headers) -> Result<Opened, ConnectError> {
        let _ = (authority, headers, &self.shared);
        Err(ConnectError::AtCapacity)
    }

    /// Sends a CONNECT that resumes a detached connection: its id and counts go with it, and the far side
    /// answers 200 only if they match its own. Splice the same connection on the stream returned.
    ///
    /// # Errors
    /// As [`Client::connect`]; `Refused` with 409 when the far side does not hold it or its counts differ.
    pub async fn resume(
        &self,
        authority: &str,
        headers: &Headers,
        connection: &Connection,
    ) -> Result<Opened, ConnectError> {
        let _ = connection;
        self.connect(authority, headers).await
    }

    /// Streams that can be opened now: 0 when full, draining or gone.
    pub fn capacity(&self) -> usize {
        0
    }

    /// Streams open now.
    pub fn streams(&self) -> usize {
        0
    }

    /// Since when no stream has been open; `None` while one is.
    pub fn idle_since(&self) -> Option<tokio::time::Instant> {
        None
    }

    /// Whether the far end is ours (it showed the capability): detach, resume and causes work.
    pub fn capable(&self) -> bool {
        false
    }

    /// The peer's certificate chain, leaf first, DER; empty without TLS.
    pub fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        Vec::new()
    }

    /// No new streams; GOAWAY; the driver ends when the last stream has.
    pub fn drain(&self) {}

    /// Ends the tunnel and every stream on it now.
    pub fn close(&self) {}
}

/// Takes CONNECT requests. Dropping it drains the tunnel.
#[derive(Debug)]
pub struct Server {
    shared: Rc<()>,
}

impl Server {
    /// The next request; `None` when the tunnel takes no more.
    pub async fn accept(&mut self) -> Option<Request> {
        let _ = &self.shared;
        None
    }

    /// Streams open now.
    pub fn streams(&self) -> usize {
        0
    }

    /// The peer's certificate chain, leaf first, DER; empty without TLS.
    pub fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        Vec::new()
    }

    /// GOAWAY: requests already sent are still taken, then none; the driver ends when the last stream has.
    pub fn drain(&self) {}

    /// Ends the tunnel and every stream on it now.
    pub fn close(&self) {}
}

/// A resume that a request asks for: the id and what the far end has sent and received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// The connection to go on with.
    pub id: ConnectionId,
    /// The far end's counts.
    pub far: Progress,
}

impl Resume {
    /// Whether `connection` is the one meant and both ends agree on every byte.
    pub fn matches(&self, connection: &Connection) -> bool {
        let near = connection.progress();
        self.id == connection.id() && self.far.sent == near.received && self.far.received == near.sent
    }
}

/// One CONNECT to answer. Dropping it refuses the stream.
#[derive(Debug)]
pub struct Request {
    authority: String,
    headers: Headers,
    connection: Option<ConnectionId>,
    resume: Option<Resume>,
    stream: Stream,
}

impl Request {
    /// `:authority`, as sent.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Its headers (`baggage`, `forwarded`, `traceparent`, …).
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The connection's id, if the client is ours; otherwise use a random one.
    pub fn connection(&self) -> Option<ConnectionId> {
        self.connection
    }

    /// Whether it resumes a detached connection: splice that one, or refuse with 409.
    pub fn resume(&self) -> Option<Resume> {
        self.resume
    }

    /// Answers 200 with `headers`.
    pub fn accept(self, headers: &Headers) -> Stream {
        let _ = headers;
        self.stream
    }

    /// Answers `status` with `headers` and ends the stream.
    pub fn refuse(self, status: u16, headers: &Headers) {
        let _ = (status, headers);
    }
}

/// The bytes of one CONNECT stream. Splice a connection on it (the fast path), or use it as a byte stream.
///
/// Shutting it down ends our direction (END_STREAM); dropping it before both directions ended resets it.
#[derive(Debug)]
pub struct Stream {
    shared: Rc<()>,
}

impl Stream {
    /// Joins it with `connection` until both directions have ended.
    pub fn splice(self, connection: Connection) -> Splice {
        let _ = connection;
        Splice { stream: Some(self) }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let _ = &self.shared;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
