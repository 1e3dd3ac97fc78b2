//! What people are told of VirtualServices and DestinationRules: for which hosts they count, where their hosts keep an
//! older routing, and for want of what.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use manifest::{Finding, Object, Typed};
use model::address::{NamespacedHostname, Str};

use super::{ACCEPTED, Condition, kept, name_of};
use crate::compile::Compiler;
use crate::index::{Index, Name};
use crate::translate::routing::{Missing, Standing};

/// Hosts keep their last good routing, because what was written last names what is not there.
const HELD: &str = "Held";
/// Every reference resolves: the Gateway API's word for it.
const RESOLVED: &str = "ResolvedRefs";
/// How many hosts are named.
const NAMED: usize = 5;

/// Whether rules count, whether their references resolve, and what is held.
pub(super) fn conditions(compiler: &Compiler, object: &Object, findings: &[&Finding]) -> Vec<Condition> {
    let outcome = compiler.routing();
    let standings = match &object.spec {
        Typed::DestinationRule(_) => &outcome.destination_rules,
        _ => &outcome.virtual_services,
    };
    let nothing = Standing::default();
    let standing = standings.get(&name_of(object)).unwrap_or(&nothing);
    let mut all = vec![accepted(compiler.index(), standing, findings)];
    all.extend(missing(standing, &outcome.held, HELD, true, "the last good routing is kept"));
    let left_out = "there is no last good routing, so a rule without a destination answers 503";
    all.extend(missing(standing, &outcome.unresolved, RESOLVED, false, left_out));
    all
}

fn accepted(index: &Index, standing: &Standing, findings: &[&Finding]) -> Condition {
    let why_not = standing.without_effect.iter().cloned().collect::<Vec<_>>().join("; ");
    if standing.hosts.is_empty() {
        let message = if why_not.is_empty() { "nothing that it is for is there".to_owned() } else { why_not };
        return Condition::new(ACCEPTED, false, "NoMatchingHost", kept(message, findings));
    }
    let (bound, bare): (Vec<&Str>, Vec<&Str>) = standing.hosts.iter().partition(|host| is_bound(index, host));
    let mut message = match bound.is_empty() {
        true => String::new(),
        false => format!("in force at the waypoints of {}", named(&bound)),
    };
    if !bare.is_empty() {
        let then = if message.is_empty() { "" } else { "; " };
        // Writing to a string cannot fail.
        let _ = write!(
            message,
            "{then}nothing of it is in force for {}: no waypoint stands in front",
            named(&bare)
        );
    }
    if !why_not.is_empty() {
        let _ = write!(message, "; {why_not}");
    }
    if !standing.not_carried.is_empty() {
        let fields: Vec<&str> = standing.not_carried.iter().map(String::as_str).collect();
        let _ = write!(
            message,
            "; waypoints of this version do not carry out, and leave out: {}",
            fields.join(", ")
        );
    }
    let reason = match (bound.is_empty(), standing.not_carried.is_empty()) {
        (true, _) => "NoWaypoint",
        (false, true) => "Accepted",
        (false, false) => "PartiallyInvalid",
    };
    Condition::new(ACCEPTED, reason == "Accepted", reason, kept(message, findings))
}

/// Whether a waypoint routes what is for a host.
fn is_bound(index: &Index, host: &str) -> bool {
    let mut labels = host.split('.');
    let (name, namespace) = (labels.next().unwrap_or_default(), labels.next().unwrap_or_default());
    let service = index.service(&Name::new(namespace, name));
    service.is_some_and(|service| index.service_bound(service).in_force().is_some())
}

fn missing(
    standing: &Standing,
    hosts: &BTreeMap<NamespacedHostname, Missing>,
    kind: &'static str,
    holds: bool,
    fate: &str,
) -> Option<Condition> {
    let own = hosts.iter().filter(|(host, _)| standing.hosts.contains(&host.hostname));
    let texts: Vec<String> = own
        .map(|(host, missing)| {
            let missing: Vec<&str> = missing.iter().map(|one| &**one).collect();
            format!("{}: {fate}; there is no {}", host.hostname, missing.join("; no "))
        })
        .take(NAMED)
        .collect();
    (!texts.is_empty()).then(|| Condition::new(kind, holds, "RefNotFound", texts.join("; ")))
}

fn named(hosts: &[&Str]) -> String {
    let shown: Vec<&str> = hosts.iter().take(NAMED).map(|host| &***host).collect();
    match hosts.len().checked_sub(NAMED).filter(|more| *more > 0) {
        Some(more) => format!("{} and {more} more", shown.join(", ")),
        None => shown.join(", "),
    }
}
