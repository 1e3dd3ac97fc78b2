//! Which verdict a set of policies gives, what it is owed to, and how that reads.

use super::{from_namespace, identity, only, policy, rule, subject, unseen};
use crate::authz::decide::{MAX_NAMED, RuleName};
use crate::authz::{Action, Cause, Match, Policy, Rule, Verdict, decide};
use crate::fixtures::policy_name;

use Action::{Allow, Deny};

/// What the policies decide for a client of namespace `a`, as text.
fn decided(policies: &[Policy]) -> (bool, String) {
    let client = identity("a", "x");
    let decision = decide(policies, &subject(Some(&client)));
    (decision.allows(), decision.cause.to_string())
}

fn matching() -> Rule {
    only(from_namespace("a"))
}

fn other() -> Rule {
    only(from_namespace("b"))
}

#[test]
fn a_verdict_names_its_cause() {
    let hidden = || only(unseen(&["to.operation.methods", "to.operation.paths"]));
    let considered = "allow policies exist, but none allowed (considered: ";
    let table: Vec<(Vec<Policy>, bool, String)> = vec![
        (vec![], true, "no policy applies".into()),
        (vec![policy("n/d", Deny, vec![])], true, "no policy applies".into()),
        (vec![policy("n/d", Deny, vec![other()])], true, "no policy applies".into()),
        (vec![policy("n/d", Deny, vec![matching()])], false, "explicitly denied by: n/d (rule 0)".into()),
        (
            vec![policy("n/d", Deny, vec![other(), matching(), matching()])],
            false,
            "explicitly denied by: n/d (rule 1)".into(),
        ),
        // Without rules an ALLOW policy allows nothing.
        (vec![policy("n/a", Allow, vec![])], false, format!("{considered}n/a)")),
        (vec![policy("n/a", Allow, vec![Rule::default()])], true, "allowed by: n/a (rule 0)".into()),
        (vec![policy("n/a", Allow, vec![other(), matching()])], true, "allowed by: n/a (rule 1)".into()),
        (
            vec![policy("n/a", Allow, vec![other()]), policy("n/b", Allow, vec![other()])],
            false,
            format!("{considered}n/a, n/b)"),
        ),
        (
            vec![policy("n/a", Allow, vec![other()]), policy("n/b", Allow, vec![matching()])],
            true,
            "allowed by: n/b (rule 0)".into(),
        ),
        // DENY comes first, wherever it stands.
        (
            vec![policy("n/a", Allow, vec![matching()]), policy("n/d", Deny, vec![matching()])],
            false,
            "explicitly denied by: n/d (rule 0)".into(),
        ),
        (
            vec![policy("n/d", Deny, vec![matching()]), policy("n/e", Deny, vec![matching()])],
            false,
            "explicitly denied by: n/d (rule 0)".into(),
        ),
        (
            vec![policy("n/d", Deny, vec![other()]), policy("n/a", Allow, vec![other()])],
            false,
            format!("{considered}n/a)"),
        ),
        // No object of this name is to be found, so the text says what it stands for.
        (
            vec![policy("istio-system/istio_converted_static_strict", Deny, vec![matching()])],
            false,
            "explicitly denied by: istio-system/istio_converted_static_strict (rule 0): a PeerAuthentication is \
             STRICT, and this connection has no mutual TLS"
                .into(),
        ),
        // What cannot be seen denies and does not allow.
        (
            vec![policy("n/d", Deny, vec![other(), hidden()])],
            false,
            "explicitly denied by: n/d (rule 1, which restricts to.operation.methods, to.operation.paths that \
             layer 4 cannot see)"
                .into(),
        ),
        (
            vec![policy("n/a", Allow, vec![hidden()])],
            false,
            format!("{considered}n/a; layer 4 cannot see to.operation.methods, to.operation.paths)"),
        ),
        (
            vec![policy("n/a", Allow, vec![hidden(), matching()])],
            true,
            "allowed by: n/a (rule 1)".into(),
        ),
        // A rule that fails for what can be seen says nothing of what cannot.
        (
            vec![policy("n/a", Allow, vec![rule(vec![vec![from_namespace("b")], vec![unseen(&["x"])]])])],
            false,
            format!("{considered}n/a)"),
        ),
    ];
    for (policies, allows, cause) in table {
        assert_eq!(decided(&policies), (allows, cause), "{policies:#?}");
    }
}

