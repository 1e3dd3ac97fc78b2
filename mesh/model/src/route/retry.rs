//! Whether a try that failed is made again (`HTTPRetry`), by Envoy's rules.
//!
//! Whether a request may be sent twice without harm is for the owner of the host to say, as in Istio: its default asks
//! only for what an application has not begun to work on, or says it has not.

mod conditions;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};
use thiserror::Error;

pub use self::conditions::{InvalidRetryOn, RetryCondition, RetryOn};
use crate::select::Draw;

/// When and how often a request is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// `attempts`: how often at most, beside the first try.
    pub attempts: u32,
    /// `retryOn`, its conditions.
    pub on: RetryOn,
    /// `retryOn`, its status codes.
    pub status_codes: Box<[StatusCode]>,
    /// Response headers that ask for another try, with [`RetryCondition::RetriableHeaders`]. Istio has no field for
    /// them, and clients may not name them; without any the condition never holds.
    pub headers: Box<[HeaderName]>,
    /// `perTryTimeout`; `None` is the whole request's.
    pub per_try_timeout: Option<Duration>,
    /// `backoff`: the first pause is drawn up to this, later ones up to twice as much each time, at most ten times.
    pub backoff: Duration,
    /// `retryRemoteLocalities`: the next try may go where load balancing would not send it yet.
    pub remote_localities: bool,
    /// `retryIgnorePreviousHosts`: whether endpoints that were tried are left out, as far as there are others. `None`
    /// is Istio's default: yes, unless the destination is chosen by a hash.
    pub ignore_previous_hosts: Option<bool>,
}

/// Envoy's pause before the first retry, at most.
pub const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);
/// How often Istio tries again by default.
pub const DEFAULT_ATTEMPTS: u32 = 2;
/// How often another endpoint is drawn because the one drawn has been tried, before it is taken nevertheless.
pub const HOST_SELECTION_ATTEMPTS: u32 = 5;
/// The longest pause, in multiples of the first.
const MAX_BACKOFF_FACTOR: u32 = 10;

impl Default for RetryPolicy {
    /// Istio's default: twice, on `connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes` without
    /// any status code. (503 was one before Istio 1.24; an application may have begun to work before it answers so.)
    fn default() -> Self {
        use RetryCondition::{Cancelled, ConnectFailure, RefusedStream, RetriableStatusCodes, Unavailable};
        Self {
            attempts: DEFAULT_ATTEMPTS,
            on: [ConnectFailure, RefusedStream, Unavailable, Cancelled, RetriableStatusCodes]
                .into_iter()
                .collect(),
            status_codes: Box::default(),
            headers: Box::default(),
            per_try_timeout: None,
            backoff: DEFAULT_BACKOFF,
            remote_localities: false,
            ignore_previous_hosts: None,
        }
    }
}

impl RetryPolicy {
    /// The default, shared by all that have it.
    pub fn shared_default() -> Arc<Self> {
        static DEFAULT: LazyLock<Arc<RetryPolicy>> = LazyLock::new(Arc::default);
        DEFAULT.clone()
    }
}

/// How a try ended.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// A response began; its headers say the gRPC status only where there is nothing else in it.
    Response {
        /// Its status.
        status: StatusCode,
        /// Its headers.
        headers: &'a HeaderMap,
    },
    /// No connection came about.
    ConnectFailure,
    /// The endpoint refused the stream (`REFUSED_STREAM`, or a GOAWAY that excludes it): it has not worked on it.
    RefusedStream {
        /// Whether anything of the request had been sent.
        sent: bool,
    },
    /// The connection or the stream ended, from that side or this one, before a response.
    Reset {
        /// Whether anything of the request had been sent.
        sent: bool,
    },
    /// The try took longer than each may.
    PerTryTimeout,
    /// The request took longer than it may.
    Timeout,
    /// The destination's connection pool is full.
    Overflow,
}

/// Whether to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes, for this reason, after a pause.
    Again {
        /// The condition that holds.
        because: RetryCondition,
        /// The pause.
        after: Duration,
    },
    /// No.
    No(NoRetry),
}

