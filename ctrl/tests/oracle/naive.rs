//! Istio's documentation, read naively: what an AuthorizationPolicy and a PeerAuthentication say about a connection to
//! the pod `shop/cart` when nobody looks at requests. Lateen's own promise is added in two places, both marked.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use manifest::istio::{
    Action, AuthorizationPolicy, Condition, MutualTlsMode, Operation, PeerAuthentication, Rule, Source,
};
use manifest::{BrokenScope, Object, Typed};

use crate::random::Connection;

const NAMESPACE: &str = "shop";
const ROOT: &str = "istio-system";

/// Whether it holds, as far as layer 4 can tell.
#[derive(Clone, Copy, PartialEq)]
enum Holds {
    Yes,
    No,
    Maybe,
}

fn labels() -> BTreeMap<String, String> {
    [("app", "cart"), ("tier", "back")].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// "If there are any DENY policies that match the request, deny the request. If there are no ALLOW policies for the
/// workload, allow the request. If any of the ALLOW policies match the request, allow the request. Deny the request."
pub(crate) fn allows(objects: &[Arc<Object>], connection: &Connection) -> bool {
    if connection.identity.is_none() && is_strict(objects, connection.destination.port()) {
        return false;
    }
    let mut allow_policies = 0;
    let mut allowed = false;
    for object in objects.iter().filter(|object| object.kind == "AuthorizationPolicy") {
        if object.annotation("istio.io/dry-run") == Some("true") {
            continue;
        }
        let namespace = object.metadata.namespace.as_deref().unwrap();
        if namespace != NAMESPACE && namespace != ROOT {
            continue;
        }
        let Typed::AuthorizationPolicy(policy) = &object.spec else {
            // Lateen's promise: what cannot be read refuses all that it is for.
            if broken_is_for_us(object) {
                return false;
            }
            continue;
        };
        if policy.targets().next().is_some() || !selects(policy) {
            continue;
        }
        match policy.action {
            Action::Allow => {
                allow_policies += 1;
                allowed |= matches(policy, namespace, connection) == Holds::Yes;
            }
            // Lateen's promise: what nobody can see or ask here refuses.
            Action::Deny | Action::Custom => {
                if matches(policy, namespace, connection) != Holds::No {
                    return false;
                }
            }
            Action::Audit => {}
        }
    }
    allow_policies == 0 || allowed
}

fn selects(policy: &AuthorizationPolicy) -> bool {
    let labels = labels();
    match &policy.selector {
        Some(selector) => selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value)),
        None => true,
    }
}

fn broken_is_for_us(object: &Object) -> bool {
    let labels = labels();
    match object.broken_scope() {
        BrokenScope::Selector(wanted) => wanted.iter().all(|(key, value)| labels.get(key) == Some(value)),
        BrokenScope::Targets => false,
        BrokenScope::Namespace => true,
    }
}

/// Any of the rules.
fn matches(policy: &AuthorizationPolicy, namespace: &str, connection: &Connection) -> Holds {
    any(policy.rules.iter().map(|rule| rule_matches(rule, namespace, connection)))
}

/// "A match occurs when at least one source, one operation and all conditions matches the request."
fn rule_matches(rule: &Rule, namespace: &str, connection: &Connection) -> Holds {
    let mut parts = Vec::new();
    if !rule.from.is_empty() {
        parts.push(any(rule.from.iter().map(|from| source(&from.source, namespace, connection))));
    }
    if !rule.to.is_empty() {
        parts.push(any(rule.to.iter().map(|to| operation(&to.operation, connection))));
    }
    parts.extend(rule.when.iter().map(|when| condition(when, namespace, connection)));
    all(parts)
}

