//! The bytes below a tunnel: one large receive and one large send a turn, TLS or plain.
//!
//! A transport takes plaintext as whole records and gives plaintext as one slice; what it works in is a [`Scratch`]
//! that all tunnels of a thread share, so that an idle tunnel holds no buffer at all.

use std::io;
use std::task::{Context, Poll};

use rustls::pki_types::CertificateDer;

use crate::account::Full;

mod in_place;
mod plain;
mod records;
mod scratch;
mod tls;

pub use plain::Plain;
pub use scratch::Scratch;
pub use tls::Tls;

pub(crate) use records::{BATCH, Records, Spare};

use records::RECORD;

/// Gives back the working buffers of this thread's tunnels that none has needed since the last time. To be called every
/// second or so.
pub fn settle() {
    Scratch::settle();
    Spare::settle();
}

/// A non-blocking byte transport that works in batches. Implemented by [`Tls`] and [`Plain`].
pub trait Transport: 'static {
    /// Receives once; the plaintext is in `scratch` afterwards, in `plain` and then in `parts` of `raw`. Pending only
    /// when there is nothing to read.
    fn poll_receive(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<io::Result<Received>>;

    /// Takes all of `out`, seals and sends what the kernel accepts and keeps the rest.
    ///
    /// # Errors
    /// The socket's or TLS's; the transport is dead then.
    fn send(&mut self, cx: &mut Context<'_>, out: Outgoing<'_>, scratch: &mut Scratch) -> io::Result<()>;

    /// Sends what is kept; ready when nothing is.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Says that nothing more will be sent (close_notify, FIN); ready when that has left.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// The peer's certificate chain, leaf first, DER; empty without TLS.
    fn peer_certificates(&self) -> &[CertificateDer<'static>];
}

/// What leaves together, in this order.
#[derive(Debug)]
pub struct Outgoing<'o> {
    /// Control frames that go first.
    pub(crate) control: &'o [u8],
    /// DATA; it may be sealed where it lies.
    pub(crate) records: Option<&'o mut Records>,
    /// Frames that must not overtake it.
    pub(crate) trailing: &'o [u8],
}

impl Outgoing<'_> {
    /// All plaintext in pieces of at most one record.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let records = self.records.iter().flat_map(|records| records.filled());
        self.control.chunks(RECORD).chain(records).chain(self.trailing.chunks(RECORD))
    }
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
    /// The peer sent more than a handshake needs.
    #[error("the peer sent {0} bytes that make no TLS handshake; a chain of fewer certificates would fit")]
    TooLarge(usize),
    /// The pod's account is full.
    #[error("{0}")]
    Account(#[from] Full),
}
