//! Tables of where connections go.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Plan, Planned, expected, may_come_back, other_replica, plan};
use crate::address::{Few, OriginalDestination};
use crate::fixtures::{
    at, balanced, draws, edit, key, ports, service, socket, tunnelled, waypoint, workload,
};
use crate::mesh::{Mesh, Settings, Update};
use crate::service::{LoadBalancing, LoadBalancingMode, RareFields, Service, Visibility};
use crate::workload::{GatewayAddress, GatewayDestination, Health, TunnelProtocol, Workload};

/// What is in the mesh of most tests. Each address has its like in IPv6: `10.244.0.N` is `fd00:244::N`,
/// `10.96.0.N` is `fd00:96::N`.
fn resources() -> Vec<Update> {
    let gate = edit(tunnelled("gate", &["10.244.0.9", "fd00:244::9"], &["ns/gate"]), |profile| {
        profile.native_tunnel = true;
    });
    let guarded = edit(tunnelled("guarded", &["10.244.0.4", "fd00:244::4"], &["ns/guarded"]), |profile| {
        profile.waypoint = Some(waypoint("ns/gate"));
    });
    let plain = edit(tunnelled("plain", &["10.244.0.3", "fd00:244::3"], &["ns/plain"]), |profile| {
        profile.protocol = TunnelProtocol::Tcp;
    });
    let host = edit(tunnelled("host", &["192.168.0.5", "fd00:192::5"], &["ns/host"]), |profile| {
        profile.protocol = TunnelProtocol::Tcp;
        profile.host_network = true;
    });
    let passthrough = LoadBalancing { mode: LoadBalancingMode::Passthrough, ..LoadBalancing::default() };
    let service = |name: &str, number: u8| {
        service(name, &[&format!("10.96.0.{number}"), &format!("fd00:96::{number}")])
    };
    vec![
        settings(&["10.244.0.0/16", "fd00:244::/32"], &["10.96.0.0/16", "fd00:96::/32"]),
        Update::Workload(client()),
        Update::Workload(tunnelled("web", &["10.244.0.2", "fd00:244::2"], &["ns/web", "ns/headless"])),
        Update::Workload(plain),
        Update::Workload(host),
        Update::Workload(guarded),
        Update::Workload(gate),
        Update::Service(service("ns/web", 2)),
        Update::Service(Service { vips: Few::default(), ..service("ns/headless", 0) }),
        Update::Service(service("ns/plain", 3)),
        Update::Service(service("ns/host", 5)),
        Update::Service(Service { waypoint: Some(waypoint("ns/gate").into()), ..service("ns/guarded", 4) }),
        Update::Service(Service { ports: ports(&[(15008, 15018)]), ..service("ns/gate", 9) }),
        Update::Service(service("ns/nobody", 6)),
        Update::Service(balanced(service("ns/outside", 7), passthrough)),
    ]
}

fn settings(pods: &[&str], services: &[&str]) -> Update {
    let read = |ranges: &[&str]| ranges.iter().map(|range| range.parse().unwrap()).collect();
    let (pod_ranges, service_ranges) = (read(pods), read(services));
    Update::Settings(Settings { pod_ranges, service_ranges, ..Settings::default() })
}

fn client() -> Workload {
    tunnelled("client", &["10.244.0.1", "fd00:244::1"], &[])
}

fn mesh_of(resources: impl IntoIterator<Item = Update>) -> Mesh {
    let mut mesh = Mesh::new("".into(), None);
    for update in resources {
        mesh.apply(update);
    }
    mesh
}

fn planned(mesh: &Mesh, source: &Workload, destination: &str) -> Plan {
    plan(mesh, source, OriginalDestination::new(socket(destination)), &mut draws(0))
}

