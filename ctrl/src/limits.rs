//! The limits of the controller and how often each was hit: one metric for all of them, of the same name as the node
//! agent's. `docs/limits.md` lists them.

use std::fmt;
use std::sync::Arc;

use daemon::limits::{self, Hits};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

daemon::limits! {
    /// A limit of the controller.
    pub enum Limit {
        /// TLS handshakes under way.
        Handshakes = "handshakes",
        /// The same of one address.
        HandshakesOfAddress = "handshakes_of_address",
        /// Connections.
        Connections = "connections",
        /// The same of one address.
        ConnectionsOfAddress = "connections_of_address",
        /// The same of one caller.
        ConnectionsOfCaller = "connections_of_caller",
        /// How long a connection may be there without a call whose token is known.
        Unproven = "connection_without_call",
        /// Streams of xDS.
        Streams = "streams",
        /// The same of one caller.
        StreamsOfCaller = "streams_of_caller",
        /// Certificates that a caller is issued in a while.
        CertificatesOfCaller = "certificates_of_caller",
        /// Certificates that are known, of all or of one holder for one identity.
        CertificatesKnown = "certificates_known",
    }
}

/// How often which was hit. Cheap to clone.
pub type Limits = Arc<Hits<Limit>>;

/// What is scraped of them.
#[derive(Debug)]
pub(crate) struct LimitMetrics(pub(crate) Limits);

impl Collector for LimitMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        limits::encode(&mut encoder, self.0.all())
    }
}
