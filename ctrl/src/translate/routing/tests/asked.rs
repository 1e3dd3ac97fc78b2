//! What is asked of waypoints, by the fields that ask it.

use super::*;

/// What is asked of waypoints is known by the field that asks it: where one cannot do it, its owner reads where it stands.
#[test]
fn what_is_asked_of_waypoints_is_named_by_its_field() {
    let routes = "route: [{destination: {host: cart}}]";
    for (spec, expected) in [
        ("tls: [{match: [{sniHosts: [cart]}], route: [{destination: {host: cart}}]}]".to_owned(), "tls"),
        ("tcp: [{route: [{destination: {host: cart}}]}]".to_owned(), "tcp"),
        (format!("http: [{{{routes}}}]"), "http[0]"),
        (format!("http: [{{{routes}, rewrite: {{uri: /b}}}}]"), "http[0] http[0].rewrite"),
        (format!("http: [{{{routes}, rewrite: {{authority: b}}}}]"), "http[0] http[0].rewrite"),
        (
            format!("http: [{{{routes}, rewrite: {{uriRegexRewrite: {{match: a, rewrite: b}}}}}}]"),
            "http[0] http[0].rewrite.uriRegexRewrite",
        ),
        (format!("http: [{{{routes}, retries: {{attempts: 2}}}}]"), "http[0] http[0].retries"),
        // There are to be none.
        (format!("http: [{{{routes}, retries: {{attempts: 0}}}}]"), "http[0]"),
        (
            format!("http: [{{{routes}, mirrors: [{{destination: {{host: cart}}}}]}}]"),
            "http[0] http[0].mirrors",
        ),
    ] {
        let outcome =
            fresh(&objects(SERVICES, &virtual_service("shop/v", &format!("{{hosts: [cart], {spec}}}"))));
        let asked = &outcome.virtual_services[&Name::new("shop", "v")].asked;
        let fields: Vec<&str> = asked.values().flatten().map(String::as_str).collect();
        assert_eq!(fields.join(" "), expected, "{spec}");
    }
    for (spec, expected) in [
        ("trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}", ""),
        ("subsets: [{name: v1}]", "subsets"),
        ("trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}", "trafficPolicy.connectionPool"),
        (
            "trafficPolicy: {portLevelSettings: [{port: {number: 80}, outlierDetection: {}}]}",
            "trafficPolicy.portLevelSettings[0].outlierDetection",
        ),
    ] {
        let text = destination_rule("shop/r", &format!("{{host: cart, {spec}}}"));
        let asked = &fresh(&objects(SERVICES, &text)).destination_rules[&Name::new("shop", "r")].asked;
        let fields: Vec<&str> = asked.values().flatten().map(String::as_str).collect();
        assert_eq!(fields.join(" "), expected, "{spec}");
    }
    let checked = destination_rule("shop/r", "{host: cart}").replace(
        "namespace: shop}",
        "namespace: shop, annotations: {lateen.dev/health-check: 'tcpSocket: {port: 1}'}}",
    );
    let asked = &fresh(&objects(SERVICES, &checked)).destination_rules[&Name::new("shop", "r")].asked;
    assert_eq!(asked.values().flatten().collect::<Vec<_>>(), ["lateen.dev/health-check"]);
}
