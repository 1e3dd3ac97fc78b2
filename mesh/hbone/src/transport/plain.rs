//! A byte stream without TLS: in-memory pipes and plain sockets.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::scratch::Scratch;
use super::{Outgoing, Received, Transport};

/// No TLS: an in-memory duplex or a plain socket, for tests and for hops that are encrypted below.
#[derive(Debug)]
pub struct Plain<S> {
    io: S,
    unsent: Vec<u8>,
    sent: usize,
}

impl<S> Plain<S> {
    /// Wraps a byte stream.
    pub fn new(io: S) -> Self {
        Self { io, unsent: Vec::new(), sent: 0 }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Transport for Plain<S> {
    fn poll_receive(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<io::Result<Received>> {
        let mut buffer = ReadBuf::new(&mut scratch.raw);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        let len = buffer.filled().len();
        scratch.plain.clear();
        scratch.parts.clear();
        scratch.parts.push(0..len);
        Poll::Ready(Ok(Received { ended: len == 0 }))
    }

    fn send(&mut self, cx: &mut Context<'_>, out: Outgoing<'_>, _scratch: &mut Scratch) -> io::Result<()> {
        for chunk in out.chunks() {
            self.unsent.extend_from_slice(chunk);
        }
        match self.poll_flush(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &self.unsent[self.sent..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        (self.unsent, self.sent) = (Vec::new(), 0);
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        &[]
    }
}
