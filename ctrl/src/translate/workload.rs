//! Pods, and endpoints that are no pods, → [`Workload`].

mod owner;

use std::collections::BTreeMap;
use std::sync::Arc;

use model::Identity;
use model::address::{NamespacedHostname, Str};
use model::service::{Port, Ports};
use model::workload::{Locality, PolicyName, Profile, TunnelProtocol, Workload, WorkloadKind};

use super::{Context, authz, peer_authentication, waypoint};
use crate::index::facts::{Endpoint, Pod, Service, Slice, Target};
use crate::index::{Index, Name};

/// Labels that name the service a workload is counted under, the first that is there.
const CANONICAL_NAME: [&str; 3] = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
/// Labels that name its revision.
const CANONICAL_REVISION: [&str; 3] =
    ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];

/// The unique name of a pod's workload.
pub fn pod_uid(context: &Context, pod: &Name) -> Str {
    format!("{}//Pod/{}/{}", context.settings.cluster, pod.namespace, pod.name).into()
}

/// A pod as proxies know it; nothing before it has an address, and once it has ended.
pub fn pod(index: &Index, context: &Context, pod: &Pod) -> Option<Workload> {
    let addresses = index.addresses_of_pod(pod);
    if pod.ended || addresses.is_empty() {
        return None;
    }
    let (kind, workload_name) = owner::workload(pod);
    let label =
        |names: [&str; 3]| names.iter().find_map(|name| pod.labels.get(*name)).filter(|v| !v.is_empty());
    let profile = Profile {
        identity: identity(context, &pod.name.namespace, &pod.account),
        network: pod.network.clone().unwrap_or_else(|| context.network.clone()),
        protocol: if pod.hbone { TunnelProtocol::Hbone } else { TunnelProtocol::Tcp },
        host_network: pod.host_network,
        native_tunnel: pod.native_tunnel,
        hostname: "".into(),
        canonical_name: label(CANONICAL_NAME).map_or(workload_name, String::as_str).into(),
        canonical_revision: label(CANONICAL_REVISION).map_or("latest", String::as_str).into(),
        kind,
        workload_name: workload_name.into(),
        waypoint: waypoint::address(context, &index.pod_bound(pod)),
        network_gateway: None,
        services: services(index, context, pod),
        policies: policies(index, context, pod),
        enforced_by: Some(waypoint::enforced_by(index, context, pod)),
        cluster: context.settings.cluster.clone(),
        locality: pod.locality.clone().unwrap_or_else(|| index.locality(&pod.node)),
        capacity: 1,
        application_tunnel: None,
    };
    Some(Workload {
        uid: pod_uid(context, &pod.name),
        name: pod.name.name.clone(),
        addresses: addresses.into(),
        node: pod.node.clone(),
        status: pod.health,
        profile: Arc::new(profile),
    })
}

fn identity(context: &Context, namespace: &Str, account: &Str) -> Identity {
    Identity::new(context.settings.trust_domain.clone(), namespace.clone(), account.clone())
}

/// The services that a pod is an endpoint of: by their selectors, and by slices that name it all the same.
fn services(index: &Index, context: &Context, pod: &Pod) -> Box<[(NamespacedHostname, Ports)]> {
    let mut found: BTreeMap<NamespacedHostname, Ports> = BTreeMap::new();
    for slice in index.slices_about(pod) {
        let Some(service) = index.service_of(slice) else { continue };
        found.insert(context.host(&service.name), slice_ports(service, slice));
    }
    for service in index.services_selecting(pod) {
        found.insert(context.host(&service.name), pod_ports(service, pod));
    }
    found.into_iter().collect()
}

/// A named port that the pod does not have is not served by it.
fn pod_ports(service: &Service, pod: &Pod) -> Ports {
    let resolve = |port: &crate::index::facts::ServicePort| {
        let target = match &port.target {
            Target::Number(number) => *number,
            Target::Name(name) => pod.ports.iter().find(|own| own.name == *name)?.number,
        };
        Some(Port { service: port.number, target, protocol: port.protocol })
    };
    Ports(service.ports.iter().filter_map(resolve).collect())
}

/// A slice tells the endpoint's port by the name of the service's port.
fn slice_ports(service: &Service, slice: &Slice) -> Ports {
    let resolve = |port: &crate::index::facts::ServicePort| {
        let (_, target) = slice.ports.iter().find(|(name, _)| *name == port.name)?;
        Some(Port { service: port.number, target: *target, protocol: port.protocol })
    };
    Ports(service.ports.iter().filter_map(resolve).collect())
}

/// The policies that the pod names: those with a selector that matches, what PeerAuthentications come to, and that it
/// takes only what comes by a waypoint.
fn policies(index: &Index, context: &Context, pod: &Pod) -> Box<[PolicyName]> {
    let own = index.policies_selecting(pod);
    let own = own.iter().map(authz::policy_name);
    let strict = peer_authentication::named(index, &pod.name.namespace, &pod.labels);
    let required = waypoint::required(index, context, pod).map(|policy| policy.name);
    own.chain(strict).chain(required).collect()
}

/// The workloads of a slice: its endpoints that are no pods, at the addresses that are nobody else's.
pub fn slice(index: &Index, context: &Context, slice: &Slice) -> Vec<Workload> {
    let Some(service) = index.service_of(slice) else { return Vec::new() };
    let known = (context.host(&service.name), slice_ports(service, slice));
    let others = slice.endpoints.iter().filter(|endpoint| !index.is_pod(endpoint));
    others.filter_map(|endpoint| endpoint_workload(index, context, slice, &known, endpoint)).collect()
}

fn endpoint_workload(
    index: &Index,
    context: &Context,
    slice: &Slice,
    service: &(NamespacedHostname, Ports),
    endpoint: &Endpoint,
) -> Option<Workload> {
    let first = endpoint.addresses.first()?;
    let addresses = index.addresses_of_endpoint(endpoint);
    if addresses.is_empty() {
        return None;
    }
    let Name { namespace, name } = &slice.name;
    let labels = BTreeMap::new();
    let profile = Profile {
        identity: identity(context, namespace, &"default".into()),
        network: context.network.clone(),
        protocol: TunnelProtocol::Tcp,
        host_network: false,
        native_tunnel: false,
        hostname: "".into(),
        canonical_name: name.clone(),
        canonical_revision: "latest".into(),
        kind: WorkloadKind::Pod,
        workload_name: name.clone(),
        waypoint: None,
        network_gateway: None,
        services: [service.clone()].into(),
        policies: peer_authentication::named(index, namespace, &labels).into_iter().collect(),
        enforced_by: Some(Box::default()),
        cluster: context.settings.cluster.clone(),
        locality: if endpoint.node.is_empty() { Locality::default() } else { index.locality(&endpoint.node) },
        capacity: 1,
        application_tunnel: None,
    };
    let cluster = &context.settings.cluster;
    Some(Workload {
        uid: format!("{cluster}/discovery.k8s.io/EndpointSlice/{namespace}/{name}/{first}").into(),
        name: name.clone(),
        addresses: addresses.into(),
        node: endpoint.node.clone(),
        status: endpoint.health,
        profile: Arc::new(profile),
    })
}

#[cfg(test)]
mod tests;
