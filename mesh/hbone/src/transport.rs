//! The bytes below a tunnel: one large receive and one large send a turn, TLS or plain.
//!
//! A transport takes plaintext as whole records and gives plaintext as one slice; what it works in is a [`Scratch`]
//! that all tunnels of a thread share, so that an idle tunnel holds no buffer at all.

use std::io;
use std::task::{Context, Poll};

use rustls::pki_types::CertificateDer;

mod plain;
mod records;
mod scratch;
mod tls;

pub use plain::Plain;
pub use scratch::Scratch;
pub use tls::Tls;

pub(crate) use records::{BATCH, RECORD, Records, Spare};

/// A non-blocking byte transport that works in batches. Implemented by [`Tls`] and [`Plain`].
pub trait Transport: 'static {
    /// Receives once; the plaintext is in `scratch.plain` afterwards. Pending only when there is nothing to read.
    fn poll_receive(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<io::Result<Received>>;

    /// Takes all of `chunks` (each at most one record), seals and sends what the kernel accepts and keeps the rest.
    ///
    /// # Errors
    /// The socket's or TLS's; the transport is dead then.
    fn send(&mut self, cx: &mut Context<'_>, chunks: &[&[u8]], scratch: &mut Scratch) -> io::Result<()>;

    /// Sends what is kept; ready when nothing is.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Says that nothing more will be sent (close_notify, FIN); ready when that has left.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// The peer's certificate chain, leaf first, DER; empty without TLS.
    fn peer_certificates(&self) -> &[CertificateDer<'static>];
}

/// What one receive brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// The peer will send nothing more.
    pub ended: bool,
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