/// Why a try is not made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoRetry {
    /// There are to be none.
    #[error("the rule allows no retries")]
    Disabled,
    /// The conditions do not name this outcome; in particular where nothing failed.
    #[error("retryOn does not name this outcome")]
    NotAsked,
    /// It has been tried as often as it may.
    #[error("all {0} retries were made")]
    Exhausted(u32),
    /// The time is up.
    #[error("the request's time is up")]
    TimedOut,
    /// The pool is full: another try would make it fuller.
    #[error("the destination's connection pool is full")]
    Overflow,
    /// The answer is that there were too many requests.
    #[error("the destination limits the rate of requests")]
    RateLimited,
}

/// Whether a request that has been tried again `retries` times is tried once more. Whether its body can still be sent,
/// and whether the destination's `maxRetries` or retry budget allows one more at the same time, is the caller's to see.
pub fn retry(policy: Option<&RetryPolicy>, retries: u32, outcome: &Outcome<'_>, draw: Draw<'_>) -> Verdict {
    let Some(policy) = policy.filter(|policy| policy.attempts > 0) else {
        return Verdict::No(NoRetry::Disabled);
    };
    match policy.asked(outcome) {
        Err(reason) => Verdict::No(reason),
        Ok(_) if retries >= policy.attempts => Verdict::No(NoRetry::Exhausted(policy.attempts)),
        Ok(because) => Verdict::Again { because, after: policy.pause(retries, draw) },
    }
}

impl RetryPolicy {
    /// The condition that asks for another try after an outcome.
    fn asked(&self, outcome: &Outcome<'_>) -> Result<RetryCondition, NoRetry> {
        match outcome {
            Outcome::Timeout => Err(NoRetry::TimedOut),
            Outcome::Overflow => Err(NoRetry::Overflow),
            Outcome::Response { status, headers } => self.asked_by_response(*status, headers),
            Outcome::ConnectFailure => self.asked_by_reset(Some(RetryCondition::ConnectFailure), false),
            Outcome::RefusedStream { sent } => {
                self.asked_by_reset(Some(RetryCondition::RefusedStream), *sent)
            }
            Outcome::Reset { sent } => self.asked_by_reset(None, *sent),
            Outcome::PerTryTimeout => self.asked_by_reset(None, true),
        }
    }

    /// Where there is no response, it counts as a 503 or 504.
    fn asked_by_reset(&self, kind: Option<RetryCondition>, sent: bool) -> Result<RetryCondition, NoRetry> {
        use RetryCondition::{FiveXx, GatewayError, Reset, ResetBeforeRequest};
        let unsent = (!sent).then_some(ResetBeforeRequest);
        let conditions = [unsent, Some(Reset), Some(FiveXx), Some(GatewayError), kind];
        conditions.into_iter().flatten().find(|one| self.on.contains(*one)).ok_or(NoRetry::NotAsked)
    }

    fn asked_by_response(&self, status: StatusCode, headers: &HeaderMap) -> Result<RetryCondition, NoRetry> {
        if headers.contains_key("x-envoy-ratelimited") {
            let condition = RetryCondition::EnvoyRateLimited;
            return if self.on.contains(condition) { Ok(condition) } else { Err(NoRetry::RateLimited) };
        }
        let holds = |condition: &RetryCondition| match condition {
            RetryCondition::FiveXx => status.is_server_error(),
            RetryCondition::GatewayError => (502..=504).contains(&status.as_u16()),
            RetryCondition::Retriable4xx => status == StatusCode::CONFLICT,
            RetryCondition::RetriableStatusCodes => self.status_codes.contains(&status),
            RetryCondition::RetriableHeaders => self.headers.iter().any(|name| headers.contains_key(name)),
            other => other.grpc_status().is_some_and(|code| grpc_status(headers) == Some(code)),
        };
        RetryCondition::ALL
            .into_iter()
            .find(|condition| self.on.contains(*condition) && holds(condition))
            .ok_or(NoRetry::NotAsked)
    }

    /// Up to the first pause, doubled with each retry, drawn in whole milliseconds.
    fn pause(&self, retries: u32, draw: Draw<'_>) -> Duration {
        let longest = self.backoff.saturating_mul(MAX_BACKOFF_FACTOR);
        let mut bound = self.backoff;
        for _ in 0..retries {
            if bound >= longest / 2 {
                bound = longest;
                break;
            }
            bound *= 2;
        }
        let millis = u32::try_from(bound.as_millis()).unwrap_or(u32::MAX);
        Duration::from_millis(u64::from(draw(millis.max(1))))
    }
}

/// The gRPC status in a response's headers.
fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
