//! All that a proxy knows of the mesh, with the indexes that its decisions need.
//!
//! One writer applies updates as the controller sends them, in any order: a workload may come before its service
//! and a policy after the workload that names it. Readers clone `Arc`s out and hold no lock while they decide.

pub mod endpoints;
mod index;
mod policies;
mod services;
mod workloads;

use std::sync::Arc;

use ipnet::IpNet;

pub use self::endpoints::Endpoints;
pub use self::policies::MissingPolicies;
use crate::Identity;
use crate::address::{NamespacedHostname, NetworkAddress, Str};
use crate::authz::{Addressee, Cause, Decision, Facts, Policy, Subject};
use crate::service::Service;
use crate::workload::{PolicyName, Workload};

/// What is true of the mesh as a whole; the controller sends it beside the workload API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The trust domain of identities whose wire form elides it.
    pub trust_domain: Str,
    /// Trust domains that are accepted beside it.
    pub trust_domain_aliases: Vec<Str>,
    /// The namespace whose policies apply to the whole mesh.
    pub root_namespace: Str,
    /// This cluster's name.
    pub cluster: Str,
    /// The mesh's own pod ranges: an address inside one that no workload has is waited for, never passed in
    /// plain. Empty where the controller does not say.
    pub pod_ranges: Vec<IpNet>,
    /// The ranges of its services' addresses, to the same effect: a service made a moment ago, or while the controller
    /// is away, is balanced by the node to its pods long before we are told of it.
    pub service_ranges: Vec<IpNet>,
    /// Whose certificates count.
    pub trust: Trust,
}

/// Whose certificates count, all DER: nothing in here reads them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    /// The roots that peers are verified against; empty where the controller says nothing of it.
    pub roots: Vec<Arc<[u8]>>,
    /// Lists of revoked certificates.
    pub crls: Vec<Arc<[u8]>>,
    /// Identities that are revoked whole.
    pub identities: Vec<Identity>,
    /// The certificate by which certificates are signed now, where the controller says so.
    pub issuer: Option<Arc<[u8]>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trust_domain: Str::from("cluster.local"),
            trust_domain_aliases: Vec::new(),
            root_namespace: Str::from("istio-system"),
            cluster: Str::from("Kubernetes"),
            pod_ranges: Vec::new(),
            service_ranges: Vec::new(),
            trust: Trust::default(),
        }
    }
}

/// One change of what is known.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// A workload is new or changed.
    Workload(Workload),
    /// A service is new or changed; its endpoints stay.
    Service(Service),
    /// A workload (by uid) or a service (by `namespace/hostname`) is gone.
    RemoveAddress(Str),
    /// A policy is new or changed.
    Policy(Policy),
    /// A policy is gone.
    RemovePolicy(PolicyName),
    /// The mesh's settings.
    Settings(Settings),
}

/// What an update means for connections that are already there.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Effect {
    /// Live connections are to be judged again: a policy or a setting changed, or what a workload of this node is
    /// judged by.
    pub rejudge: bool,
    /// A workload that is gone, or that it replaced: tunnels pooled to its addresses must not be used for another.
    pub replaced: Option<Arc<Workload>>,
}

/// All that is known.
#[derive(Debug)]
pub struct Mesh {
    network: Str,
    settings: Settings,
    workloads: workloads::Workloads,
    services: services::Services,
    policies: policies::Policies,
}

impl Mesh {
    /// An empty mesh, seen from a network and, where the reader serves the pods of one node, from that node.
    pub fn new(network: Str, node: Option<Str>) -> Self {
        Self {
            network,
            settings: Settings::default(),
            workloads: workloads::Workloads::new(node),
            services: services::Services::default(),
            policies: policies::Policies::default(),
        }
    }

    /// Takes one change into account.
    pub fn apply(&mut self, update: Update) -> Effect {
        match update {
            Update::Workload(workload) => self.insert_workload(&Arc::new(workload)),
            Update::Service(service) => {
                self.services.insert(&Arc::new(service));
                Effect::default()
            }
            Update::RemoveAddress(name) => self.remove_address(&name),
            Update::Policy(policy) => {
                self.policies.insert(Arc::new(policy));
                Effect { rejudge: true, replaced: None }
            }
            Update::RemovePolicy(name) => {
                self.policies.remove(&name);
                Effect { rejudge: true, replaced: None }
            }
            Update::Settings(settings) => {
                self.settings = settings;
                Effect { rejudge: true, replaced: None }
            }
        }
    }

    fn insert_workload(&mut self, workload: &Arc<Workload>) -> Effect {
        let old = self.workloads.insert(workload.clone());
        if let Some(old) = &old {
            self.services.remove_endpoint(old);
        }
        self.services.insert_endpoint(workload);
        // One that is new may have been here before: what it is judged by may have changed in between.
        let judged_otherwise = old.as_ref().is_none_or(|old| {
            old.profile.policies != workload.profile.policies
                || old.profile.enforced_by != workload.profile.enforced_by
                || old.identity() != workload.identity()
        });
        let moved = |old: &Arc<Workload>| {
            old.addresses != workload.addresses
                || old.profile.network != workload.profile.network
                || old.identity() != workload.identity()
        };
        let rejudge = judged_otherwise && self.workloads.may_be_local(workload);
        Effect { rejudge, replaced: old.filter(moved) }
    }

    fn remove_address(&mut self, name: &Str) -> Effect {
        if let Some(old) = self.workloads.remove(name) {
            self.services.remove_endpoint(&old);
            return Effect { rejudge: false, replaced: Some(old) };
        }
        if let Some(key) = NamespacedHostname::parse(name.clone()) {
            self.services.remove(&key);
        }
        Effect::default()
    }