#[test]
fn an_invalid_policy_denies_all_it_covers() {
    let invalid = Policy { invalid: Some("rules[0]: bad range".into()), ..policy("n/bad", Deny, vec![]) };
    let text = "policy n/bad is invalid, so that all it covers is denied: rules[0]: bad range";
    assert_eq!(decided(std::slice::from_ref(&invalid)), (false, text.into()));
    // Whatever allows, and whichever action it was to have.
    for action in [Allow, Deny] {
        let policies = [policy("n/a", Allow, vec![matching()]), Policy { action, ..invalid.clone() }];
        assert_eq!(decided(&policies), (false, text.into()));
    }
    let both = [policy("n/d", Deny, vec![matching()]), invalid.clone()];
    assert_eq!(decided(&both), (false, "explicitly denied by: n/d (rule 0)".into()));
    let both = [invalid.clone(), policy("n/d", Deny, vec![matching()])];
    assert_eq!(decided(&both), (false, text.into()));
    // Dry run never refuses.
    assert_eq!(decided(&[Policy { dry_run: true, ..invalid }]), (true, "no policy applies".into()));
}

#[test]
fn a_dry_run_decides_nothing_and_is_reported() {
    let trial = |policy: Policy| Policy { dry_run: true, ..policy };
    let client = identity("a", "x");
    let policies = [
        trial(policy("n/allow", Allow, vec![matching()])),
        trial(policy("n/none", Allow, vec![other()])),
        trial(policy("n/deny", Deny, vec![other(), matching()])),
        trial(policy("n/hidden", Deny, vec![only(unseen(&["x"]))])),
        trial(policy("n/unsure", Allow, vec![only(unseen(&["x"]))])),
    ];
    let decision = decide(&policies, &subject(Some(&client)));
    assert_eq!((decision.verdict, &decision.cause), (Verdict::Allow, &Cause::NothingApplies));
    let name = |policy, action, rule| RuleName { policy: policy_name(policy), action, rule };
    let reported = [name("n/allow", Allow, 0), name("n/deny", Deny, 1), name("n/hidden", Deny, 0)];
    assert_eq!(decision.dry_run, reported);
    assert_eq!(reported[1].to_string(), "AuthorizationPolicy n/deny rule 1");
    // An ALLOW policy on trial neither allows, nor denies what it does not allow.
    let beside = [policies[0].clone(), policy("n/a", Allow, vec![other()])];
    let text = "allow policies exist, but none allowed (considered: n/a)";
    assert_eq!(decided(&beside), (false, text.into()));
}

#[test]
fn a_cause_stays_short_however_many_there_are() {
    let names: Vec<String> = (0..MAX_NAMED + 5).map(|number| format!("x{number:02}")).collect();
    let hidden: Vec<&str> = names.iter().map(String::as_str).collect();
    let all: Vec<Policy> =
        names.iter().map(|name| policy(&format!("n/{name}"), Allow, vec![only(unseen(&[name]))])).collect();
    let listed = names[..MAX_NAMED].iter().map(|name| format!("n/{name}")).collect::<Vec<_>>().join(", ");
    let hidden_listed = hidden[..MAX_NAMED].join(", ");
    let text = format!(
        "allow policies exist, but none allowed (considered: {listed} and 5 more; layer 4 cannot see {hidden_listed})"
    );
    assert_eq!(decided(&all), (false, text));
    let Cause::NoneAllowed { considered, others, unseen: named } = decide(&all, &subject(None)).cause else {
        panic!("none of them allows");
    };
    assert_eq!((considered.len(), others, named.names.len()), (MAX_NAMED, 5, MAX_NAMED));
    let exactly = &all[..MAX_NAMED];
    assert!(!decided(exactly).1.contains("more"));

    let (_, denied) = decided(&[policy("n/d", Deny, vec![only(unseen(&hidden))])]);
    let text = format!(
        "explicitly denied by: n/d (rule 0, which restricts {hidden_listed} and 5 more that layer 4 cannot see)"
    );
    assert_eq!(denied, text);
}

#[test]
fn an_empty_match_is_left_out_of_both_actions() {
    let nothing = || only(Match::default());
    assert!(decided(&[policy("n/d", Deny, vec![nothing()])]).0);
    assert!(!decided(&[policy("n/a", Allow, vec![nothing()])]).0);
}

#[test]
fn actions_read_as_in_the_api() {
    assert_eq!((Allow.to_string(), Deny.to_string()), ("ALLOW".into(), "DENY".into()));
}
