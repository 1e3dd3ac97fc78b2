//! What a policy is attached to, by the names that waypoints know.

use manifest::istio::AuthorizationPolicy;
use manifest::{BrokenScope, Object};
use model::address::Str;
use model::authz::Target;

use super::super::Context;
use crate::index::Name;

/// The targets of a policy, and those that no waypoint judges by, with the reason.
pub(super) fn targets(
    object: &Object,
    spec: &AuthorizationPolicy,
    context: &Context,
) -> (Vec<Target>, Vec<String>) {
    let (mut all, mut left_out) = (Vec::new(), Vec::new());
    for asked in spec.targets() {
        match target(object, &asked.kind, &asked.name, context) {
            Ok(target) if all.contains(&target) => {}
            Ok(target) => all.push(target),
            Err(reason) => left_out.push(reason),
        }
    }
    (all, left_out)
}

/// The targets that the text of an unreadable policy names, if it leaves no doubt about any of them.
pub(super) fn of_broken(object: &Object, context: &Context) -> Option<Vec<Target>> {
    if object.broken_scope() != BrokenScope::Targets {
        return None;
    }
    let spec = object.raw.get("spec")?;
    let many = match spec.get("targetRefs") {
        Some(many) => many.as_array()?.as_slice(),
        None => &[],
    };
    let text = |one: &serde_json::Value, key| Some(one.get(key)?.as_str()?.to_owned());
    let read = |one| target(object, &text(one, "kind")?, &text(one, "name")?, context).ok();
    let mut all: Vec<Target> = Vec::new();
    for one in spec.get("targetRef").into_iter().chain(many).map(read) {
        let one = one?;
        if !all.contains(&one) {
            all.push(one);
        }
    }
    Some(all)
}

fn target(object: &Object, kind: &str, name: &str, context: &Context) -> Result<Target, String> {
    let namespace: Str = object.metadata.namespace.as_deref().unwrap_or_default().into();
    match kind {
        "Gateway" => Ok(Target::Gateway { namespace, name: name.into() }),
        // A class is nobody's own: who may say what is for all of it may say what is for the mesh.
        "GatewayClass" if namespace != context.settings.root_namespace => Err(format!(
            "GatewayClass {name}: only a policy of the namespace {} is for a class",
            context.settings.root_namespace
        )),
        "GatewayClass" => Ok(Target::GatewayClass(name.into())),
        "Service" => Ok(Target::Service(context.host(&Name { namespace, name: name.into() }))),
        "ServiceEntry" => Ok(Target::ServiceEntry { namespace, name: name.into() }),
        other => Err(format!("{other} {name}: a policy cannot be attached to that kind")),
    }
}
