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
     annotations: {istio.io/for-service-account: reviews}\nspec: {gatewayClassName: istio-waypoint, listeners: [{name: m, port: \
     15008, protocol: HBONE}]}\n";

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

const AROUND: &str = "Info IST0167 only waypoints enforce what is for targetRefs: it says nothing of traffic that goes around \
                      them => set the label lateen.dev/require-waypoint: \"true\", or use a `selector` of the pods' labels";

#[test]
fn parameters_of_waypoints_that_cannot_be_used() {
    let gateway = |reference: &str| {
        WAYPOINT
            .trim_start_matches("---\n")
            .replace("spec: {", &format!("spec:\n  {{infrastructure: {{parametersRef: {reference}}}, "))
    };
    let map = |name: &str, data: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: shop}}\ndata: {data}\n"
        )
    };
    let to_p = "{group: '', kind: ConfigMap, name: p}";
    let at = "8:36 Error IST0106";
    for (reference, map, expected) in [
        (to_p, map("p", "{deployment: 'spec: {replicas: 2}', service: ''}"), None),
        (
            "{group: a.b, kind: C, name: p}",
            map("p", "{}"),
            Some(format!(
                "{at} infrastructure.parametersRef must name a ConfigMap (group: \"\", kind: ConfigMap), not C of group \"a.b\""
            )),
        ),
        (
            to_p,
            map("q", "{}"),
            Some("8:36 Warning IST0101 there is no ConfigMap `p` in namespace shop".to_owned()),
        ),
        // Files without any ConfigMap are not all there is.
        (to_p, String::new(), None),
        (
            to_p,
            map("p", "{deploymnt: ''}"),
            Some(format!(
                "{at} ConfigMap shop/p: \"deploymnt\" is none of serviceAccount, deployment, service, podDisruptionBudget, \
                 horizontalPodAutoscaler"
            )),
        ),
        (
            to_p,
            map("p", "{deployment: '3'}"),
            Some(format!("{at} ConfigMap shop/p: deployment: it is no object but a single value or a list")),
        ),
    ] {
        let said = said(&[&gateway(reference), MESH, &map]);
        assert_eq!(said, Vec::from_iter(expected), "{reference} {map}");
    }
    // What is no waypoint is nobody's here.
    let other = gateway("{group: a.b, kind: C, name: p}").replace("istio-waypoint", "istio");
    assert_eq!(said(&[&other, MESH]), Vec::<String>::new());
}

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
    assert_eq!(said(&[&policy("shop", rule), MESH]), [&*allow_text]);
    assert_eq!(said(&[&policy("shop", &deny), MESH]), [deny_text]);
    assert_eq!(said(&[&policy("shop", rule), MESH, WAYPOINT]), Vec::<String>::new());
    // What the mesh does not run stands in front of nobody, whatever it is called.
    for (word, other) in [("istio-waypoint", "another-waypoint"), ("HBONE", "HTTP")] {
        assert_eq!(said(&[&policy("shop", rule), MESH, &WAYPOINT.replace(word, other)]), [&*allow_text]);
    }
    // A label without a value asks for nothing, so the namespace's counts.
    let labelled = MESH.replace(
        "labels: {app: reviews}}\n    spec",
        "labels: {app: reviews, istio.io/use-waypoint: \"\"}}\n    spec",
    );
    assert_ne!(labelled, MESH);
    assert_eq!(said(&[&policy("shop", rule), &labelled]), [&*allow_text]);
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
    assert_eq!(said(&[&policy("shop", attached), MESH, WAYPOINT]), [format!("5:3 {AROUND}")]);
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
            vec![
                &format!("5:3 {AROUND}"),
                "5:38 Warning IST0101 there is no Service `reviews` in namespace shop",
            ],
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
    assert_eq!(said(&[&asks.replace("waypoint: w", "waypoint: \"\""), MESH]), Vec::<String>::new());
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

