//! The text of the rules, word by word, and what each choice changes in it.

use super::{Phase, RuleSet, WayBack, is_interface_name, render};

const COMPLETE: &str = r#"add table inet lateen
delete table inet lateen
table inet lateen {
	comment "redirection rules, version 5"

	chain dns_zone_in {
		type filter hook prerouting priority -300; policy accept;
		udp sport 53 meta mark & 0xfff != 0x539 ct zone set 1
	}

	chain dns_zone_out {
		type filter hook output priority -300; policy accept;
		udp dport 53 meta mark & 0xfff == 0x539 ct zone set 1
		oifname != "lo" udp dport 53 meta mark & 0xfff != 0x539 ct zone set 2
		udp sport 15053 ct zone set 2
	}

	chain remember {
		type filter hook prerouting priority -150; policy accept;
		meta mark & 0xfff == 0x539 ct mark set ct mark & 0xfffff000 | 0x111
	}

	chain return_path {
		type route hook output priority -150; policy accept;
		ct mark & 0xfff == 0x111 meta mark set ct mark
	}

	chain inbound {
		type nat hook prerouting priority -100; policy accept;
		meta mark & 0xfff == 0x111 meta l4proto tcp accept
		ip saddr 169.254.7.127 tcp dport { 8080, 9000 } accept
		ip6 saddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff tcp dport { 8080, 9000 } accept
		ip daddr != 127.0.0.1 tcp dport != 15008 tcp flags & (fin | syn | rst | ack) == syn ct state new meta mark & 0xfff != 0x539 redirect to :15006
		ip6 daddr != ::1 tcp dport != 15008 tcp flags & (fin | syn | rst | ack) == syn ct state new meta mark & 0xfff != 0x539 redirect to :15006
	}

	chain outbound {
		type nat hook output priority -100; policy accept;
		ip daddr 169.254.7.127 meta l4proto tcp accept
		ip6 daddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff meta l4proto tcp accept
		ct zone 2 udp dport 53 redirect to :15053
		ip daddr != 127.0.0.1 tcp dport 53 tcp flags & (fin | syn | rst | ack) == syn ct state new meta mark & 0xfff != 0x539 redirect to :15053
		ip6 daddr != ::1 tcp dport 53 tcp flags & (fin | syn | rst | ack) == syn ct state new meta mark & 0xfff != 0x539 redirect to :15053
		meta mark & 0xfff == 0x111 meta l4proto tcp accept
		ip daddr != 127.0.0.1 oifname "lo" accept
		ip6 daddr != ::1 oifname "lo" accept
		ip daddr != 127.0.0.1 tcp flags & (fin | syn | rst | ack) == syn ct state new meta mark & 0xfff != 0x539 redirect to :15001
		ip6 daddr != ::1 tcp flags & (fin | syn | rst | ack) == syn ct state new meta mark & 0xfff != 0x539 redirect to :15001
	}

	chain guard_in {
		type filter hook input priority 0; policy accept;
		tcp flags & (fin | syn | rst | ack) != syn accept
		meta mark & 0xfff == 0x539 meta mark set meta mark & 0xfffff000
		iifname "lo" accept
		ip saddr 169.254.7.127 tcp dport { 8080, 9000 } accept
		ip6 saddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff tcp dport { 8080, 9000 } accept
		tcp dport { 15006, 15008 } accept
		tcp flags & (fin | syn | rst | ack) == syn counter drop
	}

	chain guard_through {
		type filter hook forward priority 0; policy accept;
		tcp flags & (fin | syn | rst | ack) != syn accept
		iifname "lo" accept
		ip saddr 169.254.7.127 tcp dport { 8080, 9000 } accept
		ip6 saddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff tcp dport { 8080, 9000 } accept
		tcp dport { 15006, 15008 } accept
		tcp flags & (fin | syn | rst | ack) == syn counter drop
	}

	chain guard_out {
		type filter hook output priority 0; policy accept;
		tcp flags & (fin | syn | rst | ack) != syn accept
		ip daddr 169.254.7.127 accept
		ip6 daddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff accept
		oifname "lo" accept
		ip daddr != 127.0.0.1 tcp flags & (fin | syn | rst | ack) == syn meta mark & 0xfff != 0x539 counter drop
		ip6 daddr != ::1 tcp flags & (fin | syn | rst | ack) == syn meta mark & 0xfff != 0x539 counter drop
	}
}
"#;

/// Those of a pod that has probes.
fn usual() -> RuleSet {
    RuleSet { probed: [9000, 8080].into(), ..RuleSet::default() }
}

#[test]
fn probes_pass_to_probed_ports_only() {
    for (probed, lines) in [(vec![], 0), (vec![8080], 6)] {
        let rules = RuleSet { probed: probed.into_iter().collect(), ..RuleSet::default() };
        let text = render(&rules, WayBack::Marked);
        let accepted = text.lines().filter(|line| line.contains("saddr"));
        assert!(accepted.clone().all(|line| line.contains("tcp dport { 8080 } accept")), "{text}");
        assert_eq!(accepted.count(), lines, "{text}");
    }
}

