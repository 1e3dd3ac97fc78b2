//! Redirection inside a pod, for proxies that leave it to someone else: the rules of Istio's CNI agent.

use testkit::netns::{Netns, NetnsError};

/// Inbound to 15006 but for the tunnel's own port, outbound to 15001, the proxy's own traffic (mark 0x539)
/// and what answers it (0x111) left alone.
const RULES: &str = "
table inet bench-mangle {
  chain prerouting {
    type filter hook prerouting priority -150; policy accept;
    meta mark & 0xfff == 0x539 ct mark set 0x111
  }
  chain output {
    type route hook output priority -150; policy accept;
    ct mark & 0xfff == 0x111 meta mark set ct mark
  }
}
table inet bench-nat {
  chain prerouting {
    type nat hook prerouting priority -100; policy accept;
    ip daddr != 127.0.0.1 tcp dport != 15008 meta mark & 0xfff != 0x539 redirect to :15006
  }
  chain output {
    type nat hook output priority -100; policy accept;
    meta mark & 0xfff == 0x111 accept
    oifname lo ip daddr != 127.0.0.1 accept
    ip daddr != 127.0.0.1 meta l4proto tcp meta mark & 0xfff != 0x539 redirect to :15001
  }
}
";

/// Sets rules and routes of a captured pod.
pub(super) fn capture(pod: &Netns) -> Result<(), NetnsError> {
    pod.nft(RULES)?;
    pod.ip("route add local 0.0.0.0/0 dev lo table 100")?;
    pod.ip("rule add fwmark 0x111/0xfff lookup 100 pref 32764")
}
