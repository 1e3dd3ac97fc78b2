//! The folder in which a mesh without an API server keeps the objects that its own parts write: Pods, Nodes
//! and EndpointSlices with their status, one file each. Several processes write there (`lateen up`, and each
//! node's redirecting role, which notes on a Pod that it is captured), so every change is made from what
//! stands there now, under one lock, and appears at once or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use serde_json::Value;

/// Where objects that live in no namespace stand, beside the namespaces.
const NO_NAMESPACE: &str = "_cluster";

/// Why an object could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system refused.
    #[error("{}: {source}; the mesh keeps its objects there, make it readable and writable", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// Somebody wrote something else there.
    #[error("{}: {source}; remove the file, it will be written again", path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// Where it breaks.
        source: serde_json::Error,
    },
    /// The object cannot be filed.
    #[error("an object without {0} cannot be kept")]
    Nameless(&'static str),
    /// A name that would lead out of the folder.
    #[error("{0:?} cannot be part of a file's name")]
    BadName(String),
}

/// The objects of a mesh, as `KIND/NAMESPACE/NAME.json`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct State {
    root: PathBuf,
}

impl State {
    /// The objects below `root`; the folder is made when the first object is written.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself: what a [`Folder`](crate::Folder) is given to watch.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes `object`, whole, in the place of what stood there.
    pub fn write(&self, object: &Value) -> Result<(), StateError> {
        let text =
            |pointer: &str| object.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        let kind = text("/kind").ok_or(StateError::Nameless("kind"))?;
        let name = text("/metadata/name").ok_or(StateError::Nameless("metadata.name"))?;
        let path = self.path(kind, text("/metadata/namespace"), name)?;
        let _lock = self.lock()?;
        replace(&path, object)
    }

    /// Changes an object from what stands there now. False when it is not there, which is not an error: it
    /// may have been removed meanwhile.
    pub fn update(
        &self,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<bool, StateError> {
        let path = self.path(kind, namespace, name)?;
        let _lock = self.lock()?;
        let Some(before) = read(&path)? else { return Ok(false) };
        let mut after = before.clone();
        change(&mut after);
        if after != before {
            replace(&path, &after)?;
        }
        Ok(true)
    }

    /// The object as it stands there now.
    pub fn read(&self, kind: &str, namespace: Option<&str>, name: &str) -> Result<Option<Value>, StateError> {
        read(&self.path(kind, namespace, name)?)
    }

    /// Removes an object; it need not be there.
    pub fn remove(&self, kind: &str, namespace: Option<&str>, name: &str) -> Result<(), StateError> {
        let path = self.path(kind, namespace, name)?;
        let _lock = self.lock()?;
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StateError::Io { path, source }),
            _ => Ok(()),
        }
    }

    fn path(&self, kind: &str, namespace: Option<&str>, name: &str) -> Result<PathBuf, StateError> {
        let namespace = namespace.unwrap_or(NO_NAMESPACE);
        for part in [kind, namespace, name] {
            if part.is_empty() || part.starts_with('.') || part.contains(['/', '\0']) {
                return Err(StateError::BadName(part.to_owned()));
            }
        }
        Ok(self.root.join(kind).join(namespace).join(format!("{name}.json")))
    }

    /// Held until dropped. Whoever holds it does a few file operations and nothing else, and the kernel
    /// releases it for a process that dies, so waiting for it ends.
    fn lock(&self) -> Result<File, StateError> {
        let path = self.root.join(".lock");
        let lock = || {
            fs::create_dir_all(&self.root)?;
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        lock().map_err(|source| StateError::Io { path: path.clone(), source })
    }
}

fn read(path: &Path) -> Result<Option<Value>, StateError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateError::Io { path: path.to_owned(), source }),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| StateError::NotJson { path: path.to_owned(), source })
}

/// Writes beside the file and renames: a reader sees the old object or the new one. The name of what is not
/// finished begins with a dot, so that no reader of the folder takes it for an object.
fn replace(path: &Path, object: &Value) -> Result<(), StateError> {
    static UNFINISHED: AtomicU64 = AtomicU64::new(0);
    let number = UNFINISHED.fetch_add(1, Ordering::Relaxed);
    let unfinished = path.with_file_name(format!(".unfinished-{}-{number}", std::process::id()));
    let write = || {
        // At once: a file has no buffer, and each brace would be a system call of its own.
        let mut text = serde_json::to_vec_pretty(object)?;
        text.push(b'\n');
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Secrets may be among the objects.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(&text)?;
        fs::rename(&unfinished, path)
    };
    write().map_err(|source| {
        // What is left over is only clutter; the error that counts is the one before.
        let _ = fs::remove_file(&unfinished);
        StateError::Io { path: path.to_owned(), source }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::{State, StateError};

    fn pod(name: &str) -> serde_json::Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a"}, "count": 0})
    }

    #[test]
    fn objects_are_kept_changed_and_removed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = State::at(folder.path().join("objects"));
        state.write(&pod("p")).expect("written");
        let node = json!({"kind": "Node", "metadata": {"name": "node-1"}});
        state.write(&node).expect("written");
        assert_eq!(state.read("Node", None, "node-1").expect("readable"), Some(node));
        let noted =
            state.update("Pod", Some("a"), "p", |pod| pod["metadata"]["annotations"] = json!({"k": "v"}));
        assert!(noted.expect("changed"));
        let now = state.read("Pod", Some("a"), "p").expect("readable").expect("there");
        assert_eq!(now["metadata"]["annotations"]["k"], "v");
        state.remove("Pod", Some("a"), "p").expect("removed");
        state.remove("Pod", Some("a"), "p").expect("removing twice is fine");
        assert!(!state.update("Pod", Some("a"), "p", |_| {}).expect("not an error"));
        let left: Vec<_> = fs::read_dir(folder.path().join("objects/Pod/a")).expect("a folder").collect();
        assert!(left.is_empty(), "nothing unfinished stays behind: {left:?}");
    }

    #[test]
    fn names_stay_inside_the_folder() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = State::at(folder.path());
        for name in ["../x", "..", ".hidden", "", "a/b"] {
            let refused = state.remove("Pod", Some("a"), name);
            assert!(matches!(refused, Err(StateError::BadName(_))), "{name:?}");
        }
        assert!(matches!(state.write(&json!({"kind": "Pod"})), Err(StateError::Nameless("metadata.name"))));
    }

    #[test]
    fn no_change_is_lost_when_many_write() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = State::at(folder.path());
        state.write(&pod("p")).expect("written");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let count = |pod: &mut serde_json::Value| {
                            pod["count"] = json!(pod["count"].as_u64().unwrap_or(0) + 1);
                        };
                        assert!(state.update("Pod", Some("a"), "p", count).expect("changed"));
                    }
                });
            }
        });
        let now = state.read("Pod", Some("a"), "p").expect("readable").expect("there");
        assert_eq!(now["count"], 100);
    }
}
