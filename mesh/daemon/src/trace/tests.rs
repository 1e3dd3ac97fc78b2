//! Spans on their way to a collector: what it gets, and what is lost where it is away.

use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;

use super::*;

fn settings(collector: &str, sampling: f64) -> TraceSettings {
    let formats = "tracecontext".parse().unwrap();
    TraceSettings { collector: collector.into(), sampling, formats, resource: Vec::new() }
}

fn end(service: &str) -> End {
    let now = SystemTime::now();
    End { service: service.into(), name: "n".into(), times: (now, now), tags: Vec::new(), failed: false }
}

fn sampled(tracer: &Tracer, headers: &mut HeaderMap, drawn: u32) -> Option<Span> {
    tracer.begin(headers, || [9; 16], |_| drawn)
}

#[tokio::test]
async fn who_has_decided_before_has_decided() {
    let (tracer, _exporter) = Tracer::new(&settings("http://127.0.0.1:1", 1.0)).unwrap();
    for (carried, drawn, expected) in
        [(None, 9_999, true), (None, 10_000, false), (Some("01"), 999_999, true), (Some("00"), 0, false)]
    {
        let mut headers = HeaderMap::new();
        if let Some(flags) = carried {
            let text = format!("00-{}1-{}1-{flags}", "0".repeat(31), "0".repeat(15));
            headers.insert("traceparent", text.parse().unwrap());
        }
        let span = sampled(&tracer, &mut headers, drawn);
        assert_eq!(span.is_some(), expected, "{carried:?} {drawn}");
        let told = headers["traceparent"].to_str().unwrap();
        assert_eq!(told.ends_with("-01"), expected, "{told}");
    }
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused() {
    for collector in ["", "127.0.0.1:4317", "https://collector:4317", "http://"] {
        let refused = Tracer::new(&settings(collector, 1.0)).map(drop);
        assert_eq!(refused, Err(TraceError::Collector(collector.into())));
    }
    assert_eq!(
        Tracer::new(&settings("http://c:1", 101.0)).map(drop),
        Err(TraceError::Sampling("101".into()))
    );
}

#[tokio::test]
async fn a_collector_that_does_not_answer_costs_spans_and_no_memory() {
    // It takes connections, and never says a word.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let collector = format!("http://{}", listener.local_addr().unwrap());
    let (tracer, exporter) = Tracer::new(&settings(&collector, 100.0)).unwrap();
    let running = tokio::spawn(exporter.run());
    let span = sampled(&tracer, &mut HeaderMap::new(), 0).unwrap();
    let began = tokio::time::Instant::now();
    for _ in 0..100_000 {
        tracer.end(span, end("s"));
        if tracer.counts.overflowed.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(began.elapsed() < Duration::from_secs(5), "nobody waits for it");
    let lost = tracer.counts.overflowed.load(Ordering::Relaxed);
    let most = (QUEUE + 2 * 512) as u64;
    assert!(lost >= 100_000 - most, "{lost}");
    running.abort();
}

#[tokio::test]
async fn a_collector_that_is_gone_is_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let collector = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (tracer, exporter) = Tracer::new(&settings(&collector, 100.0)).unwrap();
    let running = tokio::spawn(exporter.run());
    let span = sampled(&tracer, &mut HeaderMap::new(), 0).unwrap();
    (0..3).for_each(|_| tracer.end(span, end("s")));
    tracer.flush().await;
    assert_eq!(tracer.counts.refused.load(Ordering::Relaxed), 3);
    let metrics = Metrics::default();
    tracer.register(&metrics);
    assert!(metrics.text().contains("lateen_spans_lost_total{reason=\"collector\"} 3"));
    running.abort();
}

#[test]
fn values_are_cut_between_characters() {
    assert_eq!(cut("x".repeat(300)).len(), VALUE);
    assert_eq!(cut(format!("{}ä", "x".repeat(255))), "x".repeat(255));
}
