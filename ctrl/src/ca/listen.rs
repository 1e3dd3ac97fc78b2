//! TLS connections for the controller's gRPC server. Handshakes run beside one another, limited in number and time, and
//! so are the connections of one address: a caller that dawdles delays nobody.

mod places;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, Stream, StreamExt, unfold};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use self::places::{Place, Places};

/// Handshakes under way at a time; more wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 512;

/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// How long to pause when the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection whose handshake is done, and its place among those of its address.
#[derive(Debug)]
pub struct Accepted {
    stream: TlsStream<TcpStream>,
    _place: Place,
}

/// Connections whose handshake is done, for `serve_with_incoming`. Never ends, never fails: a bad connection is
/// logged and dropped.
pub fn accept_tls(
    listener: TcpListener,
    config: Arc<ServerConfig>,
) -> impl Stream<Item = io::Result<Accepted>> + Send {
    let acceptor = TlsAcceptor::from(config);
    let state = (listener, acceptor, FuturesUnordered::new(), Arc::<Places>::default());
    unfold(state, |(listener, acceptor, mut handshakes, places)| async move {
        loop {
            tokio::select! {
                Some(done) = handshakes.next() => {
                    if let Some(accepted) = done {
                        return Some((Ok(accepted), (listener, acceptor, handshakes, places)));
                    }
                }
                accepted = listener.accept(), if handshakes.len() < MAX_HANDSHAKES => match accepted {
                    Ok((stream, peer)) => match places.clone().take(peer.ip()) {
                        Some(place) => handshakes.push(shake(acceptor.clone(), stream, place)),
                        None => tracing::debug!(%peer, "the address has as many connections as it may"),
                    },
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    })
}

async fn shake(acceptor: TlsAcceptor, stream: TcpStream, mut place: Place) -> Option<Accepted> {
    let peer = stream.peer_addr().ok();
    let _ = stream.set_nodelay(true); // without it gRPC is slower, not wrong
    match tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            place.shaken();
            Some(Accepted { stream, _place: place })
        }
        Ok(Err(error)) => {
            tracing::info!(?peer, %error, "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::info!(?peer, "TLS handshake took longer than 10 s");
            None
        }
    }
}

impl Connected for Accepted {
    type ConnectInfo = <TlsStream<TcpStream> as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use rustls::server::ResolvesServerCertUsingSni;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpSocket;
    use tokio::time::timeout;

    use super::*;

    /// Nobody gets through, which nobody here wants.
    fn config() -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let resolver = Arc::new(ResolvesServerCertUsingSni::new());
        Arc::new(config.expect("versions").with_no_client_auth().with_cert_resolver(resolver))
    }

    #[tokio::test]
    async fn an_address_whose_handshakes_dawdle_takes_no_places_from_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = listener.local_addr().expect("its address");
        let accepting =
            tokio::spawn(async move { pin!(accept_tls(listener, config())).next().await.is_some() });
        let connect = async |from: &str| {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind(format!("{from}:0").parse().expect("an address")).expect("bound");
            socket.connect(to).await.expect("connected")
        };
        let mut held = Vec::new();
        for _ in 0..places::HANDSHAKES_OF_ADDRESS {
            held.push(connect("127.0.0.2").await);
        }
        let heard = timeout(Duration::from_secs(5), connect("127.0.0.2").await.read(&mut [0])).await;
        assert!(matches!(heard, Ok(Ok(0) | Err(_))), "closed at once: {heard:?}");
        let mut other = connect("127.0.0.3").await;
        // What is no TLS is answered by an alert: somebody attends to it.
        tokio::io::AsyncWriteExt::write_all(&mut other, b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
        let heard = timeout(Duration::from_secs(5), other.read(&mut [0])).await;
        assert!(matches!(heard, Ok(Ok(1))), "{heard:?}");
        drop(held);
        accepting.abort();
    }
}
