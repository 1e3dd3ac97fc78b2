//! What is made for a Gateway of class `istio-waypoint`: a Deployment of the program `waypoint`, a Service and a
//! ServiceAccount, of its name and in its namespace, as the controller makes them in a cluster (`manifest::waypoint`). Pure;
//! the pods' lives are those of any other Deployment's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, PodTemplateSpec, Service};
use manifest::istio::Gateway;
use manifest::waypoint::{self, Program, ROOTS, TOKENS, UNUSED_PARAMETERS, Waypoint};
use manifest::{Object, Typed};
use serde_json::{Value, json};

use super::manifests::{DEFAULT_NAMESPACE, Manifests, ObjectName};
use super::scheduler::{Kind, Owner};

/// The program, beside `lateen`.
pub(crate) const PROGRAM: &str = "waypoint";
/// Annotation of a pod that came with an upgrade.
const UPGRADES: &str = "lateen.dev/upgrades";
/// The most replicas of one waypoint.
const MOST_REPLICAS: u64 = 50;

/// What a waypoint's pods find around them.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// Folder of the programs.
    pub(crate) binaries: PathBuf,
    /// Folder of tokens.
    pub(crate) tokens: PathBuf,
    /// The roots that vouch for ctrl.
    pub(crate) root_cert: PathBuf,
    /// Where ctrl is.
    pub(crate) ctrl: String,
    /// Settings from the command line of `up`.
    pub(crate) settings: Vec<(String, String)>,
    /// How often they were upgraded: pods of the time before are replaced.
    pub(crate) upgrades: u64,
}

/// The file of a waypoint's token, which names its identity.
pub(crate) fn token_file(name: &ObjectName) -> String {
    format!("{}_{}", name.namespace, name.name)
}

/// Adds what is made for waypoints; what cannot be done as it is asked for is told.
pub(crate) fn add(manifests: &mut Manifests, objects: &[Arc<Object>], around: &Surroundings) -> Vec<String> {
    let mut problems = Vec::new();
    for object in objects {
        let Typed::Gateway(gateway) = &object.spec else { continue };
        let name = ObjectName {
            namespace: object.metadata.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
            name: object.metadata.name.clone(),
        };
        let Some(waypoint) = Waypoint::of(&name.namespace, &name.name, gateway) else { continue };
        let at = &object.position;
        if let Some(kind) = taken(manifests, objects, &name) {
            problems.push(format!(
                "{at}: the waypoint {name} is not run: there is a {kind} of that name; rename one"
            ));
            continue;
        }
        let parameters = Parameters::of(manifests, &name, gateway);
        problems.extend(parameters.unused.iter().map(|unused| format!("{at}: Gateway {name}: {unused}")));
        make(manifests, &name, &waypoint, &parameters, around);
        if !has_account(objects, &name) {
            let account =
                json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": waypoint.metadata()});
            manifests.made.push(("ServiceAccount", name.clone(), account));
        }
        manifests.waypoints.insert(name);
    }
    problems
}

/// Who has the name already.
fn taken(manifests: &Manifests, objects: &[Arc<Object>], name: &ObjectName) -> Option<&'static str> {
    let owner = owner(name);
    if manifests.workloads.iter().any(|workload| workload.owner == owner) {
        return Some("Deployment");
    }
    let is_service = |object: &&Arc<Object>| object.kind == "Service" && is_named(object, name);
    objects.iter().find(is_service).map(|_| "Service")
}

fn is_named(object: &Object, name: &ObjectName) -> bool {
    object.metadata.name == name.name
        && object.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE) == name.namespace
}

fn has_account(objects: &[Arc<Object>], name: &ObjectName) -> bool {
    objects.iter().any(|object| object.kind == "ServiceAccount" && is_named(object, name))
}

fn owner(name: &ObjectName) -> Owner {
    Owner { kind: Kind::Deployment, namespace: name.namespace.clone(), name: name.name.clone() }
}

fn make(
    manifests: &mut Manifests,
    name: &ObjectName,
    waypoint: &Waypoint<'_>,
    parameters: &Parameters,
    around: &Surroundings,
) {
    let metadata = waypoint.metadata();
    let template = template(name, waypoint, around);
    let Parameters { replicas, unused } = parameters;
    let mut deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
        "spec": {"replicas": replicas, "selector": {"matchLabels": waypoint.selector()}, "template": template},
    });
    // The controller says so in the Gateway's conditions.
    if let Some(unused) = unused {
        deployment["metadata"]["annotations"][UNUSED_PARAMETERS] = json!(unused);
    }
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": waypoint.service()});
    // Both are what Kubernetes' types say.
    let template: PodTemplateSpec = serde_json::from_value(template).unwrap_or_default();
    let service: Service = serde_json::from_value(service).unwrap_or_default();
    manifests.made.push(("Deployment", name.clone(), deployment));
    manifests.push(Kind::Deployment, name, template, *replicas);
    manifests.services.insert(name.clone(), service);
}

