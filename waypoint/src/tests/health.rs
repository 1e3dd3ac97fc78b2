//! Endpoints that are checked: who fails is asked no more, who comes back is asked again, and what a check is.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use model::address::{NamespacedHostname, NetworkAddress};
use model::mesh::Update;
use model::route::{Forward, Routing};
use model::service::Service;
use model::traffic::{self, Algorithm, HealthCheck, LoadBalancer, OutlierDetection, Probe, TrafficPolicy};
use model::workload::TunnelProtocol;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use super::fixtures::{edit, key, pod};
use super::requests::{get, http1, whole};
use super::world::{HTTP, REFUSES, World, run};
use crate::health;
use crate::http::LocalExecutor;
use crate::limits::Bounds;

thread_local! {
    /// The pods that are not well, by the last bytes of their addresses.
    static SICK: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// How often `/healthz` was asked for, of all pods.
    static CHECKED: Cell<u32> = const { Cell::new(0) };
    /// The head of the check that came last.
    static HEAD: RefCell<HeaderMap> = RefCell::default();
    /// How many requests the first and the second pod have had.
    static ASKED: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

/// An application that has a check of its health over HTTP and over gRPC, and counts what else it is asked.
async fn application(socket: TcpStream, _port: u16) {
    let IpAddr::V4(ip) = socket.local_addr().unwrap().ip() else { panic!("IPv4 only") };
    let pod = ip.octets()[3];
    let service = service_fn(move |request: Request<Incoming>| async move {
        Ok::<_, Infallible>(answer(pod, request).await)
    });
    let _ = auto::Builder::new(LocalExecutor).serve_connection(TokioIo::new(socket), service).await;
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn answer(pod: u8, request: Request<Incoming>) -> Response<Body> {
    let sick = SICK.with_borrow(|sick| sick.contains(&pod));
    let mut response = Response::new(Full::new(Bytes::from(pod.to_string())).boxed());
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/healthz" => {
            CHECKED.set(CHECKED.get() + 1);
            HEAD.set(request.headers().clone());
            *response.status_mut() = if sick { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
        }
        "/grpc.health.v1.Health/Check" => return over_grpc(request, sick).await,
        "/never" => std::future::pending::<()>().await,
        path if path.starts_with("/status/") => *response.status_mut() = path[8..].parse().unwrap(),
        _ => {
            let (first, second) = ASKED.get();
            ASKED.set(if pod == 2 { (first + 1, second) } else { (first, second + 1) });
        }
    }
    response
}

/// What gRPC's health service says, by the letter: `Absent` is not known.
async fn over_grpc(request: Request<Incoming>, sick: bool) -> Response<Body> {
    let asked = request.into_body().collect().await.unwrap().to_bytes();
    let absent = asked.ends_with(b"Absent");
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", if absent { "5" } else { "0" }.parse().unwrap());
    let message = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, if sick { 2 } else { 1 }]);
    let data = (!absent).then(|| Frame::data(message));
    let frames: Vec<Result<_, Infallible>> =
        data.into_iter().chain([Frame::trailers(trailers)]).map(Ok).collect();
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed());
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    response
}

fn sick(pods: &[u8]) {
    SICK.set(pods.to_vec());
}

fn http_get(path: &str) -> Probe {
    Probe::Http { port: 8080, path: path.into(), headers: Box::default() }
}

/// How often who is checked quickly is asked.
const QUICKLY: Duration = Duration::from_millis(20);

/// A check that is quick enough to be waited for.
fn quick(probe: Probe) -> HealthCheck {
    HealthCheck {
        period: QUICKLY,
        timeout: Duration::from_secs(2),
        failure_threshold: 3,
        success_threshold: 2,
        probe,
    }
}