#[test]
fn ingress_past_a_waypoint() {
    let fix = "set the label lateen.dev/require-waypoint: \"true\": then nothing comes but through it";
    for (kind, value, warned) in [
        ("Service", "true", true),
        ("Service", "false", false),
        ("Namespace", "true", true),
        ("ServiceAccount", "true", false),
    ] {
        let labels = format!("  labels:\n    istio.io/ingress-use-waypoint: \"{value}\"\n");
        let place = if kind == "Namespace" { "" } else { "  namespace: shop\n" };
        let spec = if kind == "Service" { "spec: {ports: [{port: 80}]}\n" } else { "" };
        let object = format!("apiVersion: v1\nkind: {kind}\nmetadata:\n  name: other\n{labels}{place}{spec}");
        let expected = format!(
            "6:5 Warning LAT0006 istio.io/ingress-use-waypoint is not carried out: requests from outside come past the waypoint => {fix}"
        );
        assert_eq!(said(&[&object, MESH]), Vec::from_iter(warned.then_some(expected)), "{kind} {value}");
    }
}

#[test]
fn what_nobody_enforces() {
    for (spec, expected) in [
        ("  action: ALLOW\n  rules: [{}]\n", vec![]),
        (
            "  action: AUDIT\n  rules: [{}]\n",
            vec!["5:3 Info IST0167 AUDIT: waypoints note what matches, node agents note nothing"],
        ),
        (
            "  action: CUSTOM\n  provider: {name: opa}\n  rules: [{}]\n",
            vec![
                "5:3 Warning IST0167 CUSTOM: this version of the mesh asks no provider, so what the rules match is refused, \
                 whatever it would say",
            ],
        ),
    ] {
        assert_eq!(said(&[&policy("shop", spec), MESH]), expected, "{spec}");
    }
    let rule = |name: &str, spec: &str| {
        let head = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: ";
        format!("{head}{{name: {name}, namespace: shop}}\nspec: {spec}\n")
    };
    let (strict, open) = (rule("a", "{mtls: {mode: STRICT}}"), rule("b", "{mtls: {mode: DISABLE}}"));
    let one = rule("c", "{selector: {matchLabels: {app: reviews}}, mtls: {mode: DISABLE}}");
    assert_eq!(said(&[&strict, &one, MESH]), Vec::<String>::new());
    let found = said(&[&strict, &open, MESH]);
    let expected = "Warning IST0167 PeerAuthentication shop/a is for the same workloads: only one of the two counts => remove one \
                    of them";
    assert!(found.len() == 1 && found[0].ends_with(expected), "{found:?}");
}

#[test]
fn ports_of_services_that_no_pod_has() {
    let service = |ports: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: reviews, namespace: shop}}\nspec:\n  selector: {{app: reviews}}\n  \
             ports: [{ports}]\n"
        )
    };
    let naming = |port: &str| {
        policy("shop", &format!("  rules:\n  - to:\n    - operation: {{ports: [\"{port}\"]}}\n"))
    };
    let wrong = "Warning IST0167 80 is a port of Service shop/reviews; what reaches its pods has theirs, 8080: no connection has \
                 this one => write \"8080\"";
    for (ports, named, is_wrong) in [
        ("{port: 80, targetPort: 8080}", "80", true),
        ("{port: 80, targetPort: 8080}", "8080", false),
        ("{name: a, port: 80, targetPort: 8080}, {name: b, port: 81, targetPort: 80}", "80", false),
        ("{port: 80}", "80", false),
        ("{port: 80, targetPort: http}", "80", false),
    ] {
        let found = said(&[&naming(named), MESH, &service(ports)]);
        let told = found.iter().any(|finding| finding.ends_with(wrong));
        assert_eq!((told, found.len()), (is_wrong, usize::from(is_wrong)), "{ports} {named}: {found:?}");
    }
}

#[test]
fn labels_that_enrol_nobody() {
    let labelled = |label: &str| {
        format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels:\n    {label}\n")
    };
    for (label, expected) in [
        ("istio.io/dataplane-mode: ambient", vec![]),
        ("istio.io/dataplane-mode: none", vec![]),
        ("istio.io/rev: default", vec![]),
        (
            "istio.io/dataplane-mode: Ambient",
            vec![
                "6:30 Warning IST0133 `Ambient` is no mode of the mesh: it counts as if the label were not there => did you \
                 mean `ambient`?",
            ],
        ),
        (
            "istio.io/dataplane-mode: sidecar",
            vec![
                "6:30 Warning IST0133 `sidecar` is no mode of the mesh: it counts as if the label were not there => `ambient` \
                 enrols, `none` keeps out",
            ],
        ),
        (
            "istio.io/dataplane-mod: ambient",
            vec![
                "6:5 Warning IST0133 nobody heeds the label `istio.io/dataplane-mod` => did you mean `istio.io/dataplane-mode`?",
            ],
        ),
    ] {
        assert_eq!(said(&[&labelled(label)]), expected, "{label}");
    }
}

