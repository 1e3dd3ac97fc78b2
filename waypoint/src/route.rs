//! Where a request or connection goes: to an endpoint of the service that a rule names or that was asked for
//! ([`crate::balance`]), or to the pod that was. A host behind another waypoint is reached through that one: `model::plan`
//! decides that, from this waypoint's place in the mesh.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::Identity;
use model::address::{NextHop, OriginalDestination, Str};
use model::mesh::Mesh;
use model::plan::{Plan, Refusal, direct, is_waypoint, plan};
use model::request::Request;
use model::route::Destination;
use model::select::Selected;
use model::service::{LoadBalancingMode, Service};
use model::traffic::balance::NoEndpoint;
use model::traffic::hash::Hashed;
use model::traffic::health::ANNOTATION;
use model::traffic::outlier::Outcome;
use model::traffic::{Algorithm, EffectivePolicy};
use model::workload::Workload;
use proxy::random::draw;
use thiserror::Error;

use crate::balance::{self, Asked, Cluster, InUse, Tried};
use crate::known::Edition;
use crate::listen::Inbound;
use crate::target;
use crate::telemetry::Flags;
use crate::worker::Worker;

/// Where a request or connection goes.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// Where to connect.
    pub(crate) hop: Hop,
    /// The application's address and port, or what the next waypoint is asked for.
    pub(crate) address: SocketAddr,
    /// The workload at the end, if the mesh knows it; that of the next waypoint where it goes through one.
    pub(crate) workload: Option<Arc<Workload>>,
    /// The service that it is one of: what was asked for, or what a rule leads to.
    pub(crate) service: Option<Arc<Service>>,
    /// What a client would have to ask for to get there: the service's address and port, or the pod's.
    pub(crate) asked: SocketAddr,
    /// Whether it goes through another waypoint, which judges for itself.
    pub(crate) waypoint: bool,
    /// Its place among those that requests go to; none where it was not picked here.
    pub(crate) in_use: Option<Rc<InUse>>,
}

impl Endpoint {
    /// Notes what became of a request or connection to it.
    pub(crate) fn record(&self, outcome: Outcome) {
        if let Some(in_use) = &self.in_use {
            in_use.record(outcome);
        }
    }
}

/// How an endpoint is reached.
#[derive(Debug, Clone)]
pub(crate) enum Hop {
    /// Through a tunnel to this address, which has to prove one of these identities.
    Tunnel {
        /// Where the tunnel ends.
        next_hop: NextHop,
        /// Who may be there.
        expect: Arc<[Identity]>,
    },
    /// In plain.
    Plain(NextHop),
}

/// Why there is nowhere to go.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum NoRoute {
    /// As for any other client.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The mesh has not told of it.
    #[error("the controller has not told of {0} within 5 s")]
    Unknown(SocketAddr),
    /// The service has no endpoint that may be picked.
    #[error("no healthy upstream: {service} port {port}{subset}: {why}")]
    NoEndpoint {
        /// The service.
        service: String,
        /// Its port.
        port: u16,
        /// ` subset NAME`, or nothing.
        subset: String,
        /// Why not.
        why: NoEndpoint,
        /// The rules that say what is to be picked; empty where none do.
        rules: Str,
        /// What an endpoint fails its checks for, where that is why.
        failure: Option<Str>,
    },
    /// The service names a pod of another namespace that this waypoint lets nobody ask for.
    #[error("{service} leads to {pod}, which is to be reached here by services of its own namespace only")]
    Borrowed {
        /// The service.
        service: String,
        /// The pod.
        pod: String,
    },
    /// A rule names a service that is not there.
    #[error("there is no service {0}")]
    NoService(String),
}

impl NoRoute {
    /// The flags in telemetry.
    pub(crate) fn flags(&self) -> Flags {
        match self {
            Self::Refused(_) | Self::NoEndpoint { .. } | Self::Borrowed { .. } => Flags::UH,
            Self::NoService(_) => Flags::NC,
            Self::Unknown(_) => Flags::NR,
        }
    }

    /// The rule that decided that there is nowhere to go, if one did.
    pub(crate) fn cause(&self) -> Option<String> {
        match self {
            Self::NoEndpoint { why, rules, failure, .. } => {
                let failure = failure.as_ref().map(|failure| format!(" ({failure})")).unwrap_or_default();
                match why {
                    NoEndpoint::Absent => None,
                    NoEndpoint::Ejected(_) => Some(format!("{rules} trafficPolicy.outlierDetection")),
                    NoEndpoint::Failing(_) => Some(format!("{rules} {ANNOTATION}{failure}")),
                    NoEndpoint::LeftOut { .. } => {
                        Some(format!("{rules} trafficPolicy.outlierDetection and {ANNOTATION}{failure}"))
                    }
                }
            }
            _ => None,
        }
    }
}

/// How long an address of the mesh's own is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known of what is to be sent, for picking where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    /// What becomes of traffic to the host.
    pub(crate) routing: &'a Edition,
    /// The destination of the rule that decided.
    pub(crate) destination: Option<&'a Destination>,
    /// The request.
    pub(crate) request: Option<&'a Request<'a>>,
    /// Where it failed before.
    pub(crate) tried: &'a Tried,
}

