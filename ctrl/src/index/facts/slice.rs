//! What the mesh needs to know of an EndpointSlice.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1;
use model::address::Str;
use model::workload::Health;

use crate::index::Name;

/// Label that names the service.
const SERVICE: &str = "kubernetes.io/service-name";
/// Label that names who keeps the slice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Who keeps the slices of services with a selector.
const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// A slice of the endpoints of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Its name.
    pub name: Name,
    /// The service.
    pub service: Option<Name>,
    /// Whether it follows from the service's selector, which we look at ourselves.
    pub by_selector: bool,
    /// Its ports, by the name of the service's port.
    pub ports: Vec<(String, u16)>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The pod that it is, if it says.
    pub pod: Option<Name>,
    /// Whether it takes traffic.
    pub health: Health,
    /// The node it is on.
    pub node: Str,
}

impl Slice {
    pub(in crate::index) fn of(name: Name, slice: &v1::EndpointSlice) -> Self {
        let label = |label: &str| slice.metadata.labels.as_ref()?.get(label).map(String::as_str);
        let ports = slice.ports.iter().flatten();
        let tcp = ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP");
        Self {
            service: label(SERVICE).map(|service| Name::new(&name.namespace, service)),
            by_selector: label(MANAGED_BY) == Some(CONTROLLER),
            ports: tcp
                .filter_map(|port| {
                    Some((port.name.clone().unwrap_or_default(), u16::try_from(port.port?).ok()?))
                })
                .collect(),
            endpoints: slice.endpoints.iter().map(|one| endpoint(&name, one)).collect(),
            name,
        }
    }
}

fn endpoint(slice: &Name, endpoint: &v1::Endpoint) -> Endpoint {
    // Not said means ready.
    let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
    let target = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
    let pod = target.and_then(|target| {
        let namespace = target.namespace.as_deref().unwrap_or(&slice.namespace);
        Some(Name::new(namespace, target.name.as_deref()?))
    });
    Endpoint {
        addresses: endpoint.addresses.iter().filter_map(|text| super::address(text)).collect(),
        pod,
        health: if ready { Health::Healthy } else { Health::Unhealthy },
        node: endpoint.node_name.as_deref().unwrap_or_default().into(),
    }
}
