//! Where connections go that are not HTTP.

use super::{Connection, SniMatch, TcpMatch, TcpRule, TlsMatch, TlsRule, select_stream};
use crate::fixtures::socket;
use crate::identity::Identity;
use crate::request::Client;
use crate::route::action::Destinations;
use crate::route::fixtures::{no_draw, reviews, routing, source, split};
use crate::route::{Routing, RuleList, RuleSource, Scope};

fn tcp(index: u32, matches: impl Into<Box<[TcpMatch]>>, subset: &str) -> TcpRule {
    TcpRule {
        source: RuleSource { list: RuleList::Tcp, ..source(index) },
        matches: matches.into(),
        destinations: Destinations::One(reviews(subset)),
        missing: Box::default(),
    }
}

fn tls(index: u32, matches: impl Into<Box<[TlsMatch]>>, subset: &str) -> TlsRule {
    TlsRule {
        source: RuleSource { list: RuleList::Tls, ..source(index) },
        matches: matches.into(),
        destinations: Destinations::One(reviews(subset)),
        missing: Box::default(),
    }
}

fn subnets(ranges: &[&str]) -> TcpMatch {
    TcpMatch {
        destination_subnets: ranges.iter().map(|range| range.parse().unwrap()).collect(),
        ..TcpMatch::default()
    }
}

fn on_port(port: u16) -> TcpMatch {
    TcpMatch { scope: Scope { port: Some(port), ..Scope::default() }, ..TcpMatch::default() }
}

fn sni(hosts: &[&str]) -> TlsMatch {
    TlsMatch { sni_hosts: hosts.iter().map(|host| SniMatch::new(host)).collect(), ..TlsMatch::default() }
}

/// Where a connection to an address goes, with a server's name or none: cause, and subset or what is missing.
fn chosen(routing: &Routing, to: &str, server_name: Option<&str>) -> (String, String) {
    let identity = Identity::new("cluster.local", "shop", "client");
    let client = Client { address: socket("10.244.1.7:40000"), identity: Some(&identity), labels: None };
    let connection = Connection { client, destination: socket(to), server_name };
    let decision = select_stream(routing, &connection, &mut no_draw);
    let destination = match decision.destination {
        Ok(destination) => destination.subset.as_deref().unwrap_or("all").to_owned(),
        Err(missing) => format!("missing {}", missing.join(", ")),
    };
    (decision.cause.to_string(), destination)
}

fn of_tcp(tcp: impl Into<Box<[TcpRule]>>) -> Routing {
    Routing { tcp: tcp.into(), ..routing([]) }
}

#[test]
fn tcp_rules() {
    let shop = Scope { source_namespace: Some("shop".into()), ..Scope::default() };
    let labels = Scope { source_labels: [("a".into(), "b".into())].into(), ..Scope::default() };
    let rules = of_tcp([
        tcp(0, [TcpMatch { scope: labels, ..TcpMatch::default() }], "never"),
        tcp(1, [subnets(&["10.1.0.0/16", "fd00:1::/32"]), on_port(81)], "v1"),
        tcp(2, [TcpMatch { scope: shop, ..subnets(&["10.2.0.0/16"]) }], "v2"),
        tcp(3, [on_port(82)], "v3"),
    ]);
    let table = [
        ("10.1.2.3:80", "VirtualService default/reviews tcp[1]", "v1"),
        ("[fd00:1::7]:80", "VirtualService default/reviews tcp[1]", "v1"),
        ("[::ffff:10.1.2.3]:80", "VirtualService default/reviews tcp[1]", "v1"),
        ("10.9.0.1:81", "VirtualService default/reviews tcp[1]", "v1"),
        ("10.2.0.1:82", "VirtualService default/reviews tcp[2]", "v2"),
        ("10.3.0.1:82", "VirtualService default/reviews tcp[3]", "v3"),
        ("10.3.0.1:80", "default routing of default/reviews", "all"),
    ];
    for (to, cause, destination) in table {
        assert_eq!(chosen(&rules, to, None), (cause.into(), destination.into()), "{to}");
    }
    // Without conditions a rule takes everything.
    let all = of_tcp([tcp(0, [], "v1"), tcp(1, [], "never")]);
    assert_eq!(chosen(&all, "10.3.0.1:80", Some("x")).1, "v1");
}

