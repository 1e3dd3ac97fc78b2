//! How often each limit was hit, by name: what an operator sees of them.

use std::sync::atomic::{AtomicU64, Ordering};

/// A limit that a tunnel, an account or a thread can hit. The names are fixed: they are a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// A frame larger than we take.
    Frame,
    /// A peer opened more streams than a tunnel has.
    ServerStreams,
    /// A tunnel of ours had no stream left: another was opened.
    ClientStreams,
    /// Encoded bytes or frames of one header block.
    HeaderBlock,
    /// Decoded bytes or fields of one header block.
    DecodedHeaders,
    /// Resets in one second.
    Resets,
    /// PINGs in one second.
    Pings,
    /// SETTINGS in one second.
    Settings,
    /// Frames without content in one second.
    EmptyFrames,
    /// Answers that the peer does not read.
    QueuedControl,
    /// A peer sent more than it was granted.
    Window,
    /// Requests that wait to be taken.
    PendingRequests,
    /// The TLS handshake took too long.
    HandshakeTime,
    /// A peer was silent for too long.
    KeepaliveTime,
    /// A CONNECT was not answered in time.
    ConnectTime,
    /// A detach was not answered in time.
    DetachTime,
    /// Connections of a pod.
    PodConnections,
    /// Bytes held for a pod.
    PodBuffered,
    /// Bytes held for all pods: what is left is shared.
    AllBuffered,
    /// Descriptors of all pods: what is left is shared.
    AllDescriptors,
    /// A pod's turns on a thread were used up while others wanted some: it waited.
    Turns,
    /// Bytes of a peer before it has shown who it is.
    HandshakeBytes,
}

/// Limits and what they are called.
const NAMES: [(Limit, &str); 22] = [
    (Limit::Frame, "tunnel_frame"),
    (Limit::ServerStreams, "tunnel_streams_served"),
    (Limit::ClientStreams, "tunnel_streams_opened"),
    (Limit::HeaderBlock, "tunnel_header_block"),
    (Limit::DecodedHeaders, "tunnel_decoded_headers"),
    (Limit::Resets, "tunnel_resets"),
    (Limit::Pings, "tunnel_pings"),
    (Limit::Settings, "tunnel_settings"),
    (Limit::EmptyFrames, "tunnel_empty_frames"),
    (Limit::QueuedControl, "tunnel_queued_control"),
    (Limit::Window, "tunnel_window"),
    (Limit::PendingRequests, "tunnel_pending_requests"),
    (Limit::HandshakeTime, "tunnel_handshake_time"),
    (Limit::KeepaliveTime, "tunnel_keepalive_time"),
    (Limit::ConnectTime, "tunnel_connect_time"),
    (Limit::DetachTime, "tunnel_detach_time"),
    (Limit::PodConnections, "pod_connections"),
    (Limit::PodBuffered, "pod_buffered"),
    (Limit::AllBuffered, "agent_buffered"),
    (Limit::AllDescriptors, "agent_descriptors"),
    (Limit::Turns, "pod_turns"),
    (Limit::HandshakeBytes, "tunnel_handshake_bytes"),
];

/// A counter for each limit; shared by everything that has the same [`Limits`](super::Limits).
#[derive(Debug, Default)]
pub struct Hits([AtomicU64; NAMES.len()]);

impl Hits {
    /// A limit was hit.
    pub fn hit(&self, limit: Limit) {
        self.0[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often a limit was hit.
    pub fn of(&self, limit: Limit) -> u64 {
        self.0[limit as usize].load(Ordering::Relaxed)
    }

    /// Every limit's name and how often it was hit.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        NAMES.iter().map(|(limit, name)| (*name, self.of(*limit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_its_own_counter_and_name() {
        let hits = Hits::default();
        for (at, (limit, _)) in NAMES.iter().enumerate() {
            assert_eq!(*limit as usize, at, "{limit:?} stands in the place of its counter");
            for _ in 0..=at {
                hits.hit(*limit);
            }
        }
        let counted: Vec<_> = hits.all().collect();
        assert!(counted.iter().zip(1..).all(|((_, count), expected)| *count == expected), "{counted:?}");
        let names: std::collections::HashSet<_> = counted.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), NAMES.len());
    }
}
