//! The `istio_dns_*` series, under ztunnel's names.

use std::time::Duration;

use hickory_proto::rr::RecordType;
use model::address::Str;
use model::workload::Workload;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::dns::Over;

/// The labels of a query.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Labels {
    request_query_type: String,
    request_protocol: &'static str,
    source_canonical_service: String,
    source_canonical_revision: String,
}

impl Labels {
    /// Of a query of a pod, as far as the controller has told of it.
    pub(crate) fn of(asked: Option<RecordType>, over: Over, client: Option<&Workload>) -> Self {
        use RecordType::{A, AAAA, PTR, SRV, TXT};
        let known = |text: Option<&Str>| match text {
            Some(text) if !text.is_empty() => text.to_string(),
            _ => String::from("unknown"),
        };
        Self {
            request_query_type: match asked {
                Some(kind @ (A | AAAA | SRV | TXT | PTR)) => kind.to_string(),
                // A client could make up sixty thousand types.
                _ => String::from("other"),
            },
            request_protocol: over.as_str(),
            source_canonical_service: known(client.map(|client| &client.profile.canonical_name)),
            source_canonical_revision: known(client.map(|client| &client.profile.canonical_revision)),
        }
    }
}

/// Queries and what became of them.
#[derive(Debug)]
pub(crate) struct DnsMetrics {
    requests: Family<Labels, Counter>,
    upstream_requests: Family<Labels, Counter>,
    upstream_failures: Family<Labels, Counter>,
    upstream_duration: Histogram,
}

impl DnsMetrics {
    /// Registers the series.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            upstream_requests: Family::default(),
            upstream_failures: Family::default(),
            upstream_duration: Histogram::new([0.0005, 0.001, 0.01, 0.1, 1.0, 5.0]),
        };
        registry.register("dns_requests", "DNS queries", metrics.requests.clone());
        registry.register(
            "dns_upstream_requests",
            "DNS queries forwarded",
            metrics.upstream_requests.clone(),
        );
        registry.register(
            "dns_upstream_failures",
            "DNS queries not answered upstream",
            metrics.upstream_failures.clone(),
        );
        registry.register_with_unit(
            "dns_upstream_request_duration",
            "Time that name servers took",
            Unit::Seconds,
            metrics.upstream_duration.clone(),
        );
        metrics
    }

    /// A query came.
    pub(crate) fn request(&self, labels: &Labels) {
        self.requests.get_or_create(labels).inc();
    }

    /// A name server was asked.
    pub(crate) fn upstream(&self, labels: &Labels, took: Duration, answered: bool) {
        self.upstream_requests.get_or_create(labels).inc();
        if !answered {
            self.upstream_failures.get_or_create(labels).inc();
        }
        self.upstream_duration.observe(took.as_secs_f64());
    }
}
