//! How endpoints are checked.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use model::address::Str;
use model::traffic::health::{is_path, may_have_header};
use model::traffic::{HealthCheck, Probe};
use proto::routing as wire;

use super::super::parts::{each, invalid, port, required, text, time, time_to_wire};
use super::{FieldError, Strings};

pub(super) fn check(strings: &mut Strings, wire: &wire::HealthCheck) -> Result<HealthCheck, FieldError> {
    let probe = probe(strings, required("probe", wire.probe.as_ref())?)?;
    Ok(HealthCheck {
        probe,
        period: some_time("period", wire.period.as_ref())?,
        timeout: some_time("timeout", wire.timeout.as_ref())?,
        failure_threshold: threshold("failure_threshold", wire.failure_threshold)?,
        success_threshold: threshold("success_threshold", wire.success_threshold)?,
    })
}

fn probe(strings: &mut Strings, wire: &wire::health_check::Probe) -> Result<Probe, FieldError> {
    use wire::health_check::Probe as Wire;
    match wire {
        Wire::HttpGet(one) => http(strings, one).map_err(|error| error.within("http_get")),
        Wire::TcpSocket(one) => match port("port", one.port) {
            Ok(port) => Ok(Probe::Tcp { port }),
            Err(error) => Err(error.within("tcp_socket")),
        },
        Wire::Grpc(one) => match port("port", one.port) {
            Ok(port) => Ok(Probe::Grpc { port, service: strings.get(&one.service) }),
            Err(error) => Err(error.within("grpc")),
        },
    }
}

fn http(strings: &mut Strings, wire: &wire::HttpProbe) -> Result<Probe, FieldError> {
    if !is_path(&wire.path) {
        return Err(invalid("path", format_args!("{:?} cannot be a path", wire.path)));
    }
    let path = strings.get(&wire.path);
    let headers = each("headers", &wire.headers, |one| {
        HeaderName::try_from(one.name.as_str()).map_err(|error| invalid("name", error))?;
        if !may_have_header(&one.name) {
            return Err(invalid("name", format_args!("{:?} is not a check's to say", one.name)));
        }
        HeaderValue::try_from(one.value.as_str()).map_err(|error| invalid("value", error))?;
        Ok((strings.get(&one.name), strings.get(&one.value)))
    })?;
    Ok(Probe::Http { port: port("port", wire.port)?, path, headers })
}

/// A length of time that is one: without any, endpoints would be asked without a pause.
fn some_time(field: &'static str, wire: Option<&prost_types::Duration>) -> Result<Duration, FieldError> {
    let time = time(field, wire)?;
    if time.is_zero() { Err(invalid(field, "no time at all")) } else { Ok(time) }
}

fn threshold(field: &'static str, number: u32) -> Result<u32, FieldError> {
    if number == 0 { Err(invalid(field, "0 is no number of checks")) } else { Ok(number) }
}

pub(super) fn check_to_wire(one: &HealthCheck) -> wire::HealthCheck {
    use wire::health_check::Probe as Wire;
    let header = |(name, value): &(Str, Str)| wire::Header { name: text(name), value: text(value) };
    let probe = match &one.probe {
        Probe::Http { port, path, headers } => Wire::HttpGet(wire::HttpProbe {
            port: u32::from(*port),
            path: text(path),
            headers: headers.iter().map(header).collect(),
        }),
        Probe::Tcp { port } => Wire::TcpSocket(wire::TcpProbe { port: u32::from(*port) }),
        Probe::Grpc { port, service } => {
            Wire::Grpc(wire::GrpcProbe { port: u32::from(*port), service: text(service) })
        }
    };
    wire::HealthCheck {
        probe: Some(probe),
        period: Some(time_to_wire(one.period)),
        timeout: Some(time_to_wire(one.timeout)),
        failure_threshold: one.failure_threshold,
        success_threshold: one.success_threshold,
    }
}
