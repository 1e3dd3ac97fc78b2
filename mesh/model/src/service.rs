//! A service: a name and addresses in front of endpoints (`istio.workload.Service`).

use crate::address::{NamespacedHostname, NetworkAddress, Str};
use crate::workload::GatewayAddress;

/// One service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its namespace and fully qualified host name.
    pub key: NamespacedHostname,
    /// Its short name.
    pub name: Str,
    /// Its virtual addresses; empty for a headless service.
    pub vips: Box<[NetworkAddress]>,
    /// Its address ranges, with their prefix length.
    pub cidr_vips: Box<[(Str, ipnet::IpNet)]>,
    /// Service port to target port.
    pub ports: Ports,
    /// Further identities that its endpoints may present.
    pub subject_alt_names: Box<[Str]>,
    /// The waypoint for traffic to its addresses.
    pub waypoint: Option<GatewayAddress>,
    /// Which of its endpoints are preferred.
    pub load_balancing: LoadBalancing,
    /// Which address families it answers with.
    pub ip_families: IpFamilies,
    /// Whether it is the canonical owner of its host name (a Kubernetes Service is).
    pub canonical: bool,
    /// Who may find it.
    pub visibility: Visibility,
}

impl Service {
    /// A service of which no more is known than its name.
    pub fn named(key: NamespacedHostname) -> Self {
        let name = key.hostname.split('.').next().unwrap_or_default().into();
        Self {
            key,
            name,
            vips: Box::default(),
            cidr_vips: Box::default(),
            ports: Ports::default(),
            subject_alt_names: Box::default(),
            waypoint: None,
            load_balancing: LoadBalancing::default(),
            ip_families: IpFamilies::default(),
            canonical: false,
            visibility: Visibility::default(),
        }
    }
}

/// Service ports and the ports they stand for at the endpoint, with the application protocol.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Ports(pub Box<[Port]>);

/// One port of a service or of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Port {
    /// The port that clients use.
    pub service: u16,
    /// The port that the endpoint listens on; 0 for a named port, which each endpoint resolves for itself.
    pub target: u16,
    /// What is spoken there.
    pub protocol: AppProtocol,
}

impl Ports {
    /// The entry for a service port.
    pub fn get(&self, service_port: u16) -> Option<&Port> {
        self.0.iter().find(|port| port.service == service_port)
    }
}

/// What is spoken on a port (`istio.workload.AppProtocol`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AppProtocol {
    /// Not said.
    #[default]
    Unknown,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// Opaque TCP.
    Tcp,
    /// TLS of the application's own.
    Tls,
}

/// Which endpoints of a service are preferred (`istio.workload.LoadBalancing`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadBalancing {
    /// What an endpoint must share with the client, in order of weight.
    pub preference: Box<[Scope]>,
    /// What the preference means.
    pub mode: LoadBalancingMode,
    /// Whether endpoints that are not ready count.
    pub allow_unhealthy: bool,
}

/// What the routing preference means (`istio.workload.LoadBalancing.Mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadBalancingMode {
    /// No preference.
    #[default]
    Unspecified,
    /// Only endpoints that share everything.
    Strict,
    /// Those that share most, others where there are none.
    Failover,
    /// To the address that the client named, in plain.
    Passthrough,
}

/// Something that two workloads can have in common (`istio.workload.LoadBalancing.Scope`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The region.
    Region,
    /// The zone.
    Zone,
    /// The part of the zone.
    Subzone,
    /// The node.
    Node,
    /// The cluster.
    Cluster,
    /// The network.
    Network,
}

/// Which address families a service answers with (`istio.workload.IPFamilies`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IpFamilies {
    /// Those it has addresses of.
    #[default]
    Automatic,
    /// IPv4 only.
    V4Only,
    /// IPv6 only.
    V6Only,
    /// Both.
    Dual,
}

impl IpFamilies {
    /// Whether an address of this family may be used.
    pub fn allow(self, ip: std::net::IpAddr) -> bool {
        match self {
            Self::Automatic | Self::Dual => true,
            Self::V4Only => ip.is_ipv4(),
            Self::V6Only => ip.is_ipv6(),
        }
    }
}

/// Who may find a service (`istio.workload.Visibility`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Visibility {
    /// Everyone.
    #[default]
    Public,
    /// Its own namespace.
    Namespace,
}
