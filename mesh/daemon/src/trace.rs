//! Traces: what requests say of the trace that they belong to, which of them are sampled, and spans to a collector over
//! OTLP. A collector that is slow or gone costs spans, never memory or a request's time.

pub mod propagation;

mod b3;
mod export;
mod w3c;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

pub use self::export::Exporter;
use self::propagation::{Carried, Formats};
use crate::metrics::Metrics;

/// Spans that wait for the collector; one more is lost. OpenTelemetry's own default.
const QUEUE: usize = 2048;
/// Bytes of an attribute's value; Istio cuts paths there (`maxPathTagLength`).
const VALUE: usize = 256;

/// Where spans go, and which requests get one.
#[derive(Debug, Clone)]
pub struct TraceSettings {
    /// The collector, `http://HOST:PORT`.
    pub collector: String,
    /// Per cent of the requests that belong to no trace yet.
    pub sampling: f64,
    /// How requests say what trace they belong to.
    pub formats: Formats,
    /// What is said of the process with every span.
    pub resource: Vec<(&'static str, String)>,
}

/// Why there can be no traces.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TraceError {
    /// The collector's address.
    #[error("{0:?} is no collector: give it as http://HOST:PORT, of OTLP over gRPC (4317 by custom)")]
    Collector(String),
    /// The rate of sampling.
    #[error("{0} is no percentage: sampling goes from 0 to 100")]
    Sampling(String),
    /// A format.
    #[error("{0:?} is no format of trace headers: choose among tracecontext, b3 and b3multi")]
    Format(String),
}

/// Makes spans of requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tracer {
    sampling: u32,
    formats: Formats,
    queue: mpsc::Sender<Finished>,
    flush: mpsc::Sender<oneshot::Sender<()>>,
    counts: Arc<Counts>,
}

/// How many spans there were.
#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    /// There was no room for it.
    overflowed: AtomicU64,
    /// The collector did not take it.
    refused: AtomicU64,
}

/// A span with the name of the service that it is of.
#[derive(Debug)]
struct Finished {
    service: Arc<str>,
    span: SpanData,
}

/// A million: draws for sampling are below it.
const MILLION: u32 = 1_000_000;

/// A request's place in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    trace: u128,
    id: u64,
    parent: Option<u64>,
}

/// All that is said of a request whose span ends.
#[derive(Debug)]
pub struct End {
    /// The service that the span is of.
    pub service: Arc<str>,
    /// The span's name.
    pub name: String,
    /// When the request began and ended.
    pub times: (std::time::SystemTime, std::time::SystemTime),
    /// Tags. Values are cut at 256 bytes.
    pub tags: Vec<(&'static str, String)>,
    /// Whether it failed.
    pub failed: bool,
}

impl Tracer {
    /// A tracer, and what exports its spans: [run](Exporter::run) it.
    ///
    /// # Errors
    /// Settings that make no sense.
    pub fn new(settings: &TraceSettings) -> Result<(Self, Exporter), TraceError> {
        if !(0.0..=100.0).contains(&settings.sampling) {
            return Err(TraceError::Sampling(settings.sampling.to_string()));
        }
        let (queue, finished) = mpsc::channel(QUEUE);
        let (flush, flushes) = mpsc::channel(1);
        let counts = Arc::<Counts>::default();
        let exporter = Exporter::new(settings, finished, flushes, counts.clone())?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to a million")]
        let sampling = (settings.sampling / 100.0 * f64::from(MILLION)).round() as u32;
        Ok((Self { sampling, formats: settings.formats, queue, flush, counts }, exporter))
    }

    /// Adds how many spans there were to what is scraped.
    pub fn register(&self, metrics: &Metrics) {
        metrics.register(|registry| registry.register_collector(Box::new(SpanMetrics(self.counts.clone()))));
    }

    /// Takes a request into its trace, or into one of its own, and tells those after us by its headers. There is a span
    /// if the request is sampled; `draw` gives a number below its bound.
    pub fn begin(
        &self,
        headers: &mut HeaderMap,
        random: impl Fn() -> [u8; 16],
        draw: impl FnOnce(u32) -> u32,
    ) -> Option<Span> {
        let carried = Carried::read(headers, self.formats);
        let sampled = carried.sampled.unwrap_or_else(|| draw(MILLION) < self.sampling);
        let trace = carried.parent.map_or_else(|| nonzero(u128::from_be_bytes(random())), |(trace, _)| trace);
        let [id, _] = halves(random());
        let span = Span { trace, id: id.max(1), parent: carried.parent.map(|(_, span)| span) };
        carried.write(headers, self.formats, &span, sampled);
        sampled.then_some(span)
    }

    /// Ends a span. Where there is no room for it, it is lost.
    pub fn end(&self, span: Span, end: End) {
        let finished = Finished { service: end.service.clone(), span: data(span, end) };
        if self.queue.try_send(finished).is_err() {
            self.counts.overflowed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what has ended so far is with the collector, or was lost.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.flush.send(done).await.is_ok() {
            let _ = flushed.await;
        }
    }
}

fn nonzero(trace: u128) -> u128 {
    trace.max(1)
}

fn halves(bytes: [u8; 16]) -> [u64; 2] {
    let both = u128::from_be_bytes(bytes);
    #[expect(clippy::cast_possible_truncation, reason = "one half at a time")]
    [(both >> 64) as u64, both as u64]
}

fn data(span: Span, end: End) -> SpanData {
    let (trace, id) = (TraceId::from(span.trace), SpanId::from(span.id));
    let context = SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::default());
    let attributes = end.tags.into_iter().map(|(name, value)| KeyValue::new(name, cut(value)));
    SpanData {
        span_context: context,
        parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from),
        parent_span_is_remote: span.parent.is_some(),
        span_kind: SpanKind::Server,
        name: cut(end.name).into(),
        start_time: end.times.0,
        end_time: end.times.1.max(end.times.0),
        attributes: attributes.collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: if end.failed { Status::error("") } else { Status::Unset },
        instrumentation_scope: InstrumentationScope::builder("lateen")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

fn cut(mut text: String) -> String {
    if text.len() > VALUE {
        let end = (0..=VALUE).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// `lateen_spans_exported_total`, `lateen_spans_lost_total`.
#[derive(Debug)]
struct SpanMetrics(Arc<Counts>);

impl Collector for SpanMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let load = |count: &AtomicU64| ConstCounter::new(count.load(Ordering::Relaxed));
        let help = "Spans that the collector took";
        let metric = encoder.encode_descriptor("lateen_spans_exported", help, None, MetricType::Counter)?;
        load(&self.0.exported).encode(metric)?;
        let help =
            "Spans that were lost: there was no room for them (queue), or the collector did not take them";
        let mut lost = encoder.encode_descriptor("lateen_spans_lost", help, None, MetricType::Counter)?;
        for (reason, count) in [("queue", &self.0.overflowed), ("collector", &self.0.refused)] {
            load(count).encode(lost.encode_family(&[("reason", reason)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
