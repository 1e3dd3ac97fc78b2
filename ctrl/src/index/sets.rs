//! Sets by key that are not there when they are empty.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use super::Name;

/// Adds a name to the set of a key.
pub(super) fn put<K: Hash + Eq>(sets: &mut HashMap<K, BTreeSet<Name>>, key: K, name: &Name) {
    sets.entry(key).or_default().insert(name.clone());
}

/// Takes a name out of the set of a key.
pub(super) fn take<K: Hash + Eq>(sets: &mut HashMap<K, BTreeSet<Name>>, key: &K, name: &Name) {
    if let Some(names) = sets.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            sets.remove(key);
        }
    }
}
