//! The objects of a waypoint before parameters are merged over them.

use manifest::istio::Gateway;
use serde_json::{Value, json};

use super::{GATEWAY_NAME, Kind, Surroundings};
use crate::index::facts::Waypoint;

/// Where the program takes tunnels, says whether it is ready, and shows its metrics.
const HBONE_PORT: u16 = 15008;
const READY_PORT: u16 = 15021;
const STATS_PORT: u16 = 15020;
/// Where the program finds its token and the roots that vouch for the controller: its own defaults.
const TOKENS: &str = "/var/run/secrets/tokens";
const ROOTS: &str = "/var/run/secrets/istio";
/// The ConfigMap of roots that every namespace has.
const ROOTS_MAP: &str = "istio-ca-root-cert";
/// Whom a waypoint's token is for, and how long it lives, seconds: the kubelet renews it before.
const AUDIENCE: &str = "istio-ca";
const TOKEN_LIFETIME: u32 = 43_200;
/// The user of the program: Istio's proxies'.
const USER: u32 = 1337;
/// How long the kubelet waits for the program to end, seconds: it gives requests 10 s by default, and says before that
/// that it ends.
const GRACE: u32 = 30;
/// On a Gateway's infrastructure: the type of its Service.
const SERVICE_TYPE: &str = "networking.istio.io/service-type";

/// One of them.
pub(super) fn of(
    kind: Kind,
    gateway: &Gateway,
    waypoint: &Waypoint,
    metadata: &Value,
    around: &Surroundings,
) -> Value {
    let name = &*waypoint.name.name;
    let selector = json!({GATEWAY_NAME: name});
    let spec = match kind {
        Kind::ServiceAccount => None,
        Kind::Deployment => Some(json!({
            "selector": {"matchLabels": selector},
            // A new pod is ready before an old one is told to end.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
            "template": pod(gateway, waypoint, metadata, around),
        })),
        Kind::Service => Some(service(gateway, waypoint, metadata)),
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

/// Of one family, that of `INSTANCE_IP`: tunnels to a waypoint may carry what was addressed to either.
fn service(gateway: &Gateway, waypoint: &Waypoint, metadata: &Value) -> Value {
    let listener = gateway.listeners.iter().find(|listener| listener.protocol == "HBONE");
    // A listener's name may be longer than a port's.
    let fits = |name: &&str| name.len() <= 63 && !name.contains('.');
    let listener = listener.map(|listener| listener.name.as_str()).filter(fits).unwrap_or("mesh");
    let kind = metadata["annotations"][SERVICE_TYPE].as_str().unwrap_or("ClusterIP");
    json!({
        "type": kind,
        "selector": {GATEWAY_NAME: &*waypoint.name.name},
        "ports": [
            {"name": "status-port", "port": READY_PORT, "protocol": "TCP", "appProtocol": "tcp"},
            {"name": listener, "port": waypoint.port, "targetPort": HBONE_PORT, "protocol": "TCP", "appProtocol": "hbone"},
        ],
    })
}

fn pod(gateway: &Gateway, waypoint: &Waypoint, metadata: &Value, around: &Surroundings) -> Value {
    let name = &*waypoint.name.name;
    let mut labels = metadata["labels"].clone();
    for (label, value) in [
        // It takes tunnels itself.
        ("istio.io/dataplane-mode", "none"),
        ("sidecar.istio.io/inject", "false"),
        ("service.istio.io/canonical-name", name),
        ("service.istio.io/canonical-revision", "latest"),
    ] {
        labels[label] = json!(value);
    }
    let mut annotations = metadata.get("annotations").cloned().unwrap_or_else(|| json!({}));
    for (annotation, value) in [
        ("prometheus.io/path", "/stats/prometheus"),
        ("prometheus.io/port", "15020"),
        ("prometheus.io/scrape", "true"),
    ] {
        annotations[annotation] = json!(value);
    }
    let token = json!({"audience": AUDIENCE, "expirationSeconds": TOKEN_LIFETIME, "path": "istio-token"});
    json!({
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": {
            "serviceAccountName": name,
            // It has no business with the API server.
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": GRACE,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "topologySpreadConstraints": [{
                "topologyKey": "kubernetes.io/hostname", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {GATEWAY_NAME: name}},
            }],
            "containers": [container(gateway, waypoint, around)],
            "volumes": [
                {"name": "istio-token", "projected": {"sources": [{"serviceAccountToken": token}]}},
                {"name": "istiod-ca-cert", "configMap": {"name": ROOTS_MAP}},
            ],
        },
    })
}

fn container(gateway: &Gateway, waypoint: &Waypoint, around: &Surroundings) -> Value {
    let from = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let mut environment = vec![
        json!({"name": "POD_NAME", "valueFrom": from("metadata.name")}),
        json!({"name": "POD_NAMESPACE", "valueFrom": from("metadata.namespace")}),
        json!({"name": "SERVICE_ACCOUNT", "valueFrom": from("spec.serviceAccountName")}),
        json!({"name": "NODE_NAME", "valueFrom": from("spec.nodeName")}),
        json!({"name": "INSTANCE_IP", "valueFrom": from("status.podIP")}),
        json!({"name": "GATEWAY_NAME", "value": &*waypoint.name.name}),
        json!({"name": "GATEWAY_CLASS", "value": gateway.gateway_class_name}),
        json!({"name": "XDS_ADDRESS", "value": around.controller}),
        json!({"name": "CA_ADDRESS", "value": around.controller}),
    ];
    environment.extend(around.settings.iter().map(|(name, value)| json!({"name": name, "value": value})));
    let port = |name: &str, port: u16| json!({"name": name, "containerPort": port, "protocol": "TCP"});
    let ready = json!({"path": "/healthz/ready", "port": READY_PORT});
    json!({
        "name": "istio-proxy",
        "image": around.image,
        "env": environment,
        "ports": [port("mesh", HBONE_PORT), port("metrics", STATS_PORT), port("status-port", READY_PORT)],
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"cpu": "2", "memory": "1Gi"},
        },
        "startupProbe": {"httpGet": ready, "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {"httpGet": ready, "periodSeconds": 5, "failureThreshold": 2},
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
    })
}
