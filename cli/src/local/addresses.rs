//! Which address is whose: nodes, pods, services, all private ranges that end at the mesh. Pure; the kernel is told in
//! `nodes` and `pods`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The bridge that joins the nodes, where the controller listens.
pub(crate) const BRIDGE_V4: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 1);
/// The same, IPv6.
pub(crate) const BRIDGE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x172, 0x31, 0, 0, 0, 0, 1);
/// Length of the node network's prefix, IPv4.
pub(crate) const BRIDGE_PREFIX_V4: u8 = 24;
/// Length of the node network's prefix, IPv6.
pub(crate) const BRIDGE_PREFIX_V6: u8 = 64;

/// Service address of the node-local DNS server (kube-dns in most clusters).
pub(crate) const DNS_V4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The same, IPv6.
pub(crate) const DNS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0xa);

/// Source of readiness and liveness probes: the address that in-pod rules let pass uncaptured.
pub(crate) const PROBE_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 7, 127);
/// The same, IPv6.
pub(crate) const PROBE_V6: Ipv6Addr =
    Ipv6Addr::new(0xfd16, 0x9254, 0x7127, 0x1337, 0xffff, 0xffff, 0xffff, 0xffff);

/// All pods of the mesh.
pub(crate) const POD_RANGES: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/48"];
/// All services of the mesh.
pub(crate) const SERVICE_V4: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 96, 0, 0), 16);
/// All services of the mesh, IPv6.
pub(crate) const SERVICE_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0), 112);

/// First pod of a node; below are the network's address and the gateway.
const FIRST_POD: u8 = 2;
/// Last pod of a node.
const LAST_POD: u8 = 254;

/// Both addresses of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pair {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

/// Addresses of node `number` on the bridge.
pub(crate) fn node(number: u8) -> Pair {
    let [a, b, c, _] = BRIDGE_V4.octets();
    let host = 10 + number;
    let mut v6 = BRIDGE_V6.segments();
    v6[7] = u16::from(host);
    Pair { v4: Ipv4Addr::new(a, b, c, host), v6: Ipv6Addr::from(v6) }
}

/// Address number `host` in the pod range of node `number`; 1 is the gateway.
pub(crate) fn pod(number: u8, host: u8) -> Pair {
    let n = u16::from(number);
    Pair {
        v4: Ipv4Addr::new(10, 244, number, host),
        v6: Ipv6Addr::new(0xfd00, 0x10, 0x244, n, 0, 0, 0, u16::from(host)),
    }
}

/// The gateway of a node's pods: the node's end of every pod's link has it.
pub(crate) fn gateway(number: u8) -> Pair {
    pod(number, 1)
}

/// Network and prefix length of a node's pods, both families.
pub(crate) fn pod_range(number: u8) -> ((Ipv4Addr, u8), (Ipv6Addr, u8)) {
    let zero = pod(number, 0);
    ((zero.v4, 24), (zero.v6, 64))
}

/// Pod addresses of one node. The lowest that has been free longest comes next, so that an address of a pod that has
/// just gone is not at once another's.
#[derive(Debug)]
pub(crate) struct PodPool {
    number: u8,
    next: u8,
    taken: BTreeSet<u8>,
}

impl PodPool {
    /// The pool of node `number`.
    pub(crate) fn new(number: u8) -> Self {
        Self { number, next: FIRST_POD, taken: BTreeSet::new() }
    }

    /// An address for a pod, or `None` when the node has as many pods as addresses.
    pub(crate) fn take(&mut self) -> Option<Pair> {
        let hosts = (self.next..=LAST_POD).chain(FIRST_POD..self.next);
        let host = hosts.into_iter().find(|host| !self.taken.contains(host))?;
        self.taken.insert(host);
        self.next = if host == LAST_POD { FIRST_POD } else { host + 1 };
        Some(pod(self.number, host))
    }