#[test]
fn tls_rules() {
    let port = TlsMatch { tcp: on_port(443), ..sni(&["b.example"]) };
    let rules = Routing {
        tls: [
            tls(0, [sni(&["a.example", "*.wild.example"])], "v1"),
            tls(1, [port, sni(&["c.example"])], "v2"),
            tls(2, [sni(&["*"])], "rest"),
            tls(3, [], "never"),
        ]
        .into(),
        ..of_tcp([tcp(0, [], "tcp")])
    };
    let table = [
        ("10.0.0.1:443", Some("a.example"), "VirtualService default/reviews tls[0]", "v1"),
        ("10.0.0.1:443", Some("A.Example"), "VirtualService default/reviews tls[0]", "v1"),
        ("10.0.0.1:443", Some("x.wild.example"), "VirtualService default/reviews tls[0]", "v1"),
        ("10.0.0.1:443", Some("x.y.wild.example"), "VirtualService default/reviews tls[0]", "v1"),
        ("10.0.0.1:443", Some("wild.example"), "VirtualService default/reviews tls[2]", "rest"),
        ("10.0.0.1:443", Some(".wild.example"), "VirtualService default/reviews tls[2]", "rest"),
        ("10.0.0.1:443", Some("b.example"), "VirtualService default/reviews tls[1]", "v2"),
        ("10.0.0.1:444", Some("b.example"), "VirtualService default/reviews tls[2]", "rest"),
        ("10.0.0.1:444", Some("c.example"), "VirtualService default/reviews tls[1]", "v2"),
        // No TLS, or no name: the TCP rules.
        ("10.0.0.1:443", None, "VirtualService default/reviews tcp[0]", "tcp"),
    ];
    for (to, name, cause, destination) in table {
        assert_eq!(chosen(&rules, to, name), (cause.into(), destination.into()), "{to} {name:?}");
    }
    // Where no TLS rule matches, the TCP rules, then the service.
    let few = Routing { tls: [tls(0, [sni(&["a.example"])], "v1")].into(), ..routing([]) };
    assert_eq!(chosen(&few, "10.0.0.1:443", Some("b.example")).1, "all");
    assert_eq!(SniMatch::new("A.Example").as_str().as_ref(), "a.example");
}

#[test]
fn destinations_are_drawn_or_missing() {
    let with = |destinations: Destinations, missing: &str| {
        let mut rule = tcp(0, [], "v1");
        rule.destinations = destinations;
        rule.missing = [missing.into()].into();
        of_tcp([rule])
    };
    let none = with(split(&[]), "subset v3 of default/reviews");
    let found = chosen(&none, "10.0.0.1:80", None);
    assert_eq!(
        found,
        ("VirtualService default/reviews tcp[0]".into(), "missing subset v3 of default/reviews".into())
    );
    let client = Client { address: socket("10.244.1.7:40000"), identity: None, labels: None };
    let connection = Connection { client, destination: socket("10.0.0.1:80"), server_name: None };
    let canary = with(split(&[(90, "v1"), (10, "v2")]), "");
    let subset = |drawn: u32| {
        let decision = select_stream(&canary, &connection, &mut |_| drawn);
        decision.destination.unwrap().subset.clone().unwrap()
    };
    assert_eq!((&*subset(89), &*subset(90)), ("v1", "v2"));
    let nothing = Routing { default: None, ..routing([]) };
    let found = chosen(&nothing, "10.0.0.1:80", None);
    assert_eq!(found, ("no rule for default/reviews matched".into(), "missing ".into()));
}
