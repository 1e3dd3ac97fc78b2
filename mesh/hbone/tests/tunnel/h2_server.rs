//! Our client against the h2 crate as the server.

use bytes::Bytes;
use hbone::connection::Connection;
use hbone::headers::Headers;
use hbone::limits::Limits;
use hbone::splice::End;
use hbone::transport::Plain;
use hbone::tunnel::{self, Client, ConnectError, Gone};
use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

use crate::support::{account, application, expect_end, expect_pattern, pattern, pipe, run, send_pattern};

type H2 = h2::server::Connection<DuplexStream, Bytes>;

async fn up(builder: &mut h2::server::Builder) -> (Client, JoinHandle<Gone>, H2) {
    let (near, far) = pipe();
    let (client, driver) = tunnel::client(Plain::new(near), Limits::default());
    let driver = tokio::task::spawn_local(driver);
    (client, driver, builder.handshake(far).await.unwrap())
}

/// Answers every CONNECT by echoing its body, with windows as the peer has set them.
async fn echo(mut h2: H2) -> Vec<Request<()>> {
    let mut seen = Vec::new();
    while let Some(Ok((request, mut respond))) = h2.accept().await {
        let (head, mut body) = request.into_parts();
        assert_eq!(head.method, Method::CONNECT);
        seen.push(Request::from_parts(head, ()));
        tokio::task::spawn_local(async move {
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            while let Some(Ok(mut chunk)) = body.data().await {
                body.flow_control().release_capacity(chunk.len()).unwrap();
                while !chunk.is_empty() {
                    send.reserve_capacity(chunk.len());
                    let room = std::future::poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap();
                    send.send_data(chunk.split_to(room.min(chunk.len())), false).unwrap();
                }
            }
            // A client that has dropped the stream does not hear it any more.
            let _ = send.send_data(Bytes::new(), true);
        });
    }
    seen
}

async fn splice(client: &Client, connection: Connection) -> JoinHandle<hbone::splice::Finished> {
    let opened = client.connect("10.0.0.9:80", &Headers::new().with("baggage", "x=y")).await.unwrap();
    assert!(!opened.capable && !client.capable());
    tokio::task::spawn_local(opened.stream.splice(connection))
}

#[test]
fn many_connections_are_echoed_byte_for_byte() {
    run(async {
        let (client, driver, h2) = up(&mut h2::server::Builder::new()).await;
        let server = tokio::task::spawn_local(echo(h2));
        let account = account();
        let mut all = Vec::new();
        for seed in 1..=8u64 {
            let (app, connection) = application(&account).await;
            let splice = splice(&client, connection).await;
            all.push(tokio::task::spawn_local(async move {
                let (mut read, mut write) = app.into_split();
                let len = 300_000 * seed;
                let sender = tokio::task::spawn_local(async move {
                    send_pattern(&mut write, seed, 0, len).await;
                    write.shutdown().await.unwrap();
                });
                expect_pattern(&mut read, seed, 0, len).await;
                expect_end(&mut read).await;
                sender.await.unwrap();
                let finished = splice.await.unwrap();
                assert!(matches!(finished.end, End::Complete), "{:?}", finished.end);
            }));
        }
        for each in all {
            each.await.unwrap();
        }
        assert_eq!((account.connections(), account.buffered()), (0, 0));
        drop(client);
        assert_eq!(driver.await.unwrap(), Gone::Closed);
        let seen = server.await.unwrap();
        assert_eq!(seen.len(), 8, "no control stream was opened to a foreign peer");
        assert_eq!(seen[0].uri().authority().unwrap(), "10.0.0.9:80");
        assert_eq!(seen[0].headers()["baggage"], "x=y");
    });
}

#[test]
fn small_windows_only_slow_it_down() {
    run(async {
        let mut builder = h2::server::Builder::new();
        builder.initial_window_size(1000).initial_connection_window_size(70_000).max_frame_size(16_384);
        let (client, _driver, h2) = up(&mut builder).await;
        tokio::task::spawn_local(echo(h2));
        let (app, connection) = application(&account()).await;
        let splice = splice(&client, connection).await;
        let (mut read, mut write) = app.into_split();
        tokio::task::spawn_local(async move {
            send_pattern(&mut write, 3, 0, 400_000).await;
            write.shutdown().await.unwrap();
        });
        expect_pattern(&mut read, 3, 0, 400_000).await;
        expect_end(&mut read).await;
        assert!(matches!(splice.await.unwrap().end, End::Complete));
    });
}

#[test]
fn refusals_and_resets_have_their_reasons() {
    run(async {
        let (client, _driver, mut h2) = up(&mut h2::server::Builder::new()).await;
        tokio::task::spawn_local(async move {
            let mut n = 0;
            while let Some(Ok((_request, mut respond))) = h2.accept().await {
                n += 1;
                match n {
                    1 => {
                        let refusal = Response::builder().status(StatusCode::UNAUTHORIZED).header("x", "y");
                        drop(respond.send_response(refusal.body(()).unwrap(), true));
                    }
                    2 => respond.send_reset(h2::Reason::INTERNAL_ERROR),
                    _ => respond.send_reset(h2::Reason::REFUSED_STREAM),
                }
            }
        });
        let err = client.connect("a:1", &Headers::new()).await.unwrap_err();
        let ConnectError::Refused { status: 401, headers } = err else { panic!("{err}") };
        assert_eq!(headers.text("x"), Some("y"));
        let err = client.connect("a:1", &Headers::new()).await.unwrap_err();
        assert!(matches!(err, ConnectError::Reset(2)), "{err}");
        let err = client.connect("a:1", &Headers::new()).await.unwrap_err();
        assert!(matches!(err, ConnectError::TunnelGone { unseen: true, .. }), "{err}");
        assert_eq!(client.streams(), 0);
    });
}

