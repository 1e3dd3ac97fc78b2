//! What this node's redirecting role knows of the cluster: its own pods and the labels of namespaces. Fed by an
//! adapter (a folder of manifests here), read by the reconciler and the CNI endpoint.

use std::collections::BTreeMap;

use manifest::{Batch, Key, Object, Typed};

use super::eligible::{Names, PodFacts, Verdict};

/// The pods of one node and all namespaces' labels.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    node: String,
    /// By namespace and name.
    pods: BTreeMap<(String, String), PodFacts>,
    namespaces: BTreeMap<String, Names>,
}

impl Catalog {
    /// An empty catalog of the node of this name.
    #[must_use]
    pub fn new(node: impl Into<String>) -> Self {
        Self { node: node.into(), ..Self::default() }
    }

    /// Takes in what changed.
    pub fn apply(&mut self, batch: &Batch) {
        for key in &batch.removed {
            self.remove(key);
        }
        for object in &batch.upserted {
            self.upsert(object);
        }
    }

    fn remove(&mut self, key: &Key) {
        match (key.group.as_str(), key.kind.as_str(), &key.namespace) {
            ("", "Pod", Some(namespace)) => {
                self.pods.remove(&(namespace.clone(), key.name.clone()));
            }
            ("", "Namespace", _) => {
                self.namespaces.remove(&key.name);
            }
            _ => {}
        }
    }

    fn upsert(&mut self, object: &Object) {
        let metadata = &object.metadata;
        match &object.spec {
            Typed::Pod(_) => {
                let Some(facts) = facts(object) else { return };
                let key = (facts.namespace.clone(), facts.name.clone());
                if facts.node == self.node && !facts.uid.is_empty() {
                    self.pods.insert(key, facts);
                } else {
                    self.pods.remove(&key);
                }
            }
            Typed::Namespace(_) => {
                self.namespaces.insert(metadata.name.clone(), metadata.labels.clone());
            }
            _ => {}
        }
    }

    /// The node's pods.
    pub fn pods(&self) -> impl Iterator<Item = &PodFacts> {
        self.pods.values()
    }

    /// The pod of this name; with a uid, only that one: a CNI call may come before the news of a pod's successor.
    #[must_use]
    pub fn find(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<&PodFacts> {
        let found = self.pods.get(&(namespace.to_owned(), name.to_owned()))?;
        uid.is_none_or(|uid| uid == found.uid).then_some(found)
    }

    /// Whether a pod is to be captured.
    #[must_use]
    pub fn verdict(&self, pod: &PodFacts) -> Verdict {
        static NONE: Names = Names::new();
        pod.verdict(self.namespaces.get(&pod.namespace).unwrap_or(&NONE))
    }
}

/// What matters of a Pod object.
fn facts(object: &Object) -> Option<PodFacts> {
    let Typed::Pod(pod) = &object.spec else { return None };
    let metadata = &object.metadata;
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let ips = status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    let account = spec.and_then(|spec| spec.service_account_name.clone()).filter(|name| !name.is_empty());
    Some(PodFacts {
        uid: metadata.uid.clone().unwrap_or_default(),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone().unwrap_or_else(|| "default".into()),
        service_account: account.unwrap_or_else(|| "default".into()),
        node: spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        ips: ips.filter_map(|ip| ip.ip.parse().ok()).collect(),
        labels: metadata.labels.clone(),
        annotations: metadata.annotations.clone(),
        host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
        phase: status.and_then(|status| status.phase.clone()).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use manifest::{Batch, parse};

    use super::Catalog;
    use crate::redirect::eligible::Verdict;

    const MANIFESTS: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: books, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews, namespace: books, uid: u-1, annotations: {lateen.dev/netns: /run/x}}
spec: {nodeName: node-1, serviceAccountName: reviews, containers: [{name: c, image: i}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.2}, {ip: 'fd00::2'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: elsewhere, namespace: books, uid: u-2}
spec: {nodeName: node-2, containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: only-asked-for, namespace: books}
spec: {nodeName: node-1, containers: [{name: c, image: i}]}
";

    fn batch(text: &str) -> Batch {
        let parsed = parse(text, &Arc::from(Path::new("test.yaml")));
        assert!(parsed.findings.is_empty(), "{:#?}", parsed.findings);
        Batch { upserted: parsed.objects.into_iter().map(Arc::new).collect(), ..Batch::default() }
    }

    #[test]
    fn knows_the_pods_that_run_on_this_node() {
        let mut catalog = Catalog::new("node-1");
        catalog.apply(&batch(MANIFESTS));
        let names: Vec<_> = catalog.pods().map(|pod| pod.name.as_str()).collect();
        assert_eq!(names, ["reviews"]);
        let reviews = catalog.find("books", "reviews", Some("u-1")).expect("known");
        assert_eq!(reviews.ips.len(), 2);
        assert_eq!(reviews.service_account, "reviews");
        assert_eq!(reviews.netns().expect("annotated"), Path::new("/run/x"));
        assert_eq!(catalog.verdict(reviews), Verdict::Captured);
        assert!(catalog.find("books", "reviews", Some("another")).is_none());
        assert!(catalog.find("books", "elsewhere", None).is_none());
    }

    #[test]
    fn follows_labels_and_removals() {
        let mut catalog = Catalog::new("node-1");
        catalog.apply(&batch(MANIFESTS));
        catalog.apply(&batch("apiVersion: v1\nkind: Namespace\nmetadata: {name: books}\n"));
        let reviews = catalog.find("books", "reviews", None).expect("known").clone();
        assert!(matches!(catalog.verdict(&reviews), Verdict::Left(_)));
        let removed = batch(MANIFESTS).upserted.iter().map(|object| object.key()).collect();
        catalog.apply(&Batch { removed, ..Batch::default() });
        assert_eq!(catalog.pods().count(), 0);
    }
}
