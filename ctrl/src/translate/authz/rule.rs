//! One rule: its sources, operations and conditions.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use manifest::istio::{Condition, Operation, Rule as Asked};
use model::address::Str;
use model::authz::{Action, Clause, HeaderMatch, Layer, Match, PathMatch, RequestMatch, Rule, StringMatch};

use super::{Here, aliases, source};

/// Sources ORed, operations ORed, each condition on its own; the three ANDed.
pub(super) fn rule(asked: &Asked, action: Action, here: Here<'_>) -> Result<Rule, String> {
    let mut clauses = Vec::new();
    if !asked.from.is_empty() {
        let sources = asked.from.iter().map(|from| source::source(&from.source, here));
        clauses.push(clause(sources.collect::<Result<_, _>>()?, action));
    }
    if !asked.to.is_empty() {
        let operations = asked.to.iter().map(|to| operation(&to.operation, here));
        clauses.push(clause(operations.collect::<Result<_, _>>()?, action));
    }
    for condition in &asked.when {
        clauses.push(clause(vec![self::condition(condition, here)?], action));
    }
    Ok(Rule { clauses: clauses.into() })
}

/// A match that restricts nothing never holds for the engine. Whoever wrote one meant that anything matches: that
/// must not take the effect from a DENY or AUDIT rule, nor give it to an ALLOW rule.
fn clause(matches: Vec<Match>, action: Action) -> Clause {
    if action != Action::Allow && matches.iter().any(Match::is_empty) {
        return Clause::default();
    }
    Clause { matches: matches.into() }
}

/// Adds an attribute that nobody sees to every rule.
pub(super) fn restrict(rules: &mut [Rule], attribute: &Str) {
    for rule in rules {
        let one = Match { unseen: vec![attribute.clone()], ..Match::default() };
        let mut clauses = std::mem::take(&mut rule.clauses).into_vec();
        clauses.push(Clause { matches: [one].into() });
        rule.clauses = clauses.into();
    }
}

fn operation(asked: &Operation, here: Here<'_>) -> Result<Match, String> {
    let Operation { hosts, not_hosts, ports, not_ports, methods, not_methods, paths, not_paths } = asked;
    let one = Match {
        destination_ports: self::ports(ports)?,
        not_destination_ports: self::ports(not_ports)?,
        ..Match::default()
    };
    if here.layer == Layer::Seven {
        let request = RequestMatch {
            methods: texts(methods),
            not_methods: texts(not_methods),
            paths: self::paths(paths)?,
            not_paths: self::paths(not_paths)?,
            hosts: self::hosts(hosts),
            not_hosts: self::hosts(not_hosts),
            ..RequestMatch::default()
        };
        return Ok(Match { request: boxed(request), ..one });
    }
    let unseen = [
        ("hosts", hosts),
        ("notHosts", not_hosts),
        ("methods", methods),
        ("notMethods", not_methods),
        ("paths", paths),
        ("notPaths", not_paths),
    ];
    Ok(Match { unseen: names("to.operation", &unseen), ..one })
}

/// Nothing where nothing is restricted.
pub(super) fn boxed(request: RequestMatch) -> Option<Box<RequestMatch>> {
    (!request.is_empty()).then(|| request.into())
}

fn paths(values: &[String]) -> Result<Vec<PathMatch>, String> {
    values.iter().map(|value| PathMatch::parse(value).map_err(|error| error.to_string())).collect()
}

/// Requests have their hosts in lower case.
fn hosts(values: &[String]) -> Vec<StringMatch> {
    values.iter().map(|value| text(&value.to_ascii_lowercase())).collect()
}

