//! AuthorizationPolicies, by table. That verdicts are right is `tests/oracle.rs`'s to judge; here is what is kept of
//! what was written.

use std::path::Path;
use std::sync::Arc;

use manifest::parse;
use model::authz::{Match, StringMatch};

use super::*;

fn object(spec: &str) -> Object {
    in_namespace("shop", spec)
}

fn in_namespace(namespace: &str, spec: &str) -> Object {
    let file: Arc<Path> = Arc::from(Path::new("policy.yaml"));
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: {namespace}}}\n\
         spec: {spec}\n"
    );
    parse(&text, &file).objects.pop().unwrap()
}

fn translate(spec: &str) -> Translated {
    policy(&object(spec), &Settings::default())
}

fn only_match(spec: &str) -> Match {
    let policy = translate(spec).policy.unwrap();
    assert_eq!(policy.invalid, None, "{spec}");
    policy.rules[0].clauses[0].matches[0].clone()
}

#[test]
fn scopes_by_table() {
    for (namespace, selector, expected) in [
        ("shop", "", PolicyScope::Namespace),
        ("shop", "selector: {matchLabels: {app: cart}}, ", PolicyScope::Workload),
        ("shop", "selector: {matchLabels: {}}, ", PolicyScope::Namespace),
        ("istio-system", "", PolicyScope::Global),
        ("istio-system", "selector: {matchLabels: {app: cart}}, ", PolicyScope::Workload),
    ] {
        let spec = format!("{{{selector}rules: [{{}}]}}");
        let object = in_namespace(namespace, &spec);
        let at_waypoints = for_waypoints(&object, &Context::new(Settings::default()));
        for translated in [policy(&object, &Settings::default()), at_waypoints] {
            assert_eq!(translated.policy.unwrap().scope, expected, "{namespace} {spec}");
        }
    }
}

#[test]
fn actions_by_table() {
    for (spec, action, rules) in [
        ("{}", Some(Action::Allow), 0),
        ("{rules: [{}]}", Some(Action::Allow), 1),
        ("{action: DENY, rules: [{}, {}]}", Some(Action::Deny), 2),
        ("{action: CUSTOM, provider: {name: x}, rules: [{}]}", Some(Action::Deny), 1),
        // Sent, because workloads name it; on the wire to agents it has no rules.
        ("{action: AUDIT, rules: [{}]}", Some(Action::Audit), 1),
        ("{targetRefs: [{kind: Service, group: '', name: cart}], rules: [{}]}", None, 0),
    ] {
        let policy = translate(spec).policy;
        assert_eq!(policy.as_ref().map(|policy| policy.action), action, "{spec}");
        assert_eq!(policy.map_or(0, |policy| policy.rules.len()), rules, "{spec}");
    }
}

/// What is only noted refuses nothing: neither what its rules match, nor anything where they cannot be read.
#[test]
fn what_only_notes_says_so_and_refuses_nothing() {
    let spec = "{action: AUDIT, rules: [{to: [{operation: {ports: ['80']}}]}]}";
    assert_eq!(translate(spec).fate, Fate::Audit);
    assert_eq!(translate(&spec.replace("AUDIT", "DENY")).fate, Fate::Enforced(Vec::new()));
    // What manifests are checked for does not come this far.
    for (action, refuses) in [(Asked::Audit, false), (Asked::Allow, true), (Asked::Deny, true)] {
        let object = object(spec);
        let Typed::AuthorizationPolicy(mut spec) = object.spec.clone() else { panic!("{spec}") };
        spec.action = action;
        spec.rules[0].to[0].operation.ports = vec!["web".to_owned()];
        let translated = readable(&object, &spec, PolicyScope::Namespace, Layer::Seven, &Settings::default());
        let policy = translated.policy.unwrap();
        assert_eq!(policy.invalid.is_some(), refuses, "{action:?}");
        assert_eq!(policy.action == Action::Deny, refuses, "{action:?}");
        assert_eq!(policy.rules.is_empty(), !refuses, "{action:?}");
        assert!(matches!(translated.fate, Fate::Refused(_)), "{action:?}");
    }
}

