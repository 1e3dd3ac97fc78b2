//! How often endpoints were ejected, under Envoy's names (`cluster.outlier_detection.` statistics), which dashboards and
//! alerts of Istio know.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::address::Str;
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
        let Counts { enforced, spared, .. } = self.counts(0);
        enforced.iter().sum::<u64>() > 0 || spared > 0
    }

    fn counts(&self, active: usize) -> Counts {
        let enforced = CAUSES.map(|cause| self.enforced[cause as usize].load(Ordering::Relaxed));
        Counts { active, enforced, spared: self.spared.load(Ordering::Relaxed) }
    }
}

/// The same at one moment, and how many are left out then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    active: usize,
    enforced: [u64; CAUSES.len()],
    spared: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.active += other.active;
        self.spared += other.spared;
        self.enforced.iter_mut().zip(other.enforced).for_each(|(count, other)| *count += other);
    }
}

/// What tells the series of a cluster from those of others: Istio's name of it has no namespace, and hosts of one name may
/// be in several. By whose rules there are clusters of one name does not: they are counted together.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    name: String,
    namespace: Str,
}

impl Series {
    fn of(cluster: &Cluster) -> Self {
        Self { name: cluster.to_string(), namespace: cluster.service.namespace().into() }
    }

    fn labels(&self) -> [(&'static str, &str); 2] {
        [("cluster_name", &self.name), ("destination_service_namespace", &self.namespace)]
    }
}

fn series<'a>(all: impl Iterator<Item = (&'a Cluster, Counts)>) -> BTreeMap<Series, Counts> {
    let mut series: BTreeMap<Series, Counts> = BTreeMap::new();
    for (cluster, counts) in all {
        series.entry(Series::of(cluster)).or_default().add(&counts);
    }
    series
}

/// The series of all clusters whose rules eject endpoints.
#[derive(Debug)]
pub(crate) struct EjectionMetrics(pub(crate) Arc<Waypoint>);

impl Collector for EjectionMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let all = self.0.clusters.judged();
        let all = series(all.iter().map(|(one, now)| (&one.cluster, one.ejections.counts(*now))));
        let name = |name: &str| format!("envoy_cluster_outlier_detection_{name}");
        let help = "Endpoints that are left out now";
        let active = name("ejections_active");
        let mut family = encoder.encode_descriptor(&active, help, None, MetricType::Gauge)?;
        for (cluster, counts) in &all {
            let now = i64::try_from(counts.active).unwrap_or(i64::MAX);
            ConstGauge::new(now).encode(family.encode_family(&cluster.labels())?)?;
        }
        let help = "How often endpoints were left out";
        let enforced = name("ejections_enforced");
        let mut family = encoder.encode_descriptor(&enforced, help, None, MetricType::Counter)?;
        for (cluster, counts) in &all {
            let total: u64 = counts.enforced.iter().sum();
            ConstCounter::new(total).encode(family.encode_family(&cluster.labels())?)?;
        }
        // A counter would be given an end to its name that Envoy's have not.
        let mut count = |what: &str, help: &str, count: &dyn Fn(&Counts) -> u64| {
            let what = name(what);
            let mut family = encoder.encode_descriptor(&what, help, None, MetricType::Unknown)?;
            for (cluster, counts) in &all {
                let count = i64::try_from(count(counts)).unwrap_or(i64::MAX);
                ConstGauge::new(count).encode(family.encode_family(&cluster.labels())?)?;
            }
            Ok(())
        };
        for cause in CAUSES {
            let what = format!("ejections_enforced_{}", cause.statistic());
            count(&what, "The same, for one cause", &|counts| counts.enforced[cause as usize])?;
        }
        let help = "How often maxEjectionPercent kept an endpoint from being left out";
        count("ejections_overflow", help, &|counts| counts.spared)
    }
}

#[cfg(test)]
mod tests {
    use model::address::NamespacedHostname;

    use super::*;

    #[test]
    fn every_cause_has_its_own_count() {
        let ejections = Ejections::default();
        assert!(!ejections.any());
        for (at, cause) in CAUSES.into_iter().enumerate() {
            assert_eq!(cause as usize, at, "{cause} stands in the place of its count");
            ejections.see(&Event::Returned { endpoint: "one".into(), cause });
            assert_eq!(ejections.counts(0).enforced[at], 0, "a return is no ejection");
        }
        ejections.see(&Event::Spared { endpoint: "one".into(), cause: CAUSES[0], ejected: 1, total: 2 });
        assert!(ejections.any());
        assert_eq!(ejections.counts(2), Counts { active: 2, enforced: [0; 3], spared: 1 });
    }

    /// Two series of one name would make the page unreadable.
    #[test]
    fn clusters_that_rules_alone_tell_apart_are_one_series() {
        let cluster = |namespace: &str, rules: &str| Cluster {
            service: NamespacedHostname::new(namespace, "a.example"),
            port: 80,
            subset: None,
            rules: rules.into(),
        };
        let all =
            [cluster("a", "DestinationRule a/x"), cluster("a", "DestinationRule b/x"), cluster("b", "")];
        let counts = |active| Counts { active, enforced: [active as u64, 0, 1], spared: 3 };
        let series = series(all.iter().zip([counts(1), counts(2), counts(4)]));
        let told: Vec<_> = series.iter().map(|(series, counts)| (&*series.namespace, *counts)).collect();
        let both = Counts { active: 3, enforced: [3, 0, 2], spared: 6 };
        assert_eq!(told, [("a", both), ("b", counts(4))]);
    }
}
