//! Tables: a small mesh and one policy; what is said about the two together.

use std::{path::Path, sync::Arc};

use super::analyze;
use crate::parse;

const MESH: &str = r#"apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reviews, namespace: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews, namespace: shop}
spec:
  selector: {matchLabels: {app: reviews}}
  template:
    metadata: {labels: {app: reviews}}
    spec: {serviceAccountName: reviews, containers: [{name: c}]}
"#;

const WAYPOINT: &str = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata:\n  name: w\n  namespace: shop\n  \
     annotations: {istio.io/for-service-account: reviews}\nspec: {gatewayClassName: istio-waypoint}\n";

fn policy(namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: {namespace}}}\nspec:\n{spec}"
    )
}

/// Every finding as `LINE:COLUMN LEVEL CODE message => fix`, about the policy in the first document.
fn said(texts: &[&str]) -> Vec<String> {
    let parsed = parse(&texts.join("\n---\n"), &Arc::from(Path::new("f.yaml")));
    assert!(parsed.findings.is_empty(), "{:?}", parsed.findings);
    let objects: Vec<_> = parsed.objects.into_iter().map(Arc::new).collect();
    let one = |finding: crate::Finding| {
        let fix = finding.fix.map(|fix| format!(" => {fix}")).unwrap_or_default();
        let at = finding.position;
        format!("{}:{} {} {} {}{fix}", at.line, at.column, finding.level, finding.code, finding.message)
    };
    analyze(&objects, "istio-system").into_iter().map(one).collect()
}

const FIX: &str = "put a waypoint in front: a Gateway of class istio-waypoint with the annotation \
                   istio.io/for-service-account, or the label istio.io/use-waypoint";

#[test]
fn selectors_that_select_nobody() {
    let selecting = |labels: &str| format!("  selector: {{matchLabels: {labels}}}\n");
    for (namespace, labels, expected) in [
        ("shop", "{app: reviews}", vec![]),
        ("istio-system", "{app: reviews}", vec![]),
        (
            "shop",
            "{app: review}",
            vec![
                "5:14 Warning IST0127 no workload in these files has the labels app=review: the policy is for nobody => \
                  did you mean `app: reviews`?",
            ],
        ),
        (
            "shop",
            "{apps: reviews}",
            vec![
                "5:14 Warning IST0127 no workload in these files has the labels apps=reviews: the policy is for nobody => \
                  did you mean the label `app`?",
            ],
        ),
        ("default", "{app: reviews}", vec![]),
    ] {
        assert_eq!(said(&[&policy(namespace, &selecting(labels)), MESH]), expected, "{namespace} {labels}");
    }
    assert_eq!(
        said(&[&policy("shop", &selecting("{app: x}"))]),
        Vec::<String>::new(),
        "alone, nothing is known"
    );
}

#[test]
fn attributes_that_nobody_can_see() {
    let rule = "  selector: {matchLabels: {app: reviews}}\n  rules:\n  - to:\n    - operation:\n        methods: [GET]\n";
    let deny = format!("  action: DENY\n{rule}");
    let none = "none stands in front of Deployment shop/reviews";
    let allow_text = format!(
        "9:9 Warning IST0167 `methods` can only be seen by a waypoint, and {none}: at layer 4 this rule matches nothing, so \
         what only it allows is refused => {FIX}"
    );
    let deny_text = format!(
        "10:9 Warning IST0167 `methods` can only be seen by a waypoint, and {none}: at layer 4 this rule refuses every \
         connection that the rest of it matches, whatever is asked on it => {FIX}"
    );
    assert_eq!(said(&[&policy("shop", rule), MESH]), [allow_text]);
    assert_eq!(said(&[&policy("shop", &deny), MESH]), [deny_text]);
    assert_eq!(said(&[&policy("shop", rule), MESH, WAYPOINT]), Vec::<String>::new());
    let alone = said(&[&policy("shop", rule)]);
    assert!(
        alone[0].starts_with(
            "9:9 Info IST0167 `methods` can only be seen by a waypoint, and these files show none"
        )
    );
    let when = "  rules:\n  - when:\n    - {key: source.ip, values: [10.0.0.1]}\n    - {key: \"request.headers[x]\", values: [a]}\n";
    let found = said(&[&policy("shop", when), MESH]);
    assert!(found[0].starts_with("8:8 Warning IST0167 `request.headers[x]` can only"), "{found:?}");
    let layer_4 = "  rules:\n  - to:\n    - operation: {ports: [\"80\"]}\n";
    assert_eq!(said(&[&policy("shop", layer_4), MESH]), Vec::<String>::new());
    let attached = "  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: w}]\n  rules:\n  - to:\n    - operation: \
                    {methods: [GET]}\n";
    assert_eq!(said(&[&policy("shop", attached), MESH, WAYPOINT]), Vec::<String>::new());
}

