//! What a workload costs in memory once it is known, without what the wire's side keeps of it. One
//! test in a process of its own, as it reads the process's memory.
//!
//! `cargo test -p model --test memory -- --nocapture` prints the figures.

use std::net::Ipv4Addr;
use std::sync::Arc;

use model::Identity;
use model::address::{NamespacedHostname, Str};
use model::mesh::{Mesh, Update};
use model::service::{AppProtocol, Port, Ports};
use model::workload::{Health, Locality, Profile, TunnelProtocol, Workload, WorkloadKind};

const PER_DEPLOYMENT: u32 = 50;
const NODES: u32 = 1000;

/// What the pods of a deployment share.
fn profile(deployment: u32, empty: &Str) -> Arc<Profile> {
    let app: Str = format!("app-{deployment}").into();
    let namespace: Str = format!("team-{}", deployment % 100).into();
    let host = NamespacedHostname::new(&namespace, &format!("{app}.{namespace}.svc.cluster.local"));
    let ports = Ports([Port { service: 80, target: 8080, protocol: AppProtocol::Http11 }].into());
    Arc::new(Profile {
        identity: Identity::new("cluster.local", namespace, app.clone()),
        network: empty.clone(),
        protocol: TunnelProtocol::Hbone,
        host_network: false,
        native_tunnel: false,
        hostname: empty.clone(),
        canonical_name: app.clone(),
        canonical_revision: empty.clone(),
        kind: WorkloadKind::Deployment,
        workload_name: app,
        waypoint: None,
        network_gateway: None,
        services: [(host, ports)].into(),
        policies: Box::default(),
        enforced_by: None,
        cluster: empty.clone(),
        locality: Locality { region: empty.clone(), zone: empty.clone(), subzone: empty.clone() },
        capacity: 1,
        application_tunnel: None,
    })
}

fn mesh_of(workloads: u32) -> Mesh {
    let empty: Str = "".into();
    let nodes: Vec<Str> = (0..NODES).map(|number| format!("node-{number}").into()).collect();
    let mut mesh = Mesh::new(empty.clone(), Some(nodes[1].clone()));
    for deployment in 0..workloads / PER_DEPLOYMENT {
        let profile = profile(deployment, &empty);
        for number in deployment * PER_DEPLOYMENT..(deployment + 1) * PER_DEPLOYMENT {
            let name = format!("{}-7d9c5b8f6c-{number:05x}", profile.workload_name);
            mesh.apply(Update::Workload(Workload {
                uid: format!("Kubernetes//Pod/{}/{name}", profile.identity.namespace()).into(),
                name: name.into(),
                addresses: [Ipv4Addr::from(0x0a00_0000 + number).into()].into(),
                node: nodes[(number % NODES) as usize].clone(),
                status: Health::Healthy,
                profile: profile.clone(),
            }));
        }
    }
    mesh
}

/// Anonymous memory of this process in bytes.
fn anonymous_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[test]
fn a_workload_takes_little_memory() {
    // The larger first: what it gives back would hide what the smaller takes, so each is kept.
    let mut kept = Vec::new();
    for workloads in [100_000, 10_000] {
        let before = anonymous_memory();
        let mesh = mesh_of(workloads);
        let each = (anonymous_memory() - before) / u64::from(workloads);
        assert_eq!(mesh.workloads().count(), workloads as usize);
        println!("{each} B for each of {workloads} workloads");
        assert!(each <= 400, "{each} B for each of {workloads} workloads");
        kept.push(mesh);
    }
}
