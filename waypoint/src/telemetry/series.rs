//! The `istio_request*` series. Each thread counts in series of its own, without a lock that another waits for; they are
//! added up when they are scraped.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use daemon::metrics::traffic::may_have_more;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::labels::RequestLabels;

/// Upper bounds of the buckets; Envoy's, which Istio's dashboards are made for.
const BOUNDS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2500.0, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 18e5,
    36e5,
];
/// How many times [`Requests::expire`] passes over a series that nobody uses.
const PASSES: u8 = 10;

/// Values by size.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// In thousandths.
    sum: AtomicU64,
}

impl Histogram {
    /// Counts a value, given in thousandths. One thread at a time does.
    fn observe(&self, thousandths: u64) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "the bucket of a value of 2^53 thousandths is the last"
        )]
        let value = thousandths as f64 / 1e3;
        let bucket = BOUNDS.iter().position(|bound| value <= *bound).unwrap_or(BOUNDS.len());
        add(&self.buckets[bucket], 1);
        add(&self.sum, thousandths);
    }

    fn join(&self, other: &Self) {
        for (own, others) in self.buckets.iter().zip(&other.buckets) {
            add(own, others.load(Ordering::Relaxed));
        }
        add(&self.sum, other.sum.load(Ordering::Relaxed));
    }
}

/// One writer at a time: a plain add, no locked instruction.
fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// The counters of one set of labels on one thread.
#[derive(Debug, Default)]
pub(crate) struct Series {
    requests: AtomicU64,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
    request_messages: AtomicU64,
    response_messages: AtomicU64,
    passes: AtomicU8,
}

/// What one request adds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Added {
    /// From its first byte to the answer's last.
    pub(crate) duration: Duration,
    /// Bytes of the request, head and body.
    pub(crate) request_bytes: u64,
    /// Bytes of the answer, head and body.
    pub(crate) response_bytes: u64,
    /// Messages of gRPC in the request and in the answer.
    pub(crate) messages: (u64, u64),
}

impl Series {
    /// Counts a request.
    pub(crate) fn add(&self, added: &Added) {
        add(&self.requests, 1);
        self.duration.observe(u64::try_from(added.duration.as_micros()).unwrap_or(u64::MAX));
        self.request_bytes.observe(added.request_bytes.saturating_mul(1000));
        self.response_bytes.observe(added.response_bytes.saturating_mul(1000));
        add(&self.request_messages, added.messages.0);
        add(&self.response_messages, added.messages.1);
        self.passes.store(PASSES, Ordering::Relaxed);
    }

    fn join(&self, other: &Self) {
        add(&self.requests, other.requests.load(Ordering::Relaxed));
        self.duration.join(&other.duration);
        self.request_bytes.join(&other.request_bytes);
        self.response_bytes.join(&other.response_bytes);
        add(&self.request_messages, other.request_messages.load(Ordering::Relaxed));
        add(&self.response_messages, other.response_messages.load(Ordering::Relaxed));
    }
}

type ByLabels = HashMap<RequestLabels, Arc<Series>, foldhash::fast::RandomState>;

/// The sets of labels that there are on any thread, with on how many; and how many each client's identity has. What is
/// scraped is as long as there are sets, on however many threads.
#[derive(Debug, Default)]
struct Sets {
    threads: HashMap<RequestLabels, usize, foldhash::fast::RandomState>,
    of_client: HashMap<Arc<str>, usize>,
}

impl Sets {
    /// A thread begins to count under these labels; whether it may.
    fn admit(&mut self, labels: &RequestLabels, most: usize) -> bool {
        if let Some(threads) = self.threads.get_mut(labels) {
            *threads += 1;
            return true;
        }
        let client = &labels.ends.source.principal;
        let own = self.of_client.get(client).copied().unwrap_or_default();
        let may = may_have_more(own, self.threads.len(), most);
        if may {
            *self.of_client.entry(client.clone()).or_default() += 1;
            self.threads.insert(labels.clone(), 1);
        }
        may
    }

    /// A thread has none under these labels any more.
    fn leave(&mut self, labels: &RequestLabels) {
        let Some(threads) = self.threads.get_mut(labels) else { return };
        *threads -= 1;
        if *threads > 0 {
            return;
        }
        self.threads.remove(labels);
        let client = &labels.ends.source.principal;
        if let Some(own) = self.of_client.get_mut(client) {
            *own -= 1;
            if *own == 0 {
                self.of_client.remove(client);
            }
        }
    }
}

