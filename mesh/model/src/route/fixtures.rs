//! What the tests of routing build of: requests, rules and hosts.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::action::{Action, Destination, Destinations, Forward, Weighted};
use super::template::Template;
use super::{HeaderChanges, HttpMatch, HttpRule, Operations, ResourceName, Routing, RuleList, RuleSource};
use crate::address::{NamespacedHostname, Str};
use crate::fixtures::socket;
use crate::identity::Identity;
use crate::request::{Client, Forwarded, Request};

/// A request that owns what it is made of.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    method: Method,
    scheme: &'static str,
    authority: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    identity: Option<Identity>,
    labels: Option<BTreeMap<Str, Str>>,
    port: u16,
}

/// A `GET` for a path, with its query, to `reviews:9080`, of `spiffe://cluster.local/ns/shop/sa/productpage`.
pub(super) fn get(target: &str) -> Sent {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    Sent {
        method: Method::GET,
        scheme: "http",
        authority: "reviews:9080".into(),
        path: path.into(),
        query: query.map(Into::into),
        headers: HeaderMap::new(),
        identity: Some(Identity::new("cluster.local", "shop", "productpage")),
        labels: Some([("app".into(), "productpage".into())].into()),
        port: 9080,
    }
}

impl Sent {
    pub(super) fn method(self, method: &str) -> Self {
        Self { method: method.parse().unwrap(), ..self }
    }

    pub(super) fn scheme(self, scheme: &'static str) -> Self {
        Self { scheme, ..self }
    }

    pub(super) fn authority(self, authority: &str) -> Self {
        Self { authority: authority.into(), ..self }
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    pub(super) fn anonymous(self) -> Self {
        Self { identity: None, labels: None, ..self }
    }

    pub(super) fn port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    pub(super) fn request(&self) -> Request<'_> {
        let mut destination = socket("10.96.0.1:0");
        destination.set_port(self.port);
        Request {
            method: &self.method,
            scheme: self.scheme,
            authority: &self.authority,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            client: Client {
                address: socket("10.244.1.7:40000"),
                identity: self.identity.as_ref(),
                labels: self.labels.as_ref(),
            },
            destination,
            forwarded: Forwarded::default(),
        }
    }
}

pub(super) fn host(name: &str) -> NamespacedHostname {
    NamespacedHostname::new("default", name)
}

/// A subset of `reviews`.
pub(super) fn reviews(subset: &str) -> Destination {
    Destination { subset: Some(subset.into()), ..Destination::of(host("reviews")) }
}

pub(super) fn source(index: u32) -> RuleSource {
    let resource =
        ResourceName { kind: "VirtualService".into(), namespace: "default".into(), name: "reviews".into() };
    RuleSource { resource: Arc::new(resource), list: RuleList::Http, index }
}

/// A rule that sends on to one subset of `reviews` what fulfils one of the conditions.
pub(super) fn rule(index: u32, matches: impl Into<Box<[HttpMatch]>>, subset: &str) -> HttpRule {
    let destinations = Destinations::One(reviews(subset));
    acting(index, matches, Action::Forward(Box::new(Forward { destinations, ..Forward::default() })))
}

pub(super) fn acting(index: u32, matches: impl Into<Box<[HttpMatch]>>, action: Action) -> HttpRule {
    HttpRule {
        source: source(index),
        name: None,
        matches: matches.into(),
        action,
        headers: HeaderChanges::default(),
        fault: None,
        cors: None,
    }
}

/// The routing of the service `reviews` by rules.
pub(super) fn routing(http: impl Into<Box<[HttpRule]>>) -> Routing {
    Routing {
        host: host("reviews"),
        http: http.into(),
        tls: Box::default(),
        tcp: Box::default(),
        default: Some(Box::new(Forward::to_service(host("reviews")))),
        destinations: BTreeMap::new(),
    }
}

pub(super) fn split(weights: &[(u32, &str)]) -> Destinations {
    let one = |(weight, subset): &(u32, &str)| Weighted { weight: *weight, destination: reviews(subset) };
    Destinations::Split(weights.iter().map(one).collect())
}

/// For what draws nothing.
pub(super) fn no_draw(bound: u32) -> u32 {
    panic!("a draw below {bound}, where there is nothing to draw")
}

/// Operations: names to remove by commas, and `name=value` to set and to add by commas.
pub(super) fn operations(remove: &str, set: &str, add: &str) -> Operations {
    let name = |text: &str| text.parse::<HeaderName>().unwrap();
    let pairs = |text: &str| {
        let pair = |part: &str| {
            let (key, value) = part.split_once('=').unwrap();
            (name(key), Template::parse(value).unwrap())
        };
        text.split(',').filter(|part| !part.is_empty()).map(pair).collect()
    };
    Operations {
        remove: remove.split(',').filter(|part| !part.is_empty()).map(name).collect(),
        set: pairs(set),
        add: pairs(add),
        authority: None,
    }
}
