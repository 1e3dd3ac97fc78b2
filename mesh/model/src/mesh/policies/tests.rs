//! Which policies a waypoint judges by, and which address they are about.

use std::net::SocketAddr;

use http::{HeaderMap, Method};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;

use crate::address::NamespacedHostname;
use crate::authz::{
    Action, Addressee, Clause, Facts, GatewayName, Match, PathMatch, Policy, PolicyScope, RequestMatch, Rule,
    StringMatch, Subject, Target, decide, policies_for,
};
use crate::fixtures::{edit, policy_name, socket, workload};
use crate::identity::Identity;
use crate::mesh::{Mesh, Update};
use crate::request::{Client, Forwarded, Request};
use crate::workload::Workload;

fn policy(name: &str, scope: PolicyScope, action: Action, one: Match) -> Policy {
    let clauses = [Clause { matches: [one].into() }].into();
    let (name, rules) = (policy_name(name), [Rule { clauses }].into());
    Policy { name, scope, action, rules, dry_run: false, invalid: None }
}

fn port(port: u16) -> Match {
    Match { destination_ports: vec![port], ..Match::default() }
}

fn methods(method: &str) -> Match {
    let request =
        RequestMatch { methods: vec![StringMatch::Exact(method.into())], ..RequestMatch::default() };
    Match { request: Some(request.into()), ..Match::default() }
}

fn host(name: &str) -> NamespacedHostname {
    NamespacedHostname::new("ns", name)
}

fn gateway(name: &str) -> GatewayName {
    GatewayName { namespace: "ns".into(), name: name.into(), class: "istio-waypoint".into() }
}

fn targets(all: &[Target]) -> PolicyScope {
    PolicyScope::Targets(all.into())
}

fn at_gateway(name: &str) -> Target {
    Target::Gateway { namespace: "ns".into(), name: name.into() }
}

const VIP: &str = "10.96.0.1:80";
const POD: &str = "10.0.0.2:8080";

/// One policy for each way in which one may be for `w` behind service `a` at gateway `g`, and some for others. `w` is named
/// by `ns/named`.
fn everything() -> Vec<Policy> {
    let scopes = [
        ("root/global", PolicyScope::Global),
        ("ns/namespace", PolicyScope::Namespace),
        ("other/namespace", PolicyScope::Namespace),
        ("ns/named", PolicyScope::Workload),
        ("ns/other", PolicyScope::Workload),
        ("ns/gateway", targets(&[at_gateway("g")])),
        ("ns/other-gateway", targets(&[at_gateway("h")])),
        ("root/class", targets(&[Target::GatewayClass("istio-waypoint".into())])),
        ("root/other-class", targets(&[Target::GatewayClass("other".into())])),
        ("ns/service", targets(&[Target::Service(host("a"))])),
        ("ns/other-service", targets(&[Target::Service(host("b"))])),
        ("ns/both", targets(&[Target::Service(host("a")), at_gateway("g")])),
        ("ns/entry", targets(&[Target::ServiceEntry { namespace: "ns".into(), name: "e".into() }])),
        ("ns/nothing", targets(&[])),
    ];
    scopes.map(|(name, scope)| policy(name, scope, Action::Audit, Match { ..port_of_either() })).into()
}

/// Either address has one of these ports.
fn port_of_either() -> Match {
    Match { destination_ports: vec![80, 8080], ..Match::default() }
}

fn known(policies: &[Policy]) -> Mesh {
    let mut mesh = Mesh::new("".into(), None);
    policies.iter().for_each(|policy| drop(mesh.apply(Update::Policy(policy.clone()))));
    mesh
}

fn w() -> Workload {
    edit(workload("w", &["10.0.0.2"]), |profile| profile.policies = [policy_name("ns/named")].into())
}

fn subject(destination: &str) -> Subject<'static> {
    Subject { source: socket("10.0.0.1:1"), identity: None, destination: socket(destination) }
}

/// The policies that were heard, by name.
fn heard(mesh: &Mesh, to: &Addressee<'_>) -> Vec<String> {
    let decision = mesh.judge_for(to, &subject(VIP)).unwrap();
    assert!(decision.allows(), "AUDIT refuses nothing");
    let mut names: Vec<String> = decision.audited.iter().map(|rule| rule.policy.to_string()).collect();
    names.sort();
    names
}

