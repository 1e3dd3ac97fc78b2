//! What people are told about their objects.

use std::path::Path;
use std::sync::Arc;

use manifest::{Batch, parse};

use super::*;
use crate::compile::deployments::Deployment;
use crate::translate::Context;

/// The conditions of the last object, as `TYPE STATUS REASON` and the message.
fn told(text: &str) -> Option<(String, String)> {
    let file: Arc<Path> = Arc::from(Path::new("mesh.yaml"));
    let parsed = parse(text, &file);
    let objects: Vec<_> = parsed.objects.into_iter().map(Arc::new).collect();
    let mut compiler = Compiler::new(Context::new(model::mesh::Settings::default()));
    compiler.apply(&Batch { upserted: objects.clone(), ..Batch::default() });
    let all = conditions(&compiler, objects.last()?, &parsed.findings);
    let one = all.first()?;
    Some((format!("{} {} {}", one.kind, one.status, one.reason), one.message.clone()))
}

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    )
}

fn peer(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// The second condition of a policy in a mesh with the service `cart` and the waypoint `w`.
fn told_of_waypoints(spec: &str) -> (String, String) {
    let others = "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n---\n\
        apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: w, namespace: shop}\nspec: {gatewayClassName: istio-waypoint, listeners: [{name: m, port: 15008, protocol: HBONE}]}\n---\n";
    let file: Arc<Path> = Arc::from(Path::new("mesh.yaml"));
    let parsed = parse(&format!("{others}{}", policy(spec)), &file);
    let objects: Vec<_> = parsed.objects.into_iter().map(Arc::new).collect();
    let mut compiler = Compiler::new(Context::new(model::mesh::Settings::default()));
    compiler.apply(&Batch { upserted: objects.clone(), ..Batch::default() });
    let all = conditions(&compiler, objects.last().unwrap(), &parsed.findings);
    let [_, one] = &all[..] else { panic!("{all:?}") };
    (format!("{} {} {}", one.kind, one.status, one.reason), one.message.clone())
}

#[test]
fn policies_at_waypoints_by_table() {
    let attached = |targets: &str| format!("{{targetRefs: [{targets}], rules: [{{}}]}}");
    let gateway = |name: &str| format!("{{kind: Gateway, group: gateway.networking.k8s.io, name: {name}}}");
    let class = "{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}";
    let service = |name: &str| format!("{{kind: Service, group: '', name: {name}}}");
    let entry = "{kind: ServiceEntry, group: networking.istio.io, name: e}";
    for (spec, condition, part) in [
        ("{rules: [{to: [{operation: {methods: [GET]}}]}]}".to_owned(), "True Accepted", "in front of"),
        ("{action: AUDIT, rules: [{}]}".to_owned(), "True Accepted", "in front of"),
        (attached(&gateway("w")), "True Accepted", "of its targets"),
        (attached(&service("cart")), "True Accepted", "of its targets"),
        (attached(&gateway("v")), "False TargetNotFound", "Gateway shop/v: there is no waypoint"),
        (attached(&service("tart")), "False TargetNotFound", "Service shop/tart: there is no service"),
        (attached(entry), "False TargetNotFound", "not carried"),
        (attached(class), "False TargetNotFound", "only a policy of the namespace istio-system"),
        (
            "{rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}".to_owned(),
            "False UnsupportedValue",
            "rule 0 (mesh.yaml:14:16): not seen by this version's waypoints: from.source.requestPrincipals",
        ),
        (
            "{action: CUSTOM, provider: {name: opa}, rules: [{}]}".to_owned(),
            "False UnsupportedValue",
            "cannot ask the provider \"opa\"",
        ),
        ("{action: DNEY}".to_owned(), "False Invalid", "everything it is for is refused"),
    ] {
        let (shown, message) = told_of_waypoints(&spec);
        assert_eq!(shown, format!("WaypointAccepted {condition}"), "{spec} {message}");
        assert!(message.contains(part), "{part:?} is missing in {message:?}");
    }
}

#[test]
fn conditions_by_table() {
    let two = format!("{}---\n{}", peer("a", "shop", "{mtls: {mode: STRICT}}"), peer("b", "shop", "{}"));
    let cart = "selector: {matchLabels: {app: cart}}";
    for (text, condition, part) in [
        (policy("{rules: [{}]}"), "True Accepted", "for 0 pods"),
        (
            policy("{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}"),
            "False UnsupportedValue",
            "rule 0 (mesh.yaml:4:30): layer 7 attributes are not seen at layer 4: to.operation.methods; there such a rule refuses",
        ),
        (
            policy("{rules: [{to: [{operation: {paths: [/a]}}]}]}"),
            "False UnsupportedValue",
            "lets nothing through",
        ),
        (policy("{action: DNEY}"), "False Invalid", "mesh.yaml:4:16: error"),
        (policy("{action: AUDIT, rules: [{}]}"), "False UnsupportedValue", "AUDIT: node agents note nothing"),
        (policy("{action: CUSTOM, provider: {name: opa}, rules: [{}]}"), "False UnsupportedValue", "\"opa\""),
        (
            policy("{targetRefs: [{kind: Service, group: '', name: cart}], rules: [{}]}"),
            "False UnsupportedValue",
            "goes around",
        ),
        (peer("a", "shop", "{mtls: {mode: STRICT}}"), "True Accepted", "enforced"),
        (peer("a", "shop", "{mtls: {mode: STRCT}}"), "False Invalid", "counts as STRICT"),
        (two, "False Conflicted", "PeerAuthentication shop/a"),
        (
            peer("a", "istio-system", &format!("{{{cart}, mtls: {{mode: STRICT}}}}")),
            "True Accepted",
            "own namespace only",
        ),
    ] {
        let (shown, message) = told(&text).unwrap();
        assert_eq!(shown, format!("ZtunnelAccepted {condition}"), "{text}{message}");
        assert!(message.contains(part), "{part:?} is missing in {message:?}");
    }
    let route = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: v, namespace: shop}\nspec: {}\n";
    let (shown, message) = told(route).unwrap();
    assert_eq!(shown, "Accepted False UnsupportedKind");
    assert!(message.contains("ServiceEntry"), "{message}");
    let opts_out =
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: n, labels: {istio.io/use-waypoint: none}}\n";
    assert_eq!(told(opts_out), None);
    assert_eq!(told("apiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n"), None);
}

