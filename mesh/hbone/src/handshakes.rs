//! Tunnels whose peer has not shown yet who it is: whoever reaches an address may begin one. They are bounded by count,
//! and so by what they hold, for the whole process, for whom they are begun with, and for where they come from. One too
//! many ends the oldest, which has had the most time: an honest peer is done in a few milliseconds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::pending;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// How many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// In the whole process.
    pub all: usize,
    /// With one owner.
    pub of_owner: usize,
    /// With one owner, from one source: an address, on IPv6 a network of 64 bits.
    pub of_source: usize,
}

/// Why one has to end; the text is for the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the handshake took longer than that of the tunnels that have been begun since, and there are too many"
)]
pub enum Surplus {
    /// [`Bounds::all`] is reached, and it is the oldest.
    All,
    /// [`Bounds::of_owner`] is reached, and it is that owner's oldest.
    OfOwner,
    /// [`Bounds::of_source`] is reached, and it is the oldest from there.
    OfSource,
    /// What it holds is wanted back ([`Handshakes::end_oldest`]).
    Memory,
}

/// The unfinished handshakes of a process, by the owner that each is begun with.
#[derive(Debug)]
pub struct Handshakes<O>(Arc<Mutex<Table<O>>>);

/// One of them, until dropped.
#[derive(Debug)]
pub struct Unfinished<O: Clone + Eq + Hash> {
    number: u64,
    ended: oneshot::Receiver<Surplus>,
    table: Arc<Mutex<Table<O>>>,
}

#[derive(Debug)]
struct Table<O> {
    bounds: Bounds,
    next: u64,
    /// By their numbers: the oldest comes first.
    all: BTreeMap<u64, Entry<O>>,
    owners: HashMap<O, OfOwner>,
}

#[derive(Debug)]
struct Entry<O> {
    owner: O,
    source: IpAddr,
    end: oneshot::Sender<Surplus>,
}

#[derive(Debug, Default)]
struct OfOwner {
    all: BTreeSet<u64>,
    sources: HashMap<IpAddr, BTreeSet<u64>>,
}

impl<O: Clone + Eq + Hash> Handshakes<O> {
    /// None yet.
    pub fn new(bounds: Bounds) -> Self {
        let (all, owners) = (BTreeMap::new(), HashMap::new());
        Self(Arc::new(Mutex::new(Table { bounds, next: 0, all, owners })))
    }

    /// One more begins. Where there is no room for it, an older one is told to end.
    pub fn begin(&self, owner: &O, peer: IpAddr) -> Unfinished<O> {
        let source = source_of(peer);
        let (end, ended) = oneshot::channel();
        let mut table = lock(&self.0);
        if let Some((number, surplus)) = table.surplus(owner, source) {
            table.end(number, surplus);
        }
        let number = table.insert(Entry { owner: owner.clone(), source, end });
        Unfinished { number, ended, table: self.0.clone() }
    }

    /// Ends the oldest of an owner, at most so many, and says how many there were.
    pub fn end_oldest(&self, owner: &O, most: usize) -> usize {
        let mut table = lock(&self.0);
        let of_owner = table.owners.get(owner);
        let oldest: Vec<u64> =
            of_owner.map(|own| own.all.iter().copied().take(most).collect()).unwrap_or_default();
        oldest.iter().for_each(|number| table.end(*number, Surplus::Memory));
        oldest.len()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        lock(&self.0).all.len()
    }
}

/// What counts as one source: a host on IPv6 has as many addresses as it likes within its network of 64 bits.
fn source_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn lock<O>(table: &Mutex<Table<O>>) -> MutexGuard<'_, Table<O>> {
    // Each change leaves it whole.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<O: Clone + Eq + Hash> Table<O> {
    /// Which one has to end before another one begins, and why.
    fn surplus(&self, owner: &O, source: IpAddr) -> Option<(u64, Surplus)> {
        let own = self.owners.get(owner);
        let of_source = own.and_then(|own| own.sources.get(&source));
        let oldest_of = |numbers: Option<&BTreeSet<u64>>, most: usize| {
            numbers.filter(|numbers| numbers.len() >= most).and_then(|numbers| numbers.first().copied())
        };
        if let Some(oldest) = oldest_of(of_source, self.bounds.of_source) {
            return Some((oldest, Surplus::OfSource));
        }
        if let Some(oldest) = oldest_of(own.map(|own| &own.all), self.bounds.of_owner) {
            return Some((oldest, Surplus::OfOwner));
        }
        let full = self.all.len() >= self.bounds.all;
        full.then(|| self.all.keys().next().map(|oldest| (*oldest, Surplus::All))).flatten()
    }

    fn end(&mut self, number: u64, surplus: Surplus) {
        if let Some(entry) = self.remove(number) {
            // It may be over by now.
            let _ = entry.end.send(surplus);
        }
    }

    fn insert(&mut self, entry: Entry<O>) -> u64 {
        let number = self.next;
        self.next += 1;
        let own = self.owners.entry(entry.owner.clone()).or_default();
        own.all.insert(number);
        own.sources.entry(entry.source).or_default().insert(number);
        self.all.insert(number, entry);
        number
    }

    fn remove(&mut self, number: u64) -> Option<Entry<O>> {
        let entry = self.all.remove(&number)?;
        if let Some(own) = self.owners.get_mut(&entry.owner) {
            own.all.remove(&number);
            if let Some(of_source) = own.sources.get_mut(&entry.source) {
                of_source.remove(&number);
                if of_source.is_empty() {
                    own.sources.remove(&entry.source);
                }
            }
            if own.all.is_empty() {
                self.owners.remove(&entry.owner);
            }
        }
        Some(entry)
    }
}

