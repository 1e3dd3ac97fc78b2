//! The rules inside a pod's network namespace, as text for one nftables transaction: a pure function of what is
//! wanted. [`super::apply`] hands the text to `nft`.
//!
//! They catch connections by their first SYN only, so that what was open before a pod joined (or stays open after
//! it leaves) is never touched. The numbers in the text are those of the ambient convention: marks and ports are
//! what makes another proxy work under these rules.

use std::collections::BTreeSet;
use std::fmt::Write;

use model::ports::{
    DNS as PORT_DNS, HBONE as PORT_HBONE, INBOUND_PLAINTEXT as PORT_INBOUND, OUTBOUND as PORT_OUTBOUND,
};

use crate::socket::{MARK_MASK, PROXY_MARK, RETURN_MARK};

/// The one table; everything of ours is in it, so that replacing and removing are one statement.
pub const TABLE: &str = "lateen";
/// Raised when the text of the rules changes its meaning; stands in the table's comment.
pub const VERSION: u32 = 5;

/// Source address of kubelet probes, which pass beside the mesh to the ports that are probed. A neighbour who takes it on
/// gets no further than they do.
pub const PROBE_V4: &str = "169.254.7.127";
/// The same for IPv6.
pub const PROBE_V6: &str = "fd16:9254:7127:1337:ffff:ffff:ffff:ffff";

/// How much of the redirection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// New connections are captured.
    Capturing,
    /// The pod has left: nothing new is captured, what was captured lives on (its translation, its marks).
    Draining,
}

/// How what an application answers comes back to the proxy that delivered to it under a stranger's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayBack {
    /// The proxy marks what it opens with [`RETURN_MARK`], and sockets pass it on (`docs/decisions/0007`).
    Marked,
    /// The proxy has one mark for all it opens (any proxy of the ambient convention): connection tracking remembers.
    Tracked,
}

impl WayBack {
    /// Mark of what the proxy opens to the application.
    #[must_use]
    pub fn app_mark(self) -> u32 {
        match self {
            Self::Marked => RETURN_MARK,
            Self::Tracked => PROXY_MARK,
        }
    }
}

/// What a pod's rules should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    /// Capturing or draining.
    pub phase: Phase,
    /// Whether DNS queries are captured (`ambient.istio.io/dns-capture`).
    pub dns: bool,
    /// Whether inbound plaintext is captured; a gateway that must see its clients as they are says no
    /// (`ambient.istio.io/bypass-inbound-capture`).
    pub inbound: bool,
    /// Interfaces behind which something else speaks for the pod (`istio.io/reroute-virtual-interfaces`): what
    /// comes from them counts as outbound.
    pub virtual_interfaces: Vec<String>,
    /// Ports to which probes pass beside the mesh: those that the pod names in its probes and hooks, which nobody can change
    /// once it is there.
    pub probed: BTreeSet<u16>,
    /// Whether what the mesh does not carry (UDP but DNS, SCTP and the like) is dropped instead of let past it.
    pub drop_uncarried: bool,
}

impl Default for RuleSet {
    fn default() -> Self {
        Self {
            phase: Phase::Capturing,
            dns: true,
            inbound: true,
            virtual_interfaces: Vec::new(),
            probed: BTreeSet::new(),
            drop_uncarried: false,
        }
    }
}

/// Whether `name` can be an interface's name: what is not is refused before it reaches the rules' text.
#[must_use]
pub fn is_interface_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    !name.is_empty() && name.len() <= 15 && name.chars().all(allowed)
}

/// The transaction that removes our table, whether or not it is there.
#[must_use]
pub fn removal() -> String {
    format!("add table inet {TABLE}\ndelete table inet {TABLE}\n")
}

/// The transaction that replaces whatever of ours is installed by `rules`.
#[must_use]
pub fn render(rules: &RuleSet, way_back: WayBack) -> String {
    let mut text = removal();
    let _ = writeln!(text, "table inet {TABLE} {{");
    let _ = writeln!(text, "\tcomment \"redirection rules, version {VERSION}\"");
    for (name, hook, lines) in chains(rules, way_back) {
        let _ = writeln!(text, "\n\tchain {name} {{\n\t\ttype {hook}; policy accept;");
        for line in lines {
            let _ = writeln!(text, "\t\t{line}");
        }
        let _ = writeln!(text, "\t}}");
    }
    text.push_str("}\n");
    text
}

type Chain = (&'static str, &'static str, Vec<String>);

