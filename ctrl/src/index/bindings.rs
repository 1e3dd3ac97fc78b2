//! Which traffic goes by which waypoint: what is addressed to a service, and what is addressed to a pod.
//! Each binding names who asked for it. It takes effect once its waypoint has been ready, and stays in force from then
//! on: that no replica is ready now refuses, and lets nothing go around.

use std::collections::BTreeSet;
use std::sync::Arc;

use manifest::Key;
use manifest::waypoint::{GATEWAY_NAME, USE_WAYPOINT, USE_WAYPOINT_NAMESPACE, controller_of};
use model::address::Str;

use super::facts::{self, Asked, Pod, Service, Traffic, Waypoint};
use super::{Changes, Index, Kept, Name};

/// Whether and why something goes by a waypoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// Nobody asks for one, or a label asks for none.
    Unasked,
    /// It does.
    To(Binding),
    /// One is asked for, and is not used.
    Not(Binding, Why),
}

/// A waypoint, and who asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The Gateway.
    pub waypoint: Name,
    /// Where it takes HBONE.
    pub port: u16,
    /// Who asked.
    pub by: By,
}

/// Who asks for a waypoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// The service's or the pod's own label.
    Label,
    /// The Gateway, for an account.
    Account(Str),
    /// The namespace's label.
    Namespace,
}

/// Why a waypoint that is asked for is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There is no such Gateway.
    Missing,
    /// It has never been ready.
    NotReady,
    /// Its `allowedRoutes` do not admit the namespace.
    Denied,
    /// It is not for such traffic (`istio.io/waypoint-for`).
    OtherTraffic,
}

/// Where traffic is addressed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A service's address.
    Service,
    /// A pod's.
    Workload,
}

impl Bound {
    /// The binding, if it is in force.
    pub fn in_force(&self) -> Option<&Binding> {
        match self {
            Self::To(binding) => Some(binding),
            Self::Unasked | Self::Not(..) => None,
        }
    }
}

/// What the accounts of a service's pods come to.
enum Accounts {
    /// None has a waypoint.
    None,
    /// All have this one.
    Share(Arc<Waypoint>),
    /// They do not agree.
    Differ,
}

impl Index {
    /// How what is addressed to a service goes.
    pub fn service_bound(&self, service: &Service) -> Bound {
        let namespace = &service.name.namespace;
        if self.is_of_waypoint(namespace, service.gateway.as_deref()) {
            return Bound::Unasked;
        }
        match &service.asked {
            Some(Asked::None) => return Bound::Unasked,
            Some(Asked::For(name)) => return self.resolve(namespace, Target::Service, name, By::Label),
            None => {}
        }
        if let Accounts::Share(waypoint) = self.accounts_of(service) {
            return self.of_account(&waypoint);
        }
        self.namespace_bound(namespace, Target::Service)
    }

    /// How what is addressed to a pod goes.
    pub fn pod_bound(&self, pod: &Pod) -> Bound {
        let namespace = &pod.name.namespace;
        if pod.host_network || self.is_replica(pod) {
            return Bound::Unasked;
        }
        match facts::asked(&pod.labels, namespace) {
            Some(Asked::None) => return Bound::Unasked,
            Some(Asked::For(name)) => return self.resolve(namespace, Target::Workload, &name, By::Label),
            None => {}
        }
        if let Some(waypoint) = self.waypoints.of_account(namespace, &pod.account) {
            return self.of_account(waypoint);
        }
        self.namespace_bound(namespace, Target::Workload)
    }

    /// How a namespace's label has it.
    pub fn namespace_bound(&self, namespace: &Str, target: Target) -> Bound {
        let labels = self.waypoints.namespace(namespace).map(|namespace| &namespace.labels);
        match labels.and_then(|labels| facts::asked(labels, namespace)) {
            None | Some(Asked::None) => Bound::Unasked,
            Some(Asked::For(name)) => self.resolve(namespace, target, &name, By::Namespace),
        }
    }

