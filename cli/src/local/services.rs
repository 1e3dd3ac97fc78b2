//! Services: their addresses, and the EndpointSlices that say which pods stand behind them. What the API server and
//! two controllers do in a cluster; pure but for the table of addresses given.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::addresses::ServicePool;
use super::manifests::{DEFAULT_NAMESPACE, ObjectName};
use super::scheduler::safe_hash;

/// Label that names the service of an EndpointSlice.
pub(crate) const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Label that says who keeps an EndpointSlice.
const MANAGED_LABEL: &str = "endpointslice.kubernetes.io/managed-by";

/// Addresses given to services.
#[derive(Debug, Default)]
pub(crate) struct ServiceTable {
    pool: ServicePool,
    given: BTreeMap<ObjectName, Vec<IpAddr>>,
}

impl ServiceTable {
    /// The services with addresses, families and defaults filled in, as the API server would; and what could not be
    /// granted.
    pub(crate) fn fill(
        &mut self,
        services: &BTreeMap<ObjectName, Service>,
    ) -> (BTreeMap<ObjectName, Service>, Vec<String>) {
        let gone: Vec<ObjectName> =
            self.given.keys().filter(|name| !services.contains_key(name)).cloned().collect();
        for name in gone {
            self.release(&name);
        }
        let mut problems = Vec::new();
        // Those that ask for an address come first, or one that does not care could have taken it.
        let (asking, easy): (Vec<_>, Vec<_>) =
            services.iter().partition(|(_, service)| asked_addresses(service).next().is_some());
        let mut filled = BTreeMap::new();
        for (name, service) in asking.into_iter().chain(easy) {
            match self.fill_one(name, service.clone()) {
                Ok(service) => {
                    filled.insert(name.clone(), service);
                }
                Err(problem) => problems.push(format!("Service {name}: {problem}")),
            }
        }
        (filled, problems)
    }

    fn release(&mut self, name: &ObjectName) {
        for address in self.given.remove(name).unwrap_or_default() {
            self.pool.give_back(address);
        }
    }

    fn fill_one(&mut self, name: &ObjectName, mut service: Service) -> Result<Service, String> {
        service.metadata.namespace = Some(name.namespace.clone());
        let families = families(&service);
        let dual = families.len() == 2;
        let addresses =
            if has_address(&service) { self.addresses(name, &service, &families)? } else { Vec::new() };
        let spec = service.spec.get_or_insert_default();
        spec.type_.get_or_insert_with(|| "ClusterIP".to_owned());
        for port in spec.ports.iter_mut().flatten() {
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
            port.target_port.get_or_insert(IntOrString::Int(port.port));
        }
        if spec.type_.as_deref() == Some("ExternalName") {
            return Ok(service);
        }
        spec.ip_families = Some(families.iter().map(|v6| family_name(*v6).to_owned()).collect());
        spec.ip_family_policy
            .get_or_insert_with(|| if dual { "PreferDualStack" } else { "SingleStack" }.to_owned());
        let texts: Vec<String> = match addresses.is_empty() {
            true => vec!["None".to_owned()],
            false => addresses.iter().map(ToString::to_string).collect(),
        };
        spec.cluster_ip = texts.first().cloned();
        spec.cluster_ips = Some(texts);
        Ok(service)
    }

    /// The addresses a service has, or new ones; a service whose demands changed gets new ones.
    fn addresses(
        &mut self,
        name: &ObjectName,
        service: &Service,
        families: &[bool],
    ) -> Result<Vec<IpAddr>, String> {
        let asked: Vec<IpAddr> = asked_addresses(service).collect::<Result<_, _>>()?;
        if let Some(given) = self.given.get(name) {
            let same_families = given.iter().map(IpAddr::is_ipv6).eq(families.iter().copied());
            if same_families && asked.iter().all(|address| given.contains(address)) {
                return Ok(given.clone());
            }
            self.release(name);
        }
        let mut addresses = Vec::new();
        for v6 in families {
            let address = match asked.iter().find(|address| address.is_ipv6() == *v6) {
                Some(address) if self.pool.reserve(*address) => *address,
                Some(address) => {
                    return Err(format!("clusterIP {address} belongs to another service; choose another"));
                }
                None => {
                    self.pool.take(&name.namespace, &name.name, *v6).ok_or("no service address is left")?
                }
            };
            addresses.push(address);
        }
        self.given.insert(name.clone(), addresses.clone());
        Ok(addresses)
    }
}

fn family_name(v6: bool) -> &'static str {
    if v6 { "IPv6" } else { "IPv4" }
}

/// Whether it gets an address at all: not headless, not a mere name.
fn has_address(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return true };
    spec.cluster_ip.as_deref() != Some("None") && spec.type_.as_deref() != Some("ExternalName")
}

fn asked_addresses(service: &Service) -> impl Iterator<Item = Result<IpAddr, String>> {
    let spec = service.spec.as_ref();
    let first = spec.and_then(|spec| spec.cluster_ip.as_deref());
    let all = spec.and_then(|spec| spec.cluster_ips.as_deref()).unwrap_or_default();
    let texts: BTreeSet<&str> = first
        .into_iter()
        .chain(all.iter().map(String::as_str))
        .filter(|t| !t.is_empty() && *t != "None")
        .collect();
    let parse = |text: &str| text.parse().map_err(|_| format!("clusterIP {text:?} is no address"));
    texts.into_iter().map(parse).collect::<Vec<_>>().into_iter()
}

