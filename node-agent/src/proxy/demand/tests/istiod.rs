//! An agent on demand with a controller that answers as istiod does: it tells only what a request asks for, remembers
//! whatever it has sent, pushes by the resources' own names alone, and takes nothing back.

use std::collections::{BTreeMap, BTreeSet};

use daemon::log::{Format, Log};
use daemon::metrics::Metrics;
use proto::Any;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource};
use xds::delta::subscriber::{Mode, Subscriber, Subscription};
use xds::feed::Feed;

use super::*;
use crate::proxy::Agent;
use crate::proxy::journal::Journal;
use crate::proxy::restore::Recorded;

type Sink = Box<dyn FnMut(Vec<Update>) + Send>;

/// What istiod has, and what it has subscribed its one client to.
#[derive(Default)]
struct Istiod {
    addresses: BTreeMap<String, Type>,
    subscribed: BTreeSet<String>,
    nonce: u32,
}

impl Istiod {
    fn put(&mut self, (name, address): (String, Type)) {
        self.addresses.insert(name, address);
    }

    /// What is found by a key: a workload by its name, what has the address, or a service with all its endpoints.
    fn find(&self, key: &str) -> Vec<String> {
        let has = |ip: &[u8]| {
            <[u8; 4]>::try_from(ip).is_ok_and(|v4| format!("/{}", std::net::Ipv4Addr::from(v4)) == key)
        };
        let workload = self.addresses.iter().find(|(name, address)| match address {
            Type::Workload(workload) => *name == key || workload.addresses.iter().any(|ip| has(ip)),
            Type::Service(_) => false,
        });
        if let Some((name, _)) = workload {
            return vec![name.clone()];
        }
        let service = self.addresses.iter().find(|(name, address)| match address {
            Type::Service(service) => *name == key || service.addresses.iter().any(|vip| has(&vip.address)),
            Type::Workload(_) => false,
        });
        let Some((service, _)) = service else { return Vec::new() };
        let endpoints = self.addresses.iter().filter(|(_, address)| match address {
            Type::Workload(workload) => workload.services.contains_key(service),
            Type::Service(_) => false,
        });
        std::iter::once(service).chain(endpoints.map(|(name, _)| name)).cloned().collect()
    }

    fn answer(&mut self, request: &DeltaDiscoveryRequest) -> Option<DeltaDiscoveryResponse> {
        let named =
            |names: &[String]| -> Vec<String> { names.iter().filter(|name| *name != "*").cloned().collect() };
        let asked = named(&request.resource_names_subscribe);
        self.subscribed.extend(asked.iter().cloned());
        for name in named(&request.resource_names_unsubscribe) {
            self.subscribed.remove(&name);
        }
        let local = self.addresses.iter().filter_map(|(name, address)| match address {
            Type::Workload(workload) if workload.node == "here" => Some(name.clone()),
            _ => None,
        });
        let local: Vec<String> = local.filter(|name| !self.subscribed.contains(name)).collect();
        let (mut found, mut missing) = (BTreeSet::from_iter(local), Vec::new());
        for key in asked {
            match self.find(&key) {
                none if none.is_empty() => missing.push(key),
                some => found.extend(some),
            }
        }
        self.send(&found, missing)
    }

    /// Changed or gone resources are pushed to who is subscribed to them, or to a service of theirs.
    fn push(&mut self, names: &[&str]) -> Option<DeltaDiscoveryResponse> {
        let wanted = |name: &&&str| {
            let of_service = match self.addresses.get(**name) {
                Some(Type::Workload(one)) => one.services.keys().any(|key| self.subscribed.contains(key)),
                _ => false,
            };
            of_service || self.subscribed.contains(**name)
        };
        let names: Vec<String> = names.iter().filter(wanted).map(ToString::to_string).collect();
        let (there, gone): (BTreeSet<_>, BTreeSet<_>) =
            names.into_iter().partition(|name| self.addresses.contains_key(name));
        self.send(&there, gone.into_iter().collect())
    }

    fn send(&mut self, found: &BTreeSet<String>, removed: Vec<String>) -> Option<DeltaDiscoveryResponse> {
        if found.is_empty() && removed.is_empty() {
            return None;
        }
        self.subscribed.extend(found.iter().cloned());
        self.nonce += 1;
        let resource = |name: &String| {
            let address = wire::Address { r#type: self.addresses.get(name).cloned() };
            let resource = Some(Any { type_url: ADDRESS.to_owned(), value: address.encode_to_vec().into() });
            Resource { name: name.clone(), version: "v".to_owned(), resource, ..Resource::default() }
        };
        Some(DeltaDiscoveryResponse {
            type_url: ADDRESS.to_owned(),
            resources: found.iter().map(resource).collect(),
            removed_resources: removed,
            nonce: format!("istiod-{}", self.nonce),
            ..DeltaDiscoveryResponse::default()
        })
    }
}

/// An agent without sockets, and its controller.
struct Pair {
    agent: Arc<Agent>,
    subscriber: Subscriber,
    handler: Recorded<Feed<Sink>>,
    istiod: Istiod,
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let args = ["--node-name", "here", "--xds-on-demand", "true"].map(str::to_owned);
        let settings = crate::config::read(args, |_| None).unwrap();
        let log = Log::start("off", Format::Plain).unwrap();
        let (agent, _) = crate::proxy::app::agent(&settings, log, &Metrics::default()).unwrap();
        let subscription = Subscription { type_url: ADDRESS.into(), mode: Mode::Demand, required: false };
        let taking = agent.clone();
        let sink: Sink = Box::new(move |updates| taking.take(updates));
        let feed = Feed::new(Decoder::default(), sink);
        let handler = Recorded { handler: feed, agent: agent.clone(), journal: Arc::new(Journal::off()) };
        let subscriber = Subscriber::new(Node::default(), [subscription]);
        Self { agent, subscriber, handler, istiod: Istiod::default(), now: Instant::now() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.agent.demand.0.as_ref().unwrap().table()
    }

