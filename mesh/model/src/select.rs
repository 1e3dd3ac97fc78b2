//! Which endpoint of a service a connection goes to.
//!
//! Among the endpoints that can take it, those are preferred that share most with the client (where the service
//! says so), and one of these is drawn at random, weighted by capacity. Randomness is the caller's, so that the
//! choice is a pure function.

use std::net::IpAddr;
use std::sync::Arc;

use crate::address::OriginalDestination;
use crate::mesh::Endpoints;
use crate::service::{LoadBalancingMode, Scope, Service};
use crate::workload::{Health, Workload};

/// A draw: a number below the bound given, each as likely as the next. The bound is never 0.
pub type Draw<'a> = &'a mut dyn FnMut(u32) -> u32;

/// An endpoint chosen, and where on it the application listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The workload.
    pub workload: Arc<Workload>,
    /// The application's port on it.
    pub port: u16,
    /// Which of its addresses to use.
    pub ip: IpAddr,
}

/// How often an endpoint is drawn blindly before all of them are looked at. Most endpoints of most services can
/// take the connection, so the cost does not grow with their number.
const BLIND_DRAWS: u32 = 8;

/// Picks an endpoint of a service for a connection, or `None` where no endpoint can take it.
pub fn select(
    service: &Service,
    endpoints: &Endpoints,
    source: &Workload,
    destination: OriginalDestination,
    draw: Draw<'_>,
) -> Option<Selected> {
    select_but(service, endpoints, source, destination, &[], draw)
}

/// The same, and none at these addresses.
pub fn select_but(
    service: &Service,
    endpoints: &Endpoints,
    source: &Workload,
    destination: OriginalDestination,
    but: &[IpAddr],
    draw: Draw<'_>,
) -> Option<Selected> {
    let all = endpoints.all();
    let usable = |workload: &Arc<Workload>| {
        usable(service, source, workload, destination).filter(|(_, ip)| !but.contains(ip))
    };
    if all.is_empty() {
        return None;
    }
    if service.rare.load_balancing.preference.is_empty() {
        let bound = u32::try_from(all.len()).unwrap_or(u32::MAX);
        for _ in 0..BLIND_DRAWS {
            let workload = &all[draw(bound) as usize];
            // An endpoint of less capacity than the largest is passed over as often as its capacity is smaller.
            let accepted = draw(endpoints.largest_capacity()) < workload.profile.capacity;
            if accepted && let Some((port, ip)) = usable(workload) {
                return Some(Selected { workload: workload.clone(), port, ip });
            }
        }
    }
    let candidates =
        all.iter().filter_map(|workload| usable(workload).map(|(port, ip)| (workload, port, ip)));
    let preferred = prefer(service, source, candidates);
    weighted(&preferred, draw).map(|&(workload, port, ip)| Selected { workload: workload.clone(), port, ip })
}

type Candidate<'a> = (&'a Arc<Workload>, u16, IpAddr);

/// Those candidates that share most with the client.
fn prefer<'a>(
    service: &Service,
    source: &Workload,
    candidates: impl Iterator<Item = Candidate<'a>>,
) -> Vec<Candidate<'a>> {
    let preference = &service.rare.load_balancing.preference;
    let strict = service.rare.load_balancing.mode == LoadBalancingMode::Strict;
    let mut best = 0;
    let mut preferred = Vec::new();
    for candidate in candidates {
        let rank = rank(preference, source, candidate.0);
        if strict && rank < preference.len() {
            continue;
        }
        if rank > best {
            best = rank;
            preferred.clear();
        }
        if rank == best {
            preferred.push(candidate);
        }
    }
    preferred
}

/// How many of the scopes, from the first, an endpoint shares with the client.
fn rank(preference: &[Scope], source: &Workload, endpoint: &Workload) -> usize {
    preference.iter().take_while(|scope| shares(**scope, source, endpoint)).count()
}

fn shares(scope: Scope, source: &Workload, endpoint: &Workload) -> bool {
    let (ours, theirs) = (&source.profile, &endpoint.profile);
    match scope {
        Scope::Region => ours.locality.region == theirs.locality.region,
        Scope::Zone => ours.locality.zone == theirs.locality.zone,
        Scope::Subzone => ours.locality.subzone == theirs.locality.subzone,
        Scope::Node => source.node == endpoint.node,
        Scope::Cluster => ours.cluster == theirs.cluster,
        Scope::Network => ours.network == theirs.network,
    }
}

/// Draws one of the candidates, each as likely as its capacity is large.
fn weighted<'a, 'b>(candidates: &'b [Candidate<'a>], draw: Draw<'_>) -> Option<&'b Candidate<'a>> {
    let capacity = |(workload, _, _): &Candidate<'_>| workload.profile.capacity;
    let total = candidates.iter().map(capacity).fold(0u32, u32::saturating_add);
    if total == 0 {
        return None;
    }
    let mut drawn = draw(total);
    candidates.iter().find(|candidate| {
        let mine = capacity(candidate);
        let chosen = drawn < mine;
        drawn = drawn.saturating_sub(mine);
        chosen
    })
}

/// Where an endpoint takes the connection, if it can: it is ready, in the client's network (no other is reached yet),
/// serves the port and has an address that fits.
pub fn usable(
    service: &Service,
    source: &Workload,
    workload: &Workload,
    destination: OriginalDestination,
) -> Option<(u16, IpAddr)> {
    if workload.status == Health::Unhealthy && !service.rare.load_balancing.allow_unhealthy {
        return None;
    }
    if workload.profile.network != source.profile.network {
        return None;
    }
    let port = target_port(service, workload, destination.port())?;
    let ip = address_of(service, workload, destination.ip())?;
    Some((port, ip))
}

/// The application's port on an endpoint for a service's port: what the endpoint says, else what the service says.
pub fn target_port(service: &Service, workload: &Workload, service_port: u16) -> Option<u16> {
    let own = workload.ports_of(&service.key).and_then(|ports| ports.get(service_port));
    let general = service.ports.get(service_port);
    own.or(general)?;
    [own, general].into_iter().flatten().map(|port| port.target).find(|target| *target != 0)
}

/// The address of an endpoint to use: the very one that was asked for, else one of the service's families, of the
/// family asked for if there is one.
fn address_of(service: &Service, workload: &Workload, asked: IpAddr) -> Option<IpAddr> {
    if workload.addresses.contains(&asked) {
        return Some(asked);
    }
    let allowed = || workload.addresses.iter().copied().filter(|ip| service.ip_families.allow(*ip));
    allowed().find(|ip| ip.is_ipv4() == asked.is_ipv4()).or_else(|| allowed().next())
}

#[cfg(test)]
mod tests;
