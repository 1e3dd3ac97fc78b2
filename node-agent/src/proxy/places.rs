//! How much of a pod may be under way before it is on the pod's account: connections that are not open yet, and
//! tunnels, which anybody who reaches the pod's address may begin. What finds no place is closed; the places of one
//! pod, and of one peer, are no other's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Connections of one pod that are being opened in one direction: enough for ten thousand a second that take long.
const OPENING: usize = 4096;
/// Tunnels to one pod, from all peers.
const TUNNELS: usize = 16_384;
/// Tunnels to one pod from one peer: with a hundred streams each, more than the connections that the pod may have.
const TUNNELS_OF_PEER: usize = 768;

/// The places of one pod.
#[derive(Debug, Default)]
pub(crate) struct Places {
    outbound: Arc<AtomicUsize>,
    plaintext: Arc<AtomicUsize>,
    tunnels: Arc<Mutex<Tunnels>>,
}

/// Tunnels to a pod, together and by peer.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    all: usize,
    of_peer: HashMap<IpAddr, usize>,
}

/// A place, until dropped.
#[derive(Debug)]
pub(crate) enum Place {
    /// Of a connection that is being opened.
    Opening { count: Arc<AtomicUsize> },
    /// Of a tunnel.
    Tunnel { tunnels: Arc<Mutex<Tunnels>>, peer: IpAddr },
}

impl Places {
    /// For a captured connection of the pod.
    pub(crate) fn outbound(&self) -> Option<Place> {
        opening(&self.outbound)
    }

    /// For a connection to the pod that came in plain.
    pub(crate) fn plaintext(&self) -> Option<Place> {
        opening(&self.plaintext)
    }

    /// Whether some connection of the pod is being opened.
    pub(crate) fn some_opening(&self) -> bool {
        self.outbound.load(Ordering::Relaxed) + self.plaintext.load(Ordering::Relaxed) > 0
    }

    /// For a tunnel of a peer to the pod.
    pub(crate) fn tunnel(&self, peer: IpAddr) -> Option<Place> {
        let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        if tunnels.all >= TUNNELS {
            return None;
        }
        let own = tunnels.of_peer.entry(peer).or_default();
        if *own >= TUNNELS_OF_PEER {
            return None;
        }
        *own += 1;
        tunnels.all += 1;
        Some(Place::Tunnel { tunnels: self.tunnels.clone(), peer })
    }
}

fn opening(count: &Arc<AtomicUsize>) -> Option<Place> {
    let place = Place::Opening { count: count.clone() };
    // Counted first and looked at then: the place that is one too many goes again at once.
    (count.fetch_add(1, Ordering::Relaxed) < OPENING).then_some(place)
}

impl Tunnels {
    fn leave(&mut self, peer: IpAddr) {
        self.all -= 1;
        if let Some(own) = self.of_peer.get_mut(&peer) {
            *own -= 1;
            if *own == 0 {
                self.of_peer.remove(&peer);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        match self {
            Self::Opening { count } => drop(count.fetch_sub(1, Ordering::Relaxed)),
            Self::Tunnel { tunnels, peer } => {
                tunnels.lock().unwrap_or_else(PoisonError::into_inner).leave(*peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(number).into()
    }

    #[test]
    fn openings_are_bounded_by_direction() {
        let places = Places::default();
        let held: Vec<_> = std::iter::from_fn(|| places.outbound()).collect();
        assert_eq!(held.len(), OPENING);
        assert!(places.outbound().is_none());
        assert!(places.plaintext().is_some());
        assert!(places.some_opening());
        drop(held);
        assert!(!places.some_opening());
        assert!(places.outbound().is_some());
        assert_eq!(places.outbound.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn tunnels_are_bounded_by_peer_and_together() {
        let places = Places::default();
        let mut held = Vec::new();
        for number in 0.. {
            let before = held.len();
            held.extend(std::iter::from_fn(|| places.tunnel(peer(number))));
            if held.len() == TUNNELS {
                break;
            }
            assert_eq!(held.len() - before, TUNNELS_OF_PEER);
        }
        assert!(places.tunnel(peer(u32::MAX)).is_none());
        held.truncate(TUNNELS_OF_PEER);
        assert!(places.tunnel(peer(0)).is_none());
        assert!(places.tunnel(peer(u32::MAX)).is_some());
        held.clear();
        assert!(places.tunnels.lock().unwrap().of_peer.is_empty());
    }
}
