//! Who a client of the controller says it is (`envoy.service.discovery.v3.Node`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use proto::discovery::Node;
use proto::extension;
use thiserror::Error;

/// Metadata: the pod's name.
const NAME: &str = "NAME";
/// Metadata: the pod's namespace; the controller compares it with the token's.
const NAMESPACE: &str = "NAMESPACE";
/// Metadata: the pod's addresses, joined by commas. A list here is refused by Istio's controller.
const INSTANCE_IPS: &str = "INSTANCE_IPS";
/// Metadata: the version of the program.
const VERSION: &str = "LATEEN_VERSION";
/// Metadata: the node it runs on.
const NODE_NAME: &str = "NODE_NAME";
/// Metadata: the cluster it is in, as Istio's proxies say it.
const CLUSTER_ID: &str = "CLUSTER_ID";
/// Metadata: which of our extensions the client heeds. It is sent no policy that would mean more without them.
const UNDERSTANDS: &str = "LATEEN_UNDERSTANDS";
/// The extensions of policies, which every proxy of ours heeds.
const POLICY_EXTENSIONS: [&str; 2] = [extension::ENFORCED_BY, extension::UNSEEN];

/// A proxy, as it introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// What it is: `ztunnel` for a node agent (as Istio's controller knows it), `waypoint` for a waypoint.
    pub kind: String,
    /// Its address.
    pub ip: IpAddr,
    /// Its pod.
    pub pod: String,
    /// Its namespace.
    pub namespace: String,
    /// What else it says: `NODE_NAME`, `CLUSTER_ID` and more.
    pub metadata: BTreeMap<String, String>,
}

/// Not a proxy that introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("node id {0:?}: expected KIND~IP~POD.NAMESPACE~DOMAIN; is this client a proxy of the mesh?")]
pub struct InvalidNode(pub String);

