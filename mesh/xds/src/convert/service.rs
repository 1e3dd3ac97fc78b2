//! `istio.workload.Service` ⇄ [`Service`].

use model::address::{Few, NetworkAddress, Str};
use model::service::{
    IpFamilies, LoadBalancing, LoadBalancingMode, RareFields, Scope, Service, Visibility, short_name,
};
use model::workload::GatewayAddress;
use proto::workload as wire;
use wire::load_balancing::{HealthPolicy, Mode, Scope as WireScope};

use super::intern::{Gateways, Strings};
use super::{FieldError, Reason, fields};

pub(super) fn read(
    strings: &mut Strings,
    gateways: &mut Gateways,
    name: &Str,
    wire: &wire::Service,
) -> Result<Service, FieldError> {
    // The text that it was sent under, where nobody has an equal one: a name is kept once.
    strings.share(name);
    let key = fields::host(strings, &wire.namespace, &wire.hostname)?;
    if key.text() != name {
        return Err(FieldError::new("hostname", Reason::OtherName(key.to_string())));
    }
    let (vips, cidr_vips) = addresses(strings, &wire.addresses)?;
    let rare = RareFields {
        name: (wire.name != short_name(&wire.hostname)).then(|| strings.get(&wire.name)),
        cidr_vips,
        subject_alt_names: wire.subject_alt_names.iter().map(|san| strings.get(san)).collect(),
        load_balancing: wire.load_balancing.as_ref().map(load_balancing).transpose()?.unwrap_or_default(),
    };
    let families = wire::IpFamilies::try_from(wire.ip_families)
        .map_err(|_| FieldError::new("ip_families", Reason::UnknownValue(wire.ip_families)))?;
    Ok(Service {
        key,
        vips,
        ports: fields::ports(&wire.ports)?,
        waypoint: waypoint(strings, wire)?.map(|waypoint| gateways.get(waypoint)),
        ip_families: match families {
            wire::IpFamilies::Automatic => IpFamilies::Automatic,
            wire::IpFamilies::Ipv4Only => IpFamilies::V4Only,
            wire::IpFamilies::Ipv6Only => IpFamilies::V6Only,
            wire::IpFamilies::Dual => IpFamilies::Dual,
        },
        canonical: wire.canonical,
        // What a newer controller adds between public and private is nothing that older proxies ever hid.
        visibility: match wire::Visibility::try_from(wire.visibility) {
            Ok(wire::Visibility::Namespace) => Visibility::Namespace,
            Ok(wire::Visibility::Public) | Err(_) => Visibility::Public,
        },
        rare: rare.into(),
    })
}

type Addresses = (Few<NetworkAddress>, Box<[(Str, ipnet::IpNet)]>);

/// Single addresses, and ranges. A range of one address is that address.
fn addresses(strings: &mut Strings, wire: &[wire::NetworkAddress]) -> Result<Addresses, FieldError> {
    let (mut vips, mut ranges) = (Vec::new(), Vec::new());
    let wrong = |reason| FieldError::new("addresses", reason);
    for address in wire {
        let network = strings.get(&address.network);
        match address.length {
            None => {
                vips.push(NetworkAddress::new(network, fields::ip(&address.address).map_err(wrong)?));
            }
            Some(length) => {
                let range = fields::range(&address.address, length).map_err(wrong)?;
                if range.prefix_len() == range.max_prefix_len() {
                    vips.push(NetworkAddress::new(network, range.addr()));
                } else {
                    ranges.push((network, range));
                }
            }
        }
    }
    Ok((vips.into(), ranges.into()))
}

/// Of several waypoints by weight, the heaviest: every one of them enforces the same policies, and spreading over
/// them is not built.
fn waypoint(strings: &mut Strings, wire: &wire::Service) -> Result<Option<GatewayAddress>, FieldError> {
    let heaviest = wire
        .weighted_waypoints
        .iter()
        .rev()
        .filter(|waypoint| waypoint.weight > 0)
        .max_by_key(|waypoint| waypoint.weight)
        .and_then(|waypoint| waypoint.destination.as_ref());
    match heaviest {
        Some(gateway) => fields::optional_gateway(strings, "weighted_waypoints", Some(gateway)),
        None => fields::optional_gateway(strings, "waypoint", wire.waypoint.as_ref()),
    }
}

