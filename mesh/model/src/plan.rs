//! Where an outgoing connection goes: the one function that decides whether it is tunnelled.
//!
//! The order is Istio ambient's (`wire.md` 1.9), except where `design.md` D5 is stricter: an address of the mesh's
//! own pod ranges that no workload has is waited for and then refused, never passed in plain.

use std::net::SocketAddr;
use std::sync::Arc;

use thiserror::Error;

use crate::address::{NamespacedHostname, NetworkAddress, NextHop, OriginalDestination};
use crate::identity::Identity;
use crate::mesh::Mesh;
use crate::ports;
use crate::select::{Draw, Selected, select};
use crate::service::{LoadBalancingMode, Service};
use crate::workload::{GatewayAddress, GatewayDestination, TunnelProtocol, Workload};

/// What to do with an outgoing connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Carry it through a tunnel.
    Tunnel(Tunnel),
    /// Connect in plain.
    Plain(Plain),
    /// The destination is a pod of the mesh that the controller has not told of yet: ask again for up to 5 s,
    /// then refuse.
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
    decide(mesh, source, destination, draw).unwrap_or_else(Plan::Refuse)
}

fn decide(
    mesh: &Mesh,
    source: &Workload,
    destination: OriginalDestination,
    draw: Draw<'_>,
) -> Result<Plan, Refusal> {
    if destination.ip().is_loopback() && ports::is_own(destination.port()) {
        return Err(Refusal::SelfCall(destination.addr()));
    }
    let address = NetworkAddress::new(source.profile.network.clone(), destination.ip());
    let workload = mesh.workload_at(&address);
    // An address is a workload's before it is a service's when a waypoint is looked for, and the other way round
    // when an endpoint is: a waypoint in front of a service must not be missed, nor its load balancing.
    let service = mesh.service_at(&address, source.namespace());
    if workload.is_none()
        && let Some(service) = service
        && let Some(waypoint) = &service.waypoint
    {
        return to_waypoint(mesh, source, destination, waypoint, Some(service), draw);
    }
    match (service, workload) {
        (Some(service), _) => to_service(mesh, source, destination, service, draw),
        (None, Some(workload)) => to_workload(mesh, source, destination, workload, draw),
        (None, None) if mesh.is_pod_address(destination.ip()) => Ok(Plan::Wait(address)),
        (None, None) => Ok(Plan::Plain(Plain {
            next_hop: NextHop::new(destination.addr()),
            workload: None,
            service: None,
        })),
    }
}

/// To one of a service's endpoints.
fn to_service(
    mesh: &Mesh,
    source: &Workload,
    destination: OriginalDestination,
    service: &Arc<Service>,
    draw: Draw<'_>,
) -> Result<Plan, Refusal> {
    if service.load_balancing.mode == LoadBalancingMode::Passthrough {
        let next_hop = NextHop::new(destination.addr());
        return Ok(Plan::Plain(Plain { next_hop, workload: None, service: Some(service.clone()) }));
    }
    let none = || Refusal::NoEndpoint { service: service.key.clone(), port: destination.port() };
    let endpoints = mesh.endpoints(&service.key).ok_or_else(none)?;
    let selected = select(service, endpoints, source, destination, draw).ok_or_else(none)?;
    direct(source, selected, Some(service))
}

/// To a workload by its own address.
fn to_workload(
    mesh: &Mesh,
    source: &Workload,
    destination: OriginalDestination,
    workload: &Arc<Workload>,
    draw: Draw<'_>,
) -> Result<Plan, Refusal> {
    if let Some(waypoint) = &workload.profile.waypoint
        && !is_waypoint(mesh, source, waypoint)
    {
        return to_waypoint(mesh, source, destination, waypoint, None, draw);
    }
    let selected = Selected { workload: workload.clone(), port: destination.port(), ip: destination.ip() };
    direct(source, selected, None)
}

/// Straight to an endpoint, by a tunnel if it speaks HBONE.
fn direct(source: &Workload, selected: Selected, service: Option<&Arc<Service>>) -> Result<Plan, Refusal> {
    let Selected { workload, port, ip } = selected;
    if workload.profile.network != source.profile.network {
        return Err(Refusal::OtherNetwork(NetworkAddress::new(workload.profile.network.clone(), ip)));
    }
    let service = service.cloned();
    if workload.profile.protocol == TunnelProtocol::Tcp {
        let next_hop = NextHop::new(SocketAddr::new(ip, port));
        return Ok(Plan::Plain(Plain { next_hop, workload: Some(workload), service }));
    }
    let expect = identities(&workload, service.as_deref());
    Ok(Plan::Tunnel(Tunnel {
        next_hop: NextHop::new(SocketAddr::new(ip, ports::HBONE)),
        authority: SocketAddr::new(ip, port),
        expect,
        workload,
        service,
        waypoint: false,
    }))
}

/// To a replica of a waypoint, which is asked for the address that the client asked for.
fn to_waypoint(
    mesh: &Mesh,
    source: &Workload,
    destination: OriginalDestination,
    waypoint: &GatewayAddress,
    service: Option<&Arc<Service>>,
    draw: Draw<'_>,
) -> Result<Plan, Refusal> {
    let none = || Refusal::NoWaypoint(waypoint.destination.clone());
    let at_gateway = |ip| OriginalDestination::new(SocketAddr::new(ip, waypoint.hbone_port));
    let gateway = match &waypoint.destination {
        GatewayDestination::Hostname(name) => mesh.service(name),
        GatewayDestination::Address(address) => mesh.service_at(address, source.namespace()),
    };
    let (selected, gateway) = match (gateway, &waypoint.destination) {
        (Some(gateway), _) => {
            let endpoints = mesh.endpoints(&gateway.key).ok_or_else(none)?;
            let selected = select(gateway, endpoints, source, at_gateway(destination.ip()), draw);
            (selected.ok_or_else(none)?, Some(gateway))
        }
        (None, GatewayDestination::Address(address)) => {
            let workload = mesh.workload_at(address).ok_or_else(none)?.clone();
            (Selected { workload, port: waypoint.hbone_port, ip: address.ip }, None)
        }
        (None, GatewayDestination::Hostname(_)) => return Err(none()),
    };
    Ok(Plan::Tunnel(Tunnel {
        next_hop: NextHop::new(SocketAddr::new(selected.ip, selected.port)),
        authority: destination.addr(),
        expect: identities(&selected.workload, gateway.map(|gateway| &**gateway)),
        workload: selected.workload,
        service: service.cloned(),
        waypoint: true,
    }))
}

/// Whether a workload is itself a replica of the waypoint: what it sends on must not come back to it.
fn is_waypoint(mesh: &Mesh, source: &Workload, waypoint: &GatewayAddress) -> bool {
    match &waypoint.destination {
        GatewayDestination::Hostname(name) => source.ports_of(name).is_some(),
        GatewayDestination::Address(address) => {
            let behind = mesh.service_at(address, source.namespace());
            source.addresses.contains(&address.ip)
                || behind.is_some_and(|service| source.ports_of(&service.key).is_some())
        }
    }
}

/// The identities that the far end of a tunnel may have: the workload's own and those its service names.
fn identities(workload: &Workload, service: Option<&Service>) -> Vec<Identity> {
    let mut all = vec![workload.identity().clone()];
    let named = service.into_iter().flat_map(|service| service.subject_alt_names.iter());
    all.extend(named.filter_map(|name| name.parse().ok()));
    all
}

#[cfg(test)]
mod tests;
