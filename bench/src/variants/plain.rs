//! No proxy: the physical limit of the path.

use std::net::SocketAddr;

use super::{Kind, Running, Side};
use crate::topology::{OUTSIDE, PORT, SERVER, Topology};

/// The client speaks to the server over the cable.
pub(super) fn start(topology: Topology) -> Running {
    Running {
        kind: Kind::Plain,
        client_side: Side::default(),
        server_side: Side::default(),
        topology,
        target: SocketAddr::new(SERVER, PORT),
        outside: Some(SocketAddr::new(OUTSIDE, PORT)),
        controller: None,
        attacker: None,
    }
}
