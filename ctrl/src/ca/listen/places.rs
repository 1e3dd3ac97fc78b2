//! How many connections there may be: of an address, of a caller, of all; and which of them makes room. What has proved
//! nothing goes before what has, and of that the oldest of the address that has most: who floods us from a few
//! addresses ends his own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daemon::limits::oldest_of_most;
use tokio_util::sync::CancellationToken;

use crate::ca::authorize::Caller;
use crate::limits::{Limit, Limits};

/// What a listener takes on.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// TLS handshakes under way at a time.
    pub handshakes: usize,
    /// The same of one address: more than a node with all of its proxies needs at once.
    pub handshakes_of_address: usize,
    /// Connections.
    pub connections: usize,
    /// Connections of one address: some of a thousand nodes behind one translated address.
    pub connections_of_address: usize,
    /// How long a connection may be there without a call that carries a known token.
    pub patience: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            handshakes: 512,
            handshakes_of_address: 32,
            // Each of the proxies that may be connected has one for configuration and one for certificates.
            connections: 24 * 1024,
            connections_of_address: 4096,
            patience: Duration::from_secs(10),
        }
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct Places {
    bounds: Bounds,
    limits: Limits,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    /// By age.
    all: BTreeMap<u64, Connection>,
    /// Those that have proved nothing.
    unproven: BTreeSet<u64>,
    /// Those of them whose handshake is not done.
    shaking: usize,
    addresses: HashMap<IpAddr, Taken>,
    callers: HashMap<Caller, BTreeSet<u64>>,
}

#[derive(Debug)]
struct Connection {
    address: IpAddr,
    stage: Stage,
    end: CancellationToken,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// TLS is not there yet.
    Shaking,
    /// No call with a known token came.
    Unproven,
    /// Whose it is.
    Of(Caller),
}

#[derive(Debug, Default)]
struct Taken {
    connections: usize,
    handshakes: usize,
}

/// One connection's place, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    proven: AtomicBool,
    /// It has to make room.
    pub(super) end: CancellationToken,
}

