//! Addresses by their role, so that no signature takes two naked socket addresses.

use std::cmp::Ordering;
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

/// Some values, of which there nearly always is one. That is kept in place: a hundred thousand workloads are not to have
/// an allocation each for their address, nor a connection to fetch it from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Few<T>(Kept<T>);

/// A single one is always kept as such, so that equal means equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Kept<T> {
    One(T),
    Other(Box<[T]>),
}

/// The addresses of a workload.
pub type Addresses = Few<IpAddr>;

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Kept::Other(Box::default()))
    }
}

impl<T> std::ops::Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Kept::One(one) => std::slice::from_ref(one),
            Kept::Other(others) => others,
        }
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(all: Vec<T>) -> Self {
        all.into_iter().collect()
    }
}

impl<T, const N: usize> From<[T; N]> for Few<T> {
    fn from(all: [T; N]) -> Self {
        all.into_iter().collect()
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        let mut all = all.into_iter();
        match (all.next(), all.next()) {
            (Some(one), None) => Self(Kept::One(one)),
            (first, second) => Self(Kept::Other(first.into_iter().chain(second).chain(all).collect())),
        }
    }
}

/// Names a service: its namespace and its fully qualified host name, e.g. `reviews.default.svc.cluster.local`. All there is
/// of it is the text that it is sent by: a mesh has thousands of them, each of which many hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NamespacedHostname(Str);

impl NamespacedHostname {
    /// The name of these two parts. Names of namespaces have no `/`.
    pub fn new(namespace: &str, hostname: &str) -> Self {
        Self(format!("{namespace}/{hostname}").into())
    }

    /// Reads `NAMESPACE/HOSTNAME`; nothing if there is no host name, or more behind it.
    pub fn parse(text: Str) -> Option<Self> {
        let (_, hostname) = text.split_once('/')?;
        (!hostname.is_empty() && !hostname.contains('/')).then_some(Self(text))
    }

    /// The namespace that owns the service.
    pub fn namespace(&self) -> &str {
        self.parts().0
    }

    /// The fully qualified host name.
    pub fn hostname(&self) -> &str {
        self.parts().1
    }

    /// `NAMESPACE/HOSTNAME`.
    pub fn text(&self) -> &Str {
        &self.0
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or_default()
    }
}

impl PartialOrd for NamespacedHostname {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By namespace, then by host name.
impl Ord for NamespacedHostname {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl fmt::Display for NamespacedHostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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

    use super::{Addresses, NamespacedHostname};

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

    #[test]
    fn services_are_named_by_one_text() {
        let name = NamespacedHostname::new("shop", "cart.shop.svc");
        assert_eq!((name.namespace(), name.hostname()), ("shop", "cart.shop.svc"));
        assert_eq!(
            (&**name.text(), name.to_string()),
            ("shop/cart.shop.svc", "shop/cart.shop.svc".to_owned())
        );
        assert_eq!(NamespacedHostname::parse("shop/cart.shop.svc".into()), Some(name));
        for text in ["", "cart", "shop/", "shop/cart/80", "Kubernetes//Pod/shop/cart"] {
            assert_eq!(NamespacedHostname::parse(text.into()), None, "{text}");
        }
    }

    #[test]
    fn names_of_services_are_in_the_order_of_namespaces() {
        // As texts they would be the other way round.
        let (short, long) = (NamespacedHostname::new("shop", "z"), NamespacedHostname::new("shop-2", "a"));
        assert!(short < long && short.text() > long.text());
    }
}
