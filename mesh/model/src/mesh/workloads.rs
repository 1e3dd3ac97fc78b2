//! Workloads by uid, by address, and those of this node by name.
//!
//! There may be a hundred thousand, so an entry of an index is a pointer and little else.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use super::index::{ByAddress, Map, Set};
use crate::address::{NetworkAddress, Str};
use crate::workload::{Health, TunnelProtocol, Workload};

#[derive(Debug, Default)]
pub(super) struct Workloads {
    node: Option<Str>,
    by_uid: Set<ByUid>,
    /// Who is believed to have an address.
    by_address: ByAddress<Arc<Workload>>,
    /// All who claim an address, where they are several.
    contested: Map<NetworkAddress, Vec<Arc<Workload>>>,
    /// Those of this node by namespace and name; several where clusters share a network and names.
    local: Map<Str, Map<Str, Vec<Arc<Workload>>>>,
}

/// A workload that is found by its uid, without keeping that twice.
#[derive(Debug)]
struct ByUid(Arc<Workload>);

impl Borrow<str> for ByUid {
    fn borrow(&self) -> &str {
        &self.0.uid
    }
}

impl Hash for ByUid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.uid.hash(state);
    }
}

impl PartialEq for ByUid {
    fn eq(&self, other: &Self) -> bool {
        self.0.uid == other.0.uid
    }
}

impl Eq for ByUid {}

/// Of several claimants a pod is believed before what was written by hand, one that speaks HBONE (else traffic would
/// go in plain), one that is ready (an address may be in use again before its last owner is gone), and at last the
/// first by uid: whatever the order in which they came.
fn believed(claimants: &[Arc<Workload>]) -> Option<&Arc<Workload>> {
    claimants.iter().max_by_key(|one| {
        let tunnelled = one.profile.protocol == TunnelProtocol::Hbone;
        (one.is_pod(), tunnelled, one.status == Health::Healthy, Reverse(&one.uid))
    })
}

impl Workloads {
    pub(super) fn new(node: Option<Str>) -> Self {
        Self { node, ..Self::default() }
    }

    /// Whether a workload may be one of those that the reader serves.
    pub(super) fn may_be_local(&self, workload: &Workload) -> bool {
        self.node.as_ref().is_none_or(|node| *node == workload.node)
    }

    /// Whether a workload is one of the reader's node.
    pub(super) fn is_local(&self, workload: &Workload) -> bool {
        self.node.as_ref() == Some(&workload.node)
    }

    /// Puts a workload in and returns the one of the same uid that it replaced.
    pub(super) fn insert(&mut self, workload: Arc<Workload>) -> Option<Arc<Workload>> {
        let old = self.remove(&workload.uid);
        for ip in addresses(&workload) {
            self.claim(*ip, &workload);
        }
        if self.node.as_ref() == Some(&workload.node) {
            let of_namespace = self.local.entry(workload.namespace().clone()).or_default();
            of_namespace.entry(workload.name.clone()).or_default().push(workload.clone());
        }
        self.by_uid.insert(ByUid(workload));
        old
    }

    pub(super) fn remove(&mut self, uid: &str) -> Option<Arc<Workload>> {
        let ByUid(old) = self.by_uid.take(uid)?;
        for ip in addresses(&old) {
            self.drop_claim(*ip, &old);
        }
        self.drop_local(&old);
        Some(old)
    }

    fn drop_local(&mut self, old: &Workload) {
        let Some(of_namespace) = self.local.get_mut(old.namespace()) else { return };
        let Some(named) = of_namespace.get_mut(&old.name) else { return };
        named.retain(|workload| workload.uid != old.uid);
        if named.is_empty() {
            of_namespace.remove(&old.name);
        }
        if of_namespace.is_empty() {
            self.local.remove(old.namespace());
        }
    }

    fn claim(&mut self, ip: IpAddr, workload: &Arc<Workload>) {
        let address = NetworkAddress::new(workload.profile.network.clone(), ip);
        let Some(first) = self.by_address.get(&address) else {
            self.by_address.insert(&address, workload.clone());
            return;
        };
        if first.uid == workload.uid {
            return;
        }
        let claimants = self.contested.entry(address.clone()).or_insert_with(|| vec![first.clone()]);
        if claimants.iter().all(|claimant| claimant.uid != workload.uid) {
            claimants.push(workload.clone());
        }
        if let Some(believed) = believed(claimants) {
            self.by_address.insert(&address, believed.clone());
        }
    }

    fn drop_claim(&mut self, ip: IpAddr, workload: &Workload) {
        let address = NetworkAddress::new(workload.profile.network.clone(), ip);
        let Some(claimants) = self.contested.get_mut(&address) else {
            if self.by_address.get(&address).is_some_and(|holder| holder.uid == workload.uid) {
                self.by_address.remove(&address);
            }
            return;
        };
        claimants.retain(|claimant| claimant.uid != workload.uid);
        if let Some(believed) = believed(claimants) {
            self.by_address.insert(&address, believed.clone());
        }
        if claimants.len() < 2 {
            self.contested.remove(&address);
        }
    }

    pub(super) fn get(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.by_uid.get(uid).map(|ByUid(workload)| workload)
    }

    pub(super) fn at(&self, address: &NetworkAddress) -> Option<&Arc<Workload>> {
        self.by_address.get(address)
    }

    pub(super) fn local(&self, namespace: &str, name: &str, account: &str) -> Option<&Arc<Workload>> {
        let named = self.local.get(namespace)?.get(name)?.iter();
        named
            .filter(|workload| &**workload.identity().service_account() == account)
            .min_by_key(|workload| &workload.uid)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.by_uid.iter().map(|ByUid(workload)| workload)
    }
}

/// The addresses that a workload is found by; one that shares its node's addresses has none.
fn addresses(workload: &Workload) -> &[IpAddr] {
    if workload.profile.host_network { &[] } else { &workload.addresses }
}

#[cfg(test)]
mod tests;
