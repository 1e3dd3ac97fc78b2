//! The limits of the agent itself and how often each was hit, beside those that every proxy has
//! ([`proxy::limits`]): one metric for all of them. `docs/limits.md` lists them.

use std::fmt;
use std::sync::Arc;

use daemon::limits;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::Agent;

/// How often which was hit.
pub(crate) type Hits = limits::Hits<Limit>;

daemon::limits! {
    /// A limit of the agent.
    pub(crate) enum Limit {
        /// Connections of one pod, in one direction, that are being opened.
        Opening = "pod_opening",
        /// Tunnels to one pod.
        Tunnels = "pod_tunnels",
        /// Tunnels to one pod from one peer.
        TunnelsOfPeer = "pod_tunnels_of_peer",
        /// Tunnels of a peer that went beyond limits too often.
        Offenders = "pod_offenders",
        /// Jobs that wait for a thread.
        Mailbox = "worker_mailbox",
        /// Open files of the process.
        OpenFiles = "open_files",
        /// Memory of the process.
        Memory = "memory",
        /// DNS queries of one pod that are under way.
        DnsQueries = "dns_queries",
        /// Requests to resume connections of one pod that wait for these.
        Claims = "pod_resuming",
        /// Time until a connection without a tunnel is resumed.
        Resuming = "resume_time",
        /// Time until a parked connection is asked for.
        Parked = "parked_time",
        /// Handshakes of tunnels that are not finished.
        Handshakes = "agent_handshakes",
        /// Those of one pod.
        HandshakesOfPod = "pod_handshakes",
        /// Those of one pod from one source.
        HandshakesOfPeer = "pod_handshakes_of_peer",
    }
}

/// `lateen_limit_hits_total`, for every limit there is.
#[derive(Debug)]
pub(crate) struct LimitMetrics(pub(crate) Arc<Agent>);

impl Collector for LimitMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let agent = &self.0;
        let own = agent.hits.all().chain(agent.demand.hits());
        let kept = (&agent.log, &agent.state);
        proxy::limits::encode(&mut encoder, &agent.limits, kept, agent.traffic.dropped(), own)
    }
}
