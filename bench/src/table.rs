//! From samples to the table: ratios within a round, then minimum, median and maximum over the rounds. Pure.
//!
//! A ratio of two figures of the same round survives what disturbs both: another machine, a busy one.

mod render;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub(crate) use render::{lay_out, render, render_rows};

/// One figure of one variant in one round.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub round: usize,
    pub variant: &'static str,
    /// A row's key.
    pub row: &'static str,
    pub value: f64,
}

/// A line of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// What samples call it.
    pub key: &'static str,
    /// The target's number.
    pub id: &'static str,
    pub what: &'static str,
    /// Unit of the absolute figure.
    pub unit: &'static str,
    /// What our ratio to the base shall be: ztunnel in this table.
    pub target: Target,
}

/// A bound on a ratio, or on the figure itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    /// Ratio to ztunnel at least.
    AtLeast(f64),
    /// Ratio to ztunnel at most.
    AtMost(f64),
    /// The figure itself at most.
    Below(f64),
    /// Shown for its own sake.
    Open,
}

/// All rows, processor time first: the load tools share the cores with the proxies, so throughput misleads.
pub(crate) const ROWS: &[Row] = &[
    row("bulk1.cpu", "P1", "bulk, 1 stream: CPU", "s/GB", Target::AtMost(0.75)),
    row("bulk1.rate", "P1", "bulk, 1 stream", "Gbit/s", Target::AtLeast(1.45)),
    row("bulk8.cpu", "P2", "bulk, 8 streams: CPU", "s/GB", Target::AtMost(0.65)),
    row("bulk8.rate", "P2", "bulk, 8 streams", "Gbit/s", Target::AtLeast(1.8)),
    row("pass.cpu", "P3", "plaintext passthrough: CPU", "s/GB", Target::AtMost(0.4)),
    row("pass.rate", "P3", "plaintext passthrough", "Gbit/s", Target::AtLeast(2.0)),
    row("c1.cpu", "P4", "1 connection, 1 KB: CPU", "µs/req", Target::AtMost(0.70)),
    row("c1.p50", "P4", "1 connection: p50", "µs", Target::Open),
    row("c1.added", "P4", "1 connection: p50 added to plain", "µs", Target::AtMost(0.75)),
    row("c1.rate", "P4", "1 connection", "req/s", Target::Open),
    row("c64.cpu", "P4b", "64 connections, 1 KB: CPU", "µs/req", Target::AtMost(0.45)),
    row("c64.p50", "P4b", "64 connections: p50", "µs", Target::Open),
    row("c64.p99", "P4b", "64 connections: p99", "µs", Target::AtMost(0.6)),
    row("c64.rate", "P4b", "64 connections", "req/s", Target::AtLeast(1.7)),
    row("tail.cpu", "P4b", "64 connections, same paced rate: CPU", "µs/req", Target::Open),
    row("tail.p99", "P4b", "64 connections, same paced rate: p99", "µs", Target::Open),
    row("mixed.p50", "D13", "1 connection beside a bulk stream: p50", "µs", Target::Open),
    row("mixed.p99", "D13", "1 connection beside a bulk stream: p99", "µs", Target::Open),
    row("conn.cpu", "P5", "new connections: CPU", "µs/conn", Target::AtMost(0.45)),
    row("conn.p50", "P5", "new connections: p50", "µs", Target::Open),
    row("conn.rate", "P5", "new connections", "conn/s", Target::AtLeast(1.8)),
    row("start.rss", "P6", "idle memory of one proxy", "MB", Target::Below(10.0)),
    row("start.anon", "P6", "of it anonymous", "MB", Target::Open),
    row("start.ready", "P6", "start to ready", "ms", Target::Below(15.0)),
    row("idle.client", "P7", "memory an idle connection, client side", "KiB", Target::Below(1.2)),
    row("idle.server", "P7", "memory an idle connection, server side", "KiB", Target::Below(1.2)),
    row("idle.back", "P7", "memory 30 s after closing ÷ before opening", "×", Target::Below(1.1)),
    row("workloads.memory", "C4", "memory a workload", "B", Target::Below(400.0)),
    row("workloads.cpu", "C4", "CPU to load a workload", "µs", Target::Below(3.0)),
];

/// A row.
pub(crate) const fn row(
    key: &'static str,
    id: &'static str,
    what: &'static str,
    unit: &'static str,
    target: Target,
) -> Row {
    Row { key, id, what, unit, target }
}

/// Least, middle and greatest of some values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { min, median, max })
    }
}

/// The samples, by row, variant and round.
#[derive(Debug, Default)]
pub(crate) struct Figures(BTreeMap<(&'static str, &'static str), BTreeMap<usize, f64>>);

impl Figures {
    /// Takes the samples in and adds what follows from them: the latency a variant adds to the plain path.
    pub(crate) fn new(samples: &[Sample]) -> Self {
        let mut figures = Self::default();
        for sample in samples {
            figures.0.entry((sample.row, sample.variant)).or_default().insert(sample.round, sample.value);
        }
        let plain = figures.0.get(&("c1.p50", "plain")).cloned().unwrap_or_default();
        let others: Vec<_> =
            figures.0.keys().filter(|key| key.0 == "c1.p50" && key.1 != "plain").copied().collect();
        for key in others {
            let added = figures.0[&key]
                .iter()
                .filter_map(|(round, value)| Some((*round, value - plain.get(round)?)))
                .collect();
            figures.0.insert(("c1.added", key.1), added);
        }
        figures
    }

    /// The figures themselves, over the rounds.
    pub(crate) fn absolute(&self, row: &str, variant: &str) -> Option<Spread> {
        Spread::of(self.rounds(row, variant)?.values().copied().collect())
    }

    /// The ratios to `base`, round by round.
    pub(crate) fn ratio(&self, row: &str, variant: &str, base: &str) -> Option<Spread> {
        let base = self.rounds(row, base)?;
        let ratios = self.rounds(row, variant)?.iter().filter_map(|(round, value)| {
            let base = *base.get(round)?;
            (base > 0.0).then_some(value / base)
        });
        Spread::of(ratios.collect())
    }

    fn rounds(&self, row: &str, variant: &str) -> Option<&BTreeMap<usize, f64>> {
        self.0.iter().find(|(key, _)| key.0 == row && key.1 == variant).map(|(_, rounds)| rounds)
    }
}

impl Target {
    /// Whether a variant's medians reach it; `None` when it sets nothing or nothing was measured.
    pub(crate) fn met(self, ratio: Option<Spread>, absolute: Option<Spread>) -> Option<bool> {
        match self {
            Self::AtLeast(bound) => ratio.map(|spread| spread.median >= bound),
            Self::AtMost(bound) => ratio.map(|spread| spread.median <= bound),
            Self::Below(bound) => absolute.map(|spread| spread.median <= bound),
            Self::Open => None,
        }
    }
}