#[test]
fn rules_that_name_what_is_not_there_or_are_never_used() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews, namespace: shop}\nspec: {ports: [{port: 80}]}";
    let of = |kind: &str, spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: v, namespace: shop}}\nspec: {spec}"
        )
    };
    let subsets = of("DestinationRule", "{host: reviews.shop.svc.cluster.local, subsets: [{name: v1}]}");
    let route = |to: &str| {
        of("VirtualService", &format!("{{hosts: [reviews], http: [{{route: [{{destination: {to}}}]}}]}}"))
    };
    for (text, expected) in [
        (route("{host: reviews, subset: v1}"), vec![]),
        (route("{host: example.com}"), vec![]),
        (
            route("{host: ratings}"),
            vec!["4:63 Warning IST0101 there is no Service `ratings` in namespace shop"],
        ),
        (
            route("{host: reviews, subset: v2}"),
            vec![
                "4:80 Warning IST0101 no DestinationRule of shop/reviews has the subset `v2` => until there is one, what \
                 was in force for the host stays",
            ],
        ),
        (
            of("VirtualService", "{hosts: [reviews], http: [{delegate: {name: d}}]}"),
            vec!["4:51 Warning IST0101 there is no VirtualService `d` in namespace shop"],
        ),
        (
            of("DestinationRule", "{host: rating}").replace("name: v,", "name: w,"),
            vec![
                "4:8 Warning IST0174 there is no Service `rating` in namespace shop: the rule is for nobody",
            ],
        ),
        (
            of(
                "VirtualService",
                "{hosts: [reviews], http: [{match: [{port: 80}], redirect: {uri: /a}}, {match: [{port: 80}], redirect: \
                 {uri: /b}}, {redirect: {uri: /c}}, {redirect: {uri: /d}}]}",
            ),
            vec![
                "4:86 Warning IST0131 the match is never used: spec.http[0] has the same",
                "4:144 Warning IST0130 the rule is never used: spec.http[2] takes everything => put it before that one",
            ],
        ),
    ] {
        assert_eq!(said(&[&text, MESH, service, &subsets]), expected, "{text}");
    }
}

