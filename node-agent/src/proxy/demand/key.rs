//! What may be asked for.

use std::net::IpAddr;

use model::address::{NetworkAddress, Str};
use xds::names;

/// One thing to ask for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// What has an address.
    At(NetworkAddress),
    /// What has a name: a workload's uid, `namespace/hostname`, or a [host](names::host).
    Named(Str),
}

impl Key {
    /// How it is asked for.
    pub(crate) fn text(&self) -> Str {
        match self {
            Self::At(address) => names::at(&address.network, address.ip),
            Self::Named(name) => name.clone(),
        }
    }

    /// What was asked for by this text.
    pub(crate) fn read(text: &Str) -> Self {
        let address = text.rsplit_once('/').and_then(|(network, ip)| {
            let ip: IpAddr = ip.parse().ok()?;
            Some(NetworkAddress::new(network.into(), ip))
        });
        address.map_or_else(|| Self::Named(text.clone()), Self::At)
    }
}
