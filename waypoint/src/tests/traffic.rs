//! Requests to a service whose DestinationRule says who takes them, how much may be under way, and who is left out.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hbone::headers::Headers;
use hbone::tunnel::ConnectError;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use model::address::NetworkAddress;
use model::mesh::Update;
use model::route::{Destination, Destinations, Forward, Fraction, Mirror, RetryPolicy, Routing};
use model::service::Service;
use model::traffic::{
    self, Algorithm, ConnectionPool, ConsistentHash, HashAlgorithm, HashCookie, HashKey, HttpSettings,
    LoadBalancer, OutlierDetection, RetryBudget, Subset, TcpKeepalive, TcpSettings, TrafficPolicy,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use super::fixtures::{key, waypoint};
use super::requests::{get, http1, http1_at, http2, whole};
use super::world::{GRPC, HTTP, TCP, VIP, World, run};
use crate::http::LocalExecutor;
use crate::limits::Bounds;

thread_local! {
    /// Whether the first pod answers 503 to all.
    static FAILS: Cell<bool> = const { Cell::new(false) };
    /// How many requests each pod has had, by the last byte of its address.
    static ASKED: RefCell<BTreeMap<u8, u32>> = const { RefCell::new(BTreeMap::new()) };
    /// What they have had: which pod, for which host, with which body.
    static SEEN: RefCell<Vec<(u8, String, Bytes)>> = const { RefCell::new(Vec::new()) };
    /// Connections that the pods have accepted.
    static ACCEPTED: Cell<u32> = const { Cell::new(0) };
    /// What `/wait` waits for.
    static GO: RefCell<std::rc::Rc<Notify>> = RefCell::default();
}

/// An application that counts, answers who it is, fails where it is told to, and waits on `/wait`.
pub(super) async fn application(socket: TcpStream, _port: u16) {
    let IpAddr::V4(ip) = socket.local_addr().unwrap().ip() else { panic!("IPv4 only") };
    let pod = ip.octets()[3];
    ACCEPTED.set(ACCEPTED.get() + 1);
    let service = service_fn(move |request: Request<Incoming>| async move {
        ASKED.with_borrow_mut(|asked| *asked.entry(pod).or_default() += 1);
        if request.uri().path() == "/wait" {
            GO.with_borrow(std::rc::Rc::clone).notified().await;
        }
        let host = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
        if let Ok(body) = request.into_body().collect().await {
            SEEN.with_borrow_mut(|seen| seen.push((pod, host.unwrap_or_default(), body.to_bytes())));
        }
        let mut response = Response::new(Full::new(Bytes::from(pod.to_string())));
        if pod == 2 && FAILS.get() {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        Ok::<_, Infallible>(response)
    });
    let _ = auto::Builder::new(LocalExecutor).serve_connection(TokioIo::new(socket), service).await;
}

/// How many requests each pod has had since this was asked last.
fn asked() -> BTreeMap<u8, u32> {
    ASKED.take()
}

fn round_robin() -> Option<LoadBalancer> {
    Some(LoadBalancer { algorithm: Algorithm::RoundRobin, ..LoadBalancer::default() })
}

/// The service's own routing under a policy, without retries.
pub(super) fn routing(policy: TrafficPolicy) -> Routing {
    with_retries(policy, None)
}

fn with_retries(policy: TrafficPolicy, retry: Option<RetryPolicy>) -> Routing {
    let destination =
        traffic::Destination { cause: "DestinationRule shop/reviews".into(), policy, ..Default::default() };
    let default = Forward { retry: retry.map(Arc::new), ..Forward::to_service(key("reviews")) };
    Routing {
        host: key("reviews"),
        http: Box::default(),
        tls: Box::default(),
        tcp: Box::default(),
        default: Some(Box::new(default)),
        destinations: [(key("reviews"), Arc::new(destination))].into(),
    }
}

pub(super) fn pool(http: HttpSettings, tcp: TcpSettings) -> TrafficPolicy {
    TrafficPolicy { connection_pool: Some(ConnectionPool { tcp, http }), ..TrafficPolicy::default() }
}

fn outliers(threshold: u32, most: u32) -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: threshold,
        interval: Duration::from_millis(50),
        base_ejection_time: Duration::from_millis(300),
        max_ejection_percent: most,
        ..OutlierDetection::default()
    }
}

