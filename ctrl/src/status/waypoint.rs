//! What people are told of waypoints: a Gateway whether it is one and runs, and who asks for one whether it is used.

use std::fmt::Write as _;

use manifest::istio::Gateway;
use manifest::waypoint::{CLASS, OWN_CLASS, UNUSED_PARAMETERS, WAYPOINT_FOR, controller_of};
use manifest::{Key, Object, Typed};
use serde_json::{Value, json};

use super::routing::RESOLVED;
use super::{ACCEPTED, Condition, name_of};
use crate::compile::Compiler;
use crate::compile::deployments::Deployment;
use crate::index::facts::REQUIRE_WAYPOINT;
use crate::index::{Binding, Bound, By, Index, Name, Target, Why};

/// Whether a Gateway's pods run: the Gateway API's word for it.
pub(super) const PROGRAMMED: &str = "Programmed";
/// Whether the waypoint that somebody asks for is used: Istio's word for it.
pub(super) const WAYPOINT_BOUND: &str = "istio.io/WaypointBound";
/// The accounts of a service's pods have different waypoints.
pub(super) const WAYPOINT_AMBIGUOUS: &str = "WaypointAmbiguous";
/// What becomes of a Gateway whose parameters cannot be used.
const STAYS: &str = "what was made for it before stays as it is";
/// What becomes of traffic whose waypoint is not used.
const STRAIGHT: &str = "traffic goes straight to the workloads, and node agents enforce at layer 4, on the safe side, every \
                        policy that selects them";

/// Whether a Gateway is a waypoint that can be used, and whether it runs.
pub(super) fn gateway(compiler: &Compiler, object: &Object, gateway: &Gateway) -> Vec<Condition> {
    let index = compiler.index();
    let name = name_of(object);
    if controller_of(&gateway.gateway_class_name).is_none() {
        let message = format!(
            "Gateways of class {:?} are not carried by this version of the mesh, only waypoints, of class {CLASS} or {OWN_CLASS}",
            gateway.gateway_class_name
        );
        return vec![Condition::new(ACCEPTED, false, "UnsupportedValue", message)];
    }
    let Some(waypoint) = index.waypoint(&name) else {
        let message = "a waypoint needs a listener with `protocol: HBONE`, usually on port 15008";
        return vec![Condition::new(ACCEPTED, false, "ListenersNotValid", message)];
    };
    let mut accepted = Condition::new(ACCEPTED, true, "Accepted", "a waypoint");
    let others = gateway.listeners.iter().filter(|listener| listener.protocol != "HBONE");
    let others: Vec<&str> = others.map(|listener| listener.name.as_str()).collect();
    if !others.is_empty() {
        let _ = write!(
            accepted.message,
            "; of its listeners only that for HBONE is carried, not {}",
            others.join(", ")
        );
    }
    if let Some(text) = object.label(WAYPOINT_FOR)
        && !["service", "workload", "all", "none"].contains(&text)
    {
        let message = format!(
            "{WAYPOINT_FOR}: {text:?} is none of service, workload, all, none: no label can ask for this waypoint"
        );
        accepted = Condition::new(ACCEPTED, false, "UnsupportedValue", message);
    }
    if let Some(account) = &waypoint.account
        && let Some(other) = index.waypoint_of_account(&name.namespace, account)
        && other.name != name
    {
        let message =
            format!("the older Gateway {} stands in front of account {account}; remove one", other.name);
        accepted = Condition::new(ACCEPTED, false, "Conflicted", message);
    }
    let deployment = compiler.deployments().of(&name);
    if let Some(Deployment::Invalid(problem) | Deployment::Unresolved(problem)) = deployment {
        accepted = Condition::new(ACCEPTED, false, "InvalidParameters", format!("{problem}; {STAYS}"));
    }
    if let Some(problem) = unused_parameters(index, &name) {
        accepted = Condition::new(ACCEPTED, false, "InvalidParameters", problem);
    }
    let resolved = deployment.map(|deployment| match deployment {
        Deployment::Unresolved(problem) => Condition::new(RESOLVED, false, "InvalidParameters", problem),
        _ => Condition::new(RESOLVED, true, "ResolvedRefs", "everything that it refers to is there"),
    });
    let programmed = programmed(index, &name, deployment);
    [Some(accepted), Some(programmed), resolved].into_iter().flatten().collect()
}

