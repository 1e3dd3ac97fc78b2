//! Whose turn it is among the endpoints of a service, or of one of its subsets: `model::traffic` decides, by what the
//! DestinationRules say. Each thread has its own turns; what they go by is looked at again when something has changed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use model::address::{NamespacedHostname, OriginalDestination, Str};
use model::mesh::Mesh;
use model::route::Routing;
use model::select::{Selected, usable};
use model::service::Service;
use model::traffic::balance::{Active, Balancer, Members, NoEndpoint, Picked, Plan, Proxy, Wanted};
use model::traffic::{self, Destination, EffectivePolicy};
use model::workload::Workload;

use crate::route::draw;
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
}

/// The turns of one thread.
#[derive(Debug, Default)]
pub(crate) struct Clusters(RefCell<HashMap<Cluster, Turns, foldhash::fast::RandomState>>);

/// Clusters that a thread remembers before those that were not used for longest make room: all at once, which costs
/// nothing but the places in their rounds.
const MOST: usize = 4096;

#[derive(Debug)]
struct Turns {
    seen: Seen,
    members: Members,
    /// What the DestinationRules say.
    policy: EffectivePolicy,
    balancer: Balancer,
}

/// What turns were made of.
#[derive(Debug)]
struct Seen {
    mesh: u64,
    labels: u64,
    rules: Option<Arc<Destination>>,
}

impl Seen {
    fn is(&self, other: &Self) -> bool {
        let same_rules = match (&self.rules, &other.rules) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        same_rules && (self.mesh, self.labels) == (other.mesh, other.labels)
    }
}

/// An endpoint whose turn it is, counted until the value beside it is dropped.
pub(crate) type Chosen = (Selected, Active);

/// Picks an endpoint; one that is to be avoided only if there is no other. `None` is where the client wanted to, as it is.
///
/// # Errors
/// Nobody can be picked.
pub(crate) fn pick(
    worker: &Worker,
    own: &Workload,
    service: &Service,
    cluster: &Cluster,
    routing: Option<&Routing>,
    hash: impl FnOnce(&EffectivePolicy) -> Option<u64>,
    avoid: Option<SocketAddr>,
) -> Result<Option<Chosen>, NoEndpoint> {
    let rules = routing.and_then(|routing| routing.destinations.get(&cluster.service));
    let seen = Seen {
        mesh: worker.revision.borrow().any,
        labels: worker.waypoint.labels.revision(),
        rules: rules.cloned(),
    };
    let mut all = worker.clusters.0.borrow_mut();
    if all.len() >= MOST && !all.contains_key(cluster) {
        all.clear();
    }
    let current = all.get(cluster).is_some_and(|turns| turns.seen.is(&seen));
    if !current {
        let mesh = worker.waypoint.state.read();
        let before = all.remove(cluster);
        let turns = renewed(worker, &mesh, own, service, cluster, seen, before);
        all.insert(cluster.clone(), turns);
    }
    let turns = all.get_mut(cluster).ok_or(NoEndpoint::Absent)?;
    let keep_away = |endpoint: &traffic::balance::Endpoint| {
        avoid == Some(SocketAddr::new(endpoint.target.ip, endpoint.target.port))
    };
    let wanted =
        Wanted { hash: hash(&turns.policy), avoid: &keep_away, ..Wanted::at(worker.began.elapsed()) };
    match turns.balancer.pick(&wanted, &mut draw)? {
        Picked::Endpoint { endpoint, .. } => Ok(Some((endpoint.target.clone(), endpoint.begin()))),
        Picked::Original => Ok(None),
    }
}

fn effective(rules: &Destination, cluster: &Cluster) -> EffectivePolicy {
    let subset = cluster.subset.as_deref().and_then(|name| rules.subset(name));
    rules.effective(subset, cluster.port)
}

/// The turns by what is known now; rounds go on where they were, and what is under way stays counted.
fn renewed(
    worker: &Worker,
    mesh: &Mesh,
    own: &Workload,
    service: &Service,
    cluster: &Cluster,
    seen: Seen,
    before: Option<Turns>,
) -> Turns {
    let now = worker.began.elapsed();
    let (mut members, balancer) = match before {
        Some(turns) => (turns.members, Some(turns.balancer)),
        None => (Members::default(), None),
    };
    let found = endpoints(worker, mesh, own, service, cluster, seen.rules.as_deref());
    let gone: Vec<Str> = members
        .iter()
        .map(|endpoint| endpoint.uid().clone())
        .filter(|uid| !found.iter().any(|(target, _)| target.workload.uid == *uid))
        .collect();
    gone.iter().for_each(|uid| {
        members.remove(uid);
    });
    for (target, labels) in found {
        members.put(target, labels, now);
    }
    let policy = seen.rules.as_deref().map(|rules| effective(rules, cluster)).unwrap_or_default();
    let labels = worker.waypoint.labels.of(&own.uid).unwrap_or_default();
    let proxy = Proxy { workload: own, labels: &labels };
    let plan = Arc::new(Plan::new(&policy, &service.load_balancing, &proxy, members.iter()));
    let balancer = match balancer {
        Some(mut balancer) => {
            balancer.replace(plan, now, &mut draw);
            balancer
        }
        None => Balancer::new(plan, now, &mut draw),
    };
    Turns { seen, members, policy, balancer }
}

/// The endpoints that can take something, with their labels.
fn endpoints(
    worker: &Worker,
    mesh: &Mesh,
    own: &Workload,
    service: &Service,
    cluster: &Cluster,
    rules: Option<&Destination>,
) -> Vec<(Selected, traffic::balance::Labels)> {
    let subset = cluster.subset.as_deref().map(|name| rules.and_then(|rules| rules.subset(name)));
    let vip = service.vips.first().map_or(Ipv4Addr::UNSPECIFIED.into(), |vip| vip.ip);
    let asked = OriginalDestination::new(SocketAddr::new(vip, cluster.port));
    let Some(all) = mesh.endpoints(&cluster.service) else { return Vec::new() };
    let mut found = Vec::with_capacity(all.all().len());
    for workload in all.all() {
        let labels = worker.waypoint.labels.of(&workload.uid).unwrap_or_default();
        let belongs = match subset {
            None => true,
            // One that is named and not there has no endpoint.
            Some(subset) => subset.is_some_and(|subset| subset.selects(&labels)),
        };
        if belongs && let Some((port, ip)) = usable(service, own, workload, asked) {
            found.push((Selected { workload: workload.clone(), port, ip }, labels));
        }
    }
    found
}
