//! From what the watches of all kinds tell to batches: the first when every kind is known, so that nobody takes what
//! has not been listed yet for gone; afterwards whatever has come meanwhile. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use manifest::{Batch, Finding, Key, Object};

/// What one watch tells: already read, so that reading is not the work of the one who gathers.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Which of the watches.
    pub(super) watch: usize,
    /// Objects that are new or different, each with what is wrong with it.
    pub(super) objects: Vec<(Arc<Object>, Vec<Finding>)>,
    /// Objects that are gone.
    pub(super) removed: Vec<Key>,
    /// All of the kind is known now.
    pub(super) complete: bool,
}

/// What has been told and not passed on.
#[derive(Debug)]
pub(super) struct Gather {
    /// Watches that do not know all of their kind yet.
    incomplete: BTreeSet<usize>,
    /// The first batch has been passed on.
    begun: bool,
    /// What becomes of each object: the last word counts.
    pending: BTreeMap<Key, Option<Arc<Object>>>,
    findings: BTreeMap<Key, Vec<Finding>>,
    findings_changed: bool,
}

impl Gather {
    /// Of so many watches.
    pub(super) fn new(watches: usize) -> Self {
        Self {
            incomplete: (0..watches).collect(),
            begun: false,
            pending: BTreeMap::new(),
            findings: BTreeMap::new(),
            findings_changed: true,
        }
    }

    /// Takes what a watch tells.
    pub(super) fn take(&mut self, news: News) {
        for key in news.removed {
            self.find(&key, &[]);
            self.pending.insert(key, None);
        }
        for (object, findings) in news.objects {
            let key = object.key();
            self.find(&key, &findings);
            self.pending.insert(key, Some(object));
        }
        if news.complete {
            self.incomplete.remove(&news.watch);
        }
    }

    fn find(&mut self, key: &Key, findings: &[Finding]) {
        let before = match findings.is_empty() {
            true => self.findings.remove(key).unwrap_or_default(),
            false => self.findings.insert(key.clone(), findings.to_vec()).unwrap_or_default(),
        };
        self.findings_changed |= before != findings;
    }

    /// How many objects wait.
    pub(super) fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// The next batch, if there is anything to pass on: the first also if that is nothing.
    pub(super) fn batch(&mut self) -> Option<Batch> {
        if !self.incomplete.is_empty() || (self.begun && self.pending.is_empty() && !self.findings_changed) {
            return None;
        }
        self.begun = true;
        let mut batch = Batch { findings_changed: self.findings_changed, ..Batch::default() };
        self.findings_changed = false;
        batch.findings = self.findings.values().flatten().cloned().collect();
        for (key, object) in std::mem::take(&mut self.pending) {
            match object {
                Some(object) => batch.upserted.push(object),
                None => batch.removed.push(key),
            }
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests;
