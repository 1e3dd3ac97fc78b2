//! The client's side: what it subscribes to, what it has, and what it answers.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;
use foldhash::fast::RandomState;
use model::address::Str;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource, Status};
use thiserror::Error;

use super::digest::{self, Buckets, Digests};
use super::version::Version;

/// Names all resources.
const WILDCARD: &str = "*";
/// What a client says it has of a resource whose every version it refused. It equals no version, so the resource is
/// sent again, and if it is gone meanwhile, so is its removal: what stands in its place must not stay for ever.
pub const REFUSED: &str = "refused";
/// Refusals named in one answer, and the length of each, in bytes.
const MAX_REFUSALS_NAMED: usize = 16;
const MAX_REFUSAL_LENGTH: usize = 512;
/// With more resources than this, their digests are sent: far shorter than their names, and where something has changed
/// the names in question are asked for.
const DIGESTS_ABOVE: usize = 8;

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
    /// What is [asked for](Subscriber::wish).
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
    /// More is to come before all is there of what was asked for until now.
    pub more: bool,
    /// From a controller of ours: what was asked for and is not there, it tells of when it is.
    pub ours: bool,
}

/// A change of what is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wish {
    /// Resources to ask for, by any of their names. Asking again has the answer repeated.
    pub ask: BTreeSet<Str>,
    /// What is no longer asked for.
    pub release: BTreeSet<Str>,
    /// Resources that the caller has dropped.
    pub dropped: BTreeSet<Str>,
}

impl Wish {
    /// Whether nothing is to change.
    pub fn is_empty(&self) -> bool {
        self.ask.is_empty() && self.release.is_empty() && self.dropped.is_empty()
    }
}

/// One resource as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Its name.
    pub name: Str,
    /// The server's version of it, to be kept beside it over a restart ([`Subscriber::restore`]).
    pub version: String,
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
    fn apply(&mut self, delivery: &Delivery) -> Vec<Rejection>;

    /// A text equal to a resource's name, if the handler holds one: then that is kept of the name.
    fn held(&self, _name: &str) -> Option<Str> {
        None
    }
}

/// With a fast hash: names come from the controller, and each is looked up several times.
type Map<V> = std::collections::HashMap<Str, V, RandomState>;

/// The client's side of all its subscriptions; outlives its connections.
#[derive(Debug)]
pub struct Subscriber {
    node: Node,
    topics: Vec<Topic>,
    /// The last server that answered was one of ours.
    ours: bool,
    digests_above: usize,
}

/// The server does not understand how it was told what is there: connect again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this controller has to be told everything that is here")]
pub struct StartOver;

#[derive(Debug)]
struct Topic {
    subscription: Subscription,
    /// What is there in a version of ours: a hundred thousand of them, so an entry is small.
    has: Map<Version>,
    /// What is there otherwise.
    other: Map<Other>,
    demanded: HashSet<Str, RandomState>,
    answered: bool,
    /// On this stream, digests of so many buckets stand for the names; none do where there are no buckets.
    buckets: usize,
}

/// What is there of a resource, if not a version of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Other {
    /// A version of another controller's.
    Text(Box<str>),
    /// No version could be read.
    Refused,
}

/// What is there of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Had {
    Ours(Version),
    Other(Other),
}

impl Subscriber {
    /// A client that has nothing. Subscriptions are sent in this order.
    pub fn new(node: Node, subscriptions: impl IntoIterator<Item = Subscription>) -> Self {
        let topic = |subscription| Topic {
            subscription,
            has: Map::default(),
            other: Map::default(),
            demanded: HashSet::default(),
            answered: false,
            buckets: 0,
        };
        let topics = subscriptions.into_iter().map(topic).collect();
        Self { node, topics, ours: false, digests_above: DIGESTS_ABOVE }
    }

    /// The same, with digests for more resources than this.
    #[cfg(test)]
    pub(crate) fn digests_above(mut self, resources: usize) -> Self {
        self.digests_above = resources;
        self
    }

    /// Whether everything required has been received once, to its last response.
    pub fn is_ready(&self) -> bool {
        self.topics.iter().all(|topic| topic.answered || !topic.subscription.required)
    }

