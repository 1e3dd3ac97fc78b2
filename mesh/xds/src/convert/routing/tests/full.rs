//! A routing in which every field says something.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use model::address::{NamespacedHostname, Str};
use model::route::action::PathRewrite;
use model::route::cors::UnmatchedPreflights;
use model::route::fault::{Abort, AbortWith, Delay};
use model::route::redirect::{RedirectPath, RedirectPort};
use model::route::regex::Substitution;
use model::route::retry::RetryCondition;
use model::route::stream::{SniMatch, TcpMatch, TcpRule, TlsMatch, TlsRule};
use model::route::template::Template;
use model::route::{
    Action, Cors, Destination, Destinations, DirectResponse, Fault, Forward, Fraction, HeaderChanges,
    HeaderKey, HeaderMatch, HttpMatch, HttpRule, Mirror, Operations, PathMatch, QueryMatch, Redirect, Regex,
    ResourceName, RetryPolicy, Routing, RuleList, RuleSource, Scope, TextMatch, Weighted,
};
use model::traffic::{
    Algorithm, ClientTls, ConnectionPool, ConsistentHash, Distribute, Failover, H2UpgradePolicy,
    HashAlgorithm, HashCookie, HashKey, HealthCheck, Http2KeepAlive, HttpSettings, LoadBalancer, LocalityLb,
    OutlierDetection, PortPolicy, PriorityLabel, Probe, ProxyProtocol, RetryBudget, Subset, TcpKeepalive,
    TcpSettings, TlsMode, TrafficPolicy, Warmup,
};

fn text(text: &str) -> Str {
    text.into()
}

