//! A body that is sent twice, and one that is held back.

use std::future::poll_fn;

use bytes::Bytes;
use http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::Instant;

use super::*;

async fn next(body: &mut RequestBody) -> Option<Result<Bytes, BodyError>> {
    let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
    Some(frame.map(|frame| frame.into_data().unwrap()))
}

/// A request's body as hyper reads it, and the client's end of it.
async fn body(length: usize) -> (tokio::io::DuplexStream, Incoming) {
    let (mut client, server) = tokio::io::duplex(16 << 10);
    let (came, mut come) = mpsc::channel::<Incoming>(1);
    let service = service_fn(move |request: Request<Incoming>| {
        let came = came.clone();
        async move {
            came.send(request.into_body()).await.unwrap();
            std::future::pending::<Result<Response<String>, std::io::Error>>().await
        }
    });
    spawn_local(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service));
    let head = format!("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    (client, come.recv().await.unwrap())
}

/// A source of so many bytes, all of which are on their way.
async fn coming(length: usize) -> SharedSource {
    let (mut client, body) = body(length).await;
    spawn_local(async move {
        client.write_all(&vec![b'a'; length]).await.unwrap();
        std::future::pending::<()>().await;
    });
    Source::new(body, 64 << 10, Clock::start(), Rc::default(), false)
}

#[tokio::test]
async fn a_body_that_comes_by_single_bytes_is_kept_in_no_more_room_than_it_takes() {
    const LENGTH: usize = 5000;
    let test = async {
        let (mut client, body) = body(LENGTH).await;
        let source = Source::new(body, 64 << 10, Clock::start(), Rc::default(), false);
        let mut first = RequestBody::new(&source, None);
        for at in 0..LENGTH {
            client.write_all(&[(at % 251) as u8]).await.unwrap();
            assert_eq!(next(&mut first).await.unwrap().unwrap().len(), 1);
        }
        assert!(source.borrow().is_kept());
        let room = source.borrow().read.capacity();
        assert!((LENGTH..=2 * LENGTH).contains(&room), "{room}");
        source.borrow_mut().withdraw();
        let again = next(&mut RequestBody::new(&source, None)).await.unwrap().unwrap();
        assert!(
            again.len() == LENGTH
                && again.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % 251)
        );
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn what_is_left_of_a_try_reads_nothing_of_what_the_next_is_to_send() {
    let test = async {
        let source = coming(200_000).await;
        let mut first = RequestBody::new(&source, None);
        next(&mut first).await.unwrap().unwrap();
        source.borrow_mut().withdraw();
        let mut second = RequestBody::new(&source, None);
        while let Some(Ok(_)) = next(&mut first).await {}
        let mut sent = 0;
        while let Some(data) = next(&mut second).await {
            sent += data.unwrap().len();
        }
        assert_eq!(sent, 200_000);
    };
    LocalSet::new().run_until(test).await;
}

/// What becomes of a gate while its body is asked for, after so many milliseconds: whether the body goes, and when.
#[tokio::test(start_paused = true)]
async fn a_body_is_held_back_until_it_is_wanted_or_nobody_says_anything_for_a_second() {
    type Then = Option<(u64, fn(&Gate))>;
    let give_up = |gate: &Gate| drop(GateKeeper::of(gate));
    let rows: [(Then, bool, u64); 5] = [
        (None, true, 1000),
        (Some((300, Gate::open)), true, 300),
        (Some((300, give_up)), false, 300),
        (Some((999, give_up)), false, 999),
        // What goes already cannot be held back any more.
        (Some((1001, give_up)), true, 1000),
    ];
    let test = async {
        for (then, goes, after) in rows {
            let gate = Gate::default();
            let mut body = RequestBody::new(&coming(5).await, Some(gate.clone()));
            let begun = Instant::now();
            if let Some((at, then)) = then {
                spawn_local(async move {
                    sleep(Duration::from_millis(at)).await;
                    then(&gate);
                });
            }
            let first = next(&mut body).await.unwrap();
            assert_eq!(
                (first.is_ok(), begun.elapsed()),
                (goes, Duration::from_millis(after)),
                "{after} {goes}"
            );
        }
    };
    LocalSet::new().run_until(test).await;
}
