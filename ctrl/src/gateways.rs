//! What a Gateway of our classes becomes in a cluster: a ServiceAccount, a Deployment of the program `waypoint`, a
//! Service, a PodDisruptionBudget and, where it is asked for, a HorizontalPodAutoscaler, named and labelled as Istio's.
//! What its ConfigMap of parameters says is merged over them. Pure; `cluster/gateways` applies it
//! (`docs/decisions/0020-waypoints-in-a-cluster.md`).

mod merge;
mod template;

use std::collections::BTreeMap;

use manifest::waypoint::{self, NotConfigMap, Waypoint};
use manifest::{Object, Typed};
use serde_json::{Value, json};
use thiserror::Error;

use crate::index::Name;

/// What waypoints of this mesh are run as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The image of the program.
    pub image: String,
    /// Where they find the controller, `https://HOST:PORT`.
    pub controller: String,
    /// Settings of theirs, by name.
    pub settings: Vec<(String, String)>,
}

/// What kinds of objects are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    ServiceAccount,
    Deployment,
    Service,
    PodDisruptionBudget,
    HorizontalPodAutoscaler,
}

/// All kinds, in the order in which objects are made.
pub(crate) const KINDS: [Kind; 5] = [
    Kind::ServiceAccount,
    Kind::Deployment,
    Kind::Service,
    Kind::PodDisruptionBudget,
    Kind::HorizontalPodAutoscaler,
];

impl Kind {
    /// Group and version.
    pub(crate) fn api_version(self) -> &'static str {
        match self {
            Self::ServiceAccount | Self::Service => "v1",
            Self::Deployment => "apps/v1",
            Self::PodDisruptionBudget => "policy/v1",
            Self::HorizontalPodAutoscaler => "autoscaling/v2",
        }
    }

    /// The name of the kind.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::Deployment => "Deployment",
            Self::Service => "Service",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
        }
    }

    /// How API servers call it.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::ServiceAccount => "serviceaccounts",
            Self::Deployment => "deployments",
            Self::Service => "services",
            Self::PodDisruptionBudget => "poddisruptionbudgets",
            Self::HorizontalPodAutoscaler => "horizontalpodautoscalers",
        }
    }

    /// The key of the ConfigMap whose text is merged over it: Istio's.
    fn parameter(self) -> &'static str {
        match self {
            Self::ServiceAccount => "serviceAccount",
            Self::Deployment => "deployment",
            Self::Service => "service",
            Self::PodDisruptionBudget => "podDisruptionBudget",
            Self::HorizontalPodAutoscaler => "horizontalPodAutoscaler",
        }
    }
}

/// One object to be applied.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Made {
    pub(crate) kind: Kind,
    /// Of the object and of its Gateway: they have one name.
    pub(crate) name: Name,
    pub(crate) value: Value,
}

/// Why nothing is made of a Gateway. What was made of it before stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Unmade {
    /// The reference names another kind.
    #[error(transparent)]
    NotConfigMap(#[from] NotConfigMap),
    /// It names nothing that is there.
    #[error("there is no ConfigMap {0}, which infrastructure.parametersRef names")]
    NoConfigMap(String),
    /// A key of the ConfigMap that nobody knows, or a text that cannot be merged.
    #[error("ConfigMap {map}: {problem}")]
    Unusable {
        /// The ConfigMap.
        map: String,
        /// What is wrong.
        problem: String,
    },
}

impl Unmade {
    /// Whether it is about a reference that leads nowhere, not about what it leads to.
    pub(crate) fn is_unresolved(&self) -> bool {
        matches!(self, Self::NotConfigMap(_) | Self::NoConfigMap(_))
    }
}

/// What is made for a Gateway, which is nothing where it is no waypoint. `maps` has the data of the ConfigMaps that
/// Gateways refer to, as far as there are such.
///
/// # Errors
/// Why nothing can be made of it.
pub(crate) fn made(
    object: &Object,
    name: &Name,
    maps: &BTreeMap<Name, BTreeMap<String, String>>,
    around: &Surroundings,
) -> Result<Vec<Made>, Unmade> {
    let Typed::Gateway(gateway) = &object.spec else { return Ok(Vec::new()) };
    let Some(waypoint) = Waypoint::of(&name.namespace, &name.name, gateway) else { return Ok(Vec::new()) };
    let none = BTreeMap::new();
    let parameters = match waypoint::parameters(gateway)? {
        Some(map) => {
            let map = Name::new(&name.namespace, map);
            let data = maps.get(&map).ok_or_else(|| Unmade::NoConfigMap(map.to_string()))?;
            Parameters { map: map.to_string(), data }
        }
        None => Parameters { map: String::new(), data: &none },
    };
    parameters.check()?;
    let common = metadata(object, &waypoint);
    let scaled = parameters.has(Kind::HorizontalPodAutoscaler);
    let mut all = Vec::new();
    for kind in KINDS.into_iter().filter(|kind| scaled || *kind != Kind::HorizontalPodAutoscaler) {
        let base = template::of(kind, &name.name, &waypoint, &common, around);
        let mut value = base.clone();
        parameters.merge(kind, &mut value)?;
        fix(kind, &base, &mut value, scaled);
        all.push(Made { kind, name: name.clone(), value });
    }
    Ok(all)
}

