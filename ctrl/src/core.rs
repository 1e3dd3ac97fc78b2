//! What the controller holds, in one place: the compiler, what it published, and what is wrong with the configuration.
//! One task writes; the certificate service and the admin socket read.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use manifest::{Finding, Level};
use model::identity::Identity;
use model::mesh::Trust;
use xds::delta::store::Revision;
use xds::server::Publisher;

use crate::compile::{Compiler, TYPES};
use crate::source::Batch;
use crate::translate::Context;

/// What the controller holds. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Core {
    held: Arc<RwLock<Held>>,
    /// Shown to proxies that know our extensions.
    pub ours: Arc<Publisher>,
    /// Shown to others.
    pub foreign: Arc<Publisher>,
}

/// What is read under the lock.
#[derive(Debug)]
pub struct Held {
    /// What is known and what it means.
    pub compiler: Compiler,
    /// What is wrong with the manifests, each by itself and beside what else there is.
    pub findings: Vec<Finding>,
    /// The first of these, as they came.
    given: Vec<Finding>,
    /// The revision at which the mesh's settings were published last.
    settings: Option<Revision>,
}

/// What a batch came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// The revision now, if anything is different for proxies.
    pub revision: Option<Revision>,
    /// Keys translated.
    pub translated: usize,
}

impl Core {
    /// Nothing yet.
    pub fn new(context: Context) -> Self {
        let held = Held {
            compiler: Compiler::new(context),
            findings: Vec::new(),
            given: Vec::new(),
            settings: None,
        };
        Self {
            held: Arc::new(RwLock::new(held)),
            ours: Arc::new(Publisher::new(TYPES)),
            foreign: Arc::new(Publisher::new(TYPES)),
        }
    }

    /// Takes a batch into account and publishes what is different.
    pub fn apply(&self, batch: &Batch) -> Applied {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let edits = held.compiler.apply(batch);
        if batch.findings_changed {
            held.given.clone_from(&batch.findings);
        }
        if batch.findings_changed || edits.claims {
            let now = [held.given.clone(), held.compiler.findings()].concat();
            tell(&held.findings, &now);
            held.findings = now;
        }
        // Published before anybody can see that it was read: who sees it read may ask whether it is in force.
        self.foreign.apply(edits.foreign);
        let revision = self.ours.apply(edits.ours);
        // With the first batch.
        held.settings = held.settings.or(revision);
        Applied { revision, translated: edits.translated }
    }

    /// Publishes whose certificates count, if that is something else than before.
    pub fn set_trust(&self, trust: Trust) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let Some(edits) = held.compiler.set_trust(trust) else { return };
        self.foreign.apply(edits.foreign);
        held.settings = self.ours.apply(edits.ours).or(held.settings);
    }

    /// The revision at which the mesh's settings were published last, once they were.
    pub fn settings_revision(&self) -> Option<Revision> {
        self.read().settings
    }

    /// Looks at what is held. Applying waits meanwhile.
    pub fn read(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a pod that runs as an identity is on a node.
    pub fn on_node(&self, node: &str, identity: &Identity) -> bool {
        self.read().compiler.index().runs_on(node, identity.namespace(), identity.service_account())
    }

    /// Ends all streams: the controller is going away.
    pub fn close(&self) {
        self.ours.close();
        self.foreign.close();
    }
}

/// Logs what was not said before.
fn tell(before: &[Finding], now: &[Finding]) {
    let said: HashSet<String> = before.iter().map(ToString::to_string).collect();
    for finding in now.iter().filter(|finding| !said.contains(&finding.to_string())) {
        match finding.level {
            Level::Error => tracing::error!(code = %finding.code, "{finding}"),
            Level::Warning => tracing::warn!(code = %finding.code, "{finding}"),
            Level::Info => tracing::info!(code = %finding.code, "{finding}"),
        }
    }
}
