//! DestinationRule → [`Destination`]: what was written, with Istio's defaults for what was not.

mod load_balancer;

use manifest::istio;
use model::address::Str;
use model::traffic::{
    ClientTls, ConnectionPool, Destination, H2UpgradePolicy, Http2KeepAlive, HttpSettings, OutlierDetection,
    PortPolicy, RetryBudget, Subset, TcpKeepalive, TcpSettings, TlsMode, TrafficPolicy,
};

use super::layer4;
use crate::index::Name;

/// Several rules for one host, the oldest first: the first traffic policy there is, the first health check, and every subset,
/// of one name the first.
pub(super) fn merge<'a>(
    rules: impl IntoIterator<Item = (&'a Name, &'a istio::DestinationRule)>,
) -> Destination {
    let (mut causes, mut policy, mut subsets) = (Vec::new(), None, Vec::<Subset>::new());
    let mut health_check = None;
    for (name, rule) in rules {
        causes.push(format!("DestinationRule {name}"));
        policy = policy.or(rule.traffic_policy.as_ref());
        health_check = health_check.or(rule.health_check.as_ref());
        for subset in &rule.subsets {
            if !subsets.iter().any(|known| *known.name == *subset.name) {
                subsets.push(Subset {
                    name: subset.name.as_str().into(),
                    labels: layer4::labels(&subset.labels),
                    policy: subset.traffic_policy.as_ref().map(traffic_policy),
                });
            }
        }
    }
    Destination {
        cause: causes.join(", ").into(),
        policy: policy.map(traffic_policy).unwrap_or_default(),
        subsets: subsets.into(),
        health_check: health_check.cloned(),
    }
}

fn traffic_policy(written: &istio::TrafficPolicy) -> TrafficPolicy {
    TrafficPolicy {
        load_balancer: written.load_balancer.as_ref().map(load_balancer::load_balancer),
        connection_pool: written.connection_pool.as_ref().map(connection_pool),
        outlier_detection: written.outlier_detection.as_ref().map(outlier_detection),
        tls: written.tls.as_ref().map(tls),
        retry_budget: written.retry_budget.map(retry_budget),
        // Refused by name where it is read.
        proxy_protocol: None,
        ports: written.port_level_settings.iter().filter_map(port_policy).collect(),
    }
}

fn port_policy(written: &istio::PortTrafficPolicy) -> Option<PortPolicy> {
    Some(PortPolicy {
        port: u16::try_from(written.port?.number).ok()?,
        load_balancer: written.load_balancer.as_ref().map(load_balancer::load_balancer),
        connection_pool: written.connection_pool.as_ref().map(connection_pool),
        outlier_detection: written.outlier_detection.as_ref().map(outlier_detection),
        tls: written.tls.as_ref().map(tls),
    })
}

fn retry_budget(written: istio::RetryBudget) -> RetryBudget {
    let usual = RetryBudget::default();
    RetryBudget {
        percent: written.percent.unwrap_or(usual.percent),
        // 0 is not said: the field has no other way to say so.
        min_retry_concurrency: some(written.min_retry_concurrency).unwrap_or(usual.min_retry_concurrency),
        interval: written.budget_interval.map_or(usual.interval, |interval| interval.0),
    }
}

/// A number above 0.
fn some(number: Option<u32>) -> Option<u32> {
    number.filter(|number| *number > 0)
}

/// A number above 0; Istio takes every other for one that was not said.
fn count(number: Option<i32>) -> Option<u32> {
    some(number.and_then(|number| u32::try_from(number).ok()))
}

fn connection_pool(written: &istio::ConnectionPool) -> ConnectionPool {
    ConnectionPool {
        tcp: written.tcp.as_ref().map(tcp).unwrap_or_default(),
        http: written.http.as_ref().map(http).unwrap_or_default(),
    }
}

