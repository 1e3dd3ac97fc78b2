//! Lengths of time, as Istio's kinds write them: what Go's `time.ParseDuration` reads, such as `1.5s`, `2m30s`, `100ms`.

use std::{fmt, time};

use serde::{Deserialize, Deserializer, de};

/// Longer than anything anybody waits for, and short enough to be counted in milliseconds anywhere: 100 years.
const LONGEST: f64 = 100.0 * 365.0 * 24.0 * 3600.0;

/// A length of time, never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub time::Duration);

impl Duration {
    /// Reads `text`; `None` where it is no length of time, is negative, or is longer than 100 years.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Some(Self::default());
        }
        let mut total = time::Duration::ZERO;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
            let (number, after) = rest.split_at(digits);
            let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
            let (unit, after) = after.split_at(unit);
            total = total.checked_add(one(number, unit)?)?;
            rest = after;
        }
        (!text.trim_start_matches('+').is_empty() && total.as_secs_f64() <= LONGEST).then_some(Self(total))
    }
}

/// One number with its unit. Whole numbers and fractions of at most nine digits are exact.
fn one(number: &str, unit: &str) -> Option<time::Duration> {
    let nanos: u64 = match unit {
        "h" => 3_600_000_000_000,
        "m" => 60_000_000_000,
        "s" => 1_000_000_000,
        "ms" => 1_000_000,
        "us" | "µs" | "μs" => 1_000,
        "ns" => 1,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let digits = fraction.get(..9).unwrap_or(fraction);
    let scale = 10_u64.pow(u32::try_from(digits.len()).ok()?);
    let part: u64 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let part = u128::from(part) * u128::from(nanos) / u128::from(scale);
    let total = whole.checked_mul(nanos)?.checked_add(u64::try_from(part).ok()?)?;
    Some(time::Duration::from_nanos(total))
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Duration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time such as `1.5s`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                Duration::parse(text).ok_or_else(|| {
                    let message = "is not a length of time: numbers with units h, m, s, ms, such as `1.5s`";
                    E::custom(format_args!("`{text}` {message}"))
                })
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::Duration;

    #[test]
    fn lengths_are_read_as_go_reads_them() {
        for (text, millis) in [
            ("0s", Some(0.0)),
            ("0", Some(0.0)),
            ("1s", Some(1000.0)),
            ("1.5s", Some(1500.0)),
            (".5s", Some(500.0)),
            ("1.s", Some(1000.0)),
            ("2m30s", Some(150_000.0)),
            ("1h", Some(3_600_000.0)),
            ("100ms", Some(100.0)),
            ("+1ms", Some(1.0)),
            ("0.25ms", Some(0.25)),
            ("10us", Some(0.01)),
            ("0.1s", Some(100.0)),
            ("876000h", Some(876_000.0 * 3_600_000.0)),
            ("876001h", None),
            ("99999999999999999999s", None),
            ("", None),
            ("+", None),
            ("10", None),
            ("s", None),
            ("-1s", None),
            ("1 s", None),
            ("1d", None),
            ("1.2.3s", None),
            (".s", None),
            ("five", None),
        ] {
            let read = Duration::parse(text).map(|duration| duration.0.as_secs_f64() * 1000.0);
            assert_eq!(read, millis, "{text:?}");
        }
    }
}
