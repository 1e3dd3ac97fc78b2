//! What there is: every object by its key, the facts that the mesh needs of each, and how they join. Synchronous;
//! applying a batch says which results may differ now, so that the work that follows is in proportion to the change.
//!
//! ```text
//!   Pod ──labels──► Service (selector), AuthorizationPolicy, PeerAuthentication (selector)
//!    ▲ ▲
//!    │ └─node── Node (locality)
//!    └──target, address── EndpointSlice ──label──► Service
//! ```
//!
//! What is known at the end does not depend on the order in which it came.

mod bindings;
mod changes;
mod claims;
pub mod facts;
mod labels;
mod peer;
mod pods;
mod policies;
mod services;
mod sets;
mod slices;
mod waypoints;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use manifest::{Key, Object};
use model::address::Str;
use model::workload::Locality;

pub use self::bindings::{Binding, Bound, By, Target, Why};
pub use self::changes::{Changes, Kept};
pub use self::claims::{Claim, Lost};
use self::facts::{PeerRule, Pod, Service, Slice, Waypoint};
use self::peer::PeerRules;
pub use self::peer::Strictness;
use self::pods::Pods;
use self::policies::Policies;
use self::services::Services;
use self::slices::Slices;
use self::waypoints::Waypoints;

/// A namespace and a name in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The namespace.
    pub namespace: Str,
    /// The name.
    pub name: Str,
}

impl Name {
    /// Of its two parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub(crate) fn of(key: &Key) -> Self {
        Self::new(key.namespace.as_deref().unwrap_or_default(), &key.name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

const SECURITY: &str = "security.istio.io";
const NETWORKING: &str = "networking.istio.io";

/// All objects, and how they join.
#[derive(Debug)]
pub struct Index {
    root_namespace: Str,
    /// Where the mesh writes objects of its own.
    own: Option<Arc<Path>>,
    /// The ranges of the mesh's services and of its pods, as far as somebody says.
    service_ranges: Vec<IpNet>,
    pod_ranges: Vec<IpNet>,
    objects: BTreeMap<Key, Arc<Object>>,
    nodes: BTreeMap<Str, Locality>,
    pods: Pods,
    services: Services,
    slices: Slices,
    policies: Policies,
    peer_rules: PeerRules,
    waypoints: Waypoints,
    /// The waypoint that services go by, as far as what follows from it is done.
    bound: BTreeMap<Name, Name>,
}

impl Index {
    /// Nothing yet. Policies of `root_namespace` are for all namespaces.
    pub fn new(root_namespace: Str) -> Self {
        Self {
            peer_rules: PeerRules::new(root_namespace.clone()),
            policies: Policies::new(root_namespace.clone()),
            root_namespace,
            own: None,
            service_ranges: Vec::new(),
            pod_ranges: Vec::new(),
            objects: BTreeMap::new(),
            nodes: BTreeMap::new(),
            pods: Pods::default(),
            services: Services::default(),
            slices: Slices::default(),
            waypoints: Waypoints::default(),
            bound: BTreeMap::new(),
        }
    }

    /// Waypoints that have been ready before a restart, by their Gateways as they were: bindings to them are in force.
    pub fn remember(&mut self, gateways: &[Object]) {
        for object in gateways {
            if let Some(waypoint) = Waypoint::of(Name::of(&object.key()), object) {
                self.waypoints.note_ready(Arc::new(waypoint));
            }
        }
    }

    /// The same; the mesh writes objects of its own into this folder.
    #[must_use]
    pub fn with_objects(self, own: Option<Arc<Path>>) -> Self {
        Self { own, ..self }
    }

    /// The same; these are the ranges of the mesh's services and of its pods.
    #[must_use]
    pub fn with_ranges(self, service_ranges: Vec<IpNet>, pod_ranges: Vec<IpNet>) -> Self {
        Self { service_ranges, pod_ranges, ..self }
    }

    /// Whether an endpoint is a pod: by its name, also of one that is to come, or by the address of one that is known.
    pub fn is_pod(&self, endpoint: &facts::Endpoint) -> bool {
        endpoint.pod.is_some() || endpoint.addresses.iter().any(|ip| self.pods_at(*ip).next().is_some())
    }

    /// The namespace whose policies are for all.
    pub fn root_namespace(&self) -> &Str {
        &self.root_namespace
    }

    /// Every object, by key.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// A waypoint's Gateway.
    pub fn gateway_object(&self, name: &Name) -> Option<&Arc<Object>> {
        let group = "gateway.networking.k8s.io".to_owned();
        let namespace = Some(name.namespace.to_string());
        self.objects.get(&Key { group, kind: "Gateway".to_owned(), namespace, name: name.name.to_string() })
    }

    /// The objects of a kind, by namespace and name.
    pub fn objects_of<'a>(&'a self, group: &'a str, kind: &'a str) -> impl Iterator<Item = &'a Arc<Object>> {
        let first =
            Key { group: group.to_owned(), kind: kind.to_owned(), namespace: None, name: String::new() };
        let all = self.objects.range(first..);
        all.take_while(move |(key, _)| key.group == group && key.kind == kind).map(|(_, object)| object)
    }