#[test]
fn a_circuit_breaker_opens_and_closes_again() {
    run(async {
        let world = World::new(application).await;
        world.second(application).await;
        let upkeep = world.waypoint.clone();
        spawn_local(async move { upkeep.clusters.upkeep().await });
        let policy = TrafficPolicy {
            load_balancer: round_robin(),
            outlier_detection: Some(outliers(3, 100)),
            ..TrafficPolicy::default()
        };
        world.waypoint.routings.set(routing(policy));
        FAILS.set(true);
        let mut client = http1(&world, HTTP).await;
        let mut failed = 0;
        for _ in 0..40 {
            failed += u32::from(whole(client.send_request(get("/")).await.unwrap()).await.0 == 503);
        }
        assert_eq!(failed, 3, "the third failure in a row ejects it");
        assert_eq!(asked(), [(2, 3), (3, 37)].into());
        let told = |what: &str| {
            let name = format!("envoy_cluster_outlier_detection_ejections_{what}{{");
            let cluster = "cluster_name=\"outbound|80||reviews.shop.svc.cluster.local\"";
            world.metric(&name, &[cluster, "destination_service_namespace=\"shop\""])
        };
        let counts = ["enforced_total", "enforced_consecutive_5xx", "enforced_consecutive_gateway_failure"];
        assert_eq!(counts.map(told), [Some(1.0), Some(1.0), Some(0.0)]);
        // It returns after its time, and is asked again.
        FAILS.set(false);
        while !asked().contains_key(&2) {
            sleep(Duration::from_millis(20)).await;
            assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 200);
        }
        assert_eq!(["active", "overflow"].map(told), [Some(0.0), Some(0.0)]);
    });
}

#[test]
fn who_is_ejected_stays_so_when_rules_and_endpoints_change() {
    run(async {
        let world = World::new(application).await;
        world.second(application).await;
        let policy = |interval| TrafficPolicy {
            load_balancer: round_robin(),
            outlier_detection: Some(OutlierDetection { interval, ..outliers(1, 100) }),
            ..TrafficPolicy::default()
        };
        world.waypoint.routings.set(routing(policy(Duration::from_secs(1))));
        FAILS.set(true);
        let mut client = http1(&world, HTTP).await;
        for _ in 0..4 {
            whole(client.send_request(get("/")).await.unwrap()).await;
        }
        assert_eq!(asked()[&2], 1);
        world.waypoint.routings.set(routing(policy(Duration::from_secs(2))));
        world.waypoint.labels.set(&world.pod.uid, None);
        for _ in 0..10 {
            assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 200);
        }
        assert_eq!(asked(), [(3, 10)].into());
        // Without outlier detection there is nobody to leave out.
        world
            .waypoint
            .routings
            .set(routing(TrafficPolicy { load_balancer: round_robin(), ..TrafficPolicy::default() }));
        for _ in 0..10 {
            whole(client.send_request(get("/")).await.unwrap()).await;
        }
        assert_eq!(asked(), [(2, 5), (3, 5)].into());
    });
}

