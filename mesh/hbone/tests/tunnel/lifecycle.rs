//! How tunnels end, on a clock that jumps: keepalive, draining, dropping, hostile peers.

use std::time::Duration;

use hbone::headers::Headers;
use hbone::limits::Limits;
use hbone::transport::Plain;
use hbone::tunnel::{self, ConnectError, Gone};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::support::{connect, pair, run_paused};

#[test]
fn a_silent_peer_is_given_up_after_ping_and_patience() {
    run_paused(async {
        let (near, _far) = tokio::io::duplex(1 << 20);
        let limits = Limits::default();
        let (client, driver) = tunnel::client(Plain::new(near), limits.clone());
        let began = Instant::now();
        let held = client.clone();
        let connect = tokio::task::spawn_local(async move { held.connect("a:1", &Headers::new()).await });
        assert_eq!(driver.await, Gone::Silent);
        assert_eq!(began.elapsed().as_secs(), 30, "10 s of silence, then 20 s for the answer");
        assert_eq!(limits.hits.of(hbone::limits::Limit::KeepaliveTime), 1);
        // The CONNECT itself has run into its own, shorter limit.
        assert!(matches!(connect.await.unwrap().unwrap_err(), ConnectError::Timeout));
    });
}

#[test]
fn two_idle_ends_keep_each_other_alive() {
    run_paused(async {
        let (client, mut server) = pair(&Limits::default());
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(client.usable());
        let (opened, _stream) =
            tokio::join!(connect(&client), async { server.accept().await.unwrap().accept(&Headers::new()) });
        let _opened = opened.unwrap();
        assert_eq!(client.idle_since(), None);
    });
}

#[test]
fn a_client_nobody_holds_closes_in_order() {
    run_paused(async {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (client, client_driver) = tunnel::client(Plain::new(near), Limits::default());
        let (mut server, server_driver) = tunnel::server(Plain::new(far), Limits::default());
        let client_driver = tokio::task::spawn_local(client_driver);
        let server_driver = tokio::task::spawn_local(server_driver);
        let (opened, mut stream) =
            tokio::join!(connect(&client), async { server.accept().await.unwrap().accept(&Headers::new()) });
        let mut opened = opened.unwrap();
        drop(client);
        // A stream that is open still works.
        opened.stream.write_all(b"on").await.unwrap();
        opened.stream.shutdown().await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(opened.stream.read(&mut [0]).await.unwrap(), 0);
        drop((opened, stream));
        assert_eq!(client_driver.await.unwrap(), Gone::Closed);
        assert!(server.accept().await.is_none());
        assert!(matches!(server_driver.await.unwrap(), Gone::Closed | Gone::ByPeer(0)));
    });
}

#[test]
fn a_dropped_server_handle_finishes_what_is_open_and_takes_no_more() {
    run_paused(async {
        let (client, mut server) = pair(&Limits::default());
        let (opened, mut stream) =
            tokio::join!(connect(&client), async { server.accept().await.unwrap().accept(&Headers::new()) });
        let mut opened = opened.unwrap();
        drop(server);
        let err = client.connect("a:1", &Headers::new()).await.unwrap_err();
        assert!(matches!(err, ConnectError::TunnelGone { unseen: true, .. }), "{err:?}");
        stream.write_all(b"bye").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut text = String::new();
        opened.stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "bye");
    });
}

#[test]
fn close_and_drop_end_everything_at_once() {
    run_paused(async {
        let (client, mut server) = pair(&Limits::default());
        let (opened, mut stream) =
            tokio::join!(connect(&client), async { server.accept().await.unwrap().accept(&Headers::new()) });
        let mut opened = opened.unwrap();
        client.close();
        assert!(opened.stream.read(&mut [0]).await.is_err());
        assert!(stream.read(&mut [0]).await.is_err());
        assert!(server.accept().await.is_none());

        let (near, _far) = tokio::io::duplex(1 << 20);
        let (client, driver) = tunnel::client(Plain::new(near), Limits::default());
        drop(driver);
        let err = client.connect("a:1", &Headers::new()).await.unwrap_err();
        assert!(matches!(err, ConnectError::TunnelGone { why: Gone::Aborted, .. }), "{err:?}");
    });
}

#[test]
fn a_peer_that_speaks_something_else_is_told_and_left() {
    run_paused(async {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (mut server, driver) = tunnel::server(Plain::new(near), Limits::default());
        let driver = tokio::task::spawn_local(driver);
        far.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(server.accept().await.is_none());
        let mut said = Vec::new();
        far.read_to_end(&mut said).await.unwrap();
        assert!(said.windows(14).any(|text| text == b"this is not HT"), "the GOAWAY says what was wrong");
        drop(far);
        assert!(matches!(driver.await.unwrap(), Gone::Protocol(_)));
    });
}

#[test]
fn a_peer_that_hangs_up_ends_the_streams() {
    run_paused(async {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (client, driver) = tunnel::client(Plain::new(near), Limits::default());
        let driver = tokio::task::spawn_local(driver);
        let connect = tokio::task::spawn_local(async move { client.connect("a:1", &Headers::new()).await });
        tokio::task::yield_now().await;
        drop(far);
        let err = connect.await.unwrap().unwrap_err();
        assert!(matches!(err, ConnectError::TunnelGone { unseen: false, .. }), "{err:?}");
        assert!(matches!(driver.await.unwrap(), Gone::ByPeer(0) | Gone::Io(_)));
    });
}

#[test]
fn a_peer_that_asks_and_does_not_read_is_left() {
    run_paused(async {
        let (near, mut far) = tokio::io::duplex(4096);
        let limits = Limits { pings_per_second: 1_000_000, ..Limits::default() };
        let (mut server, driver) = tunnel::server(Plain::new(near), limits);
        let driver = tokio::task::spawn_local(driver);
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        let ping = b"\0\0\x08\x06\0\0\0\0\0pingpong";
        hello.extend(std::iter::repeat_n(&ping[..], 40_000).flatten());
        let flood = tokio::task::spawn_local(async move {
            let _ = far.write_all(&hello).await;
            far
        });
        assert!(server.accept().await.is_none());
        drop(flood);
        assert!(matches!(driver.await.unwrap(), Gone::Excess(text) if text.contains("does not read")));
    });
}
