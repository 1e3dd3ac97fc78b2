//! Faults that a rule injects (`fault`): a delay, an answer, or one after the other.

use std::time::Duration;

use http::StatusCode;

use super::Fraction;
use crate::select::Draw;

/// What is injected, and how often. Delay and abort are drawn independently.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fault {
    /// `delay`.
    pub delay: Option<Delay>,
    /// `abort`.
    pub abort: Option<Abort>,
}

/// `delay.fixedDelay`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    /// How long a request waits before it goes on.
    pub after: Duration,
    /// How many do; none if the API's field is missing.
    pub share: Fraction,
}

/// `abort`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abort {
    /// The answer.
    pub with: AbortWith,
    /// How many get it; none if the API's field is missing.
    pub share: Fraction,
}

/// The answer of an abort; its body is [`ABORT_BODY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortWith {
    /// `httpStatus`. A gRPC client gets the gRPC status that stands for it.
    Http(StatusCode),
    /// `grpcStatus`, with the HTTP status 200; a client that does not speak gRPC sees only that.
    Grpc(u8),
}

/// The body of an abort, as Envoy has it.
pub const ABORT_BODY: &str = "fault filter abort";

/// The gRPC status codes by their names (`grpcStatus`), in the order of their numbers.
pub const GRPC_STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// What is done to one request: first it waits, then it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Injected {
    /// How long it waits.
    pub delay: Option<Duration>,
    /// How it is answered.
    pub abort: Option<AbortWith>,
}

impl Fault {
    /// Draws what is done to one request.
    pub fn inject(&self, draw: Draw<'_>) -> Injected {
        let delay = self.delay.filter(|delay| delay.share.drawn(draw)).map(|delay| delay.after);
        let abort = self.abort.filter(|abort| abort.share.drawn(draw)).map(|abort| abort.with);
        Injected { delay, abort }
    }
}

/// The number of a gRPC status by its name.
pub fn grpc_status(name: &str) -> Option<u8> {
    GRPC_STATUS.iter().position(|known| *known == name).and_then(|place| u8::try_from(place).ok())
}

#[cfg(test)]
mod tests;
