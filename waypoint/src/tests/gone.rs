//! Clients that go away while they are being answered: their requests go with them.

use std::cell::Cell;
use std::future::pending;
use std::time::Duration;

use hbone::headers::Headers;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::world::{HTTP, VIP, World, run};

thread_local! {
    /// Requests that the application has read the heads of.
    static ASKED: Cell<u32> = const { Cell::new(0) };
    /// Those of which it was told that nobody waits for the answer.
    static LEFT: Cell<u32> = const { Cell::new(0) };
}

/// Begins to answer `/half`, reads nothing of what is posted, and has no answer for anything else.
async fn application(mut socket: TcpStream, _port: u16) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = socket.read_u8().await else { return };
        head.push(byte);
    }
    ASKED.set(ASKED.get() + 1);
    if head.starts_with(b"POST") {
        return pending().await;
    }
    if head.starts_with(b"GET /half") {
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
    }
    let _ = socket.read_to_end(&mut head).await;
    LEFT.set(LEFT.get() + 1);
}

/// How a client goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goes {
    /// It ends its half, as who closes its socket does.
    Ends,
    /// It needs no more.
    Cancels,
    /// Its application's connection broke.
    Breaks,
    /// All of its tunnel is gone.
    WithTunnel,
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let patience = async {
        while !done() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(timeout(Duration::from_secs(5), patience).await.is_ok(), "never: {what}");
}

#[test]
fn a_request_is_taken_back_when_its_client_goes() {
    use Goes::{Breaks, Cancels, Ends, WithTunnel};
    run(async {
        let world = World::new(application).await;
        // Of what is not read nobody sees that its end has come.
        let rows: [(&str, &str, &[Goes]); 3] = [
            ("GET /never", "0", &[Ends, Cancels, Breaks, WithTunnel]),
            ("GET /half", "200", &[Ends, Cancels, Breaks, WithTunnel]),
            ("POST /", "0", &[Cancels, Breaks, WithTunnel]),
        ];
        let taken_back = |code: &str| {
            let code = format!("response_code=\"{code}\"");
            world.metric("istio_requests_total{", &["response_flags=\"DC\"", &code]).unwrap_or_default()
        };
        for (request, code, ways) in rows {
            for goes in ways {
                let what = format!("{request} {goes:?}");
                let (asked, left, before) = (ASKED.get(), LEFT.get(), taken_back(code));
                let client = world.tunnel("client").await;
                let opened = client.connect(&format!("{VIP}:{HTTP}"), &Headers::new()).await.unwrap();
                let mut stream = opened.stream;
                let head = format!("{request} HTTP/1.1\r\nhost: h\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                if code == "200" {
                    stream.write_all(b"\r\n").await.unwrap();
                    while stream.read_u8().await.unwrap() != b'f' {}
                } else if request.starts_with("GET") {
                    stream.write_all(b"\r\n").await.unwrap();
                } else {
                    stream.write_all(b"content-length: 1000000000\r\n\r\n").await.unwrap();
                    // Until nobody takes any more of it.
                    let some = vec![b'x'; 64 << 10];
                    while timeout(Duration::from_millis(200), stream.write_all(&some)).await.is_ok() {}
                }
                until(&what, || ASKED.get() > asked).await;
                assert_eq!((LEFT.get(), taken_back(code)), (left, before), "{what}");
                match goes {
                    Ends => stream.shutdown().await.unwrap(),
                    Cancels => drop(stream),
                    Breaks => stream.break_off(),
                    WithTunnel => client.close(),
                }
                until(&what, || taken_back(code) > before).await;
                if request.starts_with("GET") {
                    until(&what, || LEFT.get() > left).await;
                }
            }
        }
    });
}

/// Who goes when it has its answer has lost nothing.
#[test]
fn a_client_that_goes_with_its_answer_is_none_that_left() {
    run(async {
        let world = World::new(super::requests::application).await;
        let mut stream = world.connect(HTTP).await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        stream.read_u8().await.unwrap();
        while timeout(Duration::from_millis(100), stream.read_u8()).await.is_ok() {}
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(world.metric("istio_requests_total{", &["response_flags=\"-\""]), Some(1.0));
        assert_eq!(world.metric("istio_requests_total{", &["response_flags=\"DC\""]), None);
    });
}
