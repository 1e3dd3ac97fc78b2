//! What holds for a port of a host or subset, and the defaults.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{
    Algorithm, ClientTls, ConnectionPool, Destination, EffectivePolicy, HashAlgorithm, HealthCheck,
    HttpSettings, LoadBalancer, LocalityLb, OutlierDetection, PortPolicy, Probe, ProxyProtocol, RetryBudget,
    Subset, TcpSettings, TlsMode, TrafficPolicy, Warmup,
};

type Pairs = &'static [(&'static str, &'static str)];

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<crate::address::Str, crate::address::Str> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn balancer(algorithm: Algorithm) -> Option<LoadBalancer> {
    Some(LoadBalancer { algorithm, ..LoadBalancer::default() })
}

fn pool(max_connections: u32) -> Option<ConnectionPool> {
    Some(ConnectionPool {
        tcp: TcpSettings { max_connections, ..TcpSettings::default() },
        ..ConnectionPool::default()
    })
}

fn outliers(consecutive_5xx: u32) -> Option<OutlierDetection> {
    Some(OutlierDetection { consecutive_5xx, ..OutlierDetection::default() })
}

fn tls(mode: TlsMode) -> Option<ClientTls> {
    Some(ClientTls { mode, ..ClientTls::default() })
}

/// A host with everything said, once for all ports and once, otherwise, for 8080; and three subsets.
fn destination() -> Destination {
    let port = |port, algorithm, connections| PortPolicy {
        port,
        load_balancer: balancer(algorithm),
        connection_pool: pool(connections),
        ..PortPolicy::default()
    };
    Destination {
        cause: "DestinationRule default/reviews".into(),
        policy: TrafficPolicy {
            load_balancer: balancer(Algorithm::Random),
            connection_pool: pool(1),
            outlier_detection: outliers(7),
            tls: tls(TlsMode::IstioMutual),
            retry_budget: Some(RetryBudget { percent: 50.0, ..RetryBudget::default() }),
            proxy_protocol: Some(ProxyProtocol::V2),
            ports: [port(8080, Algorithm::RoundRobin, 2)].into(),
        },
        subsets: [
            Subset { name: "plain".into(), labels: labels(&[("version", "v1")]), policy: None },
            Subset {
                name: "section".into(),
                labels: labels(&[("version", "v2")]),
                policy: Some(TrafficPolicy { connection_pool: pool(3), ..TrafficPolicy::default() }),
            },
            Subset {
                name: "port".into(),
                labels: labels(&[("version", "v3")]),
                policy: Some(TrafficPolicy {
                    load_balancer: balancer(Algorithm::Passthrough),
                    ports: [PortPolicy { port: 9090, connection_pool: pool(4), ..PortPolicy::default() }]
                        .into(),
                    ..TrafficPolicy::default()
                }),
            },
        ]
        .into(),
        health_check: Some(HealthCheck::of(Probe::Tcp { port: 80 })),
    }
}

#[test]
fn a_port_stands_in_place_of_all_and_a_subset_in_place_of_the_host_by_section() {
    use Algorithm::{LeastRequest, Passthrough, Random, RoundRobin};
    let unlimited = u32::MAX;
    // Subset, port; then algorithm, connections, whether outliers, TLS, retry budget, and PROXY protocol are the host's.
    #[rustfmt::skip]
    let table = [
        ("", 80, Random, 1, true, true, true),
        // The host's entry for the port says nothing of outliers: they have their default, which is none.
        ("", 8080, RoundRobin, 2, false, false, false),
        ("plain", 80, Random, 1, true, true, true),
        ("plain", 8080, RoundRobin, 2, false, false, false),
        ("section", 80, Random, 3, true, true, true),
        ("section", 8080, RoundRobin, 3, false, false, false),
        ("port", 80, Passthrough, 1, true, true, true),
        ("port", 8080, Passthrough, 2, false, false, false),
        // The subset's entry for the port leaves nothing of the host's, but what ports cannot say.
        ("port", 9090, LeastRequest, 4, false, false, true),
    ];
    let destination = destination();
    for (subset, port, algorithm, connections, outlier, tls, whole) in table {
        let found = destination.effective(destination.subset(subset), port);
        let of_host = &destination.policy;
        let expected = EffectivePolicy {
            load_balancer: balancer(algorithm).unwrap(),
            connection_pool: pool(connections).unwrap(),
            outlier_detection: of_host.outlier_detection.clone().filter(|_| outlier),
            tls: of_host.tls.clone().filter(|_| tls),
            retry_budget: of_host.retry_budget.filter(|_| whole),
            proxy_protocol: of_host.proxy_protocol.filter(|_| whole),
            // Of the host's endpoints, whatever port or subset.
            checked: true,
        };
        assert_eq!(found, expected, "{subset}:{port}");
    }
    let nothing = Destination::default().effective(None, 80);
    assert_eq!(nothing, EffectivePolicy::default());
    assert_eq!(nothing.connection_pool.tcp.max_connections, unlimited);
}

