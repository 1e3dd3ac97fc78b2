//! The `istio_xds_*` series: what came from the controller, and how connections to it ended.

use daemon::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use xds::client::{Ending, Observer};

/// The series.
#[derive(Debug)]
pub(super) struct XdsMetrics {
    messages: Family<Url, Counter>,
    bytes: Family<Url, Counter>,
    terminations: Family<Reason, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Url {
    url: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: String,
}

impl XdsMetrics {
    /// Registers the series.
    pub(super) fn new(metrics: &Metrics) -> Self {
        let this =
            Self { messages: Family::default(), bytes: Family::default(), terminations: Family::default() };
        metrics.register_istio(|registry| {
            registry.register("xds_message", "Messages from the controller", this.messages.clone());
            registry.register("xds_message_bytes", "Bytes from the controller", this.bytes.clone());
            let help = "Connections to the controller that ended";
            registry.register("xds_connection_terminations", help, this.terminations.clone());
        });
        this
    }
}

impl Observer for XdsMetrics {
    fn received(&self, type_url: &str, bytes: usize) {
        let url = Url { url: type_url.to_owned() };
        self.messages.get_or_create(&url).inc();
        self.bytes.get_or_create(&url).inc_by(bytes as u64);
    }

    fn ended(&self, ending: Ending) {
        let reason = Reason { reason: format!("{ending:?}") };
        self.terminations.get_or_create(&reason).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_what_came_and_by_how_it_ended() {
        let metrics = Metrics::default();
        let xds = XdsMetrics::new(&metrics);
        [5, 7].into_iter().for_each(|bytes| xds.received("a/b", bytes));
        xds.ended(Ending::Refused);
        let text = metrics.text();
        for line in [
            "istio_xds_message_total{url=\"a/b\"} 2",
            "istio_xds_message_bytes_total{url=\"a/b\"} 12",
            "istio_xds_connection_terminations_total{reason=\"Refused\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
