//! Connections that are carried as bytes, and the end of the waypoint.

use std::sync::Arc;
use std::time::Duration;

use model::address::Str;
use model::mesh::Update;
use model::route::stream::{SniMatch, TcpMatch, TlsMatch};
use model::route::{
    Destination, Destinations, Forward, ResourceName, Routing, RuleList, RuleSource, Scope, TcpRule, TlsRule,
    Weighted,
};
use model::service::Service;
use model::traffic::{self, HttpSettings, Subset, TcpSettings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::fixtures::{key, nobody};
use super::world::{HTTP, TCP, UNDECLARED, World, run};

/// An application that speaks first on one of its ports, and repeats what it hears on all of them until the end.
pub(super) async fn application(mut socket: TcpStream, port: u16) {
    if port == 8083 {
        socket.write_all(b"220 ready\r\n").await.unwrap();
    }
    let mut heard = Vec::new();
    socket.read_to_end(&mut heard).await.unwrap();
    socket.write_all(&heard).await.unwrap();
    let _ = socket.shutdown().await;
}

async fn repeated(world: &World, port: u16, greeting: &[u8]) {
    let mut stream = world.connect(port).await;
    let mut greeted = vec![0; greeting.len()];
    stream.read_exact(&mut greeted).await.unwrap();
    assert_eq!(greeted, greeting);
    stream.write_all(b"\x00\x01 and the rest").await.unwrap();
    // The end of one direction passes through, and the other goes on.
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"\x00\x01 and the rest");
}

#[test]
fn bytes_pass_whoever_speaks_first_and_are_counted() {
    run(async {
        let world = World::new(application).await;
        repeated(&world, TCP, b"").await;
        let labels = ["reporter=\"waypoint\"", "destination_workload=\"server\""];
        // The end is counted a moment after it was seen.
        while world.metric("istio_tcp_connections_closed_total{", &labels) != Some(1.0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(world.metric("istio_tcp_received_bytes_total{", &labels), Some(15.0));
        // A server that speaks first is not waited for until its client does.
        repeated(&world, UNDECLARED, b"220 ready\r\n").await;
    });
}

#[test]
fn a_connection_that_leads_nowhere_is_refused_with_the_cause() {
    run(async {
        let world = World::new(application).await;
        world.waypoint.take(vec![Update::RemoveAddress(world.pod.uid.clone())]);
        let refused = world.connect_as("client", &format!("{}:{TCP}", super::world::VIP)).await;
        assert_eq!(refused.err(), Some(503));
        let service = Service { waypoint: None, ..world.service.clone() };
        world.waypoint.take(vec![Update::Service(service)]);
        let refused = world.connect_as("client", &format!("{}:{TCP}", super::world::VIP)).await;
        assert_eq!(refused.err(), Some(403), "it is bound to this waypoint no more");
    });
}

#[test]
fn what_runs_ends_in_order_when_the_waypoint_drains() {
    run(async {
        let world = World::new(application).await;
        let mut bytes = world.connect(TCP).await;
        bytes.write_all(b"hello").await.unwrap();
        let mut idle = world.connect(HTTP).await;
        world.waypoint.ending.leave();
        // Not everybody has heard of it.
        repeated(&world, TCP, b"").await;
        world.waypoint.ending.call_last();
        // A connection that waits for its next request ends by itself.
        assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
        idle.shutdown().await.unwrap();
        drop(idle);
        assert!(world.waypoint.workers.iter().any(|worker| worker.tunnels() > 0), "bytes go on");
        bytes.shutdown().await.unwrap();
        let mut heard = Vec::new();
        bytes.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"hello");
        drop(bytes);
        crate::worker::drained(&world.waypoint).await;
    });
}

fn source(list: RuleList, index: u32) -> RuleSource {
    let resource = ResourceName { kind: "VirtualService".into(), namespace: "shop".into(), name: "r".into() };
    RuleSource { resource: Arc::new(resource), list, index }
}

