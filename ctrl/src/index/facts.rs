//! What the mesh needs to know of an object, without the rest: two versions with equal facts are the same to it, so
//! that what only a kubelet or a person cares about causes no work.

mod pod;
mod service;
mod slice;
mod waypoint;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;
use manifest::istio::MutualTlsMode;
use manifest::{BrokenScope, Object, Typed};
use model::workload::Locality;

pub use self::pod::{ContainerPort, Owner, Pod};
pub use self::service::{Service, ServicePort, Target};
pub use self::slice::{Endpoint, Slice};
pub use self::waypoint::{Allowed, Asked, REQUIRE_WAYPOINT, REVISION, Traffic, Waypoint};
pub(super) use self::waypoint::{asked, required, traffic};
use super::Name;
use super::labels::Labels;

/// The region of a node.
const REGION: &str = "topology.kubernetes.io/region";
/// Its zone.
const ZONE: &str = "topology.kubernetes.io/zone";
/// A part of the zone.
const SUBZONE: &str = "topology.istio.io/subzone";

/// An address; one of IPv4 that is written as one of IPv6 is the same.
fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// Where a node is.
pub(super) fn node_locality(node: &Node) -> Locality {
    let labels = node.metadata.labels.as_ref();
    let label = |name: &str| labels.and_then(|labels| labels.get(name)).map_or("", String::as_str).into();
    Locality { region: label(REGION), zone: label(ZONE), subzone: label(SUBZONE) }
}

/// A PeerAuthentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRule {
    /// Its name.
    pub name: Name,
    /// Whom it is for; empty for all of its namespace, in the root namespace for all of the mesh.
    pub selector: Labels,
    /// Whether callers need an identity, if it says so.
    pub strict: Option<bool>,
    /// The same by port of the workload.
    pub ports: BTreeMap<u16, Option<bool>>,
    /// When it was made.
    pub created: Option<String>,
    /// It cannot be read, and counts as STRICT: no PeerAuthentication could refuse more.
    pub broken: bool,
}

impl PeerRule {
    /// Of an object of that kind.
    pub(super) fn of(name: Name, object: &Object) -> Self {
        let created = object.metadata.creation_timestamp.clone();
        let strict = |mode: MutualTlsMode| match mode {
            MutualTlsMode::Unset => None,
            MutualTlsMode::Strict => Some(true),
            MutualTlsMode::Permissive | MutualTlsMode::Disable => Some(false),
        };
        let Typed::PeerAuthentication(spec) = &object.spec else {
            let selector = match object.broken_scope() {
                BrokenScope::Selector(labels) => labels,
                BrokenScope::Targets | BrokenScope::Namespace => Labels::new(),
            };
            return Self {
                name,
                selector,
                strict: Some(true),
                ports: BTreeMap::new(),
                created,
                broken: true,
            };
        };
        Self {
            name,
            selector: spec
                .selector
                .as_ref()
                .map(|selector| selector.match_labels.clone())
                .unwrap_or_default(),
            strict: spec.mtls.and_then(|mtls| strict(mtls.mode)),
            ports: spec.port_level_mtls.iter().map(|(port, mtls)| (port.0, strict(mtls.mode))).collect(),
            created,
            broken: false,
        }
    }
}

/// The labels of the workloads that name an AuthorizationPolicy; none where it is for all of a namespace or more, or
/// is none of the agents' business.
pub(super) fn policy_selector(object: &Object) -> Option<Labels> {
    let labels = match &object.spec {
        Typed::AuthorizationPolicy(policy) => {
            if policy.targets().next().is_some() {
                return None;
            }
            policy.selector.as_ref()?.match_labels.clone()
        }
        _ => match object.broken_scope() {
            BrokenScope::Selector(labels) => labels,
            BrokenScope::Targets | BrokenScope::Namespace => return None,
        },
    };
    (!labels.is_empty()).then_some(labels)
}
