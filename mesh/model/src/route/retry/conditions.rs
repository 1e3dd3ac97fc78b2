//! The conditions that `retryOn` names, as a set.

use std::fmt;

use http::StatusCode;
use thiserror::Error;

/// A condition of `retryOn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetryCondition {
    /// A 5xx, or no response at all.
    FiveXx,
    /// A 502, 503 or 504, or no response at all.
    GatewayError,
    /// No response at all.
    Reset,
    /// No response, and nothing of the request had been sent.
    ResetBeforeRequest,
    /// No connection.
    ConnectFailure,
    /// An answer with `x-envoy-ratelimited`.
    EnvoyRateLimited,
    /// A 409.
    Retriable4xx,
    /// The stream was refused.
    RefusedStream,
    /// One of the status codes listed.
    RetriableStatusCodes,
    /// One of the response headers listed.
    RetriableHeaders,
    /// A failed HTTP/3 connection. There is none here, so this never holds; Istio's manifests may name it.
    Http3PostConnectFailure,
    /// gRPC status 1.
    Cancelled,
    /// gRPC status 4.
    DeadlineExceeded,
    /// gRPC status 13.
    Internal,
    /// gRPC status 8.
    ResourceExhausted,
    /// gRPC status 14.
    Unavailable,
}

impl RetryCondition {
    /// All there are.
    pub const ALL: [Self; 16] = [
        Self::FiveXx,
        Self::GatewayError,
        Self::Reset,
        Self::ResetBeforeRequest,
        Self::ConnectFailure,
        Self::EnvoyRateLimited,
        Self::Retriable4xx,
        Self::RefusedStream,
        Self::RetriableStatusCodes,
        Self::RetriableHeaders,
        Self::Http3PostConnectFailure,
        Self::Cancelled,
        Self::DeadlineExceeded,
        Self::Internal,
        Self::ResourceExhausted,
        Self::Unavailable,
    ];

    /// Its name in `retryOn`.
    pub fn name(self) -> &'static str {
        match self {
            Self::FiveXx => "5xx",
            Self::GatewayError => "gateway-error",
            Self::Reset => "reset",
            Self::ResetBeforeRequest => "reset-before-request",
            Self::ConnectFailure => "connect-failure",
            Self::EnvoyRateLimited => "envoy-ratelimited",
            Self::Retriable4xx => "retriable-4xx",
            Self::RefusedStream => "refused-stream",
            Self::RetriableStatusCodes => "retriable-status-codes",
            Self::RetriableHeaders => "retriable-headers",
            Self::Http3PostConnectFailure => "http3-post-connect-failure",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::Internal => "internal",
            Self::ResourceExhausted => "resource-exhausted",
            Self::Unavailable => "unavailable",
        }
    }

    /// The condition of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|condition| condition.name() == name)
    }

    /// The gRPC status that it stands for.
    pub(super) fn grpc_status(self) -> Option<u8> {
        match self {
            Self::Cancelled => Some(1),
            Self::DeadlineExceeded => Some(4),
            Self::ResourceExhausted => Some(8),
            Self::Internal => Some(13),
            Self::Unavailable => Some(14),
            _ => None,
        }
    }

    fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

impl fmt::Display for RetryCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of conditions; any of them asks for another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn(u32);

/// Why a `retryOn` is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is neither a condition of retryOn nor an HTTP status code")]
pub struct InvalidRetryOn(pub String);

impl RetryOn {
    /// Whether it has a condition.
    pub fn contains(self, condition: RetryCondition) -> bool {
        self.0 & condition.bit() != 0
    }

    /// The conditions in it.
    pub fn iter(self) -> impl Iterator<Item = RetryCondition> {
        RetryCondition::ALL.into_iter().filter(move |condition| self.contains(*condition))
    }

    /// Reads `retryOn`: conditions and status codes, separated by commas. Codes ask for
    /// [`RetryCondition::RetriableStatusCodes`] without it being named. An empty text is nothing; Istio's default then
    /// stands in its place.
    ///
    /// # Errors
    /// A part is neither.
    pub fn parse(text: &str) -> Result<(Self, Box<[StatusCode]>), InvalidRetryOn> {
        let (mut conditions, mut codes) = (Vec::new(), Vec::new());
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            if let Some(condition) = RetryCondition::named(part) {
                conditions.push(condition);
                continue;
            }
            let known = |code: &StatusCode| code.canonical_reason().is_some();
            let code = part.parse::<StatusCode>().ok().filter(known);
            codes.push(code.ok_or_else(|| InvalidRetryOn(part.to_owned()))?);
        }
        if !codes.is_empty() {
            conditions.push(RetryCondition::RetriableStatusCodes);
        }
        Ok((conditions.into_iter().collect(), codes.into()))
    }
}

impl FromIterator<RetryCondition> for RetryOn {
    fn from_iter<I: IntoIterator<Item = RetryCondition>>(conditions: I) -> Self {
        Self(conditions.into_iter().fold(0, |set, condition| set | condition.bit()))
    }
}
