//! Tunnels whose peer has not shown yet who it is: whoever reaches a pod's address may begin one. They are bounded by
//! count, and so by what they hold, for the whole process, for a pod and for where they come from. One too many ends the
//! oldest, which has had the most time: an honest peer is done in a few milliseconds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::pending;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

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

/// The unfinished handshakes of all pods.
#[derive(Debug)]
pub(crate) struct Handshakes(Arc<Mutex<Table>>);

/// One of them, until dropped.
#[derive(Debug)]
pub(crate) struct Unfinished {
    number: u64,
    ended: oneshot::Receiver<Limit>,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug)]
struct Table {
    most: usize,
    of_pod: usize,
    next: u64,
    /// By their numbers: the oldest comes first.
    all: BTreeMap<u64, Entry>,
    pods: HashMap<Arc<str>, OfPod>,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<str>,
    source: IpAddr,
    end: oneshot::Sender<Limit>,
}

#[derive(Debug, Default)]
struct OfPod {
    all: BTreeSet<u64>,
    sources: HashMap<IpAddr, BTreeSet<u64>>,
}

impl Handshakes {
    /// None yet; as many as so much memory allows.
    pub(crate) fn new(memory_limit: u64) -> Self {
        Self::with(most(memory_limit))
    }

    /// None yet, and this many at most.
    pub(crate) fn with(most: usize) -> Self {
        let (all, pods) = (BTreeMap::new(), HashMap::new());
        let table = Table { most, of_pod: OF_POD.min(most.div_ceil(2)), next: 0, all, pods };
        Self(Arc::new(Mutex::new(table)))
    }

    /// One more begins. Where there is no room for it, an older one is told to end.
    pub(crate) fn begin(&self, pod: &Arc<str>, peer: IpAddr) -> Unfinished {
        let source = source_of(peer);
        let (end, ended) = oneshot::channel();
        let mut table = lock(&self.0);
        if let Some((number, limit)) = table.surplus(pod, source) {
            table.end(number, limit);
        }
        let number = table.insert(Entry { pod: pod.clone(), source, end });
        Unfinished { number, ended, table: self.0.clone() }
    }

    /// Ends the oldest of a pod until this much memory has come back, if there are so many, and says how much has. Nobody
    /// loses more than an attempt, which is less than a connection.
    pub(crate) fn give_back(&self, pod: &str, bytes: u64) -> u64 {
        let mut table = lock(&self.0);
        let wanted = usize::try_from(bytes.div_ceil(SESSION)).unwrap_or(usize::MAX);
        let oldest: Vec<u64> =
            table.pods.get(pod).map(|pod| pod.all.iter().copied().take(wanted).collect()).unwrap_or_default();
        oldest.iter().for_each(|number| table.end(*number, Limit::Memory));
        bytes.min(oldest.len() as u64 * SESSION)
    }
}

/// How many there may be, where the process may have so much memory.
fn most(memory_limit: u64) -> usize {
    usize::try_from(memory_limit / PART / BYTES).unwrap_or(MOST).clamp(LEAST, MOST)
}

/// What counts as one source: a host on IPv6 has as many addresses as it likes within its network of 64 bits.
fn source_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    // Each change leaves it whole.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    /// Which one has to end before another one begins, and for want of what.
    fn surplus(&self, pod: &Arc<str>, source: IpAddr) -> Option<(u64, Limit)> {
        let of_pod = self.pods.get(pod);
        let of_source = of_pod.and_then(|pod| pod.sources.get(&source));
        let oldest_of = |numbers: Option<&BTreeSet<u64>>, most: usize| {
            numbers.filter(|numbers| numbers.len() >= most).and_then(|numbers| numbers.first().copied())
        };
        if let Some(oldest) = oldest_of(of_source, OF_SOURCE) {
            return Some((oldest, Limit::HandshakesOfPeer));
        }
        if let Some(oldest) = oldest_of(of_pod.map(|pod| &pod.all), self.of_pod) {
            return Some((oldest, Limit::HandshakesOfPod));
        }
        let full = self.all.len() >= self.most;
        full.then(|| self.all.keys().next().map(|oldest| (*oldest, Limit::Handshakes))).flatten()
    }

    fn end(&mut self, number: u64, limit: Limit) {
        if let Some(entry) = self.remove(number) {
            // It may be over by now.
            let _ = entry.end.send(limit);
        }
    }

    fn insert(&mut self, entry: Entry) -> u64 {
        let number = self.next;
        self.next += 1;
        let of_pod = self.pods.entry(entry.pod.clone()).or_default();
        of_pod.all.insert(number);
        of_pod.sources.entry(entry.source).or_default().insert(number);
        self.all.insert(number, entry);
        number
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.all.remove(&number)?;
        if let Some(of_pod) = self.pods.get_mut(&entry.pod) {
            of_pod.all.remove(&number);
            if let Some(of_source) = of_pod.sources.get_mut(&entry.source) {
                of_source.remove(&number);
                if of_source.is_empty() {
                    of_pod.sources.remove(&entry.source);
                }
            }
            if of_pod.all.is_empty() {
                self.pods.remove(&entry.pod);
            }
        }
        Some(entry)
    }
}

