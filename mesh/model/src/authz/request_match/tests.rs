//! What each attribute of a request is compared with, in three values.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{HeaderMatch, RequestMatch, bare_host};
use crate::authz::tests::{exact, only};
use crate::authz::{Facts, Match, PathMatch, Sni, StringMatch, Subject, Truth};
use crate::fixtures::socket;
use crate::identity::Identity;
use crate::request::{Client, Forwarded, MAX_FORWARDED, Request};

use Truth::{No, Unknown, Yes};

/// What a client sends, in text.
#[derive(Clone)]
struct Sent<'a> {
    method: &'static str,
    authority: &'static str,
    path: &'static str,
    headers: &'a [(&'static str, &'a str)],
}

const GET: Sent<'static> = Sent { method: "GET", authority: "shop.example", path: "/a", headers: &[] };

fn source() -> SocketAddr {
    socket("10.0.0.1:40000")
}

/// Whether a rule with only this matches.
fn holds(request: RequestMatch, sent: &Sent<'_>) -> Truth {
    let mut headers = HeaderMap::new();
    for (name, value) in sent.headers {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        headers.append(HeaderName::try_from(*name).unwrap(), value);
    }
    let identity = Identity::new("cluster.local", "a", "x");
    let method = Method::try_from(sent.method).unwrap();
    let request_of = Request {
        method: &method,
        scheme: "http",
        authority: sent.authority,
        path: sent.path,
        query: Some("q"),
        headers: &headers,
        client: Client { address: source(), identity: Some(&identity), labels: None },
        destination: socket("10.0.0.2:8080"),
        forwarded: Forwarded::default(),
    };
    rule(request).matches(&request_of)
}

fn rule(request: RequestMatch) -> crate::authz::Rule {
    only(Match { request: Some(request.into()), ..Match::default() })
}

/// Whether it matches where only the connection is seen.
fn at_layer_4(request: RequestMatch) -> Truth {
    let identity = Identity::new("cluster.local", "a", "x");
    let subject =
        Subject { source: source(), identity: Some(&identity), destination: socket("10.0.0.2:8080") };
    rule(request).matches(&subject)
}

fn prefix(text: &str) -> StringMatch {
    StringMatch::Prefix(text.into())
}

fn suffix(text: &str) -> StringMatch {
    StringMatch::Suffix(text.into())
}

fn opposite(truth: Truth) -> Truth {
    match truth {
        Yes => No,
        Unknown => Unknown,
        No => Yes,
    }
}

#[test]
fn methods_differ_by_case() {
    for (wanted, expected) in [
        (exact("GET"), Yes),
        (exact("get"), No),
        (exact("POST"), No),
        (prefix("GE"), Yes),
        (suffix("ET"), Yes),
        (StringMatch::Presence, Yes),
    ] {
        let with = RequestMatch { methods: vec![wanted.clone()], ..RequestMatch::default() };
        let without = RequestMatch { not_methods: vec![wanted.clone()], ..RequestMatch::default() };
        assert_eq!((holds(with.clone(), &GET), at_layer_4(with)), (expected, Unknown), "{wanted:?}");
        assert_eq!((holds(without.clone(), &GET), at_layer_4(without)), (opposite(expected), Unknown));
    }
}

#[test]
fn paths_are_compared_without_the_query() {
    for (wanted, expected) in
        [("/a", Yes), ("/a?q", No), ("/b", No), ("/{*}", Yes), ("/{**}", Yes), ("*", Yes), ("/*", Yes)]
    {
        let path = PathMatch::parse(wanted).unwrap();
        let with = RequestMatch { paths: vec![path.clone()], ..RequestMatch::default() };
        let without = RequestMatch { not_paths: vec![path], ..RequestMatch::default() };
        assert_eq!((holds(with.clone(), &GET), at_layer_4(with)), (expected, Unknown), "{wanted}");
        assert_eq!((holds(without.clone(), &GET), at_layer_4(without)), (opposite(expected), Unknown));
    }
}

