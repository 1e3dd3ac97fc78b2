//! Who selects a set of labels, found without asking everybody.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use model::address::Str;

use super::Name;

/// Labels that must be there.
pub(crate) type Labels = BTreeMap<String, String>;

/// Whether a selector with at least one label matches.
pub(super) fn matches(selector: &Labels, labels: &Labels) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Selectors, by the first label that each wants and the namespace it is for.
#[derive(Debug, Default)]
pub(super) struct Selectors {
    by_label: HashMap<Wanted, BTreeSet<Name>>,
    selectors: HashMap<Name, (Option<Str>, Labels)>,
}

/// A namespace (none: any), a label and its value.
type Wanted = (Option<Str>, String, String);

impl Selectors {
    /// Sets what somebody selects: in one namespace, or in all.
    pub(super) fn set(&mut self, name: &Name, namespace: Option<Str>, selector: Option<Labels>) {
        if let Some((namespace, selector)) = self.selectors.remove(name)
            && let Some(wanted) = wanted(namespace, &selector)
            && let Some(names) = self.by_label.get_mut(&wanted)
        {
            names.remove(name);
            if names.is_empty() {
                self.by_label.remove(&wanted);
            }
        }
        let Some(selector) = selector else { return };
        if let Some(wanted) = wanted(namespace.clone(), &selector) {
            self.by_label.entry(wanted).or_default().insert(name.clone());
        }
        self.selectors.insert(name.clone(), (namespace, selector));
    }

    /// What somebody selects.
    pub(super) fn get(&self, name: &Name) -> Option<&Labels> {
        self.selectors.get(name).map(|(_, selector)| selector)
    }

    /// Who selects something with these labels, by name.
    pub(super) fn selecting(&self, namespace: &Str, labels: &Labels) -> Vec<Name> {
        let mut found = BTreeSet::new();
        for (key, value) in labels {
            for namespace in [None, Some(namespace.clone())] {
                let names = self.by_label.get(&(namespace, key.clone(), value.clone()));
                let selects = |name: &&Name| {
                    self.selectors.get(*name).is_some_and(|(_, selector)| matches(selector, labels))
                };
                found.extend(names.into_iter().flatten().filter(selects).cloned());
            }
        }
        found.into_iter().collect()
    }
}

fn wanted(namespace: Option<Str>, selector: &Labels) -> Option<Wanted> {
    let (key, value) = selector.first_key_value()?;
    Some((namespace, key.clone(), value.clone()))
}
