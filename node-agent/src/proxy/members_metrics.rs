//! How many pods are served, under ztunnel's names, and how often their limits were hit.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Agent;
use super::pod::Phase;

/// Counts the pods at each scrape.
#[derive(Debug)]
pub(crate) struct Members(pub(crate) Arc<Agent>);

impl Collector for Members {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (mut active, mut draining) = (0i64, 0i64);
        let mut refused = self.0.refused_before.load(Ordering::Relaxed);
        for pod in self.0.pods().values() {
            refused += pod.account.refused();
            match pod.phase() {
                Phase::Serving => active += 1,
                Phase::Draining | Phase::Gone => draining += 1,
            }
        }
        let mut gauge = |name: &str, help: &str, value: i64| {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)
        };
        gauge("workload_manager_active_proxy_count", "Pods served", active)?;
        gauge("workload_manager_pending_proxy_count", "Pods not yet served", 0)?;
        gauge("workload_manager_draining_proxy_count", "Pods that leave the mesh", draining)?;
        let help = "Connections refused or ended because their pod's account was full";
        let metric = encoder.encode_descriptor("lateen_account_refused", help, None, MetricType::Counter)?;
        ConstCounter::new(refused).encode(metric)
    }
}
