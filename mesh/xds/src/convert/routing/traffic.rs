//! Subsets and traffic policies of the hosts that rules name.

mod balance;
mod health;
mod limits;

use model::address::{NamespacedHostname, Str};
use model::traffic::{ClientTls, Destination, PortPolicy, ProxyProtocol, Subset, TlsMode, TrafficPolicy};
use proto::routing as wire;

use super::condition::{labels, labels_to_wire};
use super::parts::{each, name, optional, optional_name, port, text, texts, unknown};
use super::{FieldError, Reason, Strings};

pub(super) fn destination(strings: &mut Strings, wire: &wire::HostPolicy) -> Result<Destination, FieldError> {
    let subsets = each("subsets", &wire.subsets, |one| {
        Ok(Subset {
            name: name(strings, "name", &one.name)?,
            labels: labels(strings, &one.labels),
            policy: optional("policy", one.policy.as_ref(), |one| policy(strings, one))?,
        })
    })?;
    for (place, subset) in subsets.iter().enumerate() {
        if subsets[..place].iter().any(|before| before.name == subset.name) {
            let twice = Reason::Malformed(format!("the subset {} is there twice", subset.name));
            return Err(FieldError::new("subsets", twice));
        }
    }
    let policy = optional("policy", wire.policy.as_ref(), |one| policy(strings, one))?;
    let check = optional("health_check", wire.health_check.as_ref(), |one| health::check(strings, one))?;
    Ok(Destination {
        cause: strings.get(&wire.cause),
        policy: policy.unwrap_or_default(),
        subsets,
        health_check: check,
    })
}

fn policy(strings: &mut Strings, wire: &wire::TrafficPolicy) -> Result<TrafficPolicy, FieldError> {
    Ok(TrafficPolicy {
        load_balancer: optional("load_balancer", wire.load_balancer.as_ref(), |one| {
            balance::load_balancer(strings, one)
        })?,
        connection_pool: optional("connection_pool", wire.connection_pool.as_ref(), limits::connection_pool)?,
        outlier_detection: optional(
            "outlier_detection",
            wire.outlier_detection.as_ref(),
            limits::outlier_detection,
        )?,
        tls: optional("tls", wire.tls.as_ref(), |one| tls(strings, one))?,
        retry_budget: optional("retry_budget", wire.retry_budget.as_ref(), limits::retry_budget)?,
        proxy_protocol: wire.proxy_protocol.map(proxy_protocol).transpose()?,
        ports: each("ports", &wire.ports, |one| port_policy(strings, one))?,
    })
}

fn port_policy(strings: &mut Strings, wire: &wire::PortPolicy) -> Result<PortPolicy, FieldError> {
    Ok(PortPolicy {
        port: port("port", wire.port)?,
        load_balancer: optional("load_balancer", wire.load_balancer.as_ref(), |one| {
            balance::load_balancer(strings, one)
        })?,
        connection_pool: optional("connection_pool", wire.connection_pool.as_ref(), limits::connection_pool)?,
        outlier_detection: optional(
            "outlier_detection",
            wire.outlier_detection.as_ref(),
            limits::outlier_detection,
        )?,
        tls: optional("tls", wire.tls.as_ref(), |one| tls(strings, one))?,
    })
}

fn proxy_protocol(number: i32) -> Result<ProxyProtocol, FieldError> {
    match wire::ProxyProtocol::try_from(number) {
        Ok(wire::ProxyProtocol::ProxyV1) => Ok(ProxyProtocol::V1),
        Ok(wire::ProxyProtocol::ProxyV2) => Ok(ProxyProtocol::V2),
        Ok(wire::ProxyProtocol::Unspecified) | Err(_) => Err(unknown("proxy_protocol", number)),
    }
}

