//! A service: a name and addresses in front of endpoints (`istio.workload.Service`).

use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use crate::address::{Few, NamespacedHostname, NetworkAddress, Str};
use crate::workload::GatewayAddress;

/// One service. A mesh may have twenty thousand, of which a proxy is told every one: so what nearly all have is kept in
/// place, what many share is shared, and what few have is [elsewhere](Rare).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its namespace and fully qualified host name.
    pub key: NamespacedHostname,
    /// Its virtual addresses; empty for a headless service.
    pub vips: Few<NetworkAddress>,
    /// Service port to target port.
    pub ports: Ports,
    /// The waypoint for traffic to its addresses.
    pub waypoint: Option<Arc<GatewayAddress>>,
    /// Which address families it answers with.
    pub ip_families: IpFamilies,
    /// Whether it is the canonical owner of its host name (a Kubernetes Service is).
    pub canonical: bool,
    /// Who may find it.
    pub visibility: Visibility,
    /// What few services have.
    pub rare: Rare,
}

impl Service {
    /// A service of which no more is known than its name.
    pub fn named(key: NamespacedHostname) -> Self {
        Self {
            key,
            vips: Few::default(),
            ports: Ports::default(),
            waypoint: None,
            ip_families: IpFamilies::default(),
            canonical: false,
            visibility: Visibility::default(),
            rare: Rare::default(),
        }
    }

    /// Its short name.
    pub fn name(&self) -> &str {
        self.rare.name.as_deref().unwrap_or_else(|| short_name(self.key.hostname()))
    }
}

/// The short name that a host name says: its first label.
pub fn short_name(hostname: &str) -> &str {
    hostname.split('.').next().unwrap_or_default()
}

/// What few services have, for the room of a pointer where there is none of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rare(Option<Box<RareFields>>);

/// The fields that few services have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RareFields {
    /// Its short name, where that is not what its host name [says](short_name).
    pub name: Option<Str>,
    /// Its address ranges, with their prefix length.
    pub cidr_vips: Box<[(Str, ipnet::IpNet)]>,
    /// Further identities that its endpoints may present.
    pub subject_alt_names: Box<[Str]>,
    /// Which of its endpoints are preferred.
    pub load_balancing: LoadBalancing,
}

impl From<RareFields> for Rare {
    fn from(fields: RareFields) -> Self {
        // Never a box of nothing, so that equal means equal.
        Self((fields != RareFields::default()).then(|| Box::new(fields)))
    }
}

impl Deref for Rare {
    type Target = RareFields;

    fn deref(&self) -> &RareFields {
        static NONE: LazyLock<RareFields> = LazyLock::new(RareFields::default);
        self.0.as_deref().unwrap_or_else(|| &NONE)
    }
}

/// Service ports and the ports they stand for at the endpoint, with the application protocol.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Ports(pub Few<Port>);

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
