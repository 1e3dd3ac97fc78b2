//! What the world writes for others: Services with their addresses, EndpointSlices, Nodes, what nodes make of them; and
//! the wait for it to be in force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::{Message, Network, World, Written, phase};
use crate::local::clock::now;
use crate::local::converge::{self, Expected};
use crate::local::dns::Zone;
use crate::local::links::has_ipv6;
use crate::local::manifests::{Manifests, ObjectName};
use crate::local::nodes::Node;
use crate::local::{addresses, components, pods, rules, services};

/// A wait for what is written to be in force.
pub(super) struct Converging {
    pub(super) round: u64,
    expected: Vec<Expected>,
    pub(super) missing: Option<String>,
    task: tokio::task::AbortHandle,
}

impl Drop for Converging {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl World {
    /// Service objects with addresses, EndpointSlices, and what nodes make of them.
    pub(super) fn publish_services(&mut self, manifests: &Manifests) {
        let (filled, problems) = self.services.fill(&manifests.services);
        let pods: Vec<&Pod> = self.pods.values().map(|entry| &entry.pod).collect();
        let mut slices: BTreeMap<ObjectName, Vec<EndpointSlice>> = BTreeMap::new();
        let mut wanted: Written = BTreeMap::new();
        for (name, service) in &filled {
            insert(&mut wanted, "Service", name.clone(), service);
            for slice in services::endpoint_slices(name, service, &pods) {
                let slice_name = slice.metadata.name.clone().unwrap_or_default();
                let key = ObjectName { namespace: name.namespace.clone(), name: slice_name };
                insert(&mut wanted, "EndpointSlice", key, &slice);
                slices.entry(name.clone()).or_default().push(slice);
            }
        }
        for (kind, name, object) in &manifests.made {
            wanted.insert((kind, name.clone()), object.clone());
        }
        for (name, slice) in &manifests.endpoint_slices {
            let labels = slice.metadata.labels.as_ref();
            let Some(service) = labels.and_then(|labels| labels.get(services::SERVICE_LABEL)) else {
                continue;
            };
            let key = ObjectName { namespace: name.namespace.clone(), name: service.clone() };
            slices.entry(key).or_default().push(slice.clone());
        }
        self.stamp(&mut wanted);
        self.write_changes(wanted);
        self.publish_network(&filled, &slices);
        for problem in problems {
            if self.noted.insert(problem.clone()) {
                self.events.stuck(problem);
            }
        }
    }

    /// Notes on every object when it came to be.
    fn stamp(&mut self, wanted: &mut Written) {
        self.created.retain(|key, _| wanted.contains_key(key));
        for (key, object) in wanted {
            let created = self.created.entry(key.clone()).or_insert_with(now);
            if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                meta.entry("creationTimestamp").or_insert_with(|| json!(created));
            }
        }
    }

    fn publish_network(
        &mut self,
        services: &BTreeMap<ObjectName, Service>,
        slices: &BTreeMap<ObjectName, Vec<EndpointSlice>>,
    ) {
        let (forwards, zone) = (rules::forwards(services, slices), Zone::new(services, slices));
        self.network.send_if_modified(|current| {
            let changed = *current.forwards != forwards || *current.zone != zone;
            if changed {
                *current = Network { forwards: Arc::new(forwards), zone: Arc::new(zone) };
            }
            changed
        });
    }

    fn write_changes(&mut self, wanted: Written) {
        for ((kind, name), object) in &wanted {
            if self.written.get(&(*kind, name.clone())) == Some(object) {
                continue;
            }
            if let Err(error) = self.store.write(object) {
                self.events.note(format!("{kind} {name} cannot be written: {error}"));
            }
        }
        for (kind, name) in self.written.keys().filter(|key| !wanted.contains_key(*key)) {
            if let Err(error) = self.store.remove(kind, &name.namespace, &name.name) {
                self.events.note(format!("{kind} {name} cannot be removed: {error}"));
            }
        }
        self.written = wanted;
    }

    pub(super) fn write_node(&mut self, node: &Node) {
        let pair = node.addresses;
        let (v4, v6) = addresses::pod_range(node.number);
        let mut addresses = vec![json!({"type": "InternalIP", "address": pair.v4})];
        let mut ranges = vec![format!("{}/{}", v4.0, v4.1)];
        if has_ipv6() {
            addresses.push(json!({"type": "InternalIP", "address": pair.v6}));
            ranges.push(format!("{}/{}", v6.0, v6.1));
        }
        addresses.push(json!({"type": "Hostname", "address": node.name}));
        let object = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": node.name, "uid": format!("node-{}", node.number),
                "creationTimestamp": now(),
                "labels": {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux"},
            },
            "spec": {"podCIDR": ranges[0], "podCIDRs": ranges},
            "status": {
                "addresses": addresses,
                "conditions": [{"type": "Ready", "status": "True", "reason": "LateenUp"}],
                "nodeInfo": {"kubeletVersion": env!("CARGO_PKG_VERSION")},
            },
        });
        if let Err(error) = self.store.write(&object) {
            self.events.note(format!("Node {} cannot be written: {error}", node.name));
        }
    }

    /// Once all is ready, waits for what is written to be in force; starts again when something else is written.
    pub(super) fn converge(&mut self, manifests: &Manifests) {
        if self.up || !components::has_agents() {
            return;
        }
        if !self.read_once || !self.unsettled().is_empty() {
            self.converging = None;
            return;
        }
        let expected = self.expected(manifests);
        if self.converging.as_ref().is_some_and(|current| current.expected == expected) {
            return;
        }
        let round = self.converging.as_ref().map_or(0, |current| current.round + 1);
        let nodes: BTreeSet<String> = self.nodes.iter().map(|node| node.name.clone()).collect();
        let (admin, to_self, wanted) =
            (components::ctrl_admin(&self.host.dir), self.to_self.clone(), expected.clone());
        let task = tokio::spawn(async move {
            let tell = |missing| {
                // The world is busy: the next thing that is missing will be told.
                let _ = to_self.try_send(Message::Converged { round, missing: Some(missing) });
            };
            converge::wait(&admin, &nodes, &wanted, tell).await;
            let _ = to_self.send(Message::Converged { round, missing: None }).await;
        });
        let missing = Some("ctrl has not been asked yet".to_owned());
        self.converging = Some(Converging { round, expected, missing, task: task.abort_handle() });
    }

    /// What ctrl must have read and the proxies acknowledged.
    fn expected(&self, manifests: &Manifests) -> Vec<Expected> {
        let written = self.written.iter().map(|((kind, _), object)| Expected::of(kind, object, false));
        let pods = self.pods.values().filter(|entry| !entry.leaving).map(|entry| {
            let labels = manifests.namespaces.get(&entry.owner.namespace);
            let runs = phase(&entry.pod) == "Running";
            let captured = runs && pods::must_be_captured(&entry.pod, labels);
            Expected::of("Pod", &serde_json::to_value(&entry.pod).unwrap_or_default(), captured)
        });
        written.chain(pods).collect()
    }
}

fn insert(wanted: &mut Written, kind: &'static str, name: ObjectName, object: &impl serde::Serialize) {
    // These types come from JSON and go back to it.
    wanted.insert((kind, name), serde_json::to_value(object).unwrap_or_default());
}