/// A plan in a line: how, where to, for what, by which workload, of which service.
fn told(plan: &Plan) -> String {
    let of = |service: &Option<Arc<Service>>| {
        service.as_ref().map(|service| format!(" of {}", service.key)).unwrap_or_default()
    };
    match plan {
        Plan::Tunnel(tunnel) => {
            let kind = if tunnel.waypoint { "waypoint" } else { "tunnel" };
            let (hop, authority) = (tunnel.next_hop, tunnel.authority);
            format!("{kind} {} at {hop} for {authority}{}", tunnel.workload.uid, of(&tunnel.service))
        }
        Plan::Plain(plain) => {
            let to = plain.workload.as_ref().map(|to| format!(" to {}", to.uid)).unwrap_or_default();
            format!("plain {}{to}{}", plain.next_hop, of(&plain.service))
        }
        Plan::Wait(address) => format!("wait for {}", address.ip),
        Plan::Refuse(refusal) => format!("refused: {refusal}"),
    }
}

fn goes(mesh: &Mesh, source: &Workload, destination: &str) -> String {
    told(&planned(mesh, source, destination))
}

/// The same row in IPv6.
fn sixth(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let (word, colon) = word.strip_suffix(':').map_or((word, ""), |word| (word, ":"));
        let ip = |ip: std::net::Ipv4Addr| {
            let [a, b, _, last] = ip.octets();
            let prefix = match (a, b) {
                (10, 244) => "fd00:244::",
                (10, 96) => "fd00:96::",
                (192, 168) => "fd00:192::",
                (127, _) => "::",
                _ => "2001:db8::",
            };
            format!("{prefix}{last}")
        };
        let sixth = match (word.parse(), word.parse()) {
            (Ok(SocketAddr::V4(address)), _) => format!("[{}]:{}", ip(*address.ip()), address.port()),
            (_, Ok(address)) => ip(address),
            _ => word.to_owned(),
        };
        words.push(sixth + colon);
    }
    words.join(" ")
}

#[test]
fn each_kind_of_destination_has_its_way() {
    let mesh = mesh_of(resources());
    let table = [
        // A service goes to an endpoint's port, by a tunnel or in plain as the endpoint is reached.
        ("10.96.0.2:80", "tunnel web at 10.244.0.2:15008 for 10.244.0.2:8080 of ns/web"),
        ("10.96.0.3:80", "plain 10.244.0.3:8080 to plain of ns/plain"),
        ("10.96.0.5:80", "plain 192.168.0.5:8080 to host of ns/host"),
        // A port or an endpoint that is not there is no reason to go in plain.
        ("10.96.0.2:81", "refused: no healthy upstream: no ready endpoint of ns/web serves port 81"),
        ("10.96.0.6:80", "refused: no healthy upstream: no ready endpoint of ns/nobody serves port 80"),
        // A pod's own address, also of a headless service.
        ("10.244.0.2:9999", "tunnel web at 10.244.0.2:15008 for 10.244.0.2:9999"),
        ("10.244.0.3:80", "plain 10.244.0.3:80 to plain"),
        // Through a waypoint, which is asked for what the client asked for.
        ("10.96.0.4:80", "waypoint gate at 10.244.0.9:15018 for 10.96.0.4:80 of ns/guarded"),
        ("10.244.0.4:8080", "waypoint gate at 10.244.0.9:15018 for 10.244.0.4:8080"),
        // What the waypoint judges, not the port, is up to it.
        ("10.96.0.4:81", "waypoint gate at 10.244.0.9:15018 for 10.96.0.4:81 of ns/guarded"),
        // To the waypoint itself.
        ("10.244.0.9:15021", "tunnel gate at 10.244.0.9:15008 for 10.244.0.9:15021"),
        // Outside the mesh.
        ("10.96.0.7:443", "plain 10.96.0.7:443 of ns/outside"),
        ("203.0.113.8:443", "plain 203.0.113.8:443"),
        ("192.168.0.5:80", "plain 192.168.0.5:80"),
        ("127.0.0.1:8080", "plain 127.0.0.1:8080"),
        // Inside, but nobody's (yet).
        ("10.244.7.7:80", "wait for 10.244.7.7"),
        ("10.96.0.77:80", "wait for 10.96.0.77"),
        // In a circle.
        (
            "127.0.0.1:15001",
            "refused: 127.0.0.1:15001 is a port of the proxy itself; connecting to it would go round in a circle",
        ),
    ];
    for (destination, expected) in table {
        assert_eq!(goes(&mesh, &client(), destination), expected, "to {destination}");
        let (destination, expected) = (sixth(destination), sixth(expected));
        assert_eq!(goes(&mesh, &client(), &destination), expected, "to {destination}");
    }
    assert_eq!(
        goes(&mesh, &client(), "[::ffff:10.96.0.2]:80"),
        "tunnel web at 10.244.0.2:15008 for 10.244.0.2:8080 of ns/web"
    );
    for port in [15001, 15006, 15008] {
        assert!(goes(&mesh, &client(), &format!("[::1]:{port}")).starts_with("refused: "), "{port}");
    }
}

