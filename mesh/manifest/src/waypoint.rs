//! Waypoints: which Gateways are such, how others ask for one, and the objects by which one runs. The controller makes
//! these objects in a cluster and `lateen up` on this machine; who looks for waypoints, by file or by label, finds them by
//! the same names.

mod objects;

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

pub use self::objects::{Program, ROOTS, TOKENS, Waypoint};
use crate::istio::{Gateway, Listener, ObjectReference};

/// The class that makes a Gateway a waypoint: Istio's, which manifests and tools name.
pub const CLASS: &str = "istio-waypoint";
/// The same under a name of our own, which an Istio beside us leaves alone.
pub const OWN_CLASS: &str = "lateen-waypoint";
/// The classes that make a Gateway a waypoint, and the name of the controller that answers for each.
pub const CLASSES: [(&str, &str); 2] =
    [(CLASS, "istio.io/mesh-controller"), (OWN_CLASS, "lateen.dev/mesh-controller")];
/// The protocol of a waypoint's listener.
const HBONE: &str = "HBONE";
/// Where its program takes tunnels.
pub const PORT: u16 = model::ports::HBONE;

/// On a Gateway or its class: for which traffic labels may ask for it.
pub const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
/// On a Gateway: the account of its namespace in front of whose pods it stands.
pub const FOR_ACCOUNT: &str = "istio.io/for-service-account";
/// On a service, pod or namespace: the waypoint's name, or `none`.
pub const USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// Beside it: the waypoint's namespace, if it is another.
pub const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";

/// On everything that is made for a Gateway: its name.
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// On everything that is made for a Gateway: its class.
pub const GATEWAY_CLASS: &str = "gateway.networking.k8s.io/gateway-class-name";
/// On everything that is made for a Gateway: who made it, by the class's controller.
pub const MANAGED: &str = "gateway.istio.io/managed";
/// On everything that a program of ours makes for a Gateway.
pub const MADE_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "lateen");

/// The keys of the ConfigMap that a Gateway's `infrastructure.parametersRef` names, Istio's: one for each kind of objects.
pub const PARAMETERS: [&str; 5] =
    ["serviceAccount", "deployment", "service", "podDisruptionBudget", "horizontalPodAutoscaler"];
/// On a Deployment that `lateen up` makes for a Gateway: what of its parameters it could not use, and why.
pub const UNUSED_PARAMETERS: &str = "lateen.dev/unused-parameters";

/// The controller that answers for a class of waypoints; nothing for a class of others.
pub fn controller_of(class: &str) -> Option<&'static str> {
    CLASSES.iter().find(|(name, _)| *name == class).map(|(_, controller)| *controller)
}

/// The class of a Gateway that is a waypoint, and its listener for tunnels; nothing for other Gateways.
pub fn listener(gateway: &Gateway) -> Option<(&'static str, &Listener)> {
    let (class, _) = CLASSES.iter().find(|(class, _)| *class == gateway.gateway_class_name)?;
    let listener = gateway.listeners.iter().find(|listener| listener.protocol == HBONE)?;
    Some((class, listener))
}

/// What labels ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked<'a> {
    /// No waypoint.
    None,
    /// This one.
    For {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
    },
}

/// What the labels of an object in `namespace`, or of that namespace, ask for; nothing where they say nothing.
pub fn asked<'a>(labels: &'a BTreeMap<String, String>, namespace: &'a str) -> Option<Asked<'a>> {
    let given = |label: &str| labels.get(label).map(String::as_str).filter(|value| !value.is_empty());
    Some(match given(USE_WAYPOINT)? {
        "none" => Asked::None,
        name => Asked::For { namespace: given(USE_WAYPOINT_NAMESPACE).unwrap_or(namespace), name },
    })
}

/// A Gateway's `infrastructure.parametersRef` that names another kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "infrastructure.parametersRef must name a ConfigMap (group: \"\", kind: ConfigMap), not {kind} of group {group:?}"
)]
pub struct NotConfigMap {
    kind: String,
    group: String,
}

/// The ConfigMap, of the Gateway's own namespace, that its `infrastructure.parametersRef` names.
///
/// # Errors
/// It names another kind.
pub fn parameters(gateway: &Gateway) -> Result<Option<&str>, NotConfigMap> {
    let infrastructure = gateway.infrastructure.as_ref();
    let Some(reference) = infrastructure.and_then(|given| given.parameters_ref.as_ref()) else {
        return Ok(None);
    };
    let ObjectReference { group, kind, name, .. } = reference;
    match (group.as_deref().unwrap_or_default(), kind.as_deref().unwrap_or_default()) {
        ("", "ConfigMap") => Ok(Some(name)),
        (group, kind) => Err(NotConfigMap { kind: kind.to_owned(), group: group.to_owned() }),
    }
}

/// What a key of that ConfigMap says, which is to be merged over the object of its kind; nothing where it is empty.
///
/// # Errors
/// What is wrong: nobody knows the key, or its text is none that can be merged.
pub fn parameter(key: &str, text: &str) -> Result<Option<Value>, String> {
    if !PARAMETERS.contains(&key) {
        return Err(format!("{key:?} is none of {}", PARAMETERS.join(", ")));
    }
    if text.trim().is_empty() {
        return Ok(None);
    }
    let said: Value = serde_saphyr::from_str(text).map_err(|error| {
        let error = error.to_string();
        format!("{key}: {}", error.lines().next().unwrap_or_default())
    })?;
    match said.is_object() {
        true => Ok(Some(said)),
        false => Err(format!("{key}: it is no object but a single value or a list")),
    }
}

#[cfg(test)]
mod tests;
