//! DestinationRules: whose counts, and what it says.

use std::time::Duration;

use model::traffic::Destination;
use model::traffic::*;

use super::*;

const SERVICES: &[&str] = &["shop/cart 80 81"];

/// What DestinationRules say of `cart`.
fn said(text: &str, seen_from: &str) -> Option<Arc<Destination>> {
    let mut all = objects(SERVICES, text);
    all.services.get_mut(&Name::new("shop", "cart")).unwrap().seen_from = seen_from.into();
    fresh(&all).routings[&key("shop/cart")].destinations.get(&key("shop/cart")).cloned()
}

fn policy(text: &str) -> TrafficPolicy {
    let text = destination_rule("shop/r", &format!("{{host: cart, trafficPolicy: {{{text}}}}}"));
    said(&text, "shop").unwrap().policy.clone()
}

#[test]
fn whose_rule_counts() {
    let rule = |name: &str, host: &str, more: &str| {
        destination_rule(name, &format!("{{host: '{host}', subsets: [{{name: s}}]{more}}}"))
    };
    let full = "cart.shop.svc.cluster.local";
    let wild = "*.shop.svc.cluster.local";
    for (rules, seen_from, expected) in [
        (vec![rule("shop/r", "cart", "")], "shop", "shop/r"),
        (vec![rule("bank/r", full, "")], "shop", ""),
        (vec![rule("bank/r", full, ""), rule("shop/r", "cart", "")], "bank", "bank/r"),
        (vec![rule("bank/r", full, ", exportTo: [shop]"), rule("shop/r", "cart", "")], "bank", "shop/r"),
        (vec![rule("shop/r", "cart", ", exportTo: ['.']")], "bank", ""),
        (vec![rule("shop/r", "cart", ", exportTo: [bank]")], "bank", "shop/r"),
        (vec![rule("shop/w", wild, ""), rule("shop/r", "cart", "")], "shop", "shop/r"),
        (vec![rule("shop/w", wild, "")], "shop", "shop/w"),
        (vec![rule("istio-system/r", full, ""), rule("shop/w", wild, "")], "shop", "shop/w"),
        (vec![rule("istio-system/r", full, "")], "shop", "istio-system/r"),
        (vec![rule("istio-system/r", full, ", exportTo: ['.']")], "shop", ""),
        (vec![rule("istio-system/r", full, ""), rule("shop/r", "cart", "")], "istio-system", "shop/r"),
        (
            vec![rule("istio-system/r", full, ", exportTo: ['.']"), rule("shop/r", "cart", "")],
            "istio-system",
            "istio-system/r",
        ),
    ] {
        let cause = said(&rules.concat(), seen_from).map(|found| found.cause.to_string()).unwrap_or_default();
        assert_eq!(cause.trim_start_matches("DestinationRule "), expected, "{rules:?} seen from {seen_from}");
    }
}

#[test]
fn several_rules_for_one_host_are_merged() {
    let text = destination_rule("shop/a", "{host: cart, subsets: [{name: v1, labels: {v: a}}]}")
        + &destination_rule(
            "shop/b",
            "{host: cart, trafficPolicy: {loadBalancer: {simple: RANDOM}}, subsets: [{name: v1, labels: {v: b}}, {name: v2, labels: {v: b}, \
             trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}]}",
        )
        + &destination_rule("shop/c", "{host: cart, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}}");
    let merged = said(&text, "shop").unwrap();
    assert_eq!(&*merged.cause, "DestinationRule shop/a, DestinationRule shop/b, DestinationRule shop/c");
    assert_eq!(
        merged.subset("v1").unwrap().labels.values().next().map(|value| &**value),
        Some("a"),
        "the first"
    );
    assert_eq!(merged.subsets.len(), 2);
    assert_eq!(merged.effective(merged.subset("v1"), 80).load_balancer.algorithm, Algorithm::Random);
    assert_eq!(merged.effective(merged.subset("v2"), 80).load_balancer.algorithm, Algorithm::RoundRobin);
}