    /// The requests that open a stream: what is wanted and what is there already.
    pub fn connect(&mut self) -> Vec<DeltaDiscoveryRequest> {
        for topic in &mut self.topics {
            let names = topic.has.len() + topic.other.len();
            let digested = self.ours && names > self.digests_above && topic.subscription.mode == Mode::All;
            topic.buckets = if digested { digest::buckets_for(names) } else { 0 };
        }
        // Who calls is said once a stream.
        let node = |place: usize| (place == 0).then(|| self.node.clone());
        self.topics.iter().enumerate().map(|(place, topic)| topic.open(node(place))).collect()
    }

    /// Hands a response to the handler and returns the answer to it.
    ///
    /// # Errors
    /// The stream has to be opened anew.
    pub fn receive(
        &mut self,
        response: DeltaDiscoveryResponse,
        handler: &mut dyn Handler,
    ) -> Result<DeltaDiscoveryRequest, StartOver> {
        self.ours = digest::is_ours(&response.nonce);
        if !self.ours && self.topics.iter().any(|topic| topic.buckets > 0) {
            return Err(StartOver);
        }
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
            return Ok(answer);
        };
        if let Some(initial_resource_versions) = topic.asked(&response) {
            return Ok(DeltaDiscoveryRequest { initial_resource_versions, ..answer });
        }
        let last = !digest::has_more(&response.nonce);
        let rejections = topic.receive(response, self.ours, handler);
        // A refused response is an answer too: what was good in it is in force.
        topic.answered |= last;
        let error_detail =
            (!rejections.is_empty()).then(|| Status { code: 0, message: describe(&rejections) });
        Ok(DeltaDiscoveryRequest { error_detail, ..answer })
    }

    /// Asks for resources, and lets go of others. Our controller answers that with the removal of what nothing asks
    /// for any more; another's has to be told of everything by its own name.
    pub fn wish(&mut self, type_url: &str, wish: Wish) -> Option<DeltaDiscoveryRequest> {
        let topic = self.topic(type_url)?;
        let Wish { ask, release, dropped } = wish;
        for name in release.iter().chain(&dropped) {
            topic.demanded.remove(name);
        }
        for name in &dropped {
            topic.has.remove(name);
            topic.other.remove(name);
        }
        topic.demanded.extend(ask.iter().cloned());
        let names = |names: BTreeSet<Str>| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let unsubscribe = names(&release | &dropped);
        (!ask.is_empty() || !unsubscribe.is_empty()).then(|| DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: names(ask),
            resource_names_unsubscribe: unsubscribe,
            ..Default::default()
        })
    }

    /// Takes up a resource that was there before a restart, in this version: the caller has it in force again.
    pub fn restore(&mut self, type_url: &str, name: &Str, version: &str) {
        if let Some(topic) = self.topic(type_url) {
            topic.set(name.clone(), Had::from(version));
        }
    }

    /// The same for one that was gone before the restart.
    pub fn restore_removal(&mut self, type_url: &str, name: &str) {
        if let Some(topic) = self.topic(type_url) {
            topic.has.remove(name);
            topic.other.remove(name);
        }
    }

    fn topic(&mut self, type_url: &str) -> Option<&mut Topic> {
        self.topics.iter_mut().find(|topic| *topic.subscription.type_url == *type_url)
    }
}

impl Topic {
    fn open(&self, node: Option<Node>) -> DeltaDiscoveryRequest {
        let demand = self.subscription.mode == Mode::Demand;
        let asterisk = || if demand { vec![WILDCARD.to_owned()] } else { Vec::new() };
        // "Nothing" cannot be said but by asking for all and taking it back.
        let names = self.demanded.iter().map(ToString::to_string);
        DeltaDiscoveryRequest {
            node,
            type_url: self.subscription.type_url.to_string(),
            resource_names_subscribe: asterisk().into_iter().chain(names).collect(),
            resource_names_unsubscribe: asterisk(),
            initial_resource_versions: if self.buckets > 0 { self.digests() } else { self.versions() },
            ..Default::default()
        }
    }

    fn versions(&self) -> BTreeMap<String, String> {
        let ours = self.has.iter().map(|(name, version)| (name.to_string(), version.to_string()));
        ours.chain(self.other.iter().map(|(name, other)| (name.to_string(), other.to_string()))).collect()
    }

