//! The objects by which a waypoint runs, named and labelled as Istio's, as far as they are the same wherever they are
//! made. Whoever makes them adds where the files of its program come from, and what only a cluster heeds. Pure.

use serde_json::{Value, json};

use super::{GATEWAY_CLASS, GATEWAY_NAME, MADE_BY, MANAGED, PORT, controller_of, listener};
use crate::enrolment::MODE;
use crate::istio::{Gateway, Listener};

/// Where the program says whether it is ready, and shows its metrics.
const READY_PORT: u16 = 15021;
const STATS_PORT: u16 = 15020;
/// The folders in which the program finds its token and the roots that vouch for the controller: its own defaults.
pub const TOKENS: &str = "/var/run/secrets/tokens";
/// See [`TOKENS`].
pub const ROOTS: &str = "/var/run/secrets/istio";
/// How long a waypoint may take to end, seconds: it gives requests 10 s by default, and says before that that it ends.
const GRACE: u32 = 30;
/// [`GATEWAY_NAME`] as older versions of Istio's tools look for it.
const OLDER_GATEWAY_NAME: &str = "istio.io/gateway-name";
/// Annotations of Istio's, or of kubectl's, that are about the Gateway and not about what is made for it.
const NOT_PASSED_ON: [&str; 4] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "gateway.istio.io/name-override",
    "gateway.istio.io/service-account",
    "gateway.istio.io/controller-version",
];

/// A Gateway that is a waypoint. All its objects have its name and are in its namespace.
#[derive(Debug, Clone, Copy)]
pub struct Waypoint<'a> {
    namespace: &'a str,
    name: &'a str,
    gateway: &'a Gateway,
    class: &'static str,
    listener: &'a Listener,
}

/// What a waypoint's pods run.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// Its image.
    pub image: &'a str,
    /// Where it finds the controller, `https://HOST:PORT`.
    pub controller: &'a str,
    /// Settings of its own, by name.
    pub settings: &'a [(String, String)],
}

impl<'a> Waypoint<'a> {
    /// Nothing where the Gateway is none.
    pub fn of(namespace: &'a str, name: &'a str, gateway: &'a Gateway) -> Option<Self> {
        let (class, listener) = listener(gateway)?;
        Some(Self { namespace, name, gateway, class, listener })
    }

    /// The labels that its pods have and no others.
    pub fn selector(&self) -> Value {
        json!({GATEWAY_NAME: self.name})
    }

    /// The `metadata` of each of its objects: with the labels and annotations of the Gateway's infrastructure.
    pub fn metadata(&self) -> Value {
        let given = self.gateway.infrastructure.clone().unwrap_or_default();
        let mut labels = given.labels;
        let managed = controller_of(self.class).unwrap_or_default().replace('/', "-");
        for (label, value) in [
            (GATEWAY_NAME, self.name),
            (OLDER_GATEWAY_NAME, self.name),
            (GATEWAY_CLASS, self.class),
            (MANAGED, &managed),
            MADE_BY,
        ] {
            labels.insert(label.to_owned(), value.to_owned());
        }
        let mut annotations = given.annotations;
        annotations.retain(|key, _| !NOT_PASSED_ON.contains(&key.as_str()));
        let mut metadata = json!({"name": self.name, "namespace": self.namespace, "labels": labels});
        // An empty map would be ours as well, until somebody writes the first annotation.
        if !annotations.is_empty() {
            metadata["annotations"] = json!(annotations);
        }
        metadata
    }

    /// The `spec` of its Service. Of one family, that of `INSTANCE_IP`: tunnels to a waypoint may carry what was addressed to
    /// either.
    pub fn service(&self) -> Value {
        // A listener's name may be longer than a port's.
        let fits = |name: &&str| name.len() <= 63 && !name.contains('.');
        let name = Some(self.listener.name.as_str()).filter(fits).unwrap_or("mesh");
        json!({
            "selector": self.selector(),
            "ports": [
                {"name": "status-port", "port": READY_PORT, "protocol": "TCP", "appProtocol": "tcp"},
                {"name": name, "port": self.listener.port, "targetPort": PORT, "protocol": "TCP", "appProtocol": "hbone"},
            ],
        })
    }

    /// The template of its pods, with one container. Its program looks for a token and for roots in [`TOKENS`] and
    /// [`ROOTS`]; there is no volume for them yet.
    pub fn pods(&self, program: &Program<'_>) -> Value {
        let metadata = self.metadata();
        let mut labels = metadata["labels"].clone();
        for (label, value) in [
            // It takes tunnels itself.
            (MODE, "none"),
            ("sidecar.istio.io/inject", "false"),
            ("service.istio.io/canonical-name", self.name),
            ("service.istio.io/canonical-revision", "latest"),
        ] {
            labels[label] = json!(value);
        }
        let mut annotations = metadata.get("annotations").cloned().unwrap_or_else(|| json!({}));
        for (annotation, value) in [
            ("prometheus.io/path", "/stats/prometheus"),
            ("prometheus.io/port", &STATS_PORT.to_string()),
            ("prometheus.io/scrape", "true"),
        ] {
            annotations[annotation] = json!(value);
        }
        json!({
            // A pod's own names are not its Deployment's.
            "metadata": {"labels": labels, "annotations": annotations},
            "spec": {
                "serviceAccountName": self.name,
                "terminationGracePeriodSeconds": GRACE,
                "containers": [self.container(program)],
            },
        })
    }

    fn container(&self, program: &Program<'_>) -> Value {
        let from = |path: &str| json!({"fieldRef": {"fieldPath": path}});
        let mut environment = vec![
            json!({"name": "POD_NAME", "valueFrom": from("metadata.name")}),
            json!({"name": "POD_NAMESPACE", "valueFrom": from("metadata.namespace")}),
            json!({"name": "SERVICE_ACCOUNT", "valueFrom": from("spec.serviceAccountName")}),
            json!({"name": "NODE_NAME", "valueFrom": from("spec.nodeName")}),
            json!({"name": "INSTANCE_IP", "valueFrom": from("status.podIP")}),
            json!({"name": "GATEWAY_NAME", "value": self.name}),
            json!({"name": "GATEWAY_CLASS", "value": self.class}),
            json!({"name": "XDS_ADDRESS", "value": program.controller}),
            json!({"name": "CA_ADDRESS", "value": program.controller}),
        ];
        environment
            .extend(program.settings.iter().map(|(name, value)| json!({"name": name, "value": value})));
        let port = |name: &str, port: u16| json!({"name": name, "containerPort": port, "protocol": "TCP"});
        let ready = json!({"path": "/healthz/ready", "port": READY_PORT});
        json!({
            "name": "istio-proxy",
            "image": program.image,
            "env": environment,
            "ports": [port("mesh", PORT), port("metrics", STATS_PORT), port("status-port", READY_PORT)],
            "startupProbe": {"httpGet": ready, "periodSeconds": 1, "failureThreshold": 60},
            "readinessProbe": {"httpGet": ready, "periodSeconds": 5, "failureThreshold": 2},
        })
    }
}
