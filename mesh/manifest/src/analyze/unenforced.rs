//! What is written and nobody does: actions and targets that this version of the mesh does not carry, of two rules for
//! the same workloads the one that does not count, ports that no packet of a pod has.

use serde_json::Value;

use super::{Inventory, finding, inventory::Workload};
use crate::{
    Step,
    cursor::Cursor,
    finding::{Code, Finding, Level},
    istio::{Action, AuthorizationPolicy, PeerAuthentication},
    object::{Object, Typed},
    position::Position,
};

pub(super) fn check(object: &Object, inventory: &Inventory<'_>) -> Vec<Finding> {
    match &object.spec {
        Typed::AuthorizationPolicy(policy) => {
            let mut findings = Vec::new();
            findings.extend(targets(object, policy));
            findings.extend(action(object, policy));
            findings.extend(ports(object, policy, inventory));
            findings
        }
        Typed::PeerAuthentication(rule) => second(object, rule, inventory).into_iter().collect(),
        _ => Vec::new(),
    }
}

fn ineffective(object: &Object, at: Position, field: &str, message: String) -> Finding {
    finding(Level::Warning, Code::IneffectivePolicy, object, at, field, message)
}

/// A policy for what a waypoint serves says nothing of what goes around it.
fn targets(object: &Object, policy: &AuthorizationPolicy) -> Option<Finding> {
    policy.targets().next()?;
    let field = if policy.target_ref.is_some() { "targetRef" } else { "targetRefs" };
    let at = object.locate(&[Step::Key("spec"), Step::Key(field)]);
    let message =
        "only waypoints enforce what is for targetRefs: it says nothing of traffic that goes around them";
    let field = format!("spec.{field}");
    let finding = finding(Level::Info, Code::IneffectivePolicy, object, at, &field, message.to_owned());
    Some(finding.with_fix(
        "set the label lateen.dev/require-waypoint: \"true\", or use a `selector` of the pods' labels",
    ))
}

fn action(object: &Object, policy: &AuthorizationPolicy) -> Option<Finding> {
    let (level, message) = match policy.action {
        Action::Allow | Action::Deny => return None,
        Action::Audit => (Level::Info, "AUDIT: waypoints note what matches, node agents note nothing"),
        Action::Custom => (
            Level::Warning,
            "CUSTOM: this version of the mesh asks no provider, so what the rules match is refused, whatever it would say",
        ),
    };
    let at = object.locate(&[Step::Key("spec"), Step::Key("action")]);
    Some(finding(level, Code::IneffectivePolicy, object, at, "spec.action", message.to_owned()))
}

/// A rule for workloads that another is for already.
fn second(object: &Object, rule: &PeerAuthentication, inventory: &Inventory<'_>) -> Option<Finding> {
    let first = inventory.peer_rule_like(object, rule)?;
    let at = object.locate(&[Step::Key("spec")]);
    let message = format!("{} is for the same workloads: only one of the two counts", first.key());
    Some(ineffective(object, at, "spec", message).with_fix("remove one of them"))
}

/// Ports of a Service where its pods have others: what reaches a pod has the pod's.
fn ports(object: &Object, policy: &AuthorizationPolicy, inventory: &Inventory<'_>) -> Vec<Finding> {
    let Some(namespace) = object.metadata.namespace.as_deref() else { return Vec::new() };
    let Some(spec) = Cursor::root(object.tree()).get("spec") else { return Vec::new() };
    let rules = spec.items("rules");
    let operations = rules
        .iter()
        .flat_map(|rule| rule.items("to"))
        .filter_map(|to| to.get("operation"))
        .collect::<Vec<_>>();
    let selected: Vec<_> = inventory.selected(namespace, policy.selector.as_ref()).collect();
    let mut findings = Vec::new();
    for port in operations.iter().flat_map(|of| [of.items("ports"), of.items("notPorts")]).flatten() {
        let Ok(number) = port.text().parse::<u16>() else { continue };
        let Some((service, target)) = selected.iter().find_map(|pods| translated(pods, number, inventory))
        else {
            continue;
        };
        if selected.iter().any(|pods| listens(pods, number, inventory)) {
            continue;
        }
        let at = Position::new(object.file(), port.at);
        let message = format!(
            "{number} is a port of {}; what reaches its pods has theirs, {target}: no connection has this one",
            service.key()
        );
        findings.push(ineffective(object, at, &port.path, message).with_fix(format!("write \"{target}\"")));
    }
    findings
}

/// The Service that has this port, and what it is for these pods where that is another one.
fn translated<'a>(
    pods: &Workload<'_>,
    number: u16,
    inventory: &Inventory<'a>,
) -> Option<(&'a Object, String)> {
    inventory.services_of(pods).find_map(|service| {
        let (_, target) = service_ports(service).find(|(port, _)| *port == Some(u64::from(number)))?;
        let target = match target? {
            Value::Number(other) if other.as_u64() != Some(u64::from(number)) => other.to_string(),
            _ => return None,
        };
        Some((service, target))
    })
}

/// Whether packets to these pods can have this port, as far as the files say.
fn listens(pods: &Workload<'_>, number: u16, inventory: &Inventory<'_>) -> bool {
    let number = u64::from(number);
    let own = pods.pod.pointer("/spec/containers").and_then(Value::as_array);
    let declared = own.into_iter().flatten().filter_map(|one| one.get("ports")?.as_array()).flatten();
    let mut declared = declared.filter_map(|port| port.get("containerPort")?.as_u64());
    declared.any(|port| port == number)
        || inventory.services_of(pods).any(|service| {
            service_ports(service).any(|(port, target)| match target {
                Some(Value::Number(target)) => target.as_u64() == Some(number),
                // A name may stand for any port.
                Some(_) => true,
                None => port == Some(number),
            })
        })
}

/// The ports of a Service, and what it says they are at its pods.
fn service_ports(service: &Object) -> impl Iterator<Item = (Option<u64>, Option<&Value>)> {
    let ports = service.raw.pointer("/spec/ports").and_then(Value::as_array);
    ports.into_iter().flatten().map(|port| (port.get("port").and_then(Value::as_u64), port.get("targetPort")))
}
