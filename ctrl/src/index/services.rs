//! Services by name and by whom they select.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Name;
use super::facts::{Pod, Service};
use super::labels::Selectors;

#[derive(Debug, Default)]
pub(super) struct Services {
    services: BTreeMap<Name, Arc<Service>>,
    selectors: Selectors,
}

impl Services {
    pub(super) fn get(&self, name: &Name) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    pub(super) fn len(&self) -> usize {
        self.services.len()
    }

    pub(super) fn set(&mut self, name: &Name, service: Option<Arc<Service>>) {
        let selector = service.as_ref().map(|service| service.selector.clone());
        self.selectors.set(name, Some(name.namespace.clone()), selector);
        match service {
            Some(service) => drop(self.services.insert(name.clone(), service)),
            None => drop(self.services.remove(name)),
        }
    }

    pub(super) fn selecting(&self, pod: &Pod) -> Vec<&Arc<Service>> {
        let names = self.selectors.selecting(&pod.name.namespace, &pod.labels);
        names.iter().filter_map(|name| self.services.get(name)).collect()
    }
}
