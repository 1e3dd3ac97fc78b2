//! When to fetch next: a pure decision, in wall-clock time, so that a suspended machine or a stepped clock is
//! judged by what the certificate says.

use std::time::{Duration, SystemTime};

use crate::bundle::Validity;

/// Wait after the first failure; doubled with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The longest wait between attempts.
const LONGEST_RETRY: Duration = Duration::from_secs(150);

/// How much a wait is spread, up and down, so that a node's identities do not retry as one.
const SPREAD: f64 = 0.2;

/// What is known of one identity when the question is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation {
    /// The certificate held, if any.
    pub(crate) held: Option<Validity>,
    /// Attempts that have failed since the last success.
    pub(crate) failures: u32,
    /// When the last attempt ended.
    pub(crate) now: SystemTime,
    /// Where in the spread this one falls: 0 to 1.
    pub(crate) chance: f64,
}

/// When to fetch next.
///
/// After a success: at half of the certificate's life. An authority may backdate what it issues by more than a short
/// lifetime, which puts the half into the past; then half of what remains is waited, at least a second.
///
/// After a failure: 1 s × 2ⁿ, ±20 %, at most 150 s, but not later than the expiry of a certificate still held.
pub(crate) fn next_fetch(situation: Situation) -> SystemTime {
    let Situation { held, failures, now, chance } = situation;
    if failures > 0 {
        let retry = now + backoff(failures, chance);
        return match held {
            Some(validity) if validity.not_after > now => retry.min(validity.not_after),
            _ => retry,
        };
    }
    let Some(validity) = held else { return now };
    let remaining = validity.not_after.duration_since(now).unwrap_or_default();
    let soonest = now + (remaining / 2).clamp(FIRST_RETRY, LONGEST_RETRY);
    half_life(validity).max(soonest)
}

/// The middle between notBefore and notAfter.
fn half_life(validity: Validity) -> SystemTime {
    let lifetime = validity.not_after.duration_since(validity.not_before).unwrap_or_default();
    validity.not_before + lifetime / 2
}

fn backoff(failures: u32, chance: f64) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1u32.checked_shl(failures - 1).unwrap_or(u32::MAX));
    let spread = 1.0 + SPREAD * (2.0 * chance.clamp(0.0, 1.0) - 1.0);
    doubled.min(LONGEST_RETRY).mul_f64(spread).min(LONGEST_RETRY)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const HOUR: u64 = 3600;
    /// The moment all rows are asked at, in seconds of the epoch.
    const NOW: u64 = 1_000 * HOUR;

    #[test]
    fn decides_by_table() {
        struct Row {
            about: &'static str,
            /// notBefore and notAfter, seconds relative to now.
            held: Option<(i64, i64)>,
            failures: u32,
            chance: f64,
            /// Seconds from now.
            expected: f64,
        }
        let row = |about, held, failures, chance, expected| Row { about, held, failures, chance, expected };
        let day = 24 * HOUR as i64;
        for Row { about, held, failures, chance, expected } in [
            row("never fetched: at once", None, 0, 0.5, 0.0),
            row("a day, backdated 2 min: half of it all", Some((-120, day)), 0, 0.5, 43_140.0),
            row("success does not depend on chance", Some((-120, day)), 0, 1.0, 43_140.0),
            row("half-life passed: half of the rest, bounded", Some((-day, HOUR as i64)), 0, 0.5, 150.0),
            row("backdated by more than its life", Some((-120, 60)), 0, 0.5, 30.0),
            row("already expired: still not a busy loop", Some((-120, -1)), 0, 0.5, 1.0),
            row("first failure", None, 1, 0.5, 1.0),
            row("first failure, early end of the spread", None, 1, 0.0, 0.8),
            row("first failure, late end of the spread", None, 1, 1.0, 1.2),
            row("doubles", None, 4, 0.5, 8.0),
            row("cap", None, 9, 0.5, 150.0),
            row("cap holds at the late end", None, 9, 1.0, 150.0),
            row("cap at the early end", None, 9, 0.0, 120.0),
            row("many failures do not overflow", None, u32::MAX, 0.5, 150.0),
            row("not later than the expiry", Some((-day, 30)), 9, 0.5, 30.0),
            row("sooner than the expiry", Some((-day, 30)), 2, 0.5, 2.0),
            row("after the expiry plain backoff", Some((-day, -30)), 3, 0.5, 4.0),
            row("at the very expiry, too", Some((-day, 0)), 3, 0.5, 4.0),
        ] {
            let now = UNIX_EPOCH + Duration::from_secs(NOW);
            let at = |offset: i64| now.checked_add_signed_seconds(offset);
            let held = held.map(|(from, to)| Validity { not_before: at(from), not_after: at(to) });
            let next = next_fetch(Situation { held, failures, now, chance });
            let waited = next.duration_since(now).expect(about).as_secs_f64();
            assert!((waited - expected).abs() < 1e-6, "{about}: waited {waited}, expected {expected}");
        }
    }

    /// Seconds before or after a moment.
    trait Signed {
        fn checked_add_signed_seconds(self, seconds: i64) -> SystemTime;
    }

    impl Signed for SystemTime {
        fn checked_add_signed_seconds(self, seconds: i64) -> SystemTime {
            let distance = Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 { self - distance } else { self + distance }
        }
    }
}
