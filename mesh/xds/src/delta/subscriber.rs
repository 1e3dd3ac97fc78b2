//! The client's side: what it subscribes to, what it has, and what it answers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use model::address::Str;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource, Status};

use super::version::Version;

/// Names all resources.
const WILDCARD: &str = "*";
/// What a client says it has of a resource whose every version it refused. It equals no version, so the resource is
/// sent again, and if it is gone meanwhile, so is its removal: what stands in its place must not stay for ever.
const REFUSED: &str = "refused";
/// Refusals named in one answer, and the length of each, in bytes.
const MAX_REFUSALS_NAMED: usize = 16;
const MAX_REFUSAL_LENGTH: usize = 512;

/// What to subscribe to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The type.
    pub type_url: Str,
    /// All resources, or those asked for.
    pub mode: Mode,
    /// Whether the client is ready only once it has these. Not for types that other controllers do not know: they
    /// never answer.
    pub required: bool,
}

/// How much of a type is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All of it.
    All,
    /// What is [asked for](Subscriber::demand).
    Demand,
}

/// A response, in the client's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The type.
    pub type_url: Str,
    /// The server's name for its state, for people.
    pub revision: String,
    /// New and changed resources.
    pub resources: Vec<Received>,
    /// Names of resources that are gone, or that were asked for and are not there.
    pub removed: Vec<Str>,
}

/// One resource as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Its name.
    pub name: Str,
    /// Its encoded content.
    pub value: Bytes,
    /// Whether an earlier version was taken over and is in force; if this one is refused, that one stays.
    pub replaces: bool,
}

/// A resource that the handler does not take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The resource.
    pub name: Str,
    /// What is wrong with it; sent to the server.
    pub reason: String,
}

/// Takes over what was received.
pub trait Handler: Send {
    /// Applies a response and returns what of it cannot be applied. The rest counts.
    fn apply(&mut self, delivery: Delivery) -> Vec<Rejection>;
}

/// The client's side of all its subscriptions; outlives its connections.
#[derive(Debug)]
pub struct Subscriber {
    node: Node,
    topics: Vec<Topic>,
}

#[derive(Debug)]
struct Topic {
    subscription: Subscription,
    has: HashMap<Str, Had>,
    demanded: BTreeSet<Str>,
    answered: bool,
}

/// What is there of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Had {
    /// A version of ours.
    Version(Version),
    /// A version of another controller's.
    Text(Box<str>),
    /// No version could be read.
    Refused,
}

impl Subscriber {
    /// A client that has nothing. Subscriptions are sent in this order.
    pub fn new(node: Node, subscriptions: impl IntoIterator<Item = Subscription>) -> Self {
        let topic = |subscription| Topic {
            subscription,
            has: HashMap::new(),
            demanded: BTreeSet::new(),
            answered: false,
        };
        Self { node, topics: subscriptions.into_iter().map(topic).collect() }
    }

    /// Whether everything required has been received once.
    pub fn is_ready(&self) -> bool {
        self.topics.iter().all(|topic| topic.answered || !topic.subscription.required)
    }

    /// The requests that open a stream: what is wanted and what is there already.
    pub fn connect(&self) -> Vec<DeltaDiscoveryRequest> {
        self.topics.iter().map(|topic| topic.open(self.node.clone())).collect()
    }

    /// Hands a response to the handler and returns the answer to it.
    pub fn receive(
        &mut self,
        response: DeltaDiscoveryResponse,
        handler: &mut dyn Handler,
    ) -> DeltaDiscoveryRequest {
        let answer = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..Default::default()
        };
        let topic = self.topics.iter_mut().find(|topic| *topic.subscription.type_url == response.type_url);
        let Some(topic) = topic else {
            tracing::warn!(
                type_url = response.type_url,
                "the controller sends a type that was not asked for"
            );
            return answer;
        };
        let rejections = topic.receive(response, handler);
        // A refused response is an answer too: what was good in it is in force.
        topic.answered = true;
        let error_detail =
            (!rejections.is_empty()).then(|| Status { code: 0, message: describe(&rejections) });
        DeltaDiscoveryRequest { error_detail, ..answer }
    }

    /// Asks for a resource by any of its names. Nothing to send if it was asked for before.
    pub fn demand(&mut self, type_url: &str, name: &Str) -> Option<DeltaDiscoveryRequest> {
        let topic = self.topic(type_url)?;
        topic.demanded.insert(name.clone()).then(|| DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: vec![name.to_string()],
            ..Default::default()
        })
    }

    /// No longer asks for a resource. Our controller answers with the removal of what nothing else asks for.
    pub fn release(&mut self, type_url: &str, name: &str) -> Option<DeltaDiscoveryRequest> {
        let topic = self.topic(type_url)?;
        topic.demanded.remove(name).then(|| DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_unsubscribe: vec![name.to_owned()],
            ..Default::default()
        })
    }

    /// The names and versions that are there of a type, to be kept beside the resources over a restart.
    pub fn versions(&self, type_url: &str) -> BTreeMap<String, String> {
        let topic = self.topics.iter().find(|topic| *topic.subscription.type_url == *type_url);
        topic.map(Topic::versions).unwrap_or_default()
    }

    /// Takes up what was there before a restart: the caller has the resources in force again.
    pub fn restore(&mut self, type_url: &str, versions: impl IntoIterator<Item = (Str, String)>) {
        if let Some(topic) = self.topic(type_url) {
            topic.has.extend(versions.into_iter().map(|(name, version)| (name, Had::from(version.as_str()))));
            topic.answered = true;
        }
    }

    fn topic(&mut self, type_url: &str) -> Option<&mut Topic> {
        self.topics.iter_mut().find(|topic| *topic.subscription.type_url == *type_url)
    }
}