/// The service's own routing with a check, or without one, without retries.
fn routing(check: Option<HealthCheck>, outliers: Option<OutlierDetection>) -> Routing {
    let policy = TrafficPolicy {
        load_balancer: Some(LoadBalancer { algorithm: Algorithm::RoundRobin, ..LoadBalancer::default() }),
        outlier_detection: outliers,
        ..TrafficPolicy::default()
    };
    let cause = "DestinationRule shop/reviews".into();
    let destination = traffic::Destination { cause, policy, health_check: check, ..Default::default() };
    Routing {
        host: key("reviews"),
        http: Box::default(),
        tls: Box::default(),
        tcp: Box::default(),
        default: Some(Box::new(Forward { retry: None, ..Forward::to_service(key("reviews")) })),
        destinations: [(key("reviews"), Arc::new(destination))].into(),
    }
}

/// A world whose rules are followed, with nobody sick.
async fn world() -> World {
    sick(&[]);
    REFUSES.set(false);
    let world = World::new(application).await;
    spawn_local(health::follow(world.waypoint.clone()));
    world
}

/// How many endpoints are healthy, and how many are not.
fn endpoints(world: &World) -> (f64, f64) {
    let of = |state: &str| {
        let label = format!("state=\"{state}\"");
        world.metric("lateen_health_check_endpoints{", &[&label]).unwrap_or(-1.0)
    };
    (of("healthy"), of("unhealthy"))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until nobody has been asked for ten periods; what was under way may still come.
async fn nobody_is_asked() {
    let (mut checked, mut since) = (CHECKED.get(), Instant::now());
    until("nobody is asked any more", || {
        if CHECKED.get() != checked {
            (checked, since) = (CHECKED.get(), Instant::now());
        }
        since.elapsed() > 10 * QUICKLY
    })
    .await;
}

fn counted(world: &World, result: &str) -> f64 {
    let label = format!("result=\"{result}\"");
    world.metric("lateen_health_checks_total{", &[&label]).unwrap_or(0.0)
}

#[test]
fn who_fails_its_checks_is_asked_no_more_until_it_passes_them_again() {
    run(async {
        let world = world().await;
        world.second(application).await;
        world.waypoint.routings.set(routing(Some(quick(http_get("/healthz"))), None));
        // Endpoints are asked whether or not there is traffic.
        until("both are checked", || endpoints(&world) == (2.0, 0.0) && counted(&world, "passed") >= 2.0)
            .await;
        let mut client = http1(&world, HTTP).await;
        // How many the pods were asked, and what came of the others.
        let mut ask = async |times: u32| {
            ASKED.set((0, 0));
            let mut others = Vec::new();
            for _ in 0..times {
                let (status, text) = whole(client.send_request(get("/")).await.unwrap()).await;
                if status != 200 {
                    others.push(format!("{status} {text}"));
                }
            }
            (ASKED.get(), others.join("; "))
        };
        let all_of = |first, second| ((first, second), String::new());
        assert_eq!(ask(20).await, all_of(10, 10));
        sick(&[2]);
        until("the first is left out", || endpoints(&world) == (1.0, 1.0)).await;
        assert!(counted(&world, "failed") >= 3.0);
        assert_eq!(ask(20).await, all_of(0, 20));
        sick(&[]);
        until("it is back", || endpoints(&world) == (2.0, 0.0)).await;
        assert_eq!(ask(20).await, all_of(10, 10), "it has its share again");

        sick(&[2, 3]);
        until("both are left out", || endpoints(&world) == (0.0, 2.0)).await;
        let (asked, text) = ask(1).await;
        assert_eq!(asked, (0, 0));
        assert!(
            text.starts_with("503 ") && text.contains("all of its 2 endpoints fail their health check"),
            "{text}"
        );
        assert!(
            !text.contains("http status: 500"),
            "what is asked of pods is not the client's business: {text}"
        );
        assert_eq!(world.metric("istio_requests_total{", &["response_flags=\"UH\""]), Some(1.0));
        // Checks are no requests.
        let text = world.metrics.text();
        let served = text.lines().filter(|line| line.starts_with("istio_requests_total{"));
        let served: f64 = served.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum();
        assert_eq!(served, 61.0);
        let told = world.waypoint.checks.describe();
        assert_eq!(told[0]["endpoints"][0]["last_failure"], "http status: 500", "{told}");
        sick(&[]);
    });
}

/// A check is given up at its time, also while it opens the tunnel that a request waits for.
#[test]
fn checks_that_are_given_up_disturb_no_request() {
    run(async {
        let world = world().await;
        world.second(application).await;
        let soon = Duration::from_millis(1);
        let hasty = HealthCheck { period: soon, timeout: soon, ..quick(http_get("/never")) };
        let hasty = HealthCheck { failure_threshold: u32::MAX, ..hasty };
        world.waypoint.routings.set(routing(Some(hasty), None));
        until("some are given up", || counted(&world, "unreachable") > 0.0).await;
        let mut client = http1(&world, HTTP).await;
        for _ in 0..20 {
            let (status, text) = whole(client.send_request(get("/")).await.unwrap()).await;
            assert_eq!(status, 200, "{text}");
        }
        // Its threads outlive this test, and are not to keep others waiting.
        world.waypoint.routings.set(routing(None, None));
        until("nobody is checked", || endpoints(&world) == (-1.0, -1.0)).await;
    });
}

#[test]
fn too_few_that_are_healthy_are_as_good_as_all() {
    run(async {
        let world = world().await;
        world.second(application).await;
        sick(&[2, 3]);
        let outliers =
            |min_health_percent| OutlierDetection { min_health_percent, ..OutlierDetection::default() };
        let check = || Some(quick(http_get("/healthz")));
        world.waypoint.routings.set(routing(check(), Some(outliers(50))));
        until("both are left out", || endpoints(&world) == (0.0, 2.0)).await;
        let mut client = http1(&world, HTTP).await;
        ASKED.set((0, 0));
        for _ in 0..10 {
            assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 200);
        }
        assert_eq!(ASKED.get(), (5, 5));
        world.waypoint.routings.set(routing(check(), Some(outliers(0))));
        assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 503);
        sick(&[]);
    });
}

