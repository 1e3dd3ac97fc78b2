//! What a batch changes: the facts of each object that came, went or became another, and what may be another result now.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use manifest::waypoint::CLASSES;
use manifest::{Batch, Key, Object, Typed};
use model::address::Str;
use model::traffic::health::ANNOTATION as HEALTH_CHECK;

use super::facts::{self, PeerRule, Pod, Service, Slice, Waypoint};
use super::waypoints::Namespace;
use super::{Index, NETWORKING, Name, SECURITY, pods};

/// What may have become another result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Workloads of pods.
    pub pods: BTreeSet<Name>,
    /// Services.
    pub services: BTreeSet<Name>,
    /// Workloads of EndpointSlices.
    pub slices: BTreeSet<Name>,
    /// AuthorizationPolicies.
    pub policies: BTreeSet<Name>,
    /// Policies made of PeerAuthentications.
    pub peer_rules: BTreeSet<Name>,
    /// VirtualServices.
    pub virtual_services: BTreeSet<Name>,
    /// DestinationRules.
    pub destination_rules: BTreeSet<Name>,
    /// What must outlive a restart.
    pub kept: Vec<Kept>,
}

impl Changes {
    /// Both.
    pub fn add(&mut self, other: Self) {
        self.pods.extend(other.pods);
        self.services.extend(other.services);
        self.slices.extend(other.slices);
        self.policies.extend(other.policies);
        self.peer_rules.extend(other.peer_rules);
        self.virtual_services.extend(other.virtual_services);
        self.destination_rules.extend(other.destination_rules);
        self.kept.extend(other.kept);
    }
}

/// What is to be known of a waypoint after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// It has been ready, and is as its object is now.
    Ready(Name),
    /// It is gone, and nobody asks for it.
    Gone(Name),
}

impl Index {
    /// Takes a batch into account, and says what may differ now.
    pub fn apply(&mut self, batch: &Batch) -> Changes {
        let mut changes = Changes::default();
        for key in &batch.removed {
            if let Some(old) = self.objects.remove(key) {
                self.change(key, Some(&old), None, &mut changes);
            }
        }
        for object in &batch.upserted {
            let key = object.key();
            let old = self.objects.insert(key.clone(), object.clone());
            self.change(&key, old.as_deref(), Some(object), &mut changes);
        }
        self.settle(&mut changes);
        changes
    }

    /// One object became another, is new or is gone. A kind may change in type: a policy may break.
    fn change(&mut self, key: &Key, old: Option<&Object>, new: Option<&Arc<Object>>, changes: &mut Changes) {
        let name = Name::of(key);
        match (key.group.as_str(), key.kind.as_str()) {
            ("", "Pod") => self.change_pod(&name, new, changes),
            ("", "Node") => self.change_node(&name.name, new, changes),
            ("", "Namespace") => self.change_namespace(&name.name, new, changes),
            ("", "ServiceAccount") => self.change_account(&name, new, changes),
            ("gateway.networking.k8s.io", "Gateway") => self.change_gateway(&name, new, changes),
            ("gateway.networking.k8s.io", "GatewayClass") => self.change_class(&name, new, changes),
            ("", "Service") => self.change_service(&name, new, changes),
            ("discovery.k8s.io", "EndpointSlice") => self.change_slice(&name, new, changes),
            ("security.istio.io", "AuthorizationPolicy") => self.change_policy(&name, old, new, changes),
            ("security.istio.io", "PeerAuthentication") => self.change_peer_rule(&name, new, changes),
            ("networking.istio.io", "VirtualService" | "DestinationRule") => {
                let same = |old: &Object, new: &Object| {
                    old.raw.get("spec") == new.raw.get("spec")
                        && old.annotation(HEALTH_CHECK) == new.annotation(HEALTH_CHECK)
                        && old.metadata.creation_timestamp == new.metadata.creation_timestamp
                        && matches!(old.spec, Typed::Broken) == matches!(new.spec, Typed::Broken)
                };
                if matches!((old, new), (Some(old), Some(new)) if same(old, new)) {
                    return;
                }
                match key.kind.as_str() {
                    "VirtualService" => changes.virtual_services.insert(name),
                    _ => changes.destination_rules.insert(name),
                };
            }
            _ => {}
        }
    }

