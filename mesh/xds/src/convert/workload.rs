//! `istio.workload.Workload` ⇄ [`Workload`].

use model::Identity;
use model::address::Str;
use model::mesh::Settings;
use model::workload::{ApplicationTunnel, Health, Locality, Profile, TunnelProtocol, Workload, WorkloadKind};
use proto::workload as wire;
use proto::{Any, extension, mesh};
use wire::application_tunnel::Protocol;

use super::intern::{Profiles, Strings};
use super::{FieldError, Reason, fields};

/// What an empty service account means on the wire.
const DEFAULT_ACCOUNT: &str = "default";
/// What an empty cluster means on the wire.
const DEFAULT_CLUSTER: &str = "Kubernetes";

pub(super) fn read(
    strings: &mut Strings,
    profiles: &mut Profiles,
    settings: &Settings,
    name: &Str,
    wire: &wire::Workload,
) -> Result<Workload, FieldError> {
    if wire.uid.is_empty() {
        return Err(FieldError::new("uid", Reason::Missing));
    }
    if wire.uid != **name {
        return Err(FieldError::new("uid", Reason::OtherName(wire.uid.clone())));
    }
    let addresses = wire
        .addresses
        .iter()
        .map(|address| fields::ip(address))
        .collect::<Result<_, _>>()
        .map_err(|reason| FieldError::new("addresses", reason))?;
    let status = match wire::WorkloadStatus::try_from(wire.status) {
        Ok(wire::WorkloadStatus::Healthy) => Health::Healthy,
        Ok(wire::WorkloadStatus::Unhealthy) => Health::Unhealthy,
        Err(_) => return Err(unknown("status", wire.status)),
    };
    Ok(Workload {
        uid: name.clone(),
        // As unique as the uid: not worth a place among the shared strings.
        name: Str::from(wire.name.as_str()),
        addresses,
        node: strings.get(&wire.node),
        status,
        profile: profiles.get(profile(strings, settings, wire)?),
    })
}

fn unknown(field: &'static str, number: i32) -> FieldError {
    FieldError::new(field, Reason::UnknownValue(number))
}

fn profile(strings: &mut Strings, settings: &Settings, wire: &wire::Workload) -> Result<Profile, FieldError> {
    Ok(Profile {
        identity: identity(strings, settings, wire)?,
        network: strings.get(&wire.network),
        protocol: protocol(wire.tunnel_protocol)?,
        host_network: match wire::NetworkMode::try_from(wire.network_mode) {
            Ok(wire::NetworkMode::Standard) => false,
            Ok(wire::NetworkMode::HostNetwork) => true,
            Err(_) => return Err(unknown("network_mode", wire.network_mode)),
        },
        native_tunnel: wire.native_tunnel,
        hostname: strings.get(&wire.hostname),
        canonical_name: strings.get(&wire.canonical_name),
        canonical_revision: strings.get(&wire.canonical_revision),
        kind: kind(wire.workload_type)?,
        workload_name: strings.get(&wire.workload_name),
        waypoint: fields::optional_gateway(strings, "waypoint", wire.waypoint.as_ref())?,
        network_gateway: fields::optional_gateway(strings, "network_gateway", wire.network_gateway.as_ref())?,
        services: services(strings, wire)?,
        policies: wire
            .authorization_policies
            .iter()
            .map(|name| fields::policy_name(strings, name))
            .collect::<Result<_, _>>()
            .map_err(|reason| FieldError::new("authorization_policies", reason))?,
        enforced_by: enforced_by(&wire.extensions)?,
        cluster: strings.get_or(&wire.cluster_id, DEFAULT_CLUSTER),
        locality: wire.locality.as_ref().map_or_else(Locality::default, |locality| Locality {
            region: strings.get(&locality.region),
            zone: strings.get(&locality.zone),
            subzone: strings.get(&locality.subzone),
        }),
        capacity: wire.capacity.unwrap_or(1),
        application_tunnel: wire.application_tunnel.as_ref().map(application_tunnel).transpose()?,
    })
}