#[test]
fn a_change_of_what_is_asked_takes_effect_at_once_and_ends_with_it() {
    run(async {
        let world = world().await;
        sick(&[2]);
        let slow = HealthCheck {
            period: Duration::from_secs(3600),
            failure_threshold: 1,
            ..quick(http_get("/healthz"))
        };
        world.waypoint.routings.set(routing(Some(slow.clone()), None));
        until("it is left out by its first check", || endpoints(&world) == (0.0, 1.0)).await;
        let mut client = http1(&world, HTTP).await;
        assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 503);
        // What was wrong was the check: the right one lets it in, an hour before the next would have come.
        let right = HealthCheck { success_threshold: 1, probe: http_get("/status/204"), ..slow };
        world.waypoint.routings.set(routing(Some(right), None));
        until("it is back", || endpoints(&world) == (1.0, 0.0)).await;
        assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 200);

        world.waypoint.routings.set(routing(Some(quick(http_get("/healthz"))), None));
        until("it is left out again", || endpoints(&world) == (0.0, 1.0)).await;
        // Without the annotation nobody is asked, and nobody is left out.
        world.waypoint.routings.set(routing(None, None));
        until("nobody is checked", || endpoints(&world) == (-1.0, -1.0)).await;
        assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 200);
        nobody_is_asked().await;
        let checked = CHECKED.get();

        // Nor is an endpoint that is gone, or a service.
        world.waypoint.routings.set(routing(Some(quick(http_get("/healthz"))), None));
        until("it is checked again", || CHECKED.get() > checked).await;
        world.waypoint.take(vec![Update::RemoveAddress(world.pod.uid.clone())]);
        until("it is gone", || endpoints(&world) == (0.0, 0.0)).await;
        world.waypoint.take(vec![Update::RemoveAddress(key("reviews").to_string().into())]);
        until("all of it is gone", || endpoints(&world) == (-1.0, -1.0)).await;
        nobody_is_asked().await;
        sick(&[]);
    });
}

