//! Text to objects: each document is looked up by kind, read into its type, and checked. What does not fit is
//! a finding with its place, and the object is kept as [`Typed::Broken`] so that nobody mistakes it for absent.

use std::{path::Path, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::{ConfigMap, Namespace, Node as KubeNode, Pod, Secret, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    check,
    cursor::Cursor,
    decode::{Problem, decode},
    finding::{Code, Finding, Level},
    health_check,
    istio::{AuthorizationPolicy, DestinationRule, Gateway, PeerAuthentication, VirtualService},
    kinds::{self, Kind, Lookup, Support},
    network_policy::NetworkPolicy,
    node::{Entry, Node, Value},
    object::{Metadata, Object, Typed},
    position::{Mark, Position},
    scalar::Scalar,
    yaml::{self, Fault},
};

/// How many findings one object may give before the rest is only counted.
const MAX_FINDINGS: usize = 100;

/// What a text held.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The objects, in the order of the text, broken ones included.
    pub objects: Vec<Object>,
    /// What is wrong, in the order of the text.
    pub findings: Vec<Finding>,
}

impl Parsed {
    /// False where some document of the text could not be read at all, so that what is missing from
    /// `objects` may only seem to be gone.
    pub fn is_readable(&self) -> bool {
        !self.findings.iter().any(Finding::is_unreadable)
    }
}

/// Reads all objects of `text`: YAML documents separated by `---`, JSON, and `kind: List` in either.
pub fn parse(text: &str, file: &Arc<Path>) -> Parsed {
    let mut parsed = Parsed::default();
    for document in yaml::documents(text) {
        let faults = document.faults;
        match document.root {
            Some(root) => Reader { file, parsed: &mut parsed, trusted: false }.document(root, faults),
            None => parsed.findings.extend(faults.into_iter().map(|fault| fault_finding(file, fault))),
        }
    }
    parsed
}

/// Reads an object, or a list of them, that an API server answered. `origin` stands in for the file in what is
/// said about it.
///
/// The server has checked its own kinds, and may be newer than this: their unknown fields are left alone. A
/// policy is checked as ever, since a field of it that is not known here would be one that is not enforced.
pub fn from_json(value: &serde_json::Value, origin: &Arc<Path>) -> Parsed {
    let mut parsed = Parsed::default();
    Reader { file: origin, parsed: &mut parsed, trusted: true }.document(Node::from_json(value), Vec::new());
    parsed
}

fn fault_finding(file: &Arc<Path>, fault: Fault) -> Finding {
    let mut finding = Finding::new(Level::Error, fault.code, Position::new(file, fault.at), fault.message);
    finding.field = fault.field;
    finding.fix = fault.fix;
    finding
}

/// `apiVersion`, `kind`, `metadata` and `spec`: the frame of the kinds whose types are our own.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Frame<S: Default> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "metadata")]
    _metadata: ObjectMeta,
    #[serde(default)]
    spec: S,
    #[serde(default, rename = "status")]
    _status: Option<serde_json::Value>,
}

/// The frame of a kind that is not read further than its metadata.
#[derive(Deserialize)]
struct Any {
    #[serde(default, rename = "metadata")]
    _metadata: ObjectMeta,
}

struct Reader<'a> {
    file: &'a Arc<Path>,
    parsed: &'a mut Parsed,
    /// Whether Kubernetes' own kinds have been checked already.
    trusted: bool,
}

