//! What the controller has told of the mesh, shared by all threads: one writer, readers that clone `Arc`s out.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use model::address::Str;
use model::mesh::{Mesh, Update};
use model::workload::Workload;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;

/// How long a connection waits for what the controller has not told yet: its workload, a policy, a certificate.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How often who waits looks again although nothing is known to have changed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Batches of replaced workloads that may wait for a thread.
const REPLACED: usize = 256;

/// How often what is known has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Revision {
    /// Anything.
    pub any: u64,
    /// Something that live connections are to be judged by again.
    pub rules: u64,
}

/// The shared state.
#[derive(Debug)]
pub struct State {
    mesh: RwLock<Mesh>,
    revision: watch::Sender<Revision>,
    /// Workloads that went away or changed their address or identity: their pooled tunnels must go.
    replaced: broadcast::Sender<Arc<[Arc<Workload>]>>,
    known: AtomicU8,
    in_vain: AtomicU64,
}

/// What is known is a part of what the controller has to tell: nothing is decided by it. A destination that is missing
/// from it might be taken for one outside the mesh.
const PART: u8 = 0;
/// It is what a predecessor saved, see [`State::is_provisional`].
const SAVED: u8 = 1;
/// It is all there is to go by.
const ALL: u8 = 2;

impl State {
    /// An empty state, seen from a network and, where it serves one node's pods, from that node.
    pub fn new(network: &str, node: &str) -> Self {
        let node = (!node.is_empty()).then(|| Str::from(node));
        Self {
            mesh: RwLock::new(Mesh::new(Str::from(network), node)),
            revision: watch::Sender::default(),
            replaced: broadcast::Sender::new(REPLACED),
            known: AtomicU8::new(PART),
            in_vain: AtomicU64::new(0),
        }
    }

    /// Whether what is known is what a predecessor saved, which may be a moment older than what it knew: on its
    /// strength nothing is refused that the controller may be about to tell.
    pub fn is_provisional(&self) -> bool {
        self.known.load(Ordering::Relaxed) == SAVED
    }

    /// What a predecessor saved is in force.
    pub fn restored(&self) {
        self.set_known(SAVED);
    }

    /// The controller has told all that it has to tell.
    pub fn told_all(&self) {
        self.set_known(ALL);
    }

    /// The controller does not answer: what a predecessor saved, if it did, is all there is.
    pub fn rely_on_saved(&self) {
        if self.is_provisional() {
            self.set_known(ALL);
        }
    }

    /// Whether the controller has told all that it tells unasked.
    pub fn is_told(&self) -> bool {
        self.known.load(Ordering::Relaxed) == ALL
    }

    fn set_known(&self, known: u8) {
        self.known.store(known, Ordering::Relaxed);
        self.look_again();
    }

    /// Whoever waits looks again.
    pub fn look_again(&self) {
        self.revision.send_modify(|revision| revision.any += 1);
    }

