//! The `istio_tcp_*` series: one for each set of labels, found once a connection and counted up without a lock.
//!
//! A series that no connection uses and that has not changed for a while goes, and there is a hard cap with a
//! counter for what did not fit, so that label values cannot exhaust memory.

mod labels;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use self::labels::Own;
pub use self::labels::{Labels, Reporter};

/// Sets of labels kept at most unless said otherwise; what does not fit is counted under labels that are all `unknown`.
pub const MAX_SERIES: usize = 2000;
/// How many times [`Traffic::expire`] passes over a series that nobody uses.
const PASSES: u8 = 10;
/// The same where the pods that it is about have gone: it is seen once more by who scrapes.
const LAST_PASSES: u8 = 2;

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
mod tests;
