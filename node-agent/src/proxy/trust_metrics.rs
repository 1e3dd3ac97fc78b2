//! When certificates end, and what revoked ones were refused.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use daemon::metrics::proxy::encode_rejections;
use identity::revocation::Side;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Agent;
use super::trust::ends_by_kind;

/// Looks at each scrape.
#[derive(Debug)]
pub(crate) struct Trust(pub(crate) Arc<Agent>);

impl Collector for Trust {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let ends = ends_by_kind(&self.0);
        let help =
            "When the certificates held end, as Unix time in seconds: of roots the last, of others the first";
        let name = "lateen_certificate_expiry_timestamp_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (kind, end) in &ends {
            let seconds = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            ConstGauge::new(seconds).encode(family.encode_family(&[("kind", *kind)])?)?;
        }
        // Under the name that alarms for Istio's agent are written for.
        let help = "Seconds until the first workload certificate ends, and until the last root does";
        let mut family =
            encoder.encode_descriptor("istio_agent_cert_expiry_seconds", help, None, MetricType::Gauge)?;
        let now = SystemTime::now();
        for (kind, resource) in [("workload", "default"), ("root", "ROOTCA")] {
            if let Some(end) = ends.get(kind) {
                let left = end.duration_since(now).unwrap_or_default().as_secs_f64();
                ConstGauge::new(left).encode(family.encode_family(&[("resource_name", resource)])?)?;
            }
        }
        let help = "Identities whose certificate is past two thirds of its life and was not renewed";
        let late = encoder.encode_descriptor("lateen_certificates_late", help, None, MetricType::Gauge)?;
        let count = i64::try_from(self.0.certificates.expiries().late).unwrap_or(i64::MAX);
        ConstGauge::new(count).encode(late)?;
        let count = |peer| self.0.revoked_tunnels.and_refused(self.0.tls.revocations(), peer);
        encode_rejections(&mut encoder, count(Side::Client), count(Side::Server))
    }
}
