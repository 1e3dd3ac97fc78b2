//! VirtualServices and DestinationRules beside what else there is: names that lead nowhere, rules that are never used.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::{Inventory, finding};
use crate::{
    Step,
    cursor::Cursor,
    finding::{Code, Finding, Level},
    istio::DestinationRule,
    object::{Object, Typed},
    position::Position,
};

/// What one object shows.
pub(super) fn check(object: &Object, inventory: &Inventory<'_>) -> Vec<Finding> {
    let Some(spec) = Cursor::root(object.tree()).get("spec") else { return Vec::new() };
    match &object.spec {
        Typed::VirtualService(_) => {
            let mut findings: Vec<Finding> = shared_hosts(object, &spec, inventory).collect();
            for list in ["http", "tls", "tcp"] {
                let rules = spec.items(list);
                findings.extend(unused(object, &rules));
                for rule in &rules {
                    findings.extend(references(object, rule, inventory));
                }
            }
            findings
        }
        Typed::DestinationRule(rule) => {
            let unknown = unknown_host(object, rule, inventory).into_iter();
            unknown.chain(empty_subsets(object, rule, &spec, inventory)).collect()
        }
        _ => Vec::new(),
    }
}

fn warning(object: &Object, code: Code, at: &Cursor<'_>, message: String) -> Finding {
    let position = Position::new(object.file(), at.at);
    finding(Level::Warning, code, object, position, &at.path, message)
}

/// Rules behind one that takes everything, and matches that a rule before has already.
fn unused(object: &Object, rules: &[Cursor<'_>]) -> Vec<Finding> {
    let (mut findings, mut seen) = (Vec::new(), HashMap::new());
    let mut takes_all: Option<&Cursor<'_>> = None;
    for rule in rules {
        if let Some(before) = takes_all {
            let message = format!("the rule is never used: {} takes everything", before.path);
            let fix = "put it before that one";
            findings.push(warning(object, Code::UnreachableRule, rule, message).with_fix(fix));
            continue;
        }
        let matches = rule.items("match");
        for one in &matches {
            if let Some(before) = seen.get(&one.node.to_json().to_string()) {
                let message = format!("the match is never used: {before} has the same");
                findings.push(warning(object, Code::IneffectiveMatch, one, message));
            }
        }
        seen.extend(matches.iter().map(|one| (one.node.to_json().to_string(), rule.path.clone())));
        if matches.is_empty() {
            takes_all = Some(rule);
        }
    }
    findings
}

/// Services, subsets and delegates that a rule names.
fn references(object: &Object, rule: &Cursor<'_>, inventory: &Inventory<'_>) -> Vec<Finding> {
    let Some(own) = object.metadata.namespace.as_deref() else { return Vec::new() };
    let routed = rule.items("route").into_iter().chain(rule.items("mirrors"));
    let destinations = routed.filter_map(|one| one.get("destination")).chain(rule.get("mirror"));
    let mut findings: Vec<Finding> =
        destinations.filter_map(|one| destination(object, own, &one, inventory)).collect();
    if let Some(delegate) = rule.get("delegate")
        && let Some(name) = delegate.get("name")
    {
        let namespace =
            delegate.get("namespace").map(|namespace| namespace.text()).filter(|text| !text.is_empty());
        let namespace = namespace.unwrap_or(own);
        if inventory.describes(namespace)
            && inventory.named("VirtualService", namespace, name.text()).is_none()
        {
            let message = format!("there is no VirtualService `{}` in namespace {namespace}", name.text());
            findings.push(warning(object, Code::ReferencedResourceNotFound, &name, message));
        }
    }
    findings
}

fn destination(object: &Object, own: &str, at: &Cursor<'_>, inventory: &Inventory<'_>) -> Option<Finding> {
    let host = at.get("host")?;
    let (namespace, name) = service(host.text(), own)?;
    if !inventory.describes(namespace) {
        return None;
    }
    let Some(found) = inventory.named("Service", namespace, name) else {
        let message = format!("there is no Service `{name}` in namespace {namespace}");
        return Some(warning(object, Code::ReferencedResourceNotFound, &host, message));
    };
    let ports = found.raw.pointer("/spec/ports").and_then(Value::as_array).map_or(0, Vec::len);
    if ports > 1 && at.get("port").is_none() {
        let message = format!(
            "Service {namespace}/{name} has {ports} ports, and none is said here: it is the one that the client asked for, \
             where that is one of them"
        );
        let fix = "add `port: {number: ...}`";
        return Some(warning(object, Code::PortSelectorRequired, &host, message).with_fix(fix));
    }
    let subset = at.get("subset").filter(|subset| !subset.text().is_empty())?;
    let defined = inventory.destination_rules().any(|(of, rule)| {
        service(&rule.host, of) == Some((namespace, name))
            && rule.subsets.iter().any(|known| known.name == subset.text())
    });
    (!defined).then(|| {
        let message = format!("no DestinationRule of {namespace}/{name} has the subset `{}`", subset.text());
        let fix = "until there is one, what was in force for the host stays";
        warning(object, Code::ReferencedResourceNotFound, &subset, message).with_fix(fix)
    })
}

/// Hosts that an earlier VirtualService is for, too: the rules of the oldest come first, and what they take does not come
/// here. Of those whose age is not known the first by namespace and name counts as the oldest.
fn shared_hosts<'a>(
    object: &'a Object,
    spec: &'a Cursor<'a>,
    inventory: &'a Inventory<'_>,
) -> impl Iterator<Item = Finding> + 'a {
    let own = object.metadata.namespace.as_deref().unwrap_or_default();
    let age = |object: &'a Object| {
        let created = object.metadata.creation_timestamp.as_deref();
        (created.is_none(), created, object.metadata.namespace.as_deref(), object.metadata.name.as_str())
    };
    let hosts = spec.items("hosts").into_iter();
    hosts.filter_map(move |host| {
        let wanted = service(host.text(), own)?;
        let (before, rules) = inventory
            .virtual_services()
            .filter(|(other, rules)| {
                let of = other.metadata.namespace.as_deref().unwrap_or_default();
                age(other) < age(object)
                    && rules.is_for_mesh()
                    && rules.hosts.iter().any(|host| service(host, of) == Some(wanted))
            })
            .min_by_key(|(other, _)| age(other))?;
        let takes_all = rules.http.iter().any(|rule| rule.matches.is_empty());
        let fate = match takes_all {
            true => "and one of them takes everything: no rule for HTTP here is ever used for it",
            false => "what they take does not come here",
        };
        let name = &before.metadata.name;
        let message = format!(
            "VirtualService `{name}` is for {} too, and older: its rules come first, {fate}",
            host.text()
        );
        let fix = "put the rules into one VirtualService, or let one delegate to the others";
        Some(warning(object, Code::SharedHost, &host, message).with_fix(fix))
    })
}