/// The series of one thread. The lock is taken by others only to be scraped.
#[derive(Debug)]
pub(crate) struct Shard {
    most: usize,
    series: RwLock<ByLabels>,
    /// Those of all threads; taken where labels are new to a thread, and where they go.
    sets: Arc<Mutex<Sets>>,
    dropped: AtomicU64,
}

impl Shard {
    /// The series of a set of labels; one that does not fit under the cap counts as unknown, and so does one of a client
    /// that has more than its share: what a client says of itself makes series too, and must not take those of others.
    pub(crate) fn series(&self, labels: RequestLabels) -> Arc<Series> {
        let known = self.series.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = known.get(&labels) {
            return series.clone();
        }
        drop(known);
        let labels = if self.sets().admit(&labels, self.most) {
            labels
        } else {
            add(&self.dropped, 1);
            RequestLabels::overflow()
        };
        self.series.write().unwrap_or_else(PoisonError::into_inner).entry(labels).or_default().clone()
    }

    fn sets(&self) -> MutexGuard<'_, Sets> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expire(&self) {
        let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
        let mut sets = self.sets();
        all.retain(|labels, series| {
            let left = series.passes.load(Ordering::Relaxed).saturating_sub(1);
            series.passes.store(left, Ordering::Relaxed);
            let stays = left > 0 || Arc::strong_count(series) > 1;
            if !stays {
                sets.leave(labels);
            }
            stays
        });
    }
}

/// The series of all threads. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Requests(Arc<[Arc<Shard>]>);

impl Requests {
    /// None yet, and `most` sets of labels at most.
    pub(crate) fn new(threads: usize, most: usize) -> Self {
        let sets = Arc::<Mutex<Sets>>::default();
        let shard = |_| {
            let (series, dropped) = (RwLock::default(), AtomicU64::new(0));
            Arc::new(Shard { most, series, sets: sets.clone(), dropped })
        };
        Self((0..threads).map(shard).collect())
    }

    /// The series of a thread.
    pub(crate) fn shard(&self, index: usize) -> Arc<Shard> {
        self.0[index].clone()
    }

    /// How many requests were counted as unknown.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.iter().map(|shard| shard.dropped.load(Ordering::Relaxed)).sum()
    }

    /// Drops series that nobody holds and that have not changed for ten calls.
    pub(crate) fn expire(&self) {
        self.0.iter().for_each(|shard| shard.expire());
    }

    fn joined(&self) -> HashMap<RequestLabels, Series> {
        let mut all: HashMap<RequestLabels, Series> = HashMap::new();
        for shard in self.0.iter() {
            let series = shard.series.read().unwrap_or_else(PoisonError::into_inner);
            for (labels, series) in &*series {
                match all.get(labels) {
                    Some(joined) => joined.join(series),
                    None => {
                        let joined = Series::default();
                        joined.join(series);
                        all.insert(labels.clone(), joined);
                    }
                }
            }
        }
        all
    }
}

/// Finds a counter, or a histogram, in a series.
type Counter = fn(&Series) -> &AtomicU64;
type ByValue = fn(&Series) -> &Histogram;

