//! `lateen.mesh.MeshSettings` ⇄ [`Settings`].

use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;
use model::Identity;
use model::mesh::{Settings, Trust};
use proto::mesh as wire;

use super::intern::Strings;
use super::{FieldError, Reason, fields};

pub(super) fn read(strings: &mut Strings, wire: &wire::MeshSettings) -> Result<Settings, FieldError> {
    let default = Settings::default();
    let trust_domain = strings.get_or(&wire.trust_domain, &default.trust_domain);
    Ok(Settings {
        trust_domain: fields::identity_part("trust_domain", trust_domain)?,
        trust_domain_aliases: wire.trust_domain_aliases.iter().map(|alias| strings.get(alias)).collect(),
        root_namespace: strings.get_or(&wire.root_namespace, &default.root_namespace),
        cluster: strings.get_or(&wire.cluster_id, &default.cluster),
        pod_ranges: ranges("pod_ranges", &wire.pod_ranges)?,
        service_ranges: ranges("service_ranges", &wire.service_ranges)?,
        trust: Trust {
            roots: owned(&wire.roots),
            crls: owned(&wire.crls),
            identities: identities(&wire.revoked_identities)?,
            issuer: Some(&wire.issuer).filter(|der| !der.is_empty()).map(|der| Arc::from(&**der)),
        },
    })
}

fn ranges(field: &'static str, wire: &[wire::AddressRange]) -> Result<Vec<IpNet>, FieldError> {
    let read = wire.iter().map(|range| fields::range(&range.address, range.length));
    read.collect::<Result<_, _>>().map_err(|reason| FieldError::new(field, reason))
}

fn identities(texts: &[String]) -> Result<Vec<Identity>, FieldError> {
    let read = |text: &String| {
        let form = "spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT";
        let reason = Reason::Form { text: text.clone(), form };
        text.parse().map_err(|_| FieldError::new("revoked_identities", reason))
    };
    texts.iter().map(read).collect()
}

/// Copies: what is read may be a view of a much larger message.
fn owned(ders: &[Bytes]) -> Vec<Arc<[u8]>> {
    ders.iter().map(|der| Arc::from(&**der)).collect()
}

/// The settings as they are sent; `network` is the one that addresses without a network belong to.
pub fn to_wire(settings: &Settings, network: &str) -> wire::MeshSettings {
    let range = |range: &IpNet| wire::AddressRange {
        address: fields::ip_bytes(range.addr()),
        length: range.prefix_len().into(),
    };
    let ranges = |all: &[IpNet]| all.iter().map(range).collect();
    let bytes = |ders: &[Arc<[u8]>]| ders.iter().map(|der| Bytes::copy_from_slice(der)).collect();
    let trust = &settings.trust;
    wire::MeshSettings {
        trust_domain: settings.trust_domain.to_string(),
        trust_domain_aliases: settings.trust_domain_aliases.iter().map(ToString::to_string).collect(),
        root_namespace: settings.root_namespace.to_string(),
        cluster_id: settings.cluster.to_string(),
        network: network.to_owned(),
        pod_ranges: ranges(&settings.pod_ranges),
        service_ranges: ranges(&settings.service_ranges),
        roots: bytes(&trust.roots),
        crls: bytes(&trust.crls),
        issuer: trust.issuer.as_deref().map(Bytes::copy_from_slice).unwrap_or_default(),
        revoked_identities: trust.identities.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let settings = Settings {
            trust_domain: "example.org".into(),
            trust_domain_aliases: vec!["old.example.org".into()],
            root_namespace: "mesh".into(),
            cluster: "east".into(),
            pod_ranges: vec!["10.244.0.0/16".parse().unwrap(), "fd00:10:244::/56".parse().unwrap()],
            service_ranges: vec!["10.96.0.0/16".parse().unwrap()],
            trust: Trust {
                roots: vec![Arc::from(*b"one"), Arc::from(*b"two")],
                crls: vec![Arc::from(*b"list")],
                identities: vec![Identity::new("example.org", "shop", "till")],
                issuer: Some(Arc::from(*b"two")),
            },
        };
        assert_eq!(read(&mut Strings::default(), &to_wire(&settings, "")), Ok(settings));
    }

    #[test]
    fn what_is_elided_is_the_default() {
        assert_eq!(read(&mut Strings::default(), &wire::MeshSettings::default()), Ok(Settings::default()));
    }

    #[test]
    fn refuses_an_identity_that_is_none() {
        let revoked_identities = vec!["shop/till".to_owned()];
        let wire = wire::MeshSettings { revoked_identities, ..Default::default() };
        assert!(read(&mut Strings::default(), &wire).is_err());
    }

    #[test]
    fn refuses_a_range_that_is_none() {
        let wire = wire::MeshSettings {
            pod_ranges: vec![wire::AddressRange { address: vec![10, 0].into(), length: 8 }],
            ..Default::default()
        };
        assert!(read(&mut Strings::default(), &wire).is_err());
    }
}
