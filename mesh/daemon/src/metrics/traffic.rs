//! The `istio_tcp_*` series: one for each set of labels, found once a connection and counted up without a lock.
//!
//! A series that no connection uses and that has not changed for a while goes, and there is a hard cap with a
//! counter for what did not fit, so that label values cannot exhaust memory.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::EncodeMetric;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder, MetricEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::end::{Asked, End};

/// Sets of labels kept at most unless said otherwise; what does not fit is counted under labels that are all `unknown`.
pub const MAX_SERIES: usize = 2000;
/// How many times [`Traffic::expire`] passes over a series that nobody uses.
const PASSES: u8 = 10;
/// The same where the pods that it is about have gone: it is seen once more by who scrapes.
const LAST_PASSES: u8 = 2;

/// Which end of a connection reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The client's agent.
    Source,
    /// The server's agent.
    Destination,
    /// A waypoint between the two.
    Waypoint,
}

impl Reporter {
    fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Waypoint => "waypoint",
        }
    }
}

/// The labels of one series, in the order of Istio's `istio_tcp_*` metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// Who reports.
    pub reporter: Reporter,
    /// The client.
    pub source: End,
    /// The server.
    pub destination: End,
    /// The service asked for.
    pub service: Asked,
    /// Whether the connection was mutually authenticated.
    pub mutual_tls: bool,
    /// How it ended: `-`, or a flag such as `DENY`.
    pub flags: &'static str,
}

/// By what tells most series apart: every connection is hashed, at both of its ends.
impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.reporter, self.flags, self.mutual_tls).hash(state);
        let ends = [&self.source, &self.destination].map(|end| (&end.namespace, &end.workload));
        (ends, &self.service.hostname).hash(state);
    }
}

impl Labels {
    /// Series of connections that did not fit under the cap. No workload's: it is not counted as one.
    fn overflow(reporter: Reporter) -> Self {
        Self {
            reporter,
            source: End::default(),
            destination: End::default(),
            service: Asked::default(),
            mutual_tls: false,
            flags: "-",
        }
    }

    /// The workload of this node that it is reported of.
    fn own(&self) -> Own {
        let own = match self.reporter {
            Reporter::Source => &self.source,
            Reporter::Destination | Reporter::Waypoint => &self.destination,
        };
        (own.namespace.clone(), own.workload.clone())
    }

