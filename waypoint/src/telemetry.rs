//! What is said of requests and connections: the series they count under, and the lines they leave in the access log.

mod connection;
mod exchange;
mod flags;
mod labels;
mod line;
mod metered;
mod records;
mod series;
mod spans;

use std::sync::Arc;

use daemon::metrics::Metrics;
use daemon::metrics::traffic::Traffic;

pub(crate) use self::connection::{Connection, Ended};
pub(crate) use self::exchange::{Exchange, KnownSeries, Tally};
pub(crate) use self::flags::Flags;
pub(crate) use self::labels::source;
pub(crate) use self::line::Said;
pub(crate) use self::records::{Desk, Records};
use self::series::Requests;
pub(crate) use self::series::Shard;
pub(crate) use self::spans::{Place, Spans};

/// All counters of the process.
#[derive(Debug)]
pub(crate) struct Telemetry {
    requests: Requests,
    traffic: Traffic,
}

impl Telemetry {
    /// Registers the series: for each of so many threads, at most so many sets of labels.
    pub(crate) fn new(metrics: &Metrics, threads: usize, most: usize) -> Self {
        let this = Self { requests: Requests::new(threads, most), traffic: Traffic::new(most) };
        metrics.register_istio(|registry| {
            registry.register_collector(Box::new(this.requests.clone()));
            registry.register_collector(Box::new(this.traffic.clone()));
        });
        this
    }

    /// The counters of a thread.
    pub(crate) fn shard(&self, index: usize) -> Arc<Shard> {
        self.requests.shard(index)
    }

    /// How often something was counted as unknown because there are too many series.
    pub(crate) fn dropped(&self) -> u64 {
        self.requests.dropped() + self.traffic.dropped()
    }

    /// Drops series that have not changed for ten calls. Called every minute.
    pub(crate) fn expire(&self) {
        self.requests.expire();
        self.traffic.expire();
    }
}