fn identity(
    strings: &mut Strings,
    settings: &Settings,
    wire: &wire::Workload,
) -> Result<Identity, FieldError> {
    let trust_domain = strings.get_or(&wire.trust_domain, &settings.trust_domain);
    let namespace = strings.get(&wire.namespace);
    let account = strings.get_or(&wire.service_account, DEFAULT_ACCOUNT);
    Ok(Identity::new(
        fields::identity_part("trust_domain", trust_domain)?,
        fields::identity_part("namespace", namespace)?,
        fields::identity_part("service_account", account)?,
    ))
}

fn protocol(number: i32) -> Result<TunnelProtocol, FieldError> {
    match wire::TunnelProtocol::try_from(number) {
        Ok(wire::TunnelProtocol::None) => Ok(TunnelProtocol::Tcp),
        Ok(wire::TunnelProtocol::Hbone) => Ok(TunnelProtocol::Hbone),
        Ok(wire::TunnelProtocol::LegacyIstioMtls) => {
            Err(FieldError::new("tunnel_protocol", Reason::LegacyTunnel))
        }
        Err(_) => Err(unknown("tunnel_protocol", number)),
    }
}

fn kind(number: i32) -> Result<WorkloadKind, FieldError> {
    match wire::WorkloadType::try_from(number) {
        Ok(wire::WorkloadType::Deployment) => Ok(WorkloadKind::Deployment),
        Ok(wire::WorkloadType::Cronjob) => Ok(WorkloadKind::CronJob),
        Ok(wire::WorkloadType::Pod) => Ok(WorkloadKind::Pod),
        Ok(wire::WorkloadType::Job) => Ok(WorkloadKind::Job),
        Err(_) => Err(unknown("workload_type", number)),
    }
}

type Services = Box<[(model::address::NamespacedHostname, model::service::Ports)]>;

fn services(strings: &mut Strings, wire: &wire::Workload) -> Result<Services, FieldError> {
    let read = |(key, list): (&String, &wire::PortList)| {
        let name = fields::service_key(strings, key).map_err(|reason| FieldError::new("services", reason))?;
        let ports =
            fields::ports(&list.ports).map_err(|error| error.within(format_args!("services[{key}]")))?;
        Ok((name, ports))
    };
    wire.services.iter().map(read).collect()
}

/// The waypoints that have already judged, or `None` where the controller does not say.
fn enforced_by(extensions: &[wire::Extension]) -> Result<Option<Box<[Identity]>>, FieldError> {
    let wrong = |reason| FieldError::new("extensions[lateen.dev/enforced-by]", reason);
    let Some(config) = find(extensions, extension::ENFORCED_BY) else { return Ok(None) };
    let content: mesh::EnforcedBy = config
        .unpack()
        .ok_or_else(|| wrong(Reason::UnknownType(config.type_url.clone())))?
        .map_err(|error| wrong(Reason::Malformed(error.to_string())))?;
    let identities = content.identities.iter().map(|identity| identity.parse());
    identities
        .collect::<Result<_, model::identity::InvalidIdentity>>()
        .map(Some)
        .map_err(|error| wrong(Reason::Malformed(error.to_string())))
}

fn find<'a>(extensions: &'a [wire::Extension], name: &str) -> Option<&'a Any> {
    extensions.iter().find(|extension| extension.name == name)?.config.as_ref()
}

fn application_tunnel(wire: &wire::ApplicationTunnel) -> Result<ApplicationTunnel, FieldError> {
    Ok(ApplicationTunnel {
        proxy_protocol: match Protocol::try_from(wire.protocol) {
            Ok(Protocol::None) => false,
            Ok(Protocol::Proxy) => true,
            Err(_) => return Err(unknown("application_tunnel.protocol", wire.protocol)),
        },
        port: fields::port(wire.port).map_err(|reason| FieldError::new("application_tunnel.port", reason))?,
    })
}

/// A workload's labels, where the controller sends them (to waypoints and gateways).
pub fn labels(wire: &wire::Workload) -> Option<std::collections::BTreeMap<String, String>> {
    let labels: mesh::Labels = find(&wire.extensions, extension::LABELS)?.unpack()?.ok()?;
    Some(labels.labels)
}

/// Packs an extension under its name.
pub fn extension<M: prost::Message + prost::Name>(name: &str, content: &M) -> wire::Extension {
    wire::Extension { name: name.to_owned(), config: Some(Any::pack(content)) }
}

