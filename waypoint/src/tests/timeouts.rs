//! What counts as the time that a request takes, and what does not.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use model::mesh::Update;
use model::route::fault::{Abort, AbortWith, Delay};
use model::route::{Destination, Fault, Forward, Fraction, RetryPolicy, Routing};
use model::traffic::{self, ConnectionPool, OutlierDetection, TcpSettings, TrafficPolicy};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use super::fixtures::{key, nobody};
use super::requests::{Body, ReceiverStream, application, get, http1, http2, whole};
use super::routes::{forward, rule, to};
use super::world::{GRPC, HTTP, World, run};
use crate::http::LocalExecutor;

const LIMIT: Duration = Duration::from_millis(200);
const LONGER: Duration = Duration::from_millis(400);

/// A routing that gives requests so much time, and takes who fails once for ill.
fn routing(forwarded: Forward, fault: Option<Fault>) -> Routing {
    pooled(forwarded, fault, None)
}

fn pooled(forwarded: Forward, fault: Option<Fault>, connection_pool: Option<ConnectionPool>) -> Routing {
    let mut rule = rule(0, vec![], forward(forwarded));
    rule.fault = fault.map(Box::new);
    let detection = OutlierDetection {
        consecutive_5xx: 1,
        base_ejection_time: Duration::from_secs(60),
        max_ejection_percent: 100,
        ..OutlierDetection::default()
    };
    let policy =
        TrafficPolicy { outlier_detection: Some(detection), connection_pool, ..TrafficPolicy::default() };
    Routing {
        host: key("reviews"),
        http: [rule].into(),
        tls: Box::default(),
        tcp: Box::default(),
        default: None,
        destinations: [(key("reviews"), Arc::new(traffic::Destination { policy, ..Default::default() }))]
            .into(),
    }
}

fn limited() -> Forward {
    Forward { timeout: Some(LIMIT), ..to(Destination::of(key("reviews"))) }
}

fn each_limited() -> Forward {
    let retry = RetryPolicy { attempts: 0, per_try_timeout: Some(LIMIT), ..RetryPolicy::default() };
    Forward { retry: Some(Arc::new(retry)), ..to(Destination::of(key("reviews"))) }
}

/// A body that takes longer than the request may.
fn slow() -> Body {
    let (tell, told) = mpsc::channel(1);
    spawn_local(async move {
        for part in ["slow", "ly", " but surely"] {
            tell.send(Ok(Frame::data(Bytes::from_static(part.as_bytes())))).await.unwrap();
            sleep(LONGER / 2).await;
        }
    });
    StreamBody::new(ReceiverStream(told)).boxed()
}

fn slowly(path: &str) -> Request<Body> {
    Request::post(path).header("host", "h").body(slow()).unwrap()
}

#[test]
fn the_time_of_an_upload_is_its_clients() {
    run(async {
        for allowed in [limited(), each_limited()] {
            let world = World::new(application).await;
            world.waypoint.routings.set(routing(allowed, None));
            let mut client = http1(&world, HTTP).await;
            let answered = whole(client.send_request(slowly("/after")).await.unwrap()).await;
            assert_eq!(answered, (200, String::from("slowly but surely")));
            // Nor is an answer too late that goes on with it.
            let answered = whole(client.send_request(slowly("/echo")).await.unwrap()).await;
            assert_eq!(answered, (200, String::from("slowly but surely")));
            let mut calls = http2(&world, GRPC).await;
            let call = Request::post("http://reviews/echo").header("content-type", "application/grpc");
            let answered = calls.send_request(call.body(slow()).unwrap()).await.unwrap();
            assert_eq!(whole(answered).await, (200, String::from("slowly but surely")));
            // Once all of it is there, it is the endpoint that takes its time.
            let begun = Instant::now();
            let answered = whole(client.send_request(slowly("/never")).await.unwrap()).await;
            assert_eq!(answered, (504, String::from("upstream request timeout")));
            assert!(begun.elapsed() >= LONGER + LIMIT, "{:?}", begun.elapsed());
            let again = whole(client.send_request(get("/after")).await.unwrap()).await;
            assert!(again.0 == 503 && again.1.starts_with("no healthy upstream"), "{again:?}");
        }
    });
}

#[test]
fn a_delay_that_is_injected_is_no_part_of_it() {
    run(async {
        let world = World::new(application).await;
        let delay = Some(Delay { after: LONGER, share: Fraction::ALL });
        world.waypoint.routings.set(routing(limited(), Some(Fault { delay, abort: None })));
        let begun = Instant::now();
        let mut client = http1(&world, HTTP).await;
        assert_eq!(whole(client.send_request(get("/after")).await.unwrap()).await.0, 200);
        assert!(begun.elapsed() >= LONGER);
    });
}

#[test]
fn an_answer_that_is_not_whole_in_time_is_broken_off() {
    run(async {
        let world = World::new(application).await;
        world.waypoint.routings.set(routing(limited(), None));
        let (tell, told) = mpsc::channel(1);
        let body = StreamBody::new(ReceiverStream(told)).boxed();
        let request = Request::post("/pour").header("host", "h").body(body).unwrap();
        let begun = Instant::now();
        let asked = http1(&world, HTTP).await.send_request(request).await.unwrap();
        assert_eq!(asked.status(), 200);
        sleep(LONGER).await;
        // The answer began before the request was whole, and never ends.
        drop(tell);
        asked.into_body().collect().await.unwrap_err();
        assert!(begun.elapsed() >= LONGER + LIMIT, "{:?}", begun.elapsed());
    });
}