#[test]
fn a_waypoint_judges_by_what_selects_and_by_what_is_attached() {
    let (policies, w, g) = (everything(), w(), gateway("g"));
    let mesh = known(&policies);
    let (a, e) = (host("a"), ("ns".into(), "e".into()));
    let endpoint = Some((&w, socket(POD)));
    let nothing = Addressee { gateway: &g, service: None, service_entry: None, endpoint: None };
    let by_name = Addressee { service: Some(&a), endpoint, ..nothing };
    let entry = Addressee { service_entry: Some((&e.0, &e.1)), ..by_name };
    let always = ["ns/both", "ns/gateway", "root/class"];
    let selecting = ["ns/named", "ns/namespace", "root/global"];
    for (to, more) in [
        (by_name, [&selecting[..], &["ns/service"]].concat()),
        (entry, [&selecting[..], &["ns/service", "ns/entry"]].concat()),
        (Addressee { service: None, ..by_name }, selecting.to_vec()),
    ] {
        let mut expected = [&always[..], &more].concat();
        expected.sort_unstable();
        assert_eq!(heard(&mesh, &to), expected);
        let mut listed: Vec<String> =
            policies_for(&policies, &to).iter().map(|policy| policy.name.to_string()).collect();
        listed.sort();
        assert_eq!(listed, expected);
    }
    // Without an endpoint its address is not known, and what AUDIT may mean is noted. Nobody is selected.
    let redirected = Addressee { endpoint: None, ..by_name };
    let mut expected = [&always[..], &["ns/namespace", "ns/service", "root/global"]].concat();
    expected.sort_unstable();
    assert_eq!(heard(&mesh, &redirected), expected);

    let mut mesh = mesh;
    for policy in &policies {
        mesh.apply(Update::RemovePolicy(policy.name.clone()));
    }
    assert_eq!(mesh.judge_for(&redirected, &subject(VIP)).unwrap().audited, []);
    assert!(mesh.judge_for(&by_name, &subject(VIP)).is_err(), "what the workload names is missing");
}

#[test]
fn policies_that_select_are_about_the_pods_address_and_attached_ones_about_the_one_asked_for() {
    let (w, g, a) = (edit(workload("w", &["10.0.0.2"]), |_| {}), gateway("g"), host("a"));
    let endpoint = Some((&w, socket(POD)));
    let to = Addressee { gateway: &g, service: Some(&a), service_entry: None, endpoint };
    let service = || targets(&[Target::Service(host("a"))]);
    for (scope, denied, allows) in [
        (PolicyScope::Namespace, 8080, false),
        (PolicyScope::Namespace, 80, true),
        (service(), 8080, true),
        (service(), 80, false),
    ] {
        let mesh = known(&[policy("ns/p", scope.clone(), Action::Deny, port(denied))]);
        let decision = mesh.judge_for(&to, &subject(VIP)).unwrap();
        assert_eq!(decision.allows(), allows, "{scope:?} {denied}");
        let redirected = mesh.judge_for(&Addressee { endpoint: None, ..to }, &subject(VIP)).unwrap();
        // What is not known denies.
        assert_eq!(redirected.allows(), allows && scope == service(), "{scope:?} {denied}");
    }
}

