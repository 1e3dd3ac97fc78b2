//! How much of a pod may be under way before it is on the pod's account: connections that are not open yet, and
//! tunnels, which anybody who reaches the pod's address may begin. What finds no place is closed; the places of one
//! pod, and of one peer, are no other's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hbone::account::{Account, Descriptors, Full};
use tokio::time::Instant;

use super::handshakes::Unfinished;
use super::limits::Limit;
use super::offenders::Offenders;

/// Connections of one pod that are being opened in one direction: enough for ten thousand a second that take long.
const OPENING: usize = 4096;
/// Tunnels to one pod, from all peers.
pub(super) const TUNNELS: usize = 16_384;
/// Tunnels to one pod from one peer: with a hundred streams each, more than the connections that the pod may have.
pub(super) const TUNNELS_OF_PEER: usize = 768;

/// The places of one pod.
#[derive(Debug, Default)]
pub(crate) struct Places {
    outbound: Arc<AtomicUsize>,
    plaintext: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    tunnels: Arc<Mutex<Tunnels>>,
    offenders: Mutex<Offenders>,
}

/// Tunnels to a pod, together and by peer.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    all: usize,
    of_peer: HashMap<IpAddr, usize>,
}

/// A place and the descriptor of what has it, until dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _of: Of,
    _socket: Descriptors,
    unfinished: Option<Unfinished>,
}

/// A place of something whose sockets are on the account already, until dropped.
#[derive(Debug)]
pub(crate) struct Opening {
    _of: Of,
}

/// Whose place it is.
#[derive(Debug)]
enum Of {
    /// Of a connection that is being opened.
    Opening { count: Arc<AtomicUsize> },
    /// Of a tunnel.
    Tunnel { tunnels: Arc<Mutex<Tunnels>>, peer: IpAddr },
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPlace {
    /// Too many connections of the pod are being opened.
    #[error(
        "{OPENING} connections of the pod are being opened already; what they are opened to does not answer"
    )]
    Opening,
    /// Too many tunnels to the pod are there.
    #[error("{TUNNELS} tunnels to the pod are open already; more nodes than that is no use of a pod")]
    Tunnels,
    /// Too many of them from this peer.
    #[error(
        "{TUNNELS_OF_PEER} tunnels of this peer to the pod are open already; it does not use those that it has"
    )]
    TunnelsOfPeer,
    /// This peer's tunnels had to be ended too often.
    #[error(
        "tunnels of this peer to the pod were ended for what it did on them, it has to wait before the next"
    )]
    Offender,
    /// The account says why.
    #[error(transparent)]
    Account(Full),
}

impl Place {
    fn of(of: Of, account: &Arc<Account>) -> Result<Self, NoPlace> {
        let socket = account.descriptors_for(1).map_err(NoPlace::Account)?;
        Ok(Self { _of: of, _socket: socket, unfinished: None })
    }

    /// It is a tunnel's whose peer has to show who it is first.
    pub(crate) fn unfinished(self, handshake: Unfinished) -> Self {
        Self { unfinished: Some(handshake), ..self }
    }

    /// The handshake, which is no part of the place any more.
    pub(crate) fn take_unfinished(&mut self) -> Option<Unfinished> {
        self.unfinished.take()
    }
}

impl NoPlace {
    /// The limit that was hit, where it is not the account that counts it.
    pub(crate) fn limit(self) -> Option<Limit> {
        match self {
            Self::Opening => Some(Limit::Opening),
            Self::Tunnels => Some(Limit::Tunnels),
            Self::TunnelsOfPeer => Some(Limit::TunnelsOfPeer),
            Self::Offender => Some(Limit::Offenders),
            Self::Account(_) => None,
        }
    }
}

impl Places {
    /// For a captured connection of the pod.
    pub(crate) fn outbound(&self, account: &Arc<Account>) -> Result<Place, NoPlace> {
        opening(&self.outbound, account)
    }

    /// For a connection to the pod that came in plain.
    pub(crate) fn plaintext(&self, account: &Arc<Account>) -> Result<Place, NoPlace> {
        opening(&self.plaintext, account)
    }

    /// For a connection that a peer asks for on a tunnel. What it is opened to is on the account by itself.
    pub(crate) fn request(&self) -> Result<Opening, NoPlace> {
        Ok(Opening { _of: count_opening(&self.requests)? })
    }

    /// Whether some connection of the pod is being opened.
    pub(crate) fn some_opening(&self) -> bool {
        [&self.outbound, &self.plaintext, &self.requests]
            .iter()
            .any(|count| count.load(Ordering::Acquire) > 0)
    }

