//! EndpointSlices by name, by service, and by the pods and addresses that they name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use model::address::Str;

use super::Name;
use super::facts::Slice;
use super::sets::{put, take};

#[derive(Debug, Default)]
pub(super) struct Slices {
    slices: BTreeMap<Name, Arc<Slice>>,
    by_service: HashMap<Name, BTreeSet<Name>>,
    by_pod: HashMap<Name, BTreeSet<Name>>,
    /// Endpoints that name no pod.
    by_address: HashMap<IpAddr, BTreeSet<Name>>,
}

impl Slices {
    pub(super) fn get(&self, name: &Name) -> Option<&Arc<Slice>> {
        self.slices.get(name)
    }

    pub(super) fn set(&mut self, name: &Name, slice: Option<Arc<Slice>>) {
        if let Some(old) = self.slices.remove(name) {
            self.forget(&old);
        }
        if let Some(slice) = slice {
            self.note(&slice);
            self.slices.insert(name.clone(), slice);
        }
    }

    fn note(&mut self, slice: &Slice) {
        if let Some(service) = &slice.service {
            put(&mut self.by_service, service.clone(), &slice.name);
        }
        for endpoint in &slice.endpoints {
            match &endpoint.pod {
                Some(pod) => put(&mut self.by_pod, pod.clone(), &slice.name),
                None => {
                    endpoint.addresses.iter().for_each(|ip| put(&mut self.by_address, *ip, &slice.name));
                }
            }
        }
    }

    fn forget(&mut self, slice: &Slice) {
        if let Some(service) = &slice.service {
            take(&mut self.by_service, service, &slice.name);
        }
        for endpoint in &slice.endpoints {
            match &endpoint.pod {
                Some(pod) => take(&mut self.by_pod, pod, &slice.name),
                None => {
                    endpoint.addresses.iter().for_each(|ip| take(&mut self.by_address, ip, &slice.name));
                }
            }
        }
    }

    pub(super) fn of_service(&self, service: &Name) -> impl Iterator<Item = &Arc<Slice>> {
        self.by_service.get(service).into_iter().flatten().filter_map(|name| self.slices.get(name))
    }

    /// Those with an endpoint that names this pod, or one of its own addresses.
    pub(super) fn about(&self, pod: &Name, own: &[IpAddr]) -> impl Iterator<Item = Name> {
        let by_address = own.iter().filter_map(|ip| self.by_address.get(ip)).flatten();
        self.by_pod.get(pod).into_iter().flatten().chain(by_address).cloned()
    }

    /// Those with an endpoint at this address that names no pod.
    pub(super) fn at(&self, ip: IpAddr) -> impl Iterator<Item = &Arc<Slice>> {
        self.by_address.get(&ip).into_iter().flatten().filter_map(|name| self.slices.get(name))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Name> {
        self.slices.keys().cloned()
    }

    pub(super) fn in_namespace<'a>(&'a self, namespace: Option<&'a Str>) -> impl Iterator<Item = Name> + 'a {
        let inside = move |name: &&Name| namespace.is_none_or(|namespace| name.namespace == *namespace);
        self.slices.keys().filter(inside).cloned()
    }
}
