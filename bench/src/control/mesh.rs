//! What the mesh consists of: the client's pod, the server's, and a crowd of others.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use proto::type_url::ADDRESS;
use proto::workload::address::Type;
use proto::workload::{Address, Locality, Port, PortList, TunnelProtocol, Workload};
use xds::delta::store::{Edit, Resource};

use crate::topology::{CLIENT, SERVER};

/// Pods of one deployment in the crowd.
const PER_DEPLOYMENT: u32 = 50;

/// The two pods, each on a node of its own; the outside is in no mesh.
pub(super) fn pods() -> Edit {
    let mut edit = Edit::new();
    for (name, ip) in [("client", CLIENT), ("server", SERVER)] {
        put(
            &mut edit,
            Workload {
                uid: format!("bench//Pod/bench/{name}"),
                name: name.to_owned(),
                namespace: "bench".to_owned(),
                service_account: name.to_owned(),
                addresses: vec![octets(ip)],
                node: name.to_owned(),
                ..hbone()
            },
        );
    }
    edit
}

/// Pods as a cluster has them: long names, a locality, a service for each fifty.
pub(super) fn crowd(workloads: u32) -> Edit {
    let mut edit = Edit::new();
    for number in 0..workloads {
        let deployment = number / PER_DEPLOYMENT;
        let (app, namespace) = (format!("app-{deployment}"), format!("team-{}", deployment % 100));
        let name = format!("{app}-7d9c5b8f6c-{number:05x}");
        let ports = PortList { ports: vec![Port { service_port: 80, target_port: 8080, app_protocol: 1 }] };
        put(
            &mut edit,
            Workload {
                uid: format!("Kubernetes//Pod/{namespace}/{name}"),
                name,
                addresses: vec![octets(Ipv4Addr::from_bits(0x0b00_0000 + number).into())],
                node: format!("node-{}", number % 1000),
                service_account: app.clone(),
                canonical_name: app.clone(),
                canonical_revision: "v1".to_owned(),
                workload_name: app.clone(),
                services: [(format!("{namespace}/{app}.{namespace}.svc.cluster.local"), ports)].into(),
                locality: Some(Locality {
                    region: "north".to_owned(),
                    zone: "north-a".to_owned(),
                    subzone: String::new(),
                }),
                namespace,
                ..hbone()
            },
        );
    }
    edit
}

fn hbone() -> Workload {
    Workload {
        tunnel_protocol: TunnelProtocol::Hbone.into(),
        trust_domain: "cluster.local".to_owned(),
        ..Workload::default()
    }
}

fn put(edit: &mut Edit, workload: Workload) {
    let name = workload.uid.clone();
    edit.put(ADDRESS, Resource::pack(name, &Address { r#type: Some(Type::Workload(workload)) }));
}

fn octets(ip: IpAddr) -> Bytes {
    match ip {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}
