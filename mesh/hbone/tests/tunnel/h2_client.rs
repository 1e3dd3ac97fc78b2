//! The h2 crate as the client of our server.

use bytes::Bytes;
use h2::client::SendRequest;
use hbone::headers::Headers;
use hbone::limits::Limits;
use hbone::transport::Plain;
use hbone::tunnel::{self, Gone, Server};
use http::{Method, Request, Response, StatusCode, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::support::{
    account, application, expect_end, expect_pattern, pattern, pipe, run, send_pattern, until,
};

struct Up {
    client: SendRequest<Bytes>,
    h2: JoinHandle<Result<(), h2::Error>>,
    server: Server,
    driver: JoinHandle<Gone>,
}

async fn up(limits: Limits) -> Up {
    let (near, far) = pipe();
    let (server, driver) = tunnel::server(Plain::new(far), limits);
    let driver = tokio::task::spawn_local(driver);
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(4 << 20).initial_connection_window_size(16 << 20);
    let (client, connection) = builder.handshake::<_, Bytes>(near).await.unwrap();
    let h2 = tokio::task::spawn_local(connection);
    Up { client, h2, server, driver }
}

fn connect(authority: &str) -> Request<()> {
    let uri = http::Uri::builder().authority(authority).build().unwrap();
    Request::builder().method(Method::CONNECT).uri(uri).version(Version::HTTP_2).body(()).unwrap()
}

async fn body(response: Response<h2::RecvStream>) -> Vec<u8> {
    let mut stream = response.into_body();
    let mut all = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk.unwrap();
        stream.flow_control().release_capacity(chunk.len()).unwrap();
        all.extend_from_slice(&chunk);
    }
    all
}

async fn send_all(stream: &mut h2::SendStream<Bytes>, mut bytes: Bytes, end: bool) {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
        let now = bytes.split_to(room.min(bytes.len()));
        stream.send_data(now, end && bytes.is_empty()).unwrap();
    }
}

#[test]
fn a_request_is_taken_answered_and_carried() {
    run(async {
        let mut up = up(Limits::default()).await;
        let mut request = connect("10.0.0.7:8080");
        request.headers_mut().insert("baggage", "k8s.namespace.name=a".parse().unwrap());
        let (response, mut send) = up.client.send_request(request, false).unwrap();
        let request = up.server.accept().await.unwrap();
        assert_eq!(request.authority(), "10.0.0.7:8080");
        assert_eq!(request.headers().text("baggage"), Some("k8s.namespace.name=a"));
        assert_eq!((request.connection(), request.resume(), request.capable()), (None, None, false));
        let (mut app, connection) = application(&account()).await;
        let stream = request.accept(&Headers::new().with("baggage", "b"));
        let splice = tokio::task::spawn_local(stream.splice(connection));
        let response = response.await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["baggage"], "b");
        assert!(
            !response.headers().contains_key("lateen-capability"),
            "a foreign peer is told nothing of ours"
        );
        let len = 3_000_000;
        let bytes: Vec<u8> = (0..len).map(|at| pattern(1, at)).collect();
        let out = tokio::task::spawn_local(async move { send_all(&mut send, bytes.into(), true).await });
        let back = tokio::task::spawn_local(body(response));
        expect_pattern(&mut app, 1, 0, len).await;
        expect_end(&mut app).await;
        send_pattern(&mut app, 2, 0, len).await;
        app.shutdown().await.unwrap();
        out.await.unwrap();
        let back = back.await.unwrap();
        assert!(
            back.iter().enumerate().all(|(at, byte)| *byte == pattern(2, at as u64))
                && back.len() as u64 == len
        );
        let finished = splice.await.unwrap();
        assert!(matches!(finished.end, hbone::splice::End::Complete), "{:?}", finished.end);
        assert_eq!((finished.connection.live().sent(), finished.connection.live().received()), (len, len));
    });
}

#[test]
fn what_is_no_connect_is_refused_and_the_connection_lives() {
    run(async {
        let mut up = up(Limits::default()).await;
        let get = Request::get("http://a/").version(Version::HTTP_2).body(()).unwrap();
        let (response, _send) = up.client.send_request(get, true).unwrap();
        assert_eq!(response.await.unwrap().status(), StatusCode::BAD_REQUEST);
        let (response, _send) = up.client.send_request(connect("a:1"), false).unwrap();
        up.server.accept().await.unwrap().refuse(401, &Headers::new().with("lateen-cause", "policy"));
        let response = response.await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.headers()["lateen-cause"], "policy");
        assert!(response.into_body().data().await.is_none());
    });
}

