//! Who is for a host: VirtualServices in the order in which they count, and the DestinationRule that counts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use manifest::istio::{DestinationRule, HttpRoute, VirtualService};
use manifest::{Object, Typed};
use model::address::{NamespacedHostname, Str};
use model::route::ResourceName;
use model::traffic;

use super::objects::Host;
use super::{Standing, asked, destination_rule, room};
use crate::index::Name;

/// A VirtualService whose names are all full ones.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) name: Name,
    pub(super) resource: Arc<ResourceName>,
    pub(super) spec: VirtualService,
    /// Of a delegate, how long each of its rules is: they are copied for each rule that delegates to it.
    pub(super) lengths: Vec<usize>,
    age: Age,
}

/// A DestinationRule.
#[derive(Debug)]
struct Rule {
    name: Name,
    /// By its full name.
    host: String,
    spec: DestinationRule,
    age: Age,
}

/// The oldest first; where no time is known, by namespace and name.
type Age = (bool, Option<String>, Name);

/// What is for hosts, by their names.
#[derive(Debug, Default)]
struct ByHost {
    exact: HashMap<Str, BTreeSet<Name>>,
    /// By what follows the `*`, the longest first.
    wild: BTreeMap<Reverse<(usize, Str)>, BTreeSet<Name>>,
}

impl ByHost {
    fn add(&mut self, host: &str, name: &Name) {
        let names = match host.strip_prefix('*') {
            Some(end) => self.wild.entry(Reverse((end.len(), end.into()))).or_default(),
            None => self.exact.entry(host.into()).or_default(),
        };
        names.insert(name.clone());
    }

    fn remove(&mut self, host: &str, name: &Name) {
        match host.strip_prefix('*') {
            Some(end) => {
                let key = Reverse((end.len(), Str::from(end)));
                if self.wild.get_mut(&key).is_some_and(|names| names.remove(name) && names.is_empty()) {
                    self.wild.remove(&key);
                }
            }
            None => {
                if self.exact.get_mut(host).is_some_and(|names| names.remove(name) && names.is_empty()) {
                    self.exact.remove(host);
                }
            }
        }
    }

    /// What is for a host, the more exact first.
    fn matching<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a BTreeSet<Name>> {
        let wild = self.wild.iter().filter(|(Reverse((_, end)), _)| host.ends_with(&**end));
        self.exact.get(host).into_iter().chain(wild.map(|(_, values)| values))
    }
}

/// All objects, found by name and by host.
#[derive(Debug)]
pub(super) struct Lookup {
    domain: Str,
    root_namespace: Str,
    services: BTreeMap<Name, Host>,
    /// By full name.
    hosts: HashMap<Str, Name>,
    rules: BTreeMap<Name, Rules>,
    by_host: ByHost,
    destination_rules: BTreeMap<Name, Rule>,
    /// By namespace.
    in_namespace: HashMap<Str, ByHost>,
}

impl Lookup {
    /// Nothing yet.
    pub(super) fn new(domain: Str, root_namespace: Str) -> Self {
        Self {
            domain,
            root_namespace,
            services: BTreeMap::new(),
            hosts: HashMap::new(),
            rules: BTreeMap::new(),
            by_host: ByHost::default(),
            destination_rules: BTreeMap::new(),
            in_namespace: HashMap::new(),
        }
    }

    /// A service is another, is new, or is gone; whether anything is different now.
    pub(super) fn set_service(&mut self, name: &Name, host: Option<Host>) -> bool {
        if self.services.get(name) == host.as_ref() {
            return false;
        }
        let full = full_name(&name.name, &name.namespace, &self.domain);
        match host {
            Some(host) => {
                self.hosts.insert(full, name.clone());
                self.services.insert(name.clone(), host);
            }
            None => {
                self.hosts.remove(&full);
                self.services.remove(name);
            }
        }
        true
    }