impl Unfinished {
    /// Waits until it has to end, for want of what is returned.
    pub(crate) async fn ended(&mut self) -> Limit {
        match (&mut self.ended).await {
            Ok(limit) => limit,
            // Nobody tells it any more.
            Err(_) => pending().await,
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        lock(&self.table).remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(number: usize) -> IpAddr {
        std::net::Ipv4Addr::from(u32::try_from(number).unwrap()).into()
    }

    /// Of which limit each was told, if it was.
    fn told(all: &mut [Unfinished]) -> Vec<Option<Limit>> {
        all.iter_mut().map(|one| one.ended.try_recv().ok()).collect()
    }

    #[test]
    fn the_oldest_of_all_of_a_pod_and_of_a_source_goes() {
        let handshakes = Handshakes::with(8);
        let pods = ["a", "b", "c"].map(Arc::<str>::from);
        // Four of a pod are half of what there is.
        let mut of_a: Vec<_> = (0..5).map(|number| handshakes.begin(&pods[0], v4(number))).collect();
        assert_eq!(told(&mut of_a), [Some(Limit::HandshakesOfPod), None, None, None, None]);
        let mut of_b: Vec<_> = (0..4).map(|number| handshakes.begin(&pods[1], v4(number))).collect();
        let _of_c = handshakes.begin(&pods[2], v4(0));
        assert_eq!(told(&mut of_a)[1..], [Some(Limit::Handshakes), None, None, None]);
        assert_eq!(told(&mut of_b), [None; 4]);
        // What is over makes room, also where it had been told to end.
        drop((of_a, of_b));
        assert_eq!(lock(&handshakes.0).all.len(), 1);
        assert_eq!(lock(&handshakes.0).pods.len(), 1);
    }

    #[test]
    fn where_memory_is_short_those_of_the_pod_that_holds_most_go_first() {
        let handshakes = Handshakes::with(20);
        let pods = ["a", "b"].map(Arc::<str>::from);
        let mut of_a: Vec<_> = (0..4).map(|number| handshakes.begin(&pods[0], v4(number))).collect();
        let mut of_b = handshakes.begin(&pods[1], v4(0));
        assert_eq!(handshakes.give_back("a", SESSION + 1), SESSION + 1);
        assert_eq!(told(&mut of_a), [Some(Limit::Memory), Some(Limit::Memory), None, None]);
        assert_eq!(handshakes.give_back("a", u64::MAX), 2 * SESSION);
        assert_eq!(handshakes.give_back("a", 1), 0);
        assert!(of_b.ended.try_recv().is_err());
    }

    #[test]
    fn a_network_of_64_bits_is_one_source() {
        let handshakes = Handshakes::with(MOST);
        let pod = Arc::<str>::from("a");
        let of = |network: u128, host: usize| IpAddr::V6(Ipv6Addr::from_bits((network << 64) | host as u128));
        let mut bystander = handshakes.begin(&pod, of(2, 1));
        let mut all: Vec<_> = (0..OF_SOURCE + 3).map(|host| handshakes.begin(&pod, of(1, host))).collect();
        let ended = told(&mut all);
        assert_eq!(ended[..3], [Some(Limit::HandshakesOfPeer); 3]);
        assert!(ended[3..].iter().all(Option::is_none));
        assert!(bystander.ended.try_recv().is_err());
        assert_ne!(source_of(v4(1)), source_of(v4(2)));
        assert_eq!(source_of("::ffff:10.0.0.1".parse().unwrap()), "10.0.0.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn three_quarters_of_a_pods_places_are_for_peers_that_are_known() {
        const { assert!(OF_POD * 4 <= TUNNELS && OF_SOURCE < OF_POD) };
        let of = |mebibytes: u64| most(mebibytes << 20);
        assert_eq!([of(16), of(256), of(512), of(1 << 20)], [LEAST, 1638, 3276, MOST]);
    }
}
