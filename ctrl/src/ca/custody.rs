//! Of several replicas with one authority: whether this one may change it, and for how many proxies of the others it waits.
//! What all of them have in common stands in the cluster; `cluster/custody` reads and writes it.

mod others;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::time::Instant;

use self::others::Others;
pub(crate) use self::others::Report;
use super::keyring::{Keyring, Texts};

/// Whether this replica may change the authority, and what the cluster has of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Custody(Arc<Mutex<Held>>);

/// What this replica knows of the others and of what is written down.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) leads: bool,
    /// What is written down.
    pub(crate) there: Option<Texts>,
    /// The version of it that this replica wrote or read last.
    pub(crate) version: Option<String>,
    pub(crate) others: Others,
}

impl Custody {
    /// What is written down, and its version, if the cluster could be asked.
    pub(crate) fn new(there: Option<(Texts, Option<String>)>) -> Self {
        let (there, version) = there.unzip();
        let version = version.flatten();
        Self(Arc::new(Mutex::new(Held { there, version, ..Held::default() })))
    }

    /// Looks at what is held, or changes it.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether this replica is the one that changes the authority.
    pub fn leads(&self) -> bool {
        self.with(|held| held.leads)
    }

    /// Whether a step may be taken: this replica leads, and what it did before is written down for all.
    pub fn may_step(&self, keyring: &Keyring) -> bool {
        self.with(|held| held.leads && held.there.as_ref() == Some(&keyring.texts()))
    }

    /// How many are still waited for, besides this replica's own proxies, before the successor signs.
    pub fn awaited_elsewhere(&self, since: SystemTime, now: SystemTime) -> usize {
        self.with(|held| held.others.awaited(since, now, Instant::now()))
    }
}