impl<O: Clone + Eq + Hash> Unfinished<O> {
    /// Waits until it has to end, for the reason that is returned.
    pub async fn ended(&mut self) -> Surplus {
        match (&mut self.ended).await {
            Ok(surplus) => surplus,
            // Nobody tells it any more.
            Err(_) => pending().await,
        }
    }
}

impl<O: Clone + Eq + Hash> Drop for Unfinished<O> {
    fn drop(&mut self) {
        lock(&self.table).remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = 1000;

    fn bounds(all: usize, of_owner: usize, of_source: usize) -> Bounds {
        Bounds { all, of_owner, of_source }
    }

    fn v4(number: usize) -> IpAddr {
        std::net::Ipv4Addr::from(u32::try_from(number).unwrap()).into()
    }

    /// Why each was told to end, if it was.
    fn told<O: Clone + Eq + Hash>(all: &mut [Unfinished<O>]) -> Vec<Option<Surplus>> {
        all.iter_mut().map(|one| one.ended.try_recv().ok()).collect()
    }

    /// Bounds, the owners and sources that begin one after the other, and who of them has to end.
    type Case = (&'static str, Bounds, &'static [(char, usize)], &'static [(usize, Surplus)]);

    #[test]
    fn the_oldest_of_all_of_an_owner_and_of_a_source_goes() {
        let cases: [Case; 6] = [
            ("all fit", bounds(3, 3, 3), &[('a', 1), ('a', 1), ('b', 2)], &[]),
            ("of all", bounds(2, 2, 2), &[('a', 1), ('b', 1), ('c', 1)], &[(0, Surplus::All)]),
            (
                "of an owner",
                bounds(4, 2, 2),
                &[('b', 1), ('a', 1), ('a', 2), ('a', 3)],
                &[(1, Surplus::OfOwner)],
            ),
            (
                "of a source",
                bounds(4, 4, 2),
                &[('a', 9), ('a', 1), ('a', 1), ('a', 1)],
                &[(1, Surplus::OfSource)],
            ),
            ("another owner's do not count", bounds(4, 4, 1), &[('a', 1), ('b', 1)], &[]),
            // Who floods from one source ends his own, also where everything is full.
            (
                "of a source first",
                bounds(3, 3, 2),
                &[('a', 9), ('a', 1), ('a', 1), ('a', 1), ('a', 1)],
                &[(1, Surplus::OfSource), (2, Surplus::OfSource)],
            ),
        ];
        for (about, bounds, begun, expected) in cases {
            let handshakes = Handshakes::new(bounds);
            let mut all: Vec<_> =
                begun.iter().map(|(owner, source)| handshakes.begin(owner, v4(*source))).collect();
            let ended: Vec<_> = told(&mut all)
                .into_iter()
                .enumerate()
                .filter_map(|(number, surplus)| Some((number, surplus?)))
                .collect();
            assert_eq!(ended, expected, "{about}");
            assert_eq!(handshakes.count(), begun.len() - expected.len(), "{about}");
            // What is over makes room, also where it had been told to end.
            drop(all);
            let table = lock(&handshakes.0);
            assert!(table.all.is_empty() && table.owners.is_empty(), "{about}");
        }
    }

    #[test]
    fn the_oldest_of_an_owner_end_when_they_are_told_to() {
        let handshakes = Handshakes::new(bounds(MANY, MANY, MANY));
        let mut of_a: Vec<_> = (0..4).map(|number| handshakes.begin(&'a', v4(number))).collect();
        let mut of_b = [handshakes.begin(&'b', v4(0))];
        assert_eq!(handshakes.end_oldest(&'a', 2), 2);
        assert_eq!(told(&mut of_a), [Some(Surplus::Memory), Some(Surplus::Memory), None, None]);
        assert_eq!([handshakes.end_oldest(&'a', MANY), handshakes.end_oldest(&'a', 1)], [2, 0]);
        assert_eq!(told(&mut of_b), [None]);
    }

    #[test]
    fn a_network_of_64_bits_is_one_source() {
        let handshakes = Handshakes::new(bounds(MANY, MANY, 5));
        let of = |network: u128, host: u128| IpAddr::V6(Ipv6Addr::from_bits((network << 64) | host));
        let mut bystander = [handshakes.begin(&'a', of(2, 1))];
        let mut all: Vec<_> = (0..8).map(|host| handshakes.begin(&'a', of(1, host))).collect();
        let ended = told(&mut all);
        assert_eq!(ended[..3], [Some(Surplus::OfSource); 3]);
        assert!(ended[3..].iter().all(Option::is_none));
        assert_eq!(told(&mut bystander), [None]);
        assert_ne!(source_of(v4(1)), source_of(v4(2)));
        assert_eq!(source_of("::ffff:10.0.0.1".parse().unwrap()), "10.0.0.1".parse::<IpAddr>().unwrap());
    }
}
