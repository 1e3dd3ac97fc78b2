//! A body that is sent twice.

use std::future::poll_fn;

use bytes::Bytes;
use http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};

use super::*;

async fn next(body: &mut RequestBody) -> Option<Result<Bytes, BodyError>> {
    let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
    Some(frame.map(|frame| frame.into_data().unwrap()))
}

#[tokio::test]
async fn what_is_left_of_a_try_reads_nothing_of_what_the_next_is_to_send() {
    const ROOM: usize = 64 << 10;
    let test = async {
        let (mut client, server) = tokio::io::duplex(16 << 10);
        let (came, mut come) = mpsc::channel::<Incoming>(1);
        let service = service_fn(move |request: Request<Incoming>| {
            let came = came.clone();
            async move {
                came.send(request.into_body()).await.unwrap();
                std::future::pending::<Result<Response<String>, std::io::Error>>().await
            }
        });
        spawn_local(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service),
        );
        client.write_all(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 200000\r\n\r\n").await.unwrap();
        let source = Source::new(come.recv().await.unwrap(), ROOM, Clock::start(), Rc::default(), false);
        spawn_local(async move {
            client.write_all(&[b'a'; 200_000]).await.unwrap();
            std::future::pending::<()>().await;
        });

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
