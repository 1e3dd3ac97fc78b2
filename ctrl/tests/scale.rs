//! What a large mesh costs the controller: memory by pod, and the time of one change. Five thousand pods, a hundred
//! thousand with `LATEEN_FULL=1` (build with --release for times that mean something).

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail like the tests themselves")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ctrl::core::Core;
use ctrl::translate::Context;
use manifest::{Batch, Object, from_json};
use model::mesh::Settings;
use serde_json::{Value, json};
use tokio::time::Instant;

/// Pods of a deployment, and so of a service.
const REPLICAS: usize = 5;

fn object(value: &Value) -> Arc<Object> {
    let origin: Arc<Path> = Arc::from(Path::new("test"));
    Arc::new(from_json(value, &origin).objects.pop().unwrap())
}

fn pod(number: usize, ready: bool) -> Arc<Object> {
    let (app, namespace) = (number / REPLICAS, number / REPLICAS / 20);
    let address = format!("10.{}.{}.{}", number >> 16, (number >> 8) & 255, number & 255);
    let status = if ready { "True" } else { "False" };
    let at = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| json!({"type": kind, "status": status, "lastTransitionTime": at});
    object(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("app-{app}-5d4f7c9b8-{number:05}"), "namespace": format!("ns-{namespace}"),
            "uid": format!("0f1e2d3c-0000-4000-8000-{number:012}"), "resourceVersion": number.to_string(),
            "labels": {"app": format!("app-{app}"), "version": "v1", "pod-template-hash": "5d4f7c9b8"},
            "annotations": {"ambient.istio.io/redirection": "enabled"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "uid": "1", "controller": true,
                                 "name": format!("app-{app}-5d4f7c9b8")}],
        },
        "spec": {
            "nodeName": format!("node-{}", number % 1000), "serviceAccountName": format!("app-{app}"),
            "containers": [{
                "name": "main", "image": "registry.example/app:1.2.3",
                "ports": [{"name": "http", "containerPort": 8080}],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            }],
        },
        "status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": "192.0.2.1",
            "conditions": [condition("Ready"), condition("ContainersReady"), condition("PodScheduled")],
        },
    }))
}

fn service(app: usize) -> Arc<Object> {
    object(&json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("app-{app}"), "namespace": format!("ns-{}", app / 20)},
        "spec": {"clusterIP": format!("172.{}.{}.{}", 16 + (app >> 16), (app >> 8) & 255, app & 255),
                 "selector": {"app": format!("app-{app}")}, "ports": [{"port": 80, "targetPort": "http"}]},
    }))
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn upsert(objects: Vec<Arc<Object>>) -> Batch {
    Batch { upserted: objects, ..Batch::default() }
}

#[test]
fn a_large_mesh_is_affordable_and_one_change_is_cheap() {
    let full = std::env::var_os("LATEEN_FULL").is_some_and(|value| value == "1");
    let pods = if full { 100_000 } else { 5_000 };
    let core = Core::new(Context::new(Settings::default()));
    let before = resident();
    let objects: Vec<Arc<Object>> =
        (0..pods).map(|number| pod(number, true)).chain((0..pods / REPLICAS).map(service)).collect();
    let read = resident();
    let begun = Instant::now();
    core.apply(&upsert(objects));
    let (took, after) = (begun.elapsed(), resident());
    let mut changes = Vec::new();
    for number in 0..200 {
        let one = upsert(vec![pod(number * 7 % pods, false)]);
        let begun = Instant::now();
        assert_eq!(core.apply(&one).translated, 1);
        changes.push(begun.elapsed());
    }
    changes.sort();
    println!(
        "{pods} pods: {} B a pod for the objects, {} B for the rest; compiled in {took:?}; one change: median {:?}, \
         99 of 100 under {:?}",
        (read - before) / pods,
        after.saturating_sub(read) / pods,
        changes[100],
        changes[198],
    );
    assert!(changes[100] < Duration::from_millis(5), "{changes:?}");
    // The objects are the source's, and as large as it reads them; the rest is what this controller makes of them.
    assert!(after.saturating_sub(read) / pods < 8_000, "{} B a pod", (after - read) / pods);
}
