//! Active health checks of endpoints, for hosts whose DestinationRule asks for them (`lateen.dev/health-check`).
//!
//! ```text
//!  routings, mesh ─► wanted   who is to be checked, and how        (one task)
//!                      └────► drive    when, a task an endpoint    (the worker that the endpoint falls to)
//!                               └────► ask   one check, by the way that requests take
//!  Checks ◄── note ── model::traffic::health decides ─────┘
//!     └────► balance::shared, when it looks at its endpoints again: there alone it is put together with ejections
//! ```
//!
//! What was found, and when an endpoint is asked next, stays while the mesh around it changes, until the endpoint, its service
//! or the annotation is gone.

mod ask;
mod drive;
mod metrics;
mod wanted;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use model::address::{NamespacedHostname, Str};
use model::select::Selected;
use model::service::Service;
use model::traffic::HealthCheck;
use model::traffic::health::{ANNOTATION, Standing};
use serde_json::{Value, json};
use tokio::sync::watch;

pub(crate) use self::drive::drive;
pub(crate) use self::metrics::HealthMetrics;
pub(crate) use self::wanted::{Asking, follow};

/// All that is checked, as all threads know it.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    of: RwLock<HashMap<NamespacedHostname, Arc<OfService>, foldhash::fast::RandomState>>,
    /// All of their endpoints, for who makes the checks.
    all: watch::Sender<Arc<[Arc<Checked>]>>,
    revision: AtomicU64,
    next: AtomicU64,
}

/// The endpoints of a service that are checked.
#[derive(Debug)]
pub(crate) struct OfService {
    check: Arc<HealthCheck>,
    /// The rules that ask for it.
    rules: Str,
    counts: Arc<Counts>,
    /// By the uids of their workloads.
    endpoints: BTreeMap<Str, Arc<Checked>>,
}

/// An endpoint that is checked, in one way, and what is around it now.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Another one for each endpoint, and for each way.
    id: u64,
    service: Arc<Service>,
    /// Where it is asked.
    target: Selected,
    check: Arc<HealthCheck>,
    rules: Str,
    counts: Arc<Counts>,
    /// Shared by all of one id.
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone, Default)]
struct State {
    standing: Standing,
    /// Why the last check was not passed; nothing where it was, or there was none.
    failed: Option<Str>,
}

/// What checks of a service's endpoints came to.
#[derive(Debug, Default)]
struct Counts {
    passed: AtomicU64,
    /// It answered, and not well.
    failed: AtomicU64,
    /// There was no answer.
    unreachable: AtomicU64,
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Passed,
    /// It answered, and not well.
    Failed(String),
    /// There was no answer.
    Unreachable(String),
    /// It was not asked: something of this waypoint's own is missing or has run out, which says nothing of the endpoint.
    NotAsked,
}

/// A service whose endpoints are to be checked.
#[derive(Debug)]
struct Wanted {
    service: Arc<Service>,
    /// The rules that ask for it.
    rules: Str,
    check: HealthCheck,
    endpoints: Vec<Selected>,
}

impl Checks {
    /// How often anything has changed that decides who is left out.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// What is known of the endpoints of a service; nothing where they are not checked.
    pub(crate) fn of(&self, service: &NamespacedHostname) -> Option<Arc<OfService>> {
        self.of.read().unwrap_or_else(PoisonError::into_inner).get(service).cloned()
    }

    fn is_empty(&self) -> bool {
        self.of.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// All services whose endpoints are checked, by name.
    fn services(&self) -> BTreeMap<NamespacedHostname, Arc<OfService>> {
        let all = self.of.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(key, of)| (key.clone(), of.clone())).collect()
    }

    /// Checks these from now on, and nobody else. What goes on as it was is not begun anew.
    fn replace(&self, wanted: Vec<Wanted>) {
        let before = self.services();
        let mut same = true;
        let mut now = HashMap::default();
        for one in wanted {
            let key = one.service.key.clone();
            let known = before.get(&key);
            let of = self.of_service(one, known.map(|known| &**known));
            same &= known.is_some_and(|known| known.is(&of));
            now.insert(key, Arc::new(of));
        }
        if same && now.len() == before.len() {
            return;
        }
        let all: Arc<[_]> = now.values().flat_map(|of| of.endpoints.values().cloned()).collect();
        {
            let mut of = self.of.write().unwrap_or_else(PoisonError::into_inner);
            *of = now;
            self.revision.fetch_add(1, Ordering::Release);
        }
        self.all.send_replace(all);
    }

    fn of_service(&self, wanted: Wanted, known: Option<&OfService>) -> OfService {
        let Wanted { service, rules, check, endpoints } = wanted;
        let check = match known {
            Some(known) if *known.check == check => known.check.clone(),
            _ => Arc::new(check),
        };
        let counts = known.map(|known| known.counts.clone()).unwrap_or_default();
        let of = OfService { check, rules, counts, endpoints: BTreeMap::new() };
        let one = |target: Selected| {
            let before = known.and_then(|known| known.endpoints.get(&target.workload.uid));
            (target.workload.uid.clone(), self.checked(&service, target, &of, before))
        };
        let endpoints = endpoints.into_iter().map(one).collect();
        OfService { endpoints, ..of }
    }

