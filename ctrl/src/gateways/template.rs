//! The objects of a waypoint before parameters are merged over them: those that every waypoint has (`manifest::waypoint`),
//! with what a cluster adds.

use manifest::waypoint::{GATEWAY_NAME, Program, ROOTS, TOKENS, Waypoint};
use serde_json::{Value, json};

use super::{Kind, Surroundings};

/// The ConfigMap of roots that every namespace has.
const ROOTS_MAP: &str = "istio-ca-root-cert";
/// Whom a waypoint's token is for, and how long it lives, seconds: the kubelet renews it before.
const AUDIENCE: &str = "istio-ca";
const TOKEN_LIFETIME: u32 = 43_200;
/// The user of the program: Istio's proxies'.
const USER: u32 = 1337;
/// On a Gateway's infrastructure: the type of its Service.
const SERVICE_TYPE: &str = "networking.istio.io/service-type";

/// One of them, with this `metadata`.
pub(super) fn of(
    kind: Kind,
    name: &str,
    waypoint: &Waypoint<'_>,
    metadata: &Value,
    around: &Surroundings,
) -> Value {
    let selector = waypoint.selector();
    let spec = match kind {
        Kind::ServiceAccount => None,
        Kind::Deployment => Some(json!({
            "selector": {"matchLabels": selector},
            // A new pod is ready before an old one is told to end.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
            "template": pods(name, waypoint, around),
        })),
        Kind::Service => {
            let mut service = waypoint.service();
            service["type"] = json!(metadata["annotations"][SERVICE_TYPE].as_str().unwrap_or("ClusterIP"));
            Some(service)
        }
        Kind::PodDisruptionBudget => Some(json!({
            "selector": {"matchLabels": selector},
            // Of one replica this lets a node be emptied; of several it keeps all but one.
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        })),
        Kind::HorizontalPodAutoscaler => Some(json!({
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": 1,
            "maxReplicas": 10,
            "metrics": [{"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80},
            }}],
        })),
    };
    let mut object = json!({"apiVersion": kind.api_version(), "kind": kind.name(), "metadata": metadata});
    if let Some(spec) = spec {
        object["spec"] = spec;
    }
    object
}

/// The template of its pods, with a kubelet's token and what the cluster is to keep them to.
fn pods(name: &str, waypoint: &Waypoint<'_>, around: &Surroundings) -> Value {
    let Surroundings { image, controller, settings } = around;
    let mut pods = waypoint.pods(&Program { image, controller, settings });
    let token = json!({"audience": AUDIENCE, "expirationSeconds": TOKEN_LIFETIME, "path": "istio-token"});
    let pod = json!({
        // It has no business with the API server.
        "automountServiceAccountToken": false,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "topologySpreadConstraints": [{
            "topologyKey": "kubernetes.io/hostname", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {GATEWAY_NAME: name}},
        }],
        "volumes": [
            {"name": "istio-token", "projected": {"sources": [{"serviceAccountToken": token}]}},
            {"name": "istiod-ca-cert", "configMap": {"name": ROOTS_MAP}},
        ],
    });
    let container = json!({
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"cpu": "2", "memory": "1Gi"},
        },
        "securityContext": {
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "istio-token", "mountPath": TOKENS, "readOnly": true},
            {"name": "istiod-ca-cert", "mountPath": ROOTS, "readOnly": true},
        ],
    });
    add(&mut pods["spec"], pod);
    add(&mut pods["spec"]["containers"][0], container);
    pods
}

/// Adds fields to an object.
fn add(object: &mut Value, fields: Value) {
    if let (Value::Object(object), Value::Object(fields)) = (object, fields) {
        object.extend(fields);
    }
}
