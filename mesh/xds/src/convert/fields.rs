//! The fields that several resources have in common: addresses, ports, names, gateways, extensions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use ipnet::IpNet;
use model::address::{NamespacedHostname, NetworkAddress, Str};
use model::service::{AppProtocol, Port, Ports};
use model::workload::{GatewayAddress, GatewayDestination, PolicyName};
use proto::workload as wire;
use wire::gateway_address::Destination;

use super::intern::Strings;
use super::{FieldError, Reason};

/// 4 or 16 bytes; a v4-mapped address is taken for the IPv4 address it stands for.
pub(super) fn ip(bytes: &[u8]) -> Result<IpAddr, Reason> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ok(Ipv4Addr::from(octets).into());
    }
    if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
        return Ok(Ipv6Addr::from(octets).to_canonical());
    }
    Err(Reason::AddressLength(bytes.len()))
}

pub(super) fn ip_bytes(ip: IpAddr) -> Bytes {
    match ip {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}

/// A range. One that lies within the v4-mapped addresses means the IPv4 addresses: peers are compared as such, and
/// taken literally it would never match.
pub(super) fn range(bytes: &[u8], length: u32) -> Result<IpNet, Reason> {
    let mapped = bytes.len() == 16 && ip(bytes)?.is_ipv4();
    let (address, length) = match length.checked_sub(96) {
        Some(inner) if mapped => (ip(bytes)?, inner),
        _ if mapped => {
            let octets = <[u8; 16]>::try_from(bytes).map_err(|_| Reason::AddressLength(bytes.len()))?;
            (IpAddr::V6(octets.into()), length)
        }
        _ => (ip(bytes)?, length),
    };
    let prefix = u8::try_from(length).map_err(|_| Reason::PrefixLength(length))?;
    IpNet::new(address, prefix).map_err(|_| Reason::PrefixLength(length))
}

pub(super) fn port(number: u32) -> Result<u16, Reason> {
    u16::try_from(number).map_err(|_| Reason::Port(number))
}

/// `namespace/hostname`.
pub(super) fn service_key(strings: &mut Strings, text: &str) -> Result<NamespacedHostname, Reason> {
    let form = || Reason::Form { text: text.to_owned(), form: "NAMESPACE/HOSTNAME" };
    NamespacedHostname::parse(strings.get(text)).ok_or_else(form)
}

/// The same of a namespace and a host name beside each other.
pub(super) fn host(
    strings: &mut Strings,
    namespace: &str,
    hostname: &str,
) -> Result<NamespacedHostname, FieldError> {
    if hostname.is_empty() {
        return Err(FieldError::new("hostname", Reason::Missing));
    }
    if namespace.contains('/') {
        let reason = Reason::Form { text: namespace.to_owned(), form: "a name without /" };
        return Err(FieldError::new("namespace", reason));
    }
    service_key(strings, &format!("{namespace}/{hostname}"))
        .map_err(|reason| FieldError::new("hostname", reason))
}

/// `namespace/name` of a policy.
pub(super) fn policy_name(strings: &mut Strings, text: &str) -> Result<PolicyName, Reason> {
    match text.split_once('/') {
        Some((namespace, name)) if !name.is_empty() => {
            Ok(PolicyName { namespace: strings.get(namespace), name: strings.get(name) })
        }
        _ => Err(Reason::Form { text: text.to_owned(), form: "NAMESPACE/NAME" }),
    }
}

pub(super) fn ports(wire: &[wire::Port]) -> Result<Ports, FieldError> {
    let read = |entry: &wire::Port| {
        let protocol = wire::AppProtocol::try_from(entry.app_protocol)
            .map_err(|_| FieldError::new("ports.app_protocol", Reason::UnknownValue(entry.app_protocol)))?;
        Ok(Port {
            service: port(entry.service_port)
                .map_err(|reason| FieldError::new("ports.service_port", reason))?,
            target: port(entry.target_port).map_err(|reason| FieldError::new("ports.target_port", reason))?,
            protocol: app_protocol(protocol),
        })
    };
    wire.iter().map(read).collect::<Result<_, _>>().map(Ports)
}

pub(super) fn ports_to_wire(ports: &Ports) -> Vec<wire::Port> {
    let write = |port: &Port| wire::Port {
        service_port: port.service.into(),
        target_port: port.target.into(),
        app_protocol: match port.protocol {
            AppProtocol::Unknown => wire::AppProtocol::Unknown,
            AppProtocol::Http11 => wire::AppProtocol::Http11,
            AppProtocol::Http2 => wire::AppProtocol::Http2,
            AppProtocol::Grpc => wire::AppProtocol::Grpc,
            AppProtocol::Tcp => wire::AppProtocol::Tcp,
            AppProtocol::Tls => wire::AppProtocol::Tls,
        }
        .into(),
    };
    ports.0.iter().map(write).collect()
}

fn app_protocol(wire: wire::AppProtocol) -> AppProtocol {
    match wire {
        wire::AppProtocol::Unknown => AppProtocol::Unknown,
        wire::AppProtocol::Http11 => AppProtocol::Http11,
        wire::AppProtocol::Http2 => AppProtocol::Http2,
        wire::AppProtocol::Grpc => AppProtocol::Grpc,
        wire::AppProtocol::Tcp => AppProtocol::Tcp,
        wire::AppProtocol::Tls => AppProtocol::Tls,
    }
}

pub(super) fn gateway(
    strings: &mut Strings,
    wire: &wire::GatewayAddress,
) -> Result<GatewayAddress, FieldError> {
    let destination = match &wire.destination {
        Some(Destination::Hostname(name)) if !name.hostname.is_empty() => {
            GatewayDestination::Hostname(host(strings, &name.namespace, &name.hostname)?)
        }
        Some(Destination::Address(address)) => {
            let ip = ip(&address.address).map_err(|reason| FieldError::new("address", reason))?;
            GatewayDestination::Address(NetworkAddress::new(strings.get(&address.network), ip))
        }
        Some(Destination::Hostname(_)) | None => return Err(FieldError::new("destination", Reason::Missing)),
    };
    let hbone_port =
        port(wire.hbone_mtls_port).map_err(|reason| FieldError::new("hbone_mtls_port", reason))?;
    Ok(GatewayAddress { destination, hbone_port })
}

pub(super) fn gateway_to_wire(gateway: &GatewayAddress) -> wire::GatewayAddress {
    let destination = match &gateway.destination {
        GatewayDestination::Hostname(name) => Destination::Hostname(wire::NamespacedHostname {
            namespace: name.namespace().to_owned(),
            hostname: name.hostname().to_owned(),
        }),
        GatewayDestination::Address(address) => Destination::Address(address_to_wire(address)),
    };
    wire::GatewayAddress { destination: Some(destination), hbone_mtls_port: gateway.hbone_port.into() }
}

pub(super) fn address_to_wire(address: &NetworkAddress) -> wire::NetworkAddress {
    wire::NetworkAddress { network: address.network.to_string(), address: ip_bytes(address.ip), length: None }
}

/// An optional gateway under the name of its field.
pub(super) fn optional_gateway(
    strings: &mut Strings,
    field: &'static str,
    wire: Option<&wire::GatewayAddress>,
) -> Result<Option<GatewayAddress>, FieldError> {
    wire.map(|wire| gateway(strings, wire)).transpose().map_err(|error| error.within(field))
}

/// A part of an identity: it becomes a path segment of a URI, so it must neither be empty nor contain what separates
/// segments.
pub(super) fn identity_part(field: &'static str, text: Str) -> Result<Str, FieldError> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/') {
        return Ok(text);
    }
    Err(FieldError::new(field, Reason::Form { text: text.to_string(), form: "a name without / or blanks" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_4_or_16_bytes() {
        assert_eq!(ip(&[10, 0, 0, 1]), Ok(IpAddr::from([10, 0, 0, 1])));
        assert_eq!(ip(&[0; 16]), Ok(IpAddr::from([0_u8; 16])));
        let mapped = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets();
        assert_eq!(ip(&mapped), Ok(IpAddr::from([10, 0, 0, 1])));
        for length in [0, 1, 3, 5, 15, 17] {
            assert_eq!(ip(&vec![1; length]), Err(Reason::AddressLength(length)));
        }
    }

    #[test]
    fn ranges_fit_their_address() {
        let v4 = [10, 1, 0, 0];
        let mapped = Ipv4Addr::from(v4).to_ipv6_mapped().octets();
        let cases: [(&[u8], u32, Result<&str, Reason>); 8] = [
            (&v4, 16, Ok("10.1.0.0/16")),
            (&v4, 0, Ok("10.1.0.0/0")),
            (&v4, 33, Err(Reason::PrefixLength(33))),
            (&v4, 300, Err(Reason::PrefixLength(300))),
            (&[0; 16], 128, Ok("::/128")),
            (&[0; 16], 129, Err(Reason::PrefixLength(129))),
            (&mapped, 112, Ok("10.1.0.0/16")),
            (&mapped, 64, Ok("::ffff:10.1.0.0/64")),
        ];
        for (bytes, length, expected) in cases {
            assert_eq!(range(bytes, length).map(|range| range.to_string()), expected.map(str::to_owned));
        }
    }

    #[test]
    fn identity_parts_are_path_segments() {
        assert_eq!(identity_part("namespace", "a-b.c".into()), Ok("a-b.c".into()));
        for text in ["", "a/b", "a b", "a\0", "ä"] {
            assert!(identity_part("namespace", text.into()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_have_two_parts() {
        let strings = &mut Strings::default();
        assert!(service_key(strings, "ns/host.example").is_ok());
        for text in ["", "host", "ns/", "ns/host/8080"] {
            assert!(service_key(strings, text).is_err(), "{text}");
        }
        assert!(policy_name(strings, "ns/name").is_ok());
        for text in ["", "name", "ns/"] {
            assert!(policy_name(strings, text).is_err(), "{text}");
        }
    }
}
