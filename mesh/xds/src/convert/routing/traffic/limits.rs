//! How much may be under way to a destination, and who is left out for failing.

use model::traffic::{
    ConnectionPool, H2UpgradePolicy, Http2KeepAlive, HttpSettings, OutlierDetection, RetryBudget,
    TcpKeepalive, TcpSettings,
};
use proto::routing as wire;

use super::super::parts::{
    invalid, optional, optional_time, percent, required, time, time_to_wire, unknown, within,
};
use super::FieldError;

pub(super) fn connection_pool(wire: &wire::ConnectionPool) -> Result<ConnectionPool, FieldError> {
    Ok(ConnectionPool {
        tcp: tcp(required("tcp", wire.tcp.as_ref())?).map_err(|error| error.within("tcp"))?,
        http: http(required("http", wire.http.as_ref())?).map_err(|error| error.within("http"))?,
    })
}

fn tcp(wire: &wire::TcpSettings) -> Result<TcpSettings, FieldError> {
    Ok(TcpSettings {
        max_connections: wire.max_connections,
        connect_timeout: time("connect_timeout", wire.connect_timeout.as_ref())?,
        keepalive: optional("keepalive", wire.keepalive.as_ref(), |one| {
            Ok(TcpKeepalive {
                probes: one.probes,
                time: optional_time("time", one.time.as_ref())?,
                interval: optional_time("interval", one.interval.as_ref())?,
            })
        })?,
        max_connection_duration: optional_time(
            "max_connection_duration",
            wire.max_connection_duration.as_ref(),
        )?,
        idle_timeout: optional_time("idle_timeout", wire.idle_timeout.as_ref())?,
    })
}

fn http(wire: &wire::HttpSettings) -> Result<HttpSettings, FieldError> {
    Ok(HttpSettings {
        http1_max_pending_requests: wire.http1_max_pending_requests,
        http2_max_requests: wire.http2_max_requests,
        max_requests_per_connection: wire.max_requests_per_connection,
        max_retries: wire.max_retries,
        idle_timeout: optional_time("idle_timeout", wire.idle_timeout.as_ref())?,
        h2_upgrade_policy: match wire::H2UpgradePolicy::try_from(wire.h2_upgrade_policy) {
            Ok(wire::H2UpgradePolicy::Default) => H2UpgradePolicy::Default,
            Ok(wire::H2UpgradePolicy::DoNotUpgrade) => H2UpgradePolicy::DoNotUpgrade,
            Ok(wire::H2UpgradePolicy::Upgrade) => H2UpgradePolicy::Upgrade,
            Err(_) => return Err(unknown("h2_upgrade_policy", wire.h2_upgrade_policy)),
        },
        use_client_protocol: wire.use_client_protocol,
        max_concurrent_streams: wire.max_concurrent_streams,
        http2_keep_alive: optional("http2_keep_alive", wire.http2_keep_alive.as_ref(), |one| {
            Ok(Http2KeepAlive {
                interval: time("interval", one.interval.as_ref())?,
                timeout: time("timeout", one.timeout.as_ref())?,
            })
        })?,
    })
}

pub(super) fn retry_budget(wire: &wire::RetryBudget) -> Result<RetryBudget, FieldError> {
    Ok(RetryBudget {
        percent: within("percent", wire.percent, 0.0, 100.0)?,
        min_retry_concurrency: wire.min_retry_concurrency,
        interval: time("interval", wire.interval.as_ref())?,
    })
}

pub(super) fn outlier_detection(wire: &wire::OutlierDetection) -> Result<OutlierDetection, FieldError> {
    let code = |number: &u32| {
        let code = u16::try_from(*number).ok().filter(|code| (200..600).contains(code));
        code.ok_or_else(|| {
            invalid("http_error_codes", format_args!("{number} is not a status from 200 to 599"))
        })
    };
    Ok(OutlierDetection {
        consecutive_5xx: wire.consecutive_5xx,
        consecutive_gateway: wire.consecutive_gateway,
        consecutive_local_origin: wire.consecutive_local_origin,
        split_local_origin: wire.split_local_origin,
        interval: time("interval", wire.interval.as_ref())?,
        base_ejection_time: time("base_ejection_time", wire.base_ejection_time.as_ref())?,
        max_ejection_percent: percent("max_ejection_percent", wire.max_ejection_percent)?,
        always_eject_one: wire.always_eject_one,
        min_health_percent: percent("min_health_percent", wire.min_health_percent)?,
        http_error_codes: wire.http_error_codes.iter().map(code).collect::<Result<_, _>>()?,
    })
}

pub(super) fn connection_pool_to_wire(one: &ConnectionPool) -> wire::ConnectionPool {
    wire::ConnectionPool { tcp: Some(tcp_to_wire(&one.tcp)), http: Some(http_to_wire(&one.http)) }
}

fn tcp_to_wire(one: &TcpSettings) -> wire::TcpSettings {
    let keepalive = |one: TcpKeepalive| wire::TcpKeepalive {
        probes: one.probes,
        time: one.time.map(time_to_wire),
        interval: one.interval.map(time_to_wire),
    };
    wire::TcpSettings {
        max_connections: one.max_connections,
        connect_timeout: Some(time_to_wire(one.connect_timeout)),
        keepalive: one.keepalive.map(keepalive),
        max_connection_duration: one.max_connection_duration.map(time_to_wire),
        idle_timeout: one.idle_timeout.map(time_to_wire),
    }
}

fn http_to_wire(one: &HttpSettings) -> wire::HttpSettings {
    let keep_alive = |one: Http2KeepAlive| wire::Http2KeepAlive {
        interval: Some(time_to_wire(one.interval)),
        timeout: Some(time_to_wire(one.timeout)),
    };
    wire::HttpSettings {
        http1_max_pending_requests: one.http1_max_pending_requests,
        http2_max_requests: one.http2_max_requests,
        max_requests_per_connection: one.max_requests_per_connection,
        max_retries: one.max_retries,
        idle_timeout: one.idle_timeout.map(time_to_wire),
        h2_upgrade_policy: match one.h2_upgrade_policy {
            H2UpgradePolicy::Default => wire::H2UpgradePolicy::Default,
            H2UpgradePolicy::DoNotUpgrade => wire::H2UpgradePolicy::DoNotUpgrade,
            H2UpgradePolicy::Upgrade => wire::H2UpgradePolicy::Upgrade,
        }
        .into(),
        use_client_protocol: one.use_client_protocol,
        max_concurrent_streams: one.max_concurrent_streams,
        http2_keep_alive: one.http2_keep_alive.map(keep_alive),
    }
}

pub(super) fn retry_budget_to_wire(one: &RetryBudget) -> wire::RetryBudget {
    wire::RetryBudget {
        percent: one.percent,
        min_retry_concurrency: one.min_retry_concurrency,
        interval: Some(time_to_wire(one.interval)),
    }
}

pub(super) fn outlier_detection_to_wire(one: &OutlierDetection) -> wire::OutlierDetection {
    wire::OutlierDetection {
        consecutive_5xx: one.consecutive_5xx,
        consecutive_gateway: one.consecutive_gateway,
        consecutive_local_origin: one.consecutive_local_origin,
        split_local_origin: one.split_local_origin,
        interval: Some(time_to_wire(one.interval)),
        base_ejection_time: Some(time_to_wire(one.base_ejection_time)),
        max_ejection_percent: one.max_ejection_percent,
        always_eject_one: one.always_eject_one,
        min_health_percent: one.min_health_percent,
        http_error_codes: one.http_error_codes.iter().map(|code| u32::from(*code)).collect(),
    }
}