#[test]
fn headers_too_large_for_one_frame_come_in_several() {
    run(async {
        let mut up = up(Limits::default()).await;
        let mut request = connect("a:1");
        let value = "v".repeat(9_000);
        for name in ["one", "two", "three"] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let (_response, _send) = up.client.send_request(request, false).unwrap();
        let request = up.server.accept().await.unwrap();
        assert_eq!(request.headers().text("three"), Some(&*value));
    });
}

#[test]
fn many_small_frames_and_many_resets_end_nothing() {
    // What once ended pooled tunnels elsewhere: thousands of tiny DATA frames, and more than 1,024 resets in one life.
    run(async {
        let mut up = up(Limits { resets_per_second: 100_000, ..Limits::default() }).await;
        let (response, mut send) = up.client.send_request(connect("a:1"), false).unwrap();
        let mut stream = up.server.accept().await.unwrap().accept(&Headers::new());
        response.await.unwrap();
        let reader = tokio::task::spawn_local(async move {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            all.len()
        });
        for _ in 0..20_000 {
            send_all(&mut send, Bytes::from_static(b"x"), false).await;
        }
        send.send_data(Bytes::new(), true).unwrap();
        assert_eq!(reader.await.unwrap(), 20_000);
        for _ in 0..3_000 {
            let mut ready = up.client.clone().ready().await.unwrap();
            let (response, mut send) = ready.send_request(connect("a:1"), false).unwrap();
            let request = up.server.accept().await.unwrap();
            send.send_reset(h2::Reason::CANCEL);
            drop((response, request));
        }
        let mut ready = up.client.clone().ready().await.unwrap();
        let (response, _send) = ready.send_request(connect("a:1"), false).unwrap();
        let _stream = up.server.accept().await.unwrap().accept(&Headers::new());
        assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn a_flood_of_resets_ends_the_connection() {
    run(async {
        let limits = Limits { resets_per_second: 50, ..Limits::default() };
        let hits = limits.hits.clone();
        let mut up = up(limits).await;
        let server = tokio::task::spawn_local(async move { while up.server.accept().await.is_some() {} });
        for _ in 0..200 {
            let Ok(mut ready) = up.client.clone().ready().await else { break };
            let Ok((_response, mut send)) = ready.send_request(connect("a:1"), false) else { break };
            send.send_reset(h2::Reason::CANCEL);
            tokio::task::yield_now().await;
        }
        assert!(matches!(up.driver.await.unwrap(), Gone::Excess(_)));
        assert_eq!(hits.of(hbone::limits::Limit::Resets), 1);
        let err = up.h2.await.unwrap().unwrap_err();
        assert_eq!(err.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM), "{err}");
        server.await.unwrap();
    });
}

#[test]
fn a_stalled_stream_does_not_block_its_neighbours() {
    run(async {
        let mut up = up(Limits::default()).await;
        let account = account();
        let (response, mut stalled) = up.client.send_request(connect("stalled:1"), false).unwrap();
        let (mut sleepy, connection) = application(&account).await;
        let stream = up.server.accept().await.unwrap().accept(&Headers::new());
        tokio::task::spawn_local(async move { drop(stream.splice(connection).await) });
        let _body = response.await.unwrap();
        // Its application does not read: socket buffers fill, then its window, and no more.
        let flood = tokio::task::spawn_local(async move {
            let bytes: Vec<u8> = (0..20_000_000).map(|at| pattern(1, at)).collect();
            send_all(&mut stalled, bytes.into(), true).await;
        });
        for seed in 2..6 {
            let mut ready = up.client.clone().ready().await.unwrap();
            let (response, mut send) = ready.send_request(connect("busy:1"), false).unwrap();
            let (mut app, connection) = application(&account).await;
            let stream = up.server.accept().await.unwrap().accept(&Headers::new());
            tokio::task::spawn_local(async move { drop(stream.splice(connection).await) });
            let _body = response.await.unwrap();
            let bytes: Vec<u8> = (0..5_000_000).map(|at| pattern(seed, at)).collect();
            tokio::task::spawn_local(async move { send_all(&mut send, bytes.into(), true).await });
            expect_pattern(&mut app, seed, 0, 5_000_000).await;
        }
        assert!(!flood.is_finished());
        assert!(
            account.buffered() <= u64::from(Limits::default().stream_window),
            "{} bytes wait",
            account.buffered()
        );
        expect_pattern(&mut sleepy, 1, 0, 20_000_000).await;
        flood.await.unwrap();
    });
}

#[test]
fn a_reset_by_the_client_reaches_the_application() {
    run(async {
        let mut up = up(Limits::default()).await;
        let (response, mut send) = up.client.send_request(connect("a:1"), false).unwrap();
        let (mut app, connection) = application(&account()).await;
        let stream = up.server.accept().await.unwrap().accept(&Headers::new());
        let splice = tokio::task::spawn_local(stream.splice(connection));
        response.await.unwrap();
        send_all(&mut send, Bytes::from_static(b"last words"), false).await;
        let mut words = [0; 10];
        app.read_exact(&mut words).await.unwrap();
        send.send_reset(h2::Reason::CANCEL);
        let finished = splice.await.unwrap();
        assert!(matches!(finished.end, hbone::splice::End::Reset(8)), "{:?}", finished.end);
        drop(finished);
        expect_end(&mut app).await;
    });
}

#[test]
fn what_came_to_its_end_is_delivered_whatever_then_breaks() {
    run(async {
        let (mut up, account) = (up(Limits::default()).await, account());
        let (response, mut send) = up.client.send_request(connect("a:1"), false).unwrap();
        let (mut app, connection) = application(&account).await;
        let live = connection.live().clone();
        let stream = up.server.accept().await.unwrap().accept(&Headers::new());
        let splice = tokio::task::spawn_local(stream.splice(connection));
        response.await.unwrap();
        // More than the sockets take while nobody reads, less than the window.
        let bytes: Vec<u8> = (0..1_000_000).map(|at| pattern(1, at)).collect();
        send_all(&mut send, bytes.into(), true).await;
        // The crate takes back what it has not sent yet.
        until("all has come", || live.received() + account.buffered() == 1_000_000).await;
        send.send_reset(h2::Reason::CONNECT_ERROR);
        expect_pattern(&mut app, 1, 0, 1_000_000).await;
        let finished = splice.await.unwrap();
        assert!(matches!(finished.end, hbone::splice::End::Reset(10)), "{:?}", finished.end);
        finished.close();
        expect_end(&mut app).await;
    });
}

#[test]
fn what_breaks_before_its_end_is_no_end_to_the_application() {
    for (reason, in_order) in [(h2::Reason::INTERNAL_ERROR, false), (h2::Reason::CANCEL, true)] {
        run(async move {
            let mut up = up(Limits::default()).await;
            let (response, mut send) = up.client.send_request(connect("a:1"), false).unwrap();
            let (mut app, connection) = application(&account()).await;
            let stream = up.server.accept().await.unwrap().accept(&Headers::new());
            let splice = tokio::task::spawn_local(stream.splice(connection));
            response.await.unwrap();
            send_all(&mut send, Bytes::from_static(b"half a word"), false).await;
            app.read_exact(&mut [0; 11]).await.unwrap();
            send.send_reset(reason);
            splice.await.unwrap().close();
            match app.read(&mut [0]).await {
                Ok(0) => assert!(in_order, "{reason}: a broken connection looks whole"),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => assert!(!in_order),
                other => panic!("{reason}: {other:?}"),
            }
        });
    }
}

#[test]
fn a_cut_is_no_end_to_a_peer_that_hears_no_cause() {
    run(async {
        let mut up = up(Limits::default()).await;
        let (response, _send) = up.client.send_request(connect("a:1"), false).unwrap();
        let (_app, connection) = application(&account()).await;
        let live = connection.live().clone();
        let stream = up.server.accept().await.unwrap().accept(&Headers::new());
        let splice = tokio::task::spawn_local(stream.splice(connection));
        let mut body = response.await.unwrap().into_body();
        live.cut("AuthorizationPolicy test/deny rule 0");
        let error = body.data().await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::CONNECT_ERROR));
        assert!(matches!(splice.await.unwrap().end, hbone::splice::End::Cut(_)));
    });
}

