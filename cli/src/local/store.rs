//! The objects that `lateen` itself writes: Pods, Nodes, EndpointSlices and Services with their addresses, where ctrl
//! and the node agents read them. The redirecting role writes there too (its annotation on a Pod), which every change
//! made here leaves standing.

use std::path::Path;

use manifest::{State, StateError};
use serde_json::Value;

/// Annotations of Pods that others write.
const KEPT: [&str; 1] = ["ambient.istio.io/redirection"];

/// The folder of objects.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    state: State,
}

impl Store {
    pub(crate) fn new(root: &Path) -> Self {
        Self { state: State::at(root) }
    }

    /// Writes an object; annotations that others put on it stay.
    pub(crate) fn write(&self, object: &Value) -> Result<(), StateError> {
        let text =
            |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (kind, namespace, name) = (text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
        let namespace = Some(namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let mut new = object.clone();
        let replaced = self.state.update(&kind, namespace, &name, |current| {
            keep_annotations(current, &mut new);
            *current = new;
        })?;
        if replaced { Ok(()) } else { self.state.write(object) }
    }

    /// Removes an object; it need not be there.
    pub(crate) fn remove(&self, kind: &str, namespace: &str, name: &str) -> Result<(), StateError> {
        self.state.remove(kind, Some(namespace), name)
    }
}

fn keep_annotations(current: &Value, new: &mut Value) {
    let uid = |object: &Value| object.pointer("/metadata/uid").cloned();
    if uid(current) != uid(new) {
        return;
    }
    for key in KEPT {
        let kept =
            current.get("metadata").and_then(|meta| meta.get("annotations")).and_then(|all| all.get(key));
        let (Some(kept), Some(meta)) = (kept, new.get_mut("metadata").and_then(Value::as_object_mut)) else {
            continue;
        };
        let annotations = meta.entry("annotations").or_insert_with(|| Value::Object(Default::default()));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(key.to_owned(), kept.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use manifest::State;
    use serde_json::{Value, json};

    use super::Store;

    #[test]
    fn what_the_node_agent_noted_survives_unless_the_pod_is_another() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = Store::new(folder.path());
        let write = |meta: Value| {
            store.write(&json!({"kind": "Pod", "metadata": meta})).expect("written");
            State::at(folder.path()).read("Pod", Some("a"), "p").expect("read").expect("there")["metadata"]
                .clone()
        };
        let noted = json!({"ambient.istio.io/redirection": "enabled"});
        write(json!({"name": "p", "namespace": "a", "uid": "1", "annotations": noted}));
        let same = write(json!({"name": "p", "namespace": "a", "uid": "1", "annotations": {"x": "y"}}));
        assert_eq!(same["annotations"], json!({"x": "y", "ambient.istio.io/redirection": "enabled"}));
        let other = write(json!({"name": "p", "namespace": "a", "uid": "2"}));
        assert_eq!(other.get("annotations"), None);
    }
}
