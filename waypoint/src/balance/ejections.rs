//! How often endpoints were ejected, under Envoy's names (`cluster.outlier_detection.` statistics), which dashboards and
//! alerts of Istio know.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::traffic::outlier::{EjectionCause, Event};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Cluster;
use crate::Waypoint;

const CAUSES: [EjectionCause; 3] =
    [EjectionCause::Consecutive5xx, EjectionCause::ConsecutiveGateway, EjectionCause::ConsecutiveLocalOrigin];

/// Counts of one cluster.
#[derive(Debug, Default)]
pub(super) struct Ejections {
    /// By cause, in their order.
    enforced: [AtomicU64; CAUSES.len()],
    /// Those that `maxEjectionPercent` prevented.
    spared: AtomicU64,
}

impl Ejections {
    /// Something became of an endpoint.
    pub(super) fn see(&self, event: &Event) {
        let count = match event {
            Event::Ejected { cause, .. } => &self.enforced[*cause as usize],
            Event::Spared { .. } => &self.spared,
            Event::Returned { .. } => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether there is anything to tell.
    pub(super) fn any(&self) -> bool {
        self.total() > 0 || self.spared.load(Ordering::Relaxed) > 0
    }

    fn of(&self, cause: EjectionCause) -> u64 {
        self.enforced[cause as usize].load(Ordering::Relaxed)
    }

    fn total(&self) -> u64 {
        CAUSES.into_iter().map(|cause| self.of(cause)).sum()
    }
}

/// What tells the series of a cluster from those of others: Istio's name of it has no namespace, and hosts of one name may
/// be in several.
struct Series<'a> {
    name: String,
    namespace: &'a str,
}

impl<'a> Series<'a> {
    fn of(cluster: &'a Cluster) -> Self {
        Self { name: cluster.to_string(), namespace: cluster.service.namespace() }
    }

    fn labels(&self) -> [(&'static str, &str); 2] {
        [("cluster_name", &self.name), ("destination_service_namespace", self.namespace)]
    }
}

/// The series of all clusters whose rules eject endpoints.
#[derive(Debug)]
pub(crate) struct EjectionMetrics(pub(crate) Arc<Waypoint>);

impl Collector for EjectionMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let all = self.0.clusters.judged();
        let all: Vec<_> =
            all.iter().map(|(one, now)| (Series::of(&one.cluster), &one.ejections, *now)).collect();
        let name = |name: &str| format!("envoy_cluster_outlier_detection_{name}");
        let help = "Endpoints that are left out now";
        let active = name("ejections_active");
        let mut family = encoder.encode_descriptor(&active, help, None, MetricType::Gauge)?;
        for (cluster, _, now) in &all {
            let now = i64::try_from(*now).unwrap_or(i64::MAX);
            ConstGauge::new(now).encode(family.encode_family(&cluster.labels())?)?;
        }
        let help = "How often endpoints were left out";
        let enforced = name("ejections_enforced");
        let mut family = encoder.encode_descriptor(&enforced, help, None, MetricType::Counter)?;
        for (cluster, ejections, _) in &all {
            ConstCounter::new(ejections.total()).encode(family.encode_family(&cluster.labels())?)?;
        }
        // A counter would be given an end to its name that Envoy's have not.
        let mut count = |what: &str, help: &str, count: &dyn Fn(&Ejections) -> u64| {
            let what = name(what);
            let mut family = encoder.encode_descriptor(&what, help, None, MetricType::Unknown)?;
            for (cluster, ejections, _) in &all {
                let count = i64::try_from(count(ejections)).unwrap_or(i64::MAX);
                ConstGauge::new(count).encode(family.encode_family(&cluster.labels())?)?;
            }
            Ok(())
        };
        for cause in CAUSES {
            let what = format!("ejections_enforced_{}", cause.statistic());
            count(&what, "The same, for one cause", &|ejections| ejections.of(cause))?;
        }
        let help = "How often maxEjectionPercent kept an endpoint from being left out";
        count("ejections_overflow", help, &|ejections| ejections.spared.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_own_count() {
        let ejections = Ejections::default();
        assert!(!ejections.any());
        for (at, cause) in CAUSES.into_iter().enumerate() {
            assert_eq!(cause as usize, at, "{cause} stands in the place of its count");
            ejections.see(&Event::Returned { endpoint: "one".into(), cause });
            assert_eq!(ejections.of(cause), 0, "a return is no ejection");
        }
        ejections.see(&Event::Spared { endpoint: "one".into(), cause: CAUSES[0], ejected: 1, total: 2 });
        assert!(ejections.any());
        assert_eq!(ejections.total(), 0);
    }
}
