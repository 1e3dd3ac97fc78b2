//! What checks have come to. They are no requests, and are counted nowhere else.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::address::NamespacedHostname;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::Waypoint;

/// The series of all services whose endpoints are checked.
#[derive(Debug)]
pub(crate) struct HealthMetrics(pub(crate) Arc<Waypoint>);

impl Collector for HealthMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let services = self.0.checks.services();
        let help = "Health checks of endpoints";
        let mut family =
            encoder.encode_descriptor("lateen_health_checks", help, None, MetricType::Counter)?;
        for (service, of) in &services {
            let counts = &of.counts;
            for (result, count) in
                [("passed", &counts.passed), ("failed", &counts.failed), ("unreachable", &counts.unreachable)]
            {
                let labels = labels(service, ("result", result));
                ConstCounter::new(count.load(Ordering::Relaxed)).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Endpoints whose health is checked";
        let mut family =
            encoder.encode_descriptor("lateen_health_check_endpoints", help, None, MetricType::Gauge)?;
        for (service, of) in &services {
            let (healthy, unhealthy) = of.counted();
            for (state, count) in [("healthy", healthy), ("unhealthy", unhealthy)] {
                let labels = labels(service, ("state", state));
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// Of which service, in the words of Istio's metrics: hosts of one name may be in several namespaces.
fn labels<'a>(service: &'a NamespacedHostname, of: (&'a str, &'a str)) -> [(&'a str, &'a str); 3] {
    [("destination_service", service.hostname()), ("destination_service_namespace", service.namespace()), of]
}