#[test]
fn a_subset_without_a_host_policy_stands_for_itself() {
    let of_subset = TrafficPolicy {
        outlier_detection: outliers(1),
        retry_budget: Some(RetryBudget::default()),
        proxy_protocol: Some(ProxyProtocol::V1),
        tls: tls(TlsMode::Simple),
        ..TrafficPolicy::default()
    };
    let subset = Subset { policy: Some(of_subset.clone()), ..Subset::default() };
    let found = Destination::default().effective(Some(&subset), 80);
    assert_eq!(found.outlier_detection, of_subset.outlier_detection);
    assert_eq!(found.tls, of_subset.tls);
    assert_eq!(found.retry_budget, of_subset.retry_budget);
    assert_eq!(found.proxy_protocol, of_subset.proxy_protocol);
    assert_eq!(found.load_balancer, LoadBalancer::default());
}

#[test]
fn a_subset_selects_who_has_all_of_its_labels() {
    let subset = |pairs| Subset { labels: labels(pairs), ..Subset::default() };
    #[rustfmt::skip]
    let table: [(Pairs, Pairs, bool); 7] = [
        (&[], &[], true),
        (&[], &[("version", "v1")], true),
        (&[("version", "v1")], &[("version", "v1")], true),
        (&[("version", "v1")], &[("app", "a"), ("version", "v1")], true),
        (&[("version", "v1")], &[("version", "v2")], false),
        (&[("version", "v1")], &[], false),
        (&[("app", "a"), ("version", "v1")], &[("version", "v1")], false),
    ];
    for (wanted, has, selected) in table {
        assert_eq!(subset(wanted).selects(&labels(has)), selected, "{wanted:?} of {has:?}");
    }
}

#[test]
fn idle_connections_are_closed_after_what_is_said_or_an_hour() {
    let seconds = Duration::from_secs;
    // tcp.idleTimeout, http.idleTimeout; for TCP, for HTTP.
    let table = [
        (None, None, Some(3600), Some(3600)),
        (Some(5), None, Some(5), Some(5)),
        (Some(5), Some(7), Some(5), Some(7)),
        (None, Some(7), Some(3600), Some(7)),
        (Some(0), None, None, None),
        (Some(5), Some(0), Some(5), None),
    ];
    for (tcp, http, of_tcp, of_http) in table {
        let pool = ConnectionPool {
            tcp: TcpSettings { idle_timeout: tcp.map(seconds), ..TcpSettings::default() },
            http: HttpSettings { idle_timeout: http.map(seconds), ..HttpSettings::default() },
        };
        assert_eq!(
            (pool.tcp_idle(), pool.http_idle()),
            (of_tcp.map(seconds), of_http.map(seconds)),
            "{tcp:?} {http:?}"
        );
    }
}

/// The defaults of Istio's API, one by one: a change of any is a change of behaviour.
#[test]
fn defaults_are_istios() {
    let EffectivePolicy { load_balancer, connection_pool: ConnectionPool { tcp, http }, .. } =
        EffectivePolicy::default();
    assert_eq!(load_balancer.algorithm, Algorithm::LeastRequest);
    assert_eq!((load_balancer.locality, load_balancer.warmup), (None, None));
    assert!(LocalityLb::default().enabled);
    assert_eq!(HashAlgorithm::default(), HashAlgorithm::Ring { minimum_size: 1024 });
    assert_eq!(HashAlgorithm::DEFAULT_TABLE_SIZE, 65_537);
    let warmup = Warmup::of(Duration::from_secs(1));
    assert_eq!((warmup.minimum_percent, warmup.aggression), (10.0, 1.0));
    assert_eq!((tcp.max_connections, tcp.connect_timeout), (u32::MAX, Duration::from_secs(10)));
    assert_eq!((http.http1_max_pending_requests, http.http2_max_requests), (u32::MAX, u32::MAX));
    assert_eq!((http.max_requests_per_connection, http.max_retries), (0, u32::MAX));
    assert_eq!((http.max_concurrent_streams, http.use_client_protocol), (2_147_483_647, false));
    let outlier = OutlierDetection::default();
    assert_eq!((outlier.consecutive_5xx, outlier.consecutive_gateway), (5, 0));
    assert_eq!((outlier.consecutive_local_origin, outlier.split_local_origin), (5, false));
    assert_eq!(
        (outlier.interval, outlier.base_ejection_time),
        (Duration::from_secs(10), Duration::from_secs(30))
    );
    assert_eq!((outlier.max_ejection_percent, outlier.min_health_percent), (10, 0));
    let budget = RetryBudget::default();
    assert_eq!((budget.percent, budget.min_retry_concurrency, budget.interval), (20.0, 3, Duration::ZERO));
}
