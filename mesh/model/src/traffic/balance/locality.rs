//! Which endpoints come first by where they are, and how much goes to which place.
//!
//! Priorities and weights are those that Istio computes for the proxy (`loadbalancer.go`: `applyLocalityFailover`,
//! `applyFailoverPriorities`, `applyLocalityWeights`), from the same settings in the same order: the DestinationRule's, else
//! the Service's `trafficDistribution`, else the mesh's default.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Endpoint, Proxy};
use crate::address::Str;
use crate::service::{LoadBalancing, LoadBalancingMode, Scope};
use crate::traffic::{Distribute, EffectivePolicy, Failover, LocalityLb};
use crate::workload::{Locality, Workload};

/// Endpoints that come at the same time, from one place if places are weighed.
#[derive(Debug)]
pub(super) struct Group {
    /// 0 comes first; none is left out.
    pub(super) priority: u32,
    /// The place's weight among those of its priority.
    pub(super) weight: u64,
    pub(super) members: Vec<Arc<Endpoint>>,
}

/// All endpoints that are to be used, in the order of their priorities.
#[derive(Debug, Default)]
pub(super) struct Arrangement {
    pub(super) groups: Vec<Group>,
    /// Whether a place is chosen by its weight before an endpoint of it is; otherwise a priority is one group.
    pub(super) by_place: bool,
}

