//! What is made for a Gateway of class `istio-waypoint`: a Deployment of the program `waypoint`, a Service and a
//! ServiceAccount, of its name and in its namespace, as istiod would make them. Pure; the pods' lives are those of any
//! other Deployment's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, PodTemplateSpec, Service};
use manifest::istio::{Gateway, ObjectReference};
use manifest::{Object, Typed};
use serde_json::{Value, json};

use super::manifests::{DEFAULT_NAMESPACE, Manifests, ObjectName};
use super::scheduler::{Kind, Owner};

/// The classes of Gateways that are waypoints: Istio's, and the same under a name of our own.
pub(crate) const CLASSES: [&str; 2] = ["istio-waypoint", "lateen-waypoint"];
/// The program, beside `lateen`.
pub(crate) const PROGRAM: &str = "waypoint";
/// Label of what is made for a Gateway.
pub(crate) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// Label that says who made it.
const MANAGED: &str = "gateway.istio.io/managed";
/// Where the program takes tunnels, and where it says whether it is ready.
const HBONE_PORT: u16 = 15008;
const READY_PORT: u16 = 15021;
/// Where the program finds its token and the roots that vouch for ctrl, as in a cluster.
const TOKEN: &str = "/var/run/secrets/tokens/istio-token";
const ROOT_CERT: &str = "/var/run/secrets/istio/root-cert.pem";
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
        let Some(port) = listener(gateway) else { continue };
        let name = ObjectName {
            namespace: object.metadata.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
            name: object.metadata.name.clone(),
        };
        let at = &object.position;
        if let Some(kind) = taken(manifests, objects, &name) {
            problems.push(format!(
                "{at}: the waypoint {name} is not run: there is a {kind} of that name; rename one"
            ));
            continue;
        }
        let replicas = replicas(manifests, &name, gateway, &mut |problem| {
            problems.push(format!("{at}: Gateway {name}: {problem}"));
        });
        make(manifests, &name, gateway, port, replicas, around);
        if !has_account(objects, &name) {
            manifests.made.push(("ServiceAccount", name.clone(), service_account(&name)));
        }
        manifests.waypoints.insert(name);
    }
    problems
}

/// The port of a waypoint's listener; nothing where the Gateway is none.
fn listener(gateway: &Gateway) -> Option<u16> {
    let mut listeners = gateway.listeners.iter();
    let listener = listeners.find(|listener| listener.protocol == "HBONE")?;
    CLASSES.contains(&gateway.gateway_class_name.as_str()).then_some(listener.port)
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
    gateway: &Gateway,
    port: u16,
    replicas: usize,
    around: &Surroundings,
) {
    let template = template(name, gateway, around);
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(name, gateway),
        "spec": {"replicas": replicas, "selector": {"matchLabels": {GATEWAY_NAME: name.name}}, "template": template},
    });
    // Both are written here and are what Kubernetes' types say.
    let template: PodTemplateSpec = serde_json::from_value(template).unwrap_or_default();
    let service: Service = serde_json::from_value(service(name, gateway, port)).unwrap_or_default();
    manifests.made.push(("Deployment", name.clone(), deployment));
    manifests.push(Kind::Deployment, name, template, replicas);
    manifests.services.insert(name.clone(), service);
}

fn metadata(name: &ObjectName, gateway: &Gateway) -> Value {
    let infrastructure = gateway.infrastructure.clone().unwrap_or_default();
    let mut labels = infrastructure.labels;
    labels.extend([
        (GATEWAY_NAME.to_owned(), name.name.clone()),
        (MANAGED.to_owned(), "istio.io-mesh-controller".to_owned()),
    ]);
    json!({"name": name.name, "namespace": name.namespace, "labels": labels, "annotations": infrastructure.annotations})
}

fn service_account(name: &ObjectName) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {
        "name": name.name, "namespace": name.namespace, "labels": {GATEWAY_NAME: name.name},
    }})
}

