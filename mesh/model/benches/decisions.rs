//! What the decisions of a connection cost, and how that grows with the mesh.
//!
//! `cargo bench -p model`: a pick of an endpoint and a look-up of an address cost the same however many there are;
//! putting in costs the same for each; of many policies few are looked at.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use model::Identity;
use model::address::{NamespacedHostname, NetworkAddress, OriginalDestination, Str};
use model::authz::{
    Action, Addressee, Clause, GatewayName, Match, PathMatch, Policy, PolicyScope, RequestMatch, Rule,
    StringMatch, Subject, decide,
};
use model::mesh::{Mesh, Update};
use model::plan::plan;
use model::request::{Client, Forwarded, Request};
use model::select::select;
use model::service::{AppProtocol, Port, Ports, Service};
use model::workload::{Health, Locality, PolicyName, Profile, TunnelProtocol, Workload, WorkloadKind};

fn key(number: u32) -> NamespacedHostname {
    NamespacedHostname::new("ns", &format!("s{number}.ns.svc.cluster.local"))
}

fn pod_ip(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + number).into()
}

fn vip(number: u32) -> NetworkAddress {
    NetworkAddress::new("".into(), Ipv4Addr::from(0xac10_0000 + number).into())
}

fn profile(services: &[NamespacedHostname]) -> Arc<Profile> {
    let empty: Str = "".into();
    Arc::new(Profile {
        identity: Identity::new("cluster.local", "ns", "account"),
        network: empty.clone(),
        protocol: TunnelProtocol::Hbone,
        host_network: false,
        native_tunnel: false,
        hostname: empty.clone(),
        canonical_name: empty.clone(),
        canonical_revision: empty.clone(),
        kind: WorkloadKind::Pod,
        workload_name: empty.clone(),
        waypoint: None,
        network_gateway: None,
        services: services.iter().map(|key| (key.clone(), Ports::default())).collect(),
        policies: Box::default(),
        enforced_by: None,
        cluster: empty.clone(),
        locality: Locality::default(),
        capacity: 1,
        application_tunnel: None,
    })
}

fn workload(number: u32, profile: &Arc<Profile>) -> Workload {
    Workload {
        uid: format!("Kubernetes//Pod/ns/app-{number}").into(),
        name: format!("app-{number}").into(),
        addresses: [pod_ip(number)].into(),
        node: "node".into(),
        status: Health::Healthy,
        profile: profile.clone(),
    }
}

fn service(number: u32) -> Service {
    let ports = Ports([Port { service: 80, target: 8080, protocol: AppProtocol::Unknown }].into());
    Service { vips: [vip(number)].into(), ports, canonical: true, ..Service::named(key(number)) }
}

/// A service 0 with so many endpoints.
fn one_service(endpoints: u32) -> Mesh {
    let mut mesh = Mesh::new("".into(), None);
    mesh.apply(Update::Service(service(0)));
    let profile = profile(&[key(0)]);
    for number in 0..endpoints {
        mesh.apply(Update::Workload(workload(number, &profile)));
    }
    mesh
}

fn draws() -> impl FnMut(u32) -> u32 {
    let mut state = 1u64;
    move |bound| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(((state >> 32) * u64::from(bound)) >> 32).expect("below the bound")
    }
}