#[test]
fn load_balancers() {
    let header =
        |algorithm| Algorithm::ConsistentHash(ConsistentHash { key: HashKey::Header("x".into()), algorithm });
    let by = |key| Algorithm::ConsistentHash(ConsistentHash { key, algorithm: HashAlgorithm::default() });
    for (text, expected) in [
        ("simple: UNSPECIFIED", Algorithm::LeastRequest),
        ("simple: LEAST_CONN", Algorithm::LeastRequest),
        ("simple: LEAST_REQUEST", Algorithm::LeastRequest),
        ("simple: RANDOM", Algorithm::Random),
        ("simple: PASSTHROUGH", Algorithm::Passthrough),
        ("simple: ROUND_ROBIN", Algorithm::RoundRobin),
        ("consistentHash: {httpHeaderName: x}", header(HashAlgorithm::default())),
        (
            "consistentHash: {httpHeaderName: x, minimumRingSize: 7}",
            header(HashAlgorithm::Ring { minimum_size: 7 }),
        ),
        ("consistentHash: {httpHeaderName: x, minimumRingSize: 0}", header(HashAlgorithm::default())),
        (
            "consistentHash: {httpHeaderName: x, ringHash: {minimumRingSize: 9}}",
            header(HashAlgorithm::Ring { minimum_size: 9 }),
        ),
        (
            "consistentHash: {httpHeaderName: x, maglev: {}}",
            header(HashAlgorithm::Maglev { table_size: 65_537 }),
        ),
        (
            "consistentHash: {httpHeaderName: x, maglev: {tableSize: 101}}",
            header(HashAlgorithm::Maglev { table_size: 101 }),
        ),
        ("consistentHash: {useSourceIp: true}", by(HashKey::SourceIp)),
        ("consistentHash: {httpQueryParameterName: q}", by(HashKey::QueryParameter("q".into()))),
        (
            "consistentHash: {httpCookie: {name: c, path: /p, ttl: 0s, attributes: [{name: SameSite, value: Lax}, {name: Secure}]}}",
            by(HashKey::Cookie(HashCookie {
                name: "c".into(),
                path: Some("/p".into()),
                ttl: Some(Duration::ZERO),
                attributes: [("SameSite".into(), Some("Lax".into())), ("Secure".into(), None)].into(),
            })),
        ),
    ] {
        let found = policy(&format!("loadBalancer: {{{text}}}")).load_balancer.unwrap();
        assert_eq!(found.algorithm, expected, "{text}");
    }
}

#[test]
fn warm_up_and_places() {
    let balancer = |text: &str| policy(&format!("loadBalancer: {{{text}}}")).load_balancer.unwrap();
    assert_eq!(balancer("warmupDurationSecs: 30s").warmup, Some(Warmup::of(Duration::from_secs(30))));
    let all = Warmup { duration: Duration::from_secs(60), minimum_percent: 20.0, aggression: 2.0 };
    assert_eq!(balancer("warmup: {duration: 1m, minimumPercent: 20, aggression: 2}").warmup, Some(all));
    assert_eq!(balancer("simple: RANDOM").locality, None);
    let place =
        balancer("localityLbSetting: {enabled: false, distribute: [{from: 'a/*', to: {b: 70, c/d: 30}}]}");
    let expected = LocalityLb {
        enabled: false,
        distribute: [Distribute { from: "a/*".into(), to: [("b".into(), 70), ("c/d".into(), 30)].into() }]
            .into(),
        ..LocalityLb::default()
    };
    assert_eq!(place.locality, Some(expected));
    let place = balancer("localityLbSetting: {failover: [{from: a, to: b}], failoverPriority: [x, y=z]}");
    let expected = LocalityLb {
        failover: [Failover { from: "a".into(), to: "b".into() }].into(),
        failover_priority: [
            PriorityLabel { name: "x".into(), value: None },
            PriorityLabel { name: "y".into(), value: Some("z".into()) },
        ]
        .into(),
        ..LocalityLb::default()
    };
    assert_eq!(place.locality, Some(expected));
}

#[test]
fn connection_pools() {
    assert_eq!(
        policy("connectionPool: {tcp: {}, http: {}}").connection_pool,
        Some(ConnectionPool::default())
    );
    let zero = "connectionPool: {tcp: {maxConnections: 0}, http: {maxRetries: 0, http2MaxRequests: 0}}";
    assert_eq!(policy(zero).connection_pool, Some(ConnectionPool::default()), "0 is not said");
    let all = policy(
        "connectionPool: {tcp: {maxConnections: 1, connectTimeout: 2s, tcpKeepalive: {probes: 3, time: 4s, interval: 5s}, \
         maxConnectionDuration: 6s, idleTimeout: 0s}, http: {http1MaxPendingRequests: 7, http2MaxRequests: 8, \
         maxRequestsPerConnection: 9, maxRetries: 10, idleTimeout: 11s, h2UpgradePolicy: UPGRADE, \
         maxConcurrentStreams: 12, http2KeepAlive: {interval: 13s, timeout: 14s}}}",
    );
    let seconds = Duration::from_secs;
    let keepalive = TcpKeepalive { probes: Some(3), time: Some(seconds(4)), interval: Some(seconds(5)) };
    let expected = ConnectionPool {
        tcp: TcpSettings {
            max_connections: 1,
            connect_timeout: seconds(2),
            keepalive: Some(keepalive),
            max_connection_duration: Some(seconds(6)),
            idle_timeout: Some(seconds(0)),
        },
        http: HttpSettings {
            http1_max_pending_requests: 7,
            http2_max_requests: 8,
            max_requests_per_connection: 9,
            max_retries: 10,
            idle_timeout: Some(seconds(11)),
            h2_upgrade_policy: H2UpgradePolicy::Upgrade,
            use_client_protocol: false,
            max_concurrent_streams: 12,
            http2_keep_alive: Some(Http2KeepAlive { interval: seconds(13), timeout: seconds(14) }),
        },
    };
    assert_eq!(all.connection_pool, Some(expected));
    let client = policy("connectionPool: {http: {useClientProtocol: true}}").connection_pool.unwrap();
    assert!(client.http.use_client_protocol);
}