    /// A VirtualService is another, is new, or is gone; the hosts that it was for and is for.
    pub(super) fn set_rules(&mut self, name: &Name, object: Option<&Object>) -> BTreeSet<String> {
        let mut touched = BTreeSet::new();
        if let Some(old) = self.rules.remove(name) {
            old.spec.hosts.iter().for_each(|host| self.by_host.remove(host, name));
            touched.extend(old.spec.hosts);
        }
        if let Some(object) = object
            && let Typed::VirtualService(spec) = &object.spec
        {
            let spec = with_full_names(spec, &name.namespace, &self.domain);
            spec.hosts.iter().for_each(|host| self.by_host.add(host, name));
            touched.extend(spec.hosts.iter().cloned());
            let resource = Arc::new(ResourceName {
                kind: "VirtualService".into(),
                namespace: name.namespace.clone(),
                name: name.name.clone(),
            });
            let delegated = spec.http.iter().filter(|_| spec.is_delegate());
            let lengths = delegated.map(room::length).collect();
            let rules = Rules { name: name.clone(), resource, spec, lengths, age: age(object, name) };
            self.rules.insert(name.clone(), rules);
        }
        touched
    }

    /// The same of a DestinationRule.
    pub(super) fn set_destination_rule(&mut self, name: &Name, object: Option<&Object>) -> BTreeSet<String> {
        let mut touched = BTreeSet::new();
        let by_host = self.in_namespace.entry(name.namespace.clone()).or_default();
        if let Some(old) = self.destination_rules.remove(name) {
            by_host.remove(&old.host, name);
            touched.insert(old.host);
        }
        if let Some(object) = object
            && let Typed::DestinationRule(spec) = &object.spec
        {
            let host = full(&spec.host, &name.namespace, &self.domain);
            by_host.add(&host, name);
            touched.insert(host.clone());
            let rule = Rule { name: name.clone(), host, spec: (**spec).clone(), age: age(object, name) };
            self.destination_rules.insert(name.clone(), rule);
        }
        touched
    }

    /// The services that a host's name, or a wildcard, means.
    pub(super) fn services_of(&self, host: &str) -> Vec<Name> {
        match host.strip_prefix('*') {
            Some(end) => {
                let within = self.hosts.iter().filter(|(full, _)| full.ends_with(end));
                within.map(|(_, name)| name.clone()).collect()
            }
            None => self.hosts.get(host).cloned().into_iter().collect(),
        }
    }

    #[cfg(test)]
    pub(super) fn virtual_service_names(&self) -> impl Iterator<Item = Name> {
        self.rules.keys().cloned()
    }

    #[cfg(test)]
    pub(super) fn destination_rule_names(&self) -> impl Iterator<Item = Name> {
        self.destination_rules.keys().cloned()
    }

    /// A service's key, by its full name.
    pub(super) fn key_of(&self, name: &Name) -> NamespacedHostname {
        let hostname = full_name(&name.name, &name.namespace, &self.domain);
        NamespacedHostname::new(&name.namespace, &hostname)
    }

    /// The service of a full name.
    pub(super) fn service(&self, host: &str) -> Option<(&Name, &Host)> {
        let name = self.hosts.get(host)?;
        Some((name, self.services.get(name)?))
    }

    /// The VirtualServices for a host, the most exact name first, of one name the oldest first. Those of other namespaces
    /// than the service's and its waypoint's do not count, as for Istio's waypoints: nobody routes what is not his.
    pub(super) fn rules_for(&self, name: &Name, host: &Host, key: &NamespacedHostname) -> Vec<&Rules> {
        let mut found: Vec<&Rules> = Vec::new();
        for names in self.by_host.matching(key.hostname()) {
            let all = names
                .iter()
                .filter_map(|name| self.rules.get(name))
                .filter(|rules| counts(rules, name, host));
            let mut new: Vec<&Rules> =
                all.filter(|rules| found.iter().all(|known| known.name != rules.name)).collect();
            new.sort_by(|one, other| one.age.cmp(&other.age));
            found.extend(new);
        }
        found
    }

