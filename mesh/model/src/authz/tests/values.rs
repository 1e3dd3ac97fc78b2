//! What each field of a match is compared with, and how matches, clauses and rules add up.

use super::{account, exact, from_namespace, identity, only, rule, subject, unseen};
use crate::authz::{Match, Rule, StringMatch, Subject, Truth};
use crate::fixtures::socket;
use crate::identity::Identity;

use Truth::{No, Unknown, Yes};

fn prefix(text: &str) -> StringMatch {
    StringMatch::Prefix(text.into())
}

fn suffix(text: &str) -> StringMatch {
    StringMatch::Suffix(text.into())
}

fn principals(wanted: StringMatch) -> Match {
    Match { principals: vec![wanted], ..Match::default() }
}

#[test]
fn principals_are_compared_as_one_string() {
    let client = identity("default", "reviews");
    let whole = "cluster.local/ns/default/sa/reviews";
    let table = [
        (exact(whole), true),
        (exact("spiffe://cluster.local/ns/default/sa/reviews"), false),
        (exact("cluster.local/ns/default/sa/review"), false),
        (exact("cluster.local/ns/default/sa/reviewss"), false),
        (exact("luster.local/ns/default/sa/reviews"), false),
        (exact(""), false),
        (prefix(""), true),
        (prefix("cluster"), true),
        (prefix("cluster.local"), true),
        (prefix("cluster.local/"), true),
        (prefix("cluster.local/ns/def"), true),
        (prefix("cluster.local/ns/default/sa/rev"), true),
        (prefix(whole), true),
        (prefix("cluster.local/ns/default/sa/reviewss"), false),
        (prefix("cluster.local/ns/other"), false),
        (prefix("cluster.localx"), false),
        (suffix(""), true),
        (suffix("views"), true),
        (suffix("reviews"), true),
        (suffix("/reviews"), true),
        (suffix("sa/reviews"), true),
        (suffix("ault/sa/reviews"), true),
        (suffix("/ns/default/sa/reviews"), true),
        (suffix(whole), true),
        (suffix("xcluster.local/ns/default/sa/reviews"), false),
        (suffix("default"), false),
        (StringMatch::Presence, true),
    ];
    for (wanted, matches) in table {
        let one = only(principals(wanted.clone()));
        assert_eq!(one.matches(&subject(Some(&client))), Truth::from(matches), "{wanted:?}");
        // A client without an identity is nobody's principal.
        assert_eq!(one.matches(&subject(None)), No, "{wanted:?} without an identity");
    }
}

#[test]
fn strings_are_compared_by_their_kind() {
    let table = [
        (exact("ab"), "ab", true),
        (exact("ab"), "abc", false),
        (exact("AB"), "ab", false),
        (prefix("ab"), "abc", true),
        (prefix("ab"), "cab", false),
        (suffix("ab"), "cab", true),
        (suffix("ab"), "abc", false),
        (StringMatch::Presence, "a", true),
        (StringMatch::Presence, "", false),
    ];
    for (wanted, value, matches) in table {
        assert_eq!(wanted.matches(value), matches, "{wanted:?} and {value:?}");
    }
}

/// A match that the connection holds by one field, one that it does not hold, and the field.
fn of_each_field() -> Vec<(&'static str, Match, Match)> {
    let empty = Match::default;
    let nets = |text: &str| vec![text.parse().unwrap()];
    vec![
        ("namespaces", from_namespace("a"), from_namespace("b")),
        (
            "principals",
            principals(exact("cluster.local/ns/a/sa/x")),
            principals(exact("cluster.local/ns/a/sa/y")),
        ),
        (
            "service_accounts",
            Match { service_accounts: vec![account("a", "x")], ..empty() },
            Match { service_accounts: vec![account("a", "y"), account("b", "x")], ..empty() },
        ),
        (
            "source_ips",
            Match { source_ips: nets("10.0.0.0/24"), ..empty() },
            Match { source_ips: nets("10.0.1.0/24"), ..empty() },
        ),
        (
            "destination_ips",
            Match { destination_ips: nets("10.0.0.2/32"), ..empty() },
            Match { destination_ips: nets("10.0.0.1/32"), ..empty() },
        ),
        (
            "destination_ports",
            Match { destination_ports: vec![8080], ..empty() },
            Match { destination_ports: vec![15008, 40000], ..empty() },
        ),
    ]
}

