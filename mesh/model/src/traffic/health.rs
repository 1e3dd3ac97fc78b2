//! Active health checks: what is asked of an endpoint, how often, and what becomes of it after this history of answers.
//!
//! Istio has no API for them; Envoy has. The words and defaults are those of Kubernetes' probes, which people know. What
//! asks is the waypoint; [`Standing::after`] alone decides.

use std::fmt;
use std::time::Duration;

use crate::address::Str;
use crate::route::headers::{is_taken_for, is_taken_for_framing};

/// The annotation of a DestinationRule that asks for checks of its host's endpoints.
pub const ANNOTATION: &str = "lateen.dev/health-check";

/// How often an endpoint is asked unless said.
pub const USUAL_PERIOD: Duration = Duration::from_secs(10);

/// The longest that a check may take: as long as a connection may. A silent endpoint holds one of the places that all checks of a
/// waypoint's thread share, for so long keeps others waiting, and says no more by a longer silence.
pub const MOST_TIMEOUT: Duration = Duration::from_secs(10);

/// What names of headers begin with that say who a client is.
const FORWARDED: &str = "x-forwarded-";

/// Whether a text is a path that can be asked for.
pub fn is_path(text: &str) -> bool {
    text.starts_with('/') && http::uri::PathAndQuery::try_from(text).is_ok()
}

/// Whether a check may have a header: not what frames messages, and nothing that says who a client is, which endpoints believe of
/// a waypoint.
pub fn may_have_header(name: &str) -> bool {
    let begin = name.get(..FORWARDED.len());
    !is_taken_for_framing(name) && !begin.is_some_and(|begin| is_taken_for(begin, FORWARDED))
}

/// How the endpoints of a host are checked ([`ANNOTATION`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// How often (`periodSeconds`): [`USUAL_PERIOD`] unless said.
    pub period: Duration,
    /// How long all of a check may take, connecting too (`timeoutSeconds`): 1 s unless said; no longer than the period, and
    /// [`MOST_TIMEOUT`].
    pub timeout: Duration,
    /// After so many checks in a row that it did not pass an endpoint is left out (`failureThreshold`): 3 unless said.
    pub failure_threshold: u32,
    /// After so many in a row that it passed it takes requests again (`successThreshold`): 1 unless said.
    pub success_threshold: u32,
}

impl HealthCheck {
    /// That of a probe, with Kubernetes' defaults for the rest.
    pub fn of(probe: Probe) -> Self {
        Self {
            probe,
            period: USUAL_PERIOD,
            timeout: Duration::from_secs(1),
            failure_threshold: 3,
            success_threshold: 1,
        }
    }

    /// How long a check is waited for: as long as is written, which an older controller lets be more than [`MOST_TIMEOUT`].
    pub fn limit(&self) -> Duration {
        self.timeout.min(MOST_TIMEOUT)
    }
}

/// What is asked of an endpoint. A port is the pod's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A GET over HTTP/1.1 is answered with a status from 200 to 399 (`httpGet`).
    Http {
        /// Where.
        port: u16,
        /// For what; `/` unless said.
        path: Str,
        /// Further headers, as written; `host` stands in the place of the endpoint's address.
        headers: Box<[(Str, Str)]>,
    },
    /// A connection can be made (`tcpSocket`).
    Tcp {
        /// Where to.
        port: u16,
    },
    /// gRPC's health protocol says `SERVING` (`grpc`).
    Grpc {
        /// Where.
        port: u16,
        /// Of which service; empty, which is the server as a whole, unless said.
        service: Str,
    },
}

impl Probe {
    /// The pod's port that is asked.
    pub fn port(&self) -> u16 {
        let (Self::Http { port, .. } | Self::Tcp { port } | Self::Grpc { port, .. }) = self;
        *port
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { port, path, .. } => write!(f, "httpGet :{port}{path}"),
            Self::Tcp { port } => write!(f, "tcpSocket :{port}"),
            Self::Grpc { port, service } if service.is_empty() => write!(f, "grpc :{port}"),
            Self::Grpc { port, service } => write!(f, "grpc :{port} {service}"),
        }
    }
}

/// What checks have found of an endpoint.
///
/// It begins as one that may be used: the controller tells of those only that are ready, and a check that nobody has
/// made yet says nothing against that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Whether it is left out.
    pub failing: bool,
    /// So many checks in a row that speak against that.
    pub against: u32,
}

impl Standing {
    /// What an endpoint's standing is after one more check.
    ///
    /// A check that confirms it begins the row anew, and so does the change itself. A threshold of 0 is one of 1.
    #[must_use]
    pub fn after(self, passed: bool, check: &HealthCheck) -> Self {
        if passed != self.failing {
            return Self { against: 0, ..self };
        }
        let threshold = if self.failing { check.success_threshold } else { check.failure_threshold };
        let against = self.against.saturating_add(1);
        // Not equal: the threshold may have been lowered to below what is counted.
        if against >= threshold {
            Self { failing: !self.failing, against: 0 }
        } else {
            Self { against, ..self }
        }
    }

    /// The same under another check: who is left out stays so until the new check says otherwise, and rows begin anew.
    #[must_use]
    pub fn under_another(self) -> Self {
        Self { against: 0, ..self }
    }
}

#[cfg(test)]
mod tests;
