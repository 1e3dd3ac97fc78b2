//! Where an outgoing connection goes: the one function that decides whether it is tunnelled.
//!
//! The order is Istio ambient's, except that ours is stricter: only what lies outside the mesh goes in
//! plain. So an address of the mesh's own ranges that no workload and no service has is waited for and then
//! refused, and a service that only covers a workload's address by a range, or passes through to it, does not take
//! the workload's tunnel away.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use thiserror::Error;

use crate::address::{NamespacedHostname, NetworkAddress, NextHop, OriginalDestination};
use crate::identity::Identity;
use crate::mesh::{Endpoints, Mesh};
use crate::ports;
use crate::select::{Draw, Selected, select, select_but};
use crate::service::{LoadBalancingMode, Service};
use crate::workload::{GatewayAddress, GatewayDestination, Health, TunnelProtocol, Workload};

/// What to do with an outgoing connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Carry it through a tunnel.
    Tunnel(Tunnel),
    /// Connect in plain.
    Plain(Plain),
    /// The destination is a pod or a service of the mesh that the controller has not told of yet: ask again for up
    /// to 5 s, then refuse.
    Wait(NetworkAddress),
    /// Close it.
    Refuse(Refusal),
}

/// A connection to carry through a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Where the tunnel ends.
    pub next_hop: NextHop,
    /// What to ask the far end for (`:authority`).
    pub authority: SocketAddr,
    /// The identities that the far end may have.
    pub expect: Vec<Identity>,
    /// The workload at the tunnel's end: the destination or its waypoint.
    pub workload: Arc<Workload>,
    /// The service that the client addressed.
    pub service: Option<Arc<Service>>,
    /// Whether the tunnel ends at a waypoint.
    pub waypoint: bool,
}

/// A connection to make in plain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plain {
    /// Where to.
    pub next_hop: NextHop,
    /// The destination, if the mesh knows it.
    pub workload: Option<Arc<Workload>>,
    /// The service that the client addressed.
    pub service: Option<Arc<Service>>,
}

/// Why a connection goes nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It would call the proxy itself.
    #[error("{0} is a port of the proxy itself; connecting to it would go round in a circle")]
    SelfCall(SocketAddr),
    /// No endpoint of the service can take it.
    #[error("no healthy upstream: no ready endpoint of {service} serves port {port}")]
    NoEndpoint {
        /// The service.
        service: NamespacedHostname,
        /// The port that the client asked for.
        port: u16,
    },
    /// The waypoint that traffic must take is not known or has no ready replica.
    #[error("unknown waypoint: {0} has no ready replica; `lateen get gateways` shows its state")]
    NoWaypoint(GatewayDestination),
    /// It lies in another network.
    #[error("{0} is in another network; tunnels across networks are not supported yet")]
    OtherNetwork(NetworkAddress),
}

/// Decides where a connection of `source` to `destination` goes.
pub fn plan(mesh: &Mesh, source: &Workload, destination: OriginalDestination, draw: Draw<'_>) -> Plan {
    decide(mesh, source, destination, &[], draw).unwrap_or_else(Plan::Refuse)
}

/// Another replica of the waypoint that a connection goes by than those at these addresses, which could not be reached.
pub fn other_replica(
    mesh: &Mesh,
    source: &Workload,
    destination: OriginalDestination,
    unreachable: &[IpAddr],
    draw: Draw<'_>,
) -> Option<Tunnel> {
    match decide(mesh, source, destination, unreachable, draw) {
        Ok(Plan::Tunnel(tunnel)) if tunnel.waypoint && !unreachable.contains(&tunnel.next_hop.ip()) => {
            Some(tunnel)
        }
        _ => None,
    }
}

/// Whether what is refused may be possible in a moment: a waypoint has replicas, and none is ready.
pub fn may_come_back(mesh: &Mesh, source: &Workload, refusal: &Refusal) -> bool {
    let Refusal::NoWaypoint(GatewayDestination::Hostname(name)) = refusal else { return false };
    let here = |replica: &Arc<Workload>| replica.profile.network == source.profile.network;
    mesh.endpoints(name).is_some_and(|endpoints| endpoints.all().iter().any(here))
}