/// Picks where a request or connection goes.
///
/// # Errors
/// No endpoint can take it.
pub(crate) async fn endpoint(
    worker: &Worker,
    inbound: &Inbound,
    wish: &Wish<'_>,
) -> Result<Endpoint, NoRoute> {
    let target = &inbound.target;
    let key = wish.destination.map(|destination| &destination.service);
    let Some(key) = key.or(target.service.as_ref().map(|service| &service.key)) else {
        return planned(worker, &inbound.own, target.destination).await;
    };
    let port = wish.destination.and_then(|destination| destination.port).unwrap_or(target.destination.port());
    let (service, elsewhere) = {
        let mesh = worker.waypoint.state.read();
        let service = mesh.service(key).ok_or_else(|| NoRoute::NoService(key.to_string()))?.clone();
        let behind_another =
            service.waypoint.as_ref().is_some_and(|waypoint| !is_waypoint(&mesh, &inbound.own, waypoint));
        let passed_through = service.rare.load_balancing.mode == LoadBalancingMode::Passthrough;
        (service, behind_another || passed_through)
    };
    if elsewhere && let Some(vip) = service.vips.first() {
        return planned(worker, &inbound.own, SocketAddr::new(vip.ip, port)).await;
    }
    let subset = wish.destination.and_then(|destination| destination.subset.clone());
    let hash = |policy: &EffectivePolicy| hash(policy, inbound, wish.request);
    let asked = Asked { hash, tried: wish.tried };
    let rules = wish.routing.rules(&service.key);
    let cause = rules.of.map(|rules| rules.cause.clone()).unwrap_or_default();
    let cluster = Cluster { service: service.key.clone(), port, subset, rules: cause };
    let picked = balance::pick(worker, &inbound.own, &service, &cluster, rules, asked);
    let (selected, in_use) = picked.map_err(|(why, rules)| NoRoute::NoEndpoint {
        service: cluster.service.to_string(),
        port,
        subset: cluster.subset.map(|name| format!(" subset {name}")).unwrap_or_default(),
        why,
        rules,
        failure: matches!(why, NoEndpoint::Failing(_) | NoEndpoint::LeftOut { .. })
            .then(|| worker.waypoint.checks.of(&cluster.service)?.failure())
            .flatten(),
    })?;
    let in_use = Some(Rc::new(in_use));
    let Some(selected) = selected else {
        return Ok(Endpoint { in_use, ..planned(worker, &inbound.own, target.destination).await? });
    };
    may_lead_to(worker, inbound, &service, &selected.workload)?;
    let endpoint = to_selected(worker, &inbound.own, &service, selected, port).await?;
    Ok(Endpoint { service: Some(service), in_use, ..endpoint })
}

/// The way to an endpoint of a service that was chosen, or is checked.
///
/// # Errors
/// It cannot be reached.
pub(crate) async fn to_selected(
    worker: &Worker,
    own: &Workload,
    service: &Arc<Service>,
    selected: Selected,
    asked: u16,
) -> Result<Endpoint, NoRoute> {
    match service.vips.first() {
        Some(vip) => to_endpoint(direct(selected, Some(service)), SocketAddr::new(vip.ip, asked)),
        // The name of a headless service stands for its pods' addresses, and who asks for one of these goes by the pod's
        // waypoint.
        None => planned(worker, own, SocketAddr::new(selected.ip, selected.port)).await,
    }
}

/// Refuses pods that a service has no business with.
fn may_lead_to(
    worker: &Worker,
    inbound: &Inbound,
    service: &Service,
    workload: &Workload,
) -> Result<(), NoRoute> {
    // Nearly always; the state is not asked then.
    if **workload.namespace() == *service.key.namespace() {
        return Ok(());
    }
    match target::is_borrowed(&worker.waypoint.state.read(), &inbound.own, workload) {
        false => Ok(()),
        true => {
            let pod = format!("{}/{}", workload.namespace(), workload.name);
            Err(NoRoute::Borrowed { service: service.key.to_string(), pod })
        }
    }
}

/// The hash of what is sent, where the endpoint depends on it, and the cookie by which the client will be known again.
fn hash(policy: &EffectivePolicy, inbound: &Inbound, request: Option<&Request<'_>>) -> Option<Hashed> {
    let Algorithm::ConsistentHash(consistent) = &policy.load_balancer.algorithm else { return None };
    Some(match request {
        Some(request) => consistent.key.of_request(request),
        None => consistent.key.of_connection(inbound.client.peer.addr()),
    })
}

/// Goes where any client in this waypoint's place would.
async fn planned(worker: &Worker, own: &Workload, destination: SocketAddr) -> Result<Endpoint, NoRoute> {
    let decide = |mesh: &Mesh| match plan(mesh, own, OriginalDestination::new(destination), &mut draw) {
        Plan::Wait(_) => None,
        decided => Some(decided),
    };
    // Nearly always it is known at once, and nothing is waited for.
    let decided = decide(&worker.waypoint.state.read());
    let decided = match decided {
        Some(decided) => Some(decided),
        None => Box::pin(worker.waypoint.state.wait_at_most(PATIENCE, decide)).await,
    };
    decided.ok_or(NoRoute::Unknown(destination)).and_then(|plan| to_endpoint(plan, destination))
}

fn to_endpoint(plan: Plan, asked: SocketAddr) -> Result<Endpoint, NoRoute> {
    match plan {
        Plan::Tunnel(tunnel) => Ok(Endpoint {
            hop: Hop::Tunnel { next_hop: tunnel.next_hop, expect: tunnel.expect.into() },
            address: tunnel.authority,
            workload: Some(tunnel.workload),
            service: tunnel.service,
            asked,
            waypoint: tunnel.waypoint,
            in_use: None,
        }),
        Plan::Plain(plain) => Ok(Endpoint {
            hop: Hop::Plain(plain.next_hop),
            address: plain.next_hop.addr(),
            workload: plain.workload,
            service: plain.service,
            asked,
            waypoint: false,
            in_use: None,
        }),
        Plan::Refuse(refusal) => Err(NoRoute::Refused(refusal)),
        // Left out before.
        Plan::Wait(address) => Err(NoRoute::Unknown(SocketAddr::new(address.ip, 0))),
    }
}
