//! `lateen.routing.v1.Routing` ⇄ [`Routing`].
//!
//! What a proxy overlooks in a route sends traffic where its author did not want it, so everything is read exactly or the
//! resource is refused as a whole: a value without a meaning, a field that is not known, a feature that is required and
//! not there. The last good routing of the host then stays.

pub mod features;

mod action;
mod condition;
mod filters;
mod parts;
mod stream;
mod traffic;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use model::address::NamespacedHostname;
use model::route::regex::Allowance;
use model::route::{Action, HttpRule, ResourceName, Routing, RuleList, RuleSource};
use prost::Message;
use proto::routing as wire;

use self::parts::{each, name, optional, required};
use super::intern::Strings;
use super::{FieldError, Reason, fields, parse};

/// Reads a routing that was sent under a name.
pub(super) fn read(strings: &mut Strings, sent_as: &str, value: Bytes) -> Result<Routing, FieldError> {
    let length = value.len();
    let wire: wire::Routing = parse(value)?;
    for feature in &wire.requires {
        if features::Feature::named(feature).is_none() {
            return Err(FieldError::new("requires", Reason::Required(feature.clone())));
        }
    }
    // A decoder drops what it does not know, and of what is there twice the first: then less is left than was sent.
    if wire.encoded_len() != length {
        return Err(FieldError::new("resource", Reason::UnknownFields));
    }
    let host = fields::service_key(strings, sent_as).map_err(|reason| FieldError::new("name", reason))?;
    if host.namespace() != wire.namespace || host.hostname() != wire.hostname {
        let other = format!("{}/{}", wire.namespace, wire.hostname);
        return Err(FieldError::new("name", Reason::OtherName(other)));
    }
    let sources = each("sources", &wire.sources, |one| resource_name(strings, one).map(Arc::new))?;
    let sources = Sources(&sources);
    let regexes = &mut Allowance::default();
    Ok(Routing {
        host,
        http: each("http", &wire.http, |rule| http_rule(strings, regexes, &sources, rule))?,
        tls: each("tls", &wire.tls, |rule| stream::tls_rule(strings, &sources, rule))?,
        tcp: each("tcp", &wire.tcp, |rule| stream::tcp_rule(strings, &sources, rule))?,
        default: optional("default", wire.default.as_ref(), |one| {
            action::forward(strings, regexes, one).map(Box::new)
        })?,
        destinations: destinations(strings, &wire.destinations)?,
    })
}

/// The objects that rules come from.
struct Sources<'a>(&'a [Arc<ResourceName>]);

impl Sources<'_> {
    fn get(&self, list: RuleList, wire: Option<&wire::Source>) -> Result<RuleSource, FieldError> {
        let wire = required("source", wire)?;
        let known = usize::try_from(wire.resource).ok().and_then(|place| self.0.get(place));
        let unknown = || Reason::Malformed(format!("there is no source {}", wire.resource));
        let resource = known.ok_or_else(|| FieldError::new("source.resource", unknown()))?;
        Ok(RuleSource { resource: resource.clone(), list, index: wire.index })
    }
}

fn resource_name(strings: &mut Strings, wire: &wire::Resource) -> Result<ResourceName, FieldError> {
    Ok(ResourceName {
        kind: name(strings, "kind", &wire.kind)?,
        namespace: strings.get(&wire.namespace),
        name: name(strings, "name", &wire.name)?,
    })
}

fn http_rule(
    strings: &mut Strings,
    regexes: &mut Allowance,
    sources: &Sources<'_>,
    wire: &wire::HttpRule,
) -> Result<HttpRule, FieldError> {
    use wire::http_rule::Action as Wire;
    let action = match required("action", wire.action.as_ref())? {
        Wire::Forward(one) => {
            action::forward(strings, regexes, one).map(|one| Action::Forward(Box::new(one)))
        }
        Wire::Redirect(one) => action::redirect(strings, one).map(|one| Action::Redirect(Box::new(one))),
        Wire::Response(one) => action::response(one).map(|one| Action::Respond(Box::new(one))),
    };
    let within = match &wire.action {
        Some(Wire::Redirect(_)) => "redirect",
        Some(Wire::Response(_)) => "response",
        _ => "forward",
    };
    Ok(HttpRule {
        source: sources.get(RuleList::Http, wire.source.as_ref())?,
        name: wire.name.as_deref().map(|name| strings.get(name)),
        matches: each("matches", &wire.matches, |one| condition::http_match(strings, regexes, one))?,
        action: action.map_err(|error| error.within(within))?,
        headers: filters::headers(strings, wire.headers.as_ref()).map_err(|error| error.within("headers"))?,
        fault: optional("fault", wire.fault.as_ref(), |one| filters::fault(one).map(Box::new))?,
        cors: optional("cors", wire.cors.as_ref(), |one| filters::cors(strings, regexes, one).map(Box::new))?,
    })
}