fn decide(
    mesh: &Mesh,
    source: &Workload,
    destination: OriginalDestination,
    unreachable: &[IpAddr],
    draw: Draw<'_>,
) -> Result<Plan, Refusal> {
    if destination.ip().is_loopback() && ports::is_own(destination.port()) {
        return Err(Refusal::SelfCall(destination.addr()));
    }
    let address = NetworkAddress::new(source.profile.network.clone(), destination.ip());
    let workload = mesh.workload_at(&address);
    // A service whose range happens to cover a workload's address says nothing of that workload.
    let at_service = |service: &&Arc<Service>| workload.is_none() || service.vips.contains(&address);
    let service = mesh.service_at(&address, source.namespace()).filter(at_service);
    // Where an address is a pod's and a service's, it is the pod's when a waypoint is looked for and the service's when
    // an endpoint is. What is no pod somebody wrote by hand: it takes no service's waypoint away.
    if !workload.is_some_and(|workload| workload.is_pod())
        && let Some(service) = service
        && let Some(waypoint) = &service.waypoint
        && !is_waypoint(mesh, source, waypoint)
    {
        return to_waypoint(mesh, source, destination, waypoint, Some(service), (unreachable, draw));
    }
    let balanced =
        |service: &&Arc<Service>| service.rare.load_balancing.mode != LoadBalancingMode::Passthrough;
    match (service.filter(balanced), workload) {
        (Some(service), _) => to_service(mesh, source, destination, service, draw),
        (None, Some(workload)) => to_workload(mesh, source, destination, workload, (unreachable, draw)),
        (None, None) => Ok(to_unknown(mesh, address, destination, service)),
    }
}

/// To an address that no workload has: in plain, unless it must be one of the mesh's own.
fn to_unknown(
    mesh: &Mesh,
    address: NetworkAddress,
    destination: OriginalDestination,
    service: Option<&Arc<Service>>,
) -> Plan {
    if mesh.is_to_come(&address) {
        return Plan::Wait(address);
    }
    let next_hop = NextHop::new(destination.addr());
    Plan::Plain(Plain { next_hop, workload: None, service: service.cloned() })
}

/// To one of a service's endpoints.
fn to_service(
    mesh: &Mesh,
    source: &Workload,
    destination: OriginalDestination,
    service: &Arc<Service>,
    draw: Draw<'_>,
) -> Result<Plan, Refusal> {
    let none = || Refusal::NoEndpoint { service: service.key.clone(), port: destination.port() };
    let endpoints = mesh.endpoints(&service.key).ok_or_else(none)?;
    let selected = select(service, endpoints, source, destination, draw)
        .ok_or_else(|| elsewhere(endpoints, source).unwrap_or_else(none))?;
    Ok(direct(selected, Some(service)))
}

/// Why there is no endpoint, if that is because all of them are in another network.
fn elsewhere(endpoints: &Endpoints, source: &Workload) -> Option<Refusal> {
    let all = endpoints.all();
    let first = all.first()?;
    if all.iter().any(|workload| workload.profile.network == source.profile.network) {
        return None;
    }
    let ip = first.addresses.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    Some(Refusal::OtherNetwork(NetworkAddress::new(first.profile.network.clone(), ip)))
}

/// To a workload by its own address.
fn to_workload(
    mesh: &Mesh,
    source: &Workload,
    destination: OriginalDestination,
    workload: &Arc<Workload>,
    choice: Choice<'_>,
) -> Result<Plan, Refusal> {
    if let Some(waypoint) = &workload.profile.waypoint
        && !is_waypoint(mesh, source, waypoint)
    {
        return to_waypoint(mesh, source, destination, waypoint, None, choice);
    }
    let selected = Selected { workload: workload.clone(), port: destination.port(), ip: destination.ip() };
    Ok(direct(selected, None))
}

/// Straight to an endpoint, by a tunnel if it speaks HBONE.
pub fn direct(selected: Selected, service: Option<&Arc<Service>>) -> Plan {
    let Selected { workload, port, ip } = selected;
    let service = service.cloned();
    if workload.profile.protocol == TunnelProtocol::Tcp {
        let next_hop = NextHop::new(SocketAddr::new(ip, port));
        return Plan::Plain(Plain { next_hop, workload: Some(workload), service });
    }
    let expect = identities(&workload, service.as_deref());
    Plan::Tunnel(Tunnel {
        next_hop: NextHop::new(SocketAddr::new(ip, ports::HBONE)),
        authority: SocketAddr::new(ip, port),
        expect,
        workload,
        service,
        waypoint: false,
    })
}

/// Addresses at which nobody was reached, and the draw among the others.
type Choice<'a> = (&'a [IpAddr], Draw<'a>);

/// To a replica of a waypoint, which is asked for the address that the client asked for.
fn to_waypoint(
    mesh: &Mesh,
    source: &Workload,
    destination: OriginalDestination,
    waypoint: &GatewayAddress,
    service: Option<&Arc<Service>>,
    choice: Choice<'_>,
) -> Result<Plan, Refusal> {
    let (selected, gateway) = replica(mesh, source, destination, waypoint, choice)?;
    Ok(Plan::Tunnel(Tunnel {
        next_hop: NextHop::new(SocketAddr::new(selected.ip, selected.port)),
        authority: destination.addr(),
        expect: identities(&selected.workload, gateway.map(|gateway| &**gateway)),
        workload: selected.workload,
        service: service.cloned(),
        waypoint: true,
    }))
}

