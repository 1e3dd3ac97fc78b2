//! What a proxy is, as a series.

use std::fmt;

use daemon::metrics::Metrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// `istio_build`, whose value is its labels.
#[derive(Debug)]
struct Build(&'static str);

/// Registers `istio_build`, with what Istio calls this kind of proxy.
pub fn register(metrics: &Metrics, component: &'static str) {
    metrics.register_istio(|registry| registry.register_collector(Box::new(Build(component))));
}

impl Collector for Build {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let labels = [("component", self.0), ("tag", env!("CARGO_PKG_VERSION"))];
        let mut metric = encoder.encode_descriptor("build", "What this is", None, MetricType::Gauge)?;
        ConstGauge::new(1i64).encode(metric.encode_family(&labels)?)
    }
}