    /// An endpoint in its new surroundings: the very same where nothing of them has changed, and the same to who asks it while
    /// it is asked in the same way.
    fn checked(
        &self,
        service: &Arc<Service>,
        target: Selected,
        of: &OfService,
        before: Option<&Arc<Checked>>,
    ) -> Arc<Checked> {
        // Another address is another endpoint.
        let before = before.filter(|before| before.target.ip == target.ip);
        let fresh = |state| (self.next.fetch_add(1, Ordering::Relaxed), Arc::new(Mutex::new(state)));
        let (id, state) = match before {
            Some(before) if before.is(service, &target, of) => return before.clone(),
            Some(before) if Arc::ptr_eq(&before.check, &of.check) => (before.id, before.state.clone()),
            Some(before) => fresh(State { standing: before.state().standing.under_another(), failed: None }),
            None => fresh(State::default()),
        };
        Arc::new(Checked {
            id,
            service: service.clone(),
            target,
            check: of.check.clone(),
            rules: of.rules.clone(),
            counts: of.counts.clone(),
            state,
        })
    }

    /// Notes what a check of an endpoint came to.
    fn note(&self, checked: &Checked, found: Found) {
        let count = match &found {
            Found::NotAsked => return,
            Found::Passed => &checked.counts.passed,
            Found::Failed(_) => &checked.counts.failed,
            Found::Unreachable(_) => &checked.counts.unreachable,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let failed: Option<Str> = match found {
            Found::Failed(why) | Found::Unreachable(why) => Some(why.into()),
            _ => None,
        };
        let (before, now) = {
            let mut state = checked.state();
            let before = state.standing;
            state.standing = before.after(failed.is_none(), &checked.check);
            state.failed.clone_from(&failed);
            // Before anybody can see it: who has seen that it is left out picks it no more.
            if before.failing != state.standing.failing {
                self.revision.fetch_add(1, Ordering::Release);
            }
            (before, state.standing)
        };
        checked.say(before, now, failed.as_deref());
    }

    /// What is known, for people to read.
    pub(crate) fn describe(&self) -> Value {
        let services = self.services();
        services.iter().map(|(service, of)| of.describe(service)).collect()
    }
}

impl OfService {
    /// Whether an endpoint is left out.
    pub(crate) fn is_failing(&self, uid: &str, ip: IpAddr) -> bool {
        let checked = self.endpoints.get(uid).filter(|checked| checked.target.ip == ip);
        checked.is_some_and(|checked| checked.state().standing.failing)
    }

    /// One of those that are left out, and for what.
    pub(crate) fn failure(&self) -> Option<Str> {
        self.endpoints.values().find_map(|checked| {
            let state = checked.state();
            let why = state.failed.as_deref().filter(|_| state.standing.failing)?;
            Some(format!("{}: {why}", checked.address()).into())
        })
    }

    /// How many pass, and how many do not.
    fn counted(&self) -> (usize, usize) {
        let failing = self.endpoints.values().filter(|checked| checked.state().standing.failing).count();
        (self.endpoints.len() - failing, failing)
    }

    /// Whether it is the very same.
    fn is(&self, other: &Self) -> bool {
        let pairs = || self.endpoints.values().zip(other.endpoints.values());
        Arc::ptr_eq(&self.check, &other.check)
            && self.rules == other.rules
            && self.endpoints.len() == other.endpoints.len()
            && pairs().all(|(one, other)| Arc::ptr_eq(one, other))
    }

    fn describe(&self, service: &NamespacedHostname) -> Value {
        let check = &self.check;
        let one = |checked: &Arc<Checked>| {
            let state = checked.state().clone();
            json!({
                "workload": checked.target.workload.uid.to_string(),
                "address": checked.address().to_string(),
                "healthy": !state.standing.failing,
                "in_a_row_against_that": state.standing.against,
                "last_failure": state.failed.as_deref(),
            })
        };
        json!({
            "service": service.to_string(),
            "rules": &*self.rules,
            "probe": check.probe.to_string(),
            "period_seconds": check.period.as_secs_f64(),
            "timeout_seconds": check.timeout.as_secs_f64(),
            "failure_threshold": check.failure_threshold,
            "success_threshold": check.success_threshold,
            "endpoints": self.endpoints.values().map(one).collect::<Vec<_>>(),
        })
    }
}

impl Checked {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::new(self.target.ip, self.target.port)
    }

    /// Whether it would be made the same of these.
    fn is(&self, service: &Arc<Service>, target: &Selected, of: &OfService) -> bool {
        let same = Arc::ptr_eq(&self.service, service) || self.service == *service;
        same && self.target == *target && Arc::ptr_eq(&self.check, &of.check) && self.rules == of.rules
    }

    /// Says what was found; whether it takes requests depends on the others, too (`minHealthPercent`).
    fn say(&self, before: Standing, now: Standing, failed: Option<&str>) {
        let (uid, address, probe) = (&self.target.workload.uid, self.address(), &self.check.probe);
        let rules = format!("{} {ANNOTATION}", self.rules);
        let service = &self.service.key;
        match (before.failing, now.failing, failed) {
            (false, true, Some(why)) => tracing::info!(
                target: "lateen::health", %service, %address, %rules,
                "{uid} is unhealthy: it has failed {} in a row of {probe}, the last for: {why}",
                self.check.failure_threshold
            ),
            (true, false, _) => tracing::info!(
                target: "lateen::health", %service, %address, %rules,
                "{uid} is healthy again: it has passed {} in a row of {probe}", self.check.success_threshold
            ),
            (_, _, Some(why)) => tracing::debug!(
                target: "lateen::health", %service, %address, %rules, "{uid} has failed {probe}: {why}"
            ),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