/// The template of its pods, with the files and the program of this machine.
fn template(name: &ObjectName, waypoint: &Waypoint<'_>, around: &Surroundings) -> Value {
    let Surroundings { ctrl, settings, .. } = around;
    let mut pods = waypoint.pods(&Program { image: "lateen/waypoint", controller: ctrl, settings });
    let mount = |name: &str, path: String| json!({"name": name, "mountPath": path, "readOnly": true});
    let file = |name: &str, path: PathBuf| json!({"name": name, "hostPath": {"path": path, "type": "File"}});
    pods["spec"]["volumes"] = json!([
        file("token", around.tokens.join(token_file(name))),
        file("root-cert", around.root_cert.clone()),
    ]);
    let container = &mut pods["spec"]["containers"][0];
    container["command"] = json!([around.binaries.join(PROGRAM)]);
    container["volumeMounts"] = json!([
        mount("token", format!("{TOKENS}/istio-token")),
        mount("root-cert", format!("{ROOTS}/root-cert.pem")),
    ]);
    // Here nobody minds being asked often.
    container["readinessProbe"]["periodSeconds"] = json!(1);
    if around.upgrades > 0 {
        pods["metadata"]["annotations"][UPGRADES] = json!(around.upgrades.to_string());
    }
    pods
}

/// What becomes of a Gateway's parameters.
struct Parameters {
    replicas: usize,
    /// What of them cannot be used, and what is done instead.
    unused: Option<String>,
}

impl Parameters {
    fn of(manifests: &Manifests, name: &ObjectName, gateway: &Gateway) -> Self {
        let mut problems = Vec::new();
        let replicas = replicas(manifests, name, gateway, &mut |problem| problems.push(problem));
        let told = || format!("{}; it runs with `replicas: {replicas}`", problems.join("; "));
        Self { replicas, unused: (!problems.is_empty()).then(told) }
    }
}

/// How many replicas the Gateway asks for, in the ConfigMap that its `infrastructure.parametersRef` names: as with Istio,
/// its key `deployment` is what the Deployment is to have, and of that `spec.replicas` is heeded.
fn replicas(
    manifests: &Manifests,
    name: &ObjectName,
    gateway: &Gateway,
    tell: &mut dyn FnMut(String),
) -> usize {
    let wanted = match waypoint::parameters(gateway) {
        Ok(Some(wanted)) => wanted,
        Ok(None) => return 1,
        Err(error) => {
            tell(error.to_string());
            return 1;
        }
    };
    let key = ObjectName { namespace: name.namespace.clone(), name: wanted.to_owned() };
    match manifests.config_maps.get(&key) {
        Some(map) => asked(map, tell),
        None => {
            tell(format!("ConfigMap {key} of `infrastructure.parametersRef` is in no file"));
            1
        }
    }
}

fn asked(map: &ConfigMap, tell: &mut dyn FnMut(String)) -> usize {
    let empty = BTreeMap::new();
    let mut replicas = 1;
    for (key, text) in map.data.as_ref().unwrap_or(&empty) {
        if key != "deployment" {
            tell(format!("{key:?} of its parameters is not carried by lateen up, only `deployment`"));
            continue;
        }
        // An empty text says nothing, as in a cluster.
        if text.trim().is_empty() {
            continue;
        }
        match replicas_in(text) {
            Ok(asked) => replicas = asked,
            Err(problem) => tell(format!("`deployment` of its parameters: {problem}")),
        }
    }
    replicas
}

fn replicas_in(text: &str) -> Result<usize, String> {
    let overlay: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let only = "only spec.replicas is carried by lateen up";
    let [(spec, fields)] = &overlay.as_object().into_iter().flatten().collect::<Vec<_>>()[..] else {
        return Err(only.to_owned());
    };
    let fields: Vec<_> = fields.as_object().into_iter().flatten().collect();
    let (true, [(replicas, number)]) = (spec.as_str() == "spec", &fields[..]) else {
        return Err(only.to_owned());
    };
    if replicas.as_str() != "replicas" {
        return Err(only.to_owned());
    }
    let number = number.as_u64().filter(|number| *number <= MOST_REPLICAS);
    let number = number.and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| format!("spec.replicas must be a number from 0 to {MOST_REPLICAS}"))
}

#[cfg(test)]
mod tests;
