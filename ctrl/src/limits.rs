//! The limits of the controller and how often each was hit: one metric for all of them, of the same name as the node
//! agent's. `docs/limits.md` lists them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use daemon::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// Between two warnings of the same limit.
const QUIET: Duration = Duration::from_secs(10);

/// A limit of the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// TLS handshakes under way.
    Handshakes,
    /// The same of one address.
    HandshakesOfAddress,
    /// Connections.
    Connections,
    /// The same of one address.
    ConnectionsOfAddress,
    /// The same of one caller.
    ConnectionsOfCaller,
    /// How long a connection may be there without a call whose token is known.
    Unproven,
    /// Streams of xDS.
    Streams,
    /// The same of one caller.
    StreamsOfCaller,
    /// Certificates that a caller is issued in a while.
    CertificatesOfCaller,
    /// Certificates that are known, of all or of one holder for one identity.
    CertificatesKnown,
}

const NAMES: [(Limit, &str); 10] = [
    (Limit::Handshakes, "handshakes"),
    (Limit::HandshakesOfAddress, "handshakes_of_address"),
    (Limit::Connections, "connections"),
    (Limit::ConnectionsOfAddress, "connections_of_address"),
    (Limit::ConnectionsOfCaller, "connections_of_caller"),
    (Limit::Unproven, "connection_without_call"),
    (Limit::Streams, "streams"),
    (Limit::StreamsOfCaller, "streams_of_caller"),
    (Limit::CertificatesOfCaller, "certificates_of_caller"),
    (Limit::CertificatesKnown, "certificates_known"),
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    limit: &'static str,
}

/// How often which was hit, and when it was last told of. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Limits {
    hits: Family<Label, Counter>,
    told: Arc<Mutex<[Option<Instant>; NAMES.len()]>>,
}

impl Default for Limits {
    fn default() -> Self {
        let hits = Family::<Label, Counter>::default();
        for (_, limit) in NAMES {
            drop(hits.get_or_create(&Label { limit }));
        }
        Self { hits, told: Arc::default() }
    }
}

impl Limits {
    /// Adds them to what is scraped.
    pub fn register(&self, metrics: &Metrics) {
        metrics.register(|registry| {
            let help = "How often a limit was hit; docs/limits.md says what each is";
            registry.register("lateen_limit_hits", help, self.hits.clone());
        });
    }

    /// A limit was hit; whether it is time to say so: what floods us must not flood the log too.
    #[must_use]
    pub fn hit(&self, limit: Limit) -> bool {
        self.counter(limit).inc();
        let now = Instant::now();
        let told = &mut self.told.lock().unwrap_or_else(PoisonError::into_inner)[limit as usize];
        let tell = told.is_none_or(|told| now.duration_since(told) >= QUIET);
        if tell {
            *told = Some(now);
        }
        tell
    }

    /// How often a limit was hit.
    pub fn of(&self, limit: Limit) -> u64 {
        self.counter(limit).get()
    }

    fn counter(&self, limit: Limit) -> Counter {
        self.hits.get_or_create(&Label { limit: NAMES[limit as usize].1 }).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hit_is_counted_and_one_in_a_while_told() {
        let (limits, metrics) = (Limits::default(), Metrics::default());
        limits.register(&metrics);
        for (at, (limit, name)) in NAMES.into_iter().enumerate() {
            assert_eq!(limit as usize, at, "{limit:?} stands in the place of its name");
            assert!(metrics.text().contains(&format!("lateen_limit_hits_total{{limit=\"{name}\"}} 0")));
            assert!(limits.hit(limit) && !limits.hit(limit));
            assert_eq!(limits.of(limit), 2);
        }
    }
}
