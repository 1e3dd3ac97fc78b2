//! PeerAuthentications: whether a workload takes callers without an identity. The narrowest scope that says something
//! counts: workload, namespace, mesh; at each the oldest.

use std::collections::BTreeMap;

use model::address::Str;

use super::Name;
use super::facts::PeerRule;
use super::labels::{Labels, Selectors};

/// What PeerAuthentications come to for some workloads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strictness {
    /// Whether callers need an identity.
    pub strict: bool,
    /// The ports on which it is the other way round.
    pub except: Vec<u16>,
}

#[derive(Debug)]
pub(super) struct PeerRules {
    root_namespace: Str,
    rules: BTreeMap<Name, PeerRule>,
    selectors: Selectors,
}

impl PeerRules {
    pub(super) fn new(root_namespace: Str) -> Self {
        Self { root_namespace, rules: BTreeMap::new(), selectors: Selectors::default() }
    }

    pub(super) fn get(&self, name: &Name) -> Option<&PeerRule> {
        self.rules.get(name)
    }

    pub(super) fn set(&mut self, name: &Name, rule: Option<PeerRule>) {
        let selector = rule.as_ref().map(|rule| rule.selector.clone());
        self.selectors.set(name, Some(name.namespace.clone()), selector);
        match rule {
            Some(rule) => drop(self.rules.insert(name.clone(), rule)),
            None => drop(self.rules.remove(name)),
        }
    }

    /// The names of a namespace, or all.
    pub(super) fn in_namespace<'a>(&'a self, namespace: Option<&'a Str>) -> impl Iterator<Item = Name> + 'a {
        let inside = move |name: &&Name| namespace.is_none_or(|namespace| name.namespace == *namespace);
        self.rules.keys().filter(inside).cloned()
    }

    pub(super) fn strictness(&self, name: &Name) -> Option<Strictness> {
        let rule = self.rules.get(name).filter(|rule| !rule.selector.is_empty())?;
        Some(rule.over(self.inherited(&name.namespace)))
    }

    pub(super) fn strictness_for(&self, namespace: &Str, labels: &Labels) -> (Strictness, Option<Name>) {
        let inherited = self.inherited(namespace);
        match self.selecting(namespace, labels) {
            Some(rule) => (rule.over(inherited), Some(rule.name.clone())),
            None => (Strictness { strict: inherited, except: Vec::new() }, None),
        }
    }

    /// Of those that select a workload, the one that counts.
    fn selecting(&self, namespace: &Str, labels: &Labels) -> Option<&PeerRule> {
        let names = self.selectors.selecting(namespace, labels);
        names.iter().filter_map(|name| self.rules.get(name)).min_by_key(|rule| rule.precedence())
    }

    /// What mesh and namespace say.
    fn inherited(&self, namespace: &Str) -> bool {
        let of = |namespace: &Str| self.for_all_of(namespace).and_then(|rule| rule.strict);
        of(namespace).or_else(|| of(&self.root_namespace)).unwrap_or(false)
    }

    /// Of those of a namespace without selector, the one that counts.
    fn for_all_of(&self, namespace: &Str) -> Option<&PeerRule> {
        let start = Name::new(namespace, "");
        let own = self.rules.range(start..).map(|(_, rule)| rule);
        let own = own.take_while(|rule| rule.name.namespace == *namespace);
        own.filter(|rule| rule.selector.is_empty()).min_by_key(|rule| rule.precedence())
    }

    /// The one that counts instead of this, for all of a namespace or for equal selectors.
    pub(super) fn before(&self, name: &Name) -> Option<Name> {
        let rule = self.rules.get(name)?;
        let first = match rule.selector.is_empty() {
            true => self.for_all_of(&name.namespace)?,
            false => {
                let start = Name::new(&name.namespace, "");
                let own = self.rules.range(start..).map(|(_, rule)| rule);
                let own = own.take_while(|other| other.name.namespace == name.namespace);
                own.filter(|other| other.selector == rule.selector).min_by_key(|rule| rule.precedence())?
            }
        };
        (first.name != *name).then(|| first.name.clone())
    }
}

impl PeerRule {
    /// Smaller counts first. One that cannot be read counts before all others, as the strictest it may have meant.
    fn precedence(&self) -> (bool, bool, &Option<String>, &Name) {
        (!self.broken, self.created.is_none(), &self.created, &self.name)
    }

    /// What it says where the wider scopes say `inherited`.
    fn over(&self, inherited: bool) -> Strictness {
        let strict = self.strict.unwrap_or(inherited);
        let differs =
            |(port, mode): (&u16, &Option<bool>)| (mode.unwrap_or(strict) != strict).then_some(*port);
        Strictness { strict, except: self.ports.iter().filter_map(differs).collect() }
    }
}