#[test]
fn the_servers_limit_of_streams_is_kept() {
    run(async {
        let (client, _driver, h2) = up(h2::server::Builder::new().max_concurrent_streams(2)).await;
        tokio::task::spawn_local(echo(h2));
        let first = client.connect("a:1", &Headers::new()).await.unwrap();
        let second = client.connect("a:1", &Headers::new()).await.unwrap();
        assert_eq!(client.capacity(), 0);
        assert!(matches!(
            client.connect("a:1", &Headers::new()).await.unwrap_err(),
            ConnectError::AtCapacity
        ));
        drop(first);
        assert_eq!(client.capacity(), 1);
        client.connect("a:1", &Headers::new()).await.unwrap();
        drop(second);
    });
}

#[test]
fn a_large_request_is_continued() {
    run(async {
        let mut builder = h2::server::Builder::new();
        builder.max_header_list_size(200_000);
        let (client, _driver, h2) = up(&mut builder).await;
        let server = tokio::task::spawn_local(echo(h2));
        let long = "b".repeat(40_000);
        client.connect("a:1", &Headers::new().with("long", &long)).await.unwrap();
        drop(client);
        assert_eq!(server.await.unwrap()[0].headers()["long"], long.as_str());
    });
}

#[test]
fn a_goaway_stops_new_streams_and_leaves_the_old() {
    run(async {
        let (client, driver, mut h2) = up(&mut h2::server::Builder::new()).await;
        let (drain, drained) = tokio::sync::oneshot::channel::<()>();
        tokio::task::spawn_local(async move {
            let (request, mut respond) = h2.accept().await.unwrap().unwrap();
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            tokio::task::spawn_local(async move {
                drained.await.unwrap();
                let mut body = request.into_body();
                let chunk = body.data().await.unwrap().unwrap();
                send.send_data(chunk, true).unwrap();
                while body.data().await.is_some() {}
            });
            h2.graceful_shutdown();
            while h2.accept().await.is_some() {}
        });
        let mut opened = client.connect("a:1", &Headers::new()).await.unwrap();
        crate::support::until("the tunnel drains", || !client.usable()).await;
        let err = client.connect("a:1", &Headers::new()).await.unwrap_err();
        assert!(matches!(err, ConnectError::TunnelGone { unseen: true, .. }), "{err}");
        drain.send(()).unwrap();
        opened.stream.write_all(b"going").await.unwrap();
        opened.stream.shutdown().await.unwrap();
        let mut text = String::new();
        opened.stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "going");
        drop(opened);
        assert!(matches!(driver.await.unwrap(), Gone::Closed | Gone::ByPeer(0)));
    });
}

#[test]
fn a_broken_application_is_a_reset_for_the_peer() {
    run(async {
        let (client, _driver, mut h2) = up(&mut h2::server::Builder::new()).await;
        let (tell, told) = tokio::sync::oneshot::channel();
        tokio::task::spawn_local(async move {
            let (request, mut respond) = h2.accept().await.unwrap().unwrap();
            let send = respond.send_response(Response::new(()), false).unwrap();
            tokio::task::spawn_local(async move {
                let mut body = request.into_body();
                let end = loop {
                    match body.data().await {
                        Some(Ok(_)) => {}
                        other => break other,
                    }
                };
                tell.send(end.map(|end| end.unwrap_err().reason())).unwrap();
                drop(send);
            });
            while h2.accept().await.is_some() {}
        });
        let (app, connection) = application(&account()).await;
        let splice = splice(&client, connection).await;
        let _: () = socket2::SockRef::from(&app).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(app);
        let finished = splice.await.unwrap();
        assert!(matches!(finished.end, End::Application(_)), "{:?}", finished.end);
        drop(finished);
        assert_eq!(told.await.unwrap(), Some(Some(h2::Reason::CONNECT_ERROR)));
    });
}

#[test]
fn large_frames_from_the_peer_are_streamed() {
    run(async {
        // h2 fills frames up to what our SETTINGS allow: 1 MiB, far above any buffer of ours.
        let (client, _driver, mut h2) = up(&mut h2::server::Builder::new()).await;
        tokio::task::spawn_local(async move {
            let (_request, mut respond) = h2.accept().await.unwrap().unwrap();
            tokio::task::spawn_local(async move {
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                let mut bytes: Bytes = (0..5_000_000).map(|at| pattern(9, at)).collect::<Vec<u8>>().into();
                while !bytes.is_empty() {
                    send.reserve_capacity(bytes.len());
                    let room = std::future::poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap();
                    let now = bytes.split_to(room.min(bytes.len()));
                    send.send_data(now, bytes.is_empty()).unwrap();
                }
            });
            while h2.accept().await.is_some() {}
        });
        let (mut app, connection) = application(&account()).await;
        let _splice = splice(&client, connection).await;
        expect_pattern(&mut app, 9, 0, 5_000_000).await;
        expect_end(&mut app).await;
    });
}