/// All chains, in the order a packet would meet them: in, then out.
fn chains(rules: &RuleSet, way_back: WayBack) -> Vec<Chain> {
    let mut chains = Vec::new();
    if rules.dns {
        chains.extend(dns_zone_chains(rules.phase));
    }
    chains.extend(match way_back {
        WayBack::Marked => untracked_chains(),
        WayBack::Tracked => return_path_chains(),
    });
    // Both stay while draining, empty: without a nat chain the kernel stops translating what it had captured.
    chains.push(("inbound", "nat hook prerouting priority -100", inbound(rules)));
    // `dstnat` is not a name that nft 1.0.6 takes on output.
    chains.push(("outbound", "nat hook output priority -100", outbound(rules)));
    chains.push(("guard_in", "filter hook input priority 0", guard_in(rules)));
    if rules.phase == Phase::Capturing {
        if rules.inbound {
            let lines = [vec![format!("{NOT_SYN} accept")], guard(rules)].concat();
            chains.push(("guard_through", "filter hook forward priority 0", lines));
        }
        chains.push(("guard_out", "filter hook output priority 0", guard_out()));
    }
    if rules.drop_uncarried && rules.phase == Phase::Capturing {
        chains.push(("uncarried_in", "filter hook input priority 0", uncarried("iifname")));
        chains.push(("uncarried_out", "filter hook output priority 0", uncarried("oifname")));
    }
    chains
}

/// Queries by who asks, as zones of connection tracking, which remembers each for half a minute at least: a later one from
/// the same port must not be taken for it, and led where that one went.
mod zone {
    /// The name server's own, to its upstream: their source port may be that of the captured query they stem from.
    pub(super) const UPSTREAM: u8 = 1;
    /// An application's that are captured. What it asked before, or while the rules came, is in none of these.
    pub(super) const CAPTURED: u8 = 2;
    /// An application's whose pod is leaving: the name server that had the captured ones is about to end.
    pub(super) const LEAVING: u8 = 3;
}

fn dns_zone_chains(phase: Phase) -> [Chain; 2] {
    let (ours, not_ours) = (marked("=="), marked("!="));
    let asked = match phase {
        Phase::Capturing => zone::CAPTURED,
        Phase::Draining => zone::LEAVING,
    };
    [
        (
            "dns_zone_in",
            "filter hook prerouting priority -300",
            vec![format!("udp sport 53 {not_ours} ct zone set {}", zone::UPSTREAM)],
        ),
        (
            "dns_zone_out",
            "filter hook output priority -300",
            vec![
                format!("udp dport 53 {ours} ct zone set {}", zone::UPSTREAM),
                format!("oifname != \"lo\" udp dport 53 {not_ours} ct zone set {asked}"),
                format!("udp sport {PORT_DNS} ct zone set {}", zone::CAPTURED),
            ],
        ),
    ]
}

/// What is opened to the application stays inside the pod and has its mark in both directions: nothing about it needs
/// to be remembered or translated, so it is not tracked at all.
fn untracked_chains() -> [Chain; 2] {
    let line = format!("meta mark & {MARK_MASK:#x} == {RETURN_MARK:#x} meta l4proto tcp notrack");
    [
        ("untracked_in", "filter hook prerouting priority -300", vec![line.clone()]),
        ("untracked_out", "filter hook output priority -300", vec![line]),
    ]
}

/// Connections that the proxy opens to the application under the client's address are remembered, and the
/// application's replies to that address are routed back to the proxy (type `route`: the mark is looked at
/// again) instead of out of the pod.
fn return_path_chains() -> [Chain; 2] {
    let rest = !MARK_MASK;
    let remember = format!("{} ct mark set ct mark & {rest:#010x} | {RETURN_MARK:#x}", marked("=="));
    let restore = format!("ct mark & {MARK_MASK:#x} == {RETURN_MARK:#x} meta mark set ct mark");
    [
        ("remember", "filter hook prerouting priority -150", vec![remember]),
        ("return_path", "route hook output priority -150", vec![restore]),
    ]
}

fn marked(operator: &str) -> String {
    format!("meta mark & {MARK_MASK:#x} {operator} {PROXY_MARK:#x}")
}

/// A connection's first packet, to tracking as well.
const FIRST_SYN: &str = "tcp flags & (fin | syn | rst | ack) == syn ct state new";
/// A connection's first packet, whatever tracking thinks of it.
const SYN: &str = "tcp flags & (fin | syn | rst | ack) == syn";
/// Every other one.
const NOT_SYN: &str = "tcp flags & (fin | syn | rst | ack) != syn";

/// An application's socket has the mark of the SYN that it answers. It never has the proxy's, with which it could
/// be taken down and connected again past the capture.
fn guard_in(rules: &RuleSet) -> Vec<String> {
    let rest = !MARK_MASK;
    let unmark = format!("{} meta mark set meta mark & {rest:#010x}", marked("=="));
    let mut lines = vec![format!("{NOT_SYN} accept"), unmark];
    if rules.phase == Phase::Capturing && rules.inbound {
        lines.extend(guard(rules));
    }
    lines
}