#[test]
fn a_port_that_the_rule_does_not_speak_of_neither_lets_through_nor_past() {
    for (wanted, authority, expected) in [
        (exact("shop.example"), "shop.example", Yes),
        (exact("shop.example"), "shop.example:80", Unknown),
        (exact("shop.example"), "shop.example.", Unknown),
        (exact("shop.example"), "shop.example.:80", Unknown),
        (exact("shop.example"), "other.example:80", No),
        (exact("shop.example:80"), "shop.example:80", Yes),
        (exact("shop.example:80"), "shop.example", No),
        (prefix("shop.example:"), "shop.example:80", Yes),
        (prefix("shop."), "shop.example:80", Yes),
        (suffix(".example"), "shop.example", Yes),
        (suffix(".example"), "shop.example:80", Unknown),
        (exact("[fd00::1]"), "[fd00::1]:80", Unknown),
        (exact("[fd00::1]"), "[fd00::1]", Yes),
        (StringMatch::Presence, "shop.example:80", Yes),
    ] {
        let sent = Sent { authority, ..GET };
        let with = RequestMatch { hosts: vec![wanted.clone()], ..RequestMatch::default() };
        let without = RequestMatch { not_hosts: vec![wanted.clone()], ..RequestMatch::default() };
        assert_eq!(holds(with.clone(), &sent), expected, "{wanted:?} {authority}");
        assert_eq!(holds(without, &sent), opposite(expected), "not {wanted:?} {authority}");
        assert_eq!(at_layer_4(with), Unknown);
    }
    for (authority, host) in
        [("a:80", "a"), ("a:", "a"), ("a:b", "a:b"), ("::1", "::1"), ("[::1]:80", "[::1]"), ("a.:1", "a")]
    {
        assert_eq!(bare_host(authority), host, "{authority}");
    }
}

#[test]
fn each_value_of_a_header_stands_for_itself() {
    let asks = |values: &[StringMatch], not_values: &[StringMatch]| RequestMatch {
        headers: vec![HeaderMatch {
            name: HeaderName::from_static("x-role"),
            values: values.to_vec(),
            not_values: not_values.to_vec(),
        }],
        ..RequestMatch::default()
    };
    let one = &[("X-Role", "admin")][..];
    let two = &[("x-role", "user"), ("x-role", "admin")][..];
    let joined = &[("x-role", "user,admin")][..];
    let empty = &[("x-role", "")][..];
    let other = &[("x-role", "usér")][..];
    for (headers, values, not_values, expected) in [
        (one, vec![exact("admin")], vec![], Yes),
        // Nobody knows which of the two the application takes.
        (two, vec![exact("admin")], vec![], Unknown),
        (two, vec![exact("user"), exact("admin")], vec![], Yes),
        (two, vec![exact("guest")], vec![], No),
        (two, vec![StringMatch::Presence], vec![], Yes),
        (joined, vec![exact("admin")], vec![], No),
        (joined, vec![suffix("admin")], vec![], Yes),
        (&[][..], vec![exact("admin")], vec![], No),
        (&[][..], vec![StringMatch::Presence], vec![], No),
        (empty, vec![StringMatch::Presence], vec![], Yes),
        (one, vec![], vec![exact("admin")], No),
        (two, vec![], vec![exact("admin")], Unknown),
        (two, vec![], vec![exact("user"), exact("admin")], No),
        (two, vec![], vec![exact("guest")], Yes),
        (one, vec![], vec![exact("user")], Yes),
        (&[][..], vec![], vec![exact("admin")], Yes),
        (&[][..], vec![], vec![StringMatch::Presence], Yes),
        (two, vec![exact("user")], vec![exact("admin")], Unknown),
        (other, vec![prefix("us")], vec![], Yes),
        (other, vec![exact("usér")], vec![], Yes),
    ] {
        let sent = Sent { headers, ..GET };
        let asked = asks(&values, &not_values);
        assert_eq!(holds(asked.clone(), &sent), expected, "{headers:?} {values:?} {not_values:?}");
        assert_eq!(at_layer_4(asked), Unknown);
    }
}

