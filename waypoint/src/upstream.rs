//! The way to endpoints: connections through this waypoint's own tunnels, or in plain, and requests over them.

mod answer;
mod body;
mod clock;
mod dial;
mod pool;
pub(crate) mod two;

use std::rc::Rc;

use http::{Request, Response};
use model::traffic::pool::Overflow;

pub(crate) use self::answer::{Answer, Broken};
pub(crate) use self::body::{Gate, GateKeeper, RequestBody, SharedSource, Source};
pub(crate) use self::clock::{Allowed, Clock, Deadline, Up};
pub(crate) use self::dial::{DialError, Io, Shortage, connect};
pub(crate) use self::pool::{Lease, Parts, Pools};
use crate::listen::Inbound;
use crate::protocol::Http;
use crate::route::Endpoint;
use crate::telemetry::Flags;
use crate::worker::Worker;

/// Connections that may turn out to have ended meanwhile before a request is given up.
const STALE: usize = 3;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// There is no connection to the endpoint.
    #[error(transparent)]
    Dial(DialError),
    /// Something of our own has run out.
    #[error(transparent)]
    Short(Shortage),
    /// There is as much as the rules of the destination allow.
    #[error(transparent)]
    Overflow(Overflow),
    /// The connection ended or broke the protocol before there was an answer.
    #[error(transparent)]
    Broken(#[from] Broken),
}

impl From<DialError> for SendError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Short(shortage) => Self::Short(shortage),
            error => Self::Dial(error),
        }
    }
}

impl SendError {
    /// Its flag in telemetry.
    pub(crate) fn flags(&self) -> Flags {
        match self {
            Self::Dial(_) => Flags::UF,
            Self::Short(_) | Self::Overflow(_) => Flags::UO,
            Self::Broken(_) => Flags::UC,
        }
    }

    /// Its `%RESPONSE_CODE_DETAILS%`.
    pub(crate) fn details(&self) -> &'static str {
        match self {
            Self::Dial(_) => "upstream_reset_before_response_started{connection_failure}",
            Self::Short(_) | Self::Overflow(_) => "upstream_reset_before_response_started{overflow}",
            Self::Broken(_) => "upstream_reset_before_response_started{connection_termination}",
        }
    }
}

/// Sends a request to an endpoint over a pooled connection, or a new one. A pooled connection that has ended meanwhile,
/// and has surely seen nothing of the request, is no failure: another is taken.
///
/// # Errors
/// There is no connection, or it ended before there was an answer. The request is given back where it was not sent.
pub(crate) async fn send(
    worker: &Rc<Worker>,
    inbound: &Inbound,
    endpoint: &Endpoint,
    version: Http,
    mut request: Request<RequestBody>,
) -> Result<(Response<Answer>, Lease), (SendError, Option<Box<Request<RequestBody>>>)> {
    for attempt in 0..=STALE {
        // The last attempt is not on one that may be stale.
        let fresh = attempt == STALE;
        let mut lease = match pool::lease(worker, inbound, endpoint, version, fresh).await {
            Ok(lease) => lease,
            Err(error) => return Err((error, Some(Box::new(request)))),
        };
        match lease.send(request).await {
            Ok(response) => return Ok((response, lease)),
            Err((_, Some(unsent))) if lease.was_pooled() && !fresh => request = unsent,
            Err((error, unsent)) => return Err((SendError::Broken(error), unsent.map(Box::new))),
        }
    }
    // The last attempt has returned.
    Err((SendError::Short(Shortage::Connections), None))
}