impl Collector for Requests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let all = self.joined();
        let counters: [(&str, &str, Counter, bool); 3] = [
            ("requests", "Requests", |series| &series.requests, false),
            ("request_messages", "Messages in gRPC requests", |series| &series.request_messages, true),
            ("response_messages", "Messages in gRPC answers", |series| &series.response_messages, true),
        ];
        for (name, help, counter, grpc_only) in counters {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, series) in all.iter().filter(|(labels, _)| !grpc_only || labels.grpc.is_some()) {
                let count = counter(series).load(Ordering::Relaxed);
                ConstCounter::new(count).encode(metric.encode_family(labels)?)?;
            }
        }
        let histograms: [(&str, &str, ByValue); 3] = [
            ("request_duration_milliseconds", "From request to the answer's end", |series| &series.duration),
            ("request_bytes", "Bytes of requests", |series| &series.request_bytes),
            ("response_bytes", "Bytes of answers", |series| &series.response_bytes),
        ];
        for (name, help, histogram) in histograms {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for (labels, series) in &all {
                let (sum, buckets) = values(histogram(series));
                let count = buckets.iter().map(|(_, count)| count).sum();
                metric.encode_family(labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "what is scraped is a float")]
fn values(histogram: &Histogram) -> (f64, Vec<(f64, u64)>) {
    let bounds = BOUNDS.iter().copied().chain([f64::INFINITY]);
    let counts = histogram.buckets.iter().map(|count| count.load(Ordering::Relaxed));
    (histogram.sum.load(Ordering::Relaxed) as f64 / 1e3, bounds.zip(counts).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Flags;

    fn labels(code: u16) -> RequestLabels {
        RequestLabels { code, flags: Flags::UH, ..RequestLabels::overflow() }
    }

    #[test]
    fn threads_are_added_up_and_labels_are_istio_s() {
        let metrics = daemon::metrics::Metrics::default();
        let requests = Requests::new(2, 10);
        metrics.register_istio(|registry| registry.register_collector(Box::new(requests.clone())));
        let added = Added { duration: Duration::from_micros(700), request_bytes: 30, ..Added::default() };
        for index in [0, 1] {
            requests.shard(index).series(labels(503)).add(&added);
        }
        let text = metrics.text();
        let line = |name: &str| {
            let found = text.lines().find(|line| line.starts_with(name));
            found.unwrap_or_else(|| panic!("no {name} in {text}"))
        };
        let total = line("istio_requests_total{");
        assert!(total.ends_with("} 2"), "{total}");
        let labels = "request_protocol=\"http\",response_code=\"503\",response_flags=\"UH\",connection_security_policy=\"mutual_tls\"";
        assert!(total.contains(labels) && total.contains("{reporter=\"waypoint\","), "{total}");
        let sum = line("istio_request_duration_milliseconds_sum");
        assert!(sum.ends_with("} 1.4"), "{sum}");
        let one = text
            .lines()
            .find(|line| line.contains("duration_milliseconds_bucket{") && line.contains("le=\"1.0\""));
        assert!(one.is_some_and(|line| line.ends_with("} 2")), "{text}");
        let all = text.lines().any(|line| line.contains("le=\"+Inf\"") && line.ends_with("} 2"));
        assert!(all, "without it Prometheus computes no quantile: {text}");
    }

    #[test]
    fn what_does_not_fit_counts_as_unknown_and_what_nobody_uses_goes() {
        let requests = Requests::new(1, 2);
        let shard = requests.shard(0);
        for code in [200, 201, 202, 203] {
            shard.series(labels(code)).add(&Added::default());
        }
        assert_eq!(requests.dropped(), 2);
        assert_eq!(requests.joined()[&RequestLabels::overflow()].requests.load(Ordering::Relaxed), 2);
        let held = shard.series(labels(200));
        (0..PASSES).for_each(|_| requests.expire());
        assert_eq!(requests.joined().len(), 1, "what is held stays");
        drop(held);
        requests.expire();
        assert!(requests.joined().is_empty());
    }

    #[test]
    fn there_are_as_many_whatever_thread_counts_them() {
        let requests = Requests::new(4, 2);
        let shards: Vec<_> = (0..4).map(|index| requests.shard(index)).collect();
        for (index, shard) in (0..).zip(&shards) {
            // The same on every thread is one.
            shard.series(labels(200)).add(&Added::default());
            shard.series(labels(300 + index)).add(&Added::default());
        }
        assert_eq!((requests.joined().len(), requests.dropped()), (3, 3), "two, and the rest");
        (0..PASSES).for_each(|_| requests.expire());
        let sets = shards[0].sets();
        assert!(sets.threads.is_empty() && sets.of_client.is_empty());
    }

    #[test]
    fn a_client_cannot_take_the_series_of_others() {
        let of = |client: &str, code| {
            let mut labels = labels(code);
            labels.ends.source.principal = client.into();
            labels
        };
        let requests = Requests::new(1, 30);
        let shard = requests.shard(0);
        (0..100).for_each(|code| shard.series(of("loud", code)).add(&Added::default()));
        let quiet = shard.series(of("quiet", 200));
        quiet.add(&Added::default());
        let joined = requests.joined();
        assert_eq!(joined[&of("quiet", 200)].requests.load(Ordering::Relaxed), 1);
        let loud = joined.keys().filter(|labels| &*labels.ends.source.principal == "loud").count();
        assert_eq!((loud, requests.dropped()), (20, 80), "twice what is left to all others");
    }
}
