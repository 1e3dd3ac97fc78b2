//! Spans to the collector, in batches, one at a time: what comes while one is on its way waits, as far as there is room.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::transport::{Channel, Endpoint};

use super::{Counts, Finished, TraceError, TraceSettings};

/// Spans that go at once. OpenTelemetry's own default.
const BATCH: usize = 512;
/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// How long the collector may take for a batch. OpenTelemetry's own default.
const PATIENCE: Duration = Duration::from_secs(10);
/// Services whose exporter is kept.
const SERVICES: usize = 256;

/// Exports what a [`Tracer`](super::Tracer) makes.
#[derive(Debug)]
pub struct Exporter {
    channel: Channel,
    collector: String,
    resource: Vec<KeyValue>,
    finished: mpsc::Receiver<Finished>,
    flushes: mpsc::Receiver<oneshot::Sender<()>>,
    counts: Arc<Counts>,
    /// By the service's name, because spans of a kind share their resource.
    exporters: HashMap<Arc<str>, SpanExporter>,
    /// Whether the last batch was lost: the log says it once.
    failing: bool,
}

impl Exporter {
    pub(super) fn new(
        settings: &TraceSettings,
        finished: mpsc::Receiver<Finished>,
        flushes: mpsc::Receiver<oneshot::Sender<()>>,
        counts: Arc<Counts>,
    ) -> Result<Self, TraceError> {
        let wrong = || TraceError::Collector(settings.collector.clone());
        if !settings.collector.starts_with("http://") {
            return Err(wrong());
        }
        let endpoint = Endpoint::from_shared(settings.collector.clone()).map_err(|_| wrong())?;
        if endpoint.uri().host().is_none_or(str::is_empty) {
            return Err(wrong());
        }
        let resource = settings.resource.iter().map(|(name, value)| KeyValue::new(*name, value.clone()));
        Ok(Self {
            channel: endpoint.connect_timeout(PATIENCE).connect_lazy(),
            collector: settings.collector.clone(),
            resource: resource.collect(),
            finished,
            flushes,
            counts,
            exporters: HashMap::new(),
            failing: false,
        })
    }

    /// Exports until dropped.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let flush = self.fill(&mut batch).await;
            if flush.is_some() {
                // All that is there already goes along.
                while let Ok(finished) = self.finished.try_recv() {
                    batch.push(finished);
                }
            }
            self.send(std::mem::take(&mut batch)).await;
            if let Some(done) = flush {
                let _ = done.send(());
            }
        }
    }

    /// Waits for a batch: full, or old enough, or wanted at once.
    async fn fill(&mut self, batch: &mut Vec<Finished>) -> Option<oneshot::Sender<()>> {
        let mut until = None;
        loop {
            if batch.len() >= BATCH {
                return None;
            }
            let due = until.unwrap_or_else(Instant::now);
            tokio::select! {
                Some(finished) = self.finished.recv() => {
                    batch.push(finished);
                    until.get_or_insert_with(|| Instant::now() + DELAY);
                }
                Some(flush) = self.flushes.recv() => return Some(flush),
                () = sleep_until(due), if until.is_some() => return None,
                // Nobody makes spans any more.
                else => return std::future::pending().await,
            }
        }
    }

    async fn send(&mut self, batch: Vec<Finished>) {
        let mut by_service: HashMap<Arc<str>, Vec<SpanData>> = HashMap::new();
        for Finished { service, span } in batch {
            by_service.entry(service).or_default().push(span);
        }
        for (service, spans) in by_service {
            let count = spans.len() as u64;
            let outcome = match self.exporter(&service) {
                Ok(exporter) => match timeout(PATIENCE, exporter.export(spans)).await {
                    Ok(outcome) => outcome.map_err(|error| error.to_string()),
                    Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
                },
                Err(error) => Err(error),
            };
            self.note(count, outcome);
        }
    }

    fn note(&mut self, count: u64, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                self.counts.exported.fetch_add(count, Ordering::Relaxed);
                self.failing = false;
            }
            Err(error) => {
                self.counts.refused.fetch_add(count, Ordering::Relaxed);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(
                        collector = self.collector, %error,
                        "spans are lost; is it a collector of OTLP over gRPC, and does it run?"
                    );
                }
            }
        }
    }

    fn exporter(&mut self, service: &Arc<str>) -> Result<&SpanExporter, String> {
        if !self.exporters.contains_key(service) {
            if self.exporters.len() >= SERVICES {
                self.exporters.clear();
            }
            let built = SpanExporter::builder()
                .with_tonic()
                .with_channel(self.channel.clone())
                .with_retry_policy(RetryPolicy::disabled())
                .build();
            let mut exporter = built.map_err(|error| error.to_string())?;
            let name = KeyValue::new("service.name", service.to_string());
            let attributes = self.resource.iter().cloned().chain([name]);
            exporter.set_resource(&Resource::builder_empty().with_attributes(attributes).build());
            self.exporters.insert(service.clone(), exporter);
        }
        self.exporters.get(service).ok_or_else(|| String::from("there is no exporter"))
    }
}