/// The same restriction, turned round.
fn inverse(one: &Match) -> Match {
    let Match { namespaces, principals, service_accounts, source_ips, .. } = one.clone();
    let Match { destination_ips, destination_ports, .. } = one.clone();
    Match {
        not_namespaces: namespaces,
        not_principals: principals,
        not_service_accounts: service_accounts,
        not_source_ips: source_ips,
        not_destination_ips: destination_ips,
        not_destination_ports: destination_ports,
        ..Match::default()
    }
}

#[test]
fn each_field_is_compared_with_what_it_names() {
    let client = identity("a", "x");
    let subject = subject(Some(&client));
    for (field, holds, fails) in of_each_field() {
        assert_eq!(only(holds.clone()).matches(&subject), Yes, "{field}");
        assert_eq!(only(fails.clone()).matches(&subject), No, "{field}");
        assert_eq!(only(inverse(&holds)).matches(&subject), No, "not_{field}");
        assert_eq!(only(inverse(&fails)).matches(&subject), Yes, "not_{field}");
        // One of both kinds must hold.
        let both = Match { unseen: Vec::new(), ..merge(&holds, &inverse(&holds)) };
        assert_eq!(only(both).matches(&subject), No, "{field} and not_{field}");
    }
}

/// The restrictions of two matches in one.
fn merge(a: &Match, b: &Match) -> Match {
    fn join<T: Clone>(a: &[T], b: &[T]) -> Vec<T> {
        [a, b].concat()
    }
    Match {
        namespaces: join(&a.namespaces, &b.namespaces),
        not_namespaces: join(&a.not_namespaces, &b.not_namespaces),
        principals: join(&a.principals, &b.principals),
        not_principals: join(&a.not_principals, &b.not_principals),
        service_accounts: join(&a.service_accounts, &b.service_accounts),
        not_service_accounts: join(&a.not_service_accounts, &b.not_service_accounts),
        source_ips: join(&a.source_ips, &b.source_ips),
        not_source_ips: join(&a.not_source_ips, &b.not_source_ips),
        destination_ips: join(&a.destination_ips, &b.destination_ips),
        not_destination_ips: join(&a.not_destination_ips, &b.not_destination_ips),
        destination_ports: join(&a.destination_ports, &b.destination_ports),
        not_destination_ports: join(&a.not_destination_ports, &b.not_destination_ports),
        unseen: join(&a.unseen, &b.unseen),
        request: None,
    }
}

#[test]
fn fields_are_anded_and_values_ored() {
    let client = identity("a", "x");
    let subject = subject(Some(&client));
    let fields = of_each_field();
    for (one, holds, fails) in &fields {
        // One value of several is enough.
        assert_eq!(only(merge(fails, holds)).matches(&subject), Yes, "{one}");
        assert_eq!(only(merge(&inverse(fails), &inverse(holds))).matches(&subject), No, "not_{one}");
        for (other, also_holds, also_fails) in fields.iter().filter(|(name, ..)| name != one) {
            assert_eq!(only(merge(holds, also_holds)).matches(&subject), Yes, "{one} and {other}");
            assert_eq!(only(merge(holds, also_fails)).matches(&subject), No, "{one} and {other}");
        }
    }
}

#[test]
fn without_an_identity_only_negations_hold() {
    let nobody = subject(None);
    for (field, holds, _) in of_each_field().into_iter().take(3) {
        assert_eq!(only(holds.clone()).matches(&nobody), No, "{field}");
        assert_eq!(only(inverse(&holds)).matches(&nobody), Yes, "not_{field}");
    }
    // How STRICT is expressed: whoever has no identity.
    let strict = Match { not_principals: vec![StringMatch::Presence], ..Match::default() };
    assert_eq!(only(strict.clone()).matches(&nobody), Yes);
    assert_eq!(only(strict).matches(&subject(Some(&identity("a", "x")))), No);
}

