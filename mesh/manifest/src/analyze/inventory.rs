//! What there is: namespaces, workloads, accounts, services and waypoints, as the checks look them up.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use serde_json::Value;

use crate::{
    enrolment::{Enrolment, Names},
    istio::{DestinationRule, MutualTlsMode, PeerAuthentication, VirtualService, WorkloadSelector},
    network_policy::NetworkPolicy,
    object::{Object, Typed},
    waypoint::{self, Asked, FOR_ACCOUNT},
};

/// Something that makes pods, or a pod.
pub(super) struct Workload<'a> {
    pub(super) object: &'a Object,
    /// The pod, or the template of its pods.
    pub(super) pod: &'a Value,
    pub(super) namespace: &'a str,
    pub(super) labels: Names,
    annotations: Names,
    pub(super) account: &'a str,
    pub(super) host_network: bool,
}

pub(super) struct Inventory<'a> {
    pub(super) root_namespace: &'a str,
    pub(super) namespaces: HashMap<&'a str, &'a Object>,
    pub(super) workloads: Vec<Workload<'a>>,
    /// Namespace and name of every account that is declared or that a workload runs as.
    pub(super) accounts: HashSet<(&'a str, &'a str)>,
    /// Everything with a namespace, by kind, namespace and name.
    named: HashMap<(&'a str, &'a str, &'a str), &'a Object>,
    services: Vec<&'a Object>,
    virtual_services: Vec<(&'a Object, &'a VirtualService)>,
    /// With their namespaces.
    destination_rules: Vec<(&'a str, &'a DestinationRule)>,
    /// Namespace and account that a waypoint stands in front of.
    account_waypoints: HashSet<(&'a str, &'a str)>,
    /// The mode of a PeerAuthentication for a whole namespace.
    peer_modes: HashMap<&'a str, MutualTlsMode>,
    peer_rules: Vec<&'a Object>,
    /// With their namespaces.
    network_policies: Vec<(&'a str, &'a NetworkPolicy)>,
}

impl<'a> Inventory<'a> {
    pub(super) fn new(objects: &'a [Arc<Object>], root_namespace: &'a str) -> Self {
        let mut inventory = Self {
            root_namespace,
            namespaces: HashMap::new(),
            workloads: Vec::new(),
            accounts: HashSet::new(),
            named: HashMap::new(),
            services: Vec::new(),
            virtual_services: Vec::new(),
            destination_rules: Vec::new(),
            account_waypoints: HashSet::new(),
            peer_modes: HashMap::new(),
            peer_rules: Vec::new(),
            network_policies: Vec::new(),
        };
        for object in objects {
            inventory.add(object);
        }
        inventory
    }

    fn add(&mut self, object: &'a Object) {
        let name = object.metadata.name.as_str();
        let Some(namespace) = object.metadata.namespace.as_deref() else {
            if matches!(object.spec, Typed::Namespace(_)) {
                self.namespaces.insert(name, object);
            }
            return;
        };
        self.named.insert((object.kind.as_str(), namespace, name), object);
        match &object.spec {
            Typed::ServiceAccount(_) => {
                self.accounts.insert((namespace, name));
            }
            Typed::Service(_) => self.services.push(object),
            Typed::VirtualService(service) => self.virtual_services.push((object, service)),
            Typed::NetworkPolicy(policy) => self.network_policies.push((namespace, policy)),
            Typed::DestinationRule(rule) => self.destination_rules.push((namespace, rule)),
            Typed::PeerAuthentication(peer) => {
                self.peer_rules.push(object);
                let labels = peer.selector.as_ref().map(|selector| &selector.match_labels);
                if let Some(mtls) = peer.mtls.filter(|_| labels.is_none_or(|labels| labels.is_empty())) {
                    self.peer_modes.insert(namespace, mtls.mode);
                }
            }
            Typed::Gateway(gateway) if waypoint::listener(gateway).is_some() => {
                if let Some(account) = object.annotation(FOR_ACCOUNT) {
                    self.account_waypoints.insert((namespace, account));
                }
            }
            _ => {
                if let Some(workload) = workload(object, namespace) {
                    self.accounts.insert((namespace, workload.account));
                    self.workloads.push(workload);
                }
            }
        }
    }

