//! What people are told of AuthorizationPolicies at waypoints: by which of them a policy is enforced, and what of it no
//! waypoint sees.

use std::fmt::Write as _;

use manifest::istio::{Action, AuthorizationPolicy, TargetRef};
use manifest::waypoint::{CLASS, OWN_CLASS, controller_of};
use manifest::{Finding, Object, Typed};

use super::{Condition, kept, name_of, told};
use crate::compile::Compiler;
use crate::index::{Index, Name};
use crate::translate::authz::{self, Fate};

/// Whether waypoints enforce an object: Istio's word for it.
pub(super) const WAYPOINT_ACCEPTED: &str = "WaypointAccepted";

/// Nothing where a policy has no targets and there is no waypoint.
pub(super) fn at_waypoints(compiler: &Compiler, object: &Object, findings: &[&Finding]) -> Option<Condition> {
    let (index, context) = (compiler.index(), compiler.context());
    let spec = match &object.spec {
        Typed::AuthorizationPolicy(spec) => Some(&**spec),
        _ => None,
    };
    let attached = spec.is_some_and(|spec| spec.targets().next().is_some());
    if !attached && !index.has_waypoints() {
        return None;
    }
    let translated = authz::for_waypoints(object, context);
    let mut message = String::new();
    let (mut holds, mut reason) = (true, "Accepted");
    match &translated.fate {
        Fate::Enforced(unseen) => {
            message.push_str(match attached {
                true => "enforced by the waypoints of its targets",
                false => "enforced by the waypoints in front of the workloads it is for",
            });
            for (rule, attribute) in unseen {
                let at = object.locate_rule(*rule);
                let _ = write!(
                    message,
                    "; rule {rule} ({at}): not seen by this version's waypoints: {attribute}"
                );
                (holds, reason) = (false, "UnsupportedValue");
            }
        }
        Fate::Custom(provider) => {
            let _ = write!(
                message,
                "CUSTOM: this version's waypoints cannot ask the provider {provider:?}, so what its rules match is refused"
            );
            (holds, reason) = (false, "UnsupportedValue");
        }
        Fate::Refused(why) if spec.is_some_and(|spec| spec.action == Action::Audit) => {
            let _ = write!(message, "nothing of it is noted: {why}; {}", told(findings));
            (holds, reason) = (false, "Invalid");
        }
        Fate::Refused(why) => {
            let _ = write!(message, "everything it is for is refused: {why}; {}", told(findings));
            (holds, reason) = (false, "Invalid");
        }
        Fate::AtTargets | Fate::Audit => {}
    }
    let missing = spec.map(|spec| without_effect(index, object, spec)).unwrap_or_default();
    for why in authz::targets_left_out(object, context).into_iter().chain(missing) {
        let _ = write!(message, "; {why}");
        (holds, reason) = (false, if reason == "Accepted" { "TargetNotFound" } else { reason });
    }
    Some(Condition::new(WAYPOINT_ACCEPTED, holds, reason, kept(message, findings)))
}

/// The targets that nothing passes a waypoint for.
fn without_effect(index: &Index, object: &Object, spec: &AuthorizationPolicy) -> Vec<String> {
    let missing = |target: &TargetRef| {
        let name = Name::new(&name_of(object).namespace, &target.name);
        match target.kind.as_str() {
            "Gateway" if index.waypoint(&name).is_none() => {
                Some(format!("Gateway {name}: there is no waypoint of that name"))
            }
            "Service" if index.service(&name).is_none() => {
                Some(format!("Service {name}: there is no service of that name"))
            }
            "GatewayClass" if controller_of(&target.name).is_none() => {
                Some(format!("GatewayClass {}: waypoints are of class {CLASS} or {OWN_CLASS}", target.name))
            }
            "ServiceEntry" => Some(format!(
                "ServiceEntry {name}: ServiceEntries are not carried by this version of the mesh"
            )),
            _ => None,
        }
    };
    spec.targets().filter_map(missing).collect()
}
