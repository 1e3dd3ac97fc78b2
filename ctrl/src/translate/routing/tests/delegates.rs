//! What of a delegate counts beside its root.

use super::*;

/// What a delegate takes is within what its root takes; of what is not, nothing is left.
#[test]
fn a_delegates_match_stays_within_the_roots() {
    for (root, inner, within) in [
        ("uri: {prefix: /a}", "uri: {prefix: /a/b}", true),
        ("uri: {prefix: /a}", "uri: {exact: /a}", true),
        ("uri: {prefix: /a}", "uri: {prefix: /b}", false),
        ("uri: {prefix: /a}", "uri: {regex: '/a.*'}", false),
        ("uri: {regex: '/a.*'}", "uri: {prefix: /a}", false),
        ("uri: {regex: '/a.*'}", "port: 80", true),
        ("uri: {exact: /a}", "uri: {exact: /a}", true),
        ("uri: {exact: /a}", "uri: {prefix: /a}", false),
        ("uri: {prefix: /a}, ignoreUriCase: true", "uri: {prefix: /a}, ignoreUriCase: true", true),
        ("uri: {prefix: /a}, ignoreUriCase: true", "uri: {prefix: /a}", false),
        ("headers: {x: {exact: a}}", "headers: {y: {exact: b}}", true),
        ("headers: {x: {exact: a}}", "headers: {x: {exact: b}}", false),
        ("withoutHeaders: {x: {exact: a}}", "withoutHeaders: {x: {exact: b}}", false),
        ("queryParams: {x: {exact: a}}", "queryParams: {x: {exact: b}}", false),
        ("port: 80", "port: 80", true),
        ("port: 80", "port: 81", false),
        ("port: 80", "uri: {prefix: /a}", true),
        ("sourceNamespace: web", "sourceNamespace: web", true),
        ("sourceNamespace: web", "sourceNamespace: shop", false),
        ("uri: {prefix: /a}", "sourceNamespace: web", true),
        ("sourceLabels: {app: web}", "sourceLabels: {app: web}", true),
        ("sourceLabels: {app: web}", "sourceLabels: {tier: a}", true),
        ("sourceLabels: {app: web}", "sourceLabels: {app: shop}", false),
        ("port: 80, gateways: [mesh]", "gateways: [mesh]", true),
        ("port: 80, gateways: [mesh]", "gateways: [mesh, g]", false),
        ("port: 80", "gateways: [mesh, g]", true),
    ] {
        let outer = format!("{{hosts: [cart], http: [{{match: [{{{root}}}], delegate: {{name: d}}}}]}}");
        let inner_spec =
            format!("{{http: [{{match: [{{{inner}}}], route: [{{destination: {{host: cart}}}}]}}]}}");
        let text = virtual_service("shop/v", &outer) + &virtual_service("shop/d", &inner_spec);
        let found = rules(&fresh(&objects(SERVICES, &text)), "shop/cart");
        assert_eq!(
            found.iter().any(|rule| rule.starts_with("shop/d ")),
            within,
            "{root} and {inner}: {found:?}"
        );
    }
}

/// Whom copies go to is said by one of the two, never by both: the delegate where it says any.
#[test]
fn a_delegates_mirrors_come_before_the_roots() {
    let mirrors = "mirrors: [{destination: {host: reviews, port: {number: 9443}}}], ";
    for (root, inner, expected) in [
        ("", "", &[][..]),
        ("mirror: {host: reviews}, ", "", &["reviews.shop"]),
        (mirrors, "", &["reviews.shop:9443"]),
        ("mirror: {host: reviews}, ", mirrors, &["reviews.shop:9443"]),
        (mirrors, "mirror: {host: cart}, ", &["cart.shop:80"]),
        ("", mirrors, &["reviews.shop:9443"]),
    ] {
        let text =
            virtual_service("shop/v", &format!("{{hosts: [cart], http: [{{{root}delegate: {{name: d}}}}]}}"))
                + &virtual_service(
                    "shop/d",
                    &format!("{{http: [{{{inner}route: [{{destination: {{host: cart}}}}]}}]}}"),
                );
        let outcome = fresh(&objects(SERVICES, &text));
        let Action::Forward(forward) = &outcome.routings[&key("shop/cart")].http[0].action else { panic!() };
        let found: Vec<String> = forward.mirrors.iter().map(|one| shown(&one.destination)).collect();
        assert_eq!(found, expected, "{root} and {inner}");
    }
}

