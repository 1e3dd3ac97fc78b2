//! What this node's redirecting role knows of the cluster: its own pods and the labels of namespaces. Fed by an
//! adapter ([`super::source`]), read by the reconciler and the CNI endpoint.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use manifest::enrolment::{MODE, Names};
use manifest::{Batch, Key, Object, Typed};

use super::eligible::{PodFacts, Verdict};

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
            ("", "Pod", Some(namespace)) => self.remove_pod(namespace, &key.name),
            ("", "Namespace", _) => self.remove_namespace(&key.name),
            _ => {}
        }
    }

    fn upsert(&mut self, object: &Object) {
        let metadata = &object.metadata;
        match &object.spec {
            Typed::Pod(pod) => self.set_pod(facts(pod)),
            Typed::Namespace(_) => self.set_namespace(metadata.name.clone(), metadata.labels.clone()),
            _ => {}
        }
    }

    /// A pod as it is now; one of another node, or without a uid, is none of this catalog's.
    pub fn set_pod(&mut self, facts: PodFacts) {
        let key = (facts.namespace.clone(), facts.name.clone());
        if facts.node == self.node && !facts.uid.is_empty() {
            self.pods.insert(key, facts);
        } else {
            self.pods.remove(&key);
        }
    }

    /// A pod is gone.
    pub fn remove_pod(&mut self, namespace: &str, name: &str) {
        self.pods.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// These are all pods there are.
    pub fn set_pods(&mut self, all: impl IntoIterator<Item = PodFacts>) {
        self.pods.clear();
        for facts in all {
            self.set_pod(facts);
        }
    }

    /// A namespace as it is labelled now.
    pub fn set_namespace(&mut self, name: String, labels: Names) {
        self.namespaces.insert(name, labels);
    }

    /// A namespace is gone.
    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// These are all namespaces there are.
    pub fn set_namespaces(&mut self, all: BTreeMap<String, Names>) {
        self.namespaces = all;
    }

    /// Namespaces whose pods are no part of the mesh, as far as can be told without looking at each pod: they have no
    /// label that enrols, and none of their pods on this node has one of its own.
    #[must_use]
    pub fn namespaces_apart(&self) -> BTreeSet<String> {
        let labelled = |labels: &Names| labels.get(MODE).is_some_and(|mode| mode == "ambient");
        let mixed: BTreeSet<&str> =
            self.pods().filter(|pod| labelled(&pod.labels)).map(|pod| pod.namespace.as_str()).collect();
        let apart = self
            .namespaces
            .iter()
            .filter(|(name, labels)| !labelled(labels) && !mixed.contains(name.as_str()));
        apart.map(|(name, _)| name.clone()).collect()
    }

    /// The node's pods.
    pub fn pods(&self) -> impl Iterator<Item = &PodFacts> {
        self.pods.values()
    }

    /// The pod of this name; with a uid, only that one: a CNI call may come before the news of a pod's successor.
    #[must_use]
    pub fn find(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<&PodFacts> {
        let found = self.pods.get(&(namespace.to_owned(), name.to_owned()))?;
        uid.is_none_or(|uid| uid == found.uid || uid == found.runtime_uid()).then_some(found)
    }

    /// Whether a pod is to be captured.
    #[must_use]
    pub fn verdict(&self, pod: &PodFacts) -> Verdict {
        static NONE: Names = Names::new();
        pod.verdict(self.namespaces.get(&pod.namespace).unwrap_or(&NONE))
    }
}

/// What matters of a Pod object.
#[must_use]
pub fn facts(pod: &Pod) -> PodFacts {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let ips = status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    let account = spec.and_then(|spec| spec.service_account_name.clone()).filter(|name| !name.is_empty());
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    PodFacts {
        uid: text(&metadata.uid),
        name: text(&metadata.name),
        namespace: metadata.namespace.clone().unwrap_or_else(|| "default".into()),
        service_account: account.unwrap_or_else(|| "default".into()),
        node: spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        ips: ips.filter_map(|ip| ip.ip.parse().ok()).collect(),
        labels: metadata.labels.clone().unwrap_or_default(),
        annotations: metadata.annotations.clone().unwrap_or_default(),
        host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
        phase: status.and_then(|status| status.phase.clone()).unwrap_or_default(),
        probed: probed(pod),
    }
}

/// The ports that a kubelet calls by itself: of probes and of hooks of every container that has them.
fn probed(pod: &Pod) -> BTreeSet<u16> {
    let Some(spec) = &pod.spec else { return BTreeSet::new() };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    containers.flat_map(|container| called(container).filter_map(|port| number(&port, container))).collect()
}

fn called(container: &Container) -> impl Iterator<Item = IntOrString> {
    let probes = [&container.startup_probe, &container.readiness_probe, &container.liveness_probe];
    let lifecycle = container.lifecycle.as_ref();
    let hooks = lifecycle.into_iter().flat_map(|lifecycle| [&lifecycle.post_start, &lifecycle.pre_stop]);
    let hooks = hooks.flatten().filter_map(|hook| hook.http_get.as_ref()).map(|get| get.port.clone());
    probes.into_iter().flatten().filter_map(port_of).chain(hooks)
}

fn port_of(probe: &Probe) -> Option<IntOrString> {
    let http = probe.http_get.as_ref().map(|get| get.port.clone());
    let tcp = || probe.tcp_socket.as_ref().map(|socket| socket.port.clone());
    http.or_else(tcp).or_else(|| probe.grpc.as_ref().map(|grpc| IntOrString::Int(grpc.port)))
}

/// A port's number; a name is one of the container's own ports.
fn number(port: &IntOrString, container: &Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port);
            named.or_else(|| name.parse().ok())?
        }
    };
    u16::try_from(number).ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use manifest::{Batch, parse};

    use super::{Catalog, facts};
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
    fn knows_what_a_kubelet_calls() {
        let pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {
                "initContainers": [{"name": "i", "startupProbe": {"grpc": {"port": 9000}}}],
                "containers": [{
                    "name": "c", "ports": [{"name": "web", "containerPort": 8080}],
                    "readinessProbe": {"httpGet": {"port": "web"}},
                    "livenessProbe": {"tcpSocket": {"port": "7000"}},
                    "lifecycle": {"preStop": {"httpGet": {"port": 8081}}, "postStart": {"exec": {"command": ["x"]}}},
                }, {
                    "name": "d", "livenessProbe": {"exec": {"command": ["x"]}},
                    "readinessProbe": {"httpGet": {"port": "web"}},
                }],
            },
        }))
        .expect("a pod");
        assert_eq!(facts(&pod).probed, [7000, 8080, 8081, 9000].into());
    }

    #[test]
    fn tells_which_namespaces_are_apart() {
        let mut catalog = Catalog::new("node-1");
        catalog.apply(&batch(MANIFESTS));
        for (name, mode) in [("kube-system", ""), ("monitoring", ""), ("closed", "none")] {
            catalog
                .set_namespace(name.into(), [("istio.io/dataplane-mode".to_owned(), mode.to_owned())].into());
        }
        assert_eq!(
            catalog.namespaces_apart(),
            ["closed", "kube-system", "monitoring"].map(String::from).into()
        );
        catalog.apply(&batch(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: monitoring, uid: u-9, \
             labels: {istio.io/dataplane-mode: ambient}}\nspec: {nodeName: node-1, containers: [{name: c, image: i}]}\n",
        ));
        assert_eq!(catalog.namespaces_apart(), ["closed", "kube-system"].map(String::from).into());
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
