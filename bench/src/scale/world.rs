//! A large mesh as files: pods as a mesh without Kubernetes keeps them, one a file, and a service for some of them each.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::scale::failed;
use crate::variants::VariantError;

/// Pods of one deployment, usually.
pub(crate) const PER_DEPLOYMENT: u32 = 50;
/// Deployments of one namespace.
const PER_NAMESPACE: u32 = 20;

/// The pods and services in a folder.
pub(crate) struct World {
    objects: PathBuf,
    temporary: PathBuf,
    per_deployment: u32,
}

impl World {
    /// Writes so many pods, and a service for each so many of them.
    pub(crate) fn write(folder: &Path, pods: u32, per_deployment: u32) -> Result<Self, VariantError> {
        let (objects, temporary) = (folder.join("objects"), folder.join("next.json"));
        fs::create_dir_all(&objects).map_err(failed("making a folder"))?;
        let world = Self { objects, temporary, per_deployment: per_deployment.max(1) };
        for deployment in 0..pods.div_ceil(world.per_deployment) {
            let service = service(deployment);
            world.put(&service)?;
        }
        for number in 0..pods {
            world.set_ready(number, true)?;
        }
        Ok(world)
    }

    /// Where they stand.
    pub(crate) fn objects(&self) -> &Path {
        &self.objects
    }

    /// Changes whether a pod is ready, as its kubelet would.
    pub(crate) fn set_ready(&self, number: u32, ready: bool) -> Result<(), VariantError> {
        self.put(&pod(number, number / self.per_deployment, ready))
    }

    fn put(&self, object: &Value) -> Result<(), VariantError> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let folder = self.objects.join(text("/kind")).join(text("/metadata/namespace"));
        let file = folder.join(format!("{}.json", text("/metadata/name")));
        if !folder.is_dir() {
            fs::create_dir_all(&folder).map_err(failed("making a folder"))?;
        }
        // Whole or not at all.
        fs::write(&self.temporary, object.to_string()).map_err(failed("writing an object"))?;
        fs::rename(&self.temporary, file).map_err(failed("writing an object"))
    }
}

/// Its name, which is also that of its account and service, and its namespace.
pub(crate) fn names(deployment: u32) -> (String, String) {
    (format!("app-{deployment}"), format!("team-{}", deployment / PER_NAMESPACE))
}

/// The service of a deployment.
pub(crate) fn service(deployment: u32) -> Value {
    let (app, namespace) = names(deployment);
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": app, "namespace": namespace},
        "spec": {
            "clusterIP": format!("172.{}.{}.{}", 16 + (deployment >> 16), (deployment >> 8) & 255, deployment & 255),
            "selector": {"app": app}, "ports": [{"port": 80, "targetPort": "http"}],
        },
    })
}

/// A pod of a deployment, as it runs.
pub(crate) fn pod(number: u32, deployment: u32, ready: bool) -> Value {
    let (app, namespace) = names(deployment);
    let address = format!("11.{}.{}.{}", (number >> 16) & 255, (number >> 8) & 255, number & 255);
    let name = format!("{app}-7d9c5b8f6c-{number:05x}");
    let condition = |kind: &str| {
        let status = if ready { "True" } else { "False" };
        json!({"type": kind, "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": namespace, "uid": format!("0f1e2d3c-0000-4000-8000-{number:012}"),
            "labels": {"app": app, "version": "v1", "pod-template-hash": "7d9c5b8f6c"},
            "annotations": {"ambient.istio.io/redirection": "enabled"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "uid": "1", "controller": true,
                                 "name": format!("{app}-7d9c5b8f6c")}],
        },
        "spec": {
            "nodeName": format!("node-{}", number % 1000), "serviceAccountName": app,
            "containers": [{"name": "main", "image": "registry.example/app:1.2.3",
                            "ports": [{"name": "http", "containerPort": 8080}]}],
        },
        "status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": "192.0.2.1",
            "conditions": [condition("Ready"), condition("ContainersReady"), condition("PodScheduled")],
        },
    })
}