fn source(source: &Source, namespace: &str, connection: &Connection) -> Holds {
    let principal =
        connection.identity.as_ref().map(|identity| identity.to_string().replace("spiffe://", ""));
    let own = connection.identity.as_ref().map(|identity| identity.namespace().to_string());
    let mut parts = vec![
        listed(&source.principals, &source.not_principals, |value| glob(value, principal.as_deref())),
        listed(&source.namespaces, &source.not_namespaces, |value| glob(value, own.as_deref())),
        listed(&source.service_accounts, &source.not_service_accounts, |value| {
            account(value, namespace, connection)
        }),
        listed(&source.ip_blocks, &source.not_ip_blocks, |value| inside(value, connection.source.ip())),
    ];
    parts.push(trust_domains(
        &source.trust_domains,
        &source.not_trust_domains,
        &source.principals,
        connection,
    ));
    let requests = [
        &source.request_principals,
        &source.not_request_principals,
        &source.remote_ip_blocks,
        &source.not_remote_ip_blocks,
    ];
    parts.extend(requests.iter().filter(|list| !list.is_empty()).map(|_| Holds::Maybe));
    all(parts)
}

/// The trust domain is the first part of the identity. The wire to agents has no field for it: what it cannot express
/// by other fields counts as not seen.
fn trust_domains(
    wanted: &[String],
    unwanted: &[String],
    principals: &[String],
    connection: &Connection,
) -> Holds {
    let domain = connection.identity.as_ref().map(|identity| identity.trust_domain().to_string());
    let is_suffix = |value: &String| value.len() > 1 && value.starts_with('*');
    let mut parts = Vec::new();
    // Of what is unwanted, each is by itself.
    let (hidden, seen): (Vec<String>, Vec<String>) = unwanted.iter().cloned().partition(is_suffix);
    parts.push(listed(&[], &seen, |value| glob(value, domain.as_deref())));
    if !hidden.is_empty() {
        parts.push(Holds::Maybe);
    }
    if !wanted.is_empty() {
        let only_any = wanted.iter().all(|value| value == "*");
        if wanted.iter().any(is_suffix) || (principals.iter().any(is_suffix) && !only_any) {
            parts.push(Holds::Maybe);
        } else {
            parts.push(listed(wanted, &[], |value| glob(value, domain.as_deref())));
        }
    }
    all(parts)
}

fn operation(operation: &Operation, connection: &Connection) -> Holds {
    let port = connection.destination.port().to_string();
    let mut parts = vec![listed(&operation.ports, &operation.not_ports, |value| value == port)];
    let requests = [
        &operation.hosts,
        &operation.not_hosts,
        &operation.methods,
        &operation.not_methods,
        &operation.paths,
        &operation.not_paths,
    ];
    parts.extend(requests.iter().filter(|list| !list.is_empty()).map(|_| Holds::Maybe));
    all(parts)
}

fn condition(condition: &Condition, namespace: &str, connection: &Connection) -> Holds {
    let Condition { key, values, not_values } = condition;
    let identity = connection.identity.as_ref();
    match key.as_str() {
        "source.ip" => listed(values, not_values, |value| inside(value, connection.source.ip())),
        "destination.ip" => listed(values, not_values, |value| inside(value, connection.destination.ip())),
        "destination.port" => {
            listed(values, not_values, |value| value == connection.destination.port().to_string())
        }
        "source.namespace" => {
            let own = identity.map(|identity| identity.namespace().to_string());
            listed(values, not_values, |value| glob(value, own.as_deref()))
        }
        "source.principal" => {
            let own = identity.map(|identity| identity.to_string().replace("spiffe://", ""));
            listed(values, not_values, |value| glob(value, own.as_deref()))
        }
        "source.serviceAccount" => listed(values, not_values, |value| account(value, namespace, connection)),
        "source.trustDomain" => trust_domains(values, not_values, &[], connection),
        _ => Holds::Maybe,
    }
}

/// One of the first list if there is one, and none of the second.
fn listed(values: &[String], not_values: &[String], is: impl Fn(&str) -> bool) -> Holds {
    let wanted = values.is_empty() || values.iter().any(|value| is(value));
    let unwanted = not_values.iter().any(|value| is(value));
    if wanted && !unwanted { Holds::Yes } else { Holds::No }
}

