//! Which endpoints are taken, how often, and where on them.

use super::{Selected, select, target_port};
use crate::address::OriginalDestination;
use crate::fixtures::{balanced, draws, edit, key, ports, service, socket, tunnelled};
use crate::mesh::{Mesh, Update};
use crate::service::{IpFamilies, LoadBalancing, LoadBalancingMode, Scope, Service};
use crate::workload::{Health, Locality, Workload};

const NAME: &str = "ns/web";

fn endpoint(uid: &str, ips: &[&str]) -> Workload {
    tunnelled(uid, ips, &[NAME])
}

/// Selects among the endpoints for a client, by draws from a seed.
fn choose(
    service: &Service,
    endpoints: &[Workload],
    client: &Workload,
    asked: &str,
    seed: u64,
) -> Option<Selected> {
    let mut mesh = Mesh::new("".into(), None);
    for endpoint in endpoints {
        mesh.apply(Update::Workload(endpoint.clone()));
    }
    let endpoints = mesh.endpoints(&service.key)?;
    select(service, endpoints, client, OriginalDestination::new(socket(asked)), &mut draws(seed))
}

/// All endpoints that are ever selected.
fn chosen(service: &Service, endpoints: &[Workload], client: &Workload) -> Vec<String> {
    let mut uids: Vec<String> = (0..64)
        .filter_map(|seed| choose(service, endpoints, client, "10.96.0.1:80", seed))
        .map(|selected| selected.workload.uid.to_string())
        .collect();
    uids.sort();
    uids.dedup();
    uids
}

fn web() -> Service {
    service(NAME, &["10.96.0.1"])
}

fn client() -> Workload {
    tunnelled("client", &["10.244.0.1"], &[])
}

#[test]
fn the_address_fits_what_was_asked_for() {
    use IpFamilies::{Automatic, Dual, V4Only, V6Only};
    let (v4, v6) = ("10.244.0.2", "fd00:244::2");
    let both: &[&str] = &[v6, v4];
    let table: [(&[&str], IpFamilies, &str, Option<&str>); 12] = [
        (both, Automatic, "10.96.0.1:80", Some(v4)),
        (both, Automatic, "[fd00:96::1]:80", Some(v6)),
        (both, Dual, "10.96.0.1:80", Some(v4)),
        (both, V6Only, "10.96.0.1:80", Some(v6)),
        (both, V4Only, "[fd00:96::1]:80", Some(v4)),
        (&[v4], Dual, "[fd00:96::1]:80", Some(v4)),
        (&[v6], Automatic, "10.96.0.1:80", Some(v6)),
        (&[v6], V4Only, "10.96.0.1:80", None),
        (&[v4], V6Only, "[fd00:96::1]:80", None),
        (&[], Automatic, "10.96.0.1:80", None),
        // The very address that was asked for, whatever the families and the order.
        (&["10.244.0.2", "10.244.0.3"], Automatic, "10.244.0.3:80", Some("10.244.0.3")),
        (both, V6Only, "10.244.0.2:80", Some(v4)),
    ];
    for (addresses, ip_families, asked, expected) in table {
        let service = Service { ip_families, ..web() };
        let selected = choose(&service, &[endpoint("a", addresses)], &client(), asked, 0);
        let ip = selected.map(|selected| selected.ip.to_string());
        assert_eq!(ip.as_deref(), expected, "{addresses:?} {ip_families:?} for {asked}");
    }
}