    /// An object.
    pub fn object(&self, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// A Pod's object.
    pub fn pod_object(&self, name: &Name) -> Option<&Arc<Object>> {
        let (group, kind) = (String::new(), "Pod".to_owned());
        let namespace = Some(name.namespace.to_string());
        self.objects.get(&Key { group, kind, namespace, name: name.name.to_string() })
    }

    /// An EndpointSlice's object.
    pub fn slice_object(&self, name: &Name) -> Option<&Arc<Object>> {
        let (group, kind) = ("discovery.k8s.io".to_owned(), "EndpointSlice".to_owned());
        let namespace = Some(name.namespace.to_string());
        self.objects.get(&Key { group, kind, namespace, name: name.name.to_string() })
    }

    /// An AuthorizationPolicy's object.
    pub fn policy_object(&self, name: &Name) -> Option<&Arc<Object>> {
        self.objects.get(&policy_key("AuthorizationPolicy", name))
    }

    /// A VirtualService's object.
    pub fn virtual_service_object(&self, name: &Name) -> Option<&Arc<Object>> {
        self.networking_object("VirtualService", name)
    }

    /// A DestinationRule's object.
    pub fn destination_rule_object(&self, name: &Name) -> Option<&Arc<Object>> {
        self.networking_object("DestinationRule", name)
    }

    fn networking_object(&self, kind: &str, name: &Name) -> Option<&Arc<Object>> {
        let (group, kind) = (NETWORKING.to_owned(), kind.to_owned());
        let namespace = Some(name.namespace.to_string());
        self.objects.get(&Key { group, kind, namespace, name: name.name.to_string() })
    }

    /// A Service's object.
    pub fn service_object(&self, name: &Name) -> Option<&Arc<Object>> {
        let (group, kind) = (String::new(), "Service".to_owned());
        let namespace = Some(name.namespace.to_string());
        self.objects.get(&Key { group, kind, namespace, name: name.name.to_string() })
    }

    /// A pod.
    pub fn pod(&self, name: &Name) -> Option<&Arc<Pod>> {
        self.pods.get(name)
    }

    /// Whether a pod of that account is on a node and has not ended.
    pub fn runs_on(&self, node: &str, namespace: &str, account: &str) -> bool {
        self.pods.runs_on(node, namespace, account)
    }

    /// The locality of a node; empty where it is not known.
    pub fn locality(&self, node: &str) -> Locality {
        self.nodes.get(node).cloned().unwrap_or_default()
    }

    /// The revision that a namespace names by its label.
    pub fn revision_of(&self, namespace: &str) -> Option<&str> {
        let labels = &self.waypoints.namespace(namespace)?.labels;
        labels.get(facts::REVISION).map(String::as_str).filter(|named| !named.is_empty())
    }

    /// A service.
    pub fn service(&self, name: &Name) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// How many services there are.
    pub fn service_count(&self) -> usize {
        self.services.len()
    }

    /// The services of a pod's namespace whose selector matches it, by name.
    pub fn services_selecting(&self, pod: &Pod) -> Vec<&Arc<Service>> {
        self.services.selecting(pod)
    }

    /// A slice.
    pub fn slice(&self, name: &Name) -> Option<&Arc<Slice>> {
        self.slices.get(name)
    }

    /// The service that a slice counts for.
    pub fn service_of(&self, slice: &Slice) -> Option<&Arc<Service>> {
        let service = self.services.get(slice.service.as_ref()?)?;
        (service.selector.is_empty() || !slice.by_selector).then_some(service)
    }

    /// The slices that have an endpoint that is this pod.
    pub fn slices_about(&self, pod: &Pod) -> Vec<&Arc<Slice>> {
        let own = if pod.host_network { Vec::new() } else { self.addresses_of_pod(pod) };
        let mut names: Vec<Name> = self.slices.about(&pod.name, &own).collect();
        names.sort();
        names.dedup();
        names.iter().filter_map(|name| self.slices.get(name)).collect()
    }

    /// The AuthorizationPolicies whose selector matches a pod, by name.
    pub fn policies_selecting(&self, pod: &Pod) -> Vec<Name> {
        self.policies.selecting(&pod.name.namespace, &pod.labels)
    }

    /// How many pods a policy of that selector is for.
    pub fn pods_selected(&self, policy: &Name) -> usize {
        let namespace = (*policy.namespace != *self.root_namespace).then_some(&policy.namespace);
        match self.policies.selector(policy) {
            Some(selector) => self.pods.selected(namespace, selector).count(),
            None => self.pods.in_namespace(namespace).count(),
        }
    }

    /// A PeerAuthentication.
    pub fn peer_rule(&self, name: &Name) -> Option<&PeerRule> {
        self.peer_rules.get(name)
    }

    /// What a PeerAuthentication with a selector means for those it selects.
    pub fn strictness(&self, name: &Name) -> Option<Strictness> {
        self.peer_rules.strictness(name)
    }

    /// What the PeerAuthentications say of workloads of a namespace with these labels, and which of those with a
    /// selector says it.
    pub fn strictness_for(
        &self,
        namespace: &Str,
        labels: &BTreeMap<String, String>,
    ) -> (Strictness, Option<Name>) {
        self.peer_rules.strictness_for(namespace, labels)
    }

    /// The one that takes precedence where two PeerAuthentications are for the same workloads, if it is not this.
    pub fn peer_rule_before(&self, name: &Name) -> Option<Name> {
        self.peer_rules.before(name)
    }
}

/// The key of a policy of this name.
fn policy_key(kind: &str, name: &Name) -> Key {
    Key {
        group: "security.istio.io".to_owned(),
        kind: kind.to_owned(),
        namespace: Some(name.namespace.to_string()),
        name: name.name.to_string(),
    }
}
