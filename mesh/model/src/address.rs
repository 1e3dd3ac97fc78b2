//! Addresses by their role, so that no signature takes two naked socket addresses.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A string shared by everything that names the same thing; interned where the wire is read.
pub type Str = Arc<str>;

/// An IP address within a network. Addresses are unique per network only, so every address key carries
/// it, also while there is only one; the default network is the empty name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkAddress {
    /// The network's name, empty for the only one.
    pub network: Str,
    /// The address, never v4-mapped.
    pub ip: IpAddr,
}

impl NetworkAddress {
    /// An address in a network; a v4-mapped address is taken for the IPv4 address it stands for.
    pub fn new(network: Str, ip: IpAddr) -> Self {
        Self { network, ip: ip.to_canonical() }
    }
}

impl fmt::Display for NetworkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.ip)
    }
}

/// The addresses of a workload. Nearly all have one, which is kept in place: a hundred thousand workloads are not to
/// have an allocation each for it, nor a connection to fetch it from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses(Kept);

/// A single one is always kept as such, so that equal means equal.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kept {
    One(IpAddr),
    Other(Box<[IpAddr]>),
}

impl std::ops::Deref for Addresses {
    type Target = [IpAddr];

    fn deref(&self) -> &[IpAddr] {
        match &self.0 {
            Kept::One(ip) => std::slice::from_ref(ip),
            Kept::Other(ips) => ips,
        }
    }
}

impl From<Vec<IpAddr>> for Addresses {
    fn from(ips: Vec<IpAddr>) -> Self {
        Self(match ips[..] {
            [ip] => Kept::One(ip),
            _ => Kept::Other(ips.into()),
        })
    }
}

impl<const N: usize> From<[IpAddr; N]> for Addresses {
    fn from(ips: [IpAddr; N]) -> Self {
        ips.into_iter().collect()
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(ips: I) -> Self {
        let mut ips = ips.into_iter();
        match (ips.next(), ips.next()) {
            (Some(ip), None) => Self(Kept::One(ip)),
            (first, second) => Self(Kept::Other(first.into_iter().chain(second).chain(ips).collect())),
        }
    }
}

/// Names a service: its namespace and its fully qualified host name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedHostname {
    /// The namespace that owns the service.
    pub namespace: Str,
    /// The fully qualified host name, e.g. `reviews.default.svc.cluster.local`.
    pub hostname: Str,
}

impl fmt::Display for NamespacedHostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}

macro_rules! role {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub struct $name(SocketAddr);

        impl $name {
            /// Takes a socket address for this role; a v4-mapped address becomes the IPv4 address it stands for.
            pub fn new(address: SocketAddr) -> Self {
                Self(SocketAddr::new(address.ip().to_canonical(), address.port()))
            }

            /// The address and port.
            pub fn addr(self) -> SocketAddr {
                self.0
            }

            /// The address.
            pub fn ip(self) -> IpAddr {
                self.0.ip()
            }

            /// The port.
            pub fn port(self) -> u16 {
                self.0.port()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

role! {
    /// Who connected to us: the remote end of an accepted connection.
    PeerAddress
}
role! {
    /// Where the application meant to go, before redirection (`SO_ORIGINAL_DST`).
    OriginalDestination
}
role! {
    /// Where a packet really goes next: a pod's tunnel port, a waypoint, or a plain destination.
    NextHop
}
role! {
    /// The application's own address behind an inbound connection: the pod's IP and the port it listens on.
    AppAddress
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::Addresses;

    #[test]
    fn addresses_are_equal_however_they_were_put_together() {
        let all: [IpAddr; 3] = ["10.0.0.1", "fd00::1", "10.0.0.2"].map(|text| text.parse().unwrap());
        for count in 0..=all.len() {
            let some = &all[..count];
            let listed = Addresses::from(some.to_vec());
            let collected: Addresses = some.iter().copied().collect();
            assert_eq!((&listed[..], &collected[..]), (some, some));
            assert_eq!(listed, collected);
        }
        assert_eq!(Addresses::from([all[0]]), Addresses::from(vec![all[0]]));
        assert_ne!(Addresses::from([all[0]]), Addresses::from([all[1]]));
    }
}
