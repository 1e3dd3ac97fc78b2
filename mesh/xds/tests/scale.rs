//! What a thousand clients cost the controller when nothing changes, and when a pod is replaced. One test in a
//! process of its own, as it reads the process's memory.
//!
//! Time is judged in optimised builds only: `cargo test --release -p xds --test scale -- --nocapture`.

use std::time::Duration;

use prost::Message;
use proto::discovery::{DeltaDiscoveryRequest, Node};
use proto::type_url::{ADDRESS, AUTHORIZATION};
use testkit::costs::{anonymous_memory, processor_time};
use xds::convert::resource::TYPES;
use xds::delta::session::Session;
use xds::delta::store::{Edit, Resource, Store};
use xds::delta::subscriber::{Delivery, Handler, Mode, Rejection, Subscriber, Subscription};

const CLIENTS: usize = 1_000;
const PODS: usize = 100_000;
const CHANGES: usize = 20;

struct Anything;

impl Handler for Anything {
    fn apply(&mut self, _: &Delivery) -> Vec<Rejection> {
        Vec::new()
    }
}

fn pod(number: usize, round: usize) -> Resource {
    let content = format!("{number} {round} {}", "x".repeat(280));
    Resource::new(format!("Kubernetes//Pod/default/pod-{number}"), content.into_bytes().into())
        .with_aliases([format!("/10.0.{}.{}", number / 256, number % 256).into()])
        .with_part_of([format!("default/svc-{}", number / 20).into()])
}

fn change(round: usize) -> Edit {
    let mut edit = Edit::new();
    let gone = format!("Kubernetes//Pod/default/pod-{round}");
    edit.put(ADDRESS, pod(PODS + round, round)).remove(ADDRESS, gone);
    edit
}

/// Exchanges messages until nobody has anything to say; returns the bytes sent to the client.
fn settle(store: &Store, session: &mut Session, client: &mut Subscriber) -> usize {
    let mut bytes = 0;
    while let Some(response) = session.next(store).expect("a log that reaches back") {
        bytes += response.encoded_len();
        let answer = client.receive(response, &mut Anything).expect("a server of ours");
        session.request(store, answer).expect("within limits");
    }
    bytes
}

fn ack(nonce: String) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: ADDRESS.into(), response_nonce: nonce, ..Default::default() }
}

#[test]
fn a_thousand_clients_cost_what_changes() {
    let mut store = Store::new(TYPES);
    let mut edit = Edit::new();
    edit.replace(ADDRESS, (0..PODS).map(|number| pod(number, 0)));
    let before = anonymous_memory();
    store.apply(edit);
    println!("{} B a resource beside its content", (anonymous_memory() - before) / PODS as u64);

    // One client has everything, and says so for a thousand.
    let all = |type_url: &str| Subscription { type_url: type_url.into(), mode: Mode::All, required: true };
    let mut client = Subscriber::new(Node::default(), [all(AUTHORIZATION), all(ADDRESS)]);
    let mut session = Session::new();
    for request in client.connect() {
        session.request(&store, request).expect("within limits");
    }
    let full = settle(&store, &mut session, &mut client);

    let opening = client.connect();
    let (before, start) = (anonymous_memory(), processor_time());
    let mut sessions = Vec::new();
    let mut sent = 0;
    for _ in 0..CLIENTS {
        let mut session = Session::new();
        for request in opening.clone() {
            session.request(&store, request).expect("within limits");
        }
        sent += settle(&store, &mut session, &mut client);
        sessions.push(session);
    }
    let memory = anonymous_memory().saturating_sub(before) / CLIENTS as u64;
    println!("a client that comes back: {:?}, {memory} B", (processor_time() - start) / CLIENTS as u32);
    println!("{sent} B sent to {CLIENTS} clients, {full} B are everything for one");
    assert!(sent < full / 100, "{sent} B");
    assert!(memory < 16 << 10, "{memory} B a client");

    let start = processor_time();
    for round in 0..CHANGES {
        store.apply(change(round));
        for session in &mut sessions {
            let response = session.next(&store).expect("a log that reaches back").expect("a change");
            assert_eq!((response.resources.len(), response.removed_resources.len()), (1, 1));
            session.request(&store, ack(response.nonce.clone())).expect("within limits");
            assert!(response.encode_to_vec().len() < 1000);
        }
    }
    let each = (processor_time() - start) / (CHANGES * CLIENTS) as u32;
    println!("a pod replaced costs {each:?} a client");
    if !cfg!(debug_assertions) {
        assert!(each < Duration::from_micros(20), "{each:?}");
    }
}