#[test]
fn outliers_and_retry_budgets() {
    assert_eq!(policy("outlierDetection: {}").outlier_detection, Some(OutlierDetection::default()));
    let all = policy(
        "outlierDetection: {splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 1, \
         consecutiveGatewayErrors: 2, consecutive5xxErrors: 0, interval: 5m, baseEjectionTime: 15m, maxEjectionPercent: 40, \
         minHealthPercent: 50, outlierDetectionHttpErrorCodes: [500, 404]}",
    );
    let expected = OutlierDetection {
        split_local_origin: true,
        consecutive_local_origin: 1,
        consecutive_gateway: 2,
        consecutive_5xx: 0,
        interval: Duration::from_secs(300),
        base_ejection_time: Duration::from_secs(900),
        max_ejection_percent: 40,
        min_health_percent: 50,
        http_error_codes: [500, 404].into(),
        ..OutlierDetection::default()
    };
    assert_eq!(all.outlier_detection, Some(expected));
    let budget = policy("retryBudget: {percent: 5, minRetryConcurrency: 1, budgetInterval: 2s}").retry_budget;
    let expected = RetryBudget { percent: 5.0, min_retry_concurrency: 1, interval: Duration::from_secs(2) };
    assert_eq!(budget, Some(expected));
    assert_eq!(policy("retryBudget: {}").retry_budget, Some(RetryBudget::default()));
}

#[test]
fn health_checks() {
    let rule = |name: &str, check: &str| {
        destination_rule(name, "{host: cart}").replace(
            "namespace: shop}",
            &format!("namespace: shop, annotations: {{lateen.dev/health-check: '{check}'}}}}"),
        )
    };
    let check = |text: &str| said(&rule("shop/r", text), "shop").unwrap().health_check.clone().unwrap();
    // Kubernetes' defaults, and Kubernetes' names.
    let usual = check("{httpGet: {port: 8080}}");
    assert_eq!(usual, HealthCheck::of(Probe::Http { port: 8080, path: "/".into(), headers: Box::default() }));
    let seconds = Duration::from_secs;
    assert_eq!((usual.period, usual.timeout), (seconds(10), seconds(1)));
    assert_eq!((usual.failure_threshold, usual.success_threshold), (3, 1));
    let all = "{httpGet: {path: healthz?deep=1, port: 8080, scheme: HTTP, httpHeaders: [{name: Host, value: cart}]}, \
               periodSeconds: 5, timeoutSeconds: 2, failureThreshold: 4, successThreshold: 6}";
    let headers = [("Host".into(), "cart".into())].into();
    let expected = HealthCheck {
        probe: Probe::Http { port: 8080, path: "/healthz?deep=1".into(), headers },
        period: seconds(5),
        timeout: seconds(2),
        failure_threshold: 4,
        success_threshold: 6,
    };
    assert_eq!(check(all), expected);
    assert_eq!(check("tcpSocket: {port: 1}").probe, Probe::Tcp { port: 1 });
    assert_eq!(check("grpc: {port: 2}").probe, Probe::Grpc { port: 2, service: "".into() });
    let grpc = check("{\"grpc\": {\"port\": 2, \"service\": \"shop.Cart\"}}");
    assert_eq!(grpc.probe, Probe::Grpc { port: 2, service: "shop.Cart".into() });
    // It is of the host, of whatever port and subset; of several rules the first says it.
    let text = destination_rule("shop/a", "{host: cart, subsets: [{name: v1}]}")
        + &rule("shop/b", "tcpSocket: {port: 1}")
        + &rule("shop/c", "tcpSocket: {port: 2}");
    let merged = said(&text, "shop").unwrap();
    assert_eq!(merged.health_check.as_ref().map(|check| check.probe.port()), Some(1));
    assert!(merged.effective(merged.subset("v1"), 81).checked);
    assert!(!said(&destination_rule("shop/a", "{host: cart}"), "shop").unwrap().effective(None, 80).checked);
}

#[test]
fn single_ports_and_tls() {
    let all = policy(
        "loadBalancer: {simple: RANDOM}, portLevelSettings: [{port: {number: 81}, connectionPool: {tcp: {maxConnections: 5}}, \
         outlierDetection: {}, tls: {mode: ISTIO_MUTUAL}}, {port: {number: 82}, loadBalancer: {simple: ROUND_ROBIN}}], \
         tls: {mode: ISTIO_MUTUAL}",
    );
    assert_eq!(all.tls.map(|tls| tls.mode), Some(TlsMode::IstioMutual));
    let port = &all.ports[0];
    assert_eq!((port.port, port.load_balancer.is_none(), port.outlier_detection.is_some()), (81, true, true));
    assert_eq!(port.connection_pool.as_ref().map(|pool| pool.tcp.max_connections), Some(5));
    assert_eq!(port.tls.as_ref().map(|tls| tls.mode), Some(TlsMode::IstioMutual));
    let balanced = all.ports[1].load_balancer.as_ref().map(|balancer| &balancer.algorithm);
    assert_eq!((all.ports[1].port, balanced), (82, Some(&Algorithm::RoundRobin)));
}
