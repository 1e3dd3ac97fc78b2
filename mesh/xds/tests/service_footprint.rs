//! What a service costs a proxy in memory once it is known: with its name and version, and the indexes that it is found by.
//! One test in a process of its own, as it reads the process's memory.
//!
//! `cargo test -p xds --test service_footprint -- --nocapture` prints the figure.

#[path = "footprint/taken_in.rs"]
mod taken_in;

use std::net::Ipv4Addr;

use bytes::Bytes;
use model::mesh::{Mesh, Update};
use proto::discovery::{DeltaDiscoveryResponse, Node};
use proto::type_url::ADDRESS;
use proto::workload::address::Type;
use proto::workload::gateway_address::Destination;
use proto::workload::{GatewayAddress, NamespacedHostname, NetworkAddress, Port, Service};
use xds::convert::Decoder;
use xds::delta::subscriber::{Mode, Subscriber, Subscription};
use xds::feed::Feed;

use testkit::costs::anonymous_memory;

const SERVICES: u32 = 20_000;
const NAMESPACES: u32 = 100;
const PER_RESPONSE: u32 = 1_000;

/// One as nearly all are: of one address and port, bound to the waypoint of its namespace.
fn service(number: u32) -> Service {
    let (name, namespace) = (format!("host-{number}"), format!("team-{}", number % NAMESPACES));
    let waypoint = NamespacedHostname {
        hostname: format!("waypoint.{namespace}.svc.cluster.local"),
        namespace: namespace.clone(),
    };
    Service {
        hostname: format!("{name}.{namespace}.svc.cluster.local"),
        name,
        namespace,
        addresses: vec![NetworkAddress {
            address: Bytes::copy_from_slice(&Ipv4Addr::from(0x0a60_0000 + number).octets()),
            ..Default::default()
        }],
        ports: vec![Port { service_port: 80, target_port: 8080, app_protocol: 1 }],
        waypoint: Some(GatewayAddress {
            destination: Some(Destination::Hostname(waypoint)),
            hbone_mtls_port: 15008,
        }),
        canonical: true,
        ..Default::default()
    }
}

fn response(from: u32) -> DeltaDiscoveryResponse {
    taken_in::response((from..from + PER_RESPONSE).map(|number| {
        let service = service(number);
        let name = format!("{}/{}", service.namespace, service.hostname);
        (name, format!("{number:016x}"), Type::Service(service))
    }))
}

#[test]
fn a_service_costs_little() {
    let subscription = Subscription { type_url: ADDRESS.into(), mode: Mode::All, required: true };
    let mut subscriber = Subscriber::new(Node::default(), [subscription]);
    let mut mesh = Mesh::new("".into(), None);
    // Once, so that what is allocated once and for all is not counted.
    drop(response(0));
    let before = anonymous_memory();
    let mut feed = Feed::new(Decoder::default(), |updates: Vec<Update>| {
        for update in updates {
            mesh.apply(update);
        }
    });
    for from in (0..SERVICES).step_by(PER_RESPONSE as usize) {
        let answer = subscriber.receive(response(from), &mut feed);
        assert_eq!(answer.expect("no reason to start over").error_detail, None);
    }
    // The decoder lives as long as the client.
    let memory = (anonymous_memory() - before) / u64::from(SERVICES);
    println!("{memory} B a service");
    assert!(memory <= 400, "{memory} B a service");
    drop(feed);
    assert_eq!(mesh.services().count(), SERVICES as usize);
}
