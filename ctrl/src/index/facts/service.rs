//! What the mesh needs to know of a Service.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{self, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use manifest::waypoint::GATEWAY_NAME;
use model::address::Str;
use model::service::{AppProtocol, IpFamilies};

use super::waypoint::{self, Asked};
use crate::index::Name;
use crate::index::labels::Labels;

/// Istio's older way to say `spec.trafficDistribution`.
const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

/// A service with an address, or without one on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: Name,
    /// The labels of its pods; empty where its endpoints are told otherwise.
    pub selector: Labels,
    /// When it was made, if anybody says.
    pub created: Option<String>,
    /// Whether the mesh itself has given it its addresses.
    pub given: bool,
    /// The addresses it claims; none where it is headless.
    pub addresses: Vec<IpAddr>,
    /// Those of them that an API server has assigned, which no pod can have.
    pub assigned: Vec<IpAddr>,
    /// Its TCP ports.
    pub ports: Vec<ServicePort>,
    /// Which address families it answers with.
    pub ip_families: IpFamilies,
    /// `spec.trafficDistribution`.
    pub traffic_distribution: Option<String>,
    /// Whether only endpoints on the client's node count.
    pub node_local: bool,
    /// Whether endpoints that are not ready count.
    pub publish_not_ready: bool,
    /// The waypoint that its label asks for.
    pub asked: Option<Asked>,
    /// The Gateway that it was made for.
    pub gateway: Option<Str>,
    /// Whether its pods refuse whoever is no waypoint of theirs.
    pub requires_waypoint: bool,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty for the only one.
    pub name: String,
    /// Its number.
    pub number: u16,
    /// Where it leads.
    pub target: Target,
    /// What is spoken there.
    pub protocol: AppProtocol,
}

/// The port of an endpoint that a service's port leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// This number.
    Number(u16),
    /// Whatever number the pod's container gives this name.
    Name(String),
}

impl Service {
    /// Nothing for a mere alias of a name elsewhere, and while it is not decided what address it has.
    pub(in crate::index) fn of(name: Name, service: &v1::Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return None;
        }
        let cluster = cluster_addresses(spec)?;
        let annotation = service.metadata.annotations.as_ref().and_then(|all| all.get(TRAFFIC_DISTRIBUTION));
        let labels = service.metadata.labels.as_ref();
        Some(Self {
            asked: labels.and_then(|labels| waypoint::asked(labels, &name.namespace)),
            gateway: labels.and_then(|labels| labels.get(GATEWAY_NAME)).map(|name| name.as_str().into()),
            requires_waypoint: waypoint::required(labels, service.metadata.annotations.as_ref()),
            name,
            created: None,
            given: false,
            selector: spec.selector.clone().unwrap_or_default(),
            addresses: addresses(service, &cluster),
            assigned: cluster,
            ports: spec.ports.iter().flatten().filter_map(port).collect(),
            ip_families: ip_families(spec),
            traffic_distribution: annotation.or(spec.traffic_distribution.as_ref()).cloned(),
            node_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            publish_not_ready: spec.publish_not_ready_addresses == Some(true),
        })
    }
}

/// `clusterIPs`; nothing while they are not decided.
fn cluster_addresses(spec: &ServiceSpec) -> Option<Vec<IpAddr>> {
    let texts: Vec<&str> = match spec.cluster_ips.as_deref() {
        Some(ips) if !ips.is_empty() => ips.iter().map(String::as_str).collect(),
        _ => spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty()).into_iter().collect(),
    };
    (!texts.is_empty()).then(|| texts.into_iter().filter_map(super::address).collect())
}

/// These, and those of its load balancer.
fn addresses(service: &v1::Service, cluster: &[IpAddr]) -> Vec<IpAddr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    let ingress = ingress.filter(|ingress| ingress.ip_mode.as_deref().unwrap_or("VIP") == "VIP");
    let ingress = ingress.filter_map(|ingress| super::address(ingress.ip.as_deref()?));
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ip in cluster.iter().copied().chain(ingress) {
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    addresses
}

/// Only TCP is carried; a port of another protocol would hide the TCP port of the same number.
fn port(port: &v1::ServicePort) -> Option<ServicePort> {
    if port.protocol.as_deref().unwrap_or("TCP") != "TCP" {
        return None;
    }
    let number = u16::try_from(port.port).ok()?;
    let name = port.name.clone().unwrap_or_default();
    let target = match &port.target_port {
        None | Some(IntOrString::Int(0)) => Target::Number(number),
        Some(IntOrString::Int(target)) => Target::Number(u16::try_from(*target).ok()?),
        Some(IntOrString::String(target)) => match target.parse() {
            Ok(target) => Target::Number(target),
            Err(_) => Target::Name(target.clone()),
        },
    };
    let protocol = port.app_protocol.as_deref().map_or_else(|| by_name(&name), app_protocol);
    Some(ServicePort { protocol, name, number, target })
}

/// Istio's convention: `PROTOCOL` or `PROTOCOL-SUFFIX`.
fn by_name(name: &str) -> AppProtocol {
    app_protocol(name.split('-').next().unwrap_or_default())
}

fn app_protocol(text: &str) -> AppProtocol {
    match text.to_ascii_lowercase().as_str() {
        "http" | "http1" | "kubernetes.io/ws" => AppProtocol::Http11,
        "http2" | "kubernetes.io/h2c" => AppProtocol::Http2,
        "grpc" => AppProtocol::Grpc,
        "tcp" | "mongo" | "mysql" | "redis" => AppProtocol::Tcp,
        "tls" | "https" | "kubernetes.io/wss" => AppProtocol::Tls,
        _ => AppProtocol::Unknown,
    }
}

fn ip_families(spec: &ServiceSpec) -> IpFamilies {
    let has = |family: &str| spec.ip_families.iter().flatten().any(|known| known == family);
    match (has("IPv4"), has("IPv6")) {
        (true, true) => IpFamilies::Dual,
        (true, false) => IpFamilies::V4Only,
        (false, true) => IpFamilies::V6Only,
        (false, false) => IpFamilies::Automatic,
    }
}