/// Of one family, that of `INSTANCE_IP`: tunnels to a waypoint may carry what was addressed to either.
fn service(name: &ObjectName, gateway: &Gateway, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(name, gateway),
        "spec": {
            "selector": {GATEWAY_NAME: name.name},
            "ports": [
                {"name": "status-port", "port": READY_PORT, "appProtocol": "tcp"},
                {"name": "mesh", "port": port, "targetPort": HBONE_PORT, "appProtocol": "hbone"},
            ],
        },
    })
}

fn template(name: &ObjectName, gateway: &Gateway, around: &Surroundings) -> Value {
    let mut metadata = metadata(name, gateway);
    for (label, value) in [
        // It takes tunnels itself.
        ("istio.io/dataplane-mode", "none"),
        ("service.istio.io/canonical-name", name.name.as_str()),
        ("service.istio.io/canonical-revision", "latest"),
    ] {
        metadata["labels"][label] = json!(value);
    }
    let from = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let mut environment = vec![
        json!({"name": "POD_NAME", "valueFrom": from("metadata.name")}),
        json!({"name": "POD_NAMESPACE", "valueFrom": from("metadata.namespace")}),
        json!({"name": "SERVICE_ACCOUNT", "valueFrom": from("spec.serviceAccountName")}),
        json!({"name": "NODE_NAME", "valueFrom": from("spec.nodeName")}),
        json!({"name": "INSTANCE_IP", "valueFrom": from("status.podIP")}),
        json!({"name": "GATEWAY_CLASS", "value": gateway.gateway_class_name}),
        json!({"name": "XDS_ADDRESS", "value": around.ctrl}),
        json!({"name": "CA_ADDRESS", "value": around.ctrl}),
        json!({"name": "XDS_ROOT_CA", "value": ROOT_CERT}),
        json!({"name": "CA_ROOT_CA", "value": ROOT_CERT}),
        json!({"name": "TOKEN_FILE", "value": TOKEN}),
    ];
    environment.extend(around.settings.iter().map(|(name, value)| json!({"name": name, "value": value})));
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
    let file = |name: &str, path: PathBuf| json!({"name": name, "hostPath": {"path": path, "type": "File"}});
    let container = json!({
        "name": "istio-proxy",
        "image": "lateen/waypoint",
        "command": [around.binaries.join(PROGRAM)],
        "env": environment,
        "ports": [{"name": "mesh", "containerPort": HBONE_PORT}, {"name": "status-port", "containerPort": READY_PORT}],
        "readinessProbe": {"httpGet": {"path": "/healthz/ready", "port": READY_PORT}, "periodSeconds": 1},
        "volumeMounts": [mount("token", TOKEN), mount("root-cert", ROOT_CERT)],
    });
    let spec = json!({
        "serviceAccountName": name.name,
        "terminationGracePeriodSeconds": 30,
        "containers": [container],
        "volumes": [
            file("token", around.tokens.join(token_file(name))),
            file("root-cert", around.root_cert.clone()),
        ],
    });
    if around.upgrades > 0 {
        metadata["annotations"][UPGRADES] = json!(around.upgrades.to_string());
    }
    // A pod's own names are not its Deployment's.
    let metadata = json!({"labels": metadata["labels"], "annotations": metadata["annotations"]});
    json!({"metadata": metadata, "spec": spec})
}

/// How many replicas the Gateway asks for, in the ConfigMap that its `infrastructure.parametersRef` names: as with Istio,
/// its key `deployment` is what the Deployment is to have, and of that `spec.replicas` is heeded.
fn replicas(
    manifests: &Manifests,
    name: &ObjectName,
    gateway: &Gateway,
    tell: &mut dyn FnMut(String),
) -> usize {
    let infrastructure = gateway.infrastructure.as_ref();
    let Some(reference) = infrastructure.and_then(|given| given.parameters_ref.as_ref()) else { return 1 };
    let ObjectReference { group, kind, name: wanted, .. } = reference;
    if group.as_deref().unwrap_or_default() != "" || kind.as_deref() != Some("ConfigMap") {
        tell(
            "`infrastructure.parametersRef` must name a ConfigMap (`group: \"\"`, `kind: ConfigMap`)"
                .to_owned(),
        );
        return 1;
    }
    let key = ObjectName { namespace: name.namespace.clone(), name: wanted.clone() };
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