    fn digests(&self) -> BTreeMap<String, String> {
        let versions = self.versions();
        let all = Digests::of(versions.iter().map(|(name, version)| (name.as_str(), version)));
        all.in_buckets(self.buckets).to_versions()
    }

    /// What is there of the names that the server asks for, if that is what it does.
    fn asked(&self, response: &DeltaDiscoveryResponse) -> Option<BTreeMap<String, String>> {
        // A controller of ours that knows no other number of buckets than all takes these for resources that are gone, and
        // sends everything beside that.
        let asks = self.buckets > 0 && response.resources.is_empty();
        let buckets = Buckets::named(self.buckets, &response.removed_resources).filter(|_| asks);
        let buckets = buckets.filter(|buckets| !buckets.is_empty())?;
        let mut versions = self.versions();
        versions.retain(|name, _| buckets.hold(name));
        Some(versions)
    }

    fn get(&self, name: &str) -> Option<Had> {
        let ours = self.has.get(name).map(|version| Had::Ours(*version));
        ours.or_else(|| self.other.get(name).cloned().map(Had::Other))
    }

    fn set(&mut self, name: Str, had: Had) {
        match had {
            Had::Ours(version) => {
                // Nearly always there are none, and the name need not be hashed for that.
                if !self.other.is_empty() {
                    self.other.remove(&name);
                }
                self.has.insert(name, version);
            }
            Had::Other(other) => {
                self.has.remove(&name);
                self.other.insert(name, other);
            }
        }
    }

    fn receive(
        &mut self,
        response: DeltaDiscoveryResponse,
        ours: bool,
        handler: &mut dyn Handler,
    ) -> Vec<Rejection> {
        let more = digest::has_more(&response.nonce);
        let mut rejections = Vec::new();
        let mut versions = Vec::with_capacity(response.resources.len());
        let mut resources = Vec::with_capacity(response.resources.len());
        for resource in response.resources {
            let name = self.shared_name(&resource.name);
            match content(&resource, &response.type_url) {
                Ok(value) => {
                    let replaces = self.get(&name).is_some_and(|had| had != Had::Other(Other::Refused));
                    versions.push((name.clone(), Had::from(resource.version.as_str())));
                    resources.push(Received { name, version: resource.version, value, replaces });
                }
                Err(reason) => rejections.push(Rejection { name, reason }),
            }
        }
        let removed: Vec<Str> =
            response.removed_resources.iter().map(|name| self.shared_name(name)).collect();
        for name in &removed {
            self.has.remove(name);
            self.other.remove(name);
        }
        let type_url = self.subscription.type_url.clone();
        let revision = response.system_version_info;
        let delivery = Delivery { type_url, revision, resources, removed, more, ours };
        rejections.extend(handler.apply(&delivery));
        // What the handler holds, it may have read of this very delivery.
        for (name, _) in &mut versions {
            if let Some(held) = handler.held(name) {
                *name = held;
            }
        }
        self.record(versions, &rejections);
        rejections
    }

    /// What was taken over is there in its version; of what was refused, what was there before.
    fn record(&mut self, versions: Vec<(Str, Had)>, rejections: &[Rejection]) {
        let mut before = Vec::with_capacity(rejections.len());
        for rejection in rejections {
            let had = self.get(&rejection.name).unwrap_or(Had::Other(Other::Refused));
            before.push((rejection.name.clone(), had));
        }
        versions.into_iter().chain(before).for_each(|(name, had)| self.set(name, had));
    }

    /// The name as it is already held, so that equal names are one.
    fn shared_name(&self, name: &str) -> Str {
        let known = self.has.get_key_value(name).map(|(name, _)| name);
        let known = known.or_else(|| self.other.get_key_value(name).map(|(name, _)| name));
        known.map_or_else(|| Str::from(name), Str::clone)
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
            Ok(version) => Self::Ours(version),
            Err(_) if text == REFUSED => Self::Other(Other::Refused),
            Err(_) => Self::Other(Other::Text(text.into())),
        }
    }
}

impl std::fmt::Display for Other {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Refused => f.write_str(REFUSED),
        }
    }
}