fn some(name: &str) -> Option<Str> {
    Some(name.into())
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn header(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

fn exact(value: &str) -> TextMatch {
    TextMatch::Exact(value.into())
}

pub(in crate::convert::routing) fn host(hostname: &str) -> NamespacedHostname {
    NamespacedHostname::new("default", hostname)
}

fn source(name: &str, list: RuleList, index: u32) -> RuleSource {
    let resource =
        ResourceName { kind: "VirtualService".into(), namespace: "default".into(), name: name.into() };
    RuleSource { resource: Arc::new(resource), list, index }
}

fn operations(authority: Option<&str>) -> Box<Operations> {
    let value = |text: &str| Template::parse(text).unwrap();
    Box::new(Operations {
        remove: [header("x-internal")].into(),
        set: [(header("x-user"), value("%REQ(user)%"))].into(),
        add: [(header("x-share"), value("100%%")), (header("x-two"), value("2"))].into(),
        authority: authority.map(Into::into),
    })
}

fn changes() -> HeaderChanges {
    HeaderChanges { request: Some(operations(Some("other.example:81"))), response: Some(operations(None)) }
}

fn destination(subset: &str) -> Destination {
    Destination {
        service: host("reviews.default.svc.cluster.local"),
        subset: some(subset),
        port: Some(9081),
        headers: changes(),
    }
}

fn scope() -> Scope {
    Scope {
        port: Some(9080),
        source_labels: [(text("app"), text("productpage"))].into(),
        source_namespace: some("shop"),
    }
}

fn condition() -> HttpMatch {
    let header = |name: &str, value| HeaderMatch { key: HeaderKey::parse(name).unwrap(), value };
    HttpMatch {
        name: some("beta"),
        scope: scope(),
        path: Some(PathMatch::Prefix("/api".into())),
        ignore_path_case: true,
        scheme: Some(exact("http")),
        method: Some(TextMatch::Regex(Regex::new("GET|POST").unwrap())),
        authority: Some(TextMatch::Regex(Regex::ignoring_case("Reviews.*").unwrap())),
        headers: [header("end-user", TextMatch::Prefix("ja".into())), header(":path", TextMatch::Present)]
            .into(),
        without_headers: [header("x-batch", exact("1"))].into(),
        query: [QueryMatch { name: "v".into(), value: exact("2") }].into(),
        stat_prefix: some("beta-stats"),
    }
}

fn path(path: PathMatch) -> HttpMatch {
    HttpMatch { path: Some(path), ..HttpMatch::default() }
}

fn retry() -> RetryPolicy {
    RetryPolicy {
        attempts: 5,
        on: RetryCondition::ALL.into_iter().collect(),
        status_codes: [StatusCode::NOT_FOUND, StatusCode::BAD_GATEWAY].into(),
        headers: [header("x-again")].into(),
        per_try_timeout: Some(ms(300)),
        backoff: ms(10),
        remote_localities: true,
        ignore_previous_hosts: Some(false),
    }
}

fn forward() -> Forward {
    let weighted = |weight, subset| Weighted { weight, destination: destination(subset) };
    Forward {
        destinations: Destinations::Split([weighted(95, "v1"), weighted(5, "v2"), weighted(0, "v3")].into()),
        missing: [text("subset v4 of default/reviews")].into(),
        rewrite_path: Some(PathRewrite::Replace("/v2".into())),
        rewrite_authority: some("reviews.example"),
        timeout: Some(Duration::new(2, 500_000_000)),
        retry: Some(Arc::new(retry())),
        mirrors: [Mirror { destination: destination("v3"), share: Fraction::millionths(10_000) }].into(),
    }
}

fn cors() -> Cors {
    let list = |text| Some(HeaderValue::from_static(text));
    Cors {
        allow_origins: [exact("https://a.example"), TextMatch::Regex(Regex::new("https://.*").unwrap())]
            .into(),
        allow_methods: list("GET,POST"),
        allow_headers: list("x-user"),
        expose_headers: list("x-total"),
        max_age: Some(0),
        allow_credentials: true,
        unmatched_preflights: UnmatchedPreflights::Ignore,
    }
}

fn http_rules() -> Box<[HttpRule]> {
    let rule = |index, matches: Box<[HttpMatch]>, action| HttpRule {
        source: source("reviews", RuleList::Http, index),
        name: None,
        matches,
        action,
        headers: HeaderChanges::default(),
        fault: None,
        cors: None,
    };
    let first = HttpRule {
        name: some("canary"),
        headers: changes(),
        fault: Some(Box::new(Fault {
            delay: Some(Delay { after: ms(7), share: Fraction::millionths(1) }),
            abort: Some(Abort { with: AbortWith::Grpc(14), share: Fraction::ALL }),
        })),
        cors: Some(Box::new(cors())),
        ..rule(0, [condition(), HttpMatch::default()].into(), Action::Forward(Box::new(forward())))
    };
    let redirect = |path, port| {
        Action::Redirect(Box::new(Redirect {
            path: Some(path),
            authority: some("new.example"),
            port: Some(port),
            scheme: some("https"),
            code: StatusCode::PERMANENT_REDIRECT,
        }))
    };
    let substitution = Substitution::new("^/a/(.*)$", r"/b/\1").unwrap();
    let sole = Forward {
        destinations: Destinations::One(destination("v1")),
        rewrite_path: Some(PathRewrite::Regex(substitution)),
        ..Forward::default()
    };
    let answer =
        DirectResponse { status: StatusCode::IM_A_TEAPOT, body: Some(Arc::from(*b"short and stout")) };
    let abort = Abort { with: AbortWith::Http(StatusCode::BAD_GATEWAY), share: Fraction::NONE };
    let second = HttpRule {
        source: source("reviews-more", RuleList::Http, 0),
        fault: Some(Box::new(Fault { delay: None, abort: Some(abort) })),
        ..rule(
            1,
            [path(PathMatch::Exact("/old".into()))].into(),
            redirect(RedirectPath::Whole("/new?a".into()), RedirectPort::OfRequest),
        )
    };
    [
        first,
        second,
        rule(2, Box::default(), redirect(RedirectPath::Prefix("/p".into()), RedirectPort::Number(8443))),
        rule(
            3,
            [path(PathMatch::Regex(Regex::new("/[0-9]+").unwrap()))].into(),
            Action::Forward(Box::new(sole)),
        ),
        rule(4, Box::default(), Action::Respond(Box::new(answer))),
    ]
    .into()
}

fn tcp_match() -> TcpMatch {
    TcpMatch {
        scope: scope(),
        destination_subnets: ["10.1.0.0/16".parse().unwrap(), "fd00:1::/32".parse().unwrap()].into(),
    }
}

fn load_balancer(algorithm: Algorithm) -> LoadBalancer {
    let label =
        |name: &str, value: Option<&str>| PriorityLabel { name: name.into(), value: value.map(Into::into) };
    LoadBalancer {
        algorithm,
        locality: Some(LocalityLb {
            enabled: true,
            distribute: [Distribute {
                from: "r1/*".into(),
                to: [(text("r1/z1/*"), 70), (text("r2/*"), 30)].into(),
            }]
            .into(),
            failover: [Failover { from: "r1".into(), to: "r2".into() }].into(),
            failover_priority: [label("topology.istio.io/network", None), label("tier", Some("gold"))].into(),
        }),
        warmup: Some(Warmup { duration: ms(30_000), minimum_percent: 20.0, aggression: 1.5 }),
    }
}

fn hash(key: HashKey, algorithm: HashAlgorithm) -> Algorithm {
    Algorithm::ConsistentHash(ConsistentHash { key, algorithm })
}

fn connection_pool() -> ConnectionPool {
    ConnectionPool {
        tcp: TcpSettings {
            max_connections: 100,
            connect_timeout: ms(30),
            keepalive: Some(TcpKeepalive {
                probes: Some(3),
                time: Some(ms(7_200_000)),
                interval: Some(ms(75_000)),
            }),
            max_connection_duration: Some(ms(1)),
            idle_timeout: Some(Duration::ZERO),
        },
        http: HttpSettings {
            http1_max_pending_requests: 1,
            http2_max_requests: 2,
            max_requests_per_connection: 3,
            max_retries: 4,
            idle_timeout: Some(ms(5)),
            h2_upgrade_policy: H2UpgradePolicy::Upgrade,
            use_client_protocol: true,
            max_concurrent_streams: 6,
            http2_keep_alive: Some(Http2KeepAlive { interval: ms(7), timeout: ms(8) }),
        },
    }
}

fn outlier_detection() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 7,
        consecutive_gateway: 6,
        consecutive_local_origin: 5,
        split_local_origin: true,
        interval: ms(1),
        base_ejection_time: ms(2),
        max_ejection_percent: 100,
        always_eject_one: false,
        min_health_percent: 50,
        http_error_codes: [500, 429].into(),
    }
}

