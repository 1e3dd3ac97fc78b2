//! What the controller holds, in one place: the compiler, what it published, and what is wrong with the configuration.
//! One task writes; the certificate service and the admin socket read.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use manifest::{Batch, Finding, Level, Object};
use model::address::NamespacedHostname;
use model::identity::Identity;
use model::mesh::Trust;
use model::route::Routing;
use tokio::sync::watch;
use xds::convert::routing::features::Feature;
use xds::delta::store::Revision;
use xds::server::Publisher;

use crate::compile::deployments::Deployment;
use crate::compile::{Compiler, TYPES, layer7_types};
use crate::index::{Kept, Name};
use crate::translate::{self, Context};

/// What the controller holds. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Core {
    held: Arc<RwLock<Held>>,
    /// Shown to proxies that know our extensions.
    pub ours: Arc<Publisher>,
    /// Shown to others.
    pub foreign: Arc<Publisher>,
    /// Shown to waypoints: the first, with the labels of workloads. Empty before there is a waypoint.
    pub layer7: Arc<Publisher>,
    /// Wakes who looks at what is held.
    changed: watch::Sender<()>,
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
    /// The revisions at which the mesh's settings were published last.
    settings: Option<Revisions>,
    /// What of waypoints is still to be kept for a restart.
    kept: Vec<Kept>,
}

/// Revisions of one thing, by what proxies are shown: each view counts its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Revisions {
    /// For agents that know our extensions.
    pub ours: Revision,
    /// For waypoints.
    pub layer7: Revision,
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
            kept: Vec::new(),
        };
        Self {
            held: Arc::new(RwLock::new(held)),
            ours: Arc::new(Publisher::new(TYPES)),
            foreign: Arc::new(Publisher::new(TYPES)),
            layer7: Arc::new(Publisher::new(layer7_types())),
            changed: watch::Sender::default(),
        }
    }

    /// Waypoints that have been ready before a restart, by their Gateways as they were.
    pub fn remember(&self, gateways: &[Object]) {
        self.held.write().unwrap_or_else(PoisonError::into_inner).compiler.remember(gateways);
    }

    /// Routings as they were last good before a restart.
    pub fn remember_routings(&self, routings: Vec<Routing>) {
        self.held.write().unwrap_or_else(PoisonError::into_inner).compiler.remember_routings(routings);
    }

    /// Last good routings of another replica: they count where rules do not resolve now.
    pub fn adopt_routings(&self, routings: impl IntoIterator<Item = Arc<Routing>>) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let edits = held.compiler.adopt_routings(routings);
        if edits.claims {
            held.findings = [held.given.clone(), held.compiler.findings()].concat();
        }
        self.layer7.apply(edits.layer7);
        drop(held);
        self.changed.send_replace(());
    }

    /// The hosts whose last good routing is another than when this was asked last, with it.
    pub fn take_routings(&self) -> Vec<(NamespacedHostname, Option<Arc<Routing>>)> {
        self.held.write().unwrap_or_else(PoisonError::into_inner).compiler.take_last_good()
    }

    /// All last good routings.
    pub fn last_good(&self) -> Vec<Arc<Routing>> {
        self.read().compiler.routing().last_good.values().cloned().collect()
    }

    /// What of waypoints is to be kept for a restart, with the Gateways of those that are.
    pub fn take_kept(&self) -> Vec<(Name, Option<Arc<Object>>)> {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let kept = std::mem::take(&mut held.kept);
        let index = held.compiler.index();
        let with_object = |kept| match kept {
            Kept::Ready(name) => {
                let object = index.gateway_object(&name).cloned();
                (name, object)
            }
            Kept::Gone(name) => (name, None),
        };
        kept.into_iter().map(with_object).collect()
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
        let layer7 = self.layer7.apply(edits.layer7);
        held.kept.extend(edits.kept);
        let revision = self.ours.apply(edits.ours);
        // With the first batch, and with the first for waypoints.
        if let Some(ours) = revision {
            held.settings.get_or_insert(Revisions { ours, layer7: 0 });
        }
        if let (Some(settings), Some(layer7)) = (&mut held.settings, layer7)
            && settings.layer7 == 0
        {
            settings.layer7 = layer7;
        }
        drop(held);
        self.changed.send_replace(());
        Applied { revision, translated: edits.translated }
    }

    /// Publishes whose certificates count, if that is something else than before.
    pub fn set_trust(&self, trust: Trust) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let Some(edits) = held.compiler.set_trust(trust) else { return };
        self.foreign.apply(edits.foreign);
        let before = held.settings.unwrap_or_default();
        let layer7 = self.layer7.apply(edits.layer7).unwrap_or(before.layer7);
        if let Some(ours) = self.ours.apply(edits.ours) {
            held.settings = Some(Revisions { ours, layer7 });
        }
        drop(held);
        self.changed.send_replace(());
    }

    /// Tells of every change of what is held, before long.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// A waypoint that lacks features which others of this version have has come or gone.
    pub fn note_lagging(&self, pod: &Name, lacks: Vec<Feature>, connected: bool) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.compiler.lagging_mut().note(pod, lacks, connected);
        drop(held);
        self.changed.send_replace(());
    }

    /// What became of the objects that are made for Gateways, by those that have been looked at.
    pub(crate) fn note_deployments(&self, all: BTreeMap<Name, Deployment>) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let changed = held.compiler.deployments_mut().set(all);
        drop(held);
        if changed {
            self.changed.send_replace(());
        }
    }

    /// The revisions at which the mesh's settings were published last, once they were.
    pub fn settings_revision(&self) -> Option<Revisions> {
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

    /// Whether an identity is that of a waypoint: of a Gateway that is there, or that is gone and was ready before.
    pub fn is_waypoint(&self, identity: &Identity) -> bool {
        let held = self.read();
        let waypoint = Name::new(identity.namespace(), identity.service_account());
        held.compiler.index().knows_waypoint(&waypoint)
            && translate::waypoint::identity(held.compiler.context(), &waypoint) == *identity
    }

    /// Ends all streams: the controller is going away.
    pub fn close(&self) {
        self.ours.close();
        self.foreign.close();
        self.layer7.close();
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