/// So much of a hundred to the second version, the rest to the first.
fn split(second: u32) -> Destinations {
    let to = |name: &str, weight| Weighted {
        weight,
        destination: Destination { subset: Some(name.into()), ..Destination::of(key("reviews")) },
    };
    Destinations::Split([to("v1", 100 - second), to("v2", second)].into())
}

fn tcp_rule(index: u32, one: TcpMatch, destinations: Destinations) -> TcpRule {
    let source = source(RuleList::Tcp, index);
    TcpRule { source, matches: [one].into(), destinations, missing: Box::default() }
}

fn tls_rule(index: u32, name: &str, destinations: Destinations) -> TlsRule {
    let one = TlsMatch { sni_hosts: [SniMatch::new(name)].into(), tcp: TcpMatch::default() };
    let source = source(RuleList::Tls, index);
    TlsRule { source, matches: [one].into(), destinations, missing: Box::default() }
}

fn routing(tls: Vec<TlsRule>, tcp: Vec<TcpRule>) -> Routing {
    let version = |name: &str| Subset {
        name: name.into(),
        labels: [(Str::from("version"), Str::from(name))].into(),
        policy: None,
    };
    let destination =
        traffic::Destination { subsets: [version("v1"), version("v2")].into(), ..Default::default() };
    Routing {
        host: key("reviews"),
        http: Box::default(),
        tls: tls.into(),
        tcp: tcp.into(),
        default: Some(Box::new(Forward::to_service(key("reviews")))),
        destinations: [(key("reviews"), Arc::new(destination))].into(),
    }
}

/// Repeats what it hears, once all of it has come.
async fn parrot(mut socket: TcpStream, _: u16) {
    let mut heard = Vec::new();
    socket.read_to_end(&mut heard).await.unwrap();
    socket.write_all(&heard).await.unwrap();
    let _ = socket.shutdown().await;
}

/// Sends something to a port, and says which pod answered.
async fn answers(world: &World, port: u16, said: &[u8]) -> u8 {
    let mut stream = world.connect(port).await;
    stream.write_all(said).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, said, "every byte arrives, also those that were looked at");
    world.last_pod()
}

#[test]
fn rules_for_tcp_lead_to_subsets_by_who_wants_what() {
    run(async {
        let world = World::new(parrot).await;
        world.second(parrot).await;
        let labels = [(Str::from("app"), Str::from("batch"))].into();
        world.waypoint.labels.set(&"Kubernetes//Pod/shop/client".into(), Some(Arc::new(labels)));
        let scope = |port, label: Option<&str>, namespace: &str| Scope {
            port,
            source_labels: label.map(|label| (Str::from("app"), Str::from(label))).into_iter().collect(),
            source_namespace: Some(namespace.into()).filter(|name: &Str| !name.is_empty()),
        };
        let of = |scope, subnets: &[&str]| TcpMatch {
            scope,
            destination_subnets: subnets.iter().map(|subnet| subnet.parse().unwrap()).collect(),
        };
        let plain = || of(scope(None, None, ""), &[]);
        for (first, pod) in [
            (of(scope(Some(TCP), None, ""), &[]), 3),
            (of(scope(Some(HTTP), None, ""), &[]), 2),
            (of(scope(None, Some("batch"), ""), &[]), 3),
            (of(scope(None, Some("web"), ""), &[]), 2),
            (of(scope(None, None, "shop"), &[]), 3),
            (of(scope(None, None, "far"), &[]), 2),
            (of(scope(None, None, ""), &["10.96.0.0/16"]), 3),
            (of(scope(None, None, ""), &["10.97.0.0/16"]), 2),
        ] {
            let shown = format!("{first:?}");
            let rules = vec![tcp_rule(0, first, split(100)), tcp_rule(1, plain(), split(0))];
            world.waypoint.routings.set(routing(Vec::new(), rules));
            assert_eq!(answers(&world, TCP, b"\x00 first").await, pod, "{shown}");
        }
        // By weight: of 200, 20 % within what chance allows (five deviations of 5.7).
        world.waypoint.routings.set(routing(Vec::new(), vec![tcp_rule(0, plain(), split(20))]));
        let mut second = 0;
        for _ in 0..200 {
            second += usize::from(answers(&world, TCP, b"x").await == 3);
        }
        assert!((12..=68).contains(&second), "{second}");
    });
}