fn tls(mode: TlsMode) -> ClientTls {
    ClientTls {
        mode,
        client_certificate: some("/c.pem"),
        private_key: some("/k.pem"),
        ca_certificates: some("/ca.pem"),
        ca_crl: some("/crl.pem"),
        credential_name: some("secret"),
        subject_alt_names: [text("a.example"), text("b.example")].into(),
        sni: some("c.example"),
        insecure_skip_verify: true,
    }
}

fn policy(algorithm: Algorithm, mode: TlsMode, proxy_protocol: ProxyProtocol) -> TrafficPolicy {
    TrafficPolicy {
        load_balancer: Some(load_balancer(algorithm.clone())),
        connection_pool: Some(connection_pool()),
        outlier_detection: Some(outlier_detection()),
        tls: Some(tls(mode)),
        retry_budget: Some(RetryBudget { percent: 12.5, min_retry_concurrency: 9, interval: ms(11) }),
        proxy_protocol: Some(proxy_protocol),
        ports: [PortPolicy {
            port: 9080,
            load_balancer: Some(load_balancer(algorithm)),
            connection_pool: Some(connection_pool()),
            outlier_detection: Some(outlier_detection()),
            tls: Some(tls(mode)),
        }]
        .into(),
    }
}

fn reviews() -> model::traffic::Destination {
    let cookie = HashCookie {
        name: "session".into(),
        path: some("/"),
        ttl: Some(Duration::ZERO),
        attributes: [(text("SameSite"), some("Lax")), (text("Secure"), None)].into(),
    };
    let ring = HashAlgorithm::Ring { minimum_size: 2048 };
    let subset = |name: &str, policy| Subset {
        name: name.into(),
        labels: [(text("version"), text(name))].into(),
        policy,
    };
    let of = |algorithm, mode| Some(policy(algorithm, mode, ProxyProtocol::V2));
    model::traffic::Destination {
        cause: "DestinationRule default/reviews".into(),
        policy: policy(hash(HashKey::Cookie(cookie), ring), TlsMode::IstioMutual, ProxyProtocol::V1),
        subsets: [
            subset(
                "v1",
                of(
                    hash(HashKey::Header("x-user".into()), HashAlgorithm::Maglev { table_size: 101 }),
                    TlsMode::Simple,
                ),
            ),
            subset("v2", of(hash(HashKey::SourceIp, ring), TlsMode::Mutual)),
            subset("v3", of(hash(HashKey::QueryParameter("u".into()), ring), TlsMode::Disable)),
            subset("v4", of(Algorithm::RoundRobin, TlsMode::Simple)),
            subset("v5", of(Algorithm::Random, TlsMode::Simple)),
            subset("v6", of(Algorithm::Passthrough, TlsMode::Simple)),
            subset("v7", of(Algorithm::LeastRequest, TlsMode::Simple)),
            subset("v8", Some(TrafficPolicy::default())),
            subset("v9", None),
        ]
        .into(),
        health_check: Some(health_check(Probe::Http {
            port: 8080,
            path: "/healthz?deep=1".into(),
            headers: [(text("Host"), text("reviews")), (text("X-Empty"), text(""))].into(),
        })),
    }
}

pub(in crate::convert::routing) fn health_check(probe: Probe) -> HealthCheck {
    HealthCheck { probe, period: ms(5000), timeout: ms(1500), failure_threshold: 4, success_threshold: 2 }
}

pub(in crate::convert::routing) fn full() -> Routing {
    let sni = ["a.example", "*.b.example", "*"].map(SniMatch::new).into();
    let tls_matches = [
        TlsMatch { sni_hosts: sni, tcp: tcp_match() },
        TlsMatch { sni_hosts: [SniMatch::new("c.example")].into(), tcp: TcpMatch::default() },
    ];
    Routing {
        host: host("reviews.default.svc.cluster.local"),
        http: http_rules(),
        tls: [TlsRule {
            source: source("reviews", RuleList::Tls, 0),
            matches: tls_matches.into(),
            destinations: Destinations::One(destination("v1")),
            missing: [text("x")].into(),
        }]
        .into(),
        tcp: [TcpRule {
            source: source("reviews-tcp", RuleList::Tcp, 3),
            matches: [tcp_match(), TcpMatch::default()].into(),
            destinations: Destinations::Split(
                [Weighted { weight: 1, destination: destination("v2") }].into(),
            ),
            missing: Box::default(),
        }]
        .into(),
        default: Some(Box::new(Forward::to_service(host("reviews.default.svc.cluster.local")))),
        destinations: [
            (host("reviews.default.svc.cluster.local"), Arc::new(reviews())),
            (host("ratings.default.svc.cluster.local"), Arc::default()),
        ]
        .into(),
    }
}
