//! The endpoints of a destination, and what is under way to each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::address::Str;
use crate::select::Selected;
use crate::traffic::outlier::Monitor;

/// The labels of a workload; replicas share them.
pub type Labels = Arc<BTreeMap<Str, Str>>;

/// One endpoint of a destination.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The workload, and where on it the application listens.
    pub target: Selected,
    /// The workload's labels.
    pub labels: Labels,
    /// What stays when the rest is replaced.
    pub(super) state: Arc<State>,
}

/// What is known of an endpoint from traffic to it.
#[derive(Debug)]
pub(super) struct State {
    /// Requests under way, or connections where the traffic is opaque.
    pub(super) active: AtomicU32,
    /// Since when it takes traffic, in nanoseconds: since it came, or passes its checks again.
    since: AtomicU64,
    pub(super) monitor: Arc<Monitor>,
    failing: AtomicBool,
}

impl State {
    /// That of an endpoint which comes now.
    pub(super) fn new(now: Duration) -> Self {
        Self {
            active: AtomicU32::new(0),
            since: AtomicU64::new(nanos(now)),
            monitor: Arc::default(),
            failing: AtomicBool::new(false),
        }
    }

    /// Since when it takes traffic.
    pub(super) fn since(&self) -> Duration {
        Duration::from_nanos(self.since.load(Relaxed))
    }
}

/// More than five hundred years are as long as that.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Endpoint {
    fn new(target: Selected, labels: Labels, now: Duration) -> Self {
        Self { target, labels, state: Arc::new(State::new(now)) }
    }

    /// The workload's uid, by which events name it.
    pub fn uid(&self) -> &Str {
        &self.target.workload.uid
    }

    /// Its weight among endpoints; 0 takes nothing.
    pub fn weight(&self) -> u32 {
        self.target.workload.profile.capacity
    }

    /// Counts its errors, and says whether it is ejected.
    pub fn monitor(&self) -> &Arc<Monitor> {
        &self.state.monitor
    }

    /// Whether it fails the checks of its health.
    pub fn is_failing(&self) -> bool {
        self.state.failing.load(Relaxed)
    }

    /// Takes over what checks have found, and says whether that is new: then a new plan is to be made. Who passes them
    /// again warms up as who is new does.
    pub fn note_check(&self, failing: bool, now: Duration) -> bool {
        let changed = self.state.failing.swap(failing, Relaxed) != failing;
        if changed && !failing {
            self.state.since.store(nanos(now), Relaxed);
        }
        changed
    }

    /// How many requests are under way to it.
    pub fn active(&self) -> u32 {
        self.state.active.load(Relaxed)
    }

    /// Counts a request that is under way until the value is dropped.
    pub fn begin(&self) -> Active {
        self.state.active.fetch_add(1, Relaxed);
        Active(self.state.clone())
    }

    /// What is hashed of it: its address and port, as Envoy writes them.
    pub(super) fn hash_key(&self) -> String {
        std::net::SocketAddr::new(self.target.ip, self.target.port).to_string()
    }
}

/// A request under way to an endpoint.
#[derive(Debug)]
#[must_use = "it is counted until this is dropped"]
pub struct Active(Arc<State>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

/// The endpoints of a destination. What is known of one from traffic to it stays while it is changed, until it is removed.
#[derive(Debug, Default)]
pub struct Members(BTreeMap<Str, Arc<Endpoint>>);

impl Members {
    /// Puts an endpoint in, or changes it, and says whether anything is different now: then a new plan is to be made.
    ///
    /// Who is not ready is not to be put in, unless the service wants such ones too.
    pub fn put(&mut self, target: Selected, labels: Labels, now: Duration) -> bool {
        let Some(known) = self.0.get_mut(&target.workload.uid) else {
            let uid = target.workload.uid.clone();
            self.0.insert(uid, Arc::new(Endpoint::new(target, labels, now)));
            return true;
        };
        if known.target == target && known.labels == labels {
            return false;
        }
        *known = Arc::new(Endpoint { target, labels, state: known.state.clone() });
        true
    }

    /// Takes an endpoint out, and says whether it was there. The detector is to be told, too.
    pub fn remove(&mut self, uid: &str) -> bool {
        self.0.remove(uid).is_some()
    }

    /// All of them, in the order of their uids: replicas of a proxy agree on it.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.0.values()
    }

    /// The endpoint of a uid.
    pub fn get(&self, uid: &str) -> Option<&Arc<Endpoint>> {
        self.0.get(uid)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