fn tcp(written: &istio::TcpSettings) -> TcpSettings {
    let usual = TcpSettings::default();
    TcpSettings {
        max_connections: count(written.max_connections).unwrap_or(usual.max_connections),
        connect_timeout: written.connect_timeout.map_or(usual.connect_timeout, |timeout| timeout.0),
        keepalive: written.tcp_keepalive.map(|keepalive| TcpKeepalive {
            probes: some(keepalive.probes),
            time: keepalive.time.map(|time| time.0),
            interval: keepalive.interval.map(|interval| interval.0),
        }),
        max_connection_duration: written.max_connection_duration.map(|duration| duration.0),
        idle_timeout: written.idle_timeout.map(|timeout| timeout.0),
    }
}

fn http(written: &istio::HttpSettings) -> HttpSettings {
    let usual = HttpSettings::default();
    HttpSettings {
        http1_max_pending_requests: count(written.http1_max_pending_requests)
            .unwrap_or(usual.http1_max_pending_requests),
        http2_max_requests: count(written.http2_max_requests).unwrap_or(usual.http2_max_requests),
        max_requests_per_connection: count(written.max_requests_per_connection)
            .unwrap_or(usual.max_requests_per_connection),
        max_retries: count(written.max_retries).unwrap_or(usual.max_retries),
        idle_timeout: written.idle_timeout.map(|timeout| timeout.0),
        h2_upgrade_policy: match written.h2_upgrade_policy {
            istio::H2UpgradePolicy::Default => H2UpgradePolicy::Default,
            istio::H2UpgradePolicy::DoNotUpgrade => H2UpgradePolicy::DoNotUpgrade,
            istio::H2UpgradePolicy::Upgrade => H2UpgradePolicy::Upgrade,
        },
        use_client_protocol: written.use_client_protocol,
        max_concurrent_streams: count(written.max_concurrent_streams).unwrap_or(usual.max_concurrent_streams),
        http2_keep_alive: written
            .http2_keep_alive
            .and_then(|ping| Some(Http2KeepAlive { interval: ping.interval?.0, timeout: ping.timeout?.0 })),
    }
}

fn outlier_detection(written: &istio::OutlierDetection) -> OutlierDetection {
    let usual = OutlierDetection::default();
    OutlierDetection {
        consecutive_5xx: written.consecutive_5xx_errors.unwrap_or(usual.consecutive_5xx),
        consecutive_gateway: written.consecutive_gateway_errors.unwrap_or(usual.consecutive_gateway),
        consecutive_local_origin: some(written.consecutive_local_origin_failures)
            .unwrap_or(usual.consecutive_local_origin),
        split_local_origin: written.split_external_local_origin_errors,
        interval: written.interval.map_or(usual.interval, |interval| interval.0),
        base_ejection_time: written.base_ejection_time.map_or(usual.base_ejection_time, |time| time.0),
        max_ejection_percent: count(written.max_ejection_percent).unwrap_or(usual.max_ejection_percent),
        always_eject_one: usual.always_eject_one,
        min_health_percent: count(written.min_health_percent).unwrap_or(usual.min_health_percent),
        http_error_codes: written
            .outlier_detection_http_error_codes
            .iter()
            .filter_map(|code| u16::try_from(*code).ok())
            .collect(),
    }
}

fn tls(written: &istio::ClientTls) -> ClientTls {
    ClientTls {
        mode: match written.mode {
            istio::ClientTlsMode::Disable => TlsMode::Disable,
            istio::ClientTlsMode::Simple => TlsMode::Simple,
            istio::ClientTlsMode::Mutual => TlsMode::Mutual,
            istio::ClientTlsMode::IstioMutual => TlsMode::IstioMutual,
        },
        client_certificate: layer4::word(&written.client_certificate),
        private_key: layer4::word(&written.private_key),
        ca_certificates: layer4::word(&written.ca_certificates),
        ca_crl: layer4::word(&written.ca_crl),
        credential_name: layer4::word(&written.credential_name),
        subject_alt_names: written.subject_alt_names.iter().map(|name| Str::from(name.as_str())).collect(),
        sni: layer4::word(&written.sni),
        insecure_skip_verify: written.insecure_skip_verify.unwrap_or_default(),
    }
}
