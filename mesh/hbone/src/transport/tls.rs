//! TLS over a TCP socket: nothing is held between turns but an incomplete record and what the kernel has not taken yet.
//!
//! rustls' unbuffered API shakes hands. Where its configuration lets the traffic secrets out
//! (`enable_secret_extraction`), records are then sealed and opened in place ([`super::in_place`]); otherwise rustls goes
//! on, at the price of some copies.

use std::io::{self, Read, Write};
use std::task::{Context, Poll, ready};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::in_place::{InPlace, RecordError};
use super::scratch::Scratch;
use super::{Outgoing, Received, Transport};

mod handshake;

/// What a record grows by when it is sealed, at most: head, explicit nonce (1.2), type and tag.
const OVERHEAD: usize = 64;

/// TLS over TCP, by rustls; the caller chooses suites, certificates and verification.
#[derive(Debug)]
pub struct Tls {
    socket: TcpStream,
    session: Session,
    /// The beginning of a record whose rest has not come.
    partial: Vec<u8>,
    /// Plaintext that came while rustls was asked for something else.
    early: Vec<u8>,
    /// `partial` holds what came in one piece with the handshake's end, perhaps whole records.
    unopened: bool,
    /// Sealed, not taken by the kernel yet.
    unsent: Vec<u8>,
    sent: usize,
    certificates: Vec<CertificateDer<'static>>,
    ended: bool,
    closed: bool,
}

enum Session {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
    InPlace(Box<InPlace>),
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Client(_) => "Client",
            Self::Server(_) => "Server",
            Self::InPlace(_) => "InPlace",
        })
    }
}

/// What rustls wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Call again: there may be more in the bytes already given.
    Again,
    /// Handshake bytes wait in `unsent`: send them before going on.
    Transmit,
    /// More bytes from the peer.
    Read,
    /// The handshake is over and all given bytes are read.
    Traffic,
    /// The peer said that it sends no more.
    Ended,
}

impl Tls {
    /// One step of rustls over `incoming`; plaintext is appended to `plain`, handshake bytes to `unsent`. Returns how
    /// many bytes of `incoming` are done with.
    fn process(&mut self, incoming: &mut [u8], plain: &mut Vec<u8>) -> (Result<Next, rustls::Error>, usize) {
        match &mut self.session {
            Session::Client(session) => {
                advance(session.process_tls_records(incoming), plain, &mut self.unsent)
            }
            Session::Server(session) => {
                advance(session.process_tls_records(incoming), plain, &mut self.unsent)
            }
            Session::InPlace(_) => (Ok(Next::Traffic), 0),
        }
    }

    /// Opens all whole records in the first `len` bytes of `raw`, which begin with what `partial` held; keeps the
    /// incomplete one.
    fn open(&mut self, scratch: &mut Scratch, len: usize) -> io::Result<()> {
        let mut at = 0;
        if let Session::InPlace(records) = &mut self.session {
            (at, self.ended) =
                records.open(&mut scratch.raw[..len], &mut scratch.parts).map_err(record_error)?;
            // Without traffic of our own the answer would wait for long; with some unsent it goes with what follows, and
            // a peer that asks without reading makes nothing grow.
            if records.update_due() && self.unsent.is_empty() {
                records.update(&mut self.unsent).map_err(record_error)?;
            }
        } else {
            loop {
                let (next, read) = self.process(&mut scratch.raw[at..len], &mut scratch.plain);
                at += read;
                match next.map_err(tls_error)? {
                    Next::Again | Next::Transmit => {}
                    Next::Read | Next::Traffic => break,
                    Next::Ended => {
                        self.ended = true;
                        break;
                    }
                }
            }
        }
        self.partial.clear();
        self.partial.extend_from_slice(&scratch.raw[at..len]);
        if self.partial.is_empty() {
            self.partial = Vec::new();
        }
        Ok(())
    }

