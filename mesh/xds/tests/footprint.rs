//! What a workload costs a proxy: memory once it is known, time to take it in, and bytes to say so when the proxy
//! comes back to the controller. One test in a process of its own, as it reads the process's memory.
//!
//! Time is judged in optimised builds only: `cargo test --release -p xds --test footprint -- --nocapture`.

#[path = "footprint/taken_in.rs"]
mod taken_in;

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use model::mesh::{Mesh, Update};
use prost::Message;
use proto::discovery::{DeltaDiscoveryResponse, Node};
use proto::type_url::ADDRESS;
use proto::workload::address::Type;
use proto::workload::{Locality, Port, PortList, Workload};
use xds::convert::Decoder;
use xds::delta::subscriber::{Mode, Subscriber, Subscription};
use xds::feed::Feed;

use testkit::costs::{anonymous_memory, processor_time};

const WORKLOADS: u32 = 100_000;
const PER_DEPLOYMENT: u32 = 50;
const PER_RESPONSE: u32 = 2_500;

fn workload(number: u32) -> Workload {
    let deployment = number / PER_DEPLOYMENT;
    let (app, namespace) = (format!("app-{deployment}"), format!("team-{}", deployment % 100));
    let name = format!("{app}-7d9c5b8f6c-{number:05x}");
    let ports = PortList { ports: vec![Port { service_port: 80, target_port: 8080, app_protocol: 1 }] };
    Workload {
        uid: format!("Kubernetes//Pod/{namespace}/{name}"),
        name,
        addresses: vec![Bytes::copy_from_slice(&Ipv4Addr::from(0x0a00_0000 + number).octets())],
        node: format!("node-{}", number % 1000),
        tunnel_protocol: 1,
        trust_domain: "cluster.local".into(),
        service_account: app.clone(),
        canonical_name: app.clone(),
        canonical_revision: "v1".into(),
        workload_name: app.clone(),
        services: [(format!("{namespace}/{app}.{namespace}.svc.cluster.local"), ports)].into(),
        locality: Some(Locality { region: "north".into(), zone: "north-a".into(), subzone: String::new() }),
        namespace,
        ..Default::default()
    }
}

fn response(from: u32) -> DeltaDiscoveryResponse {
    taken_in::response((from..from + PER_RESPONSE).map(|number| {
        let workload = workload(number);
        (workload.uid.clone(), format!("{number:016x}"), Type::Workload(workload))
    }))
}

#[test]
fn a_workload_costs_little() {
    let subscription = Subscription { type_url: ADDRESS.into(), mode: Mode::All, required: true };
    let mut subscriber = Subscriber::new(Node::default(), [subscription]);
    let mut mesh = Mesh::new("".into(), Some("node-1".into()));
    // Once, so that what is allocated once and for all is not counted.
    drop(response(0));
    let before = anonymous_memory();
    let mut spent = Duration::ZERO;
    let mut pushed = 0;
    {
        let mut feed = Feed::new(Decoder::default(), |updates: Vec<Update>| {
            for update in updates {
                mesh.apply(update);
            }
        });
        for from in (0..WORKLOADS).step_by(PER_RESPONSE as usize) {
            let response = response(from);
            pushed += response.encoded_len();
            let start = processor_time();
            let answer = subscriber.receive(response, &mut feed);
            spent += processor_time() - start;
            assert_eq!(answer.expect("no reason to start over").error_detail, None);
        }
        // The decoder lives as long as the client.
        let memory = (anonymous_memory() - before) / u64::from(WORKLOADS);
        let time = spent / WORKLOADS;
        println!("{memory} B and {time:?} a workload");
        // 370 with jemalloc, which the binaries use.
        assert!(memory <= 450, "{memory} B a workload");
        if !cfg!(debug_assertions) {
            assert!(time <= Duration::from_micros(6), "{time:?} a workload");
        }
    }
    assert_eq!(mesh.workloads().count(), WORKLOADS as usize);

    // Coming back, it says what it has in no more than half a percent of what it was sent.
    let said: usize = subscriber.connect().iter().map(Message::encoded_len).sum();
    println!("{said} B to say what is there, {pushed} B to send it");
    assert!(said * 200 <= pushed, "{said} of {pushed} B");
}
