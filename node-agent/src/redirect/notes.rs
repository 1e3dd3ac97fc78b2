//! What the redirecting role writes back about a pod: the annotation from which the controller learns that the
//! pod takes tunnels. Written only once the proxy has acknowledged the pod: earlier, its peers' traffic would go
//! to a port where nobody listens.

use manifest::{State, StateError};
use serde_json::{Map, Value};

use super::eligible::{PodFacts, REDIRECTION_ANNOTATION};

/// What is noted on a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// It is captured and served.
    Enabled,
    /// Its rules stand, the proxy does not serve it yet.
    Pending,
    /// It is not captured.
    Absent,
}

/// Writes notes on Pod objects kept in a folder.
#[derive(Clone, Debug)]
pub struct Notes {
    objects: State,
}

impl Notes {
    /// Notes on the objects of `objects`.
    #[must_use]
    pub fn new(objects: State) -> Self {
        Self { objects }
    }

    /// Notes `note` on a pod; nothing happens if the pod is gone or another has its name.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, pod: &PodFacts, note: Note) -> Result<(), StateError> {
        let change = |object: &mut Value| set(object, &pod.uid, note);
        self.objects.update("Pod", Some(&pod.namespace), &pod.name, change).map(drop)
    }
}

fn set(object: &mut Value, uid: &str, note: Note) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if metadata.get("uid").and_then(Value::as_str) != Some(uid) {
        return;
    }
    let value = match note {
        Note::Enabled => "enabled",
        Note::Pending => "pending",
        Note::Absent => {
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.shift_remove(REDIRECTION_ANNOTATION);
            }
            return;
        }
    };
    let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
    if annotations.is_null() {
        *annotations = Value::Object(Map::new());
    }
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.insert(REDIRECTION_ANNOTATION.to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Note, set};

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
