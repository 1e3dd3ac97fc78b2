//! Questions and answers.

use std::collections::BTreeMap;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use serde_json::json;

use super::{Zone, serve_udp};
use crate::local::manifests::ObjectName;

fn zone() -> Zone {
    let name = |name: &str| ObjectName { namespace: "shop".into(), name: name.into() };
    let service = |spec: serde_json::Value| {
        serde_json::from_value(json!({"apiVersion": "v1", "kind": "Service", "spec": spec})).expect("service")
    };
    let services = BTreeMap::from([
        (
            name("reviews"),
            service(json!({"clusterIPs": ["10.96.1.1"], "ports": [{"name": "http", "port": 9080}]})),
        ),
        (name("both"), service(json!({"clusterIPs": ["10.96.1.2", "fd00:10:96::2"]}))),
        (name("db"), service(json!({"clusterIPs": ["None"]}))),
        (name("empty"), service(json!({"clusterIPs": ["None"]}))),
        (
            name("alias"),
            service(json!({"type": "ExternalName", "externalName": "reviews.shop.svc.cluster.local"})),
        ),
        (name("away"), service(json!({"type": "ExternalName", "externalName": "example.com"}))),
    ]);
    let slice = serde_json::from_value(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "ports": [{"name": "pg", "port": 5432, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.244.1.2"], "hostname": "db-0", "conditions": {"ready": true}},
            {"addresses": ["10.244.2.2"], "conditions": {"ready": true}},
            {"addresses": ["10.244.2.3"], "conditions": {"ready": false}},
        ],
    }))
    .expect("slice");
    Zone::new(&services, &BTreeMap::from([(name("db"), vec![slice])]))
}

fn ask(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(Name::from_ascii(name).expect("name"), kind));
    let answer = zone().answer(&query);
    assert_eq!(answer.metadata.id, 7);
    let data = answer.answers.iter().map(|record| record.data.to_string()).collect();
    (answer.metadata.response_code, data)
}

#[test]
fn names_of_the_cluster_are_answered_and_others_do_not_exist() {
    use ResponseCode::{NXDomain, NoError};
    for (name, kind, code, data) in [
        ("reviews.shop.svc.cluster.local.", RecordType::A, NoError, vec!["10.96.1.1"]),
        ("Reviews.SHOP.svc.cluster.local.", RecordType::A, NoError, vec!["10.96.1.1"]),
        // Single stack: the name exists, this family does not.
        ("reviews.shop.svc.cluster.local.", RecordType::AAAA, NoError, vec![]),
        ("both.shop.svc.cluster.local.", RecordType::AAAA, NoError, vec!["fd00:10:96::2"]),
        ("db.shop.svc.cluster.local.", RecordType::A, NoError, vec!["10.244.1.2", "10.244.2.2"]),
        ("db-0.db.shop.svc.cluster.local.", RecordType::A, NoError, vec!["10.244.1.2"]),
        ("empty.shop.svc.cluster.local.", RecordType::A, NoError, vec![]),
        ("10-244-1-9.shop.pod.cluster.local.", RecordType::A, NoError, vec!["10.244.1.9"]),
        (
            "_http._tcp.reviews.shop.svc.cluster.local.",
            RecordType::SRV,
            NoError,
            vec!["0 100 9080 reviews.shop.svc.cluster.local."],
        ),
        ("1.1.96.10.in-addr.arpa.", RecordType::PTR, NoError, vec!["reviews.shop.svc.cluster.local."]),
        (
            "alias.shop.svc.cluster.local.",
            RecordType::A,
            NoError,
            vec!["reviews.shop.svc.cluster.local.", "10.96.1.1"],
        ),
        ("away.shop.svc.cluster.local.", RecordType::A, NXDomain, vec!["example.com."]),
        ("nothing.shop.svc.cluster.local.", RecordType::A, NXDomain, vec![]),
        ("example.com.", RecordType::A, NXDomain, vec![]),
    ] {
        let (found_code, found) = ask(name, kind);
        assert_eq!(
            (found_code, found),
            (code, data.into_iter().map(str::to_owned).collect()),
            "{name} {kind}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_stays_does_not_take_the_thread() {
    use std::future::{Future as _, poll_fn};
    use std::pin::pin;
    use std::sync::Arc;
    use std::time::Duration;

    // No datagram will ever come from a socket of TCP that is not connected: every receive fails at once.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_nonblocking(true).expect("an option");
    let socket = tokio::net::UdpSocket::from_std(socket.into()).expect("a socket");
    socket.readable().await.expect("it is, for its error");
    let (_tell, zone) = tokio::sync::watch::channel(Arc::new(zone()));
    let mut serving = pin!(serve_udp(socket, zone));
    let mut polls = 0;
    let served = poll_fn(|context| {
        polls += 1;
        assert!(polls < 100, "it spins");
        serving.as_mut().poll(context)
    });
    assert!(tokio::time::timeout(Duration::from_secs(1), served).await.is_err());
    assert!(polls > 10, "it goes on trying: {polls}");
}