    /// Whether the accounts of a service's pods have different waypoints, so that none of them stands in front of it.
    pub fn is_ambiguous(&self, service: &Service) -> bool {
        service.asked.is_none()
            && !self.is_of_waypoint(&service.name.namespace, service.gateway.as_deref())
            && matches!(self.accounts_of(service), Accounts::Differ)
    }

    /// The waypoint in front of an account.
    pub fn waypoint_of_account(&self, namespace: &Str, account: &str) -> Option<&Arc<Waypoint>> {
        self.waypoints.of_account(namespace, account)
    }

    /// A waypoint that there is.
    pub fn waypoint(&self, name: &Name) -> Option<&Arc<Waypoint>> {
        self.waypoints.get(name)
    }

    /// Whether there is a waypoint of a name, or has been one that matters still.
    pub fn knows_waypoint(&self, name: &Name) -> bool {
        self.waypoints.known(name).is_some()
    }

    /// The controller that a GatewayClass names, if there is such a class.
    pub fn controller_of_class(&self, class: &str) -> Option<&str> {
        let key = Key {
            group: "gateway.networking.k8s.io".to_owned(),
            kind: "GatewayClass".to_owned(),
            namespace: None,
            name: class.to_owned(),
        };
        self.object(&key)?.raw.pointer("/spec/controllerName")?.as_str()
    }

    /// Whether a class of waypoints is ours: somebody may have given its name to another controller.
    pub fn answers_for(&self, class: &str) -> bool {
        let controller = self.controller_of_class(class);
        controller.is_none() || controller == controller_of(class)
    }

    /// Whether there is a waypoint, or has been one that matters still.
    pub fn has_waypoints(&self) -> bool {
        !self.waypoints.is_empty()
    }

    /// Whether a waypoint has been ready: bindings to it are in force.
    pub fn has_been_ready(&self, waypoint: &Name) -> bool {
        self.waypoints.has_been_ready(waypoint)
    }

    /// The waypoints by which a workload's connections may come: its own and those of its services. They judge for it, so
    /// that only its own namespace names them: whoever may write an EndpointSlice may name any pod in it.
    pub fn enforcing(&self, pod: &Pod) -> BTreeSet<Name> {
        if self.waypoints.is_empty() {
            return BTreeSet::new();
        }
        let mut all: BTreeSet<Name> = BTreeSet::new();
        all.extend(self.pod_bound(pod).in_force().map(|binding| binding.waypoint.clone()));
        for service in self.own_services_of(pod) {
            all.extend(self.service_bound(service).in_force().map(|binding| binding.waypoint.clone()));
        }
        all
    }

    /// Whether a pod refuses whoever is no waypoint of it.
    pub fn requires_waypoint(&self, pod: &Pod) -> bool {
        let namespace = &pod.name.namespace;
        !self.is_replica(pod)
            && (self.waypoints.namespace(namespace).is_some_and(|namespace| namespace.requires)
                || self.waypoints.requires_account(&Name::new(namespace, &pod.account))
                || self.own_services_of(pod).any(|service| service.requires_waypoint))
    }

    /// Whether a waypoint has a Service and a ready replica now.
    pub fn is_ready(&self, waypoint: &Waypoint) -> bool {
        self.services.get(&waypoint.name).is_some() && self.replicas(&waypoint.name).any(|pod| pod.is_ready())
    }

    /// How many replicas of a waypoint are ready, and how many there are.
    pub fn ready_replicas(&self, waypoint: &Name) -> (usize, usize) {
        let ready = self.replicas(waypoint).filter(|pod| pod.is_ready()).count();
        (ready, self.replicas(waypoint).count())
    }

    fn replicas(&self, waypoint: &Name) -> impl Iterator<Item = &Arc<Pod>> {
        let selector = [(GATEWAY_NAME.to_owned(), waypoint.name.to_string())].into();
        let names: Vec<Name> = self.pods.selected(Some(&waypoint.namespace), &selector).collect();
        names.into_iter().filter_map(|name| self.pods.get(&name)).filter(|pod| !pod.ended)
    }

