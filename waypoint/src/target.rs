//! What a CONNECT asks of this waypoint: the service or the workload that it is to stand in front of. Pure.

use std::net::SocketAddr;
use std::sync::Arc;

use model::accept::Authority;
use model::address::NetworkAddress;
use model::mesh::Mesh;
use model::plan::is_waypoint;
use model::service::{AppProtocol, Service};
use model::workload::{GatewayAddress, Workload};
use thiserror::Error;

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The address and port that the client wanted: a service's or a pod's.
    pub(crate) destination: SocketAddr,
    /// The service, where it was one.
    pub(crate) service: Option<Arc<Service>>,
    /// The workload, where a pod was asked for by its own address.
    pub(crate) workload: Option<Arc<Workload>>,
    /// What is spoken there, as far as it is declared.
    pub(crate) protocol: AppProtocol,
}

/// Why a CONNECT is refused before anything else is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Misdirected {
    /// Nothing in the mesh has the address or the name.
    #[error("no service or workload of the mesh is at {0}")]
    Unknown(String),
    /// The service has no such port.
    #[error("service {service} has no port {port}")]
    NoPort {
        /// The service.
        service: String,
        /// The port.
        port: u16,
    },
    /// It is bound to another waypoint, or to none: under this one's identity it may be reached by nobody.
    #[error(
        "{0} is not bound to this waypoint; see the label istio.io/use-waypoint and `lateen get gateways`"
    )]
    NotBound(String),
}

impl Misdirected {
    /// The status to refuse the CONNECT with.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Unknown(_) | Self::NoPort { .. } => 404,
            Self::NotBound(_) => 403,
        }
    }
}

/// Finds what an authority asks for.
///
/// # Errors
/// There is no such thing, or it is not this waypoint's to stand in front of.
pub(crate) fn resolve(mesh: &Mesh, own: &Workload, authority: &Authority) -> Result<Target, Misdirected> {
    match authority {
        Authority::Address(address) => at(mesh, own, *address),
        Authority::Host { host, port } => {
            let unknown = || Misdirected::Unknown(host.clone());
            let service = mesh.service_named(host, own.namespace()).ok_or_else(unknown)?;
            let vip = service.vips.first().ok_or_else(unknown)?;
            to_service(mesh, own, service, SocketAddr::new(vip.ip, *port))
        }
    }
}

fn at(mesh: &Mesh, own: &Workload, asked: SocketAddr) -> Result<Target, Misdirected> {
    let address = NetworkAddress::new(own.profile.network.clone(), asked.ip());
    let asked = SocketAddr::new(address.ip, asked.port());
    let service = mesh.service_at(&address, own.namespace());
    // As `model::plan` has it: only a pod comes before a service whose address it is.
    let is_service = service.is_some_and(|service| service.vips.contains(&address));
    if let Some(workload) = mesh.workload_at(&address).filter(|one| one.is_pod() || !is_service) {
        // Not whom only its services bind: who asks for such a pod itself goes around what is attached to them.
        if !is_ours(mesh, own, workload.profile.waypoint.as_ref()) {
            return Err(Misdirected::NotBound(format!("{}/{}", workload.namespace(), workload.name)));
        }
        let protocol = protocol_of(mesh, workload, asked.port());
        return Ok(Target { destination: asked, service: None, workload: Some(workload.clone()), protocol });
    }
    match service {
        Some(service) => to_service(mesh, own, service, asked),
        None => Err(Misdirected::Unknown(asked.to_string())),
    }
}

fn to_service(
    mesh: &Mesh,
    own: &Workload,
    service: &Arc<Service>,
    destination: SocketAddr,
) -> Result<Target, Misdirected> {
    if !is_bound(mesh, own, service) {
        return Err(Misdirected::NotBound(service.key.to_string()));
    }
    let port = service
        .ports
        .get(destination.port())
        .ok_or_else(|| Misdirected::NoPort { service: service.key.to_string(), port: destination.port() })?;
    Ok(Target { destination, service: Some(service.clone()), workload: None, protocol: port.protocol })
}

/// Whether a service is this waypoint's to stand in front of. While a binding changes, its pods say so before or after it;
/// those of other namespaces have no say: whoever may write an EndpointSlice may name any pod in it.
pub(crate) fn is_bound(mesh: &Mesh, own: &Workload, service: &Service) -> bool {
    let judged_here = |workload: &Arc<Workload>| {
        **workload.namespace() == *service.key.namespace() && is_judged_here(own, workload)
    };
    is_ours(mesh, own, service.waypoint.as_deref())
        || mesh.endpoints(&service.key).is_some_and(|endpoints| endpoints.all().iter().any(judged_here))
}

/// Whether this waypoint judges for a pod that nobody may ask for here but by its own services: by one of another namespace
/// what is attached to those would be gone around.
pub(crate) fn is_borrowed(mesh: &Mesh, own: &Workload, workload: &Workload) -> bool {
    is_judged_here(own, workload) && !is_ours(mesh, own, workload.profile.waypoint.as_ref())
}

fn is_ours(mesh: &Mesh, own: &Workload, waypoint: Option<&GatewayAddress>) -> bool {
    waypoint.is_some_and(|waypoint| is_waypoint(mesh, own, waypoint))
}

/// Whether this waypoint judges for a pod: its agent believes that everything from here has been judged.
pub(crate) fn is_judged_here(own: &Workload, workload: &Workload) -> bool {
    workload.profile.enforced_by.as_deref().unwrap_or_default().contains(own.identity())
}

/// What is spoken on a pod's own port: what a service of its namespace that it is behind declares of it.
fn protocol_of(mesh: &Mesh, workload: &Workload, port: u16) -> AppProtocol {
    let own = workload.profile.services.iter().filter(|(key, _)| *key.namespace() == **workload.namespace());
    let declared = own.flat_map(|(key, ports)| {
        let service = mesh.service(key);
        let behind = ports.0.iter().filter(move |own| own.target == port);
        behind.map(move |own| match own.protocol {
            AppProtocol::Unknown => service
                .and_then(|service| service.ports.get(own.service))
                .map_or(AppProtocol::Unknown, |port| port.protocol),
            said => said,
        })
    });
    declared.into_iter().find(|protocol| *protocol != AppProtocol::Unknown).unwrap_or_default()
}

#[cfg(test)]
mod tests;