/// Whoever has a host behind the waypoint may lead it to anybody's service, and write rules for that one in his own
/// namespace: they are for those who come by his host, and take nothing from the owner's.
#[test]
fn what_another_hosts_rules_say_of_a_service_is_for_those_who_come_by_it() {
    const LURE: &str = "10.96.0.7";
    run(async {
        let world = World::new(application).await;
        world.second(application).await;
        let policy = TrafficPolicy {
            load_balancer: round_robin(),
            outlier_detection: Some(outliers(1, 100)),
            ..TrafficPolicy::default()
        };
        world.waypoint.routings.set(routing(policy));
        FAILS.set(true);
        let mut client = http1(&world, HTTP).await;
        for _ in 0..4 {
            whole(client.send_request(get("/")).await.unwrap()).await;
        }
        assert_eq!(asked()[&2], 1);
        // Newer than the owner's, and without a word of outliers: nobody is left out. Or without any rules.
        let bound = Service { waypoint: Some(waypoint("waypoint").into()), ..world.service.clone() };
        let vips = [NetworkAddress::new("".into(), LURE.parse().unwrap())].into();
        world.waypoint.take(vec![Update::Service(Service { key: key("lure"), vips, ..bound })]);
        for own in [true, false] {
            let mut theirs =
                routing(TrafficPolicy { load_balancer: round_robin(), ..TrafficPolicy::default() });
            theirs.host = key("lure");
            for rules in theirs.destinations.values_mut() {
                Arc::make_mut(rules).cause = "DestinationRule other/reviews".into();
            }
            if !own {
                theirs.destinations.clear();
            }
            world.waypoint.routings.set(theirs);
            let mut lured = http1_at(&world, &format!("{LURE}:{HTTP}")).await;
            for _ in 0..40 {
                whole(lured.send_request(get("/")).await.unwrap()).await;
            }
            assert!(asked().contains_key(&2), "by the other host all are asked");
            for _ in 0..10 {
                assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 200);
            }
            assert_eq!(asked(), [(3, 10)].into(), "who is left out for the owner stays so");
        }
        let active = "envoy_cluster_outlier_detection_ejections_active{";
        assert_eq!(world.metric(active, &["cluster_name=\"outbound|80||reviews."]), Some(1.0));
    });
}

#[test]
fn all_ejected_is_no_healthy_upstream_unless_too_few_are_left() {
    run(async {
        for (panic, expected) in [(0, (503, "UH")), (50, (503, "-"))] {
            let world = World::new(application).await;
            FAILS.set(true);
            let detection = OutlierDetection { min_health_percent: panic, ..outliers(1, 100) };
            let policy = TrafficPolicy { outlier_detection: Some(detection), ..TrafficPolicy::default() };
            world.waypoint.routings.set(routing(policy));
            let mut client = http1(&world, HTTP).await;
            assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 503);
            asked();
            let (status, text) = whole(client.send_request(get("/")).await.unwrap()).await;
            assert_eq!(status, expected.0);
            let flags = format!("response_flags=\"{}\"", expected.1);
            assert!(world.metric("istio_requests_total{", &[&flags]).is_some(), "{text}");
            assert_eq!(asked().contains_key(&2), panic > 0, "in panic all are asked: {text}");
            let active = world.metric("envoy_cluster_outlier_detection_ejections_active{", &[]);
            assert_eq!(active, Some(1.0));
        }
    });
}

