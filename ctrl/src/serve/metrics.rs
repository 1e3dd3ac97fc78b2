//! What is sent and refused, under istiod's names where they mean the same.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use daemon::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use xds::delta::session::Event;
use xds::server::Report;

/// Metrics of the xDS server and of the configuration behind it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct XdsMetrics {
    clients: Gauge,
    pushes: Family<Type, Counter>,
    bytes: Family<Type, Counter>,
    rejects: Counter,
    too_many_names: Counter,
    /// How many services there are.
    pub services: Gauge,
    /// How many findings of level error there are.
    pub errors: Gauge,
    /// The revision of what is published.
    pub revision: Gauge<f64, AtomicU64>,
    /// Batches of changes taken.
    pub batches: Counter,
    /// Requests to the API server that failed.
    pub source_errors: Counter,
    convergence: Convergence,
}

/// Seconds from a batch of changes to all proxies having it in force.
#[derive(Debug, Clone)]
struct Convergence(Histogram);

impl Default for Convergence {
    fn default() -> Self {
        Self(Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 3.0, 10.0, 30.0]))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Type {
    r#type: String,
}

impl XdsMetrics {
    /// Adds them to what is scraped.
    pub fn register(&self, metrics: &Metrics) {
        metrics.register(|registry| {
            registry.register("pilot_xds", "Proxies connected", self.clients.clone());
            registry.register("pilot_xds_pushes", "Responses sent, by type", self.pushes.clone());
            registry.register("pilot_xds_sent_bytes", "Bytes of responses, by type", self.bytes.clone());
            registry.register(
                "pilot_total_xds_rejects",
                "Responses that a proxy refused",
                self.rejects.clone(),
            );
            registry.register(
                "lateen_xds_too_many_names",
                "Streams ended because a proxy asked for more names than one may",
                self.too_many_names.clone(),
            );
            registry.register(
                "pilot_proxy_convergence_time",
                "Seconds from a batch of changes to all proxies having it in force",
                self.convergence.0.clone(),
            );
            registry.register("pilot_services", "Services known", self.services.clone());
            registry.register("pilot_push_triggers", "Batches of changes taken", self.batches.clone());
            registry.register("lateen_config_errors", "Errors in the manifests", self.errors.clone());
            let help = "Requests of configuration to the API server that failed and are tried again";
            registry.register("lateen_config_source_errors", help, self.source_errors.clone());
            registry.register("lateen_config_revision", "Revision published", self.revision.clone());
        });
    }

    /// Notes how long it took until all proxies had a batch in force.
    pub fn converged(&self, after: Duration) {
        self.convergence.0.observe(after.as_secs_f64());
    }

    /// Notes what happened on a stream.
    pub fn note(&self, report: &Report<'_>) {
        match report {
            Report::Connected => drop(self.clients.inc()),
            Report::Disconnected => drop(self.clients.dec()),
            Report::Sent { type_url, bytes, .. } => {
                let label = Type { r#type: short(type_url).to_owned() };
                self.pushes.get_or_create(&label).inc();
                self.bytes.get_or_create(&label).inc_by(*bytes as u64);
            }
            Report::Event(Event::Nacked { .. }) => drop(self.rejects.inc()),
            Report::TooManyNames => drop(self.too_many_names.inc()),
            Report::Event(_) => {}
        }
    }
}

/// istiod's short names: wds and wads.
fn short(type_url: &str) -> &str {
    match type_url {
        proto::type_url::ADDRESS => "wds",
        proto::type_url::AUTHORIZATION => "wads",
        other => other.rsplit('.').next().unwrap_or(other),
    }
}
