//! A workload: one pod (or other endpoint) of the mesh, as the workload API describes it
//! (`istio.workload.Workload`).
//!
//! What the replicas of a deployment have in common is one shared [`Profile`]; a workload itself is small.

use std::sync::Arc;

use crate::address::{Addresses, NamespacedHostname, NetworkAddress, Str};
use crate::identity::Identity;
use crate::service::Ports;

/// One workload of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Unique and opaque, e.g. `Kubernetes//Pod/default/reviews-v1-abc`.
    pub uid: Str,
    /// The pod's name.
    pub name: Str,
    /// Its addresses, in its profile's network; empty where the endpoint is known by host name only.
    pub addresses: Addresses,
    /// The node that it runs on.
    pub node: Str,
    /// Whether it takes traffic.
    pub status: Health,
    /// What it shares with the replicas beside it.
    pub profile: Arc<Profile>,
}

/// What all replicas of a workload have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Profile {
    /// Trust domain, namespace and service account.
    pub identity: Identity,
    /// The network its addresses belong to.
    pub network: Str,
    /// How it is reached: by HBONE or as plain TCP.
    pub protocol: TunnelProtocol,
    /// Whether it shares its node's addresses; such a workload is never found by address.
    pub host_network: bool,
    /// Whether it understands HBONE itself (a waypoint, a gateway).
    pub native_tunnel: bool,
    /// A host name to resolve where there is no address.
    pub hostname: Str,
    /// The canonical service name, for telemetry.
    pub canonical_name: Str,
    /// The canonical revision, for telemetry.
    pub canonical_revision: Str,
    /// What kind of object owns the pod, for telemetry.
    pub kind: WorkloadKind,
    /// The owner's name, for telemetry.
    pub workload_name: Str,
    /// The waypoint for traffic to its addresses.
    pub waypoint: Option<GatewayAddress>,
    /// How another network's workload is reached.
    pub network_gateway: Option<GatewayAddress>,
    /// The services it is an endpoint of, with the ports it serves there.
    pub services: Box<[(NamespacedHostname, Ports)]>,
    /// The selector-scoped policies that apply to it, as `namespace/name`.
    pub policies: Box<[PolicyName]>,
    /// Identities of the waypoints that enforce its policies before its agent sees a connection
    /// (`lateen.dev/enforced-by`). `None`: the controller does not say, judge every peer.
    pub enforced_by: Option<Box<[Identity]>>,
    /// Which cluster it belongs to.
    pub cluster: Str,
    /// Where it runs.
    pub locality: Locality,
    /// Its weight among endpoints; 1 unless said otherwise.
    pub capacity: u32,
    /// How its proxied port wants the connection, for waypoints behind an agent.
    pub application_tunnel: Option<ApplicationTunnel>,
}

/// Names a policy: its namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyName {
    /// The policy's namespace.
    pub namespace: Str,
    /// The policy's name.
    pub name: Str,
}

impl PolicyName {
    /// The policy that istiod sends of PeerAuthentications, for workloads that are strict on every port.
    pub const STATIC_STRICT: &str = "istio_converted_static_strict";
    /// What istiod puts in front of the name of a PeerAuthentication with ports that differ.
    pub const CONVERTED: &str = "converted_peer_authentication_";

    /// Whether controllers made it of PeerAuthentications: no object of this name is to be found.
    #[must_use]
    pub fn is_of_peer_authentications(&self) -> bool {
        *self.name == *Self::STATIC_STRICT || self.name.starts_with(Self::CONVERTED)
    }
}

impl std::fmt::Display for PolicyName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// How a workload's proxy wants connections handed to the application (`istio.workload.ApplicationTunnel`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ApplicationTunnel {
    /// Whether a PROXY protocol header precedes the bytes.
    pub proxy_protocol: bool,
    /// The port to deliver to, or 0 for the one asked for.
    pub port: u16,
}

/// Whether a workload takes traffic (`istio.workload.WorkloadStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    /// Ready.
    Healthy,
    /// Not ready, or going.
    Unhealthy,
}

/// How a workload is reached (`istio.workload.TunnelProtocol`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TunnelProtocol {
    /// Plain TCP.
    Tcp,
    /// HTTP/2 CONNECT over mTLS on port 15008.
    Hbone,
}

/// What owns a pod (`istio.workload.WorkloadType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkloadKind {
    /// A Deployment.
    Deployment,
    /// A CronJob.
    CronJob,
    /// A bare pod.
    Pod,
    /// A Job.
    Job,
}

impl WorkloadKind {
    /// The lowercase word of baggage headers and telemetry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::CronJob => "cronjob",
            Self::Pod => "pod",
            Self::Job => "job",
        }
    }
}

/// Where a workload runs; empty where not known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Locality {
    /// The region.
    pub region: Str,
    /// The zone within it.
    pub zone: Str,
    /// The part of the zone.
    pub subzone: Str,
}

impl Default for Locality {
    fn default() -> Self {
        let empty: Str = Str::from("");
        Self { region: empty.clone(), zone: empty.clone(), subzone: empty }
    }
}

/// Where a waypoint or gateway is found (`istio.workload.GatewayAddress`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GatewayAddress {
    /// Its service or its address.
    pub destination: GatewayDestination,
    /// The port it takes HBONE on.
    pub hbone_port: u16,
}

/// A gateway by name or by address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum GatewayDestination {
    /// A service, whose endpoints are the gateway's replicas.
    Hostname(NamespacedHostname),
    /// An address, of a workload or a service.
    Address(NetworkAddress),
}

impl std::fmt::Display for GatewayDestination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hostname(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl Workload {
    /// The workload's identity.
    pub fn identity(&self) -> &Identity {
        &self.profile.identity
    }

    /// The workload's namespace.
    pub fn namespace(&self) -> &Str {
        self.profile.identity.namespace()
    }

    /// Whether it is a pod of Kubernetes. Where several workloads claim one address, a pod is believed first.
    pub fn is_pod(&self) -> bool {
        self.uid.contains("//Pod/")
    }

    /// The ports that it serves of a service, if it is one of its endpoints.
    pub fn ports_of(&self, service: &NamespacedHostname) -> Option<&Ports> {
        self.profile.services.iter().find(|(name, _)| name == service).map(|(_, ports)| ports)
    }
}

#[cfg(test)]
mod tests {
    use super::{PolicyName, WorkloadKind};

    #[test]
    fn policies_made_of_peer_authentications_are_known_by_their_names() {
        for (name, converted) in [
            ("istio_converted_static_strict", true),
            ("converted_peer_authentication_default", true),
            ("converted_peer_authentication_", true),
            ("istio_converted_static_strict_2", false),
            ("my_converted_peer_authentication_default", false),
            ("converted_peer_authentication", false),
            ("allow-all", false),
            ("", false),
        ] {
            let policy = PolicyName { namespace: "istio-system".into(), name: name.into() };
            assert_eq!(policy.is_of_peer_authentications(), converted, "{name:?}");
        }
    }

    #[test]
    fn owners_have_their_words() {
        use WorkloadKind::{CronJob, Deployment, Job, Pod};
        let words = [Deployment, CronJob, Pod, Job].map(WorkloadKind::as_str);
        assert_eq!(words, ["deployment", "cronjob", "pod", "job"]);
    }
}
