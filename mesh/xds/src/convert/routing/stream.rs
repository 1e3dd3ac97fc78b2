//! Rules for connections that are not HTTP.

use ipnet::IpNet;
use model::address::Str;
use model::route::stream::{SniMatch, TcpMatch, TcpRule, TlsMatch, TlsRule};
use model::route::{Destinations, RuleList};
use proto::routing as wire;
use wire::stream_target::Destinations as Wire;

use super::condition::{scope, scope_to_wire};
use super::parts::{each, required, texts};
use super::{FieldError, Reason, Sources, SourcesToWire, Strings, action, fields};

pub(super) fn tls_rule(
    strings: &mut Strings,
    sources: &Sources<'_>,
    wire: &wire::TlsRule,
) -> Result<TlsRule, FieldError> {
    let (destinations, missing) = target(strings, wire.to.as_ref())?;
    let matches = each("matches", &wire.matches, |one| tls_match(strings, one))?;
    if matches.is_empty() {
        return Err(FieldError::new("matches", Reason::Missing));
    }
    Ok(TlsRule { source: sources.get(RuleList::Tls, wire.source.as_ref())?, matches, destinations, missing })
}

pub(super) fn tcp_rule(
    strings: &mut Strings,
    sources: &Sources<'_>,
    wire: &wire::TcpRule,
) -> Result<TcpRule, FieldError> {
    let (destinations, missing) = target(strings, wire.to.as_ref())?;
    Ok(TcpRule {
        source: sources.get(RuleList::Tcp, wire.source.as_ref())?,
        matches: each("matches", &wire.matches, |one| tcp_match(strings, one))?,
        destinations,
        missing,
    })
}

type Target = (Destinations, Box<[Str]>);

fn target(strings: &mut Strings, wire: Option<&wire::StreamTarget>) -> Result<Target, FieldError> {
    let wire = required("to", wire)?;
    let destinations = required("destinations", wire.destinations.as_ref()).and_then(|one| match one {
        Wire::Only(one) => action::only(strings, one),
        Wire::Split(split) => action::split(strings, split),
    });
    let missing = wire.missing.iter().map(|missing| strings.get(missing)).collect();
    Ok((destinations.map_err(|error| error.within("to"))?, missing))
}

fn tls_match(strings: &mut Strings, wire: &wire::TlsMatch) -> Result<TlsMatch, FieldError> {
    let sni_hosts = wire.sni_hosts.iter().map(|host| sni(host)).collect::<Result<Box<[_]>, _>>()?;
    if sni_hosts.is_empty() {
        return Err(FieldError::new("sni_hosts", Reason::Missing));
    }
    let tcp = match &wire.tcp {
        Some(one) => tcp_match(strings, one).map_err(|error| error.within("tcp"))?,
        None => TcpMatch::default(),
    };
    Ok(TlsMatch { sni_hosts, tcp })
}

/// A name, `*`, or `*.` and a name.
fn sni(host: &str) -> Result<SniMatch, FieldError> {
    let name = host.strip_prefix("*.").unwrap_or(host);
    if host == "*" || (!name.is_empty() && !name.contains('*')) {
        return Ok(SniMatch::new(host));
    }
    Err(FieldError::new("sni_hosts", Reason::Form { text: host.to_owned(), form: "HOST, *.HOST or *" }))
}

fn tcp_match(strings: &mut Strings, wire: &wire::TcpMatch) -> Result<TcpMatch, FieldError> {
    let subnet = |one: &wire::Subnet| {
        fields::range(&one.address, one.length)
            .map_err(|reason| FieldError::new("destination_subnets", reason))
    };
    Ok(TcpMatch {
        scope: scope(strings, wire.scope.as_ref()).map_err(|error| error.within("scope"))?,
        destination_subnets: wire.destination_subnets.iter().map(subnet).collect::<Result<_, _>>()?,
    })
}

pub(super) fn tls_rule_to_wire(sources: &mut SourcesToWire, rule: &TlsRule) -> wire::TlsRule {
    let one = |one: &TlsMatch| wire::TlsMatch {
        sni_hosts: one.sni_hosts.iter().map(|host| host.as_str().to_string()).collect(),
        tcp: (one.tcp != TcpMatch::default()).then(|| tcp_match_to_wire(&one.tcp)),
    };
    wire::TlsRule {
        source: sources.put(&rule.source),
        matches: rule.matches.iter().map(one).collect(),
        to: Some(target_to_wire(&rule.destinations, &rule.missing)),
    }
}

pub(super) fn tcp_rule_to_wire(sources: &mut SourcesToWire, rule: &TcpRule) -> wire::TcpRule {
    wire::TcpRule {
        source: sources.put(&rule.source),
        matches: rule.matches.iter().map(tcp_match_to_wire).collect(),
        to: Some(target_to_wire(&rule.destinations, &rule.missing)),
    }
}

fn target_to_wire(destinations: &Destinations, missing: &[Str]) -> wire::StreamTarget {
    let destinations = match destinations {
        Destinations::One(one) => Wire::Only(action::destination_to_wire(one)),
        Destinations::Split(all) => Wire::Split(action::split_to_wire(all)),
    };
    wire::StreamTarget { destinations: Some(destinations), missing: texts(missing) }
}

fn tcp_match_to_wire(one: &TcpMatch) -> wire::TcpMatch {
    let subnet = |range: &IpNet| wire::Subnet {
        address: fields::ip_bytes(range.addr()),
        length: range.prefix_len().into(),
    };
    wire::TcpMatch {
        scope: scope_to_wire(&one.scope),
        destination_subnets: one.destination_subnets.iter().map(subnet).collect(),
    }
}
