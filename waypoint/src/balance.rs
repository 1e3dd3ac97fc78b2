//! Whose turn it is among the endpoints of a service, or of one of its subsets: `model::traffic` decides, by what the
//! DestinationRules say. Each thread has its own turns; who there is, what is under way to them and who is ejected they
//! share ([`shared`]), and what they go by is looked at again when something has changed.

mod all;
mod ejections;
mod in_use;
mod shared;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use model::address::{NamespacedHostname, Str};
use model::select::Selected;
use model::service::Service;
use model::traffic::balance::{Balancer, Endpoint, NoEndpoint, Picked, Wanted};
use model::traffic::hash::Hashed;
use model::traffic::{Algorithm, Destination, EffectivePolicy};
use model::workload::Workload;
use proxy::random::draw;

pub(crate) use self::all::AllClusters;
pub(crate) use self::ejections::EjectionMetrics;
pub(crate) use self::in_use::InUse;
use self::shared::{Current, Seen, Shared, View};
use crate::worker::Worker;

/// Which endpoints are meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Cluster {
    /// The service.
    pub(crate) service: NamespacedHostname,
    /// Its port.
    pub(crate) port: u16,
    /// Those of a subset only.
    pub(crate) subset: Option<Str>,
    /// By whose rules: what a host's rules say of somebody else's service is for who comes by that host, and replaces
    /// nothing of what others go by.
    pub(crate) rules: Str,
}

impl fmt::Display for Cluster {
    /// As Istio names clusters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subset = self.subset.as_deref().unwrap_or_default();
        write!(f, "outbound|{}|{subset}|{}", self.port, self.service.hostname())
    }
}

/// The turns of one thread.
#[derive(Debug, Default)]
pub(crate) struct Clusters(RefCell<HashMap<Cluster, Turns, foldhash::fast::RandomState>>);

/// Clusters that a thread remembers before those that were not used for longest make room: all at once, which costs
/// nothing but the places in their rounds.
const MOST: usize = 4096;

#[derive(Debug)]
struct Turns {
    /// What they were last looked at by.
    mesh: u64,
    labels: u64,
    checks: u64,
    edition: u64,
    shared: Arc<Shared>,
    current: Arc<Current>,
    balancer: Balancer,
}

/// The rules that are asked for by a request, and how new they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    /// Those of the cluster's service; none where it has none.
    pub(crate) of: Option<&'a Arc<Destination>>,
    /// Grows with every change.
    pub(crate) edition: u64,
}

/// What a request wants of its endpoint.
pub(crate) struct Asked<'a, H> {
    /// Its hash, for `consistentHash`.
    pub(crate) hash: H,
    /// What was tried before.
    pub(crate) tried: &'a Tried,
}

/// Where a request has been tried.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    /// To be kept away from if there are others.
    pub(crate) endpoints: Vec<SocketAddr>,
    /// The priorities of them all (`retryRemoteLocalities`).
    pub(crate) priorities: Vec<usize>,
    /// Whether they are kept away from (`retryIgnorePreviousHosts`); where nothing is said, unless a hash leads there.
    pub(crate) ignore_previous: Option<bool>,
}

/// What was picked, and what goes with it; no endpoint is where the client wanted to, as it is.
pub(crate) type Chosen = (Option<Selected>, InUse);

/// Picks an endpoint; one that is to be avoided only if there is no other.
///
/// # Errors
/// Nobody can be picked; the rule is named that has it so, if one does.
pub(crate) fn pick(
    worker: &Worker,
    own: &Arc<Workload>,
    service: &Service,
    cluster: &Cluster,
    rules: Rules<'_>,
    asked: Asked<'_, impl FnOnce(&EffectivePolicy) -> Option<Hashed>>,
) -> Result<Chosen, (NoEndpoint, Str)> {
    let mut all = worker.clusters.0.borrow_mut();
    if all.len() >= MOST && !all.contains_key(cluster) {
        all.clear();
    }
    let view = View { waypoint: &worker.waypoint, own, service };
    let (mesh, labels) = (worker.revision.borrow().any, worker.waypoint.labels.revision());
    let checks = worker.waypoint.checks.revision();
    let seen = || Seen { mesh, labels, checks, edition: rules.edition, rules: rules.of.cloned() };
    if !all.contains_key(cluster) {
        all.insert(cluster.clone(), Turns::new(&view, cluster, &seen()));
    }
    let Some(turns) = all.get_mut(cluster) else { return Err((NoEndpoint::Absent, Str::default())) };
    let looked =
        (turns.mesh, turns.labels, turns.checks) == (mesh, labels, checks) && rules.edition <= turns.edition;
    if !looked || turns.shared.version() != turns.current.version {
        turns.renew(&view, &seen());
    }
    turns.pick(asked).map_err(|none| (none, turns.current.cause.clone()))
}

impl Turns {
    fn new(view: &View<'_>, cluster: &Cluster, seen: &Seen) -> Self {
        let clusters = &view.waypoint.clusters;
        let shared = clusters.of(cluster);
        let current = shared.renew(view, seen);
        let balancer = Balancer::new(current.plan.clone(), shared.now(), &mut draw);
        if current.policy.outlier_detection.is_some() {
            clusters.judged.notify_one();
        }
        let Seen { mesh, labels, checks, edition, .. } = *seen;
        Self { mesh, labels, checks, edition, shared, current, balancer }
    }

    fn renew(&mut self, view: &View<'_>, seen: &Seen) {
        let current = self.shared.renew(view, seen);
        (self.mesh, self.labels, self.checks) = (seen.mesh, seen.labels, seen.checks);
        self.edition = self.edition.max(seen.edition);
        if current.version != self.current.version {
            self.balancer.replace(current.plan.clone(), self.shared.now(), &mut draw);
            self.current = current;
            if self.current.policy.outlier_detection.is_some() {
                view.waypoint.clusters.judged.notify_one();
            }
        }
    }

    fn pick(
        &mut self,
        asked: Asked<'_, impl FnOnce(&EffectivePolicy) -> Option<Hashed>>,
    ) -> Result<Chosen, NoEndpoint> {
        let policy = &self.current.policy;
        let by_hash = matches!(policy.load_balancer.algorithm, Algorithm::ConsistentHash(_));
        let tried = asked.tried;
        let avoids = !tried.endpoints.is_empty() && tried.ignore_previous.unwrap_or(!by_hash);
        let keep_away = |endpoint: &Endpoint| {
            avoids && tried.endpoints.contains(&SocketAddr::new(endpoint.target.ip, endpoint.target.port))
        };
        let hashed = (asked.hash)(policy);
        let wanted = Wanted {
            hash: hashed.as_ref().and_then(Hashed::hash),
            avoid: &keep_away,
            tried: &tried.priorities,
            now: self.shared.now(),
        };
        let (endpoint, priority) = match self.balancer.pick(&wanted, &mut draw)? {
            Picked::Endpoint { endpoint, priority } => (Some(endpoint), priority),
            Picked::Original => (None, 0),
        };
        let target = endpoint.as_ref().map(|endpoint| endpoint.target.clone());
        let in_use = InUse {
            shared: self.shared.clone(),
            current: self.current.clone(),
            _active: endpoint.as_ref().map(|endpoint| endpoint.begin()),
            endpoint,
            priority,
            set_cookie: hashed.and_then(Hashed::into_set_cookie),
            held: RefCell::default(),
            queued: Cell::default(),
        };
        Ok((target, in_use))
    }
}