    /// The workloads of a policy of `namespace` with this selector.
    pub(super) fn selected(
        &self,
        namespace: &str,
        selector: Option<&WorkloadSelector>,
    ) -> impl Iterator<Item = &Workload<'a>> {
        let everywhere = namespace == self.root_namespace;
        self.workloads
            .iter()
            .filter(move |workload| everywhere || workload.namespace == namespace)
            .filter(move |workload| selector.is_none_or(|selector| selector.matches(&workload.labels)))
    }

    /// Whether the files have anything of a kind.
    pub(super) fn has(&self, kind: &str) -> bool {
        self.named.keys().any(|(known, ..)| *known == kind)
    }

    /// Whether the files say what is in a namespace, so that what they do not say is not there.
    pub(super) fn describes(&self, namespace: &str) -> bool {
        self.workloads.iter().any(|workload| workload.namespace == namespace)
    }

    /// Whether every workload of a namespace refuses callers without an identity, unless it says otherwise.
    pub(super) fn is_strict(&self, namespace: &str) -> bool {
        let mode = |namespace| self.peer_modes.get(namespace).filter(|mode| **mode != MutualTlsMode::Unset);
        mode(namespace).or_else(|| mode(self.root_namespace)) == Some(&MutualTlsMode::Strict)
    }

    /// Whether pods are captured, as far as the files say.
    pub(super) fn is_enrolled(&self, workload: &Workload<'_>) -> bool {
        let namespace = self.namespaces.get(workload.namespace).copied();
        let none = Names::new();
        let pod = Enrolment {
            labels: &workload.labels,
            annotations: &workload.annotations,
            host_network: workload.host_network,
            namespace: namespace.map_or(&none, |namespace| &namespace.metadata.labels),
        };
        pod.refusal().is_none()
    }

    /// The NetworkPolicies for a workload's pods.
    pub(super) fn network_policies_of<'s>(
        &'s self,
        workload: &'s Workload<'_>,
    ) -> impl Iterator<Item = &'a NetworkPolicy> + 's {
        let own = self.network_policies.iter().filter(|(namespace, _)| *namespace == workload.namespace);
        own.map(|(_, policy)| *policy).filter(|policy| policy.selects(&workload.labels))
    }

    /// A PeerAuthentication before `object` that is for the same workloads.
    pub(super) fn peer_rule_like(&self, object: &Object, rule: &PeerAuthentication) -> Option<&'a Object> {
        let labels = |rule: &PeerAuthentication| rule.selector.clone().unwrap_or_default().match_labels;
        let others = self.peer_rules.iter().copied().take_while(|other| !std::ptr::eq(*other, object));
        others.filter(|other| other.metadata.namespace == object.metadata.namespace).find(
            |other| matches!(&other.spec, Typed::PeerAuthentication(other) if labels(other) == labels(rule)),
        )
    }

    /// The Services in front of a workload's pods.
    pub(super) fn services_of(&self, workload: &Workload<'_>) -> impl Iterator<Item = &'a Object> {
        let own = |service: &&Object| service.metadata.namespace.as_deref() == Some(workload.namespace);
        self.services.iter().copied().filter(own).filter(|service| service_selects(service, &workload.labels))
    }

    /// The VirtualServices.
    pub(super) fn virtual_services(&self) -> impl Iterator<Item = (&'a Object, &'a VirtualService)> {
        self.virtual_services.iter().copied()
    }

    /// The workloads behind a Service, as far as the files say.
    pub(super) fn pods_of<'s>(&'s self, service: &'s Object) -> impl Iterator<Item = &'s Workload<'a>> {
        let own =
            |workload: &&Workload<'a>| service.metadata.namespace.as_deref() == Some(workload.namespace);
        self.workloads.iter().filter(own).filter(|workload| service_selects(service, &workload.labels))
    }

    /// The DestinationRules, with their namespaces.
    pub(super) fn destination_rules(&self) -> impl Iterator<Item = (&'a str, &'a DestinationRule)> {
        self.destination_rules.iter().copied()
    }

    /// The object of this kind, namespace and name.
    pub(super) fn named(&self, kind: &str, namespace: &str, name: &str) -> Option<&'a Object> {
        self.named.get(&(kind, namespace, name)).copied()
    }

    /// Whether some waypoint stands in front of `workload`: its own, its account's, a service's or its
    /// namespace's.
    pub(super) fn has_waypoint(&self, workload: &Workload<'_>) -> bool {
        let namespace = self.namespaces.get(workload.namespace).copied();
        let asks = |labels: &BTreeMap<String, String>| {
            matches!(waypoint::asked(labels, workload.namespace), Some(Asked::For { .. }))
        };
        let own = waypoint::asked(&workload.labels, workload.namespace);
        asks(&workload.labels)
            || self.services_of(workload).any(|service| asks(&service.metadata.labels))
            || self.account_waypoints.contains(&(workload.namespace, workload.account))
            || (own.is_none() && namespace.is_some_and(|namespace| asks(&namespace.metadata.labels)))
    }
}

fn service_selects(service: &Object, labels: &BTreeMap<String, String>) -> bool {
    let selector = service.raw.pointer("/spec/selector").and_then(Value::as_object);
    selector.is_some_and(|selector| {
        !selector.is_empty()
            && selector.iter().all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str())
    })
}

fn workload<'a>(object: &'a Object, namespace: &'a str) -> Option<Workload<'a>> {
    let pod = match &object.spec {
        Typed::Pod(_) => &object.raw,
        Typed::CronJob(_) => object.raw.pointer("/spec/jobTemplate/spec/template")?,
        Typed::Deployment(_)
        | Typed::ReplicaSet(_)
        | Typed::StatefulSet(_)
        | Typed::DaemonSet(_)
        | Typed::Job(_) => object.raw.pointer("/spec/template")?,
        _ => return None,
    };
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    let names = |pointer: &str| {
        let names = pod.pointer(pointer).and_then(Value::as_object);
        names.map(|names| names.iter().filter_map(text).collect()).unwrap_or_default()
    };
    let account = ["/spec/serviceAccountName", "/spec/serviceAccount"]
        .iter()
        .find_map(|pointer| pod.pointer(pointer)?.as_str().filter(|name| !name.is_empty()));
    Some(Workload {
        object,
        pod,
        namespace,
        labels: names("/metadata/labels"),
        annotations: names("/metadata/annotations"),
        account: account.unwrap_or("default"),
        host_network: pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true)),
    })
}
