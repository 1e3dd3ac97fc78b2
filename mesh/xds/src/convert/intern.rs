//! Shares equal strings, profiles and addresses of gateways. A mesh of 100,000 pods has few namespaces, accounts and deployments.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use foldhash::fast::RandomState;
use model::address::Str;
use model::workload::{GatewayAddress, Profile};

/// Below this many entries nothing is ever swept.
const SMALLEST_SWEEP: usize = 1024;

/// Strings that were read.
#[derive(Debug)]
pub(crate) struct Strings {
    known: Pool<str>,
    empty: Str,
}

/// Profiles that were read.
pub(crate) type Profiles = Pool<Profile>;

/// Addresses of gateways that were read.
pub(crate) type Gateways = Pool<GatewayAddress>;

/// Values that somebody may still hold. Whenever their number has doubled, those that nobody holds are dropped.
#[derive(Debug)]
pub(crate) struct Pool<T: ?Sized> {
    /// With a fast hash: what is read comes from the controller.
    known: HashSet<Arc<T>, RandomState>,
    sweep_at: usize,
}

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self { known: HashSet::default(), sweep_at: SMALLEST_SWEEP }
    }
}

impl<T: ?Sized + Eq + Hash> Pool<T> {
    fn insert(&mut self, value: Arc<T>) -> Arc<T> {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|value| Arc::strong_count(value) > 1);
            self.known.shrink_to(self.known.len() * 2);
            self.sweep_at = (self.known.len() * 2).max(SMALLEST_SWEEP);
        }
        self.known.insert(value.clone());
        value
    }
}

impl Default for Strings {
    fn default() -> Self {
        Self { known: Pool::default(), empty: Str::from("") }
    }
}

impl Strings {
    /// The shared string equal to `text`.
    pub(crate) fn get(&mut self, text: &str) -> Str {
        if text.is_empty() {
            return self.empty.clone();
        }
        match self.known.known.get(text) {
            Some(known) => known.clone(),
            None => self.known.insert(Str::from(text)),
        }
    }

    /// The shared string equal to `text`, if there is one.
    pub(crate) fn held(&self, text: &str) -> Option<Str> {
        self.known.known.get(text).cloned()
    }

    /// Shares this very string from now on, unless an equal one is shared already.
    pub(crate) fn share(&mut self, text: &Str) {
        if !self.known.known.contains(text) {
            self.known.insert(text.clone());
        }
    }

    /// The shared string equal to `text`, or to `default` if it is empty.
    pub(crate) fn get_or(&mut self, text: &str, default: &str) -> Str {
        self.get(if text.is_empty() { default } else { text })
    }
}

impl<T: Eq + Hash> Pool<T> {
    /// The shared value equal to this one.
    pub(crate) fn get(&mut self, value: T) -> Arc<T> {
        match self.known.get(&value) {
            Some(known) => known.clone(),
            None => self.insert(Arc::new(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_are_one() {
        let mut strings = Strings::default();
        assert!(Arc::ptr_eq(&strings.get("a"), &strings.get("a")));
        assert!(Arc::ptr_eq(&strings.get(""), &strings.get_or("", "")));
        assert_eq!(&*strings.get_or("", "b"), "b");
    }

    #[test]
    fn what_nobody_holds_is_dropped() {
        let mut strings = Strings::default();
        let held = strings.get("held");
        for number in 0..10 * SMALLEST_SWEEP {
            strings.get(&number.to_string());
        }
        assert!(strings.known.known.len() <= SMALLEST_SWEEP + 1, "{}", strings.known.known.len());
        assert!(Arc::ptr_eq(&held, &strings.get("held")));
    }
}
