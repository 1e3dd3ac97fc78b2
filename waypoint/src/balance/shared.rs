//! What all threads know of the endpoints of a cluster: who there is, what became of requests to each, who is ejected,
//! what is under way; and, from [`crate::health`], who fails its checks. It stays when rules and endpoints are replaced;
//! threads look at a plan made of it, and lock it only when that has changed.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::address::{OriginalDestination, Str};
use model::mesh::Mesh;
use model::select::{Selected, usable};
use model::service::{LoadBalancing, Service};
use model::traffic::balance::{Endpoint, Labels, Members, Plan, Proxy};
use model::traffic::outlier::{Detector, EjectionCause, Event};
use model::traffic::pool::{Accounts, Limits, RetryLimit};
use model::traffic::{ConnectionPool, Destination, EffectivePolicy};
use model::workload::Workload;
use tokio::time::Instant;

use super::Cluster;
use super::ejections::Ejections;
use crate::Waypoint;
use crate::health::OfService;

/// What is in force for a cluster, replaced as a whole.
#[derive(Debug)]
pub(crate) struct Current {
    /// Grows with each replacement.
    pub(super) version: u64,
    /// What the DestinationRules say.
    pub(crate) policy: EffectivePolicy,
    /// Of that, how much may be under way.
    pub(crate) limits: Limits,
    /// Whether it says anything of connections, so that they cannot be shared with other clusters.
    pub(crate) own_connections: bool,
    /// Whether requests have to be counted: where nothing limits them, threads need not meet at a counter.
    pub(crate) counts_requests: bool,
    /// The rules that say it.
    pub(crate) cause: Str,
    pub(super) plan: Arc<Plan>,
}

/// What a cluster was looked at by.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Revisions of the mesh, of labels, and of what health checks have found.
    pub(super) mesh: u64,
    pub(super) labels: u64,
    pub(super) checks: u64,
    /// The edition of the rules: an older one, of a request that has waited, never replaces a newer one.
    pub(super) edition: u64,
    pub(super) rules: Option<Arc<Destination>>,
}

/// A cluster as all threads know it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) cluster: Cluster,
    /// Another one for each.
    pub(crate) id: u64,
    pub(crate) accounts: Arc<Accounts>,
    /// How often somebody was ejected.
    pub(super) ejections: Ejections,
    began: Instant,
    /// That of what is in force.
    version: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    seen: Option<Seen>,
    members: Members,
    detector: Detector,
    /// The proxy itself, and its labels.
    own: Option<Arc<Workload>>,
    labels: Labels,
    balancing: LoadBalancing,
    /// None before the first look.
    current: Option<Arc<Current>>,
}

/// The waypoint's view of a cluster at the moment of a look.
pub(super) struct View<'a> {
    pub(super) waypoint: &'a Waypoint,
    pub(super) own: &'a Arc<Workload>,
    pub(super) service: &'a Service,
}

