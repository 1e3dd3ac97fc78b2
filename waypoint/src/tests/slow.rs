//! Clients that do not take what they asked for: how much of it the waypoint lets come.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::world::{GRPC, World, run};

const PIECE: &[u8] = &[b'x'; 16 << 10];

thread_local! {
    /// Bytes that were sent.
    static POURED: Cell<usize> = const { Cell::new(0) };
}

/// An application that answers without end, as fast as it may.
async fn pouring(socket: TcpStream, _port: u16) {
    let service = service_fn(|_: Request<Incoming>| async {
        let pieces = futures_util::stream::repeat_with(|| {
            POURED.set(POURED.get() + PIECE.len());
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(PIECE)))
        });
        Ok::<_, Infallible>(Response::new(StreamBody::new(pieces)))
    });
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
}

#[test]
fn who_opens_its_windows_and_stops_reading_leaves_little_of_each_answer_here() {
    const ANSWERS: usize = 50;
    // A stream's window, what may wait for its client, and frames that are on their way at each end.
    const OF_EACH: usize = (32 + 64 + 32 + 32) << 10;
    run(async {
        let world = World::new(pouring).await;
        let most = i32::MAX.unsigned_abs();
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(most).initial_connection_window_size(most);
        let (mut sender, connection) =
            builder.handshake::<_, Bytes>(world.connect(GRPC).await).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        spawn_local(async move {
            let mut connection = pin!(connection);
            tokio::select! {
                biased;
                // It stays, and nobody reads from it.
                _ = stopped => pending().await,
                _ = &mut connection => {}
            }
        });
        let mut answers = Vec::new();
        for _ in 0..ANSWERS {
            sender = sender.ready().await.unwrap();
            let request = Request::get("http://reviews/").body(()).unwrap();
            let (answer, _) = sender.send_request(request, true).unwrap();
            answers.push(answer.await.unwrap());
        }
        stop.send(()).unwrap();
        POURED.set(0);
        let mut before = usize::MAX;
        while before != POURED.get() {
            before = POURED.get();
            sleep(Duration::from_millis(500)).await;
        }
        // The client's end of its tunnel has a window of 2 MiB.
        let most = (2 << 20) + ANSWERS * OF_EACH;
        assert!((1 << 20..=most).contains(&before), "{before} bytes of {ANSWERS} answers, at most {most}");
        assert_eq!(answers.len(), ANSWERS);
    });
}
