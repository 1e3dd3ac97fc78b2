//! An answer through two connections that hyper speaks on, to a client that reads as it likes.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

use super::*;

/// As much as hyper may hold of a head.
const HEAD: usize = 60 << 10;
/// What fits between the endpoint and us, and between us and the client.
const WAYS: (usize, usize) = (64 << 10, 1 << 10);
const LENGTH: usize = 24 << 20;

/// An answer that keeps to the pace of its client's connection, as the waypoint's do.
struct Answer(Incoming, Rc<Pace>);

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        ready!(self.1.poll_taken(cx));
        Pin::new(&mut self.0).poll_frame(cx)
    }
}

/// Answers each request with as much as it can say of [`LENGTH`] bytes, and counts them.
async fn endpoint(mut far: DuplexStream, sent: Rc<Cell<usize>>) {
    let piece = (0..251).collect::<Vec<u8>>().repeat(64);
    loop {
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            heard.push(far.read_u8().await.unwrap());
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n");
        far.write_all(head.as_bytes()).await.unwrap();
        for at in 0..LENGTH.div_ceil(piece.len()) {
            let left = LENGTH - at * piece.len();
            far.write_all(&piece[..left.min(piece.len())]).await.unwrap();
            sent.set(sent.get() + left.min(piece.len()));
        }
    }
}

/// The client's end of all of it.
async fn client(sent: &Rc<Cell<usize>>) -> DuplexStream {
    let (near, far) = duplex(WAYS.0);
    spawn_local(endpoint(far, sent.clone()));
    let to_endpoint = Rc::<Pace>::default();
    let connection = TokioIo::new(Paced::new(near, &to_endpoint));
    let mut builder = hyper::client::conn::http1::Builder::new();
    let (sender, running) = builder.max_buf_size(HEAD).handshake(connection).await.unwrap();
    spawn_local(running);
    let (near, far) = duplex(WAYS.1);
    let pace = Rc::<Pace>::default();
    let connection = TokioIo::new(Paced::new(near, &pace));
    let sender = Rc::new(tokio::sync::Mutex::new(sender));
    let service = service_fn(move |_: Request<Incoming>| {
        let (sender, pace, to_endpoint) = (sender.clone(), pace.clone(), to_endpoint.clone());
        async move {
            to_endpoint.begin();
            let request = Request::get("/").header("host", "h").body(String::new()).unwrap();
            let answer: Response<Incoming> = sender.lock().await.send_request(request).await?;
            Ok::<_, hyper::Error>(answer.map(|body| Answer(body, pace)))
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    spawn_local(builder.max_buf_size(HEAD).serve_connection(connection, service));
    far
}

async fn ask(client: &mut DuplexStream) {
    client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\n") {
        heard.push(client.read_u8().await.unwrap());
    }
}

/// Takes so many bytes of an answer, of which `at` have come.
async fn take(client: &mut DuplexStream, at: usize, bytes: usize) {
    let mut heard = vec![0; bytes];
    client.read_exact(&mut heard).await.unwrap();
    assert!(
        heard.iter().enumerate().all(|(more, byte)| usize::from(*byte) == (at + more) % 251),
        "as it was sent"
    );
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_makes_us_hold_small_pieces_and_gets_every_byte_in_the_end() {
    let test = async {
        let sent = Rc::<Cell<usize>>::default();
        let mut client = client(&sent).await;
        for turn in 1..=2 {
            sent.set(0);
            ask(&mut client).await;
            // Until nothing moves any more.
            sleep(Duration::from_secs(1)).await;
            let held = sent.get() - (WAYS.0 + WAYS.1).min(sent.get());
            assert!((1..=3 * PIECE).contains(&held), "{held} bytes of answer {turn}");
            let much = 2 * usize::try_from(MUCH).unwrap();
            take(&mut client, 0, much).await;
            sleep(Duration::from_secs(1)).await;
            let held = sent.get() - much - (WAYS.0 + WAYS.1);
            assert!((2 * PIECE..=3 * HEAD).contains(&held), "{held} bytes of answer {turn} after much of it");
            take(&mut client, much, LENGTH - much).await;
        }
    };
    LocalSet::new().run_until(test).await;
}
