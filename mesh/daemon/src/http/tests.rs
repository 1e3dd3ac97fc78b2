//! Requests as they are read, routes as they are found, and clients that would keep others out.

use super::*;

fn call(query: &str) -> Call {
    Call {
        method: Method::GET,
        path: "/".into(),
        query: query.into(),
        accept: String::new(),
        body: Bytes::new(),
    }
}

#[test]
fn reads_parameters() {
    assert_eq!(
        call("a=1&level=info%2Caccess%3Ddebug").parameter("level").as_deref(),
        Some("info,access=debug")
    );
    assert_eq!(call("reset").parameter("reset").as_deref(), Some(""));
    assert_eq!(call("a=%zz+%4").parameter("a").as_deref(), Some("%zz %4"));
    assert_eq!(call("a=%+f%-1").parameter("a").as_deref(), Some("% f%-1"));
    assert_eq!(call("").parameter("a"), None);
}

#[test]
fn finds_routes() {
    let handler = |_| async { Answer::text(200, "") };
    let routes =
        Routes::default().on(Method::GET, "/objects/", handler).on(Method::POST, "/logging", handler);
    assert!(routes.find(&Method::GET, "/objects/Pod").is_ok());
    assert_eq!(routes.find(&Method::GET, "/logging").err(), Some(StatusCode::METHOD_NOT_ALLOWED));
    assert_eq!(routes.find(&Method::GET, "/nothing").err(), Some(StatusCode::NOT_FOUND));
}

/// Each of those who hold a place by sending nothing more is let go, and the next one is served.
#[tokio::test(start_paused = true)]
async fn dawdlers_do_not_keep_others_out() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let routes = Routes::default().on(Method::POST, "/", |_| async { Answer::text(200, "served") });
    let server = tokio::spawn(serve_unix(&path, routes).unwrap());
    let mut dawdlers = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut dawdler = UnixStream::connect(&path).await.unwrap();
        dawdler.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nab").await.unwrap();
        dawdlers.push(dawdler);
    }
    let mut client = UnixStream::connect(&path).await.unwrap();
    let request = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("served"), "{answer}");
    server.abort();
}

/// Who takes all places and keeps them by sending nothing more keeps neither a probe nor this machine out, and who asks has
/// one answer a connection.
#[tokio::test]
async fn who_takes_all_places_keeps_nobody_out() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpSocket;

    use super::places::{MAX_FROM_ELSEWHERE, MAX_OF_ADDRESS};
    let routes = Routes::default().on(Method::GET, "/ready", |_| async { Answer::text(200, "ready") });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let _serving = tokio::spawn(serve_tcp(listener, routes));
    let connect = async |from: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        socket.connect(to).await.unwrap()
    };
    let ask = async |from: &str| {
        let mut stream = connect(from).await;
        let _ = stream.write_all(b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut answer = String::new();
        let heard = timeout(Duration::from_secs(2), stream.read_to_string(&mut answer)).await;
        heard.expect("an answer, and the end").is_ok_and(|_| answer.ends_with("\r\n\r\nready"))
    };
    let mut held = Vec::new();
    for address in 2..2 + MAX_FROM_ELSEWHERE / MAX_OF_ADDRESS {
        for _ in 0..MAX_OF_ADDRESS {
            let mut stream = connect(&format!("127.0.0.{address}")).await;
            stream.write_all(b"GET /ready").await.unwrap();
            held.push(stream);
        }
    }
    for from in ["127.0.0.99", "127.0.0.1", "127.0.0.2", "127.0.0.98"] {
        assert!(ask(from).await, "{from} is served");
    }
    let ends = timeout(Duration::from_secs(2), held[0].read(&mut [0])).await;
    assert!(matches!(ends, Ok(Ok(0) | Err(_))), "the oldest has made room: {ends:?}");
    let last = held.last_mut().expect("it is held");
    assert!(timeout(Duration::from_millis(100), last.read(&mut [0])).await.is_err(), "the newest has not");
}