    /// The VirtualService of a name that others may refer to from a namespace.
    pub(super) fn delegate(&self, name: &Name, from: &str) -> Option<&Rules> {
        let rules = self.rules.get(name)?;
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
        let host = full_name(&service.name, &service.namespace, &self.domain);
        let root = &self.root_namespace;
        // The root namespace's rules are for all: only those for itself alone come before a service's own.
        let own = |rule: &Rule| from != root || rule.spec.export_to == ["."];
        let steps = [from, &service.namespace, root];
        for (step, namespace) in steps.into_iter().enumerate() {
            let Some(rules) = self.in_namespace.get(namespace) else { continue };
            for names in rules.matching(&host) {
                let rules = names.iter().filter_map(|name| self.destination_rules.get(name));
                let visible =
                    |rule: &&Rule| exported(&rule.spec.export_to, namespace, from) && (step > 0 || own(rule));
                let mut rules: Vec<&Rule> = rules.filter(visible).collect();
                rules.sort_by(|one, other| one.age.cmp(&other.age));
                if !rules.is_empty() {
                    let names = rules.iter().map(|rule| rule.name.clone()).collect();
                    let merged = destination_rule::merge(rules.iter().map(|rule| (&rule.name, &rule.spec)));
                    return Some((merged, names));
                }
            }
        }
        None
    }

    /// What became of a VirtualService that counts for these hosts; nothing if there is none of the name.
    pub(super) fn of_rules(&self, name: &Name, hosts: BTreeSet<Str>) -> Option<Standing> {
        let rules = self.rules.get(name)?;
        let mut without_effect = BTreeSet::new();
        if rules.spec.is_delegate() {
            if hosts.is_empty() {
                without_effect.insert("no VirtualService delegates to it".to_owned());
            }
        } else if !rules.spec.is_for_mesh() {
            let why = "it is for gateways only, and there are none yet: `gateways` does not name `mesh`";
            without_effect.insert(why.to_owned());
        } else {
            without_effect.extend(rules.spec.hosts.iter().filter_map(|host| self.why_not(rules, host)));
            let own = rules.spec.hosts.iter().filter_map(|host| hosts.get(host.as_str()));
            without_effect.extend(own.filter_map(|host| self.shadowed(rules, host)));
        }
        Some(Standing { hosts, without_effect, asked: asked::of_virtual_service(&rules.spec) })
    }

    /// The same of a DestinationRule.
    pub(super) fn of_destination_rule(&self, name: &Name, hosts: BTreeSet<Str>) -> Option<Standing> {
        let rule = self.destination_rules.get(name)?;
        let why = || {
            format!(
                "no service that is heeded there has the name {}, or another rule comes first",
                rule.spec.host
            )
        };
        let without_effect = if hosts.is_empty() { BTreeSet::from([why()]) } else { BTreeSet::new() };
        Some(Standing { hosts, without_effect, asked: asked::of_destination_rule(&rule.spec) })
    }

    /// Which older VirtualService of the same host takes every request before this one's rules are asked.
    fn shadowed(&self, rules: &Rules, host: &str) -> Option<String> {
        let (name, found) = self.service(host).filter(|_| !rules.spec.http.is_empty())?;
        let all = self.rules_for(name, found, &self.key_of(name));
        let mut before = all.into_iter().take_while(|one| one.name != rules.name);
        let takes_all = |one: &Rules| one.spec.http.iter().position(|rule| rule.matches.is_empty());
        let (other, index) = before.find_map(|one| takes_all(one).map(|index| (one, index)))?;
        Some(format!(
            "its rules for HTTP are never used for {host}: those of VirtualService {}, which is older, come first, and its \
             http[{index}] takes everything",
            other.name
        ))
    }

    /// Why a host of a VirtualService is not routed by it.
    fn why_not(&self, rules: &Rules, host: &str) -> Option<String> {
        if host.starts_with('*') {
            let any = self.hosts.iter().any(|(full, name)| {
                full.ends_with(&host[1..])
                    && self.services.get(name).is_some_and(|host| counts(rules, name, host))
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

fn age(object: &Object, name: &Name) -> Age {
    let created = object.metadata.creation_timestamp.clone();
    (created.is_none(), created, name.clone())
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