impl Shared {
    pub(super) fn new(cluster: Cluster, id: u64, began: Instant) -> Self {
        let state = State {
            seen: None,
            members: Members::default(),
            detector: Detector::new(began.elapsed()),
            own: None,
            labels: Labels::default(),
            balancing: LoadBalancing::default(),
            current: None,
        };
        let version = AtomicU64::new(0);
        let (accounts, ejections) = Default::default();
        Self { cluster, id, accounts, ejections, began, version, state: Mutex::new(state) }
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The time, as all that is kept here has it.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what is newer than what it was looked at by before, and says what is in force.
    pub(super) fn renew(&self, view: &View<'_>, seen: &Seen) -> Arc<Current> {
        let now = self.now();
        let mut state = self.lock();
        let State { seen: known, current, .. } = &mut *state;
        let mut changed = current.is_none();
        let known = known.get_or_insert_with(|| seen.clone());
        if seen.edition > known.edition {
            known.edition = seen.edition;
            if !same(known.rules.as_ref(), seen.rules.as_ref()) {
                known.rules.clone_from(&seen.rules);
                changed = true;
            }
        }
        let looks =
            changed || seen.mesh > known.mesh || seen.labels > known.labels || seen.checks > known.checks;
        (known.mesh, known.labels) = (known.mesh.max(seen.mesh), known.labels.max(seen.labels));
        known.checks = known.checks.max(seen.checks);
        let rules = known.rules.clone();
        if looks {
            changed |= state.look(&self.cluster, view, rules.as_deref(), now);
        }
        if let Some(current) = state.current.as_ref().filter(|_| !changed) {
            return current.clone();
        }
        let policy = rules.as_deref().map(|rules| effective(rules, &self.cluster)).unwrap_or_default();
        if policy.outlier_detection.is_none() {
            self.say(&state.detector.clear());
        }
        let cause = rules.map(|rules| rules.cause.clone()).unwrap_or_default();
        self.put(&mut state, view.own, policy, cause)
    }

    /// Puts a policy in force, and a plan by it and by who is there and ejected now.
    fn put(
        &self,
        state: &mut State,
        own: &Arc<Workload>,
        policy: EffectivePolicy,
        cause: Str,
    ) -> Arc<Current> {
        let version = state.current.as_ref().map_or(0, |current| current.version) + 1;
        let proxy = Proxy { workload: own, labels: &state.labels };
        let plan = Arc::new(Plan::new(&policy, &state.balancing, &proxy, state.members.iter()));
        let current = Arc::new(Current::new(version, policy, cause, plan));
        state.current = Some(current.clone());
        self.version.store(version, Ordering::Release);
        current
    }

    /// Makes a new plan, because somebody was ejected or returned.
    fn replan(&self, state: &mut State, current: &Current) {
        let Some(own) = state.own.clone() else { return };
        self.put(state, &own, current.policy.clone(), current.cause.clone());
    }

    /// Ejects an endpoint that has reached a threshold, if so many may be.
    pub(super) fn eject(&self, endpoint: &Endpoint, cause: EjectionCause) {
        let now = self.now();
        let mut state = self.lock();
        let Some(current) = state.current.clone() else { return };
        let Some(settings) = &current.policy.outlier_detection else { return };
        let known = state.members.get(endpoint.uid()).map(|known| known.monitor().clone());
        // It may be gone, and another have come under its name.
        let Some(monitor) = known.filter(|known| Arc::ptr_eq(known, endpoint.monitor())) else { return };
        let total = state.members.len();
        let event = state.detector.eject(endpoint.uid(), &monitor, cause, total, settings, now);
        if let Some(Event::Ejected { .. }) = event {
            self.replan(&mut state, &current);
        }
        self.say(event.as_slice());
    }

    /// Lets those return whose time is over, and says when that is to be looked at next, if ever.
    pub(super) fn sweep(&self) -> Option<Duration> {
        let now = self.now();
        let mut state = self.lock();
        let current = state.current.clone()?;
        let settings = current.policy.outlier_detection.as_ref()?;
        let events = state.detector.sweep(settings, now);
        if !events.is_empty() {
            self.replan(&mut state, &current);
        }
        self.say(&events);
        Some(state.detector.next_sweep(settings))
    }

    /// Whether nothing would be lost with it.
    pub(super) fn is_forgettable(&self) -> bool {
        self.lock().detector.ejected() == 0
    }

    /// How many are ejected now; none where nothing ejects anybody, and nothing has.
    pub(super) fn ejected(&self) -> Option<usize> {
        let state = self.lock();
        let current = state.current.as_ref()?;
        let judges = current.policy.outlier_detection.is_some() || self.ejections.any();
        judges.then(|| state.detector.ejected())
    }

    fn say(&self, events: &[Event]) {
        for event in events {
            self.ejections.see(event);
            tracing::info!(target: "lateen::outlier", cluster = %self.cluster, "{event}");
        }
    }
}

impl State {
    /// Looks who is there, and says whether anything is different now. What is known of an endpoint stays while it has the
    /// same address.
    fn look(
        &mut self,
        cluster: &Cluster,
        view: &View<'_>,
        rules: Option<&Destination>,
        now: Duration,
    ) -> bool {
        let found = {
            let mesh = view.waypoint.state.read();
            endpoints(view, &mesh, cluster, rules)
        };
        let at: HashMap<&str, (IpAddr, u16)> =
            found.iter().map(|(target, _)| (&*target.workload.uid, (target.ip, target.port))).collect();
        let is_gone =
            |known: &&Arc<Endpoint>| at.get(&**known.uid()) != Some(&(known.target.ip, known.target.port));
        let gone: Vec<Str> = self.members.iter().filter(is_gone).map(|known| known.uid().clone()).collect();
        for uid in &gone {
            self.members.remove(uid);
            self.detector.remove(uid);
        }
        let mut changed = !gone.is_empty();
        for (target, labels) in found {
            changed |= self.members.put(target, labels, now);
        }
        let asked = rules.is_some_and(|rules| rules.health_check.is_some());
        let checks = view.waypoint.checks.of(&cluster.service).filter(|_| asked);
        for endpoint in self.members.iter() {
            let fails = |checks: &Arc<OfService>| checks.is_failing(endpoint.uid(), endpoint.target.ip);
            changed |= endpoint.note_check(checks.as_ref().is_some_and(fails), now);
        }
        let labels = view.waypoint.labels.of(&view.own.uid).unwrap_or_default();
        let same = self.own.as_ref().is_some_and(|own| Arc::ptr_eq(own, view.own)) && self.labels == labels;
        if !same || self.balancing != view.service.rare.load_balancing {
            (self.own, self.labels) = (Some(view.own.clone()), labels);
            self.balancing = view.service.rare.load_balancing.clone();
            changed = true;
        }
        changed
    }
}

impl Current {
    fn new(version: u64, policy: EffectivePolicy, cause: Str, plan: Arc<Plan>) -> Self {
        let limits = Limits::new(&policy.connection_pool, policy.retry_budget);
        let budget = matches!(limits.retries, RetryLimit::Budget(_));
        Self {
            version,
            own_connections: policy.connection_pool != ConnectionPool::default(),
            counts_requests: limits.requests != u32::MAX || budget,
            limits,
            policy,
            cause,
            plan,
        }
    }
}

fn same(one: Option<&Arc<Destination>>, other: Option<&Arc<Destination>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
        (None, None) => true,
        _ => false,
    }
}

