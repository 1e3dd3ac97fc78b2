//! What the tests of several modules build their mesh of.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::address::{NamespacedHostname, NetworkAddress, Str};
use crate::identity::Identity;
use crate::service::{AppProtocol, LoadBalancing, Port, Ports, RareFields, Service};
use crate::workload::{
    GatewayAddress, GatewayDestination, Health, Locality, PolicyName, Profile, TunnelProtocol, Workload,
    WorkloadKind,
};

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn at(text: &str) -> NetworkAddress {
    NetworkAddress::new("".into(), ip(text))
}

/// A ready workload `ns/account` with a uid and addresses, without a tunnel, in the network without a name.
pub(crate) fn workload(uid: &str, ips: &[&str]) -> Workload {
    let empty: Str = "".into();
    let profile = Profile {
        identity: Identity::new("cluster.local", "ns", "account"),
        network: empty.clone(),
        protocol: TunnelProtocol::Tcp,
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
        cluster: empty.clone(),
        locality: Locality::default(),
        capacity: 1,
        application_tunnel: None,
    };
    Workload {
        uid: uid.into(),
        name: uid.into(),
        addresses: ips.iter().map(|text| ip(text)).collect(),
        node: empty,
        status: Health::Healthy,
        profile: Arc::new(profile),
    }
}

/// The workload with something in its profile changed.
pub(crate) fn edit(mut workload: Workload, change: impl FnOnce(&mut Profile)) -> Workload {
    change(Arc::make_mut(&mut workload.profile));
    workload
}

/// The same workload, speaking HBONE, as an endpoint of services.
pub(crate) fn tunnelled(uid: &str, ips: &[&str], services: &[&str]) -> Workload {
    edit(workload(uid, ips), |profile| {
        profile.protocol = TunnelProtocol::Hbone;
        profile.services = services.iter().map(|name| (key(name), Ports::default())).collect();
    })
}

/// `namespace/hostname`.
pub(crate) fn key(text: &str) -> NamespacedHostname {
    NamespacedHostname::parse(text.into()).unwrap()
}

/// `namespace/name`.
pub(crate) fn policy_name(text: &str) -> PolicyName {
    let (namespace, name) = text.split_once('/').unwrap();
    PolicyName { namespace: namespace.into(), name: name.into() }
}

pub(crate) fn ports(ports: &[(u16, u16)]) -> Ports {
    let port = |(service, target): &(u16, u16)| Port {
        service: *service,
        target: *target,
        protocol: AppProtocol::Unknown,
    };
    Ports(ports.iter().map(port).collect())
}

/// A service named `namespace/hostname`, with addresses and port 80, which stands for 8080.
pub(crate) fn service(name: &str, vips: &[&str]) -> Service {
    Service {
        vips: vips.iter().map(|vip| at(vip)).collect(),
        ports: ports(&[(80, 8080)]),
        ..Service::named(key(name))
    }
}

/// The service with such a preference among its endpoints.
pub(crate) fn balanced(service: Service, load_balancing: LoadBalancing) -> Service {
    Service { rare: RareFields { load_balancing, ..RareFields::default() }.into(), ..service }
}

/// A waypoint that is found by a service.
pub(crate) fn waypoint(name: &str) -> GatewayAddress {
    GatewayAddress { destination: GatewayDestination::Hostname(key(name)), hbone_port: 15008 }
}

/// Draws that repeat: splitmix64 from a seed.
pub(crate) fn draws(seed: u64) -> impl FnMut(u32) -> u32 {
    let mut state = seed;
    move |bound| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = (word ^ (word >> 31)) >> 32;
        u32::try_from((high * u64::from(bound)) >> 32).unwrap()
    }
}
