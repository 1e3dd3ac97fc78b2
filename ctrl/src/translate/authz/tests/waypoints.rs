//! What waypoints are sent: that it means what was written is judged by requests.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use model::Identity;
use model::address::NamespacedHostname;
use model::authz::{Decision, Subject, Target, decide};
use model::request::{Client, Forwarded, Request};

use super::*;
use crate::translate::Context;

fn context() -> Context {
    Context::new(Settings::default())
}

fn full(spec: &str) -> Policy {
    let translated = for_waypoints(&object(spec), &context());
    assert_eq!(translated.policy.as_ref().and_then(|policy| policy.invalid.clone()), None, "{spec}");
    translated.policy.unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What `GET https://a.example/v1/items` of `cluster.local/ns/web/sa/front` comes to, with some headers.
fn judged(policy: &Policy) -> Decision {
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-role", "user"), ("x-role", "admin"), ("host", "a.example")] {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let identity = Identity::new("cluster.local", "web", "front");
    let request = Request {
        method: &Method::GET,
        scheme: "https",
        authority: "a.example",
        path: "/v1/items",
        query: Some("q=1"),
        headers: &headers,
        client: Client { address: address("10.0.0.1:1"), identity: Some(&identity), labels: None },
        destination: address("10.96.0.1:80"),
        forwarded: Forwarded::default(),
    };
    decide(std::slice::from_ref(policy), &request)
}

#[test]
fn every_attribute_of_layer_7_is_kept() {
    let to = |operation: &str| format!("to: [{{operation: {operation}}}]");
    let from = |source: &str| format!("from: [{{source: {source}}}]");
    let when = |key: &str, values: &str| format!("when: [{{key: '{key}', {values}}}]");
    // For each: does it match? Nothing: nobody can tell.
    let table: Vec<(String, Option<bool>)> = vec![
        (to("{methods: [GET, PUT]}"), Some(true)),
        (to("{methods: [get]}"), Some(false)),
        (to("{notMethods: [GET]}"), Some(false)),
        (to("{methods: ['*']}"), Some(true)),
        (to("{paths: [/v1/items]}"), Some(true)),
        (to("{paths: ['/v1/*']}"), Some(true)),
        (to("{paths: ['*/items']}"), Some(true)),
        (to("{paths: ['/v1/{*}']}"), Some(true)),
        (to("{paths: ['/{**}']}"), Some(true)),
        (to("{paths: ['/{*}']}"), Some(false)),
        (to("{notPaths: ['/v1/{*}']}"), Some(false)),
        (to("{paths: [/V1/items]}"), Some(false)),
        (to("{hosts: [A.Example]}"), Some(true)),
        (to("{hosts: ['*.EXAMPLE']}"), Some(true)),
        (to("{notHosts: [a.example]}"), Some(false)),
        (to("{hosts: [a.example], methods: [POST]}"), Some(false)),
        (to("{ports: ['80'], methods: [GET]}"), Some(true)),
        (to("{ports: ['81'], methods: [GET]}"), Some(false)),
        (from("{remoteIpBlocks: [10.0.0.0/8]}"), Some(true)),
        (from("{notRemoteIpBlocks: [10.0.0.0/8]}"), Some(false)),
        (from("{trustDomains: ['*.local']}"), Some(true)),
        (from("{notTrustDomains: ['*.local']}"), Some(false)),
        (from("{trustDomains: [cluster.local], principals: ['*/sa/front']}"), Some(true)),
        (from("{namespaces: [web], remoteIpBlocks: [11.0.0.0/8]}"), Some(false)),
        (from("{requestPrincipals: ['*']}"), None),
        (from("{notRequestPrincipals: ['*']}"), None),
        (from("{namespaces: [web], requestPrincipals: ['*']}"), None),
        (from("{namespaces: [other], requestPrincipals: ['*']}"), Some(false)),
        (when("request.headers[X-Role]", "values: [user, admin]"), Some(true)),
        (when("request.headers[x-role]", "values: [admin]"), None),
        (when("request.headers[x-role]", "values: ['user,admin']"), Some(false)),
        (when("request.headers[x-role]", "notValues: [user, admin]"), Some(false)),
        (when("request.headers[x-role]", "notValues: [admin]"), None),
        (when("request.headers[x-none]", "values: ['*']"), Some(false)),
        (when("request.headers[x-none]", "notValues: ['*']"), Some(true)),
        (when("request.headers[host]", "values: [a.example]"), None),
        (when("request.headers[:path]", "values: [/]"), None),
        (when("remote.ip", "values: [10.0.0.1]"), Some(true)),
        (when("source.ip", "notValues: [10.0.0.1]"), Some(false)),
        (when("source.trustDomain", "values: ['cluster*']"), Some(true)),
        (when("source.trustDomain", "values: ['*.local']"), Some(true)),
        (when("source.namespace", "values: [web]"), Some(true)),
        (when("source.principal", "values: [cluster.local/ns/web/sa/front]"), Some(true)),
        (when("source.serviceAccount", "values: [web/front]"), Some(true)),
        (when("destination.ip", "values: [10.96.0.0/16]"), Some(true)),
        (when("destination.port", "values: ['80']"), Some(true)),
        (when("connection.sni", "values: [a.example]"), Some(false)),
        (when("connection.sni", "notValues: [a.example]"), Some(true)),
        (when("request.auth.claims[iss]", "values: [x]"), None),
        (when("request.auth.principal", "notValues: [x]"), None),
    ];
    for (rule, matches) in table {
        let of = |action: &str| judged(&full(&format!("{{action: {action}, rules: [{{{rule}}}]}}"))).allows();
        assert_eq!(of("ALLOW"), matches == Some(true), "{rule}");
        assert_eq!(of("DENY"), matches == Some(false), "{rule}");
        let audited = judged(&full(&format!("{{action: AUDIT, rules: [{{{rule}}}]}}")));
        assert_eq!((audited.allows(), audited.audited.is_empty()), (true, matches == Some(false)), "{rule}");
        // Nobody asks the provider: what it would be asked about is refused.
        let custom = format!("{{action: CUSTOM, provider: {{name: opa}}, rules: [{{{rule}}}]}}");
        if parse_error(&custom).is_none() {
            assert_eq!(judged(&full(&custom)).allows(), matches == Some(false), "{rule}");
        }
    }
}

/// Some attributes do not go with CUSTOM.
fn parse_error(spec: &str) -> Option<()> {
    matches!(object(spec).spec, Typed::Broken).then_some(())
}

/// A waypoint that sees a connection only decides what an agent decides by what it is sent.
#[test]
fn a_connection_is_judged_as_by_an_agent() {
    let rules = [
        "{}",
        "{to: [{operation: {methods: [GET]}}]}",
        "{from: [{source: {namespaces: [web]}}], to: [{operation: {paths: [/a], ports: ['8080']}}]}",
        "{from: [{source: {namespaces: [other]}}], to: [{operation: {paths: [/a]}}]}",
        "{to: [{operation: {hosts: [a]}}, {operation: {ports: ['8080']}}]}",
        "{from: [{source: {trustDomains: [cluster.local]}}]}",
        "{from: [{source: {notTrustDomains: [cluster.local]}}]}",
        "{from: [{source: {trustDomains: ['other*'], principals: ['*']}}]}",
        "{when: [{key: 'request.headers[a]', values: [b]}, {key: source.namespace, values: [web]}]}",
        "{when: [{key: connection.sni, values: [b]}]}",
        "{from: [{source: {requestPrincipals: [a]}}]}",
    ];
    for rule in rules {
        for action in ["ALLOW", "DENY", "AUDIT", "CUSTOM, provider: {name: opa}"] {
            let spec = format!("{{action: {action}, rules: [{rule}]}}");
            if parse_error(&spec).is_some() {
                continue;
            }
            let (agents, full) = (translate(&spec).policy.unwrap(), full(&spec));
            for identity in [None, Some(Identity::new("cluster.local", "web", "front"))] {
                let (source, destination) = (address("10.0.0.1:1"), address("10.0.0.2:8080"));
                let subject = Subject { source, identity: identity.as_ref(), destination };
                let allows = |policy: Policy| decide(&[policy], &subject).allows();
                assert_eq!(allows(agents.clone()), allows(full.clone()), "{spec} {identity:?}");
            }
        }
    }
}

#[test]
fn targets_by_table() {
    let gateway = |namespace: &str| Target::Gateway { namespace: namespace.into(), name: "w".into() };
    let service = Target::Service(NamespacedHostname::new("shop", "cart.shop.svc.cluster.local"));
    let entry = Target::ServiceEntry { namespace: "shop".into(), name: "e".into() };
    let gateway_ref = "{kind: Gateway, group: gateway.networking.k8s.io, name: w}";
    let class_ref = "{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}";
    let service_ref = "{kind: Service, group: '', name: cart}";
    let entry_ref = "{kind: ServiceEntry, group: networking.istio.io, name: e}";
    for (namespace, refs, expected, left_out) in [
        ("shop", format!("targetRef: {gateway_ref}"), vec![gateway("shop")], 0),
        ("shop", format!("targetRefs: [{gateway_ref}, {service_ref}]"), vec![gateway("shop"), service], 0),
        ("shop", format!("targetRefs: [{gateway_ref}, {gateway_ref}]"), vec![gateway("shop")], 0),
        ("shop", format!("targetRefs: [{entry_ref}]"), vec![entry], 0),
        ("shop", format!("targetRefs: [{class_ref}]"), vec![], 1),
        (
            "istio-system",
            format!("targetRefs: [{class_ref}]"),
            vec![Target::GatewayClass("istio-waypoint".into())],
            0,
        ),
        ("istio-system", format!("targetRefs: [{gateway_ref}]"), vec![gateway("istio-system")], 0),
    ] {
        for spec in [format!("{{{refs}, rules: [{{}}]}}"), format!("{{{refs}, action: DNEY}}")] {
            let object = in_namespace(namespace, &spec);
            assert_eq!(policy(&object, &Settings::default()).policy, None, "agents have none: {spec}");
            let found = for_waypoints(&object, &context()).policy.unwrap();
            if matches!(object.spec, Typed::Broken) {
                // What it is for is refused; where that cannot be told, its namespace.
                assert!(found.invalid.is_some(), "{spec}");
                let namespace = PolicyScope::Namespace;
                let scope =
                    if left_out > 0 { namespace } else { PolicyScope::Targets(expected.clone().into()) };
                assert_eq!(found.scope, scope, "{spec}");
            } else {
                assert_eq!(found.scope, PolicyScope::Targets(expected.clone().into()), "{spec}");
                assert_eq!(targets_left_out(&object, &context()).len(), left_out, "{spec}");
            }
        }
    }
}

#[test]
fn what_cannot_be_read_refuses_what_it_is_for_at_waypoints_too() {
    for (spec, scope) in [
        ("{action: DNEY, targetRefs: [{kind: Serv, name: cart}]}", PolicyScope::Namespace),
        ("{action: DNEY, targetRefs: [cart]}", PolicyScope::Namespace),
        ("{action: DNEY, selector: {matchLabels: {app: cart}}}", PolicyScope::Workload),
        ("{action: DNEY}", PolicyScope::Namespace),
    ] {
        let policy = for_waypoints(&object(spec), &context()).policy.unwrap();
        assert_eq!((policy.action, policy.scope, policy.rules.len()), (Action::Deny, scope, 1), "{spec}");
        assert!(policy.invalid.is_some(), "{spec}");
    }
}