/// What `lateen up` could not use of a Gateway's parameters: it says so on the Deployment that it makes all the same.
fn unused_parameters<'a>(index: &'a Index, name: &Name) -> Option<&'a str> {
    let key = Key {
        group: "apps".to_owned(),
        kind: "Deployment".to_owned(),
        namespace: Some(name.namespace.to_string()),
        name: name.name.to_string(),
    };
    index.object(&key)?.annotation(UNUSED_PARAMETERS)
}

/// A GatewayClass of ours, unless somebody has given its name to another controller.
pub(super) fn class(compiler: &Compiler, object: &Object) -> Vec<Condition> {
    match is_own_class(compiler, object) {
        true => vec![Condition::new(
            ACCEPTED,
            true,
            "Accepted",
            "Gateways of this class become waypoints of Lateen",
        )],
        false => Vec::new(),
    }
}

/// Whether a GatewayClass is one that this controller answers for.
pub fn is_own_class(compiler: &Compiler, object: &Object) -> bool {
    let class = object.metadata.name.as_str();
    object.kind == "GatewayClass" && controller_of(class).is_some() && compiler.index().answers_for(class)
}

fn programmed(index: &Index, name: &Name, deployment: Option<&Deployment>) -> Condition {
    let (ready, all) = index.ready_replicas(name);
    if let Some(Deployment::Refused(problem)) = deployment {
        let message = format!("{problem}; {ready} of {all} replicas are ready");
        return Condition::new(PROGRAMMED, false, "Invalid", message);
    }
    if index.service(name).is_none() {
        let message = format!("there is no Service {name}, by which it would be found");
        return Condition::new(PROGRAMMED, false, "AddressNotAssigned", message);
    }
    let mut message = format!("{ready} of {all} replicas are ready");
    if awaits_balancer(index, name) {
        message.push_str(
            "; its Service is of type LoadBalancer, and nothing in this cluster has given it an address (is there a load \
             balancer controller?); the mesh uses its address in the cluster all the same",
        );
        return Condition::new(PROGRAMMED, false, "AddressNotAssigned", message);
    }
    if ready == 0 {
        message.push_str(match index.has_been_ready(name) {
            true => "; what is bound to it is refused until one is",
            false => "; it was never ready, so nothing is bound to it yet",
        });
    }
    Condition::new(PROGRAMMED, ready > 0, if ready > 0 { "Programmed" } else { "Pending" }, message)
}

/// Whether a waypoint's Service waits for an address of a load balancer.
fn awaits_balancer(index: &Index, name: &Name) -> bool {
    let Some(object) = index.service_object(name) else { return false };
    let Typed::Service(service) = &object.spec else { return false };
    let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    let given = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    kind == Some("LoadBalancer") && given.is_none_or(Vec::is_empty)
}

/// Where a waypoint is found, once it has been ready: its Service's name first.
pub fn addresses(compiler: &Compiler, object: &Object) -> Option<Value> {
    let Typed::Gateway(_) = &object.spec else { return None };
    let (index, name) = (compiler.index(), name_of(object));
    if index.waypoint(&name).is_none() || !index.has_been_ready(&name) {
        return None;
    }
    let service = index.service(&name)?;
    let host = compiler.context().host(&name);
    let mut all = vec![json!({"type": "Hostname", "value": host.hostname()})];
    all.extend(index.addresses_of(service).map(|ip| json!({"type": "IPAddress", "value": ip.to_string()})));
    Some(Value::Array(all))
}

/// Whether the waypoint that somebody asks for is used.
pub(super) fn bound(compiler: &Compiler, object: &Object) -> Vec<Condition> {
    let (index, name) = (compiler.index(), name_of(object));
    let requires = [&object.metadata.labels, &object.metadata.annotations]
        .iter()
        .any(|all| all.get(REQUIRE_WAYPOINT).is_some_and(|value| value == "true"));
    let mut conditions = Vec::new();
    let bound = match &object.spec {
        Typed::Service(_) => match index.service(&name) {
            Some(service) => {
                if index.is_ambiguous(service) {
                    conditions.push(ambiguous());
                }
                index.service_bound(service)
            }
            None => Bound::Unasked,
        },
        Typed::Pod(_) => index.pod(&name).map_or(Bound::Unasked, |pod| index.pod_bound(pod)),
        Typed::Namespace(_) => of_namespace(index, &name),
        Typed::ServiceAccount(_) => of_account(index, &name),
        _ => return conditions,
    };
    conditions.extend(told(index, &bound, matches!(object.spec, Typed::Namespace(_)), requires));
    conditions
}

