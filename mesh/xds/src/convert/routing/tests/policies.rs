//! Traffic policies that are refused, and the field that is blamed.

use proto::routing as wire;

use super::{no_time, refused};

/// The policy of the host `reviews`, which is the second of the two.
fn policy(wire: &mut wire::Routing) -> &mut wire::TrafficPolicy {
    wire.destinations[1].policy.as_mut().unwrap()
}

fn balancer(wire: &mut wire::Routing) -> &mut wire::LoadBalancer {
    policy(wire).load_balancer.as_mut().unwrap()
}

fn hash(wire: &mut wire::Routing) -> &mut wire::ConsistentHash {
    match balancer(wire).algorithm.as_mut().unwrap() {
        wire::load_balancer::Algorithm::ConsistentHash(hash) => hash,
        other => panic!("{other:?}"),
    }
}

fn cookie(wire: &mut wire::Routing) -> &mut wire::HashCookie {
    match hash(wire).key.as_mut().unwrap() {
        wire::consistent_hash::Key::Cookie(cookie) => cookie,
        other => panic!("{other:?}"),
    }
}

fn locality(wire: &mut wire::Routing) -> &mut wire::LocalityLb {
    balancer(wire).locality.as_mut().unwrap()
}

fn warmup(wire: &mut wire::Routing) -> &mut wire::Warmup {
    balancer(wire).warmup.as_mut().unwrap()
}

fn check(wire: &mut wire::Routing) -> &mut wire::HealthCheck {
    wire.destinations[1].health_check.as_mut().unwrap()
}

#[test]
fn refuses_wrong_health_checks() {
    use wire::health_check::Probe;
    fn http(wire: &mut wire::Routing) -> &mut wire::HttpProbe {
        match check(wire).probe.as_mut().unwrap() {
            Probe::HttpGet(one) => one,
            other => panic!("{other:?}"),
        }
    }
    refused(&[
        ("destinations[1].health_check.probe", |wire| check(wire).probe = None),
        ("destinations[1].health_check.http_get.port", |wire| http(wire).port = 0),
        ("destinations[1].health_check.http_get.port", |wire| http(wire).port = 65_536),
        ("destinations[1].health_check.http_get.path", |wire| http(wire).path = "healthz".to_owned()),
        ("destinations[1].health_check.http_get.path", |wire| http(wire).path = "/a b".to_owned()),
        ("destinations[1].health_check.http_get.headers[0].name", |wire| http(wire).headers[0].name.clear()),
        ("destinations[1].health_check.http_get.headers[1].value", |wire| {
            http(wire).headers[1].value = "a\nb".to_owned();
        }),
        ("destinations[1].health_check.tcp_socket.port", |wire| {
            check(wire).probe = Some(Probe::TcpSocket(wire::TcpProbe::default()));
        }),
        ("destinations[1].health_check.grpc.port", |wire| {
            check(wire).probe = Some(Probe::Grpc(wire::GrpcProbe::default()));
        }),
        ("destinations[1].health_check.period", |wire| check(wire).period = None),
        ("destinations[1].health_check.period", |wire| {
            check(wire).period = Some(prost_types::Duration::default());
        }),
        ("destinations[1].health_check.timeout", |wire| check(wire).timeout = no_time()),
        ("destinations[1].health_check.failure_threshold", |wire| check(wire).failure_threshold = 0),
        ("destinations[1].health_check.success_threshold", |wire| check(wire).success_threshold = 0),
    ]);
}