/// Translation looks only at the packet that tracking first saw of a connection. Somebody who sends another one ahead
/// (a lone ACK) would get the SYN that follows past the capture; so none that was not captured may pass.
fn guard(rules: &RuleSet) -> Vec<String> {
    let mut lines = vec!["iifname \"lo\" accept".to_owned()];
    for interface in rules.virtual_interfaces.iter().filter(|name| is_interface_name(name)) {
        lines.push(format!("iifname \"{interface}\" accept"));
    }
    lines.extend(probes(rules));
    lines.push(format!("tcp dport {{ {PORT_INBOUND}, {PORT_HBONE} }} accept"));
    lines.push(format!("{SYN} counter drop"));
    lines
}

/// What probes of the pod look like.
fn probes(rules: &RuleSet) -> Vec<String> {
    let ports: Vec<_> = rules.probed.iter().map(u16::to_string).collect();
    let ports = ports.join(", ");
    let from = [format!("ip saddr {PROBE_V4}"), format!("ip6 saddr {PROBE_V6}")];
    let lines = from.into_iter().map(|from| format!("{from} tcp dport {{ {ports} }} accept"));
    lines.filter(|_| !ports.is_empty()).collect()
}

/// The same for what the application sends: what was captured goes to loopback by now.
fn guard_out() -> Vec<String> {
    let mut lines = vec![
        format!("{NOT_SYN} accept"),
        format!("ip daddr {PROBE_V4} accept"),
        format!("ip6 daddr {PROBE_V6} accept"),
        "oifname \"lo\" accept".to_owned(),
    ];
    lines.extend(
        NOT_LOOPBACK.map(|not_loopback| format!("{not_loopback} {SYN} {} counter drop", marked("!="))),
    );
    lines
}

fn inbound(rules: &RuleSet) -> Vec<String> {
    if rules.phase == Phase::Draining {
        return Vec::new();
    }
    let mut lines = Vec::new();
    for interface in rules.virtual_interfaces.iter().filter(|name| is_interface_name(name)) {
        lines.push(format!("iifname \"{interface}\" {FIRST_SYN} redirect to :{PORT_OUTBOUND}"));
        lines.push(format!("iifname \"{interface}\" return"));
    }
    if rules.inbound {
        // Never led back to the proxy, should it be tracked after all.
        lines.push(format!("meta mark & {MARK_MASK:#x} == {RETURN_MARK:#x} meta l4proto tcp accept"));
        lines.extend(probes(rules));
        for not_loopback in NOT_LOOPBACK {
            lines.push(format!(
                "{not_loopback} tcp dport != {PORT_HBONE} {FIRST_SYN} {} redirect to :{PORT_INBOUND}",
                marked("!=")
            ));
        }
    }
    lines
}

const NOT_LOOPBACK: [&str; 2] = ["ip daddr != 127.0.0.1", "ip6 daddr != ::1"];

fn outbound(rules: &RuleSet) -> Vec<String> {
    if rules.phase == Phase::Draining {
        return Vec::new();
    }
    let not_ours = marked("!=");
    let mut lines = vec![
        format!("ip daddr {PROBE_V4} meta l4proto tcp accept"),
        format!("ip6 daddr {PROBE_V6} meta l4proto tcp accept"),
    ];
    if rules.dns {
        // By its zone, in which the answer is looked for: while rules replace others, those of two kinds may both be in force.
        lines.push(format!("ct zone {} udp dport 53 redirect to :{PORT_DNS}", zone::CAPTURED));
        for not_loopback in NOT_LOOPBACK {
            lines.push(format!("{not_loopback} tcp dport 53 {FIRST_SYN} {not_ours} redirect to :{PORT_DNS}"));
        }
    }
    lines.push(format!("meta mark & {MARK_MASK:#x} == {RETURN_MARK:#x} meta l4proto tcp accept"));
    // The application that calls its own pod's address stays inside it.
    lines.extend(NOT_LOOPBACK.map(|not_loopback| format!("{not_loopback} oifname \"lo\" accept")));
    for not_loopback in NOT_LOOPBACK {
        lines.push(format!("{not_loopback} {FIRST_SYN} {not_ours} redirect to :{PORT_OUTBOUND}"));
    }
    lines
}

/// Replies and what the node itself needs pass; ICMP carries path MTU and neighbour discovery.
fn uncarried(interface: &str) -> Vec<String> {
    vec![
        format!("{interface} \"lo\" accept"),
        "meta l4proto { tcp, icmp, icmpv6 } accept".into(),
        "udp dport 53 accept".into(),
        "ct state established,related accept".into(),
        "counter drop".into(),
    ]
}

#[cfg(test)]
mod tests;