impl Places {
    pub(super) fn new(bounds: Bounds, limits: Limits) -> Arc<Self> {
        Arc::new(Self { bounds, limits, held: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection that begins. Where there is none left, a lesser one ends; nothing if there is none.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut held = self.lock();
        while let Some(limit) = held.reached(&self.bounds, address) {
            let victim = held.victim(limit, address);
            if self.limits.hit_and_tell(limit) {
                let ended = victim.is_some();
                tracing::warn!(%address, ?limit, ended, "too many connections: a lesser one ends, or this one if there is none");
            }
            held.end(victim?);
        }
        let id = held.next;
        held.next += 1;
        let end = CancellationToken::new();
        let taken = held.addresses.entry(address).or_default();
        taken.connections += 1;
        taken.handshakes += 1;
        held.shaking += 1;
        held.unproven.insert(id);
        held.all.insert(id, Connection { address, stage: Stage::Shaking, end: end.clone() });
        Some(Place { places: self.clone(), id, proven: AtomicBool::new(false), end })
    }
}

impl Held {
    /// The limit that stands in the way of one more of an address.
    fn reached(&self, bounds: &Bounds, address: IpAddr) -> Option<Limit> {
        let of = self.addresses.get(&address);
        [
            (of.map_or(0, |of| of.handshakes), bounds.handshakes_of_address, Limit::HandshakesOfAddress),
            (of.map_or(0, |of| of.connections), bounds.connections_of_address, Limit::ConnectionsOfAddress),
            (self.shaking, bounds.handshakes, Limit::Handshakes),
            (self.all.len(), bounds.connections, Limit::Connections),
        ]
        .into_iter()
        .find_map(|(are, may, limit)| (are >= may).then_some(limit))
    }

    /// Who makes room: a connection that has proved nothing.
    fn victim(&self, limit: Limit, address: IpAddr) -> Option<u64> {
        let unproven = self.unproven.iter().filter_map(|id| Some((*id, self.all.get(id)?)));
        let unproven = unproven.filter(|(_, one)| match limit {
            Limit::HandshakesOfAddress => one.address == address && one.stage == Stage::Shaking,
            Limit::ConnectionsOfAddress => one.address == address,
            Limit::Handshakes => one.stage == Stage::Shaking,
            _ => true,
        });
        oldest_of_most(unproven.map(|(id, one)| (id, one.address)))
    }

    /// Ends a connection; its place is free at once.
    fn end(&mut self, id: u64) {
        if let Some(one) = self.leave(id) {
            one.end.cancel();
        }
    }

    fn leave(&mut self, id: u64) -> Option<Connection> {
        let one = self.all.remove(&id)?;
        self.unproven.remove(&id);
        let handshakes = usize::from(one.stage == Stage::Shaking);
        self.shaking -= handshakes;
        if let Some(taken) = self.addresses.get_mut(&one.address) {
            taken.connections -= 1;
            taken.handshakes -= handshakes;
            if taken.connections == 0 {
                self.addresses.remove(&one.address);
            }
        }
        if let Stage::Of(caller) = &one.stage
            && let Some(own) = self.callers.get_mut(caller)
        {
            own.remove(&id);
            if own.is_empty() {
                self.callers.remove(caller);
            }
        }
        Some(one)
    }

    /// A connection goes on; how many of that caller there are then.
    fn go_on(&mut self, id: u64, stage: Stage) -> usize {
        let Some(one) = self.all.get_mut(&id) else { return 0 };
        let was = std::mem::replace(&mut one.stage, stage.clone());
        if was == Stage::Shaking {
            self.shaking -= 1;
            if let Some(taken) = self.addresses.get_mut(&one.address) {
                taken.handshakes -= 1;
            }
        }
        let Stage::Of(caller) = stage else { return 0 };
        self.unproven.remove(&id);
        let own = self.callers.entry(caller).or_default();
        own.insert(id);
        own.len()
    }
}

impl Place {
    /// The handshake is done.
    pub(super) fn shaken(&self) {
        self.places.lock().go_on(self.id, Stage::Unproven);
    }

    /// Whether a call with a known token came.
    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// A call with a known token came. The first counts: whose connection it is; of a caller who has too many, the
    /// oldest ends.
    pub(super) fn prove(&self, caller: &Caller) {
        if self.proven.swap(true, Ordering::Relaxed) {
            return;
        }
        let Places { limits, .. } = &*self.places;
        let mut held = self.places.lock();
        if held.go_on(self.id, Stage::Of(caller.clone())) > caller.connections() {
            if limits.hit_and_tell(Limit::ConnectionsOfCaller) {
                tracing::warn!(
                    %caller,
                    "too many connections of one caller: its oldest ends; is its token in use elsewhere?"
                );
            }
            if let Some(oldest) = held.callers.get(caller).and_then(|own| own.first().copied()) {
                held.end(oldest);
            }
        }
    }

    /// How long it may prove nothing.
    pub(super) fn patience(&self) -> Duration {
        self.places.bounds.patience
    }

    /// It has proved nothing for too long.
    pub(super) fn gives_up(&self) {
        if self.places.limits.hit_and_tell(Limit::Unproven) {
            tracing::info!("a connection without a call that carries a known token ends");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().leave(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(bounds: Bounds) -> Arc<Places> {
        Places::new(bounds, Limits::default())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_has_places_and_gets_them_back() {
        let bounds = Bounds { handshakes_of_address: 3, connections_of_address: 5, ..Bounds::default() };
        let places = places(bounds);
        let take = |from: &str| places.take(address(from));
        let shaking: Vec<_> = (0..3).map_while(|_| take("10.0.0.1")).collect();
        let other = take("10.0.0.2").expect("a place");
        // One more of the address ends its oldest, by whatever name it comes.
        let (fourth, fifth) = (take("10.0.0.1").expect("a place"), take("::ffff:10.0.0.1").expect("a place"));
        let ended: Vec<_> = shaking.iter().map(|one| one.end.is_cancelled()).collect();
        assert_eq!(ended, [true, true, false]);
        assert!(!other.end.is_cancelled());
        assert_eq!(places.limits.of(Limit::HandshakesOfAddress), 2);
        drop((shaking, fourth, fifth));
        // What has proved whose it is ends for nobody of the same address.
        let node = |number: usize| Caller::Node(format!("node-{number}").into());
        let connected: Vec<_> = (0..5)
            .map_while(|number| {
                let place = take("10.0.0.1")?;
                place.shaken();
                place.prove(&node(number));
                Some(place)
            })
            .collect();
        assert_eq!(connected.len(), 5);
        assert!(take("10.0.0.1").is_none());
        assert!(connected.iter().all(|one| !one.end.is_cancelled()));
        drop((connected, other));
        let held = places.lock();
        assert!(
            held.addresses.is_empty()
                && held.all.is_empty()
                && held.callers.is_empty()
                && held.unproven.is_empty()
        );
    }

    #[test]
    fn who_has_proved_something_stays_when_all_places_are_taken() {
        let places = places(Bounds { connections: 4, ..Bounds::default() });
        let take = |from: &str| places.take(address(from));
        let proven = take("10.0.0.1").expect("a place");
        proven.shaken();
        proven.prove(&Caller::Node("node-1".into()));
        let flood: Vec<_> = (0..3).map_while(|_| take("10.0.0.2")).collect();
        flood.iter().for_each(Place::shaken);
        let late: Vec<_> = (3..6).map_while(|last| take(&format!("10.0.0.{last}"))).collect();
        assert_eq!(late.len(), 3, "always a place");
        assert!(!proven.end.is_cancelled() && flood[0].end.is_cancelled() && flood[1].end.is_cancelled());
        for (number, place) in late.iter().chain(&flood).enumerate() {
            place.prove(&Caller::Node(format!("node-{number}").into()));
        }
        assert!(take("10.0.0.9").is_none(), "all have proved whose they are");
    }

    #[test]
    fn a_caller_ends_his_own() {
        let places = places(Bounds::default());
        let greedy = Caller::Node("greedy".into());
        let prove = |caller: &Caller| {
            let place = places.take(address("10.0.0.1")).expect("a place");
            place.shaken();
            place.prove(caller);
            // The first counts, and only once.
            place.prove(&Caller::Node("another".into()));
            place
        };
        let other = prove(&Caller::Node("other".into()));
        let most = greedy.connections();
        let own: Vec<_> = (0..most + 3).map(|_| prove(&greedy)).collect();
        let ended: Vec<_> = own.iter().map(|one| one.end.is_cancelled()).collect();
        assert_eq!(ended, [vec![true; 3], vec![false; most]].concat());
        assert!(!other.end.is_cancelled());
        assert_eq!(places.limits.of(Limit::ConnectionsOfCaller), 3);
    }
}
