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