const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: w, namespace: shop}\n\
                       spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n";
const CLASS: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: istio-waypoint}\n\
                     spec: {controllerName: istio.io/mesh-controller}\n";
const MADE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: w, namespace: shop}\nspec: {clusterIP: 10.96.0.9, ports: [{port: 15008}]}\n---\n\
                    apiVersion: v1\nkind: Pod\nmetadata: {name: w-1, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: w}}\n\
                    spec: {containers: [{name: c, image: i}]}\n\
                    status: {phase: Running, podIPs: [{ip: 10.0.0.9}], conditions: [{type: Ready, status: 'True'}]}\n";

/// All conditions of the last object, as `TYPE STATUS REASON`, and their messages; and its addresses.
fn all_told(text: &str) -> (Vec<String>, String, Option<String>) {
    let file: Arc<Path> = Arc::from(Path::new("mesh.yaml"));
    let parsed = parse(text, &file);
    let objects: Vec<_> = parsed.objects.into_iter().map(Arc::new).collect();
    let mut compiler = Compiler::new(Context::new(model::mesh::Settings::default()));
    compiler.apply(&Batch { upserted: objects.clone(), ..Batch::default() });
    let last = objects.last().unwrap();
    let all = conditions(&compiler, last, &parsed.findings);
    let shown = all.iter().map(|one| format!("{} {} {}", one.kind, one.status, one.reason)).collect();
    let messages = all.iter().map(|one| one.message.as_str()).collect::<Vec<_>>().join("; ");
    (shown, messages, addresses(&compiler, last).map(|addresses| addresses.to_string()))
}

