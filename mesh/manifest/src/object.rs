//! One object of a manifest: who it is, what it says, and where.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::{ConfigMap, Namespace, Node as KubeNode, Pod, Secret, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
};
use serde::Serialize;

use crate::{
    istio::{AuthorizationPolicy, DestinationRule, Gateway, PeerAuthentication, VirtualService},
    kinds,
    network_policy::NetworkPolicy,
    node::{Node, Step},
    position::Position,
};

/// What stands in the place of a file's name where an API server has told of an object.
pub const API_SERVER: &str = "kubernetes";

/// What tells one object from all others. Versions of one kind are the same object, as in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Key {
    /// API group without version, empty for the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace; `None` for kinds that live in none.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

/// `AuthorizationPolicy shop/deny-all`, or `Namespace shop`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// The part of `metadata` that every kind has and that the mesh looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Name.
    pub name: String,
    /// Namespace: `default` where a namespaced object names none, `None` for kinds that live in none.
    pub namespace: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Unique id, where somebody has given one.
    pub uid: Option<String>,
    /// Generation, where somebody counts them.
    pub generation: Option<i64>,
    /// Version of the stored object, from an API server.
    pub resource_version: Option<String>,
    /// When it was made, RFC 3339.
    pub creation_timestamp: Option<String>,
    /// When its removal was asked for, RFC 3339.
    pub deletion_timestamp: Option<String>,
}

/// An object as read from a manifest or an API server.
#[derive(Clone, Debug)]
pub struct Object {
    /// `apiVersion` as written.
    pub api_version: String,
    /// `kind` as written.
    pub kind: String,
    /// The common metadata.
    pub metadata: Metadata,
    /// The object in its type, or why it has none.
    pub spec: Typed,
    /// Where it begins.
    pub position: Position,
    /// The object as JSON, fields in the order in which they were written.
    pub raw: serde_json::Value,
    pub(crate) tree: Arc<Node>,
}

/// An object's type. Kubernetes' kinds are whole objects, with metadata and status; ours are the `spec`.
#[derive(Clone, Debug)]
pub enum Typed {
    /// `v1`
    Namespace(Box<Namespace>),
    /// `v1`
    ServiceAccount(Box<ServiceAccount>),
    /// `v1`
    Service(Box<Service>),
    /// `v1`
    Pod(Box<Pod>),
    /// `v1`
    ConfigMap(Box<ConfigMap>),
    /// `v1`
    Secret(Box<Secret>),
    /// `v1`
    Node(Box<KubeNode>),
    /// `apps/v1`
    Deployment(Box<Deployment>),
    /// `apps/v1`
    ReplicaSet(Box<ReplicaSet>),
    /// `apps/v1`
    StatefulSet(Box<StatefulSet>),
    /// `apps/v1`
    DaemonSet(Box<DaemonSet>),
    /// `batch/v1`
    Job(Box<Job>),
    /// `batch/v1`
    CronJob(Box<CronJob>),
    /// `discovery.k8s.io/v1`
    EndpointSlice(Box<EndpointSlice>),
    /// `networking.k8s.io/v1`, the `spec`: others enforce it.
    NetworkPolicy(Box<NetworkPolicy>),
    /// `gateway.networking.k8s.io`
    Gateway(Box<Gateway>),
    /// `security.istio.io`
    AuthorizationPolicy(Box<AuthorizationPolicy>),
    /// `security.istio.io`
    PeerAuthentication(Box<PeerAuthentication>),
    /// `networking.istio.io`
    VirtualService(Box<VirtualService>),
    /// `networking.istio.io`
    DestinationRule(Box<DestinationRule>),
    /// A mesh kind that is not built yet. Never to be skipped silently: whoever shows status refuses it by
    /// name.
    Unsupported,
    /// A kind of ours that does not fit its schema or breaks its rules (findings of level error say how).
    /// It must never widen anything: its last good version stays in force; where there is none, a policy's
    /// whole scope is denied ([`Object::broken_scope`]).
    Broken,
    /// Somebody else's kind, of no use to the mesh.
    Other,
}

/// The workloads a broken policy was meant for, as far as can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokenScope {
    /// Those with these labels, all of them when empty.
    Selector(BTreeMap<String, String>),
    /// What `targetRef` or `targetRefs` name.
    Targets,
    /// Cannot be told: its namespace.
    Namespace,
}

impl Object {
    /// What tells this object from all others.
    pub fn key(&self) -> Key {
        Key {
            group: kinds::split(&self.api_version).0.to_owned(),
            kind: self.kind.clone(),
            namespace: self.metadata.namespace.clone(),
            name: self.metadata.name.clone(),
        }
    }

    /// Whether an API server has told of it, which has looked at what it says.
    pub fn is_from_api_server(&self) -> bool {
        *self.position.file == *Path::new(API_SERVER)
    }

    /// The file it was read from.
    pub fn file(&self) -> &Arc<Path> {
        &self.position.file
    }

    /// Where `path` stands in the file; the deepest part of it that exists. `[Key("spec"), Key("rules"),
    /// Index(2)]` is where a policy's third rule begins.
    pub fn locate(&self, path: &[Step<'_>]) -> Position {
        Position::new(&self.position.file, self.tree.locate(path))
    }

    /// Where the rule of this index of an AuthorizationPolicy stands.
    pub fn locate_rule(&self, index: usize) -> Position {
        self.locate(&[Step::Key("spec"), Step::Key("rules"), Step::Index(index)])
    }

    /// The tree with the place of every key and value.
    pub fn tree(&self) -> &Node {
        &self.tree
    }

    /// The label `name`, if set.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.metadata.labels.get(name).map(String::as_str)
    }

    /// The annotation `name`, if set.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.get(name).map(String::as_str)
    }

    /// Whom an unreadable policy was meant for: the narrowest scope that its text leaves no doubt about.
    pub fn broken_scope(&self) -> BrokenScope {
        let spec = self.raw.get("spec");
        let targets =
            ["targetRef", "targetRefs"].iter().any(|key| spec.is_some_and(|s| s.get(*key).is_some()));
        let selector = spec.and_then(|spec| spec.get("selector"));
        match (targets, selector) {
            (true, None) => BrokenScope::Targets,
            (false, None) => BrokenScope::Namespace,
            (true, Some(_)) => BrokenScope::Namespace,
            (false, Some(selector)) => match selector_labels(selector) {
                Some(labels) => BrokenScope::Selector(labels),
                None => BrokenScope::Namespace,
            },
        }
    }
}

/// The labels of a selector that is written exactly as it should be; anything else leaves doubt.
fn selector_labels(selector: &serde_json::Value) -> Option<BTreeMap<String, String>> {
    let selector = selector.as_object()?;
    let labels = selector.get("matchLabels")?.as_object()?;
    if selector.len() != 1 {
        return None;
    }
    labels.iter().map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}
