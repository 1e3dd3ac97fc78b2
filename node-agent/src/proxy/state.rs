//! What the controller has told of the mesh, shared by all threads: one writer, readers that clone `Arc`s out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use model::address::Str;
use model::mesh::{Mesh, Update};
use model::workload::Workload;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a connection waits for what the controller has not told yet: its workload, a policy, a certificate.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How often what is known has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Revision {
    /// Anything.
    pub(crate) any: u64,
    /// Something that live connections are to be judged by again.
    pub(crate) rules: u64,
}

/// The shared state.
#[derive(Debug)]
pub(crate) struct State {
    mesh: RwLock<Mesh>,
    revision: watch::Sender<Revision>,
    /// Workloads that went away or changed their address or identity: their pooled tunnels must go.
    replaced: watch::Sender<Arc<[Arc<Workload>]>>,
    /// See [`State::is_provisional`].
    provisional: AtomicBool,
}

impl State {
    /// An empty state, seen from a network and a node.
    pub(crate) fn new(network: &str, node: &str) -> Self {
        let node = (!node.is_empty()).then(|| Str::from(node));
        Self {
            mesh: RwLock::new(Mesh::new(Str::from(network), node)),
            revision: watch::Sender::default(),
            replaced: watch::Sender::new(Arc::from([])),
            provisional: AtomicBool::new(false),
        }
    }

    /// Whether what is known is what a predecessor saved, which may be a moment older than what it knew: on its
    /// strength nothing is refused that the controller may be about to tell.
    pub(crate) fn is_provisional(&self) -> bool {
        self.provisional.load(Ordering::Relaxed)
    }

    /// Says whether what is known is provisional. Whoever waits looks again.
    pub(crate) fn set_provisional(&self, provisional: bool) {
        self.provisional.store(provisional, Ordering::Relaxed);
        self.revision.send_modify(|revision| revision.any += 1);
    }

    /// What is known now. Hold it shortly: it stops the writer.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Mesh> {
        // A writer that panicked left the indexes as the last whole update made them.
        self.mesh.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes updates into account, all at once.
    pub(crate) fn apply(&self, updates: impl IntoIterator<Item = Update>) {
        let mut rejudge = false;
        let mut replaced = Vec::new();
        {
            let mut mesh = self.mesh.write().unwrap_or_else(PoisonError::into_inner);
            for update in updates {
                let effect = mesh.apply(update);
                rejudge |= effect.rejudge;
                replaced.extend(effect.replaced);
            }
        }
        if !replaced.is_empty() {
            self.replaced.send_replace(replaced.into());
        }
        self.revision.send_modify(|revision| {
            revision.any += 1;
            revision.rules += u64::from(rejudge);
        });
    }

    /// Changes, as they happen.
    pub(crate) fn changes(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// How often live connections were to be judged again, so far.
    pub(crate) fn rules_revision(&self) -> u64 {
        self.revision.borrow().rules
    }

    /// Workloads that were replaced or removed, as it happens. Only the newest are seen: whoever follows this also
    /// checks identities on reuse.
    pub(crate) fn replaced(&self) -> watch::Receiver<Arc<[Arc<Workload>]>> {
        self.replaced.subscribe()
    }

    /// Waits, for [`PATIENCE`] at most, until `find` finds something in the state.
    pub(crate) async fn wait_for<T>(&self, mut find: impl FnMut(&Mesh) -> Option<T>) -> Option<T> {
        if let Some(found) = find(&self.read()) {
            return Some(found);
        }
        let mut changes = self.changes();
        let found = async {
            loop {
                if let Some(found) = find(&self.read()) {
                    return Some(found);
                }
                changes.changed().await.ok()?;
            }
        };
        timeout(PATIENCE, found).await.ok().flatten()
    }
}