#[test]
fn gateways_by_table() {
    let ready = format!("{MADE}---\n{GATEWAY}");
    let for_account = |name: &str| {
        GATEWAY.replace(
            "{name: w,",
            &format!("{{name: {name}, annotations: {{istio.io/for-service-account: a}},"),
        )
    };
    for (text, expected, part) in [
        (
            GATEWAY.to_owned(),
            vec!["Accepted True Accepted", "Programmed False AddressNotAssigned"],
            "no Service shop/w",
        ),
        (ready.clone(), vec!["Accepted True Accepted", "Programmed True Programmed"], "1 of 1"),
        (
            ready.replace("status: 'True'", "status: 'False'"),
            vec!["Accepted True Accepted", "Programmed False Pending"],
            "never ready",
        ),
        (
            ready.replace("{clusterIP:", "{type: LoadBalancer, clusterIP:"),
            vec!["Accepted True Accepted", "Programmed False AddressNotAssigned"],
            "type LoadBalancer",
        ),
        (
            ready.replace("istio-waypoint", "lateen-waypoint"),
            vec!["Accepted True Accepted", "Programmed True Programmed"],
            "1 of 1",
        ),
        (
            GATEWAY.replace("istio-waypoint", "istio"),
            vec!["Accepted False UnsupportedValue"],
            "class \"istio\"",
        ),
        (GATEWAY.replace("HBONE", "HTTP"), vec!["Accepted False ListenersNotValid"], "protocol: HBONE"),
        (
            ready.replace(
                "{name: w, namespace: shop}\nspec: {gate",
                "{name: w, namespace: shop, labels: {istio.io/waypoint-for: al}}\nspec: {gate",
            ),
            vec!["Accepted False UnsupportedValue", "Programmed True Programmed"],
            "\"al\"",
        ),
        (
            format!("{}---\n{}", for_account("v"), for_account("w")),
            vec!["Accepted False Conflicted", "Programmed False AddressNotAssigned"],
            "Gateway shop/v",
        ),
    ] {
        let (shown, messages, _) = all_told(&text);
        assert_eq!(shown, expected, "{text}{messages}");
        assert!(messages.contains(part), "{part:?} is missing in {messages:?}");
    }
    assert_eq!(all_told(CLASS).0, ["Accepted True Accepted"]);
    assert_eq!(all_told(&CLASS.replace("istio.io/mesh", "example.org/mesh")).0, Vec::<String>::new());
    let at = r#"[{"type":"Hostname","value":"w.shop.svc.cluster.local"},{"type":"IPAddress","value":"10.96.0.9"}]"#;
    assert_eq!(all_told(&ready).2.as_deref(), Some(at));
    assert_eq!(all_told(GATEWAY).2, None);
}

/// On one machine a Gateway whose parameters cannot be used runs without them, and is told so.
#[test]
fn unused_parameters_are_told() {
    let deployment = |name: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: shop, annotations: \
             {{lateen.dev/unused-parameters: no ConfigMap; it runs with 1 replica}}}}\nspec: {{selector: {{}}, template: {{}}}}\n---\n"
        )
    };
    let (shown, messages, _) = all_told(&(deployment("w") + MADE + "---\n" + GATEWAY));
    assert_eq!(shown, ["Accepted False InvalidParameters", "Programmed True Programmed"]);
    assert!(messages.contains("no ConfigMap; it runs with 1 replica"), "{messages}");
    let (shown, ..) = all_told(&(deployment("other") + MADE + "---\n" + GATEWAY));
    assert_eq!(shown[0], "Accepted True Accepted");
}

