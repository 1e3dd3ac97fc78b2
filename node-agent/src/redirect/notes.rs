//! What the redirecting role writes back about a pod: the annotation from which the controller learns that the
//! pod takes tunnels. Written only once the proxy has acknowledged the pod: earlier, its peers' traffic would go
//! to a port where nobody listens.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use manifest::{State, StateError};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::eligible::{PodFacts, REDIRECTION_ANNOTATION};

/// What is noted on a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// It is captured and served.
    Enabled,
    /// Its rules stand, the proxy does not serve it yet. Does not take `Enabled` back: its peers would speak to it in the
    /// clear, which its proxy, once it is there, may let pass.
    Pending,
    /// It is not captured.
    Absent,
}

/// Writes notes on Pod objects. Clones share what they know.
#[derive(Clone, Debug)]
pub enum Notes {
    /// Objects kept in a folder.
    Folder(State),
    /// Objects of a cluster.
    Cluster(ClusterNotes),
}

/// Why a note could not be written. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// The folder.
    #[error(transparent)]
    Folder(#[from] StateError),
    /// The API server said no.
    #[error("the API server refused the annotation: {0}; the agent needs the right to patch pods/status")]
    Cluster(#[from] kube::Error),
    /// It did not answer.
    #[error("the API server did not answer within {} s", ANSWER_TIME.as_secs())]
    Slow,
    /// It never began.
    #[error("writing was cut off: {0}")]
    CutOff(#[from] tokio::task::JoinError),
}

impl Notes {
    /// Notes `note` on a pod; nothing happens if the pod is gone or another has its name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn write(&self, pod: &PodFacts, note: Note) -> Result<(), NoteError> {
        match self {
            Self::Folder(objects) => {
                let (objects, pod) = (objects.clone(), pod.clone());
                let writing = tokio::task::spawn_blocking(move || {
                    let change = |object: &mut Value| set(object, &pod.uid, note);
                    objects.update("Pod", Some(&pod.namespace), &pod.name, change).map(drop)
                });
                Ok(writing.await??)
            }
            Self::Cluster(notes) => {
                timeout(ANSWER_TIME, notes.write(pod, note)).await.map_err(|_| NoteError::Slow)?
            }
        }
    }

    /// A pod is gone.
    pub fn forget(&self, uid: &str) {
        if let Self::Cluster(notes) = self {
            notes.enabled().remove(uid);
        }
    }
}

/// How long the API server may take: the runtime waits for it while a pod starts.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Writes them through the API server: on the subresource `status`, which gives no right to change what the pod is.
#[derive(Clone)]
pub struct ClusterNotes {
    client: Client,
    /// Pods on which that is noted; their objects are told later than this is known.
    enabled: Arc<Mutex<HashSet<String>>>,
}

impl std::fmt::Debug for ClusterNotes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterNotes").field("enabled", &self.enabled).finish_non_exhaustive()
    }
}

impl ClusterNotes {
    /// Notes on the pods of this client's cluster.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, enabled: Arc::default() }
    }

    fn enabled(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.enabled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, pod: &PodFacts, note: Note) -> Result<(), NoteError> {
        let is_enabled = pod.is_noted_enabled() || self.enabled().contains(&pod.uid);
        if note == Note::Pending && is_enabled {
            return Ok(());
        }
        let pods = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace);
        let written =
            pods.patch_status(&pod.name, &PatchParams::default(), &Patch::Merge(patch(pod, note))).await;
        match written {
            Ok(_) => {}
            // Gone, or another one has its name (its uid is part of what is written).
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(error.into()),
        }
        match note {
            Note::Enabled => self.enabled().insert(pod.uid.clone()),
            Note::Pending | Note::Absent => self.enabled().remove(&pod.uid),
        };
        Ok(())
    }
}

fn patch(pod: &PodFacts, note: Note) -> Value {
    json!({"metadata": {"uid": pod.uid, "annotations": {REDIRECTION_ANNOTATION: word(note)}}})
}

fn word(note: Note) -> Option<&'static str> {
    match note {
        Note::Enabled => Some("enabled"),
        Note::Pending => Some("pending"),
        Note::Absent => None,
    }
}

fn set(object: &mut Value, uid: &str, note: Note) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if metadata.get("uid").and_then(Value::as_str) != Some(uid) {
        return;
    }
    let Some(value) = word(note) else {
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.shift_remove(REDIRECTION_ANNOTATION);
        }
        return;
    };
    let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
    if annotations.is_null() {
        *annotations = Value::Object(Map::new());
    }
    if let Some(annotations) = annotations.as_object_mut() {
        let is_enabled = annotations.get(REDIRECTION_ANNOTATION).and_then(Value::as_str) == Some("enabled");
        if note == Note::Pending && is_enabled {
            return;
        }
        annotations.insert(REDIRECTION_ANNOTATION.to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Note, patch, set};
    use crate::redirect::eligible::PodFacts;

    #[test]
    fn a_cluster_is_told_of_which_pod_it_is_said() {
        let pod = PodFacts { uid: "u".into(), ..PodFacts::default() };
        let annotations = |note| patch(&pod, note)["metadata"].clone();
        let enabled = json!({"uid": "u", "annotations": {"ambient.istio.io/redirection": "enabled"}});
        assert_eq!(annotations(Note::Enabled), enabled);
        let absent = json!({"uid": "u", "annotations": {"ambient.istio.io/redirection": null}});
        assert_eq!(annotations(Note::Absent), absent);
    }

    #[test]
    fn an_agent_that_is_away_takes_nothing_back() {
        for (before, note, expected) in [
            (None, Note::Pending, Some("pending")),
            (Some("pending"), Note::Enabled, Some("enabled")),
            (Some("enabled"), Note::Pending, Some("enabled")),
            (Some("enabled"), Note::Absent, None),
        ] {
            let mut pod = json!({"metadata": {"uid": "a"}});
            if let Some(before) = before {
                pod["metadata"]["annotations"] = json!({"ambient.istio.io/redirection": before});
            }
            set(&mut pod, "a", note);
            let after = pod["metadata"]["annotations"].get("ambient.istio.io/redirection");
            assert_eq!(after.and_then(|after| after.as_str()), expected, "{before:?} {note:?}");
        }
    }

    #[test]
    fn only_the_pod_itself_is_annotated() {
        let mut pod = json!({"metadata": {"uid": "a", "annotations": {"other": "kept"}}});
        set(&mut pod, "a", Note::Pending);
        set(&mut pod, "a", Note::Enabled);
        assert_eq!(pod["metadata"]["annotations"]["ambient.istio.io/redirection"], "enabled");
        set(&mut pod, "b", Note::Absent);
        assert_eq!(pod["metadata"]["annotations"]["ambient.istio.io/redirection"], "enabled");
        set(&mut pod, "a", Note::Absent);
        assert_eq!(pod, json!({"metadata": {"uid": "a", "annotations": {"other": "kept"}}}));
        let mut bare = json!({"metadata": {"uid": "a"}});
        set(&mut bare, "a", Note::Enabled);
        assert_eq!(bare["metadata"]["annotations"]["ambient.istio.io/redirection"], "enabled");
    }
}
