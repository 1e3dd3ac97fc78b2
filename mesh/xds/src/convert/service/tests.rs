//! What is read of the wire and written to it, field by field, and what is refused.

use std::sync::Arc;

use super::*;
use model::address::NamespacedHostname;
use model::service::{AppProtocol, Port, Ports};
use model::workload::GatewayDestination;

fn name(namespace: &str, hostname: &str) -> NamespacedHostname {
    NamespacedHostname::new(namespace, hostname)
}

fn full() -> Service {
    use Scope::{Cluster, Network, Node, Region, Subzone, Zone};
    let rare = RareFields {
        name: Some("ratings".into()),
        cidr_vips: [("other".into(), "10.200.0.0/16".parse().unwrap())].into(),
        subject_alt_names: ["spiffe://cluster.local/ns/default/sa/reviews".into()].into(),
        load_balancing: LoadBalancing {
            preference: [Network, Region, Zone, Subzone, Node, Cluster].into(),
            mode: LoadBalancingMode::Failover,
            allow_unhealthy: true,
        },
    };
    Service {
        key: name("default", "reviews.default.svc.cluster.local"),
        vips: [NetworkAddress::new("".into(), [10, 96, 0, 7].into())].into(),
        ports: Ports([Port { service: 80, target: 0, protocol: AppProtocol::Http2 }].into()),
        waypoint: Some(Arc::new(gateway("waypoint.default.svc.cluster.local"))),
        ip_families: IpFamilies::Dual,
        canonical: true,
        visibility: Visibility::Namespace,
        rare: rare.into(),
    }
}

fn gateway(host: &str) -> GatewayAddress {
    GatewayAddress { destination: GatewayDestination::Hostname(name("default", host)), hbone_port: 15008 }
}

fn read_back(wire: &wire::Service) -> Result<Service, FieldError> {
    read(
        &mut Strings::default(),
        &mut Gateways::default(),
        &format!("{}/{}", wire.namespace, wire.hostname).into(),
        wire,
    )
}

#[test]
fn reads_what_it_writes() {
    let service = full();
    assert_eq!(read_back(&to_wire(&service)), Ok(service));
}

#[test]
fn a_short_name_is_kept_where_the_host_name_does_not_say_it() {
    for (short, kept) in [("reviews", None), ("ratings", Some("ratings")), ("", Some(""))] {
        let read = read_back(&wire::Service { name: short.into(), ..to_wire(&full()) }).unwrap();
        assert_eq!((read.name(), read.rare.name.as_deref()), (short, kept));
    }
}

#[test]
fn the_name_that_it_was_sent_under_is_kept_and_not_copied() {
    let sent_as = Str::from("default/reviews.default.svc.cluster.local");
    let read = read(&mut Strings::default(), &mut Gateways::default(), &sent_as, &to_wire(&full()));
    assert!(Arc::ptr_eq(read.unwrap().key.text(), &sent_as));
}

#[test]
fn services_share_their_waypoint() {
    let (strings, gateways) = (&mut Strings::default(), &mut Gateways::default());
    let mut read = |hostname: &str| {
        let wire = wire::Service { hostname: hostname.into(), ..to_wire(&full()) };
        read(strings, gateways, &format!("default/{hostname}").into(), &wire).unwrap().waypoint.unwrap()
    };
    assert!(Arc::ptr_eq(&read("a"), &read("b")));
}

#[test]
fn is_known_by_its_addresses() {
    let aliases = aliases(&full());
    assert_eq!(aliases, [Str::from("/10.96.0.7"), Str::from("other/10.200.0.0/16")]);
}

#[test]
fn refuses_what_it_does_not_understand_by_field() {
    type Spoil = fn(&mut wire::Service);
    let cases: [(&str, Spoil); 9] = [
        ("hostname", |wire| wire.hostname.clear()),
        ("ip_families", |wire| wire.ip_families = 9),
        ("addresses", |wire| wire.addresses[0].address = vec![1, 2, 3].into()),
        ("addresses", |wire| wire.addresses[1].length = Some(33)),
        ("ports.app_protocol", |wire| wire.ports[0].app_protocol = 17),
        ("ports.service_port", |wire| wire.ports[0].service_port = 70_000),
        ("waypoint.destination", |wire| wire.waypoint.as_mut().unwrap().destination = None),
        ("load_balancing.mode", |wire| wire.load_balancing.as_mut().unwrap().mode = 7),
        ("load_balancing.routing_preference", |wire| {
            wire.load_balancing.as_mut().unwrap().routing_preference.push(12);
        }),
    ];
    for (field, spoil) in cases {
        let mut wire = to_wire(&full());
        spoil(&mut wire);
        assert_eq!(read_back(&wire).map_err(|error| error.field.into_owned()), Err(field.to_owned()));
    }
}

#[test]
fn a_name_other_than_its_own_is_refused() {
    let wire = to_wire(&full());
    let other = "default/other.default.svc.cluster.local";
    let error = read(&mut Strings::default(), &mut Gateways::default(), &other.into(), &wire).unwrap_err();
    assert!(matches!(error.reason, Reason::OtherName(_)));
}

#[test]
fn unknown_visibility_is_public() {
    let wire = wire::Service { visibility: 5, ..to_wire(&full()) };
    assert_eq!(read_back(&wire).map(|service| service.visibility), Ok(Visibility::Public));
}

#[test]
fn of_weighted_waypoints_the_heaviest_counts() {
    let weighted = |host: &str, weight| wire::WeightedWaypoint {
        destination: Some(fields::gateway_to_wire(&gateway(host))),
        weight,
    };
    let cases = [
        (vec![weighted("a", 1), weighted("b", 9)], "b"),
        (vec![weighted("a", 5), weighted("b", 5)], "a"),
        (vec![weighted("a", 0)], "waypoint.default.svc.cluster.local"),
    ];
    for (weighted_waypoints, expected) in cases {
        let wire = wire::Service { weighted_waypoints, ..to_wire(&full()) };
        let waypoint = read_back(&wire).unwrap().waypoint.unwrap();
        assert_eq!(waypoint.destination, GatewayDestination::Hostname(name("default", expected)));
    }
}

#[test]
fn a_range_of_one_address_is_that_address() {
    let mut wire = to_wire(&full());
    wire.addresses[1].length = Some(32);
    let service = read_back(&wire).unwrap();
    assert_eq!(service.vips.len(), 2);
    assert!(service.rare.cidr_vips.is_empty());
}