/// What became of the objects that are made for a Gateway is said in its conditions.
#[test]
fn what_is_made_for_gateways_is_told_by_table() {
    let file: Arc<Path> = Arc::from(Path::new("mesh.yaml"));
    let objects: Vec<_> = parse(GATEWAY, &file).objects.into_iter().map(Arc::new).collect();
    let mut compiler = Compiler::new(Context::new(model::mesh::Settings::default()));
    compiler.apply(&Batch { upserted: objects.clone(), ..Batch::default() });
    let name = Name::new("shop", "w");
    assert!(!compiler.deployments().is_pending(&name), "nobody makes anything here");
    compiler.deployments_mut().set([].into());
    assert!(compiler.deployments().is_pending(&name));
    let accepted = "Accepted True Accepted";
    let (lacks, resolved) = ("Accepted False InvalidParameters", "ResolvedRefs True ResolvedRefs");
    let unassigned = "Programmed False AddressNotAssigned";
    for (told, expected) in [
        (Deployment::Made, [accepted, unassigned, resolved]),
        (Deployment::Unresolved("p".into()), [lacks, unassigned, "ResolvedRefs False InvalidParameters"]),
        (Deployment::Invalid("p".into()), [lacks, unassigned, resolved]),
        (Deployment::Refused("p".into()), [accepted, "Programmed False Invalid", resolved]),
    ] {
        compiler.deployments_mut().set([(name.clone(), told.clone())].into());
        let all = conditions(&compiler, &objects[0], &[]);
        let shown: Vec<_> =
            all.iter().map(|one| format!("{} {} {}", one.kind, one.status, one.reason)).collect();
        assert_eq!(shown, expected, "{told:?}");
    }
}

#[test]
fn who_asks_for_a_waypoint_is_told_by_table() {
    let service = |labels: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s, namespace: shop, labels: {{{labels}}}}}\nspec: {{clusterIP: None, selector: {{app: s}}, ports: [{{port: 80}}]}}\n"
        )
    };
    let pod = |name: &str, account: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: s}}}}\nspec: {{serviceAccountName: {account}, containers: [{{name: c, image: i}}]}}\n"
        )
    };
    let namespace = |labels: &str| {
        format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{{labels}}}}}\n")
    };
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, namespace: shop}\n";
    let ready = format!("{MADE}---\n{GATEWAY}");
    let for_account = ready.replace(
        "{name: w, namespace: shop}\nspec: {gate",
        "{name: w, namespace: shop, annotations: {istio.io/for-service-account: a}}\nspec: {gate",
    );
    let bound = |rest: &str| vec![format!("istio.io/WaypointBound {rest}")];
    let (with, required) = ("istio.io/use-waypoint: w", "lateen.dev/require-waypoint: 'true'");
    for (parts, expected, part) in [
        (vec![ready.clone(), service(with)], bound("True WaypointAccepted"), "by its label"),
        (vec![GATEWAY.to_owned(), service(with)], bound("False WaypointIsNotReady"), "never been ready"),
        (vec![service(with)], bound("False WaypointIsNotReady"), "no Gateway shop/w"),
        (
            vec![
                ready.replace("namespace: shop", "namespace: far"),
                service(&format!("{with}, istio.io/use-waypoint-namespace: far")),
            ],
            bound("False AttachmentDenied"),
            "allowedRoutes",
        ),
        (
            vec![ready.clone(), namespace(with), service("")],
            bound("True WaypointAccepted"),
            "namespace's label",
        ),
        (vec![ready.clone(), namespace(with), pod("p", "a")], vec![], ""),
        (vec![ready.clone(), namespace(with)], bound("True WaypointAccepted"), "namespace's label"),
        (vec![for_account.clone(), pod("p", "a")], bound("True WaypointAccepted"), "for service account a"),
        (
            vec![for_account.clone(), account.to_owned()],
            bound("True WaypointAccepted"),
            "for service account a",
        ),
        (
            vec![for_account, pod("p", "a"), pod("q", "b"), service("")],
            vec!["WaypointAmbiguous True WaypointAmbiguous".to_owned()],
            "different waypoints",
        ),
        (
            vec![ready.clone(), service(&format!("{with}, {required}"))],
            bound("True WaypointAccepted"),
            "refuses all",
        ),
        (vec![ready, namespace(required)], bound("False WaypointRequired"), "refuses all"),
        (vec![service("istio.io/use-waypoint: none")], vec![], ""),
    ] {
        let text = parts.join("---\n");
        let (shown, messages, _) = all_told(&text);
        assert_eq!(shown, expected, "{text}{messages}");
        assert!(messages.contains(part), "{part:?} is missing in {messages:?}");
    }
}