/// Subsets that none of the pods behind the service belongs to.
fn empty_subsets(
    object: &Object,
    rule: &DestinationRule,
    spec: &Cursor<'_>,
    inventory: &Inventory<'_>,
) -> Vec<Finding> {
    let own = object.metadata.namespace.as_deref().unwrap_or_default();
    let found =
        service(&rule.host, own).and_then(|(namespace, name)| inventory.named("Service", namespace, name));
    let Some(found) = found.filter(|found| inventory.pods_of(found).next().is_some()) else {
        return Vec::new();
    };
    let subsets = rule.subsets.iter().zip(spec.items("subsets"));
    let empty = subsets.filter(|(subset, _)| {
        let selects = |labels: &BTreeMap<String, String>| {
            subset.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        };
        !inventory.pods_of(found).any(|workload| selects(&workload.labels))
    });
    empty
        .map(|(subset, at)| {
            let message = format!(
                "no pod behind Service `{}` belongs to the subset `{}`",
                found.metadata.name, subset.name
            );
            let fix = "requests that are routed to it are answered with 503";
            warning(object, Code::SubsetNotSelectPods, &at, message).with_fix(fix)
        })
        .collect()
}

/// Namespace and name of the service that a host is; `None` for hosts that are not Kubernetes'.
fn service<'a>(host: &'a str, own: &'a str) -> Option<(&'a str, &'a str)> {
    match host.split_once('.') {
        None => (!host.contains('*')).then_some((own, host)),
        Some((name, rest)) => {
            let (namespace, rest) = rest.split_once('.')?;
            (rest.starts_with("svc") && name != "*").then_some((namespace, name))
        }
    }
}

/// A DestinationRule for a host that nobody has.
fn unknown_host(object: &Object, rule: &DestinationRule, inventory: &Inventory<'_>) -> Option<Finding> {
    let (namespace, name) = service(&rule.host, object.metadata.namespace.as_deref()?)?;
    if !inventory.describes(namespace) || inventory.named("Service", namespace, name).is_some() {
        return None;
    }
    let at = object.locate(&[Step::Key("spec"), Step::Key("host")]);
    let message = format!("there is no Service `{name}` in namespace {namespace}: the rule is for nobody");
    Some(finding(Level::Warning, Code::UnknownDestinationRuleHost, object, at, "spec.host", message))
}
