//! Of many policies few are looked at, whichever way their rules name what they want. That none is missed that has
//! something to say, the comparison with the naive engine shows.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Index, Indexed, SCANNED_UP_TO};
use crate::authz::tests::{account, exact, from_namespace, only, policy, rule, unseen};
use crate::authz::{Action, Facts, Match, Policy, Rule, StringMatch, Subject};
use crate::fixtures::socket;
use crate::identity::Identity;

/// Which of the rules, each of a policy of its own, are looked at for `cluster.local/ns/a/sa/x` from 10.0.0.1 to
/// 10.0.0.2:8080.
fn looked_at(rules: &[Rule]) -> Vec<usize> {
    let client = Identity::new("cluster.local", "a", "x");
    let policies: Vec<Arc<Policy>> = rules
        .iter()
        .enumerate()
        .map(|(place, rule)| Arc::new(policy(&format!("n/p{place:02}"), Action::Deny, vec![rule.clone()])))
        .collect();
    let (source, destination) = (socket("[::ffff:10.0.0.1]:1"), socket("10.0.0.2:8080"));
    let subject = Subject { source, identity: Some(&client), destination };
    Index::new(&policies).candidates(&Facts::from(&subject))
}

fn principal(wanted: StringMatch) -> Match {
    Match { principals: vec![wanted], ..Match::default() }
}

fn from(range: &str) -> Match {
    Match { source_ips: vec![range.parse().unwrap()], ..Match::default() }
}

fn to(range: &str) -> Match {
    Match { destination_ips: vec![range.parse().unwrap()], ..Match::default() }
}

fn port(port: u16) -> Match {
    Match { destination_ports: vec![port], ..Match::default() }
}

#[test]
fn a_rule_is_looked_at_where_the_connection_has_what_it_names() {
    let prefix = |text: &str| principal(StringMatch::Prefix(text.into()));
    let accounts =
        |namespace, name| Match { service_accounts: vec![account(namespace, name)], ..Match::default() };
    let table = [
        (principal(exact("cluster.local/ns/a/sa/x")), true),
        (principal(exact("cluster.local/ns/a/sa/y")), false),
        (principal(exact("cluster.local/ns/a/sa/x/and/longer")), false),
        (prefix("cluster.local/ns/a/"), true),
        (prefix("cluster.local/ns/b/"), false),
        (prefix(""), true),
        (accounts("a", "x"), true),
        (accounts("a", "y"), false),
        (accounts("b", "x"), false),
        (from_namespace("a"), true),
        (from_namespace("b"), false),
        (from("10.0.0.0/24"), true),
        (from("10.0.0.77/24"), true),
        (from("10.0.1.0/24"), false),
        (from("fd00::/24"), false),
        (to("10.0.0.2/32"), true),
        (to("10.0.0.1/32"), false),
        (port(8080), true),
        (port(80), false),
        // An empty match never holds.
        (Match::default(), false),
        // Of these nobody can say who has it.
        (principal(StringMatch::Suffix("/sa/y".into())), true),
        (principal(StringMatch::Presence), true),
        (Match { principals: vec![exact("nobody"), StringMatch::Presence], ..Match::default() }, true),
        (Match { not_namespaces: vec![exact("a")], ..Match::default() }, true),
        (unseen(&["to.operation.methods"]), true),
    ];
    let rules: Vec<Rule> = table.iter().map(|(one, _)| only(one.clone())).collect();
    let looked_at = looked_at(&rules);
    for (place, (one, expected)) in table.iter().enumerate() {
        assert_eq!(looked_at.contains(&place), *expected, "{one:?}");
    }
}