    /// Runs `write` in rustls' state for sending; handshake bytes that are due (a KeyUpdate) go before.
    fn with_traffic<R>(&mut self, write: impl FnOnce(&mut dyn Seal) -> R) -> io::Result<R> {
        loop {
            let status = match &mut self.session {
                Session::Client(session) => {
                    let status = session.process_tls_records(&mut self.partial);
                    match status {
                        UnbufferedStatus {
                            state: Ok(ConnectionState::WriteTraffic(mut traffic)), ..
                        } => {
                            return Ok(write(&mut traffic));
                        }
                        other => advance(other, &mut self.early, &mut self.unsent),
                    }
                }
                Session::Server(session) => {
                    let status = session.process_tls_records(&mut self.partial);
                    match status {
                        UnbufferedStatus {
                            state: Ok(ConnectionState::WriteTraffic(mut traffic)), ..
                        } => {
                            return Ok(write(&mut traffic));
                        }
                        other => advance(other, &mut self.early, &mut self.unsent),
                    }
                }
                Session::InPlace(_) => (Ok(Next::Read), 0),
            };
            let (next, read) = status;
            self.partial.drain(..read);
            match next.map_err(tls_error)? {
                Next::Again | Next::Transmit => {}
                Next::Ended => self.ended = true,
                Next::Read | Next::Traffic => {
                    return Err(io::Error::other("TLS takes no data now; the session is closed"));
                }
            }
        }
    }

    /// Sends the parts in order, behind what is kept already; keeps what the kernel does not take.
    fn send_or_keep(&mut self, cx: &mut Context<'_>, parts: &[&[u8]]) -> io::Result<()> {
        let mut parts = parts.iter().filter(|part| !part.is_empty());
        if self.unsent.is_empty()
            && let Some(first) = parts.clone().next()
            && parts.clone().count() == 1
        {
            let sent = self.try_send(cx, first)?;
            self.unsent.extend_from_slice(&first[sent..]);
            return Ok(());
        }
        // Several parts are rare and all but one of them small.
        parts.by_ref().for_each(|part| self.unsent.extend_from_slice(part));
        match self.poll_flush(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Sends from `bytes`; returns how many the kernel took.
    fn try_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            let result = (&*SockRef::from(&self.socket)).write(&bytes[sent..]);
            match result {
                Ok(len) => sent += len,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => match self.poll_writable(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(err)) => return Err(err),
                    Poll::Pending => return Ok(sent),
                },
                Err(err) => return Err(err),
            }
        }
        Ok(sent)
    }

    /// After the kernel took no more: forgets the readiness that was noted and waits for a new one.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = self.socket.try_io(Interest::WRITABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        self.socket.poll_write_ready(cx)
    }
}

/// What [`WriteTraffic`] does, whichever side we are.
trait Seal {
    fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, EncryptError>;
    fn close_notify(&mut self, out: &mut [u8]) -> Result<usize, EncryptError>;
}

impl Seal for WriteTraffic<'_, ClientConnectionData> {
    fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, EncryptError> {
        self.encrypt(plain, out)
    }

    fn close_notify(&mut self, out: &mut [u8]) -> Result<usize, EncryptError> {
        self.queue_close_notify(out)
    }
}

impl Seal for WriteTraffic<'_, ServerConnectionData> {
    fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, EncryptError> {
        self.encrypt(plain, out)
    }

    fn close_notify(&mut self, out: &mut [u8]) -> Result<usize, EncryptError> {
        self.queue_close_notify(out)
    }
}

/// Acts on one state of rustls; returns what it wants next and how much input is done with.
fn advance<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plain: &mut Vec<u8>,
    unsent: &mut Vec<u8>,
) -> (Result<Next, rustls::Error>, usize) {
    let UnbufferedStatus { mut discard, state } = status;
    let next = match state {
        Err(err) => Err(err),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    plain.extend_from_slice(record.payload);
                    discard += record.discard;
                }
                Some(Err(err)) => break Err(err),
                None => break Ok(Next::Again),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut encode)) => {
            let at = unsent.len();
            // Asking with no room tells the size.
            let size = match encode.encode(&mut []) {
                Err(EncodeError::InsufficientSize(size)) => size.required_size,
                _ => 0,
            };
            unsent.resize(at + size, 0);
            match encode.encode(&mut unsent[at..]) {
                Ok(_) => Ok(Next::Again),
                Err(err) => Err(rustls::Error::General(err.to_string())),
            }
        }
        Ok(ConnectionState::TransmitTlsData(transmit)) => {
            transmit.done();
            Ok(Next::Transmit)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Next::Read),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Next::Traffic),
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Next::Ended),
        // Early data is never enabled; a state of a later rustls cannot be acted on.
        Ok(_) => Err(rustls::Error::General("an unexpected TLS state".into())),
    };
    (next, discard)
}