    /// The services that a pod is an endpoint of.
    pub(super) fn services_of(&self, pod: &Pod) -> Vec<&Arc<Service>> {
        let mut all = self.services_selecting(pod);
        for slice in self.slices_about(pod) {
            all.extend(self.service_of(slice));
        }
        all
    }

    /// Those of its own namespace.
    fn own_services_of(&self, pod: &Pod) -> impl Iterator<Item = &Arc<Service>> {
        let namespace = pod.name.namespace.clone();
        self.services_of(pod).into_iter().filter(move |service| service.name.namespace == namespace)
    }

    /// The pods that are endpoints of a service.
    pub(super) fn pods_of_service(&self, service: &Service) -> BTreeSet<Name> {
        let mut all: BTreeSet<Name> =
            self.pods.selected(Some(&service.name.namespace), &service.selector).collect();
        for slice in self.slices.of_service(&service.name) {
            if self.service_of(slice).is_some() {
                all.extend(self.pods_of(slice));
            }
        }
        all
    }

    fn is_replica(&self, pod: &Pod) -> bool {
        self.is_of_waypoint(&pod.name.namespace, pod.labels.get(GATEWAY_NAME).map(String::as_str))
    }

    /// Whether what says that it is made for a Gateway is a waypoint's: that does not go by a waypoint itself.
    fn is_of_waypoint(&self, namespace: &str, gateway: Option<&str>) -> bool {
        gateway.is_some_and(|gateway| self.waypoints.known(&Name::new(namespace, gateway)).is_some())
    }

    fn accounts_of(&self, service: &Service) -> Accounts {
        let of_namespace = |waypoint: &Arc<Waypoint>| {
            waypoint.account.is_some() && waypoint.name.namespace == service.name.namespace
        };
        if !self.waypoints.there().any(of_namespace) {
            return Accounts::None;
        }
        let mut found: Option<Option<&Arc<Waypoint>>> = None;
        for name in self.pods_of_service(service) {
            let Some(pod) = self.pods.get(&name).filter(|pod| !pod.ended) else { continue };
            let own = self.waypoints.of_account(&pod.name.namespace, &pod.account);
            match found {
                Some(before) if before.map(|w| &w.name) != own.map(|w| &w.name) => return Accounts::Differ,
                _ => found = Some(own),
            }
        }
        found.flatten().map_or(Accounts::None, |waypoint| Accounts::Share(waypoint.clone()))
    }

    /// A waypoint for an account serves both kinds of traffic, and says itself whom it is for.
    fn of_account(&self, waypoint: &Waypoint) -> Bound {
        let by = By::Account(waypoint.account.clone().unwrap_or_else(|| "".into()));
        let binding = Binding { waypoint: waypoint.name.clone(), port: waypoint.port, by };
        if self.waypoints.has_been_ready(&waypoint.name) {
            Bound::To(binding)
        } else {
            Bound::Not(binding, Why::NotReady)
        }
    }

    /// What becomes of a label in `namespace` that names a waypoint.
    fn resolve(&self, namespace: &Str, target: Target, name: &Name, by: By) -> Bound {
        let Some(waypoint) = self.waypoints.known(name) else {
            let binding = Binding { waypoint: name.clone(), port: model::ports::HBONE, by };
            return Bound::Not(binding, Why::Missing);
        };
        let binding = Binding { waypoint: name.clone(), port: waypoint.port, by };
        let none = Default::default();
        let labels = self.waypoints.namespace(namespace).map_or(&none, |namespace| &namespace.labels);
        if !waypoint.allowed.admits(&name.namespace, namespace, labels) {
            return Bound::Not(binding, Why::Denied);
        }
        if waypoint.account.is_none() && !self.waypoints.traffic(waypoint).includes(target) {
            return Bound::Not(binding, Why::OtherTraffic);
        }
        if !self.waypoints.has_been_ready(name) {
            return Bound::Not(binding, Why::NotReady);
        }
        Bound::To(binding)
    }
}

