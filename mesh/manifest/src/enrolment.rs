//! Which pods belong to the mesh: those whose own label, or else their namespace's, says so, unless something of the pod
//! speaks against it. Nodes' agents capture by it, `lateen up` waits for it, and `analyze` tells what it comes to. Pure.

use std::collections::BTreeMap;

/// The label, on namespaces and pods, that enrols (`ambient`) or, on a pod, opts out (`none`). Another word counts as if
/// the label were not there.
pub const MODE: &str = "istio.io/dataplane-mode";
/// What it may say.
pub const MODES: [&str; 2] = [AMBIENT, NONE];
const AMBIENT: &str = "ambient";
const NONE: &str = "none";
/// Annotation that an injected sidecar leaves.
const SIDECAR: &str = "sidecar.istio.io/status";
/// Annotation of the object of a pod that comes from a file of its node's.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Labels or annotations.
pub type Names = BTreeMap<String, String>;

/// What of a pod decides.
#[derive(Debug, Clone, Copy)]
pub struct Enrolment<'a> {
    /// Its labels.
    pub labels: &'a Names,
    /// Its annotations.
    pub annotations: &'a Names,
    /// Whether it uses its node's network.
    pub host_network: bool,
    /// The labels of its namespace.
    pub namespace: &'a Names,
}

impl Enrolment<'_> {
    /// Why the pod does not belong to the mesh; nothing where it does.
    pub fn refusal(&self) -> Option<&'static str> {
        if self.host_network {
            return Some("it uses its node's network (hostNetwork)");
        }
        // The controller vouches for none: a node could make one in any namespace.
        if self.annotations.contains_key(MIRROR) {
            return Some("it comes from a file of its node (a static pod) and has no identity");
        }
        if self.annotations.contains_key(SIDECAR) {
            return Some("it has an injected sidecar");
        }
        match (mode(self.labels), mode(self.namespace)) {
            (Some(NONE), _) => Some("its label istio.io/dataplane-mode=none"),
            (Some(_), _) | (None, Some(AMBIENT)) => None,
            (None, _) => Some("neither it nor its namespace has the label istio.io/dataplane-mode=ambient"),
        }
    }
}

/// What labels say, where that is a word of the mesh.
fn mode(labels: &Names) -> Option<&str> {
    labels.get(MODE).map(String::as_str).filter(|mode| MODES.contains(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pairs: &[(&str, &str)]) -> Names {
        let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
        pairs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn labels_decide_the_pods_own_first() {
        for (namespace, pod, belongs) in [
            ("", "", false),
            ("ambient", "", true),
            ("ambient", "none", false),
            ("ambient", "ambient", true),
            ("", "ambient", true),
            ("none", "ambient", true),
            ("none", "", false),
            ("ambient", "unheard-of", true),
            ("unheard-of", "", false),
        ] {
            let (labels, annotations, namespace) =
                (names(&[(MODE, pod)]), Names::new(), names(&[(MODE, namespace)]));
            let pod = Enrolment {
                labels: &labels,
                annotations: &annotations,
                host_network: false,
                namespace: &namespace,
            };
            assert_eq!(pod.refusal().is_none(), belongs, "{pod:?}");
        }
    }

    #[test]
    fn some_pods_never_belong_to_it() {
        let (none, labels) = (Names::new(), names(&[(MODE, AMBIENT)]));
        for (annotation, host_network, part) in [
            ("", true, "hostNetwork"),
            ("sidecar.istio.io/status", false, "sidecar"),
            ("kubernetes.io/config.mirror", false, "static pod"),
        ] {
            let annotations = [annotation].into_iter().filter(|name| !name.is_empty());
            let annotations = annotations.map(|name| (name.to_owned(), "{}".to_owned())).collect();
            let pod =
                Enrolment { labels: &labels, annotations: &annotations, host_network, namespace: &none };
            assert!(pod.refusal().is_some_and(|why| why.contains(part)), "{pod:?}");
        }
    }
}