fn endpoints(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("endpoint");
    let client = workload(1, &profile(&[]));
    let asked = OriginalDestination::new(SocketAddr::new(vip(0).ip, 80));
    for count in [10, 1_000, 100_000] {
        let mesh = one_service(count);
        let service = mesh.service(&key(0)).expect("it was put in");
        let of_service = mesh.endpoints(&key(0)).expect("they were put in");
        let mut draw = draws();
        group.bench_function(BenchmarkId::new("pick", count), |bencher| {
            bencher.iter(|| select(service, of_service, &client, black_box(asked), &mut draw));
        });
        // What the memory of so many workloads costs, whatever is done with them: one of them is looked at, at random.
        let list = of_service.all();
        group.bench_function(BenchmarkId::new("look at any", count), |bencher| {
            bencher.iter(|| list[draw(count) as usize].clone());
        });
        group.bench_function(BenchmarkId::new("plan", count), |bencher| {
            bencher.iter(|| plan(&mesh, &client, black_box(asked), &mut draw));
        });
        group.throughput(Throughput::Elements(count.into()));
        let all: Vec<Workload> = (0..count).map(|number| workload(number, &profile(&[key(0)]))).collect();
        group.bench_function(BenchmarkId::new("insert all", count), |bencher| {
            bencher.iter_with_large_drop(|| {
                let mut mesh = Mesh::new("".into(), None);
                for workload in &all {
                    mesh.apply(Update::Workload(workload.clone()));
                }
                mesh
            });
        });
        group.throughput(Throughput::Elements(1));
    }
    group.finish();
}

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    for count in [100, 20_000] {
        let mut mesh = Mesh::new("".into(), None);
        let profile = profile(&[]);
        for number in 0..count {
            mesh.apply(Update::Service(service(number)));
            mesh.apply(Update::Workload(workload(number, &profile)));
        }
        let mut draw = draws();
        // Those that a node's pods call on, of all there are.
        let vips: Vec<NetworkAddress> = (0..64).map(|_| vip(draw(count))).collect();
        let mut next = vips.iter().cycle();
        group.bench_function(BenchmarkId::new("vip", count), |bencher| {
            bencher.iter(|| {
                mesh.service_at(black_box(next.next().expect("a cycle does not end")), "ns").is_some()
            });
        });
        let ips: Vec<NetworkAddress> =
            (0..64).map(|_| NetworkAddress::new("".into(), pod_ip(draw(count)))).collect();
        let mut next = ips.iter().cycle();
        group.bench_function(BenchmarkId::new("pod", count), |bencher| {
            bencher
                .iter(|| mesh.workload_at(black_box(next.next().expect("a cycle does not end"))).is_some());
        });
    }
    group.finish();
}

/// One policy of many changes: what that costs the next connection beside the judgement itself.
fn changed_policy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("authz after a change");
    let destination = workload(1, &profile(&[]));
    let client = Identity::new("cluster.local", "team-1", "app-1");
    let subject = Subject {
        source: SocketAddr::new(pod_ip(1), 40_000),
        identity: Some(&client),
        destination: SocketAddr::new(pod_ip(1), 8080),
    };
    for count in [1, 100, 10_000] {
        let mut mesh = policies("principals", count);
        let name = PolicyName { namespace: "ns".into(), name: "p0".into() };
        let policy = mesh.policy(&name).expect("it was put in").clone();
        group.bench_function(BenchmarkId::new("change and judge", count), |bencher| {
            bencher.iter(|| {
                mesh.apply(Update::Policy((*policy).clone()));
                mesh.judge(&destination, black_box(&subject))
            });
        });
    }
    group.finish();
}

const RULES: u32 = 10;

/// A rule that names one of the clients, in the way of its kind.
fn rule(kind: &str, number: u32) -> Rule {
    let one = match kind {
        "principals" => {
            let text = format!("cluster.local/ns/team-{}/sa/app-{number}", number % 100);
            Match { principals: vec![StringMatch::Exact(text.into())], ..Match::default() }
        }
        "prefixes" => {
            let text = format!("cluster.local/ns/team-{number}/");
            Match { principals: vec![StringMatch::Prefix(text.into())], ..Match::default() }
        }
        _ => {
            let range = ipnet::IpNet::new(pod_ip(number << 4), 28).expect("28 is no longer than 32");
            Match { source_ips: vec![range], ..Match::default() }
        }
    };
    let ports = Match { destination_ports: vec![8080], ..Match::default() };
    Rule { clauses: [Clause { matches: [one].into() }, Clause { matches: [ports].into() }].into() }
}

fn policies(kind: &str, count: u32) -> Mesh {
    let mut mesh = Mesh::new("".into(), None);
    for number in 0..count {
        mesh.apply(Update::Policy(Policy {
            name: PolicyName { namespace: "ns".into(), name: format!("p{number}").into() },
            scope: PolicyScope::Namespace,
            action: Action::Allow,
            rules: (0..RULES).map(|place| rule(kind, number * RULES + place)).collect(),
            dry_run: false,
            invalid: None,
        }));
    }
    mesh
}