#[test]
fn a_rule_is_noted_under_the_rarest_of_what_it_needs() {
    let rare = [
        principal(exact("cluster.local/ns/a/sa/other")),
        from("10.9.0.0/16"),
        from_namespace("other"),
        to("10.9.0.0/16"),
        port(1),
    ];
    // What the connection has of each kind.
    let common = [
        principal(exact("cluster.local/ns/a/sa/x")),
        from("10.0.0.0/16"),
        from_namespace("a"),
        to("10.0.0.0/16"),
        port(8080),
    ];
    for (place, rarer) in rare.iter().enumerate() {
        for other in &common[place + 1..] {
            for clauses in [
                vec![vec![rarer.clone()], vec![other.clone()]],
                vec![vec![other.clone()], vec![rarer.clone()]],
            ] {
                assert_eq!(looked_at(&[rule(clauses)]), [0usize; 0], "{rarer:?} and {other:?}");
            }
        }
    }
    // A clause counts by the most common of its matches, as any of them is enough.
    let wide = vec![rare[0].clone(), common[4].clone()];
    assert_eq!(looked_at(&[rule(vec![wide, vec![rare[3].clone()]])]), [0usize; 0]);
    // Fields of one match must all hold, so the rarest counts there, too.
    let both = Match { namespaces: from_namespace("a").namespaces, ..rare[0].clone() };
    assert_eq!(looked_at(&[only(both)]), [0usize; 0]);
}

#[test]
fn a_rule_is_looked_at_for_any_of_its_matches() {
    let either = rule(vec![vec![port(1), from_namespace("a")]]);
    let neither = rule(vec![vec![port(1), from_namespace("b")]]);
    let unclear = rule(vec![vec![port(1), unseen(&["x"])]]);
    let everybody = [Rule::default(), rule(vec![vec![]])];
    let rules = [&[either, neither, unclear][..], &everybody].concat();
    assert_eq!(looked_at(&rules), [0, 2, 3, 4]);
    // A restriction beside a clause that always holds still restricts.
    assert_eq!(looked_at(&[rule(vec![vec![], vec![port(1)]])]), [0usize; 0]);
}

#[test]
fn a_change_is_seen() {
    let mut policies = Indexed::default();
    let named = |name: &str, namespace: &str| {
        Arc::new(policy(name, Action::Deny, vec![only(from_namespace(namespace))]))
    };
    let client = Identity::new("cluster.local", "a", "x");
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let subject = Subject {
        source: (ip("10.0.0.1"), 1).into(),
        identity: Some(&client),
        destination: (ip("10.0.0.2"), 2).into(),
    };
    let cause = |policies: &Indexed| {
        let mut ballot = crate::authz::decide::Ballot::default();
        policies.hear(&mut ballot, &Facts::from(&subject));
        ballot.close(policies.all().iter().map(|policy| &**policy)).cause.to_string()
    };
    for number in (0..40).rev() {
        policies.insert(&named(&format!("n/p{number:02}"), "b"));
        assert_eq!(cause(&policies), "no policy applies");
    }
    policies.insert(&named("n/p20", "a"));
    policies.insert(&named("n/p30", "a"));
    assert_eq!(policies.all().len(), 40);
    assert_eq!(cause(&policies), "explicitly denied by: n/p20 (rule 0)");
    policies.remove(&named("n/p20", "a").name);
    assert_eq!(cause(&policies), "explicitly denied by: n/p30 (rule 0)");
    policies.insert(&named("n/p30", "b"));
    assert_eq!(cause(&policies), "no policy applies");
    policies.remove(&named("n/never", "a").name);
    assert_eq!(policies.all().len(), 39);
}

/// That a policy is on trial is told where none of its rules can match, too, and no longer than it is.
#[test]
fn a_trial_is_known_until_its_last_policy_goes() {
    let denies = |name: &str| policy(name, Action::Deny, vec![only(from_namespace("b"))]);
    let trial = |name: &str| Arc::new(Policy { dry_run: true, ..denies(name) });
    let subject = Subject {
        source: "10.0.0.1:1".parse().unwrap(),
        identity: None,
        destination: "10.0.0.2:2".parse().unwrap(),
    };
    let on_trial = |policies: &Indexed| {
        let mut ballot = crate::authz::decide::Ballot::default();
        policies.hear(&mut ballot, &Facts::from(&subject));
        ballot.close(policies.all().iter().map(|policy| &**policy)).on_trial.deny
    };
    let mut policies = Indexed::default();
    (0..40).for_each(|number| policies.insert(&Arc::new(denies(&format!("n/p{number:02}")))));
    assert!(!on_trial(&policies));
    for name in ["n/one", "n/two", "n/one"] {
        policies.insert(&trial(name));
        assert!(on_trial(&policies), "{name}");
    }
    policies.remove(&trial("n/one").name);
    assert!(on_trial(&policies), "the other is still there");
    policies.insert(&Arc::new(denies("n/two")));
    assert!(!on_trial(&policies), "it is in force now");
}

