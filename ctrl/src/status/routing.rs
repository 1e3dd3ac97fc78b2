//! What people are told of VirtualServices and DestinationRules: for which hosts they count, where their hosts keep an
//! older routing, and for want of what.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use manifest::waypoint::GATEWAY_NAME;
use manifest::{Finding, Object, Typed};
use model::address::{NamespacedHostname, Str};

use super::{ACCEPTED, Condition, kept, name_of};
use crate::compile::Compiler;
use crate::index::{Index, Name};
use crate::translate::routing::{Missing, Standing};

/// Hosts keep their last good routing, because what was written last names what is not there.
pub(super) const HELD: &str = "Held";
/// Every reference resolves: the Gateway API's word for it.
pub(super) const RESOLVED: &str = "ResolvedRefs";
/// How many hosts are named.
const NAMED: usize = 5;

/// Whether rules count, whether their references resolve, and what is held.
pub(super) fn conditions(compiler: &Compiler, object: &Object, findings: &[&Finding]) -> Vec<Condition> {
    let outcome = compiler.routing();
    let name = name_of(object);
    let standing = match &object.spec {
        Typed::DestinationRule(_) => compiler.destination_rule(&name),
        _ => compiler.virtual_service(&name),
    };
    let standing = &standing.unwrap_or_default();
    let mut all = vec![accepted(compiler, standing, findings)];
    all.extend(missing(standing, &outcome.held, HELD, true, "the last good routing is kept"));
    let left_out = "there is no last good routing, so a rule without a destination answers 503";
    all.extend(missing(standing, &outcome.unresolved, RESOLVED, false, left_out));
    all
}

fn accepted(compiler: &Compiler, standing: &Standing, findings: &[&Finding]) -> Condition {
    let index = compiler.index();
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
    let not_carried = not_carried(compiler, standing);
    for text in &not_carried {
        let _ = write!(message, "; {text}");
    }
    let reason = match (bound.is_empty(), not_carried.is_empty()) {
        (true, _) => "NoWaypoint",
        (false, true) => "Accepted",
        (false, false) => "PartiallyInvalid",
    };
    Condition::new(ACCEPTED, reason == "Accepted", reason, kept(message, findings))
}

/// What is not carried out: by no waypoint of this version, and by those that are connected and of another.
fn not_carried(compiler: &Compiler, standing: &Standing) -> Vec<String> {
    let mut texts = Vec::new();
    let by_nobody: Vec<&str> = standing.fields(|feature| !feature.is_carried()).collect();
    if !by_nobody.is_empty() {
        texts.push(format!(
            "waypoints of this version do not carry out, and leave out: {}",
            by_nobody.join(", ")
        ));
    }
    let index = compiler.index();
    let waypoints: BTreeSet<Name> =
        standing.hosts.iter().filter_map(|host| waypoint_of(index, host)).collect();
    for (pod, lacks) in compiler.lagging().all() {
        let gateway = index.pod(pod).and_then(|pod| pod.labels.get(GATEWAY_NAME));
        let routes = gateway.is_some_and(|gateway| waypoints.contains(&Name::new(&pod.namespace, gateway)));
        let fields: Vec<&str> = standing.fields(|feature| lacks.contains(&feature)).collect();
        if routes && !fields.is_empty() {
            texts.push(format!(
                "the waypoint {pod} is of another version and does not carry out {}: it leaves out what only comes on \
                 top, and answers 503 where a request would go elsewhere",
                fields.join(", ")
            ));
        }
    }
    texts
}

/// The waypoint that routes what is for a host.
fn waypoint_of(index: &Index, host: &str) -> Option<Name> {
    let mut labels = host.split('.');
    let (name, namespace) = (labels.next().unwrap_or_default(), labels.next().unwrap_or_default());
    let service = index.service(&Name::new(namespace, name))?;
    index.service_bound(service).in_force().map(|binding| binding.waypoint.clone())
}

/// Whether a waypoint routes what is for a host.
fn is_bound(index: &Index, host: &str) -> bool {
    waypoint_of(index, host).is_some()
}

fn missing(
    standing: &Standing,
    hosts: &BTreeMap<NamespacedHostname, Missing>,
    kind: &'static str,
    holds: bool,
    fate: &str,
) -> Option<Condition> {
    let own = hosts.iter().filter(|(host, _)| standing.hosts.contains(host.hostname()));
    let texts: Vec<String> = own
        .map(|(host, missing)| {
            let missing: Vec<&str> = missing.iter().map(|one| &**one).collect();
            format!("{}: {fate}; there is no {}", host.hostname(), missing.join("; no "))
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