    /// Names and values, in Istio's order; `request_protocol` is `tcp`.
    pub fn pairs(&self) -> [(&'static str, &str); 27] {
        let (source, destination) = (&self.source, &self.destination);
        [
            ("reporter", self.reporter.as_str()),
            ("source_workload", &source.workload),
            ("source_canonical_service", &source.canonical_service),
            ("source_canonical_revision", &source.canonical_revision),
            ("source_workload_namespace", &source.namespace),
            ("source_principal", &source.principal),
            ("source_app", &source.canonical_service),
            ("source_version", &source.canonical_revision),
            ("source_cluster", &source.cluster),
            ("destination_service", &self.service.hostname),
            ("destination_service_namespace", &self.service.namespace),
            ("destination_service_name", &self.service.name),
            ("destination_workload", &destination.workload),
            ("destination_canonical_service", &destination.canonical_service),
            ("destination_canonical_revision", &destination.canonical_revision),
            ("destination_workload_namespace", &destination.namespace),
            ("destination_principal", &destination.principal),
            ("destination_app", &destination.canonical_service),
            ("destination_version", &destination.canonical_revision),
            ("destination_cluster", &destination.cluster),
            ("request_protocol", "tcp"),
            ("response_flags", self.flags),
            ("connection_security_policy", if self.mutual_tls { "mutual_tls" } else { "unknown" }),
            ("source_region", &source.region),
            ("source_zone", &source.zone),
            ("destination_region", &destination.region),
            ("destination_zone", &destination.zone),
        ]
    }
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, value) in self.pairs() {
            let value = if value.is_empty() { "unknown" } else { value };
            (name, value).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

/// The counters of one set of labels.
#[derive(Debug, Default)]
pub struct Series {
    /// Connections opened.
    pub opened: AtomicU64,
    /// Connections closed after they were established.
    pub closed: AtomicU64,
    /// Connections that failed before they were established.
    pub failed: AtomicU64,
    /// Bytes from the client to the server.
    pub received: AtomicU64,
    /// Bytes from the server to the client.
    pub sent: AtomicU64,
    /// Passes that are left to it while nobody uses it.
    passes: AtomicU8,
}

impl Series {
    /// A connection has been opened under labels that were looked up before: as if it had looked them up again.
    pub fn used(&self) {
        self.passes.store(PASSES, Ordering::Relaxed);
    }
}

/// A namespace and a workload in it.
type Own = (Arc<str>, Arc<str>);

/// The series that there are, and how many each workload has.
#[derive(Debug, Default)]
struct Kept {
    by_labels: HashMap<Labels, Arc<Series>>,
    of_workload: HashMap<Own, usize>,
}

impl Kept {
    /// The series of these labels, for use.
    fn take(&mut self, labels: Labels) -> Arc<Series> {
        let series = self.by_labels.entry(labels).or_default();
        series.used();
        series.clone()
    }
}

/// Whether a workload that has `own` of `all` sets of labels may have one more: at most twice what is left. What a peer
/// says of itself makes series too, and must not take those of the others.
pub fn may_have_more(own: usize, all: usize, most: usize) -> bool {
    own < most.saturating_sub(all).saturating_mul(2)
}

/// All traffic series. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Traffic(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    series: RwLock<Kept>,
    dropped: AtomicU64,
    open_source: AtomicU64,
    open_destination: AtomicU64,
    open_waypoint: AtomicU64,
}

impl Default for Traffic {
    fn default() -> Self {
        Self::new(MAX_SERIES)
    }
}

impl Traffic {
    /// No series yet, and `most` sets of labels at most.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Shared {
            most,
            series: RwLock::default(),
            dropped: AtomicU64::new(0),
            open_source: AtomicU64::new(0),
            open_destination: AtomicU64::new(0),
            open_waypoint: AtomicU64::new(0),
        }))
    }

    /// The series of a set of labels.
    pub fn series(&self, labels: &Labels) -> Arc<Series> {
        if let Some(series) =
            self.0.series.read().unwrap_or_else(PoisonError::into_inner).by_labels.get(labels)
        {
            series.used();
            return series.clone();
        }
        let mut all = self.0.series.write().unwrap_or_else(PoisonError::into_inner);
        let overflow = Labels::overflow(labels.reporter);
        if *labels != overflow && !all.by_labels.contains_key(labels) {
            let own = labels.own();
            let has = all.of_workload.get(&own).copied().unwrap_or_default();
            if !may_have_more(has, all.by_labels.len(), self.0.most) {
                self.0.dropped.fetch_add(1, Ordering::Relaxed);
                return all.take(overflow);
            }
            *all.of_workload.entry(own).or_default() += 1;
        }
        all.take(labels.clone())
    }

    /// The gauge of open sockets of a reporter.
    pub fn sockets_open(&self, reporter: Reporter) -> &AtomicU64 {
        match reporter {
            Reporter::Source => &self.0.open_source,
            Reporter::Destination => &self.0.open_destination,
            Reporter::Waypoint => &self.0.open_waypoint,
        }
    }

    /// Drops series that no connection holds and that nobody asked for during the last ten calls; of
    /// [retired](Self::retire) ones during the last two. Called every minute, so that what a scrape has not yet seen is
    /// not lost.
    pub fn expire(&self) {
        let mut all = self.0.series.write().unwrap_or_else(PoisonError::into_inner);
        let Kept { by_labels, of_workload } = &mut *all;
        by_labels.retain(|labels, series| {
            let left = series.passes.load(Ordering::Relaxed).saturating_sub(1);
            series.passes.store(left, Ordering::Relaxed);
            let stays = left > 0 || Arc::strong_count(series) > 1;
            if !stays
                && *labels != Labels::overflow(labels.reporter)
                && let Some(count) = of_workload.get_mut(&labels.own())
            {
                *count = count.saturating_sub(1);
            }
            stays
        });
        of_workload.retain(|_, count| *count > 0);
    }

    /// The last pod of a workload has gone from this node: what was reported of it soon goes too.
    pub fn retire(&self, namespace: &str, workload: &str) {
        let all = self.0.series.read().unwrap_or_else(PoisonError::into_inner);
        for (labels, series) in &all.by_labels {
            let own = match labels.reporter {
                Reporter::Source => &labels.source,
                Reporter::Destination | Reporter::Waypoint => &labels.destination,
            };
            if &*own.namespace == namespace && &*own.workload == workload {
                series.passes.fetch_min(LAST_PASSES, Ordering::Relaxed);
            }
        }
    }

    /// How many connections were counted under unknown labels because there are too many series.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.0.series.read().unwrap_or_else(PoisonError::into_inner).by_labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let all = self.0.series.read().unwrap_or_else(PoisonError::into_inner);
        let mut family = |name: &str, help: &str, value: fn(&Series) -> &AtomicU64, closing: bool| {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, series) in all.by_labels.iter().filter(|(labels, _)| closing || labels.flags == "-")
            {
                let count = value(series).load(Ordering::Relaxed);
                // A connection that ended otherwise than it began has its bytes and its opening elsewhere.
                if count > 0 || labels.flags == "-" {
                    ConstCounter::new(count).encode(metric.encode_family(labels)?)?;
                }
            }
            Ok::<(), fmt::Error>(())
        };
        family("tcp_connections_opened", "Connections opened", |series| &series.opened, false)?;
        family("tcp_connections_closed", "Connections closed", |series| &series.closed, true)?;
        family(
            "tcp_connections_failed",
            "Connections that were not established",
            |series| &series.failed,
            true,
        )?;
        family("tcp_received_bytes", "Bytes from clients to servers", |series| &series.received, true)?;
        family("tcp_sent_bytes", "Bytes from servers to clients", |series| &series.sent, true)?;
        self.encode_open(&mut encoder)?;
        let dropped = encoder.encode_descriptor(
            "mesh_series_dropped",
            "Connections counted under unknown labels because there are too many series",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(self.dropped()).encode(dropped)
    }
}

