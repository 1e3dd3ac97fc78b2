//! The handshake: rustls over the socket, until records can flow; then, where allowed, the keys change hands.

use std::io;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use tokio::net::TcpStream;

use super::{Next, Session, Tls, record_error};
use crate::account::{Account, Charge};
use crate::limits::{Limit, Limits};
use crate::transport::in_place::{InPlace, Keys};
use crate::transport::{HandshakeError, Transport};

/// The largest record a peer may send, head included.
const LARGEST_RECORD: usize = 5 + 16_384 + 256;
/// Bytes of a peer that wait to be understood before it has shown who it is: a record of the largest size. A chain of
/// eight RSA certificates of 4,096 bits fits in, and so does a key exchange after ML-KEM; most need a tenth.
const HANDSHAKE_BYTES: usize = LARGEST_RECORD;

impl Tls {
    /// Shakes hands as a client, on a pod's account. `socket` must be registered with the runtime of the thread that will
    /// own the tunnel.
    ///
    /// # Errors
    /// [`HandshakeError`]; a refused certificate is `Tls`.
    pub async fn connect(
        socket: TcpStream,
        config: Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
        limits: &Limits,
        account: &Arc<Account>,
    ) -> Result<Self, HandshakeError> {
        let extract = config.enable_secret_extraction;
        let session = UnbufferedClientConnection::new(config, name)?;
        Self::shake_hands(socket, Session::Client(Box::new(session)), extract, limits, account).await
    }

    /// Shakes hands as a server, on a pod's account.
    ///
    /// # Errors
    /// [`HandshakeError`]; a client without an acceptable certificate is `Tls`.
    pub async fn accept(
        socket: TcpStream,
        config: Arc<rustls::ServerConfig>,
        limits: &Limits,
        account: &Arc<Account>,
    ) -> Result<Self, HandshakeError> {
        let extract = config.enable_secret_extraction;
        let session = UnbufferedServerConnection::new(config)?;
        Self::shake_hands(socket, Session::Server(Box::new(session)), extract, limits, account).await
    }

    async fn shake_hands(
        socket: TcpStream,
        session: Session,
        extract: bool,
        limits: &Limits,
        account: &Arc<Account>,
    ) -> Result<Self, HandshakeError> {
        // It fails only on a socket that is already dead, which the handshake will find out.
        let _ = socket.set_nodelay(true);
        let mut tls = Self {
            socket,
            session,
            partial: Vec::new(),
            early: Vec::new(),
            unopened: false,
            unsent: Vec::new(),
            sent: 0,
            certificates: Vec::new(),
            ended: false,
            closed: false,
        };
        // As a tunnel: it costs as much, and is one when it is over.
        let mut charge = account.tunnel();
        match tokio::time::timeout(limits.handshake_timeout, tls.handshake(&mut charge)).await {
            Ok(result) => {
                if let Err(HandshakeError::TooLarge(_)) = &result {
                    limits.hits.hit(Limit::HandshakeBytes);
                }
                result?;
            }
            Err(_) => {
                limits.hits.hit(Limit::HandshakeTime);
                return Err(HandshakeError::Timeout(limits.handshake_timeout));
            }
        }
        let certificates = match &tls.session {
            Session::Client(session) => session.peer_certificates(),
            Session::Server(session) => session.peer_certificates(),
            Session::InPlace(_) => None,
        };
        tls.certificates =
            certificates.unwrap_or_default().iter().map(|der| der.clone().into_owned()).collect();
        if extract && tls.may_work_in_place() { tls.work_in_place(limits) } else { Ok(tls) }
    }

    fn may_work_in_place(&self) -> bool {
        let version = match &self.session {
            Session::Client(session) => session.protocol_version(),
            Session::Server(session) => session.protocol_version(),
            Session::InPlace(_) => None,
        };
        version == Some(rustls::ProtocolVersion::TLSv1_3)
    }

