//! The labels of the `istio_tcp_*` series.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};

use crate::metrics::end::{End, ServiceLabels};

/// A namespace and a workload in it.
pub(super) type Own = (Arc<str>, Arc<str>);

/// Which end of a connection reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The client's agent.
    Source,
    /// The server's agent.
    Destination,
    /// A waypoint between the two.
    Waypoint,
}

impl Reporter {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Waypoint => "waypoint",
        }
    }
}

/// The labels of one series, in the order of Istio's `istio_tcp_*` metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// Who reports.
    pub reporter: Reporter,
    /// The client.
    pub source: End,
    /// The server.
    pub destination: End,
    /// The service asked for.
    pub service: ServiceLabels,
    /// Whether the connection was mutually authenticated.
    pub mutual_tls: bool,
    /// How it ended: `-`, or a flag such as `DENY`.
    pub flags: &'static str,
}

/// By what tells most series apart: every connection is hashed, at both of its ends.
impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.reporter, self.flags, self.mutual_tls).hash(state);
        let ends = [&self.source, &self.destination].map(|end| (&end.namespace, &end.workload));
        (ends, self.service.hostname()).hash(state);
    }
}

impl Labels {
    /// Series of connections that did not fit under the cap. No workload's: it is not counted as one.
    pub(super) fn overflow(reporter: Reporter) -> Self {
        Self {
            reporter,
            source: End::default(),
            destination: End::default(),
            service: ServiceLabels::default(),
            mutual_tls: false,
            flags: "-",
        }
    }

    /// The workload of this node that it is reported of.
    pub(super) fn own(&self) -> Own {
        let own = match self.reporter {
            Reporter::Source => &self.source,
            Reporter::Destination | Reporter::Waypoint => &self.destination,
        };
        (own.namespace.clone(), own.workload.clone())
    }

    /// Names and values, in Istio's order; `request_protocol` is `tcp`.
    pub fn pairs(&self) -> [(&'static str, &str); 27] {
        let (source, destination) = (&self.source, &self.destination);
        [
            ("reporter", self.reporter.as_str()),
            ("source_workload", &source.workload),
            ("source_canonical_service", &source.canonical_service),
            ("source_canonical_revision", &source.canonical_revision),
            ("source_workload_namespace", &source.namespace),
            ("source_principal", &source.principal),
            ("source_app", &source.canonical_service),
            ("source_version", &source.canonical_revision),
            ("source_cluster", &source.cluster),
            ("destination_service", self.service.hostname()),
            ("destination_service_namespace", self.service.namespace()),
            ("destination_service_name", self.service.name()),
            ("destination_workload", &destination.workload),
            ("destination_canonical_service", &destination.canonical_service),
            ("destination_canonical_revision", &destination.canonical_revision),
            ("destination_workload_namespace", &destination.namespace),
            ("destination_principal", &destination.principal),
            ("destination_app", &destination.canonical_service),
            ("destination_version", &destination.canonical_revision),
            ("destination_cluster", &destination.cluster),
            ("request_protocol", "tcp"),
            ("response_flags", self.flags),
            ("connection_security_policy", if self.mutual_tls { "mutual_tls" } else { "unknown" }),
            ("source_region", &source.region),
            ("source_zone", &source.zone),
            ("destination_region", &destination.region),
            ("destination_zone", &destination.zone),
        ]
    }
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, value) in self.pairs() {
            let value = if value.is_empty() { "unknown" } else { value };
            (name, value).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}