#[test]
fn the_complete_rules() {
    assert_eq!(render(&usual(), WayBack::Tracked), COMPLETE);
}

#[test]
fn what_our_own_proxy_opens_to_the_application_is_not_tracked() {
    let text = render(&usual(), WayBack::Marked);
    for name in ["untracked_in", "untracked_out"] {
        assert_eq!(chain(&text, name), ["meta mark & 0xfff == 0x111 meta l4proto tcp notrack"]);
    }
    // Side by side the two ways lose resets: what is remembered would be marked as what is not tracked.
    assert!(!text.contains("ct mark"), "{text}");
    assert!(!COMPLETE.contains("notrack"));
    for name in ["inbound", "outbound", "guard_in", "guard_through", "guard_out"] {
        assert_eq!(chain(&text, name), chain(COMPLETE, name));
    }
    let draining = render(&RuleSet { phase: Phase::Draining, ..usual() }, WayBack::Marked);
    assert_eq!(chain(&draining, "untracked_out"), chain(&text, "untracked_out"));
    assert_eq!(chain(&draining, "guard_in"), chain(&text, "guard_in")[..2]);
}

/// The lines of one chain.
fn chain(text: &str, name: &str) -> Vec<String> {
    let start = format!("\tchain {name} {{");
    let body = text.lines().skip_while(|line| **line != start).skip(2);
    body.take_while(|line| *line != "\t}").map(|line| line.trim().to_owned()).collect()
}

#[test]
fn draining_captures_nothing_but_keeps_translation_and_return_path() {
    let text = render(&RuleSet { phase: Phase::Draining, ..usual() }, WayBack::Tracked);
    assert_eq!(chain(&text, "inbound"), [""; 0]);
    assert_eq!(chain(&text, "outbound"), [""; 0]);
    assert!(text.contains("type nat hook prerouting") && text.contains("type nat hook output"));
    assert!(!text.contains("drop"), "{text}");
    assert_eq!(chain(&text, "remember"), chain(COMPLETE, "remember"));
    assert_eq!(chain(&text, "return_path"), chain(COMPLETE, "return_path"));
    assert_eq!(chain(&text, "dns_zone_in"), chain(COMPLETE, "dns_zone_in"));
    // What is asked from now on has nothing to do with captured queries, whose answers still find back.
    let zones = chain(COMPLETE, "dns_zone_out").join("\n");
    let leaving = zones.replace("!= 0x539 ct zone set 2", "!= 0x539 ct zone set 3");
    assert_ne!(zones, leaving);
    assert_eq!(chain(&text, "dns_zone_out").join("\n"), leaving);
}

#[test]
fn without_dns_no_rule_names_port_53() {
    let text = render(&RuleSet { dns: false, ..usual() }, WayBack::Tracked);
    assert!(!text.contains("53 ") && !text.contains(":15053"), "{text}");
}

#[test]
fn a_pod_that_sees_its_clients_itself_is_captured_outbound_only() {
    let text = render(&RuleSet { inbound: false, ..usual() }, WayBack::Tracked);
    assert_eq!(chain(&text, "inbound"), [""; 0]);
    assert_eq!(chain(&text, "outbound"), chain(COMPLETE, "outbound"));
    assert!(!text.contains("guard_through"), "{text}");
    assert_eq!(chain(&text, "guard_in"), chain(COMPLETE, "guard_in")[..2]);
}

#[test]
fn what_comes_from_a_virtual_interface_counts_as_outbound() {
    let interfaces = vec!["k6t-eth0".to_owned(), "x\" accept; #".to_owned()];
    let text = render(&RuleSet { virtual_interfaces: interfaces, ..usual() }, WayBack::Tracked);
    let lines = chain(&text, "inbound");
    assert!(
        lines[0].starts_with("iifname \"k6t-eth0\" tcp flags") && lines[0].ends_with("redirect to :15001")
    );
    assert_eq!(lines[1], "iifname \"k6t-eth0\" return");
    assert_eq!(lines[2..], chain(COMPLETE, "inbound"), "the other name cannot be an interface");
    assert_eq!(chain(&text, "guard_in")[3], "iifname \"k6t-eth0\" accept");
}

#[test]
fn dropping_what_is_not_carried_is_a_choice() {
    assert!(!COMPLETE.contains("uncarried"));
    let rules = RuleSet { drop_uncarried: true, ..usual() };
    let text = render(&rules, WayBack::Tracked);
    assert_eq!(chain(&text, "uncarried_out").last().map(String::as_str), Some("counter drop"));
    assert_eq!(chain(&text, "uncarried_in").last().map(String::as_str), Some("counter drop"));
    let leaving = render(&RuleSet { phase: Phase::Draining, ..rules }, WayBack::Tracked);
    assert!(!leaving.contains("drop"));
}

#[test]
fn names_of_interfaces() {
    for good in ["eth0", "k6t-eth0", "br_lan.5", "veth@a"] {
        assert!(is_interface_name(good), "{good}");
    }
    for bad in ["", "a b", "0123456789abcdef", "x\"", "ä", "a/b", "a;b"] {
        assert!(!is_interface_name(bad), "{bad}");
    }
}