/// A trial is what its annotation says, in Istio's words for it.
#[test]
fn trials_are_told_by_their_annotation() {
    for (annotations, dry_run) in [
        ("", false),
        ("annotations: {istio.io/dry-run: 'true'}, ", true),
        ("annotations: {istio.io/dry-run: 'false'}, ", false),
        ("annotations: {other: 'true'}, ", false),
    ] {
        for spec in ["{rules: [{}]}", "{action: DNEY}"] {
            let text = format!(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                 metadata: {{{annotations}name: p, namespace: shop}}\nspec: {spec}\n"
            );
            let object = parse(&text, &Arc::from(Path::new("policy.yaml"))).objects.pop().unwrap();
            let policy = policy(&object, &Settings::default()).policy.unwrap();
            assert_eq!(policy.dry_run, dry_run, "{annotations}{spec}");
        }
    }
}

/// Whoever is refused is told which provider would have been asked.
#[test]
fn a_provider_that_nobody_asks_is_named() {
    let translated = translate("{action: CUSTOM, provider: {name: opa}, rules: [{}]}");
    assert_eq!(translated.policy.unwrap().rules[0].unseen(), ["provider opa"]);
    assert_eq!(translated.fate, Fate::Custom("opa".to_owned()));
}

#[test]
fn rules_keep_their_places_and_say_what_is_not_seen() {
    let spec = "{action: DENY, rules: [\
                {from: [{source: {namespaces: [web]}}]}, \
                {to: [{operation: {methods: [GET], ports: ['8080']}}]}, \
                {when: [{key: 'request.headers[x-token]', values: [a]}, {key: source.ip, values: [10.0.0.1]}]}]}";
    let translated = translate(spec);
    let policy = translated.policy.unwrap();
    assert_eq!(policy.rules.len(), 3);
    assert_eq!(&*policy.rules[1].clauses[0].matches[0].destination_ports, [8080]);
    assert_eq!(policy.rules[2].clauses.len(), 2);
    let unseen = vec![(1, "to.operation.methods".into()), (2, "when[request.headers[x-token]]".into())];
    assert_eq!(translated.fate, Fate::Enforced(unseen));
}

#[test]
fn every_attribute_of_layer_4_is_kept() {
    let exact = |text: &str| StringMatch::Exact(text.into());
    let one =
        only_match("{rules: [{from: [{source: {principals: [a, 'b*', '*c', '*'], notPrincipals: [d]}}]}]}");
    let expected =
        [exact("a"), StringMatch::Prefix("b".into()), StringMatch::Suffix("c".into()), StringMatch::Presence];
    assert_eq!((&one.principals[..], &one.not_principals[..]), (&expected[..], &[exact("d")][..]));
    let one = only_match("{rules: [{from: [{source: {namespaces: [a], notNamespaces: [b]}}]}]}");
    assert_eq!((one.namespaces, one.not_namespaces), (vec![exact("a")], vec![exact("b")]));
    let one =
        only_match("{rules: [{from: [{source: {serviceAccounts: [a, web/b], notServiceAccounts: [c]}}]}]}");
    let names = |all: &[model::authz::ServiceAccountMatch]| {
        all.iter().map(|one| format!("{}/{}", one.namespace, one.service_account)).collect::<Vec<_>>()
    };
    assert_eq!(names(&one.service_accounts), ["shop/a", "web/b"]);
    assert_eq!(names(&one.not_service_accounts), ["shop/c"]);
    let one = only_match(
        "{rules: [{from: [{source: {ipBlocks: [10.0.0.1, 10.0.0.0/8], notIpBlocks: [fd00::/8]}}]}]}",
    );
    assert_eq!(
        one.source_ips.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.1/32", "10.0.0.0/8"]
    );
    assert_eq!(one.not_source_ips.len(), 1);
    let one = only_match("{rules: [{to: [{operation: {ports: ['80'], notPorts: ['81']}}]}]}");
    assert_eq!((one.destination_ports, one.not_destination_ports), (vec![80], vec![81]));
    for (key, value) in [
        ("source.ip", "10.0.0.1"),
        ("destination.ip", "10.0.0.1"),
        ("destination.port", "80"),
        ("source.namespace", "a"),
        ("source.principal", "a"),
        ("source.serviceAccount", "a"),
        ("source.trustDomain", "a"),
    ] {
        for field in ["values", "notValues"] {
            let one = only_match(&format!("{{rules: [{{when: [{{key: {key}, {field}: ['{value}']}}]}}]}}"));
            assert!(!one.is_empty() && one.unseen.is_empty(), "{key} {field}: {one:?}");
        }
    }
}