#[test]
fn a_pool_that_is_full_overflows() {
    run(async {
        let limits = |requests, connections, pending| {
            pool(
                HttpSettings {
                    http2_max_requests: requests,
                    http1_max_pending_requests: pending,
                    ..HttpSettings::default()
                },
                TcpSettings { max_connections: connections, ..TcpSettings::default() },
            )
        };
        const ANY: u32 = u32::MAX;
        // Requests, connections, waiting; how many of five at once are refused; connections made. Who is refused only once it
        // has a connection may leave it to the next.
        for (requests, connections, pending, refused, made) in [
            (2, ANY, ANY, 3, 3..=5),
            (ANY, 1, 2, 2, 1..=1),
            (ANY, 2, ANY, 0, 2..=2),
            (ANY, ANY, ANY, 0, 5..=5),
        ] {
            // What nobody waited for any more lets nobody of this row go.
            GO.set(std::rc::Rc::default());
            let world = World::new(application).await;
            world.waypoint.routings.set(routing(limits(requests, connections, pending)));
            ACCEPTED.set(0);
            asked();
            let client = http2(&world, HTTP).await;
            let (told, mut tell) = mpsc::channel(5);
            for number in 0..5 {
                let (mut client, told) = (client.clone(), told.clone());
                spawn_local(async move {
                    let response = client.send_request(get("/wait")).await.unwrap();
                    let overloaded = response.headers().contains_key("x-envoy-overloaded");
                    let _ = told.send((whole(response).await, overloaded)).await;
                });
                // The first has its connection before the others come, and waits no more.
                while number == 0 && asked().is_empty() {
                    sleep(Duration::from_millis(5)).await;
                }
            }
            for _ in 0..refused {
                let ((status, text), overloaded) = tell.recv().await.unwrap();
                assert_eq!((status, overloaded), (503, true), "{text}");
                assert!(text.ends_with("reset reason: overflow"), "{text}");
            }
            let row = (requests, connections, pending);
            for _ in refused..5 {
                // One of those that have been let through is answered at a time.
                let answer = loop {
                    GO.with_borrow(|go| go.notify_one());
                    tokio::select! {
                        answer = tell.recv() => break answer.unwrap(),
                        () = sleep(Duration::from_millis(20)) => {}
                    }
                };
                assert_eq!((answer.0.0, answer.1), (200, false), "{row:?} {answer:?}");
            }
            assert!(made.contains(&ACCEPTED.get()), "{row:?}: {}", ACCEPTED.get());
            let overflows = world.metric("istio_requests_total{", &["response_flags=\"UO\""]);
            assert_eq!(overflows, (refused > 0).then_some(f64::from(refused)), "{row:?}");
            // What is over does not count.
            assert_eq!(whole(client.clone().send_request(get("/")).await.unwrap()).await.0, 200);
        }
    });
}

#[test]
fn connections_carry_as_many_requests_as_they_may() {
    run(async {
        for (most, connections) in [(0, 1), (1, 6), (4, 2)] {
            let http = HttpSettings { max_requests_per_connection: most, ..HttpSettings::default() };
            let world = World::new(application).await;
            world.waypoint.routings.set(routing(pool(http, TcpSettings::default())));
            ACCEPTED.set(0);
            let mut client = http1(&world, HTTP).await;
            for _ in 0..6 {
                assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 200);
            }
            assert_eq!(ACCEPTED.get(), connections, "{most} on each");
        }
    });
}

#[test]
fn retries_go_elsewhere_and_no_more_than_may() {
    run(async {
        let retry = || RetryPolicy {
            attempts: 3,
            status_codes: [StatusCode::SERVICE_UNAVAILABLE].into(),
            backoff: Duration::from_millis(1),
            ..RetryPolicy::default()
        };
        let limited = |budget| TrafficPolicy {
            load_balancer: round_robin(),
            retry_budget: budget,
            ..TrafficPolicy::default()
        };
        FAILS.set(true);
        let world = World::new(application).await;
        world.second(application).await;
        world.waypoint.routings.set(with_retries(limited(None), Some(retry())));
        let mut client = http1(&world, HTTP).await;
        for _ in 0..20 {
            assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 200);
        }
        asked();
        // Where there is only the one that fails, it is asked as often as it may be; the answer is the last.
        let world = World::new(application).await;
        for (budget, tries, flags) in [
            (None, 4, "URX"),
            (Some(RetryBudget { percent: 0.0, min_retry_concurrency: 0, ..RetryBudget::default() }), 1, "UO"),
        ] {
            world.waypoint.routings.set(with_retries(limited(budget), Some(retry())));
            let mut client = http1(&world, HTTP).await;
            assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 503);
            assert_eq!(asked(), [(2, tries)].into());
            let labels = [format!("response_flags=\"{flags}\"")];
            assert_eq!(world.metric("istio_requests_total{", &[&labels[0]]), Some(1.0), "{flags}");
        }
    });
}