    /// For a tunnel of a peer to the pod.
    pub(crate) fn tunnel(&self, peer: IpAddr, account: &Arc<Account>) -> Result<Place, NoPlace> {
        if self.offenders().keeps_out(peer, Instant::now()) {
            return Err(NoPlace::Offender);
        }
        Place::of(self.take_tunnel(peer)?, account)
    }

    /// A tunnel of this peer was ended because it went beyond a limit.
    pub(crate) fn went_beyond(&self, peer: IpAddr) {
        self.offenders().note(peer, Instant::now());
    }

    fn offenders(&self) -> MutexGuard<'_, Offenders> {
        self.offenders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_tunnel(&self, peer: IpAddr) -> Result<Of, NoPlace> {
        let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        if tunnels.all >= TUNNELS {
            return Err(NoPlace::Tunnels);
        }
        let own = tunnels.of_peer.entry(peer).or_default();
        if *own >= TUNNELS_OF_PEER {
            return Err(NoPlace::TunnelsOfPeer);
        }
        *own += 1;
        tunnels.all += 1;
        Ok(Of::Tunnel { tunnels: self.tunnels.clone(), peer })
    }
}

fn opening(count: &Arc<AtomicUsize>, account: &Arc<Account>) -> Result<Place, NoPlace> {
    Place::of(count_opening(count)?, account)
}

fn count_opening(count: &Arc<AtomicUsize>) -> Result<Of, NoPlace> {
    let of = Of::Opening { count: count.clone() };
    // Counted first and looked at then: the place that is one too many goes again at once.
    if count.fetch_add(1, Ordering::Relaxed) >= OPENING {
        return Err(NoPlace::Opening);
    }
    Ok(of)
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

impl Drop for Of {
    fn drop(&mut self) {
        match self {
            // Who sees that it is gone sees on the account what it has become.
            Self::Opening { count } => drop(count.fetch_sub(1, Ordering::Release)),
            Self::Tunnel { tunnels, peer } => {
                tunnels.lock().unwrap_or_else(PoisonError::into_inner).leave(*peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hbone::account::AccountLimits;

    use super::*;

    fn account() -> Arc<Account> {
        Account::new(AccountLimits::default())
    }

    fn peer(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(number).into()
    }

    #[test]
    fn openings_are_bounded_by_direction() {
        let places = Places::default();
        let account = account();
        let held: Vec<_> = std::iter::from_fn(|| places.outbound(&account).ok()).collect();
        assert_eq!((held.len(), account.descriptors() as usize), (OPENING, OPENING));
        assert_eq!(places.outbound(&account).unwrap_err(), NoPlace::Opening);
        assert!(places.plaintext(&account).is_ok());
        assert!(places.some_opening());
        drop(held);
        assert!(!places.some_opening());
        assert!(places.outbound(&account).is_ok());
        assert_eq!(account.descriptors(), 0);
        assert_eq!(places.outbound.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_peers_ask_for_on_tunnels_has_places_of_its_own() {
        let places = Places::default();
        let held: Vec<_> = std::iter::from_fn(|| places.request().ok()).collect();
        assert_eq!(held.len(), OPENING);
        assert_eq!(places.request().unwrap_err(), NoPlace::Opening);
        assert!(places.some_opening() && places.plaintext(&account()).is_ok());
        drop(held);
        assert!(!places.some_opening() && places.request().is_ok());
    }

    #[test]
    fn tunnels_are_bounded_by_peer_and_together() {
        let places = Places::default();
        let account = account();
        let mut held = Vec::new();
        for number in 0.. {
            let before = held.len();
            held.extend(std::iter::from_fn(|| places.tunnel(peer(number), &account).ok()));
            if held.len() == TUNNELS {
                break;
            }
            assert_eq!(held.len() - before, TUNNELS_OF_PEER);
        }
        assert_eq!(places.tunnel(peer(u32::MAX), &account).unwrap_err(), NoPlace::Tunnels);
        held.truncate(TUNNELS_OF_PEER);
        assert_eq!(places.tunnel(peer(0), &account).unwrap_err(), NoPlace::TunnelsOfPeer);
        assert!(places.tunnel(peer(u32::MAX), &account).is_ok());
        held.clear();
        assert_eq!(account.descriptors(), 0);
        assert!(places.tunnels.lock().unwrap().of_peer.is_empty());
    }

    #[test]
    fn who_floods_tunnels_is_kept_out_for_a_while() {
        let places = Places::default();
        let account = account();
        for _ in 0..4 {
            assert!(places.tunnel(peer(1), &account).is_ok());
            places.went_beyond(peer(1));
        }
        let refused = places.tunnel(peer(1), &account).unwrap_err();
        assert_eq!((refused, refused.limit()), (NoPlace::Offender, Some(Limit::Offenders)));
        // Neither others nor what is no tunnel.
        assert!(places.tunnel(peer(2), &account).is_ok() && places.plaintext(&account).is_ok());
    }
}
