//! Server and client against each other, without a network: tables for each rule of the protocol, and random
//! histories after which both must agree.

mod convergence;
mod protocol;

use std::collections::BTreeMap;

use bytes::Bytes;
use model::address::Str;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};

use super::session::{Event, Fit, Session};
use super::store::{Edit, Resource, Store};
use super::subscriber::{Delivery, Handler, Mode, Rejection, Subscriber, Subscription, Wish};

/// The types of these tests; the first is named by the second.
const POLICY: &str = "type.googleapis.com/test.Policy";
const ADDRESS: &str = "type.googleapis.com/test.Address";
const TYPES: [&str; 2] = [POLICY, ADDRESS];

/// A handler that remembers, and refuses contents that begin with "bad".
#[derive(Debug, Default)]
struct Memory {
    held: BTreeMap<(String, String), Bytes>,
    /// Stand-ins for what was refused without an earlier version.
    standing_in: BTreeMap<(String, String), Bytes>,
    /// What came that was there already.
    repeated: Vec<String>,
    deliveries: Vec<Delivery>,
}

impl Handler for Memory {
    fn apply(&mut self, delivery: &Delivery) -> Vec<Rejection> {
        self.deliveries.push(delivery.clone());
        let key = |name: &Str| (delivery.type_url.to_string(), name.to_string());
        let mut rejections = Vec::new();
        for name in &delivery.removed {
            self.held.remove(&key(name));
            self.standing_in.remove(&key(name));
        }
        for resource in &delivery.resources {
            let key = key(&resource.name);
            assert_eq!(resource.replaces, self.held.contains_key(&key), "{key:?}");
            if resource.value.starts_with(b"bad") {
                rejections.push(Rejection { name: resource.name.clone(), reason: "it is bad".into() });
                if !resource.replaces {
                    self.standing_in.insert(key, resource.value.clone());
                }
                continue;
            }
            self.standing_in.remove(&key);
            if self.held.insert(key, resource.value.clone()).is_some_and(|old| old == resource.value) {
                self.repeated.push(resource.name.to_string());
            }
        }
        rejections
    }
}

fn all(type_url: &str) -> Subscription {
    Subscription { type_url: type_url.into(), mode: Mode::All, required: true }
}

fn on_demand(type_url: &str) -> Subscription {
    Subscription { type_url: type_url.into(), mode: Mode::Demand, required: false }
}

fn ask(name: &str) -> Wish {
    Wish { ask: [name.into()].into(), ..Wish::default() }
}

fn release(name: &str) -> Wish {
    Wish { release: [name.into()].into(), ..Wish::default() }
}

fn resource(name: &str, content: &str) -> Resource {
    Resource::new(name, Bytes::copy_from_slice(content.as_bytes()))
}

fn put(store: &mut Store, type_url: &str, name: &str, content: &str) {
    let mut edit = Edit::new();
    edit.put(type_url, resource(name, content));
    store.apply(edit);
}

fn remove(store: &mut Store, type_url: &str, name: &str) {
    let mut edit = Edit::new();
    edit.remove(type_url, name);
    store.apply(edit);
}

/// A client, its connection and the server's session for it.
struct Link {
    subscriber: Subscriber,
    memory: Memory,
    session: Session,
    /// What the server said and the client has not read.
    downstream: Vec<DeltaDiscoveryResponse>,
    /// What the client said and the server has not read.
    upstream: Vec<DeltaDiscoveryRequest>,
    events: Vec<Event>,
    response_bytes: usize,
    fit: Option<Fit>,
}

impl Link {
    fn new(subscriptions: impl IntoIterator<Item = Subscription>) -> Self {
        Self::with_response_bytes(1 << 20, subscriptions)
    }

    fn with_response_bytes(
        response_bytes: usize,
        subscriptions: impl IntoIterator<Item = Subscription>,
    ) -> Self {
        let subscriber = Subscriber::new(Node::default(), subscriptions);
        let mut link = Self {
            subscriber,
            memory: Memory::default(),
            session: Session::new(),
            downstream: Vec::new(),
            upstream: Vec::new(),
            events: Vec::new(),
            response_bytes,
            fit: None,
        };
        link.reconnect();
        link
    }

    /// Loses everything on its way and starts a new stream.
    fn reconnect(&mut self) {
        self.session = Session::with_response_bytes(self.response_bytes).fitted(self.fit.clone());
        self.downstream.clear();
        self.upstream = self.subscriber.connect();
    }

    /// The server reads one request.
    fn server_reads(&mut self, store: &Store) -> bool {
        if self.upstream.is_empty() {
            return false;
        }
        let request = self.upstream.remove(0);
        self.events.extend(self.session.request(store, request).expect("a request within limits"));
        true
    }

    /// The server writes one response.
    fn server_writes(&mut self, store: &Store) -> bool {
        let response = self.session.next(store).expect("a log that reaches back");
        self.downstream.extend(response.clone());
        response.is_some()
    }

    /// The client reads one response and answers.
    fn client_reads(&mut self) -> bool {
        if self.downstream.is_empty() {
            return false;
        }
        let response = self.downstream.remove(0);
        let answer = self.subscriber.receive(response, &mut self.memory);
        self.upstream.push(answer.expect("a server of ours"));
        true
    }

    /// Until nobody has anything to say.
    fn settle(&mut self, store: &Store) {
        while self.server_reads(store) || self.server_writes(store) || self.client_reads() {}
    }

    fn demand(&mut self, name: &str) {
        self.upstream.extend(self.subscriber.wish(ADDRESS, ask(name)));
    }

    /// What the client holds of a type.
    fn held(&self, type_url: &str) -> Vec<(&str, &str)> {
        let of_type = self.memory.held.iter().filter(|((of, _), _)| of == type_url);
        of_type.map(|((_, name), value)| (name.as_str(), std::str::from_utf8(value).unwrap())).collect()
    }

    /// The names in each delivery since the last look: `+` for sent, `-` for removed.
    fn log(&mut self) -> Vec<String> {
        let describe = |delivery: Delivery| {
            let sent = delivery.resources.iter().map(|resource| format!("+{}", resource.name));
            let removed = delivery.removed.iter().map(|name| format!("-{name}"));
            sent.chain(removed).collect::<Vec<_>>().join(" ")
        };
        self.memory.deliveries.drain(..).map(describe).collect()
    }
}