#[test]
fn a_request_is_judged_by_what_is_asked_of_it() {
    let (w, g) = (workload("w", &["10.0.0.2"]), gateway("g"));
    let to = Addressee { gateway: &g, service: None, service_entry: None, endpoint: Some((&w, socket(POD))) };
    let (headers, client) = (HeaderMap::new(), Identity::new("cluster.local", "a", "x"));
    let judge = |policies: &[Policy], method: &Method, path: &str| {
        let request = Request {
            method,
            scheme: "http",
            authority: "a.example",
            path,
            query: None,
            headers: &headers,
            client: Client { address: socket("10.0.0.1:1"), identity: Some(&client), labels: None },
            destination: socket(VIP),
            forwarded: Forwarded::default(),
        };
        let decision = known(policies).judge_for(&to, &request).unwrap();
        (decision.allows(), decision.cause.to_string())
    };
    let path = RequestMatch { paths: vec![PathMatch::parse("/a/*").unwrap()], ..RequestMatch::default() };
    let mut reading = methods("GET");
    reading.request = reading.request.map(|request| RequestMatch { paths: path.paths, ..*request }.into());
    let allow = policy("ns/read", PolicyScope::Namespace, Action::Allow, reading.clone());
    let deny = policy("ns/no", PolicyScope::Namespace, Action::Deny, methods("POST"));
    let both = [allow.clone(), deny];
    assert_eq!(judge(&both, &Method::GET, "/a/b"), (true, "allowed by: ns/read (rule 0)".into()));
    let refused = "allow policies exist, but none allowed (considered: ns/read)";
    assert_eq!(judge(&both, &Method::GET, "/b"), (false, refused.into()));
    assert_eq!(judge(&both, &Method::POST, "/a/b"), (false, "explicitly denied by: ns/no (rule 0)".into()));
    // A token that nobody checks, yet.
    let token = Match { unseen: vec!["from.source.requestPrincipals".into()], ..reading };
    let deny = policy("ns/no", PolicyScope::Namespace, Action::Deny, token.clone());
    let text = "explicitly denied by: ns/no (rule 0, which restricts from.source.requestPrincipals that the waypoint \
                cannot see)";
    assert_eq!(judge(&[deny], &Method::GET, "/a/b"), (false, text.into()));
    let unsure = policy("ns/read", PolicyScope::Namespace, Action::Allow, token);
    let text = "allow policies exist, but none allowed (considered: ns/read; the waypoint cannot see \
                from.source.requestPrincipals)";
    assert_eq!(judge(std::slice::from_ref(&unsure), &Method::GET, "/a/b"), (false, text.into()));
    assert!(judge(&[unsure, allow], &Method::GET, "/a/b").0);

    // A plain connection through the same waypoint: as at layer 4.
    let connection = Facts::from(&subject(VIP));
    let decision = known(&both).judge_for(&to, connection).unwrap();
    let text =
        "explicitly denied by: ns/no (rule 0, which restricts to.operation.methods that layer 4 cannot see)";
    assert_eq!(decision.cause.to_string(), text);
}

#[test]
fn what_is_on_trial_is_told_as_istios_tags_have_it() {
    let (w, g) = (workload("w", &["10.0.0.2"]), gateway("g"));
    let address: SocketAddr = socket(POD);
    let to = Addressee { gateway: &g, service: None, service_entry: None, endpoint: Some((&w, address)) };
    let trial = |name, action, number| Policy {
        dry_run: true,
        ..policy(name, PolicyScope::Namespace, action, port(number))
    };
    let allow = |end: &str| format!("istio.authorization.dry_run.allow_policy.{end}");
    let deny = |end: &str| format!("istio.authorization.dry_run.deny_policy.{end}");
    let named = |name: &str| format!("ns[ns]-policy[{name}]-rule[0]");
    let table = [
        (vec![], vec![]),
        (vec![trial("ns/p", Action::Allow, 1)], vec![(allow("result"), "denied".to_owned())]),
        (
            vec![trial("ns/p", Action::Allow, 8080), trial("ns/q", Action::Allow, 1)],
            vec![(allow("name"), named("p")), (allow("result"), "allowed".to_owned())],
        ),
        (vec![trial("ns/p", Action::Deny, 1)], vec![(deny("result"), "allowed".to_owned())]),
        (
            vec![trial("ns/p", Action::Deny, 8080), trial("ns/q", Action::Allow, 1)],
            vec![
                (allow("result"), "denied".to_owned()),
                (deny("name"), named("p")),
                (deny("result"), "denied".to_owned()),
            ],
        ),
    ];
    for (policies, expected) in table {
        // Few, and so many that there is an index.
        for others in [0, 20] {
            let other =
                |number| policy(&format!("ns/z{number}"), PolicyScope::Namespace, Action::Deny, port(1));
            let all: Vec<Policy> = policies.iter().cloned().chain((0..others).map(other)).collect();
            let decision = known(&all).judge_for(&to, &subject(VIP)).unwrap();
            assert!(decision.allows());
            let tags: Vec<(String, String)> =
                decision.dry_run_tags().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            assert_eq!(tags, expected);
        }
    }
}