impl Traffic {
    fn encode_open(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut open: MetricEncoder<'_> =
            encoder.encode_descriptor("tcp_sockets_open", "Open sockets", None, MetricType::Gauge)?;
        for reporter in [Reporter::Source, Reporter::Destination, Reporter::Waypoint] {
            let labels = [("reporter", reporter.as_str())];
            let count = self.sockets_open(reporter).load(Ordering::Relaxed);
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            ConstGauge::new(count).encode(open.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn labels(flags: &'static str) -> Labels {
        let mut labels = Labels::overflow(Reporter::Source);
        labels.source.workload = "client".into();
        labels.flags = flags;
        labels
    }

    #[test]
    fn encodes_every_label_and_unknown_for_none() {
        let metrics = Metrics::default();
        let traffic = Traffic::default();
        metrics.register_istio(|registry| registry.register_collector(Box::new(traffic.clone())));
        traffic.series(&labels("-")).sent.fetch_add(7, Ordering::Relaxed);
        traffic.series(&labels("DENY")).failed.fetch_add(1, Ordering::Relaxed);
        let text = metrics.text();
        assert!(text.contains("istio_tcp_sent_bytes_total{reporter=\"source\",source_workload=\"client\",source_canonical_service=\"unknown\""), "{text}");
        assert!(text.contains("response_flags=\"DENY\",connection_security_policy=\"unknown\""), "{text}");
        assert!(text.contains("istio_tcp_sockets_open{reporter=\"source\"} 0"), "{text}");
        assert!(text.contains("istio_mesh_series_dropped_total 0"), "{text}");
    }

    #[test]
    fn forgets_series_that_nobody_uses() {
        let traffic = Traffic::default();
        let held = traffic.series(&labels("-"));
        drop(traffic.series(&labels("DENY")));
        (1..PASSES).for_each(|_| traffic.expire());
        assert_eq!(traffic.len(), 2, "asked for not long ago");
        traffic.expire();
        assert_eq!(traffic.len(), 1, "only the one that is held");
        drop(held);
        traffic.expire();
        assert!(traffic.is_empty());
    }

    #[test]
    fn forgets_soon_what_is_about_pods_that_have_gone() {
        let of = |workload: &str, reporter| {
            let mut labels = labels("-");
            labels.reporter = reporter;
            (labels.source.workload, labels.source.namespace) = (workload.into(), "shop".into());
            (labels.destination.workload, labels.destination.namespace) = ("server".into(), "shop".into());
            labels
        };
        let traffic = Traffic::default();
        for labels in
            [of("gone", Reporter::Source), of("stays", Reporter::Source), of("gone", Reporter::Destination)]
        {
            drop(traffic.series(&labels));
        }
        let held = traffic.series(&of("gone", Reporter::Source));
        traffic.retire("shop", "gone");
        traffic.retire("elsewhere", "stays");
        (0..LAST_PASSES).for_each(|_| traffic.expire());
        assert_eq!(traffic.len(), 3, "a connection that has not ended yet will be counted");
        drop(held);
        traffic.expire();
        // The third was reported of the server's end, whose pod is still there.
        assert_eq!(traffic.len(), 2);
    }

    #[test]
    fn what_one_workload_is_told_leaves_series_for_the_others() {
        let traffic = Traffic::new(300);
        let of = |own: &str, peer: usize| {
            let mut labels = Labels::overflow(Reporter::Destination);
            labels.destination.workload = own.into();
            labels.source.workload = peer.to_string().into();
            labels
        };
        // A peer says of itself to be another one each time.
        (0..1000).for_each(|peer| drop(traffic.series(&of("attacked", peer))));
        assert_eq!((traffic.len(), traffic.dropped()), (200 + 1, 800));
        (0..30).for_each(|peer| drop(traffic.series(&of("bystander", peer))));
        assert_eq!((traffic.len(), traffic.dropped()), (230 + 1, 800));
        (0..PASSES).for_each(|_| traffic.expire());
        assert!(traffic.is_empty());
        (0..1000).for_each(|peer| drop(traffic.series(&of("bystander", peer))));
        assert_eq!(traffic.len(), 200 + 1, "what is gone counts no more");
    }

    #[test]
    fn series_are_shared_by_what_is_left() {
        for (own, all, more) in [
            (0, 0, true),
            (199, 199, true),
            (200, 200, false),
            (1, 299, true),
            (2, 299, false),
            (0, 300, false),
        ] {
            assert_eq!(may_have_more(own, all, 300), more, "{own} of {all}");
        }
    }

    #[test]
    fn caps_the_number_of_series() {
        let traffic = Traffic::default();
        for number in 0..MAX_SERIES + 10 {
            let mut labels = labels("-");
            labels.source.workload = number.to_string().into();
            traffic.series(&labels);
        }
        assert_eq!(traffic.len(), MAX_SERIES + 1);
        assert_eq!(traffic.dropped(), 10);
        traffic.expire();
        assert_eq!(traffic.len(), MAX_SERIES + 1, "asked for not long ago, like all others");
        let few = Traffic::new(1);
        few.series(&labels("-"));
        few.series(&labels("DENY"));
        assert_eq!((few.len(), few.dropped()), (2, 1));
    }

    #[test]
    fn what_did_not_fit_is_counted_as_no_workloads() {
        let counted = |traffic: &Traffic| -> usize {
            traffic.0.series.read().expect("nobody panicked").of_workload.values().sum()
        };
        // Of workloads that are not known, like the series of what does not fit.
        let unknown = |flags| Labels { flags, ..Labels::overflow(Reporter::Source) };
        let traffic = Traffic::new(1);
        let held = traffic.series(&unknown("DENY"));
        drop([traffic.series(&unknown("UF")), traffic.series(&unknown("-"))]);
        assert_eq!((traffic.len(), traffic.dropped(), counted(&traffic)), (2, 1, 1));
        (0..PASSES).for_each(|_| traffic.expire());
        assert_eq!((traffic.len(), counted(&traffic)), (1, 1), "that of the one that is held");
        drop(held);
        traffic.expire();
        assert_eq!((traffic.len(), counted(&traffic)), (0, 0));
    }
}