    fn change_pod(&mut self, name: &Name, new: Option<&Arc<Object>>, changes: &mut Changes) {
        let new = new.and_then(|object| match &object.spec {
            Typed::Pod(pod) => Some(Arc::new(Pod::of(name.clone(), pod))),
            _ => None,
        });
        let old = self.pods.get(name).cloned();
        if old == new {
            return;
        }
        for pod in old.iter().chain(&new) {
            let own = if pod.host_network { &[][..] } else { &pod.addresses[..] };
            changes.slices.extend(self.slices.about(name, own));
            // Who claims a pod's address loses it, or has it again.
            changes.services.extend(self.claimants(pods::own_addresses(pod)));
        }
        // The accounts of its pods may decide by which waypoint a service goes.
        let joins = |pod: &Option<Arc<Pod>>| {
            pod.as_ref().map(|pod| (pod.account.clone(), pod.labels.clone(), pod.ended))
        };
        if self.has_waypoints() && joins(&old) != joins(&new) {
            for pod in old.iter().chain(&new) {
                let services = self.services_of(pod).into_iter().map(|service| service.name.clone());
                changes.services.extend(services);
            }
        }
        self.pods.set(name, new);
        changes.pods.insert(name.clone());
    }

    fn change_node(&mut self, name: &Str, new: Option<&Arc<Object>>, changes: &mut Changes) {
        let new = new.and_then(|object| match &object.spec {
            Typed::Node(node) => Some(facts::node_locality(node)),
            _ => None,
        });
        let old = match new.clone() {
            Some(new) => self.nodes.insert(name.clone(), new),
            None => self.nodes.remove(name),
        };
        if old.unwrap_or_default() != new.unwrap_or_default() {
            changes.pods.extend(self.pods.on_node(name));
            changes.slices.extend(self.slices.all());
        }
    }

    fn change_namespace(&mut self, name: &Str, new: Option<&Arc<Object>>, changes: &mut Changes) {
        let new = new.map(|object| Namespace {
            labels: object.metadata.labels.clone(),
            requires: facts::required(Some(&object.metadata.labels), Some(&object.metadata.annotations)),
        });
        if self.waypoints.set_namespace(name, new) {
            self.touch_namespace(name, changes);
        }
    }

    fn change_account(&mut self, name: &Name, new: Option<&Arc<Object>>, changes: &mut Changes) {
        let requires = new.is_some_and(|object| {
            facts::required(Some(&object.metadata.labels), Some(&object.metadata.annotations))
        });
        if self.waypoints.set_account(name, requires) {
            changes.pods.extend(self.pods.in_namespace(Some(&name.namespace)));
        }
    }

    fn change_gateway(&mut self, name: &Name, new: Option<&Arc<Object>>, changes: &mut Changes) {
        let new = new.and_then(|object| match &object.spec {
            // What was in force stays in force.
            Typed::Broken => self.waypoints.known(name).cloned(),
            _ => Waypoint::of(name.clone(), object).map(Arc::new),
        });
        if self.waypoints.get(name) == new.as_ref() {
            return;
        }
        if new.is_some() && self.waypoints.has_been_ready(name) {
            changes.kept.push(Kept::Ready(name.clone()));
        }
        self.waypoints.set(name, new);
        self.touch_waypoint(name, changes);
    }

    fn change_class(&mut self, name: &Name, new: Option<&Arc<Object>>, changes: &mut Changes) {
        let Some((class, _)) = CLASSES.iter().find(|(class, _)| *name.name == **class) else { return };
        let new = new.and_then(|object| facts::traffic(object));
        if self.waypoints.set_class(class, new) {
            let all: Vec<Name> = self.waypoints.there().map(|waypoint| waypoint.name.clone()).collect();
            all.iter().for_each(|name| self.touch_waypoint(name, changes));
        }
    }

    fn change_service(&mut self, name: &Name, new: Option<&Arc<Object>>, changes: &mut Changes) {
        let new = new.and_then(|object| match &object.spec {
            Typed::Service(service) => {
                let given = self.own.as_ref().is_some_and(|own| object.file().starts_with(own));
                Service::of(name.clone(), service).map(|of| {
                    let created = object.metadata.creation_timestamp.clone();
                    // What a file says that an address is, it says of pods as well.
                    let assigned = if object.is_from_api_server() { of.assigned.clone() } else { Vec::new() };
                    Arc::new(Service { created, given, assigned, ..of })
                })
            }
            _ => None,
        });
        let old = self.services.get(name).cloned();
        if old == new {
            return;
        }
        for service in old.iter().chain(&new) {
            changes.pods.extend(self.pods.selected(Some(&name.namespace), &service.selector));
        }
        for slice in self.slices.of_service(name) {
            changes.pods.extend(self.pods_of(slice));
            changes.slices.insert(slice.name.clone());
        }
        for service in old.iter().chain(&new) {
            changes.services.extend(self.claimants(&service.addresses));
            // What is a service's address is no endpoint, and no pod's.
            for slice in service.addresses.iter().flat_map(|ip| self.slices.at(*ip)) {
                changes.slices.insert(slice.name.clone());
                if self.has_waypoints() {
                    changes.services.extend(slice.service.clone());
                }
            }
            changes.pods.extend(service.assigned.iter().flat_map(|ip| self.pods.at(*ip)));
        }
        self.services.set(name, new);
        changes.services.insert(name.clone());
    }