/// "Exact match, prefix match (`abc*`), suffix match (`*abc`), presence match (`*`)".
fn glob(pattern: &str, value: Option<&str>) -> bool {
    let Some(value) = value else { return false };
    match pattern.split_once('*') {
        None => pattern == value,
        Some(("", "")) => !value.is_empty(),
        Some((start, "")) => value.get(..start.len()) == Some(start),
        Some(("", end)) => value.len() >= end.len() && value.get(value.len() - end.len()..) == Some(end),
        Some(_) => panic!("no such pattern is generated"),
    }
}

fn account(value: &str, namespace: &str, connection: &Connection) -> bool {
    let full = if value.contains('/') { value.to_owned() } else { format!("{namespace}/{value}") };
    let own = connection.identity.as_ref();
    own.is_some_and(|own| format!("{}/{}", own.namespace(), own.service_account()) == full)
}

fn inside(value: &str, ip: std::net::IpAddr) -> bool {
    // The one range that is written as IPv6 and means IPv4.
    let value = if value == "::ffff:10.0.0.0/120" { "10.0.0.0/24" } else { value };
    match value.parse::<IpNet>() {
        Ok(range) => range.contains(&ip),
        Err(_) => value.parse::<std::net::IpAddr>().unwrap() == ip,
    }
}

fn any(parts: impl IntoIterator<Item = Holds>) -> Holds {
    let parts: Vec<Holds> = parts.into_iter().collect();
    if parts.contains(&Holds::Yes) {
        Holds::Yes
    } else if parts.contains(&Holds::Maybe) {
        Holds::Maybe
    } else {
        Holds::No
    }
}

fn all(parts: impl IntoIterator<Item = Holds>) -> Holds {
    let parts: Vec<Holds> = parts.into_iter().collect();
    if parts.contains(&Holds::No) {
        Holds::No
    } else if parts.contains(&Holds::Maybe) {
        Holds::Maybe
    } else {
        Holds::Yes
    }
}

/// "Mesh-wide, namespace-wide, workload-specific: the most specific applies"; at each, the oldest; UNSET inherits.
fn is_strict(objects: &[Arc<Object>], port: u16) -> bool {
    let mut found: Vec<(&Object, &PeerAuthentication)> = objects
        .iter()
        .filter_map(|object| match &object.spec {
            Typed::PeerAuthentication(spec) => Some((&**object, &**spec)),
            _ => None,
        })
        .collect();
    // Those without a time were made last, and among equals the name decides.
    found.sort_by_key(|(object, _)| {
        let created = object.metadata.creation_timestamp.clone();
        (created.unwrap_or_else(|| "9999".to_owned()), object.metadata.name.clone())
    });
    let selector = |spec: &PeerAuthentication| {
        spec.selector.as_ref().map(|selector| selector.match_labels.clone()).unwrap_or_default()
    };
    let in_namespace =
        |object: &Object, namespace: &str| object.metadata.namespace.as_deref() == Some(namespace);
    let for_all_of = |namespace: &str| {
        found.iter().find(|(object, spec)| in_namespace(object, namespace) && selector(spec).is_empty())
    };
    let labels = labels();
    let for_us = found.iter().find(|(object, spec)| {
        let wanted = selector(spec);
        let matches = wanted.iter().all(|(key, value)| labels.get(key) == Some(value));
        in_namespace(object, NAMESPACE) && !wanted.is_empty() && matches
    });
    let mode = |one: Option<&(&Object, &PeerAuthentication)>| {
        one.and_then(|(_, spec)| spec.mtls).map(|mtls| mtls.mode)
    };
    let port_mode = for_us.and_then(|(_, spec)| {
        spec.port_level_mtls.iter().find(|(number, _)| number.0 == port).map(|(_, mtls)| mtls.mode)
    });
    let modes = [port_mode, mode(for_us), mode(for_all_of(NAMESPACE)), mode(for_all_of(ROOT))];
    let said = modes.into_iter().flatten().find(|mode| *mode != MutualTlsMode::Unset);
    said == Some(MutualTlsMode::Strict)
}
