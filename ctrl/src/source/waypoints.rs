//! Which waypoints have been ready, over restarts: a binding that was in force is in force again, before any replica of
//! the waypoint is. Their Gateways are kept as they were, in the state folder.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use manifest::{Object, State, from_json};
use serde_json::json;

use crate::index::Name;

/// The folder below the state folder.
const FOLDER: &str = "ready-waypoints";
/// The kind of what is kept.
const KIND: &str = "Gateway";

/// The Gateways of waypoints that have been ready.
#[derive(Debug)]
pub struct ReadyWaypoints(State);

impl ReadyWaypoints {
    /// Below the state folder; made when the first is kept.
    pub fn open(state: &Path) -> Self {
        Self(State::at(state.join(FOLDER)))
    }

    /// Those that an earlier process kept. What cannot be read is told, and left out.
    pub fn stored(&self) -> Vec<Object> {
        let entries = |folder: &Path| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let mut found = Vec::new();
        for path in entries(&self.0.root().join(KIND)).iter().flat_map(|namespace| entries(namespace)) {
            let origin: Arc<Path> = Arc::from(path.as_path());
            let value = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            match value.and_then(|value| from_json(&value, &origin).objects.pop()) {
                Some(object) => found.push(object),
                None => {
                    tracing::warn!(path = %path.display(), "not a Gateway as this controller keeps them; ignored")
                }
            }
        }
        found
    }

    /// Keeps the waypoints that come with their Gateway, and forgets the others.
    pub fn keep(&self, changes: &[(Name, Option<Arc<Object>>)]) {
        for (name, gateway) in changes {
            let done = match gateway {
                Some(gateway) => {
                    let mut value = gateway.raw.clone();
                    // Written out, where the manifest relied on the default.
                    value["metadata"]["namespace"] = json!(&*name.namespace);
                    self.0.write(&value)
                }
                None => self.0.remove(KIND, Some(&name.namespace), &name.name),
            };
            if let Err(error) = done {
                tracing::error!(%error, waypoint = %name, "bindings to it are in force but not kept for a restart");
            }
        }
    }
}