#[test]
fn names_that_lead_nowhere() {
    let principal =
        |name: &str| format!("  rules:\n  - from:\n    - source:\n        principals: [\"{name}\"]\n");
    for (spec, expected) in [
        (principal("cluster.local/ns/shop/sa/reviews"), vec![]),
        (principal("cluster.local/ns/shop/sa/*"), vec![]),
        (principal("cluster.local/ns/default/sa/curl"), vec![]),
        (
            principal("cluster.local/ns/shop/sa/review"),
            vec![
                "8:22 Warning IST0101 there is no service account `review` in namespace shop => did you mean `reviews`?",
            ],
        ),
        (
            principal("cluster.local/ns/shops/sa/reviews"),
            vec!["8:22 Warning IST0101 namespace `shops` is not among these files => did you mean `shop`?"],
        ),
        (
            "  targetRefs: [{kind: Service, name: reviews}]\n".to_owned(),
            vec!["5:38 Warning IST0101 there is no Service `reviews` in namespace shop"],
        ),
    ] {
        assert_eq!(said(&[&policy("shop", &spec), MESH]), expected, "{spec}");
    }
    assert_eq!(
        said(&[&policy("shp", "  rules: [{}]\n"), MESH]),
        ["3:21 Warning IST0101 namespace `shp` is not among these files => did you mean `shop`?"]
    );
    let waypoint = WAYPOINT.replace("account: reviews", "account: revews");
    assert_eq!(
        said(&[&waypoint, MESH]),
        [
            "7:17 Warning IST0101 there is no service account `revews` in namespace shop: the waypoint is for nobody => did you \
          mean `reviews`?"
        ]
    );
    let asks = "apiVersion: v1\nkind: Service\nmetadata:\n  name: s\n  namespace: shop\n  labels:\n    istio.io/use-waypoint: w\n\
                spec: {ports: [{port: 80}]}\n";
    assert_eq!(
        said(&[asks, MESH]),
        [
            "7:5 Warning IST0101 there is no Gateway `w` in namespace shop: no waypoint takes this traffic => add the Gateway \
          shop/w, or remove the label"
        ]
    );
    assert_eq!(said(&[asks, MESH, WAYPOINT]), Vec::<String>::new());
}

#[test]
fn what_passes_beside_a_strict_namespace() {
    let strict = |namespace: &str, mode: &str| {
        let head = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: ";
        format!("{head}{{name: p, namespace: {namespace}}}\nspec: {{mtls: {{mode: {mode}}}}}\n")
    };
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop}\nspec:\n  ports:\n  - {name: dns, port: 53, protocol: \
                   UDP}\n  - {name: quic, port: 443, protocol: UDP}\n  - {name: web, port: 80}\n";
    let expected = "7:39 Warning LAT0006 UDP port 443 passes beside the mesh: STRICT does not protect it, and no policy is \
                    asked => protect it with a NetworkPolicy";
    for (peers, expected) in [
        (vec![], vec![]),
        (vec![strict("shop", "PERMISSIVE")], vec![]),
        (vec![strict("shop", "STRICT")], vec![expected]),
        (vec![strict("istio-system", "STRICT")], vec![expected]),
        (vec![strict("istio-system", "STRICT"), strict("shop", "UNSET")], vec![expected]),
        (vec![strict("istio-system", "STRICT"), strict("shop", "PERMISSIVE")], vec![]),
    ] {
        let texts: Vec<&str> = std::iter::once(service).chain(peers.iter().map(String::as_str)).collect();
        assert_eq!(said(&texts), expected, "{peers:?}");
    }
    let host = MESH.replace("{serviceAccountName: reviews,", "{hostNetwork: true,");
    let found = said(&[&host, &strict("shop", "STRICT")]);
    assert!(found[0].contains("LAT0006 pods on the node's network are not captured"), "{found:?}");
}
