//! How many connections whom: the ports can be reached from every pod, and readiness is asked there.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;

/// Connections served at once for other machines and pods.
pub(super) const MAX_FROM_ELSEWHERE: usize = 64;
/// Of these, connections of one address.
pub(super) const MAX_OF_ADDRESS: usize = 16;
/// Connections served at once for this machine itself, whose probes must get through.
pub(super) const MAX_FROM_HERE: usize = 16;

/// Whose connections are served now.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: Mutex<HashMap<Party, usize>>,
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
        Some(if peer == own { Self::Here } else { Self::Elsewhere(peer) })
    }
}

/// One connection's place, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    party: Party,
}

impl Places {
    /// A place for a connection; none if whoever made it has enough of them.
    pub(super) fn take(self: &Arc<Self>, stream: &TcpStream) -> Option<Place> {
        let party = Party::of(stream)?;
        self.admit(party).then(|| Place { places: self.clone(), party })
    }

    fn admit(&self, party: Party) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(&party).copied().unwrap_or(0);
        let free = match party {
            Party::Here => own < MAX_FROM_HERE,
            Party::Elsewhere(_) => {
                let here = taken.get(&Party::Here).copied().unwrap_or(0);
                own < MAX_OF_ADDRESS && taken.values().sum::<usize>() - here < MAX_FROM_ELSEWHERE
            }
        };
        if free {
            taken.insert(party, own + 1);
        }
        free
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.party) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.party);
            }
        }
    }
}