#[test]
fn the_same_key_leads_to_the_same_endpoint() {
    run(async {
        FAILS.set(false);
        let cookie = HashCookie {
            name: "user".into(),
            path: Some("/".into()),
            ttl: Some(Duration::from_secs(60)),
            attributes: Box::default(),
        };
        let keys = [
            HashKey::Header("x-user".into()),
            HashKey::QueryParameter("user".into()),
            HashKey::Cookie(cookie),
            HashKey::SourceIp,
        ];
        let algorithms = [
            HashAlgorithm::default(),
            HashAlgorithm::Maglev { table_size: HashAlgorithm::DEFAULT_TABLE_SIZE },
        ];
        let world = World::new(application).await;
        world.second(application).await;
        for (key, algorithm) in keys.iter().flat_map(|key| algorithms.map(|algorithm| (key, algorithm))) {
            let hash = ConsistentHash { key: key.clone(), algorithm };
            let balancer =
                LoadBalancer { algorithm: Algorithm::ConsistentHash(hash), ..LoadBalancer::default() };
            let policy = TrafficPolicy { load_balancer: Some(balancer), ..TrafficPolicy::default() };
            world.waypoint.routings.set(routing(policy));
            let mut seen = BTreeMap::new();
            for user in 0..20 {
                let mut pods = Vec::new();
                for _ in 0..3 {
                    // Another connection each time, and maybe another thread.
                    let mut client = http1(&world, HTTP).await;
                    let request = Request::get(format!("/?user={user}"))
                        .header("host", "reviews")
                        .header("x-user", user.to_string())
                        .header("cookie", format!("other=1; user=\"{user}\""));
                    let request = request.body(Empty::new().map_err(|never| match never {}).boxed()).unwrap();
                    let response = client.send_request(request).await.unwrap();
                    assert!(!response.headers().contains_key("set-cookie"), "it has one");
                    pods.push(whole(response).await.1);
                }
                assert!(pods.iter().all(|pod| *pod == pods[0]), "{key:?}: {pods:?}");
                *seen.entry(pods[0].clone()).or_insert(0) += 1;
            }
            let both = seen.len() == 2;
            assert_eq!(both, *key != HashKey::SourceIp, "{key:?}: {seen:?}");
        }
    });
}

#[test]
fn who_has_no_cookie_is_given_one_that_leads_there_again() {
    run(async {
        let world = World::new(application).await;
        world.second(application).await;
        let cookie = HashCookie {
            name: "user".into(),
            path: Some("/shop".into()),
            ttl: Some(Duration::from_secs(60)),
            attributes: Box::default(),
        };
        let hash = ConsistentHash { key: HashKey::Cookie(cookie), algorithm: HashAlgorithm::default() };
        let balancer = LoadBalancer { algorithm: Algorithm::ConsistentHash(hash), ..LoadBalancer::default() };
        let policy = TrafficPolicy { load_balancer: Some(balancer), ..TrafficPolicy::default() };
        world.waypoint.routings.set(routing(policy));
        for _ in 0..8 {
            let mut client = http1(&world, HTTP).await;
            let response = client.send_request(get("/")).await.unwrap();
            let given = response.headers()["set-cookie"].to_str().unwrap().to_owned();
            assert!(given.ends_with("; Max-Age=60; Path=/shop; HttpOnly"), "{given}");
            let first = whole(response).await.1;
            let mut client = http1(&world, HTTP).await;
            let mut again = get("/");
            again.headers_mut().insert("cookie", given.split(';').next().unwrap().parse().unwrap());
            let response = client.send_request(again).await.unwrap();
            assert!(!response.headers().contains_key("set-cookie"));
            assert_eq!(whole(response).await.1, first);
        }
    });
}