#[test]
fn without_known_ranges_an_unknown_address_is_outside() {
    let mesh = mesh_of(resources().into_iter().chain([settings(&[], &[])]));
    assert_eq!(goes(&mesh, &client(), "10.244.7.7:80"), "plain 10.244.7.7:80");
    assert_eq!(goes(&mesh, &client(), "10.96.7.7:80"), "plain 10.96.7.7:80");
}

#[test]
fn the_far_end_is_expected_to_be_whom_the_controller_names() {
    let sans = ["spiffe://td/ns/ns/sa/a", "no identity", "spiffe://td/ns/ns/sa/b"];
    let named = Service {
        rare: RareFields {
            subject_alt_names: sans.iter().map(|san| (*san).into()).collect(),
            ..RareFields::default()
        }
        .into(),
        ..service("ns/web", &["10.96.0.2"])
    };
    let mesh = mesh_of(resources().into_iter().chain([Update::Service(named)]));
    let expected = |destination: &str| match planned(&mesh, &client(), destination) {
        Plan::Tunnel(tunnel) => tunnel.expect.iter().map(ToString::to_string).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let own = "spiffe://cluster.local/ns/ns/sa/account";
    assert_eq!(expected("10.96.0.2:80"), [own, sans[0], sans[2]]);
    assert_eq!(expected("10.244.0.2:80"), [own]);
    // In front of a service, the waypoint's own service counts.
    assert_eq!(expected("10.96.0.4:80"), [own]);
}

/// A connection that changes its tunnel expects whom it expected before, also where only the way is known of it.
#[test]
fn whom_to_expect_can_be_told_again() {
    let named = |name: &str, san: &str| {
        let service = resources().into_iter().find_map(|update| match update {
            Update::Service(service) if service.key == key(name) => Some(service),
            _ => None,
        });
        let rare = RareFields { subject_alt_names: [san.into()].into(), ..RareFields::default() };
        Update::Service(Service { rare: rare.into(), ..service.unwrap() })
    };
    let services = [
        named("ns/web", "spiffe://td/ns/ns/sa/web"),
        named("ns/guarded", "spiffe://td/ns/ns/sa/guarded"),
        named("ns/gate", "spiffe://td/ns/ns/sa/gate"),
    ];
    let mesh = mesh_of(resources().into_iter().chain(services));
    for (destination, identities) in [
        ("10.96.0.2:80", 2),
        ("10.244.0.2:80", 1),
        // By the waypoint of a service, and of a pod.
        ("10.96.0.4:80", 2),
        ("10.244.0.4:8080", 2),
    ] {
        let Plan::Tunnel(tunnel) = planned(&mesh, &client(), destination) else { panic!("{destination}") };
        let before = Planned {
            source: &client(),
            next_hop: tunnel.next_hop,
            authority: tunnel.authority,
            workload: &tunnel.workload,
            service: tunnel.service.as_deref(),
        };
        assert_eq!(expected(&mesh, &before), tunnel.expect, "{destination}");
        assert_eq!(tunnel.expect.len(), identities, "{destination}");
    }
}

#[test]
fn a_waypoint_does_not_call_on_itself() {
    let mesh = mesh_of(resources());
    let gate = mesh.workload("gate").unwrap();
    let table = [
        ("10.96.0.4:80", "tunnel guarded at 10.244.0.4:15008 for 10.244.0.4:8080 of ns/guarded"),
        ("10.244.0.4:8080", "tunnel guarded at 10.244.0.4:15008 for 10.244.0.4:8080"),
    ];
    for (destination, expected) in table {
        assert_eq!(goes(&mesh, gate, destination), expected, "to {destination}");
    }
}

/// Whoever sends: a client, a workload behind a waypoint of its own, another waypoint.
#[test]
fn everybody_else_goes_by_the_waypoint() {
    let other = tunnelled("other", &["10.244.0.8"], &["ns/other"]);
    let beside = edit(tunnelled("beside", &["10.244.0.7"], &[]), |profile| {
        profile.waypoint = Some(waypoint("ns/other"));
    });
    let more = [
        Update::Workload(other.clone()),
        Update::Workload(beside.clone()),
        Update::Service(Service { ports: ports(&[(15008, 15008)]), ..service("ns/other", &["10.96.0.8"]) }),
    ];
    let mesh = mesh_of(resources().into_iter().chain(more));
    let guarded = mesh.workload("guarded").unwrap().clone();
    for source in [&client(), &beside, &other, &*guarded] {
        for (destination, of) in [("10.96.0.4:80", " of ns/guarded"), ("10.244.0.4:8080", "")] {
            let expected = format!("waypoint gate at 10.244.0.9:15018 for {destination}{of}");
            assert_eq!(goes(&mesh, source, destination), expected, "from {}", source.uid);
        }
    }
    // The other way round, a waypoint goes by that of its destination, too.
    let gate = mesh.workload("gate").unwrap();
    assert_eq!(goes(&mesh, gate, "10.244.0.7:80"), "waypoint other at 10.244.0.8:15008 for 10.244.0.7:80");
}

#[test]
fn connections_are_spread_over_the_ready_replicas_of_a_waypoint() {
    let replica = |number: u8, status| {
        let uid = format!("gate-{number}");
        let replica = tunnelled(&uid, &[&format!("10.244.1.{number}")], &["ns/gate"]);
        Update::Workload(Workload { status, ..replica })
    };
    let more = [
        Update::RemoveAddress("gate".into()),
        replica(1, Health::Healthy),
        replica(2, Health::Healthy),
        replica(3, Health::Healthy),
        replica(4, Health::Unhealthy),
    ];
    let mesh = mesh_of(resources().into_iter().chain(more));
    for destination in ["10.96.0.4:80", "10.244.0.4:8080"] {
        let mut counts = std::collections::BTreeMap::<String, usize>::new();
        for seed in 0..3000 {
            let destination = OriginalDestination::new(socket(destination));
            match plan(&mesh, &client(), destination, &mut draws(seed)) {
                Plan::Tunnel(tunnel) => *counts.entry(tunnel.workload.uid.to_string()).or_default() += 1,
                other => panic!("{}", told(&other)),
            }
        }
        assert_eq!(counts.keys().collect::<Vec<_>>(), ["gate-1", "gate-2", "gate-3"], "to {destination}");
        assert!(counts.values().all(|count| (900..1100).contains(count)), "to {destination}: {counts:?}");
    }
}

/// A replica that cannot be reached is passed over for as long as there is another.
#[test]
fn another_replica_is_none_of_those_that_cannot_be_reached() {
    let replica = |number: u8| {
        let uid = format!("gate-{number}");
        Update::Workload(tunnelled(&uid, &[&format!("10.244.1.{number}")], &["ns/gate"]))
    };
    let more = [Update::RemoveAddress("gate".into()), replica(1), replica(2)];
    let mesh = mesh_of(resources().into_iter().chain(more));
    let [one, two] = ["10.244.1.1", "10.244.1.2"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap());
    for (destination, unreachable, found) in [
        ("10.96.0.4:80", &[one][..], Some(two)),
        ("10.244.0.4:8080", &[two], Some(one)),
        ("10.96.0.4:80", &[one, two], None),
        // Not by a waypoint: what its endpoint does not take, nobody takes.
        ("10.96.0.1:80", &[], None),
    ] {
        let destination = OriginalDestination::new(socket(destination));
        for seed in 0..50 {
            let other = other_replica(&mesh, &client(), destination, unreachable, &mut draws(seed));
            assert_eq!(other.map(|tunnel| tunnel.next_hop.ip()), found, "{destination:?} {unreachable:?}");
        }
    }
}

#[test]
fn only_a_waypoint_with_replicas_is_soon_back() {
    let unready = Workload {
        status: Health::Unhealthy,
        ..edit(tunnelled("gate", &["10.244.0.9"], &["ns/gate"]), |_| {})
    };
    let gone = Update::RemoveAddress("gate".into());
    for (change, destination, soon) in [
        (Update::Workload(unready.clone()), "10.96.0.4:80", true),
        (Update::Workload(unready), "10.244.0.4:80", true),
        (gone.clone(), "10.96.0.4:80", false),
        (gone, "10.244.0.4:80", false),
    ] {
        let mesh = mesh_of(resources().into_iter().chain([change.clone()]));
        let destination = OriginalDestination::new(socket(destination));
        let Plan::Refuse(refusal) = plan(&mesh, &client(), destination, &mut draws(0)) else {
            panic!("it is refused")
        };
        assert_eq!(may_come_back(&mesh, &client(), &refusal), soon, "after {change:?}");
    }
}

/// The waypoint named in other ways, and what a client and the waypoint itself do.
#[test]
fn a_waypoint_may_be_named_by_address() {
    let by =
        |address| GatewayAddress { destination: GatewayDestination::Address(at(address)), hbone_port: 15008 };
    let through = |port| format!("waypoint gate at 10.244.0.9:{port} for 10.96.0.4:80 of ns/guarded");
    let direct = "tunnel guarded at 10.244.0.4:15008 for 10.244.0.4:8080 of ns/guarded";
    // Its service's address, whose port stands for another; and the pod's own.
    for (address, port) in [("10.96.0.9", 15018), ("10.244.0.9", 15008)] {
        let mut there = at("10.96.0.4");
        there.network = "n2".into();
        let guarded = service("ns/guarded", &["10.96.0.4"]);
        let vips = [guarded.vips[0].clone(), there].into();
        let guarded = Service { waypoint: Some(by(address).into()), vips, ..guarded };
        let mesh = mesh_of(resources().into_iter().chain([Update::Service(guarded)]));
        assert_eq!(goes(&mesh, &client(), "10.96.0.4:80"), through(port), "by {address}");
        let gate = mesh.workload("gate").unwrap();
        assert_eq!(goes(&mesh, gate, "10.96.0.4:80"), direct, "from the waypoint, by {address}");
        // The same address in another network is another's.
        let elsewhere = edit(client(), |profile| profile.network = "n2".into());
        let elsewhere = Workload { addresses: gate.addresses.clone(), ..elsewhere };
        let refused =
            "refused: /10.244.0.9 is in another network; tunnels across networks are not supported yet";
        assert_eq!(
            goes(&mesh, &elsewhere, "10.96.0.4:80").replace("10.96.0.9", "10.244.0.9"),
            refused,
            "by {address}"
        );
    }
}

#[test]
fn without_a_ready_waypoint_nothing_goes() {
    let gate = || edit(tunnelled("gate", &["10.244.0.9"], &["ns/gate"]), |_| {});
    let by_address =
        GatewayAddress { destination: GatewayDestination::Address(at("10.244.0.9")), hbone_port: 15008 };
    let pinned = Service { waypoint: Some(by_address.into()), ..service("ns/pinned", &["10.96.0.8"]) };
    let unready = Update::Workload(Workload { status: Health::Unhealthy, ..gate() });
    let gone = Update::RemoveAddress("gate".into());
    let no_service = Update::RemoveAddress("ns/gate".into());
    let unknown = |name: &str| {
        format!(
            "refused: unknown waypoint: {name} has no ready replica; `lateen get gateways` shows its state"
        )
    };
    for change in [unready, gone, no_service] {
        let by_name = matches!(&change, Update::RemoveAddress(name) if &**name == "ns/gate");
        let mesh = mesh_of(resources().into_iter().chain([Update::Service(pinned.clone()), change.clone()]));
        for destination in ["10.96.0.4:80", "10.244.0.4:80", "[fd00:96::4]:80"] {
            let told = goes(&mesh, &client(), destination);
            assert_eq!(told, unknown("ns/gate"), "to {destination} after {change:?}");
        }
        if !by_name {
            assert_eq!(goes(&mesh, &client(), "10.96.0.8:80"), unknown("/10.244.0.9"), "after {change:?}");
        }
    }
}

#[test]
fn another_network_is_refused_by_name() {
    let there = |uid: &str, services: &[&str]| {
        let there = tunnelled(uid, &["10.244.0.66"], services);
        Update::Workload(edit(there, |profile| profile.network = "n2".into()))
    };
    let refused =
        "refused: n2/10.244.0.66 is in another network; tunnels across networks are not supported yet";
    let mesh = mesh_of(resources().into_iter().chain([there("far", &["ns/nobody"])]));
    assert_eq!(goes(&mesh, &client(), "10.96.0.6:80"), refused);
    // Addresses are unique per network only.
    assert_eq!(goes(&mesh, &client(), "10.244.0.66:80"), "wait for 10.244.0.66");
    // As long as there is one in this network, it is used.
    let mesh = mesh_of(resources().into_iter().chain([there("far", &["ns/web"])]));
    for seed in 0..32 {
        let destination = OriginalDestination::new(socket("10.96.0.2:80"));
        let told = told(&plan(&mesh, &client(), destination, &mut draws(seed)));
        assert_eq!(told, "tunnel web at 10.244.0.2:15008 for 10.244.0.2:8080 of ns/web");
    }
    // One that is not ready is still this network's.
    let unready = Workload { status: Health::Unhealthy, ..tunnelled("web", &["10.244.0.2"], &["ns/web"]) };
    let mesh = mesh_of(resources().into_iter().chain([there("far", &["ns/web"]), Update::Workload(unready)]));
    assert!(goes(&mesh, &client(), "10.96.0.2:80").starts_with("refused: no healthy upstream"));
    // A waypoint there, by its service and by its address.
    let gone = Update::RemoveAddress("gate".into());
    let mesh = mesh_of(resources().into_iter().chain([gone, there("far", &["ns/gate"])]));
    assert_eq!(goes(&mesh, &client(), "10.96.0.4:80"), refused);
    let mut address = at("10.244.0.66");
    address.network = "n2".into();
    let by_address = GatewayAddress { destination: GatewayDestination::Address(address), hbone_port: 15008 };
    let guarded = Service { waypoint: Some(by_address.into()), ..service("ns/guarded", &["10.96.0.4"]) };
    let mesh = mesh_of(resources().into_iter().chain([Update::Service(guarded), there("far", &[])]));
    assert_eq!(goes(&mesh, &client(), "10.96.0.4:80"), refused);
}

/// Nobody takes the tunnel away from a pod by describing its address otherwise.
#[test]
fn a_service_over_a_pods_address_does_not_send_it_in_plain() {
    let over = |mode, vips: &[&str], ranges: &[&str]| {
        let range = |text: &&str| ("".into(), text.parse().unwrap());
        let load_balancing = LoadBalancing { mode, ..LoadBalancing::default() };
        let cidr_vips = ranges.iter().map(range).collect();
        let rare = RareFields { load_balancing, cidr_vips, ..RareFields::default() }.into();
        Update::Service(Service { rare, ..service("ns/over", vips) })
    };
    let tunnel = "tunnel web at 10.244.0.2:15008 for 10.244.0.2:80";
    let nobody = "refused: no healthy upstream: no ready endpoint of ns/over serves port 80";
    let (pass, balance) = (LoadBalancingMode::Passthrough, LoadBalancingMode::Unspecified);
    let table = [
        (over(pass, &[], &["10.244.0.0/16"]), "10.244.0.2:80", tunnel),
        (over(balance, &[], &["10.244.0.0/16"]), "10.244.0.2:80", tunnel),
        (over(pass, &["10.244.0.2"], &[]), "10.244.0.2:80", tunnel),
        // An address that is the service's is balanced.
        (over(balance, &["10.244.0.2"], &[]), "10.244.0.2:80", nobody),
        // Nor does it make a pod that is not known one outside.
        (over(pass, &[], &["10.244.0.0/16"]), "10.244.7.7:80", "wait for 10.244.7.7"),
        (over(balance, &[], &["10.244.0.0/16"]), "10.244.7.7:80", nobody),
        (over(pass, &[], &["198.51.100.0/24"]), "198.51.100.1:80", "plain 198.51.100.1:80 of ns/over"),
    ];
    for (service, destination, expected) in table {
        let mesh = mesh_of(resources().into_iter().chain([service.clone()]));
        assert_eq!(goes(&mesh, &client(), destination), expected, "to {destination} beside {service:?}");
    }
}

/// Nobody takes the waypoint away from a service by writing down its address as an endpoint's.
#[test]
fn only_a_pod_comes_before_a_service_whose_address_it_is() {
    let waypoint = "waypoint gate at 10.244.0.9:15018 for 10.96.0.4:80 of ns/guarded";
    for (uid, expected) in [
        ("c/discovery.k8s.io/EndpointSlice/other/x/10.96.0.4", waypoint),
        ("c//Pod/ns/p", "tunnel guarded at 10.244.0.4:15008 for 10.244.0.4:8080 of ns/guarded"),
    ] {
        let there = Update::Workload(workload(uid, &["10.96.0.4"]));
        let mesh = mesh_of(resources().into_iter().chain([there]));
        assert_eq!(goes(&mesh, &client(), "10.96.0.4:80"), expected, "{uid}");
    }
}

#[test]
fn a_service_of_another_namespace_may_be_hidden() {
    let hidden = Service { visibility: Visibility::Namespace, ..service("other/web", &["10.96.0.99"]) };
    let mesh = mesh_of(resources().into_iter().chain([Update::Service(hidden)]));
    assert_eq!(goes(&mesh, &client(), "10.96.0.99:80"), "plain 10.96.0.99:80");
    let theirs = edit(client(), |profile| {
        profile.identity = crate::Identity::new("cluster.local", "other", "account");
    });
    assert!(goes(&mesh, &theirs, "10.96.0.99:80").starts_with("refused: no healthy upstream"));
}

#[test]
fn a_workload_without_an_address_is_no_endpoint() {
    let named = edit(workload("named", &[]), |profile| {
        profile.hostname = "db.example".into();
        profile.services = [(key("ns/nobody"), ports(&[]))].into();
    });
    let mesh = mesh_of(resources().into_iter().chain([Update::Workload(named)]));
    assert!(goes(&mesh, &client(), "10.96.0.6:80").starts_with("refused: no healthy upstream"));
}
