//! Services by name, by whom they select and by address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::Name;
use super::facts::{Pod, Service};
use super::labels::Selectors;
use super::sets::{put, take};

#[derive(Debug, Default)]
pub(super) struct Services {
    services: BTreeMap<Name, Arc<Service>>,
    selectors: Selectors,
    by_address: HashMap<IpAddr, BTreeSet<Name>>,
}

impl Services {
    pub(super) fn get(&self, name: &Name) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// Those of a namespace.
    pub(super) fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Service>> {
        let own = self.services.range(Name::new(namespace, "")..).map(|(_, service)| service);
        own.take_while(move |service| *service.name.namespace == *namespace)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    pub(super) fn len(&self) -> usize {
        self.services.len()
    }

    pub(super) fn set(&mut self, name: &Name, service: Option<Arc<Service>>) {
        let selector = service.as_ref().map(|service| service.selector.clone());
        self.selectors.set(name, Some(name.namespace.clone()), selector);
        for ip in self.services.get(name).iter().flat_map(|old| &old.addresses) {
            take(&mut self.by_address, ip, name);
        }
        for ip in service.iter().flat_map(|new| &new.addresses) {
            put(&mut self.by_address, *ip, name);
        }
        match service {
            Some(service) => drop(self.services.insert(name.clone(), service)),
            None => drop(self.services.remove(name)),
        }
    }

    /// Those that claim an address.
    pub(super) fn claiming(&self, ip: IpAddr) -> impl Iterator<Item = &Arc<Service>> {
        self.by_address.get(&ip).into_iter().flatten().filter_map(|name| self.services.get(name))
    }

    pub(super) fn selecting(&self, pod: &Pod) -> Vec<&Arc<Service>> {
        let names = self.selectors.selecting(&pod.name.namespace, &pod.labels);
        names.iter().filter_map(|name| self.services.get(name)).collect()
    }
}
