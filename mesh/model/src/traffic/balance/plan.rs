//! Who may be picked, and how much goes where: made anew when endpoints come, go, change, are ejected or fail their
//! checks, off the path of requests, and shared by all threads.
//!
//! Here alone the reasons meet for which an endpoint is left out: it is ejected, or fails its checks, or both. It takes
//! requests again only when neither holds. Where too few are left, none of it counts (`minHealthPercent`).

use std::sync::Arc;
use std::time::Duration;

use super::endpoint::State;
use super::load::{Hosts, Load, OVERPROVISIONING_FACTOR, health, loads};
use super::locality::{Group, arrange};
use super::table::{Share, Table};
use super::{Endpoint, Proxy};
use crate::service::LoadBalancing;
use crate::traffic::{Algorithm, EffectivePolicy, Warmup};

/// Who of a destination may be picked.
#[derive(Debug)]
pub struct Plan {
    pub(super) algorithm: Algorithm,
    pub(super) warmup: Option<Warmup>,
    pub(super) priorities: Box<[Priority]>,
    /// When the newest endpoint came.
    pub(super) newest: Duration,
    total: usize,
    left_out: LeftOut,
}

/// How many are left out, and why; of some both hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LeftOut {
    /// All of them.
    pub all: usize,
    /// Because they are ejected.
    pub ejected: usize,
    /// Because they fail their checks.
    pub failing: usize,
}

/// Endpoints that come at the same time.
#[derive(Debug)]
pub(super) struct Priority {
    pub(super) load: Load,
    /// How much of all traffic it could take, in percent.
    pub(super) health: u32,
    /// Those to choose among: in panic all, else those that are healthy; by place where places are weighed.
    pub(super) sources: Box<[Source]>,
    /// Where hashes lead, of those of all sources in a row.
    pub(super) table: Option<Table>,
}

/// Endpoints among which one is chosen.
#[derive(Debug)]
pub(super) struct Source {
    /// How much it is chosen itself.
    pub(super) weight: f64,
    pub(super) hosts: Box<[Host]>,
    /// Whether they all have the same weight.
    pub(super) equal: bool,
}

/// An endpoint, and beside it what is looked at of many before one is chosen.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) state: Arc<State>,
    pub(super) weight: u32,
}

impl Plan {
    /// A plan for a proxy, of a destination's policy and endpoints, and of what its Service says of preferences.
    pub fn new<'a>(
        policy: &EffectivePolicy,
        service: &LoadBalancing,
        proxy: &Proxy<'_>,
        endpoints: impl Iterator<Item = &'a Arc<Endpoint>>,
    ) -> Self {
        let arrangement = arrange(policy, service, proxy, endpoints);
        let outliers = policy.outlier_detection.as_ref();
        let rules = Rules {
            by_place: arrangement.by_place,
            judged: outliers.is_some(),
            checked: policy.checked,
            algorithm: &policy.load_balancer.algorithm,
        };
        let mut left_out = LeftOut::default();
        let mut priorities: Vec<Vec<Split>> = Vec::new();
        for group in arrangement.groups {
            let priority = group.priority as usize;
            priorities.resize_with(priorities.len().max(priority + 1), Vec::new);
            priorities[priority].push(rules.split(group, &mut left_out));
        }
        let hosts: Vec<Hosts> = priorities.iter().map(|splits| Rules::hosts(splits)).collect();
        let loads = loads(&hosts, outliers.map_or(0, |outliers| outliers.min_health_percent));
        let total = hosts.iter().map(|hosts| hosts.total).sum();
        let all = priorities.iter().flatten().flat_map(|split| &split.all);
        Self {
            newest: all.map(|endpoint| endpoint.state.since()).max().unwrap_or_default(),
            algorithm: policy.load_balancer.algorithm.clone(),
            warmup: policy.load_balancer.warmup,
            priorities: priorities
                .into_iter()
                .zip(hosts)
                .zip(loads)
                .map(|((splits, hosts), load)| rules.priority(splits, hosts, load))
                .collect(),
            total,
            left_out,
        }
    }

    /// How many endpoints there are to choose among, those that are left out too.
    pub fn total(&self) -> usize {
        self.total
    }

    /// How many of them are left out.
    pub fn left_out(&self) -> LeftOut {
        self.left_out
    }

    /// Whether so few are healthy anywhere that health does not count there (`minHealthPercent`).
    pub fn is_panicking(&self) -> bool {
        self.priorities.iter().any(|priority| priority.load.panic)
    }

    /// Whether an endpoint may still be warming up.
    pub(super) fn is_warming(&self, now: Duration) -> bool {
        self.warmup.is_some_and(|warmup| now.saturating_sub(self.newest) < warmup.duration)
    }
}