fn tls(strings: &mut Strings, wire: &wire::ClientTls) -> Result<ClientTls, FieldError> {
    let mode = match wire::TlsMode::try_from(wire.mode) {
        Ok(wire::TlsMode::Disable) => TlsMode::Disable,
        Ok(wire::TlsMode::Simple) => TlsMode::Simple,
        Ok(wire::TlsMode::Mutual) => TlsMode::Mutual,
        Ok(wire::TlsMode::IstioMutual) => TlsMode::IstioMutual,
        Ok(wire::TlsMode::Unspecified) | Err(_) => return Err(unknown("mode", wire.mode)),
    };
    let mut named = |field, text: &Option<String>| optional_name(strings, field, text.as_ref());
    let client_certificate = named("client_certificate", &wire.client_certificate)?;
    let private_key = named("private_key", &wire.private_key)?;
    let ca_certificates = named("ca_certificates", &wire.ca_certificates)?;
    let ca_crl = named("ca_crl", &wire.ca_crl)?;
    let credential_name = named("credential_name", &wire.credential_name)?;
    let sni = named("sni", &wire.sni)?;
    Ok(ClientTls {
        mode,
        client_certificate,
        private_key,
        ca_certificates,
        ca_crl,
        credential_name,
        subject_alt_names: each("subject_alt_names", &wire.subject_alt_names, |one| {
            name(strings, "name", one)
        })?,
        sni,
        insecure_skip_verify: wire.insecure_skip_verify,
    })
}

pub(super) fn destination_to_wire(host: &NamespacedHostname, one: &Destination) -> wire::HostPolicy {
    let subset = |one: &Subset| wire::Subset {
        name: text(&one.name),
        labels: labels_to_wire(&one.labels),
        policy: one.policy.as_ref().map(policy_to_wire),
    };
    wire::HostPolicy {
        namespace: host.namespace().to_owned(),
        hostname: host.hostname().to_owned(),
        cause: text(&one.cause),
        policy: (one.policy != TrafficPolicy::default()).then(|| policy_to_wire(&one.policy)),
        subsets: one.subsets.iter().map(subset).collect(),
        health_check: one.health_check.as_ref().map(health::check_to_wire),
    }
}

fn policy_to_wire(one: &TrafficPolicy) -> wire::TrafficPolicy {
    let proxy_protocol = |version| match version {
        ProxyProtocol::V1 => wire::ProxyProtocol::ProxyV1.into(),
        ProxyProtocol::V2 => wire::ProxyProtocol::ProxyV2.into(),
    };
    let port = |one: &PortPolicy| wire::PortPolicy {
        port: one.port.into(),
        load_balancer: one.load_balancer.as_ref().map(balance::load_balancer_to_wire),
        connection_pool: one.connection_pool.as_ref().map(limits::connection_pool_to_wire),
        outlier_detection: one.outlier_detection.as_ref().map(limits::outlier_detection_to_wire),
        tls: one.tls.as_ref().map(tls_to_wire),
    };
    wire::TrafficPolicy {
        load_balancer: one.load_balancer.as_ref().map(balance::load_balancer_to_wire),
        connection_pool: one.connection_pool.as_ref().map(limits::connection_pool_to_wire),
        outlier_detection: one.outlier_detection.as_ref().map(limits::outlier_detection_to_wire),
        tls: one.tls.as_ref().map(tls_to_wire),
        retry_budget: one.retry_budget.as_ref().map(limits::retry_budget_to_wire),
        proxy_protocol: one.proxy_protocol.map(proxy_protocol),
        ports: one.ports.iter().map(port).collect(),
    }
}

fn tls_to_wire(one: &ClientTls) -> wire::ClientTls {
    let named = |text: &Option<Str>| text.as_deref().map(ToOwned::to_owned);
    wire::ClientTls {
        mode: match one.mode {
            TlsMode::Disable => wire::TlsMode::Disable,
            TlsMode::Simple => wire::TlsMode::Simple,
            TlsMode::Mutual => wire::TlsMode::Mutual,
            TlsMode::IstioMutual => wire::TlsMode::IstioMutual,
        }
        .into(),
        client_certificate: named(&one.client_certificate),
        private_key: named(&one.private_key),
        ca_certificates: named(&one.ca_certificates),
        ca_crl: named(&one.ca_crl),
        credential_name: named(&one.credential_name),
        subject_alt_names: texts(&one.subject_alt_names),
        sni: named(&one.sni),
        insecure_skip_verify: one.insecure_skip_verify,
    }
}