#[test]
fn rules_for_tls_lead_where_the_servers_name_says() {
    run(async {
        let world = World::new(parrot).await;
        world.second(parrot).await;
        let rules = vec![tls_rule(0, "two.example", split(100)), tls_rule(1, "*.example", split(0))];
        let rest = tcp_rule(0, TcpMatch::default(), Destinations::default());
        world.waypoint.routings.set(routing(rules, vec![rest]));
        let hello = |name| crate::hello::tests::of(name, true);
        for (name, pod) in [("Two.example", 3), ("one.example", 2), ("two.example", 3)] {
            assert_eq!(answers(&world, UNDECLARED, &hello(name)).await, pod, "{name}");
        }
        // Of what no rule for TLS takes, the rules for TCP decide: to nowhere here.
        for said in [hello("two.other"), b"\x00plain".to_vec()] {
            let mut stream = world.connect(UNDECLARED).await;
            stream.write_all(&said).await.unwrap();
            assert!(stream.read(&mut [0]).await.is_err());
        }
        let labels = ["response_flags=\"NC\"", "destination_service_name=\"reviews\""];
        while world.metric("istio_tcp_connections_failed_total{", &labels) != Some(2.0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn a_reference_that_does_not_resolve_is_the_cause_of_the_refusal() {
    run(async {
        let world = World::new(parrot).await;
        let rule = TcpRule {
            missing: ["DestinationRule subset shop/reviews v9".into()].into(),
            ..tcp_rule(0, TcpMatch::default(), Destinations::default())
        };
        world.waypoint.routings.set(routing(Vec::new(), vec![rule]));
        let refused = world.connect_as("client", &format!("{}:{TCP}", super::world::VIP)).await;
        assert_eq!(refused.err(), Some(503));
    });
}

/// What was connected while nobody spoke is not what goes on: it has left the counts before that asks for its place.
#[test]
fn who_speaks_late_has_one_place_only() {
    run(async {
        let world = World::new(parrot).await;
        let tcp = TcpSettings { max_connections: 1, ..TcpSettings::default() };
        world
            .waypoint
            .routings
            .set(super::traffic::routing(super::traffic::pool(HttpSettings::default(), tcp)));
        let mut stream = world.connect(UNDECLARED).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let hello = crate::hello::tests::of("one.example", true);
        stream.write_all(&hello).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, hello);
    });
}

/// A connection that is carried goes on as long as every policy lets it: also one that a rule sent to a subset.
#[test]
fn a_connection_is_judged_again_when_a_policy_changes() {
    run(async {
        let world = World::new(application).await;
        world.second(application).await;
        let rules = vec![tcp_rule(0, TcpMatch::default(), split(100))];
        world.waypoint.routings.set(routing(Vec::new(), rules));
        let mut stream = world.connect(TCP).await;
        stream.write_all(b"hello").await.unwrap();
        // One that is for others changes nothing.
        world.waypoint.take(vec![Update::Policy(nobody("far"))]);
        stream.write_all(b"more").await.unwrap();
        world.waypoint.take(vec![Update::Policy(nobody("shop"))]);
        assert!(stream.read(&mut [0; 16]).await.is_err(), "nothing comes back, and that is no end");
        let refused = world.connect_as("client", &format!("{}:{TCP}", super::world::VIP)).await;
        assert_eq!(refused.err(), Some(401));
    });
}
