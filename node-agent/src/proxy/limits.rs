//! The limits of the agent itself and how often each was hit, beside those of the tunnels and accounts
//! ([`hbone::limits`]): one metric for all of them. `docs/limits.md` lists them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use tokio::time::Instant;

use super::Agent;

/// Between two warnings of the same limit.
const QUIET: Duration = Duration::from_secs(10);

/// A limit of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Connections of one pod, in one direction, that are being opened.
    Opening,
    /// Tunnels to one pod.
    Tunnels,
    /// Tunnels to one pod from one peer.
    TunnelsOfPeer,
    /// Tunnels of a peer that went beyond limits too often.
    Offenders,
    /// Jobs that wait for a thread.
    Mailbox,
    /// Open files of the process.
    OpenFiles,
    /// Memory of the process.
    Memory,
    /// DNS queries of one pod that are under way.
    DnsQueries,
    /// Requests to resume connections of one pod that wait for these.
    Claims,
    /// Time until a connection without a tunnel is resumed.
    Resuming,
    /// Time until a parked connection is asked for.
    Parked,
    /// Handshakes of tunnels that are not finished.
    Handshakes,
    /// Those of one pod.
    HandshakesOfPod,
    /// Those of one pod from one source.
    HandshakesOfPeer,
}

const NAMES: [(Limit, &str); 14] = [
    (Limit::Opening, "pod_opening"),
    (Limit::Tunnels, "pod_tunnels"),
    (Limit::TunnelsOfPeer, "pod_tunnels_of_peer"),
    (Limit::Offenders, "pod_offenders"),
    (Limit::Mailbox, "worker_mailbox"),
    (Limit::OpenFiles, "open_files"),
    (Limit::Memory, "memory"),
    (Limit::DnsQueries, "dns_queries"),
    (Limit::Claims, "pod_resuming"),
    (Limit::Resuming, "resume_time"),
    (Limit::Parked, "parked_time"),
    (Limit::Handshakes, "agent_handshakes"),
    (Limit::HandshakesOfPod, "pod_handshakes"),
    (Limit::HandshakesOfPeer, "pod_handshakes_of_peer"),
];

/// How often which was hit, and when it was last told of.
#[derive(Debug)]
pub(crate) struct Hits {
    began: Instant,
    counts: [Count; NAMES.len()],
}

#[derive(Debug, Default)]
struct Count {
    hits: AtomicU64,
    /// Milliseconds since the beginning until which nothing more is said.
    quiet: AtomicU64,
}

impl Default for Hits {
    fn default() -> Self {
        Self { began: Instant::now(), counts: Default::default() }
    }
}

impl Hits {
    /// A limit was hit.
    pub(crate) fn hit(&self, limit: Limit) {
        self.counts[limit as usize].hits.fetch_add(1, Ordering::Relaxed);
    }

    /// A limit was hit; whether it is time to say so: what floods us must not flood the log too.
    pub(crate) fn hit_and_tell(&self, limit: Limit) -> bool {
        self.hit(limit);
        self.is_time_to_tell(limit, self.began.elapsed())
    }

    fn is_time_to_tell(&self, limit: Limit, now: Duration) -> bool {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let quiet = &self.counts[limit as usize].quiet;
        let until = quiet.load(Ordering::Relaxed);
        let next = now + u64::try_from(QUIET.as_millis()).unwrap_or(0);
        now >= until && quiet.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// How often a limit was hit.
    pub(crate) fn of(&self, limit: Limit) -> u64 {
        self.counts[limit as usize].hits.load(Ordering::Relaxed)
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        NAMES.iter().map(|(limit, name)| (*name, self.of(*limit)))
    }
}

/// `lateen_limit_hits_total`, for every limit there is.
#[derive(Debug)]
pub(crate) struct LimitMetrics(pub(crate) Arc<Agent>);

impl Collector for LimitMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "How often a limit was hit; docs/limits.md says what each is";
        let mut family = encoder.encode_descriptor("lateen_limit_hits", help, None, MetricType::Counter)?;
        let agent = &self.0;
        let others = [
            ("metric_series", agent.traffic.dropped()),
            ("log_buffer", agent.log.dropped()),
            ("state_patience", agent.state.waited_in_vain()),
        ];
        let asked = agent.demand.hits();
        for (limit, count) in agent.limits.hits.all().chain(agent.hits.all()).chain(others).chain(asked) {
            ConstCounter::new(count).encode(family.encode_family(&[("limit", limit)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hit_is_counted_and_one_in_a_while_told() {
        let hits = Hits::default();
        for (at, (limit, _)) in NAMES.iter().enumerate() {
            assert_eq!(*limit as usize, at, "{limit:?} stands in the place of its counter");
            assert!(hits.hit_and_tell(*limit), "the first is told");
            assert!(!hits.hit_and_tell(*limit), "the next is not");
            assert_eq!(hits.of(*limit), 2);
        }
        assert!(!hits.is_time_to_tell(Limit::Memory, QUIET / 2));
        assert!(hits.is_time_to_tell(Limit::Memory, QUIET * 2));
        assert!(!hits.is_time_to_tell(Limit::Memory, QUIET * 2));
    }
}