#[test]
fn trust_domains_are_beginnings_of_identities() {
    let of = |source: &str| only_match(&format!("{{rules: [{{from: [{{source: {source}}}]}}]}}"));
    for (source, principals, unseen) in [
        ("{trustDomains: [a.org]}", "Prefix(\"a.org/ns/\")", false),
        ("{trustDomains: ['a*']}", "Prefix(\"a\")", false),
        ("{trustDomains: ['*']}", "Presence", false),
        ("{trustDomains: ['*.org']}", "", true),
        // No trust domain has a slash; the beginnings of identities have.
        ("{trustDomains: ['a.org/ns/*']}", "", true),
        (
            "{trustDomains: [a.org], principals: [a.org/ns/x/sa/y, b.org/ns/x/sa/y]}",
            "Exact(\"a.org/ns/x/sa/y\")",
            false,
        ),
        ("{trustDomains: [a.org], principals: ['*']}", "Prefix(\"a.org/ns/\")", false),
        ("{trustDomains: [a.org], principals: ['a*']}", "Prefix(\"a.org/ns/\")", false),
        ("{trustDomains: [a.org], principals: [b.org/ns/x/sa/y]}", "Exact(\"\")", false),
        ("{trustDomains: [a.org], principals: ['*/sa/y']}", "Suffix(\"/sa/y\")", true),
    ] {
        let one = of(source);
        let shown = one.principals.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(", ");
        assert_eq!((shown.as_str(), !one.unseen.is_empty()), (principals, unseen), "{source}");
    }
    let one = of("{notTrustDomains: [a.org, '*.net']}");
    assert_eq!((one.not_principals.len(), &*one.unseen[0]), (1, "from.source.trustDomains"));
}

#[test]
fn what_cannot_be_read_refuses_what_it_is_for() {
    for (spec, scope) in [
        ("{rules: [{from: [{source: {ipBlocks: [10.0.0.0/99]}}]}]}", PolicyScope::Namespace),
        ("{rules: [{from: [{source: {principles: [a]}}]}]}", PolicyScope::Namespace),
        ("{action: DNEY, selector: {matchLabels: {app: cart}}}", PolicyScope::Workload),
        ("{action: DNEY, selector: {matchLabel: {app: cart}}}", PolicyScope::Namespace),
        ("{action: ALLOW, rules: [{to: [{operation: {ports: [web]}}]}]}", PolicyScope::Namespace),
    ] {
        let translated = translate(spec);
        let policy = translated.policy.unwrap();
        assert!(policy.invalid.is_some(), "{spec}");
        assert_eq!((policy.scope, policy.action, policy.rules.len()), (scope, Action::Deny, 1), "{spec}");
        assert!(matches!(translated.fate, Fate::Refused(_)), "{spec}");
    }
    let targets = "{action: DNEY, targetRefs: [{kind: Service, group: '', name: cart}]}";
    assert_eq!(translate(targets).policy, None);
}

#[test]
fn a_name_that_nobody_may_have_is_nobody_elses() {
    for (name, expected) in [
        ("a-b.c", "a-b.c"),
        ("istio_converted_static_strict", "istio..5fconverted..5fstatic..5fstrict"),
        ("a/b", "a..2fb"),
        ("A", "..41"),
    ] {
        let spelt = policy_name(&Name::new("shop", name));
        assert_eq!((&*spelt.namespace, &*spelt.name), ("shop", expected));
    }
}

mod waypoints;