fn authorization(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("authz");
    let destination = workload(1, &profile(&[]));
    for kind in ["principals", "prefixes", "ranges"] {
        for count in [1, 10_000] {
            let mesh = policies(kind, count);
            let all = mesh.policies_for(&destination).expect("it names none");
            // The client that the last rule names.
            let last = count * RULES - 1;
            let namespace = if kind == "prefixes" { last } else { last % 100 };
            let client = Identity::new("cluster.local", format!("team-{namespace}"), format!("app-{last}"));
            let subject = Subject {
                source: SocketAddr::new(pod_ip(last << 4), 40_000),
                identity: Some(&client),
                destination: SocketAddr::new(pod_ip(1), 8080),
            };
            assert!(decide(&all, &subject).allows());
            let id = |engine: &str| BenchmarkId::new(format!("{engine}, by {kind}"), count);
            // As a proxy without an index has it: the policies that apply are gathered for each connection, then asked in
            // turn.
            group.bench_function(id("one by one"), |bencher| {
                bencher.iter(|| {
                    let all = mesh.policies_for(&destination).expect("it names none");
                    decide(&all, black_box(&subject))
                });
            });
            group.bench_function(id("as judged"), |bencher| {
                bencher.iter(|| mesh.judge(&destination, black_box(&subject)));
            });
            // Nobody's name, address or port: refused, and told by whom.
            let stranger = Identity::new("other.domain", "nowhere", "nobody");
            let source = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), 40_000);
            let subject = Subject { source, identity: Some(&stranger), ..subject };
            assert!(!decide(&all, &subject).allows());
            group.bench_function(id("one by one, refused"), |bencher| {
                bencher.iter(|| {
                    let all = mesh.policies_for(&destination).expect("it names none");
                    decide(&all, black_box(&subject))
                });
            });
            group.bench_function(id("as judged, refused"), |bencher| {
                bencher.iter(|| mesh.judge(&destination, black_box(&subject)));
            });
        }
    }
    group.finish();
}

/// Requests by their paths, as a waypoint judges them: each rule is for a path of its own.
fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("authz of requests");
    let destination = workload(1, &profile(&[]));
    let gateway = GatewayName { namespace: "ns".into(), name: "w".into(), class: "istio-waypoint".into() };
    let endpoint = Some((&destination, SocketAddr::new(pod_ip(1), 8080)));
    let to = Addressee { gateway: &gateway, service: None, service_entry: None, endpoint };
    let rule = |number: u32| {
        let paths = vec![PathMatch::parse(&format!("/v1/things-{number}/{{*}}")).expect("it is a template")];
        let methods = vec![StringMatch::Exact("GET".into())];
        let request = RequestMatch { methods, paths, ..RequestMatch::default() };
        let one = Match { request: Some(request.into()), ..Match::default() };
        Rule { clauses: [Clause { matches: [one].into() }].into() }
    };
    for count in [1, 10_000] {
        let mut mesh = Mesh::new("".into(), None);
        for number in 0..count {
            mesh.apply(Update::Policy(Policy {
                name: PolicyName { namespace: "ns".into(), name: format!("p{number}").into() },
                scope: PolicyScope::Namespace,
                action: Action::Allow,
                rules: (0..RULES).map(|place| rule(number * RULES + place)).collect(),
                dry_run: false,
                invalid: None,
            }));
        }
        let (headers, path) = (http::HeaderMap::new(), format!("/v1/things-{}/x", count * RULES - 1));
        let request = Request {
            method: &http::Method::GET,
            scheme: "http",
            authority: "a.example",
            path: &path,
            query: None,
            headers: &headers,
            client: Client { address: SocketAddr::new(pod_ip(7), 1), identity: None, labels: None },
            destination: SocketAddr::new(pod_ip(1), 8080),
            forwarded: Forwarded::default(),
        };
        assert!(mesh.judge_for(&to, &request).expect("it names none").allows());
        group.bench_function(BenchmarkId::new("as judged, by path", count), |bencher| {
            bencher.iter(|| mesh.judge_for(&to, black_box(&request)));
        });
    }
    for raw in ["/api/v1/things/42", "/api/%761/./things/../things/42"] {
        group.bench_function(BenchmarkId::new("canonical path", raw.len()), |bencher| {
            bencher.iter(|| model::path::canonical(black_box(raw)));
        });
    }
    group.finish();
}

fn settings() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! { name = decisions; config = settings(); targets = lookups, endpoints, authorization, requests, changed_policy }
criterion_main!(decisions);
