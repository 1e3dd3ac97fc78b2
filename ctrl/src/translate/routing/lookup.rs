//! Who is for a host: VirtualServices in the order in which they count, and the DestinationRule that counts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use manifest::istio::{DestinationRule, HttpRoute, VirtualService};
use manifest::{Object, Typed};
use model::address::{NamespacedHostname, Str};
use model::route::ResourceName;
use model::traffic;

use super::Outcome;
use super::objects::{Host, Objects};
use super::{destination_rule, not_carried};
use crate::index::Name;

/// A VirtualService whose names are all full ones.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) name: Name,
    pub(super) resource: Arc<ResourceName>,
    pub(super) spec: VirtualService,
}

/// A DestinationRule.
#[derive(Debug)]
struct Rule<'a> {
    name: Name,
    spec: &'a DestinationRule,
}

/// What is for hosts, by their names.
#[derive(Debug)]
struct ByHost<T> {
    exact: HashMap<Str, Vec<T>>,
    /// By what follows the `*`, the longest first.
    wild: BTreeMap<Reverse<(usize, Str)>, Vec<T>>,
}

impl<T> Default for ByHost<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wild: BTreeMap::new() }
    }
}

impl<T> ByHost<T> {
    fn add(&mut self, host: &str, value: T) {
        match host.strip_prefix('*') {
            Some(end) => self.wild.entry(Reverse((end.len(), end.into()))).or_default().push(value),
            None => self.exact.entry(host.into()).or_default().push(value),
        }
    }

    /// What is for a host, the more exact first.
    fn matching<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Vec<T>> {
        let wild = self.wild.iter().filter(|(Reverse((_, end)), _)| host.ends_with(&**end));
        self.exact.get(host).into_iter().chain(wild.map(|(_, values)| values))
    }
}

