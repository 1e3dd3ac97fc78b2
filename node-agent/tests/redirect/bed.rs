//! A pod's namespace and a peer's beside it.

use std::{net::IpAddr, time::Duration};

use node_agent::redirect::enrol::Policy;
use testkit::netns::{End, Netns, join};

pub(crate) const UID: &str = "0f6a6ab8-6d3c-4d57-9a50-8c4f4f3a1f11";
pub(crate) const POD_V4: &str = "10.77.0.2";
pub(crate) const POD_V6: &str = "fd77::2";
pub(crate) const PEER_V4: &str = "10.77.0.1";
pub(crate) const PEER_V6: &str = "fd77::1";

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Pod and peer, joined; everything the pod does not know goes to the peer.
pub(crate) fn pod_and_peer() -> (Netns, Netns) {
    let (pod, peer) = (Netns::new("pod").unwrap(), Netns::new("peer").unwrap());
    join(
        End { namespace: &pod, interface: "eth0", addresses: &[(ip(POD_V4), 24), (ip(POD_V6), 64)] },
        End { namespace: &peer, interface: "eth0", addresses: &[(ip(PEER_V4), 24), (ip(PEER_V6), 64)] },
    )
    .unwrap();
    // As strict as a distribution may have it: returning packets must not need laxity.
    for interface in ["all", "lo", "eth0"] {
        pod.sysctl(&format!("ipv4/conf/{interface}/rp_filter"), "1").unwrap();
    }
    pod.ip(&format!("route add default via {PEER_V4}")).unwrap();
    pod.ip(&format!("-6 route add default via {PEER_V6}")).unwrap();
    (pod, peer)
}

pub(crate) fn policy() -> Policy {
    Policy { leave_grace: Duration::from_millis(50), ..Policy::default() }
}