#[test]
fn rules_that_share_a_host_lack_a_port_or_select_nobody() {
    let of = |kind: &str, name: &str, spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}"
        )
    };
    let service = |ports: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: reviews, namespace: shop}}\nspec: {{selector: {{app: reviews}}, \
             ports: [{ports}]}}"
        )
    };
    let one = service("{port: 80}");
    let two = service("{name: a, port: 80}, {name: b, port: 81}");
    let to = "route: [{destination: {host: reviews}}]";
    let rule = |name: &str, rule: &str| {
        of("VirtualService", name, &format!("{{hosts: [reviews], http: [{{{rule}}}]}}"))
    };
    let with_port = to.replace("reviews}", "reviews, port: {number: 81}}");
    let old = rule("w", to).replace("name: w,", "name: w, creationTimestamp: '2020-01-01T00:00:00Z',");
    let subset = |labels: &str| {
        of(
            "DestinationRule",
            "d",
            &format!("{{host: reviews, subsets: [{{name: s, labels: {{{labels}}}}}]}}"),
        )
    };
    for (text, others, expected) in [
        (rule("v", to), vec![one.clone()], vec![]),
        (
            rule("v", to),
            vec![two.clone()],
            vec![
                "Warning IST0112 Service shop/reviews has 2 ports, and none is said here: it is the one that the client asked \
                  for, where that is one of them => add `port: {number: ...}`",
            ],
        ),
        (rule("v", &with_port), vec![two], vec![]),
        // By name `v` comes first, but the other is older.
        (
            rule("v", to),
            vec![one.clone(), old],
            vec![
                "Warning IST0109 VirtualService `w` is for reviews too, and older: its rules come first, and one of them takes \
                  everything: no rule for HTTP here is ever used for it => put the rules into one VirtualService, or let one \
                  delegate to the others",
            ],
        ),
        (
            rule("w", to),
            vec![one.clone(), rule("v", &format!("match: [{{uri: {{prefix: /a}}}}], {to}"))],
            vec![
                "Warning IST0109 VirtualService `v` is for reviews too, and older: its rules come first, what they take does \
                  not come here => put the rules into one VirtualService, or let one delegate to the others",
            ],
        ),
        (subset("app: reviews"), vec![one.clone()], vec![]),
        (
            subset("version: v9"),
            vec![one],
            vec![
                "Warning IST0173 no pod behind Service `reviews` belongs to the subset `s` => requests that are routed to it \
                  are answered with 503",
            ],
        ),
    ] {
        let all: Vec<&str> =
            [text.as_str(), MESH].into_iter().chain(others.iter().map(String::as_str)).collect();
        let found = said(&all);
        let found: Vec<&str> =
            found.iter().filter_map(|one| one.split_once(' ').map(|(_, rest)| rest)).collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn network_policies_that_keep_tunnels_away() {
    let mesh = MESH.replace(
        "metadata: {name: shop}",
        "metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}",
    );
    let outside =
        mesh.replace("{app: reviews}}\n    spec", "{app: reviews, istio.io/dataplane-mode: none}}\n    spec");
    let policy = |spec: &str| {
        let head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: n, namespace: shop}\nspec:";
        format!("{head}\n  {spec}\n")
    };
    let another =
        policy("{podSelector: {}, ingress: [{ports: [{port: 15008}]}]}").replace("name: n,", "name: m,");
    let incoming = "LAT0008 Deployment shop/reviews is in the mesh: tunnels to it arrive on TCP port 15008, which these rules \
                    keep out";
    let outgoing = "LAT0008 Deployment shop/reviews is in the mesh: its tunnels go to TCP port 15008, which these rules keep in";
    for (spec, expected) in [
        ("{podSelector: {matchLabels: {app: reviews}}, ingress: [{ports: [{port: 9080}]}]}", vec![incoming]),
        ("{podSelector: {}, ingress: [{ports: [{port: 9080}, {port: 15008}]}]}", vec![]),
        ("{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}", vec![]),
        ("{podSelector: {matchLabels: {app: other}}, ingress: [{ports: [{port: 9080}]}]}", vec![]),
        (
            "{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [reviews]}]}, ingress: [{ports: [{port: 1}]}]}",
            vec![],
        ),
        // On purpose, and no less for who is not in the mesh.
        ("{podSelector: {}, ingress: []}", vec![]),
        ("{podSelector: {}, policyTypes: [Egress], ingress: [{ports: [{port: 9080}]}]}", vec![]),
        (
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: 9080}]}]}",
            vec![outgoing],
        ),
        (
            "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 53}, {port: 53, protocol: UDP}]}]}",
            vec![],
        ),
        (
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 1.2.3.4/32}}], ports: [{port: 5432}]}]}",
            vec![],
        ),
    ] {
        let one = policy(spec);
        let found = said(&[&one, &mesh]);
        let codes: Vec<&str> =
            found.iter().map(|found| found.split(" => ").next().unwrap_or_default()).collect();
        assert_eq!(codes.len(), expected.len(), "{spec}: {found:?}");
        for (found, expected) in codes.iter().zip(&expected) {
            assert!(found.ends_with(expected), "{spec}: {found}");
        }
        for other in [outside.as_str(), MESH] {
            assert_eq!(said(&[&one, other]), Vec::<String>::new(), "{spec}: not in the mesh");
        }
        assert_eq!(
            said(&[&one, &another, &mesh]).len(),
            expected.iter().filter(|one| **one == outgoing).count()
        );
    }
    assert_eq!(
        said(&[&policy("{podSelector: {}, ingress: [{ports: [{port: 9080}]}]}"), &mesh]),
        [format!("5:39 Warning {incoming} => add `- {{protocol: TCP, port: 15008}}` to the ports")]
    );
    // Who is in the mesh is decided as nodes' agents do: a word that is no mode counts for nothing, a sidecar keeps out.
    let one = policy("{podSelector: {}, ingress: [{ports: [{port: 9080}]}]}");
    let pod = |metadata: &str| {
        mesh.replace("{app: reviews}}\n    spec", &format!("{{app: reviews{metadata}}}\n    spec"))
    };
    let unheard_of = said(&[&one, &pod(", istio.io/dataplane-mode: other}")]);
    assert!(unheard_of.iter().any(|found| found.contains("LAT0008")), "{unheard_of:?}");
    let sidecar = said(&[&one, &pod("}, annotations: {sidecar.istio.io/status: \"{}\"}")]);
    assert_eq!(sidecar, Vec::<String>::new());
}