    fn work_in_place(mut self, limits: &Limits) -> Result<Self, HandshakeError> {
        let (secrets, keys) = match self.session {
            Session::Client(session) => {
                let (secrets, keys) = session.dangerous_into_kernel_connection()?;
                (secrets, Keys::Client(keys))
            }
            Session::Server(session) => {
                let (secrets, keys) = session.dangerous_into_kernel_connection()?;
                (secrets, Keys::Server(keys))
            }
            in_place @ Session::InPlace(_) => {
                self.session = in_place;
                return Ok(self);
            }
        };
        let in_place = InPlace::new(&secrets, keys, limits.records_per_key).map_err(record_error)?;
        self.session = Session::InPlace(Box::new(in_place));
        Ok(self)
    }

    /// Shows rustls one record after another and stops with the one that ends the handshake: what follows is read by
    /// whoever has the keys then. (A KeyUpdate that rustls saw before it gave them away would go unanswered, and the
    /// peer could read nothing of ours.)
    async fn handshake(&mut self, charge: &mut Charge) -> Result<(), HandshakeError> {
        let mut shown = 0;
        loop {
            let mut incoming = std::mem::take(&mut self.partial);
            let mut early = std::mem::take(&mut self.early);
            let (next, read) = self.process(&mut incoming[..shown], &mut early);
            incoming.drain(..read);
            charge.release(read);
            shown -= read;
            self.partial = incoming;
            self.early = early;
            let next = match next {
                Ok(next) => next,
                Err(err) => {
                    // The alert that names the reason is worth a try; the peer logs it.
                    self.flush_alert().await;
                    return Err(err.into());
                }
            };
            match next {
                Next::Again => {}
                Next::Transmit => std::future::poll_fn(|cx| self.poll_flush(cx)).await?,
                Next::Read => match record_end(&self.partial[shown..]) {
                    Some(len) => shown += len,
                    None => self.read_more(charge).await?,
                },
                Next::Traffic => {
                    std::future::poll_fn(|cx| self.poll_flush(cx)).await?;
                    self.unopened = !self.partial.is_empty();
                    return Ok(());
                }
                Next::Ended => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            }
        }
    }

    /// Sends the alert that names the reason of a failure, if rustls made one. Only what waits is taken out: the bytes
    /// received are not looked at again.
    async fn flush_alert(&mut self) {
        while match &self.session {
            Session::Client(session) => session.wants_write(),
            Session::Server(session) => session.wants_write(),
            Session::InPlace(_) => false,
        } {
            let _ = self.process(&mut [], &mut Vec::new());
        }
        let _ = std::future::poll_fn(|cx| self.poll_flush(cx)).await;
    }

    /// Handshake only: appends one receive to `partial`, and to what is charged.
    async fn read_more(&mut self, charge: &mut Charge) -> Result<(), HandshakeError> {
        let mut part = [0u8; 4096];
        let room = part.len().min(HANDSHAKE_BYTES.saturating_sub(self.partial.len()));
        if room == 0 {
            return Err(HandshakeError::TooLarge(HANDSHAKE_BYTES));
        }
        loop {
            self.socket.readable().await?;
            match self.socket.try_read(&mut part[..room]) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(len) => {
                    charge.hold(len)?;
                    // No more than is charged: growing by doubling would take up to twice as much.
                    self.partial.reserve_exact(len);
                    self.partial.extend_from_slice(&part[..len]);
                    return Ok(());
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                Err(err) => return Err(err.into()),
            }
        }
    }
}

/// The length of the record that `bytes` begin with, once it is whole. What cannot be a record is shown at once, so that
/// it is refused and not waited for.
fn record_end(bytes: &[u8]) -> Option<usize> {
    let [kind, _, _, high, low] = *bytes.first_chunk::<5>()?;
    let end = 5 + usize::from(u16::from_be_bytes([high, low]));
    if !(20..=23).contains(&kind) || end > LARGEST_RECORD {
        return Some(bytes.len());
    }
    (bytes.len() >= end).then_some(end)
}
