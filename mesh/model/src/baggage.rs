//! What the two ends of a tunnel tell each other about themselves for telemetry: the `baggage` header, and the
//! service asked for in `forwarded` (`wire.md` 1.2). Nothing of it is ever believed for authorization.

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
    /// Reads headers as they came; of a repeated key the last counts, and an empty value is none.
    pub fn read<'a>(headers: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut baggage = Self::default();
        let texts = headers.filter(|header| header.len() <= MAX_LENGTH);
        for text in texts.filter_map(|header| std::str::from_utf8(header).ok()) {
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
            "k8s.deployment.name" | "k8s.cronjob.name" | "k8s.pod.name" | "k8s.job.name" => &mut self.workload,
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

/// The host of a `forwarded` header.
pub fn forwarded_host(header: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(header).ok().filter(|text| text.is_ascii() && text.len() <= MAX_LENGTH)?;
    let value = text.split(';').find_map(|part| part.trim().strip_prefix("host="))?;
    Some(value.trim_matches('"')).filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn finds_the_host_asked_for() {
        let client = "10.0.0.1:99".parse().unwrap();
        let header = forwarded(client, Some("reviews.default.svc.cluster.local"));
        assert_eq!(header, "for=\"10.0.0.1:99\";host=reviews.default.svc.cluster.local");
        assert_eq!(forwarded_host(header.as_bytes()), Some("reviews.default.svc.cluster.local"));
        assert_eq!(forwarded_host(b"for=x; host=\"h\""), Some("h"));
        assert_eq!(forwarded_host(b"for=x"), None);
        assert_eq!(forwarded_host("for=x;host=ä".as_bytes()), None);
    }
}