fn effective(rules: &Destination, cluster: &Cluster) -> EffectivePolicy {
    let subset = cluster.subset.as_deref().and_then(|name| rules.subset(name));
    rules.effective(subset, cluster.port)
}

/// The endpoints that can take something, with their labels.
fn endpoints(
    view: &View<'_>,
    mesh: &Mesh,
    cluster: &Cluster,
    rules: Option<&Destination>,
) -> Vec<(Selected, Labels)> {
    let subset = cluster.subset.as_deref().map(|name| rules.and_then(|rules| rules.subset(name)));
    let vip = view.service.vips.first().map_or(Ipv4Addr::UNSPECIFIED.into(), |vip| vip.ip);
    let asked = OriginalDestination::new(SocketAddr::new(vip, cluster.port));
    let Some(all) = mesh.endpoints(&cluster.service) else { return Vec::new() };
    let mut found = Vec::with_capacity(all.all().len());
    for workload in all.all() {
        let labels = view.waypoint.labels.of(&workload.uid).unwrap_or_default();
        let belongs = match subset {
            None => true,
            // One that is named and not there has no endpoint.
            Some(subset) => subset.is_some_and(|subset| subset.selects(&labels)),
        };
        if belongs && let Some((port, ip)) = usable(view.service, view.own, workload, asked) {
            found.push((Selected { workload: workload.clone(), port, ip }, labels));
        }
    }
    found
}
