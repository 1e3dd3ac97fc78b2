//! What the mesh needs to know of a Pod.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{self, PodSpec, PodStatus};
use model::address::Str;
use model::workload::{Health, Locality};

use crate::index::Name;
use crate::index::labels::Labels;

/// Noted by whoever captures the pod: from then on it takes HBONE.
const REDIRECTION: &str = "ambient.istio.io/redirection";
/// A pod that speaks HBONE itself.
const TUNNEL: &str = "networking.istio.io/tunnel";
/// The network a pod is in, if not the default one.
const NETWORK: &str = "topology.istio.io/network";
/// The image of a pod from a file of a node's: that node's kubelet writes it, in whichever namespace it likes.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// A locality that overrides the node's: `region.zone.subzone`.
const LOCALITY: &str = "istio-locality";

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: Name,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The node it is on; empty before it is on one.
    pub node: Str,
    /// The service account it runs as.
    pub account: Str,
    /// Whether it is the image of a pod from a file of its node's. Such a pod names no account and has no identity: a
    /// node that is taken over may make one in any namespace.
    pub mirror: bool,
    /// Whether it shares its node's network.
    pub host_network: bool,
    /// Whether it takes traffic.
    pub health: Health,
    /// All of its containers have ended for good.
    pub ended: bool,
    /// Whether it is reached by HBONE.
    pub hbone: bool,
    /// Whether it speaks HBONE itself.
    pub native_tunnel: bool,
    /// Its network, if it says.
    pub network: Option<Str>,
    /// Its locality, if it says.
    pub locality: Option<Locality>,
    /// What controls it.
    pub owner: Option<Owner>,
    /// The ports that its containers name.
    pub ports: Vec<ContainerPort>,
}

/// What controls a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// A named port of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPort {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u16,
}

impl Pod {
    /// Whether it takes traffic.
    pub fn is_ready(&self) -> bool {
        self.health == Health::Healthy && !self.ended && !self.addresses.is_empty()
    }

    pub(in crate::index) fn of(name: Name, pod: &v1::Pod) -> Self {
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let annotation = |name: &str| pod.metadata.annotations.as_ref()?.get(name).map(String::as_str);
        let native_tunnel = labels.get(TUNNEL).is_some_and(|tunnel| tunnel == "http");
        let ended = status
            .and_then(|status| status.phase.as_deref())
            .is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"));
        let going = pod.metadata.deletion_timestamp.is_some();
        Self {
            addresses: status.map(addresses).unwrap_or_default(),
            node: spec.and_then(|spec| spec.node_name.as_deref()).unwrap_or_default().into(),
            account: account(spec).into(),
            mirror: annotation(MIRROR).is_some(),
            host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
            health: if !going && status.is_some_and(is_ready) { Health::Healthy } else { Health::Unhealthy },
            ended,
            hbone: native_tunnel || annotation(REDIRECTION) == Some("enabled"),
            native_tunnel,
            network: labels.get(NETWORK).map(|network| network.as_str().into()),
            locality: labels.get(LOCALITY).map(|text| locality(text)),
            owner: owner(pod),
            ports: spec.map(ports).unwrap_or_default(),
            name,
            labels,
        }
    }
}

fn addresses(status: &PodStatus) -> Vec<IpAddr> {
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut addresses: Vec<IpAddr> = all.chain(status.pod_ip.as_deref()).filter_map(super::address).collect();
    let mut seen = std::collections::BTreeSet::new();
    addresses.retain(|ip| seen.insert(*ip));
    addresses
}

fn account(spec: Option<&PodSpec>) -> &str {
    let named = spec.into_iter().flat_map(|spec| [&spec.service_account_name, &spec.service_account]);
    named.flatten().find(|name| !name.is_empty()).map_or("default", String::as_str)
}

fn is_ready(status: &PodStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn locality(text: &str) -> Locality {
    let mut parts = text.split(['/', '.']).map(Str::from);
    let mut next = || parts.next().unwrap_or_else(|| "".into());
    Locality { region: next(), zone: next(), subzone: next() }
}

fn owner(pod: &v1::Pod) -> Option<Owner> {
    let owners = pod.metadata.owner_references.as_ref()?;
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    Some(Owner { kind: owner.kind.clone(), name: owner.name.clone() })
}

fn ports(spec: &PodSpec) -> Vec<ContainerPort> {
    // Init containers that go on running are containers too.
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let tcp = ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP");
    let named = tcp.filter_map(|port| {
        let number = u16::try_from(port.container_port).ok()?;
        Some(ContainerPort { name: port.name.clone()?, number })
    });
    named.collect()
}