#[test]
fn an_original_address_is_known_where_all_who_name_one_agree() {
    for (headers, expected) in [
        (&[][..], Yes),
        (&[("x-forwarded-for", "10.0.0.7")][..], Yes),
        (&[("x-forwarded-for", "10.0.0.7, 10.0.0.8")][..], Yes),
        (&[("x-forwarded-for", "192.0.2.1")][..], Unknown),
        (&[("x-forwarded-for", "10.0.0.7,192.0.2.1")][..], Unknown),
        (&[("x-forwarded-for", "10.0.0.7"), ("x-forwarded-for", "192.0.2.1")][..], Unknown),
        (&[("x-forwarded-for", "unknown")][..], Unknown),
        (&[("x-forwarded-for", "")][..], Unknown),
    ] {
        let sent = Sent { headers, ..GET };
        let ranges = || vec!["10.0.0.0/24".parse().unwrap()];
        let with = RequestMatch { remote_ips: ranges(), ..RequestMatch::default() };
        let without = RequestMatch { not_remote_ips: ranges(), ..RequestMatch::default() };
        assert_eq!(holds(with, &sent), expected, "{headers:?}");
        assert_eq!(holds(without, &sent), opposite(expected), "{headers:?}");
    }
    // The client's own address is in none, and nor is the one it names.
    let outside = |headers| {
        let remote_ips = vec!["198.51.100.0/24".parse().unwrap()];
        holds(RequestMatch { remote_ips, ..RequestMatch::default() }, &Sent { headers, ..GET })
    };
    assert_eq!(outside(&[("x-forwarded-for", "192.0.2.1")]), No);
    assert_eq!(outside(&[("x-forwarded-for", "198.51.100.9")]), Unknown);
}

/// What is too long to be read lets nobody in, and nobody past a rule that refuses.
#[test]
fn of_more_addresses_than_are_read_nothing_is_known() {
    for (count, expected) in [(MAX_FORWARDED, Yes), (MAX_FORWARDED + 1, Unknown), (10_000, Unknown)] {
        let many = vec!["10.0.0.7"; count].join(", ");
        let halves = many.split_at("10.0.0.7, ".len() * 16);
        for headers in [
            &[("x-forwarded-for", many.as_str())][..],
            &[("x-forwarded-for", halves.0.trim_end_matches(", ")), ("x-forwarded-for", halves.1)][..],
        ] {
            let sent = Sent { method: "GET", authority: "shop.example", path: "/a", headers };
            let ranges = || vec!["10.0.0.0/24".parse().unwrap()];
            let with = RequestMatch { remote_ips: ranges(), ..RequestMatch::default() };
            let without = RequestMatch { not_remote_ips: ranges(), ..RequestMatch::default() };
            assert_eq!(holds(with, &sent), expected, "{count}");
            assert_eq!(holds(without, &sent), opposite(expected), "{count}");
        }
    }
}

#[test]
fn what_belongs_to_the_connection_is_seen_at_layer_4_too() {
    let domains = |wanted: &str| RequestMatch {
        trust_domains: vec![exact(wanted), suffix(".org")],
        ..RequestMatch::default()
    };
    for (wanted, expected) in [("cluster.local", Yes), ("cluster", No)] {
        assert_eq!((holds(domains(wanted), &GET), at_layer_4(domains(wanted))), (expected, expected));
    }
    let none = Facts { identity: None, ..Facts::from(&subject()) };
    assert_eq!(rule(domains("cluster.local")).matches(none), No);
    let not = RequestMatch { not_trust_domains: vec![exact("cluster.local")], ..RequestMatch::default() };
    assert_eq!(rule(not).matches(none), Yes);

    let sni = RequestMatch { sni: vec![exact("a.example")], ..RequestMatch::default() };
    assert_eq!((holds(sni.clone(), &GET), at_layer_4(sni.clone())), (No, Unknown));
    for (seen, expected) in [(Sni::Name("a.example"), Yes), (Sni::Name("b.example"), No), (Sni::Absent, No)] {
        assert_eq!(rule(sni.clone()).matches(Facts::from(&subject()).with_sni(seen)), expected, "{seen:?}");
    }
}