/// A match of a request, by what it asks; several ways of asking for what is there and for what is not.
fn asked_for() -> impl Strategy<Value = Match> {
    let methods = select(&["GET", "POST"][..]).prop_map(methods);
    let paths = select(&["/a", "/a*", "/{*}", "/a/{**}", "*b", "*", "/b"][..]).prop_map(|text| {
        let paths = vec![PathMatch::parse(text).unwrap()];
        Match { request: Some(RequestMatch { paths, ..RequestMatch::default() }.into()), ..Match::default() }
    });
    let hosts = select(&["a.example", "b.example", "a."][..]).prop_map(|text| {
        let hosts = vec![StringMatch::Prefix(text.into()), StringMatch::Exact("c".into())];
        Match { request: Some(RequestMatch { hosts, ..RequestMatch::default() }.into()), ..Match::default() }
    });
    let ports = select(&[80u16, 8080][..]).prop_map(port);
    let unseen = Just(Match { unseen: vec!["hidden".into()], ..Match::default() });
    prop_oneof![3 => methods, 6 => paths, 3 => hosts, 2 => ports, 1 => unseen]
}

fn many() -> impl Strategy<Value = Vec<Policy>> {
    let clause = vec(asked_for(), 0..3).prop_map(|matches| Clause { matches: matches.into() });
    let rule = vec(clause, 0..3).prop_map(|clauses| Rule { clauses: clauses.into() });
    let scope = select(vec![
        PolicyScope::Global,
        PolicyScope::Namespace,
        targets(&[at_gateway("g"), Target::Service(host("a"))]),
        targets(&[at_gateway("h")]),
    ]);
    let action = select(&[Action::Allow, Action::Deny, Action::Audit][..]);
    let policy = (vec(rule, 0..3), scope, action, 0u8..8).prop_map(|(rules, scope, action, die)| Policy {
        name: policy_name("ns/unnamed"),
        scope,
        action,
        rules: rules.into(),
        dry_run: die == 0,
        invalid: None,
    });
    vec(policy, 0..60).prop_map(|all| {
        let name = |place| policy_name(&format!("ns/p{place:02}"));
        all.into_iter().enumerate().map(|(place, policy)| Policy { name: name(place), ..policy }).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// What the index leaves out has nothing to say, of requests, of connections, and where no endpoint is chosen.
    #[test]
    fn the_index_leaves_out_what_has_nothing_to_say(policies in many(), path in select(&["/a", "/a/b", "/c"][..])) {
        let (w, g, a, headers) = (edit(workload("w", &["10.0.0.2"]), |_| {}), gateway("g"), host("a"), HeaderMap::new());
        let mesh = known(&policies);
        let request = Request {
            method: &Method::GET,
            scheme: "http",
            authority: "a.example:80",
            path,
            query: None,
            headers: &headers,
            client: Client { address: socket("10.0.0.1:1"), identity: None, labels: None },
            // One address for both kinds of policies, so that one engine can judge by all of them at once.
            destination: socket(POD),
            forwarded: Forwarded::default(),
        };
        let subject = subject(POD);
        let to = Addressee { gateway: &g, service: Some(&a), service_entry: None, endpoint: Some((&w, socket(POD))) };
        for facts in [Facts::from(&request), Facts::from(&subject)] {
            let (found, plain) = (mesh.judge_for(&to, facts).unwrap(), decide(&policies_for(&policies, &to), facts));
            prop_assert_eq!(found.verdict, plain.verdict, "{} or {}", found.cause, plain.cause);
            prop_assert_eq!(found.on_trial, plain.on_trial);
            for (mut found, mut plain) in [(found.audited, plain.audited), (found.dry_run, plain.dry_run)] {
                found.sort_by(|one, other| one.policy.cmp(&other.policy));
                plain.sort_by(|one, other| one.policy.cmp(&other.policy));
                prop_assert_eq!(found, plain);
            }
        }
        // What is not known of an endpoint never lets through more than what is.
        let nowhere = Addressee { endpoint: None, ..to };
        let allowed = mesh.judge_for(&nowhere, &request).unwrap().allows();
        prop_assert!(!allowed || mesh.judge_for(&to, &request).unwrap().allows());
    }
}
