//! Rules for TLS that is passed on and for TCP, in the model's words.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use manifest::istio::RouteDestination;
use model::address::Str;
use model::route::stream::{SniMatch, TcpMatch, TlsMatch};
use model::route::{Destinations, HeaderChanges, RuleList, RuleSource, Scope, TcpRule, TlsRule};

use super::lookup::{Rules, in_mesh};
use super::references::{References, Written};

/// The rules for TLS of a VirtualService.
pub(super) fn tls(rules: &Rules, references: &mut References<'_>) -> Vec<TlsRule> {
    let mut translated = Vec::new();
    for (index, rule) in rules.spec.tls.iter().enumerate() {
        let source = source(rules, RuleList::Tls, index);
        let matches = rule.matches.iter().filter(|one| in_mesh(&one.gateways)).map(|one| {
            let scope = scope(one.port, &one.source_labels, &one.source_namespace)?;
            let tcp = TcpMatch { scope, destination_subnets: subnets(&one.destination_subnets)? };
            Ok(TlsMatch { sni_hosts: one.sni_hosts.iter().map(|host| SniMatch::new(host)).collect(), tcp })
        });
        let matches: Result<Vec<TlsMatch>, String> = matches.collect();
        match matches {
            Ok(matches) if matches.is_empty() => {}
            Ok(matches) => {
                let (destinations, missing) = to(&source, &rule.route, references);
                translated.push(TlsRule {
                    source,
                    matches: matches.into(),
                    destinations,
                    missing: missing.into(),
                });
            }
            Err(reason) => {
                references.miss(&source, reason);
            }
        }
    }
    translated
}

/// The rules for TCP of a VirtualService.
pub(super) fn tcp(rules: &Rules, references: &mut References<'_>) -> Vec<TcpRule> {
    let mut translated = Vec::new();
    for (index, rule) in rules.spec.tcp.iter().enumerate() {
        let source = source(rules, RuleList::Tcp, index);
        let matches = rule.matches.iter().filter(|one| in_mesh(&one.gateways)).map(|one| {
            let scope = scope(one.port, &one.source_labels, &one.source_namespace)?;
            Ok(TcpMatch { scope, destination_subnets: subnets(&one.destination_subnets)? })
        });
        let matches: Result<Vec<TcpMatch>, String> = matches.collect();
        match matches {
            Ok(matches) if matches.is_empty() && !rule.matches.is_empty() => {}
            Ok(matches) => {
                let (destinations, missing) = to(&source, &rule.route, references);
                translated.push(TcpRule {
                    source,
                    matches: matches.into(),
                    destinations,
                    missing: missing.into(),
                });
            }
            // Nothing passes by a rule that cannot be read.
            Err(reason) => {
                let missing = [references.miss(&source, reason)].into();
                let (matches, destinations) = (Box::default(), Destinations::default());
                translated.push(TcpRule { source, matches, destinations, missing });
            }
        }
    }
    translated
}

fn to(
    source: &RuleSource,
    route: &[RouteDestination],
    references: &mut References<'_>,
) -> (Destinations, Vec<Str>) {
    let written = route.iter().map(|one| Written {
        destination: &one.destination,
        weight: one.weight,
        headers: HeaderChanges::default(),
    });
    references.all(source, written)
}

fn source(rules: &Rules, list: RuleList, index: usize) -> RuleSource {
    RuleSource { resource: rules.resource.clone(), list, index: u32::try_from(index).unwrap_or(u32::MAX) }
}

fn scope(port: Option<u32>, labels: &BTreeMap<String, String>, namespace: &str) -> Result<Scope, String> {
    Ok(Scope {
        port: self::port(port)?,
        source_labels: self::labels(labels),
        source_namespace: word(namespace),
    })
}

/// A port; `None` where none is said.
pub(super) fn port(port: Option<u32>) -> Result<Option<u16>, String> {
    port.map(|port| u16::try_from(port).map_err(|_| format!("{port} is not a port"))).transpose()
}

/// Labels, shared.
pub(super) fn labels(labels: &BTreeMap<String, String>) -> BTreeMap<Str, Str> {
    labels.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect()
}

/// A word; `None` where it is empty.
pub(super) fn word(text: &str) -> Option<Str> {
    (!text.is_empty()).then(|| text.into())
}

fn subnets(texts: &[String]) -> Result<Box<[IpNet]>, String> {
    let one = |text: &String| {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.map_err(|_| format!("`{text}` is neither an address nor a CIDR"))
    };
    texts.iter().map(one).collect()
}
