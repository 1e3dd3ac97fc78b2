//! What a proxy is, as a series.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// `istio_build`, whose value is its labels, with what Istio calls this kind of proxy. To be registered with Istio's prefix.
#[derive(Debug)]
pub(super) struct Build(pub(super) &'static str);

impl Collector for Build {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let labels = [("component", self.0), ("tag", env!("CARGO_PKG_VERSION"))];
        let mut metric = encoder.encode_descriptor("build", "What this is", None, MetricType::Gauge)?;
        ConstGauge::new(1i64).encode(metric.encode_family(&labels)?)
    }
}
