//! How much is asked for, and how often a limit was hit.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde_json::{Value, json};

use crate::proxy::Agent;

/// What the table has, and has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) keys: u64,
    pub(super) absent: u64,
    pub(super) unanswered: u64,
    pub(super) asked: u64,
    pub(super) forgotten: u64,
    pub(super) limited: u64,
    /// How often a pod had its share of the keys, of what is not there, and of questions without an answer.
    pub(super) keys_hits: u64,
    pub(super) absent_hits: u64,
    pub(super) unanswered_hits: u64,
}

impl Counts {
    /// For `/config_dump`.
    pub(super) fn page(&self) -> Value {
        json!({ "keys": self.keys, "absent": self.absent, "unanswered": self.unanswered })
    }
}

/// Counts at each scrape.
#[derive(Debug)]
pub(crate) struct DemandMetrics(pub(crate) Arc<Agent>);

impl Collector for DemandMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(inner) = &self.0.demand.0 else { return Ok(()) };
        let counts = inner.table().counts();
        for (name, help, value) in [
            ("lateen_demand_keys", "Addresses and names asked for on demand", counts.keys),
            ("lateen_demand_absent", "Of these what is known not to be there", counts.absent),
            ("lateen_demand_unanswered", "Of these what has no answer yet", counts.unanswered),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(metric)?;
        }
        for (name, help, value) in [
            ("lateen_demand_asked", "Questions put to the controller", counts.asked),
            ("lateen_demand_forgotten", "What was let go of because nobody used it", counts.forgotten),
            ("lateen_demand_limited", "Questions that had to wait because of a limit", counts.limited),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        Ok(())
    }
}
