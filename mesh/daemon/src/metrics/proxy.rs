//! Series that all proxies have.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// `istio_build`, whose value is its labels. To be registered with Istio's prefix.
#[derive(Debug)]
pub struct Build {
    /// What Istio calls this kind of proxy.
    pub component: &'static str,
    /// The version.
    pub tag: &'static str,
}

impl Collector for Build {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let labels = [("component", self.component), ("tag", self.tag)];
        let mut metric = encoder.encode_descriptor("build", "What this is", None, MetricType::Gauge)?;
        ConstGauge::new(1i64).encode(metric.encode_family(&labels)?)
    }
}

/// `istio_crl_policy_rejections_total`, by the end of the tunnel that the proxy was: `destination` where the peer was its
/// client, `source` where it was its server.
///
/// # Errors
/// Those of the encoder.
pub fn encode_rejections(
    encoder: &mut DescriptorEncoder<'_>,
    destination: u64,
    source: u64,
) -> Result<(), fmt::Error> {
    let help = "Handshakes refused and tunnels ended because of a revoked certificate";
    let name = "istio_crl_policy_rejections";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (reporter, count) in [("destination", destination), ("source", source)] {
        ConstCounter::new(count).encode(family.encode_family(&[("reporter", reporter)])?)?;
    }
    Ok(())
}
