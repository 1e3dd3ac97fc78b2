//! The end of a waypoint, and of a tunnel that is not to be used any more, as clients see them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use identity::revocation::RevokedSet;
use testkit::certificates::TestAuthority;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::fixtures::identity;
use super::world::{HTTP, TCP, VIP, World, run};
use crate::http::LocalExecutor;

async fn application(socket: TcpStream, port: u16) {
    if port == 8082 {
        let (mut reader, mut writer) = socket.into_split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        return;
    }
    let service = hyper::service::service_fn(|_| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"here"))))
    });
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
}

/// One request on HTTP/1.1; the answer's head and body.
async fn asked(stream: &mut hbone::tunnel::Stream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"here") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap().to_lowercase()
}

#[test]
fn an_answer_on_http_1_says_that_it_is_the_last() {
    run(async {
        let world = World::new(application).await;
        let mut stream = world.connect(HTTP).await;
        assert!(!asked(&mut stream).await.contains("connection: close"));
        world.waypoint.ending.leave();
        // A request that was on its way is answered, and no client waits for an answer that nobody gives.
        let last = asked(&mut stream).await;
        assert!(last.contains("connection: close"), "{last}");
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    });
}

#[test]
fn a_client_on_http_2_is_told_to_go_and_loses_nothing() {
    run(async {
        let world = World::new(application).await;
        let io = TokioIo::new(world.connect(HTTP).await);
        let (mut sender, connection) = http2::handshake(LocalExecutor, io).await.unwrap();
        let connection = spawn_local(connection);
        let request = || Request::get(format!("http://{VIP}:{HTTP}/")).body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(sender.send_request(request()).await.unwrap().status(), 200);
        let under_way = sender.send_request(request());
        world.waypoint.ending.leave();
        let answer = under_way.await.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(answer, "here");
        connection.await.unwrap().unwrap();
        assert!(sender.is_closed(), "the next request goes over another connection");
    });
}

#[test]
fn a_tunnel_that_comes_late_is_served_and_then_told() {
    run(async {
        let world = World::new(application).await;
        world.waypoint.ending.leave();
        let tunnel = world.tunnel("client").await;
        let opened = tunnel.connect(&format!("{VIP}:{HTTP}"), &hbone::headers::Headers::new()).await;
        let mut stream = opened.unwrap().stream;
        asked(&mut stream).await;
        while tunnel.usable() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(asked(&mut stream).await.contains("connection: close"));
    });
}

/// Whether a tunnel carries what is written on a stream of it back.
async fn carries(stream: &mut hbone::tunnel::Stream) -> bool {
    let mut back = [0; 4];
    stream.write_all(b"ping").await.is_ok()
        && matches!(timeout(Duration::from_secs(5), stream.read_exact(&mut back)).await, Ok(Ok(_)))
}

#[test]
fn tunnels_of_a_revoked_client_end_and_no_others() {
    run(async {
        let world = World::new(application).await;
        let authority = format!("{VIP}:{TCP}");
        let mut revoked = world.connect_as("client", &authority).await.unwrap();
        let mut other = world.connect_as("other", &authority).await.unwrap();
        assert!(carries(&mut revoked).await && carries(&mut other).await);
        let identities = [identity("client")].into();
        world.waypoint.trust.certificates.revoke(RevokedSet { identities, ..RevokedSet::default() });
        let ended = timeout(Duration::from_secs(5), revoked.read(&mut [0])).await.expect("it ends");
        assert!(ended.is_err(), "in order it does not end: {ended:?}");
        assert!(carries(&mut other).await);
        let labels = ["reporter=\"destination\""];
        assert_eq!(world.metric("istio_crl_policy_rejections_total{", &labels), Some(1.0));
    });
}

#[test]
fn tunnels_to_a_revoked_server_end() {
    run(async {
        let world = World::new(application).await;
        let mut stream = world.connect(TCP).await;
        assert!(carries(&mut stream).await);
        let identities = [identity("server")].into();
        world.waypoint.trust.certificates.revoke(RevokedSet { identities, ..RevokedSet::default() });
        let ended = timeout(Duration::from_secs(5), stream.read(&mut [0])).await.expect("it ends");
        assert!(!matches!(ended, Ok(1..)), "{ended:?}");
        let labels = ["reporter=\"source\""];
        assert_eq!(world.metric("istio_crl_policy_rejections_total{", &labels), Some(1.0));
        let refused = world.connect_as("client", &format!("{VIP}:{TCP}")).await;
        assert_eq!(refused.err(), Some(503), "nor is there a new one");
    });
}

#[test]
fn tunnels_of_a_retired_root_are_left() {
    run(async {
        let world = World::new(application).await;
        let tunnel = world.tunnel("client").await;
        let authority = format!("{VIP}:{HTTP}");
        let opened = tunnel.connect(&authority, &hbone::headers::Headers::new()).await;
        let mut stream = opened.unwrap().stream;
        assert!(!asked(&mut stream).await.contains("connection: close"));
        let next = Arc::new(TestAuthority::new("next"));
        world.waypoint.trust.certificates.announce(Some(next.roots()), None).unwrap();
        while tunnel.usable() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // What is asked on it is still answered, and leaves.
        stream.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap().to_lowercase();
        assert!(answer.contains("connection: close"), "{answer}");
    });
}