/// A thousand rules for one port are one place to look at.
#[test]
fn a_policy_is_noted_once_under_what_many_of_its_rules_need() {
    let many = |name: &str, one: Match| {
        Arc::new(policy(name, Action::Deny, (0..1000).map(|_| only(one.clone())).collect()))
    };
    let suffix = || principal(StringMatch::Suffix("/sa/x".into()));
    let mut index = Index::new(&[many("n/a", port(8080)), many("n/b", port(8080)), many("n/c", suffix())]);
    assert_eq!((&index.ports.0[&8080][..], &index.always[..]), (&[0, 1][..], &[2][..]));
    for name in ["n/a", "n/c"] {
        index.remove(&many(name, if name == "n/c" { suffix() } else { port(8080) }));
    }
    assert_eq!((&index.ports.0[&8080][..], index.always.len()), (&[1][..], 0));
}

/// Whatever came and went, what is looked at is what a fresh index of the same policies looks at, and nothing is left
/// behind.
#[test]
fn an_index_is_the_same_however_it_came_about() {
    let matches = [
        from_namespace("a"),
        from_namespace("b"),
        principal(exact("cluster.local/ns/a/sa/x")),
        principal(StringMatch::Prefix("cluster.local/ns/".into())),
        principal(StringMatch::Suffix("/sa/x".into())),
        from("10.0.0.0/24"),
        from("10.0.0.0/8"),
        to("10.0.0.2/32"),
        port(8080),
        port(80),
    ];
    let client = Identity::new("cluster.local", "a", "x");
    let subject = Subject {
        source: socket("10.0.0.1:1"),
        identity: Some(&client),
        destination: socket("10.0.0.2:8080"),
    };
    let names = |policies: &Indexed| -> Vec<String> {
        let Some(index) = &policies.index else { return Vec::new() };
        let slots = index.candidates(&Facts::from(&subject));
        slots.iter().filter_map(|slot| index.policy(*slot)).map(|policy| policy.name.to_string()).collect()
    };
    let mut policies = Indexed::default();
    let mut state = 1_u64;
    let mut draw = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % bound
    };
    for _ in 0..3000 {
        let name = format!("n/p{:02}", draw(30));
        if draw(3) == 0 {
            policies.remove(&policy(&name, Action::Deny, Vec::new()).name);
        } else {
            let rules = (0..1 + draw(3)).map(|_| only(matches[draw(matches.len())].clone()));
            policies.insert(&Arc::new(policy(&name, Action::Deny, rules.collect())));
        }
        // A few are quicker looked at than looked up.
        assert_eq!(policies.index.is_some(), policies.all().len() > SCANNED_UP_TO);
        let mut fresh = Indexed::default();
        policies.all().iter().for_each(|policy| fresh.insert(policy));
        assert_eq!(names(&policies), names(&fresh));
    }
    for left in policies.all().to_vec() {
        policies.remove(&left.name);
    }
    assert!(policies.all().is_empty() && policies.index.is_none());
    // Down to nothing without the index being thrown away.
    let one = Arc::new(policy("n/p", Action::Deny, matches.iter().cloned().map(only).collect()));
    let mut index = Index::new(std::slice::from_ref(&one));
    index.remove(&one);
    assert!(index.always.is_empty() && index.accounts.0.is_empty() && index.ports.0.is_empty());
    for prefixes in [&index.principals, &index.namespaces] {
        assert!(prefixes.places.0.is_empty() && prefixes.lengths.0.is_empty());
    }
    for ranges in [&index.sources, &index.destinations] {
        assert!(ranges.places.0.is_empty() && ranges.lengths.0.is_empty());
    }
}