    /// Gives an address back.
    pub(crate) fn give_back(&mut self, pair: Pair) {
        self.taken.remove(&pair.v4.octets()[3]);
    }
}

/// Service addresses: the one asked for, else one computed from the service's name, so that a restarted mesh and a
/// changed file give the same.
#[derive(Debug, Default)]
pub(crate) struct ServicePool {
    taken: BTreeSet<IpAddr>,
}

impl ServicePool {
    /// Notes an address that a service asks for or already has. False if another one has it.
    pub(crate) fn reserve(&mut self, address: IpAddr) -> bool {
        self.taken.insert(address)
    }

    /// Gives an address back.
    pub(crate) fn give_back(&mut self, address: IpAddr) {
        self.taken.remove(&address);
    }

    /// An address of the family wanted for `namespace`/`name`; `None` when 65,000 are taken.
    pub(crate) fn take(&mut self, namespace: &str, name: &str, v6: bool) -> Option<IpAddr> {
        /// Below are addresses that manifests like to ask for.
        const FIRST: u32 = 256;
        const LAST: u32 = 0xfffe;
        let hash = fnv32(format!("{namespace}/{name}").as_bytes());
        let count = LAST - FIRST + 1;
        let candidates = (0..count).map(|step| FIRST + (hash.wrapping_add(step)) % count);
        let address =
            candidates.map(|offset| service(offset, v6)).find(|address| !self.taken.contains(address))?;
        self.taken.insert(address);
        Some(address)
    }
}

/// Address number `offset` of the service range.
fn service(offset: u32, v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::from_bits(SERVICE_V6.0.to_bits() | u128::from(offset)))
    } else {
        IpAddr::V4(Ipv4Addr::from_bits(SERVICE_V4.0.to_bits() | offset))
    }
}

/// FNV-1a, 32 bits: stable over versions, as `std`'s hasher is not.
pub(crate) fn fnv32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// The ranges that services live in, as networks.
pub(crate) fn service_networks() -> [IpNet; 2] {
    [
        IpNet::new_assert(IpAddr::V4(SERVICE_V4.0), SERVICE_V4.1),
        IpNet::new_assert(IpAddr::V6(SERVICE_V6.0), SERVICE_V6.1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_gives_every_pod_address_once_and_then_none() {
        let mut pool = PodPool::new(3);
        let all: BTreeSet<Pair> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(all.len(), 253);
        assert!(all.iter().all(|pair| pair.v4.octets()[..3] == [10, 244, 3]));
        assert!(!all.contains(&gateway(3)));
    }

    #[test]
    fn an_address_given_back_is_the_last_to_be_given_again() {
        let mut pool = PodPool::new(1);
        let first = pool.take().expect("empty pool");
        pool.give_back(first);
        assert_ne!(pool.take(), Some(first));
        let rest = std::iter::from_fn(|| pool.take()).count();
        assert_eq!(rest, 252);
    }

    #[test]
    fn services_keep_their_address_and_never_share_one() {
        let mut pool = ServicePool::default();
        let one = pool.take("default", "reviews", false).expect("empty pool");
        let mut again = ServicePool::default();
        assert_eq!(again.take("default", "reviews", false), Some(one));
        // The same name again, as a hash collision would be: the next address.
        let other = pool.take("default", "reviews", false).expect("nearly empty");
        assert_ne!(one, other);
        assert!(service_networks()[0].contains(&one));
        let six = pool.take("default", "reviews", true).expect("empty family");
        assert!(service_networks()[1].contains(&six));
    }

    #[test]
    fn an_asked_address_is_not_given_to_another() {
        let mut probe = ServicePool::default();
        let natural = probe.take("a", "b", false).expect("empty pool");
        let mut pool = ServicePool::default();
        assert!(pool.reserve(natural));
        assert!(!pool.reserve(natural));
        assert_ne!(pool.take("a", "b", false), Some(natural));
    }
}
