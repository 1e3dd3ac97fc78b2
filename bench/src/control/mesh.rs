//! What the mesh consists of: the client's pod, the server's, and a crowd of others.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use proto::type_url::ADDRESS;
use proto::workload::address::Type;
use proto::workload::{Address, Locality, Port, PortList, TunnelProtocol, Workload};
use xds::delta::store::{Edit, Resource};
use xds::names;

use crate::topology::{ATTACKER, CLIENT, NEIGHBOUR, SERVER};

/// Pods of one deployment in the crowd.
const PER_DEPLOYMENT: u32 = 50;

/// The two pods, each on a node of its own; the outside is in no mesh.
pub(super) fn pods() -> Edit {
    named(&[("client", CLIENT, "client"), ("server", SERVER, "server")])
}

/// Those who mean harm: one elsewhere, one beside the client.
pub(super) fn strangers() -> Edit {
    named(&[("attacker", ATTACKER, "elsewhere"), ("neighbour", NEIGHBOUR, "client")])
}

/// Pods by name, address and node.
fn named(pods: &[(&str, IpAddr, &str)]) -> Edit {
    let mut edit = Edit::new();
    for &(name, ip, node) in pods {
        put(
            &mut edit,
            Workload {
                uid: format!("bench//Pod/bench/{name}"),
                name: name.to_owned(),
                namespace: "bench".to_owned(),
                service_account: name.to_owned(),
                addresses: vec![octets(ip)],
                node: node.to_owned(),
                ..hbone()
            },
        );
    }
    edit
}

/// Pods at the server's place: the first part of a connection to each is as if it were far from all others.
pub(super) fn replicas(addresses: &[IpAddr]) -> Edit {
    let mut edit = Edit::new();
    for (number, ip) in addresses.iter().enumerate() {
        let workload = Workload {
            uid: format!("bench//Pod/bench/replica-{number}"),
            name: format!("replica-{number}"),
            namespace: "bench".to_owned(),
            service_account: "server".to_owned(),
            addresses: vec![octets(*ip)],
            node: "replicas".to_owned(),
            ..hbone()
        };
        put(&mut edit, workload);
    }
    edit
}

/// The address of a pod of the crowd.
pub(crate) fn crowded_at(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0b00_0000 + number).into()
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
                addresses: vec![octets(crowded_at(number))],
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

/// With the names that a proxy on demand asks by.
fn put(edit: &mut Edit, workload: Workload) {
    let name = workload.uid.clone();
    let at = |octets: &Bytes| <[u8; 4]>::try_from(&octets[..]).ok().map(|v4| names::at("", v4.into()));
    let aliases: Vec<_> = workload.addresses.iter().filter_map(at).collect();
    let part_of = workload.services.keys().map(|service| service.as_str().into());
    let part_of: Vec<_> = part_of.chain([names::node(&workload.node)]).collect();
    let resource = Resource::pack(name, &Address { r#type: Some(Type::Workload(workload)) });
    edit.put(ADDRESS, resource.with_aliases(aliases).with_part_of(part_of));
}

fn octets(ip: IpAddr) -> Bytes {
    match ip {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}
