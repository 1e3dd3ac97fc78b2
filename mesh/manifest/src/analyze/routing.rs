//! VirtualServices and DestinationRules beside what else there is: names that lead nowhere, rules that are never used.

use std::collections::HashMap;

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
            let mut findings = Vec::new();
            for list in ["http", "tls", "tcp"] {
                let rules = spec.items(list);
                findings.extend(unused(object, &rules));
                for rule in &rules {
                    findings.extend(references(object, rule, inventory));
                }
            }
            findings
        }
        Typed::DestinationRule(rule) => unknown_host(object, rule, inventory).into_iter().collect(),
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
    if inventory.named("Service", namespace, name).is_none() {
        let message = format!("there is no Service `{name}` in namespace {namespace}");
        return Some(warning(object, Code::ReferencedResourceNotFound, &host, message));
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