/// A ready replica of a waypoint, and the service that it was found by.
fn replica<'a>(
    mesh: &'a Mesh,
    source: &Workload,
    destination: OriginalDestination,
    waypoint: &GatewayAddress,
    (unreachable, draw): Choice<'_>,
) -> Result<(Selected, Option<&'a Arc<Service>>), Refusal> {
    let none = || Refusal::NoWaypoint(waypoint.destination.clone());
    if let Some(gateway) = gateway_service(mesh, source, waypoint) {
        let endpoints = mesh.endpoints(&gateway.key).ok_or_else(none)?;
        let port = OriginalDestination::new(SocketAddr::new(destination.ip(), waypoint.hbone_port));
        let selected = select_but(gateway, endpoints, source, port, unreachable, draw)
            .ok_or_else(|| elsewhere(endpoints, source).unwrap_or_else(none))?;
        return Ok((selected, Some(gateway)));
    }
    let GatewayDestination::Address(address) = &waypoint.destination else { return Err(none()) };
    if address.network != source.profile.network {
        return Err(Refusal::OtherNetwork(address.clone()));
    }
    let workload = mesh.workload_at(address).filter(|workload| workload.status == Health::Healthy);
    let workload = workload.ok_or_else(none)?.clone();
    Ok((Selected { workload, port: waypoint.hbone_port, ip: address.ip }, None))
}

/// The service that a waypoint is found by, if it is found by one.
fn gateway_service<'a>(
    mesh: &'a Mesh,
    source: &Workload,
    waypoint: &GatewayAddress,
) -> Option<&'a Arc<Service>> {
    match &waypoint.destination {
        GatewayDestination::Hostname(name) => mesh.service(name),
        GatewayDestination::Address(address) => mesh.service_at(address, source.namespace()),
    }
}

/// Whether a workload is itself a replica of the waypoint: what it sends on must not come back to it.
pub fn is_waypoint(mesh: &Mesh, source: &Workload, waypoint: &GatewayAddress) -> bool {
    let at = |address: &NetworkAddress| {
        source.profile.network == address.network && source.addresses.contains(&address.ip)
    };
    match &waypoint.destination {
        GatewayDestination::Hostname(name) => source.ports_of(name).is_some(),
        GatewayDestination::Address(address) => {
            let behind = gateway_service(mesh, source, waypoint);
            at(address) || behind.is_some_and(|service| source.ports_of(&service.key).is_some())
        }
    }
}

/// A way through a tunnel, as it was planned once.
#[derive(Debug, Clone, Copy)]
pub struct Planned<'a> {
    /// Who sends.
    pub source: &'a Workload,
    /// Where the tunnel ends.
    pub next_hop: NextHop,
    /// What the far end is asked for.
    pub authority: SocketAddr,
    /// The workload at the tunnel's end.
    pub workload: &'a Workload,
    /// The service that the client addressed.
    pub service: Option<&'a Service>,
}

/// The identities that the far end may have of a way that was planned before ([`Tunnel::expect`]), by what is known now; the
/// workload's own first.
pub fn expected(mesh: &Mesh, planned: &Planned<'_>) -> Vec<Identity> {
    let Planned { source, next_hop, authority, workload, service } = *planned;
    let service = service.map(|service| mesh.service(&service.key).map_or(service, |known| &**known));
    // A waypoint is asked for the address that the client asked for, any other end for its own.
    let naming = if next_hop.ip() == authority.ip() {
        service
    } else {
        let asked = NetworkAddress::new(source.profile.network.clone(), authority.ip());
        let waypoint = match service {
            Some(service) => service.waypoint.as_deref(),
            None => mesh.workload_at(&asked).and_then(|workload| workload.profile.waypoint.as_ref()),
        };
        waypoint.and_then(|waypoint| gateway_service(mesh, source, waypoint)).map(|gateway| &**gateway)
    };
    identities(workload, naming)
}

/// The identities that the far end of a tunnel may have: the workload's own and those its service names.
fn identities(workload: &Workload, service: Option<&Service>) -> Vec<Identity> {
    let mut all = vec![workload.identity().clone()];
    let named = service.into_iter().flat_map(|service| service.rare.subject_alt_names.iter());
    all.extend(named.filter_map(|name| name.parse().ok()));
    all
}

#[cfg(test)]
mod tests;