/// However often something changes around an endpoint that stays, it is asked when it would have been.
#[test]
fn what_changes_around_an_endpoint_does_not_begin_its_checks_anew() {
    run(async {
        let world = world().await;
        CHECKED.set(0);
        let hourly = HealthCheck { period: Duration::from_secs(3600), ..quick(http_get("/healthz")) };
        world.waypoint.routings.set(routing(Some(hourly.clone()), None));
        until("it was asked", || counted(&world, "passed") == 1.0).await;
        // Every change is taken in before the next. Who begins anew asks within a tenth of a second, at random.
        for number in 0..20 {
            let cause = format!("DestinationRule shop/r{number}");
            let mut routing = routing(Some(hourly.clone()), None);
            let rules = routing.destinations.values_mut().next().unwrap();
            Arc::make_mut(rules).cause = cause.as_str().into();
            world.waypoint.routings.set(routing);
            until("it is known", || world.waypoint.checks.describe()[0]["rules"] == cause).await;
        }
        // Another check is made at once.
        let other = HealthCheck { failure_threshold: 7, ..hourly };
        world.waypoint.routings.set(routing(Some(other), None));
        until("it was asked again", || counted(&world, "passed") >= 2.0).await;
        assert_eq!(CHECKED.get(), 2);
    });
}

/// Each probe against an endpoint that is well and one that is not.
#[test]
fn what_passes_and_what_does_not() {
    run(async {
        let grpc = |service: &str| Probe::Grpc { port: 8081, service: service.into() };
        #[rustfmt::skip]
        let table: [(Probe, bool, &str, &str); 12] = [
            // The probe, whether the pod is sick, what comes of it, and why.
            (http_get("/healthz"), false, "passed", ""),
            (http_get("/healthz"), true, "failed", "http status: 500"),
            (http_get("/status/200"), false, "passed", ""),
            (http_get("/status/302"), false, "passed", ""),
            (http_get("/status/400"), false, "failed", "http status: 400"),
            (http_get("/never"), false, "unreachable", "no answer within 2s"),
            (Probe::Tcp { port: 8082 }, true, "passed", ""),
            // Nobody listens there: the pod's agent says so.
            (Probe::Tcp { port: 8099 }, false, "unreachable", "http status: 503"),
            (grpc(""), false, "passed", ""),
            (grpc(""), true, "failed", "NOT_SERVING"),
            (grpc("Absent"), false, "failed", "does not know the service"),
            (Probe::Grpc { port: 8099, service: "".into() }, false, "unreachable", "http status: 503"),
        ];
        for (probe, is_sick, result, why) in table {
            let world = world().await;
            sick(if is_sick { &[2] } else { &[] });
            let once = HealthCheck { period: Duration::from_secs(3600), ..quick(probe.clone()) };
            world.waypoint.routings.set(routing(Some(once), None));
            until("it was asked", || {
                ["passed", "failed", "unreachable"].iter().any(|of| counted(&world, of) > 0.0)
            })
            .await;
            assert_eq!(
                counted(&world, result),
                1.0,
                "{probe} {is_sick}: {}",
                world.waypoint.checks.describe()
            );
            let told = world.waypoint.checks.describe();
            let last = told[0]["endpoints"][0]["last_failure"].as_str().unwrap_or_default();
            assert!(last.contains(why) && (why.is_empty() == last.is_empty()), "{probe}: {last}");
        }
        sick(&[]);
    });
}

