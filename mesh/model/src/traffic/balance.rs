//! Which endpoint of a destination takes a request.
//!
//! ```text
//!  Members (who there is) ─► Plan (who may be picked) ─► Balancer (whose turn it is), one a thread
//!      └─ of each: what is under way, what has failed, since when it is there; stays while all else is replaced
//! ```
//!
//! A plan is made anew when endpoints come, go, change, are ejected or fail their checks, or their policy is replaced; a [`Balancer`] takes
//! it over and goes on where it was. A pick costs the same however many endpoints there are; where weights differ or
//! endpoints are warming up, it grows with the logarithm of their number, and so does a hash in a ring.
//!
//! The rules are Envoy's, as its documentation ("Supported load balancers", "Priority levels", "Locality weighted load
//! balancing", "Slow start mode") and `load_balancer_impl.cc` have them, with the settings that Istio gives it.

mod edf;
mod endpoint;
mod load;
mod locality;
mod plan;
mod table;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

pub use self::endpoint::{Active, Endpoint, Labels, Members};
use self::load::loads_elsewhere;
use self::plan::Priority;
pub use self::plan::{LeftOut, Plan};
use self::turns::{Turns, Waits};
use super::Algorithm;
use crate::address::Str;
use crate::select::Draw;
use crate::workload::Workload;

/// The proxy that chooses: where it is counts.
#[derive(Debug, Clone, Copy)]
pub struct Proxy<'a> {
    /// The proxy itself.
    pub workload: &'a Workload,
    /// Its labels.
    pub labels: &'a BTreeMap<Str, Str>,
}

/// What a request wants.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The hash of its key, for `consistentHash`; without one any endpoint will do.
    pub hash: Option<u64>,
    /// The time.
    pub now: Duration,
    /// Endpoints to keep away from if there are others, as those that failed before (`retryIgnorePreviousHosts`).
    pub avoid: &'a dyn Fn(&Endpoint) -> bool,
    /// The priorities of earlier attempts, in their order, where retries are to go to other places
    /// (`retryRemoteLocalities`); else none.
    pub tried: &'a [usize],
}

impl Wanted<'_> {
    /// A request that keeps away from nobody.
    pub fn at(now: Duration) -> Self {
        Self { hash: None, now, avoid: &|_| false, tried: &[] }
    }
}

/// What is picked.
#[derive(Debug, Clone)]
pub enum Picked {
    /// An endpoint.
    Endpoint {
        /// Which.
        endpoint: Arc<Endpoint>,
        /// Its priority, for [`Wanted::tried`].
        priority: usize,
    },
    /// Where the client wanted to, as it is (`PASSTHROUGH`).
    Original,
}

/// Nobody can be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum NoEndpoint {
    /// There is none, or none with weight, or none where the proxy may send to.
    #[error(
        "it has no endpoint that may be used: see whether its pods are ready and its locality settings allow any"
    )]
    Absent,
    /// All that there are have been ejected.
    #[error(
        "all of its {0} endpoints are ejected by outlierDetection: see why they fail, or set minHealthPercent"
    )]
    Ejected(usize),
    /// All that there are fail the checks of their health.
    #[error("all of its {0} endpoints fail their health check: see why they do, or what is asked of them")]
    Failing(usize),
    /// Some have been ejected, and all others fail their checks.
    #[error(
        "of its {total} endpoints {} are ejected by outlierDetection and {} fail their health check: see why they fail",
        .left_out.ejected, .left_out.failing
    )]
    LeftOut {
        /// How many there are.
        total: usize,
        /// How many of them for which reason.
        left_out: LeftOut,
    },
}

impl NoEndpoint {
    /// The response flag of what is refused for it ("no healthy upstream").
    pub const FLAG: &str = "UH";
}

/// How often another endpoint is looked for if the one found is to be kept away from: once, and five times again, as
/// Istio sets it (`host_selection_retry_max_attempts`).
const ATTEMPTS: u32 = 6;

/// After so many attempts, and again after as many, their priorities are kept away from, as Istio sets it for
/// `retryRemoteLocalities` (`previous_priorities`, `update_frequency`).
const UPDATE_FREQUENCY: usize = 2;

/// Whose turn it is. Each thread has its own; they share the plan, and what is under way to each endpoint.
#[derive(Debug)]
pub struct Balancer {
    plan: Arc<Plan>,
    /// One a priority.
    turns: Vec<Turns>,
}

impl Balancer {
    /// One that begins with a plan, at a random place of its round, so that not all threads and replicas begin with the
    /// same endpoint.
    pub fn new(plan: Arc<Plan>, now: Duration, draw: Draw<'_>) -> Self {
        let mut balancer = Self { plan, turns: Vec::new() };
        balancer.enter(&Waits::default(), now, draw);
        balancer
    }

