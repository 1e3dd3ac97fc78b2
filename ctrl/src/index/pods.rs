//! Pods by name, label, node, address and account.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use model::address::Str;

use super::Name;
use super::facts::Pod;
use super::labels::{self, Labels};
use super::sets::{put, take};

#[derive(Debug, Default)]
pub(super) struct Pods {
    pods: BTreeMap<Name, Arc<Pod>>,
    by_label: HashMap<(String, String), BTreeSet<Name>>,
    by_node: HashMap<Str, BTreeSet<Name>>,
    by_address: HashMap<IpAddr, BTreeSet<Name>>,
    /// How many that have not ended and have an identity, by node, namespace and account.
    running: HashMap<(Str, Str, Str), usize>,
}

impl Pods {
    pub(super) fn get(&self, name: &Name) -> Option<&Arc<Pod>> {
        self.pods.get(name)
    }

    pub(super) fn set(&mut self, name: &Name, pod: Option<Arc<Pod>>) {
        if let Some(old) = self.pods.remove(name) {
            self.forget(&old);
        }
        if let Some(pod) = pod {
            self.note(&pod);
            self.pods.insert(name.clone(), pod);
        }
    }

    fn note(&mut self, pod: &Pod) {
        for (key, value) in &pod.labels {
            put(&mut self.by_label, (key.clone(), value.clone()), &pod.name);
        }
        put(&mut self.by_node, pod.node.clone(), &pod.name);
        for ip in own_addresses(pod) {
            put(&mut self.by_address, *ip, &pod.name);
        }
        if has_identity(pod) {
            *self.running.entry(place(pod)).or_default() += 1;
        }
    }

    fn forget(&mut self, pod: &Pod) {
        for (key, value) in &pod.labels {
            take(&mut self.by_label, &(key.clone(), value.clone()), &pod.name);
        }
        take(&mut self.by_node, &pod.node, &pod.name);
        for ip in own_addresses(pod) {
            take(&mut self.by_address, ip, &pod.name);
        }
        if has_identity(pod)
            && let Some(count) = self.running.get_mut(&place(pod))
        {
            *count -= 1;
            if *count == 0 {
                self.running.remove(&place(pod));
            }
        }
    }

    pub(super) fn on_node(&self, node: &str) -> impl Iterator<Item = Name> {
        self.by_node.get(node).into_iter().flatten().cloned()
    }

    /// The pods that have an address of their own; more than one only while one follows the other.
    pub(super) fn at(&self, ip: IpAddr) -> impl Iterator<Item = Name> {
        self.by_address.get(&ip).into_iter().flatten().cloned()
    }

    pub(super) fn runs_on(&self, node: &str, namespace: &str, account: &str) -> bool {
        self.running.contains_key(&(node.into(), namespace.into(), account.into()))
    }

    /// Those of a namespace, or all.
    pub(super) fn in_namespace<'a>(&'a self, namespace: Option<&'a Str>) -> impl Iterator<Item = Name> + 'a {
        let inside = move |name: &&Name| namespace.is_none_or(|namespace| name.namespace == *namespace);
        self.pods.range(from(namespace)).map(|(name, _)| name).take_while(inside).cloned()
    }

    /// Those of a namespace, or of all, whose labels a selector that is not empty matches.
    pub(super) fn selected<'a>(
        &'a self,
        namespace: Option<&'a Str>,
        selector: &'a Labels,
    ) -> impl Iterator<Item = Name> + 'a {
        let first = selector.first_key_value().map(|(key, value)| (key.clone(), value.clone()));
        let names = first.and_then(|first| self.by_label.get(&first));
        let inside = move |name: &&Name| namespace.is_none_or(|namespace| name.namespace == *namespace);
        let matches =
            |name: &&Name| self.pods.get(*name).is_some_and(|pod| labels::matches(selector, &pod.labels));
        let range = names.into_iter().flat_map(move |names| names.range(from(namespace)));
        range.take_while(inside).filter(matches).cloned()
    }
}

fn from(namespace: Option<&Str>) -> (Bound<Name>, Bound<Name>) {
    let start = namespace.map_or(Bound::Unbounded, |namespace| Bound::Included(Name::new(namespace, "")));
    (start, Bound::Unbounded)
}

/// The addresses that mean this pod and no other: not those of its node, nor what an ended pod had.
pub(super) fn own_addresses(pod: &Pod) -> &[IpAddr] {
    if pod.host_network || pod.ended { &[] } else { &pod.addresses }
}

/// Whether its node may ask for a certificate in its name.
fn has_identity(pod: &Pod) -> bool {
    !pod.ended && !pod.mirror
}

fn place(pod: &Pod) -> (Str, Str, Str) {
    (pod.node.clone(), pod.name.namespace.clone(), pod.account.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(annotations: &Value, phase: &str) -> Arc<Pod> {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "bank", "annotations": annotations},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"phase": phase, "podIP": "10.0.0.1"},
        });
        Arc::new(Pod::of(Name::new("bank", "p"), &serde_json::from_value(pod).unwrap()))
    }

    /// A kubelet may make images of its own pods in every namespace, without an account: they must not give its node the
    /// identity of every namespace's `default`.
    #[test]
    fn the_image_of_a_nodes_own_pod_gives_its_node_no_identity() {
        let mirror = json!({"kubernetes.io/config.mirror": "0123", "kubernetes.io/config.source": "file"});
        let mut pods = Pods::default();
        let name = Name::new("bank", "p");
        for (annotations, phase, identity) in [
            (&json!({}), "Running", true),
            (&mirror, "Running", false),
            (&json!({"kubernetes.io/config.source": "api"}), "Pending", true),
            (&json!({}), "Succeeded", false),
            (&mirror, "Failed", false),
        ] {
            pods.set(&name, Some(pod(annotations, phase)));
            assert_eq!(pods.runs_on("n1", "bank", "default"), identity, "{annotations} {phase}");
            assert_eq!(pods.on_node("n1").count(), 1);
        }
        pods.set(&name, None);
        assert!(pods.running.is_empty());
    }
}