#[test]
fn who_routes_is_told_where_and_what_is_missing() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\n\
                   spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n---\n";
    let route = |spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v, namespace: shop}}\nspec: {spec}\n"
        )
    };
    let to = |subset: &str| {
        format!("{{hosts: [cart], http: [{{route: [{{destination: {{host: cart{subset}}}}}]}}]}}")
    };
    for (text, condition, part) in [
        (route(&to("")), "False NoMatchingHost", "there is no service cart.shop.svc.cluster.local"),
        (service.to_owned() + &route(&to("")), "False NoWaypoint", "no waypoint stands in front"),
        (service.to_owned() + &route("{hosts: []}"), "False Invalid", "no rule"),
    ] {
        let (shown, message) = told(&text).unwrap();
        assert_eq!(shown, format!("Accepted {condition}"), "{text}{message}");
        assert!(message.contains(part), "{part:?} is missing in {message:?}");
    }
    // The service was there before: its default routing was good, and is held.
    let file: Arc<Path> = Arc::from(Path::new("mesh.yaml"));
    let mut compiler = Compiler::new(Context::new(model::mesh::Settings::default()));
    let mut last = Vec::new();
    for text in [service.to_owned(), route(&to(", subset: v1"))] {
        last = parse(&text, &file).objects.into_iter().map(Arc::new).collect();
        compiler.apply(&Batch { upserted: last.clone(), ..Batch::default() });
    }
    let all = conditions(&compiler, &last[0], &compiler.findings());
    let shown: Vec<String> = all.iter().map(|one| format!("{} {}", one.kind, one.status)).collect();
    assert_eq!(shown, ["Accepted False", "Held True"]);
    let expected = "cart.shop.svc.cluster.local: the last good routing is kept; there is no VirtualService shop/v http[0]: \
                    DestinationRule subset shop/cart v1";
    assert_eq!(all[1].message, expected);
    let finding = compiler.findings()[0].to_string();
    assert!(finding.starts_with("mesh.yaml:1:1: warning: cart.shop.svc.cluster.local keeps"), "{finding}");
}

/// A waypoint of another version does less than this controller's: who asks for more is told which one, and what.
#[test]
fn a_waypoint_that_lags_behind_is_named() {
    use xds::convert::routing::features::Feature;
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop, labels: {istio.io/use-waypoint: w}}\n\
                   spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n";
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: shop}\n\
                 spec: {hosts: [cart], http: [{rewrite: {uri: /}, route: [{destination: {host: cart}}]}]}\n";
    let file: Arc<Path> = Arc::from(Path::new("mesh.yaml"));
    let parsed = parse(&[MADE, GATEWAY, service, route].join("---\n"), &file);
    let objects: Vec<_> = parsed.objects.into_iter().map(Arc::new).collect();
    let mut compiler = Compiler::new(Context::new(model::mesh::Settings::default()));
    compiler.apply(&Batch { upserted: objects.clone(), ..Batch::default() });
    let told = |compiler: &Compiler| {
        let one = conditions(compiler, objects.last().unwrap(), &[]).remove(0);
        (format!("{} {}", one.status, one.reason), one.message)
    };
    assert_eq!(told(&compiler).0, "True Accepted");
    let (pod, other) = (Name::new("shop", "w-1"), Name::new("shop", "w-2"));
    // One that routes nothing of it, and one that lacks what is not asked for.
    compiler.lagging_mut().note(&other, vec![Feature::Rewrite], true);
    compiler.lagging_mut().note(&pod, vec![Feature::Fault], true);
    assert_eq!(told(&compiler).0, "True Accepted");
    compiler.lagging_mut().note(&pod, vec![Feature::Rewrite], true);
    let (shown, message) = told(&compiler);
    assert_eq!(shown, "False PartiallyInvalid");
    let part = "the waypoint shop/w-1 is of another version and does not carry out http[0].rewrite";
    assert!(message.contains(part), "{message}");
    for _ in 0..2 {
        assert_eq!(told(&compiler).0, "False PartiallyInvalid");
        compiler.lagging_mut().note(&pod, Vec::new(), false);
    }
    assert_eq!(told(&compiler).0, "True Accepted");
}
