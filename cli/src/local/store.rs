//! The objects that `lateen` itself writes: Pods, Nodes, EndpointSlices and Services with their addresses, below
//! `objects/`, where ctrl and the node agents read them. The redirect role writes there too (its annotation on a Pod),
//! so every change is made under a lock, from what stands there.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde_json::Value;

use crate::state::write_private;

/// Annotations of Pods that others write and that survive every change made here.
const KEPT: [&str; 1] = ["ambient.istio.io/redirection"];

/// Where cluster-wide objects stand instead of below a namespace.
const CLUSTER: &str = "_cluster";

/// The folder of objects.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    root: PathBuf,
}

impl Store {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn path(&self, kind: &str, namespace: Option<&str>, name: &str) -> PathBuf {
        self.root.join(kind).join(namespace.unwrap_or(CLUSTER)).join(format!("{name}.json"))
    }

    fn lock(&self) -> io::Result<Flock<File>> {
        let file = OpenOptions::new().create(true).append(true).open(self.root.join(".lock"))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }

    /// Writes an object; annotations that others put on it stay. Returns what stands there now.
    pub(crate) fn write(
        &self,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        object: &impl Serialize,
    ) -> io::Result<Value> {
        let path = self.path(kind, namespace, name);
        let mut object = serde_json::to_value(object).map_err(io::Error::other)?;
        let _lock = self.lock()?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        if let Some(current) = read(&path) {
            keep_annotations(&current, &mut object);
        }
        let bytes = serde_json::to_vec_pretty(&object).map_err(io::Error::other)?;
        write_private(&path, &bytes)?;
        Ok(object)
    }

    /// Removes an object; it need not be there.
    pub(crate) fn remove(&self, kind: &str, namespace: Option<&str>, name: &str) -> io::Result<()> {
        let _lock = self.lock()?;
        match fs::remove_file(self.path(kind, namespace, name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The object that stands there now.
    pub(crate) fn read(&self, kind: &str, namespace: Option<&str>, name: &str) -> Option<Value> {
        read(&self.path(kind, namespace, name))
    }
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn keep_annotations(current: &Value, object: &mut Value) {
    let same = |v: &Value| v.pointer("/metadata/uid").cloned();
    if same(current) != same(object) {
        return;
    }
    for key in KEPT {
        let Some(kept) = current.get("metadata").and_then(|m| m.get("annotations")).and_then(|a| a.get(key))
        else {
            continue;
        };
        let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else { continue };
        let annotations = meta.entry("annotations").or_insert_with(|| Value::Object(Default::default()));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(key.to_owned(), kept.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Store;

    #[test]
    fn what_the_node_agent_noted_survives_unless_the_pod_is_another() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = Store::new(folder.path());
        let noted =
            json!({"metadata": {"uid": "1", "annotations": {"ambient.istio.io/redirection": "enabled"}}});
        store.write("Pod", Some("a"), "p", &noted).expect("write");
        let bare = json!({"metadata": {"uid": "1"}, "status": {"phase": "Running"}});
        let now = store.write("Pod", Some("a"), "p", &bare).expect("write");
        assert_eq!(now["metadata"]["annotations"]["ambient.istio.io/redirection"], "enabled");
        let other = json!({"metadata": {"uid": "2"}});
        let now = store.write("Pod", Some("a"), "p", &other).expect("write");
        assert!(now["metadata"].get("annotations").is_none());
        store.remove("Pod", Some("a"), "p").expect("remove");
        store.remove("Pod", Some("a"), "p").expect("remove again");
        assert!(store.read("Pod", Some("a"), "p").is_none());
    }
}
