//! A connection whose handshake is done. It ends when it has to make room, and when nobody has proved on it in time
//! whose it is.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Extensions;
use tonic::transport::server::Connected;

use super::places::Place;
use crate::ca::authorize::Caller;

/// A connection whose handshake is done, and its place.
#[derive(Debug)]
pub struct Accepted {
    stream: TlsStream<TcpStream>,
    peer: Option<SocketAddr>,
    place: Arc<Place>,
    end: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Until somebody has proved whose it is.
    patience: Option<Pin<Box<Sleep>>>,
}

/// Whose connection a call came on. Every call has it among its extensions.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where from.
    pub address: Option<SocketAddr>,
    place: Weak<Place>,
}

impl Peer {
    /// That of a call; nothing if it came another way.
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// Where a call came from, if that is known.
    pub fn ip_of(extensions: &Extensions) -> Option<IpAddr> {
        Some(Self::of(extensions)?.address?.ip())
    }

    /// The call carried the token of this caller.
    pub fn is(&self, caller: &Caller) {
        if let Some(place) = self.place.upgrade() {
            place.prove(caller);
        }
    }
}

impl Accepted {
    pub(super) fn new(stream: TlsStream<TcpStream>, peer: Option<SocketAddr>, place: Place) -> Self {
        let end = Box::pin(place.end.clone().cancelled_owned());
        let patience = Some(Box::pin(tokio::time::sleep(place.patience())));
        Self { stream, peer, place: Arc::new(place), end, patience }
    }

    /// Whether it has to end. Asked by whatever the transport does: it may be waiting to read or to write.
    fn go_on(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.end.as_mut().poll(cx).is_ready() {
            return Err(io::Error::other("it makes room for other connections"));
        }
        if let Some(patience) = &mut self.patience {
            if self.place.is_proven() {
                self.patience = None;
            } else if patience.as_mut().poll(cx).is_ready() {
                self.place.gives_up();
                self.place.end.cancel();
                self.patience = None;
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "no call with a known token came on it in time",
                ));
            }
        }
        Ok(())
    }
}

impl Connected for Accepted {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer { address: self.peer, place: Arc::downgrade(&self.place) }
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.go_on(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.go_on(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.go_on(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.go_on(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.go_on(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