    /// The network that this mesh is seen from.
    pub fn network(&self) -> &Str {
        &self.network
    }

    /// The mesh's settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether an address lies in the mesh's own pod ranges.
    pub fn is_pod_address(&self, ip: std::net::IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.settings.pod_ranges.iter().any(|range| range.contains(&ip))
    }

    /// Whether an address that no workload has must be one of the mesh's own all the same: it is waited for, and never
    /// passed in plain.
    pub fn is_to_come(&self, address: &NetworkAddress) -> bool {
        self.is_pod_address(address.ip) || self.lacks_service_at(address)
    }

    /// Whether an address lies in the ranges of the mesh's own services and is none's: of one that we have not been told
    /// of. Those that are hidden from whoever asks are known.
    pub fn lacks_service_at(&self, address: &NetworkAddress) -> bool {
        let ip = address.ip.to_canonical();
        self.settings.service_ranges.iter().any(|range| range.contains(&ip)) && !self.services.any_at(address)
    }

    /// The workload that has an address. Where several claim it, a pod is believed before anything else, then one that
    /// speaks HBONE, then one that is ready.
    pub fn workload_at(&self, address: &NetworkAddress) -> Option<&Arc<Workload>> {
        self.workloads.at(address)
    }

    /// The workload that has an address, if it also has the identity that TLS proved.
    pub fn proven_workload(&self, address: &NetworkAddress, identity: &Identity) -> Option<&Arc<Workload>> {
        self.workload_at(address).filter(|workload| workload.identity() == identity)
    }

    /// A workload by its uid.
    pub fn workload(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// A pod of this node by its name and service account; nothing where the mesh is not seen from a node.
    pub fn local_workload(&self, namespace: &str, name: &str, account: &str) -> Option<&Arc<Workload>> {
        self.workloads.local(namespace, name, account)
    }

    /// Whether a workload is on the node that the mesh is seen from.
    pub fn is_local(&self, workload: &Workload) -> bool {
        self.workloads.is_local(workload)
    }

    /// Every workload, in no order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.iter()
    }

    /// The service at a virtual address, as a client of `namespace` finds it: an exact address before a range, its
    /// own namespace before the canonical one before any other.
    pub fn service_at(&self, address: &NetworkAddress, namespace: &str) -> Option<&Arc<Service>> {
        self.services.at(address, namespace)
    }

    /// The service of a host name, as a client of `namespace` finds it.
    pub fn service_named(&self, hostname: &str, namespace: &str) -> Option<&Arc<Service>> {
        self.services.named(hostname, namespace)
    }

    /// A service by its namespace and host name.
    pub fn service(&self, key: &NamespacedHostname) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// Whether a workload is a replica of a waypoint that something in the mesh is bound to: it stands behind the service, in its
    /// own namespace, by which that waypoint is found. What a pod's labels say of it does not make it one.
    pub fn is_of_waypoint(&self, workload: &Workload) -> bool {
        let mut own =
            workload.profile.services.iter().filter(|(key, _)| key.namespace() == &**workload.namespace());
        own.any(|(key, _)| self.services.is_of_waypoint(key))
    }

    /// Every service, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.iter()
    }

    /// The endpoints of a service; none where it has none.
    pub fn endpoints(&self, key: &NamespacedHostname) -> Option<&Endpoints> {
        self.services.endpoints(key)
    }

    /// Every policy that applies to a workload: the mesh's, its namespace's, and those it names.
    ///
    /// # Errors
    /// The names of policies that the workload names and that are not here (yet): the caller waits, then refuses.
    pub fn policies_for(&self, workload: &Workload) -> Result<Vec<Arc<Policy>>, MissingPolicies> {
        self.policies.for_workload(workload)
    }

    /// Judges a connection to a workload by every policy that applies to it, in the order of
    /// [`policies_for`](Self::policies_for). A waypoint that the workload is bound to has judged already, by every
    /// policy and with all that can be seen of a request.
    ///
    /// # Errors
    /// As [`policies_for`](Self::policies_for).
    pub fn judge(&self, workload: &Workload, subject: &Subject<'_>) -> Result<Decision, MissingPolicies> {
        let enforced_by = workload.profile.enforced_by.as_deref().unwrap_or_default();
        match subject.identity {
            Some(waypoint) if enforced_by.contains(waypoint) => {
                Ok(Decision::allowed(Cause::JudgedBefore(waypoint.clone())))
            }
            _ => self.policies.judge(workload, &subject.into()),
        }
    }

    /// Judges a connection or request as a waypoint does, by every policy of [`policies_for`](crate::authz::policies_for),
    /// against the original client. `facts` are a [`Request`](crate::request::Request), or a [`Subject`] where there is
    /// only a connection. Nobody has judged before: an address that a waypoint is bound to is not asked for here.
    ///
    /// # Errors
    /// As [`policies_for`](Self::policies_for).
    pub fn judge_for<'f>(
        &self,
        to: &Addressee<'_>,
        facts: impl Into<Facts<'f>>,
    ) -> Result<Decision, MissingPolicies> {
        self.policies.judge_for(to, &facts.into())
    }

    /// A policy by name.
    pub fn policy(&self, name: &PolicyName) -> Option<&Arc<Policy>> {
        self.policies.get(name)
    }

    /// Every policy, in no order.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.iter()
    }
}

#[cfg(test)]
mod tests;
