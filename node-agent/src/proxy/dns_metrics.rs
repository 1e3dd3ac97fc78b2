//! The `istio_dns_*` series (`features.md` D1).

use std::time::Duration;

use hickory_proto::rr::RecordType;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::dns::Over;
use super::pod::Pod;

/// The labels of a query. The pod's canonical service is not among its own facts, its account stands for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    request_query_type: String,
    request_protocol: String,
    source_canonical_service: String,
    source_canonical_revision: String,
}

/// Queries and what became of them.
#[derive(Debug)]
pub(crate) struct DnsMetrics {
    requests: Family<Labels, Counter>,
    upstream_requests: Counter,
    upstream_failures: Counter,
    upstream_duration: Histogram,
}

impl DnsMetrics {
    /// Registers the series.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            upstream_requests: Counter::default(),
            upstream_failures: Counter::default(),
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
    pub(crate) fn request(&self, asked: Option<RecordType>, over: Over, pod: &Pod) {
        let kind = match asked {
            Some(
                known @ (RecordType::A
                | RecordType::AAAA
                | RecordType::SRV
                | RecordType::TXT
                | RecordType::PTR),
            ) => known.to_string(),
            // A client could make up sixty thousand types.
            _ => String::from("other"),
        };
        let labels = Labels {
            request_query_type: kind,
            request_protocol: over.as_str().to_owned(),
            source_canonical_service: pod.service_account.clone(),
            source_canonical_revision: String::from("unknown"),
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// A name server was asked.
    pub(crate) fn upstream(&self, took: Duration, answered: bool) {
        self.upstream_requests.inc();
        if !answered {
            self.upstream_failures.inc();
        }
        self.upstream_duration.observe(took.as_secs_f64());
    }
}
