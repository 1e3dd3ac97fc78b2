//! TLS connections for the controller's gRPC server. Handshakes run beside one another, limited in number and time:
//! a caller that dawdles delays nobody.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, Stream, StreamExt, unfold};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Handshakes under way at a time; more wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 512;

/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// How long to pause when the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections whose handshake is done, for `serve_with_incoming`. Never ends, never fails: a bad connection is
/// logged and dropped.
pub fn accept_tls(
    listener: TcpListener,
    config: Arc<ServerConfig>,
) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> + Send {
    let acceptor = TlsAcceptor::from(config);
    unfold((listener, acceptor, FuturesUnordered::new()), |(listener, acceptor, mut handshakes)| async move {
        loop {
            tokio::select! {
                Some(done) = handshakes.next() => {
                    if let Some(stream) = done {
                        return Some((Ok(stream), (listener, acceptor, handshakes)));
                    }
                }
                accepted = listener.accept(), if handshakes.len() < MAX_HANDSHAKES => match accepted {
                    Ok((stream, _)) => handshakes.push(shake(acceptor.clone(), stream)),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    })
}

async fn shake(acceptor: TlsAcceptor, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
    let peer = stream.peer_addr().ok();
    let _ = stream.set_nodelay(true); // without it gRPC is slower, not wrong
    match tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
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