#[test]
fn a_mirror_gets_the_whole_body_and_its_failure_is_nobody_s() {
    run(async {
        let world = World::new(application).await;
        world.second(application).await;
        let to =
            |version: &str| Destination { subset: Some(version.into()), ..Destination::of(key("reviews")) };
        let subset = |version: &str| Subset {
            name: version.into(),
            labels: [("version".into(), version.into())].into(),
            policy: None,
        };
        let mirror = Mirror { destination: to("v1"), share: Fraction::ALL };
        let forward = Forward {
            destinations: Destinations::One(to("v2")),
            mirrors: [mirror.clone(), Mirror { destination: to("v9"), ..mirror }].into(),
            ..Forward::default()
        };
        let rules =
            traffic::Destination { subsets: [subset("v1"), subset("v2")].into(), ..Default::default() };
        world.waypoint.routings.set(Routing {
            default: Some(Box::new(forward)),
            destinations: [(key("reviews"), Arc::new(rules))].into(),
            ..routing(TrafficPolicy::default())
        });
        FAILS.set(true);
        let mut client = http1(&world, HTTP).await;
        let parts = [vec![b'a'; 20_000], vec![b'b'; 30_000]].map(Bytes::from);
        let frames = parts.clone().map(|part| Ok::<_, hyper::Error>(Frame::data(part)));
        let body = StreamBody::new(futures_util::stream::iter(frames)).boxed();
        let request = Request::post("/").header("host", "reviews:80").body(body).unwrap();
        assert_eq!(whole(client.send_request(request).await.unwrap()).await, (200, "3".to_owned()));
        while SEEN.with_borrow(Vec::len) < 2 {
            sleep(Duration::from_millis(5)).await;
        }
        let mut seen = SEEN.take();
        seen.sort();
        let hosts: Vec<(u8, &str)> = seen.iter().map(|(pod, host, _)| (*pod, &**host)).collect();
        assert_eq!(hosts, [(2, "reviews-shadow:80"), (3, "reviews:80")]);
        assert!(seen.iter().all(|(_, _, body)| *body == parts.concat()));
    });
}

#[test]
fn connections_of_plain_tcp_are_limited_too() {
    run(async {
        let world = World::new(application).await;
        let tcp = TcpSettings { max_connections: 1, ..TcpSettings::default() };
        world.waypoint.routings.set(routing(pool(HttpSettings::default(), tcp)));
        let first = world.connect(TCP).await;
        let authority = format!("{VIP}:{TCP}");
        assert_eq!(world.connect_as("client", &authority).await.err(), Some(503));
        drop(first);
        while world.connect_as("client", &authority).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    });
}

/// Connections to an address, as the kernel lists them: which timer runs for each, and when it fires, in hundredths of a
/// second.
fn timers(to: std::net::SocketAddr) -> Vec<(String, u32)> {
    let IpAddr::V4(ip) = to.ip() else { panic!("IPv4 only") };
    let to = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), to.port());
    let listed = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let rows = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[2] == to && row[3] == "01")
        .map(|row| row[5].split_once(':').unwrap())
        .map(|(timer, when)| (timer.to_owned(), u32::from_str_radix(when, 16).unwrap()))
        .collect()
}

#[test]
fn probes_are_on_the_sockets_of_who_asks_for_them() {
    run(async {
        let world = World::new(application).await;
        let agent = std::net::SocketAddr::new(world.pod_ip(), 15008);
        let mut client = http1(&world, HTTP).await;
        assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 200);
        let probing = || timers(agent).into_iter().filter(|(timer, _)| timer == "02").collect::<Vec<_>>();
        assert_eq!((timers(agent).len(), probing()), (1, vec![]), "none unless said");
        let keepalive = TcpKeepalive { time: Some(Duration::from_secs(20)), ..TcpKeepalive::default() };
        let tcp = TcpSettings { keepalive: Some(keepalive), ..TcpSettings::default() };
        world.waypoint.routings.set(routing(pool(HttpSettings::default(), tcp)));
        assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 200);
        let seen = probing();
        assert_eq!(seen.len(), 1, "a tunnel of its own");
        assert!(seen[0].1 <= 2000, "the first probe is due within 20 s: {seen:?}");
    });
}

