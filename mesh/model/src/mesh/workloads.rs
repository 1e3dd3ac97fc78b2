//! Workloads by uid, by address, and those of this node by name.

use std::collections::HashMap;
use std::sync::Arc;

use crate::address::{NetworkAddress, Str};
use crate::workload::Workload;

#[derive(Debug, Default)]
pub(super) struct Workloads {
    node: Option<Str>,
    by_uid: HashMap<Str, Arc<Workload>>,
    by_address: HashMap<NetworkAddress, Claims>,
    local: HashMap<(Str, Str), Arc<Workload>>,
}

/// Who claims an address: nearly always one workload, which then costs no vector.
#[derive(Debug)]
enum Claims {
    One(Arc<Workload>),
    Several(Vec<Arc<Workload>>),
}

impl Claims {
    fn believed(&self) -> Option<&Arc<Workload>> {
        match self {
            Self::One(workload) => Some(workload),
            Self::Several(all) => all.iter().find(|workload| workload.is_pod()).or_else(|| all.first()),
        }
    }

    fn add(&mut self, workload: Arc<Workload>) {
        match self {
            Self::One(first) => *self = Self::Several(vec![first.clone(), workload]),
            Self::Several(all) => all.push(workload),
        }
    }

    /// Drops a workload's claim; true when nobody is left.
    fn drop_claim(&mut self, uid: &str) -> bool {
        match self {
            Self::One(workload) => &*workload.uid == uid,
            Self::Several(all) => {
                all.retain(|workload| &*workload.uid != uid);
                if let [last] = &all[..] {
                    *self = Self::One(last.clone());
                    return false;
                }
                all.is_empty()
            }
        }
    }
}

impl Workloads {
    pub(super) fn new(node: Option<Str>) -> Self {
        Self { node, ..Self::default() }
    }

    /// Puts a workload in and returns the one of the same uid that it replaced.
    pub(super) fn insert(&mut self, workload: Arc<Workload>) -> Option<Arc<Workload>> {
        let old = self.remove(&workload.uid);
        for address in addresses(&workload) {
            match self.by_address.get_mut(&address) {
                Some(claims) => claims.add(workload.clone()),
                None => {
                    self.by_address.insert(address, Claims::One(workload.clone()));
                }
            }
        }
        if self.node.as_ref() == Some(&workload.node) {
            let key = (workload.namespace().clone(), workload.name.clone());
            self.local.insert(key, workload.clone());
        }
        self.by_uid.insert(workload.uid.clone(), workload);
        old
    }

    pub(super) fn remove(&mut self, uid: &str) -> Option<Arc<Workload>> {
        let old = self.by_uid.remove(uid)?;
        for address in addresses(&old) {
            if self.by_address.get_mut(&address).is_some_and(|claims| claims.drop_claim(uid)) {
                self.by_address.remove(&address);
            }
        }
        let key = (old.namespace().clone(), old.name.clone());
        if self.local.get(&key).is_some_and(|local| local.uid == old.uid) {
            self.local.remove(&key);
        }
        Some(old)
    }

    pub(super) fn get(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.by_uid.get(uid)
    }

    pub(super) fn at(&self, address: &NetworkAddress) -> Option<&Arc<Workload>> {
        self.by_address.get(address).and_then(Claims::believed)
    }

    pub(super) fn local(&self, namespace: &str, name: &str, account: &str) -> Option<&Arc<Workload>> {
        self.local
            .get(&(Str::from(namespace), Str::from(name)))
            .filter(|workload| &**workload.identity().service_account() == account)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.by_uid.values()
    }
}

/// The addresses that a workload is found by; one that shares its node's addresses has none.
fn addresses(workload: &Workload) -> impl Iterator<Item = NetworkAddress> {
    let ips = if workload.profile.host_network { &[] } else { &workload.addresses[..] };
    let network = workload.profile.network.clone();
    ips.iter().map(move |ip| NetworkAddress::new(network.clone(), *ip)).collect::<Vec<_>>().into_iter()
}
