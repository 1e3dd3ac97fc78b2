//! How long a request may take from when all of it has come, and what is said of it to the endpoint.
//!
//! A rule's `timeout` counts, and the client's `grpc-timeout` up to it. The client's `x-envoy-upstream-rq-timeout-ms` and its
//! like do not ([`CONTROL_HEADERS`](super::headers::CONTROL_HEADERS) says why).

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::action::Forward;
use super::headers::Edit;

/// How long a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// All tries together; `None` is no limit.
    pub total: Option<Duration>,
    /// Each try; `None` is what is left of the whole.
    pub per_try: Option<Duration>,
    /// Whether the request is gRPC, and is told its time in gRPC's way.
    grpc: bool,
}

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const EXPECTED: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

impl Timeouts {
    /// The limits of a request, by its headers as they came.
    pub fn of(forward: &Forward, headers: &HeaderMap) -> Self {
        let limit = forward.timeout.filter(|limit| !limit.is_zero());
        let grpc = is_grpc(headers);
        let asked = grpc.then(|| headers.get(GRPC_TIMEOUT).and_then(grpc_timeout)).flatten();
        // Of a time asked for and a limit, the shorter; 0 is no limit, as in Envoy.
        let total = match (limit, asked.filter(|asked| !asked.is_zero())) {
            (Some(limit), Some(asked)) => Some(limit.min(asked)),
            (limit, asked) => limit.or(asked),
        };
        let per_try = forward.retry.as_ref().and_then(|policy| policy.per_try_timeout);
        let shorter = |per_try: &Duration| !per_try.is_zero() && total.is_none_or(|total| *per_try < total);
        Self { total, per_try: per_try.filter(shorter), grpc }
    }

    /// What the endpoint is told of its time for a try that begins when so much of the whole has passed.
    pub fn headers(&self, passed: Duration) -> Vec<Edit> {
        let left = self.total.map(|total| total.saturating_sub(passed).max(Duration::from_millis(1)));
        let Some(expected) = self.per_try.into_iter().chain(left).min() else { return Vec::new() };
        let mut edits = vec![Edit::Set(EXPECTED, HeaderValue::from(millis(expected)))];
        if self.grpc
            && let Ok(value) = HeaderValue::try_from(to_grpc_timeout(expected))
        {
            edits.push(Edit::Set(GRPC_TIMEOUT, value));
        }
        edits
    }
}

/// Whether a message is gRPC by its content type (not gRPC-Web).
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return false };
    match kind.as_bytes().strip_prefix(b"application/grpc") {
        Some(rest) => matches!(rest.first(), None | Some(b'+' | b';')),
        None => false,
    }
}

/// Reads `grpc-timeout`: at most eight digits and a unit; parts of a millisecond count as one.
fn grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    let millis = match unit {
        b'H' => number * 3_600_000,
        b'M' => number * 60_000,
        b'S' => number * 1000,
        b'm' => number,
        b'u' => number.div_ceil(1000),
        b'n' => number.div_ceil(1_000_000),
        _ => return None,
    };
    Some(Duration::from_millis(millis))
}

/// Writes `grpc-timeout` in the finest unit from milliseconds on that eight digits hold.
fn to_grpc_timeout(time: Duration) -> String {
    const UNITS: [(u64, char); 4] = [(1, 'm'), (1000, 'S'), (60_000, 'M'), (3_600_000, 'H')];
    const MOST: u64 = 99_999_999;
    let millis = millis(time);
    let fits = UNITS.into_iter().find(|(length, _)| millis / length <= MOST);
    fits.map_or_else(|| format!("{MOST}H"), |(length, unit)| format!("{}{unit}", millis / length))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