fn condition(asked: &Condition, here: Here<'_>) -> Result<Match, String> {
    let Condition { key, values, not_values } = asked;
    let mut one = Match::default();
    match key.as_str() {
        "source.ip" => (one.source_ips, one.not_source_ips) = (ranges(values)?, ranges(not_values)?),
        "destination.ip" => {
            (one.destination_ips, one.not_destination_ips) = (ranges(values)?, ranges(not_values)?);
        }
        "destination.port" => {
            (one.destination_ports, one.not_destination_ports) = (ports(values)?, ports(not_values)?);
        }
        "source.namespace" => (one.namespaces, one.not_namespaces) = (texts(values), texts(not_values)),
        "source.principal" => {
            one.principals = aliases::principals(values, here.mesh);
            one.not_principals = aliases::principals(not_values, here.mesh);
        }
        "source.serviceAccount" => {
            one.service_accounts = source::accounts(values, here.namespace);
            one.not_service_accounts = source::accounts(not_values, here.namespace);
        }
        "source.trustDomain" if here.layer == Layer::Four => {
            source::trust_domains(&mut one, values, not_values, &format!("when[{key}]"));
        }
        _ => match at_layer_7(asked)?.filter(|_| here.layer == Layer::Seven) {
            Some(request) => one.request = boxed(request),
            None => one.unseen.push(format!("when[{key}]").into()),
        },
    }
    Ok(one)
}

/// A condition on what a waypoint sees; nothing where it does not see that, either.
fn at_layer_7(asked: &Condition) -> Result<Option<RequestMatch>, String> {
    let Condition { key, values, not_values } = asked;
    let mut one = RequestMatch::default();
    match key.as_str() {
        "remote.ip" => (one.remote_ips, one.not_remote_ips) = (ranges(values)?, ranges(not_values)?),
        "source.trustDomain" => {
            (one.trust_domains, one.not_trust_domains) = (texts(values), texts(not_values));
        }
        "connection.sni" => (one.sni, one.not_sni) = (texts(values), texts(not_values)),
        _ => {
            let Some(name) = header_name(key) else { return Ok(None) };
            // Neither a pseudo-header nor what stands in for one is among the headers as they are compared.
            if name == "host" || name.starts_with(':') {
                return Ok(None);
            }
            match HeaderMatch::new(&name, texts(values), texts(not_values)) {
                Some(header) => one.headers.push(header),
                None => return Ok(None),
            }
        }
    }
    Ok(Some(one))
}

/// The name in `request.headers[NAME]`, in lower case.
fn header_name(key: &str) -> Option<String> {
    let name = key.strip_prefix("request.headers[")?.strip_suffix(']')?;
    Some(name.to_ascii_lowercase())
}

/// The fields that restrict something, by their full names.
pub(super) fn names(prefix: &str, fields: &[(&str, &Vec<String>)]) -> Vec<Str> {
    let set = fields.iter().filter(|(_, values)| !values.is_empty());
    set.map(|(name, _)| format!("{prefix}.{name}").into()).collect()
}

/// `*` is anything that is there, `x*` what begins with x, `*x` what ends with it.
pub(super) fn texts(values: &[String]) -> Vec<StringMatch> {
    values.iter().map(|value| text(value)).collect()
}

pub(super) fn text(value: &str) -> StringMatch {
    if value == "*" {
        StringMatch::Presence
    } else if let Some(rest) = value.strip_prefix('*') {
        StringMatch::Suffix(rest.into())
    } else if let Some(rest) = value.strip_suffix('*') {
        StringMatch::Prefix(rest.into())
    } else {
        StringMatch::Exact(value.into())
    }
}

/// Addresses and CIDRs.
pub(super) fn ranges(values: &[String]) -> Result<Vec<IpNet>, String> {
    values.iter().map(|value| range(value)).collect()
}

fn range(value: &str) -> Result<IpNet, String> {
    let wrong = || format!("{value:?} is neither an address nor a CIDR");
    let range = match value.parse::<IpNet>() {
        Ok(range) => range,
        Err(_) => IpNet::from(value.parse::<IpAddr>().map_err(|_| wrong())?),
    };
    Ok(unmapped(range))
}

/// Clients with IPv4 addresses are known by those; a range of v4-mapped addresses means them.
fn unmapped(range: IpNet) -> IpNet {
    let IpNet::V6(mapped) = range else { return range };
    let Some(ip) = mapped.addr().to_ipv4_mapped() else { return range };
    let length = mapped.prefix_len().checked_sub(96);
    length.and_then(|length| Ipv4Net::new(ip, length).ok()).map_or(range, IpNet::V4)
}

pub(super) fn ports(values: &[String]) -> Result<Vec<u16>, String> {
    values.iter().map(|value| value.parse().map_err(|_| format!("{value:?} is not a port"))).collect()
}