#[test]
fn refuses_wrong_load_balancers() {
    use wire::consistent_hash::{Algorithm, Key};
    refused(&[
        ("destinations[1].policy.load_balancer.algorithm", |wire| balancer(wire).algorithm = None),
        ("destinations[1].policy.load_balancer.simple", |wire| {
            balancer(wire).algorithm = Some(wire::load_balancer::Algorithm::Simple(0));
        }),
        ("destinations[1].policy.load_balancer.simple", |wire| {
            balancer(wire).algorithm = Some(wire::load_balancer::Algorithm::Simple(5));
        }),
        ("destinations[1].policy.load_balancer.consistent_hash.key", |wire| hash(wire).key = None),
        ("destinations[1].policy.load_balancer.consistent_hash.header", |wire| {
            hash(wire).key = Some(Key::Header(String::new()));
        }),
        ("destinations[1].policy.load_balancer.consistent_hash.source_ip", |wire| {
            hash(wire).key = Some(Key::SourceIp(false));
        }),
        ("destinations[1].policy.load_balancer.consistent_hash.query_parameter", |wire| {
            hash(wire).key = Some(Key::QueryParameter(String::new()));
        }),
        ("destinations[1].policy.load_balancer.consistent_hash.cookie.name", |wire| {
            cookie(wire).name.clear()
        }),
        ("destinations[1].policy.load_balancer.consistent_hash.cookie.ttl", |wire| {
            cookie(wire).ttl = no_time()
        }),
        ("destinations[1].policy.load_balancer.consistent_hash.cookie.attributes[0].name", |wire| {
            cookie(wire).attributes[0].name.clear();
        }),
        ("destinations[1].policy.load_balancer.consistent_hash.algorithm", |wire| {
            hash(wire).algorithm = None
        }),
        ("destinations[1].policy.load_balancer.consistent_hash.algorithm", |wire| {
            hash(wire).algorithm = Some(Algorithm::RingSize(1 << 40));
        }),
        ("destinations[1].policy.load_balancer.consistent_hash.algorithm", |wire| {
            hash(wire).algorithm = Some(Algorithm::MaglevTableSize(100));
        }),
        ("destinations[1].policy.load_balancer.locality.distribute[0].to", |wire| {
            locality(wire).distribute[0].to[0].percent = 71;
        }),
        ("destinations[1].policy.load_balancer.locality.distribute[0].to[1].percent", |wire| {
            locality(wire).distribute[0].to[1].percent = 101;
        }),
        ("destinations[1].policy.load_balancer.locality.distribute[0].from", |wire| {
            locality(wire).distribute[0].from.clear();
        }),
        ("destinations[1].policy.load_balancer.locality.failover[0].to", |wire| {
            locality(wire).failover[0].to.clear()
        }),
        ("destinations[1].policy.load_balancer.locality.failover_priority[1].name", |wire| {
            locality(wire).failover_priority[1].name.clear();
        }),
        ("destinations[1].policy.load_balancer.warmup.duration", |wire| warmup(wire).duration = None),
        ("destinations[1].policy.load_balancer.warmup.minimum_percent", |wire| {
            warmup(wire).minimum_percent = f64::NAN;
        }),
        ("destinations[1].policy.load_balancer.warmup.minimum_percent", |wire| {
            warmup(wire).minimum_percent = 100.1
        }),
        ("destinations[1].policy.load_balancer.warmup.aggression", |wire| warmup(wire).aggression = 0.5),
    ]);
}