/// All objects, found by name and by host.
#[derive(Debug)]
pub(super) struct Lookup<'a> {
    objects: &'a Objects,
    /// By full name.
    hosts: HashMap<Str, &'a Name>,
    rules: Vec<Rules>,
    by_host: ByHost<usize>,
    by_name: HashMap<Name, usize>,
    destination_rules: Vec<Rule<'a>>,
    /// By namespace.
    in_namespace: HashMap<Str, ByHost<usize>>,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(objects: &'a Objects) -> Self {
        let key = |name: &Name| full_name(&name.name, &name.namespace, &objects.domain);
        let mut lookup = Self {
            objects,
            hosts: objects.services.keys().map(|name| (key(name), name)).collect(),
            rules: Vec::new(),
            by_host: ByHost::default(),
            by_name: HashMap::new(),
            destination_rules: Vec::new(),
            in_namespace: HashMap::new(),
        };
        for object in in_order(&objects.virtual_services) {
            if let Typed::VirtualService(spec) = &object.spec {
                lookup.add_rules(object, spec);
            }
        }
        for object in in_order(&objects.destination_rules) {
            if let Typed::DestinationRule(spec) = &object.spec {
                lookup.add_destination_rule(object, spec);
            }
        }
        lookup
    }

    fn add_rules(&mut self, object: &Object, spec: &VirtualService) {
        let name = name_of(object);
        let place = self.rules.len();
        let spec = with_full_names(spec, &name.namespace, &self.objects.domain);
        for host in &spec.hosts {
            self.by_host.add(host, place);
        }
        let resource = Arc::new(ResourceName {
            kind: "VirtualService".into(),
            namespace: name.namespace.clone(),
            name: name.name.clone(),
        });
        self.by_name.insert(name.clone(), place);
        self.rules.push(Rules { name, resource, spec });
    }

    fn add_destination_rule(&mut self, object: &'a Object, spec: &'a DestinationRule) {
        let name = name_of(object);
        let host = full(&spec.host, &name.namespace, &self.objects.domain);
        let place = self.destination_rules.len();
        self.in_namespace.entry(name.namespace.clone()).or_default().add(&host, place);
        self.destination_rules.push(Rule { name, spec });
    }

    pub(super) fn virtual_service_names(&self) -> impl Iterator<Item = Name> {
        self.rules.iter().map(|rules| rules.name.clone())
    }

    pub(super) fn destination_rule_names(&self) -> impl Iterator<Item = Name> {
        self.destination_rules.iter().map(|rule| rule.name.clone())
    }

    /// A service's key, by its full name.
    pub(super) fn key_of(&self, name: &Name) -> NamespacedHostname {
        let hostname = full_name(&name.name, &name.namespace, &self.objects.domain);
        NamespacedHostname { namespace: name.namespace.clone(), hostname }
    }

    /// The service of a full name.
    pub(super) fn service(&self, host: &str) -> Option<(&'a Name, &'a Host)> {
        let name = *self.hosts.get(host)?;
        Some((name, self.objects.services.get(name)?))
    }

    /// The VirtualServices for a host, the most exact name first, of one name the oldest first. Those of other namespaces
    /// than the service's and its waypoint's do not count, as for Istio's waypoints: nobody routes what is not his.
    pub(super) fn rules_for(&self, name: &Name, host: &Host, key: &NamespacedHostname) -> Vec<&Rules> {
        let mut found: Vec<usize> = Vec::new();
        for places in self.by_host.matching(&key.hostname) {
            found.extend(places.iter().filter(|place| !found.contains(place)).copied().collect::<Vec<_>>());
        }
        let rules = found.into_iter().filter_map(|place| self.rules.get(place));
        rules.filter(|rules| counts(rules, name, host)).collect()
    }

    /// The VirtualService of a name that others may refer to from a namespace.
    pub(super) fn delegate(&self, name: &Name, from: &str) -> Option<&Rules> {
        let rules = self.by_name.get(name).and_then(|place| self.rules.get(*place))?;
        let visible = exported(&rules.spec.export_to, &name.namespace, from);
        (rules.spec.is_delegate() && visible).then_some(rules)
    }

    /// What the DestinationRules say of a service for who routes from a namespace, and which these are: those of that
    /// namespace, else of the service's, else of the root namespace; in one of them those of the most exact host.
    pub(super) fn destination(
        &self,
        service: &Name,
        from: &Str,
    ) -> Option<(traffic::Destination, Vec<Name>)> {
        let host = full_name(&service.name, &service.namespace, &self.objects.domain);
        let root = &self.objects.root_namespace;
        // The root namespace's rules are for all: only those for itself alone come before a service's own.
        let own = |rule: &Rule<'_>| from != root || rule.spec.export_to == ["."];
        let steps = [from, &service.namespace, root];
        for (step, namespace) in steps.into_iter().enumerate() {
            let Some(rules) = self.in_namespace.get(namespace) else { continue };
            for places in rules.matching(&host) {
                let rules = places.iter().filter_map(|place| self.destination_rules.get(*place));
                let visible = |rule: &&Rule<'_>| {
                    exported(&rule.spec.export_to, namespace, from) && (step > 0 || own(rule))
                };
                let rules: Vec<&Rule<'_>> = rules.filter(visible).collect();
                if !rules.is_empty() {
                    let names = rules.iter().map(|rule| rule.name.clone()).collect();
                    let merged = destination_rule::merge(rules.iter().map(|rule| (&rule.name, rule.spec)));
                    return Some((merged, names));
                }
            }
        }
        None
    }

    /// Says of what counts nowhere why that is so.
    pub(super) fn without_effect(&self, outcome: &mut Outcome) {
        for rules in &self.rules {
            let standing = outcome.virtual_services.entry(rules.name.clone()).or_default();
            standing.not_carried.extend(not_carried::of_virtual_service(&rules.spec));
            if rules.spec.is_delegate() {
                if standing.hosts.is_empty() {
                    standing.without_effect.insert("no VirtualService delegates to it".to_owned());
                }
                continue;
            }
            if !rules.spec.is_for_mesh() {
                let why = "it is for gateways only, and there are none yet: `gateways` does not name `mesh`";
                standing.without_effect.insert(why.to_owned());
                continue;
            }
            for host in &rules.spec.hosts {
                if let Some(why) = self.why_not(rules, host) {
                    standing.without_effect.insert(why);
                }
            }
        }
        for rule in &self.destination_rules {
            let standing = outcome.destination_rules.entry(rule.name.clone()).or_default();
            standing.not_carried.extend(not_carried::of_destination_rule(rule.spec));
            if standing.hosts.is_empty() {
                let why = format!(
                    "no service that is heeded there has the name {}, or another rule comes first",
                    rule.spec.host
                );
                standing.without_effect.insert(why);
            }
        }
    }

    /// Why a host of a VirtualService is not routed by it.
    fn why_not(&self, rules: &Rules, host: &str) -> Option<String> {
        if host.starts_with('*') {
            let any = self.hosts.iter().any(|(full, name)| {
                full.ends_with(&host[1..])
                    && self.objects.services.get(*name).is_some_and(|host| counts(rules, name, host))
            });
            return (!any).then(|| format!("no service that it may route is within {host}"));
        }
        let Some((name, found)) = self.service(host) else {
            return Some(format!("there is no service {host}"));
        };
        if counts(rules, name, found) {
            return None;
        }
        let (own, from) = (&name.namespace, &found.seen_from);
        Some(match exported(&rules.spec.export_to, &rules.name.namespace, from) {
            true => format!(
                "{host} is routed only by VirtualServices of namespace {own} or of its waypoint's, {from}"
            ),
            false => {
                format!("{host} is routed from namespace {from}, to which `exportTo` does not export it")
            }
        })
    }
}