fn subject() -> Subject<'static> {
    Subject { source: source(), identity: None, destination: socket("10.0.0.2:8080") }
}

#[test]
fn without_an_endpoint_its_address_is_unknown() {
    let nowhere = Facts::from(&subject()).to(None);
    let port = |port| Match { destination_ports: vec![port], ..Match::default() };
    let range = || Match { not_destination_ips: vec!["10.9.0.0/16".parse().unwrap()], ..Match::default() };
    for one in [port(8080), port(1), range()] {
        assert_eq!(only(one.clone()).matches(nowhere), Unknown, "{one:?}");
        assert_ne!(only(one).matches(&subject()), Unknown);
    }
}

#[test]
fn what_cannot_be_told_is_named() {
    let all = RequestMatch {
        methods: vec![exact("GET")],
        paths: vec![PathMatch::parse("/a").unwrap()],
        hosts: vec![exact("a")],
        headers: vec![HeaderMatch {
            name: HeaderName::from_static("x-role"),
            values: vec![exact("a")],
            not_values: vec![],
        }],
        not_remote_ips: vec!["10.0.0.0/24".parse().unwrap()],
        sni: vec![exact("a")],
        ..RequestMatch::default()
    };
    let named = rule(all).unknown(&Facts::from(&subject()).to(None));
    let expected = [
        "to.operation.methods",
        "to.operation.paths",
        "to.operation.hosts",
        "connection.sni",
        "when[request.headers[x-role]]",
    ];
    assert_eq!(named.iter().map(|name| &**name).collect::<Vec<_>>(), expected);
    assert!(RequestMatch::default().is_empty());
    assert_eq!(at_layer_4(RequestMatch::default()), No, "a match that restricts nothing never holds");
}

/// What an agent is told of a rule: that there is more to it than it can see. Were it not told, it would let through more.
#[test]
fn what_is_asked_of_a_request_is_what_layer_4_does_not_see() {
    let text = || vec![exact("a")];
    let paths = || vec![PathMatch::parse("/a").unwrap()];
    let ranges = || vec!["10.0.0.0/24".parse().unwrap()];
    let header = HeaderMatch { name: HeaderName::from_static("x-role"), values: text(), not_values: vec![] };
    let empty = RequestMatch::default;
    for (asked, expected) in [
        (RequestMatch { methods: text(), ..empty() }, "to.operation.methods"),
        (RequestMatch { not_methods: text(), ..empty() }, "to.operation.methods"),
        (RequestMatch { paths: paths(), ..empty() }, "to.operation.paths"),
        (RequestMatch { not_paths: paths(), ..empty() }, "to.operation.paths"),
        (RequestMatch { hosts: text(), ..empty() }, "to.operation.hosts"),
        (RequestMatch { not_hosts: text(), ..empty() }, "to.operation.hosts"),
        (RequestMatch { trust_domains: text(), ..empty() }, "source.trustDomain"),
        (RequestMatch { not_trust_domains: text(), ..empty() }, "source.trustDomain"),
        (RequestMatch { remote_ips: ranges(), ..empty() }, "remote.ip"),
        (RequestMatch { not_remote_ips: ranges(), ..empty() }, "remote.ip"),
        (RequestMatch { sni: text(), ..empty() }, "connection.sni"),
        (RequestMatch { not_sni: text(), ..empty() }, "connection.sni"),
        (RequestMatch { headers: vec![header], ..empty() }, "when[request.headers[x-role]]"),
    ] {
        let whole =
            Match { request: Some(asked.clone().into()), unseen: vec!["before".into()], ..Match::default() };
        let left = whole.at_layer_4();
        assert_eq!(
            (&*left.unseen[0], &*left.unseen[1], left.unseen.len()),
            ("before", expected, 2),
            "{asked:?}"
        );
        assert_eq!((left.request.is_none(), only(left.into_owned()).matches(&subject())), (true, Unknown));
    }
    let seen = Match { destination_ports: vec![8080], ..Match::default() };
    assert!(seen.at_layer_4().unseen.is_empty());
}