fn load_balancing(wire: &wire::LoadBalancing) -> Result<LoadBalancing, FieldError> {
    let unknown = |field, number| FieldError::new(field, Reason::UnknownValue(number));
    let scope = |number: &i32| match WireScope::try_from(*number) {
        Ok(WireScope::Region) => Ok(Scope::Region),
        Ok(WireScope::Zone) => Ok(Scope::Zone),
        Ok(WireScope::Subzone) => Ok(Scope::Subzone),
        Ok(WireScope::Node) => Ok(Scope::Node),
        Ok(WireScope::Cluster) => Ok(Scope::Cluster),
        Ok(WireScope::Network) => Ok(Scope::Network),
        Ok(WireScope::UnspecifiedScope) | Err(_) => {
            Err(unknown("load_balancing.routing_preference", *number))
        }
    };
    Ok(LoadBalancing {
        preference: wire.routing_preference.iter().map(scope).collect::<Result<_, _>>()?,
        mode: match Mode::try_from(wire.mode) {
            Ok(Mode::UnspecifiedMode) => LoadBalancingMode::Unspecified,
            Ok(Mode::Strict) => LoadBalancingMode::Strict,
            Ok(Mode::Failover) => LoadBalancingMode::Failover,
            Ok(Mode::Passthrough) => LoadBalancingMode::Passthrough,
            Err(_) => return Err(unknown("load_balancing.mode", wire.mode)),
        },
        allow_unhealthy: match HealthPolicy::try_from(wire.health_policy) {
            Ok(HealthPolicy::OnlyHealthy) => false,
            Ok(HealthPolicy::AllowAll) => true,
            Err(_) => return Err(unknown("load_balancing.health_policy", wire.health_policy)),
        },
    })
}

/// The service as it is sent, under the name of its [key](Service::key).
pub fn to_wire(service: &Service) -> wire::Service {
    let ranges = service.rare.cidr_vips.iter().map(|(network, range)| wire::NetworkAddress {
        network: network.to_string(),
        address: fields::ip_bytes(range.addr()),
        length: Some(range.prefix_len().into()),
    });
    wire::Service {
        name: service.name().to_owned(),
        namespace: service.key.namespace().to_owned(),
        hostname: service.key.hostname().to_owned(),
        addresses: service.vips.iter().map(fields::address_to_wire).chain(ranges).collect(),
        ports: fields::ports_to_wire(&service.ports),
        subject_alt_names: service.rare.subject_alt_names.iter().map(ToString::to_string).collect(),
        waypoint: service.waypoint.as_deref().map(fields::gateway_to_wire),
        load_balancing: load_balancing_to_wire(&service.rare.load_balancing),
        ip_families: match service.ip_families {
            IpFamilies::Automatic => wire::IpFamilies::Automatic,
            IpFamilies::V4Only => wire::IpFamilies::Ipv4Only,
            IpFamilies::V6Only => wire::IpFamilies::Ipv6Only,
            IpFamilies::Dual => wire::IpFamilies::Dual,
        }
        .into(),
        extensions: Vec::new(),
        canonical: service.canonical,
        ingress_use_waypoint: false,
        weighted_waypoints: Vec::new(),
        visibility: match service.visibility {
            Visibility::Public => wire::Visibility::Public,
            Visibility::Namespace => wire::Visibility::Namespace,
        }
        .into(),
    }
}

fn load_balancing_to_wire(load_balancing: &LoadBalancing) -> Option<wire::LoadBalancing> {
    let scope = |scope: &Scope| {
        match scope {
            Scope::Region => WireScope::Region,
            Scope::Zone => WireScope::Zone,
            Scope::Subzone => WireScope::Subzone,
            Scope::Node => WireScope::Node,
            Scope::Cluster => WireScope::Cluster,
            Scope::Network => WireScope::Network,
        }
        .into()
    };
    let mode = match load_balancing.mode {
        LoadBalancingMode::Unspecified => Mode::UnspecifiedMode,
        LoadBalancingMode::Strict => Mode::Strict,
        LoadBalancingMode::Failover => Mode::Failover,
        LoadBalancingMode::Passthrough => Mode::Passthrough,
    };
    let health =
        if load_balancing.allow_unhealthy { HealthPolicy::AllowAll } else { HealthPolicy::OnlyHealthy };
    (*load_balancing != LoadBalancing::default()).then(|| wire::LoadBalancing {
        routing_preference: load_balancing.preference.iter().map(scope).collect(),
        mode: mode.into(),
        health_policy: health.into(),
    })
}

/// Other names that a service is asked for by: `network/address`, and `network/address/length` of a range.
pub fn aliases(service: &Service) -> Vec<Str> {
    let vips = service.vips.iter().map(|vip| vip.to_string().into());
    let ranges = service
        .rare
        .cidr_vips
        .iter()
        .map(|(network, range)| format!("{network}/{}/{}", range.addr(), range.prefix_len()).into());
    vips.chain(ranges).collect()
}

#[cfg(test)]
mod tests;