/// Names, labels, annotations and owner of everything that is made.
fn metadata(object: &Object, waypoint: &Waypoint<'_>) -> Value {
    let mut metadata = waypoint.metadata();
    // So that all of it goes with the Gateway.
    let owner = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": object.metadata.name,
        "uid": object.metadata.uid,
    });
    metadata["ownerReferences"] = json!([owner]);
    metadata
}

/// Puts back what makes the objects belong together and be the Gateway's: no parameter changes that. Whoever may write a
/// ConfigMap does not choose an account by it.
fn fix(kind: Kind, base: &Value, value: &mut Value, scaled: bool) {
    let Some(fields) = value.as_object_mut() else { return };
    fields.remove("status");
    let mut keep = |path: &str| {
        if let (Some(is), Some(was)) = (value.pointer_mut(path), base.pointer(path)) {
            match (is, was) {
                (Value::Object(is), Value::Object(was)) if path.ends_with("/labels") => {
                    is.extend(was.iter().map(|(key, value)| (key.clone(), value.clone())));
                }
                (is, was) => *is = was.clone(),
            }
        } else if let (Some((parent, field)), Some(was)) = (path.rsplit_once('/'), base.pointer(path))
            && let Some(parent) = value.pointer_mut(parent).and_then(Value::as_object_mut)
        {
            parent.insert(field.to_owned(), was.clone());
        }
    };
    let everywhere = ["/apiVersion", "/kind", "/metadata"];
    let names = ["/metadata/name", "/metadata/namespace", "/metadata/ownerReferences", "/metadata/labels"];
    everywhere[..2].iter().chain(&names).for_each(|path| keep(path));
    match kind {
        Kind::ServiceAccount => {}
        Kind::Deployment => {
            for path in
                ["/spec/selector", "/spec/template/metadata/labels", "/spec/template/spec/serviceAccountName"]
            {
                keep(path);
            }
            // The number is the autoscaler's, where there is one; otherwise whoever scales it keeps what was not asked for.
            if scaled && let Some(spec) = value.pointer_mut("/spec").and_then(Value::as_object_mut) {
                spec.remove("replicas");
            }
        }
        Kind::Service => keep("/spec/selector"),
        Kind::HorizontalPodAutoscaler => keep("/spec/scaleTargetRef"),
        Kind::PodDisruptionBudget => {
            keep("/spec/selector");
            // One of the two counts; ours was only a default.
            if let Some(spec) = value.pointer_mut("/spec").and_then(Value::as_object_mut)
                && spec.contains_key("minAvailable")
                && spec.get("maxUnavailable") == base.pointer("/spec/maxUnavailable")
            {
                spec.remove("maxUnavailable");
            }
        }
    }
}

/// What a ConfigMap says.
struct Parameters<'a> {
    map: String,
    data: &'a BTreeMap<String, String>,
}

impl Parameters<'_> {
    fn check(&self) -> Result<(), Unmade> {
        let wrong = self.data.iter().find_map(|(key, text)| waypoint::parameter(key, text).err());
        wrong.map_or(Ok(()), |problem| Err(self.unusable(problem)))
    }

    fn unusable(&self, problem: String) -> Unmade {
        Unmade::Unusable { map: self.map.clone(), problem }
    }

    fn has(&self, kind: Kind) -> bool {
        self.data.contains_key(kind.parameter())
    }

    fn merge(&self, kind: Kind, value: &mut Value) -> Result<(), Unmade> {
        let key = kind.parameter();
        let Some(text) = self.data.get(key) else { return Ok(()) };
        let said = waypoint::parameter(key, text).map_err(|problem| self.unusable(problem))?;
        let Some(patch) = said else { return Ok(()) };
        merge::merge(value, &patch).map_err(|error| self.unusable(format!("{key}: {error}")))
    }
}

#[cfg(test)]
mod tests;