#[test]
fn the_port_is_the_endpoints_own_or_the_services() {
    // The service's ports, the endpoint's, the port asked for, and where that leads.
    type Row<'a> = (&'a [(u16, u16)], &'a [(u16, u16)], u16, Option<u16>);
    let table: [Row<'_>; 9] = [
        (&[(80, 8080)], &[], 80, Some(8080)),
        (&[(80, 8080)], &[(80, 9090)], 80, Some(9090)),
        // A named port, which each endpoint resolves for itself.
        (&[(80, 0)], &[(80, 9090)], 80, Some(9090)),
        (&[(80, 0)], &[], 80, None),
        (&[(80, 0)], &[(81, 9091)], 80, None),
        (&[(80, 8080)], &[(80, 0)], 80, Some(8080)),
        // Only the endpoint knows it.
        (&[], &[(80, 9090)], 80, Some(9090)),
        (&[(80, 8080)], &[(80, 8080)], 81, None),
        (&[], &[], 80, None),
    ];
    for (of_service, of_endpoint, asked, expected) in table {
        let service = Service { ports: ports(of_service), ..web() };
        let endpoint = edit(endpoint("a", &["10.244.0.2"]), |profile| {
            profile.services = [(key(NAME), ports(of_endpoint))].into();
        });
        let found = target_port(&service, &endpoint, asked);
        assert_eq!(found, expected, "{of_service:?} {of_endpoint:?} for {asked}");
        let selected = choose(&service, &[endpoint], &client(), &format!("10.96.0.1:{asked}"), 0);
        assert_eq!(selected.map(|selected| selected.port), expected);
    }
}

#[test]
fn only_the_ready_are_chosen_unless_all_may_be() {
    let unready = |uid: &str| Workload { status: Health::Unhealthy, ..endpoint(uid, &["10.244.0.2"]) };
    let endpoints = [endpoint("a", &["10.244.0.2"]), unready("b"), unready("c")];
    assert_eq!(chosen(&web(), &endpoints, &client()), ["a"]);
    assert_eq!(chosen(&web(), &endpoints[1..], &client()), [""; 0]);
    let load_balancing = LoadBalancing { allow_unhealthy: true, ..LoadBalancing::default() };
    let all = balanced(web(), load_balancing);
    assert_eq!(chosen(&all, &endpoints, &client()), ["a", "b", "c"]);
    assert_eq!(chosen(&web(), &[], &client()), [""; 0]);
}

fn somewhere(workload: Workload, place: &str, node: &str) -> Workload {
    let mut parts = place.split('/').map(Into::into);
    let mut part = || parts.next().unwrap_or_else(|| "".into());
    let locality = Locality { region: part(), zone: part(), subzone: part() };
    Workload { node: node.into(), ..edit(workload, |profile| profile.locality = locality) }
}

