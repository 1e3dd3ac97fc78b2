//! What the two ends of a tunnel tell each other about themselves for telemetry: the `baggage` header, and the
//! service asked for in `forwarded`, as Istio ambient words them. Nothing of it is ever believed for authorization.

use std::fmt::Write as _;

use crate::workload::Workload;

/// What a peer says of itself; empty where it does not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Baggage {
    /// Its cluster.
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
    /// The name of its owner.
    pub workload: String,
    /// The canonical service name.
    pub service: String,
    /// The canonical revision.
    pub revision: String,
    /// The region.
    pub region: String,
    /// The zone.
    pub zone: String,
}

/// The longest header that is read, in bytes; longer ones are ignored.
const MAX_LENGTH: usize = 4096;

/// The header for a workload.
pub fn encode(workload: &Workload) -> String {
    let profile = &workload.profile;
    let kind = format!("k8s.{}.name", profile.kind.as_str());
    let pairs: [(&str, &str); 7] = [
        ("k8s.cluster.name", &profile.cluster),
        ("k8s.namespace.name", workload.namespace()),
        (&kind, &profile.workload_name),
        ("service.name", &profile.canonical_name),
        ("service.version", &profile.canonical_revision),
        ("cloud.region", &profile.locality.region),
        ("cloud.availability_zone", &profile.locality.zone),
    ];
    let mut text = String::new();
    for (key, value) in pairs.into_iter().filter(|(_, value)| !value.is_empty()) {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{key}={value}");
    }
    text
}

impl Baggage {
    /// Reads headers as they came; of a repeated key the last counts, and an empty value is none. A header with
    /// control characters is ignored, so that none reaches a log.
    pub fn read<'a>(headers: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut baggage = Self::default();
        for text in headers.filter_map(text) {
            for (key, value) in text.split(',').filter_map(|pair| pair.split_once('=')) {
                if let Some(field) = baggage.field(key) {
                    value.clone_into(field);
                }
            }
        }
        baggage
    }

    fn field(&mut self, key: &str) -> Option<&mut String> {
        Some(match key {
            "k8s.cluster.name" => &mut self.cluster,
            "k8s.namespace.name" => &mut self.namespace,
            "k8s.deployment.name" | "k8s.cronjob.name" | "k8s.pod.name" | "k8s.job.name" => {
                &mut self.workload
            }
            "service.name" => &mut self.service,
            "service.version" => &mut self.revision,
            "cloud.region" => &mut self.region,
            "cloud.availability_zone" => &mut self.zone,
            _ => return None,
        })
    }
}

/// The `forwarded` header of a client at an address that asked for a service's host.
pub fn forwarded(client: std::net::SocketAddr, host: Option<&str>) -> String {
    match host {
        Some(host) => format!("for=\"{client}\";host={host}"),
        None => format!("for=\"{client}\""),
    }
}

/// The host of a `forwarded` header, without the quotes around it, if any. A header that is not plain ASCII is
/// ignored.
pub fn forwarded_host(header: &[u8]) -> Option<&str> {
    let text = text(header).filter(|text| text.is_ascii())?;
    let value = text.split(';').find_map(|part| part.trim_matches(' ').strip_prefix("host="))?;
    let host = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    Some(host).filter(|host| !host.is_empty() && !host.contains('"'))
}

/// A header's text, if it is one that can be shown.
fn text(header: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(header).ok().filter(|text| text.len() <= MAX_LENGTH)?;
    (!text.contains(char::is_control)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::{Baggage, MAX_LENGTH, encode, forwarded, forwarded_host};
    use crate::fixtures;

    #[test]
    fn reads_what_peers_send() {
        let headers: [&[u8]; 3] = [
            b"k8s.cluster.name=Kubernetes,k8s.namespace.name=a,k8s.deployment.name=x,service.name=s",
            b"service.name=t,service.version=",
            b"\xff\xff",
        ];
        let baggage = Baggage::read(headers.into_iter());
        assert_eq!(baggage.workload, "x");
        assert_eq!(baggage.service, "t");
        assert_eq!(baggage.revision, "");
    }

    #[test]
    fn ignores_headers_that_cannot_be_shown() {
        let long = [b"service.name=".as_slice(), &[b'x'; MAX_LENGTH]].concat();
        let headers: [&[u8]; 4] = [b"service.name=s", b"service.name=\n", b"service.name=\x7f", &long];
        assert_eq!(Baggage::read(headers.into_iter()).service, "s");
    }

    #[test]
    fn reads_what_it_writes() {
        let mut workload = fixtures::workload("uid", &[]);
        let profile = std::sync::Arc::make_mut(&mut workload.profile);
        profile.cluster = "Kubernetes".into();
        profile.workload_name = "reviews-v1".into();
        profile.canonical_name = "reviews".into();
        profile.canonical_revision = "v1".into();
        profile.locality.region = "north".into();
        profile.locality.zone = "north-a".into();
        let header = encode(&workload);
        assert_eq!(
            header,
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=ns,k8s.pod.name=reviews-v1,service.name=reviews,\
             service.version=v1,cloud.region=north,cloud.availability_zone=north-a"
        );
        let read = Baggage::read(std::iter::once(header.as_bytes()));
        let expected = Baggage {
            cluster: "Kubernetes".into(),
            namespace: "ns".into(),
            workload: "reviews-v1".into(),
            service: "reviews".into(),
            revision: "v1".into(),
            region: "north".into(),
            zone: "north-a".into(),
        };
        assert_eq!(read, expected);
        assert_eq!(encode(&fixtures::workload("uid", &[])), "k8s.namespace.name=ns");
    }

    #[test]
    fn finds_the_host_asked_for() {
        let client = "10.0.0.1:99".parse().unwrap();
        let header = forwarded(client, Some("reviews.default.svc.cluster.local"));
        assert_eq!(header, "for=\"10.0.0.1:99\";host=reviews.default.svc.cluster.local");
        assert_eq!(forwarded(client, None), "for=\"10.0.0.1:99\"");
        let table: [(&[u8], Option<&str>); 12] = [
            (header.as_bytes(), Some("reviews.default.svc.cluster.local")),
            (b"for=x; host=\"h\"", Some("h")),
            (b"host=h", Some("h")),
            (b"for=x", None),
            (b"for=x;host=", None),
            (b"for=x;host=\"\"", None),
            // One pair of quotes, or none.
            (b"host=\"\"h\"\"", None),
            (b"host=\"h", None),
            (b"host=h\"", None),
            (b"host=h\n", None),
            (b"host=\th", None),
            ("for=x;host=ä".as_bytes(), None),
        ];
        for (header, host) in table {
            assert_eq!(forwarded_host(header), host, "{}", String::from_utf8_lossy(header));
        }
    }
}