/// A group, and those of it that are not left out.
struct Split {
    weight: u64,
    all: Vec<Arc<Endpoint>>,
    /// `None`: all of them.
    healthy: Option<Vec<Arc<Endpoint>>>,
}

impl Split {
    fn healthy(&self) -> usize {
        self.healthy.as_ref().unwrap_or(&self.all).len()
    }
}

struct Rules<'a> {
    by_place: bool,
    /// Whether it counts who is ejected.
    judged: bool,
    /// Whether it counts who fails its checks.
    checked: bool,
    algorithm: &'a Algorithm,
}

impl Rules<'_> {
    fn split(&self, group: Group, left_out: &mut LeftOut) -> Split {
        let all = group.members;
        let mut healthy: Option<Vec<Arc<Endpoint>>> = None;
        for (place, endpoint) in all.iter().enumerate() {
            let ejected = self.judged && endpoint.monitor().is_ejected();
            let failing = self.checked && endpoint.is_failing();
            if ejected || failing {
                left_out.all += 1;
                left_out.ejected += usize::from(ejected);
                left_out.failing += usize::from(failing);
                healthy.get_or_insert_with(|| all[..place].to_vec());
            } else if let Some(healthy) = &mut healthy {
                healthy.push(endpoint.clone());
            }
        }
        Split { weight: group.weight, all, healthy }
    }

    fn hosts(splits: &[Split]) -> Hosts {
        Hosts {
            healthy: splits.iter().map(Split::healthy).sum(),
            total: splits.iter().map(|split| split.all.len()).sum(),
        }
    }

    fn priority(&self, splits: Vec<Split>, hosts: Hosts, load: Load) -> Priority {
        let sources: Box<[Source]> = match (self.algorithm, load.panic) {
            // Nothing is chosen among.
            (Algorithm::Passthrough, _) => Box::default(),
            // In panic places do not count either, but in tables.
            (Algorithm::ConsistentHash(_), true) => {
                splits.into_iter().map(|split| Source::new(self.weight(&split), split.all)).collect()
            }
            (_, true) => [Source::new(1.0, splits.into_iter().flat_map(|split| split.all).collect())].into(),
            (_, false) => {
                let healthy = splits
                    .into_iter()
                    .map(|split| Source::new(self.weight(&split), split.healthy.unwrap_or(split.all)));
                healthy.filter(|source| !source.hosts.is_empty()).collect()
            }
        };
        Priority { load, health: health(hosts), table: self.table(&sources), sources }
    }

    /// A place of which some are left out weighs less, if it has not more than it needs. A table does not heed that, as
    /// it does not in Envoy: otherwise each ejection would move keys in all places.
    fn weight(&self, split: &Split) -> f64 {
        let whole = split.weight as f64;
        if !self.by_place || matches!(self.algorithm, Algorithm::ConsistentHash(_)) {
            return whole;
        }
        let healthy = split.healthy() as f64 / split.all.len().max(1) as f64;
        whole * (OVERPROVISIONING_FACTOR * healthy).min(1.0)
    }

    fn table(&self, sources: &[Source]) -> Option<Table> {
        let Algorithm::ConsistentHash(hash) = self.algorithm else { return None };
        let shares: Vec<Share> = sources.iter().flat_map(shares).collect();
        Some(Table::new(hash.algorithm, &shares))
    }
}

/// What each of a source's endpoints is given of what the source is given.
fn shares(source: &Source) -> impl Iterator<Item = Share> {
    let sum: f64 = source.hosts.iter().map(|host| f64::from(host.weight)).sum();
    source.hosts.iter().map(move |host| Share {
        key: host.endpoint.hash_key(),
        weight: source.weight * f64::from(host.weight) / sum,
    })
}

impl Source {
    fn new(weight: f64, endpoints: Vec<Arc<Endpoint>>) -> Self {
        let first = endpoints.first().map(|endpoint| endpoint.weight());
        let equal = endpoints.iter().all(|endpoint| Some(endpoint.weight()) == first);
        let host = |endpoint: Arc<Endpoint>| Host {
            state: endpoint.state.clone(),
            weight: endpoint.weight(),
            endpoint,
        };
        Self { weight, hosts: endpoints.into_iter().map(host).collect(), equal }
    }
}