#[test]
fn the_near_are_preferred_as_the_service_says() {
    use LoadBalancingMode::{Failover, Strict, Unspecified};
    use Scope::{Cluster, Network, Node, Region, Subzone, Zone};
    let near = |uid: &str, place: &str, node: &str| somewhere(endpoint(uid, &["10.244.0.2"]), place, node);
    let endpoints = [
        near("node", "r/z/s", "n1"),
        near("subzone", "r/z/s", "n2"),
        near("zone", "r/z/t", "n3"),
        near("region", "r/y/s", "n4"),
        near("far", "q/z/s", "n1"),
    ];
    let client = somewhere(client(), "r/z/s", "n1");
    let all = &endpoints[..];
    type Row<'a> = (LoadBalancingMode, &'a [Scope], &'a [Workload], &'a [&'a str]);
    let table: [Row<'_>; 13] = [
        (Failover, &[], all, &["far", "node", "region", "subzone", "zone"]),
        (Failover, &[Network, Region, Zone, Subzone, Node], all, &["node"]),
        (Failover, &[Network, Region, Zone, Subzone], all, &["node", "subzone"]),
        (Failover, &[Network, Region, Zone], all, &["node", "subzone", "zone"]),
        (Failover, &[Region], all, &["node", "region", "subzone", "zone"]),
        // Where there are none so near, the next count.
        (Failover, &[Network, Region, Zone], &endpoints[3..], &["region"]),
        (Failover, &[Network, Region, Zone], &endpoints[4..], &["far"]),
        // What is shared counts from the first scope on only.
        (Failover, &[Region, Node], &endpoints[3..], &["region"]),
        (Unspecified, &[Region, Zone], all, &["node", "subzone", "zone"]),
        (Strict, &[Node], all, &["far", "node"]),
        (Strict, &[Region, Zone, Subzone, Node], all, &["node"]),
        (Strict, &[Node], &endpoints[1..4], &[]),
        (Strict, &[Cluster, Network], &endpoints[4..], &["far"]),
    ];
    for (mode, preference, endpoints, expected) in table {
        let load_balancing =
            LoadBalancing { mode, preference: preference.into(), ..LoadBalancing::default() };
        let service = balanced(web(), load_balancing);
        assert_eq!(chosen(&service, endpoints, &client), expected, "{mode:?} {preference:?}");
    }
}

#[test]
fn a_near_endpoint_that_is_not_ready_is_not_preferred() {
    let unready = somewhere(endpoint("near", &["10.244.0.2"]), "r/z", "n1");
    let unready = Workload { status: Health::Unhealthy, ..unready };
    let endpoints = [unready, somewhere(endpoint("far", &["10.244.0.3"]), "r/y", "n2")];
    let load_balancing = LoadBalancing {
        mode: LoadBalancingMode::Failover,
        preference: [Scope::Region, Scope::Zone].into(),
        ..LoadBalancing::default()
    };
    let client = somewhere(client(), "r/z", "n1");
    assert_eq!(chosen(&balanced(web(), load_balancing), &endpoints, &client), ["far"]);
}

/// How often each of the endpoints is taken in 20,000 draws.
fn shares(service: &Service, endpoints: &[Workload]) -> Vec<f64> {
    const ROUNDS: u32 = 20_000;
    let mut mesh = Mesh::new("".into(), None);
    for endpoint in endpoints {
        mesh.apply(Update::Workload(endpoint.clone()));
    }
    let of_service = mesh.endpoints(&service.key).unwrap();
    let asked = OriginalDestination::new(socket("10.96.0.1:80"));
    let mut draw = draws(7);
    let mut counts = vec![0u32; endpoints.len()];
    for _ in 0..ROUNDS {
        let selected = select(service, of_service, &client(), asked, &mut draw).unwrap();
        let place = endpoints.iter().position(|endpoint| endpoint.uid == selected.workload.uid);
        counts[place.unwrap()] += 1;
    }
    counts.iter().map(|count| f64::from(*count) / f64::from(ROUNDS)).collect()
}

#[test]
fn the_choice_follows_capacity() {
    let weighing =
        |uid: &str, capacity| edit(endpoint(uid, &["10.244.0.2"]), |profile| profile.capacity = capacity);
    let unready = |uid: &str| Workload { status: Health::Unhealthy, ..weighing(uid, 1000) };
    let failover = LoadBalancing {
        mode: LoadBalancingMode::Failover,
        preference: [Scope::Network].into(),
        ..LoadBalancing::default()
    };
    let table = [
        (vec![weighing("a", 1), weighing("b", 1), weighing("c", 1), weighing("d", 1)], vec![0.25; 4]),
        (vec![weighing("a", 1), weighing("b", 3)], vec![0.25, 0.75]),
        (vec![weighing("a", 0), weighing("b", 2)], vec![0.0, 1.0]),
        // So unlike, and so few of them ready, that blind draws seldom succeed.
        (
            vec![weighing("a", 1), weighing("b", 2), weighing("c", 1), unready("d")],
            vec![0.25, 0.5, 0.25, 0.0],
        ),
    ];
    for (endpoints, expected) in table {
        for load_balancing in [LoadBalancing::default(), failover.clone()] {
            let service = balanced(web(), load_balancing);
            let shares = shares(&service, &endpoints);
            let close = |(share, expected): (&f64, &f64)| (share - expected).abs() < 0.015;
            assert!(shares.iter().zip(&expected).all(close), "{shares:?}, not {expected:?}");
        }
    }
    let none = [weighing("a", 0), weighing("b", 0)];
    assert_eq!(chosen(&web(), &none, &client()), [""; 0]);
    // Capacities that add up to more than a draw can tell apart.
    let huge = [weighing("a", u32::MAX), weighing("b", u32::MAX)];
    assert!(choose(&web(), &huge, &client(), "10.96.0.1:80", 3).is_some());
}

#[test]
fn the_same_draws_choose_the_same() {
    let endpoints: Vec<Workload> =
        (0..50).map(|number| endpoint(&format!("uid-{number}"), &["10.244.0.2"])).collect();
    for seed in 0..50 {
        let once = choose(&web(), &endpoints, &client(), "10.96.0.1:80", seed);
        assert!(once.is_some());
        assert_eq!(once, choose(&web(), &endpoints, &client(), "10.96.0.1:80", seed));
    }
}