/// Whether a VirtualService is heeded for a service.
fn counts(rules: &Rules, name: &Name, host: &Host) -> bool {
    let namespace = &rules.name.namespace;
    rules.spec.is_for_mesh()
        && !rules.spec.is_delegate()
        && (*namespace == name.namespace || *namespace == host.seen_from)
        && exported(&rules.spec.export_to, namespace, &host.seen_from)
}

/// Whether something of a namespace is exported to another.
fn exported(to: &[String], own: &str, other: &str) -> bool {
    to.is_empty() || to.iter().any(|to| to == "*" || to == other || (to == "." && own == other))
}

/// The oldest first; where no time is known, by namespace and name.
fn in_order(objects: &[Arc<Object>]) -> Vec<&Object> {
    let mut sorted: Vec<&Object> = objects.iter().map(|object| &**object).collect();
    sorted.sort_by_key(|object| {
        let created = object.metadata.creation_timestamp.as_deref();
        (created.is_none(), created, object.metadata.namespace.as_deref(), object.metadata.name.as_str())
    });
    sorted
}

fn name_of(object: &Object) -> Name {
    Name::new(object.metadata.namespace.as_deref().unwrap_or_default(), &object.metadata.name)
}

fn full_name(name: &str, namespace: &str, domain: &str) -> Str {
    format!("{name}.{namespace}.svc.{domain}").into()
}

/// A host's full name: a short one is of the namespace of who writes it.
fn full(host: &str, namespace: &str, domain: &str) -> String {
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    match host.contains('.') || host == "*" {
        true => host.to_owned(),
        false => full_name(host, namespace, domain).to_string(),
    }
}

/// The same with full names of hosts, and without matches that are for gateways alone.
fn with_full_names(spec: &VirtualService, namespace: &str, domain: &str) -> VirtualService {
    let mut spec = spec.clone();
    let put = |host: &mut String| *host = full(host, namespace, domain);
    spec.hosts.iter_mut().for_each(put);
    for route in &mut spec.http {
        route.route.iter_mut().for_each(|one| put(&mut one.destination.host));
        route.mirror.iter_mut().for_each(|one| put(&mut one.host));
        route.mirrors.iter_mut().for_each(|one| put(&mut one.destination.host));
        if let Some(delegate) = route.delegate.as_mut().filter(|delegate| delegate.namespace.is_empty()) {
            delegate.namespace = namespace.to_owned();
        }
    }
    spec.tls.iter_mut().flat_map(|rule| &mut rule.route).for_each(|one| put(&mut one.destination.host));
    spec.tcp.iter_mut().flat_map(|rule| &mut rule.route).for_each(|one| put(&mut one.destination.host));
    spec
}

/// Whether a match counts inside the mesh.
pub(super) fn in_mesh(gateways: &[String]) -> bool {
    gateways.is_empty() || gateways.iter().any(|name| name == "mesh")
}

/// A rule's matches that count inside the mesh; `None` where it had some and none of them does.
pub(super) fn mesh_matches(route: &HttpRoute) -> Option<Vec<&manifest::istio::HttpMatch>> {
    let all: Vec<_> = route.matches.iter().filter(|one| in_mesh(&one.gateways)).collect();
    (route.matches.is_empty() || !all.is_empty()).then_some(all)
}
