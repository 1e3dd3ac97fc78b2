//! How a node turns service addresses into endpoints for pods that are not captured: one nftables table, replaced in
//! one transaction whenever services or endpoints change. What kube-proxy does in a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::addresses::{self, service_networks};
use super::manifests::ObjectName;

/// One port of a service address and where its connections go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Forward {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) udp: bool,
    /// Ready endpoints; none: refused.
    pub(crate) targets: Vec<SocketAddr>,
    /// A client stays with its endpoint (`sessionAffinity: ClientIP`).
    pub(crate) sticky: bool,
}

/// All ports of all services that have an address.
pub(crate) fn forwards(
    services: &BTreeMap<ObjectName, Service>,
    slices: &BTreeMap<ObjectName, Vec<EndpointSlice>>,
) -> Vec<Forward> {
    let mut all = Vec::new();
    for (name, service) in services {
        let Some(spec) = &service.spec else { continue };
        let addresses = spec.cluster_ips.as_deref().unwrap_or_default();
        let slices = slices.get(name).map(Vec::as_slice).unwrap_or_default();
        for address in addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok()) {
            for port in spec.ports.as_deref().unwrap_or_default() {
                let Ok(number) = u16::try_from(port.port) else { continue };
                all.push(Forward {
                    address,
                    port: number,
                    udp: port.protocol.as_deref() == Some("UDP"),
                    targets: targets(slices, port.name.as_deref().unwrap_or_default(), address.is_ipv6()),
                    sticky: spec.session_affinity.as_deref() == Some("ClientIP"),
                });
            }
        }
    }
    all
}

fn targets(slices: &[EndpointSlice], port_name: &str, v6: bool) -> Vec<SocketAddr> {
    let mut targets = Vec::new();
    for slice in slices {
        let ports = slice.ports.as_deref().unwrap_or_default();
        let Some(port) = ports.iter().find(|port| port.name.as_deref().unwrap_or_default() == port_name)
        else {
            continue;
        };
        let Some(port) = port.port.and_then(|port| u16::try_from(port).ok()) else { continue };
        for endpoint in slice.endpoints.iter() {
            if endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(false) {
                continue;
            }
            let addresses = endpoint.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok());
            targets.extend(addresses.filter(|ip| ip.is_ipv6() == v6).map(|ip| SocketAddr::new(ip, port)));
        }
    }
    targets
}

/// The table of a node, as text for `nft -f`.
pub(crate) fn render(forwards: &[Forward]) -> String {
    // Deleting needs the table to exist: both first lines together always succeed.
    let mut text = String::from("table inet lateen\ndelete table inet lateen\ntable inet lateen {\n");
    let mut verdicts: BTreeMap<bool, Vec<String>> = BTreeMap::new();
    let mut looping: BTreeMap<bool, BTreeSet<IpAddr>> = BTreeMap::new();
    for (index, forward) in forwards.iter().filter(|forward| !forward.targets.is_empty()).enumerate() {
        let v6 = forward.address.is_ipv6();
        let protocol = if forward.udp { "udp" } else { "tcp" };
        render_choice(&mut text, index, forward, protocol);
        let entry = format!("{} . {protocol} . {} : goto service-{index}", forward.address, forward.port);
        verdicts.entry(v6).or_default().push(entry);
        looping.entry(v6).or_default().extend(forward.targets.iter().map(SocketAddr::ip));
    }
    text.push_str("  chain services {\n");
    for (v6, entries) in &verdicts {
        let family = family(*v6);
        let _ =
            writeln!(text, "    {family} daddr . meta l4proto . th dport vmap {{ {} }}", entries.join(", "));
    }
    text.push_str("  }\n");
    render_hooks(&mut text, &looping);
    text.push_str("}\n");
    text
}

fn family(v6: bool) -> &'static str {
    if v6 { "ip6" } else { "ip" }
}

