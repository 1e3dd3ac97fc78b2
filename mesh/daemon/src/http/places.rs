//! How many connections whom: the ports can be reached from every pod, and readiness is asked there. There is always a
//! place for one more; where all are taken, the oldest connection of the address that has most ends, so that who floods
//! us from a few addresses ends his own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::limits::oldest_of_most;

/// Connections served at once for other machines and pods.
pub(super) const MAX_FROM_ELSEWHERE: usize = 64;
/// Of these, connections of one address.
pub(super) const MAX_OF_ADDRESS: usize = 16;
/// Connections served at once for this machine itself, whose probes must get through.
pub(super) const MAX_FROM_HERE: usize = 16;

/// Whose connections are served now.
#[derive(Debug, Default)]
pub(super) struct Places {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    /// By age.
    all: BTreeMap<u64, (Party, CancellationToken)>,
}

/// Who is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Party {
    Here,
    Elsewhere(IpAddr),
}

impl Party {
    fn of(stream: &TcpStream) -> Option<Self> {
        let (peer, own) = (stream.peer_addr().ok()?.ip(), stream.local_addr().ok()?.ip());
        Some(if peer == own { Self::Here } else { Self::Elsewhere(peer.to_canonical()) })
    }
}

/// One connection's place, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    /// It has to make room.
    pub(super) end: CancellationToken,
}

impl Places {
    /// A place for a connection; none if it is gone already.
    pub(super) fn take(self: &Arc<Self>, stream: &TcpStream) -> Option<Place> {
        Some(self.admit(Party::of(stream)?))
    }

    fn admit(self: &Arc<Self>, party: Party) -> Place {
        let mut held = self.lock();
        while let Some(id) = held.victim(party) {
            // Its place is free at once.
            if let Some((_, end)) = held.all.remove(&id) {
                end.cancel();
            }
        }
        let id = held.next;
        held.next += 1;
        let end = CancellationToken::new();
        held.all.insert(id, (party, end.clone()));
        Place { places: self.clone(), id, end }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Who makes room for one more of a party; nobody while there is some.
    fn victim(&self, party: Party) -> Option<u64> {
        let of = |like: fn(Party, Party) -> bool| {
            self.all.iter().filter(move |(_, (one, _))| like(*one, party)).map(|(id, (one, _))| (*id, *one))
        };
        let (same, elsewhere) = (of(|one, other| one == other), of(|one, _| one != Party::Here));
        let most = if party == Party::Here { MAX_FROM_HERE } else { MAX_OF_ADDRESS };
        if same.clone().count() >= most {
            return oldest_of_most(same);
        }
        (party != Party::Here && elsewhere.clone().count() >= MAX_FROM_ELSEWHERE)
            .then(|| oldest_of_most(elsewhere))
            .flatten()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().all.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> Party {
        Party::Elsewhere(IpAddr::from([10, 0, 0, last]))
    }

    fn ended(of: &[Place]) -> usize {
        of.iter().filter(|place| place.end.is_cancelled()).count()
    }

    #[test]
    fn who_has_most_makes_room() {
        let places = Arc::<Places>::default();
        let greedy: Vec<_> = (0..MAX_OF_ADDRESS + 2).map(|_| places.admit(from(1))).collect();
        assert_eq!(ended(&greedy), 2, "an address ends its own");
        let lesser: Vec<_> = (0..MAX_FROM_ELSEWHERE - MAX_OF_ADDRESS)
            .map(|number| places.admit(from(u8::try_from(2 + number).unwrap_or(u8::MAX))))
            .collect();
        let here: Vec<_> = (0..MAX_FROM_HERE).map(|_| places.admit(Party::Here)).collect();
        assert_eq!((ended(&greedy), ended(&lesser), ended(&here)), (2, 0, 0));
        let newcomer = places.admit(from(250));
        assert_eq!((ended(&greedy), ended(&lesser), ended(&here)), (3, 0, 0));
        assert!(greedy[2].end.is_cancelled() && !newcomer.end.is_cancelled());
        let _one_more = places.admit(Party::Here);
        assert_eq!((ended(&greedy), ended(&here)), (3, 1));
        drop((greedy, lesser, here, newcomer, _one_more));
        assert!(places.lock().all.is_empty());
    }
}
