//! Tunnels to pods whose peer has not shown yet who it is ([`hbone::handshakes`]): how many a pod and a source may have,
//! and how many the process's memory allows.

use std::net::IpAddr;
use std::sync::Arc;

use hbone::handshakes::{Bounds, Surplus};

use super::limits::Limit;
use super::places::{TUNNELS, TUNNELS_OF_PEER};

/// Of one pod: the tunnels of peers that have shown who they are keep the other three quarters of its places.
const OF_POD: usize = TUNNELS / 4;
/// Of one pod from one source.
const OF_SOURCE: usize = TUNNELS_OF_PEER;
/// What one holds at most, bytes: what its peer has sent, and the session.
const BYTES: u64 = 40 << 10;
/// The session alone.
const SESSION: u64 = 24 << 10;
/// Of the process's memory they may take one part in so many …
const PART: u64 = 4;
/// … within these bounds.
const LEAST: usize = 512;
const MOST: usize = 8192;

/// One of them, until dropped.
pub(crate) type Unfinished = hbone::handshakes::Unfinished<Arc<str>>;

/// The unfinished handshakes of all pods, by their uids.
#[derive(Debug)]
pub(crate) struct Handshakes(hbone::handshakes::Handshakes<Arc<str>>);

impl Handshakes {
    /// None yet; as many as so much memory allows.
    pub(crate) fn new(memory_limit: u64) -> Self {
        Self::with(most(memory_limit))
    }

    /// None yet, and this many at most.
    pub(crate) fn with(most: usize) -> Self {
        let of_owner = OF_POD.min(most.div_ceil(2));
        Self(hbone::handshakes::Handshakes::new(Bounds { all: most, of_owner, of_source: OF_SOURCE }))
    }

    /// One more begins. Where there is no room for it, an older one is told to end.
    pub(crate) fn begin(&self, pod: &Arc<str>, peer: IpAddr) -> Unfinished {
        self.0.begin(pod, peer)
    }

    /// Ends the oldest of a pod until this much memory has come back, if there are so many, and says how much has. Nobody
    /// loses more than an attempt, which is less than a connection.
    pub(crate) fn give_back(&self, pod: &Arc<str>, bytes: u64) -> u64 {
        let wanted = usize::try_from(bytes.div_ceil(SESSION)).unwrap_or(usize::MAX);
        bytes.min(self.0.end_oldest(pod, wanted) as u64 * SESSION)
    }
}

/// The limit that one has to end for.
pub(crate) fn limit(surplus: Surplus) -> Limit {
    match surplus {
        Surplus::All => Limit::Handshakes,
        Surplus::OfOwner => Limit::HandshakesOfPod,
        Surplus::OfSource => Limit::HandshakesOfPeer,
        Surplus::Memory => Limit::Memory,
    }
}

/// How many there may be, where the process may have so much memory.
fn most(memory_limit: u64) -> usize {
    usize::try_from(memory_limit / PART / BYTES).unwrap_or(MOST).clamp(LEAST, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn where_memory_is_short_the_oldest_of_a_pod_go() {
        let handshakes = Handshakes::with(20);
        let pod = Arc::<str>::from("a");
        let ip = IpAddr::from([10, 0, 0, 1]);
        let mut all: Vec<_> = (0..4).map(|_| handshakes.begin(&pod, ip)).collect();
        assert_eq!(handshakes.give_back(&pod, SESSION + 1), SESSION + 1);
        assert_eq!([all[0].ended().await, all[1].ended().await], [Surplus::Memory; 2]);
        assert_eq!(handshakes.0.count(), 2);
        assert_eq!(handshakes.give_back(&pod, u64::MAX), 2 * SESSION);
        assert_eq!(handshakes.give_back(&pod, 1), 0);
    }

    #[tokio::test]
    async fn a_pod_has_half_of_what_there_is() {
        let handshakes = Handshakes::with(8);
        let pod = Arc::<str>::from("a");
        let mut all: Vec<_> =
            (0..5).map(|last| handshakes.begin(&pod, IpAddr::from([10, 0, 0, last]))).collect();
        assert_eq!(limit(all[0].ended().await), Limit::HandshakesOfPod);
        assert_eq!(handshakes.0.count(), 4);
    }

    #[test]
    fn three_quarters_of_a_pods_places_are_for_peers_that_are_known() {
        const { assert!(OF_POD * 4 <= TUNNELS && OF_SOURCE < OF_POD) };
        let of = |mebibytes: u64| most(mebibytes << 20);
        assert_eq!([of(16), of(256), of(512), of(1 << 20)], [LEAST, 1638, 3276, MOST]);
    }
}