type Destinations = BTreeMap<NamespacedHostname, Arc<model::traffic::Destination>>;

fn destinations(strings: &mut Strings, wire: &[wire::HostPolicy]) -> Result<Destinations, FieldError> {
    let read = each("destinations", wire, |one| {
        let host = fields::host(strings, &one.namespace, &one.hostname)?;
        Ok((host, Arc::new(traffic::destination(strings, one)?)))
    })?;
    let count = read.len();
    let all: Destinations = read.into_iter().collect();
    if all.len() != count {
        let twice = Reason::Malformed("a host is there twice".to_owned());
        return Err(FieldError::new("destinations", twice));
    }
    Ok(all)
}

/// The routing as it is sent, under `namespace/hostname`. Equal routings are equal bytes.
pub fn to_wire(routing: &Routing) -> wire::Routing {
    let mut sources = SourcesToWire::default();
    let http = routing.http.iter().map(|rule| http_rule_to_wire(&mut sources, rule)).collect();
    let tls = routing.tls.iter().map(|rule| stream::tls_rule_to_wire(&mut sources, rule)).collect();
    let tcp = routing.tcp.iter().map(|rule| stream::tcp_rule_to_wire(&mut sources, rule)).collect();
    wire::Routing {
        requires: features::required(routing).into_iter().map(|feature| feature.name().to_owned()).collect(),
        namespace: routing.host.namespace().to_owned(),
        hostname: routing.host.hostname().to_owned(),
        sources: sources.wire,
        http,
        tls,
        tcp,
        default: routing.default.as_deref().map(action::forward_to_wire),
        destinations: routing
            .destinations
            .iter()
            .map(|(host, destination)| traffic::destination_to_wire(host, destination))
            .collect(),
    }
}

/// The objects that rules come from, each once, in the order in which rules name them.
#[derive(Default)]
struct SourcesToWire {
    places: BTreeMap<Arc<ResourceName>, u32>,
    wire: Vec<wire::Resource>,
}

impl SourcesToWire {
    fn put(&mut self, source: &RuleSource) -> Option<wire::Source> {
        let next = self.places.len();
        let resource = *self.places.entry(source.resource.clone()).or_insert_with(|| {
            let ResourceName { kind, namespace, name } = &*source.resource;
            self.wire.push(wire::Resource {
                kind: kind.to_string(),
                namespace: namespace.to_string(),
                name: name.to_string(),
            });
            u32::try_from(next).unwrap_or(u32::MAX)
        });
        Some(wire::Source { resource, index: source.index })
    }
}

fn http_rule_to_wire(sources: &mut SourcesToWire, rule: &HttpRule) -> wire::HttpRule {
    use wire::http_rule::Action as Wire;
    let action = match &rule.action {
        Action::Forward(one) => Wire::Forward(action::forward_to_wire(one)),
        Action::Redirect(one) => Wire::Redirect(action::redirect_to_wire(one)),
        Action::Respond(one) => Wire::Response(action::response_to_wire(one)),
    };
    wire::HttpRule {
        source: sources.put(&rule.source),
        name: rule.name.as_deref().map(ToOwned::to_owned),
        matches: rule.matches.iter().map(condition::http_match_to_wire).collect(),
        action: Some(action),
        headers: filters::headers_to_wire(&rule.headers),
        fault: rule.fault.as_deref().map(filters::fault_to_wire),
        cors: rule.cors.as_deref().map(filters::cors_to_wire),
    }
}

#[cfg(test)]
mod tests;
