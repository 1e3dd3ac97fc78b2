//! Workloads by uid, by address, and those of this node by name.
//!
//! There may be a hundred thousand, so an entry of an index is a pointer and little else.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use crate::address::{NetworkAddress, Str};
use crate::workload::Workload;

#[derive(Debug, Default)]
pub(super) struct Workloads {
    node: Option<Str>,
    by_uid: HashSet<ByUid>,
    /// Who is believed to have an address, by network.
    by_address: HashMap<Str, HashMap<IpAddr, Arc<Workload>>>,
    /// All who claim an address, where they are several.
    contested: HashMap<NetworkAddress, Vec<Arc<Workload>>>,
    local: HashMap<(Str, Str), Arc<Workload>>,
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

/// Of several claimants a pod is believed, else the first.
fn believed(claimants: &[Arc<Workload>]) -> Option<&Arc<Workload>> {
    claimants.iter().find(|workload| workload.is_pod()).or_else(|| claimants.first())
}

impl Workloads {
    pub(super) fn new(node: Option<Str>) -> Self {
        Self { node, ..Self::default() }
    }

    /// Puts a workload in and returns the one of the same uid that it replaced.
    pub(super) fn insert(&mut self, workload: Arc<Workload>) -> Option<Arc<Workload>> {
        let old = self.remove(&workload.uid);
        for ip in addresses(&workload) {
            self.claim(*ip, &workload);
        }
        if self.node.as_ref() == Some(&workload.node) {
            let key = (workload.namespace().clone(), workload.name.clone());
            self.local.insert(key, workload.clone());
        }
        self.by_uid.insert(ByUid(workload));
        old
    }

    pub(super) fn remove(&mut self, uid: &str) -> Option<Arc<Workload>> {
        let ByUid(old) = self.by_uid.take(uid)?;
        for ip in addresses(&old) {
            self.drop_claim(*ip, &old);
        }
        let key = (old.namespace().clone(), old.name.clone());
        if self.local.get(&key).is_some_and(|local| local.uid == old.uid) {
            self.local.remove(&key);
        }
        Some(old)
    }

    fn claim(&mut self, ip: IpAddr, workload: &Arc<Workload>) {
        let network = &workload.profile.network;
        let ip = ip.to_canonical();
        let of_network = match self.by_address.get_mut(network) {
            Some(of_network) => of_network,
            None => self.by_address.entry(network.clone()).or_default(),
        };
        let Some(first) = of_network.get(&ip) else {
            of_network.insert(ip, workload.clone());
            return;
        };
        if first.uid == workload.uid {
            return;
        }
        let address = NetworkAddress::new(network.clone(), ip);
        let claimants = self.contested.entry(address).or_insert_with(|| vec![first.clone()]);
        if claimants.iter().all(|claimant| claimant.uid != workload.uid) {
            claimants.push(workload.clone());
        }
        if let Some(believed) = believed(claimants) {
            of_network.insert(ip, believed.clone());
        }
    }

    fn drop_claim(&mut self, ip: IpAddr, workload: &Workload) {
        let address = NetworkAddress::new(workload.profile.network.clone(), ip);
        let Some(of_network) = self.by_address.get_mut(&address.network) else { return };
        let Some(claimants) = self.contested.get_mut(&address) else {
            if of_network.get(&address.ip).is_some_and(|holder| holder.uid == workload.uid) {
                of_network.remove(&address.ip);
            }
            if of_network.is_empty() {
                self.by_address.remove(&address.network);
            }
            return;
        };
        claimants.retain(|claimant| claimant.uid != workload.uid);
        if let Some(believed) = believed(claimants) {
            of_network.insert(address.ip, believed.clone());
        }
        if claimants.len() < 2 {
            self.contested.remove(&address);
        }
    }

    pub(super) fn get(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.by_uid.get(uid).map(|ByUid(workload)| workload)
    }

    pub(super) fn at(&self, address: &NetworkAddress) -> Option<&Arc<Workload>> {
        self.by_address.get(&address.network)?.get(&address.ip)
    }

    pub(super) fn local(&self, namespace: &str, name: &str, account: &str) -> Option<&Arc<Workload>> {
        self.local
            .get(&(Str::from(namespace), Str::from(name)))
            .filter(|workload| &**workload.identity().service_account() == account)
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
mod tests {
    use super::*;
    use crate::mesh::tests::workload;

    const IP: [u8; 4] = [10, 0, 0, 1];

    fn insert(workloads: &mut Workloads, uid: &str, ips: &[[u8; 4]]) {
        workloads.insert(Arc::new(workload(uid, ips)));
    }

    fn at(workloads: &Workloads, ip: [u8; 4]) -> Option<&str> {
        let address = NetworkAddress::new("".into(), ip.into());
        workloads.at(&address).map(|workload| &*workload.uid)
    }

    #[test]
    fn a_pod_is_believed_before_others_and_the_first_before_the_next() {
        let mut workloads = Workloads::default();
        let steps: [(&str, bool, Option<&str>); 8] = [
            ("entry-1", true, Some("entry-1")),
            ("entry-2", true, Some("entry-1")),
            ("c//Pod/ns/a", true, Some("c//Pod/ns/a")),
            ("entry-1", false, Some("c//Pod/ns/a")),
            ("c//Pod/ns/a", false, Some("entry-2")),
            ("entry-2", false, None),
            ("entry-2", true, Some("entry-2")),
            ("entry-2", false, None),
        ];
        for (uid, comes, believed) in steps {
            if comes {
                insert(&mut workloads, uid, &[IP]);
            } else {
                assert!(workloads.remove(uid).is_some());
            }
            assert_eq!(at(&workloads, IP), believed, "after {uid}");
        }
        assert!(
            workloads.contested.is_empty() && workloads.by_address.is_empty() && workloads.by_uid.is_empty()
        );
    }

    #[test]
    fn an_address_named_twice_is_one_claim() {
        let mut workloads = Workloads::default();
        insert(&mut workloads, "other", &[IP]);
        insert(&mut workloads, "twice", &[IP, IP]);
        workloads.remove("twice");
        assert_eq!(at(&workloads, IP), Some("other"));
        insert(&mut workloads, "twice", &[IP, IP]);
        workloads.remove("other");
        assert_eq!(at(&workloads, IP), Some("twice"));
        workloads.remove("twice");
        assert_eq!(at(&workloads, IP), None);
    }

    #[test]
    fn a_changed_workload_is_found_by_its_new_addresses_only() {
        let mut workloads = Workloads::default();
        insert(&mut workloads, "a", &[IP, [10, 0, 0, 2]]);
        insert(&mut workloads, "a", &[[10, 0, 0, 2], [10, 0, 0, 3]]);
        assert_eq!(at(&workloads, IP), None);
        assert_eq!(at(&workloads, [10, 0, 0, 2]), Some("a"));
        assert_eq!(at(&workloads, [10, 0, 0, 3]), Some("a"));
        assert_eq!(workloads.iter().count(), 1);
    }
}