fn render_choice(text: &mut String, index: usize, forward: &Forward, protocol: &str) {
    let family = family(forward.address.is_ipv6());
    let count = forward.targets.len();
    let choose = match forward.sticky {
        true => format!("jhash {family} saddr mod {count}"),
        false => format!("numgen random mod {count}"),
    };
    let targets =
        forward.targets.iter().enumerate().map(|(i, to)| format!("{i} : {} . {}", to.ip(), to.port()));
    let targets = targets.collect::<Vec<_>>().join(", ");
    let _ = writeln!(
        text,
        "  chain service-{index} {{\n    meta l4proto {protocol} dnat {family} to {choose} map {{ {targets} }}\n  }}"
    );
}

fn render_hooks(text: &mut String, looping: &BTreeMap<bool, BTreeSet<IpAddr>>) {
    for hook in ["prerouting", "output"] {
        let _ = writeln!(
            text,
            "  chain {hook} {{\n    type nat hook {hook} priority -100\n    jump services\n  }}\n  \
             chain refuse-{hook} {{\n    type filter hook {hook} priority -90\n    jump refuse\n  }}"
        );
    }
    // A pod that reaches itself through its service must not see its own address as the source.
    text.push_str("  chain postrouting {\n    type nat hook postrouting priority 100\n");
    for (v6, addresses) in looping {
        let family = family(*v6);
        let pairs = addresses.iter().map(|ip| format!("{ip} . {ip}")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "    {family} saddr . {family} daddr {{ {pairs} }} masquerade");
    }
    // What no service took is refused, not left to time out.
    text.push_str("  }\n  chain refuse {\n");
    let dns = [IpAddr::V4(addresses::DNS_V4), IpAddr::V6(addresses::DNS_V6)];
    for (network, dns) in service_networks().iter().zip(dns) {
        let family = family(dns.is_ipv6());
        let _ = writeln!(text, "    {family} daddr {dns} return");
        let _ = writeln!(text, "    {family} daddr {network} meta l4proto tcp reject with tcp reset");
        let _ = writeln!(text, "    {family} daddr {network} reject");
    }
    text.push_str("  }\n");
}

/// Hands rules to `nft`, in the namespace of this thread.
pub(crate) fn apply(rules: &str, path: &str) -> Result<(), String> {
    let program = super::preflight::find_program("nft", path)
        .ok_or("nft has gone; get it with: apt-get install nftables")?;
    let run = || -> std::io::Result<std::process::Output> {
        let mut child = Command::new(program)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(rules.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = run().map_err(|error| format!("nft: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("nft refused the node's rules: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use super::{Forward, render};

    fn forward(address: &str, targets: &[&str], udp: bool, sticky: bool) -> Forward {
        Forward {
            address: address.parse().expect("address"),
            port: 80,
            udp,
            targets: targets.iter().map(|t| t.parse().expect("target")).collect(),
            sticky,
        }
    }

    #[test]
    fn each_port_has_its_choice_of_endpoints() {
        let text = render(&[
            forward("10.96.1.1", &["10.244.1.2:8080", "10.244.2.2:8080"], false, false),
            forward("10.96.1.1", &["10.244.1.2:53"], true, true),
            forward("fd00:10:96::1", &["[fd00::2]:8080"], false, false),
            forward("10.96.9.9", &[], false, false),
        ]);
        for line in [
            "meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.244.1.2 . 8080, 1 : 10.244.2.2 . 8080 }",
            "meta l4proto udp dnat ip to jhash ip saddr mod 1 map { 0 : 10.244.1.2 . 53 }",
            "meta l4proto tcp dnat ip6 to numgen random mod 1 map { 0 : fd00::2 . 8080 }",
            "ip daddr . meta l4proto . th dport vmap { 10.96.1.1 . tcp . 80 : goto service-0, 10.96.1.1 . udp . 80 : goto service-1 }",
            "ip saddr . ip daddr { 10.244.1.2 . 10.244.1.2, 10.244.2.2 . 10.244.2.2 } masquerade",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("10.96.9.9"), "no endpoint: left to be refused");
    }
}