/// The families of a service, `true` for IPv6, the first one first: as Kubernetes decides on a dual-stack cluster whose
/// first family is IPv4.
fn families(service: &Service) -> Vec<bool> {
    let spec = service.spec.as_ref();
    let named = spec.and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default();
    let mut families: Vec<bool> = named.iter().map(|family| family == "IPv6").collect();
    families.dedup();
    if families.is_empty() {
        // A single address that is asked for says its family.
        let asked = asked_addresses(service).find_map(Result::ok);
        families.push(asked.is_some_and(|address| address.is_ipv6()));
    }
    let policy = spec.and_then(|spec| spec.ip_family_policy.as_deref());
    let dual = match policy {
        Some("PreferDualStack" | "RequireDualStack") => true,
        Some(_) => false,
        None => families.len() == 2,
    };
    if dual && families.len() == 1 {
        families.push(!families[0]);
    }
    if !dual {
        families.truncate(1);
    }
    families
}

/// The EndpointSlices of a service with a selector: one for each family and each set of resolved ports.
pub(crate) fn endpoint_slices(name: &ObjectName, service: &Service, pods: &[&Pod]) -> Vec<EndpointSlice> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(selector) = spec.selector.as_ref().filter(|selector| !selector.is_empty()) else {
        return Vec::new();
    };
    let publish_all = spec.publish_not_ready_addresses == Some(true);
    let service_ports = spec.ports.as_deref().unwrap_or_default();
    let mut slices = Vec::new();
    for v6 in families(service) {
        let mut groups: BTreeMap<Vec<(String, i32)>, Vec<Endpoint>> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| selects(name, selector, pod)) {
            let Some(address) = pod_address(pod, v6) else { continue };
            let ports = resolve_ports(service_ports, pod);
            groups.entry(ports).or_default().push(endpoint(name, pod, address, publish_all));
        }
        if groups.is_empty() {
            // An empty slice says that the service is known to have no endpoint.
            groups.insert(resolve_ports(service_ports, &Pod::default()), Vec::new());
        }
        slices.extend(
            groups.into_iter().map(|(ports, endpoints)| slice(name, service_ports, v6, &ports, endpoints)),
        );
    }
    slices
}

fn selects(name: &ObjectName, selector: &BTreeMap<String, String>, pod: &Pod) -> bool {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let labels = pod.metadata.labels.as_ref();
    namespace == name.namespace
        && !matches!(phase, Some("Succeeded" | "Failed"))
        && selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// The pod's address of a family, once it has one.
pub(crate) fn pod_address(pod: &Pod, v6: bool) -> Option<IpAddr> {
    let ips = pod.status.as_ref()?.pod_ips.as_deref()?;
    ips.iter().filter_map(|ip| ip.ip.parse::<IpAddr>().ok()).find(|ip| ip.is_ipv6() == v6)
}

/// Whether the pod's Ready condition holds.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Name and number of each service port on this pod; a named port the pod does not have is left out.
fn resolve_ports(ports: &[ServicePort], pod: &Pod) -> Vec<(String, i32)> {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let named = |wanted: &str, protocol: &str| {
        let mut all = containers.iter().flat_map(|container| container.ports.as_deref().unwrap_or_default());
        all.find(|port| {
            port.name.as_deref() == Some(wanted) && port.protocol.as_deref().unwrap_or("TCP") == protocol
        })
        .map(|port| port.container_port)
    };
    let resolve = |port: &ServicePort| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let number = match &port.target_port {
            None => port.port,
            Some(IntOrString::Int(0)) => port.port,
            Some(IntOrString::Int(number)) => *number,
            Some(IntOrString::String(wanted)) => match wanted.parse() {
                Ok(number) => number,
                Err(_) => named(wanted, protocol)?,
            },
        };
        Some((port.name.clone().unwrap_or_default(), number))
    };
    ports.iter().filter_map(resolve).collect()
}

fn endpoint(service: &ObjectName, pod: &Pod, address: IpAddr, publish_all: bool) -> Endpoint {
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let serving = is_ready(pod);
    let spec = pod.spec.as_ref();
    let in_domain = spec.and_then(|spec| spec.subdomain.as_deref()) == Some(service.name.as_str());
    Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(publish_all || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: spec.and_then(|spec| spec.hostname.clone()).filter(|_| in_domain),
        node_name: spec.and_then(|spec| spec.node_name.clone()),
        target_ref: Some(k8s_openapi::api::core::v1::ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn slice(
    service: &ObjectName,
    service_ports: &[ServicePort],
    v6: bool,
    ports: &[(String, i32)],
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let of_name =
        |name: &str| service_ports.iter().find(|port| port.name.as_deref().unwrap_or_default() == name);
    let port = |(name, number): &(String, i32)| EndpointPort {
        name: Some(name.clone()),
        port: Some(*number),
        protocol: of_name(name).and_then(|port| port.protocol.clone()).or_else(|| Some("TCP".to_owned())),
        app_protocol: of_name(name).and_then(|port| port.app_protocol.clone()),
    };
    let suffix = safe_hash(format!("{v6}{ports:?}").as_bytes());
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", service.name, &suffix[..5])),
            namespace: Some(service.namespace.clone()),
            labels: Some(BTreeMap::from([
                (SERVICE_LABEL.to_owned(), service.name.clone()),
                (MANAGED_LABEL.to_owned(), "endpointslice-controller.k8s.io".to_owned()),
            ])),
            ..Default::default()
        },
        address_type: family_name(v6).to_owned(),
        endpoints,
        ports: Some(ports.iter().map(port).collect()),
    }
}

#[cfg(test)]
mod tests;