impl NodeInfo {
    /// A proxy of ours: it heeds the extensions that this crate reads.
    pub fn new(kind: &str, ip: Option<IpAddr>, pod: &str, namespace: &str) -> Self {
        let understood = POLICY_EXTENSIONS.join(",");
        Self {
            kind: kind.to_owned(),
            ip: ip.unwrap_or(IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1))),
            pod: pod.to_owned(),
            namespace: namespace.to_owned(),
            metadata: [
                (UNDERSTANDS.to_owned(), understood),
                (VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ]
            .into(),
        }
    }

    /// On this node.
    #[must_use]
    pub fn on_node(mut self, node: &str) -> Self {
        self.metadata.insert(NODE_NAME.to_owned(), node.to_owned());
        self
    }

    /// In this cluster.
    #[must_use]
    pub fn in_cluster(mut self, cluster: &str) -> Self {
        self.metadata.insert(CLUSTER_ID.to_owned(), cluster.to_owned());
        self
    }

    /// That heeds this, too: a waypoint what
    /// [routings may require](crate::convert::routing::features::Feature).
    #[must_use]
    pub fn understanding(mut self, names: &[&str]) -> Self {
        let understood = self.metadata.entry(UNDERSTANDS.to_owned()).or_default();
        for name in names {
            if !understood.is_empty() {
                understood.push(',');
            }
            understood.push_str(name);
        }
        self
    }

    /// The node it runs on, if it says.
    pub fn node_name(&self) -> Option<&str> {
        self.metadata.get(NODE_NAME).map(String::as_str)
    }

    /// The cluster it is in, if it says.
    pub fn cluster(&self) -> Option<&str> {
        self.metadata.get(CLUSTER_ID).map(String::as_str)
    }

    /// Whether it heeds an extension of ours.
    pub fn understands(&self, extension: &str) -> bool {
        let understood = self.metadata.get(UNDERSTANDS);
        understood.is_some_and(|names| names.split(',').any(|name| name == extension))
    }

    /// Whether it heeds all that a policy may mean: it can be sent what would mean something else without.
    pub fn heeds_extensions(&self) -> bool {
        POLICY_EXTENSIONS.iter().all(|name| self.understands(name))
    }

    /// Whether it is a waypoint.
    pub fn is_waypoint(&self) -> bool {
        self.kind == "waypoint"
    }

    /// The id by which it is known in logs: `ztunnel~10.0.0.1~pod.namespace~namespace.svc.cluster.local`.
    pub fn id(&self) -> String {
        let Self { kind, ip, pod, namespace, .. } = self;
        format!("{kind}~{ip}~{pod}.{namespace}~{namespace}.svc.cluster.local")
    }

    /// As it is sent.
    pub fn to_wire(&self) -> Node {
        let own = [
            (NAME, self.pod.clone()),
            (NAMESPACE, self.namespace.clone()),
            (INSTANCE_IPS, self.ip.to_string()),
        ];
        let own = own.into_iter().map(|(key, value)| (key.to_owned(), value));
        let all = self.metadata.clone().into_iter().chain(own);
        let fields = all.map(|(key, value)| (key, Value { kind: Some(Kind::StringValue(value)) })).collect();
        Node { id: self.id(), metadata: Some(Struct { fields }) }
    }

    /// As it came.
    ///
    /// # Errors
    /// The id is not of the form that proxies use.
    pub fn from_wire(node: &Node) -> Result<Self, InvalidNode> {
        let invalid = || InvalidNode(node.id.chars().take(256).collect());
        let parts: Vec<&str> = node.id.split('~').collect();
        let &[kind, ip, name, _domain] = &parts[..] else { return Err(invalid()) };
        let ip = ip.parse().map_err(|_| invalid())?;
        let (pod, namespace) = name.rsplit_once('.').ok_or_else(invalid)?;
        let fields = node.metadata.iter().flat_map(|metadata| &metadata.fields);
        let text = |(key, value): (&String, &Value)| match &value.kind {
            Some(Kind::StringValue(text)) => Some((key.clone(), text.clone())),
            _ => None,
        };
        let mut metadata: BTreeMap<String, String> = fields.filter_map(text).collect();
        let namespace = metadata.remove(NAMESPACE).unwrap_or_else(|| namespace.to_owned());
        let pod = metadata.remove(NAME).unwrap_or_else(|| pod.to_owned());
        metadata.remove(INSTANCE_IPS);
        Ok(Self { kind: kind.to_owned(), ip, pod, namespace, metadata })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let ip = "fd00::5".parse().ok();
        let node =
            NodeInfo::new("ztunnel", ip, "agent-x", "istio-system").on_node("node-1").in_cluster("east");
        let wire = node.to_wire();
        assert_eq!(wire.id, "ztunnel~fd00::5~agent-x.istio-system~istio-system.svc.cluster.local");
        assert_eq!(NodeInfo::from_wire(&wire), Ok(node.clone()));
        assert_eq!((node.node_name(), node.cluster()), (Some("node-1"), Some("east")));
        assert!(node.understands(extension::UNSEEN) && !node.understands("lateen.dev"));
        assert!(node.heeds_extensions() && !node.is_waypoint());
    }

    #[test]
    fn a_foreign_proxy_heeds_none_of_our_extensions() {
        let id = "ztunnel~1.1.1.1~z.istio-system~istio-system.svc.cluster.local".to_owned();
        let node = NodeInfo::from_wire(&Node { id, metadata: None }).unwrap();
        assert_eq!((node.pod.as_str(), node.namespace.as_str()), ("z", "istio-system"));
        assert!(!node.understands(extension::UNSEEN) && !node.heeds_extensions());
    }

    #[test]
    fn a_waypoint_says_what_it_can_route() {
        use crate::convert::routing::features::Feature;
        let known = Feature::ALL.map(Feature::name);
        let agent = NodeInfo::new("ztunnel", None, "agent-x", "istio-system");
        let waypoint = NodeInfo::new("waypoint", None, "w", "shop").understanding(&known);
        let waypoint = NodeInfo::from_wire(&waypoint.to_wire()).unwrap();
        for feature in known.into_iter().chain([extension::UNSEEN]) {
            assert!(waypoint.understands(feature), "{feature}");
        }
        assert!(known.iter().all(|feature| !agent.understands(feature)));
        assert!(waypoint.is_waypoint() && !agent.is_waypoint());
        assert!(!waypoint.understands("lateen.dev/routing"));
    }

    #[test]
    fn refuses_other_ids() {
        for id in ["", "a~b~c", "ztunnel~notanip~a.b~c", "ztunnel~1.1.1.1~nodot~c", "a~1.1.1.1~b.c~d~e"] {
            assert!(NodeInfo::from_wire(&Node { id: id.into(), metadata: None }).is_err(), "{id}");
        }
    }
}