impl Reader<'_> {
    fn document(&mut self, root: Node, faults: Vec<Fault>) {
        let Value::Map(_) = root.value else {
            let message = format!("{} here, where an object with apiVersion and kind is wanted", root.kind());
            return self.say(root.at, "", message, None);
        };
        let kind = root.get("kind").and_then(Node::text).unwrap_or_default();
        if kind.ends_with("List")
            && root.get("items").is_some_and(|items| matches!(items.value, Value::List(_)))
        {
            self.parsed.findings.extend(faults.into_iter().map(|fault| fault_finding(self.file, fault)));
            let items = root.entries().iter().find(|entry| entry.key == "items");
            for item in items.into_iter().flat_map(|entry| entry.node.items()) {
                self.document(item.clone(), Vec::new());
            }
            return;
        }
        self.object(root, faults);
    }

    fn say(&mut self, at: Mark, field: &str, message: String, fix: Option<String>) {
        let position = Position::new(self.file, at);
        let mut finding = Finding::new(Level::Error, Code::Schema, position, message).in_field(field);
        finding.fix = fix;
        self.parsed.findings.push(finding);
    }

    fn object(&mut self, mut root: Node, faults: Vec<Fault>) {
        let first = self.parsed.findings.len();
        self.parsed.findings.extend(faults.into_iter().map(|fault| fault_finding(self.file, fault)));
        let (Some(api_version), Some(kind)) = (self.word(&root, "apiVersion"), self.word(&root, "kind"))
        else {
            return;
        };
        let lookup = kinds::lookup(&api_version, &kind);
        let namespaced = match &lookup {
            Lookup::Known(kind) => kind.namespaced,
            Lookup::Foreign | Lookup::Wrong { .. } => true,
        };
        settle_namespace(&mut root, namespaced);
        let metadata = metadata(&root);
        let typed = self.typed(&root, lookup);
        let raw = root.to_json();
        let object = Object {
            position: Position::new(self.file, root.at),
            api_version,
            kind,
            metadata,
            spec: typed,
            raw,
            tree: Arc::new(root),
        };
        self.conclude(object, first);
    }

    /// Names the object in its findings, and takes it out of force when one of them is an error.
    fn conclude(&mut self, mut object: Object, first: usize) {
        let key = object.key();
        let findings = &mut self.parsed.findings[first..];
        for finding in findings.iter_mut().filter(|_| !key.name.is_empty()) {
            finding.object.get_or_insert_with(|| key.to_string());
        }
        findings.sort_by_key(|finding| (finding.position.line, finding.position.column));
        let broken = findings.iter().any(|finding| finding.level == Level::Error);
        self.shorten(first);
        if broken && !matches!(object.spec, Typed::Unsupported | Typed::Other) {
            object.spec = Typed::Broken;
        }
        if !key.name.is_empty() {
            self.parsed.objects.push(object);
        }
    }

    /// Leaves out what nobody would read any more, and says so.
    fn shorten(&mut self, first: usize) {
        let findings = &mut self.parsed.findings;
        let Some(more) = findings.len().checked_sub(first + MAX_FINDINGS).filter(|more| *more > 0) else {
            return;
        };
        findings.truncate(first + MAX_FINDINGS);
        if let Some(mut last) = findings.last().cloned() {
            (last.field, last.fix) = (String::new(), None);
            last.message = format!("{more} more about this object");
            findings.push(last);
        }
    }

    /// The text of a field without which nothing can be said about a document.
    fn word(&mut self, root: &Node, key: &str) -> Option<String> {
        match root.entry(key) {
            Some(entry) if entry.node.text().is_some_and(|text| !text.is_empty()) => {
                return entry.node.text().map(str::to_owned);
            }
            Some(entry) => {
                let message = format!("{} here, where the name of a kind is wanted", entry.node.kind());
                self.say(entry.at, key, message, None);
            }
            None => {
                let near =
                    crate::suggest::nearest(key, root.entries().iter().map(|entry| entry.key.as_str()));
                let (at, fix) = match near.and_then(|near| root.entry(near)) {
                    Some(entry) => (entry.at, format!("write `{key}` instead of `{}`", entry.key)),
                    None => (root.at, format!("add `{key}:` to the document")),
                };
                self.say(at, key, format!("`{key}` is missing"), Some(fix));
            }
        }
        None
    }

    fn typed(&mut self, root: &Node, lookup: Lookup) -> Typed {
        match lookup {
            Lookup::Known(kind) => match kind.support {
                Support::Typed => self.known(root, kind),
                Support::Refused => self.refused(root, kind),
                Support::Ignored => self.ignored(root),
            },
            Lookup::Foreign => self.ignored(root),
            Lookup::Wrong { message, fix, in_kind } => {
                let field = if in_kind { "kind" } else { "apiVersion" };
                let at = root.get(field).map_or(root.at, |node| node.at);
                self.say(at, field, message, fix);
                Typed::Broken
            }
        }
    }

    fn refused(&mut self, root: &Node, kind: &Kind) -> Typed {
        let at = root.get("kind").map_or(root.at, |node| node.at);
        let message =
            format!("{} of {} is not supported yet: it is refused and has no effect", kind.name, kind.group);
        let finding =
            Finding::new(Level::Error, Code::UnsupportedKind, Position::new(self.file, at), message);
        self.parsed.findings.push(finding.in_field("kind"));
        Typed::Unsupported
    }

    fn ignored(&mut self, root: &Node) -> Typed {
        let _: Option<Any> = self.decode(root, Unknown::Allowed);
        let kind = root.get("kind");
        let at = kind.map_or(root.at, |node| node.at);
        let name = kind.and_then(Node::text).unwrap_or_default();
        let api_version = root.get("apiVersion").and_then(Node::text).unwrap_or_default();
        let message = format!("{name} of {api_version} has no effect on the mesh and is left out");
        let finding = Finding::new(Level::Info, Code::IgnoredKind, Position::new(self.file, at), message);
        self.parsed.findings.push(finding.in_field("kind"));
        Typed::Other
    }

    fn known(&mut self, root: &Node, kind: &Kind) -> Typed {
        let before = self.parsed.findings.len();
        let unknown = if self.trusted && !is_policy(kind) { Unknown::Allowed } else { Unknown::Refused };
        let typed = match kind.name {
            "Namespace" => self.whole::<Namespace>(root).map(Typed::Namespace),
            "ServiceAccount" => self.whole::<ServiceAccount>(root).map(Typed::ServiceAccount),
            "Service" => self.whole::<Service>(root).map(Typed::Service),
            "Pod" => self.whole::<Pod>(root).map(Typed::Pod),
            "ConfigMap" => self.whole::<ConfigMap>(root).map(Typed::ConfigMap),
            "Secret" => self.whole::<Secret>(root).map(Typed::Secret),
            "Node" => self.whole::<KubeNode>(root).map(Typed::Node),
            "Deployment" => self.whole::<Deployment>(root).map(Typed::Deployment),
            "ReplicaSet" => self.whole::<ReplicaSet>(root).map(Typed::ReplicaSet),
            "StatefulSet" => self.whole::<StatefulSet>(root).map(Typed::StatefulSet),
            "DaemonSet" => self.whole::<DaemonSet>(root).map(Typed::DaemonSet),
            "Job" => self.whole::<Job>(root).map(Typed::Job),
            "CronJob" => self.whole::<CronJob>(root).map(Typed::CronJob),
            "EndpointSlice" => self.whole::<EndpointSlice>(root).map(Typed::EndpointSlice),
            "NetworkPolicy" => self.spec::<NetworkPolicy>(root, unknown).map(Typed::NetworkPolicy),
            "Gateway" => self.spec::<Gateway>(root, unknown).map(Typed::Gateway),
            "AuthorizationPolicy" => {
                self.spec::<AuthorizationPolicy>(root, unknown).map(Typed::AuthorizationPolicy)
            }
            "PeerAuthentication" => {
                self.spec::<PeerAuthentication>(root, unknown).map(Typed::PeerAuthentication)
            }
            "VirtualService" => self.spec::<VirtualService>(root, unknown).map(Typed::VirtualService),
            "DestinationRule" => self.spec::<DestinationRule>(root, unknown).map(|mut rule| {
                rule.health_check = health_check::read(root);
                Typed::DestinationRule(rule)
            }),
            _ => None,
        };
        let Some(typed) = typed else { return Typed::Broken };
        // Rules about values only make sense where the fields are right; else one mistake is told twice.
        let checked = self.trusted && !is_policy(kind);
        if self.parsed.findings.len() == before && !checked {
            let report = check::Report::new(self.file, &mut self.parsed.findings);
            check::object(&Cursor::root(root), &typed, report);
        }
        typed
    }

    fn whole<T: DeserializeOwned>(&mut self, root: &Node) -> Option<Box<T>> {
        let unknown = if self.trusted { Unknown::Allowed } else { Unknown::Refused };
        self.decode::<T>(root, unknown).map(Box::new)
    }

    fn spec<S: DeserializeOwned + Default>(&mut self, root: &Node, unknown: Unknown) -> Option<Box<S>> {
        self.decode::<Frame<S>>(root, unknown).map(|frame| Box::new(frame.spec))
    }

    fn decode<T: DeserializeOwned>(&mut self, root: &Node, unknown: Unknown) -> Option<T> {
        let (value, problems) = decode::<T>(root);
        for Problem { at, field, message, fix, is_unknown_field } in problems {
            if !(is_unknown_field && unknown == Unknown::Allowed) {
                self.say(at, &field, message, fix);
            }
        }
        if !self.trusted {
            check::metadata(&Cursor::root(root), check::Report::new(self.file, &mut self.parsed.findings));
        }
        value
    }
}