#[test]
fn a_request_is_whole_with_the_last_byte_that_was_announced() {
    run(async {
        let world = World::new(application).await;
        world.waypoint.routings.set(routing(limited(), None));
        let (tell, told) = mpsc::channel(1);
        let body = StreamBody::new(ReceiverStream(told)).boxed();
        let request = Request::post("http://h/never").header("content-length", "4").body(body).unwrap();
        // Its end is a frame of its own, which never comes.
        tell.send(Ok(Frame::data(Bytes::from_static(b"late")))).await.unwrap();
        let mut client = http2(&world, HTTP).await;
        let answered = timeout(LONGER * 8, client.send_request(request)).await.expect("there is a limit");
        assert_eq!(whole(answered.unwrap()).await.0, 504);
    });
}

#[test]
fn who_waits_for_a_connection_says_nothing_of_the_endpoint() {
    run(async {
        let world = World::new(application).await;
        let tcp = TcpSettings { max_connections: 1, ..TcpSettings::default() };
        let pool = ConnectionPool { tcp, ..ConnectionPool::default() };
        world.waypoint.routings.set(pooled(limited(), None, Some(pool)));
        let (tell, told) = mpsc::channel(1);
        let body = StreamBody::new(ReceiverStream(told)).boxed();
        let upload = Request::post("http://h/after").body(body).unwrap();
        // Streams of one connection are requests of one thread, which may have no connection more.
        let mut client = http2(&world, HTTP).await;
        let mut first = client.clone();
        let first = spawn_local(async move { whole(first.send_request(upload).await.unwrap()).await });
        tell.send(Ok(Frame::data(Bytes::from_static(b"slowly")))).await.unwrap();
        while world.connects.borrow().is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
        let ask = || Request::get("http://h/after").body(super::requests::empty()).unwrap();
        assert_eq!(whole(client.send_request(ask()).await.unwrap()).await.0, 504);
        drop(tell);
        assert_eq!(first.await.unwrap(), (200, String::from("slowly")));
        assert_eq!(whole(client.send_request(ask()).await.unwrap()).await.0, 200);
    });
}

#[test]
fn a_fault_is_injected_also_where_there_is_no_endpoint() {
    run(async {
        let world = World::new(application).await;
        world.waypoint.take(vec![Update::RemoveAddress(world.pod.uid.clone())]);
        let mut client = http1(&world, HTTP).await;
        let delay = Some(Delay { after: LONGER, share: Fraction::ALL });
        world.waypoint.routings.set(routing(limited(), Some(Fault { delay, abort: None })));
        let begun = Instant::now();
        assert_eq!(whole(client.send_request(get("/after")).await.unwrap()).await.0, 503);
        assert!(begun.elapsed() >= LONGER);
        let abort = Some(Abort { with: AbortWith::Http(StatusCode::IM_A_TEAPOT), share: Fraction::ALL });
        world.waypoint.routings.set(routing(limited(), Some(Fault { delay: None, abort })));
        assert_eq!(whole(client.send_request(get("/after")).await.unwrap()).await.0, 418);
        // Who may not ask is told just that.
        world.waypoint.take(vec![Update::Policy(nobody("shop"))]);
        assert_eq!(whole(client.send_request(get("/after")).await.unwrap()).await.0, 403);
    });
}

thread_local! {
    /// Whether an endpoint still answers.
    static POURS: Cell<bool> = const { Cell::new(false) };
}

/// Notes when it is dropped that an answer is over.
struct Pouring;

impl Drop for Pouring {
    fn drop(&mut self) {
        POURS.set(false);
    }
}

/// An application whose answers have no end.
async fn pouring(socket: TcpStream, _port: u16) {
    let service = service_fn(|_: Request<Incoming>| async move {
        POURS.set(true);
        let more = |pouring| async move {
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[0; 16 << 10]))), pouring))
        };
        Ok::<_, Infallible>(Response::new(StreamBody::new(futures_util::stream::unfold(Pouring, more))))
    });
    let _ = auto::Builder::new(LocalExecutor).serve_connection(TokioIo::new(socket), service).await;
}

#[test]
fn an_answer_that_its_client_does_not_take_has_no_more_time_than_others() {
    run(async {
        for port in [HTTP, GRPC] {
            let world = World::new(pouring).await;
            world.waypoint.routings.set(routing(limited(), None));
            let mut client = http2(&world, port).await;
            let request = Request::get("http://h/").body(super::requests::empty()).unwrap();
            let answered = client.send_request(request).await.unwrap();
            assert!(answered.status() == 200 && POURS.get());
            timeout(LONGER * 8, async {
                while POURS.get() {
                    sleep(Duration::from_millis(1)).await;
                }
            })
            .await
            .expect("the endpoint is rid of it, though nobody has read anything");
            let error = answered.into_body().collect().await.expect_err("it is not whole");
            assert!(error.to_string().contains("error"), "{error}");
        }
    });
}