fn record_error(err: RecordError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, err)
}

fn tls_error(err: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, err)
}

impl Transport for Tls {
    fn poll_receive(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<io::Result<Received>> {
        scratch.plain.clear();
        scratch.parts.clear();
        if !self.early.is_empty() {
            scratch.plain = std::mem::take(&mut self.early);
            return Poll::Ready(Ok(Received { ended: false }));
        }
        if self.ended {
            return Poll::Ready(Ok(Received { ended: true }));
        }
        if std::mem::take(&mut self.unopened) {
            let have = self.partial.len();
            scratch.raw[..have].copy_from_slice(&self.partial);
            self.open(scratch, have)?;
            return Poll::Ready(Ok(Received { ended: self.ended }));
        }
        let have = self.partial.len();
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            scratch.raw[..have].copy_from_slice(&self.partial);
            let mut got = None;
            let space = &mut scratch.raw[have..];
            let room = space.len();
            let result = self.socket.try_io(Interest::READABLE, || {
                let len = (&*SockRef::from(&self.socket)).read(space)?;
                got = Some(len);
                // A short read has emptied the socket: forget the readiness, or the next turn asks the kernel again.
                if len > 0 && len < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (got, result) {
                (Some(0), _) => {
                    self.ended = true;
                    return Poll::Ready(Ok(Received { ended: true }));
                }
                (Some(len), _) => {
                    self.open(scratch, have + len)?;
                    return Poll::Ready(Ok(Received { ended: self.ended }));
                }
                (None, Err(err)) if err.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(err)),
                (None, _) => {}
            }
        }
    }

    fn send(&mut self, cx: &mut Context<'_>, out: Outgoing<'_>, scratch: &mut Scratch) -> io::Result<()> {
        if let Session::InPlace(records) = &mut self.session {
            // Little but DATA is ever sent: it leaves from where it lies, the rest is copied around it.
            let Outgoing { control, records: data, trailing } = out;
            let (before, behind) = (&mut scratch.sealed, &mut scratch.plain);
            before.clear();
            behind.clear();
            if records.update_due() {
                records.update(before).map_err(record_error)?;
            }
            records.copy(control, before).map_err(record_error)?;
            let data: &[u8] = match data {
                Some(data) => data.seal(|record| records.seal(record)).map_err(record_error)?,
                None => &[],
            };
            records.copy(trailing, behind).map_err(record_error)?;
            return self.send_or_keep(cx, &[before, data, behind]);
        }
        let most: usize = out.chunks().map(|chunk| chunk.len() + OVERHEAD).sum();
        let sealed = &mut scratch.sealed;
        if sealed.len() < most {
            sealed.resize(most, 0);
        }
        let end = self.with_traffic(|traffic| {
            let mut end = 0;
            for chunk in out.chunks() {
                end += traffic.seal(chunk, &mut sealed[end..])?;
            }
            Ok::<usize, EncryptError>(end)
        })?;
        let end = end.map_err(|err| io::Error::other(err.to_string()))?;
        self.send_or_keep(cx, &[&sealed[..end]])
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.sent += self.try_send(cx, &self.unsent[self.sent..])?;
        if self.sent < self.unsent.len() {
            return Poll::Pending;
        }
        (self.unsent, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closed {
            self.closed = true;
            let mut alert = [0u8; 128];
            if let Session::InPlace(records) = &mut self.session {
                records.close(&mut self.unsent).map_err(record_error)?;
                return self.poll_close(cx);
            }
            let len = self.with_traffic(|traffic| traffic.close_notify(&mut alert))?;
            let len = len.map_err(|err| io::Error::other(err.to_string()))?;
            self.unsent.extend_from_slice(&alert[..len]);
        }
        ready!(self.poll_flush(cx))?;
        Poll::Ready(SockRef::from(&self.socket).shutdown(std::net::Shutdown::Write))
    }

    fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }
}