    fn connect(&mut self) {
        self.istiod.subscribed.clear();
        for request in self.subscriber.connect() {
            let response = self.istiod.answer(&request);
            self.hear(response);
        }
    }

    fn hear(&mut self, response: Option<DeltaDiscoveryResponse>) {
        let Some(response) = response else { return };
        let acknowledgement = self.subscriber.receive(response, &mut self.handler).unwrap();
        assert_eq!(acknowledgement.error_detail, None);
        let response = self.istiod.answer(&acknowledgement);
        self.hear(response);
    }

    /// Tells istiod what the table wants, and takes its answer.
    fn tell(&mut self) {
        let wish = self.table().take_wish();
        if let Some(request) = self.subscriber.wish(ADDRESS, wish) {
            let response = self.istiod.answer(&request);
            self.hear(response);
        }
    }

    /// Whether a pod would be let through to an address, or told that nothing is there.
    fn look(&mut self, ip: &str) -> bool {
        let address = NetworkAddress::new("".into(), ip.parse().unwrap());
        let inner = self.agent.demand.0.as_ref().unwrap();
        let seen = inner.seen_at(&self.agent.state.read(), &address, "ns");
        self.table().look(&Key::At(address), seen, &"pod".into(), self.now, true)
    }

    /// Who is known, besides the node's own.
    fn known(&self) -> Vec<String> {
        let mesh = self.agent.state.read();
        let workloads = mesh.workloads().filter(|one| !mesh.is_local(one)).map(|one| one.uid.to_string());
        let services = mesh.services().map(|service| service.key.to_string());
        BTreeSet::from_iter(workloads.chain(services)).into_iter().collect()
    }

    fn sweep(&mut self) {
        let gone = {
            let mesh = self.agent.state.read();
            self.table().sweep(&mesh, &Uses::default(), self.now, IDLE)
        };
        self.agent.take(gone.into_iter().map(Update::RemoveAddress).collect());
        self.tell();
    }
}

#[test]
fn an_agent_on_demand_gets_on_with_istiod() {
    let mut pair = Pair::new();
    for address in [
        pod("local", 1, "here", &[]),
        service("s.x", 1),
        pod("one", 2, "there", &["s.x"]),
        pod("stranger", 9, "there", &[]),
    ] {
        pair.istiod.put(address);
    }
    pair.connect();
    assert_eq!(pair.known(), Vec::<String>::new());
    assert!(pair.agent.state.read().workload("local").is_some(), "the node's own come unasked");

    // A service comes with its endpoints, and so do those that it has later.
    assert!(!pair.look("10.96.0.1"));
    pair.tell();
    assert!(pair.look("10.96.0.1"));
    pair.istiod.put(pod("two", 3, "there", &["s.x"]));
    pair.istiod.put(pod("stranger", 8, "there", &[]));
    let pushed = pair.istiod.push(&["two", "stranger"]);
    pair.hear(pushed);
    assert_eq!(pair.known(), ["ns/s.x", "one", "two"]);

    // Nothing has this address. When something has, istiod does not say so: it is asked again.
    assert!(!pair.look("10.0.0.7"));
    pair.tell();
    assert!(pair.look("10.0.0.7"));
    pair.istiod.put(pod("late", 7, "there", &[]));
    let pushed = pair.istiod.push(&["late"]);
    assert_eq!(pushed, None);
    pair.now += Duration::from_secs(3);
    assert!(!pair.look("10.0.0.7"));
    pair.tell();
    assert!(pair.look("10.0.0.7"));
    assert_eq!(pair.known(), ["late", "ns/s.x", "one", "two"]);

    // Another pod has the address of one that went.
    pair.istiod.addresses.remove("late");
    let pushed = pair.istiod.push(&["late"]);
    pair.hear(pushed);
    pair.istiod.put(pod("later", 7, "there", &[]));
    assert!(!pair.look("10.0.0.7"), "what is there now has to be asked");
    pair.tell();
    assert!(pair.look("10.0.0.7"));
    assert_eq!(pair.known(), ["later", "ns/s.x", "one", "two"]);

    // After a break it asks for what it wants, and is told what changed meanwhile.
    pair.istiod.addresses.remove("one");
    pair.istiod.put(pod("three", 4, "there", &["s.x"]));
    pair.connect();
    assert!(pair.look("10.96.0.1") && pair.look("10.0.0.7"));
    assert!(pair.known().contains(&"three".to_owned()), "{:?}", pair.known());

    // What is let go of, istiod no longer pushes, though it had subscribed us to each of them by itself.
    pair.now += IDLE / 2;
    assert!(pair.look("10.0.0.7"));
    pair.now += IDLE / 2 + Duration::from_secs(1);
    pair.sweep();
    assert_eq!(pair.known(), ["later"]);
    let left: Vec<&String> = pair.istiod.subscribed.iter().collect();
    assert_eq!(left, ["/10.0.0.7", "later", "local"]);
    let pushed = pair.istiod.push(&["two", "three", "ns/s.x"]);
    assert_eq!(pushed, None);
}
