//! What it costs to choose who takes a request, and to make ready for it, by the number of endpoints.
//!
//! `cargo bench -p model --bench traffic`: a pick costs the same however many endpoints there are, but for what the memory of
//! so many costs; by weights and in a ring it grows with the logarithm of their number. Plans and tables grow with the
//! number, and are made off the path of requests.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use model::Identity;
use model::address::Str;
use model::select::Selected;
use model::service::LoadBalancing;
use model::traffic::balance::{Balancer, Labels, Members, Plan, Proxy, Wanted};
use model::traffic::outlier::{Detector, Monitor, Outcome};
use model::traffic::pool::{Accounts, Limits};
use model::traffic::{
    Algorithm, ConsistentHash, EffectivePolicy, HashAlgorithm, HashKey, LoadBalancer, OutlierDetection,
};
use model::workload::{Health, Locality, Profile, TunnelProtocol, Workload, WorkloadKind};

const COUNTS: [u32; 3] = [10, 1_000, 100_000];
const NOW: Duration = Duration::from_secs(1);

fn profile(capacity: u32) -> Arc<Profile> {
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
        services: Box::default(),
        policies: Box::default(),
        enforced_by: None,
        cluster: empty,
        locality: Locality::default(),
        capacity,
        application_tunnel: None,
    })
}

fn target(number: u32, profile: &Arc<Profile>) -> Selected {
    let ip = Ipv4Addr::from(0x0a00_0000 + number).into();
    let workload = Workload {
        uid: format!("Kubernetes//Pod/ns/app-{number}").into(),
        name: format!("app-{number}").into(),
        addresses: [ip].into(),
        node: "node".into(),
        status: Health::Healthy,
        profile: profile.clone(),
    };
    Selected { workload: Arc::new(workload), port: 8080, ip }
}

/// So many endpoints, of the same weight or of three.
fn members(count: u32, weighted: bool) -> Members {
    let profiles = [1, 2, 5].map(profile);
    let mut members = Members::default();
    for number in 0..count {
        let profile = if weighted { &profiles[number as usize % 3] } else { &profiles[0] };
        members.put(target(number, profile), Labels::default(), Duration::ZERO);
    }
    members
}

fn policy(algorithm: Algorithm) -> EffectivePolicy {
    EffectivePolicy {
        load_balancer: LoadBalancer { algorithm, ..LoadBalancer::default() },
        outlier_detection: Some(OutlierDetection::default()),
        ..EffectivePolicy::default()
    }
}

fn hashing(algorithm: HashAlgorithm) -> Algorithm {
    Algorithm::ConsistentHash(ConsistentHash { key: HashKey::SourceIp, algorithm })
}

fn plan(policy: &EffectivePolicy, members: &Members) -> Arc<Plan> {
    let target = target(0, &profile(1));
    let proxy = Proxy { workload: &target.workload, labels: &BTreeMap::new() };
    Arc::new(Plan::new(policy, &LoadBalancing::default(), &proxy, members.iter()))
}

fn draws() -> impl FnMut(u32) -> u32 {
    let mut state = 1u64;
    move |bound| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(((state >> 32) * u64::from(bound)) >> 32).expect("below the bound")
    }
}

/// Name, algorithm, whether weights differ.
fn algorithms() -> [(&'static str, Algorithm, bool); 7] {
    [
        ("least request", Algorithm::LeastRequest, false),
        ("round robin", Algorithm::RoundRobin, false),
        ("random", Algorithm::Random, false),
        ("least request by weight", Algorithm::LeastRequest, true),
        ("round robin by weight", Algorithm::RoundRobin, true),
        ("ring", hashing(HashAlgorithm::default()), false),
        ("maglev", hashing(HashAlgorithm::Maglev { table_size: HashAlgorithm::DEFAULT_TABLE_SIZE }), false),
    ]
}

fn picks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for count in COUNTS {
        // What the memory of so many costs, whatever is done with them: two of them are looked at, at random, and one is
        // taken.
        let members = members(count, false);
        let list: Vec<_> = members.iter().collect();
        let mut draw = draws();
        group.bench_function(BenchmarkId::new("look at any two", count), |bencher| {
            bencher.iter(|| {
                let (one, other) = (list[draw(count) as usize], list[draw(count) as usize]);
                if one.active() > other.active() { other.clone() } else { one.clone() }
            });
        });
    }
    for (name, algorithm, weighted) in algorithms() {
        for count in COUNTS {
            let members = members(count, weighted);
            let mut draw = draws();
            let mut balancer = Balancer::new(plan(&policy(algorithm.clone()), &members), NOW, &mut draw);
            let mut hash = 0u64;
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| {
                    hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    let wanted = Wanted { hash: Some(black_box(hash)), ..Wanted::at(NOW) };
                    balancer.pick(&wanted, &mut draw)
                });
            });
        }
    }
    group.finish();
}

fn plans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    for (name, algorithm, weighted) in algorithms() {
        for count in COUNTS {
            let members = members(count, weighted);
            let policy = policy(algorithm.clone());
            let mut draw = draws();
            let mut balancer = Balancer::new(plan(&policy, &members), NOW, &mut draw);
            group.throughput(Throughput::Elements(count.into()));
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| balancer.replace(plan(&policy, black_box(&members)), NOW, &mut draw));
            });
        }
    }
    group.finish();
}

/// What each request pays beside the pick.
fn accounts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("account");
    let settings = OutlierDetection::default();
    let monitor = Monitor::default();
    group.bench_function("outcome", |bencher| {
        bencher.iter(|| monitor.record(black_box(Outcome::Response(200)), &settings));
    });
    let limits = Limits::new(&EffectivePolicy::default().connection_pool, None);
    let accounts = Arc::new(Accounts::default());
    group.bench_function("ticket", |bencher| {
        bencher.iter(|| drop(accounts.request(black_box(&limits), NOW)));
    });
    let members = members(10_000, false);
    group.bench_function("eject and return a tenth of 10000", |bencher| {
        bencher.iter(|| {
            let mut detector = Detector::new(Duration::ZERO);
            for endpoint in members.iter() {
                let cause = (0..5).find_map(|_| endpoint.monitor().record(Outcome::Failed, &settings));
                let cause = cause.expect("five errors are the threshold");
                let _ =
                    detector.eject(endpoint.uid(), endpoint.monitor(), cause, members.len(), &settings, NOW);
            }
            detector.sweep(&settings, Duration::from_secs(60))
        });
    });
    group.finish();
}

fn settings() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! { name = traffic; config = settings(); targets = picks, plans, accounts }
criterion_main!(traffic);