    fn change_slice(&mut self, name: &Name, new: Option<&Arc<Object>>, changes: &mut Changes) {
        let new = new.and_then(|object| match &object.spec {
            Typed::EndpointSlice(slice) => Some(Arc::new(Slice::of(name.clone(), slice))),
            _ => None,
        });
        let old = self.slices.get(name).cloned();
        if old == new {
            return;
        }
        for slice in old.iter().chain(&new) {
            changes.pods.extend(self.pods_of(slice));
            if self.has_waypoints() && !slice.by_selector {
                changes.services.extend(slice.service.clone());
            }
        }
        self.slices.set(name, new);
        changes.slices.insert(name.clone());
    }

    fn change_policy(
        &mut self,
        name: &Name,
        old: Option<&Object>,
        new: Option<&Arc<Object>>,
        changes: &mut Changes,
    ) {
        let same = |old: &Object, new: &Object| {
            old.raw.get("spec") == new.raw.get("spec")
                && old.metadata.annotations == new.metadata.annotations
                && matches!(old.spec, Typed::Broken) == matches!(new.spec, Typed::Broken)
        };
        changes.policies.insert(name.clone());
        if let (Some(old), Some(new)) = (old, new)
            && same(old, new)
        {
            return;
        }
        let before = self.policies.selector(name).cloned();
        self.policies.set(name, new.and_then(|object| facts::policy_selector(object)));
        let namespace = (*name.namespace != *self.root_namespace).then_some(&name.namespace);
        for selector in before.iter().chain(self.policies.selector(name)) {
            changes.pods.extend(self.pods.selected(namespace, selector));
        }
    }

    fn change_peer_rule(&mut self, name: &Name, new: Option<&Arc<Object>>, changes: &mut Changes) {
        let new = new.map(|object| PeerRule::of(name.clone(), object));
        let old = self.peer_rules.get(name).cloned();
        if old == new {
            return;
        }
        changes.peer_rules.insert(name.clone());
        for rule in old.iter().chain(&new) {
            if !rule.selector.is_empty() {
                changes.pods.extend(self.pods.selected(Some(&name.namespace), &rule.selector));
                continue;
            }
            // What inherits from it: of its namespace, or of all.
            let namespace = (*name.namespace != *self.root_namespace).then_some(&name.namespace);
            changes.peer_rules.extend(self.peer_rules.in_namespace(namespace));
            changes.pods.extend(self.pods.in_namespace(namespace));
            changes.slices.extend(self.slices.in_namespace(namespace));
        }
        self.peer_rules.set(name, new);
    }

    /// The services that claim any of these addresses.
    fn claimants<'a>(&'a self, addresses: &'a [IpAddr]) -> impl Iterator<Item = Name> + 'a {
        let all = addresses.iter().flat_map(|ip| self.services.claiming(*ip));
        all.map(|service| service.name.clone())
    }

    /// The pods that a slice's endpoints are, by name or by address.
    pub(super) fn pods_of<'a>(&'a self, slice: &'a Slice) -> impl Iterator<Item = Name> + 'a {
        let named = slice.endpoints.iter().filter_map(|endpoint| endpoint.pod.clone());
        let unnamed = slice.endpoints.iter().filter(|endpoint| endpoint.pod.is_none());
        let at = unnamed.flat_map(|endpoint| &endpoint.addresses).flat_map(|ip| self.pods_at(*ip));
        named.chain(at)
    }

    /// Everything that is translated.
    pub fn everything(&self) -> Changes {
        let named = |group: &'static str, kind: &'static str| {
            let of_kind = move |key: &&Key| key.kind == kind && key.group == group;
            self.objects.keys().filter(of_kind).map(Name::of).collect()
        };
        Changes {
            pods: self.pods.in_namespace(None).collect(),
            services: self.services.all().map(|service| service.name.clone()).collect(),
            slices: self.slices.all().collect(),
            policies: named(SECURITY, "AuthorizationPolicy"),
            peer_rules: named(SECURITY, "PeerAuthentication"),
            virtual_services: named(NETWORKING, "VirtualService"),
            destination_rules: named(NETWORKING, "DestinationRule"),
            kept: Vec::new(),
        }
    }
}
