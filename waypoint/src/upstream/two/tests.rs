//! Ends that go, break off, fall silent and answer early.

use std::io;
use std::time::Duration;

use h2::{Reason, SendStream, server};
use hbone::windows::Windows;
use http::StatusCode;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};

use super::super::Broken;
use super::*;
use crate::limits::Bounds;

const ROOM: Room = Room { stream: 64 << 10, connection: 1 << 20, head: 60 << 10 };

/// A connection to an end, which runs by itself.
async fn to(end: DuplexStream) -> Sender {
    let (sender, connection) = begin(end, ROOM).await.unwrap();
    spawn_local(async move {
        let _ = run(connection, None, None).await;
    });
    sender
}

fn request<B>(body: B) -> Request<B> {
    Request::post("http://reviews/").body(body).unwrap()
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    let test = timeout(Duration::from_secs(10), future);
    LocalSet::new().run_until(test).await.expect("in time")
}

/// The end of a frame's head: type, flags and stream.
fn frame(kind: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, 0, 0, 0, 0, stream], payload].concat()
}

#[tokio::test]
async fn what_an_end_that_goes_has_not_begun_is_refused_and_nothing_more_is_sent() {
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    let test = async {
        let (near, mut far) = duplex(64 << 10);
        far.write_all(&frame(SETTINGS, 0, &[])).await.unwrap();
        let mut sender = to(near).await;
        assert!(!sender.is_closed());
        let mut later = sender.clone();
        let asked = spawn_local(async move { sender.send(request(Empty::new())).await.map(drop) });
        // The preface, our settings, and the request.
        let mut seen = vec![0; 24 + 9];
        far.read_exact(&mut seen).await.unwrap();
        tokio::task::yield_now().await;
        // It works on none of the streams, and has nothing against them.
        far.write_all(&frame(GOAWAY, 0, &[0; 8])).await.unwrap();
        let (error, unsent) = asked.await.unwrap().unwrap_err();
        assert!(unsent.is_none(), "a part of it was sent");
        assert!(Broken::Two(error).is_refused());
        assert!(later.is_closed());
        let (_, unsent) = later.send(request(Empty::<Bytes>::new())).await.map(drop).unwrap_err();
        assert!(unsent.is_some(), "nothing of it was sent");
    };
    in_time(test).await;
}

