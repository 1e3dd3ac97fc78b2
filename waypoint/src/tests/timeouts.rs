//! What counts as the time that a request takes, and what does not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use model::route::fault::Delay;
use model::route::{Destination, Fault, Forward, Fraction, RetryPolicy, Routing};
use model::traffic::{self, OutlierDetection, TrafficPolicy};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use super::fixtures::key;
use super::requests::{Body, ReceiverStream, application, get, http1, http2, whole};
use super::routes::{forward, rule, to};
use super::world::{GRPC, HTTP, World, run};

const LIMIT: Duration = Duration::from_millis(200);
const LONGER: Duration = Duration::from_millis(400);

/// A routing that gives requests so much time, and takes who fails once for ill.
fn routing(forwarded: Forward, fault: Option<Fault>) -> Routing {
    let mut rule = rule(0, vec![], forward(forwarded));
    rule.fault = fault.map(Box::new);
    let detection = OutlierDetection {
        consecutive_5xx: 1,
        base_ejection_time: Duration::from_secs(60),
        max_ejection_percent: 100,
        ..OutlierDetection::default()
    };
    let policy = TrafficPolicy { outlier_detection: Some(detection), ..TrafficPolicy::default() };
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