/// What to do with fields that a type does not have.
#[derive(Clone, Copy, PartialEq)]
enum Unknown {
    Refused,
    Allowed,
}

/// Kinds that decide who may do what.
fn is_policy(kind: &Kind) -> bool {
    kind.group.ends_with("istio.io")
}

/// An object of a namespaced kind that names no namespace belongs to `default`.
fn settle_namespace(root: &mut Node, namespaced: bool) {
    let Value::Map(entries) = &mut root.value else { return };
    let Some(metadata) = entries.iter_mut().find(|entry| entry.key == "metadata") else { return };
    let at = metadata.at;
    let Value::Map(fields) = &mut metadata.node.value else { return };
    let empty = |node: &Node| node.is_null() || node.text() == Some("");
    fields.retain(|field| !(field.key == "namespace" && (empty(&field.node) || !namespaced)));
    if namespaced && !fields.iter().any(|field| field.key == "namespace") {
        let node = Node { at, value: Value::Scalar(Scalar::Text, "default".to_owned()) };
        fields.push(Entry { key: "namespace".to_owned(), at, node });
    }
}

fn metadata(root: &Node) -> Metadata {
    let node = root.get("metadata");
    let text = |key: &str| node.and_then(|node| node.get(key)?.text()).map(str::to_owned);
    let words = |key: &str| {
        let map = node.and_then(|node| node.get(key)).map(Node::entries).unwrap_or_default();
        map.iter().filter_map(|entry| Some((entry.key.clone(), entry.node.text()?.to_owned()))).collect()
    };
    Metadata {
        name: text("name").unwrap_or_default(),
        namespace: text("namespace"),
        labels: words("labels"),
        annotations: words("annotations"),
        uid: text("uid"),
        generation: node.and_then(|node| node.get("generation")?.to_json().as_i64()),
        resource_version: text("resourceVersion"),
        creation_timestamp: text("creationTimestamp"),
        deletion_timestamp: text("deletionTimestamp"),
    }
}

#[cfg(test)]
mod tests;
