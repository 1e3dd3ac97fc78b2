//! Service → [`Service`].

use std::sync::Arc;

use model::address::NetworkAddress;
use model::service::{
    LoadBalancing, LoadBalancingMode, Port, Ports, RareFields, Scope, Service, Visibility, short_name,
};

use super::{Context, waypoint};
use crate::index::Index;
use crate::index::facts::{self, ServicePort, Target};

/// A service as proxies know it, with the addresses that are its own.
pub fn service(index: &Index, context: &Context, facts: &facts::Service) -> Service {
    let vip = |ip| NetworkAddress::new(context.network.clone(), ip);
    let key = context.host(&facts.name);
    let name = Some(facts.name.name.clone()).filter(|name| **name != *short_name(key.hostname()));
    let rare = RareFields { name, load_balancing: load_balancing(facts), ..RareFields::default() };
    Service {
        key,
        vips: index.addresses_of(facts).map(vip).collect(),
        ports: Ports(facts.ports.iter().map(port).collect()),
        waypoint: waypoint::address(context, &index.service_bound(facts)).map(Arc::new),
        ip_families: facts.ip_families,
        canonical: true,
        visibility: Visibility::Public,
        rare: rare.into(),
    }
}

/// A named port is each endpoint's to resolve.
fn port(port: &ServicePort) -> Port {
    let target = match port.target {
        Target::Number(number) => number,
        Target::Name(_) => 0,
    };
    Port { service: port.number, target, protocol: port.protocol }
}

fn load_balancing(facts: &facts::Service) -> LoadBalancing {
    use Scope::{Network, Node, Region, Subzone, Zone};
    let (mode, preference): (_, &[Scope]) = match facts.traffic_distribution.as_deref() {
        _ if facts.node_local => (LoadBalancingMode::Strict, &[Node]),
        Some("PreferClose" | "PreferSameZone") => (LoadBalancingMode::Failover, &[Network, Region, Zone]),
        Some("PreferSameNode") => (LoadBalancingMode::Failover, &[Network, Region, Zone, Subzone, Node]),
        _ => (LoadBalancingMode::Unspecified, &[]),
    };
    LoadBalancing { preference: preference.into(), mode, allow_unhealthy: facts.publish_not_ready }
}

#[cfg(test)]
mod tests;