/// An end that answers one request with a word, and resets the stream.
async fn answers(far: DuplexStream, whole: bool, reset: Reason) {
    let mut connection = server::handshake(far).await.unwrap();
    let (_request, mut answer) = connection.accept().await.unwrap().unwrap();
    let mut body = answer.send_response(Response::new(()), false).unwrap();
    body.send_data(Bytes::from_static(b"hello"), whole).unwrap();
    spawn_local(async move { while connection.accept().await.is_some() {} });
    // Not before it is under way: what is reset at once is not sent.
    sleep(Duration::from_millis(20)).await;
    body.send_reset(reset);
    answer.send_reset(reset);
    pending().await
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_over_when_the_rest_of_its_request_is_not_wanted_and_broken_off_by_any_other_reset() {
    for (whole, reset, ends_well) in [
        (true, Reason::NO_ERROR, true),
        (false, Reason::NO_ERROR, false),
        (false, Reason::INTERNAL_ERROR, false),
        (false, Reason::CANCEL, false),
    ] {
        let test = async {
            let (near, far) = duplex(64 << 10);
            spawn_local(answers(far, whole, reset));
            let mut sender = to(near).await;
            // A request that is never whole.
            let body = StreamBody::new(futures_util::stream::pending::<io::Result<Frame<Bytes>>>());
            let answer = sender.send(request(body)).await.map_err(|(error, _)| error).unwrap();
            answer.into_body().collect().await.map(|body| body.to_bytes())
        };
        match in_time(test).await {
            Ok(body) => assert!(ends_well && body == "hello", "{reset}"),
            Err(error) => assert!(!ends_well && error.reason() == Some(reset), "{reset}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_body_larger_than_all_windows_arrives_with_an_answer_that_began_before_it() {
    const LENGTH: usize = 3 << 20;
    let test = async {
        let (near, far) = duplex(64 << 10);
        spawn_local(async move {
            let mut connection = server::handshake(far).await.unwrap();
            let (request, mut answer) = connection.accept().await.unwrap().unwrap();
            spawn_local(async move { while connection.accept().await.is_some() {} });
            let mut said = answer.send_response(Response::new(()), false).unwrap();
            let mut body = request.into_body();
            let mut length = 0;
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                length += data.len();
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            said.send_data(Bytes::from(length.to_string()), true).unwrap();
        });
        let mut sender = to(near).await;
        let answer = sender.send(request(Full::new(Bytes::from(vec![7; LENGTH])))).await;
        let answer = answer.map_err(|(error, _)| error).unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), LENGTH.to_string());
    };
    in_time(test).await;
}

#[tokio::test]
async fn the_rest_of_a_request_does_not_outlive_its_answer() {
    let test = async {
        let (near, far) = duplex(64 << 10);
        let (say, mut said) = mpsc::channel(1);
        spawn_local(async move {
            // It has no room for anything, answers at once, and leaves the stream as it is.
            let mut builder = server::Builder::new();
            builder.initial_window_size(0);
            let mut connection = builder.handshake::<_, Bytes>(far).await.unwrap();
            let (request, mut answer) = connection.accept().await.unwrap().unwrap();
            spawn_local(async move { while connection.accept().await.is_some() {} });
            answer.send_response(Response::new(()), true).unwrap();
            say.send(request.into_body().data().await.unwrap().unwrap_err()).await.unwrap();
        });
        let mut sender = to(near).await;
        let answer = sender.send(request(Full::new(Bytes::from_static(b"for nobody")))).await;
        let answer = answer.map_err(|(error, _)| error).unwrap().into_body();
        assert!(answer.is_end_stream());
        drop(answer);
        assert_eq!(said.recv().await.unwrap().reason(), Some(Reason::CANCEL));
    };
    in_time(test).await;
}

#[tokio::test(start_paused = true)]
async fn an_end_that_answers_no_ping_is_given_up() {
    let test = async {
        let (near, _far) = duplex(64 << 10);
        let (_sender, connection) = begin(near, ROOM).await.unwrap();
        let ping = Http2KeepAlive { interval: Duration::from_secs(3), timeout: Duration::from_secs(2) };
        let begun = tokio::time::Instant::now();
        let over = run(connection, Some(ping), None).await;
        assert!(matches!(over, Err(Over::Silent)), "{over:?}");
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
    };
    in_time(test).await;
}

/// Sends as much as it may, and counts it.
async fn pours(mut body: SendStream<Bytes>, sent: Rc<Cell<usize>>) {
    loop {
        body.reserve_capacity(16 << 10);
        let Some(Ok(room)) = poll_fn(|cx| body.poll_capacity(cx)).await else { return };
        if body.send_data(Bytes::from(vec![7; room]), false).is_err() {
            return;
        }
        sent.set(sent.get() + room);
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_may_send_more_ahead_once_much_of_it_was_taken() {
    const KIB: usize = 1 << 10;
    let test = async {
        let windows = Windows::new(48 << 20);
        let (near, far) = duplex(64 * KIB);
        let sent = Rc::<Cell<usize>>::default();
        let counted = sent.clone();
        spawn_local(async move {
            let mut connection = server::handshake(far).await.unwrap();
            while let Some(Ok((_, mut answer))) = connection.accept().await {
                let body = answer.send_response(Response::new(()), false).unwrap();
                spawn_local(pours(body, counted.clone()));
            }
        });
        let begun = Bounds::default().endpoint_windows(&windows);
        let room = Room { stream: begun.stream, connection: begun.connection(), head: 60 * KIB };
        let (mut sender, connection) = begin(near, room).await.unwrap();
        let growing = Growing::new(begun, &sender);
        let running = spawn_local(run(connection, None, Some(growing)));
        // Of answers of which so much was taken before, how much waits when nobody goes on.
        for (taken, ahead) in [(0, 32), (1 << 20, 32), (24 << 20, 256)] {
            let answer = sender.send(request(Empty::new())).await.map_err(|(error, _)| error).unwrap();
            let mut taking = answer.into_body();
            sent.set(0);
            let mut left = taken;
            while left > 0 {
                left -= taking.frame().await.unwrap().unwrap().into_data().unwrap().len().min(left);
            }
            // What one that is asked for now is let send; the first does not go on.
            sleep(Duration::from_secs(1)).await;
            sent.set(0);
            let _stalled = sender.send(request(Empty::new())).await.map_err(|(error, _)| error).unwrap();
            sleep(Duration::from_secs(1)).await;
            assert_eq!(sent.get() / KIB, ahead, "after {taken}");
        }
        assert_eq!(windows.given(), 224 * 100 * KIB as u64);
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        assert_eq!(windows.given(), 0, "it is given back with the connection");
    };
    in_time(test).await;
}