/// The workload as it is sent, under the name of its uid. The trust domain is always written, so that its meaning
/// does not depend on what the reader takes for the default.
pub fn to_wire(workload: &Workload) -> wire::Workload {
    let profile = &*workload.profile;
    let elide = |text: &Str, default: &str| if **text == *default { String::new() } else { text.to_string() };
    let locality = wire::Locality {
        region: profile.locality.region.to_string(),
        zone: profile.locality.zone.to_string(),
        subzone: profile.locality.subzone.to_string(),
    };
    wire::Workload {
        uid: workload.uid.to_string(),
        name: workload.name.to_string(),
        namespace: profile.identity.namespace().to_string(),
        addresses: workload.addresses.iter().map(|ip| fields::ip_bytes(*ip)).collect(),
        hostname: profile.hostname.to_string(),
        network: profile.network.to_string(),
        tunnel_protocol: match profile.protocol {
            TunnelProtocol::Tcp => wire::TunnelProtocol::None,
            TunnelProtocol::Hbone => wire::TunnelProtocol::Hbone,
        }
        .into(),
        trust_domain: profile.identity.trust_domain().to_string(),
        service_account: elide(profile.identity.service_account(), DEFAULT_ACCOUNT),
        waypoint: profile.waypoint.as_ref().map(fields::gateway_to_wire),
        network_gateway: profile.network_gateway.as_ref().map(fields::gateway_to_wire),
        node: workload.node.to_string(),
        canonical_name: profile.canonical_name.to_string(),
        canonical_revision: profile.canonical_revision.to_string(),
        workload_type: kind_to_wire(profile.kind).into(),
        workload_name: profile.workload_name.to_string(),
        native_tunnel: profile.native_tunnel,
        application_tunnel: profile.application_tunnel.map(|tunnel| wire::ApplicationTunnel {
            protocol: if tunnel.proxy_protocol { Protocol::Proxy } else { Protocol::None }.into(),
            port: tunnel.port.into(),
        }),
        services: services_to_wire(profile),
        authorization_policies: profile.policies.iter().map(ToString::to_string).collect(),
        status: match workload.status {
            Health::Healthy => wire::WorkloadStatus::Healthy,
            Health::Unhealthy => wire::WorkloadStatus::Unhealthy,
        }
        .into(),
        cluster_id: elide(&profile.cluster, DEFAULT_CLUSTER),
        locality: (profile.locality != Locality::default()).then_some(locality),
        network_mode: if profile.host_network {
            wire::NetworkMode::HostNetwork
        } else {
            wire::NetworkMode::Standard
        }
        .into(),
        extensions: profile.enforced_by.as_deref().map(enforced_by_to_wire).into_iter().collect(),
        capacity: (profile.capacity != 1).then_some(profile.capacity),
    }
}

fn kind_to_wire(kind: WorkloadKind) -> wire::WorkloadType {
    match kind {
        WorkloadKind::Deployment => wire::WorkloadType::Deployment,
        WorkloadKind::CronJob => wire::WorkloadType::Cronjob,
        WorkloadKind::Pod => wire::WorkloadType::Pod,
        WorkloadKind::Job => wire::WorkloadType::Job,
    }
}

fn services_to_wire(profile: &Profile) -> std::collections::BTreeMap<String, wire::PortList> {
    let write = |(name, ports): &(model::address::NamespacedHostname, model::service::Ports)| {
        (name.to_string(), wire::PortList { ports: fields::ports_to_wire(ports) })
    };
    profile.services.iter().map(write).collect()
}

fn enforced_by_to_wire(identities: &[Identity]) -> wire::Extension {
    let content = mesh::EnforcedBy { identities: identities.iter().map(ToString::to_string).collect() };
    extension(extension::ENFORCED_BY, &content)
}

/// Other names that a workload is asked for by: `network/address`, unless its addresses are its node's.
pub fn aliases(workload: &Workload) -> Vec<Str> {
    if workload.profile.host_network {
        return Vec::new();
    }
    let network = &workload.profile.network;
    workload.addresses.iter().map(|ip| crate::names::at(network, *ip)).collect()
}

#[cfg(test)]
mod tests;
