//! Whether what was written is in force: ctrl has read every object as it stands, and every proxy has acknowledged
//! what ctrl made of it. Only then does `lateen up` say that the mesh is up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use pages::sync::Sync;
use serde_json::Value;

use super::http;

/// How long ctrl may take to answer one question.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(25);

/// What ctrl must have read: the parts of an object that it acts on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expected {
    pub(crate) kind: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// JSON pointers and what stands there.
    pub(crate) parts: Vec<(&'static str, Value)>,
    /// It must have been captured.
    pub(crate) captured: bool,
}

impl Expected {
    /// Those parts of an object, as written.
    pub(crate) fn of(kind: &'static str, object: &Value, captured: bool) -> Self {
        let text =
            |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let pointers: &[&'static str] = match kind {
            "Pod" => &["/metadata/uid", "/status/phase", "/status/podIPs", "/status/containerStatuses"],
            "EndpointSlice" => &["/endpoints", "/ports"],
            _ => &["/spec"],
        };
        let part = |pointer: &&'static str| (*pointer, object.pointer(pointer).cloned().unwrap_or_default());
        let parts = pointers.iter().map(part).collect();
        Self { kind, namespace: text("/metadata/namespace"), name: text("/metadata/name"), parts, captured }
    }

    fn is_in(&self, read: &[Value]) -> bool {
        read.iter().any(|object| {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let annotations = object.pointer("/metadata/annotations");
            let state =
                annotations.and_then(|all| all.get("ambient.istio.io/redirection")).and_then(Value::as_str);
            text("/metadata/name") == self.name
                && text("/metadata/namespace") == self.namespace
                && (!self.captured || state == Some("enabled"))
                && self
                    .parts
                    .iter()
                    .all(|(pointer, part)| object.pointer(pointer).unwrap_or(&Value::Null) == part)
        })
    }
}

/// Waits until everything expected is in force at the agents of all `nodes`; tells what is missing when that changes.
pub(crate) async fn wait(
    admin: &Path,
    nodes: &BTreeSet<String>,
    expected: &[Expected],
    mut missing: impl FnMut(String),
) {
    let mut told = String::new();
    while let Err(reason) = check(admin, nodes, expected).await {
        if reason != told {
            told.clone_from(&reason);
            missing(reason);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn check(admin: &Path, nodes: &BTreeSet<String>, expected: &[Expected]) -> Result<(), String> {
    let mut by_kind: BTreeMap<&str, Vec<&Expected>> = BTreeMap::new();
    for one in expected {
        by_kind.entry(one.kind).or_default().push(one);
    }
    for (kind, wanted) in by_kind {
        let path = format!("/objects/{kind}");
        let read: Vec<Value> =
            http::get_json(admin, &path, PATIENCE).await.map_err(|error| format!("ctrl: {error}"))?;
        if let Some(missing) = wanted.iter().find(|one| !one.is_in(&read)) {
            let what =
                if missing.captured { "has not seen it captured and ready" } else { "has not read it yet" };
            return Err(format!("{kind} {}/{}: ctrl {what}", missing.namespace, missing.name));
        }
    }
    let sync: Sync =
        http::get_json(admin, "/sync", PATIENCE).await.map_err(|error| format!("ctrl: {error}"))?;
    // A node's proxy is ours or another (`FOREIGN_PROXY`).
    let agents = sync.clients.iter().filter(|client| ["node-agent", "ztunnel"].contains(&&*client.role));
    let connected: BTreeSet<String> = agents.filter_map(|client| client.node.clone()).collect();
    if let Some(node) = nodes.difference(&connected).next() {
        return Err(format!("node-agent/{node} is not connected to ctrl"));
    }
    if sync.in_force { Ok(()) } else { Err("the proxies have not acknowledged everything yet".to_owned()) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Expected;

    #[test]
    fn an_object_counts_as_read_when_what_matters_is_the_same() {
        let pod = |phase: &str, annotations: Value| {
            json!({"metadata": {"name": "p", "namespace": "n", "uid": "1", "annotations": annotations},
                   "status": {"phase": phase}})
        };
        let captured = json!({"ambient.istio.io/redirection": "enabled"});
        let running = pod("Running", json!({}));
        for (must_be_captured, read, expected) in [
            (false, pod("Running", json!({})), true),
            (false, pod("Pending", json!({})), false),
            (true, pod("Running", json!({})), false),
            (true, pod("Running", captured), true),
        ] {
            let wanted = Expected::of("Pod", &running, must_be_captured);
            assert_eq!(wanted.is_in(std::slice::from_ref(&read)), expected, "{read}");
        }
        assert!(!Expected::of("Pod", &running, false).is_in(&[]));
    }
}