impl Traffic {
    fn includes(self, target: Target) -> bool {
        match target {
            Target::Service => matches!(self, Self::Service | Self::All),
            Target::Workload => matches!(self, Self::Workload | Self::All),
        }
    }
}

/// What changes.
impl Index {
    /// A waypoint came, went or became another, or what one may be asked for did.
    pub(super) fn touch_waypoint(&self, name: &Name, changes: &mut Changes) {
        let elsewhere = self.waypoints.namespaces().filter(|(namespace, facts)| {
            let asked = facts::asked(&facts.labels, namespace);
            matches!(asked, Some(Asked::For(other)) if other == *name)
        });
        let mut namespaces: BTreeSet<Str> = elsewhere.map(|(namespace, _)| namespace.clone()).collect();
        namespaces.insert(name.namespace.clone());
        namespaces.iter().for_each(|namespace| self.touch_namespace(namespace, changes));
        let asks =
            |service: &&Arc<Service>| matches!(&service.asked, Some(Asked::For(other)) if other == name);
        changes.services.extend(self.services.all().filter(asks).map(|service| service.name.clone()));
        let label = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
        let crossing = label(USE_WAYPOINT_NAMESPACE, &name.namespace);
        changes.pods.extend(self.pods.selected(None, &crossing));
    }

    /// All of a namespace may be bound otherwise.
    pub(super) fn touch_namespace(&self, namespace: &Str, changes: &mut Changes) {
        changes.pods.extend(self.pods.in_namespace(Some(namespace)));
        changes.services.extend(self.services.in_namespace(namespace).map(|service| service.name.clone()));
    }

    /// What follows from a batch for bindings, once all of it is known: which waypoints have become ready, and which pods
    /// are judged for by others because their services are bound otherwise.
    pub(super) fn settle(&mut self, changes: &mut Changes) {
        if self.waypoints.is_empty() {
            return;
        }
        let fresh = |waypoint: &&Arc<Waypoint>| {
            !self.waypoints.has_been_ready(&waypoint.name) && self.is_ready(waypoint)
        };
        let fresh: Vec<Arc<Waypoint>> = self.waypoints.there().filter(fresh).cloned().collect();
        for waypoint in fresh {
            self.waypoints.note_ready(waypoint.clone());
            changes.kept.push(Kept::Ready(waypoint.name.clone()));
            self.touch_waypoint(&waypoint.name, changes);
        }
        for name in self.waypoints.orphans() {
            if !self.is_asked_for(&name) {
                self.waypoints.forget_ready(&name);
                changes.kept.push(Kept::Gone(name));
            }
        }
        for name in changes.services.clone() {
            let service = self.services.get(&name).cloned();
            let now = service.as_ref().and_then(|service| {
                self.service_bound(service).in_force().map(|binding| binding.waypoint.clone())
            });
            let before = match now.clone() {
                Some(now) => self.bound.insert(name, now),
                None => self.bound.remove(&name),
            };
            if let Some(service) = service.filter(|_| before != now) {
                changes.pods.extend(self.pods_of_service(&service));
            }
        }
    }

    fn is_asked_for(&self, waypoint: &Name) -> bool {
        let names = |asked: Option<Asked>| matches!(asked, Some(Asked::For(name)) if name == *waypoint);
        let label = [(USE_WAYPOINT.to_owned(), waypoint.name.to_string())].into();
        let mut pods = self.pods.selected(None, &label).filter_map(|name| self.pods.get(&name));
        let mut namespaces = self.waypoints.namespaces();
        self.services.all().any(|service| names(service.asked.clone()))
            || namespaces.any(|(namespace, facts)| names(facts::asked(&facts.labels, namespace)))
            || pods.any(|pod| names(facts::asked(&pod.labels, &pod.name.namespace)))
    }
}

#[cfg(test)]
mod tests;