/// Two objects of ordinary size are no millions of rules: the product is refused before any of it is made, and what was good
/// stays in force.
#[test]
fn what_delegates_multiply_to_is_bounded() {
    const BOTH: usize = 2_000;
    let lists = |hosts: &str, rule: &str, count: usize| {
        format!("{{{hosts}http: [{}]}}", vec![rule; count].join(", "))
    };
    let answer = "{directResponse: {status: 200}}";
    let matched = |count: usize, rest: &str| {
        let one = |number: usize| format!("{{uri: {{prefix: /{number}}}}}");
        let all: Vec<String> = (0..count).map(one).collect();
        format!("{{match: [{}], {rest}}}", all.join(", "))
    };
    let long = format!("{{directResponse: {{status: 200, body: {{string: {}}}}}}}", "x".repeat(1 << 20));
    for (root, times, inner, of, limit) in [
        ("{delegate: {name: d}}".to_owned(), BOTH, answer.to_owned(), BOTH, "16384 rules"),
        (
            matched(300, "delegate: {name: d}"),
            1,
            matched(300, "directResponse: {status: 200}"),
            1,
            "16384 matches",
        ),
        ("{delegate: {name: d}}".to_owned(), 100, long, 1, "32 MiB"),
    ] {
        let text = virtual_service("shop/v", &lists("hosts: [cart], ", &root, times))
            + &virtual_service("shop/d", &lists("", &inner, of));
        let all = objects(SERVICES, &text);
        let begun = std::time::Instant::now();
        let outcome = fresh(&all);
        assert!(begun.elapsed().as_secs_f64() < 1.0, "{limit}: {:?}", begun.elapsed());
        let missing = outcome.unresolved[&key("shop/cart")].iter().next().expect("what there is no room for");
        assert!(missing.starts_with("VirtualService shop/v http["), "{missing}");
        assert!(missing.contains(limit) && missing.ends_with("(delegate shop/d)"), "{missing}");
        // What comes behind would never be asked.
        let rules = &outcome.routings[&key("shop/cart")].http;
        assert!(rules.last().is_some_and(|rule| rule.matches.is_empty() && rules.len() < BOTH * 10));
        // The service alone was good before.
        let good = fresh(&objects(SERVICES, "")).last_good;
        let held = compile(&all, &good);
        assert!(held.held.contains_key(&key("shop/cart")));
        assert_eq!(held.routings[&key("shop/cart")], good[&key("shop/cart")]);
    }
}

/// Each of these objects may be there, and so many of them for one host may not; after the first pattern that has no room
/// none is compiled.
#[test]
fn the_patterns_of_a_host_are_bounded_together() {
    let rule = format!(
        "{{match: [{{uri: {{regex: '/{}'}}}}], directResponse: {{status: 200}}}}",
        "[0-9]{1000}".repeat(10)
    );
    let spec = format!("{{hosts: [cart], http: [{}]}}", vec![rule; 4].join(", "));
    let all: Vec<String> = (0..50).map(|number| virtual_service(&format!("shop/v{number}"), &spec)).collect();
    let outcome = fresh(&objects(SERVICES, &all.concat()));
    let missing = &outcome.unresolved[&key("shop/cart")];
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert!(missing.iter().all(|missing| missing.contains("8 MiB")), "{missing:?}");
    let rules = &outcome.routings[&key("shop/cart")].http;
    assert!(rules.len() < 40 && rules.last().is_some_and(|rule| rule.matches.is_empty()), "{}", rules.len());
}
