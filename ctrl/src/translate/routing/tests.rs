//! Objects in, what becomes of each host's traffic out.

mod asked;
mod delegates;
mod fields;
mod hold;
mod traffic;

use std::path::Path;
use std::sync::Arc;

use manifest::{Level, Object, parse};
use model::route::{Action, Destination, Destinations, Forward};

use super::*;

/// The objects of a text; services are `NAMESPACE/NAME PORT…`.
fn objects(services: &[&str], text: &str) -> Objects {
    let parsed = parse(text, &Arc::from(Path::new("f.yaml")));
    let errors: Vec<_> = parsed.findings.iter().filter(|finding| finding.level == Level::Error).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let of = |kind: &str| -> Vec<Arc<Object>> {
        let own = parsed.objects.iter().filter(|object| object.kind == kind);
        own.cloned().map(Arc::new).collect()
    };
    let service = |text: &&str| {
        let mut words = text.split(' ');
        let (namespace, name) = words.next().and_then(|name| name.split_once('/')).expect("a name");
        let ports = words.map(|port| port.parse().expect("a port")).collect();
        (Name::new(namespace, name), Host { ports, seen_from: namespace.into() })
    };
    Objects {
        services: services.iter().map(service).collect(),
        virtual_services: of("VirtualService"),
        destination_rules: of("DestinationRule"),
        domain: "cluster.local".into(),
        root_namespace: "istio-system".into(),
    }
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("a name");
    format!(
        "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )
}

fn virtual_service(name: &str, spec: &str) -> String {
    object("VirtualService", name, spec)
}

fn destination_rule(name: &str, spec: &str) -> String {
    object("DestinationRule", name, spec)
}

/// `{hosts: [HOST], http: [{route: [{destination: {host: TO}}]}]}`.
fn to(host: &str, to: &str) -> String {
    format!("{{hosts: ['{host}'], http: [{{route: [{{destination: {{host: {to}}}}}]}}]}}")
}

fn key(host: &str) -> NamespacedHostname {
    let (namespace, name) = host.split_once('/').expect("a name");
    NamespacedHostname::new(namespace, &format!("{name}.{namespace}.svc.cluster.local"))
}

fn shown(destination: &Destination) -> String {
    let name = destination.service.hostname().trim_end_matches(".svc.cluster.local");
    let subset = destination.subset.as_ref().map(|subset| format!(" {subset}")).unwrap_or_default();
    let port = destination.port.map(|port| format!(":{port}")).unwrap_or_default();
    format!("{name}{port}{subset}")
}

fn to_shown(forward: &Forward) -> String {
    let to = match &forward.destinations {
        Destinations::One(one) => shown(one),
        Destinations::Split(all) => {
            let all = all.iter().map(|one| format!("{} {}", one.weight, shown(&one.destination)));
            all.collect::<Vec<_>>().join(", ")
        }
    };
    match forward.missing.join(", ") {
        missing if missing.is_empty() => to,
        missing => format!("{to} without {missing}"),
    }
}

fn rule_shown(rule: &HttpRule) -> String {
    let what = match &rule.action {
        Action::Forward(forward) => to_shown(forward),
        Action::Redirect(_) => "redirect".to_owned(),
        Action::Respond(_) => "respond".to_owned(),
    };
    format!(
        "{} {} -> {what}",
        rule.source.to_string().trim_start_matches("VirtualService "),
        rule.matches.len()
    )
}

/// The rules of a host, one a line: where it was written, how many matches it has, and where it leads.
fn rules(outcome: &Outcome, host: &str) -> Vec<String> {
    outcome.routings[&key(host)].http.iter().map(rule_shown).collect()
}

fn fresh(objects: &Objects) -> Outcome {
    compile(objects, &LastGood::new())
}

const SERVICES: &[&str] = &["shop/cart 80", "shop/reviews 9080 9443", "bank/cart 80", "istio-system/root 80"];

#[test]
fn a_host_without_rules_goes_to_its_service() {
    let outcome = fresh(&objects(SERVICES, ""));
    assert_eq!(outcome.routings.len(), 4);
    for routing in outcome.routings.values() {
        assert_eq!(routing.default.as_deref(), Some(&Forward::to_service(routing.host.clone())));
        assert!(routing.http.is_empty() && routing.destinations.is_empty());
    }
    assert_eq!(outcome.last_good, outcome.routings);
}

#[test]
fn which_hosts_a_virtual_service_is_for() {
    for (name, spec, of_shop, of_bank, why) in [
        ("shop/v", to("cart", "cart"), 1, 0, ""),
        ("shop/v", to("CART.shop.svc.cluster.local.", "cart"), 1, 0, ""),
        ("bank/v", to("cart", "cart"), 0, 1, ""),
        ("shop/v", to("*.shop.svc.cluster.local", "cart"), 1, 0, ""),
        ("shop/v", to("*.svc.cluster.local", "cart"), 1, 0, ""),
        ("shop/v", to("cart.shop", "cart"), 0, 0, "there is no service cart.shop"),
        ("shop/v", to("*.example.com", "cart"), 0, 0, "within *.example.com"),
        (
            "shop/v",
            to("cart.bank.svc.cluster.local", "cart"),
            0,
            0,
            "only by VirtualServices of namespace bank",
        ),
        ("shop/v", to("cart", "cart").replace("http:", "gateways: [g], http:"), 0, 0, "for gateways only"),
        ("shop/v", to("cart", "cart").replace("http:", "gateways: [g, mesh], http:"), 1, 0, ""),
        ("shop/v", to("cart", "cart").replace("http:", "exportTo: ['.'], http:"), 1, 0, ""),
        ("shop/v", to("cart", "cart").replace("http:", "exportTo: [shop, bank], http:"), 1, 0, ""),
        (
            "shop/v",
            to("cart", "cart").replace("http:", "exportTo: [bank], http:"),
            0,
            0,
            "does not export it",
        ),
    ] {
        let outcome = fresh(&objects(SERVICES, &virtual_service(name, &spec)));
        assert_eq!(rules(&outcome, "shop/cart").len(), of_shop, "{spec}");
        assert_eq!(rules(&outcome, "bank/cart").len(), of_bank, "{spec}");
        let (namespace, name) = name.split_once('/').expect("a name");
        let standing = &outcome.virtual_services[&Name::new(namespace, name)];
        assert_eq!(standing.hosts.is_empty(), of_shop + of_bank == 0, "{spec}");
        let said: Vec<&String> = standing.without_effect.iter().collect();
        assert_eq!(said.is_empty(), why.is_empty(), "{spec}: {said:?}");
        assert!(said.iter().all(|said| said.contains(why)), "{spec}: {said:?}");
    }
}

/// A waypoint of another namespace routes by what is written there, and by what the service's own namespace exports.
#[test]
fn who_routes_says_whose_rules_count() {
    let own = to("cart", "cart").replace("http:", "exportTo: ['.'], http:");
    let text = [
        virtual_service("shop/private", &own),
        virtual_service("shop/public", &to("cart", "cart")),
        virtual_service("infra/theirs", &to("cart.shop.svc.cluster.local", "cart.shop.svc.cluster.local")),
        virtual_service("bank/nobody", &to("cart.shop.svc.cluster.local", "cart.shop.svc.cluster.local")),
    ];
    let mut all = objects(SERVICES, &text.concat());
    assert_eq!(
        rules(&fresh(&all), "shop/cart"),
        ["shop/private http[0] 0 -> cart.shop:80", "shop/public http[0] 0 -> cart.shop:80"]
    );
    all.services.get_mut(&Name::new("shop", "cart")).expect("it is there").seen_from = "infra".into();
    assert_eq!(
        rules(&fresh(&all), "shop/cart"),
        ["infra/theirs http[0] 0 -> cart.shop:80", "shop/public http[0] 0 -> cart.shop:80"]
    );
}

#[test]
fn several_for_one_host_count_one_after_the_other() {
    let dated = |name: &str, created: &str| {
        let text = virtual_service(name, &to("cart", "cart"));
        text.replace("{name:", &format!("{{creationTimestamp: '{created}', name:"))
    };
    let text = [
        virtual_service("shop/b", &to("cart", "cart")),
        virtual_service("shop/a", &to("cart", "cart")),
        virtual_service("shop/0-wild", &to("*.svc.cluster.local", "cart")),
        virtual_service("shop/1-wild", &to("*.shop.svc.cluster.local", "cart")),
        dated("shop/young", "2026-02-01T00:00:00Z"),
        dated("shop/old", "2026-01-01T00:00:00Z"),
    ];
    let outcome = fresh(&objects(SERVICES, &text.concat()));
    let from: Vec<String> = rules(&outcome, "shop/cart")
        .iter()
        .map(|rule| rule.split(' ').next().unwrap_or_default().replace("shop/", ""))
        .collect();
    assert_eq!(from, ["old", "young", "a", "b", "1-wild", "0-wild"]);
}

#[test]
fn references_resolve_or_are_named() {
    let subsets = destination_rule(
        "shop/r",
        "{host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2}]}",
    );
    for (destination, expected) in [
        ("{host: cart}", "cart.shop:80"),
        ("{host: cart.bank.svc.cluster.local}", "cart.bank:80"),
        ("{host: reviews}", "reviews.shop"),
        ("{host: reviews, port: {number: 9443}}", "reviews.shop:9443"),
        ("{host: reviews, subset: v1}", "reviews.shop v1"),
        ("{host: reviews, subset: v3}", " without DestinationRule subset shop/reviews v3"),
        ("{host: cart, subset: v1}", " without DestinationRule subset shop/cart v1"),
        ("{host: cart, port: {number: 81}}", " without Service shop/cart port 81"),
        ("{host: nobody}", " without Service nobody.shop.svc.cluster.local"),
        ("{host: example.com}", " without Service example.com"),
    ] {
        let spec = format!("{{hosts: [cart], http: [{{route: [{{destination: {destination}}}]}}]}}");
        let outcome = fresh(&objects(SERVICES, &(virtual_service("shop/v", &spec) + &subsets)));
        assert_eq!(
            rules(&outcome, "shop/cart"),
            [format!("shop/v http[0] 0 -> {expected}")],
            "{destination}"
        );
        let missing = expected.split_once(" without ").map(|(_, missing)| missing);
        let said = outcome
            .unresolved
            .get(&key("shop/cart"))
            .map(|missing| missing.iter().cloned().collect::<Vec<_>>());
        assert_eq!(
            said,
            missing.map(|missing| vec![format!("VirtualService shop/v http[0]: {missing}").into()]),
            "{destination}"
        );
        assert_eq!(outcome.last_good.contains_key(&key("shop/cart")), missing.is_none());
    }
    let split = "{hosts: [cart], http: [{route: [{destination: {host: reviews, subset: v1}, weight: 95}, {destination: \
                 {host: reviews, subset: v9}, weight: 5}]}]}";
    let outcome = fresh(&objects(SERVICES, &(virtual_service("shop/v", split) + &subsets)));
    assert_eq!(
        rules(&outcome, "shop/cart"),
        ["shop/v http[0] 0 -> 95 reviews.shop v1 without DestinationRule subset shop/reviews v9"]
    );
    let named = &outcome.routings[&key("shop/cart")].destinations[&key("shop/reviews")];
    assert_eq!(&*named.cause, "DestinationRule shop/r");
}

#[test]
fn rules_for_gateways_alone_are_left_out() {
    let spec = "{hosts: [cart], gateways: [mesh, g], http: [\
                {match: [{gateways: [g], port: 80}], route: [{destination: {host: cart}}]}, \
                {match: [{gateways: [g], port: 80}, {gateways: [mesh], port: 81}], route: [{destination: {host: cart}}]}]}";
    let outcome = fresh(&objects(SERVICES, &virtual_service("shop/v", spec)));
    assert_eq!(rules(&outcome, "shop/cart"), ["shop/v http[1] 1 -> cart.shop:80"]);
    assert_eq!(outcome.routings[&key("shop/cart")].http[0].matches[0].scope.port, Some(81));
}

#[test]
fn delegates_stand_in_the_place_of_who_names_them() {
    let root = |delegate: &str| {
        format!(
            "{{hosts: [cart], http: [{{name: r, match: [{{uri: {{prefix: /api}}, headers: {{x: {{exact: y}}}}}}], \
             timeout: 3s, delegate: {delegate}}}, {{route: [{{destination: {{host: cart}}}}]}}]}}"
        )
    };
    let inner = |export: &str| {
        format!(
            "{{{export}http: [{{name: i, match: [{{uri: {{prefix: /api/v1}}}}], route: [{{destination: {{host: cart}}}}]}}, \
             {{match: [{{uri: {{prefix: /other}}}}], route: [{{destination: {{host: cart}}}}]}}, \
             {{timeout: 1s, route: [{{destination: {{host: reviews.shop.svc.cluster.local}}}}]}}]}}"
        )
    };
    let own = "shop/v http[1] 0 -> cart.shop:80";
    for (delegate, name, export, expected) in [
        (
            "{name: d}",
            "shop/d",
            "",
            vec!["shop/d http[0] 1 -> cart.shop:80", "shop/d http[2] 1 -> reviews.shop", own],
        ),
        // Short names are of the namespace of who writes them.
        (
            "{name: d, namespace: bank}",
            "bank/d",
            "",
            vec!["bank/d http[0] 1 -> cart.bank:80", "bank/d http[2] 1 -> reviews.shop", own],
        ),
        (
            "{name: d}",
            "bank/d",
            "",
            vec!["shop/v http[0] 1 ->  without VirtualService shop/d (delegate)", own],
        ),
        (
            "{name: d, namespace: bank}",
            "bank/d",
            "exportTo: ['.'], ",
            vec!["shop/v http[0] 1 ->  without VirtualService bank/d (delegate)", own],
        ),
    ] {
        let text = virtual_service("shop/v", &root(delegate)) + &virtual_service(name, &inner(export));
        let outcome = fresh(&objects(SERVICES, &text));
        assert_eq!(rules(&outcome, "shop/cart"), expected, "{delegate} {export}");
        let rule = &outcome.routings[&key("shop/cart")].http[0];
        if expected.len() == 3 {
            let Action::Forward(forward) = &rule.action else { panic!("{rule:?}") };
            assert_eq!(
                forward.timeout.map(|timeout| timeout.as_secs()),
                Some(3),
                "the root's, where none is said"
            );
            assert_eq!(rule.name.as_deref(), Some("r-i"));
            assert_eq!(rule.matches[0].headers.len(), 1, "the root's match too");
            let Action::Forward(second) = &outcome.routings[&key("shop/cart")].http[1].action else {
                panic!()
            };
            assert_eq!(second.timeout.map(|timeout| timeout.as_secs()), Some(1), "its own before the root's");
        }
        let (namespace, name) = name.split_once('/').expect("a name");
        let standing = &outcome.virtual_services[&Name::new(namespace, name)];
        assert_eq!(standing.without_effect.is_empty(), expected.len() == 3);
    }
}

#[test]
fn what_cannot_be_read_takes_everything_and_answers_that() {
    let spec = "{hosts: [cart], http: [{match: [{uri: {prefix: /a}}], headers: {request: {set: {x: '%REQ%'}}}, \
                route: [{destination: {host: cart}}]}, {route: [{destination: {host: cart}}]}]}";
    let outcome = fresh(&objects(SERVICES, &virtual_service("shop/v", spec)));
    let said = rules(&outcome, "shop/cart");
    assert_eq!(
        said[0],
        "shop/v http[0] 0 ->  without header `x`: %REQ% is not supported in a header's value; write %% for a percent sign"
    );
    assert!(outcome.unresolved.contains_key(&key("shop/cart")));
}

/// What waypoints cannot do yet is said of who asked for it, by its name.
#[test]
fn what_is_not_carried_out_is_named() {
    let rule = |policy: &str| format!("{{host: cart, trafficPolicy: {policy}}}");
    for (spec, expected) in [
        (rule("{loadBalancer: {simple: RANDOM}}"), &[] as &[&str]),
        (rule("{loadBalancer: {consistentHash: {httpHeaderName: x}}}"), &[]),
        (rule("{outlierDetection: {interval: 5s}, retryBudget: {percent: 20}}"), &[]),
        (rule("{loadBalancer: {consistentHash: {httpCookie: {name: c, ttl: 0s}}}}"), &[]),
        (
            rule("{portLevelSettings: [{port: {number: 80}, connectionPool: {tcp: {maxConnections: 1}}}]}"),
            &[],
        ),
    ] {
        let outcome = fresh(&objects(SERVICES, &destination_rule("shop/cart", &spec)));
        let standing = &outcome.destination_rules[&Name::new("shop", "cart")];
        let said: Vec<&str> = standing.fields(|feature| !feature.is_carried()).collect();
        assert_eq!(said, expected, "{spec}");
    }
    for (more, expected) in [
        ("http: [{route: [{destination: {host: cart}}]}]", &[] as &[&str]),
        ("http: [{route: [{destination: {host: cart}}], mirror: {host: cart}}]", &[]),
        ("tcp: [{route: [{destination: {host: cart}}]}]", &[]),
    ] {
        let outcome =
            fresh(&objects(SERVICES, &virtual_service("shop/cart", &format!("{{hosts: [cart], {more}}}"))));
        let standing = &outcome.virtual_services[&Name::new("shop", "cart")];
        let said: Vec<&str> = standing.fields(|feature| !feature.is_carried()).collect();
        assert_eq!(said, expected, "{more}");
    }
}

/// Rules of several for one host are put behind one another; what is never asked because of that is told.
#[test]
fn a_shadowed_virtual_service_is_told_by_which() {
    let some =
        "{hosts: [cart], http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: cart}}]}]}";
    let told = |texts: &[String]| {
        let outcome = fresh(&objects(SERVICES, &texts.concat()));
        outcome.virtual_services[&Name::new("shop", "b")].without_effect.iter().cloned().collect::<Vec<_>>()
    };
    let own = virtual_service("shop/b", some);
    assert!(told(&[virtual_service("shop/a", some), own.clone()]).is_empty());
    assert!(
        told(&[virtual_service("shop/c", &to("cart", "cart")), own.clone()]).is_empty(),
        "it comes later"
    );
    assert_eq!(
        told(&[virtual_service("shop/a", &to("cart", "cart")), own.clone()]),
        [
            "its rules for HTTP are never used for cart.shop.svc.cluster.local: those of VirtualService shop/a, which is older, \
          come first, and its http[0] takes everything"
        ]
    );
    // A wildcard's come behind those of the exact name, which is what it is for.
    assert!(told(&[virtual_service("shop/a", &to("*.shop.svc.cluster.local", "cart")), own]).is_empty());
}
