//! TLS connections for the controller's gRPC server. Handshakes run beside one another, limited in number and time, and
//! so are connections: of all, of one address, of one caller, and those that prove nothing. One that dawdles delays
//! nobody: it is the one that ends when there is no room.

mod connection;
mod places;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, Stream, StreamExt, unfold};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

pub use self::connection::{Accepted, Peer};
pub use self::places::Bounds;
use self::places::{Place, Places};
use crate::limits::Limits;

/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// How long to pause when the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Shaking = Pin<Box<dyn Future<Output = Option<Accepted>> + Send>>;

/// Connections whose handshake is done, for `serve_with_incoming`. Never ends, never fails: a bad connection is
/// logged and dropped.
pub fn accept_tls(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    bounds: Bounds,
    limits: Limits,
) -> impl Stream<Item = io::Result<Accepted>> + Send {
    let acceptor = TlsAcceptor::from(config);
    let handshakes = FuturesUnordered::<Shaking>::new();
    let state = (listener, acceptor, handshakes, Places::new(bounds, limits));
    unfold(state, |(listener, acceptor, mut handshakes, places)| async move {
        loop {
            tokio::select! {
                Some(done) = handshakes.next() => {
                    if let Some(accepted) = done {
                        return Some((Ok(accepted), (listener, acceptor, handshakes, places)));
                    }
                }
                // Always: who dawdles makes room for who comes.
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => match places.take(peer.ip()) {
                        Some(place) => handshakes.push(Box::pin(shake(acceptor.clone(), stream, place))),
                        None => tracing::debug!(%peer, "there are as many connections as there may be"),
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

async fn shake(acceptor: TlsAcceptor, stream: TcpStream, place: Place) -> Option<Accepted> {
    let peer = stream.peer_addr().ok();
    let _ = stream.set_nodelay(true); // without it gRPC is slower, not wrong
    let end = place.end.clone();
    let shaken = tokio::select! {
        biased;
        () = end.cancelled() => return None,
        shaken = tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(stream)) => shaken,
    };
    match shaken {
        Ok(Ok(stream)) => {
            place.shaken();
            Some(Accepted::new(stream, peer, place))
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

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use rustls::server::ResolvesServerCertUsingSni;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpSocket;
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::*;

    /// Nobody gets through, which nobody here wants.
    fn config() -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let resolver = Arc::new(ResolvesServerCertUsingSni::new());
        Arc::new(config.expect("versions").with_no_client_auth().with_cert_resolver(resolver))
    }

    /// A listener, whose bounds these are.
    async fn listen(bounds: Bounds) -> (impl AsyncFn(&str) -> TcpStream, JoinHandle<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = listener.local_addr().expect("its address");
        let accepting = accept_tls(listener, config(), bounds, Limits::default());
        let accepting = tokio::spawn(async move { pin!(accepting).next().await.is_some() });
        let connect = async move |from: &str| {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind(format!("{from}:0").parse().expect("an address")).expect("bound");
            socket.connect(to).await.expect("connected")
        };
        (connect, accepting)
    }

    /// What is no TLS is answered by an alert: somebody attends to it.
    async fn is_attended_to(stream: &mut TcpStream) {
        tokio::io::AsyncWriteExt::write_all(stream, b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
        let heard = timeout(Duration::from_secs(5), stream.read(&mut [0])).await;
        assert!(matches!(heard, Ok(Ok(1))), "{heard:?}");
    }

    #[tokio::test]
    async fn an_address_whose_handshakes_dawdle_takes_no_places_from_others_nor_from_itself() {
        let (connect, accepting) = listen(Bounds::default()).await;
        let mut held = Vec::new();
        for _ in 0..=Bounds::default().handshakes_of_address {
            held.push(connect("127.0.0.2").await);
        }
        let heard = timeout(Duration::from_secs(5), held[0].read(&mut [0])).await;
        assert!(matches!(heard, Ok(Ok(0) | Err(_))), "the oldest is closed: {heard:?}");
        for from in ["127.0.0.2", "127.0.0.3"] {
            is_attended_to(&mut connect(from).await).await;
        }
        drop(held);
        accepting.abort();
    }

    #[tokio::test]
    async fn handshakes_of_many_addresses_that_dawdle_delay_nobody() {
        let bounds = Bounds { handshakes: 64, ..Bounds::default() };
        let (connect, accepting) = listen(bounds).await;
        let mut held = Vec::new();
        for number in 0..2 * bounds.handshakes {
            held.push(connect(&format!("127.0.1.{}", 1 + number % 16)).await);
        }
        // Sooner than any of them has used up its time.
        is_attended_to(&mut connect("127.0.0.3").await).await;
        drop(held);
        accepting.abort();
    }
}