#[test]
fn a_foreign_client_of_a_drained_server_has_one_request() {
    run(async {
        let mut up = up(Limits::default()).await;
        up.server.drain();
        let (response, send) = up.client.send_request(connect("a:1"), false).unwrap();
        let stream = up.server.accept().await.unwrap().accept(&Headers::new());
        assert_eq!(response.await.unwrap().status(), 200);
        // It has shown that it knows of no control stream: now it is told.
        while up.client.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
        drop((stream, send));
        assert!(up.server.accept().await.is_none());
    });
}

#[test]
fn a_drained_server_finishes_what_is_open() {
    run(async {
        let mut up = up(Limits::default()).await;
        let (response, mut send) = up.client.send_request(connect("a:1"), false).unwrap();
        let mut stream = up.server.accept().await.unwrap().accept(&Headers::new());
        let response = response.await.unwrap();
        up.server.drain();
        while up.client.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
        send_all(&mut send, Bytes::from_static(b"still here"), true).await;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        stream.write_all(b"so am I").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!((text.as_str(), &body(response).await[..]), ("still here", &b"so am I"[..]));
        drop((stream, send));
        assert!(up.server.accept().await.is_none());
        assert_eq!(up.driver.await.unwrap(), Gone::Closed);
        up.h2.await.unwrap().unwrap();
    });
}