fn ambiguous() -> Condition {
    let message = "the service accounts of its pods have different waypoints, or not all have one: none of them stands in \
                   front of the service; give it the label istio.io/use-waypoint";
    Condition::new(WAYPOINT_AMBIGUOUS, true, WAYPOINT_AMBIGUOUS, message)
}

/// Its label counts for services or for workloads, or for both.
fn of_namespace(index: &Index, name: &Name) -> Bound {
    let of = |target| index.namespace_bound(&name.name.clone(), target);
    match of(Target::Service) {
        Bound::Not(_, Why::OtherTraffic) => of(Target::Workload),
        other => other,
    }
}

fn of_account(index: &Index, name: &Name) -> Bound {
    let Some(waypoint) = index.waypoint_of_account(&name.namespace, &name.name) else {
        return Bound::Unasked;
    };
    let by = By::Account(name.name.clone());
    let binding = Binding { waypoint: waypoint.name.clone(), port: waypoint.port, by };
    match index.has_been_ready(&waypoint.name) {
        true => Bound::To(binding),
        false => Bound::Not(binding, Why::NotReady),
    }
}

fn told(index: &Index, bound: &Bound, of_namespace: bool, requires: bool) -> Option<Condition> {
    let mut condition = match bound {
        Bound::Unasked if requires => {
            let message = format!(
                "no waypoint is asked for, and {REQUIRE_WAYPOINT} refuses all that does not come by one"
            );
            return Some(Condition::new(WAYPOINT_BOUND, false, "WaypointRequired", message));
        }
        Bound::Unasked => return None,
        // The namespace is told: its label is for others.
        Bound::Not(Binding { by: By::Namespace, .. }, Why::OtherTraffic) if !of_namespace => return None,
        Bound::To(binding) => {
            let mut message = format!("goes by waypoint {}, {}", binding.waypoint, asked_by(&binding.by));
            if index.ready_replicas(&binding.waypoint).0 == 0 {
                message.push_str("; no replica of it is ready, so it is refused until one is");
            }
            Condition::new(WAYPOINT_BOUND, true, "WaypointAccepted", message)
        }
        Bound::Not(binding, why) => {
            let (reason, what) = not_used(binding, *why);
            let message = format!("{what}; {}: {STRAIGHT}", asked_by(&binding.by));
            Condition::new(WAYPOINT_BOUND, false, reason, message)
        }
    };
    if requires {
        let _ =
            write!(condition.message, "; {REQUIRE_WAYPOINT} refuses all that does not come by a waypoint");
    }
    Some(condition)
}

fn asked_by(by: &By) -> String {
    match by {
        By::Label => "asked for by its label istio.io/use-waypoint".to_owned(),
        By::Account(account) => format!("which is for service account {account}"),
        By::Namespace => "asked for by the namespace's label istio.io/use-waypoint".to_owned(),
    }
}

/// Istio's reason, and what is wrong.
fn not_used(binding: &Binding, why: Why) -> (&'static str, String) {
    let waypoint = &binding.waypoint;
    match why {
        Why::Missing => {
            ("WaypointIsNotReady", format!("there is no Gateway {waypoint} of class {CLASS} or {OWN_CLASS}"))
        }
        Why::NotReady => ("WaypointIsNotReady", format!("waypoint {waypoint} has never been ready")),
        Why::Denied => (
            "AttachmentDenied",
            format!("the allowedRoutes of waypoint {waypoint} do not admit this namespace"),
        ),
        Why::OtherTraffic => (
            "UnsupportedTrafficType",
            format!("waypoint {waypoint} is not for such traffic (its label {WAYPOINT_FOR})"),
        ),
    }
}