#[test]
fn refuses_wrong_limits() {
    fn tcp(wire: &mut wire::Routing) -> &mut wire::TcpSettings {
        policy(wire).connection_pool.as_mut().unwrap().tcp.as_mut().unwrap()
    }
    fn http(wire: &mut wire::Routing) -> &mut wire::HttpSettings {
        policy(wire).connection_pool.as_mut().unwrap().http.as_mut().unwrap()
    }
    fn outlier(wire: &mut wire::Routing) -> &mut wire::OutlierDetection {
        policy(wire).outlier_detection.as_mut().unwrap()
    }
    refused(&[
        ("destinations[1].policy.connection_pool.tcp", |wire| {
            policy(wire).connection_pool.as_mut().unwrap().tcp = None
        }),
        ("destinations[1].policy.connection_pool.http", |wire| {
            policy(wire).connection_pool.as_mut().unwrap().http = None;
        }),
        ("destinations[1].policy.connection_pool.tcp.connect_timeout", |wire| {
            tcp(wire).connect_timeout = None
        }),
        ("destinations[1].policy.connection_pool.tcp.keepalive.time", |wire| {
            tcp(wire).keepalive.as_mut().unwrap().time = no_time();
        }),
        ("destinations[1].policy.connection_pool.tcp.keepalive.interval", |wire| {
            tcp(wire).keepalive.as_mut().unwrap().interval = no_time();
        }),
        ("destinations[1].policy.connection_pool.tcp.max_connection_duration", |wire| {
            tcp(wire).max_connection_duration = no_time();
        }),
        ("destinations[1].policy.connection_pool.tcp.idle_timeout", |wire| {
            tcp(wire).idle_timeout = no_time()
        }),
        ("destinations[1].policy.connection_pool.http.idle_timeout", |wire| {
            http(wire).idle_timeout = no_time()
        }),
        ("destinations[1].policy.connection_pool.http.h2_upgrade_policy", |wire| {
            http(wire).h2_upgrade_policy = 3
        }),
        ("destinations[1].policy.connection_pool.http.http2_keep_alive.interval", |wire| {
            http(wire).http2_keep_alive.as_mut().unwrap().interval = None;
        }),
        ("destinations[1].policy.connection_pool.http.http2_keep_alive.timeout", |wire| {
            http(wire).http2_keep_alive.as_mut().unwrap().timeout = None;
        }),
        ("destinations[1].policy.retry_budget.percent", |wire| {
            policy(wire).retry_budget.as_mut().unwrap().percent = -1.0;
        }),
        ("destinations[1].policy.retry_budget.interval", |wire| {
            policy(wire).retry_budget.as_mut().unwrap().interval = None;
        }),
        ("destinations[1].policy.outlier_detection.interval", |wire| outlier(wire).interval = None),
        ("destinations[1].policy.outlier_detection.base_ejection_time", |wire| {
            outlier(wire).base_ejection_time = no_time();
        }),
        ("destinations[1].policy.outlier_detection.max_ejection_percent", |wire| {
            outlier(wire).max_ejection_percent = 101;
        }),
        ("destinations[1].policy.outlier_detection.min_health_percent", |wire| {
            outlier(wire).min_health_percent = 101
        }),
        ("destinations[1].policy.outlier_detection.http_error_codes", |wire| {
            outlier(wire).http_error_codes.push(600);
        }),
    ]);
}

#[test]
fn refuses_wrong_policies() {
    refused(&[
        ("destinations[1].hostname", |wire| wire.destinations[1].hostname.clear()),
        ("destinations", |wire| {
            wire.destinations[1].hostname = wire.destinations[0].hostname.clone();
        }),
        ("destinations[1].subsets[0].name", |wire| wire.destinations[1].subsets[0].name.clear()),
        ("destinations[1].subsets", |wire| wire.destinations[1].subsets[1].name = "v1".into()),
        ("destinations[1].subsets[0].policy.load_balancer.algorithm", |wire| {
            let policy = wire.destinations[1].subsets[0].policy.as_mut().unwrap();
            policy.load_balancer.as_mut().unwrap().algorithm = None;
        }),
        ("destinations[1].policy.proxy_protocol", |wire| policy(wire).proxy_protocol = Some(0)),
        ("destinations[1].policy.proxy_protocol", |wire| policy(wire).proxy_protocol = Some(3)),
        ("destinations[1].policy.ports[0].port", |wire| policy(wire).ports[0].port = 0),
        ("destinations[1].policy.ports[0].tls.mode", |wire| {
            policy(wire).ports[0].tls.as_mut().unwrap().mode = 0
        }),
        ("destinations[1].policy.tls.mode", |wire| policy(wire).tls.as_mut().unwrap().mode = 5),
        ("destinations[1].policy.tls.sni", |wire| {
            policy(wire).tls.as_mut().unwrap().sni = Some(String::new())
        }),
        ("destinations[1].policy.tls.client_certificate", |wire| {
            policy(wire).tls.as_mut().unwrap().client_certificate = Some(String::new());
        }),
        ("destinations[1].policy.tls.subject_alt_names[1].name", |wire| {
            policy(wire).tls.as_mut().unwrap().subject_alt_names[1].clear();
        }),
    ]);
}