#[test]
fn checks_go_by_the_way_of_requests() {
    run(async {
        let world = world().await;
        let probe = Probe::Http {
            port: 8080,
            path: "/healthz".into(),
            headers: [("Host".into(), "reviews.example".into()), ("X-Deep".into(), "1".into())].into(),
        };
        world.waypoint.routings.set(routing(Some(quick(probe.clone())), None));
        until("it is checked", || counted(&world, "passed") > 0.0).await;
        let head = HEAD.take();
        assert_eq!(
            (&head["host"], &head["x-deep"]),
            (&"reviews.example".parse().unwrap(), &"1".parse().unwrap())
        );
        assert_eq!(head["user-agent"], "lateen/health-check");
        {
            // In a tunnel, as this waypoint.
            let connects = world.connects.borrow();
            let first = connects.first().unwrap();
            assert_eq!(first.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/waypoint");
            assert_eq!(
                (first.authority.as_str(), first.forwarded.as_str()),
                (&*format!("{}:8080", world.pod_ip()), "")
            );
        }
        // A policy at the pod that refuses the waypoint is no silence: it is left out, and why is said.
        REFUSES.set(true);
        until("it is left out", || endpoints(&world) == (0.0, 1.0)).await;
        let told = world.waypoint.checks.describe();
        let last = told[0]["endpoints"][0]["last_failure"].as_str().unwrap_or_default();
        assert_eq!(last, "http status: 403: denied by policy shop/nobody");
        // What has no agent is asked in plain.
        let plain = edit(world.pod.clone(), |pod| pod.protocol = TunnelProtocol::Tcp);
        world.waypoint.take(vec![Update::Workload(plain)]);
        until("it is back", || endpoints(&world) == (1.0, 0.0)).await;
        assert!(HEAD.with_borrow(|head| head.contains_key("x-deep")));
        // One is under way at a time, and those in tunnels are refused: since one has passed, there is none of them.
        let (tunnels, passed) = (world.connects.borrow().len(), counted(&world, "passed"));
        until("it is asked on", || counted(&world, "passed") >= passed + 3.0).await;
        assert_eq!(world.connects.borrow().len(), tunnels);
        REFUSES.set(false);
    });
}

#[test]
fn so_many_checks_are_under_way_at_once() {
    run(async {
        sick(&[]);
        let world = World::bounded(application, Bounds { checks: 1, ..Bounds::default() }).await;
        spawn_local(health::follow(world.waypoint.clone()));
        world.second(application).await;
        // Of three endpoints two fall to one of the two threads.
        let third = edit(pod("third", world.pod_ip()), |third| {
            third.services = world.pod.profile.services.clone();
            third.protocol = TunnelProtocol::Tcp;
        });
        world.waypoint.take(vec![Update::Workload(third)]);
        let slow = HealthCheck { timeout: Duration::from_millis(200), ..quick(http_get("/never")) };
        world.waypoint.routings.set(routing(Some(slow), None));
        until("all are found out nevertheless", || endpoints(&world) == (0.0, 3.0)).await;
        let hits = world.metric("lateen_limit_hits_total{", &["limit=\"health_checks\""]);
        assert!(hits >= Some(1.0), "{hits:?}");
    });
}

/// Hosts of one name in two namespaces, as ServiceEntries may have them that are not exported.
#[test]
fn services_of_one_host_are_counted_apart() {
    run(async {
        let world = world().await;
        let away = NamespacedHostname::new("away", key("reviews").hostname());
        let vips = [NetworkAddress::new("".into(), [10, 96, 0, 77].into())].into();
        world.waypoint.take(vec![Update::Service(Service {
            key: away.clone(),
            vips,
            ..world.service.clone()
        })]);
        let shop = routing(Some(quick(http_get("/healthz"))), None);
        let rules = shop.destinations[&key("reviews")].clone();
        let elsewhere = Routing {
            host: away.clone(),
            default: Some(Box::new(Forward::to_service(away.clone()))),
            destinations: [(away, rules)].into(),
            ..shop.clone()
        };
        world.waypoint.routings.set(elsewhere);
        world.waypoint.routings.set(shop);
        let of = |name: &str, labels: &str, namespace: &str| {
            let namespace = format!("destination_service_namespace=\"{namespace}\"");
            world.metric(name, &[labels, &namespace])
        };
        let healthy = |namespace| of("lateen_health_check_endpoints{", "state=\"healthy\"", namespace);
        until("both are known", || healthy("shop") == Some(1.0) && healthy("away") == Some(0.0)).await;
        let passed = |namespace| of("lateen_health_checks_total{", "result=\"passed\"", namespace);
        until("one of them is checked", || passed("shop") >= Some(1.0)).await;
        assert_eq!(passed("away"), Some(0.0), "it has no endpoint");
    });
}

/// When the waypoint ends, no check opens a tunnel again.
#[test]
fn the_last_call_ends_checks() {
    run(async {
        let world = world().await;
        world.waypoint.routings.set(routing(Some(quick(http_get("/healthz"))), None));
        until("it is checked", || counted(&world, "passed") > 0.0).await;
        world.waypoint.ending.call_last();
        crate::worker::hung_up(&world.waypoint).await;
        nobody_is_asked().await;
        crate::worker::hung_up(&world.waypoint).await;
    });
}