    /// The plan in force.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Takes over a new plan. Rounds go on where they were; who was there waits for its next turn as long as before.
    pub fn replace(&mut self, plan: Arc<Plan>, now: Duration, draw: Draw<'_>) {
        let mut kept = Waits::default();
        for (turns, priority) in self.turns.iter_mut().zip(&self.plan.priorities) {
            turns.leave(priority, &mut kept);
        }
        let before = std::mem::replace(&mut self.plan, plan);
        self.enter(&kept, now, draw);
        drop(before);
    }

    fn enter(&mut self, kept: &Waits, now: Duration, draw: Draw<'_>) {
        let plan = &*self.plan;
        self.turns.resize_with(plan.priorities.len(), Turns::default);
        for (turns, priority) in self.turns.iter_mut().zip(&plan.priorities) {
            turns.enter(plan, priority, kept, now, draw);
        }
    }

    /// Picks who takes a request.
    pub fn pick(&mut self, wanted: &Wanted<'_>, draw: Draw<'_>) -> Result<Picked, NoEndpoint> {
        if self.plan.algorithm == Algorithm::Passthrough {
            return Ok(Picked::Original);
        }
        // A request without a key is led by a random one.
        let hash = match (&self.plan.algorithm, wanted.hash) {
            (Algorithm::ConsistentHash(_), None) => random(draw),
            (_, hash) => hash.unwrap_or_default(),
        };
        let mut last = None;
        for attempt in 0..ATTEMPTS {
            let found = self.once(wanted, hash, attempt, draw).ok_or_else(|| self.nobody())?;
            if !(wanted.avoid)(&found.0) {
                last = Some(found);
                break;
            }
            last = Some(found);
        }
        let (endpoint, priority) = last.ok_or_else(|| self.nobody())?;
        Ok(Picked::Endpoint { endpoint, priority })
    }

    fn once(
        &mut self,
        wanted: &Wanted<'_>,
        hash: u64,
        attempt: u32,
        draw: Draw<'_>,
    ) -> Option<(Arc<Endpoint>, usize)> {
        let plan = &*self.plan;
        let by_hash = matches!(plan.algorithm, Algorithm::ConsistentHash(_));
        // The same hash always leads to the same priority.
        let percent =
            |draw: Draw<'_>| if by_hash { u32::try_from(hash % 100).unwrap_or(0) } else { draw(100) };
        let which = choose(&plan.priorities, wanted.tried, percent, draw)?;
        let (priority, turns) = (&plan.priorities[which], self.turns.get_mut(which)?);
        let host = match &priority.table {
            Some(table) => nth(priority, table.get(hash, attempt)?)?,
            None => turns.next(plan, priority, wanted.now, draw)?,
        };
        Some((host.endpoint.clone(), which))
    }

    fn nobody(&self) -> NoEndpoint {
        let (total, left_out) = (self.plan.total(), self.plan.left_out());
        match left_out {
            _ if total == 0 || left_out.all < total => NoEndpoint::Absent,
            LeftOut { failing: 0, .. } => NoEndpoint::Ejected(total),
            LeftOut { ejected: 0, .. } => NoEndpoint::Failing(total),
            _ => NoEndpoint::LeftOut { total, left_out },
        }
    }
}

/// The priority that takes a request; where one takes all, nothing is drawn.
fn choose(
    priorities: &[Priority],
    tried: &[usize],
    percent: impl FnOnce(Draw<'_>) -> u32,
    draw: Draw<'_>,
) -> Option<usize> {
    let untried = (tried.len() >= UPDATE_FREQUENCY).then(|| {
        let health: Vec<u32> = priorities.iter().map(|priority| priority.health).collect();
        loads_elsewhere(&health, tried.chunks_exact(UPDATE_FREQUENCY))
    });
    let load = |which: usize| match &untried {
        Some(Some(loads)) => loads[which].percent,
        _ => priorities[which].load.percent,
    };
    if let Some(all) = (0..priorities.len()).find(|which| load(*which) == 100) {
        return Some(all);
    }
    let drawn = percent(draw);
    let mut below = 0;
    (0..priorities.len()).find(|which| {
        below += load(*which);
        drawn < below
    })
}

/// The endpoint of a number, over all sources of a priority.
fn nth(priority: &Priority, number: u32) -> Option<&plan::Host> {
    let mut number = number as usize;
    for source in &priority.sources {
        match source.hosts.get(number) {
            Some(host) => return Some(host),
            None => number -= source.hosts.len(),
        }
    }
    None
}

/// Any number.
fn random(draw: Draw<'_>) -> u64 {
    let half = 1 << 31;
    // Two draws of 31 bits, and a third for the two that are left.
    u64::from(draw(half)) << 33 | u64::from(draw(half)) << 2 | u64::from(draw(4))
}

#[cfg(test)]
mod tests;