#[test]
fn accounts_are_compared_whatever_the_trust_domain() {
    let foreign = Identity::new("other.example", "a", "x");
    let one = Match { service_accounts: vec![account("a", "x")], ..Match::default() };
    assert_eq!(only(one).matches(&subject(Some(&foreign))), Yes);
    assert_eq!(only(principals(exact("cluster.local/ns/a/sa/x"))).matches(&subject(Some(&foreign))), No);
}

#[test]
fn addresses_of_a_dual_stack_socket_are_ipv4() {
    let source = |text: &str| Subject { source: socket(text), ..subject(None) };
    let from = |range: &str| only(Match { source_ips: vec![range.parse().unwrap()], ..Match::default() });
    let table = [
        ("10.0.0.1:1", "10.0.0.0/8", Yes),
        ("[::ffff:10.0.0.1]:1", "10.0.0.0/8", Yes),
        ("[::ffff:11.0.0.1]:1", "10.0.0.0/8", No),
        ("[fd00::1]:1", "fd00::/8", Yes),
        ("[fd00::1]:1", "10.0.0.0/8", No),
        ("10.0.0.1:1", "::/0", No),
        ("[fd00::1]:1", "0.0.0.0/0", No),
        ("10.0.0.1:1", "0.0.0.0/0", Yes),
    ];
    for (address, range, expected) in table {
        assert_eq!(from(range).matches(&source(address)), expected, "{address} in {range}");
    }
    let mapped = Subject { destination: socket("[::ffff:10.0.0.2]:80"), ..subject(None) };
    let to = Match { destination_ips: vec!["10.0.0.2/32".parse().unwrap()], ..Match::default() };
    assert_eq!(only(to).matches(&mapped), Yes);
}

#[test]
fn what_is_empty_matches_or_not_by_where_it_is() {
    let subject = subject(None);
    let seen = || Match { destination_ports: vec![8080], ..Match::default() };
    let table = [
        ("a rule without clauses", Rule::default(), Yes),
        ("a clause without matches", rule(vec![vec![]]), Yes),
        ("an empty match", rule(vec![vec![Match::default()]]), No),
        ("an empty match beside one that holds", rule(vec![vec![Match::default(), seen()]]), Yes),
        ("an empty clause beside one that fails", rule(vec![vec![], vec![Match::default()]]), No),
        ("an empty clause beside one that holds", rule(vec![vec![], vec![seen()]]), Yes),
    ];
    for (what, rule, expected) in table {
        assert_eq!(rule.matches(&subject), expected, "{what}");
    }
}

#[test]
fn what_cannot_be_seen_is_unknown_unless_the_rest_decides() {
    let subject = subject(None);
    let holds = || Match { destination_ports: vec![8080], ..Match::default() };
    let fails = || Match { destination_ports: vec![1], ..Match::default() };
    let method = || unseen(&["to.operation.methods"]);
    let table = [
        ("alone", vec![vec![method()]], Unknown),
        ("and what holds", vec![vec![merge(&method(), &holds())]], Unknown),
        ("and what fails", vec![vec![merge(&method(), &fails())]], No),
        ("or what holds", vec![vec![method(), holds()]], Yes),
        ("or what fails", vec![vec![method(), fails()]], Unknown),
        ("beside a clause that holds", vec![vec![method()], vec![holds()]], Unknown),
        ("beside a clause that fails", vec![vec![method()], vec![fails()]], No),
    ];
    for (what, clauses, expected) in table {
        assert_eq!(rule(clauses).matches(&subject), expected, "{what}");
    }
}

#[test]
fn unseen_attributes_are_named_once_in_the_order_written() {
    let written = rule(vec![vec![unseen(&["b", "a"]), unseen(&["a"])], vec![unseen(&["c", "b"])]]);
    assert_eq!(written.unseen(), ["b", "a", "c"]);
}
