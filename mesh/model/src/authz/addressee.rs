//! What a waypoint judges for: which policies that are.

use std::borrow::Borrow;
use std::net::SocketAddr;

use super::{Policy, PolicyScope, Target};
use crate::address::{NamespacedHostname, Str};
use crate::workload::Workload;

/// Whom a connection or request through a waypoint is for.
#[derive(Debug, Clone, Copy)]
pub struct Addressee<'a> {
    /// The waypoint that judges.
    pub gateway: &'a GatewayName,
    /// The service that was asked for; `None` where it was a pod's address.
    pub service: Option<&'a NamespacedHostname>,
    /// The ServiceEntry that the service is of, by namespace and name, if it is of one.
    pub service_entry: Option<(&'a Str, &'a Str)>,
    /// The workload chosen to answer, and its application's address; `None` where none is (a redirect, say). Policies
    /// that select workloads are those of this one, and are about its address and port; policies for targets are about
    /// the address and port that the client asked for.
    pub endpoint: Option<(&'a Workload, SocketAddr)>,
}

/// A waypoint, as policies name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GatewayName {
    /// The Gateway's namespace.
    pub namespace: Str,
    /// Its name.
    pub name: Str,
    /// Its GatewayClass.
    pub class: Str,
}

impl Addressee<'_> {
    /// Everything that a policy for it may be attached to.
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        let GatewayName { namespace, name, class } = self.gateway;
        let gateway = Target::Gateway { namespace: namespace.clone(), name: name.clone() };
        let entry = self.service_entry.map(|(namespace, name)| Target::ServiceEntry {
            namespace: namespace.clone(),
            name: name.clone(),
        });
        let service = self.service.cloned().map(Target::Service);
        [gateway, Target::GatewayClass(class.clone())].into_iter().chain(service).chain(entry)
    }

    /// The namespace whose policies apply: the workload's, or the service's where there is none.
    pub fn namespace(&self) -> Option<&str> {
        match self.endpoint {
            Some((workload, _)) => Some(workload.namespace()),
            None => self.service.map(NamespacedHostname::namespace),
        }
    }
}

/// Of all policies those that a waypoint judges by for an addressee, each once, in the order given.
/// [`Mesh::judge_for`](crate::mesh::Mesh::judge_for) finds the same in less time.
pub fn policies_for<'p, P: Borrow<Policy>>(policies: &'p [P], to: &Addressee<'_>) -> Vec<&'p Policy> {
    let targets: Vec<Target> = to.targets().collect();
    let named = to.endpoint.map(|(workload, _)| &workload.profile.policies[..]).unwrap_or_default();
    let applies = |policy: &&Policy| match &policy.scope {
        PolicyScope::Global => true,
        PolicyScope::Namespace => {
            to.namespace() == Some(&*policy.name.namespace) || named.contains(&policy.name)
        }
        PolicyScope::Workload => named.contains(&policy.name),
        PolicyScope::Targets(of) => of.iter().any(|target| targets.contains(target)),
    };
    policies.iter().map(Borrow::borrow).filter(applies).collect()
}
