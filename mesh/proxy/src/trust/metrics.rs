//! When certificates end, and what revoked ones were refused.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use identity::revocation::Side;
use identity::rotation::Expiries;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Trust;

/// Looks at each scrape.
#[derive(Debug)]
pub(super) struct TrustMetrics(pub(super) Trust);

impl Collector for TrustMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Trust { certificates, tls, ended, .. } = &self.0;
        let expiries = certificates.expiries();
        encode_ends(&mut encoder, &by_kind(expiries), SystemTime::now())?;
        let help = "Identities whose certificate is past two thirds of its life and was not renewed";
        let late = encoder.encode_descriptor("lateen_certificates_late", help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(expiries.late).unwrap_or(i64::MAX)).encode(late)?;
        let help = "Handshakes refused and tunnels ended because of a revoked certificate";
        let name = "istio_crl_policy_rejections";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        // By the end of the tunnel that this proxy was: where the peer was its client, `destination`.
        for (reporter, peer) in [("destination", Side::Client), ("source", Side::Server)] {
            let count = ended.and_refused(tls.revocations(), peer);
            ConstCounter::new(count).encode(family.encode_family(&[("reporter", reporter)])?)?;
        }
        Ok(())
    }
}

/// When what is held ends, by kind; only what there is.
fn by_kind(ends: Expiries) -> BTreeMap<&'static str, SystemTime> {
    let kinds = [("root", ends.root), ("intermediate", ends.intermediate), ("workload", ends.workload)];
    kinds.into_iter().filter_map(|(kind, end)| Some((kind, end?))).collect()
}

fn encode_ends(
    encoder: &mut DescriptorEncoder<'_>,
    ends: &BTreeMap<&'static str, SystemTime>,
    now: SystemTime,
) -> Result<(), fmt::Error> {
    let help =
        "When the certificates held end, as Unix time in seconds: of roots the last, of others the first";
    let name = "lateen_certificate_expiry_timestamp_seconds";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (kind, end) in ends {
        let seconds = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        ConstGauge::new(seconds).encode(family.encode_family(&[("kind", *kind)])?)?;
    }
    // Under the name that alarms for Istio's agent are written for.
    let help = "Seconds until the first workload certificate ends, and until the last root does";
    let mut family =
        encoder.encode_descriptor("istio_agent_cert_expiry_seconds", help, None, MetricType::Gauge)?;
    for (kind, resource) in [("workload", "default"), ("root", "ROOTCA")] {
        if let Some(end) = ends.get(kind) {
            let left = end.duration_since(now).unwrap_or_default().as_secs_f64();
            ConstGauge::new(left).encode(family.encode_family(&[("resource_name", resource)])?)?;
        }
    }
    Ok(())
}