    /// What is known now. Hold it shortly: it stops the writer.
    pub fn read(&self) -> RwLockReadGuard<'_, Mesh> {
        // A writer that panicked left the indexes as the last whole update made them.
        self.mesh.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes updates into account, all at once.
    pub fn apply(&self, updates: impl IntoIterator<Item = Update>) {
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
            // Nobody listens only while the threads are not there yet, and then nobody has tunnels.
            let _ = self.replaced.send(replaced.into());
        }
        self.revision.send_modify(|revision| {
            revision.any += 1;
            revision.rules += u64::from(rejudge);
        });
    }

    /// Changes, as they happen.
    pub fn changes(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// How often live connections were to be judged again, so far.
    pub fn rules_revision(&self) -> u64 {
        self.revision.borrow().rules
    }

    /// Has `evict` give up what goes to addresses whose workload was replaced or removed, as it happens, as long as the state
    /// lasts: the address may be another pod's soon. It is told by what to know such addresses.
    pub async fn evict_replaced(&self, evict: impl Fn(&dyn Fn(IpAddr) -> bool)) {
        let mut replaced = self.replaced.subscribe();
        loop {
            match replaced.recv().await {
                Ok(gone) => evict(&|ip| gone.iter().any(|workload| workload.addresses.contains(&ip))),
                // Which of them went is not known any more: one too many is opened rather than one kept.
                Err(RecvError::Lagged(_)) => evict(&|_| true),
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Waits, for [`PATIENCE`] at most, until `find` finds something in the state. It is not asked while only a part
    /// is known.
    pub async fn wait_for<T>(&self, find: impl FnMut(&Mesh) -> Option<T>) -> Option<T> {
        self.wait_at_most(PATIENCE, find).await
    }

    /// The same for another time.
    pub async fn wait_at_most<T>(
        &self,
        patience: Duration,
        mut find: impl FnMut(&Mesh) -> Option<T>,
    ) -> Option<T> {
        let mut find = |mesh: &Mesh| match self.known.load(Ordering::Relaxed) {
            PART => None,
            _ => find(mesh),
        };
        if let Some(found) = find(&self.read()) {
            return Some(found);
        }
        let mut changes = self.changes();
        let found = async {
            loop {
                if let Some(found) = find(&self.read()) {
                    return Some(found);
                }
                // What counts for a time only may count no more.
                timeout(LOOK_AGAIN, changes.changed()).await.unwrap_or(Ok(())).ok()?;
            }
        };
        let found = timeout(patience, found).await.ok().flatten();
        if found.is_none() {
            self.in_vain.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    /// How often what was [waited](State::wait_for) for did not come.
    pub fn waited_in_vain(&self) -> u64 {
        self.in_vain.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::pin::pin;

    use prost::Message as _;
    use proto::type_url::ADDRESS;
    use proto::workload as wire;

    use super::*;
    use crate::convert::Decoder;

    #[tokio::test]
    async fn nothing_is_decided_by_a_part_of_what_there_is() {
        let state = State::new("", "n");
        let found = || state.wait_for(|mesh| Some(mesh.is_pod_address([10, 0, 0, 1].into())));
        let moment = Duration::from_millis(20);
        assert!(timeout(moment, found()).await.is_err());
        state.rely_on_saved();
        assert!(timeout(moment, found()).await.is_err(), "nothing was saved");
        let (waited, ()) = tokio::join!(found(), async { state.told_all() });
        assert_eq!(waited, Some(false));
    }

    #[tokio::test]
    async fn what_never_comes_is_not_waited_for_for_ever_and_is_counted() {
        let state = State::new("", "n");
        state.told_all();
        assert_eq!(state.wait_at_most(Duration::from_millis(5), |_| None::<()>).await, None);
        assert_eq!(state.waited_in_vain(), 1);
        assert_eq!(state.wait_for(|_| Some(())).await, Some(()));
        assert_eq!(state.waited_in_vain(), 1);
    }

    fn pod(last: u8) -> Update {
        let uid = format!("pod-{last}");
        let workload = wire::Workload {
            uid: uid.clone(),
            namespace: "n".into(),
            service_account: "a".into(),
            addresses: vec![vec![10, 0, 0, last].into()],
            ..Default::default()
        };
        let address = wire::Address { r#type: Some(wire::address::Type::Workload(workload)) };
        let read = Decoder::default().decode(ADDRESS, &uid.into(), address.encode_to_vec().into());
        read.expect("it can be read")
    }

    #[tokio::test]
    async fn what_goes_where_a_workload_was_is_evicted_and_all_of_it_where_that_is_not_known() {
        let state = State::new("", "n");
        let evicted = RefCell::new(Vec::new());
        let mut following = pin!(state.evict_replaced(|is_gone| {
            evicted.borrow_mut().push([1, 2].map(|last| is_gone([10, 0, 0, last].into())));
        }));
        let mut follow = async || {
            let moment = Duration::from_millis(20);
            assert!(timeout(moment, following.as_mut()).await.is_err(), "it lasts");
            evicted.take()
        };
        assert!(follow().await.is_empty());
        state.apply([pod(1), pod(2)]);
        assert!(follow().await.is_empty());
        state.apply([Update::RemoveAddress("pod-1".into())]);
        assert_eq!(follow().await, [[true, false]]);
        for _ in 0..=REPLACED {
            state.apply([pod(1)]);
            state.apply([Update::RemoveAddress("pod-1".into())]);
        }
        assert_eq!(follow().await[0], [true, true]);
    }

    #[tokio::test]
    async fn what_was_saved_counts_at_once_and_is_relied_on_in_the_end() {
        let state = State::new("", "n");
        state.restored();
        assert!(state.is_provisional());
        assert_eq!(state.wait_for(|_| Some(())).await, Some(()));
        state.rely_on_saved();
        assert!(!state.is_provisional());
        assert_eq!(state.wait_for(|_| Some(())).await, Some(()));
    }
}
