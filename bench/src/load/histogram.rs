//! Latencies, counted in buckets that grow with the value: percentiles within one per cent, fixed memory.

use std::time::Duration;

/// Each power of two is cut into so many buckets (2⁷): the error of a percentile stays under 1 %.
const BITS: u32 = 7;
const PER_OCTAVE: usize = 1 << BITS;
/// Octaves above the first, linear one; the last ends at about 9 minutes.
const OCTAVES: usize = 32;

/// Counts of latencies, in nanoseconds.
#[derive(Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; PER_OCTAVE * (OCTAVES + 1)], total: 0 }
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let last = self.counts.len() - 1;
        self.counts[bucket(nanos).min(last)] += 1;
        self.total += 1;
    }

    /// The latency in microseconds below which the share `quantile` (0 to 1) of all lies; 0 when empty.
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        let rank = (quantile * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return middle(index) / 1000.0;
            }
        }
        0.0
    }
}

/// The bucket a value falls into: linear up to 2⁷, then 2⁷ buckets an octave.
fn bucket(nanos: u64) -> usize {
    let octave = (u64::BITS - nanos.leading_zeros()).saturating_sub(BITS);
    let mantissa = (nanos >> octave.saturating_sub(1)) as usize;
    if octave == 0 { mantissa } else { octave as usize * PER_OCTAVE + (mantissa - PER_OCTAVE) }
}

/// The middle of a bucket's values, in nanoseconds.
fn middle(index: usize) -> f64 {
    let (octave, offset) = (index / PER_OCTAVE, index % PER_OCTAVE);
    if octave == 0 {
        return offset as f64;
    }
    let width = (1u64 << (octave - 1)) as f64;
    ((PER_OCTAVE + offset) as f64 + 0.5) * width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_within_one_per_cent_of_its_buckets_middle() {
        let mut value = 1u64;
        while value < 500_000_000_000 {
            let error = (middle(bucket(value)) - value as f64).abs() / value as f64;
            assert!(error < 0.01, "{value}: {error}");
            value += value / 3 + 1;
        }
    }

    #[test]
    fn buckets_follow_one_another_without_a_gap() {
        let mut before = 0;
        for value in 1..100_000 {
            let now = bucket(value);
            assert!(now == before || now == before + 1, "{value}");
            before = now;
        }
    }

    #[test]
    fn percentiles_of_one_to_a_thousand_microseconds() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile_us(0.5), 0.0);
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        for (quantile, wanted) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (1.0, 1000.0)] {
            let got = histogram.quantile_us(quantile);
            assert!((got - wanted).abs() / wanted < 0.01, "{quantile}: {got}");
        }
    }

    #[test]
    fn what_is_beyond_the_last_bucket_counts_in_it() {
        let mut histogram = Histogram::new();
        histogram.record(Duration::from_secs(100_000));
        assert!(histogram.quantile_us(0.5) > 400_000_000.0);
    }
}
