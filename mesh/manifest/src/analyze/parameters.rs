//! What the `infrastructure.parametersRef` of a waypoint leads to.

use super::{Inventory, finding};
use crate::{
    cursor::Cursor,
    finding::{Code, Finding, Level},
    object::{Object, Typed},
    position::Position,
    waypoint::{listener, parameter, parameters},
};

/// What of it cannot be used: in a cluster nothing is made of such a Gateway, on one machine it runs without.
pub(super) fn check(object: &Object, inventory: &Inventory<'_>) -> Vec<Finding> {
    let Typed::Gateway(gateway) = &object.spec else { return Vec::new() };
    let infrastructure = Cursor::root(object.tree()).get("spec").and_then(|spec| spec.get("infrastructure"));
    let Some(reference) = infrastructure.and_then(|given| given.get("parametersRef")) else {
        return Vec::new();
    };
    if listener(gateway).is_none() {
        return Vec::new();
    }
    let told = |level, code, message| {
        finding(level, code, object, Position::new(object.file(), reference.at), &reference.path, message)
    };
    let wrong = |message| told(Level::Error, Code::Schema, message);
    let (namespace, name) = match (object.metadata.namespace.as_deref(), parameters(gateway)) {
        (_, Err(error)) => return vec![wrong(error.to_string())],
        (Some(namespace), Ok(Some(name))) => (namespace, name),
        _ => return Vec::new(),
    };
    let Some(map) = inventory.named("ConfigMap", namespace, name) else {
        let message = format!("there is no ConfigMap `{name}` in namespace {namespace}");
        let missing = || told(Level::Warning, Code::ReferencedResourceNotFound, message);
        return inventory.has("ConfigMap").then(missing).into_iter().collect();
    };
    let Typed::ConfigMap(map) = &map.spec else { return Vec::new() };
    let problems = map.data.iter().flatten().filter_map(|(key, text)| parameter(key, text).err());
    problems.map(|problem| wrong(format!("ConfigMap {namespace}/{name}: {problem}"))).collect()
}
