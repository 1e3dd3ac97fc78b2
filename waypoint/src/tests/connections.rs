//! Connections of HTTP/2 to endpoints: who waits for one, and how many there are.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use model::traffic::{HttpSettings, TcpSettings};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use super::requests::{get, http2, whole};
use super::traffic::{application, pool, routing};
use super::world::{GRPC, SILENT, World, run};
use crate::http::LocalExecutor;

thread_local! {
    /// Connections that the application has accepted.
    static ACCEPTED: Cell<u32> = const { Cell::new(0) };
    /// What `/wait` waits for.
    static GO: RefCell<Rc<Notify>> = RefCell::default();
}

/// Requests at once over HTTP/2 to who does not answer: what each was told, and how long all of them took.
async fn ask_in_vain(world: &World, requests: u32) -> (Vec<u16>, Duration) {
    let client = http2(world, GRPC).await;
    let begun = Instant::now();
    let ask = |_| {
        let mut client = client.clone();
        spawn_local(async move { client.send_request(get("/")).await.unwrap().status().as_u16() })
    };
    let asked: Vec<_> = (0..requests).map(ask).collect();
    let mut told = Vec::new();
    for one in asked {
        told.push(one.await.unwrap());
    }
    (told, begun.elapsed())
}

#[test]
fn all_who_wait_for_one_connection_are_told_that_there_is_none() {
    const LIMIT: Duration = Duration::from_millis(400);
    run(async {
        for most in [u32::MAX, 1] {
            let world = World::new(application).await;
            let tcp = TcpSettings { connect_timeout: LIMIT, max_connections: most, ..TcpSettings::default() };
            world.waypoint.routings.set(routing(pool(HttpSettings::default(), tcp)));
            SILENT.set(true);
            let (told, took) = ask_in_vain(&world, 6).await;
            SILENT.set(false);
            assert_eq!(told, [503; 6]);
            assert!(took >= LIMIT && took < 3 * LIMIT, "one after the other: {took:?}");
            assert_eq!(world.connects.borrow().len(), 1, "one has asked for all");
            // The next begins anew.
            let answered = http2(&world, GRPC).await.send_request(get("/")).await.unwrap();
            assert_eq!(answered.status(), StatusCode::OK);
        }
    });
}

/// An application that takes one request at a time on a connection of HTTP/2.
async fn narrow(socket: TcpStream, _port: u16) {
    ACCEPTED.set(ACCEPTED.get() + 1);
    let service = service_fn(|request: Request<Incoming>| async move {
        if request.uri().path() == "/wait" {
            GO.with_borrow(Rc::clone).notified().await;
        }
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"one"))))
    });
    let mut serving = Builder::new(LocalExecutor);
    let _ = serving.max_concurrent_streams(1).serve_connection(TokioIo::new(socket), service).await;
}

#[test]
fn who_takes_no_more_streams_is_connected_to_once_more() {
    run(async {
        let world = World::new(narrow).await;
        let client = http2(&world, GRPC).await;
        // By its answer it has said how many it takes.
        assert_eq!(whole(client.clone().send_request(get("/")).await.unwrap()).await.0, 200);
        let mut waits = client.clone();
        let waits = spawn_local(async move { waits.send_request(get("/wait")).await.unwrap().status() });
        while GO.with_borrow(Rc::strong_count) < 2 {
            sleep(Duration::from_millis(5)).await;
        }
        let beside = timeout(Duration::from_secs(5), client.clone().send_request(get("/"))).await;
        assert_eq!(whole(beside.expect("it does not wait behind the other").unwrap()).await.0, 200);
        assert_eq!(ACCEPTED.get(), 2);
        GO.with_borrow(|go| go.notify_one());
        assert_eq!(waits.await.unwrap(), StatusCode::OK);
    });
}
