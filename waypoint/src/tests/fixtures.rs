//! What the tests build their mesh of: a waypoint, a service bound to it, pods behind the service.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::Identity;
use model::address::{NamespacedHostname, NetworkAddress, Str};
use model::authz::{Action, Policy, PolicyScope};
use model::service::{AppProtocol, Port, Ports, Service};
use model::workload::{
    GatewayAddress, GatewayDestination, Health, Locality, PolicyName, Profile, TunnelProtocol, Workload,
    WorkloadKind,
};

pub(crate) fn identity(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account)
}

pub(crate) fn key(host: &str) -> NamespacedHostname {
    NamespacedHostname::new("shop", &format!("{host}.shop.svc.cluster.local"))
}

/// A pod of namespace `shop` that speaks HBONE and runs as the account of its name.
pub(crate) fn pod(name: &str, ip: IpAddr) -> Workload {
    let empty = Str::from("");
    let profile = Profile {
        identity: identity(name),
        network: empty.clone(),
        protocol: TunnelProtocol::Hbone,
        host_network: false,
        native_tunnel: false,
        hostname: empty.clone(),
        canonical_name: name.into(),
        canonical_revision: "v1".into(),
        kind: WorkloadKind::Deployment,
        workload_name: name.into(),
        waypoint: None,
        network_gateway: None,
        services: Box::default(),
        policies: Box::default(),
        enforced_by: None,
        cluster: "Kubernetes".into(),
        locality: Locality::default(),
        capacity: 1,
        application_tunnel: None,
    };
    Workload {
        uid: format!("Kubernetes//Pod/shop/{name}").into(),
        name: name.into(),
        addresses: [ip].into(),
        node: empty,
        status: Health::Healthy,
        profile: Arc::new(profile),
    }
}

/// The pod with something in its profile changed.
pub(crate) fn edit(mut workload: Workload, change: impl FnOnce(&mut Profile)) -> Workload {
    change(Arc::make_mut(&mut workload.profile));
    workload
}

/// Service ports, what they stand for, and what is spoken there.
pub(crate) fn ports(ports: &[(u16, u16, AppProtocol)]) -> Ports {
    let port = |&(service, target, protocol)| Port { service, target, protocol };
    Ports(ports.iter().map(port).collect())
}

pub(crate) fn service(host: &str, vip: &str, ports: Ports) -> Service {
    let vip: SocketAddr = SocketAddr::new(vip.parse().unwrap(), 0);
    Service {
        vips: [NetworkAddress::new("".into(), vip.ip())].into(),
        ports,
        canonical: true,
        ..Service::named(key(host))
    }
}

/// A policy that allows nobody anything in a namespace.
pub(crate) fn nobody(namespace: &str) -> Policy {
    Policy {
        name: PolicyName { namespace: namespace.into(), name: "nobody".into() },
        scope: PolicyScope::Namespace,
        action: Action::Allow,
        rules: Box::default(),
        dry_run: false,
        invalid: None,
    }
}

/// A waypoint that is found by a service.
pub(crate) fn waypoint(host: &str) -> GatewayAddress {
    GatewayAddress { destination: GatewayDestination::Hostname(key(host)), hbone_port: 15008 }
}