impl Topic {
    fn open(&self, node: Node) -> DeltaDiscoveryRequest {
        let demand = self.subscription.mode == Mode::Demand;
        let asterisk = || if demand { vec![WILDCARD.to_owned()] } else { Vec::new() };
        // "Nothing" cannot be said but by asking for all and taking it back.
        let names = self.demanded.iter().map(ToString::to_string);
        DeltaDiscoveryRequest {
            node: Some(node),
            type_url: self.subscription.type_url.to_string(),
            resource_names_subscribe: asterisk().into_iter().chain(names).collect(),
            resource_names_unsubscribe: asterisk(),
            initial_resource_versions: self.versions(),
            ..Default::default()
        }
    }

    fn versions(&self) -> BTreeMap<String, String> {
        self.has.iter().map(|(name, had)| (name.to_string(), had.to_string())).collect()
    }

    fn receive(&mut self, response: DeltaDiscoveryResponse, handler: &mut dyn Handler) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        let mut versions = Vec::with_capacity(response.resources.len());
        let mut resources = Vec::with_capacity(response.resources.len());
        for resource in response.resources {
            let name = self.shared_name(&resource.name);
            match content(&resource, &response.type_url) {
                Ok(value) => {
                    let replaces = self.has.get(&name).is_some_and(|had| *had != Had::Refused);
                    versions.push((name.clone(), Had::from(resource.version.as_str())));
                    resources.push(Received { name, value, replaces });
                }
                Err(reason) => rejections.push(Rejection { name, reason }),
            }
        }
        let removed: Vec<Str> =
            response.removed_resources.iter().map(|name| self.shared_name(name)).collect();
        for name in &removed {
            self.has.remove(name);
        }
        let type_url = self.subscription.type_url.clone();
        let revision = response.system_version_info;
        rejections.extend(handler.apply(Delivery { type_url, revision, resources, removed }));
        self.record(versions, &rejections);
        rejections
    }

    /// What was taken over is there in its version; of what was refused, what was there before.
    fn record(&mut self, versions: Vec<(Str, Had)>, rejections: &[Rejection]) {
        let mut before: HashMap<Str, Had> = HashMap::new();
        for rejection in rejections {
            let had = self.has.get(&rejection.name).cloned().unwrap_or(Had::Refused);
            before.insert(rejection.name.clone(), had);
        }
        self.has.extend(versions);
        self.has.extend(before);
    }

    /// The name as it is already held, so that equal names are one.
    fn shared_name(&self, name: &str) -> Str {
        self.has.get_key_value(name).map_or_else(|| Str::from(name), |(name, _)| name.clone())
    }
}

fn content(resource: &Resource, type_url: &str) -> Result<Bytes, String> {
    match &resource.resource {
        None => Err("the resource has no content".to_owned()),
        Some(any) if any.type_url != type_url => {
            Err(format!("the resource is a {}, sent as a {type_url}", any.type_url))
        }
        Some(any) => Ok(any.value.clone()),
    }
}

/// The first few refusals, each cut to a length.
fn describe(rejections: &[Rejection]) -> String {
    let mut text = String::new();
    for rejection in rejections.iter().take(MAX_REFUSALS_NAMED) {
        if !text.is_empty() {
            text.push_str("; ");
        }
        let one = format!("{}: {}", rejection.name, rejection.reason);
        let cut = (0..=MAX_REFUSAL_LENGTH.min(one.len())).rev().find(|cut| one.is_char_boundary(*cut));
        text.push_str(&one[..cut.unwrap_or(0)]);
    }
    if rejections.len() > MAX_REFUSALS_NAMED {
        text.push_str(&format!("; and {} more", rejections.len() - MAX_REFUSALS_NAMED));
    }
    text
}

impl From<&str> for Had {
    fn from(text: &str) -> Self {
        match text.parse() {
            Ok(version) => Self::Version(version),
            Err(_) if text == REFUSED => Self::Refused,
            Err(_) => Self::Text(text.into()),
        }
    }
}

impl std::fmt::Display for Had {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Version(version) => version.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::Refused => f.write_str(REFUSED),
        }
    }
}