/// Arranges endpoints for a proxy. Those without weight are left out.
pub(super) fn arrange<'a>(
    policy: &EffectivePolicy,
    service: &LoadBalancing,
    proxy: &Proxy<'_>,
    endpoints: impl Iterator<Item = &'a Arc<Endpoint>>,
) -> Arrangement {
    let rule = Rule::of(policy, service);
    let by_place = rule.by_place();
    let mut groups: BTreeMap<(u32, Option<Place>), Group> = BTreeMap::new();
    for endpoint in endpoints.filter(|endpoint| endpoint.weight() > 0) {
        let Some(priority) = rule.priority(proxy, endpoint) else { continue };
        let place = by_place.then(|| Place::of(&endpoint.target.workload.profile.locality));
        let group =
            groups.entry((priority, place)).or_insert(Group { priority, weight: 0, members: Vec::new() });
        group.weight += u64::from(endpoint.weight());
        group.members.push(endpoint.clone());
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    if let Rule::Distribute(distribute) = rule {
        distribute_over(distribute, proxy, &mut groups);
    }
    close_gaps(&mut groups);
    Arrangement { groups, by_place }
}

/// What decides; of the lists of a rule there is at most one, and `failover` may go with `failoverPriority`.
enum Rule<'a> {
    /// Place does not count.
    None,
    Distribute(&'a [Distribute]),
    /// Labels in order of weight. `strict`: an endpoint must share all of them.
    Labels {
        wanted: Vec<Wanted<'a>>,
        then: Option<&'a [Failover]>,
        strict: bool,
    },
    /// By region, zone and subzone.
    Places(&'a [Failover]),
}

/// A label, and the value wanted; `None`: the proxy's own.
type Wanted<'a> = (&'a str, Option<&'a str>);

impl<'a> Rule<'a> {
    fn of(policy: &'a EffectivePolicy, service: &LoadBalancing) -> Self {
        // Where nobody is ever found unhealthy, nothing would fail over.
        let judged = policy.outlier_detection.is_some();
        let failover = judged || policy.checked;
        match &policy.load_balancer.locality {
            Some(LocalityLb { enabled: false, .. }) => Self::None,
            Some(locality) => Self::of_setting(locality, failover),
            None if !service.preference.is_empty() => Self::Labels {
                wanted: service.preference.iter().map(|scope| (label_of(*scope), None)).collect(),
                then: None,
                strict: service.mode == LoadBalancingMode::Strict,
            },
            // As in Istio, what is near comes first as soon as there is outlier detection. Checks alone move no traffic.
            None if judged => Self::Places(&[]),
            None => Self::None,
        }
    }

    fn of_setting(locality: &'a LocalityLb, failover: bool) -> Self {
        if !locality.distribute.is_empty() {
            return Self::Distribute(&locality.distribute);
        }
        if !failover {
            return Self::None;
        }
        let regions = &*locality.failover;
        if locality.failover_priority.is_empty() {
            return Self::Places(regions);
        }
        let wanted = locality.failover_priority.iter().map(|label| (&*label.name, label.value.as_deref()));
        Self::Labels {
            wanted: wanted.collect(),
            then: Some(regions).filter(|regions| !regions.is_empty()),
            strict: false,
        }
    }

    /// Whether places are weighed: only where something was written of them, or least request could not choose among all.
    fn by_place(&self) -> bool {
        match self {
            Self::None => false,
            Self::Distribute(_) | Self::Labels { .. } => true,
            Self::Places(regions) => !regions.is_empty(),
        }
    }

    /// An endpoint's priority; there may be gaps between those of different endpoints. `None`: it is not to be used.
    fn priority(&self, proxy: &Proxy<'_>, endpoint: &Endpoint) -> Option<u32> {
        match self {
            Self::None | Self::Distribute(_) => Some(0),
            Self::Places(regions) => Some(by_places(regions, proxy, endpoint)),
            Self::Labels { wanted, then, strict } => {
                let first = by_labels(wanted, proxy, endpoint);
                if *strict && first > 0 {
                    return None;
                }
                Some(then.map_or(first, |regions| first * PLACES + by_places(regions, proxy, endpoint)))
            }
        }
    }
}

/// How many priorities there are by place.
const PLACES: u32 = 5;

/// The same subzone, zone, region; another region; and, where it is said which region stands in, any other than that.
fn by_places(failover: &[Failover], proxy: &Proxy<'_>, endpoint: &Endpoint) -> u32 {
    let ours = &proxy.workload.profile.locality;
    let theirs = &endpoint.target.workload.profile.locality;
    if ours.region == theirs.region {
        return match (ours.zone == theirs.zone, ours.subzone == theirs.subzone) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 2,
        };
    }
    match failover.iter().find(|failover| failover.from == ours.region) {
        Some(failover) if failover.to != theirs.region => 4,
        _ => 3,
    }
}

/// The more of the labels, from the first, are as wanted, the sooner: all of n give 0, none gives n. The network, as the
/// first label, does not end the row: endpoints of other networks come after all of this one, in the same order.
fn by_labels(wanted: &[Wanted<'_>], proxy: &Proxy<'_>, endpoint: &Endpoint) -> u32 {
    let count = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
    let mut other_network = 0;
    for (place, (name, value)) in (0u32..).zip(wanted) {
        let ours = value.unwrap_or_else(|| value_of(name, proxy.workload, proxy.labels));
        if ours == value_of(name, &endpoint.target.workload, &endpoint.labels) {
            continue;
        }
        if place == 0 && *name == NETWORK {
            other_network = count;
            continue;
        }
        return count - place + other_network;
    }
    other_network
}

const NETWORK: &str = "topology.istio.io/network";
const CLUSTER: &str = "topology.istio.io/cluster";
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUBZONE: &str = "topology.istio.io/subzone";
const NODE: &str = "kubernetes.io/hostname";

/// A workload's value of a label; of some names it is known though no such label is there. What is not there is empty, so
/// that two without it share it.
fn value_of<'a>(name: &str, workload: &'a Workload, labels: &'a BTreeMap<Str, Str>) -> &'a str {
    let profile = &workload.profile;
    match name {
        NETWORK => &profile.network,
        CLUSTER => &profile.cluster,
        REGION => &profile.locality.region,
        ZONE => &profile.locality.zone,
        SUBZONE => &profile.locality.subzone,
        NODE => &workload.node,
        _ => labels.get(name).map_or("", |value| value),
    }
}

fn label_of(scope: Scope) -> &'static str {
    match scope {
        Scope::Region => REGION,
        Scope::Zone => ZONE,
        Scope::Subzone => SUBZONE,
        Scope::Node => NODE,
        Scope::Cluster => CLUSTER,
        Scope::Network => NETWORK,
    }
}

/// Gives the places the weights of the first entry for the proxy's own; what is in none of them is left out. A weight for
/// several places is shared by them by their endpoints, each part rounded up. Without an entry for the proxy's place
/// nothing changes.
fn distribute_over(distribute: &[Distribute], proxy: &Proxy<'_>, groups: &mut Vec<Group>) {
    let ours = &proxy.workload.profile.locality;
    let Some(entry) = distribute.iter().find(|entry| matches(ours, &entry.from)) else { return };
    let entry_of = |group: &Group| {
        let theirs = &group.members.first()?.target.workload.profile.locality;
        entry.to.iter().position(|(place, _)| matches(theirs, place))
    };
    let mut sums = vec![0; entry.to.len()];
    let of_entries: Vec<Option<usize>> = groups.iter().map(entry_of).collect();
    for (group, entry) in groups.iter().zip(&of_entries) {
        if let Some(entry) = entry {
            sums[*entry] += group.weight;
        }
    }
    for (group, of_entry) in groups.iter_mut().zip(&of_entries) {
        group.weight = of_entry.map_or(0, |of_entry| {
            let share = u128::from(group.weight) * u128::from(entry.to[of_entry].1);
            u64::try_from(share.div_ceil(u128::from(sums[of_entry].max(1)))).unwrap_or(u64::MAX)
        });
    }
    groups.retain(|group| group.weight > 0);
}

/// Whether a locality is what `region/zone/subzone` says, whose parts may be `*` or, from the end, missing.
fn matches(locality: &Locality, rule: &str) -> bool {
    let mut parts = rule.split('/');
    let [region, zone, subzone] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    let any_or = |part: &str, value: &Str| part.is_empty() || part == "*" || *part == **value;
    (region == "*" || *region == *locality.region)
        && any_or(zone, &locality.zone)
        && any_or(subzone, &locality.subzone)
}

/// Makes priorities follow one another without gaps.
fn close_gaps(groups: &mut [Group]) {
    let used: BTreeSet<u32> = groups.iter().map(|group| group.priority).collect();
    for group in groups {
        group.priority = u32::try_from(used.range(..group.priority).count()).unwrap_or(u32::MAX);
    }
}

/// A locality, in the order of its names.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place(Str, Str, Str);

impl Place {
    fn of(locality: &Locality) -> Self {
        Self(locality.region.clone(), locality.zone.clone(), locality.subzone.clone())
    }
}

#[cfg(test)]
mod tests;