#[test]
fn connections_of_plain_tcp_end_when_idle_or_old() {
    run(async {
        let world = World::new(super::streams::application).await;
        let (idle, age) = (Duration::from_millis(300), Duration::from_millis(600));
        let rows = [
            (TcpSettings { idle_timeout: Some(idle), ..TcpSettings::default() }, idle, "-"),
            (TcpSettings { max_connection_duration: Some(age), ..TcpSettings::default() }, age, "DT"),
        ];
        for (tcp, least, flags) in rows {
            world.waypoint.routings.set(routing(pool(HttpSettings::default(), tcp.clone())));
            let begun = Instant::now();
            let mut stream = world.connect(TCP).await;
            let mut spoken = begun;
            // A byte now and then: not idle, but older and older.
            while flags == "-" && begun.elapsed() < idle * 2 {
                spoken = Instant::now();
                stream.write_all(b"x").await.unwrap();
                sleep(idle / 6).await;
            }
            let read = stream.read(&mut [0; 1]).await;
            assert!(read.is_err(), "{tcp:?}: {read:?}");
            assert!(spoken.elapsed() >= least, "{tcp:?}: {:?}", spoken.elapsed());
            let labels = ["reporter=\"waypoint\"", &format!("response_flags=\"{flags}\"")];
            while world.metric("istio_tcp_connections_closed_total{", &labels) != Some(1.0) {
                sleep(Duration::from_millis(5)).await;
            }
        }
    });
}

/// A body that a channel brings stays open until it ends: streams of HTTP/2 are as many on a connection as they may be.
#[test]
fn streams_are_as_many_on_a_connection_as_they_may() {
    run(async {
        let http = HttpSettings { max_concurrent_streams: 2, ..HttpSettings::default() };
        let world = World::new(super::requests::application).await;
        world.waypoint.routings.set(routing(pool(http, TcpSettings::default())));
        let client = http2(&world, GRPC).await;
        let mut open = Vec::new();
        for _ in 0..4 {
            let (say, said) = mpsc::channel::<Result<Frame<Bytes>, hyper::Error>>(1);
            let said =
                futures_util::stream::unfold(said, |mut said| async { Some((said.recv().await?, said)) });
            let body = StreamBody::new(Box::pin(said)).boxed();
            let request = Request::post("http://reviews/echo").body(body).unwrap();
            open.push((say, client.clone().send_request(request).await.unwrap()));
        }
        assert_eq!(world.connects.borrow().len(), 2);
    });
}

#[test]
fn connections_to_endpoints_are_bounded_whatever_is_spoken_on_them() {
    run(async {
        let bounds = || Bounds { upstream_connections: 2, ..Bounds::default() };
        let hits = |world: &World| {
            world.metric("lateen_limit_hits_total", &["limit=\"upstream_connections\""]).unwrap_or_default()
        };
        for port in [HTTP, GRPC] {
            let world = World::bounded(application, bounds()).await;
            // Each request has a connection of its own.
            let http = HttpSettings { max_requests_per_connection: 1, ..HttpSettings::default() };
            world.waypoint.routings.set(routing(pool(http, TcpSettings::default())));
            asked();
            let client = http2(&world, port).await;
            let wait = || {
                let mut client = client.clone();
                spawn_local(async move { whole(client.send_request(get("/wait")).await.unwrap()).await })
            };
            let two = [wait(), wait()];
            while ASKED.with_borrow(|asked| asked.values().sum::<u32>()) < 2 {
                sleep(Duration::from_millis(5)).await;
            }
            let (status, text) = whole(client.clone().send_request(get("/")).await.unwrap()).await;
            assert_eq!((status, hits(&world)), (503, 1.0), "{port}: {text}");
            GO.with_borrow(|go| go.notify_waiters());
            for waiting in two {
                assert_eq!(waiting.await.unwrap().0, 200);
            }
            // What is over does not count.
            while whole(client.clone().send_request(get("/")).await.unwrap()).await.0 != 200 {
                sleep(Duration::from_millis(5)).await;
            }
        }
        let world = World::bounded(application, bounds()).await;
        // One tunnel, that is one thread.
        let tunnel = world.tunnel("client").await;
        let connect = || async { tunnel.connect(&format!("{VIP}:{TCP}"), &Headers::new()).await };
        let two = [connect().await.unwrap(), connect().await.unwrap()];
        assert_eq!(world.waypoint.ledger.descriptors(), 2, "the client's tunnel, and the one to the pod");
        let refused = connect().await.unwrap_err();
        assert!(matches!(refused, ConnectError::Refused { status: 503, .. }), "{refused}");
        assert_eq!(hits(&world), 1.0);
        drop(two);
        while connect().await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
    });
}
